//! What a group knows of one client: whether it understands Mobile IPv6, the tokens that it gave, and where it
//! believes the service address to be. A plain value, which travels with the client's connections.

use alloc::collections::BTreeMap;
use core::net::Ipv6Addr;
use core::time::Duration;

use ferry_stack::Instant;
use ferry_stack::tcp::tcb::{Arriving, Leaving, Rebase};
use serde::{Deserialize, Serialize};

use crate::header;
use crate::keys::{Cookie, TOKEN_LIFETIME, Token};

/// `INITIAL_BINDACK_TIMEOUT` (RFC 6275 section 12), for tests as well.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// `MAX_BINDACK_TIMEOUT` (RFC 6275 section 12).
const LAST_RETRY: Duration = Duration::from_secs(32);
/// How long the path to a client that has answered before is not used after its first failure: longer than most outages.
/// Each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// A token is not used in the last seconds of its life: the Binding Update must arrive before the nonce expires.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);
/// Care-of addresses whose tests are remembered for one client: as many as a group has nodes.
const MAX_CARE_OF: usize = 64;

/// What a group knows of one client. `At` is [`Instant`] on a node and [`Duration`] (time left, or passed) on its way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client<At> {
    /// Whether it understands Mobile IPv6.
    pub ability: Ability<At>,
    /// The sequence number of the last Binding Update that was sent.
    pub sequence: u16,
    /// The test of the home address.
    pub home: Tested<At>,
    /// The tests of care-of addresses: of this node, and of those that may take its connections over.
    pub care_of: BTreeMap<Ipv6Addr, Tested<At>>,
    /// The Binding Update that is not acknowledged.
    pub update: Option<Update<At>>,
    /// Where the client believes the service address to be.
    pub bound: Option<Bound<At>>,
    /// It may believe something else, because what is known of it has travelled: it is told anew.
    pub unsure: bool,
    /// How often the path to it has failed since a binding was last renewed.
    pub failures: u8,
}

/// Whether a client understands Mobile IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ability<At> {
    /// Nobody has asked, or it has not answered yet.
    Unknown,
    /// It has answered a test.
    Aware,
    /// It has not, or a path to it does not carry what is needed. Asked again after that.
    Plain {
        /// Until then.
        until: At,
    },
}

/// The test of an address (RFC 6275 section 5.2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tested<At> {
    /// What it yielded.
    pub token: Option<Held<At>>,
    /// The message that is not answered.
    pub asked: Option<Asked<At>>,
}

/// A token that was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held<At> {
    /// The token.
    pub token: Token,
    /// The nonce that it was made with.
    pub nonce_index: u16,
    /// When it came.
    pub at: At,
}

/// A test that is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asked<At> {
    /// What the answer will repeat.
    pub cookie: Cookie,
    /// When to ask again.
    pub again: At,
    /// How often it was asked.
    pub tries: u8,
}

/// A Binding Update that is not acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update<At> {
    /// The care-of address; the home address if the binding is to be deleted.
    pub care_of: Ipv6Addr,
    /// When to send it again.
    pub again: At,
    /// How often it was sent.
    pub tries: u8,
    /// Whether the tokens have been fetched anew because of it.
    pub renewed: bool,
}

/// A binding at the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound<At> {
    /// Where the client believes the service address to be.
    pub care_of: Ipv6Addr,
    /// Until when it believes it.
    pub until: At,
    /// When it is to be renewed.
    pub renew: At,
}

impl<At> Default for Tested<At> {
    fn default() -> Self {
        Self { token: None, asked: None }
    }
}

impl<At> Default for Client<At> {
    fn default() -> Self {
        Self {
            ability: Ability::Unknown,
            sequence: 0,
            home: Tested::default(),
            care_of: BTreeMap::new(),
            update: None,
            bound: None,
            unsure: false,
            failures: 0,
        }
    }
}

/// How long to wait for an answer to the message that was sent `tries` times (RFC 6275 section 11.8).
pub(super) fn patience(tries: u8) -> Duration {
    (FIRST_RETRY * 2_u32.saturating_pow(u32::from(tries.saturating_sub(1)))).min(LAST_RETRY)
}

impl Tested<Instant> {
    /// The token, if it can be used now.
    pub fn fresh(&self, now: Instant) -> Option<&Held<Instant>> {
        self.token.as_ref().filter(|held| held.at.since(now) + TOKEN_MARGIN < TOKEN_LIFETIME)
    }

    /// When the token will have to be fetched anew.
    pub(super) fn stale_at(&self) -> Option<Instant> {
        self.token.as_ref().map(|held| held.at + TOKEN_LIFETIME.saturating_sub(TOKEN_MARGIN))
    }

    /// Whether a message is to be sent now, because there is neither a token nor an answer to wait for.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.fresh(now).is_none() && self.asked.is_none_or(|asked| asked.again <= now)
    }

    /// When something is to be done about it.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        match (&self.asked, self.fresh(now)) {
            (Some(asked), None) => Some(asked.again),
            _ => self.stale_at(),
        }
    }

    /// An answer came; `false` if it is none to what was asked.
    pub(super) fn answer(&mut self, test: &header::Test, now: Instant) -> bool {
        let answers = self.asked.is_some_and(|asked| asked.cookie == test.cookie);
        if answers {
            self.asked = None;
            self.token = Some(Held { token: test.token, nonce_index: test.nonce_index, at: now });
        }
        answers
    }
}

impl Client<Instant> {
    /// The test of a care-of address; that of another one makes room if there are too many.
    pub(super) fn test_of(&mut self, care_of: Ipv6Addr) -> &mut Tested<Instant> {
        if self.care_of.len() >= MAX_CARE_OF && !self.care_of.contains_key(&care_of) {
            self.care_of.pop_first();
        }
        self.care_of.entry(care_of).or_default()
    }

    /// Another node may have sent any number of tests: no more than are remembered here, and that of `care_of`.
    pub(super) fn limit(&mut self, care_of: Ipv6Addr) {
        while self.care_of.len() > MAX_CARE_OF
            && let Some(last) = self.care_of.keys().copied().rfind(|address| *address != care_of)
        {
            self.care_of.remove(&last);
        }
    }

    /// The binding, if the client still has it.
    pub fn binding(&self, now: Instant) -> Option<&Bound<Instant>> {
        self.bound.as_ref().filter(|bound| now < bound.until)
    }

    /// The path has failed once more. How long not to use it, at most `most`.
    pub(super) fn pause(&mut self, most: Duration) -> Duration {
        let pause = FIRST_PAUSE.saturating_mul(1_u32.checked_shl(self.failures.into()).unwrap_or(u32::MAX));
        self.failures = self.failures.saturating_add(1);
        if self.ability == Ability::Aware || self.bound.is_some() { pause.min(most) } else { most }
    }

    /// Stops its clocks. What comes out can travel.
    pub fn freeze(self, now: Instant) -> Client<Duration> {
        self.map_time(&Leaving(now))
    }
}

impl Client<Duration> {
    /// Lets its clocks go on, on this host.
    pub fn thaw(self, now: Instant) -> Client<Instant> {
        self.map_time(&Arriving(now))
    }
}

impl<At> Client<At> {
    fn map_time<B>(self, clock: &impl Rebase<At, B>) -> Client<B> {
        let Self { ability, sequence, home, care_of, update, bound, unsure, failures } = self;
        Client {
            ability: match ability {
                Ability::Unknown => Ability::Unknown,
                Ability::Aware => Ability::Aware,
                Ability::Plain { until } => Ability::Plain { until: clock.ahead(until) },
            },
            sequence,
            home: home.map_time(clock),
            care_of: care_of.into_iter().map(|(address, tested)| (address, tested.map_time(clock))).collect(),
            update: update.map(|Update { care_of, again, tries, renewed }| Update {
                care_of,
                again: clock.ahead(again),
                tries,
                renewed,
            }),
            bound: bound.map(|Bound { care_of, until, renew }| Bound {
                care_of,
                until: clock.ahead(until),
                renew: clock.ahead(renew),
            }),
            unsure,
            failures,
        }
    }
}

impl<At> Tested<At> {
    fn map_time<B>(self, clock: &impl Rebase<At, B>) -> Tested<B> {
        Tested {
            token: self.token.map(|Held { token, nonce_index, at }| Held {
                token,
                nonce_index,
                at: clock.behind(at),
            }),
            asked: self.asked.map(|Asked { cookie, again, tries }| Asked {
                cookie,
                again: clock.ahead(again),
                tries,
            }),
        }
    }
}
