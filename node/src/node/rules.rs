//! What a group's operator lays down about its nodes.

use std::collections::{BTreeMap, BTreeSet};

use super::placement::Policy;

/// What a group's operator lays down about its nodes, the same at each of them.
#[derive(Debug, Default)]
pub struct Rules {
    /// Weights of nodes, by name; 1 for those that are absent.
    pub weights: BTreeMap<String, u32>,
    /// The services that a node may own, by its name; every one for those that are absent. A node that may not own a
    /// service is given none of its connections, and none is taken from it.
    pub allowed: BTreeMap<String, BTreeSet<String>>,
    /// Who serves new connections, if not as [`Placement`](super::Placement) says.
    pub policy: Option<Box<dyn Policy>>,
}

impl Rules {
    /// A node's weight.
    pub(super) fn weight(&self, node: &str) -> u32 {
        self.weights.get(node).copied().unwrap_or(1)
    }

    /// Whether a node may own connections of a service.
    pub(super) fn may_own(&self, node: &str, service: &str) -> bool {
        self.allowed.get(node).is_none_or(|services| services.contains(service))
    }
}
