//! TCP segments: parsed once, so that holding a [`Segment`] proves the lengths were right.

use core::cmp::Ordering;
use core::net::SocketAddrV6;

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use smoltcp::wire::{TcpOption, TcpPacket, TcpSeqNumber};
use thiserror::Error;

use crate::Seq;
use crate::checksum;
use crate::frame::{Gso, Offload};
use crate::ip::{self, Datagram, Packet};

/// Octets of a TCP header without options.
pub(super) const HEADER_LEN: usize = 20;
/// Octets of the timestamps option with its padding (RFC 7323 appendix A).
pub(super) const TIMESTAMPS_LEN: u16 = 12;
/// SACK blocks in one segment: three leave room for timestamps (RFC 2018 section 3).
pub(super) const MAX_SACK_BLOCKS: usize = 3;

/// The two ends of a connection as TCP sees them, that is, with home addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Our end.
    pub local: SocketAddrV6,
    /// The other end.
    pub remote: SocketAddrV6,
}

impl Ord for Flow {
    /// By what mostly differs first, the other end's port: nodes keep what they know in order of flows.
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match self.remote.port().cmp(&other.remote.port()) {
            Ordering::Equal => self.cmp_at_one_port(other),
            different => different,
        }
    }
}

impl PartialOrd for Flow {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl core::hash::Hash for Flow {
    /// In one piece, which a keyed hasher takes in much faster than field by field; each segment is looked up by it.
    #[inline]
    fn hash<H: core::hash::Hasher>(&self, state: &mut H) {
        state.write(&self.octets());
    }
}

impl Serialize for Flow {
    /// In one piece, too: almost everything that nodes tell each other names one.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_bytes(&self.octets())
    }
}

impl<'de> Deserialize<'de> for Flow {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Octets;
        impl de::Visitor<'_> for Octets {
            type Value = Flow;

            fn expecting(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str("the two ends of a connection")
            }

            fn visit_bytes<E: de::Error>(self, octets: &[u8]) -> Result<Flow, E> {
                let wrong = || E::invalid_length(octets.len(), &self);
                octets.try_into().map(Flow::from_octets).map_err(|_| wrong())
            }
        }
        from.deserialize_bytes(Octets)
    }
}

impl Flow {
    /// Addresses and ports, our end first.
    #[inline]
    fn octets(&self) -> [u8; 36] {
        let mut octets = [0; 36];
        for (half, end) in octets.chunks_exact_mut(18).zip([&self.local, &self.remote]) {
            half[..16].copy_from_slice(&end.ip().octets());
            half[16..].copy_from_slice(&end.port().to_be_bytes());
        }
        octets
    }

    fn from_octets(octets: [u8; 36]) -> Self {
        let end = |at: usize| {
            let mut address = [0; 16];
            address.copy_from_slice(&octets[at..at + 16]);
            let port = u16::from_be_bytes([octets[at + 16], octets[at + 17]]);
            SocketAddrV6::new(address.into(), port, 0, 0)
        };
        Self { local: end(0), remote: end(18) }
    }

    /// In whole numbers.
    fn cmp_at_one_port(&self, other: &Self) -> Ordering {
        let ips = |flow: &Self| (flow.remote.ip().to_bits(), flow.local.port(), flow.local.ip().to_bits());
        ips(self).cmp(&ips(other)).then_with(|| (self.remote, self.local).cmp(&(other.remote, other.local)))
    }

    /// The flow of a datagram that arrived, if it is long enough to carry TCP ports. Nothing else is checked: enough
    /// to send it on, not to act on it.
    pub fn of(datagram: &Datagram) -> Option<Self> {
        let (&[a, b, c, d], _) = datagram.upper_bytes().split_first_chunk::<4>()?;
        Some(Self {
            local: SocketAddrV6::new(datagram.destination, u16::from_be_bytes([c, d]), 0, 0),
            remote: SocketAddrV6::new(datagram.source, u16::from_be_bytes([a, b]), 0, 0),
        })
    }
}

/// A range of sequence numbers: from the first to before the second.
pub type Block = (Seq, Seq);

/// What a segment does to the connection besides carrying octets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Opens.
    Syn,
    /// Ends a direction.
    Fin,
    /// Ends all.
    Rst,
}

/// The timestamps option (RFC 7323 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timestamps {
    /// `TSval`.
    pub value: u32,
    /// `TSecr`.
    pub echo: u32,
}

/// The options that we know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Maximum segment size (RFC 9293 section 3.7.1).
    pub mss: Option<u16>,
    /// Window scale (RFC 7323 section 2).
    pub window_scale: Option<u8>,
    /// Selective acknowledgements are welcome (RFC 2018 section 2).
    pub sack_permitted: bool,
    /// Timestamps (RFC 7323 section 3).
    pub timestamps: Option<Timestamps>,
    /// Selectively acknowledged ranges, the most recent first (RFC 2018 section 3).
    pub sack: [Option<Block>; MAX_SACK_BLOCKS],
}

/// The ECN field of the IP header (RFC 3168 section 5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Codepoint {
    /// The transport would not understand a mark.
    #[default]
    NotEct,
    /// It would; the other way to say so.
    Ect1,
    /// It would.
    Ect0,
    /// Congestion experienced: a mark.
    Ce,
}

impl Codepoint {
    /// That of a traffic class, whose low two bits it is.
    pub fn of(traffic_class: u8) -> Self {
        match traffic_class & 0b11 {
            0b00 => Self::NotEct,
            0b01 => Self::Ect1,
            0b10 => Self::Ect0,
            _ => Self::Ce,
        }
    }

    /// The two bits.
    pub fn bits(self) -> u8 {
        match self {
            Self::NotEct => 0b00,
            Self::Ect1 => 0b01,
            Self::Ect0 => 0b10,
            Self::Ce => 0b11,
        }
    }
}

/// A well-formed segment. The urgent pointer is neither read nor written (RFC 6093 section 6).
#[derive(Clone, derive_more::Debug, PartialEq, Eq)]
pub struct Segment {
    /// SEG.SEQ.
    pub seq: Seq,
    /// SEG.ACK, if the ACK bit is set.
    pub ack: Option<Seq>,
    /// At most one of SYN, FIN, RST.
    pub control: Option<Control>,
    /// PSH.
    pub push: bool,
    /// ECE: a mark has arrived (RFC 3168 section 6.1).
    pub ece: bool,
    /// CWR: the window was reduced.
    pub cwr: bool,
    /// What the packet that it is in says of congestion.
    pub codepoint: Codepoint,
    /// SEG.WND as it stands on the wire, not scaled.
    pub window: u16,
    /// Options.
    pub options: Options,
    /// Data.
    #[debug("{} octets", payload.len())]
    pub payload: Bytes,
    /// Set on a super-segment: the payload octets of each segment that it stands for.
    pub gso: Option<u16>,
}

/// Why octets are not a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ParseError {
    /// Shorter than its header.
    #[error("truncated TCP header")]
    Truncated,
    /// The checksum is wrong.
    #[error("wrong TCP checksum")]
    Checksum,
    /// More than one of SYN, FIN and RST.
    #[error("contradictory TCP control bits")]
    ControlConflict,
    /// A port is zero.
    #[error("TCP port zero")]
    PortZero,
    /// An option's length is wrong.
    #[error("malformed TCP options")]
    Options,
}

impl Segment {
    /// A segment without data.
    pub fn bare(seq: Seq, ack: Option<Seq>, control: Option<Control>) -> Self {
        Self {
            seq,
            ack,
            control,
            push: false,
            ece: false,
            cwr: false,
            codepoint: Codepoint::NotEct,
            window: 0,
            options: Options::default(),
            payload: Bytes::new(),
            gso: None,
        }
    }

    /// SEG.LEN: octets of sequence space that it takes.
    pub fn seq_len(&self) -> usize {
        let control = matches!(self.control, Some(Control::Syn | Control::Fin));
        self.payload.len() + usize::from(control)
    }

    /// The sequence number after its last.
    pub fn end(&self) -> Seq {
        self.seq + self.seq_len()
    }

    /// Whether it is a SYN.
    pub fn is_syn(&self) -> bool {
        self.control == Some(Control::Syn)
    }

    /// Whether it is a SYN that answers none: it opens a connection.
    pub fn opens(&self) -> bool {
        self.is_syn() && self.ack.is_none()
    }

    /// Whether it is a SYN of a host that knows ECN: an ECN-setup SYN or SYN-ACK (RFC 3168 section 6.1.1).
    pub fn is_ecn_setup(&self) -> bool {
        self.is_syn() && self.ece && self.cwr == self.ack.is_none()
    }

    /// Whether it is a FIN.
    pub fn is_fin(&self) -> bool {
        self.control == Some(Control::Fin)
    }

    /// Whether it is a RST.
    pub fn is_rst(&self) -> bool {
        self.control == Some(Control::Rst)
    }

    /// Reads a segment that arrived, and which flow it belongs to.
    pub fn parse(datagram: &Datagram) -> Result<(Flow, Self), ParseError> {
        let octets = &datagram.packet[datagram.upper_at..];
        let tcp = TcpPacket::new_checked(octets).map_err(|_| ParseError::Truncated)?;
        if !checksum::verify(datagram) {
            return Err(ParseError::Checksum);
        }
        if tcp.src_port() == 0 || tcp.dst_port() == 0 {
            return Err(ParseError::PortZero);
        }
        let flow = Flow {
            local: SocketAddrV6::new(datagram.destination, tcp.dst_port(), 0, 0),
            remote: SocketAddrV6::new(datagram.source, tcp.src_port(), 0, 0),
        };
        let payload = datagram.packet.slice(datagram.upper_at + usize::from(tcp.header_len())..);
        let segment = Self {
            seq: from_wire(tcp.seq_number()),
            ack: tcp.ack().then(|| from_wire(tcp.ack_number())),
            control: control(&tcp)?,
            push: tcp.psh(),
            ece: tcp.ece(),
            cwr: tcp.cwr(),
            codepoint: Codepoint::of(datagram.traffic_class),
            window: tcp.window_len(),
            options: parse_options(tcp.options())?,
            payload,
            gso: datagram.offload.gso.map(|Gso { size }| size),
        };
        Ok((flow, segment))
    }

    /// Writes the segment as an IPv6 packet. The checksum is left to whoever is below if `offload`; a
    /// super-segment needs that.
    pub fn emit(&self, flow: &Flow, flow_label: u32, offload: bool) -> Packet {
        let header_len = HEADER_LEN + self.options.wire_len();
        let (source, destination) = (*flow.local.ip(), *flow.remote.ip());
        let (next_header, traffic_class) = (ip::TCP, self.codepoint.bits());
        let header = ip::Header {
            source,
            destination,
            next_header,
            traffic_class,
            flow_label,
            ..ip::Header::default()
        };
        let mut head = header.emit(header_len + self.payload.len());
        let at = head.len();
        head.resize(at + header_len, 0);
        self.emit_header(flow, &mut head[at..]);
        let gso = self.gso.filter(|&size| self.payload.len() > usize::from(size)).map(|size| Gso { size });
        let offloads = Offload { gso, ..Offload::default() };
        let mut packet = Packet { head, body: self.payload.clone(), offload: offloads };
        checksum::transport(&mut packet, at, checksum::TCP, offload);
        packet
    }

    fn emit_header(&self, flow: &Flow, octets: &mut [u8]) {
        let header_len = u8::try_from(octets.len()).unwrap_or(60);
        let mut tcp = TcpPacket::new_unchecked(octets);
        tcp.set_src_port(flow.local.port());
        tcp.set_dst_port(flow.remote.port());
        tcp.set_seq_number(to_wire(self.seq));
        tcp.set_ack_number(to_wire(self.ack.unwrap_or_default()));
        tcp.clear_flags();
        tcp.set_header_len(header_len);
        tcp.set_ack(self.ack.is_some());
        tcp.set_syn(self.is_syn());
        tcp.set_fin(self.is_fin());
        tcp.set_rst(self.is_rst());
        tcp.set_psh(self.push);
        tcp.set_ece(self.ece);
        tcp.set_cwr(self.cwr);
        tcp.set_window_len(self.window);
        self.options.emit(tcp.options_mut());
    }
}

impl Options {
    /// The ranges that are acknowledged selectively.
    pub fn sack_blocks(&self) -> impl Iterator<Item = Block> {
        self.sack.iter().flatten().copied()
    }

    /// Octets on the wire, padded to words.
    pub fn wire_len(&self) -> usize {
        let blocks = self.sack_blocks().count();
        (if self.mss.is_some() { 4 } else { 0 })
            + match (self.sack_permitted, self.timestamps) {
                (false, None) => 0,
                (true, None) => 4,
                // Behind SACK-permitted they are aligned without padding of their own.
                (_, Some(_)) => usize::from(TIMESTAMPS_LEN),
            }
            + if self.window_scale.is_some() { 4 } else { 0 }
            + if blocks > 0 { 4 + 8 * blocks } else { 0 }
    }

    /// Writes them into exactly [`Options::wire_len`] octets: each aligned to words by padding in front of it, and in
    /// the order of Linux, so that nobody who looks at SYNs thinks us strange.
    fn emit(&self, mut octets: &mut [u8]) {
        let nops = |octets, count| (0..count).fold(octets, |rest, _| TcpOption::NoOperation.emit(rest));
        if let Some(mss) = self.mss {
            octets = TcpOption::MaxSegmentSize(mss).emit(octets);
        }
        if self.sack_permitted != self.timestamps.is_some() {
            octets = nops(octets, 2);
        }
        if self.sack_permitted {
            octets = TcpOption::SackPermitted.emit(octets);
        }
        if let Some(Timestamps { value, echo }) = self.timestamps {
            octets = TcpOption::TimeStamp { tsval: value, tsecr: echo }.emit(octets);
        }
        if let Some(scale) = self.window_scale {
            octets = TcpOption::WindowScale(scale).emit(nops(octets, 1));
        }
        if self.sack[0].is_some() {
            octets = nops(octets, 2);
            octets = TcpOption::SackRange(self.sack.map(|block| block.map(|(from, to)| (from.0, to.0))))
                .emit(octets);
        }
        debug_assert!(octets.is_empty(), "the length was another");
    }
}

fn control(tcp: &TcpPacket<&[u8]>) -> Result<Option<Control>, ParseError> {
    match (tcp.syn(), tcp.fin(), tcp.rst()) {
        (false, false, false) => Ok(None),
        (true, false, false) => Ok(Some(Control::Syn)),
        (false, true, false) => Ok(Some(Control::Fin)),
        // RFC 9293 section 3.10.7.4 checks RST before SYN and FIN.
        (_, _, true) => Ok(Some(Control::Rst)),
        (true, true, false) => Err(ParseError::ControlConflict),
    }
}

/// Unknown options are skipped (RFC 9293 section 3.1, MUST-6); a length that does not fit ends the segment.
fn parse_options(mut octets: &[u8]) -> Result<Options, ParseError> {
    let mut options = Options::default();
    while !octets.is_empty() {
        let (rest, option) = TcpOption::parse(octets).map_err(|_| ParseError::Options)?;
        match option {
            TcpOption::EndOfList => break,
            TcpOption::MaxSegmentSize(mss) => options.mss = Some(mss),
            TcpOption::WindowScale(scale) => options.window_scale = Some(scale),
            TcpOption::SackPermitted => options.sack_permitted = true,
            TcpOption::SackRange(ranges) => {
                options.sack = ranges.map(|range| range.map(|(from, to)| (Seq(from), Seq(to))));
            }
            TcpOption::TimeStamp { tsval, tsecr } => {
                options.timestamps = Some(Timestamps { value: tsval, echo: tsecr });
            }
            TcpOption::NoOperation | TcpOption::Unknown { .. } => {}
        }
        octets = rest;
    }
    Ok(options)
}

fn from_wire(seq: TcpSeqNumber) -> Seq {
    Seq(seq.0.cast_unsigned())
}

fn to_wire(seq: Seq) -> TcpSeqNumber {
    TcpSeqNumber(seq.0.cast_signed())
}
