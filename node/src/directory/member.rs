//! Another node, life by life, as the directory of this one knows it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ferry_handoff::{Incarnation, NodeId, Verdict};
use ferry_stack::Instant;

use super::arrivals::Arrivals;

/// Lives of one node that are remembered. One more is not acknowledged, so that it has no vote against us.
const MAX_LIVES: usize = 64;
/// The latest of them, of which others are told: twice those of which newcomers have to say that they know.
pub(super) const TOLD: usize = 2 * RECENT;
/// The latest that are over and matter again when a newcomer comes, which may not have heard.
const RECENT: usize = 8;
/// Lives that were remembered once, and are over: nobody who tells of them again tells anything new.
const MAX_OVER: usize = 1024;

/// Another node.
#[derive(Debug, Default)]
pub(super) struct Member {
    pub(super) up: bool,
    /// The life of the last link.
    pub(super) link: Option<Incarnation>,
    /// The oldest known first.
    pub(super) lives: Vec<Life>,
    /// Those that had to make room for others, the latest last.
    over: VecDeque<Incarnation>,
}

/// One life of another node.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) id: Incarnation,
    pub(super) end: End,
    /// We have acknowledged a pulse of it: it may vote against us from then on.
    pub(super) met: bool,
    /// It has acknowledged a pulse of this life of ours, so that it knows of our vote.
    pub(super) knows_us: bool,
    /// When that pulse was sent which is the newest that it has acknowledged.
    pub(super) acknowledged: Option<Instant>,
    /// Its newest pulse.
    pub(super) number: u64,
    /// When that came, or the link did. Stands still once it is condemned.
    pub(super) heard: Instant,
    pub(super) arrivals: Arrivals,
    /// What we think of it.
    pub(super) ours: Option<Verdict>,
    /// We have thought ill of it before.
    pub(super) was_suspected: bool,
    /// What other nodes think of it, and which life of theirs.
    pub(super) others: BTreeMap<NodeId, (Incarnation, Verdict)>,
}

/// Whether a life is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    /// Not as far as is known.
    Open,
    /// Somebody says so, and we still hear it.
    Told,
    /// It is: a fact.
    Certain,
    /// And no vote of it counts anywhere any more.
    Settled,
}

impl Life {
    fn new(id: Incarnation, now: Instant) -> Self {
        Self {
            id,
            end: End::Open,
            met: false,
            knows_us: false,
            acknowledged: None,
            number: 0,
            heard: now,
            arrivals: Arrivals::default(),
            ours: None,
            was_suspected: false,
            others: BTreeMap::new(),
        }
    }

    pub(super) fn is_dead(&self) -> bool {
        self.end >= End::Certain
    }

    /// Whether it is over, and may have voted against us before.
    pub(super) fn is_open(&self) -> bool {
        self.met && self.end == End::Certain
    }

    /// Whether its pulses are acknowledged.
    pub(super) fn is_trusted(&self) -> bool {
        !self.is_dead() && self.ours < Some(Verdict::Condemned)
    }

    /// What we tell others of it.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        if self.is_dead() { Some(Verdict::Dead) } else { self.ours }
    }

    /// Until when it certainly does not vote against us; `None`: for ever.
    pub(super) fn safe_until(&self, lease: Duration) -> Option<Instant> {
        match self.acknowledged {
            _ if !self.met || self.end == End::Settled => None,
            Some(sent) => Some(sent + lease),
            None => Some(Instant::ZERO),
        }
    }
}

impl Member {
    pub(super) fn life(&self, life: Incarnation) -> Option<&Life> {
        self.lives.iter().find(|known| known.id == life)
    }

    pub(super) fn life_mut(&mut self, life: Incarnation) -> Option<&mut Life> {
        self.lives.iter_mut().find(|known| known.id == life)
    }

    /// The life of the last link.
    pub(super) fn present(&self) -> Option<&Life> {
        self.life(self.link?)
    }

    pub(super) fn present_mut(&mut self) -> Option<&mut Life> {
        self.life_mut(self.link?)
    }

    /// Whether a life is over that is of no matter any more.
    pub(super) fn is_long_over(&self, life: Incarnation) -> bool {
        self.over.contains(&life)
    }

    /// The life, which is remembered from now on; `None` if there is no room, or if it is long over.
    pub(super) fn meet(&mut self, life: Incarnation, now: Instant) -> Option<&mut Life> {
        if self.life(life).is_none() {
            if self.is_long_over(life) {
                return None;
            }
            self.make_room();
            if self.lives.len() >= MAX_LIVES {
                return None;
            }
            self.lives.push(Life::new(life, now));
        }
        self.life_mut(life)
    }

    /// Remembers a life that is over and was not known here, if others have no news of it but have known it for a while, as one
    /// that was before all others.
    pub(super) fn hear_of(&mut self, life: Incarnation, news: bool, now: Instant) {
        self.make_room();
        if self.lives.len() < MAX_LIVES {
            let at = if news { self.lives.len() } else { 0 };
            self.lives.insert(at, Life { end: End::Certain, ..Life::new(life, now) });
        }
    }

    /// The oldest that are over, and of no matter, are remembered by their names only.
    fn make_room(&mut self) {
        let of_no_matter = |known: &Life| known.is_dead() && !known.is_open();
        while self.lives.len() >= MAX_LIVES
            && let Some(oldest) = self.lives.iter().position(of_no_matter)
        {
            self.over.push_back(self.lives.remove(oldest).id);
        }
        self.over.drain(..self.over.len().saturating_sub(MAX_OVER));
    }

    /// The latest of those whose votes counted nowhere any more count again.
    pub(super) fn unsettle(&mut self) {
        let latest = self.lives.iter_mut().rev().filter(|known| known.is_dead()).take(RECENT);
        for known in latest.filter(|known| known.end == End::Settled) {
            known.end = End::Certain;
        }
    }
}
