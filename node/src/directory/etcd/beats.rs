//! When this node gave signs of life.

use std::collections::VecDeque;
use std::time::Duration;

use ferry_stack::Instant;

/// Times that are remembered for as long as an acknowledgement is worth anything, and no more than so many.
const MAX_SENT: usize = 1 << 14;

#[derive(Debug, Default)]
pub(super) struct Beats {
    number: u64,
    sent: VecDeque<(u64, Instant)>,
}

impl Beats {
    /// The number of the next pulse.
    pub(super) fn next(&mut self, lease: Duration, now: Instant) -> u64 {
        self.number += 1;
        self.sent.push_back((self.number, now));
        let old = |(_, at): &(u64, Instant)| at.since(now) > lease;
        while self.sent.front().is_some_and(old) || self.sent.len() > MAX_SENT {
            self.sent.pop_front();
        }
        self.number
    }

    /// When a pulse was sent, if that matters still.
    pub(super) fn sent(&self, number: u64) -> Option<Instant> {
        let nth = number.checked_sub(self.sent.front()?.0)?;
        self.sent.get(usize::try_from(nth).ok()?).map(|(_, at)| *at)
    }

    /// Those were another life's.
    pub(super) fn forget(&mut self) {
        self.sent.clear();
    }
}
