//! A correspondent node (RFC 6275 section 9): answers the tests of return routability without keeping state, and
//! keeps the bindings of mobile nodes that have proved where they are.
//!
//! Sans-I/O: [`Correspondent::receive`] takes what came and gives what is to be sent.

#[cfg(test)]
mod tests;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::Ipv6Addr;
use core::time::Duration;

use ferry_stack::{Alarms, Instant};

use crate::header::{
    BindingAcknowledgement, BindingErrorStatus, BindingUpdate, Lifetime, Message, Options, Received, Status,
    Test,
};
use crate::keys::{self, Key, Nonces};

/// Bindings kept at most; a new one beyond it is refused (RFC 6275 section 9.5.1: status 130).
const MAX_BINDINGS: usize = 1 << 17;
/// Before a binding in use expires, its mobile node is asked to renew it so early (RFC 6275 section 9.5.5).
const REFRESH_BEFORE: Duration = Duration::from_secs(30);

/// Whose binding it is: our address, and the mobile node's home address.
pub type Pair = (Ipv6Addr, Ipv6Addr);

/// What a timer of a binding is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Timer {
    /// It expires.
    Expiry,
    /// The mobile node is asked to renew it.
    Refresh,
    /// The sequence number of what is gone is forgotten.
    Forget,
}

/// Where a mobile node is (RFC 6275 section 9.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Binding {
    /// Its care-of address.
    pub care_of: Ipv6Addr,
    /// Until when that holds.
    pub until: Instant,
    /// The sequence number of the last Binding Update that was accepted.
    pub sequence: u16,
    /// When the mobile node is asked to renew it, if traffic uses it.
    refresh_at: Instant,
    /// Whether traffic has used it since it was last renewed.
    used: bool,
}

/// A Mobility Header that is to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The source address.
    pub source: Ipv6Addr,
    /// The destination address in the IPv6 header.
    pub destination: Ipv6Addr,
    /// The receiver's home address, if it goes into a type 2 routing header.
    pub routed_home: Option<Ipv6Addr>,
    /// Our own home address, if it goes into a Home Address option.
    pub home_address: Option<Ipv6Addr>,
    /// What to say.
    pub message: Message,
}

impl Outgoing {
    /// A message without extension headers.
    pub const fn plain(source: Ipv6Addr, destination: Ipv6Addr, message: Message) -> Self {
        Self { source, destination, routed_home: None, home_address: None, message }
    }
}

/// What changed for the data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The mobile node is there now.
    Bound(Pair, Binding),
    /// There is no binding any more.
    Unbound(Pair),
}

/// A correspondent node.
#[derive(Debug)]
pub struct Correspondent {
    nonces: Nonces,
    bindings: BTreeMap<Pair, Binding>,
    /// The last sequence numbers of bindings that are gone, until a replay of them would be refused anyway, because
    /// the nonces of their tokens have expired (RFC 6275 sections 9.5.1 and 15.4.4).
    late: BTreeMap<Pair, u16>,
    timers: Alarms<(Pair, Timer)>,
    changes: Vec<Change>,
}

impl Correspondent {
    /// Without bindings; `key` is the node key, Kcn (RFC 6275 section 5.2.1), that nobody else knows.
    pub fn new(key: [u8; 20]) -> Self {
        Self {
            nonces: Nonces::new(key),
            bindings: BTreeMap::new(),
            late: BTreeMap::new(),
            timers: Alarms::default(),
            changes: Vec::new(),
        }
    }

    /// Takes a message, and gives the answer. Call [`Correspondent::handle_timeout`] first if something is due.
    pub fn receive(&mut self, received: &Received, now: Instant) -> Option<Outgoing> {
        match &received.message {
            Message::HomeTestInit(_) | Message::CareOfTestInit(_) => self.test(received, now),
            Message::BindingUpdate(update) => self.update(received, update, now),
            // What a mobile node receives is not for us.
            _ => None,
        }
    }

    /// Answers a test (RFC 6275 sections 9.4.1 to 9.4.4). It goes to where the message came from.
    fn test(&self, received: &Received, now: Instant) -> Option<Outgoing> {
        // Sections 9.4.1 and 9.4.2: a Home Address option has no place here.
        if received.home_address.is_some() {
            return None;
        }
        let nonce_index = Nonces::index(now);
        let answer = |test, cookie| {
            let token = self.nonces.token(test, received.source, nonce_index, now)?;
            Some(Test { nonce_index, cookie, token })
        };
        let message = match received.message {
            Message::HomeTestInit(cookie) => Message::HomeTest(answer(keys::Test::Home, cookie)?),
            Message::CareOfTestInit(cookie) => Message::CareOfTest(answer(keys::Test::CareOf, cookie)?),
            _ => return None,
        };
        Some(Outgoing::plain(received.destination, received.source, message))
    }

    /// RFC 6275 section 9.5.1. What fails silently here might be forged.
    fn update(&mut self, received: &Received, update: &BindingUpdate, now: Instant) -> Option<Outgoing> {
        let home = received.home_address.unwrap_or(received.source);
        let pair = (received.destination, home);
        let care_of = update.options.alternate_care_of.unwrap_or(received.source);
        if !is_unicast(home) || !is_unicast(care_of) {
            return None;
        }
        let deletes = update.lifetime == Lifetime::ZERO || care_of == home;
        let key = match self.key(home, care_of, update, deletes, now)? {
            Ok(key) => key,
            // Section 9.5.4: without a key the answer cannot be signed.
            Err(status) => {
                return Some(acknowledge(received, update.sequence, status, Lifetime::ZERO, None));
            }
        };
        if !received.is_authorized(&key, care_of, received.destination) {
            return None;
        }
        let status = self.judge(pair, update, deletes);
        let sequence = match status {
            Status::SEQUENCE => self.last_sequence(pair).unwrap_or(update.sequence),
            _ => update.sequence,
        };
        let lifetime = if status.is_accepted() && !deletes {
            update.lifetime.min(Lifetime::MAX_ROUTABILITY)
        } else {
            Lifetime::ZERO
        };
        if status.is_accepted() {
            self.accept(pair, care_of, update.sequence, lifetime, now);
        }
        let asked = update.acknowledge || !status.is_accepted();
        asked.then(|| acknowledge(received, sequence, status, lifetime, Some((key, care_of))))
    }

    /// The binding management key of a Binding Update, or why there is none; nothing if it does not name its nonces
    /// or is not signed.
    fn key(
        &self,
        home: Ipv6Addr,
        care_of: Ipv6Addr,
        update: &BindingUpdate,
        deletes: bool,
        now: Instant,
    ) -> Option<Result<Key, Status>> {
        let (home_index, care_of_index) = update.options.nonce_indices?;
        update.options.authorization?;
        let home_token = self.nonces.token(keys::Test::Home, home, home_index, now);
        if deletes {
            // Section 5.2.6: the care-of nonce index is ignored.
            return Some(home_token.map(|token| Key::new(&token, None)).ok_or(Status::HOME_NONCE));
        }
        let care_of_token = self.nonces.token(keys::Test::CareOf, care_of, care_of_index, now);
        Some(match (home_token, care_of_token) {
            (Some(home), Some(care_of)) => Ok(Key::new(&home, Some(&care_of))),
            (None, Some(_)) => Err(Status::HOME_NONCE),
            (Some(_), None) => Err(Status::CARE_OF_NONCE),
            (None, None) => Err(Status::NONCES),
        })
    }

    /// What becomes of a Binding Update whose signature is right.
    fn judge(&self, pair: Pair, update: &BindingUpdate, deletes: bool) -> Status {
        if update.home_registration {
            return Status::NO_HOME_AGENT;
        }
        if self.last_sequence(pair).is_some_and(|last| !is_later(update.sequence, last)) {
            return Status::SEQUENCE;
        }
        if !deletes && !self.bindings.contains_key(&pair) && self.bindings.len() >= MAX_BINDINGS {
            return Status::RESOURCES;
        }
        Status::ACCEPTED
    }

    fn last_sequence(&self, pair: Pair) -> Option<u16> {
        let bound = self.bindings.get(&pair).map(|binding| binding.sequence);
        bound.or_else(|| self.late.get(&pair).copied())
    }

    fn accept(&mut self, pair: Pair, care_of: Ipv6Addr, sequence: u16, lifetime: Lifetime, now: Instant) {
        if lifetime == Lifetime::ZERO {
            self.unbind(pair, sequence, now);
            return;
        }
        let (until, refresh_at) = (now + lifetime.duration(), now + refresh_after(lifetime.duration()));
        let binding = Binding { care_of, until, sequence, refresh_at, used: false };
        self.bindings.insert(pair, binding);
        self.late.remove(&pair);
        self.timers.set((pair, Timer::Expiry), Some(until));
        self.timers.set((pair, Timer::Refresh), None);
        self.timers.set((pair, Timer::Forget), None);
        self.changes.push(Change::Bound(pair, binding));
    }

    fn unbind(&mut self, pair: Pair, sequence: u16, now: Instant) {
        self.timers.set((pair, Timer::Expiry), None);
        self.timers.set((pair, Timer::Refresh), None);
        if self.late.len() < MAX_BINDINGS {
            self.late.insert(pair, sequence);
            self.timers.set((pair, Timer::Forget), Some(now + keys::NONCE_LIFETIME));
        }
        if self.bindings.remove(&pair).is_some() {
            self.changes.push(Change::Unbound(pair));
        }
    }

    /// The binding that packets to and from a mobile node go by.
    pub fn binding(&self, pair: Pair, now: Instant) -> Option<&Binding> {
        self.bindings.get(&pair).filter(|binding| now < binding.until)
    }

    /// The care-of address for a packet to a mobile node; a binding in use will be renewed in time.
    pub fn use_binding(&mut self, pair: Pair, now: Instant) -> Option<Ipv6Addr> {
        let binding = self.bindings.get_mut(&pair).filter(|binding| now < binding.until)?;
        if !core::mem::replace(&mut binding.used, true) {
            self.timers.set((pair, Timer::Refresh), Some(binding.refresh_at));
        }
        Some(binding.care_of)
    }

    /// What a packet that claims a home address deserves (RFC 6275 section 9.3.1): nothing if there is a binding
    /// between that address and where it comes from.
    pub fn check_claim(
        &self,
        ours: Ipv6Addr,
        home: Ipv6Addr,
        source: Ipv6Addr,
        now: Instant,
    ) -> Option<Outgoing> {
        if self.binding((ours, home), now).is_some_and(|binding| binding.care_of == source) {
            return None;
        }
        let status = BindingErrorStatus::NO_BINDING;
        Some(Outgoing::plain(ours, source, Message::BindingError { status, home_address: home }))
    }

    /// Every binding.
    pub fn bindings(&self) -> impl Iterator<Item = (Pair, &Binding)> {
        self.bindings.iter().map(|(pair, binding)| (*pair, binding))
    }

    /// What has changed for the data path since the last call.
    pub fn take_changes(&mut self) -> Vec<Change> {
        core::mem::take(&mut self.changes)
    }

    /// When [`Correspondent::handle_timeout`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Lets bindings expire, and asks for those in use to be renewed (RFC 6275 section 9.5.5). The requests go to
    /// the home addresses.
    pub fn handle_timeout(&mut self, now: Instant) -> Vec<Outgoing> {
        let mut requests = Vec::new();
        while let Some((pair, timer)) = self.timers.due(now) {
            match (timer, self.bindings.get(&pair)) {
                (Timer::Expiry, Some(binding)) => self.unbind(pair, binding.sequence, now),
                (Timer::Refresh, Some(_)) => {
                    requests.push(Outgoing::plain(pair.0, pair.1, Message::BindingRefreshRequest));
                }
                (Timer::Forget, _) => {
                    self.late.remove(&pair);
                }
                (_, None) => {}
            }
        }
        requests
    }
}

/// RFC 6275 section 9.5.4.
fn acknowledge(
    received: &Received,
    sequence: u16,
    status: Status,
    lifetime: Lifetime,
    key: Option<(Key, Ipv6Addr)>,
) -> Outgoing {
    let options = Options::default();
    let mut message =
        Message::BindingAcknowledgement(BindingAcknowledgement { status, sequence, lifetime, options });
    if let Some((key, care_of)) = key {
        message.authorize(&key, care_of, received.destination);
    }
    let routed_home = received.home_address.filter(|home| *home != received.source);
    Outgoing { routed_home, ..Outgoing::plain(received.destination, received.source, message) }
}

/// When a binding that holds for so long is to be renewed.
fn refresh_after(lifetime: Duration) -> Duration {
    lifetime.saturating_sub(REFRESH_BEFORE).max(lifetime / 2)
}

/// Whether one sequence number is later than another, modulo 2¹⁶ (RFC 6275 section 9.5.1).
pub const fn is_later(sequence: u16, than: u16) -> bool {
    let ahead = sequence.wrapping_sub(than);
    ahead != 0 && ahead < 1 << 15
}

/// Whether an address can be a node's, and be routed (RFC 6275 section 9.5.1: a unicast routable address).
pub(crate) fn is_unicast(address: Ipv6Addr) -> bool {
    !address.is_multicast()
        && !address.is_unspecified()
        && !address.is_loopback()
        && !address.is_unicast_link_local()
}
