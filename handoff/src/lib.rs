//! Moving a live TCP connection between nodes.
//!
//! A connection with its session is frozen into a [`Snapshot`], shipped, and goes on at another node. Here are the
//! snapshot's format and the two sides of a move, sans-I/O: messages and time in, [`Action`]s out.
//!
//! ```text
//! donor                         acceptor
//!   | prepare(flow, epoch)    →   |  reserves, starts to hold segments of the flow
//!   |  ←  ready  (or refuse: the donor simply goes on)
//!   | copy, while the connection runs on, if it has much payload  →  |
//!   |  ←  copied  (several times, until little is missing)
//!   | freeze — from here on nothing at the donor can resume the connection by itself
//!   | transfer(snapshot, or what the copy lacks)  →  |  checks, installs, kicks
//!   | forwards what arrives   →   |
//!   |  ←  taken  (or returned: the acceptor will never run this epoch)
//!   | forwarder for a while       |
//! ```
//!
//! Every message is idempotent by (flow, epoch): loss, duplication and reordering are normal.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod acceptor;
pub mod claims;
pub mod copy;
mod donor;
mod handoffs;
mod id;
mod message;
mod pieces;
mod pulse;
mod snapshot;
#[cfg(test)]
mod tests;
mod wire;

pub use copy::{Copy, Delta, Mirror, Unfit, Version};
pub use donor::Failure;
pub use handoffs::{Action, Handoffs};
pub use id::{Epoch, Incarnation, NodeId};
pub use message::{Malformed, Message, Order, Refusal};
pub use pieces::Pieces;
pub use pulse::{Opinion, Pulse, Verdict};
pub use snapshot::{MAX_SNAPSHOT, Refused, Snapshot, TooLarge, VERSION};
