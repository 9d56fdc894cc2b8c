//! Addresses of nodes that are elsewhere, for which we answer on the link (RFC 4861 section 7.2.8, RFC 6275 section
//! 10.4.1): neighbour discovery is answered, and what comes for them goes up untouched.

use core::net::Ipv6Addr;

use super::{Interface, groups};
use crate::time::Instant;

impl Interface {
    /// Starts to answer for an address of somebody else, announces it (unsolicited NA, override), and defends it
    /// against duplicate address detection of others. What comes for it is returned by [`Interface::receive`], echo
    /// requests and fragments too.
    pub fn add_proxy(&mut self, address: Ipv6Addr, now: Instant) {
        if !self.is_proxy_for(address) {
            self.proxied.push(address);
        }
        self.report_groups();
        self.report_again = Some(now + groups::REPORT_AGAIN);
        self.announce(address, now);
    }

    /// Stops to answer for it.
    pub fn remove_proxy(&mut self, address: Ipv6Addr) {
        self.announcements.remove(&address);
        let before = self.proxied.len();
        self.proxied.retain(|known| *known != address);
        if self.proxied.len() < before {
            self.leave_group_of(address);
        }
    }

    /// Whether this is an address of somebody else for which we answer.
    pub fn is_proxy_for(&self, address: Ipv6Addr) -> bool {
        self.proxied.contains(&address)
    }

    /// Whether neighbour discovery is answered for an address.
    pub fn answers_for(&self, address: Ipv6Addr) -> bool {
        (self.has_address(address) && !self.ceded.contains(&address)) || self.is_proxy_for(address)
    }

    /// Every address for which neighbour discovery is answered.
    pub(super) fn answered(&self) -> impl Iterator<Item = Ipv6Addr> {
        self.addresses.iter().map(|known| known.address).chain(self.proxied.iter().copied())
    }
}
