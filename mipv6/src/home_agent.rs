//! A home agent that is a host of its own (RFC 6275 section 10), so that the service address outlives every node of
//! the group, and the side of the node that registers with it (section 11.7.1). Both prove who they are with a
//! shared key (RFC 4285).
//!
//! Sans-I/O: messages and time in, messages, deadlines and changes out.

mod registrant;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::net::Ipv6Addr;
use core::time::Duration;

use ferry_stack::{Alarms, Instant};

pub use self::registrant::{Registrant, Registration};
use crate::correspondent::{Outgoing, is_later, is_unicast};
use crate::header::{
    Authentication, BindingAcknowledgement, BindingUpdate, Lifetime, Message, Options, Received, Status,
};

/// How far the clocks of a node and its home agent may be apart (RFC 4285 section 6: 7 seconds by default).
const TIMESTAMP_WINDOW: Duration = Duration::from_secs(7);

/// A moment on the wall clock as NTP writes it: seconds since 1900 in the high half (RFC 5905 section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// From the time since 1970.
    pub fn from_unix(time: Duration) -> Self {
        const FROM_1900_TO_1970: u64 = 2_208_988_800;
        let fraction = (u64::from(time.subsec_nanos()) << 32) / 1_000_000_000;
        // Eras of 2³² seconds wrap, as the format has it.
        Self((time.as_secs() + FROM_1900_TO_1970) << 32 | fraction)
    }

    /// How much has to be added to `self` to get `other`, on the circle of the format's eras.
    pub(super) const fn behind(self, other: Self) -> u64 {
        other.0.wrapping_sub(self.0)
    }

    /// So much later.
    pub(super) const fn plus(self, more: u64) -> Self {
        Self(self.0.wrapping_add(more))
    }

    fn is_near(self, other: Self) -> bool {
        let apart = self.0.wrapping_sub(other.0);
        apart.min(apart.wrapping_neg()) >> 32 < TIMESTAMP_WINDOW.as_secs()
    }
}

/// Both clocks of a host at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For deadlines.
    pub monotonic: Instant,
    /// For proof that a message is not an old one.
    pub wall: Timestamp,
}

/// How a home agent is set up.
#[derive(Clone)]
pub struct Setup {
    /// Its own address.
    pub address: Ipv6Addr,
    /// The home link: an address in it, and the length of its prefix in bits.
    pub home_link: (Ipv6Addr, u8),
    /// What it shares with groups of nodes, by the SPI that names it. Nothing else can be registered, so that what is
    /// remembered is bounded by what is configured.
    pub groups: BTreeMap<u32, Group>,
    /// No registration holds longer.
    pub max_lifetime: Lifetime,
}

/// Nodes that hold the same key.
#[derive(Clone)]
pub struct Group {
    /// What proves that a message is of one of them.
    pub key: Vec<u8>,
    /// The home addresses that they may register.
    pub homes: BTreeSet<Ipv6Addr>,
}

impl core::fmt::Debug for Group {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Group").field("homes", &self.homes).finish_non_exhaustive()
    }
}

impl core::fmt::Debug for Setup {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Setup")
            .field("address", &self.address)
            .field("home_link", &self.home_link)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

/// Where a home address is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// The node that answers for it.
    pub care_of: Ipv6Addr,
    /// Until when.
    pub until: Instant,
    sequence: u16,
    timestamp: Option<Timestamp>,
}

impl Home {
    /// The sequence number of the last Binding Update that was accepted.
    pub const fn sequence(&self) -> u16 {
        self.sequence
    }
}

/// What changed for the data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Packets to this home address go through a tunnel to this care-of address from now on; the home agent answers
    /// for the address on the home link.
    Away(Ipv6Addr, Ipv6Addr),
    /// The home agent has nothing to do with this home address any more.
    Gone(Ipv6Addr),
}

/// A home agent.
#[derive(Debug)]
pub struct HomeAgent {
    setup: Setup,
    homes: BTreeMap<Ipv6Addr, Home>,
    /// The last sequence number and timestamp of those that are gone, so that an old message cannot bring them back.
    gone: BTreeMap<Ipv6Addr, (u16, Option<Timestamp>)>,
    timers: Alarms<Ipv6Addr>,
    changes: Vec<Change>,
}

impl HomeAgent {
    /// Without registrations.
    pub fn new(setup: Setup) -> Self {
        Self {
            setup,
            homes: BTreeMap::new(),
            gone: BTreeMap::new(),
            timers: Alarms::default(),
            changes: Vec::new(),
        }
    }

    /// Takes a message to its own address, and gives the answer.
    pub fn receive(&mut self, received: &Received, now: Now) -> Option<Outgoing> {
        let Message::BindingUpdate(update) = &received.message else { return None };
        if received.destination != self.setup.address {
            return None;
        }
        let home = received.home_address.unwrap_or(received.source);
        let care_of = update.options.alternate_care_of.unwrap_or(received.source);
        // RFC 4285 section 5.1: who does not prove to hold the key is not answered with anything of use.
        let spi = update.options.authentication?.spi;
        let group = self.setup.groups.get(&spi)?;
        let key = group.key.clone();
        if !received.is_authentic(&key, care_of, home) {
            return None;
        }
        let status = self.judge(group, home, care_of, update, now);
        let mut sequence = update.sequence;
        if status == Status::SEQUENCE {
            sequence = self.last(home).map_or(sequence, |(last, _)| last);
        }
        let deletes = update.lifetime == Lifetime::ZERO || care_of == home;
        let accepted = status.is_accepted();
        let lifetime =
            if accepted && !deletes { update.lifetime.min(self.setup.max_lifetime) } else { Lifetime::ZERO };
        if accepted {
            self.accept(home, care_of, update, lifetime, now);
        }
        let options = Options {
            timestamp: (status == Status::IDENTIFICATION).then_some(now.wall.0),
            authentication: Some(Authentication { spi, ..Authentication::default() }),
            ..Options::default()
        };
        let mut message =
            Message::BindingAcknowledgement(BindingAcknowledgement { status, sequence, lifetime, options });
        message.authenticate(&key, care_of, home);
        let routed_home = received.home_address.filter(|home| *home != received.source);
        Some(Outgoing { routed_home, ..Outgoing::plain(self.setup.address, received.source, message) })
    }

    fn last(&self, home: Ipv6Addr) -> Option<(u16, Option<Timestamp>)> {
        let present = self.homes.get(&home).map(|home| (home.sequence, home.timestamp));
        present.or_else(|| self.gone.get(&home).copied())
    }

    /// RFC 6275 section 10.3.1, RFC 4285 section 6.
    fn judge(
        &self,
        group: &Group,
        home: Ipv6Addr,
        care_of: Ipv6Addr,
        update: &BindingUpdate,
        now: Now,
    ) -> Status {
        let timestamp = update.options.timestamp.map(Timestamp);
        let (last, last_timestamp) = self.last(home).unzip();
        if !update.home_registration {
            return Status::TYPE_CHANGE;
        }
        if !in_prefix(home, self.setup.home_link) {
            return Status::NOT_HOME;
        }
        if !group.homes.contains(&home) {
            return Status::NOT_YOURS;
        }
        if last.is_some_and(|last| !is_later(update.sequence, last)) {
            return Status::SEQUENCE;
        }
        // The timestamp keeps replays off across a restart of the home agent, when no sequence number is known.
        let Some(timestamp) = timestamp.filter(|timestamp| timestamp.is_near(now.wall)) else {
            return Status::IDENTIFICATION;
        };
        if last_timestamp.flatten().is_some_and(|last| timestamp <= last) {
            return Status::IDENTIFICATION;
        }
        // A tunnel to another home address would lead back here.
        let ours = care_of == self.setup.address || (care_of != home && self.is_home(care_of));
        if ours || !is_unicast(care_of) {
            return Status::CARE_OF_ADDRESS;
        }
        Status::ACCEPTED
    }

    fn accept(
        &mut self,
        home: Ipv6Addr,
        care_of: Ipv6Addr,
        update: &BindingUpdate,
        lifetime: Lifetime,
        now: Now,
    ) {
        let timestamp = update.options.timestamp.map(Timestamp);
        if lifetime == Lifetime::ZERO {
            self.let_go(home, (update.sequence, timestamp));
            return;
        }
        let until = now.monotonic + lifetime.duration();
        let before = self.homes.insert(home, Home { care_of, until, sequence: update.sequence, timestamp });
        self.gone.remove(&home);
        self.timers.set(home, Some(until));
        if before.is_none_or(|before| before.care_of != care_of) {
            self.changes.push(Change::Away(home, care_of));
        }
    }

    fn let_go(&mut self, home: Ipv6Addr, last: (u16, Option<Timestamp>)) {
        self.timers.set(home, None);
        self.gone.insert(home, last);
        if self.homes.remove(&home).is_some() {
            self.changes.push(Change::Gone(home));
        }
    }

    /// Whether somebody may register this address.
    pub fn is_home(&self, address: Ipv6Addr) -> bool {
        self.setup.groups.values().any(|group| group.homes.contains(&address))
    }

    /// Where packets to a home address go through the tunnel; `None` if it is not registered.
    pub fn care_of(&self, home: Ipv6Addr) -> Option<Ipv6Addr> {
        self.homes.get(&home).map(|home| home.care_of)
    }

    /// Whether a tunnel from there may carry packets of this home address (RFC 6275 section 10.4.5).
    pub fn may_send(&self, care_of: Ipv6Addr, home: Ipv6Addr) -> bool {
        self.care_of(home) == Some(care_of)
    }

    /// Every registration.
    pub fn homes(&self) -> impl Iterator<Item = (Ipv6Addr, &Home)> {
        self.homes.iter().map(|(address, home)| (*address, home))
    }

    /// What has changed for the data path since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        core::mem::take(&mut self.changes)
    }

    /// When [`HomeAgent::handle_timeout`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Lets registrations expire.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(address) = self.timers.due(now) {
            if let Some(home) = self.homes.get(&address).copied() {
                self.let_go(address, (home.sequence, home.timestamp));
            }
        }
    }
}

fn in_prefix(address: Ipv6Addr, (prefix, len): (Ipv6Addr, u8)) -> bool {
    let differs = address.to_bits() ^ prefix.to_bits();
    len == 0 || differs >> (128 - u32::from(len.min(128))) == 0
}
