//! What the silences and repetitions of a client tell about the way by which it sends.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Duration;

use ferry_stack::{Alarms, Instant};

/// Old segments of a client after which the optimised path counts as broken, if they took so long: a client that hears
/// our answers does not repeat itself so often. A burst of them is what a handoff has made late.
const MAX_REPEATS: u8 = 3;
const REPEATING_FOR: Duration = Duration::from_secs(1);
/// Segments of use after which earlier repetitions do not count any more. Fewer may come because repetitions are
/// answered by way of the home address.
const FORGIVEN: u8 = 32;
/// A client that was sending, and then says nothing for so long, may be sending into the void. Longer than a sender
/// with a usual round-trip time waits before it repeats itself.
const SILENCE: Duration = Duration::from_secs(2);

/// How long a client may be without a word after it has lost its binding: as long as TCP may wait before it sends again
/// what was lost.
const EXCUSE: Duration = Duration::from_secs(5);

/// What was heard of clients that send straight to this node.
#[derive(Debug, Default)]
pub(super) struct Hearing {
    /// Who repeats itself.
    repeats: BTreeMap<Ipv6Addr, Repeats>,
    /// When who was sending last sent octets.
    octets: BTreeMap<Ipv6Addr, Instant>,
    /// Who is known to have lost its binding, and when that was said: what was lost before is no fault of the path.
    excused: BTreeMap<Ipv6Addr, Instant>,
    /// When it is looked whether a client has fallen silent: at most once each [`SILENCE`].
    looks: Alarms<Ipv6Addr>,
}

/// Old segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Repeats {
    count: u8,
    since: Instant,
    /// Segments of use since the last of them.
    useful: u8,
}

/// What a segment was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It carried octets, and was of use.
    Octets,
    /// It was of use, and its sender will not repeat it.
    Bare,
    /// An old one: its sender does not hear that the octets have arrived.
    Repeated,
}

impl Repeats {
    /// One more. Whether that is one too many.
    fn again(&mut self, now: Instant) -> bool {
        self.count = self.count.saturating_add(1);
        self.useful = 0;
        self.count >= MAX_REPEATS && self.since.since(now) >= REPEATING_FOR
    }
}

impl Hearing {
    /// A segment of a client came. Whether it shows that the client does not hear us.
    pub(super) fn heard(&mut self, client: Ipv6Addr, kind: Kind, now: Instant) -> bool {
        if kind == Kind::Repeated {
            let repeats = self.repeats.entry(client).or_insert(Repeats { count: 0, since: now, useful: 0 });
            let deaf = repeats.again(now);
            if deaf {
                self.forget(client);
            }
            return deaf;
        }
        if let Some(repeats) = self.repeats.get_mut(&client) {
            repeats.useful += 1;
            if repeats.useful == FORGIVEN {
                self.repeats.remove(&client);
            }
        }
        if kind == Kind::Octets && self.octets.insert(client, now).is_none() {
            self.looks.set(client, Some(now + SILENCE));
        }
        false
    }

    /// Whether what came last of a client was an old segment: the answer had better go another way than those before.
    pub(super) fn repeats_itself(&self, client: Ipv6Addr) -> bool {
        self.repeats.get(&client).is_some_and(|repeats| repeats.useful == 0)
    }

    /// The client says that it has no binding.
    pub(super) fn excuse(&mut self, client: Ipv6Addr, now: Instant) {
        self.forget(client);
        self.excused.insert(client, now);
    }

    /// Whether that a client acknowledges nothing may be because it had lost its binding.
    pub(super) fn is_excused(&self, client: Ipv6Addr, now: Instant) -> bool {
        self.excused.get(&client).is_some_and(|said| now < *said + EXCUSE)
    }

    /// There is nothing to be learned from the client any more.
    pub(super) fn forget(&mut self, client: Ipv6Addr) {
        self.repeats.remove(&client);
        if self.octets.remove(&client).is_some() {
            self.looks.set(client, None);
        }
    }

    /// The client has no connection here any more.
    pub(super) fn gone(&mut self, client: Ipv6Addr) {
        self.forget(client);
        self.excused.remove(&client);
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.looks.next()
    }

    /// The next client that has fallen silent. It is told of once, until it speaks again.
    pub(super) fn silent(&mut self, now: Instant) -> Option<Ipv6Addr> {
        while let Some(client) = self.looks.due(now) {
            let Some(last) = self.octets.get(&client) else { continue };
            let at = *last + SILENCE;
            if at <= now {
                self.octets.remove(&client);
                return Some(client);
            }
            self.looks.set(client, Some(at));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Ipv6Addr = Ipv6Addr::LOCALHOST;

    fn at(millis: u64) -> Instant {
        Instant::from_millis(1000) + Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_of_repeated_segments_is_no_broken_path() {
        let mut hearing = Hearing::default();
        for ms in 0..900 {
            assert!(!hearing.heard(CLIENT, Kind::Repeated, at(ms)), "after {ms} ms");
        }
        // As a client repeats itself that hears nothing.
        let mut hearing = Hearing::default();
        let told = [0, 400, 1200].map(|ms| hearing.heard(CLIENT, Kind::Repeated, at(ms)));
        assert_eq!(told, [false, false, true]);
    }

    #[test]
    fn repetitions_are_forgiven_after_enough_that_was_of_use() {
        for (useful, deaf) in [(FORGIVEN - 1, true), (FORGIVEN, false)] {
            let mut hearing = Hearing::default();
            hearing.heard(CLIENT, Kind::Repeated, at(0));
            hearing.heard(CLIENT, Kind::Repeated, at(400));
            assert!(hearing.repeats_itself(CLIENT));
            for _ in 0..useful {
                hearing.heard(CLIENT, Kind::Bare, at(500));
                assert!(!hearing.repeats_itself(CLIENT));
            }
            assert_eq!(hearing.heard(CLIENT, Kind::Repeated, at(1200)), deaf, "{useful}");
        }
    }

    #[test]
    fn a_client_that_was_sending_is_told_of_once_two_seconds_after_its_last_octets() {
        let mut hearing = Hearing::default();
        for ms in [0, 700, 1900, 2500] {
            hearing.heard(CLIENT, Kind::Octets, at(ms));
            assert_eq!(hearing.silent(at(ms)), None, "at {ms} ms");
        }
        hearing.heard(CLIENT, Kind::Bare, at(4000));
        assert_eq!(hearing.silent(at(4499)), None);
        assert_eq!(hearing.deadline(), Some(at(4500)));
        assert_eq!(hearing.silent(at(4500)), Some(CLIENT));
        assert_eq!((hearing.silent(at(9000)), hearing.deadline()), (None, None));
        hearing.heard(CLIENT, Kind::Bare, at(9000));
        assert_eq!(hearing.silent(at(20_000)), None, "who only acknowledges has nothing to lose");
        hearing.heard(CLIENT, Kind::Octets, at(20_000));
        assert_eq!(hearing.silent(at(22_000)), Some(CLIENT), "it has spoken again");
    }

    #[test]
    fn who_has_lost_its_binding_is_excused_for_a_while() {
        let mut hearing = Hearing::default();
        assert!(!hearing.is_excused(CLIENT, at(0)));
        hearing.excuse(CLIENT, at(0));
        let excused = [0, 4999, 5000].map(|ms| hearing.is_excused(CLIENT, at(ms)));
        assert_eq!(excused, [true, true, false]);
        hearing.excuse(CLIENT, at(6000));
        hearing.gone(CLIENT);
        assert!(!hearing.is_excused(CLIENT, at(6000)));
    }

    #[test]
    fn who_is_forgotten_is_not_told_of() {
        let mut hearing = Hearing::default();
        hearing.heard(CLIENT, Kind::Octets, at(0));
        hearing.forget(CLIENT);
        assert_eq!((hearing.deadline(), hearing.silent(at(5000))), (None, None));
    }
}
