//! The way of messages between two nodes.

use core::time::Duration;

use bytes::Bytes;
use ferry_stack::Instant;

use crate::rng::{PerMille, Rng};

/// What one direction of a peer link does to messages.
#[derive(Clone, Debug)]
pub struct Manner {
    /// How long each message is under way.
    pub delay: Duration,
    /// Octets that pass in a second.
    pub octets_per_second: u64,
    /// Messages that vanish. (A link that drops what finds no room in its queue.)
    pub loss: PerMille,
    /// Messages that arrive twice.
    pub duplication: PerMille,
    /// Messages that are overtaken by others.
    pub reordering: PerMille,
    /// By how much an overtaken message is late at most.
    pub lateness: Duration,
}

impl Default for Manner {
    /// A short link that keeps everything, in order.
    fn default() -> Self {
        Self {
            delay: Duration::from_micros(100),
            octets_per_second: 1 << 30,
            loss: 0,
            duplication: 0,
            reordering: 0,
            lateness: Duration::from_millis(50),
        }
    }
}

/// One direction of a peer link.
#[derive(Clone, Debug)]
pub struct Channel {
    /// What it does.
    pub manner: Manner,
    /// Whether it is up.
    pub up: bool,
    /// How often it has broken.
    pub life: u32,
    /// Messages lost, doubled or late so far.
    pub faults: u64,
    /// Messages that wait for the way to be whole again.
    pub stuck: Vec<Bytes>,
    rng: Rng,
    busy_until: Instant,
}

impl Channel {
    /// A link that is down.
    pub fn new(manner: Manner, rng: Rng) -> Self {
        Self { manner, up: false, life: 0, faults: 0, stuck: Vec::new(), rng, busy_until: Instant::ZERO }
    }

    /// It breaks: what is under way is lost.
    pub fn cut_off(&mut self) {
        self.up = false;
        self.life += 1;
        self.stuck.clear();
    }

    /// Nothing goes on before then.
    pub fn delay_until(&mut self, then: Instant) {
        self.busy_until = self.busy_until.max(then);
    }

    /// When a message arrives that is sent now: never, once, or twice.
    pub fn carry(&mut self, octets: usize, now: Instant) -> Vec<Instant> {
        if !self.up {
            return Vec::new();
        }
        let nanos = (octets as u64).saturating_mul(1_000_000_000) / self.manner.octets_per_second.max(1);
        self.busy_until = self.busy_until.max(now) + Duration::from_nanos(nanos);
        let mut arrivals = Vec::new();
        let copies = 1 + u64::from(self.rng.chance(self.manner.duplication));
        self.faults += copies - 1;
        for _ in 0..copies {
            if self.rng.chance(self.manner.loss) {
                self.faults += 1;
                continue;
            }
            arrivals.push(self.busy_until + self.manner.delay + self.lateness());
        }
        arrivals
    }

    fn lateness(&mut self) -> Duration {
        if !self.rng.chance(self.manner.reordering) {
            return Duration::ZERO;
        }
        self.faults += 1;
        let most = u64::try_from(self.manner.lateness.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.rng.within(1..=most.max(1)))
    }

    /// Ends all faults.
    pub fn mend(&mut self) {
        self.manner = Manner { loss: 0, duplication: 0, reordering: 0, ..self.manner.clone() };
    }
}
