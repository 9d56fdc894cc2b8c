//! Who is alive, and what a node does about it.

use ferry_handoff::{Message, NodeId};
use ferry_stack::tcp;

use super::lan::Lan;
use crate::node::service::Commit;
use crate::{AuditResult, Input, Reason, Setup, Standing};

fn protected(setup: &mut Setup) {
    let services = std::mem::take(&mut setup.services);
    setup.services = services.into_iter().map(|service| service.protected(1, Commit::Strict)).collect();
}

fn standing(lan: &Lan, at: &str, of: &str) -> Standing {
    let status = lan.nodes[at].status(lan.now);
    status.peers.iter().find(|peer| peer.name == of).unwrap().standing
}

/// Node a hears nobody any more, and nobody hears it.
fn isolate(lan: &mut Lan, deaf: bool) {
    lan.deafen("a", "b", deaf);
    lan.deafen("a", "c", deaf);
}

#[test]
fn without_replicas_nodes_give_no_signs_of_life() {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    isolate(&mut lan, true);
    lan.pass(5_000);
    assert!(lan.nodes["a"].may_serve(lan.now));
    assert_eq!(lan.echo(client, b"as before"), b"as before");
    assert_eq!(standing(&lan, "b", "a"), Standing::Alive);
}

#[test]
fn a_node_that_nobody_hears_stops_before_the_others_take_it_for_dead() {
    let mut lan = Lan::new(protected);
    let client = lan.connect();
    lan.pass(100);
    isolate(&mut lan, true);
    let mut stopped = None;
    while standing(&lan, "b", "a") != Standing::Dead {
        lan.pass(10);
        if !lan.nodes["a"].may_serve(lan.now) {
            stopped.get_or_insert(lan.now);
        }
        assert!(lan.now.millis() < 2_000, "it is never taken for dead");
    }
    assert!(stopped.is_some_and(|at| at < lan.now));
    let sent = lan.nodes["a"].status(lan.now).counters.frames_out;
    assert_eq!(lan.echo(client, b"is anybody there?"), b"is anybody there?", "others, by now");
    assert_eq!(lan.nodes["a"].status(lan.now).counters.frames_out, sent, "not a word");
    assert!(lan.nodes["b"].may_serve(lan.now) && lan.nodes["c"].may_serve(lan.now));
}

#[test]
fn a_node_that_is_given_up_drops_what_it_owned_without_a_word_and_begins_a_new_life() {
    let mut lan = Lan::new(protected);
    lan.connect();
    isolate(&mut lan, true);
    lan.pass(400);
    assert_eq!(lan.nodes["a"].connections().len(), 1, "it does not know yet");
    assert_eq!(lan.owner().len(), 2, "another goes on with it");
    isolate(&mut lan, false);
    lan.pass(20);
    assert_eq!((lan.owner().len(), lan.nodes["a"].connections().len()), (1, 0));
    assert_eq!(lan.nodes["a"].status(lan.now).counters.lost_ownership, 1);
    let (at, lost) = lan.audits.iter().find(|(at, _)| *at == "a").unwrap();
    assert_eq!((*at, lost.why, &lost.result), ("a", Reason::Crash, &AuditResult::Lost));
    assert_eq!(lan.reborn.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["a"]);
    lan.relink("a");
    lan.pass(50);
    for (at, of) in [("a", "b"), ("b", "a"), ("c", "a")] {
        assert_eq!(standing(&lan, at, of), Standing::Alive, "{of}, at {at}");
    }
    assert!(lan.nodes["a"].may_serve(lan.now));
    assert_eq!(lan.resets(), 0);
    let client = lan.connect();
    assert_eq!(lan.echo(client, b"a new one"), b"a new one");
}

#[test]
fn a_connection_goes_on_at_once_when_its_owner_has_its_lease_back() {
    let mut lan = Lan::new(protected);
    let client = lan.connect();
    lan.pass(100);
    isolate(&mut lan, true);
    while lan.nodes["a"].may_serve(lan.now) {
        lan.pass(1);
    }
    lan.client.tcp.with(client, |tcb| tcb.write("held up".into()));
    lan.run();
    isolate(&mut lan, false);
    let again = lan.client.tcp.retransmitted();
    while !lan.nodes["a"].may_serve(lan.now) {
        lan.pass(1);
    }
    assert_eq!(
        lan.client.tcp.retransmitted(),
        again,
        "nobody had voted yet, nor has the client sent it again"
    );
    assert_eq!(lan.client.tcp.get(client).unwrap().readable(), "held up".len());
    assert_eq!(lan.echo(client, b" and gone on with"), b"held up and gone on with");
    assert_eq!((lan.reborn.len(), lan.resets()), (0, 0));
}

#[test]
fn a_node_that_slept_looks_at_its_lease_before_it_sends_anything() {
    let mut lan = Lan::new(protected);
    let client = lan.connect();
    lan.pass(100);
    lan.client.tcp.with(client, |tcb| tcb.write("unacknowledged".into()));
    let frame = lan.client.poll_transmit(lan.now).expect("a segment");
    lan.nodes.get_mut("a").unwrap().handle(Input::Frame(frame.contiguous()), lan.now);
    // What it has to say by now it says after it has slept, or not at all.
    lan.now += std::time::Duration::from_secs(5);
    let before = lan.seen.len();
    lan.run();
    assert_eq!((lan.seen.len(), lan.nodes["a"].may_serve(lan.now)), (before, false));
}

#[test]
fn what_belongs_to_a_dead_node_is_refused_if_nobody_can_go_on_with_it() {
    for (change, resets) in [((|_| {}) as fn(&mut Setup), 1), (protected, 0)] {
        let mut lan = Lan::new(change);
        let client = lan.connect();
        lan.hand_off("a", "b");
        lan.pass(100);
        assert_eq!(lan.owner(), ["b"]);
        lan.cut("a", "b");
        lan.client.tcp.with(client, |tcb| tcb.write("is it dead?".into()));
        lan.run();
        assert_eq!(lan.resets(), 0, "it may only be out of reach");
        lan.prove("b");
        assert_eq!(standing(&lan, "a", "b"), Standing::Dead);
        lan.client.tcp.with(client, |tcb| tcb.write("it is".into()));
        lan.pass(500);
        assert_eq!(lan.resets(), resets);
    }
}

#[test]
fn a_question_that_waits_for_a_dead_node_is_answered() {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    lan.deafen("a", "c", true);
    lan.deafen("a", "b", true);
    let mut forgetful = crate::Node::new(super::setup("a"), lan.now).unwrap();
    std::mem::swap(lan.nodes.get_mut("a").unwrap(), &mut forgetful);
    for (peer, life) in [("b", 1), ("c", 2)] {
        let (peer, incarnation) = (NodeId::of(peer), ferry_handoff::Incarnation(life));
        lan.nodes.get_mut("a").unwrap().handle(Input::PeerUp { peer, incarnation }, lan.now);
    }
    lan.client.tcp.with(client, |tcb| tcb.write("whose am I?".into()));
    lan.run();
    let flow = lan.client.tcp.get(client).unwrap().flow;
    let flow = tcp::Flow { local: flow.remote, remote: flow.local };
    let bytes = Message::NotMine { flow }.encode();
    lan.nodes.get_mut("a").unwrap().handle(Input::Peer { from: NodeId::of("b"), bytes }, lan.now);
    lan.run();
    assert_eq!(lan.resets(), 0, "c may own it");
    lan.prove("c");
    lan.run();
    assert_eq!(lan.resets(), 1);
}

#[test]
fn nothing_is_heard_of_a_life_that_is_over_but_its_signs_of_life() {
    let mut lan = Lan::new(protected);
    lan.pass(100);
    lan.prove("b");
    let dropped = |lan: &Lan| lan.nodes["a"].status(lan.now).counters.dropped;
    let before = dropped(&lan);
    let bytes = Message::Load { connections: 7, open: true }.encode();
    let now = lan.now;
    let a = lan.nodes.get_mut("a").unwrap();
    a.handle(Input::Peer { from: NodeId::of("b"), bytes }, now);
    a.handle(Input::PeerUp { peer: NodeId::of("b"), incarnation: ferry_handoff::Incarnation(1) }, now);
    let bytes = Message::Load { connections: 7, open: true }.encode();
    a.handle(Input::Peer { from: NodeId::of("b"), bytes }, now);
    assert_eq!(dropped(&lan), before + 2);
    assert!(!lan.nodes["a"].status(lan.now).peers[0].up);
}
