//! What connects the node's core to the world: a thread for the data plane, tasks for the control plane.
//!
//! ```text
//!   TAP, links ⇄ data plane (one thread, the core) ⇄ mailbox, queues ⇄ control plane (tokio): makes links, control socket
//!                                                   ⇒ trace writer (one thread)
//! ```
//!
//! The data plane never waits for anybody but the TAP, the links and the mailbox, and for all of them at once: whatever it
//! hands on goes to queues in which each sender has a bounded share.

mod alone;
mod ask;
mod audit;
mod clock;
mod control;
mod dataplane;
mod etcd;
mod gather;
mod links;
mod mailbox;
mod metrics;
mod patience;
mod peers;
mod start;
mod tap;
mod trace;

pub use alone::Alone;
pub use ask::Asker;
pub use control::{AskError, Client, ControlError};
pub use metrics::MetricsError;
pub use peers::{PeerError, Refusal, Understood, understood};
pub use start::{Failed, Options, Running, StartError, connections, start};
pub use tap::{Sent, Tap, TapError};

#[cfg(test)]
pub(crate) use audit::line as audit_line;
pub(crate) use clock::{now, unix_seconds, wall};
pub(crate) use etcd::probe as probe_etcd;
pub(crate) use peers::{certified_name, verify_own};
pub(crate) use start::mac_of;
pub(crate) use tap::{ROOM as TAP_ROOM, owner as tap_owner};
