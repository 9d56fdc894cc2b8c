//! The size of packets is found out by sending some (RFC 8899, RFC 4821, RFC 8201 section 4).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::harness::{MS, Make, Solo, plain};
use super::pair::{A, B, Pair, pattern};
use crate::Instant;
use crate::tcp::tcb::Recovery;
use crate::tcp::{Config, MtuProbing, Path, Segment, Tcb};

const MINUTE: Duration = Duration::from_mins(1);

/// Segments fill packets of 1500 octets.
fn large() -> Config {
    Config { mss: 1440, sack: true, ..plain() }
}

fn modern() -> Config {
    Config { timestamps: true, window_scaling: true, receive_buffer: 1 << 20, ..large() }
}

/// Octets of the packet that carries it.
fn size(segment: &Segment) -> usize {
    60 + segment.options.wire_len() + segment.payload.len()
}

/// The way from A to B swallows what is larger than `mtu`, and says nothing.
fn swallow(pair: &mut Pair, mtu: usize) {
    pair.filters[A] = Box::new(move |_, segment| size(segment) <= mtu);
}

fn read_all(tcb: &mut Tcb) -> Vec<u8> {
    let chunks = core::iter::from_fn(|| Some(tcb.read(usize::MAX)).filter(|it| !it.is_empty()));
    chunks.flatten().collect()
}

/// A sends so many octets, which B must get whole; how long that takes.
fn carry(pair: &mut Pair, octets: usize, millis: u64) -> Duration {
    let mut written = 0;
    let mut read = 0;
    pair.run_until(millis, |pair| {
        let room = pair.end(A).writable().min(octets - written);
        assert!(pair.end(A).write(pattern(written, room)).is_empty());
        written += room;
        pair.transmit();
        let got = read_all(pair.end(B));
        assert!(got == pattern(read, got.len()), "other octets at {read}");
        read += got.len();
        pair.transmit();
        read == octets
    })
}

#[test]
fn a_path_that_swallows_large_packets_carries_on_and_its_size_is_found() {
    for config in [large(), modern(), Config { sack: false, ..large() }, Config { sack: false, ..modern() }] {
        for segmentation in [false, true] {
            for mtu in [1280, 1281, 1340, 1420, 1480, 1492] {
                let mut pair = Pair::established(config, config);
                pair.path.segmentation = segmentation;
                swallow(&mut pair, mtu);
                carry(&mut pair, 1 << 20, 60_000);
                let found = usize::from(pair.end(A).snd.path_mtu);
                assert!(found <= mtu && mtu < found + 8, "{found} of {mtu}, {segmentation} {config:?}");
                assert_eq!(pair.end(A).snd.timeouts, 0);
            }
        }
    }
}

#[test]
fn a_path_that_begins_to_swallow_large_packets_loses_no_octet() {
    let mut pair = Pair::established(modern(), modern());
    carry(&mut pair, 1 << 20, 60_000);
    assert_eq!(pair.end(A).snd.path_mtu, 1500);
    swallow(&mut pair, 1400);
    let took = carry(&mut pair, 1 << 20, 60_000);
    assert!(took < Duration::from_secs(20), "{took:?}");
    // One probe each round trip.
    for _ in 0..12 {
        carry(&mut pair, 1 << 20, 60_000);
    }
    assert!((1393..=1400).contains(&pair.end(A).snd.path_mtu));
}

#[test]
fn without_probing_nothing_large_ever_arrives() {
    let config = Config { mtu_probing: MtuProbing::Off, retries: 6, ..large() };
    let mut pair = Pair::established(config, config);
    swallow(&mut pair, 1400);
    assert!(pair.end(A).write(pattern(0, 10_000)).is_empty());
    pair.run(120_000);
    assert_eq!(pair.end(B).readable(), 0);
    assert!(pair.end(A).state.is_closed(), "{:?}", pair.end(A));
}

#[test]
fn small_segments_that_are_lost_make_no_packet_smaller() {
    let mut pair = Pair::established(modern(), modern());
    pair.filters[A] = Box::new(|_, _| false);
    assert!(pair.end(A).write(pattern(0, 900)).is_empty());
    pair.run(20_000);
    assert!(pair.end(A).snd.timeouts > 4);
    assert_eq!((pair.end(A).snd.path_mtu, &pair.end(A).snd.search), (1500, &None));
}

#[test]
fn after_an_outage_the_first_larger_packet_is_the_largest_and_all_is_as_before() {
    let mut pair = Pair::established(modern(), modern());
    carry(&mut pair, 1 << 20, 60_000);
    pair.filters[A] = Box::new(|_, _| false);
    assert!(pair.end(A).write(pattern(0, 200_000)).is_empty());
    pair.run(5_000);
    assert_eq!(pair.end(A).snd.path_mtu, 1280);
    pair.filters[A] = Box::new(|_, _| true);
    pair.run_until(60_000, |pair| pair.end(B).readable() == 200_000);
    read_all(pair.end(B));
    pair.run(200);
    assert_eq!(pair.end(A).snd.path_mtu, 1280);
    carry(&mut pair, 200_000, 60_000);
    assert_eq!((pair.end(A).snd.path_mtu, &pair.end(A).snd.search), (1500, &None));
}

/// Established, with a window of 40 segments in both senses, and a search between 1280 and 1500 octets.
fn searching(config: Config) -> Solo {
    let mut solo = Solo::established(config);
    solo.tcb.shrink(1280, 1500, solo.now);
    solo.tcb.congestion.cwnd = 40_000;
    solo
}

/// What was sent, by the sizes of its packets.
fn sizes(solo: &mut Solo) -> Vec<usize> {
    solo.segments().iter().map(size).collect()
}

/// Up to the acknowledgement `ack` something is missing; then `from` to `to` arrived.
fn hole(solo: &Solo, ack: u32, (from, to): (u32, u32)) -> Segment {
    let blocks = [(solo.iss + from, solo.iss + to)];
    if solo.tcb.sack { solo.ack(1, ack).sacks(&blocks) } else { solo.ack(1, ack) }
}

#[test]
fn a_probe_that_is_acknowledged_makes_segments_larger() {
    for segmentation in [false, true] {
        let mut solo = searching(large());
        solo.path.segmentation = segmentation;
        solo.write(12_000);
        let sent = solo.segments();
        assert_eq!((size(&sent[0]), sent[0].gso, sent[0].push), (1500, None, false), "{segmentation}");
        assert!(sent[1].payload.len() >= 1220 && sent[1].gso.is_none_or(|size| size == 1220));
        let nxt = solo.tcb.snd.nxt.0.wrapping_sub(solo.iss.0);
        solo.gets(solo.ack(1, nxt)).unwrap();
        assert_eq!((solo.tcb.mss(), solo.tcb.congestion.cwnd >= 40_000), (1440, true));
        assert_eq!(solo.tcb.snd.search, None, "nothing is larger");
    }
}

#[test]
fn a_lost_probe_is_sent_again_in_small_segments_and_slows_nothing_down() {
    for sack in [true, false] {
        let mut solo = searching(Config { sack, ..large() });
        solo.write(30_000);
        assert_eq!(sizes(&mut solo)[..3], [1500, 1280, 1280]);
        let before = solo.tcb.congestion.clone();
        for nth in 1..=3 {
            solo.now += 10 * MS;
            assert_eq!(solo.sent().len(), 0);
            solo.gets(hole(&solo, 1, (1441, 1441 + nth * 1220))).unwrap();
        }
        assert_eq!(solo.sent()[..2], ["1+1220 ack 1", "1221+220 ack 1"], "sack {sack}");
        // Nor do the duplicates that the rest of the flight causes.
        for nth in 4..=8 {
            solo.gets(hole(&solo, 1, (1441, 1441 + nth * 1220))).unwrap();
        }
        assert_eq!(solo.tcb.congestion, before, "sack {sack}");
        assert!(!matches!(solo.tcb.recovery, Recovery::Fast { .. }));
        assert_eq!((solo.tcb.mss(), solo.tcb.snd.timeouts), (1220, 0));
        solo.now += 10 * MS;
        let nxt = solo.tcb.snd.nxt.0.wrapping_sub(solo.iss.0);
        solo.gets(solo.ack(1, nxt)).unwrap();
        assert_eq!(solo.tcb.recovery, Recovery::Open { duplicates: 0 });
        assert!(solo.tcb.congestion.cwnd >= before.cwnd);
        solo.write(30_000);
        assert_eq!(sizes(&mut solo)[..2], [1389, 1280], "the middle of 1280 and 1499");
    }
}

#[test]
fn a_probe_that_is_lost_with_others_tells_nothing_but_congestion() {
    let mut solo = searching(large());
    solo.write(30_000);
    solo.sent();
    solo.now += 100 * MS;
    // The next segment is missing, too.
    solo.gets(hole(&solo, 1, (2661, 20_000))).unwrap();
    solo.wait(50 * MS);
    assert!(matches!(solo.tcb.recovery, Recovery::Fast { .. }));
    assert!(solo.tcb.congestion.ssthresh < 40_000);
    let search = solo.tcb.snd.search.as_deref().unwrap();
    assert_eq!((search.next, search.probe), (1500, None));
}

#[test]
fn there_is_no_probe_where_a_loss_would_cost_much_or_could_not_be_told() {
    type Change = fn(&mut Solo);
    let cases: [(&str, Change); 6] = [
        ("a small window", |solo| solo.tcb.congestion.cwnd = 11 * 1220 - 1),
        ("a small window of the peer", |solo| {
            solo.gets(solo.ack(1, 1).window(1440 + 4 * 1220 - 1)).unwrap();
        }),
        ("something is missing", |solo| {
            solo.tcb.snd.search.as_mut().unwrap().next = 1280;
            solo.write(5000);
            solo.sent();
            solo.gets(hole(solo, 1, (1221, 2441))).unwrap();
            solo.tcb.snd.search.as_mut().unwrap().next = 1500;
        }),
        ("we miss something", |solo| solo.gets(solo.ack(9, 1).data(b"abc")).unwrap()),
        ("little to be gained", |solo| {
            let search = solo.tcb.snd.search.as_mut().unwrap();
            (search.high, search.next) = (1287, 1287);
        }),
        ("the other side takes no more", |solo| solo.tcb.snd.mss = 1220),
    ];
    for (name, change) in cases {
        let mut solo = searching(large());
        change(&mut solo);
        solo.write(30_000);
        assert!(sizes(&mut solo).iter().all(|size| *size <= 1280), "{name}");
    }
    let mut solo = searching(large());
    solo.write(1440 + 4 * 1220 - 1);
    assert!(sizes(&mut solo).iter().all(|size| *size <= 1280), "little to send");
    let mut solo = searching(large());
    solo.write(1440 + 4 * 1220);
    assert_eq!(sizes(&mut solo)[0], 1500);
}

#[test]
fn a_probe_waits_for_room_in_the_window_but_not_for_ever() {
    let mut solo = searching(large());
    solo.tcb.snd.search.as_mut().unwrap().next = 1280;
    solo.tcb.congestion.cwnd = 15 * 1220;
    solo.tcb.congestion.ssthresh = 15 * 1220;
    solo.write(60_000);
    assert_eq!(solo.sent().len(), 15);
    solo.tcb.snd.search.as_mut().unwrap().next = 1500;
    solo.gets(solo.ack(1, 1221)).unwrap();
    assert_eq!(solo.sent(), [""; 0], "there is room for 1220 octets");
    solo.gets(solo.ack(1, 2441)).unwrap();
    assert_eq!(sizes(&mut solo)[0], 1500);
}

#[test]
fn what_a_router_said_is_forgotten_after_ten_minutes_and_found_out_again() {
    let mut solo = Solo::established(large());
    solo.tcb.congestion.cwnd = 40_000;
    let too_big = |solo: &mut Solo, mtu: u16| solo.tcb.packet_too_big(mtu, solo.tcb.snd.una, solo.now);
    let delivered = |solo: &mut Solo| {
        let nxt = solo.tcb.snd.nxt.0.wrapping_sub(solo.iss.0);
        solo.gets(solo.ack(1, nxt)).unwrap();
    };
    let flight = |solo: &mut Solo| {
        // After a silence the window is small again, and there is no probe.
        solo.tcb.config_mut().nodelay = true;
        solo.write(10);
        assert!(sizes(solo)[0] < 100);
        delivered(solo);
        solo.tcb.congestion.cwnd = 40_000;
        solo.write(12_000);
        let sizes = sizes(solo);
        solo.now += 10 * MS;
        sizes
    };
    assert_eq!(flight(&mut solo)[0], 1500);
    too_big(&mut solo, 1400);
    solo.sent();
    delivered(&mut solo);
    solo.now += 9 * MINUTE;
    assert_eq!(flight(&mut solo)[0], 1400);
    delivered(&mut solo);
    solo.now += MINUTE;
    assert_eq!(flight(&mut solo)[..2], [1500, 1400]);
    // Still too large, and slightly less so.
    too_big(&mut solo, 1440);
    assert_eq!(sizes(&mut solo), [1400, 60 + 1440 - 1340]);
    assert_eq!(solo.tcb.snd.path_mtu, 1400);
    delivered(&mut solo);
    assert_eq!(flight(&mut solo)[..2], [1440, 1400]);
    delivered(&mut solo);
    assert_eq!(flight(&mut solo)[0], 1440);
    delivered(&mut solo);
    solo.now += 10 * MINUTE;
    assert_eq!(flight(&mut solo)[..2], [1500, 1440]);
    delivered(&mut solo);
    assert_eq!((solo.tcb.snd.path_mtu, &solo.tcb.snd.search), (1500, &None));
}

#[test]
fn with_probing_off_what_a_router_said_holds_for_good() {
    let mut solo = Solo::established(Config { mtu_probing: MtuProbing::Off, ..large() });
    solo.tcb.congestion.cwnd = 40_000;
    solo.write(2880);
    solo.sent();
    solo.tcb.packet_too_big(1400, solo.tcb.snd.una, solo.now);
    solo.sent();
    solo.gets(solo.ack(1, 2881)).unwrap();
    solo.now += 60 * MINUTE;
    solo.tcb.snd.last = solo.now;
    solo.write(20_000);
    assert!(sizes(&mut solo).iter().all(|size| *size <= 1400));
}

#[test]
fn a_timeout_that_was_none_makes_packets_large_again() {
    let mut solo = Solo::established(Config { timestamps: true, ..large() });
    solo.write(3000);
    let sent = solo.segments();
    let echo = sent[0].options.timestamps.unwrap().value;
    solo.wait(3000 * MS);
    assert!(solo.tcb.snd.timeouts >= 3);
    assert_eq!(solo.tcb.snd.path_mtu, 1280);
    let mut late = solo.ack(1, 3001);
    late.options.timestamps = late.options.timestamps.map(|ours| crate::tcp::Timestamps { echo, ..ours });
    solo.gets(late).unwrap();
    assert_eq!((solo.tcb.snd.path_mtu, &solo.tcb.snd.search), (1500, &None));
}

#[test]
fn a_search_from_the_start_begins_small() {
    let mut pair = Pair::established(Config { mtu_probing: MtuProbing::Always, ..modern() }, modern());
    assert_eq!((pair.end(A).snd.path_mtu, pair.end(B).snd.path_mtu), (1280, 1500));
    carry(&mut pair, 1 << 20, 60_000);
    assert!(pair.end(A).snd.path_mtu > 1500 - 8);
    assert_eq!((pair.end(A).snd.retransmitted, pair.end(A).snd.timeouts), (0, 0));
}

#[test]
fn a_probe_leaves_room_for_what_is_added_below() {
    for (overhead, options) in [(40, false), (64, true)] {
        let mut solo = searching(Config { timestamps: options, ..large() });
        solo.path = Path { overhead, segmentation: true };
        solo.write(30_000);
        let sent = solo.segments();
        assert_eq!(size(&sent[0]) + usize::from(overhead), 1500);
        assert_eq!(
            sent[1].gso.map(|gso| usize::from(gso + overhead) + 60 + 12 * usize::from(options)),
            Some(1280)
        );
    }
}

/// On another host, as a handoff takes it there.
fn moved(mut solo: Solo) -> Solo {
    let there = Instant::from_millis(77_000);
    let frozen = solo.tcb.freeze(solo.now);
    let octets = postcard::to_allocvec(&frozen).unwrap();
    let back: Tcb<Duration> = postcard::from_bytes(&octets).unwrap();
    assert_eq!((&back, back.check()), (&frozen, Ok(())));
    solo.tcb = back.thaw(there);
    solo.now = there;
    solo.tcb.kick();
    solo
}

#[test]
fn a_probe_in_flight_moves_with_its_connection() {
    for lost in [false, true] {
        let mut solo = searching(large());
        solo.write(30_000);
        let flight = sizes(&mut solo);
        assert_eq!(flight[..2], [1500, 1280]);
        solo.now += 10 * MS;
        let mut solo = moved(solo);
        let before = solo.tcb.congestion.ssthresh;
        assert_eq!(solo.sent()[0], "1+1220 ack 1", "the copy that announces it");
        solo.now += 10 * MS;
        if lost {
            // The copy has arrived, the rest of the probe has not.
            solo.gets(hole(&solo, 1221, (1441, 1441 + 4 * 1220))).unwrap();
            assert_eq!(solo.sent()[0], "1221+220 ack 1");
            assert_eq!(solo.tcb.mss(), 1220);
        } else {
            solo.gets(solo.ack(1, 1441 + 1220)).unwrap();
            assert_eq!(solo.tcb.mss(), 1440);
        }
        assert_eq!(
            (solo.tcb.recovery, solo.tcb.congestion.ssthresh),
            (Recovery::Open { duplicates: 0 }, before)
        );
    }
}

#[test]
fn the_same_comes_of_a_search_wherever_the_connection_is() {
    let mut pair = Pair::established(modern(), modern());
    swallow(&mut pair, 1420);
    let mut moves = 0;
    pair.end(A).write(pattern(0, 1 << 20));
    pair.run_until(60_000, |pair| {
        let now = pair.now;
        let tcb = pair.ends[A].take().unwrap();
        moves += 1;
        // A host whose clock shows something else would be at odds with the pair's: there and back.
        let there = tcb.freeze(now).thaw(Instant::from_millis(5)).freeze(Instant::from_millis(5));
        assert_eq!(there.check(), Ok(()));
        pair.ends[A] = Some(there.thaw(now));
        read_all(pair.end(B));
        pair.transmit();
        pair.end(B).rcv.total == 1 << 20
    });
    assert!(moves > 100);
    assert!((1413..=1420).contains(&pair.end(A).snd.path_mtu));
}

#[test]
fn a_host_with_a_smaller_link_sends_nothing_larger() {
    let mut solo = searching(large());
    solo.tcb.fit_link(1400);
    assert_eq!(solo.tcb.check(), Ok(()));
    solo.write(30_000);
    assert_eq!(sizes(&mut solo)[..2], [1400, 1280]);
    let mut solo = searching(large());
    solo.write(30_000);
    solo.sent();
    solo.tcb.fit_link(1280);
    assert_eq!((solo.tcb.snd.path_mtu, &solo.tcb.snd.search), (1280, &None));
}

#[test]
fn a_timeout_with_a_probe_in_flight_does_not_try_it_again_at_once() {
    let mut solo = searching(large());
    solo.write(30_000);
    assert_eq!(sizes(&mut solo)[0], 1500);
    solo.wait(2000 * MS);
    let search = solo.tcb.snd.search.as_deref().unwrap();
    assert_eq!((search.probe, search.high < 1500), (None, true));
}

#[test]
fn a_search_that_cannot_be_true_is_refused() {
    type Change = fn(&mut crate::tcp::Search<Instant>);
    let mut solo = searching(large());
    solo.write(30_000);
    solo.sent();
    let changes: [Change; 6] = [
        |search| search.high = 1501,
        |search| search.next = 1501,
        |search| search.ceiling = 1279,
        |search| search.probe.as_mut().unwrap().len = 0,
        |search| search.probe.as_mut().unwrap().seq += 0xffff_f000,
        |search| search.probe.as_mut().unwrap().seq += 1 << 20,
    ];
    for (nth, change) in changes.iter().enumerate() {
        let mut tcb = solo.tcb.clone();
        assert_eq!(tcb.check(), Ok(()));
        change(tcb.snd.search.as_mut().unwrap());
        assert!(tcb.check().is_err(), "change {nth}");
    }
}
