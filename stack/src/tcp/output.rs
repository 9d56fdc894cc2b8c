//! What to send next. One segment a call, so that whoever drives it can stop between any two.

use super::plpmtud::Turn;
use super::segment::{Control, Options, Segment, TIMESTAMPS_LEN, Timestamps};
use super::state::State;
use super::tcb::{Mark, Recovery, Sent, Tcb};
use crate::{Instant, Seq};

/// Octets of an IPv6 header and a TCP header without options.
pub(super) const HEADERS_LEN: u16 = 60;
/// The largest payload of a super-segment: with its headers it fits the 16 bits of a payload length.
const MAX_SUPER: usize = 65_000;

/// What the way out does to a segment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// Octets that are added to each packet below TCP (extension headers, a tunnel).
    pub overhead: u16,
    /// Whether super-segments are cut below.
    pub segmentation: bool,
}

impl<At> Tcb<At> {
    /// The full-sized segment (RFC 9293 section 3.7.1, Eff.snd.MSS): octets of payload that fit when nothing is added
    /// below (SMSS).
    pub fn mss(&self) -> u32 {
        self.payload_limit(0)
    }

    /// Octets of payload in a segment with timestamps, with `overhead` octets added below.
    pub(super) fn payload_limit(&self, overhead: u16) -> u32 {
        self.payload_at(self.snd.path_mtu, overhead)
    }

    /// The same in a packet of `size` octets.
    pub(super) fn payload_at(&self, size: u16, overhead: u16) -> u32 {
        let by_path = size.saturating_sub(HEADERS_LEN).saturating_sub(overhead);
        let options = if self.timestamps.is_some() { TIMESTAMPS_LEN } else { 0 };
        u32::from(self.snd.mss.min(by_path).saturating_sub(options).max(1))
    }
}

impl Tcb {
    /// The next segment to send, if there is one now. Call until `None`.
    pub fn poll_transmit(&mut self, path: Path, now: Instant) -> Option<Segment> {
        if self.pending.reset {
            return Some(self.send_reset(now));
        }
        if self.state.is_closed() {
            return None;
        }
        if matches!(self.state, State::SynSent | State::SynReceived) {
            if self.is_to_be_repeated(now) {
                self.mark_syn_lost();
            }
            return match self.owes_syn() {
                Some(_) if self.is_syn_held() => None,
                Some(_) => Some(self.send_syn(now)),
                None if self.state == State::SynSent => None,
                None => self.send_ack(now),
            };
        }
        self.send_first_again(path, now)
            .or_else(|| self.send_lost(path, now))
            .or_else(|| self.send_new(path, now))
            .or_else(|| self.send_tail_probe(path, now))
            .or_else(|| self.send_probe(path, now))
            .or_else(|| self.send_ack(now))
    }

    /// The connection has just come to this host: say so, and send the oldest octets in flight, or the SYN, once more,
    /// in case they were lost on the way here; but not twice in a round trip. Sending does not wait for the timer. In
    /// TIME-WAIT the other side is gone and would answer with a RST.
    pub fn kick(&mut self) {
        if matches!(self.state, State::TimeWait { .. } | State::Closed(_)) {
            return;
        }
        self.pending.ack |= self.state.is_synchronised();
        self.pending.resend = !self.snd.sent.is_empty();
    }

    fn send_reset(&mut self, now: Instant) -> Segment {
        self.pending.reset = false;
        let mut segment = self.segment(self.snd.nxt, now);
        self.undo_hold_of(&mut segment);
        segment.control = Some(Control::Rst);
        segment
    }

    pub(super) fn send_syn(&mut self, now: Instant) -> Segment {
        let retransmissions = match self.snd.sent.pop_front() {
            Some(syn) => syn.retransmissions.saturating_add(1),
            None => 0,
        };
        self.snd.retransmitted = self.snd.retransmitted.wrapping_add(u32::from(retransmissions > 0));
        self.snd.nxt = self.snd.iss + 1_u32;
        let (seq, mark) = (self.snd.iss, Mark::InFlight);
        self.snd.sent.push_front(Sent { seq, len: 1, at: now, retransmissions, mark });
        self.snd.in_flight = 1;
        self.timers.rto = Some(now + self.rto());
        self.start_user_timeout(now);
        self.pending.ack = false;
        let answering = self.state == State::SynReceived;
        self.rcv.last_ack = self.rcv.nxt;
        // RFC 3168 section 6.1.1.1: something on the way may drop SYNs that speak of ECN.
        self.ecn = self.ecn.filter(|_| answering || retransmissions == 0);
        let mut segment = Segment::bare(self.snd.iss, answering.then_some(self.rcv.nxt), Some(Control::Syn));
        segment.window = self.syn_window();
        segment.options = self.syn_options(now);
        segment.ece = self.ecn.is_some();
        segment.cwr = segment.ece && !answering;
        segment
    }

    /// Whether a move wants something repeated. Once in a round trip: a connection that moves faster than it is
    /// answered would fill the path with copies, and a peer that takes each copy of a SYN for a loss of its answer
    /// (lwIP does) would soon give up.
    fn is_to_be_repeated(&mut self, now: Instant) -> bool {
        let patience = self.rtt.smoothed.unwrap_or_else(|| self.rto());
        let lately = self.snd.kicked.is_some_and(|at| at.since(now) < patience);
        let due = core::mem::take(&mut self.pending.resend) && !lately;
        if due {
            self.snd.kicked = Some(now);
        }
        due
    }

    /// After a move: see [`Tcb::kick`].
    fn send_first_again(&mut self, path: Path, now: Instant) -> Option<Segment> {
        if !self.is_to_be_repeated(now) {
            return None;
        }
        let limit = self.full_segment(path);
        let una = self.snd.una;
        if self.snd.probe().is_some_and(|probe| probe.end().at_or_before(una + limit)) {
            self.forget_probe(una);
        }
        self.cut_sent(0, una + limit);
        let first = self.snd.sent.front_mut()?;
        if first.mark == Mark::Lost {
            return self.resend(0, limit, path, now);
        }
        // The record keeps the time of the first copy, which is the one that will be acknowledged, most likely. If
        // it had the time of this one, all that was sent in between would look lost (RFC 8985 section 6.2).
        first.retransmissions = first.retransmissions.saturating_add(1);
        let len = first.len;
        self.snd.retransmitted = self.snd.retransmitted.wrapping_add(1);
        self.note_sent(len, now);
        Some(self.data_segment(una, len, path, now))
    }

    /// RFC 6675 section 5, `NextSeg()` rule 1: what is lost goes first, as far as the window allows.
    fn send_lost(&mut self, path: Path, now: Instant) -> Option<Segment> {
        if self.snd.lost() == 0 || self.is_probing_timeout() {
            return None;
        }
        let Some(room) = self.congestion_room(self.full_segment(path)) else {
            self.snd.limited = true;
            return None;
        };
        let index = self.snd.sent.iter().position(|sent| sent.mark == Mark::Lost)?;
        self.resend(index, room, path, now)
    }

    /// One if our FIN is in flight.
    pub(super) fn fin_sent(&self) -> u32 {
        u32::from(self.snd.fin.is_some_and(|fin| fin.before(self.snd.nxt)) && self.snd.una != self.snd.nxt)
    }

    /// Cuts the record at `index` in two at `at`, but not between octets and the FIN that rides on them.
    pub(super) fn cut_sent(&mut self, index: usize, at: Seq) {
        let only_fin = |sent: &Sent<Instant>| self.snd.fin == Some(at) && sent.end() == at + 1_u32;
        if !self.snd.sent.get(index).is_some_and(only_fin) {
            self.split_sent(index, at);
        }
    }

    /// Sends the record at `index` again, at most `room` octets of it.
    fn resend(&mut self, index: usize, room: u32, path: Path, now: Instant) -> Option<Segment> {
        let first = self.snd.sent.get(index)?.seq;
        self.forget_probe(first);
        let limit = self.super_limit(room, path);
        self.cut_sent(index, first + limit);
        let sent = self.snd.sent.get_mut(index)?;
        if sent.mark == Mark::Lost {
            self.snd.in_flight += sent.len;
        }
        if sent.mark != Mark::Sacked {
            sent.mark = Mark::InFlight;
        }
        sent.retransmissions = sent.retransmissions.saturating_add(1);
        sent.at = now;
        let (seq, len) = (sent.seq, sent.len);
        self.note_sent_again(len, now);
        Some(self.data_segment(seq, len, path, now))
    }

    /// Octets never sent before, then the FIN.
    fn send_new(&mut self, path: Path, now: Instant) -> Option<Segment> {
        let unsent = self.sendable();
        let fin_due = self.is_fin_sendable();
        if self.snd.lost() > 0 && !self.is_probing_timeout() {
            return None;
        }
        self.snd.limited &= unsent > 0;
        if unsent == 0 && !fin_due {
            return None;
        }
        let window = self.window_room();
        if window == 0 {
            self.window_shut(now);
            return None;
        }
        self.restart_after_idle(now);
        match self.probe_turn(path, window, now) {
            Turn::Probe(len, size) => return Some(self.send_size_probe(len, size, now)),
            Turn::Wait => {
                self.snd.limited = true;
                return None;
            }
            Turn::Pass => {}
        }
        let full = self.full_segment(path);
        // A FIN of its own is no data, which is all that the congestion window is about (RFC 5681 section 2).
        let Some(room) = self.congestion_room(full).or((unsent == 0).then_some(1)) else {
            self.snd.limited = true;
            return None;
        };
        let limit = self.super_limit(room.min(window), path);
        let len = limit.min(u32::try_from(unsent).unwrap_or(u32::MAX));
        let last = len as usize == unsent;
        if len < full && !(fin_due && last) && self.wait_for_more(len, last) {
            if !last {
                self.window_shut(now);
            }
            return None;
        }
        // It makes no segment too long: RFC 9293 section 3.7.1 counts data. But the window has to take it.
        let fin = fin_due && last && len < window;
        Some(self.send_fresh(len + u32::from(fin), path, now))
    }

    /// RFC 5681 section 4.1, RFC 7661 section 4.3: after a silence nothing is known of the path, so slow start begins anew.
    fn restart_after_idle(&mut self, now: Instant) {
        if self.config.slow_start_after_idle
            && self.snd.sent.is_empty()
            && self.snd.last.since(now) > self.rto()
        {
            self.restart_window();
        }
    }

    fn send_fresh(&mut self, len: u32, path: Path, now: Instant) -> Segment {
        let seq = self.record_fresh(len, now);
        if !len.is_multiple_of(self.full_segment(path)) {
            self.snd.small = Some(self.snd.nxt);
        }
        let mut segment = self.data_segment(seq, len, path, now);
        self.mark_capable(&mut segment);
        segment
    }

    /// A larger packet than usual: RFC 4821 section 7.4. It stays one.
    fn send_size_probe(&mut self, len: u32, size: u16, now: Instant) -> Segment {
        let seq = self.record_fresh(len, now);
        self.note_probe(seq, len, size);
        let mut segment = self.single_segment(seq, len, now);
        self.mark_capable(&mut segment);
        segment
    }

    fn record_fresh(&mut self, len: u32, now: Instant) -> Seq {
        let seq = self.snd.nxt;
        self.snd.sent.push_back(Sent { seq, len, at: now, retransmissions: 0, mark: Mark::InFlight });
        self.snd.nxt = seq + len;
        self.snd.in_flight += len;
        self.note_sent(len, now);
        self.arm_tail_probe(now);
        seq
    }

    /// RFC 9293 section 3.8.6.2.1 (silly window) and 3.7.4 (Nagle): whether a short segment should wait.
    fn wait_for_more(&self, len: u32, last: bool) -> bool {
        if !last {
            // The window cuts it short: wait until it opens, but not for ever (the override timeout).
            return len < self.snd.max_wnd / 2;
        }
        // RFC 9293 appendix A.3: only a small segment makes another wait, not what went before in full ones.
        !self.config.nodelay && self.snd.small.is_some()
    }

    /// RFC 8985 section 7.3: new data if there is some, else the last segment again.
    fn send_tail_probe(&mut self, path: Path, now: Instant) -> Option<Segment> {
        if !core::mem::take(&mut self.pending.tail_probe) || self.snd.sent.is_empty() {
            return None;
        }
        let mss = self.full_segment(path);
        let new = u32::try_from(self.sendable()).unwrap_or(u32::MAX).min(self.window_room()).min(mss);
        let segment = if new > 0 {
            self.send_fresh(new, path, now)
        } else {
            let last = self.snd.sent.len() - 1;
            self.split_sent(last, self.snd.nxt - (mss + self.fin_sent()));
            self.resend(self.snd.sent.len() - 1, mss, path, now)?
        };
        self.rack.probe = Some((self.snd.nxt, new == 0));
        self.timers.tail_probe = None;
        Some(segment)
    }

    /// A probe of the window or of the peer's presence: an old octet that must be answered, as Linux does
    /// (RFC 9293 section 3.8.4: SEG.SEQ = SND.NXT - 1). Octets that fit the window, though badly, do as well.
    fn send_probe(&mut self, path: Path, now: Instant) -> Option<Segment> {
        if !core::mem::take(&mut self.pending.probe) {
            return None;
        }
        let unsent = u32::try_from(self.sendable()).unwrap_or(u32::MAX);
        let fits = unsent.min(self.window_room()).min(self.full_segment(path));
        if fits > 0 && self.snd.sent.is_empty() {
            return Some(self.send_fresh(fits, path, now));
        }
        Some(self.segment(self.snd.una - 1, now))
    }

    fn send_ack(&mut self, now: Instant) -> Option<Segment> {
        self.pending.ack.then(|| self.segment(self.snd.nxt, now))
    }

    /// Octets that the other side's window still takes (RFC 9293 section 3.8.6.2.1, the usable window).
    fn window_room(&self) -> u32 {
        let used = self.snd.nxt.0.wrapping_sub(self.snd.wl2.0);
        self.snd.wnd.saturating_sub(used)
    }

    /// Whether there is a full segment that was never sent, and room for it at the other side.
    pub(super) fn can_send_new(&self) -> bool {
        let mss = self.mss();
        self.sendable() >= mss as usize && self.window_room() >= mss
    }

    /// Octets that the congestion window still takes; `None` if not even one segment. An empty network always
    /// takes one, or nothing would ever move again.
    fn congestion_room(&self, mss: u32) -> Option<u32> {
        let pipe = self.pipe();
        let room = self.congestion.cwnd.saturating_sub(pipe);
        if room >= mss { Some(room) } else { (pipe == 0).then_some(mss) }
    }

    /// Octets of one (super-)segment when `room` octets may be sent: whole segments, as far as there is room.
    fn super_limit(&self, room: u32, path: Path) -> u32 {
        let mss = self.full_segment(path);
        if !path.segmentation || room <= mss {
            return room.min(mss);
        }
        let most = u32::try_from(MAX_SUPER).unwrap_or(u32::MAX);
        (room.min(most) / mss).max(1) * mss
    }

    /// Octets of payload in a full segment now, with the SACK blocks that it would carry.
    fn full_segment(&self, path: Path) -> u32 {
        let blocks = Options { sack: self.sack_blocks(), ..Options::default() }.wire_len();
        self.payload_limit(path.overhead).saturating_sub(u32::try_from(blocks).unwrap_or(0)).max(1)
    }

    fn window_shut(&mut self, now: Instant) {
        self.snd.limited = false;
        if self.snd.sent.is_empty() {
            let rto = self.rto();
            self.timers.persist.get_or_insert(now + rto);
            self.start_user_timeout(now);
        }
    }

    /// Something that must be acknowledged was sent (RFC 6298 section 5.1).
    fn note_sent(&mut self, len: u32, now: Instant) {
        if let Recovery::Fast { out, .. } = &mut self.recovery {
            *out = out.saturating_add(len);
        }
        let rto = self.rto();
        self.timers.rto.get_or_insert(now + rto);
        self.timers.persist = None;
        // It will be answered, as a probe would.
        self.pending.probe = false;
        self.start_user_timeout(now);
        self.snd.last = now;
        self.snd.note_use();
    }

    /// Octets were sent that had been sent before.
    fn note_sent_again(&mut self, len: u32, now: Instant) {
        self.snd.retransmitted = self.snd.retransmitted.wrapping_add(1);
        self.note_for_undo(len, now);
        self.note_sent(len, now);
    }

    /// The octets `seq` to `seq + len`, as a super-segment if there are so many.
    fn data_segment(&mut self, seq: Seq, len: u32, path: Path, now: Instant) -> Segment {
        let full = self.full_segment(path);
        let mut segment = self.single_segment(seq, len, now);
        let oversized = segment.payload.len() > full as usize;
        segment.gso = oversized.then(|| u16::try_from(full).unwrap_or(u16::MAX));
        // Nothing follows a burst at once: whoever collects segments over there need not wait for more.
        segment.push |= oversized;
        segment
    }

    /// A segment with the octets `seq` to `seq + len`; the FIN is the last of them if it lies there.
    fn single_segment(&mut self, seq: Seq, len: u32, now: Instant) -> Segment {
        let fin = self.snd.fin.is_some_and(|fin| fin == seq + len - 1);
        let offset = seq.distance_from(self.snd.first_octet());
        let mut segment = self.segment(seq, now);
        segment.payload = self.snd.queue.slice(offset, (len - u32::from(fin)) as usize);
        segment.control = fin.then_some(Control::Fin);
        self.snd.crossed |= fin && self.is_ack_held();
        segment.push = self.snd.push.is_some_and(|push| seq.before(push) && push.at_or_before(seq + len));
        segment
    }

    /// A segment with everything that every segment carries. Counts as an acknowledgement.
    fn segment(&mut self, seq: Seq, now: Instant) -> Segment {
        let ack = self.ack_number();
        let mut segment = Segment::bare(seq, Some(ack), None);
        segment.window = self.advertise(ack);
        segment.options.timestamps = self.timestamp_option(now);
        segment.options.sack = self.sack_blocks();
        segment.ece = self.ecn.is_some_and(|ecn| ecn.echo);
        self.rcv.last_ack = ack;
        self.rcv.duplicate = None;
        self.pending.ack = false;
        if ack == self.rcv.nxt {
            self.rcv.unacked = 0;
            self.timers.delayed_ack = None;
        }
        segment
    }

    pub(super) fn timestamp_option(&self, now: Instant) -> Option<Timestamps> {
        self.timestamps.as_ref().map(|ours| Timestamps { value: ours.value_at(now), echo: ours.recent })
    }

    /// The blocks to report: a duplicate first (RFC 2883 section 4), then the islands (RFC 2018 section 4).
    fn sack_blocks(&self) -> [Option<super::segment::Block>; super::segment::MAX_SACK_BLOCKS] {
        // While acknowledgements are held back, blocks would make what is held look like a hole.
        let tell = self.sack && !self.is_ack_held();
        match (tell, self.rcv.duplicate) {
            (false, _) => [None; 3],
            (true, None) => self.rcv.reassembly.blocks(),
            (true, duplicate) => {
                let [first, second] = self.rcv.reassembly.blocks();
                [duplicate, first, second]
            }
        }
    }
}
