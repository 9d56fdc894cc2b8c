//! The section `[group]`: what all nodes of a group have alike.

use core::ops::RangeInclusive;
use std::time::Duration;

use ferry_stack::tcp::PathPolicy;

use super::Group;
use super::check::Checker;
use super::error::nearest;
use super::raw::{self, At};
use crate::{Optimise, Placement, PlainSource, TokensAhead};

const ASK_AGAIN_S: RangeInclusive<i64> = 1..=86_400;
const DEFAULT_ASK_AGAIN_S: i64 = 600;
/// Zero: new connections go elsewhere.
const WEIGHT: RangeInclusive<i64> = 0..=1_000_000;
// What may be written, the default first.
const OPTIMISE: [(&str, Optimise); 3] =
    [("auto", Optimise::Auto), ("never", Optimise::Never), ("always", Optimise::Always)];
const PLAIN_SOURCE: [(&str, PlainSource); 2] = [("auto", PlainSource::Auto), ("never", PlainSource::Never)];
const PATH_AFTER_MOVE: [(&str, PathPolicy); 3] =
    [("keep", PathPolicy::Keep), ("halve", PathPolicy::Halve), ("initial-window", PathPolicy::InitialWindow)];
const TOKENS_AHEAD: [(&str, TokensAhead); 2] = [("auto", TokensAhead::Auto), ("never", TokensAhead::Never)];

impl Checker<'_> {
    /// What is laid down about nodes must be about nodes and services that there are.
    pub(super) fn rules(
        &mut self,
        group: &raw::Group,
        name: &At<String>,
        peers: &[raw::Peer],
        kinds: &[String],
    ) {
        let nodes: Vec<&str> = [name]
            .into_iter()
            .chain(peers.iter().map(|peer| &peer.name))
            .map(|name| name.get_ref().as_str())
            .collect();
        let known = |this: &mut Self, node: &str, span, key: &str| {
            if !nodes.contains(&node) {
                let right = nearest(node, nodes.iter().copied()).map_or_else(
                    || format!("name one of {}", nodes.join(", ")),
                    |near| format!("did you mean \"{near}\"?"),
                );
                this.problem(
                    &At::new(span, ()),
                    format!("`{key}` names \"{node}\", which is no node of the group"),
                    right,
                );
            }
        };
        for (node, weight) in &group.weights {
            known(self, node, weight.span(), "weights");
            if in_range(weight).is_none() {
                let right = format!("it must lie between {} and {}", WEIGHT.start(), WEIGHT.end());
                self.problem(weight, format!("the weight of {node} is {}", weight.get_ref()), right);
            }
        }
        for (node, services) in &group.allowed {
            known(self, node, services.span(), "allowed");
            for service in services.get_ref().iter().filter(|service| !kinds.contains(service)) {
                let right = format!("name some of {}", kinds.join(", "));
                self.problem(
                    services,
                    format!("`allowed` names the service \"{service}\", which there is not"),
                    right,
                );
            }
        }
    }

    pub(super) fn group(&mut self, raw: raw::Group) -> Option<Group> {
        let raw::Group { name, service_address, contact, secret_file, placement, .. } = raw;
        let raw::Group { optimise, plain_source, ask_again_s, path_after_move, weights, allowed, .. } = raw;
        let tokens_ahead = self.choice(raw.tokens_ahead.as_ref(), "tokens-ahead", &TOKENS_AHEAD);
        self.label(&name, "group");
        let placement =
            self.choice(placement.as_ref(), "placement", &Placement::ALL.map(|one| (one.name(), one)));
        let optimise = self.choice(optimise.as_ref(), "optimise", &OPTIMISE);
        let plain_source = self.choice(plain_source.as_ref(), "plain-source", &PLAIN_SOURCE);
        let path_after_move = self.choice(path_after_move.as_ref(), "path-after-move", &PATH_AFTER_MOVE);
        let ask_again_s = self.number(ask_again_s, "ask-again-s", &ASK_AGAIN_S, DEFAULT_ASK_AGAIN_S);
        let service_address = self.unicast(&service_address, "service-address");
        Some(Group {
            name: name.into_inner(),
            service_address: service_address?,
            contact: contact.into_inner(),
            secret_file: self.path(secret_file.get_ref()),
            placement: placement?,
            weights: weights
                .into_iter()
                .filter_map(|(node, weight)| Some((node, in_range(&weight)?)))
                .collect(),
            allowed: allowed
                .into_iter()
                .map(|(node, services)| (node, services.into_inner().into_iter().collect()))
                .collect(),
            optimise: optimise?,
            plain_source: plain_source?,
            ask_again: Duration::from_secs(ask_again_s?.unsigned_abs()),
            path_after_move: path_after_move?,
            tokens_ahead: tokens_ahead?,
        })
    }
}

/// A weight, if it is one.
fn in_range(weight: &At<i64>) -> Option<u32> {
    WEIGHT.contains(weight.get_ref()).then(|| u32::try_from(*weight.get_ref()).ok()).flatten()
}
