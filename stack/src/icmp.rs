//! ICMPv6 (RFC 4443): what is answered, which errors are sent, and what a received error says.

#[cfg(test)]
mod tests;

use core::net::Ipv6Addr;
use core::time::Duration;

use bytes::Bytes;
use smoltcp::wire::{Icmpv6Message, Icmpv6Packet};

use crate::checksum;
use crate::frame::Offload;
use crate::ip::{self, Datagram, HEADER_LEN, Header, MIN_MTU, Packet};
use crate::time::Instant;

/// Destination Unreachable: no route (RFC 4443 section 3.1).
pub const NO_ROUTE: u8 = 0;
/// Destination Unreachable: forbidden by policy.
pub const PROHIBITED: u8 = 1;
/// Destination Unreachable: the address did not answer on its link.
pub const ADDRESS_UNREACHABLE: u8 = 3;
/// Destination Unreachable: nobody listens on the port.
pub const PORT_UNREACHABLE: u8 = 4;
/// Time Exceeded: the hop limit was used up (RFC 4443 section 3.3).
pub const HOP_LIMIT_EXCEEDED: u8 = 0;
/// Time Exceeded: the fragments of a packet did not all come in time (RFC 8200 section 4.5).
pub const REASSEMBLY_EXCEEDED: u8 = 1;
/// Parameter Problem: a header field is wrong (RFC 4443 section 3.4).
pub const ERRONEOUS_FIELD: u8 = 0;
/// Parameter Problem: a Next Header value is unknown.
pub const UNKNOWN_NEXT_HEADER: u8 = 1;
/// Parameter Problem: an option is unknown.
pub const UNKNOWN_OPTION: u8 = 2;
/// Parameter Problem: the first fragment lacks headers (RFC 7112 section 5).
pub const INCOMPLETE_CHAIN: u8 = 3;

/// Octets of the ICMPv6 header of an error and of an echo.
const ICMP_HEADER_LEN: usize = 8;
/// What fits of the packet in question: an error is no longer than the minimum MTU (RFC 4443 section 2.4 (c)).
const QUOTE_LEN: usize = MIN_MTU as usize - HEADER_LEN - ICMP_HEADER_LEN;

/// What an ICMPv6 error message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// RFC 4443 section 3.1.
    Unreachable {
        /// Why.
        code: u8,
    },
    /// RFC 4443 section 3.2.
    PacketTooBig {
        /// The MTU of the link that could not carry it.
        mtu: u32,
    },
    /// RFC 4443 section 3.3.
    TimeExceeded {
        /// Why.
        code: u8,
    },
    /// RFC 4443 section 3.4.
    ParameterProblem {
        /// Why.
        code: u8,
        /// Where in the packet.
        pointer: u32,
    },
}

impl Error {
    /// The error that is due about a datagram whose upper layer nobody here knows.
    pub fn unknown_upper(about: &Datagram) -> Self {
        let pointer = u32::try_from(about.upper_named_at()).unwrap_or(u32::MAX);
        Self::ParameterProblem { code: UNKNOWN_NEXT_HEADER, pointer }
    }

    /// Type, code and the four octets after the checksum.
    fn fields(self) -> (Icmpv6Message, u8, u32) {
        match self {
            Self::Unreachable { code } => (Icmpv6Message::DstUnreachable, code, 0),
            Self::PacketTooBig { mtu } => (Icmpv6Message::PktTooBig, 0, mtu),
            Self::TimeExceeded { code } => (Icmpv6Message::TimeExceeded, code, 0),
            Self::ParameterProblem { code, pointer } => (Icmpv6Message::ParamProblem, code, pointer),
        }
    }
}

/// A received ICMPv6 error. Anybody can send one, so that whoever acts on it first checks that the quoted packet
/// is one that is in flight (RFC 5927 section 4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// What it says.
    pub error: Error,
    /// Who says so.
    pub from: Ipv6Addr,
    /// The packet that it is about.
    pub quote: Quote,
}

/// The beginning of a packet, as an ICMPv6 error quotes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quote {
    /// Where the packet came from.
    pub source: Ipv6Addr,
    /// Where it was going.
    pub destination: Ipv6Addr,
    /// Its upper layer's protocol number.
    pub upper: u8,
    /// The first octets of its upper layer's header, or none.
    pub upper_header: Bytes,
}

/// Takes apart the beginning of a packet; `None` if it does not reach to the upper layer.
pub fn quote(packet: &Bytes) -> Option<Quote> {
    if packet.first()? >> 4 != 6 {
        return None;
    }
    let (source, destination) = (ip::address(packet, 8)?, ip::address(packet, 24)?);
    let (upper, at) = ip::find_upper(packet)?;
    Some(Quote { source, destination, upper, upper_header: packet.slice(at..) })
}

/// What a received ICMPv6 error says; `None` if the datagram is none that we know. Its checksum must have been
/// verified, as [`Interface::receive`](crate::Interface::receive) does.
pub fn parse_error(datagram: &Datagram) -> Option<Received> {
    if datagram.upper != ip::ICMPV6 {
        return None;
    }
    let message = Icmpv6Packet::new_checked(datagram.upper_bytes()).ok()?;
    let code = message.msg_code();
    let error = match message.msg_type() {
        Icmpv6Message::DstUnreachable => Error::Unreachable { code },
        // RFC 4443 section 3.2: the code is ignored by the receiver.
        Icmpv6Message::PktTooBig => Error::PacketTooBig { mtu: message.pkt_too_big_mtu() },
        Icmpv6Message::TimeExceeded => Error::TimeExceeded { code },
        Icmpv6Message::ParamProblem => Error::ParameterProblem { code, pointer: message.param_problem_ptr() },
        _ => return None,
    };
    let quote = quote(&datagram.packet.slice(datagram.upper_at + ICMP_HEADER_LEN..))?;
    Some(Received { error, from: datagram.source, quote })
}

/// To whom an error about `packet`, which may be cut short, is to be sent; `None` where silence is due
/// (RFC 4443 section 2.4 (e)). `multicast` if an answer is due even to a packet for a multicast address.
pub(crate) fn is_due(packet: &[u8], error: Error, multicast: bool) -> Option<Ipv6Addr> {
    let (source, destination) = (ip::address(packet, 8)?, ip::address(packet, 24)?);
    // (e.3)
    let to_many = destination.is_multicast() && !multicast && !matches!(error, Error::PacketTooBig { .. });
    // (e.6)
    let from_nobody = source.is_unspecified() || source.is_multicast() || source.is_loopback();
    // (e.1), (e.2)
    (!to_many && !from_nobody && !about_error(packet)).then_some(source)
}

/// The error message about a packet, which may be cut short, for whoever has no [`Interface`](crate::Interface) that
/// sends it; `None` where silence is due (RFC 4443 section 2.4 (e)). To limit how many there are (f) is up to the caller.
pub fn complaint(about: &Bytes, error: Error, from: Ipv6Addr) -> Option<Packet> {
    let to = is_due(about, error, false)?;
    Some(self::error(about, error, from, to))
}

/// The error message about `packet`, which may be cut short.
pub(crate) fn error(packet: &Bytes, error: Error, from: Ipv6Addr, to: Ipv6Addr) -> Packet {
    let (message, code, rest) = error.fields();
    let body = packet.slice(..packet.len().min(QUOTE_LEN));
    message_packet(from, to, (message.into(), code), rest.to_be_bytes(), body)
}

/// Whether the packet is itself an ICMPv6 error or a Redirect, or cannot be told from one.
fn about_error(packet: &[u8]) -> bool {
    let Some((upper, at)) = ip::find_upper(packet) else {
        // The chain breaks off before the upper layer: a fragment, or one whose headers lie.
        return ip::is_later_fragment(packet);
    };
    upper == ip::ICMPV6
        && packet
            .get(at)
            .is_none_or(|kind| *kind < 128 || Icmpv6Message::from(*kind) == Icmpv6Message::Redirect)
}

/// The reply to an echo request (RFC 4443 section 4.2). The data is shared, not copied.
pub(crate) fn echo_reply(request: &Datagram, from: Ipv6Addr) -> Option<Packet> {
    let data_at = request.upper_at + ICMP_HEADER_LEN;
    let rest: [u8; 4] = request.packet.get(request.upper_at + 4..data_at)?.try_into().ok()?;
    let kind = (Icmpv6Message::EchoReply.into(), 0);
    Some(message_packet(from, request.source, kind, rest, request.packet.slice(data_at..)))
}

fn message_packet(
    from: Ipv6Addr,
    to: Ipv6Addr,
    (kind, code): (u8, u8),
    rest: [u8; 4],
    body: Bytes,
) -> Packet {
    let header = Header { source: from, destination: to, next_header: ip::ICMPV6, ..Header::default() };
    let mut head = header.emit(ICMP_HEADER_LEN + body.len());
    head.extend_from_slice(&[kind, code, 0, 0]);
    head.extend_from_slice(&rest);
    let mut packet = Packet { head, body, offload: Offload::default() };
    checksum::transport(&mut packet, HEADER_LEN, checksum::ICMPV6, false);
    packet
}

/// A token bucket (RFC 4443 section 2.4 (f)).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bucket {
    tokens: u32,
    burst: u32,
    every: Duration,
    filled: Instant,
}

impl Bucket {
    /// Full with `burst` tokens; one comes back `every` so often.
    pub(crate) fn new(burst: u32, every: Duration) -> Self {
        Self { tokens: burst, burst, every, filled: Instant::ZERO }
    }

    /// Takes a token if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let came = self.filled.since(now).as_nanos() / self.every.as_nanos().max(1);
        let came = u32::try_from(came).unwrap_or(u32::MAX);
        self.tokens = self.tokens.saturating_add(came).min(self.burst);
        // The part of an interval that has passed counts on, except while the bucket is full.
        self.filled = if self.tokens == self.burst { now } else { self.filled + self.every * came };
        let taken = self.tokens > 0;
        self.tokens -= u32::from(taken);
        taken
    }
}
