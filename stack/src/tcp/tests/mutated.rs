//! Bytes from another host are peer input: whatever passes `check` must not make the engine panic.

use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::harness::{MS, Make, Solo, plain};
use crate::tcp::cc::Kind;
use crate::tcp::tcb::Recovery;
use crate::tcp::{Broken, Commit, Config, KeepAlive, Reason, Segment, State, Tcb};
use crate::{Instant, Seq};

/// Connections in the middle of things, with as many fields set as can be at once.
fn samples() -> Vec<Tcb> {
    let kinds = [Kind::NewReno, Kind::Cubic];
    let mut samples: Vec<Tcb> =
        kinds.into_iter().flat_map(|kind| [true, false].map(|sack| busy(kind, sack))).collect();
    let states: [fn(Config) -> Solo; 9] = [
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
    samples.extend(states.into_iter().map(|state| state(plain()).tcb));
    samples
}

fn busy(congestion: Kind, sack: bool) -> Tcb {
    let keep_alive = Some(KeepAlive { idle: 1000 * MS, interval: 100 * MS, count: 3 });
    let config = Config { sack, timestamps: true, window_scaling: true, congestion, keep_alive, ..plain() };
    let mut solo = Solo::established(config);
    solo.write(30_000);
    solo.segments();
    solo.now += 20 * MS;
    solo.gets(solo.ack(1, 1).data(b"some octets")).unwrap();
    solo.gets(solo.ack(20, 1).data(b"an island")).unwrap();
    let first = solo.iss + 1_u32;
    let blocks = [(first + 988_u32, first + 1976_u32), (first + 2964_u32, first + 5000_u32)];
    for _ in 0..4 {
        let ack = solo.ack(12, 1);
        solo.gets(if sack { ack.sacks(&blocks) } else { ack }).unwrap();
        solo.now += MS;
    }
    solo.poll();
    solo.tcb.finish();
    solo.tcb
}

/// Calls whatever can be called, for a while.
fn exercise(tcb: Tcb<Duration>, script: &[(u8, u32, u16)]) {
    let mut now = Instant::from_millis(50_000);
    let mut tcb = tcb.thaw(now);
    tcb.kick();
    for &(action, number, small) in script {
        act(&mut tcb, action, number, small, now);
        now += Duration::from_micros(u64::from(number % 50_000));
        for _ in 0..40 {
            let path = crate::tcp::Path { overhead: small % 300, segmentation: action % 2 == 0 };
            let Some(segment) = tcb.poll_transmit(path, now) else { break };
            drop(segment.emit(&tcb.flow, tcb.flow_label, true));
        }
        if let Some(at) = tcb.deadline().filter(|_| action % 3 == 0) {
            now = now.max(at);
            tcb.handle_timeout(now);
        }
    }
    drop(tcb.freeze(now).thaw(Instant::ZERO));
}

fn act(tcb: &mut Tcb, action: u8, number: u32, small: u16, now: Instant) {
    match action % 12 {
        0 => drop(tcb.read(usize::from(small))),
        1 => drop(tcb.write(Bytes::from(alloc::vec![1; usize::from(small)]))),
        2 => tcb.finish(),
        3 => tcb.packet_too_big(small, tcb.snd.una, now),
        4 => match number % 4 {
            0 => tcb.unhold(),
            1 => tcb.hold(if small % 2 == 0 { Commit::Strict } else { Commit::Regenerate }),
            _ => tcb.release(tcb.point()),
        },
        _ => {
            let _: Result<(), Reason> = tcb.receive(&segment(tcb, action, number, small), now);
        }
    }
}

/// A segment that has a chance to be acceptable.
fn segment(tcb: &Tcb, action: u8, number: u32, small: u16) -> Segment {
    let ack = tcb.snd.una + number % (tcb.snd.outstanding() + 1);
    let mut segment = Segment::bare(tcb.rcv.nxt + u32::from(action / 64) * 7, Some(ack), None);
    segment.window = small;
    if let Some(ours) = &tcb.timestamps {
        let value = ours.recent.wrapping_add(number % 2);
        segment.options.timestamps = Some(crate::tcp::Timestamps { value, echo: number });
    }
    segment.options.sack[0] = Some((ack + number % 3000, ack + u32::from(small)));
    segment.options.sack[1] = Some((Seq(number), tcb.snd.nxt));
    match action % 5 {
        0 => segment.data(&alloc::vec![7; usize::from(small % 2000)]),
        1 => segment.data(b"x").fin(),
        2 if number.is_multiple_of(9) => segment.rst(),
        3 if number.is_multiple_of(7) => segment.syn_bit(),
        _ => segment,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn whatever_passes_the_check_makes_nothing_panic(
        pick in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop_oneof![Just(0xffu8), Just(0), Just(0x80), any::<u8>()]), 0..4),
        script in prop::collection::vec((any::<u8>(), any::<u32>(), any::<u16>()), 0..40),
    ) {
        let samples = samples();
        let frozen = pick.get(&samples).clone().freeze(Instant::from_millis(1_000_500));
        let mut octets = postcard::to_allocvec(&frozen).unwrap();
        // Not the payload: to change it proves nothing.
        let fields: Vec<_> = (0..octets.len()).filter(|at| octets[*at] != b'x').collect();
        for (at, value) in changes {
            octets[*at.get(&fields)] = value;
        }
        if let Ok(tcb) = postcard::from_bytes::<Tcb<Duration>>(&octets)
            && tcb.check().is_ok()
        {
            exercise(tcb, &script);
        }
    }
}

type Lie = fn(&mut Tcb<Duration>);

#[test]
fn contradictions_are_refused() {
    let cases: [(&str, Lie, Broken); 24] = [
        ("more in flight than was sent", |tcb| tcb.snd.in_flight += 1, Broken::Sent),
        ("more at the other side than was sent", |tcb| tcb.snd.sacked += 1, Broken::Sent),
        ("a gap in what was sent", |tcb| tcb.snd.sent[1].seq = tcb.snd.sent[1].seq + 1_u32, Broken::Sent),
        ("a record of nothing", |tcb| tcb.snd.sent[1].len = 0, Broken::Sent),
        ("acknowledged beyond what was sent", |tcb| tcb.snd.una = tcb.snd.nxt + 1_u32, Broken::SendSpace),
        ("sent beyond what is queued", |tcb| tcb.snd.queue.advance(20_000), Broken::SendSpace),
        ("a FIN inside of the queue", |tcb| tcb.snd.fin = Some(tcb.snd.una), Broken::SendSpace),
        ("a window update of the future", |tcb| tcb.snd.wl2 = tcb.snd.nxt + 1_u32, Broken::SendSpace),
        ("a window above the largest", |tcb| tcb.snd.max_wnd = tcb.snd.wnd - 1, Broken::SendSpace),
        ("a SYN that is not acknowledged", |tcb| tcb.snd.iss = tcb.snd.una, Broken::SendSpace),
        ("a window that was taken back", |tcb| tcb.rcv.adv = tcb.rcv.nxt - 1, Broken::RecvSpace),
        ("islands beyond the window", |tcb| tcb.rcv.adv = tcb.rcv.nxt, Broken::RecvSpace),
        ("acknowledged beyond what came", |tcb| tcb.rcv.last_ack = tcb.rcv.nxt + 1_u32, Broken::RecvSpace),
        ("a FIN long ago", |tcb| tcb.rcv.fin = Some(tcb.rcv.nxt - 9), Broken::RecvSpace),
        ("a FIN beyond the window", |tcb| tcb.rcv.fin = Some(tcb.rcv.adv + 1_u32), Broken::RecvSpace),
        ("a shift of 15", |tcb| tcb.rcv.wscale = 15, Broken::Parameter),
        ("a tiny segment size", |tcb| tcb.snd.mss = 47, Broken::Parameter),
        ("a path below the least", |tcb| tcb.snd.path_mtu = 1279, Broken::Parameter),
        (
            "a round trip of a year",
            |tcb| tcb.rtt.smoothed = Some(Duration::from_hours(8760)),
            Broken::Parameter,
        ),
        ("an endless timeout", |tcb| tcb.config_mut().max_rto = Duration::MAX, Broken::Parameter),
        ("no window at all", |tcb| tcb.congestion.cwnd = 0, Broken::Congestion),
        (
            "a recovery that is over",
            |tcb| {
                tcb.recovery = Recovery::Loss { point: tcb.snd.una, doubt: crate::tcp::tcb::Doubt::Settled }
            },
            Broken::Congestion,
        ),
        ("established with a FIN", |tcb| tcb.state = State::Established, Broken::State),
        ("a FIN acknowledged that was not", |tcb| tcb.state = State::FinWait2 { until: None }, Broken::State),
    ];
    let frozen = busy(Kind::Cubic, true).freeze(Instant::from_millis(1_000_500));
    assert_eq!(frozen.check(), Ok(()));
    for (name, lie, broken) in cases {
        let mut tcb = frozen.clone();
        lie(&mut tcb);
        assert_eq!(tcb.check(), Err(broken), "{name}");
    }
}

#[test]
fn what_the_engine_makes_passes_the_check() {
    for tcb in samples() {
        let state = tcb.state;
        assert_eq!(tcb.freeze(Instant::from_millis(1_000_500)).check(), Ok(()), "{state}");
    }
}
