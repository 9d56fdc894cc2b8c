//! What an operator asks for.

use std::collections::{BTreeMap, BTreeSet};

use ferry_handoff::{Failure, NodeId};
use ferry_stack::Instant;
use ferry_stack::tcp::Flow;

use super::Node;
use crate::io::{Command, Moved, NotMoved, Output, Reply, Which};

/// Commands that are not answered yet.
#[derive(Debug, Default)]
pub(super) struct Jobs {
    jobs: BTreeMap<u64, Job>,
}

/// A command that moves connections.
#[derive(Debug)]
struct Job {
    /// Those that are under way.
    waiting: BTreeSet<Flow>,
    /// Where a connection was tried to go, if any node will do.
    tried: BTreeMap<Flow, BTreeSet<NodeId>>,
    anywhere: bool,
    moved: Moved,
}

impl Job {
    fn new(anywhere: bool) -> Self {
        Self { waiting: BTreeSet::new(), tried: BTreeMap::new(), anywhere, moved: Moved::default() }
    }

    fn give_up(&mut self, flow: Flow, why: &str) {
        self.waiting.remove(&flow);
        let failed = NotMoved { client: flow.remote, port: flow.local.port(), why: why.into() };
        self.moved.failed.push(failed);
    }
}

impl Node {
    pub(super) fn command(&mut self, id: u64, command: Command, now: Instant) {
        match command {
            Command::Status => self.reply(id, Reply::Status(Box::new(self.status(now)))),
            Command::Connections => self.reply(id, Reply::Connections { connections: self.connections() }),
            Command::Handoff { to, which } => match self.hand_off(id, &to, &which, now) {
                Ok(()) => self.finish_jobs(),
                Err(why) => self.reply(id, Reply::Error { why }),
            },
            Command::Drain => self.drain(id, now),
            Command::Contact => match self.take_contact(now) {
                Ok(()) => self.reply(id, Reply::Done),
                Err(why) => self.reply(id, Reply::Error { why }),
            },
            Command::Leave => self.leave_home(id, now),
        }
    }

    pub(super) fn reply(&mut self, id: u64, reply: Reply) {
        self.outputs.push_back(Output::Reply { id, reply });
    }

    fn hand_off(&mut self, id: u64, to: &str, which: &Which, now: Instant) -> Result<(), String> {
        let names = || self.peers.names().collect::<Vec<_>>().join(", ");
        let peer = NodeId::of(to);
        if peer == self.id {
            return Err(format!("{to} is this node itself; the others are: {}", names()));
        }
        if !self.peers.is_known(peer) {
            return Err(format!("there is no node \"{to}\" in the group; the others are: {}", names()));
        }
        if !self.peers.is_up(peer) {
            return Err(format!(
                "the link to {to} is down; see `ferry status` here and `ferry doctor` there"
            ));
        }
        let flows = self.meant(which)?;
        let mut job = Job::new(false);
        for flow in flows {
            if self.is_giving(&flow) {
                job.give_up(flow, "it is being handed off already");
            } else if self.give(flow, peer, now) {
                job.waiting.insert(flow);
            } else {
                job.give_up(flow, "no service here knows it");
            }
        }
        self.jobs.jobs.insert(id, job);
        Ok(())
    }

    fn is_giving(&self, flow: &Flow) -> bool {
        self.handoffs.is_giving(flow) || self.warming.is_leaving(flow)
    }

    fn meant(&self, which: &Which) -> Result<Vec<Flow>, String> {
        match which {
            Which::All => Ok(self.owned().map(|(tcb, _)| tcb.flow).collect()),
            Which::One { client, port } => {
                let local = std::net::SocketAddrV6::new(self.service_address, *port, 0, 0);
                let flow =
                    Flow { local, remote: std::net::SocketAddrV6::new(*client.ip(), client.port(), 0, 0) };
                let owned = self.tcp.find(&flow).is_some_and(|handle| self.owned.contains(handle));
                if owned {
                    return Ok(vec![flow]);
                }
                let place = self.places.get(&flow).and_then(super::Place::route);
                let hint = place.map(|route| format!("; it lives at {}", self.peers.name(route.to)));
                let hint = hint.unwrap_or_else(|| "; `ferry connections` lists those it owns".into());
                Err(format!("this node does not own the connection of {client} to port {port}{hint}"))
            }
        }
    }

    /// Hands everything off to whoever takes it, and takes nothing new.
    fn drain(&mut self, id: u64, now: Instant) {
        self.draining = true;
        self.handoffs.drain();
        self.abdicate(now);
        self.peers.load_changed(now);
        let mut job = Job::new(true);
        job.waiting = self.owned().map(|(tcb, _)| tcb.flow).collect();
        self.jobs.jobs.insert(id, job);
        self.drain_further(now);
        self.finish_jobs();
    }

    /// Goes on with what has not found a taker, now that one may have come.
    pub(super) fn drain_further(&mut self, now: Instant) {
        let mut jobs = std::mem::take(&mut self.jobs);
        for job in jobs.jobs.values_mut().filter(|job| job.anywhere) {
            let idle: Vec<_> = job.waiting.iter().filter(|flow| !self.is_giving(flow)).copied().collect();
            for flow in idle {
                self.give_somewhere(job, flow, now);
            }
        }
        self.jobs = jobs;
        self.finish_jobs();
    }

    fn give_somewhere(&mut self, job: &mut Job, flow: Flow, now: Instant) {
        let tried = job.tried.entry(flow).or_default();
        let Some(to) = self.peers.takers().into_iter().find(|peer| !tried.contains(peer)) else {
            let why = if tried.is_empty() {
                "no other node takes connections"
            } else {
                "every other node refused it"
            };
            return job.give_up(flow, why);
        };
        tried.insert(to);
        self.peers.count_placed(to);
        if !self.give(flow, to, now) {
            // It ended meanwhile: nothing is left to move.
            job.waiting.remove(&flow);
        }
    }

    /// A connection has moved.
    pub(super) fn moved(&mut self, flow: Flow, _now: Instant) {
        for job in self.jobs.jobs.values_mut() {
            if job.waiting.remove(&flow) {
                job.moved.moved += 1;
            }
        }
        self.finish_jobs();
    }

    /// A connection could not move: a drain tries another node, unless it has ended.
    pub(super) fn not_moved(&mut self, flow: Flow, _to: NodeId, why: &Failure, now: Instant) {
        let mut jobs = std::mem::take(&mut self.jobs);
        for job in jobs.jobs.values_mut().filter(|job| job.waiting.contains(&flow)) {
            match why {
                Failure::Ended => {
                    job.waiting.remove(&flow);
                }
                _ if job.anywhere => self.give_somewhere(job, flow, now),
                _ => job.give_up(flow, &why.to_string()),
            }
        }
        self.jobs = jobs;
        self.finish_jobs();
    }

    fn finish_jobs(&mut self) {
        let done: Vec<_> =
            self.jobs.jobs.iter().filter(|(_, job)| job.waiting.is_empty()).map(|(id, _)| *id).collect();
        for id in done {
            if let Some(job) = self.jobs.jobs.remove(&id) {
                self.reply(id, Reply::Moved(job.moved));
            }
        }
    }
}
