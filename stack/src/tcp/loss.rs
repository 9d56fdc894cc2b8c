//! Losses: detected by time (RACK, RFC 8985), by duplicate acknowledgements where there are no selective ones
//! (RFC 6582), or by the timer (RFC 6298); repaired at the pace of proportional rate reduction (RFC 9937).

use core::time::Duration;

use super::ack::Delivered;
use super::cc::MAX_WINDOW;
use super::state::{Ending, State};
use super::tcb::{Mark, Recovery, Tcb};
use crate::ip::MIN_MTU;
use crate::{Instant, Seq};

/// `DupThresh` (RFC 5681 section 3.2).
const DUPLICATES: u8 = 3;
/// Octets that are added to a packet below TCP at most: a tunnel's header, a Home Address option, a routing header.
const MOST_OVERHEAD: u16 = 128;
/// The wait before a tail loss probe when no round trip was measured (RFC 8985 section 7.2).
const FIRST_PROBE: Duration = Duration::from_secs(1);
/// How long the other side may delay an acknowledgement of a single segment (RFC 8985 section 7.2).
const MAX_ACK_DELAY: Duration = Duration::from_millis(200);

impl Tcb {
    /// Octets thought to be in the network.
    pub fn pipe(&self) -> u32 {
        match self.recovery {
            Recovery::Fast { inferred, .. } => self.snd.in_flight.saturating_sub(inferred),
            // RFC 3042: the first two duplicates let a new segment out each.
            Recovery::Open { duplicates } => {
                self.snd.in_flight.saturating_sub(u32::from(duplicates.min(2)) * self.mss())
            }
            Recovery::Loss { .. } => self.snd.in_flight,
        }
    }

    /// Draws the consequences of an acknowledgement for loss recovery.
    pub(super) fn repair(&mut self, delivered: &Delivered, now: Instant) {
        self.tail_probe_answered(delivered);
        let lost = if self.sack { self.detect_by_time(now) } else { self.detect_by_duplicates(delivered) };
        match self.recovery {
            Recovery::Open { .. } if lost => self.enter_fast_recovery(delivered),
            Recovery::Fast { point, .. } if point.at_or_before(self.snd.una) => {
                self.congestion.cwnd = self.congestion.ssthresh;
                self.recovery = Recovery::Open { duplicates: 0 };
            }
            Recovery::Fast { .. } => self.pace_recovery(delivered, delivered.advanced > 0 && !lost),
            Recovery::Loss { point } if point.at_or_before(self.snd.una) => {
                self.recovery = Recovery::Open { duplicates: 0 };
            }
            Recovery::Open { .. } | Recovery::Loss { .. } => {}
        }
    }

    /// RFC 8985 section 6.2, step 5: what was sent sufficiently before something that was delivered is lost.
    /// Returns whether anything was.
    pub(super) fn detect_by_time(&mut self, now: Instant) -> bool {
        self.timers.reorder = None;
        let Some(newest) = self.rack.newest else { return false };
        if self.snd.sacked == 0 && matches!(self.recovery, Recovery::Open { .. }) {
            return false;
        }
        let patience = newest.rtt + self.reordering_window();
        let (mut lost, mut wait) = (0, None::<Instant>);
        for sent in &mut self.snd.sent {
            let earlier = sent.at < newest.at || (sent.at == newest.at && sent.end().before(newest.end));
            if sent.mark != Mark::InFlight || !earlier {
                continue;
            }
            let until = sent.at + patience;
            if until <= now {
                sent.mark = Mark::Lost;
                lost += sent.len;
            } else {
                wait = Some(wait.map_or(until, |wait| wait.max(until)));
            }
        }
        self.snd.in_flight -= lost;
        self.timers.reorder = wait;
        lost > 0
    }

    /// RFC 8985 section 6.2, step 4.
    fn reordering_window(&self) -> Duration {
        let recovering = !matches!(self.recovery, Recovery::Open { .. });
        let enough = self.snd.sacked >= u32::from(DUPLICATES) * self.mss();
        if !self.rack.reordering && (recovering || enough) {
            return Duration::ZERO;
        }
        let quarter = self.rtt.min.unwrap_or_default() / 4;
        quarter.min(self.rtt.smoothed.unwrap_or_default())
    }

    /// Duplicate acknowledgements (RFC 5681 section 3.2), partial ones in recovery (RFC 6582 section 3.2).
    fn detect_by_duplicates(&mut self, delivered: &Delivered) -> bool {
        let mss = self.mss();
        match &mut self.recovery {
            Recovery::Open { duplicates } if delivered.repeated => {
                *duplicates = duplicates.saturating_add(1);
                let lost = *duplicates >= DUPLICATES;
                lost && self.mark_first_lost()
            }
            Recovery::Open { duplicates } => {
                *duplicates = if delivered.advanced > 0 { 0 } else { *duplicates };
                false
            }
            Recovery::Fast { inferred, .. } if delivered.repeated => {
                *inferred = inferred.saturating_add(mss).min(self.snd.in_flight);
                false
            }
            Recovery::Fast { point, inferred, .. } if delivered.advanced > 0 => {
                *inferred = inferred.saturating_sub(delivered.advanced);
                let partial = self.snd.una.before(*point);
                partial && self.mark_first_lost()
            }
            _ => false,
        }
    }

    /// Only the first segment's worth of the first record is known to be missing.
    fn mark_first_lost(&mut self) -> bool {
        let end = self.snd.una + self.mss();
        self.split_sent(0, end);
        match self.snd.sent.front_mut() {
            Some(first) if first.mark == Mark::InFlight => {
                first.mark = Mark::Lost;
                self.snd.in_flight -= first.len;
                true
            }
            _ => false,
        }
    }

    fn enter_fast_recovery(&mut self, delivered: &Delivered) {
        self.reduce();
        let inferred = if self.sack { 0 } else { u32::from(DUPLICATES) * self.mss() };
        // RFC 9937 section 6.1, RecoverFS: what was delivered before does not count, what is delivered now does.
        let before = self.snd.sacked.saturating_add(inferred.saturating_sub(self.mss()));
        let flight = self.snd.outstanding().saturating_sub(before).saturating_add(delivered.octets);
        self.recovery = Recovery::Fast { point: self.snd.nxt, flight, delivered: 0, out: 0, inferred };
        self.pace_recovery(delivered, false);
    }

    /// One congestion event: at most one in each round trip. What limited transmit let out beyond the window does
    /// not count (RFC 5681 section 3.2, step 2).
    fn reduce(&mut self) {
        let (mss, flight) = (self.mss(), self.snd.outstanding().min(self.congestion.cwnd));
        self.congestion.on_congestion(flight, mss);
    }

    /// RFC 9937 section 6.2: on each acknowledgement in recovery, the first included.
    fn pace_recovery(&mut self, newly: &Delivered, safe: bool) {
        let (pipe, mss, ssthresh) = (self.pipe(), self.mss(), self.congestion.ssthresh);
        let inferred = if newly.repeated && !self.sack { mss } else { 0 };
        let newly = newly.octets.saturating_add(inferred);
        let Recovery::Fast { flight, delivered, out, .. } = &mut self.recovery else { return };
        *delivered = delivered.saturating_add(newly);
        let quota = if pipe > ssthresh {
            let share = u64::from(*delivered) * u64::from(ssthresh);
            u32::try_from(share.div_ceil(u64::from((*flight).max(1))))
                .unwrap_or(u32::MAX)
                .saturating_sub(*out)
        } else {
            let bound = delivered.saturating_sub(*out).max(newly).saturating_add(if safe { mss } else { 0 });
            (ssthresh - pipe).min(bound)
        };
        // The first retransmission is not held back.
        let quota = if *out == 0 { quota.max(mss) } else { quota };
        self.congestion.cwnd = pipe.saturating_add(quota).clamp(mss, MAX_WINDOW);
    }

    /// The retransmission timer fired (RFC 6298 section 5.4 to 5.7; RFC 5681 section 3.1).
    pub(super) fn retransmission_timeout(&mut self, now: Instant) {
        if self.snd.sent.is_empty() {
            return;
        }
        let opening = matches!(self.state, State::SynSent | State::SynReceived);
        // RFC 9293 section 3.8.3, R2.
        let limit = if opening { self.config.syn_retries } else { self.config.retries };
        if self.snd.timeouts >= limit {
            self.state = State::Closed(Ending::TimedOut);
            return;
        }
        self.snd.timeouts += 1;
        self.rtt.backoff = self.rtt.backoff.saturating_add(1);
        // One congestion event, one reduction: a timeout in the middle of a recovery is no new one.
        if !opening && matches!(self.recovery, Recovery::Open { .. }) {
            self.reduce();
        }
        // RFC 2018 section 8: what was selectively acknowledged may have been dropped after all.
        let reneged = self.snd.sent.front().is_some_and(|first| first.mark == Mark::Sacked);
        for sent in &mut self.snd.sent {
            if sent.mark == Mark::InFlight || reneged {
                sent.mark = Mark::Lost;
            }
        }
        self.snd.in_flight = 0;
        self.snd.sacked = if reneged { 0 } else { self.snd.sacked };
        if !opening {
            self.recovery = Recovery::Loss { point: self.snd.nxt };
        }
        self.congestion.collapse(self.mss());
        self.rack.probe = None;
        self.timers.tail_probe = None;
        self.timers.reorder = None;
        self.timers.rto = Some(now + self.rto());
    }

    /// The time after which what reordering could explain is lost (RFC 8985 section 6.3).
    pub(super) fn reordering_timeout(&mut self, now: Instant) {
        if self.detect_by_time(now) && matches!(self.recovery, Recovery::Open { .. }) {
            self.enter_fast_recovery(&Delivered::default());
        }
    }

    /// Sets the timer of the tail loss probe (RFC 8985 section 7.2).
    pub(super) fn arm_tail_probe(&mut self, now: Instant) {
        self.timers.tail_probe = None;
        let open = matches!(self.recovery, Recovery::Open { .. });
        if !self.sack || !open || self.snd.sent.is_empty() || self.rack.probe.is_some() || self.snd.sacked > 0
        {
            return;
        }
        let single = self.snd.outstanding() <= self.mss();
        let delay = if single { MAX_ACK_DELAY } else { Duration::ZERO };
        let at = now + self.rtt.smoothed.map_or(FIRST_PROBE, |smoothed| smoothed * 2 + delay);
        // A probe takes the place of a timeout that would come before it.
        self.timers.tail_probe = self.timers.rto.map(|rto| rto.min(at));
    }

    /// RFC 8985 section 7.3: the probe itself is sent by the next transmission.
    pub(super) fn tail_probe_timeout(&mut self, now: Instant) {
        self.pending.tail_probe = true;
        self.timers.rto = Some(now + self.rto());
    }

    /// RFC 8985 section 7.4.2: whether the probe repaired a loss that nobody else noticed. If it sent octets again
    /// and both copies arrived, there will be a report of a duplicate, or a duplicate acknowledgement.
    fn tail_probe_answered(&mut self, delivered: &Delivered) {
        let Some((end, again)) = self.rack.probe else { return };
        let beyond = self.snd.una.after(end);
        let harmless = !again || delivered.duplicate || (delivered.repeated && !delivered.sacked);
        if self.snd.una.before(end) || !(harmless || beyond) {
            return;
        }
        self.rack.probe = None;
        if !harmless && matches!(self.recovery, Recovery::Open { .. }) {
            let mss = self.mss();
            self.congestion.on_congestion(self.congestion.cwnd, mss);
            self.congestion.cwnd = self.congestion.ssthresh;
        }
    }

    /// A router reports that packets to the other side must not be longer than `mtu` octets (RFC 9293 section 3.7.2,
    /// RFC 8201), quoting a segment of ours. Believed only if that segment is in flight (RFC 5927 section 7.2).
    pub fn packet_too_big(&mut self, mtu: u16, quoted: Seq) {
        let in_flight = self.snd.una.at_or_before(quoted) && quoted.before(self.snd.nxt);
        // RFC 8201 section 4: a report of less than the minimum link MTU is discarded.
        if !in_flight || mtu < MIN_MTU || mtu >= self.snd.path_mtu {
            return;
        }
        self.snd.path_mtu = mtu;
        // Not a sign of congestion (RFC 8201 section 5.4): all that may have been too long is sent again without ado.
        let harmless = self.payload_limit(MOST_OVERHEAD);
        for sent in &mut self.snd.sent {
            if sent.mark == Mark::InFlight && sent.len > harmless {
                sent.mark = Mark::Lost;
                self.snd.in_flight -= sent.len;
            }
        }
    }
}
