//! Route optimisation (RFC 6275 sections 6.3, 6.4, 9.3 and 11.3): the headers that carry home addresses between
//! care-of addresses. The upper layers, and their checksums, see home addresses only.

#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::net::Ipv6Addr;

use ferry_stack::ip::{self, Datagram, HEADER_LEN, Header, Packet};
use ferry_stack::{Checksum, Offload};

use crate::correspondent::Outgoing;

/// Octets that a Home Address option adds to a packet: a Destination Options header with nothing else in it.
pub const HOME_ADDRESS_OVERHEAD: u16 = 24;
/// Octets that a type 2 routing header adds to a packet.
pub const ROUTING_OVERHEAD: u16 = 24;

const LEN: usize = 24;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;
/// Where the Next Header field of the IPv6 header lies.
const NEXT_HEADER_AT: usize = 6;

/// Sends a packet from `care_of` whose source is the home address: that goes into a Home Address option
/// (section 6.3). `false` if the packet is none, or too long.
pub fn put_home_address(packet: &mut Packet, care_of: Ipv6Addr) -> bool {
    let Some(home) = packet.source() else { return false };
    // Alignment 8n+6: behind the header's own two octets a PadN of four.
    let option = [DESTINATION_OPTIONS, 2, ip_option::PAD_N, 2, 0, 0, ip_option::HOME_ADDRESS, 16];
    // It follows a routing header, if there is one (section 6.3).
    insert(packet, option, home, true) && replace(packet, SOURCE_AT, care_of)
}

/// Sends a packet to `care_of` whose destination is the home address: that goes into a type 2 routing header
/// (section 6.4). `false` if the packet is none, or too long.
pub fn put_routing(packet: &mut Packet, care_of: Ipv6Addr) -> bool {
    let Some(home) = packet.destination() else { return false };
    insert(packet, [ROUTING, 2, 2, 1, 0, 0, 0, 0], home, false) && replace(packet, DESTINATION_AT, care_of)
}

/// A packet that came with a type 2 routing header to `home`, or with a Home Address option, as the upper layers are
/// to see it. Whether the sender may claim what it claims is for the caller to check first.
pub fn at_home(mut datagram: Datagram) -> Datagram {
    datagram.source = datagram.home_address().unwrap_or(datagram.source);
    datagram.destination = datagram.routed_home().unwrap_or(datagram.destination);
    datagram
}

/// The same datagram without what Mobile IPv6 added to it, so that it can be sent on.
pub fn stripped(datagram: Datagram) -> Datagram {
    if datagram.home_address().or_else(|| datagram.routed_home()).is_none() {
        return datagram;
    }
    let at_home = at_home(datagram.clone());
    let Datagram { source, destination, hop_limit, traffic_class, flow_label, upper, .. } = at_home;
    let header = Header { source, destination, next_header: upper, hop_limit, traffic_class, flow_label };
    let mut octets = header.emit(at_home.upper_bytes().len());
    octets.extend_from_slice(at_home.upper_bytes());
    let removed = at_home.upper_at - HEADER_LEN;
    let checksum = match at_home.offload.checksum {
        Checksum::Partial { start, offset } => {
            Checksum::Partial { start: start.saturating_sub(u16::try_from(removed).unwrap_or(0)), offset }
        }
        whole => whole,
    };
    // What was well-formed with the headers is so without them.
    ip::parse(octets.into(), Offload { checksum, ..at_home.offload }).unwrap_or(datagram)
}

/// The beginning of a packet that [`put_routing`] has sent to a care-of address, as it was before; `None` if it has no
/// type 2 routing header in front. For ICMPv6 errors, which quote packets cut short.
pub fn unrouted(quote: &[u8]) -> Option<Vec<u8>> {
    let (fixed, rest) = quote.split_at_checked(HEADER_LEN)?;
    let (header, rest) = rest.split_at_checked(LEN)?;
    let [next, 2, 2, ..] = *header else { return None };
    if fixed[NEXT_HEADER_AT] != ROUTING {
        return None;
    }
    let payload_len = u16::from_be_bytes([fixed[4], fixed[5]]).checked_sub(ROUTING_OVERHEAD)?;
    let mut octets = fixed.to_vec();
    octets[4..6].copy_from_slice(&payload_len.to_be_bytes());
    octets[NEXT_HEADER_AT] = next;
    octets[DESTINATION_AT..].copy_from_slice(&header[8..]);
    octets.extend_from_slice(rest);
    Some(octets)
}

impl Outgoing {
    /// The packet that carries the message.
    pub fn packet(&self) -> Packet {
        let source = self.home_address.unwrap_or(self.source);
        let destination = self.routed_home.unwrap_or(self.destination);
        let message = self.message.emit(source, destination);
        let header = Header { source, destination, next_header: ip::MOBILITY, ..Header::default() };
        let mut head = header.emit(message.len());
        head.extend(message);
        let mut packet = Packet { head, ..Packet::default() };
        if self.routed_home.is_some() {
            put_routing(&mut packet, self.destination);
        }
        if self.home_address.is_some() {
            put_home_address(&mut packet, self.source);
        }
        packet
    }
}

mod ip_option {
    pub(super) const PAD_N: u8 = 1;
    pub(super) const HOME_ADDRESS: u8 = 0xc9;
}

const SOURCE_AT: usize = 8;
const DESTINATION_AT: usize = 24;

fn replace(packet: &mut Packet, at: usize, address: Ipv6Addr) -> bool {
    packet.head[at..at + 16].copy_from_slice(&address.octets());
    true
}

/// Puts an extension header of 24 octets behind the IPv6 header, or behind a routing header that follows it. The
/// first octet of `start` is its own type, in whose place the type of what follows is written.
fn insert(packet: &mut Packet, start: [u8; 8], address: Ipv6Addr, after_routing: bool) -> bool {
    packet.pull(HEADER_LEN + LEN);
    let longer = packet.len() + LEN - HEADER_LEN;
    let Some(payload_len) = u16::try_from(longer).ok().filter(|_| packet.head.len() >= HEADER_LEN) else {
        return false;
    };
    let routed =
        after_routing && packet.head[NEXT_HEADER_AT] == ROUTING && packet.head.len() >= HEADER_LEN + LEN;
    let (named_at, at) = if routed { (HEADER_LEN, HEADER_LEN + LEN) } else { (NEXT_HEADER_AT, HEADER_LEN) };
    let [kind, rest @ ..] = start;
    let next = core::mem::replace(&mut packet.head[named_at], kind);
    let header = core::iter::once(next).chain(rest).chain(address.octets());
    packet.head.splice(at..at, header);
    packet.head[4..6].copy_from_slice(&payload_len.to_be_bytes());
    packet.offload = shifted(packet.offload);
    true
}

/// What is left to be done below, with everything behind the new header.
fn shifted(offload: Offload) -> Offload {
    let by = u16::try_from(LEN).unwrap_or(0);
    match offload.checksum {
        Checksum::Partial { start, offset } => {
            Offload { checksum: Checksum::Partial { start: start + by, offset }, ..offload }
        }
        _ => offload,
    }
}
