use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv6Addr;
use std::path;

use bytes::Bytes;
use ferry_stack::frame::Offload;
use ferry_stack::ip::{self, Datagram, Packet};
use ferry_stack::tcp::{
    Arrival, Ending, Endpoint, Event, Flow, Handle, Path, Reason, Refusal, Secret, Segment, Timestamps,
};
use ferry_stack::{Instant, Seq, checksum, icmp};

use crate::bursts;
use crate::errno::Errno;
use crate::info::{Outstanding, Traffic};
use crate::settings::Settings;
use crate::socket::{Files, Role};
use crate::sysctls::{self, FOLDER, Values};
use crate::wait::Waiting;

/// The clock when a script begins: an hour, so that what lies in the past has room.
const START: Instant = Instant::from_millis(3_600_000);

/// Nothing is added below TCP, and nothing is cut there.
const PLAIN: Path = Path { overhead: 0, segmentation: false };

/// One host with its own clock: its TCP, its sockets, and the packets that have left it.
#[derive(Debug)]
pub struct World {
    pub(crate) tcp: Endpoint,
    pub(crate) now: Instant,
    pub(crate) settings: Settings,
    /// The settings without what was set by `sysctl`, and what was set when they were given.
    asked: Settings,
    sysctls: Values,
    pub(crate) files: Files,
    pub(crate) waiting: Waiting,
    pub(crate) traffic: BTreeMap<Handle, Traffic>,
    /// The address that packets come to.
    pub(crate) local: Ipv6Addr,
    /// How large a packet may be on its way to where a Packet Too Big said that it must be small; octets.
    pub(crate) narrow: BTreeMap<Ipv6Addr, u16>,
    /// Connections that octets came to when nobody reads any more, and what those acknowledged: the RST to come is one
    /// that Linux sends as to a connection that does not exist.
    bare_resets: BTreeMap<Handle, Seq>,
    /// Packets that left and were not fetched, with the time at which they left.
    left: VecDeque<(Instant, Vec<u8>)>,
    /// Whether its settings were refused, so that nothing can be done with it.
    pub(crate) refused: bool,
}

impl World {
    /// A host without sockets.
    pub fn new(settings: Settings) -> Self {
        Self {
            // Nobody attacks a test; that runs are equal is worth more.
            tcp: Endpoint::new(Secret::new([7; 32]), settings.mtu, false),
            now: START,
            files: Files::default(),
            waiting: Waiting::default(),
            traffic: BTreeMap::new(),
            local: settings.local,
            narrow: BTreeMap::new(),
            bare_resets: BTreeMap::new(),
            left: VecDeque::new(),
            asked: settings.clone(),
            sysctls: sysctls::read(path::Path::new(FOLDER)),
            settings,
            refused: false,
        }
    }

    /// A host that makes no sockets, because what was asked of it was refused.
    pub fn refused() -> Self {
        Self { refused: true, ..Self::new(Settings::default()) }
    }

    /// The clock.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// An IPv6 packet arrives. What is no IPv6 packet is dropped, as any host does.
    pub fn arrive(&mut self, packet: &[u8]) {
        let Ok(datagram) = ip::parse(Bytes::copy_from_slice(packet), Offload::default()) else { return };
        self.local = datagram.destination;
        match datagram.upper {
            ip::TCP => self.arrive_segment(&datagram),
            ip::ICMPV6 if checksum::verify(&datagram) => {
                if let Some(received) = icmp::parse_error(&datagram) {
                    self.receive_error(&received);
                }
            }
            _ => {}
        }
        self.pump();
    }

    /// Takes over what was set by `sysctl` since.
    pub(crate) fn look_at_sysctls(&mut self) {
        let values = sysctls::read(path::Path::new(FOLDER));
        self.settings = self.asked.clone().with_sysctls(&self.asked.sysctls.choose(&self.sysctls, values));
    }

    fn arrive_segment(&mut self, datagram: &Datagram) {
        let Ok((flow, mut segment)) = Segment::parse(datagram) else { return };
        self.add_timestamps(&flow, &mut segment);
        let before = self.tcp.find(&flow).and_then(|handle| self.tcp.get(handle)).map(Outstanding::of);
        let refused = match self.tcp.receive(&flow, &segment, self.now) {
            Arrival::Delivered(handle, result) => {
                let traffic = self.traffic.entry(handle).or_default();
                traffic.received(&segment, self.now);
                if let (Some(before), Some(tcb)) = (before, self.tcp.get(handle)) {
                    traffic.note_reordering(&before, tcb);
                }
                if !segment.payload.is_empty() {
                    self.grow_window(handle);
                }
                self.release_after_ack(handle);
                if let (Err(Reason::NobodyReads), Some(ack)) = (result, segment.ack) {
                    self.bare_resets.insert(handle, ack);
                }
                matches!(result, Err(Reason::AckOfNothing(_)))
            }
            Arrival::Unknown if segment.is_syn() && segment.ack.is_none() => {
                self.open_passively(flow, &segment)
            }
            Arrival::Unknown => match self.tcp.open_by_cookie(flow, &segment, self.now) {
                Ok(handle) => {
                    self.adopt(handle);
                    self.traffic.entry(handle).or_default().received(&segment, self.now);
                    false
                }
                Err(refusal) => !matches!(refusal, Refusal::QueueFull),
            },
        };
        if refused && let Some(reset) = self.tcp.refuse(&flow, &segment) {
            self.left.push_back((self.now, reset.to_bytes().to_vec()));
        }
    }

    /// Linux takes segments without the timestamps that were agreed on; the engine, as RFC 7323 section 3.2 asks, none.
    /// They count as repeating the last ones.
    fn add_timestamps(&self, flow: &Flow, segment: &mut Segment) {
        let tcb = self.tcp.find(flow).and_then(|handle| self.tcp.get(handle));
        let recent = tcb.filter(|tcb| tcb.state.is_synchronised()).and_then(|tcb| tcb.timestamps.as_ref());
        if let (Some(ours), None) = (recent, segment.options.timestamps)
            && !segment.is_syn()
        {
            segment.options.timestamps = Some(Timestamps { value: ours.recent, echo: 0 });
        }
    }

    /// A SYN of an unknown flow; whether it is to be refused.
    fn open_passively(&mut self, flow: Flow, syn: &Segment) -> bool {
        match self.tcp.open(flow, syn, self.now) {
            Ok(handle) => self.adopt(handle),
            Err(Refusal::NoListener(_)) => return true,
            Err(_) => {
                if let Some(answer) = self.tcp.answer_without_memory(&flow, syn, self.now) {
                    self.left.push_back((self.now, answer.to_bytes().to_vec()));
                }
            }
        }
        false
    }

    /// Time goes on by itself until `at`; everything that comes due on the way happens at its time.
    pub fn advance(&mut self, at: Instant) {
        while let Some(next) = self.deadline().filter(|next| *next <= at) {
            self.go_to(next);
        }
        self.now = self.now.max(at);
    }

    /// Time goes on to the next moment at which something happens; `false` if nothing ever will.
    pub fn step(&mut self) -> bool {
        self.deadline().is_some_and(|next| {
            self.go_to(next);
            true
        })
    }

    fn go_to(&mut self, at: Instant) {
        self.now = self.now.max(at);
        self.tcp.handle_timeout(self.now);
        self.release_held(self.now);
        self.pump();
    }

    /// The next moment at which something happens by itself.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let held = self.files.sockets().filter_map(|(_, socket)| socket.held_until).min();
        [self.tcp.deadline(), held, self.waiting.deadline()].into_iter().flatten().min()
    }

    /// The next packet that leaves, and when it left. Time goes on until one does; `None` if none ever will.
    pub fn next_packet(&mut self) -> Option<(Instant, Vec<u8>)> {
        loop {
            if let Some(packet) = self.left.pop_front() {
                return Some(packet);
            }
            if !self.step() {
                return None;
            }
        }
    }

    /// The next packet that has left already.
    #[cfg(test)]
    pub(crate) fn left_now(&mut self) -> Option<(Instant, Vec<u8>)> {
        self.left.pop_front()
    }

    /// Something changed: sends what is due, lets sockets take note of events, and ends the calls that can end.
    pub(crate) fn pump(&mut self) {
        loop {
            self.salvage();
            let sent = self.transmit();
            let told = self.take_events();
            self.watch();
            self.note_limits();
            if !(sent | told | self.finish_calls()) {
                return;
            }
        }
    }

    fn transmit(&mut self) -> bool {
        let mut flights: Vec<(Handle, Vec<Packet>)> = Vec::new();
        while let Some((handle, mut packet)) = self.tcp.poll_transmit(self.now, |_| PLAIN) {
            if let Some(ack) = self.bare_resets.remove(&handle) {
                bursts::bare_reset(&mut packet, ack);
            }
            self.traffic.entry(handle).or_default().sent(packet.body.len(), self.now);
            match flights.iter_mut().find(|(whose, _)| *whose == handle) {
                Some((_, flight)) => flight.push(packet),
                None => flights.push((handle, vec![packet])),
            }
        }
        let any = !flights.is_empty();
        for (handle, mut flight) in flights {
            let tcb = self.tcp.get(handle);
            let traffic = self.traffic.entry(handle).or_default();
            traffic.bursts.mark(&mut flight, tcb, self.settings.least_burst);
            self.left.extend(flight.iter().map(|packet| (self.now, packet.to_bytes().to_vec())));
        }
        any
    }

    fn take_events(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.tcp.poll_event() {
            any = true;
            match event {
                Event::Connected(handle) => self.connected(handle),
                Event::Closed(handle, _, ending, _) => self.closed(handle, ending),
                Event::Acceptable(_) | Event::Ready(_) => {}
            }
        }
        any
    }

    /// Counts for how long each connection has been held back, and by what.
    fn note_limits(&mut self) {
        for socket in self.files.sockets() {
            let Some(handle) = socket.1.handle() else { continue };
            let Some(tcb) = self.tcp.get(handle) else { continue };
            let starved = self.waiting.writes(socket.0);
            self.traffic.entry(handle).or_default().note_limit(tcb, starved, self.now);
        }
    }

    /// What a connection that ends has received stays readable.
    fn salvage(&mut self) {
        for socket in self.files.sockets_mut() {
            let Some(handle) = socket.handle() else { continue };
            let Some(tcb) = self.tcp.get(handle).filter(|tcb| tcb.state.is_closed()) else { continue };
            socket.received = tcb.rcv.total;
            socket.half_closed = tcb.rcv.fin.is_some() && tcb.snd.fin.is_none();
            socket.last_info = crate::info::tcp_info(tcb, self.traffic.get(&handle), self.now);
            while let Some(octets) = self.tcp.with(handle, |tcb| tcb.read(usize::MAX))
                && !octets.is_empty()
            {
                socket.rest.extend_from_slice(&octets);
            }
        }
    }

    fn closed(&mut self, handle: Handle, ending: Ending) {
        self.traffic.remove(&handle);
        let Some(socket) = self.files.sockets_mut().find(|socket| socket.handle() == Some(handle)) else {
            return;
        };
        let opening = matches!(socket.role, Role::Connecting(_));
        socket.error = match ending {
            Ending::Finished => None,
            Ending::Aborted => socket.soft_error.filter(|_| opening),
            Ending::Reset if socket.half_closed => Some(Errno::EPIPE),
            Ending::Reset => Some(Errno::ECONNRESET),
            Ending::Refused => Some(Errno::ECONNREFUSED),
            Ending::TimedOut => Some(socket.soft_error.unwrap_or(Errno::ETIMEDOUT)),
        };
        socket.role = if opening { Role::Idle } else { Role::Over };
    }
}
