//! Which node serves a new connection. The contact node asks a [`Policy`] for each.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash as _, Hasher as _};
use std::net::SocketAddrV6;
use std::time::Duration;

use ferry_handoff::NodeId;
use ferry_stack::Instant;
use ferry_stack::tcp::Flow;
use serde::{Deserialize, Serialize};
use siphasher::sip::SipHasher13;

use super::Node;

/// A client that [`Placement::Nearest`] knows is sent to a node that has not measured it once in so many connections.
const EXPLORE: u64 = 8;

/// Which node serves a new connection. The contact node decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Placement {
    /// The contact node itself.
    #[default]
    Local,
    /// Each node in turn.
    RoundRobin,
    /// The node that owns the fewest connections.
    LeastConnections,
    /// Each node in turn, as often as its weight says.
    Weighted,
    /// Always the same node for a client's address, whoever is the contact node; when a node comes or goes, only the
    /// clients that it gains or loses move.
    Hash,
    /// The node with the shortest round trip to the client's /64, as its own connections have measured it.
    Nearest,
}

impl Placement {
    /// All of them, in the order in which a user is told of them.
    pub const ALL: [Self; 6] =
        [Self::Local, Self::RoundRobin, Self::LeastConnections, Self::Weighted, Self::Hash, Self::Nearest];

    /// As it is written in a configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::RoundRobin => "round-robin",
            Self::LeastConnections => "least-connections",
            Self::Weighted => "weighted",
            Self::Hash => "hash",
            Self::Nearest => "nearest",
        }
    }

    /// The policy of this name. `key` is the group's, so that every node hashes alike.
    pub(super) fn policy(self, key: [u8; 16]) -> Box<dyn Policy> {
        match self {
            Self::Local => Box::new(Local),
            Self::RoundRobin => Box::new(RoundRobin::default()),
            Self::LeastConnections => Box::new(LeastConnections),
            Self::Weighted => Box::new(Weighted::default()),
            Self::Hash => Box::new(Hash { key }),
            Self::Nearest => Box::new(Nearest::default()),
        }
    }
}

/// A connection that a client opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Newcomer {
    /// The client.
    pub client: SocketAddrV6,
    /// The port on the service address.
    pub port: u16,
}

/// A node that can serve it: it is reachable, takes connections, and may own those of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate<'a> {
    /// Its name.
    pub name: &'a str,
    /// What stands for the name.
    pub id: NodeId,
    /// Whether it is the contact node, which decides.
    pub here: bool,
    /// Connections that it owns, as far as it has told, and those that were placed there since.
    pub connections: usize,
    /// Its weight; 1 unless the configuration says otherwise.
    pub weight: u32,
    /// The smoothed round trip between it and the client's /64, if it has measured it lately.
    pub rtt: Option<Duration>,
}

/// Decides who serves a new connection. Whoever wants another way than those of [`Placement`] writes one, and gives it
/// to a node in [`Rules`](super::Rules).
///
/// ```
/// use ferry_node::{Candidate, Newcomer, Policy};
///
/// /// Sends port 443 to the first node by name.
/// #[derive(Debug)]
/// struct FirstByName;
///
/// impl Policy for FirstByName {
///     fn name(&self) -> &str {
///         "first-by-name"
///     }
///
///     fn choose(&mut self, new: &Newcomer, candidates: &[Candidate<'_>]) -> usize {
///         let first = (0..candidates.len()).min_by_key(|at| candidates[*at].name);
///         if new.port == 443 { first.unwrap_or(0) } else { 0 }
///     }
/// }
/// ```
pub trait Policy: fmt::Debug + Send {
    /// What `ferry status` calls it.
    fn name(&self) -> &str;

    /// The index of who serves `new` among `candidates`, which are at least one: the contact node first, if it is one
    /// of them, then the others in an order that is the same at each node. Any other number means the first.
    fn choose(&mut self, new: &Newcomer, candidates: &[Candidate<'_>]) -> usize;
}

fn least(candidates: &[Candidate<'_>]) -> usize {
    (0..candidates.len()).min_by_key(|at| candidates[*at].connections).unwrap_or(0)
}

#[derive(Debug)]
struct Local;

impl Policy for Local {
    fn name(&self) -> &str {
        Placement::Local.name()
    }

    fn choose(&mut self, _: &Newcomer, candidates: &[Candidate<'_>]) -> usize {
        candidates.iter().position(|one| one.here).unwrap_or_else(|| least(candidates))
    }
}

#[derive(Debug, Default)]
struct RoundRobin {
    /// Counts the connections placed.
    turn: usize,
}

impl Policy for RoundRobin {
    fn name(&self) -> &str {
        Placement::RoundRobin.name()
    }

    fn choose(&mut self, _: &Newcomer, candidates: &[Candidate<'_>]) -> usize {
        let turn = self.turn;
        self.turn = turn.wrapping_add(1);
        turn % candidates.len()
    }
}

#[derive(Debug)]
struct LeastConnections;

impl Policy for LeastConnections {
    fn name(&self) -> &str {
        Placement::LeastConnections.name()
    }

    fn choose(&mut self, _: &Newcomer, candidates: &[Candidate<'_>]) -> usize {
        least(candidates)
    }
}

/// Each candidate gains its weight in credit, the richest serves, and pays what all have gained: turns are spread as
/// evenly as the weights allow.
#[derive(Debug, Default)]
struct Weighted {
    credit: BTreeMap<NodeId, i64>,
}

impl Policy for Weighted {
    fn name(&self) -> &str {
        Placement::Weighted.name()
    }

    fn choose(&mut self, _: &Newcomer, candidates: &[Candidate<'_>]) -> usize {
        let total: i64 = candidates.iter().map(|one| i64::from(one.weight)).sum();
        if total == 0 {
            return least(candidates);
        }
        self.credit.retain(|id, _| candidates.iter().any(|one| one.id == *id));
        let mut best = (i64::MIN, 0);
        for (at, one) in candidates.iter().enumerate().filter(|(_, one)| one.weight > 0) {
            let credit = self.credit.entry(one.id).or_default();
            *credit += i64::from(one.weight);
            if *credit > best.0 {
                best = (*credit, at);
            }
        }
        if let Some(credit) = self.credit.get_mut(&candidates[best.1].id) {
            *credit -= total;
        }
        best.1
    }
}

/// Rendezvous hashing: each node's claim to a client is a number that only the two decide; the greatest wins.
#[derive(Debug)]
struct Hash {
    key: [u8; 16],
}

impl Policy for Hash {
    fn name(&self) -> &str {
        Placement::Hash.name()
    }

    fn choose(&mut self, new: &Newcomer, candidates: &[Candidate<'_>]) -> usize {
        let claim = |at: &usize| {
            let mut hasher = SipHasher13::new_with_key(&self.key);
            new.client.ip().octets().hash(&mut hasher);
            candidates[*at].name.hash(&mut hasher);
            hasher.finish()
        };
        (0..candidates.len()).max_by_key(claim).unwrap_or(0)
    }
}

/// While nobody has measured the client, the least loaded serves, and measures. One that is known goes to a node that
/// does not know it now and then, so that all are compared before long.
#[derive(Debug, Default)]
struct Nearest {
    /// Counts the connections of known clients while some node does not know them.
    turn: u64,
}

impl Policy for Nearest {
    fn name(&self) -> &str {
        Placement::Nearest.name()
    }

    fn choose(&mut self, _: &Newcomer, candidates: &[Candidate<'_>]) -> usize {
        let nearest = (0..candidates.len())
            .filter_map(|at| Some((candidates[at].rtt?, candidates[at].connections, at)))
            .min()
            .map(|(_, _, at)| at);
        let stranger = (0..candidates.len())
            .filter(|at| candidates[*at].rtt.is_none())
            .min_by_key(|at| candidates[*at].connections);
        match (nearest, stranger) {
            (Some(nearest), Some(stranger)) => {
                self.turn = self.turn.wrapping_add(1);
                if self.turn.is_multiple_of(EXPLORE) { stranger } else { nearest }
            }
            (Some(only), None) | (None, Some(only)) => only,
            (None, None) => 0,
        }
    }
}

impl Node {
    /// Who is to serve a new connection: another node, or `None` for this one.
    pub(super) fn choose(&mut self, flow: &Flow, now: Instant) -> Option<NodeId> {
        let client = *flow.remote.ip();
        let port = flow.local.port();
        let service = self.services.get(&port).map_or("", |service| service.name());
        let (rules, near, id) = (&self.rules, &self.near, self.id);
        let candidate = |name, id, here, connections| Candidate {
            name,
            id,
            here,
            connections,
            weight: rules.weight(name),
            rtt: near.rtt(client, id, now),
        };
        let here = !self.draining && rules.may_own(&self.name, service);
        let candidates: Vec<_> = here
            .then(|| candidate(&*self.name, id, true, self.owned.len()))
            .into_iter()
            .chain(self.peers.candidates().map(|(name, id, load)| candidate(name, id, false, load)))
            .filter(|one| rules.may_own(one.name, service))
            .collect();
        let first = candidates.first()?;
        let chosen = self.policy.choose(&Newcomer { client: flow.remote, port }, &candidates);
        let chosen = candidates.get(chosen).unwrap_or(first);
        (!chosen.here).then_some(chosen.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 3] = ["a", "b", "c"];

    fn candidates(loads: [usize; 3], weights: [u32; 3], rtts: [Option<u64>; 3]) -> Vec<Candidate<'static>> {
        let one = |at: usize| Candidate {
            name: NAMES[at],
            id: NodeId::of(NAMES[at]),
            here: at == 0,
            connections: loads[at],
            weight: weights[at],
            rtt: rtts[at].map(Duration::from_millis),
        };
        (0..3).map(one).collect()
    }

    fn client(last: u16) -> Newcomer {
        let client = SocketAddrV6::new(std::net::Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last), 1, 0, 0);
        Newcomer { client, port: 80 }
    }

    fn counts(placement: Placement, among: &[Candidate<'_>], connections: u16) -> [usize; 3] {
        let mut policy = placement.policy([3; 16]);
        let mut counts = [0; 3];
        for last in 0..connections {
            let at = policy.choose(&client(last), among);
            counts[NAMES.iter().position(|name| *name == among[at].name).unwrap()] += 1;
        }
        counts
    }

    #[test]
    fn weights_decide_how_often_a_node_serves_and_zero_means_never() {
        let among = candidates([9; 3], [5, 1, 0], [None; 3]);
        assert_eq!(counts(Placement::Weighted, &among, 60), [50, 10, 0]);
        let nobody = candidates([4, 3, 5], [0; 3], [None; 3]);
        assert_eq!(counts(Placement::Weighted, &nobody, 6), [0, 6, 0], "weights of zero close no service");
    }

    #[test]
    fn the_turns_of_the_heavy_are_spread_among_those_of_the_light() {
        let among = candidates([0; 3], [2, 1, 1], [None; 3]);
        let mut policy = Placement::Weighted.policy([0; 16]);
        let turns: Vec<_> = (0..4).map(|_| policy.choose(&client(1), &among)).collect();
        assert_eq!(turns, [0, 1, 2, 0]);
    }

    #[test]
    fn a_client_keeps_its_node_by_hash_when_another_node_goes() {
        let all = candidates([0; 3], [1; 3], [None; 3]);
        let shares = counts(Placement::Hash, &all, 3000);
        assert!(shares.iter().all(|share| (900..1100).contains(share)), "{shares:?}");
        let (mut hash, without_b) = (Placement::Hash.policy([3; 16]), [all[0], all[2]]);
        for last in 0..300 {
            let before = all[hash.choose(&client(last), &all)].name;
            let after = without_b[hash.choose(&client(last), &without_b)].name;
            assert!(before == after || before == "b", "client {last} went from {before} to {after}");
        }
        let mut turned = all.clone();
        turned.reverse();
        let at = |among: &[Candidate<'_>]| {
            among[Placement::Hash.policy([3; 16]).choose(&client(7), among)].name.to_owned()
        };
        assert_eq!(at(&all), at(&turned), "who is the contact node makes no difference");
    }

    #[test]
    fn the_nearest_serves_and_a_node_that_knows_nothing_is_tried_now_and_then() {
        let known = candidates([0; 3], [1; 3], [Some(30), Some(10), Some(20)]);
        assert_eq!(counts(Placement::Nearest, &known, 16), [0, 16, 0]);
        let half_known = candidates([0; 3], [1; 3], [Some(30), Some(10), None]);
        assert_eq!(counts(Placement::Nearest, &half_known, 16), [0, 14, 2]);
        let unknown = candidates([5, 6, 4], [1; 3], [None; 3]);
        assert_eq!(counts(Placement::Nearest, &unknown, 16), [0, 0, 16], "the least loaded measures");
    }

    #[test]
    fn a_placement_has_one_name_in_files_and_in_messages() {
        for placement in Placement::ALL {
            assert_eq!(serde_json::to_value(placement).unwrap(), placement.name());
            assert_eq!(placement.policy([0; 16]).name(), placement.name());
        }
    }
}
