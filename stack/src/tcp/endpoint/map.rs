use alloc::vec::Vec;

use super::Handle;

/// What somebody keeps for each of an endpoint's connections: found by index, in the order of the handles.
#[derive(Clone, Debug)]
pub struct HandleMap<T> {
    entries: Vec<Option<(u32, T)>>,
    len: usize,
}

impl<T> Default for HandleMap<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), len: 0 }
    }
}

impl<T> HandleMap<T> {
    /// Keeps a value for a connection, in place of the one that was kept for it. What was kept for an earlier one must
    /// have been taken out: its slot is this one's now.
    pub fn insert(&mut self, handle: Handle, value: T) {
        let index = handle.index as usize;
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, || None);
        }
        let before = self.entries[index].replace((handle.generation, value));
        debug_assert!(
            before.as_ref().is_none_or(|(of, _)| *of == handle.generation),
            "what was kept is lost"
        );
        self.len += usize::from(before.is_none());
    }

    /// What is kept for a connection.
    pub fn get(&self, handle: Handle) -> Option<&T> {
        let (generation, value) = self.entries.get(handle.index as usize)?.as_ref()?;
        (*generation == handle.generation).then_some(value)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, handle: Handle) -> Option<&mut T> {
        let (generation, value) = self.entries.get_mut(handle.index as usize)?.as_mut()?;
        (*generation == handle.generation).then_some(value)
    }

    /// Whether anything is kept for a connection.
    pub fn contains(&self, handle: Handle) -> bool {
        self.get(handle).is_some()
    }

    /// Takes out what is kept for a connection.
    pub fn remove(&mut self, handle: Handle) -> Option<T> {
        let entry = self.entries.get_mut(handle.index as usize)?;
        let (_, value) = entry.take_if(|(generation, _)| *generation == handle.generation)?;
        self.len -= 1;
        Some(value)
    }

    /// How many values are kept.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All values with their connections.
    pub fn iter(&self) -> impl Iterator<Item = (Handle, &T)> {
        self.entries.iter().zip(0..).filter_map(|(entry, index)| {
            let (generation, value) = entry.as_ref()?;
            Some((Handle { index, generation: *generation }, value))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_that_is_out_of_date_finds_nothing() {
        let (old, new) = (Handle { index: 3, generation: 0 }, Handle { index: 3, generation: 1 });
        let mut map = HandleMap::default();
        map.insert(old, 'a');
        assert_eq!((map.remove(old), map.len()), (Some('a'), 0));
        map.insert(new, 'b');
        assert_eq!((map.len(), map.get(old), map.get(new)), (1, None, Some(&'b')));
        assert_eq!((map.remove(old), map.contains(old), map.contains(new)), (None, false, true));
        *map.get_mut(new).unwrap() = 'c';
        assert_eq!(map.iter().collect::<Vec<_>>(), [(new, &'c')]);
        assert_eq!((map.remove(new), map.is_empty(), map.remove(new)), (Some('c'), true, None));
    }
}
