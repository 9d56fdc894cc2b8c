//! A node dies that owned very many connections.

use core::time::Duration;
use std::path::Path;

use super::gaps::{check, settle};
use super::{LAN, Means, STREAM, broken};
use crate::Result;
use crate::analysis::ClientView;
use crate::bench::stack::{Figures, Scale};
use crate::capture::Capture;
use crate::crash::crowd::Crowd;
use crate::crash::{Crew, service};
use crate::sys::urgent::urgently;

const CLIENTS: usize = 10_000;
/// A number of eight octets every eight seconds: all there is to see is the recovery.
const RATE: u64 = 1;
const VICTIM: usize = 1;
/// In which all must be back to be measured at all.
const AFTER: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_mins(1);

/// From the kill until the last connection has had a packet of its new owner, by a capture at the client; all of them flow on
/// afterwards, or there is no figure.
pub(super) fn recovery(means: &Means<'_>) -> Result<Figures> {
    let Means { ferry, scale, .. } = *means;
    Ok(Figures::alone((0..scale.runs).map(|_| urgently(|| one(ferry, scale))).collect::<Result<_>>()?))
}

fn one(ferry: &Path, scale: Scale) -> Result<f64> {
    let mut crew = Crew::gather(ferry, LAN, Means::group())?;
    let count = scale.count(CLIENTS);
    let mut crowd = Crowd::gather(&crew.world.client, service(STREAM), count, |_| RATE)?;
    crowd.await_all(PATIENCE)?;
    settle(&mut crew, &mut crowd, count)?;
    let capture = Capture::start(&crew.world, None, false)?;
    let at = crew.kill(VICTIM)?;
    crowd.read(AFTER, false, |_| false)?;
    let captured = capture.finish()?;
    let took = last_back(&captured.client, at, count)?;
    crowd.await_all(PATIENCE)?;
    check(&crowd)?;
    Ok(took)
}

fn last_back(seen: &ClientView, at_ns: u64, count: usize) -> Result<f64> {
    let back = seen
        .flows()
        .values()
        .filter_map(|seen| seen.iter().map(|seen| seen.at_ns).find(|seen| *seen > at_ns));
    let back: Vec<u64> = back.collect();
    if back.len() < count {
        return Err(broken(format!("{} of {count} connections came back", back.len())));
    }
    #[allow(clippy::cast_precision_loss)] // Nanoseconds of a recovery.
    Ok((back.into_iter().max().unwrap_or(at_ns) - at_ns) as f64 * 1e-6)
}
