//! The links between the nodes: when they come up and break, who knows of it, and what they carry.

use core::time::Duration;

use bytes::Bytes;
use ferry_handoff::{Incarnation, Message, NodeId};

use super::agenda::Event;
use super::{Body, World};
use crate::tamper::one_by_one;

/// How long a node hears nothing before it gives up a link, at least and at most; microseconds.
const SILENCE: core::ops::RangeInclusive<u64> = 3_000_000..=4_000_000;
/// Between two attempts to bring a link up; microseconds.
const DIAL_AGAIN: core::ops::RangeInclusive<u64> = 200_000..=1_000_000;
/// How long octets that got stuck wait for their repetition at most; microseconds.
const REPEATED_WITHIN: u64 = 500_000;

impl World {
    pub(super) fn is_alive(&self, nth: usize) -> bool {
        matches!(self.places[nth].body, Body::Node(_))
    }

    pub(super) fn is_stopped(&self, nth: usize) -> bool {
        matches!(&self.places[nth].body, Body::Node(member) if member.stopped_since().is_some())
    }

    /// The identity of a node, dead or alive.
    fn id_of(&self, nth: usize) -> NodeId {
        NodeId::of(&self.places[nth].name)
    }

    /// The other nodes of the group.
    pub(super) fn others(&self, nth: usize) -> Vec<usize> {
        self.group.members().into_iter().filter(|other| *other != nth).collect()
    }

    /// The link between two nodes comes up, or is tried again later.
    pub(super) fn peers_meet(&mut self, a: usize, b: usize) {
        self.group.dialling.remove(&(a, b));
        if self.group.is_joined(a, b) || !self.is_alive(a) || !self.is_alive(b) {
            return;
        }
        let cut = self.router.is_cut(a, b) || self.router.is_cut(b, a);
        if cut || self.is_stopped(a) || self.is_stopped(b) {
            return self.dial(a, b);
        }
        for (by, of) in [(a, b), (b, a)] {
            if self.group.believes.contains(&(by, of)) {
                self.break_link(a, b);
                self.learn(by, of, false);
            }
        }
        self.say(|| format!("{} and {} meet", self.places[a].name, self.places[b].name));
        for pair in [(a, b), (b, a)] {
            if let Some(channel) = self.group.channels.get_mut(&pair) {
                // What is still said of the one before does not matter any more.
                (channel.up, channel.life) = (true, channel.life + 1);
            }
        }
        self.learn(a, b, true);
        self.learn(b, a, true);
    }

    /// The link between two nodes breaks, and both learn it.
    pub(super) fn peers_part(&mut self, a: usize, b: usize) {
        if !self.group.is_joined(a, b) {
            return;
        }
        self.say(|| format!("{} and {} part", self.places[a].name, self.places[b].name));
        self.break_link(a, b);
        self.learn(a, b, false);
        self.learn(b, a, false);
    }

    /// Tries to bring a link up, a little later and until it succeeds or one of the two is dead.
    pub(super) fn dial(&mut self, a: usize, b: usize) {
        let pair = (a.min(b), a.max(b));
        if self.group.dialling.insert(pair) {
            let at = self.now + Duration::from_micros(self.rng.within(DIAL_AGAIN));
            self.schedule(at, Event::PeersMeet(pair.0, pair.1));
        }
    }

    /// A node goes on under a new life: its links break and come up again.
    pub(super) fn reborn(&mut self, nth: usize, incarnation: Incarnation) {
        self.say(|| format!("{} is reborn", self.places[nth].name));
        self.rebirths += 1;
        self.group.incarnations.insert(nth, incarnation);
        self.group.owners.died(nth);
        self.excuse_what_nobody_keeps();
        for other in self.others(nth) {
            if self.group.is_joined(nth, other) {
                self.peers_part(nth, other);
                self.schedule(self.now, Event::PeersMeet(nth, other));
            }
        }
    }

    fn break_link(&mut self, a: usize, b: usize) {
        for pair in [(a, b), (b, a)] {
            if let Some(channel) = self.group.channels.get_mut(&pair) {
                channel.cut_off();
            }
        }
    }

    /// A node learns how its link to another is.
    fn learn(&mut self, by: usize, of: usize, up: bool) {
        let (id, now) = (self.id_of(of), self.now);
        let incarnation = self.group.incarnations.get(&of).copied().filter(|_| up);
        if up {
            self.group.believes.insert((by, of));
        } else {
            self.group.believes.remove(&(by, of));
        }
        if let Some(member) = self.member(by) {
            member.meet(id, incarnation, now);
        }
        self.settle(by);
    }

    /// A node has died: nothing reaches it any more, and the others learn it when they notice. What it had said by
    /// then is still under way.
    pub(super) fn part_from_the_dead(&mut self, dead: usize, silently: bool) {
        for other in self.others(dead) {
            self.group.believes.remove(&(dead, other));
            if let Some(channel) = self.group.channels.get_mut(&(other, dead)) {
                channel.cut_off();
            }
            let silently = silently || self.router.is_cut(dead, other);
            let most = self.group.channels.get(&(dead, other)).map(|channel| channel.manner.delay * 2);
            let most = u64::try_from(most.unwrap_or_default().as_micros()).unwrap_or(u64::MAX) + 1_000;
            let after = Duration::from_micros(self.rng.within(if silently { SILENCE } else { 0..=most }));
            self.notice_after(after, other, dead);
            if !silently {
                self.call_the_dead(after, other, dead);
            }
        }
    }

    fn notice_after(&mut self, span: Duration, by: usize, of: usize) {
        let life = self.group.life(of, by);
        self.schedule(self.now + span, Event::Notice { by, of, life });
    }

    /// A node learns that a link has broken, unless something later is known of it.
    pub(super) fn notice(&mut self, by: usize, of: usize, life: u32) {
        let Some(channel) = self.group.channels.get_mut(&(of, by)).filter(|channel| channel.life == life)
        else {
            return;
        };
        if channel.up {
            channel.cut_off();
        }
        if self.group.believes.contains(&(by, of)) {
            self.say(|| format!("{} loses its link to {}", self.places[by].name, self.places[of].name));
            self.learn(by, of, false);
        }
    }

    /// A link was closed at its other end because the process there has ended, as its kernel says to whoever calls then.
    fn call_the_dead(&mut self, after: Duration, by: usize, of: usize) {
        let Some(life) = self.group.incarnations.get(&of).copied() else { return };
        let trip = self.group.channels.get(&(by, of)).map(|channel| channel.manner.delay * 2);
        let at = self.now + after + trip.unwrap_or_default();
        self.schedule(at, Event::Refused { by, of, life });
    }

    /// The answer to such a call has come, if there is a way.
    pub(super) fn refused(&mut self, by: usize, of: usize, life: Incarnation) {
        let linked = self.group.believes.contains(&(by, of));
        if linked || !self.is_alive(by) {
            return;
        }
        if self.router.is_cut(by, of) || self.router.is_cut(of, by) {
            let at = self.now + Duration::from_micros(self.rng.within(DIAL_AGAIN));
            return self.schedule(at, Event::Refused { by, of, life });
        }
        let (peer, now) = (self.id_of(of), self.now);
        self.say(|| format!("{} has proof that {} is dead", self.places[by].name, self.places[of].name));
        if let Some(member) = self.member(by) {
            member.prove(peer, life, now);
        }
        self.settle(by);
    }

    /// From now on a node may hear nothing of another.
    pub(super) fn may_fall_silent(&mut self, by: usize, of: usize) {
        let at = self.now + Duration::from_micros(self.rng.within(SILENCE));
        let (life, since) = (self.group.life(of, by), self.now);
        self.schedule(at, Event::Silence { by, of, life, since });
    }

    /// A node has heard nothing of another for so long that it gives up the link.
    pub(super) fn silence(&mut self, by: usize, of: usize, life: u32, since: ferry_stack::Instant) {
        let believes = self.group.life(of, by) == life && self.group.believes.contains(&(by, of));
        let stopped = match &self.places[of].body {
            Body::Node(member) => member.stopped_since().is_some_and(|at| at <= since),
            _ => false,
        };
        let cut = self.router.cut_since(of, by).is_some_and(|at| at <= since);
        if !believes || !(stopped || cut) {
            return;
        }
        self.break_link(by, of);
        self.learn(by, of, false);
        let cut = self.router.is_cut(by, of);
        let after = if cut { self.rng.within(SILENCE) } else { self.rng.within(0..=20_000) };
        self.notice_after(Duration::from_micros(after), of, by);
        self.dial(by, of);
    }

    pub(super) fn tell(&mut self, from: usize, to: NodeId, bytes: &Bytes) {
        let Some(to) = self.group.members().into_iter().find(|nth| self.id_of(*nth) == to) else { return };
        self.say(|| {
            let said = Message::decode(bytes);
            format!("{} tells {} {}", self.places[from].name, self.places[to].name, brief(&said))
        });
        let cut = self.router.is_cut(from, to);
        let Some(channel) = self.group.channels.get_mut(&(from, to)) else { return };
        if cut && channel.up {
            channel.stuck.push(bytes.clone());
        } else if self.tamper.is_on() {
            for one in one_by_one(bytes) {
                self.carry(from, to, &one);
            }
        } else {
            self.carry(from, to, bytes);
        }
    }

    fn carry(&mut self, from: usize, to: usize, bytes: &Bytes) {
        let fate = self.tamper.next(from, to, bytes, self.now);
        let Some(channel) = self.group.channels.get_mut(&(from, to)) else { return };
        let life = channel.life;
        let arrivals = channel.carry(bytes.len(), self.now);
        for at in self.as_fated(fate, arrivals, (from, to)) {
            self.schedule(at, Event::Message { from, to, life, bytes: bytes.clone() });
        }
    }

    /// What got stuck on the way from one node to another goes on.
    pub(super) fn unstick(&mut self, from: usize, to: usize) {
        let Some(channel) = self.group.channels.get_mut(&(from, to)) else { return };
        let stuck = core::mem::take(&mut channel.stuck);
        if stuck.is_empty() {
            return;
        }
        let late = Duration::from_micros(self.rng.within(0..=REPEATED_WITHIN));
        if let Some(channel) = self.group.channels.get_mut(&(from, to)) {
            // Nothing overtakes it.
            channel.delay_until(self.now + late);
        }
        for bytes in stuck {
            self.carry(from, to, &bytes);
        }
    }

    pub(super) fn message(&mut self, from: usize, to: usize, life: u32, bytes: Bytes) {
        let now = self.now;
        let alive = self.group.channels.get(&(from, to)).is_some_and(|link| link.up && link.life == life);
        if !alive || !self.is_alive(to) {
            return;
        }
        self.say(|| {
            let said = Message::decode(&bytes);
            format!("{} hears {}", self.places[to].name, brief(&said))
        });
        let id = self.id_of(from);
        if let Some(member) = self.member(to) {
            member.hear(id, bytes, now);
        }
        self.settle(to);
    }
}

/// A message in a line: a snapshot is long.
fn brief(said: &Result<Message, ferry_handoff::Malformed>) -> String {
    let line = format!("{said:?}");
    line.chars().take(160).collect()
}
