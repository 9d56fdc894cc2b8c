//! Two control blocks and a network between them that loses, repeats and reorders as the octets say. Every octet
//! that is read is the one that was written, and once the network behaves everything arrives.

use core::time::Duration;

use bytes::Bytes;
use ferry_stack::tcp::{Ending, Flow, Path, Segment, State, Tcb};
use ferry_stack::{Instant, Seq};

use super::feed::Feed;
use super::states::{config, flow, opening};

/// How long a segment is on its way, and how many may be.
const DELAY: Duration = Duration::from_millis(20);
const FLYING: usize = 2000;
/// Octets that one side writes at most.
const MOST: usize = 60_000;

struct End {
    tcb: Tcb,
    /// How far its clock is ahead of the world's.
    ahead: Duration,
    written: usize,
    read: usize,
}

struct Pair {
    ends: [Option<End>; 2],
    /// What is on its way: when it arrives, to whom.
    flying: Vec<(Instant, usize, Segment)>,
    now: Instant,
    bits: u8,
}

/// Two ends that are opened, used, moved and closed in any order.
pub fn pair(octets: &[u8]) {
    let mut feed = Feed::new(octets);
    let (Some(a), Some(b)) = (feed.byte(), feed.byte()) else { return };
    let now = Instant::from_millis(1_000_000);
    let tcb = Tcb::connect(flow(), &opening(config(a & 0x7f), Seq(u32::MAX - 5000)), now);
    let first = End { tcb, ahead: Duration::ZERO, written: 0, read: 0 };
    let mut pair = Pair { ends: [Some(first), None], flying: Vec::new(), now, bits: b & 0x7f };
    while pair.act(&mut feed).is_some() {
        pair.transmit();
    }
    pair.calm_down();
}

/// The octet at this place of what the end `from` writes.
fn pattern(from: usize, at: usize) -> u8 {
    let mixed = (at.wrapping_mul(0x9e37_79b9) >> 11) ^ (at >> 3) ^ (from * 0x55);
    u8::try_from(mixed & 0xff).unwrap_or(0)
}

impl End {
    fn clock(&self, now: Instant) -> Instant {
        now + self.ahead
    }

    fn write(&mut self, own: usize, len: usize) {
        let octets: Bytes =
            (self.written..(self.written + len).min(MOST)).map(|at| pattern(own, at)).collect();
        let offered = octets.len();
        self.written += offered - self.tcb.write(octets).len();
    }

    fn read(&mut self, own: usize, max: usize) {
        let until = self.read.saturating_add(max);
        while self.read < until && self.tcb.readable() > 0 {
            for octet in self.tcb.read(until - self.read) {
                assert_eq!(octet, pattern(1 - own, self.read), "octet {} is another", self.read);
                self.read += 1;
            }
        }
    }

    /// Writes no more. Before there is a connection that would be to give up.
    fn finish(&mut self) {
        if self.tcb.state != State::SynSent {
            self.tcb.finish();
        }
    }

    /// The connection goes to another host, whose clock is elsewhere.
    fn hand_over(&mut self, now: Instant, ahead: u16) {
        let frozen = self.tcb.clone().freeze(self.clock(now));
        assert_eq!(frozen.check(), Ok(()));
        self.ahead = Duration::from_millis(u64::from(ahead) * 100);
        self.tcb = frozen.thaw(self.clock(now));
        self.tcb.kick();
    }
}

impl Pair {
    fn act(&mut self, feed: &mut Feed) -> Option<()> {
        let act = feed.byte()?;
        let own = usize::from(act & 1);
        let now = self.now;
        match (act >> 1) % 16 {
            0..=2 => {
                let len = usize::from(feed.word()? % 8_000);
                self.with(own, |end| end.write(own, len));
            }
            3 | 4 => {
                let max = usize::from(feed.word()?);
                self.with(own, |end| end.read(own, max));
            }
            5 => self.pass(Duration::from_millis(feed.byte()?.into())),
            6 | 7 => self.pass(DELAY),
            8 => self.pass(Duration::from_millis(feed.word()?.into())),
            // The network loses, repeats, or keeps one for longer.
            9 => drop(self.pick(feed.byte()?).map(|index| self.flying.remove(index))),
            10 => {
                let index = self.pick(feed.byte()?);
                let copy = index.map(|index| self.flying[index].clone());
                self.flying.extend(copy);
            }
            11 => {
                let later = Duration::from_millis(u64::from(feed.byte()?) * 4);
                if let Some(index) = self.pick(feed.byte()?) {
                    self.flying[index].0 += later;
                }
            }
            12 => {
                let ahead = feed.word()?;
                self.with(own, |end| end.hand_over(now, ahead));
            }
            13 if feed.byte()? == 0 => self.flying.clear(),
            14 if feed.byte()? < 32 => self.with(own, End::finish),
            15 => {
                let mtu = 1280 + feed.word()? % 256;
                self.with(own, |end| end.tcb.packet_too_big(mtu, end.tcb.snd.una, now));
            }
            _ => {}
        }
        Some(())
    }

    fn with(&mut self, own: usize, act: impl FnOnce(&mut End)) {
        if let Some(end) = &mut self.ends[own] {
            act(end);
        }
    }

    fn pick(&self, which: u8) -> Option<usize> {
        usize::from(which).checked_rem(self.flying.len())
    }

    /// The next moment at which something happens.
    fn next(&self) -> Option<Instant> {
        let timers = self.ends.iter().flatten().filter_map(|end| {
            let left = end.tcb.deadline()?.until(end.clock(self.now));
            Some(self.now + left)
        });
        self.flying.iter().map(|flying| flying.0).chain(timers).min()
    }

    fn pass(&mut self, span: Duration) {
        let until = self.now + span;
        self.transmit();
        for _ in 0..10_000 {
            let Some(at) = self.next().filter(|at| *at <= until) else { break };
            self.step(at);
        }
        self.now = until;
    }

    fn step(&mut self, at: Instant) {
        self.now = at.max(self.now);
        let now = self.now;
        let (due, flying) = std::mem::take(&mut self.flying).into_iter().partition(|flying| flying.0 <= now);
        self.flying = flying;
        for (_, to, segment) in due {
            self.deliver(to, &segment);
            self.transmit();
        }
        for end in self.ends.iter_mut().flatten() {
            let clock = end.clock(now);
            if end.tcb.deadline().is_some_and(|at| at <= clock) {
                end.tcb.handle_timeout(clock);
            }
        }
        self.transmit();
    }

    fn deliver(&mut self, to: usize, segment: &Segment) {
        let now = self.now;
        match &mut self.ends[to] {
            Some(end) => {
                let clock = end.clock(now);
                let _ = end.tcb.receive(segment, clock);
            }
            None if segment.is_syn() => {
                let there = Flow { local: flow().remote, remote: flow().local };
                let tcb = Tcb::accept(there, segment, &opening(config(self.bits), Seq(77)), now);
                self.ends[to] = Some(End { tcb, ahead: Duration::ZERO, written: 0, read: 0 });
            }
            None => {}
        }
    }

    fn transmit(&mut self) {
        for (own, end) in self.ends.iter_mut().enumerate() {
            let Some(end) = end else { continue };
            let clock = end.clock(self.now);
            let mut burst = 0;
            while let Some(segment) = end.tcb.poll_transmit(Path::default(), clock) {
                burst += 1;
                assert!(burst < 10_000, "it sends for ever");
                assert!(!segment.is_rst(), "a RST although nobody gave up: {:?}", end.tcb.state);
                if self.flying.len() < FLYING {
                    self.flying.push((self.now + DELAY, 1 - own, segment));
                }
            }
            assert_eq!(end.tcb.check(), Ok(()), "in {:?}", end.tcb.state);
        }
    }

    /// Whether an end gave up, as after too many losses in a row it may.
    fn gave_up(&self) -> bool {
        let over = |end: &End| matches!(end.tcb.state, State::Closed(Ending::TimedOut));
        self.ends.iter().flatten().any(over)
    }

    /// The network loses nothing any more, and everybody reads: everything arrives.
    fn calm_down(&mut self) {
        for _ in 0..4000 {
            self.transmit();
            for own in [0, 1] {
                self.with(own, |end| end.read(own, usize::MAX));
            }
            self.transmit();
            let Some(at) = self.next().filter(|_| !self.settled()) else { break };
            self.step(at);
        }
        if self.gave_up() {
            return;
        }
        assert!(self.settled(), "something does not arrive although nothing is lost");
    }

    /// Whether everything that was written was read.
    fn settled(&self) -> bool {
        match &self.ends {
            [Some(a), Some(b)] => a.read == b.written && b.read == a.written,
            // Nothing can have been written: nobody is there.
            _ => false,
        }
    }
}
