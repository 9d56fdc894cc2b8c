//! The benchmarks.

mod handoff;
mod handoff_first;
mod mobility;
mod recovery;
mod stack;

use std::path::{Path, PathBuf};

use crate::link::Profile;
use crate::report::BenchReport;
use crate::{Error, Result};

/// All benchmarks.
pub const NAMES: [&str; 5] =
    [handoff_first::NAME, stack::NAME, mobility::NAME, handoff::NAME, recovery::NAME];

/// How to measure.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How often each side of a comparison runs.
    pub runs: usize,
    /// Where to put a picture.
    pub out: Option<PathBuf>,
    /// Only these rows; all if there are none. Not of `handoff-first`.
    pub rows: Vec<String>,
    /// Only shows that each row works: short runs, no bars. Not of `handoff-first`.
    pub quick: bool,
    /// The emulated link of `handoff-first`, and of the transfers of `mobility`.
    pub link: Profile,
}

/// Whether a benchmark runs nodes as processes of their own.
pub fn needs_ferry(name: &str) -> bool {
    name != stack::NAME
}

/// The rows of all benchmarks that can be measured one by one.
pub fn row_names() -> Vec<&'static str> {
    [
        &stack::row_names()[..],
        &mobility::row_names()[..],
        &handoff::row_names()[..],
        &recovery::row_names()[..],
    ]
    .concat()
}

/// Fails if a benchmark has no such row.
fn check_rows(options: &Options, name: &str, known: &[&str]) -> Result<()> {
    match options.rows.iter().find(|row| !known.contains(&row.as_str())) {
        None => Ok(()),
        Some(row) => Err(Error::Usage(format!("{name} has no row {row}; it has {}", known.join(", ")))),
    }
}

/// Runs the benchmark called `name`, which must be one of [`NAMES`]. `ferry` is the node's binary, for those that need
/// it.
pub fn run(name: &str, options: &Options, ferry: &Path) -> Result<BenchReport> {
    if name == mobility::NAME {
        check_rows(options, name, &mobility::row_names())?;
        return Ok(BenchReport::new(mobility::NAME, mobility::rows(options, ferry)?));
    }
    if name == handoff::NAME {
        check_rows(options, name, &handoff::row_names())?;
        let (rows, fits) = handoff::rows(options, ferry)?;
        return Ok(BenchReport::new(handoff::NAME, rows).with(fits));
    }
    if name == recovery::NAME {
        check_rows(options, name, &recovery::row_names())?;
        return Ok(BenchReport::new(recovery::NAME, recovery::rows(options, ferry)?));
    }
    if name == stack::NAME {
        check_rows(options, name, &stack::row_names())?;
        return Ok(BenchReport::new(stack::NAME, stack::rows(options)?));
    }
    debug_assert_eq!(name, handoff_first::NAME);
    let rows = handoff_first::rows(options.runs.max(1), ferry, options.link)?;
    Ok(BenchReport::new(handoff_first::NAME, rows))
}
