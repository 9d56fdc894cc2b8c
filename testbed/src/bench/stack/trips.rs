//! Round trips, and connections that are opened and closed.

use core::time::Duration;

use super::client::{connect_close, round_trips};
use super::ground::{CLIENT_CORE, Ground, TAP, on};
use super::kernel::{ECHO_BLOCKING, Kernel};
use super::ours::{DISCARD, ECHO, Ours};
use super::{Figures, Scale};
use crate::Result;

/// Longer than any pause between two round trips.
const SPIN: Duration = Duration::from_millis(20);
/// Connections under way at a time.
const IN_FLIGHT: u64 = 32;

/// One octet there and back. Both ends of the kernel's block; so does the client of ours, unless both of ours spin.
pub(super) fn round_trip(ground: &Ground, scale: Scale, spin: bool) -> Result<Figures> {
    let busy_poll = if spin { SPIN } else { Duration::ZERO };
    let (ours, kernel) = (Ours::start(ground, TAP, busy_poll)?, Kernel::start(ground)?);
    let (to_ours, to_kernel) = (ours.at(ECHO), Kernel::at(ECHO_BLOCKING));
    let count = scale.count(5000);
    let measure = |to, spin| on(&ground.near, CLIENT_CORE, || round_trips(to, count, spin));
    let figures = Figures::alternate(scale.runs, || measure(to_ours, spin), || measure(to_kernel, false))?;
    ours.stop()?;
    kernel.stop()?;
    Ok(figures)
}

/// Connections a second; the client finishes first, the server follows.
pub(super) fn churn(ground: &Ground, scale: Scale) -> Result<Figures> {
    let (ours, kernel) = (Ours::start(ground, TAP, Duration::ZERO)?, Kernel::start(ground)?);
    let [to_ours, to_kernel] = [ours.at(DISCARD), Kernel::at(DISCARD)];
    let measure = |to| on(&ground.near, CLIENT_CORE, || connect_close(to, IN_FLIGHT, scale.span(1000)));
    let figures = Figures::alternate(scale.runs, || measure(to_ours), || measure(to_kernel))?;
    ours.stop()?;
    kernel.stop()?;
    Ok(figures)
}
