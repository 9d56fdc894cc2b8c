use core::fmt;
use core::ops::{Add, AddAssign};
use core::time::Duration;

/// A point on this host's monotonic clock, in nanoseconds since an origin that only the host knows.
///
/// Not `Serialize`: two hosts never share a clock, so only a [`Duration`] may travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

impl Instant {
    /// The clock's origin.
    pub const ZERO: Self = Self(0);

    /// The point `nanos` nanoseconds after the origin.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// The point `millis` milliseconds after the origin.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis * 1_000_000)
    }

    /// Nanoseconds since the origin.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// Whole milliseconds since the origin.
    pub const fn millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// How much time is left until `self`, seen from `now`; zero if it has passed.
    pub const fn until(self, now: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(now.0))
    }

    /// How much time has passed since `self`, seen from `now`; zero if it lies ahead.
    pub const fn since(self, now: Self) -> Duration {
        Duration::from_nanos(now.0.saturating_sub(self.0))
    }
}

/// A clock that the hosts of a group share, as far as each can tell. Only what must be in order from host to host is
/// taken from it, the numbers that a new connection begins with; nothing is ever timed by it, because it may jump.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupClock(Duration);

impl GroupClock {
    /// It shows `span` when this host's own clock is at its origin.
    pub const fn ahead_by(span: Duration) -> Self {
        Self(span)
    }

    /// What it shows when this host's own clock shows `now`.
    pub fn at(self, now: Instant) -> Instant {
        now + self.0
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// The point `duration` later; saturates at the end of time.
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000 / 1_000)
    }
}
