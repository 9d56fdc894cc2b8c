//! A connection stops on one host and goes on at another: nothing is forgotten, no clock jumps.

use core::time::Duration;

use super::harness::{MS, Make, Solo, plain};
use crate::tcp::tcb::Recovery;
use crate::tcp::{Config, KeepAlive, State, Tcb};
use crate::{Instant, Seq};

fn through_octets(tcb: Tcb, now: Instant) -> Tcb<Duration> {
    let frozen = tcb.freeze(now);
    let octets = postcard::to_allocvec(&frozen).unwrap();
    let back: Tcb<Duration> = postcard::from_bytes(&octets).unwrap();
    assert_eq!(back, frozen);
    assert_eq!(back.check(), Ok(()));
    back
}

/// On another host, whose clock shows `there`.
fn moved(mut solo: Solo, there: Instant) -> Solo {
    solo.tcb = through_octets(solo.tcb, solo.now).thaw(there);
    solo.now = there;
    solo
}

fn lively(config: Config) -> Config {
    let keep_alive = Some(KeepAlive { idle: 7000 * MS, interval: 1000 * MS, count: 3 });
    Config { keep_alive, timestamps: true, sack: true, window_scaling: true, ..config }
}

const STATES: [fn(Config) -> Solo; 9] = [
    Solo::syn_sent,
    Solo::syn_received,
    Solo::established,
    Solo::fin_wait_1,
    Solo::fin_wait_2,
    Solo::close_wait,
    Solo::closing,
    Solo::last_ack,
    Solo::time_wait,
];

#[test]
fn in_every_state_the_same_happens_as_if_it_had_stayed() {
    for state in STATES {
        for config in [plain(), lively(plain())] {
            let mut stays = state(config);
            stays.now += 3 * MS;
            let mut moves = moved(stays.clone(), Instant::from_millis(77_000_000));
            assert_eq!(stays.wait(90_000 * MS), moves.wait(90_000 * MS), "{}", stays.tcb.state);
            assert_eq!(through_octets(stays.tcb, stays.now), through_octets(moves.tcb, moves.now));
        }
    }
}

#[test]
fn every_timer_keeps_the_time_that_was_left() {
    let mut solo = Solo::established(lively(plain()));
    solo.tcb.rcv.quick = 0;
    let at = |millis: u64| Some(solo.now + Duration::from_millis(millis));
    solo.tcb.timers = crate::tcp::tcb::Timers {
        rto: at(1),
        persist: at(2),
        delayed_ack: at(3),
        keep_alive: at(4),
        reorder: at(5),
        tail_probe: at(6),
        user: at(7),
    };
    let there = Instant::from_millis(5_000);
    let timers = moved(solo, there).tcb.timers;
    let left = |timer: Option<Instant>| timer.unwrap().until(there).as_millis();
    let crate::tcp::tcb::Timers { rto, persist, delayed_ack, keep_alive, reorder, tail_probe, user } = timers;
    let all = [rto, persist, delayed_ack, keep_alive, reorder, tail_probe, user];
    assert_eq!(all.map(left), [1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_deadline_that_has_passed_is_due_at_once() {
    let mut solo = Solo::established(plain());
    solo.write(10);
    solo.sent();
    solo.now += 10_000 * MS;
    let mut solo = moved(solo, Instant::from_millis(1));
    assert_eq!(solo.wait(Duration::ZERO), ["1+10 ack 1"]);
}

#[test]
fn the_timestamp_clock_rises_across_moves_to_any_clock() {
    let mut solo = Solo::established(Config { timestamps: true, ..plain() });
    let mut last = 0;
    for there in [5, 90_000_000, 1, 2_000_000, 0] {
        solo.now += 40 * MS;
        solo.tcb.kick();
        let value = solo.segments()[0].options.timestamps.unwrap().value;
        assert!(Seq(last).before(Seq(value)), "{last} then {value}");
        last = value;
        solo = moved(solo, Instant::from_millis(there));
    }
}

#[test]
fn the_timestamp_clock_keeps_time_however_often_a_connection_moves() {
    let mut solo = Solo::established(Config { timestamps: true, ..plain() });
    let value = |solo: &Solo| solo.tcb.timestamps.unwrap().value_at(solo.now);
    let first = value(&solo);
    for nth in 1..=3000_u32 {
        solo.now += Duration::from_micros(333);
        solo = moved(solo, Instant::from_millis(u64::from(nth % 7)));
        assert_eq!(value(&solo).wrapping_sub(first), nth * 333 / 1000, "after {nth} moves");
    }
}

#[test]
fn old_duplicates_are_known_after_a_move_to_a_host_that_has_just_started() {
    let mut solo = Solo::established(Config { timestamps: true, ..plain() });
    solo.gets(solo.ack(1, 1).data(b"abc")).unwrap();
    let mut old = solo.ack(4, 1).data(b"def");
    old.options.timestamps.as_mut().unwrap().value = 7;
    let mut solo = moved(solo, Instant::from_millis(3));
    assert_eq!(solo.gets(old), Err(crate::tcp::Reason::Paws));
}

#[test]
fn a_move_in_the_middle_of_a_recovery_goes_on_with_it() {
    let mut solo = Solo::established(Config { sack: true, ..plain() });
    solo.write(50_000);
    solo.sent();
    solo.now += 20 * MS;
    let blocks = [(solo.iss + 1001_u32, solo.iss + 5001_u32), (solo.iss + 7001_u32, solo.iss + 9001_u32)];
    solo.gets(solo.ack(1, 1).sacks(&blocks)).unwrap();
    let mut moves = moved(solo.clone(), Instant::from_millis(70));
    assert!(matches!(moves.tcb.recovery, Recovery::Fast { .. }));
    assert_eq!((moves.tcb.snd.sacked, moves.tcb.snd.lost()), (solo.tcb.snd.sacked, solo.tcb.snd.lost()));
    assert_eq!(moves.sent(), solo.sent());
}

#[test]
fn what_arrived_travels_read_or_not_in_order_or_not() {
    let mut solo = Solo::established(plain());
    solo.gets(solo.ack(1, 1).data(b"abc")).unwrap();
    solo.gets(solo.ack(7, 1).data(b"ghi").fin()).unwrap();
    let mut solo = moved(solo, Instant::from_millis(3));
    solo.gets(solo.ack(4, 1).data(b"def")).unwrap();
    assert_eq!(solo.read_all(), b"abcdefghi");
    assert!(solo.tcb.at_end());
    assert_eq!(solo.tcb.state, State::CloseWait);
}

#[test]
fn a_kick_says_where_we_are_and_repeats_the_first_segment_once() {
    let mut solo = Solo::established(plain());
    solo.write(5000);
    solo.sent();
    solo.tcb.kick();
    assert_eq!(solo.sent(), ["1+1000 ack 1"]);
    assert_eq!(solo.tcb.snd.in_flight, 5000);
    solo.gets(solo.ack(1, 5001)).unwrap();
    solo.tcb.kick();
    assert_eq!(solo.sent(), ["5001 ack 1"]);
}

#[test]
fn a_connection_that_moves_faster_than_it_is_answered_repeats_a_segment_once_in_a_round_trip() {
    let mut solo = Solo::established(plain());
    solo.write(1000);
    solo.wait(100 * MS);
    solo.gets(solo.ack(1, 1001)).unwrap();
    solo.write(1000);
    solo.sent();
    let mut copies = 0_u128;
    for _ in 0..9 {
        solo.now += 20 * MS;
        solo = moved(solo, Instant::from_millis(9));
        solo.tcb.kick();
        copies += solo.sent().iter().filter(|sent| *sent == "1001+1000 ack 1").count() as u128;
    }
    let most = 1 + 160 / solo.tcb.rtt.smoothed.unwrap().as_millis();
    assert!((2..=most).contains(&copies), "{copies} copies in 180 ms, of {most}");
}

#[test]
fn a_handshake_that_moves_faster_than_it_is_answered_is_not_repeated_at_every_move() {
    let openings = [(Solo::syn_sent(plain()), "SYN 0"), (Solo::syn_received(plain()), "SYN 0 ack 1")];
    for (mut solo, syn) in openings {
        let mut copies = 0;
        for _ in 0..9 {
            solo.now += 20 * MS;
            solo = moved(solo, Instant::from_millis(9));
            solo.tcb.kick();
            copies += solo.sent().iter().filter(|sent| *sent == syn).count();
        }
        assert_eq!(copies, 1, "{syn}");
    }
}

#[test]
fn a_kick_does_not_make_the_rest_of_the_flight_look_lost() {
    // The path was once quicker than it is now, so that the copy's acknowledgement is thought to be its own.
    let mut solo = Solo::established(Config { sack: true, ..plain() });
    solo.write(1000);
    solo.wait(MS);
    solo.gets(solo.ack(1, 1001)).unwrap();
    solo.write(8000);
    assert_eq!(solo.sent().len(), 8);
    solo.wait(20 * MS);
    solo = moved(solo, Instant::from_millis(9));
    solo.tcb.kick();
    assert_eq!(solo.sent(), ["1001+1000 ack 1"]);
    solo.wait(5 * MS);
    solo.gets(solo.ack(1, 2001)).unwrap();
    assert_eq!(solo.sent(), [""; 0]);
    assert_eq!(solo.tcb.snd.lost(), 0);
}

#[test]
fn a_kick_in_time_wait_is_silent_because_the_other_side_may_be_gone() {
    let mut solo = Solo::time_wait(plain());
    solo.tcb.kick();
    assert_eq!(solo.sent(), [""; 0]);
}

#[test]
fn many_moves_do_not_use_up_the_retries() {
    let mut solo = Solo::established(Config { timestamps: true, ..plain() });
    solo.write(10);
    for _ in 0..300 {
        solo.tcb.kick();
        assert_eq!(solo.sent().len(), 1);
        solo = moved(solo, Instant::from_millis(9));
    }
    assert_eq!(solo.tcb.snd.timeouts, 0);
    solo.wait(400 * MS);
    assert_eq!(solo.tcb.state, State::Established);
}
