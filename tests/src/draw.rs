//! What the seed draws: the configuration of a world.

use core::net::{Ipv6Addr, SocketAddrV6};
use core::ops::RangeInclusive;
use core::time::Duration;

use ferry_stack::Instant;
use ferry_stack::interface;
use ferry_stack::tcp::{Config, EcnPolicy, KeepAlive, MtuProbing, PathPolicy, cc};

use crate::aware::Aware;
use crate::channel::Manner;
use crate::foreign::{Foreign, Manners};
use crate::link::Quality;
use crate::lwip::Lwip;
use crate::rng::{PerMille, Rng};
use crate::serve::{DISCARD, ECHO, EXCHANGE, HTTP, Order};
use crate::stack::{Plain, Stack};
use crate::talk::{Script, Talk, Task};
use crate::world::{Attachment, SERVICE_ADDRESS};

/// What a scenario wants of the paths and of its clients.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent property of a scenario")]
pub struct Wants {
    /// Links lose, double, reorder and corrupt frames.
    pub faults: bool,
    /// Somewhere inside of the network packets must be smaller than on the links.
    pub narrow: bool,
    /// Some links swallow packets that are larger than some size. Both ends must find that out for themselves.
    pub swallows: bool,
    /// Some links mark packets when many wait (RFC 3168).
    pub marks: bool,
    /// Some clients read and write slowly, or fall silent.
    pub slow: bool,
    /// Some clients give up.
    pub aborts: bool,
    /// Octets of a stream at most.
    pub octets: u64,
    /// Octets of a stream at least, where it is not empty.
    pub at_least: u64,
    /// The longest way through a link.
    pub delay: Duration,
    /// Links lose Mobility Headers, more than other frames.
    pub mobility_loss: bool,
    /// The longest that a slow client falls silent in the middle, in milliseconds.
    pub idle: u64,
    /// The sizes of the files called `0`, `1`, … that a service of files has. Empty: there is none.
    pub files: &'static [u64],
}

impl Default for Wants {
    fn default() -> Self {
        Self {
            faults: false,
            narrow: false,
            swallows: false,
            marks: true,
            slow: false,
            aborts: false,
            octets: 1 << 20,
            at_least: 1,
            delay: Duration::from_millis(100),
            mobility_loss: false,
            idle: 10_000,
            files: &[],
        }
    }
}

/// Which stack a client runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Ours.
    Ours,
    /// A foreign peer.
    Smoltcp,
    /// Another foreign peer. There is one only where [`lwip::is_here`](crate::lwip::is_here) says so.
    Lwip,
    /// Our own, with Mobile IPv6.
    Aware,
    /// The same, behind a network that drops extension headers.
    Filtered,
}

/// How our TCP behaves.
pub fn config(rng: &mut Rng, mtu: u16) -> Config {
    let keep_alive =
        KeepAlive { idle: rng.millis(500..=20_000), interval: rng.millis(500..=5_000), count: 9 };
    let send_buffer = small(rng.scaled(2_000..=1 << 20));
    // Not drawn by itself, so that every seed stays the world that it was.
    let search = send_buffer.is_multiple_of(3);
    let marks = send_buffer.is_multiple_of(2);
    let path_policy = match send_buffer % 5 {
        0 => PathPolicy::Halve,
        1 => PathPolicy::InitialWindow,
        _ => PathPolicy::Keep,
    };
    Config {
        mss: mtu - 60,
        send_buffer,
        receive_buffer: small(rng.scaled(2_000..=1 << 20)),
        window_scaling: !rng.chance(150),
        timestamps: !rng.chance(200),
        sack: !rng.chance(200),
        nodelay: rng.chance(300),
        delayed_ack: rng.millis(1..=200),
        congestion: rng.pick(&[cc::Kind::NewReno, cc::Kind::Cubic]),
        keep_alive: rng.chance(200).then_some(keep_alive),
        ecn: if marks { EcnPolicy::On } else { EcnPolicy::Accept },
        mtu_probing: if search { MtuProbing::Always } else { MtuProbing::OnBlackHole },
        path_policy,
        ..Config::default()
    }
}

/// A host's TCP.
pub fn stack(rng: &mut Rng, kind: Kind, interface: interface::Config) -> Box<dyn Stack> {
    match kind {
        Kind::Ours => {
            let config = config(rng, interface.mtu);
            Box::new(Plain::new(interface, config, rng.secret(), rng.chance(500)))
        }
        Kind::Aware | Kind::Filtered => {
            let config = config(rng, interface.mtu);
            Box::new(Aware::new(interface, config, rng.secret(), kind == Kind::Filtered))
        }
        Kind::Smoltcp => {
            let manners = Manners {
                buffer: usize::try_from(rng.scaled(2_000..=300_000)).unwrap_or(usize::MAX),
                nagle: rng.chance(500),
                ack_delay: rng.chance(700).then(|| rng.millis(1..=100)),
                keep_alive: rng.chance(200).then(|| rng.millis(500..=10_000)),
                timestamps: rng.chance(500),
            };
            Box::new(Foreign::new(&interface, manners, rng.any()))
        }
        Kind::Lwip => Box::new(Lwip::new(interface)),
    }
}

/// One connection for each order of closing, one for an echo, and one that is given up in the middle. They begin within
/// half a second from `after` on.
pub fn every_order(rng: &mut Rng, server: Ipv6Addr, wants: &Wants, after: Instant) -> Vec<Script> {
    let mut octets = || rng.scaled(wants.at_least..=wants.octets);
    let mut exchange = |order| (EXCHANGE, Task::Exchange { up: octets(), down: octets(), order });
    let tasks = [
        (exchange(Order::ClientFirst), None),
        (exchange(Order::ServerFirst), None),
        (exchange(Order::Together), None),
        (exchange(Order::Together), Some(wants.at_least)),
        ((ECHO, Task::Echo(octets())), None),
    ];
    let script = |((port, task), abort_after)| Script {
        start: after + rng.millis(0..=500),
        server: core::net::SocketAddrV6::new(server, port, 0, 0),
        task,
        key: rng.any(),
        write_size: 40_000,
        read_size: 40_000,
        write_pause: Duration::ZERO,
        read_pause: Duration::ZERO,
        deaf: Duration::ZERO,
        idle: Duration::ZERO,
        abort_after,
        again: None,
    };
    tasks.map(script).into()
}

/// One direction of a link.
pub fn quality(rng: &mut Rng, wants: &Wants) -> Quality {
    let most = u64::try_from(wants.delay.as_micros()).unwrap_or(u64::MAX);
    let (delay, lateness) = (rng.scaled(10..=most), rng.scaled(100..=most.max(100)));
    let octets_per_second = rng.chance(700).then(|| rng.scaled(50_000..=100_000_000));
    let queue = rng.scaled(20_000..=1 << 20);
    Quality {
        delay: Duration::from_micros(delay),
        octets_per_second,
        queue,
        // Not drawn by itself either.
        marking: (wants.marks && queue.is_multiple_of(2)).then_some(queue / 8),
        limit: None,
        loss: often(rng, wants.faults, 150),
        duplication: often(rng, wants.faults, 100),
        reordering: often(rng, wants.faults, 200),
        lateness: Duration::from_micros(lateness),
        corruption: often(rng, wants.faults, 50),
        mobility_loss: if wants.mobility_loss { small_share(rng) } else { 0 },
    }
}

fn small_share(rng: &mut Rng) -> PerMille {
    PerMille::try_from(rng.within(0..=600)).unwrap_or_default()
}

/// The links between the nodes.
pub fn manner(rng: &mut Rng, faults: bool) -> Manner {
    Manner {
        delay: Duration::from_micros(rng.scaled(10..=50_000)),
        octets_per_second: rng.scaled(1 << 18..=1 << 30),
        loss: often(rng, faults, 300),
        duplication: often(rng, faults, 300),
        reordering: often(rng, faults, 500),
        lateness: rng.millis(1..=500),
    }
}

fn often(rng: &mut Rng, faults: bool, most: u64) -> PerMille {
    if faults && rng.chance(600) { PerMille::try_from(rng.scaled(1..=most)).unwrap_or(1000) } else { 0 }
}

/// A way that only takes time, between so many microseconds.
pub fn sound_way(rng: &mut Rng, micros: RangeInclusive<u64>) -> Quality {
    Quality { delay: Duration::from_micros(rng.within(micros)), ..Quality::default() }
}

/// A host on a link that only takes time.
pub fn sound_attachment(rng: &mut Rng, name: &str, micros: RangeInclusive<u64>) -> Attachment {
    let (up, down) = (sound_way(rng, micros.clone()), sound_way(rng, micros));
    Attachment { name: name.to_owned(), up, down, mtu: 1500, path_mtu: 1500, tap: false }
}

/// A client that begins within 10 ms of `from`, and writes at a steady pace.
pub fn steady_talk(rng: &mut Rng, from: Instant, port: u16, task: Task) -> Talk {
    Talk::new(Script {
        start: from + rng.millis(0..=10),
        server: SocketAddrV6::new(SERVICE_ADDRESS, port, 0, 0),
        task,
        key: rng.any(),
        write_size: 1_000,
        read_size: 4_000,
        write_pause: Duration::from_millis(3),
        read_pause: Duration::ZERO,
        deaf: Duration::ZERO,
        idle: Duration::ZERO,
        abort_after: None,
        again: None,
    })
}

/// A machine's link.
pub fn attachment(rng: &mut Rng, name: &str, wants: &Wants, mtu: u16, tap: bool) -> Attachment {
    let narrow = u16::try_from(rng.within(1280..=u64::from(mtu))).unwrap_or(mtu);
    let mut direction = || {
        let quality = quality(rng, wants);
        // A packet as every link of IPv6 must carry it, in a tunnel to another node.
        let limit = (wants.swallows && rng.chance(700)).then(|| rng.within(1320..=u64::from(mtu.max(1320))));
        Quality { limit: limit.and_then(|limit| u16::try_from(limit).ok()), ..quality }
    };
    Attachment {
        name: name.to_owned(),
        up: direction(),
        down: direction(),
        mtu,
        path_mtu: if wants.narrow { narrow } else { 9000 },
        tap,
    }
}

/// What a client does. It begins within two seconds from `after` on.
pub fn script(rng: &mut Rng, server: Ipv6Addr, wants: &Wants, after: Instant) -> Script {
    let (port, task, key) = task(rng, wants);
    let slow = |rng: &mut Rng, most| {
        if wants.slow && rng.chance(500) { rng.millis(1..=most) } else { Duration::ZERO }
    };
    Script {
        start: after + rng.millis(0..=2_000),
        server: core::net::SocketAddrV6::new(server, port, 0, 0),
        task,
        key,
        write_size: usize::try_from(rng.scaled(500..=100_000)).unwrap_or(usize::MAX),
        read_size: usize::try_from(rng.scaled(500..=100_000)).unwrap_or(usize::MAX),
        write_pause: slow(rng, 10),
        read_pause: slow(rng, 10),
        deaf: slow(rng, 3_000),
        idle: slow(rng, wants.idle),
        abort_after: (wants.aborts && rng.chance(500)).then(|| rng.scaled(0..=wants.octets)),
        again: None,
    }
}

/// A port, what is wanted there, and the key of its streams.
fn task(rng: &mut Rng, wants: &Wants) -> (u16, Task, u64) {
    if !wants.files.is_empty() && rng.chance(700) {
        let file = rng.index(wants.files.len());
        return (HTTP, Task::Get(wants.files[file]), file as u64);
    }
    let octets = |rng: &mut Rng| if rng.chance(100) { 0 } else { rng.scaled(wants.at_least..=wants.octets) };
    let order = rng.pick(&[Order::ClientFirst, Order::ServerFirst, Order::Together]);
    let (port, task) = match rng.index(6) {
        0 => (ECHO, Task::Echo(octets(rng))),
        1 => (DISCARD, Task::Discard(octets(rng))),
        _ => (EXCHANGE, Task::Exchange { up: octets(rng), down: octets(rng), order }),
    };
    (port, task, rng.any())
}

/// A number that is known to be small.
fn small(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
