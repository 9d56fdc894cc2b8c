//! How large a packet is that may stand for many.

use ferry_stack::ip::Datagram;

/// Octets of the largest packet that a datagram stands for: of itself, or, if it is a super-segment, of one of the
/// segments that it will be cut into.
pub(crate) fn largest(datagram: &Datagram) -> usize {
    let Some(gso) = datagram.offload.gso else { return datagram.packet.len() };
    let header = datagram.upper_bytes().get(12).map_or(0, |octet| usize::from(octet >> 4) * 4);
    (datagram.upper_at + header + usize::from(gso.size)).min(datagram.packet.len())
}
