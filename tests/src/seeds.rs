//! Running a scenario for many seeds: each failure prints the one command that replays it, and nothing that moved
//! nothing passes.

use std::io::Write as _;
use std::sync::Mutex;

/// What a scenario did, over one seed or many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Seeds that were run.
    pub seeds: u64,
    /// Events that happened.
    pub events: u64,
    /// Connections that ended as they should.
    pub connections: u64,
    /// Connections that a bug of the foreign stack left hanging.
    pub hung: u64,
    /// Connections handed from node to node.
    pub handoffs: u64,
    /// Handoffs that did not come to a move.
    pub refused: u64,
    /// Octets that the applications received and checked.
    pub octets: u64,
    /// Frames that links lost, by chance or because too many waited.
    pub lost: u64,
    /// Frames in which a bit flipped.
    pub corrupted: u64,
    /// Segments with octets that were sent before.
    pub repeated: u64,
    /// Packets that a router said were too big.
    pub too_big: u64,
    /// Packets that vanished because they were too big.
    pub swallowed: u64,
    /// Packets that were marked because many waited.
    pub marked: u64,
    /// Messages between nodes that were lost, doubled or late.
    pub faults: u64,
    /// Virtual time that passed, in milliseconds.
    pub virtual_ms: u64,
}

impl core::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.events += other.events;
        self.connections += other.connections;
        self.hung += other.hung;
        self.handoffs += other.handoffs;
        self.refused += other.refused;
        self.octets += other.octets;
        self.lost += other.lost;
        self.corrupted += other.corrupted;
        self.repeated += other.repeated;
        self.too_big += other.too_big;
        self.swallowed += other.swallowed;
        self.marked += other.marked;
        self.faults += other.faults;
        self.virtual_ms += other.virtual_ms;
    }
}

impl core::fmt::Display for Tally {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{:5} seeds {:6} connections {:6} handoffs {:7.1} MiB {:7} repeated {:6} lost {:5} corrupted \
             {:4} too big {:5} swallowed {:5} marked {:8} events {:8.1} virtual s",
            self.seeds,
            self.connections,
            self.handoffs,
            mebibytes(self.octets),
            self.repeated,
            self.lost,
            self.corrupted,
            self.too_big,
            self.swallowed,
            self.marked,
            self.events,
            seconds(self.virtual_ms),
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn mebibytes(octets: u64) -> f64 {
    octets as f64 / f64::from(1 << 20)
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn seconds(millis: u64) -> f64 {
    millis as f64 / 1000.0
}

/// What all scenarios of this process did so far.
static SUM: Mutex<(u32, Tally)> = Mutex::new((
    0,
    Tally {
        seeds: 0,
        events: 0,
        connections: 0,
        hung: 0,
        handoffs: 0,
        refused: 0,
        octets: 0,
        lost: 0,
        corrupted: 0,
        repeated: 0,
        too_big: 0,
        swallowed: 0,
        marked: 0,
        faults: 0,
        virtual_ms: 0,
    },
));

/// Prints the command that replays a seed, when its run panics.
struct Replay<'a> {
    test: &'a str,
    scenario: &'a str,
    seed: u64,
}

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self { test, scenario, seed } = self;
            eprintln!(
                "replay: FERRY_SEED={seed} cargo test -p ferry-tests --test {test} -- --exact {scenario} --nocapture"
            );
        }
    }
}

/// Runs a scenario for the seeds 0 to `seeds`, and prints what it did in all. The scenario gets the seed, and
/// whether it is to print what happens.
///
/// With `FERRY_SEED=n` in the environment only that seed is run, with the log. `FERRY_SEEDS=n` runs n times as
/// many, the seeds that follow.
pub fn run(test: &str, scenario: &str, seeds: u64, play: impl FnMut(u64, bool) -> Tally) -> Tally {
    each(test, scenario, 0..seeds * times(), play)
}

/// Runs a scenario for each of these seeds, or only for the one in `FERRY_SEED`.
pub fn each(
    test: &str,
    scenario: &str,
    seeds: impl IntoIterator<Item = u64>,
    mut play: impl FnMut(u64, bool) -> Tally,
) -> Tally {
    let mut sum = Tally::default();
    let mut one = |seed, log| {
        let _replay = Replay { test, scenario, seed };
        sum += Tally { seeds: 1, ..play(seed, log) };
    };
    match chosen() {
        Some(seed) => one(seed, true),
        None => seeds.into_iter().for_each(|seed| one(seed, false)),
    }
    report(scenario, sum);
    sum
}

fn chosen() -> Option<u64> {
    std::env::var("FERRY_SEED").ok().and_then(|seed| seed.parse().ok())
}

/// How many times as many seeds are to be run as usual: `FERRY_SEEDS`.
pub fn times() -> u64 {
    std::env::var("FERRY_SEEDS").ok().and_then(|times| times.parse().ok()).unwrap_or(1)
}

/// Straight to the terminal: the test harness would swallow the output of what passes.
fn report(scenario: &str, sum: Tally) {
    let Ok(mut all) = SUM.lock() else { return };
    all.0 += 1;
    all.1 += sum;
    let mut terminal = std::io::stderr().lock();
    let _ = writeln!(terminal, "{scenario:46} {sum}");
    let _ = writeln!(terminal, "{:46} {}", format!("sum of {} scenarios", all.0), all.1);
}

/// Whether one seed is being replayed, so that what holds only over many need not hold.
pub fn replaying() -> bool {
    std::env::var_os("FERRY_SEED").is_some()
}
