//! The fallback for machines that cannot make namespaces or TAPs: the same nodes in the simulated world.

use core::net::SocketAddrV6;
use core::time::Duration;
use std::panic::{AssertUnwindSafe, catch_unwind};

use ferry_node::{Optimise, Placement, PlainSource};
use ferry_stack::Instant;
use ferry_stack::tcp::Config;
use ferry_tests::aware::Aware;
use ferry_tests::channel::Manner;
use ferry_tests::link::Quality;
use ferry_tests::machine::Machine;
use ferry_tests::seeds::Tally;
use ferry_tests::serve::{ECHO, EXCHANGE, Order};
use ferry_tests::stack::{Plain, Stack};
use ferry_tests::talk::{Script, Talk, Task};
use ferry_tests::watch::Sender;
use ferry_tests::world::{Attachment, GroupPlan, Operation, SERVICE_ADDRESS, World};

use crate::analysis::Spread;
use crate::demo::{ANY_MOMENT, CRASHES, LOAD_BALANCING, NAMES, OPTIMISED, usual_handoffs};
use crate::link::Profile;
use crate::report::{Demo, median};

mod any_moment;
mod load_balancing;

const MTU: u16 = 1500;
/// Milliseconds of virtual time between two handoffs.
const INTERVAL: u64 = 100;
/// Handoffs of one world: it remembers every octet, so that a long demo is cut into several.
const AT_ONCE: usize = 40;
const UPLOAD: u64 = 4 << 20;
const LINK: Profile =
    Profile { delay_us: 1000, rate_mbit: 100, queue_bytes: 256 << 10, loss: 0.0, seed: 0, ..Profile::GOOD };

/// Runs the demo called `name`, or all, until so many connections have moved; by default as many as it has in mind.
pub fn run(name: Option<&str>, handoffs: Option<usize>, seed: u64) -> Vec<Demo> {
    let chosen = NAMES.into_iter().filter(|known| name.is_none_or(|name| name == *known));
    let play = |name| {
        let handoffs = handoffs.unwrap_or_else(|| usual_handoffs(name));
        match name {
            ANY_MOMENT => any_moment::run(handoffs, seed),
            LOAD_BALANCING => load_balancing::run(handoffs, seed),
            _ if CRASHES.contains(&name) => not_here(name),
            _ => demo(name, handoffs, seed),
        }
    };
    // Those that cannot be played here are told of only if they were asked for.
    chosen.filter(|known| name.is_some() || !CRASHES.contains(known)).map(play).collect()
}

/// What is shown of the death of processes needs processes.
fn not_here(name: &'static str) -> Demo {
    let mut demo = Demo::unfinished(name, "none".to_owned());
    demo.world = "simulated";
    demo.conclude(&["processes are killed in network namespaces only".to_owned()]);
    demo
}

fn demo(name: &'static str, handoffs: usize, seed: u64) -> Demo {
    let mut demo = Demo::unfinished(name, "a client with our own TCP".to_owned());
    (demo.world, demo.interval_ms, demo.seed, demo.link) = ("simulated", INTERVAL, seed, Some(LINK));
    let (mut worlds, mut gaps, mut rates, mut plain) = (seed.., Vec::new(), Vec::new(), Vec::new());
    let aware = name == OPTIMISED;
    if aware {
        demo.client += " and Mobile IPv6";
        demo.mode = name;
        demo.packets_straight_from_node = Some(0);
    }
    let mut problems = Vec::new();
    while demo.handoffs < handoffs.max(1) && problems.is_empty() {
        let seed = worlds.next().unwrap_or(seed);
        let some = (handoffs - demo.handoffs.min(handoffs)).clamp(1, AT_ONCE);
        match catch_unwind(AssertUnwindSafe(|| {
            (play(seed, some, false, aware), play(seed, some, true, aware))
        })) {
            Ok((without, with)) => {
                demo.handoffs += usize::try_from(with.tally.handoffs).unwrap_or(usize::MAX);
                demo.bytes += with.tally.octets;
                demo.resets += with.resets;
                gaps.extend(with.gaps_ms);
                rates.push(with.mbit);
                plain.push(without.mbit);
                if let Some(straight) = &mut demo.packets_straight_from_node {
                    *straight += with.straight;
                    if with.straight == 0 {
                        problems.push(format!("with seed {seed} nothing went straight"));
                    }
                }
                if with.tally.handoffs == 0 {
                    problems.push(format!("with seed {seed} no connection moved"));
                }
            }
            Err(panic) => problems.push(format!("with seed {seed}: {}", said(panic.as_ref()))),
        }
    }
    demo.digest_match = problems.is_empty();
    (demo.gap_ms, demo.goodput_mbit, demo.baseline_mbit) = (Spread::of(gaps), median(&rates), median(&plain));
    demo.conclude(&problems);
    demo
}

/// What came of one world.
struct Played {
    tally: Tally,
    gaps_ms: Vec<f64>,
    resets: usize,
    mbit: f64,
    /// Segments that nodes sent with a Home Address option.
    straight: u64,
}

/// A download and an upload, with about so many handoffs or with none. Panics if the world finds anything wrong:
/// an octet, a RST, a second owner.
#[allow(clippy::cast_precision_loss)] // Octets of a transfer.
fn play(seed: u64, handoffs: usize, moving: bool, aware: bool) -> Played {
    let mut world = World::new(seed, false);
    world.silences.on = true;
    let every = moving.then_some(INTERVAL / 2..=INTERVAL * 3 / 2);
    world.attach_group(&group(), Operation { every, in_turn: true, ..Operation::default() });
    let download = handoffs as u64 * INTERVAL * LINK.rate_mbit * 125;
    let exchange = Task::Exchange { up: 0, down: download, order: Order::ServerFirst };
    let mut machine = client(&mut world, aware);
    machine.talks = vec![talk(seed, EXCHANGE, exchange), talk(seed + 1, ECHO, Task::Echo(UPLOAD))];
    world.attach(machine, Sender::Ours, attachment("client", quality()));
    world.run(Duration::from_hours(1));
    let way = Duration::from_millis(500);
    Played {
        tally: world.tally(),
        gaps_ms: world.silences.gaps(way).iter().map(|gap| gap.as_secs_f64() * 1e3).collect(),
        resets: world.watch.resets.len(),
        straight: world.statuses().iter().map(|status| status.counters.optimised).sum(),
        mbit: (download + UPLOAD) as f64 * 8e-3 / world.now.millis().max(1) as f64,
    }
}

fn group() -> GroupPlan {
    let near = || attachment("node", Quality::default());
    GroupPlan {
        attachments: vec![near(), near(), near()],
        offload: vec![true; 3],
        placement: Placement::Local,
        optimise: Optimise::Auto,
        plain_source: PlainSource::Auto,
        tcp: Config::default(),
        reluctance: 0,
        manner: Manner::default(),
        www: None,
    }
}

fn client(world: &mut World, aware: bool) -> Machine {
    let secret = world.rng.secret();
    let (interface, config) = (world.next_interface(MTU), Config::default());
    let stack: Box<dyn Stack> = if aware {
        Box::new(Aware::new(interface, config, secret, false))
    } else {
        Box::new(Plain::new(interface, config, secret, false))
    };
    Machine::new(stack)
}

fn talk(key: u64, port: u16, task: Task) -> Talk {
    Talk::new(Script {
        start: Instant::from_millis(100),
        server: SocketAddrV6::new(SERVICE_ADDRESS, port, 0, 0),
        task,
        key,
        write_size: 1 << 16,
        read_size: 1 << 16,
        write_pause: Duration::ZERO,
        read_pause: Duration::ZERO,
        deaf: Duration::ZERO,
        idle: Duration::ZERO,
        abort_after: None,
        again: None,
    })
}

fn attachment(name: &str, quality: Quality) -> Attachment {
    let (up, down) = (quality.clone(), quality);
    Attachment { name: name.to_owned(), up, down, mtu: MTU, path_mtu: MTU, tap: false }
}

fn quality() -> Quality {
    Quality {
        delay: Duration::from_micros(LINK.delay_us),
        octets_per_second: Some(LINK.rate_mbit * 125_000),
        queue: LINK.queue_bytes,
        ..Quality::default()
    }
}

fn said(panic: &(dyn core::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_simulated_demo_moves_connections_and_loses_nothing() {
        let demos = run(None, Some(5), 1);
        assert_eq!(demos.len(), NAMES.len() - CRASHES.len());
        for name in CRASHES {
            assert!(run(Some(name), Some(5), 1).iter().all(|demo| !demo.ok), "{name} has shown nothing");
        }
        for demo in demos {
            assert!(demo.ok && demo.handoffs >= 5 && demo.resets == 0, "{demo}");
            let told = demo.gap_ms.is_some() || demo.moments.is_some() || demo.balance.is_some();
            assert!(demo.bytes > 1 << 19 && told, "{demo}");
        }
    }
}
