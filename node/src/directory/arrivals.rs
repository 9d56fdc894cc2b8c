//! How regularly signs of life arrive, so that a slow way is not taken for a dead node.

use std::time::Duration;

use ferry_stack::Instant;

/// Deviations beyond the mean after which a silence is out of the ordinary.
const DEVIATIONS: u32 = 8;

/// The spans between signs of life: mean and mean deviation, smoothed as RFC 6298 smooths round trips.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Arrivals {
    last: Option<Instant>,
    mean: Duration,
    deviation: Duration,
}

impl Arrivals {
    pub(super) fn arrived(&mut self, now: Instant) {
        if let Some(last) = self.last.replace(now) {
            let span = last.since(now);
            if self.mean.is_zero() {
                (self.mean, self.deviation) = (span, span / 2);
            } else {
                let off = span.abs_diff(self.mean);
                self.deviation = (self.deviation * 3 + off) / 4;
                self.mean = (self.mean * 7 + span) / 8;
            }
        }
    }

    /// A silence up to this length has been seen before, more or less.
    pub(super) fn usual(&self) -> Duration {
        self.mean + self.deviation * DEVIATIONS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(spans: &[u64]) -> u128 {
        let (mut arrivals, mut at) = (Arrivals::default(), Instant::from_millis(1000));
        for span in spans {
            at += Duration::from_millis(*span);
            arrivals.arrived(at);
        }
        arrivals.usual().as_millis()
    }

    #[test]
    fn the_more_irregular_signs_of_life_are_the_longer_a_silence_is_usual() {
        assert!((10..=12).contains(&after(&[10; 50])), "{}", after(&[10; 50]));
        let irregular = after(&[2, 40, 1, 60, 5, 30, 2, 70, 1, 50]);
        assert!((150..400).contains(&irregular), "{irregular}");
        assert_eq!(after(&[10]), 0, "one sign of life says nothing");
    }
}
