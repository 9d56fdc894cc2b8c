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
/// is the owner.
///
/// A client may use its port again, and several nodes remember the connection that there was between the same ends: a later
/// life is greater than all epochs of the lives before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Epoch {
    /// Which of the connections between the same ends it is: when it was opened, in milliseconds of the group's clock.
    pub life: u64,
    /// Counts the owners of this one. The upper half counts how often a copy of it was brought back to life after a crash, so
    /// that whoever does that is ahead of every move of which the copy may know nothing.
    pub count: u64,
}

impl Epoch {
    /// The epoch of a connection that has never moved, and before which there was none between the same ends.
    pub const FIRST: Self = Self::nth(1);

    /// The epoch of its `count`th owner.
    pub const fn nth(count: u64) -> Self {
        Self { life: 0, count }
    }

    /// The epoch of a connection that is opened at `clock`, in milliseconds of the group's clock. `known` is the last that is
    /// known of the connections that there were between the same ends: clocks need not agree, nor tell two moments apart.
    pub fn first_of_life(clock: u64, known: Option<Self>) -> Self {
        let later = known.map_or(0, |known| known.life.saturating_add(1));
        Self { life: clock.max(later), ..Self::FIRST }
    }

    /// The epoch of the next owner.
    pub const fn next(self) -> Self {
        Self { count: self.count.saturating_add(1), ..self }
    }

    /// The epoch of an owner that begins with a copy, because the owner has died.
    pub const fn recovered(self) -> Self {
        Self { count: self.count.saturating_add(1 << 32), ..self }
    }

    /// The same, if so many nodes that have died since may have begun with it, or with a better one.
    pub const fn recovered_after(self, lives: u32) -> Self {
        let count = self.recovered().count.saturating_add((lives as u64) << 32);
        Self { count, ..self }
    }

    /// Whether a connection can have moved, and been brought back to life, so often, and been opened by now: what another node
    /// says need not be true, and who begins beyond all bounds leaves nothing to count on with. `clock` is the group's, in
    /// milliseconds. Clocks may be years apart, where one has lost its battery; but the bound moves on with them, so that a life
    /// after the last that was believed is soon believed, too.
    pub const fn is_plausible(self, clock: u64) -> bool {
        const MOST: u64 = 1 << 31;
        const CENTURY: u64 = 100 * 365 * 24 * 60 * 60 * 1000;
        self.life <= clock.saturating_add(CENTURY)
            && self.recoveries() < MOST
            && self.count & 0xffff_ffff < MOST
    }

    /// How often it was brought back to life after a crash.
    pub const fn recoveries(self) -> u64 {
        self.count >> 32
    }

    /// Whether it is that of a connection which has never moved.
    pub const fn is_first(self) -> bool {
        self.count == Self::FIRST.count
    }

    /// Whether both are of one connection, and not only of two between the same ends.
    pub const fn is_of_life(self, other: Self) -> bool {
        self.life == other.life
    }
}

/// The life is for machines: who owns the connection shows without it.
impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.count.fmt(f)
    }
}

/// One life of a node's process, drawn at random when it starts. A node that was restarted is not the node
/// that was asked to take a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);
