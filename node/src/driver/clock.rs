//! The one place that reads time.

use std::time::Duration;

use ferry_stack::{GroupClock, Instant};
use rustix::time::{ClockId, clock_gettime};

const NANOS: u64 = 1_000_000_000;

/// Now, on `CLOCK_MONOTONIC`: it never jumps, and is the same for all processes of one machine, so that their traces
/// can be laid side by side.
pub(crate) fn now() -> Instant {
    Instant::from_nanos(nanos(ClockId::Monotonic))
}

/// The clock of the group: that of the world, as this machine knows it now. Read once, at the start of a node: steps
/// that are made to the machine's clock later do not make new connections begin below old ones.
pub(crate) fn group() -> GroupClock {
    let ahead = nanos(ClockId::Realtime).saturating_sub(nanos(ClockId::Monotonic));
    GroupClock::ahead_by(Duration::from_nanos(ahead))
}

/// Seconds since 1970, for certificates, which know no other time.
pub(crate) fn unix_seconds() -> i64 {
    clock_gettime(ClockId::Realtime).tv_sec
}

/// The time since 1970, for what proves that it is not old: as this machine knows it now.
pub(crate) fn wall() -> Duration {
    Duration::from_nanos(nanos(ClockId::Realtime))
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    // Neither is ever negative on this clock.
    u64::try_from(time.tv_sec).unwrap_or(0) * NANOS + u64::try_from(time.tv_nsec).unwrap_or(0)
}
