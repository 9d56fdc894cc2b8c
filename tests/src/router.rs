//! The router between all links: one [`Interface`] a port, so that neighbour discovery and ICMPv6 errors are real.

use core::net::Ipv6Addr;
use std::collections::BTreeMap;

use ferry_stack::icmp::{self, Error};
use ferry_stack::interface::{Address, Config};
use ferry_stack::ip::{self, Datagram};
use ferry_stack::{EthernetAddress, Frame, Instant, Interface};

/// Octets of an IPv6 header and a TCP header with every option: a segment of a super-segment is never longer than
/// this and its payload.
const HEADERS: usize = 100;

/// Where a link is attached.
#[derive(Debug)]
pub struct Port {
    interface: Interface,
    prefixes: Vec<Address>,
    /// The largest packet that passes between this port and the others: a narrow link inside of the network.
    pub path_mtu: u16,
}

/// A router whose every port is a link of its own.
#[derive(Debug, Default)]
pub struct Router {
    ports: Vec<Port>,
    /// Whether a packet passes only if its source lies where it comes from (RFC 2827).
    pub filters_sources: bool,
    /// Packets that did not pass because of that.
    pub filtered: u64,
    /// Ways on which nothing passes, from port to port, and since when.
    cut: BTreeMap<(usize, usize), Instant>,
    /// Packets sent on.
    pub forwarded: u64,
    /// Packets that were told to be too big.
    pub too_big: u64,
}

impl Router {
    /// Attaches a link. The router has the given addresses on it; what shares their prefixes is routed there.
    pub fn attach(&mut self, prefixes: Vec<Address>, mtu: u16, path_mtu: u16) -> usize {
        let index = self.ports.len();
        let octet = |shift: usize| u8::try_from(index >> shift & 0xff).unwrap_or_default();
        let config = Config {
            mac: EthernetAddress([2, 0xff, 0, 0, octet(8), octet(0)]),
            addresses: prefixes.clone(),
            gateway: None,
            mtu,
        };
        let mut interface = Interface::new(config);
        interface.set_forwarding(true);
        self.ports.push(Port { interface, prefixes, path_mtu });
        index
    }

    /// From now on nothing passes from one port to another.
    pub fn cut(&mut self, from: usize, to: usize, now: Instant) {
        self.cut.entry((from, to)).or_insert(now);
    }

    /// It passes again; `false` if it did.
    pub fn heal(&mut self, from: usize, to: usize) -> bool {
        self.cut.remove(&(from, to)).is_some()
    }

    /// Since when nothing passes, if nothing does.
    pub fn cut_since(&self, from: usize, to: usize) -> Option<Instant> {
        self.cut.get(&(from, to)).copied()
    }

    /// Whether nothing passes.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cut.contains_key(&(from, to))
    }

    /// Every way on which nothing passes.
    pub fn cuts(&self) -> Vec<(usize, usize)> {
        self.cut.keys().copied().collect()
    }

    /// A port.
    pub fn port(&mut self, index: usize) -> &mut Port {
        &mut self.ports[index]
    }

    /// Takes a frame from a link.
    pub fn receive(&mut self, port: usize, frame: Frame, now: Instant) {
        let Some(datagram) = self.ports[port].interface.receive(frame, now) else { return };
        let to_us = self.ports[port].interface.has_address(datagram.destination);
        if !to_us {
            self.forward(port, datagram, now);
        }
    }

    /// RFC 8200 section 3, RFC 4443 sections 3.1 to 3.3.
    fn forward(&mut self, from: usize, mut datagram: Datagram, now: Instant) {
        let Some(to) = self.route(datagram.destination) else {
            return self.complain(&datagram, Error::Unreachable { code: icmp::NO_ROUTE }, now);
        };
        if !self.cut.is_empty() && self.is_cut(from, to) {
            return;
        }
        if self.filters_sources && self.route(datagram.source) != Some(from) {
            self.filtered += 1;
            return;
        }
        if datagram.hop_limit <= 1 {
            return self.complain(&datagram, Error::TimeExceeded { code: icmp::HOP_LIMIT_EXCEEDED }, now);
        }
        let mtu = self.mtu_between(from, to);
        if longest(&datagram) > usize::from(mtu) {
            self.too_big += 1;
            return self.complain(&datagram, Error::PacketTooBig { mtu: mtu.into() }, now);
        }
        datagram.hop_limit -= 1;
        let hop_limit = datagram.hop_limit;
        let mut packet = datagram.into_packet();
        ip::set_hop_limit(&mut packet.head, hop_limit);
        self.forwarded += 1;
        self.ports[to].interface.send(packet, now);
    }

    fn mtu_between(&self, from: usize, to: usize) -> u16 {
        let (from, to) = (&self.ports[from], &self.ports[to]);
        from.path_mtu.min(to.path_mtu).min(to.interface.mtu())
    }

    /// Where an address lies: the port with the longest prefix that it shares.
    fn route(&self, destination: Ipv6Addr) -> Option<usize> {
        let lengths = |port: &Port| {
            let shared = |prefix: &&Address| is_in(destination, prefix);
            port.prefixes.iter().filter(shared).map(|prefix| prefix.prefix_len).max()
        };
        let routes = self.ports.iter().enumerate().filter_map(|(index, port)| Some((lengths(port)?, index)));
        routes.max().map(|(_, index)| index)
    }

    /// The error goes where the source lies, which is not always where the packet came from.
    fn complain(&mut self, about: &Datagram, error: Error, now: Instant) {
        if let Some(port) = self.route(about.source) {
            self.ports[port].interface.icmp_error(about, error, now);
        }
    }

    /// The next frame to put on a link, and which.
    pub fn poll_transmit(&mut self) -> Option<(usize, Frame)> {
        let mut ports = self.ports.iter_mut().enumerate();
        ports.find_map(|(index, port)| Some((index, port.interface.poll_transmit()?)))
    }

    /// When [`Router::handle_timeout`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.ports.iter().filter_map(|port| port.interface.deadline()).min()
    }

    /// Does what has come due.
    pub fn handle_timeout(&mut self, now: Instant) {
        for port in &mut self.ports {
            if port.interface.deadline().is_some_and(|at| at <= now) {
                port.interface.handle_timeout(now);
            }
        }
    }
}

/// Octets of the packet, or of the longest segment that it stands for.
fn longest(datagram: &Datagram) -> usize {
    match datagram.offload.gso {
        None => datagram.packet.len(),
        Some(gso) => {
            let tcp = datagram.upper_bytes().get(12).map_or(HEADERS, |octet| usize::from(octet >> 4) * 4);
            datagram.upper_at + tcp + usize::from(gso.size)
        }
    }
}

fn is_in(address: Ipv6Addr, prefix: &Address) -> bool {
    let differing = (address.to_bits() ^ prefix.address.to_bits()).leading_zeros();
    differing >= u32::from(prefix.prefix_len)
}
