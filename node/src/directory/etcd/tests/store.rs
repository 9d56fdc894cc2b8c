//! A store that behaves as etcd does: one revision for each transaction, leases, watches.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::io::{Cell, StoreAnswer, StoreRequest};

/// etcd refuses shorter leases, and grants this.
const LEAST_TTL: Duration = Duration::from_secs(2);

/// Who watches, and the request's number.
pub(super) type Watcher = (usize, u64);
type Change = (String, Option<Cell>);

#[derive(Debug)]
pub(super) struct Store {
    pub(super) revision: i64,
    cells: BTreeMap<String, (Cell, Option<i64>)>,
    /// How long they are, and when they run out.
    leases: BTreeMap<i64, (u64, u64)>,
    last_lease: i64,
    history: Vec<(i64, Vec<Change>)>,
    compacted: i64,
    watchers: BTreeSet<Watcher>,
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            revision: 1,
            cells: BTreeMap::new(),
            leases: BTreeMap::new(),
            last_lease: 100,
            history: Vec::new(),
            compacted: 0,
            watchers: BTreeSet::new(),
        }
    }

    pub(super) fn value(&self, key: &str) -> Option<&str> {
        self.cells.get(key).map(|(cell, _)| cell.value.as_str())
    }

    pub(super) fn has_watchers(&self) -> usize {
        self.watchers.len()
    }

    /// The process that watched is gone.
    pub(super) fn forget(&mut self, who: usize) {
        self.watchers.retain(|(watcher, _)| *watcher != who);
    }

    /// A leader that has just been elected gives every lease its whole length again.
    pub(super) fn restart(&mut self, now: u64) {
        self.watchers.clear();
        for (ttl, end) in self.leases.values_mut() {
            *end = now + *ttl;
        }
    }

    /// The history is forgotten, and so are those who wait for it.
    pub(super) fn compact(&mut self) -> Vec<Watcher> {
        self.history.clear();
        self.compacted = self.revision;
        core::mem::take(&mut self.watchers).into_iter().collect()
    }

    pub(super) fn next_expiry(&self) -> Option<u64> {
        self.leases.values().map(|(_, end)| *end).min()
    }

    /// What has run out goes; what whom is told.
    pub(super) fn expire(&mut self, now: u64) -> Vec<(Watcher, StoreAnswer)> {
        let over: Vec<_> =
            self.leases.iter().filter(|(_, (_, end))| *end <= now).map(|(lease, _)| *lease).collect();
        self.leases.retain(|_, (_, end)| *end > now);
        let gone =
            self.cells.iter().filter(|(_, (_, lease))| lease.is_some_and(|lease| over.contains(&lease)));
        let changes: Vec<_> = gone.map(|(key, _)| (key.clone(), None)).collect();
        self.revision += i64::from(!changes.is_empty());
        self.apply(changes, &BTreeMap::new())
    }

    fn apply(&mut self, changes: Vec<Change>, leases: &BTreeMap<String, i64>) -> Vec<(Watcher, StoreAnswer)> {
        if changes.is_empty() {
            return Vec::new();
        }
        for (key, cell) in &changes {
            match cell {
                Some(cell) => drop(self.cells.insert(key.clone(), (cell.clone(), leases.get(key).copied()))),
                None => drop(self.cells.remove(key)),
            }
        }
        self.history.push((self.revision, changes.clone()));
        let told = StoreAnswer::Changed { revision: self.revision, changes };
        self.watchers.iter().map(|watcher| (*watcher, told.clone())).collect()
    }

    fn everything(&self, done: bool) -> StoreAnswer {
        let cells = self.cells.iter().map(|(key, (cell, _))| (key.clone(), cell.clone())).collect();
        StoreAnswer::Cells { done, revision: self.revision, cells }
    }

    /// The answer, and what whom is told besides.
    pub(super) fn ask(
        &mut self,
        who: Watcher,
        request: StoreRequest,
        now: u64,
    ) -> (Option<StoreAnswer>, Vec<(Watcher, StoreAnswer)>) {
        let nanos = |ttl: Duration| u64::try_from(ttl.as_nanos()).unwrap();
        match request {
            StoreRequest::Grant { ttl } => {
                let ttl = ttl.max(LEAST_TTL);
                self.last_lease += 1;
                self.leases.insert(self.last_lease, (nanos(ttl), now + nanos(ttl)));
                (Some(StoreAnswer::Granted { lease: self.last_lease, ttl }), Vec::new())
            }
            StoreRequest::KeepAlive { lease } => {
                let ttl = self.leases.get_mut(&lease).map_or(0, |(ttl, end)| {
                    *end = now + *ttl;
                    *ttl
                });
                (Some(StoreAnswer::Kept { ttl: Duration::from_nanos(ttl) }), Vec::new())
            }
            StoreRequest::Look => (Some(self.everything(true)), Vec::new()),
            StoreRequest::Watch { from } => self.watch(who, from),
            StoreRequest::Commit { guards, puts, deletes } => {
                let found = |key: &String| self.cells.get(key).map_or(0, |(cell, _)| cell.revision);
                let done = guards.iter().all(|guard| found(&guard.key) == guard.revision);
                let known =
                    puts.iter().all(|put| put.lease.is_none_or(|lease| self.leases.contains_key(&lease)));
                if !done || !known {
                    // An unknown lease is an error, and nothing is done.
                    return (
                        Some(if done { StoreAnswer::Failed } else { self.everything(false) }),
                        Vec::new(),
                    );
                }
                self.revision += 1;
                let leases = puts.iter().filter_map(|put| Some((put.key.clone(), put.lease?))).collect();
                let cell = |value| Some(Cell { value, revision: self.revision });
                let puts = puts.into_iter().map(|put| (put.key, cell(put.value)));
                let changes = puts.chain(deletes.into_iter().map(|key| (key, None))).collect();
                let told = self.apply(changes, &leases);
                (Some(self.everything(true)), told)
            }
        }
    }

    fn watch(&mut self, who: Watcher, from: i64) -> (Option<StoreAnswer>, Vec<(Watcher, StoreAnswer)>) {
        if from <= self.compacted {
            return (Some(StoreAnswer::Failed), Vec::new());
        }
        self.watchers.retain(|(watcher, _)| *watcher != who.0);
        self.watchers.insert(who);
        let missed = self.history.iter().filter(|(revision, _)| *revision >= from);
        let told = missed.map(|(revision, changes)| {
            (who, StoreAnswer::Changed { revision: *revision, changes: changes.clone() })
        });
        (None, told.collect())
    }
}
