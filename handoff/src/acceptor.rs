use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use core::hash::{Hash, Hasher};
use core::time::Duration;

use ferry_stack::Instant;
use ferry_stack::tcp::Flow;

use crate::{Copy, Epoch, NodeId};

/// How long room is reserved for a connection that does not come.
pub(crate) const RESERVATION: Duration = Duration::from_secs(5);
/// How long it is remembered which epochs were taken or returned, after the connection has gone from here: longer than any
/// copy of a message lives. A donor that has not heard the answer makes new copies as long as it lives, so that it must
/// have been within reach for [`HEARD`], too.
pub(crate) const MEMORY: Duration = Duration::from_mins(5);

/// A donor that has been within reach for so long has heard the answer: it repeats itself every two seconds.
pub(crate) const HEARD: Duration = Duration::from_mins(1);

/// Connections of one donor of which it is remembered that they were returned.
const MAX_RETURNED: usize = 1 << 14;

/// A connection that was announced and has not come.
#[derive(Clone, Debug)]
pub(crate) struct Reservation {
    pub(crate) from: NodeId,
    pub(crate) epoch: Epoch,
    /// Until then.
    pub(crate) until: Instant,
    /// What has come ahead of it.
    pub(crate) copy: Option<Box<Copy>>,
}

impl Reservation {
    /// It is still on its way: whether the deadline has moved.
    pub(crate) fn extend(&mut self, now: Instant) -> bool {
        core::mem::replace(&mut self.until, now + RESERVATION) != self.until
    }
}

/// The last epoch of a flow that was taken here, or that went on here.
#[derive(Clone, Debug, Hash)]
pub(crate) struct Decided {
    pub(crate) epoch: Epoch,
    /// Who has ever given it, and may be repeating that.
    pub(crate) donors: BTreeSet<NodeId>,
    /// When it may be forgotten; not as long as the connection is here.
    pub(crate) until: Option<Instant>,
}

/// The last epoch of each connection that each donor got back, and until when it is remembered. By donor, so that what one offers
/// decides nothing about what others do.
#[derive(Clone, Debug, Default)]
pub(crate) struct Returned(BTreeMap<NodeId, BTreeMap<Flow, (Epoch, Instant)>>);

impl Returned {
    pub(crate) fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    pub(crate) fn last(&self, donor: NodeId, flow: &Flow) -> Option<Epoch> {
        self.0.get(&donor)?.get(flow).map(|(epoch, _)| *epoch)
    }

    pub(crate) fn until(&self, donor: NodeId, flow: &Flow) -> Option<Instant> {
        self.0.get(&donor)?.get(flow).map(|(_, until)| *until)
    }

    /// If it is one too many, another of the same donor is forgotten for it. Whether it was to be forgotten at another time before,
    /// or was not remembered.
    pub(crate) fn remember(&mut self, donor: NodeId, flow: Flow, epoch: Epoch, until: Instant) -> bool {
        let flows = self.0.entry(donor).or_default();
        let before = flows.insert(flow, (epoch, until));
        let others = || flows.keys().copied().find(|other| *other != flow);
        if let Some(forgotten) = (flows.len() > MAX_RETURNED).then(others).flatten() {
            flows.remove(&forgotten);
        }
        before.is_none_or(|(_, before)| before != until)
    }

    pub(crate) fn forget(&mut self, donor: NodeId, flow: &Flow) {
        if let Some(flows) = self.0.get_mut(&donor) {
            flows.remove(flow);
            if flows.is_empty() {
                self.0.remove(&donor);
            }
        }
    }
}

/// Of what decides anything, not of when it is forgotten.
impl Hash for Returned {
    fn hash<H: Hasher>(&self, state: &mut H) {
        for (donor, flows) in &self.0 {
            (donor, flows.len()).hash(state);
            for (flow, (epoch, _)) in flows {
                (flow, epoch).hash(state);
            }
        }
    }
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
