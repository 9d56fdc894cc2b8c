//! The kernel's side: the same services on its sockets, by one thread with epoll, or by blocking calls.

use core::net::{Ipv6Addr, SocketAddrV6};
use core::sync::atomic::{AtomicBool, Ordering};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use super::client::CHUNK;
use super::ground::{Ground, KERNEL, SERVER_CORE, broken, on};
use super::ours::{DISCARD, ECHO, SOURCE};
use crate::Result;
use crate::clock::timespec;
use crate::error::Doing;

/// How soon a server notices that it is to end.
const BEAT: core::time::Duration = core::time::Duration::from_millis(50);
/// Reads or writes of one connection before the next has its turn.
const TURN: usize = 4;
/// Echo by blocking calls: one connection at a time.
pub(super) const ECHO_BLOCKING: u16 = 1007;

/// Servers on the kernel's sockets, on the servers' core. Dropping it ends them.
#[derive(Debug)]
pub(super) struct Kernel {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Kernel {
    /// Starts the servers.
    pub(super) fn start(ground: &Ground) -> Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let threads = on(&ground.server, SERVER_CORE, || {
            let server = Server::new([ECHO, DISCARD, SOURCE])?;
            let listener = listen(ECHO_BLOCKING)?;
            let (one, other) = (Arc::clone(&stop), Arc::clone(&stop));
            let start = |name: &str| std::thread::Builder::new().name(name.to_owned());
            Ok(vec![
                start("kernel").spawn(move || server.run(&one)).doing("start a thread")?,
                start("kernel-echo")
                    .spawn(move || echo_blocking(&listener, &other))
                    .doing("start a thread")?,
            ])
        })?;
        Ok(Self { stop, threads })
    }

    /// Where it serves.
    pub(super) fn at(port: u16) -> SocketAddrV6 {
        SocketAddrV6::new(KERNEL, port, 0, 0)
    }

    /// Ends it; fails if something went wrong in it.
    pub(super) fn stop(mut self) -> Result<()> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| broken("the kernel's server panicked"))??;
        }
        Ok(())
    }
}

impl Drop for Kernel {
    /// Its ports are free again.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| drop(thread.join()));
    }
}

fn listen(port: u16) -> Result<TcpListener> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).doing("listen")?;
    rustix::net::listen(&listener, 4096).doing("listen")?;
    rustix::net::sockopt::set_tcp_congestion(&listener, "cubic").doing("choose CUBIC")?;
    listener.set_nonblocking(true).doing("listen without blocking")?;
    Ok(listener)
}

fn echo_blocking(listener: &TcpListener, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        let Ok((mut stream, _)) = listener.accept() else {
            crate::clock::pause(BEAT / 10);
            continue;
        };
        stream.set_nonblocking(false).doing("block")?;
        stream.set_nodelay(true).doing("send at once")?;
        let mut octets = [0; 64];
        while let Ok(length @ 1..) = stream.read(&mut octets) {
            stream.write_all(&octets[..length]).doing("echo")?;
        }
    }
    Ok(())
}

struct Server {
    epoll: OwnedFd,
    listeners: Vec<(u16, TcpListener)>,
    streams: HashMap<u64, (u16, TcpStream)>,
    next: u64,
    buffer: Vec<u8>,
}

impl Server {
    fn new(ports: [u16; 3]) -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).doing("make an epoll set")?;
        let mut listeners = Vec::new();
        for (index, port) in (0..).zip(ports) {
            let listener = listen(port)?;
            epoll::add(&epoll, &listener, EventData::new_u64(index), EventFlags::IN).doing("wait")?;
            listeners.push((port, listener));
        }
        Ok(Self { epoll, listeners, streams: HashMap::new(), next: 16, buffer: vec![0; CHUNK] })
    }

    fn run(mut self, stop: &AtomicBool) -> Result<()> {
        let mut events = Vec::with_capacity(64);
        while !stop.load(Ordering::Relaxed) {
            events.clear();
            let room = rustix::buffer::spare_capacity(&mut events);
            epoll::wait(&self.epoll, room, Some(&timespec(BEAT))).doing("wait")?;
            for event in &events {
                let epoll::Event { data, .. } = *event;
                match usize::try_from(data.u64()).ok().filter(|index| *index < self.listeners.len()) {
                    Some(index) => self.accept(index)?,
                    None => self.serve(data.u64()),
                }
            }
        }
        Ok(())
    }

    fn accept(&mut self, index: usize) -> Result<()> {
        let (port, listener) = &self.listeners[index];
        while let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true).doing("accept")?;
            let wanted = if *port == SOURCE { EventFlags::OUT } else { EventFlags::IN };
            epoll::add(&self.epoll, &stream, EventData::new_u64(self.next), wanted).doing("wait")?;
            self.streams.insert(self.next, (*port, stream));
            self.next += 1;
        }
        Ok(())
    }

    /// Closing a stream takes it out of the set.
    fn serve(&mut self, id: u64) {
        let Some((port, stream)) = self.streams.get_mut(&id) else { return };
        for _ in 0..TURN {
            let moved = match *port {
                SOURCE => stream.write(&self.buffer),
                DISCARD => stream.read(&mut self.buffer),
                _ => stream.read(&mut self.buffer).and_then(|length| stream.write(&self.buffer[..length])),
            };
            match moved {
                Ok(1..) => {}
                Err(why) if why.kind() == ErrorKind::WouldBlock => return,
                Ok(_) | Err(_) => {
                    self.streams.remove(&id);
                    return;
                }
            }
        }
    }
}
