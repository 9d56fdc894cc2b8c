//! Congestion that is told, not felt.

use super::harness::{MS, Make, Solo, flow, opening, plain};
use crate::tcp::{Codepoint, Config, EcnPolicy, Segment, Tcb};
use crate::{Instant, Seq};

fn ecn(policy: EcnPolicy) -> Config {
    Config { ecn: policy, sack: true, ..plain() }
}

fn setup(syn: Segment) -> Segment {
    Segment { ece: true, cwr: syn.ack.is_none(), ..syn }
}

/// An established connection on which both sides know ECN.
fn capable() -> Solo {
    let mut solo = Solo::with(ecn(EcnPolicy::Accept), 1000, 5000);
    let syn = setup(solo.syn(1000));
    solo.tcb = Tcb::accept(flow(), &syn, &opening(ecn(EcnPolicy::Accept), Seq(1000)), solo.now);
    let answer = solo.poll().unwrap();
    assert!(answer.ece && !answer.cwr && answer.codepoint == Codepoint::NotEct);
    solo.now += 10 * MS;
    solo.gets(solo.ack(1, 1)).unwrap();
    solo
}

fn marked(segment: Segment) -> Segment {
    Segment { codepoint: Codepoint::Ce, ..segment }
}

fn echo(segment: Segment) -> Segment {
    Segment { ece: true, ..segment }
}

#[test]
fn who_asks_gets_ecn_unless_it_is_off() {
    for (policy, asks, gets) in [
        (EcnPolicy::Off, true, false),
        (EcnPolicy::Accept, true, true),
        (EcnPolicy::Accept, false, false),
        (EcnPolicy::On, true, true),
    ] {
        let solo = Solo::with(ecn(policy), 1000, 5000);
        let syn = if asks { setup(solo.syn(1000)) } else { solo.syn(1000) };
        let mut tcb = Tcb::accept(flow(), &syn, &opening(ecn(policy), Seq(1000)), solo.now);
        assert_eq!(tcb.ecn.is_some(), gets, "{policy:?}");
        assert_eq!(tcb.poll_transmit(solo.path, solo.now).unwrap().ece, gets);
    }
}

#[test]
fn we_ask_once_and_take_the_answer() {
    for (ece, cwr, gets) in [(true, false, true), (true, true, false), (false, false, false)] {
        let mut solo = Solo::with(ecn(EcnPolicy::On), 1000, 5000);
        let syn = solo.poll().unwrap();
        assert!(syn.ece && syn.cwr && syn.codepoint == Codepoint::NotEct);
        let answer = Segment { ack: Some(solo.iss + 1_u32), ece, cwr, ..solo.syn(1000) };
        solo.gets(answer).unwrap();
        assert_eq!(solo.tcb.ecn.is_some(), gets);
    }
    let mut solo = Solo::with(ecn(EcnPolicy::Accept), 1000, 5000);
    assert!(!solo.poll().unwrap().ece);
}

#[test]
fn a_syn_that_is_sent_again_asks_no_more() {
    let mut solo = Solo::with(ecn(EcnPolicy::On), 1000, 5000);
    solo.poll().unwrap();
    solo.now = solo.tcb.deadline().unwrap();
    solo.tcb.handle_timeout(solo.now);
    let syn = solo.poll().unwrap();
    assert!(!syn.ece && !syn.cwr);
    // An answer to the first comes too late.
    let answer = Segment { ack: Some(solo.iss + 1_u32), ..solo.syn(1000) };
    solo.gets(Segment { ece: true, ..answer }).unwrap();
    assert_eq!(solo.tcb.ecn, None);
}

#[test]
fn only_new_octets_may_be_marked() {
    let mut solo = capable();
    solo.write(3000);
    let sent = solo.segments();
    assert!(sent.iter().all(|segment| segment.codepoint == Codepoint::Ect0), "{sent:?}");
    solo.gets(solo.ack(1, 1).data(b"x")).unwrap();
    assert_eq!(solo.poll().unwrap().codepoint, Codepoint::NotEct, "an acknowledgement");
    solo.now += 20 * MS;
    let block = (solo.iss + 1001_u32, solo.iss + 3001_u32);
    solo.gets(solo.ack(2, 1).sacks(&[block])).unwrap();
    solo.now += 20 * MS;
    solo.tcb.handle_timeout(solo.now);
    let again = solo.poll().unwrap();
    assert_eq!((again.seq, again.codepoint), (solo.iss + 1_u32, Codepoint::NotEct), "octets sent again");
}

#[test]
fn a_mark_is_echoed_until_the_other_side_has_slowed_down() {
    let mut solo = capable();
    solo.gets(marked(solo.ack(1, 1)).data(b"ab")).unwrap();
    assert!(solo.poll().unwrap().ece);
    solo.gets(solo.ack(3, 1).data(b"cd")).unwrap();
    assert!(solo.poll().unwrap().ece, "still");
    solo.gets(Segment { cwr: true, ..solo.ack(5, 1).data(b"ef") }).unwrap();
    assert!(!solo.poll().unwrap().ece);
    solo.gets(Segment { cwr: true, ..marked(solo.ack(7, 1)).data(b"gh") }).unwrap();
    assert!(solo.poll().unwrap().ece, "a mark again");
}

#[test]
fn what_lies_outside_of_the_window_and_bare_acknowledgements_carry_no_mark() {
    let mut solo = capable();
    solo.gets(marked(solo.ack(1, 1))).unwrap();
    assert!(solo.gets(marked(solo.ack(60_000, 1)).data(b"ab")).is_err());
    assert!(!solo.tcb.ecn.unwrap().echo);
}

#[test]
fn an_echo_slows_down_once_in_a_window() {
    let mut solo = capable();
    solo.tcb.congestion.cwnd = 10_000;
    solo.write(40_000);
    assert_eq!(solo.segments().len(), 10);
    solo.gets(echo(solo.ack(1, 1001))).unwrap();
    assert_eq!((solo.tcb.congestion.cwnd, solo.tcb.congestion.ssthresh), (7000, 7000));
    for segments in 2..=10 {
        solo.gets(echo(solo.ack(1, 1 + segments * 1000))).unwrap();
        solo.segments();
        assert_eq!(
            (solo.tcb.congestion.cwnd, solo.tcb.congestion.ssthresh),
            (7000, 7000),
            "no growth either"
        );
    }
    assert_eq!(solo.tcb.snd.retransmitted, 0);
    // What was sent since is told of again.
    solo.gets(echo(solo.ack(1, 11_001))).unwrap();
    assert!(solo.tcb.congestion.ssthresh < 7000);
}

#[test]
fn the_first_new_octets_say_that_the_window_was_reduced() {
    let mut solo = capable();
    solo.tcb.congestion.cwnd = 10_000;
    solo.write(40_000);
    solo.segments();
    solo.gets(echo(solo.ack(1, 8001))).unwrap();
    let cwr: alloc::vec::Vec<_> = solo.segments().iter().map(|segment| segment.cwr).collect();
    assert!(cwr.len() > 1 && cwr[0] && !cwr[1..].contains(&true), "{cwr:?}");
}

#[test]
fn without_agreement_an_echo_means_nothing() {
    let mut solo = Solo::established(ecn(EcnPolicy::Accept));
    solo.write(5000);
    let before = solo.tcb.congestion.clone();
    assert!(solo.segments().iter().all(|segment| segment.codepoint == Codepoint::NotEct));
    solo.gets(echo(solo.ack(1, 1))).unwrap();
    assert_eq!(solo.tcb.congestion, before);
    solo.gets(marked(solo.ack(1, 1)).data(b"ab")).unwrap();
    assert!(!solo.poll().unwrap().ece);
}

#[test]
fn a_connection_that_moves_still_owes_the_echo() {
    let mut solo = capable();
    solo.gets(marked(solo.ack(1, 1)).data(b"ab")).unwrap();
    let there = Instant::from_millis(77_000);
    solo.tcb = solo.tcb.freeze(solo.now).thaw(there);
    solo.now = there;
    assert!(solo.poll().unwrap().ece);
}
