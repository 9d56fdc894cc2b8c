//! A group of directories in a small world: messages are lost, late, doubled and cut one way; nodes sleep, crash and start
//! again; clocks drift. After every event: whoever has a valid lease by its own clock is dead to nobody else who has one.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::time::Duration;

use bytes::Bytes;
use ferry_handoff::{Incarnation, Message, NodeId};
use ferry_stack::Instant;

use super::{DirectorySetup, Embedded, Event};
use crate::directory::Directory as _;
use crate::directory::draw::Draw;

struct Place {
    id: NodeId,
    life: Incarnation,
    directory: Option<Embedded>,
    /// Parts per million, and what its clock shows at the beginning.
    drift: i64,
    ahead: u64,
    asleep_until: u64,
    /// When it is to be ticked next, so that older ticks are ignored.
    tick: u64,
}

impl Place {
    fn clock(&self, now: u64) -> Instant {
        let shown = i128::from(now) * i128::from(1_000_000 + self.drift) / 1_000_000;
        Instant::from_nanos(self.ahead + u64::try_from(shown).unwrap())
    }

    fn when(&self, shown: Instant) -> u64 {
        let passed = i128::from(shown.nanos()) - i128::from(self.ahead);
        let rate = i128::from(1_000_000 + self.drift);
        u64::try_from((passed * 1_000_000 + rate - 1).max(0) / rate).unwrap()
    }
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Tick(usize),
    /// From, to, their lives then, and the message as octets.
    Message(usize, usize, u64, u64, Vec<u8>),
    /// A link notices that a node is up, down, or that a life of it is over.
    Up(usize, usize, u64),
    Down(usize, usize, u64),
    Proof(usize, usize, u64),
    Fault,
    Restart(usize),
    Mend(usize, usize),
}

struct World {
    draw: Draw,
    now: u64,
    agenda: BinaryHeap<Reverse<(u64, u64, Happening)>>,
    order: u64,
    places: Vec<Place>,
    /// The life to which each node's link to each other was made last.
    linked: BTreeMap<(usize, usize), u64>,
    /// Ways that carry nothing.
    cut: BTreeSet<(usize, usize)>,
    /// The lives that each node believes to be over.
    dead: Vec<BTreeSet<(NodeId, u64)>>,
    lives: u64,
    faults: bool,
    /// How bad the ways are: one message in so many is lost, and the longest delay.
    loss: u64,
    delay: u64,
    /// Deaths by silence that anybody told of.
    deaths: u64,
    crashed: BTreeSet<u64>,
}

const MS: u64 = 1_000_000;

impl World {
    fn new(seed: u64) -> Self {
        let mut draw = Draw(seed);
        let n = 3 + draw.index(3);
        let places = (0..n)
            .map(|nth| Place {
                id: NodeId::of(&format!("n{nth}")),
                life: Incarnation(0),
                directory: None,
                drift: i64::try_from(draw.below(401)).unwrap() - 200,
                ahead: draw.below(1 << 50),
                asleep_until: 0,
                tick: 0,
            })
            .collect();
        let (loss, delay) = ([5, 20, 1000][draw.index(3)], [1, 5, 40][draw.index(3)] * MS);
        let mut world = Self {
            draw,
            now: 0,
            agenda: BinaryHeap::new(),
            order: 0,
            places,
            linked: BTreeMap::new(),
            cut: BTreeSet::new(),
            dead: vec![BTreeSet::new(); n],
            lives: 0,
            faults: true,
            loss,
            delay,
            deaths: 0,
            crashed: BTreeSet::new(),
        };
        for nth in 0..n {
            world.start(nth);
        }
        world.schedule(300 * MS, Happening::Fault);
        world
    }

    /// After a second in which nothing went wrong.
    fn calm(seed: u64) -> Self {
        let mut world = Self::new(seed);
        world.mend();
        world.run(1_000 * MS).unwrap();
        world
    }

    fn schedule(&mut self, at: u64, what: Happening) {
        self.order += 1;
        self.agenda.push(Reverse((at, self.order, what)));
    }

    fn others(&self, nth: usize) -> Vec<usize> {
        (0..self.places.len()).filter(|other| *other != nth).collect()
    }

    fn start(&mut self, nth: usize) {
        self.lives += 1;
        let (life, ids) = (Incarnation(self.lives), self.others(nth));
        let others: Vec<_> = ids.iter().map(|other| self.places[*other].id).collect();
        let place = &mut self.places[nth];
        (place.life, place.asleep_until) = (life, 0);
        let now = place.clock(self.now);
        place.directory =
            Some(Embedded::new(place.id, life, others.into_iter(), &DirectorySetup::default(), true, now));
        self.dead[nth].clear();
        self.relink(nth);
        self.settle(nth);
    }

    /// Its links come up again, as they can.
    fn relink(&mut self, nth: usize) {
        for other in self.others(nth) {
            if self.places[other].directory.is_some() {
                let (ours, theirs) = (self.places[nth].life.0, self.places[other].life.0);
                let soon = self.now + MS + self.draw.below(20 * MS);
                self.schedule(soon, Happening::Up(nth, other, theirs));
                let later = soon + self.draw.below(2 * MS);
                self.schedule(later, Happening::Up(other, nth, ours));
            }
        }
    }

    fn crash(&mut self, nth: usize) {
        let life = self.places[nth].life.0;
        self.crashed.insert(self.places[nth].life.0);
        self.places[nth].directory = None;
        for other in self.others(nth) {
            // A closed link and a refused dial, or a machine that is gone without a word.
            let soon = self.now + self.draw.below(3 * MS);
            if !self.cut.contains(&(nth, other)) && !self.draw.one_in(3) {
                self.schedule(soon, Happening::Down(other, nth, life));
                self.schedule(soon + MS, Happening::Proof(other, nth, life));
            }
        }
        if !self.draw.one_in(3) {
            let again = self.now + self.draw.below(800 * MS);
            self.schedule(again, Happening::Restart(nth));
        }
    }

    fn fault(&mut self) {
        let n = self.places.len();
        let (nth, other) = (self.draw.index(n), self.draw.index(n));
        let span = self.now + 5 * MS + self.draw.below(900 * MS);
        match self.draw.below(6) {
            0 if self.places[nth].directory.is_some() => self.crash(nth),
            1 | 2 if nth != other => {
                self.cut.insert((nth, other));
                self.schedule(span, Happening::Mend(nth, other));
            }
            3 => {
                for other in self.others(nth) {
                    self.cut.extend([(nth, other), (other, nth)]);
                    self.schedule(span, Happening::Mend(nth, other));
                    self.schedule(span, Happening::Mend(other, nth));
                }
            }
            4 => self.places[nth].asleep_until = span,
            _ => {}
        }
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Tick(nth) => {
                if self.places[nth].tick == self.now {
                    self.with(nth, Embedded::handle_timeout);
                }
            }
            Happening::Message(from, to, ours, theirs, octets) => {
                let same = self.places[to].life.0 == theirs && self.places[from].life.0 == ours;
                let Ok(message) = Message::decode(&Bytes::from(octets)) else { panic!("it does not decode") };
                if same {
                    let from = self.places[from].id;
                    self.with(to, |directory, now| match &message {
                        Message::Pulse(pulse) => directory.pulse(from, pulse, now),
                        Message::Dead { node, life } => directory.told(from, *node, *life, now),
                        _ => {}
                    });
                }
            }
            Happening::Up(at, peer, life) => {
                if self.places[peer].life.0 == life && self.places[peer].directory.is_some() {
                    self.linked.insert((at, peer), life);
                    let peer = self.places[peer].id;
                    self.with(at, |directory, now| _ = directory.peer_up(peer, Incarnation(life), now));
                }
            }
            Happening::Down(at, peer, life) => {
                // Whoever slept may have a newer link by now.
                if self.linked.get(&(at, peer)) == Some(&life) {
                    let peer = self.places[peer].id;
                    self.with(at, |directory, now| directory.peer_down(peer, now));
                }
            }
            Happening::Proof(at, peer, life) => {
                let peer = self.places[peer].id;
                self.with(at, |directory, now| directory.proved(peer, Incarnation(life), now));
            }
            Happening::Fault => {
                if self.faults {
                    self.fault();
                    let next = self.now + self.draw.below(200 * MS);
                    self.schedule(next, Happening::Fault);
                }
            }
            Happening::Restart(nth) => {
                if self.places[nth].directory.is_none() {
                    self.start(nth);
                }
            }
            Happening::Mend(from, to) => drop(self.cut.remove(&(from, to))),
        }
    }

    fn with(&mut self, nth: usize, act: impl FnOnce(&mut Embedded, Instant)) {
        let place = &mut self.places[nth];
        let now = place.clock(self.now);
        if let Some(directory) = &mut place.directory {
            act(directory, now);
        }
        self.settle(nth);
    }

    fn settle(&mut self, nth: usize) {
        while let Some(event) = self.places[nth].directory.as_mut().and_then(Embedded::poll) {
            match event {
                Event::Tell(to, message) => self.carry(nth, to, &message),
                Event::Contact(_, _) | Event::Ask(_, _) => unreachable!("there is no etcd"),
                Event::Died(node, life) => {
                    self.deaths += u64::from(!self.crashed.contains(&life.0));
                    self.dead[nth].insert((node, life.0));
                }
                Event::Lost => {
                    self.lives += 1;
                    let life = Incarnation(self.lives);
                    self.crashed.insert(self.places[nth].life.0);
                    self.places[nth].life = life;
                    self.dead[nth].clear();
                    let now = self.places[nth].clock(self.now);
                    if let Some(directory) = &mut self.places[nth].directory {
                        directory.reborn(life, now);
                    }
                    self.relink(nth);
                }
            }
        }
        let place = &mut self.places[nth];
        if let Some(at) = place.directory.as_ref().and_then(Embedded::deadline) {
            place.tick = place.when(at).max(self.now + 1).max(place.asleep_until);
            let at = place.tick;
            self.schedule(at, Happening::Tick(nth));
        }
    }

    fn carry(&mut self, from: usize, to: NodeId, message: &Message) {
        let to = self.places.iter().position(|place| place.id == to).unwrap();
        if self.cut.contains(&(from, to)) || self.draw.one_in(self.loss) {
            return;
        }
        let (ours, theirs) = (self.places[from].life.0, self.places[to].life.0);
        for _ in 0..=u64::from(self.draw.one_in(20)) {
            let at = self.now + 1 + self.draw.below(self.delay);
            let octets = message.encode().to_vec();
            self.schedule(at, Happening::Message(from, to, ours, theirs, octets));
        }
    }

    /// Until then. Whoever sleeps takes in nothing before it wakes.
    fn run(&mut self, until: u64) -> Result<(), String> {
        while self.agenda.peek().is_some_and(|Reverse((at, ..))| *at <= until) {
            let Some(Reverse((at, order, what))) = self.agenda.pop() else { break };
            self.now = at;
            let sleeper = match &what {
                Happening::Message(_, to, ..) => Some(*to),
                Happening::Up(at, ..) | Happening::Down(at, ..) | Happening::Proof(at, ..) => Some(*at),
                _ => None,
            };
            if let Some(until) = sleeper.map(|nth| self.places[nth].asleep_until).filter(|until| *until > at)
            {
                self.agenda.push(Reverse((until, order, what)));
                continue;
            }
            self.happen(what);
            self.nobody_is_dead_who_has_a_lease()?;
        }
        self.now = until;
        Ok(())
    }

    /// Whoever has no lease, because it is given up itself, may believe what it likes: it does nothing, and forgets it.
    fn nobody_is_dead_who_has_a_lease(&self) -> Result<(), String> {
        let valid = |place: &Place| {
            place.directory.as_ref().is_some_and(|known| known.lease().is_valid(place.clock(self.now)))
        };
        for place in self.places.iter().filter(|place| valid(place)) {
            for (by, dead) in self.places.iter().zip(&self.dead).filter(|(by, _)| valid(by)) {
                if dead.contains(&(place.id, place.life.0)) {
                    let (ms, one, by) = (self.now / MS, place.life, by.life);
                    return Err(format!("at {ms} ms {one:?} has a lease and is dead to {by:?}"));
                }
            }
        }
        Ok(())
    }

    /// The faults end, and everybody is linked.
    fn mend(&mut self) {
        self.faults = false;
        self.cut.clear();
        (self.loss, self.delay) = (u64::MAX, 2 * MS);
    }

    /// By name: whom each living node does not take for dead, though it is, or the other way round.
    fn wrong(&self) -> BTreeMap<String, String> {
        let mut wrong = BTreeMap::new();
        for (nth, place) in self.places.iter().enumerate() {
            let Some(directory) = &place.directory else { continue };
            if !directory.lease().is_valid(place.clock(self.now)) {
                wrong.insert(format!("{nth}"), format!("has no lease: {directory:?}"));
            }
        }
        wrong
    }
}

fn seed(seed: u64) -> Result<u64, String> {
    let mut world = World::new(seed);
    world.run(6_000 * MS)?;
    world.mend();
    // Whatever was cut meets again, and whoever is gone starts anew.
    for nth in 0..world.places.len() {
        if world.places[nth].directory.is_none() {
            world.start(nth);
        } else {
            world.relink(nth);
        }
    }
    world.run(9_000 * MS)?;
    let wrong = world.wrong();
    if wrong.is_empty() { Ok(world.deaths) } else { Err(format!("{wrong:#?}")) }
}

#[test]
fn nobody_who_has_a_lease_is_dead_to_anybody_and_when_all_is_well_everybody_has_one() {
    let seeds = std::env::var("FERRY_SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(100);
    let mut deaths = 0;
    for nth in 0..seeds {
        deaths += seed(nth).unwrap_or_else(|why| panic!("seed {nth}: {why}"));
    }
    assert!(deaths > 0, "the worlds were too kind");
}

#[test]
fn a_silent_node_is_dead_to_all_after_a_lease_and_a_few_heartbeats() {
    for seed in 0..20 {
        let mut world = World::calm(seed);
        let (silent, life) = (world.places[0].id, world.places[0].life);
        world.places[0].directory = None;
        world.run((1_000 + 202 + 60) * MS).unwrap();
        for nth in 1..world.places.len() {
            assert!(world.dead[nth].contains(&(silent, life.0)), "seed {seed}: not to {nth}");
            let place = &world.places[nth];
            let lease = place.directory.as_ref().unwrap().lease();
            assert!(lease.is_valid(place.clock(world.now)), "seed {seed}: {nth} goes on");
        }
    }
}

/// Those that stay remember fewer of the former lives than there were, and so do newcomers.
#[test]
fn nodes_may_be_started_anew_any_number_of_times_and_those_that_stay_keep_their_leases() {
    for seed in 0..10 {
        let mut world = World::calm(seed);
        for round in 0..100 {
            let (nth, now) = (1 + round % (world.places.len() - 1), world.now);
            let life = world.places[nth].life.0;
            world.places[nth].directory = None;
            world.crashed.insert(life);
            for other in world.others(nth) {
                world.schedule(now + MS, Happening::Down(other, nth, life));
                world.schedule(now + 2 * MS, Happening::Proof(other, nth, life));
            }
            world.run(now + 20 * MS).unwrap();
            world.start(nth);
            world.run(now + 100 * MS).unwrap();
            assert_eq!(world.wrong(), BTreeMap::new(), "seed {seed}, after {round}");
        }
    }
}

#[test]
fn a_minority_declares_nobody_dead_and_may_not_serve() {
    for seed in 0..20 {
        let mut world = World::calm(seed);
        for other in world.others(0) {
            world.cut.extend([(0, other), (other, 0)]);
        }
        world.run(1_000 * MS + 250 * MS).unwrap();
        let place = &world.places[0];
        assert!(!place.directory.as_ref().unwrap().lease().is_valid(place.clock(world.now)));
        world.run(10_000 * MS).unwrap();
        assert!(world.dead[0].is_empty(), "seed {seed}: {:?}", world.dead[0]);
        world.cut.clear();
        world.run(10_200 * MS).unwrap();
        let place = &world.places[0];
        assert!(
            place.life.0 > 5 || world.places.len() < 5 && place.life.0 > 3,
            "it goes on under a new life"
        );
        assert!(place.directory.as_ref().unwrap().lease().is_valid(place.clock(world.now)));
    }
}

#[test]
fn spans_in_tests_are_those_of_the_default() {
    let DirectorySetup { heartbeat, lease, .. } = DirectorySetup::default();
    assert_eq!((heartbeat, lease), (Duration::from_millis(10), Duration::from_millis(200)));
}
