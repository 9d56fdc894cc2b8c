//! A copy follows its connection, whatever that does and whichever deltas are lost.

use alloc::collections::BTreeMap;
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use ferry_stack::tcp::{Config, Flow, Opening, Path, Segment, Tcb};
use ferry_stack::{Instant, Seq};
use proptest::prelude::*;

use super::flow;
use crate::{Copy, Delta, Epoch, Mirror, Snapshot, Unfit, Version};

/// A connection between two hosts, of which the second is copied. Segments wait on the way, to be lost, doubled and
/// reordered.
struct Source {
    client: Tcb,
    server: Tcb,
    to_client: Vec<Segment>,
    to_server: Vec<Segment>,
    session: Bytes,
    written: u8,
    now: Instant,
}

/// What may happen at a source.
#[derive(Clone, Debug)]
enum Act {
    /// The client or the server (`true`) writes so many octets.
    Write(bool, usize),
    /// The server's application reads at most so many.
    Read(usize),
    /// Of what is on its way to the client or to the server, the one at this index arrives, perhaps leaving a copy behind.
    Arrive(bool, prop::sample::Index, bool),
    /// All of it arrives.
    ArriveAll,
    /// One is lost.
    Lose(bool, prop::sample::Index),
    /// The client or the server finishes.
    Finish(bool),
    /// The session's state changes.
    Session(u8),
    /// Time passes; milliseconds.
    Pass(u64),
    /// A delta is made: whether it arrives at once, whether it arrives (again) later.
    Delta(bool, bool),
    /// A delta that was kept back arrives.
    Late(prop::sample::Index),
    /// The answer "it lacks the base" arrives (else it is lost).
    Hear(bool),
}

fn act() -> impl Strategy<Value = Act> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        3 => (any::<bool>(), 1usize..6000).prop_map(|(who, len)| Act::Write(who, len)),
        2 => (1usize..4000).prop_map(Act::Read),
        4 => (any::<bool>(), index(), any::<bool>()).prop_map(|(to, at, again)| Act::Arrive(to, at, again)),
        2 => Just(Act::ArriveAll),
        2 => (any::<bool>(), index()).prop_map(|(to, at)| Act::Lose(to, at)),
        1 => any::<bool>().prop_map(Act::Finish),
        1 => any::<u8>().prop_map(Act::Session),
        1 => (1u64..400).prop_map(Act::Pass),
        6 => (prop::bool::weighted(0.7), prop::bool::weighted(0.3)).prop_map(|(now, later)| Act::Delta(now, later)),
        1 => index().prop_map(Act::Late),
        1 => any::<bool>().prop_map(Act::Hear),
    ]
}

impl Source {
    fn new(iss: [u32; 2]) -> Self {
        let now = Instant::from_millis(5_000);
        let there = Flow { local: flow().remote, remote: flow().local };
        let opening = |iss| Opening {
            config: Config { receive_buffer: 40_000, send_buffer: 40_000, ..Config::default() }.into(),
            iss: Seq(iss),
            first_timestamp: 77,
            flow_label: 5,
            path_mtu: 1500,
        };
        let mut client = Tcb::connect(there, &opening(iss[0]), now);
        let syn = client.poll_transmit(Path::default(), now).unwrap();
        let server = Tcb::accept(flow(), &syn, &opening(iss[1]), now);
        let (to_client, to_server) = (Vec::new(), Vec::new());
        Self { client, server, to_client, to_server, session: Bytes::new(), written: 0, now }
    }

    fn send(&mut self) {
        let now = self.now;
        let from = |tcb: &mut Tcb| {
            core::iter::from_fn(|| tcb.poll_transmit(Path::default(), now)).take(100).collect::<Vec<_>>()
        };
        self.to_server.extend(from(&mut self.client));
        self.to_client.extend(from(&mut self.server));
    }

    fn act(&mut self, act: &Act) {
        let now = self.now;
        match act {
            Act::Write(who, len) => {
                self.written = self.written.wrapping_add(1);
                let octets =
                    (0..*len).map(|at| self.written.wrapping_add(at.to_le_bytes()[0])).collect::<Vec<_>>();
                drop(if *who { &mut self.server } else { &mut self.client }.write(octets.into()));
            }
            Act::Read(max) => drop(self.server.read(*max)),
            Act::Arrive(to_server, at, again) => {
                let (way, tcb) = self.way(*to_server);
                if !way.is_empty() {
                    let at = at.index(way.len());
                    let segment = if *again { way[at].clone() } else { way.remove(at) };
                    let _ = tcb.receive(&segment, now);
                }
            }
            Act::ArriveAll => {
                for to_server in [true, false] {
                    let (way, _) = self.way(to_server);
                    for segment in core::mem::take(way) {
                        let _ = self.way(to_server).1.receive(&segment, now);
                    }
                }
            }
            Act::Lose(to_server, at) => {
                let (way, _) = self.way(*to_server);
                if !way.is_empty() {
                    way.remove(at.index(way.len()));
                }
            }
            Act::Finish(who) => if *who { &mut self.server } else { &mut self.client }.finish(),
            Act::Session(state) => self.session = Bytes::copy_from_slice(&[*state; 9]),
            Act::Pass(millis) => {
                self.now += Duration::from_millis(*millis);
                self.client.handle_timeout(self.now);
                self.server.handle_timeout(self.now);
            }
            Act::Delta(..) | Act::Late(_) | Act::Hear(_) => {}
        }
        self.send();
    }

    fn way(&mut self, to_server: bool) -> (&mut Vec<Segment>, &mut Tcb) {
        if to_server {
            (&mut self.to_server, &mut self.server)
        } else {
            (&mut self.to_client, &mut self.client)
        }
    }

    fn snapshot(&self) -> Snapshot {
        Snapshot {
            epoch: Epoch::nth(3),
            service: "echo".into(),
            tcb: self.server.frozen_copy(self.now),
            session: self.session.clone(),
            wake: Some(Duration::from_millis(self.session.len() as u64)),
            client: Bytes::copy_from_slice(&self.session[..self.session.len() / 3]),
        }
    }
}

/// The owner's mirror, the copy, and the deltas on their way between them.
#[derive(Default)]
struct Following {
    mirror: Mirror,
    copy: Copy,
    snapshots: BTreeMap<u64, Snapshot>,
    late: Vec<Bytes>,
    lacking: Option<u64>,
    /// Octets of payload that were sent in deltas.
    sent: usize,
}

impl Following {
    fn delta(&mut self, snapshot: Snapshot) -> Bytes {
        let delta = self.mirror.delta(snapshot.clone());
        assert_eq!(delta.version, Version { epoch: Epoch::nth(3), number: self.mirror.version() });
        self.snapshots.insert(delta.version.number, snapshot);
        self.sent += delta.fresh();
        delta.encode().unwrap()
    }

    /// What says a version equals the connection at that version; what says nothing new has changed nothing.
    fn arrives(&mut self, octets: &Bytes) {
        let delta = Delta::decode(octets).unwrap();
        let (number, before) = (delta.version.number, self.copy.version());
        match self.copy.apply(delta) {
            Ok(version) => assert_eq!(version.number, before.number.max(number)),
            Err(Unfit::Lacks { have }) => {
                assert_eq!(have, before);
                self.lacking = Some(number);
            }
            Err(Unfit::Refused(why)) => panic!("an honest delta is refused: {why}"),
        }
        if !self.copy.is_empty() {
            let number = self.copy.version().number;
            assert_eq!(self.copy.snapshot().unwrap(), self.snapshots[&number], "version {number}");
            assert_eq!(self.copy.len(), self.snapshots[&number].tcb.extents().len());
        }
    }

    fn act(&mut self, act: &Act, source: &Source) {
        match act {
            Act::Delta(now, later) => {
                let octets = self.delta(source.snapshot());
                if *now {
                    self.arrives(&octets);
                }
                if *later {
                    self.late.push(octets);
                }
            }
            Act::Late(at) if !self.late.is_empty() => {
                let octets = self.late.remove(at.index(self.late.len()));
                self.arrives(&octets);
            }
            Act::Hear(heard) => {
                if let Some(number) = self.lacking.take().filter(|_| *heard) {
                    self.mirror.lacks(number);
                }
            }
            _ => {}
        }
    }
}

proptest! {
    #[test]
    fn a_copy_is_what_the_connection_was_at_its_version_whatever_happened(
        iss in any::<[u32; 2]>(),
        acts in prop::collection::vec(act(), 1..120),
    ) {
        let (mut source, mut following) = (Source::new(iss), Following::default());
        source.send();
        for act in acts {
            source.act(&act);
            following.act(&act, &source);
        }
        // However far they have come apart, it takes no more than being told.
        following.mirror.restart();
        let octets = following.delta(source.snapshot());
        following.arrives(&octets);
        prop_assert_eq!(following.copy.version().number, following.mirror.version());
    }
}

/// An established connection.
fn open() -> Source {
    let mut source = Source::new([u32::MAX - 3000, 7]);
    for _ in 0..4 {
        source.act(&Act::ArriveAll);
    }
    source
}

#[test]
fn a_delta_carries_only_what_the_copy_lacks() {
    let (mut source, mut following) = (open(), Following::default());
    let mut step = |source: &mut Source, acts: &[Act], fresh: usize, name: &str| {
        for act in acts {
            source.act(act);
        }
        assert_eq!(following.mirror.missing(&source.server), fresh, "{name}");
        let octets = following.delta(source.snapshot());
        assert_eq!(Delta::decode(&octets).unwrap().fresh(), fresh, "{name}");
        following.arrives(&octets);
        assert_eq!(following.copy.version().number, following.mirror.version(), "{name}");
    };
    step(&mut source, &[Act::Write(true, 5000)], 5000, "all of it at first");
    step(&mut source, &[], 0, "nothing has happened");
    step(&mut source, &[Act::Write(true, 700)], 700, "the tail of what was written");
    step(&mut source, &[Act::ArriveAll, Act::ArriveAll], 0, "acknowledged");
    step(&mut source, &[Act::Session(5)], 0, "another session");
    step(&mut source, &[Act::Write(false, 900), Act::ArriveAll], 900, "received");
    step(&mut source, &[Act::Read(500)], 0, "read in part");
    step(&mut source, &[Act::Finish(false), Act::ArriveAll, Act::Read(5000)], 0, "finished and read");
}

#[test]
fn octets_that_arrived_out_of_order_are_sent_once() {
    let (mut source, mut following) = (open(), Following::default());
    source.act(&Act::Write(false, 4000));
    let lost = source.to_server.remove(0);
    source.act(&Act::ArriveAll);
    let octets = following.delta(source.snapshot());
    following.arrives(&octets);
    let islands = following.sent;
    assert!(islands > 1000 && islands as u64 == source.server.extents().len());
    // The gap is filled, and all of it is in order now.
    let _ = source.server.receive(&lost, source.now);
    let octets = following.delta(source.snapshot());
    following.arrives(&octets);
    assert_eq!(following.sent, islands + lost.payload.len());
    assert_eq!(source.server.readable(), following.sent);
}

#[test]
fn a_delta_after_one_that_was_lost_says_so_until_a_whole_one_comes() {
    let (source, mut following) = (open(), Following::default());
    let first = following.delta(source.snapshot());
    let lost = following.delta(source.snapshot());
    let next = following.delta(source.snapshot());
    following.arrives(&first);
    following.arrives(&next);
    assert_eq!(following.lacking, Some(3));
    assert!(following.mirror.lacks(3), "news");
    assert!(!following.mirror.lacks(3), "no news");
    let whole = following.delta(source.snapshot());
    assert!(!following.mirror.lacks(3), "a complaint from before the whole one");
    following.arrives(&lost);
    following.arrives(&whole);
    assert_eq!(following.copy.version().number, 4);
    following.arrives(&next);
    assert_eq!(following.copy.version().number, 4, "what is late changes nothing");
    assert!(!following.mirror.lacks(9), "a complaint about what was never sent");
}

#[test]
fn sequence_numbers_that_went_all_the_way_round_are_not_taken_for_the_old_ones() {
    let (mut source, mut following) = (open(), Following::default());
    source.act(&Act::Write(true, 2000));
    let octets = following.delta(source.snapshot());
    following.arrives(&octets);
    // The same numbers, four gigabytes later.
    source.server.snd.acked_total += 1 << 32;
    assert_eq!(Delta::decode(&following.delta(source.snapshot())).unwrap().fresh(), 2000);
}

#[test]
fn a_copy_pins_no_large_buffer_for_a_few_octets() {
    let (mut source, mut following) = (open(), Following::default());
    source.act(&Act::Write(true, 300));
    let octets = following.delta(source.snapshot());
    following.arrives(&octets);
    assert!(octets.is_unique(), "300 octets keep the message that they came in");
    source.act(&Act::Write(true, 6000));
    let octets = following.delta(source.snapshot());
    following.arrives(&octets);
    assert!(!octets.is_unique(), "6000 octets are shared");
}
