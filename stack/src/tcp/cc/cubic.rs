use alloc::boxed::Box;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::super::tcb::Rebase;
use super::{Acked, MAX_WINDOW};
use crate::Instant;

/// β = 0.7 and the numbers derived from it, in tenths (RFC 9438 section 4.6).
const BETA_TENTHS: u64 = 7;
/// α = 3 (1 - β) / (1 + β) = 9/17 (RFC 9438 section 4.3).
const ALPHA: (u64, u64) = (9, 17);
/// Where the curve of a quiet connection is cut off, so that its cube stays in range: W has long met its limit.
const MAX_T_MS: u64 = 1 << 20;

/// CUBIC (RFC 9438) in integers: octets and milliseconds, with C = 0.4 segments per second cubed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cubic<At> {
    /// The window before the last reduction, lowered by fast convergence; octets.
    pub w_max: u32,
    /// The window at the last reduction; octets.
    pub cwnd_prior: u32,
    /// The curve since the last reduction, from the first growth on.
    pub epoch: Option<Box<Epoch<At>>>,
}

/// One stretch of growth between two reductions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Epoch<At> {
    /// When it began; moved on by the time in which the window was not used.
    pub start: At,
    /// The last acknowledgement.
    pub last: At,
    /// K: milliseconds from the start until the curve is back at its plateau.
    pub k_ms: u64,
    /// The plateau of the curve; octets.
    pub plateau: u32,
    /// `W_est`, what Reno would have by now; in 1/1024 octets.
    pub w_est: u64,
    /// Growth that did not make up a whole octet yet; octets times window.
    pub rest: u64,
}

impl<At> Default for Cubic<At> {
    fn default() -> Self {
        Self { w_max: 0, cwnd_prior: 0, epoch: None }
    }
}

/// The threshold after a loss with `flight` octets in flight (RFC 9438 section 4.6).
#[expect(clippy::cast_possible_truncation, reason = "seven tenths of a u32")]
pub(super) fn reduce(flight: u32) -> u32 {
    (u64::from(flight) * BETA_TENTHS / 10) as u32
}

impl<At> Cubic<At> {
    /// Remembers the window at a loss, with fast convergence (RFC 9438 section 4.7).
    pub fn on_congestion(&mut self, cwnd: u32) {
        #[expect(clippy::cast_possible_truncation, reason = "a part of a u32")]
        let converged = (u64::from(cwnd) * (10 + BETA_TENTHS) / 20) as u32;
        self.w_max = if cwnd < self.w_max { converged } else { cwnd };
        self.cwnd_prior = cwnd;
        self.epoch = None;
    }

    /// RFC 9438 section 4.8: after a timeout the curve begins at its plateau, wherever slow start ends.
    pub fn on_timeout(&mut self) {
        self.w_max = 0;
        self.epoch = None;
    }

    /// The same on another clock.
    pub fn map_time<B>(self, clock: &impl Rebase<At, B>) -> Cubic<B> {
        let Self { w_max, cwnd_prior, epoch } = self;
        let epoch = epoch.map(|epoch| {
            let Epoch { start, last, k_ms, plateau, w_est, rest } = *epoch;
            let (start, last) = (clock.behind(start), clock.behind(last));
            Box::new(Epoch { start, last, k_ms, plateau, w_est, rest })
        });
        Cubic { w_max, cwnd_prior, epoch }
    }
}

impl Cubic<Instant> {
    /// Keeps time: a span in which the window was not used does not count (RFC 9438 section 5.8).
    pub(super) fn on_ack(&mut self, acked: &Acked) {
        if let Some(epoch) = &mut self.epoch {
            if !acked.limited {
                epoch.start += epoch.last.since(acked.now);
            }
            epoch.last = acked.now;
        }
    }

    /// The window after an acknowledgement in congestion avoidance (RFC 9438 sections 4.2 to 4.5).
    pub(super) fn grow(&mut self, cwnd: u32, acked: &Acked) -> u32 {
        let w_max = self.w_max;
        let epoch = self.epoch.get_or_insert_with(|| Box::new(Epoch::begin(w_max, cwnd, acked)));
        let t = millis(epoch.start.since(acked.now));
        let w_est = epoch.estimate_reno(cwnd, self.cwnd_prior, acked);
        if epoch.curve(t, acked.mss) < w_est {
            return cwnd.max(w_est);
        }
        let target =
            epoch.curve(t + millis(acked.srtt), acked.mss).clamp(cwnd, cwnd.saturating_add(cwnd / 2));
        let growth = epoch.rest + u64::from(target - cwnd) * u64::from(acked.octets);
        let (octets, rest) = (growth / u64::from(cwnd), growth % u64::from(cwnd));
        epoch.rest = rest;
        cwnd.saturating_add(u32::try_from(octets).unwrap_or(MAX_WINDOW))
    }
}

impl Epoch<Instant> {
    fn begin(w_max: u32, cwnd: u32, acked: &Acked) -> Self {
        let plateau = w_max.max(cwnd);
        // K = cbrt((W_max - cwnd) / C) seconds; the window in segments, C = 4/10, and 1000³ for milliseconds.
        let segments_e9 = u64::from(plateau - cwnd) * 1_000_000_000 / u64::from(acked.mss);
        let k_ms = cube_root(segments_e9 * 10 / 4);
        let w_est = u64::from(cwnd) << 10;
        Self { start: acked.now, last: acked.now, k_ms, plateau, w_est, rest: 0 }
    }

    /// `W_cubic(t)` in octets, `t` in milliseconds.
    fn curve(&self, t: u64, mss: u32) -> u32 {
        let t = t.min(self.k_ms + MAX_T_MS);
        let distance = u128::from(t.abs_diff(self.k_ms));
        let octets = distance.pow(3) * 4 * u128::from(mss) / 10_000_000_000;
        let octets = u32::try_from(octets).unwrap_or(MAX_WINDOW);
        if t < self.k_ms { self.plateau.saturating_sub(octets) } else { self.plateau.saturating_add(octets) }
    }

    /// What Reno would have by now, in octets (RFC 9438 section 4.3).
    fn estimate_reno(&mut self, cwnd: u32, cwnd_prior: u32, acked: &Acked) -> u32 {
        let (numerator, denominator) = if self.w_est >> 10 >= u64::from(cwnd_prior) { (1, 1) } else { ALPHA };
        let share = ((u64::from(acked.octets) * u64::from(acked.mss)) << 10) / u64::from(cwnd);
        self.w_est = (self.w_est + share * numerator / denominator).min(u64::from(MAX_WINDOW) << 10);
        u32::try_from(self.w_est >> 10).unwrap_or(MAX_WINDOW)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}

/// The integer cube root, rounded down.
fn cube_root(value: u64) -> u64 {
    let mut root = 0u64;
    for bit in (0..22).rev() {
        let candidate = root | 1 << bit;
        if candidate.checked_pow(3).is_some_and(|cube| cube <= value) {
            root = candidate;
        }
    }
    root
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;
    const SPAN: (crate::Seq, crate::Seq) = (crate::Seq(1), crate::Seq(2));

    #[test]
    fn cube_roots_are_rounded_down() {
        for (value, root) in
            [(0, 0), (1, 1), (7, 1), (8, 2), (26, 2), (27, 3), (1_000_000, 100), (u64::MAX, 2_642_245)]
        {
            assert_eq!(cube_root(value), root, "{value}");
        }
    }

    #[test]
    fn the_curve_comes_back_to_the_old_window_after_k() {
        // W_max 100 segments, reduced to 70: K = cbrt(30 / 0.4) = 4.217 s.
        let acked = Acked {
            octets: MSS,
            mss: MSS,
            srtt: Duration::from_millis(100),
            rtt: None,
            span: SPAN,
            limited: true,
            now: Instant::from_millis(1000),
        };
        let epoch = Epoch::begin(100 * MSS, 70 * MSS, &acked);
        assert!((4216..=4218).contains(&epoch.k_ms), "{}", epoch.k_ms);
        let at = |t| epoch.curve(t, MSS);
        assert!((70 * MSS..70 * MSS + 200).contains(&at(0)), "{}", at(0));
        assert_eq!(at(epoch.k_ms), 100 * MSS);
        // One second past K: 0.4 segments more; ten: 400.
        assert_eq!(at(epoch.k_ms + 1000), 100 * MSS + 400);
        assert_eq!(at(epoch.k_ms + 10_000), 500 * MSS);
    }

    #[test]
    fn a_long_silence_overflows_nothing() {
        let now = Instant::from_millis(u64::MAX / 2_000_000);
        let srtt = Duration::from_secs(4000);
        let acked = Acked { octets: MSS, mss: MSS, srtt, rtt: None, span: SPAN, limited: true, now };
        let epoch =
            Epoch { start: Instant::ZERO, last: Instant::ZERO, k_ms: 0, plateau: MSS, w_est: 0, rest: 0 };
        let mut cubic = Cubic { w_max: MSS, cwnd_prior: MSS, epoch: Some(Box::new(epoch)) };
        assert!(cubic.grow(MSS, &acked) <= MSS + MSS / 2);
    }

    /// RFC 9438 sections 4.1 to 4.5 in floating point; windows in segments, time in seconds.
    struct Model {
        cwnd: f64,
        w_max: f64,
        k: f64,
        w_est: f64,
        prior: f64,
    }

    impl Model {
        fn after_loss(prior: f64) -> Self {
            let cwnd = prior * 0.7;
            Self { cwnd, w_max: prior, k: ((prior - cwnd) / 0.4).cbrt(), w_est: cwnd, prior }
        }

        fn curve(&self, t: f64) -> f64 {
            0.4 * (t - self.k).powi(3) + self.w_max
        }

        fn ack(&mut self, t: f64, rtt: f64) {
            let alpha = if self.w_est >= self.prior { 1.0 } else { 3.0 * 0.3 / 1.7 };
            self.w_est += alpha / self.cwnd;
            if self.curve(t) < self.w_est {
                self.cwnd = self.cwnd.max(self.w_est);
            } else {
                let target = self.curve(t + rtt).clamp(self.cwnd, 1.5 * self.cwnd);
                self.cwnd += (target - self.cwnd) / self.cwnd;
            }
        }
    }

    #[test]
    fn the_window_is_that_of_a_model_in_floating_point() {
        for (prior, rtt_ms, seconds) in [(10_u32, 20, 10), (100, 50, 12), (100, 200, 12), (2000, 100, 20)] {
            let (mut cubic, mut model) = (Cubic::default(), Model::after_loss(f64::from(prior)));
            cubic.on_congestion(prior * MSS);
            let mut cwnd = reduce(prior * MSS);
            let srtt = Duration::from_millis(rtt_ms);
            let (start, mut at) = (Instant::from_millis(5000), Instant::from_millis(5000));
            while start.since(at) < Duration::from_secs(seconds) {
                let acked =
                    Acked { octets: MSS, mss: MSS, srtt, rtt: None, span: SPAN, limited: true, now: at };
                cubic.on_ack(&acked);
                cwnd = cubic.grow(cwnd, &acked);
                model.ack(start.since(at).as_secs_f64(), srtt.as_secs_f64());
                let ratio = f64::from(cwnd) / f64::from(MSS) / model.cwnd;
                assert!(
                    (0.99..1.01).contains(&ratio),
                    "{prior} segments, {rtt_ms} ms: {cwnd}, {}",
                    model.cwnd
                );
                at += srtt * MSS / cwnd;
            }
        }
    }

    #[test]
    fn a_window_that_shrinks_makes_room_faster() {
        // RFC 9438 section 4.7, fast convergence: below the last plateau, the next one is lower still.
        let mut cubic = Cubic::<Instant>::default();
        cubic.on_congestion(100 * MSS);
        assert_eq!(cubic.w_max, 100 * MSS);
        cubic.on_congestion(80 * MSS);
        assert_eq!((cubic.w_max, cubic.cwnd_prior), (68 * MSS, 80 * MSS));
        cubic.on_timeout();
        assert_eq!(cubic.w_max, 0);
    }
}
