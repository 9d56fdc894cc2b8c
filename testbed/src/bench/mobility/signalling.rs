//! How long return routability and a Binding Update take, at the node that runs them: from the first message that leaves
//! its TAP until the last answer has come.

use core::cell::RefCell;
use core::net::{Ipv6Addr, SocketAddrV6};
use core::time::Duration;
use std::net::TcpStream;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, ipproto};

use super::{Means, broken};
use crate::Result;
use crate::bench::stack::Figures;
use crate::clock::{await_some, now_ns};
use crate::demo::{self, Stage};
use crate::error::Doing;
use crate::link::Profile;
use crate::nodes;
use crate::straight::{Upper, read};
use crate::sys::packet::Ring;
use crate::world::{CLIENT, CLIENT_INTERFACE, CLIENT_PREFIX, Host, SERVICE, TAP};

/// 20 ms there and back.
const LINK: Profile = Profile { delay_us: 10_000, ..Profile::GOOD };
const ECHO: u16 = 7;
const PATIENCE: Duration = Duration::from_secs(20);
const BEAT: Duration = Duration::from_millis(5);
/// Longer than any header that matters.
const SNAP: u32 = 160;
const RING: usize = 1 << 20;
/// As `mipv6` numbers them.
const HOME_TEST_INIT: u8 = 1;
const CARE_OF_TEST_INIT: u8 = 2;
const HOME_TEST: u8 = 3;
const CARE_OF_TEST: u8 = 4;

/// What was measured of one client.
struct Times {
    tests_ms: f64,
    update_ms: f64,
}

/// From the first of Home and Care-of Test Init until both answers have come.
pub(super) fn tests(means: Means<'_>) -> Result<Figures> {
    measure(means, |times| times.tests_ms)
}

/// From a Binding Update until its acknowledgement.
pub(super) fn update(means: Means<'_>) -> Result<Figures> {
    measure(means, |times| times.update_ms)
}

fn measure(means: Means<'_>, pick: fn(&Times) -> f64) -> Result<Figures> {
    let options = demo::Options {
        handoffs: 0,
        interval: Duration::from_hours(1),
        seed: 1,
        file_bytes: 1 << 20,
        echo_bytes: 0,
        out: None,
        ferry: means.ferry.to_owned(),
        link: LINK,
        group: nodes::Options::default(),
        aware: true,
    };
    let mut stage = Stage::set("mobility", &options, None)?;
    let mut clients = (0x100..).map(address);
    // The first wakes everybody up: neighbours, caches.
    for _ in 0..2 {
        bind(&mut stage, clients.next().unwrap_or(SERVICE))?;
        ping(stage.world.host("b")?, CLIENT)?;
    }
    let stage = RefCell::new(stage);
    let figures = Figures::alternate(
        means.scale.runs,
        || bind(&mut stage.borrow_mut(), clients.next().unwrap_or(SERVICE)).map(|times| pick(&times)),
        || ping(stage.borrow().world.host("b")?, CLIENT),
    )?;
    match stage.into_inner().strike().problems.first() {
        Some(problem) => Err(broken(problem)),
        None => Ok(figures),
    }
}

/// An address of the client's host that no node has ever heard of.
fn address(last: u16) -> Ipv6Addr {
    let [a, b, c, d] = CLIENT_PREFIX;
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, last)
}

/// Lets a new client connect to the contact node, hands its connection to node b, and watches b's TAP until the client is
/// bound.
fn bind(stage: &mut Stage, client: Ipv6Addr) -> Result<Times> {
    let world = &stage.world;
    world.client.batch(&format!("addr add {client}/64 dev {CLIENT_INTERFACE} nodad"))?;
    let host = world.host("b")?;
    let index = host.namespace.interface(TAP)?;
    let mut ring = host.namespace.run(|| Ring::open(index, SNAP, RING).doing("capture at node b"))?;
    let stream = world.client.run(|| connect(client))?;
    let moved = stage.nodes[0].control.handoff_all("b")?;
    if moved.moved != 1 {
        return Err(broken(format!("the connection did not move: {moved:?}")));
    }
    let mut seen = Watch::default();
    let times = await_some("a binding", PATIENCE, BEAT, || {
        ring.drain(|frame| seen.see(client, frame.wall_ns, frame.octets));
        Ok(seen.times())
    })?;
    drop(stream);
    // Back to where new connections are: node b owns none that the next could be mistaken for.
    await_some("the end of the connection", PATIENCE, BEAT, || {
        let open = stage.nodes[1].control.connections()?;
        Ok(open.iter().all(|one| *one.client.ip() != client).then_some(()))
    })?;
    Ok(times)
}

fn connect(from: Ipv6Addr) -> Result<TcpStream> {
    let kind = SocketType::STREAM;
    let socket = rustix::net::socket_with(AddressFamily::INET6, kind, SocketFlags::CLOEXEC, None)
        .doing("open a socket")?;
    rustix::net::bind(&socket, &SocketAddrV6::new(from, 0, 0, 0)).doing(format!("speak from {from}"))?;
    rustix::net::connect(&socket, &SocketAddrV6::new(SERVICE, ECHO, 0, 0)).doing("connect to echo")?;
    Ok(TcpStream::from(socket))
}

/// When each message of one client passed the TAP; the first of its kind.
#[derive(Default)]
struct Watch {
    asked: [Option<u64>; 2],
    answered: [Option<u64>; 2],
    updated: Option<u64>,
    acknowledged: Option<u64>,
}

impl Watch {
    fn see(&mut self, client: Ipv6Addr, at_ns: u64, frame: &[u8]) {
        let Some(seen) = read(frame) else { return };
        let (from, to) = seen.inner.unwrap_or((seen.source, seen.destination));
        let place = match seen.upper {
            Upper::Mobility(HOME_TEST_INIT) if to == client => &mut self.asked[0],
            Upper::Mobility(CARE_OF_TEST_INIT) if to == client => &mut self.asked[1],
            Upper::Mobility(HOME_TEST) if from == client => &mut self.answered[0],
            Upper::Mobility(CARE_OF_TEST) if from == client => &mut self.answered[1],
            Upper::Update if to == client => &mut self.updated,
            Upper::Acknowledgement(0, _) if from == client => &mut self.acknowledged,
            _ => return,
        };
        place.get_or_insert(at_ns);
    }

    /// As soon as the client is bound.
    fn times(&self) -> Option<Times> {
        let ([Some(home), Some(care_of)], [Some(home_test), Some(care_of_test)]) =
            (self.asked, self.answered)
        else {
            return None;
        };
        let tests_ms = millis(home_test.max(care_of_test).saturating_sub(home.min(care_of)));
        Some(Times { tests_ms, update_ms: millis(self.acknowledged?.saturating_sub(self.updated?)) })
    }
}

#[allow(clippy::cast_precision_loss)] // Nanoseconds of a round trip.
fn millis(nanos: u64) -> f64 {
    nanos as f64 * 1e-6
}

/// One ICMPv6 echo from a host to the client (RFC 4443 section 4.1), by the kernels; milliseconds.
fn ping(host: &Host, client: Ipv6Addr) -> Result<f64> {
    const REQUEST: [u8; 12] = [128, 0, 0, 0, 0xfe, 0x77, 0, 1, b'f', b'e', b'r', b'y'];
    host.namespace.run(|| {
        let (flags, doing) = (SocketFlags::CLOEXEC, "ping the client");
        let socket =
            rustix::net::socket_with(AddressFamily::INET6, SocketType::RAW, flags, Some(ipproto::ICMPV6))
                .doing(doing)?;
        let patience = Some(PATIENCE);
        rustix::net::sockopt::set_socket_timeout(&socket, rustix::net::sockopt::Timeout::Recv, patience)
            .doing(doing)?;
        rustix::net::connect(&socket, &SocketAddrV6::new(client, 0, 0, 0)).doing(doing)?;
        let begun = now_ns();
        // The kernel fills in the checksum.
        rustix::net::send(&socket, &REQUEST, SendFlags::empty()).doing(doing)?;
        loop {
            let mut answer = [0; 64];
            let (_, length) = rustix::net::recv(&socket, &mut answer, RecvFlags::empty()).doing(doing)?;
            if answer[..length].starts_with(&[129]) && answer[4..12] == REQUEST[4..] {
                return Ok(millis(now_ns() - begun));
            }
        }
    })
}
