//! `HyStart++` (RFC 9406): the first slow start ends when the round-trip time grows, not when the queue overflows.

use core::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Seq;

/// `MIN_RTT_THRESH` and `MAX_RTT_THRESH` (RFC 9406 section 4.3), in microseconds.
const THRESHOLDS: (u32, u32) = (4_000, 16_000);
/// `MIN_RTT_DIVISOR`.
const RTT_DIVISOR: u32 = 8;
/// `N_RTT_SAMPLE`.
const SAMPLES: u8 = 8;
/// `CSS_GROWTH_DIVISOR`.
const GROWTH_DIVISOR: u32 = 4;
/// `CSS_ROUNDS`.
const ROUNDS: u8 = 5;

/// What `HyStart++` remembers. A round lasts until what was in flight at its beginning is acknowledged.
///
/// The growth for one acknowledgement is not limited to `L` segments: acknowledgements of super-segments cover many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HyStart {
    /// Where this round ends (`windowEnd`).
    pub end: Option<Seq>,
    /// The least round-trip time in the last round.
    pub last: Option<Micros>,
    /// The least in this one.
    pub current: Option<Micros>,
    /// Measurements in this one, as far as it matters.
    pub samples: u8,
    /// Conservative slow start, once the round-trip time has grown.
    pub conservative: Option<Conservative>,
}

/// A round-trip time in microseconds: idle connections are many, and each remembers some.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Micros(pub u32);

impl From<Duration> for Micros {
    fn from(duration: Duration) -> Self {
        Self(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX))
    }
}

/// Conservative slow start: slower growth, to see whether the round-trip time really did grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conservative {
    /// The least round-trip time of the round in which it began (`cssBaselineMinRtt`).
    pub baseline: Micros,
    /// Rounds that have passed, the one in which it began included.
    pub rounds: u8,
}

impl HyStart {
    /// An acknowledgement of new octets; `span` is what is in flight now. Returns by how much slower than in slow
    /// start the window is to grow, or `None`: slow start is over.
    pub fn on_ack(&mut self, rtt: Option<Duration>, (una, nxt): (Seq, Seq)) -> Option<u32> {
        if self.end.is_none_or(|end| end.at_or_before(una)) {
            self.begin_round(nxt);
        }
        if let Some(rtt) = rtt.map(Micros::from) {
            self.current = Some(self.current.map_or(rtt, |current| current.min(rtt)));
            self.samples = self.samples.saturating_add(1);
        }
        self.judge();
        match self.conservative {
            None => Some(1),
            Some(conservative) if conservative.rounds >= ROUNDS => None,
            Some(_) => Some(GROWTH_DIVISOR),
        }
    }

    fn begin_round(&mut self, nxt: Seq) {
        self.end = Some(nxt);
        self.last = self.current.take();
        self.samples = 0;
        if let Some(conservative) = &mut self.conservative {
            conservative.rounds = conservative.rounds.saturating_add(1);
        }
    }

    /// RFC 9406 section 4.2: into conservative slow start, and back if the round-trip time falls again.
    fn judge(&mut self) {
        let (Some(current), true) = (self.current, self.samples >= SAMPLES) else { return };
        match (self.conservative, self.last) {
            (Some(Conservative { baseline, .. }), _) if current < baseline => self.conservative = None,
            (None, Some(last)) => {
                let threshold = (last.0 / RTT_DIVISOR).clamp(THRESHOLDS.0, THRESHOLDS.1);
                if current.0 >= last.0.saturating_add(threshold) {
                    self.conservative = Some(Conservative { baseline: current, rounds: 0 });
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round of `samples` acknowledgements that all took `millis`. Returns the last answer.
    fn round(hystart: &mut HyStart, nth: u32, samples: u32, millis: u64) -> Option<u32> {
        let rtt = Some(Duration::from_millis(millis));
        let una = |at: u32| Seq(nth * 1000 + at);
        (0..samples).map(|at| hystart.on_ack(rtt, (una(at), Seq((nth + 1) * 1000)))).last().unwrap()
    }

    #[test]
    fn a_steady_round_trip_time_leaves_slow_start_alone() {
        let mut hystart = HyStart::default();
        for nth in 0..20 {
            assert_eq!(round(&mut hystart, nth, 10, 50), Some(1));
        }
    }

    #[test]
    fn a_growing_round_trip_time_slows_down_and_ends_slow_start_after_five_rounds() {
        let mut hystart = HyStart::default();
        assert_eq!(round(&mut hystart, 0, 10, 50), Some(1));
        // 50 / 8 = 6.25 ms.
        assert_eq!(round(&mut hystart, 1, 10, 56), Some(1));
        assert_eq!(round(&mut hystart, 2, 7, 70), Some(1), "seven samples prove nothing");
        assert_eq!(round(&mut hystart, 3, 10, 80), Some(4));
        for nth in 4..8 {
            assert_eq!(round(&mut hystart, nth, 10, 90), Some(4));
        }
        assert_eq!(round(&mut hystart, 8, 1, 90), None);
    }

    #[test]
    fn a_round_trip_time_that_falls_again_resumes_slow_start() {
        let mut hystart = HyStart::default();
        round(&mut hystart, 0, 10, 50);
        assert_eq!(round(&mut hystart, 1, 10, 70), Some(4));
        assert_eq!(round(&mut hystart, 2, 10, 60), Some(1));
    }

    #[test]
    fn a_short_path_may_vary_by_four_milliseconds() {
        let mut hystart = HyStart::default();
        round(&mut hystart, 0, 10, 1);
        assert_eq!(round(&mut hystart, 1, 10, 4), Some(1));
    }
}
