//! How far clients are from each node, as the nodes' own connections have measured it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::time::Duration;

use ferry_handoff::{Message, NodeId};
use ferry_stack::Instant;
use ferry_stack::tcp::Handle;

use super::{Node, Placement};

/// How long a measurement counts: routes change.
const LIFE: Duration = Duration::from_mins(10);
/// Prefixes that are remembered. With more of them, that which was heard of longest ago is forgotten.
const MAX_PREFIXES: usize = 1 << 14;
/// A round trip that is longer is no measurement.
const LONGEST: Duration = Duration::from_mins(1);

/// Round trips between nodes and clients, by the clients' /64.
#[derive(Debug, Default)]
pub(super) struct Near {
    prefixes: BTreeMap<u64, Prefix>,
    /// The same in the order in which they were last heard of.
    oldest: BTreeSet<(Instant, u64)>,
}

#[derive(Debug)]
struct Prefix {
    heard: Instant,
    rtts: BTreeMap<NodeId, (Duration, Instant)>,
}

/// The /64 of an address: what one site has (RFC 6177).
pub(super) fn prefix(client: Ipv6Addr) -> u64 {
    u64::try_from(client.to_bits() >> 64).unwrap_or(u64::MAX)
}

impl Near {
    /// A node has measured a round trip to a client's prefix.
    pub(super) fn measured(&mut self, prefix: u64, node: NodeId, rtt: Duration, now: Instant) {
        if rtt.is_zero() || rtt > LONGEST {
            return;
        }
        if let Some(known) = self.prefixes.get(&prefix) {
            self.oldest.remove(&(known.heard, prefix));
        } else if self.prefixes.len() >= MAX_PREFIXES
            && let Some((_, forgotten)) = self.oldest.pop_first()
        {
            self.prefixes.remove(&forgotten);
        }
        let known =
            self.prefixes.entry(prefix).or_insert_with(|| Prefix { heard: now, rtts: BTreeMap::new() });
        known.heard = now;
        known.rtts.insert(node, (rtt, now));
        self.oldest.insert((now, prefix));
    }

    /// The round trip between a node and the client's /64, if it was measured lately.
    pub(super) fn rtt(&self, client: Ipv6Addr, node: NodeId, now: Instant) -> Option<Duration> {
        let (rtt, at) = *self.prefixes.get(&prefix(client))?.rtts.get(&node)?;
        (at.since(now) <= LIFE).then_some(rtt)
    }
}

impl Node {
    /// Lets the contact node know how far a client is whose connection lives here.
    pub(super) fn tell_distance(&mut self, handle: Handle, now: Instant) {
        if self.placement != Placement::Nearest {
            return;
        }
        let Some(tcb) = self.tcp.get(handle) else { return };
        let (Some(rtt), prefix) = (tcb.rtt.smoothed, prefix(*tcb.flow.remote.ip())) else { return };
        if self.is_contact() {
            self.near.measured(prefix, self.id, rtt, now);
        } else {
            let rtt_us = u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX);
            let contact = self.contact;
            self.tell(contact, &Message::Near { prefix, rtt_us });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(prefix: u64) -> Ipv6Addr {
        Ipv6Addr::from_bits(u128::from(prefix) << 64 | 9)
    }

    #[test]
    fn a_round_trip_counts_for_its_prefix_and_its_node_and_not_for_ever() {
        let (mut near, now, b) = (Near::default(), Instant::from_millis(1), NodeId::of("b"));
        let rtt = Duration::from_millis(20);
        near.measured(7, b, rtt, now);
        assert_eq!(near.rtt(address(7), b, now + LIFE), Some(rtt));
        assert_eq!(near.rtt(address(7), b, now + LIFE + Duration::from_millis(1)), None);
        assert_eq!(near.rtt(address(8), b, now), None);
        assert_eq!(near.rtt(address(7), NodeId::of("a"), now), None);
    }

    #[test]
    fn a_member_that_invents_prefixes_takes_no_memory_beyond_the_bound() {
        let (mut near, b) = (Near::default(), NodeId::of("b"));
        let count = MAX_PREFIXES as u64 + 10;
        for prefix in 0..count {
            near.measured(prefix, b, Duration::from_millis(1), Instant::from_millis(prefix));
        }
        assert_eq!((near.prefixes.len(), near.oldest.len()), (MAX_PREFIXES, MAX_PREFIXES));
        let now = Instant::from_millis(count);
        assert_eq!(near.rtt(address(9), b, now), None, "the oldest made way");
        assert!(near.rtt(address(10), b, now).is_some());
        near.measured(10, b, Duration::from_hours(1), now);
        assert!(near.rtt(address(10), b, now).unwrap() < LONGEST);
    }
}
