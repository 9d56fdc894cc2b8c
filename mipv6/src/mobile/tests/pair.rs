//! Two nodes of a group and one client that understands Mobile IPv6, with a path that loses messages.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::Ipv6Addr;
use core::time::Duration;

use ferry_stack::ip::{self, Datagram};
use ferry_stack::{Instant, Offload};

use super::super::{Client, Mobile, Mode};
use crate::correspondent::{Correspondent, Outgoing};
use crate::header::{Message, Status, open};

pub(super) const HOME: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 1);
pub(super) const A: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xa, 0, 0, 0, 0, 2);
pub(super) const B: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0xb, 0, 0, 0, 0, 2);
pub(super) const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0xc);

/// One way.
const DELAY: Duration = Duration::from_millis(20);

pub(super) struct Pair {
    pub(super) now: Instant,
    pub(super) nodes: BTreeMap<Ipv6Addr, Mobile>,
    correspondent: Correspondent,
    /// Who gets what comes to the home address.
    pub(super) owner: Ipv6Addr,
    /// On their way, with the time of arrival.
    under_way: Vec<(Instant, Outgoing)>,
    /// In percent.
    pub(super) loss: u64,
    /// Whether a router drops what has a type 2 routing header.
    pub(super) no_routing_headers: bool,
    random: u64,
    /// The names of the messages that arrived.
    pub(super) seen: Vec<&'static str>,
    /// Messages that the nodes sent.
    pub(super) tried: usize,
    pub(super) updates: Vec<Outgoing>,
    pub(super) statuses: Vec<Status>,
}

/// A message as it arrives at the other end of a path.
pub(super) fn carried(message: &Outgoing) -> Datagram {
    ip::parse(message.packet().to_bytes(), Offload::default()).unwrap()
}

impl Pair {
    pub(super) fn new(seed: u64, loss: u64) -> Self {
        let nodes = [A, B].map(|care_of| (care_of, Mobile::new(HOME, care_of, [3; 20])));
        Self {
            now: Instant::from_millis(1_000_000),
            nodes: nodes.into(),
            correspondent: Correspondent::new([5; 20]),
            owner: A,
            under_way: Vec::new(),
            loss,
            no_routing_headers: false,
            random: seed,
            seen: Vec::new(),
            tried: 0,
            updates: Vec::new(),
            statuses: Vec::new(),
        }
    }

    pub(super) fn mode(&self, node: Ipv6Addr) -> Mode {
        self.nodes[&node].mode(CLIENT, self.now)
    }

    pub(super) fn client(&self, node: Ipv6Addr) -> &Client<Instant> {
        self.nodes[&node].client(CLIENT).unwrap()
    }

    /// Where the client believes the service address to be.
    pub(super) fn believed(&self) -> Option<Ipv6Addr> {
        self.correspondent.binding((CLIENT, HOME), self.now).map(|binding| binding.care_of)
    }

    /// The client starts anew.
    pub(super) fn forget(&mut self) {
        self.correspondent = Correspondent::new([6; 20]);
    }

    pub(super) fn hand_over(&mut self, from: Ipv6Addr, to: Ipv6Addr) {
        let donor = self.nodes.get_mut(&from).unwrap();
        let client = donor.export(CLIENT, self.now).unwrap();
        donor.release(CLIENT);
        self.owner = to;
        self.nodes.get_mut(&to).unwrap().import(CLIENT, client, self.now);
    }

    pub(super) fn client_says(&mut self, to: Ipv6Addr, message: Message) {
        self.arrive_at_node(&Outgoing::plain(CLIENT, to, message));
    }

    pub(super) fn client_hears(&mut self, message: &Outgoing) -> Option<Outgoing> {
        self.correspondent.receive(&open(&carried(message)).unwrap(), self.now)
    }

    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.send();
            let arrival = self.under_way.iter().map(|(at, _)| *at).min();
            let deadlines =
                self.nodes.values().map(Mobile::deadline).chain([arrival, self.correspondent.deadline()]);
            let Some(next) = deadlines.flatten().min().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            self.deliver();
            for node in self.nodes.values_mut() {
                node.handle_timeout(self.now);
            }
            for request in self.correspondent.handle_timeout(self.now) {
                self.put(request);
            }
        }
        self.now = end;
    }

    fn send(&mut self) {
        let messages: Vec<_> =
            self.nodes.values_mut().flat_map(|node| core::iter::from_fn(|| node.poll())).collect();
        for message in messages {
            self.tried += 1;
            if matches!(message.message, Message::BindingUpdate(_)) {
                self.updates.push(message.clone());
            }
            self.put(message);
        }
    }

    fn put(&mut self, message: Outgoing) {
        // A linear congruential generator is random enough to lose messages by.
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let filtered = self.no_routing_headers && message.routed_home.is_some();
        if (self.random >> 33) % 100 >= self.loss && !filtered {
            self.under_way.push((self.now + DELAY, message));
        }
    }

    fn deliver(&mut self) {
        let now = self.now;
        let (arrived, rest) = self.under_way.drain(..).partition(|(at, _)| *at <= now);
        self.under_way = rest;
        for (_, message) in Vec::<(Instant, Outgoing)>::into_iter(arrived) {
            self.seen.push(message.message.name());
            if message.destination != CLIENT {
                self.arrive_at_node(&message);
            } else if let Some(answer) = self.client_hears(&message) {
                self.put(answer);
            }
        }
    }

    fn arrive_at_node(&mut self, message: &Outgoing) {
        if let Message::BindingAcknowledgement(told) = &message.message {
            self.statuses.push(told.status);
        }
        let at = if message.destination == HOME { self.owner } else { message.destination };
        self.nodes.get_mut(&at).unwrap().receive(&open(&carried(message)).unwrap(), self.now);
    }
}
