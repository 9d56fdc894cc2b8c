use bytes::Bytes;
use ferry_mipv6::home_agent::{Registrant, Registration};
use ferry_mipv6::{decapsulate, encapsulate};
use ferry_stack::interface::{Address, Config};
use ferry_stack::ip::{self, Datagram, Header, Packet};
use ferry_stack::{EthernetAddress, Instant, Interface, checksum, icmp};

use super::*;

const AGENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 0xa);
const SERVICE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 1);
const ROUTER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 0xff);
const NODE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 2);
const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 9);
const KEY: &[u8] = b"shared";
const SPI: u32 = 300;
const MTU: u16 = 1500;

/// A home link with an agent and a router, behind which everybody else is.
struct Link {
    agent: Agent,
    router: Interface,
    node: Registrant,
    now: Instant,
}

impl Link {
    fn new() -> Self {
        let groups = [(SPI, Group { key: KEY.to_vec(), homes: [SERVICE].into() })].into();
        let setup = Setup {
            mac: EthernetAddress([2, 0, 0, 0, 0, 0xa]),
            address: Address { address: AGENT, prefix_len: 64 },
            gateway: ROUTER,
            mtu: MTU,
            groups,
            max_lifetime: Lifetime(25),
        };
        let addresses = vec![Address { address: ROUTER, prefix_len: 64 }];
        let mac = EthernetAddress([2, 0, 0, 0, 0, 0xff]);
        let mut router = Interface::new(Config { mac, addresses, gateway: None, mtu: MTU });
        router.set_forwarding(true);
        let registration = Registration {
            home: SERVICE,
            care_of: NODE,
            home_agent: AGENT,
            spi: SPI,
            key: KEY.to_vec(),
            lifetime: Lifetime(25),
        };
        let now = Instant::from_millis(1_000);
        Self { agent: Agent::new(setup), router, node: Registrant::new(registration, 0), now }
    }

    /// With a registration.
    fn registered() -> Self {
        let mut link = Self::new();
        link.node.register(link.both());
        let message = link.node.poll().unwrap();
        let answers = link.send(message.packet());
        assert!(answers.iter().any(|answer| answer.destination == NODE));
        assert_eq!(link.agent.status(link.now).homes[0].care_of, NODE);
        link
    }

    fn both(&self) -> Now {
        Now {
            monotonic: self.now,
            wall: Timestamp::from_unix(std::time::Duration::from_nanos(self.now.nanos())),
        }
    }

    /// Lets the router send a packet to the link; what comes back for others.
    fn send(&mut self, packet: Packet) -> Vec<Datagram> {
        self.router.send(packet, self.now);
        let mut back = Vec::new();
        loop {
            let (to_agent, to_router) = (self.router.poll_transmit(), self.agent.poll_transmit());
            if to_agent.is_none() && to_router.is_none() {
                return back;
            }
            let now = self.both();
            if let Some(frame) = to_agent {
                self.agent.receive(frame, now);
            }
            back.extend(to_router.into_iter().filter_map(|frame| self.router.receive(frame, self.now)));
        }
    }

    fn dropped(&self) -> u64 {
        self.agent.status(self.now).counters.dropped
    }
}

fn packet(source: Ipv6Addr, destination: Ipv6Addr, upper: u8, payload: &[u8]) -> Packet {
    let header = Header { source, destination, next_header: upper, ..Header::default() };
    let mut head = header.emit(payload.len());
    head.extend_from_slice(payload);
    Packet { head, body: Bytes::new(), offload: Offload::default() }
}

/// A segment of a client for the service.
fn segment(len: usize) -> Packet {
    let mut octets = vec![0; 20 + len];
    octets[12] = 0x50;
    packet(CLIENT, SERVICE, ip::TCP, &octets)
}

/// An ICMPv6 error from inside of the network about a packet that was sent.
fn error(kind: (u8, u8), value: u32, about: &Datagram) -> Packet {
    let mut octets = vec![kind.0, kind.1, 0, 0];
    octets.extend(value.to_be_bytes());
    octets.extend_from_slice(&about.packet[..about.packet.len().min(1_200)]);
    let mut packet = packet(CLIENT, AGENT, ip::ICMPV6, &octets);
    checksum::transport(&mut packet, 40, checksum::ICMPV6, false);
    packet
}

#[test]
fn what_comes_for_a_registered_address_goes_through_a_tunnel_to_where_it_is() {
    let mut link = Link::registered();
    for packet in
        [segment(10), packet(CLIENT, SERVICE, ip::UDP, &[1; 20]), packet(CLIENT, SERVICE, 128, &[1; 20])]
    {
        let [outer] = &link.send(packet.clone())[..] else { panic!("one packet") };
        assert_eq!((outer.source, outer.destination), (AGENT, NODE));
        let inner = decapsulate(outer).unwrap();
        assert_eq!((inner.source, inner.destination, inner.hop_limit), (CLIENT, SERVICE, ip::HOP_LIMIT - 1));
        assert_eq!(inner.upper_bytes(), &packet.to_bytes()[40..]);
    }
}

#[test]
fn nobody_answers_for_an_address_that_is_not_registered() {
    let mut link = Link::new();
    assert_eq!(link.send(segment(10)), []);
    let mut link = Link::registered();
    link.now += std::time::Duration::from_secs(100);
    link.agent.handle_timeout(link.now);
    assert_eq!(link.agent.status(link.now).homes, []);
    assert_eq!(link.send(segment(10)), []);
}

#[test]
fn only_the_node_that_has_registered_sends_through_the_agent() {
    let mut link = Link::registered();
    let inside = |source, destination| packet(source, destination, ip::TCP, &[0; 20]);
    let good = encapsulate(inside(SERVICE, CLIENT), NODE, AGENT).unwrap();
    let [sent] = &link.send(good)[..] else { panic!("one packet") };
    assert_eq!((sent.source, sent.destination), (SERVICE, CLIENT));
    let bad = [
        ("another node", encapsulate(inside(SERVICE, CLIENT), CLIENT, AGENT)),
        ("another source", encapsulate(inside(NODE, CLIENT), NODE, AGENT)),
        ("to the agent", encapsulate(inside(SERVICE, AGENT), NODE, AGENT)),
        ("in a circle", encapsulate(inside(SERVICE, SERVICE), NODE, AGENT)),
        ("to all", encapsulate(inside(SERVICE, Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)), NODE, AGENT)),
        (
            "a tunnel",
            encapsulate(encapsulate(inside(SERVICE, CLIENT), SERVICE, CLIENT).unwrap(), NODE, AGENT),
        ),
    ];
    for (name, packet) in bad {
        let before = link.dropped();
        assert_eq!(link.send(packet.unwrap()), [], "{name}");
        assert_eq!(link.dropped(), before + 1, "{name}");
    }
}

#[test]
fn what_does_not_fit_the_tunnel_is_told_to_who_sent_it() {
    let mut link = Link::registered();
    let told = |answers: &[Datagram]| {
        let [answer] = answers else { panic!("one packet: {answers:?}") };
        assert_eq!(answer.destination, CLIENT);
        icmp::parse_error(answer).unwrap().error
    };
    let fits = link.send(segment(usize::from(MTU) - 40 - 60));
    assert_eq!(fits[0].packet.len(), usize::from(MTU));
    assert_eq!(told(&link.send(segment(usize::from(MTU) - 99))), icmp::Error::PacketTooBig { mtu: 1460 });
    // A router on the way to the node has less room: the next packet is told of it, and the minimum always fits.
    for (said, expected) in [(1400, 1360), (1000, 1280)] {
        assert_eq!(link.send(error((2, 0), said, &fits[0])), []);
        let too_large = segment(usize::from(MTU) - 100);
        assert_eq!(told(&link.send(too_large)), icmp::Error::PacketTooBig { mtu: expected });
        assert_eq!(link.send(segment(1_280 - 60)).len(), 1);
    }
}

#[test]
fn a_client_hears_that_the_node_cannot_be_reached_and_that_its_packet_is_too_old() {
    let mut link = Link::registered();
    let sent = link.send(segment(10)).remove(0);
    let [told] = &link.send(error((1, 0), 0, &sent))[..] else { panic!("one packet") };
    let received = icmp::parse_error(told).unwrap();
    assert_eq!((told.destination, told.source), (CLIENT, AGENT));
    assert_eq!(received.error, icmp::Error::Unreachable { code: icmp::ADDRESS_UNREACHABLE });
    assert_eq!((received.quote.source, received.quote.destination), (CLIENT, SERVICE));
    // Not about what is no tunnel of ours.
    assert_eq!(link.send(error((1, 0), 0, told)), []);
    let mut old = segment(10);
    ip::set_hop_limit(&mut old.head, 1);
    let [told] = &link.send(old)[..] else { panic!("one packet") };
    assert!(matches!(icmp::parse_error(told).unwrap().error, icmp::Error::TimeExceeded { .. }));
}

#[test]
fn a_message_that_is_wrong_draws_what_the_rfc_says_and_a_segment_nothing_that_opens_a_connection() {
    let mut link = Link::registered();
    let told = |answers: &[Datagram]| icmp::parse_error(&answers[0]).map(|received| received.error);
    // RFC 6275 section 9.2: a Payload Proto that is not 59.
    let wrong = packet(CLIENT, AGENT, ip::MOBILITY, &[58, 0, 1, 0, 0, 0, 0, 0]);
    let error = icmp::Error::ParameterProblem { code: icmp::ERRONEOUS_FIELD, pointer: 40 };
    assert_eq!(told(&link.send(wrong)), Some(error));
    let mut unknown = packet(CLIENT, AGENT, ip::MOBILITY, &[59, 0, 99, 0, 0, 0, 0, 0]);
    let sum = checksum::pseudo_header(CLIENT, AGENT, 8, ip::MOBILITY).add(&unknown.head[40..]).finish();
    unknown.head[44..46].copy_from_slice(&sum.to_be_bytes());
    let [complaint] = &link.send(unknown.clone())[..] else { panic!("one packet") };
    assert_eq!(
        (complaint.upper, complaint.upper_bytes()[2], complaint.upper_bytes()[6]),
        (ip::MOBILITY, 7, 2)
    );
    assert_eq!(link.send(unknown), [], "not twice in 10 ms");
    let syn = packet(CLIENT, AGENT, ip::TCP, &[0; 20]);
    assert_eq!(told(&link.send(syn)), Some(icmp::Error::Unreachable { code: icmp::PORT_UNREACHABLE }));
}
