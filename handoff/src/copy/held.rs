use core::time::Duration;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use ferry_stack::tcp::{Extent, Extents, Payload, Queue, Tcb};
use thiserror::Error;

use super::delta::{Delta, Version};
use super::spans::{Part, missing, parts, received};
use crate::{Refused, Snapshot};

/// Why a delta changes nothing of a copy.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unfit {
    /// It builds on another version than this, the one that is there.
    #[error("the copy has version {} of epoch {}, on which the delta does not build", .have.number, .have.epoch)]
    Lacks {
        /// What is there; number 0 if nothing is.
        have: Version,
    },
    /// It contradicts itself.
    #[error("{0}")]
    Refused(#[from] Refused),
}

/// A copy of a connection that runs at another node. Nothing at first.
#[derive(Clone, Debug, Default)]
pub struct Copy {
    held: Option<Held>,
}

#[derive(Clone, derive_more::Debug)]
struct Held {
    version: Version,
    service: String,
    #[debug("{} octets", session.len())]
    session: Bytes,
    wake: Option<Duration>,
    #[debug("{} octets", client.len())]
    client: Bytes,
    /// Without payload.
    tcb: Box<Tcb<Duration>>,
    extents: Extents,
    payload: Payload,
}

impl Copy {
    /// Which version is here; number 0 if none is.
    pub fn version(&self) -> Version {
        self.held.as_ref().map(|held| held.version).unwrap_or_default()
    }

    /// Whether nothing is here.
    pub fn is_empty(&self) -> bool {
        self.held.is_none()
    }

    /// Octets of payload that are here.
    pub fn len(&self) -> u64 {
        self.held.as_ref().map_or(0, |held| held.extents.len())
    }

    /// Everything that TCP knows, without payload.
    pub fn tcb(&self) -> Option<&Tcb<Duration>> {
        self.held.as_ref().map(|held| &*held.tcb)
    }

    /// The service that the connection belongs to.
    pub fn service(&self) -> Option<&str> {
        self.held.as_ref().map(|held| held.service.as_str())
    }

    /// What is known of the client's mobility, in the encoding of `ferry-mipv6`.
    pub fn client(&self) -> Option<&Bytes> {
        self.held.as_ref().map(|held| &held.client)
    }

    /// Brings the copy to the delta's version, or leaves it as it is. One that is not later than what is here says nothing
    /// new. Gives the version that is here then.
    pub fn apply(&mut self, delta: Delta) -> Result<Version, Unfit> {
        if let Some(held) = &self.held
            && delta.version <= held.version
        {
            return Ok(held.version);
        }
        let base = match (&mut self.held, delta.base) {
            (_, None) => None,
            (Some(held), Some(base)) if held.version == base => {
                if held.tcb.flow != delta.tcb.flow {
                    return Err(Refused::Contradiction.into());
                }
                Some(held)
            }
            _ => return Err(Unfit::Lacks { have: self.version() }),
        };
        let none = Extents::default();
        let fresh = missing(&delta.extents, base.as_ref().map_or(&none, |base| &base.extents));
        if fresh != delta.fresh() {
            return Err(Refused::Payload { present: delta.fresh(), wanted: fresh }.into());
        }
        // Nothing fails from here on.
        let (extents, mut payload, session, client) = match base {
            Some(held) => (
                core::mem::take(&mut held.extents),
                core::mem::take(&mut held.payload),
                core::mem::take(&mut held.session),
                core::mem::take(&mut held.client),
            ),
            None => Default::default(),
        };
        let payload = Fresh::of(delta.fresh).merge(&delta.extents, &extents, &mut payload);
        self.held = Some(Held {
            version: delta.version,
            service: delta.service,
            session: delta.session.unwrap_or(session),
            wake: delta.wake,
            client: delta.client.unwrap_or(client),
            tcb: delta.tcb,
            extents: delta.extents,
            payload,
        });
        Ok(delta.version)
    }

    /// The connection as it was at this version, if it can be true.
    pub fn snapshot(&self) -> Result<Snapshot, Refused> {
        self.clone().into_snapshot()
    }

    /// The connection as it was at this version, if it can be true. The octets are not copied.
    pub fn into_snapshot(self) -> Result<Snapshot, Refused> {
        let Some(Held { version, service, session, wake, client, mut tcb, payload, .. }) = self.held else {
            return Err(Refused::Nothing);
        };
        if !tcb.load(payload) {
            return Err(Refused::Contradiction);
        }
        tcb.check()?;
        Ok(Snapshot { epoch: version.epoch, service, tcb, session, wake, client })
    }
}

impl Delta {
    /// The connection that it brings, if it builds on nothing and can be true. The octets are not copied.
    pub fn into_snapshot(self) -> Result<Snapshot, Refused> {
        let mut copy = Copy::default();
        match copy.apply(self) {
            Ok(_) => copy.into_snapshot(),
            Err(Unfit::Refused(why)) => Err(why),
            Err(Unfit::Lacks { .. }) => Err(Refused::Nothing),
        }
    }
}

/// The octets of a delta, to be taken out in order.
struct Fresh(Queue);

impl Fresh {
    fn of(pieces: Vec<Bytes>) -> Self {
        let mut queue = Queue::default();
        for piece in pieces {
            queue.push(piece);
        }
        Self(queue)
    }

    /// The payload that lies at `wanted`: what was held there, and what is fresh.
    fn merge(mut self, wanted: &Extents, held: &Extents, payload: &mut Payload) -> Payload {
        let send = self.fill(wanted.send, &[held.send], &mut [&mut payload.send]);
        if held.is_empty() {
            let unread = self.fill(wanted.unread, &[], &mut []);
            let islands = wanted.islands.iter().map(|island| self.fill(*island, &[], &mut [])).collect();
            return Payload { send, unread, islands };
        }
        let extents = received(held);
        let mut queues: Vec<&mut Queue> =
            core::iter::once(&mut payload.unread).chain(&mut payload.islands).collect();
        let unread = self.fill(wanted.unread, &extents, &mut queues);
        let islands = wanted.islands.iter().map(|island| self.fill(*island, &extents, &mut queues)).collect();
        Payload { send, unread, islands }
    }

    fn fill(&mut self, wanted: Extent, held: &[Extent], queues: &mut [&mut Queue]) -> Queue {
        let mut filled = Queue::default();
        parts(wanted, held, |part| match part {
            Part::Held { index, from, len } => {
                let Some(queue) = queues.get_mut(index) else { return };
                if filled.is_empty() && from + len == queue.len() {
                    // What lies before it was taken already, or is not wanted any more.
                    filled = core::mem::take(*queue);
                    filled.advance(from);
                } else {
                    queue.pieces(from, len).for_each(|piece| filled.push(piece));
                }
            }
            Part::Fresh { len, .. } => {
                self.0.pieces(0, len).for_each(|piece| filled.push(piece));
                self.0.advance(len);
            }
        });
        filled
    }
}
