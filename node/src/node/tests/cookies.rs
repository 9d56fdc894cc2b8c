//! SYN cookies in a group: given by one node, taken by another.

use std::net::SocketAddrV6;

use bytes::Bytes;
use ferry_handoff::{Epoch, NodeId};
use ferry_mipv6::route::put_routing;
use ferry_stack::tcp::{Control, Flow, Handle, Options, Segment, SynCookies, Tcb, Timestamps};
use ferry_stack::{Frame, Seq};

use super::lan::{Lan, address, service_address};
use super::{Input, ONE_MOVED, Output, Placement};
use crate::io::Counters;
use crate::node::places::{Place, Route};

/// Longer than a cookie of a former life of a node could be about.
const OLD: u64 = 110_000;

fn lan(cookies: SynCookies) -> Lan {
    Lan::new(|setup| {
        setup.placement = Placement::RoundRobin;
        setup.tcp.syn_cookies = cookies;
    })
}

fn counters(lan: &Lan, name: &str) -> Counters {
    lan.nodes[name].status(lan.now).counters
}

/// SYNs of clients that will never be heard of again, to the contact node.
fn flood(lan: &mut Lan, count: u16) {
    for port in 1..=count {
        let local = SocketAddrV6::new(address(60).address, port, 0, 0);
        let remote = SocketAddrV6::new(service_address(), 7, 0, 0);
        let syn = Segment::bare(Seq(port.into()), None, Some(Control::Syn));
        let mut frame = vec![2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 60, 0x86, 0xdd];
        frame.extend_from_slice(&syn.emit(&Flow { local, remote }, 0, false).to_bytes());
        let contact = lan.nodes.get_mut("a").unwrap();
        contact.handle(Input::Frame(Frame { head: Bytes::from(frame), ..Frame::default() }), lan.now);
        while !matches!(contact.poll(lan.now), Output::WaitUntil(_)) {}
    }
}

/// The client sends a SYN with number 500, of which its TCP knows nothing; what acknowledges the cookie that comes back.
fn cookie(lan: &mut Lan, port: u16) -> (Flow, Option<Seq>) {
    let local = SocketAddrV6::new(address(50).address, port, 0, 0);
    let flow = Flow { local, remote: SocketAddrV6::new(service_address(), 7, 0, 0) };
    let syn = Segment::bare(Seq(500), None, Some(Control::Syn));
    lan.client.interface.send(syn.emit(&flow, 0, false), lan.now);
    lan.run();
    (flow, Some(lan.seen.last().filter(|answer| answer.is_syn()).unwrap().seq + 1_u32))
}

/// The segment that ended the handshake of a client, once more.
fn replayed(lan: &Lan, tcb: &Tcb) -> Segment {
    let answer = lan.seen.iter().rfind(|segment| segment.is_syn()).unwrap();
    let echo = answer.options.timestamps.unwrap().value;
    let timestamps = Some(Timestamps { value: tcb.timestamps.unwrap().value_at(lan.now), echo });
    let segment = Segment::bare(tcb.snd.iss + 1_u32, Some(answer.seq + 1_u32), None);
    Segment { options: Options { timestamps, ..Options::default() }, window: 500, ..segment }
}

/// Who owns a connection whose handshake is over.
fn serving(lan: &Lan) -> Vec<&'static str> {
    let serves = |name: &&str| lan.nodes[name].connections().iter().any(|it| it.state != "SYN-RECEIVED");
    ["a", "b", "c"].into_iter().filter(serves).collect()
}

fn finish(lan: &mut Lan, client: Handle) {
    lan.client.tcp.with(client, Tcb::finish);
    lan.pass(300);
    assert_eq!(serving(lan), [""; 0]);
}

#[test]
fn a_connection_that_a_cookie_opened_is_like_any_other() {
    for wait in [0, OLD] {
        let mut lan = lan(SynCookies::Always);
        lan.pass(wait);
        for nth in 1..=4 {
            let client = lan.connect();
            assert_eq!(lan.echo(client, b"hello"), b"hello");
            let accepted = ["a", "b", "c"].map(|name| counters(&lan, name).cookies_accepted);
            assert_eq!(accepted.iter().sum::<u64>(), nth, "{wait}");
            let owner = lan.owner();
            let next = if owner == ["c"] { "a" } else { "c" };
            assert_eq!(lan.hand_off(owner[0], next), ONE_MOVED);
            assert_eq!(lan.echo(client, b"moved"), b"moved");
            finish(&mut lan, client);
        }
        let accepted = ["a", "b", "c"].map(|name| counters(&lan, name).cookies_accepted);
        assert!(accepted.iter().filter(|count| **count > 0).count() > 1, "{accepted:?}");
        assert_eq!(lan.resets(), 0);
    }
}

#[test]
fn a_flood_is_answered_by_the_contact_node_alone_and_an_honest_client_is_placed() {
    let mut lan = lan(SynCookies::WhenFull);
    lan.pass(OLD);
    let first = lan.connect();
    finish(&mut lan, first);
    flood(&mut lan, 50_000);
    assert!(lan.nodes["a"].status(lan.now).relayed < 20_000, "the flood is not remembered");
    let baked = counters(&lan, "a").cookies_sent;
    assert!(baked > 20_000);
    let mut at = Vec::new();
    for _ in 0..3 {
        let client = lan.connect();
        assert_eq!(lan.echo(client, b"through the flood"), b"through the flood");
        at.extend(serving(&lan));
        finish(&mut lan, client);
    }
    at.sort_unstable();
    assert_eq!(at, ["a", "b", "c"], "cookies of the contact node, taken by each node");
    assert_eq!(counters(&lan, "a").cookies_sent, baked + 3);
    assert_eq!(lan.resets(), 0);
}

#[test]
fn a_cookie_that_was_used_opens_nothing_when_the_connection_is_over() {
    let mut lan = lan(SynCookies::Always);
    lan.pass(OLD);
    for _ in 0..4 {
        let client = lan.connect();
        let at = lan.owner()[0];
        let tcb = lan.client.tcp.get(client).unwrap();
        let (flow, again) = (tcb.flow, replayed(&lan, tcb));
        finish(&mut lan, client);
        for wait in [0, 11_000, 30_000] {
            lan.pass(wait);
            lan.client.interface.send(again.emit(&flow, 0, false), lan.now);
            lan.run();
            lan.pass(50);
            assert_eq!(lan.owner(), [""; 0], "{at} {wait}");
        }
    }
}

#[test]
fn a_contact_node_that_forgot_asks_before_a_cookie_opens_what_lives_elsewhere() {
    let mut lan = lan(SynCookies::Always);
    lan.connect();
    let client = lan.connect();
    let owned = |lan: &Lan| ["a", "b", "c"].map(|name| lan.nodes[name].connections().len());
    let before = owned(&lan);
    assert_eq!((before[0], before[1] + before[2]), (1, 1));
    lan.nodes.get_mut("a").unwrap().places.clear();
    assert_eq!(lan.echo(client, b"still there"), b"still there");
    assert_eq!(owned(&lan), before);
    assert_eq!(lan.resets(), 0);
}

/// A frame of the client that nobody but the contact node gets, and what comes of it is lost.
fn lost_behind_the_contact_node(lan: &mut Lan, flow: &Flow, segment: &Segment) {
    let mut frame = vec![2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 50, 0x86, 0xdd];
    frame.extend_from_slice(&segment.emit(flow, 0, false).to_bytes());
    let contact = lan.nodes.get_mut("a").unwrap();
    contact.handle(Input::Frame(Frame { head: Bytes::from(frame), ..Frame::default() }), lan.now);
    while !matches!(contact.poll(lan.now), Output::WaitUntil(_)) {}
}

#[test]
fn what_overtakes_a_cookie_that_is_lost_behind_the_contact_node_draws_no_reset() {
    let mut lan = lan(SynCookies::Always);
    lan.pass(OLD);
    // The nodes come to know each other's link-layer addresses.
    let client = lan.connect();
    for next in ["b", "c"] {
        let at = lan.owner()[0];
        if at != next {
            lan.hand_off(at, next);
        }
        assert_eq!(lan.echo(client, b"hello"), b"hello");
    }
    lan.client.tcp.with(client, Tcb::abort);
    lan.pass(50);
    for port in 4000..4003 {
        let (flow, ack) = cookie(&mut lan, port);
        let says = |seq, octets: &'static [u8]| Segment {
            window: 500,
            payload: Bytes::from_static(octets),
            ..Segment::bare(Seq(seq), ack, None)
        };
        lost_behind_the_contact_node(&mut lan, &flow, &says(501, b"first"));
        for (seq, octets) in [(506, b"later"), (501, b"first")] {
            lan.client.interface.send(says(seq, octets).emit(&flow, 0, false), lan.now);
            lan.run();
            lan.pass(50);
        }
    }
    assert_eq!(lan.resets(), 0);
    let accepted = ["a", "b", "c"].map(|name| counters(&lan, name).cookies_accepted);
    assert_eq!(accepted.iter().sum::<u64>(), 1 + 3, "{accepted:?}");
}

#[test]
fn what_a_node_sends_on_may_have_overtaken_a_cookie_only_if_that_is_the_contact_node() {
    for by in ["a", "c"] {
        let mut lan = lan(SynCookies::Always);
        lan.pass(OLD);
        let (flow, ack) = cookie(&mut lan, 4000);
        // Its node believes that it is b's.
        let (ours, route) =
            (Flow { local: flow.remote, remote: flow.local }, Route::new(NodeId::of("b"), Epoch::FIRST));
        lan.nodes.get_mut(by).unwrap().places.insert(ours, Place::Elsewhere(route));
        let overtaking = Segment {
            window: 500,
            payload: Bytes::from_static(b"later"),
            ..Segment::bare(Seq(506), ack, None)
        };
        let mut packet = overtaking.emit(&flow, 0, false);
        if by != "a" {
            assert!(put_routing(&mut packet, address(2).address));
        }
        lan.client.interface.send(packet, lan.now);
        lan.run();
        assert_eq!(lan.nodes[by].places.contains_key(&ours), by == "a", "{by}");
        assert_eq!(lan.resets(), 0, "{by}");
    }
}

#[test]
fn a_cookie_that_comes_straight_to_another_node_opens_where_the_contact_node_places_it() {
    let mut lan = Lan::new(|setup| {
        setup.placement = Placement::Hash;
        setup.tcp.syn_cookies = SynCookies::Always;
    });
    lan.pass(OLD);
    let client = lan.connect();
    let placed = lan.owner()[0];
    assert_ne!(placed, "a", "the contact node never has it");
    finish(&mut lan, client);
    let (flow, ack) = cookie(&mut lan, 4000);
    // As if the contact node had answered it in a flood.
    lan.nodes.get_mut("a").unwrap().places.clear();
    let mut packet = Segment { window: 500, ..Segment::bare(Seq(501), ack, None) }.emit(&flow, 0, false);
    assert!(put_routing(&mut packet, address(if placed == "b" { 2 } else { 1 }).address));
    lan.client.interface.send(packet, lan.now);
    lan.run();
    let accepted = ["a", "b", "c"].map(|name| (name, counters(&lan, name).cookies_accepted));
    assert_eq!(accepted.into_iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>(), [(placed, 2)]);
}

#[test]
fn a_number_far_from_every_cookie_is_refused_while_cookies_are_out() {
    let mut lan = lan(SynCookies::Always);
    lan.pass(OLD);
    for _ in 0..3 {
        lan.connect();
    }
    let local = SocketAddrV6::new(address(50).address, 4000, 0, 0);
    let remote = SocketAddrV6::new(service_address(), 7, 0, 0);
    let guess = Segment::bare(Seq(1), Some(Seq(2)), None);
    lan.client.interface.send(guess.emit(&Flow { local, remote }, 0, false), lan.now);
    lan.run();
    lan.pass(50);
    assert_eq!(lan.resets(), 1);
}

#[test]
fn a_number_that_no_node_gave_is_refused() {
    let mut lan = lan(SynCookies::Always);
    lan.pass(OLD);
    let local = SocketAddrV6::new(address(50).address, 4000, 0, 0);
    let remote = SocketAddrV6::new(service_address(), 7, 0, 0);
    let guess = Segment::bare(Seq(1), Some(Seq(2)), None);
    lan.client.interface.send(guess.emit(&Flow { local, remote }, 0, false), lan.now);
    lan.run();
    lan.pass(50);
    assert_eq!((lan.resets(), lan.owner()), (1, vec![]));
}
