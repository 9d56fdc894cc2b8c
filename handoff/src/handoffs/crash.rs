//! Handoffs between nodes of which one dies.

use alloc::sync::Arc;
use alloc::vec::Vec;

use ferry_stack::tcp::Flow;

use super::memory::in_order;
use super::{Action, Handoffs};
use crate::donor::{Donor, Failure};
use crate::{Epoch, Incarnation, Message, NodeId, Snapshot};

impl Handoffs {
    /// The same, but the donor keeps what it has given until [`Handoffs::confirm`].
    pub fn installed_for_now(&mut self, flow: Flow, from: NodeId, epoch: Epoch) {
        // It has come back before the forwarder ended, or even before it was heard that it had been taken.
        if let Some((donor @ Donor::Committed { .. }, _)) = self.donors.remove(&flow) {
            self.actions.push_back(Action::Given { flow, to: donor.to(), epoch: donor.epoch() });
        }
        self.decide(flow, epoch, Some(from), None);
        if let Some((from, epoch)) = self.unconfirmed.insert(flow, (from, epoch)) {
            self.send(from, Message::Taken { flow, epoch });
        }
    }

    /// Should this node die, others could go on with the connection: its donor need not keep it any more.
    pub fn confirm(&mut self, flow: &Flow) {
        if let Some((from, epoch)) = self.unconfirmed.remove(flow) {
            self.send(from, Message::Taken { flow: *flow, epoch });
        }
    }

    /// The epoch under which a connection has left, if nobody has confirmed that it was taken.
    pub fn given(&self, flow: &Flow) -> Option<Epoch> {
        match self.donors.get(flow) {
            Some((Donor::Committed { epoch, .. }, _)) => Some(*epoch),
            _ => None,
        }
    }

    /// A connection goes on here from a copy, under this epoch.
    pub fn recovered(&mut self, flow: Flow, epoch: Epoch) {
        self.donors.remove(&flow);
        self.unconfirmed.remove(&flow);
        self.unreserve(flow);
        self.decide(flow, epoch, None, None);
    }

    /// This life of a node is over. Gives back what had left for it and may not have been taken. Or it was, and even given to
    /// a third node, or other nodes hold copies that have come further: all have to be asked before it goes on here.
    pub fn died(&mut self, dead: NodeId, life: Incarnation) -> Vec<(Flow, Epoch, Arc<Snapshot>)> {
        if self.peers.get(&dead).is_some_and(|(known, _)| *known == life) {
            self.peers.remove(&dead);
        }
        // It repeats nothing any more.
        for decided in self.decided.values_mut() {
            decided.donors.remove(&dead);
        }
        let reserved = self.reservations.iter().filter(|(_, reserved)| reserved.from == dead);
        for flow in in_order(reserved.map(|(flow, _)| *flow)) {
            self.unreserve(flow);
            self.actions.push_back(Action::Release { flow });
        }
        let mut orphans = Vec::new();
        for flow in self.flows_with(dead) {
            let Some((donor, _)) = self.donors.get(&flow) else { continue };
            match donor {
                Donor::Committed { incarnation, .. } if *incarnation != life => {}
                Donor::Committed { epoch, snapshot, .. } => {
                    orphans.push((flow, *epoch, Arc::clone(snapshot)));
                    self.donors.remove(&flow);
                    let why = Failure::Died;
                    self.actions.push_back(Action::Failed { flow, to: dead, why, resume: None });
                }
                _ => {
                    let (offer, next) = (donor.offer(), donor.peer_down(dead));
                    self.follow(flow, offer, next);
                }
            }
        }
        orphans
    }
}
