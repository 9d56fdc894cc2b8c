//! The peer: what its numbers count from, and its half of the streams.

use core::cell::Cell;
use std::collections::VecDeque;

use super::ast::Flags;
use super::wire::Raw;
use crate::pattern;

/// Packets of ours that are remembered, so that an ICMPv6 error can quote them.
const REMEMBERED: usize = 1000;

/// One peer of a script: a port at the other side.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    number: usize,
    pub(super) remote_port: u16,
    pub(super) local_port: u16,
    /// Our initial sequence number, once a SYN of ours was seen.
    iss: Option<u32>,
    irs: u32,
    /// Our first `TSval`.
    first_timestamp: Option<u32>,
    /// Our last.
    pub(super) last_timestamp: u32,
    sent: VecDeque<(u32, Vec<u8>)>,
    /// Octets that the application has written and read.
    pub(super) written: u64,
    pub(super) read: u64,
    identification: Cell<u32>,
}

impl Peer {
    pub(super) fn new(number: usize, irs: u32) -> Self {
        Self {
            number,
            remote_port: 40_000 + u16::try_from(number).unwrap_or(0),
            local_port: 80,
            iss: None,
            irs,
            first_timestamp: None,
            last_timestamp: 0,
            sent: VecDeque::new(),
            written: 0,
            read: 0,
            identification: Cell::new(1),
        }
    }

    /// Takes note of a segment of ours: what its numbers count from, and the packet.
    pub(super) fn note(&mut self, raw: &Raw) {
        if raw.flags.has(Flags::SYN) && self.iss != Some(raw.seq) {
            self.iss = Some(raw.seq);
            (self.written, self.read, self.first_timestamp) = (0, 0, None);
        }
        if let Some((_, data)) = raw.options.iter().find(|(kind, data)| *kind == 8 && data.len() == 8) {
            self.last_timestamp = u32::from_be_bytes([data[0], data[1], data[2], data[3]]);
            self.first_timestamp.get_or_insert(self.last_timestamp);
        }
        self.sent.push_back((raw.seq, raw.packet.clone()));
        if self.sent.len() > REMEMBERED {
            self.sent.pop_front();
        }
    }

    /// The last packet of ours that began at this sequence number; if there was none, the last of all with the
    /// sequence number put in, as a forger would.
    pub(super) fn quotable(&self, seq: i64) -> Option<Vec<u8>> {
        let wanted = self.ours(seq);
        let known = self.sent.iter().rev().find(|(at, _)| *at == wanted).map(|(_, packet)| packet.clone());
        known.or_else(|| {
            let mut forged = self.sent.back()?.1.clone();
            forged[44..48].copy_from_slice(&wanted.to_be_bytes());
            Some(forged)
        })
    }

    pub(super) fn ours(&self, relative: i64) -> u32 {
        self.iss.unwrap_or(0).wrapping_add(low(relative))
    }

    pub(super) fn theirs(&self, relative: i64) -> u32 {
        self.irs.wrapping_add(low(relative))
    }

    pub(super) fn relative_to_ours(&self, absolute: u32) -> i64 {
        i64::from(absolute.wrapping_sub(self.iss.unwrap_or(0)).cast_signed())
    }

    pub(super) fn relative_to_theirs(&self, absolute: u32) -> i64 {
        i64::from(absolute.wrapping_sub(self.irs).cast_signed())
    }

    pub(super) fn our_timestamp(&self, relative: i64) -> u32 {
        self.first_timestamp.unwrap_or(0).wrapping_add(low(relative))
    }

    pub(super) fn relative_timestamp(&self, absolute: u32) -> i64 {
        i64::from(absolute.wrapping_sub(self.first_timestamp.unwrap_or(absolute)).cast_signed())
    }

    /// The peer's octets at this place of its sequence space.
    pub(super) fn their_octets(&self, at: i64, len: usize) -> Vec<u8> {
        pattern::octets(self.number as u64 * 2, (at - 1).cast_unsigned(), len).to_vec()
    }

    /// Our octets from `offset` of our stream on.
    pub(super) fn our_octets(&self, offset: u64, len: usize) -> bytes::Bytes {
        pattern::octets(self.number as u64 * 2 + 1, offset, len)
    }

    /// Whether what we sent at this place is what was written there.
    pub(super) fn is_ours(&self, at: i64, octets: &[u8]) -> bool {
        pattern::first_difference(self.number as u64 * 2 + 1, (at - 1).cast_unsigned(), octets).is_none()
    }

    /// Whether what was read from `offset` of the peer's stream on is what it sent there.
    pub(super) fn is_theirs(&self, offset: u64, octets: &[u8]) -> bool {
        pattern::first_difference(self.number as u64 * 2, offset, octets).is_none()
    }

    /// The identification of the next packet that is cut into fragments.
    pub(super) fn next_identification(&self) -> u32 {
        self.identification.replace(self.identification.get().wrapping_add(1))
    }
}

/// The low 32 bits, as sequence space has them.
#[expect(clippy::cast_possible_truncation, reason = "sequence space is modulo 2^32")]
pub(super) fn low(relative: i64) -> u32 {
    (relative as i32).cast_unsigned()
}
