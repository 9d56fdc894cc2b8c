//! Where all chance of a run comes from.

use core::ops::RangeInclusive;
use core::time::Duration;

/// A probability in thousandths.
pub type PerMille = u16;

/// A deterministic stream of numbers. Two runs from one seed draw the same.
#[derive(Clone, Debug)]
pub struct Rng(fastrand::Rng);

impl Rng {
    /// The stream of a seed.
    pub fn new(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(mix(seed)))
    }

    /// A stream of its own, so that what one part draws does not move another's numbers.
    pub fn fork(&mut self) -> Self {
        Self(fastrand::Rng::with_seed(self.0.u64(..)))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0.u64(..)
    }

    /// A number in a range.
    pub fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        self.0.u64(range)
    }

    /// A number in a range, small ones as likely as large ones: each order of magnitude has the same share.
    pub fn scaled(&mut self, range: RangeInclusive<u64>) -> u64 {
        let (low, high) = (*range.start(), *range.end());
        let bits = |value: u64| u64::from(64 - value.leading_zeros());
        let width = self.within(bits(low)..=bits(high));
        let floor = if width == 0 { 0 } else { 1 << (width - 1) };
        let ceiling = if width == 0 { 0 } else { (floor - 1) + floor };
        self.within(floor.clamp(low, high)..=ceiling.clamp(low, high))
    }

    /// A number below `end`, as an index.
    pub fn index(&mut self, end: usize) -> usize {
        self.0.usize(..end.max(1))
    }

    /// True so often.
    pub fn chance(&mut self, often: PerMille) -> bool {
        often > 0 && self.0.u16(..1000) < often
    }

    /// One of several.
    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())].clone()
    }

    /// A span between two, in milliseconds.
    pub fn millis(&mut self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.within(range))
    }

    /// Octets for a key.
    pub fn secret(&mut self) -> [u8; 32] {
        let mut octets = [0; 32];
        self.0.fill(&mut octets);
        octets
    }
}

/// Spreads a number over all 64 bits (the finaliser of `SplitMix64`), one to one.
pub const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_draws_the_same_twice() {
        let draw = |seed| {
            let mut rng = Rng::new(seed);
            let mut fork = rng.fork();
            (rng.any(), fork.any(), rng.scaled(1..=1 << 20), rng.chance(500))
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }

    #[test]
    fn a_scaled_number_stays_in_its_range() {
        let mut rng = Rng::new(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..10_000 {
            let number = rng.scaled(0..=5);
            assert!(number <= 5);
            seen.insert(number);
            assert!((100..=1_000_000).contains(&rng.scaled(100..=1_000_000)));
        }
        assert_eq!(seen.len(), 6);
    }
}
