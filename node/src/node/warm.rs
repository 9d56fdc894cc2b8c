//! Ahead of a handoff: the acceptor goes through its care-of test with a client that understands Mobile IPv6 while the
//! connection still runs at the donor, so that it needs one message when the connection has come (RFC 6275 section
//! 11.7.2), and the client a round trip less.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use ferry_handoff::{Failure, Message, NodeId};
use ferry_stack::Instant;
use ferry_stack::tcp::Flow;

use super::{Node, TokensAhead};

/// How long a donor waits for an acceptor that warms up.
const DONOR_WAITS: Duration = Duration::from_millis(500);
/// How long an acceptor waits for the client: longer than most round trips, and less than the donor does.
const CLIENT_WAITS: Duration = Duration::from_millis(400);
/// How long an acceptor keeps its token fresh for a connection that does not come.
const KEPT_WARM: Duration = Duration::from_secs(5);
/// Connections for which an acceptor warms up at the same time. What is beyond comes at once.
const MAX_EXPECTED: usize = 1 << 12;

/// Handoffs that have not begun yet.
#[derive(Debug, Default)]
pub(super) struct Warming {
    /// Here the donor: to whom each goes, and when at the latest.
    leaving: BTreeMap<Flow, (NodeId, Instant)>,
    /// Here the acceptor.
    expected: BTreeMap<Flow, Expected>,
}

#[derive(Clone, Copy, Debug)]
struct Expected {
    from: NodeId,
    /// When the donor is told at the latest; absent when it was.
    tell: Option<Instant>,
    until: Instant,
}

impl Warming {
    /// Whether a connection is about to leave.
    pub(super) fn is_leaving(&self, flow: &Flow) -> bool {
        self.leaving.contains_key(flow)
    }

    /// Connections that are about to leave, or to come.
    pub(super) fn len(&self) -> usize {
        self.leaving.len() + self.expected.len()
    }

    /// How many connections are about to leave.
    pub(super) fn leaving(&self) -> usize {
        self.leaving.len()
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let leaving = self.leaving.values().map(|(_, until)| *until).min();
        let expected = self.expected.values().map(|expected| expected.tell.unwrap_or(expected.until)).min();
        [leaving, expected].into_iter().flatten().min()
    }
}

impl Node {
    /// Has the acceptor warm up first, if the client understands Mobile IPv6. Whether it has to.
    pub(super) fn warm_up(&mut self, flow: Flow, to: NodeId, now: Instant) -> bool {
        let wanted = self.rules.tokens_ahead == TokensAhead::Auto;
        let worth_it = wanted && self.mobility.is_aware(*flow.remote.ip()) && self.peers.is_up(to);
        if worth_it {
            self.warming.leaving.insert(flow, (to, now + DONOR_WAITS));
            self.tell(to, &Message::WarmUp { flow });
        }
        worth_it
    }

    /// A donor asks to be told when this node has a care-of token of the client.
    pub(super) fn warm_up_asked(&mut self, from: NodeId, flow: Flow, now: Instant) {
        let client = *flow.remote.ip();
        if self.warming.expected.len() >= MAX_EXPECTED {
            return self.tell(from, &Message::Warm { flow });
        }
        let expected = Expected { from, tell: Some(now + CLIENT_WAITS), until: now + KEPT_WARM };
        self.warming.expected.insert(flow, expected);
        self.mobility.stand_by(client, now);
        self.tell_warm(client, now);
    }

    /// Lets donors know if there is a token of this client now.
    pub(super) fn tell_warm(&mut self, client: Ipv6Addr, now: Instant) {
        if self.warming.expected.is_empty() || !self.mobility.is_ready(client, now) {
            return;
        }
        let of_client = |flow: &Flow| *flow.remote.ip() == client;
        let waiting = self.warming.expected.iter_mut().filter(|(flow, _)| of_client(flow));
        let told: Vec<_> = waiting
            .filter_map(|(flow, expected)| expected.tell.take().map(|_| (*flow, expected.from)))
            .collect();
        for (flow, from) in told {
            self.tell(from, &Message::Warm { flow });
        }
    }

    /// The acceptor has warmed up: the handoff begins.
    pub(super) fn warm(&mut self, from: NodeId, flow: Flow, now: Instant) {
        if self.warming.leaving.get(&flow).is_some_and(|(to, _)| *to == from) {
            self.begin(flow, now);
        }
    }

    fn begin(&mut self, flow: Flow, now: Instant) {
        if let Some((to, _)) = self.warming.leaving.remove(&flow)
            && !self.give_now(flow, to, now)
        {
            self.not_moved(flow, to, &Failure::Ended, now);
        }
    }

    /// The link to a node broke: what was to go there hears of it.
    pub(super) fn cool_down(&mut self, peer: NodeId, now: Instant) {
        let leaving = self.warming.leaving.iter().filter(|(_, (to, _))| *to == peer);
        let flows: Vec<_> = leaving.map(|(flow, _)| *flow).collect();
        for flow in flows {
            self.begin(flow, now);
        }
    }

    /// Does what has come due.
    pub(super) fn handle_warming(&mut self, now: Instant) {
        let leaving = self.warming.leaving.iter().filter(|(_, (_, until))| *until <= now);
        let leaving: Vec<_> = leaving.map(|(flow, _)| *flow).collect();
        for flow in leaving {
            self.begin(flow, now);
        }
        let expected: Vec<_> =
            self.warming.expected.iter().map(|(flow, expected)| (*flow, *expected)).collect();
        for (flow, Expected { from, tell, until }) in expected {
            if tell.is_some_and(|at| at <= now) {
                self.tell(from, &Message::Warm { flow });
                self.warming.expected.insert(flow, Expected { from, tell: None, until });
            }
            if until <= now {
                self.warming.expected.remove(&flow);
                if !matches!(self.places.get(&flow), Some(super::Place::Arriving(_))) {
                    self.mobility.stand_down(*flow.remote.ip(), now);
                }
            }
        }
    }
}
