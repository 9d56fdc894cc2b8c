//! The ends of a connection (RFC 9293 section 3.6).

use super::harness::{MS, MSS, Make, Solo, plain};
use super::pair::{A, B, Pair, pattern};
use crate::tcp::{Config, Ending, Reason, State};

#[test]
fn a_fin_behind_octets_that_came_before_is_taken() {
    // A retransmission that carries old octets together with a new FIN.
    let mut solo = Solo::established(plain());
    solo.gets(solo.ack(1, 1).data(b"abc")).unwrap();
    assert_eq!(solo.sent(), ["1 ack 4"]);
    solo.gets(solo.ack(1, 1).data(b"abc").fin()).unwrap();
    assert_eq!(solo.tcb.state, State::CloseWait);
    assert_eq!(solo.sent(), ["1 ack 5"]);
}

#[test]
fn a_fin_that_overtakes_octets_waits_for_them() {
    let mut solo = Solo::established(plain());
    assert_eq!(solo.gets(solo.ack(4, 1).data(b"def").fin()), Ok(()));
    assert_eq!(solo.tcb.state, State::Established);
    assert_eq!(solo.sent(), ["1 ack 1"]);
    solo.gets(solo.ack(1, 1).data(b"abc")).unwrap();
    assert_eq!(solo.tcb.state, State::CloseWait);
    assert_eq!(solo.sent(), ["1 ack 8"]);
    assert!(!solo.tcb.at_end());
    assert_eq!(solo.read_all(), b"abcdef");
    assert!(solo.tcb.at_end());
}

#[test]
fn octets_behind_a_fin_are_ignored() {
    let mut solo = Solo::established(plain());
    solo.gets(solo.ack(4, 1).fin()).unwrap();
    solo.gets(solo.ack(1, 1).data(b"abcdefg")).unwrap();
    assert_eq!(solo.tcb.state, State::CloseWait);
    assert_eq!(solo.read_all(), b"abc");
}

#[test]
fn a_fin_in_front_of_octets_that_are_here_is_a_lie() {
    let mut solo = Solo::established(plain());
    solo.gets(solo.ack(10, 1).data(b"abc")).unwrap();
    solo.gets(solo.ack(5, 1).fin()).unwrap();
    solo.gets(solo.ack(1, 1).data(b"123456789")).unwrap();
    assert_eq!(solo.tcb.state, State::Established);
    assert_eq!(solo.read_all(), b"123456789abc");
}

#[test]
fn a_fin_in_front_of_octets_that_it_made_readable_is_a_lie() {
    let mut solo = Solo::established(plain());
    solo.gets(solo.ack(4, 1).data(b"defgh")).unwrap();
    solo.gets(solo.ack(1, 1).data(b"abc").fin()).unwrap();
    assert_eq!(solo.tcb.check(), Ok(()), "it could not be handed off");
    assert_eq!(solo.tcb.state, State::Established);
    assert_eq!(solo.read_all(), b"abcdefgh");
    solo.gets(solo.ack(9, 1).fin()).unwrap();
    assert_eq!(solo.tcb.state, State::CloseWait);
}

#[test]
fn a_full_congestion_window_does_not_hold_a_fin_back() {
    let mut solo = Solo::established(plain());
    solo.write(10 * MSS);
    assert_eq!(solo.sent().len(), 10);
    solo.tcb.finish();
    assert_eq!(solo.sent(), ["FIN 10001 ack 1"]);
    assert_eq!(solo.tcb.check(), Ok(()));
}

#[test]
fn a_lost_fin_is_sent_again_with_the_octets_before_it() {
    let mut solo = Solo::established(plain());
    solo.write(10);
    solo.tcb.finish();
    assert_eq!(solo.sent(), ["FIN 1+10 ack 1"]);
    assert_eq!(solo.wait(300 * MS), ["FIN 1+10 ack 1"]);
    solo.gets(solo.ack(1, 11)).unwrap();
    assert_eq!(solo.tcb.state, State::FinWait1);
    assert_eq!(solo.wait(1000 * MS)[0], "FIN 11 ack 1");
    solo.gets(solo.ack(1, 12)).unwrap();
    assert_eq!(solo.tcb.state, State::FinWait2 { until: None });
    assert_eq!(solo.wait(100_000 * MS), [""; 0]);
}

#[test]
fn a_fin_waits_for_the_window_to_open() {
    let mut solo = Solo::established(plain());
    solo.gets(solo.ack(1, 1).window(0)).unwrap();
    solo.write(10);
    solo.tcb.finish();
    assert_eq!(solo.sent(), [""; 0]);
    // A window probe: an octet of long ago that must be answered.
    assert_eq!(solo.wait(300 * MS), ["0 ack 1"]);
    solo.gets(solo.ack(1, 1).window(10)).unwrap();
    assert_eq!(solo.sent(), ["1+10 ack 1"]);
    solo.gets(solo.ack(1, 11).window(0)).unwrap();
    assert_eq!(solo.sent(), [""; 0]);
    solo.gets(solo.ack(1, 11).window(1)).unwrap();
    assert_eq!(solo.sent(), ["FIN 11 ack 1"]);
}

#[test]
fn a_fin_is_taken_though_the_window_is_shut() {
    let mut solo = Solo::established(Config { receive_buffer: 3, ..plain() });
    solo.gets(solo.ack(1, 1).data(b"abc")).unwrap();
    solo.sent();
    solo.gets(solo.ack(4, 1).fin()).unwrap();
    assert_eq!(solo.tcb.state, State::CloseWait);
    assert_eq!(solo.sent(), ["1 ack 5"]);
}

#[test]
fn both_sides_may_finish_at_once() {
    let mut pair = Pair::established(plain(), plain());
    pair.end(A).finish();
    pair.end(B).finish();
    pair.run(55);
    assert!(pair.ends.iter().flatten().all(|tcb| tcb.state == State::Closing));
    pair.run(200);
    assert!(pair.ends.iter().flatten().all(|tcb| matches!(tcb.state, State::TimeWait { .. })));
    pair.run(61_000);
    assert!(pair.ends.iter().flatten().all(|tcb| tcb.state == State::Closed(Ending::Finished)));
}

#[test]
fn one_direction_may_end_long_before_the_other() {
    let mut pair = Pair::established(plain(), plain());
    pair.end(A).finish();
    pair.run(300_000);
    assert_eq!(pair.end(A).state, State::FinWait2 { until: None });
    for at in (0..100_000).step_by(10_000) {
        assert!(pair.end(B).write(pattern(at, 10_000)).is_empty());
        pair.run(1000);
        assert_eq!(pair.end(A).readable(), 10_000);
        while !pair.end(A).read(usize::MAX).is_empty() {}
    }
    pair.end(B).finish();
    pair.run(1000);
    assert_eq!(pair.end(B).state, State::Closed(Ending::Finished));
    assert!(pair.end(A).at_end());
}

#[test]
fn closing_with_unread_octets_resets() {
    let mut solo = Solo::established(plain());
    solo.gets(solo.ack(1, 1).data(b"abc")).unwrap();
    solo.sent();
    solo.tcb.close(solo.now);
    assert_eq!(solo.sent(), ["RST 1 ack 4"]);
    assert_eq!(solo.tcb.state, State::Closed(Ending::Aborted));
}

#[test]
fn octets_after_close_reset() {
    let mut solo = Solo::established(plain());
    solo.tcb.close(solo.now);
    assert_eq!(solo.sent(), ["FIN 1 ack 1"]);
    assert_eq!(solo.gets(solo.ack(1, 2).data(b"abc")), Err(Reason::NobodyReads));
    assert_eq!(solo.sent(), ["RST 2 ack 1"]);
}

#[test]
fn octets_after_close_draw_a_reset_that_needs_no_challenge() {
    let mut solo = Solo::established(plain());
    solo.write(10);
    solo.tcb.close(solo.now);
    assert_eq!(solo.sent(), ["FIN 1+10 ack 1"]);
    // It has not seen our octets yet, so that a RST behind them would be a blind one.
    assert_eq!(solo.gets(solo.ack(1, 1).data(b"abc")), Err(Reason::NobodyReads));
    assert_eq!(solo.sent(), ["RST 1 ack 1"]);
}

#[test]
fn closing_with_unread_octets_resets_even_if_both_have_finished() {
    let mut solo = Solo::established(plain());
    solo.gets(solo.ack(1, 1).data(b"abc").fin()).unwrap();
    solo.tcb.finish();
    assert_eq!(solo.sent(), ["FIN 1 ack 5"]);
    solo.tcb.close(solo.now);
    assert_eq!(solo.sent(), ["RST 2 ack 5"]);
}

#[test]
fn an_abort_is_silent_where_both_have_finished() {
    for build in [Solo::closing, Solo::last_ack, Solo::time_wait] {
        let mut solo = build(plain());
        solo.tcb.abort();
        assert_eq!(solo.wait(1000 * MS), [""; 0]);
        assert_eq!(solo.tcb.state, State::Closed(Ending::Aborted));
    }
}

#[test]
fn closing_in_time_wait_keeps_old_duplicates_off() {
    let mut solo = Solo::fin_wait_2(plain());
    solo.gets(solo.ack(1, 2).data(b"abc").fin()).unwrap();
    solo.sent();
    solo.tcb.close(solo.now);
    assert_eq!(solo.sent(), [""; 0]);
    assert!(matches!(solo.tcb.state, State::TimeWait { .. }));
}

#[test]
fn fin_wait_2_ends_by_time_only_once_nobody_reads() {
    let mut solo = Solo::fin_wait_2(plain());
    solo.wait(1_000_000 * MS);
    assert_eq!(solo.tcb.state, State::FinWait2 { until: None });
    solo.tcb.close(solo.now);
    solo.wait(59_999 * MS);
    assert!(!solo.tcb.state.is_closed());
    solo.wait(MS);
    assert_eq!(solo.tcb.state, State::Closed(Ending::TimedOut));
}

#[test]
fn a_repeated_fin_restarts_time_wait() {
    let mut solo = Solo::time_wait(plain());
    solo.wait(50_000 * MS);
    assert_eq!(solo.gets(solo.ack(1, 2).fin()), Err(Reason::OutOfWindow));
    assert_eq!(solo.sent(), ["2 ack 2"]);
    solo.wait(50_000 * MS);
    assert!(!solo.tcb.state.is_closed());
    solo.wait(10_000 * MS);
    assert_eq!(solo.tcb.state, State::Closed(Ending::Finished));
}

#[test]
fn a_full_segment_takes_the_fin_behind_it_along_however_often_it_is_sent() {
    let mut solo = Solo::established(plain());
    solo.write(MSS);
    solo.tcb.finish();
    assert_eq!(solo.sent(), ["FIN 1+1000 ack 1"]);
    solo.tcb.kick();
    assert_eq!(solo.sent(), ["FIN 1+1000 ack 1"], "by a move");
    assert_eq!(solo.wait(300 * MS), ["FIN 1+1000 ack 1"], "by the timer");
    solo.gets(solo.ack(1, 1002)).unwrap();
    assert!(matches!(solo.tcb.state, State::FinWait2 { .. }));
}

#[test]
fn a_super_segment_takes_the_fin_behind_it_along() {
    let mut solo = Solo::established(plain());
    solo.path.segmentation = true;
    solo.write(4 * MSS);
    solo.tcb.finish();
    assert_eq!(solo.sent(), ["FIN 1+4000 ack 1"]);
    solo.gets(solo.ack(1, 4001)).unwrap();
    assert!(matches!(solo.tcb.state, State::FinWait1));
    solo.gets(solo.ack(1, 4002)).unwrap();
    assert!(matches!(solo.tcb.state, State::FinWait2 { .. }));
}

#[test]
fn an_abort_tells_the_other_side_and_not_twice() {
    let mut solo = Solo::established(plain());
    solo.write(10);
    solo.tcb.abort();
    assert_eq!(solo.sent(), ["RST 1 ack 1"]);
    solo.tcb.abort();
    assert_eq!(solo.wait(100_000 * MS), [""; 0]);
}
