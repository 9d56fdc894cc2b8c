//! Frames as they cross the edge of the stack, with what the driver knows of their checksum and size.

use bytes::Bytes;

/// How far the transport checksum of a packet has been computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Checksum {
    /// The field holds the whole checksum. On reception it must be verified.
    #[default]
    Complete,
    /// The field holds only the pseudo-header's sum; whoever puts the packet on a real wire completes it over
    /// the octets from `start`. Received like this, the packet never left this machine and is known good.
    Partial {
        /// Where summing starts: octets from the start of the frame or packet that carries this value.
        start: u16,
        /// Where the checksum field lies: octets after `start`.
        offset: u16,
    },
    /// On reception only: somebody below verified it.
    Verified,
}

/// A super-segment: one TCP segment that stands for many, to be cut (or that was merged) below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gso {
    /// TCP payload octets in each segment but the last.
    pub size: u16,
}

/// What a virtio-net header tells about a packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Offload {
    /// How far the transport checksum has been computed.
    pub checksum: Checksum,
    /// Present on a super-segment.
    pub gso: Option<Gso>,
}

impl Offload {
    /// The same, for a packet in front of which `octets` of header were put.
    pub fn shifted(self, octets: u16) -> Self {
        let checksum = match self.checksum {
            Checksum::Partial { start, offset } => Checksum::Partial { start: start + octets, offset },
            whole => whole,
        };
        Self { checksum, ..self }
    }

    /// The same, for a packet from which `octets` of header were taken away; `None` if the checksum covers them.
    pub fn unshifted(self, octets: u16) -> Option<Self> {
        let checksum = match self.checksum {
            Checksum::Partial { start, offset } => {
                Checksum::Partial { start: start.checked_sub(octets)?, offset }
            }
            whole => whole,
        };
        Some(Self { checksum, ..self })
    }
}

/// An Ethernet frame in two parts, so that a payload is sent without being copied.
///
/// A frame that comes from a driver has everything in `head`; one that goes to a driver has its headers in
/// `head` and its payload, if any, in `body`.
#[derive(Clone, derive_more::Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// The first octets, beginning with the Ethernet header.
    #[debug("{} octets", head.len())]
    pub head: Bytes,
    /// The rest.
    #[debug("{} octets", body.len())]
    pub body: Bytes,
    /// What the driver tells or must be told. Offsets count from the Ethernet header.
    pub offload: Offload,
}

impl Frame {
    /// A received frame without offloads.
    pub fn received(bytes: Bytes) -> Self {
        Self { head: bytes, body: Bytes::new(), offload: Offload::default() }
    }

    /// Octets in all.
    pub fn len(&self) -> usize {
        self.head.len() + self.body.len()
    }

    /// Whether there are no octets at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The same frame with everything in `head`.
    pub fn contiguous(self) -> Self {
        if self.body.is_empty() {
            return self;
        }
        let bytes: alloc::vec::Vec<u8> = [&self.head[..], &self.body[..]].concat();
        Self { head: bytes.into(), body: Bytes::new(), offload: self.offload }
    }
}
