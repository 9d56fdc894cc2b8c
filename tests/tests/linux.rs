//! The kernel's TCP and ours, side by side: the same conversations, and the same workloads.

use core::time::Duration;
use std::collections::BTreeMap;

use ferry_node::driver::Tap;
use ferry_stack::tcp::Config;
use ferry_tests::linux::conversation::{Conversation, Outcome};
use ferry_tests::linux::differences::KNOWN;
use ferry_tests::linux::namespace::{enter, sh};
use ferry_tests::linux::subject::{Kernel, Ours};
use ferry_tests::rng::Rng;
use ferry_tests::seeds::{self, Tally};
use rustix::thread::{CpuSet, sched_getcpu, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

/// A TAP, and a kernel that never waits: it acknowledges every segment at once, and no timer comes due during a
/// conversation.
const SETUP: &str = "
    ip link set lo up
    ip tuntap add dev ferry0 mode tap
    ip link set ferry0 address 02:00:00:00:77:01 up
    ip -6 address add 2001:db8:77::1/64 dev ferry0 nodad noprefixroute
    ip -6 route add 2001:db8:77::/64 dev ferry0 quickack 1 rto_min 30s
    ip -6 neighbour add 2001:db8:77::2 lladdr 02:00:00:00:77:02 dev ferry0 nud permanent
    cd /proc/sys/net/ipv4
    echo 0 >tcp_early_retrans
    echo 0 >tcp_invalid_ratelimit
    echo 1 >tcp_no_metrics_save
    echo 0 >tcp_autocorking
    echo 0 >tcp_ecn
";

/// So that the kernel handles what it is given in order.
fn stay_on_one_processor() {
    let mut only = CpuSet::new();
    only.set(sched_getcpu());
    sched_setaffinity(None, &only).expect("a thread may stay where it is");
}

/// How often a conversation is held anew because it took so long that a timer of the kernel came due.
const TRIES: u64 = 20;

/// Conversations that once showed a difference which the seeds of an ordinary run do not show.
const ONCE_DIFFERED: [u64; 8] = [7843, 9131, 9473, 10_181, 10_394, 12_250, 15_809, 19_773];

/// The kernel sends a SYN again after a second.
const TOO_LONG: Duration = Duration::from_millis(900);

/// Holds the conversation of a seed. `None`: it took too long to tell anything. Panics if the two differ.
fn hold(tap: &mut Tap, seed: u64, nth: u64, log: bool) -> Option<Outcome> {
    let began = clock_gettime(ClockId::Monotonic);
    let mut rng = Rng::new(seed);
    // Each time between other ports: the kernel remembers connections for a while.
    let port = 1024 + u16::try_from((seed + nth * 7919) % 60_000).expect("less than 60 000");
    let nodelay = rng.chance(500);
    let config = Config { nodelay, ..Config::default() };
    let ours = Box::new(Ours::new(port, config, rng.secret()));
    let kernel = Box::new(Kernel::new(tap, port, nodelay));
    let result = Conversation::new(rng.fork(), ours, kernel, nodelay, log).hold();
    let took = Duration::try_from(clock_gettime(ClockId::Monotonic) - began).unwrap_or_default();
    match result {
        Ok(outcome) => Some(outcome),
        Err(_) if took > TOO_LONG => None,
        Err(lines) => panic!("they differ:\n{lines}"),
    }
}

#[test]
fn the_kernel_and_we_say_the_same() {
    const NAME: &str = "the_kernel_and_we_say_the_same";
    enter(NAME, || {
        sh(SETUP);
        let mut tap = Tap::open("ferry0", false).unwrap();
        stay_on_one_processor();
        Kernel::new(&mut tap, 1, false).await_carrier();
        let mut known = BTreeMap::new();
        let mut steps = 0;
        let mut play = |seed, log| {
            let outcome = (0..TRIES).find_map(|nth| hold(&mut tap, seed, nth, log));
            let outcome = outcome.expect("a conversation that the kernel's timers leave alone");
            for name in outcome.known {
                *known.entry(name).or_insert(0) += 1;
            }
            steps += outcome.steps;
            Tally { events: outcome.segments, octets: outcome.octets, connections: 1, ..Tally::default() }
        };
        let Tally { seeds, .. } = seeds::run("linux", NAME, 4000, &mut play);
        if !seeds::replaying() {
            for seed in ONCE_DIFFERED.into_iter().filter(|seed| *seed >= seeds) {
                play(seed, false);
            }
        }
        eprintln!("{steps} steps; known differences: {known:?}");
        let stale: Vec<_> =
            KNOWN.iter().filter(|it| !known.contains_key(it.name)).map(|it| it.name).collect();
        assert!(seeds::replaying() || stale.is_empty(), "these did not happen: {stale:?}");
    });
}
