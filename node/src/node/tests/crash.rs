//! Nodes that die, and connections that do not.

use std::collections::BTreeSet;

use bytes::Bytes;
use ferry_handoff::{Incarnation, Message, NodeId};
use ferry_stack::tcp;

use super::ONE_MOVED;
use super::lan::{self, Lan};
use crate::node::{Commit, Setup};
use crate::{AuditResult, Command, Input, Reason, Which};

/// Each connection has so many copies.
fn protected(replicas: u8, commit: Commit) -> impl Fn(&mut Setup) {
    move |setup| {
        let services = core::mem::take(&mut setup.services);
        setup.services = services.into_iter().map(|service| service.protected(replicas, commit)).collect();
    }
}

fn holders(lan: &Lan) -> Vec<&'static str> {
    let alive = lan::NAMES.into_iter().filter(|name| !lan.dead.contains(name));
    alive.filter(|name| lan.nodes[name].status(lan.now).copies.held > 0).collect()
}

#[test]
fn a_connection_outlives_its_owner() {
    for commit in [Commit::Strict, Commit::Regenerate, Commit::None] {
        for owner in ["b", "c"] {
            let mut lan = Lan::new(protected(1, commit));
            let client = lan.connect();
            assert_eq!(lan.hand_off("a", owner), ONE_MOVED);
            assert_eq!(lan.echo(client, b"alive"), b"alive", "{commit:?}");
            let [holder] = holders(&lan)[..] else { panic!("one copy: {:?}", holders(&lan)) };
            lan.kill(owner);
            lan.client.tcp.with(client, |tcb| tcb.write(Bytes::from_static(b"into the gap ")));
            lan.run();
            lan.prove_to_all(owner);
            assert_eq!(lan.owner(), [holder], "{commit:?}");
            assert_eq!(lan.echo(client, b"and on"), b"into the gap and on", "{commit:?}");
            assert_eq!(lan.nodes[holder].status(lan.now).copies.recovered, 1);
            assert_eq!(holders(&lan).len(), 1, "and it is protected again");
            assert_eq!(lan.resets(), 0);
        }
    }
}

#[test]
fn of_many_connections_of_a_dead_node_the_one_whose_client_waits_goes_on_first() {
    for active in [0, 5, 11] {
        let mut lan = Lan::new(protected(1, Commit::Strict));
        let clients: Vec<_> = (0..12).map(|_| lan.connect()).collect();
        lan.hand_off("a", "b");
        lan.pass(300);
        assert_eq!(lan.echo(clients[active], b"alive"), b"alive");
        lan.audits.clear();
        lan.kill("b");
        lan.prove_to_all("b");
        let port = lan.client.tcp.get(clients[active]).unwrap().flow.local.port();
        let crashes = || lan.audits.iter().filter(|(_, audit)| audit.why == Reason::Crash);
        let (at, _) = crashes().find(|(_, audit)| audit.client.port() == port).expect("it goes on");
        let (_, first) = crashes().find(|(by, _)| by == at).unwrap();
        assert_eq!((first.client.port(), crashes().count()), (port, 12), "at {at}");
        for client in clients {
            assert_eq!(lan.echo(client, b"goes on"), b"goes on");
        }
    }
}

/// Before it has begun with those of the first, and between any two of them.
#[test]
fn a_second_node_may_die_at_each_message_while_it_goes_on_with_the_connections_of_the_first() {
    for (victim, rest) in [(&["a"], "c"), (&["c"], "a")] {
        for nth in 0.. {
            let mut lan = Lan::new(protected(2, Commit::Strict));
            let clients: Vec<_> = (0..8).map(|_| lan.connect()).collect();
            lan.hand_off("a", "b");
            lan.pass(300);
            lan.doom(victim, nth);
            lan.let_die(&["b"]);
            lan.pass(20);
            if !lan.has_come_true() {
                assert!(nth > 30, "{nth} messages");
                break;
            }
            lan.let_die(victim);
            for client in clients {
                assert_eq!(lan.echo(client, b"goes on"), b"goes on", "{victim:?} after {nth} messages");
            }
            let (owned, resets) = (lan.nodes[rest].connections().len(), lan.resets());
            assert_eq!((owned, resets), (8, 0), "{victim:?} after {nth} messages");
        }
    }
}

fn remembered(lan: &Lan) -> usize {
    let alive = lan::NAMES.into_iter().filter(|name| !lan.dead.contains(name));
    let of = |name| {
        let all = lan.nodes[name].remembered();
        ["copies", "copies to be forgotten", "copies left behind", "orphans"].map(|what| all[what])
    };
    alive.flat_map(of).sum()
}

fn say(lan: &mut Lan, client: tcp::Handle, octets: &'static [u8]) {
    lan.client.tcp.with(client, |tcb| tcb.write(Bytes::from_static(octets)));
    lan.run();
}

/// Octets that the client has received and not looked at.
fn heard(lan: &Lan, client: tcp::Handle) -> usize {
    lan.client.tcp.get(client).unwrap().readable()
}

#[test]
fn when_a_connection_is_over_nobody_remembers_a_copy_of_it() {
    for (replicas, ways) in [(1, &[][..]), (2, &[]), (1, &[("a", "b"), ("b", "c")]), (2, &[("a", "c")])] {
        let mut lan = Lan::new(protected(replicas, Commit::Strict));
        let client = lan.connect();
        for (from, to) in ways {
            assert_eq!(lan.hand_off(from, to), ONE_MOVED);
        }
        assert_eq!(lan.echo(client, b"x"), b"x");
        assert_eq!(holders(&lan).len(), usize::from(replicas), "{ways:?}");
        lan.client.tcp.with(client, tcp::Tcb::finish);
        lan.pass(200);
        assert_eq!(lan.owner(), [""; 0]);
        assert_eq!(remembered(&lan), 0, "{replicas} {ways:?}");
        assert_eq!(lan.resets(), 0);
    }
}

#[test]
fn strictly_nothing_is_acknowledged_or_said_that_no_backup_has() {
    for (commit, acknowledged, echoed) in
        [(Commit::Strict, false, 0), (Commit::Regenerate, false, 4), (Commit::None, true, 4)]
    {
        let mut lan = Lan::new(protected(1, commit));
        let client = lan.connect();
        assert_eq!(lan.echo(client, b"x"), b"x");
        let [holder] = holders(&lan)[..] else { panic!("one copy") };
        lan.deafen("a", holder, true);
        say(&mut lan, client, b"held");
        lan.pass(50);
        let tcb = lan.client.tcp.get(client).unwrap();
        assert_eq!(tcb.snd.queue.is_empty(), acknowledged, "{commit:?}");
        assert_eq!(heard(&lan, client), echoed, "{commit:?}");
        lan.deafen("a", holder, false);
        lan.pass(300);
        assert_eq!((heard(&lan, client), lan.resets()), (4, 0), "{commit:?}");
        assert!(lan.client.tcp.get(client).unwrap().snd.queue.is_empty());
    }
}

#[test]
fn a_connection_whose_backup_dies_gets_another_and_goes_on() {
    let mut lan = Lan::new(protected(1, Commit::Strict));
    let client = lan.connect();
    assert_eq!(lan.echo(client, b"x"), b"x");
    let [holder] = holders(&lan)[..] else { panic!("one copy") };
    lan.kill(holder);
    say(&mut lan, client, b"meanwhile");
    assert_eq!(heard(&lan, client), 0, "it is not known yet that the backup is dead");
    lan.prove_to_all(holder);
    assert_eq!(heard(&lan, client), 9);
    assert_eq!(holders(&lan).len(), 1);
    assert!(!holders(&lan).contains(&holder));
}

#[test]
fn a_connection_goes_on_unprotected_when_there_is_nobody_left() {
    let mut lan = Lan::new(protected(2, Commit::Strict));
    let client = lan.connect();
    assert_eq!(lan.echo(client, b"x"), b"x");
    for name in ["b", "c"] {
        lan.kill(name);
        lan.prove_at(name, "a");
    }
    let copies = lan.nodes["a"].status(lan.now).copies;
    assert_eq!((copies.protected, copies.unprotected), (0, 1), "and says so");
    assert_eq!(lan.echo(client, b"alone"), b"alone");
    assert_eq!(lan.nodes["a"].connections()[0].protection.as_ref().unwrap().holders, [""; 0]);
}

#[test]
fn a_connection_outlives_its_owner_and_one_of_two_backups_at_once() {
    for gone in ["b", "c"] {
        let mut lan = Lan::new(protected(2, Commit::Strict));
        let client = lan.connect();
        assert_eq!(lan.hand_off("a", gone), ONE_MOVED);
        let owner = lan.owner()[0];
        let other = if owner == "b" { "c" } else { "b" };
        assert_eq!(lan.echo(client, b"alive"), b"alive");
        lan.kill(owner);
        lan.kill(other);
        say(&mut lan, client, b"into the gap ");
        lan.prove_at(owner, "a");
        lan.prove_at(other, "a");
        assert_eq!(lan.owner(), ["a"]);
        assert_eq!(lan.echo(client, b"and on"), b"into the gap and on");
        assert_eq!(lan.resets(), 0);
    }
}

#[test]
fn one_crash_after_another_is_outlived() {
    let mut lan = Lan::new(protected(1, Commit::Strict));
    let client = lan.connect();
    assert_eq!(lan.hand_off("a", "b"), ONE_MOVED);
    for round in 0..4 {
        let [owner] = lan.owner()[..] else { panic!("one owner: {:?}", lan.owner()) };
        if owner == "a" {
            let to = if round % 2 == 0 { "b" } else { "c" };
            assert_eq!(lan.hand_off("a", to), ONE_MOVED);
        }
        let [owner] = lan.owner()[..] else { panic!("one owner") };
        assert_eq!(lan.echo(client, b"alive"), b"alive");
        lan.kill(owner);
        lan.prove_to_all(owner);
        assert_eq!(lan.echo(client, b"again"), b"again", "round {round}, without {owner}");
        lan.revive(owner, protected(1, Commit::Strict));
        lan.pass(300);
        assert_eq!(holders(&lan).len(), 1);
    }
    assert_eq!(lan.resets(), 0);
    lan.client.tcp.with(client, tcp::Tcb::finish);
    lan.pass(300);
    assert_eq!((lan.owner(), remembered(&lan)), (vec![], 0));
}

/// What the nodes say to each other in a life with a handoff and a crash, whichever message is lost.
#[test]
fn whichever_message_is_lost_the_connection_outlives_a_handoff_and_a_crash() {
    let mut nth = 0;
    loop {
        let mut lan = Lan::new(protected(1, Commit::Strict));
        lan.lose = Some(nth);
        let client = lan.connect();
        assert_eq!(lan.echo(client, b"one"), b"one", "without message {nth}");
        let command = Command::Handoff { to: "b".to_owned(), which: Which::All };
        lan.nodes.get_mut("a").unwrap().handle(Input::Command { id: 900, command }, lan.now);
        lan.run();
        lan.pass(1_000);
        assert_eq!(lan.echo(client, b"two"), b"two", "without message {nth}");
        let [owner] = lan.owner()[..] else { panic!("one owner, without message {nth}") };
        if owner == "b" {
            lan.kill("b");
            lan.prove_to_all("b");
        }
        lan.pass(500);
        assert_eq!(lan.echo(client, b"three"), b"three", "without message {nth}");
        lan.client.tcp.with(client, tcp::Tcb::finish);
        lan.pass(6_000);
        assert_eq!((lan.owner(), remembered(&lan), lan.resets()), (vec![], 0, 0), "without message {nth}");
        if lan.lose.is_some() {
            assert!(nth > 30, "{nth} messages");
            return;
        }
        nth += 1;
    }
}

#[test]
fn a_donor_that_dies_while_what_it_gives_is_under_way_leaves_its_copy_or_the_acceptor() {
    b_dies_during_a_handoff("b", "c");
}

#[test]
fn an_acceptor_that_dies_leaves_what_it_was_given_to_the_donor_or_to_its_own_backup() {
    b_dies_during_a_handoff("a", "b");
}

/// Whether the connection has arrived or not.
fn b_dies_during_a_handoff(from: &'static str, to: &str) {
    for lost in [false, true] {
        let mut lan = Lan::new(protected(1, Commit::Strict));
        let client = lan.connect();
        if from != "a" {
            lan.hand_off("a", from);
        }
        assert_eq!(lan.echo(client, b"x"), b"x");
        lan.lose_transfers = lost;
        let command = Command::Handoff { to: to.to_owned(), which: Which::All };
        lan.nodes.get_mut(from).unwrap().handle(Input::Command { id: 900, command }, lan.now);
        lan.run();
        lan.kill("b");
        lan.prove_to_all("b");
        lan.pass(100);
        assert_eq!(lan.owner().len(), 1, "lost: {lost}");
        assert_eq!(lan.echo(client, b"goes on"), b"goes on", "lost: {lost}");
        assert_eq!(lan.resets(), 0);
    }
}

#[test]
fn each_recovery_leaves_one_line_and_is_traced() {
    let mut lan = Lan::new(protected(1, Commit::Strict));
    lan.connect();
    lan.hand_off("a", "b");
    lan.audits.clear();
    lan.kill("b");
    lan.prove_to_all("b");
    let crashes: Vec<_> = lan.audits.iter().filter(|(_, audit)| audit.why == Reason::Crash).collect();
    let [(at, audit)] = &crashes[..] else { panic!("{crashes:?}") };
    assert_eq!((&*audit.from, &*audit.to, &audit.result), ("b", *at, &AuditResult::Moved));
    assert_eq!((audit.before, audit.epoch), (Some(2), 2 + (1 << 32)));
}

#[test]
fn an_idle_connection_costs_its_copies_nothing() {
    let mut lan = Lan::new(protected(1, Commit::Strict));
    let client = lan.connect();
    assert_eq!(lan.echo(client, b"x"), b"x");
    lan.pass(1_000);
    let deltas = |lan: &Lan| lan.nodes["a"].status(lan.now).copies.deltas;
    let before = deltas(&lan);
    lan.pass(20_000);
    assert_eq!(deltas(&lan), before);
}

/// A node that starts is told by the others of all lives that are over.
#[test]
fn what_is_told_of_a_former_life_of_a_node_takes_nothing_from_its_present_one() {
    let mut lan = Lan::new(protected(1, Commit::Strict));
    let client = lan.connect();
    assert_eq!(lan.echo(client, b"x"), b"x");
    let [holder] = holders(&lan)[..] else { panic!("one copy") };
    for name in ["b", "c"] {
        let other = if name == "b" { "c" } else { "b" };
        let told = Message::Dead { node: NodeId::of("a"), life: Incarnation(4711) };
        let told = Input::Peer { from: NodeId::of(other), bytes: told.encode() };
        lan.nodes.get_mut(name).unwrap().handle(told, lan.now);
    }
    lan.pass(100);
    assert_eq!((lan.owner(), holders(&lan)), (vec!["a"], vec![holder]));
    assert_eq!(lan.echo(client, b"still"), b"still");
    lan.kill("a");
    lan.prove_to_all("a");
    assert_eq!(lan.owner(), [holder], "and it still counts when that one ends");
}

/// Many connections may come to a node that has sent nothing yet.
#[test]
fn a_node_asks_for_its_gateway_before_it_has_anything_to_send() {
    let lan = Lan::new(|_| {});
    // Its solicited-node multicast address (RFC 4291 section 2.7.1).
    let low = lan::address(99).address.to_bits() & 0x00ff_ffff;
    let group = std::net::Ipv6Addr::from_bits(0xff02_0000_0000_0000_0000_0001_ff00_0000 | low);
    let asked = lan.sent.iter().filter(|(_, to)| *to == group).count();
    assert_eq!(asked, lan::NAMES.len());
}

#[test]
fn every_client_of_a_dead_node_hears_at_once_from_the_one_that_goes_on() {
    let mut lan = Lan::new(protected(1, Commit::Strict));
    for _ in 0..200 {
        lan.connect_at_once();
    }
    lan.pass(200);
    lan.hand_off("a", "b");
    lan.pass(200);
    assert_eq!(lan.nodes["b"].connections().len(), 200);
    lan.kill("b");
    let before = lan.seen.len();
    lan.prove_to_all("b");
    lan.pass(2);
    // Each client's numbers begin elsewhere.
    let heard: BTreeSet<_> = lan.seen[before..].iter().filter_map(|segment| Some(segment.ack?.0)).collect();
    assert_eq!((heard.len(), lan.resets()), (200, 0));
}

#[test]
fn whichever_message_of_a_handoff_is_lost_the_donor_hears_in_the_end_that_it_was_taken() {
    for lost in 0..16 {
        let mut lan = Lan::new(protected(2, Commit::Strict));
        let client = lan.connect();
        assert_eq!(lan.echo(client, b"x"), b"x");
        lan.lose = Some(lost);
        lan.ask("a", Command::Handoff { to: "b".to_owned(), which: Which::All });
        lan.pass(5_000);
        let under_way = lan::NAMES.map(|name| lan.nodes[name].status(lan.now).moving);
        assert_eq!(under_way, [0; 3], "without message {lost}");
        assert_eq!((lan.owner(), holders(&lan)), (vec!["b"], vec!["a", "c"]), "without message {lost}");
    }
}

#[test]
fn whoever_goes_on_with_a_connection_does_so_under_a_later_epoch_than_all_who_may_have_before() {
    for lost in 0..12 {
        let mut lan = Lan::new(protected(2, Commit::Regenerate));
        let client = lan.connect();
        assert_eq!(lan.hand_off("a", "b"), ONE_MOVED);
        assert_eq!(lan.echo(client, b"x"), b"x");
        lan.kill("b");
        lan.lose = Some(lost);
        lan.prove_to_all("b");
        let [first] = lan.owner()[..] else { continue };
        let epoch = lan.nodes[first].connections()[0].epoch;
        lan.kill(first);
        lan.prove_to_all(first);
        lan.pass(500);
        let [second] = lan.owner()[..] else { panic!("nobody goes on, without message {lost}") };
        let later = lan.nodes[second].connections()[0].epoch;
        assert!(later > epoch, "{later} at {second} after {epoch} at {first}, without message {lost}");
    }
}
