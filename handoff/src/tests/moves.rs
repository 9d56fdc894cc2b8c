use alloc::vec::Vec;
use core::time::Duration;

use ferry_stack::Instant;

use super::{flow, snapshot};
use crate::{Action, Epoch, Failure, Handoffs, Incarnation, Message, NodeId, Refusal};

const NOW: Instant = Instant::from_millis(1_000);

fn a() -> NodeId {
    NodeId::of("a")
}

fn b() -> NodeId {
    NodeId::of("b")
}

fn later(millis: u64) -> Instant {
    NOW + Duration::from_millis(millis)
}

fn drain(handoffs: &mut Handoffs) -> Vec<Action> {
    core::iter::from_fn(|| handoffs.poll()).collect()
}

/// What is sent, the rest dropped.
fn sent(handoffs: &mut Handoffs) -> Vec<Message> {
    let message = |action| if let Action::Send { message, .. } = action { Some(message) } else { None };
    drain(handoffs).into_iter().filter_map(message).collect()
}

fn asking() -> Handoffs {
    let mut donor = Handoffs::default();
    donor.peer_up(b(), Incarnation(1), NOW);
    donor.give(flow(), b(), Epoch::nth(2), "echo", NOW);
    assert_eq!(
        sent(&mut donor),
        [Message::Prepare { flow: flow(), epoch: Epoch::nth(2), service: "echo".into() }]
    );
    donor
}

fn committed() -> Handoffs {
    let mut donor = asking();
    donor.receive(b(), Message::Ready { flow: flow(), epoch: Epoch::nth(2) }, NOW);
    assert!(matches!(drain(&mut donor)[..], [Action::Freeze { epoch: Epoch { count: 2, .. }, .. }]));
    donor.frozen(snapshot(2), NOW).unwrap();
    assert!(matches!(sent(&mut donor)[..], [Message::Transfer { epoch: Epoch { count: 2, .. }, .. }]));
    donor
}

fn transfer(epoch: u64) -> Message {
    Message::Transfer { flow: flow(), epoch: Epoch::nth(epoch), snapshot: snapshot(epoch).pieces().unwrap() }
}

/// An acceptor that runs the connection since epoch 2.
fn owner() -> Handoffs {
    let mut acceptor = Handoffs::default();
    acceptor.peer_up(a(), Incarnation(1), NOW);
    acceptor.receive(
        a(),
        Message::Prepare { flow: flow(), epoch: Epoch::nth(2), service: "echo".into() },
        NOW,
    );
    assert_eq!(sent(&mut acceptor), [Message::Ready { flow: flow(), epoch: Epoch::nth(2) }]);
    acceptor.receive(a(), transfer(2), NOW);
    assert!(matches!(drain(&mut acceptor)[..], [Action::Install { .. }]));
    acceptor.installed(flow(), a(), Epoch::nth(2));
    assert_eq!(sent(&mut acceptor), [Message::Taken { flow: flow(), epoch: Epoch::nth(2) }]);
    acceptor
}

#[test]
fn an_unanswered_request_is_repeated_and_then_given_up() {
    let mut donor = asking();
    let mut repeats = 0;
    loop {
        let at = donor.deadline().expect("it must not wait for ever");
        donor.handle_timeout(at);
        let actions = drain(&mut donor);
        repeats += actions
            .iter()
            .filter(|a| matches!(a, Action::Send { message: Message::Prepare { .. }, .. }))
            .count();
        if let Some(Action::Failed { why, resume, .. }) = actions.last() {
            assert_eq!((why, resume.is_none()), (&Failure::Silent, true));
            break;
        }
    }
    assert_eq!(repeats, 5);
    assert_eq!(donor.under_way(), 0);
}

#[test]
fn a_refusal_leaves_the_connection_where_it_is() {
    let mut donor = asking();
    donor.receive(b(), Message::Refuse { flow: flow(), epoch: Epoch::nth(2), why: Refusal::Draining }, NOW);
    let actions = drain(&mut donor);
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Failed { why: Failure::Refused(_), resume: None, .. }))
    );
}

#[test]
fn answers_of_other_nodes_and_other_epochs_change_nothing() {
    let stale = [
        (a(), Message::Ready { flow: flow(), epoch: Epoch::nth(2) }),
        (b(), Message::Ready { flow: flow(), epoch: Epoch::nth(1) }),
        (b(), Message::Taken { flow: flow(), epoch: Epoch::nth(2) }),
        (b(), Message::Returned { flow: flow(), epoch: Epoch::nth(2), why: Refusal::Stale }),
    ];
    for (from, message) in stale {
        let mut donor = asking();
        donor.receive(from, message.clone(), NOW);
        assert!(drain(&mut donor).is_empty(), "{message:?}");
    }
}

#[test]
fn a_committed_donor_never_keeps_the_connection() {
    // Whatever happens short of proof that the acceptor will never run it, the donor only repeats the transfer.
    let mut donor = committed();
    donor.peer_down(b());
    donor.receive(b(), Message::Refuse { flow: flow(), epoch: Epoch::nth(2), why: Refusal::Draining }, NOW);
    donor.receive(b(), Message::Ready { flow: flow(), epoch: Epoch::nth(2) }, NOW);
    donor.ended(&flow(), NOW);
    for _ in 0..50 {
        let at = donor.deadline().unwrap();
        donor.handle_timeout(at);
        for action in drain(&mut donor) {
            assert!(matches!(action, Action::Send { message: Message::Transfer { .. }, .. }), "{action:?}");
        }
    }
    donor.peer_up(b(), Incarnation(1), later(60_000));
    assert!(!drain(&mut donor).iter().any(|action| matches!(action, Action::Failed { .. })));
}

#[test]
fn a_returned_connection_goes_on_in_a_later_epoch() {
    let mut donor = committed();
    donor.receive(b(), Message::Returned { flow: flow(), epoch: Epoch::nth(2), why: Refusal::Draining }, NOW);
    let actions = drain(&mut donor);
    let [Action::Failed { resume: Some(resumed), .. }] = &actions[..] else { panic!("{actions:?}") };
    assert_eq!(resumed.epoch, Epoch::nth(3));
    assert_eq!(resumed.tcb, snapshot(2).tcb);
}

#[test]
fn what_an_acceptor_may_have_taken_that_has_died_is_given_back_to_be_asked_about() {
    let mut donor = committed();
    assert!(donor.died(b(), Incarnation(7)).is_empty(), "another life");
    let given = donor.died(b(), Incarnation(1));
    let [(its, Epoch { count: 2, .. }, frozen)] = &given[..] else { panic!("{given:?}") };
    assert_eq!((*its, &frozen.tcb), (flow(), &snapshot(2).tcb));
    assert!(matches!(drain(&mut donor)[..], [Action::Failed { why: Failure::Died, resume: None, .. }]));
    assert_eq!(donor.deadline(), donor.deadline().filter(|at| *at > later(60_000)), "nothing is repeated");
}

#[test]
fn a_later_life_of_the_acceptor_is_sent_nothing_that_was_for_the_former() {
    let mut donor = committed();
    donor.peer_down(b());
    donor.peer_up(b(), Incarnation(2), NOW);
    for _ in 0..10 {
        let at = donor.deadline().unwrap();
        donor.handle_timeout(at);
        assert!(drain(&mut donor).is_empty());
    }
}

#[test]
fn a_taken_connection_is_forwarded_for_a_while_and_then_forgotten() {
    let mut donor = committed();
    donor.receive(b(), Message::Taken { flow: flow(), epoch: Epoch::nth(2) }, NOW);
    assert!(matches!(drain(&mut donor)[..], [Action::Given { epoch: Epoch { count: 2, .. }, .. }]));
    donor.receive(b(), Message::Taken { flow: flow(), epoch: Epoch::nth(2) }, NOW);
    assert!(drain(&mut donor).is_empty(), "told once");
    donor.handle_timeout(later(119_000));
    assert!(drain(&mut donor).is_empty());
    donor.handle_timeout(later(121_000));
    assert!(matches!(drain(&mut donor)[..], [Action::Forget { .. }]));
}

#[test]
fn a_connection_that_comes_back_proves_that_it_had_been_taken() {
    let mut node = committed();
    node.receive(b(), transfer(3), later(50));
    assert!(matches!(drain(&mut node)[..], [Action::Install { .. }]));
    node.installed(flow(), b(), Epoch::nth(3));
    let actions = drain(&mut node);
    assert!(
        matches!(actions[..], [Action::Given { epoch: Epoch { count: 2, .. }, .. }, Action::Send { .. }]),
        "{actions:?}"
    );
    assert_eq!(node.under_way(), 0);
}

#[test]
fn every_repeated_message_is_answered_as_the_first_time() {
    let mut acceptor = owner();
    acceptor.receive(a(), transfer(2), later(50));
    assert_eq!(sent(&mut acceptor), [Message::Taken { flow: flow(), epoch: Epoch::nth(2) }]);
    acceptor.receive(
        a(),
        Message::Prepare { flow: flow(), epoch: Epoch::nth(2), service: "echo".into() },
        later(60),
    );
    assert_eq!(
        sent(&mut acceptor),
        [Message::Refuse { flow: flow(), epoch: Epoch::nth(2), why: Refusal::Stale }]
    );
    // Even after the connection has ended here, and a late copy of the transfer arrives.
    acceptor.ended(&flow(), later(70));
    acceptor.receive(a(), transfer(2), later(80));
    assert_eq!(sent(&mut acceptor), [Message::Taken { flow: flow(), epoch: Epoch::nth(2) }]);
}

#[test]
fn a_transfer_that_was_returned_is_never_taken() {
    let mut acceptor = Handoffs::default();
    acceptor.receive(a(), transfer(2), NOW);
    assert!(matches!(drain(&mut acceptor)[..], [Action::Install { .. }]));
    acceptor.rejected(flow(), a(), Epoch::nth(2), Refusal::Session("the file is missing".into()), NOW);
    drain(&mut acceptor);
    acceptor.receive(a(), transfer(2), later(100));
    assert!(matches!(drain(&mut acceptor)[..], [Action::Send { message: Message::Returned { .. }, .. }]));
}

#[test]
fn a_transfer_that_does_not_decode_is_returned_with_the_reason() {
    let mut acceptor = Handoffs::default();
    let mut bytes = snapshot(2).encode().unwrap().to_vec();
    bytes[40] ^= 4;
    acceptor.receive(
        a(),
        Message::Transfer { flow: flow(), epoch: Epoch::nth(2), snapshot: bytes.into() },
        NOW,
    );
    let [Message::Returned { why: Refusal::Snapshot(why), .. }] = &sent(&mut acceptor)[..] else { panic!() };
    assert!(why.contains("check"), "{why}");
}

#[test]
fn a_transfer_of_another_connection_under_this_name_is_returned() {
    let mut acceptor = Handoffs::default();
    let bytes = snapshot(5).pieces().unwrap();
    acceptor.receive(a(), Message::Transfer { flow: flow(), epoch: Epoch::nth(2), snapshot: bytes }, NOW);
    assert!(matches!(sent(&mut acceptor)[..], [Message::Returned { why: Refusal::Snapshot(_), .. }]));
}

#[test]
fn a_reservation_ends_with_an_abort_or_by_itself() {
    for by_itself in [false, true] {
        let mut acceptor = Handoffs::default();
        acceptor.receive(
            a(),
            Message::Prepare { flow: flow(), epoch: Epoch::nth(2), service: "echo".into() },
            NOW,
        );
        drain(&mut acceptor);
        if by_itself {
            let at = acceptor.deadline().unwrap();
            acceptor.handle_timeout(at);
        } else {
            acceptor.receive(a(), Message::Abort { flow: flow(), epoch: Epoch::nth(2) }, NOW);
        }
        assert!(matches!(drain(&mut acceptor)[..], [Action::Release { .. }]));
        assert_eq!(acceptor.under_way(), 0);
    }
}

#[test]
fn a_transfer_is_not_taken_again_however_long_its_donor_was_out_of_reach() {
    let mut acceptor = owner();
    acceptor.peer_down(a());
    acceptor.ended(&flow(), later(10));
    for _ in 0..20 {
        let at = acceptor.deadline().unwrap();
        acceptor.handle_timeout(at);
    }
    let back = acceptor.deadline().unwrap();
    assert!(back > later(600_000), "it has been long");
    acceptor.peer_up(a(), Incarnation(1), back);
    acceptor.receive(a(), transfer(2), back);
    assert_eq!(sent(&mut acceptor), [Message::Taken { flow: flow(), epoch: Epoch::nth(2) }]);
    // The donor has heard it by now.
    for _ in 0..2 {
        let at = acceptor.deadline().unwrap();
        acceptor.handle_timeout(at);
    }
    assert_eq!((acceptor.deadline(), acceptor.remembered()), (None, 0));
}

#[test]
fn a_draining_node_accepts_nothing() {
    let mut acceptor = Handoffs::default();
    acceptor.drain();
    acceptor.receive(
        a(),
        Message::Prepare { flow: flow(), epoch: Epoch::nth(2), service: "echo".into() },
        NOW,
    );
    assert_eq!(
        sent(&mut acceptor),
        [Message::Refuse { flow: flow(), epoch: Epoch::nth(2), why: Refusal::Draining }]
    );
    acceptor.receive(a(), transfer(3), NOW);
    assert!(matches!(sent(&mut acceptor)[..], [Message::Returned { why: Refusal::Draining, .. }]));
}

#[test]
fn what_is_said_again_and_again_at_one_moment_is_reminded_of_once() {
    let mut acceptor = Handoffs::default();
    acceptor.peer_up(a(), Incarnation(1), NOW);
    for epoch in 2..1_000 {
        let octets = alloc::vec![0; 8].into();
        let (flow, epoch) = (flow(), Epoch::nth(epoch));
        acceptor.receive(a(), Message::Transfer { flow, epoch, snapshot: octets }, NOW);
    }
    assert!(sent(&mut acceptor).iter().all(|message| matches!(message, Message::Returned { .. })));
    assert_eq!(acceptor.reminded(), 1, "of what was returned");
    for _ in 0..1_000 {
        let offer = Message::Prepare { flow: flow(), epoch: Epoch::nth(2_000), service: "echo".into() };
        acceptor.receive(a(), offer, NOW);
    }
    assert!(acceptor.deadline().is_some());
    assert_eq!(acceptor.reminded(), 2, "and of what is announced");
}
