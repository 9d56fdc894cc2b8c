//! Another node, as the directory of this one knows it.

use std::collections::VecDeque;
use std::time::Duration;

use ferry_handoff::Incarnation;
use ferry_stack::Instant;

/// Lives of one node that are over and remembered.
const MAX_ENDED: usize = 16;

/// Another node.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "any of them can be so at the same time")]
pub(super) struct Member {
    pub(super) name: String,
    pub(super) up: bool,
    /// The life of the last link.
    pub(super) link: Option<Incarnation>,
    /// Lives that are over, the last one last.
    pub(super) ended: VecDeque<Incarnation>,
    /// Somebody says that the life of the link is over, and we still hear it.
    pub(super) told: bool,
    /// Its newest pulse, and when that came, or the link did.
    pub(super) number: u64,
    pub(super) heard: Instant,
    /// We have acknowledged a pulse of it: it may act against us from then on.
    pub(super) met: bool,
    /// It has acknowledged a pulse of this life of ours.
    pub(super) knows_us: bool,
    /// When that pulse was sent which is the newest that it has acknowledged.
    pub(super) acknowledged: Option<Instant>,
    /// We have begun to act against it as long as its record has this revision, and acknowledge nothing.
    pub(super) against: Option<i64>,
    /// It has been silent for too long.
    pub(super) suspected: bool,
    /// A life of it that is over may have begun to act against us.
    pub(super) unsettled: bool,
    /// Since when we know that it is recorded as dead.
    pub(super) recorded: Option<Instant>,
    /// The life that was recorded last.
    pub(super) registered: Option<Incarnation>,
}

impl Member {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            up: false,
            link: None,
            ended: VecDeque::new(),
            told: false,
            number: 0,
            heard: Instant::ZERO,
            met: false,
            knows_us: false,
            acknowledged: None,
            against: None,
            suspected: false,
            unsettled: false,
            recorded: None,
            registered: None,
        }
    }

    pub(super) fn has_ended(&self, life: Incarnation) -> bool {
        self.ended.contains(&life)
    }

    /// Whether its life that was known last is over.
    pub(super) fn is_dead(&self) -> bool {
        match self.link {
            Some(life) => self.has_ended(life),
            None => !self.ended.is_empty(),
        }
    }

    /// Whether it may act against us: it is not dead, and we know each other.
    pub(super) fn is_met(&self) -> bool {
        self.met && !self.is_dead()
    }

    /// Notes that a life is over; `false` if that is known.
    pub(super) fn end(&mut self, life: Incarnation, lease: Duration, now: Instant) -> bool {
        if self.has_ended(life) {
            return false;
        }
        self.ended.push_back(life);
        if self.ended.len() > MAX_ENDED {
            self.ended.pop_front();
        }
        if self.link == Some(life) {
            // As long as its last promise holds it has not begun to act against us, and now it never will.
            let promised = self.acknowledged.is_some_and(|sent| sent + lease > now);
            self.unsettled |= self.met && !promised;
            self.told = false;
        }
        true
    }

    /// A link to another life of it than before.
    pub(super) fn begin(&mut self, life: Incarnation, now: Instant) {
        self.link = Some(life);
        (self.number, self.heard, self.told) = (0, now, false);
        self.forget_ties();
    }

    /// Between its present life and ours.
    pub(super) fn forget_ties(&mut self) {
        (self.met, self.knows_us, self.acknowledged) = (false, false, None);
        (self.against, self.suspected) = (None, false);
    }
}
