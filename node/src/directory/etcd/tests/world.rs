//! A group of directories and an etcd in a small world: messages, requests and answers are lost, late and doubled, ways are
//! cut, nodes sleep, crash and start again, etcd goes away and comes back, clocks drift.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use bytes::Bytes;
use ferry_handoff::{Incarnation, Message, NodeId};
use ferry_stack::Instant;

use super::store::Store;
pub(super) use crate::directory::draw::Draw;
use crate::directory::{Directory as _, DirectorySetup, Etcd, Event};
use crate::io::{StoreAnswer, StoreRequest};

pub(super) const MS: u64 = 1_000_000;

pub(super) struct Place {
    pub(super) name: String,
    pub(super) id: NodeId,
    pub(super) life: Incarnation,
    pub(super) directory: Option<Etcd>,
    /// Counts its processes: what a former one has asked is not answered to the next.
    process: u64,
    drift: i64,
    ahead: u64,
    asleep_until: u64,
    tick: u64,
    /// Who is the contact node, as it has been told.
    pub(super) contact: Option<(NodeId, u64)>,
}

impl Place {
    pub(super) fn clock(&self, now: u64) -> Instant {
        let shown = i128::from(now) * i128::from(1_000_000 + self.drift) / 1_000_000;
        Instant::from_nanos(self.ahead + u64::try_from(shown).unwrap())
    }

    fn when(&self, shown: Instant) -> u64 {
        let passed = i128::from(shown.nanos()) - i128::from(self.ahead);
        let rate = i128::from(1_000_000 + self.drift);
        u64::try_from((passed * 1_000_000 + rate - 1).max(0) / rate).unwrap()
    }
}

#[derive(Debug)]
enum Happening {
    Tick(usize),
    /// From, to, their lives then, and the message as octets.
    Message(usize, usize, u64, u64, Vec<u8>),
    /// A request reaches etcd, of that process of a node.
    Request(usize, u64, u64, StoreRequest),
    /// An answer comes back.
    Answer(usize, u64, u64, StoreAnswer),
    Expiry,
    Up(usize, usize, u64),
    Down(usize, usize, u64),
    Proof(usize, usize, u64),
    Restart(usize),
}

pub(super) struct World {
    pub(super) draw: Draw,
    pub(super) now: u64,
    agenda: BTreeMap<u64, Happening>,
    order: BinaryHeap<Reverse<(u64, u64)>>,
    last: u64,
    pub(super) places: Vec<Place>,
    pub(super) store: Store,
    pub(super) store_up: bool,
    /// Ways that carry nothing.
    pub(super) cut: BTreeSet<(usize, usize)>,
    pub(super) cut_from_store: BTreeSet<usize>,
    /// The lives that each node believes to be over.
    pub(super) dead: Vec<BTreeSet<(NodeId, u64)>>,
    lives: u64,
    /// How bad the ways are: one in so many is lost, and the longest delay.
    pub(super) loss: u64,
    pub(super) delay: u64,
    pub(super) crashed: BTreeSet<u64>,
    /// Deaths by silence that anybody told of, and lives that were given up.
    pub(super) deaths: u64,
    pub(super) lost: u64,
}

impl World {
    pub(super) fn new(seed: u64, nodes: usize) -> Self {
        let mut draw = Draw(seed);
        let place = |nth: usize, draw: &mut Draw| Place {
            name: format!("n{nth}"),
            id: NodeId::of(&format!("n{nth}")),
            life: Incarnation(0),
            directory: None,
            process: 0,
            drift: i64::try_from(draw.below(401)).unwrap() - 200,
            ahead: draw.below(1 << 50),
            asleep_until: 0,
            tick: 0,
            contact: None,
        };
        let mut world = Self {
            places: (0..nodes).map(|nth| place(nth, &mut draw)).collect(),
            draw,
            now: 0,
            agenda: BTreeMap::new(),
            order: BinaryHeap::new(),
            last: 0,
            store: Store::new(),
            store_up: true,
            cut: BTreeSet::new(),
            cut_from_store: BTreeSet::new(),
            dead: vec![BTreeSet::new(); nodes],
            lives: 0,
            loss: u64::MAX,
            delay: MS,
            crashed: BTreeSet::new(),
            deaths: 0,
            lost: 0,
        };
        for nth in 0..nodes {
            world.start(nth);
        }
        world
    }

    fn schedule(&mut self, at: u64, what: Happening) {
        self.last += 1;
        self.agenda.insert(self.last, what);
        self.order.push(Reverse((at, self.last)));
    }

    fn others(&self, nth: usize) -> Vec<usize> {
        (0..self.places.len()).filter(|other| *other != nth).collect()
    }

    pub(super) fn directory(&self, nth: usize) -> &Etcd {
        self.places[nth].directory.as_ref().unwrap()
    }

    /// Whether a node takes itself to have its lease.
    pub(super) fn serves(&self, nth: usize) -> bool {
        let place = &self.places[nth];
        let valid = |directory: &Etcd| directory.lease().is_valid(place.clock(self.now));
        place.directory.as_ref().is_some_and(valid)
    }

    pub(super) fn start(&mut self, nth: usize) {
        self.lives += 1;
        let life = Incarnation(self.lives);
        let others: Vec<_> = self.others(nth).iter().map(|other| self.places[*other].name.clone()).collect();
        let place = &mut self.places[nth];
        (place.life, place.asleep_until, place.contact) = (life, 0, None);
        place.process += 1;
        let now = place.clock(self.now);
        let others = others.iter().map(String::as_str);
        let setup = DirectorySetup::etcd();
        place.directory = Some(Etcd::new(&place.name, life, others, NodeId::of("n0"), &setup, now));
        self.dead[nth].clear();
        self.relink(nth);
        self.settle(nth);
    }

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

    /// The process is gone; `seen`: so that others have a proof.
    pub(super) fn crash(&mut self, nth: usize, seen: bool) {
        let life = self.places[nth].life.0;
        self.crashed.insert(life);
        self.places[nth].directory = None;
        self.store.forget(nth);
        for other in self.others(nth) {
            if seen && !self.cut.contains(&(nth, other)) {
                let soon = self.now + self.draw.below(3 * MS);
                self.schedule(soon, Happening::Down(other, nth, life));
                self.schedule(soon + MS, Happening::Proof(other, nth, life));
            }
        }
    }

    pub(super) fn restart_after(&mut self, nth: usize, span: u64) {
        self.schedule(self.now + span, Happening::Restart(nth));
    }

    pub(super) fn sleep(&mut self, nth: usize, until: u64) {
        self.places[nth].asleep_until = until;
    }

    pub(super) fn store_comes_back(&mut self) {
        self.store_up = true;
        self.store.restart(self.now);
        self.schedule_expiry();
    }

    fn schedule_expiry(&mut self) {
        if let Some(at) = self.store.next_expiry() {
            self.schedule(at, Happening::Expiry);
        }
    }

    /// Lets time pass, and looks after every event.
    pub(super) fn pass(&mut self, span: u64) {
        let end = self.now + span;
        while let Some(Reverse((at, nth))) = self.order.peek().copied().filter(|Reverse((at, _))| *at <= end)
        {
            self.order.pop();
            self.now = self.now.max(at);
            let what = self.agenda.remove(&nth).unwrap();
            self.happen(what);
            self.check();
        }
        self.now = end;
    }

    fn asleep(&self, nth: usize) -> Option<u64> {
        Some(self.places[nth].asleep_until).filter(|until| *until > self.now)
    }

    fn happen(&mut self, what: Happening) {
        let to = match &what {
            Happening::Tick(nth) | Happening::Answer(nth, ..) => Some(*nth),
            Happening::Message(_, to, ..)
            | Happening::Up(to, ..)
            | Happening::Down(to, ..)
            | Happening::Proof(to, ..) => Some(*to),
            Happening::Request(..) | Happening::Expiry | Happening::Restart(_) => None,
        };
        if let Some(until) = to.and_then(|to| self.asleep(to)) {
            if let Happening::Tick(nth) = what
                && self.places[nth].tick == self.now
            {
                self.places[nth].tick = until;
            }
            self.schedule(until, what);
            return;
        }
        match what {
            Happening::Tick(nth) => {
                if self.places[nth].tick == self.now {
                    self.with(nth, Etcd::handle_timeout);
                }
            }
            Happening::Message(from, to, theirs, ours, bytes) => {
                self.deliver(from, to, (theirs, ours), &bytes);
            }
            Happening::Request(from, process, id, request) => self.request(from, process, id, request),
            Happening::Answer(nth, process, id, answer) => {
                if self.places[nth].process == process {
                    self.with(nth, |directory, now| directory.answer(id, answer, now));
                }
            }
            Happening::Expiry => {
                if self.store_up {
                    let told = self.store.expire(self.now);
                    self.tell(told);
                    self.schedule_expiry_later();
                }
            }
            Happening::Up(nth, other, life) => {
                let linked = self.places[other].life.0 == life && self.places[other].directory.is_some();
                if linked && !self.cut.contains(&(other, nth)) && !self.cut.contains(&(nth, other)) {
                    let id = self.places[other].id;
                    self.with(nth, |directory, now| {
                        directory.peer_up(id, Incarnation(life), now);
                    });
                } else if linked {
                    let later = self.now + 50 * MS;
                    self.schedule(later, Happening::Up(nth, other, life));
                }
            }
            Happening::Down(nth, other, life) => {
                let id = self.places[other].id;
                // A link to the next life may be up by now.
                if self.places[other].life.0 == life {
                    self.with(nth, |directory, now| directory.peer_down(id, now));
                }
            }
            Happening::Proof(nth, other, life) => {
                let id = self.places[other].id;
                self.with(nth, |directory, now| directory.proved(id, Incarnation(life), now));
            }
            Happening::Restart(nth) => {
                if self.places[nth].directory.is_none() {
                    self.start(nth);
                }
            }
        }
    }

    fn schedule_expiry_later(&mut self) {
        if let Some(at) = self.store.next_expiry() {
            self.schedule(at.max(self.now + 1), Happening::Expiry);
        }
    }

    fn with(&mut self, nth: usize, act: impl FnOnce(&mut Etcd, Instant)) {
        let place = &mut self.places[nth];
        let now = place.clock(self.now);
        if let Some(directory) = &mut place.directory {
            act(directory, now);
            self.settle(nth);
        }
    }

    fn deliver(&mut self, from: usize, to: usize, (theirs, ours): (u64, u64), bytes: &[u8]) {
        if self.places[to].life.0 != ours {
            return;
        }
        let id = self.places[from].id;
        match Message::decode(&Bytes::copy_from_slice(bytes)) {
            Ok(Message::Pulse(pulse)) if pulse.life.0 == theirs => {
                self.with(to, |directory, now| directory.pulse(id, &pulse, now));
            }
            Ok(Message::Dead { node, life }) => {
                self.with(to, |directory, now| directory.told(id, node, life, now));
            }
            _ => {}
        }
    }

    fn request(&mut self, from: usize, process: u64, id: u64, request: StoreRequest) {
        if !self.store_up {
            return self.answer(from, process, id, StoreAnswer::Failed);
        }
        let (answer, told) = self.store.ask((from, id), request, self.now);
        self.tell(told);
        self.schedule_expiry_later();
        // An answer may get lost, though all was done.
        if let Some(answer) = answer.filter(|_| !self.draw.one_in(self.loss)) {
            self.answer(from, process, id, answer);
        }
    }

    fn answer(&mut self, to: usize, process: u64, id: u64, answer: StoreAnswer) {
        if !self.cut_from_store.contains(&to) {
            let at = self.now + 1 + self.draw.below(self.delay);
            self.schedule(at, Happening::Answer(to, process, id, answer));
        }
    }

    /// Tells those who watch. What a watch tells comes in order or not at all.
    pub(super) fn tell(&mut self, told: Vec<((usize, u64), StoreAnswer)>) {
        for ((to, id), answer) in told {
            if !self.cut_from_store.contains(&to) {
                let process = self.places[to].process;
                self.schedule(self.now + 1, Happening::Answer(to, process, id, answer));
            }
        }
    }

    fn settle(&mut self, nth: usize) {
        while let Some(event) = self.places[nth].directory.as_mut().and_then(Etcd::poll) {
            match event {
                Event::Tell(to, message) => self.carry(nth, to, &message),
                Event::Died(node, life) => {
                    self.deaths += u64::from(!self.crashed.contains(&life.0));
                    self.dead[nth].insert((node, life.0));
                }
                Event::Lost => {
                    self.lost += 1;
                    self.lives += 1;
                    self.crashed.insert(self.places[nth].life.0);
                    self.places[nth].life = Incarnation(self.lives);
                    let (life, now) = (self.places[nth].life, self.places[nth].clock(self.now));
                    if let Some(directory) = &mut self.places[nth].directory {
                        directory.reborn(life, now);
                    }
                    self.relink(nth);
                }
                Event::Contact(node, term) => self.places[nth].contact = Some((node, term)),
                Event::Ask(id, request) => self.ask(nth, id, request),
            }
        }
        let place = &mut self.places[nth];
        if let Some(at) = place.directory.as_ref().and_then(Etcd::deadline) {
            place.tick = place.when(at).max(self.now + 1).max(place.asleep_until);
            let at = place.tick;
            self.schedule(at, Happening::Tick(nth));
        }
    }

    fn ask(&mut self, nth: usize, id: u64, request: StoreRequest) {
        if self.cut_from_store.contains(&nth) || self.draw.one_in(self.loss) {
            return;
        }
        let process = self.places[nth].process;
        // Now and then one is far too late, and is done all the same.
        let late = if self.loss < u64::MAX && self.draw.one_in(20) { 3000 * MS } else { self.delay };
        let at = self.now + 1 + self.draw.below(late);
        self.schedule(at, Happening::Request(nth, process, id, request));
    }

    fn carry(&mut self, from: usize, to: NodeId, message: &Message) {
        let to = self.places.iter().position(|place| place.id == to).unwrap();
        if self.cut.contains(&(from, to)) || self.draw.one_in(self.loss) {
            return;
        }
        let lives = (self.places[from].life.0, self.places[to].life.0);
        let at = self.now + 1 + self.draw.below(self.delay);
        self.schedule(at, Happening::Message(from, to, lives.0, lives.1, message.encode().to_vec()));
    }

    /// Whoever has a valid lease by its own clock is dead to nobody, and not on record as such.
    fn check(&self) {
        for (nth, place) in self.places.iter().enumerate() {
            if !self.serves(nth) {
                continue;
            }
            let life = place.life.0;
            let believed = self.dead.iter().any(|dead| dead.contains(&(place.id, life)));
            let record = self.store.value(&format!("lives/{}", place.name)).unwrap_or_default();
            let recorded = record.contains(&format!("{life:016x}")) && record.contains("\"dead\":true");
            assert!(
                !believed && !recorded,
                "at {} ms {} serves in life {life}, and is taken for dead ({believed}, {recorded})",
                self.now / MS,
                place.name
            );
        }
    }
}
