//! The benchmarks.

mod handoff_first;
mod host_time;
mod stack;

use std::path::{Path, PathBuf};

pub use stack::row_names as stack_rows;

use crate::Result;
use crate::link::Profile;
use crate::report::BenchReport;

/// All benchmarks.
pub const NAMES: [&str; 2] = [handoff_first::NAME, stack::NAME];

/// How to measure.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// How often each side of a comparison runs.
    pub runs: usize,
    /// Where to put a picture.
    pub out: Option<PathBuf>,
    /// Only these rows; all if there are none. Of `stack` only.
    pub rows: Vec<String>,
    /// Only shows that each row works: short runs, no bars. Of `stack` only.
    pub quick: bool,
    /// The emulated link of `handoff-first`.
    pub link: Profile,
}

/// Whether a benchmark runs nodes as processes of their own.
pub fn needs_ferry(name: &str) -> bool {
    name == handoff_first::NAME
}

/// Runs the benchmark called `name`, which must be one of [`NAMES`]. `ferry` is the node's binary, for those that need
/// it.
pub fn run(name: &str, options: &Options, ferry: &Path) -> Result<BenchReport> {
    if name == stack::NAME {
        return Ok(BenchReport::new(stack::NAME, stack::rows(options)?));
    }
    debug_assert_eq!(name, handoff_first::NAME);
    let rows = handoff_first::rows(options.runs.max(1), ferry, options.link)?;
    Ok(BenchReport::new(handoff_first::NAME, rows))
}
