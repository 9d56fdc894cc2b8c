//! Two control blocks and a channel between them, in virtual time.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use bytes::Bytes;

use super::harness::{flow, opening, reversed};
use crate::tcp::{Config, Path, Reason, Segment, State, Tcb};
use crate::{Instant, Seq};

/// Which end.
pub(super) const A: usize = 0;
pub(super) const B: usize = 1;

/// Whether the `nth` segment (from 0) that this end sends arrives.
pub(super) type Filter = Box<dyn FnMut(usize, &Segment) -> bool>;

pub(super) struct Pair {
    pub(super) ends: [Option<Tcb>; 2],
    pub(super) now: Instant,
    pub(super) delay: Duration,
    pub(super) path: Path,
    /// Of what A and B send: how many segments so far, and which arrive.
    pub(super) filters: [Filter; 2],
    pub(super) count: [usize; 2],
    flying: BTreeMap<(Instant, u64), (usize, Segment)>,
    serial: u64,
    accepting: Config,
}

impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").field("now", &self.now).field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl Pair {
    /// A has just begun to open a connection to B; 50 ms lie between them.
    pub(super) fn new(a: Config, b: Config) -> Self {
        let now = Instant::from_millis(1_000_000);
        let tcb = Tcb::connect(flow(), &opening(a, Seq(u32::MAX - 30_000)), now);
        Self {
            ends: [Some(tcb), None],
            now,
            delay: Duration::from_millis(50),
            path: Path::default(),
            filters: [Box::new(|_, _| true), Box::new(|_, _| true)],
            count: [0; 2],
            flying: BTreeMap::new(),
            serial: 0,
            accepting: b,
        }
    }

    /// A and B are connected, and A has sent nothing else.
    pub(super) fn established(a: Config, b: Config) -> Self {
        let mut pair = Self::new(a, b);
        pair.run(200);
        assert!(pair.ends.iter().flatten().all(|tcb| tcb.state == State::Established));
        pair
    }

    pub(super) fn end(&mut self, end: usize) -> &mut Tcb {
        self.ends[end].as_mut().unwrap()
    }

    /// Lets `millis` milliseconds pass.
    pub(super) fn run(&mut self, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        self.transmit();
        while let Some(at) = self.next().filter(|at| *at <= until) {
            self.now = at;
            self.step();
        }
        self.now = until;
    }

    /// Runs until `done` or `millis` have passed. Returns how long it took.
    pub(super) fn run_until(&mut self, millis: u64, mut done: impl FnMut(&mut Self) -> bool) -> Duration {
        let start = self.now;
        let until = start + Duration::from_millis(millis);
        self.transmit();
        while !done(self) {
            let at = self.next().filter(|at| *at <= until).expect("nothing more happens in time");
            self.now = at;
            self.step();
        }
        start.since(self.now)
    }

    fn next(&self) -> Option<Instant> {
        let flying = self.flying.first_key_value().map(|(key, _)| key.0);
        let deadlines = self.ends.iter().flatten().filter_map(Tcb::deadline);
        deadlines.chain(flying).min().map(|at| at.max(self.now))
    }

    fn step(&mut self) {
        while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (to, segment) = entry.remove();
            self.deliver(to, &segment);
            self.transmit();
        }
        for end in self.ends.iter_mut().flatten() {
            if end.deadline().is_some_and(|at| at <= self.now) {
                end.handle_timeout(self.now);
            }
        }
        self.transmit();
    }

    fn deliver(&mut self, to: usize, segment: &Segment) {
        if let Some(tcb) = &mut self.ends[to] {
            let _: Result<(), Reason> = tcb.receive(segment, self.now);
        } else {
            let opening = opening(self.accepting, Seq(77));
            self.ends[to] = Some(Tcb::accept(reversed(flow()), segment, &opening, self.now));
        }
    }

    pub(super) fn transmit(&mut self) {
        for from in [A, B] {
            let Some(tcb) = &mut self.ends[from] else { continue };
            let mut burst = 0;
            while let Some(segment) = tcb.poll_transmit(self.path, self.now) {
                tcb.check().map_err(|broken| (broken, tcb.state)).unwrap();
                burst += 1;
                assert!(burst < 10_000, "it sends for ever");
                for piece in cut(&segment) {
                    let nth = self.count[from];
                    self.count[from] += 1;
                    if (self.filters[from])(nth, &piece) {
                        self.serial += 1;
                        self.flying.insert((self.now + self.delay, self.serial), (1 - from, piece));
                    }
                }
            }
            tcb.check().map_err(|broken| (broken, tcb.state)).unwrap();
        }
    }
}

/// The segments that a super-segment stands for.
pub(super) fn cut(segment: &Segment) -> Vec<Segment> {
    let Some(size) = segment.gso.map(usize::from) else { return alloc::vec![segment.clone()] };
    let len = segment.payload.len();
    let starts = (0..len).step_by(size);
    starts
        .map(|at| {
            let last = at + size >= len;
            Segment {
                seq: segment.seq + at,
                control: segment.control.filter(|_| last),
                push: segment.push && last,
                payload: segment.payload.slice(at..(at + size).min(len)),
                gso: None,
                ..segment.clone()
            }
        })
        .collect()
}

/// `len` octets of a pattern that repeats late, from `at` on.
pub(super) fn pattern(at: usize, len: usize) -> Bytes {
    (at..at + len).map(|n| u8::try_from((n * 7 + n / 251 + n / 65_000) % 256).unwrap()).collect()
}
