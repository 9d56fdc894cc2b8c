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
/// Since 1970.
const START: Duration = Duration::from_secs(1_795_449_601);

struct World {
    now: Now,
    wall: Duration,
    agent: HomeAgent,
}

fn agent() -> HomeAgent {
    let keys = BTreeMap::from([(1000, KEY.to_vec())]);
    HomeAgent::new(Setup { address: AGENT, home_link: (HOME, 64), keys, max_lifetime: Lifetime(100) })
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
