//! How long to look for input before sleeping.

use core::time::Duration;

/// The first span, and the longest. To be woken costs the one who wakes about 5 µs, and takes us about 30.
const FIRST: Duration = Duration::from_micros(10);
const MOST: Duration = Duration::from_micros(50);

/// Asks for input without sleeping for as long as sleeping would not have paid: under load, whoever sends would have
/// to wake us for each frame. Grows and ends as the halt polling of KVM does, so that an idle node sleeps at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Patience {
    span: Duration,
}

impl Patience {
    /// How long to ask on after the last input.
    pub(super) fn span(self) -> Duration {
        self.span
    }

    /// A sleep is over, and lasted so long.
    pub(super) fn slept(&mut self, during: Duration) {
        self.span = if during <= MOST { (2 * self.span).clamp(FIRST, MOST) } else { Duration::ZERO };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_sleeps_make_it_patient_and_one_long_sleep_ends_that() {
        let mut patience = Patience::default();
        assert_eq!(patience.span(), Duration::ZERO);
        let spans: Vec<_> = (0..4)
            .map(|_| {
                patience.slept(Duration::from_micros(20));
                patience.span().as_micros()
            })
            .collect();
        assert_eq!(spans, [10, 20, 40, 50]);
        patience.slept(Duration::from_millis(1));
        assert_eq!(patience.span(), Duration::ZERO);
    }
}
