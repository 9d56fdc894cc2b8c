//! The TCP stack as it ships, side by side with the kernel's and with smoltcp's, in one run.
//!
//! *Ours* is the node's data plane ([`ferry_node::driver::Alone`]): the TAP driver, the loop, the sans-I/O node and its
//! sessions. Servers run on core 1, whoever they are; clients, which are the kernel's, on core 0. Runs of both sides
//! alternate.

mod bulk;
mod chart;
mod client;
mod crowd;
mod flood;
mod foreign;
mod ground;
mod kernel;
mod memory;
mod ours;
mod paths;
mod thin;
mod trips;

use core::time::Duration;
use std::fs;

use self::client::Way;
use self::ground::Ground;
pub(super) use self::memory::{among_many, resident};
pub(super) use self::thin::Thin;
use super::Options;
use crate::error::Doing;
use crate::report::{Bar, Row};
use crate::{Error, Result};

/// Its name.
pub(super) const NAME: &str = "stack";

/// How much is measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scale {
    /// How often each side runs.
    pub(super) runs: usize,
    /// Only to see that each row works.
    pub(super) quick: bool,
}

impl Scale {
    fn span(self, millis: u64) -> Duration {
        Duration::from_millis(if self.quick { millis.div_ceil(20) } else { millis })
    }

    pub(super) fn count(self, count: usize) -> usize {
        if self.quick { count.div_ceil(50) } else { count }
    }
}

/// What a row measured.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) ours: Vec<f64>,
    /// Empty if there is nobody to compare with.
    pub(super) peer: Vec<f64>,
    /// Said in place of the peer's name.
    pub(super) note: Option<String>,
}

impl Figures {
    /// Of ours, with nobody to compare with.
    pub(super) fn alone(ours: Vec<f64>) -> Self {
        Self { ours, peer: Vec::new(), note: None }
    }

    /// Lets both sides measure in turn.
    pub(super) fn alternate(
        runs: usize,
        mut ours: impl FnMut() -> Result<f64>,
        mut peer: impl FnMut() -> Result<f64>,
    ) -> Result<Self> {
        let mut figures = Self { ours: Vec::new(), peer: Vec::new(), note: None };
        for _ in 0..runs {
            figures.ours.push(ours()?);
            figures.peer.push(peer()?);
        }
        Ok(figures)
    }
}

/// A row to be measured.
struct Plan {
    name: &'static str,
    unit: &'static str,
    peer: &'static str,
    bar: Bar,
    measure: fn(&Ground, Scale) -> Result<Figures>,
}

const OVER_VETH: &str = "kernel to kernel over veth, TSO, CUBIC";
const SMOLTCP: &str = "smoltcp 0.14 over the same TAP";
const SAME_LINK: &str = "Linux CUBIC through the same link";

const fn plan(
    name: &'static str,
    unit: &'static str,
    peer: &'static str,
    bar: Bar,
    measure: fn(&Ground, Scale) -> Result<Figures>,
) -> Plan {
    Plan { name, unit, peer, bar, measure }
}

/// All rows, in the order in which they are measured.
#[rustfmt::skip]
const PLANS: [Plan; 15] = [
    plan("bulk-in-1", "Gbit/s", OVER_VETH, Bar::AtLeast(0.9), |g, s| bulk::against_kernel(g, s, Way::In, 1)),
    plan("bulk-out-1", "Gbit/s", OVER_VETH, Bar::AtLeast(0.9), |g, s| bulk::against_kernel(g, s, Way::Out, 1)),
    plan("bulk-in-8", "Gbit/s", OVER_VETH, Bar::AtLeast(0.9), |g, s| bulk::against_kernel(g, s, Way::In, 8)),
    plan("bulk-out-8", "Gbit/s", OVER_VETH, Bar::AtLeast(0.9), |g, s| bulk::against_kernel(g, s, Way::Out, 8)),
    plan("frames-in", "Gbit/s", SMOLTCP, Bar::AtLeast(1.5), |g, s| bulk::against_smoltcp(g, s, Way::In)),
    plan("frames-out", "Gbit/s", SMOLTCP, Bar::AtLeast(1.1), |g, s| bulk::against_smoltcp(g, s, Way::Out)),
    plan("rtt", "µs", "kernel to kernel over veth, blocking", Bar::AtMost(1.4), |g, s| trips::round_trip(g, s, false)),
    plan("rtt-spin", "µs", "kernel to kernel over veth, blocking", Bar::AtMost(0.5), |g, s| trips::round_trip(g, s, true)),
    plan("connect-close", "1/s", "kernel to kernel over veth", Bar::AtLeast(1.3), trips::churn),
    plan("loss", "Mbit/s", SAME_LINK, Bar::AtLeast(0.95), |g, s| paths::goodput(g, s, paths::LOSS, paths::CONNECTIONS, 1)),
    plan("reorder", "Mbit/s", SAME_LINK, Bar::AtLeast(0.95), |g, s| paths::goodput(g, s, paths::REORDER, 1, 1)),
    plan("shallow", "Mbit/s", SAME_LINK, Bar::AtLeast(0.95), |g, s| paths::goodput(g, s, paths::SHALLOW, 1, paths::TURNS)),
    plan("idle-bytes", "octets", "", Bar::AtMost(1024.0), |_, s| memory::idle(s)),
    plan("many-connections", "ns", "the same with 10 connections open", Bar::AtMost(1.3), |_, s| memory::many(s)),
    plan("syn-flood", "clients", "", Bar::AtLeast(100.0), flood::served),
];

const _: () = assert!(flood::CLIENTS == 100, "the bar of `syn-flood` is: all");

/// The names of all rows.
pub(super) fn row_names() -> [&'static str; 15] {
    PLANS.map(|plan| plan.name)
}

/// The rows that were asked for, or all. A row that cannot be measured says why, and has not met its bar.
pub(super) fn rows(options: &Options) -> Result<Vec<Row>> {
    let ground = Ground::build()?;
    let scale = Scale { runs: options.runs.max(1), quick: options.quick };
    let wanted = |plan: &&Plan| options.rows.is_empty() || options.rows.iter().any(|row| row == plan.name);
    let mut rows = Vec::new();
    for plan in PLANS.iter().filter(wanted) {
        eprintln!("bench stack: {}", plan.name);
        rows.push(measure(plan, &ground, scale));
    }
    keep(options, NAME, &rows)?;
    Ok(rows)
}

/// Puts a picture of the rows, and a table, where that is wanted.
pub(super) fn keep(options: &Options, name: &str, rows: &[Row]) -> Result<()> {
    let Some(folder) = &options.out else { return Ok(()) };
    fs::create_dir_all(folder).doing(format!("make {}", folder.display()))?;
    for (ending, text) in [("svg", chart::draw(rows)), ("csv", Row::table(rows))] {
        let path = folder.join(format!("{name}.{ending}"));
        fs::write(&path, text).doing(format!("write {}", path.display()))?;
    }
    Ok(())
}

fn measure(plan: &Plan, ground: &Ground, scale: Scale) -> Row {
    let Plan { name, unit, peer, bar, measure } = plan;
    measured(name, unit, peer, Some(*bar), scale, measure(ground, scale))
}

/// The row of what was measured, or of why it was not.
pub(super) fn measured(
    name: &'static str,
    unit: &'static str,
    peer: &str,
    bar: Option<Bar>,
    scale: Scale,
    figures: Result<Figures>,
) -> Row {
    // Figures of a run that only shows that the row works are worth nothing.
    let bar = bar.filter(|_| !scale.quick);
    let row = figures.and_then(|figures| {
        let compared = (!figures.peer.is_empty()).then_some((peer, figures.peer.as_slice()));
        let row = Row::new(name, unit, &figures.ours, compared, bar);
        let mut row = row.ok_or_else(|| ground::broken("there are no figures"))?;
        row.peer_is = figures.note.or(row.peer_is);
        Ok(row)
    });
    row.unwrap_or_else(|why: Error| Row::failed(name, unit, bar, why.to_string()))
}
