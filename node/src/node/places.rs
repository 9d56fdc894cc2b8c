//! Connections that are not here: where their segments go.

use std::collections::VecDeque;
use std::time::Duration;

use ferry_handoff::{Epoch, NodeId};
use ferry_stack::Instant;
use ferry_stack::ip::Datagram;
use ferry_stack::tcp::Flow;

use super::Node;

/// Segments held for one connection that is arriving. A peer's whole window comes in the time of one message.
const MAX_HELD: usize = 4096;
/// Octets held for it.
const MAX_HELD_OCTETS: usize = 8 << 20;
/// Octets held for all of them together.
const MAX_HELD_IN_ALL: usize = 256 << 20;
/// They are counted anew at most so often.
const COUNT_AGAIN: Duration = Duration::from_millis(100);
/// Connections whose place is remembered. Beyond it the contact node asks again, which costs time, not correctness.
const MAX_PLACES: usize = 1 << 20;

/// How long the node that a SYN was sent on to may take to confirm that it owns a connection now. Longer than a
/// handshake lives; a flood of SYNs that nobody answers is forgotten after it.
const CONFIRM: Duration = Duration::from_secs(75);

/// By how many milliseconds the clocks of nodes are thought to differ. Where they differ by more, it takes longer until the
/// contact node sends straight to who got a connection as soon as it was opened.
const SKEW: u64 = 1000;

/// Placed connections that may wait to be confirmed. With more of them under way this is a flood.
const MAX_UNCONFIRMED: usize = 1 << 14;
/// Those that were confirmed meanwhile are looked for so often.
const SWEEP: Duration = Duration::from_secs(1);

/// Connections that were placed at another node, the oldest first, and when they must be confirmed.
#[derive(Debug, Default)]
pub(super) struct Placed {
    placed: VecDeque<(Instant, Flow)>,
    swept: Option<Instant>,
}

impl Placed {
    pub(super) fn len(&self) -> usize {
        self.placed.len()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.placed.front().map(|(until, _)| *until)
    }
}

/// Octets held for all connections that are on their way here: no fewer than there are.
#[derive(Debug, Default)]
pub(super) struct Held {
    octets: usize,
    counted: Option<Instant>,
}

/// Where the segments of a connection go that is not here.
#[derive(Debug)]
pub(super) enum Place {
    /// To its owner.
    Elsewhere(Route),
    /// It is on its way to this node.
    Arriving(Arriving),
}

/// The owner of a connection, as far as is known here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Route {
    /// Who.
    pub(super) to: NodeId,
    /// Since which epoch. Zero: the contact node placed it there and nobody has confirmed.
    pub(super) epoch: Epoch,
    /// When it was placed there, in milliseconds of the group's clock, as long as nobody has confirmed.
    placed: Option<u64>,
}

impl Route {
    pub(super) const fn new(to: NodeId, epoch: Epoch) -> Self {
        Self { to, epoch, placed: None }
    }

    /// Whether a new connection was placed there long after this one, of another node, was opened.
    fn is_later_than(&self, other: &Self) -> bool {
        let opened = other.epoch.life.saturating_add(SKEW);
        self.placed.is_some_and(|placed| opened < placed) && self.to != other.to
    }
}

/// A connection on its way to this node.
#[derive(Debug)]
pub(super) struct Arriving {
    pub(super) from: NodeId,
    pub(super) epoch: Epoch,
    /// Where its segments went before.
    pub(super) before: Option<Route>,
    pub(super) held: VecDeque<Datagram>,
    pub(super) octets: usize,
}

impl Arriving {
    /// Keeps a segment until the connection is here; `false` if there is no room, so that the client sends again.
    pub(super) fn hold(&mut self, datagram: Datagram) -> bool {
        let room = self.held.len() < MAX_HELD && self.octets + datagram.packet.len() <= MAX_HELD_OCTETS;
        if room {
            self.octets += datagram.packet.len();
            self.held.push_back(datagram);
        }
        room
    }
}

impl Place {
    /// The owner, if it is another node.
    pub(super) fn route(&self) -> Option<Route> {
        match self {
            Self::Elsewhere(route) => Some(*route),
            Self::Arriving(arriving) => arriving.before,
        }
    }
}

impl Node {
    /// A new connection is to be served by another node, which will confirm it.
    pub(super) fn place_at(&mut self, flow: Flow, to: NodeId, now: Instant) {
        let placed = Some(self.group_clock.at(now).millis());
        self.note(flow, Route { to, epoch: Epoch::default(), placed });
        self.placed.placed.push_back((now + CONFIRM, flow));
        self.peers.count_placed(to);
    }

    /// Whether a connection between the same ends has come here from another node. That may still send on here what comes for it:
    /// a new one is opened here, too, and handed on from here.
    pub(super) fn has_had(&self, flow: &Flow) -> bool {
        self.handoffs.was_given(flow)
    }

    /// Whether so many placed connections wait to be confirmed that they are not remembered any more.
    pub(super) fn has_too_many_unconfirmed(&mut self, now: Instant) -> bool {
        let Placed { placed, swept } = &mut self.placed;
        if placed.len() >= MAX_UNCONFIRMED && swept.is_none_or(|swept| swept + SWEEP <= now) {
            let places = &self.places;
            placed.retain(|(_, flow)| {
                matches!(places.get(flow), Some(Place::Elsewhere(route)) if route.epoch == Epoch::default())
            });
            *swept = Some(now);
        }
        placed.len() >= MAX_UNCONFIRMED
    }

    /// Whether so many octets more can be held. What was held for a connection that has come, or will not, is only found
    /// out when there seems to be too much.
    pub(super) fn has_room_to_hold(&mut self, octets: usize, now: Instant) -> bool {
        let full = self.held.octets + octets > MAX_HELD_IN_ALL;
        if full && self.held.counted.is_none_or(|counted| counted + COUNT_AGAIN <= now) {
            self.held = Held { octets: self.octets_held(), counted: Some(now) };
        }
        let room = self.held.octets + octets <= MAX_HELD_IN_ALL;
        self.held.octets += if room { octets } else { 0 };
        room
    }

    /// Octets held for connections that are on their way here.
    pub(super) fn octets_held(&self) -> usize {
        let held = |place: &Place| match place {
            Place::Arriving(arriving) => arriving.octets,
            Place::Elsewhere(_) => 0,
        };
        self.places.values().map(held).sum()
    }

    /// Whether the place of one more connection can be remembered.
    pub(super) fn has_room_for_places(&self) -> bool {
        self.places.len() < MAX_PLACES
    }

    /// Forgets connections that nobody has confirmed.
    pub(super) fn forget_unconfirmed(&mut self, now: Instant) {
        while self.placed.deadline().is_some_and(|until| until <= now) {
            if let Some((_, flow)) = self.placed.placed.pop_front() {
                self.forget_place(&flow, Epoch::default());
            }
        }
    }

    /// Notes where a connection's segments go, unless something later is known.
    pub(super) fn note_owner(&mut self, flow: Flow, to: NodeId, epoch: Epoch) {
        self.note(flow, Route::new(to, epoch));
    }

    fn note(&mut self, flow: Flow, route: Route) {
        let room = self.places.len() < MAX_PLACES;
        match self.places.get_mut(&flow) {
            Some(Place::Elsewhere(known)) if known.epoch <= route.epoch && !known.is_later_than(&route) => {
                *known = route;
            }
            Some(Place::Arriving(arriving)) if arriving.epoch > route.epoch => {
                arriving.before = Some(route);
            }
            None if room => {
                self.places.insert(flow, Place::Elsewhere(route));
            }
            _ => {}
        }
    }

    /// The owner says that a connection is over. It does not come here either, if it was about to.
    pub(super) fn connection_over(&mut self, from: NodeId, flow: &Flow, epoch: Epoch) {
        let later = |route: Route| route.epoch > epoch;
        if let Some(Place::Arriving(arriving)) = self.places.get(flow)
            && !arriving.before.is_some_and(later)
        {
            self.places.remove(flow);
        }
        self.forget_place(flow, epoch);
        self.drop_orphan(flow);
        self.asks.over(flow, from);
    }

    /// This node is not the contact node any more: it sends on to the new one what is not here.
    pub(super) fn forget_routes(&mut self) {
        let handoffs = &self.handoffs;
        self.places.retain(|flow, place| matches!(place, Place::Arriving(_)) || handoffs.is_forwarding(flow));
    }

    /// What comes for a connection that has left is not sent on any more.
    pub(super) fn forget_route(&mut self, flow: &Flow) {
        if matches!(self.places.get(flow), Some(Place::Elsewhere(_))) {
            self.places.remove(flow);
        }
    }

    /// Forgets where a connection's segments go, if nothing later than `epoch` is known.
    pub(super) fn forget_place(&mut self, flow: &Flow, epoch: Epoch) {
        if matches!(self.places.get(flow), Some(Place::Elsewhere(route)) if route.epoch <= epoch) {
            self.places.remove(flow);
        }
    }
}
