//! What the testbed prints and writes.

mod bench;
mod details;

use core::fmt;
use std::fs;
use std::path::Path;

use serde::Serialize;

pub use self::bench::{Bar, BenchReport, Machine, Row, median};
pub use self::details::{Balance, Count, Moments};
use crate::Result;
use crate::analysis::Spread;
use crate::error::Doing;

/// The version of both formats below.
const VERSION: u32 = 1;

/// How all demos that were run ended.
#[derive(Clone, Debug, Serialize)]
pub struct DemoReport {
    version: u32,
    /// In the order in which they ran.
    pub demos: Vec<Demo>,
}

impl DemoReport {
    /// Of these demos.
    pub fn new(demos: Vec<Demo>) -> Self {
        Self { version: VERSION, demos }
    }

    /// Whether everything held, in at least one demo.
    pub fn ok(&self) -> bool {
        !self.demos.is_empty() && self.demos.iter().all(|demo| demo.ok)
    }
}

/// How one demo ended.
#[derive(Clone, Debug, Serialize)]
pub struct Demo {
    /// Its name.
    pub name: &'static str,
    /// Whether everything held.
    pub ok: bool,
    /// What the client ran.
    pub client: String,
    /// How the client is reached.
    pub mode: &'static str,
    /// Nodes that were killed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crashes: Option<usize>,
    /// Octets that never reached the client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_lost: Option<u64>,
    /// Octets that reached its application twice.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_duplicated: Option<u64>,
    /// From a crash until another node knew of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detect_ms: Option<Spread>,
    /// From then on until the connection went on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restore_ms: Option<Spread>,
    /// How much a player had to buffer so that it always had something to play.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub least_buffer_ms: Option<f64>,
    /// How often a player with so many milliseconds in its buffer had nothing to play.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub underruns: Vec<(u64, usize)>,
    /// Octets of the file or the stream that crossed during handoffs, all transfers together.
    pub bytes: u64,
    /// Whether each arrived as it was sent.
    pub digest_match: bool,
    /// Connections that changed their node.
    pub handoffs: usize,
    /// Packets that passed the contact node while their client was bound to another node's care-of address, by the
    /// router's capture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets_via_contact_after_binding: Option<u64>,
    /// Packets that the client sent straight to whoever served it, with a type 2 routing header.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets_straight_to_node: Option<u64>,
    /// Packets that the client was sent straight, with a Home Address option.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets_straight_from_node: Option<u64>,
    /// Packets that a node sent as to an ordinary client behind some that it had sent straight, without having become
    /// its owner anew: the path did not seem to carry the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packets_fallen_back: Option<u64>,
    /// Bindings that the client acknowledged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bindings: Option<usize>,
    /// RST segments in the client's capture, of either side.
    pub resets: usize,
    /// The addresses that the client's connections came from, by the capture.
    pub peers: Vec<String>,
    /// All capability sets of all nodes joined, in hexadecimal.
    pub node_capabilities: String,
    /// The users that the nodes run as.
    pub node_uids: Vec<u32>,
    /// The longest silence on the client's wire around each handoff.
    pub gap_ms: Option<Spread>,
    /// The same around as many random moments of the download without handoffs: what the machine itself adds.
    pub baseline_gap_ms: Option<Spread>,
    /// From the freezing at the donor until the connection ran at the acceptor, by the nodes' traces.
    pub move_ms: Option<Spread>,
    /// Of the snapshots that moved.
    pub snapshot_kib: Option<Spread>,
    /// The median of the downloads with handoffs.
    pub goodput_mbit: Option<f64>,
    /// The median of the downloads without.
    pub baseline_mbit: Option<f64>,
    /// Through `echo` with handoffs, each direction.
    pub upload_mbit: Option<f64>,
    /// The mean time between two handoffs.
    pub interval_ms: u64,
    /// Decides the moments of the handoffs.
    pub seed: u64,
    /// The emulated link.
    pub link: Option<crate::link::Profile>,
    /// Where the demo ran: `namespaces` or `simulated`.
    pub world: &'static str,
    /// Frames that the capture missed.
    pub capture_drops: u64,
    /// Of `any-moment`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moments: Option<Moments>,
    /// Of `load-balancing`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<Balance>,
    /// What did not hold, and where the evidence is.
    pub why: Option<String>,
}

impl Demo {
    /// One that has shown nothing yet.
    pub fn unfinished(name: &'static str, client: String) -> Self {
        Self {
            name,
            ok: false,
            client,
            mode: "relayed",
            crashes: None,
            bytes_lost: None,
            bytes_duplicated: None,
            detect_ms: None,
            restore_ms: None,
            least_buffer_ms: None,
            underruns: Vec::new(),
            bytes: 0,
            digest_match: false,
            handoffs: 0,
            packets_via_contact_after_binding: None,
            packets_straight_to_node: None,
            packets_straight_from_node: None,
            packets_fallen_back: None,
            bindings: None,
            resets: 0,
            peers: Vec::new(),
            node_capabilities: "unknown".to_owned(),
            node_uids: Vec::new(),
            gap_ms: None,
            baseline_gap_ms: None,
            move_ms: None,
            snapshot_kib: None,
            goodput_mbit: None,
            baseline_mbit: None,
            upload_mbit: None,
            interval_ms: 0,
            seed: 0,
            link: None,
            world: "namespaces",
            capture_drops: 0,
            moments: None,
            balance: None,
            why: None,
        }
    }

    /// It has shown what it had to, if nothing was wrong.
    pub fn conclude(&mut self, problems: &[String]) {
        self.ok = problems.is_empty();
        self.why = (!self.ok).then(|| problems.join("; "));
    }
}

/// Fails if no report could be written to this file: better now than after the work.
pub fn check_writable(path: &Path) -> Result<()> {
    let file = fs::File::options().create(true).append(true).open(path);
    file.map(drop).doing(format!("write {}", path.display()))
}

/// Writes a report to a file.
pub fn write(report: &impl Serialize, path: &Path) -> Result<()> {
    let doing = format!("write {}", path.display());
    let mut text = serde_json::to_string_pretty(report).doing(&doing)?;
    text.push('\n');
    fs::write(path, text).doing(doing)
}

impl fmt::Display for Demo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mbit = |figure: Option<f64>| figure.map_or("-".to_owned(), |mbit| format!("{mbit:.0} Mbit/s"));
        let spread = |spread: Option<Spread>| {
            spread.map_or("-".to_owned(), |Spread { p50, p99, max }| {
                format!("p50 {p50:.2}  p99 {p99:.2}  max {max:.2}")
            })
        };
        let ratio = self.goodput_mbit.zip(self.baseline_mbit).map(|(ours, base)| ours / base);
        let gap = if self.crashes.is_some() { "gap at a crash, ms" } else { "gap at a handoff, ms" };
        let none = |none: bool, value: String| if none { "-".to_owned() } else { value };
        let nodes = format!("users {:?}, capabilities {}", self.node_uids, self.node_capabilities);
        let mut rows = vec![
            ("client", self.client.clone()),
            ("world", self.world.to_owned()),
            ("link", self.link.map_or("-".to_owned(), |link| link.to_string())),
            ("nodes", none(self.node_uids.is_empty(), nodes)),
            ("octets", self.bytes.to_string()),
            ("digests", if self.digest_match { "match" } else { "not shown to match" }.to_owned()),
            ("handoffs", none(self.crashes.is_some(), self.apart())),
            ("way", self.way()),
            ("resets", self.resets.to_string()),
            ("peers the client saw", none(self.peers.is_empty(), self.peers.join(", "))),
            (gap, spread(self.gap_ms)),
            ("  without handoffs, ms", spread(self.baseline_gap_ms)),
            ("frozen until running, ms", spread(self.move_ms)),
            ("snapshots, KiB", spread(self.snapshot_kib)),
            ("download", mbit(self.goodput_mbit)),
            ("  without handoffs", mbit(self.baseline_mbit)),
            ("  ratio", ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))),
            ("upload through echo", mbit(self.upload_mbit)),
            ("seed", self.seed.to_string()),
        ];
        rows.extend(self.moments.iter().flat_map(Moments::lines));
        rows.extend(self.balance.iter().flat_map(Balance::lines));
        rows.retain(|(_, value)| value != "-");
        if let Some(crashes) = self.crashes {
            let count = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
            let (lost, twice) = (count(self.bytes_lost), count(self.bytes_duplicated));
            rows.push(("crashes", format!("{crashes}; {lost} octets lost, {twice} duplicated")));
            rows.push(("  until known, ms", spread(self.detect_ms)));
            rows.push(("  then until going on, ms", spread(self.restore_ms)));
        }
        if let Some(least) = self.least_buffer_ms {
            rows.push(("least buffer, ms", format!("{least:.0}; underruns by buffer: {:?}", self.underruns)));
        }
        if let Some(why) = &self.why {
            rows.push(("why", why.clone()));
        }
        writeln!(f, "{} {}", self.name, if self.ok { "ok" } else { "FAILED" })?;
        rows.iter().try_for_each(|(name, value)| writeln!(f, "  {name:<26}{value}"))
    }
}

impl Demo {
    fn apart(&self) -> String {
        match self.interval_ms {
            0 => self.handoffs.to_string(),
            millis => format!("{}, {millis} ms apart on average", self.handoffs),
        }
    }

    fn way(&self) -> String {
        let count = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
        match self.packets_via_contact_after_binding {
            None => match self.packets_straight_from_node {
                Some(packets) => format!("{}: {packets} packets straight from nodes", self.mode),
                None => self.mode.to_owned(),
            },
            Some(via_contact) => format!(
                "{}: {} packets straight to nodes, {} from nodes, {via_contact} by the contact node once bound",
                self.mode,
                count(self.packets_straight_to_node),
                count(self.packets_straight_from_node),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_demo_at_all_is_not_ok() {
        assert!(!DemoReport::new(vec![]).ok());
    }
}
