//! Owner updates: the contact node must know where a connection lives, so they are repeated until it does.

use std::collections::BTreeMap;
use std::time::Duration;

use ferry_handoff::{Epoch, Message, NodeId};
use ferry_stack::tcp::{Flow, Handle};
use ferry_stack::{Alarms, Instant};

use super::Node;

const FIRST_REPEAT: Duration = Duration::from_millis(100);
const LAST_REPEAT: Duration = Duration::from_secs(5);

/// Updates that the contact node has not confirmed.
#[derive(Debug, Default)]
pub(super) struct Updates {
    unconfirmed: BTreeMap<Flow, Update>,
    due: Alarms<Flow>,
}

#[derive(Clone, Copy, Debug)]
struct Update {
    epoch: Epoch,
    wait: Duration,
}

impl Updates {
    pub(super) fn len(&self) -> usize {
        self.unconfirmed.len()
    }

    fn schedule(&mut self, flow: Flow, update: Update, now: Instant) {
        self.unconfirmed.insert(flow, update);
        self.due.set(flow, Some(now + update.wait));
    }

    pub(super) fn forget(&mut self, flow: &Flow) {
        self.unconfirmed.remove(flow);
        self.due.set(*flow, None);
    }

    pub(super) fn seen(&mut self, flow: &Flow, epoch: Epoch) {
        if self.unconfirmed.get(flow).is_some_and(|update| update.epoch <= epoch) {
            self.forget(flow);
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due.next()
    }
}

impl Node {
    /// Lets the contact node know that a connection lives here now.
    pub(super) fn tell_owner(&mut self, flow: Flow, epoch: Epoch, now: Instant) {
        if self.is_contact() {
            return;
        }
        self.updates.schedule(flow, Update { epoch, wait: FIRST_REPEAT }, now);
        let (contact, node) = (self.contact, self.id);
        self.tell(contact, &Message::Owner { flow, epoch, node });
    }

    pub(super) fn repeat_updates(&mut self, now: Instant) {
        while let Some(flow) = self.updates.due.due(now) {
            let Some(update) = self.updates.unconfirmed.get(&flow).copied() else { continue };
            let wait = (update.wait * 2).min(LAST_REPEAT);
            self.updates.schedule(flow, Update { wait, ..update }, now);
            let (contact, node) = (self.contact, self.id);
            if self.peers.is_up(contact) {
                self.tell(contact, &Message::Owner { flow, epoch: update.epoch, node });
            }
        }
    }

    /// A link came up. A contact node that has forgotten, because it started anew, is told of every connection.
    pub(super) fn repeat_updates_to(&mut self, peer: NodeId, now: Instant) {
        if peer == self.contact {
            self.tell_owned(now);
        }
    }

    /// Lets the contact node know of every connection that lives here.
    pub(super) fn tell_owned(&mut self, now: Instant) {
        let owned: Vec<_> = self.owned().map(|(tcb, owned)| (tcb.flow, owned.epoch)).collect();
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
        let here = self.tcp.find(&flow).and_then(|handle| Some((handle, self.owned.get(handle)?.epoch)));
        match here {
            // Only epochs decide: the other one is the owner, and ours ends without a word to the client.
            Some((handle, ours)) if ours < epoch => self.let_go(&flow, handle, now),
            Some(_) => return,
            None => {}
        }
        // Nobody tells any other node than the contact node when a connection is over, unless it has given it away.
        if self.is_contact() || self.places.contains_key(&flow) {
            self.note_owner(flow, node, epoch);
        }
        self.send_orphan_on(&flow, node, now);
        self.asks.answered(&flow);
        if from != node && self.is_contact() {
            // Who still forwards does not know when the connection ends. The owner says so if it has.
            self.tell(node, &Message::Ask { flow });
        }
    }

    /// Ends a connection without a word to the client: another node has it.
    pub(super) fn let_go(&mut self, flow: &Flow, handle: Handle, now: Instant) {
        self.tcp.export(handle, now);
        self.wakes.set(*flow, None);
        if let Some(mut owned) = self.owned.remove(handle) {
            self.discard_copies(&mut owned, *flow, now);
        }
        self.mobility.gone(*flow.remote.ip());
        self.handoffs.ended(flow, now);
        self.updates.forget(flow);
    }
}
