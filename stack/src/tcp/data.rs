//! Octets in and out: the application's side, reassembly, and the window we offer.

use bytes::Bytes;

use super::Reason;
use super::segment::{Block, Segment};
use super::state::{Ending, State};
use super::tcb::Tcb;
use crate::Instant;

/// A smaller payload is copied, so that it does not pin the large buffer it came in.
const COPY_BELOW: usize = 512;

/// The part of the receive buffer that rounding may promise beyond it.
pub(super) const WINDOW_SLACK: usize = 8;

impl Tcb {
    /// Octets that can be read now.
    pub fn readable(&self) -> usize {
        self.rcv.unread.len()
    }

    /// RECEIVE (RFC 9293 section 3.10.3): the next octets in order, at most `max` of them; empty if there are none.
    pub fn read(&mut self, max: usize) -> Bytes {
        let octets = self.rcv.unread.pop(max);
        if !octets.is_empty() && self.state.may_receive() && self.window_update_due() {
            self.pending.ack = true;
        }
        octets
    }

    /// Whether the other side has finished and everything it sent has been read.
    pub fn at_end(&self) -> bool {
        let finished = self.rcv.fin.is_some_and(|fin| self.rcv.nxt.after(fin));
        self.rcv.unread.is_empty() && (finished || self.state.is_closed())
    }

    /// Octets that [`Tcb::write`] takes now: what the buffer holds, and what the congestion window makes useful.
    pub fn writable(&self) -> usize {
        if !self.state.may_write() || self.snd.fin.is_some() {
            return 0;
        }
        let useful = self.congestion.cwnd.saturating_add(self.config.unsent_limit);
        let room = (self.config.send_buffer.min(useful) as usize).saturating_sub(self.snd.queue.len());
        // As long as there is enough to send, the application is not woken for crumbs.
        let crumb = self.config.send_buffer.min(self.config.unsent_limit) as usize / 4;
        if room < crumb && self.snd.unsent() >= crumb { 0 } else { room }
    }

    /// SEND (RFC 9293 section 3.10.2): queues octets to be sent and gives back those for which there was no room.
    /// Shares, does not copy.
    pub fn write(&mut self, mut octets: Bytes) -> Bytes {
        let rest = octets.split_off(self.writable().min(octets.len()));
        self.pay_owed(&mut octets);
        if !octets.is_empty() {
            self.snd.queue.push(octets);
            self.snd.push = Some(self.snd.end());
        }
        rest
    }

    /// Nothing more will be written: a FIN follows what is queued. Reading goes on (RFC 9293 sections 3.6
    /// and 3.10.4).
    pub fn finish(&mut self) {
        if self.snd.fin.is_some() {
            return;
        }
        match self.state {
            State::Established => self.state = State::FinWait1,
            State::CloseWait => self.state = State::LastAck,
            State::SynReceived => {}
            State::SynSent => {
                self.state = State::Closed(Ending::Aborted);
                return;
            }
            _ => return,
        }
        if !self.pay_owed_fin() {
            self.abort();
            self.pending.reset = true;
            return;
        }
        self.snd.fin = Some(self.snd.end());
    }

    /// Neither writes nor reads any more. Octets that were not read, or that still come, end the connection with
    /// a RST, because the other side must not think that they were consumed (RFC 9293 section 3.6.1,
    /// RFC 2525 section 2.17).
    pub fn close(&mut self, now: Instant) {
        let unread = !self.rcv.unread.is_empty();
        self.rcv.discard = true;
        self.rcv.unread.clear();
        // In TIME-WAIT the other side is beyond caring, and old duplicates must still be kept off.
        if unread && !matches!(self.state, State::TimeWait { .. } | State::Closed(_)) {
            self.abort();
            self.pending.reset = true;
            return;
        }
        self.finish();
        if let State::FinWait2 { until } = &mut self.state {
            until.get_or_insert(now + self.config.fin_wait_2);
        }
    }

    /// ABORT (RFC 9293 section 3.10.5): what is queued is dropped, and the other side gets a RST if it knows of us
    /// and has not finished as we have.
    pub fn abort(&mut self) {
        // Where both have finished, the other side has nothing to lose.
        let owed = match self.state {
            State::SynSent | State::Closing | State::LastAck | State::TimeWait { .. } | State::Closed(_) => {
                false
            }
            State::SynReceived
            | State::Established
            | State::FinWait1
            | State::FinWait2 { .. }
            | State::CloseWait => true,
        };
        self.pending.reset |= owed;
        if !self.state.is_closed() {
            self.state = State::Closed(Ending::Aborted);
        }
    }

    /// Seventh: process the segment text (RFC 9293 section 3.10.7.4).
    pub(super) fn take_payload(&mut self, segment: &Segment, now: Instant) -> Result<(), Reason> {
        if segment.payload.is_empty() {
            return Ok(());
        }
        if !self.state.may_receive() {
            return Ok(());
        }
        if self.rcv.discard {
            self.forget_unacknowledged();
            self.abort();
            return Err(Reason::NobodyReads);
        }
        self.note_segment_size(segment);
        // Only what lies inside the window that we advertised, and nothing behind a FIN.
        let skip = self.rcv.nxt.distance_from(segment.seq);
        if skip >= segment.payload.len() {
            return Ok(());
        }
        let edge = self.rcv.fin.map_or(self.rcv.adv, |fin| fin.earlier(self.rcv.adv));
        let room = edge.distance_from(segment.seq).min(segment.payload.len());
        if skip >= room {
            self.pending.ack = true;
            return Err(Reason::OutOfWindow);
        }
        let octets = segment.payload.slice(skip..room);
        let octets = if octets.len() < COPY_BELOW { Bytes::copy_from_slice(&octets) } else { octets };
        let seq = segment.seq + skip;
        let twice = self.received_twice(segment.seq, seq + octets.len());
        self.rcv.duplicate = twice.or(self.rcv.duplicate);
        if seq == self.rcv.nxt {
            self.take_in_order(octets, now);
        } else {
            self.take_out_of_order(seq, &octets);
        }
        Ok(())
    }

    /// Takes back what the other side may not have: only at SND.UNA it takes a RST at once, without a challenge
    /// (RFC 5961 section 3.2).
    fn forget_unacknowledged(&mut self) {
        self.snd.queue.clear();
        self.snd.sent.clear();
        (self.snd.in_flight, self.snd.sacked, self.snd.fin) = (0, 0, None);
        self.snd.nxt = self.snd.una;
    }

    fn take_in_order(&mut self, octets: Bytes, now: Instant) {
        self.rcv.nxt += octets.len();
        self.rcv.total += octets.len() as u64;
        self.rcv.unacked = self.rcv.unacked.saturating_add(u32::try_from(octets.len()).unwrap_or(u32::MAX));
        self.rcv.unread.push(octets);
        if self.rcv.reassembly.is_empty() {
            self.schedule_ack(now);
            return;
        }
        // RFC 5681 section 4.2: a segment that fills a gap is acknowledged at once.
        let follows = self.rcv.reassembly.take(self.rcv.nxt);
        self.rcv.nxt += follows.len();
        self.rcv.total += follows.len() as u64;
        self.rcv.unread.append(follows);
        self.owe_ack();
    }

    fn take_out_of_order(&mut self, seq: crate::Seq, octets: &Bytes) {
        self.rcv.reassembly.insert(seq, octets);
        self.owe_ack();
    }

    /// The first octets from `from` to before `to` that are here already: what RFC 2883 section 4 has us report, of
    /// a segment that is a duplicate in part as well (section 4.2).
    fn received_twice(&self, from: crate::Seq, to: crate::Seq) -> Option<Block> {
        if from.before(self.rcv.nxt) {
            return Some((from, self.rcv.nxt.earlier(to)));
        }
        self.rcv.reassembly.overlap(from, to)
    }

    /// Eighth: check the FIN bit. A FIN beyond a gap waits for it to be filled.
    pub(super) fn take_fin(&mut self, segment: &Segment, now: Instant) {
        if !self.state.may_receive() {
            return;
        }
        if segment.is_fin() && self.rcv.fin.is_none() {
            let fin = segment.seq + segment.payload.len();
            // A FIN in front of octets that are here already is a lie, also if it brought the octets that they waited for.
            if self.rcv.nxt.at_or_before(fin)
                && fin.at_or_before(self.rcv.adv)
                && self.rcv.reassembly.end().is_none_or(|end| end.at_or_before(fin))
            {
                self.rcv.fin = Some(fin);
            }
        }
        if self.rcv.fin == Some(self.rcv.nxt) {
            self.their_fin_in_order(now);
        } else if segment.is_fin() {
            // RFC 5681 section 4.2: out of order, so the other side should hear of the gap.
            self.owe_ack();
        }
    }

    /// RFC 9293 section 3.8.6.3: at least every second full-sized segment, and within the delay.
    fn schedule_ack(&mut self, now: Instant) {
        if self.rcv.quick > 0 {
            self.rcv.quick -= 1;
            self.owe_ack();
        } else if self.is_ack_overdue() {
            self.owe_ack();
        } else {
            self.timers.delayed_ack.get_or_insert(now + self.config.delayed_ack);
        }
    }

    fn note_segment_size(&mut self, segment: &Segment) {
        let size = segment.gso.map_or(segment.payload.len(), usize::from);
        let size = u16::try_from(size).unwrap_or(u16::MAX).min(self.config.mss);
        self.rcv.seen_mss = self.rcv.seen_mss.max(size);
    }

    /// How far the right edge of the window could be moved: to all the room there is, but never back, and not beyond
    /// what is released.
    fn right_edge(&self) -> crate::Seq {
        let room = self.largest_window().saturating_sub(self.rcv.unread.len());
        let edge = self.rcv.adv.later(self.rcv.nxt + room);
        self.held.as_ref().map_or(edge, |held| edge.earlier(held.released.edge))
    }

    /// Whether the window has opened so far that the other side should be told without being asked
    /// (RFC 9293 section 3.8.6.2.2, silly window syndrome avoidance).
    pub(super) fn window_update_due(&self) -> bool {
        let mss = usize::from(self.rcv.seen_mss);
        let (edge, buffer) = (self.right_edge(), self.largest_window());
        let growth = edge.distance_from(self.rcv.adv);
        let left = self.rcv.adv.distance_from(self.rcv.nxt);
        growth >= buffer / 2 || (left < mss && growth >= mss.min(buffer / 2))
    }

    /// The window field to send with the acknowledgement number `ack`, moving the right edge that it promises.
    ///
    /// The field counts in units of 2^wscale. What was promised is rounded up, so that it is not taken back; but a
    /// peer that sends less than a unit at a time could push the edge on for ever in that way, so there is a limit.
    /// Beyond it up to a unit seems to be taken back (RFC 7323 section 2.4), and is still accepted.
    pub(super) fn advertise(&mut self, ack: crate::Seq) -> u16 {
        let edge = self.right_edge();
        let growth = edge.distance_from(self.rcv.adv);
        let mss = usize::from(self.rcv.seen_mss).min(self.largest_window() / 2);
        let edge = if growth >= mss { edge } else { self.rcv.adv };
        let unit = 1_usize << self.rcv.wscale;
        let limit = self.rcv.nxt + self.most_room().saturating_sub(self.rcv.unread.len());
        let kept = self.rcv.adv.distance_from(ack).div_ceil(unit).min(limit.distance_from(ack) / unit);
        let units = kept.max(edge.distance_from(ack) / unit);
        let units = match &self.held {
            None => units,
            Some(held) => units.min(held.released.edge.distance_from(ack) / unit),
        };
        let field = u16::try_from(units).unwrap_or(u16::MAX);
        self.rcv.adv = self.rcv.adv.later(ack + (usize::from(field) << self.rcv.wscale));
        field
    }
}

impl<At> Tcb<At> {
    /// Octets that may be received and not read, as far as a window field can say so (RFC 7323 section 2.2).
    fn largest_window(&self) -> usize {
        (self.config.receive_buffer as usize).min(usize::from(u16::MAX) << self.rcv.wscale)
    }

    /// The same with what rounding may promise beyond it.
    pub(super) fn most_room(&self) -> usize {
        let most = self.largest_window();
        most + most / WINDOW_SLACK
    }

    /// Whether acknowledgements have waited long enough, or for enough (RFC 9293 section 3.8.6.3).
    pub(super) fn is_ack_overdue(&self) -> bool {
        self.rcv.unacked >= 2 * u32::from(self.rcv.seen_mss)
    }
}
