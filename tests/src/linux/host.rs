//! The kernel of this machine as a host like any other: its TCP in a network namespace of its own behind a TAP, its
//! sockets in this process.

use core::cell::Cell;
use core::net::{Ipv6Addr, SocketAddrV6};
use core::time::Duration;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use ferry_node::driver::Tap;
use ferry_stack::interface;
use ferry_stack::tcp::Tcb;
use ferry_stack::{Frame, Instant};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::namespace::sh;
use crate::octets::Octets;
use crate::stack::{End, Phase, Stack};

/// Octets that are written or read in one go.
const CHUNK: usize = 64 << 10;

/// A network namespace that lives as long as this value.
#[derive(Debug)]
pub struct Namespace {
    /// Holds it, and ends when its standard input does.
    keeper: Child,
    file: File,
}

impl Namespace {
    /// A new one, with nothing in it.
    pub fn new() -> io::Result<Self> {
        let mut keeper = Command::new("unshare")
            .args(["--net", "sh", "-c", "echo; exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        // It says something when it is inside.
        keeper.stdout.as_mut().ok_or(io::ErrorKind::BrokenPipe)?.read_exact(&mut [0])?;
        let file = File::open(format!("/proc/{}/ns/net", keeper.id()))?;
        Ok(Self { keeper, file })
    }

    /// Does something in there. What it opens stays there.
    pub fn inside<R: Send>(&self, act: impl FnOnce() -> R + Send) -> R {
        let enter = || {
            move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("whoever made it may enter it");
            act()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().expect("it does what it should"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        drop(self.keeper.wait());
    }
}

/// The kernel as a host.
#[derive(Debug)]
pub struct KernelHost {
    namespace: Namespace,
    tap: Tap,
    address: Ipv6Addr,
    listeners: Vec<(TcpListener, u16)>,
    sockets: Vec<Socket>,
}

/// One of its connections.
#[derive(Debug)]
struct Socket {
    /// None, once it was given up.
    stream: Option<TcpStream>,
    opened: Cell<bool>,
    /// Whether the other side has finished.
    ended: bool,
    /// Whether this side has.
    finished: bool,
    end: Option<End>,
}

impl KernelHost {
    /// A host on a link. With `offload` it sends and takes super-segments. `min_rto` is its least retransmission
    /// timeout.
    pub fn new(config: &interface::Config, offload: bool, min_rto: Duration) -> Self {
        let namespace = Namespace::new().expect("a test in a namespace can make more of them");
        let address = config.addresses.first().map_or(Ipv6Addr::UNSPECIFIED, |first| first.address);
        let subnet = Ipv6Addr::from_bits(address.to_bits() & !0xffff);
        let (mtu, rto) = (config.mtu, min_rto.as_millis());
        let mac = config.mac.to_string().replace('-', ":");
        let setup = format!(
            "ip link set lo up
             ip tuntap add dev ferry0 mode tap{}
             ip link set ferry0 address {mac} mtu {mtu} up
             ip -6 address add {address}/64 dev ferry0 nodad noprefixroute
             ip -6 route add {subnet}/64 dev ferry0 rto_min {rto}ms
             echo 1 >/proc/sys/net/ipv4/tcp_no_metrics_save",
            if offload { " vnet_hdr" } else { "" }
        );
        let tap = namespace.inside(|| {
            sh(&setup);
            Tap::open("ferry0", offload).expect("the TAP was just made")
        });
        Self { namespace, tap, address, listeners: Vec::new(), sockets: Vec::new() }
    }

    fn add(&mut self, stream: TcpStream, opened: bool) -> usize {
        stream.set_nonblocking(true).expect("a socket can be made not to block");
        let opened = Cell::new(opened);
        self.sockets.push(Socket { stream: Some(stream), opened, ended: false, finished: false, end: None });
        self.sockets.len() - 1
    }
}

impl Stack for KernelHost {
    fn listen(&mut self, port: u16) {
        let local = SocketAddrV6::new(self.address, port, 0, 0);
        let listener = self.namespace.inside(|| TcpListener::bind(local)).expect("the port is free");
        listener.set_nonblocking(true).expect("a socket can be made not to block");
        self.listeners.push((listener, port));
    }

    fn accept(&mut self) -> Option<(usize, u16)> {
        let mut listeners = self.listeners.iter();
        let (stream, port) = listeners.find_map(|(it, port)| Some((it.accept().ok()?.0, *port)))?;
        Some((self.add(stream, true), port))
    }

    fn connect(&mut self, server: SocketAddrV6, _: Instant) -> (usize, SocketAddrV6) {
        let open = || {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            rustix::net::socket_with(AddressFamily::INET6, SocketType::STREAM, flags, None)
        };
        let socket = self.namespace.inside(open).expect("a socket can be made");
        let begun = rustix::net::connect(&socket, &server);
        assert_eq!(begun, Err(rustix::io::Errno::INPROGRESS));
        let stream = TcpStream::from(socket);
        let local = match stream.local_addr() {
            Ok(std::net::SocketAddr::V6(local)) => local,
            other => panic!("a socket of IPv6 has an address of IPv6: {other:?}"),
        };
        (self.add(stream, false), SocketAddrV6::new(*local.ip(), local.port(), 0, 0))
    }

    fn phase(&self, connection: usize) -> Phase {
        let socket = &self.sockets[connection];
        match socket.end {
            Some(end) => Phase::Over(end),
            None if socket.ended && socket.finished => Phase::Over(End::Finished),
            None if socket.is_open() => Phase::Open,
            None => Phase::Opening,
        }
    }

    fn is_settled(&self, connection: usize) -> bool {
        matches!(self.phase(connection), Phase::Over(_))
    }

    fn act(&mut self, connection: usize, _: Instant, act: &mut dyn FnMut(&mut dyn Octets)) {
        let socket = &mut self.sockets[connection];
        if socket.end.is_none() {
            act(socket);
        }
    }

    fn receive(&mut self, frame: Frame, _: Instant) {
        // One that finds no room is lost, as on any link.
        self.tap.send(&frame).expect("the TAP is there");
    }

    fn transmit(&mut self, _: Instant) -> Option<Frame> {
        self.tap.receive().expect("the TAP is there")
    }

    fn deadline(&mut self, _: Instant) -> Option<Instant> {
        None
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn tcbs(&self, _: Instant) -> Vec<(&Tcb, Instant)> {
        Vec::new()
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.tap.as_fd())
    }
}

/// Whether something can be done with a socket now.
fn is_ready(stream: &TcpStream, what: PollFlags) -> bool {
    let mut waited = [PollFd::new(stream, what)];
    poll(&mut waited, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok() && !waited[0].revents().is_empty()
}

impl Socket {
    fn is_open(&self) -> bool {
        let opened = self.opened.get() || self.stream.as_ref().is_none_or(|it| is_ready(it, PollFlags::OUT));
        self.opened.set(opened);
        opened
    }

    /// What came of a call. An error that does not pass means that the connection is gone.
    fn judged(&mut self, result: io::Result<usize>) -> Option<usize> {
        match result {
            Ok(len) => Some(len),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => {
                let timed_out = error.kind() == io::ErrorKind::TimedOut;
                self.end = Some(if timed_out { End::TimedOut } else { End::Reset });
                None
            }
        }
    }
}

impl Octets for Socket {
    fn read(&mut self, max: usize) -> Bytes {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.ended) else { return Bytes::new() };
        let mut octets = vec![0; max.min(CHUNK)];
        let result = stream.read(&mut octets);
        let read = self.judged(result);
        self.ended |= read == Some(0);
        octets.truncate(read.unwrap_or(0));
        octets.into()
    }

    fn at_end(&self) -> bool {
        self.ended
    }

    fn writable(&self) -> usize {
        let stream = self.stream.as_ref().filter(|_| self.end.is_none());
        if stream.is_some_and(|stream| is_ready(stream, PollFlags::OUT)) { CHUNK } else { 0 }
    }

    fn write(&mut self, mut octets: Bytes) -> Bytes {
        let Some(stream) = &mut self.stream else { return octets };
        let result = stream.write(&octets);
        let written = self.judged(result).unwrap_or(0);
        octets.split_off(written)
    }

    fn finish(&mut self) {
        if let Some(stream) = &self.stream {
            // It fails if the connection is gone, which reading tells.
            drop(stream.shutdown(Shutdown::Write));
        }
        self.finished = true;
    }

    fn reset(&mut self) {
        if let Some(stream) = self.stream.take() {
            sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("a socket has this option");
        }
        self.end = Some(End::Aborted);
    }
}
