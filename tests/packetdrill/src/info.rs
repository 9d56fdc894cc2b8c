//! `TCP_INFO`: what Linux's `struct tcp_info` says of a connection, as far as we have the notion; the rest is zero.

use core::time::Duration;

use ferry_stack::tcp::cc::MAX_WINDOW;
use ferry_stack::tcp::tcb::{Mark, Recovery, Sent};
use ferry_stack::tcp::{Codepoint, Segment, State, Tcb};
use ferry_stack::{Instant, Seq};

use crate::bursts::Bursts;

/// What `TCP_INFO` says of a connection that is gone, and of a listener (`include/net/tcp_states.h`).
pub(crate) const CLOSED: u8 = 7;
pub(crate) const LISTENING: u8 = 10;
/// The degree of reordering that Linux begins with, and the greatest it takes (`tcp_reordering`,
/// `tcp_max_reordering`).
const REORDERING: u32 = 3;
const MOST_REORDERING: u32 = 300;
/// Octets of the part of `struct tcp_info` that is filled.
const LEN: usize = 232;

/// What the control block does not count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) bursts: Bursts,
    /// When the handshake was over.
    since: Option<Instant>,
    /// The degree of reordering that was seen, in segments, above Linux's default.
    reordering: Option<u32>,
    /// Whether a packet said that it is ECN-capable.
    ecn_seen: bool,
    /// What holds the connection back now, and since when.
    held_back: Option<(Limit, Instant)>,
    /// For how long it had something to send, …
    busy: Duration,
    /// … was held back by the other side's window, …
    by_window: Duration,
    /// … or had nothing because the send buffer was too small.
    by_buffer: Duration,
    segments_out: u32,
    segments_in: u32,
    data_segments_out: u32,
    data_segments_in: u32,
    octets_out: u64,
    data_sent_at: Option<Instant>,
    data_received_at: Option<Instant>,
    received_at: Option<Instant>,
}

impl Traffic {
    /// A segment with `octets` of payload was sent.
    pub(crate) fn sent(&mut self, octets: usize, now: Instant) {
        self.segments_out += 1;
        self.octets_out += octets as u64;
        if octets > 0 {
            self.data_segments_out += 1;
            self.data_sent_at = Some(now);
        }
    }

    /// A segment arrived.
    pub(crate) fn received(&mut self, segment: &Segment, now: Instant) {
        self.segments_in += 1;
        self.since.get_or_insert(now);
        self.ecn_seen |= segment.codepoint != Codepoint::NotEct;
        self.received_at = Some(now);
        if !segment.payload.is_empty() {
            self.data_segments_in += 1;
            self.data_received_at = Some(now);
        }
    }

    /// A segment arrived; `before` is what was outstanding until then. Delivered first but sent only once: the distance
    /// to the highest that had been delivered is the degree of reordering (`tcp_check_sack_reordering` of Linux).
    pub(crate) fn note_reordering(&mut self, before: &Outstanding, tcb: &Tcb) {
        let delivered = |seq: Seq| {
            seq.before(tcb.snd.una)
                || tcb.snd.sent.iter().any(|sent| {
                    sent.mark == Mark::Sacked && sent.seq.at_or_before(seq) && seq.before(sent.end())
                })
        };
        let Some(highest) = before.highest.filter(|_| tcb.sack) else { return };
        let late = before.holes.iter().find(|seq| seq.before(highest) && delivered(**seq));
        if let Some(late) = late {
            let degree = u32::try_from(highest.distance_from(*late)).unwrap_or(0).div_ceil(tcb.mss());
            self.reordering = Some(degree.max(self.reordering.unwrap_or(REORDERING)).min(MOST_REORDERING));
        }
    }

    /// Something may have changed: counts the time that has passed since the last look.
    pub(crate) fn note_limit(&mut self, tcb: &Tcb, starved: bool, now: Instant) {
        if let Some((limit, since)) = self.held_back {
            let span = since.since(now);
            self.busy += span;
            match limit {
                Limit::Window => self.by_window += span,
                Limit::Buffer => self.by_buffer += span,
                Limit::None => {}
            }
        }
        let limit = if tcb.snd.unsent() == 0 {
            if starved { Limit::Buffer } else { Limit::None }
        } else {
            let used = tcb.snd.nxt.0.wrapping_sub(tcb.snd.wl2.0);
            let room = tcb.snd.wnd.saturating_sub(used) as usize;
            let shut = room < tcb.snd.unsent().min(tcb.mss() as usize);
            if shut { Limit::Window } else { Limit::None }
        };
        let busy = !tcb.snd.queue.is_empty() && tcb.state.is_synchronised();
        self.held_back = busy.then_some((limit, now));
    }
}

/// What holds back a connection that has something to send.
#[derive(Clone, Copy, Debug)]
enum Limit {
    /// The network, or nothing.
    None,
    /// The other side's window.
    Window,
    /// The application would have more to send, but the send buffer is full of what is in flight.
    Buffer,
}

/// What was in flight before a segment arrived.
#[derive(Debug)]
pub(crate) struct Outstanding {
    /// The end of the highest that was selectively acknowledged.
    highest: Option<Seq>,
    /// The first sequence numbers of segments that were sent once and not acknowledged, in order.
    holes: Vec<Seq>,
}

impl Outstanding {
    pub(crate) fn of(tcb: &Tcb) -> Self {
        let sacked = tcb.snd.sent.iter().rev().find(|sent| sent.mark == Mark::Sacked);
        let open = |sent: &&Sent<Instant>| sent.mark != Mark::Sacked && sent.retransmissions == 0;
        Self {
            highest: sacked.map(Sent::end),
            holes: tcb.snd.sent.iter().filter(open).map(|sent| sent.seq).collect(),
        }
    }
}

/// Writes the fields one after the other.
struct Fields(Vec<u8>);

impl Fields {
    fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    fn u32(&mut self, value: impl TryInto<u32>) -> &mut Self {
        let value: u32 = value.try_into().unwrap_or(u32::MAX);
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.0.extend_from_slice(&value.to_ne_bytes());
        self
    }
}

/// `TCP_INFO` of something that has no connection.
pub(crate) fn bare_info(state: u8) -> Vec<u8> {
    let mut octets = vec![0; LEN];
    octets[0] = state;
    octets
}

/// `TCP_INFO` of a connection.
pub(crate) fn tcp_info(tcb: &Tcb, traffic: Option<&Traffic>, now: Instant) -> Vec<u8> {
    let traffic = traffic.cloned().unwrap_or_default();
    let mut fields = Fields(Vec::with_capacity(LEN));
    head(&mut fields, tcb, &traffic);
    segments(&mut fields, tcb);
    spans(&mut fields, &traffic, now);
    windows(&mut fields, tcb, &traffic);
    counters(&mut fields, tcb, &traffic);
    fields.0.resize(LEN, 0);
    fields.0
}

/// From `tcpi_state` to `tcpi_rcv_mss`.
fn head(fields: &mut Fields, tcb: &Tcb, traffic: &Traffic) {
    let options = u8::from(tcb.timestamps.is_some())
        | u8::from(tcb.sack) << 1
        | u8::from(tcb.snd.wscale != 0 || tcb.rcv.wscale != 0) << 2
        | u8::from(tcb.ecn.is_some()) << 3
        | u8::from(tcb.ecn.is_some() && traffic.ecn_seen) << 4;
    let rto = tcb.rtt.rto(tcb.config.min_rto, tcb.config.max_rto);
    fields
        .u8(state(tcb))
        .u8(loss_state(tcb))
        .u8(tcb.snd.timeouts)
        .u8(tcb.probes)
        .u8(tcb.rtt.backoff)
        .u8(options)
        // Two bit fields of four, the first in the low bits.
        .u8(tcb.snd.wscale | tcb.rcv.wscale << 4)
        .u8(0)
        .u32(rto.as_micros())
        .u32(tcb.config.delayed_ack.as_micros())
        .u32(tcb.mss())
        .u32(u32::from(tcb.rcv.seen_mss));
}

/// From `tcpi_unacked` to `tcpi_fackets`: in segments.
fn segments(fields: &mut Fields, tcb: &Tcb) {
    let count = |which: &dyn Fn(&Sent<Instant>) -> bool| -> u32 {
        tcb.snd.sent.iter().filter(|sent| which(sent)).map(|sent| sent.len.div_ceil(tcb.mss())).sum()
    };
    fields
        .u32(count(&|_| true))
        .u32(count(&|sent| sent.mark == Mark::Sacked))
        .u32(count(&|sent| {
            sent.mark == Mark::Lost || (sent.retransmissions > 0 && sent.mark != Mark::Sacked)
        }))
        .u32(count(&|sent| sent.mark == Mark::InFlight && sent.retransmissions > 0))
        .u32(0_u32);
}

/// From `tcpi_last_data_sent` to `tcpi_last_ack_recv`: in milliseconds.
fn spans(fields: &mut Fields, traffic: &Traffic, now: Instant) {
    let age = |at: Option<Instant>| at.or(traffic.since).map_or(0, |at| at.since(now).as_millis());
    fields.u32(age(traffic.data_sent_at)).u32(0);
    fields.u32(age(traffic.data_received_at)).u32(age(traffic.received_at));
}

/// From `tcpi_pmtu` to `tcpi_rcv_space`.
fn windows(fields: &mut Fields, tcb: &Tcb, traffic: &Traffic) {
    let mss = tcb.mss();
    let threshold = if tcb.congestion.ssthresh == MAX_WINDOW {
        // Linux's TCP_INFINITE_SSTHRESH.
        0x7fff_ffff
    } else {
        tcb.congestion.ssthresh / mss
    };
    fields
        .u32(u32::from(tcb.snd.path_mtu))
        .u32(tcb.config.receive_buffer)
        .u32(tcb.rtt.smoothed.unwrap_or_default().as_micros())
        .u32(tcb.rtt.variation.as_micros())
        .u32(threshold)
        .u32(tcb.congestion.cwnd / mss)
        .u32(u32::from(tcb.config.mss))
        // We adapt a span of time instead (RFC 8985): told, but not used.
        .u32(traffic.reordering.unwrap_or(REORDERING))
        .u32(0)
        .u32(tcb.config.receive_buffer)
        .u32(tcb.snd.retransmitted);
}

/// From `tcpi_pacing_rate` to `tcpi_snd_wnd`.
fn counters(fields: &mut Fields, tcb: &Tcb, traffic: &Traffic) {
    let flying = (tcb.snd.queue.len() - tcb.snd.unsent()) as u64;
    let once = tcb.snd.acked_total + flying;
    fields
        .u64(u64::MAX)
        .u64(u64::MAX)
        .u64(tcb.snd.acked_total)
        .u64(tcb.rcv.total)
        .u32(traffic.segments_out)
        .u32(traffic.segments_in)
        .u32(tcb.snd.unsent())
        .u32(tcb.rtt.min.unwrap_or_default().as_micros())
        .u32(traffic.data_segments_in)
        .u32(traffic.data_segments_out)
        // The rate of delivery is not measured.
        .u64(0)
        .u64(micros(traffic.busy))
        .u64(micros(traffic.by_window))
        .u64(micros(traffic.by_buffer))
        // Segments delivered, and those with a congestion mark: not counted.
        .u32(0)
        .u32(0)
        .u64(traffic.octets_out)
        .u64(traffic.octets_out.saturating_sub(once))
        .u32(0)
        .u32(0)
        .u32(0)
        .u32(tcb.snd.wnd);
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}

/// `include/net/tcp_states.h`.
fn state(tcb: &Tcb) -> u8 {
    match tcb.state {
        State::Established => 1,
        State::SynSent => 2,
        State::SynReceived => 3,
        State::FinWait1 => 4,
        State::FinWait2 { .. } => 5,
        State::TimeWait { .. } => 6,
        State::Closed(_) => CLOSED,
        State::CloseWait => 8,
        State::LastAck => 9,
        State::Closing => 11,
    }
}

/// `enum tcp_ca_state`: open, disorder, window reduced (by ECN), recovery, loss.
fn loss_state(tcb: &Tcb) -> u8 {
    match tcb.recovery {
        Recovery::Open { duplicates } if duplicates > 0 || tcb.snd.sacked > 0 => 1,
        Recovery::Open { .. } if tcb.ecn.is_some_and(|ecn| ecn.until.is_some()) => 2,
        Recovery::Open { .. } => 0,
        Recovery::Fast { .. } => 3,
        Recovery::Loss { .. } => 4,
    }
}
