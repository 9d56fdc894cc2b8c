//! The neighbour cache (RFC 4861 section 7): link-layer addresses, whether they still hold, and the packets that
//! wait for one.

#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::net::Ipv6Addr;
use core::time::Duration;

use smoltcp::wire::EthernetAddress;

use crate::ip::Packet;
use crate::time::Instant;

/// RFC 4861 section 10: how long a confirmation holds.
const REACHABLE: Duration = Duration::from_secs(30);
/// RFC 4861 section 10: between two solicitations.
const RETRANS: Duration = Duration::from_secs(1);
/// RFC 4861 section 10: how long the upper layer has to confirm before we probe.
const DELAY_FIRST_PROBE: Duration = Duration::from_secs(5);
/// RFC 4861 section 10: both of `MAX_MULTICAST_SOLICIT` and `MAX_UNICAST_SOLICIT`.
const MAX_SOLICIT: u8 = 3;

/// Neighbours remembered at most; whoever can send on the link could fill the memory otherwise.
const MAX_ENTRIES: usize = 512;
/// Neighbours being resolved at the same time at most, each with its queue.
const MAX_INCOMPLETE: usize = 64;
/// What waits for one neighbour at most.
const QUEUE: Room = Room { packets: 256, octets: 128 << 10 };
/// What waits for the gateway at most: a host to which many connections come at once has something to send on each.
const GATEWAY_QUEUE: Room = Room { packets: 16 << 10, octets: 16 << 20 };

/// How much may wait.
#[derive(Clone, Copy, Debug)]
struct Room {
    packets: usize,
    octets: usize,
}

/// What a cache wants done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Ask for the target's address: all that may have it, or the one that had it.
    Solicit { target: Ipv6Addr, to: Option<EthernetAddress> },
    /// A packet that waited can be sent now.
    Send { to: EthernetAddress, packet: Packet },
    /// A packet waited in vain.
    Unreachable { packet: Packet },
}

/// The parts of a neighbour advertisement that matter here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Advert {
    pub(crate) target: Ipv6Addr,
    pub(crate) mac: Option<EthernetAddress>,
    pub(crate) solicited: bool,
    pub(crate) overriding: bool,
}

/// RFC 4861 section 7.3.2. A reachable neighbour becomes stale by the clock alone, with no timer.
#[derive(Debug, PartialEq, Eq)]
enum State {
    Incomplete { waiting: VecDeque<Packet>, octets: usize, asked: u8, again: Instant },
    Reachable { mac: EthernetAddress, until: Instant },
    Stale { mac: EthernetAddress },
    Delay { mac: EthernetAddress, until: Instant },
    Probe { mac: EthernetAddress, asked: u8, again: Instant },
}

impl State {
    fn mac(&self) -> Option<EthernetAddress> {
        match self {
            Self::Incomplete { .. } => None,
            Self::Reachable { mac, .. }
            | Self::Stale { mac }
            | Self::Delay { mac, .. }
            | Self::Probe { mac, .. } => Some(*mac),
        }
    }

    fn timer(&self) -> Option<Instant> {
        match self {
            Self::Reachable { .. } | Self::Stale { .. } => None,
            Self::Incomplete { again: at, .. }
            | Self::Delay { until: at, .. }
            | Self::Probe { again: at, .. } => Some(*at),
        }
    }
}

#[derive(Debug)]
struct Entry {
    state: State,
    /// Last sent to, or heard from. The oldest goes first when room is needed.
    used: Instant,
}

/// The neighbours of one interface.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    entries: BTreeMap<Ipv6Addr, Entry>,
    /// When which entry needs attention: the timers of all entries, in order.
    timers: BTreeSet<(Instant, Ipv6Addr)>,
    /// What is to be done, in order.
    pub(crate) actions: VecDeque<Action>,
    /// The neighbour that is never evicted: the gateway.
    kept: Option<Ipv6Addr>,
    /// Packets dropped because too many waited.
    pub(crate) overflowed: u64,
}

impl Cache {
    /// An empty cache that never forgets `kept` to make room.
    pub(crate) fn new(kept: Option<Ipv6Addr>) -> Self {
        Self { kept, ..Self::default() }
    }

    /// The packet back with the link-layer address to send it to; `None` if it has to wait for that.
    pub(crate) fn route(
        &mut self,
        to: Ipv6Addr,
        packet: Packet,
        now: Instant,
    ) -> Option<(EthernetAddress, Packet)> {
        let room = self.room(to);
        let Some(entry) = self.entries.get_mut(&to) else {
            self.resolve(to, Some(packet), now);
            return None;
        };
        entry.used = now;
        match &mut entry.state {
            State::Incomplete { waiting, octets, .. } => {
                self.overflowed += enqueue(waiting, octets, room, packet);
                None
            }
            State::Reachable { mac, until } if now < *until => Some((*mac, packet)),
            // RFC 4861 section 7.3.3: the first packet to a stale neighbour is sent, and the clock starts.
            State::Reachable { mac, .. } | State::Stale { mac } => {
                let mac = *mac;
                self.change(to, State::Delay { mac, until: now + DELAY_FIRST_PROBE });
                Some((mac, packet))
            }
            State::Delay { mac, .. } | State::Probe { mac, .. } => Some((*mac, packet)),
        }
    }

    /// Finds the neighbour that is never evicted before something is to be sent to it.
    pub(crate) fn look_for_kept(&mut self, now: Instant) {
        if let Some(kept) = self.kept.filter(|kept| !self.entries.contains_key(kept)) {
            self.resolve(kept, None, now);
        }
    }

    /// Whether the neighbour that is never evicted has said where it is.
    pub(crate) fn has_found_kept(&self) -> bool {
        self.kept.and_then(|kept| self.entries.get(&kept)).is_some_and(|entry| entry.state.mac().is_some())
    }

    fn room(&self, neighbour: Ipv6Addr) -> Room {
        if self.kept == Some(neighbour) { GATEWAY_QUEUE } else { QUEUE }
    }

    /// RFC 4861 section 7.2.2.
    fn resolve(&mut self, target: Ipv6Addr, packet: Option<Packet>, now: Instant) {
        let incomplete = |entry: &Entry| matches!(entry.state, State::Incomplete { .. });
        if self.entries.values().filter(|entry| incomplete(entry)).count() >= MAX_INCOMPLETE {
            self.evict(|entry, kept| !kept && incomplete(entry));
        }
        self.make_room(now);
        let (mut waiting, mut octets) = (VecDeque::new(), 0);
        if let Some(packet) = packet {
            self.overflowed += enqueue(&mut waiting, &mut octets, self.room(target), packet);
        }
        self.insert(target, State::Incomplete { waiting, octets, asked: 1, again: now + RETRANS }, now);
        self.actions.push_back(Action::Solicit { target, to: None });
    }

    /// A neighbour told its link-layer address in a solicitation (RFC 4861 section 7.2.3).
    pub(crate) fn heard(&mut self, from: Ipv6Addr, mac: EthernetAddress, now: Instant) {
        match self.entries.get(&from).map(|entry| entry.state.mac()) {
            Some(known) if known == Some(mac) => {}
            Some(_) => self.learn(from, State::Stale { mac }, now),
            None => {
                self.make_room(now);
                self.insert(from, State::Stale { mac }, now);
            }
        }
    }

    /// RFC 4861 section 7.2.5. An advertisement from somebody we never asked for creates no entry.
    pub(crate) fn advertised(&mut self, advert: Advert, now: Instant) {
        let Some(entry) = self.entries.get(&advert.target) else { return };
        let reachable = |mac| State::Reachable { mac, until: now + REACHABLE };
        let (known, told) = (entry.state.mac(), advert.mac);
        let Some(mac) = told.or(known) else { return };
        let changed = known != Some(mac);
        let next = match known {
            None if advert.solicited => reachable(mac),
            None => State::Stale { mac },
            Some(old) if changed && !advert.overriding => match entry.state {
                State::Reachable { .. } => State::Stale { mac: old },
                _ => return,
            },
            Some(_) if advert.solicited => reachable(mac),
            Some(_) if changed => State::Stale { mac },
            Some(_) => return,
        };
        self.learn(advert.target, next, now);
    }

    /// The upper layer made progress through this neighbour (RFC 4861 section 7.3.1).
    pub(crate) fn confirm(&mut self, neighbour: Ipv6Addr, now: Instant) {
        let Some(entry) = self.entries.get_mut(&neighbour) else { return };
        if let State::Reachable { until, .. } = &mut entry.state {
            *until = now + REACHABLE;
        } else if let Some(mac) = entry.state.mac() {
            self.change(neighbour, State::Reachable { mac, until: now + REACHABLE });
        }
    }

    /// When [`Cache::expire`] wants to be called next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Lets every timer go off that is due.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some((at, neighbour)) = self.timers.first().copied() {
            if at > now {
                break;
            }
            self.timers.remove(&(at, neighbour));
            self.expire_one(neighbour, now);
        }
    }

    /// RFC 4861 section 7.3.3.
    fn expire_one(&mut self, target: Ipv6Addr, now: Instant) {
        let Some(Entry { state, .. }) = self.entries.get_mut(&target) else { return };
        let to = state.mac();
        match state {
            State::Incomplete { asked, .. } | State::Probe { asked, .. } if *asked >= MAX_SOLICIT => {
                self.forget(target);
                return;
            }
            State::Incomplete { asked, again, .. } | State::Probe { asked, again, .. } => {
                *asked += 1;
                *again = now + RETRANS;
                self.timers.insert((*again, target));
            }
            State::Delay { mac, .. } => {
                let mac = *mac;
                self.change(target, State::Probe { mac, asked: 1, again: now + RETRANS });
            }
            State::Reachable { .. } | State::Stale { .. } => return,
        }
        self.actions.push_back(Action::Solicit { target, to });
    }

    /// Removes an entry; what waited for it is given back as unreachable.
    fn forget(&mut self, neighbour: Ipv6Addr) {
        let Some(Entry { state, .. }) = self.entries.remove(&neighbour) else { return };
        if let Some(at) = state.timer() {
            self.timers.remove(&(at, neighbour));
        }
        if let State::Incomplete { waiting, .. } = state {
            self.actions.extend(waiting.into_iter().map(|packet| Action::Unreachable { packet }));
        }
    }

    /// Changes the state of an entry that may be incomplete until now, and lets go what waited.
    fn learn(&mut self, neighbour: Ipv6Addr, next: State, now: Instant) {
        let to = next.mac();
        let old = self.change(neighbour, next);
        if let (Some(State::Incomplete { waiting, .. }), Some(to)) = (old, to) {
            self.actions.extend(waiting.into_iter().map(|packet| Action::Send { to, packet }));
            // What waited is traffic: a stale neighbour has to prove itself (RFC 4861 section 7.3.3).
            if let Some(Entry { state: State::Stale { mac }, .. }) = self.entries.get(&neighbour) {
                let mac = *mac;
                self.change(neighbour, State::Delay { mac, until: now + DELAY_FIRST_PROBE });
            }
        }
    }

    /// Changes the state of an entry, and the timer with it; gives the old state back.
    fn change(&mut self, neighbour: Ipv6Addr, next: State) -> Option<State> {
        let entry = self.entries.get_mut(&neighbour)?;
        if let Some(at) = entry.state.timer() {
            self.timers.remove(&(at, neighbour));
        }
        if let Some(at) = next.timer() {
            self.timers.insert((at, neighbour));
        }
        Some(core::mem::replace(&mut entry.state, next))
    }

    fn insert(&mut self, neighbour: Ipv6Addr, state: State, now: Instant) {
        if let Some(at) = state.timer() {
            self.timers.insert((at, neighbour));
        }
        self.entries.insert(neighbour, Entry { state, used: now });
    }

    fn make_room(&mut self, now: Instant) {
        if self.entries.len() < MAX_ENTRIES {
            return;
        }
        let reachable =
            |entry: &Entry, now| matches!(entry.state, State::Reachable { until, .. } if now < until);
        if !self.evict(|entry, kept| !kept && !reachable(entry, now)) {
            self.evict(|_, kept| !kept);
        }
    }

    /// Removes the entry that was used least recently among those that `may_go`; says whether there was one.
    fn evict(&mut self, may_go: impl Fn(&Entry, bool) -> bool) -> bool {
        let kept = self.kept;
        let candidates =
            self.entries.iter().filter(|(address, entry)| may_go(entry, kept == Some(**address)));
        let Some(oldest) = candidates.min_by_key(|(_, entry)| entry.used).map(|(address, _)| *address) else {
            return false;
        };
        self.forget(oldest);
        true
    }
}

/// Appends a packet; the oldest make room for it (RFC 4861 section 7.2.2). Says how many had to go.
fn enqueue(waiting: &mut VecDeque<Packet>, octets: &mut usize, room: Room, packet: Packet) -> u64 {
    *octets += packet.len();
    waiting.push_back(packet);
    let mut dropped = 0;
    while waiting.len() > room.packets || *octets > room.octets {
        let Some(oldest) = waiting.pop_front() else { break };
        *octets -= oldest.len();
        dropped += 1;
    }
    dropped
}
