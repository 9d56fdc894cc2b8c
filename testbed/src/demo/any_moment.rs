//! Connections move at every moment of their lives: many clients, ordinary ones and some with Mobile IPv6, open and close
//! connections of every kind over a path that loses, while each node hands on whatever it has, all the time.

use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use core::time::Duration;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::thread::Scope;

use ferry_node::NotMoved;
use sha2::{Digest, Sha256};

use super::evidence::{check_privileges, keep, write_events};
use super::{Options, moments_chart};
use crate::analysis::Spread;
use crate::capture::{Capture, Captured};
use crate::clients::make_file;
use crate::clock::{nanos, now_ns, pause};
use crate::control::Control;
use crate::correspondent::Daemon;
use crate::errands::{Client, Served, Tally};
use crate::error::Doing;
use crate::link::Profile;
use crate::nodes::{self, FILES, Node};
use crate::progress::Progress;
use crate::report::{Demo, Moments};
use crate::trace::{Event, handoffs};
use crate::world::{CLIENT, CLIENT_INTERFACE, CLIENT_PREFIX, NODES, SERVICE, Visitor, World};
use crate::{Error, Result};

/// Its name.
pub const NAME: &str = "any-moment";
/// How many connections have to move, if nobody says.
pub(super) const HANDOFFS: usize = 2000;
/// Clients of each kind at a time.
const WORKERS: usize = 10;
/// Even if few handoffs are asked for: long enough for every kind of connection to live through.
const LEAST: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_mins(5);
const BEAT: Duration = Duration::from_millis(20);
/// Between two handoffs of a node: between most handoffs of a connection a binding can be made.
const EACH: Duration = Duration::from_millis(5);
const FILES_SERVED: [(&str, u64); 3] =
    [("small.bin", 2 << 10), ("medium.bin", 200 << 10), ("large.bin", 2 << 20)];

/// Runs it.
pub(super) fn run(options: &Options) -> Demo {
    let client = format!("2 hosts with {WORKERS} clients each, one with ferry correspondent");
    let mut demo = Demo::unfinished(NAME, client);
    let link = rough(options.link);
    (demo.mode, demo.seed, demo.link) = ("relayed and route-optimised", options.seed, Some(link));
    keep(options, demo, |folder, demo| play(options, link, folder, demo))
}

/// A path on which something always happens. It does not reorder: octets that are overtaken by the end of their connection
/// are answered, by any server in TIME-WAIT, and that answer by a RST of a client that has forgotten all.
fn rough(link: Profile) -> Profile {
    Profile {
        delay_us: link.delay_us.max(4000),
        rate_mbit: link.rate_mbit.min(200),
        loss: link.loss.max(0.01),
        ..link
    }
}

/// What is played on.
struct Ground {
    world: World,
    visitor: Visitor,
    nodes: Vec<Node>,
    captures: [Capture; 2],
    daemon: Daemon,
    files: Vec<Served>,
    progress: Progress,
}

impl Ground {
    fn set(options: &Options, link: Profile, folder: Option<&Path>) -> Result<Self> {
        let mut progress = Progress::new(NAME);
        progress.step("making the world");
        let world = World::build(link)?;
        let visitor = world.add_client("visitor", Profile { seed: link.seed + 1, ..link })?;
        let group = nodes::Options { placement: "round-robin", ..options.group };
        nodes::prepare(&world, &options.ferry, group)?;
        let mut files = Vec::new();
        for (name, length) in FILES_SERVED {
            let path = Path::new(FILES).join(name);
            make_file(&path, length, options.seed)?;
            let octets = std::fs::read(&path).doing("read a file that was just made")?;
            nodes::publish(&world, &path, name)?;
            files.push(Served { name, length, digest: Sha256::digest(octets).into() });
        }
        let captures = [Capture::start(&world, folder, false)?, Capture::visitor(&visitor, folder)?];
        progress.step("starting the nodes");
        let mut nodes = world.hosts.iter().map(Node::start).collect::<Result<Vec<_>>>()?;
        nodes::await_links(&mut nodes, NODES.len() - 1)?;
        let daemon = Daemon::start_on(&visitor.namespace)?;
        Ok(Self { world, visitor, nodes, captures, daemon, files, progress })
    }
}

/// What went wrong while it was played, and what was done.
#[derive(Default)]
struct Course {
    /// Clients are to stop; the nodes hand on until all have.
    stop: AtomicBool,
    /// Nodes are to stop.
    end: AtomicBool,
    moved: AtomicUsize,
    problems: Mutex<Vec<String>>,
    tally: Tally,
}

impl Course {
    fn went_wrong(&self, why: String) {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(why);
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn play(options: &Options, link: Profile, folder: Option<&Path>, demo: &mut Demo) -> Result<Vec<String>> {
    let mut ground = Ground::set(options, link, folder)?;
    let privileges = check_privileges(&ground.world, &ground.nodes, demo)?;
    let course = Course::default();
    std::thread::scope(|scope| go_on(scope, &mut ground, options, &course))?;
    let mut problems = course.problems.into_inner().unwrap_or_else(PoisonError::into_inner);
    demo.digest_match = problems.is_empty();
    problems.extend(privileges);
    demo.bytes = course.tally.octets.into_inner();
    let (captured, events) = strike(ground, demo, &mut problems)?;
    let moves = handoffs(&events);
    demo.handoffs = moves.len();
    #[allow(clippy::cast_precision_loss)] // Nanoseconds and octets of a handoff.
    {
        demo.move_ms =
            Spread::of(moves.iter().map(|one| (one.installed_ns - one.frozen_ns) as f64 * 1e-6).collect());
        demo.snapshot_kib = Spread::of(moves.iter().map(|one| one.snapshot_bytes as f64 / 1024.0).collect());
    }
    judge(&captured, demo, &mut problems);
    let is_aware = |client: &Ipv6Addr| client.segments()[..4] != CLIENT_PREFIX;
    let counted = moves.iter().map(|one| (is_aware(one.client.ip()), &one.moment));
    let moments = Moments { connections: course.tally.connections.into_inner(), ..Moments::count(counted) };
    if moves.len() < options.handoffs {
        problems.push(format!("{} connections moved, not {}", moves.len(), options.handoffs));
    }
    if moments.handoffs.plain == 0 || moments.handoffs.aware == 0 {
        problems.push("connections of one kind of client never moved".to_owned());
    }
    if let Some(folder) = folder {
        moments_chart::write(&moments, &folder.join("moments.svg"))?;
        write_events(&events, folder)?;
    }
    demo.moments = Some(moments);
    Ok(problems)
}

/// Until enough connections have moved and every client is done.
fn go_on<'s>(
    scope: &'s Scope<'s, '_>,
    ground: &'s mut Ground,
    options: &Options,
    course: &'s Course,
) -> Result<()> {
    let Ground { world, visitor, nodes, files, progress, .. } = ground;
    let mut clients = Vec::new();
    for nth in 0..2 * WORKERS {
        let here = if nth % 2 == 0 { (&world.client, CLIENT) } else { (&visitor.namespace, visitor.address) };
        let (namespace, address) = (here.0, beside(here.1, nth)?);
        namespace.batch(&format!("addr add {address}/64 dev {CLIENT_INTERFACE} nodad"))?;
        let random = fastrand::Rng::with_seed(options.seed + nth as u64);
        let client = Client { namespace, address, files, random, stop: &course.stop, tally: &course.tally };
        clients
            .push(scope.spawn(move || client.run().unwrap_or_else(|why| course.went_wrong(why.to_string()))));
    }
    let mut donors = Vec::new();
    for (nth, node) in NODES.into_iter().enumerate() {
        let random = fastrand::Rng::with_seed(options.seed ^ (nth as u64 + 1) << 32);
        donors.push(scope.spawn(move || {
            hand_on(node, random, course).unwrap_or_else(|why| course.went_wrong(why.to_string()));
        }));
    }
    let begun = now_ns();
    loop {
        let (moved, passed) = (course.moved.load(Ordering::Relaxed), now_ns() - begun);
        if moved >= options.handoffs && passed >= nanos(LEAST) || passed > nanos(PATIENCE) {
            course.stop.store(true, Ordering::Relaxed);
        }
        for node in nodes.iter_mut() {
            node.check_alive().unwrap_or_else(|why| course.went_wrong(why.to_string()));
        }
        let connections = course.tally.connections.load(Ordering::Relaxed);
        progress.show(|| {
            format!("{moved} of {} handoffs, {connections} connections ended well", options.handoffs)
        });
        if !clients.iter().any(|client| !client.is_finished()) {
            break;
        }
        pause(BEAT);
    }
    course.end.store(true, Ordering::Relaxed);
    // Each is waited for, whatever the others did.
    let panicked = clients.into_iter().chain(donors).filter_map(|thread| thread.join().err()).count();
    if panicked > 0 {
        return Err(Error::Program { command: NAME.to_owned(), why: "a client panicked".to_owned() });
    }
    Ok(())
}

/// Another address on the same link.
fn beside(address: Ipv6Addr, nth: usize) -> Result<Ipv6Addr> {
    let nth = u128::try_from(nth).map_err(|why| Error::Usage(why.to_string()))?;
    Ok(Ipv6Addr::from_bits(address.to_bits() + 0x100 + nth))
}

/// Hands one connection after the other on to any other node. States are drawn first, then a connection in one: else
/// hardly any would be rare.
fn hand_on(node: &'static str, mut random: fastrand::Rng, course: &Course) -> Result<()> {
    let mut control = Control::connect(node, &nodes::control_socket(node))?;
    let others: Vec<_> = NODES.into_iter().filter(|other| *other != node).collect();
    while !course.end.load(Ordering::Relaxed) {
        let mut by_state = BTreeMap::<_, Vec<_>>::new();
        for connection in control.connections()? {
            by_state.entry(connection.state.clone()).or_default().push(connection);
        }
        let states: Vec<_> = by_state.into_values().collect();
        pause(EACH);
        let Some(some) = random.choice(&states) else { continue };
        let (Some(one), Some(to)) = (random.choice(some), random.choice(&others)) else { continue };
        let moved = control.handoff_one(one, to)?;
        course.moved.fetch_add(moved.moved, Ordering::Relaxed);
        // A contact node hands on by itself what it opens of a port that is used again.
        for failed in moved.failed.into_iter().filter(|failed| failed.why != NotMoved::MOVES_ALREADY) {
            course.went_wrong(format!("{node} to {to}, in {}: {}", one.state, failed.why));
        }
    }
    Ok(())
}

fn strike(
    ground: Ground,
    demo: &mut Demo,
    problems: &mut Vec<String>,
) -> Result<([Captured; 2], Vec<Event>)> {
    let Ground { mut nodes, captures, daemon, mut progress, .. } = ground;
    progress.step("stopping the nodes");
    let mut straight = 0;
    for node in &mut nodes {
        let status = node.control.status()?;
        straight += status.counters.optimised;
        if status.counters.resets_sent > 0 {
            problems.push(format!("node {} sent {} RST", node.name, status.counters.resets_sent));
        }
    }
    demo.packets_straight_from_node = Some(straight);
    if straight == 0 {
        problems.push("no node sent anything straight".to_owned());
    }
    daemon.stop()?;
    let mut events = Vec::new();
    // They would stay until the last connection in TIME-WAIT is over, and that lasts a minute: they go with the world.
    for node in &mut nodes {
        node.check_alive()?;
        events.extend(node.trace()?);
    }
    events.sort_by_key(Event::at_ns);
    let [one, other] = captures;
    progress.clear();
    Ok(([one.finish()?, other.finish()?], events))
}

fn judge(captured: &[Captured; 2], demo: &mut Demo, problems: &mut Vec<String>) {
    for (captured, whose) in captured.iter().zip(["the ordinary", "the aware"]) {
        let client = &captured.client;
        demo.resets += client.resets().len();
        demo.capture_drops += captured.dropped;
        if let Some(first) = client.resets().first() {
            problems.push(format!(
                "{} RST in the capture of {whose} client, the first: {first:?}",
                client.resets().len()
            ));
        }
        for peer in client.peers().iter().filter(|peer| **peer != SERVICE) {
            problems.push(format!("{whose} client saw the peer {peer}"));
        }
        demo.peers.extend(client.peers().iter().map(ToString::to_string));
    }
    demo.peers.sort();
    demo.peers.dedup();
    if demo.capture_drops > 0 {
        problems.push(format!("the capture missed {} frames, so that it proves nothing", demo.capture_drops));
    }
}
