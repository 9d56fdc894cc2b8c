//! Time-based loss detection: how patient it is, and what a hostile peer can make of it.

use alloc::vec::Vec;
use core::time::Duration;

use super::harness::{MS, Make, Solo, plain};
use crate::Seq;
use crate::tcp::tcb::{Mark, Recovery};
use crate::tcp::{Config, Rtt};

fn sacking() -> Config {
    Config { sack: true, send_buffer: 8 << 20, ..plain() }
}

fn block(solo: &Solo, from: u32, to: u32) -> (Seq, Seq) {
    (solo.iss + (1 + from * 1000), solo.iss + (1 + to * 1000))
}

/// Has the segment at the head sent again in a recovery, and ends that. Returns what lies between.
fn needless_recovery(solo: &mut Solo, report: bool) {
    let una = solo.tcb.snd.una.0.wrapping_sub(solo.iss.0);
    solo.tcb.congestion.cwnd = 20_000;
    solo.write(6000);
    solo.segments();
    solo.now += 20 * MS;
    let at = |n: u32| solo.iss + (una + n * 1000);
    let ack = solo.ack(1, una).sacks(&[(at(1), at(6))]);
    let (duplicate, nxt) = ((at(0), at(1)), una + 6000);
    solo.gets(ack).unwrap();
    solo.wait(20 * MS);
    assert!(matches!(solo.tcb.recovery, Recovery::Fast { .. }));
    solo.gets(solo.ack(1, nxt)).unwrap();
    if report {
        solo.gets(solo.ack(1, nxt).sacks(&[duplicate])).unwrap();
    }
}

#[test]
fn each_round_trip_with_a_report_of_a_duplicate_makes_it_more_patient() {
    let mut solo = Solo::established(sacking());
    for expected in 2..6 {
        needless_recovery(&mut solo, true);
        assert_eq!((solo.tcb.rack.quarters, solo.tcb.rack.persist), (expected, 16));
    }
    // A second report in the same round trip counts no more.
    solo.write(1000);
    solo.segments();
    let una = solo.tcb.snd.una;
    let ack = solo.ack(1, una.0.wrapping_sub(solo.iss.0)).sacks(&[(una - 1000, una)]);
    solo.gets(ack.clone()).unwrap();
    let quarters = solo.tcb.rack.quarters;
    solo.gets(ack).unwrap();
    assert_eq!(solo.tcb.rack.quarters, quarters);
}

#[test]
fn patience_is_lost_after_sixteen_recoveries_without_a_report() {
    let mut solo = Solo::established(sacking());
    needless_recovery(&mut solo, true);
    for left in (1..16).rev() {
        needless_recovery(&mut solo, false);
        assert_eq!((solo.tcb.rack.quarters, solo.tcb.rack.persist), (2, left));
    }
    needless_recovery(&mut solo, false);
    assert_eq!(solo.tcb.rack.quarters, 1);
}

#[test]
fn a_patient_connection_waits_longer_before_it_sends_again() {
    let mut solo = Solo::established(sacking());
    solo.tcb.rtt = Rtt::default();
    solo.tcb.rtt.sample(100 * MS);
    solo.tcb.rack.reordering = true;
    solo.tcb.rack.quarters = 3;
    solo.write(5000);
    solo.segments();
    solo.now += 100 * MS;
    let ack = solo.ack(1, 1).sacks(&[block(&solo, 1, 5)]);
    solo.gets(ack).unwrap();
    assert_eq!(solo.wait(74 * MS), [""; 0]);
    assert_eq!(solo.wait(MS), ["1+1000 ack 1"]);
}

#[test]
fn the_least_round_trip_time_is_forgotten_when_the_path_has_become_longer() {
    let mut solo = Solo::established(sacking());
    assert_eq!(solo.tcb.rtt.min, Some(10 * MS));
    for _ in 0..7 {
        let una = solo.tcb.snd.nxt.0.wrapping_sub(solo.iss.0);
        solo.write(1000);
        solo.segments();
        solo.now += 80 * MS;
        solo.gets(solo.ack(1, una + 1000)).unwrap();
        solo.now += 50_000 * MS;
    }
    assert_eq!(solo.tcb.rtt.min, Some(80 * MS));
}

#[test]
fn what_is_lost_at_the_end_of_a_recovery_begins_another() {
    let mut solo = Solo::established(sacking());
    solo.write(10_000);
    assert_eq!(solo.segments().len(), 10);
    solo.now += 20 * MS;
    let ack = solo.ack(1, 1).sacks(&[block(&solo, 1, 10)]);
    solo.gets(ack).unwrap();
    solo.write(20_000);
    solo.segments();
    let threshold = solo.tcb.congestion.ssthresh;
    let sent = solo.tcb.snd.nxt.0.wrapping_sub(solo.iss.0);
    assert!(sent > 13_001, "{sent}");
    solo.now += 20 * MS;
    let ack = solo.ack(1, 10_001).sacks(&[(solo.iss + 11_001_u32, solo.iss + sent)]);
    solo.gets(ack).unwrap();
    solo.wait(20 * MS);
    assert!(matches!(solo.tcb.recovery, Recovery::Fast { .. }));
    assert!(solo.tcb.congestion.ssthresh < threshold);
}

#[test]
fn runs_that_are_acknowledged_selectively_become_one_record() {
    let mut solo = Solo::established(sacking());
    solo.write(10_000);
    assert_eq!(solo.segments().len(), 10);
    for nth in [3, 5, 4, 7, 6, 8, 1] {
        let ack = solo.ack(1, 1).sacks(&[block(&solo, nth, nth + 1)]);
        solo.gets(ack).unwrap();
    }
    let sacked: Vec<_> =
        solo.tcb.snd.sent.iter().filter(|sent| sent.mark == Mark::Sacked).map(|sent| sent.len).collect();
    assert_eq!(sacked, [1000, 6000]);
}

#[test]
fn a_peer_that_acknowledges_every_other_octet_makes_no_record_of_each() {
    let mut solo = Solo::established(sacking());
    solo.tcb.congestion.cwnd = 1 << 20;
    solo.tcb.snd.wnd = 1 << 20;
    solo.tcb.snd.max_wnd = 1 << 20;
    solo.write(1 << 20);
    let segments = solo.segments().len();
    assert!(segments > 900);
    let most = 2 * segments + 256 + 2;
    for nth in 0..20_000_u32 {
        let at = |n: u32| solo.iss + (2 + 6 * nth + 2 * n);
        let ack =
            solo.ack(1, 1).sacks(&[(at(0), at(0) + 1_u32), (at(1), at(1) + 1_u32), (at(2), at(2) + 1_u32)]);
        solo.tcb.receive(&ack, solo.now).unwrap();
        assert!(solo.tcb.snd.sent.len() <= most, "{} records", solo.tcb.snd.sent.len());
    }
    solo.tcb.check().unwrap();
    // What is acknowledged whole still counts.
    let sacked = solo.tcb.snd.sacked;
    let ack = solo.ack(1, 1).sacks(&[block(&solo, 500, 600)]);
    solo.gets(ack).unwrap();
    assert!(solo.tcb.snd.sacked > sacked + 90_000);
}

#[test]
fn a_report_of_the_copy_that_a_move_sent_makes_it_no_more_patient() {
    let mut solo = Solo::established(sacking());
    solo.write(5000);
    solo.segments();
    solo.tcb.kick();
    assert_eq!(solo.sent(), ["1+1000 ack 1"]);
    solo.now += 10 * MS;
    let ack = solo.ack(1, 5001).sacks(&[block(&solo, 0, 1)]);
    solo.gets(ack).unwrap();
    assert_eq!(solo.tcb.rack.quarters, 1);
}

#[test]
fn an_answer_after_hours_is_measured_as_what_is_believed() {
    let mut solo = Solo::established(sacking());
    for seq in [1, 1001] {
        solo.write(1000);
        solo.segments();
        // Nothing fired meanwhile: the host slept.
        solo.now += Duration::from_hours(3);
        solo.gets(solo.ack(1, seq + 1000)).unwrap();
        assert_eq!(solo.tcb.check(), Ok(()), "it can still move");
    }
}
