//! The foreign peer: smoltcp's own sockets, whose TCP shares no line with ours.

use core::net::{Ipv6Addr, SocketAddrV6};
use core::time::Duration;
use std::collections::VecDeque;

use bytes::Bytes;
use ferry_stack::tcp::Tcb;
use ferry_stack::{Frame, Instant, interface};
use smoltcp::iface::{self, SocketHandle, SocketSet};
use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint};

use crate::link::ETHERNET;
use crate::octets::Octets;
use crate::stack::{End, Phase, Stack};

/// Sockets that listen at a port at the same time: one for each handshake that can be under way.
const BACKLOG: usize = 8;

/// A FIN that is lost and then followed by three duplicate acknowledgements is never sent again by smoltcp 0.14:
/// the fast retransmission finds no octets, and the timer is switched off. After so long, several of its greatest
/// timeouts, this is what has happened.
const HUNG: Duration = Duration::from_secs(200);

/// How its sockets behave.
#[derive(Clone, Copy, Debug)]
pub struct Manners {
    /// Octets of each buffer.
    pub buffer: usize,
    /// Joins small writes.
    pub nagle: bool,
    /// How long an acknowledgement may wait.
    pub ack_delay: Option<Duration>,
    /// Asks a silent peer whether it is still there.
    pub keep_alive: Option<Duration>,
    /// Whether segments carry timestamps.
    pub timestamps: bool,
}

/// A host that runs smoltcp.
pub struct Foreign {
    interface: iface::Interface,
    device: Queues,
    sockets: SocketSet<'static>,
    manners: Manners,
    connections: Vec<Connection>,
    listening: Vec<(SocketHandle, u16)>,
    next_port: u16,
}

#[derive(Debug)]
struct Connection {
    handle: SocketHandle,
    /// Its last state that was not `Closed`.
    last: State,
    aborted: bool,
    /// Since when nothing but its FIN waits to be acknowledged.
    only_fin: Option<Instant>,
    /// Whether it will never send that FIN again.
    hung: bool,
}

impl core::fmt::Debug for Foreign {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Foreign").field("connections", &self.connections).finish_non_exhaustive()
    }
}

impl Foreign {
    /// A host on a link.
    pub fn new(config: &interface::Config, manners: Manners, seed: u64) -> Self {
        let mut device = Queues::new(usize::from(config.mtu));
        let mut settings = iface::Config::new(HardwareAddress::Ethernet(config.mac));
        settings.random_seed = seed;
        let mut interface = iface::Interface::new(settings, &mut device, time::Instant::ZERO);
        interface.update_ip_addrs(|addresses| {
            for known in &config.addresses {
                let cidr = IpCidr::new(IpAddress::Ipv6(known.address), known.prefix_len);
                addresses.push(cidr).expect("room for its address");
            }
        });
        if let Some(gateway) = config.gateway {
            interface.routes_mut().add_default_ipv6_route(gateway).expect("room for a route");
        }
        let (sockets, connections, listening) = (SocketSet::new(Vec::new()), Vec::new(), Vec::new());
        Self { interface, device, sockets, manners, connections, listening, next_port: 49_152 }
    }

    fn socket(&mut self) -> SocketHandle {
        let buffer = || SocketBuffer::new(vec![0; self.manners.buffer]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(self.manners.nagle);
        socket.set_ack_delay(self.manners.ack_delay.map(from_std));
        socket.set_keep_alive(self.manners.keep_alive.map(from_std));
        if self.manners.timestamps {
            // The generator has no argument to read a clock from. A constant is a clock that stands still, which
            // RFC 7323 allows: TSval must not go back.
            socket.set_tsval_generator(Some(|| 1));
        }
        self.sockets.add(socket)
    }

    fn get(&self, connection: usize) -> &Socket<'static> {
        self.sockets.get(self.connections[connection].handle)
    }

    fn number(&mut self, handle: SocketHandle) -> usize {
        let last = self.sockets.get::<Socket<'_>>(handle).state();
        self.connections.push(Connection { handle, last, aborted: false, only_fin: None, hung: false });
        self.connections.len() - 1
    }

    fn poll(&mut self, now: Instant) {
        self.interface.poll(instant(now), &mut self.device, &mut self.sockets);
        for connection in &mut self.connections {
            let socket = self.sockets.get::<Socket<'_>>(connection.handle);
            let state = socket.state();
            if state != State::Closed {
                connection.last = state;
            }
            let fin = matches!(state, State::FinWait1 | State::Closing | State::LastAck);
            let only_fin = fin && socket.send_queue() == 0;
            connection.only_fin = connection.only_fin.filter(|_| only_fin).or(only_fin.then_some(now));
            connection.hung |= connection.only_fin.is_some_and(|since| since.since(now) >= HUNG);
        }
    }
}

impl Stack for Foreign {
    fn listen(&mut self, port: u16) {
        for _ in 0..BACKLOG {
            let handle = self.socket();
            let socket = self.sockets.get_mut::<Socket<'_>>(handle);
            socket.listen(port).expect("a socket that is closed can listen");
            self.listening.push((handle, port));
        }
    }

    fn accept(&mut self) -> Option<(usize, u16)> {
        let waiting = |(handle, _): &(SocketHandle, u16)| {
            let state = self.sockets.get::<Socket<'_>>(*handle).state();
            !matches!(state, State::Listen | State::SynReceived)
        };
        let index = self.listening.iter().position(waiting)?;
        let (handle, port) = self.listening.remove(index);
        let next = self.socket();
        self.sockets.get_mut::<Socket<'_>>(next).listen(port).expect("a socket that is closed can listen");
        self.listening.push((next, port));
        Some((self.number(handle), port))
    }

    fn connect(&mut self, server: SocketAddrV6, _: Instant) -> (usize, SocketAddrV6) {
        let handle = self.socket();
        let port = self.next_port;
        self.next_port += 1;
        let socket = self.sockets.get_mut::<Socket<'_>>(handle);
        let remote = IpEndpoint::new(IpAddress::Ipv6(*server.ip()), server.port());
        socket.connect(self.interface.context(), remote, port).expect("a closed socket can connect");
        let address = match socket.local_endpoint().map(|local| local.addr) {
            Some(IpAddress::Ipv6(address)) => address,
            None => Ipv6Addr::UNSPECIFIED,
        };
        (self.number(handle), SocketAddrV6::new(address, port, 0, 0))
    }

    fn phase(&self, connection: usize) -> Phase {
        let socket = self.get(connection);
        let Connection { last, aborted, hung, .. } = self.connections[connection];
        match socket.state() {
            _ if hung => Phase::Over(End::Hung),
            _ if aborted => Phase::Over(End::Aborted),
            _ if socket.recv_queue() > 0 => Phase::Open,
            State::TimeWait => Phase::Over(End::Finished),
            State::Closed if matches!(last, State::LastAck | State::TimeWait) => Phase::Over(End::Finished),
            State::Closed => Phase::Over(End::Reset),
            State::Listen | State::SynSent | State::SynReceived => Phase::Opening,
            _ => Phase::Open,
        }
    }

    fn is_settled(&self, connection: usize) -> bool {
        matches!(self.get(connection).state(), State::TimeWait | State::Closed)
    }

    fn act(&mut self, connection: usize, now: Instant, act: &mut dyn FnMut(&mut dyn Octets)) {
        let Connection { handle, aborted, .. } = self.connections[connection];
        if !aborted {
            let mut hold = Hold { socket: self.sockets.get_mut(handle), reset: false };
            act(&mut hold);
            self.connections[connection].aborted = hold.reset;
            self.poll(now);
        }
    }

    fn receive(&mut self, frame: Frame, now: Instant) {
        self.device.inbox.push_back(frame.contiguous().head);
        self.poll(now);
    }

    fn transmit(&mut self, now: Instant) -> Option<Frame> {
        if self.device.outbox.is_empty() {
            self.poll(now);
        }
        self.device.outbox.pop_front().map(Frame::received)
    }

    fn deadline(&mut self, now: Instant) -> Option<Instant> {
        let at = self.interface.poll_at(instant(now), &self.sockets).map(|at| {
            let micros = u64::try_from(at.total_micros()).unwrap_or(0);
            // Its clock ticks in microseconds: the same instant again would change nothing.
            Instant::from_nanos(micros * 1_000).max(now + Duration::from_micros(1))
        });
        let may_hang = self.connections.iter().filter(|connection| !connection.hung);
        let hung = may_hang.filter_map(|connection| Some(connection.only_fin? + HUNG)).min();
        [at, hung].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.poll(now);
    }

    fn tcbs(&self, _: Instant) -> Vec<(&Tcb, Instant)> {
        Vec::new()
    }
}

fn instant(at: Instant) -> time::Instant {
    time::Instant::from_micros(i64::try_from(at.nanos() / 1_000).unwrap_or(i64::MAX))
}

fn from_std(duration: Duration) -> time::Duration {
    time::Duration::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
}

struct Hold<'a> {
    socket: &'a mut Socket<'static>,
    reset: bool,
}

impl Octets for Hold<'_> {
    fn read(&mut self, max: usize) -> Bytes {
        let mut octets = vec![0; max.min(self.socket.recv_queue())];
        let read = self.socket.recv_slice(&mut octets).unwrap_or(0);
        octets.truncate(read);
        octets.into()
    }

    fn at_end(&self) -> bool {
        let opening = matches!(self.socket.state(), State::Listen | State::SynSent | State::SynReceived);
        !opening && !self.socket.may_recv()
    }

    fn writable(&self) -> usize {
        if self.socket.may_send() { self.socket.send_capacity() - self.socket.send_queue() } else { 0 }
    }

    fn write(&mut self, mut octets: Bytes) -> Bytes {
        let written = self.socket.send_slice(&octets).unwrap_or(0);
        octets.split_off(written)
    }

    fn finish(&mut self) {
        self.socket.close();
    }

    fn reset(&mut self) {
        self.socket.abort();
        self.reset = true;
    }
}

/// Frames in and out.
#[derive(Debug)]
struct Queues {
    inbox: VecDeque<Bytes>,
    outbox: VecDeque<Bytes>,
    mtu: usize,
}

impl Queues {
    fn new(mtu: usize) -> Self {
        Self { inbox: VecDeque::new(), outbox: VecDeque::new(), mtu }
    }
}

impl Device for Queues {
    type RxToken<'a> = Incoming;
    type TxToken<'a> = Outgoing<'a>;

    fn receive(&mut self, _: time::Instant) -> Option<(Incoming, Outgoing<'_>)> {
        let frame = self.inbox.pop_front()?;
        Some((Incoming(frame), Outgoing(&mut self.outbox)))
    }

    fn transmit(&mut self, _: time::Instant) -> Option<Outgoing<'_>> {
        Some(Outgoing(&mut self.outbox))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = self.mtu + usize::from(ETHERNET);
        capabilities
    }
}

struct Incoming(Bytes);

impl RxToken for Incoming {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

struct Outgoing<'a>(&'a mut VecDeque<Bytes>);

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut octets = vec![0; len];
        let result = f(&mut octets);
        self.0.push_back(octets.into());
        result
    }
}
