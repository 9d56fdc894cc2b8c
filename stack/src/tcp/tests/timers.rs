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

#[test]
fn a_question_that_was_lost_ends_nothing_and_an_answer_starts_the_count_again() {
    let mut solo = Solo::established(lively());
    for _ in 0..10 {
        assert_eq!(solo.wait(11_000 * MS), ["0 ack 1", "0 ack 1"]);
        solo.gets(solo.ack(1, 1)).unwrap();
    }
    assert_eq!(solo.tcb.state, State::Established);
}

fn impatient() -> Config {
    Config { user_timeout: Some(5_000 * MS), nodelay: true, ..plain() }
}

#[test]
fn octets_that_are_not_acknowledged_within_the_user_timeout_end_the_connection() {
    let mut solo = Solo::established(impatient());
    assert_eq!(solo.wait(60_000 * MS), [""; 0], "an idle connection is not concerned");
    solo.write(10);
    solo.wait(4_999 * MS);
    assert_eq!(solo.tcb.state, State::Established);
    assert_eq!(solo.wait(MS), [""; 0]);
    assert_eq!(solo.tcb.state, State::Closed(Ending::TimedOut));
}

#[test]
fn progress_starts_the_user_timeout_again() {
    let mut solo = Solo::established(impatient());
    solo.write(3 * 10);
    for nth in 0..3_u32 {
        solo.wait(4_900 * MS);
        solo.gets(solo.ack(1, 11 + nth * 10)).unwrap();
        assert_eq!(solo.tcb.state, State::Established);
    }
    solo.wait(100_000 * MS);
    assert_eq!(solo.tcb.state, State::Established, "nothing is missing any more");
    solo.write(10);
    solo.wait(4_000 * MS);
    solo.gets(solo.ack(1, 31)).unwrap();
    solo.wait(MS * 1_000);
    assert!(solo.tcb.state.is_closed(), "an acknowledgement of nothing is no progress");
}

#[test]
fn a_window_that_stays_shut_for_the_user_timeout_ends_the_connection_even_if_the_peer_answers() {
    let mut solo = Solo::established(impatient());
    solo.gets(solo.ack(1, 1).window(0)).unwrap();
    solo.write(10);
    for _ in 0..4 {
        solo.wait(1_000 * MS);
        solo.gets(solo.ack(1, 1).window(0)).unwrap();
        assert_eq!(solo.tcb.state, State::Established);
    }
    solo.wait(1_000 * MS);
    assert_eq!(solo.tcb.state, State::Closed(Ending::TimedOut));
}

#[test]
fn a_window_that_opens_in_time_starts_the_user_timeout_again() {
    let mut solo = Solo::established(impatient());
    solo.gets(solo.ack(1, 1).window(0)).unwrap();
    solo.write(10);
    solo.wait(4_900 * MS);
    solo.gets(solo.ack(1, 1)).unwrap();
    assert_eq!(solo.wait(100 * MS), ["1+10 ack 1"]);
    assert_eq!(solo.tcb.state, State::Established);
}

#[test]
fn a_user_timeout_bounds_an_opening_and_the_questions_of_keep_alive() {
    let mut solo = Solo::syn_sent(impatient());
    solo.wait(5_000 * MS);
    assert_eq!(solo.tcb.state, State::Closed(Ending::TimedOut));
    let mut solo = Solo::established(Config { user_timeout: Some(11_500 * MS), ..lively() });
    assert_eq!(solo.wait(11_999 * MS), ["0 ack 1", "0 ack 1"]);
    assert_eq!(solo.wait(MS), ["RST 1 ack 1"]);
}

#[test]
fn a_syn_is_repeated_for_three_minutes_and_its_answer_for_one() {
    let mut solo = Solo::syn_sent(plain());
    solo.wait(180_000 * MS);
    assert_eq!(solo.tcb.state, State::SynSent);
    let mut solo = Solo::syn_received(plain());
    solo.wait(62_999 * MS);
    assert_eq!(solo.tcb.state, State::SynReceived);
    solo.wait(MS);
    assert_eq!(solo.tcb.state, State::Closed(Ending::TimedOut));
}
