//! Copies that are of no use any more: who holds them is told until it has confirmed, so that no node remembers a
//! connection that is over.

use std::collections::BTreeMap;
use std::time::Duration;

use ferry_handoff::claims::Standing;
use ferry_handoff::{Epoch, NodeId};
use ferry_stack::tcp::Flow;
use ferry_stack::{Instant, Seq};

const FIRST_REPEAT: Duration = Duration::from_millis(200);
const LAST_REPEAT: Duration = Duration::from_secs(5);

/// What has to be forgotten elsewhere, by node.
#[derive(Debug, Default)]
pub(super) struct Discards {
    at: BTreeMap<NodeId, Told>,
}

#[derive(Debug, Default)]
struct Told {
    unconfirmed: BTreeMap<Flow, (Seq, Epoch)>,
    repeat: Option<(Instant, Duration)>,
}

impl Discards {
    pub(super) fn add(&mut self, node: NodeId, flow: Flow, iss: Seq, epoch: Epoch, now: Instant) {
        let told = self.at.entry(node).or_default();
        let known = told.unconfirmed.entry(flow).or_insert((iss, epoch));
        // A client that uses its port again has begun a later connection.
        if Standing::of_owner(known.0, known.1).is_covered_by(&Standing::of_owner(iss, epoch)) {
            *known = (iss, epoch);
        }
        told.repeat.get_or_insert((now + FIRST_REPEAT, FIRST_REPEAT));
    }

    pub(super) fn confirmed(&mut self, node: NodeId, flow: &Flow, iss: Seq, epoch: Epoch) {
        let Some(told) = self.at.get_mut(&node) else { return };
        if told.unconfirmed.get(flow).is_some_and(|(ours, up_to)| *ours == iss && *up_to <= epoch) {
            told.unconfirmed.remove(flow);
        }
        if told.unconfirmed.is_empty() {
            self.at.remove(&node);
        }
    }

    /// Whether a node is being told to forget this copy, so that it must not go on from it.
    pub(super) fn covers(&self, node: NodeId, flow: &Flow, standing: &Standing) -> Option<Standing> {
        let (iss, epoch) = *self.at.get(&node)?.unconfirmed.get(flow)?;
        let over = Standing::of_owner(iss, epoch);
        standing.is_covered_by(&over).then_some(over)
    }

    /// A node is to hold a copy again. Whether its answer is still to come.
    pub(super) fn cancel(&mut self, node: NodeId, flow: &Flow) -> bool {
        self.at.get_mut(&node).is_some_and(|told| told.unconfirmed.remove(flow).is_some())
    }

    /// A node has died, and all that it held.
    pub(super) fn forget(&mut self, node: NodeId) {
        self.at.remove(&node);
    }

    pub(super) fn clear(&mut self) {
        self.at.clear();
    }

    pub(super) fn len(&self) -> usize {
        self.at.values().map(|told| told.unconfirmed.len()).sum()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.at.values().filter_map(|told| Some(told.repeat?.0)).min()
    }

    /// All that a node has not confirmed.
    pub(super) fn of(&self, node: NodeId) -> Vec<(Flow, Seq, Epoch)> {
        let told = self.at.get(&node).map(|told| &told.unconfirmed);
        told.into_iter().flatten().map(|(flow, (iss, epoch))| (*flow, *iss, *epoch)).collect()
    }

    /// Nodes that have to be told again.
    pub(super) fn due(&mut self, now: Instant) -> Vec<NodeId> {
        let mut due = Vec::new();
        for (node, told) in &mut self.at {
            if let Some((_, wait)) = told.repeat.filter(|(at, _)| *at <= now) {
                let wait = (wait * 2).min(LAST_REPEAT);
                told.repeat = Some((now + wait, wait));
                due.push(*node);
            }
        }
        due
    }
}
