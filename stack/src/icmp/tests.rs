use alloc::vec::Vec;

use etherparse::{Icmpv6Type, PacketBuilder, SlicedPacket, TransportSlice};

use super::*;

const US: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const PEER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const TOO_BIG: Error = Error::PacketTooBig { mtu: 1280 };
const NO_PORT: Error = Error::Unreachable { code: PORT_UNREACHABLE };
const UNKNOWN: Error = Error::ParameterProblem { code: UNKNOWN_OPTION, pointer: 42 };

fn tcp(source: Ipv6Addr, destination: Ipv6Addr, payload: usize) -> Bytes {
    let mut bytes = Vec::new();
    let builder =
        PacketBuilder::ipv6(source.octets(), destination.octets(), 64).tcp(40_000, 80, 0x0102_0304, 1000);
    builder.write(&mut bytes, &alloc::vec![5; payload]).unwrap();
    bytes.into()
}

fn icmp(source: Ipv6Addr, destination: Ipv6Addr, kind: u8) -> Bytes {
    message_packet(source, destination, (kind, 0), [0; 4], Bytes::new()).to_bytes()
}

fn fragment(offset: u16) -> Bytes {
    let header = Header { source: PEER, destination: US, next_header: 44, ..Header::default() };
    let mut bytes = header.emit(28);
    bytes.extend([ip::TCP, 0]);
    bytes.extend((offset << 3 | 1).to_be_bytes());
    bytes.extend([0; 24]);
    bytes.into()
}

#[test]
fn errors_are_due_only_where_rfc_4443_allows_them() {
    let nobody = Ipv6Addr::UNSPECIFIED;
    let cases = [
        ("about TCP", tcp(PEER, US, 0), NO_PORT, false, true),
        ("about an echo request", icmp(PEER, US, 128), NO_PORT, false, true),
        ("about an unreachable", icmp(PEER, US, 1), NO_PORT, false, false),
        ("about an unknown error", icmp(PEER, US, 127), NO_PORT, false, false),
        ("about a redirect", icmp(PEER, US, 137), NO_PORT, false, false),
        ("to a group", tcp(PEER, GROUP, 0), NO_PORT, false, false),
        ("too big, to a group", tcp(PEER, GROUP, 0), TOO_BIG, false, true),
        ("an option that says so, to a group", tcp(PEER, GROUP, 0), UNKNOWN, true, true),
        ("an option that does not, to a group", tcp(PEER, GROUP, 0), UNKNOWN, false, false),
        ("to nobody", tcp(nobody, US, 0), NO_PORT, false, false),
        ("about the first fragment", fragment(0), NO_PORT, false, true),
        ("about a later fragment", fragment(185), NO_PORT, false, false),
        ("about half an address", tcp(PEER, US, 0).slice(..30), NO_PORT, false, false),
    ];
    for (name, packet, error, multicast, due) in cases {
        assert_eq!(is_due(&packet, error, multicast), due.then_some(PEER), "{name}");
    }
}

#[test]
fn an_error_is_read_by_another_codec_as_it_was_meant() {
    let code = Icmpv6Type::DestinationUnreachable;
    let cases = [
        (TOO_BIG, Icmpv6Type::PacketTooBig { mtu: 1280 }),
        (NO_PORT, code(etherparse::icmpv6::DestUnreachableCode::Port)),
        (Error::Unreachable { code: NO_ROUTE }, code(etherparse::icmpv6::DestUnreachableCode::NoRoute)),
        (
            Error::Unreachable { code: ADDRESS_UNREACHABLE },
            code(etherparse::icmpv6::DestUnreachableCode::Address),
        ),
        (
            Error::TimeExceeded { code: HOP_LIMIT_EXCEEDED },
            Icmpv6Type::TimeExceeded(etherparse::icmpv6::TimeExceededCode::HopLimitExceeded),
        ),
        (
            UNKNOWN,
            Icmpv6Type::ParameterProblem(etherparse::icmpv6::ParameterProblemHeader {
                code: etherparse::icmpv6::ParameterProblemCode::UnrecognizedIpv6Option,
                pointer: 42,
            }),
        ),
    ];
    for (sent, expected) in cases {
        let about = tcp(PEER, US, 3000);
        let bytes = error(&about, sent, US, PEER).to_bytes();
        assert_eq!(bytes.len(), usize::from(MIN_MTU), "as much as fits");
        let sliced = SlicedPacket::from_ip(&bytes).unwrap();
        let Some(TransportSlice::Icmpv6(message)) = sliced.transport else { panic!("{sent:?}") };
        assert_eq!(message.icmp_type(), expected);
        assert!(message.is_checksum_valid(US.octets(), PEER.octets()), "{sent:?}");
        assert_eq!(message.payload(), &about[..1232]);
    }
}

#[test]
fn a_received_error_names_the_flow_that_it_is_about() {
    for sent in [TOO_BIG, NO_PORT, UNKNOWN, Error::TimeExceeded { code: 0 }] {
        let bytes = error(&tcp(PEER, US, 100), sent, US, PEER).to_bytes();
        let received = parse_error(&ip::parse(bytes, Offload::default()).unwrap()).unwrap();
        assert_eq!((received.error, received.from), (sent, US));
        let Quote { source, destination, upper, upper_header } = received.quote;
        assert_eq!((source, destination, upper), (PEER, US, ip::TCP));
        assert_eq!(&upper_header[..8], &[0x9c, 0x40, 0, 80, 1, 2, 3, 4]);
    }
}

#[test]
fn what_is_no_error_that_we_know_says_nothing() {
    let quoted = tcp(PEER, US, 100);
    let with = |kind: u8, body: Bytes| message_packet(US, PEER, (kind, 0), [0; 4], body).to_bytes();
    let mut old = quoted.to_vec();
    old[0] = 0x45;
    let cases = [
        ("an echo request", with(128, quoted.clone())),
        ("an unknown error", with(100, quoted.clone())),
        ("a quote that breaks off in the header", with(1, quoted.slice(..39))),
        ("no quote", with(1, Bytes::new())),
        ("a quote of IPv4", with(1, old.into())),
        ("a quote of a later fragment", with(1, fragment(185))),
        ("TCP", quoted),
    ];
    for (name, bytes) in cases {
        assert_eq!(parse_error(&ip::parse(bytes, Offload::default()).unwrap()), None, "{name}");
    }
}

#[test]
fn a_quote_that_ends_with_the_ip_header_has_no_upper_octets() {
    let bytes = error(&tcp(PEER, US, 0).slice(..40), TOO_BIG, US, PEER).to_bytes();
    let received = parse_error(&ip::parse(bytes, Offload::default()).unwrap()).unwrap();
    assert_eq!(received.quote.upper_header, Bytes::new());
}

#[test]
fn an_echo_reply_gives_back_what_came() {
    for len in [0, 1, 56, 60_000] {
        let data: Bytes = (0..=255_u8).cycle().take(len).collect();
        let request = message_packet(PEER, US, (128, 0), [1, 2, 3, 4], data.clone()).to_bytes();
        let reply = echo_reply(&ip::parse(request, Offload::default()).unwrap(), US).unwrap();
        let bytes = reply.to_bytes();
        let sliced = SlicedPacket::from_ip(&bytes).unwrap();
        let Some(TransportSlice::Icmpv6(message)) = sliced.transport else { panic!("{len}") };
        let echo = etherparse::IcmpEchoHeader { id: 0x0102, seq: 0x0304 };
        assert_eq!(message.icmp_type(), Icmpv6Type::EchoReply(echo));
        assert!(message.is_checksum_valid(US.octets(), PEER.octets()), "{len}");
        assert_eq!(message.payload(), data);
    }
}

#[test]
fn an_echo_request_cut_short_gets_no_reply() {
    let request = message_packet(PEER, US, (128, 0), [1, 2, 3, 4], Bytes::new()).to_bytes();
    let mut datagram = ip::parse(request, Offload::default()).unwrap();
    datagram.packet.truncate(45);
    assert_eq!(echo_reply(&datagram, US), None);
}

#[test]
fn a_bucket_gives_its_burst_and_then_one_at_a_time() {
    let mut bucket = Bucket::new(3, Duration::from_millis(10));
    let at = Instant::from_millis;
    let mut taken = |ms| bucket.take(at(ms));
    assert_eq!([taken(0), taken(0), taken(0), taken(0)], [true, true, true, false]);
    assert_eq!([taken(9), taken(10), taken(11)], [false, true, false]);
    assert_eq!([taken(25), taken(29), taken(30)], [true, false, true], "parts of an interval add up");
    assert_eq!([taken(9_000), taken(9_000), taken(9_000), taken(9_000)], [true, true, true, false]);
    assert!(!taken(8_000), "a clock that goes back gives nothing");
}
