//! What chance decides about a run.

use core::time::Duration;

use ferry_stack::Seq;
use ferry_stack::tcp::cc::Kind;
use ferry_stack::tcp::{Commit, Config, EcnPolicy, Flow, Opening};
use ferry_tests::rng::{PerMille, Rng};

use crate::commit::session::{DOWN, Side, UP};

/// What a scenario is about.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wants {
    pub(crate) commit: Commit,
    pub(crate) short: bool,
}

impl Wants {
    pub(crate) fn of(commit: Commit) -> Self {
        Self { commit, short: false }
    }
}

/// When a host dies.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Crash {
    At(Duration),
    Event(u64),
}

#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) rng: Rng,
    pub(crate) commit: Commit,
    pub(crate) client: Config,
    pub(crate) server: Config,
    pub(crate) up: Side,
    pub(crate) down: Side,
    pub(crate) crashes: Vec<Crash>,
    /// How long nobody knows of a death.
    pub(crate) detection: Duration,
    pub(crate) faults: PerMille,
    pub(crate) delay: Duration,
    /// How long a copy is under way at most, and how often one is lost.
    pub(crate) copying: Duration,
    pub(crate) copies_lost: PerMille,
    /// How often a copy is made after an event, rather than some time later.
    pub(crate) eager: PerMille,
    /// How often the session is busy when something happens.
    pub(crate) busy: PerMille,
    /// The same of the client's application.
    pub(crate) lazy: PerMille,
    /// Octets that applications take and give at once.
    pub(crate) at_once: usize,
    pub(crate) iss: [u32; 2],
    pub(crate) backups: usize,
}

pub(crate) fn plan(seed: u64, wants: Wants) -> Plan {
    let mut rng = Rng::new(seed);
    let most = if wants.short { 300 } else { 60_000 };
    let (up, down) = (rng.scaled(0..=most), rng.scaled(0..=most));
    let ahead = rng.pick(&[0, 100, 5_000, 1 << 40]);
    // Who finishes first: the client, the server, or whoever comes to it.
    let (second, patient) = rng.pick(&[(true, false), (false, true), (false, false)]);
    let side = |writes, reads, total, expected, ahead, second| Side {
        writes,
        reads,
        total,
        expected,
        ahead,
        second,
        written: 0,
        read: 0,
        finished: false,
        ended: false,
    };
    let faults = rng.pick(&[0, 0, 10, 50]);
    // A short connection is over before long, but much happens in it.
    let crash = |rng: &mut Rng| {
        if wants.short { Crash::Event(rng.within(1..=60)) } else { Crash::At(rng.millis(0..=1500)) }
    };
    let crashes = (0..rng.within(1..=3)).map(|_| crash(&mut rng)).collect();
    let near_wrap = |rng: &mut Rng| {
        let before = rng.within(0..=most + 2);
        let any = rng.any() >> 32;
        let number = u32::try_from(if rng.chance(500) { before } else { any }).unwrap_or(0);
        0_u32.wrapping_sub(number)
    };
    Plan {
        commit: wants.commit,
        client: config(&mut rng),
        server: config(&mut rng),
        // At most one of the two waits for the other to write first.
        up: side(UP, DOWN, up, down, 1 << 40, patient),
        down: side(DOWN, UP, down, up, ahead, second),
        crashes,
        detection: rng.millis(0..=300),
        faults,
        delay: rng.millis(0..=30),
        copying: rng.millis(0..=40),
        copies_lost: rng.pick(&[0, 0, 200]),
        eager: rng.pick(&[1000, 500, 50]),
        busy: rng.pick(&[0, 300, 800]),
        lazy: rng.pick(&[0, 300, 900]),
        at_once: usize::try_from(rng.scaled(1..=20_000)).unwrap_or(1).max(if wants.short { 1 } else { 64 }),
        iss: [near_wrap(&mut rng), near_wrap(&mut rng)],
        backups: if rng.chance(500) { 1 } else { 2 },
        rng,
    }
}

pub(crate) fn without_crashes(plan: Plan) -> Plan {
    Plan { crashes: Vec::new(), ..plan }
}

pub(crate) fn crash_at(plan: Plan, event: u64) -> Plan {
    Plan { crashes: vec![Crash::Event(event)], ..plan }
}

fn config(rng: &mut Rng) -> Config {
    let buffer = |rng: &mut Rng| u32::try_from(rng.scaled(2_000..=200_000)).unwrap_or(2_000);
    Config {
        mss: u16::try_from(rng.within(500..=1440)).unwrap_or(500),
        send_buffer: buffer(rng),
        receive_buffer: buffer(rng),
        timestamps: rng.chance(700),
        sack: rng.chance(700),
        window_scaling: rng.chance(700),
        nodelay: rng.chance(500),
        ecn: rng.pick(&[EcnPolicy::Off, EcnPolicy::On]),
        congestion: rng.pick(&[Kind::NewReno, Kind::Cubic]),
        initial_window: rng.pick(&[2, 10]),
        ..Config::default()
    }
}

/// From the server's point of view.
pub(crate) fn flow() -> Flow {
    let end = |address: &str| address.parse().expect("an address");
    Flow { local: end("[2001:db8::1]:80"), remote: end("[2001:db8::2]:40000") }
}

pub(crate) fn opening(config: Config, iss: u32) -> Opening {
    Opening {
        config: config.into(),
        iss: Seq(iss),
        first_timestamp: 0_u32.wrapping_sub(3000),
        flow_label: 1,
        path_mtu: 1500,
    }
}
