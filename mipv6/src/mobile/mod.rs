//! The mobile node's side (RFC 6275 section 11), as each node of a group plays it for the clients whose connections
//! it owns: finds out whether a client understands Mobile IPv6, proves to it that the service address is here now,
//! and keeps that belief alive.
//!
//! Sans-I/O: messages and time in, messages and deadlines out. What is known of a client is a plain value,
//! [`Client`], so that a handoff takes the tokens along and the next node needs one message only.

mod client;
mod room;
#[cfg(test)]
mod tests;
mod told;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use core::net::Ipv6Addr;
use core::time::Duration;

use ferry_stack::{Alarms, Instant};

pub use self::client::{Ability, Asked, Bound, Client, Held, Tested, Update};
use self::told::{acknowledged, ask, forget_tokens, give_up, may_believe, signed_update};
use crate::correspondent::Outgoing;
use crate::header::{BindingErrorStatus, Message, Received, Status};
use crate::keys::Cookies;

/// Tests that stay without an answer before a client counts as plain: errors may be lost, and are rate-limited.
const MAX_PROBES: u8 = 3;
/// The same for a client that has answered before.
const MAX_AWARE_PROBES: u8 = 8;
/// Binding Updates that stay unacknowledged before the tokens are fetched anew: a client that has started anew is
/// silent to those of its former life (RFC 6275 section 9.5.1).
const MAX_WITH_TOKENS: u8 = 2;
/// Binding Updates that stay unacknowledged before the path counts as one that does not carry them.
/// A client that has accepted one meanwhile sends into the void, so they are few.
const MAX_UPDATES: u8 = 4;
/// How long a client counts as plain before it is asked again, if nothing else is said.
const PLAIN_FOR: Duration = Duration::from_mins(10);
/// A binding is renewed so early.
const RENEW_BEFORE: Duration = Duration::from_mins(1);
/// Clients remembered at most. Those that have no connection here make room, the one first that has had none for
/// longest; a client more, while all have some, is served as a plain one.
const MAX_CLIENTS: usize = 1 << 17;

/// By which way a client is reached now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Through the home address, which any IPv6 host understands.
    Relayed,
    /// Straight from the care-of address, with a Home Address option: the client has acknowledged the binding.
    Optimised,
}

/// What a node does for a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    /// Remembers.
    Idle,
    /// Keeps a care-of token, to take its connections over at any moment.
    Standby,
    /// Owns its connections: has it believe that the service address is here.
    Owner,
    /// Owns none of its connections any more, and has it believe that the service address is at home.
    Leaving,
}

#[derive(Debug)]
struct Entry {
    client: Client<Instant>,
    role: Role,
    /// Its place among the idle ones, while it is one.
    idle: Option<u64>,
}

/// The mobile node's side of one node.
#[derive(Debug)]
pub struct Mobile {
    home: Ipv6Addr,
    /// Our care-of address; the home address itself while this node is at home.
    here: Ipv6Addr,
    persistent: bool,
    plain_for: Duration,
    cookies: Cookies,
    clients: BTreeMap<Ipv6Addr, Entry>,
    /// Clients that have no connection here, in the order in which they became idle.
    idle: BTreeSet<(u64, Ipv6Addr)>,
    /// Counts clients that became idle.
    freed: u64,
    timers: Alarms<Ipv6Addr>,
    outgoing: VecDeque<Outgoing>,
}

impl Mobile {
    /// A node at `here` that serves `home`. `secret` makes the cookies that nobody can guess.
    pub fn new(home: Ipv6Addr, here: Ipv6Addr, secret: [u8; 20]) -> Self {
        Self {
            home,
            here,
            persistent: false,
            plain_for: PLAIN_FOR,
            cookies: Cookies::new(secret),
            clients: BTreeMap::new(),
            idle: BTreeSet::new(),
            freed: 0,
            timers: Alarms::default(),
            outgoing: VecDeque::new(),
        }
    }

    /// Never takes a client for a plain one, for networks in which all clients are known to understand.
    pub const fn persist(mut self) -> Self {
        self.persistent = true;
        self
    }

    /// Asks a client that counts as plain again after so long, instead of ten minutes.
    #[must_use]
    pub const fn asking_again(mut self, after: Duration) -> Self {
        self.plain_for = after;
        self
    }

    /// The node has come home, or has left home.
    pub fn set_here(&mut self, here: Ipv6Addr, now: Instant) {
        self.here = here;
        let owned: alloc::vec::Vec<_> = self.clients.keys().copied().collect();
        for client in owned {
            self.advance(client, now);
        }
    }

    /// This node owns connections of the client: from now on it is to be told. A node at home has nothing to tell
    /// to a client of which nobody knows anything.
    pub fn own(&mut self, client: Ipv6Addr, now: Instant) {
        if self.here == self.home && !self.clients.contains_key(&client) {
            return;
        }
        self.play(client, Role::Owner, now);
    }

    /// This node may have to take the client's connections over.
    pub fn stand_by(&mut self, client: Ipv6Addr, now: Instant) {
        self.play(client, Role::Standby, now);
    }

    /// The same, with what the node knows that owns them now: tokens of a client that understands are kept, and it is not
    /// asked whether it does.
    pub fn back(&mut self, client: Ipv6Addr, known: Client<Duration>, now: Instant) {
        let mut known = self.with_ours(client, known, now);
        (known.bound, known.unsure) = (None, false);
        if self.make_room() {
            self.put(client, known, Role::Standby);
            self.advance(client, now);
        }
    }

    /// This node has nothing to do with the client any more; what it knows stays for a while.
    pub fn release(&mut self, client: Ipv6Addr) {
        let Some(entry) = self.clients.get_mut(&client) else { return };
        entry.role = Role::Idle;
        if entry.idle.is_none() {
            self.freed += 1;
            entry.idle = Some(self.freed);
            self.idle.insert((self.freed, client));
        }
        self.timers.set(client, None);
    }

    /// The client still sends here, and this node owns none of its connections any more: it is told to send home.
    pub fn leave(&mut self, client: Ipv6Addr, now: Instant) {
        let here = self.here;
        let bound = |client: &Client<Instant>| client.binding(now).is_some_and(|bound| bound.care_of == here);
        if let Some(entry) = self.clients.get_mut(&client).filter(|entry| entry.role == Role::Idle)
            && bound(&entry.client)
        {
            entry.role = Role::Leaving;
            self.advance(client, now);
        }
    }

    fn play(&mut self, client: Ipv6Addr, role: Role, now: Instant) {
        let known = self.take(client);
        if known.is_some() || self.make_room() {
            self.put(client, known.unwrap_or_default(), role);
            self.advance(client, now);
        }
    }

    /// Takes what is known of a client along with its connections.
    pub fn export(&self, client: Ipv6Addr, now: Instant) -> Option<Client<Duration>> {
        self.clients.get(&client).map(|entry| entry.client.clone().freeze(now))
    }

    /// Takes over what another node knew of a client, whose connections have come here.
    pub fn import(&mut self, address: Ipv6Addr, client: Client<Duration>, now: Instant) {
        let mut client = self.with_ours(address, client, now);
        client.unsure = client.ability == Ability::Aware;
        if self.make_room() {
            self.put(address, client, Role::Owner);
            self.advance(address, now);
        }
    }

    /// What another node knew of a client, and what this one did, which is forgotten for the moment. Our own tests of our own
    /// care-of address are later than those that travelled.
    fn with_ours(&mut self, address: Ipv6Addr, client: Client<Duration>, now: Instant) -> Client<Instant> {
        let mut client = client.thaw(now);
        if let Some(ours) = self.take(address) {
            if let Some(tested) = ours.care_of.get(&self.here) {
                client.care_of.insert(self.here, *tested);
            }
            if client.home.fresh(now).is_none() {
                client.home = ours.home;
            }
        }
        client.limit(self.here);
        client.update = None;
        client
    }

    /// What is known of a client.
    pub fn client(&self, client: Ipv6Addr) -> Option<&Client<Instant>> {
        self.clients.get(&client).map(|entry| &entry.client)
    }

    /// Whether a Binding Update from here needs no care-of test: there is a fresh token, or this node is at home.
    pub fn is_ready(&self, client: Ipv6Addr, now: Instant) -> bool {
        let token = |client: &Client<Instant>| {
            client.care_of.get(&self.here).is_some_and(|tested| tested.fresh(now).is_some())
        };
        self.here == self.home || self.client(client).is_some_and(token)
    }

    /// How the client is reached now. Never with a Home Address option before it has acknowledged the binding
    /// (RFC 6275 section 11.3.1).
    pub fn mode(&self, client: Ipv6Addr, now: Instant) -> Mode {
        if self.here == self.home {
            return Mode::Relayed;
        }
        let client = self.client(client).filter(|client| !client.unsure);
        let bound = client.and_then(|client| client.binding(now));
        if bound.is_some_and(|bound| bound.care_of == self.here) { Mode::Optimised } else { Mode::Relayed }
    }

    /// The optimised path does not work (data stayed unacknowledged after the switch, or an ICMPv6 error quotes a
    /// packet of ours with Mobile IPv6 in it): the client is reached as a plain one and told so if it may believe something
    /// else. For ten seconds at first, since most outages are short, then for twice as long each time.
    pub fn failed(&mut self, client: Ipv6Addr, now: Instant) {
        if self.persistent {
            return;
        }
        if let Some(entry) = self.clients.get_mut(&client) {
            let told = may_believe(&entry.client, now);
            let pause = entry.client.pause(self.plain_for);
            give_up(&mut entry.client, now + pause);
            entry.client.unsure = told;
            self.advance(client, now);
        }
    }

    /// The client was sending, and has fallen silent: what it sends with a routing header may be lost on the way, as the
    /// acknowledgement of a Binding Update would be, so that the binding is renewed now. The binding itself cannot
    /// tell: it ends in minutes.
    pub fn verify(&mut self, client: Ipv6Addr, now: Instant) {
        if let Some(bound) = self.clients.get_mut(&client).and_then(|entry| entry.client.bound.as_mut()) {
            bound.renew = now;
            self.advance(client, now);
        }
    }

    /// Whether the client may believe that the service address is somewhere else than at home: it has acknowledged so,
    /// or may have without our hearing of it.
    pub fn may_be_bound(&self, client: Ipv6Addr, now: Instant) -> bool {
        self.client(client).is_some_and(|client| may_believe(client, now))
    }

    /// Takes a message of a client. `false` if it is of no use here; another node may have asked for it.
    pub fn receive(&mut self, received: &Received, now: Instant) -> bool {
        let address = received.source;
        let (home, here, plain_until) = (self.home, self.here, now + self.plain_for);
        let Some(Entry { client, .. }) = self.clients.get_mut(&address) else { return false };
        let taken = match &received.message {
            Message::HomeTest(test) => received.destination == home && client.home.answer(test, now),
            Message::CareOfTest(test) => {
                let answers = received.destination == here && client.test_of(here).answer(test, now);
                if answers {
                    client.ability = Ability::Aware;
                }
                answers
            }
            Message::BindingAcknowledgement(_) => acknowledged(client, received, home, plain_until, now),
            Message::BindingRefreshRequest => client.bound.as_mut().is_some_and(|bound| {
                bound.renew = now;
                true
            }),
            Message::BindingError { status, home_address } => match *status {
                // It has lost the binding, most likely because it has started anew, and then its old tokens are good for
                // nothing: both are made anew (section 11.3.6).
                BindingErrorStatus::NO_BINDING if *home_address == home => {
                    client.bound.take().is_some() && forget_tokens(client, here, Status::NONCES)
                }
                BindingErrorStatus::UNKNOWN_TYPE => {
                    give_up(client, plain_until);
                    true
                }
                _ => false,
            },
            _ => false,
        };
        self.advance(address, now);
        taken
    }

    /// The next message to send.
    pub fn poll(&mut self) -> Option<Outgoing> {
        self.outgoing.pop_front()
    }

    /// When [`Mobile::handle_timeout`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Does what has come due.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(client) = self.timers.due(now) {
            self.advance(client, now);
        }
    }

    /// Does for a client whatever is to be done next, and sets its timer.
    fn advance(&mut self, address: Ipv6Addr, now: Instant) {
        let Some(mut entry) = self.clients.remove(&address) else { return };
        let deadline = match entry.role {
            Role::Idle => None,
            Role::Standby => self.stand_ready(address, &mut entry.client, now),
            Role::Owner => self.keep_bound(address, &mut entry.client, now),
            Role::Leaving if entry.client.binding(now).is_some() || entry.client.unsure => {
                self.send_home(address, &mut entry.client, now)
            }
            Role::Leaving => {
                entry.role = Role::Idle;
                None
            }
        };
        // What is due at this moment was done; the same moment again would be a circle.
        let deadline = deadline.map(|at| if at > now { at } else { now + Duration::from_millis(1) });
        self.clients.insert(address, entry);
        self.timers.set(address, deadline);
    }

    /// Has a care-of token at hand; and a home token, if nobody is known who would bring one along.
    fn stand_ready(
        &mut self,
        address: Ipv6Addr,
        client: &mut Client<Instant>,
        now: Instant,
    ) -> Option<Instant> {
        let unknown = client.ability == Ability::Unknown;
        let ready = self.keep_ready(address, client, now);
        let home = (unknown && self.here != self.home).then(|| self.keep_home_token(address, client, now));
        [ready, home.flatten()].into_iter().flatten().min()
    }

    /// Has a care-of token at hand.
    fn keep_ready(
        &mut self,
        address: Ipv6Addr,
        client: &mut Client<Instant>,
        now: Instant,
    ) -> Option<Instant> {
        if self.here == self.home {
            return None;
        }
        match client.ability {
            Ability::Plain { until } if now < until => return Some(until),
            Ability::Plain { .. } => {
                client.ability = Ability::Unknown;
                // What went unanswered before is not held against it.
                (client.home.asked, client.test_of(self.here).asked) = (None, None);
            }
            Ability::Unknown | Ability::Aware => {}
        }
        let here = self.here;
        let most = if client.ability == Ability::Aware { MAX_AWARE_PROBES } else { MAX_PROBES };
        let tested = client.test_of(here);
        if tested.is_due(now) {
            if !self.persistent && tested.asked.is_some_and(|asked| asked.tries >= most) {
                tested.asked = None;
                return Some(give_up(client, now + self.plain_for));
            }
            let cookie = ask(tested, &mut self.cookies, now);
            self.outgoing.push_back(Outgoing::plain(here, address, Message::CareOfTestInit(cookie)));
        }
        client.test_of(here).deadline(now)
    }

    /// Has the client believe that the service address is here.
    fn keep_bound(
        &mut self,
        address: Ipv6Addr,
        client: &mut Client<Instant>,
        now: Instant,
    ) -> Option<Instant> {
        let target = self.target(client, now);
        let tests = if target == self.home {
            if client.binding(now).is_none() && !client.unsure {
                // The client believes that the service address is at home: nothing to do.
                (client.bound, client.update) = (None, None);
                return self.keep_ready(address, client, now);
            }
            let again = if let Ability::Plain { until } = client.ability { Some(until) } else { None };
            [again, self.keep_home_token(address, client, now)].into_iter().flatten().min()
        } else {
            let ready = self.keep_ready(address, client, now);
            // Both tests at once (RFC 6275 section 11.6.1), also of a client of which nobody knows whether it answers.
            if matches!(client.ability, Ability::Plain { .. }) {
                return ready;
            }
            [ready, self.keep_home_token(address, client, now)].into_iter().flatten().min()
        };
        let update = self.keep_update(address, client, target, now);
        [tests, update].into_iter().flatten().min()
    }

    /// Has the client believe that the service address is at home, from wherever this node is.
    fn send_home(
        &mut self,
        address: Ipv6Addr,
        client: &mut Client<Instant>,
        now: Instant,
    ) -> Option<Instant> {
        let tests = self.keep_home_token(address, client, now);
        let update = self.keep_update(address, client, self.home, now);
        [tests, update].into_iter().flatten().min()
    }

    /// Where the client is to believe that the service address is: at home, if this node is, or if the path to here
    /// does not carry what it takes.
    fn target(&self, client: &Client<Instant>, now: Instant) -> Ipv6Addr {
        match client.ability {
            Ability::Plain { until } if now < until => self.home,
            _ => self.here,
        }
    }

    /// Has a home token at hand. The test goes from the home address, so by way of the contact node.
    fn keep_home_token(
        &mut self,
        address: Ipv6Addr,
        client: &mut Client<Instant>,
        now: Instant,
    ) -> Option<Instant> {
        if client.home.is_due(now) {
            let cookie = ask(&mut client.home, &mut self.cookies, now);
            self.outgoing.push_back(Outgoing::plain(self.home, address, Message::HomeTestInit(cookie)));
        }
        client.home.deadline(now)
    }

    /// Sends a Binding Update to `target` if one is due and can be signed.
    fn keep_update(
        &mut self,
        address: Ipv6Addr,
        client: &mut Client<Instant>,
        target: Ipv6Addr,
        now: Instant,
    ) -> Option<Instant> {
        let bound = client.binding(now).filter(|_| !client.unsure).copied();
        if let Some(bound) = bound.filter(|bound| bound.care_of == target && now < bound.renew) {
            client.update = None;
            return Some(bound.renew);
        }
        let pending = client.update.filter(|update| update.care_of == target);
        if let Some(update) = pending.filter(|update| now < update.again) {
            return Some(update.again);
        }
        let tries = pending.map_or(0, |update| update.tries);
        if tries >= MAX_UPDATES && !self.persistent {
            // The path does not carry them, or the client does not believe us. It may have believed one whose
            // acknowledgement is lost, as all that it sends with a routing header is: it is told to forget it.
            let until = give_up(client, now + self.plain_for);
            client.unsure = target != self.home;
            return Some(if client.unsure { now } else { until });
        }
        if tries == MAX_WITH_TOKENS && pending.is_some_and(|update| !update.renewed) {
            forget_tokens(client, target, Status::NONCES);
            client.update = Some(Update { care_of: target, again: now, tries, renewed: true });
            return Some(now);
        }
        let message = signed_update(self.home, address, client, target, now)?;
        self.outgoing.push_back(message);
        let again = now + client::patience(tries + 1);
        let renewed = pending.is_some_and(|update| update.renewed);
        client.update = Some(Update { care_of: target, again, tries: tries + 1, renewed });
        Some(again)
    }
}
