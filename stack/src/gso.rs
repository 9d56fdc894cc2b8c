//! Cutting a TCP super-segment into the segments that it stands for, where no device below does it.

use alloc::vec;
use core::ops::Range;

use bytes::{Bytes, BytesMut};
use smoltcp::wire::{ETHERNET_HEADER_LEN, Ipv6Packet, TcpPacket, TcpSeqNumber};

use crate::checksum::{self, Sum};
use crate::frame::{Checksum, Frame, Offload};
use crate::ip::{self, HEADER_LEN, Packet};
use crate::seq::Seq;

/// The segments of `packet` with at most `size` octets of payload each, every one with a complete checksum.
///
/// FIN and PSH are kept on the last only, CWR on the first only; the payload is shared, not copied. A packet that
/// is no longer than one segment, or no TCP at all, comes back as it is, only without the mark of a super-segment.
pub fn segments(packet: &Packet, size: u16) -> impl Iterator<Item = Packet> + use<> {
    let plan = Plan::of(packet, usize::from(size));
    let whole =
        plan.is_none().then(|| Packet { offload: Offload { gso: None, ..packet.offload }, ..packet.clone() });
    whole
        .into_iter()
        .chain(plan.into_iter().flat_map(|plan| (0..plan.count()).map(move |nth| plan.segment(nth))))
}

/// The same for an Ethernet frame of IPv6, each segment as octets that lie side by side, behind `room` octets of zero
/// for whoever puts something in front; without a mark of a super-segment it gets its complete checksum.
///
/// Small frames are cheaper whole: copying a payload that is summed anyway costs less than a second piece of memory
/// for each of them. Ends at the first error of `send`.
pub fn frames<E>(frame: &Frame, room: usize, mut send: impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
    let (ethernet, head) = frame.head.split_at(ETHERNET_HEADER_LEN.min(frame.head.len()));
    let offload = u16::try_from(ethernet.len()).ok().and_then(|len| frame.offload.unshifted(len));
    let mut packet =
        Packet { head: head.to_vec(), body: frame.body.clone(), offload: offload.unwrap_or_default() };
    let size = packet.offload.gso.map_or(usize::from(u16::MAX), |gso| usize::from(gso.size));
    let mut whole = vec![0; room];
    whole.extend_from_slice(ethernet);
    let front = whole.len();
    let Some(plan) = Plan::of(&packet, size) else {
        checksum::complete(&mut packet);
        whole.extend_from_slice(&packet.head);
        whole.extend_from_slice(&packet.body);
        return send(&whole);
    };
    whole.reserve_exact(plan.head.len() + size);
    (0..plan.count()).try_for_each(|nth| {
        whole.truncate(front);
        whole.extend_from_slice(&plan.head);
        whole.extend_from_slice(&plan.payload[plan.range(nth)]);
        plan.finish(nth, &mut whole[front..], &[]);
        send(&whole)
    })
}

/// How a super-segment is to be cut.
#[derive(Clone, Debug)]
struct Plan {
    /// Headers only, ending with the TCP header.
    head: Bytes,
    payload: Bytes,
    tcp_at: usize,
    size: usize,
    /// The sum of the super-segment's pseudo-header, if its checksum field holds that: over home addresses, perhaps,
    /// which the IPv6 header does not show (RFC 6275 section 11.3.1).
    pseudo: Option<u16>,
}

impl Plan {
    /// `None` if there is nothing to cut.
    fn of(packet: &Packet, size: usize) -> Option<Self> {
        if size == 0 || packet.len() <= HEADER_LEN + size {
            return None;
        }
        let (upper, tcp_at) = ip::find_upper(&packet.head)?;
        if upper != ip::TCP {
            return None;
        }
        let headers =
            tcp_at + usize::from(TcpPacket::new_checked(packet.head.get(tcp_at..)?).ok()?.header_len());
        let (head, front) = packet.head.split_at(headers);
        let payload = if front.is_empty() {
            packet.body.clone()
        } else {
            let mut payload = BytesMut::with_capacity(front.len() + packet.body.len());
            payload.extend_from_slice(front);
            payload.extend_from_slice(&packet.body);
            payload.freeze()
        };
        let partial = matches!(packet.offload.checksum, Checksum::Partial { .. });
        let pseudo = partial.then(|| TcpPacket::new_unchecked(&head[tcp_at..]).checksum());
        let head = Bytes::copy_from_slice(head);
        (payload.len() > size).then_some(Self { head, payload, tcp_at, size, pseudo })
    }

    fn count(&self) -> usize {
        self.payload.len().div_ceil(self.size)
    }

    /// Where the payload of a segment lies in that of the super-segment.
    fn range(&self, nth: usize) -> Range<usize> {
        let from = nth * self.size;
        from..(from + self.size).min(self.payload.len())
    }

    fn segment(&self, nth: usize) -> Packet {
        let (mut head, body) = (self.head.to_vec(), self.payload.slice(self.range(nth)));
        self.finish(nth, &mut head, &body);
        Packet { head, body, offload: Offload::default() }
    }

    /// Makes of the super-segment's headers, at the beginning of `head`, those of a segment, whose payload is the rest of
    /// `head` and `body`.
    fn finish(&self, nth: usize, head: &mut [u8], body: &[u8]) {
        let Range { start, end } = self.range(nth);
        let (first, last) = (start == 0, end == self.payload.len());
        let len = head.len() + body.len() - HEADER_LEN;
        let mut ip = Ipv6Packet::new_unchecked(&mut *head);
        ip.set_payload_len(u16::try_from(len).unwrap_or(u16::MAX));
        let pseudo = match self.pseudo {
            Some(pseudo) => self.shortened(pseudo, end - start),
            None => pseudo_header(&ip, len + HEADER_LEN - self.tcp_at),
        };
        let mut tcp = TcpPacket::new_unchecked(&mut head[self.tcp_at..]);
        tcp.set_seq_number(advanced(tcp.seq_number(), start));
        tcp.set_fin(tcp.fin() && last);
        tcp.set_psh(tcp.psh() && last);
        // RFC 3168 section 6.1.2: the receiver hears once that the window was reduced.
        tcp.set_cwr(tcp.cwr() && first);
        tcp.set_checksum(pseudo);
        let sum = Sum::new().add(&head[self.tcp_at..]).add(body).finish();
        TcpPacket::new_unchecked(&mut head[self.tcp_at..]).set_checksum(sum);
    }

    /// The sum of a pseudo-header with the length of a segment in place of that of the super-segment.
    fn shortened(&self, pseudo: u16, payload: usize) -> u16 {
        let missing = u64::try_from(self.payload.len() - payload).unwrap_or(0);
        checksum::fold(u64::from(pseudo) + u64::from(!checksum::fold(missing)))
    }
}

fn pseudo_header<T: AsRef<[u8]>>(ip: &Ipv6Packet<T>, upper_len: usize) -> u16 {
    let upper_len = u32::try_from(upper_len).unwrap_or(u32::MAX);
    checksum::pseudo_header(ip.src_addr(), ip.dst_addr(), upper_len, ip::TCP).folded()
}

fn advanced(seq: TcpSeqNumber, octets: usize) -> TcpSeqNumber {
    TcpSeqNumber((Seq(seq.0.cast_unsigned()) + octets).0.cast_signed())
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;
    use core::convert::Infallible;

    use etherparse::{PacketBuilder, SlicedPacket, TcpHeader, TransportSlice};
    use proptest::prelude::*;

    use super::*;
    use crate::frame::Gso;
    use crate::ip::Header;

    const FIN: u8 = 0x01;
    const PSH: u8 = 0x08;
    const ACK: u8 = 0x10;
    const CWR: u8 = 0x80;

    fn super_segment(payload: &[u8], in_head: usize, flags: u8, seq: u32, options: usize) -> Packet {
        let source = "2001:db8::1".parse().unwrap();
        let destination = "2001:db8::2".parse().unwrap();
        let header = Header { source, destination, next_header: ip::TCP, ..Header::default() };
        let mut head = header.emit(20 + options + payload.len());
        head.extend_from_slice(&[0x1f, 0x90, 0, 80]);
        head.extend_from_slice(&seq.to_be_bytes());
        head.extend_from_slice(&[0, 0, 0, 7]);
        let offset = u8::try_from((20 + options) / 4).unwrap();
        head.extend_from_slice(&[offset << 4, flags, 0x12, 0x34, 0, 0, 0, 0]);
        head.resize(60 + options, 1);
        let (front, back) = payload.split_at(in_head.min(payload.len()));
        head.extend_from_slice(front);
        let mut packet = Packet { head, body: Bytes::copy_from_slice(back), offload: Offload::default() };
        checksum::transport(&mut packet, 40, checksum::TCP, true);
        packet.offload.gso = Some(Gso { size: 1000 });
        packet
    }

    fn tcp_of(packet: &Packet) -> (TcpHeader, Vec<u8>) {
        let bytes = packet.to_bytes();
        let sliced = SlicedPacket::from_ip(&bytes).unwrap();
        let Some(TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
        let (source, destination) =
            (packet.source().unwrap().octets(), packet.destination().unwrap().octets());
        let header = tcp.to_header();
        assert_eq!(
            header.calc_checksum_ipv6_raw(source, destination, tcp.payload()).unwrap(),
            header.checksum
        );
        (header, tcp.payload().to_vec())
    }

    #[test]
    fn flags_that_belong_to_one_segment_are_on_that_one() {
        let packet = super_segment(&[7; 2500], 0, FIN | PSH | ACK | CWR, 5, 0);
        let cut: Vec<_> = segments(&packet, 1000).map(|segment| tcp_of(&segment).0).collect();
        let flags: Vec<_> = cut.iter().map(|tcp| (tcp.cwr, tcp.ack, tcp.psh, tcp.fin)).collect();
        assert_eq!(
            flags,
            [(true, true, false, false), (false, true, false, false), (false, true, true, true)]
        );
    }

    #[test]
    fn a_short_packet_comes_back_as_it_is() {
        let packet = super_segment(&[7; 1000], 0, ACK, 5, 0);
        let cut: Vec<_> = segments(&packet, 1000).collect();
        let expected = Packet { offload: Offload { gso: None, ..packet.offload }, ..packet };
        assert_eq!(cut, [expected]);
    }

    #[test]
    fn what_is_not_tcp_is_not_cut() {
        let mut bytes = Vec::new();
        PacketBuilder::ipv6([1; 16], [2; 16], 9).udp(1, 2).write(&mut bytes, &[0; 3000]).unwrap();
        let packet = Packet { head: bytes, ..Packet::default() };
        assert_eq!(segments(&packet, 1000).collect::<Vec<_>>(), [packet]);
    }

    #[test]
    fn frames_are_cut_behind_their_ethernet_header_and_need_no_offload() {
        for payload in [900, 2500] {
            let packet = super_segment(&vec![7; payload], 0, PSH | ACK, 5, 12);
            let offload = packet.offload.shifted(14);
            let head = [&[2; 12][..], &[0x86, 0xdd], &packet.head].concat().into();
            let frame = Frame { head, body: packet.body.clone(), offload };
            for room in [0, 10] {
                let mut cut = Vec::new();
                let done = frames(&frame, room, |octets| {
                    cut.push(octets.to_vec());
                    Ok::<_, Infallible>(())
                });
                assert_eq!(done, Ok(()));
                let expected: Vec<_> = segments(&packet, 1000).collect();
                assert_eq!(cut.len(), expected.len());
                for (octets, mut expected) in cut.iter().zip(expected) {
                    checksum::complete(&mut expected);
                    tcp_of(&expected);
                    let ethernet = [&[0; 10][..room], &[2; 12], &[0x86, 0xdd]].concat();
                    assert_eq!(octets, &[ethernet, expected.to_bytes().to_vec()].concat());
                }
            }
        }
    }

    #[test]
    fn the_first_error_ends_it() {
        let packet = super_segment(&[7; 2500], 0, ACK, 5, 0);
        let head = [&[2; 12][..], &[0x86, 0xdd], &packet.head].concat().into();
        let frame = Frame { head, body: packet.body.clone(), offload: packet.offload.shifted(14) };
        let mut left = 2;
        let done = frames(&frame, 0, |_| {
            left -= 1;
            if left == 0 { Err("full") } else { Ok(()) }
        });
        assert_eq!((done, left), (Err("full"), 0));
    }

    #[test]
    fn hostile_headers_do_not_panic() {
        for len in 0..80 {
            let mut head = super_segment(&[7; 3000], 0, ACK, 5, 0).head;
            head.resize(len, 0xff);
            let packet = Packet { head, body: Bytes::from_static(&[0; 3000]), offload: Offload::default() };
            assert!(segments(&packet, 1000).count() >= 1, "{len}");
        }
    }

    proptest! {
        #[test]
        fn segments_carry_the_octets_in_order(
            payload in proptest::collection::vec(any::<u8>(), 1..9000),
            in_head in 0..3000_usize,
            size in 1..3000_u16,
            seq: u32,
            options in 0..=10_usize,
        ) {
            let packet = super_segment(&payload, in_head, ACK | PSH, seq, options * 4);
            prop_assume!(payload.len() > usize::from(size));
            let (mut expected, mut carried) = (seq, Vec::new());
            for segment in segments(&packet, size) {
                let (tcp, octets) = tcp_of(&segment);
                prop_assert_eq!(tcp.sequence_number, expected);
                prop_assert_eq!(tcp.options.len(), options * 4);
                prop_assert!(octets.len() <= usize::from(size) && !octets.is_empty());
                prop_assert_eq!(segment.offload, Offload::default());
                expected = expected.wrapping_add(u32::try_from(octets.len()).unwrap());
                carried.extend(octets);
            }
            prop_assert_eq!(carried, payload);
        }
    }
}
