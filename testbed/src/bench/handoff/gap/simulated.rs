//! The grid in the simulated world: virtual time, no host time, the nodes that ship.

use core::net::SocketAddrV6;
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ferry_node::{Optimise, Placement, PlainSource, TokensAhead};
use ferry_stack::Instant;
use ferry_stack::tcp::Config;
use ferry_tests::aware::Aware;
use ferry_tests::channel::Manner;
use ferry_tests::link::Quality;
use ferry_tests::machine::Machine;
use ferry_tests::serve::ECHO;
use ferry_tests::stack::{Plain, Stack};
use ferry_tests::talk::{Script, Talk, Task};
use ferry_tests::watch::Sender;
use ferry_tests::world::{Attachment, GroupPlan, Operation, SERVICE_ADDRESS, World};

use super::super::broken;
use super::{Legs, Mode, Point, grid};
use crate::Result;
use crate::progress::Progress;

const LEVELS: [f64; 7] = [0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0];
const QUICK: [f64; 3] = [1.0, 4.0, 16.0];
const HOMES: [f64; 4] = [0.05, 0.5, 5.0, 50.0];
const MTU: u16 = 1500;
/// When the client comes: the nodes have found each other.
const START: Instant = Instant::from_millis(1000);
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_mins(1);
/// Milliseconds.
const LEAST_PACE: f64 = 0.25;
/// The world's name in the results.
const WORLD: &str = "simulated";

/// Every handoff of the grid in one mode.
pub(super) fn measure(mode: Mode, quick: bool, seed: u64, progress: &mut Progress) -> Result<Vec<Point>> {
    let levels = if quick { &QUICK[..] } else { &LEVELS[..] };
    let (grid, mut points) = (grid(levels, &HOMES), Vec::new());
    let of = grid.len();
    for (nth, legs) in (seed..).zip(grid) {
        progress.show(|| {
            format!("gaps in the simulated world, {}, triangle {} of {of}", mode.name(), nth - seed + 1)
        });
        let run =
            || if mode == Mode::NoToken { first_move(&legs, nth) } else { to_and_fro(mode, &legs, nth) };
        match catch_unwind(AssertUnwindSafe(run)) {
            Ok(some) => points.extend(some?),
            Err(_) => {
                return Err(broken(format!("the simulated world found something wrong: {mode:?} {legs:?}")));
            }
        }
    }
    Ok(points)
}

/// From one node away from home to another one, and back.
fn to_and_fro(mode: Mode, legs: &Legs, seed: u64) -> Result<Vec<Point>> {
    let mut play = Play::new(mode, legs, seed)?;
    play.hand_over(0, 1)?;
    let there = play.point(1, 2, legs)?;
    // On the way back the acceptor's token of before would come along.
    let back = (mode != Mode::HomeTokenOnly).then(|| play.point(2, 1, &legs.turned())).transpose()?;
    Ok([Some(there), back].into_iter().flatten().collect())
}

/// From the contact node, which knows nothing of its clients.
fn first_move(legs: &Legs, seed: u64) -> Result<Vec<Point>> {
    let at_home = Legs { home: legs.donor, ..*legs };
    // Node b stands where the acceptor does.
    let placed = Legs { donor: legs.acceptor, ..at_home };
    let mut play = Play::new(Mode::NoToken, &placed, seed)?;
    Ok(vec![play.point(0, 1, &at_home)?])
}

/// A world in which one client sends at a steady pace.
struct Play {
    world: World,
    mode: Mode,
    nodes: Vec<usize>,
    client: usize,
    pace: Duration,
    round_trip: Duration,
    /// When new octets came, in order.
    heard: Vec<Instant>,
    received: u64,
}

impl Play {
    /// The contact node is at `home`, nodes b and c where `legs` have donor and acceptor.
    fn new(mode: Mode, legs: &Legs, seed: u64) -> Result<Self> {
        let mut world = World::new(seed, false);
        world.silences.on = true;
        let ahead = matches!(mode, Mode::Relayed | Mode::TokensAhead | Mode::SourcesFiltered);
        world.tokens_ahead = if ahead { TokensAhead::Auto } else { TokensAhead::Never };
        let nodes = world.attach_group(&group(mode), Operation::default());
        let (interface, secret) = (world.next_interface(MTU), world.rng.secret());
        let config = Config { nodelay: true, ..Config::default() };
        let stack: Box<dyn Stack> = if mode.is_aware() {
            Box::new(Aware::new(interface, config, secret, false))
        } else {
            Box::new(Plain::new(interface, config, secret, false))
        };
        let pace = millis(legs.pace(LEAST_PACE));
        let mut machine = Machine::new(stack);
        machine.talks = vec![talk(seed, pace)];
        let client = world.attach(machine, Sender::Ours, attachment("client"));
        let Legs { home, donor, acceptor, client: far } = *legs;
        let places = [(nodes[0], home), (nodes[1], donor), (nodes[2], acceptor), (client, far)];
        for (nth, leg) in places {
            world.set_distance(nth, millis(leg));
        }
        for (nth, leg) in &places[..3] {
            for (other, more) in places[..3].iter().filter(|(other, _)| other != nth) {
                world.set_peer_distance(*nth, *other, millis(leg + more));
            }
        }
        let round_trip = millis(legs.round_trip());
        let mut play = Self { world, mode, nodes, client, pace, round_trip, heard: Vec::new(), received: 0 };
        play.until(|play| play.received > 0)?;
        play.rest();
        Ok(play)
    }

    fn step(&mut self) -> bool {
        let went_on = self.world.step();
        let received = self.world.host(self.client).talks[0].received;
        if received > self.received {
            self.received = received;
            self.heard.push(self.world.now);
        }
        went_on
    }

    fn until(&mut self, done: impl Fn(&Self) -> bool) -> Result<()> {
        let limit = self.world.now + PATIENCE;
        while !done(self) {
            if self.world.now > limit || !self.step() {
                return Err(broken(format!(
                    "nothing more happens in the simulated world at {}",
                    self.world.now
                )));
            }
        }
        Ok(())
    }

    /// Until nothing is under way but what the pace brings.
    fn rest(&mut self) {
        let end = self.world.now + self.round_trip * 6 + self.pace * 12;
        while self.world.now < end && self.step() {}
    }

    /// Moves the connection, and waits until all that follows has happened. Tells when it was frozen, when it ran again
    /// and, if it is to come to that, when the client began to send straight.
    fn hand_over(&mut self, from: usize, to: usize) -> Result<(Instant, Instant, Option<Instant>)> {
        let before = self.world.silences.moves().count();
        let care_of = World::address_of(self.nodes[to]);
        self.world.hand_over(self.nodes[from], self.nodes[to]);
        self.until(|play| play.world.is_settled() && play.world.silences.moves().count() > before)?;
        let moved = self.world.silences.moves().last();
        let (frozen, installed) = moved.ok_or_else(|| broken("nothing was frozen"))?;
        let mut straight = None;
        if self.mode.is_aware() {
            self.until(|play| play.world.silences.straight_after(frozen, care_of).is_some())?;
            straight = self.world.silences.straight_after(frozen, care_of);
        }
        self.rest();
        Ok((frozen, installed, straight))
    }

    fn point(&mut self, from: usize, to: usize, legs: &Legs) -> Result<Point> {
        let (frozen, installed, straight) = self.hand_over(from, to)?;
        // Until the first answer of the acceptor has come.
        let until = installed + millis(legs.latencies().last_way(self.mode));
        let begun = self.heard.partition_point(|at| *at <= frozen).saturating_sub(1);
        let touched = self.heard[begun..].windows(2).take_while(|pair| pair[0] <= until);
        let longest = touched.map(|pair| pair[0].since(pair[1])).max();
        let longest = longest.ok_or_else(|| broken("nothing was heard"))?;
        Ok(Point {
            world: WORLD,
            mode: self.mode,
            latencies: legs.latencies(),
            pace_ms: in_millis(self.pace),
            gap_ms: in_millis(longest) - in_millis(self.pace),
            noise_ms: 0.0,
            straight_ms: straight.map(|straight| in_millis(frozen.since(straight))),
        })
    }
}

fn millis(millis: f64) -> Duration {
    // A leg that adds up to nothing may be a little less.
    Duration::from_secs_f64(millis.max(0.0) * 1e-3)
}

fn in_millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn group(mode: Mode) -> GroupPlan {
    GroupPlan {
        attachments: vec![attachment("node"), attachment("node"), attachment("node")],
        offload: vec![true; 3],
        placement: Placement::Local,
        optimise: if mode.is_aware() { Optimise::Auto } else { Optimise::Never },
        plain_source: if mode == Mode::SourcesFiltered { PlainSource::Never } else { PlainSource::Auto },
        tcp: Config { nodelay: true, ..Config::default() },
        reluctance: 0,
        manner: Manner::default(),
        www: None,
    }
}

fn attachment(name: &str) -> Attachment {
    let quality = || Quality { delay: Duration::from_millis(1), ..Quality::default() };
    Attachment { name: name.to_owned(), up: quality(), down: quality(), mtu: MTU, path_mtu: MTU, tap: false }
}

fn talk(key: u64, pace: Duration) -> Talk {
    Talk::new(Script {
        start: START,
        server: SocketAddrV6::new(SERVICE_ADDRESS, ECHO, 0, 0),
        // It is never done.
        task: Task::Echo(1 << 40),
        key,
        write_size: 64,
        read_size: 1 << 16,
        write_pause: pace,
        read_pause: Duration::ZERO,
        deaf: Duration::ZERO,
        idle: Duration::ZERO,
        abort_after: None,
        again: None,
    })
}
