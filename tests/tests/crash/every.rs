//! A crash at every moment of a scene.

use core::time::Duration;

use ferry_node::{Commit, Placement};
use ferry_tests::draw::Kind;
use ferry_tests::seeds::{self, Tally};
use ferry_tests::world::{Blow, End};

use super::scene::{Scene, ms};

/// What befalls a node.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fate {
    /// Its process ends.
    Crash,
    /// Its host is gone: the others have to find that out by themselves.
    Vanish,
    /// It stands still until the others have given it up.
    Stop,
    /// It ends, and a little later another one does.
    Pair,
    /// It ends, and another one in the same moment.
    Both,
    /// The cable between its end of the home link and the router is pulled; the nodes reach each other.
    Unplugged,
}

impl Fate {
    fn blows(self, node: usize, nodes: usize, moment: u64) -> Vec<(Duration, Blow)> {
        let (now, again) = (Duration::ZERO, ms(100 + moment * 37 % 400));
        match self {
            Self::Crash => vec![(now, Blow::Crash(node)), (again, Blow::Restart(node))],
            Self::Vanish => vec![(now, Blow::Vanish(node)), (ms(600), Blow::Restart(node))],
            Self::Stop => vec![(now, Blow::Stop(node)), (ms(300 + moment * 37 % 400), Blow::Continue(node))],
            Self::Both => {
                let other = other_of(node, nodes, moment);
                [Self::Crash.blows(node, nodes, moment), Self::Crash.blows(other, nodes, moment)].concat()
            }
            Self::Unplugged => {
                let (node, long) = (End::Node(node), ms(50 + moment * 37 % 900));
                let [there, back] = [(node, End::Clients), (End::Clients, node)];
                let cut = |(from, to)| [(now, Blow::Cut(from, to)), (long, Blow::Heal(from, to))];
                [cut(there), cut(back)].concat()
            }
            Self::Pair => {
                let other = other_of(node, nodes, moment);
                let soon = Duration::from_micros(moment * 7_919 % 9_000);
                let second = [(soon, Blow::Crash(other)), (again + soon, Blow::Restart(other))];
                [Self::Crash.blows(node, nodes, moment), second.to_vec()].concat()
            }
        }
    }
}

fn other_of(node: usize, nodes: usize, moment: u64) -> usize {
    let others = usize::try_from(moment).unwrap_or(0) % (nodes - 1);
    (node + 1 + others) % nodes
}

/// A scene of three nodes and one copy, or of four and two. In the later half of four scenes all nodes are on the home link; in one of
/// those the role of the contact node moves.
pub(super) fn scene(nth: u64, commit: Commit, fate: Fate) -> Scene {
    let (nodes, replicas) = if matches!(fate, Fate::Pair | Fate::Both) { (4, 2) } else { (3, 1) };
    let shared = nth % 4 >= 2;
    Scene {
        shared,
        takes: (shared && nth % 4 == 3).then_some(1),
        seed: nth,
        nodes,
        replicas,
        commit,
        placement: [Placement::Local, Placement::RoundRobin][(nth % 2) as usize],
        kind: if nth % 3 == 2 { Kind::Aware } else { Kind::Ours },
        handoffs: nth % 4,
    }
}

pub(super) fn play_case(case: u64, commit: Commit, fate: Fate, log: bool) -> Tally {
    let (nth, node, moment) = (case / 100_000, (case / 10_000 % 10) as usize, case % 10_000);
    let scene = scene(nth, commit, fate);
    scene.play(moment, &fate.blows(node, scene.nodes, moment), log)
}

/// Every moment of each scene, or one of so many, and each of the nodes. The number of a case names all three.
fn every_moment(name: &str, commit: Commit, fate: Fate, scenes: u64, one_of: usize) -> Tally {
    let cases = (0..scenes * seeds::times()).flat_map(|nth| {
        let scene = scene(nth, commit, fate);
        let (moments, nodes) = (scene.moments(), scene.nodes as u64);
        assert!((100..10_000).contains(&moments), "{moments} moments in scene {nth}");
        (0..nodes).flat_map(move |node| {
            let first = 1 + (nth + node) % one_of as u64;
            (first..=moments).step_by(one_of).map(move |at| (nth * 10 + node) * 10_000 + at)
        })
    });
    let tally = seeds::each("crash", &format!("every::{name}"), cases, |case, log| {
        play_case(case, commit, fate, log)
    });
    assert!(seeds::replaying() || tally.connections == tally.seeds * 2, "{tally:?}");
    tally
}

#[test]
fn whoever_dies_at_any_moment_no_strict_connection_is_lost() {
    let name = "whoever_dies_at_any_moment_no_strict_connection_is_lost";
    every_moment(name, Commit::Strict, Fate::Crash, 4, 1);
}

#[test]
fn whoever_dies_at_any_moment_no_regenerated_connection_is_lost() {
    let name = "whoever_dies_at_any_moment_no_regenerated_connection_is_lost";
    every_moment(name, Commit::Regenerate, Fate::Crash, 4, 1);
}

#[test]
fn whoever_vanishes_at_any_moment_no_connection_is_lost() {
    let name = "whoever_vanishes_at_any_moment_no_connection_is_lost";
    every_moment(name, Commit::Strict, Fate::Vanish, 4, 3);
}

#[test]
fn whoever_stands_still_from_any_moment_on_no_connection_is_lost() {
    let name = "whoever_stands_still_from_any_moment_on_no_connection_is_lost";
    every_moment(name, Commit::Strict, Fate::Stop, 4, 3);
}

#[test]
fn whichever_two_die_in_one_moment_no_connection_with_two_copies_is_lost() {
    let name = "whichever_two_die_in_one_moment_no_connection_with_two_copies_is_lost";
    every_moment(name, Commit::Strict, Fate::Both, 4, 5);
}

#[test]
fn whoever_loses_the_home_link_at_any_moment_no_connection_is_lost() {
    let name = "whoever_loses_the_home_link_at_any_moment_no_connection_is_lost";
    every_moment(name, Commit::Strict, Fate::Unplugged, 4, 5);
}

#[test]
fn whichever_two_die_one_soon_after_the_other_no_connection_with_two_copies_is_lost() {
    let name = "whichever_two_die_one_soon_after_the_other_no_connection_with_two_copies_is_lost";
    every_moment(name, Commit::Strict, Fate::Pair, 4, 3);
}
