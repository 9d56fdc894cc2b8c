//! Mobile IPv6 on a node: clients that understand it send straight to the owner, and it answers straight.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use bytes::Bytes;
use ferry_handoff::NodeId;
use ferry_mipv6::correspondent::Outgoing;
use ferry_mipv6::header::{self, BindingErrorStatus, Fault, Message, Received};
use ferry_mipv6::limit::Pace;
use ferry_mipv6::mobile::{Ability, Client, Mobile, Mode};
use ferry_mipv6::{Path, keys};
use ferry_stack::ip::{Datagram, Packet};
use ferry_stack::tcp::Handle;
use ferry_stack::{Instant, icmp};
use serde::{Deserialize, Serialize};

use super::Node;
use super::hearing::{Hearing, Kind};
use super::seekers::Seekers;
use super::setup::Setup;

/// Retransmission timeouts in a row after which the optimised path counts as broken.
const MAX_TIMEOUTS: u8 = 2;
/// Whether clients are told where their connections are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Optimise {
    /// Those that understand it, as long as it works.
    #[default]
    Auto,
    /// None.
    Never,
    /// All: none is ever taken for a plain one.
    Always,
}

/// Whether an owner that is not at home answers plain clients straight from the service address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlainSource {
    /// It does: the network lets such packets through.
    #[default]
    Auto,
    /// It does not: its packets go back through a tunnel to the contact node.
    Never,
}

/// What a node knows of its clients' mobility.
#[derive(Debug)]
pub(super) struct Mobility {
    mobile: Option<Mobile>,
    plain_source: PlainSource,
    /// How many connections of each client are owned here.
    owned: BTreeMap<Ipv6Addr, usize>,
    /// Of how many connections of each client that understands copies are held here.
    backed: BTreeMap<Ipv6Addr, usize>,
    /// At the contact node: who has asked a client for a home test last.
    seekers: Seekers,
    /// Of clients that send straight to this node.
    hearing: Hearing,
    errors: Pace,
}

impl Mobility {
    pub(super) fn new(setup: &Setup) -> Self {
        let at_home = setup.contact == setup.name && setup.home_agent.is_none();
        let here = if at_home { setup.service_address } else { setup.care_of.address };
        let life = [setup.name.as_bytes(), &setup.incarnation.0.to_be_bytes()].concat();
        let mobile = || {
            Mobile::new(setup.service_address, here, keys::derive(&setup.secret, &life))
                .asking_again(setup.ask_again)
        };
        Self {
            mobile: match setup.optimise {
                Optimise::Auto => Some(mobile()),
                Optimise::Never => None,
                Optimise::Always => Some(mobile().persist()),
            },
            plain_source: setup.plain_source,
            owned: BTreeMap::new(),
            backed: BTreeMap::new(),
            seekers: Seekers::default(),
            hearing: Hearing::default(),
            errors: Pace::default(),
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let mobile = self.mobile.as_ref().and_then(Mobile::deadline);
        [mobile, self.hearing.deadline()].into_iter().flatten().min()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let Some(mobile) = &mut self.mobile else { return };
        while let Some(client) = self.hearing.silent(now) {
            mobile.verify(client, now);
        }
        mobile.handle_timeout(now);
    }

    fn mode(&self, client: Ipv6Addr, now: Instant) -> Mode {
        self.mobile.as_ref().map_or(Mode::Relayed, |mobile| mobile.mode(client, now))
    }

    /// By which way packets from the service address go to a client. `home`: where the tunnel to the home link
    /// ends, if this node is not at home.
    pub(super) fn path(
        &self,
        client: Ipv6Addr,
        care_of: Ipv6Addr,
        home: Option<Ipv6Addr>,
        now: Instant,
    ) -> Path {
        let mode = self.mode(client, now);
        let mode = if self.hearing.repeats_itself(client) { Mode::Relayed } else { mode };
        match (mode, self.plain_source, home) {
            (Mode::Optimised, ..) => Path::Optimised { care_of },
            (Mode::Relayed, PlainSource::Never, Some(exit)) => Path::Tunnel { entry: care_of, exit },
            (Mode::Relayed, ..) => Path::Direct,
        }
    }

    /// A connection of the client is owned here from now on. What another node knew of the client comes along.
    pub(super) fn came(&mut self, client: Ipv6Addr, known: Option<&Bytes>, now: Instant) {
        *self.owned.entry(client).or_default() += 1;
        let Some(mobile) = &mut self.mobile else { return };
        match known.and_then(|known| postcard::from_bytes::<Client<Duration>>(known).ok()) {
            Some(known) => mobile.import(client, known, now),
            None => mobile.own(client, now),
        }
    }

    /// A connection of the client is not owned here any more.
    pub(super) fn gone(&mut self, client: Ipv6Addr, now: Instant) {
        let Some(left) = self.owned.get_mut(&client) else { return };
        *left -= 1;
        if *left == 0 {
            self.owned.remove(&client);
            self.hearing.gone(client);
            self.release(client, now);
        }
    }

    /// A copy of a connection of the client is held here from now on, with what its owner knows of the client: this node
    /// keeps a care-of token, so that it needs one message if the owner dies.
    pub(super) fn backs(&mut self, client: Ipv6Addr, known: &Bytes, now: Instant) {
        let copies = self.backed.entry(client).or_default();
        *copies += 1;
        if *copies == 1
            && !self.owned.contains_key(&client)
            && let Some(mobile) = &mut self.mobile
            && let Ok(known) = postcard::from_bytes::<Client<Duration>>(known)
            && known.ability == Ability::Aware
        {
            mobile.back(client, known, now);
        }
    }

    /// A copy is not held here any more.
    pub(super) fn backs_no_longer(&mut self, client: Ipv6Addr, now: Instant) {
        let Some(left) = self.backed.get_mut(&client) else { return };
        *left -= 1;
        if *left == 0 {
            self.backed.remove(&client);
            self.stand_down(client, now);
        }
    }

    /// No copies are held here any more.
    pub(super) fn backs_none(&mut self, now: Instant) {
        for client in core::mem::take(&mut self.backed).into_keys() {
            self.stand_down(client, now);
        }
    }

    /// What is known of the client, for the node that a connection of it goes to. The client will be told that all
    /// its connections are there: those that stay are reached through that node.
    pub(super) fn take_along(&mut self, client: Ipv6Addr, now: Instant) -> Bytes {
        let known = self.mobile.as_mut().and_then(|mobile| mobile.export(client, now));
        self.release(client, now);
        known.and_then(|known| postcard::to_allocvec(&known).ok()).unwrap_or_default().into()
    }

    /// What is known of the client, for a copy of its connection at another node.
    pub(super) fn known(&self, client: Ipv6Addr, now: Instant) -> Bytes {
        let known = self.mobile.as_ref().and_then(|mobile| mobile.export(client, now));
        known.and_then(|known| postcard::to_allocvec(&known).ok()).unwrap_or_default().into()
    }

    /// Whether a client has shown that it understands Mobile IPv6.
    pub(super) fn is_aware(&self, client: Ipv6Addr) -> bool {
        let known = self.mobile.as_ref().and_then(|mobile| mobile.client(client));
        known.is_some_and(|known| known.ability == Ability::Aware)
    }

    /// Whether a Binding Update to a client needs no care-of test any more.
    pub(super) fn is_ready(&self, client: Ipv6Addr, now: Instant) -> bool {
        self.mobile.as_ref().is_none_or(|mobile| mobile.is_ready(client, now))
    }

    /// A connection of the client may come: a care-of test ahead of need costs no time later.
    pub(super) fn stand_by(&mut self, client: Ipv6Addr, now: Instant) {
        if let Some(mobile) = &mut self.mobile
            && !self.owned.contains_key(&client)
        {
            mobile.stand_by(client, now);
        }
    }

    /// It has not come.
    pub(super) fn stand_down(&mut self, client: Ipv6Addr, now: Instant) {
        if !self.owned.contains_key(&client) {
            self.release(client, now);
        }
    }

    fn release(&mut self, client: Ipv6Addr, now: Instant) {
        let Some(mobile) = &mut self.mobile else { return };
        if self.backed.contains_key(&client) {
            mobile.stand_by(client, now);
        } else {
            mobile.release(client);
        }
    }

    /// A segment of the client came. Somebody who only receives sends nothing that could stay unacknowledged; but the
    /// client's own repetitions show that it hears nothing.
    pub(super) fn heard(&mut self, client: Ipv6Addr, kind: Kind, now: Instant) {
        if self.mode(client, now) == Mode::Relayed {
            self.hearing.forget(client);
        } else if self.hearing.heard(client, kind, now) {
            self.failed(client, now);
        }
    }

    /// The client has opened a new connection by way of this node, because others of it lived here. If none does any
    /// more, it is to send home.
    pub(super) fn outlived(&mut self, client: Ipv6Addr, now: Instant) {
        if let Some(mobile) = &mut self.mobile
            && !self.owned.contains_key(&client)
        {
            mobile.leave(client, now);
        }
    }

    /// The client does not acknowledge anything. If it may be sending to the care-of address, the path may not carry
    /// that.
    fn suspect(&mut self, client: Ipv6Addr, now: Instant) {
        let bound = self.mobile.as_ref().is_some_and(|mobile| mobile.may_be_bound(client, now));
        if bound && !self.hearing.is_excused(client, now) {
            self.failed(client, now);
        }
    }

    fn failed(&mut self, client: Ipv6Addr, now: Instant) {
        if let Some(mobile) = &mut self.mobile {
            mobile.failed(client, now);
        }
    }

    fn receive(&mut self, received: &Received, now: Instant) -> bool {
        let taken = self.mobile.as_mut().is_some_and(|mobile| mobile.receive(received, now));
        if taken && matches!(received.message, Message::BindingError { .. }) {
            self.hearing.excuse(received.source, now);
        }
        taken
    }
}

impl Node {
    /// A Mobility Header that came here.
    pub(super) fn receive_mobility(&mut self, from: Option<NodeId>, datagram: Datagram, now: Instant) {
        match header::open(&datagram) {
            Ok(received) => {
                if self.home.receive(&received, now) {
                    self.finish_leaving(now);
                } else if self.mobility.receive(&received, now) {
                    self.tell_warm(received.source, now);
                } else {
                    self.relay_mobility(from, datagram, now);
                }
            }
            Err(Fault::Problem(pointer)) => {
                self.interface.icmp_error(&datagram, icmp::Error::ParameterProblem { code: 0, pointer }, now);
            }
            Err(Fault::UnknownType(_)) => {
                let unspecified = Ipv6Addr::UNSPECIFIED;
                self.binding_error(&datagram, BindingErrorStatus::UNKNOWN_TYPE, unspecified, now);
            }
            Err(Fault::Address | Fault::Checksum | Fault::Option) => self.counters.dropped += 1,
        }
    }

    /// What a client says to the home address reaches the node that has asked (RFC 6275 section 5.2.3: the home test
    /// goes through the home agent).
    fn relay_mobility(&mut self, from: Option<NodeId>, datagram: Datagram, now: Instant) {
        let seeker = self.mobility.seekers.of(datagram.source);
        match seeker.filter(|to| from.is_none() && *to != self.id) {
            Some(to) if datagram.destination == self.service_address => self.forward(datagram, to, now),
            _ => self.counters.dropped += 1,
        }
    }

    /// A packet of another node of the group, which is to leave from the home address.
    pub(super) fn send_from_home(&mut self, from: Option<NodeId>, datagram: Datagram, now: Instant) {
        if let (Some(from), Ok(Received { message: Message::HomeTestInit(_), .. })) =
            (from, header::open(&datagram))
        {
            self.mobility.seekers.note(datagram.destination, from);
        }
        if !self.is_contact() {
            self.counters.dropped += 1;
        } else if let Some(path) = self.tunnel_home() {
            self.counters.forwarded += 1;
            self.put(datagram.into_packet(), &path, now);
        } else if let Some(packet) = datagram.hop() {
            self.counters.forwarded += 1;
            self.interface.send(packet, now);
        }
    }

    /// A packet claims a home address for which there is no binding (RFC 6275 section 9.3.1).
    pub(super) fn no_binding(&mut self, datagram: &Datagram, now: Instant) {
        let home = datagram.home_address().unwrap_or(Ipv6Addr::UNSPECIFIED);
        self.binding_error(datagram, BindingErrorStatus::NO_BINDING, home, now);
    }

    fn binding_error(
        &mut self,
        about: &Datagram,
        status: BindingErrorStatus,
        home_address: Ipv6Addr,
        now: Instant,
    ) {
        self.counters.dropped += 1;
        if !self.mobility.errors.take(now) {
            return;
        }
        let message = Message::BindingError { status, home_address };
        let error = Outgoing::plain(about.destination, about.source, message);
        self.send_mobility(&error, now);
    }

    /// Sends what Mobile IPv6 has to say; whether there was anything.
    pub(super) fn signal(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(message) = self.mobility.mobile.as_mut().and_then(Mobile::poll) {
            self.send_mobility(&message, now);
            any = true;
        }
        any
    }

    fn send_mobility(&mut self, message: &Outgoing, now: Instant) {
        let packet = message.packet();
        // What comes from the home address goes by way of the home link: the client has to see that it can.
        match self.tunnel_home().filter(|_| message.source == self.service_address) {
            Some(path) => self.put(packet, &path, now),
            None => self.interface.send(packet, now),
        }
    }

    fn tunnel_home(&self) -> Option<Path> {
        let exit = self.way_home()?;
        Some(Path::Tunnel { entry: self.care_of, exit })
    }

    /// Sends a packet of a connection that is owned here.
    pub(super) fn send_segment(&mut self, handle: Handle, packet: Packet, now: Instant) {
        let Some(client) = packet.destination() else { return };
        let timeouts = self.tcp.get(handle).map_or(0, |tcb| tcb.snd.timeouts);
        if timeouts >= MAX_TIMEOUTS {
            self.mobility.suspect(client, now);
        }
        let path = self.mobility.path(client, self.care_of, self.way_home(), now);
        self.counters.optimised += u64::from(matches!(path, Path::Optimised { .. }));
        self.put(packet, &path, now);
    }

    /// Sends a segment of no connection. It may be from the service address, or from our own.
    pub(super) fn send_home(&mut self, packet: Packet, now: Instant) {
        let from_home = packet.source() == Some(self.service_address);
        let path = match packet.destination() {
            Some(to) if from_home => self.mobility.path(to, self.care_of, self.way_home(), now),
            _ => Path::Direct,
        };
        self.put(packet, &path, now);
    }

    fn put(&mut self, packet: Packet, path: &Path, now: Instant) {
        let interface = &mut self.interface;
        if self.stage.outbound(packet, path, |packet| interface.send(packet, now)).is_err() {
            self.counters.dropped += 1;
        }
    }

    /// An error about a packet that went from the care-of address is one about a packet from the home address.
    pub(super) fn quoted_at_home(&self, mut received: icmp::Received) -> icmp::Received {
        if received.quote.source == self.care_of && !self.is_at_home() {
            received.quote.source = self.service_address;
        }
        received
    }

    /// An ICMPv6 error quotes a packet of ours with Mobile IPv6 in it: the client, or the path to it, does not
    /// understand it. A Destination Unreachable may pass, and Packet Too Big is for TCP.
    pub(super) fn mobility_refused(&mut self, received: &icmp::Received, now: Instant) {
        let ours = received.quote.source == self.care_of || received.quote.upper == ferry_stack::ip::MOBILITY;
        if ours && matches!(received.error, icmp::Error::ParameterProblem { .. }) {
            self.mobility.failed(received.quote.destination, now);
        }
    }
}
