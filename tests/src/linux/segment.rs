//! Segments as the scripted peer sends and sees them: written and read by `etherparse`, which shares no line with
//! either stack.

use core::net::SocketAddrV6;

use etherparse::{
    Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket, TcpOptionElement, TcpSlice, TransportSlice,
};

/// The MAC address of the scripted peer.
pub const PEER_MAC: [u8; 6] = [2, 0, 0, 0, 0x77, 2];
/// The MAC address of both stacks.
pub const MAC: [u8; 6] = [2, 0, 0, 0, 0x77, 1];

/// The control bits of a segment, in any combination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "they are bits")]
pub struct Bits {
    /// SYN.
    pub syn: bool,
    /// FIN.
    pub fin: bool,
    /// RST.
    pub rst: bool,
    /// ACK.
    pub ack: bool,
    /// URG, with which nothing is urgent: the pointer stays zero.
    pub urg: bool,
}

impl Bits {
    /// Only ACK.
    pub const ACK: Self = Self { syn: false, fin: false, rst: false, ack: true, urg: false };
    /// Only SYN.
    pub const SYN: Self = Self { syn: true, ack: false, ..Self::ACK };
    /// Only RST.
    pub const RST: Self = Self { rst: true, ack: false, ..Self::ACK };
    /// FIN and ACK.
    pub const FIN: Self = Self { fin: true, ..Self::ACK };
}

/// A segment, with the options that the conversations use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw {
    /// SEG.SEQ.
    pub seq: u32,
    /// The acknowledgement field, whether or not the bit is set.
    pub ack: u32,
    /// Control bits.
    pub bits: Bits,
    /// SEG.WND as it stands there.
    pub window: u16,
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window scale.
    pub scale: Option<u8>,
    /// SACK permitted.
    pub sack_permitted: bool,
    /// `TSval` and `TSecr`.
    pub timestamps: Option<(u32, u32)>,
    /// SACK blocks.
    pub sack: Vec<(u32, u32)>,
    /// Data.
    pub payload: Vec<u8>,
}

impl Raw {
    /// Octets of sequence space that it takes.
    pub fn seq_len(&self) -> u32 {
        let payload = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        payload + u32::from(self.bits.syn) + u32::from(self.bits.fin)
    }

    fn options(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        if let Some(mss) = self.mss {
            octets.extend([2, 4]);
            octets.extend(mss.to_be_bytes());
        }
        if self.sack_permitted {
            octets.extend([1, 1, 4, 2]);
        }
        if let Some((value, echo)) = self.timestamps {
            octets.extend([1, 1, 8, 10]);
            octets.extend(value.to_be_bytes());
            octets.extend(echo.to_be_bytes());
        }
        if let Some(scale) = self.scale {
            octets.extend([1, 3, 3, scale]);
        }
        if !self.sack.is_empty() {
            octets.extend([1, 1, 5, u8::try_from(2 + 8 * self.sack.len()).unwrap_or(0)]);
            for (from, to) in &self.sack {
                octets.extend(from.to_be_bytes());
                octets.extend(to.to_be_bytes());
            }
        }
        octets
    }

    /// The frame that carries it from the peer to a stack.
    pub fn frame(&self, from: SocketAddrV6, to: SocketAddrV6) -> Vec<u8> {
        let mut tcp = PacketBuilder::ethernet2(PEER_MAC, MAC)
            .ipv6(from.ip().octets(), to.ip().octets(), 64)
            .tcp(from.port(), to.port(), self.seq, self.window);
        let Bits { syn, fin, rst, ack, urg } = self.bits;
        tcp = if syn { tcp.syn() } else { tcp };
        tcp = if fin { tcp.fin() } else { tcp };
        tcp = if rst { tcp.rst() } else { tcp };
        tcp = if ack { tcp.ack(self.ack) } else { tcp };
        tcp = if urg { tcp.urg(0) } else { tcp };
        let tcp = tcp.options_raw(&self.options()).expect("40 octets of options");
        let mut frame = Vec::new();
        tcp.write(&mut frame, &self.payload).expect("a vector takes everything");
        frame
    }
}

/// What a frame of a stack is to the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A segment: from where, to where.
    Segment(SocketAddrV6, SocketAddrV6, Raw),
    /// Somebody wants to know the MAC address that belongs to this address of ours.
    WhoHas {
        /// Who wants to know.
        asker: [u8; 16],
        /// The address of ours.
        target: [u8; 16],
    },
    /// The answer to our echo request of this number.
    Echo(u16),
    /// Nothing that matters.
    Other,
}

/// Reads a frame. Panics on a wrong checksum.
pub fn read(frame: &[u8]) -> Heard {
    let packet = SlicedPacket::from_ethernet(frame).expect("stacks send whole packets");
    let Some(NetSlice::Ipv6(ip)) = &packet.net else { return Heard::Other };
    let (source, destination) = (ip.header().source(), ip.header().destination());
    match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let sum = tcp.to_header().calc_checksum_ipv6_raw(source, destination, tcp.payload()).ok();
            // RFC 1624 section 3: one's complement has two zeros.
            let one_zero = |sum: u16| if sum == u16::MAX { 0 } else { sum };
            assert_eq!(sum.map(one_zero), Some(one_zero(tcp.checksum())), "the checksum of a segment");
            let end = |address: [u8; 16], port| SocketAddrV6::new(address.into(), port, 0, 0);
            Heard::Segment(end(source, tcp.source_port()), end(destination, tcp.destination_port()), raw(tcp))
        }
        Some(TransportSlice::Icmpv6(icmp)) => match (icmp.type_u8(), icmp.payload()) {
            (135, payload) if payload.len() >= 16 => {
                let mut target = [0; 16];
                target.copy_from_slice(&payload[..16]);
                Heard::WhoHas { asker: source, target }
            }
            (129, _) => {
                let [_, _, high, low] = icmp.bytes5to8();
                Heard::Echo(u16::from_be_bytes([high, low]))
            }
            _ => Heard::Other,
        },
        _ => Heard::Other,
    }
}

fn raw(tcp: &TcpSlice<'_>) -> Raw {
    let bits = Bits { syn: tcp.syn(), fin: tcp.fin(), rst: tcp.rst(), ack: tcp.ack(), urg: tcp.urg() };
    let mut raw = Raw {
        seq: tcp.sequence_number(),
        ack: tcp.acknowledgment_number(),
        bits,
        window: tcp.window_size(),
        payload: tcp.payload().to_vec(),
        ..Raw::default()
    };
    for option in tcp.to_header().options_iterator() {
        match option.expect("stacks send well-formed options") {
            TcpOptionElement::MaximumSegmentSize(mss) => raw.mss = Some(mss),
            TcpOptionElement::WindowScale(shift) => raw.scale = Some(shift),
            TcpOptionElement::SelectiveAcknowledgementPermitted => raw.sack_permitted = true,
            TcpOptionElement::SelectiveAcknowledgement(first, more) => {
                raw.sack = core::iter::once(first).chain(more.into_iter().flatten()).collect();
            }
            TcpOptionElement::Timestamp(value, echo) => raw.timestamps = Some((value, echo)),
            TcpOptionElement::Noop => {}
        }
    }
    raw
}

/// An echo request of the peer. A stack answers it after all that came before.
pub fn echo_request(number: u16, from: [u8; 16], to: [u8; 16]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(PEER_MAC, MAC).ipv6(from, to, 64);
    let mut frame = Vec::new();
    builder.icmpv6_echo_request(7, number).write(&mut frame, &[]).expect("a vector takes everything");
    frame
}

/// The peer's neighbour advertisement: solicited, override (RFC 4861 section 4.4).
pub fn advertisement(asker: [u8; 16], target: [u8; 16]) -> Vec<u8> {
    let builder = PacketBuilder::ethernet2(PEER_MAC, MAC).ipv6(target, asker, 255);
    let kind = Icmpv6Type::Unknown { type_u8: 136, code_u8: 0, bytes5to8: [0x60, 0, 0, 0] };
    let body = [&target[..], &[2, 1], &PEER_MAC].concat();
    let mut frame = Vec::new();
    builder.icmpv6(kind).write(&mut frame, &body).expect("a vector takes everything");
    frame
}
