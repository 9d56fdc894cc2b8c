//! Opening a connection: the handshake (RFC 9293 sections 3.5 and 3.10.7.2 to 3.10.7.4).

use alloc::collections::VecDeque;
use alloc::sync::Arc;

use super::cc::Congestion;
use super::config::{Config, EcnPolicy};
use super::queue::Queue;
use super::reassembly::Reassembly;
use super::rtt::Rtt;
use super::segment::{Control, Flow, Options, Segment};
use super::state::{Ending, State};
use super::tcb::{
    Challenges, Ecn, Mark, Pending, Rack, Recovery, RecvSpace, SendSpace, Tcb, Timers, TimestampState,
};
use super::{DEFAULT_MSS, Reason};
use crate::{Instant, Seq};

/// A peer that asks for less gets this much anyway, or tiny segments would be a weapon.
const MIN_MSS: u16 = 48;
/// The segment size of a host that knows no better (RFC 9293 section 3.7.1, over IPv4): where estimates start.
const LEAST_MSS: u16 = 536;
/// Segments that are acknowledged at once when a connection is young.
pub(super) const QUICK_ACKS: u8 = 16;

/// What a new connection gets from its surroundings.
#[derive(Clone, Debug)]
pub struct Opening {
    /// How it is to behave.
    pub config: Arc<Config>,
    /// Our initial sequence number (RFC 6528).
    pub iss: Seq,
    /// The first `TSval` (RFC 7323 section 5.4: it should differ from flow to flow).
    pub first_timestamp: u32,
    /// The flow label of what we send (RFC 6437).
    pub flow_label: u32,
    /// The largest packet that the path is thought to carry; octets.
    pub path_mtu: u16,
}

impl Tcb {
    /// Opens actively: a SYN will be sent.
    pub fn connect(flow: Flow, opening: &Opening, now: Instant) -> Self {
        let mut tcb = Self::blank(flow, opening, State::SynSent, now);
        tcb.sack = opening.config.sack;
        tcb.ecn = (opening.config.ecn == EcnPolicy::On).then(Ecn::default);
        tcb.timestamps = opening.config.timestamps.then_some(TimestampState {
            value: opening.first_timestamp,
            at: now,
            recent: 0,
            recent_at: now,
        });
        tcb
    }

    /// Opens passively: a SYN has come, and will be answered.
    pub fn accept(flow: Flow, syn: &Segment, opening: &Opening, now: Instant) -> Self {
        let mut tcb = Self::connect(flow, opening, now);
        tcb.state = State::SynReceived;
        tcb.take_syn(syn, now);
        tcb
    }

    /// Opens passively when `syn` came, and was answered, at a time or on a host that is not remembered here: the
    /// acknowledgement that is to be given to the connection next makes it established. How long the answer took is
    /// not known.
    pub(super) fn answered(flow: Flow, syn: &Segment, opening: &Opening, now: Instant) -> Self {
        let mut tcb = Self::accept(flow, syn, opening, now);
        tcb.snd.nxt = tcb.snd.iss + 1_u32;
        tcb
    }

    /// A connection that is gone: nothing can be read or written.
    pub fn closed(flow: Flow, now: Instant) -> Self {
        let config = Arc::new(Config::default());
        let opening = Opening { config, iss: Seq(0), first_timestamp: 0, flow_label: 0, path_mtu: u16::MAX };
        Self::blank(flow, &opening, State::Closed(Ending::Finished), now)
    }

    fn blank(flow: Flow, opening: &Opening, state: State<Instant>, now: Instant) -> Self {
        let Opening { config, iss, path_mtu, flow_label, .. } = opening.clone();
        let mut tcb = Self {
            flow,
            flow_label,
            state,
            snd: SendSpace::new(iss, path_mtu, now),
            rcv: RecvSpace::new(config.window_scale()),
            timestamps: None,
            sack: false,
            ecn: None,
            rtt: Rtt::default(),
            congestion: Congestion::new(config.congestion, 0),
            recovery: Recovery::Open { duplicates: 0 },
            undo: None,
            rack: Rack::new(now),
            timers: Timers::default(),
            pending: Pending::default(),
            probes: 0,
            last_heard: now,
            challenges: Challenges { since: now, sent: 0 },
            held: None,
            recovered: None,
            config,
        };
        tcb.set_initial_window();
        tcb
    }

    /// RFC 6928; and RFC 5681 section 3.1: one segment if the SYN was lost more than once.
    fn set_initial_window(&mut self) {
        let lost = self.snd.sent.front().is_some_and(|syn| syn.retransmissions > 1);
        let segments = if lost { 1 } else { u32::from(self.config.initial_window) };
        self.congestion.cwnd = segments * self.mss();
    }

    /// Takes over what the other side's SYN offers: an option holds only if both sides know it.
    fn take_syn(&mut self, syn: &Segment, now: Instant) {
        let options = &syn.options;
        self.snd.mss = options.mss.unwrap_or(DEFAULT_MSS).max(MIN_MSS);
        match options.window_scale {
            // RFC 7323 section 2.3: a greater shift counts as 14.
            Some(scale) if self.config.window_scaling => self.snd.wscale = scale.min(14),
            _ => (self.snd.wscale, self.rcv.wscale) = (0, 0),
        }
        self.sack &= options.sack_permitted;
        self.agree_on_ecn(syn);
        self.timestamps = self.timestamps.zip(options.timestamps).map(|(ours, theirs)| TimestampState {
            recent: theirs.value,
            recent_at: now,
            ..ours
        });
        self.rcv.irs = syn.seq;
        self.rcv.nxt = syn.seq + 1_u32;
        self.rcv.adv = self.rcv.nxt + u32::from(self.syn_window());
        self.rcv.last_ack = self.rcv.nxt;
        // RFC 7323 section 2.2: the window in a SYN is never scaled.
        self.snd.wnd = u32::from(syn.window);
        self.snd.max_wnd = self.snd.wnd;
        self.snd.wl1 = syn.seq;
        self.snd.wl2 = syn.ack.unwrap_or(self.snd.iss);
        self.set_initial_window();
    }

    /// RFC 9293 section 3.10.7.3.
    pub(super) fn arrive_syn_sent(&mut self, segment: &Segment, now: Instant) -> Result<(), Reason> {
        let sent = self.snd.nxt != self.snd.iss;
        if let Some(ack) = segment.ack
            && (!sent || ack != self.snd.nxt)
        {
            return if segment.is_rst() { Err(Reason::BlindReset) } else { Err(Reason::AckOfNothing(ack)) };
        }
        if segment.is_rst() {
            return self.refused(segment);
        }
        if !segment.is_syn() {
            return Err(Reason::NoSyn);
        }
        self.take_syn(segment, now);
        self.last_heard = now;
        self.pending.ack = true;
        if let Some(ack) = segment.ack {
            self.establish(segment, ack, now);
        } else {
            // Both opened at once: our SYN is sent again, now with an acknowledgement.
            self.state = State::SynReceived;
            self.mark_syn_lost();
        }
        Ok(())
    }

    fn refused(&mut self, segment: &Segment) -> Result<(), Reason> {
        if segment.ack.is_none() {
            return Err(Reason::BlindReset);
        }
        self.state = State::Closed(Ending::Refused);
        Ok(())
    }

    /// Our SYN is acknowledged.
    pub(super) fn establish(&mut self, segment: &Segment, ack: Seq, now: Instant) {
        self.begin_search(now);
        self.set_initial_window();
        if let Some(syn) = self.snd.sent.pop_front() {
            if syn.mark == Mark::InFlight {
                self.snd.in_flight -= syn.len;
            }
            if syn.retransmissions == 0 {
                self.rtt.sample(syn.at.since(now));
            } else {
                self.measure_echo(segment, now);
            }
        }
        if self.snd.timeouts > 0 {
            // RFC 6298 section 5.7: without a measurement, data starts with a longer timeout.
            self.rtt.fallback = true;
        }
        self.rtt.backoff = 0;
        self.snd.timeouts = 0;
        self.snd.una = ack;
        // Whoever acknowledges our SYN has seen us acknowledge theirs.
        self.rcv.last_ack = self.rcv.last_ack.later(self.rcv.irs + 1_u32);
        self.timers.rto = None;
        self.timers.user = None;
        self.state = State::Established;
        self.restart_keep_alive(now);
        // A `finish` before the handshake was over takes effect now.
        if self.snd.fin.is_some() {
            self.state = State::FinWait1;
        }
    }

    /// Has the SYN sent again at once.
    pub(super) fn mark_syn_lost(&mut self) {
        if let Some(syn) = self.snd.sent.front_mut()
            && syn.mark == Mark::InFlight
        {
            syn.mark = Mark::Lost;
            self.snd.in_flight -= syn.len;
        }
    }

    /// The window of a SYN, which is never scaled (RFC 7323 section 2.2).
    pub(super) fn syn_window(&self) -> u16 {
        u16::try_from(self.config.receive_buffer).unwrap_or(u16::MAX)
    }

    /// What a SYN of ours offers. Answering, we offer only what was offered.
    pub(super) fn syn_options(&self, now: Instant) -> Options {
        let answering = self.state == State::SynReceived;
        let scaling =
            if answering { self.snd.wscale != 0 || self.rcv.wscale != 0 } else { self.config.window_scaling };
        Options {
            mss: Some(self.config.mss),
            window_scale: scaling.then_some(self.rcv.wscale),
            sack_permitted: self.sack,
            timestamps: self.timestamp_option(now),
            ..Default::default()
        }
    }

    /// The control bit that opens: SYN as long as it is not acknowledged.
    pub(super) fn owes_syn(&self) -> Option<Control> {
        let opening = matches!(self.state, State::SynSent | State::SynReceived);
        let due = match self.snd.sent.front() {
            None => self.snd.nxt == self.snd.iss,
            Some(syn) => syn.mark == Mark::Lost,
        };
        (opening && due).then_some(Control::Syn)
    }
}

impl SendSpace<Instant> {
    fn new(iss: Seq, path_mtu: u16, now: Instant) -> Self {
        Self {
            iss,
            una: iss,
            nxt: iss,
            wnd: 0,
            wl1: Seq(0),
            wl2: iss,
            max_wnd: 0,
            wscale: 0,
            mss: u16::MAX,
            path_mtu,
            search: None,
            queue: Queue::default(),
            fin: None,
            sent: VecDeque::new(),
            in_flight: 0,
            sacked: 0,
            push: None,
            last: now,
            small: None,
            limited: false,
            most_used: 0,
            used_until: iss,
            acked_total: 0,
            retransmitted: 0,
            timeouts: 0,
            recover: None,
            kicked: None,
            path_since: None,
        }
    }
}

impl RecvSpace {
    fn new(wscale: u8) -> Self {
        Self {
            irs: Seq(0),
            nxt: Seq(0),
            adv: Seq(0),
            last_ack: Seq(0),
            wscale,
            unread: Queue::default(),
            reassembly: Reassembly::default(),
            fin: None,
            discard: false,
            unacked: 0,
            quick: QUICK_ACKS,
            seen_mss: LEAST_MSS,
            total: 0,
            duplicate: None,
        }
    }
}
