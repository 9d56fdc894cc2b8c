//! Mobile IPv6 for ferry: what lies between IPv6 and TCP, so that TCP sees home addresses only.
//!
//! | module | job |
//! |---|---|
//! | [`header`] | the Mobility Header and its options (RFC 6275 section 6), read and written |
//! | [`keys`] | return routability's tokens, keys and signatures (RFC 6275 section 5.2) |
//! | [`correspondent`] | the client's half: tests answered, bindings kept (RFC 6275 section 9) |
//! | [`home_agent`] | registration with a home agent that is a host of its own (RFC 6275 section 10, RFC 4285) |
//! | [`limit`] | how many errors are sent (RFC 6275 section 9.3.3) |
//! | [`mobile`] | the group's half: tests, Binding Updates, what is known of each client (RFC 6275 section 11) |
//! | [`route`] | home addresses carried between care-of addresses (RFC 6275 sections 6.3 and 6.4) |
//! | [`tunnel`] | IPv6 in IPv6 (RFC 2473), with ECN carried across (RFC 6040) |
//! | [`stage`] | decides for each packet by which path it goes, and from whom a tunnel is accepted |
//!
//! Sans-I/O: packets in, packets out.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod correspondent;
pub mod header;
pub mod home_agent;
pub mod keys;
pub mod limit;
pub mod mobile;
pub mod route;
pub mod stage;
pub mod tunnel;

pub use stage::{Inbound, Path, Reason, Stage};
pub use tunnel::{Problem, Refused, TUNNEL_OVERHEAD, decapsulate, encapsulate};
