//! The ones'-complement checksum of the Internet protocols (RFC 1071), with the IPv6 pseudo-header.

use core::net::Ipv6Addr;

use crate::frame::Checksum;
use crate::ip::{self, Datagram, Packet};

/// A ones'-complement sum under way. Pieces of any length, odd ones too, may be added one after another as if
/// they lay side by side in memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    total: u64,
    /// Whether an odd number of octets was added, so that the next one is the low half of a word.
    odd: bool,
}

impl Sum {
    /// The sum of nothing.
    pub const fn new() -> Self {
        Self { total: 0, odd: false }
    }

    /// Adds the octets that come next.
    #[expect(clippy::should_implement_trait, reason = "the sum of a sum and octets is no sum of two alike")]
    pub fn add(self, data: &[u8]) -> Self {
        let word = fold(sum(data));
        let word = if self.odd { word.swap_bytes() } else { word };
        Self { total: self.total + u64::from(word), odd: self.odd ^ (data.len() % 2 == 1) }
    }

    /// The sum itself, folded to 16 bits: what the checksum field of a packet holds whose checksum is left to
    /// whoever puts it on a real wire.
    pub fn folded(self) -> u16 {
        fold(self.total)
    }

    /// The checksum: the complement of the folded sum.
    pub fn finish(self) -> u16 {
        !self.folded()
    }
}

/// The sum of the big-endian 16-bit words of `data`, not yet folded; an odd last octet is the high half of a word.
#[expect(clippy::cast_possible_truncation, reason = "the two halves of a sum")]
pub fn sum(data: &[u8]) -> u64 {
    // The order of octets does not matter to a ones'-complement sum (RFC 1071 section 2 (B)), and neither does the
    // width of the words (section 2 (A)): words of 64 bits are added in 128, an addition and one with its carry on most
    // machines, which nothing in memory is long enough to overflow, and the result is turned at the end.
    let (words, rest) = data.as_chunks::<8>();
    let wide = words.iter().map(|word| u128::from(u64::from_ne_bytes(*word))).sum::<u128>();
    let mut total = u64::from(fold((wide >> 64) as u64)) + u64::from(fold(wide as u64));
    let (pairs, last) = rest.as_chunks::<2>();
    total += pairs.iter().map(|pair| u64::from(u16::from_ne_bytes(*pair))).sum::<u64>();
    total += last.first().map_or(0, |octet| u64::from(u16::from_ne_bytes([*octet, 0])));
    u64::from(u16::from_be(fold(total)))
}

/// Folds a sum to 16 bits by adding the carries back in.
#[expect(clippy::cast_possible_truncation, reason = "the value fits in 16 bits after the folds")]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// The sum of the pseudo-header (RFC 8200 section 8.1), to which the upper layer's octets are added.
pub fn pseudo_header(source: Ipv6Addr, destination: Ipv6Addr, upper_len: u32, next_header: u8) -> Sum {
    Sum::new()
        .add(&source.octets())
        .add(&destination.octets())
        .add(&upper_len.to_be_bytes())
        .add(&u32::from(next_header).to_be_bytes())
}

/// Whether the checksum of the upper layer is right, or known good from below.
///
/// The addresses summed are those of the datagram's fields, which are the home addresses once the mobility stage
/// has swapped them.
pub fn verify(datagram: &Datagram) -> bool {
    match datagram.offload.checksum {
        Checksum::Verified | Checksum::Partial { .. } => true,
        Checksum::Complete => {
            let upper = datagram.upper_bytes();
            let len = u32::try_from(upper.len()).unwrap_or(u32::MAX);
            pseudo_header(datagram.source, datagram.destination, len, datagram.upper).add(upper).folded()
                == 0xffff
        }
    }
}

/// Where a transport protocol keeps its checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// The protocol, as the pseudo-header names it.
    pub protocol: u8,
    /// Octets from the start of the transport header to the checksum field.
    pub offset: u16,
}

/// TCP's checksum (RFC 9293 section 3.1).
pub const TCP: Field = Field { protocol: ip::TCP, offset: 16 };
/// ICMPv6's checksum (RFC 4443 section 2.3).
pub const ICMPV6: Field = Field { protocol: ip::ICMPV6, offset: 2 };

/// Where UDP keeps its checksum (RFC 768), by which a completed UDP checksum is told from others.
const UDP_OFFSET: u16 = 6;

/// Fills the checksum field of a packet whose transport header starts at `upper_at`: wholly, or, if `partial`,
/// with the folded sum of the pseudo-header only, noting in the packet's offload what is left to do.
///
/// The addresses are those of the IPv6 header. Does nothing to a packet whose `head` ends before the field.
pub fn transport(packet: &mut Packet, upper_at: usize, field: Field, partial: bool) {
    let (Some(source), Some(destination)) = (packet.source(), packet.destination()) else { return };
    let at = upper_at + usize::from(field.offset);
    let len =
        u32::try_from((packet.head.len() + packet.body.len()).saturating_sub(upper_at)).unwrap_or(u32::MAX);
    let pseudo = pseudo_header(source, destination, len, field.protocol);
    let Some(place) = packet.head.get_mut(at..at + 2) else { return };
    place.copy_from_slice(&pseudo.folded().to_be_bytes());
    let start = u16::try_from(upper_at).unwrap_or(u16::MAX);
    packet.offload.checksum = Checksum::Partial { start, offset: field.offset };
    if !partial {
        complete(packet);
    }
}

/// Turns a partial checksum into a complete one. Leaves every other packet as it is.
pub fn complete(packet: &mut Packet) {
    let Checksum::Partial { start, offset } = packet.offload.checksum else { return };
    let (start, at) = (usize::from(start), usize::from(start) + usize::from(offset));
    packet.pull(at + 2);
    let Some(summed) = packet.head.get(start..) else { return };
    // The field already holds the pseudo-header's sum, so that it is summed along with the rest.
    let sum = Sum::new().add(summed).add(&packet.body).finish();
    // Zero means "no checksum" in UDP; all ones is the same number (RFC 8200 section 8.1).
    let sum = if sum == 0 && offset == UDP_OFFSET { 0xffff } else { sum };
    let Some(place) = packet.head.get_mut(at..at + 2) else { return };
    place.copy_from_slice(&sum.to_be_bytes());
    packet.offload.checksum = Checksum::Complete;
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::frame::Offload;
    use crate::ip::Header;

    /// The definition, octet by octet.
    fn slow(data: &[u8]) -> u16 {
        let mut total = 0_u64;
        for (at, octet) in data.iter().enumerate() {
            total += u64::from(*octet) << if at % 2 == 0 { 8 } else { 0 };
        }
        while total > 0xffff {
            total = (total >> 16) + (total & 0xffff);
        }
        u16::try_from(total).unwrap()
    }

    #[test]
    fn the_example_of_rfc_1071_sums_to_ddf2() {
        let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::new().add(&data).folded(), 0xddf2);
        assert_eq!(Sum::new().add(&data).finish(), !0xddf2);
    }

    #[test]
    fn a_long_run_of_ones_does_not_overflow() {
        let data = alloc::vec![0xff_u8; 1 << 20];
        assert_eq!(Sum::new().add(&data).folded(), 0xffff);
    }

    fn tcp_packet(payload: &[u8], in_head: usize) -> Packet {
        let (front, back) = payload.split_at(in_head.min(payload.len()));
        let header = Header {
            source: "2001:db8::1".parse().unwrap(),
            destination: "2001:db8::2".parse().unwrap(),
            next_header: ip::TCP,
            ..Header::default()
        };
        let mut head = header.emit(20 + payload.len());
        let mut tcp = [0_u8; 20];
        tcp[..4].copy_from_slice(&[0x30, 0x39, 0, 80]);
        tcp[12] = 0x50;
        head.extend_from_slice(&tcp);
        head.extend_from_slice(front);
        Packet { head, body: Bytes::copy_from_slice(back), offload: Offload::default() }
    }

    fn judge(packet: &Packet) -> bool {
        let bytes = packet.to_bytes();
        let sliced = etherparse::SlicedPacket::from_ip(&bytes).unwrap();
        let Some(etherparse::TransportSlice::Tcp(tcp)) = sliced.transport else { panic!("no TCP") };
        let (source, destination) = (packet.source().unwrap(), packet.destination().unwrap());
        let right = tcp
            .to_header()
            .calc_checksum_ipv6_raw(source.octets(), destination.octets(), tcp.payload())
            .unwrap();
        tcp.checksum() == right
    }

    #[test]
    fn a_partial_checksum_is_completed_wherever_the_packet_is_cut() {
        let payload: Vec<u8> = (0..=200).collect();
        for in_head in [0, 1, 7, 201] {
            let mut packet = tcp_packet(&payload, in_head);
            transport(&mut packet, 40, TCP, true);
            assert_eq!(packet.offload.checksum, Checksum::Partial { start: 40, offset: 16 });
            assert!(!judge(&packet), "the partial sum is not the checksum");
            complete(&mut packet);
            assert_eq!(packet.offload.checksum, Checksum::Complete);
            assert!(judge(&packet), "{in_head} octets in the head");
        }
    }

    #[test]
    fn only_udp_writes_all_ones_for_zero() {
        let cases = [(6, 0xffff), (16, 0), (2, 0)];
        for (offset, expected) in cases {
            let mut packet = tcp_packet(&[], 0);
            // What is summed comes to all ones, so that the checksum is zero.
            packet.head[40..].fill(0);
            packet.head[58..].fill(0xff);
            packet.offload.checksum = Checksum::Partial { start: 40, offset };
            complete(&mut packet);
            let at = 40 + usize::from(offset);
            assert_eq!(u16::from_be_bytes([packet.head[at], packet.head[at + 1]]), expected, "{offset}");
        }
    }

    #[test]
    fn a_partial_checksum_beyond_the_packet_is_left_alone() {
        let mut packet = tcp_packet(b"x", 0);
        packet.offload.checksum = Checksum::Partial { start: 60_000, offset: 16 };
        let before = packet.to_bytes();
        complete(&mut packet);
        assert_eq!(packet.to_bytes(), before);
    }

    proptest! {
        #[test]
        fn the_sum_is_that_of_the_definition(data in proptest::collection::vec(any::<u8>(), 0..300)) {
            prop_assert_eq!(Sum::new().add(&data).folded(), slow(&data));
        }

        #[test]
        fn pieces_sum_to_the_whole(pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6)) {
            let whole: Vec<u8> = pieces.concat();
            let sum = pieces.iter().fold(Sum::new(), |sum, piece| sum.add(piece));
            prop_assert_eq!(sum.folded(), slow(&whole));
        }

        #[test]
        fn a_whole_checksum_is_what_another_codec_computes(payload in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..200_usize) {
            let mut packet = tcp_packet(&payload, cut);
            transport(&mut packet, 40, TCP, false);
            prop_assert!(judge(&packet));
            let datagram = ip::parse(packet.to_bytes(), Offload::default()).unwrap();
            prop_assert!(verify(&datagram));
        }

        #[test]
        fn a_flipped_bit_is_noticed(payload in proptest::collection::vec(any::<u8>(), 1..100), bit in any::<prop::sample::Index>()) {
            let mut packet = tcp_packet(&payload, 0);
            transport(&mut packet, 40, TCP, false);
            let mut bytes = packet.to_bytes().to_vec();
            let bit = bit.index((bytes.len() - 40) * 8);
            bytes[40 + bit / 8] ^= 1 << (bit % 8);
            let datagram = ip::parse(bytes.into(), Offload::default()).unwrap();
            prop_assert!(!verify(&datagram));
        }
    }
}
