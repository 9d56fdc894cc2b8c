//! A node of the group as a machine of the simulated world, with a clock of its own.

use core::time::Duration;
use std::collections::VecDeque;

use bytes::Bytes;
use ferry_handoff::{Incarnation, NodeId};
use ferry_node::{Command, Input, Node, Output, Reply, Trace};
use ferry_stack::{Frame, Instant};

const MILLION: i32 = 1_000_000;

/// Frames that a TAP keeps for a process that does not read them.
const TAP_QUEUE: usize = 1000;

/// A clock that began anywhere and runs as it likes, but never jumps.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Since when it has run as it runs now, by the world's clock.
    since: Instant,
    /// What it showed then.
    shown: Instant,
    /// Millionths by which it runs fast; slow, if negative.
    drift: i32,
}

impl Clock {
    /// A clock that is `ahead` when the world begins, and runs fast by so many millionths.
    pub fn new(ahead: Duration, drift: i32) -> Self {
        Self { since: Instant::ZERO, shown: Instant::ZERO + ahead, drift }
    }

    /// A clock that begins now.
    pub fn switched_on(now: Instant, drift: i32) -> Self {
        Self { since: now, shown: Instant::ZERO, drift }
    }

    /// From now on it runs otherwise.
    pub fn run_otherwise(&mut self, drift: i32, now: Instant) {
        *self = Self { since: now, shown: self.at(now), drift };
    }

    /// What it shows then.
    pub fn at(&self, now: Instant) -> Instant {
        let passed = i128::from(now.nanos()) - i128::from(self.since.nanos());
        let passed = passed * i128::from(MILLION + self.drift) / i128::from(MILLION);
        self.shown + Duration::from_nanos(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// When it will show that; never too early.
    pub fn when(&self, shown: Instant) -> Instant {
        let left = i128::from(shown.nanos()) - i128::from(self.shown.nanos());
        let (left, rate) = (left.max(0) * i128::from(MILLION), i128::from(MILLION + self.drift));
        self.since + Duration::from_nanos(u64::try_from((left + rate - 1) / rate).unwrap_or(u64::MAX))
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
    /// When it wants to be woken, by its own clock.
    due: Option<Instant>,
    stopped: Option<Stopped>,
}

/// A process that does not run (`SIGSTOP`): what comes for it waits, and its clock goes on.
#[derive(Debug)]
struct Stopped {
    since: Instant,
    letters: VecDeque<Input>,
    frames: VecDeque<Input>,
    /// What it had not done yet.
    wishes: VecDeque<Wish>,
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
        Self { node, name: name.to_owned(), clock, due: None, stopped: None }
    }

    /// Its identity.
    pub fn id(&self) -> NodeId {
        NodeId::of(&self.name)
    }

    /// What its clock shows.
    pub fn clock(&self, now: Instant) -> Instant {
        self.clock.at(now)
    }

    /// From now on its clock runs otherwise.
    pub fn drift(&mut self, drift: i32, now: Instant) {
        self.clock.run_otherwise(drift, now);
    }

    /// Since when it has been stopped, if it is.
    pub fn stopped_since(&self) -> Option<Instant> {
        self.stopped.as_ref().map(|stopped| stopped.since)
    }

    /// It is stopped.
    pub fn stop(&mut self, now: Instant) {
        let (letters, frames, wishes) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        self.stopped.get_or_insert(Stopped { since: now, letters, frames, wishes });
    }

    /// It was stopped in the middle of what it did.
    pub fn leave_undone(&mut self, wishes: VecDeque<Wish>) {
        if let Some(stopped) = &mut self.stopped {
            stopped.wishes.extend(wishes);
        }
    }

    /// It goes on: with what it had not done, which is given back, then with all that has come, letters or frames first.
    pub fn go_on(&mut self, letters_first: bool, now: Instant) -> VecDeque<Wish> {
        let Some(Stopped { letters, frames, wishes, .. }) = self.stopped.take() else {
            return VecDeque::new();
        };
        let (first, second) = if letters_first { (letters, frames) } else { (frames, letters) };
        for input in first.into_iter().chain(second) {
            self.handle(input, now);
        }
        self.handle(Input::Tick, now);
        wishes
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

    /// Learns that a life of another node is over.
    pub fn prove(&mut self, peer: NodeId, incarnation: Incarnation, now: Instant) {
        self.handle(Input::PeerDead { peer, incarnation }, now);
    }

    /// Whether nobody can have taken its place.
    pub fn serves(&self, now: Instant) -> bool {
        self.node.may_serve(self.clock(now))
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
        match (&mut self.stopped, input) {
            (None, input) => self.node.handle(input, clock),
            (Some(_), Input::Tick) => {}
            (Some(stopped), frame @ Input::Frame(_)) => {
                if stopped.frames.len() < TAP_QUEUE {
                    stopped.frames.push_back(frame);
                }
            }
            (Some(stopped), letter) => stopped.letters.push_back(letter),
        }
    }

    /// Everything that it wants done now.
    pub fn wishes(&mut self, now: Instant) -> VecDeque<Wish> {
        let clock = self.clock(now);
        let mut wishes = VecDeque::new();
        if self.stopped.is_some() {
            return wishes;
        }
        loop {
            wishes.push_back(match self.node.poll(clock) {
                Output::Frame(frame) => Wish::Frame(frame),
                Output::Peer { to, bytes } => Wish::Message(to, bytes.join()),
                Output::Reply { id, reply } => Wish::Reply(id, reply),
                Output::Reborn { incarnation } => Wish::Reborn(incarnation),
                Output::Trace(trace) => Wish::Trace(*trace),
                // The simulated world has no etcd.
                Output::Store { .. } => continue,
                Output::WaitUntil(deadline) => {
                    self.due = deadline;
                    return wishes;
                }
            });
        }
    }

    /// When it wants to be woken, by the world's clock.
    pub fn deadline(&self) -> Option<Instant> {
        self.due.filter(|_| self.stopped.is_none()).map(|due| self.clock.when(due))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_goes_off_when_the_clock_shows_its_time_and_not_earlier() {
        for (ahead, drift) in [(0, 0), (5, 200), (1 << 40, -200), (17, 100_000)] {
            let clock = Clock::new(Duration::from_nanos(ahead), drift);
            for passed in [0, 1, 999, 1_000_000, 3_600_000_000_000] {
                let at = Instant::from_nanos(ahead + passed);
                let woken = clock.when(at);
                assert!(clock.at(woken) >= at, "{ahead} {drift} {passed}");
                let before = Instant::from_nanos(woken.nanos().saturating_sub(2));
                assert!(passed < 2 || clock.at(before) < at, "{ahead} {drift} {passed}");
            }
        }
    }

    #[test]
    fn a_clock_that_runs_otherwise_neither_jumps_nor_goes_back() {
        let mut clock = Clock::new(Duration::from_secs(9), 200);
        let change = Instant::from_millis(70_000);
        let before = clock.at(change);
        clock.run_otherwise(-50_000, change);
        assert_eq!(clock.at(change), before);
        assert_eq!(before.since(clock.at(change + Duration::from_secs(1))), Duration::from_millis(950));
        let later = before + Duration::from_millis(950);
        assert_eq!(clock.when(later), change + Duration::from_secs(1));
    }
}
