//! What survives the death of its node, as it ought to be.

use std::collections::BTreeSet;

use ferry_node::{Commit, DirectorySetup, Service};
use ferry_stack::Seq;
use ferry_stack::tcp::Point;

use super::losses::Seen;
use super::{Body, World};
use crate::owners::Client;

/// How the connections of all services are protected.
#[derive(Clone, Debug, Default)]
pub struct Protection {
    /// How many other nodes hold a copy of each.
    pub replicas: u8,
    /// What waits for the copies.
    pub commit: Commit,
    /// How nodes find out who is dead.
    pub directory: DirectorySetup,
}

impl Protection {
    /// The same services, protected.
    pub(super) fn of(&self, services: Vec<Service>) -> Vec<Service> {
        services.into_iter().map(|service| service.protected(self.replicas, self.commit)).collect()
    }

    /// Whether anything is.
    pub(super) fn is_on(&self) -> bool {
        self.replicas > 0
    }

    /// Whether who knows the connection so far contradicts nothing that its client may have seen.
    fn covers(&self, point: &Point, seen: Seen) -> bool {
        let Some((sent, acknowledged)) = seen else { return true };
        let acknowledged = acknowledged.is_none_or(|ack| Seq(ack).at_or_before(point.ack));
        acknowledged && (self.commit == Commit::Regenerate || Seq(sent).at_or_before(point.send))
    }
}

impl World {
    /// Nodes that live and could go on with a connection as its client knows it: one that owns it, or that holds of it
    /// what is as good.
    fn keepers(&self, client: Client) -> BTreeSet<usize> {
        let seen = self.seen_of(client);
        let ends = |flow: &ferry_stack::tcp::Flow| (flow.remote, flow.local.port());
        let keeps = |nth: &usize| {
            let Body::Node(member) = &self.places[*nth].body else { return false };
            let node = &member.node;
            let covers = |point: &Point| self.protection.covers(point, seen);
            node.control_blocks().any(|tcb| ends(&tcb.flow) == client && covers(&tcb.point()))
                || node.holdings().any(|held| ends(&held.tcb.flow) == client && covers(&held.tcb.point()))
        };
        self.group.members().into_iter().filter(keeps).collect()
    }

    /// Whatever a node owned or held is gone. What nobody else can go on with need not come to its end.
    pub(super) fn excuse_what_nobody_keeps(&mut self) {
        for client in self.begun() {
            if self.seen_of(client).is_some() && self.keepers(client).is_empty() {
                self.excuse_as_stale(client);
            }
        }
    }
}
