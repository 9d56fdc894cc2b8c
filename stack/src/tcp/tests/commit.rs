//! Output commit: nothing is told before a backup has a copy, and nothing waits longer than that.

use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::harness::{MS, MSS, Make, Solo, flow, opening, plain};
use crate::tcp::{Commit, Config, Listener, Point, Secret, Segment, State, Tcb, Timestamps};
use crate::{Instant, Seq};

const BOTH: [Commit; 2] = [Commit::Strict, Commit::Regenerate];

/// Established, and held before anything else has happened.
fn held(commit: Commit, config: Config) -> Solo {
    let mut solo = Solo::established(config);
    solo.tcb.rcv.quick = 0;
    solo.tcb.hold(commit);
    solo
}

fn full(solo: &Solo, seq: u32) -> Segment {
    solo.ack(seq, 1).data(&[7; MSS])
}

/// Releases everything that a copy of now would know.
fn release(solo: &mut Solo) {
    let point = solo.tcb.point();
    solo.tcb.release(point);
}

/// Releases the acknowledgement of everything before `ack`, and the rest as far as it is.
fn release_ack(solo: &mut Solo, ack: u32) {
    let point = solo.tcb.point();
    solo.tcb.release(Point { ack: solo.irs + ack, ..point });
}

#[test]
fn the_answer_to_a_syn_waits_for_the_copy_of_the_handshake() {
    for commit in BOTH {
        let mut solo = Solo::with(plain(), 1000, 5000);
        solo.tcb = Tcb::accept(flow(), &solo.syn(1000), &opening(plain(), Seq(1000)), solo.now);
        solo.tcb.hold(commit);
        let early = solo.tcb.point();
        assert_eq!(solo.wait(10_000 * MS), [""; 0], "{commit:?}");
        assert_eq!(solo.tcb.deadline(), None, "what was never sent has no timer");
        // The client asks again, and somebody else sends nonsense.
        solo.gets(solo.syn(1000)).unwrap();
        solo.gets(solo.ack(40_000, 77).data(b"x")).unwrap_err();
        assert_eq!(solo.sent(), [""; 0]);
        solo.tcb.release(early);
        assert_eq!(solo.sent(), ["SYN 0 ack 1"]);
        solo.now += 10 * MS;
        solo.gets(solo.ack(1, 1)).unwrap();
        assert_eq!(solo.tcb.rtt.smoothed, Some(10 * MS), "the wait is no part of the round trip");
    }
}

#[test]
fn a_listener_can_hold_what_it_accepts_from_the_first_segment_on() {
    let mut endpoint = crate::tcp::Endpoint::new(Secret::new([1; 32]), 1500, false);
    endpoint.listen(80, Listener::new(plain()));
    let (solo, now) = (Solo::with(plain(), 0, 5000), Instant::from_millis(5));
    let handle = endpoint.open(flow(), &solo.syn(1000), now).unwrap();
    endpoint.with(handle, |tcb| tcb.hold(Commit::Strict));
    assert!(endpoint.poll_transmit(now, |_| crate::tcp::Path::default()).is_none());
    assert_eq!(endpoint.deadline(), None);
    endpoint.with(handle, |tcb| tcb.release(tcb.point()));
    assert!(endpoint.poll_transmit(now, |_| crate::tcp::Path::default()).is_some());
}

#[test]
fn held_back_acknowledgements_repeat_nothing_and_come_when_released() {
    let stamped = |solo: &Solo, seq: u32, value: u32| {
        let mut segment = full(solo, seq);
        segment.options.timestamps = Some(Timestamps { value, echo: 0 });
        segment
    };
    let mut solo = held(Commit::Regenerate, Config { timestamps: true, sack: true, ..plain() });
    solo.gets(stamped(&solo, 1, 201)).unwrap();
    solo.gets(stamped(&solo, 1001, 202)).unwrap();
    solo.gets(stamped(&solo, 3001, 203)).unwrap();
    assert_eq!(solo.wait(1000 * MS), [""; 0], "a repeated acknowledgement would look like a loss");
    assert_eq!(solo.tcb.readable(), 2000, "the application reads as if nothing were held back");
    solo.write(5);
    assert_eq!(solo.sent(), ["1+5 ack 1"], "octets carry the old acknowledgement, and no blocks");
    release_ack(&mut solo, 1001);
    let sent = solo.segments();
    assert_eq!(solo.show(&sent[0]), "6 ack 1001");
    assert_eq!(sent[0].options.timestamps.unwrap().echo, 201);
    release_ack(&mut solo, 500);
    solo.tcb.kick();
    assert_eq!(solo.sent().last().unwrap(), "1+5 ack 1001", "what was acknowledged stays so");
    solo.tcb.unhold();
    assert_eq!(solo.sent(), ["6 ack 2001 sack 3001-4001"]);
}

#[test]
fn octets_out_of_order_are_reported_as_soon_as_nothing_in_order_is_held() {
    let mut solo = held(Commit::Strict, Config { sack: true, ..plain() });
    solo.gets(full(&solo, 1001)).unwrap();
    assert_eq!(solo.sent(), ["1 ack 1 sack 1001-2001"], "RFC 2018 allows to take that back");
    solo.gets(full(&solo, 1)).unwrap();
    solo.gets(full(&solo, 4001)).unwrap();
    assert_eq!(solo.sent(), [""; 0]);
    release(&mut solo);
    assert_eq!(solo.sent(), ["1 ack 2001 sack 4001-5001"]);
}

#[test]
fn a_delayed_acknowledgement_is_due_when_its_delay_and_its_wait_are_over() {
    // The delay is over first: no spinning, and no second delay.
    let mut solo = held(Commit::Strict, plain());
    solo.gets(full(&solo, 1)).unwrap();
    assert_eq!(solo.wait(200 * MS), [""; 0]);
    assert_eq!(solo.tcb.deadline(), None);
    release(&mut solo);
    assert_eq!(solo.sent(), ["1 ack 1001"]);
    // The wait is over first.
    solo.gets(full(&solo, 1001)).unwrap();
    assert_eq!(solo.wait(10 * MS), [""; 0]);
    release(&mut solo);
    assert_eq!(solo.wait(29 * MS), [""; 0]);
    assert_eq!(solo.wait(MS), ["1 ack 2001"]);
    // Two full segments are acknowledged at once.
    solo.gets(full(&solo, 2001)).unwrap();
    solo.gets(full(&solo, 3001)).unwrap();
    assert_eq!(solo.sent(), [""; 0]);
    release(&mut solo);
    assert_eq!(solo.sent(), ["1 ack 4001"]);
}

#[test]
fn what_is_sent_again_because_its_acknowledgement_is_held_is_not_answered() {
    let mut solo = held(Commit::Strict, plain());
    solo.gets(full(&solo, 1)).unwrap();
    solo.wait(50 * MS);
    assert!(solo.gets(full(&solo, 1)).is_err());
    assert_eq!(solo.sent(), [""; 0]);
    release(&mut solo);
    assert_eq!(solo.sent(), ["1 ack 1001"]);
    assert!(solo.gets(full(&solo, 1)).is_err());
    assert_eq!(solo.sent(), ["1 ack 1001"], "that acknowledgement was lost");
}

#[test]
fn octets_and_the_fin_wait_for_the_copy_in_strict_mode_only() {
    let mut solo = held(Commit::Strict, plain());
    solo.write(2500);
    let written = solo.tcb.point();
    solo.tcb.finish();
    assert_eq!(solo.wait(30_000 * MS), [""; 0]);
    assert_eq!(solo.tcb.deadline(), None, "neither a persist nor a retransmission timer");
    solo.tcb.release(written);
    assert_eq!(solo.sent(), ["1+1000 ack 1", "1001+1000 ack 1", "2001+500 ack 1"]);
    solo.now += 20 * MS;
    solo.gets(solo.ack(1, 2501)).unwrap();
    assert!(solo.tcb.rtt.smoothed.unwrap() <= 20 * MS);
    assert_eq!(solo.wait(5000 * MS), [""; 0], "the FIN waits");
    release(&mut solo);
    assert_eq!(solo.sent(), ["FIN 2501 ack 1"]);

    let mut solo = held(Commit::Regenerate, plain());
    solo.write(500);
    solo.tcb.finish();
    assert_eq!(solo.sent(), ["FIN 1+500 ack 1"]);
}

#[test]
fn what_was_sent_is_sent_again_without_a_release() {
    let mut solo = held(Commit::Strict, Config { sack: true, ..plain() });
    solo.write(3000);
    release(&mut solo);
    assert_eq!(solo.sent().len(), 3);
    solo.write(3000);
    let sent = solo.wait(900 * MS);
    assert!(sent.iter().any(|sent| sent == "2001+1000 ack 1"), "{sent:?}");
    assert!(sent.iter().all(|sent| !sent.starts_with("3001")), "a tail loss probe is no excuse: {sent:?}");
}

#[test]
fn a_shut_window_is_probed_only_for_what_is_released() {
    let mut solo = Solo::established(plain());
    solo.gets(solo.ack(1, 1).window(0)).unwrap();
    solo.write(10);
    assert_eq!(solo.sent(), [""; 0]);
    assert!(solo.tcb.timers.persist.is_some());
    solo.tcb.hold(Commit::Strict);
    assert_eq!(solo.wait(10_000 * MS), [""; 0]);
    release(&mut solo);
    assert!(!solo.wait(1000 * MS).is_empty());
    assert!(solo.tcb.timers.persist.is_some());
}

#[test]
fn the_window_opens_as_far_as_a_copy_has_room() {
    for scaling in [false, true] {
        let config = Config { window_scaling: scaling, receive_buffer: 100_000, ..plain() };
        let mut solo = held(Commit::Regenerate, config);
        release(&mut solo);
        let told = |segment: &Segment, wscale| segment.ack.unwrap() + (u32::from(segment.window) << wscale);
        let mut seq = 1;
        for _ in 0..200 {
            if solo.tcb.rcv.adv.distance_from(solo.tcb.rcv.nxt) >= MSS {
                solo.gets(full(&solo, seq)).unwrap();
                seq += 1000;
            }
            solo.read_all();
            solo.tcb.kick();
            let edge = solo.tcb.held.as_ref().unwrap().released.edge;
            for segment in solo.segments() {
                assert!(told(&segment, solo.tcb.rcv.wscale).at_or_before(edge));
            }
        }
        let before = solo.tcb.rcv.adv;
        assert!(solo.tcb.rcv.adv.distance_from(solo.tcb.rcv.nxt) < MSS, "it is shut for want of a release");
        release(&mut solo);
        let sent = solo.segments();
        assert_eq!(sent.len(), 1, "what was read is told at once");
        assert!(told(&sent[0], solo.tcb.rcv.wscale).after(before));
    }
}

#[test]
fn a_held_back_acknowledgement_does_not_take_the_window_back() {
    let mut solo = held(Commit::Regenerate, plain());
    let edge = solo.tcb.rcv.adv;
    for nth in 0..20 {
        solo.gets(full(&solo, 1 + nth * 1000)).unwrap();
        solo.read_all();
    }
    solo.tcb.kick();
    let sent = solo.segments();
    assert_eq!(solo.show(&sent[0]), "1 ack 1");
    assert_eq!(edge, solo.irs + 1_u32 + u32::from(sent[0].window));
}

#[test]
fn the_other_sides_fin_is_acknowledged_when_released_even_if_ours_was_first_to_be_answered() {
    let mut solo = held(Commit::Regenerate, plain());
    solo.gets(solo.ack(1, 1).fin()).unwrap();
    assert_eq!(solo.sent(), [""; 0]);
    solo.tcb.finish();
    assert_eq!(solo.sent(), ["FIN 1 ack 1"]);
    // For the other side both finished at once.
    solo.gets(solo.ack(2, 2)).unwrap();
    assert!(matches!(solo.tcb.state, State::TimeWait { .. }), "{}", solo.tcb.state);
    assert_eq!(solo.wait(100 * MS), [""; 0]);
    release(&mut solo);
    assert_eq!(solo.sent(), ["2 ack 2"]);
}

#[test]
fn a_reset_waits_for_nothing_and_carries_what_proves_it() {
    let mut solo = held(Commit::Strict, plain());
    solo.gets(full(&solo, 1)).unwrap();
    solo.write(100);
    solo.tcb.abort();
    assert_eq!(solo.sent(), ["RST 1 ack 1001"], "in front of the octets that were never sent");

    let mut solo = Solo::with(plain(), 1000, 5000);
    solo.tcb = Tcb::accept(flow(), &solo.syn(1000), &opening(plain(), Seq(1000)), solo.now);
    solo.tcb.hold(Commit::Strict);
    solo.tcb.abort();
    assert_eq!(solo.sent(), ["RST 0 ack 1"], "a client in SYN-SENT believes no other");
}

#[test]
fn keep_alives_and_challenges_go_out_with_what_was_told_before() {
    let keep_alive = crate::tcp::KeepAlive { idle: 7000 * MS, interval: 1000 * MS, count: 3 };
    let mut solo = held(Commit::Strict, Config { keep_alive: Some(keep_alive), ..plain() });
    solo.gets(full(&solo, 1)).unwrap();
    assert_eq!(solo.wait(7000 * MS), ["0 ack 1"]);
    solo.gets(solo.ack(2000, 1).rst()).unwrap_err();
    assert_eq!(solo.sent(), ["1 ack 1"]);
}

#[test]
fn points_only_move_on_and_an_older_one_changes_nothing() {
    for iss in [1000, u32::MAX - 1500] {
        let start = super::harness::Start { config: plain(), iss, irs: u32::MAX - 500 };
        let mut solo = Solo::established(start);
        solo.tcb.hold(Commit::Strict);
        let mut points = Vec::from([solo.tcb.point()]);
        for nth in 0..4 {
            solo.gets(full(&solo, 1 + nth * 1000)).unwrap();
            solo.read_all();
            solo.write(1000);
            points.push(solo.tcb.point());
        }
        for pair in points.windows(2) {
            assert!(pair[0].ack.before(pair[1].ack) && pair[0].send.before(pair[1].send));
            assert!(pair[0].edge.before(pair[1].edge));
        }
        for (nth, expected) in [(2, Some("1+1000 ack 2001")), (1, None), (0, None), (2, None)] {
            solo.tcb.release(points[nth]);
            assert_eq!(solo.sent().first().map(|sent| &**sent), expected, "{nth}");
        }
        solo.tcb.unhold();
        assert_eq!(solo.sent(), ["2001+1000 ack 4001", "3001+1000 ack 4001"]);
        solo.tcb.release(points[0]);
        assert_eq!(solo.sent(), [""; 0]);
    }
}

#[test]
fn what_waits_travels_with_the_connection_and_is_released_there() {
    for commit in BOTH {
        let mut solo = held(commit, plain());
        solo.gets(full(&solo, 1)).unwrap();
        solo.write(10);
        let frozen = solo.tcb.freeze(solo.now);
        assert_eq!(frozen.check(), Ok(()));
        let point = frozen.point();
        let octets = postcard::to_allocvec(&frozen).unwrap();
        let back: Tcb<Duration> = postcard::from_bytes(&octets).unwrap();
        solo.now = Instant::from_millis(3);
        solo.tcb = back.thaw(solo.now);
        let early = solo.sent();
        assert_eq!(early.is_empty(), commit == Commit::Strict, "{early:?}");
        solo.tcb.release(point);
        solo.tcb.kick();
        let sent = solo.sent();
        assert!(sent.iter().all(|sent| sent.ends_with("ack 1001")) && !sent.is_empty(), "{sent:?}");
    }
}

#[test]
fn switching_between_the_modes_releases_nothing() {
    let mut solo = held(Commit::Regenerate, plain());
    solo.write(10);
    assert_eq!(solo.sent(), ["1+10 ack 1"]);
    solo.tcb.hold(Commit::Strict);
    solo.tcb.write(Bytes::from_static(b"xx"));
    solo.gets(solo.ack(1, 11)).unwrap();
    assert_eq!(solo.sent(), [""; 0]);
    solo.tcb.hold(Commit::Regenerate);
    assert_eq!(solo.sent(), ["11+2 ack 1"]);
}
