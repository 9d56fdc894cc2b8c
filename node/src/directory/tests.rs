//! What one directory says to what it is told, and what a group of them does.

mod group;

use ferry_handoff::{Incarnation, Message, NodeId, Opinion, Pulse, Verdict};
use ferry_stack::Instant;

use super::{Directory as _, DirectorySetup, Embedded, Event, Lease, Standing};

const LIFE: Incarnation = Incarnation(1);

fn id(name: &str) -> NodeId {
    NodeId::of(name)
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(1_000_000 + millis)
}

/// The directory of node a, in a group with these.
fn directory(others: &[&str], replicated: bool) -> Embedded {
    let others = others.iter().map(|name| id(name));
    Embedded::new(id("a"), LIFE, others, &DirectorySetup::default(), replicated, at(0))
}

fn events(directory: &mut Embedded) -> Vec<Event> {
    core::iter::from_fn(|| directory.poll()).collect()
}

fn pulses(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Tell(_, Message::Pulse(_)))).count()
}

/// A sign of life that acknowledges ours.
fn sign(life: u64, number: u64, heard: Option<u64>, opinions: &[(&str, u64, Verdict)]) -> Pulse {
    let opinion = |(name, life, verdict): &(&str, u64, Verdict)| Opinion {
        node: id(name),
        life: Incarnation(*life),
        verdict: *verdict,
    };
    Pulse {
        life: Incarnation(life),
        number,
        heard: heard.map(|number| (LIFE, number)),
        opinions: opinions.iter().map(opinion).collect(),
    }
}

/// A group of three whose pulses have gone to and fro: what a has sent is numbered up to what is returned.
fn met() -> (Embedded, u64) {
    let mut a = directory(&["b", "c"], true);
    for (peer, life) in [("b", 2), ("c", 3)] {
        assert!(a.peer_up(id(peer), Incarnation(life), at(0)));
    }
    a.handle_timeout(at(0));
    for (peer, life) in [("b", 2), ("c", 3)] {
        a.pulse(id(peer), &sign(life, 1, Some(1), &[]), at(1));
    }
    a.handle_timeout(at(10));
    events(&mut a);
    (a, 2)
}

#[test]
fn without_replicas_or_with_two_nodes_there_are_no_pulses_and_nothing_runs_out() {
    for (others, replicated) in [(&["b", "c"][..], false), (&["b"], true), (&[], true)] {
        let mut a = directory(others, replicated);
        a.peer_up(id("b"), Incarnation(2), at(0));
        assert_eq!((a.deadline(), a.lease()), (None, Lease::Unlimited));
        assert_eq!(events(&mut a), []);
    }
}

/// Whoever is cut off before it has acknowledged the others cannot be voted out.
#[test]
fn the_first_pulse_of_a_life_is_acknowledged_at_once_and_until_then_it_is_new() {
    let mut a = directory(&["b", "c"], true);
    assert!(a.peer_up(id("b"), Incarnation(2), at(0)));
    a.handle_timeout(at(0));
    events(&mut a);
    a.pulse(id("b"), &sign(2, 1, None, &[]), at(3));
    assert_eq!((a.standing(id("b")), a.deadline()), (Standing::New, Some(at(3))));
    a.handle_timeout(at(3));
    let told = events(&mut a);
    let acknowledges = |event: &Event| matches!(event, Event::Tell(to, Message::Pulse(pulse)) if *to == id("b") && pulse.heard == Some((Incarnation(2), 1)));
    assert!(told.iter().any(acknowledges), "{told:?}");
    a.pulse(id("b"), &sign(2, 2, Some(2), &[]), at(4));
    assert_eq!((a.standing(id("b")), a.deadline()), (Standing::Alive, Some(at(13))), "the next as usual");
}

#[test]
fn a_proof_is_a_fact_that_is_told_once_and_to_all() {
    let mut a = directory(&["b", "c"], false);
    a.peer_up(id("b"), Incarnation(2), at(0));
    a.peer_up(id("c"), Incarnation(3), at(0));
    a.peer_down(id("b"), at(1));
    assert_eq!(a.standing(id("b")), Standing::Alive, "it may only be out of reach");
    a.proved(id("b"), Incarnation(2), at(2));
    let dead = Message::Dead { node: id("b"), life: Incarnation(2) };
    assert_eq!(events(&mut a), [Event::Died(id("b"), Incarnation(2)), Event::Tell(id("c"), dead)]);
    assert_eq!(a.standing(id("b")), Standing::Dead);
    a.proved(id("b"), Incarnation(2), at(3));
    a.told(id("c"), id("b"), Incarnation(2), at(3));
    assert_eq!(events(&mut a), []);
}

#[test]
fn a_new_life_proves_that_the_former_is_over() {
    let mut a = directory(&["b"], false);
    a.peer_up(id("b"), Incarnation(2), at(0));
    a.peer_down(id("b"), at(1));
    assert!(a.peer_up(id("b"), Incarnation(3), at(2)));
    assert_eq!(events(&mut a), [Event::Died(id("b"), Incarnation(2))]);
    assert_eq!(a.standing(id("b")), Standing::Alive);
    assert!(a.peer_up(id("b"), Incarnation(3), at(3)), "the same life, again");
    assert_eq!(events(&mut a), []);
}

#[test]
fn what_is_said_of_a_node_that_speaks_to_us_is_not_believed_before_its_link_ends() {
    let mut a = directory(&["b", "c"], false);
    a.peer_up(id("b"), Incarnation(2), at(0));
    a.told(id("c"), id("b"), Incarnation(2), at(1));
    assert_eq!((events(&mut a), a.standing(id("b"))), (vec![], Standing::Alive));
    a.peer_down(id("b"), at(2));
    assert_eq!(events(&mut a), [Event::Died(id("b"), Incarnation(2))]);
}

#[test]
fn a_life_that_is_over_is_told_so_if_it_turns_up_where_others_may_have_taken_its_place() {
    for replicated in [true, false] {
        let mut a = directory(&["b", "c"], replicated);
        a.peer_up(id("b"), Incarnation(2), at(0));
        a.peer_down(id("b"), at(1));
        a.proved(id("b"), Incarnation(2), at(2));
        events(&mut a);
        assert_eq!(a.peer_up(id("b"), Incarnation(2), at(3)), !replicated);
        let dead = Message::Dead { node: id("b"), life: Incarnation(2) };
        let told = if replicated { vec![Event::Tell(id("b"), dead)] } else { vec![] };
        assert_eq!(events(&mut a), told);
    }
}

#[test]
fn a_lease_counts_from_when_that_was_sent_which_a_majority_has_acknowledged() {
    let (mut a, newest) = met();
    assert_eq!(a.lease(), Lease::Until(at(200)));
    a.pulse(id("c"), &sign(3, 2, Some(newest), &[]), at(11));
    assert_eq!(a.lease(), Lease::Until(at(210)), "one other and this one are a majority of three");
    a.pulse(id("b"), &sign(2, 2, Some(1), &[]), at(12));
    assert_eq!(a.lease(), Lease::Until(at(210)));
    let mut foreign = sign(2, 3, Some(newest), &[]);
    foreign.heard = Some((Incarnation(77), newest));
    a.handle_timeout(at(20));
    a.pulse(id("b"), &foreign, at(21));
    assert_eq!(a.lease(), Lease::Until(at(210)), "it acknowledges another life");
    a.pulse(id("b"), &sign(2, 4, Some(99), &[]), at(22));
    assert_eq!(a.lease(), Lease::Until(at(210)), "nothing of that number was sent");
}

#[test]
fn nobody_votes_alone_and_whoever_speaks_again_is_trusted_again() {
    let (mut a, _) = met();
    let mut number = 1;
    let mut passes = |a: &mut Embedded, from, to, opinions: &[(&str, u64, Verdict)]| {
        for ms in (from..to).step_by(10) {
            number += 1;
            a.pulse(id("c"), &sign(3, number, Some(1), opinions), at(ms));
            a.handle_timeout(at(ms));
        }
    };
    passes(&mut a, 20, 210, &[]);
    assert_eq!(a.standing(id("b")), Standing::Alive, "not before a lease and 1 %");
    passes(&mut a, 210, 1000, &[]);
    assert_eq!(a.standing(id("b")), Standing::Suspected);
    a.pulse(id("b"), &sign(2, 2, Some(1), &[]), at(1000));
    assert_eq!(a.standing(id("b")), Standing::Alive);
    passes(&mut a, 1000, 1410, &[("b", 2, Verdict::Suspected)]);
    assert_eq!(a.standing(id("b")), Standing::Suspected, "condemned; the other has not voted yet");
    a.pulse(id("b"), &sign(2, 3, Some(1), &[]), at(1410));
    assert_eq!(a.standing(id("b")), Standing::Suspected, "and that is final");
    events(&mut a);
    passes(&mut a, 1410, 1420, &[("b", 2, Verdict::Voted)]);
    assert_eq!(a.standing(id("b")), Standing::Dead);
    assert!(events(&mut a).contains(&Event::Died(id("b"), Incarnation(2))));
}

#[test]
fn a_node_that_slept_does_not_suspect_the_others_of_its_own_silence() {
    let (mut a, _) = met();
    a.handle_timeout(at(5_000));
    assert_eq!(a.standing(id("b")), Standing::Alive);
    assert!(!a.lease().is_valid(at(5_000)), "but it may not serve before it has asked");
}

#[test]
fn nobody_loses_a_valid_lease_by_what_another_says() {
    let (mut a, _) = met();
    a.told(id("b"), id("a"), LIFE, at(20));
    a.pulse(id("b"), &sign(2, 2, Some(1), &[("a", 1, Verdict::Dead)]), at(20));
    assert!(!events(&mut a).contains(&Event::Lost));
    a.told(id("b"), id("a"), Incarnation(9), at(300));
    assert!(!events(&mut a).contains(&Event::Lost), "another life");
    a.pulse(id("b"), &sign(2, 3, Some(1), &[("a", 1, Verdict::Dead)]), at(300));
    assert_eq!(events(&mut a).iter().filter(|event| **event == Event::Lost).count(), 1);
    a.reborn(Incarnation(9), at(301));
    assert_eq!(a.lease(), Lease::Unlimited, "nobody knows the new life, so nobody can vote against it");
}

#[test]
fn the_last_of_three_may_serve_alone_when_the_end_of_the_others_is_proved() {
    let (mut a, _) = met();
    a.proved(id("b"), Incarnation(2), at(20));
    assert_eq!(a.lease(), Lease::Until(at(200)), "c may have been told of a vote of b's");
    a.pulse(id("c"), &sign(3, 2, Some(2), &[("b", 2, Verdict::Dead)]), at(21));
    assert_eq!(a.lease(), Lease::Unlimited, "c alone is no majority");
    let (mut a, _) = met();
    a.proved(id("b"), Incarnation(2), at(20));
    a.proved(id("c"), Incarnation(3), at(20));
    assert_eq!(a.lease(), Lease::Unlimited);
}

#[test]
fn pulses_of_others_cost_bounded_memory_and_never_a_panic() {
    let (mut a, _) = met();
    for number in 2..200 {
        let opinions: Vec<_> = (0..100).map(|n| ("b", number * 1000 + n, Verdict::Dead)).collect();
        a.pulse(id("c"), &sign(3, number, Some(u64::MAX), &opinions), at(11));
        events(&mut a);
    }
    a.handle_timeout(at(20));
    let said = events(&mut a);
    assert_eq!(pulses(&said), 2);
    for event in said {
        if let Event::Tell(_, Message::Pulse(pulse)) = event {
            assert!(pulse.opinions.len() <= 16, "{}", pulse.opinions.len());
        }
    }
    assert_eq!(a.standing(id("b")), Standing::Alive);
    a.pulse(id("x"), &sign(3, 1, None, &[]), at(21));
    a.pulse(id("c"), &sign(4, 1, None, &[("a", 1, Verdict::Dead)]), at(300));
    assert!(!events(&mut a).contains(&Event::Lost), "it is not the life that the link is to");
}

/// Two that had forgotten told each other again, for ever, of nodes that had been started anew often enough.
#[test]
fn the_end_of_a_life_is_told_once_however_many_have_ended_since() {
    let mut a = directory(&["b", "c"], true);
    a.peer_up(id("c"), Incarnation(3), at(0));
    for round in 0..2 {
        events(&mut a);
        for life in 100..140 {
            a.told(id("c"), id("b"), Incarnation(life), at(10));
        }
        let died = events(&mut a).into_iter().filter(|event| matches!(event, Event::Died(..))).count();
        assert_eq!(died, if round == 0 { 40 } else { 0 });
    }
    assert!(!a.peer_up(id("b"), Incarnation(101), at(20)), "nor does it come back");
    assert!(a.peer_up(id("b"), Incarnation(200), at(30)));
}

/// All who live have said that they know of b's end; then c starts anew, and has not heard of it. The vote of b, which does not
/// know of its end either, counts to it.
#[test]
fn a_newcomer_that_has_not_heard_of_an_end_makes_the_dead_count_again() {
    let (mut a, _) = met();
    a.proved(id("b"), Incarnation(2), at(20));
    a.pulse(id("c"), &sign(3, 2, Some(2), &[("b", 2, Verdict::Dead)]), at(21));
    assert_eq!(a.lease(), Lease::Unlimited, "c alone is no majority");
    a.peer_up(id("c"), Incarnation(4), at(300));
    a.pulse(id("c"), &sign(4, 1, None, &[]), at(310));
    a.handle_timeout(at(320));
    assert!(!a.lease().is_valid(at(320)), "c and b may be against us, as far as c knows");
    a.pulse(id("c"), &sign(4, 2, Some(3), &[]), at(330));
    assert!(matches!(a.lease(), Lease::Until(_)), "c is not, for the span of a lease");
    a.pulse(id("c"), &sign(4, 3, Some(3), &[("b", 2, Verdict::Dead), ("c", 3, Verdict::Dead)]), at(340));
    assert_eq!(a.lease(), Lease::Unlimited, "now it knows");
}

#[test]
fn a_life_that_was_given_up_says_nothing_in_the_name_of_the_next() {
    let (mut a, _) = met();
    a.handle_timeout(at(300));
    a.told(id("c"), id("a"), LIFE, at(300));
    a.told(id("c"), id("b"), Incarnation(99), at(300));
    assert_eq!(a.poll().map(|event| matches!(event, Event::Tell(..))), Some(true), "what it beats with");
    a.reborn(Incarnation(11), at(301));
    assert_eq!(events(&mut a), []);
}
