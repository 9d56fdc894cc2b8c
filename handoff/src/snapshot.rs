use alloc::boxed::Box;
use alloc::string::String;
use core::time::Duration;

use bytes::Bytes;
use ferry_stack::tcp::{Broken, Tcb};
use thiserror::Error;

use crate::copy::Delta;
use crate::{Epoch, Pieces};

/// The format's version. A change of the golden bytes in the tests means a new one.
pub const VERSION: u16 = 4;
/// Bounds what another node can make us allocate: both buffers of a connection, and a session, with room to spare.
pub const MAX_SNAPSHOT: usize = 8 << 20;

const MAGIC: [u8; 4] = *b"FRRY";
/// Magic, version, length of the body, how many octets of it are checked, CRC-32 of these and of all that is before the check;
/// all big-endian. The body is a [`Delta`]: first what it says, then its octets of payload.
///
/// What is one piece is checked whole. In several pieces it only ever leaves over a link, on which TLS authenticates each
/// octet (the tag finds more than a CRC, which would take most of the time that a long payload needs to leave and to come):
/// there the check reaches as far as the first piece, in which everything stands but long payload. On a link in plain text,
/// which has to be asked for, long payload has TCP's checksum only.
pub(crate) const HEADER: usize = UNCHECKED + 4;
/// What is before the check.
const UNCHECKED: usize = 4 + 2 + 4 + 4;

/// A frozen connection with its application's state: everything that moves.
#[derive(Clone, derive_more::Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Under which the new owner runs it.
    pub epoch: Epoch,
    /// The name of the service that it belongs to.
    pub service: String,
    /// Everything that TCP knows, its clocks stopped.
    pub tcb: Box<Tcb<Duration>>,
    /// What the session knows, in the service's own encoding.
    #[debug("{} octets", session.len())]
    pub session: Bytes,
    /// After which time the session wants to be woken.
    pub wake: Option<Duration>,
    /// What is known of the client's mobility, in the encoding of `ferry-mipv6`; empty if nothing.
    #[debug("{} octets", client.len())]
    pub client: Bytes,
}

/// A snapshot that no node would accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a snapshot of {0} octets exceeds the limit of {MAX_SNAPSHOT}")]
pub struct TooLarge(pub usize);

/// Why bytes from another node are not a snapshot. Harmless here: the donor still has the connection.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refused {
    /// Shorter than its header, or than the header says.
    #[error("the snapshot is cut short: {present} of {wanted} octets")]
    Truncated {
        /// Octets that are there.
        present: usize,
        /// Octets that should be.
        wanted: usize,
    },
    /// More octets than the header says.
    #[error("{0} octets follow the snapshot")]
    Trailing(usize),
    /// It does not begin like a snapshot.
    #[error("these octets are not a snapshot")]
    Magic,
    /// Another version of the format.
    #[error("snapshot format {0}, but this node speaks {VERSION}")]
    Version(u16),
    /// Longer than any connection can be.
    #[error("a snapshot of {0} octets exceeds the limit of {MAX_SNAPSHOT}")]
    TooLarge(usize),
    /// The octets changed on the way.
    #[error("the snapshot's check does not fit its octets")]
    Check,
    /// The body does not decode.
    #[error("the snapshot's body is malformed")]
    Malformed,
    /// It says things that cannot both be true.
    #[error("the snapshot contradicts itself")]
    Contradiction,
    /// More payload than there should be, or less.
    #[error("the snapshot has {present} octets of payload instead of {wanted}")]
    Payload {
        /// Octets that are there.
        present: usize,
        /// Octets that should be.
        wanted: usize,
    },
    /// It builds on what is not there.
    #[error("there is nothing for the snapshot to build on")]
    Nothing,
    /// It decodes, but no connection can be like that.
    #[error("the snapshot cannot be true: {0}")]
    Broken(#[from] Broken),
}

impl Snapshot {
    /// The snapshot as octets, in one piece, of which the check notices each flipped bit.
    pub fn encode(&self) -> Result<Bytes, TooLarge> {
        Delta::whole(self).encode()
    }

    /// The snapshot as octets, for a link that authenticates them. Long payloads are shared, neither copied nor checked.
    pub fn pieces(&self) -> Result<Pieces, TooLarge> {
        Delta::whole(self).pieces()
    }

    /// The snapshot in these octets, if they are exactly one that can be true. Long payloads are shared, not copied.
    pub fn decode(octets: &Bytes) -> Result<Self, Refused> {
        Self::decode_pieces(&octets.clone().into())
    }

    /// The same of octets in several pieces.
    pub fn decode_pieces(octets: &Pieces) -> Result<Self, Refused> {
        Delta::decode_pieces(octets)?.into_snapshot()
    }
}

/// Writes the header in front of a body that goes on `behind` these octets, where room was left for it.
pub(crate) fn write_header(octets: &mut [u8], behind: usize) -> Result<(), TooLarge> {
    let Some((header, body)) = octets.split_at_mut_checked(HEADER) else { return Err(TooLarge(0)) };
    let number = |octets: usize| u32::try_from(octets).map(u32::to_be_bytes).map_err(|_| TooLarge(octets));
    let (length, checked) = (number(body.len() + behind)?, number(body.len())?);
    header[..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&VERSION.to_be_bytes());
    header[6..10].copy_from_slice(&length);
    header[10..UNCHECKED].copy_from_slice(&checked);
    let check = check(&header[..UNCHECKED], [&*body], usize::MAX);
    header[UNCHECKED..].copy_from_slice(&check.to_be_bytes());
    Ok(())
}

/// Of a header and the first octets of the body behind it.
fn check<'a>(header: &[u8], body: impl IntoIterator<Item = &'a [u8]>, mut checked: usize) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    for piece in body {
        let piece = &piece[..piece.len().min(checked)];
        checked -= piece.len();
        hasher.update(piece);
    }
    hasher.finalize()
}

/// The first piece of the body that the header announces, and for how many octets of the body it vouches.
pub(crate) fn check_header(octets: &Pieces) -> Result<(&[u8], usize), Refused> {
    let present = octets.len();
    let truncated = |wanted| Refused::Truncated { present, wanted };
    let (magic, rest) = octets.head.split_first_chunk::<4>().ok_or(truncated(HEADER))?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or(truncated(HEADER))?;
    let (length, rest) = rest.split_first_chunk::<4>().ok_or(truncated(HEADER))?;
    let (checked, rest) = rest.split_first_chunk::<4>().ok_or(truncated(HEADER))?;
    let (check, body) = rest.split_first_chunk::<4>().ok_or(truncated(HEADER))?;
    if *magic != MAGIC {
        return Err(Refused::Magic);
    }
    if u16::from_be_bytes(*version) != VERSION {
        return Err(Refused::Version(u16::from_be_bytes(*version)));
    }
    let number = |octets| usize::try_from(u32::from_be_bytes(octets)).unwrap_or(usize::MAX);
    let (length, checked) = (number(*length), number(*checked));
    if present - HEADER < length {
        return Err(truncated(HEADER.saturating_add(length)));
    }
    if present - HEADER > length {
        return Err(Refused::Trailing(present - HEADER - length));
    }
    let pieces = core::iter::once(body).chain(octets.rest.iter().map(|piece| &piece[..]));
    let found = self::check(&octets.head[..UNCHECKED], pieces, checked);
    if checked > length || found != u32::from_be_bytes(*check) {
        return Err(Refused::Check);
    }
    Ok((body, checked))
}
