//! A node of a ferry group: the sans-I/O [`Node`] that composes stack, mobility and handoff, the drivers that
//! connect it to a TAP, to its peers and to an operator, and the services that ship.
//!
//! A service of one's own is a [`Session`]: a value per connection that reacts to events and moves with it.
//!
//! ```
//! use std::net::SocketAddrV6;
//!
//! use ferry_node::{Event, Session, Stream};
//! use serde::{Deserialize, Serialize};
//!
//! /// Tells every client how many octets it has sent so far, wherever the connection lives by now.
//! #[derive(Serialize, Deserialize)]
//! struct Count(usize);
//!
//! impl Session for Count {
//!     type Service = ();
//!
//!     fn open((): &(), _: SocketAddrV6) -> Self {
//!         Self(0)
//!     }
//!
//!     fn handle(&mut self, (): &(), _: Event, stream: &mut Stream<'_>) {
//!         while stream.readable() > 0 {
//!             self.0 += stream.read(usize::MAX).len();
//!         }
//!         stream.write(format!("{}\n", self.0).into());
//!         if stream.at_end() {
//!             stream.finish();
//!         }
//!     }
//! }
//! ```

pub mod config;
pub mod correspondent;
pub mod daemon;
mod directory;
pub mod doctor;
pub mod driver;
pub mod home_agent;
mod http;
pub mod io;
pub mod keygen;
mod largest;
mod node;
pub mod services;
pub mod session;

pub use directory::{DirectoryKind, DirectorySetup};
pub use io::{Audit, AuditResult, Reason, Standing, Trace, TraceEvent, Which};
pub use io::{
    Command, Connection, Copies, Counters, EtcdStatus, HomeAgentStatus, Input, Moment, Moved, NotMoved,
    Output, PeerStatus, Protection, Reply, Status, Step, StoreAnswer, StoreRequest,
};
pub use node::{Candidate, Newcomer, Policy, Rules, TokensAhead};
pub use node::{Commit, HomeAgent, Node, Optimise, Peer, Placement, PlainSource, Service, Setup, SetupError};
pub use session::{Ending, Event, Session, Stream};
