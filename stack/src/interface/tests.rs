mod discovery;
mod hostile;
mod packets;
mod pieces;
mod proxy;

use alloc::vec;
use alloc::vec::Vec;

use etherparse::{PacketBuilder, SlicedPacket, TransportSlice};

use super::*;

const MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 1]);
const PEER_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 2]);
const GATEWAY_MAC: EthernetAddress = EthernetAddress([2, 0, 0, 0, 0, 0xfe]);
const ALL_NODES_MAC: EthernetAddress = EthernetAddress([0x33, 0x33, 0, 0, 0, 1]);
/// Solicited-node groups of [`US`] and [`SERVICE`].
const US_GROUP_MAC: EthernetAddress = EthernetAddress([0x33, 0x33, 0xff, 0, 0, 0x11]);
const SERVICE_GROUP_MAC: EthernetAddress = EthernetAddress([0x33, 0x33, 0xff, 0, 0, 0x55]);

const US: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0x11);
const LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0xff, 0xfe00, 1);
const SERVICE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 0x55);
const PEER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 2);
const GATEWAY: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 0xfe);
const FAR: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xc, 0, 0, 0, 0, 9);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const US_GROUP: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0x11);
const NOBODY: Ipv6Addr = Ipv6Addr::UNSPECIFIED;

fn at(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn interface() -> Interface {
    let own = Address { address: US, prefix_len: 64 };
    let mut interface =
        Interface::new(Config { mac: MAC, addresses: vec![own], gateway: Some(GATEWAY), mtu: 1500 });
    sent(&mut interface);
    interface
}

/// One that knows where its peer is.
fn acquainted() -> Interface {
    let mut interface = interface();
    interface.neighbours.heard(PEER, PEER_MAC, at(0));
    interface.neighbours.confirm(PEER, at(0));
    interface
}

/// An ICMPv6 message in the way of one: whom from, whom to, and what.
#[derive(Clone, Debug)]
struct Icmp {
    to_mac: EthernetAddress,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    kind: u8,
    code: u8,
    /// From the fifth octet of the message on.
    body: Vec<u8>,
}

impl Icmp {
    fn frame(&self) -> Frame {
        let (rest, payload) = self.body.split_at(4.min(self.body.len()));
        let mut first = [0; 4];
        first[..rest.len()].copy_from_slice(rest);
        let builder = PacketBuilder::ethernet2(PEER_MAC.0, self.to_mac.0)
            .ipv6(self.source.octets(), self.destination.octets(), self.hop_limit)
            .icmpv6_raw(self.kind, self.code, first);
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload).unwrap();
        if self.body.len() < 4 {
            let len = bytes.len() - 4 + self.body.len();
            bytes.truncate(len);
        }
        Frame::received(bytes.into())
    }
}

/// A frame whose packet is given.
fn framed(to: EthernetAddress, packet: &[u8]) -> Frame {
    let bytes = [&to.0[..], &PEER_MAC.0, &[0x86, 0xdd], packet].concat();
    Frame::received(bytes.into())
}

/// A packet with this upper layer from the peer.
fn packet(destination: Ipv6Addr, upper: u8, payload: &[u8]) -> Vec<u8> {
    let header = ip::Header { source: PEER, destination, next_header: upper, ..ip::Header::default() };
    let mut packet = header.emit(payload.len());
    packet.extend_from_slice(payload);
    packet
}

fn outgoing(destination: Ipv6Addr, payload: usize) -> Packet {
    let header = ip::Header { source: US, destination, next_header: ip::TCP, ..ip::Header::default() };
    let mut head = header.emit(20 + payload);
    head.resize(60, 0);
    head[52] = 0x50;
    Packet { head, body: Bytes::from(vec![7; payload]), offload: Offload::default() }
}

/// Everything that the interface wants to send, judged by another codec.
fn sent(interface: &mut Interface) -> Vec<Sent> {
    core::iter::from_fn(|| interface.poll_transmit()).map(|frame| judge(&frame)).collect()
}

/// A frame that was sent, as another codec reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sent {
    to_mac: EthernetAddress,
    source: Ipv6Addr,
    destination: Ipv6Addr,
    hop_limit: u8,
    /// Type, code and all octets after the checksum of an ICMPv6 message.
    icmp: Option<(u8, u8, Vec<u8>)>,
}

fn judge(frame: &Frame) -> Sent {
    let bytes = frame.clone().contiguous().head;
    let sliced = SlicedPacket::from_ethernet(&bytes).unwrap();
    let ethernet = etherparse::Ethernet2Slice::from_slice_without_fcs(&bytes).unwrap();
    assert_eq!(ethernet.source(), MAC.0);
    let Some(etherparse::NetSlice::Ipv6(ip)) = &sliced.net else { panic!("no IPv6: {bytes:?}") };
    let header = ip.header();
    assert_eq!(usize::from(header.payload_length()), bytes.len() - 54, "the length is right");
    let icmp = match &sliced.transport {
        Some(TransportSlice::Icmpv6(message)) => {
            assert!(message.is_checksum_valid(header.source(), header.destination()), "{message:?}");
            Some((message.type_u8(), message.code_u8(), message.slice()[4..].to_vec()))
        }
        _ => None,
    };
    Sent {
        to_mac: EthernetAddress(ethernet.destination()),
        source: header.source_addr(),
        destination: header.destination_addr(),
        hop_limit: header.hop_limit(),
        icmp,
    }
}

/// Takes a frame of which the interface should make nothing for the caller.
fn swallow(interface: &mut Interface, frame: Frame, now: Instant) -> Vec<Sent> {
    assert_eq!(interface.receive(frame, now), None);
    sent(interface)
}
