use core::net::Ipv6Addr;
use core::time::Duration;

use ferry_stack::{Offload, ip};

use super::*;
use crate::header::open;
use crate::keys::Cookie;

const US: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xc);
const HOME: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 1);
const CARE_OF: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 2);

struct World {
    now: Instant,
    us: Correspondent,
}

impl World {
    fn new() -> Self {
        Self { now: Instant::from_millis(5_000_000), us: Correspondent::new([1; 20]) }
    }

    fn hears(&mut self, message: &Outgoing) -> Option<Outgoing> {
        let datagram = ip::parse(message.packet().to_bytes(), Offload::default()).unwrap();
        self.us.receive(&open(&datagram).unwrap(), self.now)
    }

    fn token(&mut self, from: Ipv6Addr, message: Message) -> Test {
        match self.hears(&Outgoing::plain(from, US, message)).unwrap().message {
            Message::HomeTest(test) | Message::CareOfTest(test) => test,
            other => panic!("{other:?}"),
        }
    }

    /// Goes through return routability and sends an update.
    fn update(&mut self, care_of: Ipv6Addr, mut update: BindingUpdate) -> Option<Outgoing> {
        let cookie = Cookie([9; 8]);
        let home = self.token(HOME, Message::HomeTestInit(cookie));
        let there = self.token(care_of, Message::CareOfTestInit(cookie));
        let deletes = update.lifetime == Lifetime::ZERO || care_of == HOME;
        let key = Key::new(&home.token, Some(&there.token).filter(|_| !deletes));
        update.options.nonce_indices = Some((home.nonce_index, there.nonce_index));
        let mut message = Message::BindingUpdate(update);
        message.authorize(&key, care_of, US);
        let home_address = (care_of != HOME).then_some(HOME);
        self.hears(&Outgoing { home_address, ..Outgoing::plain(care_of, US, message) })
    }
}

fn update(sequence: u16, seconds: u64) -> BindingUpdate {
    let lifetime = Lifetime::at_most(Duration::from_secs(seconds));
    BindingUpdate { sequence, acknowledge: true, lifetime, ..BindingUpdate::default() }
}

fn told(answer: Option<Outgoing>) -> (Status, u16, Duration) {
    match answer.unwrap().message {
        Message::BindingAcknowledgement(told) => (told.status, told.sequence, told.lifetime.duration()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_lifetime_is_cut_to_that_of_return_routability() {
    let mut world = World::new();
    let answer = world.update(CARE_OF, update(1, 3600));
    let (there, routed) = answer.as_ref().map(|answer| (answer.destination, answer.routed_home)).unwrap();
    assert_eq!((there, routed), (CARE_OF, Some(HOME)));
    assert_eq!(told(answer), (Status::ACCEPTED, 1, Duration::from_mins(7)));
    assert!(matches!(world.us.take_changes()[..], [Change::Bound((US, HOME), _)]));
    world.now += Duration::from_secs(419);
    assert_eq!(world.us.binding((US, HOME), world.now).unwrap().care_of, CARE_OF);
    world.now += Duration::from_secs(1);
    assert_eq!(world.us.binding((US, HOME), world.now), None);
    world.us.handle_timeout(world.now);
    assert_eq!(world.us.take_changes(), [Change::Unbound((US, HOME))]);
}

#[test]
fn a_binding_in_use_is_asked_for_before_it_ends_and_an_idle_one_is_not() {
    for used in [false, true] {
        let mut world = World::new();
        world.update(CARE_OF, update(1, 420));
        if used {
            assert_eq!(world.us.use_binding((US, HOME), world.now), Some(CARE_OF));
        }
        world.now += Duration::from_secs(389);
        assert_eq!(world.us.handle_timeout(world.now), []);
        world.now += Duration::from_secs(1);
        let asked = Outgoing::plain(US, HOME, Message::BindingRefreshRequest);
        assert_eq!(world.us.handle_timeout(world.now), if used { alloc::vec![asked] } else { Vec::new() });
    }
}

#[test]
fn an_update_without_acknowledgement_is_silent_unless_it_is_refused() {
    let mut world = World::new();
    assert_eq!(world.update(CARE_OF, BindingUpdate { acknowledge: false, ..update(7, 100) }), None);
    assert_eq!(world.us.binding((US, HOME), world.now).map(|binding| binding.sequence), Some(7));
    let answer = world.update(CARE_OF, BindingUpdate { acknowledge: false, ..update(7, 100) });
    assert_eq!(told(answer), (Status::SEQUENCE, 7, Duration::ZERO));
}

#[test]
fn sequence_numbers_go_round() {
    let mut world = World::new();
    for (sequence, status) in [
        (0xfff0, Status::ACCEPTED),
        (0x0003, Status::ACCEPTED),
        (0xfff1, Status::SEQUENCE),
        (0x8003, Status::SEQUENCE),
        (0x8002, Status::ACCEPTED),
    ] {
        assert_eq!(told(world.update(CARE_OF, update(sequence, 100))).0, status, "{sequence:x}");
    }
}

#[test]
fn an_update_from_home_or_with_no_lifetime_deletes() {
    for (care_of, lifetime) in [(CARE_OF, 0), (HOME, 0), (HOME, 100)] {
        let mut world = World::new();
        world.update(CARE_OF, update(1, 100));
        let answer = world.update(care_of, update(2, lifetime));
        assert_eq!(answer.as_ref().unwrap().routed_home.is_some(), care_of != HOME);
        assert_eq!(told(answer), (Status::ACCEPTED, 2, Duration::ZERO));
        assert_eq!(world.us.binding((US, HOME), world.now), None);
    }
}

#[test]
fn a_correspondent_is_no_home_agent() {
    let mut world = World::new();
    let answer = world.update(CARE_OF, BindingUpdate { home_registration: true, ..update(1, 100) });
    assert_eq!(told(answer).0, Status::NO_HOME_AGENT);
}

#[test]
fn who_claims_a_home_address_that_is_not_his_is_told_so() {
    let mut world = World::new();
    let check = |world: &World, source| world.us.check_claim(US, HOME, source, world.now);
    let told = check(&world, CARE_OF).unwrap();
    assert_eq!(told.destination, CARE_OF);
    let status = BindingErrorStatus::NO_BINDING;
    assert_eq!(told.message, Message::BindingError { status, home_address: HOME });
    world.update(CARE_OF, update(1, 100));
    assert_eq!(check(&world, CARE_OF), None);
    assert!(check(&world, US).is_some(), "not from elsewhere");
}

#[test]
fn an_address_that_nobody_can_have_is_not_bound() {
    for (care_of, bound) in [("ff02::1", false), ("::1", false), ("fe80::1", false), ("2001:db8:b::2", true)]
    {
        let care_of = care_of.parse().unwrap();
        let mut world = World::new();
        let (nonces, index) = (Nonces::new([1; 20]), Nonces::index(world.now));
        let token = |test, address| nonces.token(test, address, index, world.now).unwrap();
        let key = Key::new(&token(keys::Test::Home, HOME), Some(&token(keys::Test::CareOf, care_of)));
        let options = Options {
            nonce_indices: Some((index, index)),
            alternate_care_of: Some(care_of),
            ..Options::default()
        };
        let mut message = Message::BindingUpdate(BindingUpdate { options, ..update(1, 100) });
        message.authorize(&key, care_of, US);
        let answer =
            world.hears(&Outgoing { home_address: Some(HOME), ..Outgoing::plain(CARE_OF, US, message) });
        assert_eq!(answer.is_some(), bound, "{care_of}");
    }
}

#[test]
fn a_full_binding_cache_refuses_a_new_binding_and_keeps_every_old_one() {
    let mut world = World::new();
    let many = |nth: usize| Ipv6Addr::from_bits(HOME.to_bits() + (1 << 64) + u128::try_from(nth).unwrap());
    for nth in 0..MAX_BINDINGS {
        world.us.accept((US, many(nth)), CARE_OF, 1, Lifetime::MAX_ROUTABILITY, world.now);
    }
    assert_eq!(told(world.update(CARE_OF, update(1, 420))).0, Status::RESOURCES);
    assert!((0..MAX_BINDINGS).all(|nth| world.us.binding((US, many(nth)), world.now).is_some()));
    // One that is there can be renewed, and one that goes makes room.
    world.us.accept((US, many(5)), CARE_OF, 2, Lifetime::ZERO, world.now);
    assert_eq!(told(world.update(CARE_OF, update(2, 420))).0, Status::ACCEPTED);
    assert_eq!(told(world.update(CARE_OF, update(3, 420))).0, Status::ACCEPTED);
    assert_eq!(world.us.bindings.len(), MAX_BINDINGS);
    // What is remembered of bindings that are gone is bounded, too, and forgotten with their tokens.
    world.now += Duration::from_mins(7);
    world.us.handle_timeout(world.now);
    assert_eq!((world.us.bindings.len(), world.us.late.len()), (0, MAX_BINDINGS));
    world.now += keys::NONCE_LIFETIME;
    world.us.handle_timeout(world.now);
    assert_eq!((world.us.late.len(), world.us.deadline()), (0, None));
}

#[test]
fn any_number_of_tests_leaves_nothing_behind() {
    let mut world = World::new();
    let before = alloc::format!("{:?}", world.us);
    for nth in 0..10_000_u128 {
        let from = Ipv6Addr::from_bits(CARE_OF.to_bits() + nth);
        world.token(from, Message::CareOfTestInit(Cookie([9; 8])));
    }
    assert_eq!(alloc::format!("{:?}", world.us), before, "tests are answered without state (section 9.4)");
}

#[test]
fn an_update_with_tokens_of_expired_nonces_moves_nobody() {
    let mut world = World::new();
    assert_eq!(told(world.update(CARE_OF, update(1, 420))).0, Status::ACCEPTED);
    let cookie = Cookie([9; 8]);
    let there = Ipv6Addr::from_bits(CARE_OF.to_bits() + 1);
    let home = world.token(HOME, Message::HomeTestInit(cookie));
    let care_of = world.token(there, Message::CareOfTestInit(cookie));
    world.now += keys::NONCE_LIFETIME + Duration::from_secs(1);
    let mut update = update(2, 420);
    update.options.nonce_indices = Some((home.nonce_index, care_of.nonce_index));
    let mut message = Message::BindingUpdate(update);
    message.authorize(&Key::new(&home.token, Some(&care_of.token)), there, US);
    let answer = world.hears(&Outgoing { home_address: Some(HOME), ..Outgoing::plain(there, US, message) });
    assert_eq!(told(answer).0, Status::NONCES);
    assert_eq!(world.us.binding((US, HOME), world.now).unwrap().care_of, CARE_OF);
}

#[test]
fn whoever_names_a_victim_s_home_address_hears_of_it_himself() {
    let victim = Ipv6Addr::new(0x2001, 0xdb8, 0xbad, 0, 0, 0, 0, 1);
    let attacker = CARE_OF;
    let cookie = Cookie([9; 8]);
    let messages = [
        Message::HomeTestInit(cookie),
        Message::CareOfTestInit(cookie),
        Message::BindingUpdate(update(1, 420)),
        Message::BindingUpdate({
            let mut signed = update(1, 420);
            signed.options.nonce_indices = Some((9999, 9999));
            signed.options.authorization = Some(crate::keys::Authenticator::default());
            signed
        }),
        Message::BindingRefreshRequest,
    ];
    let mut world = World::new();
    let mut answers = 0;
    for message in messages {
        let said = Outgoing { home_address: Some(victim), ..Outgoing::plain(attacker, US, message) };
        let answer = world.hears(&said);
        answers += usize::from(answer.is_some());
        assert!(answer.is_none_or(|answer| answer.destination == attacker));
    }
    assert_eq!(answers, 1, "the one with unknown nonces (section 9.5.4)");
    let error = world.us.check_claim(US, victim, attacker, world.now).unwrap();
    assert_eq!((error.destination, error.routed_home), (attacker, None), "section 9.3.1");
}
