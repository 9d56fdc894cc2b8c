//! A node of the group as a machine of the simulated world, with a clock of its own.

use core::time::Duration;
use std::collections::VecDeque;

use bytes::Bytes;
use ferry_handoff::{Incarnation, NodeId};
use ferry_node::{Command, Input, Node, Output, Reply, Trace};
use ferry_stack::{Frame, Instant};

const MILLION: i32 = 1_000_000;

/// A clock that began anywhere and runs as it likes.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// What it shows when the world begins.
    pub ahead: Duration,
    /// Millionths by which it runs fast; slow, if negative.
    pub drift: i32,
}

impl Clock {
    /// What it shows then.
    pub fn at(&self, now: Instant) -> Instant {
        let shown = i128::from(now.nanos()) * i128::from(MILLION + self.drift) / i128::from(MILLION);
        Instant::from_nanos(u64::try_from(shown).unwrap_or(u64::MAX)) + self.ahead
    }

    /// When it will show that; never too early.
    pub fn when(&self, shown: Instant) -> Instant {
        let ahead = i128::try_from(self.ahead.as_nanos()).unwrap_or(i128::MAX);
        let passed = (i128::from(shown.nanos()) - ahead).max(0) * i128::from(MILLION);
        let rate = i128::from(MILLION + self.drift);
        Instant::from_nanos(u64::try_from((passed + rate - 1) / rate).unwrap_or(u64::MAX))
    }
}

/// A node, its clock, and what it wants done.
#[derive(Debug)]
pub struct Member {
    /// The node that ships.
    pub node: Node,
    /// Its name.
    pub name: String,
    clock: Clock,
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
    /// Its links are to be made anew, under this life.
    Reborn(Incarnation),
    /// Something is told.
    Trace(Trace),
}

impl Member {
    /// A node with its clock.
    pub fn new(node: Node, name: &str, clock: Clock) -> Self {
        Self { node, name: name.to_owned(), clock, deadline: None }
    }

    /// Its identity.
    pub fn id(&self) -> NodeId {
        NodeId::of(&self.name)
    }

    /// What its clock shows.
    pub fn clock(&self, now: Instant) -> Instant {
        self.clock.at(now)
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
                Output::Reborn { incarnation } => Wish::Reborn(incarnation),
                Output::Trace(trace) => Wish::Trace(trace),
                Output::WaitUntil(deadline) => {
                    self.deadline = deadline.map(|at| self.clock.when(at));
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_goes_off_when_the_clock_shows_its_time_and_not_earlier() {
        for (ahead, drift) in [(0, 0), (5, 200), (1 << 40, -200), (17, 100_000)] {
            let clock = Clock { ahead: Duration::from_nanos(ahead), drift };
            for passed in [0, 1, 999, 1_000_000, 3_600_000_000_000] {
                let at = Instant::from_nanos(ahead + passed);
                let woken = clock.when(at);
                assert!(clock.at(woken) >= at, "{ahead} {drift} {passed}");
                let before = Instant::from_nanos(woken.nanos().saturating_sub(2));
                assert!(passed < 2 || clock.at(before) < at, "{ahead} {drift} {passed}");
            }
        }
    }
}
