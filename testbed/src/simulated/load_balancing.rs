//! `load-balancing` in the simulated world: all clients download from one node, whose link is the narrowest place; in
//! the second of two worlds that are alike otherwise, the operator evens the load when every connection is open.

use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ferry_stack::Instant;
use ferry_tests::link::Quality;
use ferry_tests::serve::{EXCHANGE, Order};
use ferry_tests::talk::Task;
use ferry_tests::watch::Sender;
use ferry_tests::world::{GroupPlan, Operation, World};

use super::{attachment, client, group, quality, said, talk};
use crate::analysis::Spread;
use crate::demo::LOAD_BALANCING;
use crate::report::{Balance, Demo};

/// Octets of each download.
const DOWNLOAD: u64 = 1 << 19;
/// What the link of each node carries: 40 Mbit/s.
const RATE: u64 = 5_000_000;
/// All clients have begun by then.
const EVENED: Duration = Duration::from_millis(600);
/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_mins(10);

/// Plays both worlds.
pub(super) fn run(handoffs: usize, seed: u64) -> Demo {
    let clients = (handoffs * 3 / 2).next_multiple_of(3).max(3);
    let mut demo = Demo::unfinished(LOAD_BALANCING, format!("{clients} clients with our own TCP"));
    (demo.world, demo.seed) = ("simulated", seed);
    let mut problems = Vec::new();
    let both = || (play(clients, seed, false), play(clients, seed, true));
    match catch_unwind(AssertUnwindSafe(both)) {
        Ok((without, with)) => {
            let balance = Balance {
                connections: clients,
                moved: with.moved,
                max_over_mean_before: Balance::max_over_mean(&without.load),
                max_over_mean_after: Balance::max_over_mean(&with.load),
                wait_ms_before: Spread::of(without.waited_ms),
                wait_ms_after: Spread::of(with.waited_ms),
                load_before: without.load,
                load_after: with.load,
            };
            (demo.handoffs, demo.resets) = (with.moved, with.resets);
            demo.bytes = 2 * DOWNLOAD * clients as u64;
            if balance.max_over_mean_after > 1.1 {
                problems.push(format!("the load is not even: {:?}", balance.load_after));
            }
            // How long clients wait is shown, and not judged: no node of a simulated world is ever busy.
            if balance.wait_ms_after.is_none() {
                problems.push("no client was answered".to_owned());
            }
            demo.balance = Some(balance);
        }
        Err(panic) => problems.push(said(panic.as_ref())),
    }
    demo.digest_match = problems.is_empty();
    demo.conclude(&problems);
    demo
}

/// What came of one world.
struct Played {
    /// Connections at each node when everybody has begun, and the load was evened or not.
    load: Vec<usize>,
    moved: usize,
    /// How long each download took.
    waited_ms: Vec<f64>,
    resets: usize,
}

/// Panics if the world finds anything wrong: an octet, a RST, a second owner.
fn play(clients: usize, seed: u64, evened: bool) -> Played {
    let mut world = World::new(seed, false);
    let narrow = Quality { octets_per_second: Some(RATE), queue: 256 << 10, ..Quality::default() };
    let attachments = (0..3).map(|_| attachment("node", narrow.clone())).collect();
    let nodes = world.attach_group(&GroupPlan { attachments, ..group() }, Operation::default());
    let mut begun = Vec::new();
    let mut places = Vec::new();
    for nth in 0..clients as u64 {
        let mut machine = client(&mut world, false);
        let task = Task::Exchange { up: 0, down: DOWNLOAD, order: Order::ServerFirst };
        let mut one = talk(seed << 16 | nth, EXCHANGE, task);
        one.script.start = Instant::from_millis(100 + nth * 300 / clients as u64);
        begun.push(one.script.start);
        machine.talks = vec![one];
        let wide = Quality { octets_per_second: None, ..quality() };
        places.push(world.attach(machine, Sender::Ours, attachment("client", wide)));
    }
    world.run_for(EVENED);
    if evened {
        world.rebalance(nodes[0]);
        while !world.is_settled() {
            assert!(world.step(), "something will happen");
        }
    }
    let load = world.statuses().iter().map(|status| status.connections).collect();
    let mut ended = vec![None; clients];
    let limit = world.now + PATIENCE;
    while ended.iter().any(Option::is_none) {
        assert!(world.now < limit && world.step(), "every download ends");
        for (end, place) in ended.iter_mut().zip(&places) {
            if end.is_none() && world.host(*place).talks[0].is_over() {
                *end = Some(world.now);
            }
        }
    }
    let waited = begun.iter().zip(&ended).filter_map(|(from, to)| Some(from.since((*to)?)));
    Played {
        load,
        moved: usize::try_from(world.tally().handoffs).unwrap_or(usize::MAX),
        waited_ms: waited.map(|waited| waited.as_secs_f64() * 1e3).collect(),
        resets: world.watch.resets.len(),
    }
}
