//! Owner updates: the contact node must know where a connection lives, so they are repeated until it does.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ferry_handoff::{Epoch, Message, NodeId};
use ferry_stack::Instant;
use ferry_stack::tcp::Flow;

use super::Node;

const FIRST_REPEAT: Duration = Duration::from_millis(100);
const LAST_REPEAT: Duration = Duration::from_secs(5);

/// Updates that the contact node has not confirmed.
#[derive(Debug, Default)]
pub(super) struct Updates {
    unconfirmed: BTreeMap<Flow, Update>,
    due: BTreeSet<(Instant, Flow)>,
}

#[derive(Clone, Copy, Debug)]
struct Update {
    epoch: Epoch,
    at: Instant,
    wait: Duration,
}

impl Updates {
    fn schedule(&mut self, flow: Flow, update: Update) {
        self.forget(&flow);
        self.unconfirmed.insert(flow, update);
        self.due.insert((update.at, flow));
    }

    pub(super) fn forget(&mut self, flow: &Flow) {
        if let Some(update) = self.unconfirmed.remove(flow) {
            self.due.remove(&(update.at, *flow));
        }
    }

    pub(super) fn seen(&mut self, flow: &Flow, epoch: Epoch) {
        if self.unconfirmed.get(flow).is_some_and(|update| update.epoch <= epoch) {
            self.forget(flow);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }
}

impl Node {
    /// Lets the contact node know that a connection lives here now.
    pub(super) fn tell_owner(&mut self, flow: Flow, epoch: Epoch, now: Instant) {
        if self.is_contact() {
            return;
        }
        self.updates.schedule(flow, Update { epoch, at: now + FIRST_REPEAT, wait: FIRST_REPEAT });
        let (contact, node) = (self.contact, self.id);
        self.tell(contact, &Message::Owner { flow, epoch, node });
    }

    pub(super) fn repeat_updates(&mut self, now: Instant) {
        while let Some(&(at, flow)) = self.updates.due.first() {
            if at > now {
                break;
            }
            let Some(update) = self.updates.unconfirmed.get(&flow).copied() else { break };
            let wait = (update.wait * 2).min(LAST_REPEAT);
            self.updates.schedule(flow, Update { at: now + wait, wait, ..update });
            let (contact, node) = (self.contact, self.id);
            if self.peers.is_up(contact) {
                self.tell(contact, &Message::Owner { flow, epoch: update.epoch, node });
            }
        }
    }

    /// A link came up. A contact node that has forgotten, because it started anew, is told of every connection.
    pub(super) fn repeat_updates_to(&mut self, peer: NodeId, now: Instant) {
        if peer != self.contact {
            return;
        }
        let owned: Vec<_> = self.owned.values().map(|owned| (owned.flow, owned.epoch)).collect();
        for (flow, epoch) in owned {
            self.tell_owner(flow, epoch, now);
        }
    }

    /// Another node says who owns a connection.
    pub(super) fn owner_told(&mut self, from: NodeId, flow: Flow, epoch: Epoch, node: NodeId, now: Instant) {
        self.tell(from, &Message::OwnerSeen { flow, epoch });
        if node == self.id || !self.peers.is_known(node) {
            return;
        }
        let here = self.tcp.find(&flow).and_then(|handle| Some((handle, self.owned.get(&handle)?.epoch)));
        match here {
            // Only epochs decide: the other one is the owner, and ours ends without a word to the client.
            Some((handle, ours)) if ours < epoch => {
                self.tcp.export(handle, now);
                self.owned.remove(&handle);
                self.handoffs.ended(&flow, now);
                self.updates.forget(&flow);
            }
            Some(_) => return,
            None => {}
        }
        self.note_owner(flow, node, epoch);
        self.asks.answered(&flow);
    }
}
