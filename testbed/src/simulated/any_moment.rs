//! `any-moment` in the simulated world: clients of both kinds with connections of every kind, over a path that loses and
//! reorders; whatever happens at its owner, each is handed on at once.

use core::net::SocketAddrV6;
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ferry_node::Moment;
use ferry_stack::Instant;
use ferry_tests::link::Quality;
use ferry_tests::rng::Rng;
use ferry_tests::serve::{DISCARD, ECHO, EXCHANGE, Order};
use ferry_tests::talk::{Script, Talk, Task};
use ferry_tests::watch::Sender;
use ferry_tests::world::{Operation, World};

use super::{attachment, client, group, quality, said, talk};
use crate::demo::ANY_MOMENT;
use crate::report::{Demo, Moments};

/// Clients; every second one has Mobile IPv6.
const CLIENTS: u64 = 4;
/// Connections of each, in one world.
const TALKS: u64 = 12;

/// Plays as many worlds as it takes.
pub(super) fn run(handoffs: usize, seed: u64) -> Demo {
    let mut demo =
        Demo::unfinished(ANY_MOMENT, format!("{CLIENTS} clients with our own TCP, two with Mobile IPv6"));
    (demo.world, demo.mode, demo.seed) = ("simulated", "relayed and route-optimised", seed);
    let (mut moments, mut connections, mut problems) = (Vec::new(), 0, Vec::new());
    for seed in seed.. {
        if moments.len() >= handoffs.max(1) || !problems.is_empty() {
            break;
        }
        match catch_unwind(AssertUnwindSafe(|| play(seed))) {
            Ok(played) if played.moments.is_empty() => {
                problems.push(format!("with seed {seed} nothing moved"));
            }
            Ok(played) => {
                moments.extend(played.moments);
                connections += CLIENTS * TALKS;
                demo.bytes += played.octets;
                demo.resets += played.resets;
            }
            Err(panic) => problems.push(format!("with seed {seed}: {}", said(panic.as_ref()))),
        }
    }
    demo.handoffs = moments.len();
    demo.digest_match = problems.is_empty();
    let counted = moments.iter().map(|(aware, moment)| (*aware, moment));
    demo.moments = Some(Moments { connections, ..Moments::count(counted) });
    demo.conclude(&problems);
    demo
}

/// What came of one world.
struct Played {
    /// Whether each was of an aware client.
    moments: Vec<(bool, Moment)>,
    octets: u64,
    resets: usize,
}

/// Panics if the world finds anything wrong: an octet, a RST, a second owner.
fn play(seed: u64) -> Played {
    let mut world = World::new(seed, false);
    world.silences.on = true;
    world.attach_group(&group(), Operation { after_every_event: true, ..Operation::default() });
    let mut random = Rng::new(seed);
    let mut aware_ones = Vec::new();
    for nth in 0..CLIENTS {
        let aware = nth % 2 == 1;
        let mut machine = client(&mut world, aware);
        machine.talks = (0..TALKS).map(|talk| some_talk(seed << 16 | nth << 8 | talk, &mut random)).collect();
        let rough = Quality { loss: 5, reordering: 10, lateness: Duration::from_millis(3), ..quality() };
        let place = world.attach(machine, Sender::Ours, attachment("client", rough));
        aware_ones.extend(aware.then(|| World::address_of(place)));
    }
    world.run(Duration::from_hours(1));
    let moments = world.silences.moments().iter();
    Played {
        moments: moments.map(|(client, moment)| (aware_ones.contains(client.ip()), moment.clone())).collect(),
        octets: world.tally().octets,
        resets: world.watch.resets.len(),
    }
}

fn some_talk(key: u64, random: &mut Rng) -> Talk {
    let octets = random.scaled(1..=200_000);
    let (port, task) = match random.index(4) {
        0 => (ECHO, Task::Echo(octets)),
        1 => (DISCARD, Task::Discard(octets)),
        _ => {
            let order = random.pick(&[Order::ClientFirst, Order::ServerFirst, Order::Together]);
            (EXCHANGE, Task::Exchange { up: random.scaled(1..=50_000), down: octets, order })
        }
    };
    let start = Instant::from_millis(random.within(100..=2_000));
    let server = SocketAddrV6::new(ferry_tests::world::SERVICE_ADDRESS, port, 0, 0);
    let slow = random.chance(200);
    let deaf = if random.chance(200) { random.millis(100..=500) } else { Duration::ZERO };
    let script = Script {
        start,
        server,
        deaf,
        read_size: if slow { 4096 } else { 1 << 16 },
        read_pause: if slow { Duration::from_millis(10) } else { Duration::ZERO },
        idle: if random.chance(200) { random.millis(100..=600) } else { Duration::ZERO },
        ..talk(key, port, task).script
    };
    Talk::new(script)
}
