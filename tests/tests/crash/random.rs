//! Worlds that a seed draws: groups, clients and everything that may befall nodes, ways and clocks.

use core::net::SocketAddrV6;
use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::BTreeMap;

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

use super::scene::{copies_are_forgotten, one_has_the_role};

/// When the first client begins, and nodes know each other.
const BEGIN: u64 = 100;
/// When all faults end.
const MENDED: u64 = 1_200;
/// Within this after that every connection is over.
const PATIENCE: Duration = Duration::from_mins(3);
/// Whoever has lost his connection and says something hears of it within this.
const TOLD_WITHIN: Duration = Duration::from_mins(6);

/// What befalls a group in each world of a test. In some of them everything else does, too.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each kind of fault is there or not, whatever else is")]
pub(super) struct Faults {
    pub(super) deaths: bool,
    pub(super) stops: bool,
    pub(super) cuts: bool,
    pub(super) breaks: bool,
    /// At most so many things happen.
    pub(super) most: u64,
}

/// Those that only befall where a test or a seed wants them.
const NOTHING: Faults = Faults { deaths: false, stops: false, cuts: false, breaks: false, most: 4 };

impl Faults {
    fn and_more(self, rng: &mut Rng) -> Self {
        let mut more = |wanted| wanted || rng.chance(400);
        let (deaths, stops) = (more(self.deaths), more(self.stops));
        Self { deaths, stops, cuts: more(self.cuts), breaks: more(self.breaks), ..self }
    }
}

/// Where the service address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    /// On a link on which the contact node is alone.
    Alone,
    /// On one that so many nodes share.
    Shared(usize),
    /// With a home agent.
    Agent,
}

impl Home {
    fn draw(rng: &mut Rng, nodes: usize) -> Self {
        match rng.index(10) {
            0..=2 => Self::Alone,
            3..=5 => Self::Shared(nodes),
            6 => Self::Shared(nodes.max(3) - 1),
            _ => Self::Agent,
        }
    }
}

/// How many kinds of worlds are counted.
const KINDS: usize = 11;

/// What a seed has drawn. Told when the run fails.
struct Drawn {
    protection: Protection,
    home: Home,
    /// Whether the ways of frames lose, double and reorder them, and the links between nodes lose messages.
    loss: (bool, bool),
    roles: Vec<(usize, Instant)>,
    blows: Vec<(Instant, Blow)>,
}

impl Drawn {
    fn told(&self) -> String {
        let Protection { replicas, commit, directory } = &self.protection;
        let Self { home, loss, roles, blows, .. } = self;
        format!("{replicas} copies, {commit:?}, {directory:?}, {home:?}, {loss:?}: {roles:?}, {blows:?}")
    }

    fn has(&self, kind: fn(&Blow) -> bool) -> bool {
        self.blows.iter().any(|(_, blow)| kind(blow))
    }

    /// What happens in this world.
    fn kinds(&self) -> impl Iterator<Item = &'static str> {
        let dies = self.has(|blow| matches!(blow, Blow::Crash(_) | Blow::Vanish(_)));
        let contact = self.has(|blow| matches!(blow, Blow::Crash(0) | Blow::Vanish(0)));
        let one_way = self.has(|blow| matches!(blow, Blow::Cut(..)));
        let kinds: [_; KINDS] = [
            ("a death", dies),
            ("a death and lossy ways", dies && self.loss.0),
            ("a death and lossy links between nodes", dies && self.loss.1),
            ("a death and a broken link", dies && self.has(|blow| matches!(blow, Blow::Break(..)))),
            ("a death and a cut", dies && one_way),
            ("a death and a stop", dies && self.has(|blow| matches!(blow, Blow::Stop(_)))),
            ("a death and a clock that drifts", dies && self.has(|blow| matches!(blow, Blow::Drift(..)))),
            ("a death and a clock that jumps", dies && self.has(|blow| matches!(blow, Blow::Jump(..)))),
            ("the contact node's death on a shared link", contact && matches!(self.home, Home::Shared(_))),
            ("the contact node's death with a home agent", contact && self.home == Home::Agent),
            ("a death and a role that moves", dies && !self.roles.is_empty()),
        ];
        kinds.into_iter().filter(|(_, happens)| *happens).map(|(kind, _)| kind)
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
        (faults.breaks, 5),
        (true, 6),
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
        5 => vec![(at, Blow::Break(one, other))],
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
        again: None,
    }
}

/// What the links between nodes do to messages: they lose some, as one does that has no room for them. They are links of TCP, on
/// which no message comes twice or overtakes another; what gets stuck on its way, when that is cut, comes later.
fn manner(rng: &mut Rng, delay: Duration, bad: bool) -> Manner {
    let loss = if bad { u16::try_from(rng.within(1..=100)).unwrap_or(0) } else { 0 };
    Manner { delay, loss, ..Manner::default() }
}

fn roles(rng: &mut Rng, home: Home, nodes: usize) -> Vec<(usize, Instant)> {
    if home == Home::Alone || rng.chance(700) {
        return Vec::new();
    }
    let at = Instant::from_millis(BEGIN) + rng.millis(0..=250);
    vec![(rng.index(nodes), at)]
}

fn client(world: &mut World, rng: &mut Rng, bad: bool) {
    let kind = if rng.chance(250) { Kind::Aware } else { Kind::Ours };
    let attachment = attachment(rng, "client", 300..=5_000, bad);
    let stack = draw::stack(rng, kind, world.next_interface(1500));
    let mut machine = Machine::new(stack);
    for _ in 0..rng.within(1..=2) {
        machine.talks.push(Talk::new(script(rng)));
    }
    // Who comes when all is well again is served, too.
    if rng.chance(150) {
        let start = Instant::from_millis(MENDED) + rng.millis(0..=3_000);
        machine.talks.push(Talk::new(Script { start, ..script(rng) }));
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
    let (faults, loss) = (faults.and_more(&mut rng), (rng.chance(400), rng.chance(300)));
    let bad = loss.0;
    let home = Home::draw(&mut rng, nodes);
    match home {
        Home::Alone => {}
        Home::Shared(nodes) => world.home_link = nodes,
        Home::Agent => world.attach_home_agent(attachment(&mut rng, "agent", 50..=1_000, false)),
    }
    let roles = roles(&mut rng, home, nodes);
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
        manner: manner(&mut rng, delay, loss.1),
        www: None,
    };
    let every = rng.chance(400).then_some(5..=60);
    let operation = Operation { every, roles: roles.clone(), blows: blows.clone(), ..Operation::default() };
    world.attach_group(&plan, operation);
    client(&mut world, &mut rng, bad);
    world.mend_at(Instant::from_millis(MENDED));
    let drawn = Drawn { protection: world.protection.clone(), home, loss, roles, blows };
    (world, drawn)
}

/// What has happened in how many worlds.
type Kinds = BTreeMap<&'static str, u64>;

fn play(seed: u64, faults: Faults, kinds: &mut Kinds, log: bool) -> Tally {
    let (mut world, drawn) = draw_world(seed, faults, log);
    world.say(|| drawn.told());
    drawn.kinds().for_each(|kind| *kinds.entry(kind).or_default() += 1);
    world.run(PATIENCE);
    let tally = world.tally();
    if world.has_losses() && seed.is_multiple_of(16) {
        world.run_for(TOLD_WITHIN);
        let speaks = world.lost_and_unanswered();
        assert!(speaks.is_empty(), "who has lost his connection and says something is told so: {speaks:?}");
    }
    one_has_the_role(&mut world);
    if !world.has_losses() {
        copies_are_forgotten(&mut world, drawn.protection.replicas);
    }
    tally
}

fn worlds(name: &str, faults: Faults) {
    let mut kinds = Kinds::new();
    let name = format!("random::{name}");
    let tally = seeds::run("crash", &name, 5_000, |seed, log| play(seed, faults, &mut kinds, log));
    if seeds::replaying() {
        return;
    }
    println!("{name}: {kinds:#?}");
    // Two connections in every other world, and next to none that is lost because nobody holds it any more.
    assert!(tally.connections * 10 > tally.seeds * 14, "{tally:?}");
    let rare = kinds.iter().find(|(_, worlds)| **worlds * 100 < tally.seeds);
    assert!(kinds.len() == KINDS && rare.is_none(), "{rare:?} is rare: {kinds:?}");
}

#[test]
fn connections_outlive_deaths() {
    worlds("connections_outlive_deaths", Faults { deaths: true, ..NOTHING });
}

#[test]
fn connections_outlive_nodes_that_stand_still() {
    worlds("connections_outlive_nodes_that_stand_still", Faults { deaths: true, stops: true, ..NOTHING });
}

#[test]
fn connections_outlive_cuts() {
    worlds("connections_outlive_cuts", Faults { cuts: true, breaks: true, ..NOTHING });
}

#[test]
fn connections_outlive_everything_at_once() {
    let everything = Faults { deaths: true, stops: true, cuts: true, breaks: true, most: 6 };
    worlds("connections_outlive_everything_at_once", everything);
}
