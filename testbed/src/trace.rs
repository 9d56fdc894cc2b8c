//! Events of the nodes and of the testbed on one time line.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use ferry_node::io::{Step, Trace, TraceEvent};
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
    /// The connection.
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
}

/// The finished handoffs in the order of their freezing.
pub fn handoffs(events: &[Event]) -> Vec<Handoff> {
    let steps = || events.iter().filter_map(step);
    // By connection, epoch and who says so.
    let mut installed = BTreeMap::<_, Vec<u64>>::new();
    for (flow, epoch, event, _, _) in steps().filter(|(.., step)| matches!(step, Step::Installed { .. })) {
        installed.entry((flow, epoch, event.node.as_str())).or_default().push(event.at_ns());
    }
    let frozen = steps().filter_map(|(flow, epoch, event, peer, step)| {
        let Step::Frozen { snapshot_bytes } = *step else { return None };
        let there = installed.get(&(flow, epoch, peer))?;
        Some(Handoff {
            flow,
            epoch,
            from: event.node.clone(),
            to: peer.to_owned(),
            frozen_ns: event.at_ns(),
            installed_ns: there.iter().copied().filter(|at| *at >= event.at_ns()).min()?,
            snapshot_bytes,
        })
    });
    let mut handoffs: Vec<_> = frozen.collect();
    handoffs.sort_by_key(|handoff| handoff.frozen_ns);
    handoffs
}

/// When the acceptor of each handoff was asked, by connection and epoch.
pub fn asked(events: &[Event]) -> BTreeMap<(Flow, u64), u64> {
    let steps = events.iter().filter_map(step);
    let asked = steps.filter(|(.., step)| matches!(step, Step::Asked));
    asked.map(|(flow, epoch, event, ..)| ((flow, epoch), event.at_ns())).collect()
}

fn step(event: &Event) -> Option<(Flow, u64, &Event, &str, &Step)> {
    let What::Node(Trace { event: what, .. }) = &event.what else { return None };
    let TraceEvent::Handoff { client, port, epoch, peer, step } = what else { return None };
    let flow = Flow { client_port: client.port(), service_port: *port };
    Some((flow, *epoch, event, peer, step))
}
