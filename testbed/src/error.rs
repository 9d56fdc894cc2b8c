//! What can go wrong in the testbed.

use std::fmt::Display;
use std::io;

/// Short for a result with our error.
pub type Result<T> = core::result::Result<T, Error>;

/// What can go wrong, by who must mend it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// This machine cannot make the world: something is not installed, or not allowed.
    #[error("this machine cannot make the world: {0}")]
    Machine(String),
    /// The command line asks for something that cannot be.
    #[error("{0}")]
    Usage(String),
    /// The operating system refused.
    #[error("{doing}: {source}")]
    System {
        /// What was being done.
        doing: String,
        /// What the system said.
        source: io::Error,
    },
    /// Another program failed.
    #[error("{command}: {why}")]
    Program {
        /// Its command line.
        command: String,
        /// Its exit and what it printed last.
        why: String,
    },
    /// A node did something else than it must.
    #[error("node {node}: {why}")]
    Node {
        /// Its name.
        node: String,
        /// What it did.
        why: String,
    },
    /// Something did not happen in time.
    #[error("{what} did not happen within {within_s} s")]
    Late {
        /// What was awaited.
        what: String,
        /// How long it was awaited.
        within_s: u64,
    },
}

/// Says what was being done when the system refused.
pub trait Doing<T> {
    /// Names the action, as in "open /dev/net/tun".
    fn doing(self, what: impl Display) -> Result<T>;
}

impl<T, E: Into<io::Error>> Doing<T> for core::result::Result<T, E> {
    fn doing(self, what: impl Display) -> Result<T> {
        self.map_err(|error| Error::System { doing: what.to_string(), source: error.into() })
    }
}
