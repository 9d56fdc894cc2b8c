//! Loss recovery: how fast losses are repaired, and what they cost.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use super::harness::{MS, MSS, Make, Solo, just_before, plain};
use super::pair::{A, B, Pair, pattern};
use crate::tcp::cc::Kind;
use crate::tcp::tcb::{Mark, Recovery};
use crate::tcp::{Config, Segment};

fn modern() -> Config {
    Config { sack: true, timestamps: true, window_scaling: true, receive_buffer: 1 << 20, ..plain() }
}

/// Sends `segments` full segments from A to B with a window that takes them all at once; those of the first flight
/// that are in `lost` are lost, as often as given. Returns how long it takes until B has all.
fn transfer(config: Config, segments: usize, lost: &[(usize, usize)]) -> (Duration, Pair) {
    let mut pair = Pair::established(config, config);
    let payload = usize::try_from(pair.end(A).mss()).unwrap();
    let octets = segments * payload;
    pair.end(A).congestion.cwnd = u32::try_from(octets).unwrap();
    // B tells its window, which no longer has to fit a SYN.
    pair.end(B).kick();
    pair.run(200);
    let now = pair.now;
    pair.end(A).snd.last = now;
    let first = pair.end(A).snd.nxt;
    let mut left: Vec<_> = lost.iter().map(|(nth, times)| (first + nth * payload, *times)).collect();
    pair.filters[A] = Box::new(move |_, segment: &Segment| {
        let hit = left.iter_mut().find(|(seq, times)| segment.seq == *seq && *times > 0);
        hit.is_none_or(|(_, times)| {
            *times -= 1;
            false
        })
    });
    assert!(pair.end(A).write(pattern(0, octets)).is_empty());
    let took = pair.run_until(60_000, |pair| pair.end(B).readable() == octets);
    (took, pair)
}

const RTT: Duration = Duration::from_millis(100);
const ONE_WAY: Duration = Duration::from_millis(50);

#[test]
fn without_loss_a_window_takes_half_a_round_trip() {
    assert_eq!(transfer(modern(), 100, &[]).0, ONE_WAY);
}

#[test]
fn a_loss_in_a_window_of_a_hundred_is_repaired_in_one_round_trip() {
    for congestion in [Kind::NewReno, Kind::Cubic] {
        for nth in [0, 1, 50, 96] {
            let (took, mut pair) = transfer(Config { congestion, ..modern() }, 100, &[(nth, 1)]);
            assert_eq!(took, ONE_WAY + RTT, "segment {nth}");
            assert_eq!(pair.end(A).snd.retransmitted, 1);
            assert_eq!(pair.end(A).snd.timeouts, 0);
        }
    }
}

#[test]
fn several_losses_in_a_window_are_repaired_in_one_round_trip() {
    let (took, mut pair) = transfer(modern(), 100, &[(3, 1), (40, 1), (70, 1)]);
    assert_eq!(took, ONE_WAY + RTT);
    assert_eq!(pair.end(A).snd.retransmitted, 3);
}

#[test]
fn a_lost_retransmission_is_noticed_without_the_timer() {
    // RACK: what was sent later than the retransmission arrived.
    let mut pair = Pair::established(modern(), modern());
    pair.end(A).congestion.cwnd = 60_000;
    let first = pair.end(A).snd.nxt;
    let mut drops = 2;
    pair.filters[A] = Box::new(move |_, segment: &Segment| {
        let lost = segment.seq == first && drops > 0;
        drops -= usize::from(lost);
        !lost
    });
    assert!(pair.end(A).write(pattern(0, 200_000)).is_empty());
    let took = pair.run_until(1000, |pair| pair.end(B).readable() > 0);
    assert!(took <= ONE_WAY + 3 * RTT, "{took:?}");
    assert_eq!(pair.end(A).snd.timeouts, 0);
    pair.run_until(5000, |pair| pair.end(B).readable() == 200_000);
    assert_eq!(pair.end(A).snd.retransmitted, 2);
}

#[test]
fn a_lost_tail_is_repaired_by_a_probe_within_about_two_round_trips() {
    // The last acknowledgement comes after a round trip and a delay, the probe two later (for a single segment, which
    // may be waiting for a delayed acknowledgement, a little more). What is missing in front of the probe takes one
    // more, or two, because RFC 9937 lets out one segment for one that arrived.
    for (lost, trips) in [(&[(99, 1)][..], 4), (&[(98, 1), (99, 1)], 5), (&[(97, 1), (98, 1), (99, 1)], 5)] {
        let (took, mut pair) = transfer(modern(), 100, lost);
        assert!(took <= trips * RTT + ONE_WAY + 50 * MS, "{took:?}");
        assert_eq!(pair.end(A).snd.timeouts, 0);
    }
}

#[test]
fn a_probe_comes_even_if_the_timeout_would_come_first() {
    // RFC 8985 section 7.2: a single segment in flight waits for a delayed acknowledgement, longer than the timeout.
    let mut solo = Solo::established(Config { sack: true, ..plain() });
    solo.write(10);
    solo.sent();
    let cwnd = solo.tcb.congestion.cwnd;
    assert_eq!(solo.wait(300 * MS), ["1+10 ack 1"]);
    assert_eq!(solo.tcb.congestion.cwnd, cwnd, "not a timeout");
    assert_eq!(solo.tcb.snd.timeouts, 0);
}

#[test]
fn a_probe_that_was_not_needed_costs_nothing() {
    // The acknowledgement was only late; the second copy is reported as a duplicate (RFC 8985 section 7.4.2).
    let mut solo = Solo::established(Config { sack: true, ..plain() });
    let before = (solo.tcb.congestion.cwnd, solo.tcb.congestion.ssthresh);
    solo.write(10);
    solo.sent();
    assert_eq!(solo.wait(300 * MS), ["1+10 ack 1"]);
    solo.gets(solo.ack(1, 11)).unwrap();
    assert_eq!((solo.tcb.congestion.cwnd, solo.tcb.congestion.ssthresh), before);
    let report = (solo.iss + 1_u32, solo.iss + 11_u32);
    solo.gets(solo.ack(1, 11).sacks(&[report])).unwrap();
    solo.write(10);
    solo.sent();
    solo.gets(solo.ack(1, 21)).unwrap();
    assert_eq!((solo.tcb.congestion.cwnd, solo.tcb.congestion.ssthresh), before);
}

#[test]
fn a_loss_that_only_the_probe_repaired_slows_down() {
    let mut solo = Solo::established(Config { sack: true, ..plain() });
    solo.write(10);
    solo.sent();
    assert_eq!(solo.wait(300 * MS), ["1+10 ack 1"]);
    solo.gets(solo.ack(1, 11)).unwrap();
    solo.write(10);
    solo.sent();
    solo.gets(solo.ack(1, 21)).unwrap();
    assert_eq!(solo.tcb.congestion.cwnd, 7000);
}

#[test]
fn reordering_within_a_quarter_of_the_round_trip_is_no_loss() {
    let mut solo = Solo::established(Config { sack: true, ..plain() });
    solo.tcb.rtt.sample(100 * MS);
    solo.write(2000);
    assert_eq!(solo.segments().len(), 2);
    solo.now += 100 * MS;
    let block = (solo.iss + 1001_u32, solo.iss + 2001_u32);
    solo.gets(solo.ack(1, 1).sacks(&[block])).unwrap();
    assert_eq!(solo.sent(), [""; 0]);
    assert_eq!(solo.wait(2 * MS), [""; 0]);
    solo.gets(solo.ack(1, 2001)).unwrap();
    assert!(solo.tcb.rack.reordering);
    assert_eq!(solo.tcb.snd.retransmitted, 0);
}

#[test]
fn what_reordering_does_not_explain_is_sent_again_when_its_time_is_up() {
    let mut solo = Solo::established(Config { sack: true, ..plain() });
    solo.tcb.rtt = crate::tcp::Rtt::default();
    solo.tcb.rtt.sample(100 * MS);
    solo.write(2000);
    solo.sent();
    solo.now += 100 * MS;
    let block = (solo.iss + 1001_u32, solo.iss + 2001_u32);
    solo.gets(solo.ack(1, 1).sacks(&[block])).unwrap();
    assert_eq!(solo.wait(24 * MS), [""; 0]);
    assert_eq!(solo.wait(MS), ["1+1000 ack 1"]);
    assert!(matches!(solo.tcb.recovery, Recovery::Fast { .. }));
}

#[test]
fn three_duplicates_repair_a_loss_where_there_is_no_sack() {
    let mut solo = Solo::established(Config { congestion: Kind::NewReno, ..plain() });
    solo.write(20_000);
    assert_eq!(solo.segments().len(), 10);
    solo.gets(solo.ack(1, 1)).unwrap();
    assert_eq!(solo.sent(), ["10001+1000 ack 1"], "limited transmit");
    solo.gets(solo.ack(1, 1)).unwrap();
    assert_eq!(solo.sent(), ["11001+1000 ack 1"], "limited transmit");
    solo.gets(solo.ack(1, 1)).unwrap();
    assert_eq!(solo.sent(), ["1+1000 ack 1"]);
    assert_eq!(solo.tcb.congestion.ssthresh, 5000, "without what limited transmit let out");
    // A partial acknowledgement: the next hole.
    solo.gets(solo.ack(1, 4001)).unwrap();
    assert_eq!(solo.sent()[0], "4001+1000 ack 1");
    solo.gets(solo.ack(1, 12_001)).unwrap();
    assert_eq!(solo.tcb.recovery, Recovery::Open { duplicates: 0 });
    assert_eq!(solo.tcb.congestion.cwnd, 5000, "ends at the threshold");
}

#[test]
fn without_sack_each_round_trip_repairs_one_loss() {
    let config = Config { sack: false, ..modern() };
    assert_eq!(transfer(config, 100, &[(10, 1)]).0, ONE_WAY + RTT);
    let (took, mut pair) = transfer(config, 100, &[(10, 1), (20, 1), (30, 1)]);
    assert_eq!(took, ONE_WAY + 3 * RTT);
    assert_eq!((pair.end(A).snd.retransmitted, pair.end(A).snd.timeouts), (3, 0));
}

#[test]
fn what_is_no_duplicate_acknowledgement_is_not_counted() {
    let mut solo = Solo::established(plain());
    solo.write(5000);
    solo.sent();
    for nth in 0..10 {
        solo.gets(solo.ack(1 + nth, 1).data(b"x")).unwrap();
        solo.gets(solo.ack(2 + nth, 1).window(50_000 + u16::try_from(nth).unwrap())).unwrap();
    }
    assert_eq!(solo.tcb.recovery, Recovery::Open { duplicates: 0 });
}

#[test]
fn proportional_rate_reduction_halves_the_rate_evenly() {
    // RFC 9937: 20 segments, the first lost, Reno: one segment out for two that are delivered.
    let mut solo = Solo::established(Config { sack: true, congestion: Kind::NewReno, ..plain() });
    solo.tcb.congestion.cwnd = 20_000;
    solo.write(60_000);
    assert_eq!(solo.segments().len(), 20);
    solo.now += 100 * MS;
    let mut out = Vec::new();
    for nth in 2..=20_u32 {
        let block = (solo.iss + 1001_u32, solo.iss + (nth * 1000 + 1));
        solo.gets(solo.ack(1, 1).sacks(&[block])).unwrap();
        out.push(solo.segments().len());
    }
    assert_eq!(out[..2], [1, 1], "limited transmit");
    let Recovery::Fast { flight, .. } = solo.tcb.recovery else { panic!("no recovery") };
    assert_eq!(flight, 20_000, "what was delivered before recovery began does not count");
    let sent: usize = out[2..].iter().sum();
    assert!((8..=9).contains(&sent), "half of the 18 that were delivered since: {out:?}");
    assert!(out.iter().all(|burst| *burst <= 1), "{out:?}");
    assert_eq!(solo.tcb.congestion.ssthresh, 10_000);
    solo.gets(solo.ack(1, 20_001)).unwrap();
    assert_eq!(solo.tcb.congestion.cwnd, 10_000);
}

#[test]
fn a_timeout_sends_one_segment_and_backs_off() {
    let mut solo = Solo::established(Config { congestion: Kind::NewReno, ..plain() });
    solo.write(10_000);
    assert_eq!(solo.segments().len(), 10);
    let rto = solo.tcb.rtt.rto(solo.tcb.config.min_rto, solo.tcb.config.max_rto);
    assert_eq!(solo.wait(rto), ["1+1000 ack 1"]);
    assert_eq!((solo.tcb.congestion.cwnd, solo.tcb.congestion.ssthresh), (1000, 5000));
    assert_eq!(solo.wait(just_before(2 * rto)), [""; 0]);
    assert_eq!(solo.wait(MS), ["1+1000 ack 1"]);
    assert_eq!(solo.tcb.congestion.ssthresh, 5000, "a second timeout is no second reduction");
    solo.gets(solo.ack(1, 1001)).unwrap();
    assert_eq!(solo.sent(), ["1001+1000 ack 1", "2001+1000 ack 1"], "slow start");
}

#[test]
fn a_timeout_in_the_middle_of_a_recovery_reduces_once() {
    let mut solo = Solo::established(Config { sack: true, ..plain() });
    solo.tcb.congestion.cwnd = 20_000;
    solo.write(60_000);
    solo.sent();
    solo.now += 20 * MS;
    let block = (solo.iss + 1001_u32, solo.iss + 5001_u32);
    solo.gets(solo.ack(1, 1).sacks(&[block])).unwrap();
    assert!(matches!(solo.tcb.recovery, Recovery::Fast { .. }));
    let before = solo.tcb.congestion.ssthresh;
    while !matches!(solo.tcb.recovery, Recovery::Loss { .. }) {
        solo.wait(50 * MS);
    }
    assert_eq!(solo.tcb.congestion.ssthresh, before);
}

#[test]
fn back_off_lasts_until_something_is_measured() {
    // Karn: without timestamps an acknowledgement of what was sent twice measures nothing.
    let mut solo = Solo::established(plain());
    let rto = solo.tcb.rtt.rto(solo.tcb.config.min_rto, solo.tcb.config.max_rto);
    solo.write(10);
    solo.sent();
    assert_eq!(solo.wait(rto), ["1+10 ack 1"]);
    solo.gets(solo.ack(1, 11)).unwrap();
    solo.write(10);
    solo.sent();
    assert_eq!(solo.wait(just_before(2 * rto)), [""; 0]);
    solo.gets(solo.ack(1, 21)).unwrap();
    assert_eq!(solo.tcb.rtt.backoff, 0);
}

#[test]
fn what_waited_behind_a_hole_does_not_measure_the_round_trip() {
    let mut solo = Solo::established(plain());
    solo.write(3000);
    solo.sent();
    let before = solo.tcb.rtt;
    solo.wait(1000 * MS);
    solo.gets(solo.ack(1, 3001)).unwrap();
    assert_eq!(solo.tcb.rtt.smoothed, before.smoothed);
}

#[test]
fn octets_that_the_other_side_dropped_again_are_sent_again() {
    // RFC 2018 section 8: a selective acknowledgement is no promise.
    let mut solo = Solo::established(Config { sack: true, ..plain() });
    solo.write(3000);
    solo.sent();
    let block = (solo.iss + 1001_u32, solo.iss + 3001_u32);
    solo.gets(solo.ack(1, 1).sacks(&[block])).unwrap();
    solo.gets(solo.ack(1, 1001)).unwrap();
    let sent = solo.wait(2000 * MS);
    assert!(sent.contains(&"1001+1000 ack 1".into()), "{sent:?}");
    assert!(solo.tcb.snd.sent.iter().all(|sent| sent.mark != Mark::Sacked));
}

#[test]
fn blocks_that_cannot_be_true_are_ignored() {
    let mut solo = Solo::established(Config { sack: true, ..plain() });
    solo.write(3000);
    solo.sent();
    let at = |n: u32| solo.iss + n;
    for (from, to) in [(2001, 9001), (2001, 2001), (3001, 2001), (0, 3001), (3001, 4001), (1 << 31, 1)] {
        let ack = solo.ack(1, 1).sacks(&[(at(from), at(to)), (at(1001), at(2001))]);
        let mut other = solo.clone();
        other.gets(ack).unwrap();
        assert_eq!(other.tcb.snd.sacked, 1000, "{from} to {to}");
    }
}

#[test]
fn a_flood_of_duplicates_overflows_nothing() {
    let mut solo = Solo::established(plain());
    solo.write(30 * MSS);
    for _ in 0..4 {
        solo.gets(solo.ack(1, 1)).unwrap();
        solo.segments();
    }
    let Recovery::Fast { inferred, .. } = &mut solo.tcb.recovery else { panic!("no recovery") };
    *inferred = u32::MAX - 10;
    solo.gets(solo.ack(1, 1)).unwrap();
    let Recovery::Fast { inferred, .. } = solo.tcb.recovery else { panic!("no recovery") };
    assert!(inferred <= solo.tcb.snd.in_flight);
}

#[test]
fn a_window_that_holds_lost_octets_back_may_grow() {
    let mut solo = Solo::established(plain());
    solo.write(10 * MSS);
    solo.segments();
    solo.wait(400 * MS);
    assert!(matches!(solo.tcb.recovery, Recovery::Loss { .. }));
    assert_eq!((solo.tcb.snd.unsent(), solo.tcb.snd.lost()), (0, 9000));
    assert!(solo.tcb.snd.limited);
}

#[test]
fn duplicates_that_answer_what_was_sent_again_begin_no_recovery() {
    // RFC 6582 section 3.2, step 2: after a timeout everything is sent again, needlessly for the most part.
    let mut solo = Solo::established(plain());
    solo.write(10 * MSS);
    solo.segments();
    while !matches!(solo.tcb.recovery, Recovery::Loss { .. }) {
        solo.wait(50 * MS);
    }
    solo.gets(solo.ack(1, 10_001)).unwrap();
    solo.write(5 * MSS);
    solo.segments();
    for _ in 0..5 {
        solo.gets(solo.ack(1, 10_001)).unwrap();
        assert!(matches!(solo.tcb.recovery, Recovery::Open { .. }));
    }
    // Once something later is acknowledged, they count again.
    for nth in 0..4 {
        solo.gets(solo.ack(1, 11_001)).unwrap();
        assert_eq!(matches!(solo.tcb.recovery, Recovery::Fast { .. }), nth == 3);
    }
}
