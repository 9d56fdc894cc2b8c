//! The chain of extension headers as it lies in memory, without judging its contents.

use super::{HEADER_LEN, ICMPV6, IPV6, MOBILITY, TCP, UDP};

/// Where the IPv6 header's Next Header field lies.
pub(super) const NEXT_HEADER_AT: usize = 6;
/// Pads one octet; the only option without a length.
pub(super) const PAD_1: u8 = 0;
/// Pads as many octets as it says.
pub(super) const PAD_N: u8 = 1;
/// The Home Address option (RFC 6275 section 6.3).
pub(super) const HOME_ADDRESS: u8 = 0xc9;
/// The routing header that Mobile IPv6 knows (RFC 6275 section 6.4).
pub(super) const ROUTING_TYPE_2: u8 = 2;

/// The kinds of extension header that we walk through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Hop-by-Hop Options (RFC 8200 section 4.3).
    HopByHop,
    /// Routing (RFC 8200 section 4.4).
    Routing,
    /// Fragment (RFC 8200 section 4.5).
    Fragment,
    /// Destination Options (RFC 8200 section 4.6).
    Destination,
}

impl Kind {
    /// The kind that a Next Header value names; `None` for an upper layer or something unknown.
    pub const fn of(next_header: u8) -> Option<Self> {
        match next_header {
            0 => Some(Self::HopByHop),
            43 => Some(Self::Routing),
            44 => Some(Self::Fragment),
            60 => Some(Self::Destination),
            _ => None,
        }
    }
}

/// One extension header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension {
    /// What it is.
    pub kind: Kind,
    /// Where it starts: octets from the start of the packet. Its Next Header field lies there.
    pub at: usize,
    /// Octets of it.
    pub len: usize,
}

impl Extension {
    /// Where it lies in the packet.
    pub const fn range(&self) -> core::ops::Range<usize> {
        self.at..self.at + self.len
    }
}

/// The extension headers of a packet in their order; ends early if the packet does.
#[derive(Clone, Debug)]
pub struct Extensions<'a> {
    packet: &'a [u8],
    next_header: u8,
    at: usize,
    end: usize,
}

impl<'a> Extensions<'a> {
    /// Those of `packet` that start before `end`.
    pub(super) fn new(packet: &'a [u8], end: usize) -> Self {
        let next_header = packet.get(NEXT_HEADER_AT).copied().unwrap_or(super::NO_NEXT_HEADER);
        Self { packet, next_header, at: HEADER_LEN, end: end.min(packet.len()) }
    }

    /// What follows the headers that were given out: its protocol number and where it starts.
    pub(super) fn rest(&self) -> (u8, usize) {
        (self.next_header, self.at)
    }
}

impl Iterator for Extensions<'_> {
    type Item = Extension;

    fn next(&mut self) -> Option<Extension> {
        if self.at >= self.end {
            return None;
        }
        let kind = Kind::of(self.next_header)?;
        let &[next_header, units] = self.packet.get(self.at..self.at + 2)? else { return None };
        // The Fragment header has no length field.
        let len = if kind == Kind::Fragment { 8 } else { 8 + 8 * usize::from(units) };
        let extension = Extension { kind, at: self.at, len };
        if extension.range().end > self.packet.len() {
            return None;
        }
        self.next_header = next_header;
        self.at += len;
        Some(extension)
    }
}

/// The upper layer of a packet that may be cut short, as in an ICMPv6 error: its protocol number and where it
/// starts. `None` if the chain breaks off, or the packet is a fragment that is not the first.
pub fn find_upper(packet: &[u8]) -> Option<(u8, usize)> {
    let mut chain = Extensions::new(packet, packet.len());
    for extension in chain.by_ref() {
        if extension.kind == Kind::Fragment && fragment_offset(packet, extension.at)? != 0 {
            return None;
        }
    }
    let (upper, at) = chain.rest();
    (Kind::of(upper).is_none() && at <= packet.len()).then_some((upper, at))
}

/// Whether the packet is a fragment that is not the first.
pub(crate) fn is_later_fragment(packet: &[u8]) -> bool {
    Extensions::new(packet, packet.len()).any(|extension| {
        extension.kind == Kind::Fragment
            && fragment_offset(packet, extension.at).is_none_or(|offset| offset != 0)
    })
}

/// The offset field of the Fragment header at `at`, in units of 8 octets.
pub(super) fn fragment_offset(packet: &[u8], at: usize) -> Option<u16> {
    let field: [u8; 2] = packet.get(at + 2..at + 4)?.try_into().ok()?;
    Some(u16::from_be_bytes(field) >> 3)
}

/// The data of the first option of type `wanted` in an options header.
pub(super) fn find_option(header: &[u8], wanted: u8) -> Option<&[u8]> {
    let mut rest = header.get(2..)?;
    loop {
        match *rest {
            [PAD_1, ..] => rest = &rest[1..],
            [kind, len, ref data @ ..] if kind == wanted => return data.get(..usize::from(len)),
            [_, len, ref data @ ..] => rest = data.get(usize::from(len)..)?,
            _ => return None,
        }
    }
}

/// Octets of the header of an upper layer that begins with `bytes`; `None` for one that we do not know.
pub(crate) fn upper_header_len(upper: u8, bytes: &[u8]) -> Option<usize> {
    match upper {
        TCP => Some(bytes.get(12).map_or(20, |offset| usize::from(offset >> 4) * 4).max(20)),
        UDP | ICMPV6 | MOBILITY => Some(8),
        IPV6 => Some(HEADER_LEN),
        _ => None,
    }
}
