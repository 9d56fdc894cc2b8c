//! The other nodes of the group, as they are seen from here.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferry_handoff::{Incarnation, Message, NodeId};
use ferry_stack::Instant;
use ferry_stack::ip::MIN_MTU;

use super::backup::Told;
use super::setup::Peer;
use super::{Node, Place};
use crate::io::{PeerStatus, Standing, TraceEvent};

/// The load is told at most so often.
const LOAD_INTERVAL: Duration = Duration::from_millis(100);

/// Connections that a node can have told that it has.
const MAX_LOAD: u32 = 1 << 30;

/// How long a router's word about the size of packets holds (RFC 8201 section 4: 10 minutes).
const PATH_MTU_LIFE: Duration = Duration::from_mins(10);

/// The other nodes of the group.
#[derive(Debug)]
pub(super) struct Peers {
    states: BTreeMap<NodeId, State>,
    by_address: BTreeMap<Ipv6Addr, NodeId>,
    /// When the others are to be told our load.
    tell_load: Option<Instant>,
    told_load: Option<Instant>,
}

#[derive(Debug)]
struct State {
    name: Arc<str>,
    care_of: Ipv6Addr,
    up: bool,
    /// Its life when the link was last up.
    life: Option<Incarnation>,
    connections: u32,
    /// Whether it takes connections, once it has said so.
    open: Option<bool>,
    /// The largest packet that the way there carries, and until when that is believed, if a router has complained.
    path_mtu: Option<(u16, Instant)>,
}

impl Peers {
    pub(super) fn new(peers: Vec<Peer>) -> Self {
        let by_address = peers.iter().map(|peer| (peer.care_of, NodeId::of(&peer.name))).collect();
        let state = |Peer { name, care_of }: Peer| {
            let id = NodeId::of(&name);
            let name = name.into();
            (id, State { name, care_of, up: false, life: None, connections: 0, open: None, path_mtu: None })
        };
        let states = peers.into_iter().map(state).collect();
        Self { states, by_address, tell_load: None, told_load: None }
    }

    pub(super) fn at(&self, address: Ipv6Addr) -> Option<NodeId> {
        self.by_address.get(&address).copied()
    }

    pub(super) fn care_of(&self, peer: NodeId) -> Option<Ipv6Addr> {
        self.states.get(&peer).map(|state| state.care_of)
    }

    /// The largest packet that reaches a node: `link`, or less if a router on the way has said so.
    pub(super) fn path_mtu(&self, peer: NodeId, link: u16, now: Instant) -> u16 {
        let known = self.states.get(&peer).and_then(|state| state.path_mtu).filter(|(_, until)| now < *until);
        known.map_or(link, |(mtu, _)| mtu.min(link))
    }

    /// A router says that packets to a node must be smaller. Believed for a while, and not below what IPv6 asks of
    /// every link (RFC 8201 section 4).
    pub(super) fn narrow(&mut self, address: Ipv6Addr, mtu: u32, now: Instant) {
        let state = self.by_address.get(&address).and_then(|peer| self.states.get_mut(peer));
        if let (Some(state), Ok(mtu)) = (state, u16::try_from(mtu)) {
            state.path_mtu = Some((mtu.max(MIN_MTU), now + PATH_MTU_LIFE));
        }
    }

    pub(super) fn name(&self, peer: NodeId) -> &str {
        self.states.get(&peer).map_or("?", |state| &state.name)
    }

    pub(super) fn shared_name(&self, peer: NodeId) -> Arc<str> {
        self.states.get(&peer).map_or_else(|| "?".into(), |state| Arc::clone(&state.name))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.states.values().map(|state| &*state.name)
    }

    pub(super) fn is_known(&self, peer: NodeId) -> bool {
        self.states.contains_key(&peer)
    }

    pub(super) fn is_up(&self, peer: NodeId) -> bool {
        self.states.get(&peer).is_some_and(|state| state.up)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = NodeId> {
        self.states.keys().copied()
    }

    /// The life of a node to which there was a link last.
    pub(super) fn last_life(&self, peer: NodeId) -> Option<Incarnation> {
        self.states.get(&peer).and_then(|state| state.life)
    }

    pub(super) fn reachable(&self) -> impl Iterator<Item = NodeId> {
        self.states.iter().filter(|(_, state)| state.up).map(|(id, _)| *id)
    }

    /// Whether a node can be given new connections.
    pub(super) fn takes_connections(&self, peer: NodeId) -> bool {
        self.states.get(&peer).is_some_and(State::takes_connections)
    }

    /// Whether a node empties itself.
    pub(super) fn is_leaving(&self, peer: NodeId) -> bool {
        self.states.get(&peer).is_some_and(|state| state.open == Some(false))
    }

    /// The nodes that can be given connections, the least loaded first.
    pub(super) fn takers(&self) -> Vec<NodeId> {
        let mut takers: Vec<_> = self.states.iter().filter(|(_, state)| state.takes_connections()).collect();
        takers.sort_by_key(|(_, state)| state.connections);
        takers.into_iter().map(|(id, _)| *id).collect()
    }

    /// The nodes that can be given connections, in an order that is the same at each node: name, and connections there.
    pub(super) fn candidates(&self) -> impl Iterator<Item = (&str, NodeId, usize)> {
        let takers = self.states.iter().filter(|(_, state)| state.takes_connections());
        takers.map(|(id, state)| (&*state.name, *id, state.connections as usize))
    }

    /// A connection was placed there: it counts until the node tells its load itself.
    pub(super) fn count_placed(&mut self, peer: NodeId) {
        if let Some(state) = self.states.get_mut(&peer) {
            state.connections = state.connections.saturating_add(1);
        }
    }

    /// Our load has changed: the others will be told soon.
    pub(super) fn load_changed(&mut self, now: Instant) {
        let earliest = self.told_load.map_or(now, |told| told + LOAD_INTERVAL);
        self.tell_load.get_or_insert(if earliest > now { earliest } else { now });
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.tell_load
    }

    pub(super) fn status(&self, standing: impl Fn(NodeId) -> Standing) -> Vec<PeerStatus> {
        let status = |(id, state): (&NodeId, &State)| PeerStatus {
            standing: standing(*id),
            name: (*state.name).to_owned(),
            care_of: state.care_of,
            up: state.up,
            connections: state.connections as usize,
        };
        let mut peers: Vec<_> = self.states.iter().map(status).collect();
        peers.sort_by(|a, b| a.name.cmp(&b.name));
        peers
    }
}

impl State {
    fn takes_connections(&self) -> bool {
        self.up && self.open == Some(true)
    }
}

impl Node {
    pub(super) fn peer_up(&mut self, peer: NodeId, incarnation: Incarnation, now: Instant) {
        let Some(state) = self.peers.states.get_mut(&peer) else { return };
        if state.life.is_some_and(|known| known != incarnation) {
            state.open = None;
            if peer == self.contact {
                // It has forgotten everything.
                self.contact_since = now;
            }
        }
        let lives = self.directory.peer_up(peer, incarnation, now);
        // The end of its former life, if it had one.
        self.attend(now);
        let Some(state) = self.peers.states.get_mut(&peer).filter(|_| lives) else { return };
        (state.up, state.life) = (true, Some(incarnation));
        self.trace(TraceEvent::Peer { peer: self.peers.name(peer).to_owned(), up: true }, now);
        self.handoffs.peer_up(peer, incarnation, now);
        self.repeat_updates_to(peer, now);
        self.backup_up(peer, now);
        self.meet_at_home(peer, now);
        self.fill_contact(now);
        // Everybody, the newcomer among them.
        self.peers.tell_load = Some(now);
    }

    pub(super) fn peer_down(&mut self, peer: NodeId, now: Instant) {
        let Some(state) = self.peers.states.get_mut(&peer) else { return };
        (state.up, state.open) = (false, None);
        self.directory.peer_down(peer, now);
        self.trace(TraceEvent::Peer { peer: self.peers.name(peer).to_owned(), up: false }, now);
        self.handoffs.peer_down(peer);
        self.backup_down(peer, now);
        self.part_at_home(peer, now);
        self.cool_down(peer, now);
        self.orders_lost(peer);
        self.attend(now);
        self.fill_contact(now);
    }

    /// Messages from another node, in a row. The driver vouches for the sender, not for what it says.
    pub(super) fn receive_messages(&mut self, from: NodeId, mut octets: Bytes, now: Instant) {
        let known = self.peers.is_known(from);
        while !octets.is_empty() {
            let Some(message) = known.then(|| Message::take(&mut octets).ok()).flatten() else {
                self.counters.dropped += 1;
                return;
            };
            if !self.is_heard(from, &message) {
                self.counters.dropped += 1;
                continue;
            }
            self.receive_message(from, &message, now);
            while let Some((from, message)) = self.claims.next_confirmed() {
                self.receive_message(from, &message, now);
            }
        }
    }

    fn receive_message(&mut self, from: NodeId, message: &Message, now: Instant) {
        if !self.is_heard(from, message) {
            self.counters.dropped += 1;
            return;
        }
        if !self.believes(from, message, now) {
            return;
        }
        match message {
            Message::Owner { flow, epoch, node } => self.owner_told(from, *flow, *epoch, *node, now),
            Message::OwnerSeen { flow, epoch } => self.owner_seen(*flow, *epoch, now),
            Message::Ended { flow, epoch } => {
                self.connection_over(from, flow, *epoch);
                self.tell(from, &Message::EndedSeen { flow: *flow, epoch: *epoch });
            }
            Message::EndedSeen { flow, epoch } => self.updates.end_seen(flow, *epoch),
            Message::Ask { flow } => self.asked(from, *flow, now),
            Message::NotMine { flow } => self.not_mine(from, flow, now),
            Message::WarmUp { flow } => self.warm_up_asked(from, *flow, now),
            Message::Warm { flow } => self.warm(from, *flow, now),
            Message::Contact { node, term, answer } => self.contact_told(from, *node, *term, *answer, now),
            Message::Near { prefix, rtt_us } => {
                let rtt = Duration::from_micros((*rtt_us).into());
                self.near.measured(*prefix, from, rtt, now);
            }
            Message::Load { connections, open } => {
                if let Some(state) = self.peers.states.get_mut(&from) {
                    (state.connections, state.open) = ((*connections).min(MAX_LOAD), Some(*open));
                }
                self.go_on(now);
            }
            Message::Pulse(pulse) => {
                self.directory.pulse(from, pulse, now);
                self.attend(now);
            }
            Message::Dead { node, life } => {
                self.directory.told(from, *node, *life, now);
                self.attend(now);
            }
            Message::Order { run, order } => self.ordered(from, *run, *order, now),
            Message::Ordered { run, moved, failed, left } => {
                self.order_done(from, *run, (*moved, *failed, *left));
            }
            Message::Copy { flow, epoch, version, holders, delta } if !holders.is_empty() => {
                let (flow, epoch, version) = (*flow, *epoch, *version);
                self.copy_told(from, &Told { flow, epoch, version, holders, delta }, now);
            }
            // What goes ahead of a connection that leaves.
            Message::Copied { flow, epoch, .. } | Message::Lacks { flow, epoch, .. }
                if self.handoffs.awaits(from, flow, *epoch) =>
            {
                self.handoffs.receive_with(from, message, None, now);
            }
            Message::Copied { flow, epoch, version } => self.copied(from, *flow, *epoch, *version, now),
            Message::Lacks { flow, epoch, version, .. } => self.lacks(*flow, *epoch, *version),
            Message::Discard { flow, iss, epoch } => self.discard_told(from, *flow, *iss, *epoch, now),
            Message::Discarded { flow, iss, epoch } => self.discarded(from, *flow, *iss, *epoch, now),
            Message::Claims { dead, life, run, copies } => {
                self.directory.told(from, *dead, *life, now);
                self.attend(now);
                self.claims_told(from, (*dead, *life), *run, copies, now);
            }
            Message::Claimed { run, objections, .. } => self.claimed_told(from, *run, objections, now),
            handoff if !self.permits(from, handoff, now) => {}
            handoff => self.receive_handoff(from, handoff, now),
        }
    }

    pub(super) fn not_mine(&mut self, from: NodeId, flow: &ferry_stack::tcp::Flow, now: Instant) {
        // What is on its way there is not there yet.
        if let Some(Place::Elsewhere(route)) = self.places.get(flow)
            && route.to == from
            && self.handoffs.given(flow).is_none()
        {
            self.places.remove(flow);
        }
        if let Some(segment) = self.asks.denied(flow, from) {
            self.open_or_refuse(flow, &segment, now);
        }
    }

    /// Tells every other node how many connections there are here.
    pub(super) fn tell_load(&mut self, now: Instant) {
        if self.peers.tell_load.is_none_or(|at| at > now) {
            return;
        }
        self.peers.tell_load = None;
        self.peers.told_load = Some(now);
        let connections = u32::try_from(self.owned.len()).unwrap_or(u32::MAX);
        let message = Message::Load { connections, open: !self.draining };
        let reachable: Vec<_> = self.peers.reachable().collect();
        for peer in reachable {
            self.tell(peer, &message);
        }
    }
}
