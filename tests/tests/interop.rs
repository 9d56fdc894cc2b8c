//! TCPs of others, as clients and as servers, while our end of every connection goes to and fro between two hosts. Bulk in
//! both directions, every octet checked, and every order of closing. (The kernel of this machine: `linux.rs`.)

use core::ops::RangeInclusive;
use core::time::Duration;

use ferry_stack::Instant;
use ferry_stack::tcp::Config;
use ferry_tests::draw::{self, Kind, Wants};
use ferry_tests::machine::Machine;
use ferry_tests::seeds::{self, Tally};
use ferry_tests::serve::{ECHO, EXCHANGE};
use ferry_tests::shuttle::{Manners, Shuttle};
use ferry_tests::stack::Stack;
use ferry_tests::talk::Talk;
use ferry_tests::watch::Sender;
use ferry_tests::world::World;
use ferry_tests::{lwip, rng::Rng};

/// A scenario.
#[derive(Clone, Debug)]
struct Plan {
    /// Whose TCP the other one is.
    other: Kind,
    /// Whether the other one is the client.
    is_client: bool,
    wants: Wants,
    /// Events at our end from one crossing to the next.
    every: RangeInclusive<u64>,
}

const BULK: Wants = Wants {
    faults: false,
    narrow: false,
    swallows: false,
    marks: true,
    slow: false,
    aborts: false,
    octets: 1 << 20,
    at_least: 200_000,
    delay: Duration::from_millis(20),
    files: &[],
    mobility_loss: false,
    idle: 10_000,
};

const FAULTY: Wants = Wants { faults: true, octets: 150_000, at_least: 50_000, ..BULK };

/// Our end, in two places.
fn ours(world: &World, rng: &mut Rng, every: RangeInclusive<u64>, mtu: u16) -> Box<dyn Stack> {
    let drawn = draw::config(rng, mtu);
    // What waits to be sent crosses each time.
    let config = Config { send_buffer: drawn.send_buffer.min(64 << 10), ..drawn };
    let manners = Manners { config, offload: rng.chance(500), every, once: false };
    Box::new(Shuttle::new(&world.next_interface(mtu), manners, rng.fork()))
}

fn attach(world: &mut World, plan: &Plan, is_client: bool, mtu: u16) -> usize {
    let name = if is_client { "client" } else { "server" };
    let mut rng = world.rng.fork();
    let is_other = plan.is_client == is_client;
    let tap = !is_other && rng.chance(300);
    let attachment = draw::attachment(&mut rng, name, &plan.wants, mtu, tap);
    let stack = if is_other {
        draw::stack(&mut rng, plan.other, world.next_interface(mtu))
    } else {
        ours(world, &mut rng, plan.every.clone(), mtu)
    };
    world.attach(Machine::new(stack), if is_other { Sender::Foreign } else { Sender::Ours }, attachment)
}

fn play(plan: &Plan, seed: u64, log: bool) -> Tally {
    let mut world = World::new(seed, log);
    let mtu = world.rng.pick(&[1280, 1500, 1500, 1500]);
    let server = attach(&mut world, plan, false, mtu);
    let client = attach(&mut world, plan, true, mtu);
    for port in [ECHO, EXCHANGE] {
        world.host(server).stack.listen(port);
    }
    let mut rng = world.rng.fork();
    for script in draw::every_order(&mut rng, World::address_of(server), &plan.wants, Instant::ZERO) {
        world.say(|| format!("{script:?}"));
        world.host(client).talks.push(Talk::new(script));
    }
    if plan.wants.faults {
        world.mend_at(Instant::from_millis(rng.within(1_000..=60_000)));
    }
    // smoltcp repairs one loss in each timeout.
    world.run(Duration::from_hours(24));
    world.tally()
}

fn scenario(name: &str, seeds: u64, plan: &Plan) {
    let tally = seeds::run("interop", name, seeds, |seed, log| play(plan, seed, log));
    assert_eq!(tally.connections + tally.hung, 4 * tally.seeds, "and one of each was given up: {tally:?}");
    if !seeds::replaying() {
        assert!(
            !plan.wants.faults || (tally.lost > 0 && tally.repeated > 0 && tally.corrupted > 0),
            "{tally:?}"
        );
        assert!(tally.handoffs > 100 * seeds, "{tally:?}");
    }
}

fn with_smoltcp(name: &str, is_client: bool, wants: Wants, every: RangeInclusive<u64>) {
    scenario(name, 20, &Plan { other: Kind::Smoltcp, is_client, wants, every });
}

fn with_lwip(name: &str, is_client: bool, wants: Wants, every: RangeInclusive<u64>) {
    if lwip::is_here(name) {
        scenario(name, 20, &Plan { other: Kind::Lwip, is_client, wants, every });
    }
}

#[test]
fn smoltcp_as_a_client_notices_nothing() {
    with_smoltcp("smoltcp_as_a_client_notices_nothing", true, BULK, 1..=100);
}

#[test]
fn smoltcp_as_a_server_notices_nothing() {
    with_smoltcp("smoltcp_as_a_server_notices_nothing", false, BULK, 1..=100);
}

#[test]
fn smoltcp_as_a_client_notices_nothing_over_a_bad_path() {
    with_smoltcp("smoltcp_as_a_client_notices_nothing_over_a_bad_path", true, FAULTY, 1..=1);
}

#[test]
fn smoltcp_as_a_server_notices_nothing_over_a_bad_path() {
    with_smoltcp("smoltcp_as_a_server_notices_nothing_over_a_bad_path", false, FAULTY, 1..=1);
}

#[test]
fn lwip_as_a_client_notices_nothing() {
    with_lwip("lwip_as_a_client_notices_nothing", true, BULK, 1..=100);
}

#[test]
fn lwip_as_a_server_notices_nothing() {
    with_lwip("lwip_as_a_server_notices_nothing", false, BULK, 1..=100);
}

#[test]
fn lwip_as_a_client_notices_nothing_over_a_bad_path() {
    with_lwip("lwip_as_a_client_notices_nothing_over_a_bad_path", true, FAULTY, 1..=1);
}

#[test]
fn lwip_as_a_server_notices_nothing_over_a_bad_path() {
    with_lwip("lwip_as_a_server_notices_nothing_over_a_bad_path", false, FAULTY, 1..=1);
}
