//! What the simulated world found wrong, each as the sentence that was false.

use alloc::vec;

use super::harness::*;
use crate::tcp::Config;

fn scaled() -> Config {
    Config { window_scaling: true, receive_buffer: u32::from(u16::MAX) << 2, nodelay: true, ..plain() }
}

#[test]
fn a_peer_that_sends_less_than_a_unit_at_a_time_cannot_push_the_window_on_for_ever() {
    let mut solo = Solo::established(scaled());
    assert_eq!(solo.tcb.rcv.wscale, 2);
    let buffer = solo.tcb.config.receive_buffer as usize;
    let mut seq = 1;
    let mut fill = |solo: &mut Solo, octets: usize| {
        let result = solo.gets(solo.ack(seq, 1).data(&vec![b'x'; octets]));
        seq += u32::try_from(octets).unwrap();
        solo.sent();
        result
    };
    while solo.tcb.readable() + 1000 < buffer {
        fill(&mut solo, 1000).unwrap();
    }
    let taken = (0..buffer).take_while(|_| fill(&mut solo, 1).is_ok()).count();
    assert!(taken < buffer / 2, "{taken} octets more than fit");
    assert_eq!(solo.tcb.rcv.nxt, solo.tcb.rcv.adv, "the window is shut");
}
