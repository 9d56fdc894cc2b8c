//! The contact node dies, and another takes its place.

use std::collections::BTreeSet;

use bytes::Bytes;
use ferry_handoff::{Incarnation, NodeId};
use ferry_stack::tcp::{Handle, Tcb};

use super::lan::{self, Lan, home_agent, setup};
use crate::node::service::Commit;
use crate::node::{Node, Placement};
use crate::{Command, Input, Setup, Which};

fn spread(setup: &mut Setup) {
    setup.placement = Placement::RoundRobin;
}

/// Each connection has so many copies, and each node in turn gets one.
fn protected(replicas: u8) -> impl Fn(&mut Setup) {
    move |setup| {
        spread(setup);
        let services = std::mem::take(&mut setup.services);
        let protected = services.into_iter().map(|service| service.protected(replicas, Commit::Strict));
        setup.services = protected.collect();
    }
}

/// On the home link, or with a home agent.
fn group(agent: bool, change: impl Fn(&mut Setup)) -> Lan {
    if agent { Lan::with_agent(change) } else { Lan::new(change) }
}

fn alive(lan: &Lan) -> impl Iterator<Item = &'static str> {
    lan::NAMES.into_iter().filter(|name| !lan.dead.contains(name))
}

/// Who has the role, in the eyes of each that lives.
fn contacts(lan: &Lan) -> Vec<NodeId> {
    alive(lan).map(|name| lan.nodes[name].contact).collect()
}

/// Who answers for the service address on the home link.
fn answering(lan: &Lan) -> Vec<&'static str> {
    alive(lan).filter(|name| lan.nodes[name].interface.answers_for(lan::service_address())).collect()
}

/// A client of each node.
fn clients(lan: &mut Lan) -> Vec<(&'static str, Handle)> {
    let mut clients = Vec::new();
    for _ in lan::NAMES {
        let before = lan::NAMES.map(|name| lan.nodes[name].connections().len());
        let client = lan.connect();
        let grown = |nth: &usize| lan.nodes[lan::NAMES[*nth]].connections().len() > before[*nth];
        clients.push((lan::NAMES[(0..3).find(grown).expect("somebody has it")], client));
    }
    lan.pass(200);
    clients
}

fn say(lan: &mut Lan, client: Handle, octets: &'static [u8]) {
    lan.client.tcp.with(client, |tcb| tcb.write(Bytes::from_static(octets)));
    lan.run();
}

/// What the client hears within some seconds.
fn hear(lan: &mut Lan, client: Handle, length: usize) -> Vec<u8> {
    for _ in 0..200 {
        if lan.client.tcp.get(client).map(Tcb::readable) >= Some(length) {
            break;
        }
        lan.pass(50);
    }
    lan.client.tcp.with(client, |tcb| tcb.read(usize::MAX).to_vec()).unwrap_or_default()
}

fn goes_on(lan: &mut Lan, client: Handle) -> bool {
    say(lan, client, b"are you there?");
    hear(lan, client, 14) == b"are you there?"
}

fn new_ones_work(lan: &mut Lan) -> bool {
    (0..3).all(|_| {
        let client = lan.connect();
        goes_on(lan, client)
    })
}

#[test]
fn the_first_that_lives_takes_the_place_of_a_dead_contact_node_at_once() {
    for agent in [false, true] {
        let mut lan = group(agent, spread);
        let clients = clients(&mut lan);
        lan.kill("a");
        assert_eq!(contacts(&lan), [NodeId::of("a"); 2], "it may only be out of reach");
        lan.prove_at("a", "c");
        assert_eq!(contacts(&lan), [NodeId::of("b"); 2], "each knows who is next");
        lan.prove_at("a", "b");
        let held = if agent { lan.registered().into_iter().collect() } else { answering(&lan) };
        assert_eq!(held, ["b"]);
        for (owner, client) in clients.iter().filter(|(owner, _)| *owner != "a") {
            say(&mut lan, *client, b"as before");
            let heard = lan.client.tcp.get(*client).map(Tcb::readable);
            assert_eq!(heard, Some(9), "{owner}: without any time");
        }
        assert!(new_ones_work(&mut lan));
        assert_eq!(lan.resets(), 0);
        let (_, lost) = clients.iter().find(|(owner, _)| *owner == "a").expect("one was placed there");
        say(&mut lan, *lost, b"is it lost?");
        assert_eq!(lan.resets(), 1, "nothing holds a copy of it, and everybody has said so");
    }
}

#[test]
fn what_comes_before_it_is_known_whose_it_is_waits_for_that() {
    let mut lan = Lan::new(spread);
    let clients = clients(&mut lan);
    lan.kill("a");
    lan.prove_to_all("a");
    let (_, client) = clients.iter().find(|(owner, _)| *owner == "c").expect("one was placed there");
    // As if the client had been faster than node c.
    lan.nodes.get_mut("b").unwrap().places.clear();
    say(&mut lan, *client, b"as before");
    assert_eq!(lan.client.tcp.get(*client).map(Tcb::readable), Some(9));
    lan.pass(2_000);
    assert_eq!(lan.nodes["b"].remembered()["questions"], 0);
}

#[test]
fn who_is_named_by_another_before_it_knows_of_the_death_takes_the_role_and_forgets_no_connection() {
    let mut lan = Lan::new(spread);
    let clients = clients(&mut lan);
    lan.deafen("b", "c", true);
    lan.kill("a");
    lan.prove_at("a", "c");
    assert_eq!(contacts(&lan), [NodeId::of("a"), NodeId::of("b")], "what c says does not arrive");
    lan.deafen("b", "c", false);
    lan.pass(1_500);
    assert_eq!(contacts(&lan), [NodeId::of("b"); 2]);
    let (_, client) = clients.iter().find(|(owner, _)| *owner == "c").expect("one was placed there");
    assert!(lan.nodes["b"].remembered()["places"] > 0, "b is told of it until it remembers");
    assert!(goes_on(&mut lan, *client));
    assert_eq!(lan.resets(), 0);
}

#[test]
fn the_contact_node_and_the_next_may_die_together() {
    for agent in [false, true] {
        let mut lan = group(agent, spread);
        let clients = clients(&mut lan);
        lan.kill("a");
        lan.kill("b");
        lan.prove_to_all("a");
        assert_eq!(contacts(&lan), [NodeId::of("a")], "b may live, and have taken the role");
        lan.prove_to_all("b");
        assert_eq!(contacts(&lan), [NodeId::of("c")]);
        assert!(new_ones_work(&mut lan));
        let (_, kept) = clients.iter().find(|(owner, _)| *owner == "c").expect("one was placed there");
        assert!(goes_on(&mut lan, *kept));
    }
}

#[test]
fn of_two_halves_that_do_not_see_each_other_one_fills_the_role() {
    let mut lan = Lan::new(spread);
    lan.cut("b", "c");
    lan.kill("a");
    lan.prove_to_all("a");
    assert_eq!(contacts(&lan), [NodeId::of("b"), NodeId::of("a")]);
    assert_eq!(answering(&lan), ["b"]);
    lan.mend("b", "c");
    assert_eq!(contacts(&lan), [NodeId::of("b"); 2]);
}

#[test]
fn a_contact_node_that_starts_again_leaves_the_role_and_the_address_to_who_has_it() {
    for agent in [false, true] {
        let mut lan = group(agent, spread);
        let clients = clients(&mut lan);
        lan.kill("a");
        lan.prove_to_all("a");
        lan.revive("a", |setup| {
            spread(setup);
            setup.home_agent = agent.then(home_agent);
        });
        for (_, client) in clients.iter().filter(|(owner, _)| *owner != "a") {
            say(&mut lan, *client, b"as before");
            assert_eq!(lan.client.tcp.get(*client).map(Tcb::readable), Some(9), "no moment is lost");
        }
        lan.pass(5_000);
        assert_eq!(contacts(&lan), [NodeId::of("b"); 3]);
        let counts = |lan: &Lan| lan::NAMES.map(|name| lan.nodes[name].status(lan.now).counters.accepted);
        let before = counts(&lan);
        assert!(new_ones_work(&mut lan));
        assert_eq!(counts(&lan), before.map(|count| count + 1), "b places them, in turn");
        assert_eq!(lan.resets(), 0);
    }
}

#[test]
fn a_contact_node_that_was_only_silent_stops_acting_and_finds_the_role_elsewhere_when_it_is_back() {
    for agent in [false, true] {
        let mut lan = group(agent, protected(1));
        let clients = clients(&mut lan);
        for other in ["b", "c"] {
            lan.deafen("a", other, true);
        }
        while lan.nodes["a"].may_serve(lan.now) {
            lan.pass(10);
        }
        assert_eq!(answering(&lan), [""; 0], "it has no lease, and nobody took its place yet");
        lan.pass(300);
        assert_eq!(contacts(&lan)[1..], [NodeId::of("b"); 2]);
        for (owner, client) in &clients {
            assert!(goes_on(&mut lan, *client), "{owner}");
        }
        for other in ["b", "c"] {
            lan.deafen("a", other, false);
        }
        lan.pass(20);
        assert_eq!(lan.reborn.len(), 1);
        let held = if agent { lan.registered().into_iter().collect() } else { answering(&lan) };
        assert_eq!(held, ["b"], "its role is in doubt");
        lan.pass(3_000);
        assert_eq!(if agent { lan.registered().into_iter().collect() } else { answering(&lan) }, ["b"]);
        lan.relink("a");
        lan.pass(5_000);
        assert_eq!(contacts(&lan), [NodeId::of("b"); 3]);
        assert!(new_ones_work(&mut lan) && clients.iter().all(|(_, client)| goes_on(&mut lan, *client)));
        assert_eq!(lan.resets(), 0);
    }
}

#[test]
fn a_contact_node_that_was_stopped_says_nothing_in_its_role_when_it_goes_on() {
    for agent in [false, true] {
        let mut lan = group(agent, protected(1));
        let clients = clients(&mut lan);
        // Nobody closes its links, and what comes for it is lost.
        lan.dead.insert("a");
        lan.pass(500);
        assert_eq!(contacts(&lan), [NodeId::of("b"); 2]);
        lan.dead.remove("a");
        let sent = lan.nodes["a"].status(lan.now).counters.frames_out;
        lan.pass(10);
        assert_eq!(lan.nodes["a"].status(lan.now).counters.frames_out, sent, "not a word");
        lan.pass(50);
        lan.relink("a");
        lan.pass(1_500);
        assert_eq!(contacts(&lan), [NodeId::of("b"); 3]);
        if agent {
            assert_eq!(lan.registered(), Some("b"));
        }
        assert!(new_ones_work(&mut lan) && clients.iter().all(|(_, client)| goes_on(&mut lan, *client)));
        assert_eq!(lan.resets(), 0);
    }
}

#[test]
fn a_contact_node_whose_lease_comes_back_in_time_goes_on_in_its_role() {
    let mut lan = Lan::new(protected(1));
    let clients = clients(&mut lan);
    for other in ["b", "c"] {
        lan.deafen("a", other, true);
    }
    while lan.nodes["a"].may_serve(lan.now) {
        lan.pass(10);
    }
    for other in ["b", "c"] {
        lan.deafen("a", other, false);
    }
    lan.pass(50);
    assert_eq!((answering(&lan), lan.reborn.len()), (vec!["a"], 0));
    assert!(new_ones_work(&mut lan) && clients.iter().all(|(_, client)| goes_on(&mut lan, *client)));
    assert_eq!(lan.resets(), 0);
}

#[test]
fn a_node_that_leaves_or_is_on_another_link_does_not_take_the_role() {
    let mut lan = Lan::new(spread);
    lan.pass(200);
    lan.ask("b", Command::Drain);
    lan.kill("a");
    lan.prove_to_all("a");
    assert_eq!(contacts(&lan), [NodeId::of("c"); 2]);

    let mut elsewhere = setup("b");
    elsewhere.care_of.prefix_len = 128;
    let now = lan.now;
    let mut b = Node::new(elsewhere, now).unwrap();
    for (peer, life) in [("a", 0), ("c", 2)] {
        b.handle(Input::PeerUp { peer: NodeId::of(peer), incarnation: Incarnation(life) }, now);
    }
    b.handle(Input::PeerDown { peer: NodeId::of("a") }, now);
    b.handle(Input::PeerDead { peer: NodeId::of("a"), incarnation: Incarnation(0) }, now);
    assert_eq!(b.contact, NodeId::of("a"));
}

#[test]
fn with_a_home_agent_the_role_waits_for_three_seconds_or_for_a_proof() {
    for proved in [false, true] {
        let mut lan = Lan::with_agent(|_| {});
        lan.kill("a");
        lan.pass(2_500);
        assert_eq!(lan.registered(), Some("a"));
        if proved {
            lan.prove_to_all("a");
        } else {
            lan.pass(1_000);
        }
        assert_eq!(lan.registered(), Some("b"), "proved: {proved}");
    }
}

/// Of two, none is a majority against the other.
#[test]
fn in_a_group_of_two_only_a_proof_ends_the_role() {
    let mut two = setup("b");
    two.peers.retain(|peer| peer.name == "a");
    protected(1)(&mut two);
    let mut now = Lan::new(|_| {}).now;
    let mut b = Node::new(two, now).unwrap();
    let a = NodeId::of("a");
    b.handle(Input::PeerUp { peer: a, incarnation: Incarnation(0) }, now);
    b.handle(Input::PeerDown { peer: a }, now);
    for _ in 0..1_000 {
        now += std::time::Duration::from_millis(10);
        b.handle(Input::Tick, now);
        while !matches!(b.poll(now), crate::Output::WaitUntil(_)) {}
    }
    assert!(!b.is_contact(), "silence proves nothing");
    b.handle(Input::PeerDead { peer: a, incarnation: Incarnation(0) }, now);
    assert!(b.is_contact());
}

/// Plays a scene again and again, in which `victims` end one message later each time, until they live to see its end.
fn at_each_message(
    agent: bool,
    replicas: u8,
    victims: &'static [&'static str],
    scene: impl Fn(&mut Lan, &[(&'static str, Handle)]),
) {
    for nth in 0.. {
        let mut lan = group(agent, protected(replicas));
        let clients = clients(&mut lan);
        lan.doom(victims, nth);
        scene(&mut lan, &clients);
        if !lan.has_come_true() {
            assert!(nth > 10, "{nth} messages");
            return;
        }
        lan.let_die(victims);
        let what = || format!("{victims:?} after {nth} messages, agent: {agent}");
        for (owner, client) in &clients {
            assert!(goes_on(&mut lan, *client), "{owner}'s, {}", what());
        }
        assert!(new_ones_work(&mut lan), "{}", what());
        let contacts: BTreeSet<_> = contacts(&lan).into_iter().collect();
        assert_eq!(contacts.len(), 1, "{}", what());
        assert_eq!(lan.resets(), 0, "{}", what());
    }
}

fn begin_to_move(lan: &mut Lan, from: &'static str, to: &str) {
    let command = Command::Handoff { to: to.to_owned(), which: Which::All };
    lan.nodes.get_mut(from).unwrap().handle(Input::Command { id: 900, command }, lan.now);
    lan.run();
}

#[test]
fn the_contact_node_may_die_at_each_message_of_a_handoff() {
    for agent in [false, true] {
        for (from, to) in [("b", "c"), ("a", "c"), ("c", "a")] {
            at_each_message(agent, 1, &["a"], |lan, clients| {
                for (_, client) in clients {
                    say(lan, *client, b"");
                }
                begin_to_move(lan, from, to);
                lan.pass(20);
            });
        }
    }
}

#[test]
fn the_contact_node_may_die_with_either_party_at_each_message_of_a_handoff() {
    for victims in [&["a", "b"], &["a", "c"]] {
        at_each_message(false, 2, victims, |lan, _| {
            begin_to_move(lan, "b", "c");
            lan.pass(20);
        });
    }
}

#[test]
fn the_contact_node_may_die_at_each_message_of_a_recovery() {
    for agent in [false, true] {
        at_each_message(agent, 2, &["a"], |lan, _| {
            lan.let_die(&["b"]);
            lan.pass(20);
        });
    }
}

#[test]
fn contact_node_and_owner_may_die_together_if_another_has_the_copy() {
    for agent in [false, true] {
        let mut lan = group(agent, protected(1));
        let held_by_c = |lan: &Lan| {
            let of_b = lan.nodes["b"].connections();
            let held =
                |one: &&crate::Connection| one.protection.as_ref().is_some_and(|with| with.holders == ["c"]);
            of_b.iter().find(held).map(|one| one.client)
        };
        let mut clients = Vec::new();
        let client = loop {
            clients.push(lan.connect());
            lan.pass(100);
            if let Some(client) = held_by_c(&lan) {
                break client;
            }
            assert!(clients.len() < 100, "c holds none of b's");
        };
        let flow_of = |lan: &Lan, handle: Handle| lan.client.tcp.get(handle).map(|tcb| tcb.flow.local);
        let client = clients.into_iter().find(|one| flow_of(&lan, *one) == Some(client)).expect("a client");
        say(&mut lan, client, b"into ");
        lan.kill("a");
        lan.kill("b");
        say(&mut lan, client, b"the gap");
        lan.prove_to_all("a");
        lan.prove_to_all("b");
        assert_eq!(hear(&mut lan, client, 12), b"into the gap", "agent: {agent}");
        assert_eq!(contacts(&lan), [NodeId::of("c")]);
        assert!(new_ones_work(&mut lan));
        assert_eq!(lan.resets(), 0);
    }
}
