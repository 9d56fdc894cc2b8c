//! The world: machines on links around a router, one clock, one seed. A run follows from the seed alone.

mod agenda;
mod agent;
mod birth;
mod build;
mod faults;
mod group;
mod home;
mod judge;
mod links;
mod losses;
mod paths;
mod protection;
mod report;
mod scene;

use core::net::SocketAddrV6;
use core::time::Duration;
use std::collections::BTreeMap;

use ferry_node::TokensAhead;
use ferry_stack::{Frame, Instant};

use self::agenda::{Agenda, Event};
use self::agent::Standing;
pub use self::build::Attachment;
use self::faults::Moments;
pub use self::faults::{Blow, End};
use self::group::Group;
pub use self::group::{GroupPlan, Operation, SERVICE_ADDRESS, service_at};
use self::home::HomeLink;
use self::losses::Losses;
pub use self::protection::Protection;
use crate::link::{self, Passed, Pipe};
use crate::machine::Machine;
use crate::member::{Member, Wish};
use crate::rng::Rng;
use crate::router::Router;
use crate::silence::Silences;
use crate::tamper::Tamper;
use crate::watch::{Sender, Watch};

/// Steps at one instant after which time is thought to stand still.
const MAX_AT_ONCE: u32 = 100_000;

/// What is attached to a link.
#[derive(Debug)]
enum Body {
    /// A host with applications.
    Host(Machine),
    /// A node of the group.
    Node(Box<Member>),
    /// The home agent of the group.
    Agent(Box<Standing>),
    /// A node that was lost.
    Gone,
}

/// A machine and its link.
#[derive(Debug)]
struct Place {
    name: String,
    body: Body,
    sender: Sender,
    up: Pipe,
    down: Pipe,
    /// Whether the link is a TAP: super-segments and partial checksums pass it as they are.
    tap: bool,
    /// Whether other machines are on the same link, and not only the router.
    shared: bool,
    armed: Option<Instant>,
}

impl Place {
    /// Whether super-segments and partial checksums pass that way as they are: a link that swallows long packets has to
    /// see them one by one.
    fn passes_whole(&self, pipe: &Pipe) -> bool {
        self.tap && pipe.quality.limit.is_none()
    }

    /// What comes of a frame that the machine sends.
    fn up(&mut self, frame: Frame, now: Instant) -> Vec<(Instant, Frame)> {
        if self.is_next_door(&frame) { vec![self.next_door(frame, now)] } else { self.up.carry(&frame, now) }
    }

    /// What comes of a frame that the router sends.
    fn down(&mut self, frame: Frame, now: Instant) -> Vec<(Instant, Frame)> {
        if self.is_next_door(&frame) {
            vec![self.next_door(frame, now)]
        } else {
            self.down.carry(&frame, now)
        }
    }

    /// On a link that is shared it takes as long as anything else.
    fn next_door(&self, frame: Frame, now: Instant) -> (Instant, Frame) {
        (if self.shared { now + self.up.quality.delay } else { now }, frame)
    }

    /// A node's TAP ends in the machine that it runs on: what lies between it and the rest of the network is far
    /// away from neighbour discovery. So no segment waits for an answer and is overtaken by a handoff meanwhile.
    fn is_next_door(&self, frame: &Frame) -> bool {
        let machine = match &self.body {
            Body::Node(_) | Body::Agent(_) | Body::Gone => true,
            Body::Host(machine) => machine.stack.is_next_door(),
        };
        machine && link::is_discovery(frame)
    }
}

/// The simulated world.
#[derive(Debug)]
pub struct World {
    /// What time it is.
    pub now: Instant,
    /// Where chance comes from.
    pub rng: Rng,
    /// What was seen on the wires.
    pub watch: Watch,
    /// When acceptors fetch the tokens of clients that understand Mobile IPv6. To be set before nodes are attached.
    pub tokens_ahead: TokensAhead,
    /// How the connections of the services are protected. To be set before nodes are attached.
    pub protection: Protection,
    /// How many nodes are on the home link, the first contact node among them; if none, that one has it for itself. To be set
    /// before nodes are attached.
    pub home_link: usize,
    /// Whether what holds of any connection anywhere, such as that it is read back as it was written, is left to other
    /// worlds, so that more of this one can be had.
    pub light: bool,
    /// When the clients heard of the service.
    pub silences: Silences,
    /// Events so far.
    pub events: u64,
    agenda: Agenda,
    mended: Option<Instant>,
    /// Events since time last went on.
    at_once: u32,
    router: Router,
    router_armed: Option<Instant>,
    places: Vec<Place>,
    group: Group,
    /// The home link, if nodes share it.
    home: Option<HomeLink>,
    /// The home agent, if there is one.
    agent: Option<usize>,
    /// Nodes that were lost.
    pub lost_nodes: u64,
    /// Nodes that were given up while they lived, and have begun a new life.
    pub rebirths: u64,
    /// What is done to messages between nodes one by one.
    pub tamper: Tamper,
    moments: Moments,
    losses: Losses,
    /// Which client plays which script on which connection: (client's end, server's end) to (machine, talk).
    talks: BTreeMap<(SocketAddrV6, SocketAddrV6), (usize, usize)>,
    /// How many of the RST segments that were sent have been judged.
    judged: usize,
    log: bool,
}

impl World {
    /// Runs until every client has what it wanted, and the operator's commands are answered. Panics if that takes
    /// longer than `patience` after the faults ended, or after the start if there are none.
    pub fn run(&mut self, patience: Duration) {
        while !self.is_done() {
            let limit = self.mended.unwrap_or(Instant::ZERO) + patience;
            let in_time = self.agenda.will_mend || self.now <= limit;
            assert!(in_time, "everything ends: at {}{}", self.now, self.unfinished());
            assert!(self.step(), "something will happen: at {}{}", self.now, self.unfinished());
        }
    }

    /// Runs on for a while.
    pub fn run_for(&mut self, span: Duration) {
        let end = self.now + span;
        while self.agenda.next_at().is_some_and(|at| at <= end) && self.step() {}
        self.now = end;
    }

    /// Whether every client has what it wanted, and every command is answered.
    pub fn is_done(&self) -> bool {
        let done = |place: &Place| match &place.body {
            Body::Host(machine) => machine.is_done(),
            Body::Node(_) | Body::Agent(_) | Body::Gone => true,
        };
        self.places.iter().all(done) && self.group.is_idle()
    }

    fn schedule(&mut self, at: Instant, event: Event) {
        self.agenda.add(at.max(self.now), event);
    }

    /// Lets the next event happen. `false` if there is none.
    pub fn step(&mut self) -> bool {
        let Some((at, event)) = self.agenda.next() else { return false };
        self.at_once = if at > self.now { 0 } else { self.at_once + 1 };
        assert!(self.at_once < MAX_AT_ONCE, "time goes on: at {at}{}", self.unfinished());
        self.now = at;
        self.events += 1;
        match event {
            Event::ToMachine(nth, frame) => self.deliver(nth, frame),
            Event::ToRouter(nth, frame) => self.emerge(nth, frame),
            Event::Wake(nth) => self.wake(nth),
            Event::WakeRouter => {
                if self.router_armed.take_if(|armed| *armed == at).is_some() {
                    self.router.handle_timeout(at);
                    self.settle_router();
                }
            }
            Event::Message { from, to, life, bytes } => self.message(from, to, life, bytes),
            Event::PeersMeet(a, b) => self.peers_meet(a, b),
            Event::PeersPart(a, b) => self.peers_part(a, b),
            Event::Operate => self.operate(),
            Event::RestartAgent => self.restart_agent(),
            Event::LoseContact => self.lose_contact(),
            Event::Relink(nth, qualities) => self.relink(nth, *qualities),
            Event::Notice { by, of, life } => self.notice(by, of, life),
            Event::Refused { by, of, life } => self.refused(by, of, life),
            Event::Silence { by, of, life, since } => self.silence(by, of, life, since),
            Event::Befall(blow) => self.befall(blow),
            Event::TakeRole(nth) => self.take_role(nth),
            Event::Mend => self.mend(),
        }
        true
    }

    fn deliver(&mut self, nth: usize, frame: Frame) {
        self.note(nth, "gets", &frame);
        let now = self.now;
        match &mut self.places[nth].body {
            Body::Host(machine) => {
                self.silences.heard(&frame, now);
                machine.receive(frame, now);
            }
            Body::Node(member) => member.receive(frame, now),
            Body::Agent(standing) => standing.receive(frame, now),
            Body::Gone => {}
        }
        self.stir(nth);
        self.settle(nth);
    }

    fn mend(&mut self) {
        self.mended = Some(self.now);
        self.say(|| "all faults end".to_owned());
        for place in &mut self.places {
            place.up.quality = place.up.quality.mended();
            place.down.quality = place.down.quality.mended();
        }
        self.group.mend();
        self.mend_faults();
    }

    fn wake(&mut self, nth: usize) {
        let now = self.now;
        let place = &mut self.places[nth];
        if place.armed.take_if(|armed| *armed == now).is_some() {
            let stirs = match &mut place.body {
                Body::Host(machine) => {
                    machine.handle_timeout(now);
                    false
                }
                Body::Node(member) => {
                    let stirs = member.is_connection_due(now);
                    member.tick(now);
                    stirs
                }
                Body::Agent(standing) => {
                    standing.handle_timeout(now);
                    false
                }
                Body::Gone => false,
            };
            if stirs {
                self.stir(nth);
            }
            self.settle(nth);
        }
    }

    /// Something was given to a machine: what it wants done is done, its next alarm is set, and what must hold is
    /// checked.
    fn settle(&mut self, nth: usize) {
        let mut rounds = 0;
        loop {
            let wishes = match &mut self.places[nth].body {
                Body::Host(_) => self.settle_host(nth),
                Body::Node(member) => member.wishes(self.now).into_iter().collect(),
                Body::Agent(standing) => {
                    core::iter::from_fn(|| standing.transmit()).map(Wish::Frame).collect()
                }
                Body::Gone => Vec::new(),
            };
            if wishes.is_empty() {
                break;
            }
            rounds += 1;
            assert!(rounds < MAX_AT_ONCE, "time goes on: {} at {}", self.places[nth].name, self.now);
            self.fulfil_all(nth, wishes);
        }
        self.check(nth);
        self.arm(nth);
        if self.is_alive(nth) {
            self.moment(nth);
        }
        self.hand_off_after_every_event(nth);
    }

    /// Lets the applications act, and takes what the host sends.
    fn settle_host(&mut self, nth: usize) -> Vec<Wish> {
        let now = self.now;
        let Body::Host(machine) = &mut self.places[nth].body else { return Vec::new() };
        let opened = machine.run(now);
        let frames: Vec<_> = core::iter::from_fn(|| machine.stack.transmit(now)).map(Wish::Frame).collect();
        for (client, server, talk) in opened {
            if self.talks.insert((client, server), (nth, talk)).is_some() {
                self.opened_anew((client, server.port()));
            }
        }
        frames
    }

    /// Does what a machine wants done, unless that dies or is stopped meanwhile.
    fn fulfil_all(&mut self, nth: usize, wishes: Vec<Wish>) {
        let node = self.is_alive(nth);
        let mut wishes = wishes.into_iter();
        while let Some(wish) = wishes.next() {
            self.fulfil(nth, wish);
            if node && !self.moment(nth) {
                if let Some(member) = self.member(nth) {
                    member.leave_undone(wishes.collect());
                }
                return;
            }
        }
    }

    fn fulfil(&mut self, nth: usize, wish: Wish) {
        match wish {
            Wish::Frame(frame) => self.send(nth, frame),
            Wish::Message(to, bytes) => {
                self.note_said(&bytes);
                self.tell(nth, to, &bytes);
            }
            Wish::Reply(id, reply) => self.replied(nth, id, reply),
            Wish::Reborn(incarnation) => self.reborn(nth, incarnation),
            Wish::Trace(trace) => self.traced(nth, &trace),
        }
    }

    /// Sets a machine's alarm.
    fn arm(&mut self, nth: usize) {
        let now = self.now;
        let place = &mut self.places[nth];
        let deadline = match &mut place.body {
            Body::Host(machine) => machine.deadline(now),
            Body::Node(member) => member.deadline(),
            Body::Agent(standing) => standing.deadline(),
            Body::Gone => None,
        };
        let Some(at) = deadline else { return };
        let at = at.max(now);
        if place.armed.is_none_or(|armed| at < armed) {
            place.armed = Some(at);
            self.schedule(at, Event::Wake(nth));
        }
    }

    fn send(&mut self, nth: usize, frame: Frame) {
        let wired = link::finished(frame.clone());
        for frame in &wired {
            self.note(nth, "sends", frame);
            self.silences.said(frame, self.now);
            let place = &self.places[nth];
            if let Err(sentence) = self.watch.see(frame, place.sender) {
                panic!("{sentence}\n  sent by {} at {}", place.name, self.now);
            }
        }
        let place = &self.places[nth];
        let frames = if place.passes_whole(&place.up) { vec![frame] } else { wired };
        for frame in frames {
            for (at, frame) in self.places[nth].up(frame, self.now) {
                self.schedule(at, Event::ToRouter(nth, frame));
            }
        }
    }

    fn settle_router(&mut self) {
        while let Some((nth, frame)) = self.router.poll_transmit() {
            let Some(frame) = self.put_on_home_link(nth, frame) else { continue };
            let place = &self.places[nth];
            let frames = if place.passes_whole(&place.down) { vec![frame] } else { link::finished(frame) };
            for frame in frames {
                for (at, frame) in self.places[nth].down(frame, self.now) {
                    self.schedule(at, Event::ToMachine(nth, frame));
                }
            }
        }
        if let Some(at) = self.router.deadline()
            && self.router_armed.is_none_or(|armed| at < armed)
        {
            let at = at.max(self.now);
            self.router_armed = Some(at);
            self.schedule(at, Event::WakeRouter);
        }
    }

    /// What all links did.
    pub fn passed(&self) -> Passed {
        let mut sum = Passed::default();
        for place in &self.places {
            sum += place.up.passed;
            sum += place.down.passed;
        }
        sum
    }
}
