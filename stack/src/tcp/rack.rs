//! Losses are detected by time (RACK), and the last of a flight by a probe (TLP): RFC 8985.

use core::time::Duration;

use super::ack::Delivered;
use super::loss::DUPLICATES;
use super::rtt::MAX_SAMPLE;
use super::tcb::{Mark, Recovery, Tcb};
use crate::Instant;

/// The wait before a tail loss probe when no round trip was measured (RFC 8985 section 7.2).
const FIRST_PROBE: Duration = Duration::from_secs(1);
/// How long the other side may delay an acknowledgement of a single segment (RFC 8985 section 7.2).
const MAX_ACK_DELAY: Duration = Duration::from_millis(200);
/// Recoveries without a report of a duplicate after which the reordering window is small again (RFC 8985 section
/// 6.2, step 4).
const PERSISTENCE: u8 = 16;
/// Half of the time for which a round-trip time counts as the least: as Linux, five minutes in all.
const FLOOR_AGE: Duration = Duration::from_secs(150);

impl Tcb {
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
        (quarter * u32::from(self.rack.quarters)).min(self.rtt.smoothed.unwrap_or_default())
    }

    /// RFC 8985 section 6.2, step 4, `RACK_update_reo_wnd()`: a report of a duplicate that was not caused by a probe
    /// says that patience would have paid. One step for each round trip with such reports.
    pub(super) fn adapt_patience(&mut self, delivered: &Delivered) {
        if self.rack.grown.is_some_and(|round| round.at_or_before(self.snd.una)) {
            self.rack.grown = None;
        }
        let Some((_, end)) = delivered.duplicate else { return };
        let probed = self.rack.probe.is_some_and(|(probe, again)| again && probe == end);
        if self.rack.grown.is_none() && !probed && self.snd.retransmitted > 0 {
            self.rack.grown = Some(self.snd.nxt);
            self.rack.quarters = self.rack.quarters.saturating_add(1);
            self.rack.persist = PERSISTENCE;
        }
    }

    /// RFC 8985 section 6.2, step 4: a recovery has ended.
    pub(super) fn lose_patience(&mut self) {
        self.rack.persist = self.rack.persist.saturating_sub(1);
        if self.rack.persist == 0 {
            self.rack.quarters = 1;
        }
    }

    /// Forgets the least round-trip time in the long run: the path may have become longer (RFC 8985 section 6.1).
    pub(super) fn age_least_rtt(&mut self, sample: Duration, now: Instant) {
        let (sample, floor) = (sample.min(MAX_SAMPLE), &mut self.rack.floor);
        floor.next = Some(floor.next.map_or(sample, |next| next.min(sample)));
        if floor.since.since(now) >= FLOOR_AGE {
            self.rtt.min = floor.next.take();
            floor.since = now;
        }
    }

    /// The first segment is lost, and with it all that time-based detection would give up by now: what was sent
    /// shortly before may still arrive (RFC 8985 section 6.3). Without it, all are lost.
    pub(super) fn mark_lost_by_timeout(&mut self, now: Instant) {
        // RFC 2018 section 8: what was selectively acknowledged may have been dropped after all.
        let reneged = self.snd.sent.front().is_some_and(|first| first.mark == Mark::Sacked);
        let newest = self.rack.newest.filter(|_| self.sack && !reneged);
        let patience = newest.map(|newest| newest.rtt + self.reordering_window());
        self.cut_sent(0, self.snd.una + self.mss());
        for (index, sent) in self.snd.sent.iter_mut().enumerate() {
            let hope = index > 0 && patience.is_some_and(|patience| sent.at + patience > now);
            match sent.mark {
                Mark::InFlight if hope => {}
                Mark::InFlight => {
                    sent.mark = Mark::Lost;
                    self.snd.in_flight -= sent.len;
                }
                Mark::Sacked if reneged => {
                    sent.mark = Mark::Lost;
                    self.snd.sacked -= sent.len;
                }
                Mark::Sacked | Mark::Lost => {}
            }
        }
    }

    /// The time after which what reordering could explain is lost (RFC 8985 section 6.3).
    pub(super) fn reordering_timeout(&mut self, now: Instant) {
        let lost = self.detect_by_time(now) && !self.only_probe_lost(now);
        if lost && matches!(self.recovery, Recovery::Open { .. }) {
            self.enter_fast_recovery(0);
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
        let single = self.snd.outstanding() - self.fin_sent() <= self.mss();
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
    pub(super) fn tail_probe_answered(&mut self, delivered: &Delivered) {
        let Some((end, again)) = self.rack.probe else { return };
        let beyond = self.snd.una.after(end);
        let reported = delivered.duplicate.is_some_and(|(_, to)| to == end);
        let harmless = !again || reported || (delivered.repeated && !delivered.sacked);
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
}
