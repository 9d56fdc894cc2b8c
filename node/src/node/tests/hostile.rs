//! A member that lies: what each lie can do at most.

use std::net::{Ipv6Addr, SocketAddrV6};

use bytes::Bytes;
use ferry_handoff::claims::{Claim, Standing};
use ferry_handoff::{Epoch, Incarnation, Message, Mirror, NodeId, Order, Refusal, Snapshot};
use ferry_stack::tcp::{Flow, Handle, Tcb};

use super::lan::{Lan, service_address};
use super::{ONE_MOVED, some_flow};
use crate::node::Placement;
use crate::{Command, Input, Output};

const HUGE: Epoch = nth((1 << 31) - 1);
/// Of another connection between the same ends, which would be opened far in the future; and beyond all bounds.
const LATER: [Epoch; 2] = [Epoch { life: 2 << 40, ..Epoch::FIRST }, Epoch { life: 1 << 48, ..Epoch::FIRST }];

/// The epochs of a connection that is opened as soon as there are nodes.
const fn nth(count: u64) -> Epoch {
    Epoch { life: 1_000, count }
}

/// Lets a node hear something; what it says in turn to that one, and to others.
fn hear(lan: &mut Lan, at: &'static str, from: &str, message: &Message) -> Vec<(NodeId, Message)> {
    let (now, node) = (lan.now, lan.nodes.get_mut(at).unwrap());
    node.handle(Input::Peer { from: NodeId::of(from), bytes: message.encode() }, now);
    said(lan, at)
}

/// What a node has to say to others.
fn said(lan: &mut Lan, at: &'static str) -> Vec<(NodeId, Message)> {
    let (now, node) = (lan.now, lan.nodes.get_mut(at).unwrap());
    let mut said = Vec::new();
    loop {
        match node.poll(now) {
            Output::Peer { to, bytes } => {
                let mut bytes = bytes.join();
                while !bytes.is_empty() {
                    said.push((to, Message::take(&mut bytes).unwrap()));
                }
            }
            Output::WaitUntil(_) => return said,
            _ => {}
        }
    }
}

fn flow_of(lan: &Lan, client: Handle) -> Flow {
    let flow = lan.client.tcp.get(client).unwrap().flow;
    Flow { local: flow.remote, remote: flow.local }
}

/// Any number of connections that nobody has.
fn nobody_s(nth: u32) -> Flow {
    let client = Ipv6Addr::from_bits(0x2001_0db8_eeee << 80 | u128::from(nth));
    Flow {
        local: SocketAddrV6::new(service_address(), 7, 0, 0),
        remote: SocketAddrV6::new(client, 4000, 0, 0),
    }
}

#[test]
fn a_node_lets_go_of_a_connection_on_nobody_s_word_if_it_is_sure_of_it() {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    let flow = flow_of(&lan, client);
    for epoch in [nth(0), nth(1), nth(2), HUGE, nth(1).recovered(), nth(u64::MAX), LATER[0], LATER[1]] {
        for node in ["b", "c"].map(NodeId::of) {
            let said = hear(&mut lan, "a", "c", &Message::Owner { flow, epoch, node });
            assert_eq!(said, [(NodeId::of("c"), Message::OwnerSeen { flow, epoch })], "it is not repeated");
        }
    }
    assert_eq!(lan.echo(client, b"still here"), b"still here");
    // And it can move as before.
    assert_eq!(lan.hand_off("a", "b"), ONE_MOVED);
    assert_eq!((lan.resets(), lan.owner()), (0, vec!["b"]));
}

/// The only connection, of node a, is on its way to node b, which never gets it.
fn offer_to_b(lan: &mut Lan, flow: Flow) {
    let (now, to) = (lan.now, "b".to_owned());
    let node = lan.nodes.get_mut("a").unwrap();
    node.handle(Input::Command { id: 900, command: Command::Handoff { to, which: crate::Which::All } }, now);
    hear(lan, "a", "b", &Message::Ready { flow, epoch: nth(2) });
    assert!(lan.nodes["a"].connections().is_empty(), "the snapshot is on its way");
}

#[test]
fn what_is_told_of_a_former_life_of_an_acceptor_ends_no_handoff_to_its_present_one() {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    let flow = flow_of(&lan, client);
    let command = Command::Handoff { to: "b".to_owned(), which: crate::Which::All };
    let now = lan.now;
    lan.nodes.get_mut("a").unwrap().handle(Input::Command { id: 900, command }, now);
    hear(&mut lan, "a", "c", &Message::Dead { node: NodeId::of("b"), life: Incarnation(4711) });
    hear(&mut lan, "a", "b", &Message::Ready { flow, epoch: nth(2) });
    assert!(lan.nodes["a"].connections().is_empty(), "the snapshot is on its way");
}

#[test]
fn a_donor_whose_acceptor_has_died_asks_who_has_the_connection_before_it_goes_on() {
    for has_it in [true, false] {
        let mut lan = Lan::new(|_| {});
        let client = lan.connect();
        let flow = flow_of(&lan, client);
        let iss = lan.nodes["a"].control_blocks().next().unwrap().snd.iss;
        offer_to_b(&mut lan, flow);
        let (now, peer) = (lan.now, NodeId::of("b"));
        let node = lan.nodes.get_mut("a").unwrap();
        node.handle(Input::PeerUp { peer, incarnation: Incarnation(77) }, now);
        let said = said(&mut lan, "a");
        assert!(lan.nodes["a"].connections().is_empty(), "b may have passed it on");
        let claims = said.iter().find_map(|(to, message)| match message {
            Message::Claims { dead, life, run, copies } if *to == NodeId::of("c") => {
                Some((*dead, *life, *run, copies.clone()))
            }
            _ => None,
        });
        let (dead, life, run, copies) = claims.expect("c is asked");
        assert_eq!(copies[0].standing.epoch, nth(2));
        let theirs = Claim { flow, standing: Standing::of_owner(iss, nth(3)) };
        let objections = if has_it { vec![theirs] } else { Vec::new() };
        hear(&mut lan, "a", "c", &Message::Claimed { dead, life, run, objections });
        assert!(
            lan.nodes["a"].connections().is_empty(),
            "nor has b said that it has nothing of it in its new life"
        );
        hear(&mut lan, "a", "b", &Message::Claimed { dead, life, run, objections: Vec::new() });
        assert_eq!(lan.nodes["a"].connections().is_empty(), has_it);
        assert_eq!(lan.nodes["a"].remembered()["copies"], 0);
        if !has_it {
            assert_eq!(lan.nodes["a"].connections()[0].epoch, nth(2).recovered().count);
            // What it has sent was not carried.
            lan.pass(1_000);
            assert_eq!(lan.echo(client, b"and on"), b"and on");
        }
        assert_eq!(lan.resets(), 0);
    }
}

#[test]
fn a_node_that_got_a_connection_back_from_one_that_died_lets_go_of_it_when_another_has_it() {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    let flow = flow_of(&lan, client);
    offer_to_b(&mut lan, flow);
    lan.kill("b");
    lan.prove_to_all("b");
    assert_eq!(lan.nodes["a"].connections().len(), 1, "b has died, c knows nothing, and a goes on");
    // Somebody whom c has given it to has been cut off, and went on.
    let epoch = nth(2).recovered().next();
    hear(&mut lan, "a", "c", &Message::Owner { flow, epoch, node: NodeId::of("c") });
    assert!(lan.nodes["a"].connections().is_empty());
    assert_eq!(lan.resets(), 0);
}

#[test]
fn who_claims_a_connection_of_another_gets_its_segments_until_the_owner_has_spoken_and_then_never_at_once() {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    let flow = flow_of(&lan, client);
    assert_eq!(lan.hand_off("a", "b"), ONE_MOVED);
    let (b, c) = (NodeId::of("b"), NodeId::of("c"));
    let route = |lan: &Lan| lan.nodes["a"].places.get(&flow).and_then(crate::node::Place::route).unwrap().to;
    hear(&mut lan, "a", "c", &Message::Owner { flow, epoch: nth(2), node: c });
    assert_eq!(route(&lan), b, "no two nodes have had it in one epoch");
    let lie = Message::Owner { flow, epoch: nth(40), node: c };
    let said = hear(&mut lan, "a", "c", &lie);
    assert!(said.contains(&(b, Message::Ask { flow })), "the owner is asked: {said:?}");
    assert_eq!(route(&lan), c);
    hear(&mut lan, "a", "b", &Message::Owner { flow, epoch: nth(2), node: b });
    assert_eq!(route(&lan), b, "its word counts for more");
    // From now on c has to wait, also with a connection that the client is said to have opened since.
    for epoch in [nth(50), LATER[0]] {
        let said = hear(&mut lan, "a", "c", &Message::Owner { flow, epoch, node: c });
        assert_eq!((said, route(&lan)), (vec![(b, Message::Ask { flow })], b));
        hear(&mut lan, "a", "b", &Message::Owner { flow, epoch: nth(2), node: b });
        assert_eq!(route(&lan), b);
    }
    assert_eq!(lan.echo(client, b"still at b"), b"still at b");
    // What is true is believed all the same.
    assert_eq!(lan.hand_off("b", "c"), ONE_MOVED);
    lan.pass(200);
    assert_eq!(route(&lan), c);
    assert_eq!(lan.echo(client, b"now at c"), b"now at c");
    assert_eq!(lan.resets(), 0);
}

#[test]
fn a_connection_of_another_can_neither_be_offered_nor_sent_to_the_contact_node() {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    let flow = flow_of(&lan, client);
    assert_eq!(lan.hand_off("a", "b"), ONE_MOVED);
    // A copy as good as any.
    let [snapshot] = &lan.nodes["b"].snapshots(lan.now)[..] else { panic!("one connection") };
    let forged = Snapshot { epoch: nth(40), ..snapshot.clone() }.encode().unwrap();
    let service = "echo".to_owned();
    let lies = [
        Message::Owner { flow, epoch: nth(39), node: NodeId::of("c") },
        Message::Prepare { flow, epoch: nth(40), service },
        Message::Transfer { flow, epoch: nth(40), snapshot: forged.into() },
        Message::Prepare { flow, epoch: nth(2), service: "echo".to_owned() },
        Message::Transfer { flow, epoch: nth(2), snapshot: snapshot.pieces().unwrap() },
    ];
    for _ in 0..3 {
        for lie in &lies {
            let said = hear(&mut lan, "a", "c", lie);
            assert!(
                !said.iter().any(|(_, said)| matches!(said, Message::Ready { .. } | Message::Taken { .. }))
            );
            assert!(lan.nodes["a"].connections().is_empty());
        }
        // b says what is true.
        hear(&mut lan, "a", "b", &Message::Owner { flow, epoch: nth(2), node: NodeId::of("b") });
    }
    assert_eq!(lan.echo(client, b"still at b"), b"still at b");
    assert_eq!((lan.resets(), lan.owner()), (0, vec!["b"]));
}

#[test]
fn a_node_s_own_connection_cannot_be_offered_to_it() {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    let flow = flow_of(&lan, client);
    let offer = Message::Prepare { flow, epoch: nth(9), service: "echo".to_owned() };
    let said = hear(&mut lan, "a", "c", &offer);
    // Else what comes for it would be held instead of delivered.
    assert_eq!(said, [(NodeId::of("c"), Message::Refuse { flow, epoch: nth(9), why: Refusal::Stale })]);
    assert_eq!(lan.echo(client, b"delivered"), b"delivered");
}

#[test]
fn what_one_donor_offers_decides_nothing_about_what_another_does() {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    let flow = flow_of(&lan, client);
    let garbage = |epoch| Message::Transfer { flow, epoch, snapshot: b"no snapshot".to_vec().into() };
    for epoch in [nth(2), nth(3), HUGE, nth(u64::MAX), LATER[0], LATER[1]] {
        let said = hear(&mut lan, "b", "c", &garbage(epoch));
        assert!(matches!(said[..], [(_, Message::Returned { .. })]), "{said:?}");
    }
    assert_eq!(lan.hand_off("a", "b"), ONE_MOVED);
    // In between, too: b is about to get it back from a.
    assert_eq!(lan.hand_off("b", "a"), ONE_MOVED);
    let offer = Message::Prepare { flow, epoch: nth(4), service: "echo".to_owned() };
    hear(&mut lan, "b", "a", &offer);
    let said = hear(&mut lan, "b", "c", &garbage(nth(9)));
    assert!(matches!(said[..], [(_, Message::Returned { .. })]), "{said:?}");
    assert_eq!(lan.hand_off("a", "b"), ONE_MOVED);
    assert_eq!(lan.echo(client, b"at b"), b"at b");
}

#[test]
fn an_epoch_beyond_all_bounds_is_taken_from_nobody() {
    let mut lan = Lan::new(|_| {});
    let flow = some_flow();
    for epoch in [nth(1 << 31), nth(u64::from(u32::MAX)), nth(1 << 63), nth(u64::MAX), LATER[1]] {
        let service = "echo".to_owned();
        let said = hear(&mut lan, "b", "c", &Message::Prepare { flow, epoch, service });
        assert_eq!(said, [(NodeId::of("c"), Message::Refuse { flow, epoch, why: Refusal::Stale })]);
        hear(&mut lan, "a", "c", &Message::Owner { flow, epoch, node: NodeId::of("c") });
        assert!(lan.nodes["a"].places.is_empty(), "{epoch:?}");
    }
}

#[test]
fn who_is_not_the_owner_ends_nothing() {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    let flow = flow_of(&lan, client);
    assert_eq!(lan.hand_off("a", "b"), ONE_MOVED);
    lan.pass(300);
    for epoch in [nth(2), nth(3), HUGE, nth(u64::MAX), LATER[0], LATER[1]] {
        hear(&mut lan, "a", "c", &Message::Ended { flow, epoch });
        hear(&mut lan, "a", "c", &Message::NotMine { flow });
        assert_eq!(lan.nodes["a"].status(lan.now).relayed, 1);
    }
    // Nor can it keep the contact node from being told.
    assert_eq!(lan.hand_off("b", "c"), ONE_MOVED);
    let seen = Message::OwnerSeen { flow, epoch: HUGE };
    hear(&mut lan, "c", "b", &seen);
    lan.pass(300);
    assert_eq!(lan.echo(client, b"at c"), b"at c");
    assert_eq!(lan.resets(), 0);
}

#[test]
fn who_only_announces_connections_leaves_room_for_others() {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    let mut ready = 0;
    for one in 0..20_000 {
        let offer = Message::Prepare { flow: nobody_s(one), epoch: nth(2), service: "echo".to_owned() };
        let said = hear(&mut lan, "b", "c", &offer);
        ready += usize::from(said.iter().any(|(_, said)| matches!(said, Message::Ready { .. })));
    }
    assert_eq!(ready, 1 << 14);
    assert!(lan.nodes["b"].remembered()["handoffs"] <= 1 << 14);
    assert_eq!(lan.hand_off("a", "b"), ONE_MOVED);
    assert_eq!(lan.echo(client, b"at b"), b"at b");
    // It is all forgotten.
    lan.pass(6_000);
    assert_eq!(lan.nodes["b"].remembered()["places"], 0);
}

#[test]
fn a_load_or_a_term_beyond_all_bounds_makes_no_sum_overflow() {
    let mut lan = Lan::new(|setup| setup.placement = Placement::RoundRobin);
    hear(&mut lan, "a", "c", &Message::Load { connections: u32::MAX, open: true });
    for _ in 0..6 {
        let client = lan.connect();
        assert_eq!(lan.echo(client, b"served"), b"served");
    }
    hear(&mut lan, "a", "c", &Message::Load { connections: u32::MAX, open: true });
    assert!(lan.ask("a", Command::Rebalance).is_some());
    hear(&mut lan, "a", "c", &Message::Near { prefix: u64::MAX, rtt_us: u32::MAX });
    for term in [u64::MAX, 1 << 33] {
        hear(&mut lan, "a", "c", &Message::Contact { node: NodeId::of("c"), term, answer: false });
        assert!(lan.nodes["a"].is_contact(), "{term}");
    }
    // Step by step the role can be had by any member; it can always be taken back.
    hear(&mut lan, "a", "c", &Message::Contact { node: NodeId::of("c"), term: 1 << 32, answer: false });
    assert!(!lan.nodes["a"].is_contact());
    assert_eq!(lan.ask("a", Command::Contact), Some(crate::Reply::Done));
    assert!(lan.nodes["a"].is_contact());
}

#[test]
fn orders_without_end_are_no_work_without_end() {
    let mut lan = Lan::new(|_| {});
    lan.connect();
    // Nobody takes what is here: every order stays.
    for peer in ["b", "c"] {
        hear(&mut lan, "a", peer, &Message::Load { connections: 0, open: false });
    }
    lan.cut("a", "b");
    for run in 0..1_000 {
        for order in [Order::Drain, Order::Shed { to: NodeId::of("b"), count: u32::MAX }] {
            hear(&mut lan, "a", "c", &Message::Order { run, order });
        }
        assert!(lan.nodes["a"].remembered()["jobs"] <= 8);
    }
}

#[test]
fn octets_that_are_no_messages_are_dropped() {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    let owner = Message::Owner { flow: flow_of(&lan, client), epoch: HUGE, node: NodeId::of("c") }.encode();
    for len in 0..owner.len() {
        let now = lan.now;
        let bytes = owner.slice(..len);
        lan.nodes.get_mut("a").unwrap().handle(Input::Peer { from: NodeId::of("c"), bytes }, now);
    }
    for octet in 0..=u8::MAX {
        let (now, bytes) = (lan.now, Bytes::from(vec![octet; 100]));
        lan.nodes.get_mut("a").unwrap().handle(Input::Peer { from: NodeId::of("c"), bytes }, now);
    }
    lan.run();
    assert_eq!(lan.echo(client, b"served"), b"served");
    assert!(lan.nodes["a"].status(lan.now).counters.dropped > 200);
}

/// Services whose connections one other node holds copies of.
fn protected(setup: &mut crate::Setup) {
    let services = core::mem::take(&mut setup.services);
    setup.services =
        services.into_iter().map(|service| service.protected(1, crate::node::Commit::Strict)).collect();
}

/// What `from` would say if it owned the connection of which node a has a copy or owns it, under a later epoch.
fn copy_as_if_owned(lan: &Lan, at: &str, by: u64) -> Message {
    let mut snapshot = lan.nodes[at].snapshots(lan.now).remove(0);
    let (flow, epoch) = (snapshot.tcb.flow, Epoch { count: snapshot.epoch.count + by, ..snapshot.epoch });
    snapshot.epoch = epoch;
    let mut mirror = Mirror::after(1 << 40);
    let delta = mirror.delta(snapshot).pieces().unwrap();
    Message::Copy { flow, epoch, version: mirror.version(), holders: vec![NodeId::of("a")], delta }
}

#[test]
fn a_copy_of_a_node_s_own_connection_takes_its_place_neither_at_once_nor_when_the_liar_dies() {
    for change in [|_: &mut crate::Setup| {}, protected] {
        let mut lan = Lan::new(change);
        let client = lan.connect();
        assert_eq!(lan.echo(client, b"mine"), b"mine");
        for by in [0, 1, 1 << 20, 1 << 63] {
            let lie = copy_as_if_owned(&lan, "a", by);
            let said = hear(&mut lan, "a", "c", &lie);
            assert!(matches!(said[..], [(_, Message::Discarded { .. })]), "{said:?}");
        }
        lan.kill("c");
        lan.prove_to_all("c");
        lan.pass(100);
        assert_eq!(lan.owner(), ["a"]);
        assert_eq!(lan.nodes["a"].connections()[0].epoch, 1);
        assert_eq!(lan.echo(client, b"still mine"), b"still mine");
        assert_eq!(lan.resets(), 0);
    }
}

#[test]
fn a_copy_that_somebody_has_had_discarded_is_brought_again_by_its_owner() {
    let mut lan = Lan::new(protected);
    let client = lan.connect();
    assert_eq!(lan.hand_off("a", "b"), ONE_MOVED);
    assert_eq!(lan.echo(client, b"safe"), b"safe");
    let held = |lan: &Lan, at: &str| lan.nodes[at].status(lan.now).copies.held;
    let holder = ["a", "c"].into_iter().find(|at| held(&lan, at) > 0).unwrap();
    let liar = if holder == "a" { "c" } else { "a" };
    let tcb = lan.nodes["b"].control_blocks().next().unwrap();
    let (flow, iss, epoch) = (tcb.flow, tcb.snd.iss, nth(u64::MAX));
    lan.nodes.get_mut(holder).unwrap().handle(
        Input::Peer { from: NodeId::of(liar), bytes: Message::Discard { flow, iss, epoch }.encode() },
        lan.now,
    );
    assert_eq!(held(&lan, holder), 0, "it is believed");
    lan.run();
    lan.pass(500);
    assert_eq!(held(&lan, holder), 1, "and it comes again although nothing is said");
    lan.kill("b");
    lan.prove_to_all("b");
    assert_eq!(lan.owner(), [holder]);
    assert_eq!(lan.echo(client, b"goes on"), b"goes on");
}

#[test]
fn a_node_whose_death_is_told_while_it_is_heard_loses_nothing() {
    for change in [|_: &mut crate::Setup| {}, protected] {
        let mut lan = Lan::new(change);
        let client = lan.connect();
        assert_eq!(lan.hand_off("a", "b"), ONE_MOVED);
        let (node, life) = (NodeId::of("b"), lan.nodes["b"].incarnation());
        let flow = flow_of(&lan, client);
        let iss = lan.nodes["b"].control_blocks().next().unwrap().snd.iss;
        let copies = vec![Claim { flow, standing: Standing::of_owner(iss, nth(9)) }];
        for at in ["a", "b"] {
            hear(&mut lan, at, "c", &Message::Dead { node, life });
            for run in 0..1_000 {
                let lie = Message::Claims { dead: node, life, run, copies: copies.clone() };
                hear(&mut lan, at, "c", &lie);
            }
        }
        lan.pass(1_000);
        assert_eq!(lan.owner(), ["b"]);
        assert_eq!(lan.nodes["b"].connections()[0].epoch, 2);
        assert_eq!(lan.echo(client, b"alive"), b"alive");
        assert_eq!(lan.resets(), 0);
    }
}

#[test]
fn who_has_said_that_a_connection_comes_takes_it_back_when_it_does_not() {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    let flow = flow_of(&lan, client);
    assert_eq!(lan.hand_off("a", "b"), ONE_MOVED);
    let (a, c) = (NodeId::of("a"), NodeId::of("c"));
    let relayed = |lan: &Lan| lan.nodes["a"].status(lan.now).relayed;
    hear(&mut lan, "c", "b", &Message::Prepare { flow, epoch: nth(3), service: "echo".to_owned() });
    let said = hear(&mut lan, "c", "a", &Message::Ask { flow });
    assert_eq!(said, [(a, Message::Owner { flow, epoch: nth(3), node: c })]);
    // It ends at b first, of which the contact node hears before it hears the other answer.
    lan.client.tcp.with(client, Tcb::abort);
    lan.run();
    assert_eq!(relayed(&lan), 0);
    hear(&mut lan, "a", "c", &Message::Owner { flow, epoch: nth(3), node: c });
    assert_eq!(relayed(&lan), 1);
    let said = hear(&mut lan, "c", "b", &Message::Abort { flow, epoch: nth(3) });
    assert_eq!(said, [(a, Message::NotMine { flow })]);
    hear(&mut lan, "a", "c", &Message::NotMine { flow });
    assert_eq!(relayed(&lan), 0, "nothing is left of it");
}
