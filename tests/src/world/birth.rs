//! Nodes come to life, for the first time or again.

use core::time::Duration;

use ferry_handoff::Incarnation;
use ferry_node::services::{Discard, Echo, File, FileService};
use ferry_node::{Node, Peer, Rules, Service, Setup};
use ferry_stack::{GroupClock, interface};

use super::agenda::Event;
use super::group::{EPOCH, GroupPlan, HOME_ROUTER, SERVICE_ADDRESS};
use super::{Attachment, Body, World};
use crate::member::{Clock, Member};
use crate::rng::Rng;
use crate::serve::{DISCARD, ECHO, EXCHANGE, HTTP};
use crate::session::{ExchangeSession, Reluctance};
use crate::watch::Sender;

/// What every life of a group's nodes is made from.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) plan: GroupPlan,
    pub(super) secret: [u8; 32],
    /// The place of the first node.
    pub(super) first: usize,
}

/// The name of the `nth` node.
pub(super) fn name_of(nth: usize) -> String {
    char::from(b'a' + u8::try_from(nth).unwrap_or(25).min(25)).to_string()
}

/// What a life begins with.
struct Begin {
    incarnation: Incarnation,
    services: Vec<Service>,
    clock: Clock,
}

impl World {
    pub(super) fn attach_node(&mut self, origin: &Origin, nth: usize) {
        let place = self.places.len();
        let attachment = Attachment { name: name_of(nth), ..origin.plan.attachments[nth].clone() };
        let interface = self.interface_of(place, attachment.mtu);
        let (incarnation, services) =
            (Incarnation(self.rng.any()), self.protection.of(services(&origin.plan, &mut self.rng)));
        // Some have just started, some have run for a month.
        let ahead = Duration::from_millis(self.rng.scaled(0..=1 << 32));
        let drift = i32::try_from(self.rng.within(0..=400)).unwrap_or_default() - 200;
        let begin = Begin { incarnation, services, clock: Clock::new(ahead, drift) };
        let member = self.member_from(origin, nth, &interface, begin);
        let home = if nth == 0 && self.agent.is_none() && self.home.is_none() {
            vec![HOME_ROUTER]
        } else {
            Vec::new()
        };
        self.attach_body(Body::Node(Box::new(member)), Sender::Ours, attachment, home);
        self.group.enter(place, incarnation);
    }

    fn member_from(
        &self,
        origin: &Origin,
        nth: usize,
        interface: &interface::Config,
        begin: Begin,
    ) -> Member {
        let Origin { plan, secret, first } = origin;
        let Begin { incarnation, services, clock } = begin;
        let peers = (0..plan.attachments.len()).filter(|other| *other != nth);
        let peers =
            peers.map(|other| Peer { name: name_of(other), care_of: self.care_of(first + other) }).collect();
        let setup = Setup {
            name: name_of(nth),
            group: "simulated".to_owned(),
            incarnation,
            secret: *secret,
            group_clock: self.group_clock(first + nth, &clock),
            care_of: interface.addresses[0],
            gateway: self.router_of(first + nth),
            mac: interface.mac,
            mtu: interface.mtu,
            offload: plan.offload[nth],
            service_address: SERVICE_ADDRESS,
            contact: name_of(0),
            home_agent: self.home_agent(),
            placement: plan.placement,
            rules: Rules { tokens_ahead: self.tokens_ahead, ..Rules::default() },
            optimise: plan.optimise,
            plain_source: plan.plain_source,
            ask_again: Duration::from_mins(10),
            directory: self.protection.directory.clone(),
            tcp: plan.tcp,
            peers,
            services,
        };
        let node = Node::new(setup, clock.at(self.now)).expect("the plan makes sense");
        Member::new(node, &name_of(nth), clock)
    }

    /// What a node takes for the clock of the group when it starts: the wall clock of its host, right or wrong.
    fn group_clock(&self, place: usize, clock: &Clock) -> GroupClock {
        let wall = EPOCH + Duration::from_nanos(self.now.nanos());
        let wall = match self.group.wrong.get(&place).copied().unwrap_or_default() {
            wrong @ 0.. => wall + Duration::from_millis(wrong.unsigned_abs()),
            wrong => wall.saturating_sub(Duration::from_millis(wrong.unsigned_abs())),
        };
        GroupClock::ahead_by(wall.saturating_sub(Duration::from_nanos(clock.at(self.now).nanos())))
    }

    /// A dead node's process starts again, without memory: on the same host, whose clock went on, or on one that was
    /// switched on just now.
    pub(super) fn give_birth_again(&mut self, place: usize) {
        let Some(origin) =
            self.group.origin.clone().filter(|_| matches!(self.places[place].body, Body::Gone))
        else {
            return;
        };
        let nth = place - origin.first;
        let (incarnation, services) =
            (Incarnation(self.rng.any()), self.protection.of(services(&origin.plan, &mut self.rng)));
        let ahead = Duration::from_millis(self.rng.scaled(0..=1 << 32));
        let drift = i32::try_from(self.rng.within(0..=400)).unwrap_or_default() - 200;
        let mut clock = Clock::new(ahead, drift);
        if self.rng.chance(500) {
            clock = Clock::switched_on(self.now, drift);
        }
        let interface = self.interface_of(place, origin.plan.attachments[nth].mtu);
        let begin = Begin { incarnation, services, clock };
        let member = self.member_from(&origin, nth, &interface, begin);
        self.say(|| format!("{} starts anew", self.places[place].name));
        self.places[place].body = Body::Node(Box::new(member));
        self.places[place].armed = Some(self.now);
        self.schedule(self.now, Event::Wake(place));
        self.group.incarnations.insert(place, incarnation);
        for other in self.others(place) {
            self.dial(place, other);
        }
    }
}

fn services(plan: &GroupPlan, rng: &mut Rng) -> Vec<Service> {
    let mut services = vec![
        Service::new::<Echo>("echo", ECHO, ()),
        Service::new::<Discard>("discard", DISCARD, ()),
        Service::new::<ExchangeSession>("exchange", EXCHANGE, Reluctance::new(plan.reluctance, rng.fork())),
    ];
    if let Some(www) = &plan.www {
        let service = FileService::open(www).expect("the folder was just made");
        services.push(Service::new::<File>("file", HTTP, service));
    }
    services
}
