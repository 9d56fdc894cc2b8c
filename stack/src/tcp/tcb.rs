//! The transmission control block: a plain value that holds everything that TCP knows about a connection.

mod rebase;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use core::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

pub use self::rebase::{Arriving, Leaving, Rebase};
use super::cc::Congestion;
use super::commit::Held;
use super::config::Config;
use super::plpmtud::Search;
use super::queue::Queue;
use super::reassembly::Reassembly;
use super::recovered::Recovered;
use super::rtt::Rtt;
use super::segment::Flow;
use super::state::State;
use crate::{Instant, Seq};

/// Everything that TCP knows about one connection, and nothing else: no clock, no lock, no handle.
///
/// `At` is the clock in the type. A running connection is a `Tcb<Instant>`; only a `Tcb<Duration>`, in which every
/// point in time has become time left or time passed, can be serialised and travel. See [`Tcb::freeze`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tcb<At = Instant> {
    /// Both ends, by their home addresses.
    pub flow: Flow,
    /// The IPv6 flow label of what we send (RFC 6437).
    pub flow_label: u32,
    /// How it behaves. Shared with the other connections of its listener.
    #[serde(deserialize_with = "shared")]
    pub config: Arc<Config>,
    /// Where in RFC 9293 figure 5 it is.
    pub state: State<At>,
    /// SND.*
    pub snd: SendSpace<At>,
    /// RCV.*
    pub rcv: RecvSpace,
    /// Timestamps, unless the other side declined them.
    pub timestamps: Option<TimestampState<At>>,
    /// Whether selective acknowledgements go both ways.
    pub sack: bool,
    /// Explicit congestion notification, if both sides know it.
    pub ecn: Option<Ecn>,
    /// Round-trip time.
    pub rtt: Rtt,
    /// Congestion control.
    pub congestion: Congestion<At>,
    /// How losses are being repaired.
    pub recovery: Recovery,
    /// What to go back to if nothing was lost after all.
    pub undo: Option<Box<Undo<At>>>,
    /// What loss detection remembers.
    pub rack: Rack<At>,
    /// When to act without being asked.
    pub timers: Timers<At>,
    /// What must be sent as soon as possible.
    pub pending: Pending,
    /// Unanswered keep-alive or window probes in a row.
    pub probes: u8,
    /// When the last segment arrived.
    pub last_heard: At,
    /// Bounds the answers to unacceptable segments (RFC 5961 section 7).
    pub challenges: Challenges<At>,
    /// What the other side must not be told before a backup has a copy.
    pub held: Option<Box<Held>>,
    /// What a former life leaves to be minded, if the connection goes on after its host died.
    pub recovered: Option<Box<Recovered<At>>>,
}

/// The send sequence space (RFC 9293 section 3.3.1).
///
/// SND.NXT never goes back: what is to be sent again is marked in [`SendSpace::sent`] instead, so there is no
/// separate "highest sequence number ever sent".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendSpace<At> {
    /// Our initial sequence number, that of the SYN. Differs from SND.UNA once that is acknowledged: a connection
    /// that comes round to it moves it back by one.
    pub iss: Seq,
    /// The oldest sequence number that is not acknowledged.
    pub una: Seq,
    /// The next to be sent for the first time.
    pub nxt: Seq,
    /// The window that the other side advertised, in octets from SND.WL2.
    pub wnd: u32,
    /// The segment that last updated the window: its sequence number …
    pub wl1: Seq,
    /// … and its acknowledgement number.
    pub wl2: Seq,
    /// The largest window ever advertised (Max.SND.WND).
    pub max_wnd: u32,
    /// What the other side's window field is shifted by.
    pub wscale: u8,
    /// The largest segment that the other side takes: octets of payload and TCP options.
    pub mss: u16,
    /// The largest packet that the path carries, extension headers and tunnels included; octets.
    pub path_mtu: u16,
    /// Whether it may carry larger ones.
    pub search: Option<Box<Search<At>>>,
    /// What is not acknowledged, then what was never sent. Its first octet is SND.UNA (the SYN is not in it).
    pub queue: Queue,
    /// The sequence number of our FIN, once there will be no more octets in front of it.
    pub fin: Option<Seq>,
    /// Whether our FIN went out with an acknowledgement that had to leave out the other side's, which was here.
    pub crossed: bool,
    /// What is in flight: SND.UNA to SND.NXT without gaps, in order.
    pub sent: VecDeque<Sent<At>>,
    /// Octets that are thought to be in the network: those of `sent` that are marked in flight.
    pub in_flight: u32,
    /// Octets of `sent` that were selectively acknowledged.
    pub sacked: u32,
    /// The end of the last write that is to be pushed.
    pub push: Option<Seq>,
    /// The end of the last segment that was sent with less than there was room for, until it is acknowledged.
    pub small: Option<Seq>,
    /// When data was last sent.
    pub last: At,
    /// Whether the congestion window, rather than the application or the peer, held the last flight back.
    pub limited: bool,
    /// The most octets that were in flight at once in the present round trip …
    pub most_used: u32,
    /// … which lasts until this is acknowledged.
    pub used_until: Seq,
    /// Octets that the other side has acknowledged in all.
    pub acked_total: u64,
    /// Segments sent again in all.
    pub retransmitted: u32,
    /// How often the retransmission timer fired since anything was acknowledged.
    pub timeouts: u8,
    /// SND.NXT when the last recovery began: where there are no selective acknowledgements, duplicates of the
    /// acknowledgement of just that come from what was sent again needlessly (RFC 6582, `recover`).
    pub recover: Option<Seq>,
    /// When the oldest octets were last sent again because the connection had just come to a host.
    pub kicked: Option<At>,
    /// When the connection came to a path that is to be measured anew, until that has been done.
    pub path_since: Option<At>,
}

/// A run of sequence numbers that was sent in one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent<At> {
    /// Its first.
    pub seq: Seq,
    /// How many; SYN and FIN count as one.
    pub len: u32,
    /// When it was last sent.
    pub at: At,
    /// How often it was sent again.
    pub retransmissions: u8,
    /// Where it is thought to be.
    pub mark: Mark,
}

impl<At> Sent<At> {
    /// The sequence number after its last.
    pub fn end(&self) -> Seq {
        self.seq + self.len
    }
}

/// Where something that was sent is thought to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mark {
    /// In the network.
    InFlight,
    /// At the other side.
    Sacked,
    /// Nowhere: to be sent again.
    Lost,
}

/// The receive sequence space (RFC 9293 section 3.3.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecvSpace {
    /// The other side's initial sequence number.
    pub irs: Seq,
    /// The next that is expected.
    pub nxt: Seq,
    /// The right edge of the window that we advertised. Never goes back.
    pub adv: Seq,
    /// The last acknowledgement number that was sent.
    pub last_ack: Seq,
    /// What our window field is shifted by.
    pub wscale: u8,
    /// Received in order and not read.
    pub unread: Queue,
    /// Received out of order.
    pub reassembly: Reassembly,
    /// The sequence number of the other side's FIN, once seen.
    pub fin: Option<Seq>,
    /// Whether nobody will read any more: data that comes is answered with a RST (RFC 9293 section 3.6.1).
    pub discard: bool,
    /// Octets in order that no acknowledgement has covered.
    pub unacked: u32,
    /// Segments that are still acknowledged at once, so that the other side's slow start gets going.
    pub quick: u8,
    /// The largest payload seen in one segment: an estimate of the other side's segment size.
    pub seen_mss: u16,
    /// Octets received in order in all.
    pub total: u64,
    /// A duplicate to be reported (RFC 2883).
    pub duplicate: Option<(Seq, Seq)>,
}

/// Timestamps (RFC 7323 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimestampState<At> {
    /// Our `TSval` …
    pub value: u32,
    /// … at this moment; it counts milliseconds from there. Set anew at each freeze, less than a millisecond back, so that
    /// `TSval` never goes back, whatever the hosts' clocks say.
    pub at: At,
    /// TS.Recent.
    pub recent: u32,
    /// When TS.Recent was last updated (RFC 7323 section 5.5).
    pub recent_at: At,
}

/// Explicit congestion notification (RFC 3168).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ecn {
    /// A mark has arrived, and the other side has not said yet that it reduced its window: ECE is set.
    pub echo: bool,
    /// Our window was reduced, and the next new octets are to say so: CWR.
    pub reduced: bool,
    /// SND.NXT at the last reduction: up to there, an echo tells nothing new.
    pub until: Option<Seq>,
}

/// How losses are being repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recovery {
    /// Nothing is known to be lost.
    Open {
        /// Acknowledgements in a row that acknowledged nothing, where there are no selective ones.
        duplicates: u8,
    },
    /// Fast recovery (RFC 5681, 6582, 6675), paced by proportional rate reduction (RFC 9937).
    Fast {
        /// SND.NXT when it began; over when that is acknowledged.
        point: Seq,
        /// `RecoverFS`: octets in flight when it began.
        flight: u32,
        /// Octets delivered since.
        delivered: u32,
        /// Octets sent since.
        out: u32,
        /// Octets that duplicate acknowledgements stand for, where there are no selective ones.
        inferred: u32,
    },
    /// After a timeout.
    Loss {
        /// SND.NXT when it began, or when it was first answered; over when that is acknowledged.
        point: Seq,
        /// Whether the timeout may have been spurious.
        doubt: Doubt,
    },
}

/// Whether a timeout may have been spurious (F-RTO, RFC 5682): what arrives next tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Doubt {
    /// It was not, or that cannot be told.
    Settled,
    /// One segment was sent again, and nothing of note was heard since.
    Waiting,
    /// That segment is acknowledged. New octets are sent instead of those that may be lost.
    Probing,
}

/// What a congestion response took away, until it is certain that it was right to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Undo<At> {
    /// SND.UNA at the response.
    pub since: Seq,
    /// `TSval` of the first octets sent again since, as long as no echo has caught up with it (RFC 3522).
    pub first: Option<u32>,
    /// Octets sent again since that were not reported as duplicates (RFC 3708).
    pub unreported: u32,
    /// Windows and algorithm before the response.
    pub congestion: Congestion<At>,
}

/// What time-based loss detection remembers (RFC 8985).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rack<At> {
    /// The most recently sent segment that was delivered.
    pub newest: Option<Newest<At>>,
    /// The highest sequence number that was selectively or cumulatively acknowledged (`RACK.fack`).
    pub fack: Option<Seq>,
    /// Whether the path was seen to reorder.
    pub reordering: bool,
    /// The reordering window in quarters of the least round-trip time (`RACK.reo_wnd_mult`).
    pub quarters: u8,
    /// SND.NXT when it last grew, until that is acknowledged (`RACK.dsack_round`).
    pub grown: Option<Seq>,
    /// Recoveries after which it is small again (`RACK.reo_wnd_persist`).
    pub persist: u8,
    /// What ages the least round-trip time.
    pub floor: Floor<At>,
    /// SND.NXT at the tail loss probe that is in flight (`TLP.end_seq`), and whether it sent octets again.
    pub probe: Option<(Seq, bool)>,
}

/// What will be the least round-trip time once the present one is too old.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Floor<At> {
    /// From when on it is looked for.
    pub since: At,
    /// The least since then.
    pub next: Option<Duration>,
}

/// A delivered segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Newest<At> {
    /// When it was sent (`RACK.xmit_ts`).
    pub at: At,
    /// The sequence number after its last (`RACK.end_seq`).
    pub end: Seq,
    /// How long it and its acknowledgement took (`RACK.rtt`).
    pub rtt: Duration,
}

/// When to act without being asked. `None`: not set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timers<At> {
    /// Retransmission (RFC 6298).
    pub rto: Option<At>,
    /// Zero-window probe (RFC 9293 section 3.8.6.1).
    pub persist: Option<At>,
    /// Delayed acknowledgement (RFC 9293 section 3.8.6.3).
    pub delayed_ack: Option<At>,
    /// Keep-alive (RFC 9293 section 3.8.4).
    pub keep_alive: Option<At>,
    /// Segments that reordering may explain are lost by then (RFC 8985 section 6.2).
    pub reorder: Option<At>,
    /// Tail loss probe (RFC 8985 section 7).
    pub tail_probe: Option<At>,
    /// User timeout (RFC 9293 section 3.8.3).
    pub user: Option<At>,
}

/// What must be sent as soon as possible.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "any of them can be due at the same time")]
pub struct Pending {
    /// An acknowledgement.
    pub ack: bool,
    /// A probe of the window or of the peer's presence.
    pub probe: bool,
    /// A tail loss probe.
    pub tail_probe: bool,
    /// The first octets in flight once more, because the connection has just come to this host.
    pub resend: bool,
    /// A RST; then the connection is gone.
    pub reset: bool,
}

/// Counts answers to unacceptable segments in a span of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenges<At> {
    /// When the span began.
    pub since: At,
    /// Answers sent in it.
    pub sent: u8,
}

/// `Arc` itself would first be given a box of it.
fn shared<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Config>, D::Error> {
    Config::deserialize(from).map(Arc::new)
}

impl<At> Tcb<At> {
    /// How it behaves, to be changed for this connection alone.
    pub fn config_mut(&mut self) -> &mut Config {
        Arc::make_mut(&mut self.config)
    }
}

impl<At> SendSpace<At> {
    /// The sequence number of the first octet of the queue.
    pub fn first_octet(&self) -> Seq {
        if self.una == self.iss { self.iss + 1_u32 } else { self.una }
    }

    /// The sequence number after the last octet of the queue, where a FIN would be.
    pub fn end(&self) -> Seq {
        self.first_octet() + self.queue.len()
    }

    /// The sequence number after the last that is queued, a FIN included.
    pub fn last(&self) -> Seq {
        self.fin.map_or(self.end(), |fin| fin + 1_u32)
    }

    /// Moves SND.UNA.
    pub(super) fn move_una(&mut self, una: Seq) {
        self.una = una;
        if una == self.iss {
            // Once round the circle: SND.UNA at the ISS would mean that the SYN is not acknowledged.
            self.iss = una - 1;
        }
    }

    /// Octets of the queue that were never sent.
    pub fn unsent(&self) -> usize {
        self.end().distance_from(self.nxt.later(self.first_octet()))
    }

    /// Octets of sequence space that are sent and not acknowledged.
    pub fn outstanding(&self) -> u32 {
        self.nxt.0.wrapping_sub(self.una.0)
    }

    /// Something was sent: how much of the congestion window is in use (RFC 7661 section 4.2, the pipe).
    pub(super) fn note_use(&mut self) {
        if self.used_until.at_or_before(self.una) || self.in_flight > self.most_used {
            (self.most_used, self.used_until) = (self.in_flight, self.nxt);
        }
    }

    /// Octets of sequence space that are to be sent again.
    pub fn lost(&self) -> u32 {
        self.outstanding().saturating_sub(self.in_flight).saturating_sub(self.sacked)
    }
}

impl TimestampState<Instant> {
    /// `TSval` at `now`: a millisecond clock (RFC 7323 section 5.4).
    #[expect(clippy::cast_possible_truncation, reason = "the timestamp clock wraps by design")]
    pub fn value_at(&self, now: Instant) -> u32 {
        self.value.wrapping_add(self.at.since(now).as_millis() as u32)
    }

    /// `TSval` at a moment that may lie before the last freeze; no later than it was.
    #[expect(clippy::cast_possible_truncation, reason = "the timestamp clock wraps by design")]
    pub fn value_then(&self, then: Instant) -> u32 {
        let before = then.since(self.at).as_nanos().div_ceil(1_000_000);
        self.value_at(then).wrapping_sub(before as u32)
    }
}

impl<At> Rack<At> {
    /// Nothing was sent yet.
    pub fn new(now: At) -> Self {
        let floor = Floor { since: now, next: None };
        Self {
            newest: None,
            fack: None,
            reordering: false,
            quarters: 1,
            grown: None,
            persist: 0,
            floor,
            probe: None,
        }
    }
}

impl<At> Default for Timers<At> {
    fn default() -> Self {
        Self {
            rto: None,
            persist: None,
            delayed_ack: None,
            keep_alive: None,
            reorder: None,
            tail_probe: None,
            user: None,
        }
    }
}
