//! What an operator asks for.

use ferry_handoff::NodeId;
use ferry_stack::Instant;
use ferry_stack::tcp::Flow;

use super::Node;
use super::jobs::{Job, JobId};
use crate::io::{Command, NotMoved, Output, Reason, Reply, Which};

impl Node {
    pub(super) fn command(&mut self, id: u64, command: Command, now: Instant) {
        let done = match command {
            Command::Status => Ok(Reply::Status(Box::new(self.status(now)))),
            Command::Connections => Ok(Reply::Connections { connections: self.connections() }),
            Command::Handoff { to, which } => {
                return self.or_error(id, now, |node| node.hand_off(id, &to, &which));
            }
            Command::Drain => {
                self.drain(JobId::Command(id), now);
                return;
            }
            Command::DrainNode { node: name } => {
                return self.or_error(id, now, |node| node.drain_node(id, &name, now));
            }
            Command::Rebalance => return self.or_error(id, now, |node| node.rebalance(id)),
            Command::Stop => {
                self.stop_jobs(now);
                Ok(Reply::Done)
            }
            Command::Contact => self.take_contact(now).map(|()| Reply::Done),
            Command::Leave => return self.leave_home(id, now),
        };
        self.reply(id, done.unwrap_or_else(|why| Reply::Error { why }));
    }

    /// Starts what is answered later, if it can be done at all.
    fn or_error(&mut self, id: u64, now: Instant, start: impl FnOnce(&mut Self) -> Result<(), String>) {
        match start(self) {
            Ok(()) => self.go_on(now),
            Err(why) => self.reply(id, Reply::Error { why }),
        }
    }

    pub(super) fn reply(&mut self, id: u64, reply: Reply) {
        self.outputs.push_back(Output::Reply { id, reply });
    }

    /// The node of a name, if it can be asked for something.
    fn peer_called(&self, name: &str) -> Result<NodeId, String> {
        let names = || self.peers.names().collect::<Vec<_>>().join(", ");
        let peer = NodeId::of(name);
        if peer == self.id {
            return Err(format!("{name} is this node itself; the others are: {}", names()));
        }
        if !self.peers.is_known(peer) {
            return Err(format!("there is no node \"{name}\" in the group; the others are: {}", names()));
        }
        if !self.peers.is_up(peer) {
            return Err(format!(
                "the link to {name} is down; see `ferry status` here and `ferry doctor` there"
            ));
        }
        Ok(peer)
    }

    fn hand_off(&mut self, id: u64, to: &str, which: &Which) -> Result<(), String> {
        let peer = self.peer_called(to)?;
        let mut job = Job::new(Reason::Handoff);
        for flow in self.meant(which)? {
            if self.is_giving(&flow) {
                job.give_up(flow, NotMoved::MOVES_ALREADY);
            } else {
                job.queue.push_back((flow, Some(peer)));
            }
        }
        self.jobs.jobs.insert(JobId::Command(id), job);
        Ok(())
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
    pub(super) fn drain(&mut self, id: JobId, now: Instant) {
        self.draining = true;
        self.handoffs.drain();
        self.abdicate(now);
        self.peers.load_changed(now);
        let mut job = Job::new(Reason::Drain);
        job.queue = self.owned().map(|(tcb, _)| (tcb.flow, None)).collect();
        self.jobs.jobs.insert(id, job);
        self.go_on(now);
    }

    /// Has a node drained, this one or another.
    fn drain_node(&mut self, id: u64, name: &str, now: Instant) -> Result<(), String> {
        if NodeId::of(name) == self.id {
            self.drain(JobId::Command(id), now);
            return Ok(());
        }
        let peer = self.peer_called(name)?;
        let mut job = Job::new(Reason::Drain);
        self.order(&mut job, peer, ferry_handoff::Order::Drain);
        self.jobs.jobs.insert(JobId::Command(id), job);
        Ok(())
    }
}
