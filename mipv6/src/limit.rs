//! How often somebody may be told that something is wrong.

use core::time::Duration;

use ferry_stack::Instant;

/// Between two Binding Errors.
const BETWEEN: Duration = Duration::from_millis(10);

/// Limits the Binding Errors of a node (RFC 6275 section 9.3.3): one in 10 ms, to whomever.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    last: Option<Instant>,
}

impl Pace {
    /// Whether one may be sent now, which is then taken for sent.
    pub fn take(&mut self, now: Instant) -> bool {
        let due = self.last.is_none_or(|last| last.since(now) >= BETWEEN);
        if due {
            self.last = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_than_one_error_is_sent_in_ten_milliseconds() {
        let mut pace = Pace::default();
        let sent = (0..1000).filter(|ms| pace.take(Instant::from_millis(*ms))).count();
        assert_eq!(sent, 100);
    }
}
