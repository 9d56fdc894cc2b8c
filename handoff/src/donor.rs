use alloc::boxed::Box;
use alloc::sync::Arc;
use core::hash::{Hash, Hasher};
use core::time::Duration;

use ferry_stack::Instant;
use ferry_stack::tcp::{Flow, Tcb};
use thiserror::Error;

use crate::{Delta, Epoch, Incarnation, Message, Mirror, NodeId, Pieces, Refusal, Snapshot};

/// Before the first repetition of an unanswered message; then it doubles.
const FIRST_RETRY: Duration = Duration::from_millis(100);
/// Between repetitions at most.
const LAST_RETRY: Duration = Duration::from_secs(2);
/// Unanswered requests before the acceptor is given up. Only before the freeze.
const MAX_ASKED: u32 = 6;
/// A connection with less payload than this moves in one piece; octets.
const SMALL: usize = 4096;
/// Copies that go ahead of a connection, at most. Each is to leave at most half as much for the next.
const MAX_ROUNDS: u32 = 6;
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
#[derive(Clone, derive_more::Debug)]
pub(crate) enum Donor {
    /// The acceptor was asked. The connection runs here.
    Asking { to: NodeId, epoch: Epoch, retry: Retry, ahead: Option<Box<Ahead>> },
    /// The acceptor is ready, and gets a copy first. The connection runs here.
    Copying { to: NodeId, epoch: Epoch, retry: Retry, ahead: Box<Ahead> },
    /// The acceptor may be running the connection. There is no running one here, so nothing can go on with it:
    /// only an acceptor that is known never to run it gives the snapshot back.
    Committed {
        to: NodeId,
        epoch: Epoch,
        incarnation: Incarnation,
        snapshot: Arc<Snapshot>,
        /// What is sent instead, as long as the acceptor has the copy that it builds on.
        #[debug("{:?} octets", delta.as_ref().map(Pieces::len))]
        delta: Option<Pieces>,
        retry: Retry,
    },
    /// The acceptor runs it. Late segments are forwarded.
    Forwarding { to: NodeId, epoch: Epoch, until: Instant },
}

/// A connection is offered to this node, which would run it under this epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    pub(crate) to: NodeId,
    pub(crate) epoch: Epoch,
}

/// What has gone ahead of a connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ahead {
    mirror: Mirror,
    rounds: u32,
    /// Octets of payload that the last copy carried.
    carried: usize,
    /// Whether the acceptor has said what it made of it.
    answered: bool,
}

impl Ahead {
    /// The acceptor has a copy for another reason.
    pub(crate) fn on(mirror: Mirror) -> Self {
        Self { mirror, ..Self::default() }
    }

    /// Whether one more copy pays: there is much to bring, and the last one has not left as much again.
    fn pays(&self, tcb: &Tcb) -> bool {
        let missing = self.mirror.missing(tcb);
        let shrinks = self.rounds == 0 || missing <= self.carried / 2;
        missing >= SMALL && shrinks && self.rounds < MAX_ROUNDS
    }
}

/// Of what payload says, and TCP knows, only what the session makes of it.
impl Hash for Donor {
    fn hash<H: Hasher>(&self, state: &mut H) {
        core::mem::discriminant(self).hash(state);
        match self {
            Self::Asking { to, epoch, retry, ahead } => (to, epoch, retry, ahead.is_some()).hash(state),
            Self::Copying { to, epoch, retry, ahead } => {
                let Ahead { mirror, rounds, carried, answered } = &**ahead;
                (to, epoch, retry, mirror.version(), rounds, carried, answered).hash(state);
            }
            Self::Committed { to, epoch, incarnation, snapshot, delta, retry } => {
                let Snapshot { epoch: its, service, tcb: _, session, wake, client } = &**snapshot;
                (to, epoch, incarnation, its, service, session, wake, client, delta, retry).hash(state);
            }
            Self::Forwarding { to, epoch, until } => (to, epoch, until).hash(state),
        }
    }
}

/// What becomes of a donor.
#[derive(Debug)]
pub(crate) enum Next {
    /// It stays as it is.
    Stay,
    /// Send a copy ahead, if that pays; else take the connection out, then [`Donor::commit`].
    Freeze,
    /// The copy that the transfer builds on is not there: send the whole.
    Again,
    /// The acceptor has it.
    Given,
    /// It came to nothing before the freeze.
    GiveUp(Failure),
    /// The acceptor will never run it: it goes on here, from this snapshot.
    Resume(Arc<Snapshot>, Failure),
    /// Nothing more to do.
    Forget,
}

/// When to repeat a message, and how often it was.
#[derive(Clone, Copy, Debug, Hash)]
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
    /// To whom the connection is offered, and under which epoch.
    pub(crate) fn offer(&self) -> Offer {
        match *self {
            Self::Asking { to, epoch, .. }
            | Self::Copying { to, epoch, .. }
            | Self::Committed { to, epoch, .. }
            | Self::Forwarding { to, epoch, .. } => Offer { to, epoch },
        }
    }

    pub(crate) fn ask(to: NodeId, epoch: Epoch, now: Instant) -> Self {
        Self::Asking { to, epoch, retry: Retry::first(now), ahead: None }
    }

    /// Whether the connection runs here, and nothing has left that could run elsewhere.
    pub(crate) fn is_before_freeze(&self) -> bool {
        matches!(self, Self::Asking { .. } | Self::Copying { .. })
    }

    /// What the acceptor has of the connection.
    pub(crate) fn ahead(&mut self) -> Option<&mut Option<Box<Ahead>>> {
        if let Self::Asking { ahead, .. } = self { Some(ahead) } else { None }
    }

    /// Whether a copy is to go ahead, before the connection is taken out.
    pub(crate) fn sends_ahead(&self, tcb: &Tcb) -> bool {
        match self {
            Self::Asking { ahead: Some(ahead), .. } => ahead.pays(tcb),
            Self::Asking { ahead: None, .. } => Ahead::default().pays(tcb),
            // Who does not answer is not given the connection.
            Self::Copying { ahead, .. } => !ahead.answered || ahead.pays(tcb),
            Self::Committed { .. } | Self::Forwarding { .. } => false,
        }
    }

    /// The connection as it is now, to go ahead as far as the acceptor lacks it.
    pub(crate) fn copy(&mut self, snapshot: Snapshot, now: Instant) -> Option<Delta> {
        let (to, epoch, mut retry, mut ahead) = match self {
            Self::Asking { to, epoch, ahead, .. } => {
                (*to, *epoch, Retry::first(now), ahead.take().unwrap_or_default())
            }
            Self::Copying { to, epoch, retry, ahead } => (*to, *epoch, *retry, core::mem::take(ahead)),
            Self::Committed { .. } | Self::Forwarding { .. } => return None,
        };
        if ahead.answered {
            retry = Retry::first(now);
        }
        let delta = ahead.mirror.delta(snapshot);
        (ahead.rounds, ahead.carried, ahead.answered) = (ahead.rounds + 1, delta.fresh(), false);
        *self = Self::Copying { to, epoch, retry, ahead };
        Some(delta)
    }

    /// What the transfer is sent as, if the acceptor has a copy.
    pub(crate) fn last_delta(&mut self, snapshot: &Snapshot) -> Option<Pieces> {
        let (Self::Asking { ahead: Some(ahead), .. } | Self::Copying { ahead, .. }) = self else {
            return None;
        };
        let delta = ahead.mirror.delta(snapshot.clone());
        // One that builds on nothing is the whole.
        delta.base.and_then(|_| delta.pieces().ok())
    }

    /// The point of no return: the snapshot leaves.
    pub(crate) fn commit(
        Offer { to, epoch }: Offer,
        incarnation: Incarnation,
        snapshot: Arc<Snapshot>,
        delta: Option<Pieces>,
        now: Instant,
    ) -> Self {
        Self::Committed { to, epoch, incarnation, snapshot, delta, retry: Retry::first(now) }
    }

    pub(crate) fn to(&self) -> NodeId {
        self.offer().to
    }

    pub(crate) fn epoch(&self) -> Epoch {
        self.offer().epoch
    }

    pub(crate) fn deadline(&self) -> Instant {
        match self {
            Self::Asking { retry, .. } | Self::Copying { retry, .. } | Self::Committed { retry, .. } => {
                retry.at
            }
            Self::Forwarding { until, .. } => *until,
        }
    }

    /// An answer of the acceptor. Anything that does not fit is old, and changes nothing.
    pub(crate) fn answer(&mut self, from: NodeId, message: &Message, now: Instant) -> Next {
        let current = self.epoch();
        if from != self.to() || message.epoch() != Some(current) {
            return Next::Stay;
        }
        match (&mut *self, message) {
            (Self::Asking { .. }, Message::Ready { .. }) => Next::Freeze,
            (Self::Asking { .. } | Self::Copying { .. }, Message::Refuse { why, .. }) => {
                Next::GiveUp(why.clone().into())
            }
            (Self::Copying { ahead, .. }, Message::Copied { version, .. }) => {
                let news = *version == ahead.mirror.version() && !ahead.answered;
                ahead.answered |= news;
                if news { Next::Freeze } else { Next::Stay }
            }
            (Self::Copying { ahead, .. }, Message::Lacks { version, .. }) => {
                let news = *version == ahead.mirror.version() && !ahead.answered;
                if !news {
                    return Next::Stay;
                }
                // It keeps no copies now: it gets all of it at once.
                ahead.mirror.restart();
                (ahead.answered, ahead.rounds) = (true, MAX_ROUNDS);
                Next::Freeze
            }
            (Self::Committed { to, .. }, Message::Taken { .. }) => {
                *self = Self::Forwarding { to: *to, epoch: current, until: now + FORWARD };
                Next::Given
            }
            (Self::Committed { snapshot, .. }, Message::Returned { why, .. }) => {
                Next::Resume(snapshot.clone(), why.clone().into())
            }
            (Self::Committed { delta, .. }, Message::Lacks { .. }) if delta.is_some() => {
                *delta = None;
                Next::Again
            }
            _ => Next::Stay,
        }
    }

    /// The link to a node is up, in this life of it.
    pub(crate) fn peer_up(&mut self, peer: NodeId, life: Incarnation, now: Instant) {
        if let Self::Committed { to, incarnation, retry, .. } = self
            && (*to, *incarnation) == (peer, life)
        {
            *retry = Retry { at: now, sent: 0 };
        }
    }

    /// Whether the snapshot may be sent to this life of the acceptor. A later one knows nothing of what the former has done.
    pub(crate) fn is_for(&self, life: Incarnation) -> bool {
        matches!(self, Self::Committed { incarnation, .. } if *incarnation == life)
    }

    /// The link to a node broke. Before the freeze that is the end of it; after it the acceptor may run the
    /// connection, and the snapshot is sent again when the link is back.
    pub(crate) fn peer_down(&self, peer: NodeId) -> Next {
        if self.is_before_freeze() && self.to() == peer {
            Next::GiveUp(Failure::Unreachable)
        } else {
            Next::Stay
        }
    }

    /// What is due, and the message to repeat.
    pub(crate) fn timeout(&mut self, flow: Flow, service: &str, now: Instant) -> (Next, Option<Message>) {
        match self {
            Self::Asking { retry, .. } | Self::Copying { retry, .. }
                if retry.at <= now && retry.sent >= MAX_ASKED =>
            {
                (Next::GiveUp(Failure::Silent), None)
            }
            Self::Asking { retry, epoch, .. } if retry.at <= now => {
                retry.again(now);
                (Next::Stay, Some(Message::Prepare { flow, epoch: *epoch, service: service.into() }))
            }
            Self::Copying { retry, ahead, .. } if retry.at <= now => {
                retry.again(now);
                ahead.mirror.restart();
                (Next::Freeze, None)
            }
            Self::Committed { retry, .. } if retry.at <= now => {
                retry.again(now);
                (Next::Again, None)
            }
            Self::Forwarding { until, .. } if *until <= now => (Next::Forget, None),
            _ => (Next::Stay, None),
        }
    }

    /// The transfer, once more.
    pub(crate) fn transfer(&self, flow: Flow) -> Option<Message> {
        let Self::Committed { epoch, snapshot, delta, .. } = self else { return None };
        // It could be encoded the first time.
        let snapshot = delta.clone().or_else(|| snapshot.pieces().ok())?;
        Some(Message::Transfer { flow, epoch: *epoch, snapshot })
    }
}
