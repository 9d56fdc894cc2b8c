//! x
pub mod clock;
mod mailbox;
pub mod peers;
pub mod tap;
