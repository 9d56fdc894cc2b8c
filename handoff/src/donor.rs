use core::time::Duration;

use bytes::Bytes;
use ferry_stack::Instant;
use ferry_stack::tcp::Flow;
use thiserror::Error;

use crate::{Epoch, Incarnation, Message, NodeId, Refusal};

/// Before the first repetition of an unanswered message; then it doubles.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Between repetitions at most.
const LAST_RETRY: Duration = Duration::from_secs(2);
/// Unanswered requests before the acceptor is given up. Only before the freeze.
const MAX_ASKED: u32 = 6;
/// How long late segments are forwarded after a handoff.
const FORWARD: Duration = Duration::from_mins(2);

/// Why a handoff did not come about. The connection runs on here.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// The acceptor said no.
    #[error("{0}")]
    Refused(#[from] Refusal),
    /// The acceptor did not answer.
    #[error("the other node did not answer")]
    Silent,
    /// The link to the acceptor broke before the freeze.
    #[error("the link to the other node is down")]
    Unreachable,
    /// The acceptor died after the transfer, without having taken the connection.
    #[error("the other node died while it was taking the connection")]
    Died,
    /// The connection ended before it could move.
    #[error("the connection ended first")]
    Ended,
    /// There is more to move than a snapshot may hold.
    #[error("the connection holds more than a snapshot may")]
    TooLarge,
}

/// The donor's side of one handoff.
#[derive(Debug)]
pub(crate) enum Donor {
    /// The acceptor was asked. The connection runs here.
    Asking { to: NodeId, epoch: Epoch, retry: Retry },
    /// The acceptor may be running the connection. There is no running one here, so nothing can go on with it:
    /// only an acceptor that is known never to run it gives the snapshot back.
    Committed { to: NodeId, epoch: Epoch, incarnation: Incarnation, snapshot: Bytes, retry: Retry },
    /// The acceptor runs it. Late segments are forwarded.
    Forwarding { to: NodeId, epoch: Epoch, until: Instant },
}

/// What becomes of a donor.
#[derive(Debug)]
pub(crate) enum Next {
    /// It stays as it is.
    Stay,
    /// Take the connection out, then [`Donor::commit`].
    Freeze,
    /// The acceptor has it.
    Given,
    /// It came to nothing before the freeze.
    GiveUp(Failure),
    /// The acceptor will never run it: it goes on here, from this snapshot.
    Resume(Bytes, Failure),
    /// Nothing more to do.
    Forget,
}

/// When to repeat a message, and how often it was.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retry {
    at: Instant,
    sent: u32,
}

impl Retry {
    pub(crate) fn first(now: Instant) -> Self {
        Self { at: now + FIRST_RETRY, sent: 1 }
    }

    pub(crate) fn again(&mut self, now: Instant) {
        let wait = FIRST_RETRY * (1 << self.sent.min(8));
        *self = Self { at: now + wait.min(LAST_RETRY), sent: self.sent + 1 };
    }
}

impl Donor {
    pub(crate) fn ask(to: NodeId, epoch: Epoch, now: Instant) -> Self {
        Self::Asking { to, epoch, retry: Retry::first(now) }
    }

    /// The point of no return: the snapshot leaves.
    pub(crate) fn commit(
        to: NodeId,
        epoch: Epoch,
        incarnation: Incarnation,
        snapshot: Bytes,
        now: Instant,
    ) -> Self {
        Self::Committed { to, epoch, incarnation, snapshot, retry: Retry::first(now) }
    }

    pub(crate) fn to(&self) -> NodeId {
        match self {
            Self::Asking { to, .. } | Self::Committed { to, .. } | Self::Forwarding { to, .. } => *to,
        }
    }

    pub(crate) fn epoch(&self) -> Epoch {
        match self {
            Self::Asking { epoch, .. } | Self::Committed { epoch, .. } | Self::Forwarding { epoch, .. } => {
                *epoch
            }
        }
    }

    pub(crate) fn deadline(&self) -> Instant {
        match self {
            Self::Asking { retry, .. } | Self::Committed { retry, .. } => retry.at,
            Self::Forwarding { until, .. } => *until,
        }
    }

    /// An answer of the acceptor. Anything that does not fit is old, and changes nothing.
    pub(crate) fn answer(&mut self, from: NodeId, message: &Message, now: Instant) -> Next {
        if from != self.to() {
            return Next::Stay;
        }
        let current = self.epoch();
        match (&mut *self, message) {
            (Self::Asking { .. }, Message::Ready { epoch, .. }) if *epoch == current => Next::Freeze,
            (Self::Asking { .. }, Message::Refuse { epoch, why, .. }) if *epoch == current => {
                Next::GiveUp(why.clone().into())
            }
            (Self::Committed { to, .. }, Message::Taken { epoch, .. }) if *epoch == current => {
                *self = Self::Forwarding { to: *to, epoch: current, until: now + FORWARD };
                Next::Given
            }
            (Self::Committed { snapshot, .. }, Message::Returned { epoch, why, .. }) if *epoch == current => {
                Next::Resume(snapshot.clone(), why.clone().into())
            }
            _ => Next::Stay,
        }
    }

    /// The link to a node is up. A new life of the acceptor means that the one that was asked is dead.
    pub(crate) fn peer_up(&mut self, peer: NodeId, life: Incarnation, now: Instant) -> Next {
        match self {
            Self::Committed { to, incarnation, snapshot, .. } if *to == peer && *incarnation != life => {
                Next::Resume(snapshot.clone(), Failure::Died)
            }
            Self::Committed { to, retry, .. } if *to == peer => {
                *retry = Retry { at: now, sent: 0 };
                Next::Stay
            }
            _ => Next::Stay,
        }
    }

    /// A life of a node is over. What it was asked to take goes on here, unless it has told that it has it.
    pub(crate) fn peer_dead(&self, peer: NodeId, life: Incarnation) -> Next {
        match self {
            Self::Asking { to, .. } if *to == peer => Next::GiveUp(Failure::Unreachable),
            Self::Committed { to, incarnation, snapshot, .. } if *to == peer && *incarnation == life => {
                Next::Resume(snapshot.clone(), Failure::Died)
            }
            _ => Next::Stay,
        }
    }

    /// The link to a node broke. Before the freeze that is the end of it; after it the acceptor may run the
    /// connection, and the snapshot is sent again when the link is back.
    pub(crate) fn peer_down(&self, peer: NodeId) -> Next {
        match self {
            Self::Asking { to, .. } if *to == peer => Next::GiveUp(Failure::Unreachable),
            _ => Next::Stay,
        }
    }

    /// What is due, and the message to repeat.
    pub(crate) fn timeout(&mut self, flow: Flow, service: &str, now: Instant) -> (Next, Option<Message>) {
        match self {
            Self::Asking { retry, epoch, .. } if retry.at <= now => {
                if retry.sent >= MAX_ASKED {
                    return (Next::GiveUp(Failure::Silent), None);
                }
                retry.again(now);
                (Next::Stay, Some(Message::Prepare { flow, epoch: *epoch, service: service.into() }))
            }
            Self::Committed { retry, epoch, snapshot, .. } if retry.at <= now => {
                retry.again(now);
                (Next::Stay, Some(Message::Transfer { flow, epoch: *epoch, snapshot: snapshot.clone() }))
            }
            Self::Forwarding { until, .. } if *until <= now => (Next::Forget, None),
            _ => (Next::Stay, None),
        }
    }
}
