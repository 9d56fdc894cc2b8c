//! At the contact node: connections whose owner has died, until it is known who goes on with them.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use ferry_handoff::NodeId;
use ferry_stack::Instant;
use ferry_stack::ip::Datagram;
use ferry_stack::tcp::Flow;

use crate::node::waiting::Waiting;
use crate::node::{Node, Place};

/// How long it may take to find out who goes on. After it the others are asked, as for any segment that belongs nowhere.
const PATIENCE: Duration = Duration::from_secs(1);

/// Connections without an owner, and what came for them.
#[derive(Debug, Default)]
pub(super) struct Orphans {
    /// Until when it may take to find out who goes on with each.
    flows: BTreeMap<Flow, Instant>,
    held: Waiting,
    /// When the first of them are given up, the first first.
    until: VecDeque<Instant>,
}

impl Orphans {
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.until.front().copied()
    }

    fn take(&mut self, flow: &Flow) -> VecDeque<Datagram> {
        self.flows.remove(flow);
        self.held.take(flow)
    }
}

impl Node {
    /// Connections that a dead node owned wait for the one that goes on with them, if there may be one. Others are nobody's
    /// any more.
    pub(super) fn orphan_places(&mut self, dead: NodeId, now: Instant) {
        let until = now + PATIENCE;
        let services = &self.services;
        let super::Backup { orphans, holdings, .. } = &mut self.backup;
        let before = orphans.len();
        self.places.retain(|flow, place| {
            let lost = matches!(place, Place::Elsewhere(route) if route.to == dead);
            let protected = services.get(&flow.local.port()).is_some_and(|service| service.replicas() > 0);
            // Given to it from here, and not known to be taken.
            let claimed = holdings.get(flow).is_some_and(ferry_handoff::claims::Held::is_claimed);
            if lost && (protected || claimed) {
                orphans.flows.insert(*flow, until);
            }
            !lost
        });
        if orphans.len() > before {
            orphans.until.push_back(until);
        }
    }

    /// Keeps a segment of a connection whose owner is being found out; gives it back if it is none.
    pub(in crate::node) fn hold_orphan(&mut self, flow: &Flow, datagram: Datagram) -> Option<Datagram> {
        let orphans = &mut self.backup.orphans;
        if !orphans.flows.contains_key(flow) {
            return Some(datagram);
        }
        if orphans.held.hold(*flow, datagram) {
            self.counters.held += 1;
        } else {
            self.counters.dropped += 1;
        }
        None
    }

    /// The connection goes on at this node.
    pub(super) fn replay_orphan(&mut self, flow: &Flow, now: Instant) {
        self.places.remove(flow);
        let mut held = self.backup.orphans.take(flow);
        held.extend(self.asks.answered(flow));
        self.replay(*flow, held, now);
    }

    /// The connection goes on at another node.
    pub(in crate::node) fn send_orphan_on(&mut self, flow: &Flow, to: NodeId, now: Instant) {
        for datagram in self.backup.orphans.take(flow) {
            self.forward(datagram, to, now);
        }
    }

    /// The connection is over, or the client opens a new one.
    pub(in crate::node) fn drop_orphan(&mut self, flow: &Flow) {
        self.backup.orphans.take(flow);
    }

    pub(super) fn forget_orphans(&mut self, now: Instant) {
        let orphans = &mut self.backup.orphans;
        if orphans.until.front().is_none_or(|until| *until > now) {
            return;
        }
        orphans.until.retain(|until| *until > now);
        let over: Vec<_> =
            orphans.flows.iter().filter(|(_, until)| **until <= now).map(|(flow, _)| *flow).collect();
        for flow in over {
            orphans.take(&flow);
        }
    }
}
