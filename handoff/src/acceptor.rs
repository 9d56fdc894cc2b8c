use alloc::boxed::Box;
use core::time::Duration;

use ferry_stack::Instant;

use crate::{Copy, Epoch, NodeId};

/// How long room is reserved for a connection that does not come.
pub(crate) const RESERVATION: Duration = Duration::from_secs(5);
/// How long it is remembered which epochs were taken or returned, after the connection has gone from here. Longer
/// than any copy of a message lives.
pub(crate) const MEMORY: Duration = Duration::from_mins(5);

/// A connection that was announced and has not come.
#[derive(Debug)]
pub(crate) struct Reservation {
    pub(crate) from: NodeId,
    pub(crate) epoch: Epoch,
    /// What has come ahead of it.
    pub(crate) copy: Option<Box<Copy>>,
}

/// The last epoch of a flow that was decided here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decided {
    pub(crate) epoch: Epoch,
    /// Whether it was taken; else it was returned, and will never be taken.
    pub(crate) taken: bool,
    /// When it may be forgotten; not as long as the connection is here.
    pub(crate) until: Option<Instant>,
}

/// What is to be said to a transfer whose epoch was decided before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// It is news.
    New,
    /// It was taken.
    Taken,
    /// It was returned.
    Returned,
}

impl Decided {
    /// A donor that still waits for the answer to an epoch older than the last proves that it was taken: had it
    /// been returned, and the answer been lost, no later epoch could exist.
    pub(crate) fn repeat(&self, epoch: Epoch) -> Repeat {
        match epoch.cmp(&self.epoch) {
            core::cmp::Ordering::Greater => Repeat::New,
            core::cmp::Ordering::Equal if !self.taken => Repeat::Returned,
            _ => Repeat::Taken,
        }
    }
}
