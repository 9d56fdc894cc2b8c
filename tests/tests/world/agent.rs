//! Groups whose service address is with a home agent of its own.

use super::*;

/// A group whose service address is with a home agent of its own.
fn with_agent(wants: Wants) -> Plan {
    Plan { agent: true, mended: 5_000..=30_000, ..plan(wants) }
}

#[test]
fn connections_cross_with_a_home_agent_of_its_own() {
    let wants = Wants { octets: 200_000, ..Wants::default() };
    let plan = Plan { aware: 400, ..with_agent(wants) };
    scenario("agent::connections_cross_with_a_home_agent_of_its_own", 80, &plan);
}

#[test]
fn connections_cross_with_a_home_agent_over_a_bad_path_that_filters_sources() {
    let wants = Wants { faults: true, octets: 100_000, ..Wants::default() };
    let plan = Plan { aware: 300, peer_faults: true, filtered_sources: true, ..with_agent(wants) };
    scenario("agent::connections_cross_with_a_home_agent_over_a_bad_path_that_filters_sources", 80, &plan);
}

#[test]
fn connections_survive_home_agents_that_start_anew() {
    let wants = Wants { slow: true, octets: 200_000, ..Wants::default() };
    let plan = Plan { aware: 400, agent_restarts: 3, ..with_agent(wants) };
    scenario("agent::connections_survive_home_agents_that_start_anew", 60, &plan);
}

#[test]
fn the_service_address_outlives_contact_nodes() {
    let wants = Wants { slow: true, octets: 200_000, ..Wants::default() };
    let plan = with_agent(wants);
    let operation = Operation { dead_for_good: true, ..plan.operation.clone() };
    let plan = Plan { operation, aware: 400, contact_losses: 2, nodes: 4..=5, ..plan };
    let name = "agent::the_service_address_outlives_contact_nodes";
    let mut lost = 0;
    let tally = seeds::run("world", name, 80, |seed, log| {
        let (mut world, _) = run(&plan, seed, log);
        lost += world.lost_nodes;
        let tally = world.tally();
        if tally.hung == 0 {
            world.everything_is_forgotten_in_the_end();
        }
        tally
    });
    assert!(tally.connections > 100 && lost > 40 || seeds::replaying(), "{lost} lost, {tally:?}");
}

#[test]
fn a_contact_node_that_is_drained_gives_its_role_away() {
    let wants = Wants { slow: true, octets: 200_000, ..Wants::default() };
    let plan = Plan { drain: true, peer_faults: true, flaps: 2, ..with_agent(wants) };
    scenario("agent::a_contact_node_that_is_drained_gives_its_role_away", 60, &plan);
}
