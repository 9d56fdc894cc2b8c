//! The demos.

mod buffering;
mod crash;
mod crossing;
mod stage;

use core::time::Duration;
use std::path::PathBuf;

use crate::analysis::Spread;
use crate::crash::Crash;
use crate::link::Profile;
use crate::nodes;
use crate::report::Demo;
use crate::trace::Event;

pub use crossing::OPTIMISED;
pub use stage::Stage;

/// All demos, in the order in which they run.
pub const NAMES: [&str; 4] = [crossing::RELAYED, crossing::OPTIMISED, crash::NAME, buffering::NAME];

/// What can be chosen about a demo.
#[derive(Clone, Debug)]
pub struct Options {
    /// Go on until so many connections have moved during downloads.
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

/// Runs the demo called `name`, which must be one of [`NAMES`]; `crashes` of those in which nodes are killed. Whatever goes wrong is told in the result.
pub fn run(name: &str, options: &Options, crashes: usize) -> Demo {
    if name == crash::NAME {
        return crash::run(options, crashes);
    }
    if name == buffering::NAME {
        return buffering::run(options, crashes);
    }
    let aware = name == crossing::OPTIMISED;
    debug_assert!(aware || name == crossing::RELAYED);
    crossing::run(&Options { aware, ..options.clone() })
}

/// How long each crash took to be noticed, and from then on until its connection went on.
fn tell_recoveries(seen: &[Crash], events: &[Event], demo: &mut Demo) {
    let detected = |crash: &Crash| crash.detected_ns(events).map(|at| (crash, at));
    let detected: Vec<_> = seen.iter().filter_map(detected).collect();
    #[allow(clippy::cast_precision_loss)] // Nanoseconds of a recovery.
    let millis = |from: u64, to: u64| to.saturating_sub(from) as f64 * 1e-6;
    demo.detect_ms = Spread::of(detected.iter().map(|(crash, at)| millis(crash.at_ns, *at)).collect());
    let restored = detected.iter().filter_map(|(crash, at)| Some(millis(*at, crash.restored_ns(events)?)));
    demo.restore_ms = Spread::of(restored.collect());
}
