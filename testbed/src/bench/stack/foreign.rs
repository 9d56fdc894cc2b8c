//! smoltcp's TCP as it is, over its own driver of a TAP.

use core::net::SocketAddrV6;
use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Medium, TunTapInterface, wait};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr};

use super::ground::{Ground, SERVER_CORE, Tap, await_server, broken, on};
use super::ours::{DISCARD, SOURCE};
use crate::Result;
use crate::error::Doing;

/// Octets of each of a socket's buffers: as much as it makes use of over a TAP.
const BUFFER: usize = 1 << 20;
/// Sockets at each port: one that listens takes one connection, and another must listen when the next comes.
const SOCKETS: usize = 2;
const BEAT: Duration = Duration::from_millis(50);

/// A server on smoltcp's sockets.
#[derive(Debug)]
pub(super) struct Foreign {
    stop: Arc<AtomicBool>,
    /// Taken when it is ended.
    thread: Option<JoinHandle<Result<()>>>,
    tap: Tap,
}

impl Foreign {
    /// Starts it behind a TAP, on the servers' core.
    pub(super) fn start(ground: &Ground, tap: Tap) -> Result<Self> {
        let stop = Arc::<AtomicBool>::default();
        let thread = on(&ground.near, SERVER_CORE, || {
            let stop = Arc::clone(&stop);
            let serve = move || {
                // Not `Send`: made where it is used.
                let device =
                    TunTapInterface::new(tap.device, Medium::Ethernet).doing("attach smoltcp to a TAP")?;
                Server::new(device, &tap).run(&stop)
            };
            std::thread::Builder::new().name("smoltcp".to_owned()).spawn(serve).doing("start a thread")
        })?;
        let foreign = Self { stop, thread: Some(thread), tap };
        await_server(&ground.near, foreign.at(DISCARD))?;
        Ok(foreign)
    }

    /// Where it serves.
    pub(super) fn at(&self, port: u16) -> SocketAddrV6 {
        SocketAddrV6::new(self.tap.other(), port, 0, 0)
    }

    /// Ends it; fails if something went wrong in it.
    pub(super) fn stop(mut self) -> Result<()> {
        self.end().unwrap_or(Ok(()))
    }

    fn end(&mut self) -> Option<Result<()>> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take()?.join();
        Some(ended.unwrap_or_else(|_| Err(broken("smoltcp's server panicked"))))
    }
}

impl Drop for Foreign {
    /// The TAP is free again.
    fn drop(&mut self) {
        drop(self.end());
    }
}

struct Server {
    device: TunTapInterface,
    interface: Interface,
    sockets: SocketSet<'static>,
    ports: Vec<(u16, SocketHandle)>,
}

impl Server {
    fn new(mut device: TunTapInterface, tap: &Tap) -> Self {
        let mac = HardwareAddress::Ethernet(EthernetAddress([2, 0xfd, 0, 0, 0, 3]));
        let mut interface = Interface::new(Config::new(mac), &mut device, Instant::now());
        interface.update_ip_addrs(|addresses| {
            // There is room for it: the list is empty.
            let _ = addresses.push(IpCidr::new(tap.other().into(), 64));
        });
        let mut sockets = SocketSet::new(Vec::new());
        let buffer = || tcp::SocketBuffer::new(vec![0; BUFFER]);
        let mut add = |port| (port, sockets.add(tcp::Socket::new(buffer(), buffer())));
        let ports = [DISCARD, SOURCE].repeat(SOCKETS).into_iter().map(&mut add).collect();
        Self { device, interface, sockets, ports }
    }

    fn run(mut self, stop: &AtomicBool) -> Result<()> {
        let fd = self.device.as_raw_fd();
        while !stop.load(Ordering::Relaxed) {
            let now = Instant::now();
            self.interface.poll(now, &mut self.device, &mut self.sockets);
            for (port, handle) in &self.ports {
                serve(self.sockets.get_mut(*handle), *port)?;
            }
            let delay = self.interface.poll_delay(now, &self.sockets).map_or(BEAT, |delay| delay.min(BEAT));
            if delay > Duration::ZERO {
                wait(fd, Some(delay)).doing("wait for a frame")?;
            }
        }
        Ok(())
    }
}

/// Nothing is copied on the application's side.
fn serve(socket: &mut tcp::Socket<'_>, port: u16) -> Result<()> {
    if !socket.is_open() {
        socket.listen(port).map_err(broken)?;
    }
    while socket.can_recv() {
        socket.recv(|octets| (octets.len(), ())).map_err(broken)?;
    }
    while port == SOURCE && socket.can_send() {
        socket.send(|room| (room.len(), ())).map_err(broken)?;
    }
    if socket.is_active() && !socket.may_recv() && socket.state() != tcp::State::SynReceived {
        socket.abort();
    }
    Ok(())
}
