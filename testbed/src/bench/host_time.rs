//! The host's time for moving one connection: taken out, made into octets, read back, and put in elsewhere.

use core::net::{Ipv6Addr, SocketAddrV6};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use bytes::Bytes;
use ferry_handoff::{Epoch, Snapshot};
use ferry_stack::host::Host;
use ferry_stack::interface::{self, Address};
use ferry_stack::tcp::{Config, Endpoint, Handle, Listener, Secret, State};
use ferry_stack::{EthernetAddress, Instant};

use crate::clock::{now_ns, thread_cpu_ns};
use crate::error::Doing;
use crate::namespace::Namespace;
use crate::report::Row;
use crate::sys::repair;
use crate::{Error, Result};

const MOVES: u32 = 2000;
const PORT: u16 = 80;

/// An established connection without data under way: ours, and one of the kernel's by its repair mode, in turn.
pub(super) fn empty(runs: usize) -> Result<Option<Row>> {
    let (mut pair, mut kernel) = (Pair::connected()?, Kernel::connected()?);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        ours.push(microseconds(|| pair.shuttle())?);
        theirs.push(kernel.measure()?);
    }
    kernel.check()?;
    let peer = ("the kernel's connection moved by TCP_REPAIR", theirs.as_slice());
    Ok(Row::new("host-time-empty", "µs", &ours, Some(peer), None))
}

/// The mean time of a core for one move.
#[allow(clippy::cast_precision_loss)] // Nanoseconds of a run.
fn microseconds(mut shuttle: impl FnMut() -> Result<()>) -> Result<f64> {
    let begun = thread_cpu_ns();
    for _ in 0..MOVES {
        shuttle()?;
    }
    Ok((thread_cpu_ns() - begun) as f64 * 1e-3 / f64::from(MOVES))
}

/// A connection of ours, where it is now, and where it goes next.
struct Pair {
    here: Endpoint,
    there: Endpoint,
    handle: Handle,
    epoch: Epoch,
}

impl Pair {
    fn connected() -> Result<Self> {
        let (client, server) = (address(1), address(2));
        let mut hosts = [host(client, 1), host(server, 2)];
        hosts[1].tcp.listen(PORT, Listener::new(Config::default()));
        let to = SocketAddrV6::new(server, PORT, 0, 0);
        let opened = hosts[0].tcp.connect(client, to, Config::default(), Instant::ZERO);
        opened.map_err(|error| broken(&error))?;
        exchange(&mut hosts);
        let [_, Host { tcp, .. }] = hosts;
        let found = tcp.iter().find(|(_, tcb)| tcb.state == State::Established).map(|(handle, _)| handle);
        let handle = found.ok_or_else(|| broken(&"no connection was established"))?;
        Ok(Self { here: tcp, there: endpoint(), handle, epoch: Epoch::FIRST })
    }

    fn shuttle(&mut self) -> Result<()> {
        let now = Instant::from_nanos(now_ns());
        let tcb = self.here.export(self.handle, now).ok_or_else(|| broken(&"the connection is gone"))?;
        self.epoch = self.epoch.next();
        let snapshot = Snapshot {
            epoch: self.epoch,
            service: "echo".to_owned(),
            tcb,
            session: Bytes::new(),
            wake: None,
            client: Bytes::new(),
        };
        let octets = snapshot.encode().map_err(|error| broken(&error))?;
        drop(snapshot);
        let arrived = Snapshot::decode(&octets).map_err(|error| broken(&error))?;
        self.handle = self.there.import(arrived.tcb, now).map_err(|error| broken(&error))?;
        core::mem::swap(&mut self.here, &mut self.there);
        Ok(())
    }
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

fn broken(why: &impl ToString) -> Error {
    Error::Program { command: "host-time-empty".to_owned(), why: why.to_string() }
}

/// A connection of the kernel's over its loopback.
struct Kernel {
    namespace: Namespace,
    /// Taken while it is on its way.
    moved: Option<TcpStream>,
    other: TcpStream,
}

impl Kernel {
    fn connected() -> Result<Self> {
        let namespace = Namespace::add("repair")?;
        let (other, moved) = namespace.run(|| {
            let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).doing("listen")?;
            let other = TcpStream::connect(listener.local_addr().doing("listen")?).doing("connect")?;
            Ok((other, listener.accept().doing("accept")?.0))
        })?;
        Ok(Self { namespace, moved: Some(moved), other })
    }

    fn measure(&mut self) -> Result<f64> {
        let moved = &mut self.moved;
        let shuttle = || {
            let stream = moved.take().ok_or_else(|| broken(&"the kernel's connection is gone"))?;
            let frozen = repair::freeze(stream).doing("freeze a connection of the kernel's")?;
            *moved = Some(repair::thaw(&frozen).doing("thaw a connection of the kernel's")?);
            Ok(())
        };
        // A socket belongs to the namespace of the thread that makes it.
        self.namespace.run(|| microseconds(shuttle))
    }

    /// Fails if the connection did not survive its moves: its time would be worth nothing.
    fn check(&mut self) -> Result<()> {
        let Some(moved) = &mut self.moved else { return Err(broken(&"the kernel's connection is gone")) };
        let mut octet = [0];
        self.other.write_all(&[7]).doing("send over the moved connection")?;
        moved.read_exact(&mut octet).doing("receive over the moved connection")
    }
}
