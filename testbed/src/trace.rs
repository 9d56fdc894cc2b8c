//! Events of the nodes and of the testbed on one time line.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddrV6;
use std::path::Path;

use ferry_node::io::{Moment, Step, Trace, TraceEvent};
use serde::Serialize;

use crate::analysis::Flow;
use crate::clock::now_ns;
use crate::error::Doing;
use crate::{Error, Result};

/// Something that happened at a node or in the testbed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    /// Who says so: a node's name, or `testbed`.
    pub node: String,
    /// When and what.
    #[serde(flatten)]
    pub what: What,
}

/// When and what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum What {
    /// A node's trace.
    Node(Trace),
    /// A remark of the testbed's.
    Mark {
        /// Nanoseconds of the monotonic clock.
        at_ns: u64,
        /// What the testbed began or ended.
        mark: String,
    },
}

impl Event {
    /// A remark about what the testbed does now.
    pub fn mark(mark: impl Into<String>) -> Self {
        Self { node: "testbed".to_owned(), what: What::Mark { at_ns: now_ns(), mark: mark.into() } }
    }

    /// Nanoseconds of the monotonic clock.
    pub fn at_ns(&self) -> u64 {
        match &self.what {
            What::Node(trace) => trace.at_ns,
            What::Mark { at_ns, .. } => *at_ns,
        }
    }
}

/// Reads what a node wrote with `--trace`.
pub fn read(node: &str, path: &Path) -> Result<Vec<Event>> {
    let text = fs::read_to_string(path).doing(format!("read {}", path.display()))?;
    let wrong = |line: &str, error: serde_json::Error| Error::Node {
        node: node.to_owned(),
        why: format!("traced {line:?}: {error}"),
    };
    let parse = |line: &str| {
        let trace = serde_json::from_str(line).map_err(|error| wrong(line, error))?;
        Ok(Event { node: node.to_owned(), what: What::Node(trace) })
    };
    // A line that is not finished belongs to a node that was ended while it wrote.
    text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(parse).collect()
}

/// A handoff that came to its end, from the traces of its donor and its acceptor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handoff {
    /// The client.
    pub client: SocketAddrV6,
    /// The connection among those of the client.
    pub flow: Flow,
    /// The epoch that began.
    pub epoch: u64,
    /// The donor.
    pub from: String,
    /// The acceptor.
    pub to: String,
    /// When the donor froze it.
    pub frozen_ns: u64,
    /// When it ran again.
    pub installed_ns: u64,
    /// Octets of its snapshot.
    pub snapshot_bytes: usize,
    /// How the connection was when it froze.
    pub moment: Moment,
}

/// The finished handoffs in the order of their freezing.
pub fn handoffs(events: &[Event]) -> Vec<Handoff> {
    let steps = || events.iter().filter_map(Taken::of);
    // By connection, epoch and who says so.
    let mut installed = BTreeMap::<_, Vec<u64>>::new();
    for taken in steps().filter(|taken| matches!(taken.step, Step::Installed { .. })) {
        installed.entry((taken.name(), taken.node)).or_default().push(taken.at_ns);
    }
    let frozen = steps().filter_map(|taken| {
        let Step::Frozen { snapshot_bytes, moment } = taken.step else { return None };
        let there = installed.get(&(taken.name(), taken.peer))?;
        Some(Handoff {
            client: taken.client,
            flow: Flow { client_port: taken.client.port(), service_port: taken.port },
            epoch: taken.epoch,
            from: taken.node.to_owned(),
            to: taken.peer.to_owned(),
            frozen_ns: taken.at_ns,
            installed_ns: there.iter().copied().filter(|at| *at >= taken.at_ns).min()?,
            snapshot_bytes: *snapshot_bytes,
            moment: moment.clone(),
        })
    });
    let mut handoffs: Vec<_> = frozen.collect();
    handoffs.sort_by_key(|handoff| handoff.frozen_ns);
    handoffs
}

/// A handoff by its connection and its epoch.
pub type Name = (SocketAddrV6, u16, u64);

impl Handoff {
    /// What it is called.
    pub fn name(&self) -> Name {
        (self.client, self.flow.service_port, self.epoch)
    }
}

/// When the acceptor of each handoff was asked.
pub fn asked(events: &[Event]) -> BTreeMap<Name, u64> {
    let steps = events.iter().filter_map(Taken::of);
    let asked = steps.filter(|taken| matches!(taken.step, Step::Asked));
    asked.map(|taken| (taken.name(), taken.at_ns)).collect()
}

/// A step of a handoff that a node has taken.
struct Taken<'a> {
    at_ns: u64,
    node: &'a str,
    peer: &'a str,
    client: SocketAddrV6,
    port: u16,
    epoch: u64,
    step: &'a Step,
}

impl<'a> Taken<'a> {
    fn of(event: &'a Event) -> Option<Self> {
        let What::Node(Trace { at_ns, event: what }) = &event.what else { return None };
        let TraceEvent::Handoff { client, port, epoch, peer, step } = what else { return None };
        let (at_ns, client, port, epoch) = (*at_ns, *client, *port, *epoch);
        Some(Self { at_ns, node: &event.node, peer, client, port, epoch, step })
    }

    fn name(&self) -> Name {
        (self.client, self.port, self.epoch)
    }
}
