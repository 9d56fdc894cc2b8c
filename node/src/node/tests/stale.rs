//! What nodes believe of connections that are over, or not there yet, and what that does to those that are.

use std::collections::BTreeSet;
use std::net::SocketAddrV6;
use std::time::Duration;

use bytes::Bytes;
use ferry_handoff::{Epoch, Message, NodeId};
use ferry_stack::tcp::{Config, Control, Endpoint, Flow, Handle, Secret, Segment, Tcb, Timestamps};
use ferry_stack::{Frame, GroupClock, Seq};

use super::lan::{Lan, NAMES, address, service_address};
use super::{Input, ONE_MOVED, Output, Placement};
use crate::node::backup::Copied;
use crate::node::service::Commit;
use crate::{Command, Reply, Setup, Which};

/// The nodes but the contact node and another.
fn third(other: &str) -> &'static str {
    if other == "b" { "c" } else { "b" }
}

fn end(lan: &mut Lan, client: Handle) {
    lan.client.tcp.with(client, Tcb::finish);
    lan.pass(300);
}

fn flow_of(lan: &Lan, client: Handle) -> Flow {
    lan.client.tcp.get(client).unwrap().flow
}

/// The same as nodes see it.
fn ours(flow: Flow) -> Flow {
    Flow { local: flow.remote, remote: flow.local }
}

/// The client's machine starts anew, so that it can use each port at once.
fn forget_at_client(lan: &mut Lan) {
    lan.client.tcp = Endpoint::new(Secret::new([2; 32]), 1500, false);
}

fn connect_from(lan: &mut Lan, flow: Flow) -> Handle {
    let client = lan.client.tcp.connect_from(flow, Config::default(), lan.now).unwrap();
    lan.run();
    client
}

/// Begins to hand everything off, without waiting for the end.
fn give(lan: &mut Lan, from: &str, to: &str) {
    let command = Command::Handoff { to: to.to_owned(), which: Which::All };
    lan.nodes.get_mut(from).unwrap().handle(Input::Command { id: 900, command }, lan.now);
    lan.run();
}

fn with(placement: Placement) -> impl Fn(&mut Setup) {
    move |setup| setup.placement = placement
}

#[test]
fn a_port_is_used_again_although_what_follows_the_last_connection_comes_to_a_node_that_empties_itself() {
    let mut lan = Lan::new(with(Placement::Hash));
    let client = lan.connect();
    let (placed, flow) = (lan.owner()[0], flow_of(&lan, client));
    assert_ne!(placed, "a", "the contact node never has it");
    let other = third(placed);
    assert_eq!(lan.hand_off(placed, other), ONE_MOVED);
    end(&mut lan, client);
    lan.ask(other, Command::Drain);
    forget_at_client(&mut lan);
    let client = connect_from(&mut lan, flow);
    // The SYN is repeated after a second.
    lan.pass(1_500);
    assert_eq!(lan.owner(), [placed]);
    assert_eq!(lan.echo(client, b"anew"), b"anew");
    assert_eq!(lan.resets(), 0);
}

#[test]
fn what_was_about_to_come_from_a_contact_node_that_died_is_not_sent_to_the_dead() {
    let mut lan = Lan::new(with(Placement::Local));
    let client = lan.connect();
    let flow = flow_of(&lan, client);
    // Node b is asked, and its answer is lost.
    lan.lose = Some(1);
    give(&mut lan, "a", "b");
    lan.kill("a");
    lan.prove_to_all("a");
    lan.pass(100);
    assert_eq!(lan.nodes["b"].contact, NodeId::of("b"));
    forget_at_client(&mut lan);
    let client = connect_from(&mut lan, flow);
    lan.pass(1_500);
    assert_eq!(lan.owner(), ["b"]);
    assert_eq!(lan.echo(client, b"anew"), b"anew");
}

#[test]
fn a_connection_whose_transfer_is_late_is_refused_by_nobody() {
    for (contact, forgets) in [("a", false), ("b", false), ("b", true)] {
        let mut lan = Lan::new(with(Placement::Local));
        let client = lan.connect();
        if contact == "b" {
            lan.ask("b", Command::Contact);
        }
        lan.lose_transfers = true;
        give(&mut lan, "a", "b");
        // Its place at node b is given up after five seconds.
        for octets in [&b"before"[..], b"and behind"] {
            lan.pass(3_000);
            if forgets {
                lan.nodes.get_mut(contact).unwrap().places.clear();
            }
            lan.client.tcp.with(client, |tcb| tcb.write(Bytes::from_static(octets)));
            lan.pass(1_500);
        }
        assert_eq!((lan.owner(), lan.resets()), (vec![], 0), "{contact} is the contact node");
        lan.lose_transfers = false;
        lan.pass(5_000);
        assert_eq!((lan.owner(), lan.resets()), (vec!["b"], 0), "{contact} is the contact node");
        assert_eq!(lan.echo(client, b"!"), b"beforeand behind!");
    }
}

#[test]
fn a_transfer_that_comes_when_the_client_has_opened_another_at_the_acceptor_does_not_come_back_to_life() {
    let mut lan = Lan::new(with(Placement::Local));
    let client = lan.connect();
    let flow = flow_of(&lan, client);
    lan.lose_transfers = true;
    give(&mut lan, "a", "b");
    lan.pass(6_000);
    forget_at_client(&mut lan);
    let client = connect_from(&mut lan, flow);
    lan.pass(500);
    assert_eq!(lan.echo(client, b"another"), b"another");
    lan.lose_transfers = false;
    lan.pass(5_000);
    assert_eq!(lan.echo(client, b"still"), b"still");
    assert_eq!((lan.owner(), lan.resets()), (vec!["b"], 0));
    assert_eq!(lan.nodes["b"].connections().len(), 1);
}

#[test]
fn who_has_given_a_connection_away_and_becomes_the_contact_node_does_not_send_after_it_for_ever() {
    let mut lan = Lan::new(with(Placement::Local));
    let client = lan.connect();
    let flow = ours(flow_of(&lan, client));
    assert_eq!([lan.hand_off("a", "b"), lan.hand_off("b", "c")], [ONE_MOVED, ONE_MOVED]);
    end(&mut lan, client);
    lan.ask("b", Command::Contact);
    lan.pass(121_000);
    assert_eq!(lan.nodes["b"].contact, NodeId::of("b"));
    for name in NAMES {
        assert!(!lan.nodes[name].places.contains_key(&flow), "{name}");
    }
}

#[test]
fn what_was_announced_while_late_segments_are_sent_on_and_does_not_come_leaves_nothing_behind() {
    let mut lan = Lan::new(with(Placement::Local));
    let client = lan.connect();
    let flow = ours(flow_of(&lan, client));
    assert_eq!([lan.hand_off("a", "b"), lan.hand_off("b", "c")], [ONE_MOVED, ONE_MOVED]);
    lan.pass(119_000);
    let epoch = lan.nodes["c"].snapshots(lan.now)[0].epoch.next();
    let offer = Message::Prepare { flow, epoch, service: "echo".to_owned() };
    let node = lan.nodes.get_mut("b").unwrap();
    node.handle(Input::Peer { from: NodeId::of("c"), bytes: offer.encode() }, lan.now);
    lan.pass(10_000);
    assert!(!lan.nodes["b"].places.contains_key(&flow));
    assert_eq!(lan.echo(client, b"at c"), b"at c");
    assert_eq!((lan.owner(), lan.resets()), (vec!["c"], 0));
}

#[test]
fn a_contact_node_places_anew_what_it_has_only_ever_given() {
    let mut lan = Lan::new(with(Placement::RoundRobin));
    let mut client = lan.connect();
    let flow = flow_of(&lan, client);
    assert_eq!((lan.owner(), lan.hand_off("a", "b")), (vec!["a"], ONE_MOVED));
    let mut owners = BTreeSet::new();
    for _ in NAMES {
        end(&mut lan, client);
        forget_at_client(&mut lan);
        client = connect_from(&mut lan, flow);
        lan.pass(100);
        owners.extend(lan.owner());
    }
    assert_eq!(owners, NAMES.into());
    assert_eq!(lan.nodes["a"].status(lan.now).counters.given, 1, "each was opened where it is");
    assert_eq!(lan.resets(), 0);
}

#[test]
fn a_copy_of_an_older_connection_does_not_come_to_life_in_front_of_a_later_one() {
    let mut lan = Lan::new(|setup| {
        setup.placement = Placement::Local;
        let services = std::mem::take(&mut setup.services);
        setup.services = services.into_iter().map(|service| service.protected(1, Commit::Strict)).collect();
    });
    let clients: Vec<_> = (0..16).map(|_| lan.connect()).collect();
    assert!(matches!(lan.hand_off("a", "b"), Reply::Moved(moved) if moved.moved == 16));
    lan.pass(500);
    let flows: Vec<_> = clients.iter().map(|client| ours(flow_of(&lan, *client))).collect();
    let held = |flow: &&Flow| matches!(lan.nodes["a"].holds_copy(flow), Copied::Of(..));
    let held: Vec<_> = flows.iter().filter(held).copied().collect();
    assert!(held.len() > 1, "{held:?}");
    // Node b dies. Before it is known who goes on, the client of one comes again, and is served by c.
    lan.deafen("a", "c", true);
    lan.kill("b");
    lan.prove_to_all("b");
    let (now, later) = (lan.now, Epoch { life: 50_000, ..Epoch::FIRST });
    let contact = lan.nodes.get_mut("a").unwrap();
    assert!(matches!(contact.holds_copy(&held[0]), Copied::Ownerless));
    contact.note_owner(held[0], NodeId::of("c"), later);
    contact.handle(Input::Tick, now);
    lan.deafen("a", "c", false);
    lan.pass(1_000);
    let lives = |flow: &Flow| lan.nodes["a"].control_blocks().any(|tcb| tcb.flow == *flow);
    assert_eq!(
        held.iter().map(lives).collect::<Vec<_>>(),
        [vec![false], vec![true; held.len() - 1]].concat()
    );
    let route = lan.nodes["a"].places[&held[0]].route().unwrap();
    assert_eq!((route.to, route.epoch), (NodeId::of("c"), later));
}

/// A node becomes the contact node, and what it is told of connections is not there yet.
fn move_role(lan: &mut Lan, to: &'static str) {
    lan.ask(to, Command::Contact);
    lan.nodes.get_mut(to).unwrap().places.clear();
}

/// It is there.
fn tell_owned(lan: &mut Lan, owner: &str) {
    let now = lan.now;
    lan.nodes.get_mut(owner).unwrap().tell_owned(now);
    lan.run();
}

#[test]
fn a_forged_syn_at_a_new_contact_node_does_not_come_between_a_client_and_its_connection() {
    // What it opens is placed at the contact node itself, or at a third. Or the contact node is new, and the role is where it was;
    // or its clock is far behind.
    for (placement, restarts, behind) in [
        (Placement::Local, false, false),
        (Placement::Local, false, true),
        (Placement::Hash, false, false),
        (Placement::Hash, true, false),
    ] {
        let seqs = [0, 1 << 31, 3 << 30];
        let stamps = [None, Some(0), Some(1 << 31), Some(3 << 30)];
        for (seq, stamp) in seqs.into_iter().flat_map(|seq| stamps.map(|stamp| (seq, stamp))) {
            let mut lan = Lan::new(|setup| {
                setup.placement = placement;
                if behind && setup.name != "c" {
                    setup.group_clock = GroupClock::ahead_by(Duration::from_hours(1000));
                }
            });
            // Where the client has no timestamps, those of the SYN rule its segments out.
            let config = Config { timestamps: seq != 0, ..Config::default() };
            let (from, to) = (address(50).address, SocketAddrV6::new(service_address(), 7, 0, 0));
            let client = lan.client.tcp.connect(from, to, config, lan.now).unwrap();
            lan.pass(50);
            let (first, flow) = (lan.owner()[0], flow_of(&lan, client));
            let owner = if first == "a" || restarts { third(first) } else { "a" };
            assert_eq!(lan.hand_off(first, owner), ONE_MOVED);
            // Nothing is sent on any more.
            lan.pass(121_000);
            let contact = NAMES.into_iter().find(|name| ![first, owner].contains(name)).unwrap();
            if restarts {
                lan.kill(contact);
                lan.revive(contact, with(placement));
            }
            move_role(&mut lan, contact);
            let mut syn = Segment::bare(Seq(seq), None, Some(Control::Syn));
            syn.options.timestamps = stamp.map(|value| Timestamps { value, echo: 0 });
            lan.client.interface.send(syn.emit(&flow, 0, false), lan.now);
            lan.run();
            let placed = if placement == Placement::Local { contact } else { first };
            assert!(lan.owner().contains(&placed), "{placement:?} {seq} {stamp:?}: it opens one");
            tell_owned(&mut lan, owner);
            for octets in [&b"first"[..], b"second", b"third"] {
                assert_eq!(lan.echo(client, octets), octets, "{placement:?} {seq} {stamp:?}");
                lan.pass(1_500);
            }
            // Until nobody believes in the other any more.
            lan.pass(120_000);
            assert_eq!((lan.owner(), lan.resets()), (vec![owner], 0), "{placement:?} {seq} {stamp:?}");
            assert_eq!(lan.echo(client, b"last"), b"last", "{placement:?} {seq} {stamp:?}");
        }
    }
}

#[test]
fn one_node_s_word_that_it_is_over_does_not_end_the_question_to_the_others() {
    let mut lan = Lan::new(with(Placement::Local));
    let client = lan.connect();
    let flow = flow_of(&lan, client);
    assert_eq!(lan.hand_off("a", "b"), ONE_MOVED);
    move_role(&mut lan, "c");
    let syn = Segment::bare(Seq(1 << 31), None, Some(Control::Syn));
    lan.client.interface.send(syn.emit(&flow, 0, false), lan.now);
    lan.run();
    lan.client.tcp.with(client, |tcb| tcb.write(Bytes::from_static(b"held")));
    let frame = lan.client.poll_transmit(lan.now).unwrap();
    // It waits, and the other is acknowledged.
    assert_eq!(frames_after(&mut lan, "c", frame).len(), 1);
    // Node a remembers another, which is over.
    let over = Message::Ended { flow: ours(flow), epoch: Epoch::FIRST };
    let (from, now) = (NodeId::of("a"), lan.now);
    lan.nodes.get_mut("c").unwrap().handle(Input::Peer { from, bytes: over.encode() }, now);
    tell_owned(&mut lan, "b");
    // Sooner than the client sends it again.
    assert_eq!(lan.nodes["b"].control_blocks().next().unwrap().rcv.total, 4);
}

/// What a node sends upon a frame, of which nobody gets anything.
fn frames_after(lan: &mut Lan, name: &str, frame: Frame) -> Vec<Frame> {
    let node = lan.nodes.get_mut(name).unwrap();
    node.handle(Input::Frame(frame.contiguous()), lan.now);
    let outputs = core::iter::from_fn(|| match node.poll(lan.now) {
        Output::WaitUntil(_) => None,
        output => Some(output),
    });
    outputs.filter_map(|output| if let Output::Frame(frame) = output { Some(frame) } else { None }).collect()
}

#[test]
fn the_word_of_an_owner_that_only_waits_does_not_take_the_place_of_a_new_connection() {
    // Or that knows nothing of its client's end.
    for waits in [false, true] {
        let mut lan = Lan::new(with(Placement::Hash));
        let client = lan.connect();
        let (placed, flow) = (lan.owner()[0], flow_of(&lan, client));
        let old = third(placed);
        assert_eq!(lan.hand_off(placed, old), ONE_MOVED);
        // Nothing is sent on any more.
        lan.pass(121_000);
        if waits {
            let node = lan.nodes.get_mut(old).unwrap();
            let handle = node.tcp.find(&ours(flow)).unwrap();
            node.tcp.with(handle, Tcb::finish);
            lan.pass(100);
            end(&mut lan, client);
            assert_eq!(lan.owner(), [old], "it is in TIME-WAIT");
        }
        forget_at_client(&mut lan);
        move_role(&mut lan, "a");
        let client = lan.client.tcp.connect_from(flow, Config::default(), lan.now).unwrap();
        // Its SYN is placed, and the answer is lost.
        let syn = lan.client.poll_transmit(lan.now).unwrap();
        let [forwarded] = &frames_after(&mut lan, "a", syn)[..] else { panic!("it is sent on") };
        assert_eq!(frames_after(&mut lan, placed, forwarded.clone()).len(), 1, "the answer");
        tell_owned(&mut lan, old);
        lan.pass(1_500);
        assert_eq!(lan.echo(client, b"anew"), b"anew", "{waits}");
        assert_eq!(lan.resets(), 0, "{waits}");
    }
}
