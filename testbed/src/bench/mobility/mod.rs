//! Mobile IPv6: what its signalling takes, what its paths carry, and what its headers and bindings cost.
//!
//! The first four rows are measured in the demos' world, between kernels and node processes; the others within this
//! process, where a kernel would only hide them.

mod costs;
mod crowd;
mod signalling;
mod transfers;

use std::path::Path;

use super::Options;
use super::stack::{Figures, Scale, keep, measured};
use crate::link::Profile;
use crate::report::{Bar, Row};
use crate::{Error, Result};

/// Its name.
pub(super) const NAME: &str = "mobility";

/// What rows are measured with.
#[derive(Clone, Copy, Debug)]
struct Means<'a> {
    /// The node's binary.
    ferry: &'a Path,
    /// The emulated link of the transfers.
    link: Profile,
    scale: Scale,
}

/// A row to be measured.
struct Plan {
    name: &'static str,
    unit: &'static str,
    peer: &'static str,
    bar: Option<Bar>,
    measure: fn(Means<'_>) -> Result<Figures>,
}

const PING: &str = "ping of the same path, 20 ms there and back";
const AT_HOME: &str = "the same transfer at home";

const fn plan(
    name: &'static str,
    unit: &'static str,
    peer: &'static str,
    bar: Option<Bar>,
    measure: fn(Means<'_>) -> Result<Figures>,
) -> Plan {
    Plan { name, unit, peer, bar, measure }
}

/// All rows, in the order in which they are measured.
#[rustfmt::skip]
const PLANS: [Plan; 8] = [
    plan("rr-time", "ms", PING, Some(Bar::AtMost(1.1)), signalling::tests),
    plan("bu-ba-time", "ms", PING, Some(Bar::AtMost(1.1)), signalling::update),
    plan("optimised-throughput", "Mbit/s", AT_HOME, Some(Bar::AtLeast(0.95)), transfers::optimised),
    plan("tunnel-throughput", "Mbit/s", AT_HOME, Some(Bar::AtLeast(0.85)), transfers::tunnelled),
    plan("rewrite-ns", "ns", "the same packets as they are", None, |means| costs::rewriting(means.scale)),
    plan("bindings-per-second", "1/s", "", None, |means| costs::bindings(means.scale)),
    plan("binding-bytes", "octets", "", None, |means| costs::memory(means.scale)),
    plan("many-bindings", "ns", "the same with 10 bindings", Some(Bar::AtMost(1.3)), |means| crowd::many(means.scale)),
];

/// The names of all rows.
pub(super) fn row_names() -> [&'static str; 8] {
    PLANS.map(|plan| plan.name)
}

/// The rows that were asked for, or all. A row that cannot be measured says why, and has not met its bar.
pub(super) fn rows(options: &Options, ferry: &Path) -> Result<Vec<Row>> {
    let scale = Scale { runs: options.runs.max(1), quick: options.quick };
    let means = Means { ferry, link: options.link, scale };
    let wanted = |plan: &&Plan| options.rows.is_empty() || options.rows.iter().any(|row| row == plan.name);
    let mut rows = Vec::new();
    for Plan { name, unit, peer, bar, measure } in PLANS.iter().filter(wanted) {
        eprintln!("bench mobility: {name}");
        rows.push(measured(name, unit, peer, *bar, scale, measure(means)));
    }
    keep(options, NAME, &rows)?;
    Ok(rows)
}

/// A figure that could not be made.
#[allow(clippy::needless_pass_by_value)] // As `map_err` gives it.
fn broken(why: impl ToString) -> Error {
    Error::Program { command: "bench mobility".to_owned(), why: why.to_string() }
}
