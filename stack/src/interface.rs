//! One Ethernet interface: frames below, IPv6 packets above, and in between neighbour discovery (RFC 4861), echo and
//! the errors about packets that nobody can use (RFC 4443).

mod discovery;
mod groups;
mod pieces;
mod proxy;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::Ipv6Addr;
use core::time::Duration;

use bytes::{Buf, Bytes};
use smoltcp::wire::{ETHERNET_HEADER_LEN, EthernetAddress, EthernetFrame, EthernetProtocol};

use self::discovery::Announcement;
use crate::checksum;
use crate::frame::{Frame, Offload};
use crate::icmp::{self, Bucket};
use crate::ip::{self, Datagram, For, Fragments, Packet, Problem, Shape};
use crate::neighbour::{Action, Cache};
use crate::time::Instant;

/// Octets of the Ethernet header, as offloads are shifted by.
const ETHERNET: u16 = 14;
const _: () = assert!(ETHERNET as usize == ETHERNET_HEADER_LEN);
/// Frames waiting to be taken at most. The caller takes them after every input, so that only a bug gets here.
const QUEUE_FRAMES: usize = 1 << 14;

/// What an interface is made from.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its link-layer address.
    pub mac: EthernetAddress,
    /// The addresses that it answers for. It adds a link-local one, made from `mac`.
    pub addresses: Vec<Address>,
    /// The next hop of everything that is not on the link.
    pub gateway: Option<Ipv6Addr>,
    /// The largest IPv6 packet that the link carries.
    pub mtu: u16,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address itself.
    pub address: Ipv6Addr,
    /// The addresses that share so many bits are on the link. 128: none is.
    pub prefix_len: u8,
}

impl Address {
    fn has_on_link(&self, other: Ipv6Addr) -> bool {
        let differing = (self.address.to_bits() ^ other.to_bits()).leading_zeros();
        self.prefix_len < 128 && differing >= u32::from(self.prefix_len)
    }
}

/// What an interface counts. All since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames that came in.
    pub received: u64,
    /// Packets handed to the caller of [`Interface::receive`].
    pub delivered: u64,
    /// Frames that were queued to go out.
    pub sent: u64,
    /// Came in for another link-layer or IPv6 address, or with another protocol.
    pub not_ours: u64,
    /// Came in with headers that contradict each other.
    pub malformed: u64,
    /// Came in with a wrong ICMPv6 checksum.
    pub bad_checksum: u64,
    /// Fragments that came in.
    pub fragments: u64,
    /// Packets that were put together from fragments.
    pub reassembled: u64,
    /// Packets whose fragments did not all come in time.
    pub reassembly_failed: u64,
    /// Somebody else claimed, or was about to claim, one of our addresses.
    pub conflicts: u64,
    /// Going out, but neither on the link nor is there a gateway.
    pub no_route: u64,
    /// Going out, but larger than the MTU and not to be cut below.
    pub too_big: u64,
    /// Going out, but too many packets waited for the same neighbour, or to be taken.
    pub overflowed: u64,
    /// Going out, but the neighbour did not answer.
    pub unresolved: u64,
    /// ICMPv6 errors sent.
    pub errors_sent: u64,
    /// ICMPv6 errors due but not sent, because there were too many.
    pub errors_suppressed: u64,
}

/// One Ethernet interface. Frames go in by [`Interface::receive`], packets by [`Interface::send`]; after every
/// call take what [`Interface::poll_transmit`] gives, and call [`Interface::handle_timeout`] at
/// [`Interface::deadline`].
#[derive(Debug)]
pub struct Interface {
    mac: EthernetAddress,
    addresses: Vec<Address>,
    /// Those of them that somebody else has by now: what still comes for them is taken, and nothing is said of them.
    ceded: Vec<Ipv6Addr>,
    /// Addresses of others for which we answer.
    proxied: Vec<Ipv6Addr>,
    gateway: Option<Ipv6Addr>,
    mtu: u16,
    forwarding: bool,
    mobility: bool,
    neighbours: Cache,
    fragments: Fragments,
    announcements: BTreeMap<Ipv6Addr, Announcement>,
    /// When the multicast groups are reported once more.
    report_again: Option<Instant>,
    queue: VecDeque<Frame>,
    errors: Bucket,
    defences: Bucket,
    reports: Bucket,
    counters: Counters,
}

impl Interface {
    /// An interface that answers for the addresses of `config`, without announcing them.
    pub fn new(config: Config) -> Self {
        let Config { mac, mut addresses, gateway, mtu } = config;
        addresses.extend(link_local(mac));
        let mut interface = Self {
            mac,
            addresses,
            ceded: Vec::new(),
            proxied: Vec::new(),
            gateway,
            mtu,
            forwarding: false,
            mobility: false,
            neighbours: Cache::new(gateway),
            fragments: Fragments::default(),
            announcements: BTreeMap::new(),
            report_again: None,
            queue: VecDeque::new(),
            // As many as Linux sends: 1 000 a second, 50 at once.
            errors: Bucket::new(50, Duration::from_millis(1)),
            defences: Bucket::new(4, Duration::from_secs(1)),
            reports: Bucket::new(2, Duration::from_secs(1)),
            counters: Counters::default(),
        };
        interface.report_groups();
        interface
    }

    /// Takes a frame. Neighbour discovery, echo, and errors about malformed packets are dealt with inside.
    ///
    /// Returns a well-formed packet for one of our addresses that the caller must deal with: TCP (its checksum not
    /// yet verified), a tunnel's, a Mobility Header, an ICMPv6 error or echo reply (verified). Or a packet for somebody
    /// else: for whom we [answer](Interface::add_proxy), or, if forwarding was switched on, for anybody.
    pub fn receive(&mut self, frame: Frame, now: Instant) -> Option<Datagram> {
        self.counters.received += 1;
        let Frame { head: mut bytes, offload, .. } = frame.contiguous();
        let Ok(ethernet) = EthernetFrame::new_checked(&bytes[..]) else {
            return drop_as(&mut self.counters.malformed);
        };
        let (to, from) = (ethernet.dst_addr(), ethernet.src_addr());
        if ethernet.ethertype() != EthernetProtocol::Ipv6 || from == self.mac || !self.listens_to(to) {
            return drop_as(&mut self.counters.not_ours);
        }
        let Some(offload) = offload.unshifted(ETHERNET) else { return drop_as(&mut self.counters.malformed) };
        bytes.advance(ETHERNET_HEADER_LEN);
        let Some(destination) = ip::address(&bytes, 24) else { return drop_as(&mut self.counters.malformed) };
        // A packet for one that was sent to many (RFC 1122 section 3.3.6 has it for IPv4) is nobody's.
        let strayed = to.is_multicast() && !destination.is_multicast();
        let datagram = match self.is_ours(destination) {
            _ if strayed => return drop_as(&mut self.counters.not_ours),
            true => self.take(bytes, offload, now),
            false if self.forwarding || self.is_proxy_for(destination) => self.pass(bytes, offload, now),
            false => return drop_as(&mut self.counters.not_ours),
        };
        self.counters.delivered += u64::from(datagram.is_some());
        datagram
    }

    /// Sends a packet to its next hop (on-link, or the gateway), resolving it first if need be.
    pub fn send(&mut self, packet: Packet, now: Instant) {
        let Some(destination) = packet.destination() else {
            self.counters.malformed += 1;
            return;
        };
        if packet.len() > usize::from(self.mtu) && packet.offload.gso.is_none() {
            self.counters.too_big += 1;
            return;
        }
        if destination.is_multicast() {
            return self.put(groups::mac_of(destination), packet);
        }
        let Some(hop) = self.next_hop(destination) else {
            self.counters.no_route += 1;
            return;
        };
        match self.neighbours.route(hop, packet, now) {
            Some((mac, packet)) => self.put(mac, packet),
            None => self.act(now),
        }
    }

    /// The next frame to put on the wire.
    pub fn poll_transmit(&mut self) -> Option<Frame> {
        self.queue.pop_front()
    }

    /// Forgets the frames that wait to be put on the wire: what they say is not true any more.
    pub fn forget_waiting(&mut self) {
        self.queue.clear();
    }

    /// When [`Interface::handle_timeout`] wants to be called, if ever.
    pub fn deadline(&self) -> Option<Instant> {
        let announcement = self.announcements.values().map(|announcement| announcement.again).min();
        let others = [self.neighbours.deadline(), self.fragments.deadline(), self.report_again];
        others.into_iter().chain([announcement]).flatten().min()
    }

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.neighbours.expire(now);
        self.expire_fragments(now);
        self.act(now);
        self.announce_due(now);
        if self.report_again.is_some_and(|at| at <= now) {
            self.report_again = None;
            self.report_groups();
        }
    }

    /// Starts to answer for an address, announces it (unsolicited NA, override) if `announce`, and defends it
    /// against duplicate address detection of others.
    pub fn add_address(&mut self, address: Address, announce: bool, now: Instant) {
        self.addresses.retain(|known| known.address != address.address);
        self.ceded.retain(|known| *known != address.address);
        self.addresses.push(address);
        self.report_groups();
        self.report_again = Some(now + groups::REPORT_AGAIN);
        if announce {
            self.announce(address.address, now);
        }
    }

    /// Leaves an address to somebody else on the link: neither announces nor defends it any more, nor answers who asks for it,
    /// but goes on taking what comes for it.
    pub fn cede_address(&mut self, address: Ipv6Addr) {
        self.announcements.remove(&address);
        if self.has_address(address) && !self.ceded.contains(&address) {
            self.ceded.push(address);
        }
    }

    /// Stops to answer for an address, and to announce it.
    pub fn remove_address(&mut self, address: Ipv6Addr) {
        self.announcements.remove(&address);
        let before = self.addresses.len();
        self.addresses.retain(|known| known.address != address);
        self.ceded.retain(|known| *known != address);
        if self.addresses.len() < before {
            self.leave_group_of(address);
        }
    }

    /// Whether packets for others are given to the caller, as a router wants it. Off at first.
    pub fn set_forwarding(&mut self, on: bool) {
        self.forwarding = on;
    }

    /// Whether the caller deals with what RFC 6275 adds: [`Datagram::home_address`], [`Datagram::routed_home`] and
    /// the Mobility Header. Off at first: such packets are refused as RFC 8200 tells a node that does not
    /// know them.
    pub fn set_mobility(&mut self, on: bool) {
        self.mobility = on;
    }

    /// Sends an ICMPv6 error about a datagram that [`Interface::receive`] returned, unless silence is due
    /// (RFC 4443 section 2.4 (e) and (f)).
    pub fn icmp_error(&mut self, about: &Datagram, error: icmp::Error, now: Instant) {
        self.complain(&about.packet, error, false, now);
    }

    /// The upper layer made progress with a destination, so that its next hop is known to work
    /// (RFC 4861 section 7.3.1).
    pub fn confirm_reachable(&mut self, destination: Ipv6Addr, now: Instant) {
        if let Some(hop) = self.next_hop(destination) {
            self.neighbours.confirm(hop, now);
        }
    }

    /// What was counted since the interface was made.
    pub fn counters(&self) -> Counters {
        Counters { overflowed: self.counters.overflowed + self.neighbours.overflowed, ..self.counters }
    }

    /// The link-layer address.
    pub fn mac(&self) -> EthernetAddress {
        self.mac
    }

    /// The largest IPv6 packet that the link carries.
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// The addresses that are answered for, the link-local one among them.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Whether this is one of our unicast addresses.
    pub fn has_address(&self, address: Ipv6Addr) -> bool {
        self.addresses.iter().any(|known| known.address == address)
    }

    /// A packet for us.
    fn take(&mut self, bytes: Bytes, offload: Offload, now: Instant) -> Option<Datagram> {
        match Shape::of(&bytes, offload, For::Us { mobility: self.mobility }) {
            Ok(shape) => self.dispatch(shape.datagram(bytes, offload), now),
            Err(Problem::Fragment) => self.take_fragment(&bytes, offload, now),
            Err(problem) => self.refuse(&bytes, problem, now),
        }
    }

    /// A packet for somebody else.
    fn pass(&mut self, bytes: Bytes, offload: Offload, now: Instant) -> Option<Datagram> {
        let datagram = match Shape::of(&bytes, offload, For::Others) {
            Ok(shape) => shape.datagram(bytes, offload),
            Err(problem) => return self.refuse(&bytes, problem, now),
        };
        let Datagram { source, destination, .. } = datagram;
        // RFC 4291 sections 2.5.2 and 2.5.6; routing of multicast is not ours.
        let stays = |address: Ipv6Addr| address.is_unicast_link_local() || address.is_multicast();
        if stays(source) || stays(destination) || source.is_unspecified() {
            return drop_as(&mut self.counters.not_ours);
        }
        Some(datagram)
    }

    /// Deals with what the interface deals with itself; gives back the rest.
    fn dispatch(&mut self, datagram: Datagram, now: Instant) -> Option<Datagram> {
        match datagram.upper {
            ip::ICMPV6 => self.icmp(datagram, now),
            ip::MOBILITY if !self.mobility => {
                self.icmp_error(&datagram, icmp::Error::unknown_upper(&datagram), now);
                None
            }
            ip::TCP | ip::IPV6 | ip::MOBILITY => {
                let one_to_one = !datagram.destination.is_multicast() && !datagram.source.is_unspecified();
                one_to_one.then_some(datagram)
            }
            ip::NO_NEXT_HEADER => None,
            ip::UDP => {
                let error = icmp::Error::Unreachable { code: icmp::PORT_UNREACHABLE };
                self.icmp_error(&datagram, error, now);
                None
            }
            _ => {
                self.icmp_error(&datagram, icmp::Error::unknown_upper(&datagram), now);
                None
            }
        }
    }

    fn icmp(&mut self, datagram: Datagram, now: Instant) -> Option<Datagram> {
        if !checksum::verify(&datagram) {
            return drop_as(&mut self.counters.bad_checksum);
        }
        let Some(kind) = datagram.upper_bytes().first() else { return drop_as(&mut self.counters.malformed) };
        match kind {
            // RFC 4443 section 2.4 (a): errors go up, unknown ones too.
            0..=127 | 129 => (!datagram.destination.is_multicast()).then_some(datagram),
            128 => {
                self.echo(&datagram, now);
                None
            }
            130 => {
                self.queried(&datagram, now);
                None
            }
            135 | 136 => {
                self.discover(&datagram, now);
                None
            }
            // Router discovery is not used here; (b): unknown informational messages are dropped without a word.
            _ => None,
        }
    }

    fn echo(&mut self, request: &Datagram, now: Instant) {
        let many = request.destination.is_multicast();
        if request.source.is_unspecified() || (many && !self.errors.take(now)) {
            return;
        }
        let from = if many { self.source_for(request.source) } else { request.destination };
        match icmp::echo_reply(request, from) {
            Some(reply) => self.send(reply, now),
            None => self.counters.malformed += 1,
        }
    }

    /// Counts a packet with a problem, and tells its sender if that is due.
    fn refuse(&mut self, packet: &Bytes, problem: Problem, now: Instant) -> Option<Datagram> {
        self.counters.malformed += 1;
        if let Some(error) = problem.reply() {
            self.complain(packet, error, problem.replies_to_multicast(), now);
        }
        None
    }

    fn complain(&mut self, packet: &Bytes, error: icmp::Error, multicast: bool, now: Instant) {
        let Some(to) = icmp::is_due(packet, error, multicast) else { return };
        if !self.errors.take(now) {
            self.counters.errors_suppressed += 1;
            return;
        }
        let from = ip::address(packet, 24).filter(|address| self.has_address(*address));
        let from = from.unwrap_or_else(|| self.source_for(to));
        self.counters.errors_sent += 1;
        self.send(icmp::error(packet, error, from, to), now);
    }

    /// Does what the neighbour cache wants done.
    fn act(&mut self, now: Instant) {
        while let Some(action) = self.neighbours.actions.pop_front() {
            match action {
                Action::Solicit { target, to } => self.solicit(target, to),
                Action::Send { to, packet } => self.put(to, packet),
                Action::Unreachable { packet } => self.unreachable(&packet, now),
            }
        }
    }

    /// RFC 4861 section 7.2.2: the sender is told. Our own TCP finds out by itself.
    fn unreachable(&mut self, packet: &Packet, now: Instant) {
        self.counters.unresolved += 1;
        if self.forwarding && packet.source().is_some_and(|source| !self.has_address(source)) {
            let error = icmp::Error::Unreachable { code: icmp::ADDRESS_UNREACHABLE };
            self.complain(&packet.to_bytes(), error, false, now);
        }
    }

    /// RFC 4861 section 5.2.
    fn next_hop(&self, destination: Ipv6Addr) -> Option<Ipv6Addr> {
        let on_link = || self.addresses.iter().any(|address| address.has_on_link(destination));
        if destination.is_unicast_link_local() || on_link() { Some(destination) } else { self.gateway }
    }

    /// The address to send from to `destination` when nothing else decides: one on the same link, or else of the
    /// same scope (RFC 6724 section 5, rules 2 and 8).
    fn source_for(&self, destination: Ipv6Addr) -> Ipv6Addr {
        let local = destination.is_unicast_link_local() || destination.is_multicast();
        let near = self.addresses.iter().find(|address| address.has_on_link(destination));
        let like = || self.addresses.iter().find(|known| known.address.is_unicast_link_local() == local);
        near.or_else(like).or(self.addresses.first()).map_or(Ipv6Addr::UNSPECIFIED, |known| known.address)
    }

    /// Queues a packet behind an Ethernet header.
    fn put(&mut self, to: EthernetAddress, packet: Packet) {
        if self.queue.len() >= QUEUE_FRAMES {
            self.counters.overflowed += 1;
            return;
        }
        let Packet { head: ip, body, offload } = packet;
        let mut head = Vec::with_capacity(ETHERNET_HEADER_LEN + ip.len());
        head.extend_from_slice(to.as_bytes());
        head.extend_from_slice(self.mac.as_bytes());
        head.extend_from_slice(&u16::from(EthernetProtocol::Ipv6).to_be_bytes());
        head.extend_from_slice(&ip);
        self.counters.sent += 1;
        self.queue.push_back(Frame { head: head.into(), body, offload: offload.shifted(ETHERNET) });
    }
}

/// The link-local address that every interface has (RFC 4291 sections 2.5.6 and 2.8).
fn link_local(mac: EthernetAddress) -> Option<Address> {
    let identifier = u64::from_be_bytes(mac.as_eui_64()?);
    let address = Ipv6Addr::from_bits(0xfe80 << 112 | u128::from(identifier));
    Some(Address { address, prefix_len: 64 })
}

fn drop_as(counter: &mut u64) -> Option<Datagram> {
    *counter += 1;
    None
}
