//! Another node, life by life, as the directory of this one knows it.

use std::collections::BTreeMap;
use std::time::Duration;

use ferry_handoff::{Incarnation, NodeId, Verdict};
use ferry_stack::Instant;

use super::arrivals::Arrivals;

/// Lives of one node that are remembered. One more is not acknowledged, so that it has no vote against us.
const MAX_LIVES: usize = 16;
/// Lives that are over and of no matter any more, which are remembered for those who have not heard.
const MAX_SETTLED: usize = 8;

/// Another node.
#[derive(Debug, Default)]
pub(super) struct Member {
    pub(super) up: bool,
    /// The life of the last link.
    pub(super) link: Option<Incarnation>,
    /// The oldest known first.
    pub(super) lives: Vec<Life>,
}

/// One life of another node.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) life: Incarnation,
    /// It is over: a fact.
    pub(super) dead: bool,
    /// Somebody says that it is over, and we still hear it.
    pub(super) doubted: bool,
    /// It is over, and no vote of it counts anywhere any more.
    pub(super) settled: bool,
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

impl Life {
    fn new(life: Incarnation, now: Instant) -> Self {
        Self {
            life,
            dead: false,
            doubted: false,
            settled: false,
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

    /// Whether its pulses are acknowledged.
    pub(super) fn is_trusted(&self) -> bool {
        !self.dead && self.ours < Some(Verdict::Condemned)
    }

    /// What we tell others of it.
    pub(super) fn verdict(&self) -> Option<Verdict> {
        if self.dead { Some(Verdict::Dead) } else { self.ours }
    }

    /// Until when it certainly does not vote against us; `None`: for ever.
    pub(super) fn safe_until(&self, lease: Duration) -> Option<Instant> {
        match self.acknowledged {
            _ if !self.met || self.settled => None,
            Some(sent) => Some(sent + lease),
            None => Some(Instant::ZERO),
        }
    }
}

impl Member {
    pub(super) fn life(&self, life: Incarnation) -> Option<&Life> {
        self.lives.iter().find(|known| known.life == life)
    }

    pub(super) fn life_mut(&mut self, life: Incarnation) -> Option<&mut Life> {
        self.lives.iter_mut().find(|known| known.life == life)
    }

    /// The life of the last link.
    pub(super) fn present(&self) -> Option<&Life> {
        self.life(self.link?)
    }

    pub(super) fn present_mut(&mut self) -> Option<&mut Life> {
        self.life_mut(self.link?)
    }

    /// The life, which is remembered from now on; `None` if there is no room.
    pub(super) fn meet(&mut self, life: Incarnation, now: Instant) -> Option<&mut Life> {
        if self.life(life).is_none() {
            self.forget_old();
            if self.lives.len() >= MAX_LIVES {
                return None;
            }
            self.lives.push(Life::new(life, now));
        }
        self.life_mut(life)
    }

    fn forget_old(&mut self) {
        let of_no_matter = |known: &Life| known.dead && (known.settled || !known.met);
        let mut spare =
            self.lives.iter().filter(|known| of_no_matter(known)).count().saturating_sub(MAX_SETTLED);
        self.lives.retain(|known| {
            let goes = spare > 0 && of_no_matter(known);
            spare -= usize::from(goes);
            !goes
        });
    }
}
