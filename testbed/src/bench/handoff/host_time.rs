//! The host's time for moving one connection: taken out, made into octets, read back, and put in elsewhere.

use core::net::{Ipv6Addr, SocketAddrV6};
use core::time::Duration;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use bytes::Bytes;
use ferry_handoff::{Epoch, Snapshot};
use ferry_stack::host::Host;
use ferry_stack::interface::{self, Address};
use ferry_stack::tcp::{Config, Endpoint, Handle, Listener, Secret, State};
use ferry_stack::{EthernetAddress, Instant};
use rustix::net::sockopt::{set_socket_recv_buffer_size, set_tcp_congestion};

use super::broken;
use crate::Result;
use crate::bench::stack::{Figures, Scale};
use crate::clock::{await_some, now_ns, thread_cpu_ns};
use crate::error::Doing;
use crate::link::{Filter, Link, Profile};
use crate::namespace::Namespace;
use crate::sys::repair;
use crate::sys::tap::{self, Header};

const MOVES: usize = 2000;
const PORT: u16 = 80;
/// Octets that open the congestion windows wide enough for all that is to be in flight.
const BEFORE: usize = 1 << 20;

/// What is compared with.
pub(in crate::bench) const PEER: &str = "the kernel's connection moved by TCP_REPAIR";

/// An established connection with so many octets sent and not acknowledged: ours, and one of the kernel's by its repair
/// mode, in turn. Microseconds of a core.
pub(in crate::bench) fn measure(scale: Scale, unacked: usize) -> Result<Figures> {
    let (mut pair, mut kernel) = (Pair::connected(unacked)?, Kernel::connected(unacked)?);
    let moves = scale.count(MOVES);
    let figures =
        Figures::alternate(scale.runs, || microseconds(moves, || pair.shuttle()), || kernel.measure(moves))?;
    kernel.check(unacked)?;
    pair.check(unacked)?;
    Ok(figures)
}

/// The mean time of a core for one move.
#[allow(clippy::cast_precision_loss)] // Nanoseconds of a run.
fn microseconds(moves: usize, mut shuttle: impl FnMut() -> Result<()>) -> Result<f64> {
    let begun = thread_cpu_ns();
    for _ in 0..moves {
        shuttle()?;
    }
    Ok((thread_cpu_ns() - begun) as f64 * 1e-3 / moves as f64)
}

/// A connection of ours, where it is now, and where it goes next.
struct Pair {
    here: Endpoint,
    there: Endpoint,
    handle: Handle,
    epoch: Epoch,
}

impl Pair {
    fn connected(unacked: usize) -> Result<Self> {
        let (client, server) = (address(1), address(2));
        let mut hosts = [host(client, 1), host(server, 2)];
        hosts[1].tcp.listen(PORT, Listener::new(Config::default()));
        let to = SocketAddrV6::new(server, PORT, 0, 0);
        let opened = hosts[0].tcp.connect(client, to, Config::default(), Instant::ZERO);
        let client = opened.map_err(broken)?;
        exchange(&mut hosts);
        let found = |tcp: &Endpoint| {
            tcp.iter().find(|(_, tcb)| tcb.state == State::Established).map(|(handle, _)| handle)
        };
        let handle = found(&hosts[1].tcp).ok_or_else(|| broken("no connection was established"))?;
        if unacked > 0 {
            load(&mut hosts, client, handle, unacked)?;
        }
        let [_, Host { tcp, .. }] = hosts;
        Ok(Self { here: tcp, there: endpoint(), handle, epoch: Epoch::FIRST })
    }

    fn shuttle(&mut self) -> Result<()> {
        let now = Instant::from_nanos(now_ns());
        let tcb = self.here.export(self.handle, now).ok_or_else(|| broken("the connection is gone"))?;
        self.epoch = self.epoch.next();
        let snapshot = Snapshot {
            epoch: self.epoch,
            service: "echo".to_owned(),
            tcb,
            session: Bytes::new(),
            client: Bytes::new(),
            wake: None,
        };
        let octets = snapshot.pieces().map_err(broken)?;
        drop(snapshot);
        let arrived = Snapshot::decode_pieces(&octets).map_err(broken)?;
        self.handle = self.there.import(arrived.tcb, now).map_err(broken)?;
        core::mem::swap(&mut self.here, &mut self.there);
        Ok(())
    }

    /// Fails if something else was moved than was to be.
    fn check(&self, unacked: usize) -> Result<()> {
        let in_flight = u32::try_from(unacked).map_err(broken)?;
        match self.here.get(self.handle) {
            Some(tcb) if tcb.snd.queue.len() == unacked && tcb.snd.una + in_flight == tcb.snd.nxt => Ok(()),
            other => Err(broken(format!("there are not {unacked} octets in flight: {other:?}"))),
        }
    }
}

/// Opens the congestion window, and sends what nobody will acknowledge.
fn load(hosts: &mut [Host; 2], client: Handle, server: Handle, unacked: usize) -> Result<()> {
    let now = Instant::from_millis(1);
    let mut left = BEFORE;
    while left > 0 {
        let octets = Bytes::from(vec![7; left.min(1 << 16)]);
        let taken = octets.len() - hosts[1].tcp.with(server, |tcb| tcb.write(octets).len()).unwrap_or(0);
        left -= taken;
        exchange(hosts);
        let read = hosts[0].tcp.with(client, |tcb| tcb.read(usize::MAX).len());
        if taken == 0 && read == Some(0) {
            return Err(broken("nothing moves"));
        }
    }
    let rest = hosts[1].tcp.with(server, |tcb| tcb.write(Bytes::from(vec![9; unacked])).len());
    // Lost on its way.
    while hosts[1].poll_transmit(now).is_some() {}
    if rest == Some(0) { Ok(()) } else { Err(broken("the send buffer is too small")) }
}

fn address(interface: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, interface)
}

fn endpoint() -> Endpoint {
    Endpoint::new(Secret::new([7; 32]), 1500, true)
}

fn host(address: Ipv6Addr, number: u8) -> Host {
    let config = interface::Config {
        mac: EthernetAddress([2, 0, 0, 0, 0, number]),
        addresses: vec![Address { address, prefix_len: 64 }],
        gateway: None,
        mtu: 1500,
    };
    Host::new(config, Secret::new([number; 32]), true)
}

/// Carries frames until neither side has any.
fn exchange(hosts: &mut [Host; 2]) {
    let now = Instant::from_millis(1);
    let mut quiet = false;
    while !quiet {
        quiet = true;
        for from in [0, 1] {
            while let Some(frame) = hosts[from].poll_transmit(now) {
                hosts[1 - from].receive(frame, now);
                quiet = false;
            }
        }
    }
}

/// A connection of the kernel's between two namespaces.
struct Kernel {
    namespace: Namespace,
    _other_namespace: Namespace,
    link: Link,
    /// Taken while it is on its way.
    moved: Option<TcpStream>,
    other: TcpStream,
}

impl Kernel {
    fn connected(unacked: usize) -> Result<Self> {
        let (namespace, other_namespace) = (Namespace::add("repair")?, Namespace::add("repair-peer")?);
        let profile = Profile { queue_bytes: 8 << 20, delay_us: 0, ..Profile::GOOD };
        let ends = [(&namespace, address(2)), (&other_namespace, address(1))].map(|(host, at)| {
            let tun = host.run(|| {
                let tun = tap::open()?;
                tap::attach(&tun, "link0", Header::Plain)?;
                Ok(tun)
            })?;
            Ok((tun, format!("link set link0 up\naddr add {at}/64 dev link0 nodad")))
        });
        let [(here, up_here), (there, up_there)] = {
            let [one, other] = ends;
            [one?, other?]
        };
        let link = Link::start(here, there, profile)?;
        namespace.batch(&up_here)?;
        other_namespace.batch(&up_there)?;
        let listener =
            namespace.run(|| TcpListener::bind(SocketAddrV6::new(address(2), PORT, 0, 0)).doing("listen"))?;
        // Its window is wide when much has passed, whatever the path: no other way of slow start ends early.
        set_tcp_congestion(&listener, "reno").doing("choose Reno")?;
        let to = SocketAddrV6::new(address(2), PORT, 0, 0);
        let mut other = other_namespace.run(|| TcpStream::connect(to).doing("connect"))?;
        // The window is wide enough for all that is to be in flight.
        set_socket_recv_buffer_size(&other, 4 * BEFORE).doing("widen a buffer")?;
        let mut moved = listener.accept().doing("accept")?.0;
        if unacked > 0 {
            // Only a sender that waits for its window widens it: not one to whom everything is acknowledged at once.
            link.set_delay(1000);
            grow(&mut moved, &mut other)?;
            link.set_delay(0);
            await_queue(&moved, 0)?;
            link.set_filter(Filter::Everything);
            send_into_the_void(&mut moved, unacked)?;
        }
        Ok(Self { namespace, _other_namespace: other_namespace, link, moved: Some(moved), other })
    }

    fn measure(&mut self, moves: usize) -> Result<f64> {
        let moved = &mut self.moved;
        let shuttle = || {
            let stream = moved.take().ok_or_else(|| broken("the kernel's connection is gone"))?;
            let frozen = repair::freeze(stream).doing("freeze a connection of the kernel's")?;
            *moved = Some(repair::thaw(&frozen).doing("thaw a connection of the kernel's")?);
            Ok(())
        };
        // A socket belongs to the namespace of the thread that makes it.
        self.namespace.run(|| microseconds(moves, shuttle))
    }

    /// Fails if the connection did not survive its moves, or lost something: its time would be worth nothing.
    fn check(&mut self, unacked: usize) -> Result<()> {
        let Some(moved) = &mut self.moved else { return Err(broken("the kernel's connection is gone")) };
        self.link.set_filter(Filter::None);
        let mut late = vec![0; unacked];
        self.other.read_exact(&mut late).doing("receive what was under way while the connection moved")?;
        let mut octet = [0];
        self.other.write_all(&[7]).doing("send over the moved connection")?;
        moved.read_exact(&mut octet).doing("receive over the moved connection")?;
        if late == vec![9; unacked] { Ok(()) } else { Err(broken("the kernel's connection lost octets")) }
    }
}

/// Opens the congestion window of one end.
fn grow(from: &mut TcpStream, to: &mut TcpStream) -> Result<()> {
    std::thread::scope(|scope| {
        let sending = scope.spawn(|| from.write_all(&vec![7; BEFORE]).doing("send"));
        to.read_exact(&mut vec![0; BEFORE]).doing("receive")?;
        sending.join().map_err(|_| broken("the sender panicked"))?
    })
}

/// Until all of it is in flight.
fn send_into_the_void(stream: &mut TcpStream, octets: usize) -> Result<()> {
    stream.write_all(&vec![9; octets]).doing("send")?;
    await_queue(stream, octets)
}

/// Until so many octets are sent and not acknowledged, and none waits to be sent.
fn await_queue(stream: &TcpStream, octets: usize) -> Result<()> {
    let (within, each) = (Duration::from_secs(1), Duration::from_micros(100));
    let mut last = (0, 0);
    await_some("a queue of the kernel's", within, each, || {
        last = repair::unacknowledged(stream).doing("ask for the queue")?;
        Ok((last == (octets, 0)).then_some(()))
    })
    .map_err(|why| broken(format!("{why}: {} octets unacknowledged, {} of them not sent", last.0, last.1)))
}
