//! An acknowledgement arrives: what it says is delivered, how long that took, and what follows for the windows.

use core::time::Duration;

use super::cc::Acked;
use super::segment::{Block, Segment};
use super::tcb::{Mark, Newest, Recovery, Sent, Tcb};
use crate::{Instant, Seq};

/// What one acknowledgement told.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "one acknowledgement can tell any of them")]
pub(super) struct Delivered {
    /// Sequence numbers that SND.UNA moved by.
    pub(super) advanced: u32,
    /// Octets newly known to be at the other side, cumulatively or selectively acknowledged.
    pub(super) octets: u32,
    /// Whether something was selectively acknowledged for the first time.
    pub(super) sacked: bool,
    /// Whether the other side reported a duplicate (RFC 2883).
    pub(super) duplicate: bool,
    /// Whether it is a duplicate acknowledgement (RFC 5681 section 2).
    pub(super) repeated: bool,
    /// When the oldest newly delivered octets that were sent only once had been sent.
    pub(super) oldest: Option<Instant>,
    /// Whether octets that were sent more than once are among the newly acknowledged: then others may have waited
    /// for them at the other side, and how long they took says nothing.
    pub(super) ambiguous: bool,
}

impl Tcb {
    /// Fifth: the ACK field, once it is known to be acceptable (RFC 9293 section 3.10.7.4).
    pub(super) fn process_ack(&mut self, segment: &Segment, ack: Seq, now: Instant) {
        let mut delivered = Delivered { repeated: self.is_repeated(segment, ack), ..Delivered::default() };
        if ack.after(self.snd.una) {
            self.advance_una(ack, now, &mut delivered);
        }
        if self.sack {
            self.take_sack(segment, ack, now, &mut delivered);
        }
        self.update_window(segment, ack);
        self.measure(segment, &delivered, now);
        // The window that recovery sets is not touched by the acknowledgement that ends it either.
        let paced = matches!(self.recovery, Recovery::Fast { .. });
        self.repair(&delivered, now);
        if !paced {
            self.grow(&delivered, now);
        }
        self.rearm_after_ack(&delivered, now);
    }

    /// RFC 5681 section 2: a duplicate acknowledgement.
    fn is_repeated(&self, segment: &Segment, ack: Seq) -> bool {
        let window = u32::from(segment.window) << self.snd.wscale;
        ack == self.snd.una
            && !self.snd.sent.is_empty()
            && segment.payload.is_empty()
            && segment.control.is_none()
            && window == self.snd.wnd
    }

    /// Everything before `ack` is delivered (RFC 9293 section 3.10.7.4, fifth).
    fn advance_una(&mut self, ack: Seq, now: Instant, delivered: &mut Delivered) {
        let first_octet = self.snd.first_octet();
        while let Some(front) = self.snd.sent.front().copied() {
            if front.end().after(ack) {
                self.split_sent(0, ack);
                if self.snd.sent.front().is_none_or(|front| front.end().after(ack)) {
                    break;
                }
                continue;
            }
            self.snd.sent.pop_front();
            match front.mark {
                Mark::InFlight => self.snd.in_flight -= front.len,
                Mark::Sacked => self.snd.sacked -= front.len,
                Mark::Lost => {}
            }
            if front.mark != Mark::Sacked {
                delivered.ambiguous |= front.retransmissions > 0;
                self.note_delivered(&front, now, delivered);
            }
        }
        if self.snd.sent.is_empty() {
            // An idle connection holds no memory for what it once sent.
            self.snd.sent = alloc::collections::VecDeque::new();
        }
        delivered.advanced = ack.0.wrapping_sub(self.snd.una.0);
        let octets = ack.distance_from(first_octet).min(self.snd.queue.len());
        self.snd.queue.advance(octets);
        self.snd.una = ack;
        self.snd.acked_total = self.snd.acked_total.wrapping_add(octets as u64);
        self.snd.timeouts = 0;
        if ack == self.snd.iss {
            // Once round the circle: SND.UNA at the ISS would mean that the SYN is not acknowledged.
            self.snd.iss = ack - 1;
        }
        self.rack.fack = Some(self.rack.fack.map_or(ack, |fack| fack.later(ack)));
    }

    /// RFC 2018 section 5, RFC 6675 section 4 `Update()`. Blocks that cannot be true are ignored.
    fn take_sack(&mut self, segment: &Segment, ack: Seq, now: Instant, delivered: &mut Delivered) {
        let mut blocks = segment.options.sack;
        if let [Some(first), second, _] = blocks
            && is_duplicate_report(first, ack, second)
        {
            delivered.duplicate = true;
            blocks[0] = None;
        }
        // From the left to the right, or what was reported later than it came would look like reordering.
        let una = self.snd.una;
        blocks.sort_by_key(|block| block.map(|(from, _)| from.distance_from(una)));
        for (from, to) in blocks.into_iter().flatten() {
            let sound = from.before(to) && self.snd.una.at_or_before(from) && to.at_or_before(self.snd.nxt);
            if sound {
                self.mark_sacked((from, to), now, delivered);
            }
        }
    }

    fn mark_sacked(&mut self, (from, to): Block, now: Instant, delivered: &mut Delivered) {
        let mut index = self.snd.sent.partition_point(|sent| sent.end().at_or_before(from));
        while let Some(sent) = self.snd.sent.get(index).copied() {
            if to.at_or_before(sent.seq) {
                break;
            }
            if sent.mark != Mark::Sacked {
                if sent.seq.before(from) {
                    self.split_sent(index, from);
                    index += 1;
                }
                self.split_sent(index, to);
                let Some(sent) = self.snd.sent.get_mut(index) else { break };
                let before = *sent;
                sent.mark = Mark::Sacked;
                self.snd.sacked += before.len;
                if before.mark == Mark::InFlight {
                    self.snd.in_flight -= before.len;
                }
                delivered.sacked = true;
                self.note_delivered(&before, now, delivered);
            }
            index += 1;
        }
    }

    /// Cuts the record at `index` in two at `at`, if that lies inside it.
    pub(super) fn split_sent(&mut self, index: usize, at: Seq) {
        let Some(sent) = self.snd.sent.get_mut(index) else { return };
        if !(sent.seq.before(at) && at.before(sent.end())) {
            return;
        }
        let first = at.0.wrapping_sub(sent.seq.0);
        let second = Sent { seq: at, len: sent.len - first, ..*sent };
        sent.len = first;
        self.snd.sent.insert(index + 1, second);
    }

    /// Counts a delivery, and takes what RACK learns of it (RFC 8985 section 6.2, steps 1 to 3).
    fn note_delivered(&mut self, sent: &Sent<Instant>, now: Instant, delivered: &mut Delivered) {
        delivered.octets += sent.len;
        if sent.retransmissions == 0 {
            delivered.oldest = Some(delivered.oldest.map_or(sent.at, |oldest| oldest.min(sent.at)));
            self.rack.reordering |= self.sack && self.rack.fack.is_some_and(|fack| sent.end().before(fack));
        }
        self.rack.fack = Some(self.rack.fack.map_or(sent.end(), |fack| fack.later(sent.end())));
        let rtt = sent.at.since(now);
        // An acknowledgement that came faster than any before is one of an earlier copy (RFC 8985 section 6.2, step 2).
        // The echoed timestamp does not tell: out of order it is that of the last segment in order.
        if sent.retransmissions > 0 && self.rtt.min.is_some_and(|min| rtt < min) {
            return;
        }
        let newer = self.rack.newest.is_none_or(|newest| {
            newest.at < sent.at || (newest.at == sent.at && newest.end.before(sent.end()))
        });
        if newer {
            self.rack.newest = Some(Newest { at: sent.at, end: sent.end(), rtt });
        }
    }

    /// SND.WND, from the most recent segment only (RFC 9293 section 3.10.7.4, fifth).
    pub(super) fn update_window(&mut self, segment: &Segment, ack: Seq) {
        let snd = &mut self.snd;
        let newer = snd.wl1.before(segment.seq) || (snd.wl1 == segment.seq && snd.wl2.at_or_before(ack));
        if !newer || ack.before(snd.una) {
            return;
        }
        snd.wnd = u32::from(segment.window) << snd.wscale;
        snd.max_wnd = snd.max_wnd.max(snd.wnd);
        (snd.wl1, snd.wl2) = (segment.seq, ack);
        if snd.wnd > 0 && self.timers.persist.take().is_some() {
            self.rtt.backoff = 0;
        }
    }

    /// One measurement of the round-trip time: of octets sent once (Karn's rule, RFC 6298 section 3), else from the
    /// echoed timestamp (RFC 7323 section 4.1).
    fn measure(&mut self, segment: &Segment, delivered: &Delivered, now: Instant) {
        if let Some(at) = delivered.oldest.filter(|_| !delivered.ambiguous) {
            self.rtt.sample(at.since(now));
        } else if delivered.advanced > 0 {
            self.measure_echo(segment, now);
        }
    }

    /// A measurement from the timestamp that the other side echoes, in the milliseconds of that clock.
    pub(super) fn measure_echo(&mut self, segment: &Segment, now: Instant) {
        let (Some(ours), Some(theirs)) = (&self.timestamps, segment.options.timestamps) else { return };
        let millis = ours.value_at(now).wrapping_sub(theirs.echo);
        if theirs.echo != 0 && millis < 1 << 24 {
            self.rtt.sample_coarse(Duration::from_millis(u64::from(millis.max(1))));
        }
    }

    /// Lets the congestion window grow, except in fast recovery, where proportional rate reduction sets it.
    fn grow(&mut self, delivered: &Delivered, now: Instant) {
        if delivered.advanced == 0 || matches!(self.recovery, Recovery::Fast { .. }) {
            return;
        }
        // In slow start half a window in use is enough, or a window could never grow from request to request.
        let flight = self.snd.in_flight.saturating_add(delivered.octets);
        let half_used = self.congestion.cwnd < self.congestion.ssthresh && flight >= self.congestion.cwnd / 2;
        self.congestion.on_ack(Acked {
            octets: delivered.advanced,
            mss: self.mss(),
            srtt: self.rtt.smoothed.unwrap_or_default(),
            limited: self.snd.limited || half_used,
            now,
        });
    }

    /// RFC 6298 section 5.2 and 5.3: an acknowledgement of new data restarts the timer, of all data stops it.
    fn rearm_after_ack(&mut self, delivered: &Delivered, now: Instant) {
        if self.snd.sent.is_empty() {
            self.timers.rto = None;
            self.timers.tail_probe = None;
            self.timers.reorder = None;
        } else if delivered.advanced > 0 {
            self.timers.rto = Some(now + self.rto());
        }
        if delivered.advanced > 0 || delivered.sacked {
            self.arm_tail_probe(now);
        }
    }
}

/// RFC 2883 section 4: the first block lies below the acknowledgement, or inside of the second block.
fn is_duplicate_report(first: Block, ack: Seq, second: Option<Block>) -> bool {
    let inside = |(from, to): Block| from.at_or_before(first.0) && first.1.at_or_before(to);
    first.1.at_or_before(ack) || second.is_some_and(inside)
}
