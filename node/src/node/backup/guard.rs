//! What the owner of one connection knows of its copies at other nodes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use ferry_handoff::{Mirror, NodeId};
use ferry_stack::tcp::{Point, State, Tcb};
use ferry_stack::{Instant, Seq};

/// Versions under way that not everybody has: one, and one ahead of its confirmation. What changes meanwhile waits for
/// the next, so that the copies are brought up to date as often as the way to them allows, and no more often.
const AHEAD: usize = 2;
/// Before a version that was not confirmed is followed by a whole one; then it doubles.
const FIRST_RETRY: Duration = Duration::from_millis(200);
/// Between those at most.
const LAST_RETRY: Duration = Duration::from_secs(2);

/// The copies of one connection that this node owns.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "any of them can be so at the same time")]
pub(in crate::node) struct Guard {
    /// Tells the connection from others between the same ends.
    pub(super) iss: Seq,
    pub(super) mirror: Mirror,
    pub(super) holders: Vec<Holder>,
    /// Other nodes with older copies, which are of no use any more once the holders have theirs.
    pub(super) former: BTreeSet<NodeId>,
    /// Versions that not all holders have, the oldest first.
    pending: VecDeque<Pending>,
    /// The connection as the last delta has it, and when that was sent.
    told: Option<Told>,
    sent: Option<Instant>,
    /// What all holders have at least.
    confirmed: Option<Point>,
    /// Whether its turn to be looked at will come: soon …
    pub(super) queued: bool,
    /// … or later, because what has changed does not matter much.
    pub(super) late: bool,
    /// Whether the session was called since the last delta.
    pub(super) called: bool,
    /// Since when there is something that is in no delta.
    pub(super) behind: Option<Instant>,
    /// Whether the next delta is due whatever has changed.
    pub(super) due: bool,
    /// When a version that was not confirmed is given up.
    retry: Duration,
    pub(super) retry_at: Option<Instant>,
    /// Nodes that would not hold a copy, and until when they are not asked again.
    pub(super) refused: BTreeMap<NodeId, Instant>,
    /// What was known of the client's mobility, and when that was looked at.
    pub(super) client: Option<(Bytes, Instant)>,
    /// The donor is told that the connection was taken once there is a copy of it.
    pub(super) unconfirmed: bool,
}

/// A node that is to have a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) node: NodeId,
    /// The last version that it has confirmed; 0 if none.
    pub(super) has: u64,
    /// Whether another is to take its place.
    pub(super) leaves: bool,
    /// It was told to forget an earlier copy, and has not answered yet.
    pub(super) forgets: bool,
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    version: u64,
    point: Point,
    at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    point: Point,
    una: Seq,
    state: core::mem::Discriminant<State<Instant>>,
}

impl Told {
    fn of(tcb: &Tcb) -> Self {
        Self { point: tcb.point(), una: tcb.snd.una, state: core::mem::discriminant(&tcb.state) }
    }
}

/// What has changed since the last delta.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing.
    Nothing,
    /// Nothing that a client could tell: acknowledged octets may be forgotten.
    Small,
    /// Something that must be known to a backup before the client hears of it.
    Great,
}

impl Guard {
    /// The next version is `after` + 1.
    pub(super) fn new(iss: Seq, after: u64, former: BTreeSet<NodeId>) -> Self {
        Self {
            iss,
            mirror: Mirror::after(after),
            holders: Vec::new(),
            former,
            pending: VecDeque::new(),
            told: None,
            sent: None,
            confirmed: None,
            queued: false,
            late: false,
            called: false,
            behind: None,
            due: false,
            retry: FIRST_RETRY,
            retry_at: None,
            refused: BTreeMap::new(),
            client: None,
            unconfirmed: false,
        }
    }

    pub(super) fn change(&self, tcb: &Tcb) -> Change {
        let (now, told) = (Told::of(tcb), self.told);
        match told {
            Some(told) if told == now && !self.called => Change::Nothing,
            Some(told) if (told.point, told.state) == (now.point, now.state) => Change::Small,
            _ => Change::Great,
        }
    }

    /// Whether there is nothing to wait for before another delta is made.
    pub(super) fn is_free(&self) -> bool {
        self.due || self.pending.len() < AHEAD
    }

    /// A delta has been made of the connection as it is now.
    pub(super) fn note_sent(&mut self, tcb: &Tcb, now: Instant) {
        let told = Told::of(tcb);
        let at = self.behind.take().unwrap_or(now);
        self.pending.push_back(Pending { version: self.mirror.version(), point: told.point, at });
        (self.told, self.sent) = (Some(told), Some(now));
        (self.called, self.due) = (false, false);
    }

    /// When this version is overdue; only if it is the only one for which that has to be known.
    pub(super) fn arm(&mut self, now: Instant) -> Option<Instant> {
        if self.retry_at.is_some() {
            return None;
        }
        self.retry_at = Some(now + self.retry);
        self.retry_at
    }

    /// The time has come to look whether something is overdue: when to look again, if there is something to wait for.
    pub(super) fn overdue(&mut self, now: Instant) -> Option<Instant> {
        self.retry_at = None;
        // Who catches up is not waited for where another is there, but not forgotten either.
        let catches_up = || self.sent.filter(|_| !self.is_complete());
        let due = self.pending.front().map(|first| first.at).or_else(catches_up)? + self.retry;
        if due > now {
            self.retry_at = Some(due);
            return self.retry_at;
        }
        self.retry = (self.retry * 2).min(LAST_RETRY);
        self.begin_anew();
        None
    }

    /// The next delta is whole, and due now.
    pub(super) fn begin_anew(&mut self) {
        self.mirror.restart();
        self.due = true;
    }

    /// A holder has confirmed a version. Tells how far all know the connection now, if that is news.
    pub(super) fn copied(&mut self, node: NodeId, version: u64) -> Option<Point> {
        let known = self.mirror.version();
        let holder = self.holders.iter_mut().find(|holder| holder.node == node && version <= known)?;
        holder.has = holder.has.max(version);
        self.settle()
    }

    /// How far all holders know the connection, if that is news. Who catches up is not waited for as long as another
    /// is there.
    pub(super) fn settle(&mut self) -> Option<Point> {
        let stays = |holder: &&Holder| holder.has > 0;
        let all = self.holders.iter().filter(stays).map(|holder| holder.has).min()?;
        let mut news = None;
        while let Some(first) = self.pending.front().filter(|first| first.version <= all) {
            news = Some(first.point);
            self.pending.pop_front();
        }
        if news.is_some() {
            self.confirmed = news;
            if self.is_complete() {
                self.retry = FIRST_RETRY;
            }
        }
        news
    }

    /// Those in whose place others have caught up by now.
    pub(super) fn relieved(&mut self) -> Vec<NodeId> {
        if self.holders.iter().any(|holder| !holder.leaves && holder.has == 0) {
            return Vec::new();
        }
        let relieved = self.holders.extract_if(.., |holder| holder.leaves);
        relieved.map(|holder| holder.node).collect()
    }

    /// Whether all who are to have a copy have one.
    pub(super) fn is_complete(&self) -> bool {
        self.holders.iter().all(|holder| holder.has > 0)
    }

    /// Whether somebody has a copy.
    pub(super) fn is_protected(&self) -> bool {
        self.holders.iter().any(|holder| holder.has > 0)
    }

    /// Nobody is to have a copy any more.
    pub(super) fn is_alone(&self) -> bool {
        self.holders.is_empty()
    }

    /// Nobody is waited for.
    pub(super) fn forget_pending(&mut self) {
        self.pending.clear();
    }

    /// Octets, both ways, that are not known to be in every copy.
    pub(super) fn lag_octets(&self, tcb: &Tcb) -> u64 {
        let point = tcb.point();
        let behind = |confirmed: Point| {
            point.ack.distance_from(confirmed.ack) + point.send.distance_from(confirmed.send)
        };
        self.confirmed.map_or(0, behind) as u64
    }

    /// For how long something has not been in every copy.
    pub(super) fn lag(&self, now: Instant) -> Duration {
        let since = self.pending.front().map(|first| first.at).or(self.behind);
        since.map_or(Duration::ZERO, |since| since.since(now))
    }
}
