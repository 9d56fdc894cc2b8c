//! Room for what is known of clients.

use core::net::Ipv6Addr;

use ferry_stack::Instant;

use super::{Client, Entry, MAX_CLIENTS, Mobile, Role};

impl Mobile {
    /// What is known of a client, which is forgotten for the moment.
    pub(super) fn take(&mut self, client: Ipv6Addr) -> Option<Client<Instant>> {
        let entry = self.clients.remove(&client)?;
        if let Some(place) = entry.idle {
            self.idle.remove(&(place, client));
        }
        Some(entry.client)
    }

    pub(super) fn put(&mut self, address: Ipv6Addr, client: Client<Instant>, role: Role) {
        self.clients.insert(address, Entry { client, role, idle: None });
    }

    /// Whether there is room for one more.
    pub(super) fn make_room(&mut self) -> bool {
        if self.clients.len() >= MAX_CLIENTS
            && let Some((_, idle)) = self.idle.pop_first()
        {
            self.clients.remove(&idle);
        }
        self.clients.len() < MAX_CLIENTS
    }
}
