use bytes::Bytes;
use ferry_stack::tcp::{Extents, Tcb};

use super::delta::{Delta, Version};
use super::spans::missing;
use crate::Snapshot;

/// So many octets further on, sequence numbers no longer tell what is what.
const FAR: u64 = 1 << 30;

/// What the owner of a connection knows of a copy elsewhere: which octets it holds once it has the last delta.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    /// Of the last delta.
    version: u64,
    /// Of the last one that builds on nothing.
    whole: u64,
    base: Option<Base>,
}

/// The copy as the last delta makes it.
#[derive(Clone, derive_more::Debug)]
struct Base {
    version: Version,
    extents: Extents,
    /// Octets acknowledged and received in all.
    totals: (u64, u64),
    #[debug("{} octets", session.len())]
    session: Bytes,
    #[debug("{} octets", client.len())]
    client: Bytes,
}

impl Mirror {
    /// Of a copy that has nothing. Its first version is `after` + 1: in one epoch no two deltas may have the same number,
    /// whoever they go to.
    pub fn after(after: u64) -> Self {
        Self { version: after, whole: 0, base: None }
    }

    /// The version of the last delta.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// What brings the copy from the last delta to `snapshot`.
    pub fn delta(&mut self, snapshot: Snapshot) -> Delta {
        let totals = totals(&snapshot.tcb);
        let near = |base: &Base| {
            totals.0.wrapping_sub(base.totals.0) < FAR && totals.1.wrapping_sub(base.totals.1) < FAR
        };
        let base = self.base.take().filter(near);
        self.version = self.version.saturating_add(1);
        if base.is_none() {
            self.whole = self.version;
        }
        let (session, client) = (snapshot.session.clone(), snapshot.client.clone());
        let held = base.as_ref().map(|base| (base.version, &base.extents));
        let (mut delta, _) = Delta::onto(held, self.version, snapshot);
        if let Some(base) = base {
            delta.session.take_if(|now| *now == base.session);
            delta.client.take_if(|now| *now == base.client);
        }
        let (version, extents) = (delta.version, delta.extents.clone());
        self.base = Some(Base { version, extents, totals, session, client });
        delta
    }

    /// Octets of payload that the next delta would carry.
    pub fn missing<At>(&self, tcb: &Tcb<At>) -> usize {
        let extents = tcb.extents();
        let none = Extents::default();
        missing(&extents, self.base.as_ref().map_or(&none, |base| &base.extents))
    }

    /// The next delta builds on nothing.
    pub fn restart(&mut self) {
        self.base = None;
    }

    /// The copy could not use the delta with this number, because it lacks what that builds on. Whether that is news:
    /// what follows it in the meantime is of no use either, until one that builds on nothing.
    pub fn lacks(&mut self, number: u64) -> bool {
        let news = self.base.is_some() && number > self.whole && number <= self.version;
        if news {
            self.restart();
        }
        news
    }
}

fn totals<At>(tcb: &Tcb<At>) -> (u64, u64) {
    (tcb.snd.acked_total, tcb.rcv.total)
}
