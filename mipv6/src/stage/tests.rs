use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use ferry_stack::ip::Header;
use ferry_stack::{Gso, Offload, checksum};

use super::*;

const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 1);
const SERVICE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 1);
const A: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 2);
const B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 2);

fn packet(next_header: u8, front: &[u8], payload: &[u8]) -> Packet {
    let header = Header { source: CLIENT, destination: SERVICE, next_header, ..Header::default() };
    let mut head = header.emit(front.len() + payload.len());
    head.extend_from_slice(front);
    Packet { head, body: Bytes::copy_from_slice(payload), ..Packet::default() }
}

fn segment(payload: &[u8]) -> Packet {
    let tcp = [0x9c, 0x40, 0, 80, 0, 0, 0, 1, 0, 0, 0, 2, 0x50, 0x18, 0x10, 0, 0, 0, 0, 0];
    let mut packet = packet(ip::TCP, &tcp, payload);
    checksum::transport(&mut packet, 40, checksum::TCP, false);
    packet
}

fn with_home_address() -> Packet {
    packet(60, &[&[6, 2, 1, 2, 0, 0, 0xc9, 16][..], &B.octets()].concat(), &[0; 20])
}

fn with_routing_header() -> Packet {
    packet(43, &[&[6, 2, 2, 1, 0, 0, 0, 0][..], &B.octets()].concat(), &[0; 20])
}

fn arrived(packet: &Packet) -> Datagram {
    ip::parse(packet.to_bytes(), Offload::default()).unwrap()
}

fn stage() -> Stage {
    Stage::new(SERVICE, [A])
}

fn tunnelled(inner: Packet, entry: Ipv6Addr) -> Datagram {
    arrived(&tunnel::encapsulate(inner, entry, B).unwrap())
}

#[test]
fn a_plain_packet_goes_through_as_it_is() {
    let datagram = arrived(&segment(b"hello"));
    assert_eq!(stage().inbound(datagram.clone()), Inbound::Direct(datagram));
}

#[test]
fn a_tunnel_of_a_node_is_opened() {
    let Inbound::Tunnelled { via, datagram } = stage().inbound(tunnelled(segment(b"hello"), A)) else {
        panic!()
    };
    let mut expected = segment(b"hello");
    ip::set_hop_limit(&mut expected.head, 63);
    assert_eq!((via, datagram), (A, arrived(&expected)));
}

#[test]
fn what_goes_no_further_says_why() {
    let cases = [
        ("a stranger's tunnel", tunnelled(segment(b""), CLIENT), Reason::Stranger(CLIENT)),
        (
            "a tunnel in a tunnel",
            tunnelled(tunnel::encapsulate(segment(b""), A, B).unwrap(), A),
            Reason::Nested,
        ),
        ("a home address", arrived(&with_home_address()), Reason::NoBinding(B)),
        ("a home address in a tunnel", tunnelled(with_home_address(), A), Reason::NoBinding(B)),
        ("a routing header", arrived(&with_routing_header()), Reason::NoHome(B)),
        ("a routing header in a tunnel", tunnelled(with_routing_header(), A), Reason::NoHome(B)),
        (
            "a tunnel with nothing in it",
            arrived(&tunnel_of(&[])),
            Reason::Tunnel(Problem::Inner(ip::Problem::Truncated)),
        ),
    ];
    for (name, datagram, expected) in cases {
        assert_eq!(stage().inbound(datagram.clone()), Inbound::Dropped(expected, datagram), "{name}");
    }
}

#[test]
fn what_is_routed_home_is_at_home() {
    for (home, ours) in [(SERVICE, true), (B, false)] {
        let mut packet = segment(b"hello");
        packet.head[24..40].copy_from_slice(&home.octets());
        assert!(crate::route::put_routing(&mut packet, A));
        match stage().inbound(arrived(&packet)) {
            Inbound::Direct(datagram) if ours => assert_eq!(datagram.destination, SERVICE),
            Inbound::Dropped(Reason::NoHome(known), _) if !ours => assert_eq!(known, B),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn an_optimised_path_carries_the_home_address_in_an_option() {
    let path = Path::Optimised { care_of: B };
    let mut packet = segment(&[0; 3000]);
    packet.head[8..24].copy_from_slice(&SERVICE.octets());
    packet.offload.gso = Some(Gso { size: 1400 });
    let (result, packets) = sent(packet.clone(), &path);
    assert_eq!((result, packets.len()), (Ok(()), 1), "whoever cuts it below repeats the option");
    assert_eq!(packets[0].len(), packet.len() + usize::from(path.overhead()));
    assert_eq!((packets[0].source(), packets[0].offload.gso), (Some(B), packet.offload.gso));
}

fn tunnel_of(payload: &[u8]) -> Packet {
    let header = Header { source: A, destination: B, next_header: ip::IPV6, ..Header::default() };
    Packet { head: header.emit(payload.len()), body: Bytes::copy_from_slice(payload), ..Packet::default() }
}

#[test]
fn who_is_a_member_can_change() {
    let mut stage = stage();
    let opened =
        |stage: &Stage| matches!(stage.inbound(tunnelled(segment(b""), B)), Inbound::Tunnelled { .. });
    assert!(!opened(&stage));
    stage.admit(B);
    assert!(opened(&stage));
    stage.dismiss(B);
    assert!(!opened(&stage));
}

fn sent(packet: Packet, path: &Path) -> (Result<(), Refused>, Vec<Packet>) {
    let mut packets = Vec::new();
    let result = stage().outbound(packet, path, |packet| packets.push(packet));
    (result, packets)
}

#[test]
fn a_direct_path_adds_nothing() {
    let mut merged = segment(&[0; 3000]);
    merged.offload.gso = Some(Gso { size: 1400 });
    assert_eq!(sent(merged.clone(), &Path::Direct), (Ok(()), vec![merged]));
    assert_eq!(Path::default().overhead(), 0);
}

#[test]
fn a_tunnel_path_adds_its_overhead_to_every_segment() {
    let path = Path::Tunnel { entry: B, exit: A };
    let payload: Vec<u8> = (0..=255).cycle().take(3000).collect();
    let mut merged = segment(&payload);
    checksum::transport(&mut merged, 40, checksum::TCP, true);
    merged.offload.gso = Some(Gso { size: 1400 });
    let (result, packets) = sent(merged, &path);
    assert_eq!(result, Ok(()));
    let lengths: Vec<_> = packets.iter().map(Packet::len).collect();
    let added = usize::from(path.overhead());
    assert_eq!(lengths, [1400, 1400, 200].map(|payload| payload + 60 + added));
    let mut carried = Vec::new();
    for packet in packets {
        let inner = tunnel::decapsulate(&arrived(&packet)).unwrap();
        assert!(checksum::verify(&inner));
        carried.extend_from_slice(&inner.upper_bytes()[20..]);
    }
    assert_eq!(carried, payload);
}

#[test]
fn nothing_is_tunnelled_to_a_stranger_or_with_no_hops_left() {
    let (result, packets) = sent(segment(b"x"), &Path::Tunnel { entry: B, exit: CLIENT });
    assert_eq!((result, packets), (Err(Refused::Stranger(CLIENT)), vec![]));
    let mut tired = segment(b"x");
    ip::set_hop_limit(&mut tired.head, 1);
    let (result, packets) = sent(tired, &Path::Tunnel { entry: B, exit: A });
    assert_eq!((result, packets), (Err(Refused::Expired), vec![]));
}
