//! A node away from home with very many clients that are bound to it, and what a packet of theirs costs it. The clients
//! have no kernel: two sequence numbers each, and one correspondent's half of Mobile IPv6 for them all.

use core::net::{Ipv6Addr, SocketAddrV6};

use bytes::Bytes;
use ferry_handoff::{Incarnation, Message, NodeId};
use ferry_mipv6::correspondent::Correspondent;
use ferry_mipv6::header;
use ferry_mipv6::route::{put_routing, stripped};
use ferry_mipv6::tunnel::{decapsulate, encapsulate};
use ferry_node::services::Echo;
use ferry_node::{Input, Node, Optimise, Output, Peer, Placement, PlainSource, Service, Setup};
use ferry_stack::frame::Frame;
use ferry_stack::interface::{self, Address};
use ferry_stack::ip::{self, Packet};
use ferry_stack::tcp::{Flow, Segment};
use ferry_stack::{EthernetAddress, GroupClock, Instant, Interface};

use super::broken;
use super::costs::client;
use crate::Result;
use crate::bench::stack::{Figures, Scale, Thin, among_many};
use crate::clock::{now_ns, thread_cpu_ns};
use crate::world::SERVICE;

/// Bindings.
const MANY: usize = 100_000;
const ECHO: u16 = 7;
const PORT: u16 = 40_000;
/// Connections that are opened at a time: fewer than a listener lets be half open.
const ABREAST: usize = 256;
const HOME_NODE: &str = "home";

const fn net(prefix: u16, interface: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, prefix, 0, 0, 0, 0, interface)
}

const CARE_OF: Ipv6Addr = net(0xb, 2);
const GATEWAY: Ipv6Addr = net(0xb, 1);
/// The contact node's care-of address.
const HOME: Ipv6Addr = net(0xa, 2);

/// Nanoseconds of a core for a packet of ten clients, with all the others bound and idle, and without them. Only the
/// node: the TAP costs the same for both.
pub(super) fn many(scale: Scale) -> Result<Figures> {
    among_many(scale, MANY, Crowd::gather, Crowd::ask)
}

/// A node, and whatever is behind its gateway: the clients, and the contact node as far as it relays.
struct Crowd {
    node: Node,
    gateway: Interface,
    correspondent: Correspondent,
    clients: Vec<Thin>,
}

/// The clock of the node.
fn now() -> Instant {
    Instant::from_nanos(now_ns())
}

fn setup() -> Setup {
    Setup {
        name: "away".to_owned(),
        group: "bench".to_owned(),
        incarnation: Incarnation(1),
        secret: [7; 32],
        group_clock: GroupClock::default(),
        care_of: Address { address: CARE_OF, prefix_len: 64 },
        gateway: GATEWAY,
        mac: EthernetAddress([2, 0xfe, 0, 0, 0, 2]),
        mtu: 1500,
        offload: true,
        service_address: SERVICE,
        contact: HOME_NODE.to_owned(),
        home_agent: None,
        placement: Placement::Local,
        rules: ferry_node::Rules::default(),
        optimise: Optimise::Auto,
        plain_source: PlainSource::Auto,
        ask_again: core::time::Duration::from_mins(10),
        directory: ferry_node::DirectorySetup::default(),
        tcp: ferry_node::driver::connections(),
        peers: vec![Peer { name: HOME_NODE.to_owned(), care_of: HOME }],
        services: vec![Service::new::<Echo>("echo", ECHO, ())],
    }
}

impl Crowd {
    /// A node with so many clients, all of which have connected and are bound.
    fn gather(clients: usize) -> Result<Self> {
        let config = interface::Config {
            mac: EthernetAddress([2, 0, 0, 0, 0, 1]),
            addresses: vec![Address { address: GATEWAY, prefix_len: 64 }],
            gateway: Some(CARE_OF),
            mtu: 1500,
        };
        let mut gateway = Interface::new(config);
        // What is for the clients is given to us.
        gateway.set_forwarding(true);
        let node = Node::new(setup(), now()).map_err(broken)?;
        let correspondent = Correspondent::new([5; 20]);
        let mut crowd = Self { node, gateway, correspondent, clients: vec![Thin::NEW; clients] };
        let peer = NodeId::of(HOME_NODE);
        crowd.node.handle(Input::PeerUp { peer, incarnation: Incarnation(1) }, now());
        crowd.connect_all()?;
        Ok(crowd)
    }

    fn connect_all(&mut self) -> Result<()> {
        let all: Vec<usize> = (0..self.clients.len()).collect();
        // The first alone: until neighbours know each other, few packets wait for that.
        let (first, rest) = all.split_at(1);
        for some in core::iter::once(first).chain(rest.chunks(ABREAST)) {
            for &client in some {
                self.send(client, Thin::syn())?;
            }
            self.carry()?;
            self.ask(some)?;
        }
        let (bound, wanted) = (self.correspondent.bindings().count(), self.clients.len());
        // Whatever they say from now on goes straight, and is answered straight.
        let before = self.node.status(now()).counters.optimised;
        let (_, packets) = self.ask(first)?;
        let straight = self.node.status(now()).counters.optimised - before;
        if bound == wanted && straight > 0 && packets > 0 {
            Ok(())
        } else {
            Err(broken(format!("{bound} of {wanted} clients are bound, {straight} segments went straight")))
        }
    }

    /// Each of these clients makes a request, gets its answer and acknowledges it. Returns the nanoseconds of a core
    /// that the node took for it, and how many packets it was given.
    fn ask(&mut self, clients: &[usize]) -> Result<(u64, u64)> {
        for &client in clients {
            self.send(client, Thin::request())?;
        }
        let took = self.carry()?;
        let unanswered = clients.iter().any(|&client| !self.clients[client].is_answered());
        if unanswered { Err(broken("a client got no answer")) } else { Ok(took) }
    }

    /// Fills in what each segment carries, and queues it.
    fn send(&mut self, number: usize, mut segment: Segment) -> Result<()> {
        self.clients[number].fill(&mut segment);
        let flow = Flow {
            local: SocketAddrV6::new(client(number), PORT, 0, 0),
            remote: SocketAddrV6::new(SERVICE, ECHO, 0, 0),
        };
        let mut packet = segment.emit(&flow, 0, true);
        match self.correspondent.use_binding((client(number), SERVICE), now()) {
            Some(care_of) => {
                put_routing(&mut packet, care_of);
                self.gateway.send(packet, now());
                Ok(())
            }
            None => self.relay(packet),
        }
    }

    /// As the contact node sends on what comes to the service address.
    fn relay(&mut self, packet: Packet) -> Result<()> {
        let tunnel = encapsulate(packet, HOME, CARE_OF).map_err(broken)?;
        self.gateway.send(tunnel, now());
        Ok(())
    }

    /// Carries frames until there are none. The time and the count are those of the node's input.
    fn carry(&mut self) -> Result<(u64, u64)> {
        let (mut took, mut packets) = (0, 0);
        loop {
            let mut frames = Vec::new();
            frames.extend(core::iter::from_fn(|| self.gateway.poll_transmit()));
            if frames.is_empty() {
                return Ok((took, packets));
            }
            packets += frames.len() as u64;
            let (mut answers, mut told) = (Vec::with_capacity(frames.len() * 2), Vec::new());
            let begun = thread_cpu_ns();
            for frame in frames {
                self.node.handle(Input::Frame(frame), now());
                loop {
                    match self.node.poll(now()) {
                        Output::Frame(frame) => answers.push(frame),
                        Output::Peer { bytes, .. } => told.push(bytes.join()),
                        Output::WaitUntil(_) => break,
                        Output::Reply { .. }
                        | Output::Reborn { .. }
                        | Output::Store { .. }
                        | Output::Trace(_) => {}
                    }
                }
            }
            took += thread_cpu_ns() - begun;
            for bytes in told {
                self.confirm(&bytes);
            }
            answers.into_iter().try_for_each(|frame| self.answer(frame))?;
        }
    }

    /// The contact node has seen who owns a connection.
    fn confirm(&mut self, bytes: &Bytes) {
        if let Ok(Message::Owner { flow, epoch, .. }) = Message::decode(bytes) {
            let bytes = Message::OwnerSeen { flow, epoch }.encode();
            self.node.handle(Input::Peer { from: NodeId::of(HOME_NODE), bytes }, now());
        }
    }

    fn answer(&mut self, frame: Frame) -> Result<()> {
        let Some(datagram) = self.gateway.receive(frame, now()) else { return Ok(()) };
        // A router does not look behind the first header.
        let packet = datagram.into_packet();
        let datagram = ip::parse(packet.to_bytes(), packet.offload).map_err(broken)?;
        let datagram =
            if datagram.upper == ip::IPV6 { decapsulate(&datagram).map_err(broken)? } else { datagram };
        match datagram.upper {
            ip::MOBILITY => {
                let received = header::open(&datagram).map_err(|fault| broken(format!("{fault:?}")))?;
                match self.correspondent.receive(&received, now()) {
                    Some(answer) if answer.destination == SERVICE => self.relay(answer.packet()),
                    Some(answer) => {
                        self.gateway.send(answer.packet(), now());
                        Ok(())
                    }
                    None => Ok(()),
                }
            }
            ip::TCP => {
                let (arrived, segment) = Segment::parse(&stripped(datagram)).map_err(broken)?;
                self.take(*arrived.local.ip(), &segment)
            }
            _ => Ok(()),
        }
    }

    fn take(&mut self, to: Ipv6Addr, segment: &Segment) -> Result<()> {
        let number = usize::try_from(to.to_bits() - client(0).to_bits()).map_err(broken)?;
        let thin = self.clients.get_mut(number).ok_or_else(|| broken("a stranger's segment"))?;
        if thin.take(segment)? {
            self.send(number, Thin::acknowledgement())?;
        }
        Ok(())
    }
}
