//! What arrives at a node after it has stopped to matter.

use std::net::SocketAddrV6;

use bytes::Bytes;
use ferry_handoff::{Epoch, Message, NodeId, Snapshot};
use ferry_stack::Seq;
use ferry_stack::tcp::{Config, Control, Endpoint, Flow, Handle, Listener, Secret, Segment, State, Tcb};

use super::lan::{Lan, address, service_address};
use super::{Input, ONE_MOVED, Step};
use crate::{Command, Which};

fn flow(client: &Tcb) -> Flow {
    let Flow { local, remote } = client.flow;
    Flow { local: remote, remote: local }
}

/// The transfer of a handshake of the same flow, as another node would have begun it with this SYN.
fn handshake(lan: &Lan, flow: Flow, syn: Seq, epoch: Epoch) -> Message {
    let mut endpoint = Endpoint::new(Secret::new([9; 32]), 1500, false);
    endpoint.listen(flow.local.port(), Listener::new(Config::default()));
    let syn = Segment::bare(syn, None, Some(Control::Syn));
    let opened = endpoint.open(flow, &syn, lan.now).unwrap();
    let tcb = endpoint.export(opened, lan.now).unwrap();
    assert_eq!(tcb.state, State::SynReceived);
    let (session, client) = (Bytes::new(), Bytes::new());
    let snapshot = Snapshot { epoch, service: "echo".to_owned(), tcb, session, wake: None, client };
    Message::Transfer { flow, epoch, snapshot: snapshot.pieces().unwrap() }
}

/// The epoch of a handshake that began when all that is known had.
const fn later_life() -> Epoch {
    Epoch { life: 9_000, count: 7 }
}

fn deliver(lan: &mut Lan, message: &Message) {
    let from = NodeId::of("b");
    let node = lan.nodes.get_mut("a").unwrap();
    node.handle(Input::Peer { from, bytes: message.encode() }, lan.now);
    lan.run();
}

fn connected() -> (Lan, Handle, Flow) {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    let flow = lan.client.tcp.with(client, |tcb| flow(tcb)).unwrap();
    assert_eq!(flow.local, SocketAddrV6::new(service_address(), 7, 0, 0));
    assert_eq!(*flow.remote.ip(), address(50).address);
    (lan, client, flow)
}

/// A connection at a is over, when the handshake of this SYN arrives, so much later than its own.
fn over_when_a_handshake_comes(later: u32) -> Lan {
    let (mut lan, client, flow) = connected();
    let syn = lan.client.tcp.get(client).unwrap().snd.iss + later;
    lan.client.tcp.with(client, Tcb::finish);
    lan.pass(300);
    let transfer = handshake(&lan, flow, syn, later_life());
    lan.seen.clear();
    deliver(&mut lan, &transfer);
    lan
}

#[test]
fn a_handshake_that_comes_when_its_client_has_ended_what_it_opened_is_let_pass() {
    let mut lan = over_when_a_handshake_comes(0);
    lan.pass(5_000);
    assert!(lan.seen.is_empty(), "{:?}", lan.seen);
    assert_eq!(lan.owner(), [""; 0]);
    assert!(lan.steps.iter().any(|(at, step)| *at == "a" && matches!(step, Step::Failed { .. })));
}

#[test]
fn a_handshake_of_a_port_that_is_used_again_is_taken_though_the_last_connection_has_just_ended() {
    let lan = over_when_a_handshake_comes(100_000);
    assert_eq!(lan.owner(), ["a"]);
    assert!(lan.seen.iter().any(ferry_stack::tcp::Segment::is_syn), "{:?}", lan.seen);
}

#[test]
fn a_handshake_that_comes_when_its_client_has_opened_anew_does_not_touch_what_it_opened() {
    let (mut lan, client, flow) = connected();
    let transfer = handshake(&lan, flow, lan.client.tcp.get(client).unwrap().snd.iss, later_life());
    deliver(&mut lan, &transfer);
    lan.pass(500);
    assert_eq!(lan.echo(client, b"as before"), b"as before");
    assert_eq!((lan.owner(), lan.resets()), (vec!["a"], 0));
    // It moves on under an epoch that nobody has used.
    assert_eq!(lan.hand_off("a", "b"), super::ONE_MOVED);
    assert_eq!(lan.echo(client, b"at b"), b"at b");
    assert_eq!(lan.owner(), ["b"]);
}

#[test]
fn what_was_taken_is_not_returned_although_its_donor_s_claim_was_never_confirmed_and_it_has_moved_on() {
    let (mut lan, client, _) = connected();
    let give = |lan: &mut Lan, from: &'static str, to: &str| {
        let command = Command::Handoff { to: to.to_owned(), which: Which::All };
        lan.nodes.get_mut(from).unwrap().handle(Input::Command { id: 900, command }, lan.now);
        lan.run();
    };
    assert_eq!(lan.hand_off("a", "b"), ONE_MOVED);
    // The contact node cannot ask b whether it has given it away.
    lan.deafen("a", "b", true);
    assert_eq!(lan.hand_off("b", "c"), ONE_MOVED);
    lan.lose_taken = true;
    give(&mut lan, "c", "a");
    // What c offers waits for b's word, for a second.
    lan.pass(2_000);
    assert_eq!(lan.owner(), ["a"]);
    lan.deafen("a", "b", false);
    give(&mut lan, "a", "b");
    lan.pass(10);
    assert_eq!(lan.owner(), ["b"]);
    lan.lose_taken = false;
    // Node c sends it once more.
    lan.pass(3_000);
    assert_eq!(lan.owner(), ["b"]);
    assert_eq!(lan.echo(client, b"once"), b"once");
    assert_eq!(lan.resets(), 0);
}
