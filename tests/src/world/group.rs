//! The group of nodes in the world: their links to each other, and the operator who moves connections about.

use core::net::{Ipv6Addr, SocketAddrV6};
use core::ops::RangeInclusive;
use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use ferry_handoff::Incarnation;
use ferry_node::{Command, Optimise, Placement, PlainSource, Reply, Step, Trace, TraceEvent, Which};
use ferry_stack::Instant;
use ferry_stack::interface::Address;
use ferry_stack::tcp::Config;

use super::agenda::Event;
use super::birth::Origin;
use super::faults::Blow;
use super::{Attachment, Body, World};
use crate::channel::{Channel, Manner};
use crate::member::Member;
use crate::owners::{Client, Owners};
use crate::rng::PerMille;

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
    /// These nodes take the role of the contact node, by their numbers in the group, and when.
    pub roles: Vec<(usize, Instant)>,
    /// What befalls nodes and ways, and when.
    pub blows: Vec<(Instant, Blow)>,
    /// Whether dead nodes stay dead when all faults end.
    pub dead_for_good: bool,
}

/// The group in the world.
#[derive(Debug, Default)]
pub(super) struct Group {
    members: Vec<usize>,
    pub(super) origin: Option<Origin>,
    pub(super) channels: BTreeMap<(usize, usize), Channel>,
    /// Who takes his link to whom for whole.
    pub(super) believes: BTreeSet<(usize, usize)>,
    /// Which links are being tried.
    pub(super) dialling: BTreeSet<(usize, usize)>,
    pub(super) incarnations: BTreeMap<usize, Incarnation>,
    /// By how many milliseconds the wall clocks of the nodes' hosts are wrong.
    pub(super) wrong: BTreeMap<usize, i64>,
    operation: Operation,
    pub(super) owners: Owners,
    /// Commands that are not answered: at which node, and what they are about.
    asked: BTreeMap<u64, (usize, Option<Client>)>,
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
        let (drain, dead_for_good) = (self.operation.drain, self.operation.dead_for_good);
        self.operation = Operation { drain, dead_for_good, ..Operation::default() };
    }

    /// Whether dead nodes start anew when all faults end.
    pub(super) fn revives(&self) -> bool {
        !self.operation.dead_for_good
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

    /// Whether what either of two nodes says reaches the other one.
    pub(super) fn is_joined(&self, a: usize, b: usize) -> bool {
        let up = |pair| self.channels.get(&pair).is_some_and(|channel| channel.up);
        up((a, b)) && up((b, a))
    }

    /// A node's first life begins.
    pub(super) fn enter(&mut self, place: usize, incarnation: Incarnation) {
        self.members.push(place);
        self.incarnations.insert(place, incarnation);
    }

    /// Nobody at a node will answer any more.
    pub(super) fn hang_up(&mut self, nth: usize) {
        self.asked.retain(|_, (at, _)| *at != nth);
    }
}

impl World {
    /// Attaches a group of nodes. They come up together, and their links a little later.
    pub fn attach_group(&mut self, plan: &GroupPlan, operation: Operation) -> Vec<usize> {
        if plan.plain_source == PlainSource::Never {
            self.router.filters_sources = true;
            self.watch.home = Some(SERVICE_ADDRESS);
        }
        self.attach_home_link();
        let first = self.places.len();
        let origin = Origin { plan: plan.clone(), secret: self.rng.secret(), first };
        for nth in 0..plan.attachments.len() {
            self.attach_node(&origin, nth);
        }
        self.group.origin = Some(origin);
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
        for (nth, at) in operation.roles.clone() {
            self.schedule(at, Event::TakeRole(members[nth]));
        }
        for (at, blow) in operation.blows.clone() {
            self.schedule(at, Event::Befall(blow));
        }
        if operation.every.is_some() || operation.drain.is_some() {
            self.schedule(self.now, Event::Operate);
        }
        if let Some((_, at)) = operation.drain {
            self.schedule(at, Event::Operate);
        }
        self.group.operation = operation;
    }

    pub(super) fn member(&mut self, nth: usize) -> Option<&mut Member> {
        match &mut self.places[nth].body {
            Body::Node(member) => Some(member),
            Body::Host(_) | Body::Agent(_) | Body::Gone => None,
        }
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
        if let TraceEvent::Recovered { client, port, .. } = &trace.event {
            self.watch.goes_on_from_a_copy(service_at(*port), *client);
        }
        if let TraceEvent::Handoff { client, port, epoch, step, .. } = &trace.event {
            match step {
                Step::Frozen { moment, .. } => {
                    self.silences.frozen(*client, moment, self.now);
                    self.note_frozen((*client, *port), *epoch);
                }
                Step::Installed { .. } => self.silences.installed(*client, self.now),
                _ => {}
            }
        }
    }

    pub(super) fn command(&mut self, nth: usize, about: Option<Client>, command: Command) {
        self.group.commands += 1;
        let (id, now) = (self.group.commands, self.now);
        self.group.asked.insert(id, (nth, about));
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

    /// A node is to have the role of the contact node, if it can be told so.
    pub(super) fn take_role(&mut self, nth: usize) {
        if self.is_alive(nth) && !self.is_stopped(nth) {
            self.command(nth, None, Command::Contact);
        }
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
        let under_way: BTreeSet<Client> = self.group.asked.values().filter_map(|(_, about)| *about).collect();
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

/// A socket address on the service address.
pub fn service_at(port: u16) -> SocketAddrV6 {
    SocketAddrV6::new(SERVICE_ADDRESS, port, 0, 0)
}
