//! A segment arrives (RFC 9293 section 3.10.7). The steps judge; what they decide is carried out in one place.

use core::time::Duration;

use super::Reason;
use super::segment::Segment;
use super::state::{Ending, State};
use super::tcb::{Tcb, TimestampState};
use crate::{Instant, Seq};

/// After this long TS.Recent proves nothing any more (RFC 7323 section 5.5).
const TIMESTAMP_MAX_AGE: Duration = Duration::from_hours(24 * 24);
/// Answers to unacceptable segments in one span (RFC 5961 section 7 proposes 10 in 5 seconds).
const MAX_CHALLENGES: u8 = 10;
/// The span.
const CHALLENGE_SPAN: Duration = Duration::from_secs(1);

/// What a step decides about a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The next step decides.
    Continue,
    /// Ignore it.
    Drop(Reason),
    /// Answer with an acknowledgement and ignore it otherwise.
    Acknowledge(Reason),
    /// The other side ended the connection.
    Reset,
    /// It belongs to no connection that could be ours: answer with a RST, keep what we have.
    Refuse(Seq),
    /// The other side sent its SYN again: it has not seen our answer.
    RepeatSyn,
}

/// Judges a segment of a connection that has seen the other side's SYN, in the order of RFC 9293 section 3.10.7.4.
pub fn judge(tcb: &Tcb, segment: &Segment, now: Instant) -> Verdict {
    let steps: [fn(&Tcb, &Segment, Instant) -> Verdict; 5] =
        [timestamps, sequence, reset, syn, acknowledgement];
    for step in steps {
        match step(tcb, segment, now) {
            Verdict::Continue => {}
            Verdict::Acknowledge(reason) if is_left_behind(tcb, segment) => return Verdict::Drop(reason),
            decided => return decided,
        }
    }
    Verdict::Continue
}

/// Whether this was overtaken by the FIN that it was sent before, and carries nothing that the other side could be
/// waiting to have acknowledged. Section 3.10.7.4, eighth: all that can arrive in TIME-WAIT is the FIN again. An answer
/// would be one to a connection that is over, if our acknowledgement has reached it: it would draw a RST.
fn is_left_behind(tcb: &Tcb, segment: &Segment) -> bool {
    let over = matches!(tcb.state, State::TimeWait { .. });
    over && segment.seq_len() == 0 && segment.seq.before(tcb.rcv.nxt)
}

/// PAWS (RFC 7323 section 5.3, R1), before anything else.
fn timestamps(tcb: &Tcb, segment: &Segment, now: Instant) -> Verdict {
    let Some(ours) = &tcb.timestamps else { return Verdict::Continue };
    match segment.options.timestamps {
        _ if segment.is_rst() => Verdict::Continue,
        // A peer that lost its state does not know what was agreed on: RFC 5961 section 4 answers its SYN.
        None if segment.is_syn() => Verdict::Continue,
        // RFC 7323 section 3.2.
        None => Verdict::Drop(Reason::MissingTimestamp),
        Some(theirs) => {
            let old = Seq(theirs.value).before(Seq(ours.recent));
            if old && !ours.is_stale(now) { Verdict::Acknowledge(Reason::Paws) } else { Verdict::Continue }
        }
    }
}

/// First: check sequence number.
fn sequence(tcb: &Tcb, segment: &Segment, _: Instant) -> Verdict {
    let rcv = &tcb.rcv;
    if tcb.state == State::SynReceived && segment.is_syn() && segment.seq == rcv.irs && segment.ack.is_none()
    {
        return Verdict::RepeatSyn;
    }
    let (start, end) = (segment.seq, segment.end());
    let open = rcv.nxt.before(rcv.adv);
    // Special allowance for valid acknowledgements: a sender that has gone beyond a window that is shut is heard all the same,
    // or nothing might ever open it. Its octets are not taken.
    let heeds = !open && !segment.is_rst() && tcb.state.may_receive();
    let beyond = if heeds { tcb.most_room() } else { 0 };
    let acceptable = if open && segment.seq_len() > 0 {
        start.before(rcv.adv) && rcv.nxt.before(end)
    } else {
        // At the right edge too: there a sender is whose last flight we did not get.
        rcv.nxt.at_or_before(start) && start.at_or_before(rcv.adv + beyond)
    };
    match (acceptable, segment.is_rst()) {
        (true, _) => Verdict::Continue,
        (false, true) => Verdict::Drop(Reason::OutOfWindow),
        (false, false) => Verdict::Acknowledge(Reason::OutOfWindow),
    }
}

/// Second: check the RST bit (RFC 5961 section 3.2).
fn reset(tcb: &Tcb, segment: &Segment, _: Instant) -> Verdict {
    match segment.is_rst() {
        false => Verdict::Continue,
        true if segment.seq == tcb.rcv.nxt => Verdict::Reset,
        true => Verdict::Acknowledge(Reason::BlindReset),
    }
}

/// Fourth: check the SYN bit (RFC 5961 section 4.2).
fn syn(_: &Tcb, segment: &Segment, _: Instant) -> Verdict {
    if segment.is_syn() { Verdict::Acknowledge(Reason::UnexpectedSyn) } else { Verdict::Continue }
}

/// Fifth: check the ACK field (RFC 5961 section 5.2).
fn acknowledgement(tcb: &Tcb, segment: &Segment, _: Instant) -> Verdict {
    let snd = &tcb.snd;
    let Some(ack) = segment.ack else { return Verdict::Drop(Reason::NoAck) };
    if tcb.state == State::SynReceived {
        let ours = ack.after(snd.una) && ack.at_or_before(tcb.highest_ack());
        return if ours { Verdict::Continue } else { Verdict::Refuse(ack) };
    }
    if ack.after(snd.nxt) && ack.after(tcb.highest_ack()) {
        return Verdict::Acknowledge(Reason::AckBeyondNxt);
    }
    // Octets that were never sent cannot have been acknowledged before; our SYN was.
    let acked = u32::try_from(snd.acked_total).unwrap_or(u32::MAX).saturating_add(1);
    if ack.before(snd.una - snd.max_wnd.min(acked)) {
        Verdict::Acknowledge(Reason::AckTooOld)
    } else {
        Verdict::Continue
    }
}

impl TimestampState<Instant> {
    /// Whether TS.Recent is so old that it proves nothing (RFC 7323 section 5.5).
    fn is_stale(&self, now: Instant) -> bool {
        self.recent_at.since(now) > TIMESTAMP_MAX_AGE
    }
}

impl Tcb {
    /// Takes a segment. Whatever must be answered is sent by the next calls of
    /// [`poll_transmit`](Tcb::poll_transmit). The error says why nothing, or only a part, came of it.
    pub fn receive(&mut self, segment: &Segment, now: Instant) -> Result<(), Reason> {
        self.receive_within(segment, now, &mut u32::MAX.clone())
    }

    /// The same, on a host that may send so many challenge ACKs now.
    pub(super) fn receive_within(
        &mut self,
        segment: &Segment,
        now: Instant,
        challenges: &mut u32,
    ) -> Result<(), Reason> {
        match self.state {
            State::Closed(_) => Err(Reason::Closed),
            State::SynSent => self.arrive_syn_sent(segment, now),
            _ => match judge(self, segment, now) {
                Verdict::Continue => self.accept_segment(segment, now),
                refused => self.carry_out(refused, segment, now, challenges),
            },
        }
    }

    fn carry_out(
        &mut self,
        verdict: Verdict,
        segment: &Segment,
        now: Instant,
        challenges: &mut u32,
    ) -> Result<(), Reason> {
        match verdict {
            Verdict::Continue => Ok(()),
            Verdict::Drop(reason) => Err(reason),
            Verdict::Acknowledge(reason) => {
                // RFC 5961 section 10: the host's limit is for answers that a blind attacker can provoke. A peer that
                // is there and asks is always answered, within the connection's own limit.
                let challenge = !matches!(reason, Reason::OutOfWindow | Reason::Paws);
                if !challenge || core::mem::replace(challenges, challenges.saturating_sub(1)) > 0 {
                    self.answer(segment, now);
                }
                Err(reason)
            }
            Verdict::Reset => {
                let refused = self.state == State::SynReceived;
                let finished = matches!(self.state, State::TimeWait { .. });
                self.state = State::Closed(match (finished, refused) {
                    (true, _) => Ending::Finished,
                    (_, true) => Ending::Refused,
                    _ => Ending::Reset,
                });
                Ok(())
            }
            Verdict::Refuse(ack) => Err(Reason::AckOfNothing(ack)),
            Verdict::RepeatSyn => {
                self.agree_on_ecn(segment);
                self.mark_syn_lost();
                Ok(())
            }
        }
    }

    /// Acknowledges something unacceptable, within limits (RFC 5961 section 7), and reports a duplicate
    /// (RFC 2883 section 4).
    fn answer(&mut self, segment: &Segment, now: Instant) {
        if self.challenges.since.since(now) >= CHALLENGE_SPAN {
            (self.challenges.since, self.challenges.sent) = (now, 0);
        }
        if !segment.payload.is_empty() && !segment.is_rst() && segment.seq.before(self.rcv.nxt) {
            let end = segment.seq + segment.payload.len();
            self.rcv.duplicate = Some((segment.seq, end.earlier(self.rcv.nxt)));
        }
        // Octets that were received already mean that an acknowledgement was lost: that one is always repeated.
        let old = !segment.payload.is_empty() && segment.end().at_or_before(self.rcv.nxt);
        if !old {
            if self.challenges.sent >= MAX_CHALLENGES {
                return;
            }
            self.challenges.sent += 1;
        }
        if old && self.rcv.last_ack.before(segment.end()) {
            // Only because its acknowledgement is held back.
            self.owe_ack();
        } else {
            self.pending.ack = true;
        }
        // Our FIN or the other side's was lost: RFC 9293 section 3.10.7.4, eighth, TIME-WAIT.
        if let State::TimeWait { until } = &mut self.state
            && segment.is_fin()
        {
            *until = now + self.config.time_wait;
        }
    }

    /// The segment is acceptable: acknowledgement, octets, FIN (RFC 9293 section 3.10.7.4 from the fifth on).
    fn accept_segment(&mut self, segment: &Segment, now: Instant) -> Result<(), Reason> {
        let Some(ack) = segment.ack else { return Err(Reason::NoAck) };
        self.last_heard = now;
        self.probes = 0;
        self.restart_keep_alive(now);
        self.update_recent_timestamp(segment, now);
        if self.state == State::SynReceived {
            self.establish(segment, ack.earlier(self.snd.nxt), now);
            self.update_window(segment, ack);
        }
        self.note_mark(segment);
        let (una, shut) = (self.snd.una, self.timers.persist.is_some());
        if self.recovered.is_some() {
            self.catch_up_with(ack);
            self.forget_former_life(now);
        }
        self.process_ack(segment, ack, now);
        if self.snd.una != una || shut && self.timers.persist.is_none() {
            self.restart_user_timeout(now);
        }
        self.our_fin_acknowledged(now);
        self.take_payload(segment, now)?;
        self.take_fin(segment, now);
        Ok(())
    }

    /// RFC 7323 section 4.3: the timestamp to echo is that of the segment that moves the left edge of the window.
    fn update_recent_timestamp(&mut self, segment: &Segment, now: Instant) {
        let Some(ours) = &mut self.timestamps else { return };
        let Some(theirs) = segment.options.timestamps else { return };
        let newer = !Seq(theirs.value).before(Seq(ours.recent)) || ours.is_stale(now);
        if newer && segment.seq.at_or_before(self.rcv.last_ack) {
            (ours.recent, ours.recent_at) = (theirs.value, now);
        }
    }

    /// The transitions that wait for the acknowledgement of our FIN (RFC 9293 section 3.10.7.4, fifth).
    fn our_fin_acknowledged(&mut self, now: Instant) {
        if !self.snd.fin.is_some_and(|fin| self.snd.una.after(fin)) {
            return;
        }
        match self.state {
            State::FinWait1 => {
                let until = self.rcv.discard.then(|| now + self.config.fin_wait_2);
                self.state = State::FinWait2 { until };
            }
            State::Closing => self.enter_time_wait(now),
            // The other side may have taken ours without the acknowledgement of its own, as if both had crossed.
            State::LastAck if self.may_have_crossed() => self.enter_time_wait(now),
            State::LastAck => self.state = State::Closed(Ending::Finished),
            _ => {}
        }
    }

    /// The transitions that wait for the other side's FIN (eighth), once all octets before it are here.
    pub(super) fn their_fin_in_order(&mut self, now: Instant) {
        self.rcv.nxt += 1;
        self.rcv.adv = self.rcv.adv.later(self.rcv.nxt);
        self.owe_ack();
        match self.state {
            State::Established => self.state = State::CloseWait,
            State::FinWait1 => self.state = State::Closing,
            State::FinWait2 { .. } => self.enter_time_wait(now),
            _ => {}
        }
    }

    /// RFC 9293 section 3.6.1.
    fn enter_time_wait(&mut self, now: Instant) {
        self.timers = super::tcb::Timers::default();
        self.state = State::TimeWait { until: now + self.config.time_wait };
    }
}
