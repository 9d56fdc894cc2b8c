//! Frames of the peer, made octet by octet, and ours, taken apart again: no line is shared with the stack.

use core::net::Ipv6Addr;

use bytes::Bytes;

use super::ast::{Echo, Ecn, Flags, Icmp, Opt, Segment};
use super::peer::{Peer, low};

/// Our link-layer address.
pub(super) const OUR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
const THEIR_MAC: [u8; 6] = [2, 0, 0, 0, 0, 2];
/// Our address.
pub(super) const OURS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
/// The peer's address.
pub(super) const THEIRS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 2);

const TCP: u8 = 6;
const FRAGMENT: u8 = 44;
const ICMPV6: u8 = 58;
const ETHERNET: usize = 14;
const IPV6: usize = 40;

/// What a frame of ours is.
#[derive(Clone, Debug)]
pub(super) enum Outgoing {
    /// A segment to a peer's port, with its octets.
    Tcp(u16, Raw),
    /// A neighbour is asked for, for this address.
    Solicitation([u8; 16]),
    /// Something that no script is about.
    Other,
}

/// A segment of ours with absolute numbers.
#[derive(Clone, Debug)]
pub(super) struct Raw {
    pub(super) ecn: Ecn,
    pub(super) flags: Flags,
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) window: u16,
    pub(super) urgent: u16,
    pub(super) options: Vec<RawOption>,
    pub(super) payload: Vec<u8>,
    pub(super) local_port: u16,
    /// The packet, for ICMPv6 errors that quote it.
    pub(super) packet: Vec<u8>,
}

/// An option's kind and data.
pub(super) type RawOption = (u8, Vec<u8>);

fn be16(octets: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([octets[at], octets[at + 1]])
}

fn be32(octets: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
}

/// What one of our frames is. The error says what is wrong with it.
pub(super) fn read(frame: &[u8]) -> Result<Outgoing, String> {
    crate::wire::read(frame)?;
    let packet = &frame[ETHERNET..];
    if packet[0] >> 4 != 6 {
        return Ok(Outgoing::Other);
    }
    match packet[6] {
        TCP => read_segment(packet),
        ICMPV6 if packet[IPV6] == 135 => {
            let mut target = [0; 16];
            target.copy_from_slice(&packet[IPV6 + 8..IPV6 + 24]);
            Ok(Outgoing::Solicitation(target))
        }
        _ => Ok(Outgoing::Other),
    }
}

fn read_segment(packet: &[u8]) -> Result<Outgoing, String> {
    let tcp = &packet[IPV6..];
    let header = usize::from(tcp[12] >> 4) * 4;
    let segment = Raw {
        ecn: Ecn::of(packet[0] << 4 | packet[1] >> 4),
        flags: Flags(be16(tcp, 12) & 0x1ff),
        seq: be32(tcp, 4),
        ack: be32(tcp, 8),
        window: be16(tcp, 14),
        urgent: be16(tcp, 18),
        options: read_options(&tcp[20..header])?,
        payload: tcp[header..].to_vec(),
        local_port: be16(tcp, 0),
        packet: packet.to_vec(),
    };
    Ok(Outgoing::Tcp(be16(tcp, 2), segment))
}

fn read_options(mut octets: &[u8]) -> Result<Vec<RawOption>, String> {
    let mut options = Vec::new();
    while let [kind, rest @ ..] = octets {
        match (kind, rest) {
            (0, _) => break,
            (1, _) => octets = rest,
            (_, [len, ..]) if *len >= 2 && usize::from(*len) <= octets.len() => {
                let (option, behind) = octets.split_at(usize::from(*len));
                options.push((*kind, option[2..].to_vec()));
                octets = behind;
            }
            _ => return Err(format!("malformed options {octets:02x?}")),
        }
    }
    Ok(options)
}

/// The Internet checksum (RFC 1071) over these octets with IPv6's pseudo-header (RFC 8200 section 8.1).
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, protocol: u8, octets: &[u8]) -> u16 {
    let length = u32::try_from(octets.len()).unwrap_or(u32::MAX);
    let mut all = [&source.octets()[..], &destination.octets()[..], &length.to_be_bytes()[..]].concat();
    all.extend_from_slice(&[0, 0, 0, protocol]);
    all.extend_from_slice(octets);
    all.resize(all.len().next_multiple_of(2), 0);
    let sum: u64 = all.chunks(2).map(|pair| u64::from(be16(pair, 0))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    !u16::try_from(folded).unwrap_or(0)
}

fn ipv6(class: u8, next: u8, hops: u8, source: Ipv6Addr, destination: Ipv6Addr, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x60 | class >> 4, class << 4, 0, 0];
    packet.extend_from_slice(&length.to_be_bytes());
    packet.extend_from_slice(&[next, hops]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    packet.extend_from_slice(payload);
    packet
}

fn ethernet(packet: &[u8]) -> Bytes {
    [&OUR_MAC[..], &THEIR_MAC[..], &[0x86, 0xdd][..], packet].concat().into()
}

/// The frames of a segment that arrives.
pub(super) fn arriving(peer: &Peer, segment: &Segment) -> Vec<Bytes> {
    let tcp = tcp_octets(peer, segment);
    let class = segment.ecn.unwrap_or_default().bits();
    if segment.fragments == 0 {
        return vec![ethernet(&ipv6(class, TCP, 64, THEIRS, OURS, &tcp))];
    }
    // RFC 8200 section 4.5: all but the last are multiples of eight octets long.
    let each = tcp.len().div_ceil(segment.fragments).next_multiple_of(8);
    let identification = peer.next_identification().to_be_bytes();
    let mut frames = Vec::new();
    for (nth, part) in tcp.chunks(each).enumerate() {
        let more = u16::from((nth + 1) * each < tcp.len());
        let field = u16::try_from(nth * each).unwrap_or(u16::MAX) | more;
        let mut payload = vec![TCP, 0];
        payload.extend_from_slice(&field.to_be_bytes());
        payload.extend_from_slice(&identification);
        payload.extend_from_slice(part);
        frames.push(ethernet(&ipv6(class, FRAGMENT, 64, THEIRS, OURS, &payload)));
    }
    frames
}

fn tcp_octets(peer: &Peer, segment: &Segment) -> Vec<u8> {
    let flags = segment.flags.unwrap_or_default();
    let (first, octets) = segment.seq.unwrap_or_default();
    let options = option_octets(peer, &segment.options);
    let words = u16::try_from((20 + options.len()) / 4).unwrap_or(15);
    let mut tcp = Vec::new();
    tcp.extend_from_slice(&peer.remote_port.to_be_bytes());
    tcp.extend_from_slice(&peer.local_port.to_be_bytes());
    tcp.extend_from_slice(&peer.theirs(first).to_be_bytes());
    tcp.extend_from_slice(&segment.ack.map_or(0, |ack| peer.ours(ack)).to_be_bytes());
    tcp.extend_from_slice(&(words << 12 | flags.0).to_be_bytes());
    tcp.extend_from_slice(&segment.window.unwrap_or_default().to_be_bytes());
    tcp.extend_from_slice(&[0, 0]);
    tcp.extend_from_slice(&segment.urgent.to_be_bytes());
    tcp.extend_from_slice(&options);
    let at = first + i64::from(flags.has(Flags::SYN));
    let mut payload = peer.their_octets(at, octets);
    if segment.forged {
        for octet in &mut payload {
            *octet = !*octet;
        }
    }
    tcp.extend_from_slice(&payload);
    let sum = checksum(THEIRS, OURS, TCP, &tcp) ^ u16::from(segment.corrupt);
    tcp[16..18].copy_from_slice(&sum.to_be_bytes());
    tcp
}

fn option_octets(peer: &Peer, options: &[Opt]) -> Vec<u8> {
    let mut octets: Vec<u8> = options.iter().flat_map(|option| one_option(peer, option)).collect();
    let filler = u8::from(options.last() != Some(&Opt::End));
    octets.resize(octets.len().next_multiple_of(4), filler);
    octets
}

fn one_option(peer: &Peer, option: &Opt) -> Vec<u8> {
    let (kind, data) = match option {
        Opt::Nop => return vec![1],
        Opt::End => return vec![0],
        Opt::Mss(mss) => (2, mss.to_be_bytes().to_vec()),
        Opt::WindowScale(shift) => (3, vec![*shift]),
        Opt::SackPermitted => (4, Vec::new()),
        Opt::Sack(blocks) => {
            let numbers = blocks.iter().flat_map(|(from, to)| [peer.ours(*from), peer.ours(*to)]);
            (5, numbers.flat_map(u32::to_be_bytes).collect())
        }
        Opt::Timestamps(value, echo) => {
            let echo = match echo {
                Echo::Is(echo) => peer.our_timestamp(*echo),
                Echo::Last | Echo::Any => peer.last_timestamp,
            };
            let value = low(value.unwrap_or(0));
            (8, [value.to_be_bytes(), echo.to_be_bytes()].concat())
        }
        Opt::Other(kind, data) => (*kind, data.clone()),
    };
    let len = u8::try_from(data.len() + 2).unwrap_or(u8::MAX);
    [vec![kind, len], data].concat()
}

/// A segment of ours as scripts write it.
pub(super) fn relative(peer: &Peer, raw: &Raw) -> Segment {
    Segment {
        ecn: Some(raw.ecn),
        flags: Some(raw.flags),
        seq: Some((peer.relative_to_ours(raw.seq), raw.payload.len())),
        ack: raw.flags.has(Flags::ACK).then(|| peer.relative_to_theirs(raw.ack)),
        window: Some(raw.window),
        urgent: raw.urgent,
        options: raw.options.iter().map(|option| relative_option(peer, option)).collect(),
        ..Segment::default()
    }
}

fn relative_option(peer: &Peer, (kind, data): &RawOption) -> Opt {
    match (kind, data.as_slice()) {
        (2, &[a, b]) => Opt::Mss(u16::from_be_bytes([a, b])),
        (3, &[shift]) => Opt::WindowScale(shift),
        (4, []) => Opt::SackPermitted,
        (5, blocks) if !blocks.is_empty() && blocks.len().is_multiple_of(8) => {
            let block =
                |at: &[u8]| (peer.relative_to_theirs(be32(at, 0)), peer.relative_to_theirs(be32(at, 4)));
            Opt::Sack(blocks.chunks(8).map(block).collect())
        }
        (8, stamps) if stamps.len() == 8 => Opt::Timestamps(
            Some(peer.relative_timestamp(be32(stamps, 0))),
            Echo::Is(i64::from(be32(stamps, 4))),
        ),
        (kind, data) => Opt::Other(*kind, data.to_vec()),
    }
}

/// The frame of an ICMPv6 error that quotes `quoted`.
pub(super) fn error(icmp: &Icmp, quoted: &[u8]) -> Bytes {
    let mut message = vec![icmp.kind, icmp.code, 0, 0];
    message.extend_from_slice(&icmp.rest.to_be_bytes());
    message.extend_from_slice(&quoted[..quoted.len().min(1280 - IPV6 - 8)]);
    icmpv6(message, 64)
}

/// The frame that answers a solicitation for `target` (RFC 4861 section 4.4).
pub(super) fn advertisement(target: [u8; 16]) -> Bytes {
    let mut message = vec![136, 0, 0, 0, 0x60, 0, 0, 0];
    message.extend_from_slice(&target);
    message.extend_from_slice(&[2, 1]);
    message.extend_from_slice(&THEIR_MAC);
    icmpv6(message, 255)
}

/// The frame by which the peer asks for us, and so makes itself known (RFC 4861 section 4.3).
pub(super) fn solicitation() -> Bytes {
    let mut message = vec![135, 0, 0, 0, 0, 0, 0, 0];
    message.extend_from_slice(&OURS.octets());
    message.extend_from_slice(&[1, 1]);
    message.extend_from_slice(&THEIR_MAC);
    icmpv6(message, 255)
}

fn icmpv6(mut message: Vec<u8>, hops: u8) -> Bytes {
    let sum = checksum(THEIRS, OURS, ICMPV6, &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    ethernet(&ipv6(0, ICMPV6, hops, THEIRS, OURS, &message))
}
