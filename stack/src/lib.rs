//! A sans-I/O IPv6 and TCP stack whose connections are plain values.
//!
//! Bytes and time go in, bytes and deadlines come out: nothing here reads a clock, a socket or a source of
//! randomness, so a run replays from its inputs. A connection is a [`tcp::Tcb`], which is only data and can be
//! frozen, moved to another host and resumed there.
//!
//! From the wire upward:
//!
//! | module | job |
//! |---|---|
//! | [`interface`] | Ethernet, neighbour discovery (RFC 4861), ICMPv6 (RFC 4443): frames ⇄ IPv6 packets |
//! | [`ip`] | IPv6 packets and their extension headers (RFC 8200) |
//! | [`tcp`] | the TCP engine: control block, listeners, demultiplexing, timers |
//! | [`host`] | all of it as one plain host |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod alarms;
pub mod checksum;
pub mod frame;
pub mod gro;
pub mod gso;
pub mod host;
pub mod icmp;
pub mod interface;
pub mod ip;
mod neighbour;
mod reminders;
mod seq;
pub mod tcp;
mod time;

pub use alarms::{Alarms, HashedAlarms};
pub use frame::{Checksum, Frame, Gso, Offload};
pub use interface::Interface;
pub use reminders::Reminders;
pub use seq::Seq;
pub use time::{GroupClock, Instant};

/// The wire types of this crate's codec, for those who compose packets of their own.
pub use smoltcp::wire::EthernetAddress;
