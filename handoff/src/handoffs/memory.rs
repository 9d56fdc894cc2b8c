//! What is remembered of epochs that were decided, and the whole state as a search sees it.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use ferry_stack::Instant;
use ferry_stack::tcp::{Flow, MapKey};
use hashbrown::HashMap;

use super::{Handoffs, Timer};
use crate::acceptor::{Decided, HEARD, Reservation};
use crate::donor::Donor;
use crate::{Epoch, NodeId, Snapshot};

impl Handoffs {
    /// The connections that have left and of which nobody has said that he runs them: to whom they went, and under
    /// which epoch. Their snapshots are still here.
    pub fn committed(&self) -> impl Iterator<Item = (Flow, NodeId, Epoch)> {
        sorted(&self.donors).into_iter().filter_map(|(flow, (donor, _))| match donor {
            Donor::Committed { to, epoch, .. } => Some((*flow, *to, *epoch)),
            _ => None,
        })
    }

    /// What those were when they left.
    pub fn unconfirmed(&self) -> impl Iterator<Item = &Snapshot> {
        sorted(&self.donors).into_iter().filter_map(|(_, (donor, _))| match donor {
            Donor::Committed { snapshot, .. } => Some(&**snapshot),
            _ => None,
        })
    }

    /// The last epoch of a connection that is remembered to have been given or taken: it may be over, and another be between
    /// the same ends.
    pub fn last_epoch(&self, flow: &Flow) -> Option<Epoch> {
        self.decided.get(flow).map(|decided| decided.epoch)
    }

    /// Whether it is remembered that another node has given a connection of this flow, and so may still send on what comes for it.
    pub fn was_given(&self, flow: &Flow) -> bool {
        self.decided.get(flow).is_some_and(|decided| !decided.donors.is_empty())
    }

    /// Notes that an epoch was taken. Its donor may repeat the transfer until it has heard that.
    pub(super) fn decide(&mut self, flow: Flow, epoch: Epoch, donor: Option<NodeId>, until: Option<Instant>) {
        let first = || Decided { epoch, donors: BTreeSet::new(), until };
        let decided = self.decided.entry(flow).or_insert_with(first);
        decided.donors.extend(donor);
        (decided.epoch, decided.until) = (epoch, until);
        if let Some(until) = until {
            self.reminders.add(Timer::Decided(flow), until);
        }
    }

    /// Forgets what was taken, unless a donor may still repeat its transfer: an old one would be taken for news, and the
    /// connection would run twice.
    pub(super) fn forget_decided(&mut self, flow: Flow, now: Instant) {
        let Some(decided) = self.decided.get_mut(&flow) else { return };
        let peers = &self.peers;
        let heard = |donor: &NodeId| peers.get(donor).is_some_and(|(_, since)| *since + HEARD <= now);
        if decided.donors.iter().all(heard) {
            self.decided.remove(&flow);
        } else {
            let until = now + HEARD;
            decided.until = Some(until);
            self.reminders.add(Timer::Decided(flow), until);
        }
    }
}

/// Of what payload says, and TCP knows, only what the session makes of it.
impl Hash for Handoffs {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self {
            donors,
            reservations,
            reserved,
            copied,
            decided,
            returned,
            unconfirmed,
            peers,
            // They follow from the rest, but for those of what was returned or announced, which only forget.
            reminders: _,
            actions: _,
            draining,
        } = self;
        for (flow, Reservation { from, epoch, copy, until: _ }) in sorted(reservations) {
            let version = copy.as_ref().map(|copy| copy.version());
            (flow, from, epoch, version.map(|version| (version.epoch, version.number))).hash(state);
        }
        (sorted(donors), sorted(decided), sorted(unconfirmed)).hash(state);
        (reserved, copied, returned, peers, draining).hash(state);
    }
}

/// Where the order matters.
fn sorted<T>(map: &HashMap<Flow, T, MapKey>) -> Vec<(&Flow, &T)> {
    let mut all: Vec<_> = map.iter().collect();
    all.sort_unstable_by_key(|(flow, _)| **flow);
    all
}

/// The same of flows alone.
pub(super) fn in_order(flows: impl Iterator<Item = Flow>) -> Vec<Flow> {
    let mut flows: Vec<_> = flows.collect();
    flows.sort_unstable();
    flows
}
