//! What is told of each move of a connection, and which moves a node refuses because they were not allowed.

use std::collections::HashMap;
use std::sync::Arc;

use ferry_handoff::{Epoch, Message, NodeId, Refusal};
use ferry_stack::Instant;
use ferry_stack::tcp::{Flow, MapKey};

use super::{Node, Service};
use crate::io::{Audit, AuditResult, Reason, TraceEvent};

/// The epochs under which connections run that are being given away.
#[derive(Debug)]
pub(super) struct Leaving(HashMap<Flow, Epoch, MapKey>);

impl Leaving {
    pub(super) fn new(key: MapKey) -> Self {
        Self(HashMap::with_hasher(key))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn begins(&mut self, flow: Flow, epoch: Epoch) {
        self.0.entry(flow).or_insert(epoch);
    }
}

/// One move, as far as this node has to do with it.
pub(super) struct Move {
    pub(super) flow: Flow,
    pub(super) from: NodeId,
    pub(super) to: NodeId,
    pub(super) before: Option<Epoch>,
    pub(super) epoch: Epoch,
    pub(super) why: Reason,
}

impl Node {
    pub(super) fn node_name(&self, node: NodeId) -> &str {
        if node == self.id { &self.name } else { self.peers.name(node) }
    }

    fn shared_name(&self, node: NodeId) -> Arc<str> {
        if node == self.id { Arc::clone(&self.name) } else { self.peers.shared_name(node) }
    }

    pub(super) fn service_name(&self, flow: &Flow) -> &str {
        self.services.get(&flow.local.port()).map_or("", |service| service.name())
    }

    /// Whether a node may own a connection. A service that is not offered here is no matter of permission.
    pub(super) fn may_own(&self, node: NodeId, flow: &Flow) -> bool {
        let service = self.service_name(flow);
        service.is_empty() || self.rules.may_own(self.node_name(node), service)
    }

    /// Tells of a move, however it ended.
    pub(super) fn audit(&mut self, one: &Move, result: AuditResult, now: Instant) {
        let Move { flow, from, to, before, epoch, why } = *one;
        let audit = Audit {
            client: flow.remote,
            port: flow.local.port(),
            service: self.services.get(&flow.local.port()).map_or_else(|| "".into(), Service::shared_name),
            from: self.shared_name(from),
            to: self.shared_name(to),
            before: before.map(|epoch| epoch.count),
            epoch: epoch.count,
            why,
            result,
        };
        self.trace(TraceEvent::Move(audit), now);
    }

    /// A move away from here has ended.
    pub(super) fn audit_given(
        &mut self,
        flow: Flow,
        to: NodeId,
        epoch: Epoch,
        result: AuditResult,
        now: Instant,
    ) {
        let (before, why) = (self.leaving.0.remove(&flow), self.reason(&flow));
        self.audit(&Move { flow, from: self.id, to, before, epoch, why }, result, now);
    }

    /// A move to here has ended.
    pub(super) fn audit_taken(
        &mut self,
        flow: Flow,
        from: NodeId,
        epoch: Epoch,
        result: AuditResult,
        now: Instant,
    ) {
        let before = self.places.get(&flow).and_then(super::Place::route).map(|route| route.epoch);
        let before = before.filter(|epoch| *epoch > Epoch::default());
        self.audit(&Move { flow, from, to: self.id, before, epoch, why: Reason::Offered }, result, now);
    }

    /// Whether a message moves nothing that is not allowed to be moved. If it does, who sent it is told so.
    pub(super) fn permits(&mut self, from: NodeId, message: &Message, now: Instant) -> bool {
        let (Message::Prepare { flow, .. } | Message::Copy { flow, .. } | Message::Transfer { flow, .. }) =
            *message
        else {
            return true;
        };
        let Some(barred) = [from, self.id].into_iter().find(|node| !self.may_own(*node, &flow)) else {
            return true;
        };
        let (node, service) = (self.node_name(barred).to_owned(), self.service_name(&flow).to_owned());
        let why = Refusal::NotAllowed { node, service };
        self.refuse_offer(from, message, &why, now);
        false
    }
}
