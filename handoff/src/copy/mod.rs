//! A copy of a running connection at another node, kept current by deltas.
//!
//! The owner has a [`Mirror`] of what the copy holds, by sequence number, and makes each [`Delta`] from it: the control
//! block whole, and only those octets that the copy lacks. Versions count the deltas of an epoch. A delta may be lost,
//! doubled or late: it names the version that it builds on, and a copy that has another one says so
//! ([`Unfit::Lacks`]), whereupon the owner begins anew ([`Mirror::lacks`]). A [`Snapshot`](crate::Snapshot) as octets is the delta that
//! builds on nothing.

mod delta;
mod held;
mod mirror;
mod spans;

pub use delta::{Delta, Version};
pub use held::{Copy, Unfit};
pub use mirror::Mirror;
