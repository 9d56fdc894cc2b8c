//! Frames as an independent judge reads them: parsed by `etherparse`, which shares no line with the stack.

use core::fmt;
use core::net::{Ipv6Addr, SocketAddrV6};

use etherparse::{
    IpNumber, Ipv6ExtensionsSlice, NetSlice, SlicedPacket, TcpOptionElement, TcpSlice, TransportSlice,
};

/// A TCP segment on the wire.
#[derive(Clone, Debug)]
pub struct Seen<'a> {
    /// Who sent it.
    pub from: SocketAddrV6,
    /// To whom.
    pub to: SocketAddrV6,
    /// SEG.SEQ.
    pub seq: u32,
    /// SEG.ACK, if the ACK bit is set.
    pub ack: Option<u32>,
    /// SYN.
    pub syn: bool,
    /// FIN.
    pub fin: bool,
    /// RST.
    pub rst: bool,
    /// SEG.WND as it stands there.
    pub window: u16,
    /// The window scale option.
    pub scale: Option<u8>,
    /// `TSval`.
    pub tsval: Option<u32>,
    /// Data.
    pub payload: &'a [u8],
}

/// What a frame holds.
#[derive(Clone, Debug)]
pub enum Content<'a> {
    /// A TCP segment.
    Tcp(Seen<'a>),
    /// An ICMPv6 message: its type and code.
    Icmp(u8, u8),
    /// A packet in a tunnel between two nodes. Whoever relays it need not look into it: its checksum can be wrong.
    Tunnel(Ipv6Addr, Ipv6Addr, Result<Box<Content<'a>>, String>),
    /// Something else.
    Other,
}

/// Reads a frame, and judges every checksum in it. The error says what is wrong with it.
pub fn read(frame: &[u8]) -> Result<Content<'_>, String> {
    let packet = SlicedPacket::from_ethernet(frame).map_err(|error| error.to_string())?;
    content(&packet)
}

fn content<'a>(packet: &SlicedPacket<'a>) -> Result<Content<'a>, String> {
    let Some(NetSlice::Ipv6(ip)) = &packet.net else { return Ok(Content::Other) };
    let header = ip.header();
    let (source, destination) = at_home(ip.extensions(), header.source(), header.destination());
    if ip.payload().ip_number == IpNumber::IPV6 {
        let inner = SlicedPacket::from_ip(ip.payload().payload).map_err(|error| error.to_string());
        let inner = inner.and_then(|inner| content(&inner)).map(Box::new);
        return Ok(Content::Tunnel(source.into(), destination.into(), inner));
    }
    match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => {
            let sum = tcp.to_header().calc_checksum_ipv6_raw(source, destination, tcp.payload()).ok();
            // RFC 1624 section 3: one's complement has two zeros.
            let one_zero = |sum: u16| if sum == u16::MAX { 0 } else { sum };
            if sum.map(one_zero) != Some(one_zero(tcp.checksum())) {
                return Err(format!("TCP checksum {:#06x} instead of {sum:#06x?}", tcp.checksum()));
            }
            Ok(Content::Tcp(segment(source.into(), destination.into(), tcp)))
        }
        Some(TransportSlice::Icmpv6(icmp)) => {
            let right = icmp.is_checksum_valid(source, destination);
            let content = Content::Icmp(icmp.type_u8(), icmp.code_u8());
            if right { Ok(content) } else { Err("a wrong ICMPv6 checksum".to_owned()) }
        }
        _ => Ok(Content::Other),
    }
}

/// The addresses that the upper layers see: home addresses, where a type 2 routing header or a Home Address option
/// carries them (RFC 6275 sections 6.3 and 6.4).
fn at_home(
    extensions: &Ipv6ExtensionsSlice<'_>,
    source: [u8; 16],
    destination: [u8; 16],
) -> ([u8; 16], [u8; 16]) {
    let (mut source, mut destination) = (source, destination);
    let (mut next, mut rest) = (extensions.first_header(), extensions.slice());
    while let (
        Some(kind @ (IpNumber::IPV6_ROUTE_HEADER | IpNumber::IPV6_DESTINATION_OPTIONS)),
        [after, _, ..],
    ) = (next, rest)
    {
        let Some((header, behind)) = rest.split_first_chunk::<24>() else { break };
        let address = header.last_chunk().copied().unwrap_or_default();
        match kind {
            IpNumber::IPV6_ROUTE_HEADER if header[1..4] == [2, 2, 1] => destination = address,
            IpNumber::IPV6_DESTINATION_OPTIONS if header[6] == 0xc9 => source = address,
            _ => {}
        }
        (next, rest) = (Some(IpNumber(*after)), behind);
    }
    (source, destination)
}

fn segment<'a>(source: Ipv6Addr, destination: Ipv6Addr, tcp: &TcpSlice<'a>) -> Seen<'a> {
    let (mut scale, mut tsval) = (None, None);
    for option in tcp.to_header().options_iterator().flatten() {
        match option {
            TcpOptionElement::WindowScale(shift) => scale = Some(shift.min(14)),
            TcpOptionElement::Timestamp(value, _) => tsval = Some(value),
            _ => {}
        }
    }
    Seen {
        from: SocketAddrV6::new(source, tcp.source_port(), 0, 0),
        to: SocketAddrV6::new(destination, tcp.destination_port(), 0, 0),
        seq: tcp.sequence_number(),
        ack: tcp.ack().then(|| tcp.acknowledgment_number()),
        syn: tcp.syn(),
        fin: tcp.fin(),
        rst: tcp.rst(),
        window: tcp.window_size(),
        scale,
        tsval,
        payload: tcp.payload(),
    }
}

impl Seen<'_> {
    /// Octets of sequence space that it takes.
    pub fn seq_len(&self) -> u32 {
        let payload = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        payload + u32::from(self.syn) + u32::from(self.fin)
    }
}

impl fmt::Display for Content<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(seen) => seen.fmt(f),
            Self::Icmp(kind, code) => write!(f, "icmp {kind}/{code}"),
            Self::Tunnel(entry, exit, Ok(inner)) => write!(f, "[{entry} > {exit}] {inner}"),
            Self::Tunnel(entry, exit, Err(what)) => write!(f, "[{entry} > {exit}] {what}"),
            Self::Other => f.write_str("other"),
        }
    }
}

impl fmt::Display for Seen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, to, seq, window, payload, .. } = self;
        write!(f, "{from} > {to} seq {seq}")?;
        if let Some(ack) = self.ack {
            write!(f, " ack {ack}")?;
        }
        write!(f, " win {window} len {}", payload.len())?;
        for (name, set) in [("SYN", self.syn), ("FIN", self.fin), ("RST", self.rst)] {
            if set {
                write!(f, " {name}")?;
            }
        }
        match self.tsval {
            Some(tsval) => write!(f, " ts {tsval}"),
            None => Ok(()),
        }
    }
}
