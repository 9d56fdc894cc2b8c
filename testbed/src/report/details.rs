//! What only one demo tells.

use std::collections::BTreeMap;

use ferry_node::Moment;
use serde::Serialize;

use crate::analysis::Spread;

/// Of how many handoffs something was so, by the kind of their client.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// Of ordinary clients.
    pub plain: usize,
    /// Of clients with Mobile IPv6.
    pub aware: usize,
}

impl Count {
    /// Of both.
    pub fn all(self) -> usize {
        self.plain + self.aware
    }
}

/// At which moments connections moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Moments {
    /// Connections that came to their good end.
    pub connections: u64,
    /// All handoffs.
    pub handoffs: Count,
    /// By TCP state at the freeze, as the donor's trace tells it.
    pub states: BTreeMap<String, Count>,
    /// By what else was so at the freeze; several may be at once.
    pub conditions: BTreeMap<&'static str, Count>,
}

/// How evening the load changed what clients wait for.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Balance {
    /// Connections.
    pub connections: usize,
    /// Of these, how many `ferry rebalance` moved.
    pub moved: usize,
    /// Connections at each node, in the order of their names.
    pub load_before: Vec<usize>,
    /// The same afterwards.
    pub load_after: Vec<usize>,
    /// The greatest load over the mean.
    pub max_over_mean_before: f64,
    /// The same afterwards.
    pub max_over_mean_after: f64,
    /// From a request until the last octet of its answer, in milliseconds.
    pub wait_ms_before: Option<Spread>,
    /// The same afterwards.
    pub wait_ms_after: Option<Spread>,
}

/// What else there is to tell of a moment.
type Condition = (&'static str, fn(&Moment) -> bool);

const CONDITIONS: [Condition; 8] = [
    ("octets in flight", |moment| moment.in_flight > 0),
    ("octets not read", |moment| moment.unread > 0),
    ("octets out of order", |moment| moment.out_of_order > 0),
    ("losses being repaired", |moment| moment.recovering),
    ("retransmission timer backed off", |moment| moment.timeouts > 0),
    ("the client's window shut", |moment| moment.shut),
    ("an acknowledgement delayed", |moment| moment.delayed_ack),
    ("nothing under way", |moment| moment.in_flight == 0 && moment.unread == 0),
];

/// Those of RFC 9293 section 3.3.2 in which a connection of a server can be.
const STATES: [&str; 8] = [
    "SYN-RECEIVED",
    "ESTABLISHED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "CLOSE-WAIT",
    "CLOSING",
    "LAST-ACK",
    "TIME-WAIT",
];

impl Moments {
    /// Of handoffs: whether each was of an aware client, and how its connection was.
    pub fn count<'a>(moves: impl Iterator<Item = (bool, &'a Moment)>) -> Self {
        let mut moments = Self::default();
        for (aware, moment) in moves {
            let add = |count: &mut Count| *(if aware { &mut count.aware } else { &mut count.plain }) += 1;
            add(&mut moments.handoffs);
            add(moments.states.entry(moment.state.to_string()).or_default());
            for (name, _) in CONDITIONS.iter().filter(|(_, holds)| holds(moment)) {
                add(moments.conditions.entry(name).or_default());
            }
        }
        moments
    }

    /// The states in the order of a connection's life.
    pub fn in_order(&self) -> impl Iterator<Item = (&'static str, &Count)> {
        STATES.into_iter().filter_map(|state| Some((state, self.states.get(state)?)))
    }

    /// A table.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let line = |(name, count): (&str, &Count)| {
            format!("{name:<32}{:>7} of plain clients{:>7} of aware ones", count.plain, count.aware)
        };
        let states = self.in_order().map(line);
        let conditions = self.conditions.iter().map(|(name, count)| line((name, count)));
        let mut lines = vec![("connections", self.connections.to_string())];
        lines.extend(headed("frozen in state", states));
        lines.extend(headed("frozen with", conditions));
        lines
    }
}

/// The first line has the heading.
fn headed(
    heading: &'static str,
    lines: impl Iterator<Item = String>,
) -> impl Iterator<Item = (&'static str, String)> {
    core::iter::once(heading).chain(core::iter::repeat("")).zip(lines)
}

impl Balance {
    /// A table.
    pub(super) fn lines(&self) -> Vec<(&'static str, String)> {
        let wait = |spread: Option<Spread>| {
            spread.map_or("-".to_owned(), |Spread { p50, p99, max }| {
                format!("p50 {p50:.1}  p99 {p99:.1}  max {max:.1}")
            })
        };
        let load = |load: &[usize], ratio: f64| format!("{load:?}, the greatest {ratio:.2} of the mean");
        vec![
            ("connections", self.connections.to_string()),
            ("load before", load(&self.load_before, self.max_over_mean_before)),
            ("load after", load(&self.load_after, self.max_over_mean_after)),
            ("wait before, ms", wait(self.wait_ms_before)),
            ("wait after, ms", wait(self.wait_ms_after)),
        ]
    }

    /// The greatest load over the mean.
    #[allow(clippy::cast_precision_loss)] // Connections.
    pub fn max_over_mean(load: &[usize]) -> f64 {
        let (most, all) = (load.iter().max().copied().unwrap_or(0), load.iter().sum::<usize>());
        if all == 0 { 1.0 } else { (most * load.len()) as f64 / all as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_that_is_even_is_one_and_all_at_one_node_is_the_number_of_nodes() {
        for (load, expected) in [([4, 4, 4], 1.0), ([12, 0, 0], 3.0), ([6, 3, 3], 1.5), ([0, 0, 0], 1.0)] {
            assert!((Balance::max_over_mean(&load) - expected).abs() < 1e-9, "{load:?}");
        }
    }
}
