//! Collecting segments that follow each other into one super-segment, where no device below does it: what [`gso`] does,
//! the other way round. What is collected costs the layers above as much as one segment.
//!
//! [`gso`]: crate::gso

use smoltcp::wire::ETHERNET_HEADER_LEN;

use crate::checksum::{self, pseudo_header};
use crate::frame::{Checksum, Gso, Offload};
use crate::ip::{self, HEADER_LEN};
use crate::seq::Seq;

/// Where the TCP header begins in a frame whose IPv6 header has no extensions.
const TCP_AT: usize = ETHERNET_HEADER_LEN + HEADER_LEN;
/// Where IPv6's payload length lies in the frame.
const LENGTH: core::ops::Range<usize> = ETHERNET_HEADER_LEN + 4..ETHERNET_HEADER_LEN + 6;
/// Where TCP's fields lie in the frame (RFC 9293 section 3.1).
const SEQ: core::ops::Range<usize> = TCP_AT + 4..TCP_AT + 8;
const DATA_OFFSET: usize = TCP_AT + 12;
const FLAGS: usize = TCP_AT + 13;
const CHECKSUM: core::ops::Range<usize> = TCP_AT + 16..TCP_AT + 18;

const PSH: u8 = 0x08;
const ACK: u8 = 0x10;

/// Segments of one direction of a connection, each of which follows the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Train {
    /// Octets of the headers of each: Ethernet, IPv6, TCP.
    headers: usize,
    /// Octets of payload of each but the last.
    size: u16,
    /// Octets of payload in all.
    octets: usize,
    next: Seq,
    /// Whether the last is shorter than the others: nothing may follow it.
    short: bool,
    /// Whether the last is to be pushed: nothing may follow it either.
    push: bool,
}

impl Train {
    /// The train of which `frame`, an Ethernet frame with a complete checksum, is the first segment. `None` if it is
    /// anything but a whole TCP segment with octets, an acknowledgement, and no other flag than PSH.
    pub fn first(frame: &[u8]) -> Option<Self> {
        let is_tcp = frame.get(12..14)? == [0x86, 0xdd]
            && frame.get(ETHERNET_HEADER_LEN)? >> 4 == 6
            && *frame.get(ETHERNET_HEADER_LEN + 6)? == ip::TCP;
        let headers = TCP_AT + usize::from(*frame.get(DATA_OFFSET)? >> 4) * 4;
        let flags = *frame.get(FLAGS)?;
        let octets = frame.len().checked_sub(headers).filter(|octets| *octets > 0)?;
        if !is_tcp || headers < TCP_AT + 20 || flags & !PSH != ACK || !is_whole(frame) {
            return None;
        }
        let size = u16::try_from(octets).ok()?;
        let (next, push) = (seq(frame)? + octets, flags & PSH != 0);
        Some(Self { headers, size, octets, next, short: false, push })
    }

    /// Octets of the headers that each of its segments begins with.
    pub fn headers(&self) -> usize {
        self.headers
    }

    /// Whether another segment may follow.
    pub fn is_open(&self) -> bool {
        !self.short && !self.push
    }

    /// Adds the segment in `frame` if it follows. `headers` are those of the first, from which it may differ in
    /// what follows from its place only.
    pub fn take(&mut self, headers: &[u8], frame: &[u8]) -> bool {
        let Some(octets) = frame.len().checked_sub(self.headers) else { return false };
        let follows = self.is_open()
            && (1..=usize::from(self.size)).contains(&octets)
            && u16::try_from(HEADER_LEN + self.headers + self.octets + octets).is_ok()
            && seq(frame) == Some(self.next)
            && alike(headers, &frame[..self.headers])
            && is_whole(frame);
        if follows {
            self.octets += octets;
            self.next += octets;
            self.short = octets < usize::from(self.size);
            self.push = frame[FLAGS] & PSH != 0;
        }
        follows
    }

    /// Makes the headers of the first those of the whole, and tells what the whole is.
    pub fn finish(self, headers: &mut [u8]) -> Offload {
        let length = u16::try_from(self.headers - TCP_AT + self.octets).unwrap_or(u16::MAX);
        if let Some(field) = headers.get_mut(LENGTH) {
            field.copy_from_slice(&length.to_be_bytes());
        }
        if let Some(flags) = headers.get_mut(FLAGS) {
            *flags |= if self.push { PSH } else { 0 };
        }
        let gso = (self.octets > usize::from(self.size)).then_some(Gso { size: self.size });
        Offload { checksum: Checksum::Verified, gso }
    }
}

fn seq(frame: &[u8]) -> Option<Seq> {
    let octets = frame.get(SEQ)?.first_chunk()?;
    Some(Seq(u32::from_be_bytes(*octets)))
}

/// Whether two segments' headers differ in length, sequence number, checksum and PSH only.
fn alike(one: &[u8], other: &[u8]) -> bool {
    let same = |range: core::ops::Range<usize>| one.get(range.clone()) == other.get(range);
    one.len() == other.len()
        && same(0..LENGTH.start)
        && same(LENGTH.end..SEQ.start)
        && same(SEQ.end..FLAGS)
        && (one[FLAGS] ^ other[FLAGS]) & !PSH == 0
        && same(FLAGS + 1..CHECKSUM.start)
        && same(CHECKSUM.end..one.len())
}

/// Whether the frame ends where its packet does, and its checksum is right.
fn is_whole(frame: &[u8]) -> bool {
    let Some(length) = frame.get(LENGTH).and_then(|octets| octets.first_chunk()) else { return false };
    let upper = &frame[TCP_AT.min(frame.len())..];
    let addresses =
        (ip::address(frame, ETHERNET_HEADER_LEN + 8), ip::address(frame, ETHERNET_HEADER_LEN + 24));
    let (Some(source), Some(destination)) = addresses else { return false };
    let len = u16::from_be_bytes(*length);
    usize::from(len) == upper.len()
        && pseudo_header(source, destination, len.into(), checksum::TCP.protocol).add(upper).folded()
            == 0xffff
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::gso;
    use crate::ip::{Header, Packet};

    type Change = fn(&mut Vec<u8>);

    const FIN: u8 = 0x01;
    const URG: u8 = 0x20;
    const CWR: u8 = 0x80;

    /// The frames of `payload` in segments of `size`, as a device without offloads would deliver them.
    fn frames(payload: &[u8], size: u16, flags: u8, seq: u32) -> Vec<Vec<u8>> {
        let source = "2001:db8::1".parse().unwrap();
        let destination = "2001:db8::2".parse().unwrap();
        let header = Header { source, destination, next_header: ip::TCP, ..Header::default() };
        let mut head = header.emit(32 + payload.len());
        head.extend_from_slice(&[0x1f, 0x90, 0, 80]);
        head.extend_from_slice(&seq.to_be_bytes());
        head.extend_from_slice(&[0, 0, 0, 7, 8 << 4, flags, 0x12, 0x34, 0, 0, 0, 0]);
        head.extend_from_slice(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
        let mut whole = Packet { head, body: Bytes::copy_from_slice(payload), offload: Offload::default() };
        checksum::transport(&mut whole, 40, checksum::TCP, false);
        let framed = |packet: Packet| [&[2; 12][..], &[0x86, 0xdd], &packet.to_bytes()].concat();
        gso::segments(&whole, size).map(framed).collect()
    }

    /// What becomes of frames that come one after the other: trains, each as one frame.
    fn collect(frames: &[Vec<u8>]) -> Vec<(Vec<u8>, Offload)> {
        let mut done = Vec::new();
        let mut under_way: Option<(Train, Vec<u8>)> = None;
        for frame in frames {
            if let Some((train, whole)) = &mut under_way
                && train.take(&whole[..train.headers()], frame)
            {
                whole.extend_from_slice(&frame[train.headers()..]);
                continue;
            }
            done.extend(under_way.take());
            under_way = Some((Train::first(frame).unwrap(), frame.clone()));
        }
        done.extend(under_way);
        let finish = |(train, mut whole): (Train, Vec<u8>)| {
            let offload = train.finish(&mut whole);
            (whole, offload)
        };
        done.into_iter().map(finish).collect()
    }

    proptest! {
        #[test]
        fn what_was_cut_comes_together_again(
            payload in proptest::collection::vec(any::<u8>(), 2..9000),
            size in 1000..1500_u16,
            seq: u32,
            push: bool,
        ) {
            let flags = if push { ACK | PSH } else { ACK };
            let cut = frames(&payload, size, flags, seq);
            let whole = collect(&cut);
            prop_assert_eq!(whole.len(), 1);
            let (frame, offload) = &whole[0];
            prop_assert_eq!(&frame[86..], &payload[..]);
            prop_assert_eq!(usize::from(u16::from_be_bytes([frame[18], frame[19]])), 32 + payload.len());
            prop_assert_eq!((frame[FLAGS], self::seq(frame)), (flags, Some(Seq(seq))));
            prop_assert_eq!(offload.checksum, Checksum::Verified);
            prop_assert_eq!(offload.gso, (cut.len() > 1).then_some(Gso { size }));
        }

        #[test]
        fn no_octets_make_it_panic(mut frame: Vec<u8>, at in 0..200_usize, value: u8) {
            let _ = Train::first(&frame);
            let mut sound = frames(&[7; 3000], 1000, ACK, 5);
            let mut train = Train::first(&sound[0]).unwrap();
            prop_assert!(!train.take(&sound[0][..86], &frame));
            frame.clone_from(&sound[1]);
            frame[at] = value;
            prop_assert_eq!(train.take(&sound[0][..86], &frame), frame == sound.remove(1));
        }
    }

    #[test]
    fn what_does_not_follow_is_not_taken() {
        let sound = frames(&[7; 3000], 1000, ACK, 5);
        let second = |change: fn(&mut Vec<u8>)| {
            let mut frame = sound[1].clone();
            change(&mut frame);
            // The checksum is right all the same.
            frame[CHECKSUM].fill(0);
            let sum = checksum::Sum::new()
                .add(&frame[22..54])
                .add(&[0, 0, frame[18], frame[19], 0, 0, 0, ip::TCP])
                .add(&frame[54..])
                .finish();
            frame[CHECKSUM].copy_from_slice(&sum.to_be_bytes());
            Train::first(&sound[0]).unwrap().take(&sound[0][..86], &frame)
        };
        assert!(second(|_| {}));
        let changes: [(&str, Change); 10] = [
            ("another station", |frame| frame[5] ^= 1),
            ("a mark of congestion", |frame| frame[15] |= 0x30),
            ("another hop limit", |frame| frame[21] -= 1),
            ("another client", |frame| frame[37] ^= 1),
            ("another port", |frame| frame[TCP_AT + 1] ^= 1),
            ("another place", |frame| frame[TCP_AT + 7] ^= 1),
            ("another acknowledgement", |frame| frame[TCP_AT + 11] ^= 1),
            ("another window", |frame| frame[TCP_AT + 15] ^= 1),
            ("another timestamp", |frame| frame[TCP_AT + 27] ^= 1),
            ("a FIN", |frame| frame[FLAGS] |= FIN),
        ];
        for (name, change) in changes {
            assert!(!second(change), "{name}");
        }
    }

    #[test]
    fn only_plain_segments_begin_a_train() {
        for flags in [0, ACK | FIN, ACK | URG, ACK | CWR, ACK | 0x40, ACK | 0x02, ACK | 0x04] {
            assert_eq!(Train::first(&frames(&[7; 100], 1000, flags, 5)[0]), None, "{flags:#x}");
        }
        let mut corrupt = frames(&[7; 100], 1000, ACK, 5).remove(0);
        corrupt[100] ^= 1;
        assert_eq!(Train::first(&corrupt), None);
        assert_eq!(Train::first(&frames(&[], 1000, ACK, 5)[0]), None);
    }

    #[test]
    fn nothing_follows_a_short_or_a_pushed_segment() {
        let [first, second] = [frames(&[7; 1500], 1000, ACK, 5), frames(&[7; 1000], 1000, ACK, 1505)];
        assert_eq!(collect(&[first, second].concat()).len(), 2);
        let [first, second] = [frames(&[7; 2000], 1000, ACK | PSH, 5), frames(&[7; 1000], 1000, ACK, 2005)];
        assert_eq!(collect(&[first, second].concat()).len(), 2);
    }
}
