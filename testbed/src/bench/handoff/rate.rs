//! Handoffs a second of a core: two nodes in this process, with every message that a handoff takes and every frame that
//! follows from it. What is missing is the kernel: links and TAPs.

use core::net::{Ipv6Addr, SocketAddrV6};
use std::collections::VecDeque;

use bytes::Bytes;
use ferry_handoff::{Incarnation, NodeId};
use ferry_node::services::Echo;
use ferry_node::{
    Command, Input, Node, Optimise, Output, Peer, Placement, PlainSource, Reply, Rules, Service, Setup, Which,
};
use ferry_stack::frame::Frame;
use ferry_stack::interface::{self, Address};
use ferry_stack::ip;
use ferry_stack::tcp::{Flow, Segment};
use ferry_stack::{EthernetAddress, GroupClock, Instant, Interface};

use super::{Means, broken};
use crate::Result;
use crate::bench::stack::{Figures, Thin};
use crate::clock::{now_ns, thread_cpu_ns};
use crate::world::SERVICE;

/// Connections that move at once.
const CONNECTIONS: usize = 1000;
/// How often in a run.
const MOVES: usize = 20;
const ECHO: u16 = 7;
const FIRST_PORT: u16 = 10_000;
/// Connections that are opened at a time: fewer than a listener lets be half open.
const ABREAST: usize = 256;
/// What a node takes in before its outputs are carried out, as it does where it runs by itself.
const FRAMES: usize = 128;
const MESSAGES: usize = 64;
const NAMES: [&str; 2] = ["a", "b"];
const CLIENT: Ipv6Addr = net(0xf, 1);

const fn net(prefix: u16, interface: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, prefix, 0, 0, 0, 0, interface)
}

/// Where a node is, and its gateway.
const fn care_of(nth: usize) -> [Ipv6Addr; 2] {
    let prefix = if nth == 0 { 0xa } else { 0xb };
    [net(prefix, 2), net(prefix, 1)]
}

/// The clock of both nodes.
fn now() -> Instant {
    Instant::from_nanos(now_ns())
}

/// Small connections, as they are when a request was answered.
pub(super) fn measure(means: Means<'_>) -> Result<Figures> {
    let mut two = Two::connected(means.scale.count(CONNECTIONS))?;
    let mut ours = Vec::new();
    for _ in 0..means.scale.runs {
        let (begun, mut moved) = (thread_cpu_ns(), 0);
        for nth in 0..means.scale.count(MOVES).next_multiple_of(2) {
            moved += two.hand_over(nth % 2)?;
        }
        #[allow(clippy::cast_precision_loss)] // Nanoseconds of a run.
        ours.push(moved as f64 * 1e9 / (thread_cpu_ns() - begun) as f64);
    }
    Ok(Figures::alone(ours))
}

/// Two nodes, what is behind the gateway of each, and clients without a kernel.
struct Two {
    nodes: [Node; 2],
    gateways: [Interface; 2],
    clients: Vec<Thin>,
    /// To each node.
    messages: [VecDeque<Bytes>; 2],
    replies: VecDeque<Reply>,
    /// Segments that came from nodes to clients.
    segments: u64,
}

impl Two {
    fn connected(clients: usize) -> Result<Self> {
        let node = |nth| Node::new(setup(nth), now()).map_err(broken);
        let mut two = Self {
            nodes: [node(0)?, node(1)?],
            gateways: [0, 1].map(gateway),
            clients: vec![Thin::NEW; clients],
            messages: Default::default(),
            replies: VecDeque::new(),
            segments: 0,
        };
        for (nth, node) in two.nodes.iter_mut().enumerate() {
            let peer = NodeId::of(NAMES[1 - nth]);
            node.handle(Input::PeerUp { peer, incarnation: Incarnation(1) }, now());
        }
        two.settle()?;
        let all: Vec<usize> = (0..clients).collect();
        // The first alone: until neighbours know each other, few packets wait for that.
        let (first, rest) = all.split_at(1);
        for some in core::iter::once(first).chain(rest.chunks(ABREAST)) {
            for segment in [Thin::syn as fn() -> Segment, Thin::request] {
                for &client in some {
                    two.send(client, segment());
                }
                two.settle()?;
            }
        }
        let open = two.nodes[0].control_blocks().filter(|tcb| tcb.rcv.total > 0).count();
        if open == clients { Ok(two) } else { Err(broken(format!("only {open} connections are open"))) }
    }

    /// Everything goes from one node to the other. How much that was.
    fn hand_over(&mut self, from: usize) -> Result<usize> {
        let to = NAMES[1 - from].to_owned();
        let (command, before) = (Command::Handoff { to, which: Which::All }, self.segments);
        self.nodes[from].handle(Input::Command { id: 1, command }, now());
        self.settle()?;
        let (count, kicked) = (self.clients.len(), self.segments - before);
        match self.replies.pop_front() {
            // Each acceptor speaks at once.
            Some(Reply::Moved(moved)) if moved.moved == count && kicked >= count as u64 => Ok(count),
            other => Err(broken(format!("{kicked} segments, and {other:?}"))),
        }
    }

    fn send(&mut self, client: usize, mut segment: Segment) {
        self.clients[client].fill(&mut segment);
        let port = FIRST_PORT + u16::try_from(client).unwrap_or(0);
        let flow = Flow {
            local: SocketAddrV6::new(CLIENT, port, 0, 0),
            remote: SocketAddrV6::new(SERVICE, ECHO, 0, 0),
        };
        self.gateways[0].send(segment.emit(&flow, 0, true), now());
    }

    /// Until nothing more follows.
    fn settle(&mut self) -> Result<()> {
        loop {
            // Read once for everything that is there: the clock is not what is measured.
            let (mut any, now) = (false, now());
            for nth in [0, 1] {
                let mut frames = 0;
                while frames < FRAMES
                    && let Some(frame) = self.gateways[nth].poll_transmit()
                {
                    self.nodes[nth].handle(Input::Frame(frame), now);
                    frames += 1;
                }
                let mut messages = 0;
                while messages < MESSAGES
                    && let Some(bytes) = self.messages[nth].pop_front()
                {
                    self.nodes[nth].handle(Input::Peer { from: NodeId::of(NAMES[1 - nth]), bytes }, now);
                    messages += 1;
                }
                any |= self.poll(nth, now)? || frames + messages > 0;
            }
            if !any {
                return Ok(());
            }
        }
    }

    fn poll(&mut self, nth: usize, now: Instant) -> Result<bool> {
        let mut any = false;
        loop {
            match self.nodes[nth].poll(now) {
                Output::WaitUntil(_) => return Ok(any),
                Output::Frame(frame) => self.take(nth, frame, now)?,
                Output::Peer { bytes, .. } => self.messages[1 - nth].push_back(bytes.join()),
                Output::Reply { reply, .. } => self.replies.push_back(reply),
                Output::Trace(_) | Output::Reborn { .. } | Output::Store { .. } => {}
            }
            any = true;
        }
    }

    fn take(&mut self, nth: usize, frame: Frame, now: Instant) -> Result<()> {
        let Some(datagram) = self.gateways[nth].receive(frame, now) else { return Ok(()) };
        if datagram.upper != ip::TCP {
            return Ok(());
        }
        self.segments += 1;
        let (arrived, segment) = Segment::parse(&datagram).map_err(broken)?;
        let client = usize::from(arrived.local.port() - FIRST_PORT);
        let thin = self.clients.get_mut(client).ok_or_else(|| broken("a stranger's segment"))?;
        if thin.take(&segment)? {
            self.send(client, Thin::acknowledgement());
        }
        Ok(())
    }
}

/// The clients are behind it.
fn gateway(nth: usize) -> Interface {
    let [node, gateway] = care_of(nth);
    let mut interface = Interface::new(interface::Config {
        mac: EthernetAddress([2, 0, 0, 0, 0, 1]),
        addresses: vec![Address { address: gateway, prefix_len: 64 }],
        gateway: Some(node),
        mtu: 1500,
    });
    interface.set_forwarding(true);
    interface
}

fn setup(nth: usize) -> Setup {
    let [care_of_here, gateway] = care_of(nth);
    let other = Peer { name: NAMES[1 - nth].to_owned(), care_of: care_of(1 - nth)[0] };
    Setup {
        name: NAMES[nth].to_owned(),
        group: "bench".to_owned(),
        incarnation: Incarnation(1),
        secret: [7; 32],
        group_clock: GroupClock::default(),
        care_of: Address { address: care_of_here, prefix_len: 64 },
        gateway,
        mac: EthernetAddress([2, 0xfe, 0, 0, 0, 2]),
        mtu: 1500,
        offload: true,
        service_address: SERVICE,
        contact: NAMES[0].to_owned(),
        home_agent: None,
        placement: Placement::Local,
        rules: Rules { untraced: true, ..Rules::default() },
        directory: ferry_node::DirectorySetup::default(),
        optimise: Optimise::Never,
        plain_source: PlainSource::Auto,
        ask_again: core::time::Duration::from_mins(10),
        tcp: ferry_node::driver::connections(),
        peers: vec![other],
        services: vec![Service::new::<Echo>("echo", ECHO, ())],
    }
}
