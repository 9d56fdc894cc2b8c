use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use ferry_stack::tcp::Flow;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{Epoch, Incarnation, NodeId, Pulse};

/// What nodes tell each other about connections. The link has authenticated the sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// Donor to acceptor: will you take this connection?
    Prepare {
        /// Which.
        flow: Flow,
        /// The acceptor's epoch.
        epoch: Epoch,
        /// The service that it belongs to.
        service: String,
    },
    /// Acceptor to donor: yes; segments are held from now on.
    Ready {
        /// Which.
        flow: Flow,
        /// As asked.
        epoch: Epoch,
    },
    /// Acceptor to donor: no.
    Refuse {
        /// Which.
        flow: Flow,
        /// As asked.
        epoch: Epoch,
        /// Why not.
        why: Refusal,
    },
    /// Donor to acceptor, before the freeze: forget it.
    Abort {
        /// Which.
        flow: Flow,
        /// As asked.
        epoch: Epoch,
    },
    /// Donor to acceptor: here it is.
    Transfer {
        /// Which.
        flow: Flow,
        /// The acceptor's.
        epoch: Epoch,
        /// An encoded [`Snapshot`](crate::Snapshot).
        snapshot: Bytes,
    },
    /// Acceptor to donor: I run it.
    Taken {
        /// Which.
        flow: Flow,
        /// As transferred.
        epoch: Epoch,
    },
    /// Acceptor to donor: I do not run it, and never will in this epoch.
    Returned {
        /// Which.
        flow: Flow,
        /// As transferred.
        epoch: Epoch,
        /// Why not.
        why: Refusal,
    },
    /// Owner to contact node: segments of this connection go to me. Repeated until it is seen.
    Owner {
        /// Which.
        flow: Flow,
        /// The owner's. A smaller one than known is out of date.
        epoch: Epoch,
        /// Who.
        node: NodeId,
    },
    /// Contact node to owner: noted.
    OwnerSeen {
        /// Which.
        flow: Flow,
        /// As told.
        epoch: Epoch,
    },
    /// Owner to contact node, or to who asks: the connection is over. Its client waits for no answer any more.
    Ended {
        /// Which.
        flow: Flow,
        /// The owner's.
        epoch: Epoch,
    },
    /// To everybody: who owns this connection?
    Ask {
        /// Which.
        flow: Flow,
    },
    /// The answer of a node that does not own it and does not know who does.
    NotMine {
        /// Which.
        flow: Flow,
    },
    /// To everybody: how many connections the sender owns, and whether it takes new ones.
    Load {
        /// How many.
        connections: u32,
        /// Whether it takes new ones.
        open: bool,
    },
    /// Donor to acceptor, ahead of a handoff: have a care-of token of the client, and tell when you do.
    WarmUp {
        /// Which connection it is for.
        flow: Flow,
    },
    /// Acceptor to donor: it has one, or the client is silent.
    Warm {
        /// As asked.
        flow: Flow,
    },
    /// To everybody, where the role can move: who is the contact node. Repeated until it is answered.
    Contact {
        /// Who.
        node: NodeId,
        /// Counts the contact nodes. A smaller one than known is out of date.
        term: u64,
        /// Whether it is the answer to one, and needs none.
        answer: bool,
    },
    /// Owner to contact node: how far a client of mine is, for who is served by the nearest.
    Near {
        /// The upper half of the client's address.
        prefix: u64,
        /// The smoothed round trip between it and the sender; microseconds.
        rtt_us: u32,
    },
    /// To a node that owns too much, or that is to be emptied: move connections.
    Order {
        /// Names the order among those of the sender.
        run: u64,
        /// What.
        order: Order,
    },
    /// The answer, when it is done or was stopped.
    Ordered {
        /// As asked.
        run: u64,
        /// Connections that another node took.
        moved: u32,
        /// Connections that could not be moved.
        failed: u32,
        /// Connections that were not begun with when it was stopped.
        left: u32,
    },
    /// To everybody, where leases are in force: a sign of life.
    Pulse(Pulse),
    /// To everybody, and to the node itself if it turns up: this life of a node is over.
    Dead {
        /// Whose.
        node: NodeId,
        /// Which life.
        life: Incarnation,
    },
}

/// What a node is told to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Everything, to whoever takes it; and to take nothing new.
    Drain,
    /// So many connections, to this node.
    Shed {
        /// Who takes them.
        to: NodeId,
        /// How many.
        count: u32,
    },
    /// No more than is under way.
    Stop,
}

/// Why a node does not take a connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
pub enum Refusal {
    /// It empties itself.
    #[error("the node is draining")]
    Draining,
    /// It offers no such service.
    #[error("the node has no service \"{0}\"")]
    NoSuchService(String),
    /// It has seen a later epoch of this connection.
    #[error("the node knows a later owner of the connection")]
    Stale,
    /// It cannot take more.
    #[error("the node has too many connections on their way to it")]
    TooMany,
    /// The snapshot is not acceptable.
    #[error("{0}")]
    Snapshot(String),
    /// The session cannot go on there.
    #[error("the service refused: {0}")]
    Session(String),
    /// The operator does not let one of the two nodes own connections of the service.
    #[error("{node} may not own connections of the service \"{service}\"")]
    NotAllowed {
        /// Which of them.
        node: String,
        /// The service.
        service: String,
    },
}

/// Octets that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the message does not decode")]
pub struct Malformed;

impl Message {
    /// The message as octets.
    pub fn encode(&self) -> Bytes {
        // Only a sequence of unknown length could fail, and there is none.
        postcard::to_extend(self, Vec::with_capacity(128)).unwrap_or_default().into()
    }

    /// The message in these octets, if they are exactly one.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        match postcard::take_from_bytes(bytes) {
            Ok((message, [])) => Ok(message),
            _ => Err(Malformed),
        }
    }
}
