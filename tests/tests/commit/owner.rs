//! The node that runs the connection, and what its backups have of it.

use core::time::Duration;

use ferry_stack::tcp::{Point, Tcb};
use ferry_stack::{Instant, Seq};

use crate::commit::session::Side;

/// A copy of a connection with its session.
#[derive(Clone, Debug)]
pub(crate) struct Copy {
    pub(crate) life: usize,
    pub(crate) version: u32,
    pub(crate) octets: Vec<u8>,
    pub(crate) session: Side,
}

impl Copy {
    pub(crate) fn tcb(&self) -> Tcb<Duration> {
        let (tcb, rest) = postcard::take_from_bytes::<Tcb<Duration>>(&self.octets).expect("it was encoded");
        assert!(rest.is_empty());
        tcb.check().expect("a copy is sound");
        tcb
    }
}

/// One life of the connection.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) tcb: Tcb,
    pub(crate) session: Side,
    /// What its clock shows when the world's shows nothing.
    pub(crate) ahead: Duration,
    pub(crate) version: u32,
    /// What was last copied.
    pub(crate) copied: Option<(Point, Side)>,
    /// The newest version that each backup has said it has.
    pub(crate) has: Vec<u32>,
    /// Points of versions that are not released.
    pub(crate) waiting: Vec<(u32, Point)>,
    /// The newest `TSval` that it sent.
    pub(crate) stamp: Option<Seq>,
    /// The first one that it may send.
    pub(crate) least_stamp: Option<Seq>,
}

impl Owner {
    pub(crate) fn clock(&self, now: Instant) -> Instant {
        now + self.ahead
    }

    /// Whether something has happened that the backups do not know of.
    pub(crate) fn is_dirty(&self) -> bool {
        self.copied.as_ref() != Some(&(self.tcb.point(), self.session.clone()))
    }

    pub(crate) fn copy(&mut self, life: usize, now: Instant) -> Copy {
        let frozen = self.tcb.clone().freeze(self.clock(now));
        let octets = postcard::to_allocvec(&frozen).expect("it can be encoded");
        self.version += 1;
        let (version, point, session) = (self.version, self.tcb.point(), self.session.clone());
        assert_eq!(frozen.point(), point);
        self.copied = Some((point, session.clone()));
        self.waiting.push((version, point));
        Copy { life, version, octets, session }
    }

    /// A backup has a version. What all have is released.
    pub(crate) fn acknowledged(&mut self, backup: usize, version: u32) {
        self.has[backup] = self.has[backup].max(version);
        let all = self.has.iter().min().copied().unwrap_or(0);
        for (_, point) in self.waiting.extract_if(.., |(version, _)| *version <= all) {
            self.tcb.release(point);
        }
    }

    pub(crate) fn is_released(&self) -> bool {
        self.waiting.is_empty()
    }
}
