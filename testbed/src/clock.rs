//! The machine's clocks, and waiting.
//!
//! Points in time are nanoseconds of `CLOCK_MONOTONIC`, which all processes of a machine share: a node's trace and
//! our capture can be laid side by side.

use core::time::Duration;

use rustix::thread::{ClockId, NanosleepRelativeResult, Timespec, clock_nanosleep_relative};

use crate::{Error, Result};

/// Nanoseconds of the monotonic clock.
pub fn now_ns() -> u64 {
    read(ClockId::Monotonic)
}

/// Nanoseconds of a core that this thread has used: what others do on the machine does not count.
pub fn thread_cpu_ns() -> u64 {
    read(ClockId::ThreadCPUTime)
}

/// What must be added to a time of the wall clock to get the monotonic clock's. Read afresh for each batch of
/// timestamps, because the wall clock can be set.
pub fn wall_to_monotonic_ns() -> i128 {
    let before = read(ClockId::Monotonic);
    let wall = read(ClockId::Realtime);
    let after = read(ClockId::Monotonic);
    i128::from(before / 2 + after / 2) - i128::from(wall)
}

/// Stands still for a while. For pacing and for polls with a deadline, never instead of an event.
pub fn pause(duration: Duration) {
    let mut left = timespec(duration);
    while let NanosleepRelativeResult::Interrupted(rest) = clock_nanosleep_relative(ClockId::Monotonic, &left)
    {
        left = rest;
    }
}

/// Asks every `each` until there is an answer, for at most `within`.
///
/// # Errors
///
/// What `ask` failed with, or [`Error::Late`].
pub fn await_some<T>(
    what: &str,
    within: Duration,
    each: Duration,
    mut ask: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let until = now_ns() + nanos(within);
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        if now_ns() >= until {
            return Err(Error::Late { what: what.to_owned(), within_s: within.as_secs() });
        }
        pause(each);
    }
}

/// A duration in nanoseconds; more than 584 years are cut.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// A duration as the kernel wants it.
pub fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

fn read(clock: ClockId) -> u64 {
    let time = rustix::time::clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}
