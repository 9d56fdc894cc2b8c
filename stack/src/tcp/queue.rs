use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Writes smaller than this are joined, so that many small ones do not become many chunks.
const SMALL: usize = 1024;

/// A run of octets in shared chunks: taken in, sliced and given out without copying, except where a slice
/// crosses the border of two chunks. A single chunk, as most queues hold, needs no memory of its own, and neither
/// does an empty queue: idle connections are many.
#[derive(Clone, derive_more::Debug, Default, Eq, Serialize, Deserialize)]
#[debug("Queue({len} octets)")]
#[serde(from = "VecDeque<Bytes>", into = "VecDeque<Bytes>")]
pub struct Queue {
    /// Empty only if there is nothing at all.
    first: Bytes,
    /// Present only if there is more than one chunk.
    #[expect(clippy::box_collection, reason = "idle connections are many, and each has two queues")]
    rest: Option<Box<VecDeque<Bytes>>>,
    len: usize,
}

impl Queue {
    /// Octets in all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Appends octets.
    pub fn push(&mut self, octets: Bytes) {
        if octets.is_empty() {
            return;
        }
        self.len += octets.len();
        if self.first.is_empty() {
            self.first = octets;
            return;
        }
        let last = self.rest.as_mut().and_then(|rest| rest.back_mut()).unwrap_or(&mut self.first);
        if last.len() + octets.len() <= SMALL {
            *last = [&last[..], &octets[..]].concat().into();
        } else {
            self.rest.get_or_insert_default().push_back(octets);
        }
    }

    /// Takes the first octets out, at most `max` of them and none beyond the first chunk.
    pub fn pop(&mut self, max: usize) -> Bytes {
        let count = max.min(self.first.len());
        self.len -= count;
        if count < self.first.len() {
            return self.first.split_to(count);
        }
        let next = self.rest.as_mut().and_then(|rest| rest.pop_front()).unwrap_or_default();
        self.rest.take_if(|rest| rest.is_empty());
        core::mem::replace(&mut self.first, next)
    }

    /// Drops the first `count` octets, or all if there are fewer.
    pub fn advance(&mut self, mut count: usize) {
        while count > 0 && !self.is_empty() {
            count -= self.pop(count).len();
        }
    }

    /// Drops everything.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Moves everything out of `other` to the end of `self`.
    pub fn append(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
        } else if !other.is_empty() {
            self.len += other.len;
            let rest = self.rest.get_or_insert_default();
            rest.push_back(other.first);
            rest.extend(other.rest.into_iter().flat_map(|rest| *rest));
        }
    }

    fn rest(&self) -> impl DoubleEndedIterator<Item = &Bytes> + ExactSizeIterator {
        self.rest.as_deref().map(VecDeque::iter).unwrap_or_default()
    }

    fn chunks(&self) -> impl DoubleEndedIterator<Item = &Bytes> {
        core::iter::once(&self.first).chain(self.rest())
    }

    fn chunk(&self, index: usize) -> &Bytes {
        index.checked_sub(1).and_then(|index| self.rest.as_ref()?.get(index)).unwrap_or(&self.first)
    }

    /// The octets from `offset` on, at most `len` of them.
    pub fn slice(&self, offset: usize, len: usize) -> Bytes {
        let len = len.min(self.len.saturating_sub(offset));
        if len == 0 {
            return Bytes::new();
        }
        let (index, inner) = self.locate(offset);
        let first = self.chunk(index);
        if inner + len <= first.len() {
            return first.slice(inner..inner + len);
        }
        let mut gathered = Vec::with_capacity(len);
        gathered.extend_from_slice(&first[inner..]);
        for chunk in self.rest().skip(index) {
            let missing = len - gathered.len();
            gathered.extend_from_slice(&chunk[..missing.min(chunk.len())]);
            if gathered.len() == len {
                break;
            }
        }
        gathered.into()
    }

    /// The octets from `offset` on, at most `len` of them, in as many pieces as they lie in: none is copied.
    pub fn pieces(&self, offset: usize, len: usize) -> impl Iterator<Item = Bytes> {
        let mut missing = len.min(self.len.saturating_sub(offset));
        let (index, mut inner) = if missing == 0 { (0, 0) } else { self.locate(offset) };
        let chunks = core::iter::once(self.chunk(index)).chain(self.rest().skip(index));
        chunks.map_while(move |chunk| {
            let piece = chunk.slice(inner..chunk.len().min(inner.saturating_add(missing)));
            inner = 0;
            missing -= piece.len();
            (!piece.is_empty()).then_some(piece)
        })
    }

    /// The chunk that holds `offset` (which must be inside), and where in it. Searches from the nearer end.
    fn locate(&self, offset: usize) -> (usize, usize) {
        if offset <= self.len / 2 {
            let mut start = 0;
            for (index, chunk) in self.chunks().enumerate() {
                if offset < start + chunk.len() {
                    return (index, offset - start);
                }
                start += chunk.len();
            }
        }
        let mut end = self.len;
        for (after, chunk) in self.chunks().rev().enumerate() {
            end -= chunk.len();
            if offset >= end {
                return (self.rest().len() - after, offset - end);
            }
        }
        (0, 0)
    }
}

/// The same octets, however they are cut into chunks.
impl PartialEq for Queue {
    fn eq(&self, other: &Self) -> bool {
        let (mut ours, mut theirs) = (self.chunks(), other.chunks());
        let (mut a, mut b): (&[u8], &[u8]) = (&[], &[]);
        if self.len != other.len {
            return false;
        }
        loop {
            if a.is_empty() {
                a = ours.next().map_or(&[], |chunk| chunk);
            }
            if b.is_empty() {
                b = theirs.next().map_or(&[], |chunk| chunk);
            }
            let len = a.len().min(b.len());
            if len == 0 {
                return a.is_empty() && b.is_empty();
            }
            if a[..len] != b[..len] {
                return false;
            }
            (a, b) = (&a[len..], &b[len..]);
        }
    }
}

impl From<VecDeque<Bytes>> for Queue {
    fn from(mut chunks: VecDeque<Bytes>) -> Self {
        chunks.retain(|chunk| !chunk.is_empty());
        let len = chunks.iter().map(Bytes::len).sum();
        let first = chunks.pop_front().unwrap_or_default();
        Self { first, rest: (!chunks.is_empty()).then(|| Box::new(chunks)), len }
    }
}

impl From<Queue> for VecDeque<Bytes> {
    fn from(Queue { first, rest, .. }: Queue) -> Self {
        let mut rest = rest.map(|rest| *rest).unwrap_or_default();
        if !first.is_empty() {
            rest.push_front(first);
        }
        rest
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn behaves_like_one_long_vector(
            chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 0..12),
            cuts in prop::collection::vec((0usize..9000, 0usize..9000), 0..20),
        ) {
            let mut queue = Queue::default();
            let mut model: Vec<u8> = Vec::new();
            for chunk in chunks {
                model.extend_from_slice(&chunk);
                queue.push(chunk.into());
            }
            for (offset, len) in cuts {
                let from = offset.min(model.len());
                let to = (from + len).min(model.len());
                prop_assert_eq!(&queue.slice(offset, len)[..], &model[from..to]);
                let pieces: Vec<Bytes> = queue.pieces(offset, len).collect();
                prop_assert_eq!(pieces.concat(), &model[from..to]);
                let mut joined = Queue::default();
                joined.push(Bytes::copy_from_slice(&model));
                prop_assert!(joined == queue && (model.is_empty() || joined != Queue::default()));
                let popped = queue.pop(len % 700);
                prop_assert_eq!(&popped[..], &model[..popped.len()]);
                model.drain(..popped.len());
                let count = (offset % 50).min(model.len());
                queue.advance(count);
                model.drain(..count);
                prop_assert_eq!(queue.len(), model.len());
            }
        }
    }
}
