use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::*;

const A: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xa);
const GATEWAY: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0xa]);
const OTHER: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0xb]);

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

type Make = fn() -> Cache;

/// Packets are told apart by their length.
fn packet(octets: usize) -> Packet {
    Packet { body: Bytes::from(vec![0; octets]), ..Packet::default() }
}

fn actions(cache: &mut Cache) -> Vec<Action> {
    cache.actions.drain(..).collect()
}

fn solicit(to: Option<EthernetAddress>) -> Action {
    Action::Solicit { target: A, to }
}

fn advert(mac: Option<EthernetAddress>, solicited: bool, overriding: bool) -> Advert {
    Advert { target: A, mac, solicited, overriding }
}

/// Each state is built from the one before.
fn incomplete() -> Cache {
    let mut cache = Cache::new(Some(GATEWAY));
    assert_eq!(cache.route(A, packet(1), at(0)), None);
    assert_eq!(actions(&mut cache), [solicit(None)]);
    cache
}

fn reachable() -> Cache {
    let mut cache = incomplete();
    cache.advertised(advert(Some(MAC), true, true), at(10));
    assert_eq!(actions(&mut cache), [Action::Send { to: MAC, packet: packet(1) }]);
    cache
}

fn stale() -> Cache {
    let mut cache = reachable();
    cache.advertised(advert(Some(OTHER), false, false), at(20));
    assert!(matches!(cache.entries[&A].state, State::Stale { mac: MAC }));
    cache
}

fn delay() -> Cache {
    let mut cache = stale();
    assert_eq!(cache.route(A, packet(2), at(1000)), Some((MAC, packet(2))));
    assert!(matches!(cache.entries[&A].state, State::Delay { .. }));
    cache
}

fn probe() -> Cache {
    let mut cache = delay();
    cache.expire(at(6000));
    assert_eq!(actions(&mut cache), [solicit(Some(MAC))]);
    assert!(matches!(cache.entries[&A].state, State::Probe { .. }));
    cache
}

fn name(cache: &Cache, now: Instant) -> &'static str {
    match cache.entries.get(&A).map(|entry| &entry.state) {
        None => "none",
        Some(State::Incomplete { .. }) => "incomplete",
        Some(State::Reachable { until, .. }) if now >= *until => "stale",
        Some(State::Reachable { .. }) => "reachable",
        Some(State::Stale { .. }) => "stale",
        Some(State::Delay { .. }) => "delay",
        Some(State::Probe { .. }) => "probe",
    }
}

#[test]
fn an_advertisement_does_what_rfc_4861_appendix_c_says() {
    let (same, other, none) = (Some(MAC), Some(OTHER), None);
    let states: [(&str, Make); 5] = [
        ("incomplete", incomplete),
        ("reachable", reachable),
        ("stale", stale),
        ("delay", delay),
        ("probe", probe),
    ];
    // Solicited, override, address → for each state: what it becomes, and with whose address.
    let unchanged =
        [("incomplete", none), ("reachable", same), ("stale", same), ("delay", same), ("probe", same)];
    let confirmed = |mac| [("reachable", mac); 5];
    let mut only_confirmed = confirmed(same);
    only_confirmed[0] = ("incomplete", none);
    // What waited was sent at once, so that a resolved neighbour is in DELAY.
    let first = |mac, rest: [(&'static str, Option<EthernetAddress>); 5]| {
        let mut all = rest;
        all[0] = ("delay", mac);
        all
    };
    let mut doubted = unchanged;
    doubted[1] = ("stale", same);
    let cases = [
        ("solicited, same", advert(same, true, false), confirmed(same)),
        ("solicited, override, same", advert(same, true, true), confirmed(same)),
        ("solicited, no address", advert(none, true, true), only_confirmed),
        ("solicited, override, other", advert(other, true, true), confirmed(other)),
        ("solicited, other", advert(other, true, false), {
            let mut all = doubted;
            all[0] = ("reachable", other);
            all
        }),
        ("unsolicited, same", advert(same, false, false), first(same, unchanged)),
        ("unsolicited, override, same", advert(same, false, true), first(same, unchanged)),
        ("unsolicited, override, other", advert(other, false, true), first(other, [("stale", other); 5])),
        ("unsolicited, other", advert(other, false, false), first(other, doubted)),
        ("unsolicited, no address", advert(none, false, true), unchanged),
    ];
    for (case, advert, expected) in cases {
        for ((state, make), (becomes, mac)) in states.iter().zip(expected) {
            let mut cache = make();
            cache.advertised(advert, at(6500));
            let found = (name(&cache, at(6500)), cache.entries[&A].state.mac());
            assert_eq!(found, (becomes, mac), "{case}, when {state}");
        }
    }
}

#[test]
fn an_advertisement_that_nobody_asked_for_is_not_remembered() {
    let mut cache = Cache::new(None);
    cache.advertised(advert(Some(MAC), true, true), at(0));
    assert_eq!((name(&cache, at(0)), actions(&mut cache)), ("none", vec![]));
}

#[test]
fn a_neighbour_that_never_answers_is_asked_three_times_and_then_given_up() {
    let mut cache = incomplete();
    assert_eq!(cache.deadline(), Some(at(1000)));
    cache.expire(at(999));
    assert_eq!(actions(&mut cache), [], "too early");
    for again in [1000, 2000] {
        cache.expire(at(again));
        assert_eq!(actions(&mut cache), [solicit(None)], "{again}");
    }
    cache.expire(at(3000));
    assert_eq!(actions(&mut cache), [Action::Unreachable { packet: packet(1) }]);
    assert_eq!((cache.deadline(), name(&cache, at(3000))), (None, "none"));
    assert_eq!(cache.route(A, packet(9), at(3500)), None);
    assert_eq!(actions(&mut cache), [solicit(None)], "a later packet starts anew");
}

#[test]
fn packets_wait_in_order_and_the_oldest_give_way() {
    let mut cache = incomplete();
    for octets in 2..=260 {
        assert_eq!(cache.route(A, packet(octets), at(octets as u64)), None);
    }
    assert_eq!(actions(&mut cache), [], "one solicitation is enough");
    assert_eq!(cache.overflowed, 4);
    cache.advertised(advert(Some(MAC), true, true), at(100));
    let expected: Vec<_> = (5..=260).map(|octets| Action::Send { to: MAC, packet: packet(octets) }).collect();
    assert_eq!(actions(&mut cache), expected);
}

#[test]
fn the_gateway_is_found_before_it_is_needed_and_what_many_connections_send_waits_for_it() {
    let mut cache = Cache::new(Some(GATEWAY));
    cache.look_for_kept(at(0));
    cache.look_for_kept(at(0));
    assert_eq!(actions(&mut cache), [Action::Solicit { target: GATEWAY, to: None }]);
    for nth in 0..10_000 {
        assert_eq!(cache.route(GATEWAY, packet(1 + nth % 100), at(1)), None);
    }
    assert_eq!((actions(&mut cache), cache.overflowed), (vec![], 0));
    assert!(!cache.has_found_kept());
    cache.advertised(Advert { target: GATEWAY, ..advert(Some(MAC), true, true) }, at(2));
    assert!(cache.has_found_kept());
    assert_eq!(actions(&mut cache).len(), 10_000);
    cache.look_for_kept(at(3));
    assert_eq!(actions(&mut cache), [], "it is known");
}

#[test]
fn octets_that_wait_are_bounded_too() {
    let mut cache = Cache::new(None);
    for _ in 0..3 {
        assert_eq!(cache.route(A, packet(65_000), at(0)), None);
    }
    assert_eq!(cache.overflowed, 1);
    let State::Incomplete { waiting, octets, .. } = &cache.entries[&A].state else { panic!() };
    assert_eq!((waiting.len(), *octets), (2, 130_000));
}

#[test]
fn a_neighbour_in_use_is_probed_before_it_is_given_up() {
    let mut cache = reachable();
    assert_eq!(cache.deadline(), None, "reachable needs no timer");
    assert!(cache.route(A, packet(2), at(30_009)).is_some());
    assert_eq!(name(&cache, at(30_009)), "reachable");
    assert!(cache.route(A, packet(2), at(30_010)).is_some(), "the first packet to a stale neighbour is sent");
    assert_eq!((name(&cache, at(30_010)), cache.deadline()), ("delay", Some(at(35_010))));
    for (now, expected) in [(35_010, "probe"), (36_010, "probe"), (37_010, "probe"), (38_010, "none")] {
        assert_eq!(cache.deadline(), Some(at(now)));
        cache.expire(at(now));
        assert_eq!(name(&cache, at(now)), expected, "{now}");
        let asked = if expected == "none" { vec![] } else { vec![solicit(Some(MAC))] };
        assert_eq!(actions(&mut cache), asked, "{now}");
    }
    assert_eq!(cache.deadline(), None);
}

#[test]
fn a_neighbour_that_is_not_used_costs_nothing() {
    let mut cache = reachable();
    cache.expire(at(1_000_000));
    assert_eq!((actions(&mut cache), cache.deadline()), (vec![], None));
}

#[test]
fn progress_above_keeps_a_neighbour_reachable() {
    let cases: [(&str, Make); 4] =
        [("reachable", reachable), ("stale", stale), ("delay", delay), ("probe", probe)];
    for (state, make) in cases {
        let mut cache = make();
        cache.confirm(A, at(7000));
        assert_eq!(name(&cache, at(36_999)), "reachable", "{state}");
        assert_eq!(name(&cache, at(37_000)), "stale", "{state}");
        assert_eq!(cache.deadline(), None, "{state}");
        assert_eq!(actions(&mut cache), [], "{state}");
    }
    let mut cache = incomplete();
    cache.confirm(A, at(7000));
    assert_eq!(name(&cache, at(7000)), "incomplete", "there is no address to confirm");
}

#[test]
fn who_asks_us_is_remembered_but_not_trusted() {
    let mut cache = Cache::new(None);
    cache.heard(A, MAC, at(0));
    assert_eq!((name(&cache, at(0)), cache.deadline()), ("stale", None));
    let cases: [(&str, Make, EthernetAddress, &str); 6] = [
        ("incomplete", incomplete, MAC, "delay"),
        ("reachable", reachable, MAC, "reachable"),
        ("reachable, another address", reachable, OTHER, "stale"),
        ("delay", delay, MAC, "delay"),
        ("probe", probe, MAC, "probe"),
        ("probe, another address", probe, OTHER, "stale"),
    ];
    for (state, make, mac, expected) in cases {
        let mut cache = make();
        cache.heard(A, mac, at(6500));
        assert_eq!((name(&cache, at(6500)), cache.entries[&A].state.mac()), (expected, Some(mac)), "{state}");
    }
}

fn nth(n: usize) -> Ipv6Addr {
    Ipv6Addr::from_bits(0x2001_0db8 << 96 | 0x1_0000 | n as u128)
}

#[test]
fn a_full_cache_forgets_the_oldest_that_is_not_reachable_and_never_the_gateway() {
    let mut cache = Cache::new(Some(GATEWAY));
    cache.heard(GATEWAY, MAC, at(0));
    let _ = cache.route(A, packet(1), at(1));
    cache.advertised(advert(Some(MAC), true, true), at(1));
    for n in 0..MAX_ENTRIES {
        cache.heard(nth(n), OTHER, at(2 + n as u64));
    }
    assert_eq!(cache.entries.len(), MAX_ENTRIES);
    assert!(cache.entries.contains_key(&GATEWAY) && cache.entries.contains_key(&A));
    let gone: Vec<_> = (0..MAX_ENTRIES).filter(|n| !cache.entries.contains_key(&nth(*n))).collect();
    assert_eq!(gone, [0, 1]);
}

#[test]
fn a_scan_of_the_link_holds_few_packets() {
    let mut cache = Cache::new(Some(GATEWAY));
    for n in 0..5000 {
        assert_eq!(cache.route(nth(n), packet(1000), at(n as u64)), None);
    }
    assert_eq!(cache.entries.len(), MAX_INCOMPLETE);
    assert_eq!(cache.timers.len(), MAX_INCOMPLETE, "no timer outlives its entry");
}

#[test]
fn a_scan_of_the_link_does_not_stop_the_search_for_the_gateway() {
    let mut cache = Cache::new(Some(GATEWAY));
    assert_eq!(cache.route(GATEWAY, packet(1), at(0)), None);
    for n in 0..1000 {
        assert_eq!(cache.route(nth(n), packet(1000), at(1)), None);
    }
    assert!(cache.entries.contains_key(&GATEWAY));
}
