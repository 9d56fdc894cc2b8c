mod pair;

use core::net::Ipv6Addr;
use core::time::Duration;

use self::pair::{A, B, CLIENT, HOME, Pair};
use super::*;
use crate::header::{BindingUpdate, Lifetime, Options, open};
use crate::keys::Token;
use crate::keys::{Cookie, Key};

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn a_client_is_bound_after_one_round_trip_for_both_tests_and_one_for_the_update() {
    let mut pair = Pair::new(1, 0);
    pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
    pair.pass(Duration::from_millis(90));
    assert_eq!(
        pair.seen,
        [
            "Care-of Test Init",
            "Home Test Init",
            "Care-of Test",
            "Home Test",
            "Binding Update",
            "Binding Acknowledgement"
        ]
    );
    assert_eq!(pair.mode(A), Mode::Optimised);
    assert_eq!(pair.believed(), Some(A));
}

#[test]
fn nobody_is_optimised_before_the_acknowledgement() {
    let mut pair = Pair::new(1, 0);
    pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
    while pair.mode(A) == Mode::Relayed {
        pair.pass(Duration::from_millis(1));
    }
    assert_eq!(pair.seen.last(), Some(&"Binding Acknowledgement"));
}

#[test]
fn whatever_is_lost_the_client_is_bound_in_the_end() {
    for seed in 0..300 {
        let mut pair = Pair::new(seed, 30);
        pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
        pair.pass(seconds(3600));
        // Three lost probes in a row make it plain for ten minutes.
        pair.loss = 0;
        pair.pass(seconds(700));
        assert_eq!(
            (pair.mode(A), pair.believed()),
            (Mode::Optimised, Some(A)),
            "seed {seed}: {:?}",
            pair.client(A)
        );
    }
}

#[test]
fn a_binding_is_renewed_before_it_ends_for_as_long_as_there_are_connections() {
    let mut pair = Pair::new(1, 0);
    pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
    pair.pass(seconds(1));
    for _ in 0..7200 {
        pair.pass(seconds(1));
        assert_eq!((pair.mode(A), pair.believed()), (Mode::Optimised, Some(A)), "at {}", pair.now);
    }
    pair.nodes.get_mut(&A).unwrap().release(CLIENT);
    pair.pass(seconds(421));
    assert_eq!((pair.mode(A), pair.believed()), (Mode::Relayed, None));
}

#[test]
fn a_client_that_does_not_answer_is_plain_and_asked_again_after_ten_minutes() {
    let mut pair = Pair::new(1, 100);
    pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
    pair.pass(seconds(8));
    assert!(matches!(pair.client(A).ability, Ability::Plain { .. }), "{:?}", pair.client(A));
    // A test of each address, three times.
    assert_eq!(pair.tried, 6);
    pair.pass(seconds(598));
    assert_eq!(pair.tried, 6);
    pair.loss = 0;
    pair.pass(seconds(10));
    assert_eq!(pair.mode(A), Mode::Optimised);
}

#[test]
fn a_node_that_stood_by_needs_one_message_to_take_a_client_over() {
    let mut pair = Pair::new(1, 0);
    pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
    pair.nodes.get_mut(&B).unwrap().stand_by(CLIENT, pair.now);
    pair.pass(seconds(150));
    pair.seen.clear();
    pair.hand_over(A, B);
    assert_eq!(pair.mode(B), Mode::Relayed);
    pair.pass(Duration::from_millis(45));
    assert_eq!(pair.seen, ["Binding Update", "Binding Acknowledgement"]);
    assert_eq!((pair.mode(B), pair.believed()), (Mode::Optimised, Some(B)));
}

#[test]
fn a_node_that_stood_by_for_a_client_that_nobody_knows_has_both_tokens() {
    let mut pair = Pair::new(1, 0);
    pair.owner = B;
    pair.nodes.get_mut(&B).unwrap().stand_by(CLIENT, pair.now);
    pair.pass(Duration::from_millis(45));
    pair.seen.clear();
    pair.nodes.get_mut(&B).unwrap().own(CLIENT, pair.now);
    pair.pass(Duration::from_millis(45));
    assert_eq!(pair.seen, ["Binding Update", "Binding Acknowledgement"]);
    assert_eq!((pair.mode(B), pair.believed()), (Mode::Optimised, Some(B)));
}

#[test]
fn a_client_follows_its_connections_wherever_they_go() {
    for seed in 0..100 {
        let mut pair = Pair::new(seed, 20);
        pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
        let mut at = A;
        for turn in 0..20 {
            pair.pass(seconds(turn * 7 % 50));
            let to = if at == A { B } else { A };
            pair.hand_over(at, to);
            at = to;
        }
        pair.loss = 0;
        pair.pass(seconds(700));
        assert_eq!((pair.mode(at), pair.believed()), (Mode::Optimised, Some(at)), "seed {seed}");
    }
}

#[test]
fn a_node_whose_sequence_number_is_out_of_date_goes_on_from_the_client_s() {
    let mut pair = Pair::new(1, 0);
    pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
    pair.pass(seconds(1));
    let old = pair.nodes.get_mut(&A).unwrap().export(CLIENT, pair.now).unwrap();
    for turn in 0..5 {
        let (from, to) = if turn % 2 == 0 { (A, B) } else { (B, A) };
        pair.hand_over(from, to);
        pair.pass(seconds(1));
    }
    // What was known long ago, as after a crash.
    let now = pair.now;
    pair.owner = A;
    pair.nodes.get_mut(&A).unwrap().import(CLIENT, old, now);
    pair.pass(seconds(1));
    assert_eq!((pair.mode(A), pair.believed()), (Mode::Optimised, Some(A)));
    assert!(pair.statuses.contains(&Status::SEQUENCE), "{:?}", pair.statuses);
}

#[test]
fn coming_home_deletes_the_binding() {
    let mut pair = Pair::new(1, 0);
    pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
    pair.pass(seconds(300));
    let now = pair.now;
    pair.nodes.get_mut(&A).unwrap().set_here(HOME, now);
    assert_eq!(pair.mode(A), Mode::Relayed);
    pair.pass(seconds(1));
    assert_eq!(pair.believed(), None);
    assert_eq!(pair.client(A).bound, None);
    pair.seen.clear();
    pair.pass(seconds(3600));
    assert_eq!(pair.seen, [""; 0], "nothing more to say");
}

#[test]
fn a_client_whose_connections_have_ended_is_sent_home_when_it_comes_again() {
    let mut pair = Pair::new(1, 0);
    pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
    pair.pass(seconds(1));
    let now = pair.now;
    pair.nodes.get_mut(&A).unwrap().leave(CLIENT, now);
    pair.pass(seconds(1));
    assert_eq!(pair.believed(), Some(A), "it has connections here");
    pair.nodes.get_mut(&A).unwrap().release(CLIENT);
    pair.pass(seconds(1));
    assert_eq!(pair.believed(), Some(A), "nothing is said as long as it does not come again");
    let now = pair.now;
    pair.nodes.get_mut(&A).unwrap().leave(CLIENT, now);
    pair.pass(seconds(1));
    assert_eq!(pair.believed(), None);
    pair.seen.clear();
    pair.pass(seconds(3600));
    assert_eq!(pair.seen, [""; 0], "nothing more to say");
}

#[test]
fn a_client_that_lost_its_binding_is_told_again() {
    let mut pair = Pair::new(1, 0);
    pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
    pair.pass(seconds(1));
    pair.forget();
    assert_eq!(pair.believed(), None);
    pair.client_says(A, Message::BindingError { status: BindingErrorStatus::NO_BINDING, home_address: HOME });
    // The old tokens would find no answer.
    pair.pass(seconds(1));
    assert_eq!((pair.mode(A), pair.believed()), (Mode::Optimised, Some(A)));
    pair.client_says(
        A,
        Message::BindingError { status: BindingErrorStatus::UNKNOWN_TYPE, home_address: HOME },
    );
    assert_eq!(pair.mode(A), Mode::Relayed);
}

#[test]
fn a_path_that_fails_is_not_used_for_a_while_which_grows() {
    let mut pair = Pair::new(1, 0);
    pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
    pair.pass(seconds(1));
    let fail = |pair: &mut Pair| {
        let now = pair.now;
        pair.nodes.get_mut(&A).unwrap().failed(CLIENT, now);
        assert_eq!(pair.mode(A), Mode::Relayed);
        // The client sends to the home address again at once.
        pair.pass(seconds(1));
        assert_eq!(pair.believed(), None);
    };
    for pause in [10, 20, 40, 80, 160, 320, 600, 600] {
        fail(&mut pair);
        pair.pass(seconds(pause - 3));
        assert_eq!(pair.mode(A), Mode::Relayed, "{pause} s");
        pair.pass(seconds(4));
        assert_eq!(pair.mode(A), Mode::Optimised, "{pause} s");
    }
    // A binding that could be renewed makes good for what was before.
    pair.pass(seconds(400));
    fail(&mut pair);
    pair.pass(seconds(12));
    assert_eq!(pair.mode(A), Mode::Optimised);
}

#[test]
fn a_client_whose_acknowledgements_do_not_arrive_is_told_to_send_home() {
    let mut pair = Pair::new(1, 0);
    pair.no_routing_headers = true;
    pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
    pair.pass(seconds(1));
    // What it sends now is lost.
    assert_eq!((pair.mode(A), pair.believed()), (Mode::Relayed, Some(A)));
    pair.pass(seconds(16));
    assert_eq!((pair.mode(A), pair.believed()), (Mode::Relayed, None));
    pair.no_routing_headers = false;
    pair.pass(seconds(601));
    assert_eq!((pair.mode(A), pair.believed()), (Mode::Optimised, Some(A)));
}

#[test]
fn a_path_is_tried_again_as_soon_as_is_wanted() {
    let mut pair = Pair::new(1, 0);
    let node = pair.nodes.remove(&A).unwrap().asking_again(seconds(5));
    pair.nodes.insert(A, node);
    pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
    pair.pass(seconds(1));
    let now = pair.now;
    assert!(pair.nodes[&A].may_be_bound(CLIENT, now));
    pair.nodes.get_mut(&A).unwrap().failed(CLIENT, now);
    pair.pass(seconds(4));
    assert_eq!((pair.mode(A), pair.nodes[&A].may_be_bound(CLIENT, pair.now)), (Mode::Relayed, false));
    pair.pass(seconds(2));
    assert_eq!(pair.mode(A), Mode::Optimised);
}

#[test]
fn tests_that_went_unanswered_long_ago_do_not_make_a_client_plain_again() {
    let mut pair = Pair::new(1, 0);
    pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
    pair.pass(seconds(1));
    // More tests than make a client plain of whom nobody knows that it is aware.
    pair.loss = 100;
    pair.pass(seconds(200 + 10));
    let now = pair.now;
    assert!(pair.client(A).care_of[&A].asked.is_some_and(|asked| asked.tries >= MAX_PROBES));
    pair.nodes.get_mut(&A).unwrap().failed(CLIENT, now);
    pair.pass(seconds(9));
    pair.loss = 0;
    pair.pass(seconds(4));
    assert_eq!(pair.mode(A), Mode::Optimised);
}

#[test]
fn a_refresh_request_renews() {
    let mut pair = Pair::new(1, 0);
    pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
    pair.pass(seconds(1));
    pair.seen.clear();
    pair.client_says(HOME, Message::BindingRefreshRequest);
    pair.pass(seconds(1));
    assert_eq!(pair.seen, ["Binding Update", "Binding Acknowledgement"]);
}

#[test]
fn what_is_known_of_a_client_travels_unchanged() {
    let mut pair = Pair::new(1, 0);
    pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
    pair.pass(seconds(1));
    let there = pair.nodes.get_mut(&A).unwrap().export(CLIENT, pair.now).unwrap();
    let octets = postcard::to_allocvec(&there).unwrap();
    let back: Client<Duration> = postcard::from_bytes(&octets).unwrap();
    assert_eq!(back, there);
    assert_eq!(&back.thaw(pair.now), pair.client(A));
}

/// What a node that is not on the path can send: it knows everything but the tokens.
fn forged(sequence: u16, home: Ipv6Addr, indices: (u16, u16), tokens: [u8; 2]) -> Outgoing {
    let options = Options { nonce_indices: Some(indices), ..Options::default() };
    let lifetime = Lifetime::MAX_ROUTABILITY;
    let update = BindingUpdate { sequence, acknowledge: true, lifetime, options, ..BindingUpdate::default() };
    let mut message = Message::BindingUpdate(update);
    let [home_token, care_of_token] = tokens.map(|octet| Token([octet; 8]));
    message.authorize(&Key::new(&home_token, Some(&care_of_token)), B, CLIENT);
    Outgoing { home_address: Some(home), ..Outgoing::plain(B, CLIENT, message) }
}

#[test]
fn nobody_off_the_path_can_move_a_client() {
    let mut pair = Pair::new(1, 0);
    pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
    pair.pass(seconds(1));
    let index = crate::keys::Nonces::index(pair.now);
    for guess in 0..=255 {
        assert_eq!(pair.client_hears(&forged(100, HOME, (index, index), [guess, guess])), None, "silence");
    }
    // Stale nonces are told, because the sender cannot know; a nonce of the future is no better.
    for (indices, status) in [
        ((index.wrapping_sub(9), index), Status::HOME_NONCE),
        ((index, index.wrapping_sub(9)), Status::CARE_OF_NONCE),
        ((index.wrapping_add(1), index.wrapping_add(2)), Status::NONCES),
    ] {
        let answer = pair.client_hears(&forged(100, HOME, indices, [1, 1])).unwrap();
        assert!(matches!(&answer.message, Message::BindingAcknowledgement(told) if told.status == status));
    }
    assert_eq!(pair.believed(), Some(A));
}

#[test]
fn a_replayed_update_changes_nothing() {
    let mut pair = Pair::new(1, 0);
    pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
    pair.pass(seconds(1));
    let first = pair.updates[0].clone();
    pair.hand_over(A, B);
    pair.pass(seconds(1));
    assert_eq!(pair.believed(), Some(B));
    let answer = pair.client_hears(&first).unwrap();
    let Message::BindingAcknowledgement(told) = &answer.message else { panic!("{answer:?}") };
    assert_eq!((told.status, told.sequence), (Status::SEQUENCE, pair.client(B).sequence));
    assert_eq!(pair.believed(), Some(B));
    // Nor after the binding has gone: its sequence number is remembered for as long as the tokens live.
    let now = pair.now;
    pair.nodes.get_mut(&B).unwrap().set_here(HOME, now);
    pair.pass(seconds(1));
    assert_eq!(pair.believed(), None);
    pair.client_hears(&first);
    assert_eq!(pair.believed(), None);
}

#[test]
fn a_token_is_good_for_its_own_address_only() {
    let mut pair = Pair::new(1, 0);
    pair.nodes.get_mut(&A).unwrap().own(CLIENT, pair.now);
    pair.pass(seconds(1));
    let held = pair.client(A).clone();
    let (home_token, care_of_token) = (held.home.token.unwrap(), held.care_of[&A].token.unwrap());
    let key = Key::new(&home_token.token, Some(&care_of_token.token));
    for (home, care_of) in [(HOME, B), (B, A)] {
        let options = Options {
            nonce_indices: Some((home_token.nonce_index, care_of_token.nonce_index)),
            ..Options::default()
        };
        let lifetime = Lifetime::MAX_ROUTABILITY;
        let update = BindingUpdate { sequence: 100, lifetime, options, ..BindingUpdate::default() };
        let mut message = Message::BindingUpdate(update);
        message.authorize(&key, care_of, CLIENT);
        let stolen = Outgoing { home_address: Some(home), ..Outgoing::plain(care_of, CLIENT, message) };
        assert_eq!(pair.client_hears(&stolen), None);
    }
    assert_eq!(pair.believed(), Some(A));
}

#[test]
fn a_test_that_claims_a_home_address_is_not_answered() {
    let mut pair = Pair::new(1, 0);
    let message = Message::CareOfTestInit(Cookie([1; 8]));
    let claiming = Outgoing { home_address: Some(HOME), ..Outgoing::plain(B, CLIENT, message) };
    assert!(open(&pair::carried(&claiming)).is_ok());
    assert_eq!(pair.client_hears(&claiming), None);
}

/// An address among many.
fn many(nth: usize) -> Ipv6Addr {
    Ipv6Addr::from_bits(CLIENT.to_bits() + (1 << 64) + u128::try_from(nth).unwrap())
}

#[test]
fn idle_clients_make_room_the_one_first_that_was_idle_for_longest() {
    let now = Instant::from_millis(1_000_000);
    let mut mobile = Mobile::new(HOME, A, [3; 20]);
    for nth in 0..MAX_CLIENTS {
        mobile.own(many(nth), now);
        while mobile.poll().is_some() {}
    }
    for nth in [700, 3, 90_000] {
        mobile.release(many(nth));
    }
    // Nothing is lost of one that comes back.
    mobile.own(many(3), now);
    for (new, gone) in [(MAX_CLIENTS, 700), (MAX_CLIENTS + 1, 90_000)] {
        mobile.own(many(new), now);
        assert!(mobile.client(many(new)).is_some() && mobile.client(many(gone)).is_none());
    }
    // All have connections: a client more is a plain one, and nobody is forgotten.
    mobile.own(many(MAX_CLIENTS + 2), now);
    mobile.import(many(MAX_CLIENTS + 3), Client::default(), now);
    assert_eq!(mobile.clients.len(), MAX_CLIENTS);
    assert!((0..MAX_CLIENTS).all(|nth| mobile.client(many(nth)).is_some() || [700, 90_000].contains(&nth)));
    for nth in [MAX_CLIENTS + 2, MAX_CLIENTS + 3] {
        assert_eq!(mobile.mode(many(nth), now), Mode::Relayed);
        mobile.failed(many(nth), now);
        mobile.release(many(nth));
    }
    assert_eq!((mobile.idle.len(), mobile.clients.len()), (0, MAX_CLIENTS));
}

#[test]
fn of_the_tests_that_another_node_sends_no_more_are_kept_than_a_group_has_nodes() {
    let now = Instant::from_millis(1_000_000);
    let mut mobile = Mobile::new(HOME, A, [3; 20]);
    mobile.stand_by(CLIENT, now);
    let care_of = (0..500).map(|nth| (many(nth), Tested::default())).collect();
    let flood = Client::<Duration> { care_of, ..Client::default() };
    mobile.import(CLIENT, flood, now);
    let known = mobile.client(CLIENT).unwrap();
    assert_eq!(known.care_of.len(), 64);
    assert!(known.care_of[&A].asked.is_some(), "the node's own is among them");
}
