//! Who owns which connection, seen from above.

use core::net::SocketAddrV6;
use std::collections::{BTreeMap, BTreeSet};

use ferry_node::Connection;

/// A connection: the client's end, and the port on the service address.
pub type Client = (SocketAddrV6, u16);

/// Who owns which connection.
///
/// A handshake that is under way is nobody's yet: if a SYN is sent again and goes to another node than before, because
/// that one is out of reach, two nodes answer it, and the client decides by the answer that it acknowledges. Nor is one in
/// TIME-WAIT anybody's any more, once its client has opened another from the same port.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    /// Of each established connection: its owner, if it has one now.
    present: BTreeMap<Client, Present>,
    /// Of each connection that was ever owned: the last owner and epoch, and which connection of that port it is.
    last: BTreeMap<Client, (usize, (u64, u64))>,
    /// Of each node: what it owns, handshakes included.
    of: BTreeMap<usize, BTreeSet<Client>>,
}

#[derive(Clone, Copy, Debug)]
struct Present {
    node: usize,
    opened: u64,
    in_time_wait: bool,
}

impl Owners {
    /// A node says what it owns, and whether it may serve: without a lease it owns nothing that another could not.
    /// The error is the sentence that does not hold.
    pub fn own(&mut self, node: usize, connections: &[Connection], serves: bool) -> Result<(), String> {
        let owned: BTreeSet<Client> = connections.iter().map(key).collect();
        for gone in self.of.entry(node).or_default().difference(&owned) {
            if self.present.get(gone).is_some_and(|present| present.node == node) {
                self.present.remove(gone);
            }
        }
        let established = |connection: &&Connection| serves && connection.state != "SYN-RECEIVED";
        for connection in connections.iter().filter(established) {
            self.own_one(node, connection)?;
        }
        self.of.insert(node, owned);
        Ok(())
    }

    fn own_one(&mut self, node: usize, connection: &Connection) -> Result<(), String> {
        let (client, epoch) = (key(connection), (connection.opened_ms, connection.epoch));
        let in_time_wait = connection.state == "TIME-WAIT";
        if in_time_wait && self.last.get(&client).is_some_and(|(_, last)| last.0 > connection.opened_ms) {
            return Ok(());
        }
        let present = Present { node, opened: connection.opened_ms, in_time_wait };
        if let Some(other) = self.present.insert(client, present)
            && other.node != node
            && !(other.in_time_wait && other.opened < present.opened)
        {
            let other = other.node;
            return Err(format!("a connection has at most one owner: {client:?} at {other} and {node}"));
        }
        match self.last.insert(client, (node, epoch)) {
            // Two answers to one SYN, which copies may keep alive: the client decides.
            Some((_, then)) if then.0 != epoch.0 => Ok(()),
            Some((before, then)) if then > epoch || (then == epoch && before != node) => Err(format!(
                "an epoch only grows: {client:?} had {then:?} at {before}, has {epoch:?} at {node}"
            )),
            _ => Ok(()),
        }
    }

    /// A node may not act for what it owns now.
    pub fn rests(&mut self, node: usize) {
        self.present.retain(|_, present| present.node != node);
    }

    /// A node is dead. What it owned, it does not any more; given back, handshakes included.
    pub fn died(&mut self, node: usize) -> BTreeSet<Client> {
        let owned = self.of.remove(&node).unwrap_or_default();
        self.present.retain(|_, present| present.node != node);
        owned
    }

    /// Every connection that is owned, with its owner, handshakes included.
    pub fn all(&self) -> impl Iterator<Item = (Client, usize)> {
        self.of.iter().flat_map(|(node, owned)| owned.iter().map(|client| (*client, *node)))
    }

    /// What a node owns.
    pub fn of(&self, node: usize) -> Vec<Client> {
        self.of.get(&node).into_iter().flatten().copied().collect()
    }
}

fn key(connection: &Connection) -> Client {
    (connection.client, connection.port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(epoch: u64) -> Connection {
        Connection {
            client: "[2001:db8::1]:5".parse().unwrap(),
            port: 80,
            service: String::new(),
            state: String::new(),
            opened_ms: 7,
            epoch,
            sent: 0,
            received: 0,
            srtt_us: None,
            cwnd: 0,
            protection: None,
        }
    }

    #[test]
    fn a_second_owner_is_noticed() {
        let mut owners = Owners::default();
        owners.own(0, &[connection(1)], true).unwrap();
        assert!(
            owners
                .clone()
                .own(1, &[connection(2)], true)
                .unwrap_err()
                .starts_with("a connection has at most")
        );
        owners.own(0, &[], true).unwrap();
        owners.own(1, &[connection(2)], true).unwrap();
        assert_eq!(owners.of(1).len(), 1);
    }

    #[test]
    fn only_in_time_wait_a_connection_makes_room_for_the_next_from_its_port() {
        for (state, fine) in [("TIME-WAIT", true), ("LAST-ACK", false)] {
            let old = Connection { state: state.to_owned(), ..connection(3) };
            let new = Connection { opened_ms: 8, ..connection(1) };
            let mut owners = Owners::default();
            owners.own(0, std::slice::from_ref(&old), true).unwrap();
            assert_eq!(owners.own(1, &[new], true).is_ok(), fine, "{state}");
            assert_eq!(owners.own(0, &[old], true).is_ok(), fine, "{state}");
        }
    }

    #[test]
    fn who_may_not_serve_makes_room_for_another() {
        let mut owners = Owners::default();
        owners.own(0, &[connection(1)], true).unwrap();
        owners.rests(0);
        owners.own(1, &[connection(2)], true).unwrap();
        owners.own(0, &[connection(1)], false).unwrap();
        assert!(owners.own(0, &[connection(1)], true).unwrap_err().starts_with("a connection has at most"));
    }

    #[test]
    fn an_epoch_that_does_not_grow_is_noticed() {
        let mut owners = Owners::default();
        owners.own(0, &[connection(2)], true).unwrap();
        owners.own(0, &[], true).unwrap();
        assert!(owners.own(1, &[connection(2)], true).unwrap_err().starts_with("an epoch only grows"));
    }
}
