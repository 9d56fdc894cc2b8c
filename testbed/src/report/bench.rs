//! What a benchmark prints and writes.

use core::fmt::{self, Write as _};
use std::process::Command;

use serde::Serialize;

use super::VERSION;
use crate::regression::Fit;

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
    /// Formulas that were fitted to what was measured.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fits: Vec<Fit>,
}

impl BenchReport {
    /// Of these rows, on this machine.
    pub fn new(bench: &'static str, rows: Vec<Row>) -> Self {
        Self { version: VERSION, bench, machine: Machine::this(), rows, fits: Vec::new() }
    }

    /// The same with the formulas that were fitted.
    pub fn with(self, fits: Vec<Fit>) -> Self {
        Self { fits, ..self }
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

    /// Rows as comma-separated values, with a line that names them.
    pub fn table(rows: &[Self]) -> String {
        let mut text = String::from("row,unit,ours,peer,ratio,bar,ok,runs,least,greatest\n");
        let maybe = |figure: Option<f64>| figure.map_or(String::new(), |figure| figure.to_string());
        for row in rows {
            let Self { name, unit, ours, peer, ratio, bar, ok, runs, spread: [least, greatest], .. } = row;
            let bar = bar.map_or(String::new(), |bar| bar.to_string());
            let (peer, ratio) = (maybe(*peer), maybe(*ratio));
            // Writing to a string cannot fail.
            let _ =
                writeln!(text, "{name},{unit},{ours},{peer},{ratio},{bar},{ok},{runs},{least},{greatest}");
        }
        text
    }
}

/// What a figure must reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// This or more.
    AtLeast(f64),
    /// This or less.
    AtMost(f64),
    /// As close to the first as the second.
    Near(f64, f64),
}

impl Bar {
    /// Whether a figure meets the bar. What is not a number does not.
    pub fn holds(self, figure: f64) -> bool {
        match self {
            Self::AtLeast(bar) => figure >= bar,
            Self::AtMost(bar) => figure <= bar,
            Self::Near(bar, distance) => (figure - bar).abs() <= distance,
        }
    }
}

impl fmt::Display for Bar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(bar) => write!(f, "≥ {bar}"),
            Self::AtMost(bar) => write!(f, "≤ {bar}"),
            Self::Near(bar, distance) => write!(f, "{bar} ± {distance}"),
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
        self.fits.iter().try_for_each(|fit| write!(f, "{fit}"))
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
    fn a_table_has_a_line_for_each_row_and_nothing_where_there_is_nothing() {
        let row = Row::new("gap", "ms", &[2.0, 1.0, 3.0], None, Some(Bar::AtMost(4.0))).expect("figures");
        let failed = Row::failed("cut", "ms", None, "no, not now".to_owned());
        let expected = "row,unit,ours,peer,ratio,bar,ok,runs,least,greatest\n\
            gap,ms,2,,,≤ 4,true,3,1,3\ncut,ms,NaN,,,,false,0,NaN,NaN\n";
        assert_eq!(Row::table(&[row, failed]), expected);
    }

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
    fn a_bar_with_two_sides_judges_both() {
        let bar = Bar::Near(1.0, 0.05);
        assert!([0.951, 1.0, 1.049].into_iter().all(|figure| bar.holds(figure)));
        assert!([0.94, 1.06, -1.0, f64::NAN].into_iter().all(|figure| !bar.holds(figure)));
    }

    #[test]
    fn a_missing_peer_fails_a_bar_on_the_ratio() {
        let bar = Some(Bar::AtLeast(0.7));
        let row = Row::new("goodput", "Mbit/s", &[100.0], Some(("without", &[0.0])), bar).expect("figures");
        assert!(!row.ok);
        assert!(Row::new("goodput", "Mbit/s", &[], None, None).is_none());
    }

    #[test]
    fn no_row_at_all_is_not_ok() {
        assert!(!BenchReport::new("none", vec![]).ok());
    }

    #[test]
    fn a_bar_is_written_as_the_issue_spells_it() {
        assert_eq!(serde_json::to_string(&Bar::AtLeast(0.7)).expect("json"), "\"≥ 0.7\"");
    }
}
