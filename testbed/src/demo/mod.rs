//! The demos.

mod crossing;
mod stage;

use core::time::Duration;
use std::path::PathBuf;

use crate::link::Profile;
use crate::nodes;
use crate::report::Demo;

pub use crossing::OPTIMISED;
pub use stage::Stage;

/// All demos, in the order in which they run.
pub const NAMES: [&str; 2] = [crossing::RELAYED, crossing::OPTIMISED];

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

/// Runs the demo called `name`, which must be one of [`NAMES`]. Whatever goes wrong is told in the result.
pub fn run(name: &str, options: &Options) -> Demo {
    let aware = name == crossing::OPTIMISED;
    debug_assert!(aware || name == crossing::RELAYED);
    crossing::run(&Options { aware, ..options.clone() })
}
