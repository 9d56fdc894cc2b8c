//! A model of ownership: three nodes run the handoffs that ship (`Handoffs`), with two connections between them, and a
//! search goes through everything that can happen within [`Bounds`]: messages in any order, lost, doubled; links that
//! break, each end noticing when it does; nodes that die in the middle and start anew; transfers that are refused.
//!
//! What a node does for its handoffs is `Node::act` without TCP: a connection is an epoch and a counter, which grows when
//! its client sees something. Who has given a connection to a node that has died asks all others before it goes on
//! (`Holdings`, without replicas).

mod node;
mod search;

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

use bytes::Bytes;
use ferry_handoff::{Epoch, Message, NodeId};
use ferry_stack::Instant;
use ferry_stack::tcp::Flow;

pub use self::node::Running;
use self::node::{Model, flow_of, name_of, nth_of};
pub use self::search::{Found, search};

/// Nodes of the model.
pub const NODES: usize = 3;
/// Connections of the model.
pub const CONNECTIONS: usize = 2;

/// No message is under way for longer: it has arrived, or its link breaks.
const LIVES: Duration = Duration::from_mins(1);

/// How often each thing may happen at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// An owner begins to hand a connection off.
    pub gives: u8,
    /// A message is lost though its link is whole.
    pub losses: u8,
    /// A message arrives twice.
    pub doubles: u8,
    /// A node dies.
    pub deaths: u8,
    /// A link breaks between two that live.
    pub breaks: u8,
    /// A node's next timer fires.
    pub timeouts: u8,
    /// An acceptor refuses what has come.
    pub refusals: u8,
    /// A client sees something new.
    pub steps: u8,
    /// A connection ends at its owner.
    pub ends: u8,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The owner of a connection begins to give it to a node.
    Give(usize, usize),
    /// A message arrives.
    Deliver(usize),
    /// A transfer arrives, and the acceptor cannot run what it brings.
    Refuse(usize),
    /// A message arrives, and will once more.
    Double(usize),
    /// A message is lost.
    Lose(usize),
    /// The next timer of a node fires.
    Timeout(usize),
    /// A node dies.
    Die(usize),
    /// A dead node starts anew.
    Restart(usize),
    /// A link breaks.
    Break(usize, usize),
    /// The first notices that its link to the second has broken.
    Notice(usize, usize),
    /// A link comes up.
    Meet(usize, usize),
    /// The client of a connection sees something new of its owner.
    See(usize),
    /// A connection ends at its owner.
    End(usize),
}

/// What a node knows of its link to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Link {
    Down,
    Up,
    /// It has broken, which this node does not know.
    Broken,
}

/// A message under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Letter {
    from: usize,
    to: usize,
    bytes: Bytes,
}

/// What is true of a connection, seen from above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Truth {
    /// The last owner and epoch.
    last: Option<(usize, Epoch)>,
    /// What its client has seen.
    seen: u8,
    ended: bool,
    /// All that was left of it has died, or what is left is older than what the client has seen.
    lost: bool,
}

/// All nodes, all that is under way, and what is true.
#[derive(Clone, Debug)]
pub struct World {
    nodes: [Option<Model>; NODES],
    lives: [u64; NODES],
    links: [[Link; NODES]; NODES],
    letters: BTreeSet<Letter>,
    truth: [Truth; CONNECTIONS],
    left: Bounds,
    /// What every clock shows: it goes on from timer to timer.
    now: Instant,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { nodes, lives, links, letters, truth, left, now } = self;
        (nodes, lives, links, letters, truth, left, now).hash(state);
    }
}

impl World {
    /// The first connection lives on the first node, the second on the second; all links are up.
    pub fn new(left: Bounds) -> Self {
        let mut world = Self {
            nodes: core::array::from_fn(|nth| Some(Model::new(nth, 1))),
            lives: [1; NODES],
            links: [[Link::Down; NODES]; NODES],
            letters: BTreeSet::new(),
            truth: [Truth::default(); CONNECTIONS],
            left,
            now: Instant::from_millis(1_000),
        };
        for (a, b) in pairs() {
            world.meet(a, b);
        }
        for nth in 0..CONNECTIONS {
            if let Some(node) = &mut world.nodes[nth] {
                node.owned.insert(nth, Running { epoch: Epoch::FIRST, offered: Epoch::FIRST, seen: 0 });
            }
            world.truth[nth].last = Some((nth, Epoch::FIRST));
        }
        world
    }

    fn owner(&self, nth: usize) -> Option<usize> {
        (0..NODES).find(|at| self.nodes[*at].as_ref().is_some_and(|node| node.owned.contains_key(&nth)))
    }

    /// When each node that lives has something to do by itself.
    fn deadlines(&mut self) -> [Option<Instant>; NODES] {
        core::array::from_fn(|node| self.nodes[node].as_mut().and_then(Model::deadline))
    }

    /// Everything that can happen now.
    pub fn steps(&mut self) -> Vec<Step> {
        let deadlines = self.deadlines();
        // Nor is any node so slow: its links would break.
        let first = deadlines.iter().flatten().min().copied().unwrap_or(self.now);
        let mut steps = Vec::new();
        let left = &self.left;
        let transfer = |letter: &Letter| matches!(letter.message(), Message::Transfer { .. });
        for (at, letter) in self.letters.iter().enumerate() {
            steps.push(Step::Deliver(at));
            steps.extend((left.refusals > 0 && transfer(letter)).then_some(Step::Refuse(at)));
            steps.extend((left.doubles > 0).then_some(Step::Double(at)));
            steps.extend((left.losses > 0).then_some(Step::Lose(at)));
        }
        for nth in 0..CONNECTIONS {
            let Some(owner) = self.owner(nth) else { continue };
            let giving =
                self.nodes[owner].as_ref().is_some_and(|node| node.handoffs.is_giving(&flow_of(nth)));
            let others = (0..NODES).filter(|to| *to != owner && !giving && left.gives > 0);
            steps.extend(others.map(|to| Step::Give(nth, to)));
            steps.extend((left.steps > 0).then_some(Step::See(nth)));
            steps.extend((left.ends > 0).then_some(Step::End(nth)));
        }
        for (node, deadline) in deadlines.into_iter().enumerate() {
            let alive = self.nodes[node].as_ref();
            steps.extend((alive.is_some() && left.deaths > 0).then_some(Step::Die(node)));
            steps.extend(alive.is_none().then_some(Step::Restart(node)));
            let soon = |at: Instant| {
                at.until(first) <= LIVES && (at.until(self.now) <= LIVES || self.letters.is_empty())
            };
            let due = left.timeouts > 0 && deadline.is_some_and(soon);
            steps.extend(due.then_some(Step::Timeout(node)));
        }
        for (a, b) in pairs() {
            let (ab, ba) = (self.links[a][b], self.links[b][a]);
            let alive = self.nodes[a].is_some() && self.nodes[b].is_some();
            steps.extend((left.breaks > 0 && (ab, ba) == (Link::Up, Link::Up)).then_some(Step::Break(a, b)));
            steps.extend((ab == Link::Broken).then_some(Step::Notice(a, b)));
            steps.extend((ba == Link::Broken).then_some(Step::Notice(b, a)));
            steps.extend((alive && (ab, ba) == (Link::Down, Link::Down)).then_some(Step::Meet(a, b)));
        }
        steps
    }

    /// Lets something happen. The error is the sentence that does not hold any more.
    pub fn take(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Give(nth, to) => {
                self.left.gives -= 1;
                self.give(nth, to);
            }
            Step::Deliver(at) => self.deliver(at, false, false),
            Step::Refuse(at) => {
                self.left.refusals -= 1;
                self.deliver(at, true, false);
            }
            Step::Double(at) => {
                self.left.doubles -= 1;
                self.deliver(at, false, true);
            }
            Step::Lose(at) => {
                self.left.losses -= 1;
                self.remove(at);
            }
            Step::Timeout(node) => {
                self.left.timeouts -= 1;
                self.fire(node);
            }
            Step::Die(node) => {
                self.left.deaths -= 1;
                self.die(node);
            }
            Step::Restart(node) => self.restart(node),
            Step::Break(a, b) => {
                self.left.breaks -= 1;
                (self.links[a][b], self.links[b][a]) = (Link::Broken, Link::Broken);
            }
            Step::Notice(by, of) => self.notice(by, of),
            Step::Meet(a, b) => self.meet(a, b),
            Step::See(nth) => {
                self.left.steps -= 1;
                self.see(nth);
            }
            Step::End(nth) => {
                self.left.ends -= 1;
                self.end(nth);
            }
        }
        self.check()
    }

    /// What must hold after everything that happens.
    fn check(&mut self) -> Result<(), String> {
        for nth in 0..CONNECTIONS {
            let mut owners = Vec::new();
            for at in 0..NODES {
                let running = self.nodes[at].as_ref().and_then(|node| node.owned.get(&nth));
                owners.extend(running.map(|running| (at, *running)));
            }
            if let [_, _, ..] = owners[..] {
                return Err(format!("a connection has at most one owner: {nth} at {owners:?}"));
            }
            let truth = &mut self.truth[nth];
            if let Some((at, running)) = owners.first().copied() {
                if let Some((before, epoch)) = truth.last
                    && (running.epoch < epoch || (running.epoch == epoch && before != at))
                {
                    return Err(format!(
                        "an epoch only grows: {nth} {running:?} at {at}, {epoch} at {before}"
                    ));
                }
                truth.last = Some((at, running.epoch));
                if truth.ended && !truth.lost {
                    return Err(format!("what has ended does not come back: {nth} at {at}"));
                }
                if running.seen != truth.seen && !truth.lost {
                    return Err(format!("nobody is older than what his client has seen: {nth} at {at}"));
                }
            }
            let gone = !self.truth[nth].ended && !self.truth[nth].lost && !self.is_held(nth);
            if gone {
                return Err(format!("no connection is lost while a node that held it lives: {nth}"));
            }
        }
        Ok(())
    }

    /// Whether a node holds a connection, or a transfer is under way.
    fn is_held(&self, nth: usize) -> bool {
        let flow = flow_of(nth);
        let under_way =
            |letter: &Letter| matches!(letter.message(), Message::Transfer { flow: its, .. } if its == flow);
        let claimed = self.nodes.iter().flatten().any(|node| node.claims(nth).is_some());
        self.owner(nth).is_some()
            || !self.committed(nth).is_empty()
            || claimed
            || self.letters.iter().any(under_way)
    }

    /// Who has given a connection away and does not know that it was taken, and how much its client had seen by then.
    fn committed(&self, nth: usize) -> BTreeMap<usize, u8> {
        let flow = flow_of(nth);
        let has = |node: &Model| node.handoffs.committed().any(|(its, ..)| its == flow);
        let seen =
            |at: usize| self.nodes[at].as_ref().filter(|node| has(node)).map(|node| (at, node.given[&nth]));
        (0..NODES).filter_map(seen).collect()
    }
}

impl Letter {
    fn message(&self) -> Message {
        Message::decode(&self.bytes).expect("nodes send messages")
    }
}

/// Every two nodes.
fn pairs() -> impl Iterator<Item = (usize, usize)> {
    (0..NODES).flat_map(|a| (a + 1..NODES).map(move |b| (a, b)))
}

fn id(node: usize) -> NodeId {
    NodeId::of(name_of(node))
}

fn which(flow: &Flow) -> usize {
    nth_of(flow)
}
