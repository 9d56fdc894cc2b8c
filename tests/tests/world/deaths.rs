//! Nodes that die, are stopped or are cut off, at every moment of a scenario.

use ferry_tests::channel::Manner;
use ferry_tests::serve::{ECHO, Order};
use ferry_tests::talk::Task;
use ferry_tests::world::{Blow, End};

use super::*;

const NODES: usize = 3;
/// Whoever says something on a connection that has died hears of it within this time, when all faults have ended: it may
/// follow a SYN cookie for 101 s, and two repetitions lie up to two minutes apart.
const TOLD_WITHIN: Duration = Duration::from_mins(6);
/// When the faults of a scene end.
const MENDED: Duration = Duration::from_secs(12);

/// A small group, in which connections go from node to node while a client is served.
#[derive(Clone, Copy, Debug)]
struct Scene {
    seed: u64,
    kind: Kind,
    placement: Placement,
}

impl Scene {
    fn of(seed: u64) -> Self {
        let kind = if seed.is_multiple_of(2) { Kind::Ours } else { Kind::Aware };
        let placement = [Placement::Local, Placement::RoundRobin][(seed / 2 % 2) as usize];
        Self { seed, kind, placement }
    }

    fn world(self, log: bool) -> World {
        let mut world = World::new(self.seed, log);
        let mut rng = world.rng.fork();
        let attachments = (0..NODES).map(|_| draw::sound_attachment(&mut rng, "", 50..=500)).collect();
        let delay = Duration::from_micros(rng.within(100..=2_000));
        let plan = GroupPlan {
            attachments,
            offload: vec![false; NODES],
            placement: self.placement,
            optimise: if self.kind == Kind::Aware { Optimise::Auto } else { Optimise::Never },
            plain_source: PlainSource::Auto,
            tcp: Config::default(),
            reluctance: 0,
            manner: Manner { delay, ..Manner::default() },
            www: None,
        };
        let operation =
            Operation { every: Some(5..=15), at_most: Some(3), in_turn: true, ..Operation::default() };
        world.attach_group(&plan, operation);
        let attachment = draw::sound_attachment(&mut rng, "client", 500..=5_000);
        let stack = draw::stack(&mut rng, self.kind, world.next_interface(1500));
        let mut machine = Machine::new(stack);
        machine.talks.push(draw::steady_talk(&mut rng, Instant::from_millis(40), ECHO, Task::Echo(12_000)));
        let exchange = Task::Exchange { up: 6_000, down: 9_000, order: Order::Together };
        machine.talks.push(draw::steady_talk(&mut rng, Instant::from_millis(40), EXCHANGE, exchange));
        world.attach(machine, Sender::Ours, attachment);
        world.mend_at(Instant::ZERO + MENDED);
        world
    }

    /// How many moments there are without a fault.
    fn moments(self) -> u64 {
        let mut world = self.world(false);
        world.run(Duration::from_mins(10));
        world.moments()
    }

    /// Runs to the end of all connections, and until everything is forgotten. Clients whose connection has died are told
    /// so when they say something, and those that wait for ever give up.
    fn play(self, moment: u64, blows: &[(Duration, Blow)], log: bool) -> Tally {
        let mut world = self.world(log);
        for (after, blow) in blows {
            world.at_moment(moment, *after, *blow);
        }
        world.run(Duration::from_mins(10));
        let tally = world.tally();
        world.run_for(TOLD_WITHIN);
        let speaks = world.lost_and_unanswered();
        assert!(speaks.is_empty(), "who has lost his connection and says something is told so: {speaks:?}");
        world.give_up_what_is_lost();
        world.everything_is_forgotten_in_the_end();
        tally
    }
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// What befalls one node of the three, or two: the fate `nth`, and how long it lasts.
fn fate(nth: u64, moment: u64) -> Vec<(Duration, Blow)> {
    let one = usize::try_from(nth % 3).unwrap_or(0);
    let two = (one + 1 + usize::from(moment.is_multiple_of(2))) % 3;
    let (a, b, clients) = (End::Node(one), End::Node(two), End::Clients);
    let (now, short, long) = (Duration::ZERO, ms(1 + moment * 7 % 100), ms(moment * 37 % 8_000));
    let both = |from, to, then| vec![(now, Blow::Cut(from, to)), (then, Blow::Heal(from, to))];
    match nth / 3 {
        0 => vec![(now, Blow::Crash(one)), (short, Blow::Restart(one))],
        1 => vec![(now, Blow::Crash(one)), (long, Blow::Restart(one))],
        2 => vec![(now, Blow::Vanish(one)), (long, Blow::Restart(one))],
        3 => vec![(now, Blow::Stop(one)), (short, Blow::Continue(one))],
        4 => vec![(now, Blow::Stop(one)), (long, Blow::Continue(one))],
        5 => [both(a, b, long), both(b, a, long)].concat(),
        6 => both(a, b, long),
        7 => both(b, a, long),
        8 => both(a, clients, long),
        _ => both(clients, a, long),
    }
}

/// Deaths are the first fates, then stops, then cuts.
const DEATHS: core::ops::Range<u64> = 0..9;
const STOPS: core::ops::Range<u64> = 9..15;
const CUTS: core::ops::Range<u64> = 15..30;

/// Every moment of each scene, with each fate. The number of a case names all three.
fn every_moment(scenario: &str, scenes: core::ops::Range<u64>, fates: core::ops::Range<u64>) -> Tally {
    let scenes = scenes.start..scenes.start + (scenes.end - scenes.start) * seeds::times();
    let cases = scenes.flat_map(|scene| {
        let moments = Scene::of(scene).moments();
        assert!((100..1_000).contains(&moments), "{moments} moments in scene {scene}");
        fates.clone().flat_map(move |fate| (1..=moments).map(move |at| (scene * 100 + fate) * 1_000 + at))
    });
    let name = format!("deaths::{scenario}");
    let tally = seeds::each("world", &name, cases, |case, log| {
        let (scene, nth, moment) = (case / 100_000, case / 1_000 % 100, case % 1_000);
        Scene::of(scene).play(moment, &fate(nth, moment), log)
    });
    assert!(seeds::replaying() || tally.handoffs > tally.seeds, "{tally:?}");
    tally
}

#[test]
fn a_node_may_die_at_any_moment_and_what_a_living_one_holds_lives_on() {
    let name = "a_node_may_die_at_any_moment_and_what_a_living_one_holds_lives_on";
    let tally = every_moment(name, 0..2, DEATHS);
    assert!(seeds::replaying() || tally.connections < tally.seeds * 2, "no death did any harm: {tally:?}");
}

#[test]
fn a_node_may_be_stopped_at_any_moment_and_go_on_without_harm() {
    let tally = every_moment("a_node_may_be_stopped_at_any_moment_and_go_on_without_harm", 2..3, STOPS);
    assert!(seeds::replaying() || tally.connections == tally.seeds * 2, "{tally:?}");
}

#[test]
fn any_way_may_be_cut_at_any_moment_without_harm() {
    let tally = every_moment("any_way_may_be_cut_at_any_moment_without_harm", 3..4, CUTS);
    assert!(seeds::replaying() || tally.connections == tally.seeds * 2, "{tally:?}");
}
