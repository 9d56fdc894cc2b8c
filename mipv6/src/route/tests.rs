use core::net::Ipv6Addr;

use ferry_stack::Offload;

use super::*;
use crate::header::{Message, open};
use crate::keys::Cookie;

const HOME: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 1);
const CARE_OF: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 2);
const OTHER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xc);
const OTHER_CARE_OF: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 2);

fn packet() -> Packet {
    Outgoing::plain(HOME, OTHER, Message::HomeTestInit(Cookie([7; 8]))).packet()
}

#[test]
fn a_packet_between_care_of_addresses_is_one_between_home_addresses() {
    for routing_first in [true, false] {
        let mut sent = packet();
        let plain = ip::parse(sent.to_bytes(), Offload::default()).unwrap();
        if routing_first {
            assert!(put_routing(&mut sent, OTHER_CARE_OF) && put_home_address(&mut sent, CARE_OF));
        } else {
            assert!(put_home_address(&mut sent, CARE_OF) && put_routing(&mut sent, OTHER_CARE_OF));
        }
        assert_eq!(sent.len(), plain.packet.len() + usize::from(HOME_ADDRESS_OVERHEAD + ROUTING_OVERHEAD));
        let arrived = ip::parse(sent.to_bytes(), Offload::default()).unwrap();
        assert_eq!((arrived.source, arrived.destination), (CARE_OF, OTHER_CARE_OF));
        // RFC 8200 section 4.1 and RFC 6275 section 6.3: first the routing header, then the option.
        let kinds: alloc::vec::Vec<_> = arrived.extensions().map(|extension| extension.kind).collect();
        assert_eq!(kinds, [ip::Kind::Routing, ip::Kind::Destination], "{routing_first}");
        let seen = at_home(arrived.clone());
        assert_eq!((seen.source, seen.destination), (HOME, OTHER));
        assert_eq!(stripped(arrived.clone()).packet, plain.packet);
        assert_eq!(seen.upper_bytes(), plain.upper_bytes());
        assert_eq!(
            open(&arrived).map(|received| received.message),
            Ok(Message::HomeTestInit(Cookie([7; 8])))
        );
    }
}

#[test]
fn a_checksum_that_is_left_open_is_found_where_it_moved_to() {
    let mut sent = packet();
    sent.offload.checksum = Checksum::Partial { start: 40, offset: 4 };
    put_home_address(&mut sent, CARE_OF);
    put_routing(&mut sent, OTHER_CARE_OF);
    assert_eq!(sent.offload.checksum, Checksum::Partial { start: 88, offset: 4 });
}

#[test]
fn a_packet_that_would_be_too_long_is_left_alone() {
    let mut sent = packet();
    sent.body = alloc::vec![0; 65_520].into();
    let before = sent.clone();
    assert!(!put_routing(&mut sent, CARE_OF));
    assert_eq!(sent.to_bytes(), before.to_bytes());
}

#[test]
fn what_a_router_quotes_of_a_routed_packet_is_the_packet_that_was_sent() {
    let (client, home, care_of) = (Ipv6Addr::LOCALHOST, Ipv6Addr::from_bits(5), Ipv6Addr::from_bits(6));
    let header = Header { source: client, destination: home, next_header: ip::TCP, ..Header::default() };
    let mut head = header.emit(100);
    head.extend([7; 100]);
    let mut packet = Packet { head, ..Packet::default() };
    let before = packet.to_bytes();
    assert_eq!(unrouted(&before), None);
    assert!(put_routing(&mut packet, care_of));
    let quote = packet.to_bytes();
    assert_eq!(unrouted(&quote).unwrap(), before);
    assert_eq!(unrouted(&quote[..80]).unwrap(), before[..56]);
    assert_eq!(unrouted(&quote[..63]), None, "cut in the middle of the header");
}
