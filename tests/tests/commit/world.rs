//! An owner that dies, backups, and a client, in virtual time.

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use ferry_stack::tcp::{Control, Ending, Flow, Path, RECOVERY_MARGIN, Reason, Segment, State, Tcb};
use ferry_stack::{Instant, Seq};
use ferry_tests::invariants;
use ferry_tests::seeds::Tally;

use crate::commit::draw::{Crash, Plan, flow, opening};
use crate::commit::judge;
use crate::commit::owner::{Copy, Owner};
use crate::commit::session::Side;

/// A run that is not over by then hangs.
const PATIENCE: Duration = Duration::from_mins(20);
/// From then on nothing is lost any more.
const FAULTS_END: Instant = Instant::from_millis(4_000);
/// How long an owner waits before it sends a copy again that nobody has acknowledged.
const AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug)]
enum Event {
    ToClient {
        life: usize,
        segment: Segment,
    },
    ToServer(Segment),
    Copy {
        backup: usize,
        copy: Copy,
    },
    Copied {
        life: usize,
        backup: usize,
        version: u32,
    },
    /// Time to see whether there is something to copy.
    Look {
        life: usize,
    },
    /// The client's application is not busy any more.
    Client,
    /// The session is not busy any more.
    Session {
        life: usize,
    },
    Crash,
    Restore,
}

pub(crate) struct World {
    pub(crate) name: String,
    /// Events so far.
    pub(crate) events: u64,
    /// States of the connection in which it was restored.
    pub(crate) restored: BTreeSet<String>,
    plan: Plan,
    log: bool,
    now: Instant,
    agenda: BTreeMap<(Instant, u64), Event>,
    serial: u64,
    client: Tcb,
    up: Side,
    owner: Option<Owner>,
    life: usize,
    dead: bool,
    /// Whether there will be a look at whether there is something to copy.
    looking: bool,
    /// What each backup has, and since when.
    copies: Vec<Option<(Copy, Instant)>>,
    /// The last life of which each backup has lost what it had.
    deaf: Vec<usize>,
    /// How often somebody has gone on from a copy of each life.
    continued: BTreeMap<usize, u32>,
    /// The newest `TSval` of all lives so far.
    stamp: Option<Seq>,
    tally: Tally,
}

impl World {
    pub(crate) fn new(plan: Plan, log: bool) -> Self {
        let Flow { local, remote } = flow();
        let client = Tcb::connect(
            Flow { local: remote, remote: local },
            &opening(plan.client, plan.iss[0]),
            Instant::ZERO,
        );
        let mut world = Self {
            name: String::new(),
            events: 0,
            restored: BTreeSet::new(),
            log,
            now: Instant::ZERO,
            agenda: BTreeMap::new(),
            serial: 0,
            client,
            up: plan.up.clone(),
            owner: None,
            life: 0,
            dead: false,
            looking: false,
            copies: vec![None; plan.backups],
            deaf: vec![0; plan.backups],
            continued: BTreeMap::new(),
            stamp: None,
            tally: Tally { connections: 1, ..Tally::default() },
            plan,
        };
        for crash in world.plan.crashes.clone() {
            if let Crash::At(after) = crash {
                world.after(after, Event::Crash);
            }
        }
        world
    }

    pub(crate) fn tally(&self) -> Tally {
        let virtual_ms = self.now.millis();
        Tally { events: self.events, octets: self.up.read, virtual_ms, ..self.tally }
    }

    pub(crate) fn run(&mut self) {
        self.step_client();
        while !self.is_over() {
            let at =
                self.next().unwrap_or_else(|| panic!("{}: nothing more happens\n{}", self.name, self.show()));
            assert!(at < Instant::ZERO + PATIENCE, "{}: it hangs\n{}", self.name, self.show());
            self.now = at;
            self.fire();
            self.events += 1;
            let due = |crash: &Crash| matches!(crash, Crash::Event(event) if *event == self.events);
            if self.plan.crashes.iter().any(due) {
                self.crash();
            }
        }
    }

    fn is_over(&self) -> bool {
        let server = self.owner.as_ref().is_some_and(|owner| {
            owner.session.is_done()
                && matches!(owner.tcb.state, State::TimeWait { .. } | State::Closed(_))
                && owner.is_released()
        });
        let crashes = self.agenda.values().any(|event| matches!(event, Event::Crash | Event::Restore));
        self.up.is_done()
            && matches!(self.client.state, State::TimeWait { .. } | State::Closed(_))
            && server
            && !crashes
    }

    fn next(&self) -> Option<Instant> {
        let agenda = self.agenda.first_key_value().map(|(key, _)| key.0);
        let server =
            self.owner.as_ref().and_then(|owner| Some(owner.tcb.deadline()?.earlier_by(owner.ahead)));
        [agenda, self.client.deadline(), server].into_iter().flatten().min().map(|at| at.max(self.now))
    }

    fn fire(&mut self) {
        if let Some(entry) = self.agenda.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let event = entry.remove();
            self.handle(event);
            return;
        }
        if self.client.deadline().is_some_and(|at| at <= self.now) {
            self.client.handle_timeout(self.now);
            self.step_client();
        }
        if let Some(owner) = &mut self.owner {
            let clock = owner.clock(self.now);
            if owner.tcb.deadline().is_some_and(|at| at <= clock) {
                owner.tcb.handle_timeout(clock);
                self.step_server();
            }
        }
    }

    fn after(&mut self, span: Duration, event: Event) {
        self.serial += 1;
        self.agenda.insert((self.now + span, self.serial), event);
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.log {
            eprintln!("{:>9.3} {}", self.now.millis(), what());
        }
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::ToClient { life, segment } => self.client_receives(life, &segment),
            Event::ToServer(segment) => self.server_receives(&segment),
            Event::Copy { backup, copy } => self.take_copy(backup, copy),
            Event::Copied { life, backup, version } if life == self.life => {
                if let Some(owner) = &mut self.owner {
                    owner.acknowledged(backup, version);
                    self.step_server();
                }
            }
            Event::Look { life } if life == self.life => {
                self.looking = false;
                self.look(true);
            }
            Event::Session { life } if life == self.life => self.run_session(),
            Event::Client => self.run_client(),
            Event::Crash => self.crash(),
            Event::Restore => self.restore(),
            Event::Copied { .. } | Event::Look { .. } | Event::Session { .. } => {}
        }
    }

    fn client_receives(&mut self, life: usize, segment: &Segment) {
        self.say(|| format!("client gets {segment:?} of life {life}"));
        assert!(!segment.is_rst(), "{}: the client is reset\n{}", self.name, self.show());
        if self.client.state.is_closed() {
            if let Some(ack) = segment.ack {
                self.send_to_server(&Segment::bare(ack, None, Some(Control::Rst)));
            }
            return;
        }
        let result = self.client.receive(segment, self.now);
        assert!(
            !matches!(result, Err(Reason::AckBeyondNxt | Reason::AckOfNothing(_))),
            "{}: the client is told of octets that it never sent",
            self.name
        );
        self.step_client();
    }

    fn step_client(&mut self) {
        if self.plan.rng.chance(self.plan.lazy) {
            let span = self.plan.rng.millis(0..=80);
            self.after(span, Event::Client);
            self.client_transmits();
        } else {
            self.run_client();
        }
    }

    fn run_client(&mut self) {
        if !matches!(self.client.state, State::SynSent) {
            let acted = self.up.act(&mut self.client, self.plan.at_once);
            acted.unwrap_or_else(|why| panic!("{}: client: {why}\n{}", self.name, self.show()));
        }
        let ending = self.client.state;
        assert!(
            !matches!(
                ending,
                State::Closed(Ending::Reset | Ending::TimedOut | Ending::Refused | Ending::Aborted)
            ),
            "{}: the client's connection ended: {ending:?}\n{}",
            self.name,
            self.show()
        );
        self.client_transmits();
    }

    fn client_transmits(&mut self) {
        for _ in 0..1000 {
            let Some(segment) = self.client.poll_transmit(Path::default(), self.now) else { return };
            self.say(|| format!("client sends {segment:?}"));
            self.send_to_server(&segment);
        }
        panic!("{}: the client sends for ever", self.name);
    }

    fn send_to_server(&mut self, segment: &Segment) {
        for span in self.ways() {
            self.after(span, Event::ToServer(segment.clone()));
        }
    }

    /// How long each copy of a segment takes.
    fn ways(&mut self) -> Vec<Duration> {
        let (faults, delay) = (if self.now < FAULTS_END { self.plan.faults } else { 0 }, self.plan.delay);
        let rng = &mut self.plan.rng;
        if rng.chance(faults) {
            self.tally.lost += 1;
            return Vec::new();
        }
        let copies = 1 + u64::from(rng.chance(faults / 2));
        (0..copies)
            .map(|_| delay + if rng.chance(faults) { rng.millis(0..=20) } else { Duration::ZERO })
            .collect()
    }

    fn server_receives(&mut self, segment: &Segment) {
        if self.dead {
            return;
        }
        if self.owner.is_none() {
            if !segment.is_syn() {
                return;
            }
            let clock = self.now + Duration::from_secs(1000);
            let mut tcb = Tcb::accept(flow(), segment, &opening(self.plan.server, self.plan.iss[1]), clock);
            tcb.hold(self.plan.commit);
            let down = self.plan.down.clone();
            self.begin(tcb, down, Duration::from_secs(1000));
            return;
        }
        let Some(owner) = &mut self.owner else { return };
        let clock = owner.clock(self.now);
        let _: Result<(), Reason> = owner.tcb.receive(segment, clock);
        self.step_server();
    }

    /// A life begins.
    fn begin(&mut self, tcb: Tcb, session: Side, ahead: Duration) {
        self.life += 1;
        self.looking = false;
        let least_stamp = self.stamp;
        let has = vec![0; self.plan.backups];
        self.owner = Some(Owner {
            tcb,
            session,
            ahead,
            version: 0,
            copied: None,
            has,
            waiting: Vec::new(),
            stamp: None,
            least_stamp,
        });
        self.look(false);
        self.step_server();
    }

    fn step_server(&mut self) {
        if self.plan.rng.chance(self.plan.busy) {
            let span = self.plan.rng.millis(0..=20);
            self.after(span, Event::Session { life: self.life });
            self.transmit();
        } else {
            self.run_session();
        }
    }

    fn run_session(&mut self) {
        let Some(owner) = &mut self.owner else { return };
        if owner.tcb.state.is_synchronised() {
            let acted = owner.session.act(&mut owner.tcb, self.plan.at_once);
            acted.unwrap_or_else(|why| panic!("{}: session: {why}\n{}", self.name, self.show()));
        }
        if self.plan.rng.chance(self.plan.eager) {
            self.look(false);
        } else {
            let span = self.plan.rng.millis(0..=20);
            self.look_after(span);
        }
        self.transmit();
    }

    fn transmit(&mut self) {
        for _ in 0..1000 {
            let Some(owner) = &mut self.owner else { return };
            let clock = owner.clock(self.now);
            let Some(segment) = owner.tcb.poll_transmit(Path::default(), clock) else {
                let held = invariants::hold(&owner.tcb, clock);
                held.unwrap_or_else(|why| panic!("{}: {why}\n{}", self.name, self.show()));
                let State::Closed(ending) = self.owner.as_ref().expect("it is there").tcb.state else {
                    return;
                };
                assert_eq!(ending, Ending::Finished, "{}\n{}", self.name, self.show());
                return;
            };
            if let Some(stamp) = segment.options.timestamps.map(|stamps| Seq(stamps.value)) {
                let old = owner.least_stamp.filter(|least| stamp.before(*least));
                assert!(old.is_none(), "{}: TSval {stamp} after {old:?}: the client drops it", self.name);
                owner.stamp = Some(owner.stamp.map_or(stamp, |newest| newest.later(stamp)));
            }
            self.say(|| format!("life {} sends {segment:?}", self.life));
            for span in self.ways() {
                self.after(span, Event::ToClient { life: self.life, segment: segment.clone() });
            }
        }
        panic!("{}: the server sends for ever", self.name);
    }

    fn look_after(&mut self, span: Duration) {
        if !core::mem::replace(&mut self.looking, true) {
            self.after(span, Event::Look { life: self.life });
        }
    }

    /// Copies what there is to copy; what was copied before once more only if it is time `again`.
    fn look(&mut self, again: bool) {
        let Some(owner) = &mut self.owner else { return };
        if !owner.is_dirty() && (owner.is_released() || !again) {
            return;
        }
        let copy = owner.copy(self.life, self.now);
        self.say(|| format!("life {} copies version {}", self.life, copy.version));
        for backup in 0..self.plan.backups {
            let span = self
                .plan
                .copying
                .mul_f64(f64::from(u32::try_from(self.plan.rng.within(0..=100)).unwrap_or(0)) / 100.0);
            if !self.plan.rng.chance(self.plan.copies_lost) {
                self.after(span, Event::Copy { backup, copy: copy.clone() });
            }
        }
        self.look_after(AGAIN);
    }

    fn take_copy(&mut self, backup: usize, copy: Copy) {
        // Whoever is known to be dead is not listened to.
        let over = copy.life != self.life || self.owner.is_none() && !self.dead;
        if over || copy.life <= self.deaf[backup] {
            return;
        }
        let (life, version) = (copy.life, copy.version);
        let newest = self.copies[backup].as_ref().map(|(copy, _)| (copy.life, copy.version));
        if newest.is_none_or(|newest| newest < (life, version)) {
            self.copies[backup] = Some((copy, self.now));
        }
        let span = self
            .plan
            .copying
            .mul_f64(f64::from(u32::try_from(self.plan.rng.within(0..=100)).unwrap_or(0)) / 100.0);
        if !self.plan.rng.chance(self.plan.copies_lost) {
            self.after(span, Event::Copied { life, backup, version });
        }
    }

    fn crash(&mut self) {
        if self.dead {
            return;
        }
        self.say(|| format!("life {} dies", self.life));
        if let Some(owner) = self.owner.take() {
            let stamps = self.stamp.into_iter().chain(owner.stamp);
            self.stamp = stamps.reduce(Seq::later);
        }
        // Now and then a backup dies with it, if another one still has something. What is on its way to it is lost.
        let lost = self.plan.rng.index(self.plan.backups);
        let others = self.copies.iter().enumerate().any(|(nth, copy)| nth != lost && copy.is_some());
        if others && self.plan.rng.chance(200) {
            self.copies[lost] = None;
            self.deaf[lost] = self.life;
        }
        self.dead = true;
        self.after(self.plan.detection, Event::Restore);
    }

    /// A backup goes on from what it has. Which one does is chance, if both have a copy of the last life that anybody
    /// has a copy of.
    fn restore(&mut self) {
        self.dead = false;
        let last = self.copies.iter().flatten().map(|(copy, _)| copy.life).max();
        let fit: Vec<_> =
            self.copies.iter().flatten().filter(|(copy, _)| Some(copy.life) == last).cloned().collect();
        if fit.is_empty() {
            // Nothing was told to anybody: the client asks again.
            assert!(
                matches!(self.client.state, State::SynSent),
                "{}: it was answered without a copy",
                self.name
            );
            return;
        }
        let (copy, since) = self.plan.rng.pick(&fit);
        let before = self.continued.entry(copy.life).or_default();
        let spent = since.since(self.now) + RECOVERY_MARGIN * *before;
        *before += 1;
        let tcb = copy.tcb();
        self.say(|| format!("version {} of life {} goes on in {}", copy.version, copy.life, tcb.state));
        self.restored.insert(tcb.state.to_string());
        self.tally.handoffs += 1;
        let recovered = tcb.clone().recovered(self.plan.commit, spent);
        recovered.check().unwrap_or_else(|why| panic!("{}: {why}\n{recovered:?}", self.name));
        let wrong = judge::contradicts(&self.client, &tcb, &recovered, self.plan.commit);
        assert_eq!(wrong, None, "{}\n{}", self.name, self.show());
        let ahead = self.plan.rng.millis(0..=1 << 31);
        let mut tcb = recovered.thaw(self.now + ahead);
        tcb.kick();
        self.begin(tcb, copy.session.clone(), ahead);
    }

    fn show(&self) -> String {
        let owner = self.owner.as_ref().map(|owner| {
            format!(
                "{}\n{:?} {:?}\n{:?}",
                invariants::describe(&owner.tcb),
                owner.tcb.held,
                owner.tcb.recovered,
                owner.session
            )
        });
        format!(
            "at {}, life {}\nclient {}\n{:?}\nserver {}",
            self.now.millis(),
            self.life,
            invariants::describe(&self.client),
            self.up,
            owner.unwrap_or_default()
        )
    }
}
