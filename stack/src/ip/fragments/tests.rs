//! Every way in which pieces can come, and not come.

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::frame::Offload;
use crate::ip::{self, Header};

const TO: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

fn from(host: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 1, host)
}

fn at(secs: u64) -> Instant {
    Instant::from_millis(secs * 1000)
}

/// The payload of a whole packet: a TCP header whose octets tell where they lie.
fn payload(len: usize) -> Vec<u8> {
    (0..len).map(|nth| u8::try_from(nth % 251).unwrap()).collect()
}

/// A fragment with `data`, behind a Destination Options header.
fn piece(host: u16, id: u32, offset: usize, more: bool, data: &[u8]) -> Vec<u8> {
    let header = Header { source: from(host), destination: TO, next_header: 60, ..Header::default() };
    let mut packet = header.emit(16 + data.len());
    packet.extend_from_slice(&[44, 0, 1, 4, 0, 0, 0, 0]);
    packet.extend_from_slice(&[ip::TCP, 0]);
    packet.extend_from_slice(&(u16::try_from(offset).unwrap() | u16::from(more)).to_be_bytes());
    packet.extend_from_slice(&id.to_be_bytes());
    packet.extend_from_slice(data);
    packet
}

/// The pieces of a packet, each with its offset, of `size` octets but the last.
fn cut(whole: &[u8], size: usize) -> Vec<(usize, bool, &[u8])> {
    let chunks = whole.chunks(size).enumerate();
    chunks.map(|(nth, data)| (nth * size, (nth + 1) * size < whole.len(), data)).collect()
}

fn check(whole: Bytes, expected: &[u8]) {
    let datagram = ip::parse(whole, Offload::default()).unwrap();
    assert_eq!((datagram.upper, datagram.upper_at), (ip::TCP, 48), "no Fragment header is left");
    assert_eq!(datagram.upper_bytes(), expected);
}

proptest! {
    #[test]
    fn pieces_in_any_order_and_twice_make_the_packet_that_was_cut(
        len in 60_usize..3000,
        size in 6_usize..50,
        order in prop::collection::vec(any::<prop::sample::Index>(), 0..100),
    ) {
        let expected = payload(len);
        let mut pieces = cut(&expected, (size * 8).max(len.div_ceil(60).next_multiple_of(8)));
        for index in order {
            let index = index.index(pieces.len());
            let last = pieces.len() - 1;
            pieces.swap(index, last);
        }
        let mut fragments = Fragments::default();
        let mut whole = None;
        for (nth, (offset, more, data)) in pieces.iter().enumerate() {
            let packet = piece(1, 9, *offset, *more, data);
            let outcome = fragments.take(&packet, at(0));
            let last = nth + 1 == pieces.len();
            if let Outcome::Whole(packet) = outcome {
                prop_assert!(last);
                whole = Some(packet);
            } else {
                prop_assert_eq!(outcome, Outcome::Kept);
                prop_assert_eq!(fragments.take(&packet, at(0)), Outcome::Dropped, "once more, the same");
            }
        }
        check(whole.unwrap(), &expected);
        prop_assert_eq!((fragments.octets, fragments.packets.len()), (0, 0));
    }

    #[test]
    fn no_piece_breaks_anything(
        pieces in prop::collection::vec((0_u16..3, 0_u32..2, 0_usize..40, any::<bool>(), 0_usize..200), 0..200),
    ) {
        let mut fragments = Fragments::default();
        for (host, id, offset, more, len) in pieces {
            fragments.take(&piece(host, id, offset * 8, more, &payload(len)), at(0));
            let counted: usize = fragments.packets.values().map(Partial::octets).sum();
            prop_assert_eq!(fragments.octets, counted);
        }
    }
}

#[test]
fn a_packet_with_pieces_that_overlap_never_becomes_whole() {
    let whole = payload(96);
    for (offset, more, range) in
        [(8, true, 8..40), (24, true, 24..40), (0, true, 0..40), (88, false, 88..100)]
    {
        let mut fragments = Fragments::default();
        let all = payload(200);
        let lie = piece(1, 9, offset, more, &all[range.clone()]);
        let pieces = cut(&whole, 32);
        fragments.take(&piece(1, 9, 0, true, pieces[0].2), at(0));
        fragments.take(&piece(1, 9, 64, false, pieces[2].2), at(0));
        assert_eq!(fragments.take(&lie, at(0)), Outcome::Dropped, "{range:?}");
        for (offset, more, data) in &pieces {
            assert_eq!(fragments.take(&piece(1, 9, *offset, *more, data), at(1)), Outcome::Dropped);
        }
        assert_eq!(fragments.octets, 0);
        assert_eq!(fragments.expire(at(60)), [None], "nobody is told");
    }
}

#[test]
fn pieces_of_two_packets_do_not_mix() {
    let whole = payload(64);
    let pieces = cut(&whole, 32);
    let mut fragments = Fragments::default();
    assert_eq!(fragments.take(&piece(1, 9, 0, true, pieces[0].2), at(0)), Outcome::Kept);
    assert_eq!(fragments.take(&piece(1, 8, 32, false, pieces[1].2), at(0)), Outcome::Kept);
    assert_eq!(fragments.take(&piece(2, 9, 32, false, pieces[1].2), at(0)), Outcome::Kept);
    assert!(matches!(fragments.take(&piece(1, 9, 32, false, pieces[1].2), at(0)), Outcome::Whole(_)));
}

#[test]
fn a_length_that_cannot_be_true_is_told_to_the_sender() {
    let mut fragments = Fragments::default();
    let wrong = |pointer| Outcome::Wrong(icmp::Error::ParameterProblem { code: 0, pointer });
    assert_eq!(fragments.take(&piece(1, 9, 0, true, &[0; 31]), at(0)), wrong(4));
    assert_eq!(fragments.take(&piece(1, 9, 65_528, false, &[0; 8]), at(0)), wrong(50));
    assert!(fragments.packets.is_empty());
    assert_eq!(fragments.take(&piece(1, 9, 65_512, false, &[0; 15]), at(0)), Outcome::Kept);
}

#[test]
fn what_is_not_whole_within_a_minute_is_forgotten_and_its_first_piece_given_back() {
    let mut fragments = Fragments::default();
    let first = piece(1, 9, 0, true, &[0; 32]);
    fragments.take(&first, at(0));
    fragments.take(&piece(1, 10, 32, false, &[0; 32]), at(1));
    fragments.take(&piece(1, 9, 64, true, &[0; 32]), at(59));
    assert_eq!((fragments.deadline(), fragments.expire(at(59))), (Some(at(60)), vec![]));
    assert_eq!(fragments.expire(at(60)), [Some(first.into())]);
    assert_eq!((fragments.expire(at(60)), fragments.expire(at(61))), (vec![], vec![None]));
    assert_eq!((fragments.deadline(), fragments.octets), (None, 0));
}

#[test]
fn memory_is_bounded_in_all_for_each_source_and_for_each_packet() {
    let mut fragments = Fragments::default();
    fragments.take(&piece(9999, 1, 0, true, &[0; 8]), at(0));
    for id in 0..1000 {
        fragments.take(&piece(1, id, 0, true, &[0; 8]), at(1) + Duration::from_millis(id.into()));
        assert!(fragments.packets.len() <= 1 + MAX_OF_SOURCE);
    }
    assert!(fragments.packets.contains_key(&(from(9999), TO, 1)), "one source does not push out another");
    for host in 0..1000_u16 {
        fragments.take(&piece(host, 0, 0, true, &[0; 8]), at(3));
        assert!(fragments.packets.len() <= MAX_PACKETS);
    }
    for host in 0..200 {
        fragments.take(&piece(host, 7, 0, true, &vec![0; 60_000]), at(4));
        assert!(fragments.octets <= MAX_OCTETS);
    }
    let mut fragments = Fragments::default();
    for nth in 0..100 {
        fragments.take(&piece(1, 1, nth * 16, true, &[0; 8]), at(0));
    }
    assert_eq!(fragments.octets, 0, "nobody needs so many pieces");
}

#[test]
fn congestion_that_one_piece_met_is_congestion_of_the_packet() {
    for (fields, expected) in [
        ([0b10, 0b10], Some(0b10)),
        ([0b10, 0b11], Some(0b11)),
        ([0b11, 0b01], Some(0b11)),
        ([0, 0b11], None),
    ] {
        let whole = payload(64);
        let mut fragments = Fragments::default();
        let mut outcome = Outcome::Dropped;
        for ((offset, more, data), field) in cut(&whole, 32).into_iter().zip(fields) {
            let mut packet = piece(1, 9, offset, more, data);
            packet[1] |= field << 4;
            outcome = fragments.take(&packet, at(0));
        }
        let found = if let Outcome::Whole(packet) = outcome { Some(ecn(&packet)) } else { None };
        assert_eq!(found, expected, "{fields:?}");
    }
}
