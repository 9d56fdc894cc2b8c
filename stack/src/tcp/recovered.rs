//! A connection goes on from a copy that was made before its host died. It knows less than the other side has seen,
//! and must not let that show.

use alloc::boxed::Box;
use core::time::Duration;

use bytes::{Buf, Bytes};
use serde::{Deserialize, Serialize};

use super::commit::Commit;
use super::state::State;
use super::tcb::{Doubt, Mark, Pending, Rack, Rebase, Recovery, Sent, Tcb};
use crate::{Instant, Seq};

/// How far `TSval` jumps beyond the time that has passed: for the way of the copy, and clocks that differ.
pub const RECOVERY_MARGIN: Duration = Duration::from_secs(2);
/// The part of the time that has passed by which clocks may differ: 1/64.
const DRIFT: u32 = 64;
/// What a former life may have sent beyond what its copy knows, if it did not wait.
const MAX_AHEAD: u32 = 1 << 30;
/// After this long nothing of a former life is in the network any more, nor an answer to it: twice the MSL (RFC 9293
/// section 3.4.2).
const GRACE: Duration = Duration::from_mins(4);

/// What a connection remembers of a former life that it continues.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovered<At> {
    /// When this life began.
    pub since: At,
    /// The first `TSval` of this life: echoes of earlier ones tell nothing of the round-trip time.
    pub first: Option<u32>,
    /// What the former life can have sent at most; `None`: anything, within reason.
    pub sent: Option<Seq>,
    /// Sequence numbers before SND.UNA that the session has yet to write: they are at the other side already.
    pub owed: u32,
}

impl<At> Recovered<At> {
    pub(super) fn map_time<B>(self, clock: &impl Rebase<At, B>) -> Recovered<B> {
        let Self { since, first, sent, owed } = self;
        Recovered { since: clock.behind(since), first, sent, owed }
    }
}

impl Tcb<Duration> {
    /// Turns the copy of a connection whose host has died into one that may go on, `spent` after the copy had come
    /// here. `commit` is what that host had held back. For each other host that may have gone on from a copy of the
    /// same life before, add [`RECOVERY_MARGIN`] to `spent`.
    ///
    /// What was in flight is sent again as the windows allow. The connection is [held](Tcb::hold) where its copy knows
    /// that the former life was: go on with [`Tcb::release`] or [`Tcb::unhold`].
    #[must_use]
    pub fn recovered(mut self, commit: Commit, spent: Duration) -> Self {
        if self.state.is_closed() {
            return self;
        }
        let first = self.jump_ahead(spent);
        let sent = (commit == Commit::Strict).then_some(self.snd.last());
        let owed = self.recovered.as_ref().map_or(0, |before| before.owed);
        self.recovered = Some(Box::new(Recovered { since: Duration::ZERO, first, sent, owed }));
        let edge = self.rcv.adv;
        if self.state != State::SynSent {
            self.hold_at(commit, edge);
            self.rcv.adv = self.most_edge();
        }
        self.assume_nothing_delivered();
        self
    }

    /// `TSval` must not fall behind what the other side has seen, or it takes our segments for old duplicates
    /// (RFC 7323 section 5.3).
    fn jump_ahead(&mut self, spent: Duration) -> Option<u32> {
        let timestamps = self.timestamps.as_mut()?;
        let jump = spent.saturating_add(spent / DRIFT).saturating_add(RECOVERY_MARGIN).as_millis();
        #[expect(clippy::cast_possible_truncation, reason = "the timestamp clock wraps by design")]
        let jump = jump as u32;
        timestamps.value = timestamps.value.wrapping_add(jump);
        timestamps.recent_at = timestamps.recent_at.saturating_add(spent);
        Some(timestamps.value)
    }

    /// What was in flight may or may not have arrived, and more may have been sent since. It is sent again at the pace
    /// of a connection that begins anew, up to where the old one was; the first acknowledgement tells what need not.
    fn assume_nothing_delivered(&mut self) {
        if self.state == State::SynReceived && self.snd.sent.is_empty() {
            // The former life may have answered the SYN, so that the acknowledgement of that is expected.
            let (seq, at, mark) = (self.snd.iss, Duration::ZERO, Mark::Lost);
            self.snd.sent.push_back(Sent { seq, len: 1, at, retransmissions: 1, mark });
            self.snd.nxt = seq + 1_u32;
            if let Some(held) = &mut self.held {
                held.released.send = held.released.send.later(self.snd.nxt);
            }
        }
        for sent in self.snd.sent.iter_mut().filter(|sent| sent.mark != Mark::Sacked) {
            (sent.mark, sent.retransmissions) = (Mark::Lost, sent.retransmissions.max(1));
        }
        self.snd.in_flight = 0;
        (self.snd.timeouts, self.rtt.backoff, self.probes) = (0, 0, 0);
        (self.snd.kicked, self.snd.limited, self.undo) = (None, false, None);
        self.snd.recover = (!self.sack).then_some(self.snd.nxt);
        if let Some(search) = &mut self.snd.search {
            search.probe = None;
        }
        self.rack = Rack { newest: None, fack: None, probe: None, ..self.rack };
        let open = self.snd.sent.is_empty() || !self.state.is_synchronised();
        self.recovery = match open {
            true => Recovery::Open { duplicates: 0 },
            false => Recovery::Loss { point: self.snd.nxt, doubt: Doubt::Settled },
        };
        self.restart_window();
        let rto = self.rtt.rto(self.config.min_rto, self.config.max_rto);
        // The answer to a SYN may have to wait for a release, and nothing else that is in flight.
        let waits = matches!(self.recovery, Recovery::Loss { .. }) || matches!(self.state, State::SynSent);
        self.timers.rto = waits.then_some(rto);
        (self.timers.reorder, self.timers.tail_probe) = (None, None);
        // The other side must answer, or the window that it last offered would not be known.
        let idle = self.state.is_synchronised() && !matches!(self.state, State::TimeWait { .. });
        self.pending = Pending { probe: idle && self.snd.sent.is_empty(), ..Pending::default() };
    }
}

impl<At> Tcb<At> {
    /// Slow start, as after a silence, up to where the window was (RFC 5681 section 4.1, RFC 7661 section 4.3).
    pub(super) fn restart_window(&mut self) {
        let restart = u32::from(self.config.initial_window) * self.mss();
        let tested = self.congestion.cwnd / 4 * 3;
        self.congestion.ssthresh = self.congestion.ssthresh.max(tested);
        self.congestion.cwnd = self.congestion.cwnd.min(restart);
    }

    /// The highest number that can be acknowledged: SND.NXT, or what a former life may have sent.
    pub(super) fn highest_ack(&self) -> Seq {
        let nxt = self.snd.nxt;
        let Some(recovered) = &self.recovered else { return nxt };
        let sent = match (recovered.sent, self.snd.fin) {
            (Some(sent), _) => sent,
            (None, Some(_)) => self.snd.last(),
            (None, None) => nxt + MAX_AHEAD.saturating_sub(recovered.owed),
        };
        sent.later(nxt)
    }
}

impl Tcb {
    /// The other side acknowledges more than this life has sent: a former one has. It counts as sent and delivered, and
    /// what the session has not written yet is owed.
    pub(super) fn catch_up_with(&mut self, ack: Seq) {
        if !ack.after(self.snd.nxt) {
            return;
        }
        let (first, last) = (self.snd.first_octet(), self.snd.last());
        let snd = &mut self.snd;
        let octets = ack.distance_from(first).min(snd.queue.len());
        snd.queue.advance(octets);
        snd.acked_total = snd.acked_total.wrapping_add(octets as u64);
        snd.sent = alloc::collections::VecDeque::new();
        (snd.in_flight, snd.sacked, snd.timeouts) = (0, 0, 0);
        (snd.small, snd.recover) = (None, None);
        snd.move_una(ack);
        snd.nxt = ack;
        let owed = u32::try_from(ack.distance_from(last)).unwrap_or(u32::MAX);
        if let Some(recovered) = &mut self.recovered {
            recovered.owed += owed;
        }
        if let Some(held) = &mut self.held {
            // Only what was released can have been seen.
            held.released.send = held.released.send.later(ack);
        }
        self.recovery = Recovery::Open { duplicates: 0 };
        self.undo = None;
        self.rtt.backoff = 0;
        self.rack = Rack { newest: None, fack: None, probe: None, ..self.rack };
        let timers = &mut self.timers;
        (timers.rto, timers.persist, timers.reorder, timers.tail_probe) = (None, None, None, None);
    }

    /// Takes from what the session writes what the other side has already.
    pub(super) fn pay_owed(&mut self, octets: &mut Bytes) {
        let Some(recovered) = self.recovered.as_mut().filter(|recovered| recovered.owed > 0) else { return };
        let paid = octets.len().min(recovered.owed as usize);
        octets.advance(paid);
        recovered.owed -= u32::try_from(paid).unwrap_or(recovered.owed);
    }

    /// The session finishes. If the other side has our FIN already, it is sent once more, to be acknowledged. Returns
    /// whether it may: the other side has seen more octets than the session has written otherwise.
    pub(super) fn pay_owed_fin(&mut self) -> bool {
        let Some(recovered) = self.recovered.as_mut().filter(|recovered| recovered.owed > 0) else {
            return true;
        };
        if core::mem::take(&mut recovered.owed) > 1 {
            return false;
        }
        let snd = &mut self.snd;
        let before = snd.una - 1;
        if before == snd.iss {
            snd.iss = snd.iss - 1;
        }
        (snd.una, snd.nxt, snd.wl2) = (before, before, snd.wl2.earlier(before));
        true
    }

    /// Forgets the former life once nothing of it can come any more.
    pub(super) fn forget_former_life(&mut self, now: Instant) {
        let Some(recovered) = &mut self.recovered else { return };
        if recovered.sent.is_some_and(|sent| sent.at_or_before(self.snd.nxt)) {
            recovered.sent = Some(self.snd.nxt);
        }
        if recovered.owed == 0 && recovered.since.since(now) >= GRACE {
            self.recovered = None;
        }
    }

    /// Whether this echo of a timestamp is one of a former life.
    pub(super) fn is_old_echo(&self, echo: u32) -> bool {
        let first = self.recovered.as_ref().and_then(|recovered| recovered.first);
        first.is_some_and(|first| Seq(echo).before(Seq(first)))
    }

    /// Whether acknowledgements are held back that the other side must not miss when the connection ends.
    pub(super) fn owes_last_ack(&self) -> bool {
        self.held.is_some() && self.rcv.last_ack != self.rcv.nxt
    }
}
