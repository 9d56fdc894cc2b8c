//! Mobile IPv6 for ferry: what lies between IPv6 and TCP, so that TCP sees home addresses only.
//!
//! | module | job |
//! |---|---|
//! | [`tunnel`] | IPv6 in IPv6 (RFC 2473), with ECN carried across (RFC 6040) |
//! | [`stage`] | decides for each packet by which path it goes, and from whom a tunnel is accepted |
//!
//! Sans-I/O: packets in, packets out.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod stage;
pub mod tunnel;

pub use stage::{Inbound, Path, Reason, Stage};
pub use tunnel::{Problem, Refused, TUNNEL_OVERHEAD, decapsulate, encapsulate};
