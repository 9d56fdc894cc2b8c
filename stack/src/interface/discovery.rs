//! Neighbour discovery on the wire (RFC 4861): solicitations, advertisements, announcements.

use alloc::vec::Vec;
use core::net::Ipv6Addr;
use core::time::Duration;

use smoltcp::phy::Medium;
use smoltcp::wire::{
    EthernetAddress, HardwareAddress, Icmpv6Packet, NdiscNeighborFlags, NdiscRepr, RawHardwareAddress,
};

use super::Interface;
use super::groups::{self, ALL_NODES};
use crate::frame::Offload;
use crate::ip::{self, Datagram, Header, Kind, Packet};
use crate::neighbour::Advert;
use crate::time::Instant;

/// RFC 4861 section 10: `MAX_NEIGHBOR_ADVERTISEMENT`.
const ANNOUNCEMENTS: u8 = 3;
/// RFC 4861 section 10: `RETRANS_TIMER`.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(1);
/// Proof that a packet was not forwarded (RFC 4861 section 7.1).
const HOP_LIMIT: u8 = 255;

/// An address that is being announced.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announcement {
    left: u8,
    pub(super) again: Instant,
}

/// A solicitation for one of our addresses, or an advertisement, that passed all checks.
enum Message {
    Solicit { target: Ipv6Addr, mac: Option<EthernetAddress> },
    Advert(Advert),
}

impl Interface {
    /// Asks for the gateway's link-layer address, so that whatever is to be sent first need not wait for it.
    pub fn look_for_gateway(&mut self, now: Instant) {
        self.neighbours.look_for_kept(now);
        self.act(now);
    }

    /// Whether the gateway has told its link-layer address: before that, what is to leave the link waits.
    pub fn has_found_gateway(&self) -> bool {
        self.neighbours.has_found_kept()
    }

    /// Deals with a solicitation or an advertisement whose checksum is right.
    pub(super) fn discover(&mut self, datagram: &Datagram, now: Instant) {
        match check(datagram) {
            None => self.counters.malformed += 1,
            Some(Message::Solicit { target, mac }) if self.answers_for(target) => {
                self.solicited(datagram, target, mac, now);
            }
            Some(Message::Solicit { .. }) => {}
            Some(Message::Advert(advert)) if self.answers_for(advert.target) => {
                self.contested(advert.target, now);
            }
            Some(Message::Advert(advert)) => {
                self.neighbours.advertised(advert, now);
                self.act(now);
            }
        }
    }

    /// Somebody asks for one of our addresses (RFC 4861 section 7.2.4).
    fn solicited(
        &mut self,
        datagram: &Datagram,
        target: Ipv6Addr,
        mac: Option<EthernetAddress>,
        now: Instant,
    ) {
        if datagram.source.is_unspecified() {
            // Duplicate address detection (RFC 4862 section 5.4.3): it is taken.
            self.counters.conflicts += 1;
            return self.advertise(target, ALL_NODES, NdiscNeighborFlags::OVERRIDE, now);
        }
        if self.has_address(datagram.source) {
            self.counters.conflicts += 1;
            return;
        }
        if let Some(mac) = mac {
            self.neighbours.heard(datagram.source, mac, now);
            self.act(now);
        }
        let flags = NdiscNeighborFlags::SOLICITED | NdiscNeighborFlags::OVERRIDE;
        self.advertise(target, datagram.source, flags, now);
    }

    /// Somebody else says that one of our addresses is his. It is not.
    fn contested(&mut self, target: Ipv6Addr, now: Instant) {
        self.counters.conflicts += 1;
        // Two that both defend an address must not answer each other for ever.
        if self.defences.take(now) {
            self.advertise(target, ALL_NODES, NdiscNeighborFlags::OVERRIDE, now);
        }
    }

    /// Tells everybody on the link who has an address now (RFC 4861 section 7.2.6).
    pub(super) fn announce(&mut self, address: Ipv6Addr, now: Instant) {
        self.announcements.insert(address, Announcement { left: ANNOUNCEMENTS, again: now });
        self.announce_due(now);
    }

    /// Sends the announcements that are due.
    pub(super) fn announce_due(&mut self, now: Instant) {
        let mut due = Vec::new();
        self.announcements.retain(|address, announcement| {
            if announcement.again <= now {
                due.push(*address);
                *announcement = Announcement { left: announcement.left - 1, again: now + ANNOUNCE_EVERY };
            }
            announcement.left > 0
        });
        for address in due {
            self.advertise(address, ALL_NODES, NdiscNeighborFlags::OVERRIDE, now);
        }
    }

    /// Asks all that may have the target's address, or the one that had it (RFC 4861 sections 7.2.2 and 7.3.3).
    pub(super) fn solicit(&mut self, target: Ipv6Addr, to: Option<EthernetAddress>) {
        let destination = if to.is_some() { target } else { groups::solicited_node(target) };
        let message = NdiscRepr::NeighborSolicit { target_addr: target, lladdr: Some(self.mac.into()) };
        let packet = emit(&message, self.source_for(target), destination);
        self.put(to.unwrap_or_else(|| groups::mac_of(destination)), packet);
    }

    fn advertise(&mut self, target: Ipv6Addr, to: Ipv6Addr, mut flags: NdiscNeighborFlags, now: Instant) {
        flags.set(NdiscNeighborFlags::ROUTER, self.forwarding);
        let lladdr = Some(self.mac.into());
        let message = NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr };
        self.send(emit(&message, target, to), now);
    }
}

/// RFC 4861 sections 7.1.1 and 7.1.2. Code, length and options are checked by the codec; the checksum was before.
fn check(datagram: &Datagram) -> Option<Message> {
    // RFC 6980 section 5: never in fragments, not even atomic ones.
    let fragmented = datagram.extensions().any(|extension| extension.kind == Kind::Fragment);
    let packet = Icmpv6Packet::new_checked(datagram.upper_bytes()).ok()?;
    if fragmented || datagram.hop_limit != HOP_LIMIT || packet.msg_code() != 0 {
        return None;
    }
    match NdiscRepr::parse(&packet).ok()? {
        NdiscRepr::NeighborSolicit { target_addr: target, lladdr } if !target.is_multicast() => {
            let nameless = datagram.source.is_unspecified();
            let to_group = groups::is_solicited_node(datagram.destination);
            (!nameless || (to_group && lladdr.is_none()))
                .then(|| Message::Solicit { target, mac: lladdr.and_then(ethernet) })
        }
        NdiscRepr::NeighborAdvert { flags, target_addr: target, lladdr } if !target.is_multicast() => {
            let solicited = flags.contains(NdiscNeighborFlags::SOLICITED);
            let overriding = flags.contains(NdiscNeighborFlags::OVERRIDE);
            let mac = lladdr.and_then(ethernet);
            (!solicited || !datagram.destination.is_multicast()).then_some(Message::Advert(Advert {
                target,
                mac,
                solicited,
                overriding,
            }))
        }
        _ => None,
    }
}

/// The link-layer address of one station; nobody's frames go to a group because of what he says.
fn ethernet(raw: RawHardwareAddress) -> Option<EthernetAddress> {
    let HardwareAddress::Ethernet(mac) = raw.parse(Medium::Ethernet).ok()?;
    mac.is_unicast().then_some(mac)
}

fn emit(message: &NdiscRepr<'_>, source: Ipv6Addr, destination: Ipv6Addr) -> Packet {
    let len = message.buffer_len();
    let header =
        Header { source, destination, next_header: ip::ICMPV6, hop_limit: HOP_LIMIT, ..Header::default() };
    let mut head = header.emit(len);
    head.resize(ip::HEADER_LEN + len, 0);
    let mut packet = Icmpv6Packet::new_unchecked(&mut head[ip::HEADER_LEN..]);
    message.emit(&mut packet);
    packet.fill_checksum(&source, &destination);
    Packet { head, body: bytes::Bytes::new(), offload: Offload::default() }
}
