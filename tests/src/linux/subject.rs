//! The two TCPs that are compared: the kernel's, behind a TAP, and ours, in this process. The scripted peer sees
//! both in the same way.

use core::net::{Ipv6Addr, SocketAddrV6};
use core::time::Duration;
use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

use bytes::Bytes;
use ferry_node::driver::Tap;
use ferry_stack::host::Host;
use ferry_stack::interface::{self, Address};
use ferry_stack::tcp::{Config, Ending, Event, Handle, Listener, Secret, Tcb};
use ferry_stack::{EthernetAddress, Frame, Instant};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};

use super::segment::{self, Heard, MAC, Raw};
use crate::link;

/// Where both stacks are.
pub const ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 1);
/// Where the scripted peer is.
pub const PEER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x77, 0, 0, 0, 0, 2);

/// What an application gets when it reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    /// Octets.
    Octets(Vec<u8>),
    /// None now.
    Nothing,
    /// The other side has finished.
    End,
    /// The connection is gone.
    Broken,
}

/// A TCP with at most one connection, seen from its application and from the wire.
pub trait Subject {
    /// Accepts a connection from the peer.
    fn listen(&mut self);
    /// Opens one to the peer.
    fn connect(&mut self);
    /// The port at its end.
    fn port(&self) -> u16;
    /// Takes a segment of the peer.
    fn take(&mut self, segment: &Raw);
    /// Everything that it sent to the peer since it was asked last.
    fn heard(&mut self) -> Vec<Raw>;
    /// Queues octets to be sent; how many it took.
    fn write(&mut self, octets: &[u8]) -> usize;
    /// Reads at most so many octets.
    fn read(&mut self, max: usize) -> Got;
    /// Writes no more.
    fn finish(&mut self);
    /// Neither writes nor reads any more.
    fn close(&mut self);
    /// Gives the connection up.
    fn abort(&mut self);
}

/// The kernel's TCP, with the application's socket in this process.
#[derive(Debug)]
pub struct Kernel<'a> {
    tap: &'a mut Tap,
    peer: SocketAddrV6,
    local: SocketAddrV6,
    listener: Option<TcpListener>,
    stream: Option<TcpStream>,
    broken: bool,
    nodelay: bool,
    /// Whether its SYN was seen.
    opened: bool,
    fence: u16,
}

impl<'a> Kernel<'a> {
    /// The kernel behind a TAP; `port` is the peer's, and the listener's.
    pub fn new(tap: &'a mut Tap, port: u16, nodelay: bool) -> Self {
        let end = |address| SocketAddrV6::new(address, port, 0, 0);
        let (peer, local) = (end(PEER), end(ADDRESS));
        Self {
            tap,
            peer,
            local,
            listener: None,
            stream: None,
            broken: false,
            nodelay,
            opened: false,
            fence: 0,
        }
    }

    /// Waits until the kernel has noticed that somebody is at the other end of the TAP.
    pub fn await_carrier(&mut self) {
        for _ in 0..500 {
            self.send(segment::echo_request(self.fence, PEER.octets(), ADDRESS.octets()));
            let mut waited = [PollFd::new(&*self.tap, PollFlags::IN)];
            let pause = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
            poll(&mut waited, Some(&pause)).expect("a TAP can be waited for");
            while let Some(frame) = self.tap.receive().expect("the TAP is there") {
                if segment::read(&frame.contiguous().head) == Heard::Echo(self.fence) {
                    return;
                }
            }
        }
        panic!("the kernel does not answer on the TAP");
    }

    fn send(&self, frame: Vec<u8>) {
        self.tap.send(&Frame::received(frame.into())).expect("the TAP is there");
    }

    fn stream(&mut self) -> Option<&mut TcpStream> {
        if self.stream.is_none()
            && !self.broken
            && let Some((stream, _)) = self.listener.as_ref().and_then(|it| it.accept().ok())
        {
            stream.set_nonblocking(true).expect("a socket can be made not to block");
            stream.set_nodelay(self.nodelay).expect("a TCP socket has this option");
            self.stream = Some(stream);
        }
        self.stream.as_mut()
    }
}

/// Which errors mean that the connection is gone.
fn breaks(error: &io::Error) -> bool {
    !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotConnected)
}

impl Subject for Kernel<'_> {
    fn listen(&mut self) {
        let listener = TcpListener::bind(self.local).expect("the port is free");
        // RFC 6093: nothing is urgent.
        sockopt::set_socket_oobinline(&listener, true).expect("a socket has this option");
        listener.set_nonblocking(true).expect("a socket can be made not to block");
        self.listener = Some(listener);
    }

    fn connect(&mut self) {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(AddressFamily::INET6, SocketType::STREAM, flags, None)
            .expect("a socket can be made");
        sockopt::set_socket_oobinline(&socket, true).expect("a socket has this option");
        rustix::net::bind(&socket, &self.local).expect("the port is free");
        let begun = rustix::net::connect(&socket, &self.peer);
        assert_eq!(begun, Err(rustix::io::Errno::INPROGRESS));
        let stream = TcpStream::from(socket);
        stream.set_nodelay(self.nodelay).expect("a TCP socket has this option");
        self.stream = Some(stream);
    }

    fn port(&self) -> u16 {
        self.local.port()
    }

    fn take(&mut self, segment: &Raw) {
        self.send(segment.frame(self.peer, self.local));
    }

    /// The kernel handles what a TAP is given in order, on the processor that gives it. So all that it has to say to
    /// what it got comes before the answer to an echo request.
    fn heard(&mut self) -> Vec<Raw> {
        self.fence = self.fence.wrapping_add(1);
        self.send(segment::echo_request(self.fence, PEER.octets(), ADDRESS.octets()));
        let mut heard = Vec::new();
        loop {
            let Some(frame) = self.tap.receive().expect("the TAP is there") else {
                let mut waited = [PollFd::new(&*self.tap, PollFlags::IN)];
                let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
                assert_eq!(poll(&mut waited, Some(&patience)), Ok(1), "the kernel answers an echo request");
                continue;
            };
            for frame in link::finished(frame) {
                match segment::read(&frame.contiguous().head) {
                    Heard::Segment(from, to, raw) if (from, to) == (self.local, self.peer) => {
                        // After an ACK of something else it sends its SYN again within milliseconds, by a timer.
                        let opens = raw.bits.syn && !raw.bits.ack;
                        if !(opens && core::mem::replace(&mut self.opened, true)) {
                            heard.push(raw);
                        }
                    }
                    Heard::Echo(number) if number == self.fence => return heard,
                    _ => {}
                }
            }
        }
    }

    fn write(&mut self, octets: &[u8]) -> usize {
        let Some(stream) = self.stream() else { return 0 };
        let written = stream.write(octets);
        self.broken |= written.as_ref().is_err_and(breaks);
        written.unwrap_or(0)
    }

    fn read(&mut self, max: usize) -> Got {
        let broken = self.broken;
        let Some(stream) = self.stream() else { return if broken { Got::Broken } else { Got::Nothing } };
        let mut octets = vec![0; max];
        let mut len = 0;
        // A read stops at an urgent octet, even if it is one like all others.
        let result = loop {
            match stream.read(&mut octets[len..]) {
                Ok(more) if more > 0 => len += more,
                result => break result,
            }
        };
        octets.truncate(len);
        self.broken |= result.as_ref().is_err_and(breaks);
        match result {
            _ if len > 0 => Got::Octets(octets),
            // The kernel tells of an error once.
            _ if self.broken => Got::Broken,
            Ok(_) => Got::End,
            Err(_) => Got::Nothing,
        }
    }

    fn finish(&mut self) {
        if let Some(stream) = self.stream() {
            // It fails if the connection is gone, which reading tells.
            drop(stream.shutdown(Shutdown::Write));
        }
    }

    fn close(&mut self) {
        if self.stream().is_some() {
            self.broken = true;
            self.stream = None;
        }
    }

    fn abort(&mut self) {
        if let Some(stream) = self.stream() {
            sockopt::set_socket_linger(stream, Some(Duration::ZERO)).expect("a socket has this option");
            self.close();
        }
    }
}

impl Drop for Kernel<'_> {
    fn drop(&mut self) {
        self.abort();
    }
}

/// Between two events at our stack.
const STEP: Duration = Duration::from_millis(150);

/// Our TCP.
#[derive(Debug)]
pub struct Ours {
    host: Host,
    now: Instant,
    config: Config,
    peer: SocketAddrV6,
    local: SocketAddrV6,
    handle: Option<Handle>,
    ending: Option<Ending>,
    /// Whether the application has closed.
    closed: bool,
    frames: VecDeque<Frame>,
}

impl Ours {
    /// A host like the kernel's.
    pub fn new(port: u16, config: Config, secret: [u8; 32]) -> Self {
        let settings = interface::Config {
            mac: EthernetAddress(MAC),
            addresses: vec![Address { address: ADDRESS, prefix_len: 64 }],
            gateway: None,
            mtu: 1500,
        };
        let end = |address| SocketAddrV6::new(address, port, 0, 0);
        Self {
            host: Host::new(settings, Secret::new(secret), false),
            now: Instant::from_millis(1_000),
            config,
            peer: end(PEER),
            local: end(ADDRESS),
            handle: None,
            ending: None,
            closed: false,
            frames: VecDeque::new(),
        }
    }

    /// Lets the engine send. Every segment is to be acknowledged at once, as the kernel is told by its route.
    fn run(&mut self) {
        loop {
            while let Some(frame) = self.host.poll_transmit(self.now) {
                self.frames.extend(link::finished(frame));
            }
            while let Some(event) = self.host.tcp.poll_event() {
                match event {
                    Event::Closed(_, _, ending, _) => self.ending = Some(ending),
                    Event::Acceptable(port) => self.handle = self.host.tcp.accept(port),
                    Event::Connected(_) | Event::Ready(_) => {}
                }
            }
            if !self.introduce() {
                return;
            }
        }
    }

    /// Answers questions for the peer's MAC address. Whether there were any.
    fn introduce(&mut self) -> bool {
        let mut answers = Vec::new();
        self.frames.retain(|frame| match segment::read(&frame.clone().contiguous().head) {
            Heard::WhoHas { asker, target } if target == PEER.octets() => {
                answers.push(segment::advertisement(asker, target));
                false
            }
            _ => true,
        });
        let asked = !answers.is_empty();
        for answer in answers {
            self.host.receive(Frame::received(answer.into()), self.now);
        }
        asked
    }

    fn be_quick(&mut self) {
        let handles: Vec<_> = self.host.tcp.iter().map(|(handle, _)| handle).collect();
        for handle in handles {
            self.host.tcp.with(handle, |tcb| tcb.rcv.quick = u8::MAX);
        }
    }

    fn with<R>(&mut self, act: impl FnOnce(&mut Tcb, Instant) -> R) -> Option<R> {
        let now = self.now;
        let result = self.host.tcp.with(self.handle?, |tcb| act(tcb, now));
        self.run();
        result
    }
}

impl Subject for Ours {
    fn listen(&mut self) {
        self.host.tcp.listen(self.local.port(), Listener::new(self.config));
    }

    fn connect(&mut self) {
        let handle =
            self.host.tcp.connect(ADDRESS, self.peer, self.config, self.now).expect("a port is free");
        self.local = self.host.tcp.get(handle).expect("it was just opened").flow.local;
        self.handle = Some(handle);
        self.run();
    }

    fn port(&self) -> u16 {
        self.local.port()
    }

    fn take(&mut self, segment: &Raw) {
        // No timer comes due, however much time passes: the kernel's are put off for as long as a conversation lasts.
        self.now += STEP;
        self.be_quick();
        let frame = segment.frame(self.peer, self.local);
        self.host.receive(Frame::received(frame.into()), self.now);
        self.run();
    }

    fn heard(&mut self) -> Vec<Raw> {
        self.run();
        let frames = core::mem::take(&mut self.frames);
        let read = |frame: Frame| match segment::read(&frame.contiguous().head) {
            Heard::Segment(from, to, raw) if (from, to) == (self.local, self.peer) => Some(raw),
            _ => None,
        };
        frames.into_iter().filter_map(read).collect()
    }

    fn write(&mut self, octets: &[u8]) -> usize {
        let octets = Bytes::copy_from_slice(octets);
        let len = octets.len();
        self.with(|tcb, _| tcb.write(octets)).map_or(0, |rest| len - rest.len())
    }

    fn read(&mut self, max: usize) -> Got {
        if self.closed {
            return Got::Broken;
        }
        let mut octets = Vec::new();
        let read_all = |tcb: &mut Tcb, _| {
            // The engine gives chunk by chunk, as they came.
            while let chunk = tcb.read(max - octets.len())
                && !chunk.is_empty()
            {
                octets.extend_from_slice(&chunk);
            }
            (tcb.at_end(), tcb.state.is_closed())
        };
        let state = self.with(read_all);
        match (state, self.ending) {
            _ if !octets.is_empty() => Got::Octets(octets),
            (_, Some(Ending::Finished)) | (Some((true, false)), _) => Got::End,
            (_, Some(_)) => Got::Broken,
            _ => Got::Nothing,
        }
    }

    fn finish(&mut self) {
        self.with(|tcb, _| tcb.finish());
    }

    fn close(&mut self) {
        self.closed = self.handle.is_some();
        self.with(Tcb::close);
    }

    fn abort(&mut self) {
        self.closed = self.handle.is_some();
        self.with(|tcb, _| tcb.abort());
    }
}
