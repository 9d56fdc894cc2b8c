//! How long a connection stands still, from node to node over real peer links, and how many of them move in a second.
//!
//! *Freeze* is the time from the moment at which the donor's data plane takes the acceptor's `Ready` from its queue, before
//! it freezes anything, until the acceptor's first segment of the connection leaves its TAP: everything that both nodes
//! do is in it. *One message round trip* is that of the same handoff's `Prepare` and `Ready`: from the donor's command
//! until the donor's data plane takes the answer from its queue, by the same threads, queues and TLS records.

use core::time::Duration;
use std::net::TcpStream;

use super::group::{Group, probe};
use super::{Means, broken};
use crate::Result;
use crate::analysis::Spread;
use crate::bench::stack::Figures;
use crate::clock::{now_ns, pause, wall_to_monotonic_ns};
use crate::error::Doing;
use crate::link::Profile;
use crate::nodes;
use crate::straight::{Upper, read};
use crate::sys::packet::Ring;
use crate::trace::{Handoff, asked, handoffs};
use crate::world::{SERVICE, TAP, World};

/// Handoffs of a run.
const MOVES: usize = 1000;
/// Between two, so that every thread has gone to sleep.
const PAUSE: Duration = Duration::from_millis(1);
const SNAP: u32 = 160;
const RING: usize = 8 << 20;
/// The kernel hands a block over some milliseconds after its first frame at the latest.
const RETIRED: Duration = Duration::from_millis(100);
/// Connections of `handoffs-per-second-links`.
const STORM: usize = 1000;

/// Of one run, in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) freeze: Spread,
    pub(super) trip: Spread,
}

/// One connection goes to and fro between two nodes; a figure for each run.
pub(super) fn measure(means: Means<'_>) -> Result<Vec<Times>> {
    let world = World::build(Profile::default())?;
    let mut group = Group::start(world, means.ferry, 2, nodes::Options::default())?;
    let mut watch = Watch::start(&group)?;
    let mut stream = group.connect()?;
    let (moves, mut ends) = (means.scale.count(MOVES), Vec::new());
    for _ in 0..means.scale.runs {
        for nth in 0..moves {
            group.move_all(nth % 2, 1 - nth % 2, 1)?;
            pause(PAUSE);
            watch.look();
        }
        if moves % 2 == 1 {
            group.move_all(1, 0, 1)?;
        }
        ends.push(now_ns());
    }
    probe(&mut stream)?;
    times(&group, &ends, &watch.end()?)
}

/// When segments of the service leave each node's TAP.
struct Watch {
    rings: Vec<Ring>,
    /// By node, in order.
    left: Vec<Vec<u64>>,
}

impl Watch {
    fn start(group: &Group) -> Result<Self> {
        let mut rings = Vec::new();
        for host in &group.world.hosts[..2] {
            let index = host.namespace.interface(TAP)?;
            rings.push(host.namespace.run(|| Ring::open(index, SNAP, RING).doing("capture at a node"))?);
        }
        Ok(Self { left: vec![Vec::new(); rings.len()], rings })
    }

    /// Has to be called again and again: the kernel hands a block of the ring over every few milliseconds, however few
    /// frames are in it.
    fn look(&mut self) {
        let to_monotonic = wall_to_monotonic_ns();
        for (ring, left) in self.rings.iter_mut().zip(&mut self.left) {
            ring.drain(|frame| {
                let of_service = read(frame.octets)
                    .is_some_and(|seen| seen.source == SERVICE && matches!(seen.upper, Upper::Tcp(..)));
                if of_service && !frame.outgoing {
                    left.push(u64::try_from(i128::from(frame.wall_ns) + to_monotonic).unwrap_or(0));
                }
            });
        }
    }

    /// Everything, or fails if a frame was not seen.
    fn end(mut self) -> Result<Vec<Vec<u64>>> {
        pause(RETIRED);
        self.look();
        for ring in &self.rings {
            let lost = ring.dropped().doing("ask what was not captured")?;
            if lost > 0 {
                return Err(broken(format!("{lost} frames found no room in the capture's ring")));
            }
        }
        Ok(self.left)
    }
}

fn times(group: &Group, ends: &[u64], left: &[Vec<u64>]) -> Result<Vec<Times>> {
    let mut events = Vec::new();
    for node in &group.nodes {
        events.extend(node.trace()?);
    }
    let (moves, asked) = (handoffs(&events), asked(&events));
    let mut runs = Vec::new();
    let mut begun = 0;
    for end in ends {
        let of_run = |one: &&Handoff| (begun..*end).contains(&one.frozen_ns);
        let (mut freeze, mut trip) = (Vec::new(), Vec::new());
        for one in moves.iter().filter(of_run) {
            let acceptor = usize::from(one.to == "b");
            let after = left[acceptor].partition_point(|at| *at < one.frozen_ns);
            let (Some(ran), Some(asked)) = (left[acceptor].get(after), asked.get(&one.name())) else {
                return Err(broken(format!("no first segment or no question: {one:?}")));
            };
            freeze.push(micros(ran - one.frozen_ns));
            trip.push(micros(one.frozen_ns - asked));
        }
        let (Some(freeze), Some(trip)) = (Spread::of(freeze), Spread::of(trip)) else {
            return Err(broken("the traces tell of no handoff"));
        };
        runs.push(Times { freeze, trip });
        begun = *end;
    }
    Ok(runs)
}

#[allow(clippy::cast_precision_loss)] // Nanoseconds of a handoff.
fn micros(nanos: u64) -> f64 {
    nanos as f64 * 1e-3
}

/// Many idle connections of a kernel's move at once: handoffs a second, by the time that the command takes.
pub(super) fn storm(means: Means<'_>) -> Result<Figures> {
    let world = World::build(Profile::default())?;
    let mut group = Group::start(world, means.ferry, 2, nodes::Options::default())?;
    let count = means.scale.count(STORM);
    let mut streams = (0..count).map(|_| group.connect()).collect::<Result<Vec<TcpStream>>>()?;
    let mut ours = Vec::new();
    for nth in 0..means.scale.runs {
        let begun = now_ns();
        group.move_all(nth % 2, 1 - nth % 2, count)?;
        #[allow(clippy::cast_precision_loss)] // Connections of a storm.
        ours.push(count as f64 * 1e6 / micros(now_ns() - begun));
        streams.iter_mut().try_for_each(probe)?;
    }
    drop(streams);
    Ok(Figures::alone(ours))
}
