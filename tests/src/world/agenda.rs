//! What will happen, in order.

use core::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use bytes::Bytes;
use ferry_handoff::Incarnation;
use ferry_stack::{Frame, Instant};

use super::faults::Blow;
use crate::link::Quality;

/// Something that will happen.
#[derive(Debug)]
pub(super) enum Event {
    /// A frame arrives at a machine.
    ToMachine(usize, Frame),
    /// A frame arrives at the router, at the port of a machine.
    ToRouter(usize, Frame),
    /// A machine wanted to be woken.
    Wake(usize),
    /// The router wanted to be woken.
    WakeRouter,
    /// A message arrives at a node.
    Message {
        /// The sender.
        from: usize,
        /// The receiver.
        to: usize,
        /// How often the link between them had broken when it was sent.
        life: u32,
        /// What it says.
        bytes: Bytes,
    },
    /// The link between two nodes comes up.
    PeersMeet(usize, usize),
    /// The link between two nodes breaks.
    PeersPart(usize, usize),
    /// The operator does something.
    Operate,
    /// The home agent starts anew.
    RestartAgent,
    /// The contact node is to be lost.
    LoseContact,
    /// A link becomes another: from the machine of this number, and to it.
    Relink(usize, Box<(Quality, Quality)>),
    /// A node learns that its link to another has broken, if it has not learned it.
    Notice {
        /// Who learns it.
        by: usize,
        /// The other one.
        of: usize,
        /// How often the link had broken before.
        life: u32,
    },
    /// A node has called another whose end of their link was closed, and hears that nobody of that life is there.
    Refused {
        /// Who calls.
        by: usize,
        /// Whom.
        of: usize,
        /// Which life of it.
        life: Incarnation,
    },
    /// A node has heard nothing of another for so long that it gives up the link.
    Silence {
        /// Who hears nothing.
        by: usize,
        /// The other one.
        of: usize,
        /// How often the link had broken before.
        life: u32,
        /// Since when.
        since: Instant,
    },
    /// A node is told to take the role of the contact node.
    TakeRole(usize),
    /// Something befalls a node, or a way.
    Befall(Blow),
    /// All faults end.
    Mend,
}

/// Events in the order of time, and of their making where time does not decide.
#[derive(Debug)]
struct Scheduled {
    at: Instant,
    serial: u64,
    event: Event,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Self) -> bool {
        self.serial == other.serial
    }
}

impl Eq for Scheduled {}

impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Scheduled {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.serial).cmp(&(other.at, other.serial))
    }
}

/// What will happen.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    queue: BinaryHeap<Reverse<Scheduled>>,
    serial: u64,
    /// Whether [`Event::Mend`] is still to come.
    pub(super) will_mend: bool,
}

impl Agenda {
    /// Lets something happen then.
    pub(super) fn add(&mut self, at: Instant, event: Event) {
        self.serial += 1;
        self.will_mend |= matches!(event, Event::Mend);
        self.queue.push(Reverse(Scheduled { at, serial: self.serial, event }));
    }

    /// What happens next, and when.
    pub(super) fn next(&mut self) -> Option<(Instant, Event)> {
        let Reverse(Scheduled { at, event, .. }) = self.queue.pop()?;
        self.will_mend &= !matches!(event, Event::Mend);
        Some((at, event))
    }

    /// When something happens next.
    pub(super) fn next_at(&self) -> Option<Instant> {
        self.queue.peek().map(|Reverse(next)| next.at)
    }
}
