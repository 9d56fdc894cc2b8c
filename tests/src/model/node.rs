//! What the nodes of the model do.

use core::net::{Ipv6Addr, SocketAddrV6};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use bytes::Bytes;
use ferry_handoff::claims::{Claim, Held, Holdings, Standing, Verdict};
use ferry_handoff::{Action, Epoch, Handoffs, Incarnation, Message, Refusal, Snapshot};
use ferry_stack::tcp::{Config, Control, Flow, MapKey, Opening, Segment, Tcb};
use ferry_stack::{Instant, Seq};

use super::{CONNECTIONS, Letter, Link, NODES, World, id, which};

/// The initial sequence number of every connection.
const ISS: Seq = Seq(1);

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
#[derive(Clone, Debug, Hash)]
pub(super) struct Model {
    pub(super) handoffs: Handoffs,
    pub(super) owned: BTreeMap<usize, Running>,
    /// What the client of a connection had seen when it was given away last.
    pub(super) given: BTreeMap<usize, u8>,
    /// What was given to nodes that have died, and what its client had seen.
    pub(super) holdings: Holdings<u8>,
    /// The life in which each node was within reach last.
    met: [u64; NODES],
    /// Lives that are known to be over.
    dead: BTreeSet<(usize, u64)>,
    /// Claims to connections of nodes of which that is not known yet.
    pub(super) early: Vec<Asked>,
}

/// Another node claims connections of one that is dead.
#[derive(Clone, Debug, Hash)]
pub(super) struct Asked {
    from: usize,
    dead: (usize, u64),
    run: u64,
    copies: Vec<Claim>,
}

impl Model {
    pub(super) fn new(me: usize, life: u64) -> Self {
        let others = (0..NODES).filter(|other| *other != me).map(id);
        Self {
            handoffs: Handoffs::default(),
            owned: BTreeMap::new(),
            given: BTreeMap::new(),
            holdings: Holdings::new(id(me), others, life << 20, MapKey::default()),
            met: [0; NODES],
            dead: BTreeSet::new(),
            early: Vec::new(),
        }
    }

    pub(super) fn deadline(&mut self) -> Option<Instant> {
        [self.handoffs.deadline(), self.holdings.deadline()].into_iter().flatten().min()
    }

    /// What is claimed of a connection here, and what its client had seen.
    pub(super) fn claims(&self, nth: usize) -> Option<u8> {
        self.holdings.get(&flow_of(nth)).map(|held| held.copy)
    }
}

pub(super) fn name_of(node: usize) -> &'static str {
    ["a", "b", "c"][node]
}

pub(super) fn flow_of(nth: usize) -> Flow {
    let end = |last, port| SocketAddrV6::new(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last), port, 0, 0);
    Flow { local: end(1, 80), remote: end(2, 40_000 + u16::try_from(nth).unwrap_or(0)) }
}

fn node_of(node: ferry_handoff::NodeId) -> usize {
    (0..NODES).find(|nth| id(*nth) == node).expect("it is one of the group")
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
            iss: ISS,
            first_timestamp: 1,
            flow_label: 1,
            path_mtu: 1500,
        };
        let syn = Segment::bare(Seq(4711), None, Some(Control::Syn));
        Tcb::accept(flow_of(nth), &syn, &opening, Instant::ZERO).freeze(Instant::ZERO)
    };
    let tcb = FRESH.get_or_init(|| (0..CONNECTIONS).map(fresh).collect())[nth].clone().into();
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
        let (from, to, now) = (letter.from, letter.to, self.now);
        match letter.message() {
            Message::Claims { dead, life, run, copies } => {
                let dead = (node_of(dead), life.0);
                self.asked(to, Asked { from, dead, run, copies });
            }
            Message::Claimed { run, objections, .. } => {
                if let Some(node) = &mut self.nodes[to] {
                    node.holdings.answered(id(from), run, &objections, now);
                }
            }
            message => {
                if let Some(node) = &mut self.nodes[to] {
                    node.handoffs.receive(id(from), message, now);
                }
            }
        }
        self.settle(to, refuses);
    }

    /// Who still hears a node believes nobody that it is dead.
    fn asked(&mut self, at: usize, asked: Asked) {
        let (dead, life) = asked.dead;
        let Some(node) = &mut self.nodes[at] else { return };
        let heard = dead != at && node.met[dead] == life && self.links[at][dead] != Link::Down;
        if heard && !node.dead.contains(&asked.dead) {
            return node.early.push(asked);
        }
        if dead != at {
            node.learn(dead, life, self.now);
        }
        node.answer(&asked);
    }

    pub(super) fn fire(&mut self, at: usize) {
        if let Some(node) = &mut self.nodes[at]
            && let Some(deadline) = node.deadline()
        {
            self.now = self.now.max(deadline);
            node.handoffs.handle_timeout(self.now);
            node.holdings.handle_timeout(self.now);
        }
        self.settle(at, false);
    }

    pub(super) fn die(&mut self, at: usize) {
        for nth in 0..CONNECTIONS {
            // Who alone knew that it was over may be the one that dies.
            self.truth[nth].lost |= self.truth[nth].ended;
            let claims = self.nodes[at].as_ref().is_some_and(|node| node.claims(nth).is_some());
            let holds = self.owner(nth) == Some(at) || self.committed(nth).contains_key(&at) || claims;
            let owned_elsewhere = self.owner(nth).is_some_and(|owner| owner != at);
            if !holds || owned_elsewhere {
                continue;
            }
            // Who claims it has perhaps been told that this one had come further.
            let claimed = (0..NODES).filter(|other| *other != at && self.owner(nth).is_none()).any(|other| {
                let claims = self.nodes[other].as_ref().and_then(|node| node.claims(nth));
                claims == Some(self.truth[nth].seen)
            });
            let survives = claimed || (0..NODES).any(|other| other != at && self.keeps(other, nth, at));
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

    /// Whether a node keeps all that the client of a connection has seen when another dies. What was given away last is the
    /// newest. It is held until the acceptor has said that it was taken; one that lives has given it on, and will say so.
    fn keeps(&self, at: usize, nth: usize, dies: usize) -> bool {
        let Some(node) = &self.nodes[at] else { return false };
        let to =
            node.handoffs.committed().find(|(flow, ..)| which(flow) == nth).map(|(_, to, _)| node_of(to));
        let Some(to) = to.filter(|to| *to == dies || self.nodes[*to].is_none()) else { return false };
        let taken = |letter: &Letter| {
            (letter.from, letter.to) == (to, at)
                && matches!(letter.message(), Message::Taken { flow, .. } if which(&flow) == nth)
        };
        node.given[&nth] == self.truth[nth].seen && !self.letters.iter().any(taken)
    }

    pub(super) fn restart(&mut self, at: usize) {
        self.lives[at] += 1;
        self.nodes[at] = Some(Model::new(at, self.lives[at]));
    }

    pub(super) fn notice(&mut self, by: usize, of: usize) {
        self.links[by][of] = Link::Down;
        self.letters.retain(|letter| (letter.from, letter.to) != (of, by));
        let refuses = self.nodes[of].is_none();
        if let Some(node) = &mut self.nodes[by] {
            node.handoffs.peer_down(id(of));
            if refuses {
                // Nobody answers when it is called.
                node.learn(of, node.met[of], self.now);
            }
        }
        self.settle(by, false);
    }

    pub(super) fn meet(&mut self, a: usize, b: usize) {
        (self.links[a][b], self.links[b][a]) = (Link::Up, Link::Up);
        for (by, of) in [(a, b), (b, a)] {
            let life = Incarnation(self.lives[of]);
            if let Some(node) = &mut self.nodes[by] {
                let former = core::mem::replace(&mut node.met[of], life.0);
                if former != 0 && former != life.0 {
                    node.learn(of, former, self.now);
                }
                node.handoffs.peer_up(id(of), life, self.now);
                node.holdings.born(id(of));
                node.holdings.reached(id(of));
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
        loop {
            if let Some(action) = self.nodes[at].as_mut().and_then(|node| node.handoffs.poll()) {
                if let Action::Send { to, message } = action {
                    self.send(at, to, &message);
                } else if let Some(node) = &mut self.nodes[at] {
                    node.act(action, refuses, self.now);
                }
            } else if let Some(verdict) = self.nodes[at].as_mut().and_then(|node| node.holdings.poll()) {
                self.carry_out(at, verdict);
            } else {
                return;
            }
        }
    }

    /// As `Node::carry_out_verdicts`, without replicas.
    fn carry_out(&mut self, at: usize, verdict: Verdict) {
        let Verdict::Send { to, message } = verdict else {
            let Some(node) = &mut self.nodes[at] else { return };
            let (Verdict::Recover { flow } | Verdict::Yielded { flow, .. }) = verdict else { return };
            let Some(held) = node.holdings.remove(&flow) else { return };
            // Another has gone on from it.
            if held.lives == 0 && matches!(verdict, Verdict::Recover { .. }) {
                let epoch = held.recovered();
                node.owned.insert(which(&flow), Running { epoch, offered: epoch, seen: held.copy });
                node.handoffs.recovered(flow, epoch);
            }
            return;
        };
        self.send(at, to, &message);
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
    /// A life of another node is over. What left for it is the best that there is, unless it has passed that on.
    fn learn(&mut self, dead: usize, life: u64, now: Instant) {
        if !self.dead.insert((dead, life)) {
            return;
        }
        for (flow, epoch, snapshot) in self.handoffs.died(id(dead), Incarnation(life)) {
            let standing = Standing { iss: ISS, epoch, version: 0, rank: 0 };
            let seen = snapshot.session.first().copied().unwrap_or_default();
            self.holdings.insert(flow, Held::new(id(dead), standing, seen));
        }
        self.holdings.died(id(dead), Incarnation(life), now);
        for asked in core::mem::take(&mut self.early) {
            if asked.dead == (dead, life) {
                self.answer(&asked);
            } else {
                self.early.push(asked);
            }
        }
    }

    fn answer(&mut self, asked: &Asked) {
        let Self { holdings, owned, handoffs, .. } = self;
        let Asked { from, dead: (dead, life), run, copies } = asked;
        holdings.answer(id(*from), (id(*dead), Incarnation(*life)), *run, copies, |claim| {
            let running = owned.get(&which(&claim.flow)).map(|running| running.epoch);
            let epoch = running.or_else(|| handoffs.given(&claim.flow));
            let further = epoch.filter(|epoch| *epoch >= claim.standing.epoch)?;
            Some(Standing::of_owner(ISS, further))
        });
    }

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
                self.holdings.remove(&flow);
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
