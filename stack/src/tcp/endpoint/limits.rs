//! What a host keeps of connections that nobody uses any more, and what strangers can make it send: both bounded.

use alloc::collections::VecDeque;

use super::{Endpoint, Event, Handle, ReceivedRange};
use crate::Instant;
use crate::tcp::isn::Secret;
use crate::tcp::state::{Ending, State};
use crate::tcp::tcb::Tcb;

/// Bounds on a host's connections in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections in TIME-WAIT. Beyond it the oldest is forgotten early.
    pub time_wait: usize,
    /// Connections that the application has closed and the other side has not finished. Beyond it the oldest is
    /// reset.
    pub orphans: usize,
    /// Challenge ACKs in a second (RFC 5961 section 10), about: each second's number is drawn between half of it and
    /// half as much again, so that counting them tells an outsider nothing of other connections.
    pub challenges: u32,
}

impl Default for Limits {
    /// About those of Linux on a machine with 8 GiB.
    fn default() -> Self {
        Self { time_wait: 1 << 16, orphans: 1 << 15, challenges: 1000 }
    }
}

/// What a connection is that only waits for its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leftover {
    /// TIME-WAIT.
    TimeWait,
    /// Nobody reads or writes any more.
    Orphan,
}

impl Leftover {
    fn of(tcb: &Tcb) -> Option<Self> {
        match tcb.state {
            State::TimeWait { .. } => Some(Self::TimeWait),
            State::FinWait1 | State::FinWait2 { .. } | State::Closing | State::LastAck if tcb.rcv.discard => {
                Some(Self::Orphan)
            }
            _ => None,
        }
    }
}

/// Leftovers in the order in which they became so. Some entries are out of date.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    time_wait: Turns,
    orphans: Turns,
}

#[derive(Debug, Default)]
struct Turns {
    in_turn: VecDeque<Handle>,
    count: usize,
}

impl Leftovers {
    fn of(&mut self, kind: Leftover) -> &mut Turns {
        match kind {
            Leftover::TimeWait => &mut self.time_wait,
            Leftover::Orphan => &mut self.orphans,
        }
    }

    pub(super) fn leave(&mut self, kind: Option<Leftover>) {
        if let Some(kind) = kind {
            self.of(kind).count -= 1;
        }
    }
}

/// Challenge ACKs that may still be sent in this second.
#[derive(Debug, Default)]
pub(super) struct Challenges {
    second: Option<u64>,
    pub(super) left: u32,
}

impl Challenges {
    /// Begins a new second, if one has begun.
    pub(super) fn refill(&mut self, secret: &Secret, limit: u32, now: Instant) {
        let second = now.millis() / 1000;
        if self.second != Some(second) {
            self.second = Some(second);
            self.left = limit / 2 + secret.draw(second, limit);
        }
    }
}

impl Endpoint {
    /// Sets the bounds on all connections of this host.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Connections that ended early because there were too many that nobody uses any more.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// A connection may have come to wait for its end only: then the oldest that does so may have to go.
    pub(super) fn note_leftover(&mut self, handle: Handle) {
        let Some(connection) = self.connections.get_mut(handle) else { return };
        let kind = Leftover::of(&connection.tcb);
        let before = core::mem::replace(&mut connection.leftover, kind);
        if kind == before {
            return;
        }
        self.leftovers.leave(before);
        let Some(kind) = kind else { return };
        let turns = self.leftovers.of(kind);
        turns.count += 1;
        turns.in_turn.push_back(handle);
        self.evict(kind);
    }

    fn evict(&mut self, kind: Leftover) {
        let limit = match kind {
            Leftover::TimeWait => self.limits.time_wait,
            Leftover::Orphan => self.limits.orphans,
        };
        while let Some(&oldest) = self.leftovers.of(kind).in_turn.front() {
            let current = self.connections.get(oldest).is_some_and(|it| it.leftover == Some(kind));
            if current && self.leftovers.of(kind).count <= limit {
                return;
            }
            self.leftovers.of(kind).in_turn.pop_front();
            if !current {
                continue;
            }
            self.evicted += 1;
            match kind {
                Leftover::TimeWait => {
                    let event = self.remove(oldest).map(|old| {
                        Event::Closed(oldest, old.tcb.flow, Ending::Finished, ReceivedRange::of(&old.tcb))
                    });
                    self.events.extend(event);
                }
                Leftover::Orphan => {
                    self.leave_leftover(oldest);
                    self.with(oldest, Tcb::abort);
                }
            }
        }
    }

    /// It is about to end, and does not count any more.
    fn leave_leftover(&mut self, handle: Handle) {
        if let Some(connection) = self.connections.get_mut(handle) {
            self.leftovers.leave(connection.leftover.take());
        }
    }
}
