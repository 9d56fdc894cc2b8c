//! The size of packets is found out by sending some (packetization layer path MTU discovery, RFC 8899 and RFC 4821):
//! smaller ones where large ones vanish without a word, larger ones where there may be room for them.
//!
//! [`SendSpace::path_mtu`](super::tcb::SendSpace::path_mtu) is the size in use (PLPMTU). A [`Search`] exists only
//! while a larger one is possible.

use alloc::boxed::Box;
use core::time::Duration;

use serde::{Deserialize, Serialize};

use super::loss::MOST_OVERHEAD;
use super::output::{HEADERS_LEN, Path};
use super::tcb::{Doubt, Mark, Rebase, Recovery, SendSpace, Tcb};
use crate::{Instant, Seq};

/// Whether packets of other sizes are tried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MtuProbing {
    /// Never: only a Packet Too Big makes them smaller, for good.
    Off,
    /// Smaller ones when large ones seem to vanish; larger ones when what made them small is old (as Linux's
    /// `net.ipv4.tcp_mtu_probing=1`, which forgets no Packet Too Big here).
    #[default]
    OnBlackHole,
    /// They begin small, too, and grow (as Linux's `2`).
    Always,
}

/// What is known of packets larger than those that are sent (RFC 8899 section 5.2, RFC 4821 section 7.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search<At> {
    /// The largest packet that may pass, as far as is known (`search_high`); octets.
    pub high: u16,
    /// What that becomes when it is too old to be believed: what the link carries.
    pub ceiling: u16,
    /// When `high` was last set.
    pub since: At,
    /// The size of the next probe.
    pub next: u16,
    /// The packets were made smaller because of timeouts only.
    pub suspected: bool,
    /// The probe that is in flight.
    pub probe: Option<Probe>,
}

/// A segment larger than the others, to see whether it arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Its first octet.
    pub seq: Seq,
    /// Its payload.
    pub len: u32,
    /// The size of the packet.
    pub size: u16,
}

/// Whether it is a probe's turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    /// Yes, with so many octets of payload in a packet of such a size.
    Probe(u32, u16),
    /// It will be, once the windows have room for it.
    Wait,
    /// No.
    Pass,
}

/// How long a limit holds (RFC 8899 section 5.1.1, `PMTU_RAISE_TIMER`; RFC 8201 section 4: 10 minutes).
const RAISE: Duration = Duration::from_mins(10);
/// Timeouts in a row of a large segment after which it may be its size that stops it (RFC 4821 section 7.7).
const SUSPICIOUS: u8 = 3;
/// A search that could gain less than this is over (as `net.ipv4.tcp_probe_threshold`); octets.
const LEAST_GAIN: u16 = 8;
/// The congestion window in segments below which a loss would cost too much (RFC 4821 section 7.4).
const LEAST_WINDOW: u32 = 11;
/// Segments that must follow a probe: those whose acknowledgements tell that it was lost (RFC 4821 section 7.4).
const FOLLOWERS: u32 = 4;

impl Tcb {
    /// The handshake is over. A search from the start begins at the bottom (RFC 4821 section 7.2).
    pub(super) fn begin_search(&mut self, now: Instant) {
        let link = self.snd.path_mtu;
        let (base, high) = (self.config.base_mtu, link.min(self.snd.mss.saturating_add(HEADERS_LEN)));
        if self.config.mtu_probing == MtuProbing::Always && high >= base.saturating_add(LEAST_GAIN) {
            self.snd.path_mtu = base;
            self.snd.search = Some(Box::new(Search {
                next: base.midpoint(high),
                high,
                ceiling: link,
                since: now,
                suspected: false,
                probe: None,
            }));
        }
    }

    /// The retransmission timer fired. If that went on for a while, and what is sent again is large, then smaller
    /// packets may pass (RFC 8899 section 4.3, RFC 4821 section 7.7). The first larger one that is tried after that
    /// is what vanished: it was an outage, more often than not.
    pub(super) fn suspect_black_hole(&mut self, now: Instant) {
        let (base, before) = (self.config.base_mtu, self.snd.path_mtu);
        let harmless = self.payload_at(base, MOST_OVERHEAD);
        let large = before > base && self.snd.sent.front().is_some_and(|first| first.len > harmless);
        if self.config.mtu_probing != MtuProbing::Off && self.snd.timeouts >= SUSPICIOUS && large {
            self.shrink(base, before, now);
            if let Some(search) = &mut self.snd.search {
                search.suspected = true;
            }
        }
    }

    /// It was no loss: the large packets did arrive.
    pub(super) fn trust_large_packets(&mut self) {
        let Some(search) = self.snd.search.as_mut().filter(|search| search.suspected) else { return };
        search.suspected = false;
        self.snd.path_mtu = search.high;
        self.snd.end_search();
    }

    /// Packets must not be larger than `size`; above `high` none is tried for ten minutes.
    pub(super) fn shrink(&mut self, size: u16, high: u16, now: Instant) {
        let before = self.snd.path_mtu;
        let ceiling = self.snd.search.as_ref().map_or(before, |search| search.ceiling.max(before));
        self.snd.path_mtu = size;
        self.snd.search = (self.config.mtu_probing != MtuProbing::Off).then(|| {
            Box::new(Search { high, ceiling, since: now, next: high, suspected: false, probe: None })
        });
    }

    /// A router says what the largest packet is, and it is one that was not tried yet (RFC 8899 section 4.6.2).
    pub(super) fn narrow_search(&mut self, mtu: u16, now: Instant) {
        let Some(search) = self.snd.search.as_mut().filter(|search| mtu < search.high) else { return };
        (search.high, search.next, search.since) = (mtu, mtu, now);
        if let Some(probe) = search.probe.take_if(|probe| probe.size > mtu) {
            self.mark_probe_lost(probe);
        }
    }

    /// The connection has come to a host whose link carries packets of `mtu` octets.
    pub(super) fn fit_link(&mut self, mtu: u16) {
        self.snd.path_mtu = self.snd.path_mtu.min(mtu);
        if let Some(search) = &mut self.snd.search {
            for size in [&mut search.high, &mut search.ceiling, &mut search.next] {
                *size = (*size).min(mtu);
            }
            search.probe = search.probe.filter(|probe| probe.size <= mtu);
        }
        self.snd.end_search();
    }

    /// Whether the next new octets are to go as a probe (RFC 4821 section 7.4), with `window` octets of room at the
    /// other side.
    pub(super) fn probe_turn(&mut self, path: Path, window: u32, now: Instant) -> Turn {
        let Some(size) = self.probe_size(path, now) else { return Turn::Pass };
        let mss = self.mss();
        let calm = matches!(self.recovery, Recovery::Open { duplicates: 0 })
            && self.snd.in_flight == self.snd.outstanding()
            // What options take away changes with each segment.
            && self.rcv.reassembly.is_empty()
            && self.rcv.duplicate.is_none();
        let len = self.payload_at(size, path.overhead);
        let needed = len + FOLLOWERS * mss;
        let enough = self.sendable() >= needed as usize && self.snd.wnd >= needed;
        if !calm || !enough || self.congestion.cwnd < LEAST_WINDOW * mss {
            return Turn::Pass;
        }
        match self.congestion.cwnd.saturating_sub(self.snd.in_flight).min(window) {
            room if room >= len => Turn::Probe(len, size),
            _ if self.snd.in_flight > 0 => Turn::Wait,
            _ => Turn::Pass,
        }
    }

    /// The size of a probe that could tell something new now.
    fn probe_size(&mut self, path: Path, now: Instant) -> Option<u16> {
        let search = self.snd.search.as_mut().filter(|search| search.probe.is_none())?;
        // RFC 8201 section 4: the path may have changed.
        if search.high < search.ceiling && search.since.since(now) >= RAISE {
            (search.high, search.next, search.since) = (search.ceiling, search.ceiling, now);
        }
        let taken = self.snd.mss.saturating_add(HEADERS_LEN).saturating_add(path.overhead);
        let (size, most, now) = (search.next.min(taken), search.high.min(taken), self.snd.path_mtu);
        (size > now && most >= now.saturating_add(LEAST_GAIN)).then_some(size)
    }

    /// Notes that the probe is under way.
    pub(super) fn note_probe(&mut self, seq: Seq, len: u32, size: u16) {
        if let Some(search) = &mut self.snd.search {
            search.probe = Some(Probe { seq, len, size });
            search.suspected = false;
        }
    }

    /// Octets from `seq` on are sent again: a probe that held them proves nothing any more.
    pub(super) fn forget_probe(&mut self, seq: Seq) {
        if let Some(search) = &mut self.snd.search {
            search.probe = search.probe.filter(|probe| !probe.holds(seq));
        }
    }

    /// SND.UNA has moved: a probe that is acknowledged has arrived (RFC 4821 section 7.6.1).
    pub(super) fn probe_arrived(&mut self) {
        let una = self.snd.una;
        let Some(search) = &mut self.snd.search else { return };
        let Some(probe) = search.probe.take_if(|probe| probe.end().at_or_before(una)) else { return };
        self.snd.path_mtu = self.snd.path_mtu.max(probe.size);
        search.next = probe.size.midpoint(search.high);
        self.snd.end_search();
    }

    /// Something was found to be lost. If it is the probe and nothing else, that tells of its size and not of
    /// congestion (RFC 4821 section 7.6.2, RFC 8899 section 4.4): it is sent again at the old size, and that is all.
    /// Returns whether it was so.
    pub(super) fn only_probe_lost(&mut self, now: Instant) -> bool {
        let Some(probe) = self.snd.probe() else { return false };
        let (mut inside, mut outside) = (false, false);
        for sent in self.snd.sent.iter().filter(|sent| sent.mark == Mark::Lost) {
            *(if probe.holds(sent.seq) { &mut inside } else { &mut outside }) = true;
        }
        if !inside || !matches!(self.recovery, Recovery::Open { .. }) {
            return false;
        }
        self.forget_probe(probe.seq);
        if outside {
            // RFC 4821 section 7.6.3: inconclusive.
            return false;
        }
        self.probe_failed(probe, now);
        self.mark_probe_lost(probe);
        true
    }

    /// The timer fired with a probe in flight. What it tells of the size is doubtful (RFC 4821 section 7.6.4), but the
    /// same must not happen over and over.
    pub(super) fn probe_timed_out(&mut self, now: Instant) {
        let Some(probe) = self.snd.probe() else { return };
        self.forget_probe(probe.seq);
        if probe.holds(self.snd.una) {
            self.probe_failed(probe, now);
        }
    }

    /// RFC 4821 section 7.6.2: it is too large.
    fn probe_failed(&mut self, probe: Probe, now: Instant) {
        let size = self.snd.path_mtu;
        if let Some(search) = &mut self.snd.search {
            search.high = search.high.min((probe.size - 1).max(size));
            (search.next, search.since) = (size.midpoint(search.high), now);
        }
    }

    /// Its octets are to be sent again, at once.
    fn mark_probe_lost(&mut self, probe: Probe) {
        for sent in self.snd.sent.iter_mut().filter(|sent| probe.holds(sent.seq)) {
            if sent.mark == Mark::InFlight {
                sent.mark = Mark::Lost;
                self.snd.in_flight -= sent.len;
            }
        }
        self.undo = None;
        if !self.sack && matches!(self.recovery, Recovery::Open { .. }) {
            // Duplicates of this acknowledgement that are still under way tell nothing new.
            self.recovery = Recovery::Loss { point: self.snd.nxt, doubt: Doubt::Settled };
        }
    }
}

impl Probe {
    /// The sequence number after its last octet.
    pub fn end(&self) -> Seq {
        self.seq + self.len
    }

    fn holds(&self, seq: Seq) -> bool {
        self.seq.at_or_before(seq) && seq.before(self.end())
    }
}

impl<At> SendSpace<At> {
    /// The probe of a larger packet that is in flight.
    pub fn probe(&self) -> Option<Probe> {
        self.search.as_ref()?.probe
    }

    /// There is nothing to be found above what is in use.
    fn end_search(&mut self) {
        let size = self.path_mtu;
        self.search.take_if(|search| search.ceiling <= size && search.probe.is_none());
    }
}

impl<At> Search<At> {
    pub(super) fn map_time<B>(self, clock: &impl Rebase<At, B>) -> Search<B> {
        let Self { high, ceiling, since, next, suspected, probe } = self;
        Search { high, ceiling, since: clock.behind(since), next, suspected, probe }
    }

    /// Whether it can be true of a connection that sends packets of `size` octets, and has `una` to `nxt` in flight.
    pub(super) fn is_sound(&self, size: u16, una: Seq, nxt: Seq) -> bool {
        let probe = self.probe.is_none_or(|probe| {
            (1..=u32::from(u16::MAX)).contains(&probe.len)
                && una.before(probe.end())
                && probe.end().at_or_before(nxt)
                && probe.size <= self.high
        });
        self.next <= self.high && self.high <= self.ceiling && size <= self.ceiling && probe
    }
}
