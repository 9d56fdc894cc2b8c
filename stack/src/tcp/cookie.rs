//! SYN cookies (RFC 4987 section 3.6): handshakes that are kept nowhere but in the numbers they are made of.
//!
//! The low 23 bits of the clock in an initial sequence number (RFC 6528) give way to what only the group can say about
//! the SYN, plus an index of its segment size; so a cookie is still in order with other initial sequence numbers, as
//! far as 34 s matter. The other options lie in the low bits of the timestamp, if the client sends timestamps; without
//! them they are declined. Every host that has the secret, a clock that is about right, and the same
//! [`Config`](super::Config) takes the cookies of the others.

use core::time::Duration;

use super::isn::{Secret, ticks};
use super::segment::{Control, Flow, Options, Segment, Timestamps};
use crate::{Instant, Seq};

/// Bits of the clock that a cookie takes the place of: a slot is 2²³ ticks of 4 µs, that is, 33.6 s.
const BITS: u32 = 23;
/// Slots that a cookie lives on after the one that it was made in.
const OLDEST: u64 = 2;
/// How long a cookie is taken, at most: RFC 4987 asks for little more than a handshake takes.
pub(super) const LIFETIME: Duration = Duration::from_nanos((OLDEST + 1) << BITS).saturating_mul(4_000);
const _: () = assert!(LIFETIME.as_secs() < 120);

/// The segment sizes that fit a cookie: of the client's, the next smaller one is used.
const SIZES: [u16; 8] = [48, 536, 1220, 1360, 1400, 1420, 1440, 8940];

/// Bits of the timestamp that hold options.
const OPTION_BITS: u32 = 0x3f;
/// Where no window scale is: scales end at 14.
const NO_SCALE: u32 = 0x0f;
const SACK: u32 = 0x10;
const ECN: u32 = 0x20;

/// The cookie to answer `syn` with, in place of an initial sequence number. `now` is by the group's clock.
pub(super) fn bake(secret: &Secret, flow: &Flow, syn: &Segment, now: Instant) -> Seq {
    let slot = ticks(now) >> BITS;
    let size = syn.options.mss.unwrap_or(super::DEFAULT_MSS);
    let index = SIZES.partition_point(|known| *known <= size).saturating_sub(1);
    let low = word(secret.vouch(flow, syn.seq, slot)).wrapping_add(word(index as u64));
    secret.sequence_at(flow, slot << BITS) + (low & mask())
}

/// The SYN that a client must have sent whose segment returns a cookie; `None` if it is none, or too old.
pub(super) fn syn_of(secret: &Secret, flow: &Flow, segment: &Segment, now: Instant) -> Option<Segment> {
    let (cookie, irs) = (segment.ack? - 1, segment.seq - 1);
    let size = slots(now).find_map(|slot| {
        let low = low_bits(secret, flow, cookie, slot)?;
        let index = low.wrapping_sub(word(secret.vouch(flow, irs, slot))) & mask();
        SIZES.get(index as usize).copied()
    })?;
    let mut syn = Segment::bare(irs, None, Some(Control::Syn));
    // RFC 3168 section 6.1.1: both bits ask for it.
    let ecn = segment.options.timestamps.is_some_and(|timestamps| timestamps.echo & ECN != 0);
    (syn.ece, syn.cwr) = (ecn, ecn);
    syn.options = Options { mss: Some(size), ..segment.options.timestamps.map(recall).unwrap_or_default() };
    Some(syn)
}

/// Whether the number may be that of a cookie that is still taken, for all that can be seen without the client's own
/// number. Of numbers drawn at random one in 128 is.
pub(super) fn may_be(secret: &Secret, flow: &Flow, cookie: Seq, now: Instant) -> bool {
    slots(now).any(|slot| low_bits(secret, flow, cookie, slot).is_some())
}

/// When a cookie may have been made that is taken now.
fn slots(now: Instant) -> impl Iterator<Item = u64> {
    let latest = ticks(now) >> BITS;
    // One ahead: the clocks of two hosts differ a little.
    latest.saturating_sub(OLDEST)..=latest + 1
}

/// What a cookie of that slot says; `None` if it is of another.
fn low_bits(secret: &Secret, flow: &Flow, cookie: Seq, slot: u64) -> Option<u32> {
    let low = cookie.0.wrapping_sub(secret.sequence_at(flow, slot << BITS).0);
    (low <= mask()).then_some(low)
}

/// The timestamp that tells what `syn` offers: at most 64 ms older than `value`, never newer.
pub(super) fn note(syn: &Segment, value: u32) -> u32 {
    let options = &syn.options;
    let scale = options.window_scale.map_or(NO_SCALE, |scale| u32::from(scale.min(14)));
    let sack = if options.sack_permitted { SACK } else { 0 };
    let ecn = if syn.is_ecn_setup() { ECN } else { 0 };
    let noted = value & !OPTION_BITS | scale | sack | ecn;
    if Seq(noted).after(Seq(value)) { noted.wrapping_sub(OPTION_BITS + 1) } else { noted }
}

/// The options of a SYN whose answer had this timestamp. What comes back may be forged, by the client itself: it only
/// says what the client understands.
fn recall(timestamps: Timestamps) -> Options {
    let scale = timestamps.echo & NO_SCALE;
    Options {
        window_scale: (scale != NO_SCALE).then(|| u8::try_from(scale).unwrap_or(0)),
        sack_permitted: timestamps.echo & SACK != 0,
        timestamps: Some(timestamps),
        ..Options::default()
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are wanted")]
fn word(wide: u64) -> u32 {
    wide as u32
}

fn mask() -> u32 {
    (1 << BITS) - 1
}
