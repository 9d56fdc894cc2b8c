//! Where bursts end. Linux makes segments in bursts, which a device or its own last layer cuts, and sets PSH on the
//! last segment of each (since 5.4). How long a burst is follows from the pace of the connection.

use std::collections::VecDeque;
use std::time::Duration;

use ferry_stack::ip::Packet;
use ferry_stack::tcp::Tcb;
use ferry_stack::tcp::cc::MAX_WINDOW;
use ferry_stack::{Seq, checksum};

/// Octets of a burst at most (`sk_gso_max_size`).
pub(crate) const LONGEST: usize = 65_536 - 320;
/// The pace in slow start and after, in percent of a window in each round trip (`tcp_pacing_ss_ratio`, `_ca_ratio`).
const PACES: (u64, u64) = (200, 120);
/// A burst is what goes out at that pace in 2⁻¹⁰ seconds (`sk_pacing_shift`).
const PACING_SHIFT: u32 = 10;
/// Short paths have longer bursts: half as long for each 2⁹ µs of the least round-trip time (`tcp_tso_rtt_log`).
const RTT_LOG: u32 = 9;
/// Bursts of a connection that are remembered, so that they are the same when they are sent again.
const REMEMBERED: usize = 4096;
/// Where the TCP header begins; extension headers are never sent.
const TCP_AT: usize = 40;
/// The octet of the TCP header that has the flags, and PSH in it.
const FLAGS_AT: usize = TCP_AT + 13;
const PSH: u8 = 8;
const RST: u8 = 4;

/// The bursts of one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bursts {
    /// First and end of those that were sent, in order.
    sent: VecDeque<(Seq, Seq)>,
}

/// A burst that is being put together.
struct Burst {
    end: Seq,
    /// Octets of each of its segments but the last.
    size: usize,
    count: u32,
    most: u32,
    /// The burst that it repeats, wholly or in part.
    original: Option<(Seq, Seq)>,
    /// Its last segment, among the packets.
    last: usize,
}

impl Bursts {
    /// Sets PSH where a burst of two segments or more ends. `packets` left at the same moment, in this order.
    pub(crate) fn mark(&mut self, packets: &mut [Packet], tcb: Option<&Tcb>, least: u32) {
        let most = tcb.map_or(least, |tcb| longest(tcb, least));
        let mut open: Option<Burst> = None;
        for at in 0..packets.len() {
            let Some((seq, len)) = sequence(&packets[at]).filter(|(_, len)| *len > 0) else { continue };
            let original = self.find(seq);
            match &mut open {
                Some(burst)
                    if burst.end == seq
                        && burst.count < burst.most
                        && burst.original == original
                        && len <= burst.size =>
                {
                    let whole = len == burst.size;
                    (burst.end, burst.last) = (seq + len, at);
                    burst.count += 1;
                    if !whole {
                        self.close(open.take().as_ref(), packets);
                    }
                }
                _ => {
                    self.close(open.take().as_ref(), packets);
                    let most = if original.is_some() { u32::MAX } else { most };
                    open = Some(Burst { end: seq + len, size: len, count: 1, most, original, last: at });
                }
            }
        }
        self.close(open.as_ref(), packets);
    }

    /// The burst in which `seq` was sent for the first time.
    fn find(&self, seq: Seq) -> Option<(Seq, Seq)> {
        let at = self.sent.partition_point(|(_, end)| end.at_or_before(seq));
        self.sent.get(at).copied().filter(|(first, _)| first.at_or_before(seq))
    }

    fn close(&mut self, burst: Option<&Burst>, packets: &mut [Packet]) {
        let Some(&Burst { end, size, count, original, last, .. }) = burst else { return };
        if original.is_none() {
            let len = sequence(&packets[last]).map_or(0, |(_, len)| len) + size * (count as usize - 1);
            let first = Seq(end.0.wrapping_sub(u32::try_from(len).unwrap_or(0)));
            self.sent.push_back((first, end));
            if self.sent.len() > REMEMBERED {
                self.sent.pop_front();
            }
        }
        if count > 1
            && let Some(flags) = packets[last].head.get_mut(FLAGS_AT)
        {
            *flags |= PSH;
            checksum::transport(&mut packets[last], TCP_AT, checksum::TCP, false);
        }
    }
}

/// Makes a RST that acknowledges one that does not, with what its cause acknowledged for a sequence number
/// (RFC 9293 section 3.10.7.1). Other segments stay as they are.
pub(crate) fn bare_reset(packet: &mut Packet, ack: Seq) {
    let Some(header) = packet.head.get_mut(TCP_AT..TCP_AT + 20) else { return };
    if header[13] & RST == 0 {
        return;
    }
    header[4..8].copy_from_slice(&ack.0.to_be_bytes());
    header[8..12].fill(0);
    header[12..14].copy_from_slice(&[5 << 4, RST]);
    header[14..16].fill(0);
    packet.head.truncate(TCP_AT + 20);
    packet.head[4..6].copy_from_slice(&20_u16.to_be_bytes());
    checksum::transport(packet, TCP_AT, checksum::TCP, false);
}

/// The first sequence number of a segment, and the octets in it.
fn sequence(packet: &Packet) -> Option<(Seq, usize)> {
    let seq = packet.head.get(TCP_AT + 4..)?.first_chunk()?;
    let header = usize::from(packet.head.get(TCP_AT + 12)? >> 4) * 4;
    Some((Seq(u32::from_be_bytes(*seq)), packet.len().saturating_sub(TCP_AT + header)))
}

/// How many segments Linux makes a burst of (`tcp_tso_autosize`, `tcp_cwnd_test`): at least `least`, at most half a
/// window.
fn longest(tcb: &Tcb, least: u32) -> u32 {
    let (mss, window) = (u64::from(tcb.mss()), tcb.congestion.cwnd);
    let slow_start = window < tcb.congestion.ssthresh / 2 || tcb.congestion.ssthresh == MAX_WINDOW;
    let pace = if slow_start { PACES.0 } else { PACES.1 };
    let micros =
        |span: Option<Duration>| span.map(|span| u64::try_from(span.as_micros()).unwrap_or(u64::MAX));
    let round = micros(tcb.rtt.smoothed).unwrap_or(0).max(1);
    let used = u64::from(window.max(tcb.snd.outstanding()));
    let by_pace = (used * pace * 10_000 / round) >> PACING_SHIFT;
    let halvings = u32::try_from(micros(tcb.rtt.min).unwrap_or(u64::MAX) >> RTT_LOG).unwrap_or(u32::MAX);
    let longest = LONGEST as u64;
    let octets = by_pace.saturating_add(longest.checked_shr(halvings).unwrap_or(0)).min(longest);
    let half = (window / tcb.mss() / 2).max(1);
    u32::try_from(octets / mss).unwrap_or(u32::MAX).max(least).min(half)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ferry_stack::frame::Offload;

    use super::*;

    fn segment(seq: u32, len: usize) -> Packet {
        let mut head = vec![0; 60];
        head[44..48].copy_from_slice(&seq.to_be_bytes());
        head[52] = 5 << 4;
        Packet { head, body: Bytes::from(vec![0; len]), offload: Offload::default() }
    }

    /// Which of the segments have PSH; `least` is the length of a burst.
    fn pushed(bursts: &mut Bursts, least: u32, segments: &[(u32, usize)]) -> Vec<u32> {
        let mut packets: Vec<_> = segments.iter().map(|(seq, len)| segment(*seq, *len)).collect();
        bursts.mark(&mut packets, None, least);
        let pushed = packets.iter().zip(segments).filter(|(packet, _)| packet.head[FLAGS_AT] & PSH != 0);
        pushed.map(|(_, (seq, _))| *seq).collect()
    }

    #[test]
    fn the_last_segment_of_a_burst_is_pushed_but_not_a_single_one() {
        let mut bursts = Bursts::default();
        assert_eq!(pushed(&mut bursts, 2, &[(1, 10), (11, 10), (21, 10)]), [11]);
        assert_eq!(pushed(&mut bursts, 3, &[(31, 10), (41, 10), (51, 4), (55, 10), (65, 10)]), [51, 65]);
    }

    #[test]
    fn what_is_sent_again_is_pushed_where_its_burst_ended() {
        let mut bursts = Bursts::default();
        pushed(&mut bursts, 2, &[(1, 10), (11, 10), (21, 10), (31, 10)]);
        assert_eq!(pushed(&mut bursts, 2, &[(11, 10), (21, 10)]), [], "of two bursts");
        assert_eq!(pushed(&mut bursts, 2, &[(11, 10), (21, 10), (31, 10)]), [31]);
    }

    #[test]
    fn sequence_numbers_may_wrap() {
        let mut bursts = Bursts::default();
        assert_eq!(pushed(&mut bursts, 2, &[(u32::MAX - 9, 10), (0, 10), (10, 10)]), [0]);
        assert_eq!(pushed(&mut bursts, 2, &[(u32::MAX - 9, 10), (0, 10), (10, 10)]), [0]);
    }
}
