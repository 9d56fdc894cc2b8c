//! The emulated link: two TAPs and a thread that moves frames between them with a delay, a rate and a queue.
//!
//! Ours, because not every kernel has `tc netem`, and because a seed must replay its losses. Segmentation offload
//! is off on these TAPs, so that captures show frames as a wire would carry them.

use core::num::NonZero;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use core::time::Duration;
use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::event::{PollFd, PollFlags, poll};
use serde::Serialize;

use crate::Result;
use crate::clock::{nanos, now_ns, pause, timespec};
use crate::error::Doing;

/// Frames are moved in beats of this length while any are under way: with a wake-up per frame, the emulation
/// would take the core that it measures.
const BEAT: Duration = Duration::from_micros(50);
/// More than an MTU: without offload the kernel hands over nothing longer.
const MAX_FRAME: usize = 2048;
/// Frames taken from one side before the other has its turn.
const TURN: usize = 256;

/// How the link treats frames, the same in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Profile {
    /// One way, in microseconds.
    pub delay_us: u64,
    /// In Mbit/s.
    pub rate_mbit: u64,
    /// Octets that wait for their turn on the wire; more are dropped.
    pub queue_bytes: u64,
    /// The share of frames that are lost, from 0 to 1.
    pub loss: f64,
    /// The share of frames that are held up, so that others overtake them; from 0 to 1.
    pub reorder: f64,
    /// For how long, in microseconds.
    pub reorder_us: u64,
    /// Decides which.
    pub seed: u64,
}

impl Default for Profile {
    fn default() -> Self {
        Self::GOOD
    }
}

impl Profile {
    /// A path that only takes its time.
    pub const GOOD: Self = Self {
        delay_us: 1000,
        rate_mbit: 500,
        queue_bytes: 512 << 10,
        loss: 0.0,
        reorder: 0.0,
        reorder_us: 0,
        seed: 1,
    };

    /// How long a frame of this length occupies the wire.
    fn wire_ns(&self, length: usize) -> u64 {
        length as u64 * 8000 / self.rate_mbit.max(1)
    }
}

impl core::fmt::Display for Profile {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { delay_us, rate_mbit, queue_bytes, loss, reorder, reorder_us, seed: _ } = self;
        let queue = queue_bytes >> 10;
        write!(f, "{delay_us} µs one way, {rate_mbit} Mbit/s, queue {queue} KiB")?;
        if *loss > 0.0 {
            write!(f, ", loss {loss}")?;
        }
        if *reorder > 0.0 { write!(f, ", {reorder} held up by {reorder_us} µs") } else { Ok(()) }
    }
}

/// What a router on the path does not let through, as some of the Internet's do not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Filter {
    /// Everything passes.
    #[default]
    None,
    /// Packets that begin with a routing header do not.
    Routing,
    /// Nor do those that begin with destination options.
    Extensions,
    /// Nothing passes, nor does what is on its way.
    Everything,
}

impl Filter {
    /// Whether a filter, as a number, stops an Ethernet frame.
    fn stops(filter: u8, frame: &[u8]) -> bool {
        const ROUTING: u8 = 43;
        const DESTINATION_OPTIONS: u8 = 60;
        let next = frame.get(20).filter(|_| frame[12..14] == [0x86, 0xdd]);
        let is = |one: Self| filter == one as u8;
        is(Self::Everything)
            || match next {
                Some(&ROUTING) => is(Self::Routing) || is(Self::Extensions),
                Some(&DESTINATION_OPTIONS) => is(Self::Extensions),
                _ => false,
            }
    }
}

/// What happened to frames, both directions together.
#[derive(Debug, Default)]
pub struct Counters {
    /// Delivered.
    pub delivered: AtomicU64,
    /// Dropped because the queue was full.
    pub overflowed: AtomicU64,
    /// Lost because the profile says so.
    pub lost: AtomicU64,
    /// Stopped by the filter.
    pub filtered: AtomicU64,
}

/// What can be changed about a running link.
#[derive(Debug)]
struct Settings {
    /// By the side that a frame comes from.
    filters: [AtomicU8; 2],
    delay_us: AtomicU64,
}

/// A running link. Dropping it stops the thread and takes both TAPs away.
#[derive(Debug)]
pub struct Link {
    counters: Arc<Counters>,
    set: Arc<Settings>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Link {
    /// Joins two TAPs, which must be attached with plain headers.
    pub fn start(one: File, other: File, profile: Profile) -> Result<Self> {
        Self::start_in(one, other, profile, false)
    }

    /// The same, for few frames whose times matter: it sleeps until the next one is due instead of looking after it in
    /// beats, which costs a wake-up for each.
    pub fn start_punctual(one: File, other: File, profile: Profile) -> Result<Self> {
        Self::start_in(one, other, profile, true)
    }

    fn start_in(one: File, other: File, profile: Profile, punctual: bool) -> Result<Self> {
        let (counters, stop) = (Arc::<Counters>::default(), Arc::<AtomicBool>::default());
        let filters = [AtomicU8::default(), AtomicU8::default()];
        let set = Arc::new(Settings { filters, delay_us: AtomicU64::new(profile.delay_us) });
        for tap in [&one, &other] {
            rustix::io::ioctl_fionbio(tap, true).doing("make a TAP non-blocking")?;
        }
        let mut wires = Wires {
            taps: [one, other],
            lanes: [Lane::default(), Lane::default()],
            random: fastrand::Rng::with_seed(profile.seed),
            spare: Vec::new(),
            profile,
            punctual,
            counters: Arc::clone(&counters),
            set: Arc::clone(&set),
        };
        let told = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("link".to_owned())
            .spawn(move || wires.run(&told))
            .doing("start the link's thread")?;
        Ok(Self { counters, set, stop, thread: Some(thread) })
    }

    /// What happened to frames so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// What does not pass from now on.
    pub fn set_filter(&self, filter: Filter) {
        for side in [0, 1] {
            self.set_filter_from(side, filter);
        }
    }

    /// What does not pass from now on of what comes from one side: 0 for the first TAP, 1 for the other.
    pub fn set_filter_from(&self, side: usize, filter: Filter) {
        self.set.filters[side].store(filter as u8, Ordering::Relaxed);
    }

    /// How long frames are on their way from now on, each way. Those that are under way keep their time.
    pub fn set_delay(&self, delay_us: u64) {
        self.set.delay_us.store(delay_us, Ordering::Relaxed);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The thread returns nothing; if it panicked, that was printed.
            drop(thread.join());
        }
    }
}

/// Frames under way in one direction.
#[derive(Default)]
struct Lane {
    /// With the time at which each is due, ascending.
    frames: VecDeque<(u64, Vec<u8>)>,
    /// When the wire will have taken all frames so far.
    free_at: u64,
}

struct Wires {
    taps: [File; 2],
    /// `lanes[i]` starts at `taps[i]`.
    lanes: [Lane; 2],
    profile: Profile,
    random: fastrand::Rng,
    /// Buffers to use again.
    spare: Vec<Vec<u8>>,
    counters: Arc<Counters>,
    set: Arc<Settings>,
    /// Whether to sleep until the next frame is due.
    punctual: bool,
}

impl Wires {
    fn run(&mut self, stop: &AtomicBool) {
        // Without it the kernel rounds every pause up by 50 µs. It is only a loss of precision if it fails.
        let _ = rustix::thread::set_current_timer_slack(NonZero::new(1));
        while !stop.load(Ordering::Relaxed) {
            for from in [0, 1] {
                self.take(from);
                self.deliver(from);
            }
            match self.lanes.iter().filter_map(|lane| lane.frames.front()).map(|(due, _)| *due).min() {
                None => self.wait(Duration::from_millis(100)),
                Some(due) if self.punctual => {
                    self.wait(
                        Duration::from_nanos(due.saturating_sub(now_ns())).min(Duration::from_millis(100)),
                    );
                }
                Some(_) => pause(BEAT),
            }
        }
    }

    fn wait(&self, most: Duration) {
        let [one, other] = &self.taps;
        let mut polled = [PollFd::new(one, PollFlags::IN), PollFd::new(other, PollFlags::IN)];
        // An error or a signal only means to look again.
        let _ = poll(&mut polled, Some(&timespec(most)));
    }

    fn is_stopped(&self, from: usize, frame: &[u8]) -> bool {
        let stopped = Filter::stops(self.set.filters[from].load(Ordering::Relaxed), frame);
        self.counters.filtered.fetch_add(u64::from(stopped), Ordering::Relaxed);
        stopped
    }

    fn take(&mut self, from: usize) {
        let now = now_ns();
        for _ in 0..TURN {
            let mut frame = self.spare.pop().unwrap_or_default();
            frame.resize(MAX_FRAME, 0);
            match (&self.taps[from]).read(&mut frame) {
                Ok(length) if length > 0 => {
                    frame.truncate(length);
                    self.admit(from, frame, now);
                }
                _ => return self.spare.push(frame),
            }
        }
    }

    fn admit(&mut self, from: usize, frame: Vec<u8>, now: u64) {
        if self.is_stopped(from, &frame) {
            return self.spare.push(frame);
        }
        let Self { lanes, profile, .. } = self;
        let lane = &mut lanes[from];
        let free_at = lane.free_at.max(now);
        let queued = (free_at - now) * profile.rate_mbit / 8000;
        if queued > profile.queue_bytes {
            self.counters.overflowed.fetch_add(1, Ordering::Relaxed);
            return self.spare.push(frame);
        }
        lane.free_at = free_at + profile.wire_ns(frame.len());
        if profile.loss > 0.0 && self.random.f64() < profile.loss {
            self.counters.lost.fetch_add(1, Ordering::Relaxed);
            return self.spare.push(frame);
        }
        let held = profile.reorder > 0.0 && self.random.f64() < profile.reorder;
        let delay_us = self.set.delay_us.load(Ordering::Relaxed) + if held { profile.reorder_us } else { 0 };
        let due = lane.free_at + nanos(Duration::from_micros(delay_us));
        let behind = lane.frames.iter().rev().take_while(|(other, _)| *other > due).count();
        lane.frames.insert(lane.frames.len() - behind, (due, frame));
    }

    fn deliver(&mut self, from: usize) {
        let now = now_ns();
        while self.lanes[from].frames.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, frame)) = self.lanes[from].frames.pop_front() else { break };
            // A TAP that is down refuses: as a wire that is not plugged in.
            if !self.is_stopped(from, &frame) && (&self.taps[1 - from]).write(&frame).is_ok() {
                self.counters.delivered.fetch_add(1, Ordering::Relaxed);
            }
            self.spare.push(frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wires(profile: Profile) -> Wires {
        let null = || File::open("/dev/null").expect("a device that every machine has");
        Wires {
            taps: [null(), null()],
            lanes: [Lane::default(), Lane::default()],
            random: fastrand::Rng::with_seed(profile.seed),
            spare: Vec::new(),
            punctual: false,
            counters: Arc::default(),
            set: Arc::new(Settings {
                filters: [AtomicU8::default(), AtomicU8::default()],
                delay_us: AtomicU64::new(profile.delay_us),
            }),
            profile,
        }
    }

    #[test]
    fn a_filter_stops_what_it_names_and_nothing_else() {
        let frame = |next| [&[0; 12], [0x86, 0xdd, 0x60, 0, 0, 0, 0, 0, next].as_slice(), &[0; 40]].concat();
        for (filter, passing) in [
            (Filter::None, vec![6, 43, 60, 135]),
            (Filter::Routing, vec![6, 60, 135]),
            (Filter::Extensions, vec![6, 135]),
            (Filter::Everything, vec![]),
        ] {
            let mut wires = wires(Profile::default());
            wires.set.filters[0].store(filter as u8, Ordering::Relaxed);
            for next in [6, 43, 60, 135] {
                wires.admit(0, frame(next), 0);
            }
            let passed: Vec<_> = wires.lanes[0].frames.iter().map(|(_, frame)| frame[20]).collect();
            assert_eq!(passed, passing, "{filter:?}");
        }
    }

    #[test]
    fn frames_follow_each_other_at_the_rate_of_the_link() {
        let mut wires = wires(Profile { rate_mbit: 100, delay_us: 1000, ..Profile::default() });
        for _ in 0..3 {
            wires.admit(0, vec![0; 1250], 0);
        }
        // 1 250 octets take 100 µs at 100 Mbit/s.
        let due: Vec<_> = wires.lanes[0].frames.iter().map(|(due, _)| *due).collect();
        assert_eq!(due, [1_100_000, 1_200_000, 1_300_000]);
        assert!(wires.lanes[1].frames.is_empty());
    }

    #[test]
    fn a_frame_that_finds_the_queue_full_is_dropped() {
        let mut wires = wires(Profile { rate_mbit: 100, queue_bytes: 2500, ..Profile::default() });
        for _ in 0..5 {
            wires.admit(0, vec![0; 1250], 0);
        }
        assert_eq!(wires.lanes[0].frames.len(), 3, "one on the wire and two that wait");
        assert_eq!(wires.counters.overflowed.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn a_frame_that_is_held_up_is_overtaken_and_the_others_stay_in_order() {
        let profile = Profile { rate_mbit: 100, reorder: 0.1, reorder_us: 250, ..Profile::default() };
        let mut wires = wires(profile);
        for nth in 0..100_u32 {
            wires.admit(0, [nth.to_be_bytes().to_vec(), vec![0; 1246]].concat(), 0);
        }
        let lane = &wires.lanes[0].frames;
        assert!(lane.iter().is_sorted_by_key(|(due, _)| *due));
        let order: Vec<u32> = lane
            .iter()
            .map(|(_, frame)| u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]))
            .collect();
        // Frames are 100 µs apart: whoever is held up comes after the next two, and nobody is lost.
        let held: Vec<u32> =
            (0..98).filter(|nth| order.iter().position(|at| at == nth) > Some(*nth as usize)).collect();
        assert!((3..30).contains(&held.len()), "{order:?}");
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..100).collect::<Vec<_>>());
        let punctual: Vec<u32> = order.into_iter().filter(|nth| !held.contains(nth)).collect();
        assert!(punctual.is_sorted(), "{punctual:?}");
    }

    #[test]
    fn the_same_seed_loses_the_same_frames() {
        let survivors = |seed| {
            let mut wires = wires(Profile { loss: 0.1, seed, queue_bytes: u64::MAX, ..Profile::default() });
            for nth in 0..1000_u32 {
                wires.admit(0, nth.to_be_bytes().to_vec(), 0);
            }
            wires.lanes[0].frames.iter().map(|(_, frame)| frame.clone()).collect::<Vec<_>>()
        };
        assert_eq!(survivors(7), survivors(7));
        assert_ne!(survivors(7), survivors(8));
        assert!((850..950).contains(&survivors(7).len()));
    }
}
