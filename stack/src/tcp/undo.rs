//! Undo: what looked like a loss was none, and the response to it is taken back (RFC 4015). Told by the echoed
//! timestamp (Eifel, RFC 3522), by reports of duplicates (RFC 2883, 3708), or, after a timeout, by the arrival of
//! what was sent only once (F-RTO, RFC 5682).

use alloc::boxed::Box;

use super::ack::Delivered;
use super::segment::Segment;
use super::tcb::{Doubt, Mark, Recovery, Tcb, Undo};
use crate::{Instant, Seq};

impl Tcb {
    /// Remembers what a congestion response is about to change. Whatever an earlier one changed stays so.
    pub(super) fn prepare_undo(&mut self) {
        let congestion = self.congestion.clone();
        let undo = Undo { since: self.snd.una, first: self.copy_of_move(), unreported: 0, congestion };
        self.undo = Some(Box::new(undo));
    }

    /// `TSval` of the copy of the oldest octets that a move has sent, if it has: that they arrive with the copy, which no
    /// congestion response had to do with, does not prove that the original did.
    fn copy_of_move(&self) -> Option<u32> {
        let first = self.snd.sent.front().filter(|first| first.retransmissions > 0)?;
        let copied = self.snd.kicked.filter(|kicked| *kicked >= first.at)?;
        Some(self.timestamps.as_ref()?.value_then(copied))
    }

    /// Octets were sent again.
    pub(super) fn note_for_undo(&mut self, len: u32, now: Instant) {
        let value = self.timestamps.as_ref().map(|ours| ours.value_at(now));
        if let Some(undo) = &mut self.undo {
            // Only the first: once an echo has caught up with it, a later copy tells nothing.
            if undo.unreported == 0 {
                undo.first = undo.first.or(value);
            }
            undo.unreported = undo.unreported.saturating_add(len);
        }
    }

    /// Takes the last congestion response back if this acknowledgement proves that it had no reason. Returns whether
    /// it did.
    pub(super) fn undo_if_spurious(&mut self, segment: &Segment, delivered: &Delivered) -> bool {
        let all_reported = self.account_duplicate(delivered);
        let original = self.is_echo_of_original(segment, delivered);
        // Reordering, or the detection would not have gone wrong.
        self.rack.reordering |= self.sack && original && matches!(self.recovery, Recovery::Fast { .. });
        let spurious = all_reported || original || self.proves_timeout_spurious(delivered);
        if spurious {
            self.take_back(delivered);
        }
        spurious
    }

    /// Whether a report of a duplicate may be one of the copy that a move sends: then it says nothing of the path.
    pub(super) fn moved_lately(&self, now: Instant) -> bool {
        let patience = 2 * self.rtt.smoothed.unwrap_or_else(|| self.rto());
        self.snd.kicked.is_some_and(|at| at.since(now) < patience)
    }

    /// RFC 3708 section 2: counts off what the other side reports as duplicate. Returns whether all that was sent
    /// again has turned out to be needless.
    fn account_duplicate(&mut self, delivered: &Delivered) -> bool {
        let Some((from, to)) = delivered.duplicate else { return false };
        let Some(undo) = &mut self.undo else { return false };
        let ours = undo.since.at_or_before(from) && from.before(to) && to.at_or_before(self.snd.nxt);
        if !ours || undo.unreported == 0 {
            return false;
        }
        undo.unreported = undo.unreported.saturating_sub(to.0.wrapping_sub(from.0));
        undo.unreported == 0
    }

    /// RFC 3522 section 3.2, step 5: the acknowledgement of octets that were sent again echoes a timestamp that is
    /// older than the first copy, so it was the original that arrived.
    fn is_echo_of_original(&mut self, segment: &Segment, delivered: &Delivered) -> bool {
        let Some(first) = self.undo.as_ref().and_then(|undo| undo.first) else { return false };
        let Some(theirs) = segment.options.timestamps else { return false };
        if !delivered.ambiguous || theirs.echo == 0 {
            return false;
        }
        if Seq(theirs.echo).before(Seq(first)) {
            return true;
        }
        // TS.Recent never goes back: from here on nothing can be told.
        if let Some(undo) = &mut self.undo {
            undo.first = None;
        }
        false
    }

    /// RFC 5682 sections 2.1 and 3.1, step 3b: octets arrived that were sent before the timeout, and not again.
    fn proves_timeout_spurious(&self, delivered: &Delivered) -> bool {
        let Recovery::Loss { point, doubt } = self.recovery else { return false };
        match doubt {
            Doubt::Settled => false,
            // Step 2a: everything at once tells nothing. Without selective acknowledgements, the first that moves
            // SND.UNA may cover what has been waiting behind the segment that was sent again.
            Doubt::Waiting => delivered.original && self.sack && self.snd.una.before(point),
            Doubt::Probing => delivered.original,
        }
    }

    /// RFC 5682 sections 2.1 and 3.1, steps 2 and 3a, for an acknowledgement that proves nothing.
    pub(super) fn doubt_further(&mut self, doubt: Doubt, delivered: &Delivered) {
        let probe = self.can_send_new();
        let Recovery::Loss { point, doubt: next } = &mut self.recovery else { return };
        let silent = !delivered.sacked && !delivered.repeated;
        match doubt {
            Doubt::Settled => {}
            Doubt::Waiting if delivered.advanced > 0 => {
                *point = self.snd.nxt;
                *next = if probe { Doubt::Probing } else { Doubt::Settled };
            }
            Doubt::Waiting if self.sack || silent => {}
            Doubt::Probing if silent => {}
            Doubt::Waiting | Doubt::Probing => *next = Doubt::Settled,
        }
        self.make_room_after_probing(delivered);
    }

    /// RFC 5682 section 2.1, step 3a: a duplicate answers one of the new segments that were sent as a probe. Nothing
    /// tells which, so they still count as in flight and fill the window. One more segment is let out, up to three
    /// in all, or what is lost would have to wait for the next timeout, and so would each segment of it.
    fn make_room_after_probing(&mut self, delivered: &Delivered) {
        let Recovery::Loss { point, doubt: Doubt::Settled } = self.recovery else { return };
        if delivered.repeated && !self.sack && point.before(self.snd.nxt) {
            let mss = self.mss();
            let room = self.snd.in_flight.saturating_add(mss).min(3 * mss);
            self.congestion.cwnd = self.congestion.cwnd.max(room);
        }
    }

    /// Whether new octets are to be sent although others are thought to be lost (RFC 5682 section 2.1, step 2b).
    pub(super) fn is_probing_timeout(&self) -> bool {
        matches!(self.recovery, Recovery::Loss { doubt: Doubt::Probing, .. })
    }

    /// RFC 4015 section 3.2: the threshold goes back to where the window was, the window to what is in flight, so
    /// that no burst follows.
    fn take_back(&mut self, delivered: &Delivered) {
        let Some(undo) = self.undo.take() else { return };
        self.trust_large_packets();
        for sent in &mut self.snd.sent {
            if sent.mark == Mark::Lost {
                sent.mark = Mark::InFlight;
                self.snd.in_flight += sent.len;
            }
        }
        let initial = u32::from(self.config.initial_window) * self.mss();
        let mut congestion = undo.congestion;
        let (before, now) = (congestion.cwnd, self.congestion.cwnd);
        congestion.ssthresh = congestion.ssthresh.max(before);
        let in_use = self.snd.in_flight.saturating_add(delivered.octets.min(initial)).max(self.mss());
        congestion.cwnd = in_use.min(before).max(now);
        self.congestion = congestion;
        self.recovery = Recovery::Open { duplicates: 0 };
        self.rtt.backoff = 0;
        self.snd.timeouts = 0;
        if let Some(ecn) = &mut self.ecn {
            ecn.reduced = false;
        }
    }
}
