//! What goes into a [`Node`](crate::Node) and what comes out of it.

mod audit;
mod copies;
mod steps;
mod store;

use core::net::{Ipv6Addr, SocketAddrV6};

use bytes::Bytes;
use ferry_handoff::{Incarnation, NodeId, Pieces};
use ferry_stack::{Frame, Instant};
use serde::{Deserialize, Serialize};

pub use self::audit::{Audit, AuditResult, Reason};
pub use self::copies::{Copies, Protection};
pub use self::steps::{Moment, Step};
pub use self::store::{Cell, EtcdStatus, Guard, Put, StoreAnswer, StoreRequest};

/// Something that happened to a node.
#[derive(derive_more::Debug)]
pub enum Input {
    /// A frame came from the TAP.
    Frame(Frame),
    /// Another node of the group sent a message. The driver has authenticated it as `from`.
    Peer {
        /// The sender.
        from: NodeId,
        /// One whole message.
        #[debug("{} octets", bytes.len())]
        bytes: Bytes,
    },
    /// The link to another node is up.
    PeerUp {
        /// The other node.
        peer: NodeId,
        /// Its present life.
        incarnation: Incarnation,
    },
    /// The link to another node broke. It may be dead, or only out of reach.
    PeerDown {
        /// The other node.
        peer: NodeId,
    },
    /// It is certain that this life of another node is over: its process is gone.
    PeerDead {
        /// The other node.
        peer: NodeId,
        /// The life that is over.
        incarnation: Incarnation,
    },
    /// An operator asks for something; the answer carries the same `id`.
    Command {
        /// Chosen by the asker, unique among the unanswered.
        id: u64,
        /// What is asked.
        command: Command,
    },
    /// etcd has answered, or could not be asked. A watch has many answers, anything else has one.
    Store {
        /// The request's.
        id: u64,
        /// The answer.
        answer: StoreAnswer,
    },
    /// Nothing but that time has passed.
    Tick,
}

/// Something that a node wants done.
#[derive(derive_more::Debug)]
pub enum Output {
    /// Put a frame on the TAP.
    Frame(Frame),
    /// Send a message to another node. May be lost; the node repeats what matters.
    Peer {
        /// The receiver.
        to: NodeId,
        /// One whole message.
        #[debug("{} octets", bytes.len())]
        bytes: Pieces,
    },
    /// The others have given this life up, and the node begins another: end every link, and greet with this from now on. What
    /// comes on links of the former life must not come in any more.
    Reborn {
        /// The new life.
        incarnation: Incarnation,
    },
    /// Ask etcd for something; the answer carries the same `id`. It may be lost.
    Store {
        /// Unique among the unanswered.
        id: u64,
        /// What is asked.
        request: StoreRequest,
    },
    /// The answer to a command.
    Reply {
        /// The command's.
        id: u64,
        /// The answer.
        reply: Reply,
    },
    /// Something that a log or an experiment wants to know.
    Trace(Box<Trace>),
    /// Nothing more to do before this point, unless an input comes first. `None`: only an input can help.
    WaitUntil(Option<Instant>),
}

/// What an operator can ask of a running node. On the control socket: one JSON object a line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case")]
pub enum Command {
    /// How the node is.
    Status,
    /// The connections it owns.
    Connections,
    /// Move connections to another node. Answered when each has moved or failed to.
    Handoff {
        /// The receiving node's name.
        to: String,
        /// Which connections.
        which: Which,
    },
    /// Hand every connection off, take no new ones. Answered when none is left, or none of those left can move.
    Drain,
    /// Have the node of this name drained, this one or another. Answered like [`Command::Drain`].
    DrainNode {
        /// Its name.
        node: String,
    },
    /// Even the load of the group: nodes with more than their share of connections, by weight, give to those with less.
    Rebalance,
    /// Stop what moves connections by command: what is under way still ends, and a draining node takes connections again.
    Stop,
    /// Make this node the contact node, where there is a home agent or both are on the home link.
    Contact,
    /// Let the home agent forget this node, because it ends. Answered when it has, or after two seconds.
    Leave,
}

/// Which connections a command means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Which {
    /// Every connection that this node owns.
    All,
    /// The one between this client's address and port and the service's port.
    One {
        /// The client.
        client: SocketAddrV6,
        /// The port on the service address.
        port: u16,
    },
}

/// The answer to a [`Command`]. On the control socket: one JSON object a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub enum Reply {
    /// To [`Command::Status`].
    Status(Box<Status>),
    /// To [`Command::Connections`].
    Connections {
        /// In the order of client address and port.
        connections: Vec<Connection>,
    },
    /// To [`Command::Handoff`], [`Command::Drain`], [`Command::DrainNode`] and [`Command::Rebalance`].
    Moved(Moved),
    /// To [`Command::Contact`], [`Command::Stop`] and [`Command::Leave`].
    Done,
    /// The command could not be carried out at all.
    Error {
        /// What is wrong, and what would be right.
        why: String,
    },
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact by itself")]
pub struct Status {
    /// The node's name.
    pub name: String,
    /// The group's name.
    pub group: String,
    /// The address that clients know.
    pub service_address: Ipv6Addr,
    /// This node's own address.
    pub care_of: Ipv6Addr,
    /// Whether its gateway has answered: before that, what is to leave the link waits.
    #[serde(default)]
    pub gateway_answers: bool,
    /// Whether this node answers for the service address on the home link, or has it registered with the home agent.
    pub contact: bool,
    /// Who does, as far as it knows.
    #[serde(default)]
    pub contact_node: String,
    /// Counts the contact nodes, if the role can move.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact_term: Option<u64>,
    /// How it stands with the home agent, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub home_agent: Option<HomeAgentStatus>,
    /// Whether it is emptying itself.
    pub draining: bool,
    /// The policy by which it places new connections when it is the contact node.
    #[serde(default)]
    pub placement: String,
    /// Milliseconds since it started.
    pub uptime_ms: u64,
    /// Connections that it owns.
    pub connections: usize,
    /// Connections of other nodes whose segments it relays or forwards.
    pub relayed: usize,
    /// Handoffs under way here, as donor or acceptor.
    pub moving: usize,
    /// Who tells it which nodes are alive.
    #[serde(default)]
    pub directory: String,
    /// Whether it may act for its connections: nobody can have taken its place.
    #[serde(default)]
    pub serving: bool,
    /// Milliseconds for which that is certain, if it ever ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_ms: Option<u64>,
    /// How it stands with etcd, if that is the directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etcd: Option<EtcdStatus>,
    /// The other nodes.
    pub peers: Vec<PeerStatus>,
    /// How the copies of connections are: of those that it owns, and of those that others own.
    #[serde(default)]
    pub copies: Copies,
    /// What it has counted since it started.
    pub counters: Counters,
}

/// How it stands with the home agent. Only the contact node registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HomeAgentStatus {
    /// The agent's address.
    pub address: Ipv6Addr,
    /// Whether it sends what comes for the service address here.
    pub registered: bool,
    /// Whether another node has registered since this one had, without this one's knowing why.
    pub superseded: bool,
    /// The status (RFC 6275 section 6.1.8) with which it has refused, if it has since it last accepted.
    pub refused: Option<u8>,
}

/// How another node is, seen from this one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// Its address.
    pub care_of: Ipv6Addr,
    /// Whether the link to it is up.
    pub up: bool,
    /// Whether it is alive, as far as is known.
    #[serde(default)]
    pub standing: Standing,
    /// Connections that it owned when it last said so.
    pub connections: usize,
}

/// Whether another node is alive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Standing {
    /// Nothing speaks against it.
    #[default]
    Alive,
    /// It has not acknowledged this node yet, which therefore has no vote against it if it falls silent.
    New,
    /// It has been silent for too long, and not enough others say so.
    Suspected,
    /// Its life that was known last is over.
    Dead,
}

/// What a node counts. All since its start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    /// Frames from the TAP.
    pub frames_in: u64,
    /// Frames to the TAP.
    pub frames_out: u64,
    /// Connections that clients opened here.
    pub accepted: u64,
    /// Connections that came from another node.
    pub taken: u64,
    /// Connections that went to another node.
    pub given: u64,
    /// Handoffs that the acceptor refused or that timed out before the freeze.
    pub handoffs_failed: u64,
    /// Segments sent on to another node.
    pub forwarded: u64,
    /// Segments held for a connection that was arriving.
    pub held: u64,
    /// Segments sent straight to a client that knows where its connection is.
    pub optimised: u64,
    /// RST segments sent.
    pub resets_sent: u64,
    /// TCP segments sent again.
    pub retransmitted: u64,
    /// SYNs that were answered by a cookie and not remembered.
    pub cookies_sent: u64,
    /// Connections that a cookie opened here, whichever node gave it.
    pub cookies_accepted: u64,
    /// Cookies that came back when the connection that they had opened was over.
    pub cookies_replayed: u64,
    /// Messages of other members that were not believed.
    pub disbelieved: u64,
    /// Connections given up because the others had given this node up.
    pub lost_ownership: u64,
    /// How often it became the contact node.
    pub roles_taken: u64,
    /// Packets dropped as malformed, or meant for somebody else.
    pub dropped: u64,
}

/// One connection that a node owns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// The client's address and port.
    pub client: SocketAddrV6,
    /// The port on the service address.
    pub port: u16,
    /// The service's name.
    pub service: String,
    /// The TCP state, as RFC 9293 spells it.
    pub state: String,
    /// When it was opened, in milliseconds since 1970 by the group's clock; later than any before it from the same port.
    #[serde(default)]
    pub opened_ms: u64,
    /// Counts its owners.
    pub epoch: u64,
    /// Octets that the client acknowledged.
    pub sent: u64,
    /// Octets received in order.
    pub received: u64,
    /// Smoothed round-trip time in microseconds, once measured.
    pub srtt_us: Option<u64>,
    /// Congestion window in octets.
    pub cwnd: u64,
    /// Its copies at other nodes, if its service asks for any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<Protection>,
}

/// How moves ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// How many connections another node took.
    pub moved: usize,
    /// How many could not be moved and stay.
    pub failed: Vec<NotMoved>,
    /// How many stay because the command was stopped, or because another node that was asked to move them could not.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left: usize,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A connection that could not be moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotMoved {
    /// The client's address and port.
    pub client: SocketAddrV6,
    /// The port on the service address.
    pub port: u16,
    /// What stood in the way.
    pub why: String,
}

impl NotMoved {
    /// Why a connection is not moved that is on its way already.
    pub const MOVES_ALREADY: &str = "it is being handed off already";
}

/// Something that a log or an experiment wants to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trace {
    /// When, in nanoseconds of the node's clock.
    pub at_ns: u64,
    /// What.
    #[serde(flatten)]
    pub event: TraceEvent,
}

/// What can be traced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum TraceEvent {
    /// A client opened a connection, and this node serves it.
    Accepted {
        /// The client.
        client: SocketAddrV6,
        /// The port on the service address.
        port: u16,
    },
    /// The connection ended here.
    Closed {
        /// The client.
        client: SocketAddrV6,
        /// The port on the service address.
        port: u16,
    },
    /// One step of a handoff.
    Handoff {
        /// The client.
        client: SocketAddrV6,
        /// The port on the service address.
        port: u16,
        /// The epoch of the new owner.
        epoch: u64,
        /// The other node's name.
        peer: String,
        /// Which step.
        step: Step,
    },
    /// The link to another node came up or broke.
    Peer {
        /// Its name.
        peer: String,
        /// Whether it is up.
        up: bool,
    },
    /// The role of the contact node has moved. The driver also writes it to the log, target `ferry::audit`.
    Contact {
        /// The name of the new one.
        contact: String,
        /// The name of the former one.
        former: String,
        /// Whether that is dead.
        dead: bool,
        /// Counts the contact nodes.
        term: u64,
    },
    /// The first copy of a connection is at another node: it survives the death of this one.
    Protected {
        /// The client.
        client: SocketAddrV6,
        /// The port on the service address.
        port: u16,
    },
    /// A node has died, and this one asks whether it may go on with its connections.
    Claims {
        /// The dead node's name.
        node: String,
        /// Of how many it holds copies.
        connections: usize,
    },
    /// A connection of a dead node goes on here.
    Recovered {
        /// The client.
        client: SocketAddrV6,
        /// The port on the service address.
        port: u16,
        /// Its epoch here.
        epoch: u64,
        /// The dead node's name.
        from: String,
        /// How old the copy is; microseconds.
        age_us: u64,
    },
    /// A life of another node is over.
    Dead {
        /// Its name.
        peer: String,
    },
    /// Whether this node may act for its connections has changed.
    Lease {
        /// Whether it may.
        valid: bool,
    },
    /// The others have given up this life of the node. It has begun another.
    Lost {
        /// Connections that it owned.
        connections: usize,
    },
    /// A move of a connection has ended, one way or the other. The driver also writes it to the log, target `ferry::audit`.
    Move(Audit),
}
