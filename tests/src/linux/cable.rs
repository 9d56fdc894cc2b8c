//! Two hosts on a cable in real time: whatever TCP each of them runs, the same impairments, from one seed.

use core::cmp::Reverse;
use core::time::Duration;
use std::collections::BTreeMap;

use ferry_stack::{Frame, Instant};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};

use crate::link::{self, Passed, Pipe};
use crate::machine::Machine;
use crate::watch::{Sender, Watch};

/// The longest that is waited without looking: nothing that has to be noticed is waited for in vain for longer.
const LOOK: Duration = Duration::from_millis(5);

/// A host at an end of the cable.
#[derive(Debug)]
pub struct End {
    /// The host.
    pub machine: Machine,
    /// Whose TCP it runs.
    pub sender: Sender,
    /// What happens to what it sends.
    pub way: Pipe,
}

/// Two hosts and what is between them.
#[derive(Debug)]
pub struct Cable {
    ends: [End; 2],
    /// Whether super-segments pass as they are.
    whole: bool,
    watch: Watch,
    /// What is under way: when it arrives, in which order it was sent; where it arrives.
    under_way: BTreeMap<(Instant, u64), (usize, Frame)>,
    sent: u64,
    began: Duration,
}

fn monotonic() -> Duration {
    Duration::try_from(clock_gettime(ClockId::Monotonic)).unwrap_or_default()
}

impl Cable {
    /// Two hosts that have done nothing yet.
    pub fn new(ends: [End; 2], whole: bool) -> Self {
        let (watch, under_way) = (Watch::default(), BTreeMap::new());
        Self { ends, whole, watch, under_way, sent: 0, began: monotonic() }
    }

    fn now(&self) -> Instant {
        Instant::ZERO + monotonic().saturating_sub(self.began)
    }

    /// Runs until every client has what it wanted and every service has ended. Panics if that takes longer than
    /// `patience`, which is for what hangs.
    pub fn run(&mut self, patience: Duration) {
        loop {
            let now = self.now();
            self.deliver(now);
            let done = [0, 1].map(|nth| self.settle(nth, now));
            if done == [true, true] {
                return;
            }
            assert!(now <= Instant::ZERO + patience, "everything ends: {self:#?}");
            self.wait(now);
        }
    }

    fn deliver(&mut self, now: Instant) {
        while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= now) {
            let (to, frame) = entry.remove();
            self.ends[to].machine.receive(frame, now);
            self.settle(to, now);
        }
    }

    /// Lets a host do all that it can do now. Whether it has nothing more to do.
    fn settle(&mut self, nth: usize, now: Instant) -> bool {
        let machine = &mut self.ends[nth].machine;
        if machine.stack.deadline(now).is_some_and(|at| at <= now) {
            machine.handle_timeout(now);
        }
        machine.run(now);
        while let Some(frame) = self.ends[nth].machine.stack.transmit(now) {
            self.send(nth, frame, now);
        }
        let machine = &self.ends[nth].machine;
        machine.is_done() && machine.is_idle()
    }

    fn send(&mut self, nth: usize, frame: Frame, now: Instant) {
        let cut = link::finished(frame.clone());
        for frame in &cut {
            if let Err(sentence) = self.watch.see(frame, self.ends[nth].sender) {
                panic!("{sentence}\n  sent by {nth} at {now}");
            }
        }
        for frame in if self.whole { vec![frame] } else { cut } {
            let arrivals = if link::is_discovery(&frame) {
                vec![(now, frame)]
            } else {
                self.ends[nth].way.carry(&frame, now)
            };
            for (at, frame) in arrivals {
                self.sent += 1;
                self.under_way.insert((at, self.sent), (1 - nth, frame));
            }
        }
    }

    fn wait(&mut self, now: Instant) {
        let deadlines = self.ends.iter_mut().filter_map(|end| end.machine.deadline(now));
        let arrival = self.under_way.first_key_value().map(|((at, _), _)| *at);
        let next = deadlines.chain(arrival).map(Reverse).max().map_or(LOOK, |Reverse(at)| at.until(now));
        let pause = Timespec::try_from(next.min(LOOK)).expect("a short time");
        let stacks = self.ends.iter().filter_map(|end| end.machine.stack.descriptor());
        let mut waited: Vec<_> = stacks.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        poll(&mut waited, Some(&pause)).expect("a TAP can be waited for");
    }

    /// The hosts.
    pub fn machines(&self) -> [&Machine; 2] {
        self.ends.each_ref().map(|end| &end.machine)
    }

    /// What happened to frames, in both directions together.
    pub fn passed(&self) -> Passed {
        let mut sum = self.ends[0].way.passed;
        sum += self.ends[1].way.passed;
        sum
    }

    /// Segments with octets that were sent again.
    pub fn repeated(&self) -> u64 {
        self.watch.repeated
    }
}
