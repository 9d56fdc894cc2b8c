//! What the congestion control makes of queues: those that mark, deep ones, and ones that are hardly there. Each is
//! judged by its outcome, and by bounds that follow from the path; and each again while the connection crosses from
//! node to node.

use core::net::{Ipv6Addr, SocketAddrV6};
use core::time::Duration;

use ferry_node::{Optimise, Placement, PlainSource};
use ferry_stack::Instant;
use ferry_stack::tcp::{Config, EcnPolicy, cc};
use ferry_tests::channel::Manner;
use ferry_tests::link::{Passed, Quality};
use ferry_tests::machine::Machine;
use ferry_tests::serve::EXCHANGE;
use ferry_tests::stack::Plain;
use ferry_tests::talk::{Script, Talk};
use ferry_tests::watch::Sender;
use ferry_tests::world::{Attachment, GroupPlan, Operation, SERVICE_ADDRESS, World};

const START: Instant = Instant::from_millis(200);
/// Payload and headers of a full frame.
const FULL: u64 = 1514;

/// How the connection moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moves {
    /// There is one server.
    Never,
    /// From node to node every 100 ms.
    Often,
    /// From node to node after every event.
    Always,
}
use Moves::{Always, Never, Often};

/// A download: the bottleneck is the client's link, on the way down.
#[derive(Clone, Debug)]
struct Download {
    rate: Option<u64>,
    round_trip: Duration,
    queue: u64,
    marking: Option<u64>,
    /// How often, and by how much, a frame is overtaken.
    reordering: (u16, Duration),
    ecn: bool,
    congestion: cc::Kind,
    octets: u64,
}

/// What came of it.
#[derive(Debug)]
struct Outcome {
    /// From the client's SYN on.
    took: Duration,
    /// What the bottleneck did.
    passed: Passed,
    repeated: u64,
    handoffs: u64,
}

impl Download {
    /// Octets that are under way where the bottleneck is just busy.
    fn product(&self) -> u64 {
        self.rate.unwrap_or(0) * u64::try_from(self.round_trip.as_millis()).unwrap_or(0) / 1_000
    }

    fn attachment(&self) -> Attachment {
        let up = Quality { delay: self.round_trip / 2, ..Quality::default() };
        let down = Quality {
            octets_per_second: self.rate,
            queue: self.queue,
            marking: self.marking,
            reordering: self.reordering.0,
            lateness: self.reordering.1,
            ..up.clone()
        };
        Attachment { name: "client".to_owned(), up, down, mtu: 1500, path_mtu: 1500, tap: false }
    }

    fn config(&self) -> Config {
        let ecn = if self.ecn { EcnPolicy::On } else { EcnPolicy::Off };
        let buffers = 16 << 20;
        let congestion = self.congestion;
        Config { ecn, congestion, send_buffer: buffers, receive_buffer: buffers, ..Config::default() }
    }

    fn serve(&self, world: &mut World, moves: Moves) -> Ipv6Addr {
        if moves == Never {
            let stack = Plain::new(world.next_interface(1500), self.config(), [2; 32], false);
            let mut server = Machine::new(Box::new(stack));
            server.stack.listen(EXCHANGE);
            return World::address_of(world.attach(server, Sender::Ours, near()));
        }
        let plan = GroupPlan {
            attachments: vec![near(), near(), near()],
            offload: vec![false; 3],
            placement: Placement::Local,
            // What waits to be sent crosses each time.
            tcp: Config { unsent_limit: 64 << 10, ..self.config() },
            reluctance: 0,
            manner: Manner { delay: Duration::from_micros(200), ..Manner::default() },
            www: None,
            optimise: Optimise::Auto,
            plain_source: PlainSource::Auto,
        };
        let every = (moves == Often).then_some(100..=100);
        let after_every_event = moves == Always;
        world.attach_group(
            &plan,
            Operation { every, in_turn: true, after_every_event, ..Operation::default() },
        );
        SERVICE_ADDRESS
    }

    fn run(&self, moves: Moves) -> Outcome {
        let mut world = World::new(1, false);
        let server = self.serve(&mut world, moves);
        let stack = Plain::new(world.next_interface(1500), self.config(), [1; 32], false);
        let mut machine = Machine::new(Box::new(stack));
        let server = SocketAddrV6::new(server, EXCHANGE, 0, 0);
        machine.talks.push(Talk::new(Script::download(START, server, self.octets)));
        world.attach(machine, Sender::Ours, self.attachment());
        world.run(Duration::from_hours(1));
        let outcome = Outcome {
            took: START.since(world.now),
            passed: world.passed(),
            repeated: world.watch.repeated,
            handoffs: world.tally().handoffs,
        };
        println!("{moves:?} {self:?}: {outcome:?}");
        assert!(moves == Never || outcome.handoffs > 0, "{outcome:?}");
        outcome
    }

    /// The share of the bottleneck's rate.
    #[expect(clippy::cast_precision_loss, reason = "numbers of this size are exact")]
    fn share(&self, outcome: &Outcome) -> f64 {
        self.octets as f64 / outcome.took.as_secs_f64() / self.rate.unwrap_or(u64::MAX) as f64
    }
}

fn near() -> Attachment {
    let (up, down) = (Quality::default(), Quality::default());
    Attachment { name: String::new(), up, down, mtu: 1500, path_mtu: 1500, tap: true }
}

/// A path of 20 Mbit/s and 40 ms.
fn usual() -> Download {
    let (rate, round_trip) = (2_500_000, Duration::from_millis(40));
    let product = 100_000;
    Download {
        rate: Some(rate),
        round_trip,
        queue: 6 * product,
        marking: None,
        reordering: (0, Duration::ZERO),
        ecn: false,
        congestion: cc::Kind::Cubic,
        octets: 12 << 20,
    }
}

#[test]
fn a_queue_that_marks_neither_overflows_nor_runs_empty() {
    for congestion in [cc::Kind::NewReno, cc::Kind::Cubic] {
        let dropping = Download { congestion, ..usual() };
        // Half a window has to be there when NewReno has halved it.
        let marking = Download { marking: Some(dropping.product()), ecn: true, ..dropping.clone() };
        let before = dropping.run(Never);
        for moves in [Never, Often] {
            let outcome = marking.run(moves);
            assert!(outcome.passed.marked > 0 && outcome.passed.overflowed == 0, "{outcome:?}");
            assert!(moves != Never || outcome.repeated == 0, "nothing is sent again: {outcome:?}");
            // Between a mark and what it brings about lie a round trip and the doubling of slow start.
            assert!(outcome.passed.longest < 4 * marking.product(), "{outcome:?}");
            assert!(outcome.passed.longest < before.passed.longest, "{outcome:?} {before:?}");
            let (share, least) = (marking.share(&outcome), 0.85 * dropping.share(&before));
            assert!(share > least, "{share} {least}");
        }
        let short = Download { octets: 1 << 20, ..marking };
        let outcome = short.run(Always);
        assert!(outcome.passed.marked > 0 && outcome.passed.overflowed == 0, "{outcome:?}");
    }
}

#[test]
fn who_does_not_know_of_marks_is_not_marked() {
    let outcome = Download { marking: Some(1), ..usual() }.run(Never);
    assert_eq!(outcome.passed.marked, 0, "{outcome:?}");
}

#[test]
fn slow_start_ends_before_a_deep_queue_is_full() {
    for (congestion, round_trip) in [(cc::Kind::NewReno, 100), (cc::Kind::Cubic, 100), (cc::Kind::Cubic, 40)]
    {
        let round_trip = Duration::from_millis(round_trip);
        let path = Download { rate: Some(500_000), round_trip, congestion, ..usual() };
        // RFC 9406 section 4.2: up to a round until the growth is seen, one more until it is known to hold for the
        // whole of it, and five in which the window grows by a quarter: all that fits.
        let queue = 20 * path.product();
        // All windows together until one does not fit, had each been twice the one before; and half as much again.
        let path = Download { queue, octets: 3 * (path.product() + queue), ..path };
        let all = [Never, Often, Always];
        for moves in if round_trip < Duration::from_millis(100) { &all[..] } else { &all[..2] } {
            let outcome = path.run(*moves);
            assert_eq!(outcome.passed.overflowed, 0, "{outcome:?}");
            assert!(outcome.passed.longest < path.queue / 2, "{outcome:?}");
            let share = path.share(&outcome);
            assert!(share > 0.75, "{share}");
        }
    }
}

/// Round trips until a window that doubles in each has carried so many octets. One more each for either side to find
/// its neighbour on the long link, for the handshake, for the request, and three for the two ends of the connection.
fn rounds(octets: u64) -> u32 {
    let (mut window, mut carried, mut rounds) = (10 * 1428, 0, 7);
    while carried < octets {
        (carried, window, rounds) = (carried + window, 2 * window, rounds + 1);
    }
    rounds
}

#[test]
fn slow_start_goes_on_where_there_is_no_queue() {
    for round_trip in [40, 200] {
        let round_trip = Duration::from_millis(round_trip);
        let path = Download { rate: None, round_trip, octets: 8 << 20, ..usual() };
        for moves in [Never, Often] {
            let outcome = path.run(moves);
            // Two acknowledgements may wait, for a second segment in the first round and for the end.
            let most = rounds(path.octets) * round_trip + 2 * path.config().delayed_ack;
            assert!(outcome.took <= most, "{:?} instead of {most:?}", outcome.took);
        }
    }
}

#[test]
fn a_shallow_queue_does_not_end_slow_start_early() {
    // The queue is so short that the round-trip time cannot grow by the least that counts, 4 ms.
    let path = Download { round_trip: Duration::from_millis(20), queue: 6 * FULL, ..usual() };
    for congestion in [cc::Kind::NewReno, cc::Kind::Cubic] {
        let path = Download { congestion, ..path.clone() };
        for moves in [Never, Often] {
            let outcome = path.run(moves);
            assert!(outcome.passed.overflowed > 0, "slow start goes on until there is a loss: {outcome:?}");
            let share = path.share(&outcome);
            assert!(share > 0.6, "{share}");
        }
    }
}

#[test]
fn reordering_is_not_taken_for_congestion() {
    for lateness in [1, 4] {
        let reordering = (50, Duration::from_millis(lateness));
        let path = Download { reordering, queue: 1 << 20, octets: 8 << 20, ..usual() };
        let before = Download { reordering: (0, Duration::ZERO), ..path.clone() };
        let before = before.share(&before.run(Never));
        for moves in [Never, Often] {
            let outcome = path.run(moves);
            assert!(outcome.passed.late > 100, "{outcome:?}");
            let share = path.share(&outcome);
            assert!(share > 0.8 * before, "{share} instead of {before}");
        }
    }
}
