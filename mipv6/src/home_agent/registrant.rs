//! The node that registers with a home agent: the contact node of a group.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::Ipv6Addr;
use core::time::Duration;

use ferry_stack::Instant;

use super::{Now, Timestamp};
use crate::correspondent::{Outgoing, is_later};
use crate::header::{
    Authentication, BindingAcknowledgement, BindingUpdate, Lifetime, Message, Options, Received, Status,
};

/// `INITIAL_BINDACK_TIMEOUT` without duplicate address detection (RFC 6275 section 12).
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// `MAX_BINDACK_TIMEOUT` (RFC 6275 section 12).
const LAST_RETRY: Duration = Duration::from_secs(32);

/// How much later the sequence number of a node is that registers after another. That one has sent fewer messages
/// before it hears of it: one each 32 s.
const TAKEOVER: u16 = 256;

/// How to register.
#[derive(Clone)]
pub struct Registration {
    /// The address to be registered.
    pub home: Ipv6Addr,
    /// Our care-of address.
    pub care_of: Ipv6Addr,
    /// The home agent's address.
    pub home_agent: Ipv6Addr,
    /// Names the shared key.
    pub spi: u32,
    /// The shared key.
    pub key: Vec<u8>,
    /// What to ask for.
    pub lifetime: Lifetime,
}

impl core::fmt::Debug for Registration {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { home, care_of, home_agent, spi, .. } = self;
        write!(f, "Registration({home} at {care_of} with {home_agent}, SPI {spi})")
    }
}

/// What is wanted, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Nothing is to be sent.
    Idle,
    /// A Binding Update is to be sent then; so many have stayed unanswered.
    Asking { again: Instant, tries: u8, leaving: bool },
    /// Accepted; to be renewed then.
    Registered { renew: Instant, until: Instant },
    /// Another node has registered since.
    Superseded,
}

/// The node that registers with a home agent.
#[derive(Debug)]
pub struct Registrant {
    registration: Registration,
    sequence: u16,
    state: State,
    /// Whether the home agent has accepted a Binding Update since we were told to register.
    accepted: bool,
    /// By how much the home agent's clock is ahead of ours, as far as we were told (RFC 4285 section 6).
    ahead: u64,
    /// Why the home agent refused the last time.
    refused: Option<Status>,
    outgoing: VecDeque<Outgoing>,
}

impl Registrant {
    /// Not registered. `sequence` is the number of the last Binding Update that is known of; a wrong one costs a
    /// round trip.
    pub const fn new(registration: Registration, sequence: u16) -> Self {
        Self {
            registration,
            sequence,
            state: State::Idle,
            accepted: false,
            ahead: 0,
            refused: None,
            outgoing: VecDeque::new(),
        }
    }

    /// From now on the home address is here.
    pub fn register(&mut self, now: Now) {
        self.accepted = false;
        self.again(now, 0, false);
    }

    /// From now on another node registers it. What waits to be sent is not sent any more.
    pub fn step_down(&mut self) {
        self.state = State::Idle;
        self.outgoing.clear();
    }

    /// From now on it is nowhere, unless another node registers it.
    pub fn leave(&mut self, now: Now) {
        match self.state {
            State::Idle | State::Superseded => self.state = State::Idle,
            State::Asking { .. } | State::Registered { .. } => self.again(now, 0, true),
        }
    }

    /// Whether the home agent sends us what comes for the home address.
    pub fn is_registered(&self, now: Instant) -> bool {
        matches!(self.state, State::Registered { until, .. } if now < until)
    }

    /// Whether another node has registered after we had: the home agent sends to it.
    pub fn is_superseded(&self) -> bool {
        self.state == State::Superseded
    }

    /// Whether nothing is under way and nothing registered.
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// How to register.
    pub const fn registration(&self) -> &Registration {
        &self.registration
    }

    /// Why the home agent has refused, if it has since it last accepted.
    pub const fn refused(&self) -> Option<Status> {
        self.refused
    }

    /// Takes a message. `false` if it is none that we wait for.
    pub fn receive(&mut self, received: &Received, now: Now) -> bool {
        let Message::BindingAcknowledgement(told) = &received.message else { return false };
        let Registration { home, care_of, home_agent, key, .. } = &self.registration;
        let State::Asking { leaving, tries, .. } = self.state else { return false };
        if received.source != *home_agent || !received.is_authentic(key, *care_of, *home) {
            return false;
        }
        match told.status {
            Status::SEQUENCE if !is_later(self.sequence, told.sequence) => {
                if self.accepted && told.sequence != self.sequence {
                    // After us another node has registered.
                    self.state = if leaving { State::Idle } else { State::Superseded };
                    return true;
                }
                // Its number is the one to go on from, so far that it will notice (and not take ours for its own next).
                self.sequence = told.sequence.wrapping_add(TAKEOVER);
                self.again(now, tries, leaving);
            }
            _ if told.sequence != self.sequence => return false,
            status if !status.is_accepted() => {
                self.refused = Some(status);
                let adjusted = self.adjust(told, now);
                let wait = if adjusted { patience(tries.saturating_sub(1)) } else { LAST_RETRY };
                let again = now.monotonic + wait;
                self.state = State::Asking { again, tries, leaving };
                self.handle_timeout(now);
            }
            _ if leaving => self.state = State::Idle,
            _ => {
                (self.refused, self.accepted) = (None, true);
                let holds = told.lifetime.duration();
                let (renew, until) = (now.monotonic + holds / 2, now.monotonic + holds);
                self.state = State::Registered { renew, until };
            }
        }
        true
    }

    fn again(&mut self, now: Now, tries: u8, leaving: bool) {
        self.state = State::Asking { again: now.monotonic, tries, leaving };
        self.handle_timeout(now);
    }

    /// The home agent says that our clock is wrong, and what time it is there (RFC 4285 section 6). It answers the very
    /// message that it was sent, so that it is no old answer. Whether another message may fare better.
    fn adjust(&mut self, told: &BindingAcknowledgement, now: Now) -> bool {
        let Some(theirs) = told.options.timestamp.filter(|_| told.status == Status::IDENTIFICATION) else {
            return false;
        };
        self.ahead = now.wall.behind(Timestamp(theirs));
        true
    }

    /// The next message to send.
    pub fn poll(&mut self) -> Option<Outgoing> {
        self.outgoing.pop_front()
    }

    /// When [`Registrant::handle_timeout`] has something to do.
    pub const fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Idle | State::Superseded => None,
            State::Asking { again, .. } => Some(again),
            State::Registered { renew, .. } => Some(renew),
        }
    }

    /// Does what has come due.
    pub fn handle_timeout(&mut self, now: Now) {
        let (tries, leaving) = match self.state {
            State::Asking { again, tries, leaving } if again <= now.monotonic => (tries, leaving),
            State::Registered { renew, .. } if renew <= now.monotonic => (0, false),
            _ => return,
        };
        self.send(leaving, now);
        let again = now.monotonic + patience(tries.saturating_add(1));
        self.state = State::Asking { again, tries: tries.saturating_add(1), leaving };
    }

    /// RFC 6275 section 11.7.1.
    fn send(&mut self, leaving: bool, now: Now) {
        let Registration { home, care_of, home_agent, spi, ref key, lifetime } = self.registration;
        self.sequence = self.sequence.wrapping_add(1);
        let mut message = Message::BindingUpdate(BindingUpdate {
            sequence: self.sequence,
            acknowledge: true,
            home_registration: true,
            lifetime: if leaving { Lifetime::ZERO } else { lifetime },
            options: Options {
                alternate_care_of: Some(care_of),
                timestamp: Some(now.wall.plus(self.ahead).0),
                authentication: Some(Authentication { spi, ..Authentication::default() }),
                ..Options::default()
            },
            ..BindingUpdate::default()
        });
        message.authenticate(key, care_of, home);
        self.outgoing.push_back(Outgoing {
            home_address: Some(home),
            ..Outgoing::plain(care_of, home_agent, message)
        });
    }
}

/// How long to wait after the message that was sent `tries` times (RFC 6275 section 11.8); not at all after none.
fn patience(tries: u8) -> Duration {
    match tries.checked_sub(1) {
        None => Duration::ZERO,
        Some(doublings) => (FIRST_RETRY * 2_u32.saturating_pow(doublings.into())).min(LAST_RETRY),
    }
}
