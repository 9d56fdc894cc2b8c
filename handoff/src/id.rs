use core::fmt;
use core::hash::Hasher;

use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

/// A node of the group: a digest of its name, so that it is the same on every node whatever the order of the
/// configuration. Whoever reads a configuration must refuse two names with one digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(u64);

impl NodeId {
    /// The node called `name`.
    pub fn of(name: &str) -> Self {
        let mut hasher = SipHasher13::new_with_keys(0x6665_7272_795f_6e6f, 0x6465_5f6e_616d_6573);
        hasher.write(name.as_bytes());
        Self(hasher.finish())
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({:016x})", self.0)
    }
}

/// Counts the owners of a connection: it grows with every move and never shrinks. Who holds the greater epoch
/// is the owner. The upper half counts how often a copy of it was brought back to life after a crash, so that whoever does
/// that is ahead of every move of which the copy may know nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The epoch of a connection that has never moved.
    pub const FIRST: Self = Self(1);

    /// The epoch of the next owner.
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// The epoch of an owner that begins with a copy, because the owner has died.
    pub const fn recovered(self) -> Self {
        Self(self.0.saturating_add(1 << 32))
    }

    /// The same, if so many nodes that have died since may have begun with it, or with a better one.
    pub const fn recovered_after(self, lives: u32) -> Self {
        Self(self.recovered().0.saturating_add((lives as u64) << 32))
    }

    /// Whether a connection can have moved, and been brought back to life, so often: what another node says need not be
    /// true, and who begins beyond all bounds leaves nothing to count on with.
    pub const fn is_plausible(self) -> bool {
        const MOST: u64 = 1 << 31;
        self.recoveries() < MOST && self.0 & 0xffff_ffff < MOST
    }

    /// How often it was brought back to life after a crash.
    pub const fn recoveries(self) -> u64 {
        self.0 >> 32
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One life of a node's process, drawn at random when it starts. A node that was restarted is not the node
/// that was asked to take a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);
