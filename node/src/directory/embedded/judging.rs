//! What a node thinks of the others, and how long its own lease is.

use std::time::Duration;

use ferry_handoff::{Incarnation, NodeId, Verdict};
use ferry_stack::Instant;

use super::Embedded;
use crate::directory::Lease;
use crate::directory::member::{End, Life, Member};

impl Embedded {
    /// How many others think at least so badly of a life.
    pub(super) fn count(known: &Life, least: Verdict) -> usize {
        known.others.values().filter(|(_, verdict)| *verdict >= least).count()
    }

    pub(super) fn judge_all(&mut self, now: Instant) {
        if !self.in_force {
            return;
        }
        let lives: Vec<_> =
            self.members.iter().filter_map(|(node, member)| Some((*node, member.link?))).collect();
        for (node, life) in lives {
            self.judge(node, life, now);
        }
    }

    /// How long a silence is suspect: least and most. By then its lease is over.
    pub(super) fn doubts(&self) -> (Duration, Duration) {
        (self.promise(), 2 * self.lease)
    }

    /// When what we think of a life changes if nothing more is heard of it.
    pub(super) fn next_thought(&self, known: &Life) -> Option<Instant> {
        let (least, most) = self.doubts();
        match known.ours {
            _ if known.is_dead() || !known.knows_us => None,
            None => Some(known.heard + known.arrivals.usual().clamp(least, most)),
            Some(Verdict::Condemned) => Some(known.heard + self.promise()),
            Some(_) => None,
        }
    }

    /// What we think of a life by now.
    pub(super) fn judge(&mut self, node: NodeId, life: Incarnation, now: Instant) {
        let (majority, promise) = (self.majority(), self.promise());
        // A former life of ours may have promised something until then.
        let settled_in = self.began.since(now) >= promise;
        let (least, most) = self.doubts();
        let Some(known) = self.members.get_mut(&node).and_then(|member| member.life_mut(life)) else {
            return;
        };
        if known.is_dead() || !known.knows_us {
            return;
        }
        let before = known.ours;
        let silence = known.heard.since(now);
        if known.ours.is_none() && settled_in && silence >= known.arrivals.usual().clamp(least, most) {
            (known.ours, known.was_suspected) = (Some(Verdict::Suspected), true);
        }
        let agreed =
            known.ours == Some(Verdict::Suspected) && 1 + Self::count(known, Verdict::Suspected) >= majority;
        // Who has condemned has seen a majority, perhaps us among it. It cannot go back; so we follow.
        let follows = known.was_suspected && Self::count(known, Verdict::Condemned) > 0;
        if known.is_trusted() && (agreed || follows) {
            known.ours = Some(Verdict::Condemned);
        }
        if known.ours == Some(Verdict::Condemned) && silence >= promise {
            known.ours = Some(Verdict::Voted);
        }
        let own = usize::from(known.ours == Some(Verdict::Voted));
        let dies = own + Self::count(known, Verdict::Voted) >= majority;
        if known.ours != before {
            self.hurry(now);
        }
        if dies {
            self.die(node, life, true, now);
        }
    }

    /// Reckons our lease anew.
    pub(super) fn reckon(&mut self) {
        if !self.in_force {
            return;
        }
        self.settle();
        let lease = self.lease;
        let safe_until =
            |member: &Member| member.lives.iter().filter_map(|known| known.safe_until(lease)).min();
        let mut ends: Vec<_> = self.members.values().filter_map(safe_until).collect();
        ends.sort_unstable();
        self.until = ends.get(self.majority() - 1).map_or(Lease::Unlimited, |end| Lease::Until(*end));
    }

    /// Somebody may vote against us from now on who has not said yet whose votes it counts.
    pub(super) fn unsettle(&mut self) {
        self.members.values_mut().for_each(Member::unsettle);
    }

    /// Votes of lives that are over count nowhere any more once all who live have said that they know.
    pub(super) fn settle(&mut self) {
        let open = Life::is_open;
        if !self.members.values().any(|member| member.lives.iter().any(open)) {
            return;
        }
        let knows = |who: NodeId| {
            let thinks_us_dead = self.against.get(&who).is_some_and(|(_, verdict)| *verdict == Verdict::Dead);
            let of_others = self.members.iter().filter(|(node, _)| **node != who);
            let mut ended = of_others.flat_map(|(_, member)| member.lives.iter().filter(|known| open(known)));
            let told =
                |known: &Life| known.others.get(&who).is_some_and(|(_, verdict)| *verdict == Verdict::Dead);
            !thinks_us_dead && ended.all(told)
        };
        let lives = |member: &Member| member.lives.iter().any(|known| known.met && !known.is_dead());
        if self.members.iter().filter(|(_, member)| lives(member)).all(|(who, _)| knows(*who)) {
            let all = self.members.values_mut().flat_map(|member| &mut member.lives);
            for known in all.filter(|known| open(known)) {
                known.end = End::Settled;
            }
        }
    }

    /// Whoever was not awake cannot say who was silent meanwhile.
    pub(super) fn wake(&mut self, now: Instant) {
        let slept = self.awake.since(now);
        self.awake = now;
        if self.in_force && slept > self.heartbeat + self.lease / 2 {
            for known in self.members.values_mut().flat_map(|member| &mut member.lives) {
                known.heard = now;
            }
        }
    }
}
