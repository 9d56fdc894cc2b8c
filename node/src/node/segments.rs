//! A packet arrives: which connection it belongs to, and where that is.

use ferry_handoff::{Epoch, Message, NodeId};
use ferry_mipv6::route::stripped;
use ferry_mipv6::{Inbound, Path, Reason as Refused, TUNNEL_OVERHEAD};
use ferry_stack::Instant;
use ferry_stack::host::quoted_segment;
use ferry_stack::icmp;
use ferry_stack::ip::{self, Datagram};
use ferry_stack::tcp::{Arrival, Endpoint, Flow, Reason, Refusal, Segment};

use super::Node;
use super::hearing::Kind;
use super::places::Place;
use crate::largest::largest;

impl Node {
    /// A packet for one of our addresses, perhaps out of a tunnel.
    pub(super) fn receive(&mut self, datagram: Datagram, now: Instant) {
        let (via, datagram) = match self.stage.inbound(datagram) {
            Inbound::Direct(datagram) => (None, datagram),
            Inbound::Tunnelled { via, datagram } => (Some(via), datagram),
            Inbound::Dropped(Refused::NoBinding(_), datagram) => return self.no_binding(&datagram, now),
            Inbound::Dropped(..) => {
                self.counters.dropped += 1;
                return;
            }
        };
        let from = via.and_then(|address| self.peers.at(address));
        if via.is_some() && datagram.source == self.service_address {
            return self.send_from_home(from, datagram, now);
        }
        let ours = datagram.destination == self.service_address;
        if ours && from.is_none() && self.is_contact() && !self.may_serve(now) {
            return self.suspend(&datagram);
        }
        match datagram.upper {
            ip::MOBILITY => self.receive_mobility(from, datagram, now),
            ip::TCP if ours => self.receive_segment(from, datagram, now),
            ip::ICMPV6 => self.receive_icmp(&datagram, now),
            ip::TCP => self.refuse(&datagram, now),
            _ => self.interface.icmp_error(&datagram, icmp::Error::unknown_upper(&datagram), now),
        }
    }

    fn receive_segment(&mut self, from: Option<NodeId>, datagram: Datagram, now: Instant) {
        let Some(flow) = Flow::of(&datagram) else {
            self.counters.dropped += 1;
            return;
        };
        let room = !matches!(self.places.get(&flow), Some(Place::Arriving(_)))
            || self.has_room_to_hold(datagram.packet.len(), now);
        match self.places.get_mut(&flow) {
            // What the donor forwards has passed it: only the new owner can use it. What comes another way still
            // belongs to the donor, which forwards it when the time has come.
            Some(Place::Arriving(arriving)) if from == Some(arriving.from) || arriving.before.is_none() => {
                let kept = room && arriving.hold(datagram);
                self.counters.held += u64::from(kept);
                self.counters.dropped += u64::from(!kept);
            }
            Some(place) => match place.route() {
                Some(_) if from.is_none() && self.is_for_contact(&flow, &datagram, now) => {
                    self.forward_to_contact(flow, datagram, now);
                }
                Some(route) => self.relay(flow, from, datagram, route.to, route.epoch, now),
                None => self.counters.dropped += 1,
            },
            None => {
                if let Some(datagram) = self.hold_orphan(&flow, datagram) {
                    self.deliver(flow, from, &datagram, now);
                }
            }
        }
    }

    /// Whether a segment that came straight to our care-of address may open a connection: that is for the contact node to say.
    fn is_for_contact(&self, flow: &Flow, datagram: &Datagram, now: Instant) -> bool {
        !self.is_contact()
            && Segment::parse(datagram).is_ok_and(|(_, segment)| self.may_open(flow, &segment, now))
    }

    fn may_open(&self, flow: &Flow, segment: &Segment, now: Instant) -> bool {
        segment.opens() || self.tcp.returns_cookie(flow, segment, now)
    }

    /// What opens a connection came straight to our care-of address, because others of the client live here. Who serves a new
    /// one is for the contact node to say: two nodes that choose would answer the same client. Nor does it follow an older
    /// connection from the same port.
    fn forward_to_contact(&mut self, flow: Flow, datagram: Datagram, now: Instant) {
        self.mobility.outlived(*flow.remote.ip(), now);
        self.forward(datagram, self.contact, now);
    }

    /// Sends a segment on to the node that owns its connection.
    fn relay(
        &mut self,
        flow: Flow,
        from: Option<NodeId>,
        datagram: Datagram,
        to: NodeId,
        epoch: Epoch,
        now: Instant,
    ) {
        // Placed, not confirmed, and the node cannot take it any more: a repeated SYN is placed anew.
        if epoch == Epoch::default() {
            if !self.peers.takes_connections(to) {
                self.places.remove(&flow);
                if let Ok((_, segment)) = Segment::parse(&datagram) {
                    self.tcp.unspend_cookie(&flow, &segment);
                }
                self.deliver(flow, from, &datagram, now);
                self.doubt(&flow);
                return;
            }
            self.spend_cookie(&flow, &datagram, now);
        }
        self.forward(datagram, to, now);
    }

    pub(super) fn forward(&mut self, datagram: Datagram, to: NodeId, now: Instant) {
        let Some(exit) = self.peers.care_of(to) else { return };
        let datagram = stripped(datagram);
        // RFC 2473 section 7.1: the tunnel is a link with a smaller MTU. A smaller one than IPv6 allows cannot be
        // told; the way between two nodes must carry 1320 octets.
        let mtu = self.peers.path_mtu(to, self.interface.mtu(), now) - TUNNEL_OVERHEAD;
        if largest(&datagram) > usize::from(mtu.max(ip::MIN_MTU)) {
            let error = icmp::Error::PacketTooBig { mtu: mtu.max(ip::MIN_MTU).into() };
            self.interface.icmp_error(&datagram, error, now);
            return;
        }
        let path = Path::Tunnel { entry: self.care_of, exit };
        let interface = &mut self.interface;
        let sent = self.stage.outbound(datagram.into_packet(), &path, |packet| interface.send(packet, now));
        match sent {
            Ok(()) => self.counters.forwarded += 1,
            Err(_) => self.counters.dropped += 1,
        }
    }

    /// The segment is for this node, as far as anybody here knows.
    pub(super) fn deliver(&mut self, flow: Flow, from: Option<NodeId>, datagram: &Datagram, now: Instant) {
        let Ok((_, segment)) = Segment::parse(datagram) else {
            self.counters.dropped += 1;
            return;
        };
        if !self.may_serve(now) {
            return self.suspend(datagram);
        }
        if from.is_none() {
            self.interface.confirm_reachable(*flow.remote.ip(), now);
        }
        let arrival = self.tcp.receive(&flow, &segment, now);
        let kind = match &arrival {
            Arrival::Delivered(_, Err(Reason::OutOfWindow)) => Kind::Repeated,
            _ if segment.payload.is_empty() => Kind::Bare,
            _ => Kind::Octets,
        };
        self.mobility.heard(*flow.remote.ip(), kind, now);
        match arrival {
            Arrival::Delivered(handle, Err(Reason::AckOfNothing(_))) => {
                if self.owned.get(handle).is_some_and(|owned| owned.doubtful) {
                    // The client knows the other one only.
                    self.let_go(&flow, handle, now);
                    return self.unknown(flow, from, &segment, datagram, now);
                }
                self.reset(&flow, &segment, now);
            }
            Arrival::Delivered(
                handle,
                Err(Reason::OutOfWindow | Reason::Paws | Reason::MissingTimestamp),
            ) if !segment.is_syn()
                && from.is_none_or(|from| from == self.contact)
                && self.is_in_doubt(handle) =>
            {
                // The SYN may have been forged, or late, and the client's connection be another's. Or this is late.
                self.seek_other_owner(flow, datagram, now);
            }
            Arrival::Delivered(_, Ok(())) => {}
            Arrival::Delivered(_, Err(_)) => self.counters.dropped += 1,
            Arrival::Unknown => {
                // A connection in TIME-WAIT may just have made way for a new one.
                self.settle(now);
                self.unknown(flow, from, &segment, datagram, now);
            }
        }
    }

    /// A packet came while this node may not act for its connections. The lease may be back in a moment, and only a timer of the
    /// client's would have it send again what was dropped.
    fn suspend(&mut self, datagram: &Datagram) {
        let flow = Some(datagram).filter(|datagram| datagram.upper == ip::TCP).and_then(Flow::of);
        let here = flow.filter(|flow| self.tcp.find(flow).is_some());
        let held = here.is_some_and(|flow| self.suspended.hold(flow, datagram.clone()));
        self.counters.held += u64::from(held);
        self.counters.dropped += u64::from(!held);
    }

    /// A segment that belongs to no connection that is known here.
    fn unknown(
        &mut self,
        flow: Flow,
        from: Option<NodeId>,
        segment: &Segment,
        datagram: &Datagram,
        now: Instant,
    ) {
        if segment.is_rst() {
            return;
        }
        if from.is_none() && !self.is_contact() && self.may_open(&flow, segment, now) {
            return self.forward_to_contact(flow, datagram.clone(), now);
        }
        if segment.opens() {
            self.place(flow, from, segment, datagram, now);
            return self.ended.forget(&flow);
        }
        if self.place_by_cookie(flow, from, segment, datagram, now) {
            self.ended.forget(&flow);
            return;
        }
        if self.ended.may_be_late(&flow, segment.seq, now) {
            self.counters.dropped += 1;
            return;
        }
        match from {
            // It was placed here, most likely, and has overtaken the segment that brings a cookie back. Only the contact node
            // places: another may have sent on what follows no connection that it knows.
            Some(from) if from == self.contact && self.tcp.may_follow_cookie(&flow, segment, now) => {
                self.counters.dropped += 1;
            }
            // Whoever sent it here believes that we own it; or it does not know, and we are to find out.
            Some(from) => {
                self.tell(from, &Message::NotMine { flow });
                if self.is_contact() {
                    self.ask(flow, segment, datagram, now);
                }
            }
            // It came straight to our care-of address: all connections of a client do, wherever they are.
            None if !self.is_contact() && self.peers.is_up(self.contact) => {
                self.forward(datagram.clone(), self.contact, now);
            }
            None => self.ask(flow, segment, datagram, now),
        }
    }

    /// A new connection: decides who serves it.
    fn place(&mut self, flow: Flow, from: Option<NodeId>, syn: &Segment, datagram: &Datagram, now: Instant) {
        if !self.services.contains_key(&flow.local.port()) {
            return self.reset(&flow, syn, now);
        }
        let to = match from {
            // A flood must not fill the memory of places, nor reach the other nodes.
            from if (from.is_none() || self.is_contact()) && self.has_too_many_unconfirmed(now) => {
                return self.answer_without_memory(&flow, syn, now);
            }
            _ if self.is_contact() => self.choose(&flow, now),
            // Who has sent it here may be able to open it, or place it anew, when it is repeated.
            Some(from) if self.draining => return self.tell(from, &Message::NotMine { flow }),
            _ => None,
        };
        match to {
            Some(to) if self.has_had(&flow) => {
                self.accept(flow, syn, now);
                self.give_now(flow, to, now);
            }
            Some(to) => {
                self.place_at(flow, to, now);
                self.forward(datagram.clone(), to, now);
            }
            None if !self.may_own(self.id, &flow) => self.counters.dropped += 1,
            None => self.accept(flow, syn, now),
        }
    }

    fn accept(&mut self, flow: Flow, syn: &Segment, now: Instant) {
        match self.tcp.open(flow, syn, now) {
            Ok(handle) => {
                self.own(handle, flow, now);
                // The client may have a connection elsewhere of which the contact node does not know yet.
                if self.contact_since.since(now) <= Endpoint::COOKIE_LIFETIME {
                    self.doubt(&flow);
                }
            }
            Err(Refusal::NoListener(_)) => self.reset(&flow, syn, now),
            Err(Refusal::QueueFull) => self.answer_without_memory(&flow, syn, now),
            Err(_) => self.counters.dropped += 1,
        }
    }

    /// There may be another connection between the same ends elsewhere: the client may come to know that one, and not ours.
    pub(super) fn doubt(&mut self, flow: &Flow) {
        if let Some(owned) = self.tcp.find(flow).and_then(|handle| self.owned.get_mut(handle)) {
            owned.doubtful = true;
        }
    }

    /// A segment for an address of ours at which nobody serves.
    fn refuse(&mut self, datagram: &Datagram, now: Instant) {
        match Segment::parse(datagram) {
            Ok((flow, segment)) => self.reset(&flow, &segment, now),
            Err(_) => self.counters.dropped += 1,
        }
    }

    pub(super) fn reset(&mut self, flow: &Flow, segment: &Segment, now: Instant) {
        if let Some(packet) = self.tcp.refuse(flow, segment) {
            self.send_home(packet, now);
        }
    }

    /// An error about a packet that some node of the group sent from the service address comes to the contact node:
    /// it belongs to the owner of the connection that it quotes.
    fn receive_icmp(&mut self, datagram: &Datagram, now: Instant) {
        let Some(received) = icmp::parse_error(datagram) else { return };
        if let icmp::Error::PacketTooBig { mtu } = received.error
            && received.quote.upper == ip::IPV6
            && received.quote.source == self.care_of
        {
            // About a tunnel of ours; the next packet that is too long for it makes us tell the client.
            return self.peers.narrow(received.quote.destination, mtu, now);
        }
        self.mobility_refused(&received, now);
        let received = self.quoted_at_home(received);
        let Some((flow, _)) = quoted_segment(&received) else { return };
        match self.places.get(&flow).and_then(Place::route) {
            Some(route) => self.forward(datagram.clone(), route.to, now),
            None => self.tcp.receive_error(&received, now),
        }
    }
}
