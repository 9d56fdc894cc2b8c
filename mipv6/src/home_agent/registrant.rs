//! The node that registers with a home agent: the contact node of a group.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::net::Ipv6Addr;
use core::time::Duration;

use ferry_stack::Instant;

use super::Now;
use crate::correspondent::{Outgoing, is_later};
use crate::header::{Authentication, BindingUpdate, Lifetime, Message, Options, Received, Status};

/// `INITIAL_BINDACK_TIMEOUT` without duplicate address detection (RFC 6275 section 12).
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// `MAX_BINDACK_TIMEOUT` (RFC 6275 section 12).
const LAST_RETRY: Duration = Duration::from_secs(32);

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
}

/// The node that registers with a home agent.
#[derive(Debug)]
pub struct Registrant {
    registration: Registration,
    sequence: u16,
    state: State,
    /// Why the home agent refused the last time.
    refused: Option<Status>,
    outgoing: VecDeque<Outgoing>,
}

impl Registrant {
    /// Not registered. `sequence` is the number of the last Binding Update that is known of; a wrong one costs a
    /// round trip.
    pub const fn new(registration: Registration, sequence: u16) -> Self {
        Self { registration, sequence, state: State::Idle, refused: None, outgoing: VecDeque::new() }
    }

    /// From now on the home address is here.
    pub fn register(&mut self, now: Now) {
        self.state = State::Asking { again: now.monotonic, tries: 0, leaving: false };
        self.handle_timeout(now);
    }

    /// From now on it is nowhere, unless another node registers it.
    pub fn leave(&mut self, now: Now) {
        if self.state != State::Idle {
            self.state = State::Asking { again: now.monotonic, tries: 0, leaving: true };
            self.handle_timeout(now);
        }
    }

    /// Whether the home agent sends us what comes for the home address.
    pub fn is_registered(&self, now: Instant) -> bool {
        matches!(self.state, State::Registered { until, .. } if now < until)
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
                // Another node registered since: its number is the one to go on from.
                self.sequence = told.sequence;
                self.state = State::Asking { again: now.monotonic, tries, leaving };
                self.handle_timeout(now);
            }
            _ if told.sequence != self.sequence => return false,
            status if !status.is_accepted() => {
                self.refused = Some(status);
                let again = now.monotonic + LAST_RETRY;
                self.state = State::Asking { again, tries, leaving };
            }
            _ if leaving => self.state = State::Idle,
            _ => {
                self.refused = None;
                let holds = told.lifetime.duration();
                let (renew, until) = (now.monotonic + holds / 2, now.monotonic + holds);
                self.state = State::Registered { renew, until };
            }
        }
        true
    }

    /// The next message to send.
    pub fn poll(&mut self) -> Option<Outgoing> {
        self.outgoing.pop_front()
    }

    /// When [`Registrant::handle_timeout`] has something to do.
    pub const fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Idle => None,
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
        let wait = (FIRST_RETRY * 2_u32.saturating_pow(tries.into())).min(LAST_RETRY);
        let again = now.monotonic + wait;
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
                timestamp: Some(now.wall.0),
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
