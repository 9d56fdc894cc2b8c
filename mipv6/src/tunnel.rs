//! IPv6 in IPv6 (RFC 2473).

#[cfg(test)]
mod tests;

use core::net::Ipv6Addr;

use ferry_stack::ip::{self, Datagram, HEADER_LEN, Header, Packet};
use ferry_stack::{Checksum, Offload, checksum};
use thiserror::Error;

/// Octets that a tunnel adds to each packet.
pub const TUNNEL_OVERHEAD: u16 = 40;
const _: () = assert!(TUNNEL_OVERHEAD as usize == HEADER_LEN);

/// Tunnels that a packet may be in at the same time (RFC 2473 section 6.6 has it as the default limit). More is a
/// loop that adds a header at each turn.
const MAX_NESTED: usize = 4;

/// Why a packet cannot be put into a tunnel. Nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// Its hop limit is used up (RFC 2473 section 3.1).
    #[error("the hop limit is used up")]
    Expired,
    /// It is in too many tunnels already (RFC 2473 section 4.1).
    #[error("in {MAX_NESTED} tunnels already")]
    Nested,
    /// It stands for many segments, or is too long for the length field. Cut it first.
    #[error("a super-segment, or too long for the length field")]
    TooLong,
    /// It does not begin with an IPv6 header.
    #[error("not an IPv6 packet")]
    NotIpv6,
    /// The tunnel would end at an address that belongs to no node of the group.
    #[error("{0} is no node of the group")]
    Stranger(Ipv6Addr),
}

/// Why a packet cannot be taken out of a tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// It is in none.
    #[error("not a tunnel packet")]
    NotATunnel,
    /// What is inside is no packet that we could use.
    #[error("the packet in the tunnel: {0}")]
    Inner(#[from] ip::Problem),
    /// The tunnel was congested, and the packet inside has no way to say so: it counts as lost (RFC 6040 section 4.2).
    #[error("congestion in the tunnel that the packet cannot tell")]
    Congestion,
}

/// Puts a packet into a tunnel from `entry` to `exit` (RFC 2473 section 3).
///
/// The packet's hop limit goes down by one, a partial checksum is completed, and the outer header takes over its
/// traffic class, ECN included (RFC 6040 section 4.1), and its flow label.
pub fn encapsulate(mut inner: Packet, entry: Ipv6Addr, exit: Ipv6Addr) -> Result<Packet, Refused> {
    inner.pull(HEADER_LEN);
    let header = Header::read(&inner.head).ok_or(Refused::NotIpv6)?;
    let left = header.hop_limit.checked_sub(1).filter(|left| *left > 0).ok_or(Refused::Expired)?;
    if inner.offload.gso.is_some() || inner.len() > usize::from(u16::MAX) {
        return Err(Refused::TooLong);
    }
    if is_nested(&inner) {
        return Err(Refused::Nested);
    }
    checksum::complete(&mut inner);
    ip::set_hop_limit(&mut inner.head, left);
    let next_header = ip::IPV6;
    let header = Header { source: entry, destination: exit, next_header, hop_limit: ip::HOP_LIMIT, ..header };
    let mut head = header.emit(inner.len());
    head.extend_from_slice(&inner.head);
    Ok(Packet { head, body: inner.body, offload: Offload::default() })
}

/// Takes a packet out of the tunnel that it came in (RFC 2473 section 3.3). Whether the tunnel may be trusted is
/// for the caller to say; see [`Stage::inbound`](crate::Stage::inbound).
pub fn decapsulate(outer: &Datagram) -> Result<Datagram, Problem> {
    if outer.upper != ip::IPV6 {
        return Err(Problem::NotATunnel);
    }
    let inner = outer.packet.slice(outer.upper_at.min(outer.packet.len())..);
    let datagram = ip::parse(inner, offload_inside(outer))?;
    let ecn =
        leave_tunnel(datagram.traffic_class & ECN, outer.traffic_class & ECN).ok_or(Problem::Congestion)?;
    Ok(with_ecn(datagram, ecn))
}

/// The ECN bits of a traffic class (RFC 3168 section 5).
const ECN: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// The ECN bits of a packet that leaves a tunnel; `None` if it has to be dropped (RFC 6040 figure 4).
const fn leave_tunnel(inner: u8, outer: u8) -> Option<u8> {
    match (inner, outer) {
        (NOT_ECT, CE) => None,
        (ECT_0 | ECT_1, CE) => Some(CE),
        (ECT_0, ECT_1) => Some(ECT_1),
        _ => Some(inner),
    }
}

fn with_ecn(mut datagram: Datagram, ecn: u8) -> Datagram {
    if datagram.traffic_class & ECN != ecn {
        datagram.traffic_class = datagram.traffic_class & !ECN | ecn;
        let mut octets = datagram.packet.to_vec();
        if let Some(octet) = octets.get_mut(1) {
            *octet = *octet & 0b1100_1111 | ecn << 4;
        }
        datagram.packet = octets.into();
    }
    datagram
}

/// What the driver knows of the packet inside: it verified the outer one at most, but a partial checksum may well
/// be the inner one's.
fn offload_inside(outer: &Datagram) -> Offload {
    let checksum = match outer.offload.checksum {
        Checksum::Partial { start, offset } => u16::try_from(outer.upper_at)
            .ok()
            .and_then(|at| start.checked_sub(at))
            .map_or(Checksum::Complete, |start| Checksum::Partial { start, offset }),
        Checksum::Complete | Checksum::Verified => Checksum::Complete,
    };
    Offload { checksum, gso: None }
}

/// Whether the packet is in as many tunnels as it may be.
fn is_nested(packet: &Packet) -> bool {
    if !matches!(ip::find_upper(&packet.head), Some((ip::IPV6, _))) {
        return false;
    }
    let whole = packet.to_bytes();
    let mut rest = whole.as_ref();
    for _ in 0..MAX_NESTED {
        match ip::find_upper(rest) {
            Some((ip::IPV6, at)) => rest = rest.get(at..).unwrap_or_default(),
            _ => return false,
        }
    }
    true
}
