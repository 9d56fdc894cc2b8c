use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::{Incarnation, NodeId};

/// A sign of life, and what its sender holds of the lives of others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pulse {
    /// This life of the sender.
    pub life: Incarnation,
    /// Counts the pulses of that life. A smaller one than known is out of date.
    pub number: u64,
    /// The receiver's life and its newest pulse that this one acknowledges: the sender promises not to vote against
    /// that life for the span of a lease. None if it has heard none, or has given that life up.
    pub heard: Option<(Incarnation, u64)>,
    /// Everybody of whom the sender thinks worse than that it is alive.
    pub opinions: Vec<Opinion>,
}

/// What a node holds of one life of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opinion {
    /// Whose.
    pub node: NodeId,
    /// Which life.
    pub life: Incarnation,
    /// What.
    pub verdict: Verdict,
}

/// How bad it looks. Only the first can be taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Verdict {
    /// It has been silent for too long.
    Suspected,
    /// So do enough others think: nothing of it will be acknowledged any more.
    Condemned,
    /// And what was acknowledged before has run out: this is a vote against it.
    Voted,
    /// It is dead.
    Dead,
}
