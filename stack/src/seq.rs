use core::fmt;
use core::ops::{Add, AddAssign, Sub};

use serde::{Deserialize, Serialize};

/// A TCP sequence number (RFC 9293 section 3.4): a point on a circle of 2³², so deliberately not `Ord`.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seq(pub u32);

impl Seq {
    /// Whether `self` comes before `other` on the shorter way round.
    pub const fn before(self, other: Self) -> bool {
        (self.0.wrapping_sub(other.0)).cast_signed() < 0
    }

    /// Whether `self` comes after `other` on the shorter way round.
    pub const fn after(self, other: Self) -> bool {
        other.before(self)
    }

    /// Whether `self` is `other` or comes before it.
    pub const fn at_or_before(self, other: Self) -> bool {
        !other.before(self)
    }

    /// The later of the two.
    pub const fn later(self, other: Self) -> Self {
        if self.before(other) { other } else { self }
    }

    /// The earlier of the two.
    pub const fn earlier(self, other: Self) -> Self {
        if other.before(self) { other } else { self }
    }

    /// Octets from `earlier` to `self`; zero if `earlier` is not at or before `self`.
    pub const fn distance_from(self, earlier: Self) -> usize {
        if self.before(earlier) { 0 } else { self.0.wrapping_sub(earlier.0) as usize }
    }
}

impl Add<u32> for Seq {
    type Output = Self;

    fn add(self, octets: u32) -> Self {
        Self(self.0.wrapping_add(octets))
    }
}

impl Add<usize> for Seq {
    type Output = Self;

    /// Wraps, as sequence space does: only the low 32 bits of `octets` count.
    #[expect(clippy::cast_possible_truncation, reason = "sequence space is modulo 2^32")]
    fn add(self, octets: usize) -> Self {
        Self(self.0.wrapping_add(octets as u32))
    }
}

impl AddAssign<usize> for Seq {
    fn add_assign(&mut self, octets: usize) {
        *self = *self + octets;
    }
}

impl Sub<u32> for Seq {
    type Output = Self;

    fn sub(self, octets: u32) -> Self {
        Self(self.0.wrapping_sub(octets))
    }
}

impl fmt::Debug for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Seq({})", self.0)
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::Seq;

    #[test]
    fn order_is_kept_across_the_wrap() {
        let cases = [(0, 1), (u32::MAX, 0), (u32::MAX - 5, 5), (0x7fff_ffff, 0x8000_0000), (1, 0x8000_0000)];
        for (a, b) in cases {
            assert!(Seq(a).before(Seq(b)), "{a} before {b}");
            assert!(Seq(b).after(Seq(a)), "{b} after {a}");
            assert!(!Seq(b).before(Seq(a)), "{b} not before {a}");
            assert_eq!(Seq(b).distance_from(Seq(a)), b.wrapping_sub(a) as usize);
            assert_eq!(Seq(a).distance_from(Seq(b)), 0);
            assert_eq!(Seq(a).later(Seq(b)), Seq(b));
            assert_eq!(Seq(a).earlier(Seq(b)), Seq(a));
        }
    }
}
