//! What the fuzz targets of `tests/fuzz` do with their octets, as plain functions: the tests call them with the
//! committed corpora and with drawn octets, cargo-fuzz with octets that reach new code. A finding is a panic.

mod feed;
mod mobility;
mod packets;
mod pair;
mod peers;
mod seeds;
mod states;

pub use feed::Feed;
pub use mobility::mobility;
pub use packets::{frame, packet};
pub use pair::pair;
pub use peers::{config, greeting, message, snapshot};
pub use seeds::seeds;
pub use states::states;

/// A target: takes any octets.
pub type Target = fn(&[u8]);

/// Every target by its name, which is also that of its corpus.
pub const TARGETS: [(&str, Target); 9] = [
    ("config", config),
    ("frame", frame),
    ("greeting", greeting),
    ("message", message),
    ("mobility", mobility),
    ("packet", packet),
    ("pair", pair),
    ("snapshot", snapshot),
    ("states", states),
];
