//! Who is alive: a directory tells a node which lives of the others are over, and for how long it may count on its
//! own. What it says never becomes untrue. Like the node it reads no clock and no socket.

mod arrivals;
#[cfg(test)]
mod draw;
mod embedded;
mod etcd;
mod member;
#[cfg(test)]
mod tests;

use std::fmt;
use std::time::Duration;

use ferry_handoff::{Incarnation, Message, NodeId, Pulse};
use ferry_stack::Instant;

pub(crate) use self::embedded::Embedded;
pub(crate) use self::etcd::Etcd;
use crate::io::{EtcdStatus, Standing, StoreAnswer, StoreRequest};

/// How a group finds out who is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectorySetup {
    /// Where that is kept.
    pub kind: DirectoryKind,
    /// How often nodes give each other signs of life; without etcd only if some service has replicas.
    pub heartbeat: Duration,
    /// For how long a node may serve after a pulse that enough others have acknowledged. Nobody takes its place before. With
    /// etcd also how long its lease there is; whole seconds then.
    pub lease: Duration,
}

/// Where it is kept who is alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DirectoryKind {
    /// With the nodes themselves: a majority decides.
    #[default]
    Embedded,
    /// In etcd.
    Etcd,
}

impl Default for DirectorySetup {
    fn default() -> Self {
        let (heartbeat, lease) = (Duration::from_millis(10), Duration::from_millis(200));
        Self { kind: DirectoryKind::Embedded, heartbeat, lease }
    }
}

impl DirectorySetup {
    /// What is usual with etcd, whose leases are at least two seconds long if it is not told otherwise.
    pub fn etcd() -> Self {
        let (heartbeat, lease) = (Duration::from_millis(100), Duration::from_secs(2));
        Self { kind: DirectoryKind::Etcd, heartbeat, lease }
    }
}

/// For how long a node may act for its connections without hearing more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lease {
    /// Nobody can take its place unasked.
    Unlimited,
    /// Until then, by its own clock.
    Until(Instant),
}

impl Lease {
    pub(crate) fn is_valid(self, now: Instant) -> bool {
        match self {
            Self::Unlimited => true,
            Self::Until(end) => now < end,
        }
    }
}

/// What a directory has to say, or wants done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// Send this to another node. It may be lost.
    Tell(NodeId, Message),
    /// This life of a node is over. Told once.
    Died(NodeId, Incarnation),
    /// The others have given up this life of ours. Told once.
    Lost,
    /// This node is the contact node in this term.
    Contact(NodeId, u64),
    /// Ask etcd for something. The answer carries the same number, or is lost.
    Ask(u64, StoreRequest),
}

/// Tells who is alive. Feed it, then call [`Directory::poll`] until there is nothing more; call
/// [`Directory::handle_timeout`] when its deadline has come.
pub(crate) trait Directory: fmt::Debug + Send {
    /// What `ferry status` calls it.
    fn name(&self) -> &'static str;

    /// The link to a node is up. `false` if that life of it is over: nothing that it says counts.
    fn peer_up(&mut self, peer: NodeId, life: Incarnation, now: Instant) -> bool;

    /// The link to a node broke.
    fn peer_down(&mut self, peer: NodeId, now: Instant);

    /// It is proved that a life of a node is over.
    fn proved(&mut self, peer: NodeId, life: Incarnation, now: Instant);

    /// Another node says that a life is over.
    fn told(&mut self, from: NodeId, node: NodeId, life: Incarnation, now: Instant);

    /// Another node gave a sign of life. `life` is that of the link.
    fn pulse(&mut self, from: NodeId, pulse: &Pulse, now: Instant);

    /// This node has lost its former life, and goes on with this one.
    fn reborn(&mut self, life: Incarnation, now: Instant);

    /// This node wants `node` to be the contact node in `term`. Whether that is granted at once; else [`Event::Contact`] tells
    /// who is, as soon as that is known.
    fn appoint(&mut self, node: NodeId, term: u64, now: Instant) -> bool;

    /// Why no role can move now, if so.
    fn hindrance(&self) -> Option<&'static str> {
        None
    }

    /// etcd has answered.
    fn answer(&mut self, _id: u64, _answer: StoreAnswer, _now: Instant) {}

    /// How it stands with etcd.
    fn etcd(&self, _now: Instant) -> Option<EtcdStatus> {
        None
    }

    /// Does what has come due.
    fn handle_timeout(&mut self, now: Instant);

    /// When [`Directory::handle_timeout`] has something to do.
    fn deadline(&self) -> Option<Instant>;

    /// What to tell or to do next.
    fn poll(&mut self) -> Option<Event>;

    /// For how long this node may act for its connections.
    fn lease(&self) -> Lease;

    /// How a node stands.
    fn standing(&self, peer: NodeId) -> Standing;
}
