//! x
pub mod ask;
pub mod clock;
pub mod control;
mod mailbox;
pub mod peers;
pub mod tap;
mod trace;
