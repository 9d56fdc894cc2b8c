//! Downloads by `curl` over the emulated link: straight, and through tunnels both ways, against the same at home.

use core::cell::RefCell;
use core::time::Duration;

use super::{Means, broken};
use crate::Result;
use crate::bench::stack::Figures;
use crate::demo::{self, Stage};
use crate::nodes;

const FILE_MIB: usize = 128;

/// The client's host runs `ferry correspondent`, at home too.
pub(super) fn optimised(means: Means<'_>) -> Result<Figures> {
    measure(means, nodes::Options::default(), true)
}

/// The client is an ordinary one, and no node but the contact node may send from the service address, so that both
/// directions pass the tunnel.
pub(super) fn tunnelled(means: Means<'_>) -> Result<Figures> {
    measure(means, nodes::Options { plain_source: "never", ..nodes::Options::default() }, false)
}

fn measure(means: Means<'_>, group: nodes::Options, aware: bool) -> Result<Figures> {
    let options = demo::Options {
        handoffs: 0,
        interval: Duration::from_hours(1),
        seed: 1,
        file_bytes: (means.scale.count(FILE_MIB) as u64) << 20,
        echo_bytes: 0,
        out: None,
        ferry: means.ferry.to_owned(),
        link: means.link,
        group,
        aware,
    };
    let stage = RefCell::new(Stage::set("mobility", &options, None)?);
    let figures = Figures::alternate(
        means.scale.runs,
        || Ok(stage.borrow_mut().download_from("b")?.mbit()),
        || Ok(stage.borrow_mut().download(false)?.mbit()),
    )?;
    let mut stage = stage.into_inner();
    let straight = stage.nodes[1].control.status()?.counters.optimised;
    let over = stage.strike();
    if let Some(problem) = over.problems.first() {
        return Err(broken(problem));
    }
    if aware == (straight == 0) {
        return Err(broken(format!(
            "node b sent {straight} segments straight: that is not what was to be measured"
        )));
    }
    Ok(figures)
}
