//! What a flood can make a node remember.

use std::net::{Ipv6Addr, SocketAddrV6};

use bytes::Bytes;
use ferry_handoff::{Epoch, Message, NodeId};
use ferry_stack::tcp::{Flow, Segment};
use ferry_stack::{Frame, Seq};

use super::lan::{Lan, service_address};
use super::{Input, Output};

/// As `Asks` has it.
const MAX_ASKS: usize = 1024;
/// As `Places` has it.
const MAX_PLACES: usize = 1 << 20;

fn flow(nth: usize) -> Flow {
    let client = Ipv6Addr::from_bits(0x2001_0db8_ffff << 80 | u128::try_from(nth).unwrap());
    Flow {
        local: SocketAddrV6::new(service_address(), 7, 0, 0),
        remote: SocketAddrV6::new(client, 4000, 0, 0),
    }
}

/// What a node tells others until it rests.
fn told(lan: &mut Lan, name: &'static str) -> usize {
    let mut told = 0;
    loop {
        match lan.nodes.get_mut(name).unwrap().poll(lan.now) {
            Output::Peer { .. } => told += 1,
            Output::WaitUntil(_) => return told,
            _ => {}
        }
    }
}

#[test]
fn strange_segments_raise_no_more_questions_than_can_be_remembered() {
    let mut lan = Lan::new(|_| {});
    let mut questions = 0;
    for nth in 0..2 * MAX_ASKS {
        let Flow { local, remote } = flow(nth);
        let segment = Segment::bare(Seq(7), Some(Seq(9)), None);
        let mut frame = vec![2, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 60, 0x86, 0xdd];
        let theirs = Flow { local: remote, remote: local };
        frame.extend_from_slice(&segment.emit(&theirs, 0, false).to_bytes());
        let frame = Frame { head: Bytes::from(frame), ..Frame::default() };
        lan.nodes.get_mut("a").unwrap().handle(Input::Frame(frame), lan.now);
        questions += told(&mut lan, "a");
    }
    assert_eq!(questions, 2 * MAX_ASKS, "two others are asked about each of the first");
    assert_eq!(lan.resets(), 0);
    // Those are forgotten, and the next can be asked about.
    lan.pass(1_500);
    let client = lan.connect();
    assert_eq!(lan.echo(client, b"served"), b"served");
}

#[test]
fn another_node_cannot_fill_the_memory_with_owners() {
    let mut lan = Lan::new(|_| {});
    let from = NodeId::of("b");
    for nth in 0..=MAX_PLACES {
        let owner = Message::Owner { flow: flow(nth), epoch: Epoch::nth(3), node: from };
        let contact = lan.nodes.get_mut("a").unwrap();
        contact.handle(Input::Peer { from, bytes: owner.encode() }, lan.now);
        if nth % 1024 == 0 {
            told(&mut lan, "a");
        }
    }
    assert_eq!(lan.nodes["a"].places.len(), MAX_PLACES);
    told(&mut lan, "a");
    assert_eq!(lan.nodes["a"].connections().len(), 0);
}
