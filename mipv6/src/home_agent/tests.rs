use alloc::vec;
use core::net::Ipv6Addr;
use core::time::Duration;

use ferry_stack::{Offload, ip};

use super::*;
use crate::header::open;

const AGENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 0xa);
const HOME: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 1);
const A: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 2);
const B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 2);
const KEY: &[u8] = b"known to the group and its agent";
const OTHER_KEY: &[u8] = b"known to others and their agent";
/// The home address of others.
const OTHER: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 2);
/// Since 1970.
const START: Duration = Duration::from_secs(1_795_449_601);

struct World {
    now: Now,
    wall: Duration,
    agent: HomeAgent,
}

fn agent() -> HomeAgent {
    let group = Group { key: KEY.to_vec(), homes: BTreeSet::from([HOME]) };
    let other = Group { key: OTHER_KEY.to_vec(), homes: BTreeSet::from([OTHER]) };
    let groups = BTreeMap::from([(1000, group), (1001, other)]);
    HomeAgent::new(Setup { address: AGENT, home_link: (HOME, 64), groups, max_lifetime: Lifetime(100) })
}

fn registrant(care_of: Ipv6Addr, key: &[u8]) -> Registrant {
    let (spi, key, lifetime) = (1000, key.to_vec(), Lifetime(1000));
    Registrant::new(Registration { home: HOME, care_of, home_agent: AGENT, spi, key, lifetime }, 0)
}

impl World {
    fn new() -> Self {
        let now = Now { monotonic: Instant::from_millis(50_000), wall: Timestamp::from_unix(START) };
        Self { now, wall: START, agent: agent() }
    }

    fn pass(&mut self, time: Duration) {
        self.now.monotonic += time;
        self.wall += time;
        self.now.wall = Timestamp::from_unix(self.wall);
        self.agent.handle_timeout(self.now.monotonic);
    }

    fn hears(&mut self, message: &Outgoing) -> Option<Outgoing> {
        let datagram = ip::parse(message.packet().to_bytes(), Offload::default()).unwrap();
        self.agent.receive(&open(&datagram).unwrap(), self.now)
    }

    /// The status with which the agent answers a Binding Update that differs from a good one.
    fn judges(&mut self, home: Ipv6Addr, change: impl FnOnce(&mut BindingUpdate)) -> Option<Status> {
        let mut update = BindingUpdate {
            sequence: 7,
            acknowledge: true,
            home_registration: true,
            lifetime: Lifetime(50),
            options: Options {
                timestamp: Some(self.now.wall.0),
                authentication: Some(Authentication { spi: 1000, ..Authentication::default() }),
                ..Options::default()
            },
            ..BindingUpdate::default()
        };
        change(&mut update);
        let care_of = update.options.alternate_care_of.unwrap_or(A);
        let mut message = Message::BindingUpdate(update);
        message.authenticate(KEY, care_of, home);
        let message = Outgoing { home_address: Some(home), ..Outgoing::plain(A, AGENT, message) };
        match self.hears(&message)?.message {
            Message::BindingAcknowledgement(told) => Some(told.status),
            other => panic!("{other:?}"),
        }
    }

    /// Carries messages back and forth until nobody says anything; the last status.
    fn talk(&mut self, node: &mut Registrant) -> Option<Status> {
        let mut status = None;
        while let Some(message) = node.poll() {
            let Some(answer) = self.hears(&message) else { continue };
            if let Message::BindingAcknowledgement(told) = &answer.message {
                status = Some(told.status);
            }
            let datagram = ip::parse(answer.packet().to_bytes(), Offload::default()).unwrap();
            assert!(node.receive(&open(&datagram).unwrap(), self.now));
        }
        status
    }
}

#[test]
fn a_node_that_registers_gets_what_comes_for_the_home_address() {
    let mut world = World::new();
    let mut a = registrant(A, KEY);
    a.register(world.now);
    assert_eq!(world.talk(&mut a), Some(Status::ACCEPTED));
    assert!(a.is_registered(world.now.monotonic));
    assert_eq!(world.agent.take_changes(), [Change::Away(HOME, A)]);
    assert!(world.agent.may_send(A, HOME) && !world.agent.may_send(B, HOME));
    // It is renewed at half of the 400 s that the agent grants, and nothing changes.
    world.pass(Duration::from_secs(200));
    assert_eq!(a.deadline(), Some(world.now.monotonic));
    a.handle_timeout(world.now);
    assert_eq!(world.talk(&mut a), Some(Status::ACCEPTED));
    assert_eq!(world.agent.take_changes(), []);
}

#[test]
fn a_registration_that_is_not_renewed_ends() {
    let mut world = World::new();
    let mut a = registrant(A, KEY);
    a.register(world.now);
    world.talk(&mut a);
    world.agent.take_changes();
    world.pass(Duration::from_secs(400));
    assert!(!a.is_registered(world.now.monotonic));
    assert_eq!(world.agent.take_changes(), [Change::Gone(HOME)]);
    assert_eq!(world.agent.care_of(HOME), None);
}

#[test]
fn the_contact_role_moves_to_a_node_that_registers_after_another() {
    let mut world = World::new();
    let (mut a, mut b) = (registrant(A, KEY), registrant(B, KEY));
    a.register(world.now);
    world.talk(&mut a);
    for (turn, node) in [&mut b, &mut a].into_iter().enumerate() {
        world.pass(Duration::from_secs(1));
        node.register(world.now);
        // The sequence number of the other is taken from the refusal.
        assert_eq!(world.talk(node), Some(Status::ACCEPTED), "turn {turn}");
    }
    assert_eq!(
        world.agent.take_changes(),
        [Change::Away(HOME, A), Change::Away(HOME, B), Change::Away(HOME, A)]
    );
}

#[test]
fn a_node_that_leaves_is_gone_at_once() {
    let mut world = World::new();
    let mut a = registrant(A, KEY);
    a.register(world.now);
    world.talk(&mut a);
    world.pass(Duration::from_secs(1));
    a.leave(world.now);
    assert_eq!(world.talk(&mut a), Some(Status::ACCEPTED));
    assert_eq!((a.deadline(), world.agent.care_of(HOME)), (None, None));
}

#[test]
fn nobody_without_the_key_is_answered() {
    let mut world = World::new();
    let mut thief = registrant(B, b"another key");
    thief.register(world.now);
    let message = thief.poll().unwrap();
    assert_eq!(world.hears(&message), None);
    assert_eq!(world.agent.care_of(HOME), None);
}

#[test]
fn an_old_message_brings_nothing_back() {
    let mut world = World::new();
    let mut a = registrant(A, KEY);
    a.register(world.now);
    let old = a.poll().unwrap();
    assert!(world.hears(&old).is_some());
    let status = |answer: Option<Outgoing>| match answer.map(|answer| answer.message) {
        Some(Message::BindingAcknowledgement(told)) => told.status,
        other => panic!("{other:?}"),
    };
    assert_eq!(status(world.hears(&old)), Status::SEQUENCE);
    // An agent that has started anew knows no sequence number, but it has a clock.
    world.agent = agent();
    world.pass(Duration::from_secs(8));
    assert_eq!(status(world.hears(&old)), Status::IDENTIFICATION);
    assert_eq!(world.agent.care_of(HOME), None);
}

#[test]
fn an_address_of_another_link_is_refused() {
    let mut world = World::new();
    world.agent.setup.home_link = (A, 64);
    let mut a = registrant(A, KEY);
    a.register(world.now);
    assert_eq!(world.talk(&mut a), Some(Status::NOT_HOME));
    assert_eq!(a.refused(), Some(Status::NOT_HOME));
}

#[test]
fn an_unanswered_registration_is_repeated_with_patience() {
    let mut world = World::new();
    let mut a = registrant(A, KEY);
    a.register(world.now);
    let mut waits = vec![];
    for _ in 0..8 {
        a.poll().unwrap();
        let wait = a.deadline().unwrap().until(world.now.monotonic);
        waits.push(wait.as_secs());
        world.pass(wait);
        a.handle_timeout(world.now);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 32, 32]);
}

type Fault = fn(&mut BindingUpdate);

#[test]
fn each_thing_that_is_wrong_with_a_registration_has_its_status() {
    let care_of = |update: &mut BindingUpdate, address| update.options.alternate_care_of = Some(address);
    let cases: [(&str, Ipv6Addr, Fault, Option<Status>); 13] = [
        ("nothing", HOME, |_| {}, Some(Status::ACCEPTED)),
        ("no home registration", HOME, |update| update.home_registration = false, Some(Status::TYPE_CHANGE)),
        ("an address of another link", B, |_| {}, Some(Status::NOT_HOME)),
        ("an address of others", OTHER, |_| {}, Some(Status::NOT_YOURS)),
        ("no timestamp", HOME, |update| update.options.timestamp = None, Some(Status::IDENTIFICATION)),
        (
            "a timestamp of 8 s ago",
            HOME,
            |update| update.options.timestamp = update.options.timestamp.map(|at| at - (8 << 32)),
            Some(Status::IDENTIFICATION),
        ),
        (
            "a timestamp in 8 s",
            HOME,
            |update| update.options.timestamp = update.options.timestamp.map(|at| at + (8 << 32)),
            Some(Status::IDENTIFICATION),
        ),
        ("the agent as care-of address", HOME, |_| {}, Some(Status::CARE_OF_ADDRESS)),
        ("another home address as care-of address", HOME, |_| {}, Some(Status::CARE_OF_ADDRESS)),
        ("a link-local care-of address", HOME, |_| {}, Some(Status::CARE_OF_ADDRESS)),
        ("a multicast care-of address", HOME, |_| {}, Some(Status::CARE_OF_ADDRESS)),
        ("no authentication", HOME, |update| update.options.authentication = None, None),
        (
            "an unknown SPI",
            HOME,
            |update| {
                update.options.authentication = Some(Authentication { spi: 9, ..Authentication::default() });
            },
            None,
        ),
    ];
    for (name, home, change, expected) in cases {
        let mut world = World::new();
        let told = world.judges(home, |update| {
            change(update);
            match name {
                "the agent as care-of address" => care_of(update, AGENT),
                "another home address as care-of address" => care_of(update, OTHER),
                "a link-local care-of address" => care_of(update, Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1)),
                "a multicast care-of address" => care_of(update, Ipv6Addr::new(0xff0e, 0, 0, 0, 0, 0, 0, 1)),
                _ => {}
            }
        });
        assert_eq!(told, expected, "{name}");
        let registered = (expected == Some(Status::ACCEPTED)).then_some(A);
        assert_eq!(world.agent.care_of(home), registered, "{name}");
    }
}

#[test]
fn a_message_to_another_address_of_the_agent_is_none_for_it() {
    let mut world = World::new();
    let mut a = registrant(A, KEY);
    a.register(world.now);
    let message = Outgoing { destination: HOME, ..a.poll().unwrap() };
    assert_eq!(world.hears(&message), None);
}

#[test]
fn a_timestamp_that_was_used_is_refused_though_the_sequence_number_is_later() {
    let mut world = World::new();
    assert_eq!(world.judges(HOME, |_| {}), Some(Status::ACCEPTED));
    assert_eq!(world.judges(HOME, |update| update.sequence = 8), Some(Status::IDENTIFICATION));
    world.pass(Duration::from_secs(1));
    assert_eq!(world.judges(HOME, |update| update.sequence = 8), Some(Status::ACCEPTED));
}

#[test]
fn a_node_whose_clock_is_wrong_takes_the_time_from_its_agent() {
    for wrong in [-100_000_i64, -8, 8, 100_000] {
        let mut world = World::new();
        let mut a = registrant(A, KEY);
        let right = world.now;
        let shown = START.as_secs().saturating_add_signed(wrong);
        let wrong_now = Now { wall: Timestamp::from_unix(Duration::from_secs(shown)), ..right };
        a.register(wrong_now);
        for status in [Status::IDENTIFICATION, Status::ACCEPTED] {
            let answer = world.hears(&a.poll().unwrap()).unwrap();
            assert!(
                matches!(&answer.message, Message::BindingAcknowledgement(told) if told.status == status)
            );
            let datagram = ip::parse(answer.packet().to_bytes(), Offload::default()).unwrap();
            assert!(a.receive(&open(&datagram).unwrap(), wrong_now), "{wrong}");
        }
        assert!(a.is_registered(right.monotonic));
    }
}

#[test]
fn a_node_after_which_another_has_registered_does_not_take_the_address_back() {
    let mut world = World::new();
    let (mut a, mut b) = (registrant(A, KEY), registrant(B, KEY));
    for node in [&mut a, &mut b] {
        world.pass(Duration::from_secs(1));
        node.register(world.now);
        assert_eq!(world.talk(node), Some(Status::ACCEPTED));
    }
    world.pass(a.deadline().unwrap().until(world.now.monotonic));
    a.handle_timeout(world.now);
    assert_eq!(world.talk(&mut a), Some(Status::SEQUENCE));
    assert!(a.is_superseded());
    assert_eq!((a.deadline(), world.agent.care_of(HOME)), (None, Some(B)));
    // Until it is told that the address is its own again.
    world.pass(Duration::from_secs(1));
    a.register(world.now);
    assert_eq!(world.talk(&mut a), Some(Status::ACCEPTED));
    assert_eq!(world.agent.care_of(HOME), Some(A));
}

#[test]
fn a_late_copy_of_an_own_message_supersedes_nobody() {
    let mut world = World::new();
    let mut a = registrant(A, KEY);
    a.register(world.now);
    let first = a.poll().unwrap();
    let answer = world.hears(&first).unwrap();
    let again = |message: &Outgoing| ip::parse(message.packet().to_bytes(), Offload::default()).unwrap();
    assert!(a.receive(&open(&again(&answer)).unwrap(), world.now));
    let late = world.hears(&first).unwrap();
    world.pass(Duration::from_secs(200));
    a.handle_timeout(world.now);
    // The refusal of the copy names our own last number.
    a.receive(&open(&again(&late)).unwrap(), world.now);
    assert!(!a.is_superseded());
    assert_eq!(world.talk(&mut a), Some(Status::ACCEPTED));
}
