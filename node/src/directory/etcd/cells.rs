//! What is in etcd, as far as this node knows.
//!
//! | key | value | |
//! |---|---|---|
//! | `nodes/NAME` | the life of the node | under its lease: it goes when that runs out |
//! | `lives/NAME` | the life that registered last, and whether it is over | stays |
//! | `votes/NAME/VOTER` | a vote against a life of a node | under the voter's lease |
//! | `contact` | the contact node and its term | stays |

use std::collections::BTreeMap;

use ferry_handoff::Incarnation;
use serde::{Deserialize, Serialize};

use crate::io::{Cell, Guard, Put};

/// Keys that are kept. No group has so many; more are somebody else's.
const MAX_CELLS: usize = 1 << 14;

pub(super) const CONTACT: &str = "contact";

pub(super) fn node_key(name: &str) -> String {
    format!("nodes/{name}")
}

pub(super) fn life_key(name: &str) -> String {
    format!("lives/{name}")
}

pub(super) fn vote_key(name: &str, voter: &str) -> String {
    format!("votes/{name}/{voter}")
}

/// At `nodes/NAME`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Present {
    #[serde(with = "hex")]
    pub(super) life: Incarnation,
}

/// At `lives/NAME`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    #[serde(with = "hex")]
    pub(super) life: Incarnation,
    pub(super) dead: bool,
    /// That is proved: its process has ended, so that it acknowledges nothing any more either.
    #[serde(default)]
    pub(super) gone: bool,
}

/// At `votes/NAME/VOTER`.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Vote {
    /// The revision of the record that it is about: with the next registration the vote is void.
    pub(super) record: i64,
    /// The voter's life.
    #[serde(with = "hex")]
    pub(super) by: Incarnation,
}

/// At `contact`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Role {
    pub(super) node: String,
    pub(super) term: u64,
}

/// Everything of the group's, as of one revision.
#[derive(Debug, Default)]
pub(super) struct Cells {
    pub(super) revision: i64,
    cells: BTreeMap<String, Cell>,
}

impl Cells {
    pub(super) fn new(revision: i64, mut cells: BTreeMap<String, Cell>) -> Self {
        while cells.len() > MAX_CELLS {
            cells.pop_last();
        }
        Self { revision, cells }
    }

    pub(super) fn change(&mut self, revision: i64, changes: Vec<(String, Option<Cell>)>) {
        self.revision = self.revision.max(revision);
        for (key, cell) in changes {
            match cell {
                Some(cell) if self.cells.len() < MAX_CELLS => drop(self.cells.insert(key, cell)),
                Some(_) => {}
                None => drop(self.cells.remove(&key)),
            }
        }
    }

    /// What is at a key, if it can be understood.
    fn read<'a, T: Deserialize<'a>>(&'a self, key: &str) -> Option<T> {
        serde_json::from_str(&self.cells.get(key)?.value).ok()
    }

    pub(super) fn present(&self, name: &str) -> Option<Incarnation> {
        self.read::<Present>(&node_key(name)).map(|present| present.life)
    }

    /// Whether a node is registered under a lease that has not run out.
    pub(super) fn is_registered(&self, name: &str) -> bool {
        self.cells.contains_key(&node_key(name))
    }

    pub(super) fn record(&self, name: &str) -> Option<Record> {
        self.read(&life_key(name))
    }

    pub(super) fn vote(&self, name: &str, voter: &str) -> Option<Vote> {
        self.read(&vote_key(name, voter))
    }

    pub(super) fn role(&self) -> Option<Role> {
        self.read(CONTACT)
    }

    /// When a key was changed last; 0 if it is not there.
    pub(super) fn revision_of(&self, key: &str) -> i64 {
        self.cells.get(key).map_or(0, |cell| cell.revision)
    }

    /// That a key has not changed since.
    pub(super) fn guard(&self, key: String) -> Guard {
        Guard { revision: self.revision_of(&key), key }
    }
}

pub(super) fn put(key: String, value: &impl Serialize, lease: Option<i64>) -> Put {
    // Values of strings and numbers only.
    Put { key, value: serde_json::to_string(value).unwrap_or_default(), lease }
}

/// Lives as an operator sees them in the log, and because JSON's numbers are too small for them.
mod hex {
    use ferry_handoff::Incarnation;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    #[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
    pub(super) fn serialize<S: Serializer>(life: &Incarnation, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{:016x}", life.0))
    }

    pub(super) fn deserialize<'a, D: Deserializer<'a>>(from: D) -> Result<Incarnation, D::Error> {
        let text = String::deserialize(from)?;
        u64::from_str_radix(&text, 16).map(Incarnation).map_err(D::Error::custom)
    }
}
