//! Writing captures as pcapng (draft-ietf-opsawg-pcapng), only as much as is needed here. Of the crates, the one
//! that is stable writes timestamps in another unit than it declares.

use std::io::{self, Write};

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const LINKTYPE_ETHERNET: u16 = 1;
const OPT_IF_NAME: u16 = 2;
const OPT_IF_TSRESOL: u16 = 9;
const OPT_EPB_FLAGS: u16 = 2;
const NANOSECONDS: u8 = 9;

/// Writes one capture file.
#[derive(Debug)]
pub struct Writer<W: Write> {
    to: W,
}

/// One frame to write.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Counts the interfaces from 0 in the order of their names.
    pub interface: u32,
    /// Nanoseconds.
    pub at_ns: u64,
    /// Its length on the wire.
    pub length: u32,
    /// Whether the host sent it.
    pub outgoing: bool,
    /// Its first octets.
    pub octets: &'a [u8],
}

impl<W: Write> Writer<W> {
    /// Starts a file that holds frames of these Ethernet interfaces.
    pub fn new(mut to: W, interfaces: &[&str], snap: u32) -> io::Result<Self> {
        let mut section = Vec::new();
        section.extend(0x1a2b_3c4d_u32.to_le_bytes());
        section.extend([1_u16, 0].map(u16::to_le_bytes).concat());
        section.extend((-1_i64).to_le_bytes());
        block(&mut to, SECTION, &section)?;
        for name in interfaces {
            let mut body = Vec::new();
            body.extend([LINKTYPE_ETHERNET, 0].map(u16::to_le_bytes).concat());
            body.extend(snap.to_le_bytes());
            option(&mut body, OPT_IF_NAME, name.as_bytes());
            option(&mut body, OPT_IF_TSRESOL, &[NANOSECONDS]);
            option(&mut body, 0, &[]);
            block(&mut to, INTERFACE, &body)?;
        }
        Ok(Self { to })
    }

    /// Adds a frame.
    pub fn write(&mut self, packet: Packet<'_>) -> io::Result<()> {
        let Packet { interface, at_ns, length, outgoing, octets } = packet;
        let captured = u32::try_from(octets.len()).map_err(io::Error::other)?;
        let (high, low) = ((at_ns >> 32) as u32, (at_ns & 0xffff_ffff) as u32);
        let mut body = Vec::with_capacity(octets.len() + 40);
        body.extend([interface, high, low, captured, length].map(u32::to_le_bytes).concat());
        pad(&mut body, octets);
        let direction: u32 = if outgoing { 2 } else { 1 };
        option(&mut body, OPT_EPB_FLAGS, &direction.to_le_bytes());
        option(&mut body, 0, &[]);
        block(&mut self.to, ENHANCED_PACKET, &body)
    }

    /// Hands everything to the file.
    pub fn finish(mut self) -> io::Result<()> {
        self.to.flush()
    }
}

fn block(to: &mut impl Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let length = u32::try_from(body.len() + 12).map_err(io::Error::other)?.to_le_bytes();
    to.write_all(&kind.to_le_bytes())?;
    to.write_all(&length)?;
    to.write_all(body)?;
    to.write_all(&length)
}

fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
    body.extend(code.to_le_bytes());
    body.extend(length.to_le_bytes());
    pad(body, &value[..usize::from(length)]);
}

fn pad(body: &mut Vec<u8>, value: &[u8]) {
    body.extend(value);
    body.resize(body.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(octets: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(octets[at..at + 4].try_into().expect("four octets"))
    }

    /// The type and the body of each block, as any reader finds them.
    fn blocks(mut file: &[u8]) -> Vec<(u32, &[u8])> {
        let mut blocks = Vec::new();
        while !file.is_empty() {
            let length = word(file, 4) as usize;
            assert_eq!(length % 4, 0);
            assert_eq!(word(file, length - 4) as usize, length, "the length stands at both ends");
            blocks.push((word(file, 0), &file[8..length - 4]));
            file = &file[length..];
        }
        blocks
    }

    #[test]
    fn a_reader_finds_every_frame_with_its_time_and_its_octets() {
        let mut file = Vec::new();
        let mut writer = Writer::new(&mut file, &["eth0", "ferry0"], 160).expect("memory");
        let at_ns = 0x0000_0001_0000_0002;
        let packet = Packet { interface: 1, at_ns, length: 1514, outgoing: true, octets: &[1, 2, 3, 4, 5] };
        writer.write(packet).expect("memory");
        writer.finish().expect("memory");
        let blocks = blocks(&file);
        let kinds: Vec<_> = blocks.iter().map(|(kind, _)| *kind).collect();
        assert_eq!(kinds, [SECTION, INTERFACE, INTERFACE, ENHANCED_PACKET]);
        let body = blocks[3].1;
        let words: Vec<_> = (0..5).map(|nth| word(body, nth * 4)).collect();
        assert_eq!(words, [1, 1, 2, 5, 1514], "interface, time, captured, length");
        assert_eq!(body[20..28], [1, 2, 3, 4, 5, 0, 0, 0], "padded to four");
    }
}
