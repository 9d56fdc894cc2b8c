//! The group of nodes that ships, with clients and a network, in the simulated world.

use core::net::SocketAddrV6;
use core::time::Duration;
use std::path::PathBuf;
use std::sync::OnceLock;

use ferry_node::{Optimise, Placement, PlainSource};
use ferry_stack::Instant;
use ferry_stack::tcp::Config;
use ferry_stack::tcp::SynCookies::{Always, WhenFull};
use ferry_tests::draw::{self, Kind, Wants};
use ferry_tests::flood::Flood;
use ferry_tests::link::Quality;
use ferry_tests::machine::Machine;
use ferry_tests::pattern;
use ferry_tests::rng::Rng;
use ferry_tests::seeds::{self, Tally};
use ferry_tests::serve::EXCHANGE;
use ferry_tests::talk::{Script, Talk};
use ferry_tests::watch::Sender;
use ferry_tests::world::{Attachment, GroupPlan, Operation, SERVICE_ADDRESS, World};

#[path = "world/agent.rs"]
mod agent;
#[path = "world/deaths.rs"]
mod deaths;

/// What a scenario is about.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent property of a scenario")]
struct Plan {
    wants: Wants,
    clients: u64,
    talks: u64,
    foreign: u16,
    /// Clients that understand Mobile IPv6, of a thousand.
    aware: u16,
    operation: Operation,
    peer_faults: bool,
    reluctance: u16,
    placements: Vec<Placement>,
    flaps: u64,
    drain: bool,
    keep_alive: bool,
    /// Every handshake is kept in a cookie only, and there is a flood of them.
    flood: bool,
    nodes: core::ops::RangeInclusive<u64>,
    /// No node but the contact node can send from the service address: the network filters sources.
    filtered_sources: bool,
    /// The service address is with a home agent of its own, not with the contact node.
    agent: bool,
    /// How often that starts anew.
    agent_restarts: u64,
    /// How many contact nodes are lost.
    contact_losses: u64,
    /// Each client uses one port for all its connections, one after the other.
    one_port: bool,
    /// When the faults end, in milliseconds.
    mended: core::ops::RangeInclusive<u64>,
}

fn plan(wants: Wants) -> Plan {
    Plan {
        wants,
        clients: 2,
        talks: 2,
        foreign: 300,
        aware: 0,
        operation: Operation { every: Some(5..=300), all: 100, ..Operation::default() },
        peer_faults: false,
        reluctance: 0,
        placements: vec![Placement::Local, Placement::RoundRobin, Placement::LeastConnections],
        flaps: 0,
        drain: false,
        keep_alive: false,
        flood: false,
        nodes: 2..=4,
        filtered_sources: false,
        agent: false,
        agent_restarts: 0,
        contact_losses: 0,
        one_port: false,
        mended: 3_000..=20_000,
    }
}

fn play(plan: &Plan, seed: u64, log: bool) -> Tally {
    let (mut world, _) = run(plan, seed, log);
    let tally = world.tally();
    if !plan.wants.aborts && tally.hung == 0 {
        world.everything_is_forgotten_in_the_end();
    }
    tally
}

fn run(plan: &Plan, seed: u64, log: bool) -> (World, Placement) {
    let mut world = World::new(seed, log);
    let mut rng = world.rng.fork();
    let mtu = rng.pick(&[1320, 1500, 1500, 1500, 4000, 9000]);
    let mended = Instant::from_millis(rng.within(plan.mended.clone()));
    let operation = operation(&mut rng, plan, mended);
    let group = group(&mut rng, plan, mtu);
    if plan.agent {
        let attachment = draw::attachment(&mut rng, "agent", &plan.wants, mtu, false);
        let attachment = if plan.filtered_sources { sound(attachment) } else { attachment };
        world.attach_home_agent(Attachment { path_mtu: attachment.path_mtu.max(1320), ..attachment });
    }
    world.attach_group(&group, operation);
    for nth in 0..rng.within(1..=plan.clients) {
        attach_client(&mut world, &mut rng, plan, mtu, nth);
    }
    if plan.flood {
        attach_flood(&mut world, &mut rng, plan, mtu);
    }
    world.mend_at(mended);
    // A small buffer on a long path takes its time.
    world.run(Duration::from_hours(1));
    (world, group.placement)
}

fn operation(rng: &mut Rng, plan: &Plan, mended: Instant) -> Operation {
    let before = mended.millis();
    let flaps =
        (0..plan.flaps).map(|_| (Instant::from_millis(rng.within(100..=before)), rng.millis(1..=3_000)));
    let flaps = flaps.collect();
    let drain = plan.drain.then(|| (rng.index(2), Instant::from_millis(rng.within(100..=before))));
    let mut times = |count| (0..count).map(|_| Instant::from_millis(rng.within(2_000..=before))).collect();
    let (agent_restarts, contact_losses) = (times(plan.agent_restarts), times(plan.contact_losses));
    Operation { flaps, drain, agent_restarts, contact_losses, ..plan.operation.clone() }
}

fn group(rng: &mut Rng, plan: &Plan, mtu: u16) -> GroupPlan {
    let nodes = rng.within(plan.nodes.clone());
    let attachments = (0..nodes).map(|_| {
        let tap = rng.chance(500);
        let attachment = draw::attachment(rng, "", &plan.wants, mtu, tap);
        // The way between two nodes carries the smallest packet that IPv6 allows in a tunnel.
        Attachment { path_mtu: attachment.path_mtu.max(1320), ..attachment }
    });
    let attachments: Vec<_> = attachments.collect();
    let attachments =
        if plan.filtered_sources { attachments.into_iter().map(sound).collect() } else { attachments };
    let offload = (0..nodes).map(|_| rng.chance(500)).collect();
    let tcp = draw::config(rng, mtu);
    let keep_alive = match tcp.keep_alive {
        // Nothing comes by way of a home agent that has started anew before the next renewal: a single server behind a
        // router that is gone for longer than its patience resets, too.
        _ if plan.agent_restarts > 0 => None,
        None if plan.keep_alive => Some(keep_alive(rng)),
        drawn => drawn,
    };
    GroupPlan {
        attachments,
        offload,
        placement: rng.pick(&plan.placements),
        optimise: if plan.aware > 0 { Optimise::Auto } else { Optimise::Never },
        plain_source: if plan.filtered_sources { PlainSource::Never } else { PlainSource::Auto },
        tcp: Config { keep_alive, syn_cookies: if plan.flood { Always } else { WhenFull }, ..tcp },
        reluctance: plan.reluctance,
        manner: draw::manner(rng, plan.peer_faults),
        www: (!plan.wants.files.is_empty()).then(|| www(plan.wants.files)),
    }
}

/// The same link, on which no bit flips: who relays a packet out of a tunnel does not look at its checksum.
fn sound(attachment: Attachment) -> Attachment {
    let sound = |quality| Quality { corruption: 0, ..quality };
    Attachment { up: sound(attachment.up), down: sound(attachment.down), ..attachment }
}

/// A folder with files of these sizes, made once.
fn www(files: &[u64]) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let make = || {
        let folder = std::env::temp_dir().join(format!("ferry-world-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder can be made");
        for (name, size) in files.iter().enumerate() {
            let octets = pattern::octets(name as u64, 0, usize::try_from(*size).unwrap_or(usize::MAX));
            std::fs::write(folder.join(name.to_string()), octets).expect("a file can be written");
        }
        folder
    };
    FOLDER.get_or_init(make).clone()
}

fn keep_alive(rng: &mut Rng) -> ferry_stack::tcp::KeepAlive {
    ferry_stack::tcp::KeepAlive { idle: rng.millis(100..=2_000), interval: rng.millis(100..=1_000), count: 9 }
}

fn attach_client(world: &mut World, rng: &mut Rng, plan: &Plan, mtu: u16, nth: u64) {
    // It ignores Packet Too Big.
    let kind = match rng.chance(plan.foreign) {
        true if !plan.wants.narrow => Kind::Smoltcp,
        _ if rng.chance(plan.aware) => match rng.pick(&[Kind::Aware, Kind::Aware, Kind::Filtered]) {
            // Where a node is lost nobody is sure that a connection is over, and says so to a client that did not hear
            // the last acknowledgement.
            Kind::Filtered if plan.contact_losses > 0 => Kind::Aware,
            kind => kind,
        },
        _ => Kind::Ours,
    };
    let tap = kind == Kind::Ours && rng.chance(300);
    let attachment = draw::attachment(rng, &format!("client{nth}"), &plan.wants, mtu, tap);
    let stack = draw::stack(rng, kind, world.next_interface(mtu));
    let sender = if kind == Kind::Smoltcp { Sender::Foreign } else { Sender::Ours };
    let mut machine = Machine::new(stack);
    for nth in 0..rng.within(1..=plan.talks) {
        let script = draw::script(rng, SERVICE_ADDRESS, &plan.wants, Instant::from_millis(50));
        let script = match machine.talks.first().filter(|_| plan.one_port).map(|first| &first.script) {
            Some(&Script { server, task, .. }) => {
                Script { server, task, again: usize::try_from(nth).ok().map(|nth| nth - 1), ..script }
            }
            None => script,
        };
        world.say(|| format!("{script:?}"));
        machine.talks.push(Talk::new(script));
    }
    world.attach(machine, sender, attachment);
}

fn attach_flood(world: &mut World, rng: &mut Rng, plan: &Plan, mtu: u16) {
    let attachment = draw::attachment(rng, "flood", &plan.wants, mtu, false);
    let target = SocketAddrV6::new(SERVICE_ADDRESS, EXCHANGE, 0, 0);
    let every = Duration::from_micros(rng.within(100..=2_000));
    let flood = Flood::new(world.next_interface(mtu), target, 2_000, every, rng.fork());
    world.attach(Machine::new(Box::new(flood)), Sender::Foreign, attachment);
}

fn scenario(name: &str, seeds: u64, plan: &Plan) -> Tally {
    let tally = seeds::run("world", name, seeds, |seed, log| play(plan, seed, log));
    assert!(tally.connections > 0 && tally.octets > 0);
    if !seeds::replaying() {
        let faulty = tally.lost > 0 && tally.repeated > 0 && tally.corrupted > 0;
        assert!(!plan.wants.faults || faulty, "{tally:?}");
        assert!(!plan.peer_faults || tally.faults > 0, "{tally:?}");
        assert!(!plan.wants.swallows || tally.swallowed > seeds, "{tally:?}");
        assert!(tally.handoffs > seeds / 10, "{tally:?}");
    }
    tally
}

#[test]
fn connections_cross_over_a_clean_path() {
    let wants = Wants { octets: 300_000, ..Wants::default() };
    scenario("connections_cross_over_a_clean_path", 100, &plan(wants));
}

#[test]
fn connections_cross_over_a_bad_path() {
    let wants = Wants { faults: true, octets: 200_000, ..Wants::default() };
    let tally = scenario("connections_cross_over_a_bad_path", 150, &plan(wants));
    assert!(seeds::replaying() || tally.marked > 0, "{tally:?}");
}

#[test]
fn connections_cross_over_a_narrow_path() {
    let wants = Wants { narrow: true, octets: 200_000, ..Wants::default() };
    let tally = scenario("connections_cross_over_a_narrow_path", 100, &plan(wants));
    assert!(seeds::replaying() || tally.too_big > 0);
}

#[test]
fn connections_cross_where_long_packets_vanish() {
    let wants = Wants { swallows: true, octets: 200_000, ..Wants::default() };
    scenario("connections_cross_where_long_packets_vanish", 100, &Plan { foreign: 0, ..plan(wants) });
}

#[test]
fn connections_cross_after_every_event_where_long_packets_vanish() {
    let wants = Wants { swallows: true, faults: true, slow: true, octets: 50_000, ..Wants::default() };
    let operation = Operation { after_every_event: true, ..Operation::default() };
    let plan = Plan { operation, foreign: 0, aware: 300, ..plan(wants) };
    scenario("connections_cross_after_every_event_where_long_packets_vanish", 100, &plan);
}

#[test]
fn connections_of_slow_readers_cross() {
    let wants = Wants { slow: true, octets: 100_000, ..Wants::default() };
    scenario("connections_of_slow_readers_cross", 100, &plan(wants));
}

#[test]
fn connections_that_cookies_opened_in_a_flood_cross() {
    let wants = Wants { faults: true, octets: 50_000, ..Wants::default() };
    let plan = Plan { flood: true, ..plan(wants) };
    // Seed 56: the segment that brings a cookie back is lost between two nodes, and others overtake its copy.
    scenario("connections_that_cookies_opened_in_a_flood_cross", 60, &plan);
}

#[test]
fn many_connections_cross() {
    let wants = Wants { octets: 20_000, ..Wants::default() };
    scenario("many_connections_cross", 50, &Plan { clients: 12, talks: 6, ..plan(wants) });
}

#[test]
fn connections_from_a_port_that_is_used_again_cross() {
    let wants = Wants { faults: true, slow: true, octets: 20_000, idle: 500, ..Wants::default() };
    let operation = Operation { every: Some(1..=40), all: 100, ..Operation::default() };
    let plan = Plan {
        operation,
        one_port: true,
        talks: 6,
        foreign: 0,
        aware: 400,
        mended: 100_000..=200_000,
        ..plan(wants)
    };
    scenario("connections_from_a_port_that_is_used_again_cross", 150, &plan);
}

#[test]
fn connections_cross_after_every_event() {
    let wants = Wants { octets: 100_000, ..Wants::default() };
    let operation = Operation { after_every_event: true, ..Operation::default() };
    scenario("connections_cross_after_every_event", 150, &Plan { operation, ..plan(wants) });
}

#[test]
fn connections_cross_after_every_event_over_a_bad_path() {
    let wants = Wants { faults: true, slow: true, octets: 50_000, ..Wants::default() };
    let operation = Operation { after_every_event: true, ..Operation::default() };
    // Each move acknowledges at once. smoltcp 0.14 takes three such acknowledgements for a loss, and if it was its FIN
    // that was lost, it never sends that again (seed 21).
    let plan = Plan { operation, foreign: 0, peer_faults: true, ..plan(wants) };
    scenario("connections_cross_after_every_event_over_a_bad_path", 150, &plan);
}

#[test]
fn connections_cross_although_messages_are_lost_doubled_and_late() {
    let wants = Wants { octets: 200_000, ..Wants::default() };
    let plan = Plan { peer_faults: true, ..plan(wants) };
    scenario("connections_cross_although_messages_are_lost_doubled_and_late", 150, &plan);
}

#[test]
fn connections_cross_although_links_between_nodes_break() {
    let wants = Wants { octets: 200_000, ..Wants::default() };
    let plan = Plan { flaps: 6, peer_faults: true, ..plan(wants) };
    scenario("connections_cross_although_links_between_nodes_break", 150, &plan);
}

#[test]
fn a_refused_connection_goes_on_where_it_is() {
    let wants = Wants { octets: 200_000, ..Wants::default() };
    let tally =
        scenario("a_refused_connection_goes_on_where_it_is", 100, &Plan { reluctance: 400, ..plan(wants) });
    assert!(seeds::replaying() || tally.refused > 0);
}

#[test]
fn a_drained_node_gives_every_connection_away() {
    let wants = Wants { slow: true, octets: 200_000, ..Wants::default() };
    scenario("a_drained_node_gives_every_connection_away", 100, &Plan { drain: true, ..plan(wants) });
}

#[test]
fn foreign_clients_notice_nothing() {
    let wants = Wants { faults: true, slow: true, octets: 100_000, ..Wants::default() };
    let plan = Plan { foreign: 1000, peer_faults: true, flaps: 2, ..plan(wants) };
    scenario("foreign_clients_notice_nothing", 150, &plan);
}

#[test]
fn idle_connections_cross() {
    let wants = Wants { slow: true, octets: 10_000, ..Wants::default() };
    scenario("idle_connections_cross", 100, &Plan { keep_alive: true, ..plan(wants) });
}

#[test]
fn clients_may_give_up_while_their_connection_crosses() {
    let wants = Wants { aborts: true, faults: true, octets: 100_000, ..Wants::default() };
    let plan = Plan { talks: 6, peer_faults: true, ..plan(wants) };
    scenario("clients_may_give_up_while_their_connection_crosses", 150, &plan);
}

#[test]
fn long_downloads_cross() {
    let wants = Wants { at_least: 500_000, octets: 6 << 20, ..Wants::default() };
    // The foreign client repairs one loss in each timeout.
    scenario("long_downloads_cross", 40, &Plan { foreign: 0, ..plan(wants) });
}

#[test]
fn connections_go_back_and_forth() {
    let wants = Wants { octets: 300_000, ..Wants::default() };
    let operation = Operation { every: Some(1..=20), ..Operation::default() };
    scenario("connections_go_back_and_forth", 60, &Plan { operation, nodes: 2..=2, ..plan(wants) });
}

#[test]
fn connections_go_round_and_round() {
    let wants = Wants { octets: 300_000, ..Wants::default() };
    let operation = Operation { every: Some(10..=50), in_turn: true, ..Operation::default() };
    scenario("connections_go_round_and_round", 100, &Plan { operation, nodes: 3..=6, ..plan(wants) });
}

#[test]
fn downloads_of_files_cross() {
    let files = &[0, 1, 1000, 65_536, 300_000, 1_500_000];
    let wants = Wants { files, octets: 50_000, faults: true, ..Wants::default() };
    scenario("downloads_of_files_cross", 100, &plan(wants));
}

#[test]
fn new_connections_are_placed_in_turn() {
    let wants = Wants { octets: 20_000, delay: Duration::from_millis(20), ..Wants::default() };
    let placements = vec![Placement::RoundRobin, Placement::LeastConnections];
    let plan = Plan { clients: 8, operation: Operation::default(), placements, ..plan(wants) };
    let name = "new_connections_are_placed_in_turn";
    let tally = seeds::run("world", name, 50, |seed, log| {
        let (world, placement) = run(&plan, seed, log);
        let accepted: Vec<_> = world.statuses().iter().map(|status| status.counters.accepted).collect();
        let (least, most) = (accepted.iter().min().unwrap(), accepted.iter().max().unwrap());
        assert_eq!(accepted.iter().sum::<u64>(), world.tally().connections, "{accepted:?}");
        assert!(placement != Placement::RoundRobin || most - least <= 1, "{accepted:?}");
        world.tally()
    });
    assert!(tally.connections > 200 || seeds::replaying());
}

#[test]
fn clients_that_understand_are_answered_straight() {
    let wants = Wants { octets: 300_000, delay: Duration::from_millis(20), ..Wants::default() };
    let plan = Plan { aware: 1000, foreign: 0, ..plan(wants) };
    let name = "clients_that_understand_are_answered_straight";
    let mut optimised = 0;
    let tally = seeds::run("world", name, 100, |seed, log| {
        let (mut world, _) = run(&plan, seed, log);
        optimised += world.statuses().iter().map(|status| status.counters.optimised).sum::<u64>();
        let tally = world.tally();
        world.everything_is_forgotten_in_the_end();
        tally
    });
    assert!(tally.handoffs > 1000 && optimised > 1000 || seeds::replaying(), "{optimised} segments");
}

#[test]
fn clients_of_all_kinds_cross_over_a_bad_path() {
    let wants = Wants { faults: true, slow: true, octets: 100_000, ..Wants::default() };
    let plan = Plan { aware: 600, foreign: 200, peer_faults: true, flaps: 2, ..plan(wants) };
    // Seed 335: a link between nodes breaks while a connection is placed.
    scenario("clients_of_all_kinds_cross_over_a_bad_path", 340, &plan);
}

#[test]
fn clients_that_understand_cross_after_every_event() {
    let wants = Wants { octets: 30_000, ..Wants::default() };
    let operation = Operation { after_every_event: true, ..Operation::default() };
    let plan = Plan { operation, aware: 1000, foreign: 0, ..plan(wants) };
    scenario("clients_that_understand_cross_after_every_event", 60, &plan);
}

#[test]
fn clients_whose_mobility_headers_are_lost_cross() {
    let wants = Wants { mobility_loss: true, slow: true, octets: 50_000, ..Wants::default() };
    let plan = Plan { aware: 1000, foreign: 0, peer_faults: true, ..plan(wants) };
    scenario("clients_whose_mobility_headers_are_lost_cross", 100, &plan);
}

#[test]
fn bindings_are_renewed_and_expire_while_connections_are_idle() {
    let wants =
        Wants { mobility_loss: true, slow: true, idle: 1_500_000, octets: 20_000, ..Wants::default() };
    let operation = Operation { every: Some(1_000..=600_000), all: 100, ..Operation::default() };
    let plan = Plan { operation, aware: 1000, foreign: 0, mended: 1_200_000..=2_400_000, ..plan(wants) };
    scenario("bindings_are_renewed_and_expire_while_connections_are_idle", 60, &plan);
}

#[test]
fn connections_of_one_client_live_on_different_nodes() {
    let wants = Wants { faults: true, octets: 100_000, ..Wants::default() };
    let operation = Operation { every: Some(5..=300), ..Operation::default() };
    let placements = vec![Placement::RoundRobin];
    let plan = Plan {
        operation,
        placements,
        clients: 1,
        talks: 8,
        aware: 900,
        foreign: 0,
        nodes: 3..=5,
        ..plan(wants)
    };
    scenario("connections_of_one_client_live_on_different_nodes", 80, &plan);
}

#[test]
fn connections_cross_where_only_the_contact_node_may_send_from_the_service_address() {
    let wants = Wants { faults: true, octets: 100_000, ..Wants::default() };
    let plan = Plan { filtered_sources: true, aware: 400, peer_faults: true, ..plan(wants) };
    scenario("connections_cross_where_only_the_contact_node_may_send_from_the_service_address", 100, &plan);
}
