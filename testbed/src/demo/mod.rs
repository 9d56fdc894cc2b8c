//! The demos.

mod any_moment;
mod balance_chart;
mod buffering;
mod crash;
mod crossing;
mod evidence;
mod load_balancing;
mod moments_chart;
mod stage;

use core::time::Duration;
use std::path::PathBuf;

use crate::analysis::Spread;
use crate::crash::Crash;
use crate::link::Profile;
use crate::nodes;
use crate::report::Demo;
use crate::trace::Event;

pub use any_moment::NAME as ANY_MOMENT;
pub use crossing::{OPTIMISED, RELAYED};
pub use load_balancing::NAME as LOAD_BALANCING;
pub use stage::Stage;

/// All demos, in the order in which they run.
pub const NAMES: [&str; 6] = [RELAYED, OPTIMISED, ANY_MOMENT, LOAD_BALANCING, crash::NAME, buffering::NAME];

/// Those in which nodes are killed.
pub const CRASHES: [&str; 2] = [crash::NAME, buffering::NAME];

/// What can be chosen about a demo.
#[derive(Clone, Debug)]
pub struct Options {
    /// Go on until so many connections have moved; each demo has a number of its own in mind.
    pub handoffs: usize,
    /// The mean time between two handoffs.
    pub interval: Duration,
    /// Decides the moments of the handoffs.
    pub seed: u64,
    /// The size of the file that is downloaded.
    pub file_bytes: u64,
    /// The size of the stream that goes through `echo`.
    pub echo_bytes: u64,
    /// Where captures, events, logs and a picture are kept.
    pub out: Option<PathBuf>,
    /// The node's binary.
    pub ferry: PathBuf,
    /// The client's link.
    pub link: Profile,
    /// What is set about the group.
    pub group: nodes::Options,
    /// Whether `ferry correspondent` runs on the client's host, so that it understands Mobile IPv6.
    pub aware: bool,
}

/// Runs the demo called `name`, which must be one of [`NAMES`]; `crashes` of those in which nodes are killed. Whatever goes
/// wrong is told in the result.
pub fn run(name: &str, options: &Options, crashes: usize) -> Demo {
    match name {
        ANY_MOMENT => any_moment::run(options),
        LOAD_BALANCING => load_balancing::run(options),
        crash::NAME => crash::run(options, crashes),
        buffering::NAME => buffering::run(options, crashes),
        _ => {
            let aware = name == OPTIMISED;
            debug_assert!(aware || name == RELAYED);
            crossing::run(&Options { aware, ..options.clone() })
        }
    }
}

/// How many connections have to move in a demo, if nobody says.
pub fn usual_handoffs(name: &str) -> usize {
    match name {
        ANY_MOMENT => any_moment::HANDOFFS,
        LOAD_BALANCING => load_balancing::HANDOFFS,
        _ => crossing::HANDOFFS,
    }
}

/// How long each crash took to be noticed, and from then on until its connection went on.
fn tell_recoveries(seen: &[Crash], events: &[Event], demo: &mut Demo) {
    let detected: Vec<_> =
        seen.iter().filter_map(|crash| Some((crash, crash.detected_ns(events)?))).collect();
    #[allow(clippy::cast_precision_loss)] // Nanoseconds of a recovery.
    let millis = |from: u64, to: u64| to.saturating_sub(from) as f64 * 1e-6;
    demo.detect_ms = Spread::of(detected.iter().map(|(crash, at)| millis(crash.at_ns, *at)).collect());
    let again = |crash: &Crash| {
        let later = seen.iter().filter(|other| other.victim == crash.victim && other.at_ns > crash.at_ns);
        later.map(|other| other.at_ns).min().unwrap_or(u64::MAX)
    };
    let restored = detected
        .iter()
        .filter_map(|(crash, at)| Some(millis(*at, crash.restored_ns(again(crash), events)?[1])));
    demo.restore_ms = Spread::of(restored.collect());
}
