mod after;
mod ahead;
mod anew;
mod cookies;
mod crash;
mod early;
mod group;
mod hostile;
mod lan;
mod late;
mod limits;
mod members;
mod mobility;
mod role;
mod silent;
mod stale;
mod storm;
mod timer;

use std::net::SocketAddrV6;

use bytes::Bytes;
use ferry_handoff::{Epoch, Message, NodeId};
use ferry_stack::tcp::{self, Flow};
use serde::{Deserialize, Serialize};

use self::lan::{Lan, address, service_address, setup};
use super::{Node, Placement, Service, SetupError};
use crate::session::{Event, Session, Stream};
use crate::{Command, Input, Moved, Output, Reply, Step, Which};

const ONE_MOVED: Reply = Reply::Moved(Moved { moved: 1, failed: Vec::new(), left: 0 });

#[test]
fn a_connection_is_served_by_whoever_owns_it() {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    assert_eq!(lan.echo(client, b"at a"), b"at a");
    for (from, to) in [("a", "b"), ("b", "c"), ("c", "a"), ("a", "c")] {
        assert_eq!(lan.hand_off(from, to), ONE_MOVED);
        assert_eq!(lan.owner(), [to]);
        assert_eq!(lan.echo(client, b"moved"), b"moved", "at {to}");
    }
    assert_eq!(lan.nodes["c"].connections()[0].epoch, 5);
    lan.client.tcp.with(client, tcp::Tcb::finish);
    lan.pass(200);
    assert_eq!(lan.owner(), [""; 0], "closed everywhere");
    assert_eq!(lan.nodes["a"].status(lan.now).relayed, 0, "and forgotten by the contact node");
    assert_eq!(lan.resets(), 0);
}

#[test]
fn a_segment_of_an_unknown_connection_is_refused_only_if_every_node_denies_it() {
    for (cut, resets) in [(None, 1), (Some(("a", "c")), 0)] {
        let mut lan = Lan::new(|_| {});
        let client = lan.connect();
        assert_eq!(lan.echo(client, b"x"), b"x");
        // The contact node starts anew, and remembers nothing.
        let mut forgetful = Node::new(setup("a"), lan.now).unwrap();
        std::mem::swap(lan.nodes.get_mut("a").unwrap(), &mut forgetful);
        for peer in ["b", "c"] {
            let incarnation = ferry_handoff::Incarnation(77);
            let peer = NodeId::of(peer);
            lan.nodes.get_mut("a").unwrap().handle(Input::PeerUp { peer, incarnation }, lan.now);
        }
        if let Some((one, other)) = cut {
            lan.cut(one, other);
        }
        lan.client.tcp.with(client, |tcb| tcb.write(Bytes::from_static(b"is anybody there?")));
        lan.run();
        lan.pass(50);
        assert_eq!(lan.resets(), resets, "cut: {cut:?}");
    }
}

#[test]
fn a_contact_node_that_forgot_finds_the_owner_by_asking() {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    assert_eq!(lan.hand_off("a", "b"), ONE_MOVED);
    let contact = lan.nodes.get_mut("a").unwrap();
    contact.places.clear();
    assert_eq!(lan.echo(client, b"still there"), b"still there");
    assert_eq!(lan.resets(), 0);
}

#[test]
fn late_duplicates_of_a_connection_that_ended_in_good_order_are_not_refused() {
    for ways in [&[][..], &[("a", "b")], &[("a", "b"), ("b", "c")], &[("a", "b"), ("b", "a")]] {
        let mut lan = Lan::new(|_| {});
        let client = lan.connect();
        for (from, to) in ways {
            assert_eq!(lan.hand_off(from, to), ONE_MOVED);
        }
        lan.client.tcp.with(client, tcp::Tcb::finish);
        lan.pass(200);
        assert_eq!(lan.owner(), [""; 0]);
        let tcb = lan.client.tcp.get(client).unwrap();
        let late = tcp::Segment::bare(tcb.snd.nxt, Some(tcb.rcv.nxt), None);
        let flow = tcb.flow;
        // Once every node has forgotten it, the last of them whoever has given it away, this is somebody else.
        for (wait, resets) in [(0, 0), (9_000, 0), (121_000, 1)] {
            lan.pass(wait);
            lan.client.interface.send(late.emit(&flow, 0, false), lan.now);
            lan.run();
            lan.pass(50);
            assert_eq!(lan.resets(), resets, "{ways:?}, {wait} ms later");
        }
        assert_eq!(lan.nodes["a"].status(lan.now).relayed, 0);
    }
}

/// What a peer tells the contact node, and what it is told in turn.
fn told(lan: &mut Lan, from: &str, message: &Message) -> Vec<Message> {
    let (from, bytes, now) = (NodeId::of(from), message.encode(), lan.now);
    let contact = lan.nodes.get_mut("a").unwrap();
    contact.handle(Input::Peer { from, bytes }, now);
    let mut answers = Vec::new();
    loop {
        match contact.poll(now) {
            Output::Peer { to, bytes } if to == from => answers.push(Message::decode(&bytes.join()).unwrap()),
            Output::WaitUntil(_) => return answers,
            _ => {}
        }
    }
}

fn some_flow() -> Flow {
    Flow {
        local: SocketAddrV6::new(service_address(), 7, 0, 0),
        remote: SocketAddrV6::new(address(50).address, 40_000, 0, 0),
    }
}

#[test]
fn the_contact_node_forgets_a_connection_that_ends_while_it_is_about_to_come() {
    let mut lan = Lan::new(|_| {});
    let flow = some_flow();
    let relayed = |lan: &Lan| lan.nodes["a"].status(lan.now).relayed;
    told(&mut lan, "b", &Message::Owner { flow, epoch: Epoch::nth(2), node: NodeId::of("b") });
    let prepare = Message::Prepare { flow, epoch: Epoch::nth(3), service: "echo".to_owned() };
    assert_eq!(told(&mut lan, "b", &prepare), [Message::Ready { flow, epoch: Epoch::nth(3) }]);
    assert_eq!(relayed(&lan), 1);
    told(&mut lan, "b", &Message::Ended { flow, epoch: Epoch::nth(2) });
    told(&mut lan, "b", &Message::Abort { flow, epoch: Epoch::nth(3) });
    assert_eq!(relayed(&lan), 0);
}

#[test]
fn the_contact_node_makes_sure_of_an_owner_that_another_node_names() {
    let mut lan = Lan::new(|_| {});
    let flow = some_flow();
    let contact = lan.nodes.get_mut("a").unwrap();
    // It hears that from a forwarder, which does not know that the connection is over.
    let bytes = Message::Owner { flow, epoch: Epoch::nth(2), node: NodeId::of("c") }.encode();
    contact.handle(Input::Peer { from: NodeId::of("b"), bytes }, lan.now);
    assert_eq!(contact.status(lan.now).relayed, 1);
    lan.run();
    assert_eq!(lan.nodes["a"].status(lan.now).relayed, 0, "c denied it");
}

#[test]
fn the_contact_node_hears_of_an_end_that_came_while_it_was_out_of_reach() {
    let mut lan = Lan::new(|setup| setup.placement = Placement::RoundRobin);
    let clients = [lan.connect(), lan.connect()];
    let [at_home, elsewhere] = lan.owner()[..] else { panic!("{:?}", lan.owner()) };
    assert_eq!((at_home, lan.nodes["a"].status(lan.now).relayed), ("a", 1));
    lan.cut("a", elsewhere);
    lan.client.tcp.with(clients[1], tcp::Tcb::finish);
    lan.pass(65_000);
    assert_eq!((lan.owner(), lan.nodes["a"].status(lan.now).relayed), (vec!["a"], 1));
    lan.mend("a", elsewhere);
    lan.pass(6_000);
    assert_eq!(lan.nodes["a"].status(lan.now).relayed, 0);
}

#[test]
fn the_contact_node_is_set_right_when_it_hears_late_who_owned_a_connection() {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    let flow = lan.nodes["a"].control_blocks().next().unwrap().flow;
    assert_eq!([lan.hand_off("a", "b"), lan.hand_off("b", "c")], [ONE_MOVED, ONE_MOVED]);
    lan.client.tcp.with(client, tcp::Tcb::finish);
    lan.pass(65_000);
    assert_eq!(lan.nodes["a"].status(lan.now).relayed, 0);
    for (late, owner) in [("b", 2), ("c", 3)] {
        let node = NodeId::of(late);
        told(&mut lan, late, &Message::Owner { flow, epoch: Epoch::nth(owner), node });
        assert_eq!(lan.nodes["a"].status(lan.now).relayed, 1);
        let seen = Message::OwnerSeen { flow, epoch: Epoch::nth(owner) }.encode();
        let from = NodeId::of("a");
        lan.nodes.get_mut(late).unwrap().handle(Input::Peer { from, bytes: seen }, lan.now);
        lan.run();
        assert_eq!(lan.nodes["a"].status(lan.now).relayed, 0, "{late}");
    }
}

#[test]
fn new_connections_are_placed_as_configured() {
    let owned = |placement| {
        let mut lan = Lan::new(|setup| setup.placement = placement);
        for _ in 0..6 {
            let client = lan.connect();
            assert_eq!(lan.echo(client, b"hello"), b"hello");
        }
        assert_eq!(lan.resets(), 0);
        lan::NAMES.map(|name| lan.nodes[name].connections().len())
    };
    assert_eq!(owned(Placement::Local), [6, 0, 0]);
    assert_eq!(owned(Placement::RoundRobin), [2, 2, 2]);
    assert_eq!(owned(Placement::LeastConnections), [2, 2, 2]);
    assert_eq!(owned(Placement::Weighted), [2, 2, 2], "all weigh the same unless they are told otherwise");
    let by_hash = owned(Placement::Hash);
    assert!(by_hash.contains(&6), "one client has one node: {by_hash:?}");
}

#[test]
fn a_new_connection_goes_where_no_configured_policy_sends_it_if_the_application_brings_its_own() {
    #[derive(Debug)]
    struct Last;
    impl crate::Policy for Last {
        fn name(&self) -> &'static str {
            "last"
        }
        fn choose(&mut self, _: &crate::Newcomer, candidates: &[crate::Candidate<'_>]) -> usize {
            candidates.iter().position(|one| one.name == "c").unwrap_or(usize::MAX)
        }
    }
    let mut lan = Lan::new(|setup| setup.rules.policy = Some(Box::new(Last)));
    let first = lan.connect();
    assert_eq!(lan.nodes["c"].connections().len(), 1);
    assert_eq!(lan.nodes["a"].status(lan.now).placement, "last");
    lan.cut("a", "c");
    let second = lan.connect();
    assert_eq!(lan.nodes["a"].connections().len(), 1, "a number beyond the last means the first");
    for client in [first, second] {
        assert_eq!(lan.echo(client, b"hello"), b"hello");
    }
}

#[test]
fn the_contact_node_keeps_a_route_and_no_connection_of_what_it_places_elsewhere() {
    let mut lan = Lan::new(|setup| {
        setup.placement = Placement::Weighted;
        setup.rules.weights = [("a".to_owned(), 0), ("b".to_owned(), 2)].into();
    });
    for _ in 0..6 {
        lan.connect();
    }
    assert_eq!(lan::NAMES.map(|name| lan.nodes[name].connections().len()), [0, 4, 2]);
    assert_eq!(lan.nodes["a"].control_blocks().count(), 0);
    assert_eq!(lan.nodes["a"].status(lan.now).relayed, 6);
    assert_eq!(lan.nodes["a"].status(lan.now).counters.accepted, 0);
}

#[test]
fn the_nearest_node_is_the_one_whose_connections_have_measured_the_least() {
    let mut lan = Lan::new(|setup| setup.placement = Placement::Nearest);
    let prefix = super::near::prefix(address(50).address);
    for (node, rtt_us) in [("b", 30_000), ("c", 200)] {
        let bytes = Message::Near { prefix, rtt_us }.encode();
        let from = NodeId::of(node);
        lan.nodes.get_mut("a").unwrap().handle(Input::Peer { from, bytes }, lan.now);
    }
    for _ in 0..4 {
        lan.connect();
    }
    assert_eq!(lan.nodes["c"].connections().len(), 4);
}

#[test]
fn a_drained_node_is_empty_and_gets_nothing_new() {
    for drained in lan::NAMES {
        let mut lan = Lan::new(|setup| setup.placement = Placement::RoundRobin);
        let clients: Vec<_> = (0..6).map(|_| lan.connect()).collect();
        let Some(Reply::Moved(moved)) = lan.ask(drained, Command::Drain) else { panic!("no answer") };
        assert_eq!(moved, Moved { moved: 2, ..Moved::default() });
        let late = lan.connect();
        assert!(lan.nodes[drained].connections().is_empty(), "{drained}");
        for client in clients.into_iter().chain([late]) {
            assert_eq!(lan.echo(client, b"still served"), b"still served");
        }
        assert_eq!(lan.resets(), 0);
    }
}

#[test]
fn an_operator_who_asks_for_the_impossible_is_told_what_is_possible() {
    let mut lan = Lan::new(|_| {});
    lan.cut("a", "c");
    let one = |port| Which::One { client: SocketAddrV6::new(address(50).address, 1, 0, 0), port };
    let cases = [
        ("nobody", Which::All, "there is no node \"nobody\" in the group; the others are: "),
        ("a", Which::All, "a is this node itself; the others are: "),
        ("c", Which::All, "the link to c is down; see `ferry status` here and `ferry doctor` there"),
        ("b", one(7), "; `ferry connections` lists those it owns"),
    ];
    for (to, which, told) in cases {
        let command = Command::Handoff { to: to.to_owned(), which };
        let Some(Reply::Error { why }) = lan.ask("a", command) else { panic!("{to}: no error") };
        assert!(why.contains(told), "{why}");
    }
    assert_eq!(lan.hand_off("a", "b"), Reply::Moved(Moved::default()), "nothing to move is no error");
}

/// Echoes, but only at the node where it began.
#[derive(Serialize, Deserialize)]
struct Homebody;

impl Session for Homebody {
    type Service = bool;

    fn open(_: &bool, _: SocketAddrV6) -> Self {
        Self
    }

    fn adopt(&mut self, welcome: &bool) -> Result<(), String> {
        if *welcome { Ok(()) } else { Err("it stays at home".to_owned()) }
    }

    fn handle(&mut self, _: &bool, _: Event, stream: &mut Stream<'_>) {
        let octets = stream.read(usize::MAX);
        stream.write(octets);
    }
}

#[test]
fn a_session_that_cannot_go_on_elsewhere_goes_on_where_it_was() {
    // Not even where it comes from a session says that it could go on: it is not asked there.
    a_homebody_stays(|name| name == "a");
    a_homebody_stays(|_| false);
}

fn a_homebody_stays(welcome: fn(&str) -> bool) {
    let mut lan = Lan::new(|setup| {
        setup.services = vec![Service::new::<Homebody>("homebody", 7, welcome(&setup.name))];
    });
    let client = lan.connect();
    let Reply::Moved(Moved { moved: 0, failed, .. }) = lan.hand_off("a", "b") else { panic!("it moved") };
    assert_eq!(failed[0].why, "the service refused: it stays at home");
    assert_eq!(lan.owner(), ["a"]);
    assert_eq!(lan.echo(client, b"home again"), b"home again");
    // It was frozen and came back under the next epoch; the refused one is never used again.
    assert_eq!(lan.nodes["a"].connections()[0].epoch, 3);
    assert_eq!(lan.resets(), 0);
}

/// Finishes at once, and never reads.
#[derive(Serialize, Deserialize)]
struct Deaf;

impl Session for Deaf {
    type Service = ();

    fn open((): &(), _: SocketAddrV6) -> Self {
        Self
    }

    fn handle(&mut self, (): &(), _: Event, stream: &mut Stream<'_>) {
        stream.finish();
    }
}

#[test]
fn a_session_that_never_reads_does_not_keep_its_connection() {
    let mut lan = Lan::new(|setup| setup.services = vec![Service::new::<Deaf>("deaf", 7, ())]);
    let client = lan.connect();
    lan.client.tcp.with(client, |tcb| {
        tcb.write(Bytes::from_static(b"hello?"));
        tcb.finish();
    });
    lan.run();
    assert_eq!(lan.nodes["a"].connections()[0].state, "TIME-WAIT");
    lan.pass(61_000);
    assert_eq!(lan.owner(), [""; 0]);
    assert_eq!(lan.resets(), 0);
}

#[test]
fn a_handoff_to_a_node_that_falls_silent_before_the_freeze_leaves_everything_as_it_was() {
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    let command = Command::Handoff { to: "b".to_owned(), which: Which::All };
    lan.nodes.get_mut("a").unwrap().handle(Input::Command { id: 900, command }, lan.now);
    lan.cut("a", "b");
    assert!(lan.steps.iter().any(|(name, step)| *name == "a" && matches!(step, Step::Failed { .. })));
    assert_eq!(lan.owner(), ["a"]);
    assert_eq!(lan.echo(client, b"unmoved"), b"unmoved");
    assert_eq!(lan.hand_off("a", "c"), ONE_MOVED);
    assert_eq!(lan.echo(client, b"moved"), b"moved");
}

#[test]
fn a_port_without_a_service_refuses_at_once() {
    let mut lan = Lan::new(|_| {});
    let to = SocketAddrV6::new(service_address(), 8, 0, 0);
    lan.client.tcp.connect(address(50).address, to, tcp::Config::default(), lan.now).unwrap();
    lan.run();
    assert_eq!(lan.resets(), 1);
}

#[test]
fn a_setup_that_cannot_work_is_refused() {
    let refused = |change: fn(&mut super::Setup)| {
        let mut setup = setup("a");
        change(&mut setup);
        Node::new(setup, ferry_stack::Instant::ZERO).unwrap_err()
    };
    let (a, b) = ("a".to_owned(), "b".to_owned());
    assert_eq!(refused(|s| s.mtu = 1279), SetupError::Mtu(1279));
    assert_eq!(refused(|s| s.contact = "z".into()), SetupError::UnknownContact("z".into()));
    assert_eq!(refused(|s| s.peers[0].name = "a".into()), SetupError::SameName(a.clone(), a));
    assert_eq!(refused(|s| s.peers[1].name = "b".into()), SetupError::SameName(b.clone(), b));
    let taken = service_address();
    assert_eq!(refused(|s| s.peers[0].care_of = s.service_address), SetupError::SameAddress(taken));
    assert_eq!(
        refused(|s| s.services.push(Service::new::<crate::services::Discard>("discard", 7, ()))),
        SetupError::SamePort(7)
    );
}
