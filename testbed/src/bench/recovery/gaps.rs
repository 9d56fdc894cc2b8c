//! What clients notice when a node is killed, or when its cables are pulled.

use core::time::Duration;
use std::path::Path;

use super::{ECHO, LAN, Means, STREAM, broken, keepalived};
use crate::Result;
use crate::analysis::Spread;
use crate::bench::stack::{Figures, Scale};
use crate::clock::{await_some, now_ns};
use crate::crash::crowd::Crowd;
use crate::crash::{Crash, Crew, PATIENCE, attempt, service};
use crate::report::median;
use crate::sys::urgent::urgently;
use crate::world::NODES;

/// Connections.
const CLIENTS: usize = 1000;
/// One in so many gets its stream in pieces that come every 10 ms, and is measured; the others every second. Fifty of them
/// take two fifths of a machine with two cores that is all hosts at once.
const DENSE: usize = 20;
const DENSE_RATE: u64 = 800;
const SPARSE_RATE: u64 = 8;
const DENSE_PERIOD: Duration = Duration::from_millis(10);
/// The node that dies: not the contact node, which the connections came to first.
const VICTIM: usize = 1;
const BEFORE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_millis(1500);
const ATTEMPT: Duration = Duration::from_millis(50);

/// What one death came to, in milliseconds.
#[derive(Clone, Debug)]
pub(super) struct Kill {
    p50: f64,
    p99: f64,
    /// Until another node knew of it …
    known: f64,
    /// … and until the first connection went on, and the last one.
    first: f64,
    last: f64,
}

impl Kill {
    /// Figures of all of them, and what they are made of.
    fn figures(kills: &[Self], gap: impl Fn(&Self) -> f64) -> Figures {
        let median =
            |part: fn(&Self) -> f64| median(&kills.iter().map(part).collect::<Vec<_>>()).unwrap_or(f64::NAN);
        let (p99, known) = (median(|kill| kill.p99), median(|kill| kill.known));
        let (first, last) = (median(|kill| kill.first), median(|kill| kill.last));
        let note = format!(
            "p99 {p99:.0}; known after {known:.1} ms, connections go on after {first:.1} to {last:.1} ms"
        );
        Figures { note: Some(note), ..Figures::alone(kills.iter().map(gap).collect()) }
    }
}

/// The median gap of the clients, of each kill.
pub(super) fn kill_p50(means: &Means<'_>) -> Result<Figures> {
    Ok(Kill::figures(kills(means)?, |kill| kill.p50))
}

/// The gap that one client in a hundred exceeds, of each kill.
pub(super) fn kill_p99(means: &Means<'_>) -> Result<Figures> {
    Ok(Kill::figures(kills(means)?, |kill| kill.p99))
}

fn kills<'a>(means: &'a Means<'_>) -> Result<&'a [Kill]> {
    if let Some(kills) = means.kills.get() {
        return Ok(kills);
    }
    let Means { ferry, scale, .. } = *means;
    let kills = (0..scale.runs).map(|_| urgently(|| one(ferry, scale, |crew| crew.kill(VICTIM))));
    let kills = kills.collect::<Result<Vec<_>>>()?;
    Ok(means.kills.get_or_init(|| kills))
}

/// The median gap when nobody sees a socket close.
pub(super) fn cut(means: &Means<'_>) -> Result<Figures> {
    let cut = |crew: &mut Crew| {
        let at = now_ns();
        crew.world.cut(NODES[VICTIM])?;
        Ok(at)
    };
    let Means { ferry, scale, .. } = *means;
    let cuts = (0..scale.runs).map(|_| urgently(|| one(ferry, scale, cut)));
    let cuts = cuts.collect::<Result<Vec<_>>>()?;
    Ok(Kill::figures(&cuts, |cut| cut.p50))
}

/// Clients whose streams come from one node, which dies.
fn one(ferry: &Path, scale: Scale, end: impl FnOnce(&mut Crew) -> Result<u64>) -> Result<Kill> {
    let mut crew = Crew::gather(ferry, LAN, Means::group())?;
    let count = scale.count(CLIENTS).max(2 * DENSE);
    let rate = |nth: usize| if nth.is_multiple_of(DENSE) { DENSE_RATE } else { SPARSE_RATE };
    let mut crowd = Crowd::gather(&crew.world.client, service(STREAM), count, rate)?;
    crowd.await_all(PATIENCE)?;
    settle(&mut crew, &mut crowd, count)?;
    crowd.read(BEFORE, true, |_| false)?;
    let at = end(&mut crew)?;
    crowd.read(AFTER, true, |_| false)?;
    let gaps = crowd.gaps_ms(at, DENSE_PERIOD);
    crowd.await_all(PATIENCE)?;
    check(&crowd)?;
    let Spread { p50, p99, .. } = Spread::of(gaps).ok_or_else(|| broken("nobody was measured"))?;
    let (crash, events) = (Crash { at_ns: at, victim: VICTIM, port: STREAM }, crew.events()?);
    #[allow(clippy::cast_precision_loss)] // Nanoseconds of a recovery.
    let after = |at_ns: Option<u64>| at_ns.map_or(f64::NAN, |at_ns| (at_ns - at) as f64 * 1e-6);
    let restored = crash.restored_ns(u64::MAX, &events);
    let [first, last] = restored.map_or([None; 2], |times| times.map(Some)).map(after);
    Ok(Kill { p50, p99, known: after(crash.detected_ns(&events)), first, last })
}

/// All connections go to the node that will die, and are held elsewhere.
pub(super) fn settle(crew: &mut Crew, crowd: &mut Crowd, count: usize) -> Result<()> {
    let mut moved = 0;
    await_some("all connections at the node that will die", PATIENCE, Duration::from_millis(10), || {
        let some = crew.node(0)?.control.handoff_all(NODES[VICTIM])?;
        moved += some.moved;
        match some.failed.first() {
            Some(failed) => Err(broken(format!("a connection did not move: {failed:?}"))),
            None => Ok((moved >= count).then_some(())),
        }
    })?;
    crew.await_protection(count)?;
    // What was not read meanwhile is no gap.
    crowd.await_all(PATIENCE).map(drop)
}

/// Fails if an octet is missing, or came twice.
pub(super) fn check(crowd: &Crowd) -> Result<()> {
    match crowd.wrong() {
        (0, 0) => Ok(()),
        (lost, twice) => Err(broken(format!("{lost} octets are missing, {twice} came twice"))),
    }
}

/// The contact node's cables are pulled, and the keepalived master's: until a new connection works.
pub(super) fn beside_keepalived(means: &Means<'_>) -> Result<Figures> {
    let (mut figures, mut ends) = (Figures::alone(Vec::new()), Vec::new());
    for _ in 0..means.scale.runs {
        figures.ours.push(new_connection(means)?);
        let theirs = keepalived::fail_over()?;
        figures.peer.push(theirs.new_ms);
        ends.push(theirs.old);
    }
    let ends: Vec<_> = ends.iter().map(ToString::to_string).collect();
    figures.note = Some(format!("{}; its old connections: {}", super::KEEPALIVED, ends.join(", ")));
    Ok(figures)
}

/// Until a new connection works when the contact node is cut off; the old one must go on.
fn new_connection(means: &Means<'_>) -> Result<f64> {
    let mut crew = Crew::gather(means.ferry, LAN, Means::group())?;
    let mut crowd = Crowd::gather(&crew.world.client, service(STREAM), 1, |_| DENSE_RATE)?;
    crowd.await_all(PATIENCE)?;
    crew.await_protection(1)?;
    let at = now_ns();
    crew.world.cut(NODES[0])?;
    let client = &crew.world.client;
    let new = await_some("a new connection to the group", PATIENCE, Duration::from_millis(1), || {
        client.run(|| Ok(attempt(service(ECHO), ATTEMPT)))
    })?;
    #[allow(clippy::cast_precision_loss)] // Nanoseconds of a fail-over.
    let new_ms = (now_ns() - at) as f64 * 1e-6;
    drop(new);
    crowd.await_all(PATIENCE)?;
    check(&crowd).map(|()| new_ms)
}
