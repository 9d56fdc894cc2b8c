use alloc::vec::Vec;

use bytes::Bytes;
use ferry_stack::Seq;
use proptest::prelude::*;

use super::{flow, snapshot};
use crate::claims::{Claim, Standing};
use crate::{Epoch, Incarnation, MAX_SNAPSHOT, Malformed, Message, NodeId, Pieces, Refusal, Snapshot};

fn messages() -> Vec<Message> {
    let (flow, epoch, dead, life) = (flow(), Epoch::nth(1 << 32 | 7), NodeId::of("a"), Incarnation(5));
    let standing = Standing { iss: Seq(7), epoch, version: 9, rank: 1 };
    let copies: Vec<_> = [Claim { flow, standing }].into();
    let octets = snapshot(7).pieces().unwrap();
    [
        Message::Prepare { flow, epoch, service: "echo".into() },
        Message::Transfer { flow, epoch, snapshot: octets.clone() },
        Message::Refuse { flow, epoch, why: Refusal::Session("no".into()) },
        Message::Copy { flow, epoch, version: 9, holders: [dead].into(), delta: octets },
        Message::Copy { flow, epoch, version: 9, holders: Vec::new(), delta: Pieces::default() },
        Message::Copied { flow, epoch, version: 9 },
        Message::Lacks { flow, epoch, version: 9, have: 3 },
        Message::Discard { flow, iss: Seq(7), epoch },
        Message::Discarded { flow, iss: Seq(7), epoch },
        Message::Claims { dead, life, run: 3, copies: copies.clone() },
        Message::Claimed { dead, life, run: 3, objections: copies },
    ]
    .into()
}

#[test]
fn every_message_comes_back_as_it_was() {
    for message in messages() {
        assert_eq!(Message::decode(&message.encode()).as_ref(), Ok(&message));
    }
}

#[test]
fn messages_in_a_row_are_told_apart() {
    let row: Vec<Bytes> = messages().iter().map(Message::encode).collect();
    let mut octets = Bytes::from(row.concat());
    let (mut taken, whole) = (Vec::new(), octets.clone());
    while !octets.is_empty() {
        taken.push(Message::take(&mut octets).unwrap());
    }
    assert_eq!(taken, messages());
    assert_eq!(Message::decode(&whole), Err(Malformed), "more than one");
}

#[test]
fn a_message_that_was_cut_is_none() {
    for message in messages() {
        let octets = message.encode();
        for len in 0..octets.len() {
            assert_eq!(Message::decode(&octets.slice(..len)), Err(Malformed), "{message:?} cut at {len}");
        }
    }
}

#[test]
fn a_payload_is_shared_with_what_arrived() {
    let [_, transfer, ..] = &messages()[..] else { panic!() };
    let octets = transfer.encode();
    let Ok(Message::Transfer { snapshot, .. }) = Message::decode(&octets) else { panic!() };
    assert!(snapshot.rest.is_empty());
    assert_eq!(snapshot.head.as_ptr_range().end, octets.as_ptr_range().end);
}

#[test]
fn a_long_payload_is_shared_with_what_leaves_and_nothing_else_is_a_piece_of_its_own() {
    let mut long = snapshot(7);
    long.tcb.snd.queue.push(alloc::vec![b'l'; 3000].into());
    let (flow, epoch) = (long.tcb.flow, long.epoch);
    let transfer =
        |snapshot: &Snapshot| Message::Transfer { flow, epoch, snapshot: snapshot.pieces().unwrap() };
    let pieces = transfer(&long).pieces();
    let queued: Vec<_> = long.tcb.snd.queue.pieces(0, usize::MAX).map(|piece| piece.as_ptr()).collect();
    assert!(pieces.iter().skip(1).map(|piece| piece.as_ptr()).collect::<Vec<_>>().starts_with(&queued));
    assert_eq!(Message::decode(&pieces.clone().join()), Ok(transfer(&long)));
    let _ = long.tcb.unload();
    long.session = alloc::vec![b's'; 9000].into();
    assert_eq!(transfer(&long).pieces().iter().count(), 1);
}

#[test]
fn a_payload_beyond_the_limit_is_refused_before_it_is_waited_for() {
    let transfer = |len| {
        let snapshot = alloc::vec![0; len].into();
        Message::Transfer { flow: flow(), epoch: Epoch::nth(1), snapshot }.encode()
    };
    assert!(Message::decode(&transfer(MAX_SNAPSHOT)).is_ok());
    assert_eq!(Message::decode(&transfer(MAX_SNAPSHOT + 1)), Err(Malformed));
}

proptest! {
    #[test]
    fn octets_that_are_no_message_never_panic(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut octets = Bytes::from(octets);
        while !octets.is_empty() && Message::take(&mut octets).is_ok() {}
    }
}
