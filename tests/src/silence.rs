//! How long the service was silent, as its clients' wires show it.

use core::net::{Ipv6Addr, SocketAddrV6};
use core::time::Duration;
use std::collections::BTreeMap;

use ferry_node::Moment;
use ferry_stack::{Frame, Instant};

use crate::wire::{self, Content};

/// When clients heard of the service, and when connections moved.
#[derive(Clone, Debug, Default)]
pub struct Silences {
    /// Whether anybody wants to know.
    pub on: bool,
    heard: BTreeMap<SocketAddrV6, Vec<Instant>>,
    moves: Vec<Move>,
    /// When who sent straight to another care-of address than before (RFC 6275 section 6.4).
    straight: Vec<(Instant, Ipv6Addr)>,
    frozen: BTreeMap<SocketAddrV6, Instant>,
    moments: Vec<(SocketAddrV6, Moment)>,
}

#[derive(Clone, Copy, Debug)]
struct Move {
    client: SocketAddrV6,
    from: Instant,
    until: Instant,
}

impl Silences {
    /// A frame has come to a client.
    pub(crate) fn heard(&mut self, frame: &Frame, now: Instant) {
        if !self.on {
            return;
        }
        let octets = frame.clone().contiguous().head;
        if let Ok(Content::Tcp(seen)) = wire::read(&octets) {
            self.heard.entry(seen.to).or_default().push(now);
        }
    }

    /// A frame was sent.
    pub(crate) fn said(&mut self, frame: &Frame, now: Instant) {
        if !self.on {
            return;
        }
        let octets = frame.clone().contiguous().head;
        if let Some(to) = straight_to(&octets)
            && self.straight.last().is_none_or(|(_, last)| *last != to)
        {
            self.straight.push((now, to));
        }
    }

    /// When each move began with the freeze, and when the connection ran again.
    pub fn moves(&self) -> impl Iterator<Item = (Instant, Instant)> {
        self.moves.iter().map(|one| (one.from, one.until))
    }

    /// When a client began to send straight to that care-of address, after a time.
    pub fn straight_after(&self, from: Instant, to: Ipv6Addr) -> Option<Instant> {
        self.straight.iter().find(|(at, there)| *at >= from && *there == to).map(|(at, _)| *at)
    }

    /// A connection was frozen.
    pub(crate) fn frozen(&mut self, client: SocketAddrV6, moment: &Moment, now: Instant) {
        self.frozen.insert(client, now);
        if self.on {
            self.moments.push((client, moment.clone()));
        }
    }

    /// How each connection was that was frozen, and whose it is.
    pub fn moments(&self) -> &[(SocketAddrV6, Moment)] {
        &self.moments
    }

    /// A connection was installed.
    pub(crate) fn installed(&mut self, client: SocketAddrV6, now: Instant) {
        if let Some(from) = self.frozen.remove(&client) {
            self.moves.push(Move { client, from, until: now });
        }
    }

    /// The longest silence around each move of a connection that was not over by then, the shortest first: of those
    /// that overlap with the time from the freeze until `way` after the installation, which is how long a segment
    /// of the new owner needs to the client.
    pub fn gaps(&self, way: Duration) -> Vec<Duration> {
        let mut gaps: Vec<_> = self.moves.iter().filter_map(|the_move| self.gap(the_move, way)).collect();
        gaps.sort();
        gaps
    }

    fn gap(&self, the_move: &Move, way: Duration) -> Option<Duration> {
        let heard = self.heard.get(&the_move.client)?;
        let until = the_move.until + way;
        let first = heard.partition_point(|at| *at <= the_move.from).checked_sub(1)?;
        let pairs = heard[first..].windows(2).take_while(|pair| pair[0] <= until);
        pairs.map(|pair| pair[0].since(pair[1])).max()
    }
}

/// Where a frame goes, if it has a routing header in front of a TCP segment or a Mobility Header.
fn straight_to(frame: &[u8]) -> Option<Ipv6Addr> {
    const IP: usize = 14;
    const ROUTING: u8 = 43;
    const TCP: u8 = 6;
    const MOBILITY: u8 = 135;
    let next = |at: usize| frame.get(IP + at).copied();
    if next(6) != Some(ROUTING) || !matches!(next(40), Some(TCP | MOBILITY)) {
        return None;
    }
    let destination: [u8; 16] = frame.get(IP + 24..IP + 40)?.try_into().ok()?;
    Some(destination.into())
}

/// The value below which `percent` of the sorted values lie; zero if there are none.
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let at = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
    sorted.get(at).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_of_a_move_is_the_longest_silence_that_it_overlaps() {
        let at = Instant::from_millis;
        let client: SocketAddrV6 = "[2001:db8::1]:5".parse().unwrap();
        let mut silences = Silences { on: true, ..Silences::default() };
        silences.heard.insert(client, [0, 10, 11, 15, 16, 100].map(at).to_vec());
        silences.frozen(client, &Moment::default(), at(12));
        silences.installed(client, at(14));
        assert_eq!(silences.gaps(Duration::from_millis(1)), [Duration::from_millis(4)]);
        assert_eq!(silences.gaps(Duration::from_millis(2)), [Duration::from_millis(84)]);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<_> = (1..=100).map(Duration::from_millis).collect();
        for (percent, expected) in [(50, 50), (99, 99), (100, 100), (0, 1)] {
            assert_eq!(percentile(&values, percent), Duration::from_millis(expected), "{percent}");
        }
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
