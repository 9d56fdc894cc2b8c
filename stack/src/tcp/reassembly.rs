use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::queue::Queue;
use super::segment::Block;
use crate::Seq;

/// Bounds the work and the memory that a peer can cause with many small holes.
pub(super) const MAX_ISLANDS: usize = 512;

/// Octets received out of order: islands with gaps between them, in the order of sequence space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reassembly {
    islands: Vec<Island>,
    /// Counts the arrivals: tells which island grew last.
    arrivals: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Island {
    seq: Seq,
    octets: Queue,
    arrival: u32,
}

impl Island {
    fn end(&self) -> Seq {
        self.seq + self.octets.len()
    }
}

impl Reassembly {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.islands.is_empty()
    }

    /// Octets in all.
    pub fn len(&self) -> usize {
        self.islands.iter().map(|island| island.octets.len()).sum()
    }

    /// The sequence number after the last octet, if there is one.
    pub fn end(&self) -> Option<Seq> {
        self.islands.last().map(Island::end)
    }

    /// The islands: where each begins, and its octets.
    pub(super) fn islands(&self) -> impl ExactSizeIterator<Item = (Seq, &Queue)> {
        self.islands.iter().map(|island| (island.seq, &island.octets))
    }

    /// The islands, whose octets may be taken out and put in again.
    pub(super) fn islands_mut(&mut self) -> impl ExactSizeIterator<Item = (Seq, &mut Queue)> {
        self.islands.iter_mut().map(|island| (island.seq, &mut island.octets))
    }

    /// The first octets from `from` to before `to` that are here already.
    pub fn overlap(&self, from: Seq, to: Seq) -> Option<Block> {
        let first = self.islands.partition_point(|island| island.end().at_or_before(from));
        let island = self.islands.get(first).filter(|island| from.before(to) && island.seq.before(to))?;
        Some((island.seq.later(from), island.end().earlier(to)))
    }

    /// Keeps octets that arrived; those that are there already win. Returns how many were new; `None` if there are
    /// too many islands for them.
    pub fn insert(&mut self, seq: Seq, octets: &Bytes) -> Option<usize> {
        let end = seq + octets.len();
        let first = self.islands.partition_point(|island| island.end().before(seq));
        let last = self.islands.partition_point(|island| island.seq.at_or_before(end));
        if octets.is_empty() {
            return Some(0);
        }
        if first == last && self.islands.len() >= MAX_ISLANDS {
            return None;
        }
        self.arrivals = self.arrivals.wrapping_add(1);
        let mut merged = Island { seq, octets: Queue::default(), arrival: self.arrivals };
        let mut new = 0;
        let mut fill = |merged: &mut Island, until: Seq| {
            let from = merged.end().distance_from(seq);
            let to = until.earlier(end).distance_from(seq);
            if from < to {
                merged.octets.push(octets.slice(from..to));
                new += to - from;
            }
        };
        for island in self.islands.drain(first..last) {
            if island.seq.before(merged.seq) {
                merged.seq = island.seq;
            } else {
                fill(&mut merged, island.seq);
            }
            merged.octets.append(island.octets);
        }
        fill(&mut merged, end);
        self.islands.insert(first, merged);
        Some(new)
    }

    /// Takes out what now follows in order at `nxt`.
    pub fn take(&mut self, nxt: Seq) -> Queue {
        while let Some(first) = self.islands.first() {
            if nxt.before(first.seq) {
                break;
            }
            let mut island = self.islands.remove(0);
            let old = nxt.distance_from(island.seq);
            if old < island.octets.len() {
                island.octets.advance(old);
                return island.octets;
            }
        }
        Queue::default()
    }

    /// The ranges, the one that grew last first (RFC 2018 section 4).
    pub fn blocks<const N: usize>(&self) -> [Option<Block>; N] {
        let mut blocks = [None; N];
        let mut newest = self.arrivals.wrapping_add(1);
        for block in &mut blocks {
            let age = |island: &&Island| self.arrivals.wrapping_sub(island.arrival);
            let limit = self.arrivals.wrapping_sub(newest);
            let older = |island: &&Island| limit == u32::MAX || age(island) > limit;
            let Some(island) = self.islands.iter().filter(older).min_by_key(age) else { break };
            *block = Some((island.seq, island.end()));
            newest = island.arrival;
        }
        blocks
    }

    /// Whether the islands lie in order, apart from each other, inside of `after..=until`.
    pub fn is_sound(&self, after: Seq, until: Seq) -> bool {
        let mut free_from = after;
        self.islands.iter().all(|island| {
            let sound = free_from.before(island.seq)
                && !island.octets.is_empty()
                && island.octets.len() < 1 << 30
                && island.end().at_or_before(until);
            free_from = island.end();
            sound
        }) && self.islands.len() <= MAX_ISLANDS
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn drain(mut queue: Queue) -> Vec<u8> {
        let mut octets = Vec::new();
        while !queue.is_empty() {
            octets.extend_from_slice(&queue.pop(usize::MAX));
        }
        octets
    }

    #[test]
    fn the_island_that_grew_last_is_reported_first() {
        let mut reassembly = Reassembly::default();
        for at in [100_u32, 300, 500, 200] {
            reassembly.insert(Seq(at), &Bytes::from_static(b"0123456789"));
        }
        let block = |at| Some((Seq(at), Seq(at + 10)));
        assert_eq!(reassembly.blocks::<3>(), [block(200), block(500), block(300)]);
        reassembly.insert(Seq(110), &Bytes::from_static(b"x"));
        assert_eq!(reassembly.blocks::<3>()[0], Some((Seq(100), Seq(111))));
    }

    #[test]
    fn a_peer_cannot_make_more_islands_than_the_limit() {
        let mut reassembly = Reassembly::default();
        for index in 0..2 * MAX_ISLANDS {
            reassembly.insert(Seq(0) + index * 2, &Bytes::from_static(b"x"));
        }
        assert_eq!(reassembly.islands.len(), MAX_ISLANDS);
        assert_eq!(
            reassembly.insert(Seq(1), &Bytes::from_static(b"x")),
            Some(1),
            "a hole may still be filled"
        );
    }

    proptest! {
        #[test]
        fn octets_come_out_as_they_went_in(
            start in any::<u32>(),
            pieces in prop::collection::vec((0usize..200, 0usize..60), 1..40),
        ) {
            let text: Vec<u8> = (0..=255).collect();
            let mut reassembly = Reassembly::default();
            let mut model = BTreeMap::new();
            let start = Seq(start);
            for (at, len) in pieces {
                let octets = Bytes::copy_from_slice(&text[at..(at + len).min(text.len())]);
                let before = model.len();
                let held: Vec<usize> = (at..at + octets.len()).filter(|index| model.contains_key(index)).collect();
                let run = held.iter().zip(held.first().copied().unwrap_or(0)..).take_while(|(a, b)| **a == *b).count();
                let expected = held.first().map(|first| (start + *first, start + (*first + run)));
                prop_assert_eq!(reassembly.overlap(start + at, start + (at + octets.len())), expected);
                model.extend((at..at + octets.len()).map(|index| (index, text[index])));
                prop_assert_eq!(reassembly.insert(start + at, &octets), Some(model.len() - before));
                prop_assert_eq!(reassembly.len(), model.len());
                prop_assert!(reassembly.is_sound(start - 1, start + 256_u32));
            }
            let mut nxt = 0;
            while nxt < 256 {
                let octets = drain(reassembly.take(start + nxt));
                for octet in &octets {
                    prop_assert_eq!(Some(octet), model.get(&nxt));
                    nxt += 1;
                }
                if octets.is_empty() {
                    prop_assert_eq!(model.get(&nxt), None);
                    nxt += 1;
                }
            }
            prop_assert!(reassembly.is_empty());
        }
    }
}
