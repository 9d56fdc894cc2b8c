//! How long to look for input before sleeping.

use core::time::Duration;

/// The first span. To be woken costs the one who wakes about 5 µs, and takes us about 30; more where a core sleeps deeply.
const FIRST: Duration = Duration::from_micros(10);
/// The longest, whatever may come …
const MOST: Duration = Duration::from_micros(50);
/// … and if another node was just told something, which it will answer if it ever does: a client waits for that.
const MOST_TO_AN_ANSWER: Duration = Duration::from_micros(150);

/// Asks for input without sleeping for as long as sleeping would not have paid: under load, whoever sends would have
/// to wake us for each frame. Grows and ends as the halt polling of KVM does, so that an idle node sleeps at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    span: Duration,
    most: Duration,
}

impl Patience {
    /// With whatever may come.
    pub(super) const fn with_input() -> Self {
        Self { span: Duration::ZERO, most: MOST }
    }

    /// With other nodes, when they were told something.
    pub(super) const fn with_answers() -> Self {
        Self { span: Duration::ZERO, most: MOST_TO_AN_ANSWER }
    }

    /// How long to ask on after the last input.
    pub(super) fn span(self) -> Duration {
        self.span
    }

    /// What came, came so much later.
    pub(super) fn waited(&mut self, during: Duration) {
        self.span =
            if during <= self.most { (2 * self.span).clamp(FIRST, self.most) } else { Duration::ZERO };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_waits_make_it_patient_and_one_long_wait_ends_that() {
        for (mut patience, expected) in [
            (Patience::with_input(), &[10, 20, 40, 50, 50][..]),
            (Patience::with_answers(), &[10, 20, 40, 80, 150, 150]),
        ] {
            assert_eq!(patience.span(), Duration::ZERO);
            for span in expected {
                patience.waited(Duration::from_micros(45));
                assert_eq!(patience.span().as_micros(), *span);
            }
            patience.waited(Duration::from_millis(1));
            assert_eq!(patience.span(), Duration::ZERO);
        }
    }
}
