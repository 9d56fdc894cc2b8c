//! The group of nodes in the world: their links to each other, and the operator who moves connections about.

use core::net::{Ipv6Addr, SocketAddrV6};
use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use ferry_handoff::{Incarnation, NodeId};
use ferry_node::services::{Discard, Echo, File, FileService};
use ferry_node::{
    Command, Node, Optimise, Peer, Placement, PlainSource, Reply, Rules, Service, Setup, Step, Trace,
    TraceEvent, Which,
};
use ferry_stack::interface::Address;
use ferry_stack::tcp::Config;
use ferry_stack::{GroupClock, Instant};

use super::agenda::Event;
use super::{Attachment, Body, World};
use crate::channel::{Channel, Manner};
use crate::member::{Clock, Member};
use crate::owners::{Client, Owners};
use crate::rng::{PerMille, Rng};
use crate::serve::{DISCARD, ECHO, EXCHANGE, HTTP};
use crate::session::{ExchangeSession, Reluctance};
use crate::tamper::one_by_one;
use crate::watch::Sender;

/// The address that clients know.
pub const SERVICE_ADDRESS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 1);
/// The router's address on the home link.
pub(super) const HOME_ROUTER: Address =
    Address { address: Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 0xffff), prefix_len: 64 };

/// What the clock of the group shows when the world begins.
pub(super) const EPOCH: Duration = Duration::from_hours(24 * 20_000);

/// What a group is made from.
#[derive(Clone, Debug)]
pub struct GroupPlan {
    /// How each node is attached; the first is the contact node. At most 26.
    pub attachments: Vec<Attachment>,
    /// Whether each node leaves checksums and segmentation to the hardware.
    pub offload: Vec<bool>,
    /// Who serves new connections.
    pub placement: Placement,
    /// Whether clients are told where their connections are.
    pub optimise: Optimise,
    /// Whether owners answer plain clients straight.
    pub plain_source: PlainSource,
    /// How connections behave.
    pub tcp: Config,
    /// How often the exchange service refuses a session.
    pub reluctance: PerMille,
    /// What the links between the nodes do to messages.
    pub manner: Manner,
    /// Folder of the files that are served, if any are.
    pub www: Option<std::path::PathBuf>,
}

/// What the operator does.
#[derive(Clone, Debug, Default)]
pub struct Operation {
    /// Hands a connection off every so many milliseconds.
    pub every: Option<RangeInclusive<u64>>,
    /// Until so many handoffs are done.
    pub at_most: Option<u64>,
    /// Goes round the nodes in turn, instead of choosing any.
    pub in_turn: bool,
    /// How often it hands off all connections of a node at once.
    pub all: PerMille,
    /// Hands every connection off after every event at its owner.
    pub after_every_event: bool,
    /// Drains that node at that time.
    pub drain: Option<(usize, Instant)>,
    /// Breaks the link between two nodes: when, and for how long.
    pub flaps: Vec<(Instant, Duration)>,
    /// The home agent starts anew at these times.
    pub agent_restarts: Vec<Instant>,
    /// The contact node is lost at these times, or as soon as it owns nothing.
    pub contact_losses: Vec<Instant>,
}

/// The group in the world.
#[derive(Debug, Default)]
pub(super) struct Group {
    members: Vec<usize>,
    pub(super) channels: BTreeMap<(usize, usize), Channel>,
    incarnations: BTreeMap<usize, Incarnation>,
    operation: Operation,
    pub(super) owners: Owners,
    /// Commands that are not answered, and what they are about.
    asked: BTreeMap<u64, Option<Client>>,
    commands: u64,
    /// Connections whose owner saw an event since they came to it.
    due: BTreeSet<Client>,
    /// When a connection was last tried to be moved, so that a refusal does not make time stand still.
    tried: BTreeMap<Client, Instant>,
    /// Connections that moved.
    pub(super) handoffs: u64,
    /// Connections that did not.
    pub(super) refused: u64,
}

impl Group {
    /// Faults end, and so does the moving about: a segment that follows its connection from node to node may never
    /// reach it as long as the connection moves faster than the segment.
    pub(super) fn mend(&mut self) {
        self.channels.values_mut().for_each(Channel::mend);
        self.operation = Operation { drain: self.operation.drain, ..Operation::default() };
    }

    pub(super) fn is_idle(&self) -> bool {
        self.asked.is_empty()
    }

    pub(super) fn faults(&self) -> u64 {
        self.channels.values().map(|channel| channel.faults).sum()
    }

    /// Something was done to a message.
    pub(super) fn count_fault(&mut self, pair: (usize, usize)) {
        if let Some(channel) = self.channels.get_mut(&pair) {
            channel.faults += 1;
        }
    }

    /// How often the link between two nodes has broken.
    pub(super) fn life(&self, from: usize, to: usize) -> u32 {
        self.channels.get(&(from, to)).map_or(0, |channel| channel.life)
    }

    /// Whether a link between two nodes ever broke.
    pub(super) fn parted(&self) -> bool {
        self.channels.values().any(|channel| channel.life > 0)
    }

    pub(super) fn unanswered(&self) -> String {
        if self.asked.is_empty() {
            String::new()
        } else {
            format!("\n  unanswered commands: {:?}", self.asked)
        }
    }

    /// Every node.
    pub(super) fn members(&self) -> Vec<usize> {
        self.members.clone()
    }

    fn is_joined(&self, a: usize, b: usize) -> bool {
        self.channels.get(&(a, b)).is_some_and(|channel| channel.up)
    }
}

/// The name of the `nth` node.
fn name_of(nth: usize) -> String {
    char::from(b'a' + u8::try_from(nth).unwrap_or(25).min(25)).to_string()
}

impl World {
    /// Attaches a group of nodes. They come up together, and their links a little later.
    pub fn attach_group(&mut self, plan: &GroupPlan, operation: Operation) -> Vec<usize> {
        if plan.plain_source == PlainSource::Never {
            self.router.filters_sources = true;
            self.watch.home = Some(SERVICE_ADDRESS);
        }
        let first = self.places.len();
        let secret = self.rng.secret();
        for nth in 0..plan.attachments.len() {
            self.attach_node(plan, nth, first, secret);
        }
        let members = self.group.members.clone();
        for &a in &members {
            for &b in members.iter().filter(|b| **b != a) {
                let channel = Channel::new(plan.manner.clone(), self.rng.fork());
                self.group.channels.insert((a, b), channel);
                if a < b {
                    let at = self.now + Duration::from_micros(self.rng.within(0..=20_000));
                    self.schedule(at, Event::PeersMeet(a, b));
                }
            }
        }
        self.begin_operation(operation, &members);
        members
    }

    fn attach_node(&mut self, plan: &GroupPlan, nth: usize, first: usize, secret: [u8; 32]) {
        let place = self.places.len();
        let attachment = Attachment { name: name_of(nth), ..plan.attachments[nth].clone() };
        let interface = self.next_interface(attachment.mtu);
        let peers = (0..plan.attachments.len()).filter(|other| *other != nth);
        let peers = peers
            .map(|other| Peer { name: name_of(other), care_of: Self::address_of(first + other) })
            .collect();
        let incarnation = Incarnation(self.rng.any());
        let services = services(plan, &mut self.rng);
        // Some have just started, some have run for a month.
        let ahead = Duration::from_millis(self.rng.scaled(0..=1 << 32));
        let drift = i32::try_from(self.rng.within(0..=400)).unwrap_or_default() - 200;
        let clock = Clock { ahead, drift };
        let setup = Setup {
            name: name_of(nth),
            group: "simulated".to_owned(),
            incarnation,
            secret,
            group_clock: GroupClock::ahead_by(EPOCH.saturating_sub(ahead)),
            care_of: interface.addresses[0],
            gateway: Self::gateway_of(place),
            mac: interface.mac,
            mtu: attachment.mtu,
            offload: plan.offload[nth],
            service_address: SERVICE_ADDRESS,
            contact: name_of(0),
            home_agent: self.home_agent(),
            placement: plan.placement,
            rules: Rules { tokens_ahead: self.tokens_ahead, ..Rules::default() },
            optimise: plan.optimise,
            plain_source: plan.plain_source,
            ask_again: Duration::from_mins(10),
            directory: ferry_node::DirectorySetup::default(),
            tcp: plan.tcp,
            peers,
            services,
        };
        let node = Node::new(setup, clock.at(self.now)).expect("the plan makes sense");
        let member = Member::new(node, &attachment.name, clock);
        let home = if nth == 0 && self.agent.is_none() { vec![HOME_ROUTER] } else { Vec::new() };
        self.attach_body(Body::Node(Box::new(member)), Sender::Ours, attachment, home);
        self.group.members.push(place);
        self.group.incarnations.insert(place, incarnation);
    }

    fn begin_operation(&mut self, operation: Operation, members: &[usize]) {
        for (at, span) in operation.flaps.clone() {
            let a = self.rng.pick(members);
            let others: Vec<usize> = members.iter().copied().filter(|b| *b != a).collect();
            let b = self.rng.pick(&others);
            self.schedule(at, Event::PeersPart(a, b));
            self.schedule(at + span, Event::PeersMeet(a, b));
        }
        for at in operation.agent_restarts.clone() {
            self.schedule(at, Event::RestartAgent);
        }
        for at in operation.contact_losses.clone() {
            self.schedule(at, Event::LoseContact);
        }
        if operation.every.is_some() || operation.drain.is_some() {
            self.schedule(self.now, Event::Operate);
        }
        if let Some((_, at)) = operation.drain {
            self.schedule(at, Event::Operate);
        }
        self.group.operation = operation;
    }

    fn member(&mut self, nth: usize) -> Option<&mut Member> {
        match &mut self.places[nth].body {
            Body::Node(member) => Some(member),
            Body::Host(_) | Body::Agent(_) | Body::Gone => None,
        }
    }

    pub(super) fn peers_meet(&mut self, a: usize, b: usize) {
        if self.group.is_joined(a, b) {
            return;
        }
        self.say(|| format!("{} and {} meet", self.places[a].name, self.places[b].name));
        self.join(a, b, true);
    }

    pub(super) fn peers_part(&mut self, a: usize, b: usize) {
        if !self.group.is_joined(a, b) {
            return;
        }
        self.say(|| format!("{} and {} part", self.places[a].name, self.places[b].name));
        self.join(a, b, false);
    }

    /// A node goes on under a new life: its links break and come up again.
    pub(super) fn reborn(&mut self, nth: usize, incarnation: Incarnation) {
        self.say(|| format!("{} is reborn", self.places[nth].name));
        self.group.incarnations.insert(nth, incarnation);
        for other in self.group.members.clone() {
            if self.group.is_joined(nth, other) {
                self.join(nth, other, false);
                self.schedule(self.now, Event::PeersMeet(nth, other));
            }
        }
    }

    fn join(&mut self, a: usize, b: usize, up: bool) {
        let now = self.now;
        for pair in [(a, b), (b, a)] {
            if let Some(channel) = self.group.channels.get_mut(&pair) {
                channel.up = up;
                channel.life += u32::from(!up);
            }
        }
        for (one, other) in [(a, b), (b, a)] {
            let incarnation = self.group.incarnations.get(&other).copied().filter(|_| up);
            let Some(id) = self.member(other).map(|member| member.id()) else { continue };
            if let Some(member) = self.member(one) {
                member.meet(id, incarnation, now);
            }
            self.settle(one);
        }
    }

    pub(super) fn tell(&mut self, from: usize, to: NodeId, bytes: &Bytes) {
        let is_it =
            |nth: &&usize| matches!(&self.places[**nth].body, Body::Node(member) if member.id() == to);
        let Some(to) = self.group.members.iter().find(is_it).copied() else { return };
        self.say(|| {
            let said = ferry_handoff::Message::decode(bytes);
            format!("{} tells {} {}", self.places[from].name, self.places[to].name, brief(&said))
        });
        if self.tamper.is_on() {
            for one in one_by_one(bytes) {
                self.carry(from, to, &one);
            }
        } else {
            self.carry(from, to, bytes);
        }
    }

    fn carry(&mut self, from: usize, to: usize, bytes: &Bytes) {
        let fate = self.tamper.next(from, to, bytes, self.now);
        let Some(channel) = self.group.channels.get_mut(&(from, to)) else { return };
        let life = channel.life;
        let arrivals = channel.carry(bytes.len(), self.now);
        for at in self.as_fated(fate, arrivals, (from, to)) {
            self.schedule(at, Event::Message { from, to, life, bytes: bytes.clone() });
        }
    }

    pub(super) fn message(&mut self, from: usize, to: usize, life: u32, bytes: Bytes) {
        let now = self.now;
        let alive = self.group.channels.get(&(from, to)).is_some_and(|link| link.up && link.life == life);
        let Some(id) = self.member(from).map(|member| member.id()).filter(|_| alive) else { return };
        self.say(|| {
            let said = ferry_handoff::Message::decode(&bytes);
            format!("{} hears {}", self.places[to].name, brief(&said))
        });
        if let Some(member) = self.member(to) {
            member.hear(id, bytes, now);
        }
        self.settle(to);
    }

    pub(super) fn replied(&mut self, nth: usize, id: u64, reply: Reply) {
        self.say(|| format!("{} replies to {id}: {reply:?}", self.places[nth].name));
        let about = self.group.asked.remove(&id);
        assert!(about.is_some(), "a command is answered once: {id}, {reply:?}");
        match reply {
            Reply::Moved(moved) => {
                self.group.handoffs += moved.moved as u64;
                self.group.refused += moved.failed.len() as u64;
            }
            _ => self.group.refused += 1,
        }
    }

    pub(super) fn traced(&mut self, nth: usize, trace: &Trace) {
        self.say(|| format!("{} traces {:?}", self.places[nth].name, trace.event));
        if let TraceEvent::Handoff { client, step, .. } = &trace.event {
            match step {
                Step::Frozen { moment, .. } => self.silences.frozen(*client, moment, self.now),
                Step::Installed { .. } => self.silences.installed(*client, self.now),
                _ => {}
            }
        }
    }

    pub(super) fn command(&mut self, nth: usize, about: Option<Client>, command: Command) {
        self.group.commands += 1;
        let (id, now) = (self.group.commands, self.now);
        self.group.asked.insert(id, about);
        self.say(|| format!("{} is told {id}: {command:?}", self.places[nth].name));
        if let Some(member) = self.member(nth) {
            member.command(id, command, now);
        }
        self.settle(nth);
    }

    /// The operator's turn.
    pub(super) fn operate(&mut self) {
        if let Some((nth, at)) = self.group.operation.drain
            && at <= self.now
        {
            self.group.operation.drain = None;
            self.command(self.group.members[nth], None, Command::Drain);
        }
        let enough = self.group.operation.at_most.is_some_and(|most| self.group.handoffs >= most);
        let Some(every) = self.group.operation.every.clone().filter(|_| !enough) else { return };
        self.hand_off_any();
        let next = self.now + self.rng.millis(every);
        self.schedule(next, Event::Operate);
    }

    fn hand_off_any(&mut self) {
        let owned: Vec<(Client, usize)> = self.group.owners.all().collect();
        if owned.is_empty() {
            return;
        }
        let ((client, port), nth) = self.rng.pick(&owned);
        let joined: Vec<usize> =
            self.group.members.iter().copied().filter(|to| self.group.is_joined(nth, *to)).collect();
        if joined.is_empty() {
            return;
        }
        let after = joined.iter().copied().find(|to| *to > nth).unwrap_or(joined[0]);
        let to = if self.group.operation.in_turn { after } else { self.rng.pick(&joined) };
        let to = self.places[to].name.clone();
        let all = self.rng.chance(self.group.operation.all);
        let which = if all { Which::All } else { Which::One { client, port } };
        self.command(nth, Some((client, port)), Command::Handoff { to, which });
    }

    /// Something happened at a node that its connections may have noticed.
    pub(super) fn stir(&mut self, nth: usize) {
        if self.group.operation.after_every_event {
            self.group.due.extend(self.group.owners.of(nth));
        }
    }

    /// The mode in which every scenario can run: what is due and not under way goes to the next node.
    pub(super) fn hand_off_after_every_event(&mut self, nth: usize) {
        if !self.group.operation.after_every_event {
            return;
        }
        let under_way: BTreeSet<Client> = self.group.asked.values().copied().flatten().collect();
        for client in self.group.owners.of(nth) {
            let tried = self.group.tried.get(&client) == Some(&self.now);
            if tried || under_way.contains(&client) || !self.group.due.contains(&client) {
                continue;
            }
            let joined = |to: &&usize| self.group.is_joined(nth, **to);
            let members = &self.group.members;
            let after = members.iter().filter(joined).find(|to| **to > nth);
            let Some(to) = after.or_else(|| members.iter().find(joined)).copied() else { continue };
            self.group.tried.insert(client, self.now);
            self.group.due.remove(&client);
            let to = self.places[to].name.clone();
            let which = Which::One { client: client.0, port: client.1 };
            self.command(nth, Some(client), Command::Handoff { to, which });
        }
    }
}

/// A message in a line: a snapshot is long.
fn brief(said: &Result<ferry_handoff::Message, ferry_handoff::Malformed>) -> String {
    let line = format!("{said:?}");
    line.chars().take(160).collect()
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

/// A socket address on the service address.
pub fn service_at(port: u16) -> SocketAddrV6 {
    SocketAddrV6::new(SERVICE_ADDRESS, port, 0, 0)
}
