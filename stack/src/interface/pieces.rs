//! Packets that come in pieces (RFC 8200 section 4.5).

use bytes::Bytes;

use super::{Interface, drop_as};
use crate::frame::{Checksum, Offload};
use crate::icmp;
use crate::ip::{Datagram, For, HEADER_LEN, ICMPV6, Outcome, Shape};
use crate::time::Instant;

/// Multicast listener and neighbour discovery, redirects: never in pieces (RFC 6980 section 5).
const LINK_MESSAGES: core::ops::RangeInclusive<u8> = 130..=137;

impl Interface {
    /// Takes a fragment for us; gives back the packet if that was the last piece of it.
    pub(super) fn take_fragment(
        &mut self,
        bytes: &Bytes,
        offload: Offload,
        now: Instant,
    ) -> Option<Datagram> {
        self.counters.fragments += 1;
        let payload = bytes.get(4..6).map_or(0, |it| usize::from(u16::from_be_bytes([it[0], it[1]])));
        let packet = bytes.get(..HEADER_LEN + payload)?;
        if let Checksum::Partial { .. } = offload.checksum {
            // It would have to be completed over the whole packet.
            return drop_as(&mut self.counters.malformed);
        }
        match self.fragments.take(packet, now) {
            Outcome::Kept => None,
            Outcome::Dropped => drop_as(&mut self.counters.malformed),
            Outcome::Wrong(error) => {
                self.complain(bytes, error, false, now);
                drop_as(&mut self.counters.malformed)
            }
            Outcome::Whole(packet) => self.take_whole(packet, now),
        }
    }

    fn take_whole(&mut self, packet: Bytes, now: Instant) -> Option<Datagram> {
        let whom = For::Us { mobility: self.mobility };
        let datagram = match Shape::of(&packet, Offload::default(), whom) {
            Ok(shape) => shape.datagram(packet, Offload::default()),
            Err(problem) => return self.refuse(&packet, problem, now),
        };
        let link = datagram.upper_bytes().first().is_some_and(|kind| LINK_MESSAGES.contains(kind));
        if datagram.upper == ICMPV6 && link {
            return drop_as(&mut self.counters.malformed);
        }
        self.counters.reassembled += 1;
        self.dispatch(datagram, now)
    }

    /// Forgets packets whose pieces did not all come in time. Their senders are told, if the first piece came.
    pub(super) fn expire_fragments(&mut self, now: Instant) {
        for first in self.fragments.expire(now) {
            self.counters.reassembly_failed += 1;
            if let Some(first) = first {
                let error = icmp::Error::TimeExceeded { code: icmp::REASSEMBLY_EXCEEDED };
                self.complain(&first, error, false, now);
            }
        }
    }
}
