//! How the copies are, for those who look.

use std::time::Duration;

use ferry_handoff::Snapshot;
use ferry_stack::Instant;
use ferry_stack::tcp::Tcb;

use crate::io::{Copies, Protection};
use crate::node::{Node, Owned};

impl Node {
    /// What this node could go on with if others died: the copies that it holds, and what has left and was not confirmed to
    /// be taken. For tests and experiments.
    pub fn holdings(&self) -> impl Iterator<Item = Snapshot> {
        let copies = self.backup.holdings.iter().filter_map(|(_, held)| held.copy.copy.snapshot().ok());
        copies.chain(self.handoffs.unconfirmed().cloned())
    }

    /// How the copies are.
    pub(in crate::node) fn copies(&self, now: Instant) -> Copies {
        let mut copies = Copies {
            held: self.backup.holdings.len(),
            held_octets: self.backup.octets,
            recovering: self.backup.holdings.claimed() + self.backup.agreed.flows.len(),
            recovered: self.backup.counts.recovered,
            lost: self.backup.counts.lost,
            discarding: self.backup.discards.len(),
            deltas: self.backup.counts.deltas,
            delta_octets: self.backup.counts.delta_octets,
            ..Copies::default()
        };
        for (tcb, owned) in self.owned() {
            let Some(guard) = &owned.guard else { continue };
            copies.protected += usize::from(guard.is_protected());
            copies.unprotected += usize::from(!guard.is_protected());
            copies.lag_octets += guard.lag_octets(tcb);
            copies.lag_us = copies.lag_us.max(micros(guard.lag(now)));
        }
        copies
    }

    /// How the copies of one connection are; none if its service asks for none.
    pub(in crate::node) fn protection_of(&self, owned: &Owned, tcb: &Tcb) -> Option<Protection> {
        let guard = owned.guard.as_ref()?;
        let holders = guard.holders.iter().filter(|holder| holder.has > 0);
        let holders = holders.map(|holder| self.node_name(holder.node).to_owned()).collect();
        Some(Protection { holders, lag_octets: guard.lag_octets(tcb) })
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
