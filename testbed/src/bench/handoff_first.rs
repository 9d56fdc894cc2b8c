//! What handoffs cost: the goodput of a download with many of them, and the host's time for one.

use core::time::Duration;
use std::path::Path;

use super::handoff::{REPAIRED, host_time};
use super::stack::{Scale, measured};
use crate::demo::{Options, Stage};
use crate::link::Profile;
use crate::nodes;
use crate::report::{Bar, Row};
use crate::{Error, Result};

/// Its name.
pub(super) const NAME: &str = "handoff-first";
const INTERVAL: Duration = Duration::from_millis(100);

/// All rows.
pub(super) fn rows(runs: usize, ferry: &Path, link: Profile) -> Result<Vec<Row>> {
    let scale = Scale { runs, quick: false };
    let row = goodput("goodput-with-handoffs", Some(Bar::AtLeast(0.7)), runs, 128 << 20, ferry, link)?;
    let host_time = measured("host-time-empty", "µs", REPAIRED, None, scale, host_time(scale, 0));
    Ok(row.into_iter().chain([host_time]).collect())
}

/// A download with a handoff every 100 ms against one without, in turn, in one world.
pub(super) fn goodput(
    name: &'static str,
    bar: Option<Bar>,
    runs: usize,
    file_bytes: u64,
    ferry: &Path,
    link: Profile,
) -> Result<Option<Row>> {
    let options = Options {
        handoffs: 0,
        interval: INTERVAL,
        seed: 1,
        file_bytes,
        echo_bytes: 0,
        out: None,
        ferry: ferry.to_owned(),
        link,
        group: nodes::Options::default(),
        aware: false,
    };
    let mut stage = Stage::set(NAME, &options, None)?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        without.push(stage.download(false)?.mbit());
        with.push(stage.download(true)?.mbit());
    }
    if let Some(problem) = stage.strike().problems.into_iter().next() {
        return Err(Error::Program { command: NAME.to_owned(), why: problem });
    }
    let peer = ("the same download without handoffs", without.as_slice());
    Ok(Row::new(name, "Mbit/s", &with, Some(peer), bar))
}
