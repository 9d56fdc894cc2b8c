//! The handshake (RFC 9293 section 3.5) and its options.

use super::harness::{MS, MSS, Make, Solo, Start, flow, just_before, opening, plain, reversed};
use super::pair::Pair;
use crate::tcp::{Config, Control, Ending, Options, Reason, Segment, State, Tcb, Timestamps};
use crate::{Instant, Seq};

fn all_options() -> Config {
    Config { window_scaling: true, timestamps: true, sack: true, receive_buffer: 1 << 20, ..plain() }
}

#[test]
fn a_syn_offers_what_the_configuration_says() {
    for (config, expected) in [
        (plain(), Options { mss: Some(1000), ..Options::default() }),
        (
            all_options(),
            Options {
                mss: Some(1000),
                window_scale: Some(5),
                sack_permitted: true,
                timestamps: Some(Timestamps { value: 7000, echo: 0 }),
                ..Options::default()
            },
        ),
    ] {
        let mut solo = Solo::with(config, 1, 1);
        assert_eq!(solo.segments()[0].options, expected);
    }
}

#[test]
fn an_answer_offers_nothing_that_was_not_offered() {
    for index in 0..8 {
        let [scale, sack, timestamps] = [index & 1 != 0, index & 2 != 0, index & 4 != 0];
        let offers = Config { window_scaling: scale, sack, timestamps, ..all_options() };
        let solo = Solo::with(offers, 1000, 5000);
        let mut tcb = Tcb::accept(flow(), &solo.syn(1000), &opening(all_options(), Seq(9)), solo.now);
        let answer = tcb.poll_transmit(solo.path, solo.now).unwrap();
        assert_eq!(answer.options.window_scale.is_some(), scale);
        assert_eq!(answer.options.sack_permitted, sack);
        assert_eq!(answer.options.timestamps.map(|it| it.echo), timestamps.then_some(100));
        assert_eq!((tcb.rcv.wscale, tcb.snd.wscale), if scale { (5, 3) } else { (0, 0) });
    }
}

#[test]
fn a_shift_beyond_fourteen_counts_as_fourteen() {
    let solo = Solo::with(all_options(), 1, 1);
    let mut syn = solo.syn(1000);
    syn.options.window_scale = Some(200);
    let tcb = Tcb::accept(flow(), &syn, &opening(all_options(), Seq(9)), solo.now);
    assert_eq!(tcb.snd.wscale, 14);
    tcb.check().unwrap();
}

#[test]
fn the_window_of_a_syn_is_not_scaled() {
    let mut solo = Solo::syn_received(all_options());
    assert_eq!(solo.tcb.snd.wnd, 60_000);
    solo.gets(solo.ack(1, 1).window(7)).unwrap();
    assert_eq!(solo.tcb.snd.wnd, 7 << 3);
}

#[test]
fn both_sides_may_open_at_once() {
    let mut pair = Pair::new(all_options(), all_options());
    let other = Tcb::connect(reversed(flow()), &opening(all_options(), Seq(77)), pair.now);
    pair.ends[1] = Some(other);
    pair.run(400);
    for tcb in pair.ends.iter().flatten() {
        assert_eq!(tcb.state, State::Established);
        assert_eq!(tcb.snd.unsent(), 0);
    }
}

#[test]
fn a_simultaneous_open_answers_with_its_syn() {
    let mut solo = Solo::syn_sent(plain());
    let syn = Segment { ack: None, ..solo.ack(0, 0).syn_bit() };
    solo.gets(syn).unwrap();
    assert_eq!(solo.sent(), ["SYN 0 ack 1"]);
    assert_eq!(solo.gets(solo.ack(0, 1).syn_bit()), Err(Reason::OutOfWindow));
    assert_eq!(solo.sent(), ["1 ack 1"]);
    solo.gets(solo.ack(1, 1)).unwrap();
    assert_eq!(solo.tcb.state, State::Established);
}

#[test]
fn a_syn_is_sent_again_with_growing_patience_and_then_given_up() {
    let mut solo = Solo::syn_sent(Config { syn_retries: 3, ..plain() });
    for seconds in [1, 2, 4] {
        assert_eq!(solo.wait(just_before(seconds * 1000 * MS)), [""; 0]);
        assert_eq!(solo.wait(MS), ["SYN 0"]);
    }
    assert_eq!(solo.wait(60_000 * MS), [""; 0]);
    assert_eq!(solo.tcb.state, State::Closed(Ending::TimedOut));
}

#[test]
fn data_after_a_syn_that_timed_out_starts_with_three_seconds() {
    // RFC 6298 section 5.7.
    let mut solo = Solo::syn_sent(plain());
    assert_eq!(solo.wait(1000 * MS), ["SYN 0"]);
    solo.gets(solo.ack(0, 1).syn_bit()).unwrap();
    solo.write(10);
    assert_eq!(solo.sent(), ["1+10 ack 1"]);
    assert_eq!(solo.wait(2999 * MS), [""; 0]);
    assert_eq!(solo.wait(MS), ["1+10 ack 1"]);
}

#[test]
fn a_timestamp_measures_even_a_syn_that_was_sent_again() {
    let mut solo = Solo::with(Config { timestamps: true, ..plain() }, 1000, 5000);
    solo.sent();
    assert_eq!(solo.wait(1000 * MS), ["SYN 0"]);
    solo.now += 30 * MS;
    let mut answer = solo.syn(1000);
    answer.ack = Some(solo.iss + 1_u32);
    answer.options.timestamps = Some(Timestamps { value: 100, echo: 8000 });
    solo.gets(answer).unwrap();
    assert_eq!(solo.tcb.rtt.smoothed, Some(30 * MS));
}

#[test]
fn the_initial_window_is_ten_segments_and_one_after_two_lost_syns() {
    for (timeouts, segments) in [(0, 10), (1, 10), (2, 1)] {
        let mut solo = Solo::syn_sent(plain());
        for nth in 0..timeouts {
            solo.wait((1000 << nth) * MS);
        }
        solo.gets(solo.ack(0, 1).syn_bit()).unwrap();
        solo.write(100_000);
        assert_eq!(solo.segments().len(), segments, "after {timeouts} timeouts");
    }
}

#[test]
fn a_tiny_mss_is_not_believed() {
    let solo = Solo::with(plain(), 1, 1);
    let tcb = Tcb::accept(flow(), &solo.syn(1), &opening(plain(), Seq(9)), solo.now);
    assert_eq!(tcb.snd.mss, 48);
}

#[test]
fn without_an_mss_option_the_default_of_ipv6_holds() {
    let solo = Solo::with(plain(), 1, 1);
    let mut syn = solo.syn(1);
    syn.options.mss = None;
    let tcb = Tcb::accept(flow(), &syn, &opening(plain(), Seq(9)), solo.now);
    assert_eq!(tcb.snd.mss, 1220);
}

#[test]
fn finish_before_the_handshake_is_over_sends_what_was_written_and_then_a_fin() {
    let mut solo = Solo::syn_received(plain());
    solo.write(5);
    solo.tcb.finish();
    assert_eq!(solo.sent(), [""; 0]);
    solo.gets(solo.ack(1, 1)).unwrap();
    assert_eq!(solo.sent(), ["FIN 1+5 ack 1"]);
    assert_eq!(solo.tcb.state, State::FinWait1);
}

#[test]
fn a_connection_that_has_come_round_the_circle_is_not_taken_for_a_new_one() {
    // SND.UNA comes to the ISN again after 2^32 octets.
    let mut solo = Solo::established(Start { config: plain(), iss: 1000, irs: 5000 });
    solo.tcb.snd.iss = solo.tcb.snd.nxt + 500_u32;
    solo.write(MSS);
    assert_eq!(solo.segments().len(), 1);
    let ack = Segment { ack: Some(solo.tcb.snd.iss), ..solo.ack(1, 1) };
    solo.gets(ack).unwrap();
    assert_eq!(solo.tcb.snd.queue.len(), 500);
    assert_eq!(solo.tcb.snd.end(), solo.tcb.snd.nxt);
    let ack = Segment { ack: Some(solo.tcb.snd.nxt), ..solo.ack(1, 1) };
    solo.gets(ack).unwrap();
    assert_eq!(solo.tcb.snd.queue.len(), 0);
}

#[test]
fn a_reset_in_the_handshake_refuses() {
    let mut solo = Solo::syn_sent(plain());
    let reset = Segment::bare(Seq(0), Some(solo.iss + 1_u32), Some(Control::Rst));
    solo.gets(reset).unwrap();
    assert_eq!(solo.tcb.state, State::Closed(Ending::Refused));
    assert_eq!(solo.tcb.deadline(), None::<Instant>);
}
