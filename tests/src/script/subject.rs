//! What a script is about: a host of ours on a clock of its own, and how its connections get to the next one.

use core::net::SocketAddrV6;
use core::time::Duration;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use ferry_handoff::{Epoch, Snapshot};
use ferry_stack::host::Host;
use ferry_stack::interface::{self, Address};
use ferry_stack::tcp::tcb::Recovery;
use ferry_stack::tcp::{Ending, Event, Flow, Handle, Listener, Secret, State, Tcb};
use ferry_stack::{EthernetAddress, Frame, GroupClock, Instant};

use super::settings::Settings;
use super::wire::{OUR_MAC, OURS, THEIRS, solicitation};
use crate::invariants;

/// The port that scripts listen at.
pub(super) const PORT: u16 = 80;
/// Where the first host's clock stands when a script begins.
const FIRST_CLOCK: Duration = Duration::from_hours(24 * 40);
/// Where the group's clock stands when a script begins: later than any host's.
const GROUP_CLOCK: Duration = Duration::from_hours(24 * 100);
/// In the mode that crosses the wrap both sides' numbers begin so many octets before it.
const BEFORE_WRAP: u32 = 1500;
/// M of RFC 6528 counts so many nanoseconds.
const ISN_TICK: u64 = 4_000;
const SECRET: [u8; 32] = [7; 32];

/// A host with its connections. All times are spans since the script began.
#[derive(Debug)]
pub(super) struct Subject {
    host: Host,
    settings: Settings,
    /// Where the host's clock stood when the script began.
    origin: Duration,
    /// Where the group's did.
    group: Duration,
    listener: Option<Listener>,
    /// Taken from the accept queue before it was left behind.
    accepted: VecDeque<Flow>,
    endings: BTreeMap<Flow, Ending>,
    moves: u32,
}

impl Subject {
    /// A host without connections.
    pub(super) fn new(settings: &Settings, wrap: bool) -> Self {
        let mut group = GROUP_CLOCK;
        if wrap {
            let at = Instant::ZERO + group;
            let ahead = Secret::new(SECRET).initial_sequence(&flow(PORT, 40_001), at);
            let missing = 0_u32.wrapping_sub(BEFORE_WRAP).wrapping_sub(ahead.0);
            group += Duration::from_nanos(u64::from(missing) * ISN_TICK);
        }
        Self {
            host: host(settings, FIRST_CLOCK, group),
            settings: settings.clone(),
            origin: FIRST_CLOCK,
            group,
            listener: None,
            accepted: VecDeque::new(),
            endings: BTreeMap::new(),
            moves: 0,
        }
    }

    /// The peer's initial sequence number in the mode that crosses the wrap.
    pub(super) fn irs_before_wrap() -> u32 {
        0_u32.wrapping_sub(BEFORE_WRAP)
    }

    fn now(&self, at: Duration) -> Instant {
        Instant::ZERO + self.origin + at
    }

    /// Takes a frame.
    pub(super) fn receive(&mut self, frame: Bytes, at: Duration) {
        let now = self.now(at);
        self.host.receive(Frame::received(frame), now);
    }

    /// The next frame to be sent.
    pub(super) fn transmit(&mut self, at: Duration) -> Option<Bytes> {
        let now = self.now(at);
        let frame = self.host.poll_transmit(now).map(|frame| frame.contiguous().head);
        self.take_events();
        frame
    }

    /// The next frame that has left TCP already.
    pub(super) fn left(&mut self) -> Option<Bytes> {
        self.host.interface.poll_transmit().map(|frame| frame.contiguous().head)
    }

    /// When something is due, not before `at`.
    pub(super) fn deadline(&self, at: Duration) -> Option<Duration> {
        let due = self.host.deadline()?;
        Some(at + due.until(self.now(at)))
    }

    /// Whether it is a connection that has something to do.
    pub(super) fn is_tcp_due(&self, at: Duration) -> bool {
        self.host.tcp.deadline().is_some_and(|due| due <= self.now(at))
    }

    /// Does what is due.
    pub(super) fn handle_timeout(&mut self, at: Duration) {
        let now = self.now(at);
        self.host.handle_timeout(now);
        self.take_events();
    }

    fn take_events(&mut self) {
        while let Some(event) = self.host.tcp.poll_event() {
            if let Event::Closed(_, flow, ending, _) = event {
                self.endings.insert(flow, ending);
            }
        }
    }

    /// Starts to listen.
    pub(super) fn listen(&mut self, waiting: Option<usize>, half_open: Option<usize>) {
        let mut listener = Listener::new(self.settings.config);
        listener.max_waiting = waiting.unwrap_or(listener.max_waiting);
        listener.max_half_open = half_open.unwrap_or(listener.max_half_open);
        self.host.tcp.listen(PORT, listener.clone());
        self.listener = Some(listener);
    }

    /// Listens no more.
    pub(super) fn unlisten(&mut self) {
        self.host.tcp.unlisten(PORT);
        self.listener = None;
    }

    /// The next connection of the accept queue.
    pub(super) fn accept(&mut self) -> Option<Flow> {
        self.accepted.pop_front().or_else(|| self.take_accepted())
    }

    fn take_accepted(&mut self) -> Option<Flow> {
        let handle = self.host.tcp.accept(PORT)?;
        self.host.tcp.get(handle).map(|tcb| tcb.flow)
    }

    /// Opens a connection to a port of the peer; gives back our port.
    pub(super) fn connect(&mut self, remote_port: u16, at: Duration) -> Result<u16, String> {
        let now = self.now(at);
        let remote = SocketAddrV6::new(THEIRS, remote_port, 0, 0);
        let opened = self.host.tcp.connect(OURS, remote, self.settings.config, now);
        let handle = opened.map_err(|refusal| refusal.to_string())?;
        Ok(self.host.tcp.get(handle).map_or(0, |tcb| tcb.flow.local.port()))
    }

    /// Lets the application act.
    pub(super) fn with<R>(
        &mut self,
        flow: &Flow,
        at: Duration,
        act: impl FnOnce(&mut Tcb, Instant) -> R,
    ) -> Option<R> {
        let now = self.now(at);
        let handle = self.host.tcp.find(flow)?;
        self.host.tcp.with(handle, |tcb| act(tcb, now))
    }

    /// The control block between two ends.
    pub(super) fn get(&self, flow: &Flow) -> Option<&Tcb> {
        self.host.tcp.get(self.host.tcp.find(flow)?)
    }

    /// How the last connection between two ends ended.
    pub(super) fn ending(&self, flow: &Flow) -> Option<Ending> {
        match self.get(flow).map(|tcb| tcb.state) {
            Some(State::Closed(ending)) => Some(ending),
            Some(_) => None,
            None => self.endings.get(flow).copied(),
        }
    }

    /// What must hold of every connection at any time.
    pub(super) fn check(&self, at: Duration) -> Result<(), String> {
        let now = self.now(at);
        self.host.tcp.iter().try_for_each(|(_, tcb)| invariants::hold(tcb, now))
    }

    /// Moves everything to a new host whose clock began at another time, as octets. With `kick` in the way that a
    /// handoff does it; else so that the new host cannot know that anything has happened.
    pub(super) fn move_all(&mut self, at: Duration, kick: bool) -> Result<(), String> {
        while let Some(flow) = self.take_accepted() {
            self.accepted.push_back(flow);
        }
        let now = self.now(at);
        let handles: Vec<Handle> = self.host.tcp.iter().map(|(handle, _)| handle).collect();
        let frozen: Vec<_> = handles.iter().filter_map(|handle| self.host.tcp.export(*handle, now)).collect();
        self.take_events();
        self.begin_anew(at);
        frozen.into_iter().try_for_each(|tcb| self.install(tcb, at, kick))?;
        self.take_events();
        Ok(())
    }

    /// The host dies with everything on it. A connection goes on from a copy on another one.
    pub(super) fn crash(&mut self, copy: Tcb<Duration>, at: Duration) -> Result<(), String> {
        self.accepted.clear();
        self.begin_anew(at);
        self.install(copy.into(), at, true)
    }

    /// A new host, whose clock began at another time: now further on, now further back.
    fn begin_anew(&mut self, at: Duration) {
        self.moves += 1;
        self.origin = Duration::from_millis(u64::from(self.moves) * 7_919_317 % 1_000_003);
        self.host = host(&self.settings, self.origin + at, self.group + at);
        if let Some(listener) = &self.listener {
            self.host.tcp.listen(PORT, listener.clone());
        }
    }

    fn install(&mut self, tcb: Box<Tcb<Duration>>, at: Duration, kick: bool) -> Result<(), String> {
        let now = self.now(at);
        let (session, client) = (Bytes::new(), Bytes::new());
        let (epoch, service) = (Epoch::FIRST, "script".to_owned());
        let snapshot = Snapshot { epoch, service, tcb, session, wake: None, client };
        let octets = snapshot.encode().map_err(|why| why.to_string())?;
        let tcb = Snapshot::decode(&octets).map_err(|why| why.to_string())?.tcb;
        let handle = self.host.tcp.import(tcb.clone(), now).map_err(|why| why.to_string())?;
        if !kick {
            self.host.tcp.with(handle, |imported| *imported = tcb.thaw(now));
        }
        Ok(())
    }

    /// A quantity by its name; `None` if there is no such connection.
    pub(super) fn quantity(&self, name: &str, flow: &Flow) -> Option<f64> {
        let listener = self.host.tcp.listener(PORT);
        match name {
            "waiting" => Some(count(self.accepted.len() + listener?.waiting())),
            "half_open" => Some(count(listener?.half_open())),
            "connections" => Some(count(self.host.tcp.len())),
            _ => self.get(flow).and_then(|tcb| quantity(tcb, name)),
        }
    }
}

/// The flow between our port and the peer's.
pub(super) fn flow(local_port: u16, remote_port: u16) -> Flow {
    Flow {
        local: SocketAddrV6::new(OURS, local_port, 0, 0),
        remote: SocketAddrV6::new(THEIRS, remote_port, 0, 0),
    }
}

/// A host that knows the peer's link-layer address; what its clock shows now, and what the group's does.
fn host(settings: &Settings, clock: Duration, group: Duration) -> Host {
    let interface = interface::Config {
        mac: EthernetAddress(OUR_MAC),
        addresses: vec![Address { address: OURS, prefix_len: 64 }],
        gateway: None,
        mtu: settings.mtu,
    };
    let mut host = Host::new(interface, Secret::new(SECRET), false);
    host.tcp.set_group_clock(GroupClock::ahead_by(group.saturating_sub(clock)));
    host.receive(Frame::received(solicitation()), Instant::ZERO + clock);
    while host.interface.poll_transmit().is_some() {}
    host
}

fn quantity(tcb: &Tcb, name: &str) -> Option<f64> {
    let octets = |octets: u32| f64::from(octets);
    let from_iss = |seq: ferry_stack::Seq| f64::from(seq.0.wrapping_sub(tcb.snd.iss.0));
    Some(match name {
        "cwnd" => octets(tcb.congestion.cwnd),
        "ssthresh" => octets(tcb.congestion.ssthresh),
        "in_flight" => octets(tcb.snd.in_flight),
        "sacked" => octets(tcb.snd.sacked),
        "lost" => octets(tcb.snd.lost()),
        "unsent" => count(tcb.snd.unsent()),
        "queued" => count(tcb.snd.queue.len()),
        "readable" => count(tcb.readable()),
        "writable" => count(tcb.writable()),
        "srtt" => tcb.rtt.smoothed?.as_secs_f64(),
        "rttvar" => tcb.rtt.variation.as_secs_f64(),
        "min_rtt" => tcb.rtt.min?.as_secs_f64(),
        "rto" => tcb.rtt.rto(tcb.config.min_rto, tcb.config.max_rto).as_secs_f64(),
        "backoff" => f64::from(tcb.rtt.backoff),
        "mss" => octets(tcb.mss()),
        "path_mtu" => f64::from(tcb.snd.path_mtu),
        "snd_wnd" => octets(tcb.snd.wnd),
        "rcv_wnd" => count(tcb.rcv.adv.distance_from(tcb.rcv.nxt)),
        "una" => from_iss(tcb.snd.una),
        "nxt" => from_iss(tcb.snd.nxt),
        "rcv_nxt" => f64::from(tcb.rcv.nxt.0.wrapping_sub(tcb.rcv.irs.0)),
        "retransmitted" => octets(tcb.snd.retransmitted),
        "timeouts" => f64::from(tcb.snd.timeouts),
        "probes" => f64::from(tcb.probes),
        "islands" => count(tcb.rcv.reassembly.blocks::<8>().iter().flatten().count()),
        _ => return None,
    })
}

/// No buffer is too large to be counted exactly.
#[expect(clippy::cast_precision_loss, reason = "buffers are bounded")]
fn count(count: usize) -> f64 {
    count as f64
}

/// How losses are repaired, in one word.
pub(super) fn recovery(tcb: &Tcb) -> &'static str {
    match tcb.recovery {
        Recovery::Open { .. } => "open",
        Recovery::Fast { .. } => "fast",
        Recovery::Loss { .. } => "loss",
    }
}

/// How a connection ended, in one word.
pub(super) fn ending(ending: Ending) -> &'static str {
    match ending {
        Ending::Finished => "finished",
        Ending::Reset => "reset",
        Ending::Refused => "refused",
        Ending::TimedOut => "timed-out",
        Ending::Aborted => "aborted",
    }
}
