//! Output commit, and recovery from copies: an owner, its backups and a client, at the level of the control block. A
//! crash at any moment loses nothing, doubles nothing, and contradicts nothing that the client saw.

mod commit {
    pub(crate) mod draw;
    pub(crate) mod judge;
    pub(crate) mod owner;
    pub(crate) mod session;
    pub(crate) mod world;
}

use std::collections::BTreeSet;

use commit::draw::{self, Wants};
use commit::world::World;
use ferry_stack::tcp::Commit;
use ferry_tests::seeds;

/// Plays it for many seeds; gives back the states from which connections went on.
fn scenario(name: &str, seeds: u64, wants: Wants) -> BTreeSet<String> {
    let mut states = BTreeSet::new();
    let tally = seeds::run("commit", name, seeds, |seed, log| {
        let mut world = World::new(draw::plan(seed, wants), log);
        world.run();
        states.append(&mut world.restored);
        world.tally()
    });
    assert!(seeds::replaying() || tally.handoffs > seeds / 2, "it recovered {} times only", tally.handoffs);
    states
}

fn all_states(states: &BTreeSet<String>) -> bool {
    // RFC 9293 section 3.3.2, those of a connection that was opened passively and is not over.
    let names = "SYN-RECEIVED ESTABLISHED FIN-WAIT-1 FIN-WAIT-2 CLOSE-WAIT CLOSING LAST-ACK TIME-WAIT";
    names.split(' ').all(|name| states.contains(name))
}

#[test]
fn a_strict_connection_survives_crashes_at_any_moment() {
    scenario("a_strict_connection_survives_crashes_at_any_moment", 600, Wants::of(Commit::Strict));
}

#[test]
fn a_regenerating_connection_survives_crashes_at_any_moment() {
    scenario("a_regenerating_connection_survives_crashes_at_any_moment", 600, Wants::of(Commit::Regenerate));
}

#[test]
fn short_connections_survive_crashes_while_they_open_and_close() {
    for commit in [Commit::Strict, Commit::Regenerate] {
        let wants = Wants { short: true, ..Wants::of(commit) };
        let states = scenario("short_connections_survive_crashes_while_they_open_and_close", 500, wants);
        assert!(seeds::replaying() || all_states(&states), "{commit:?}: only {states:?} were restored");
    }
}

#[test]
fn a_crash_at_every_event_of_a_short_connection_is_survived() {
    for commit in [Commit::Strict, Commit::Regenerate] {
        let mut states = BTreeSet::new();
        for seed in 0..30 {
            let plan = draw::plan(seed, Wants { short: true, ..Wants::of(commit) });
            let mut calm = World::new(draw::without_crashes(plan.clone()), false);
            calm.run();
            for event in 1..calm.events {
                let mut world = World::new(draw::crash_at(plan.clone(), event), false);
                world.name = format!("{commit:?}, seed {seed}, crash at event {event}");
                world.run();
                states.append(&mut world.restored);
            }
        }
        assert!(states.len() >= 6, "{commit:?}: only {states:?} were restored");
    }
}
