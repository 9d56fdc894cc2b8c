//! IPv6 packets and their extension headers (RFC 8200).

use alloc::vec::Vec;
use core::net::Ipv6Addr;

use bytes::Bytes;

use crate::frame::Offload;

/// A whole IPv6 packet that is on its way out, in two parts so that the payload is not copied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// The IPv6 header, extension headers and the upper layer's header.
    pub head: Vec<u8>,
    /// The payload.
    pub body: Bytes,
    /// Checksum and segmentation still to be done below. Offsets count from the IPv6 header.
    pub offload: Offload,
}

/// A well-formed IPv6 packet that arrived: the extension-header chain has been walked, and lengths were right.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    pub packet: Bytes,
    /// What the driver knows of it. Offsets count from the IPv6 header.
    pub offload: Offload,
}
