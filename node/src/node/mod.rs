//! The node itself, sans-I/O: what arrives is brought to the connection that it belongs to, wherever that lives.

mod ask;
mod audit;
mod backup;
mod belief;
mod commands;
mod cookies;
mod ended;
mod hearing;
mod home;
mod jobs;
mod members;
mod mobility;
mod moment;
mod moves;
mod near;
mod peers;
mod placement;
mod places;
mod role;
mod rules;
mod seekers;
mod segments;
mod service;
mod sessions;
mod setup;
mod status;
#[cfg(test)]
mod tests;
mod updates;
mod waiting;
mod warm;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ferry_handoff::{Epoch, Handoffs, Incarnation, Message, NodeId, Snapshot};
use ferry_mipv6::{Stage, TUNNEL_OVERHEAD};
use ferry_stack::interface::Config as InterfaceConfig;
use ferry_stack::ip::Packet;
use ferry_stack::tcp::{Endpoint, Flow, Handle, HandleMap, Listener, MapKey, Path, Secret, Tcb};
use ferry_stack::{GroupClock, HashedAlarms, Instant, Interface};

use self::ask::Asks;
use self::audit::Leaving;
use self::backup::{Backup, Guard};
use self::belief::Claims;
use self::ended::Ended;
use self::home::Home;
pub use self::home::HomeAgent;
use self::jobs::Jobs;
use self::mobility::Mobility;
pub use self::mobility::{Optimise, PlainSource};
use self::near::Near;
use self::peers::Peers;
pub use self::placement::{Candidate, Newcomer, Placement, Policy};
use self::places::{Held, Place, Placed};
pub use self::rules::{Rules, TokensAhead};
use self::service::AnySession;
pub use self::service::{Commit, Service};
pub use self::setup::{Peer, Setup, SetupError};
use self::updates::Updates;
use self::waiting::Waiting;
use self::warm::Warming;
use crate::directory::{Directory, DirectoryKind, Embedded, Etcd};
use crate::io::{Counters, Input, Output, Trace, TraceEvent};

/// Octets of an IPv6 header and a TCP header without options.
const HEADERS: u16 = 60;

/// One node of a group: an IPv6 host that owns connections of the group's clients, and gives and takes them.
///
/// Feed it by [`Node::handle`], then call [`Node::poll`] until it says [`Output::WaitUntil`]; call
/// [`Node::handle`] with [`Input::Tick`] when that moment has come. It reads no clock, no socket and no randomness.
#[derive(Debug)]
pub struct Node {
    name: Arc<str>,
    group: String,
    id: NodeId,
    incarnation: Incarnation,
    care_of: Ipv6Addr,
    service_address: Ipv6Addr,
    /// Says which of two connections between the same ends is the later one.
    group_clock: GroupClock,
    contact: NodeId,
    /// Since when the contact node is who it is, in this life of it, as far as is known here.
    contact_since: Instant,
    /// When this node learned last that another is dead.
    last_death: Option<Instant>,
    home: Home,
    placement: Placement,
    policy: Box<dyn Policy>,
    rules: Rules,
    near: Near,
    peers: Peers,
    directory: Box<dyn Directory>,
    /// Whether this node may act for its connections, when that was looked at last.
    serves: bool,
    /// What came for connections that live here while this node might not act for them.
    suspended: Waiting,
    interface: Interface,
    stage: Stage,
    mobility: Mobility,
    tcp: Endpoint,
    path: Path,
    services: BTreeMap<u16, Service>,
    owned: HandleMap<Owned>,
    /// When which session wants to be woken. Those that sleep without end take no room here.
    wakes: HashedAlarms<Flow>,
    /// Connections that are not here: where their segments go.
    places: HashMap<Flow, Place, MapKey>,
    placed: Placed,
    ended: Ended,
    handoffs: Handoffs,
    warming: Warming,
    backup: Backup,
    leaving: Leaving,
    claims: Claims,
    held: Held,
    updates: Updates,
    asks: Asks,
    jobs: Jobs,
    draining: bool,
    outputs: VecDeque<Output>,
    /// The moment that [`Output::WaitUntil`] named last: before it, nothing is due.
    due: Option<Instant>,
    started: Instant,
    counters: Counters,
}

/// A connection that this node owns.
#[derive(Debug)]
struct Owned {
    epoch: Epoch,
    /// The greatest epoch that was offered to another node.
    offered: Epoch,
    /// Another node may have it too: it has answered the same SYN, or got it from one that has died.
    doubtful: bool,
    /// Absent until the handshake is over.
    session: Option<AnySession>,
    /// Its copies at other nodes, if its service asks for them.
    guard: Option<Box<Guard>>,
}

impl Node {
    /// A node without connections.
    pub fn new(mut setup: Setup, now: Instant) -> Result<Self, SetupError> {
        setup.check()?;
        let secret = Secret::new(setup.secret);
        let own_policy = setup.rules.policy.take();
        let id = NodeId::of(&setup.name);
        let contact = NodeId::of(&setup.contact);
        let mut tcp = Endpoint::new(secret.clone(), setup.mtu, setup.offload);
        tcp.set_group_clock(setup.group_clock);
        let tunnelled = setup.mtu - HEADERS - TUNNEL_OVERHEAD;
        let config = ferry_stack::tcp::Config { mss: setup.tcp.mss.min(tunnelled), ..setup.tcp };
        for service in &setup.services {
            tcp.listen(service.port(), Listener::new(config));
        }
        let key = siphasher::sip::SipHasher13::new_with_key(&secret.map_key());
        let mut node = Self {
            id,
            contact,
            contact_since: now,
            last_death: None,
            home: Home::new(&setup, now),
            incarnation: setup.incarnation,
            care_of: setup.care_of.address,
            service_address: setup.service_address,
            group_clock: setup.group_clock,
            placement: setup.placement,
            policy: own_policy.unwrap_or_else(|| setup.placement.policy(secret.map_key())),
            near: Near::default(),
            interface: Interface::new(InterfaceConfig {
                mac: setup.mac,
                addresses: vec![setup.care_of],
                gateway: Some(setup.gateway),
                mtu: setup.mtu,
            }),
            mobility: Mobility::new(&setup),
            backup: Backup::new(&setup, key, now),
            stage: Stage::new(setup.service_address, setup.peers.iter().map(|peer| peer.care_of)),
            directory: directory(id, &setup, now),
            serves: true,
            suspended: Waiting::default(),
            peers: Peers::new(setup.peers),
            tcp,
            path: Path { overhead: 0, segmentation: setup.offload },
            services: setup.services.into_iter().map(|service| (service.port(), service)).collect(),
            owned: HandleMap::default(),
            wakes: HashedAlarms::new(MapKey(key)),
            places: HashMap::with_hasher(MapKey(key)),
            ended: Ended::new(MapKey(key)),
            placed: Placed::default(),
            handoffs: Handoffs::new(&MapKey(key)),
            warming: Warming::default(),
            leaving: Leaving::new(MapKey(key)),
            claims: Claims::default(),
            held: Held::default(),
            updates: Updates::new(&MapKey(key)),
            asks: Asks::default(),
            jobs: Jobs::default(),
            draining: false,
            outputs: VecDeque::new(),
            due: None,
            started: now,
            counters: Counters::default(),
            rules: setup.rules,
            name: setup.name.into(),
            group: setup.group,
        };
        node.interface.set_mobility(true);
        if let Some(agent) = node.home.agent() {
            node.stage.admit(agent);
        }
        // It is announced when others have had time to say that one of them has the role by now.
        let alone = node.peers.ids().next().is_none();
        node.answer_at_home(alone, now);
        // Many connections may come here at once before this node has sent anything.
        node.interface.look_for_gateway(now);
        Ok(node)
    }

    /// Whether this node answers for the service address on the home link, or has it registered with the home agent:
    /// what comes for it comes here.
    pub fn is_contact(&self) -> bool {
        self.id == self.contact
    }

    /// This life of the node, as it tells its peers.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Something happened.
    pub fn handle(&mut self, input: Input, now: Instant) {
        // Whatever has ended is let go of before a new connection can take its slot.
        self.settle(now);
        match input {
            Input::Frame(frame) => {
                self.counters.frames_in += 1;
                if let Some(datagram) = self.interface.receive(frame, now) {
                    self.receive(datagram, now);
                }
            }
            Input::Peer { from, bytes } => self.receive_messages(from, bytes, now),
            Input::PeerUp { peer, incarnation } => self.peer_up(peer, incarnation, now),
            Input::PeerDown { peer } => self.peer_down(peer, now),
            Input::PeerDead { peer, incarnation } => self.peer_dead(peer, incarnation, now),
            Input::Command { id, command } => self.command(id, command, now),
            Input::Store { id, answer } => self.store_answered(id, answer, now),
            Input::Tick => self.due = Some(now),
        }
        if self.due.is_some_and(|due| due <= now) {
            self.handle_timeout(now);
        }
        self.settle(now);
    }

    /// The next thing that the node wants done. Call until [`Output::WaitUntil`].
    pub fn poll(&mut self, now: Instant) -> Output {
        loop {
            if let Some(output) = self.outputs.pop_front() {
                return output;
            }
            let serves = self.look_at_lease(now);
            if let Some(frame) = self.interface.poll_transmit() {
                self.counters.frames_out += 1;
                return Output::Frame(frame);
            }
            if let Some((handle, packet)) = serves.then(|| self.poll_segment(now)).flatten() {
                self.send_segment(handle, packet, now);
            } else if !self.go_further(serves, now) && self.outputs.is_empty() {
                self.due = if self.end_of_turns() { Some(now) } else { self.deadline() };
                return Output::WaitUntil(self.due);
            }
        }
    }

    /// Whether what to [poll](Self::poll) next is known already. If not, there may be something all the same.
    pub(crate) fn has_outputs(&self) -> bool {
        !self.outputs.is_empty()
    }

    /// Does what is less urgent than segments; whether there was anything.
    fn go_further(&mut self, serves: bool, now: Instant) -> bool {
        self.settle(now)
            || (serves && (self.signal(now) || self.register_further(now)))
            || self.recover_some(now)
            || self.update_copies(now)
    }

    fn poll_segment(&mut self, now: Instant) -> Option<(Handle, Packet)> {
        let home = self.way_home();
        let Self { tcp, mobility, .. } = self;
        tcp.poll_transmit(now, |flow| {
            let way = mobility.path(*flow.remote.ip(), self.care_of, home, now);
            Path { overhead: way.overhead(), ..self.path }
        })
    }

    fn deadline(&mut self) -> Option<Instant> {
        let serving = [self.mobility.deadline(), self.tcp.deadline(), self.wakes.next()];
        let serving = serving.into_iter().filter(|_| self.serves);
        [
            self.home.deadline(),
            self.directory.deadline(),
            self.interface.deadline(),
            self.handoffs.deadline(),
            self.warming.deadline(),
            self.backup.deadline(),
            self.updates.deadline(),
            self.asks.deadline(),
            self.claims.deadline(),
            self.peers.deadline(),
            self.placed.deadline(),
        ]
        .into_iter()
        .chain(serving)
        .flatten()
        .min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.interface.handle_timeout(now);
        self.directory.handle_timeout(now);
        self.attend(now);
        // What a connection waits for stands still while this node may not act for it.
        if self.may_serve(now) {
            self.tcp.handle_timeout(now);
            self.wake_sessions(now);
            self.mobility.handle_timeout(now);
        }
        self.handle_home(now);
        self.handoffs.handle_timeout(now);
        self.handle_warming(now);
        self.handle_backups(now);
        self.repeat_updates(now);
        self.asks.handle_timeout(now);
        self.claims.forget_old(now);
        self.tell_load(now);
        self.forget_unconfirmed(now);
    }

    /// Runs sessions and handoffs until nothing more follows from what has happened. Whether anything did.
    fn settle(&mut self, now: Instant) -> bool {
        let mut any = false;
        loop {
            if let Some(event) = self.tcp.poll_event() {
                self.session_event(event, now);
            } else if let Some(action) = self.handoffs.poll() {
                self.act(action, now);
            } else if !self.carry_out_verdicts(now) {
                return any;
            }
            any = true;
        }
    }

    /// The connections that this node owns, each as the snapshot that would move now. For tests and experiments.
    pub fn snapshots(&self, now: Instant) -> Vec<Snapshot> {
        self.owned()
            .map(|(tcb, owned)| self.snapshot(owned, tcb.frozen_copy(now), owned.epoch, Bytes::new(), now))
            .collect()
    }

    /// The connections that have left and of which nobody has said that he runs them, so that their snapshots are still
    /// here, and the epoch of each. For tests and experiments.
    pub fn committed(&self) -> impl Iterator<Item = (Flow, Epoch)> {
        self.handoffs.committed().map(|(flow, _, epoch)| (flow, epoch))
    }

    /// The running control blocks of the connections that this node owns.
    pub fn control_blocks(&self) -> impl Iterator<Item = &Tcb> {
        self.owned().map(|(tcb, _)| tcb)
    }

    fn owned(&self) -> impl Iterator<Item = (&Tcb, &Owned)> {
        self.owned.iter().filter_map(|(handle, owned)| Some((self.tcp.get(handle)?, owned)))
    }

    fn snapshot(
        &self,
        owned: &Owned,
        tcb: Box<Tcb<Duration>>,
        epoch: Epoch,
        client: Bytes,
        now: Instant,
    ) -> Snapshot {
        let wake = self.wakes.at(&tcb.flow).map(|at| at.until(now));
        let service = self.services.get(&tcb.flow.local.port());
        let encode = |session| service.and_then(|service| service.encode(session).ok());
        let session = owned.session.as_ref().and_then(encode).unwrap_or_default();
        let service = service.map(|service| service.name().to_owned()).unwrap_or_default();
        Snapshot { epoch, service, tcb, session, wake, client }
    }

    fn tell(&mut self, to: NodeId, message: &Message) {
        self.outputs.push_back(Output::Peer { to, bytes: message.pieces() });
    }

    fn trace(&mut self, event: TraceEvent, now: Instant) {
        self.outputs.push_back(Output::Trace(Box::new(Trace { at_ns: now.nanos(), event })));
    }
}

fn directory(id: NodeId, setup: &Setup, now: Instant) -> Box<dyn Directory> {
    if setup.directory.kind == DirectoryKind::Etcd {
        let others = setup.peers.iter().map(|peer| peer.name.as_str());
        let (name, contact) = (&setup.name, NodeId::of(&setup.contact));
        return Box::new(Etcd::new(name, setup.incarnation, others, contact, &setup.directory, now));
    }
    let replicated = setup.services.iter().any(|service| service.replicas() > 0);
    let others = setup.peers.iter().map(|peer| NodeId::of(&peer.name));
    Box::new(Embedded::new(id, setup.incarnation, others, &setup.directory, replicated, now))
}
