use super::*;

const SERVICE_GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x55);

/// One that answers for the service address, of which everybody has heard.
fn proxy() -> Interface {
    let mut interface = acquainted();
    interface.add_proxy(SERVICE, at(0));
    interface.handle_timeout(at(10_000));
    interface.handle_timeout(at(20_000));
    sent(&mut interface);
    interface
}

/// An echo request for the service address.
fn ping() -> Icmp {
    Icmp {
        to_mac: MAC,
        source: PEER,
        destination: SERVICE,
        hop_limit: 64,
        kind: 128,
        code: 0,
        body: vec![0, 7, 0, 9, 1],
    }
}

/// A solicitation for the service address.
fn solicitation() -> Icmp {
    let body = [&[0, 0, 0, 0][..], &SERVICE.octets(), &[1, 1], &PEER_MAC.0].concat();
    Icmp { to_mac: SERVICE_GROUP_MAC, destination: SERVICE_GROUP, hop_limit: 255, kind: 135, body, ..ping() }
}

fn adverts(interface: &mut Interface) -> Vec<(Ipv6Addr, u8)> {
    let advert =
        |sent: Sent| sent.icmp.filter(|icmp| icmp.0 == 136).map(|icmp| (sent.destination, icmp.2[0]));
    sent(interface).into_iter().filter_map(advert).collect()
}

#[test]
fn who_answers_for_an_address_of_another_says_so_and_is_asked() {
    let mut interface = acquainted();
    interface.add_proxy(SERVICE, at(0));
    assert_eq!(adverts(&mut interface), [(ALL_NODES, 0x20)], "announced with the override flag");
    interface.receive(solicitation().frame(), at(1));
    assert_eq!(adverts(&mut interface), [(PEER, 0x60)]);
    assert!(!interface.has_address(SERVICE));
}

#[test]
fn what_comes_for_an_address_of_another_goes_up_untouched() {
    let mut interface = proxy();
    let echo = interface.receive(ping().frame(), at(30_000)).unwrap();
    assert_eq!((echo.destination, echo.hop_limit), (SERVICE, 64));
    for upper in [ip::TCP, ip::UDP, ip::MOBILITY, 200] {
        let datagram = interface.receive(framed(MAC, &packet(SERVICE, upper, &[1; 40])), at(30_001)).unwrap();
        assert_eq!(datagram.upper, upper);
    }
    assert!(interface.receive(framed(MAC, &packet(FAR, ip::TCP, &[1; 40])), at(30_002)).is_none());
    assert_eq!(sent(&mut interface), []);
}

#[test]
fn link_local_senders_stay_on_their_link() {
    let mut interface = proxy();
    let local = Icmp { source: LOCAL, ..ping() };
    assert!(interface.receive(local.frame(), at(30_000)).is_none());
}

#[test]
fn an_address_that_came_home_is_not_answered_for_any_more() {
    let mut interface = proxy();
    interface.remove_proxy(SERVICE);
    sent(&mut interface);
    assert!(interface.receive(ping().frame(), at(30_000)).is_none());
    interface.receive(solicitation().frame(), at(30_001));
    assert_eq!(sent(&mut interface), []);
}
