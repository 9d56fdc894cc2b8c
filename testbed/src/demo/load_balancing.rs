//! An overloaded node gives connections away: all clients are at one node, whose link carries less than they ask for; then
//! `ferry rebalance` evens the load, and everybody waits less. No connection is opened anew.
//!
//! What is overloaded is the link of the node's host, which is emulated, so that the demo shows the same on any machine.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddrV6, TcpStream};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use ferry_node::{Command, Reply};
use sha2::{Digest, Sha256};

use super::evidence::{check_privileges, keep, write_events};
use super::{Options, balance_chart};
use crate::analysis::Spread;
use crate::capture::Capture;
use crate::clients::make_file;
use crate::clock::{nanos, now_ns, pause};
use crate::error::Doing;
use crate::link::Profile;
use crate::nodes::{self, FILES, Node};
use crate::progress::Progress;
use crate::report::{Balance, Demo};
use crate::trace::{Event, handoffs};
use crate::world::{NODES, SERVICE, World};
use crate::{Error, Result};

/// Its name.
pub const NAME: &str = "load-balancing";
/// How many connections have to move, if nobody says.
pub(super) const HANDOFFS: usize = 40;
const HTTP: u16 = 80;
const FILE: &str = "answer.bin";
const ANSWER: u64 = 32 << 10;
/// What the link of each node's host carries.
const RATE_MBIT: u64 = 40;
/// How much of that all clients together ask for, if they are answered at once: more than one node can give, and less
/// than three.
const DEMAND: f64 = 1.8;
/// How long each half is looked at, once the first answers are over.
const SPAN: Duration = Duration::from_secs(5);
const SETTLE: Duration = Duration::from_millis(1500);
/// Nothing of ours takes longer unless it is dead.
const STALL: Duration = Duration::from_secs(30);
const BEAT: Duration = Duration::from_millis(50);
const LEAVE: Duration = Duration::from_secs(20);

/// Runs it.
pub(super) fn run(options: &Options) -> Demo {
    let clients = clients(options.handoffs);
    let mut demo = Demo::unfinished(NAME, format!("{clients} clients that ask again and again"));
    (demo.seed, demo.link) = (options.seed, Some(options.link));
    keep(options, demo, |folder, demo| play(options, clients, folder, demo))
}

/// Of three nodes two take what they lack.
fn clients(handoffs: usize) -> usize {
    (handoffs * 3 / 2).next_multiple_of(NODES.len()).max(NODES.len())
}

/// What one client has waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waited {
    pub(super) asked_ns: u64,
    pub(super) answered_ns: u64,
}

/// What was seen of the whole play.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) waited: Vec<Waited>,
    /// Connections at each node over time.
    pub(super) loads: Vec<(u64, Vec<usize>)>,
    /// When the load was evened.
    pub(super) evened_ns: u64,
}

struct Course {
    stop: AtomicBool,
    octets: AtomicU64,
    waited: Mutex<Vec<Waited>>,
    problems: Mutex<Vec<String>>,
    digest: [u8; 32],
    /// Between an answer and the next request, on average.
    think: Duration,
}

impl Course {
    fn went_wrong(&self, why: String) {
        self.problems.lock().unwrap_or_else(PoisonError::into_inner).push(why);
        self.stop.store(true, Ordering::Relaxed);
    }
}

#[allow(clippy::cast_precision_loss)] // Clients and octets of a demo.
fn think(clients: usize) -> Duration {
    let one = ANSWER as f64 * 8e-6 / RATE_MBIT as f64;
    Duration::from_secs_f64(one * clients as f64 / DEMAND)
}

fn play(options: &Options, clients: usize, folder: Option<&Path>, demo: &mut Demo) -> Result<Vec<String>> {
    let mut progress = Progress::new(NAME);
    progress.step("making the world");
    let far = Profile { delay_us: 500, rate_mbit: RATE_MBIT, queue_bytes: 128 << 10, ..Profile::GOOD };
    let world = World::build_far(options.link, far)?;
    nodes::prepare(&world, &options.ferry, nodes::Options { placement: "local", ..options.group })?;
    let path = Path::new(FILES).join(FILE);
    make_file(&path, ANSWER, options.seed)?;
    let octets = std::fs::read(&path).doing("read a file that was just made")?;
    nodes::publish(&world, &path, FILE)?;
    let capture = Capture::start(&world, folder, false)?;
    let mut nodes = world.hosts.iter().map(Node::start).collect::<Result<Vec<_>>>()?;
    nodes::await_links(&mut nodes, NODES.len() - 1)?;
    let privileges = check_privileges(&world, &nodes, demo)?;
    let course = Course {
        stop: AtomicBool::new(false),
        octets: AtomicU64::new(0),
        waited: Mutex::default(),
        problems: Mutex::default(),
        digest: Sha256::digest(octets).into(),
        think: think(clients),
    };
    let mut seen = Seen::default();
    let mut balance = std::thread::scope(|scope| {
        for nth in 0..clients {
            let random = fastrand::Rng::with_seed(options.seed + nth as u64);
            let (world, course) = (&world, &course);
            scope.spawn(move || {
                ask_on(world, random, course).unwrap_or_else(|why| course.went_wrong(why.to_string()));
            });
        }
        let result = watch(&mut nodes, clients, &course, &mut seen, &mut progress);
        course.stop.store(true, Ordering::Relaxed);
        result
    })?;
    seen.waited = course.waited.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut problems = course.problems.into_inner().unwrap_or_else(PoisonError::into_inner);
    (demo.digest_match, demo.bytes) = (problems.is_empty(), course.octets.into_inner());
    problems.extend(privileges);
    balance.wait_ms_before = spread(&seen, |asked| asked < seen.evened_ns);
    balance.wait_ms_after = spread(&seen, |asked| asked > seen.evened_ns + nanos(SETTLE));
    let events = strike(&mut nodes, &mut problems)?;
    let captured = capture.finish()?;
    progress.clear();
    demo.handoffs = handoffs(&events).len();
    demo.resets = captured.client.resets().len();
    demo.capture_drops = captured.dropped;
    demo.peers = captured.client.peers().iter().map(ToString::to_string).collect();
    judge(demo, &balance, &mut problems);
    if let Some(folder) = folder {
        balance_chart::write(&seen, &folder.join("load.svg"))?;
        write_events(&events, folder)?;
    }
    demo.balance = Some(balance);
    Ok(problems)
}

/// Everybody is served by one node for a while, and by all of them for another.
fn watch(
    nodes: &mut [Node],
    clients: usize,
    course: &Course,
    seen: &mut Seen,
    progress: &mut Progress,
) -> Result<Balance> {
    let mut for_a_while = |nodes: &mut [Node], what: &str| {
        let begun = now_ns();
        while now_ns() < begun + nanos(SETTLE + SPAN) && !course.stop.load(Ordering::Relaxed) {
            let load = loads(nodes)?;
            progress.show(|| format!("{what}: {load:?} connections at the nodes"));
            seen.loads.push((now_ns(), load));
            pause(BEAT);
        }
        loads(nodes)
    };
    let load_before = for_a_while(nodes, "one node serves all")?;
    let moved = match nodes[0].control.ask(&Command::Rebalance)? {
        Reply::Moved(moved) if moved.failed.is_empty() => moved.moved,
        other => return Err(wrong(format!("ferry rebalance: {other:?}"))),
    };
    let evened_ns = now_ns();
    let load_after = for_a_while(nodes, "the load is even")?;
    seen.evened_ns = evened_ns;
    Ok(Balance {
        connections: clients,
        moved,
        max_over_mean_before: Balance::max_over_mean(&load_before),
        max_over_mean_after: Balance::max_over_mean(&load_after),
        load_before,
        load_after,
        wait_ms_before: None,
        wait_ms_after: None,
    })
}

fn loads(nodes: &mut [Node]) -> Result<Vec<usize>> {
    nodes.iter_mut().map(|node| Ok(node.control.status()?.connections)).collect()
}

#[allow(clippy::cast_precision_loss)] // Nanoseconds of a wait.
fn spread(seen: &Seen, of: impl Fn(u64) -> bool) -> Option<Spread> {
    let some = seen.waited.iter().filter(|one| of(one.asked_ns));
    Spread::of(some.map(|one| (one.answered_ns - one.asked_ns) as f64 * 1e-6).collect())
}

/// Asks on one connection until it is to stop, with pauses of random length.
fn ask_on(world: &World, mut random: fastrand::Rng, course: &Course) -> Result<()> {
    let mut stream = world.client.run(|| {
        let to = SocketAddrV6::new(SERVICE, HTTP, 0, 0);
        let stream = TcpStream::connect_timeout(&to.into(), STALL).doing("connect")?;
        stream.set_nodelay(true).doing("send at once")?;
        stream.set_read_timeout(Some(STALL)).doing("limit the wait")?;
        Ok(stream)
    })?;
    let request = format!("GET /{FILE} HTTP/1.1\r\nHost: ferry\r\n\r\n");
    let mut waited = Vec::new();
    while !course.stop.load(Ordering::Relaxed) {
        pause(course.think.mul_f64(2.0 * random.f64()));
        let asked_ns = now_ns();
        stream.write_all(request.as_bytes()).doing("ask")?;
        receive(&mut stream, &course.digest)?;
        course.octets.fetch_add(ANSWER, Ordering::Relaxed);
        waited.push(Waited { asked_ns, answered_ns: now_ns() });
    }
    course.waited.lock().unwrap_or_else(PoisonError::into_inner).append(&mut waited);
    stream.shutdown(Shutdown::Write).doing("finish")?;
    match stream.read(&mut [0]).doing("wait for the end")? {
        0 => Ok(()),
        _ => Err(wrong("something came behind the end".to_owned())),
    }
}

/// One answer, head and body.
fn receive(stream: &mut TcpStream, digest: &[u8; 32]) -> Result<()> {
    let (mut answer, mut chunk, mut head) = (Vec::new(), [0; 16 << 10], None);
    loop {
        let length = stream.read(&mut chunk).doing("receive an answer")?;
        if length == 0 {
            return Err(wrong("the service ended in the middle of an answer".to_owned()));
        }
        answer.extend_from_slice(&chunk[..length]);
        head = head.or_else(|| answer.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4));
        let body = head.map(|head| &answer[head..]);
        if let Some(body) = body.filter(|body| body.len() as u64 >= ANSWER) {
            let good = answer.starts_with(b"HTTP/1.1 200 ") && Sha256::digest(body)[..] == digest[..];
            return if good { Ok(()) } else { Err(wrong("an answer came changed".to_owned())) };
        }
    }
}

fn strike(nodes: &mut [Node], problems: &mut Vec<String>) -> Result<Vec<Event>> {
    for node in nodes.iter_mut() {
        let resets = node.control.status()?.counters.resets_sent;
        if resets > 0 {
            problems.push(format!("node {} sent {resets} RST", node.name));
        }
    }
    for node in nodes.iter_mut() {
        match node.stop(LEAVE) {
            Ok(status) if status.success() => {}
            Ok(status) => problems.push(format!("node {} left with {status}", node.name)),
            Err(error) => problems.push(error.to_string()),
        }
    }
    let mut events = Vec::new();
    for node in nodes.iter() {
        events.extend(node.trace()?);
    }
    events.sort_by_key(Event::at_ns);
    Ok(events)
}

fn judge(demo: &Demo, balance: &Balance, problems: &mut Vec<String>) {
    if demo.resets > 0 {
        problems.push(format!("{} RST in the client's capture", demo.resets));
    }
    if demo.peers != [SERVICE.to_string()] {
        problems.push(format!("the client saw the peers {:?} instead of {SERVICE} alone", demo.peers));
    }
    if demo.capture_drops > 0 {
        problems.push(format!("the capture missed {} frames, so that it proves nothing", demo.capture_drops));
    }
    // What does not divide stays where it is.
    if balance.max_over_mean_after > 1.1 {
        problems.push(format!("the load is not even: {:?}", balance.load_after));
    }
    let worst = |spread: Option<Spread>| spread.map(|spread| spread.p99);
    match (worst(balance.wait_ms_before), worst(balance.wait_ms_after)) {
        (Some(before), Some(after)) if after < before => {}
        (before, after) => {
            problems.push(format!("clients do not wait less: p99 {before:?} ms, then {after:?}"));
        }
    }
}

fn wrong(why: String) -> Error {
    Error::Program { command: NAME.to_owned(), why }
}
