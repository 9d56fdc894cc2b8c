//! Tests against the kernel of this machine: the same conversation with its TCP and with ours.

pub mod cable;
pub mod conversation;
pub mod differences;
mod draw;
pub mod host;
pub mod namespace;
pub mod segment;
pub mod side;
pub mod subject;
