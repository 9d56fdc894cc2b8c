//! One host's TCP, seen from its applications: ours, or a foreign one.

use core::fmt::Debug;
use core::net::{Ipv6Addr, SocketAddrV6};
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;

use ferry_stack::host::Host;
use ferry_stack::tcp::{Config, Ending, Event, Flow, Handle, Listener, Secret, State, Tcb};
use ferry_stack::{Frame, Instant, interface};

use crate::octets::Octets;

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Both sides finished.
    Finished,
    /// The other side reset it, or did not want it.
    Reset,
    /// The other side did not answer.
    TimedOut,
    /// This side gave it up.
    Aborted,
    /// This side has a bug that is not ours.
    Hung,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The handshake is under way.
    Opening,
    /// Between handshake and end.
    Open,
    /// Nothing more will come of it.
    Over(End),
}

/// One host's TCP. Connections are numbered from zero and keep their numbers.
pub trait Stack: Debug {
    /// Accepts connections at a port.
    fn listen(&mut self, port: u16);
    /// The next connection that was accepted at any port, and that port.
    fn accept(&mut self) -> Option<(usize, u16)>;
    /// Opens a connection; gives back its number and our end of it.
    fn connect(&mut self, server: SocketAddrV6, now: Instant) -> (usize, SocketAddrV6);
    /// Where a connection is in its life.
    fn phase(&self, connection: usize) -> Phase;
    /// Whether both sides have finished as far as TCP is concerned, read or not.
    fn is_settled(&self, connection: usize) -> bool;
    /// Lets an application act on a connection, if it is not over.
    fn act(&mut self, connection: usize, now: Instant, act: &mut dyn FnMut(&mut dyn Octets));
    /// Takes a frame.
    fn receive(&mut self, frame: Frame, now: Instant);
    /// The next frame to be sent.
    fn transmit(&mut self, now: Instant) -> Option<Frame>;
    /// When [`Stack::handle_timeout`] has something to do.
    fn deadline(&mut self, now: Instant) -> Option<Instant>;
    /// Opens a connection from this end, if it is free: the last from there may not be over. Not every stack can.
    fn connect_again(&mut self, _local: SocketAddrV6, _server: SocketAddrV6, _now: Instant) -> Option<usize> {
        None
    }
    /// Does what has come due.
    fn handle_timeout(&mut self, now: Instant);
    /// The control blocks, where there are any to be seen, and what the clock of each shows.
    fn tcbs(&self, now: Instant) -> Vec<(&Tcb, Instant)>;
    /// How often a connection went from one host to another.
    fn crossings(&self) -> u64 {
        0
    }
    /// Whether it consists of hosts that answer neighbour discovery at once, however long the link is.
    fn is_next_door(&self) -> bool {
        false
    }
    /// What becomes readable when there is something to be sent, where that is not known here.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }
}

/// Our own.
#[derive(Debug)]
pub struct Plain {
    pub(crate) host: Host,
    address: Ipv6Addr,
    config: Config,
    connections: Vec<Handle>,
    ports: Vec<u16>,
    ends: BTreeMap<Handle, End>,
}

impl Plain {
    /// A host with one address, whose connections behave as `config` says.
    pub fn new(interface: interface::Config, config: Config, secret: [u8; 32], offload: bool) -> Self {
        let address = interface.addresses.first().map_or(Ipv6Addr::UNSPECIFIED, |first| first.address);
        let host = Host::new(interface, Secret::new(secret), offload);
        Self { host, address, config, connections: Vec::new(), ports: Vec::new(), ends: BTreeMap::new() }
    }

    fn number(&mut self, handle: Handle) -> usize {
        self.connections.push(handle);
        self.connections.len() - 1
    }

    fn take_events(&mut self) {
        while let Some(event) = self.host.tcp.poll_event() {
            if let Event::Closed(handle, _, ending, _) = event {
                self.ends.insert(handle, end(ending));
            }
        }
    }
}

pub(crate) fn end(ending: Ending) -> End {
    match ending {
        Ending::Finished => End::Finished,
        Ending::Reset | Ending::Refused => End::Reset,
        Ending::TimedOut => End::TimedOut,
        Ending::Aborted => End::Aborted,
    }
}

impl Stack for Plain {
    fn listen(&mut self, port: u16) {
        self.host.tcp.listen(port, Listener::new(self.config));
        self.ports.push(port);
    }

    fn accept(&mut self) -> Option<(usize, u16)> {
        let ports = self.ports.iter();
        let (handle, port) = ports.copied().find_map(|port| Some((self.host.tcp.accept(port)?, port)))?;
        Some((self.number(handle), port))
    }

    fn connect(&mut self, server: SocketAddrV6, now: Instant) -> (usize, SocketAddrV6) {
        let opened = self.host.tcp.connect(self.address, server, self.config, now);
        let handle = opened.expect("a port is free");
        let local = self.host.tcp.get(handle).map(|tcb| tcb.flow.local);
        (self.number(handle), local.expect("it was just opened"))
    }

    fn connect_again(&mut self, local: SocketAddrV6, server: SocketAddrV6, now: Instant) -> Option<usize> {
        let opened = self.host.tcp.connect_from(Flow { local, remote: server }, self.config, now);
        opened.ok().map(|handle| self.number(handle))
    }

    fn phase(&self, connection: usize) -> Phase {
        let handle = self.connections[connection];
        match self.host.tcp.get(handle).map(|tcb| (tcb.state, tcb.readable())) {
            None => Phase::Over(self.ends.get(&handle).copied().unwrap_or(End::Aborted)),
            Some((State::TimeWait { .. }, 0)) => Phase::Over(End::Finished),
            Some((State::SynSent | State::SynReceived, _)) => Phase::Opening,
            Some(_) => Phase::Open,
        }
    }

    fn is_settled(&self, connection: usize) -> bool {
        let state = self.host.tcp.get(self.connections[connection]).map(|tcb| tcb.state);
        matches!(state, None | Some(State::TimeWait { .. } | State::Closed(_)))
    }

    fn act(&mut self, connection: usize, _: Instant, act: &mut dyn FnMut(&mut dyn Octets)) {
        self.host.tcp.with(self.connections[connection], |tcb| act(tcb));
    }

    fn receive(&mut self, frame: Frame, now: Instant) {
        self.host.receive(frame, now);
    }

    fn transmit(&mut self, now: Instant) -> Option<Frame> {
        let frame = self.host.poll_transmit(now);
        self.take_events();
        frame
    }

    fn deadline(&mut self, _: Instant) -> Option<Instant> {
        self.host.deadline()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.host.handle_timeout(now);
    }

    fn tcbs(&self, now: Instant) -> Vec<(&Tcb, Instant)> {
        self.host.tcp.iter().map(|(_, tcb)| (tcb, now)).collect()
    }
}
