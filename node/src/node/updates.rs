//! Owner updates: the contact node must know where a connection lives, and when it lives no more, so they are repeated
//! until it does.

use std::collections::HashMap;
use std::time::Duration;

use ferry_handoff::{Epoch, Message, NodeId};
use ferry_stack::tcp::{Flow, Handle, MapKey};
use ferry_stack::{Instant, Reminders};

use super::Node;
use super::places::{Place, Route};

const FIRST_REPEAT: Duration = Duration::from_millis(100);
const LAST_REPEAT: Duration = Duration::from_secs(5);
/// Updates that may wait to be confirmed while connections end. Beyond it their end is told once.
const MAX_UNCONFIRMED: usize = 1 << 16;

/// Updates that the contact node has not confirmed.
#[derive(Debug)]
pub(super) struct Updates {
    unconfirmed: HashMap<Flow, Update, MapKey>,
    due: Reminders<Flow>,
}

#[derive(Clone, Copy, Debug)]
struct Update {
    epoch: Epoch,
    /// When it is said again, so long after it was last.
    at: Instant,
    wait: Duration,
    what: What,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// The connection lives there.
    At(NodeId),
    /// It is over.
    Over,
}

impl Updates {
    pub(super) fn new(key: &MapKey) -> Self {
        Self { unconfirmed: HashMap::with_hasher(key.clone()), due: Reminders::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.unconfirmed.len()
    }

    fn schedule(&mut self, flow: Flow, update: Update) {
        self.unconfirmed.insert(flow, update);
        self.due.add(flow, update.at);
    }

    pub(super) fn forget(&mut self, flow: &Flow) {
        if !self.unconfirmed.is_empty() {
            self.unconfirmed.remove(flow);
        }
    }

    fn tells_end(&self, flow: &Flow) -> bool {
        self.unconfirmed.get(flow).is_some_and(|update| update.what == What::Over)
    }

    pub(super) fn end_seen(&mut self, flow: &Flow, epoch: Epoch) {
        if self.tells_end(flow) {
            self.seen(flow, epoch);
        }
    }

    fn seen(&mut self, flow: &Flow, epoch: Epoch) {
        if self.unconfirmed.get(flow).is_some_and(|update| update.epoch <= epoch) {
            self.forget(flow);
        }
    }

    pub(super) fn deadline(&mut self) -> Option<Instant> {
        let Self { unconfirmed, due } = self;
        due.next(|flow| unconfirmed.get(flow).map(|update| update.at))
    }

    fn due(&mut self, now: Instant) -> Option<(Flow, Update)> {
        let Self { unconfirmed, due } = self;
        let flow = due.due(now, |flow| unconfirmed.get(flow).map(|update| update.at))?;
        Some((flow, *unconfirmed.get(&flow)?))
    }
}

impl Node {
    /// Lets the contact node know that a connection lives here now.
    pub(super) fn tell_owner(&mut self, flow: Flow, epoch: Epoch, now: Instant) {
        if self.is_contact() {
            return;
        }
        self.tell_contact_node(flow, epoch, What::At(self.id), now);
    }

    /// Lets the contact node know that a connection lived here and is over.
    pub(super) fn tell_ended(&mut self, flow: Flow, epoch: Epoch, now: Instant) {
        self.updates.forget(&flow);
        if self.is_contact() {
            return;
        }
        self.tell_contact_node(flow, epoch, What::Over, now);
    }

    fn tell_contact_node(&mut self, flow: Flow, epoch: Epoch, what: What, now: Instant) {
        let update = Update { epoch, at: now + FIRST_REPEAT, wait: FIRST_REPEAT, what };
        if what == What::At(self.id) || self.updates.unconfirmed.len() < MAX_UNCONFIRMED {
            self.updates.schedule(flow, update);
        }
        self.repeat_update(flow, update);
    }

    fn repeat_update(&mut self, flow: Flow, Update { epoch, what, .. }: Update) {
        let message = match what {
            What::At(node) => Message::Owner { flow, epoch, node },
            What::Over => Message::Ended { flow, epoch },
        };
        self.tell(self.contact, &message);
    }

    /// The contact node has noted that a connection lives here. If it was told so before the connection moved on or ended,
    /// and has heard it only now, it is told that.
    pub(super) fn owner_seen(&mut self, flow: Flow, epoch: Epoch, now: Instant) {
        if self.updates.tells_end(&flow) {
            return;
        }
        self.updates.seen(&flow, epoch);
        let here = self.tcp.find(&flow).is_some_and(|handle| self.owned.contains(handle));
        match self.places.get(&flow) {
            _ if here => {}
            Some(Place::Elsewhere(route)) if route.epoch > epoch && route.to != self.contact => {
                let Route { to, epoch, .. } = *route;
                self.tell_contact_node(flow, epoch, What::At(to), now);
            }
            Some(_) => {}
            None => self.tell_ended(flow, epoch, now),
        }
    }

    pub(super) fn repeat_updates(&mut self, now: Instant) {
        while let Some((flow, update)) = self.updates.due(now) {
            let wait = (update.wait * 2).min(LAST_REPEAT);
            self.updates.schedule(flow, Update { at: now + wait, wait, ..update });
            if self.is_contact() {
                self.updates.forget(&flow);
            } else if self.peers.is_up(self.contact) {
                self.repeat_update(flow, update);
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
        // Who is the contact node in the eyes of the other, and does not know it yet, does not remember it either.
        if self.is_contact() {
            self.tell(from, &Message::OwnerSeen { flow, epoch });
        }
        if node == self.id || !self.peers.is_known(node) {
            return;
        }
        let here = self.tcp.find(&flow).and_then(|handle| Some((handle, self.owned.get(handle)?.epoch)));
        match here {
            // Two have answered one SYN, and the client knows whose answer came first.
            Some((handle, ours)) if ours < epoch && self.is_rival(handle, epoch) => {
                self.doubt(&flow);
                return self.send_what_waits(&flow, node, now);
            }
            // Only epochs decide: the other one is the owner, and ours ends without a word to the client.
            Some((handle, ours)) if ours < epoch => self.let_go(&flow, handle, now),
            // What ours had no use for may be for the other.
            Some((handle, _)) if self.is_in_doubt(handle) => {
                return self.send_what_waits(&flow, node, now);
            }
            Some(_) => return,
            None => {}
        }
        // Nobody tells any other node than the contact node when a connection is over, unless it has given it away.
        if self.is_contact() || self.places.contains_key(&flow) {
            self.note_owner(flow, node, epoch);
        }
        self.send_orphan_on(&flow, node, now);
        self.send_what_waits(&flow, node, now);
        if from != node && self.is_contact() {
            // Who still forwards does not know when the connection ends. The owner says so if it has.
            self.tell(node, &Message::Ask { flow });
        }
    }

    fn send_what_waits(&mut self, flow: &Flow, owner: NodeId, now: Instant) {
        for datagram in self.asks.answered(flow) {
            self.forward(datagram, owner, now);
        }
    }

    /// Whether a half-open connection of ours is none that another node can have got from here, though that owns one between the
    /// same ends: they are two, or ours was opened by a SYN, and never moved.
    fn is_rival(&self, handle: Handle, other: Epoch) -> bool {
        let (Some(tcb), Some(owned)) = (self.tcp.get(handle), self.owned.get(handle)) else { return false };
        let is_another =
            !owned.epoch.is_of_life(other) || (owned.epoch.is_first() && other.recoveries() == 0);
        !tcb.state.is_synchronised() && is_another
    }

    /// Ends a connection without a word to the client: another node has it.
    pub(super) fn let_go(&mut self, flow: &Flow, handle: Handle, now: Instant) {
        self.tcp.export(handle, now);
        self.wakes.set(*flow, None);
        if let Some(mut owned) = self.owned.remove(handle) {
            self.discard_copies(&mut owned, *flow, now);
        }
        self.mobility.gone(*flow.remote.ip(), now);
        self.handoffs.ended(flow, now);
        self.updates.forget(flow);
    }
}
