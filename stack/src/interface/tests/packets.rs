use super::*;
use crate::Checksum;
use crate::frame::Gso;

fn echo(destination: Ipv6Addr, to_mac: EthernetAddress) -> Icmp {
    let body = vec![1, 2, 3, 4, 9, 9, 9];
    Icmp { to_mac, source: PEER, destination, hop_limit: 64, kind: 128, code: 0, body }
}

fn error(kind: u8, code: u8, pointer: u32, about: &[u8]) -> Sent {
    let icmp = Some((kind, code, [&pointer.to_be_bytes(), about].concat()));
    Sent { to_mac: PEER_MAC, source: US, destination: PEER, hop_limit: 64, icmp }
}

#[test]
fn frames_for_others_are_left_alone() {
    let tcp = packet(US, ip::TCP, &[0; 20]);
    let mut loop_back = framed(MAC, &tcp).head.to_vec();
    loop_back[6..12].copy_from_slice(&MAC.0);
    let mut arp = framed(MAC, &tcp).head.to_vec();
    arp[12..14].copy_from_slice(&[8, 6]);
    let cases = [
        ("another station", framed(PEER_MAC, &tcp)),
        ("broadcast", framed(EthernetAddress::BROADCAST, &tcp)),
        ("another group", framed(EthernetAddress([0x33, 0x33, 0, 0, 0, 2]), &tcp)),
        ("our packet, sent to all", framed(ALL_NODES_MAC, &tcp)),
        ("from ourselves", Frame::received(loop_back.into())),
        ("another protocol", Frame::received(arp.into())),
        ("another address", framed(MAC, &packet(SERVICE, ip::TCP, &[0; 20]))),
        ("another group's address", framed(MAC, &packet("ff02::2".parse().unwrap(), ip::TCP, &[0; 20]))),
    ];
    for (name, frame) in cases {
        let mut interface = acquainted();
        assert_eq!(swallow(&mut interface, frame, at(0)), [], "{name}");
        assert_eq!(interface.counters().not_ours, 1, "{name}");
    }
}

#[test]
fn what_the_caller_deals_with_is_given_to_it_as_it_is() {
    for upper in [ip::TCP, ip::IPV6] {
        let bytes = packet(US, upper, &[5; 60]);
        let datagram = acquainted().receive(framed(MAC, &bytes), at(0)).unwrap();
        assert_eq!((datagram.upper, &datagram.packet[..]), (upper, &bytes[..]));
        assert_eq!((datagram.source, datagram.destination), (PEER, US));
    }
    for kind in [1, 2, 3, 4, 100, 127, 129] {
        let message = Icmp { kind, ..echo(US, MAC) };
        let datagram = acquainted().receive(message.frame(), at(0)).unwrap();
        assert_eq!((datagram.upper, datagram.upper_bytes()[0]), (ip::ICMPV6, kind));
    }
}

#[test]
fn what_a_group_must_not_be_sent_goes_no_further() {
    for upper in [ip::TCP, ip::IPV6, ip::UDP, 200] {
        let frame = framed(ALL_NODES_MAC, &packet(ALL_NODES, upper, &[5; 60]));
        assert_eq!(swallow(&mut acquainted(), frame, at(0)), [], "{upper}");
    }
    let message = Icmp { kind: 1, ..echo(ALL_NODES, ALL_NODES_MAC) };
    assert_eq!(swallow(&mut acquainted(), message.frame(), at(0)), [], "an error");
    let mut nameless = packet(US, ip::TCP, &[0; 20]);
    nameless[8..24].fill(0);
    assert_eq!(swallow(&mut acquainted(), framed(MAC, &nameless), at(0)), [], "TCP from nobody");
}

#[test]
fn echo_is_answered_by_the_address_that_was_asked() {
    let reply = |source| {
        let icmp = Some((129, 0, vec![1, 2, 3, 4, 9, 9, 9]));
        [Sent { to_mac: PEER_MAC, source, destination: PEER, hop_limit: 64, icmp }]
    };
    assert_eq!(swallow(&mut acquainted(), echo(US, MAC).frame(), at(0)), reply(US));
    assert_eq!(swallow(&mut acquainted(), echo(LOCAL, MAC).frame(), at(0)), reply(LOCAL));
    assert_eq!(swallow(&mut acquainted(), echo(ALL_NODES, ALL_NODES_MAC).frame(), at(0)), reply(US));
    let nameless = Icmp { source: NOBODY, ..echo(US, MAC) };
    assert_eq!(swallow(&mut acquainted(), nameless.frame(), at(0)), []);
    let short = Icmp { body: vec![1, 2], ..echo(US, MAC) };
    assert_eq!(swallow(&mut acquainted(), short.frame(), at(0)), []);
    let large = Icmp { body: vec![3; 1452], ..echo(US, MAC) };
    assert_eq!(swallow(&mut acquainted(), large.frame(), at(0)).len(), 1);
}

#[test]
fn what_nobody_here_knows_is_answered_with_an_error() {
    let about = |upper: u8| packet(US, upper, &[5; 60]);
    let option = {
        let mut packet = packet(US, 60, &[&[6, 0, 0xde, 4, 0, 0, 0, 0][..], &[0; 20]].concat());
        packet[7] = 9;
        packet
    };
    let home = packet(US, 60, &[&[6, 2, 1, 2, 0, 0, 0xc9, 16][..], &SERVICE.octets(), &[0; 20]].concat());
    let routed = packet(US, 43, &[&[6, 2, 2, 1, 0, 0, 0, 0][..], &SERVICE.octets(), &[0; 20]].concat());
    let behind = packet(US, 60, &[&[200, 0, 1, 4, 0, 0, 0, 0][..], &[0; 20]].concat());
    let cases = [
        ("UDP", about(ip::UDP), error(1, 4, 0, &about(ip::UDP))),
        ("a protocol", about(200), error(4, 1, 6, &about(200))),
        ("a protocol behind options", behind.clone(), error(4, 1, 40, &behind)),
        ("a Mobility Header", about(ip::MOBILITY), error(4, 1, 6, &about(ip::MOBILITY))),
        ("an option", option.clone(), error(4, 2, 42, &option)),
        ("a home address", home.clone(), error(4, 2, 46, &home)),
        ("a type 2 routing header", routed.clone(), error(4, 0, 42, &routed)),
    ];
    for (name, bytes, expected) in cases {
        let mut interface = acquainted();
        assert_eq!(swallow(&mut interface, framed(MAC, &bytes), at(0)), [expected], "{name}");
        assert_eq!(interface.counters().errors_sent, 1, "{name}");
    }
    let nothing = packet(US, ip::NO_NEXT_HEADER, &[5; 60]);
    assert_eq!(swallow(&mut acquainted(), framed(MAC, &nothing), at(0)), [], "no next header");
    let malformed = packet(US, 60, &[6, 9, 1, 4, 0, 0, 0, 0]);
    assert_eq!(swallow(&mut acquainted(), framed(MAC, &malformed), at(0)), [], "a chain that breaks off");
}

#[test]
fn mobility_is_left_to_a_caller_that_knows_it() {
    let home = packet(US, 60, &[&[6, 2, 1, 2, 0, 0, 0xc9, 16][..], &SERVICE.octets(), &[0; 20]].concat());
    let routed = packet(US, 43, &[&[6, 2, 2, 1, 0, 0, 0, 0][..], &SERVICE.octets(), &[0; 20]].concat());
    let mut interface = acquainted();
    interface.set_mobility(true);
    let datagram = interface.receive(framed(MAC, &home), at(0)).unwrap();
    assert_eq!((datagram.home_address(), datagram.upper), (Some(SERVICE), ip::TCP));
    let datagram = interface.receive(framed(MAC, &routed), at(0)).unwrap();
    assert_eq!(datagram.routed_home(), Some(SERVICE));
    let datagram = interface.receive(framed(MAC, &packet(US, ip::MOBILITY, &[0; 8])), at(0)).unwrap();
    assert_eq!(datagram.upper, ip::MOBILITY);
    assert_eq!(sent(&mut interface), []);
}

#[test]
fn errors_are_sent_at_a_bounded_rate() {
    let mut interface = acquainted();
    let frame = framed(MAC, &packet(US, 200, &[5; 60]));
    let count: usize = (0..500).map(|_| swallow(&mut interface, frame.clone(), at(0)).len()).sum();
    assert_eq!((count, interface.counters().errors_suppressed), (50, 450));
    assert_eq!(swallow(&mut interface, frame, at(1)).len(), 1);
}

#[test]
fn an_error_about_a_datagram_is_sent_at_the_callers_wish() {
    let mut interface = acquainted();
    let bytes = packet(US, ip::TCP, &[0; 20]);
    let datagram = interface.receive(framed(MAC, &bytes), at(0)).unwrap();
    interface.icmp_error(&datagram, icmp::Error::PacketTooBig { mtu: 1400 }, at(0));
    assert_eq!(sent(&mut interface), [error(2, 0, 1400, &bytes)]);
}

#[test]
fn a_packet_goes_to_the_next_hop_that_its_destination_has() {
    let local = "fe80::77".parse().unwrap();
    let cases = [
        ("on the link", PEER, Some(PEER)),
        ("far away", FAR, Some(GATEWAY)),
        ("link-local", local, Some(local)),
    ];
    for (name, destination, hop) in cases {
        assert_eq!(interface().next_hop(destination), hop, "{name}");
    }
    let service = Address { address: SERVICE, prefix_len: 128 };
    let mut lonely = Interface::new(Config { mac: MAC, addresses: vec![service], gateway: None, mtu: 1500 });
    sent(&mut lonely);
    for destination in [FAR, SERVICE] {
        lonely.send(outgoing(destination, 1), at(0));
    }
    assert_eq!(
        (sent(&mut lonely), lonely.counters().no_route),
        (vec![], 2),
        "prefix 128 puts nobody on the link"
    );
    let everything = Address { address: US, prefix_len: 0 };
    assert!(everything.has_on_link(FAR));
}

#[test]
fn a_frame_carries_its_payload_uncopied_and_its_offload_shifted() {
    let mut interface = acquainted();
    let mut packet = outgoing(PEER, 4000);
    packet.offload =
        Offload { checksum: Checksum::Partial { start: 40, offset: 16 }, gso: Some(Gso { size: 1440 }) };
    let body = packet.body.as_ptr();
    interface.send(packet, at(1));
    let frame = interface.poll_transmit().unwrap();
    assert_eq!(frame.body.as_ptr(), body);
    assert_eq!(frame.offload.checksum, Checksum::Partial { start: 54, offset: 16 });
    assert_eq!(frame.offload.gso, Some(Gso { size: 1440 }));
    let back = Frame { head: [&MAC.0[..], &PEER_MAC.0, &frame.head[12..]].concat().into(), ..frame };
    let mut swapped = back.head.to_vec();
    swapped[22..38].copy_from_slice(&PEER.octets());
    swapped[38..54].copy_from_slice(&US.octets());
    let datagram = interface.receive(Frame { head: swapped.into(), ..back }, at(2)).unwrap();
    assert_eq!(datagram.offload.checksum, Checksum::Partial { start: 40, offset: 16 });
    assert_eq!(datagram.packet.len(), 4060);
}

#[test]
fn a_packet_that_the_link_cannot_carry_is_not_sent() {
    let mut interface = acquainted();
    interface.send(outgoing(PEER, 1440), at(0));
    assert_eq!((sent(&mut interface).len(), interface.counters().too_big), (1, 0));
    interface.send(outgoing(PEER, 1441), at(0));
    assert_eq!((sent(&mut interface).len(), interface.counters().too_big), (0, 1));
    interface.send(Packet::default(), at(0));
    assert_eq!((sent(&mut interface).len(), interface.counters().malformed), (0, 1));
}

#[test]
fn traffic_above_keeps_its_next_hop_reachable() {
    let mut interface = interface();
    interface.neighbours.heard(GATEWAY, GATEWAY_MAC, at(0));
    interface.confirm_reachable(FAR, at(0));
    interface.send(outgoing(FAR, 1), at(29_999));
    assert_eq!(interface.deadline(), None, "no probe is due");
    interface.send(outgoing(FAR, 1), at(30_000));
    assert_eq!(interface.deadline(), Some(at(35_000)));
    interface.confirm_reachable(FAR, at(31_000));
    assert_eq!(interface.deadline(), None);
}

fn router() -> Interface {
    let mut router = acquainted();
    router.set_forwarding(true);
    router
}

#[test]
fn a_router_gives_out_what_is_for_others() {
    let bytes = packet(FAR, ip::TCP, &[0; 20]);
    let datagram = router().receive(framed(MAC, &bytes), at(0)).unwrap();
    let mut onward = datagram.hop().unwrap().to_bytes().to_vec();
    assert_eq!(onward[7], 63);
    onward[7] = 64;
    assert_eq!(onward, bytes);
    let odd = packet(FAR, 200, &[0; 20]);
    assert!(router().receive(framed(MAC, &odd), at(0)).is_some(), "whatever it carries");
}

#[test]
fn what_belongs_to_a_link_stays_on_it() {
    let mut from_local = packet(FAR, ip::TCP, &[0; 20]);
    from_local[8..24].copy_from_slice(&Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 7).octets());
    let mut from_nobody = packet(FAR, ip::TCP, &[0; 20]);
    from_nobody[8..24].fill(0);
    let cases = [
        ("to a link-local address", packet("fe80::9".parse().unwrap(), ip::TCP, &[0; 20])),
        ("to a group", packet("ff0e::9".parse().unwrap(), ip::TCP, &[0; 20])),
        ("from a link-local address", from_local),
        ("from nobody", from_nobody),
    ];
    for (name, bytes) in cases {
        assert_eq!(swallow(&mut router(), framed(MAC, &bytes), at(0)), [], "{name}");
    }
}

#[test]
fn a_router_says_when_the_last_hop_does_not_answer() {
    let mut router = router();
    let absent = "2001:db8:a::99".parse().unwrap();
    let bytes = packet(absent, ip::TCP, &[0; 20]);
    let onward = router.receive(framed(MAC, &bytes), at(0)).unwrap().hop().unwrap();
    let about = onward.to_bytes();
    router.send(onward, at(0));
    router.send(outgoing(absent, 10), at(0));
    for second in 1..=2 {
        router.handle_timeout(at(second * 1000));
    }
    sent(&mut router);
    router.handle_timeout(at(3000));
    assert_eq!(sent(&mut router), [error(1, 3, 0, &about)], "and says nothing to itself");
}
