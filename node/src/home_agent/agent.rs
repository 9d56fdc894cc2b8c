//! The home agent itself, sans-I/O: what comes for a registered home address goes through a tunnel to where it is
//! (RFC 6275 sections 10.4.1 to 10.4.3), and what comes back through the tunnel goes on (section 10.4.5).

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use bytes::Bytes;
use ferry_mipv6::correspondent::Outgoing;
use ferry_mipv6::header::{self, BindingErrorStatus, Fault, Message};
use ferry_mipv6::home_agent::{Change, Group, HomeAgent, Now, Setup as Registrations};
use ferry_mipv6::limit::Pace;
use ferry_mipv6::{Refused, TUNNEL_OVERHEAD, decapsulate, encapsulate};
use ferry_stack::interface::{Address, Config as InterfaceConfig};
use ferry_stack::ip::{self, Datagram, MIN_MTU, Packet};
use ferry_stack::{EthernetAddress, Frame, Instant, Interface, Offload, gso, icmp};
use serde::{Deserialize, Serialize};

use super::{Home, Status};
use crate::largest::largest;

/// How long a router's word about the size of packets holds (RFC 8201 section 4: 10 minutes).
const PATH_MTU_LIFE: Duration = Duration::from_mins(10);

/// What a home agent is made from.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its link-layer address.
    pub mac: EthernetAddress,
    /// Its own address, on the home link.
    pub address: Address,
    /// The router of the home link.
    pub gateway: Ipv6Addr,
    /// The largest packet of the link; octets.
    pub mtu: u16,
    /// Who may register what, by the SPI that names the key.
    pub groups: BTreeMap<u32, Group>,
    /// No registration holds longer.
    pub max_lifetime: header::Lifetime,
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Mobility Headers that came.
    pub signalling: u64,
    /// Packets that went through a tunnel to a node.
    pub tunnelled_out: u64,
    /// Packets that came through a tunnel from a node, and went on.
    pub tunnelled_in: u64,
    /// Packets of no use.
    pub dropped: u64,
}

/// A home agent. Feed it by [`Agent::receive`], call [`Agent::handle_timeout`] at [`Agent::deadline`], and take what
/// [`Agent::poll_transmit`] gives after each.
#[derive(Debug)]
pub struct Agent {
    address: Ipv6Addr,
    mtu: u16,
    interface: Interface,
    registrations: HomeAgent,
    /// The largest packet that reaches a care-of address, and until when that is believed, where a router has
    /// complained. Of registered ones only.
    narrow: BTreeMap<Ipv6Addr, (u16, Instant)>,
    errors: Pace,
    counters: Counters,
}

impl Agent {
    /// Without registrations.
    pub fn new(setup: Setup) -> Self {
        let Setup { mac, address, gateway, mtu, groups, max_lifetime } = setup;
        let config = InterfaceConfig { mac, addresses: vec![address], gateway: Some(gateway), mtu };
        let mut interface = Interface::new(config);
        interface.set_mobility(true);
        let home_link = (address.address, address.prefix_len);
        let registrations =
            HomeAgent::new(Registrations { address: address.address, home_link, groups, max_lifetime });
        Self {
            address: address.address,
            mtu,
            interface,
            registrations,
            narrow: BTreeMap::new(),
            errors: Pace::default(),
            counters: Counters::default(),
        }
    }

    /// Takes a frame of the home link.
    pub fn receive(&mut self, frame: Frame, now: Now) {
        let Some(datagram) = self.interface.receive(frame, now.monotonic) else { return };
        if datagram.destination == self.address {
            self.take(&datagram, now);
        } else {
            self.intercept(datagram, now.monotonic);
        }
    }

    /// The next frame to put on the home link.
    pub fn poll_transmit(&mut self) -> Option<Frame> {
        self.interface.poll_transmit()
    }

    /// When [`Agent::handle_timeout`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        [self.interface.deadline(), self.registrations.deadline()].into_iter().flatten().min()
    }

    /// Does what has come due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.interface.handle_timeout(now);
        self.registrations.handle_timeout(now);
        self.carry_out(now);
    }

    /// How it is.
    pub fn status(&self, now: Instant) -> Status {
        let home = |(address, home): (Ipv6Addr, &ferry_mipv6::home_agent::Home)| Home {
            address,
            care_of: home.care_of,
            seconds_left: home.until.until(now).as_secs(),
            sequence: home.sequence(),
        };
        let homes = self.registrations.homes().map(home).collect();
        Status { address: self.address, homes, counters: self.counters }
    }

    /// A packet for our own address.
    fn take(&mut self, datagram: &Datagram, now: Now) {
        match datagram.upper {
            ip::MOBILITY => self.hear(datagram, now),
            ip::IPV6 => self.leave_tunnel(datagram, now.monotonic),
            ip::ICMPV6 => self.hear_error(datagram, now.monotonic),
            // Nobody listens here.
            ip::TCP => self.refuse(datagram, icmp::PORT_UNREACHABLE, now.monotonic),
            _ => self.drop_it(),
        }
    }

    /// A Mobility Header (RFC 6275 sections 9.2 and 10.3).
    fn hear(&mut self, datagram: &Datagram, now: Now) {
        self.counters.signalling += 1;
        match header::open(datagram) {
            Ok(received) => match self.registrations.receive(&received, now) {
                Some(answer) => {
                    self.carry_out(now.monotonic);
                    self.interface.send(answer.packet(), now.monotonic);
                }
                None => self.drop_it(),
            },
            Err(Fault::Problem(pointer)) => {
                let error = icmp::Error::ParameterProblem { code: icmp::ERRONEOUS_FIELD, pointer };
                self.complain(datagram, error, now.monotonic);
            }
            Err(Fault::UnknownType(_)) => self.binding_error(datagram, now.monotonic),
            Err(Fault::Checksum | Fault::Option | Fault::Address) => self.drop_it(),
        }
    }

    fn binding_error(&mut self, about: &Datagram, now: Instant) {
        self.drop_it();
        if self.errors.take(now) {
            let status = BindingErrorStatus::UNKNOWN_TYPE;
            let message = Message::BindingError { status, home_address: Ipv6Addr::UNSPECIFIED };
            let error = Outgoing::plain(about.destination, about.source, message);
            self.interface.send(error.packet(), now);
        }
    }

    /// What was decided about registrations is put into effect.
    fn carry_out(&mut self, now: Instant) {
        for change in self.registrations.take_changes() {
            match change {
                Change::Away(home, _) => self.interface.add_proxy(home, now),
                Change::Gone(home) => self.interface.remove_proxy(home),
            }
            tracing::info!("{change:?}");
            let homes = &self.registrations;
            self.narrow.retain(|care_of, _| homes.homes().any(|(_, home)| home.care_of == *care_of));
        }
    }

    /// A packet for a home address goes through the tunnel to where that is.
    fn intercept(&mut self, datagram: Datagram, now: Instant) {
        let Some(care_of) = self.registrations.care_of(datagram.destination) else { return self.drop_it() };
        let mtu = self.path_mtu(care_of, now).saturating_sub(TUNNEL_OVERHEAD).max(MIN_MTU);
        if datagram.hop_limit <= 1 {
            let error = icmp::Error::TimeExceeded { code: icmp::HOP_LIMIT_EXCEEDED };
            return self.complain(&datagram, error, now);
        }
        // RFC 2473 section 7.1.
        if largest(&datagram) > usize::from(mtu) {
            return self.complain(&datagram, icmp::Error::PacketTooBig { mtu: mtu.into() }, now);
        }
        let sent = match datagram.offload.gso {
            None => self.put(datagram.into_packet(), care_of, now),
            // No device cuts what is inside of a tunnel.
            Some(gso) => gso::segments(&datagram.into_packet(), gso.size)
                .try_for_each(|segment| self.put(segment, care_of, now)),
        };
        if sent.is_err() {
            self.drop_it();
        }
    }

    fn put(&mut self, packet: Packet, care_of: Ipv6Addr, now: Instant) -> Result<(), Refused> {
        let packet = encapsulate(packet, self.address, care_of)?;
        self.interface.send(packet, now);
        self.counters.tunnelled_out += 1;
        Ok(())
    }

    fn path_mtu(&self, care_of: Ipv6Addr, now: Instant) -> u16 {
        let known = self.narrow.get(&care_of).filter(|(_, until)| now < *until);
        known.map_or(self.mtu, |(mtu, _)| self.mtu.min(*mtu))
    }

    /// A packet out of a tunnel: only the node that has registered the home address may send from it
    /// (RFC 6275 section 10.4.5).
    fn leave_tunnel(&mut self, outer: &Datagram, now: Instant) {
        let Ok(inner) = decapsulate(outer) else { return self.drop_it() };
        let plain =
            inner.upper != ip::IPV6 && inner.home_address().is_none() && inner.routed_home().is_none();
        let stays = inner.destination.is_multicast() || inner.destination.is_unicast_link_local();
        if !plain || stays || !self.registrations.may_send(outer.source, inner.source) {
            return self.drop_it();
        }
        if inner.destination == self.address || self.registrations.care_of(inner.destination).is_some() {
            // Nothing that a node has to say to us comes so; and what goes to its own address goes round in a circle.
            return self.drop_it();
        }
        match inner.hop() {
            Some(packet) => {
                self.counters.tunnelled_in += 1;
                self.interface.send(packet, now);
            }
            None => self.drop_it(),
        }
    }

    /// An ICMPv6 error about a tunnel of ours: the sender of what was in it is told, or will be (RFC 2473 section 8).
    fn hear_error(&mut self, datagram: &Datagram, now: Instant) {
        let Some(received) = icmp::parse_error(datagram) else { return };
        let quote = received.quote;
        let registered = self.registrations.homes().any(|(_, home)| home.care_of == quote.destination);
        if quote.upper != ip::IPV6 || quote.source != self.address || !registered {
            return self.drop_it();
        }
        match received.error {
            icmp::Error::PacketTooBig { mtu } => {
                // Not below what IPv6 asks of every link (RFC 8201 section 4).
                let mtu = u16::try_from(mtu).unwrap_or(u16::MAX).max(MIN_MTU);
                self.narrow.insert(quote.destination, (mtu, now + PATH_MTU_LIFE));
            }
            icmp::Error::Unreachable { .. } => self.pass_on(&quote.upper_header, now),
            icmp::Error::TimeExceeded { .. } | icmp::Error::ParameterProblem { .. } => self.drop_it(),
        }
    }

    /// Tells the sender of a packet that the tunnel does not carry it. What is left of the packet is quoted.
    fn pass_on(&mut self, inner: &Bytes, now: Instant) {
        let Some(quote) = icmp::quote(inner).filter(|quote| self.registrations.is_home(quote.destination))
        else {
            return self.drop_it();
        };
        let about = Datagram {
            source: quote.source,
            destination: quote.destination,
            hop_limit: 0,
            traffic_class: 0,
            flow_label: 0,
            upper: quote.upper,
            upper_at: inner.len() - quote.upper_header.len(),
            packet: inner.clone(),
            offload: Offload::default(),
        };
        self.refuse(&about, icmp::ADDRESS_UNREACHABLE, now);
    }

    fn refuse(&mut self, about: &Datagram, code: u8, now: Instant) {
        self.complain(about, icmp::Error::Unreachable { code }, now);
    }

    fn complain(&mut self, about: &Datagram, error: icmp::Error, now: Instant) {
        self.drop_it();
        self.interface.icmp_error(about, error, now);
    }

    fn drop_it(&mut self) {
        self.counters.dropped += 1;
    }
}
