//! Sessions that sleep, and where they wake.

use std::net::SocketAddrV6;
use std::time::Duration;

use bytes::Bytes;
use ferry_stack::tcp;
use serde::{Deserialize, Serialize};

use super::lan::Lan;
use super::{ONE_MOVED, Service};
use crate::session::{Event, Session, Stream};

/// Each octet that comes sets the timer to ten times as many milliseconds. Writes one when it is woken.
#[derive(Serialize, Deserialize)]
struct Sleeper;

impl Session for Sleeper {
    type Service = ();

    fn open((): &(), _: SocketAddrV6) -> Self {
        Self
    }

    fn handle(&mut self, (): &(), event: Event, stream: &mut Stream<'_>) {
        for octet in stream.read(usize::MAX) {
            stream.wake_after(Duration::from_millis(10 * u64::from(octet)));
        }
        if event == Event::Timer {
            stream.write(Bytes::from_static(b"!"));
        }
        if stream.at_end() {
            stream.finish();
        }
    }
}

fn lan() -> (Lan, tcp::Handle) {
    let mut lan = Lan::new(|setup| setup.services = vec![Service::new::<Sleeper>("sleeper", 7, ())]);
    let client = lan.connect();
    (lan, client)
}

fn send(lan: &mut Lan, client: tcp::Handle, octets: &'static [u8]) {
    lan.client.tcp.with(client, |tcb| tcb.write(Bytes::from_static(octets)));
    lan.run();
}

/// How often it was woken after so many milliseconds more.
fn woken(lan: &mut Lan, client: tcp::Handle, millis: u64) -> usize {
    lan.pass(millis);
    lan.client.tcp.with(client, |tcb| tcb.read(usize::MAX).len()).unwrap()
}

#[test]
fn a_session_is_woken_once_when_the_time_that_it_named_last_has_passed() {
    let (mut lan, client) = lan();
    send(&mut lan, client, &[20, 5, 10]);
    assert_eq!([90, 10, 500].map(|millis| woken(&mut lan, client, millis)), [0, 1, 0]);
    send(&mut lan, client, &[0]);
    assert_eq!([0, 10, 500].map(|millis| woken(&mut lan, client, millis)), [0, 1, 0], "not at once");
}

#[test]
fn the_timer_of_a_session_moves_with_its_connection() {
    let (mut lan, client) = lan();
    let due = lan.now + Duration::from_secs(1);
    send(&mut lan, client, &[100]);
    for (from, to) in [("a", "b"), ("b", "c"), ("c", "b"), ("b", "a")] {
        assert_eq!(woken(&mut lan, client, 20), 0);
        assert_eq!(lan.hand_off(from, to), ONE_MOVED);
    }
    let left = u64::try_from(due.until(lan.now).as_millis()).unwrap();
    assert!(left > 20, "{left}");
    assert_eq!([left - 10, 10, 500].map(|millis| woken(&mut lan, client, millis)), [0, 1, 0]);
    assert!(lan.nodes.values().all(|node| node.wakes.next().is_none()));
}

#[test]
fn the_timer_of_a_session_ends_with_its_connection() {
    let (mut lan, client) = lan();
    send(&mut lan, client, &[100]);
    lan.client.tcp.with(client, tcp::Tcb::abort);
    lan.run();
    assert_eq!(lan.owner(), [""; 0]);
    assert!(lan.nodes.values().all(|node| node.wakes.next().is_none()));
}
