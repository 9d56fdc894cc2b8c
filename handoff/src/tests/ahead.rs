//! Copies that go ahead of a connection, between two nodes' handoffs.

use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use ferry_stack::Instant;
use ferry_stack::tcp::Tcb;
use proptest::prelude::*;

use super::{flow, snapshot};
use crate::{
    Action, Copy, Delta, Epoch, Failure, Handoffs, Incarnation, Message, Mirror, NodeId, Refusal, Snapshot,
};

const NOW: Instant = Instant::from_millis(1_000);
const EPOCH: Epoch = Epoch::nth(7);

/// A donor whose connection has so much payload, and an acceptor.
struct Two {
    donor: Handoffs,
    acceptor: Handoffs,
    running: Option<Tcb>,
    now: Instant,
    /// On their way to the acceptor, or (`false`) to the donor.
    way: Vec<(bool, Message)>,
    /// Octets of each message with payload.
    sizes: Vec<usize>,
    frozen: Option<Snapshot>,
    /// What the acceptor runs.
    installed: Option<Snapshot>,
    given: bool,
    failed: Option<Failure>,
    /// Octets that the connection writes each time that a copy is made.
    writes: usize,
}

fn node(name: &str) -> NodeId {
    NodeId::of(name)
}

impl Two {
    fn with_payload(octets: usize) -> Self {
        let (mut donor, mut acceptor) = (Handoffs::default(), Handoffs::default());
        donor.peer_up(node("acceptor"), Incarnation(1), NOW);
        acceptor.peer_up(node("donor"), Incarnation(2), NOW);
        let mut snapshot = snapshot(7);
        snapshot.tcb.snd.queue.push(alloc::vec![9; octets].into());
        donor.give(flow(), node("acceptor"), EPOCH, "echo", NOW);
        Self {
            donor,
            acceptor,
            running: Some(snapshot.tcb.thaw(NOW)),
            now: NOW,
            way: Vec::new(),
            sizes: Vec::new(),
            frozen: None,
            installed: None,
            given: false,
            failed: None,
            writes: 0,
        }
    }

    fn snapshot(&self, tcb: Tcb) -> Snapshot {
        let (service, session) = ("echo".into(), Bytes::from_static(b"state"));
        let (tcb, wake) = (tcb.freeze(self.now).into(), Some(Duration::from_millis(3)));
        Snapshot { epoch: EPOCH, service, tcb, session, wake, client: Bytes::new() }
    }

    fn act(&mut self) {
        for at_acceptor in [false, true] {
            while let Some(action) = if at_acceptor { &mut self.acceptor } else { &mut self.donor }.poll() {
                self.follow(action, at_acceptor);
            }
        }
    }

    fn follow(&mut self, action: Action, at_acceptor: bool) {
        match action {
            Action::Send { message, .. } => {
                if let Message::Copy { delta: octets, .. } | Message::Transfer { snapshot: octets, .. } =
                    &message
                {
                    self.sizes.push(octets.len());
                }
                self.way.push((!at_acceptor, message));
            }
            Action::Freeze { .. } => self.freeze(),
            Action::Install { snapshot, flow, from } => {
                assert!(self.installed.is_none(), "it is installed once");
                self.installed = Some(*snapshot);
                self.acceptor.installed(flow, from, EPOCH);
            }
            Action::Given { .. } => self.given = true,
            Action::Failed { why, resume, .. } => {
                self.failed = Some(why);
                if let Some(resume) = resume {
                    let whole = self.frozen.take().map(|frozen| Snapshot { epoch: EPOCH.next(), ..frozen });
                    assert_eq!(whole.as_ref(), Some(&*resume), "it goes on as it was frozen");
                    self.running = Some(resume.tcb.thaw(self.now));
                }
            }
            Action::Hold { .. } | Action::Release { .. } | Action::Forget { .. } => {}
        }
    }

    /// As a node does.
    fn freeze(&mut self) {
        let Some(tcb) = &mut self.running else { return };
        let ahead = self.donor.sends_ahead(tcb);
        if ahead {
            let snapshot = tcb.clone();
            tcb.snd.queue.push(alloc::vec![3; self.writes].into());
            let snapshot = self.snapshot(snapshot);
            self.donor.copied_out(snapshot, self.now);
        } else if let Some(tcb) = self.running.take() {
            let snapshot = self.snapshot(tcb);
            self.frozen = Some(snapshot.clone());
            self.donor.frozen(snapshot, self.now).unwrap();
        }
    }

    fn deliver(&mut self, at: usize, again: bool) {
        let (to_acceptor, message) = if again { self.way[at].clone() } else { self.way.remove(at) };
        let message = Message::decode(&message.encode()).unwrap();
        if to_acceptor {
            self.acceptor.receive(node("donor"), message, self.now);
        } else {
            self.donor.receive(node("acceptor"), message, self.now);
        }
        self.act();
    }

    fn timeout(&mut self) {
        let deadlines = [self.donor.deadline(), self.acceptor.deadline()];
        self.now = deadlines.into_iter().flatten().min().unwrap_or(self.now).max(self.now);
        self.donor.handle_timeout(self.now);
        self.acceptor.handle_timeout(self.now);
        self.act();
    }

    /// Carries everything, and lets time pass while nothing is on its way, until it is over.
    fn finish(&mut self) {
        self.act();
        for _ in 0..500 {
            if self.given || self.failed.is_some() {
                return;
            }
            if self.way.is_empty() { self.timeout() } else { self.deliver(0, false) }
        }
        panic!("it never ends");
    }
}

#[test]
fn a_small_connection_moves_in_one_piece() {
    let mut two = Two::with_payload(0);
    // What the connection of the tests has besides is more than a little.
    two.running.as_mut().unwrap().snd.queue.clear();
    assert!(!two.donor.sends_ahead(two.running.as_ref().unwrap()));
    let mut two = Two::with_payload(20_000);
    assert!(two.donor.sends_ahead(two.running.as_ref().unwrap()));
    two.finish();
    assert_eq!(two.sizes.len(), 2);
}

#[test]
fn the_transfer_of_what_went_ahead_holds_only_what_has_changed() {
    let mut two = Two::with_payload(1 << 20);
    two.writes = 300;
    two.finish();
    let [copy, transfer] = two.sizes[..] else { panic!("{:?}", two.sizes) };
    assert!(copy > 1 << 20 && transfer < 2000, "{copy}, {transfer}");
    assert!(two.given && two.installed == two.frozen);
}

#[test]
fn copies_go_ahead_as_long_as_that_leaves_less_and_no_longer() {
    let mut two = Two::with_payload(1 << 20);
    two.writes = 100_000;
    two.finish();
    // As much again was written during the second copy as during the first: a third would leave no less.
    assert_eq!(two.sizes.len(), 3, "{:?}", two.sizes);
    assert!(two.given && two.installed == two.frozen);
}

#[test]
fn a_connection_whose_copy_was_lost_comes_whole() {
    let mut two = Two::with_payload(100_000);
    two.act();
    while two.frozen.is_none() {
        two.deliver(0, false);
    }
    // The acceptor starts anew, and has forgotten everything.
    two.acceptor = Handoffs::default();
    two.finish();
    assert!(two.given && two.installed == two.frozen);
    assert_eq!(two.sizes.len(), 3);
    assert!(two.sizes[1] < 2000 && two.sizes[2] > 100_000, "{:?}", two.sizes);
}

#[test]
fn an_acceptor_that_holds_a_copy_for_another_reason_gets_only_what_that_lacks() {
    let mut two = Two::with_payload(100_000);
    let (mut mirror, mut backup) = (Mirror::default(), Copy::default());
    let running = two.running.clone().unwrap();
    let before = Snapshot { epoch: Epoch::nth(6), ..two.snapshot(running) };
    backup.apply(mirror.delta(before.clone())).unwrap();
    two.donor.builds_on(&flow(), &mirror);
    assert!(!two.donor.sends_ahead(two.running.as_ref().unwrap()));
    two.act();
    two.deliver(0, false);
    two.deliver(0, false);
    let (_, transfer) = two.way.remove(0);
    assert!(transfer.encode().len() < 2000);
    two.acceptor.receive_with(node("donor"), &transfer, Some(&backup), NOW);
    two.act();
    assert_eq!(two.installed, two.frozen);
    assert_eq!(two.installed.unwrap().epoch, EPOCH);
}

#[test]
fn silence_while_copies_go_ahead_leaves_the_connection_where_it_is() {
    let mut two = Two::with_payload(100_000);
    two.act();
    two.deliver(0, false);
    two.deliver(0, false);
    assert_eq!(two.sizes.len(), 1);
    while two.failed.is_none() {
        two.way.clear();
        two.timeout();
    }
    assert_eq!(two.failed, Some(Failure::Silent));
    assert!(two.running.is_some() && two.frozen.is_none());
    assert_eq!(two.sizes.len(), 6, "it was repeated");
}

#[test]
fn a_handoff_that_is_broken_off_forgets_what_went_ahead() {
    for by_itself in [false, true] {
        let mut two = Two::with_payload(100_000);
        two.act();
        for _ in 0..3 {
            two.deliver(0, false);
        }
        assert!(two.acceptor.copied() > 100_000);
        if by_itself {
            two.acceptor.handle_timeout(NOW + Duration::from_mins(1));
        } else {
            two.donor.ended(&flow(), NOW);
            two.way.clear();
            two.act();
            two.deliver(0, false);
        }
        assert_eq!((two.acceptor.copied(), two.acceptor.under_way()), (0, 0));
    }
}

#[test]
fn what_goes_ahead_of_all_connections_together_is_bounded() {
    let mut acceptor = Handoffs::default();
    let mut answers = Vec::new();
    for port in 1..=20 {
        let mut snapshot = snapshot(7);
        snapshot.tcb.flow.remote.set_port(port);
        snapshot.tcb.snd.queue.push(alloc::vec![9; 7 << 20].into());
        let flow = snapshot.tcb.flow;
        acceptor.receive(node("donor"), Message::Prepare { flow, epoch: EPOCH, service: "echo".into() }, NOW);
        let delta = Mirror::default().delta(snapshot.clone()).encode().unwrap();
        let copy = Message::Copy { flow, epoch: EPOCH, version: 1, holders: Vec::new(), delta: delta.into() };
        acceptor.receive(node("donor"), copy, NOW);
        answers.extend(core::iter::from_fn(|| acceptor.poll()).filter_map(|action| match action {
            Action::Send { message: Message::Copied { .. }, .. } => Some(true),
            Action::Send { message: Message::Lacks { have: 0, .. }, .. } => Some(false),
            _ => None,
        }));
    }
    assert_eq!(answers.len(), 20);
    assert_eq!(answers.iter().filter(|kept| **kept).count(), 9, "64 MiB");
    assert!(acceptor.copied() <= 64 << 20);
}

#[test]
fn a_copy_that_nobody_expects_or_that_is_of_something_else_changes_nothing() {
    let delta = |epoch, port| {
        let mut snapshot = snapshot(epoch);
        snapshot.tcb.flow.remote.set_port(port);
        Mirror::default().delta(snapshot.clone()).encode().unwrap()
    };
    let right = flow().remote.port();
    let cases = [
        ("another epoch", Epoch::nth(8), delta(8, right)),
        ("an epoch inside that is another", EPOCH, delta(8, right)),
        ("another connection inside", EPOCH, delta(7, 1)),
        ("no delta", EPOCH, Bytes::from_static(b"FRRYxxxxxxxxxxxxxxxxxx")),
    ];
    for (name, epoch, delta) in cases {
        let mut acceptor = Handoffs::default();
        let prepare = Message::Prepare { flow: flow(), epoch: EPOCH, service: "echo".into() };
        acceptor.receive(node("donor"), prepare, NOW);
        while acceptor.poll().is_some() {}
        let copy =
            Message::Copy { flow: flow(), epoch, version: 1, holders: Vec::new(), delta: delta.into() };
        acceptor.receive(node("donor"), copy.clone(), NOW);
        acceptor.receive(node("stranger"), copy, NOW);
        assert!(acceptor.poll().is_none(), "{name}");
        assert_eq!(acceptor.copied(), 0, "{name}");
    }
}

#[test]
fn a_transfer_that_says_it_is_older_than_the_copy_is_returned() {
    // Else what went ahead would run in its place.
    let mut two = Two::with_payload(100_000);
    two.act();
    for _ in 0..3 {
        two.deliver(0, false);
    }
    let mut mirror = Mirror::default();
    let whole = two.snapshot(two.running.clone().unwrap());
    mirror.delta(whole.clone());
    let mut delta = mirror.delta(whole.clone());
    delta.version.number = 1;
    delta.base = Some(crate::Version { number: 1, ..delta.version });
    let mut octets = delta.encode().unwrap();
    assert!(Delta::decode(&octets).is_err(), "it cannot even be said");
    delta.base = Some(crate::Version { number: 0, ..delta.version });
    octets = delta.encode().unwrap();
    let transfer = Message::Transfer { flow: flow(), epoch: EPOCH, snapshot: octets.into() };
    two.acceptor.receive(node("donor"), transfer, NOW);
    let answer = core::iter::from_fn(|| two.acceptor.poll()).last();
    assert!(
        matches!(
            answer,
            Some(Action::Send {
                message: Message::Lacks { .. } | Message::Returned { why: Refusal::Snapshot(_), .. },
                ..
            })
        ),
        "{answer:?}"
    );
}

proptest! {
    #[test]
    fn whatever_becomes_of_the_messages_the_connection_is_whole_at_one_of_the_two(
        payload in 0usize..60_000,
        writes in 0usize..9_000,
        fates in prop::collection::vec((any::<prop::sample::Index>(), 0u8..8), 0..60),
    ) {
        let mut two = Two::with_payload(payload);
        two.writes = writes;
        two.act();
        for (at, fate) in fates {
            if two.way.is_empty() {
                two.timeout();
                continue;
            }
            let at = at.index(two.way.len());
            match fate {
                0 => drop(two.way.remove(at)),
                1 => two.deliver(at, true),
                2 => two.timeout(),
                _ => two.deliver(at, false),
            }
            prop_assert!(two.installed.is_none() || two.running.is_none(), "two owners");
        }
        two.finish();
        if two.given {
            prop_assert_eq!(&two.installed, &two.frozen);
        } else {
            prop_assert!(two.running.is_some() && two.installed.is_none());
        }
    }
}
