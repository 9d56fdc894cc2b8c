//! Bulk throughput over a TAP.

use core::time::Duration;

use super::client::{Way, bulk};
use super::foreign::Foreign;
use super::ground::{CLIENT_CORE, Ground, PLAIN, TAP, on};
use super::kernel::Kernel;
use super::ours::{DISCARD, Ours, SOURCE};
use super::{Figures, Scale};
use crate::Result;

const fn port(way: Way) -> u16 {
    match way {
        Way::In => DISCARD,
        Way::Out => SOURCE,
    }
}

/// Ours with virtio headers, and the kernel's over veth with TSO.
pub(super) fn against_kernel(ground: &Ground, scale: Scale, way: Way, connections: usize) -> Result<Figures> {
    let (ours, kernel) = (Ours::start(ground, TAP, Duration::ZERO)?, Kernel::start(ground)?);
    let port = port(way);
    let [to_ours, to_kernel] = [ours.at(port), Kernel::at(port)];
    let measure =
        |to| on(&ground.near, CLIENT_CORE, || bulk(to, way, connections, scale.span(300), scale.span(1000)));
    let figures = Figures::alternate(scale.runs, || measure(to_ours), || measure(to_kernel))?;
    ours.stop()?;
    kernel.stop()?;
    Ok(figures)
}

/// Frames of the MTU without offloads: ours, and smoltcp's over the same TAP, each attached in its turn.
pub(super) fn against_smoltcp(ground: &Ground, scale: Scale, way: Way) -> Result<Figures> {
    let port = port(way);
    let measure = |to| on(&ground.near, CLIENT_CORE, || bulk(to, way, 1, scale.span(300), scale.span(1000)));
    let ours = || {
        let ours = Ours::start(ground, PLAIN, Duration::ZERO)?;
        let figure = measure(ours.at(port));
        ours.stop()?;
        figure
    };
    let theirs = || {
        let foreign = Foreign::start(ground, PLAIN)?;
        let figure = measure(foreign.at(port));
        foreign.stop()?;
        figure
    };
    Figures::alternate(scale.runs, ours, theirs)
}
