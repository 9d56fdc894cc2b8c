//! A smaller grid between kernels and node processes: the latencies are those of emulated links, one for each host.

use core::net::SocketAddrV6;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use core::time::Duration;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::super::broken;
use super::super::group::{ECHO, Group};
use super::{Latencies, Legs, Mode, Point, grid};
use crate::Result;
use crate::clock::{await_some, nanos, now_ns, pause};
use crate::correspondent::Daemon;
use crate::error::Doing;
use crate::link::Profile;
use crate::nodes;
use crate::progress::Progress;
use crate::report::median;
use crate::sys::urgent::urgently;
use crate::trace::{Handoff, handoffs};
use crate::world::{SERVICE, World};

const LEVELS: [f64; 4] = [0.1, 1.0, 10.0, 100.0];
const QUICK: [f64; 2] = [1.0, 10.0];
const HOMES: [f64; 3] = [0.05, 1.0, 20.0];
/// All modes that are measured here.
const MODES: [Mode; 3] = [Mode::Relayed, Mode::TokensAhead, Mode::HomeTokenOnly];
/// Milliseconds.
const LEAST_PACE: f64 = 1.0;
/// Nothing waits for its turn.
const LINK: Profile = Profile { delay_us: 1000, rate_mbit: 10_000, ..Profile::GOOD };
const WORLD: &str = "kernels";
const PATIENCE: Duration = Duration::from_secs(20);
const BEAT: Duration = Duration::from_millis(5);
/// What is more than twice the pace and this is a silence.
const SILENCE: Duration = Duration::from_millis(2);
const REQUEST: [u8; 64] = [7; 64];
/// Milliseconds of noise that count as none …
const CALM: f64 = 1.0;
/// … and how often it is tried whether there is none.
const MOST_ROUNDS: usize = 2;
/// What is waited at most for a quiet host, before a handoff.
const MOST_RESTS: u32 = 3;
/// Answers before a handoff by which the noise is judged.
const BEFORE: usize = 9;

/// Every handoff of the grid, each done `runs` times. The machine's other work is not to be measured: what takes part runs
/// before it.
pub(super) fn measure(ferry: &Path, runs: usize, quick: bool) -> Result<Vec<Point>> {
    urgently(|| MODES.iter().map(|mode| in_mode(ferry, *mode, runs, quick)).collect::<Result<Vec<_>>>())
        .map(|points| points.concat())
}

fn in_mode(ferry: &Path, mode: Mode, runs: usize, quick: bool) -> Result<Vec<Point>> {
    let levels = if quick { &QUICK[..] } else { &LEVELS[..] };
    let grid = grid(levels, &HOMES);
    let mut progress = Progress::new("bench handoff");
    let tokens_ahead = if mode == Mode::HomeTokenOnly { "never" } else { "auto" };
    let options = nodes::Options { tokens_ahead, ..nodes::Options::default() };
    let world = World::build_far(LINK, LINK)?;
    let mut group = Group::start(world, ferry, 3, options)?;
    let daemon = mode.is_aware().then(|| Daemon::start(&group.world)).transpose()?;
    let mut points = Vec::new();
    for (nth, legs) in grid.iter().enumerate() {
        let Latencies { da, ac, dc, .. } = legs.latencies();
        progress.show(|| {
            let (mode, of) = (mode.name(), grid.len());
            format!(
                "gaps between kernels, {mode}, triangle {} of {of}: {da:.1}, {ac:.1} and {dc:.1} ms",
                nth + 1
            )
        });
        points.extend(at(&mut group, mode, legs, runs)?);
    }
    progress.clear();
    daemon.map(Daemon::stop).transpose()?;
    group.end()?;
    Ok(points)
}

/// Nodes b and c stand where `legs` have donor and acceptor, and hand a connection to and fro. If the host was not calm
/// enough, they do it again.
fn at(group: &mut Group, mode: Mode, legs: &Legs, runs: usize) -> Result<Vec<Point>> {
    let Legs { home, donor, acceptor, client } = *legs;
    let places = group.world.legs.iter().zip([home, donor, acceptor]);
    for (link, leg) in places.chain([(&group.world.link, client)]) {
        link.set_delay(microseconds(leg));
    }
    let pace = Duration::from_secs_f64(legs.pace(LEAST_PACE) * 1e-3);
    let ways = [*legs, legs.turned()];
    let mut tried = [const { Vec::new() }; 2];
    for _ in 0..MOST_ROUNDS {
        round(group, mode, &ways, pace, runs, &mut tried)?;
        if tried.iter().all(|tried| calmest(tried, runs).is_some_and(|(_, noise)| noise <= CALM)) {
            break;
        }
    }
    let mut points = Vec::new();
    for (legs, tried) in ways.iter().zip(&tried) {
        let calmest = calmest(tried, runs);
        let (gap_ms, noise_ms) = calmest.ok_or_else(|| broken(format!("too little was heard: {legs:?}")))?;
        let (latencies, pace_ms) = (legs.latencies(), in_millis(pace));
        let straight_ms = None;
        points.push(Point { world: WORLD, mode, latencies, pace_ms, gap_ms, noise_ms, straight_ms });
    }
    Ok(points)
}

/// A new connection is brought to node b, and then to and fro, `runs` times each.
fn round(
    group: &mut Group,
    mode: Mode,
    ways: &[Legs; 2],
    pace: Duration,
    runs: usize,
    tried: &mut [Vec<Tried>; 2],
) -> Result<()> {
    let rest = pace * 12 + Duration::from_secs_f64(ways[0].round_trip() * 6e-3);
    let stream = Paced::start(group, pace)?;
    for (from, to) in core::iter::once((0, 1)).chain(core::iter::repeat_n([(1, 2), (2, 1)], runs).flatten()) {
        group.move_all(from, to, 1)?;
        settle(group, &stream, to, mode, rest)?;
    }
    let port = stream.port;
    let seen = stream.stop()?;
    group_is_empty(group)?;
    let moved = moves(group, port, 2 * runs)?;
    for (one, way) in moved.iter().zip([0, 1].into_iter().cycle()) {
        tried[way].extend(seen.tried(one, &ways[way], mode));
    }
    Ok(())
}

/// The handoffs of a client's connection but the first, which only brought it to where it is to be.
fn moves(group: &Group, port: u16, expected: usize) -> Result<Vec<Handoff>> {
    let mut events = Vec::new();
    for node in &group.nodes {
        events.extend(node.trace()?);
    }
    let of_stream = |one: &Handoff| one.flow.client_port == port;
    let moved: Vec<_> = handoffs(&events).into_iter().filter(of_stream).skip(1).collect();
    if moved.len() == expected {
        Ok(moved)
    } else {
        Err(broken(format!("{} of {expected} handoffs were traced", moved.len())))
    }
}

/// One handoff. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tried {
    gap: f64,
    /// How far off the host was when there was no handoff.
    noise: f64,
}

/// The median of the calmest ones, as many as are a majority of `of`: which those are, is judged by what has nothing to do
/// with the handoff. With it the noise that even these had. `None` if there are not so many.
fn calmest(tried: &[Tried], of: usize) -> Option<(f64, f64)> {
    let mut tried = tried.to_vec();
    tried.sort_by(|a, b| a.noise.total_cmp(&b.noise));
    let calm = tried.get(..=of / 2)?;
    let gaps: Vec<_> = calm.iter().map(|one| one.gap).collect();
    Some((median(&gaps)?, calm.last()?.noise))
}

/// What a client sent and heard; nanoseconds.
#[derive(Debug)]
struct Times {
    pace: f64,
    /// When each request was due, and how late it left.
    sent: Vec<(u64, u64)>,
    /// When octets came.
    heard: Vec<u64>,
}

impl Times {
    /// `None` if the host was so slow that the answers before and after it came as one.
    fn tried(&self, one: &Handoff, legs: &Legs, mode: Mode) -> Option<Tried> {
        let ns = |millis: f64| nanos(Duration::from_secs_f64(millis.max(0.0) * 1e-3));
        // Until the first answer of the acceptor has come.
        let until = one.installed_ns + ns(legs.latencies().last_way(mode));
        let gap = longest(&self.heard, &(one.frozen_ns..until))? - self.pace * 1e-6;
        let sent = one.frozen_ns.saturating_sub(ns(legs.round_trip()))..until;
        Some(Tried { gap, noise: self.noise(one.frozen_ns, &sent) })
    }

    /// How uneven the answers came while nothing had happened yet, or how late requests left that the handoff concerns:
    /// whichever is more; milliseconds.
    #[allow(clippy::cast_precision_loss)] // Nanoseconds of a gap.
    fn noise(&self, frozen: u64, sending: &Range<u64>) -> f64 {
        let end = self.heard.partition_point(|at| *at < frozen);
        let before = &self.heard[end.saturating_sub(BEFORE)..end];
        let uneven = before.windows(2).map(|pair| ((pair[1] - pair[0]) as f64 - self.pace).abs());
        let late = self.sent.iter().filter(|(due, _)| sending.contains(due)).map(|(_, late)| *late as f64);
        uneven.chain(late).fold(0.0, f64::max) * 1e-6
    }
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // Less than a second.
fn microseconds(millis: f64) -> u64 {
    (millis * 1e3).round().max(0.0) as u64
}

fn in_millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The longest time between two arrivals that touches a window.
#[allow(clippy::cast_precision_loss)] // Nanoseconds of a gap.
fn longest(heard: &[u64], window: &Range<u64>) -> Option<f64> {
    let from = heard.partition_point(|at| *at < window.start).checked_sub(1)?;
    let pairs = heard[from..].windows(2).take_while(|pair| pair[0] < window.end);
    pairs.map(|pair| (pair[1] - pair[0]) as f64 * 1e-6).max_by(f64::total_cmp)
}

/// Until nothing is under way but what the pace brings; with Mobile IPv6, until segments go straight.
fn settle(group: &mut Group, stream: &Paced, owner: usize, mode: Mode, rest: Duration) -> Result<()> {
    if mode.is_aware() {
        let node = &mut group.nodes[owner];
        let before = node.control.status()?.counters.optimised;
        await_some("straight segments", PATIENCE, BEAT, || {
            Ok((node.control.status()?.counters.optimised > before + 2).then_some(()))
        })?;
    }
    stream.rest(rest);
    Ok(())
}

fn group_is_empty(group: &mut Group) -> Result<()> {
    await_some("the end of the connection", PATIENCE, BEAT, || {
        for node in &mut group.nodes {
            let mut open = node.control.connections()?;
            open.retain(|one| one.state != "TIME-WAIT");
            if !open.is_empty() {
                return Ok(None);
            }
        }
        Ok(Some(()))
    })
}

/// A client that sends a request at a steady pace, whatever is answered, and notes when octets come.
struct Paced {
    stream: TcpStream,
    port: u16,
    pace: Duration,
    stop: Arc<AtomicBool>,
    /// When an answer last came after a silence.
    uneven: Arc<AtomicU64>,
    sender: JoinHandle<Result<Vec<(u64, u64)>>>,
    receiver: JoinHandle<Result<Vec<u64>>>,
}

impl Paced {
    fn start(group: &Group, pace: Duration) -> Result<Self> {
        let stream = group.world.client.run(|| {
            let to = SocketAddrV6::new(SERVICE, ECHO, 0, 0);
            let stream = TcpStream::connect_timeout(&to.into(), PATIENCE).doing("connect to echo")?;
            stream.set_nodelay(true).doing("send at once")?;
            Ok(stream)
        })?;
        let port = stream.local_addr().doing("find a port")?.port();
        let stop = Arc::<AtomicBool>::default();
        let (ours, theirs) = (stream.try_clone(), stream.try_clone());
        let (ours, theirs) = (ours.doing("share a stream")?, theirs.doing("share a stream")?);
        let told = Arc::clone(&stop);
        let sender = std::thread::spawn(move || send(ours, pace, &told));
        let uneven = Arc::new(AtomicU64::new(now_ns()));
        let silence = Arc::clone(&uneven);
        let receiver = std::thread::spawn(move || receive(theirs, nanos(2 * pace + SILENCE), &silence));
        Ok(Self { stream, port, pace, stop, uneven, sender, receiver })
    }

    /// Until answers have come at the pace for so long: at first the client's own congestion window holds requests back. A
    /// host that is never so quiet is not waited for long; how noisy it was is seen afterwards.
    fn rest(&self, rest: Duration) {
        let until = now_ns() + nanos(rest * MOST_RESTS);
        pause(rest);
        while now_ns() < until.min(self.uneven.load(Ordering::Relaxed) + nanos(rest)) {
            pause(BEAT);
        }
    }

    /// Ends the connection in good order.
    #[allow(clippy::cast_precision_loss)] // Less than a second.
    fn stop(self) -> Result<Times> {
        self.stop.store(true, Ordering::Relaxed);
        let sent = self.sender.join().map_err(|_| broken("the sender panicked"))??;
        self.stream.shutdown(Shutdown::Write).doing("finish")?;
        let heard = self.receiver.join().map_err(|_| broken("the receiver panicked"))??;
        Ok(Times { pace: nanos(self.pace) as f64, sent, heard })
    }
}

/// When each request was due, and how late it left.
fn send(mut stream: TcpStream, pace: Duration, stop: &AtomicBool) -> Result<Vec<(u64, u64)>> {
    let _ = rustix::thread::set_current_timer_slack(core::num::NonZero::new(1));
    let (mut sent, mut due) = (Vec::new(), now_ns());
    while !stop.load(Ordering::Relaxed) {
        sent.push((due, now_ns().saturating_sub(due)));
        stream.write_all(&REQUEST).doing("send a request")?;
        due += nanos(pace);
        pause(Duration::from_nanos(due.saturating_sub(now_ns())));
    }
    Ok(sent)
}

/// When octets came. In `uneven` stands when some last did after `silence` nanoseconds without.
fn receive(mut stream: TcpStream, silence: u64, uneven: &AtomicU64) -> Result<Vec<u64>> {
    stream.set_read_timeout(Some(PATIENCE)).doing("limit the wait")?;
    let (mut times, mut octets) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match stream.read(&mut octets) {
            Ok(0) => return Ok(times),
            Ok(_) => {
                let now = now_ns();
                if times.last().is_none_or(|last| now - last > silence) {
                    uneven.store(now, Ordering::Relaxed);
                }
                times.push(now);
            }
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            Err(why) => return Err(why).doing("receive an answer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_silence_is_that_which_touches_the_window() {
        let heard = [0, 10, 20, 60, 70, 200].map(|at| at * 1_000_000);
        let window = |range: Range<u64>| range.start * 1_000_000..range.end * 1_000_000;
        assert_eq!(longest(&heard, &window(25..61)), Some(40.0));
        assert_eq!(longest(&heard, &window(5..15)), Some(10.0));
        assert_eq!(longest(&heard, &window(65..71)), Some(130.0));
    }

    #[test]
    fn noise_is_what_the_host_did_before_the_handoff_or_to_its_requests_and_not_the_gap() {
        let ms = 1_000_000;
        let mut times = Times {
            pace: 10e6,
            sent: (0..30).map(|nth| (nth * 10 * ms, 0)).collect(),
            heard: [100, 110, 121, 131, 190].map(|at| at * ms).to_vec(),
        };
        let noise = |times: &Times| times.noise(135 * ms, &(90 * ms..200 * ms));
        assert!((noise(&times) - 1.0).abs() < 1e-9);
        times.sent[5].1 = 9 * ms;
        assert!((noise(&times) - 1.0).abs() < 1e-9, "a request long before");
        times.sent[15].1 = 3 * ms;
        assert!((noise(&times) - 3.0).abs() < 1e-9);
    }

    #[test]
    fn which_handoffs_count_does_not_depend_on_their_gaps() {
        let tried = [(9.0, 3.0), (1.0, 0.2), (2.0, 0.1), (7.0, 5.0), (3.0, 0.3)];
        let tried = tried.map(|(gap, noise)| Tried { gap, noise });
        assert_eq!(calmest(&tried, 5), Some((2.0, 0.3)));
        assert_eq!(calmest(&tried, 2), Some((1.5, 0.2)), "there are more than that");
        assert_eq!(calmest(&tried[..3], 6), None, "no majority");
    }
}
