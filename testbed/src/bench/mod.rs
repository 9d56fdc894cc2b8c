//! The benchmarks.

mod handoff_first;
mod host_time;

use std::path::Path;

use crate::Result;
use crate::link::Profile;
use crate::report::BenchReport;

/// All benchmarks.
pub const NAMES: [&str; 1] = [handoff_first::NAME];

/// Runs the benchmark called `name`, which must be one of [`NAMES`], each side of a comparison `runs` times.
pub fn run(name: &str, runs: usize, ferry: &Path, link: Profile) -> Result<BenchReport> {
    debug_assert_eq!(name, handoff_first::NAME);
    Ok(BenchReport::new(handoff_first::NAME, handoff_first::rows(runs.max(1), ferry, link)?))
}
