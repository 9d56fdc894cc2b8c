//! Losses: detected by time (RACK, RFC 8985), by duplicate acknowledgements where there are no selective ones
//! (RFC 6582), or by the timer (RFC 6298); repaired at the pace of proportional rate reduction (RFC 9937).

use super::ack::Delivered;
use super::cc::MAX_WINDOW;
use super::state::{Ending, State};
use super::tcb::{Doubt, Mark, Recovery, Tcb};
use crate::ip::MIN_MTU;
use crate::{Instant, Seq};

/// `DupThresh` (RFC 5681 section 3.2).
pub(super) const DUPLICATES: u8 = 3;
/// Octets that are added to a packet below TCP at most: a tunnel's header, a Home Address option, a routing header.
pub(super) const MOST_OVERHEAD: u16 = 128;

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
        self.adapt_patience(delivered);
        self.tail_probe_answered(delivered);
        let newly = self.newly_delivered(delivered);
        let lost = if self.sack { self.detect_by_time(now) } else { self.detect_by_duplicates(delivered) };
        let lost = lost && !self.only_probe_lost(now);
        match self.recovery {
            Recovery::Open { .. } if lost => self.enter_fast_recovery(newly),
            Recovery::Fast { point, .. } if point.at_or_before(self.snd.una) => {
                self.congestion.cwnd = self.congestion.ssthresh;
                self.end_recovery(newly);
            }
            Recovery::Fast { .. } if newly == 0 => {}
            Recovery::Fast { .. } => {
                // RFC 6582 section 3.2, step 3: after a partial acknowledgement the next hole is filled at once.
                let partial = delivered.advanced > 0;
                self.pace_recovery(newly, partial && !lost, partial && !self.sack);
            }
            Recovery::Loss { point, .. } if point.at_or_before(self.snd.una) => self.end_recovery(newly),
            Recovery::Loss { doubt, .. } => self.doubt_further(doubt, delivered),
            Recovery::Open { .. } => {}
        }
    }

    /// All that was in flight when the recovery began is delivered. What is lost since is a new congestion event.
    fn end_recovery(&mut self, newly: u32) {
        self.recovery = Recovery::Open { duplicates: 0 };
        self.lose_patience();
        if self.sack && self.snd.lost() > 0 {
            self.enter_fast_recovery(newly);
        }
    }

    /// `DeliveredData` of RFC 9937 section 6.2. Where there are no selective acknowledgements, a duplicate stands for
    /// a segment, and what follows for what no duplicate stood for.
    fn newly_delivered(&self, delivered: &Delivered) -> u32 {
        match self.recovery {
            _ if self.sack => delivered.octets,
            Recovery::Fast { inferred, .. } if delivered.repeated => {
                self.mss().min(self.snd.in_flight.saturating_sub(inferred))
            }
            // What filled the hole is new in any case.
            Recovery::Fast { inferred, .. } if delivered.advanced > 0 => {
                delivered.octets.saturating_sub(inferred).max(self.mss())
            }
            _ if delivered.repeated => self.mss(),
            _ => delivered.octets,
        }
    }

    /// Duplicate acknowledgements (RFC 5681 section 3.2), partial ones in recovery (RFC 6582 section 3.2).
    fn detect_by_duplicates(&mut self, delivered: &Delivered) -> bool {
        let mss = self.mss();
        match &mut self.recovery {
            // RFC 6582 section 3.2, step 2: these answer what was sent again without need.
            Recovery::Open { .. } if delivered.repeated && self.snd.recover == Some(self.snd.una) => false,
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
        self.cut_sent(0, end);
        match self.snd.sent.front_mut() {
            Some(first) if first.mark == Mark::InFlight => {
                first.mark = Mark::Lost;
                self.snd.in_flight -= first.len;
                true
            }
            _ => false,
        }
    }

    pub(super) fn enter_fast_recovery(&mut self, newly: u32) {
        self.reduce();
        self.snd.recover = (!self.sack).then_some(self.snd.nxt);
        let inferred = if self.sack { 0 } else { u32::from(DUPLICATES) * self.mss() };
        // RFC 9937 section 6.1, RecoverFS: what was delivered before does not count, what is delivered now does.
        let before = self.snd.sacked.saturating_add(inferred.saturating_sub(self.mss()));
        let flight = self.snd.outstanding().saturating_sub(before).saturating_add(newly);
        self.recovery = Recovery::Fast { point: self.snd.nxt, flight, delivered: 0, out: 0, inferred };
        self.pace_recovery(newly, false, false);
    }

    /// One congestion event: at most one in each round trip. What limited transmit let out beyond the window does
    /// not count (RFC 5681 section 3.2, step 2).
    fn reduce(&mut self) {
        let (mss, flight) = (self.mss(), self.snd.outstanding().min(self.congestion.cwnd));
        self.prepare_undo();
        self.note_reduction();
        self.congestion.on_congestion(flight, mss);
    }

    /// RFC 9937 section 6.2: on each acknowledgement in recovery, the first included.
    fn pace_recovery(&mut self, newly: u32, safe: bool, at_once: bool) {
        let (pipe, mss, ssthresh) = (self.pipe(), self.mss(), self.congestion.ssthresh);
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
        let quota = if *out == 0 || at_once { quota.max(mss) } else { quota };
        self.congestion.cwnd = pipe.saturating_add(quota).clamp(mss, MAX_WINDOW);
    }

    /// The retransmission timer fired (RFC 6298 section 5.4 to 5.7; RFC 5681 section 3.1).
    pub(super) fn retransmission_timeout(&mut self, now: Instant) {
        if self.snd.sent.is_empty() {
            return;
        }
        let opening = matches!(self.state, State::SynSent | State::SynReceived);
        // RFC 9293 section 3.8.3: R2, a count each for openings and for the rest.
        let limit = match self.state {
            State::SynSent => self.config.syn_retries,
            State::SynReceived => self.config.syn_ack_retries,
            _ => self.config.retries,
        };
        if self.snd.timeouts >= limit {
            self.state = State::Closed(Ending::TimedOut);
            return;
        }
        // One congestion event, one reduction: a timeout in the middle of a recovery is no new one, nor one of what
        // a timeout has sent again already (RFC 5681 section 3.1, equation 4).
        let fresh = match self.recovery {
            Recovery::Open { .. } => true,
            Recovery::Fast { .. } => false,
            Recovery::Loss { .. } => self.snd.timeouts == 0,
        };
        let again = self.snd.timeouts > 0;
        self.snd.timeouts += 1;
        self.rtt.backoff = self.rtt.backoff.saturating_add(1);
        if !opening && fresh {
            self.reduce();
        }
        self.probe_timed_out(now);
        if !opening {
            self.suspect_black_hole(now);
        }
        self.mark_lost_by_timeout(now);
        if !opening {
            let doubt = if fresh || again { Doubt::Waiting } else { Doubt::Settled };
            self.recovery = Recovery::Loss { point: self.snd.nxt, doubt };
            self.snd.recover = (!self.sack).then_some(self.snd.nxt);
        }
        self.congestion.collapse(self.snd.in_flight, self.mss());
        self.rack.probe = None;
        self.timers.tail_probe = None;
        self.timers.reorder = None;
        self.timers.rto = Some(now + self.rto());
    }

    /// A router reports that packets to the other side must not be longer than `mtu` octets (RFC 9293 section 3.7.2,
    /// RFC 8201), quoting a segment of ours. Believed only if that segment is in flight (RFC 5927 section 7.2).
    pub fn packet_too_big(&mut self, mtu: u16, quoted: Seq, now: Instant) {
        let in_flight = self.snd.una.at_or_before(quoted) && quoted.before(self.snd.nxt);
        // RFC 8201 section 4: a report of less than the minimum link MTU is discarded.
        if !in_flight || mtu < MIN_MTU {
            return;
        }
        if mtu >= self.snd.path_mtu {
            self.narrow_search(mtu, now);
            return;
        }
        self.shrink(mtu, mtu, now);
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
