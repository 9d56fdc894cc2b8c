//! Copies of running connections at other nodes, and what becomes of them when a node dies.

mod choice;
mod discards;
mod guard;
mod holder;
mod orphans;
mod owner;
mod recover;
mod show;

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::time::Duration;

use ferry_handoff::claims::{Claim, Holdings};
use ferry_handoff::{Copy, Epoch, Incarnation, NodeId};
use ferry_stack::tcp::{Flow, Handle, MapKey};
use ferry_stack::{Instant, Seq};
use siphasher::sip::SipHasher13;

use self::discards::Discards;
pub(super) use self::guard::Guard;
pub(super) use self::holder::{Copied, Told};
use self::orphans::Orphans;
use super::{Node, Setup};

/// Changes of which a client can tell nothing are told to the copies after so long, with whatever else has changed.
const SMALL_CHANGES: Duration = Duration::from_millis(100);
/// Deltas that are made before the node looks at what has come.
const DELTAS_AT_ONCE: usize = 256;
/// Connections of dead nodes with which this one goes on before what it has to say of them leaves, and it looks at what has
/// come: one at first, then twice as many each time up to the first figure. Once so many go on as the second says, which are those
/// whose clients wait most, it is twice as many each time again, up to the third: more together are less work.
const RECOVERIES_AT_ONCE: [usize; 3] = [8, 128, 256];
/// How long after its start a node takes it for possible that others live which it has not seen yet.
const MEET: Duration = Duration::from_secs(1);
/// Lives of nodes that are known to be over, and claims that wait for such knowledge.
const MAX_DEAD: usize = 256;
const MAX_EARLY: usize = 64;
/// How long what is known of a client's mobility is good enough for copies.
const CLIENT_KNOWN: Duration = Duration::from_secs(1);
/// How long a node that would not hold a copy is not asked again.
const REFUSED: Duration = Duration::from_secs(10);

/// What a node has to do with copies of connections: those that it owns, and those that it holds.
#[derive(Debug)]
pub(super) struct Backup {
    holdings: Holdings<Kept>,
    /// Octets that they take.
    octets: usize,
    key: SipHasher13,
    /// How long a node that is out of reach keeps its place.
    lease: Duration,
    /// The last number that a delta of this node has had.
    stamp: u64,
    /// Connections that may have changed since their last delta.
    dirty: VecDeque<Handle>,
    /// How many of them have had their turn since the node last looked at what had come.
    turns: usize,
    /// Connections of which the copies may be behind in small things.
    late: VecDeque<(Instant, Handle)>,
    /// When to look whether a connection's copies were confirmed.
    overdue: BTreeSet<(Instant, Handle)>,
    /// Since when nodes are out of reach, as long as they may come back with what they hold.
    absent: BTreeMap<NodeId, Instant>,
    /// Nodes that were never seen, and until when they may turn up.
    unmet: (BTreeSet<NodeId>, Option<Instant>),
    discards: Discards,
    /// Of connections that were given away and not yet taken: who holds copies of them.
    leaving: BTreeMap<Flow, Left>,
    orphans: Orphans,
    /// Lives of nodes that are over, the latest last.
    dead: VecDeque<(NodeId, Incarnation)>,
    /// Claims to the connections of nodes of which that is not known here yet.
    early: VecDeque<Early>,
    agreed: Agreed,
    counts: Counts,
}

/// What is counted since the start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    /// Connections that go on here from a copy.
    pub(super) recovered: u64,
    /// Copies from which no connection could go on.
    pub(super) lost: u64,
    /// Deltas sent, and their octets.
    pub(super) deltas: u64,
    pub(super) delta_octets: u64,
}

/// Connections that are to go on here. Who has heard of its node last waits for more: their turn comes first.
#[derive(Debug)]
struct Agreed {
    flows: BinaryHeap<(Instant, Flow)>,
    /// How many have their turn together, and how many of those still.
    at_once: usize,
    turns: usize,
    /// How many have had theirs since there were none.
    gone_on: usize,
}

impl Default for Agreed {
    fn default() -> Self {
        Self { flows: BinaryHeap::new(), at_once: 1, turns: 1, gone_on: 0 }
    }
}

impl Agreed {
    /// The next whose turn it is.
    fn next(&mut self) -> Option<Flow> {
        let (_, flow) = (self.turns > 0).then(|| self.flows.pop()).flatten()?;
        self.turns -= 1;
        self.gone_on += 1;
        Some(flow)
    }

    /// Others have had their turn: whether there are more.
    fn go_on(&mut self) -> bool {
        let [few, first, many] = RECOVERIES_AT_ONCE;
        if self.flows.is_empty() {
            (self.at_once, self.gone_on) = (1, 0);
        } else if self.at_once < few || self.gone_on >= first {
            self.at_once = (2 * self.at_once).min(many);
        }
        self.turns = self.at_once;
        !self.flows.is_empty()
    }
}

/// A copy that is held here.
#[derive(Debug)]
pub(super) struct Kept {
    copy: Copy,
    /// When it was last brought up to date.
    at: Instant,
    /// Whether it is what this node has given away itself.
    given: bool,
    /// Whether this node keeps a token of the client for it.
    stands_by: bool,
}

/// Claims that came before it was known here that their owner is dead.
#[derive(Debug)]
struct Early {
    from: NodeId,
    dead: (NodeId, Incarnation),
    run: u64,
    copies: Vec<Claim>,
}

/// Copies of a connection that has left.
#[derive(Debug)]
struct Left {
    iss: Seq,
    epoch: Epoch,
    holders: BTreeSet<NodeId>,
}

impl Backup {
    pub(super) fn new(setup: &Setup, key: SipHasher13, now: Instant) -> Self {
        let me = NodeId::of(&setup.name);
        let others: BTreeSet<_> = setup.peers.iter().map(|peer| NodeId::of(&peer.name)).collect();
        // Not where those of a former life began.
        let first = setup.incarnation.0 << 20;
        Self {
            holdings: Holdings::new(me, others.clone(), first, MapKey(key)),
            unmet: (others, Some(now + MEET)),
            octets: 0,
            key,
            lease: setup.directory.lease,
            stamp: 0,
            dirty: VecDeque::new(),
            turns: 0,
            late: VecDeque::new(),
            overdue: BTreeSet::new(),
            absent: BTreeMap::new(),
            discards: Discards::default(),
            leaving: BTreeMap::new(),
            orphans: Orphans::default(),
            dead: VecDeque::new(),
            early: VecDeque::new(),
            agreed: Agreed::default(),
            counts: Counts::default(),
        }
    }

    /// How much is remembered, and of what.
    pub(super) fn remembered(&self) -> [(&'static str, usize); 4] {
        [
            ("copies", self.holdings.len()),
            ("copies to be forgotten", self.discards.len()),
            ("copies left behind", self.leaving.len()),
            ("orphans", self.orphans.len()),
        ]
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        [
            self.late.front().map(|(at, _)| *at),
            self.overdue.first().map(|(at, _)| *at),
            self.absent.values().min().copied(),
            self.unmet.1,
            self.discards.deadline(),
            self.holdings.deadline(),
            self.orphans.deadline(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

impl Node {
    /// Does what has come due.
    pub(super) fn handle_backups(&mut self, now: Instant) {
        self.backup.holdings.handle_timeout(now);
        while let Some((_, handle)) = self.backup.late.front().copied().filter(|(at, _)| *at <= now) {
            self.backup.late.pop_front();
            self.small_changes_due(handle);
        }
        while let Some((_, handle)) = self.backup.overdue.first().copied().filter(|(at, _)| *at <= now) {
            self.backup.overdue.pop_first();
            self.version_overdue(handle, now);
        }
        for node in self.backup.discards.due(now) {
            self.repeat_discards(node);
        }
        if self.backup.absent.values().any(|until| *until <= now) {
            self.backup.absent.retain(|_, until| *until > now);
            self.choose_backups_anew(now);
        }
        if self.backup.unmet.1.take_if(|until| *until <= now).is_some() {
            for node in core::mem::take(&mut self.backup.unmet.0) {
                self.backup.holdings.not_there(node, now);
            }
        }
        self.forget_orphans(now);
    }

    /// A link to a node is up.
    pub(super) fn backup_up(&mut self, peer: NodeId, now: Instant) {
        self.backup.unmet.0.remove(&peer);
        self.backup.absent.remove(&peer);
        self.backup.holdings.born(peer);
        self.backup.holdings.reached(peer);
        self.repeat_discards(peer);
        self.choose_backups_anew(now);
    }

    /// A link to a node broke. It may be back soon, with all that it holds.
    pub(super) fn backup_down(&mut self, peer: NodeId, now: Instant) {
        self.backup.absent.insert(peer, now + self.backup.lease);
    }

    /// Tells a node once more what it may forget.
    pub(super) fn repeat_discards(&mut self, node: NodeId) {
        if self.peers.is_up(node) {
            for (flow, iss, epoch) in self.backup.discards.of(node) {
                self.tell(node, &ferry_handoff::Message::Discard { flow, iss, epoch });
            }
        }
    }

    /// The copy of a connection at another node is of no use any more.
    fn discard_at(&mut self, node: NodeId, flow: Flow, iss: Seq, epoch: Epoch, now: Instant) {
        if node == self.id || !self.peers.is_known(node) {
            return;
        }
        self.backup.discards.add(node, flow, iss, epoch, now);
        if self.peers.is_up(node) {
            self.tell(node, &ferry_handoff::Message::Discard { flow, iss, epoch });
        }
    }
}

#[cfg(test)]
mod tests {
    use ferry_stack::tcp::Flow;

    use super::*;

    #[test]
    fn a_node_goes_on_with_one_connection_then_with_more_each_time_those_heard_of_last_first() {
        let flow = |port| {
            let end = |port| std::net::SocketAddrV6::new(std::net::Ipv6Addr::LOCALHOST, port, 0, 0);
            Flow { local: end(80), remote: end(port) }
        };
        let mut agreed = Agreed::default();
        assert!(agreed.next().is_none() && !agreed.go_on());
        agreed.flows.extend((1..=1000).map(|nth| (Instant::from_millis(nth.into()), flow(nth))));
        let mut turns = Vec::new();
        loop {
            turns.push(
                core::iter::from_fn(|| agreed.next()).map(|flow| flow.remote.port()).collect::<Vec<_>>(),
            );
            if !agreed.go_on() {
                break;
            }
        }
        let many = [&[1, 2, 4][..], &[8; 16], &[16, 32, 64, 128, 256, 256, 113]].concat();
        assert_eq!(turns.iter().map(Vec::len).collect::<Vec<_>>(), many);
        assert_eq!(turns.concat(), (1..=1000).rev().collect::<Vec<_>>());
        agreed.flows.push((Instant::ZERO, flow(1001)));
        assert!(agreed.next().is_some() && agreed.next().is_none(), "the next time begins with one again");
    }
}
