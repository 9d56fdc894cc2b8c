//! Packets in pieces, put together again (RFC 8200 section 4.5), within bounds.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::Ipv6Addr;
use core::time::Duration;

use bytes::Bytes;

use super::chain::{self, Extensions, Kind};
use super::{HEADER_LEN, address};
use crate::icmp;
use crate::time::Instant;

/// How long a packet may take to arrive, from its first piece on (RFC 8200 section 4.5).
const PATIENCE: Duration = Duration::from_mins(1);
/// Octets of all packets that are incomplete.
const MAX_OCTETS: usize = 4 << 20;
/// Packets that are incomplete.
const MAX_PACKETS: usize = 256;
/// Incomplete packets of one source.
const MAX_OF_SOURCE: usize = 32;
/// Pieces of one packet: enough for the longest in pieces of the smallest MTU.
const MAX_PIECES: usize = 64;
/// Octets of a Fragment header.
const FRAGMENT_LEN: usize = 8;
/// What a payload length can say.
const MAX_PAYLOAD: usize = u16::MAX as usize;
/// The two bits of ECN that say congestion was experienced (RFC 3168 section 5).
const CE: u8 = 0b11;

/// Which pieces belong together: source, destination and identification.
type Name = (Ipv6Addr, Ipv6Addr, u32);

/// What became of a fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was kept.
    Kept,
    /// It was the last that was missing: the whole packet.
    Whole(Bytes),
    /// It was dropped, and perhaps all that it belongs to.
    Dropped,
    /// It was dropped because of a field that cannot be true; its sender should hear of it.
    Wrong(icmp::Error),
}

/// Packets of which not all pieces have come.
#[derive(Debug, Default)]
pub(crate) struct Fragments {
    packets: BTreeMap<Name, Partial>,
    octets: usize,
}

/// A packet of which not all pieces have come.
#[derive(Debug)]
struct Partial {
    until: Instant,
    /// The piece at offset zero, from its IPv6 header on.
    first: Option<Bytes>,
    /// By offset in the fragmentable part.
    pieces: BTreeMap<usize, Bytes>,
    /// Octets of the fragmentable part, once the last piece has come.
    total: Option<usize>,
    /// Some piece met congestion, some piece was of a sender that knows no ECN.
    congested: bool,
    plain: bool,
    /// Pieces overlapped: whatever comes is dropped (RFC 5722 section 4).
    given_up: bool,
}

/// A fragment, taken apart.
struct Piece {
    name: Name,
    /// Where its Fragment header lies.
    header_at: usize,
    offset: usize,
    more: bool,
}

impl Piece {
    fn of(packet: &[u8]) -> Option<Self> {
        let fragment =
            Extensions::new(packet, packet.len()).find(|extension| extension.kind == Kind::Fragment)?;
        let header = packet.get(fragment.range())?;
        let id = u32::from_be_bytes(*header.last_chunk()?);
        let offset = usize::from(chain::fragment_offset(packet, fragment.at)?) * 8;
        let name = (address(packet, 8)?, address(packet, 24)?, id);
        Some(Self { name, header_at: fragment.at, offset, more: header.get(3)? & 1 != 0 })
    }
}

impl Fragments {
    /// Takes a fragment, from its IPv6 header on, that was judged to be well-formed.
    pub(crate) fn take(&mut self, packet: &[u8], now: Instant) -> Outcome {
        let Some(piece) = Piece::of(packet) else { return Outcome::Dropped };
        let data_at = piece.header_at + FRAGMENT_LEN;
        let len = packet.len() - data_at;
        if piece.more && !len.is_multiple_of(8) {
            // The Payload Length field lies at 4.
            return Outcome::Wrong(icmp::Error::ParameterProblem { code: icmp::ERRONEOUS_FIELD, pointer: 4 });
        }
        if piece.header_at - HEADER_LEN + piece.offset + len > MAX_PAYLOAD {
            let pointer = u32::try_from(piece.header_at + 2).unwrap_or(u32::MAX);
            return Outcome::Wrong(icmp::Error::ParameterProblem { code: icmp::ERRONEOUS_FIELD, pointer });
        }
        // A copy, so that what is kept is no more than what is counted.
        let bytes = Bytes::copy_from_slice(packet);
        if !self.packets.contains_key(&piece.name) {
            self.make_room(piece.name.0);
            self.packets.insert(piece.name, Partial::new(now + PATIENCE));
        }
        let Some(partial) = self.packets.get_mut(&piece.name) else { return Outcome::Dropped };
        let before = partial.octets();
        let outcome = partial.add(&piece, &bytes, data_at);
        self.octets = self.octets + partial.octets() - before;
        if let Outcome::Whole(_) = outcome {
            self.forget(&piece.name);
        }
        while self.octets > MAX_OCTETS {
            self.forget_oldest(None);
        }
        outcome
    }

    /// When [`Fragments::expire`] has something to do.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.packets.values().map(|partial| partial.until).min()
    }

    /// Forgets the packets whose time is up. Gives back the first fragment of each for which that has come: its sender
    /// should hear of it.
    pub(crate) fn expire(&mut self, now: Instant) -> Vec<Option<Bytes>> {
        let due = self.packets.iter().filter(|(_, partial)| partial.until <= now);
        let due: Vec<_> = due.map(|(name, _)| *name).collect();
        due.iter().map(|name| self.forget(name)).collect()
    }

    fn make_room(&mut self, source: Ipv6Addr) {
        let of_source = |name: &Name| name.0 == source;
        if self.packets.keys().filter(|name| of_source(name)).count() >= MAX_OF_SOURCE {
            self.forget_oldest(Some(source));
        } else if self.packets.len() >= MAX_PACKETS {
            self.forget_oldest(None);
        }
    }

    fn forget_oldest(&mut self, source: Option<Ipv6Addr>) {
        let candidates = self.packets.iter().filter(|(name, _)| source.is_none_or(|it| it == name.0));
        if let Some((&name, _)) = candidates.min_by_key(|(_, partial)| partial.until) {
            self.forget(&name);
        }
    }

    fn forget(&mut self, name: &Name) -> Option<Bytes> {
        let partial = self.packets.remove(name)?;
        self.octets -= partial.octets();
        partial.first
    }
}

impl Partial {
    fn new(until: Instant) -> Self {
        Self {
            until,
            first: None,
            pieces: BTreeMap::new(),
            total: None,
            congested: false,
            plain: false,
            given_up: false,
        }
    }

    fn octets(&self) -> usize {
        let heads = self.first.as_ref().map_or(0, Bytes::len);
        heads + self.pieces.values().map(Bytes::len).sum::<usize>()
    }

    fn add(&mut self, piece: &Piece, packet: &Bytes, data_at: usize) -> Outcome {
        let data = packet.slice(data_at..);
        if self.given_up || self.pieces.get(&piece.offset) == Some(&data) {
            // An exact duplicate is no attack (RFC 8200 section 4.5).
            return Outcome::Dropped;
        }
        let (start, end) = (piece.offset, piece.offset + data.len());
        let before = self.pieces.range(..=start).next_back();
        let after = self.pieces.range(start..).next();
        let overlaps = before.is_some_and(|(at, piece)| at + piece.len() > start)
            || after.is_some_and(|(at, _)| *at < end);
        let last = self.pieces.last_key_value().map_or(0, |(at, piece)| at + piece.len());
        let beyond = self.total.is_some_and(|total| end > total || !piece.more && end != total);
        let short = !piece.more && end < last;
        if overlaps || beyond || short || data.is_empty() || self.pieces.len() >= MAX_PIECES {
            self.give_up();
            return Outcome::Dropped;
        }
        if !piece.more {
            self.total = Some(end);
        }
        if start == 0 {
            self.first = Some(packet.clone());
        }
        match ecn(packet) {
            CE => self.congested = true,
            0 => self.plain = true,
            _ => {}
        }
        self.pieces.insert(start, data);
        match self.whole() {
            Some(whole) => Outcome::Whole(whole),
            None => Outcome::Kept,
        }
    }

    fn give_up(&mut self) {
        self.given_up = true;
        self.pieces.clear();
        self.first = None;
    }

    fn whole(&mut self) -> Option<Bytes> {
        let have: usize = self.pieces.values().map(Bytes::len).sum();
        let (total, first) = (self.total?, self.first.as_ref()?);
        if have != total {
            return None;
        }
        // RFC 3168 section 5.3: congestion that could not have been marked is a lie.
        if self.congested && self.plain {
            self.give_up();
            return None;
        }
        let header_at = Piece::of(first)?.header_at;
        let mut packet = Vec::with_capacity(header_at + total);
        packet.extend_from_slice(first.get(..header_at)?);
        for piece in self.pieces.values() {
            packet.extend_from_slice(piece);
        }
        // The field that named the Fragment header names what that named.
        let before = Extensions::new(first, first.len()).take_while(|it| it.at < header_at).last();
        *packet.get_mut(before.map_or(chain::NEXT_HEADER_AT, |it| it.at))? = *first.get(header_at)?;
        let payload = u16::try_from(packet.len() - HEADER_LEN).ok()?.to_be_bytes();
        packet.get_mut(4..6)?.copy_from_slice(&payload);
        if self.congested {
            *packet.get_mut(1)? |= CE << 4;
        }
        Some(packet.into())
    }
}

/// The ECN field of a packet: the low two bits of the traffic class.
fn ecn(packet: &[u8]) -> u8 {
    packet.get(1).map_or(0, |octet| octet >> 4 & CE)
}

#[cfg(test)]
mod tests;
