//! What comes with Mobile IPv6 in it, and belongs to nobody.

use std::collections::{BTreeSet, VecDeque};
use std::net::{Ipv6Addr, SocketAddrV6};

use bytes::Bytes;
use ferry_mipv6::correspondent::{Correspondent, Outgoing};
use ferry_mipv6::header::{self, BindingErrorStatus, BindingUpdate, Message as Mobility};
use ferry_mipv6::keys::Cookie;
use ferry_mipv6::route::{put_home_address, put_routing};
use ferry_stack::ip::{self, Header, Packet};
use ferry_stack::tcp::{Control, Segment, SynCookies};
use ferry_stack::{Seq, checksum};

use super::lan::{Lan, address, service_address};
use super::*;
use crate::Setup;
use crate::node::Commit;

/// A segment of the client to the service that belongs to no connection.
fn stray(flags: u8) -> Packet {
    let (source, destination) = (address(50).address, service_address());
    let header = Header { source, destination, next_header: ip::TCP, ..Header::default() };
    let mut head = header.emit(20);
    head.extend([0xc0, 0, 0, 7, 0, 0, 0, 9, 0, 0, 0, 5, 0x50, flags, 16, 0, 0, 0, 0, 0]);
    let mut packet = Packet { head, ..Packet::default() };
    checksum::transport(&mut packet, ip::HEADER_LEN, checksum::TCP, false);
    packet
}

/// What is done to a group before.
type Change = fn(&mut Lan);

const ACK: u8 = 0x10;
const SYN: u8 = 2;

#[test]
fn a_stray_segment_that_comes_straight_to_another_node_is_refused_if_every_node_denies_it() {
    let never = |_: &mut Lan| {};
    let cut = |lan: &mut Lan| lan.cut("b", "c");
    let apart = |lan: &mut Lan| lan.cut("a", "c");
    let cases: [(&str, Change, usize); 3] =
        [("all there", never, 1), ("one link is cut", cut, 1), ("one is out of reach", apart, 0)];
    for (name, change, resets) in cases {
        let mut lan = Lan::new(|_| {});
        change(&mut lan);
        let mut packet = stray(ACK);
        assert!(put_routing(&mut packet, address(1).address));
        lan.client.interface.send(packet, lan.now);
        lan.run();
        lan.pass(50);
        assert_eq!(lan.resets(), resets, "{name}");
    }
}

#[test]
fn a_stray_segment_that_may_have_overtaken_a_cookie_is_not_refused() {
    for (name, far, resets) in
        [("the cookie's number", 0_u32, 0), ("a number far from every cookie", 1 << 30, 1)]
    {
        let mut lan = Lan::new(|setup| {
            setup.placement = Placement::RoundRobin;
            setup.tcp.syn_cookies = SynCookies::Always;
        });
        let local = SocketAddrV6::new(address(50).address, 4000, 0, 0);
        let flow = Flow { local, remote: SocketAddrV6::new(service_address(), 7, 0, 0) };
        let syn = Segment::bare(Seq(500), None, Some(Control::Syn));
        lan.client.interface.send(syn.emit(&flow, 0, false), lan.now);
        lan.run();
        let cookie = lan.seen.last().filter(|answer| answer.is_syn()).unwrap().seq;
        // It comes to a node that is neither the contact node nor the one that gave the cookie.
        let later = Segment::bare(Seq(900), Some(cookie + 1_u32 + far), None);
        let mut packet = later.emit(&flow, 0, false);
        assert!(put_routing(&mut packet, address(2).address));
        lan.client.interface.send(packet, lan.now);
        lan.run();
        lan.pass(50);
        assert_eq!(lan.resets(), resets, "{name}");
    }
}

#[test]
fn a_home_address_option_makes_nodes_send_nothing_to_the_victim_that_it_names() {
    let mut lan = Lan::new(|_| {});
    let victim = address(51).address;
    // It is there, and would be found.
    lan.client.interface.add_address(address(51), false, lan.now);
    let attacker = address(50).address;
    let claim = |mut packet: Packet| {
        packet.head[8..24].copy_from_slice(&victim.octets());
        checksum::transport(&mut packet, ip::HEADER_LEN, checksum::TCP, false);
        assert!(put_home_address(&mut packet, attacker));
        packet
    };
    let cookie = Cookie([9; 8]);
    let messages = [
        Mobility::HomeTestInit(cookie),
        Mobility::CareOfTestInit(cookie),
        Mobility::BindingRefreshRequest,
        Mobility::BindingUpdate(BindingUpdate { acknowledge: true, ..BindingUpdate::default() }),
    ];
    let said = |message| Outgoing {
        home_address: Some(victim),
        ..Outgoing::plain(attacker, service_address(), message)
    };
    let mut packets = vec![claim(stray(SYN)), claim(stray(ACK))];
    packets.extend(messages.map(|message| said(message).packet()));
    let mut routed = claim(stray(SYN));
    assert!(put_routing(&mut routed, address(1).address));
    packets.push(routed);
    lan.sent.clear();
    for packet in packets {
        lan.client.interface.send(packet, lan.now);
        lan.run();
        lan.pass(50);
    }
    let to = |address: Ipv6Addr| lan.sent.iter().filter(|(_, to)| *to == address).count();
    assert_eq!(to(victim), 0, "{:?}", lan.sent);
    assert!(lan.sent.contains(&(ip::MOBILITY, attacker)), "he hears of it himself (RFC 6275 section 9.3.1)");
    assert!(lan.nodes.values().all(|node| node.connections().is_empty()));
}

/// A group one of whose nodes, not the contact node, serves a client that is bound to it.
pub(super) fn bound_at_b(change: impl Fn(&mut Setup)) -> (Lan, tcp::Handle) {
    let mut lan = Lan::new(change);
    lan.aware = Some((Correspondent::new([5; 20]), VecDeque::new()));
    let client = lan.connect();
    assert_eq!(lan.hand_off("a", "b"), ONE_MOVED);
    for _ in 0..5 {
        lan.answer_mobility();
        lan.pass(10);
    }
    assert_eq!(lan.echo(client, b"straight"), b"straight");
    assert!(lan.nodes["b"].status(lan.now).counters.optimised > 0);
    lan.answer_mobility();
    lan.steps.clear();
    (lan, client)
}

fn is_frozen(lan: &Lan) -> bool {
    lan.steps.iter().any(|(_, step)| matches!(step, Step::Frozen { .. }))
}

#[test]
fn a_connection_of_a_client_that_understands_is_frozen_when_the_acceptor_has_its_token() {
    let (mut lan, client) = bound_at_b(|_| {});
    // The client's answers are held back.
    assert_eq!(lan.ask("b", Command::Handoff { to: "c".to_owned(), which: Which::All }), None);
    lan.pass(100);
    assert!(!is_frozen(&lan) && lan.owner() == ["b"]);
    lan.answer_mobility();
    lan.pass(50);
    assert!(is_frozen(&lan) && lan.owner() == ["c"]);
    // One message has told the client, one answer confirms it.
    lan.answer_mobility();
    let before = lan.nodes["c"].status(lan.now).counters.optimised;
    assert_eq!(lan.echo(client, b"straight from c"), b"straight from c");
    assert!(lan.nodes["c"].status(lan.now).counters.optimised > before);
}

/// A client that understands, the node that owns its connection, and the one that holds a copy; neither is the contact node,
/// which is at home and needs no token.
fn backed() -> (Lan, tcp::Handle, [&'static str; 2]) {
    let mut lan = Lan::new(|setup| {
        setup.rules.allowed = [("a".to_owned(), BTreeSet::new())].into();
        let services = core::mem::take(&mut setup.services).into_iter();
        setup.services = services.map(|service| service.protected(1, Commit::Strict)).collect();
    });
    lan.aware = Some((Correspondent::new([5; 20]), VecDeque::new()));
    let client = lan.connect();
    let [owner] = lan.owner()[..] else { panic!("{:?}", lan.owner()) };
    for _ in 0..8 {
        lan.answer_mobility();
        lan.pass(500);
        assert_eq!(lan.echo(client, b"straight"), b"straight");
    }
    (lan, client, if owner == "b" { ["b", "c"] } else { ["c", "b"] })
}

#[test]
fn a_backup_has_a_token_of_a_client_that_understands_before_the_owner_dies() {
    let (mut lan, client, [owner, backup]) = backed();
    let optimised = |lan: &Lan| lan.nodes[backup].status(lan.now).counters.optimised;
    // Ten minutes later, too: tokens are good for three and a half.
    for _ in 0..60 {
        lan.pass(10_000);
        lan.answer_mobility();
        assert_eq!(lan.echo(client, b"still"), b"still");
    }
    lan.answer_mobility();
    lan.kill(owner);
    lan.prove_to_all(owner);
    assert_eq!((lan.owner(), optimised(&lan)), (vec![backup], 0));
    assert_eq!(unheard_answers(&lan), 1, "to the Binding Update: nothing else was asked");
    lan.answer_mobility();
    assert_eq!(lan.echo(client, b"straight from there"), b"straight from there");
    assert!(optimised(&lan) > 0);
}

#[test]
fn who_holds_no_copy_any_more_keeps_no_token() {
    let (mut lan, client, _) = backed();
    lan.client.tcp.with(client, tcp::Tcb::finish);
    lan.run();
    lan.pass(500);
    lan.answer_mobility();
    lan.pass(600_000);
    assert_eq!(unheard_answers(&lan), 0);
}

#[test]
fn a_connection_moves_although_its_client_has_fallen_silent() {
    let (mut lan, _) = bound_at_b(|_| {});
    assert_eq!(lan.ask("b", Command::Handoff { to: "c".to_owned(), which: Which::All }), None);
    lan.pass(500);
    assert!(is_frozen(&lan) && lan.owner() == ["c"]);
}

#[test]
fn a_connection_whose_acceptor_is_lost_while_it_warms_up_stays() {
    let (mut lan, client) = bound_at_b(|_| {});
    assert_eq!(lan.ask("b", Command::Handoff { to: "c".to_owned(), which: Which::All }), None);
    lan.cut("b", "c");
    lan.pass(1_000);
    assert!(!is_frozen(&lan) && lan.owner() == ["b"]);
    assert_eq!(lan.echo(client, b"at b"), b"at b");
}

/// Lets time pass while the client's answers arrive, but for those that carry a routing header.
fn pass_without_routing_headers(lan: &mut Lan, millis: u64) {
    for _ in 0..millis / 100 {
        lan.pass(100);
        if let Some((_, answers)) = &mut lan.aware {
            answers.retain(|packet| {
                let datagram = ip::parse(packet.to_bytes(), packet.offload).unwrap();
                !matches!(header::open(&datagram).unwrap().message, Mobility::BindingAcknowledgement(_))
            });
        }
        lan.answer_mobility();
    }
}

fn is_bound(lan: &Lan) -> bool {
    let pair = (address(50).address, service_address());
    lan.aware.as_ref().is_some_and(|(correspondent, _)| correspondent.binding(pair, lan.now).is_some())
}

fn unheard_answers(lan: &Lan) -> usize {
    lan.aware.as_ref().map_or(0, |(_, answers)| answers.len())
}

#[test]
fn a_client_that_falls_silent_is_asked_once_whether_its_binding_works() {
    let (mut lan, client) = bound_at_b(|_| {});
    lan.pass(1_500);
    assert_eq!(unheard_answers(&lan), 0);
    lan.pass(1_000);
    assert_eq!(unheard_answers(&lan), 1, "two seconds after its last octets");
    lan.answer_mobility();
    lan.pass(60_000);
    assert_eq!(unheard_answers(&lan), 0, "who is silent is not asked again and again");
    let before = lan.nodes["b"].status(lan.now).counters.optimised;
    assert_eq!(lan.echo(client, b"still straight"), b"still straight");
    assert!(lan.nodes["b"].status(lan.now).counters.optimised > before);
}

#[test]
fn a_client_whose_way_with_a_routing_header_breaks_while_it_sends_is_sent_home() {
    let (mut lan, client) = bound_at_b(|_| {});
    assert!(is_bound(&lan));
    // What it sends now would be lost: nothing comes, and b has nothing outstanding that could go unacknowledged.
    pass_without_routing_headers(&mut lan, 30_000);
    assert!(!is_bound(&lan), "it sends to the home address again");
    let before = lan.nodes["b"].status(lan.now).counters.optimised;
    assert_eq!(lan.echo(client, b"relayed"), b"relayed");
    assert_eq!(lan.nodes["b"].status(lan.now).counters.optimised, before);
}

#[test]
fn a_client_that_starts_anew_and_says_so_is_bound_again_although_what_was_sent_to_it_is_lost() {
    let (mut lan, client) = bound_at_b(|_| {});
    let old = lan.aware.take();
    lan.aware = Some((Correspondent::new([6; 20]), VecDeque::new()));
    // What goes straight to it is lost, until it complains. Its own host refuses what has a Home Address option.
    lan.deaf = true;
    lan.client.tcp.with(client, |tcb| tcb.write(Bytes::from_static(b"lost"))).unwrap();
    lan.run();
    lan.pass(400);
    assert!(!is_bound(&lan) && old.is_some());
    lan.deaf = false;
    let complaint =
        Mobility::BindingError { status: BindingErrorStatus::NO_BINDING, home_address: service_address() };
    let complaint = Outgoing::plain(address(50).address, address(1).address, complaint);
    lan.client.interface.send(complaint.packet(), lan.now);
    lan.run();
    // It is bound before TCP sends again what was lost.
    for _ in 0..100 {
        lan.pass(10);
        lan.answer_mobility();
    }
    assert!(is_bound(&lan));
    let before = lan.nodes["b"].status(lan.now).counters.optimised;
    assert_eq!(lan.echo(client, b"straight"), b"loststraight");
    assert!(lan.nodes["b"].status(lan.now).counters.optimised > before);
}
