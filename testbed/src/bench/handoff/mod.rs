//! What a handoff costs, and what the client sees of it.
//!
//! Host time and handoffs a second are measured within this process; what passes between nodes and clients in the demos'
//! world, between kernels and node processes; the gap also in the simulated world, over a complete grid of latencies.

mod client_rto;
mod freeze;
mod gap;
mod group;
mod host_time;
mod rate;

use std::path::Path;

pub(in crate::bench) use self::host_time::{PEER as REPAIRED, measure as host_time};
use super::stack::{Figures, Scale, keep, measured};
use super::{Options, handoff_first};
use crate::regression::Fit;
use crate::report::{Bar, Row};
use crate::{Error, Result};

/// Its name.
pub(super) const NAME: &str = "handoff";

/// A figure that could not be made.
#[allow(clippy::needless_pass_by_value)] // As `map_err` gives it.
fn broken(why: impl ToString) -> Error {
    Error::Program { command: "bench handoff".to_owned(), why: why.to_string() }
}

/// What rows are measured with.
#[derive(Clone, Copy, Debug)]
struct Means<'a> {
    options: &'a Options,
    /// The node's binary.
    ferry: &'a Path,
    scale: Scale,
}

/// A row to be measured by itself.
struct Plan {
    name: &'static str,
    unit: &'static str,
    peer: &'static str,
    bar: Option<Bar>,
    measure: fn(Means<'_>) -> Result<Figures>,
}

const KIB_64: usize = 64 << 10;

/// Rows that are measured one by one, in the order in which they are.
#[rustfmt::skip]
const PLANS: [Plan; 4] = [
    Plan { name: "host-time-empty", unit: "µs", peer: REPAIRED, bar: Some(Bar::AtMost(0.25)), measure: |means| host_time(means.scale, 0) },
    Plan { name: "host-time-64k", unit: "µs", peer: REPAIRED, bar: Some(Bar::AtMost(0.25)), measure: |means| host_time(means.scale, KIB_64) },
    Plan { name: "handoffs-per-second", unit: "1/s", peer: "", bar: Some(Bar::AtLeast(50_000.0)), measure: rate::measure },
    Plan { name: "handoffs-per-second-links", unit: "1/s", peer: "", bar: None, measure: freeze::storm },
];

/// Rows that are measured together.
struct Family {
    names: &'static [&'static str],
    measure: fn(Means<'_>) -> Result<Measured>,
}

/// Rows, and the formulas that some of them tell of.
type Measured = (Vec<Row>, Vec<Fit>);

const FAMILIES: [Family; 4] = [
    Family { names: &["freeze-p50", "freeze-p99"], measure: frozen },
    Family { names: &gap::ROWS, measure: |means| gap::rows(means) },
    Family { names: &["client-rto"], measure: |means| Ok((vec![client_rto::row(means)?], Vec::new())) },
    Family { names: &["goodput-10-per-second"], measure: goodput },
];

/// The names of all rows.
pub(super) fn row_names() -> Vec<&'static str> {
    let together = FAMILIES.iter().flat_map(|family| family.names.iter().copied());
    PLANS.iter().map(|plan| plan.name).chain(together).collect()
}

/// Both against the median of the round trips: the bar of the 99th percentile is the stricter for it.
fn frozen(means: Means<'_>) -> Result<Measured> {
    const TRIP: &str = "Prepare until Ready of the same handoffs: a message and its answer, median";
    let times = freeze::measure(means)?;
    let pick = |pick: fn(&freeze::Times) -> f64| times.iter().map(pick).collect::<Vec<_>>();
    let trips = pick(|times| times.trip.p50);
    let row = |name, ours: Vec<f64>, most| {
        let bar = Some(Bar::AtMost(most)).filter(|_| !means.scale.quick);
        Row::new(name, "µs", &ours, Some((TRIP, &trips)), bar).ok_or_else(|| broken("there are no figures"))
    };
    let rows = vec![
        row("freeze-p50", pick(|times| times.freeze.p50), 2.0)?,
        row("freeze-p99", pick(|times| times.freeze.p99), 4.0)?,
    ];
    Ok((rows, Vec::new()))
}

fn goodput(means: Means<'_>) -> Result<Measured> {
    let bar = Some(Bar::AtLeast(0.97)).filter(|_| !means.scale.quick);
    let octets = if means.scale.quick { 16 << 20 } else { 256 << 20 };
    let (name, runs, link) = ("goodput-10-per-second", means.scale.runs, means.options.link);
    let row = handoff_first::goodput(name, bar, runs, octets, means.ferry, link)?;
    Ok((row.into_iter().collect(), Vec::new()))
}

/// The rows that were asked for, or all, with the formulas that some of them tell of. A row that cannot be measured says
/// why, and has not met its bar.
pub(super) fn rows(options: &Options, ferry: &Path) -> Result<Measured> {
    let scale = Scale { runs: options.runs.max(1), quick: options.quick };
    let means = Means { options, ferry, scale };
    let wanted = |name: &str| options.rows.is_empty() || options.rows.iter().any(|row| row == name);
    let (mut rows, mut fits) = (Vec::new(), Vec::new());
    for Plan { name, unit, peer, bar, measure } in PLANS.iter().filter(|plan| wanted(plan.name)) {
        eprintln!("bench handoff: {name}");
        rows.push(measured(name, unit, peer, *bar, scale, measure(means)));
    }
    for Family { names, measure } in &FAMILIES {
        if !names.iter().any(|name| wanted(name)) {
            continue;
        }
        eprintln!("bench handoff: {}", names.join(", "));
        match measure(means) {
            Ok((some, more)) => {
                rows.extend(some);
                fits.extend(more);
            }
            Err(why) => rows.extend(names.iter().map(|name| Row::failed(name, "", None, why.to_string()))),
        }
    }
    rows.retain(|row| wanted(row.name));
    keep(options, NAME, &rows)?;
    Ok((rows, fits))
}
