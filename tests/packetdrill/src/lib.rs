//! ferry's TCP as a shared object for packetdrill (`--so_filename`), so that scripts written for other stacks run
//! against ours. README.md says how to build and use it.
//!
//! Time is virtual: it goes on when packetdrill sleeps, reads the clock, or waits for a packet, and by nothing else,
//! so that a script of minutes runs in milliseconds and always in the same way.
//!
//! | module | job |
//! |---|---|
//! | [`ffi`] | the C interface: the only place with unsafe code |
//! | [`Bridge`] | one lock, and calls that block |
//! | [`World`] | the clock, the TCP [`Endpoint`](ferry_stack::tcp::Endpoint), and the packets that leave it |
//! | `socket`, `open`, `data`, `options`, `info`, `ready` | sockets as Linux has them, on top of connections |

mod bursts;
mod data;
mod errno;
pub mod ffi;
mod icmp;
mod info;
mod open;
mod options;
mod ready;
mod route;
mod settings;
mod socket;
mod sysctls;
#[cfg(test)]
mod tests;
mod wait;
mod world;

pub use errno::Errno;
pub use settings::{BadFlag, Settings};
pub use wait::Bridge;
pub use world::World;
