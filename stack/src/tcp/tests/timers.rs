//! Keep-alive, giving up, and that deadlines are exact.

use super::harness::{MS, Make, Solo, just_before, plain};
use crate::tcp::{Config, Ending, KeepAlive, State};

fn lively() -> Config {
    Config { keep_alive: Some(KeepAlive { idle: 10_000 * MS, interval: 1000 * MS, count: 3 }), ..plain() }
}

#[test]
fn an_idle_peer_is_asked_and_an_answer_is_enough() {
    let mut solo = Solo::established(lively());
    assert_eq!(solo.wait(9_999 * MS), [""; 0]);
    assert_eq!(solo.wait(MS), ["0 ack 1"]);
    solo.gets(solo.ack(1, 1)).unwrap();
    assert_eq!(solo.wait(9_999 * MS), [""; 0]);
    assert_eq!(solo.wait(MS), ["0 ack 1"]);
}

#[test]
fn a_silent_peer_is_given_up_after_the_last_question() {
    let mut solo = Solo::established(lively());
    assert_eq!(solo.wait(12_999 * MS), ["0 ack 1", "0 ack 1", "0 ack 1"]);
    assert!(!solo.tcb.state.is_closed());
    assert_eq!(solo.wait(MS), ["RST 1 ack 1"]);
    assert_eq!(solo.tcb.state, State::Closed(Ending::TimedOut));
}

#[test]
fn without_keep_alive_an_idle_connection_has_no_deadline() {
    let solo = Solo::established(plain());
    assert_eq!(solo.tcb.deadline(), None);
}

#[test]
fn octets_that_nobody_acknowledges_end_the_connection() {
    let mut solo = Solo::established(Config { retries: 4, ..plain() });
    solo.write(10);
    assert_eq!(solo.wait(100_000 * MS), ["1+10 ack 1"; 5]);
    assert_eq!(solo.tcb.state, State::Closed(Ending::TimedOut));
    assert_eq!(solo.tcb.deadline(), None);
}

#[test]
fn progress_starts_the_count_of_timeouts_again() {
    let mut solo = Solo::established(Config { retries: 2, max_rto: 1000 * MS, nodelay: true, ..plain() });
    for nth in 0..20 {
        solo.write(10);
        while solo.tcb.snd.timeouts < 2 {
            solo.wait(100 * MS);
        }
        solo.gets(solo.ack(1, 11 + nth * 10)).unwrap();
    }
    assert_eq!(solo.tcb.state, State::Established);
}

#[test]
fn the_timer_starts_again_with_each_acknowledgement_and_stops_with_the_last() {
    let mut solo = Solo::established(plain());
    solo.write(3000);
    solo.sent();
    let rto = solo.tcb.rtt.rto(solo.tcb.config.min_rto, solo.tcb.config.max_rto);
    solo.wait(just_before(rto));
    solo.gets(solo.ack(1, 1001)).unwrap();
    assert!(solo.tcb.timers.rto.unwrap().until(solo.now) >= just_before(rto));
    solo.gets(solo.ack(1, 3001)).unwrap();
    assert_eq!(solo.tcb.deadline(), None);
}

#[test]
fn a_segment_from_the_other_side_does_not_stop_the_timer() {
    let mut solo = Solo::established(plain());
    solo.write(10);
    solo.sent();
    let rto = solo.tcb.timers.rto;
    solo.gets(solo.ack(1, 1).data(b"abc")).unwrap();
    solo.sent();
    assert_eq!(solo.tcb.timers.rto, rto);
}
