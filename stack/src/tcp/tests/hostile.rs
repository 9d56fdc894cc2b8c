//! Two control blocks over a channel that loses, duplicates, reorders, splits and merges, while both sides write,
//! read, finish, and move to other hosts at random moments.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::harness::{flow, opening, reversed};
use super::pair::{cut, pattern};
use crate::tcp::cc::Kind;
use crate::tcp::{Config, Control, Path, Reason, Segment, State, Tcb};
use crate::{Instant, Seq};

#[derive(Clone, Debug)]
enum Op {
    Write(usize, usize),
    Read(usize, usize),
    Finish(usize),
    Close(usize),
    Abort(usize),
    Move(usize, u64),
    TooBig(usize, u16),
    Wait(u64),
}

#[derive(Clone, Debug)]
struct Plan {
    configs: [Config; 2],
    isns: [u32; 2],
    path: Path,
    /// Of 100 segments: lost, duplicated, delayed, split, merged.
    faults: [u8; 5],
    seed: u64,
    ops: Vec<Op>,
}

fn config() -> impl Strategy<Value = Config> {
    let switches = any::<[bool; 6]>();
    (switches, 300u16..1440, 1u32..40_000, 600u32..150_000, 1u8..12).prop_map(
        |([sack, timestamps, window_scaling, nodelay, cubic, _], mss, send, receive, initial_window)| {
            Config {
                mss,
                send_buffer: send,
                receive_buffer: receive,
                window_scaling,
                timestamps,
                sack,
                nodelay,
                initial_window,
                syn_retries: 200,
                retries: 200,
                max_rto: Duration::from_secs(4),
                congestion: if cubic { Kind::Cubic } else { Kind::NewReno },
                ..Config::default()
            }
        },
    )
}

fn op(gentle: bool) -> impl Strategy<Value = Op> {
    let end = 0usize..2;
    let harsh = u32::from(!gentle);
    prop_oneof![
        12 => (end.clone(), 1usize..30_000).prop_map(|(end, len)| Op::Write(end, len)),
        12 => (end.clone(), 1usize..30_000).prop_map(|(end, len)| Op::Read(end, len)),
        14 => (0u64..300).prop_map(Op::Wait),
        8 => (end.clone(), 0u64..60).prop_map(|(end, gap)| Op::Move(end, gap)),
        2 => (end.clone(), 1200u16..1500).prop_map(|(end, mtu)| Op::TooBig(end, mtu)),
        1 => end.clone().prop_map(Op::Finish),
        harsh => end.clone().prop_map(Op::Close),
        harsh => end.prop_map(Op::Abort),
    ]
}

fn plan(gentle: bool) -> impl Strategy<Value = Plan> {
    let isn = prop_oneof![Just(u32::MAX - 9000), any::<u32>()];
    let path = (prop_oneof![Just(0u16), Just(40u16)], any::<bool>())
        .prop_map(|(overhead, segmentation)| Path { overhead, segmentation });
    let faults = prop_oneof![Just([0; 5]), [0u8..25, 0u8..20, 0u8..60, 0u8..30, 0u8..60]];
    let ops = prop::collection::vec(op(gentle), 0..60);
    ([config(), config()], [isn.clone(), isn], path, faults, any::<u64>(), ops)
        .prop_map(|(configs, isns, path, faults, seed, ops)| Plan { configs, isns, path, faults, seed, ops })
}

/// What may never go back in what one side sends.
#[derive(Clone, Copy, Debug, Default)]
struct Edges {
    ack: Option<Seq>,
    window: Option<Seq>,
    value: Option<u32>,
}

struct World {
    plan: Plan,
    ends: [Option<Tcb>; 2],
    /// What each host's clock is ahead of the world's: it changes when the connection moves.
    ahead: [Duration; 2],
    edges: [Edges; 2],
    written: [usize; 2],
    read: [usize; 2],
    flying: BTreeMap<(Instant, u64), (usize, Segment)>,
    serial: u64,
    now: Instant,
    random: u64,
}

impl World {
    fn new(plan: Plan) -> Self {
        let mut world = Self {
            ends: [None, None],
            ahead: [Duration::from_secs(3), Duration::ZERO],
            edges: [Edges::default(); 2],
            written: [0; 2],
            read: [0; 2],
            flying: BTreeMap::new(),
            serial: 0,
            now: Instant::from_millis(9_000_000),
            random: plan.seed | 1,
            plan,
        };
        let first = opening(world.plan.configs[0], Seq(world.plan.isns[0]));
        world.ends[0] = Some(Tcb::connect(flow(), &first, world.local(0)));
        world
    }

    fn local(&self, end: usize) -> Instant {
        self.now + self.ahead[end]
    }

    /// xorshift: the seed is the whole story.
    fn draw(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % below
    }

    fn chance(&mut self, percent: u8) -> bool {
        self.draw(100) < u64::from(percent)
    }

    fn apply(&mut self, op: &Op) {
        match *op {
            Op::Write(end, len) => self.write(end, len),
            Op::Read(end, len) => self.read(end, len),
            Op::Wait(millis) => self.run(millis),
            Op::Move(end, gap) => self.relocate(end, gap),
            // In SYN-SENT it would drop what is queued (RFC 9293 section 3.10.4).
            Op::Finish(end) => self.with(end, |tcb, _| {
                if tcb.state != State::SynSent {
                    tcb.finish();
                }
            }),
            Op::Close(end) => self.with(end, Tcb::close),
            Op::Abort(end) => self.with(end, |tcb, _| tcb.abort()),
            Op::TooBig(end, mtu) => self.with(end, |tcb, now| tcb.packet_too_big(mtu, tcb.snd.una, now)),
        }
        self.transmit();
    }

    fn with(&mut self, end: usize, act: impl FnOnce(&mut Tcb, Instant)) {
        let now = self.local(end);
        if let Some(tcb) = &mut self.ends[end] {
            act(tcb, now);
            tcb.check().map_err(|broken| (broken, tcb.state)).unwrap();
        }
    }

    fn write(&mut self, end: usize, len: usize) {
        let Some(tcb) = &mut self.ends[end] else { return };
        let room = tcb.writable().min(len);
        let rest = tcb.write(pattern(self.written[end], len));
        assert_eq!(rest.len(), len - room);
        self.written[end] += room;
    }

    fn read(&mut self, end: usize, len: usize) {
        let Some(tcb) = &mut self.ends[end] else { return };
        let octets = tcb.read(len);
        assert_eq!(octets, pattern(self.read[end], octets.len()), "the stream is the one that was written");
        self.read[end] += octets.len();
        assert!(self.read[end] <= self.written[1 - end]);
    }

    /// Freezes the connection, lets it travel as octets, and wakes it on a host with another clock. What arrives
    /// meanwhile is lost.
    fn relocate(&mut self, end: usize, gap: u64) {
        let now = self.local(end);
        let Some(tcb) = self.ends[end].take() else { return };
        let state = tcb.state;
        let frozen = tcb.freeze(now);
        let octets = postcard::to_allocvec(&frozen).unwrap();
        let back: Tcb<Duration> = postcard::from_bytes(&octets).unwrap();
        assert_eq!(back, frozen);
        back.check().unwrap();
        let lost: Vec<_> =
            self.flying.iter().filter(|(_, (to, _))| *to == end).map(|(key, _)| *key).collect();
        self.flying.retain(|key, _| !lost.contains(key) || key.0 > self.now + Duration::from_millis(gap));
        self.run_others(gap, end);
        self.ahead[end] = Duration::from_millis(self.draw(10_000_000));
        let mut tcb = back.thaw(self.local(end));
        assert_eq!(tcb.state.to_string(), state.to_string());
        tcb.kick();
        self.ends[end] = Some(tcb);
    }

    fn run_others(&mut self, millis: u64, away: usize) {
        let until = self.now + Duration::from_millis(millis);
        while let Some(at) = self.next().filter(|at| *at <= until) {
            self.now = at;
            self.step(Some(away));
        }
        self.now = until;
    }

    fn run(&mut self, millis: u64) {
        let until = self.now + Duration::from_millis(millis);
        let mut steps = 0;
        while let Some(at) = self.next().filter(|at| *at <= until) {
            steps += 1;
            assert!(steps < 200_000, "it comes to rest: {:?}", self.brief());
            self.now = at;
            self.step(None);
        }
        self.now = until;
    }

    fn next(&self) -> Option<Instant> {
        let flying = self.flying.first_key_value().map(|(key, _)| key.0);
        let deadlines = self.ends.iter().zip(self.ahead).filter_map(|(tcb, ahead)| {
            let at = tcb.as_ref()?.deadline()?;
            Some(Instant::from_nanos(at.nanos().saturating_sub(u64::try_from(ahead.as_nanos()).unwrap())))
        });
        deadlines.chain(flying).min().map(|at| at.max(self.now))
    }

    fn step(&mut self, away: Option<usize>) {
        while let Some(entry) = self.flying.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (to, segment) = entry.remove();
            if away != Some(to) {
                let segment = self.merged(to, segment);
                self.deliver(to, &segment);
                self.transmit();
            }
        }
        for end in [0, 1] {
            self.with(end, |tcb, now| {
                if tcb.deadline().is_some_and(|at| at <= now) {
                    tcb.handle_timeout(now);
                }
            });
        }
        self.transmit();
    }

    /// What GRO does: neighbours that arrive together become one.
    fn merged(&mut self, to: usize, mut segment: Segment) -> Segment {
        let merge = self.plan.faults[4];
        while !segment.payload.is_empty() && segment.control.is_none() && self.chance(merge) {
            let Some((key, (_, other))) = self.flying.iter().find(|(_, (end, _))| *end == to) else { break };
            let fits = other.seq == segment.end() && other.ack == segment.ack && !other.payload.is_empty();
            if !fits || segment.payload.len() + other.payload.len() > 60_000 || other.control.is_some() {
                break;
            }
            segment.gso = segment.gso.or(u16::try_from(segment.payload.len()).ok());
            segment.payload = [&segment.payload[..], &other.payload[..]].concat().into();
            let key = *key;
            self.flying.remove(&key);
        }
        segment
    }

    fn deliver(&mut self, to: usize, segment: &Segment) {
        let now = self.local(to);
        let Some(tcb) = &mut self.ends[to] else {
            if segment.is_syn() && to == 1 {
                let opening = opening(self.plan.configs[1], Seq(self.plan.isns[1]));
                self.ends[1] = Some(Tcb::accept(reversed(flow()), segment, &opening, now));
            }
            return;
        };
        if tcb.state.is_closed() && !segment.is_rst() {
            // Nobody is there any more: RFC 9293 section 3.10.7.1.
            let reset = Segment::bare(segment.ack.unwrap_or_default(), None, Some(Control::Rst));
            self.fly(1 - to, reset, 1);
            return;
        }
        let _: Result<(), Reason> = tcb.receive(segment, now);
        tcb.check().map_err(|broken| (broken, tcb.state)).unwrap();
    }

    fn transmit(&mut self) {
        for from in [0, 1] {
            let (now, path) = (self.local(from), self.plan.path);
            let mut burst = 0;
            while let Some(segment) = self.ends[from].as_mut().and_then(|tcb| tcb.poll_transmit(path, now)) {
                burst += 1;
                assert!(burst < 5_000, "it sends for ever: {:?}", self.brief());
                self.never_goes_back(from, &segment);
                for piece in cut(&segment) {
                    self.is_within_bounds(from, &piece);
                    self.launch(1 - from, &piece);
                }
            }
            self.with(from, |_, _| ());
        }
    }

    fn never_goes_back(&mut self, from: usize, segment: &Segment) {
        let Some(tcb) = &self.ends[from] else { return };
        let shift = if segment.is_syn() { 0 } else { tcb.rcv.wscale };
        let edges = &mut self.edges[from];
        if let Some(ack) = segment.ack {
            let window = ack + (usize::from(segment.window) << shift);
            assert!(edges.ack.is_none_or(|old| old.at_or_before(ack)), "acknowledgements never go back");
            // A SYN that is repeated cannot say more than 65535, even if an acknowledgement meanwhile has.
            let kept = segment.is_syn() || edges.window.is_none_or(|old| old.at_or_before(window));
            assert!(kept, "the window never shrinks");
            (edges.ack, edges.window) =
                (Some(ack), Some(edges.window.map_or(window, |old| old.later(window))));
        }
        if let Some(ours) = segment.options.timestamps {
            let rises = edges.value.is_none_or(|old| Seq(old).at_or_before(Seq(ours.value)));
            assert!(rises, "TSval never goes back");
            edges.value = Some(ours.value);
        }
    }

    fn is_within_bounds(&self, from: usize, piece: &Segment) {
        let Some(tcb) = &self.ends[from] else { return };
        let size = 60 + piece.options.wire_len() + piece.payload.len();
        assert!(
            size + usize::from(self.plan.path.overhead) <= usize::from(tcb.snd.path_mtu),
            "fits the path"
        );
        let limit = usize::from(self.plan.configs[1 - from].mss) + 60;
        assert!(piece.payload.is_empty() || size <= limit, "fits the other side");
        let edge = self.edges[1 - from].window;
        let beyond = edge.is_some_and(|edge| piece.end().after(edge));
        assert!(piece.is_syn() || piece.is_rst() || !beyond, "stays in the window");
    }

    fn launch(&mut self, to: usize, segment: &Segment) {
        let [lost, doubled, ..] = self.plan.faults;
        if self.chance(lost) {
            return;
        }
        let copies = 1 + u8::from(self.chance(doubled));
        for _ in 0..copies {
            let [_, _, delayed, split, _] = self.plan.faults;
            let late = if self.chance(delayed) { self.draw(40) } else { 0 };
            if segment.payload.len() > 1 && self.chance(split) {
                let at = 1 + usize::try_from(self.draw(segment.payload.len() as u64 - 1)).unwrap();
                let first =
                    Segment { payload: segment.payload.slice(..at), control: None, ..segment.clone() };
                let second = Segment {
                    seq: segment.seq + at,
                    payload: segment.payload.slice(at..),
                    ..segment.clone()
                };
                self.fly(to, first, 20 + late);
                self.fly(to, second, 20);
            } else {
                self.fly(to, segment.clone(), 20 + late);
            }
        }
    }

    fn fly(&mut self, to: usize, segment: Segment, millis: u64) {
        self.serial += 1;
        self.flying.insert((self.now + Duration::from_millis(millis), self.serial), (to, segment));
    }

    /// Without faults, with readers that read: everything that was written must arrive.
    fn settle(&mut self) {
        self.plan.faults = [0; 5];
        for _ in 0..400 {
            self.run(250);
            for end in [0, 1] {
                self.read_all(end);
            }
            self.transmit();
        }
    }

    fn read_all(&mut self, end: usize) {
        loop {
            let before = self.read[end];
            self.read(end, usize::MAX);
            if self.read[end] == before {
                break;
            }
        }
    }

    fn brief(&self) -> Vec<String> {
        self.ends.iter().flatten().map(brief).collect()
    }

    fn states(&self) -> [String; 2] {
        [0, 1].map(|end| self.ends[end].as_ref().map_or_else(String::new, |tcb| tcb.state.to_string()))
    }
}

/// What matters of a control block when a test fails: not its octets.
fn brief(tcb: &Tcb) -> String {
    let Tcb { state, snd, rcv, timers, recovery, pending, .. } = tcb;
    let sent: Vec<_> = snd.sent.iter().map(|sent| (sent.seq, sent.len, sent.mark)).collect();
    format!(
        "{state} una {} nxt {} fin {:?} wnd {} wl2 {} queue {} {sent:?} | nxt {} adv {} unread {} islands {} fin {:?} | \
         {timers:?} {recovery:?} {pending:?}",
        snd.una,
        snd.nxt,
        snd.fin,
        snd.wnd,
        snd.wl2,
        snd.queue.len(),
        rcv.nxt,
        rcv.adv,
        rcv.unread.len(),
        rcv.reassembly.len(),
        rcv.fin,
    )
}

fn run(plan: &Plan) -> World {
    let mut world = World::new(plan.clone());
    world.transmit();
    for op in &plan.ops {
        world.apply(op);
    }
    world.settle();
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn what_is_written_arrives_whatever_the_channel_does(plan in plan(true)) {
        let mut world = run(&plan);
        for end in [0, 1] {
            prop_assert_eq!(world.read[1 - end], world.written[end], "all octets: {:?}", world.brief());
            world.with(end, |tcb, _| tcb.finish());
        }
        // An end that finished before it was connected is gone; the other never came.
        if world.ends.iter().all(|end| end.as_ref().is_some_and(|tcb| !tcb.state.is_closed())) {
            world.transmit();
            world.run(2_000);
            let over = world.states().iter().all(|state| state == "TIME-WAIT" || state == "CLOSED");
            prop_assert!(over, "{:?}", world.brief());
        }
        world.run(100_000);
        for tcb in world.ends.iter().flatten() {
            prop_assert!(tcb.state.is_closed(), "{:?}", brief(tcb));
        }
    }

    #[test]
    fn whatever_both_sides_do_it_ends(plan in plan(false)) {
        let mut world = run(&plan);
        for end in [0, 1] {
            world.with(end, Tcb::close);
        }
        world.transmit();
        world.run(200_000);
        for tcb in world.ends.iter().flatten() {
            prop_assert!(matches!(tcb.state, State::Closed(_)), "{:?}", brief(tcb));
        }
    }
}

#[test]
fn the_pattern_repeats_late() {
    let octets: Bytes = pattern(0, 2000);
    assert_ne!(octets.slice(..256), octets.slice(256..512));
    assert_eq!(pattern(256, 10), octets.slice(256..266));
}
