//! Where the service address is: on the home link with the contact node, or with a home agent of its own, with which
//! the contact node registers. The role of the contact node can move to any node with a home agent, which sends to the
//! one that has registered last; without, to the nodes on the same link, by a neighbour advertisement that overrides the
//! former (RFC 4861 section 7.2.6). Whoever has the role says so to all, in a term that only grows.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use ferry_handoff::{Message, NodeId};
use ferry_mipv6::header::{Lifetime, Received};
use ferry_mipv6::home_agent::{Now, Registrant, Registration, Timestamp};
use ferry_stack::interface::Address;
use ferry_stack::{GroupClock, Instant};

use super::Node;
use super::setup::Setup;
use super::updates::Updates;
use crate::io::{HomeAgentStatus, Reply, TraceEvent};

/// A node that starts as contact node lets the others tell first whether one of them is by now.
const LISTEN_FIRST: Duration = Duration::from_secs(1);
/// The contact node may be out of reach for so long before another takes its place.
const MISSING: Duration = Duration::from_secs(3);
/// The same at the start of a node: the others may be starting too.
const MISSING_AT_START: Duration = Duration::from_secs(10);
/// Who is the contact node is told again to those who have not confirmed it.
const TELL_AGAIN: Duration = Duration::from_secs(1);
/// How long a node that ends waits for its registration to be gone.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);
/// How long a former contact node still takes what neighbours send it that have not heard of the new one.
const TAKE_LATE: Duration = Duration::from_secs(2);

/// What an operator is told who wants the role to leave where it cannot.
const STAYS: &str = "the service address is on the home link of the contact node, which this node is not on; only with a \
                     [home-agent] can a node elsewhere take its place";

/// The home agent of a group.
#[derive(Clone)]
pub struct HomeAgent {
    /// Its address.
    pub address: Ipv6Addr,
    /// Names the shared key in messages.
    pub spi: u32,
    /// What proves that a message is of the group, or of the agent.
    pub key: Vec<u8>,
    /// How long a registration is to hold; it is renewed when half of that has passed.
    pub lifetime: Lifetime,
}

impl core::fmt::Debug for HomeAgent {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "HomeAgent({}, SPI {}, {} s)", self.address, self.spi, self.lifetime.duration().as_secs())
    }
}

/// What a node knows of the place of the service address.
#[derive(Debug)]
pub(super) struct Home {
    /// If the role of the contact node can move.
    away: Option<Away>,
    /// The nodes on this node's link.
    on_link: BTreeSet<NodeId>,
}

/// What a node knows if the role of the contact node can move.
#[derive(Debug)]
struct Away {
    /// If the service address is with a home agent.
    registrant: Option<Registrant>,
    /// Until when a former contact node on the home link keeps the service address.
    let_go: Option<Instant>,
    clock: GroupClock,
    /// Counts the contact nodes.
    term: u64,
    /// When this node, which is the contact node as far as it knows, is to say so for the first time.
    claim: Option<Instant>,
    /// This life of ours was given up, and the role with it, most likely: others are heard before it is acted upon.
    doubted: bool,
    /// Nodes that have not confirmed who the contact node is, and when they are told again.
    unconfirmed: BTreeSet<NodeId>,
    tell_again: Option<Instant>,
    /// When the contact node has been out of reach for too long.
    missing: Option<Instant>,
    /// Whether this life of ours has ever seen the contact node.
    met: bool,
    /// The command to leave, and until when its answer may wait.
    leaving: Option<(u64, Instant)>,
}

impl Home {
    pub(super) fn new(setup: &Setup, now: Instant) -> Self {
        let registrant = setup.home_agent.as_ref().map(|agent| {
            let registration = Registration {
                home: setup.service_address,
                care_of: setup.care_of.address,
                home_agent: agent.address,
                spi: agent.spi,
                key: agent.key.clone(),
                lifetime: agent.lifetime,
            };
            Registrant::new(registration, 0)
        });
        let near = setup.peers.iter().filter(|peer| is_on(setup.care_of, peer.care_of));
        let on_link: BTreeSet<_> = near.map(|peer| NodeId::of(&peer.name)).collect();
        let alone = setup.peers.is_empty();
        let away = (registrant.is_some() || !alone).then(|| {
            let (first, agent) = (setup.contact == setup.name, registrant.is_some());
            let listen = if alone { Duration::ZERO } else { LISTEN_FIRST };
            Away {
                registrant,
                let_go: None,
                clock: setup.group_clock,
                term: 0,
                claim: first.then(|| now + listen),
                doubted: false,
                unconfirmed: BTreeSet::new(),
                tell_again: None,
                missing: (!first && agent).then(|| now + MISSING_AT_START),
                met: false,
                leaving: None,
            }
        });
        Self { away, on_link }
    }

    /// Whether a node can be the contact node instead of one that this node could replace, as far as the network goes.
    pub(super) fn reaches(&self, node: NodeId) -> bool {
        self.agent().is_some() || self.on_link.contains(&node)
    }

    /// What a former life of this node has known of the role is not sure any more: others are heard first.
    pub(super) fn doubt(&mut self) {
        if let Some(away) = &mut self.away {
            (away.doubted, away.claim) = (true, None);
            if let Some(registrant) = &mut away.registrant {
                registrant.step_down();
            }
        }
    }

    /// Whether what is known of the role is not acted upon before others have spoken.
    pub(super) fn is_doubted(&self) -> bool {
        self.away.as_ref().is_some_and(|away| away.doubted)
    }

    /// Others have spoken, or there is nobody else.
    pub(super) fn trust(&mut self) -> bool {
        self.away.as_mut().is_some_and(|away| core::mem::take(&mut away.doubted))
    }

    fn registrant(&self) -> Option<&Registrant> {
        self.away.as_ref()?.registrant.as_ref()
    }

    /// Which contact node this is, counted from the first, if the role can move.
    pub(super) fn term(&self) -> Option<u64> {
        self.away.as_ref().map(|away| away.term)
    }

    /// The home agent's address, if there is one.
    pub(super) fn agent(&self) -> Option<Ipv6Addr> {
        self.registrant().map(|registrant| registrant.registration().home_agent)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let away = self.away.as_ref()?;
        let leave = away.leaving.map(|(_, until)| until);
        let registrant = away.registrant.as_ref().and_then(Registrant::deadline);
        let all = [registrant, away.let_go, away.claim, away.tell_again, away.missing, leave];
        all.into_iter().flatten().min()
    }

    /// A message of the home agent; `false` if it is none.
    pub(super) fn receive(&mut self, received: &Received, now: Instant) -> bool {
        self.away.as_mut().is_some_and(|away| {
            let both = away.both(now);
            away.registrant.as_mut().is_some_and(|registrant| registrant.receive(received, both))
        })
    }

    pub(super) fn status(&self, now: Instant) -> Option<HomeAgentStatus> {
        self.registrant().map(|registrant| HomeAgentStatus {
            address: registrant.registration().home_agent,
            registered: registrant.is_registered(now),
            superseded: registrant.is_superseded(),
            refused: registrant.refused().map(|status| status.0),
        })
    }
}

/// Whether two nodes are on one link, by their care-of addresses.
fn is_on(ours: Address, other: Ipv6Addr) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(ours.prefix_len)).unwrap_or(0);
    (ours.address.to_bits() ^ other.to_bits()) & mask == 0
}

impl Away {
    fn both(&self, now: Instant) -> Now {
        let since_1970 = Duration::from_nanos(self.clock.at(now).nanos());
        Now { monotonic: now, wall: Timestamp::from_unix(since_1970) }
    }

    fn register(&mut self, now: Instant) {
        let both = self.both(now);
        (self.claim, self.missing) = (None, None);
        if let Some(registrant) = &mut self.registrant {
            registrant.register(both);
        }
    }

    fn is_due(at: &mut Option<Instant>, now: Instant) -> bool {
        at.take_if(|at| *at <= now).is_some()
    }
}

impl Node {
    /// Whether the service address is on this node's link, and this node answers for it.
    pub(super) fn is_at_home(&self) -> bool {
        self.is_contact() && self.home.agent().is_none()
    }

    /// Where the tunnel ends that leads from here to the home link.
    pub(super) fn way_home(&self) -> Option<Ipv6Addr> {
        if self.is_contact() { self.home.agent() } else { self.peers.care_of(self.contact) }
    }

    /// Does what has come due.
    pub(super) fn handle_home(&mut self, now: Instant) {
        let Some(away) = &mut self.home.away else { return };
        let claims = Away::is_due(&mut away.claim, now);
        let both = away.both(now);
        if let Some(registrant) = &mut away.registrant {
            registrant.handle_timeout(both);
        }
        if Away::is_due(&mut away.let_go, now) {
            self.interface.remove_address(self.service_address);
        }
        let (missing, again) =
            (Away::is_due(&mut away.missing, now), Away::is_due(&mut away.tell_again, now));
        if claims {
            self.assert_role(now);
        }
        if missing {
            self.contact_is_missing(now);
        }
        if again {
            self.tell_contact(now);
        }
        self.finish_leaving(now);
    }

    /// Sends what the registration has to say; whether there was anything.
    pub(super) fn register_further(&mut self, now: Instant) -> bool {
        let Some(message) = self.home.away.as_mut().and_then(|away| away.registrant.as_mut()?.poll()) else {
            return false;
        };
        self.interface.send(message.packet(), now);
        true
    }

    /// A link to another node came up: it hears who is the contact node, and says what it knows.
    pub(super) fn meet_at_home(&mut self, peer: NodeId, now: Instant) {
        let (contact, leads) = (self.contact, self.is_contact());
        let Some(away) = &mut self.home.away else { return };
        if peer == contact {
            (away.missing, away.met) = (None, true);
        }
        away.unconfirmed.insert(peer);
        if leads && away.claim.is_none() && away.leaving.is_none() {
            // It may have taken the role meanwhile, alone.
            self.assert_role(now);
        }
        self.tell_contact(now);
    }

    /// Says to the home agent, or to the neighbours on the home link, that this node is the contact node, if it is sure of it.
    pub(super) fn assert_role(&mut self, now: Instant) {
        if !self.is_contact() || self.home.is_doubted() {
            return;
        }
        if let Some(away) = &mut self.home.away {
            away.register(now);
        }
        self.answer_at_home(true, now);
    }

    /// Answers for the service address on the home link, if it is there and nobody can have taken this node's place, and tells the
    /// neighbours if `announce`.
    pub(super) fn answer_at_home(&mut self, announce: bool, now: Instant) {
        if self.is_at_home() && self.may_serve(now) {
            let address = Address { address: self.service_address, prefix_len: 128 };
            self.interface.add_address(address, announce, now);
        }
    }

    /// A link to another node broke.
    pub(super) fn part_at_home(&mut self, peer: NodeId, now: Instant) {
        let contact = self.contact;
        let Some(away) = &mut self.home.away else { return };
        away.unconfirmed.remove(&peer);
        if peer == contact && away.registrant.is_some() {
            away.missing = Some(now + MISSING);
        }
    }

    fn tell_contact(&mut self, now: Instant) {
        let node = self.contact;
        let Some(away) = &mut self.home.away else { return };
        if away.unconfirmed.is_empty() {
            return;
        }
        away.tell_again = Some(now + TELL_AGAIN);
        let (term, to) = (away.term, away.unconfirmed.clone());
        for peer in to {
            self.tell(peer, &Message::Contact { node, term, answer: false });
        }
    }

    /// Another node says who is the contact node.
    pub(super) fn contact_told(&mut self, from: NodeId, node: NodeId, term: u64, answer: bool, now: Instant) {
        let contact = self.contact;
        let Some(away) = &mut self.home.away else { return };
        if !(node == self.id || self.peers.is_known(node)) {
            self.counters.dropped += 1;
            return;
        }
        let doubted = core::mem::take(&mut away.doubted);
        // Two that took the role in the same term: any order will do, if all know it.
        if (term, node) > (away.term, contact) {
            self.set_contact(node, term, now);
            self.tell_owned(now);
            self.fill_contact(now);
            if self.draining {
                self.abdicate(now);
            }
        } else if (term, node) == (away.term, contact) {
            away.unconfirmed.remove(&from);
            if doubted {
                self.assert_role(now);
            }
        } else if node == from || doubted {
            // It has answered for the service address itself, until it hears of us.
            self.assert_role(now);
        }
        let Some(away) = self.home.away.as_mut().filter(|_| !answer) else { return };
        let (node, term) = (self.contact, away.term);
        self.tell(from, &Message::Contact { node, term, answer: true });
    }

    /// This node is the contact node from now on.
    pub(super) fn take_contact(&mut self, now: Instant) -> Result<(), String> {
        let Some(away) = &self.home.away else {
            return Err(STAYS.to_owned());
        };
        if away.registrant.is_none() && !self.is_contact() && !self.home.on_link.contains(&self.contact) {
            return Err(STAYS.to_owned());
        }
        if !self.is_contact() || away.registrant.as_ref().is_some_and(Registrant::is_superseded) {
            if let Some(why) = self.directory.hindrance() {
                return Err(why.to_owned());
            }
            let (id, term) = (self.id, away.term.saturating_add(1));
            self.appoint(id, term, now);
        }
        Ok(())
    }

    /// Another node is to be the contact node, or this one: it is as soon as the directory grants it.
    pub(super) fn appoint(&mut self, node: NodeId, term: u64, now: Instant) {
        if self.directory.appoint(node, term, now) {
            self.appointed(node, term, now);
        }
    }

    /// The directory says who is the contact node.
    pub(super) fn note_contact(&mut self, node: NodeId, term: u64, now: Instant) {
        let known = node == self.id || self.peers.is_known(node);
        let Some(ours) = self.home.term().filter(|_| known) else { return };
        if (term, node) > (ours, self.contact) {
            self.appointed(node, term, now);
        } else if (term, node) == (ours, self.contact) && self.home.trust() {
            self.assert_role(now);
        }
    }

    /// Says to all who is the contact node from now on.
    fn appointed(&mut self, node: NodeId, term: u64, now: Instant) {
        self.set_contact(node, term, now);
        let all: Vec<_> = self.peers.reachable().collect();
        if let Some(away) = &mut self.home.away {
            away.unconfirmed = all.into_iter().collect();
        }
        // It has to know before it hears of connections.
        self.tell_contact(now);
        self.tell_owned(now);
    }

    fn set_contact(&mut self, node: NodeId, term: u64, now: Instant) {
        let (before, up) = (core::mem::replace(&mut self.contact, node), self.peers.is_up(node));
        if before != node || node == self.id {
            self.contact_since = now;
        }
        let Some(away) = &mut self.home.away else { return };
        away.term = term;
        away.unconfirmed.clear();
        (away.claim, away.doubted, away.met) = (None, false, up);
        if node == self.id {
            away.let_go = None;
            self.updates = Updates::new(self.places.hasher());
            self.assert_role(now);
        } else {
            match &mut away.registrant {
                Some(registrant) => {
                    away.missing = (!up).then(|| now + MISSING);
                    registrant.step_down();
                }
                None if before == self.id => {
                    away.let_go = Some(now + TAKE_LATE);
                    self.interface.cede_address(self.service_address);
                }
                None => {}
            }
            if before == self.id {
                // The owners tell the new one; what still comes here goes there.
                self.forget_routes();
            }
        }
        self.counters.roles_taken += u64::from(node == self.id && before != node);
        let [contact, former] = [node, before].map(|node| self.node_name(node).to_owned());
        self.trace(TraceEvent::Contact { contact, former, dead: self.is_dead(before), term }, now);
    }

    /// The contact node has been out of reach for too long. The first in the order of names among those who see each
    /// other takes its place, if they are the larger part of the group, or the half that has lost it.
    fn contact_is_missing(&mut self, now: Instant) {
        let Some(away) = &self.home.away else { return };
        let (term, met) = (away.term, away.met);
        let seen = 1 + self.peers.reachable().count();
        let all = 1 + self.peers.names().count();
        let enough = seen * 2 > all || (seen * 2 == all && met);
        let first = self.peers.reachable().all(|peer| &*self.name < self.peers.name(peer));
        if enough && first && !self.draining {
            let id = self.id;
            self.appoint(id, term.saturating_add(1), now);
        } else if let Some(away) = &mut self.home.away {
            // The others may see more of the group, or less.
            away.missing = Some(now + MISSING);
        }
    }

    /// A contact node that empties itself gives the role to another.
    pub(super) fn abdicate(&mut self, now: Instant) {
        let on_link = |peer: &NodeId| self.home.agent().is_some() || self.home.on_link.contains(peer);
        let next = self.peers.takers().into_iter().find(on_link).filter(|_| self.is_contact());
        if let (Some(next), Some(away)) = (next, &self.home.away) {
            let term = away.term.saturating_add(1);
            self.appoint(next, term, now);
        }
    }

    /// The node ends: what it has registered is to be gone. The command is answered when it is, or after a while.
    pub(super) fn leave_home(&mut self, id: u64, now: Instant) {
        if let Some(away) = &mut self.home.away {
            let both = away.both(now);
            away.claim = None;
            if let Some(registrant) = &mut away.registrant {
                registrant.leave(both);
            }
            if let Some((before, _)) = away.leaving.replace((id, now + LEAVE_WITHIN)) {
                self.reply(before, Reply::Done);
            }
            self.finish_leaving(now);
        } else {
            self.reply(id, Reply::Done);
        }
    }

    pub(super) fn finish_leaving(&mut self, now: Instant) {
        let Some(away) = &mut self.home.away else { return };
        let idle = away.registrant.as_ref().is_none_or(Registrant::is_idle);
        if let Some((id, _)) = away.leaving.take_if(|(_, until)| idle || *until <= now) {
            self.reply(id, Reply::Done);
        }
    }
}
