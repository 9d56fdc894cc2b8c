use super::*;
use crate::world::CLIENT;

const B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 2);
const C: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 2);
const A: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 2);

/// Headers and what they carry, as they lie on the wire.
fn frame(source: Ipv6Addr, destination: Ipv6Addr, next: u8, rest: &[u8]) -> Vec<u8> {
    let mut frame = [[0; 12].as_slice(), &[0x86, 0xdd]].concat();
    frame.extend(packet(source, destination, next, rest));
    frame
}

fn packet(source: Ipv6Addr, destination: Ipv6Addr, next: u8, rest: &[u8]) -> Vec<u8> {
    let length = u16::try_from(rest.len()).expect("short").to_be_bytes();
    let mut packet = vec![0x60, 0, 0, 0, length[0], length[1], next, 64];
    packet.extend(source.octets());
    packet.extend(destination.octets());
    packet.extend(rest);
    packet
}

fn routing(home: Ipv6Addr, next: u8, rest: &[u8]) -> Vec<u8> {
    [&[next, 2, 2, 1, 0, 0, 0, 0], home.octets().as_slice(), rest].concat()
}

fn home_option(home: Ipv6Addr, next: u8, rest: &[u8]) -> Vec<u8> {
    [&[next, 2, 1, 2, 0, 0, 0xc9, 16], home.octets().as_slice(), rest].concat()
}

fn segment(sequence: u8) -> Vec<u8> {
    let mut segment = vec![0, 80, 0x90, 0, 0, 0, 0, sequence, 0, 0, 0, 0, 0x80, 0x10, 0, 0, 0, 0, 0, 0];
    segment.extend([1, 1, 8, 10, 0, 0, 0, sequence, 0, 0, 0, 0]);
    segment
}

fn acknowledgement(status: u8, lifetime: u16) -> Vec<u8> {
    let [high, low] = lifetime.to_be_bytes();
    vec![59, 1, BINDING_ACKNOWLEDGEMENT, 0, 0, 0, status, 0, 0, 1, high, low, 1, 2, 0, 0]
}

fn bound() -> Vec<u8> {
    bound_to(B)
}

fn bound_to(care_of: Ipv6Addr) -> Vec<u8> {
    frame(CLIENT, care_of, ROUTING, &routing(SERVICE, MOBILITY, &acknowledgement(0, 105)))
}

fn straight_to(care_of: Ipv6Addr, sequence: u8) -> Vec<u8> {
    frame(CLIENT, care_of, ROUTING, &routing(SERVICE, TCP, &segment(sequence)))
}

/// The frames in turn, each on a link and in a direction.
fn judge(frames: &[(usize, bool, Vec<u8>)]) -> Straight {
    let mut log = Log::default();
    for (at, (link, outgoing, frame)) in (0..).zip(frames) {
        log.see(at, *link, *outgoing, frame);
    }
    log.judge()
}

#[test]
fn headers_are_read_as_they_lie_on_the_wire() {
    let seen = read(&frame(B, CLIENT, DESTINATION_OPTIONS, &home_option(SERVICE, TCP, &segment(1))));
    let seen = seen.expect("an IPv6 packet");
    assert_eq!((seen.home, seen.routed, seen.inner), (Some(SERVICE), None, None));
    assert!(matches!(seen.upper, Upper::Tcp(_, Some(1))), "{seen:?}");
    let inside = packet(CLIENT, SERVICE, TCP, &segment(2));
    let tunnel = read(&frame(A, B, IPV6, &inside)).expect("an IPv6 packet");
    assert_eq!((tunnel.inner, tunnel.home), (Some((CLIENT, SERVICE)), None));
    assert!(matches!(tunnel.upper, Upper::Tcp(_, Some(2))), "{tunnel:?}");
    assert_eq!(read(&frame(A, B, DESTINATION_OPTIONS, &[6, 200])), None, "longer than the packet");
    assert_eq!(read(&[0; 20]), None);
}

#[test]
fn what_a_bound_client_sends_to_the_service_address_went_through_the_contact_node() {
    let plain = |number| frame(CLIENT, SERVICE, TCP, &segment(number));
    let straight = straight_to(B, 3);
    let before = (TO_CONTACT, true, plain(1));
    let cases = [
        ("before the binding", vec![before.clone(), (2, true, bound())], 0),
        ("straight", vec![(2, true, bound()), (0, false, straight.clone()), (2, true, straight)], 0),
        ("behind the binding", vec![(2, true, bound()), (TO_CONTACT, true, plain(1))], 1),
        (
            "behind its end",
            vec![
                (2, true, bound()),
                (TO_CONTACT, true, frame(CLIENT, SERVICE, MOBILITY, &acknowledgement(0, 0))),
                (TO_CONTACT, true, plain(1)),
            ],
            0,
        ),
        (
            "behind a refusal",
            vec![
                (2, true, frame(CLIENT, B, ROUTING, &routing(SERVICE, MOBILITY, &acknowledgement(128, 0)))),
                (TO_CONTACT, true, plain(1)),
            ],
            0,
        ),
        (
            "sent on a moment later",
            vec![
                before,
                (2, true, bound()),
                (TO_CONTACT, false, frame(A, B, IPV6, &packet(CLIENT, SERVICE, TCP, &segment(1)))),
            ],
            0,
        ),
        (
            "sent on without reason",
            vec![
                (2, true, bound()),
                (TO_CONTACT, false, frame(A, B, IPV6, &packet(CLIENT, SERVICE, TCP, &segment(1)))),
            ],
            1,
        ),
        (
            "handed on through the contact node, from one node to another",
            vec![
                (2, true, bound()),
                (TO_CONTACT, true, frame(C, A, IPV6, &packet(CLIENT, SERVICE, TCP, &segment(1)))),
                (TO_CONTACT, false, frame(A, B, IPV6, &packet(CLIENT, SERVICE, TCP, &segment(1)))),
            ],
            0,
        ),
        (
            "straight to the contact node, which handed on",
            vec![
                (TO_CONTACT, true, bound_to(A)),
                (TO_CONTACT, true, straight_to(A, 1)),
                (2, true, bound()),
                (TO_CONTACT, false, frame(A, B, IPV6, &packet(CLIENT, SERVICE, TCP, &segment(1)))),
            ],
            0,
        ),
        (
            "straight to the contact node, and bound elsewhere",
            vec![(2, true, bound()), (TO_CONTACT, true, straight_to(A, 1))],
            1,
        ),
        (
            "sent back through the contact node",
            vec![
                (2, true, bound()),
                (TO_CONTACT, true, frame(B, A, IPV6, &packet(SERVICE, CLIENT, TCP, &segment(1)))),
            ],
            1,
        ),
    ];
    for (name, frames, expected) in cases {
        let straight = judge(&frames);
        assert_eq!(straight.via_contact, expected, "{name}: {straight:?}");
        assert_eq!(straight.contact_examples.len() as u64, expected, "{name}");
    }
}

#[test]
fn what_a_node_sends_from_the_service_address_behind_options_has_fallen_back() {
    let option = frame(B, CLIENT, DESTINATION_OPTIONS, &home_option(SERVICE, TCP, &segment(1)));
    let plain = frame(SERVICE, CLIENT, TCP, &segment(2));
    let update = frame(B, CLIENT, DESTINATION_OPTIONS, &home_option(SERVICE, MOBILITY, &[59, 1, 5, 0]));
    let told = judge(&[
        (2, true, bound()),
        (2, false, option.clone()),
        (0, true, option.clone()),
        (2, false, plain.clone()),
    ]);
    assert_eq!((told.from_node, told.unbound_from_node, told.fallen_back), (1, 0, 1));
    let again =
        judge(&[(2, true, bound()), (2, false, option.clone()), (0, true, update), (2, false, plain)]);
    assert_eq!(again.fallen_back, 0);
    let unbound = judge(&[(2, false, option.clone()), (0, true, option)]);
    assert_eq!(unbound.unbound_from_node, 1);
}
