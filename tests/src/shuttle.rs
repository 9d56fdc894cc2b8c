//! Our TCP on two hosts that look like one from outside. Connections go to and fro between them in mid-transfer, as the
//! octets of a snapshot, and nobody else may notice.

use core::fmt;
use core::net::{Ipv6Addr, SocketAddrV6};
use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use ferry_handoff::{Epoch, Snapshot};
use ferry_stack::host::Host;
use ferry_stack::ip::{self, Packet};
use ferry_stack::tcp::{Config, Event, Flow, Handle, Listener, Secret, State, Tcb};
use ferry_stack::{Frame, Instant, Offload, interface};

use crate::link::{self, ETHERNET};
use crate::octets::Octets;
use crate::rng::Rng;
use crate::stack::{End, Phase, Stack, end};

/// How the two hosts behave.
#[derive(Clone, Debug)]
pub struct Manners {
    /// How connections behave.
    pub config: Config,
    /// Whether checksums and segmentation are left to whoever takes the frames.
    pub offload: bool,
    /// Events from one crossing to the next. `1..=1`: after every event.
    pub every: RangeInclusive<u64>,
    /// Whether everything stays where it is after the first.
    pub once: bool,
}

/// Two hosts that share an address.
pub struct Shuttle {
    berths: [Berth; 2],
    address: Ipv6Addr,
    manners: Manners,
    rng: Rng,
    /// Events until everything crosses.
    left: u64,
    /// Whether both know the way to whoever is at the other end of the link, so that no segment waits for an answer
    /// and is overtaken by its connection.
    acquainted: bool,
    crossings: u64,
    flows: Vec<Flow>,
    ports: Vec<u16>,
    accepted: VecDeque<(usize, u16)>,
    ends: BTreeMap<Flow, End>,
}

/// One of them.
#[derive(Debug)]
struct Berth {
    host: Host,
    /// What its clock shows when the other's shows nothing.
    ahead: Duration,
}

impl Berth {
    fn clock(&self, now: Instant) -> Instant {
        now + self.ahead
    }

    fn find(&self, flow: &Flow) -> Option<Handle> {
        self.host.tcp.find(flow)
    }
}

impl fmt::Debug for Shuttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shuttle")
            .field("manners", &self.manners)
            .field("crossings", &self.crossings)
            .finish_non_exhaustive()
    }
}

impl Shuttle {
    /// Two hosts with one address. The second has run for up to a month longer than the first.
    pub fn new(config: &interface::Config, manners: Manners, mut rng: Rng) -> Self {
        let secret = rng.secret();
        let berth = |ahead| Berth {
            host: Host::new(config.clone(), Secret::new(secret), manners.offload),
            ahead: Duration::from_millis(ahead),
        };
        let berths = [berth(0), berth(rng.scaled(0..=1 << 31))];
        let address = config.addresses.first().map_or(Ipv6Addr::UNSPECIFIED, |first| first.address);
        let left = rng.within(manners.every.clone());
        Self {
            berths,
            address,
            manners,
            rng,
            left,
            acquainted: false,
            crossings: 0,
            flows: Vec::new(),
            ports: Vec::new(),
            accepted: VecDeque::new(),
            ends: BTreeMap::new(),
        }
    }

    fn number(&mut self, flow: Flow) -> usize {
        self.flows.push(flow);
        self.flows.len() - 1
    }

    /// Where a connection is now.
    fn place(&self, flow: &Flow) -> Option<(usize, Handle)> {
        (0..2).find_map(|nth| Some((nth, self.berths[nth].find(flow)?)))
    }

    fn tcb(&self, connection: usize) -> Option<&Tcb> {
        let (nth, handle) = self.place(&self.flows[connection])?;
        self.berths[nth].host.tcp.get(handle)
    }

    /// Something has happened. Everything that was told is taken note of; then, if it is time, everything crosses.
    fn note_event(&mut self, now: Instant) {
        self.listen_to();
        self.left = self.left.saturating_sub(1);
        let over = self.manners.once && self.crossings > 0;
        if self.left == 0 && self.acquainted && !over {
            self.left = self.rng.within(self.manners.every.clone());
            self.cross(now);
        }
    }

    fn listen_to(&mut self) {
        for nth in 0..2 {
            while let Some(event) = self.berths[nth].host.tcp.poll_event() {
                if let Event::Closed(_, flow, ending, _) = event {
                    self.ends.insert(flow, end(ending));
                }
            }
            for port in self.ports.clone() {
                while let Some(handle) = self.berths[nth].host.tcp.accept(port) {
                    let flow = self.berths[nth].host.tcp.get(handle).map(|tcb| tcb.flow);
                    let number = self.number(flow.expect("it was just accepted"));
                    self.accepted.push_back((number, port));
                }
            }
        }
    }

    /// Every connection goes to the other host, whatever state it is in.
    fn cross(&mut self, now: Instant) {
        let here = |nth: usize| {
            // One that is closed has only to tell so, here.
            let open = self.berths[nth].host.tcp.iter().filter(|(_, tcb)| !tcb.state.is_closed());
            open.map(|(handle, _)| (nth, handle)).collect::<Vec<_>>()
        };
        let all = [here(0), here(1)].concat();
        for (from, handle) in all {
            let clock = self.berths[from].clock(now);
            let tcb = self.berths[from].host.tcp.export(handle, clock).expect("it is there");
            self.crossings += 1;
            let (epoch, service) = (Epoch::nth(0), "shuttle".to_owned());
            let sent =
                Snapshot { epoch, service, tcb, client: Bytes::new(), session: Bytes::new(), wake: None };
            let octets = sent.encode().expect("a connection fits a snapshot");
            let Snapshot { tcb, .. } = Snapshot::decode(&octets).expect("what was sent is well");
            let other = &mut self.berths[1 - from];
            let clock = other.clock(now);
            other.host.tcp.import(tcb, clock).expect("the other host has no such connection");
        }
    }

    fn deliver(&mut self, nth: usize, frame: Frame, now: Instant) {
        let clock = self.berths[nth].clock(now);
        self.berths[nth].host.receive(frame, clock);
    }
}

/// The flow that a frame belongs to, if there is a TCP segment in it and nothing else before that.
fn flow(frame: &Frame) -> Option<Flow> {
    let octets = &frame.clone().contiguous().head;
    let packet = octets.get(usize::from(ETHERNET)..).filter(|packet| packet.get(6) == Some(&ip::TCP))?;
    let address = |at: usize| {
        let octets: [u8; 16] = packet.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(octets))
    };
    let port = |at: usize| Some(u16::from_be_bytes(packet.get(at..at + 2)?.try_into().ok()?));
    let end = |at: usize, port_at: usize| Some(SocketAddrV6::new(address(at)?, port(port_at)?, 0, 0));
    Some(Flow { remote: end(8, 40)?, local: end(24, 42)? })
}

impl Stack for Shuttle {
    fn listen(&mut self, port: u16) {
        for berth in &mut self.berths {
            berth.host.tcp.listen(port, Listener::new(self.manners.config));
        }
        self.ports.push(port);
    }

    fn accept(&mut self) -> Option<(usize, u16)> {
        self.accepted.pop_front()
    }

    fn connect(&mut self, server: SocketAddrV6, now: Instant) -> (usize, SocketAddrV6) {
        // So that the other host looks for the way too.
        let (source, destination) = (self.address, *server.ip());
        let nothing = ip::Header { source, destination, ..ip::Header::default() }.emit(0);
        let packet = Packet { head: nothing, body: Bytes::new(), offload: Offload::default() };
        let clock = self.berths[1].clock(now);
        self.berths[1].host.interface.send(packet, clock);
        let tcp = &mut self.berths[0].host.tcp;
        let handle = tcp.connect(self.address, server, self.manners.config, now).expect("a port is free");
        let flow = tcp.get(handle).expect("it was just opened").flow;
        (self.number(flow), flow.local)
    }

    fn phase(&self, connection: usize) -> Phase {
        let known = self.ends.get(&self.flows[connection]).copied();
        match self.tcb(connection).map(|tcb| (tcb.state, tcb.readable())) {
            None => Phase::Over(known.unwrap_or(End::Aborted)),
            Some((State::TimeWait { .. }, 0)) => Phase::Over(End::Finished),
            Some((State::SynSent | State::SynReceived, _)) => Phase::Opening,
            Some(_) => Phase::Open,
        }
    }

    fn is_settled(&self, connection: usize) -> bool {
        let state = self.tcb(connection).map(|tcb| tcb.state);
        matches!(state, None | Some(State::TimeWait { .. } | State::Closed(_)))
    }

    fn act(&mut self, connection: usize, _: Instant, act: &mut dyn FnMut(&mut dyn Octets)) {
        if let Some((nth, handle)) = self.place(&self.flows[connection]) {
            self.berths[nth].host.tcp.with(handle, |tcb| act(tcb));
        }
    }

    /// A segment goes to the host that has its connection, the first one if none has; everything else to both.
    fn receive(&mut self, frame: Frame, now: Instant) {
        let place = flow(&frame).map(|flow| self.place(&flow).map_or(0, |(nth, _)| nth));
        if place.is_none() {
            self.acquainted |= link::is_discovery(&frame);
            self.deliver(1, frame.clone(), now);
        }
        self.deliver(place.unwrap_or(0), frame, now);
        self.note_event(now);
    }

    fn transmit(&mut self, now: Instant) -> Option<Frame> {
        let frame = self.berths.iter_mut().find_map(|berth| {
            let clock = berth.clock(now);
            berth.host.poll_transmit(clock)
        });
        self.listen_to();
        frame
    }

    fn deadline(&mut self, _: Instant) -> Option<Instant> {
        let here = |berth: &Berth| Some(berth.host.deadline()?.earlier_by(berth.ahead));
        self.berths.iter().filter_map(here).min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        for berth in &mut self.berths {
            let clock = berth.clock(now);
            berth.host.handle_timeout(clock);
        }
        self.note_event(now);
    }

    fn tcbs(&self, now: Instant) -> Vec<(&Tcb, Instant)> {
        let all =
            self.berths.iter().flat_map(|berth| berth.host.tcp.iter().map(move |(_, tcb)| (berth, tcb)));
        all.map(|(berth, tcb)| (tcb, berth.clock(now))).collect()
    }

    fn is_next_door(&self) -> bool {
        true
    }

    fn crossings(&self) -> u64 {
        self.crossings
    }
}
