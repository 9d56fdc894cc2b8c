//! Worlds that a seed draws: groups, clients and everything that may befall nodes, ways and clocks.

use core::net::SocketAddrV6;
use core::ops::RangeInclusive;
use core::time::Duration;

use ferry_node::{Commit, DirectorySetup, Optimise, Placement, PlainSource};
use ferry_stack::Instant;
use ferry_stack::tcp::Config;
use ferry_tests::channel::Manner;
use ferry_tests::draw::{self, Kind};
use ferry_tests::link::Quality;
use ferry_tests::machine::Machine;
use ferry_tests::rng::Rng;
use ferry_tests::seeds::{self, Tally};
use ferry_tests::serve::{DISCARD, ECHO, EXCHANGE, Order};
use ferry_tests::talk::{Script, Talk, Task};
use ferry_tests::watch::Sender;
use ferry_tests::world::{Attachment, Blow, End, GroupPlan, Operation, Protection, SERVICE_ADDRESS, World};

use super::scene::copies_are_forgotten;

/// When the first client begins, and nodes know each other.
const BEGIN: u64 = 100;
/// When all faults end.
const MENDED: u64 = 1_200;
/// Within this after that every connection is over.
const PATIENCE: Duration = Duration::from_mins(3);
/// Whoever has lost his connection and says something hears of it within this.
const TOLD_WITHIN: Duration = Duration::from_mins(6);

/// What may befall a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Faults {
    pub(super) deaths: bool,
    pub(super) stops: bool,
    pub(super) cuts: bool,
    /// At most so many things happen.
    pub(super) most: u64,
}

/// What a seed has drawn. Told when the run fails.
struct Drawn {
    protection: Protection,
    blows: Vec<(Instant, Blow)>,
}

impl Drawn {
    fn told(&self) -> String {
        let Protection { replicas, commit, directory } = &self.protection;
        format!("{replicas} copies, {commit:?}, {directory:?}: {:?}", self.blows)
    }
}

impl Drop for Drawn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("what befell the group: {}", self.told());
        }
    }
}

fn protection(rng: &mut Rng, replicas: u8, delay: Duration) -> Protection {
    let commit =
        rng.pick(&[Commit::Strict, Commit::Strict, Commit::Regenerate, Commit::Regenerate, Commit::None]);
    let lease = rng.millis(150..=300) + delay * 10;
    Protection {
        replicas,
        commit,
        directory: DirectorySetup { heartbeat: rng.millis(20..=40), lease, ..DirectorySetup::default() },
    }
}

/// One thing, and its end.
fn blow(rng: &mut Rng, faults: Faults, nodes: usize) -> Vec<(Instant, Blow)> {
    let at =
        Instant::from_millis(0) + Duration::from_micros(rng.within(BEGIN * 1_000..=(BEGIN + 250) * 1_000));
    let (one, other) = (rng.index(nodes), rng.index(nodes));
    let longest = rng.pick(&[5, 60, 300, 900]);
    let until = at + rng.millis(0..=longest);
    let kinds = [
        (faults.deaths, 0),
        (faults.deaths, 1),
        (faults.stops, 2),
        (faults.cuts, 3),
        (faults.cuts, 4),
        (true, 5),
    ];
    let kinds: Vec<_> = kinds.into_iter().filter(|(may, _)| *may).map(|(_, kind)| kind).collect();
    let cut = |from, to| vec![(at, Blow::Cut(from, to)), (until, Blow::Heal(from, to))];
    match rng.pick(&kinds) {
        0 => vec![(at, Blow::Crash(one)), (until, Blow::Restart(one))],
        1 => vec![(at, Blow::Vanish(one)), (until, Blow::Restart(one))],
        2 => vec![(at, Blow::Stop(one)), (until, Blow::Continue(one))],
        3 if one != other => {
            let (one, other) = (End::Node(one), End::Node(other));
            [cut(one, other), cut(other, one)].concat()
        }
        3 | 4 => {
            let other = if one == other { End::Clients } else { End::Node(other) };
            if rng.chance(500) { cut(End::Node(one), other) } else { cut(other, End::Node(one)) }
        }
        // Two clocks differ by less than 1 %.
        _ if rng.chance(500) => vec![(at, Blow::Drift(one, drift(rng)))],
        _ => vec![(at, Blow::Jump(one, i64::try_from(rng.within(0..=4_000)).unwrap_or(0) - 2_000))],
    }
}

fn drift(rng: &mut Rng) -> i32 {
    i32::try_from(rng.within(0..=9_000)).unwrap_or_default() - 4_500
}

fn quality(rng: &mut Rng, micros: RangeInclusive<u64>, bad: bool) -> Quality {
    let share = |rng: &mut Rng, most| {
        if bad && rng.chance(500) { u16::try_from(rng.within(0..=most)).unwrap_or(0) } else { 0 }
    };
    Quality {
        delay: Duration::from_micros(rng.within(micros)),
        loss: share(rng, 60),
        duplication: share(rng, 60),
        reordering: share(rng, 100),
        lateness: Duration::from_millis(3),
        ..Quality::default()
    }
}

fn attachment(rng: &mut Rng, name: &str, micros: RangeInclusive<u64>, bad: bool) -> Attachment {
    let (up, down) = (quality(rng, micros.clone(), bad), quality(rng, micros, bad));
    Attachment { name: name.to_owned(), up, down, mtu: 1500, path_mtu: 1500, tap: false }
}

fn script(rng: &mut Rng) -> Script {
    let octets = |rng: &mut Rng| rng.scaled(1..=6_000);
    let (port, task) = match rng.index(5) {
        0 => (ECHO, Task::Echo(octets(rng))),
        1 => (DISCARD, Task::Discard(octets(rng))),
        _ => {
            let order =
                rng.pick(&[Order::ClientFirst, Order::ClientFirst, Order::ServerFirst, Order::Together]);
            (EXCHANGE, Task::Exchange { up: octets(rng), down: octets(rng), order })
        }
    };
    Script {
        start: Instant::from_millis(BEGIN) + rng.millis(0..=40),
        server: SocketAddrV6::new(SERVICE_ADDRESS, port, 0, 0),
        task,
        key: rng.any(),
        write_size: 800,
        read_size: 4_000,
        write_pause: rng.millis(0..=20),
        read_pause: Duration::ZERO,
        deaf: Duration::ZERO,
        idle: if rng.chance(200) { rng.millis(0..=300) } else { Duration::ZERO },
        abort_after: None,
    }
}

fn client(world: &mut World, rng: &mut Rng, bad: bool) {
    let kind = if rng.chance(250) { Kind::Aware } else { Kind::Ours };
    let attachment = attachment(rng, "client", 300..=5_000, bad);
    let stack = draw::stack(rng, kind, world.next_interface(1500));
    let mut machine = Machine::new(stack);
    for _ in 0..rng.within(1..=2) {
        machine.talks.push(Talk::new(script(rng)));
    }
    world.attach(machine, Sender::Ours, attachment);
}

fn draw_world(seed: u64, faults: Faults, log: bool) -> (World, Drawn) {
    let mut world = World::new(seed, log);
    world.light = true;
    let mut rng = world.rng.fork();
    let nodes = rng.pick(&[2, 3, 3, 3, 4]);
    let replicas = rng.pick(&[1, 1, 2]);
    let delay = Duration::from_micros(rng.scaled(50..=4_000));
    world.protection = protection(&mut rng, replicas, delay);
    let bad = rng.chance(400);
    let blows: Vec<_> =
        (0..rng.within(1..=faults.most)).flat_map(|_| blow(&mut rng, faults, nodes)).collect();
    let plan = GroupPlan {
        attachments: (0..nodes).map(|_| attachment(&mut rng, "", 50..=1_000, bad)).collect(),
        offload: (0..nodes).map(|_| rng.chance(500)).collect(),
        placement: rng.pick(&[Placement::Local, Placement::RoundRobin, Placement::LeastConnections]),
        optimise: Optimise::Auto,
        plain_source: PlainSource::Auto,
        tcp: Config::default(),
        reluctance: 0,
        manner: Manner { delay, ..Manner::default() },
        www: None,
    };
    let every = rng.chance(400).then_some(5..=60);
    let operation = Operation { every, blows: blows.clone(), ..Operation::default() };
    world.attach_group(&plan, operation);
    client(&mut world, &mut rng, bad);
    world.mend_at(Instant::from_millis(MENDED));
    let drawn = Drawn { protection: world.protection.clone(), blows };
    (world, drawn)
}

pub(super) fn play(seed: u64, faults: Faults, log: bool) -> Tally {
    let (mut world, drawn) = draw_world(seed, faults, log);
    world.say(|| drawn.told());
    world.run(PATIENCE);
    let tally = world.tally();
    if world.has_losses() && seed.is_multiple_of(16) {
        world.run_for(TOLD_WITHIN);
        let speaks = world.lost_and_unanswered();
        assert!(speaks.is_empty(), "who has lost his connection and says something is told so: {speaks:?}");
    }
    if !world.has_losses() {
        copies_are_forgotten(&mut world, drawn.protection.replicas);
    }
    tally
}

fn worlds(name: &str, faults: Faults) -> Tally {
    let tally = seeds::run("crash", &format!("random::{name}"), 5_000, |seed, log| play(seed, faults, log));
    // Two connections in every other world, and next to none that is lost because nobody holds it any more.
    assert!(seeds::replaying() || tally.connections * 10 > tally.seeds * 14, "{tally:?}");
    tally
}

#[test]
fn connections_outlive_deaths() {
    worlds("connections_outlive_deaths", Faults { deaths: true, stops: false, cuts: false, most: 3 });
}

#[test]
fn connections_outlive_nodes_that_stand_still() {
    worlds(
        "connections_outlive_nodes_that_stand_still",
        Faults { deaths: true, stops: true, cuts: false, most: 3 },
    );
}

#[test]
fn connections_outlive_cuts() {
    worlds("connections_outlive_cuts", Faults { deaths: false, stops: false, cuts: true, most: 4 });
}

#[test]
fn connections_outlive_everything_at_once() {
    worlds(
        "connections_outlive_everything_at_once",
        Faults { deaths: true, stops: true, cuts: true, most: 6 },
    );
}
