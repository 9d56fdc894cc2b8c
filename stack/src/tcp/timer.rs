//! Deadlines: when a connection must act without being asked, and what it does then.

use core::time::Duration;

use super::state::{Ending, State};
use super::tcb::{Tcb, Timers};
use crate::Instant;

impl Tcb {
    /// The next moment at which [`Tcb::handle_timeout`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        if self.state.is_closed() {
            return None;
        }
        let Timers { rto, persist, delayed_ack, keep_alive, reorder, tail_probe, user } = self.timers;
        let state = match self.state {
            State::TimeWait { until } => Some(until),
            State::FinWait2 { until } => until,
            _ => None,
        };
        [rto, persist, delayed_ack, keep_alive, reorder, tail_probe, user, state].into_iter().flatten().min()
    }

    /// Does what has come due (RFC 9293 section 3.10.8).
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            State::TimeWait { until } if until <= now => {
                self.state = State::Closed(Ending::Finished);
                return;
            }
            State::FinWait2 { until: Some(until) } if until <= now => {
                self.state = State::Closed(Ending::TimedOut);
                return;
            }
            State::Closed(_) => {
                self.timers = Timers::default();
                return;
            }
            _ => {}
        }
        if due(&mut self.timers.user, now) {
            self.state = State::Closed(Ending::TimedOut);
            return;
        }
        if due(&mut self.timers.delayed_ack, now) {
            self.owe_ack();
        }
        if due(&mut self.timers.reorder, now) {
            self.reordering_timeout(now);
        }
        if due(&mut self.timers.tail_probe, now) {
            self.tail_probe_timeout(now);
        }
        if due(&mut self.timers.rto, now) {
            self.retransmission_timeout(now);
        }
        if due(&mut self.timers.persist, now) {
            self.persist_timeout(now);
        }
        if due(&mut self.timers.keep_alive, now) {
            self.keep_alive_timeout(now);
        }
    }

    /// The retransmission timeout as it stands.
    pub(super) fn rto(&self) -> Duration {
        self.rtt.rto(self.config.min_rto, self.config.max_rto)
    }

    /// The window is still shut: ask (RFC 9293 section 3.8.6.1). As long as the other side answers, for ever.
    fn persist_timeout(&mut self, now: Instant) {
        if self.probes >= self.config.retries {
            self.state = State::Closed(Ending::TimedOut);
            return;
        }
        self.probes += 1;
        self.pending.probe = true;
        self.rtt.backoff = self.rtt.backoff.saturating_add(1).min(self.config.retries);
        self.timers.persist = Some(now + self.rto());
    }

    /// RFC 9293 section 3.8.4.
    fn keep_alive_timeout(&mut self, now: Instant) {
        let Some(keep_alive) = self.config.keep_alive else { return };
        if !self.snd.sent.is_empty() || self.timers.persist.is_some() {
            // Retransmissions ask already.
            self.restart_keep_alive(now);
            return;
        }
        // A user timeout decides in place of the count, as in Linux, once at least one question went unanswered.
        let exhausted = match self.config.user_timeout {
            Some(timeout) => self.probes > 0 && self.last_heard.since(now) >= timeout,
            None => self.probes >= keep_alive.count,
        };
        if exhausted {
            self.abort();
            self.state = State::Closed(Ending::TimedOut);
            return;
        }
        self.probes += 1;
        self.pending.probe = true;
        self.timers.keep_alive = Some(now + keep_alive.interval);
    }

    /// Something that must be acknowledged was sent, or cannot be: RFC 9293 section 3.8.3.
    pub(super) fn start_user_timeout(&mut self, now: Instant) {
        if let Some(timeout) = self.config.user_timeout {
            self.timers.user.get_or_insert(now + timeout);
        }
    }

    /// There was progress. What is left has the whole time again.
    pub(super) fn restart_user_timeout(&mut self, now: Instant) {
        self.timers.user = None;
        if !self.snd.sent.is_empty() || self.sendable() > 0 {
            self.start_user_timeout(now);
        }
    }

    /// Something was heard: the silence begins anew.
    pub(super) fn restart_keep_alive(&mut self, now: Instant) {
        let waiting = matches!(self.state, State::TimeWait { .. } | State::SynSent | State::SynReceived);
        if !waiting {
            self.timers.keep_alive = self.config.keep_alive.map(|keep_alive| now + keep_alive.idle);
        }
    }
}

/// Whether a timer has come due; then it is not set any more.
fn due(timer: &mut Option<Instant>, now: Instant) -> bool {
    timer.take_if(|at| *at <= now).is_some()
}
