use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use etherparse::{IpNumber, Ipv6Header, PacketBuilder};
use ferry_stack::Gso;
use proptest::prelude::*;

use super::*;

const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1);
const SERVICE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 1);
const A: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 2);
const B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 2);

fn header() -> Header {
    Header { source: CLIENT, destination: SERVICE, next_header: ip::TCP, ..Header::default() }
}

/// A TCP segment with a right checksum.
fn segment(payload: &[u8]) -> Packet {
    let mut head = header().emit(20 + payload.len());
    head.extend([0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x10, 0x10, 0, 0, 0, 0, 0]);
    let mut packet = Packet { head, body: Bytes::copy_from_slice(payload), ..Packet::default() };
    checksum::transport(&mut packet, HEADER_LEN, checksum::TCP, false);
    packet
}

fn arrived(packet: &Packet) -> Datagram {
    ip::parse(packet.to_bytes(), Offload::default()).unwrap()
}

fn with_traffic_class(mut packet: Packet, class: u8) -> Packet {
    packet.head[0] = 0x60 | class >> 4;
    packet.head[1] = packet.head[1] & 0x0f | class << 4;
    packet
}

#[test]
fn the_outer_header_is_that_of_rfc_2473() {
    let mut inner = with_traffic_class(segment(b"hello"), 0xba);
    inner.head[1] |= 0x0c;
    inner.head[2..4].copy_from_slice(&[0xde, 0xad]);
    let bytes = encapsulate(inner.clone(), A, B).unwrap().to_bytes();
    let (outer, rest) = Ipv6Header::from_slice(&bytes).unwrap();
    assert_eq!((outer.source_addr(), outer.destination_addr()), (A, B));
    assert_eq!((outer.next_header, outer.hop_limit), (IpNumber::IPV6, 64));
    assert_eq!((outer.traffic_class, outer.flow_label.value()), (0xba, 0xc_dead), "taken over");
    assert_eq!(usize::from(outer.payload_length), rest.len());
    let mut expected = inner.to_bytes().to_vec();
    expected[7] = 63;
    assert_eq!(rest, expected, "but for its hop limit the packet is as it was");
}

#[test]
fn what_cannot_enter_a_tunnel_is_refused_with_the_reason() {
    let expiring = |left| {
        let mut packet = segment(b"x");
        ip::set_hop_limit(&mut packet.head, left);
        packet
    };
    let mut merged = segment(&[0; 3000]);
    merged.offload.gso = Some(Gso { size: 1400 });
    let mut old = segment(b"x");
    old.head[0] = 0x45;
    let short = Packet { head: segment(b"").head[..39].to_vec(), ..Packet::default() };
    let cases = [
        ("on its last hop", expiring(1), Refused::Expired),
        ("dead already", expiring(0), Refused::Expired),
        ("a super-segment", merged, Refused::TooLong),
        ("longer than the field", segment(&vec![0; 65_476]), Refused::TooLong),
        ("IPv4", old, Refused::NotIpv6),
        ("half a header", short, Refused::NotIpv6),
        ("nothing", Packet::default(), Refused::NotIpv6),
    ];
    for (name, packet, expected) in cases {
        assert_eq!(encapsulate(packet, A, B), Err(expected), "{name}");
    }
    assert!(encapsulate(segment(&vec![0; 65_475]), A, B).is_ok(), "the longest that fits");
}

#[test]
fn a_loop_of_tunnels_ends_at_the_fifth() {
    let mut packet = segment(b"x");
    for turn in 1..=4 {
        packet = encapsulate(packet, A, B).unwrap_or_else(|refused| panic!("{turn}: {refused}"));
        // As it is after it came in from a wire.
        packet = arrived(&packet).into_packet();
    }
    assert_eq!(encapsulate(packet, A, B), Err(Refused::Nested));
}

#[test]
fn a_partial_checksum_is_completed_before_nobody_can_see_it() {
    let mut inner = segment(b"hello");
    checksum::transport(&mut inner, HEADER_LEN, checksum::TCP, true);
    let outer = encapsulate(inner, A, B).unwrap();
    assert_eq!(outer.offload, Offload::default());
    assert!(checksum::verify(&decapsulate(&arrived(&outer)).unwrap()));
}

#[test]
fn ecn_crosses_the_tunnel_as_figure_4_of_rfc_6040_says() {
    let cases = [
        // Inner, then what leaves for an outer of Not-ECT, ECT(1), ECT(0), CE.
        (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
        (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
        (ECT_0, [Some(ECT_0), Some(ECT_1), Some(ECT_0), Some(CE)]),
        (CE, [Some(CE); 4]),
    ];
    for (inner, leaves) in cases {
        for (outer, expected) in leaves.into_iter().enumerate() {
            let outer = u8::try_from(outer).unwrap();
            let packet = encapsulate(with_traffic_class(segment(b"x"), 0xb8 | inner), A, B).unwrap();
            assert_eq!(arrived(&packet).traffic_class, 0xb8 | inner, "normal mode copies");
            let opened = decapsulate(&arrived(&with_traffic_class(packet, outer)));
            let expected = expected.map(|ecn| 0xb8 | ecn).ok_or(Problem::Congestion);
            assert_eq!(
                opened.clone().map(|datagram| datagram.traffic_class),
                expected,
                "{inner:02b} in {outer:02b}"
            );
            let Ok(datagram) = opened else { continue };
            assert_eq!(Header::read(&datagram.packet).unwrap().traffic_class, datagram.traffic_class);
            assert!(checksum::verify(&datagram));
        }
    }
}

#[test]
fn what_is_no_good_tunnel_is_refused_with_the_reason() {
    let outer = |payload: &[u8]| {
        let header = Header { source: A, destination: B, next_header: ip::IPV6, ..Header::default() };
        let mut head = header.emit(payload.len());
        head.extend_from_slice(payload);
        arrived(&Packet { head, ..Packet::default() })
    };
    let inner = segment(b"hello").to_bytes();
    let cases = [
        ("no tunnel", arrived(&segment(b"x")), Problem::NotATunnel),
        ("nothing inside", outer(&[]), Problem::Inner(ip::Problem::Truncated)),
        ("half of it inside", outer(&inner[..50]), Problem::Inner(ip::Problem::Truncated)),
        ("IPv4 inside", outer(&[0x45; 60]), Problem::Inner(ip::Problem::Version(4))),
    ];
    for (name, datagram, expected) in cases {
        assert_eq!(decapsulate(&datagram), Err(expected), "{name}");
    }
}

#[test]
fn what_the_driver_knows_of_the_tunnel_says_nothing_of_what_is_inside() {
    let good = encapsulate(segment(b"hello"), A, B).unwrap().to_bytes();
    let partial = |start| Checksum::Partial { start, offset: 16 };
    let cases = [
        (Checksum::Complete, Checksum::Complete),
        (Checksum::Verified, Checksum::Complete),
        (partial(80), partial(40)),
        (partial(30), Checksum::Complete),
    ];
    for (outer, expected) in cases {
        let datagram =
            ip::parse(good.clone(), Offload { checksum: outer, gso: Some(Gso { size: 1 }) }).unwrap();
        let inner = decapsulate(&datagram).unwrap();
        assert_eq!(inner.offload, Offload { checksum: expected, gso: None }, "{outer:?}");
    }
}

proptest! {
    #[test]
    fn what_went_in_comes_out_one_hop_older(
        payload in proptest::collection::vec(any::<u8>(), 0..2000),
        (hop_limit, traffic_class, flow_label) in (2..=255_u8, any::<u8>(), 0..0x10_0000_u32),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut whole = Vec::new();
        let builder = PacketBuilder::ipv6(CLIENT.octets(), SERVICE.octets(), hop_limit).udp(7, 9);
        builder.write(&mut whole, &payload).unwrap();
        let word = 6 << 28 | u32::from(traffic_class) << 20 | flow_label;
        whole[..4].copy_from_slice(&word.to_be_bytes());
        let (head, body) = whole.split_at(cut.index(whole.len() + 1));
        let inner = Packet { head: head.to_vec(), body: Bytes::copy_from_slice(body), ..Packet::default() };
        let outer = encapsulate(inner, A, B).unwrap();
        let (judged, rest) = Ipv6Header::from_slice(&outer.to_bytes()).map(|(a, b)| (a, b.to_vec())).unwrap();
        prop_assert_eq!(usize::from(judged.payload_length), rest.len());
        prop_assert_eq!(judged.payload_length, u16::try_from(whole.len()).unwrap());
        let opened = decapsulate(&arrived(&outer)).unwrap();
        prop_assert!(checksum::verify(&opened));
        whole[7] -= 1;
        prop_assert_eq!(&opened.packet[..], &whole[..]);
        prop_assert_eq!((opened.hop_limit, opened.traffic_class, opened.flow_label), (hop_limit - 1, traffic_class, flow_label));
    }

    #[test]
    fn no_tunnel_makes_it_panic(mut inside in proptest::collection::vec(any::<u8>(), 0..150), upper_at in 0..300_usize) {
        if let Some(first) = inside.first_mut() {
            *first = 0x60;
        }
        let header = Header { source: A, destination: B, next_header: ip::IPV6, ..Header::default() };
        let mut head = header.emit(inside.len());
        head.extend(inside);
        let packet = Packet { head, ..Packet::default() };
        let datagram = arrived(&packet);
        let _ = decapsulate(&datagram);
        let _ = decapsulate(&Datagram { upper_at, ..datagram });
        let _ = encapsulate(packet, A, B);
    }
}
