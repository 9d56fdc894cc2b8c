//! What a world tells about itself.

use ferry_node::Status;
use ferry_stack::Frame;

use super::{Body, World};
use crate::invariants;
use crate::seeds::Tally;
use crate::talk::Outcome;
use crate::wire;

impl World {
    /// Prints a line of the log, if it is on.
    pub fn say(&self, line: impl FnOnce() -> String) {
        if self.log {
            println!("{} {}", self.now, line());
        }
    }

    pub(super) fn note(&self, nth: usize, verb: &str, frame: &Frame) {
        self.say(|| {
            let octets = frame.clone().contiguous().head;
            match wire::read(&octets) {
                Ok(content) => format!("{} {verb} {content}", self.places[nth].name),
                Err(what) => format!("{} {verb} {} octets: {what}", self.places[nth].name, frame.len()),
            }
        });
    }

    /// What is still to be done, for whoever must find out why.
    pub(super) fn unfinished(&self) -> String {
        let mut lines = Vec::new();
        for place in &self.places {
            let tcbs: Vec<_> = match &place.body {
                Body::Host(machine) => {
                    let talks = machine.talks.iter().filter(|talk| !talk.is_over());
                    lines.extend(talks.map(|talk| format!("{}: {talk:?}", place.name)));
                    machine.stack.tcbs(self.now).into_iter().map(|(tcb, _)| tcb).collect()
                }
                Body::Node(member) => {
                    lines.push(format!("{}: {:?}", place.name, member.node.status(member.clock(self.now))));
                    member.node.control_blocks().collect()
                }
                Body::Agent(standing) => {
                    lines.push(format!("{}: {:?}", place.name, standing.status(self.now)));
                    Vec::new()
                }
                Body::Gone => Vec::new(),
            };
            lines.extend(tcbs.iter().map(|tcb| format!("{}: {}", place.name, invariants::describe(tcb))));
        }
        format!("\n  {}{}", lines.join("\n  "), self.group.unanswered())
    }

    /// How the nodes are.
    pub fn statuses(&self) -> Vec<Status> {
        let nodes = self.places.iter().filter_map(|place| match &place.body {
            Body::Node(member) => Some(member.node.status(member.clock(self.now))),
            Body::Host(_) | Body::Agent(_) | Body::Gone => None,
        });
        nodes.collect()
    }

    /// What was done.
    pub fn tally(&self) -> Tally {
        let passed = self.passed();
        let talks = || self.hosts().flat_map(|machine| &machine.talks);
        Tally {
            seeds: 1,
            events: self.events,
            connections: talks().filter(|talk| talk.outcome == Some(Outcome::Done)).count() as u64,
            hung: talks().filter(|talk| talk.outcome == Some(Outcome::Hung)).count() as u64,
            handoffs: self.group.handoffs + self.hosts().map(|host| host.stack.crossings()).sum::<u64>(),
            refused: self.group.refused,
            octets: talks().map(|talk| talk.received).sum(),
            lost: passed.lost + passed.overflowed,
            corrupted: passed.corrupted,
            repeated: self.watch.repeated,
            too_big: self.router.too_big,
            swallowed: passed.swallowed,
            marked: passed.marked,
            faults: self.group.faults(),
            virtual_ms: self.now.millis(),
        }
    }
}
