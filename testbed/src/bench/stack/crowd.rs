//! Many clients without a kernel, and the node that they are connected to.

use core::net::{Ipv6Addr, SocketAddrV6};

use ferry_node::{Input, Node, Output};
use ferry_stack::frame::Frame;
use ferry_stack::interface::{self, Address};
use ferry_stack::ip;
use ferry_stack::tcp::{Flow, Segment};
use ferry_stack::{EthernetAddress, Instant, Interface};

use super::ground::{TAP, broken};
use super::ours::{ECHO, setup};
use super::thin::{REQUEST, Thin};
use crate::Result;
use crate::clock::now_ns;

/// Clients of one address: their ports.
const PORTS: usize = 50_000;
const FIRST_PORT: u16 = 10_000;
/// Connections that are opened at a time: fewer than a listener lets be half open.
const ABREAST: usize = 256;

/// A node, and clients that stand behind its gateway.
pub(super) struct Crowd {
    node: Node,
    gateway: Interface,
    clients: Vec<Thin>,
}

/// The clock of the node.
fn now() -> Instant {
    Instant::from_nanos(now_ns())
}

impl Crowd {
    /// A node with so many clients, none of which has connected.
    pub(super) fn gather(clients: usize) -> Result<Self> {
        let config = interface::Config {
            mac: EthernetAddress([2, 0, 0, 0, 0, 1]),
            addresses: vec![Address { address: TAP.gateway(), prefix_len: 64 }],
            gateway: Some(TAP.care_of()),
            mtu: 1500,
        };
        let mut gateway = Interface::new(config);
        // What is for the clients is given to us.
        gateway.set_forwarding(true);
        let node = Node::new(setup(&TAP), now()).map_err(broken)?;
        Ok(Self { node, gateway, clients: vec![Thin::NEW; clients] })
    }

    /// Lets all connect and make one request.
    pub(super) fn connect_all(&mut self) -> Result<()> {
        let all: Vec<usize> = (0..self.clients.len()).collect();
        // The first alone: until neighbours know each other, few packets wait for that.
        let (first, rest) = all.split_at(1);
        for some in core::iter::once(first).chain(rest.chunks(ABREAST)) {
            for &client in some {
                self.send(client, Thin::syn());
            }
            self.carry()?;
            self.ask(some)?;
        }
        let open = self.node.control_blocks().filter(|tcb| tcb.rcv.total == REQUEST.len() as u64).count();
        if open == self.clients.len() {
            Ok(())
        } else {
            Err(broken(format!("only {open} connections are open")))
        }
    }

    /// Each of these clients makes a request, gets its answer and acknowledges it. Returns the nanoseconds of a core
    /// that the node took for it, and how many segments it was given.
    pub(super) fn ask(&mut self, clients: &[usize]) -> Result<(u64, u64)> {
        for &client in clients {
            self.send(client, Thin::request());
        }
        let took = self.carry()?;
        let unanswered = clients.iter().any(|&client| !self.clients[client].is_answered());
        if unanswered { Err(broken("a client got no answer")) } else { Ok(took) }
    }

    /// Fills in what each segment carries, and queues it.
    fn send(&mut self, client: usize, mut segment: Segment) {
        self.clients[client].fill(&mut segment);
        let packet = segment.emit(&flow(client), 0, true);
        self.gateway.send(packet, now());
    }

    /// Carries frames until there are none. The time and the count are those of the node's input.
    fn carry(&mut self) -> Result<(u64, u64)> {
        let (mut took, mut segments) = (0, 0);
        loop {
            let mut frames = Vec::new();
            frames.extend(core::iter::from_fn(|| self.gateway.poll_transmit()));
            if frames.is_empty() {
                return Ok((took, segments));
            }
            segments += frames.len() as u64;
            let mut answers = Vec::with_capacity(frames.len() * 2);
            let begun = crate::clock::thread_cpu_ns();
            for frame in frames {
                self.node.handle(Input::Frame(frame), now());
                while let Output::Frame(frame) = self.node.poll(now()) {
                    answers.push(frame);
                }
            }
            took += crate::clock::thread_cpu_ns() - begun;
            answers.into_iter().try_for_each(|frame| self.answer(frame))?;
        }
    }

    fn answer(&mut self, frame: Frame) -> Result<()> {
        let Some(datagram) = self.gateway.receive(frame, now()) else { return Ok(()) };
        if datagram.upper != ip::TCP {
            return Ok(());
        }
        let (arrived, segment) = Segment::parse(&datagram).map_err(broken)?;
        let client = client(&arrived);
        let thin = self.clients.get_mut(client).ok_or_else(|| broken("a stranger's segment"))?;
        if thin.take(&segment)? {
            self.send(client, Thin::acknowledgement());
        }
        Ok(())
    }
}

/// The ends of a client's connection, as the client sees them.
fn flow(client: usize) -> Flow {
    let port = FIRST_PORT + u16::try_from(client % PORTS).unwrap_or(0);
    let host = u16::try_from(client / PORTS + 1).unwrap_or(0);
    let address = Ipv6Addr::new(0x2001, 0xdb8, 0xf, 0, 0, 0, 0, host);
    Flow {
        local: SocketAddrV6::new(address, port, 0, 0),
        remote: SocketAddrV6::new(TAP.service(), ECHO, 0, 0),
    }
}

/// The client that a segment is for.
fn client(arrived: &Flow) -> usize {
    let [.., high, low] = arrived.local.ip().octets();
    let host = usize::from(u16::from_be_bytes([high, low]));
    host.wrapping_sub(1).wrapping_mul(PORTS).wrapping_add(usize::from(arrived.local.port() - FIRST_PORT))
}
