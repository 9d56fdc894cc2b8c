//! The kernel of this machine at the other end of a cable, as a client and as a server, in real time: while our end of
//! every connection goes to and fro between two hosts, and with the impairments that two kernels had between them.

use core::net::Ipv6Addr;
use core::ops::RangeInclusive;
use core::time::Duration;

use ferry_stack::EthernetAddress;
use ferry_stack::Instant;
use ferry_stack::interface::{self, Address};
use ferry_stack::tcp::{Config, EcnPolicy};
use ferry_tests::draw::{self, Wants};
use ferry_tests::link::{Pipe, Quality};
use ferry_tests::linux::cable::{Cable, End};
use ferry_tests::linux::host::KernelHost;
use ferry_tests::linux::namespace::enter;
use ferry_tests::machine::Machine;
use ferry_tests::rng::Rng;
use ferry_tests::seeds::{self, Tally};
use ferry_tests::serve::{ECHO, EXCHANGE};
use ferry_tests::shuttle::{Manners, Shuttle};
use ferry_tests::stack::Stack;
use ferry_tests::talk::{Outcome, Talk, Task};
use ferry_tests::watch::Sender;

/// For what hangs.
const PATIENCE: Duration = Duration::from_mins(2);
/// So that a loss does not cost a fifth of a second.
const MIN_RTO: Duration = Duration::from_millis(40);

/// Whose TCP a host runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whose {
    Kernel,
    Ours,
}
use Whose::{Kernel, Ours};

/// What happens on the cable, and to our end.
#[derive(Clone, Debug)]
struct Plan {
    wants: Wants,
    ways: [Quality; 2],
    offload: bool,
    config: Config,
    every: RangeInclusive<u64>,
}

fn address(nth: u8) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, 0x78, 0, 0, 0, 0, u16::from(nth) + 1)
}

fn end(whose: Whose, nth: u8, plan: &Plan, rng: &mut Rng) -> End {
    let config = interface::Config {
        mac: EthernetAddress([2, 0, 0, 0, 0x78, nth]),
        addresses: vec![Address { address: address(nth), prefix_len: 64 }],
        gateway: None,
        mtu: 1500,
    };
    let manners =
        Manners { config: plan.config, offload: plan.offload, every: plan.every.clone(), once: false };
    let (chance, own) = (rng.fork(), rng.fork());
    let (stack, sender): (Box<dyn Stack>, _) = match whose {
        Kernel => (Box::new(KernelHost::new(&config, plan.offload, MIN_RTO)), Sender::Foreign),
        Ours => (Box::new(Shuttle::new(&config, manners, own)), Sender::Ours),
    };
    let way = Pipe::new(plan.ways[usize::from(nth)].clone(), chance);
    End { machine: Machine::new(stack), sender, way }
}

/// How each connection ended, and what passed over it. How much passes before one is given up is a matter of chance.
type Account = Vec<(Task, Option<Outcome>, Option<(u64, u64)>)>;

fn play(seed: u64, [client, server]: [Whose; 2], plan: &Plan) -> (Account, Cable) {
    let mut rng = Rng::new(seed);
    let (mut client, mut server) = (end(client, 0, plan, &mut rng), end(server, 1, plan, &mut rng));
    for port in [ECHO, EXCHANGE] {
        server.machine.stack.listen(port);
    }
    let scripts = draw::every_order(&mut rng, address(1), &plan.wants, Instant::ZERO);
    client.machine.talks.extend(scripts.into_iter().map(Talk::new));
    let mut cable = Cable::new([client, server], plan.offload);
    cable.run(PATIENCE);
    let account = cable.machines()[0].talks.iter().map(|talk| {
        let passed = (talk.outcome == Some(Outcome::Done)).then_some((talk.sent, talk.received));
        (talk.script.task, talk.outcome, passed)
    });
    (account.collect(), cable)
}

fn crossings(cable: &Cable) -> u64 {
    cable.machines().iter().map(|machine| machine.stack.crossings()).sum()
}

fn octets(account: &Account) -> u64 {
    account.iter().filter_map(|(.., passed)| passed.map(|(_, received)| received)).sum()
}

#[test]
fn the_kernel_notices_nothing_of_handoffs_in_bulk_transfers() {
    const NAME: &str = "the_kernel_notices_nothing_of_handoffs_in_bulk_transfers";
    enter(NAME, || {
        seeds::run("kernel", NAME, 8, |seed, _| {
            let quality = Quality { delay: Duration::from_micros(200), ..Quality::default() };
            let plan = Plan {
                wants: Wants { at_least: 1 << 20, octets: 4 << 20, ..Wants::default() },
                ways: [quality.clone(), quality],
                offload: seed % 2 == 1,
                // What waits to be sent crosses each time.
                config: Config { min_rto: MIN_RTO, send_buffer: 256 << 10, ..Config::default() },
                every: 1..=10,
            };
            let sides = if seed / 2 % 2 == 1 { [Kernel, Ours] } else { [Ours, Kernel] };
            let (account, cable) = play(seed, sides, &plan);
            assert!(crossings(&cable) > 40, "{}", crossings(&cable));
            let connections = account.len() as u64;
            Tally { connections, handoffs: crossings(&cable), octets: octets(&account), ..Tally::default() }
        });
    });
}

/// Faults of all kinds in both directions.
fn impaired(rng: &mut Rng) -> Plan {
    let mut way = || Quality {
        delay: Duration::from_micros(rng.scaled(100..=5_000)),
        loss: rng.pick(&[1, 5, 10, 20, 40]),
        duplication: rng.pick(&[1, 5, 10, 20, 40]),
        reordering: rng.pick(&[1, 10, 50, 100]),
        lateness: Duration::from_micros(rng.scaled(500..=8_000)),
        ..Quality::default()
    };
    Plan {
        wants: Wants { at_least: 50_000, octets: 300_000, ..Wants::default() },
        ways: [way(), way()],
        offload: false,
        config: Config { min_rto: MIN_RTO, ecn: EcnPolicy::On, ..Config::default() },
        every: 1..=20,
    }
}

#[test]
fn the_same_impairments_leave_the_same_streams_as_between_two_kernels() {
    const NAME: &str = "the_same_impairments_leave_the_same_streams_as_between_two_kernels";
    enter(NAME, || {
        let tally = seeds::run("kernel", NAME, 6, |seed, _| {
            let plan = impaired(&mut Rng::new(seed));
            let (expected, _) = play(seed, [Kernel, Kernel], &plan);
            let mut tally = Tally::default();
            for sides in [[Kernel, Ours], [Ours, Kernel]] {
                let (account, cable) = play(seed, sides, &plan);
                assert_eq!(account, expected, "{sides:?}");
                let passed = cable.passed();
                tally += Tally {
                    connections: account.len() as u64,
                    handoffs: crossings(&cable),
                    octets: octets(&account),
                    lost: passed.lost,
                    repeated: cable.repeated(),
                    // Both kinds of disorder.
                    faults: passed.duplicated.min(passed.late),
                    ..Tally::default()
                };
            }
            tally
        });
        let all = tally.lost > 0 && tally.repeated > 0 && tally.faults > 0 && tally.handoffs > 100;
        assert!(all || seeds::replaying(), "{tally:?}");
    });
}
