use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use ferry_stack::Seq;
use ferry_stack::tcp::{Extent, Extents, Flow, Payload, Queue, Tcb};
use serde::{Deserialize, Serialize};

use super::spans::{Part, parts, received};
use crate::snapshot::{HEADER, check_header, write_header};
use crate::wire::octets;
use crate::{Epoch, MAX_SNAPSHOT, Pieces, Refused, Snapshot, TooLarge};

/// Shorter payloads are copied, so that they do not pin the large buffer that they came in.
const SHARE_FROM: usize = 2048;

/// Numbers the states of a connection that copies of it were brought to. Greater ones are later.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Version {
    /// The owner's.
    pub epoch: Epoch,
    /// Counts the deltas of this epoch, from one.
    pub number: u64,
}

/// What brings a copy from one version to another: everything that is not payload, and the octets that it lacks.
#[derive(Clone, derive_more::Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delta {
    /// The version that the copy must have; `None`: whatever it has, this is everything.
    pub base: Option<Version>,
    /// The version that it has then.
    pub version: Version,
    pub(crate) service: String,
    /// If they have changed.
    #[debug("{:?} octets", session.as_ref().map(Bytes::len))]
    pub(crate) session: Option<Bytes>,
    pub(crate) wake: Option<Duration>,
    /// If it has changed.
    #[debug("{:?} octets", client.as_ref().map(Bytes::len))]
    pub(crate) client: Option<Bytes>,
    pub(crate) extents: Extents,
    /// Without payload.
    pub(crate) tcb: Box<Tcb<Duration>>,
    /// The octets that the copy lacks, in the order of the extents.
    #[serde(skip)]
    #[debug("{} pieces", fresh.len())]
    pub(crate) fresh: Vec<Bytes>,
}

impl Delta {
    /// Everything, for whoever has nothing.
    pub fn whole(snapshot: &Snapshot) -> Self {
        Self::onto(None, 0, snapshot.clone()).0
    }

    /// [`Snapshot::pieces`], where nobody else needs the snapshot meanwhile: it is not copied for it, and comes back.
    pub(crate) fn pieces_of_whole(snapshot: Snapshot) -> (Result<Pieces, TooLarge>, Snapshot) {
        let (delta, payload) = Self::onto(None, 0, snapshot);
        let pieces = delta.pieces();
        let Self { version, service, session, wake, client, mut tcb, .. } = delta;
        let loaded = tcb.load(payload);
        debug_assert!(loaded, "it was unloaded from there");
        let (session, client) = (session.unwrap_or_default(), client.unwrap_or_default());
        (pieces, Snapshot { epoch: version.epoch, service, tcb, session, wake, client })
    }

    /// What brings a copy that has this version, and holds these extents, to the snapshot, which has this number then; and the
    /// snapshot's payload.
    pub(super) fn onto(
        held: Option<(Version, &Extents)>,
        number: u64,
        snapshot: Snapshot,
    ) -> (Self, Payload) {
        let Snapshot { epoch, service, mut tcb, session, wake, client } = snapshot;
        let extents = tcb.extents();
        let payload = tcb.unload();
        let (base, held) = held.unzip();
        let (sent, had) = (held.map(|held| held.send), held.map(received).unwrap_or_default());
        let mut fresh = Vec::new();
        lacking(extents.send, sent.as_slice(), &payload.send, &mut fresh);
        for (extent, octets) in extents.received().zip(payload.received()) {
            lacking(extent, &had, octets, &mut fresh);
        }
        let (version, session, client) = (Version { epoch, number }, Some(session), Some(client));
        (Self { base, version, service, session, wake, client, extents, tcb, fresh }, payload)
    }

    /// Everything that TCP knows, without payload.
    pub fn tcb(&self) -> &Tcb<Duration> {
        &self.tcb
    }

    /// The connection.
    pub fn flow(&self) -> &Flow {
        &self.tcb.flow
    }

    /// Its initial sequence number, which tells it from others between the same ends.
    pub fn iss(&self) -> Seq {
        self.tcb.snd.iss
    }

    /// Octets of payload that it carries.
    pub fn fresh(&self) -> usize {
        self.fresh.iter().map(Bytes::len).sum()
    }

    /// The delta as octets, in one piece, of which the check notices each flipped bit.
    pub fn encode(&self) -> Result<Bytes, TooLarge> {
        let pieces = self.pieces()?;
        if pieces.rest.is_empty() {
            return Ok(pieces.head);
        }
        let mut octets = Vec::from(pieces.join());
        write_header(&mut octets, 0)?;
        Ok(octets.into())
    }

    /// The delta as octets, for a link that authenticates them. Long payloads are shared, neither copied nor checked.
    pub fn pieces(&self) -> Result<Pieces, TooLarge> {
        let fresh = self.fresh();
        let held = usize::try_from(self.extents.len()).unwrap_or(usize::MAX);
        if held > MAX_SNAPSHOT {
            return Err(TooLarge(held));
        }
        let (short, long) =
            if fresh < SHARE_FROM { (&self.fresh[..], &[][..]) } else { (&[][..], &self.fresh[..]) };
        let octets = octets(HEADER, self, short.iter().map(|piece| &piece[..]));
        let mut octets = octets.ok_or(TooLarge(usize::MAX))?;
        // What is held and what is sent together: no copy grows beyond what a snapshot may hold.
        let copied = if short.is_empty() { 0 } else { fresh };
        let all = octets.len() - copied + held;
        if all > MAX_SNAPSHOT {
            return Err(TooLarge(all));
        }
        write_header(&mut octets, fresh - copied)?;
        Ok(Pieces { head: octets.into(), rest: long.to_vec() })
    }

    /// The delta in these octets, if they are exactly one that can be true. Long payloads are shared, not copied.
    pub fn decode(octets: &Bytes) -> Result<Self, Refused> {
        Self::decode_pieces(&octets.clone().into())
    }

    /// The same of octets in several pieces, the first of which holds all that is not payload.
    pub fn decode_pieces(octets: &Pieces) -> Result<Self, Refused> {
        if octets.len() > MAX_SNAPSHOT {
            return Err(Refused::TooLarge(octets.len()));
        }
        let (body, checked) = check_header(octets)?;
        let (mut delta, fresh) = postcard::take_from_bytes::<Self>(body).map_err(|_| Refused::Malformed)?;
        if checked < body.len() - fresh.len() {
            return Err(Refused::Check);
        }
        if delta.extents.len() > MAX_SNAPSHOT as u64 {
            return Err(Refused::TooLarge(usize::try_from(delta.extents.len()).unwrap_or(usize::MAX)));
        }
        let builds = delta.base.is_none_or(|base| base < delta.version);
        let complete = delta.base.is_some() || delta.session.is_some() && delta.client.is_some();
        if !builds || !complete || !delta.tcb.is_lean_for(&delta.extents) {
            return Err(Refused::Contradiction);
        }
        if !fresh.is_empty() {
            let short = fresh.len() < SHARE_FROM;
            let fresh = if short { Bytes::copy_from_slice(fresh) } else { octets.head.slice_ref(fresh) };
            delta.fresh.push(fresh);
        }
        delta.fresh.extend_from_slice(&octets.rest);
        Ok(delta)
    }
}

/// Adds those octets of an extent that are not held.
fn lacking(extent: Extent, held: &[Extent], octets: &Queue, fresh: &mut Vec<Bytes>) {
    parts(extent, held, |part| {
        if let Part::Fresh { at, len } = part {
            fresh.extend(octets.pieces(at, len));
        }
    });
}
