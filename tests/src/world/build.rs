//! Making a world.

use core::net::Ipv6Addr;
use std::collections::BTreeMap;

use ferry_node::TokensAhead;
use ferry_stack::interface::{self, Address};
use ferry_stack::{EthernetAddress, Instant};

use super::agenda::{Agenda, Event};
use super::faults::Moments;
use super::group::Group;
use super::losses::Losses;
use super::protection::Protection;
use super::{Body, Place, World};
use crate::link::{Pipe, Quality};
use crate::machine::Machine;
use crate::rng::Rng;
use crate::router::Router;
use crate::silence::Silences;
use crate::tamper::Tamper;
use crate::watch::{Sender, Watch};

/// How a machine is attached.
#[derive(Clone, Debug)]
pub struct Attachment {
    /// What it is called in the log.
    pub name: String,
    /// From the machine to the router.
    pub up: Quality,
    /// From the router to the machine.
    pub down: Quality,
    /// The largest packet of the link.
    pub mtu: u16,
    /// The largest packet that passes from there to the rest of the network.
    pub path_mtu: u16,
    /// Whether the link is a TAP: super-segments and partial checksums pass it as they are.
    pub tap: bool,
}

impl World {
    /// An empty world. With `log` it prints what happens.
    pub fn new(seed: u64, log: bool) -> Self {
        Self {
            now: Instant::ZERO,
            rng: Rng::new(seed),
            watch: Watch::default(),
            tokens_ahead: TokensAhead::default(),
            protection: Protection::default(),
            home_link: 0,
            light: false,
            silences: Silences::default(),
            events: 0,
            agenda: Agenda::default(),
            mended: None,
            at_once: 0,
            router: Router::default(),
            router_armed: None,
            places: Vec::new(),
            group: Group::default(),
            home: None,
            agent: None,
            lost_nodes: 0,
            rebirths: 0,
            tamper: Tamper::default(),
            moments: Moments::default(),
            losses: Losses::default(),
            talks: BTreeMap::new(),
            judged: 0,
            log,
        }
    }

    /// The address of the machine that is attached as the `nth`.
    pub fn address_of(nth: usize) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, 0x100 + u16::try_from(nth).unwrap_or(0), 0, 0, 0, 0, 2)
    }

    /// The router's address on the link of the machine that is attached as the `nth`.
    pub fn gateway_of(nth: usize) -> Ipv6Addr {
        Ipv6Addr::from_bits(Self::address_of(nth).to_bits() & !0xffff | 1)
    }

    /// What the interface of the machine that will be attached next is made from.
    pub fn next_interface(&self, mtu: u16) -> interface::Config {
        Self::interface_at(self.places.len(), mtu)
    }

    /// What the interface of the machine that is attached as the `nth` is made from.
    pub(super) fn interface_at(nth: usize, mtu: u16) -> interface::Config {
        let [high, low] = u16::try_from(nth).unwrap_or(0).to_be_bytes();
        interface::Config {
            mac: EthernetAddress([2, 0, 0, 0, high, low]),
            addresses: vec![Address { address: Self::address_of(nth), prefix_len: 64 }],
            gateway: Some(Self::gateway_of(nth)),
            mtu,
        }
    }

    /// Attaches a host whose interface was made from [`World::next_interface`].
    pub fn attach(&mut self, machine: Machine, sender: Sender, attachment: Attachment) -> usize {
        self.attach_body(Body::Host(machine), sender, attachment, Vec::new())
    }

    /// Attaches something. `more` are further addresses that the router has on its link.
    pub(super) fn attach_body(
        &mut self,
        body: Body,
        sender: Sender,
        attachment: Attachment,
        more: Vec<Address>,
    ) -> usize {
        let nth = self.places.len();
        let Attachment { name, up, down, mtu, path_mtu, tap } = attachment;
        let mut prefixes = vec![Address { address: Self::gateway_of(nth), prefix_len: 64 }];
        prefixes.extend(more);
        self.router.attach(prefixes, mtu, path_mtu);
        let (up, down) = (Pipe::new(up, self.rng.fork()), Pipe::new(down, self.rng.fork()));
        let shared = self.is_on_home_link(nth);
        self.places.push(Place { name, body, sender, up, down, tap, shared, armed: Some(self.now) });
        self.schedule(self.now, Event::Wake(nth));
        nth
    }

    /// A host.
    pub fn host(&mut self, nth: usize) -> &mut Machine {
        let place = &mut self.places[nth];
        match &mut place.body {
            Body::Host(machine) => machine,
            Body::Node(_) | Body::Agent(_) | Body::Gone => panic!("{} is no host", place.name),
        }
    }

    /// Every host.
    pub fn hosts(&self) -> impl Iterator<Item = &Machine> {
        self.places.iter().filter_map(|place| match &place.body {
            Body::Host(machine) => Some(machine),
            Body::Node(_) | Body::Agent(_) | Body::Gone => None,
        })
    }

    /// Ends all faults at that time.
    pub fn mend_at(&mut self, at: Instant) {
        self.schedule(at, Event::Mend);
    }
}
