use core::hash::BuildHasher as _;

use hashbrown::HashTable;

use super::slots::Slots;
use super::{Connection, Handle};
use crate::tcp::isn::MapKey;
use crate::tcp::segment::Flow;

/// Finds a connection by its ends. Holds handles only: the ends themselves are in the control blocks.
#[derive(Debug)]
pub(super) struct Flows {
    handles: HashTable<Handle>,
    key: MapKey,
}

impl Flows {
    pub(super) fn new(key: MapKey) -> Self {
        Self { handles: HashTable::new(), key }
    }

    pub(super) fn len(&self) -> usize {
        self.handles.len()
    }

    pub(super) fn get(&self, flow: &Flow, connections: &Slots<Connection>) -> Option<Handle> {
        let same = |handle: &Handle| flow_of(connections, *handle) == Some(flow);
        self.handles.find(self.key.hash_one(flow), same).copied()
    }

    /// `handle` must be the only connection between its ends.
    pub(super) fn insert(&mut self, handle: Handle, connections: &Slots<Connection>) {
        let hash = |handle: &Handle| flow_of(connections, *handle).map_or(0, |flow| self.key.hash_one(flow));
        self.handles.insert_unique(hash(&handle), handle, hash);
    }

    pub(super) fn remove(&mut self, handle: Handle, flow: &Flow) {
        if let Ok(entry) = self.handles.find_entry(self.key.hash_one(flow), |other| *other == handle) {
            entry.remove();
        }
    }
}

fn flow_of(connections: &Slots<Connection>, handle: Handle) -> Option<&Flow> {
    connections.get(handle).map(|connection| &connection.tcb.flow)
}
