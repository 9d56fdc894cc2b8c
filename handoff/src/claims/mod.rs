//! Who goes on with the connections of a dead node: whoever holds the best copy, once every living node has been asked.
//!
//! ```text
//! who holds copies               every other living node
//!   | claims(dead, copies)   →   |  from now on ignores what the dead node still says
//!   |  ←  claimed(objections)    |  those that it owns itself under a later epoch, or holds a better copy of
//!   | all have answered: goes on with what nobody objects to, and keeps the rest for the objector
//! ```
//!
//! At any time each copy belongs to one node that is responsible for the connection: its owner or, while that is being
//! decided, the holder of a better copy. When that node dies it is claimed again.

mod holdings;

use core::cmp::Reverse;

use ferry_stack::Seq;
use ferry_stack::tcp::Flow;
use serde::{Deserialize, Serialize};

pub use self::holdings::{Held, Holdings, Verdict};
use crate::{Epoch, NodeId};

/// Claims in one message at most.
pub const MAX_CLAIMS: usize = 1024;

/// How much a copy of a connection, or the connection itself, is worth: how far it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Standing {
    /// The connection's initial sequence number: a client that uses its port again makes another connection, of which
    /// the number is later (RFC 6528).
    pub iss: Seq,
    /// The owner's.
    pub epoch: Epoch,
    /// The version of the copy.
    pub version: u64,
    /// Which of the owner's backups holds it; none is before any other for another reason.
    pub rank: u8,
}

impl Standing {
    /// That of an owner, which has come further than any copy of its epoch.
    pub const fn of_owner(iss: Seq, epoch: Epoch) -> Self {
        Self { iss, epoch, version: u64::MAX, rank: 0 }
    }

    /// Whether what `mine` holds is to be preferred to what `theirs` holds: of two nodes, one always.
    pub fn beats(&self, mine: NodeId, other: &Self, theirs: NodeId) -> bool {
        if !is_same(self.iss, other.iss) {
            return self.iss.after(other.iss);
        }
        let key = |one: &Self, node| (one.epoch, one.version, Reverse(one.rank), Reverse(node));
        key(self, mine) > key(other, theirs)
    }

    /// Whether it is of a life and an epoch of the connection that are over once those of `other` have begun.
    pub fn is_covered_by(&self, other: &Self) -> bool {
        if is_same(self.iss, other.iss) { self.epoch <= other.epoch } else { other.iss.after(self.iss) }
    }
}

/// Whether these are the initial sequence numbers of one connection. It can move back by one each time round
/// ([`SendSpace::iss`](ferry_stack::tcp::tcb::SendSpace::iss)), and those of two connections are further apart.
pub fn is_same(one: Seq, other: Seq) -> bool {
    one.0.wrapping_sub(other.0).wrapping_add(4) <= 8
}

/// A copy of a connection whose owner is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// Which connection.
    pub flow: Flow,
    /// How far the copy has come.
    pub standing: Standing,
}

/// Why a claimer must not go on with a connection: the objector has come further, or owns it.
pub type Objection = Claim;
