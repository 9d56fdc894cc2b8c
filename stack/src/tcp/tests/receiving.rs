//! What arrives: order, windows, acknowledgements, timestamps.

use core::time::Duration;

use super::harness::{MS, MSS, Make, Solo, plain};
use crate::tcp::{Config, Reason, Segment, Timestamps};

fn calm(mut solo: Solo) -> Solo {
    solo.tcb.rcv.quick = 0;
    solo
}

fn full(solo: &Solo, seq: u32) -> Segment {
    solo.ack(seq, 1).data(&[7; MSS])
}

#[test]
fn the_first_segments_are_acknowledged_at_once() {
    let mut solo = Solo::established(plain());
    for nth in 0..16 {
        solo.gets(full(&solo, 1 + nth * 1000)).unwrap();
        assert_eq!(solo.sent(), [alloc::format!("1 ack {}", 1001 + nth * 1000)]);
    }
    solo.gets(full(&solo, 16_001)).unwrap();
    assert_eq!(solo.sent(), [""; 0]);
}

#[test]
fn every_second_full_segment_is_acknowledged_and_a_single_one_in_time() {
    let mut solo = calm(Solo::established(plain()));
    solo.gets(full(&solo, 1)).unwrap();
    assert_eq!(solo.sent(), [""; 0]);
    solo.gets(full(&solo, 1001)).unwrap();
    assert_eq!(solo.sent(), ["1 ack 2001"]);
    solo.gets(full(&solo, 2001)).unwrap();
    assert_eq!(solo.wait(39 * MS), [""; 0]);
    assert_eq!(solo.wait(MS), ["1 ack 3001"]);
    assert_eq!(solo.wait(1000 * MS), [""; 0]);
}

#[test]
fn every_second_segment_of_a_small_path_is_acknowledged_too() {
    // 1280 octets less headers and timestamps: RFC 9293 section 3.8.6.3 counts what the sender calls full.
    let mut solo = calm(Solo::established(plain()));
    for (seq, acks) in [(1, 0), (801, 1), (1601, 0), (2401, 1)] {
        solo.gets(solo.ack(seq, 1).data(&[7; 800])).unwrap();
        assert_eq!(solo.sent().len(), acks, "{seq}");
    }
}

#[test]
fn a_merged_arrival_is_acknowledged_at_once() {
    let mut solo = calm(Solo::established(plain()));
    let merged = Segment { gso: Some(1000), ..solo.ack(1, 1).data(&[7; 3000]) };
    solo.gets(merged).unwrap();
    assert_eq!(solo.tcb.rcv.seen_mss, 1000);
    assert_eq!(solo.sent(), ["1 ack 3001"]);
}

#[test]
fn octets_out_of_order_are_reported_at_once_newest_first() {
    let mut solo = calm(Solo::established(Config { sack: true, ..plain() }));
    solo.gets(solo.ack(11, 1).data(b"abc")).unwrap();
    assert_eq!(solo.sent(), ["1 ack 1 sack 11-14"]);
    solo.gets(solo.ack(21, 1).data(b"abc")).unwrap();
    assert_eq!(solo.sent(), ["1 ack 1 sack 21-24 sack 11-14"]);
    solo.gets(solo.ack(31, 1).data(b"abc")).unwrap();
    solo.sent();
    solo.gets(solo.ack(14, 1).data(b"d")).unwrap();
    assert_eq!(solo.sent(), ["1 ack 1 sack 11-15 sack 31-34 sack 21-24"]);
    solo.gets(solo.ack(1, 1).data(b"0123456789")).unwrap();
    assert_eq!(solo.sent(), ["1 ack 15 sack 31-34 sack 21-24"]);
}

#[test]
fn duplicates_are_reported_once() {
    let mut solo = calm(Solo::established(Config { sack: true, ..plain() }));
    solo.gets(solo.ack(1, 1).data(b"abcdef")).unwrap();
    solo.wait(40 * MS);
    assert_eq!(solo.gets(solo.ack(2, 1).data(b"bc")), Err(Reason::OutOfWindow));
    assert_eq!(solo.sent(), ["1 ack 7 sack 2-4"]);
    solo.gets(solo.ack(21, 1).data(b"abc")).unwrap();
    solo.sent();
    solo.gets(solo.ack(21, 1).data(b"abc")).unwrap();
    assert_eq!(solo.sent(), ["1 ack 7 sack 21-24 sack 21-24"]);
    solo.gets(solo.ack(31, 1).data(b"abc")).unwrap();
    assert_eq!(solo.sent(), ["1 ack 7 sack 31-34 sack 21-24"]);
}

#[test]
fn duplicates_in_part_are_reported_too() {
    let mut solo = calm(Solo::established(Config { sack: true, ..plain() }));
    solo.gets(solo.ack(1, 1).data(b"abcdef")).unwrap();
    solo.wait(40 * MS);
    solo.gets(solo.ack(5, 1).data(b"efgh")).unwrap();
    assert_eq!(solo.wait(40 * MS), ["1 ack 9 sack 5-7"], "partly old");
    solo.gets(solo.ack(21, 1).data(b"abc")).unwrap();
    solo.sent();
    solo.gets(solo.ack(22, 1).data(b"bcde")).unwrap();
    assert_eq!(solo.sent(), ["1 ack 9 sack 22-24 sack 21-26"], "partly in an island");
    solo.gets(solo.ack(9, 1).data(b"ijklmnopqrstuvwxyz")).unwrap();
    assert_eq!(solo.sent(), ["1 ack 27 sack 21-26"], "over an island");
}

#[test]
fn reading_nothing_sends_nothing() {
    // The window of a SYN is not scaled, so that there is much more to offer from the beginning.
    let mut solo = Solo::established(Config { window_scaling: true, receive_buffer: 1 << 20, ..plain() });
    assert_eq!(solo.read_all(), b"");
    assert_eq!(solo.sent(), [""; 0]);
}

#[test]
fn an_acknowledgement_of_octets_that_were_never_sent_is_challenged() {
    let mut solo = Solo::established(plain());
    let of_nothing = Segment { ack: Some(solo.iss - 1), ..solo.ack(1, 1).data(b"abc") };
    assert_eq!(solo.gets(of_nothing), Err(Reason::AckTooOld));
    assert_eq!(solo.sent(), ["1 ack 1"]);
}

#[test]
fn octets_for_which_there_is_no_island_left_are_not_reported_as_received() {
    let mut solo = calm(Solo::established(Config { sack: true, ..plain() }));
    for nth in 0..512 {
        solo.gets(solo.ack(3 + 2 * nth, 1).data(b"x")).unwrap();
        solo.sent();
    }
    solo.gets(solo.ack(3000, 1).data(b"x")).unwrap();
    assert_eq!(solo.tcb.rcv.duplicate, None);
    assert!(!solo.sent()[0].contains("3000"));
}

#[test]
fn overlaps_do_not_change_what_was_received() {
    let mut solo = Solo::established(plain());
    solo.gets(solo.ack(3, 1).data(b"cde")).unwrap();
    solo.gets(solo.ack(2, 1).data(b"XXXXXf")).unwrap();
    solo.gets(solo.ack(1, 1).data(b"aYYYYYYg")).unwrap();
    assert_eq!(solo.read_all(), b"aYYYYYYg");
    let mut solo = Solo::established(plain());
    solo.gets(solo.ack(3, 1).data(b"cde")).unwrap();
    solo.gets(solo.ack(1, 1).data(b"ab")).unwrap();
    assert_eq!(solo.read_all(), b"abcde");
}

#[test]
fn what_lies_beyond_the_window_is_cut_off() {
    let mut solo = Solo::established(Config { receive_buffer: 5, ..plain() });
    solo.gets(solo.ack(1, 1).data(b"abcdefgh")).unwrap();
    let sent = solo.segments();
    assert_eq!((solo.show(&sent[0]), sent[0].window), ("1 ack 6".into(), 0));
    assert_eq!(solo.gets(solo.ack(6, 1).data(b"f")), Err(Reason::OutOfWindow));
    assert_eq!(solo.sent(), ["1 ack 6"], "a window probe is answered");
    assert_eq!(solo.read_all(), b"abcde");
    let sent = solo.segments();
    assert_eq!(sent[0].window, 5, "an opened window is told");
}

#[test]
fn a_window_opens_only_far_enough_to_be_worth_it() {
    // RFC 9293 section 3.8.6.2.2: by a segment, or half the buffer.
    let mut solo = calm(Solo::established(Config { receive_buffer: 10_000, ..plain() }));
    for nth in 0..10 {
        solo.gets(full(&solo, 1 + nth * 1000)).unwrap();
    }
    assert_eq!(solo.segments().last().unwrap().window, 0);
    solo.tcb.read(999);
    assert_eq!(solo.sent(), [""; 0]);
    solo.tcb.read(1);
    assert_eq!(solo.segments()[0].window, 1000);
}

#[test]
fn reading_without_a_window_scale_does_not_send() {
    let mut solo = calm(Solo::established(Config { receive_buffer: 4 << 20, ..plain() }));
    for nth in 0..4 {
        solo.gets(full(&solo, 1 + nth * 1000)).unwrap();
    }
    assert_eq!(solo.sent().len(), 1);
    while !solo.tcb.read(100).is_empty() {
        assert_eq!(solo.sent(), [""; 0]);
    }
}

#[test]
fn small_segments_do_not_move_the_window_beyond_the_buffer() {
    // Rounding to units of 2^14 could promise up to 16383 octets more with each acknowledgement.
    let config = Config { window_scaling: true, receive_buffer: 1 << 29, ..plain() };
    let mut solo = Solo::established(config);
    let buffer = 1_usize << 29;
    for at in 1..20_000 {
        solo.gets(solo.ack(at, 1).data(b"x")).unwrap();
        solo.tcb.rcv.quick = 1;
        solo.sent();
    }
    let limit = solo.irs + 1_u32 + (buffer + buffer / 8);
    assert!(solo.tcb.rcv.adv.at_or_before(limit));
}

#[test]
fn answers_to_unacceptable_segments_are_limited() {
    // RFC 5961 section 7.
    let mut solo = Solo::established(plain());
    for nth in 0..100 {
        assert_eq!(solo.gets(solo.ack(9, 1).rst()), Err(Reason::BlindReset));
        assert_eq!(solo.sent().len(), usize::from(nth < 10), "{nth}");
    }
    solo.now += 1000 * MS;
    assert_eq!(solo.gets(solo.ack(9, 1).syn_bit()), Err(Reason::UnexpectedSyn));
    assert_eq!(solo.sent(), ["1 ack 1"]);
}

fn stamped(solo: &Solo, seq: u32, value: u32, octets: &[u8]) -> Segment {
    let mut segment = solo.ack(seq, 1).data(octets);
    segment.options.timestamps = Some(Timestamps { value, echo: 0 });
    segment
}

fn echo(solo: &mut Solo) -> u32 {
    solo.segments().last().unwrap().options.timestamps.unwrap().echo
}

#[test]
fn an_old_timestamp_keeps_octets_out() {
    let mut solo = Solo::established(Config { timestamps: true, ..plain() });
    solo.gets(stamped(&solo, 1, 200, b"a")).unwrap();
    assert_eq!(echo(&mut solo), 200);
    assert_eq!(solo.gets(stamped(&solo, 2, 199, b"b")), Err(Reason::Paws));
    assert_eq!(solo.sent(), ["1 ack 2"]);
    let mut bare = solo.ack(2, 1).data(b"b");
    bare.options.timestamps = None;
    assert_eq!(solo.gets(bare.clone()), Err(Reason::MissingTimestamp));
    assert_eq!(solo.sent(), [""; 0]);
    assert_eq!(solo.gets(bare.clone().syn_bit()), Err(Reason::UnexpectedSyn));
    assert_eq!(solo.sent(), ["1 ack 2"]);
    solo.gets(Segment { payload: bytes::Bytes::new(), ..bare }.rst()).unwrap();
    assert!(solo.tcb.state.is_closed());
}

#[test]
fn the_timestamp_of_the_first_unacknowledged_segment_is_echoed() {
    // RFC 7323 section 4.3: with delayed acknowledgements, and across a gap.
    let mut solo = calm(Solo::established(Config { timestamps: true, ..plain() }));
    solo.gets(stamped(&solo, 1, 201, &[0; MSS - 12])).unwrap();
    solo.gets(stamped(&solo, 989, 202, &[0; MSS - 12])).unwrap();
    assert_eq!(echo(&mut solo), 201);
    solo.gets(stamped(&solo, 3000, 203, b"c")).unwrap();
    assert_eq!(echo(&mut solo), 201);
    solo.gets(stamped(&solo, 1977, 204, &[0; 1023])).unwrap();
    assert_eq!(echo(&mut solo), 204);
}

#[test]
fn after_24_days_of_silence_a_new_timestamp_is_taken() {
    let mut solo = Solo::established(Config { timestamps: true, ..plain() });
    solo.gets(stamped(&solo, 1, 200, b"a")).unwrap();
    solo.sent();
    solo.now += Duration::from_hours(25 * 24);
    let new = 200_u32.wrapping_add((1 << 31) + 5);
    solo.gets(stamped(&solo, 2, new, b"b")).unwrap();
    assert_eq!(echo(&mut solo), new);
    assert_eq!(solo.gets(stamped(&solo, 3, new - 1, b"c")), Err(Reason::Paws), "it protects again");
}
