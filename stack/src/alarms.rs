use alloc::collections::{BTreeMap, BTreeSet};

use crate::Instant;

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
}
