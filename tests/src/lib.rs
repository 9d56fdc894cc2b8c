//! The simulated world of ferry: virtual time, one seed, real stacks.
//!
//! A [`World`](world::World) is machines on links around a router. Everything that happens follows from the seed,
//! so that a failure is replayed by one command. Nothing here reads a clock or waits.

pub mod aware;
pub mod channel;
pub mod draw;
pub mod flood;
pub mod foreign;
pub mod fuzz;
pub mod invariants;
pub mod link;
pub mod linux;
pub mod lwip;
pub mod machine;
pub mod member;
pub mod model;
pub mod needs;
pub mod octets;
pub mod owners;
pub mod pattern;
pub mod rng;
pub mod router;
pub mod script;
pub mod seeds;
pub mod serve;
pub mod session;
pub mod shuttle;
pub mod silence;
pub mod stack;
pub mod talk;
pub mod tamper;
pub mod tree;
pub mod watch;
pub mod wire;
pub mod world;
