use core::fmt;
use core::num::NonZeroU64;
use core::ops::{Add, AddAssign};
use core::time::Duration;

/// A point on this host's monotonic clock, in nanoseconds since an origin that only the host knows.
///
/// Not `Serialize`: two hosts never share a clock, so only a [`Duration`] may travel. What happened on another host may
/// lie before the origin of this one's clock. An `Option<Instant>` takes no more room than an `Instant`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(NonZeroU64);

/// The origin lies so far from the least number: room for 146 years before it, and for 438 years behind.
const ORIGIN: u64 = 1 << 62;

impl Instant {
    /// The clock's origin.
    pub const ZERO: Self = Self::from_nanos(0);

    /// The point `nanos` nanoseconds after the origin; saturates at the end of time.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self::at(ORIGIN.saturating_add(nanos))
    }

    const fn at(number: u64) -> Self {
        match NonZeroU64::new(number) {
            Some(number) => Self(number),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// The point `millis` milliseconds after the origin.
    pub const fn from_millis(millis: u64) -> Self {
        Self::from_nanos(millis * 1_000_000)
    }

    /// Nanoseconds since the origin; zero before it.
    pub const fn nanos(self) -> u64 {
        self.0.get().saturating_sub(ORIGIN)
    }

    /// Whole milliseconds since the origin; zero before it.
    pub const fn millis(self) -> u64 {
        self.nanos() / 1_000_000
    }

    /// The point `span` earlier, which may lie before the origin; saturates at the beginning of time.
    pub fn earlier_by(self, span: Duration) -> Self {
        let span = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
        Self::at(self.0.get().saturating_sub(span))
    }

    /// How much time is left until `self`, seen from `now`; zero if it has passed.
    pub const fn until(self, now: Self) -> Duration {
        Duration::from_nanos(self.0.get().saturating_sub(now.0.get()))
    }

    /// How much time has passed since `self`, seen from `now`; zero if it lies ahead.
    pub const fn since(self, now: Self) -> Duration {
        Duration::from_nanos(now.0.get().saturating_sub(self.0.get()))
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
        write!(f, "{}.{:06}s", self.nanos() / 1_000_000_000, self.nanos() % 1_000_000_000 / 1_000)
    }
}

impl Default for Instant {
    fn default() -> Self {
        Self::ZERO
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.get().checked_sub(ORIGIN) {
            Some(nanos) => write!(f, "Instant({nanos})"),
            None => write!(f, "Instant(-{})", ORIGIN - self.0.get()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_kept_on_a_host_that_has_just_started() {
        let now = Instant::from_millis(9);
        let hour = Duration::from_hours(1);
        let past = now.earlier_by(hour);
        assert_eq!((past.since(now), past.nanos()), (hour, 0));
        assert!(past < Instant::ZERO);
        assert_eq!(past + hour, now);
        assert_eq!(Instant::from_nanos(u64::MAX), now + Duration::MAX);
        assert_eq!(size_of::<Option<Instant>>(), 8);
    }
}
