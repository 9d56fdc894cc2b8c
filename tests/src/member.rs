//! A node of the group as a machine of the simulated world, with a clock of its own.

use core::time::Duration;
use std::collections::VecDeque;

use bytes::Bytes;
use ferry_handoff::{Incarnation, NodeId};
use ferry_node::{Command, Input, Node, Output, Reply, Trace};
use ferry_stack::{Frame, Instant};

/// A node, its clock, and what it wants done.
#[derive(Debug)]
pub struct Member {
    /// The node that ships.
    pub node: Node,
    /// Its name.
    pub name: String,
    /// What its clock shows when the world begins.
    ahead: Duration,
    /// When it wants to be woken, by the world's clock.
    deadline: Option<Instant>,
}

/// What a node wants done, apart from waiting.
#[derive(Debug)]
pub enum Wish {
    /// A frame is to be put on its link.
    Frame(Frame),
    /// A message is to be sent to another node.
    Message(NodeId, Bytes),
    /// A command is answered.
    Reply(u64, Reply),
    /// Something is told.
    Trace(Trace),
}

impl Member {
    /// A node whose clock showed `ahead` when the world began.
    pub fn new(node: Node, name: &str, ahead: Duration) -> Self {
        Self { node, name: name.to_owned(), ahead, deadline: None }
    }

    /// Its identity.
    pub fn id(&self) -> NodeId {
        NodeId::of(&self.name)
    }

    /// What its clock shows.
    pub fn clock(&self, now: Instant) -> Instant {
        now + self.ahead
    }

    /// Takes a frame.
    pub fn receive(&mut self, frame: Frame, now: Instant) {
        self.handle(Input::Frame(frame), now);
    }

    /// Whether a timer of one of its connections has come due, and not only one of the node's own.
    pub fn is_connection_due(&self, now: Instant) -> bool {
        let clock = self.clock(now);
        self.node.control_blocks().any(|tcb| tcb.deadline().is_some_and(|at| at <= clock))
    }

    /// Takes a message of another node.
    pub fn hear(&mut self, from: NodeId, bytes: Bytes, now: Instant) {
        self.handle(Input::Peer { from, bytes }, now);
    }

    /// Learns that the link to another node is up, or has broken.
    pub fn meet(&mut self, peer: NodeId, incarnation: Option<Incarnation>, now: Instant) {
        let input = match incarnation {
            Some(incarnation) => Input::PeerUp { peer, incarnation },
            None => Input::PeerDown { peer },
        };
        self.handle(input, now);
    }

    /// Gets a command.
    pub fn command(&mut self, id: u64, command: Command, now: Instant) {
        self.handle(Input::Command { id, command }, now);
    }

    /// Lets time pass.
    pub fn tick(&mut self, now: Instant) {
        self.handle(Input::Tick, now);
    }

    fn handle(&mut self, input: Input, now: Instant) {
        let clock = self.clock(now);
        self.node.handle(input, clock);
    }

    /// Everything that it wants done now.
    pub fn wishes(&mut self, now: Instant) -> VecDeque<Wish> {
        let clock = self.clock(now);
        let mut wishes = VecDeque::new();
        loop {
            wishes.push_back(match self.node.poll(clock) {
                Output::Frame(frame) => Wish::Frame(frame),
                Output::Peer { to, bytes } => Wish::Message(to, bytes),
                Output::Reply { id, reply } => Wish::Reply(id, reply),
                Output::Trace(trace) => Wish::Trace(trace),
                Output::WaitUntil(deadline) => {
                    let ahead = u64::try_from(self.ahead.as_nanos()).unwrap_or(u64::MAX);
                    let back = |at: Instant| Instant::from_nanos(at.nanos().saturating_sub(ahead));
                    self.deadline = deadline.map(back);
                    return wishes;
                }
            });
        }
    }

    /// When it wants to be woken, by the world's clock.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}
