//! The demos.

mod any_moment;
mod crossing;
mod evidence;
mod moments_chart;
mod stage;

use core::time::Duration;
use std::path::PathBuf;

use crate::link::Profile;
use crate::nodes;
use crate::report::Demo;

pub use any_moment::NAME as ANY_MOMENT;
pub use crossing::OPTIMISED;
pub use stage::Stage;

/// All demos, in the order in which they run.
pub const NAMES: [&str; 3] = [crossing::RELAYED, crossing::OPTIMISED, any_moment::NAME];

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

/// Runs the demo called `name`, which must be one of [`NAMES`]. Whatever goes wrong is told in the result.
pub fn run(name: &str, options: &Options) -> Demo {
    if name == any_moment::NAME {
        return any_moment::run(options);
    }
    let aware = name == crossing::OPTIMISED;
    debug_assert!(aware || name == crossing::RELAYED);
    crossing::run(&Options { aware, ..options.clone() })
}

/// How many connections have to move in a demo, if nobody says.
pub fn usual_handoffs(name: &str) -> usize {
    if name == any_moment::NAME { any_moment::HANDOFFS } else { crossing::HANDOFFS }
}
