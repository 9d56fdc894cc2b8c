//! What a node asks of etcd, and what that answers. Keys are relative to the prefix of the group.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What a node wants of etcd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreRequest {
    /// A lease of at least this length.
    Grant {
        /// etcd counts whole seconds.
        ttl: Duration,
    },
    /// A lease is to begin anew.
    KeepAlive {
        /// Which.
        lease: i64,
    },
    /// If none of the guarded keys has changed, all of this at once. Answered by everything that is there then.
    Commit {
        /// What must not have changed.
        guards: Vec<Guard>,
        /// What is to be written.
        puts: Vec<Put>,
        /// What is to go.
        deletes: Vec<String>,
    },
    /// Everything that is there.
    Look,
    /// Every change from this revision on. Replaces the former watch.
    Watch {
        /// The first revision that is of interest.
        from: i64,
    },
}

/// A key that must not have changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guard {
    /// Which.
    pub key: String,
    /// The revision of its last change; 0 if it must not be there.
    pub revision: i64,
}

/// A key that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Put {
    /// Which.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The lease with which it goes; without one it stays.
    pub lease: Option<i64>,
}

/// What is at a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// Its value.
    pub value: String,
    /// The revision of its last change.
    pub revision: i64,
}

/// What etcd says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAnswer {
    /// To [`StoreRequest::Grant`].
    Granted {
        /// The lease's number.
        lease: i64,
        /// Its length, which may be more than was asked for.
        ttl: Duration,
    },
    /// To [`StoreRequest::KeepAlive`].
    Kept {
        /// Its length; zero if it has ended.
        ttl: Duration,
    },
    /// To [`StoreRequest::Commit`] and [`StoreRequest::Look`].
    Cells {
        /// Whether everything was done; if not, nothing was.
        done: bool,
        /// The revision of what follows.
        revision: i64,
        /// Everything that is there.
        cells: BTreeMap<String, Cell>,
    },
    /// To [`StoreRequest::Watch`], each time that something has changed.
    Changed {
        /// The revision of the last change.
        revision: i64,
        /// What is there now; nothing where something has gone.
        changes: Vec<(String, Option<Cell>)>,
    },
    /// To any: it could not be asked, it did not answer in time, it refused, or the watch has ended. Whether it was done is
    /// unknown.
    Failed,
}

/// How a node stands with etcd.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EtcdStatus {
    /// Whether it has answered what it was asked last.
    pub connected: bool,
    /// Whether this life of the node is registered there, under a lease.
    pub registered: bool,
    /// For how many milliseconds that certainly holds.
    pub lease_ms: u64,
    /// The newest revision of the group's keys that is known.
    pub revision: i64,
}
