//! A connection goes on over a path that it does not know.

use core::time::Duration;

use super::harness::{MS, Solo, plain};
use crate::tcp::cc::{Kind, MAX_WINDOW};
use crate::tcp::tcb::Recovery;
use crate::tcp::{Config, PathPolicy, Tcb};

const MSS: u32 = 1000;

/// A connection that has learned much of its path.
fn learned(config: Config) -> Tcb {
    let mut tcb = Solo::established(config).tcb;
    tcb.congestion.cwnd = 100 * MSS;
    tcb.congestion.ssthresh = 80 * MSS;
    (0..20).for_each(|_| tcb.rtt.sample(300 * MS));
    tcb
}

#[test]
fn what_is_kept_is_what_the_policy_says() {
    for kind in [Kind::NewReno, Kind::Cubic] {
        let config = Config { congestion: kind, ..plain() };
        let initial = u32::from(config.initial_window) * learned(config).mss();
        for (policy, cwnd, ssthresh) in [
            (PathPolicy::Keep, 100 * MSS, 80 * MSS),
            (PathPolicy::Halve, 50 * MSS, 50 * MSS),
            (PathPolicy::InitialWindow, initial, MAX_WINDOW),
        ] {
            let mut tcb = learned(config);
            let now = tcb.snd.last;
            tcb.change_path(policy, now);
            assert_eq!((tcb.congestion.cwnd, tcb.congestion.ssthresh), (cwnd, ssthresh), "{policy:?}");
            assert_eq!(tcb.check(), Ok(()));
            assert_eq!(tcb.snd.path_since.is_some(), policy != PathPolicy::Keep);
        }
    }
}

#[test]
fn no_policy_makes_a_small_window_larger() {
    for policy in [PathPolicy::Keep, PathPolicy::Halve, PathPolicy::InitialWindow] {
        let mut tcb = learned(plain());
        tcb.congestion.cwnd = MSS;
        let now = tcb.snd.last;
        tcb.change_path(policy, now);
        assert_eq!(tcb.congestion.cwnd, MSS, "{policy:?}");
    }
}

#[test]
fn a_recovery_that_is_under_way_does_not_end_with_an_endless_window() {
    let mut tcb = learned(plain());
    tcb.recovery = Recovery::Fast { point: tcb.snd.nxt, flight: 9, delivered: 0, out: 0, inferred: 0 };
    let now = tcb.snd.last;
    tcb.change_path(PathPolicy::InitialWindow, now);
    assert!(tcb.congestion.ssthresh <= tcb.congestion.cwnd.max(2 * tcb.mss()));
}

#[test]
fn the_first_measurement_of_the_new_path_replaces_the_old_ones() {
    let mut solo = Solo::established(plain());
    (0..20).for_each(|_| solo.tcb.rtt.sample(300 * MS));
    let learned = solo.tcb.rtt.smoothed;
    assert!(learned > Some(250 * MS));
    // Sent over the old path.
    let before = solo.now;
    solo.now += 10 * MS;
    solo.tcb.change_path(PathPolicy::Halve, solo.now);
    solo.tcb.meet_path(before, solo.now);
    assert_eq!(solo.tcb.rtt.smoothed, learned);
    solo.tcb.meet_path(solo.now, solo.now);
    solo.tcb.rtt.sample(20 * MS);
    assert_eq!((solo.tcb.rtt.smoothed, solo.tcb.rtt.min), (Some(20 * MS), Some(20 * MS)));
    // Only the first does.
    solo.tcb.meet_path(solo.now, solo.now);
    solo.tcb.rtt.sample(100 * MS);
    assert_eq!(solo.tcb.rtt.smoothed, Some(Duration::from_millis(30)));
}
