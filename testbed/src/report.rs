//! What the testbed prints and writes.

use core::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde::Serialize;

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
            why: None,
        }
    }

    /// It has shown what it had to, if nothing was wrong.
    pub fn conclude(&mut self, problems: &[String]) {
        self.ok = problems.is_empty();
        self.why = (!self.ok).then(|| problems.join("; "));
    }
}

/// How a benchmark ended.
#[derive(Clone, Debug, Serialize)]
pub struct BenchReport {
    version: u32,
    /// Its name.
    pub bench: &'static str,
    /// Where it ran.
    pub machine: Machine,
    /// What was measured.
    pub rows: Vec<Row>,
}

impl BenchReport {
    /// Of these rows, on this machine.
    pub fn new(bench: &'static str, rows: Vec<Row>) -> Self {
        Self { version: VERSION, bench, machine: Machine::this(), rows }
    }

    /// Whether every bar was met.
    pub fn ok(&self) -> bool {
        !self.rows.is_empty() && self.rows.iter().all(|row| row.ok)
    }
}

/// A machine and what ran on it.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Cores.
    pub cpus: usize,
    /// The kernel's release.
    pub kernel: String,
    /// The commit of the working tree that this was built from; ends in `-dirty` if files were changed since.
    pub commit: String,
}

impl Machine {
    /// The one we run on.
    pub fn this() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, core::num::NonZero::get);
        let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
        let mut git = Command::new("git");
        git.args(["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]);
        let described = git.current_dir(env!("CARGO_MANIFEST_DIR")).output();
        let described = described.ok().filter(|output| output.status.success());
        let commit = described.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        Self { cpus, kernel, commit: commit.unwrap_or_else(|| "unknown".to_owned()) }
    }
}

/// One figure of a benchmark.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// What was measured.
    pub name: &'static str,
    /// Of `ours`, `peer` and `spread`.
    pub unit: &'static str,
    /// Our median.
    pub ours: f64,
    /// The median of what we compare with.
    pub peer: Option<f64>,
    /// What that is.
    pub peer_is: Option<String>,
    /// `ours / peer`, of the medians.
    pub ratio: Option<f64>,
    /// How often each side ran.
    pub runs: usize,
    /// Our least and greatest.
    pub spread: [f64; 2],
    /// What must hold of the ratio, or of `ours` where there is no peer.
    pub bar: Option<Bar>,
    /// Whether it holds; a row without a bar is fine.
    pub ok: bool,
    /// Why there are no figures, if there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

impl Row {
    /// Makes a row of the figures of alternating runs. There must be some of ours.
    pub fn new(
        name: &'static str,
        unit: &'static str,
        ours: &[f64],
        peer: Option<(&str, &[f64])>,
        bar: Option<Bar>,
    ) -> Option<Self> {
        let middle = median(ours)?;
        let (peer_is, peer) = peer.map(|(name, figures)| (name.to_owned(), median(figures))).unzip();
        let peer = peer.flatten();
        let ratio = peer.filter(|peer| *peer > 0.0).map(|peer| middle / peer);
        let extreme = |pick: fn(f64, f64) -> f64| ours.iter().copied().fold(middle, pick);
        let judged = ratio.or(peer.is_none().then_some(middle));
        let ok = bar.is_none_or(|bar| judged.is_some_and(|figure| bar.holds(figure)));
        let spread = [extreme(f64::min), extreme(f64::max)];
        Some(Self {
            name,
            unit,
            ours: middle,
            peer,
            peer_is,
            ratio,
            runs: ours.len(),
            spread,
            bar,
            ok,
            why: None,
        })
    }
}

impl Row {
    /// A row that could not be measured: never fine. Its figures are no numbers, which JSON writes as `null`.
    pub fn failed(name: &'static str, unit: &'static str, bar: Option<Bar>, why: String) -> Self {
        Self {
            name,
            unit,
            ours: f64::NAN,
            peer: None,
            peer_is: None,
            ratio: None,
            runs: 0,
            spread: [f64::NAN; 2],
            bar,
            ok: false,
            why: Some(why),
        }
    }
}

/// What a figure must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
}

impl Bar {
    /// Whether a figure meets the bar. What is not a number does not.
    pub fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bar) => figure >= bar,
            Self::AtMost(bar) => figure <= bar,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bar) => write!(f, "≥ {bar}"),
            Self::AtMost(bar) => write!(f, "≤ {bar}"),
        }
    }
}

impl Serialize for Bar {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> core::result::Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The middle one; the mean of the two in the middle.
pub fn median(figures: &[f64]) -> Option<f64> {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    let lower = sorted[(sorted.len() - 1) / 2];
    Some(f64::midpoint(lower, upper))
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
        let mut rows = vec![
            ("client", self.client.clone()),
            ("world", self.world.to_owned()),
            ("link", self.link.map_or("-".to_owned(), |link| link.to_string())),
            ("nodes", format!("users {:?}, capabilities {}", self.node_uids, self.node_capabilities)),
            ("octets", self.bytes.to_string()),
            ("digests", if self.digest_match { "match" } else { "not shown to match" }.to_owned()),
            ("handoffs", format!("{}, {} ms apart on average", self.handoffs, self.interval_ms)),
            ("way", self.way()),
            ("resets", self.resets.to_string()),
            ("peers the client saw", self.peers.join(", ")),
            ("gap at a handoff, ms", spread(self.gap_ms)),
            ("  without handoffs, ms", spread(self.baseline_gap_ms)),
            ("frozen until running, ms", spread(self.move_ms)),
            ("snapshots, KiB", spread(self.snapshot_kib)),
            ("download", mbit(self.goodput_mbit)),
            ("  without handoffs", mbit(self.baseline_mbit)),
            ("  ratio", ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))),
            ("upload through echo", mbit(self.upload_mbit)),
            ("seed", self.seed.to_string()),
        ];
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
    fn way(&self) -> String {
        let count = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
        match self.packets_via_contact_after_binding {
            None => self.mode.to_owned(),
            Some(via_contact) => format!(
                "{}: {} packets straight to nodes, {} from nodes, {via_contact} by the contact node once bound",
                self.mode,
                count(self.packets_straight_to_node),
                count(self.packets_straight_from_node),
            ),
        }
    }
}

impl fmt::Display for BenchReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Machine { cpus, kernel, commit } = &self.machine;
        writeln!(f, "{} ({cpus} cores, Linux {kernel}, commit {commit})", self.bench)?;
        let header =
            ["", "ours", "peer", "unit", "ratio", "bar", "runs", "spread", "peer is"].map(str::to_owned);
        let mut lines = vec![header];
        lines.extend(self.rows.iter().map(Row::cells));
        let widths: [usize; 9] = core::array::from_fn(|column| {
            lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0)
        });
        for line in &lines {
            let cells = line.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
            writeln!(f, "  {}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

impl Row {
    fn cells(&self) -> [String; 9] {
        let figure =
            |figure: f64| if figure < 100.0 { format!("{figure:.2}") } else { format!("{figure:.0}") };
        let maybe = |value: Option<f64>| value.map_or("-".to_owned(), figure);
        let verdict = if self.ok { "ok" } else { "MISSED" };
        [
            self.name.to_owned(),
            figure(self.ours),
            maybe(self.peer),
            self.unit.to_owned(),
            maybe(self.ratio),
            self.bar.map_or("-".to_owned(), |bar| format!("{bar} {verdict}")),
            self.runs.to_string(),
            format!("{} – {}", figure(self.spread[0]), figure(self.spread[1])),
            self.why.as_ref().or(self.peer_is.as_ref()).cloned().unwrap_or_else(|| "-".to_owned()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_judges_the_ratio_of_the_medians() {
        let row = |ours: &[f64]| {
            let bar = Some(Bar::AtLeast(0.7));
            Row::new("goodput", "Mbit/s", ours, Some(("without", &[100.0, 90.0, 110.0])), bar)
                .expect("figures")
        };
        let good = row(&[10.0, 71.0, 72.0]);
        assert_eq!((good.ratio, good.spread, good.ok), (Some(0.71), [10.0, 72.0], true));
        assert!(!row(&[69.0, 69.0, 200.0]).ok);
        assert!(!row(&[f64::NAN]).ok);
    }

    #[test]
    fn a_bar_without_a_peer_judges_our_own_figure() {
        let row = |bar| Row::new("time", "µs", &[5.0], None, Some(bar)).expect("figures");
        assert!(row(Bar::AtMost(5.0)).ok);
        assert!(!row(Bar::AtMost(4.9)).ok);
        assert!(!row(Bar::AtLeast(5.1)).ok);
    }

    #[test]
    fn a_missing_peer_fails_a_bar_on_the_ratio() {
        let bar = Some(Bar::AtLeast(0.7));
        let row = Row::new("goodput", "Mbit/s", &[100.0], Some(("without", &[0.0])), bar).expect("figures");
        assert!(!row.ok);
        assert!(Row::new("goodput", "Mbit/s", &[], None, None).is_none());
    }

    #[test]
    fn no_demo_at_all_is_not_ok() {
        assert!(!DemoReport::new(vec![]).ok());
        assert!(!BenchReport::new("none", vec![]).ok());
    }

    #[test]
    fn a_bar_is_written_as_the_issue_spells_it() {
        assert_eq!(serde_json::to_string(&Bar::AtLeast(0.7)).expect("json"), "\"≥ 0.7\"");
    }
}
