//! The client: the same for every server. It counts what it sent or received itself.

use core::net::SocketAddrV6;
use core::time::Duration;
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType};

use super::ground::broken;
use crate::clock::{nanos, now_ns, timespec};
use crate::error::Doing;
use crate::{Error, Result};

/// Octets of one read or write of an application.
pub(super) const CHUNK: usize = 1 << 18;
/// Reads or writes of one connection before the next has its turn.
const TURN: usize = 4;
/// Nothing of ours stands still for so long unless it is dead.
const STALL: Duration = Duration::from_secs(10);

/// Which way the octets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From the client to the server under test.
    In,
    /// From the server under test to the client.
    Out,
}

/// Opens a connection. It is CUBIC's from the SYN on: a socket that was BBR's once, as is the default on some machines,
/// goes on pacing.
fn connect(to: SocketAddrV6) -> Result<TcpStream> {
    use rustix::net::sockopt::{Timeout, set_socket_timeout, set_tcp_congestion};
    let socket =
        rustix::net::socket_with(AddressFamily::INET6, SocketType::STREAM, SocketFlags::CLOEXEC, None)
            .doing("open a socket")?;
    set_tcp_congestion(&socket, "cubic").doing("choose CUBIC")?;
    set_socket_timeout(&socket, Timeout::Send, Some(STALL)).doing("limit the wait")?;
    rustix::net::connect(&socket, &to).doing(format!("connect to {to}"))?;
    let stream = TcpStream::from(socket);
    stream.set_nodelay(true).doing("send at once")?;
    Ok(stream)
}

/// Moves octets over so many connections for `during` after `before`; the goodput of them all in Gbit/s.
pub(super) fn bulk(
    to: SocketAddrV6,
    way: Way,
    connections: usize,
    before: Duration,
    during: Duration,
) -> Result<f64> {
    let epoll = epoll::create(CreateFlags::CLOEXEC).doing("make an epoll set")?;
    let wanted = if way == Way::In { EventFlags::OUT } else { EventFlags::IN };
    let mut streams = Vec::new();
    for index in 0..connections {
        let stream = connect(to)?;
        stream.set_nonblocking(true).doing("do not block")?;
        epoll::add(&epoll, &stream, EventData::new_u64(index as u64), wanted).doing("wait")?;
        streams.push(stream);
    }
    let mut buffer = vec![0x55; CHUNK];
    let mut events = Vec::with_capacity(connections);
    let mut move_until = |end: u64| {
        let mut octets = 0;
        while now_ns() < end {
            events.clear();
            let room = rustix::buffer::spare_capacity(&mut events);
            let count = epoll::wait(&epoll, room, Some(&timespec(STALL))).doing("wait")?;
            if count == 0 {
                return Err(Error::Late { what: "any octet".to_owned(), within_s: STALL.as_secs() });
            }
            for event in &events {
                let epoll::Event { data, .. } = *event;
                let index = usize::try_from(data.u64()).unwrap_or(0);
                octets += turn(&mut streams[index], way, &mut buffer)?;
            }
        }
        Ok(octets)
    };
    move_until(now_ns() + nanos(before))?;
    let begun = now_ns();
    let octets = move_until(begun + nanos(during))?;
    Ok(rate(octets, now_ns() - begun))
}

#[allow(clippy::cast_precision_loss)] // No run of ours has 2⁵³ of either.
fn rate(octets: u64, ns: u64) -> f64 {
    octets as f64 * 8.0 / ns as f64
}

fn turn(stream: &mut TcpStream, way: Way, buffer: &mut [u8]) -> Result<u64> {
    let mut octets = 0;
    for _ in 0..TURN {
        let moved = if way == Way::In { stream.write(buffer) } else { stream.read(buffer) };
        match moved {
            Ok(0) => return Err(broken("the server closed a connection in the middle of a run")),
            Ok(length) => octets += length as u64,
            Err(why) if why.kind() == ErrorKind::WouldBlock => break,
            Err(why) => return Err(why).doing("move octets"),
        }
    }
    Ok(octets)
}

/// The median time in µs of so many round trips of one octet. With `spin` the client asks for the answer without
/// sleeping.
#[allow(clippy::cast_precision_loss)] // Nanoseconds of a round trip.
pub(super) fn round_trips(to: SocketAddrV6, count: usize, spin: bool) -> Result<f64> {
    let mut stream = connect(to)?;
    stream.set_read_timeout(Some(STALL)).doing("limit the wait")?;
    stream.set_nonblocking(spin).doing("choose to block or not")?;
    let mut times = Vec::with_capacity(count);
    for nth in 0..count + count / 10 {
        let begun = now_ns();
        stream.write_all(&[1]).doing("send an octet")?;
        await_octet(&mut stream, begun)?;
        if nth >= count / 10 {
            times.push((now_ns() - begun) as f64 * 1e-3);
        }
    }
    crate::report::median(&times).ok_or_else(|| broken("no round trip was made"))
}

fn await_octet(stream: &mut TcpStream, begun: u64) -> Result<()> {
    let mut octet = [0];
    loop {
        match stream.read(&mut octet) {
            Ok(0) => return Err(broken("the server closed the connection")),
            Ok(_) => return Ok(()),
            Err(why) if why.kind() == ErrorKind::WouldBlock && now_ns() < begun + nanos(STALL) => {}
            Err(why) => return Err(why).doing("receive an octet"),
        }
    }
}

/// Opens connections and closes them at once, with so many under way at a time; how many a second.
#[allow(clippy::cast_precision_loss)] // A count.
pub(super) fn connect_close(to: SocketAddrV6, in_flight: u64, during: Duration) -> Result<f64> {
    let mut churn = Churn {
        epoll: epoll::create(CreateFlags::CLOEXEC).doing("make an epoll set")?,
        to,
        sockets: HashMap::new(),
        done: 0,
    };
    for id in 0..in_flight {
        churn.open(id)?;
    }
    let begun = now_ns();
    let mut events = Vec::with_capacity(64);
    while now_ns() < begun + nanos(during) {
        events.clear();
        let room = rustix::buffer::spare_capacity(&mut events);
        if epoll::wait(&churn.epoll, room, Some(&timespec(STALL))).doing("wait")? == 0 {
            return Err(Error::Late { what: "a connection".to_owned(), within_s: STALL.as_secs() });
        }
        for event in &events {
            let epoll::Event { data, flags } = *event;
            churn.go_on(data.u64(), flags)?;
        }
    }
    Ok(churn.done as f64 * 1e9 / (now_ns() - begun) as f64)
}

struct Churn {
    epoll: OwnedFd,
    to: SocketAddrV6,
    /// And whether our end is finished.
    sockets: HashMap<u64, (OwnedFd, bool)>,
    done: u64,
}

impl Churn {
    fn open(&mut self, id: u64) -> Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET6, SocketType::STREAM, flags, None)
            .doing("open a socket")?;
        match rustix::net::connect(&socket, &self.to) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(why) => return Err(why).doing("connect"),
        }
        // Each change is told once, so that what is waited for need not be changed.
        let wanted = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        epoll::add(&self.epoll, &socket, EventData::new_u64(id), wanted).doing("wait")?;
        self.sockets.insert(id, (socket, false));
        Ok(())
    }

    fn go_on(&mut self, id: u64, flags: EventFlags) -> Result<()> {
        let Some((socket, finished)) = self.sockets.get_mut(&id) else { return Ok(()) };
        if flags.contains(EventFlags::ERR) {
            let why = rustix::net::sockopt::socket_error(&*socket).doing("ask what is wrong")?;
            return Err(broken(format!("a connection failed: {:?}", why.err())));
        }
        if !*finished && flags.contains(EventFlags::OUT) {
            rustix::net::shutdown(&*socket, Shutdown::Write).doing("finish")?;
            *finished = true;
        }
        // Nothing is ever sent to us, so that what there is to read is the end.
        if *finished && flags.contains(EventFlags::IN) {
            self.sockets.remove(&id);
            self.done += 1;
            self.open(id)?;
        }
        Ok(())
    }
}

/// So many clients at a time, each with one octet there and back; how many were served within `patience`.
pub(super) fn honest(to: SocketAddrV6, clients: u32, patience: Duration) -> usize {
    let serve = || -> std::io::Result<()> {
        let mut stream = TcpStream::connect_timeout(&SocketAddr::V6(to), patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.write_all(&[1])?;
        stream.read_exact(&mut [0])
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(serve)).collect();
        clients.into_iter().filter_map(|client| client.join().ok()).flatten().count()
    })
}
