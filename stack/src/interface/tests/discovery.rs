use super::*;

const OVERRIDE: u8 = 0x20;
const SOLICITED: u8 = 0x40;

/// The body of a solicitation or an advertisement.
fn body(flags: u8, target: Ipv6Addr, option: Option<(u8, EthernetAddress)>) -> Vec<u8> {
    let mut body = [&[flags, 0, 0, 0][..], &target.octets()].concat();
    if let Some((kind, mac)) = option {
        body.extend([&[kind, 1][..], &mac.0].concat());
    }
    body
}

fn solicitation() -> Icmp {
    let body = body(0, US, Some((1, PEER_MAC)));
    Icmp {
        to_mac: US_GROUP_MAC,
        source: PEER,
        destination: US_GROUP,
        hop_limit: 255,
        kind: 135,
        code: 0,
        body,
    }
}

/// Duplicate address detection.
fn detection() -> Icmp {
    Icmp { source: NOBODY, body: body(0, US, None), ..solicitation() }
}

fn advertisement(target: Ipv6Addr) -> Icmp {
    let body = body(SOLICITED | OVERRIDE, target, Some((2, PEER_MAC)));
    Icmp { to_mac: MAC, source: target, destination: US, hop_limit: 255, kind: 136, code: 0, body }
}

/// The advertisement of `target` that we send.
fn advertised(target: Ipv6Addr, flags: u8, to: Ipv6Addr, to_mac: EthernetAddress) -> Sent {
    let icmp = Some((136, 0, body(flags, target, Some((2, MAC)))));
    Sent { to_mac, source: target, destination: to, hop_limit: 255, icmp }
}

fn defended(target: Ipv6Addr) -> Sent {
    advertised(target, OVERRIDE, ALL_NODES, ALL_NODES_MAC)
}

fn solicited(target: Ipv6Addr) -> Sent {
    let group = groups::solicited_node(target);
    let icmp = Some((135, 0, body(0, target, Some((1, MAC)))));
    Sent { to_mac: groups::mac_of(group), source: US, destination: group, hop_limit: 255, icmp }
}

#[test]
fn a_solicitation_for_our_address_is_answered_to_who_asks() {
    let answer = advertised(US, SOLICITED | OVERRIDE, PEER, PEER_MAC);
    let cases = [
        ("to the group", solicitation()),
        ("to us", Icmp { to_mac: MAC, destination: US, ..solicitation() }),
        ("to us, by the group's link-layer address", Icmp { destination: US_GROUP, ..solicitation() }),
    ];
    for (name, solicitation) in cases {
        assert_eq!(
            swallow(&mut interface(), solicitation.frame(), at(0)),
            core::slice::from_ref(&answer),
            "{name}"
        );
    }
    let nameless = Icmp { to_mac: MAC, destination: US, body: body(0, US, None), ..solicitation() };
    assert_eq!(
        swallow(&mut interface(), nameless.frame(), at(0)),
        [solicited(PEER)],
        "first finds out where"
    );
    assert_eq!(swallow(&mut acquainted(), nameless.frame(), at(0)), [answer], "unless that is known");
}

#[test]
fn a_link_local_address_is_answered_for_as_well() {
    let group = groups::solicited_node(LOCAL);
    let ask = Icmp {
        to_mac: groups::mac_of(group),
        destination: group,
        body: body(0, LOCAL, Some((1, PEER_MAC))),
        ..solicitation()
    };
    let answer = advertised(LOCAL, SOLICITED | OVERRIDE, PEER, PEER_MAC);
    assert_eq!(swallow(&mut interface(), ask.frame(), at(0)), [answer]);
}

#[test]
fn our_address_is_defended_against_detection_by_others() {
    let mut interface = interface();
    assert_eq!(swallow(&mut interface, detection().frame(), at(0)), [defended(US)]);
    assert_eq!(interface.counters().conflicts, 1);
}

#[test]
fn an_address_that_somebody_else_advertises_is_defended_but_not_for_ever() {
    let mut interface = interface();
    let claim = Icmp {
        to_mac: ALL_NODES_MAC,
        destination: ALL_NODES,
        body: body(OVERRIDE, US, Some((2, PEER_MAC))),
        ..advertisement(US)
    };
    let answers: usize = (0..100).map(|ms| swallow(&mut interface, claim.frame(), at(ms)).len()).sum();
    assert_eq!((answers, interface.counters().conflicts), (4, 100));
    assert_eq!(swallow(&mut interface, claim.frame(), at(1100)), [defended(US)]);
}

#[test]
fn an_address_that_was_left_to_somebody_else_is_neither_answered_for_nor_defended_but_what_comes_is_taken() {
    let mut interface = interface();
    interface.cede_address(US);
    let claim = Icmp {
        to_mac: ALL_NODES_MAC,
        destination: ALL_NODES,
        body: body(OVERRIDE, US, Some((2, PEER_MAC))),
        ..advertisement(US)
    };
    let to_us = Icmp { to_mac: MAC, destination: US, ..solicitation() };
    for (name, frame) in
        [("asked", solicitation()), ("asked alone", to_us), ("probed", detection()), ("claimed", claim)]
    {
        assert_eq!(swallow(&mut interface, frame.frame(), at(0)), [], "{name}");
    }
    assert!(interface.has_address(US));
    interface.add_address(Address { address: US, prefix_len: 64 }, false, at(1));
    while interface.poll_transmit().is_some() {}
    assert_eq!(swallow(&mut interface, detection().frame(), at(2)), [defended(US)]);
}

#[test]
fn discovery_that_breaks_a_rule_of_rfc_4861_is_met_with_silence() {
    let with = |body: Vec<u8>| Icmp { body, ..solicitation() };
    let short = |octets: usize| with(solicitation().body[..octets].to_vec());
    let cases = [
        ("forwarded", Icmp { hop_limit: 254, ..solicitation() }),
        ("another code", Icmp { code: 1, ..solicitation() }),
        ("for a group", with(body(0, US_GROUP, Some((1, PEER_MAC))))),
        ("without a target", short(4)),
        ("with half a target", short(19)),
        ("with half an option", short(23)),
        (
            "with an option of no length",
            with([&solicitation().body[..20], &[1, 0, 0, 0, 0, 0, 0, 0]].concat()),
        ),
        ("from nobody, with an address", Icmp { body: solicitation().body, ..detection() }),
        ("from nobody, not to the group", Icmp { to_mac: MAC, destination: US, ..detection() }),
        ("from nobody, to all", Icmp { to_mac: ALL_NODES_MAC, destination: ALL_NODES, ..detection() }),
        ("for somebody else", with(body(0, FAR, Some((1, PEER_MAC))))),
        ("from ourselves", Icmp { source: US, ..solicitation() }),
        ("an advertisement, forwarded", Icmp { hop_limit: 64, ..advertisement(US) }),
        (
            "an advertisement to all that was asked for",
            Icmp { to_mac: ALL_NODES_MAC, destination: ALL_NODES, ..advertisement(US) },
        ),
        ("a router solicitation", Icmp { kind: 133, body: vec![0; 4], ..solicitation() }),
        ("a router advertisement", Icmp { kind: 134, body: vec![0; 12], ..solicitation() }),
        ("a redirect", Icmp { kind: 137, body: vec![0; 36], ..solicitation() }),
    ];
    for (name, message) in cases {
        assert_eq!(swallow(&mut interface(), message.frame(), at(0)), [], "{name}");
    }
    let mut bytes = solicitation().frame().head.to_vec();
    bytes[70] ^= 1;
    let mut interface = interface();
    assert_eq!(swallow(&mut interface, Frame::received(bytes.into()), at(0)), [], "a wrong checksum");
    assert_eq!(interface.counters().bad_checksum, 1);
}

#[test]
fn discovery_in_a_fragment_is_met_with_silence() {
    let plain = solicitation().frame().head;
    let mut packet = plain[14..54].to_vec();
    packet[6] = 44;
    packet[5] += 8;
    packet.extend([58, 0, 0, 0, 0, 0, 0, 1]);
    packet.extend_from_slice(&plain[54..]);
    assert_eq!(swallow(&mut interface(), framed(US_GROUP_MAC, &packet), at(0)), []);
}

#[test]
fn a_packet_waits_until_its_neighbour_is_found_and_the_next_does_not() {
    let mut interface = interface();
    interface.send(outgoing(PEER, 100), at(0));
    interface.send(outgoing(PEER, 200), at(1));
    assert_eq!(sent(&mut interface), [solicited(PEER)]);
    assert_eq!(interface.receive(advertisement(PEER).frame(), at(2)), None);
    let frames: Vec<_> = core::iter::from_fn(|| interface.poll_transmit()).collect();
    assert_eq!(frames.iter().map(|frame| frame.body.len()).collect::<Vec<_>>(), [100, 200]);
    assert!(frames.iter().all(|frame| judge(frame).to_mac == PEER_MAC));
    interface.send(outgoing(PEER, 300), at(3));
    assert_eq!(sent(&mut interface).len(), 1);
    assert_eq!(interface.deadline(), None);
}

#[test]
fn a_neighbour_that_does_not_answer_is_asked_by_the_clock() {
    let mut interface = interface();
    interface.send(outgoing(PEER, 100), at(0));
    let mut asked = sent(&mut interface).len();
    for second in 1..=3 {
        assert_eq!(interface.deadline(), Some(at(second * 1000)));
        interface.handle_timeout(at(second * 1000));
        asked += sent(&mut interface).iter().filter(|frame| **frame == solicited(PEER)).count();
    }
    assert_eq!((asked, interface.deadline(), interface.counters().unresolved), (3, None, 1));
}

#[test]
fn an_advertised_group_is_nobodys_link_layer_address() {
    let mut interface = interface();
    interface.send(outgoing(PEER, 100), at(0));
    sent(&mut interface);
    for mac in [ALL_NODES_MAC, EthernetAddress::BROADCAST] {
        let lie = Icmp { body: body(SOLICITED, PEER, Some((2, mac))), ..advertisement(PEER) };
        assert_eq!(swallow(&mut interface, lie.frame(), at(1)), []);
    }
}

#[test]
fn an_announcement_is_made_three_times_a_second_apart() {
    let mut interface = interface();
    interface.add_address(Address { address: SERVICE, prefix_len: 128 }, true, at(500));
    let announced = |interface: &mut Interface| {
        sent(interface).iter().filter(|frame| **frame == defended(SERVICE)).count()
    };
    assert_eq!(announced(&mut interface), 1);
    for (now, expected) in [(1499, 0), (1500, 1), (2499, 0), (2500, 1), (3500, 0), (9999, 0)] {
        interface.handle_timeout(at(now));
        assert_eq!(announced(&mut interface), expected, "{now}");
    }
    assert_eq!(interface.deadline(), None);
}

#[test]
fn an_address_that_was_added_is_answered_for_until_it_is_removed() {
    let group = groups::solicited_node(SERVICE);
    let ask = Icmp {
        to_mac: SERVICE_GROUP_MAC,
        destination: group,
        body: body(0, SERVICE, Some((1, PEER_MAC))),
        ..solicitation()
    };
    let answer = advertised(SERVICE, SOLICITED | OVERRIDE, PEER, PEER_MAC);
    let mut interface = interface();
    assert_eq!(swallow(&mut interface, ask.frame(), at(0)), []);
    interface.add_address(Address { address: SERVICE, prefix_len: 128 }, false, at(1));
    sent(&mut interface);
    assert_eq!(swallow(&mut interface, ask.frame(), at(2)), [answer]);
    interface.remove_address(SERVICE);
    sent(&mut interface);
    assert_eq!(swallow(&mut interface, ask.frame(), at(3)), []);
    assert!(interface.has_address(US) && !interface.has_address(SERVICE));
}

#[test]
fn an_address_that_is_removed_is_not_announced_any_more() {
    let mut interface = interface();
    interface.add_address(Address { address: SERVICE, prefix_len: 128 }, true, at(0));
    interface.remove_address(SERVICE);
    sent(&mut interface);
    for second in 1..5 {
        interface.handle_timeout(at(second * 1000));
        assert!(!sent(&mut interface).contains(&defended(SERVICE)), "{second}");
    }
}

/// The groups that a listener report names, with what it says of them.
fn reported(frames: &[Sent]) -> Vec<(u8, Ipv6Addr)> {
    let mut found = Vec::new();
    for frame in frames {
        let Some((143, 0, body)) = &frame.icmp else { continue };
        assert_eq!((frame.source, frame.hop_limit), (LOCAL, 1));
        assert_eq!(frame.destination, "ff02::16".parse::<Ipv6Addr>().unwrap());
        for record in body[4..].chunks(20) {
            found.push((record[0], ip::address(record, 4).unwrap()));
        }
    }
    found
}

#[test]
fn snooping_bridges_learn_which_groups_we_listen_to() {
    let own = Address { address: US, prefix_len: 64 };
    let mut interface = Interface::new(Config { mac: MAC, addresses: vec![own], gateway: None, mtu: 1500 });
    let (local, service) = (groups::solicited_node(LOCAL), groups::solicited_node(SERVICE));
    assert_eq!(reported(&sent(&mut interface)), [(4, local), (4, US_GROUP)]);
    interface.add_address(Address { address: SERVICE, prefix_len: 128 }, false, at(0));
    let all = [(4, local), (4, US_GROUP), (4, service)];
    assert_eq!(reported(&sent(&mut interface)), all);
    assert_eq!(interface.deadline(), Some(at(1000)));
    interface.handle_timeout(at(1000));
    assert_eq!((reported(&sent(&mut interface)), interface.deadline()), (all.to_vec(), None));
    interface.remove_address(SERVICE);
    assert_eq!(reported(&sent(&mut interface)), [(3, service)]);
    let source = "fe80::1".parse().unwrap();
    let query = Icmp {
        to_mac: ALL_NODES_MAC,
        source,
        destination: ALL_NODES,
        hop_limit: 1,
        kind: 130,
        code: 0,
        body: vec![0; 24],
    };
    assert_eq!(reported(&swallow(&mut interface, query.frame(), at(2000))), [(2, local), (2, US_GROUP)]);
    let forged = Icmp { source: PEER, ..query.clone() };
    assert_eq!(swallow(&mut interface, forged.frame(), at(2000)), []);
    let many: usize = (0..100).map(|_| swallow(&mut interface, query.frame(), at(2001)).len()).sum();
    assert_eq!(many, 1, "a storm of queries makes no storm of reports");
}
