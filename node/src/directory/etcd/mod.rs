//! The directory that is kept in etcd. The nodes still watch each other, so that they can go on without it.
//!
//! - A node is *registered* under a lease of etcd. As long as that certainly holds, reckoned from when its renewal was sent,
//!   nobody can have declared it dead.
//! - Each pulse to a node acknowledges its newest one. Who acknowledges promises not to act against the other for the span
//!   of a lease.
//! - Who finds in etcd that a registration has run out, and has promised nothing any more, *votes* there, and acknowledges
//!   nothing until the other has registered again. With the votes of half of the group a life is *recorded* as dead, if still
//!   nothing stands against it: one transaction, that depends on every vote, on the voter's own registration, and on that
//!   the other has not registered. So of two that act against each other one is first.
//!
//! Hence a node may serve while etcd vouches for it, or while fewer than half of the group could act against it. Processes
//! that have ended count as if they could, because they count as voters when their promises have run out; but somebody who
//! lives must begin. When etcd cannot be reached nobody is declared dead by silence, and no role moves; proofs of an end
//! need no etcd.

mod beats;
mod cells;
mod commits;
mod facts;
mod member;
mod requests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ferry_handoff::{Incarnation, Message, NodeId, Opinion, Pulse, Verdict};
use ferry_stack::Instant;

use self::beats::Beats;
use self::cells::Cells;
use self::member::Member;
use self::requests::Requests;
use super::{Directory, DirectorySetup, Event, Lease};
use crate::io::{EtcdStatus, Standing, StoreAnswer};

/// What one pulse can say. More is not looked at.
const MAX_OPINIONS: usize = 1024;

/// The directory that is kept in etcd.
#[derive(Debug)]
pub(crate) struct Etcd {
    name: String,
    id: NodeId,
    life: Incarnation,
    /// When this life began.
    began: Instant,
    heartbeat: Duration,
    lease: Duration,
    members: BTreeMap<NodeId, Member>,
    beats: Beats,
    next: Instant,
    awake: Instant,
    cells: Cells,
    requests: Requests,
    /// The contact node and its term, as of the newest that is known.
    role: (NodeId, u64),
    /// Who is to be, once etcd grants it.
    wanted: Option<(NodeId, u64)>,
    until: Lease,
    lost: bool,
    events: VecDeque<Event>,
}

impl Etcd {
    /// For the node of this name, of a group with these others.
    pub(crate) fn new<'a>(
        name: &str,
        life: Incarnation,
        others: impl Iterator<Item = &'a str>,
        contact: NodeId,
        setup: &DirectorySetup,
        now: Instant,
    ) -> Self {
        Self {
            name: name.to_owned(),
            id: NodeId::of(name),
            life,
            began: now,
            heartbeat: setup.heartbeat,
            lease: setup.lease,
            members: others.map(|name| (NodeId::of(name), Member::new(name.to_owned()))).collect(),
            beats: Beats::default(),
            next: now,
            awake: now,
            cells: Cells::default(),
            requests: Requests::new(now),
            role: (contact, 0),
            wanted: None,
            until: Lease::Unlimited,
            lost: false,
            events: VecDeque::new(),
        }
    }

    /// How long a promise binds who has made it: longer than the other takes it to, whoever's clock is faster.
    fn promise(&self) -> Duration {
        self.lease + self.lease / 100
    }

    /// How many must act together: half of the group. Of two that do not see each other etcd is with one.
    fn quorum(&self) -> usize {
        (self.members.len() + 1).div_ceil(2)
    }

    fn tell(&mut self, to: NodeId, message: Message) {
        self.events.push_back(Event::Tell(to, message));
    }

    /// Reckons our lease anew.
    fn reckon(&mut self, now: Instant) {
        let vouched = self.vouched_until();
        let by_peers = self.unopposed_until();
        self.until = match by_peers {
            Lease::Unlimited => Lease::Unlimited,
            Lease::Until(end) => Lease::Until(end.max(vouched.unwrap_or(Instant::ZERO))),
        };
        self.go_on(now);
    }

    /// Until when fewer can act against us than must.
    fn unopposed_until(&self) -> Lease {
        let dead = self.members.values().filter(|member| self.counts_as_dead(member)).count();
        let living = self.members.values().filter(|member| !self.counts_as_dead(member));
        let open = self.members.values().any(|member| member.unsettled);
        let end = |member: &Member| member.acknowledged.map_or(Instant::ZERO, |sent| sent + self.lease);
        // Somebody who lives must begin.
        let first = self.members.values().filter(|member| member.is_met()).map(end).min();
        let first = match (open, first) {
            (true, _) => Lease::Until(Instant::ZERO),
            (false, None) => return Lease::Unlimited,
            (false, Some(end)) => Lease::Until(end),
        };
        let unsettled = |member: &Member| if member.unsettled { Instant::ZERO } else { end(member) };
        let mut ends: Vec<_> =
            living.filter(|member| member.is_met() || member.unsettled).map(unsettled).collect();
        ends.sort_unstable();
        let enough = match self.quorum().checked_sub(dead + 1) {
            None => Lease::Until(Instant::ZERO),
            Some(nth) => ends.get(nth).map_or(Lease::Unlimited, |end| Lease::Until(*end)),
        };
        match (first, enough) {
            (Lease::Until(first), Lease::Until(enough)) => Lease::Until(first.max(enough)),
            _ => Lease::Unlimited,
        }
    }

    /// Whether others may count it among those whose process has ended: all that we have not seen registered with the life
    /// that we know.
    fn counts_as_dead(&self, member: &Member) -> bool {
        let record = self.cells.record(&member.name).filter(|record| !record.dead);
        member.is_dead() || record.is_none_or(|record| Some(record.life) != member.link)
    }

    // Pulses.

    fn beat(&mut self, now: Instant) {
        let number = self.beats.next(self.lease, now);
        let opinions = self.opinions();
        let life = self.life;
        let mut pulses = Vec::new();
        for (peer, member) in self.members.iter_mut().filter(|(_, member)| member.up && !member.is_dead()) {
            let trusted = member.against.is_none() && member.number > 0;
            let heard = member.link.filter(|_| trusted).map(|life| (life, member.number));
            member.met |= heard.is_some();
            pulses.push((*peer, Pulse { life, number, heard, opinions: opinions.clone() }));
        }
        for (peer, pulse) in pulses {
            self.tell(peer, Message::Pulse(pulse));
        }
        self.next = now + self.heartbeat;
    }

    /// Whom we know to be dead, for who has not heard.
    fn opinions(&self) -> Vec<Opinion> {
        let dead = |(node, member): (&NodeId, &Member)| {
            let life = member.link.filter(|_| member.is_dead())?;
            Some(Opinion { node: *node, life, verdict: Verdict::Dead })
        };
        self.members.iter().filter_map(dead).take(MAX_OPINIONS).collect()
    }

    /// Notes that a pulse has come; `false` if it is of no use.
    fn hear(&mut self, from: NodeId, pulse: &Pulse, now: Instant) -> bool {
        let acknowledged = pulse.heard.filter(|(life, _)| *life == self.life);
        let sent = acknowledged.and_then(|(_, number)| self.beats.sent(number));
        let Some(member) = self.members.get_mut(&from) else { return false };
        if member.link != Some(pulse.life) || member.is_dead() || pulse.number <= member.number {
            return false;
        }
        // Who does not know us, we cannot act against: the first one is acknowledged at once.
        if member.number == 0 {
            self.next = now;
        }
        (member.number, member.heard) = (pulse.number, now);
        member.knows_us |= acknowledged.is_some();
        member.acknowledged = member.acknowledged.max(sent);
        true
    }

    /// Whoever was not awake cannot say who was silent meanwhile.
    fn wake(&mut self, now: Instant) {
        let slept = self.awake.since(now);
        self.awake = now;
        if slept > self.heartbeat + self.lease / 2 {
            for member in self.members.values_mut() {
                member.heard = now;
            }
        }
    }

    fn suspect(&mut self, now: Instant) {
        let patience = self.promise() + self.heartbeat;
        for member in self.members.values_mut() {
            let silent = member.link.is_some() && member.heard.since(now) >= patience;
            member.suspected = silent || member.against.is_some();
        }
    }
}

impl Directory for Etcd {
    fn name(&self) -> &'static str {
        "etcd"
    }

    fn peer_up(&mut self, peer: NodeId, life: Incarnation, now: Instant) -> bool {
        self.wake(now);
        let Some(member) = self.members.get_mut(&peer) else { return false };
        let former = member.link.filter(|former| *former != life);
        member.up = true;
        if let Some(former) = former {
            self.die(peer, former, now);
        }
        let Some(member) = self.members.get_mut(&peer) else { return false };
        if member.link != Some(life) {
            member.begin(life, now);
        } else if member.against.is_none() {
            member.heard = now;
        }
        let over = member.has_ended(life);
        if over {
            self.tell(peer, Message::Dead { node: peer, life });
        }
        self.next = now;
        self.reckon(now);
        !over
    }

    fn peer_down(&mut self, peer: NodeId, now: Instant) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.up = false;
        if let Some(life) = member.link.filter(|_| member.told) {
            self.die(peer, life, now);
            self.reckon(now);
        }
    }

    fn proved(&mut self, peer: NodeId, life: Incarnation, now: Instant) {
        self.die(peer, life, now);
        self.reckon(now);
    }

    fn told(&mut self, from: NodeId, node: NodeId, life: Incarnation, now: Instant) {
        if self.standing(from) == Standing::Dead {
            return;
        }
        if node == self.id {
            // While the lease is valid nobody can have taken our place.
            if life == self.life && !self.until.is_valid(now) {
                self.lose();
            }
            return;
        }
        let Some(member) = self.members.get_mut(&node) else { return };
        if member.up && member.link == Some(life) {
            // It speaks to us. Our own link will end, or etcd says so too, or it is not true.
            member.told = true;
        } else {
            self.die(node, life, now);
            self.reckon(now);
        }
    }

    fn pulse(&mut self, from: NodeId, pulse: &Pulse, now: Instant) {
        self.wake(now);
        if self.members.get(&from).is_some_and(|member| member.has_ended(pulse.life)) {
            return self.tell(from, Message::Dead { node: from, life: pulse.life });
        }
        if self.hear(from, pulse, now) {
            for opinion in pulse.opinions.iter().take(MAX_OPINIONS) {
                let known =
                    self.members.get(&opinion.node).is_some_and(|member| member.has_ended(opinion.life));
                if opinion.verdict == Verdict::Dead && !known {
                    self.told(from, opinion.node, opinion.life, now);
                }
            }
            self.reckon(now);
        }
    }

    fn reborn(&mut self, life: Incarnation, now: Instant) {
        (self.life, self.began, self.lost) = (life, now, false);
        self.beats.forget();
        self.wanted = None;
        for member in self.members.values_mut() {
            member.up = false;
            member.forget_ties();
            member.unsettled = false;
        }
        self.requests.begin_anew();
        self.next = now;
        self.reckon(now);
    }

    fn appoint(&mut self, node: NodeId, term: u64, now: Instant) -> bool {
        self.wanted = Some((node, term));
        self.go_on(now);
        false
    }

    fn hindrance(&self) -> Option<&'static str> {
        let why = "etcd does not answer: no role can move until it does; see `ferry doctor`";
        (!self.requests.is_connected()).then_some(why)
    }

    fn answer(&mut self, id: u64, answer: StoreAnswer, now: Instant) {
        self.wake(now);
        self.take_answer(id, answer, now);
        self.reckon(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.next > now {
            return;
        }
        self.wake(now);
        self.suspect(now);
        self.beat(now);
        self.reckon(now);
    }

    fn deadline(&self) -> Option<Instant> {
        Some(self.next)
    }

    fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn lease(&self) -> Lease {
        self.until
    }

    fn standing(&self, peer: NodeId) -> Standing {
        match self.members.get(&peer) {
            Some(member) if member.is_dead() => Standing::Dead,
            Some(member) if member.suspected => Standing::Suspected,
            _ => Standing::Alive,
        }
    }

    fn etcd(&self, now: Instant) -> Option<EtcdStatus> {
        let left = self.vouched_until().map(|end| end.until(now)).unwrap_or_default();
        Some(EtcdStatus {
            connected: self.requests.is_connected(),
            registered: !left.is_zero(),
            lease_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            revision: self.cells.revision,
        })
    }
}
