//! What is sent and when: windows, Nagle, silly windows, segment sizes.

use alloc::vec::Vec;

use super::harness::{MS, MSS, Make, Solo, plain};
use super::pair::cut;
use crate::Seq;
use crate::tcp::cc::Kind;
use crate::tcp::{Config, Path, Segment};

const OFFLOAD: Path = Path { overhead: 0, segmentation: true };

#[test]
fn small_writes_wait_while_anything_is_in_flight() {
    let mut solo = Solo::established(plain());
    solo.write(10);
    assert_eq!(solo.sent(), ["1+10 ack 1"]);
    solo.write(10);
    solo.write(10);
    assert_eq!(solo.sent(), [""; 0]);
    solo.write(MSS);
    assert_eq!(solo.sent(), ["11+1000 ack 1"]);
    solo.gets(solo.ack(1, 1011)).unwrap();
    assert_eq!(solo.sent(), ["1011+20 ack 1"]);
}

#[test]
fn without_nagle_small_writes_go_at_once() {
    let mut solo = Solo::established(Config { nodelay: true, ..plain() });
    solo.write(10);
    assert_eq!(solo.sent(), ["1+10 ack 1"]);
    solo.write(10);
    assert_eq!(solo.sent(), ["11+10 ack 1"]);
}

#[test]
fn the_last_octet_of_a_write_is_pushed() {
    let mut solo = Solo::established(plain());
    solo.write(2500);
    let pushed: Vec<_> = solo.segments().iter().map(|segment| segment.push).collect();
    assert_eq!(pushed, [false, false, true]);
}

#[test]
fn a_peer_window_that_is_almost_shut_gets_no_silly_segments() {
    // RFC 9293 section 3.8.6.2.1: nothing below a segment or half the largest window, but not for ever.
    let mut solo = Solo::established(plain());
    solo.gets(solo.ack(1, 1).window(300)).unwrap();
    solo.write(5000);
    assert_eq!(solo.sent(), [""; 0]);
    assert_eq!(solo.wait(199 * MS), [""; 0]);
    let sent = solo.wait(200 * MS);
    assert_eq!(sent, ["1+300 ack 1"], "the override timeout");
    solo.gets(solo.ack(1, 301).window(2000)).unwrap();
    assert_eq!(solo.sent(), ["301+1000 ack 1", "1301+1000 ack 1"]);
}

#[test]
fn a_peer_that_never_had_a_larger_window_gets_half_of_it() {
    let mut solo = Solo::syn_received(plain());
    solo.tcb.snd.max_wnd = 0;
    solo.gets(solo.ack(1, 1).window(600)).unwrap();
    solo.write(5000);
    assert_eq!(solo.sent(), ["1+600 ack 1"]);
    solo.gets(solo.ack(1, 601).window(600)).unwrap();
    assert_eq!(solo.sent(), ["601+600 ack 1"]);
}

#[test]
fn a_shut_window_is_probed_with_growing_patience_for_as_long_as_it_is_answered() {
    let mut solo = Solo::established(Config { retries: 3, max_rto: 8000 * MS, ..plain() });
    solo.gets(solo.ack(1, 1).window(0)).unwrap();
    solo.write(5000);
    let mut probes = 0;
    for _ in 0..1000 {
        let sent = solo.wait(500 * MS);
        assert!(sent.len() <= 2 && sent.iter().all(|probe| probe == "0 ack 1"), "{sent:?}");
        probes += sent.len();
        for _ in sent {
            solo.gets(solo.ack(1, 1).window(0)).unwrap();
        }
    }
    assert!((60..300).contains(&probes), "{probes} in 500 seconds");
    solo.gets(solo.ack(1, 1)).unwrap();
    assert_eq!(solo.sent().len(), 5);
    assert_eq!(solo.tcb.rtt.backoff, 0);
    solo.gets(solo.ack(1, 5001).window(0)).unwrap();
    solo.write(10);
    solo.wait(100_000 * MS);
    assert!(solo.tcb.state.is_closed(), "nobody answers any more");
}

#[test]
fn the_window_is_that_of_the_newest_segment() {
    let mut solo = Solo::established(plain());
    solo.write(5000);
    assert_eq!(solo.segments().len(), 5);
    solo.gets(solo.ack(5, 3001).window(9000).data(b"behind a gap")).unwrap();
    assert_eq!((solo.tcb.snd.wnd, solo.tcb.snd.wl2), (9000, solo.iss + 3001_u32));
    solo.gets(solo.ack(1, 2001).window(100)).unwrap();
    solo.gets(solo.ack(9, 2001).window(100)).unwrap();
    assert_eq!(solo.tcb.snd.wnd, 9000, "an acknowledgement from before says nothing");
    solo.gets(solo.ack(5, 3001).window(8000)).unwrap();
    assert_eq!(solo.tcb.snd.wnd, 8000);
}

#[test]
fn no_segment_is_longer_than_the_path_whatever_options_it_carries() {
    let every = Config { mss: 1440, sack: true, timestamps: true, window_scaling: true, ..plain() };
    for overhead in [0, 40, 64] {
        for islands in 0..4 {
            for segmentation in [false, true] {
                let mut solo = Solo::established(every);
                solo.path = Path { overhead, segmentation };
                for nth in 0..islands {
                    solo.gets(solo.ack(11 + nth * 10, 1).data(b"abc")).unwrap();
                }
                solo.sent();
                solo.tcb.rcv.duplicate = (islands == 3).then(|| (solo.irs, solo.irs + 1_u32));
                solo.write(40_000);
                let segments = solo.segments();
                for piece in segments.iter().flat_map(cut) {
                    let len = 60 + piece.options.wire_len() + piece.payload.len() + usize::from(overhead);
                    assert!(len <= 1500, "{len} with {islands} islands");
                    assert!(piece.payload.is_empty() || len > 1450, "{len} is not full");
                }
            }
        }
    }
}

#[test]
fn super_segments_are_whole_segments_and_fit_an_ipv6_packet() {
    let mut solo = Solo::established(Config { initial_window: 200, ..plain() });
    solo.path = OFFLOAD;
    solo.gets(solo.ack(1, 1).window(u16::MAX)).unwrap();
    solo.write(100_000);
    let sent = solo.segments();
    assert_eq!(sent[0].payload.len(), 65_000);
    assert_eq!(sent[0].gso, Some(1000));
    let total: usize = sent.iter().map(|segment| segment.payload.len()).sum();
    assert!((65_000..=65_535).contains(&total));
}

#[test]
fn a_segment_larger_than_a_super_segment_is_still_sent() {
    let mut solo = Solo::established(Config { mss: 65_475, ..plain() });
    (solo.tcb.snd.mss, solo.tcb.snd.path_mtu) = (65_475, u16::MAX);
    solo.tcb.congestion.cwnd = 1 << 20;
    solo.gets(solo.ack(1, 1).window(u16::MAX)).unwrap();
    solo.path = OFFLOAD;
    solo.write(65_500);
    assert_eq!(solo.sent()[0], "1+65475 ack 1");
}

#[test]
fn a_packet_too_big_resends_in_smaller_segments_without_slowing_down() {
    let mut solo = Solo::established(Config { mss: 1440, ..plain() });
    solo.write(4 * 1440);
    assert_eq!(solo.segments().len(), 4);
    let cwnd = solo.tcb.congestion.cwnd;
    solo.tcb.packet_too_big(1280, solo.iss + 1_u32, solo.now);
    assert_eq!(
        solo.sent(),
        [
            "1+1220 ack 1",
            "1221+220 ack 1",
            "1441+1220 ack 1",
            "2661+220 ack 1",
            "2881+1220 ack 1",
            "4101+220 ack 1",
            "4321+1220 ack 1",
            "5541+220 ack 1"
        ]
    );
    assert_eq!(solo.tcb.congestion.cwnd, cwnd);
}

#[test]
fn a_packet_too_big_that_cannot_be_true_changes_nothing() {
    let cases = [
        ("about what was never sent", 1300, 4001_u16),
        ("about what is long acknowledged", 1300, 0),
        ("larger", 1500, 1001),
        ("smaller than any link", 1279, 1001),
    ];
    for (name, mtu, quoted) in cases {
        let mut solo = Solo::established(Config { mss: 1440, ..plain() });
        solo.write(4000);
        solo.sent();
        solo.gets(solo.ack(1, 1001)).unwrap();
        solo.sent();
        solo.tcb.packet_too_big(mtu, solo.iss + u32::from(quoted), solo.now);
        assert_eq!(solo.tcb.snd.path_mtu, 1500, "{name}");
        assert_eq!(solo.sent(), [""; 0], "{name}");
    }
}

#[test]
fn a_new_connection_sends_ten_segments_and_doubles_each_round_trip() {
    for congestion in [Kind::NewReno, Kind::Cubic] {
        let mut solo = Solo::established(Config { congestion, ..plain() });
        solo.write(200_000);
        let mut acked = 1;
        for expected in [10, 20, 40] {
            let sent = solo.segments();
            assert_eq!(sent.len(), expected, "{congestion:?}");
            solo.now += 100 * MS;
            for _ in sent.chunks(2) {
                acked += 2000;
                solo.gets(solo.ack(1, acked)).unwrap();
            }
        }
    }
}

#[test]
fn an_application_that_writes_little_does_not_widen_the_window() {
    let mut solo = Solo::established(plain());
    for nth in 0..200 {
        solo.write(MSS);
        assert_eq!(solo.sent().len(), 1);
        solo.now += 100 * MS;
        solo.gets(solo.ack(1, 1001 + nth * 1000)).unwrap();
    }
    assert_eq!(solo.tcb.congestion.cwnd, 10_000);
}

#[test]
fn after_a_silence_the_window_starts_anew() {
    let mut solo = Solo::established(plain());
    solo.tcb.congestion.cwnd = 40_000;
    solo.now += 60_000 * MS;
    solo.write(50_000);
    assert_eq!(solo.segments().len(), 10);
}

#[test]
fn sending_again_breaks_the_silence_too() {
    let mut solo = Solo::established(Config { sack: true, ..plain() });
    solo.tcb.congestion.cwnd = 40_000;
    solo.write(10);
    solo.sent();
    assert_eq!(solo.wait(300 * MS), ["1+10 ack 1"], "the tail loss probe");
    solo.gets(solo.ack(1, 11)).unwrap();
    solo.write(50_000);
    assert_eq!(solo.segments().len(), 40);
}

#[test]
fn acknowledgements_of_a_super_segment_in_its_middle_split_it() {
    let mut solo = Solo::established(Config { sack: true, ..plain() });
    solo.path = OFFLOAD;
    solo.write(10_000);
    assert_eq!(solo.sent(), ["1+10000 ack 1"]);
    let at = |n: u32| -> Seq { solo.iss + n };
    let blocks = [(at(4001), at(5001)), (at(7001), at(9501))];
    let ack = solo.ack(1, 1501).sacks(&blocks);
    solo.gets(ack).unwrap();
    let marks: Vec<_> = solo.tcb.snd.sent.iter().map(|it| (it.seq.0 - solo.iss.0, it.len)).collect();
    assert_eq!(marks, [(1501, 2500), (4001, 1000), (5001, 2000), (7001, 2500), (9501, 500)]);
    assert_eq!(
        (solo.tcb.snd.in_flight, solo.tcb.snd.sacked),
        (500, 3500),
        "three segments beyond: the holes are lost"
    );
    let lost: Vec<Segment> = solo.segments();
    assert_eq!(solo.show(&lost[0]), "1501+2500 ack 1");
    assert_eq!(lost[0].gso, Some(1000));
    solo.gets(solo.ack(1, 10_001)).unwrap();
    assert_eq!((solo.tcb.snd.in_flight, solo.tcb.snd.sacked, solo.tcb.snd.sent.len()), (0, 0, 0));
}
