use std::collections::{BTreeMap, VecDeque};
use std::net::Ipv6Addr;

use bytes::Bytes;
use ferry_stack::frame::Offload;
use ferry_stack::ip::{self, Datagram};
use ferry_stack::tcp::{Arrival, Ending, Endpoint, Event, Handle, Path, Reason, Refusal, Secret, Segment};
use ferry_stack::{Instant, checksum, gso, icmp};

use crate::errno::Errno;
use crate::info::Traffic;
use crate::settings::Settings;
use crate::socket::{Files, Role};
use crate::wait::Waiting;

/// The clock when a script begins: an hour, so that what lies in the past has room.
const START: Instant = Instant::from_millis(3_600_000);

/// Bursts are formed as for a device that cuts them, and cut here: the last segment of each then has a PSH, as in Linux.
const BURSTS: Path = Path { overhead: 0, segmentation: true };

/// One host with its own clock: its TCP, its sockets, and the packets that have left it.
#[derive(Debug)]
pub struct World {
    pub(crate) tcp: Endpoint,
    pub(crate) now: Instant,
    pub(crate) settings: Settings,
    pub(crate) files: Files,
    pub(crate) waiting: Waiting,
    pub(crate) traffic: BTreeMap<Handle, Traffic>,
    /// The address that packets come to.
    pub(crate) local: Ipv6Addr,
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
            left: VecDeque::new(),
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
                    self.tcp.receive_error(&received);
                }
            }
            _ => {}
        }
        self.pump();
    }

    fn arrive_segment(&mut self, datagram: &Datagram) {
        let Ok((flow, segment)) = Segment::parse(datagram) else { return };
        let refused = match self.tcp.receive(&flow, &segment, self.now) {
            Arrival::Delivered(handle, result) => {
                self.traffic.entry(handle).or_default().received(segment.payload.len(), self.now);
                if !segment.payload.is_empty() {
                    self.grow_window(handle);
                }
                self.release_after_ack(handle);
                matches!(result, Err(Reason::AckOfNothing(_)))
            }
            Arrival::Unknown if segment.is_syn() && segment.ack.is_none() => {
                match self.tcp.open(flow, &segment, self.now) {
                    Ok(handle) => {
                        self.adopt(handle);
                        false
                    }
                    Err(refusal) => matches!(refusal, Refusal::NoListener(_)),
                }
            }
            Arrival::Unknown => true,
        };
        if refused && let Some(reset) = self.tcp.refuse(&flow, &segment) {
            self.left.push_back((self.now, reset.to_bytes().to_vec()));
        }
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

    /// Something changed: sends what is due, lets sockets take note of events, and ends the calls that can end.
    pub(crate) fn pump(&mut self) {
        loop {
            self.salvage();
            let sent = self.transmit();
            let told = self.take_events();
            self.watch();
            if !(sent | told | self.finish_calls()) {
                return;
            }
        }
    }

    fn transmit(&mut self) -> bool {
        let before = self.left.len();
        while let Some((handle, packet)) = self.tcp.poll_transmit(self.now, |_| BURSTS) {
            let size = packet.offload.gso.map_or(u16::MAX, |gso| gso.size);
            for segment in gso::segments(&packet, size) {
                self.traffic.entry(handle).or_default().sent(segment.body.len(), self.now);
                self.left.push_back((self.now, segment.to_bytes().to_vec()));
            }
        }
        self.left.len() > before
    }

    fn take_events(&mut self) -> bool {
        let mut any = false;
        while let Some(event) = self.tcp.poll_event() {
            any = true;
            match event {
                Event::Connected(handle) => self.connected(handle),
                Event::Closed(handle, _, ending) => self.closed(handle, ending),
                Event::Acceptable(_) | Event::Ready(_) => {}
            }
        }
        any
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
            Ending::Finished | Ending::Aborted => None,
            Ending::Reset if socket.half_closed => Some(Errno::EPIPE),
            Ending::Reset => Some(Errno::ECONNRESET),
            Ending::Refused => Some(Errno::ECONNREFUSED),
            Ending::TimedOut => Some(Errno::ETIMEDOUT),
        };
        socket.role = if opening { Role::Idle } else { Role::Over };
    }
}
