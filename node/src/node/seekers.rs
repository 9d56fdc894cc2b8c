//! At the contact node: which node has asked a client for a home test, and gets the answer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use ferry_handoff::NodeId;

/// Clients remembered at most. Who has asked longest ago makes room: his answer has come, or never will.
const MAX_SEEKERS: usize = 1 << 16;

/// Who has asked last, by client.
#[derive(Debug, Default)]
pub(super) struct Seekers {
    last: BTreeMap<Ipv6Addr, (u64, NodeId)>,
    in_turn: BTreeSet<(u64, Ipv6Addr)>,
    asked: u64,
}

impl Seekers {
    /// A node asks a client.
    pub(super) fn note(&mut self, client: Ipv6Addr, node: NodeId) {
        self.asked += 1;
        if let Some((turn, _)) = self.last.insert(client, (self.asked, node)) {
            self.in_turn.remove(&(turn, client));
        } else if self.last.len() > MAX_SEEKERS
            && let Some((_, oldest)) = self.in_turn.pop_first()
        {
            self.last.remove(&oldest);
        }
        self.in_turn.insert((self.asked, client));
    }

    /// Who has asked the client last.
    pub(super) fn of(&self, client: Ipv6Addr) -> Option<NodeId> {
        self.last.get(&client).map(|(_, node)| *node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_who_asked_longest_ago_makes_room() {
        let (a, b) = (NodeId::of("a"), NodeId::of("b"));
        // Counted down, so that the first is not the least.
        let client = |nth: usize| Ipv6Addr::from_bits(u128::try_from(2 * MAX_SEEKERS - nth).unwrap());
        let mut seekers = Seekers::default();
        for nth in 0..MAX_SEEKERS {
            seekers.note(client(nth), a);
        }
        seekers.note(client(0), b);
        seekers.note(client(MAX_SEEKERS), a);
        assert_eq!((seekers.of(client(0)), seekers.of(client(1))), (Some(b), None));
        assert_eq!((seekers.of(client(2)), seekers.of(client(MAX_SEEKERS))), (Some(a), Some(a)));
        assert_eq!((seekers.last.len(), seekers.in_turn.len()), (MAX_SEEKERS, MAX_SEEKERS));
    }
}
