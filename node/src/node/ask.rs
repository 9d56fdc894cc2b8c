//! A segment of a connection that nobody here knows, or that is of no use to a handshake in doubt: the others are asked before anything is refused, because a
//! RST in doubt would kill a connection that lives elsewhere.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ferry_handoff::{Message, NodeId};
use ferry_stack::Instant;
use ferry_stack::ip::Datagram;
use ferry_stack::tcp::{Flow, Segment};

use super::Node;
use super::backup::Copied;
use super::places::Place;
use super::waiting::Waiting;

/// How long the others may think. After it the segment is forgotten; the client sends it again.
const PATIENCE: Duration = Duration::from_secs(1);
/// Questions under way at once: a flood of strange segments costs no more.
const MAX_ASKS: usize = 1024;

/// Questions that are not answered.
#[derive(Debug, Default)]
pub(super) struct Asks {
    asks: BTreeMap<Flow, Ask>,
    /// What has come for the connections meanwhile, for whoever owns them.
    held: Waiting,
}

#[derive(Debug)]
struct Ask {
    /// The segment that is to be refused if nobody knows the connection; none if it must not be.
    segment: Option<Segment>,
    silent: BTreeSet<NodeId>,
    until: Instant,
}

impl Asks {
    pub(super) fn len(&self) -> usize {
        self.asks.len()
    }

    /// A node does not own the connection. Once all have said so, the client may be told.
    pub(super) fn denied(&mut self, flow: &Flow, by: NodeId) -> Option<Segment> {
        let ask = self.asks.get_mut(flow)?;
        ask.silent.remove(&by);
        if !ask.silent.is_empty() {
            return None;
        }
        let segment = ask.segment.take();
        self.answered(flow);
        segment
    }

    /// A node does not own the connection any more, or that was another between the same ends. Those who have not answered may
    /// know of a later one; the client waits for no answer.
    pub(super) fn over(&mut self, flow: &Flow, by: NodeId) {
        if let Some(ask) = self.asks.get_mut(flow) {
            ask.segment = None;
            self.denied(flow, by);
        }
    }

    /// What is asked of a node that has not answered.
    pub(super) fn waiting_for(&self, peer: NodeId) -> Vec<Flow> {
        self.asks.iter().filter(|(_, ask)| ask.silent.contains(&peer)).map(|(flow, _)| *flow).collect()
    }

    /// It is known whose it is: what has come for it meanwhile.
    pub(super) fn answered(&mut self, flow: &Flow) -> VecDeque<Datagram> {
        self.asks.remove(flow);
        self.held.take(flow)
    }

    /// Keeps what has come for a connection that is asked about, if there is room.
    fn hold(&mut self, flow: Flow, datagram: &Datagram) -> bool {
        self.asks.contains_key(&flow) && self.held.hold(flow, datagram.clone())
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.asks.values().map(|ask| ask.until).min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let held = &mut self.held;
        self.asks.retain(|flow, ask| {
            let stays = ask.until > now;
            if !stays {
                held.take(flow);
            }
            stays
        });
    }
}

impl Node {
    /// Asks the others whose connection this is; what came for it waits for the answer. Alone in the group there is nobody to
    /// ask; with one of them out of reach there is no certainty, so the client gets no RST, and tries again.
    pub(super) fn ask(&mut self, flow: Flow, segment: &Segment, datagram: &Datagram, now: Instant) {
        self.begin_to_ask(flow, segment, now);
        self.counters.held += u64::from(self.asks.hold(flow, datagram));
    }

    fn begin_to_ask(&mut self, flow: Flow, segment: &Segment, now: Instant) {
        if self.asks.asks.contains_key(&flow) || self.asks.asks.len() >= MAX_ASKS {
            return;
        }
        let certain = self.all_can_answer(&flow, now);
        if certain && self.peers.reachable().next().is_none() {
            return self.open_or_refuse(&flow, segment, now);
        }
        self.ask_all(flow, certain.then(|| segment.clone()), now);
    }

    fn ask_all(&mut self, flow: Flow, refuse: Option<Segment>, now: Instant) {
        if self.asks.asks.contains_key(&flow) || self.asks.asks.len() >= MAX_ASKS {
            return;
        }
        let silent: BTreeSet<_> = self.peers.reachable().collect();
        for peer in &silent {
            self.tell(*peer, &Message::Ask { flow });
        }
        self.asks.asks.insert(flow, Ask { segment: refuse, silent, until: now + PATIENCE });
    }

    /// Asks the others whether one of them has this connection, though one between the same ends is about to be opened here. Who
    /// has it gets what came for it; nobody is told anything if none has.
    pub(super) fn seek_other_owner(&mut self, flow: Flow, datagram: &Datagram, now: Instant) {
        self.ask_all(flow, None, now);
        let held = self.asks.hold(flow, datagram);
        self.counters.held += u64::from(held);
        self.counters.dropped += u64::from(!held);
    }

    /// Another node asks whose connection this is.
    pub(super) fn asked(&mut self, from: NodeId, flow: Flow, now: Instant) {
        let ours = self.tcp.find(&flow).and_then(|handle| self.owned.get(handle)).map(|owned| owned.epoch);
        let answer = match (ours, self.places.get(&flow)) {
            (Some(epoch), _) => Message::Owner { flow, epoch, node: self.id },
            (None, Some(Place::Arriving(arriving))) => {
                Message::Owner { flow, epoch: arriving.epoch, node: self.id }
            }
            (None, Some(Place::Elsewhere(route))) if route.to != from => {
                Message::Owner { flow, epoch: route.epoch, node: route.to }
            }
            // It is on its way to who asks.
            (None, Some(Place::Elsewhere(_))) if self.handoffs.given(&flow).is_some() => return,
            _ => match (self.holds_copy(&flow), self.ended.epoch(&flow, now)) {
                // Who goes on with it will say so.
                (Copied::Ownerless, _) => return,
                (Copied::Of(node, epoch), _) if node != from => Message::Owner { flow, epoch, node },
                (_, Some(epoch)) => Message::Ended { flow, epoch },
                (_, None) => Message::NotMine { flow },
            },
        };
        self.tell(from, &answer);
    }
}
