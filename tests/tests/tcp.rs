//! The plain TCP engine over bad links: host to host, and host to a foreign peer, without any handoff.

use core::time::Duration;

use ferry_stack::Instant;
use ferry_tests::draw::{self, Kind, Wants};
use ferry_tests::machine::Machine;
use ferry_tests::seeds::{self, Tally};
use ferry_tests::serve::{DISCARD, ECHO, EXCHANGE};
use ferry_tests::talk::Talk;
use ferry_tests::watch::Sender;
use ferry_tests::world::World;

/// What a scenario is about.
#[derive(Clone, Copy, Debug)]
struct Plan {
    client: Kind,
    server: Kind,
    talks: u64,
    wants: Wants,
}

fn plan(wants: Wants) -> Plan {
    Plan { client: Kind::Ours, server: Kind::Ours, talks: 3, wants }
}

fn play(plan: Plan, seed: u64, log: bool) -> Tally {
    let mut world = World::new(seed, log);
    let mtu = world.rng.pick(&[1280, 1500, 1500, 1500, 4000, 9000]);
    let server = attach(&mut world, "server", plan.server, plan, mtu);
    let client = attach(&mut world, "client", plan.client, plan, mtu);
    for port in [ECHO, DISCARD, EXCHANGE] {
        world.host(server).stack.listen(port);
    }
    let mut rng = world.rng.fork();
    for _ in 0..rng.within(1..=plan.talks) {
        let script = draw::script(&mut rng, World::address_of(server), &plan.wants, Instant::ZERO);
        world.say(|| format!("{script:?}"));
        world.host(client).talks.push(Talk::new(script));
    }
    if plan.wants.faults {
        world.mend_at(Instant::from_millis(rng.within(1_000..=60_000)));
    }
    world.run(Duration::from_secs(1000));
    world.tally()
}

fn attach(world: &mut World, name: &str, kind: Kind, plan: Plan, mtu: u16) -> usize {
    let mut rng = world.rng.fork();
    let tap = kind == Kind::Ours && rng.chance(300);
    let attachment = draw::attachment(&mut rng, name, &plan.wants, mtu, tap);
    let stack = draw::stack(&mut rng, kind, world.next_interface(mtu));
    let sender = if kind == Kind::Ours { Sender::Ours } else { Sender::Foreign };
    world.attach(Machine::new(stack), sender, attachment)
}

fn scenario(name: &str, seeds: u64, plan: Plan) -> Tally {
    let tally = seeds::run("tcp", name, seeds, |seed, log| play(plan, seed, log));
    assert!(tally.connections > 0 && tally.octets > 0);
    let faulty = tally.lost > 0 && tally.repeated > 0 && tally.corrupted > 0;
    assert!(seeds::replaying() || !plan.wants.faults || faulty, "{tally:?}");
    let swallowed = tally.swallowed > seeds;
    assert!(seeds::replaying() || !plan.wants.swallows || swallowed, "{tally:?}");
    tally
}

#[test]
fn octets_arrive_over_a_clean_path() {
    scenario("octets_arrive_over_a_clean_path", 100, plan(Wants::default()));
}

#[test]
fn octets_arrive_over_a_bad_path() {
    let wants = Wants { faults: true, octets: 300_000, ..Wants::default() };
    scenario("octets_arrive_over_a_bad_path", 150, plan(wants));
}

#[test]
fn octets_arrive_over_a_narrow_path() {
    let wants = Wants { faults: true, narrow: true, octets: 300_000, ..Wants::default() };
    let tally = scenario("octets_arrive_over_a_narrow_path", 100, plan(wants));
    assert!(seeds::replaying() || tally.too_big > 0);
}

#[test]
fn octets_arrive_where_long_packets_vanish() {
    let wants = Wants { swallows: true, octets: 300_000, ..Wants::default() };
    scenario("octets_arrive_where_long_packets_vanish", 100, plan(wants));
}

#[test]
fn octets_arrive_over_a_bad_path_where_long_packets_vanish() {
    let wants = Wants { swallows: true, faults: true, slow: true, octets: 200_000, ..Wants::default() };
    scenario("octets_arrive_over_a_bad_path_where_long_packets_vanish", 100, plan(wants));
}

#[test]
fn octets_arrive_at_slow_readers() {
    let wants = Wants { slow: true, octets: 100_000, ..Wants::default() };
    scenario("octets_arrive_at_slow_readers", 100, plan(wants));
}

#[test]
fn octets_arrive_at_slow_readers_over_a_bad_path() {
    let wants = Wants { slow: true, faults: true, octets: 100_000, ..Wants::default() };
    scenario("octets_arrive_at_slow_readers_over_a_bad_path", 100, plan(wants));
}

#[test]
fn clients_may_give_up() {
    let wants = Wants { aborts: true, faults: true, octets: 100_000, ..Wants::default() };
    scenario("clients_may_give_up", 100, Plan { talks: 6, ..plan(wants) });
}

#[test]
fn a_foreign_client_is_served() {
    let wants = Wants { octets: 200_000, ..Wants::default() };
    scenario("a_foreign_client_is_served", 100, Plan { client: Kind::Smoltcp, ..plan(wants) });
}

#[test]
fn a_foreign_client_is_served_over_a_bad_path() {
    let wants = Wants { faults: true, slow: true, octets: 100_000, ..Wants::default() };
    scenario(
        "a_foreign_client_is_served_over_a_bad_path",
        100,
        Plan { client: Kind::Smoltcp, ..plan(wants) },
    );
}

#[test]
fn a_foreign_server_serves_us_over_a_bad_path() {
    let wants = Wants { faults: true, slow: true, octets: 100_000, ..Wants::default() };
    scenario(
        "a_foreign_server_serves_us_over_a_bad_path",
        100,
        Plan { server: Kind::Smoltcp, ..plan(wants) },
    );
}
