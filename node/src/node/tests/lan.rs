//! Nodes and one client on one link, without latency: what is put on it arrives at everybody in the same instant.

mod more;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use bytes::Bytes;
use ferry_handoff::{Incarnation, Message, NodeId};
use ferry_mipv6::correspondent::Correspondent;
use ferry_mipv6::{header, route};
use ferry_stack::host::Host;
use ferry_stack::interface::{Address, Config};
use ferry_stack::ip::{self, Packet};
use ferry_stack::tcp::{self, Handle, Secret, Segment};
use ferry_stack::{EthernetAddress, Frame, GroupClock, Instant};

use crate::home_agent::Agent;
use crate::node::{Node, Peer, Placement, Service, Setup};
use crate::services::Echo;
use crate::{Audit, Command, Input, Output, Reply, Step, TraceEvent, Which};

#[allow(unused_imports)]
pub(super) use self::more::home_agent;

pub(super) const NAMES: [&str; 3] = ["a", "b", "c"];
const SECRET: [u8; 32] = [7; 32];

pub(super) fn service_address() -> Ipv6Addr {
    "2001:db8::5".parse().unwrap()
}

pub(super) fn address(last: u16) -> Address {
    Address { address: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, last), prefix_len: 64 }
}

fn mac(last: u16) -> EthernetAddress {
    EthernetAddress([2, 0, 0, 0, 0, u8::try_from(last).unwrap()])
}

fn index(name: &str) -> u16 {
    u16::try_from(NAMES.iter().position(|known| *known == name).unwrap()).unwrap()
}

/// A group of three, of which `a` is the contact node.
pub(super) fn setup(name: &str) -> Setup {
    let peer = |name: &&str| Peer { name: (*name).to_owned(), care_of: address(index(name)).address };
    Setup {
        name: name.to_owned(),
        group: "test".to_owned(),
        incarnation: Incarnation(u64::from(index(name))),
        secret: SECRET,
        group_clock: GroupClock::default(),
        care_of: address(index(name)),
        gateway: address(99).address,
        mac: mac(index(name)),
        mtu: 1500,
        offload: false,
        service_address: service_address(),
        contact: "a".to_owned(),
        home_agent: None,
        placement: Placement::Local,
        rules: crate::Rules::default(),
        optimise: crate::Optimise::Auto,
        plain_source: crate::PlainSource::Auto,
        ask_again: std::time::Duration::from_mins(10),
        directory: crate::DirectorySetup::default(),
        tcp: tcp::Config::default(),
        peers: NAMES.iter().filter(|known| **known != name).map(peer).collect(),
        services: vec![Service::new::<Echo>("echo", 7, ())],
    }
}

/// A segment that came to the client.
#[derive(Debug)]
pub(super) struct Heard {
    /// Which node has put it on the link.
    pub(super) by: &'static str,
    /// Whether it has a Home Address option.
    pub(super) straight: bool,
    pub(super) segment: Segment,
}

pub(super) struct Lan {
    pub(super) now: Instant,
    pub(super) client: Host,
    pub(super) nodes: BTreeMap<&'static str, Node>,
    pub(super) dead: BTreeSet<&'static str>,
    /// Nodes that end at a message, counted from now on.
    doomed: Option<(usize, &'static [&'static str])>,
    /// If the service address is with a home agent of its own.
    agent: Option<Agent>,
    /// The message that is lost, counted from now on.
    pub(super) lose: Option<usize>,
    /// What a node is told to do as soon as so many more messages have arrived.
    pub(super) upon: Option<(usize, &'static str, Command)>,
    /// Whether frozen connections are lost on their way.
    pub(super) lose_transfers: bool,
    /// Whether the word that one was taken is.
    pub(super) lose_taken: bool,
    lives: u64,
    /// Links between nodes that are cut: messages on them vanish.
    cut: BTreeSet<(NodeId, NodeId)>,
    replies: BTreeMap<u64, Reply>,
    asked: u64,
    /// Every segment that came to the client.
    pub(super) seen: Vec<Segment>,
    pub(super) heard: Vec<Heard>,
    pub(super) steps: Vec<(&'static str, Step)>,
    pub(super) audits: Vec<(&'static str, Audit)>,
    /// Nodes that began a new life.
    pub(super) reborn: Vec<(&'static str, Incarnation)>,
    /// What nodes sent, and to whom: the upper layer and the destination of each packet.
    pub(super) sent: Vec<(u8, Ipv6Addr)>,
    /// If the client understands Mobile IPv6: its correspondent, and what that has said and is held back.
    pub(super) aware: Option<(Correspondent, VecDeque<Packet>)>,
    /// Whether its host refuses what comes with a Home Address option.
    pub(super) deaf: bool,
}

impl Lan {
    pub(super) fn new(change: impl Fn(&mut Setup)) -> Self {
        let now = Instant::from_millis(1_000);
        let config = Config { mac: mac(50), addresses: vec![address(50)], gateway: None, mtu: 1500 };
        let nodes = NAMES.map(|name| {
            let mut setup = setup(name);
            change(&mut setup);
            (name, Node::new(setup, now).unwrap())
        });
        let mut lan = Self {
            now,
            client: Host::new(config, Secret::new([1; 32]), false),
            nodes: nodes.into(),
            dead: BTreeSet::new(),
            doomed: None,
            agent: None,
            lose: None,
            upon: None,
            lose_transfers: false,
            lose_taken: false,
            lives: 1000,
            cut: BTreeSet::new(),
            replies: BTreeMap::new(),
            asked: 0,
            seen: Vec::new(),
            heard: Vec::new(),
            steps: Vec::new(),
            audits: Vec::new(),
            reborn: Vec::new(),
            sent: Vec::new(),
            aware: None,
            deaf: false,
        };
        // The service address lies outside of every prefix of the link's nodes but the client's own.
        lan.client.interface.add_address(Address { prefix_len: 32, ..address(50) }, false, now);
        for (name, other) in
            NAMES.iter().flat_map(|a| NAMES.iter().map(move |b| (*a, *b))).filter(|(a, b)| a != b)
        {
            lan.link(name, other);
        }
        lan.run();
        lan
    }

    fn link(&mut self, at: &'static str, peer: &str) {
        let incarnation = Incarnation(u64::from(index(peer)));
        let peer = NodeId::of(peer);
        self.nodes.get_mut(at).unwrap().handle(Input::PeerUp { peer, incarnation }, self.now);
    }

    /// A node's process is killed: it says no more, and its links close.
    pub(super) fn kill(&mut self, name: &'static str) {
        self.dead.insert(name);
        for other in NAMES.into_iter().filter(|other| *other != name) {
            if !self.dead.contains(other) {
                let peer = NodeId::of(name);
                self.nodes.get_mut(other).unwrap().handle(Input::PeerDown { peer }, self.now);
            }
        }
        self.run();
    }

    /// It starts anew, and knows nothing.
    pub(super) fn revive(&mut self, name: &'static str, change: impl Fn(&mut Setup)) {
        self.lives += 1;
        let life = Incarnation(self.lives);
        let mut setup = setup(name);
        setup.incarnation = life;
        change(&mut setup);
        self.nodes.insert(name, Node::new(setup, self.now).unwrap());
        self.dead.remove(name);
        for other in NAMES.into_iter().filter(|other| *other != name) {
            if !self.dead.contains(other) {
                let (now, peer) = (self.now, NodeId::of(name));
                self.nodes.get_mut(other).unwrap().handle(Input::PeerUp { peer, incarnation: life }, now);
                let (peer, incarnation) = (NodeId::of(other), self.nodes[other].incarnation());
                self.nodes.get_mut(name).unwrap().handle(Input::PeerUp { peer, incarnation }, now);
            }
        }
        self.run();
    }

    /// It becomes known at another node that a killed one is dead.
    pub(super) fn prove_at(&mut self, name: &'static str, at: &'static str) {
        let life = self.nodes[name].incarnation();
        let (peer, incarnation) = (NodeId::of(name), life);
        self.nodes.get_mut(at).unwrap().handle(Input::PeerDead { peer, incarnation }, self.now);
        self.run();
    }

    /// The same at every other.
    pub(super) fn prove_to_all(&mut self, name: &'static str) {
        for other in NAMES.into_iter().filter(|other| *other != name) {
            if !self.dead.contains(other) {
                self.prove_at(name, other);
            }
        }
    }

    /// Cuts the link between two nodes; they notice.
    pub(super) fn cut(&mut self, one: &'static str, other: &'static str) {
        for (at, peer) in [(one, other), (other, one)] {
            self.cut.insert((NodeId::of(at), NodeId::of(peer)));
            self.nodes.get_mut(at).unwrap().handle(Input::PeerDown { peer: NodeId::of(peer) }, self.now);
        }
        self.run();
    }

    /// What two nodes say to each other is lost from now on, or arrives again; they do not notice.
    pub(super) fn deafen(&mut self, one: &'static str, other: &'static str, deaf: bool) {
        for pair in [(one, other), (other, one)].map(|(one, other)| (NodeId::of(one), NodeId::of(other))) {
            if deaf {
                self.cut.insert(pair);
            } else {
                self.cut.remove(&pair);
            }
        }
    }

    /// It is proved to all others that the first life of a node is over.
    pub(super) fn prove(&mut self, dead: &'static str) {
        for name in NAMES.into_iter().filter(|name| *name != dead) {
            self.cut.extend([(NodeId::of(name), NodeId::of(dead)), (NodeId::of(dead), NodeId::of(name))]);
            let (peer, incarnation) = (NodeId::of(dead), Incarnation(u64::from(index(dead))));
            let node = self.nodes.get_mut(name).unwrap();
            node.handle(Input::PeerDown { peer }, self.now);
            node.handle(Input::PeerDead { peer, incarnation }, self.now);
        }
        self.run();
    }

    /// The links of a node are made anew, under its new life.
    pub(super) fn relink(&mut self, name: &'static str) {
        let (_, life) = *self.reborn.iter().rfind(|(reborn, _)| *reborn == name).expect("it is reborn");
        for other in NAMES.into_iter().filter(|other| *other != name) {
            self.deafen(name, other, false);
            let (now, peer) = (self.now, NodeId::of(name));
            let node = self.nodes.get_mut(other).unwrap();
            node.handle(Input::PeerDown { peer }, now);
            node.handle(Input::PeerUp { peer, incarnation: life }, now);
            self.link(name, other);
        }
        self.run();
    }

    /// The link between two nodes is up again.
    pub(super) fn mend(&mut self, one: &'static str, other: &'static str) {
        for (at, peer) in [(one, other), (other, one)] {
            self.cut.remove(&(NodeId::of(at), NodeId::of(peer)));
            self.link(at, peer);
        }
        self.run();
    }

    /// Carries frames and messages until nothing moves any more.
    pub(super) fn run(&mut self) {
        let mut wire: VecDeque<(usize, Frame)> = VecDeque::new();
        for _ in 0..100_000 {
            while let Some(frame) = self.client.poll_transmit(self.now) {
                wire.push_back((NAMES.len(), frame));
            }
            while let Some(frame) = self.agent.as_mut().and_then(Agent::poll_transmit) {
                wire.push_back((NAMES.len() + 1, frame));
            }
            let mut messages = Vec::new();
            for (place, name) in
                NAMES.iter().enumerate().filter(|(_, name)| !self.dead.contains(*name)).collect::<Vec<_>>()
            {
                self.drain(place, name, &mut wire, &mut messages);
            }
            let idle = wire.is_empty() && messages.is_empty();
            while let Some((from, frame)) = wire.pop_front() {
                self.put(from, &frame);
            }
            for (from, to, bytes) in messages {
                self.tell(from, to, bytes);
            }
            if idle {
                return;
            }
        }
        panic!("it never comes to rest");
    }

    fn drain(
        &mut self,
        place: usize,
        name: &'static str,
        wire: &mut VecDeque<(usize, Frame)>,
        messages: &mut Vec<(NodeId, NodeId, Bytes)>,
    ) {
        loop {
            match self.nodes.get_mut(name).unwrap().poll(self.now) {
                Output::Frame(frame) => wire.push_back((place, frame)),
                Output::Peer { to, bytes } => messages.push((NodeId::of(name), to, bytes.join())),
                Output::Reply { id, reply } => drop(self.replies.insert(id, reply)),
                Output::Reborn { incarnation } => self.reborn.push((name, incarnation)),
                Output::Trace(trace) => match trace.event {
                    TraceEvent::Handoff { step, .. } => self.steps.push((name, step)),
                    TraceEvent::Move(audit) => self.audits.push((name, audit)),
                    _ => {}
                },
                Output::Store { .. } => {}
                Output::WaitUntil(_) => return,
            }
        }
    }

    fn put(&mut self, from: usize, frame: &Frame) {
        let frame = frame.clone().contiguous();
        for (place, name) in NAMES.iter().enumerate() {
            if place == from || self.dead.contains(name) {
                continue;
            }
            self.nodes.get_mut(name).unwrap().handle(Input::Frame(frame.clone()), self.now);
        }
        self.put_to_agent(from, &frame);
        if from != NAMES.len() {
            if let Ok(datagram) = ip::parse_transit(frame.head.slice(14..), frame.offload) {
                self.sent.push((datagram.upper, datagram.destination));
            }
            if let Ok(datagram) = ip::parse(frame.head.slice(14..), frame.offload)
                && datagram.source == service_address()
                && let Ok((_, segment)) = Segment::parse(&datagram)
            {
                self.seen.push(segment);
            }
            if let Ok(datagram) = ip::parse(frame.head.slice(14..), frame.offload)
                && datagram.destination == address(50).address
                && let Ok((_, segment)) = Segment::parse(&datagram)
            {
                let straight = datagram.home_address().is_some();
                let by = NAMES.get(from).copied().unwrap_or("agent");
                self.heard.push(Heard { by, straight, segment });
            }
            if let Some(frame) = self.understood(frame) {
                self.client.receive(frame, self.now);
            }
        }
    }

    /// A frame for the client, if it is one for its TCP.
    fn understood(&mut self, frame: Frame) -> Option<Frame> {
        let Some((correspondent, answers)) = &mut self.aware else { return Some(frame) };
        let Ok(datagram) = ip::parse(frame.head.slice(14..), frame.offload) else { return Some(frame) };
        if datagram.upper == ip::MOBILITY && datagram.destination == address(50).address {
            let answer = header::open(&datagram).ok().and_then(|said| correspondent.receive(&said, self.now));
            answers.extend(answer.map(|answer| answer.packet()));
            return None;
        }
        if datagram.home_address().is_none() {
            return Some(frame);
        }
        if self.deaf {
            return None;
        }
        let packet = route::stripped(datagram).into_packet();
        let octets = [&frame.head[..14], &packet.head, &packet.body].concat();
        Some(Frame::received(octets.into()))
    }

    /// Lets go of what the client's correspondent has to say.
    pub(super) fn answer_mobility(&mut self) {
        let Some((_, answers)) = &mut self.aware else { return };
        for packet in std::mem::take(answers) {
            self.client.interface.send(packet, self.now);
        }
        self.run();
    }

    fn is_lost(&mut self, bytes: &Bytes) -> bool {
        let message = Message::decode(bytes);
        if matches!(message, Ok(Message::Transfer { .. })) && self.lose_transfers {
            return true;
        }
        if matches!(message, Ok(Message::Taken { .. })) && self.lose_taken {
            return true;
        }
        match self.lose {
            // Signs of life are lost in other tests.
            _ if matches!(message, Ok(Message::Pulse(_))) => false,
            Some(0) => self.lose.take().is_some(),
            Some(left) => {
                self.lose = Some(left - 1);
                false
            }
            None => false,
        }
    }

    fn tell(&mut self, from: NodeId, to: NodeId, bytes: Bytes) {
        let name = NAMES.iter().find(|name| NodeId::of(name) == to).unwrap();
        self.count_down(from);
        if self.cut.contains(&(from, to)) || self.dead.contains(name) || self.is_lost(&bytes) {
            return;
        }
        self.nodes.get_mut(name).unwrap().handle(Input::Peer { from, bytes }, self.now);
        self.upon = match self.upon.take() {
            Some((0, node, command)) => {
                self.nodes.get_mut(node).unwrap().handle(Input::Command { id: 800, command }, self.now);
                None
            }
            Some((left, node, command)) => Some((left - 1, node, command)),
            None => None,
        };
    }

    /// Lets time pass, in steps that no timer is too fine for.
    pub(super) fn pass(&mut self, millis: u64) {
        for _ in 0..millis.div_ceil(10) {
            self.now += Duration::from_millis(10);
            self.client.handle_timeout(self.now);
            self.agent.iter_mut().for_each(|agent| agent.handle_timeout(self.now));
            for (name, node) in &mut self.nodes {
                if !self.dead.contains(name) {
                    node.handle(Input::Tick, self.now);
                }
            }
            self.run();
        }
    }

    /// The answer to a command that a test gave by itself.
    pub(super) fn reply(&mut self, id: u64) -> Option<Reply> {
        self.replies.remove(&id)
    }

    pub(super) fn connect(&mut self) -> Handle {
        let handle = self.connect_at_once();
        self.pass(50);
        handle
    }

    /// Without letting time pass.
    pub(super) fn connect_at_once(&mut self) -> Handle {
        let to = SocketAddrV6::new(service_address(), 7, 0, 0);
        let handle =
            self.client.tcp.connect(address(50).address, to, tcp::Config::default(), self.now).unwrap();
        self.run();
        handle
    }

    /// Sends some octets; what came back by now.
    pub(super) fn echo(&mut self, client: Handle, octets: &'static [u8]) -> Vec<u8> {
        let rest = self.client.tcp.with(client, |tcb| tcb.write(Bytes::from_static(octets)));
        assert!(rest.unwrap().is_empty());
        self.run();
        self.pass(300);
        let mut back = Vec::new();
        self.client.tcp.with(client, |tcb| {
            while tcb.readable() > 0 {
                back.extend_from_slice(&tcb.read(usize::MAX));
            }
        });
        back
    }

    pub(super) fn ask(&mut self, name: &'static str, command: Command) -> Option<Reply> {
        self.asked += 1;
        let id = self.asked;
        self.nodes.get_mut(name).unwrap().handle(Input::Command { id, command }, self.now);
        self.run();
        self.pass(100);
        self.replies.remove(&id)
    }

    pub(super) fn hand_off(&mut self, from: &'static str, to: &str) -> Reply {
        self.ask(from, Command::Handoff { to: to.to_owned(), which: Which::All }).expect("an answer")
    }

    pub(super) fn owner(&self) -> Vec<&'static str> {
        let alive = NAMES.into_iter().filter(|name| !self.dead.contains(name));
        alive.filter(|name| !self.nodes[name].connections().is_empty()).collect()
    }

    pub(super) fn resets(&self) -> usize {
        self.seen.iter().filter(|segment| segment.is_rst()).count()
    }
}
