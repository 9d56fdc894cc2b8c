//! What a connection costs when there are very many.

use super::crowd::Crowd;
use super::ground::{SERVER_CORE, broken};
use super::{Figures, Scale};
use crate::Result;
use crate::cores::pin;
use crate::error::Doing;

/// Connections.
const MANY: usize = 100_000;
/// Those that are used, and those that there are in all on the other side of the comparison.
const FEW: usize = 10;
/// Requests of all that are used, one after the other.
const ROUNDS: usize = 10;

/// Resident octets of an established connection that has answered one request: TCP, demultiplexing, timers, session.
/// By the process's resident set, so that whatever the allocator adds is counted.
pub(super) fn idle(scale: Scale) -> Result<Figures> {
    let count = scale.count(MANY);
    let mut ours = Vec::new();
    // Nodes are kept until the end: what the allocator has kept of one would hide what the next takes.
    let mut kept = Vec::new();
    for _ in 0..scale.runs.min(3) {
        let mut crowd = Crowd::gather(count)?;
        let before = resident()?;
        crowd.connect_all()?;
        let after = resident()?;
        #[allow(clippy::cast_precision_loss)] // Octets of this machine.
        ours.push((after.saturating_sub(before)) as f64 / count as f64);
        kept.push(crowd);
    }
    Ok(Figures { ours, peer: Vec::new(), note: None })
}

/// Octets of this process that are in memory.
pub(in crate::bench) fn resident() -> Result<u64> {
    let path = "/proc/self/statm";
    let text = std::fs::read_to_string(path).doing(format!("read {path}"))?;
    let pages: Option<u64> = text.split_whitespace().nth(1).and_then(|pages| pages.parse().ok());
    Ok(pages.ok_or_else(|| broken("no resident set in statm"))? * rustix::param::page_size() as u64)
}

/// Nanoseconds of a core for a segment of ten connections, with all the others open and idle, and without them. Only
/// the node: the TAP costs the same for both.
pub(super) fn many(scale: Scale) -> Result<Figures> {
    let gather = |count| {
        let mut crowd = Crowd::gather(count)?;
        crowd.connect_all()?;
        Ok(crowd)
    };
    among_many(scale, MANY, gather, Crowd::ask)
}

/// What ten members of a crowd of `most` cost, and what they cost when there are no others: nanoseconds of a core for
/// each packet. `ask` has something of each of the members that it is given, and tells nanoseconds and packets.
pub(in crate::bench) fn among_many<C>(
    scale: Scale,
    most: usize,
    gather: impl Fn(usize) -> Result<C> + Sync,
    ask: impl Fn(&mut C, &[usize]) -> Result<(u64, u64)> + Sync,
) -> Result<Figures> {
    let count = scale.count(most).max(FEW);
    std::thread::scope(|scope| {
        let measure = || {
            pin(SERVER_CORE)?;
            let (mut crowded, mut alone) = (gather(count)?, gather(FEW)?);
            let spread: Vec<usize> = (0..FEW).map(|nth| nth * (count / FEW)).collect();
            let all: Vec<usize> = (0..FEW).collect();
            let rounds = scale.count(4000);
            Figures::alternate(
                scale.runs,
                || cost(&spread, rounds, |members| ask(&mut crowded, members)),
                || cost(&all, rounds, |members| ask(&mut alone, members)),
            )
        };
        scope.spawn(measure).join().map_err(|_| broken("the measurement panicked"))?
    })
}

#[allow(clippy::cast_precision_loss)] // Nanoseconds of a run.
fn cost(
    members: &[usize],
    rounds: usize,
    mut ask: impl FnMut(&[usize]) -> Result<(u64, u64)>,
) -> Result<f64> {
    let (mut took, mut packets) = (0, 0);
    let each = members.repeat(ROUNDS);
    for _ in 0..rounds {
        let (ns, count) = ask(&each)?;
        (took, packets) = (took + ns, packets + count);
    }
    Ok(took as f64 / packets as f64)
}
