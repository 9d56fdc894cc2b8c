use serde::{Deserialize, Serialize};

/// How the copies of connections are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Copies {
    /// Connections of which another node holds a copy.
    pub protected: usize,
    /// Connections that should have one, and have none.
    pub unprotected: usize,
    /// Octets, both ways, of connections that are not in all their copies yet.
    pub lag_octets: u64,
    /// For how long the connection that is furthest behind has been; microseconds.
    pub lag_us: u64,
    /// Copies of other nodes' connections that are held here.
    pub held: usize,
    /// Octets of payload in them.
    pub held_octets: usize,
    /// Copies of which the owner has died, and of which it is being found out who goes on.
    pub recovering: usize,
    /// Copies at other nodes that are of no use any more, and not known to be forgotten.
    pub discarding: usize,
    /// Connections that went on here after their owner had died.
    pub recovered: u64,
    /// Copies from which no connection could go on.
    pub lost: u64,
    /// How often copies were brought up to date.
    pub deltas: u64,
    /// Octets that this took.
    pub delta_octets: u64,
}

/// The copies of one connection at other nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protection {
    /// The names of the nodes that have one.
    pub holders: Vec<String>,
    /// Octets, both ways, that are not in all of them yet.
    pub lag_octets: u64,
}
