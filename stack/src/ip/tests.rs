use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;
use crate::frame::Checksum;
use crate::icmp;

const HBH: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION: u8 = 60;

const SOURCE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
const DEST: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);
const HOME: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 1);

/// A packet with these extension headers; the first two octets of each are filled in here.
fn packet(chain: &[(u8, Vec<u8>)], upper: u8, payload: &[u8]) -> Vec<u8> {
    let mut after = Vec::new();
    for (at, (kind, header)) in chain.iter().enumerate() {
        let mut header = header.clone();
        header[0] = chain.get(at + 1).map_or(upper, |(kind, _)| *kind);
        if *kind != FRAGMENT {
            header[1] = u8::try_from(header.len() / 8 - 1).unwrap();
        }
        after.extend(header);
    }
    after.extend_from_slice(payload);
    let next_header = chain.first().map_or(upper, |(kind, _)| *kind);
    let header = Header { source: SOURCE, destination: DEST, next_header, ..Header::default() };
    let mut packet = header.emit(after.len());
    packet.extend(after);
    packet
}

/// An options header with these octets of options, which must come to 8n + 6.
fn options(octets: &[u8]) -> Vec<u8> {
    let header = [&[0, 0], octets].concat();
    assert_eq!(header.len() % 8, 0);
    header
}

fn pad() -> Vec<u8> {
    options(&[1, 4, 0, 0, 0, 0])
}

fn fragment(offset: u16, more: bool) -> Vec<u8> {
    let field = (offset << 3 | u16::from(more)).to_be_bytes();
    vec![0, 0, field[0], field[1], 0, 0, 0, 9]
}

fn routing(kind: u8, left: u8, address: Ipv6Addr) -> Vec<u8> {
    [&[0, 0, kind, left, 0, 0, 0, 0][..], &address.octets()].concat()
}

fn home_address() -> Vec<u8> {
    options(&[&[1, 2, 0, 0, 0xc9, 16][..], &HOME.octets()].concat())
}

fn judge(bytes: Vec<u8>) -> Result<(u8, usize), Problem> {
    parse(bytes.into(), Offload::default()).map(|datagram| (datagram.upper, datagram.upper_at))
}

#[test]
fn a_chain_that_is_good_leads_to_the_upper_layer() {
    let tcp = [0; 20];
    let cases = [
        ("none", vec![], 40),
        ("hop-by-hop", vec![(HBH, pad())], 48),
        ("hop-by-hop with an unknown option to be skipped", vec![(HBH, options(&[0x1e, 4, 0, 0, 0, 0]))], 48),
        ("a router alert", vec![(HBH, options(&[5, 2, 0, 0, 1, 0]))], 48),
        (
            "destination options before and after routing",
            vec![(DESTINATION, pad()), (ROUTING, routing(0, 0, HOME)), (DESTINATION, pad())],
            80,
        ),
        ("an unknown routing header that is used up", vec![(ROUTING, routing(77, 0, HOME))], 64),
        ("an atomic fragment", vec![(FRAGMENT, fragment(0, false))], 48),
        ("an atomic fragment with reserved bits", vec![(FRAGMENT, vec![0, 0xff, 0, 0b110, 1, 2, 3, 4])], 48),
        ("a home address", vec![(DESTINATION, home_address())], 64),
        ("a type 2 routing header", vec![(ROUTING, routing(2, 1, HOME))], 64),
        ("six octets of pad1", vec![(DESTINATION, options(&[0; 6]))], 48),
        ("as many headers as may be", vec![(DESTINATION, pad()); 8], 104),
    ];
    for (name, chain, upper_at) in cases {
        assert_eq!(judge(packet(&chain, TCP, &tcp)), Ok((TCP, upper_at)), "{name}");
    }
}

#[test]
fn a_chain_that_is_bad_has_its_own_problem() {
    let tcp = [0; 20];
    let unknown = |kind| options(&[kind, 4, 0, 0, 0, 0]);
    let option = |multicast| Problem::Option { pointer: 42, multicast };
    let mut overrun = options(&[1, 4, 0, 0, 0, 0]);
    overrun[3] = 5;
    let cases = [
        ("hop-by-hop second", vec![(DESTINATION, pad()), (HBH, pad())], Problem::Order { pointer: 40 }),
        ("hop-by-hop twice", vec![(HBH, pad()), (HBH, pad())], Problem::Order { pointer: 40 }),
        ("option 01", vec![(DESTINATION, unknown(0x5e))], Problem::SilentOption),
        ("option 10", vec![(DESTINATION, unknown(0x9e))], option(true)),
        ("option 11", vec![(DESTINATION, unknown(0xde))], option(false)),
        ("a jumbo payload", vec![(HBH, unknown(0xc2))], option(false)),
        (
            "a home address among hop-by-hop options",
            vec![(HBH, home_address())],
            Problem::Option { pointer: 46, multicast: false },
        ),
        ("an option that reaches beyond its header", vec![(DESTINATION, overrun)], Problem::Malformed),
        (
            "an option without its length",
            vec![(DESTINATION, options(&[1, 3, 0, 0, 0, 0x1e]))],
            Problem::Malformed,
        ),
        ("a home address of 4 octets", vec![(DESTINATION, unknown(0xc9))], Problem::Malformed),
        (
            "two home addresses in two headers",
            vec![(DESTINATION, home_address()), (DESTINATION, home_address())],
            Problem::Malformed,
        ),
        (
            "two home addresses in one",
            vec![(
                DESTINATION,
                options(&[&home_address()[2..], &home_address()[6..], &[1, 4, 0, 0, 0, 0]].concat()),
            )],
            Problem::Malformed,
        ),
        ("nine options", vec![(DESTINATION, options(&[0x1e, 0].repeat(11)))], Problem::Excess),
        (
            "eight octets of padding",
            vec![(DESTINATION, options(&[&[0; 8][..], &[0x1e, 4, 0, 0, 0, 0]].concat()))],
            Problem::Excess,
        ),
        ("nine headers", vec![(DESTINATION, pad()); 9], Problem::Excess),
        ("routing type 0", vec![(ROUTING, routing(0, 1, HOME))], Problem::Routing { pointer: 42 }),
        ("routing type 4", vec![(ROUTING, routing(4, 1, HOME))], Problem::Routing { pointer: 42 }),
        ("routing type 2 with two segments left", vec![(ROUTING, routing(2, 2, HOME))], Problem::Malformed),
        ("the first fragment", vec![(FRAGMENT, fragment(0, true))], Problem::Fragment),
        ("a later fragment", vec![(FRAGMENT, fragment(185, true))], Problem::Fragment),
        ("the last fragment", vec![(FRAGMENT, fragment(185, false))], Problem::Fragment),
    ];
    for (name, chain, expected) in cases {
        assert_eq!(judge(packet(&chain, TCP, &tcp)), Err(expected), "{name}");
    }
}

#[test]
fn a_first_fragment_holds_the_whole_chain() {
    let cases = [
        ("half a TCP header", packet(&[(FRAGMENT, fragment(0, true))], TCP, &[0; 10]), Problem::Chain),
        ("a whole one", packet(&[(FRAGMENT, fragment(0, true))], TCP, &[0; 20]), Problem::Fragment),
        (
            "a header that is not there",
            packet(&[(FRAGMENT, fragment(0, true))], DESTINATION, &[]),
            Problem::Chain,
        ),
        (
            "half a header",
            packet(&[(FRAGMENT, fragment(0, true))], DESTINATION, &[6, 1, 1, 4, 0, 0, 0, 0]),
            Problem::Chain,
        ),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(judge(bytes), Err(expected), "{name}");
    }
}

#[test]
fn lengths_and_addresses_are_checked() {
    let good = || packet(&[], TCP, &[0; 20]);
    let changed = |at: usize, octets: &[u8]| {
        let mut bytes = good();
        bytes[at..at + octets.len()].copy_from_slice(octets);
        bytes
    };
    let loopback = Ipv6Addr::LOCALHOST.octets();
    let cases = [
        ("nothing", vec![], Problem::Truncated),
        ("half a header", good()[..39].to_vec(), Problem::Truncated),
        ("an octet less than it says", good()[..59].to_vec(), Problem::Truncated),
        ("IPv4", changed(0, &[0x45]), Problem::Version(4)),
        ("from a group", changed(8, &[0xff]), Problem::Address),
        ("from this host", changed(8, &loopback), Problem::Address),
        ("to this host", changed(24, &loopback), Problem::Address),
        ("to nobody", changed(24, &[0; 16]), Problem::Address),
        ("an extension header that is not there", packet(&[], DESTINATION, &[]), Problem::Truncated),
        (
            "an extension header longer than the packet",
            packet(&[], DESTINATION, &[6, 9, 1, 4, 0, 0, 0, 0]),
            Problem::Truncated,
        ),
        ("chained to nothing", packet(&[(DESTINATION, pad())], ROUTING, &[]), Problem::Truncated),
    ];
    for (name, bytes, expected) in cases {
        assert_eq!(judge(bytes), Err(expected), "{name}");
    }
}

#[test]
fn what_follows_the_packet_in_its_frame_is_cut_off() {
    let mut bytes = packet(&[], TCP, &[7; 21]);
    bytes.extend([0; 30]);
    let datagram = parse(bytes.into(), Offload::default()).unwrap();
    assert_eq!(datagram.upper_bytes(), &[7; 21]);
    assert_eq!(datagram.packet.len(), 61);
}

#[test]
fn a_checksum_outside_of_the_packet_is_refused() {
    let bytes = Bytes::from(packet(&[], TCP, &[0; 20]));
    let partial = |start| Offload { checksum: Checksum::Partial { start, offset: 16 }, gso: None };
    assert!(parse(bytes.clone(), partial(40)).is_ok());
    for start in [43, u16::MAX] {
        assert_eq!(parse(bytes.clone(), partial(start)), Err(Problem::Offload), "{start}");
    }
}

#[test]
fn only_some_problems_are_answered() {
    let problem = |code, pointer| Some(icmp::Error::ParameterProblem { code, pointer });
    let cases = [
        (Problem::Version(4), None),
        (Problem::Truncated, None),
        (Problem::Address, None),
        (Problem::Offload, None),
        (Problem::Malformed, None),
        (Problem::Excess, None),
        (Problem::Fragment, None),
        (Problem::SilentOption, None),
        (Problem::Chain, problem(3, 0)),
        (Problem::Option { pointer: 42, multicast: true }, problem(2, 42)),
        (Problem::Routing { pointer: 42 }, problem(0, 42)),
        (Problem::Order { pointer: 40 }, problem(1, 40)),
    ];
    for (case, expected) in cases {
        assert_eq!(case.reply(), expected, "{case}");
        assert_eq!(case.replies_to_multicast(), matches!(case, Problem::Option { .. }), "{case}");
    }
}

#[test]
fn extension_headers_are_found_in_their_order() {
    let chain = [
        (HBH, pad()),
        (DESTINATION, home_address()),
        (ROUTING, routing(2, 1, HOME)),
        (FRAGMENT, fragment(0, false)),
    ];
    let datagram = parse(packet(&chain, TCP, &[0; 20]).into(), Offload::default()).unwrap();
    let found: Vec<_> = datagram.extensions().map(|found| (found.kind, found.at, found.len)).collect();
    let expected = [
        (Kind::HopByHop, 40, 8),
        (Kind::Destination, 48, 24),
        (Kind::Routing, 72, 24),
        (Kind::Fragment, 96, 8),
    ];
    assert_eq!(found, expected);
    assert_eq!(datagram.upper_named_at(), 96);
    assert_eq!(datagram.home_address(), Some(HOME));
    assert_eq!(datagram.routed_home(), Some(HOME));
}

#[test]
fn a_plain_packet_has_no_home_address() {
    let cases = [
        ("no extension headers", packet(&[], TCP, &[0; 20])),
        ("a routing header that is used up", packet(&[(ROUTING, routing(2, 0, HOME))], TCP, &[0; 20])),
        ("padding only", packet(&[(DESTINATION, pad())], TCP, &[0; 20])),
    ];
    for (name, bytes) in cases {
        let datagram = parse(bytes.into(), Offload::default()).unwrap();
        assert_eq!((datagram.home_address(), datagram.routed_home()), (None, None), "{name}");
    }
}

#[test]
fn a_router_looks_at_hop_by_hop_options_only() {
    let bytes = packet(&[(HBH, pad()), (DESTINATION, options(&[0xde, 4, 0, 0, 0, 0]))], TCP, &[0; 20]);
    let datagram = parse_transit(bytes.into(), Offload::default()).unwrap();
    assert_eq!((datagram.upper, datagram.upper_at), (DESTINATION, 48));
    let bytes = packet(&[(HBH, options(&[0xde, 4, 0, 0, 0, 0]))], TCP, &[0; 20]);
    let problem = Problem::Option { pointer: 42, multicast: false };
    assert_eq!(parse_transit(bytes.into(), Offload::default()), Err(problem));
    let bytes = packet(&[(FRAGMENT, fragment(185, true))], TCP, &[0; 20]);
    assert!(parse_transit(bytes.into(), Offload::default()).is_ok(), "fragments are forwarded");
}

#[test]
fn a_hop_takes_one_from_the_hop_limit_and_changes_nothing_else() {
    for (before, after) in [(64, Some(63)), (2, Some(1)), (1, None), (0, None)] {
        let mut bytes = packet(&[], TCP, &[9; 50]);
        set_hop_limit(&mut bytes, before);
        let packet = parse(bytes.clone().into(), Offload::default()).unwrap().hop();
        assert_eq!(packet.is_some(), after.is_some(), "{before}");
        if let (Some(packet), Some(after)) = (packet, after) {
            set_hop_limit(&mut bytes, after);
            assert_eq!(packet.to_bytes(), bytes);
        }
    }
}

#[test]
fn a_header_reads_back_as_it_was_written() {
    let header = Header {
        source: SOURCE,
        destination: DEST,
        next_header: 41,
        hop_limit: 3,
        traffic_class: 0xab,
        flow_label: 0xc_dead,
    };
    let bytes = header.emit(0);
    assert_eq!(Header::read(&bytes), Some(header));
    let (judged, _) = etherparse::Ipv6Header::from_slice(&bytes).unwrap();
    assert_eq!((judged.traffic_class, judged.flow_label.value(), judged.hop_limit), (0xab, 0xc_dead, 3));
    assert_eq!(Header::read(&bytes[..39]), None);
}

proptest! {
    #[test]
    fn another_codec_finds_the_same_upper_layer(kinds in proptest::collection::vec(0..3_usize, 0..6), hop: bool) {
        let make = |kind: &usize| match kind {
            0 => (DESTINATION, pad()),
            1 => (ROUTING, routing(0, 0, HOME)),
            _ => (FRAGMENT, fragment(0, false)),
        };
        let mut chain: Vec<_> = hop.then(|| (HBH, pad())).into_iter().collect();
        chain.extend(kinds.iter().map(make));
        let bytes = packet(&chain, UDP, &[0, 1, 0, 2, 0, 8, 0, 0]);
        let (header, rest) = etherparse::Ipv6Header::from_slice(&bytes).unwrap();
        let (upper, rest) = etherparse::Ipv6Header::skip_all_header_extensions_in_slice(rest, header.next_header).unwrap();
        prop_assert_eq!(judge(bytes.clone()), Ok((upper.0, bytes.len() - rest.len())));
    }

    #[test]
    fn no_octets_make_it_panic(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200),
        next in prop::sample::select(vec![HBH, ROUTING, FRAGMENT, DESTINATION, TCP]),
        fit: bool,
    ) {
        if let [first, _, _, _, high, low, next_header, ..] = &mut bytes[..] {
            *first = 0x60;
            *next_header = next;
            if fit {
                (*high, *low) = (0, 0);
            }
        }
        if fit && bytes.len() >= HEADER_LEN {
            bytes[5] = u8::try_from(bytes.len() - HEADER_LEN).unwrap();
        }
        let bytes = Bytes::from(bytes);
        let _ = find_upper(&bytes);
        let _ = icmp::quote(&bytes);
        let _ = parse_transit(bytes.clone(), Offload::default());
        if let Ok(datagram) = parse(bytes, Offload::default()) {
            prop_assert!(datagram.upper_at <= datagram.packet.len());
            let _ = (datagram.home_address(), datagram.routed_home(), datagram.upper_named_at());
            let packet = datagram.packet.clone();
            prop_assert_eq!(datagram.into_packet().to_bytes(), packet);
        }
    }
}
