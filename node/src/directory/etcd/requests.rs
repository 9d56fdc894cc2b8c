//! What is asked of etcd, when, and what comes back: one request of each kind at a time. An answer that does not come in time
//! is one that says nothing, and what comes later does not count.

use std::collections::BTreeSet;
use std::time::Duration;

use ferry_handoff::NodeId;
use ferry_stack::Instant;

use super::Etcd;
use super::cells::Cells;
use super::commits::{Commit, Purpose};
use crate::directory::Event;
use crate::io::{StoreAnswer, StoreRequest};

/// Everything is looked at again so often, because a watch may have died unnoticed.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Commits that were refused in a row before there is a pause: what they build on may change as fast as we see it.
const REFUSED_IN_A_ROW: u32 = 8;

/// A request without an answer so far.
#[derive(Clone, Copy, Debug)]
struct Open {
    id: u64,
    sent: Instant,
    /// What was known then.
    revision: i64,
}

/// A lease of etcd.
#[derive(Clone, Copy, Debug)]
struct Held {
    id: i64,
    /// Until when it certainly holds.
    until: Instant,
    renew_at: Instant,
}

#[derive(Debug)]
pub(super) struct Requests {
    last: u64,
    connected: bool,
    /// For a lease, or that it is to go on.
    leasing: Option<Open>,
    held: Option<Held>,
    lease_again: Instant,
    look: Option<Open>,
    look_at: Instant,
    /// Whether everything has been seen.
    looked: bool,
    watch: Option<u64>,
    /// The last change that the watch has told, or started from.
    watched: i64,
    commit: Option<(Open, Purpose)>,
    commit_at: Instant,
    refused: u32,
    /// What became of a commit is not known: whom it was to act against. Another one that changes what it builds on
    /// has to come first.
    doubtful: Option<BTreeSet<NodeId>>,
    /// The lease under which this life is registered.
    under: Option<i64>,
    was_registered: bool,
}

impl Requests {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            last: 0,
            connected: false,
            leasing: None,
            held: None,
            lease_again: now,
            look: None,
            look_at: now,
            looked: false,
            watch: None,
            watched: 0,
            commit: None,
            commit_at: now,
            refused: 0,
            doubtful: None,
            under: None,
            was_registered: false,
        }
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connected
    }

    /// Whether this life has ever been registered.
    pub(super) fn was_registered(&self) -> bool {
        self.was_registered
    }

    /// The lease under which to register, if we are not.
    pub(super) fn unused_lease(&self) -> Option<i64> {
        self.held.map(|held| held.id).filter(|lease| self.under != Some(*lease))
    }

    pub(super) fn lease(&self) -> Option<i64> {
        self.under
    }

    pub(super) fn is_in_doubt(&self) -> bool {
        self.doubtful.is_some()
    }

    /// Whether a commit against a node may still be done, or may have been.
    pub(super) fn may_be_acting_against(&self, node: NodeId) -> bool {
        let under_way = self.commit.as_ref().is_some_and(|(_, purpose)| purpose.is_against(node));
        under_way || self.doubtful.as_ref().is_some_and(|nodes| nodes.contains(&node))
    }

    /// What was registered under a lease is not there any more.
    pub(super) fn lapsed(&mut self) {
        if self.under.take().is_some() {
            self.held = None;
        }
    }

    /// For another life of ours.
    pub(super) fn begin_anew(&mut self) {
        (self.under, self.was_registered) = (None, false);
        if let Some((_, purpose)) = self.commit.take() {
            self.doubt(&purpose);
        }
    }

    fn doubt(&mut self, purpose: &Purpose) {
        self.doubtful.get_or_insert_default().extend(purpose.against());
    }

    fn open(&mut self, revision: i64, now: Instant) -> Open {
        self.last += 1;
        Open { id: self.last, sent: now, revision }
    }
}

impl Etcd {
    /// Until when etcd certainly vouches for us.
    pub(super) fn vouched_until(&self) -> Option<Instant> {
        let held = self.requests.held?;
        (self.requests.under == Some(held.id)).then_some(held.until)
    }

    fn ask(&mut self, open: Open, request: StoreRequest) {
        self.events.push_back(Event::Ask(open.id, request));
    }

    /// Asks for what there is to ask.
    pub(super) fn go_on(&mut self, now: Instant) {
        self.give_up_waiting(now);
        self.keep_lease(now);
        self.keep_looking(now);
        let requests = &self.requests;
        if requests.commit.is_none() && requests.looked && requests.commit_at <= now && !self.lost {
            self.commit_next(now);
        }
    }

    fn commit_next(&mut self, now: Instant) {
        let Some(Commit { purpose, guards, puts, deletes }) = self.next_commit(now) else { return };
        let open = self.requests.open(self.cells.revision, now);
        if let Some(node) = purpose.against() {
            self.act_against(node);
        }
        self.requests.commit = Some((open, purpose));
        self.ask(open, StoreRequest::Commit { guards, puts, deletes });
    }

    fn keep_lease(&mut self, now: Instant) {
        let Requests { leasing, lease_again, held, .. } = &self.requests;
        if leasing.is_some() || *lease_again > now || held.is_some_and(|held| held.renew_at > now) {
            return;
        }
        let request = match held {
            Some(held) => StoreRequest::KeepAlive { lease: held.id },
            None => StoreRequest::Grant { ttl: self.lease },
        };
        let open = self.requests.open(self.cells.revision, now);
        self.requests.leasing = Some(open);
        self.ask(open, request);
    }

    fn keep_looking(&mut self, now: Instant) {
        if self.requests.look.is_none() && self.requests.look_at <= now {
            let open = self.requests.open(self.cells.revision, now);
            self.requests.look = Some(open);
            self.ask(open, StoreRequest::Look);
        }
    }

    fn watch_from(&mut self, revision: i64, now: Instant) {
        let open = self.requests.open(revision, now);
        (self.requests.watch, self.requests.watched) = (Some(open.id), revision);
        self.ask(open, StoreRequest::Watch { from: revision + 1 });
    }

    /// What has no answer by now will not get one.
    fn give_up_waiting(&mut self, now: Instant) {
        let patience = self.lease / 2;
        let Requests { leasing, look, commit, .. } = &self.requests;
        let commit = commit.as_ref().map(|(open, _)| open);
        let all = [leasing.as_ref(), look.as_ref(), commit];
        let late = all.into_iter().flatten().filter(|open| open.sent.since(now) >= patience);
        for id in late.map(|open| open.id).collect::<Vec<_>>() {
            self.take_answer(id, StoreAnswer::Failed, now);
        }
    }

    /// etcd has answered.
    pub(super) fn take_answer(&mut self, id: u64, answer: StoreAnswer, now: Instant) {
        let requests = &mut self.requests;
        if requests.watch == Some(id) {
            return self.watched(answer, now);
        }
        let is = |open: &mut Open| open.id == id;
        if let Some(open) = requests.leasing.take_if(is) {
            self.leased(open, &answer, now);
        } else if let Some(open) = requests.look.take_if(is) {
            self.looked(open, answer, now);
        } else if let Some((open, purpose)) = requests.commit.take_if(|(open, _)| open.id == id) {
            self.committed(open, &purpose, answer, now);
        }
    }

    fn leased(&mut self, open: Open, answer: &StoreAnswer, now: Instant) {
        // Whoever's clock is faster by less than 1 %.
        let holds = |ttl: Duration| (open.sent + ttl * 99 / 100, open.sent + ttl / 4);
        let requests = &mut self.requests;
        requests.connected = !matches!(answer, StoreAnswer::Failed);
        match (answer, requests.held) {
            (StoreAnswer::Granted { lease, ttl }, _) => {
                let (until, renew_at) = holds(*ttl);
                requests.held = Some(Held { id: *lease, until, renew_at });
            }
            (StoreAnswer::Kept { ttl }, Some(held)) if !ttl.is_zero() => {
                let (until, renew_at) = holds(*ttl);
                requests.held = Some(Held { until: held.until.max(until), renew_at, ..held });
            }
            (StoreAnswer::Kept { .. }, _) => (requests.held, requests.under) = (None, None),
            _ => requests.lease_again = now + self.lease / 8,
        }
    }

    fn looked(&mut self, open: Open, answer: StoreAnswer, now: Instant) {
        let StoreAnswer::Cells { revision, cells, .. } = answer else {
            (self.requests.connected, self.requests.look_at) = (false, now + self.lease / 4);
            return;
        };
        self.requests.look_at = now + LOOK_AGAIN;
        (self.requests.connected, self.requests.looked) = (true, true);
        // Everything that we knew when we asked, the watch has told by now.
        let lags = self.requests.watched < open.revision.min(self.cells.revision);
        self.accept(open, Cells::new(revision, cells), now);
        if self.requests.watch.is_none() || lags {
            self.watch_from(self.cells.revision, now);
        }
    }

    /// Takes what was seen for true, if nothing newer is known.
    fn accept(&mut self, open: Open, cells: Cells, now: Instant) {
        let lost_its_memory = cells.revision < open.revision;
        if lost_its_memory {
            self.requests.watch = None;
            self.requests.look_at = now;
        }
        if lost_its_memory || cells.revision >= self.cells.revision {
            self.learn(cells, now);
        }
    }

    fn watched(&mut self, answer: StoreAnswer, now: Instant) {
        let StoreAnswer::Changed { revision, changes } = answer else {
            self.requests.watch = None;
            // Not at once, for it may be the next that ends at once.
            self.requests.look_at = now + self.lease / 8;
            return;
        };
        self.requests.watched = self.requests.watched.max(revision);
        if revision > self.cells.revision {
            self.cells.change(revision, changes);
            self.conclude(now);
        }
    }

    fn committed(&mut self, open: Open, purpose: &Purpose, answer: StoreAnswer, now: Instant) {
        let StoreAnswer::Cells { done, revision, cells } = answer else {
            self.requests.connected = false;
            self.requests.doubt(purpose);
            self.requests.commit_at = now + self.lease / 8;
            // Not to be waited for until it is looked at anyway: it may have been done.
            self.requests.look_at = now.min(self.requests.look_at);
            return;
        };
        let requests = &mut self.requests;
        requests.connected = true;
        requests.refused = if done { 0 } else { requests.refused + 1 };
        if requests.refused >= REFUSED_IN_A_ROW {
            (requests.refused, requests.commit_at) = (0, now + self.lease / 4);
        }
        if let (Purpose::Register { lease, settles }, true) = (purpose, done) {
            (requests.under, requests.was_registered) = (Some(*lease), true);
            // What was sent before builds on what is no more.
            requests.doubtful = None;
            for node in settles {
                if let Some(member) = self.members.get_mut(node) {
                    member.unsettled = false;
                }
            }
        }
        self.accept(open, Cells::new(revision, cells), now);
    }
}
