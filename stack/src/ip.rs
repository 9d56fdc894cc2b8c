//! IPv6 packets and their extension headers (RFC 8200).

mod chain;
mod fragments;
mod parse;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;
use core::net::Ipv6Addr;

use bytes::Bytes;
use smoltcp::wire::{Ipv6Packet, Ipv6Repr};

pub use self::chain::{Extension, Extensions, Kind, find_upper};
pub(crate) use self::chain::{is_later_fragment, upper_header_len};
pub(crate) use self::fragments::{Fragments, Outcome};
pub(crate) use self::parse::{For, Shape};
pub use self::parse::{Problem, parse, parse_transit};
use crate::frame::Offload;

/// Octets of the IPv6 header.
pub const HEADER_LEN: usize = 40;
/// Every link carries packets of this size (RFC 8200 section 5).
pub const MIN_MTU: u16 = 1280;
/// Hops that our own packets may make.
pub const HOP_LIMIT: u8 = 64;

/// Protocol number of TCP.
pub const TCP: u8 = 6;
/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of IPv6 in IPv6 (RFC 2473).
pub const IPV6: u8 = 41;
/// Protocol number of ICMPv6.
pub const ICMPV6: u8 = 58;
/// Nothing follows (RFC 8200 section 4.7).
pub const NO_NEXT_HEADER: u8 = 59;
/// Protocol number of the Mobility Header (RFC 6275 section 6.1).
pub const MOBILITY: u8 = 135;

/// A whole IPv6 packet that is on its way out, in two parts so that the payload is not copied.
#[derive(Clone, derive_more::Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// The IPv6 header, extension headers and the upper layer's header.
    #[debug("{} octets", head.len())]
    pub head: Vec<u8>,
    /// The payload.
    #[debug("{} octets", body.len())]
    pub body: Bytes,
    /// Checksum and segmentation still to be done below. Offsets count from the IPv6 header.
    pub offload: Offload,
}

impl Packet {
    /// Where it says it comes from; `None` if the head is too short for an IPv6 header.
    pub fn source(&self) -> Option<Ipv6Addr> {
        address(&self.head, 8)
    }

    /// Where it is going; `None` if the head is too short for an IPv6 header.
    pub fn destination(&self) -> Option<Ipv6Addr> {
        address(&self.head, 24)
    }

    /// Octets in all.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Whether there are no octets at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes `head` at least `octets` long, as far as there is a body to take from.
    pub fn pull(&mut self, octets: usize) {
        let missing = octets.saturating_sub(self.head.len()).min(self.body.len());
        self.head.extend_from_slice(&self.body.split_to(missing));
    }

    /// The whole packet in one piece.
    pub fn to_bytes(&self) -> Bytes {
        [&self.head[..], &self.body[..]].concat().into()
    }
}

/// A well-formed IPv6 packet that arrived: the extension-header chain has been walked, and lengths were right.
#[derive(Clone, derive_more::Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Where it says it comes from.
    pub source: Ipv6Addr,
    /// Where it is going.
    pub destination: Ipv6Addr,
    /// Hops it may still make.
    pub hop_limit: u8,
    /// Differentiated services and ECN (the low two bits).
    pub traffic_class: u8,
    /// 20 bits.
    pub flow_label: u32,
    /// What follows the last extension header (an IP protocol number: 6 TCP, 41 IPv6, 58 ICMPv6, 135 Mobility).
    pub upper: u8,
    /// Where the upper layer starts: octets from the start of `packet`.
    pub upper_at: usize,
    /// The packet from its IPv6 header on, cut to its payload length.
    #[debug("{} octets", packet.len())]
    pub packet: Bytes,
    /// What the driver knows of it. Offsets count from the IPv6 header.
    pub offload: Offload,
}

impl Datagram {
    /// The upper layer's header and payload.
    pub fn upper_bytes(&self) -> &[u8] {
        self.packet.get(self.upper_at..).unwrap_or_default()
    }

    /// The extension headers in their order. Costs nothing for a packet that has none.
    pub fn extensions(&self) -> Extensions<'_> {
        Extensions::new(&self.packet, self.upper_at)
    }

    /// Where the Next Header field lies that names the upper layer: octets from the start of `packet`.
    pub fn upper_named_at(&self) -> usize {
        self.extensions().last().map_or(chain::NEXT_HEADER_AT, |last| last.at)
    }

    /// The home address in the Home Address destination option (RFC 6275 section 6.3), if there is one.
    pub fn home_address(&self) -> Option<Ipv6Addr> {
        self.extensions().filter(|extension| extension.kind == Kind::Destination).find_map(|extension| {
            let option = chain::find_option(self.packet.get(extension.range())?, chain::HOME_ADDRESS)?;
            address(option, 0)
        })
    }

    /// The home address in a type 2 routing header (RFC 6275 section 6.4) that still has a segment left.
    pub fn routed_home(&self) -> Option<Ipv6Addr> {
        self.extensions().filter(|extension| extension.kind == Kind::Routing).find_map(|extension| {
            let header = self.packet.get(extension.range())?;
            (header.get(2..4)? == [chain::ROUTING_TYPE_2, 1]).then(|| address(header, 8)).flatten()
        })
    }

    /// The packet as it came, to be sent on as it is.
    pub fn into_packet(self) -> Packet {
        let header = upper_header_len(self.upper, self.upper_bytes()).unwrap_or(0);
        let cut = (self.upper_at + header).min(self.packet.len());
        Packet { head: self.packet[..cut].to_vec(), body: self.packet.slice(cut..), offload: self.offload }
    }

    /// The packet one hop further on; `None` if its hop limit is used up (RFC 8200 section 3).
    pub fn hop(self) -> Option<Packet> {
        let left = self.hop_limit.checked_sub(1).filter(|left| *left > 0)?;
        let mut packet = self.into_packet();
        set_hop_limit(&mut packet.head, left);
        Some(packet)
    }
}

/// The fields of an IPv6 header that the sender chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Where the packet says it comes from.
    pub source: Ipv6Addr,
    /// Where it is going.
    pub destination: Ipv6Addr,
    /// What follows the header.
    pub next_header: u8,
    /// Hops it may make.
    pub hop_limit: u8,
    /// Differentiated services and ECN (the low two bits).
    pub traffic_class: u8,
    /// 20 bits.
    pub flow_label: u32,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            source: Ipv6Addr::UNSPECIFIED,
            destination: Ipv6Addr::UNSPECIFIED,
            next_header: NO_NEXT_HEADER,
            hop_limit: HOP_LIMIT,
            traffic_class: 0,
            flow_label: 0,
        }
    }
}

impl Header {
    /// The header with which a packet begins; `None` if it is too short, or of another version.
    pub fn read(packet: &[u8]) -> Option<Self> {
        let header = Ipv6Packet::new_unchecked(packet.get(..HEADER_LEN)?);
        (header.version() == 6).then(|| Self {
            source: header.src_addr(),
            destination: header.dst_addr(),
            next_header: header.next_header().into(),
            hop_limit: header.hop_limit(),
            traffic_class: header.traffic_class(),
            flow_label: header.flow_label(),
        })
    }

    /// The header of a packet with `payload_len` octets after it, with room for a transport header behind.
    /// A length that the field cannot hold becomes the greatest it can.
    pub fn emit(&self, payload_len: usize) -> Vec<u8> {
        let mut head = Vec::with_capacity(HEADER_LEN + 60);
        head.resize(HEADER_LEN, 0);
        let mut packet = Ipv6Packet::new_unchecked(&mut head[..]);
        let repr = Ipv6Repr {
            src_addr: self.source,
            dst_addr: self.destination,
            next_header: self.next_header.into(),
            payload_len: payload_len.min(usize::from(u16::MAX)),
            hop_limit: self.hop_limit,
        };
        repr.emit(&mut packet);
        packet.set_traffic_class(self.traffic_class);
        packet.set_flow_label(self.flow_label & 0xf_ffff);
        head
    }
}

/// Changes the hop limit of the packet that begins with `head`. Does nothing if that is too short.
pub fn set_hop_limit(head: &mut [u8], hop_limit: u8) {
    if let Some(header) = head.get_mut(..HEADER_LEN) {
        Ipv6Packet::new_unchecked(header).set_hop_limit(hop_limit);
    }
}

/// The address that lies at `at`.
pub(crate) fn address(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    let octets: [u8; 16] = bytes.get(at..at + 16)?.try_into().ok()?;
    Some(octets.into())
}
