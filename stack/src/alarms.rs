use alloc::collections::{BTreeMap, BTreeSet};
use core::hash::{BuildHasher as _, Hash};

use hashbrown::HashTable;

use crate::Instant;
use crate::tcp::MapKey;

/// Deadlines by name: at most one each, moved and removed in logarithmic time, so that none is ever out of date.
#[derive(Clone, Debug)]
pub struct Alarms<K> {
    by_time: BTreeSet<(Instant, K)>,
    by_name: BTreeMap<K, Instant>,
}

impl<K> Default for Alarms<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), by_name: BTreeMap::new() }
    }
}

impl<K: Copy + Ord> Alarms<K> {
    /// Sets the deadline of `name`, in place of the one that it may have, or removes it.
    pub fn set(&mut self, name: K, at: Option<Instant>) {
        let before = match at {
            Some(at) => self.by_name.insert(name, at),
            None => self.by_name.remove(&name),
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.by_time.remove(&(before, name));
        }
        if let Some(at) = at {
            self.by_time.insert((at, name));
        }
    }

    /// The deadline of `name`.
    pub fn at(&self, name: &K) -> Option<Instant> {
        self.by_name.get(name).copied()
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out what is due the longest, if anything is due by `now`.
    pub fn due(&mut self, now: Instant) -> Option<K> {
        let (at, name) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        self.set(name, None);
        Some(name)
    }
}

/// The same for many names that are long, and whose deadlines move often: found by a keyed hash. What is due at the same
/// moment comes in the order of these hashes.
#[derive(Clone, Debug)]
pub struct HashedAlarms<K> {
    /// Of each deadline that there is, once for all names of one hash.
    by_time: BTreeSet<(Instant, u64)>,
    by_name: HashTable<Named<K>>,
    key: MapKey,
}

#[derive(Clone, Debug)]
struct Named<K> {
    hash: u64,
    name: K,
    at: Instant,
}

impl<K> HashedAlarms<K> {
    /// No deadlines.
    pub fn new(key: MapKey) -> Self {
        Self { by_time: BTreeSet::new(), by_name: HashTable::new(), key }
    }
}

impl<K> Default for HashedAlarms<K> {
    fn default() -> Self {
        Self::new(MapKey::default())
    }
}

impl<K: Copy + Eq + Hash> HashedAlarms<K> {
    /// Sets the deadline of `name`, in place of the one that it may have, or removes it.
    pub fn set(&mut self, name: K, at: Option<Instant>) {
        if at.is_none() && self.by_name.is_empty() {
            return;
        }
        let hash = self.key.hash_one(name);
        let entry = self.by_name.find_entry(hash, |named| named.name == name);
        let before = match (entry, at) {
            (Ok(mut entry), Some(at)) => Some(core::mem::replace(&mut entry.get_mut().at, at)),
            (Ok(entry), None) => Some(entry.remove().0.at),
            (Err(_), Some(at)) => {
                self.by_name.insert_unique(hash, Named { hash, name, at }, |named| named.hash);
                None
            }
            (Err(_), None) => None,
        };
        if before == at {
            return;
        }
        if let Some(before) = before {
            self.pass(before, hash);
        }
        if let Some(at) = at {
            self.by_time.insert((at, hash));
        }
    }

    /// A name of this hash is not due then any more. Another may be.
    fn pass(&mut self, at: Instant, hash: u64) {
        if self.by_name.find(hash, |named| (named.at, named.hash) == (at, hash)).is_none() {
            self.by_time.remove(&(at, hash));
        }
    }

    /// The deadline of `name`.
    pub fn at(&self, name: &K) -> Option<Instant> {
        if self.by_name.is_empty() {
            return None;
        }
        self.by_name.find(self.key.hash_one(name), |named| named.name == *name).map(|named| named.at)
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Instant> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// Takes out what is due the longest, if anything is due by `now`.
    pub fn due(&mut self, now: Instant) -> Option<K> {
        let (at, hash) = *self.by_time.first()?;
        if at > now {
            return None;
        }
        let found = self.by_name.find_entry(hash, |named| (named.at, named.hash) == (at, hash));
        let name = found.ok().map(|entry| entry.remove().0.name);
        self.pass(at, hash);
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_that_was_moved_is_due_once_at_its_new_time() {
        let at = Instant::from_millis;
        let mut alarms = Alarms::default();
        for (name, time) in [('a', 10), ('b', 20), ('a', 30), ('c', 5)] {
            alarms.set(name, Some(at(time)));
        }
        alarms.set('c', None);
        alarms.set('d', None);
        assert_eq!((alarms.next(), alarms.at(&'a'), alarms.at(&'c')), (Some(at(20)), Some(at(30)), None));
        assert_eq!(alarms.due(at(19)), None);
        assert_eq!(alarms.due(at(30)), Some('b'));
        assert_eq!(alarms.due(at(30)), Some('a'));
        assert_eq!((alarms.due(at(99)), alarms.next()), (None, None));
    }
    #[test]
    fn hashed_deadlines_come_due_like_others() {
        let at = Instant::from_millis;
        let (mut hashed, mut plain) = (HashedAlarms::default(), Alarms::default());
        // Each name is set, moved and removed in turn, at times of which no two are the same.
        for step in 0..2000_u64 {
            let name = step * 7919 % 61;
            let time = (step % 5 != 0).then(|| at(step * 1009 % 4999 + 5000));
            hashed.set(name, time);
            plain.set(name, time);
            assert_eq!((hashed.at(&name), hashed.next()), (plain.at(&name), plain.next()), "{step}");
            if step % 11 == 0 {
                let now = at(5000 + step);
                assert_eq!(hashed.due(now), plain.due(now), "{step}");
            }
        }
    }

    #[test]
    fn all_hashed_deadlines_of_one_moment_come_due() {
        let mut alarms = HashedAlarms::default();
        (0..100_u8).for_each(|name| alarms.set(name, Some(Instant::ZERO)));
        let due: BTreeSet<_> = core::iter::from_fn(|| alarms.due(Instant::ZERO)).collect();
        assert_eq!((due.len(), alarms.next()), (100, None));
    }

    #[test]
    fn names_of_one_hash_have_deadlines_of_their_own() {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        struct Alike(u8);
        impl Hash for Alike {
            fn hash<H: core::hash::Hasher>(&self, _: &mut H) {}
        }
        let at = Instant::from_millis;
        let mut alarms = HashedAlarms::default();
        for (name, time) in [(1, 10), (2, 10), (3, 10), (4, 20)] {
            alarms.set(Alike(name), Some(at(time)));
        }
        alarms.set(Alike(2), None);
        alarms.set(Alike(3), Some(at(30)));
        assert_eq!((alarms.next(), alarms.at(&Alike(1))), (Some(at(10)), Some(at(10))));
        assert_eq!(
            (alarms.due(at(10)), alarms.due(at(10)), alarms.next()),
            (Some(Alike(1)), None, Some(at(20)))
        );
        alarms.set(Alike(4), Some(at(30)));
        let due: BTreeSet<_> = core::iter::from_fn(|| alarms.due(at(30))).collect();
        assert_eq!((due, alarms.next()), ([Alike(3), Alike(4)].into(), None));
    }
}
