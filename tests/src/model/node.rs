//! What the nodes of the model do.

use core::net::{Ipv6Addr, SocketAddrV6};
use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use ferry_handoff::{Action, Epoch, Handoffs, Incarnation, Message, Refusal, Snapshot};
use ferry_stack::tcp::{Config, Control, Flow, Opening, Segment, Tcb};
use ferry_stack::{Instant, Seq};

use super::{CONNECTIONS, Letter, Link, NODES, World, id, which};

/// A connection that is owned.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Running {
    /// Since when.
    pub epoch: Epoch,
    /// The greatest epoch that was offered to another node.
    pub offered: Epoch,
    /// What its client has seen, as the owner knows.
    pub seen: u8,
}

/// A node that lives.
#[derive(Clone, Debug, Default, Hash)]
pub(super) struct Model {
    pub(super) handoffs: Handoffs,
    pub(super) owned: BTreeMap<usize, Running>,
    /// What the client of a connection had seen when it was given away last.
    pub(super) given: BTreeMap<usize, u8>,
}

pub(super) fn name_of(node: usize) -> &'static str {
    ["a", "b", "c"][node]
}

pub(super) fn flow_of(nth: usize) -> Flow {
    let end = |last, port| SocketAddrV6::new(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last), port, 0, 0);
    Flow { local: end(1, 80), remote: end(2, 40_000 + u16::try_from(nth).unwrap_or(0)) }
}

pub(super) fn nth_of(flow: &Flow) -> usize {
    usize::from(flow.remote.port() - 40_000)
}

/// A connection of which the model knows no more than its epoch and what its client has seen.
fn snapshot(nth: usize, epoch: Epoch, seen: u8) -> Snapshot {
    static FRESH: OnceLock<Vec<Tcb<core::time::Duration>>> = OnceLock::new();
    let fresh = |nth| {
        let opening = Opening {
            config: Config::default().into(),
            iss: Seq(1),
            first_timestamp: 1,
            flow_label: 1,
            path_mtu: 1500,
        };
        let syn = Segment::bare(Seq(4711), None, Some(Control::Syn));
        Tcb::accept(flow_of(nth), &syn, &opening, Instant::ZERO).freeze(Instant::ZERO)
    };
    let tcb = FRESH.get_or_init(|| (0..CONNECTIONS).map(fresh).collect())[nth].clone();
    let session = Bytes::copy_from_slice(&[seen]);
    Snapshot { epoch, service: "model".to_owned(), tcb, session, wake: None, client: Bytes::new() }
}

impl World {
    pub(super) fn give(&mut self, nth: usize, to: usize) {
        let Some(at) = self.owner(nth) else { return };
        let Some(node) = &mut self.nodes[at] else { return };
        if let Some(running) = node.owned.get_mut(&nth) {
            running.offered = running.offered.next();
            node.handoffs.give(flow_of(nth), id(to), running.offered, "model", self.now);
        }
        self.settle(at, false);
    }

    pub(super) fn remove(&mut self, at: usize) -> Option<Letter> {
        let letter = self.letters.iter().nth(at).cloned()?;
        self.letters.take(&letter)
    }

    pub(super) fn deliver(&mut self, at: usize, refuses: bool, again: bool) {
        let Some(letter) = self.remove(at) else { return };
        if again {
            self.letters.insert(letter.clone());
        }
        let message = letter.message();
        let (from, to) = (letter.from, letter.to);
        if let Some(node) = &mut self.nodes[to] {
            node.handoffs.receive(id(from), message, self.now);
        }
        self.settle(to, refuses);
    }

    pub(super) fn fire(&mut self, at: usize) {
        if let Some(node) = &mut self.nodes[at]
            && let Some(deadline) = node.handoffs.deadline()
        {
            self.now = self.now.max(deadline);
            node.handoffs.handle_timeout(self.now);
        }
        self.settle(at, false);
    }

    pub(super) fn die(&mut self, at: usize) {
        for nth in 0..CONNECTIONS {
            // Who alone knew that it was over may be the one that dies.
            self.truth[nth].lost |= self.truth[nth].ended;
            let holds = self.owner(nth) == Some(at) || self.committed(nth).contains_key(&at);
            let owned_elsewhere = self.owner(nth).is_some_and(|owner| owner != at);
            if !holds || owned_elsewhere {
                continue;
            }
            // What was given away last is the newest. It is held until the acceptor has said that it was taken.
            let others = self.committed(nth).into_iter().filter(|(other, _)| *other != at);
            let fresh = others.filter(|(_, seen)| *seen == self.truth[nth].seen);
            let taken = |letter: &Letter| {
                letter.from == at
                    && matches!(letter.message(), Message::Taken { flow, .. } if which(&flow) == nth)
            };
            let survives = fresh.count() > 0 && !self.letters.iter().any(taken);
            self.truth[nth].lost |= !survives;
        }
        self.nodes[at] = None;
        self.letters.retain(|letter| letter.to != at);
        for other in (0..NODES).filter(|other| *other != at) {
            self.links[at][other] = Link::Down;
            if self.links[other][at] == Link::Up {
                self.links[other][at] = Link::Broken;
            }
        }
    }

    pub(super) fn restart(&mut self, at: usize) {
        self.lives[at] += 1;
        self.nodes[at] = Some(Model::default());
    }

    pub(super) fn notice(&mut self, by: usize, of: usize) {
        self.links[by][of] = Link::Down;
        self.letters.retain(|letter| (letter.from, letter.to) != (of, by));
        if let Some(node) = &mut self.nodes[by] {
            node.handoffs.peer_down(id(of));
        }
        self.settle(by, false);
    }

    pub(super) fn meet(&mut self, a: usize, b: usize) {
        (self.links[a][b], self.links[b][a]) = (Link::Up, Link::Up);
        for (by, of) in [(a, b), (b, a)] {
            let life = Incarnation(self.lives[of]);
            if let Some(node) = &mut self.nodes[by] {
                node.handoffs.peer_up(id(of), life, self.now);
            }
            self.settle(by, false);
        }
    }

    pub(super) fn see(&mut self, nth: usize) {
        let Some(at) = self.owner(nth) else { return };
        if let Some(running) = self.nodes[at].as_mut().and_then(|node| node.owned.get_mut(&nth)) {
            running.seen += 1;
            self.truth[nth].seen = self.truth[nth].seen.max(running.seen);
        }
    }

    pub(super) fn end(&mut self, nth: usize) {
        let Some(at) = self.owner(nth) else { return };
        if let Some(node) = &mut self.nodes[at] {
            node.owned.remove(&nth);
            node.handoffs.ended(&flow_of(nth), self.now);
        }
        self.truth[nth].ended = true;
        self.settle(at, false);
    }

    /// As `Node::act`: everything that follows.
    pub(super) fn settle(&mut self, at: usize, refuses: bool) {
        while let Some(action) = self.nodes[at].as_mut().and_then(|node| node.handoffs.poll()) {
            if let Action::Send { to, message } = action {
                self.send(at, to, &message);
            } else if let Some(node) = &mut self.nodes[at] {
                node.act(action, refuses, self.now);
            }
        }
    }

    fn send(&mut self, from: usize, to: ferry_handoff::NodeId, message: &Message) {
        let to = (0..NODES).find(|node| id(*node) == to).unwrap_or(from);
        // A second one that says the same is a double.
        if self.links[from][to] == Link::Up {
            self.letters.insert(Letter { from, to, bytes: message.encode() });
        }
    }
}

impl Model {
    fn act(&mut self, action: Action, refuses: bool, now: Instant) {
        match action {
            Action::Freeze { flow, epoch, .. } => self.freeze(&flow, epoch, now),
            Action::Install { flow, from, snapshot } => {
                let nth = which(&flow);
                if refuses || self.owned.contains_key(&nth) {
                    let why = Refusal::Session("not in the mood".to_owned());
                    return self.handoffs.rejected(flow, from, snapshot.epoch, why, now);
                }
                self.own(nth, &snapshot);
                self.handoffs.installed(flow, from, snapshot.epoch);
            }
            Action::Failed { flow, resume: Some(snapshot), .. }
                if !self.owned.contains_key(&which(&flow)) =>
            {
                self.own(which(&flow), &snapshot);
            }
            _ => {}
        }
    }

    fn own(&mut self, nth: usize, snapshot: &Snapshot) {
        let (epoch, seen) = (snapshot.epoch, snapshot.session.first().copied().unwrap_or_default());
        self.owned.insert(nth, Running { epoch, offered: epoch, seen });
    }

    fn freeze(&mut self, flow: &Flow, epoch: Epoch, now: Instant) {
        let nth = which(flow);
        let Some(running) = self.owned.remove(&nth) else { return self.handoffs.ended(flow, now) };
        let snapshot = snapshot(nth, epoch, running.seen);
        match self.handoffs.frozen(snapshot, now) {
            Ok(_) => drop(self.given.insert(nth, running.seen)),
            Err(_) => drop(self.owned.insert(nth, running)),
        }
    }
}
