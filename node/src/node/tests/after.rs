//! What becomes of a connection right after its node has died, where not all is well with its copies.

use bytes::Bytes;
use ferry_stack::tcp::{Handle, Segment, SynCookies};

use super::lan::{self, Lan};
use super::{Homebody, ONE_MOVED, Placement};
use crate::AuditResult;
use crate::node::{Commit, Service};
use crate::services::Echo;

fn held(lan: &Lan, what: &'static str) -> usize {
    let alive = lan::NAMES.into_iter().filter(|name| !lan.dead.contains(name));
    alive.map(|name| lan.nodes[name].remembered()[what]).sum()
}

fn heard(lan: &Lan, client: Handle) -> usize {
    lan.client.tcp.get(client).map_or(0, ferry_stack::tcp::Tcb::readable)
}

fn say(lan: &mut Lan, client: Handle, octets: &'static [u8]) {
    lan.client.tcp.with(client, |tcb| tcb.write(Bytes::from_static(octets)));
    lan.run();
}

/// A connection at `b`, of which both others have copies.
fn at_b() -> (Lan, Handle) {
    let mut lan = Lan::new(|setup| {
        setup.services = vec![Service::new::<Echo>("echo", 7, ()).protected(2, Commit::Strict)];
    });
    let client = lan.connect();
    assert_eq!(lan.hand_off("a", "b"), ONE_MOVED);
    assert_eq!(lan.echo(client, b"x"), b"x");
    assert_eq!(held(&lan, "copies"), 2);
    (lan, client)
}

/// That node has died, which only the contact node knows: it asks `c`, and hears nothing.
fn in_doubt() -> (Lan, Handle) {
    let (mut lan, client) = at_b();
    lan.kill("b");
    lan.deafen("a", "c", true);
    lan.prove_at("b", "a");
    (lan, client)
}

#[test]
fn a_session_that_will_not_go_on_after_a_crash_is_lost_and_both_the_audit_and_the_client_are_told() {
    let mut lan = Lan::new(|setup| {
        let homebody = Service::new::<Homebody>("homebody", 7, false);
        setup.services = vec![homebody.protected(2, Commit::Strict)];
        setup.placement = Placement::RoundRobin;
    });
    let client = loop {
        let client = lan.connect();
        if lan.nodes["b"].connections().len() == 1 {
            break client;
        }
    };
    assert_eq!(lan.echo(client, b"at home"), b"at home");
    lan.kill("b");
    lan.prove_to_all("b");
    lan.pass(100);
    let refused = |(_, audit): &&(&str, crate::Audit)| matches!(&audit.result, AuditResult::Refused { why_not } if why_not.contains("it stays at home"));
    assert_eq!(lan.audits.iter().filter(refused).count(), 1, "{:?}", lan.audits);
    assert_eq!(lan.resets(), 0, "nobody is told anything before he asks");
    say(&mut lan, client, b"anybody home?");
    lan.pass(3_000);
    assert_eq!(lan.resets(), 0, "somebody might have a copy, and not know yet that its owner is dead");
    lan.pass(10_000);
    assert_eq!(lan.resets(), 1);
    lan.client.tcp.with(client, ferry_stack::tcp::Tcb::abort);
}

#[test]
fn what_comes_while_it_is_found_out_who_goes_on_waits_at_the_contact_node_and_is_not_lost() {
    let (mut lan, client) = in_doubt();
    let before = lan.nodes["a"].status(lan.now).counters.held;
    say(&mut lan, client, b"into the gap");
    assert_eq!(lan.nodes["a"].status(lan.now).counters.held, before + 1);
    assert_eq!((lan.owner(), heard(&lan, client)), (vec![], 0));
    lan.deafen("a", "c", false);
    lan.prove_at("b", "c");
    // Claims are repeated by then, and the client has not sent it again.
    lan.pass(120);
    assert_eq!((lan.owner().len(), heard(&lan, client)), (1, 12));
    assert_eq!((held(&lan, "orphans"), lan.resets()), (0, 0));
}

#[test]
fn no_more_than_64_segments_of_a_connection_wait_and_none_for_longer_than_a_second() {
    let (mut lan, client) = in_doubt();
    let tcb = lan.client.tcp.get(client).unwrap();
    let (flow, seq, ack) = (tcb.flow, tcb.snd.nxt, tcb.rcv.nxt);
    let counted = |lan: &Lan| {
        let counters = lan.nodes["a"].status(lan.now).counters;
        (counters.held, counters.dropped)
    };
    let before = counted(&lan);
    for nth in 0..100_u32 {
        let octet = Bytes::from_static(b"x");
        let segment = Segment { payload: octet, window: 500, ..Segment::bare(seq + nth, Some(ack), None) };
        lan.client.interface.send(segment.emit(&flow, 0, false), lan.now);
        lan.run();
    }
    let after = counted(&lan);
    assert_eq!((after.0 - before.0, after.1 - before.1), (64, 36));
    assert_eq!(held(&lan, "orphans"), 1);
    lan.pass(1_100);
    assert_eq!(held(&lan, "orphans"), 0);
    assert_eq!(lan.resets(), 0, "c may own it");
}

#[test]
fn who_came_with_a_cookie_to_a_node_that_died_before_it_had_a_backup_is_served_or_told() {
    let (mut served, mut told) = (0, 0);
    for moment in 0..12 {
        let mut lan = Lan::new(|setup| {
            setup.services = vec![Service::new::<Echo>("echo", 7, ()).protected(1, Commit::Strict)];
            setup.placement = Placement::RoundRobin;
            setup.tcp.syn_cookies = SynCookies::Always;
        });
        lan.pass(110_000);
        // The first connection is the contact node's.
        let first = lan.connect();
        lan.client.tcp.with(first, ferry_stack::tcp::Tcb::abort);
        lan.pass(300);
        lan.doom(&["b"], moment);
        let client = lan.connect_at_once();
        say(&mut lan, client, b"hello");
        if !lan.has_come_true() {
            continue;
        }
        let resets = lan.resets();
        lan.let_die(&["b"]);
        lan.pass(15_000);
        let (is_served, is_told) = (heard(&lan, client) == 5, lan.resets() > resets);
        assert!(is_served || is_told, "moment {moment}: {:?}", lan.owner());
        served += u32::from(is_served);
        told += u32::from(is_told && !is_served);
    }
    assert!(served > 0, "{told}");
}
