//! Which nodes hold the copies of a connection: each connection asks each node, and those that it likes best are spread
//! over all of them (rendezvous hashing). A node that comes or goes changes no more than it must.

use std::hash::Hasher as _;

use ferry_handoff::NodeId;
use ferry_stack::tcp::Flow;
use siphasher::sip::SipHasher13;

/// The `count` nodes that are the first choice of this connection.
pub(super) fn choose(
    key: &SipHasher13,
    flow: &Flow,
    candidates: impl Iterator<Item = NodeId>,
    count: usize,
) -> Vec<NodeId> {
    let mut ranked: Vec<_> = candidates.map(|node| (liking(key, flow, node), node)).collect();
    ranked.sort_unstable();
    ranked.truncate(count);
    ranked.into_iter().map(|(_, node)| node).collect()
}

fn liking(key: &SipHasher13, flow: &Flow, node: NodeId) -> u64 {
    use std::hash::Hash as _;
    let mut hasher = *key;
    hasher.write(&flow.remote.ip().octets());
    hasher.write_u16(flow.remote.port());
    hasher.write_u16(flow.local.port());
    node.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::net::{Ipv6Addr, SocketAddrV6};

    use super::*;

    fn flow(port: u16) -> Flow {
        let end =
            |last, port| SocketAddrV6::new(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last), port, 0, 0);
        Flow { local: end(1, 80), remote: end(2, port) }
    }

    fn nodes(count: usize) -> Vec<NodeId> {
        (0..count).map(|nth| NodeId::of(&format!("node-{nth}"))).collect()
    }

    #[test]
    fn copies_are_spread_and_a_node_that_goes_moves_only_its_own() {
        let key = SipHasher13::new_with_key(&[3; 16]);
        let all = nodes(5);
        let mut loads = BTreeMap::<_, usize>::new();
        for port in 1000..2000 {
            let before = choose(&key, &flow(port), all.iter().copied(), 2);
            assert_eq!(before.len(), 2);
            assert_ne!(before[0], before[1]);
            for node in &before {
                *loads.entry(*node).or_default() += 1;
            }
            let without = all.iter().copied().filter(|node| *node != all[3]);
            let after = choose(&key, &flow(port), without, 2);
            let stayed = before.iter().filter(|node| **node != all[3]);
            assert!(stayed.clone().all(|node| after.contains(node)), "{before:?} {after:?}");
        }
        assert!(loads.values().all(|load| (300..500).contains(load)), "{loads:?}");
    }

    #[test]
    fn there_are_no_more_copies_than_nodes() {
        let key = SipHasher13::new_with_key(&[3; 16]);
        assert_eq!(choose(&key, &flow(1), nodes(1).into_iter(), 3).len(), 1);
        assert_eq!(choose(&key, &flow(1), nodes(0).into_iter(), 3), []);
    }
}
