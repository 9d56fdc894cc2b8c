//! What comes from the wire: packets, frames.

use core::time::Duration;
use std::net::Ipv6Addr;

use bytes::Bytes;
use ferry_mipv6::{Stage, decapsulate, encapsulate};
use ferry_stack::frame::{Checksum, Frame, Offload};
use ferry_stack::host::Host;
use ferry_stack::interface::{Address, Config as Link};
use ferry_stack::ip::{self, Datagram};
use ferry_stack::tcp::{Config, Listener, Secret, Segment};
use ferry_stack::{EthernetAddress, Instant, checksum, icmp};

use super::feed::Feed;

/// Octets of TCP options at most.
const MAX_OPTIONS: usize = 40;
/// Our own addresses in [`frame`].
const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const OURS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// An IPv6 packet, and whatever it holds: extension headers, a segment, an ICMPv6 error, a tunnel. The first octet
/// says whether its checksum is taken for granted.
pub fn packet(octets: &[u8]) {
    let mut feed = Feed::new(octets);
    let checksum = match feed.byte() {
        Some(0) => Checksum::Complete,
        Some(1) => Checksum::Partial { start: feed.word().unwrap_or(0), offset: feed.word().unwrap_or(0) },
        _ => Checksum::Verified,
    };
    let offload = Offload { checksum, ..Offload::default() };
    let bytes = Bytes::copy_from_slice(feed.octets(usize::MAX));
    if let Ok(datagram) = ip::parse_transit(bytes.clone(), offload) {
        same_packet(&datagram);
        drop(datagram.hop());
    }
    let Ok(datagram) = ip::parse(bytes, offload) else { return };
    same_packet(&datagram);
    let _ = (datagram.home_address(), datagram.routed_home(), checksum::verify(&datagram));
    assert!(datagram.upper_named_at() < datagram.upper_at);
    same_segment(&datagram);
    drop(icmp::parse_error(&datagram));
    drop(decapsulate(&datagram));
    drop(Stage::new(OURS, [datagram.source]).inbound(datagram.clone()));
    if let Ok(outer) = encapsulate(datagram.into_packet(), OURS, OURS) {
        let outer = ip::parse(outer.to_bytes(), Offload { checksum: Checksum::Verified, ..offload });
        assert_eq!(outer.map(|outer| outer.upper), Ok(ip::IPV6), "we cannot read our own tunnel");
    }
}

/// A packet goes on as it came.
fn same_packet(datagram: &Datagram) {
    assert!(datagram.upper_at <= datagram.packet.len());
    assert_eq!(datagram.clone().into_packet().to_bytes(), datagram.packet);
}

/// A segment that we understand is understood in the same way once we have written it ourselves.
fn same_segment(datagram: &Datagram) {
    let Ok((flow, segment)) = Segment::parse(datagram) else { return };
    if segment.options.wire_len() > MAX_OPTIONS || segment.gso.is_some() {
        return;
    }
    // What is emitted goes the other way.
    let mirrored = ferry_stack::tcp::Flow { local: flow.remote, remote: flow.local };
    let again = segment.emit(&mirrored, 0, false).to_bytes();
    let Ok(again) = ip::parse(again, Offload::default()) else {
        assert!(again_is_unsayable(datagram), "we cannot read our own packet");
        return;
    };
    assert_eq!(Segment::parse(&again), Ok((flow, segment)));
}

/// Addresses that may arrive but not be sent to: the sender's is the unspecified one.
fn again_is_unsayable(datagram: &Datagram) -> bool {
    datagram.source.is_unspecified() || datagram.destination.is_multicast()
}

/// Frames for a host that listens, one after the other, with time between them.
pub fn frame(octets: &[u8]) {
    let mut feed = Feed::new(octets);
    let mut now = Instant::from_millis(1_000_000);
    let addresses = vec![Address { address: OURS, prefix_len: 64 }];
    let gateway = Some(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0xff));
    let link = Link { mac: EthernetAddress(MAC), addresses, gateway, mtu: 1500 };
    let mut host = Host::new(link, Secret::new([1; 32]), false);
    host.tcp.listen(80, Listener::new(Config::default()));
    while let Some(kind) = feed.byte() {
        now += Duration::from_millis(u64::from(kind) * u64::from(kind));
        let len = usize::from(feed.word().unwrap_or(0)) % 1600;
        let checksum = if kind % 4 == 0 { Checksum::Complete } else { Checksum::Verified };
        let bytes = framed(kind, feed.octets(len));
        host.handle_timeout(now);
        host.receive(
            Frame { offload: Offload { checksum, ..Offload::default() }, ..Frame::received(bytes) },
            now,
        );
        let mut sent = 0;
        while let Some(frame) = host.poll_transmit(now) {
            sent += 1;
            assert!(sent < 1000, "one frame is answered with more than a thousand");
            assert!(frame.len() <= 1514, "a frame of {} octets", frame.len());
        }
        while host.tcp.poll_event().is_some() {}
        for (_, tcb) in host.tcp.iter() {
            assert_eq!(tcb.check(), Ok(()));
        }
    }
}

/// Octets as they are, or as a packet to us behind a good Ethernet header.
fn framed(kind: u8, octets: &[u8]) -> Bytes {
    if kind & 0x80 == 0 {
        return Bytes::copy_from_slice(octets);
    }
    let mut frame = [&MAC[..], &[2, 0, 0, 0, 0, 2, 0x86, 0xdd], octets].concat();
    if kind & 0x40 == 0 {
        let at = 14;
        if let Some(version) = frame.get_mut(at) {
            *version = 0x60;
        }
        let len = u16::try_from(octets.len().saturating_sub(40)).unwrap_or(0);
        if let Some(field) = frame.get_mut(at + 4..at + 6) {
            field.copy_from_slice(&len.to_be_bytes());
        }
        if let Some(field) = frame.get_mut(at + 24..at + 40) {
            field.copy_from_slice(&OURS.octets());
        }
    }
    frame.into()
}
