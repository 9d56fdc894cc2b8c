//! What the directory does when etcd, the other nodes and the ways to them do what they may.

mod store;
mod world;

use ferry_handoff::NodeId;

use self::world::{MS, World};
use crate::directory::{Directory as _, Lease};
use crate::io::{Standing, StoreAnswer};

const SECOND: u64 = 1000 * MS;

/// A group that has found itself.
fn settled(nodes: usize) -> World {
    let mut world = World::new(7, nodes);
    world.pass(SECOND);
    for nth in 0..nodes {
        assert!(world.store.value(&format!("nodes/n{nth}")).is_some(), "n{nth} is registered");
        assert!(world.serves(nth));
    }
    world
}

fn standing(world: &World, at: usize, of: usize) -> Standing {
    world.directory(at).standing(world.places[of].id)
}

/// Links between these and the others carry nothing.
fn part(world: &mut World, apart: usize) {
    for other in (0..world.places.len()).filter(|other| *other != apart) {
        world.cut.extend([(apart, other), (other, apart)]);
    }
}

#[test]
fn of_two_the_one_that_is_silent_beyond_its_lease_is_dead_and_learns_it() {
    let mut world = settled(2);
    let life = world.places[1].life;
    let wakes = world.now + 6 * SECOND;
    world.sleep(1, wakes);
    world.pass(SECOND);
    assert_eq!(standing(&world, 0, 1), Standing::Alive, "its lease holds");
    world.pass(4 * SECOND);
    assert_eq!(standing(&world, 0, 1), Standing::Dead);
    assert!(world.serves(0), "the last one goes on");
    world.pass(2 * SECOND);
    assert_eq!(world.lost, 1);
    assert_ne!(world.places[1].life, life);
    world.pass(2 * SECOND);
    assert!(world.serves(0) && world.serves(1));
    assert_eq!(standing(&world, 0, 1), Standing::Alive, "in a new life");
}

#[test]
fn without_etcd_everybody_serves_on_and_nobody_dies_of_silence() {
    for nodes in 2..=4 {
        let mut world = settled(nodes);
        world.store_up = false;
        world.pass(20 * SECOND);
        assert!((0..nodes).all(|nth| world.serves(nth)), "{nodes}");
        let status = world.directory(0).etcd(world.places[0].clock(world.now)).unwrap();
        assert!(!status.connected && !status.registered);
        assert!(world.directory(0).hindrance().is_some());
        let wakes = world.now + 10 * SECOND;
        world.sleep(1, wakes);
        world.pass(9 * SECOND);
        assert_eq!(standing(&world, 0, 1), Standing::Suspected, "{nodes}");
        // Of two, each could be the one that etcd takes for dead.
        assert_eq!(world.serves(0), nodes > 2, "{nodes}");
        world.pass(2 * SECOND);
        world.store_comes_back();
        world.pass(3 * SECOND);
        assert!((0..nodes).all(|nth| world.serves(nth)), "{nodes}");
        assert_eq!((world.deaths, world.lost), (0, 0));
        assert!(world.directory(0).etcd(world.places[0].clock(world.now)).unwrap().registered);
    }
}

#[test]
fn a_node_that_only_etcd_does_not_hear_serves_on_as_long_as_the_others_hear_it() {
    let mut world = settled(2);
    world.cut_from_store.insert(1);
    world.pass(10 * SECOND);
    assert_eq!(world.store.value("nodes/n1"), None, "its lease has run out there");
    assert!(world.serves(0) && world.serves(1));
    assert_eq!((world.deaths, standing(&world, 0, 1)), (0, Standing::Alive));
    part(&mut world, 1);
    world.pass(10 * SECOND);
    assert!(world.serves(0) && !world.serves(1));
    assert_eq!(standing(&world, 0, 1), Standing::Dead);
}

#[test]
fn whoever_is_cut_off_stops_before_it_is_given_up_however_late_it_learns_of_it() {
    let mut world = settled(3);
    part(&mut world, 2);
    world.cut_from_store.insert(2);
    // The world looks after every event that who serves is dead to nobody.
    world.pass(30 * SECOND);
    assert!(!world.serves(2) && world.serves(0) && world.serves(1));
    assert_eq!([standing(&world, 0, 2), standing(&world, 1, 2)], [Standing::Dead; 2]);
    world.cut.clear();
    world.cut_from_store.clear();
    world.pass(11 * SECOND);
    assert_eq!(world.lost, 1);
    assert!(world.serves(2));
}

#[test]
fn half_of_a_group_that_cannot_reach_the_other_half_is_not_dead_while_etcd_vouches_for_it() {
    let mut world = settled(4);
    for (one, other) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        world.cut.extend([(one, other), (other, one)]);
    }
    world.pass(20 * SECOND);
    assert!((0..4).all(|nth| world.serves(nth)));
    assert_eq!(world.deaths, 0);
    world.cut_from_store.extend([2, 3]);
    world.pass(20 * SECOND);
    assert_eq!(
        [world.serves(0), world.serves(1), world.serves(2), world.serves(3)],
        [true, true, false, false]
    );
}

#[test]
fn a_proof_needs_no_etcd_and_is_put_on_record_when_it_is_back() {
    let mut world = settled(2);
    world.store_up = false;
    world.pass(5 * SECOND);
    let life = world.places[1].life.0;
    world.crash(1, true);
    world.pass(100 * MS);
    assert_eq!(standing(&world, 0, 1), Standing::Dead);
    world.pass(10 * SECOND);
    assert_eq!(world.directory(0).lease(), Lease::Unlimited, "nobody is left");
    world.store_comes_back();
    world.pass(SECOND);
    let record = world.store.value("lives/n1").unwrap();
    assert_eq!(record, format!("{{\"life\":\"{life:016x}\",\"dead\":true,\"gone\":true}}"));
    assert_eq!(world.store.value("nodes/n1"), None, "that life's registration is gone at once");
    world.start(1);
    world.pass(SECOND);
    assert!(world.store.value("nodes/n1").is_some_and(|value| !value.contains(&format!("{life:016x}"))));
}

#[test]
fn the_last_of_three_takes_the_place_of_the_second_after_a_proof_of_the_end_of_the_first() {
    let mut world = settled(3);
    world.crash(0, true);
    world.pass(5 * SECOND);
    world.crash(1, false);
    world.pass(8 * SECOND);
    assert_eq!([standing(&world, 2, 0), standing(&world, 2, 1)], [Standing::Dead; 2]);
    assert!(world.serves(2));
}

#[test]
fn of_two_that_want_the_role_in_one_term_one_gets_it_and_both_know_who() {
    let mut world = settled(3);
    assert!(world.store.value("contact").unwrap().contains("\"n0\""), "as it is configured");
    for nth in [1, 2] {
        let (id, now) = (world.places[nth].id, world.places[nth].clock(world.now));
        assert!(!world.places[nth].directory.as_mut().unwrap().appoint(id, 1, now));
    }
    world.pass(2 * SECOND);
    let contacts: Vec<_> = world.places.iter().map(|place| place.contact.unwrap()).collect();
    assert_eq!(contacts[0], contacts[1]);
    assert_eq!(contacts[1], contacts[2]);
    assert_eq!(world.store.value("contact").unwrap().matches("\"term\":1").count(), 1);
    world.store_up = false;
    world.pass(5 * SECOND);
    let before = world.places[0].contact;
    let (id, now) = (world.places[0].id, world.places[0].clock(world.now));
    world.places[0].directory.as_mut().unwrap().appoint(id, 2, now);
    world.pass(5 * SECOND);
    assert_eq!(world.places[0].contact, before, "no role changes without etcd");
    world.store_comes_back();
    // Whose watch died unnoticed looks again after ten seconds.
    world.pass(13 * SECOND);
    assert_eq!(world.places[1].contact, Some((NodeId::of("n0"), 2)));
}

#[test]
fn a_node_that_starts_later_learns_the_role_and_the_dead_from_etcd() {
    let mut world = settled(2);
    world.crash(1, true);
    world.pass(SECOND);
    let (id, now) = (world.places[0].id, world.places[0].clock(world.now));
    world.places[0].directory.as_mut().unwrap().appoint(id, 5, now);
    world.pass(SECOND);
    world.start(1);
    world.pass(SECOND);
    assert_eq!(world.places[1].contact, Some((NodeId::of("n0"), 5)));
}

#[test]
fn changes_are_seen_though_the_watch_was_compacted_away_or_died_unnoticed() {
    let mut world = settled(2);
    let ended = world.store.compact();
    assert_eq!(ended.len(), 2);
    world.tell(ended.into_iter().map(|watcher| (watcher, StoreAnswer::Failed)).collect());
    world.pass(SECOND);
    assert_eq!(world.store.has_watchers(), 2, "both watch again");
    world.store.compact();
    // Nobody has told them. They look by themselves now and then.
    world.crash(1, false);
    world.pass(20 * SECOND);
    assert_eq!(standing(&world, 0, 1), Standing::Dead);
    assert_eq!(world.store.has_watchers(), 1, "the one that is left watches again");
}

#[test]
fn an_etcd_that_has_lost_everything_is_told_anew() {
    let mut world = settled(3);
    for nth in 0..3 {
        let (id, now) = (world.places[1].id, world.places[nth].clock(world.now));
        world.places[nth].directory.as_mut().unwrap().appoint(id, 9, now);
    }
    world.pass(SECOND);
    world.store = store::Store::new();
    world.pass(12 * SECOND);
    assert!((0..3).all(|nth| world.serves(nth)));
    assert_eq!((world.deaths, world.lost), (0, 0));
    assert!(world.store.value("nodes/n2").is_some());
    assert!(world.store.value("contact").unwrap().contains("n1"), "the role is where it was");
}

#[test]
fn a_record_that_is_no_record_harms_nobody() {
    let mut world = settled(2);
    let changes = ["lives/n1", "nodes/n1", "contact", "lives/n0", "x"];
    let cell = |revision| crate::io::Cell { value: "{\"life\":7}".into(), revision };
    let told = |id: u64, revision: i64| {
        let changes = changes.iter().map(|key| ((*key).to_owned(), Some(cell(revision)))).collect();
        ((0, id), StoreAnswer::Changed { revision, changes })
    };
    world.tell((1..40).map(|id| told(id, 1000 + i64::try_from(id).unwrap())).collect());
    world.pass(5 * SECOND);
    assert_eq!((world.deaths, world.lost), (0, 0));
    assert_eq!(standing(&world, 0, 1), Standing::Alive);
}

/// Faults at any moment, then none: at the end everybody serves and sees everybody.
fn random(seed: u64) -> (u64, u64) {
    let mut draw = world::Draw::of(seed);
    let nodes = 2 + draw.index(4);
    let mut world = World::new(seed, nodes);
    (world.loss, world.delay) = ([10, 50, 1000][draw.index(3)], [1, 50, 300][draw.index(3)] * MS);
    for _ in 0..30 {
        let (nth, other) = (draw.index(nodes), draw.index(nodes));
        let span = draw.below(5 * SECOND);
        match draw.below(12) {
            0 if world.places[nth].directory.is_some() => {
                let seen = draw.one_in(2);
                world.crash(nth, seen);
                world.restart_after(nth, span);
            }
            1 | 2 if nth != other => drop(world.cut.insert((nth, other))),
            3 => part(&mut world, nth),
            4 => world.cut.clear(),
            5 => drop(world.cut_from_store.insert(nth)),
            6 => world.cut_from_store.clear(),
            7 => world.store_up = false,
            8 if !world.store_up => world.store_comes_back(),
            9 => {
                let until = world.now + span;
                world.sleep(nth, until);
            }
            10 => drop(world.store.compact()),
            _ => {}
        }
        let span = draw.below(4 * SECOND);
        world.pass(span);
    }
    world.cut.clear();
    world.cut_from_store.clear();
    if !world.store_up {
        world.store_comes_back();
    }
    (world.loss, world.delay) = (u64::MAX, MS);
    for nth in 0..nodes {
        world.restart_after(nth, 0);
    }
    world.pass(30 * SECOND);
    for nth in 0..nodes {
        assert!(world.serves(nth), "seed {seed}: n{nth} does not serve");
        for other in (0..nodes).filter(|other| *other != nth) {
            assert_eq!(standing(&world, nth, other), Standing::Alive, "seed {seed}: n{other} at n{nth}");
        }
    }
    (world.deaths, world.lost)
}

#[test]
fn nobody_who_serves_is_ever_given_up_whatever_is_lost_late_cut_or_asleep() {
    let (mut deaths, mut lost) = (0, 0);
    for seed in 0..150 {
        let (died, gave_up) = random(seed);
        (deaths, lost) = (deaths + died, lost + gave_up);
    }
    assert!(deaths > 100 && lost > 50, "the faults were too kind: {deaths} deaths, {lost} lives given up");
}
