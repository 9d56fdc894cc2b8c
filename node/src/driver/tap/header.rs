//! The virtio-net header in front of each frame on a TAP with `IFF_VNET_HDR` (Virtual I/O Device 1.2, section
//! 5.1.6; the legacy layout, in the machine's byte order).

use ferry_stack::{Checksum, Frame, Gso, Offload};

/// Octets of the header, set with `TUNSETVNETHDRSZ`.
pub(super) const LEN: usize = 10;

const F_NEEDS_CSUM: u8 = 1;
const F_DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

/// Where flags and data offset lie in a TCP header (RFC 9293 section 3.1).
const TCP_DATA_OFFSET: usize = 12;
const TCP_FLAGS: usize = 13;
const TCP_CWR: u8 = 0x80;

/// Why what the kernel handed over is no frame for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unusable {
    /// Shorter than the header.
    Truncated,
    /// A kind of super-segment that was not offered to the kernel.
    GsoType,
    /// The checksum field would lie outside the frame.
    ChecksumField,
}

/// What the header says about the frame that follows it.
pub(super) fn parse(octets: &[u8]) -> Result<Offload, Unusable> {
    let (header, frame) = octets.split_first_chunk::<LEN>().ok_or(Unusable::Truncated)?;
    let [flags, gso_type, h0, h1, s0, s1, c0, c1, o0, o1] = *header;
    let _header_len = u16::from_ne_bytes([h0, h1]);
    let (size, start, offset) =
        (u16::from_ne_bytes([s0, s1]), u16::from_ne_bytes([c0, c1]), u16::from_ne_bytes([o0, o1]));
    let gso = match gso_type & !GSO_ECN {
        GSO_NONE => None,
        GSO_TCPV6 => Some(Gso { size }),
        _ => return Err(Unusable::GsoType),
    };
    let checksum = if flags & F_NEEDS_CSUM != 0 {
        if usize::from(start) + usize::from(offset) + 2 > frame.len() {
            return Err(Unusable::ChecksumField);
        }
        Checksum::Partial { start, offset }
    } else if flags & F_DATA_VALID != 0 {
        Checksum::Verified
    } else {
        Checksum::Complete
    };
    Ok(Offload { checksum, gso })
}

/// The header for a frame that goes out.
pub(super) fn emit(frame: &Frame) -> [u8; LEN] {
    let mut header = [0; LEN];
    let Checksum::Partial { start, offset } = frame.offload.checksum else { return header };
    header[0] = F_NEEDS_CSUM;
    header[6..8].copy_from_slice(&start.to_ne_bytes());
    header[8..10].copy_from_slice(&offset.to_ne_bytes());
    if let Some(Gso { size }) = frame.offload.gso {
        let (header_len, cwr) = tcp_header(&frame.head, start);
        header[1] = if cwr { GSO_TCPV6 | GSO_ECN } else { GSO_TCPV6 };
        header[2..4].copy_from_slice(&header_len.to_ne_bytes());
        header[4..6].copy_from_slice(&size.to_ne_bytes());
    }
    header
}

/// Where the TCP header that begins at `start` ends, and whether it has CWR set: the kernel must then set it on the
/// first segment only (RFC 3168 section 6.1.2).
fn tcp_header(head: &[u8], start: u16) -> (u16, bool) {
    let tcp = head.get(usize::from(start)..).unwrap_or_default();
    let words = tcp.get(TCP_DATA_OFFSET).map_or(0, |octet| octet >> 4);
    let cwr = tcp.get(TCP_FLAGS).is_some_and(|flags| flags & TCP_CWR != 0);
    (start + 4 * u16::from(words), cwr)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    /// A header as C would lay it out, followed by `room` octets.
    fn received(flags: u8, gso_type: u8, size: u16, start: u16, offset: u16, room: usize) -> Vec<u8> {
        let mut octets = vec![flags, gso_type];
        for field in [54, size, start, offset] {
            octets.extend(u16::to_ne_bytes(field));
        }
        octets.resize(LEN + room, 0);
        octets
    }

    #[test]
    fn each_header_from_the_kernel_means_one_offload() {
        let partial = Checksum::Partial { start: 54, offset: 16 };
        let gso = Some(Gso { size: 1440 });
        let cases = [
            ("plain", received(0, 0, 0, 0, 0, 60), Ok(Offload::default())),
            (
                "verified",
                received(2, 0, 0, 0, 0, 60),
                Ok(Offload { checksum: Checksum::Verified, gso: None }),
            ),
            ("partial", received(1, 0, 0, 54, 16, 74), Ok(Offload { checksum: partial, gso: None })),
            ("both flags", received(3, 0, 0, 54, 16, 74), Ok(Offload { checksum: partial, gso: None })),
            ("super-segment", received(1, 4, 1440, 54, 16, 9000), Ok(Offload { checksum: partial, gso })),
            ("with ECN", received(1, 0x84, 1440, 54, 16, 9000), Ok(Offload { checksum: partial, gso })),
            ("TCP over IPv4", received(1, 1, 1440, 34, 16, 9000), Err(Unusable::GsoType)),
            ("UDP", received(1, 5, 1440, 54, 6, 9000), Err(Unusable::GsoType)),
            ("field outside", received(1, 0, 0, 54, 16, 71), Err(Unusable::ChecksumField)),
            ("overflowing field", received(1, 0, 0, u16::MAX, u16::MAX, 71), Err(Unusable::ChecksumField)),
            ("truncated", vec![0; LEN - 1], Err(Unusable::Truncated)),
        ];
        for (name, octets, expected) in cases {
            assert_eq!(parse(&octets), expected, "{name}");
        }
    }

    fn tcp_frame(offload: Offload, flags: u8) -> Frame {
        let mut head = vec![0; 14 + 40 + 32];
        head[54 + TCP_DATA_OFFSET] = 8 << 4;
        head[54 + TCP_FLAGS] = flags;
        Frame { head: head.into(), body: Bytes::from_static(&[7; 4000]), offload }
    }

    #[test]
    fn each_offload_becomes_one_header_for_the_kernel() {
        let partial = Checksum::Partial { start: 54, offset: 16 };
        let gso = Some(Gso { size: 1428 });
        let cases = [
            ("plain", Offload::default(), 0x10, received(0, 0, 0, 0, 0, 0), 0),
            ("partial", Offload { checksum: partial, gso: None }, 0x10, received(1, 0, 0, 54, 16, 0), 0),
            ("super-segment", Offload { checksum: partial, gso }, 0x10, received(1, 4, 1428, 54, 16, 0), 86),
            ("with CWR", Offload { checksum: partial, gso }, 0x90, received(1, 0x84, 1428, 54, 16, 0), 86),
        ];
        for (name, offload, flags, mut expected, header_len) in cases {
            expected[2..4].copy_from_slice(&u16::to_ne_bytes(header_len));
            assert_eq!(emit(&tcp_frame(offload, flags))[..], expected, "{name}");
        }
    }

    proptest! {
        #[test]
        fn what_is_sent_is_understood_alike_on_reception(start in 14u16..80, offset in 0u16..4, size: u16, super_segment: bool) {
            let gso = super_segment.then_some(Gso { size });
            let offload = Offload { checksum: Checksum::Partial { start, offset }, gso };
            let frame = tcp_frame(offload, 0x18);
            let octets = [&emit(&frame)[..], &frame.head, &frame.body].concat();
            prop_assert_eq!(parse(&octets), Ok(offload));
        }

        #[test]
        fn no_octets_make_the_parser_panic(octets: Vec<u8>) {
            let _ = parse(&octets);
        }
    }
}
