//! What a host keeps of connections that nobody uses any more, and what strangers can make it send.

use alloc::vec::Vec;

use super::endpoint::{Server, client, received};
use super::harness::{MS, Make, WINDOW};
use crate::Seq;
use crate::tcp::{Arrival, Ending, Event, Handle, Limits, Segment, State, Tcb};

fn server(limits: Limits) -> Server {
    let mut server = Server::new(10_000, 10_000);
    server.endpoint.set_limits(limits);
    server
}

fn next(server: &Server, handle: Handle) -> Segment {
    let tcb = server.endpoint.get(handle).unwrap();
    Segment { window: WINDOW, ..Segment::bare(tcb.rcv.nxt, Some(tcb.snd.nxt), None) }
}

/// Our side finishes first, then the other.
fn time_wait(server: &mut Server, handle: Handle) {
    server.endpoint.with(handle, Tcb::finish);
    server.sent();
    let fin = next(server, handle).fin();
    server.gets(handle, &fin).unwrap();
    server.sent();
}

#[test]
fn the_oldest_in_time_wait_make_way_when_there_are_too_many() {
    let mut server = server(Limits { time_wait: 3, ..Limits::default() });
    let handles: Vec<_> = (1..=5).map(|port| server.accepted(port)).collect();
    for handle in &handles {
        time_wait(&mut server, *handle);
        server.now += MS;
    }
    let left: Vec<_> = handles.iter().map(|handle| server.endpoint.get(*handle).is_some()).collect();
    assert_eq!(left, [false, false, true, true, true]);
    assert_eq!(server.endpoint.evicted(), 2);
    let ends: Vec<_> =
        server.events().into_iter().filter(|event| matches!(event, Event::Closed(..))).collect();
    assert_eq!(
        ends,
        [1, 2].map(|port| Event::Closed(
            handles[port - 1],
            client(u16::try_from(port).unwrap()),
            Ending::Finished,
            received(5002)
        ))
    );
    // Those that ended by themselves count no more.
    server.wait(70_000 * MS);
    assert!(server.endpoint.is_empty());
    for port in 6..=8 {
        let handle = server.accepted(port);
        time_wait(&mut server, handle);
    }
    assert_eq!((server.endpoint.len(), server.endpoint.evicted()), (3, 2));
}

#[test]
fn the_oldest_orphan_is_reset_when_there_are_too_many() {
    let mut server = server(Limits { orphans: 2, ..Limits::default() });
    let used = server.accepted(9);
    server.endpoint.with(used, Tcb::finish);
    server.sent();
    let handles: Vec<_> = (1..=3).map(|port| server.accepted(port)).collect();
    let now = server.now;
    for handle in &handles {
        server.endpoint.with(*handle, |tcb| tcb.close(now));
    }
    let sent = server.sent();
    assert_eq!(sent.iter().filter(|segment| segment.is_rst()).count(), 1);
    let states: Vec<_> = handles.iter().map(|it| server.endpoint.get(*it).map(|tcb| tcb.state)).collect();
    assert_eq!(states, [None, Some(State::FinWait1), Some(State::FinWait1)]);
    assert!(server.endpoint.get(used).is_some(), "somebody still reads there");
}

#[test]
fn challenges_are_bounded_in_each_second_by_a_number_that_cannot_be_foretold() {
    let mut server = server(Limits { challenges: 20, ..Limits::default() });
    let handles: Vec<_> = (1..=50).map(|port| server.accepted(port)).collect();
    let mut counts = Vec::new();
    for _ in 0..20 {
        server.now += 1000 * MS;
        let mut count = 0;
        for handle in &handles {
            let blind = Segment { seq: next(&server, *handle).seq + 5_u32, ..next(&server, *handle).rst() };
            server.gets(*handle, &blind).unwrap_err();
            count += server.sent().len();
        }
        counts.push(count);
    }
    assert!(counts.iter().all(|count| (10..=30).contains(count)), "{counts:?}");
    assert!(counts.iter().any(|count| *count != counts[0]), "{counts:?}");
}

#[test]
fn a_peer_that_asks_whether_we_are_there_is_answered_however_many_challenges_were_provoked() {
    let mut server = server(Limits { challenges: 0, ..Limits::default() });
    let handle = server.accepted(1);
    let probe = Segment { seq: next(&server, handle).seq - 1, ..next(&server, handle) };
    assert!(matches!(server.endpoint.receive(&client(1), &probe, server.now), Arrival::Delivered(_, Err(_))));
    assert_eq!(server.sent().len(), 1);
    let blind = Segment { seq: Seq(0), ..next(&server, handle).syn_bit() };
    server.gets(handle, &blind).unwrap_err();
}
