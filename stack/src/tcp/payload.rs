//! Where the payload of a connection lies in sequence space, and its control block without the octets: what a copy of
//! the connection at another host is kept current with.

use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use super::queue::Queue;
use super::reassembly::MAX_ISLANDS;
use super::tcb::{RecvSpace, Tcb};
use crate::Seq;

/// The longest extent that is believed, as everywhere in sequence space; octets.
const MAX_EXTENT: u32 = 1 << 30;

/// Some sequence numbers in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extent {
    /// The first.
    pub seq: Seq,
    /// How many.
    pub len: u32,
}

/// Which octets a connection holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extents {
    /// Not acknowledged, or never sent: in the send sequence space.
    pub send: Extent,
    /// Received in order and not read: in the receive sequence space, as what follows.
    pub unread: Extent,
    /// Received out of order, in the order of sequence space.
    pub islands: Vec<Extent>,
}

/// The octets themselves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// As [`Extents::send`].
    pub send: Queue,
    /// As [`Extents::unread`].
    pub unread: Queue,
    /// As [`Extents::islands`].
    pub islands: Vec<Queue>,
}

impl Extent {
    /// The sequence number after its last.
    pub fn end(&self) -> Seq {
        self.seq + self.len
    }

    fn of(seq: Seq, octets: &Queue) -> Self {
        Self { seq, len: u32::try_from(octets.len()).unwrap_or(u32::MAX) }
    }
}

impl Extents {
    /// Octets in all.
    pub fn len(&self) -> u64 {
        self.received().map(|extent| u64::from(extent.len)).sum::<u64>() + u64::from(self.send.len)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Those in the receive sequence space, in its order.
    pub fn received(&self) -> impl Iterator<Item = Extent> {
        core::iter::once(self.unread).chain(self.islands.iter().copied())
    }

    /// Whether they lie in order and apart from each other, and are no more than a connection has.
    pub fn is_sound(&self) -> bool {
        let mut free_from = self.unread.end();
        let apart = self.islands.iter().all(|island| {
            let sound = free_from.before(island.seq)
                && island.seq.distance_from(free_from) <= MAX_EXTENT as usize
                && (1..=MAX_EXTENT).contains(&island.len);
            free_from = island.end();
            sound
        });
        let span = free_from.distance_from(self.unread.seq);
        apart
            && self.islands.len() <= MAX_ISLANDS
            && self.send.len <= MAX_EXTENT
            && self.unread.len <= MAX_EXTENT
            && self.unread.seq.at_or_before(free_from)
            && span as u64 >= self.len() - u64::from(self.send.len)
    }
}

impl<At> Tcb<At> {
    /// Where its payload lies.
    pub fn extents(&self) -> Extents {
        Extents {
            send: Extent::of(self.snd.first_octet(), &self.snd.queue),
            unread: self.rcv.unread_extent(&self.rcv.unread),
            islands: self.rcv.reassembly.islands().map(|(seq, octets)| Extent::of(seq, octets)).collect(),
        }
    }

    /// Takes the octets out. What is left is no connection before [`Tcb::load`].
    pub fn unload(&mut self) -> Payload {
        Payload {
            send: core::mem::take(&mut self.snd.queue),
            unread: core::mem::take(&mut self.rcv.unread),
            islands: self.rcv.reassembly.islands_mut().map(|(_, octets)| core::mem::take(octets)).collect(),
        }
    }

    /// Puts octets in, for a control block that has none; `false` if there are more islands, or fewer, than it knows.
    pub fn load(&mut self, payload: Payload) -> bool {
        if self.rcv.reassembly.islands().len() != payload.islands.len() {
            return false;
        }
        self.snd.queue = payload.send;
        self.rcv.unread = payload.unread;
        for ((_, place), octets) in self.rcv.reassembly.islands_mut().zip(payload.islands) {
            *place = octets;
        }
        true
    }

    /// Whether this is a control block without octets whose payload can lie there.
    pub fn is_lean_for(&self, extents: &Extents) -> bool {
        let mut islands = self.rcv.reassembly.islands();
        let empty = self.snd.queue.is_empty()
            && self.rcv.unread.is_empty()
            && self.rcv.reassembly.islands().all(|(_, octets)| octets.is_empty());
        empty
            && extents.is_sound()
            && extents.send.seq == self.snd.first_octet()
            && extents.unread.end() == self.rcv.in_order()
            && islands.len() == extents.islands.len()
            && extents.islands.iter().all(|island| islands.next().is_some_and(|(seq, _)| seq == island.seq))
    }
}

impl Payload {
    /// The octets in the receive sequence space, as [`Extents::received`].
    pub fn received(&self) -> impl Iterator<Item = &Queue> {
        core::iter::once(&self.unread).chain(&self.islands)
    }
}

impl RecvSpace {
    /// The sequence number after the last octet in order: RCV.NXT, or the FIN that it has passed.
    fn in_order(&self) -> Seq {
        self.fin.filter(|fin| self.nxt.after(*fin)).unwrap_or(self.nxt)
    }

    fn unread_extent(&self, unread: &Queue) -> Extent {
        let len = Extent::of(self.nxt, unread).len;
        Extent { seq: self.in_order() - len, len }
    }
}
