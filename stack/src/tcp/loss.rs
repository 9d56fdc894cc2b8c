//! Losses: detected by time (RACK, RFC 8985), by duplicate acknowledgements where there are no selective ones
//! (RFC 6582), or by the timer (RFC 6298); repaired at the pace of proportional rate reduction (RFC 9937).

use core::time::Duration;

use super::ack::Delivered;
use super::state::{Ending, State};
use super::tcb::{Mark, Recovery, Tcb};
use crate::{Instant, Seq};

/// DupThresh (RFC 5681 section 3.2).
const DUPLICATES: u8 = 3;
/// How long the other side may delay an acknowledgement of a single segment (RFC 8985 section 7.2).
const MAX_ACK_DELAY: Duration = Duration::from_millis(200);

impl Tcb {
    /// Octets thought to be in the network.
    pub fn pipe(&self) -> u32 {
        match self.recovery {
            Recovery::Fast { inferred, .. } => self.snd.in_flight.saturating_sub(inferred),
            _ => self.snd.in_flight,
        }
    }

    /// Draws the consequences of an acknowledgement for loss recovery.
    pub(super) fn repair(&mut self, delivered: &Delivered, now: Instant) {
        self.tail_probe_answered(delivered);
        let lost = if self.sack { self.detect_by_time(now) } else { self.detect_by_duplicates(delivered) };
        match self.recovery {
            Recovery::Open { .. } if lost => self.enter_fast_recovery(),
            Recovery::Open { .. } => {}
            Recovery::Fast { point, .. } if point.at_or_before(self.snd.una) => {
                self.congestion.cwnd = self.congestion.ssthresh;
                self.recovery = Recovery::Open { duplicates: 0 };
            }
            Recovery::Fast { .. } => self.pace_recovery(delivered, delivered.advanced > 0 && !lost),
            Recovery::Loss { point } if point.at_or_before(self.snd.una) => {
                self.recovery = Recovery::Open { duplicates: 0 };
            }
            Recovery::Loss { .. } => {}
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
                *inferred += mss;
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

    fn enter_fast_recovery(&mut self) {
        let flight = self.snd.outstanding();
        self.reduce(flight);
        let inferred = if self.sack { 0 } else { u32::from(DUPLICATES) * self.mss() };
        self.recovery = Recovery::Fast { point: self.snd.nxt, flight, delivered: 0, out: 0, inferred };
        // RFC 9937 section 6.1: the first retransmission is not held back.
        self.congestion.cwnd = self.pipe() + self.mss();
    }

    /// One congestion event: at most one in each round trip.
    fn reduce(&mut self, flight: u32) {
        let mss = self.mss();
        self.congestion.on_congestion(flight, mss);
    }

    /// RFC 9937 section 6.2: on each acknowledgement in recovery.
    fn pace_recovery(&mut self, newly: &Delivered, safe: bool) {
        let (pipe, mss, ssthresh) = (self.pipe(), self.mss(), self.congestion.ssthresh);
        let inferred = if newly.repeated && !self.sack { mss } else { 0 };
        let newly = newly.octets + inferred;
        let Recovery::Fast { flight, delivered, out, .. } = &mut self.recovery else { return };
        *delivered = delivered.saturating_add(newly);
        let quota = if pipe > ssthresh {
            let share = u64::from(*delivered) * u64::from(ssthresh);
            u32::try_from(share.div_ceil(u64::from((*flight).max(1))))
                .unwrap_or(u32::MAX)
                .saturating_sub(*out)
        } else {
            let bound = delivered.saturating_sub(*out).max(newly) + if safe { mss } else { 0 };
            (ssthresh - pipe).min(bound)
        };
        self.congestion.cwnd = (pipe + quota).max(mss);
    }

    /// The retransmission timer fired (RFC 6298 section 5.4 to 5.7; RFC 5681 section 3.1).
    pub(super) fn retransmission_timeout(&mut self, now: Instant) {
        let opening = matches!(self.state, State::SynSent | State::SynReceived);
        let limit = if opening { self.config.syn_retries } else { self.config.retries };
        if self.rtt.backoff >= limit {
            self.state = State::Closed(Ending::TimedOut);
            return;
        }
        self.rtt.backoff += 1;
        if !opening && !matches!(self.recovery, Recovery::Loss { .. }) {
            self.reduce(self.snd.outstanding());
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
            self.enter_fast_recovery();
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
        let Some(smoothed) = self.rtt.smoothed else { return };
        let single = self.snd.outstanding() <= self.mss();
        let at = now + smoothed * 2 + if single { MAX_ACK_DELAY } else { Duration::ZERO };
        if self.timers.rto.is_some_and(|rto| at < rto) {
            self.timers.tail_probe = Some(at);
        }
    }

    /// RFC 8985 section 7.3: the probe itself is sent by the next transmission.
    pub(super) fn tail_probe_timeout(&mut self, now: Instant) {
        self.pending.tail_probe = true;
        self.timers.rto = Some(now + self.rto());
    }

    /// RFC 8985 section 7.4: whether the probe repaired a loss that nobody else noticed.
    fn tail_probe_answered(&mut self, delivered: &Delivered) {
        let Some((end, again)) = self.rack.probe else { return };
        if self.snd.una.before(end) {
            return;
        }
        self.rack.probe = None;
        if again && !delivered.duplicate && matches!(self.recovery, Recovery::Open { .. }) {
            self.reduce(self.congestion.cwnd);
            self.congestion.cwnd = self.congestion.ssthresh;
        }
    }

    /// A router reports that packets to the other side must not be longer than `mtu` octets (RFC 8201), quoting a
    /// segment of ours. Believed only if that segment is in flight (RFC 5927 section 7.2).
    pub fn packet_too_big(&mut self, mtu: u16, quoted: Seq) {
        let in_flight = self.snd.una.at_or_before(quoted) && quoted.before(self.snd.nxt);
        // RFC 8201 section 4: never below the minimum link MTU.
        let mtu = mtu.max(1280);
        if !in_flight || mtu >= self.snd.path_mtu {
            return;
        }
        self.snd.path_mtu = mtu;
        // Not a sign of congestion: all that may have been too long is sent again without ado.
        for sent in &mut self.snd.sent {
            if sent.mark == Mark::InFlight {
                sent.mark = Mark::Lost;
                self.snd.in_flight -= sent.len;
            }
        }
    }
}
