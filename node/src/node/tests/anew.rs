//! A client uses its port again: another connection between the same ends, of which other nodes remember the first.

use bytes::Bytes;
use ferry_mipv6::route::put_routing;
use ferry_stack::tcp::{Config, Control, Endpoint, Handle, Options, Secret, Segment, State, Tcb, Timestamps};
use ferry_stack::{Seq, ip};

use super::lan::{Lan, NAMES, address};
use super::{Deaf, ONE_MOVED};
use crate::node::{Placement, Service};
use crate::services::Echo;

/// Hands the only connection on from node to node, so that it ends at `last` after it was everywhere.
fn round_to(lan: &mut Lan, last: &str, what: &str) {
    let at = |name: &str| NAMES.iter().position(|known| *known == name).unwrap();
    for nth in 1..=3 {
        let (from, to) = (lan.owner()[0], NAMES[(at(last) + nth) % 3]);
        if from != to {
            assert_eq!(lan.hand_off(from, to), ONE_MOVED, "{what}: {from} to {to}");
        }
    }
    assert_eq!(lan.owner(), [last], "{what}");
}

fn end(lan: &mut Lan, client: Handle) {
    lan.client.tcp.with(client, Tcb::finish);
    lan.pass(100);
}

/// Connections from one port, one after the other, wherever the one before ended and wherever the next is placed. Each goes on
/// for so many milliseconds after its client has finished.
fn again_and_again(service: fn() -> Service, after: u64, opened: fn(&mut Lan, Handle, &str)) {
    for (last, turn) in NAMES.iter().flat_map(|last| (0..3).map(move |turn| (*last, turn))) {
        let what = format!("ended at {last}, turn {turn}");
        let mut lan = Lan::new(|setup| {
            (setup.placement, setup.services) = (Placement::RoundRobin, vec![service()]);
        });
        for _ in 0..turn {
            let other = lan.connect();
            end(&mut lan, other);
        }
        lan.pass(61_000);
        let mut client = lan.connect();
        let flow = lan.client.tcp.get(client).unwrap().flow;
        for _ in 0..3 {
            opened(&mut lan, client, &what);
            round_to(&mut lan, last, &what);
            end(&mut lan, client);
            if !lan.owner().is_empty() {
                round_to(&mut lan, last, &what);
            }
            lan.pass(after);
            client = lan.client.tcp.connect_from(flow, Config::default(), lan.now).expect("a port");
            lan.run();
            lan.pass(100);
            assert_eq!(lan.owner().len(), 1, "{what}");
        }
        opened(&mut lan, client, &what);
        round_to(&mut lan, last, &what);
        assert_eq!(lan.resets(), 0, "{what}");
    }
}

#[test]
fn a_port_that_is_used_again_opens_a_connection_that_can_be_anywhere() {
    // The client was in TIME-WAIT.
    again_and_again(
        || Service::new::<Echo>("echo", 7, ()),
        61_000,
        |lan, client, what| {
            assert_eq!(lan.echo(client, b"anew"), b"anew", "{what}");
        },
    );
}

#[test]
fn a_port_that_is_used_again_while_the_server_is_in_time_wait_opens_a_connection_that_can_be_anywhere() {
    again_and_again(
        || Service::new::<Deaf>("deaf", 7, ()),
        0,
        |lan, client, what| {
            assert_eq!(lan.client.tcp.get(client).unwrap().state, State::CloseWait, "{what}");
        },
    );
}

#[test]
fn a_syn_that_comes_straight_to_a_node_that_has_had_an_older_connection_does_not_follow_that() {
    for at in [1, 2] {
        let what = NAMES[usize::from(at)];
        let mut lan = Lan::new(|setup| setup.services = vec![Service::new::<Deaf>("deaf", 7, ())]);
        let client = lan.connect();
        let flow = lan.client.tcp.get(client).unwrap().flow;
        // Node c still forwards to b what comes for this one when the next is in TIME-WAIT at a.
        assert_eq!([lan.hand_off("a", "c"), lan.hand_off("c", "b")], [ONE_MOVED, ONE_MOVED]);
        end(&mut lan, client);
        lan.pass(61_000);
        let client = lan.client.tcp.connect_from(flow, Config::default(), lan.now).expect("a port");
        let seq = lan.client.tcp.get(client).unwrap().snd.iss + 100_000_u32;
        lan.run();
        lan.pass(100);
        end(&mut lan, client);
        assert_eq!((lan.owner(), &lan.nodes["a"].connections()[0].state[..]), (vec!["a"], "TIME-WAIT"));
        let mut packet = Segment::bare(seq, None, Some(Control::Syn)).emit(&flow, 0, false);
        assert!(put_routing(&mut packet, address(at).address));
        lan.client.interface.send(packet, lan.now);
        lan.run();
        let answered = |answer: &&Segment| answer.is_syn() && answer.ack == Some(seq + 1_u32);
        assert_eq!(lan.seen.iter().filter(answered).count(), 1, "{what}");
        // The client's host, which knows nothing of it, has reset it.
        assert_eq!(lan.owner(), [""; 0], "{what}");
    }
}

#[test]
fn octets_of_a_new_connection_that_come_straight_to_where_the_last_has_just_ended_are_not_late_ones_of_that()
{
    let mut lan = Lan::new(|_| {});
    let client = lan.connect();
    let flow = lan.client.tcp.get(client).unwrap().flow;
    assert_eq!(lan.hand_off("a", "b"), ONE_MOVED);
    end(&mut lan, client);
    assert_eq!(lan.owner(), [""; 0]);
    // The client's machine starts anew, so that it can use the port at once.
    lan.client.tcp = Endpoint::new(Secret::new([2; 32]), 1500, false);
    let client = lan.client.tcp.connect_from(flow, Config::default(), lan.now).unwrap();
    lan.run();
    lan.pass(50);
    assert_eq!(lan.owner(), ["a"]);
    let tcb = lan.client.tcp.get(client).unwrap();
    let timestamps = Some(Timestamps { value: tcb.timestamps.unwrap().value_at(lan.now), echo: 0 });
    let octets = Segment {
        options: Options { timestamps, ..Options::default() },
        payload: Bytes::from_static(b"anew"),
        window: 500,
        ..Segment::bare(tcb.snd.nxt, Some(tcb.rcv.nxt), None)
    };
    let mut packet = octets.emit(&flow, 0, false);
    assert!(put_routing(&mut packet, address(1).address));
    lan.client.interface.send(packet, lan.now);
    lan.run();
    assert_eq!(lan.nodes["a"].control_blocks().next().unwrap().rcv.total, 4);
    assert_eq!(lan.resets(), 0);
}

#[test]
fn a_syn_that_has_followed_an_older_connection_is_known_to_the_contact_node_before_its_client_answers() {
    let mut lan = Lan::new(|setup| setup.placement = Placement::Hash);
    let client = lan.connect();
    let placed = lan.owner()[0];
    assert_ne!(placed, "a", "the contact node never has it");
    let other = if placed == "b" { "c" } else { "b" };
    let flow = lan.client.tcp.get(client).unwrap().flow;
    assert_eq!(lan.hand_off(placed, other), ONE_MOVED);
    end(&mut lan, client);
    // The client's machine knows nothing of what opens the next, and resets it.
    lan.client.tcp = Endpoint::new(Secret::new([2; 32]), 1500, false);
    lan.sent.clear();
    lan.client.interface.send(Segment::bare(Seq(9), None, Some(Control::Syn)).emit(&flow, 0, false), lan.now);
    lan.run();
    let tunnelled = |to: &str| {
        let at = NAMES.iter().position(|name| *name == to).unwrap();
        let way = address(u16::try_from(at).unwrap()).address;
        lan.sent.iter().filter(|(upper, exit)| *upper == ip::IPV6 && *exit == way).count()
    };
    assert_eq!((tunnelled(placed), tunnelled(other)), (1, 2), "only the SYN took the long way");
    assert_eq!(lan.owner(), [""; 0]);
}
