//! What befalls nodes and the ways between them: death, a new life, a stop, a cut, a clock that runs otherwise.

use core::time::Duration;
use std::collections::BTreeMap;

use super::agenda::Event;
use super::{Body, World};
use crate::member::Wish;

/// One end of a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The node of this number in the group.
    Node(usize),
    /// Every client.
    Clients,
}

/// Something that befalls a node, by its number in the group, or a way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// The process ends at once, in the middle of what it does (`SIGKILL`). What it has sent is under way; its host
    /// closes its links.
    Crash(usize),
    /// The whole host is gone: nobody closes anything.
    Vanish(usize),
    /// A dead node starts anew, without memory.
    Restart(usize),
    /// The process does not run (`SIGSTOP`), while its clock goes on and all that comes for it waits.
    Stop(usize),
    /// It runs again (`SIGCONT`).
    Continue(usize),
    /// The link between two nodes breaks, with all that is under way on it. They make another one at once.
    Break(usize, usize),
    /// Nothing passes from the first to the second any more.
    Cut(End, End),
    /// It passes again.
    Heal(End, End),
    /// The node's clock runs fast by so many millionths from now on.
    Drift(usize, i32),
    /// The wall clock of the node's host is wrong by so many milliseconds from now on. A node reads it when it starts.
    Jump(usize, i64),
}

/// The moments of a run, counted: after each output of a node, and after each event at one. In between nothing that
/// a node could lose changes.
#[derive(Debug, Default)]
pub(super) struct Moments {
    count: u64,
    script: BTreeMap<u64, Vec<(Duration, Blow)>>,
}

impl World {
    /// Lets something happen at the `moment`th moment of the run, the first being 1, or so long after it.
    pub fn at_moment(&mut self, moment: u64, after: Duration, blow: Blow) {
        self.moments.script.entry(moment).or_default().push((after, blow));
    }

    /// How many moments there were.
    pub fn moments(&self) -> u64 {
        self.moments.count
    }

    /// A moment has come. Whether the node that acts is still what it was.
    pub(super) fn moment(&mut self, nth: usize) -> bool {
        self.moments.count += 1;
        let Some(blows) = self.moments.script.remove(&self.moments.count) else { return true };
        for (after, blow) in blows {
            match blow {
                Blow::Crash(_) | Blow::Vanish(_) | Blow::Stop(_) | Blow::Cut(..) if after.is_zero() => {
                    self.befall(blow);
                }
                // Whoever acts now is not to be called meanwhile.
                _ => self.schedule(self.now + after, Event::Befall(blow)),
            }
        }
        match &self.places[nth].body {
            Body::Node(member) => member.stopped_since().is_none(),
            _ => false,
        }
    }

    pub(super) fn befall(&mut self, blow: Blow) {
        let place = |nth: usize| self.group.members()[nth];
        match blow {
            Blow::Crash(nth) => self.die(place(nth), false),
            Blow::Vanish(nth) => self.die(place(nth), true),
            Blow::Restart(nth) => self.give_birth_again(place(nth)),
            Blow::Stop(nth) => self.stop(place(nth)),
            Blow::Continue(nth) => self.go_on(place(nth)),
            Blow::Break(one, other) => self.break_between(place(one), place(other)),
            Blow::Cut(from, to) => self.cut(from, to),
            Blow::Heal(from, to) => self.heal(from, to),
            Blow::Drift(nth, drift) => self.drift(place(nth), drift),
            Blow::Jump(nth, millis) => {
                let place = place(nth);
                self.group.wrong.insert(place, millis);
            }
        }
    }

    fn die(&mut self, place: usize, silently: bool) {
        if !self.is_alive(place) {
            return;
        }
        self.say(|| format!("{} dies", self.places[place].name));
        if self.protection.is_on() {
            self.group.owners.died(place);
        } else {
            self.excuse_what_dies_with(place);
        }
        self.places[place].body = Body::Gone;
        self.places[place].armed = None;
        if self.protection.is_on() {
            self.excuse_what_nobody_keeps();
        }
        self.lost_nodes += 1;
        self.group.hang_up(place);
        self.part_from_the_dead(place, silently);
    }

    fn stop(&mut self, place: usize) {
        let now = self.now;
        let Some(member) = self.member(place).filter(|member| member.stopped_since().is_none()) else {
            return;
        };
        member.stop(now);
        self.say(|| format!("{} is stopped", self.places[place].name));
        self.places[place].armed = None;
        for other in self.others(place) {
            self.may_fall_silent(other, place);
        }
    }

    fn go_on(&mut self, place: usize) {
        if !self.is_stopped(place) {
            return;
        }
        let (now, letters_first) = (self.now, self.rng.chance(500));
        let Some(member) = self.member(place) else { return };
        let serves = member.serves(now);
        let mut undone = member.go_on(letters_first, now);
        // A node looks at its lease before each frame.
        undone.retain(|wish| serves || !matches!(wish, Wish::Frame(_)));
        self.say(|| format!("{} goes on", self.places[place].name));
        self.fulfil_all(place, undone.into());
        self.stir(place);
        self.settle(place);
    }

    fn break_between(&mut self, one: usize, other: usize) {
        if self.group.is_joined(one, other) {
            self.peers_part(one, other);
            let soon = Duration::from_micros(self.rng.within(0..=5_000));
            self.schedule(self.now + soon, Event::PeersMeet(one, other));
        }
    }

    fn drift(&mut self, place: usize, drift: i32) {
        let now = self.now;
        if let Some(member) = self.member(place) {
            member.drift(drift, now);
            self.places[place].armed = None;
            self.settle(place);
        }
    }

    fn ends(&self, end: End) -> Vec<usize> {
        let host = |nth: &usize| matches!(self.places[*nth].body, Body::Host(_));
        match end {
            End::Node(nth) => vec![self.group.members()[nth]],
            End::Clients => (0..self.places.len()).filter(host).collect(),
        }
    }

    fn ways(&self, from: End, to: End) -> Vec<(usize, usize)> {
        let to = self.ends(to);
        self.ends(from).into_iter().flat_map(|from| to.iter().map(move |to| (from, *to))).collect()
    }

    fn cut(&mut self, from: End, to: End) {
        self.say(|| format!("nothing passes from {from:?} to {to:?}"));
        for (from, to) in self.ways(from, to) {
            self.router.cut(from, to, self.now);
            self.may_fall_silent(to, from);
        }
    }

    fn heal(&mut self, from: End, to: End) {
        self.say(|| format!("it passes from {from:?} to {to:?}"));
        for (from, to) in self.ways(from, to) {
            self.mend_way(from, to);
        }
    }

    fn mend_way(&mut self, from: usize, to: usize) {
        if self.router.heal(from, to) {
            self.unstick(from, to);
        }
    }

    /// Every way is whole again, and every node that has been stopped or has died runs.
    pub(super) fn mend_faults(&mut self) {
        for (from, to) in self.router.cuts() {
            self.mend_way(from, to);
        }
        let revived = self.group.revives();
        for place in self.group.members() {
            self.go_on(place);
            if revived {
                self.give_birth_again(place);
            }
        }
    }
}
