//! Which octets a copy holds, and which it lacks.

use core::ops::Range;

use ferry_stack::tcp::{Extent, Extents};

/// A part of an extent; offsets count from its first octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// These octets lie in this one of the extents that are held, `from` octets behind its first.
    Held { index: usize, from: usize, len: usize },
    /// These are nowhere.
    Fresh { at: usize, len: usize },
}

/// The parts of `wanted`, in order. What is held lies in order and apart.
pub(super) fn parts(wanted: Extent, held: &[Extent], mut take: impl FnMut(Part)) {
    let end = i64::from(wanted.len);
    let mut at = 0;
    let first = held.partition_point(|extent| span(*extent, wanted).end <= 0);
    for (index, extent) in held.iter().enumerate().skip(first) {
        let Range { start, end: until } = span(*extent, wanted);
        if at >= end || start >= end {
            break;
        }
        if at < start {
            take(Part::Fresh { at: octets(at), len: octets(start - at) });
            at = start;
        }
        let until = until.min(end);
        if at < until {
            take(Part::Held { index, from: octets(at - start), len: octets(until - at) });
            at = until;
        }
    }
    if at < end {
        take(Part::Fresh { at: octets(at), len: octets(end - at) });
    }
}

/// Where an extent lies, seen from the first octet of another.
fn span(extent: Extent, from: Extent) -> Range<i64> {
    let start = i64::from(extent.seq.0.wrapping_sub(from.seq.0).cast_signed());
    start..start + i64::from(extent.len)
}

/// Never negative, and no more than an extent is long.
fn octets(count: i64) -> usize {
    usize::try_from(count).unwrap_or(0)
}

/// The extents of one of the two sequence spaces.
pub(super) fn received(extents: &Extents) -> alloc::vec::Vec<Extent> {
    extents.received().collect()
}

/// Octets of `wanted` that are not `held`.
pub(super) fn missing(wanted: &Extents, held: &Extents) -> usize {
    if held.is_empty() {
        return usize::try_from(wanted.len()).unwrap_or(usize::MAX);
    }
    let mut fresh = 0;
    let mut count = |part| {
        if let Part::Fresh { len, .. } = part {
            fresh += len;
        }
    };
    parts(wanted.send, &[held.send], &mut count);
    let received = received(held);
    wanted.received().for_each(|extent| parts(extent, &received, &mut count));
    fresh
}
