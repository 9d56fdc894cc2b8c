use core::time::Duration;

use serde::{Deserialize, Serialize};

/// The timeout before anything was measured (RFC 6298 section 2.1).
const INITIAL_RTO: Duration = Duration::from_secs(1);
/// The timeout of data if the SYN timed out (RFC 6298 section 5.7).
const FALLBACK_RTO: Duration = Duration::from_secs(3);
/// A longer round trip is not believed, so that arithmetic on it cannot overflow.
pub(super) const MAX_SAMPLE: Duration = Duration::from_hours(1);
/// G of RFC 6298: our clock is fine, so this only keeps the timeout above the smoothed time.
const GRANULARITY: Duration = Duration::from_millis(1);

/// What is known of the round-trip time (RFC 9293 section 3.8.1, RFC 6298).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rtt {
    /// SRTT, once measured.
    pub smoothed: Option<Duration>,
    /// RTTVAR.
    pub variation: Duration,
    /// The least that was ever measured.
    pub min: Option<Duration>,
    /// How often the timer fired since the last measurement: the timeout doubles with each.
    pub backoff: u8,
    /// Whether the SYN timed out: the first timeout is longer then.
    pub fallback: bool,
}

impl Default for Rtt {
    fn default() -> Self {
        Self { smoothed: None, variation: Duration::ZERO, min: None, backoff: 0, fallback: false }
    }
}

impl Rtt {
    /// Takes a measurement (RFC 6298 section 2.2 and 2.3). Ends the back-off.
    pub fn sample(&mut self, rtt: Duration) {
        self.min = Some(self.min.map_or(rtt, |min| min.min(rtt)).min(MAX_SAMPLE));
        self.sample_coarse(rtt);
    }

    /// Takes a measurement that is too coarse to tell the least round-trip time.
    pub fn sample_coarse(&mut self, rtt: Duration) {
        let rtt = rtt.min(MAX_SAMPLE);
        self.backoff = 0;
        match self.smoothed {
            None => {
                self.smoothed = Some(rtt);
                self.variation = rtt / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(rtt)) / 4;
                self.smoothed = Some((smoothed * 7 + rtt) / 8);
            }
        }
    }

    /// The retransmission timeout with its back-off (RFC 6298 sections 2.3 to 2.5 and 5.5).
    ///
    /// As in Linux, the floor applies to the variation term, so that a long path keeps its margin.
    pub fn rto(&self, min: Duration, max: Duration) -> Duration {
        let base = match self.smoothed {
            None if self.fallback => FALLBACK_RTO,
            None => INITIAL_RTO,
            Some(smoothed) => smoothed + (self.variation * 4).max(GRANULARITY).max(min),
        };
        let doubled = base.checked_mul(1 << u32::from(self.backoff.min(16))).unwrap_or(max);
        doubled.clamp(min.min(max), max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIN: Duration = Duration::from_millis(200);
    const MAX: Duration = Duration::from_mins(2);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_first_sample_sets_half_of_itself_as_variation() {
        let mut rtt = Rtt::default();
        assert_eq!(rtt.rto(MIN, MAX), Duration::from_secs(1));
        rtt.sample(100 * MS);
        assert_eq!(rtt.smoothed, Some(100 * MS));
        assert_eq!(rtt.variation, 50 * MS);
        assert_eq!(rtt.rto(MIN, MAX), 300 * MS);
    }

    #[test]
    fn a_steady_path_keeps_the_floor_above_its_round_trip() {
        let mut rtt = Rtt::default();
        for _ in 0..100 {
            rtt.sample(500 * MS);
        }
        assert_eq!(rtt.rto(MIN, MAX), 700 * MS);
    }

    #[test]
    fn back_off_doubles_to_the_limit_and_a_sample_ends_it() {
        let mut rtt = Rtt::default();
        rtt.sample(100 * MS);
        rtt.backoff = 3;
        assert_eq!(rtt.rto(MIN, MAX), 2400 * MS);
        rtt.backoff = 200;
        assert_eq!(rtt.rto(MIN, MAX), MAX);
        rtt.sample(100 * MS);
        assert!(rtt.rto(MIN, MAX) < 400 * MS);
    }
}
