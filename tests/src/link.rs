//! Links: what happens to a frame between two ends of a cable.

use core::time::Duration;

use bytes::{Bytes, BytesMut};
use ferry_stack::ip::{self, Packet};
use ferry_stack::{Checksum, Frame, Instant, Offload, checksum, gso};

use crate::rng::{PerMille, Rng};

/// Octets of an Ethernet header.
pub const ETHERNET: u16 = 14;

/// What one direction of a link does to frames.
#[derive(Clone, Debug)]
pub struct Quality {
    /// How long each frame is under way.
    pub delay: Duration,
    /// Octets that pass in a second; `None`: any number at once.
    pub octets_per_second: Option<u64>,
    /// Octets that may wait for their turn.
    pub queue: u64,
    /// Octets that wait before packets are marked (RFC 3168 section 5). What cannot be marked waits.
    pub marking: Option<u64>,
    /// The largest packet that passes; longer ones vanish without a word. Octets, as are seen on the wire.
    pub limit: Option<u16>,
    /// Frames that vanish.
    pub loss: PerMille,
    /// Frames that arrive twice.
    pub duplication: PerMille,
    /// Frames that are overtaken by others.
    pub reordering: PerMille,
    /// By how much an overtaken frame is late at most.
    pub lateness: Duration,
    /// Frames in which a bit flips.
    pub corruption: PerMille,
    /// Frames with a Mobility Header that vanish, perhaps in a tunnel.
    pub mobility_loss: PerMille,
}

impl Default for Quality {
    /// A short, clean link.
    fn default() -> Self {
        Self {
            delay: Duration::from_micros(50),
            octets_per_second: None,
            queue: 1 << 20,
            marking: None,
            limit: None,
            loss: 0,
            duplication: 0,
            reordering: 0,
            lateness: Duration::from_millis(5),
            corruption: 0,
            mobility_loss: 0,
        }
    }
}

impl Quality {
    /// The same link without faults. It stays as long, as slow and as narrow as it is.
    pub fn mended(&self) -> Self {
        Self { loss: 0, duplication: 0, reordering: 0, corruption: 0, mobility_loss: 0, ..self.clone() }
    }
}

/// What a link counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Frames that arrived, each copy counted.
    pub frames: u64,
    /// Octets of those.
    pub octets: u64,
    /// Frames lost by chance.
    pub lost: u64,
    /// Frames lost because too many waited.
    pub overflowed: u64,
    /// The most octets that ever waited.
    pub longest: u64,
    /// Frames that were marked because many waited.
    pub marked: u64,
    /// Frames that vanished because they were too long.
    pub swallowed: u64,
    /// Frames that arrived twice.
    pub duplicated: u64,
    /// Frames that arrived late.
    pub late: u64,
    /// Frames in which a bit flipped.
    pub corrupted: u64,
}

impl core::ops::AddAssign for Passed {
    fn add_assign(&mut self, other: Self) {
        self.frames += other.frames;
        self.octets += other.octets;
        self.lost += other.lost;
        self.overflowed += other.overflowed;
        self.longest = self.longest.max(other.longest);
        self.marked += other.marked;
        self.swallowed += other.swallowed;
        self.duplicated += other.duplicated;
        self.late += other.late;
        self.corrupted += other.corrupted;
    }
}

/// Whether a frame carries a Mobility Header, perhaps behind extension headers or in a tunnel.
fn is_mobility(frame: &Frame) -> bool {
    const NEXT_HEADER: usize = 6;
    let packet = frame.head.get(usize::from(ETHERNET)..).unwrap_or_default();
    let (mut next, mut at) = (packet.get(NEXT_HEADER).copied(), ip::HEADER_LEN);
    loop {
        match next {
            Some(ip::MOBILITY) => return true,
            Some(ip::IPV6) => (next, at) = (packet.get(at + NEXT_HEADER).copied(), at + ip::HEADER_LEN),
            // Routing, destination options: both are of 24 octets where Mobile IPv6 puts them.
            Some(43 | 60) => (next, at) = (packet.get(at).copied(), at + 24),
            _ => return false,
        }
    }
}

/// One direction of a link.
#[derive(Clone, Debug)]
pub struct Pipe {
    /// What it does.
    pub quality: Quality,
    /// What it did.
    pub passed: Passed,
    rng: Rng,
    /// When the last frame that waits has passed the bottleneck.
    busy_until: Instant,
}

impl Pipe {
    /// An empty one.
    pub fn new(quality: Quality, rng: Rng) -> Self {
        Self { quality, passed: Passed::default(), rng, busy_until: Instant::ZERO }
    }

    /// Takes a frame; gives back what arrives at the other end, and when.
    pub fn carry(&mut self, frame: &Frame, now: Instant) -> Vec<(Instant, Frame)> {
        if self.quality.limit.is_some_and(|limit| frame.len() > usize::from(limit + ETHERNET)) {
            self.passed.swallowed += 1;
            return Vec::new();
        }
        let Some((passed, waiting)) = self.queue(frame, now) else {
            self.passed.overflowed += 1;
            return Vec::new();
        };
        self.passed.longest = self.passed.longest.max(waiting);
        let full = self.quality.marking.is_some_and(|most| waiting > most);
        let marked = if full { marked(frame) } else { None };
        self.passed.marked += u64::from(marked.is_some());
        let frame = marked.as_ref().unwrap_or(frame);
        let mut arrivals = Vec::new();
        let Quality { loss, mobility_loss, .. } = self.quality;
        let loss = if is_mobility(frame) { loss.max(mobility_loss) } else { loss };
        let copies = 1 + u64::from(self.rng.chance(self.quality.duplication));
        self.passed.duplicated += copies - 1;
        for _ in 0..copies {
            if self.rng.chance(loss) {
                self.passed.lost += 1;
                continue;
            }
            self.passed.frames += 1;
            self.passed.octets += frame.len() as u64;
            let frame = self.maybe_corrupted(frame.clone());
            arrivals.push((passed + self.quality.delay + self.lateness(), frame));
        }
        arrivals
    }

    /// When the frame is through the bottleneck, and the octets that wait before it; `None` if it finds no room.
    fn queue(&mut self, frame: &Frame, now: Instant) -> Option<(Instant, u64)> {
        let Some(rate) = self.quality.octets_per_second else { return Some((now, 0)) };
        let nanos = |octets: u64| octets.saturating_mul(1_000_000_000) / rate.max(1);
        let start = self.busy_until.max(now);
        let wait = start.until(now);
        if wait > Duration::from_nanos(nanos(self.quality.queue)) {
            return None;
        }
        self.busy_until = start + Duration::from_nanos(nanos(frame.len() as u64));
        let waiting = wait.as_nanos() * u128::from(rate) / 1_000_000_000;
        Some((self.busy_until, u64::try_from(waiting).unwrap_or(u64::MAX)))
    }

    fn lateness(&mut self) -> Duration {
        if !self.rng.chance(self.quality.reordering) {
            return Duration::ZERO;
        }
        self.passed.late += 1;
        let most = u64::try_from(self.quality.lateness.as_nanos()).unwrap_or(u64::MAX);
        Duration::from_nanos(self.rng.within(1..=most.max(1)))
    }

    /// Clears one bit. A bit that is set could cancel out in a checksum with one that is cleared elsewhere on the
    /// way; cleared ones only add up. A frame whose checksum was left to the hardware has not met any wire yet.
    fn maybe_corrupted(&mut self, frame: Frame) -> Frame {
        if frame.offload.checksum != Checksum::Complete || !self.rng.chance(self.quality.corruption) {
            return frame;
        }
        self.passed.corrupted += 1;
        let mut octets = BytesMut::from(&frame.contiguous().head[..]);
        let start = self.rng.index(octets.len());
        let at = (start..octets.len()).chain(0..start).find(|at| octets[*at] != 0).unwrap_or(start);
        let set: Vec<u8> = (0..8).map(|bit| 1 << bit).filter(|bit| octets[at] & bit != 0).collect();
        octets[at] &= !self.rng.pick(&set);
        Frame::received(octets.freeze())
    }
}

/// What a network card does to a frame before it is on the wire: cuts super-segments, completes checksums.
pub fn finished(frame: Frame) -> Vec<Frame> {
    if frame.offload == Offload::default() {
        return vec![frame];
    }
    let (ethernet, packet) = opened(frame);
    let segments: Vec<Packet> = match packet.offload.gso {
        Some(gso) => gso::segments(&packet, gso.size).collect(),
        None => vec![packet],
    };
    let closed = |mut packet: Packet| {
        checksum::complete(&mut packet);
        let head = [&ethernet[..], &packet.head[..]].concat();
        Frame { head: head.into(), body: packet.body, offload: Offload::default() }
    };
    segments.into_iter().map(closed).collect()
}

/// The same frame, saying that it met congestion (RFC 3168 section 5), if its sender knows what that means.
fn marked(frame: &Frame) -> Option<Frame> {
    const IPV6: [u8; 2] = [0x86, 0xdd];
    let ethernet = usize::from(ETHERNET);
    let mut head = BytesMut::from(&frame.head[..]);
    if head.get(ethernet - 2..ethernet) != Some(&IPV6) {
        return None;
    }
    let ecn = head.get_mut(ethernet + 1).filter(|octet| **octet & 0x30 != 0)?;
    *ecn |= 0x30;
    Some(Frame { head: head.freeze(), ..frame.clone() })
}

/// Whether this is a neighbour solicitation or advertisement (RFC 4861).
pub fn is_discovery(frame: &Frame) -> bool {
    let octet = |at: usize| {
        let head = frame.head.len();
        if at < head { frame.head.get(at) } else { frame.body.get(at - head) }
    };
    let at = usize::from(ETHERNET);
    octet(at + 6) == Some(&58) && matches!(octet(at + 40), Some(135 | 136))
}

/// The Ethernet header, and the packet behind it.
fn opened(frame: Frame) -> (Bytes, Packet) {
    let Frame { mut head, body, offload } = frame.contiguous();
    let ethernet = head.split_to(usize::from(ETHERNET).min(head.len()));
    let checksum = match offload.checksum {
        Checksum::Partial { start, offset } => {
            Checksum::Partial { start: start.saturating_sub(ETHERNET), offset }
        }
        whole => whole,
    };
    (ethernet, Packet { head: head.to_vec(), body, offload: Offload { checksum, ..offload } })
}
