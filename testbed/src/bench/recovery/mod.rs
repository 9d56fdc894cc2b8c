//! The crash of a node: for how long a client has nothing, what it costs to be ready for it, and what others offer.
//!
//! Three nodes on one home link, with the kernel's clients behind a link as in a LAN. Everything runs on this machine: what a
//! node does to recover takes the core that another needs. Where a node dies, all of it has a real-time priority, so that
//! whatever else the machine does is not measured.

mod costs;
mod gaps;
mod keepalived;
mod mass;

use core::cell::OnceCell;
use std::path::Path;

use super::Options;
use super::stack::{Figures, Scale, keep, measured};
use crate::link::Profile;
use crate::nodes::{self, Offer};
use crate::report::{Bar, Row};
use crate::{Error, Result};

/// Its name.
pub(super) const NAME: &str = "recovery";

/// A client in the same building.
const LAN: Profile = Profile { delay_us: 50, rate_mbit: 1000, queue_bytes: 4 << 20, ..Profile::GOOD };

/// Ports of the services: without copies, and with one.
const ECHO: u16 = 7;
const ECHO_STRICT: u16 = 1007;
const FILE: u16 = 80;
const FILE_STRICT: u16 = 1080;
const FILE_REGENERATE: u16 = 2080;
const STREAM: u16 = 1554;

const OFFERS: &[Offer] = &[
    Offer::plain("echo", ECHO),
    Offer::protected("echo", ECHO_STRICT, "strict"),
    Offer::plain("file", FILE),
    Offer::protected("file", FILE_STRICT, "strict"),
    Offer::protected("file", FILE_REGENERATE, "regenerate"),
    Offer::protected("stream", STREAM, "strict"),
];

/// What rows are measured with.
struct Means<'a> {
    /// The node's binary.
    ferry: &'a Path,
    scale: Scale,
    /// Of two rows that are two figures of one measurement.
    kills: OnceCell<Vec<gaps::Kill>>,
}

impl Means<'_> {
    fn group() -> nodes::Options {
        nodes::Options { services: OFFERS, ..nodes::Options::default() }
    }
}

/// A row to be measured.
struct Plan {
    name: &'static str,
    unit: &'static str,
    peer: &'static str,
    bar: Option<Bar>,
    measure: fn(&Means<'_>) -> Result<Figures>,
}

const WITHOUT: &str = "the same without copies";
const KEEPALIVED: &str = "keepalived (VRRP, advert_int 1) and the kernel's TCP";

const fn plan(
    name: &'static str,
    unit: &'static str,
    peer: &'static str,
    bar: Option<Bar>,
    measure: fn(&Means<'_>) -> Result<Figures>,
) -> Plan {
    Plan { name, unit, peer, bar, measure }
}

/// The lease, which is also how long silence takes to be believed, and what may be added.
const CUT_MS: f64 = 200.0 + 20.0;

/// All rows, in the order in which they are measured.
#[rustfmt::skip]
const PLANS: [Plan; 8] = [
    plan("gap-kill-p50", "ms", "", Some(Bar::AtMost(20.0)), gaps::kill_p50),
    plan("gap-kill-p99", "ms", "", Some(Bar::AtMost(60.0)), gaps::kill_p99),
    plan("gap-cut", "ms", "", Some(Bar::AtMost(CUT_MS)), gaps::cut),
    plan("strict-throughput", "Mbit/s", WITHOUT, Some(Bar::AtLeast(0.7)), |means| costs::throughput(means, FILE_STRICT)),
    plan("regenerate-throughput", "Mbit/s", WITHOUT, Some(Bar::AtLeast(0.9)), |means| costs::throughput(means, FILE_REGENERATE)),
    plan("strict-latency", "µs", "one round trip between the nodes' hosts, process to process", Some(Bar::AtMost(1.5)), costs::latency),
    plan("mass-recovery-ms", "ms", "", Some(Bar::AtMost(500.0)), mass::recovery),
    plan("keepalived", "ms", KEEPALIVED, None, gaps::beside_keepalived),
];

/// The names of all rows.
pub(super) fn row_names() -> [&'static str; 8] {
    PLANS.map(|plan| plan.name)
}

/// The rows that were asked for, or all. A row that cannot be measured says why, and has not met its bar.
pub(super) fn rows(options: &Options, ferry: &Path) -> Result<Vec<Row>> {
    let scale = Scale { runs: options.runs.max(1), quick: options.quick };
    let means = Means { ferry, scale, kills: OnceCell::new() };
    let wanted = |plan: &&Plan| options.rows.is_empty() || options.rows.iter().any(|row| row == plan.name);
    let mut rows = Vec::new();
    for Plan { name, unit, peer, bar, measure } in PLANS.iter().filter(wanted) {
        eprintln!("bench recovery: {name}");
        rows.push(measured(name, unit, peer, *bar, scale, measure(&means)));
    }
    keep(options, NAME, &rows)?;
    Ok(rows)
}

/// A figure that could not be made.
#[allow(clippy::needless_pass_by_value)] // As `map_err` gives it.
fn broken(why: impl ToString) -> Error {
    Error::Program { command: "bench recovery".to_owned(), why: why.to_string() }
}
