//! Nodes that die: by a signal, or with all their cables.

pub mod crowd;
pub mod player;
pub mod show;
pub mod trials;
pub mod words;

use core::net::SocketAddrV6;
use core::time::Duration;
use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use ferry_node::io::{PeerStatus, Standing, Trace, TraceEvent};
use rustix::process::Signal;

use crate::clock::{await_some, nanos, now_ns};
use crate::link::Profile;
use crate::nodes::{self, Node, Offer};
use crate::trace::{Event, What};
use crate::world::{NODES, SERVICE, World};
use crate::{Error, Result};

/// Everything that a crash must not touch is over or under way by then.
pub const PATIENCE: Duration = Duration::from_secs(30);
const BEAT: Duration = Duration::from_millis(5);

/// The ports of [`STRICT`].
pub const HTTP: u16 = 80;
/// The other.
pub const ECHO: u16 = 7;
/// Files and echo, of which each connection is held by another node, and says nothing to its client that is not.
pub const STRICT: &[Offer] =
    &[Offer::protected("file", HTTP, "strict"), Offer::protected("echo", ECHO, "strict")];

/// The service's address at a port.
pub const fn service(port: u16) -> SocketAddrV6 {
    SocketAddrV6::new(SERVICE, port, 0, 0)
}

/// Connects and has one octet echoed, if that works within so long for each; for who tries again and again.
pub fn attempt(to: SocketAddrV6, within: Duration) -> Option<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to.into(), within).ok()?;
    stream.set_read_timeout(Some(within)).ok()?;
    stream.write_all(b"?").ok()?;
    stream.read_exact(&mut [0]).ok()?;
    Some(stream)
}

/// A node that was killed.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// When, on the monotonic clock.
    pub at_ns: u64,
    /// Its place among [`NODES`].
    pub victim: usize,
    /// The port whose connection it was killed for.
    pub port: u16,
}

impl Crash {
    /// When another node knew of it first.
    pub fn detected_ns(&self, events: &[Event]) -> Option<u64> {
        let died = |event: &&Event| {
            let What::Node(Trace { event: TraceEvent::Dead { peer }, .. }) = &event.what else {
                return false;
            };
            event.at_ns() >= self.at_ns && peer == NODES[self.victim]
        };
        events.iter().find(died).map(Event::at_ns)
    }

    /// When the first of its connections to the port went on, and when the last. What came after `until` is not laid to it:
    /// then the node was killed again, with what it had taken over meanwhile.
    pub fn restored_ns(&self, until: u64, events: &[Event]) -> Option<[u64; 2]> {
        let times = || self.recoveries(events).map(|(event, ..)| event.at_ns()).filter(|at| *at < until);
        Some([times().min()?, times().max()?])
    }

    /// Who went on with the connection from a port of the client, under which epoch, and when.
    pub fn recovered(&self, client_port: u16, events: &[Event]) -> Option<(String, u64, u64)> {
        let mut found = self.recoveries(events);
        let (event, _, epoch) = found.find(|(_, port, _)| *port == client_port)?;
        Some((event.node.clone(), epoch, event.at_ns()))
    }

    fn recoveries<'a>(&self, events: &'a [Event]) -> impl Iterator<Item = (&'a Event, u16, u64)> {
        let Self { at_ns, victim, port: of } = *self;
        // A node may be killed again; then others go on again.
        let until = at_ns + nanos(PATIENCE);
        let mut seen = BTreeSet::new();
        events.iter().filter_map(move |event| {
            let What::Node(Trace { event: TraceEvent::Recovered { client, port, epoch, from, .. }, .. }) =
                &event.what
            else {
                return None;
            };
            let ours = from == NODES[victim] && *port == of && (at_ns..until).contains(&event.at_ns());
            (ours && seen.insert(client.port())).then_some((event, client.port(), *epoch))
        })
    }
}

/// A group on one home link whose nodes may die.
#[derive(Debug)]
pub struct Crew {
    /// Where they live.
    pub world: World,
    nodes: Vec<Option<Node>>,
    dead: Vec<Node>,
    events: Vec<Event>,
}

impl Crew {
    /// Makes the world; starts no node yet.
    pub fn prepare(ferry: &Path, link: Profile, group: nodes::Options) -> Result<Self> {
        let world = World::at_home(link)?;
        nodes::prepare(&world, ferry, group)?;
        let nodes = world.hosts.iter().map(|_| None).collect();
        Ok(Self { world, nodes, dead: Vec::new(), events: Vec::new() })
    }

    /// Makes the world and starts all nodes.
    pub fn gather(ferry: &Path, link: Profile, group: nodes::Options) -> Result<Self> {
        let mut crew = Self::prepare(ferry, link, group)?;
        crew.start()?;
        Ok(crew)
    }

    /// Starts every node that does not run, and waits until all know each other.
    pub fn start(&mut self) -> Result<()> {
        for (node, host) in self.nodes.iter_mut().zip(&self.world.hosts) {
            if node.is_none() {
                *node = Some(Node::start(host)?);
            }
        }
        await_some("links between all nodes", PATIENCE, BEAT, || {
            let statuses = self.living().map(|node| node.control.status()).collect::<Result<Vec<_>>>()?;
            // Who is cut off before it has acknowledged the others cannot be voted out.
            let met = |peer: &PeerStatus| peer.up && peer.standing == Standing::Alive;
            Ok(statuses.iter().flat_map(|status| &status.peers).all(met).then_some(()))
        })
    }

    /// Those that run.
    pub fn living(&mut self) -> impl Iterator<Item = &mut Node> {
        self.nodes.iter_mut().flatten()
    }

    /// The place of a node that runs, among [`NODES`].
    pub fn node(&mut self, index: usize) -> Result<&mut Node> {
        let wrong = || Error::Usage(format!("node {} does not run", NODES[index]));
        self.nodes.get_mut(index).and_then(Option::as_mut).ok_or_else(wrong)
    }

    /// The place of the node that owns most connections to a port.
    pub fn owner(&mut self, port: u16) -> Result<Option<usize>> {
        let mut most = (0, None);
        for index in 0..self.nodes.len() {
            let Some(node) = &mut self.nodes[index] else { continue };
            let owned = node.control.connections()?.iter().filter(|one| one.port == port).count();
            if owned > most.0 {
                most = (owned, Some(index));
            }
        }
        Ok(most.1)
    }

    /// Waits until at least `count` connections of the group are held by other nodes too, and none lacks a copy.
    pub fn await_protection(&mut self, count: usize) -> Result<()> {
        await_some("copies of all connections", PATIENCE, BEAT, || {
            let (mut protected, mut bare) = (0, 0);
            for node in self.living() {
                let copies = node.control.status()?.copies;
                protected += copies.protected;
                bare += copies.unprotected;
            }
            Ok((protected >= count && bare == 0).then_some(()))
        })
    }

    /// Kills a node's process as nothing can be caught; tells when.
    pub fn kill(&mut self, index: usize) -> Result<u64> {
        let at = now_ns();
        self.node(index)?.signal(Signal::KILL)?;
        self.dead.extend(self.nodes[index].take());
        Ok(at)
    }

    /// Kills the owner of a connection.
    pub fn crash(&mut self, owner: usize, port: u16) -> Result<Crash> {
        Ok(Crash { at_ns: self.kill(owner)?, victim: owner, port })
    }

    /// Takes those that were killed away, with what they traced.
    pub fn bury(&mut self) -> Result<()> {
        for mut node in self.dead.drain(..) {
            node.await_death(PATIENCE)?;
            self.events.extend(node.trace()?);
        }
        Ok(())
    }

    /// What all nodes and we have to say, in the order of time.
    pub fn events(&mut self) -> Result<Vec<Event>> {
        let mut events = self.events.clone();
        for node in self.living() {
            events.extend(node.trace()?);
        }
        events.sort_by_key(Event::at_ns);
        Ok(events)
    }
}
