//! The directory that needs no server: the nodes of a group watch each other.
//!
//! - Each *pulse* to a node acknowledges its newest one. Who acknowledges promises not to vote against the other for the
//!   span of a lease.
//! - A node has its *lease* as long as fewer than a majority of the group could vote against it: of those who may, because
//!   it has acknowledged them, the others have all acknowledged a pulse that it sent less than a lease ago.
//! - Whoever has heard nothing for longer than a lease *suspects*; if a majority does, it *condemns*, which is final: it
//!   acknowledges nothing any more, and *votes* when its last promise has run out. With the votes of a majority of the
//!   configured nodes a life is *dead*.
//!
//! Votes of a majority and a valid lease exclude each other, since some node would be in both (clocks may differ by 1 %). A
//! node that starts anew has forgotten its promises and votes. Its former life is over then, and counts as one that may
//! have voted until all who live, newcomers among them, have said that they know of its end, because nobody counts a vote
//! of the dead. Nobody votes against who does not know it yet: a newcomer has a vote against a node only after that has acknowledged it.

mod judging;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ferry_handoff::{Incarnation, Message, NodeId, Opinion, Pulse, Verdict};
use ferry_stack::Instant;

use super::member::{End, Life, Member, TOLD};
use super::{Directory, DirectorySetup, Event, Lease, Standing};

/// What one pulse can say. More lives are not remembered.
const MAX_OPINIONS: usize = 1024;
/// Times that pulses were sent at are remembered for as long as an acknowledgement of them is worth anything, and no more
/// than so many.
const MAX_SENT: usize = 1 << 14;

/// The nodes of a group watch each other.
#[derive(Debug)]
pub(crate) struct Embedded {
    id: NodeId,
    life: Incarnation,
    heartbeat: Duration,
    lease: Duration,
    /// Whether there are pulses and leases at all. Without, only proofs count.
    in_force: bool,
    /// Whether somebody may go on with our connections.
    replicated: bool,
    members: BTreeMap<NodeId, Member>,
    /// What others think of this life of ours.
    against: BTreeMap<NodeId, (Incarnation, Verdict)>,
    /// When this life began.
    began: Instant,
    /// The number of the newest pulse, and when the latest were sent.
    number: u64,
    sent: VecDeque<(u64, Instant)>,
    /// When the next pulse is due.
    next: Option<Instant>,
    /// When anything happened last.
    awake: Instant,
    until: Lease,
    lost: bool,
    events: VecDeque<Event>,
}

impl Embedded {
    /// For the node `id`, of a group with these others. `replicated`: whether some service has replicas.
    pub(crate) fn new(
        id: NodeId,
        life: Incarnation,
        others: impl Iterator<Item = NodeId>,
        setup: &DirectorySetup,
        replicated: bool,
        now: Instant,
    ) -> Self {
        let members: BTreeMap<_, _> = others.map(|node| (node, Member::default())).collect();
        // Of two, none is a majority against the other.
        let in_force = replicated && members.len() >= 2;
        Self {
            id,
            life,
            heartbeat: setup.heartbeat,
            lease: setup.lease,
            in_force,
            replicated,
            members,
            against: BTreeMap::new(),
            began: now,
            number: 0,
            sent: VecDeque::new(),
            next: in_force.then_some(now),
            awake: now,
            until: Lease::Unlimited,
            lost: false,
            events: VecDeque::new(),
        }
    }

    fn majority(&self) -> usize {
        let all = 1 + self.members.len();
        all / 2 + 1
    }

    /// How long a promise binds who has made it: longer than the other takes it to, whoever's clock is faster.
    fn promise(&self) -> Duration {
        self.lease + self.lease / 100
    }

    fn tell(&mut self, to: NodeId, message: Message) {
        self.events.push_back(Event::Tell(to, message));
    }

    fn reachable(&self) -> Vec<NodeId> {
        self.members.iter().filter(|(_, member)| member.up).map(|(id, _)| *id).collect()
    }

    /// A fact: told once, to this node and to all others. `news`: whether it has just happened, as far as is known.
    fn die(&mut self, node: NodeId, life: Incarnation, news: bool, now: Instant) {
        let Some(member) = self.members.get_mut(&node) else { return };
        if member.is_long_over(life) || member.life(life).is_some_and(Life::is_dead) {
            return;
        }
        match member.life_mut(life) {
            Some(known) => known.end = End::Certain,
            None => member.hear_of(life, news, now),
        }
        self.events.push_back(Event::Died(node, life));
        for peer in self.reachable() {
            if peer != node {
                self.tell(peer, Message::Dead { node, life });
            }
        }
        self.forget_opinions_of(node, life);
        self.hurry(now);
        self.reckon();
    }

    /// The votes of the dead do not count.
    fn forget_opinions_of(&mut self, node: NodeId, life: Incarnation) {
        let lives = self.members.values_mut().flat_map(|member| &mut member.lives);
        for others in lives.map(|known| &mut known.others).chain([&mut self.against]) {
            if others.get(&node).is_some_and(|(by, _)| *by == life) {
                others.remove(&node);
            }
        }
    }

    /// What we think has changed: the others learn of it now.
    fn hurry(&mut self, now: Instant) {
        if self.in_force {
            self.next = Some(now);
        }
    }

    /// This life of ours is over, says somebody who did not get it from us.
    fn given_up(&mut self, now: Instant) {
        // While the lease is valid nobody can have taken our place, and without replicas nobody ever does.
        let possible = if self.in_force { !self.until.is_valid(now) } else { self.replicated };
        if possible && !core::mem::replace(&mut self.lost, true) {
            self.events.push_back(Event::Lost);
        }
    }

    // Pulses.

    fn beat(&mut self, now: Instant) {
        self.number += 1;
        self.sent.push_back((self.number, now));
        let old = |(_, at): &(u64, Instant)| at.since(now) > self.lease;
        while self.sent.front().is_some_and(old) || self.sent.len() > MAX_SENT {
            self.sent.pop_front();
        }
        let opinions = self.opinions();
        let (life, number) = (self.life, self.number);
        let (mut pulses, mut newcomers) = (Vec::new(), false);
        for (peer, member) in self.members.iter_mut().filter(|(_, member)| member.up) {
            let present = member.present_mut().filter(|present| present.is_trusted() && present.number > 0);
            let heard = present.map(|present| {
                newcomers |= !core::mem::replace(&mut present.met, true);
                (present.id, present.number)
            });
            let opinions = opinions.clone();
            pulses.push((*peer, Pulse { life, number, heard, opinions }));
        }
        for (peer, pulse) in pulses {
            self.tell(peer, Message::Pulse(pulse));
        }
        if newcomers {
            self.unsettle();
        }
        self.next = Some(now + self.heartbeat);
        self.reckon();
    }

    fn opinions(&self) -> Vec<Opinion> {
        let of = |(node, member): (&NodeId, &Member)| {
            let node = *node;
            let opinion =
                move |known: &Life| Some(Opinion { node, life: known.id, verdict: known.verdict()? });
            // The latest first: what was before them is older than all that whoever hears of it knows.
            member.lives.iter().rev().take(TOLD).filter_map(opinion).collect::<Vec<_>>()
        };
        self.members.iter().flat_map(of).take(MAX_OPINIONS).collect()
    }

    /// Notes that a pulse has come; `false` if it is of no use.
    fn hear(&mut self, from: NodeId, pulse: &Pulse, now: Instant) -> bool {
        let sent_at = |number: u64| {
            let first = self.sent.front().map(|(first, _)| *first)?;
            let nth = usize::try_from(number.checked_sub(first)?).ok()?;
            self.sent.get(nth).map(|(_, at)| *at)
        };
        let acknowledged = pulse.heard.filter(|(life, _)| *life == self.life);
        let sent = acknowledged.and_then(|(_, number)| sent_at(number));
        let Some(member) = self.members.get_mut(&from).filter(|member| member.link == Some(pulse.life))
        else {
            return false;
        };
        let Some(known) =
            member.present_mut().filter(|known| !known.is_dead() && known.number < pulse.number)
        else {
            return false;
        };
        let first = known.number == 0;
        known.number = pulse.number;
        known.arrivals.arrived(now);
        if known.is_trusted() {
            (known.heard, known.ours) = (now, None);
        }
        known.knows_us |= acknowledged.is_some();
        known.acknowledged = known.acknowledged.max(sent);
        if first {
            // It has no vote against us before it is acknowledged: if we fall silent now, nobody could take our place.
            self.hurry(now);
        }
        true
    }

    /// Another node says that a life is over.
    fn take_word(&mut self, from: NodeId, node: NodeId, life: Incarnation, news: bool, now: Instant) {
        if self.standing(from) == Standing::Dead {
            return;
        }
        if node == self.id {
            if life == self.life {
                self.given_up(now);
            }
            return;
        }
        let Some(member) = self.members.get_mut(&node) else { return };
        let heard = member.up && member.link == Some(life);
        if heard && let Some(known) = member.life_mut(life) {
            // It speaks to us. Our own link will end, or a majority votes, or it is not true.
            known.end = known.end.max(End::Told);
        } else {
            self.die(node, life, news, now);
        }
    }

    /// What another node thinks replaces what it thought before.
    fn note_opinions(&mut self, from: NodeId, pulse: &Pulse, now: Instant) {
        self.forget_opinions_of(from, pulse.life);
        for opinion in pulse.opinions.iter().take(MAX_OPINIONS) {
            let Opinion { node, life, verdict } = *opinion;
            if node == self.id {
                if life == self.life {
                    self.against.insert(from, (pulse.life, verdict));
                }
                continue;
            }
            if verdict == Verdict::Dead {
                self.take_word(from, node, life, false, now);
            }
            if let Some(known) = self.members.get_mut(&node).and_then(|member| member.life_mut(life)) {
                known.others.insert(from, (pulse.life, verdict));
            }
        }
        let count = |least: Verdict| self.against.values().filter(|(_, verdict)| *verdict >= least).count();
        if count(Verdict::Dead) > 0 || count(Verdict::Voted) >= self.majority() {
            self.given_up(now);
        }
    }
}

impl Directory for Embedded {
    fn name(&self) -> &'static str {
        "embedded"
    }

    fn peer_up(&mut self, peer: NodeId, life: Incarnation, now: Instant) -> bool {
        self.wake(now);
        let binding = self.replicated;
        let Some(member) = self.members.get_mut(&peer) else { return false };
        let former = member.link.replace(life).filter(|former| *former != life);
        member.up = true;
        let long_over = binding && member.is_long_over(life);
        let over = long_over
            || member.meet(life, now).is_some_and(|known| {
                // Without replicas nobody has taken its place, and it speaks to us.
                if !binding {
                    known.end = End::Open;
                }
                if !known.is_dead() && known.ours.is_none() {
                    known.heard = now;
                }
                known.is_dead()
            });
        if over {
            self.tell(peer, Message::Dead { node: peer, life });
        }
        if let Some(former) = former {
            self.die(peer, former, true, now);
        }
        self.hurry(now);
        !over
    }

    fn peer_down(&mut self, peer: NodeId, now: Instant) {
        let Some(member) = self.members.get_mut(&peer) else { return };
        member.up = false;
        let doubted = member.lives.iter().find(|known| known.end == End::Told).map(|known| known.id);
        if let Some(life) = doubted {
            self.die(peer, life, true, now);
        }
    }

    fn proved(&mut self, peer: NodeId, life: Incarnation, now: Instant) {
        self.die(peer, life, true, now);
    }

    fn told(&mut self, from: NodeId, node: NodeId, life: Incarnation, now: Instant) {
        self.take_word(from, node, life, true, now);
    }

    fn pulse(&mut self, from: NodeId, pulse: &Pulse, now: Instant) {
        if !self.in_force {
            return;
        }
        self.wake(now);
        let over =
            self.members.get(&from).and_then(|member| member.life(pulse.life)).is_some_and(Life::is_dead);
        if over {
            return self.tell(from, Message::Dead { node: from, life: pulse.life });
        }
        if self.hear(from, pulse, now) {
            self.note_opinions(from, pulse, now);
            self.reckon();
            self.judge_all(now);
        }
    }

    fn reborn(&mut self, life: Incarnation, now: Instant) {
        (self.life, self.began, self.lost) = (life, now, false);
        self.against.clear();
        self.sent.clear();
        // What the former life had to say is nobody's word any more.
        self.events.clear();
        for member in self.members.values_mut() {
            // They do not know this life: none has a vote against it, nor a promise from it. And what the former one
            // has found on its own, while the others gave it up, is no fact to them.
            *member = Member::default();
        }
        self.hurry(now);
        self.reckon();
    }

    fn appoint(&mut self, _: NodeId, _: u64, _: Instant) -> bool {
        // Two that are appointed in one term are told apart by their names.
        true
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.next.is_none() {
            return;
        }
        self.wake(now);
        self.judge_all(now);
        if self.next.is_some_and(|next| next <= now) {
            self.beat(now);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let next = self.next?;
        let present = self.members.values().filter_map(Member::present);
        // A thought that was due and changed nothing has to wait for the next beat.
        let thoughts = present.filter_map(|known| self.next_thought(known)).filter(|at| *at > self.awake);
        Some(thoughts.min().map_or(next, |at| at.min(next)))
    }

    fn poll(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    fn lease(&self) -> Lease {
        self.until
    }

    fn standing(&self, peer: NodeId) -> Standing {
        let member = self.members.get(&peer);
        match member.and_then(Member::present) {
            Some(present) if present.is_dead() => Standing::Dead,
            Some(present) if present.ours.is_some() => Standing::Suspected,
            Some(present) if self.in_force && !present.knows_us => Standing::New,
            _ => Standing::Alive,
        }
    }
}
