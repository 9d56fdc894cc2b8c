use alloc::string::String;
use alloc::vec::Vec;

use bytes::{Buf, Bytes};
use ferry_stack::Seq;
use ferry_stack::tcp::Flow;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::claims::{Claim, Objection};
use crate::wire::octets;
use crate::{Epoch, Incarnation, MAX_SNAPSHOT, NodeId, Pieces, Pulse};

/// What nodes tell each other about connections. The link has authenticated the sender.
#[derive(Clone, derive_more::Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        /// An encoded [`Snapshot`](crate::Snapshot), or a [`Delta`](crate::Delta) on the copy that the acceptor has.
        #[serde(with = "behind")]
        #[debug("{} octets", snapshot.len())]
        snapshot: Pieces,
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
    /// Owner to contact node, repeated until it is seen, or to who asks: the connection is over. Its client waits for no
    /// answer any more.
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
    /// Owner to acceptor, ahead of a handoff, or to a backup: what a copy of the connection lacks.
    Copy {
        /// Which.
        flow: Flow,
        /// The owner's.
        epoch: Epoch,
        /// The copy's number with it.
        version: u64,
        /// The backups that have copies, in their order; none if it is ahead of a handoff.
        holders: Vec<NodeId>,
        /// An encoded [`Delta`](crate::Delta).
        #[serde(with = "behind")]
        #[debug("{} octets", delta.len())]
        delta: Pieces,
    },
    /// The answer: the copy is there.
    Copied {
        /// Which.
        flow: Flow,
        /// As told.
        epoch: Epoch,
        /// The number that it has now: that of the delta, or a later one.
        version: u64,
    },
    /// The answer: the delta builds on what is not there. The next one must build on nothing.
    Lacks {
        /// Which.
        flow: Flow,
        /// As told.
        epoch: Epoch,
        /// The number of the delta that was of no use.
        version: u64,
        /// The number that is there; 0 if none.
        have: u64,
    },
    /// To who holds a copy: it is of no use any more, because the connection is over or its owner has others. Repeated until
    /// it is confirmed.
    Discard {
        /// Which.
        flow: Flow,
        /// The connection's initial sequence number: its client may have another one by now, from the same port.
        iss: Seq,
        /// Up to this epoch.
        epoch: Epoch,
    },
    /// The answer, and what a node says that does not hold the copy that it is sent: there is none.
    Discarded {
        /// As told.
        flow: Flow,
        /// As told.
        iss: Seq,
        /// As told.
        epoch: Epoch,
    },
    /// To everybody, when a node has died: copies of its connections that the sender has, and would go on from.
    Claims {
        /// Who died.
        dead: NodeId,
        /// Which life of it.
        life: Incarnation,
        /// Names these claims among those of the sender.
        run: u64,
        /// What the sender has.
        copies: Vec<Claim>,
    },
    /// The answer.
    Claimed {
        /// As told.
        dead: NodeId,
        /// As told.
        life: Incarnation,
        /// As told.
        run: u64,
        /// Those of the connections that the sender of the claims must not go on with, and why: the answerer runs them,
        /// or has a better copy.
        objections: Vec<Objection>,
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
    /// The answer to [`Message::Ended`]: noted.
    EndedSeen {
        /// Which.
        flow: Flow,
        /// As told.
        epoch: Epoch,
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
    /// The message as octets, in one piece.
    pub fn encode(&self) -> Bytes {
        self.pieces().join()
    }

    /// The message as octets. What is behind it is shared, not copied, but for its first piece.
    pub fn pieces(&self) -> Pieces {
        let payload = self.payload();
        let behind = payload.iter().map(|payload| &payload.head[..]);
        let octets = octets(0, self, behind).unwrap_or_default();
        Pieces { head: octets.into(), rest: payload.map_or_else(Vec::new, |payload| payload.rest.clone()) }
    }

    /// The message in these octets, if they are exactly one.
    pub fn decode(octets: &Bytes) -> Result<Self, Malformed> {
        let mut rest = octets.clone();
        let message = Self::take(&mut rest)?;
        if rest.is_empty() { Ok(message) } else { Err(Malformed) }
    }

    /// Takes the first of some messages in a row. Its payload is shared, not copied.
    pub fn take(octets: &mut Bytes) -> Result<Self, Malformed> {
        let (mut message, rest) = postcard::take_from_bytes::<Self>(octets).map_err(|_| Malformed)?;
        let head = octets.len() - rest.len();
        let Some(payload) = message.payload_mut() else {
            octets.advance(head);
            return Ok(message);
        };
        if rest.len() < payload.len() {
            return Err(Malformed);
        }
        octets.advance(head);
        *payload = octets.split_to(payload.len()).into();
        Ok(message)
    }

    /// The acceptor's epoch, of a message of a handoff.
    pub(crate) fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::Prepare { epoch, .. }
            | Self::Ready { epoch, .. }
            | Self::Refuse { epoch, .. }
            | Self::Abort { epoch, .. }
            | Self::Copy { epoch, .. }
            | Self::Copied { epoch, .. }
            | Self::Lacks { epoch, .. }
            | Self::Transfer { epoch, .. }
            | Self::Taken { epoch, .. }
            | Self::Returned { epoch, .. } => Some(*epoch),
            _ => None,
        }
    }

    /// What follows the message instead of standing in it.
    fn payload(&self) -> Option<&Pieces> {
        match self {
            Self::Transfer { snapshot: payload, .. } | Self::Copy { delta: payload, .. } => Some(payload),
            _ => None,
        }
    }

    fn payload_mut(&mut self) -> Option<&mut Pieces> {
        match self {
            Self::Transfer { snapshot: payload, .. } | Self::Copy { delta: payload, .. } => Some(payload),
            _ => None,
        }
    }
}

/// A field whose octets follow the message, so that they are shared with what arrived, not copied. In the message
/// stands their number.
mod behind {
    use super::{Bytes, MAX_SNAPSHOT, Pieces};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    /// Stands for what follows until that is there: as long, and nothing else.
    static PLACE: [u8; MAX_SNAPSHOT] = [0; MAX_SNAPSHOT];

    #[expect(
        clippy::cast_possible_truncation,
        reason = "no snapshot is longer than its limit, far below 2^32"
    )]
    pub(super) fn serialize<S: Serializer>(octets: &Pieces, to: S) -> Result<S::Ok, S::Error> {
        (octets.len() as u32).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Pieces, D::Error> {
        let len = u32::deserialize(from)?;
        let place = PLACE.get(..len as usize).map(|place| Bytes::from_static(place).into());
        place.ok_or_else(|| de::Error::custom("longer than a snapshot may be"))
    }
}
