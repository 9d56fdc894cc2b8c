//! Load that is evened, nodes that are emptied, and moves that are allowed or not, and told of.

use bytes::Bytes;
use ferry_handoff::{Epoch, Message, NodeId, Refusal};

use super::lan::{self, Lan};
use crate::node::Placement;
use crate::{AuditResult, Command, Input, Moved, Output, Reason, Reply, Setup};

fn owned(lan: &Lan) -> [usize; 3] {
    lan::NAMES.map(|name| lan.nodes[name].connections().len())
}

fn moved(lan: &mut Lan, at: &'static str, command: Command) -> Moved {
    match lan.ask(at, command) {
        Some(Reply::Moved(moved)) => moved,
        other => panic!("{other:?}"),
    }
}

fn may_own_only(node: &str, services: &[&str]) -> impl Fn(&mut Setup) {
    let allowed = services.iter().map(|service| (*service).to_owned()).collect();
    let rule = (node.to_owned(), allowed);
    move |setup| setup.rules.allowed = [rule.clone()].into()
}

#[test]
fn a_rebalanced_group_is_even_whoever_was_asked_and_no_client_notices() {
    for asked in lan::NAMES {
        let mut lan = Lan::new(|_| {});
        let clients: Vec<_> = (0..7).map(|_| lan.connect()).collect();
        lan.pass(200);
        assert_eq!(owned(&lan), [7, 0, 0]);
        assert_eq!(moved(&mut lan, asked, Command::Rebalance), Moved { moved: 4, ..Moved::default() });
        assert_eq!(owned(&lan), [3, 2, 2]);
        lan.pass(200);
        assert_eq!(moved(&mut lan, asked, Command::Rebalance), Moved::default(), "once is enough");
        for client in clients {
            assert_eq!(lan.echo(client, b"still served"), b"still served");
        }
        assert_eq!(lan.resets(), 0);
    }
}

#[test]
fn a_node_that_weighs_nothing_is_left_with_nothing() {
    let mut lan = Lan::new(|setup| {
        setup.rules.weights = [("a".to_owned(), 0), ("b".to_owned(), 2)].into();
    });
    for _ in 0..6 {
        lan.connect();
    }
    lan.pass(200);
    assert_eq!(moved(&mut lan, "c", Command::Rebalance).moved, 6);
    assert_eq!(owned(&lan), [0, 4, 2]);
}

#[test]
fn a_node_is_drained_by_its_name_from_any_other_until_that_is_stopped() {
    let mut lan = Lan::new(|setup| setup.placement = Placement::RoundRobin);
    for _ in 0..6 {
        lan.connect();
    }
    let drain = Command::DrainNode { node: "c".to_owned() };
    assert_eq!(moved(&mut lan, "b", drain).moved, 2);
    assert_eq!(owned(&lan), [3, 3, 0]);
    assert!(lan.nodes["c"].status(lan.now).draining);
    assert_eq!(lan.ask("c", Command::Stop), Some(Reply::Done));
    assert!(!lan.nodes["c"].status(lan.now).draining);
    lan.pass(200);
    moved(&mut lan, "c", Command::Rebalance);
    assert_eq!(owned(&lan), [2, 2, 2]);
    let nobody = Command::DrainNode { node: "d".to_owned() };
    assert!(matches!(lan.ask("a", nobody), Some(Reply::Error { .. })));
}

#[test]
fn a_drain_that_is_stopped_half_way_ends_what_is_under_way_and_leaves_the_rest() {
    let mut lan = Lan::new(|_| {});
    let clients: Vec<_> = (0..300).map(|_| lan.connect_at_once()).collect();
    lan.pass(200);
    assert_eq!(owned(&lan), [300, 0, 0]);
    let now = lan.now;
    let node = lan.nodes.get_mut("a").unwrap();
    node.handle(Input::Command { id: 900, command: Command::Drain }, now);
    node.handle(Input::Command { id: 901, command: Command::Stop }, now);
    lan.run();
    lan.pass(200);
    let Some(Reply::Moved(Moved { moved, failed, left })) = lan.reply(900) else { panic!("no answer") };
    assert_eq!((moved, failed.len(), left), (256, 0, 44));
    assert_eq!(owned(&lan)[0], 44);
    assert!(!lan.nodes["a"].status(lan.now).draining);
    for client in clients {
        assert_eq!(lan.echo(client, b"still served"), b"still served");
    }
    assert_eq!(lan.resets(), 0);
}

#[test]
fn each_move_leaves_one_line_at_the_donor_and_one_at_the_acceptor() {
    let mut lan = Lan::new(|_| {});
    lan.connect();
    lan.hand_off("a", "b");
    let told: Vec<_> = lan.audits.drain(..).collect();
    let [(first, donor), (second, acceptor)] = &told[..] else { panic!("{told:?}") };
    let (donor, acceptor) = if *first == "a" { (donor, acceptor) } else { (acceptor, donor) };
    assert_ne!(first, second);
    for audit in [donor, acceptor] {
        assert_eq!((&*audit.from, &*audit.to, &*audit.service), ("a", "b", "echo"));
        assert_eq!((audit.epoch, &audit.result), (2, &AuditResult::Moved));
    }
    assert_eq!((donor.before, donor.why, acceptor.why), (Some(1), Reason::Handoff, Reason::Offered));
    lan.ask("b", Command::Drain);
    let drained = lan.audits.iter().find(|(at, _)| *at == "b").unwrap();
    assert_eq!((drained.1.before, drained.1.epoch, drained.1.why), (Some(2), 3, Reason::Drain));
}

#[test]
fn a_node_is_given_no_connection_of_a_service_that_it_may_not_own() {
    let mut lan = Lan::new(|setup| {
        may_own_only("b", &["file"])(setup);
        setup.placement = Placement::RoundRobin;
    });
    for _ in 0..4 {
        lan.connect();
    }
    assert_eq!(owned(&lan), [2, 0, 2]);
    let Reply::Moved(Moved { moved: 0, failed, .. }) = lan.hand_off("a", "b") else { panic!("it moved") };
    assert_eq!(failed[0].why, "b may not own connections of echo");
    assert_eq!(moved(&mut lan, "a", Command::Drain).moved, 2);
    assert_eq!(owned(&lan), [0, 0, 4]);
}

#[test]
fn a_connection_is_not_taken_from_a_node_that_may_not_own_it_whatever_that_says() {
    let mut lan = Lan::new(may_own_only("b", &[]));
    lan.connect();
    let flow = lan.nodes["a"].control_blocks().next().unwrap().flow;
    let [snapshot] = &lan.nodes["a"].snapshots(lan.now)[..] else { panic!("one connection") };
    let epoch = Epoch::nth(9);
    let snapshot = ferry_handoff::Snapshot { epoch, ..snapshot.clone() }.pieces().unwrap();
    let why = Refusal::NotAllowed { node: "b".to_owned(), service: "echo".to_owned() };
    let cases = [
        (
            Message::Prepare { flow, epoch, service: "echo".to_owned() },
            Message::Refuse { flow, epoch, why: why.clone() },
        ),
        (Message::Transfer { flow, epoch, snapshot }, Message::Returned { flow, epoch, why: why.clone() }),
    ];
    for (said, expected) in cases {
        let now = lan.now;
        let node = lan.nodes.get_mut("c").unwrap();
        node.handle(Input::Peer { from: NodeId::of("b"), bytes: said.encode() }, now);
        let (mut answers, mut audits) = (Vec::new(), Vec::new());
        loop {
            match node.poll(now) {
                Output::Peer { bytes, .. } => answers.push(Message::decode(&bytes.join()).unwrap()),
                Output::Trace(trace) => {
                    if let crate::TraceEvent::Move(audit) = trace.event {
                        audits.push(audit);
                    }
                }
                Output::WaitUntil(_) => break,
                _ => {}
            }
        }
        assert_eq!(answers, [expected]);
        assert_eq!(audits[0].result, AuditResult::Refused { why_not: why.to_string() });
        assert_eq!((&*audits[0].from, &*audits[0].to), ("b", "c"));
        assert!(node.connections().is_empty());
    }
}

#[test]
fn the_contact_role_moves_on_the_home_link_when_the_contact_node_is_drained_and_no_client_notices() {
    let mut lan = Lan::new(|setup| setup.placement = Placement::RoundRobin);
    let mut clients: Vec<_> = (0..6).map(|_| lan.connect()).collect();
    for drained in lan::NAMES {
        moved(&mut lan, drained, Command::Drain);
        assert!(!lan.nodes[drained].is_contact(), "{drained}");
        assert_eq!(lan.nodes.values().filter(|node| node.is_contact()).count(), 1);
        // What neighbours that have not heard of it send still comes, for a while.
        lan.pass(100);
        clients.push(lan.connect());
        lan.pass(3000);
        clients.push(lan.connect());
        for client in &clients {
            assert_eq!(lan.echo(*client, b"still served"), b"still served", "{drained}");
        }
        assert!(lan.nodes[drained].connections().is_empty(), "{drained}");
        lan.ask(drained, Command::Stop);
    }
    assert_eq!(lan.resets(), 0);
    let Some(Reply::Done) = lan.ask("c", Command::Contact) else { panic!("refused") };
    assert!(lan.nodes["c"].is_contact());
}

#[test]
fn the_contact_role_moves_on_the_home_link_at_each_message_of_a_handoff_and_no_client_notices() {
    // From the contact node to another, from another to the contact node, and between two others.
    for (from, to) in [("a", "b"), ("b", "a"), ("b", "c")] {
        for taker in ["b", "c"] {
            let mut after = 0;
            loop {
                let mut lan = Lan::new(|_| {});
                let client = lan.connect();
                if from != "a" {
                    lan.hand_off("a", from);
                }
                lan.upon = Some((after, taker, Command::Contact));
                let command = Command::Handoff { to: to.to_owned(), which: crate::Which::All };
                lan.nodes.get_mut(from).unwrap().handle(Input::Command { id: 900, command }, lan.now);
                lan.client.tcp.with(client, |tcb| tcb.write(Bytes::from_static(b"meanwhile ")));
                lan.run();
                let what = format!("{from} to {to}, {taker} takes the role after {after} messages");
                assert_eq!(lan.echo(client, b"and then"), b"meanwhile and then", "{what}");
                lan.pass(3_000);
                assert_eq!((lan.owner(), lan.resets()), (vec![to], 0), "{what}");
                let over = lan.upon.is_some();
                let contacts = lan::NAMES.into_iter().filter(|name| lan.nodes[name].is_contact());
                assert_eq!(contacts.collect::<Vec<_>>(), [if over { "a" } else { taker }], "{what}");
                lan.connect();
                assert_eq!(lan.resets(), 0, "{what}");
                if over {
                    assert!(after >= 6, "{what}");
                    break;
                }
                after += 1;
            }
        }
    }
}
