//! Judging a packet that arrived: from octets to a [`Datagram`], or the [`Problem`] it has.

use core::net::Ipv6Addr;

use bytes::Bytes;
use smoltcp::wire::Ipv6Packet;
use thiserror::Error;

use super::chain::{self, Extension, Extensions, Kind};
use super::{Datagram, HEADER_LEN, upper_header_len};
use crate::frame::{Checksum, Offload};
use crate::icmp;

/// Bounds the work that one packet can make (RFC 8504 section 5.3).
const MAX_HEADERS: usize = 8;
/// Options in one header, padding not counted (RFC 8504 section 5.3).
const MAX_OPTIONS: usize = 8;
/// Octets of padding in a row (RFC 8504 section 5.3): nothing needs more to be aligned.
const MAX_PADDING: usize = 7;

/// Why a packet was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Problem {
    /// Another protocol.
    #[error("version {0} instead of 6")]
    Version(u8),
    /// It breaks off.
    #[error("shorter than its headers say")]
    Truncated,
    /// An address that must not be on a wire.
    #[error("an address that no packet on a wire may have")]
    Address,
    /// The driver says that the checksum lies outside of the packet.
    #[error("the checksum's place lies outside of the packet")]
    Offload,
    /// A length inside of an extension header contradicts another.
    #[error("an extension header whose parts do not fit it")]
    Malformed,
    /// It has more extension headers, options or padding than anybody needs.
    #[error("too many extension headers, options or padding")]
    Excess,
    /// A fragment: to be put together with the others of its packet.
    #[error("a fragment")]
    Fragment,
    /// The first fragment does not hold the whole chain of headers (RFC 7112 section 5).
    #[error("the header chain reaches beyond the first fragment")]
    Chain,
    /// An unknown option whose type says to drop the packet without a word.
    #[error("an unknown option that asks for silence")]
    SilentOption,
    /// An unknown option whose type asks for an answer (RFC 8200 section 4.2).
    #[error("an unknown option at {pointer}")]
    Option {
        /// Where it lies.
        pointer: u32,
        /// Whether an answer is due even to a packet for a multicast address.
        multicast: bool,
    },
    /// An unknown routing header with segments left (RFC 8200 section 4.4).
    #[error("an unknown routing header at {pointer}")]
    Routing {
        /// Where its type lies.
        pointer: u32,
    },
    /// A Hop-by-Hop Options header that is not the first (RFC 8200 section 4.1).
    #[error("hop-by-hop options behind another header")]
    Order {
        /// Where the field lies that names it.
        pointer: u32,
    },
}

impl Problem {
    /// The ICMPv6 error that is due to the sender, if any.
    pub fn reply(self) -> Option<icmp::Error> {
        let (code, pointer) = match self {
            Self::Option { pointer, .. } => (icmp::UNKNOWN_OPTION, pointer),
            Self::Routing { pointer } => (icmp::ERRONEOUS_FIELD, pointer),
            Self::Order { pointer } => (icmp::UNKNOWN_NEXT_HEADER, pointer),
            Self::Chain => (icmp::INCOMPLETE_CHAIN, 0),
            _ => return None,
        };
        Some(icmp::Error::ParameterProblem { code, pointer })
    }

    /// Whether the reply is due even if the packet was sent to many (RFC 4443 section 2.4 (e.3)).
    pub fn replies_to_multicast(self) -> bool {
        matches!(self, Self::Option { multicast: true, .. })
    }
}

/// Takes a packet apart that is for us. `bytes` may be longer than the packet, as a padded frame is.
///
/// The Home Address option and the type 2 routing header (RFC 6275) pass as known; whoever handles the datagram
/// must look at [`Datagram::home_address`] and [`Datagram::routed_home`].
pub fn parse(bytes: Bytes, offload: Offload) -> Result<Datagram, Problem> {
    let shape = Shape::of(&bytes, offload, For::Us { mobility: true })?;
    Ok(shape.datagram(bytes, offload))
}

/// Takes a packet apart that is for somebody else: only the Hop-by-Hop Options are looked at (RFC 8200 section 4),
/// so that `upper` may name another extension header.
pub fn parse_transit(bytes: Bytes, offload: Offload) -> Result<Datagram, Problem> {
    let shape = Shape::of(&bytes, offload, For::Others)?;
    Ok(shape.datagram(bytes, offload))
}

/// Whom a packet is for, and so how far into it we look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// A router looks at the Hop-by-Hop Options only.
    Others,
    /// Everything is for us. Without `mobility`, what RFC 6275 adds is unknown.
    Us { mobility: bool },
}

/// What was found out about a packet by looking at it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    len: usize,
    upper: u8,
    upper_at: usize,
}

impl Shape {
    /// Judges a packet without taking it.
    pub(crate) fn of(bytes: &[u8], offload: Offload, whom: For) -> Result<Self, Problem> {
        let first = bytes.first().ok_or(Problem::Truncated)?;
        if first >> 4 != 6 {
            return Err(Problem::Version(first >> 4));
        }
        let header = Ipv6Packet::new_checked(bytes).map_err(|_| Problem::Truncated)?;
        check_addresses(header.src_addr(), header.dst_addr())?;
        let len = header.total_len();
        if let Checksum::Partial { start, offset } = offload.checksum
            && usize::from(start) + usize::from(offset) + 2 > len
        {
            return Err(Problem::Offload);
        }
        let packet = bytes.get(..len).ok_or(Problem::Truncated)?;
        let (upper, upper_at) = match (Kind::of(header.next_header().into()), whom) {
            (Some(_), For::Us { mobility }) => walk(packet, mobility)?,
            (Some(Kind::HopByHop), For::Others) => step_over_hop_by_hop(packet)?,
            _ => (header.next_header().into(), HEADER_LEN),
        };
        Ok(Self { len, upper, upper_at })
    }

    /// The packet that was judged, as a datagram.
    pub(crate) fn datagram(self, mut bytes: Bytes, offload: Offload) -> Datagram {
        bytes.truncate(self.len);
        let header = Ipv6Packet::new_unchecked(&bytes[..]);
        Datagram {
            source: header.src_addr(),
            destination: header.dst_addr(),
            hop_limit: header.hop_limit(),
            traffic_class: header.traffic_class(),
            flow_label: header.flow_label(),
            upper: self.upper,
            upper_at: self.upper_at,
            packet: bytes,
            offload,
        }
    }
}

/// RFC 4291 sections 2.5.2, 2.5.3 and 2.7.
fn check_addresses(source: Ipv6Addr, destination: Ipv6Addr) -> Result<(), Problem> {
    let homeless = destination.is_unspecified() || destination.is_loopback();
    if homeless || source.is_multicast() || source.is_loopback() { Err(Problem::Address) } else { Ok(()) }
}

fn step_over_hop_by_hop(packet: &[u8]) -> Result<(u8, usize), Problem> {
    let mut chain = Extensions::new(packet, packet.len());
    let first = chain.next().ok_or(Problem::Truncated)?;
    options(packet, first, None)?;
    Ok(chain.rest())
}

/// Walks the whole chain; gives the upper layer's protocol number and where it starts.
fn walk(packet: &[u8], mobility: bool) -> Result<(u8, usize), Problem> {
    let mut chain = Extensions::new(packet, packet.len());
    let mut named_at = chain::NEXT_HEADER_AT;
    let mut fragment = None;
    let mut homes = mobility.then_some(0);
    for count in 0.. {
        let before = chain.rest();
        let Some(extension) = chain.next() else { break };
        if count == MAX_HEADERS {
            return Err(Problem::Excess);
        }
        match extension.kind {
            Kind::HopByHop if before.1 > HEADER_LEN => {
                return Err(Problem::Order { pointer: pointer(named_at) });
            }
            Kind::HopByHop | Kind::Destination => options(packet, extension, homes.as_mut())?,
            Kind::Routing => routing(packet, extension, mobility)?,
            Kind::Fragment if fragment_of_many(packet, extension.at) => {
                if chain::fragment_offset(packet, extension.at) != Some(0) {
                    return Err(Problem::Fragment);
                }
                fragment = Some(());
            }
            // An atomic fragment is a whole packet (RFC 6946 section 4).
            Kind::Fragment => {}
        }
        named_at = extension.at;
    }
    let (upper, at) = chain.rest();
    let complete = Kind::of(upper).is_none();
    match fragment {
        Some(()) if !complete || !holds_upper_header(packet, upper, at) => Err(Problem::Chain),
        Some(()) => Err(Problem::Fragment),
        None if !complete => Err(Problem::Truncated),
        None => Ok((upper, at)),
    }
}

/// Whether the Fragment header at `at` stands before a part only of a packet.
fn fragment_of_many(packet: &[u8], at: usize) -> bool {
    // Offset and the M flag; the two bits between are reserved.
    packet.get(at + 2..at + 4).is_some_and(|field| field[0] != 0 || field[1] & 0b1111_1001 != 0)
}

fn holds_upper_header(packet: &[u8], upper: u8, at: usize) -> bool {
    let rest = packet.get(at..).unwrap_or_default();
    rest.len() >= upper_header_len(upper, rest).unwrap_or(0)
}

/// RFC 8200 section 4.4.
fn routing(packet: &[u8], extension: Extension, mobility: bool) -> Result<(), Problem> {
    let header = packet.get(extension.range()).ok_or(Problem::Truncated)?;
    match *header {
        [_, _, _, 0, ..] => Ok(()),
        // RFC 6275 section 11.3.3: anything but one home address is dropped without a word.
        [_, units, chain::ROUTING_TYPE_2, left, ..] if mobility => {
            if (units, left) == (2, 1) {
                Ok(())
            } else {
                Err(Problem::Malformed)
            }
        }
        _ => Err(Problem::Routing { pointer: pointer(extension.at + 2) }),
    }
}

/// Walks the options of a Hop-by-Hop or Destination Options header (RFC 8200 section 4.2). `homes` counts the Home
/// Address options of the packet; without it they are unknown.
fn options(packet: &[u8], extension: Extension, mut homes: Option<&mut u8>) -> Result<(), Problem> {
    let header = packet.get(extension.range()).ok_or(Problem::Truncated)?;
    let (mut at, mut count, mut padding) = (2, 0, 0);
    while let Some(kind) = header.get(at) {
        let len = match (kind, header.get(at + 1)) {
            (&chain::PAD_1, _) => 1,
            (_, Some(len)) => 2 + usize::from(*len),
            (_, None) => return Err(Problem::Malformed),
        };
        if at + len > header.len() {
            return Err(Problem::Malformed);
        }
        if matches!(*kind, chain::PAD_1 | chain::PAD_N) {
            padding += len;
        } else {
            (padding, count) = (0, count + 1);
            match &mut homes {
                // RFC 6275 section 6.3: 16 octets, at most once in a packet.
                Some(homes) if *kind == chain::HOME_ADDRESS && extension.kind == Kind::Destination => {
                    **homes += 1;
                    if len != 18 || **homes > 1 {
                        return Err(Problem::Malformed);
                    }
                }
                _ => unknown_option(*kind, extension.at + at)?,
            }
        }
        if padding > MAX_PADDING || count > MAX_OPTIONS {
            return Err(Problem::Excess);
        }
        at += len;
    }
    Ok(())
}

/// What the two high bits of its type say about an option that we do not know (RFC 8200 section 4.2).
fn unknown_option(kind: u8, at: usize) -> Result<(), Problem> {
    match kind >> 6 {
        0b00 => Ok(()),
        0b01 => Err(Problem::SilentOption),
        bits => Err(Problem::Option { pointer: pointer(at), multicast: bits == 0b10 }),
    }
}

/// A place in a packet as an ICMPv6 error names it. A packet is shorter than 2³² octets.
fn pointer(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
