//! A connection goes on from a copy after its host has died, and a peer that knows more than the copy notices nothing.

use core::time::Duration;

use bytes::Bytes;

use super::harness::{MS, Make, Solo, Start, plain};
use crate::tcp::tcb::Recovery;
use crate::tcp::{Commit, Config, Ending, Reason, State, Tcb};
use crate::{Instant, Seq};

fn rich() -> Config {
    Config { timestamps: true, sack: true, ..plain() }
}

/// A copy of it as it is now.
fn copy(solo: &Solo) -> Tcb<Duration> {
    let octets = postcard::to_allocvec(&solo.tcb.clone().freeze(solo.now)).unwrap();
    postcard::from_bytes(&octets).unwrap()
}

/// What goes on from the copy, some time later on a host with another clock.
fn recovered(solo: &Solo, copy: Tcb<Duration>, commit: Commit) -> Solo {
    let tcb = copy.recovered(commit, 300 * MS);
    assert_eq!(tcb.check(), Ok(()));
    let now = Instant::from_millis(77_000);
    let mut tcb = tcb.thaw(now);
    tcb.kick();
    tcb.unhold();
    Solo { tcb, now, ..solo.clone() }
}

#[test]
fn in_every_state_the_other_side_can_be_ahead_and_the_connection_finishes() {
    type Build = fn(Start) -> Solo;
    let states: [(Build, bool); 8] = [
        (Solo::syn_received, true),
        (Solo::established, true),
        (Solo::fin_wait_1, false),
        (Solo::fin_wait_2, false),
        (Solo::close_wait, true),
        (Solo::closing, false),
        (Solo::last_ack, false),
        (Solo::time_wait, false),
    ];
    for (build, open) in states {
        for config in [plain(), rich()] {
            for (iss, irs) in [(1000, 5000), (u32::MAX - 1, u32::MAX - 1)] {
                let solo = build(Start { config, iss, irs });
                let mut solo = recovered(&solo, copy(&solo), Commit::Strict);
                let state = solo.tcb.state;
                let theirs = if solo.tcb.rcv.fin.is_some() { 2 } else { 1 };
                solo.sent();
                if state == State::SynReceived {
                    solo.gets(solo.ack(1, 1)).unwrap();
                }
                if open {
                    solo.tcb.finish();
                    solo.sent();
                }
                if !matches!(solo.tcb.state, State::TimeWait { .. }) {
                    solo.gets(solo.ack(theirs, 2)).unwrap();
                }
                if theirs == 1 {
                    solo.gets(solo.ack(1, 2).fin()).unwrap();
                }
                solo.wait(61_000 * MS);
                assert_eq!(solo.tcb.state, State::Closed(Ending::Finished), "from {state}");
            }
        }
    }
}

#[test]
fn a_handshake_whose_answer_a_former_life_sent_is_completed_by_its_acknowledgement() {
    for early in [true, false] {
        let mut solo = Solo::with(rich(), 1000, 5000);
        solo.tcb = Tcb::accept(
            super::harness::flow(),
            &solo.syn(1000),
            &super::harness::opening(rich(), Seq(1000)),
            solo.now,
        );
        solo.tcb.hold(Commit::Strict);
        let before = copy(&solo);
        let mut solo = recovered(&solo, before, Commit::Strict);
        if !early {
            assert_eq!(solo.sent(), ["SYN 0 ack 1"], "the client may not have seen it");
        }
        // Octets may come along, and even ask for more than was kept of them.
        solo.gets(solo.ack(1, 1).data(b"hello")).unwrap();
        assert_eq!(solo.tcb.state, State::Established);
        assert_eq!(solo.read_all(), b"hello");
        assert!(solo.tcb.rtt.smoothed.is_none_or(|rtt| rtt < Duration::from_secs(1)));
    }
}

#[test]
fn what_waits_for_a_release_in_the_handshake_does_not_time_out() {
    let mut solo = Solo::with(plain(), 1000, 5000);
    solo.tcb = Tcb::accept(
        super::harness::flow(),
        &solo.syn(1000),
        &super::harness::opening(plain(), Seq(1000)),
        solo.now,
    );
    solo.tcb.hold(Commit::Strict);
    solo.tcb = copy(&solo).recovered(Commit::Strict, MS).thaw(solo.now);
    solo.tcb.kick();
    assert_eq!(solo.wait(600_000 * MS), [""; 0]);
    assert_eq!(solo.tcb.state, State::SynReceived);
    solo.tcb.release(solo.tcb.point());
    assert_eq!(solo.sent(), ["SYN 0 ack 1"]);
}

#[test]
fn octets_of_the_copy_that_a_former_life_sent_count_as_delivered() {
    let mut solo = Solo::established(rich());
    solo.tcb.hold(Commit::Strict);
    solo.write(20_000);
    let before = copy(&solo);
    let mut solo = recovered(&solo, before, Commit::Strict);
    let sent = solo.sent();
    assert_eq!(sent[0], "1+988 ack 1");
    assert_eq!(sent.len(), 10, "at the pace of a new connection: {sent:?}");
    solo.gets(solo.ack(1, 15_001)).unwrap();
    assert_eq!(solo.tcb.snd.una, solo.iss + 15_001_u32);
    assert_eq!(solo.sent()[0], "15001+988 ack 1");
    assert_eq!(solo.gets(solo.ack(1, 20_002)), Err(Reason::AckBeyondNxt), "more than there ever was");
    solo.gets(solo.ack(1, 20_001)).unwrap();
    assert!(solo.tcb.snd.queue.is_empty());
}

#[test]
fn what_was_in_flight_is_sent_again_but_not_what_is_at_the_other_side() {
    let mut solo = Solo::established(Config { sack: true, ..plain() });
    solo.write(8000);
    assert_eq!(solo.sent().len(), 8);
    solo.gets(solo.ack(1, 1001).sacks(&[(solo.iss + 2001_u32, solo.iss + 4001_u32)])).unwrap();
    let before = copy(&solo);
    let mut solo = recovered(&solo, before, Commit::Strict);
    assert!(matches!(solo.tcb.recovery, Recovery::Loss { .. }));
    let sent = solo.sent();
    assert_eq!(sent.len(), 5, "{sent:?}");
    assert_eq!((&*sent[0], &*sent[1]), ("1001+1000 ack 1", "4001+1000 ack 1"));
    let ssthresh = solo.tcb.congestion.ssthresh;
    solo.gets(solo.ack(1, 8001)).unwrap();
    assert!(solo.tcb.congestion.ssthresh >= ssthresh, "a crash is no sign of congestion");
    assert!(matches!(solo.tcb.recovery, Recovery::Open { .. }));
    assert_eq!(solo.wait(1000 * MS), [""; 0]);
}

#[test]
fn a_session_that_writes_again_what_the_other_side_has_sends_nothing_of_it() {
    let solo = Solo::established(rich());
    let before = copy(&solo);
    let mut solo = recovered(&solo, before, Commit::Regenerate);
    solo.sent();
    solo.gets(solo.ack(1, 3001).data(b"request")).unwrap();
    solo.wait(50 * MS);
    solo.write(2000);
    solo.tcb.write(Bytes::from_static(b"over"));
    assert_eq!(solo.sent(), [""; 0]);
    solo.write(1000);
    assert_eq!(solo.sent(), ["3001+4 ack 8"], "only what is new");
    assert_eq!(solo.tcb.recovered.as_ref().unwrap().owed, 0);
}

#[test]
fn a_fin_that_the_other_side_has_is_not_sent_again() {
    for theirs in [false, true] {
        let solo = Solo::established(rich());
        let before = copy(&solo);
        let mut solo = recovered(&solo, before, Commit::Regenerate);
        solo.sent();
        let segment = solo.ack(1, 102);
        solo.gets(if theirs { segment.fin() } else { segment }).unwrap();
        solo.sent();
        solo.write(100);
        solo.tcb.finish();
        assert_eq!(solo.tcb.check(), Ok(()));
        assert_eq!(solo.wait(100 * MS), [""; 0]);
        if theirs {
            assert!(matches!(solo.tcb.state, State::TimeWait { .. }));
        } else {
            assert_eq!(solo.tcb.state, State::FinWait2 { until: None });
        }
    }
}

#[test]
fn a_session_that_writes_less_than_before_ends_with_a_reset() {
    let solo = Solo::established(rich());
    let before = copy(&solo);
    let mut solo = recovered(&solo, before, Commit::Regenerate);
    solo.sent();
    solo.gets(solo.ack(1, 102)).unwrap();
    solo.write(50);
    solo.tcb.finish();
    assert_eq!(solo.sent(), ["RST 102 ack 1"]);
    assert_eq!(solo.tcb.state, State::Closed(Ending::Aborted));
}

#[test]
fn an_acknowledgement_beyond_all_reason_is_refused_in_every_mode() {
    for commit in [Commit::Strict, Commit::Regenerate] {
        let solo = Solo::established(rich());
        let before = copy(&solo);
        let mut solo = recovered(&solo, before, commit);
        solo.sent();
        assert_eq!(solo.gets(solo.ack(1, (1 << 30) + 2)), Err(Reason::AckBeyondNxt), "{commit:?}");
        let sent = solo.sent();
        assert_eq!(sent, ["1 ack 1"]);
    }
}

#[test]
fn the_client_drops_no_segment_for_its_timestamp() {
    for (idle, other) in [(0, 0), (86_400_000 * 20, 0), (1000, 3), (5, 1)] {
        let mut solo = Solo::established(rich());
        let before = copy(&solo);
        // The former life goes on, on a clock that is a little fast, and the client sees what it sends.
        solo.now += Duration::from_millis(idle + idle / 100);
        solo.tcb.kick();
        let seen = solo.segments()[0].options.timestamps.unwrap().value;
        // Others have gone on from the same copy in between.
        let spent = Duration::from_millis(idle) + other * crate::tcp::RECOVERY_MARGIN;
        let mut tcb = before.recovered(Commit::Strict, spent).thaw(Instant::from_millis(5));
        tcb.kick();
        let mut solo = Solo { tcb, now: Instant::from_millis(5), ..solo };
        let value = solo.segments()[0].options.timestamps.unwrap().value;
        assert!(Seq(seen).before(Seq(value)), "{value} after {seen}");
    }
}

#[test]
fn echoes_of_a_former_life_are_no_measurement() {
    let mut solo = Solo::established(rich());
    solo.write(1000);
    let old = solo.segments()[0].options.timestamps.unwrap().value;
    let before = copy(&solo);
    let mut solo = recovered(&solo, before, Commit::Strict);
    solo.sent();
    let rtt = solo.tcb.rtt;
    let mut ack = solo.ack(1, 501);
    ack.options.timestamps.as_mut().unwrap().echo = old;
    solo.gets(ack).unwrap();
    assert_eq!(solo.tcb.rtt, rtt);
    solo.now += 20 * MS;
    let mut ack = solo.ack(1, 1001);
    ack.options.timestamps.as_mut().unwrap().echo -= 20;
    solo.gets(ack).unwrap();
    assert_ne!(solo.tcb.rtt, rtt);
    assert!(solo.tcb.rtt.smoothed.unwrap() < 100 * MS);
}

#[test]
fn a_window_that_a_former_life_promised_is_honoured_and_told_when_it_may_be() {
    let mut solo = Solo::established(plain());
    solo.tcb.hold(Commit::Strict);
    solo.tcb.release(solo.tcb.point());
    let before = copy(&solo);
    let mut seq = 1;
    for _ in 0..30 {
        solo.gets(solo.ack(seq, 1).data(&[7; 1000])).unwrap();
        solo.read_all();
        seq += 1000;
        solo.tcb.kick();
        solo.sent();
    }
    let promised = solo.tcb.rcv.adv;
    let tcb = before.recovered(Commit::Strict, MS).thaw(solo.now);
    assert!(promised.at_or_before(tcb.rcv.adv));
    let mut solo = Solo { tcb, ..solo };
    solo.tcb.kick();
    let edge = solo.tcb.held.as_ref().unwrap().released.edge;
    let first = solo.segments().remove(0);
    assert!((first.ack.unwrap() + u32::from(first.window)).at_or_before(edge));
    // A pure acknowledgement at the edge of what was promised is taken.
    let far = promised.distance_from(solo.irs);
    solo.gets(solo.ack(u32::try_from(far).unwrap(), 1)).unwrap();
    solo.tcb.release(solo.tcb.point());
    assert_eq!(solo.wait(1000 * MS).len(), usize::from(edge.before(solo.tcb.rcv.adv)));
}

#[test]
fn a_former_life_is_forgotten_when_nothing_of_it_can_come_any_more() {
    let solo = Solo::established(rich());
    let before = copy(&solo);
    let mut solo = recovered(&solo, before, Commit::Regenerate);
    solo.sent();
    solo.now += 239_000 * MS;
    solo.gets(solo.ack(1, 1)).unwrap();
    assert!(solo.tcb.recovered.is_some());
    solo.now += 2_000 * MS;
    solo.gets(solo.ack(1, 1)).unwrap();
    assert!(solo.tcb.recovered.is_none());
    assert_eq!(solo.gets(solo.ack(1, 5)), Err(Reason::AckBeyondNxt));
}

#[test]
fn an_idle_connection_asks_the_other_side_where_it_is() {
    let solo = Solo::established(plain());
    let before = copy(&solo);
    let mut solo = recovered(&solo, before, Commit::Strict);
    assert_eq!(solo.sent(), ["0 ack 1"], "an old octet must be answered, and tells the window");
    // With something to send there is no need to ask.
    let mut solo = Solo::established(plain());
    solo.tcb.write(Bytes::from_static(b"abc"));
    let before = copy(&solo);
    let mut solo = recovered(&solo, before, Commit::Strict);
    assert_eq!(solo.sent(), ["1+3 ack 1"]);
}

#[test]
fn octets_out_of_order_that_the_copy_lacks_are_taken_when_they_come_again() {
    let mut solo = Solo::established(Config { sack: true, ..plain() });
    solo.tcb.hold(Commit::Strict);
    let before = copy(&solo);
    solo.gets(solo.ack(4, 1).data(b"def")).unwrap();
    assert_eq!(solo.sent(), ["1 ack 1 sack 4-7"]);
    let mut solo = recovered(&solo, before, Commit::Strict);
    solo.sent();
    solo.gets(solo.ack(1, 1).data(b"abc")).unwrap();
    assert_eq!(solo.wait(50 * MS), ["1 ack 4"], "it takes the report back");
    solo.gets(solo.ack(4, 1).data(b"def")).unwrap();
    assert_eq!(solo.read_all(), b"abcdef");
}
