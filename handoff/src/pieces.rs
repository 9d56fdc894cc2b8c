use alloc::vec::Vec;
use core::hash::{Hash, Hasher};

use bytes::Bytes;

/// Octets that lie in several places: first what says what they are, then payload that is shared with the connection it is
/// of, instead of copied.
#[derive(Clone, Default, derive_more::Debug)]
#[debug("Pieces({} octets)", self.len())]
pub struct Pieces {
    pub(crate) head: Bytes,
    /// None is empty.
    pub(crate) rest: Vec<Bytes>,
}

impl Pieces {
    /// Octets in all.
    pub fn len(&self) -> usize {
        self.iter().map(Bytes::len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.head.is_empty() && self.rest.is_empty()
    }

    /// The pieces in order, at least one.
    pub fn iter(&self) -> impl Iterator<Item = &Bytes> {
        core::iter::once(&self.head).chain(&self.rest)
    }

    /// All of them in one piece: copied, if there are several.
    pub fn join(self) -> Bytes {
        if self.rest.is_empty() {
            return self.head;
        }
        let mut octets = Vec::with_capacity(self.len());
        for piece in self.iter() {
            octets.extend_from_slice(piece);
        }
        octets.into()
    }
}

impl From<Bytes> for Pieces {
    fn from(head: Bytes) -> Self {
        Self { head, rest: Vec::new() }
    }
}

impl From<Vec<u8>> for Pieces {
    fn from(head: Vec<u8>) -> Self {
        Bytes::from(head).into()
    }
}

/// The same octets, however they are cut.
impl PartialEq for Pieces {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().flatten().eq(other.iter().flatten())
    }
}

impl Eq for Pieces {}

impl Hash for Pieces {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.clone().join().hash(state);
    }
}
