//! An acknowledgement arrives: what it says is delivered, how long that took, and what follows for the windows.

use core::time::Duration;

use super::cc::Acked;
use super::segment::{Block, Segment};
use super::tcb::{Mark, Newest, Recovery, Sent, Tcb};
use crate::{Instant, Seq};

/// Records of what is in flight that there may be besides two for each full segment.
const SPARE_RECORDS: usize = 256;

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
    /// The duplicate that the other side reported (RFC 2883).
    pub(super) duplicate: Option<Block>,
    /// Whether it is a duplicate acknowledgement (RFC 5681 section 2).
    pub(super) repeated: bool,
    /// When the oldest newly delivered octets that were sent only once had been sent.
    pub(super) oldest: Option<Instant>,
    /// Whether octets that were sent more than once are among the newly acknowledged: then others may have waited
    /// for them at the other side, and how long they took says nothing.
    pub(super) ambiguous: bool,
    /// Whether octets are among the newly delivered ones that were sent before a timeout, and never again.
    pub(super) original: bool,
}

impl Tcb {
    /// Fifth: the ACK field, once it is known to be acceptable (RFC 9293 section 3.10.7.4).
    pub(super) fn process_ack(&mut self, segment: &Segment, ack: Seq, now: Instant) {
        let mut delivered = Delivered { repeated: self.is_repeated(segment, ack), ..Delivered::default() };
        if ack.after(self.snd.una) {
            self.advance_una(ack, now, &mut delivered);
            self.probe_arrived();
        }
        if self.sack {
            self.take_sack(segment, ack, now, &mut delivered);
        }
        self.update_window(segment, ack);
        self.measure(segment, &delivered, now);
        // The window that recovery sets is not touched by the acknowledgement that ends it either.
        let paced = matches!(self.recovery, Recovery::Fast { .. });
        let counted = self.counted_before();
        let undone = self.undo_if_spurious(segment, &delivered);
        self.repair(&delivered, now);
        let told = self.heed_echo(segment, &delivered);
        if !paced && !undone && !told {
            self.grow(&delivered, counted, now);
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
        self.snd.move_una(ack);
        self.snd.acked_total = self.snd.acked_total.wrapping_add(octets as u64);
        self.snd.timeouts = 0;
        self.snd.small = self.snd.small.filter(|small| ack.before(*small));
        // RFC 6582 section 3.2: once something above `recover` is acknowledged, duplicates count again.
        self.snd.recover = self.snd.recover.filter(|recover| ack.at_or_before(*recover));
        self.rack.fack = Some(self.rack.fack.map_or(ack, |fack| fack.later(ack)));
    }

    /// RFC 2018 section 5, RFC 6675 section 4 `Update()`. Blocks that cannot be true are ignored.
    fn take_sack(&mut self, segment: &Segment, ack: Seq, now: Instant, delivered: &mut Delivered) {
        let mut blocks = segment.options.sack;
        if let [Some(first), second, _] = blocks
            && is_duplicate_report(first, ack, second)
        {
            delivered.duplicate = Some(first).filter(|_| !self.moved_lately(now));
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
        let first = index.saturating_sub(1);
        while let Some(sent) = self.snd.sent.get(index).copied() {
            if to.at_or_before(sent.seq) {
                break;
            }
            let whole = from.at_or_before(sent.seq) && sent.end().at_or_before(to);
            if sent.mark != Mark::Sacked && (whole || self.may_split(&sent)) {
                if sent.seq.before(from) {
                    self.split_sent(index, from);
                    index += 1;
                }
                self.split_sent(index, to);
                self.mark_one_sacked(index, now, delivered);
            }
            index += 1;
        }
        self.merge_sacked(first, index);
    }

    fn mark_one_sacked(&mut self, index: usize, now: Instant, delivered: &mut Delivered) {
        let Some(sent) = self.snd.sent.get_mut(index) else { return };
        let before = *sent;
        sent.mark = Mark::Sacked;
        self.snd.sacked += before.len;
        if before.mark == Mark::InFlight {
            self.snd.in_flight -= before.len;
        }
        delivered.sacked = true;
        self.note_delivered(&before, now, delivered);
    }

    /// Whether a selective acknowledgement may cut a record: one of several segments, while there are few records. A
    /// part of a segment is no delivery to draw conclusions from, and who acknowledges every other octet must not make us keep,
    /// and search, a record for each. An honest peer acknowledges segments.
    fn may_split(&self, sent: &Sent<Instant>) -> bool {
        let segments = self.snd.outstanding() / self.mss();
        sent.len > self.mss() && self.snd.sent.len() < SPARE_RECORDS + 2 * segments as usize
    }

    /// Makes one record of those from `first` to `last` that are selectively acknowledged and lie side by side: in a
    /// recovery there are only as many as there are holes.
    fn merge_sacked(&mut self, first: usize, last: usize) {
        let sacked = |sent: Option<&Sent<Instant>>| sent.is_some_and(|sent| sent.mark == Mark::Sacked);
        let mut index = first;
        let mut last = last.min(self.snd.sent.len().saturating_sub(1));
        while index < last {
            let run = (index..=last).take_while(|at| sacked(self.snd.sent.get(*at))).count();
            if run > 1 {
                let len = self.snd.sent.drain(index + 1..index + run).map(|sent| sent.len).sum::<u32>();
                self.snd.sent[index].len += len;
                last -= run - 1;
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
            let before_timeout = |point: Seq| self.snd.una.before(point) && sent.end().at_or_before(point);
            delivered.original |=
                matches!(self.recovery, Recovery::Loss { point, .. } if before_timeout(point));
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
        // `RACK.rtt` is that of the last one looked at, whichever of them was sent last: it only grows where an older
        // one is delivered late.
        self.rack.newest = match self.rack.newest {
            Some(newest) if !newer => Some(Newest { rtt, ..newest }),
            _ => Some(Newest { at: sent.at, end: sent.end(), rtt }),
        };
    }

    /// SND.WND, from the most recent segment only (RFC 9293 section 3.10.7.4, fifth).
    pub(super) fn update_window(&mut self, segment: &Segment, ack: Seq) {
        let snd = &mut self.snd;
        // What was sent beyond a window that is shut comes again, and is then no older than this.
        let seq = segment.seq.earlier(self.rcv.adv);
        let newer = snd.wl1.before(seq) || (snd.wl1 == seq && snd.wl2.at_or_before(ack));
        if !newer || ack.before(snd.una) {
            return;
        }
        snd.wnd = u32::from(segment.window) << snd.wscale;
        snd.max_wnd = snd.max_wnd.max(snd.wnd);
        (snd.wl1, snd.wl2) = (seq, ack);
        if snd.wnd > 0 && self.timers.persist.take().is_some() {
            self.rtt.backoff = 0;
        }
    }

    /// One measurement of the round-trip time: of octets sent once (Karn's rule, RFC 6298 section 3), else from the
    /// echoed timestamp (RFC 7323 section 4.1).
    fn measure(&mut self, segment: &Segment, delivered: &Delivered, now: Instant) {
        if let Some(at) = delivered.oldest.filter(|_| !delivered.ambiguous) {
            self.meet_path(at, now);
            self.rtt.sample(at.since(now));
            self.age_least_rtt(at.since(now), now);
        } else if delivered.advanced > 0 {
            self.measure_echo(segment, now);
        }
    }

    /// A measurement from the timestamp that the other side echoes, in the milliseconds of that clock.
    pub(super) fn measure_echo(&mut self, segment: &Segment, now: Instant) {
        let (Some(ours), Some(theirs)) = (&self.timestamps, segment.options.timestamps) else { return };
        let millis = ours.value_at(now).wrapping_sub(theirs.echo);
        if theirs.echo != 0 && millis < 1 << 24 && !self.is_old_echo(theirs.echo) {
            self.rtt.sample_coarse(Duration::from_millis(u64::from(millis.max(1))));
        }
    }

    /// Octets whose delivery duplicate acknowledgements have told already, where there are no selective ones.
    fn counted_before(&self) -> u32 {
        match self.recovery {
            Recovery::Open { duplicates } if !self.sack => u32::from(duplicates) * self.mss(),
            _ => 0,
        }
    }

    /// Lets the congestion window grow, except in fast recovery, where proportional rate reduction sets it. What was
    /// known to be delivered before is not new (RFC 5681 section 3.1, equation 2).
    fn grow(&mut self, delivered: &Delivered, counted: u32, now: Instant) {
        if delivered.advanced == 0 || matches!(self.recovery, Recovery::Fast { .. }) {
            return;
        }
        // In slow start more than half a window in use is enough, or a window could never grow from request to
        // request.
        let half_used =
            self.congestion.cwnd < self.congestion.ssthresh && self.snd.most_used > self.congestion.cwnd / 2;
        self.congestion.on_ack(Acked {
            octets: delivered.octets.min(delivered.advanced).saturating_sub(counted),
            mss: self.mss(),
            srtt: self.rtt.smoothed.unwrap_or_default(),
            rtt: delivered.oldest.filter(|_| !delivered.ambiguous).map(|at| at.since(now)),
            span: (self.snd.una, self.snd.nxt),
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
