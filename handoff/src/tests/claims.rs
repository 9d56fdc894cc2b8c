//! Every order in which messages arrive and nodes die, for a few nodes and connections; and many orders for more.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use std::collections::HashSet;
use std::format;
use std::string::String;

use ferry_stack::tcp::{Flow, MapKey};
use ferry_stack::{Instant, Seq};
use siphasher::sip::SipHasher13;

use super::flow;
use crate::claims::{Held, Holdings, Standing, Verdict};
use crate::{Epoch, Incarnation, Message, NodeId};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const LIFE: Incarnation = Incarnation(7);

fn id(nth: usize) -> NodeId {
    NodeId::of(NAMES[nth])
}

fn nth(id: NodeId) -> usize {
    (0..NAMES.len()).find(|nth| self::id(*nth) == id).unwrap()
}

fn some_flow(port: usize) -> Flow {
    let mut flow = flow();
    flow.remote.set_port(u16::try_from(1000 + port).unwrap());
    flow
}

fn standing(epoch: u64, version: u64, rank: u8) -> Standing {
    Standing { iss: Seq(9), epoch: Epoch::nth(epoch), version, rank }
}

/// A connection that a node runs, who has copies of it, and who has confirmed.
#[derive(Clone, Debug, Default)]
struct Own {
    epoch: Epoch,
    version: u64,
    holders: BTreeSet<usize>,
    confirmed: BTreeSet<usize>,
    /// Others that hold older copies.
    former: BTreeSet<usize>,
}

#[derive(Clone, Debug)]
struct Member {
    holdings: Holdings<()>,
    owned: BTreeMap<Flow, Own>,
    /// What is to go on here.
    agreed: BTreeSet<Flow>,
    dead: BTreeSet<usize>,
}

/// A group without clients: what a client has seen of each connection is the version that every holder has confirmed.
#[derive(Clone, Debug)]
struct World {
    members: Vec<Option<Member>>,
    wire: Vec<(usize, usize, Message)>,
    deaths: usize,
    replicas: usize,
    seen: BTreeMap<Flow, (Epoch, u64)>,
    now: Instant,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Deliver(usize),
    Learn(usize, usize),
    GoOn(usize, Flow),
    Die(usize),
}

impl World {
    /// Node 0 runs connections, of which others have these versions.
    fn new(nodes: usize, deaths: usize, replicas: usize, copies: &[&[(usize, u64)]]) -> Self {
        let member = |me| {
            let others = (0..nodes).filter(|other| *other != me).map(id);
            let holdings = Holdings::new(id(me), others, 0, MapKey(SipHasher13::new()));
            Some(Member { holdings, owned: BTreeMap::new(), agreed: BTreeSet::new(), dead: BTreeSet::new() })
        };
        let members = (0..nodes).map(member).collect();
        let now = Instant::ZERO;
        let mut world = Self { members, wire: Vec::new(), deaths, replicas, seen: BTreeMap::new(), now };
        for (port, copies) in copies.iter().enumerate() {
            let flow = some_flow(port);
            for (rank, (at, version)) in (0..).zip(*copies) {
                let held = Held::new(id(0), standing(1, *version, rank), ());
                world.member(*at).holdings.insert(flow, held);
            }
            let holders = copies.iter().map(|(at, _)| *at).collect();
            let version = copies.iter().map(|(_, version)| *version).max().unwrap();
            let own = Own { epoch: Epoch::nth(1), version, holders, ..Own::default() };
            world.member(0).owned.insert(flow, own);
            let seen = copies.iter().map(|(_, version)| *version).min().unwrap();
            world.seen.insert(flow, (Epoch::nth(1), seen));
        }
        world
    }

    fn member(&mut self, nth: usize) -> &mut Member {
        self.members[nth].as_mut().unwrap()
    }

    fn alive(&self) -> impl Iterator<Item = (usize, &Member)> {
        self.members.iter().enumerate().filter_map(|(nth, member)| Some((nth, member.as_ref()?)))
    }

    fn steps(&self) -> Vec<Step> {
        let mut steps: Vec<_> = (0..self.wire.len()).map(Step::Deliver).collect();
        for (nth, member) in self.alive() {
            let dead = (0..self.members.len()).filter(|other| self.members[*other].is_none());
            steps.extend(dead.filter(|dead| !member.dead.contains(dead)).map(|dead| Step::Learn(nth, dead)));
            steps.extend(member.agreed.iter().map(|flow| Step::GoOn(nth, *flow)));
            if self.deaths > 0 {
                steps.push(Step::Die(nth));
            }
        }
        steps
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Die(nth) => {
                self.members[nth] = None;
                self.deaths -= 1;
                self.wire.retain(|(_, to, _)| *to != nth);
            }
            Step::Learn(nth, dead) => self.learn(nth, dead),
            Step::GoOn(nth, flow) => self.go_on(nth, flow),
            Step::Deliver(at) => {
                let (from, to, message) = self.wire.swap_remove(at);
                self.deliver(from, to, message);
            }
        }
        assert!(self.members.iter().all(|member| member.as_ref().is_none_or(|m| m.holdings.is_idle())));
        for port in 0..self.seen.len() {
            let owners = self.alive().filter(|(_, member)| member.owned.contains_key(&some_flow(port)));
            assert!(owners.count() <= 1, "a connection has at most one owner: {self:#?}");
        }
    }

    fn learn(&mut self, at: usize, dead: usize) {
        let now = self.now;
        let member = self.member(at);
        if member.dead.insert(dead) {
            member.holdings.died(id(dead), LIFE, now);
            for own in member.owned.values_mut() {
                own.former.remove(&dead);
            }
            let owned: Vec<_> = member.owned.keys().copied().collect();
            for flow in owned {
                let own = self.member(at).owned.get_mut(&flow).unwrap();
                if own.holders.remove(&dead) {
                    own.confirmed.clear();
                    self.protect(at, flow);
                }
            }
            self.carry_out(at);
        }
    }

    /// The owner has a copy at as many others as it can.
    fn protect(&mut self, at: usize, flow: Flow) {
        let (replicas, count) = (self.replicas, self.members.len());
        let member = self.member(at);
        let dead = member.dead.clone();
        let own = member.owned.get_mut(&flow).unwrap();
        let others = (0..count).filter(|other| *other != at && !dead.contains(other));
        own.holders = others.take(replicas).collect();
        own.version += 1;
        let (epoch, version, holders) = (own.epoch, own.version, own.holders.clone());
        for to in holders {
            self.wire.push((at, to, Message::Copied { flow, epoch, version }));
        }
        self.confirmed(at, flow);
    }

    /// What all holders have, the client may see.
    fn confirmed(&mut self, at: usize, flow: Flow) {
        let own = self.member(at).owned.get_mut(&flow).unwrap();
        if own.confirmed.is_superset(&own.holders) {
            let (epoch, version, former) = (own.epoch, own.version, core::mem::take(&mut own.former));
            let former = former.difference(&own.holders).copied().collect::<Vec<_>>();
            self.seen.insert(flow, (epoch, version));
            for to in former {
                self.wire.push((at, to, Message::Ended { flow, epoch }));
            }
        }
    }

    fn deliver(&mut self, from: usize, to: usize, message: Message) {
        if self.members[to].as_ref().is_none_or(|member| member.dead.contains(&from)) {
            return;
        }
        let now = self.now;
        match message {
            Message::Claims { dead, life, run, copies } => {
                self.learn(to, nth(dead));
                let Member { holdings, owned, .. } = self.member(to);
                holdings.answer(id(from), (dead, life), run, &copies, |claim| {
                    let own = owned.get_mut(&claim.flow)?;
                    assert!(own.epoch > claim.standing.epoch, "nobody claims what is owned");
                    own.former.insert(from);
                    Some(Standing::of_owner(claim.standing.iss, own.epoch))
                });
                let flows: Vec<_> = copies.iter().map(|claim| claim.flow).collect();
                for flow in flows.into_iter().filter(|flow| owned.contains_key(flow)).collect::<Vec<_>>() {
                    self.confirmed(to, flow);
                }
            }
            Message::Claimed { run, objections, .. } => {
                self.member(to).holdings.answered(id(from), run, &objections, now);
            }
            // Stand for an owner's copy, for the answer to it, and for its being of no use any more.
            Message::Copied { flow, epoch, version } => {
                let answer = Message::OwnerSeen { flow, epoch: Epoch::nth(epoch.count << 8 | version) };
                let new = standing(epoch.count, version, 0);
                let holdings = &mut self.member(to).holdings;
                if holdings.get(&flow).is_none_or(|held| held.standing.is_covered_by(&new)) {
                    holdings.insert(flow, Held::new(id(from), new, ()));
                }
                self.wire.push((to, from, answer));
            }
            Message::OwnerSeen { flow, epoch } => {
                let own = self
                    .member(to)
                    .owned
                    .get_mut(&flow)
                    .filter(|own| Epoch::nth(own.epoch.count << 8 | own.version) == epoch);
                if let Some(own) = own {
                    own.confirmed.insert(from);
                    self.confirmed(to, flow);
                }
            }
            Message::Ended { flow, epoch } => {
                let others = self.member(to).holdings.discard(&flow, Seq(9), epoch);
                for other in others.into_iter().flat_map(|held| held.others) {
                    self.wire.push((to, nth(other), Message::Ended { flow, epoch }));
                }
            }
            _ => unreachable!(),
        }
        self.carry_out(to);
    }

    fn carry_out(&mut self, at: usize) {
        while let Some(verdict) = self.member(at).holdings.poll() {
            match verdict {
                Verdict::Send { to, message } => {
                    let copy = (at, nth(to), message);
                    if !self.wire.contains(&copy) {
                        self.wire.push(copy);
                    }
                }
                Verdict::Recover { flow } => {
                    assert!(self.member(at).agreed.insert(flow), "it is agreed once");
                }
                Verdict::Yielded { .. } => {}
            }
        }
    }

    /// Much may have happened since that was agreed.
    fn go_on(&mut self, at: usize, flow: Flow) {
        let member = self.member(at);
        member.agreed.remove(&flow);
        let held = member.holdings.agreed(&flow).expect("nobody else goes on with it");
        let from = (held.standing.epoch, held.standing.version);
        assert!(self.seen[&flow] <= from, "the client has seen no more: {from:?} {self:#?}");
        let former = held.others.iter().map(|other| nth(*other)).collect();
        let epoch = held.recovered();
        self.member(at).owned.insert(flow, Own { epoch, former, ..Own::default() });
        self.protect(at, flow);
        self.carry_out(at);
    }

    /// When nothing happens any more.
    fn check_the_end(&self) {
        for port in 0..self.seen.len() {
            let flow = some_flow(port);
            let owner = self.alive().find_map(|(nth, member)| Some((nth, member.owned.get(&flow)?)));
            for (nth, member) in self.alive() {
                let Some(held) = member.holdings.get(&flow) else { continue };
                let (owner, own) = owner.unwrap_or_else(|| panic!("somebody holds a copy: {self:#?}"));
                assert!(own.holders.contains(&nth), "no copy is left behind: {self:#?}");
                assert_eq!((held.owner, held.is_claimed()), (id(owner), false), "{self:#?}");
            }
        }
    }

    fn digest(&self) -> String {
        let mut wire: Vec<_> = self.wire.iter().map(|one| format!("{one:?}")).collect();
        wire.sort_unstable();
        format!("{:?} {wire:?} {} {:?}", self.members, self.deaths, self.seen)
    }
}

/// Every state that can be reached.
fn explore(world: World) -> usize {
    let mut known = HashSet::from([world.digest()]);
    let mut open = Vec::from([world]);
    while let Some(world) = open.pop() {
        let steps = world.steps();
        if !steps.iter().any(|step| !matches!(step, Step::Die(_))) {
            world.check_the_end();
        }
        for step in steps {
            let mut next = world.clone();
            next.step(step);
            if known.insert(next.digest()) {
                open.push(next);
            }
        }
    }
    known.len()
}

#[test]
fn in_every_order_of_events_a_dead_nodes_connections_go_on_once_and_from_the_best_copy() {
    let cases: [(&str, World); 4] = [
        ("one copy each", World::new(3, 1, 1, &[&[(1, 5)], &[(2, 4)]])),
        ("two copies each", World::new(3, 1, 2, &[&[(1, 5), (2, 6)], &[(2, 4), (1, 4)]])),
        ("two die", World::new(4, 2, 2, &[&[(1, 5), (2, 6)]])),
        ("one copy, two die one after the other", World::new(4, 2, 1, &[&[(1, 5)]])),
    ];
    for (name, world) in cases {
        let states = explore(world);
        assert!(states > 20, "{name}: {states} states");
    }
}

/// Some number below `bound`.
fn draw(seed: &mut u64, bound: usize) -> usize {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    usize::try_from(*seed >> 33).unwrap() % bound
}

#[test]
fn claims_that_are_lost_or_doubled_come_to_the_same_end() {
    let copies: [&[(usize, u64)]; 3] = [&[(1, 5), (2, 6)], &[(2, 4), (3, 4)], &[(4, 2), (1, 3)]];
    for seed in 0..2000 {
        let mut world = World::new(5, 2, 2, &copies);
        let mut draws = seed;
        loop {
            let steps = world.steps();
            let chosen = (!steps.is_empty()).then(|| steps[draw(&mut draws, steps.len())]);
            match chosen {
                // The last deaths come early, so that there is something to see.
                Some(Step::Die(_)) if draw(&mut draws, 3) > 0 => {}
                Some(Step::Deliver(at)) => {
                    let claim = matches!(world.wire[at].2, Message::Claims { .. } | Message::Claimed { .. });
                    match draw(&mut draws, 8) {
                        0 | 1 if claim => drop(world.wire.remove(at)),
                        2 if claim => world.wire.push(world.wire[at].clone()),
                        _ => world.step(Step::Deliver(at)),
                    }
                }
                Some(step) => world.step(step),
                None => {}
            }
            if steps.is_empty() || draw(&mut draws, 20) == 0 {
                let due = world.alive().filter_map(|(_, member)| member.holdings.deadline()).min();
                let Some(due) = due else {
                    if steps.is_empty() {
                        break;
                    }
                    continue;
                };
                world.now = world.now.max(due);
                for at in 0..world.members.len() {
                    let now = world.now;
                    if let Some(member) = &mut world.members[at] {
                        member.holdings.handle_timeout(now);
                        world.carry_out(at);
                    }
                }
            }
        }
        world.check_the_end();
    }
}

fn holding(owner: usize, standing: Standing) -> Holdings<()> {
    let mut holdings = Holdings::new(id(0), [id(1), id(2)], 0, MapKey(SipHasher13::new()));
    holdings.insert(flow(), Held::new(id(owner), standing, ()));
    holdings
}

#[test]
fn what_is_discarded_takes_earlier_connections_of_the_same_ends_along_and_spares_later_ones() {
    let copy = standing(3, 4, 0);
    let cases = [
        ("the connection itself", copy.iss, 3, true),
        ("an earlier epoch of it", copy.iss, 2, false),
        ("a later connection of the client's port", copy.iss + 64_000_u32, 1, true),
        ("an earlier one", copy.iss - 64_000_u32, 9, false),
    ];
    for (what, iss, epoch, gone) in cases {
        let mut holdings = holding(1, copy);
        assert_eq!(holdings.discard(&flow(), iss, Epoch::nth(epoch)).is_some(), gone, "{what}");
        assert_eq!(holdings.is_empty(), gone, "{what}");
    }
}

#[test]
fn a_node_in_a_new_life_is_asked_whether_it_owns_what_its_former_one_did() {
    let mut holdings = holding(1, standing(1, 4, 0));
    holdings.died_and_lives(id(1), LIFE, Instant::ZERO);
    let asked: Vec<_> = core::iter::from_fn(|| holdings.poll()).collect();
    let to = |verdict: &Verdict| match verdict {
        Verdict::Send { to, .. } => Some(nth(*to)),
        _ => None,
    };
    // In the order of their names' hashes.
    let mut whom: Vec<_> = asked.iter().map(to).collect();
    whom.sort_unstable();
    assert_eq!(whom, [Some(1), Some(2)], "{asked:?}");
    let later = Standing::of_owner(Seq(64_009), Epoch::nth(1));
    holdings.answered(id(2), 1, &[], Instant::ZERO);
    holdings.answered(id(1), 1, &[crate::claims::Claim { flow: flow(), standing: later }], Instant::ZERO);
    assert_eq!(holdings.poll(), Some(Verdict::Yielded { flow: flow(), to: id(1) }));
}
