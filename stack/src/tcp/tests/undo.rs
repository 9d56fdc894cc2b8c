//! What was taken for a loss and was none costs nothing in the end.

use alloc::boxed::Box;
use core::time::Duration;

use super::harness::{MS, Make, Solo, just_before, plain};
use super::pair::{A, B, Pair, pattern};
use crate::tcp::cc::{Congestion, Kind};
use crate::tcp::tcb::{Doubt, Mark, Recovery};
use crate::tcp::{Config, Segment, Timestamps};

const OPEN: Recovery = Recovery::Open { duplicates: 0 };

fn with_sack() -> Config {
    Config { sack: true, ..plain() }
}

/// Ten segments of a thousand octets each in flight, sent 20 ms ago, of at least twenty to send.
fn ten_in_flight(config: Config) -> Solo {
    let mut solo = Solo::established(config);
    solo.tcb.congestion = Congestion::new(config.congestion, 10 * solo.tcb.mss());
    solo.write(20 * solo.tcb.mss() as usize);
    assert_eq!(solo.segments().len(), 10);
    solo.now += 20 * MS;
    solo
}

/// The acknowledgement of the first `segments`, echoing what was sent at `echo`.
fn echoing(solo: &Solo, segments: u32, echo: u32) -> Segment {
    let mut ack = solo.ack(1, 1 + segments * solo.tcb.mss());
    if let Some(Timestamps { value, .. }) = ack.options.timestamps {
        ack.options.timestamps = Some(Timestamps { value, echo });
    }
    ack
}

fn block(solo: &Solo, from: u32, to: u32) -> (crate::Seq, crate::Seq) {
    let mss = solo.tcb.mss();
    (solo.iss + (1 + from * mss), solo.iss + (1 + to * mss))
}

fn until_timeout(solo: &mut Solo) {
    while !matches!(solo.tcb.recovery, Recovery::Loss { .. }) {
        solo.wait(10 * MS);
    }
}

#[test]
fn an_echo_of_the_original_takes_a_fast_recovery_back() {
    let mut solo = ten_in_flight(Config { timestamps: true, ..with_sack() });
    let (before, first) = (solo.tcb.congestion.clone(), solo.tcb.timestamps.unwrap().value_at(solo.now));
    let ack = solo.ack(1, 1).sacks(&[block(&solo, 1, 5)]);
    solo.gets(ack).unwrap();
    assert!(matches!(solo.tcb.recovery, Recovery::Fast { .. }));
    solo.segments();
    assert!(solo.tcb.congestion.ssthresh < before.ssthresh);
    solo.now += 10 * MS;
    solo.gets(echoing(&solo, 5, first - 20)).unwrap();
    assert_eq!(solo.tcb.recovery, OPEN);
    assert_eq!(solo.tcb.congestion.ssthresh, before.ssthresh);
    assert_eq!(solo.tcb.congestion.algorithm, before.algorithm);
    assert!(solo.tcb.congestion.cwnd > before.cwnd / 2, "{}", solo.tcb.congestion.cwnd);
    assert!(solo.tcb.rack.reordering);
    assert_eq!(solo.tcb.undo, None);
}

#[test]
fn an_echo_of_the_copy_takes_nothing_back() {
    let mut solo = ten_in_flight(Config { timestamps: true, ..with_sack() });
    let ack = solo.ack(1, 1).sacks(&[block(&solo, 1, 5)]);
    solo.gets(ack).unwrap();
    solo.segments();
    let copy = solo.tcb.timestamps.unwrap().value_at(solo.now);
    solo.now += 20 * MS;
    solo.gets(echoing(&solo, 5, copy)).unwrap();
    assert!(matches!(solo.tcb.recovery, Recovery::Fast { .. }));
    // Not even if somebody claims later that it was the original after all.
    solo.gets(echoing(&solo, 6, copy - 1)).unwrap();
    assert!(matches!(solo.tcb.recovery, Recovery::Fast { .. }));
}

#[test]
fn an_echo_of_an_earlier_copy_takes_nothing_back_when_later_copies_are_under_way() {
    for sack in [true, false] {
        let mut solo = ten_in_flight(Config { timestamps: true, sack, ..plain() });
        // The peer takes nothing new: what is lost is sent again at once.
        let mss = u16::try_from(solo.tcb.mss()).unwrap();
        solo.gets(solo.ack(1, 1).window(10 * mss)).unwrap();
        until_timeout(&mut solo);
        let after = solo.tcb.congestion.ssthresh;
        let mut copies = solo.tcb.timestamps.unwrap().value_at(solo.now);
        // Each acknowledgement lets copies out, and those before it are still on their way back.
        for acked in 1..9 {
            solo.now += 10 * MS;
            let left = (10 - u16::try_from(acked).unwrap()) * mss;
            solo.gets(echoing(&solo, acked, copies).window(left)).unwrap();
            assert!(matches!(solo.tcb.recovery, Recovery::Loss { .. }), "sack {sack}, segment {acked}");
            if acked % 2 == 1 {
                copies = solo.tcb.timestamps.unwrap().value_at(solo.now);
            }
            solo.segments();
        }
        assert!(solo.tcb.snd.retransmitted >= 10);
        assert_eq!(solo.tcb.congestion.ssthresh, after);
    }
}

#[test]
fn an_echo_of_the_original_takes_a_timeout_and_its_back_off_back() {
    for sack in [true, false] {
        let mut solo = ten_in_flight(Config { timestamps: true, sack, ..plain() });
        let (before, echo) =
            (solo.tcb.congestion.clone(), solo.tcb.timestamps.unwrap().value_at(solo.now) - 20);
        until_timeout(&mut solo);
        assert_eq!(solo.tcb.congestion.cwnd, solo.tcb.mss());
        solo.segments();
        solo.now += 5 * MS;
        solo.gets(echoing(&solo, 1, echo)).unwrap();
        assert_eq!(solo.tcb.recovery, OPEN, "sack {sack}");
        assert_eq!(solo.tcb.congestion, before, "nine in flight and one acknowledged");
        assert_eq!((solo.tcb.rtt.backoff, solo.tcb.snd.timeouts), (0, 0));
        assert!(solo.tcb.snd.sent.iter().all(|sent| sent.mark == Mark::InFlight));
        solo.segments();
        assert_eq!(solo.tcb.snd.retransmitted, 1, "nothing more is sent again");
    }
}

#[test]
fn a_timeout_is_taken_back_when_originals_are_acknowledged_selectively() {
    let mut solo = ten_in_flight(with_sack());
    let before = solo.tcb.congestion.clone();
    until_timeout(&mut solo);
    solo.segments();
    let ack = solo.ack(1, 1).sacks(&[block(&solo, 1, 2)]);
    solo.gets(ack).unwrap();
    assert_eq!(solo.tcb.congestion.ssthresh, before.ssthresh);
    assert_eq!(solo.tcb.rtt.backoff, 0);
}

#[test]
fn a_timeout_is_taken_back_when_the_second_acknowledgement_covers_originals() {
    // RFC 5682 section 2.1, without any option.
    let mut solo = ten_in_flight(plain());
    let before = solo.tcb.congestion.clone();
    until_timeout(&mut solo);
    solo.segments();
    solo.gets(solo.ack(1, 1001)).unwrap();
    assert!(matches!(solo.tcb.recovery, Recovery::Loss { doubt: Doubt::Probing, .. }));
    assert_eq!(solo.sent(), ["10001+1000 ack 1", "11001+1000 ack 1"], "new octets, to see");
    solo.gets(solo.ack(1, 2001)).unwrap();
    assert_eq!(solo.tcb.recovery, OPEN);
    assert_eq!((solo.tcb.congestion.cwnd, solo.tcb.congestion.ssthresh), (before.cwnd, before.ssthresh));
    assert!(solo.sent().iter().all(|sent| sent.starts_with('1')), "nothing is sent again");
}

#[test]
fn a_real_timeout_goes_on_with_what_is_lost_after_a_duplicate_acknowledgement() {
    let mut solo = ten_in_flight(plain());
    until_timeout(&mut solo);
    let ssthresh = solo.tcb.congestion.ssthresh;
    solo.segments();
    solo.gets(solo.ack(1, 1001)).unwrap();
    assert_eq!(solo.segments().len(), 2);
    solo.gets(solo.ack(1, 1001)).unwrap();
    assert!(matches!(solo.tcb.recovery, Recovery::Loss { doubt: Doubt::Settled, .. }));
    solo.gets(solo.ack(1, 1001)).unwrap();
    solo.gets(solo.ack(1, 2001)).unwrap();
    assert_eq!(solo.sent()[0], "2001+1000 ack 1");
    assert_eq!(solo.tcb.congestion.ssthresh, ssthresh);
}

#[test]
fn two_new_segments_after_a_real_timeout_do_not_keep_what_is_lost_from_being_sent() {
    let mut solo = ten_in_flight(plain());
    until_timeout(&mut solo);
    solo.segments();
    solo.gets(solo.ack(1, 1001)).unwrap();
    assert_eq!(solo.segments().len(), 2);
    solo.gets(solo.ack(1, 1001)).unwrap();
    assert_eq!(solo.sent(), ["1001+1000 ack 1"]);
}

#[test]
fn a_timeout_without_anything_new_to_send_goes_on_at_once() {
    let mut solo = Solo::established(plain());
    solo.write(10_000);
    solo.segments();
    until_timeout(&mut solo);
    solo.segments();
    solo.gets(solo.ack(1, 1001)).unwrap();
    assert_eq!(solo.sent(), ["1001+1000 ack 1", "2001+1000 ack 1"]);
}

#[test]
fn the_acknowledgement_of_everything_after_a_timeout_tells_nothing() {
    // RFC 5682 section 2.1, step 2a: what was waiting behind the first segment comes with it.
    for sack in [true, false] {
        let mut solo = ten_in_flight(Config { sack, ..plain() });
        until_timeout(&mut solo);
        let ssthresh = solo.tcb.congestion.ssthresh;
        solo.segments();
        let all = solo.tcb.snd.nxt.0.wrapping_sub(solo.iss.0);
        solo.gets(solo.ack(1, all)).unwrap();
        assert_eq!(solo.tcb.recovery, OPEN);
        assert_eq!(solo.tcb.congestion.ssthresh, ssthresh);
    }
}

#[test]
fn reports_of_all_copies_as_duplicates_take_a_recovery_back() {
    let mut solo = ten_in_flight(with_sack());
    let before = solo.tcb.congestion.clone();
    let ack = solo.ack(1, 1).sacks(&[block(&solo, 2, 6)]);
    solo.gets(ack).unwrap();
    assert_eq!(solo.sent()[..1], ["1+1000 ack 1"]);
    solo.now += 5 * MS;
    solo.segments();
    // The originals fill the hole, the copies come later.
    solo.gets(solo.ack(1, 10_001)).unwrap();
    let again = solo.tcb.undo.as_ref().unwrap().unreported;
    assert!(again == 1000 || again == 2000, "{again}");
    let ack = solo.ack(1, 10_001).sacks(&[block(&solo, 0, 1)]);
    solo.gets(ack).unwrap();
    assert_eq!(solo.tcb.undo.is_some(), again == 2000);
    let ack = solo.ack(1, 10_001).sacks(&[block(&solo, 1, 2)]);
    solo.gets(ack).unwrap();
    assert_eq!(solo.tcb.undo, None);
    assert_eq!(solo.tcb.congestion.ssthresh, before.ssthresh);
}

#[test]
fn a_report_of_what_was_never_sent_again_takes_nothing_back() {
    let mut solo = ten_in_flight(with_sack());
    let ack = solo.ack(1, 1).sacks(&[block(&solo, 1, 5)]);
    solo.gets(ack).unwrap();
    solo.segments();
    let ssthresh = solo.tcb.congestion.ssthresh;
    let at = |n: u32| solo.iss + n;
    for (from, to) in [(0, 1), (1, 1), (0, 1000), (5, 4), (1 << 31, 1000)] {
        let mut other = solo.clone();
        let ack = other.ack(1, 5001).sacks(&[(at(from), at(to))]);
        other.gets(ack).unwrap();
        assert!(other.tcb.undo.is_some(), "{from} to {to}");
        assert_eq!(other.tcb.congestion.ssthresh, ssthresh, "{from} to {to}");
    }
}

#[test]
fn a_timeout_spares_what_was_sent_shortly_before() {
    // RFC 8985 section 6.3.
    let mut solo = ten_in_flight(with_sack());
    solo.gets(solo.ack(1, 1001)).unwrap();
    let early = solo.segments().len();
    assert!(early > 0);
    let rto = solo.tcb.timers.rto.unwrap();
    solo.now += just_before(rto.until(solo.now));
    solo.tcb.congestion.cwnd += 1000;
    assert_eq!(solo.segments().len(), 1);
    solo.tcb.timers.tail_probe = None;
    solo.wait(MS);
    assert!(matches!(solo.tcb.recovery, Recovery::Loss { .. }));
    assert_eq!(solo.tcb.snd.sent.back().unwrap().mark, Mark::InFlight);
    assert_eq!(solo.tcb.snd.sent[1].mark, Mark::Lost);
}

#[test]
fn a_path_that_turns_slow_for_a_moment_costs_no_octets_twice_but_one_segment() {
    for (sack, timestamps) in [(true, true), (true, false), (false, true), (false, false)] {
        for congestion in [Kind::NewReno, Kind::Cubic] {
            let config = Config {
                sack,
                timestamps,
                congestion,
                window_scaling: true,
                receive_buffer: 1 << 20,
                ..plain()
            };
            let mut pair = Pair::established(config, config);
            assert!(pair.end(A).write(pattern(0, 400_000)).is_empty());
            pair.run(600);
            let before = pair.end(A).congestion.cwnd;
            // For a moment, everything takes four round trips more.
            pair.delay = Duration::from_millis(450);
            pair.run(60);
            pair.delay = Duration::from_millis(50);
            pair.run_until(60_000, |pair| pair.end(B).readable() == 400_000);
            let a = pair.end(A);
            assert!(a.congestion.ssthresh >= before, "sack {sack}, timestamps {timestamps}, {congestion:?}");
            assert!(a.snd.retransmitted <= 4, "{} again, sack {sack}", a.snd.retransmitted);
            pair.filters[A] = Box::new(|_, _| true);
        }
    }
}
