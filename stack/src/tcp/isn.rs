//! Numbers that an outsider must not guess, from one secret that all nodes of a group share.

use core::hash::Hasher;
use core::net::{Ipv6Addr, SocketAddrV6};

use siphasher::sip::SipHasher24;

use super::segment::Flow;
use crate::{Instant, Seq};

/// A secret of 256 bits. Not shown, not serialised.
#[derive(Clone)]
pub struct Secret([u8; 32]);

/// What a number is drawn for: so that one use tells nothing about another.
#[derive(Clone, Copy)]
enum Purpose {
    InitialSequence = 1,
    Timestamp = 2,
    FlowLabel = 3,
    EphemeralPort = 4,
    Cookie = 5,
    Challenge = 6,
}

impl Secret {
    /// From octets that were drawn at random.
    pub const fn new(octets: [u8; 32]) -> Self {
        Self(octets)
    }

    /// ISN = M + F(flow, secret) (RFC 9293 section 3.4.1, RFC 6528 section 3): M counts every 4 µs, by the group's clock.
    pub fn initial_sequence(&self, flow: &Flow, now: Instant) -> Seq {
        self.sequence_at(flow, ticks(now))
    }

    /// The initial sequence number of a flow when M is `ticks`.
    #[expect(clippy::cast_possible_truncation, reason = "both parts wrap by design")]
    pub(super) fn sequence_at(&self, flow: &Flow, ticks: u64) -> Seq {
        Seq((ticks as u32).wrapping_add(self.digest(Purpose::InitialSequence, flow) as u32))
    }

    /// What only the group can say about a SYN of a flow and a span of time.
    pub(super) fn vouch(&self, flow: &Flow, irs: Seq, slot: u64) -> u64 {
        let mut hasher = self.hasher(Purpose::Cookie, flow);
        hasher.write_u32(irs.0);
        hasher.write_u64(slot);
        hasher.finish()
    }

    /// The `TSval` that a flow's clock shows `now` by the group's clock (RFC 7323 section 5.4), so that a new
    /// connection between the same ends continues above the old one's, whichever host of the group it comes to.
    #[expect(clippy::cast_possible_truncation, reason = "the timestamp clock wraps by design")]
    pub fn first_timestamp(&self, flow: &Flow, now: Instant) -> u32 {
        (now.millis() as u32).wrapping_add(self.digest(Purpose::Timestamp, flow) as u32)
    }

    /// A flow label (RFC 6437 section 3): 20 bits, the same for all segments of a flow.
    pub fn flow_label(&self, flow: &Flow) -> u32 {
        (self.digest(Purpose::FlowLabel, flow) & 0xf_ffff) as u32
    }

    /// Where the search for a free local port starts (RFC 6056 section 3.3.3).
    #[expect(clippy::cast_possible_truncation, reason = "a small range")]
    pub fn first_port(&self, local: Ipv6Addr, remote: SocketAddrV6, counter: u16) -> u16 {
        let flow = Flow { local: SocketAddrV6::new(local, 0, 0, 0), remote };
        let range = u64::from(u16::MAX - FIRST_EPHEMERAL) + 1;
        FIRST_EPHEMERAL
            + ((self.digest(Purpose::EphemeralPort, &flow).wrapping_add(u64::from(counter))) % range) as u16
    }

    /// A number up to `most` that an outsider cannot know, for the span of time called `span`.
    #[expect(clippy::cast_possible_truncation, reason = "no more than `most`")]
    pub(super) fn draw(&self, span: u64, most: u32) -> u32 {
        let mut hasher = self.keyed(Purpose::Challenge);
        hasher.write_u64(span);
        (hasher.finish() % (u64::from(most) + 1)) as u32
    }

    /// A key for hash maps, so that nobody can choose ports that collide.
    pub fn map_key(&self) -> [u8; 16] {
        let mut key = [0; 16];
        for (octet, (a, b)) in key.iter_mut().zip(self.0[..16].iter().zip(&self.0[16..])) {
            *octet = a ^ b.rotate_left(3);
        }
        key
    }

    fn digest(&self, purpose: Purpose, flow: &Flow) -> u64 {
        self.hasher(purpose, flow).finish()
    }

    fn keyed(&self, purpose: Purpose) -> SipHasher24 {
        let key = self.0.first_chunk().copied().unwrap_or_default();
        let mut hasher = SipHasher24::new_with_key(&key);
        hasher.write(&self.0[16..]);
        hasher.write_u8(purpose as u8);
        hasher
    }

    fn hasher(&self, purpose: Purpose, flow: &Flow) -> SipHasher24 {
        let mut hasher = self.keyed(purpose);
        for end in [flow.local, flow.remote] {
            hasher.write(&end.ip().octets());
            hasher.write_u16(end.port());
        }
        hasher
    }
}

/// M of RFC 6528 section 3 and RFC 9293 section 3.4.1: counts every 4 µs.
pub(super) fn ticks(now: Instant) -> u64 {
    now.nanos() / 4_000
}

/// The lowest ephemeral port (RFC 6335 section 6).
pub(super) const FIRST_EPHEMERAL: u16 = 49_152;

impl core::fmt::Debug for Secret {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Hashes the keys of a map with a secret, the same way in every run.
#[derive(Clone, Default)]
pub struct MapKey(pub siphasher::sip::SipHasher13);

impl core::hash::BuildHasher for MapKey {
    type Hasher = siphasher::sip::SipHasher13;

    fn build_hasher(&self) -> Self::Hasher {
        self.0
    }
}

impl core::fmt::Debug for MapKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("MapKey(…)")
    }
}
