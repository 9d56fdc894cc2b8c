use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::hash::{Hash, Hasher};
use core::time::Duration;

use ferry_stack::tcp::{Flow, MapKey};
use ferry_stack::{Alarms, Instant, Seq};
use hashbrown::HashMap;

use super::{Claim, MAX_CLAIMS, Objection, Standing};
use crate::{Epoch, Incarnation, Message, NodeId};

/// Before the first repetition of an unanswered claim; then it doubles.
const FIRST_REPEAT: Duration = Duration::from_millis(50);
/// Between repetitions at most.
const LAST_REPEAT: Duration = Duration::from_secs(1);

/// What a node has to do for the connections of which it holds copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send a message to another node. It may be lost.
    Send {
        /// The receiver.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Its owner is dead, and nobody has come further: go on with it here, when there is time. Until then others are answered as
    /// if that had been done. [`Holdings::agreed`] gives the copy.
    Recover {
        /// Which.
        flow: Flow,
    },
    /// The owner is dead; another node has come further, and is responsible now. The copy is kept for it.
    Yielded {
        /// Which.
        flow: Flow,
        /// Who.
        to: NodeId,
    },
}

/// A copy, and to whom it belongs.
#[derive(Clone, Debug, Hash)]
pub struct Held<T> {
    /// The node that is responsible for the connection.
    pub owner: NodeId,
    /// How far it has come.
    pub standing: Standing,
    /// Nodes that hold less and have been told that there is better here: when this copy is of no use any more, neither
    /// are theirs.
    pub others: BTreeSet<NodeId>,
    /// Nodes that may have gone on from it, or from a better one, and have died.
    pub lives: u32,
    /// The copy.
    pub copy: T,
    stage: Stage,
}

/// What is known of the owner of a copy's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stage {
    /// It lives, as far as is known.
    Owned,
    /// It is dead, and the copy is claimed in this round.
    Claimed(u64),
    /// It is dead, and the connection is to go on here.
    Agreed,
}

impl<T> Held<T> {
    /// A copy of a connection that `owner` runs.
    pub fn new(owner: NodeId, standing: Standing, copy: T) -> Self {
        Self { owner, standing, others: BTreeSet::new(), lives: 0, copy, stage: Stage::Owned }
    }

    /// The epoch in which the connection goes on from this copy: no node that has died since can have begun with it.
    pub const fn recovered(&self) -> Epoch {
        self.standing.epoch.recovered_after(self.lives)
    }

    /// Whether its owner is dead, and nobody goes on with it yet.
    pub fn is_claimed(&self) -> bool {
        self.stage != Stage::Owned
    }
}

/// Who objects, the best of all, and with which life it has died since.
#[derive(Clone, Copy, Debug, Hash)]
struct Objector {
    node: NodeId,
    standing: Standing,
    died: Option<Incarnation>,
}

/// Claims under way, and who has not answered.
#[derive(Clone, Debug, Hash)]
struct Round {
    dead: NodeId,
    life: Incarnation,
    waiting: BTreeSet<NodeId>,
    claims: BTreeMap<Flow, (Standing, Option<Objector>)>,
    repeat: Duration,
}

/// The copies that one node holds of other nodes' connections. Messages, deaths and time in; [`Verdict`]s out by
/// [`Holdings::poll`].
///
/// It can be cloned, and hashed once all that there was to do is done, so that a search can go through its states.
#[derive(Clone, Debug)]
pub struct Holdings<T> {
    me: NodeId,
    held: HashMap<Flow, Held<T>, MapKey>,
    counts: BTreeMap<NodeId, usize>,
    /// The other nodes of the group, except those that are known to be dead.
    living: BTreeSet<NodeId>,
    rounds: BTreeMap<u64, Round>,
    runs: u64,
    timers: Alarms<u64>,
    verdicts: VecDeque<Verdict>,
}

impl<T: Hash> Hash for Holdings<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { me, held, counts: _, living, rounds, runs, timers, verdicts: _ } = self;
        let held: BTreeMap<_, _> = held.iter().collect();
        (me, held, living, rounds, runs, timers.next()).hash(state);
    }
}

impl<T> Holdings<T> {
    /// Holds nothing. `first` is where the numbers of its rounds begin: not where those of a former life did.
    pub fn new(me: NodeId, others: impl IntoIterator<Item = NodeId>, first: u64, key: MapKey) -> Self {
        Self {
            me,
            held: HashMap::with_hasher(key),
            counts: BTreeMap::new(),
            living: others.into_iter().collect(),
            rounds: BTreeMap::new(),
            runs: first,
            timers: Alarms::default(),
            verdicts: VecDeque::new(),
        }
    }

    /// How many copies there are.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// How many belong to a node.
    pub fn of(&self, owner: NodeId) -> usize {
        self.counts.get(&owner).copied().unwrap_or(0)
    }

    /// How many are being claimed.
    pub fn claimed(&self) -> usize {
        self.rounds.values().map(|round| round.claims.len()).sum()
    }

    /// The copy of a connection that is to go on here, unless it was replaced or discarded since that was agreed.
    pub fn agreed(&mut self, flow: &Flow) -> Option<Held<T>> {
        self.held.get(flow).filter(|held| held.stage == Stage::Agreed)?;
        self.remove(flow)
    }

    /// The copy of a connection.
    pub fn get(&self, flow: &Flow) -> Option<&Held<T>> {
        self.held.get(flow)
    }

    /// The copy of a connection, to be brought up to date.
    pub fn get_mut(&mut self, flow: &Flow) -> Option<&mut Held<T>> {
        self.held.get_mut(flow)
    }

    /// Every copy, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&Flow, &Held<T>)> {
        self.held.iter()
    }

    /// Holds a copy in place of the one that there may be. Nodes that hold less than either are remembered.
    pub fn insert(&mut self, flow: Flow, mut held: Held<T>) {
        if let Some(before) = self.remove(&flow) {
            held.others.extend(before.others);
        }
        *self.counts.entry(held.owner).or_default() += 1;
        self.held.insert(flow, held);
    }

    /// Holds it no longer.
    pub fn remove(&mut self, flow: &Flow) -> Option<Held<T>> {
        let held = self.held.remove(flow)?;
        self.count_less(held.owner);
        Some(held)
    }

    fn count_less(&mut self, owner: NodeId) {
        if let Some(count) = self.counts.get_mut(&owner) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&owner);
            }
        }
    }

    /// Whether there is nothing to do next.
    pub fn is_idle(&self) -> bool {
        self.verdicts.is_empty()
    }

    /// Forgets everything: this life of the node is over.
    pub fn clear(&mut self) {
        self.held.clear();
        self.counts.clear();
        self.rounds.clear();
        self.timers = Alarms::default();
        self.verdicts.clear();
    }

    /// A copy of this connection is of no use any more, if it is of no later epoch, nor is one of an earlier connection
    /// between the same ends: drops it. `None` if there is nothing of the kind.
    pub fn discard(&mut self, flow: &Flow, iss: Seq, epoch: Epoch) -> Option<Held<T>> {
        let over = Standing::of_owner(iss, epoch);
        let ends = |held: &Held<T>| held.standing.is_covered_by(&over);
        if self.held.get(flow).is_some_and(ends) { self.remove(flow) } else { None }
    }

    /// A node lives, in a life that has just begun or that is seen for the first time.
    pub fn born(&mut self, node: NodeId) {
        if node != self.me {
            self.living.insert(node);
        }
    }

    /// What to do next.
    pub fn poll(&mut self) -> Option<Verdict> {
        self.verdicts.pop_front()
    }

    /// When [`Holdings::handle_timeout`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Repeats what was not answered.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(run) = self.timers.due(now) {
            let Some(round) = self.rounds.get_mut(&run) else { continue };
            round.repeat = (round.repeat * 2).min(LAST_REPEAT);
            self.timers.set(run, Some(now + round.repeat));
            for to in round.waiting.clone() {
                self.send_claims(run, to);
            }
        }
    }

    /// A link to a node is up again: what it has not answered is repeated at once.
    pub fn reached(&mut self, node: NodeId) {
        let waits = |round: &Round| round.waiting.contains(&node);
        let runs: Vec<_> =
            self.rounds.iter().filter(|(_, round)| waits(round)).map(|(run, _)| *run).collect();
        for run in runs {
            self.send_claims(run, node);
        }
    }

    /// A node has never been seen in this node's life, and is not waited for any more.
    pub fn not_there(&mut self, node: NodeId, now: Instant) {
        self.living.remove(&node);
        self.wait_no_more_for(node, now);
    }

    fn wait_no_more_for(&mut self, node: NodeId, now: Instant) {
        let waits = self.rounds.iter_mut().filter_map(|(run, round)| {
            round.waiting.remove(&node);
            round.waiting.is_empty().then_some(*run)
        });
        for run in waits.collect::<Vec<_>>() {
            self.finish(run, now);
        }
    }

    /// It is a fact that this life of a node is over. The caller ignores whatever it still says.
    pub fn died(&mut self, node: NodeId, life: Incarnation, now: Instant) {
        self.living.remove(&node);
        self.end(node, life, now);
    }

    /// The same, and the node has begun a new life, in which it may own what its clients have begun anew: it is asked, too.
    pub fn died_and_lives(&mut self, node: NodeId, life: Incarnation, now: Instant) {
        self.born(node);
        self.end(node, life, now);
    }

    fn end(&mut self, node: NodeId, life: Incarnation, now: Instant) {
        for round in self.rounds.values_mut() {
            let objectors = round.claims.values_mut().filter_map(|(_, objector)| objector.as_mut());
            for objector in objectors.filter(|objector| objector.node == node) {
                objector.died.get_or_insert(life);
            }
        }
        self.wait_no_more_for(node, now);
        if self.of(node) > 0 {
            let its = self.held.iter().filter(|(_, held)| held.owner == node && !held.is_claimed());
            let its = its.map(|(flow, _)| *flow).collect();
            self.claim(node, life, its, now);
        }
    }

    /// Asks all who live whether one of them has come further.
    fn claim(&mut self, dead: NodeId, life: Incarnation, mut flows: Vec<Flow>, now: Instant) {
        flows.sort_unstable();
        for flows in flows.chunks(MAX_CLAIMS) {
            self.runs += 1;
            let run = self.runs;
            let mut claims = BTreeMap::new();
            for flow in flows {
                let Some(held) = self.held.get_mut(flow) else { continue };
                held.stage = Stage::Claimed(run);
                claims.insert(*flow, (held.standing, None));
            }
            let waiting = self.living.clone();
            let round = Round { dead, life, waiting: waiting.clone(), claims, repeat: FIRST_REPEAT };
            self.rounds.insert(run, round);
            self.timers.set(run, Some(now + FIRST_REPEAT));
            for to in &waiting {
                self.send_claims(run, *to);
            }
            if waiting.is_empty() {
                self.finish(run, now);
            }
        }
    }

    fn send_claims(&mut self, run: u64, to: NodeId) {
        let Some(round) = self.rounds.get(&run) else { return };
        let copies =
            round.claims.iter().map(|(flow, (standing, _))| Claim { flow: *flow, standing: *standing });
        let message = Message::Claims { dead: round.dead, life: round.life, run, copies: copies.collect() };
        self.verdicts.push_back(Verdict::Send { to, message });
    }

    /// Another node claims connections of a node that is dead, as is known here too by now. `authority` tells which of
    /// them this node itself owns, or has owned to its end, or is giving away, and how far it has come.
    pub fn answer(
        &mut self,
        from: NodeId,
        (dead, life): (NodeId, Incarnation),
        run: u64,
        copies: &[Claim],
        mut authority: impl FnMut(&Claim) -> Option<Standing>,
    ) {
        let objections = copies.iter().filter_map(|claim| {
            let standing = authority(claim).or_else(|| self.object(from, claim))?;
            Some(Objection { flow: claim.flow, standing })
        });
        let objections = objections.collect();
        let message = Message::Claimed { dead, life, run, objections };
        self.verdicts.push_back(Verdict::Send { to: from, message });
    }

    /// The better copy that is held here, if it is. If theirs is the better one, they object by claiming it: they may
    /// die before they can say so in any other way.
    fn object(&mut self, from: NodeId, claim: &Claim) -> Option<Standing> {
        let held = self.held.get_mut(&claim.flow)?;
        let going_on = Standing::of_owner(held.standing.iss, held.recovered());
        if held.stage == Stage::Agreed && claim.standing.is_covered_by(&going_on) {
            held.others.insert(from);
            return Some(going_on);
        }
        if held.standing.beats(self.me, &claim.standing, from) {
            held.others.insert(from);
            return Some(held.standing);
        }
        if let Stage::Claimed(run) = held.stage {
            self.note(run, from, claim);
        }
        None
    }

    fn note(&mut self, run: u64, node: NodeId, objection: &Objection) {
        let round = self.rounds.get_mut(&run);
        let Some((_, best)) = round.and_then(|round| round.claims.get_mut(&objection.flow)) else { return };
        let standing = objection.standing;
        if best.is_none_or(|best| standing.beats(node, &best.standing, best.node)) {
            *best = Some(Objector { node, standing, died: None });
        }
    }

    /// A node has answered.
    pub fn answered(&mut self, from: NodeId, run: u64, objections: &[Objection], now: Instant) {
        let Some(round) = self.rounds.get_mut(&run) else { return };
        if !round.waiting.remove(&from) {
            return;
        }
        let over = round.waiting.is_empty();
        for objection in objections {
            self.note(run, from, objection);
        }
        if over {
            self.finish(run, now);
        }
    }

    /// All have answered, or died.
    fn finish(&mut self, run: u64, now: Instant) {
        let Some(round) = self.rounds.remove(&run) else { return };
        self.timers.set(run, None);
        let mut again = BTreeMap::<_, Vec<_>>::new();
        for (flow, (standing, objector)) in round.claims {
            // What was replaced or discarded meanwhile is not claimed any more.
            let Some(held) = self.held.get_mut(&flow) else { continue };
            if held.stage != Stage::Claimed(run) || held.standing != standing {
                continue;
            }
            let Some(objector) = objector else {
                held.stage = Stage::Agreed;
                self.verdicts.push_back(Verdict::Recover { flow });
                continue;
            };
            held.stage = Stage::Owned;
            held.lives += 1;
            let before = core::mem::replace(&mut held.owner, objector.node);
            self.count_less(before);
            *self.counts.entry(objector.node).or_default() += 1;
            match objector.died {
                Some(life) => again.entry((objector.node, life.0)).or_default().push(flow),
                None => self.verdicts.push_back(Verdict::Yielded { flow, to: objector.node }),
            }
        }
        for ((dead, life), flows) in again {
            self.claim(dead, Incarnation(life), flows, now);
        }
    }
}
