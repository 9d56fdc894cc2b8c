//! Commands that move many connections: how they go on, how they stop, and what is asked of other nodes for them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ferry_handoff::{Failure, Message, NodeId, Order};
use ferry_stack::Instant;
use ferry_stack::tcp::Flow;

use super::Node;
use crate::io::{Moved, NotMoved, Reason, Reply};

/// Connections that one command moves at a time: what is under way when it is stopped still ends. Enough to fill the
/// way to another node in batches.
const UNDER_WAY: usize = 256;

/// Who waits for a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum JobId {
    /// The operator who gave this command.
    Command(u64),
    /// Another node, which gave this order.
    Order(NodeId, u64),
}

/// What is not answered yet.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    pub(super) jobs: BTreeMap<JobId, Job>,
    /// Counts the orders given.
    orders: u64,
}

/// A command that moves connections.
#[derive(Debug)]
pub(super) struct Job {
    why: Reason,
    /// Those that have not been begun with, and where each is to go; none: to any node.
    pub(super) queue: VecDeque<(Flow, Option<NodeId>)>,
    /// Those that are under way, with the same.
    waiting: BTreeMap<Flow, Option<NodeId>>,
    /// Where a connection was tried to go, if any node will do.
    tried: BTreeMap<Flow, BTreeSet<NodeId>>,
    /// What other nodes were told to do for it, and have not reported.
    ordered: BTreeSet<(NodeId, u64)>,
    moved: Moved,
}

impl Job {
    pub(super) fn new(why: Reason) -> Self {
        Self {
            why,
            queue: VecDeque::new(),
            waiting: BTreeMap::new(),
            tried: BTreeMap::new(),
            ordered: BTreeSet::new(),
            moved: Moved::default(),
        }
    }

    pub(super) fn give_up(&mut self, flow: Flow, why: &str) {
        self.waiting.remove(&flow);
        let failed = NotMoved { client: flow.remote, port: flow.local.port(), why: why.into() };
        self.moved.failed.push(failed);
    }

    fn is_done(&self) -> bool {
        self.queue.is_empty() && self.waiting.is_empty() && self.ordered.is_empty()
    }
}

impl Node {
    pub(super) fn is_giving(&self, flow: &Flow) -> bool {
        self.handoffs.is_giving(flow) || self.warming.is_leaving(flow)
    }

    /// Why a connection is being given away.
    pub(super) fn reason(&self, flow: &Flow) -> Reason {
        let job = self.jobs.jobs.values().find(|job| job.waiting.contains_key(flow));
        job.map_or(Reason::Handoff, |job| job.why)
    }

    /// Goes on with every job as far as it can: with what has not been begun, and with what has not found a taker, now
    /// that one may have come.
    pub(super) fn go_on(&mut self, now: Instant) {
        let mut jobs = std::mem::take(&mut self.jobs);
        for job in jobs.jobs.values_mut() {
            let anywhere = job.waiting.iter().filter(|(_, to)| to.is_none());
            let idle: Vec<_> = anywhere.map(|(flow, _)| *flow).filter(|flow| !self.is_giving(flow)).collect();
            for flow in idle {
                self.start_move(job, flow, None, now);
            }
            self.begin_further(job, now);
        }
        self.jobs.jobs.append(&mut jobs.jobs);
        self.jobs.orders = jobs.orders;
        self.finish_jobs();
    }

    fn begin_further(&mut self, job: &mut Job, now: Instant) {
        while job.waiting.len() < UNDER_WAY {
            let Some((flow, to)) = job.queue.pop_front() else { return };
            job.waiting.insert(flow, to);
            // What another command moves already is waited for.
            if !self.is_giving(&flow) {
                self.start_move(job, flow, to, now);
            }
        }
    }

    fn start_move(&mut self, job: &mut Job, flow: Flow, to: Option<NodeId>, now: Instant) {
        let to = match to {
            Some(to) if !self.may_own(to, &flow) => {
                let why = format!(
                    "{} may not own connections of {}",
                    self.peers.name(to),
                    self.service_name(&flow)
                );
                return job.give_up(flow, &why);
            }
            Some(to) => to,
            None => {
                let tried = job.tried.entry(flow).or_default();
                let next = self.peers.takers().into_iter();
                let Some(to) = next.filter(|to| self.may_own(*to, &flow)).find(|to| !tried.contains(to))
                else {
                    let why = if tried.is_empty() {
                        "no other node takes connections"
                    } else {
                        "every other node refused it"
                    };
                    return job.give_up(flow, why);
                };
                tried.insert(to);
                to
            }
        };
        self.peers.count_placed(to);
        if !self.give(flow, to, now) {
            // It ended meanwhile: nothing is left to move.
            job.waiting.remove(&flow);
        }
    }

    /// A connection has moved.
    pub(super) fn moved(&mut self, flow: Flow, now: Instant) {
        for job in self.jobs.jobs.values_mut() {
            if job.waiting.remove(&flow).is_some() {
                job.tried.remove(&flow);
                job.moved.moved += 1;
            }
        }
        self.next(now);
    }

    /// A connection could not move: a drain tries another node, unless it has ended.
    pub(super) fn not_moved(&mut self, flow: Flow, _to: NodeId, why: &Failure, now: Instant) {
        let mut jobs = std::mem::take(&mut self.jobs);
        for job in jobs.jobs.values_mut() {
            let Some(to) = job.waiting.get(&flow).copied() else { continue };
            match (why, to) {
                (Failure::Ended, _) => {
                    job.waiting.remove(&flow);
                }
                (_, None) => self.start_move(job, flow, None, now),
                (_, Some(_)) => job.give_up(flow, &why.to_string()),
            }
        }
        self.jobs = jobs;
        self.next(now);
    }

    /// Begins with as many more as have ended.
    fn next(&mut self, now: Instant) {
        let mut jobs = std::mem::take(&mut self.jobs);
        for job in jobs.jobs.values_mut() {
            self.begin_further(job, now);
        }
        self.jobs = jobs;
        self.finish_jobs();
    }

    /// Ends every job half-way: what is under way still ends, nothing more is begun, and a node that was emptying
    /// itself takes connections again.
    pub(super) fn stop_jobs(&mut self, now: Instant) {
        let mut orders = Vec::new();
        for job in self.jobs.jobs.values_mut() {
            job.moved.left += job.queue.len();
            job.queue.clear();
            orders.extend(job.ordered.iter().copied());
        }
        for (peer, run) in orders {
            self.tell(peer, &Message::Order { run, order: Order::Stop });
        }
        if self.draining {
            self.draining = false;
            self.handoffs.stop_draining();
            self.peers.load_changed(now);
        }
        self.finish_jobs();
    }

    pub(super) fn finish_jobs(&mut self) {
        let done: Vec<_> =
            self.jobs.jobs.iter().filter(|(_, job)| job.is_done()).map(|(id, _)| *id).collect();
        for id in done {
            let Some(job) = self.jobs.jobs.remove(&id) else { continue };
            match id {
                JobId::Command(id) => self.reply(id, Reply::Moved(job.moved)),
                JobId::Order(by, run) => {
                    let count = |count| u32::try_from(count).unwrap_or(u32::MAX);
                    let Moved { moved, failed, left } = job.moved;
                    let (moved, failed, left) = (count(moved), count(failed.len()), count(left));
                    self.tell(by, &Message::Ordered { run, moved, failed, left });
                }
            }
        }
    }

    /// Tells another node to move connections.
    pub(super) fn order(&mut self, job: &mut Job, peer: NodeId, order: Order) {
        self.jobs.orders += 1;
        // A former life of ours may have counted as far.
        let run = self.incarnation.0.wrapping_add(self.jobs.orders);
        job.ordered.insert((peer, run));
        self.tell(peer, &Message::Order { run, order });
    }

    /// Another node tells this one to move connections. It was authenticated as a member, whose operator may ask that.
    pub(super) fn ordered(&mut self, by: NodeId, run: u64, order: Order, now: Instant) {
        let id = JobId::Order(by, run);
        match order {
            Order::Stop => {
                if self.jobs.jobs.contains_key(&id) {
                    self.stop_jobs(now);
                }
            }
            _ if self.jobs.jobs.contains_key(&id) => {}
            Order::Drain => self.drain(id, now),
            Order::Shed { to, count } => {
                let mut job = Job::new(Reason::Rebalance);
                if to != self.id && self.peers.takes_connections(to) {
                    job.queue = self.spare(to, count as usize, &BTreeSet::new());
                }
                self.jobs.jobs.insert(id, job);
                self.go_on(now);
            }
        }
    }

    /// Another node has done what it was told to.
    pub(super) fn order_done(&mut self, by: NodeId, run: u64, (moved, failed, left): (u32, u32, u32)) {
        for job in self.jobs.jobs.values_mut().filter(|job| job.ordered.contains(&(by, run))) {
            job.ordered.remove(&(by, run));
            job.moved.moved += moved as usize;
            job.moved.left += (left + failed) as usize;
        }
        self.finish_jobs();
    }

    /// A node is out of reach: what it was told to do is not heard of any more.
    pub(super) fn orders_lost(&mut self, peer: NodeId) {
        for job in self.jobs.jobs.values_mut() {
            job.ordered.retain(|(to, _)| *to != peer);
        }
        self.finish_jobs();
    }

    /// Nothing of what was to move is here any more.
    pub(super) fn fail_jobs(&mut self, why: &str) {
        for job in self.jobs.jobs.values_mut() {
            let queued = job.queue.drain(..).map(|(flow, _)| flow);
            let flows: Vec<_> = queued.chain(job.waiting.keys().copied()).collect();
            for flow in flows {
                job.give_up(flow, why);
            }
            job.ordered.clear();
        }
        self.finish_jobs();
    }

    /// So many connections of this node that another may own and that stay here otherwise.
    fn spare(&self, to: NodeId, count: usize, taken: &BTreeSet<Flow>) -> VecDeque<(Flow, Option<NodeId>)> {
        let queued = self.jobs.jobs.values().flat_map(|job| job.queue.iter().map(|(flow, _)| *flow));
        let queued: BTreeSet<_> = queued.collect();
        let flows = self.owned().map(|(tcb, _)| tcb.flow);
        flows
            .filter(|flow| {
                !queued.contains(flow)
                    && !taken.contains(flow)
                    && !self.is_giving(flow)
                    && self.may_own(to, flow)
            })
            .take(count)
            .map(|flow| (flow, Some(to)))
            .collect()
    }

    /// Evens the load of the group, by weight: who has more than its share gives to who has less.
    pub(super) fn rebalance(&mut self, id: u64) -> Result<(), String> {
        if self.draining {
            return Err("this node is draining; ask another".to_owned());
        }
        let here = (&*self.name, self.id, self.owned.len());
        let all = [here].into_iter().chain(self.peers.candidates());
        let loads: Vec<_> = all.map(|(name, id, load)| (id, load, self.rules.weight(name))).collect();
        let mut job = Job::new(Reason::Rebalance);
        let mut taken = BTreeSet::new();
        for (from, to, count) in plan(&loads) {
            if from == self.id {
                let spare = self.spare(to, count, &taken);
                taken.extend(spare.iter().map(|(flow, _)| *flow));
                job.queue.extend(spare);
            } else {
                let count = u32::try_from(count).unwrap_or(u32::MAX);
                self.order(&mut job, from, Order::Shed { to, count });
            }
        }
        self.jobs.jobs.insert(JobId::Command(id), job);
        Ok(())
    }
}

/// Who gives how many to whom, so that each node has its share by weight, and no more move than must.
fn plan(loads: &[(NodeId, usize, u32)]) -> Vec<(NodeId, NodeId, usize)> {
    let total: usize = loads.iter().map(|(_, load, _)| load).sum();
    let weights: u128 = loads.iter().map(|(.., weight)| u128::from(*weight)).sum();
    if weights == 0 {
        return Vec::new();
    }
    // Loads are what nodes say, and a product of two may be long.
    let share = |weight: u32| usize::try_from(total as u128 * u128::from(weight) / weights).unwrap_or(total);
    let mut shares: Vec<_> = loads.iter().map(|(.., weight)| share(*weight)).collect();
    // What does not divide stays with those that have the most beyond their share.
    let mut rest = total - shares.iter().sum::<usize>();
    let mut order: Vec<_> = (0..loads.len()).filter(|at| loads[*at].2 > 0).collect();
    order.sort_by_key(|at| core::cmp::Reverse(loads[*at].1.saturating_sub(shares[*at])));
    for at in order {
        if rest > 0 {
            shares[at] += 1;
            rest -= 1;
        }
    }
    let beyond = |at: usize| (loads[at].0, loads[at].1.saturating_sub(shares[at]));
    let below = |at: usize| (loads[at].0, shares[at].saturating_sub(loads[at].1));
    let mut givers: VecDeque<_> = (0..loads.len()).map(beyond).filter(|(_, count)| *count > 0).collect();
    let mut takers: VecDeque<_> = (0..loads.len()).map(below).filter(|(_, count)| *count > 0).collect();
    let mut moves = Vec::new();
    while let (Some(giver), Some(taker)) = (givers.front_mut(), takers.front_mut()) {
        let count = giver.1.min(taker.1);
        moves.push((giver.0, taker.0, count));
        (giver.1, taker.1) = (giver.1 - count, taker.1 - count);
        givers.retain(|(_, count)| *count > 0);
        takers.retain(|(_, count)| *count > 0);
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_moves_no_more_than_it_must_and_leaves_each_with_its_share() {
        let [a, b, c] = ["a", "b", "c"].map(NodeId::of);
        let cases: [(&str, [usize; 3], [u32; 3], Vec<_>); 6] = [
            ("one has all", [9, 0, 0], [1; 3], vec![(a, b, 3), (a, c, 3)]),
            ("even already", [3, 3, 3], [1; 3], vec![]),
            ("the rest stays", [1, 2, 2], [1; 3], vec![]),
            ("the rest stays where it is", [2, 5, 0], [1; 3], vec![(b, c, 2)]),
            ("by weight", [0, 8, 0], [2, 1, 1], vec![(b, a, 4), (b, c, 2)]),
            ("nothing is heavy", [4, 0, 0], [0; 3], vec![]),
        ];
        for (name, loads, weights, expected) in cases {
            let nodes: Vec<_> = (0..3).map(|at| ([a, b, c][at], loads[at], weights[at])).collect();
            assert_eq!(plan(&nodes), expected, "{name}");
        }
    }
}
