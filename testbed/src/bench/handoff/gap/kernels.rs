//! A smaller grid between kernels and node processes: the latencies are those of emulated links, one for each host.

use core::net::SocketAddrV6;
use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::super::broken;
use super::super::group::{ECHO, Group};
use super::{Legs, Mode, Point, grid};
use crate::Result;
use crate::clock::{await_some, nanos, now_ns, pause};
use crate::correspondent::Daemon;
use crate::error::Doing;
use crate::link::Profile;
use crate::nodes;
use crate::report::median;
use crate::trace::handoffs;
use crate::world::{SERVICE, World};

const LEVELS: [f64; 4] = [0.1, 1.0, 10.0, 100.0];
const QUICK: [f64; 2] = [1.0, 10.0];
const HOMES: [f64; 3] = [0.05, 1.0, 20.0];
/// All modes that are measured here.
const MODES: [Mode; 2] = [Mode::Relayed, Mode::TokensAhead];
/// Milliseconds.
const LEAST_PACE: f64 = 1.0;
/// Nothing waits for its turn.
const LINK: Profile = Profile { delay_us: 1000, rate_mbit: 10_000, ..Profile::GOOD };
const WORLD: &str = "kernels";
const PATIENCE: Duration = Duration::from_secs(20);
const BEAT: Duration = Duration::from_millis(5);
const REQUEST: [u8; 64] = [7; 64];

/// Every handoff of the grid, the median of `runs` each.
pub(super) fn measure(ferry: &Path, runs: usize, quick: bool) -> Result<Vec<Point>> {
    let levels = if quick { &QUICK[..] } else { &LEVELS[..] };
    let mut points = Vec::new();
    for mode in MODES {
        eprintln!("bench handoff: gaps between kernels, {}", mode.name());
        let world = World::build_far(LINK, LINK)?;
        let mut group = Group::start(world, ferry, 3, nodes::Options::default())?;
        let daemon = mode.is_aware().then(|| Daemon::start(&group.world)).transpose()?;
        for legs in grid(levels, &HOMES) {
            points.extend(at(&mut group, mode, &legs, runs)?);
        }
        daemon.map(Daemon::stop).transpose()?;
        group.end()?;
    }
    Ok(points)
}

/// Nodes b and c stand where `legs` have donor and acceptor, and hand a connection to and fro.
fn at(group: &mut Group, mode: Mode, legs: &Legs, runs: usize) -> Result<Vec<Point>> {
    let Legs { home, donor, acceptor, client } = *legs;
    let places = group.world.legs.iter().zip([home, donor, acceptor]);
    for (link, leg) in places.chain([(&group.world.link, client)]) {
        link.set_delay(microseconds(leg));
    }
    let pace = Duration::from_secs_f64(legs.pace(LEAST_PACE) * 1e-3);
    let rest = pace * 12 + Duration::from_secs_f64(legs.round_trip() * 6e-3);
    let stream = Paced::start(group, pace)?;
    group.move_all(0, 1, 1)?;
    settle(group, 1, mode, rest)?;
    let mut moves = 0;
    for _ in 0..runs {
        for (from, to) in [(1, 2), (2, 1)] {
            group.move_all(from, to, 1)?;
            settle(group, to, mode, rest)?;
            moves += 1;
        }
    }
    let port = stream.port;
    let heard = stream.stop()?;
    let mut events = Vec::new();
    for node in &group.nodes {
        events.extend(node.trace()?);
    }
    let moved: Vec<_> = handoffs(&events).into_iter().filter(|one| one.flow.client_port == port).collect();
    let (moved, ways) = (moved.get(1..).unwrap_or_default(), [legs.latencies(), legs.turned().latencies()]);
    if moved.len() != moves {
        return Err(broken(format!("{} of {moves} handoffs were traced", moved.len())));
    }
    let mut gaps = [Vec::new(), Vec::new()];
    for (nth, one) in moved.iter().enumerate() {
        // Until the first answer of the acceptor has come.
        let until = one.installed_ns + nanos(Duration::from_secs_f64(ways[nth % 2].last_way(mode) * 1e-3));
        let longest = longest(&heard, &(one.frozen_ns..until));
        gaps[nth % 2]
            .push(longest.ok_or_else(|| broken("nothing was heard around a handoff"))? - in_millis(pace));
    }
    group_is_empty(group)?;
    let points = ways.into_iter().zip(gaps).filter_map(|(latencies, gaps)| {
        let gap_ms = median(&gaps)?;
        Some(Point { world: WORLD, mode, latencies, pace_ms: in_millis(pace), gap_ms, straight_ms: None })
    });
    Ok(points.collect())
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
fn settle(group: &mut Group, owner: usize, mode: Mode, rest: Duration) -> Result<()> {
    if mode.is_aware() {
        let node = &mut group.nodes[owner];
        let before = node.control.status()?.counters.optimised;
        await_some("straight segments", PATIENCE, BEAT, || {
            Ok((node.control.status()?.counters.optimised > before + 2).then_some(()))
        })?;
    }
    pause(rest);
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
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<()>>,
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
        let receiver = std::thread::spawn(move || receive(theirs));
        Ok(Self { stream, port, stop, sender, receiver })
    }

    /// Ends the connection in good order. When octets came.
    fn stop(self) -> Result<Vec<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        self.sender.join().map_err(|_| broken("the sender panicked"))??;
        self.stream.shutdown(Shutdown::Write).doing("finish")?;
        self.receiver.join().map_err(|_| broken("the receiver panicked"))?
    }
}

fn send(mut stream: TcpStream, pace: Duration, stop: &AtomicBool) -> Result<()> {
    let _ = rustix::thread::set_current_timer_slack(core::num::NonZero::new(1));
    let mut due = now_ns();
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&REQUEST).doing("send a request")?;
        due += nanos(pace);
        pause(Duration::from_nanos(due.saturating_sub(now_ns())));
    }
    Ok(())
}

fn receive(mut stream: TcpStream) -> Result<Vec<u64>> {
    stream.set_read_timeout(Some(PATIENCE)).doing("limit the wait")?;
    let (mut times, mut octets) = (Vec::new(), vec![0; 1 << 16]);
    loop {
        match stream.read(&mut octets) {
            Ok(0) => return Ok(times),
            Ok(_) => times.push(now_ns()),
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
}
