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
    /// When an acceptor fetches the tokens of clients that understand Mobile IPv6.
    pub tokens_ahead: TokensAhead,
    /// Who serves new connections, if not as [`Placement`](super::Placement) says.
    pub policy: Option<Box<dyn Policy>>,
    /// Whether nobody wants to know each step of each handoff: [`TraceEvent::Handoff`](crate::TraceEvent::Handoff) is left
    /// out.
    pub untraced: bool,
}

/// When an acceptor goes through the tests of return routability for a connection that is to come (RFC 6275 section
/// 11.7.2 wants a care-of token before a Binding Update).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TokensAhead {
    /// While the connection still runs at the donor.
    #[default]
    Auto,
    /// Only when it has come: for measuring what that takes.
    Never,
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
