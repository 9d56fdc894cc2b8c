//! Many connections: demultiplexing in constant time, listeners, timers, and who may send next.

mod flows;
mod handshakes;
mod limits;
mod map;
mod opening;
mod slots;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::sync::Arc;
use core::time::Duration;

use siphasher::sip::SipHasher13;
use thiserror::Error;

use self::flows::Flows;
pub use self::handshakes::CookieCounters;
use self::handshakes::Spent;
pub use self::limits::Limits;
use self::limits::{Challenges, Leftover, Leftovers};
pub use self::map::HandleMap;
use self::slots::Slots;
use super::Reason;
use super::check::Broken;
use super::isn::{MapKey, Secret};
use super::listener::Listener;
use super::output::Path;
use super::segment::{Control, Flow, Segment};
use super::state::{Ending, State};
use super::tcb::Tcb;
use crate::host::quoted_segment;
use crate::icmp::{Error, Received};
use crate::ip::Packet;
use crate::{GroupClock, Instant, Seq};

/// Names a connection of one [`Endpoint`]. Never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle {
    index: u32,
    generation: u32,
}

/// Something that the application wants to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection waits at this port to be [accepted](Endpoint::accept).
    Acceptable(u16),
    /// A connection that we opened is established.
    Connected(Handle),
    /// There is more to read, the other side has finished, or there is more room to write.
    Ready(Handle),
    /// The connection is gone.
    Closed(Handle, Flow, Ending, ReceivedRange),
}

/// What has come on a connection that is over, in sequence numbers: the other side's SYN, octets and FIN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedRange {
    /// Its initial sequence number.
    pub irs: Seq,
    /// What would have been the next.
    pub nxt: Seq,
}

impl ReceivedRange {
    fn of(tcb: &Tcb) -> Self {
        Self { irs: tcb.rcv.irs, nxt: tcb.rcv.nxt }
    }

    /// Whether a segment that begins there may be a late one of that connection.
    pub const fn may_repeat(self, seq: Seq) -> bool {
        self.nxt.0.wrapping_sub(seq.0) <= self.nxt.0.wrapping_sub(self.irs.0)
    }
}

/// What became of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It belongs to this connection, and was taken or refused for a reason.
    Delivered(Handle, Result<(), Reason>),
    /// It belongs to no connection here.
    Unknown,
}

/// Why a connection could not be made or taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// There is a connection between these ends already.
    #[error("there is already a connection between these addresses and ports")]
    Exists,
    /// Nobody listens there.
    #[error("nobody listens on port {0}")]
    NoListener(u16),
    /// The listener's queue is full.
    #[error("the listener's queue is full")]
    QueueFull,
    /// The segment brings back no cookie that was given here or at another host of the group, or one too old.
    #[error("no valid SYN cookie")]
    NoCookie,
    /// The cookie has opened a connection already, which is over.
    #[error("a SYN cookie that was used before")]
    CookieSpent,
    /// Every ephemeral port is in use.
    #[error("no local port is free")]
    NoPort,
    /// The control block cannot be true.
    #[error("the control block cannot be true: {0}")]
    Broken(#[from] Broken),
}

#[derive(Debug)]
struct Connection {
    tcb: Tcb,
    /// Its entry among the timers.
    armed: Option<Instant>,
    /// Whether it waits for its turn to send.
    queued: bool,
    /// Whether an [`Event::Ready`] is on its way.
    told: bool,
    /// Whether its listener counts it as a handshake under way.
    half_open: bool,
    /// As what it counts among those that only wait for their end.
    leftover: Option<Leftover>,
}

/// Many connections of one host.
#[derive(Debug)]
pub struct Endpoint {
    secret: Secret,
    connections: Slots<Connection>,
    flows: Flows,
    listeners: BTreeMap<u16, Listener>,
    /// Connections with something to send, in turn.
    senders: VecDeque<Handle>,
    /// When a connection may have something to do: at most one entry each, not later than its deadline. An entry that
    /// has become too early is left to come due, because deadlines move with every segment.
    timers: BTreeSet<(Instant, Handle)>,
    events: VecDeque<Event>,
    ports: u16,
    path_mtu: u16,
    offload: bool,
    group_clock: GroupClock,
    /// The sequence number after the last of a connection that makes way for a new one between the same ends.
    replaced: Option<(Flow, Seq)>,
    spent: Spent,
    cookies: CookieCounters,
    /// When the last cookie was given.
    baked: Option<Instant>,
    limits: Limits,
    leftovers: Leftovers,
    challenges: Challenges,
    evicted: u64,
    resets: u64,
    retransmitted: u64,
}

impl Endpoint {
    /// An endpoint without connections. `secret` is what nobody outside may guess; `path_mtu` is the largest packet
    /// of the link, in octets; with `offload` the checksums of what is sent are left to whoever is below.
    pub fn new(secret: Secret, path_mtu: u16, offload: bool) -> Self {
        let key = MapKey(SipHasher13::new_with_key(&secret.map_key()));
        Self {
            secret,
            connections: Slots::default(),
            flows: Flows::new(key.clone()),
            listeners: BTreeMap::new(),
            senders: VecDeque::new(),
            timers: BTreeSet::new(),
            events: VecDeque::new(),
            ports: 0,
            path_mtu,
            offload,
            group_clock: GroupClock::default(),
            replaced: None,
            spent: Spent::new(key),
            cookies: CookieCounters::default(),
            baked: None,
            limits: Limits::default(),
            leftovers: Leftovers::default(),
            challenges: Challenges::default(),
            evicted: 0,
            resets: 0,
            retransmitted: 0,
        }
    }

    /// What this host shares with the others of its group: the clock from which new connections take their initial
    /// sequence numbers and timestamps. Without it they are in order on this host only.
    pub fn set_group_clock(&mut self, clock: GroupClock) {
        self.group_clock = clock;
    }

    fn iter_all(&self) -> impl Iterator<Item = &Connection> {
        self.connections.iter().map(|(_, connection)| connection)
    }

    fn insert(&mut self, tcb: Tcb, half_open: bool) -> Handle {
        let connection =
            Connection { tcb, armed: None, queued: false, told: false, half_open, leftover: None };
        let handle = self.connections.insert(connection);
        self.flows.insert(handle, &self.connections);
        self.touch(handle);
        handle
    }

    /// Gives a segment to the connection that it belongs to.
    pub fn receive(&mut self, flow: &Flow, segment: &Segment, now: Instant) -> Arrival {
        let Some(handle) = self.find(flow) else { return Arrival::Unknown };
        let Some(connection) = self.connections.get_mut(handle) else { return Arrival::Unknown };
        // Where nobody listens, it would only be refused, and old duplicates would find the port unguarded.
        if reopens(&connection.tcb, segment) && self.listeners.contains_key(&flow.local.port()) {
            self.replaced = Some((*flow, connection.tcb.snd.nxt));
            let received = ReceivedRange::of(&connection.tcb);
            self.remove(handle);
            self.events.push_back(Event::Closed(handle, *flow, Ending::Finished, received));
            return Arrival::Unknown;
        }
        // The acknowledgement that would establish it is lost on purpose; it will be asked for again.
        let establishes = connection.half_open && segment.control.is_none();
        if establishes
            && self.listeners.get(&flow.local.port()).is_some_and(|l| l.waiting.len() >= l.max_waiting)
        {
            return Arrival::Delivered(handle, Err(Reason::QueueFull));
        }
        let before = Progress::of(&connection.tcb);
        self.challenges.refill(&self.secret, self.limits.challenges, now);
        let result = connection.tcb.receive_within(segment, now, &mut self.challenges.left);
        let after = Progress::of(&connection.tcb);
        self.tell_progress(handle, before, after);
        self.touch(handle);
        Arrival::Delivered(handle, result)
    }

    fn tell_progress(&mut self, handle: Handle, before: Progress, after: Progress) {
        let Some(connection) = self.connections.get_mut(handle) else { return };
        let port = connection.tcb.flow.local.port();
        match (before.opening, after.opening) {
            (Some(_), None) if !connection.tcb.state.is_closed() => {
                let passive = core::mem::take(&mut connection.half_open);
                match self.listeners.get_mut(&port) {
                    Some(listener) if passive => {
                        listener.half_open = listener.half_open.saturating_sub(1);
                        listener.waiting.push_back(handle);
                        self.events.push_back(Event::Acceptable(port));
                    }
                    _ => self.events.push_back(Event::Connected(handle)),
                }
            }
            _ => {}
        }
        if after.received != before.received || after.acked != before.acked {
            self.tell_ready(handle);
        }
    }

    fn tell_ready(&mut self, handle: Handle) {
        if let Some(connection) = self.connections.get_mut(handle)
            && !core::mem::replace(&mut connection.told, true)
        {
            self.events.push_back(Event::Ready(handle));
        }
    }

    /// Lets the application act on a connection, and takes note of what that changed.
    pub fn with<R>(&mut self, handle: Handle, act: impl FnOnce(&mut Tcb) -> R) -> Option<R> {
        let result = act(&mut self.connections.get_mut(handle)?.tcb);
        self.touch(handle);
        Some(result)
    }

    /// A connection's control block.
    pub fn get(&self, handle: Handle) -> Option<&Tcb> {
        self.connections.get(handle).map(|connection| &connection.tcb)
    }

    /// The connection between two ends.
    pub fn find(&self, flow: &Flow) -> Option<Handle> {
        self.flows.get(flow, &self.connections)
    }

    /// Every connection, in no particular but always the same order.
    pub fn iter(&self) -> impl Iterator<Item = (Handle, &Tcb)> {
        self.connections.iter().map(|(handle, connection)| (handle, &connection.tcb))
    }

    /// How many connections there are, in whatever state.
    pub fn len(&self) -> usize {
        self.flows.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// RST segments sent.
    pub fn resets(&self) -> u64 {
        self.resets
    }

    /// Segments sent again from here.
    pub fn retransmitted(&self) -> u64 {
        self.retransmitted
    }

    /// Takes a connection out, clocks stopped, so that it can go on elsewhere. Nothing of it remains here.
    pub fn export(&mut self, handle: Handle, now: Instant) -> Option<Box<Tcb<Duration>>> {
        Some(Box::new(self.remove(handle)?.tcb.freeze(now)))
    }

    /// Takes over a connection from elsewhere: arms its timers, and makes it send at once what is due. Tells that it
    /// is [ready](Event::Ready), because what was told elsewhere is not known here.
    pub fn import(&mut self, tcb: Box<Tcb<Duration>>, now: Instant) -> Result<Handle, Refusal> {
        tcb.check()?;
        if self.find(&tcb.flow).is_some() {
            return Err(Refusal::Exists);
        }
        let mut tcb = tcb.thaw(now);
        tcb.fit_link(self.path_mtu);
        tcb.kick();
        let mut half_open = false;
        if let Some(listener) = self.listeners.get_mut(&tcb.flow.local.port()) {
            half_open = tcb.state == State::SynReceived;
            listener.half_open += usize::from(half_open);
            if listener.config == tcb.config {
                tcb.config = Arc::clone(&listener.config);
            }
        }
        let synchronised = tcb.state.is_synchronised();
        let handle = self.insert(tcb, half_open);
        if synchronised {
            self.tell_ready(handle);
        }
        Ok(handle)
    }

    /// The next packet to send, and whose it is. Connections take turns. `path` says what the way to the other
    /// side does to a packet.
    pub fn poll_transmit(&mut self, now: Instant, path: impl Fn(&Flow) -> Path) -> Option<(Handle, Packet)> {
        while let Some(handle) = self.senders.pop_front() {
            let Some(connection) = self.connections.get_mut(handle) else { continue };
            let tcb = &mut connection.tcb;
            let before = tcb.snd.retransmitted;
            let Some(segment) = tcb.poll_transmit(path(&tcb.flow), now) else {
                connection.queued = false;
                self.settle(handle);
                continue;
            };
            self.senders.push_back(handle);
            self.resets += u64::from(segment.is_rst());
            self.retransmitted += u64::from(tcb.snd.retransmitted != before);
            return Some((handle, segment.emit(&tcb.flow, tcb.flow_label, self.offload)));
        }
        None
    }

    /// What the application should know next.
    pub fn poll_event(&mut self) -> Option<Event> {
        let event = self.events.pop_front()?;
        if let Event::Ready(handle) = event
            && let Some(connection) = self.connections.get_mut(handle)
        {
            connection.told = false;
        }
        Some(event)
    }

    /// The next moment at which [`Endpoint::handle_timeout`] may have something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Does what has come due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(&(at, handle)) = self.timers.first() {
            if at > now {
                break;
            }
            self.timers.pop_first();
            let Some(connection) = self.connections.get_mut(handle) else { continue };
            connection.armed = None;
            if connection.tcb.deadline().is_some_and(|at| at <= now) {
                connection.tcb.handle_timeout(now);
            }
            self.touch(handle);
        }
    }

    /// Takes an ICMPv6 error about a packet of ours. Only Packet Too Big changes anything, and only if the quoted
    /// segment is in flight (RFC 8201, RFC 5927): other errors can be forged or pass, so the connection lives on
    /// until its timers give up (RFC 9293 section 3.9.2.2 and RFC 5461, soft errors).
    pub fn receive_error(&mut self, received: &Received, now: Instant) {
        let Error::PacketTooBig { mtu } = received.error else { return };
        let Some((flow, seq)) = quoted_segment(received) else { return };
        let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
        if let Some(handle) = self.find(&flow) {
            self.with(handle, |tcb| tcb.packet_too_big(mtu, seq, now));
        }
    }

    /// A RST for a segment of a connection that does not exist (RFC 9293 section 3.10.7.1). `None` if the segment
    /// is itself a RST, or comes to a listener and neither opens nor acknowledges (section 3.10.7.2, fourth).
    pub fn refuse(&mut self, flow: &Flow, segment: &Segment) -> Option<Packet> {
        if segment.is_rst() {
            return None;
        }
        let reset = match segment.ack {
            None if !segment.is_syn() && self.listeners.contains_key(&flow.local.port()) => return None,
            Some(ack) => Segment::bare(ack, None, Some(Control::Rst)),
            None => Segment::bare(Seq(0), Some(segment.end()), Some(Control::Rst)),
        };
        self.resets += 1;
        Some(reset.emit(flow, 0, self.offload))
    }

    /// A connection changed: it may have something to send, another deadline, or be over.
    ///
    /// Its timer is armed when it has sent what it can, because sending moves deadlines.
    fn touch(&mut self, handle: Handle) {
        let Some(connection) = self.connections.get_mut(handle) else { return };
        if !connection.queued {
            connection.queued = true;
            self.senders.push_back(handle);
        }
    }

    /// A connection has sent all that it can for now: arms its timer, or forgets it if it is over.
    fn settle(&mut self, handle: Handle) {
        let Some(connection) = self.connections.get_mut(handle) else { return };
        if let State::Closed(ending) = connection.tcb.state {
            let (flow, received) = (connection.tcb.flow, ReceivedRange::of(&connection.tcb));
            if ending == Ending::Finished && connection.tcb.readable() > 0 {
                // What the other side sent before it finished can still be read.
                return;
            }
            self.remove(handle);
            self.events.push_back(Event::Closed(handle, flow, ending, received));
            return;
        }
        if let Some(at) = connection.tcb.deadline()
            && connection.armed.is_none_or(|armed| at < armed)
        {
            if let Some(later) = connection.armed.replace(at) {
                self.timers.remove(&(later, handle));
            }
            self.timers.insert((at, handle));
        }
        self.note_leftover(handle);
    }

    fn remove(&mut self, handle: Handle) -> Option<Box<Connection>> {
        let connection = self.connections.remove(handle)?;
        if let Some(at) = connection.armed {
            self.timers.remove(&(at, handle));
        }
        self.flows.remove(handle, &connection.tcb.flow);
        self.leftovers.leave(connection.leftover);
        if let Some(listener) = self.listeners.get_mut(&connection.tcb.flow.local.port()) {
            listener.waiting.retain(|waiting| *waiting != handle);
            listener.half_open = listener.half_open.saturating_sub(usize::from(connection.half_open));
        }
        Some(connection)
    }
}

/// What the application can notice of a connection.
#[derive(Clone, Copy)]
struct Progress {
    opening: Option<State<Instant>>,
    received: Seq,
    acked: Seq,
}

impl Progress {
    fn of(tcb: &Tcb) -> Self {
        let opening = (!tcb.state.is_synchronised() && !tcb.state.is_closed()).then_some(tcb.state);
        Self { opening, received: tcb.rcv.nxt, acked: tcb.snd.una }
    }
}

/// Whether a SYN may open a connection anew whose ends are in TIME-WAIT here (RFC 9293 section 3.6.1,
/// RFC 6191 section 2).
fn reopens(tcb: &Tcb, segment: &Segment) -> bool {
    if !matches!(tcb.state, State::TimeWait { .. }) || !segment.is_syn() || segment.ack.is_some() {
        return false;
    }
    match (&tcb.timestamps, segment.options.timestamps) {
        (Some(old), Some(new)) if new.value != old.recent => Seq(new.value).after(Seq(old.recent)),
        _ => segment.seq.after(tcb.rcv.nxt),
    }
}
