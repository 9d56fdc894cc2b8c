//! Links to the other nodes: one authenticated connection per pair, kept up, watched for signs of life.
//!
//! Of two nodes the one with the smaller name dials. For each other node there is one *keeper*, a task that owns the
//! queue from the data plane and runs one link after the other; [`greet`] decides who may become a link.

mod dial;
mod greet;
mod link;
mod presence;
mod queue;
#[cfg(test)]
mod tests;
mod tls;
mod understood;
mod wire;

use core::time::Duration;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ferry_handoff::{Incarnation, NodeId};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use self::greet::{Arrival, Greeter, Member};
use self::link::{Ended, Patience, Wire};
use self::presence::Presence;
use self::queue::Outgoing;
use self::tls::Tls;
use super::mailbox::{Letter, Mailbox};
use crate::config::{Config, FileError, Peer};

pub(crate) use queue::PeerQueue;
pub(in crate::driver) use tls::{certificates, private_key, roots};
pub(crate) use tls::{certified_name, verify_own};
pub use understood::{Understood, understood};
pub use wire::Refusal;

/// How long things on a peer link may take.
#[derive(Clone, Copy, Debug)]
struct Timing {
    patience: Patience,
    /// To connect, for TLS, and for the greeting, each.
    step: Duration,
    /// Between attempts to dial: the first, and the most.
    back_off: (Duration, Duration),
    /// For a sign of life from the one whose name somebody else claims.
    contest: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            patience: Patience { ping: Duration::from_secs(1), silence: Duration::from_secs(3) },
            step: Duration::from_secs(5),
            back_off: (Duration::from_millis(50), Duration::from_secs(3)),
            contest: Duration::from_secs(1),
        }
    }
}

/// Peer links cannot be started, or must end.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The port cannot be listened at.
    #[error(
        "cannot listen for the other nodes at {address}: {why}; is the address of `listen` on this machine, and nobody else there?"
    )]
    Listen {
        /// From the configuration.
        address: SocketAddr,
        /// What the system says.
        why: io::Error,
    },
    /// The keys cannot be used.
    #[error(transparent)]
    Keys(#[from] FileError),
    /// The group has a node with this name already.
    #[error("{by} refuses this node: {refusal}")]
    Refused {
        /// The node that says so.
        by: String,
        /// What it says.
        refusal: Refusal,
    },
}

/// Running peer links. They end with the runtime.
#[derive(Debug)]
pub(crate) struct PeerLinks {
    /// For the data plane: where to put messages for each other node.
    pub(crate) queues: BTreeMap<NodeId, PeerQueue>,
    /// Yields if this node must not go on.
    pub(crate) fatal: mpsc::Receiver<PeerError>,
    /// Takes the life under which this node goes on: every link ends and is made anew.
    pub(crate) life: watch::Sender<Incarnation>,
}

/// Who this node is on its peer links.
#[derive(Clone, Debug)]
struct Identity {
    name: String,
    group: String,
    /// Its present life.
    life: watch::Receiver<Incarnation>,
}

/// Listens, and starts a keeper for each other node.
pub(crate) async fn start(
    config: &Config,
    incarnation: Incarnation,
    mailbox: &Mailbox,
) -> Result<PeerLinks, PeerError> {
    start_with(config, incarnation, mailbox, Timing::default()).await
}

async fn start_with(
    config: &Config,
    incarnation: Incarnation,
    mailbox: &Mailbox,
    timing: Timing,
) -> Result<PeerLinks, PeerError> {
    let (fatal_sender, fatal) = mpsc::channel(1);
    let (life_sender, life) = watch::channel(incarnation);
    let mut links = PeerLinks { queues: BTreeMap::new(), fatal, life: life_sender };
    let Some(peer_link) = &config.peer_link else { return Ok(links) };
    let (name, group) = (config.name.clone(), config.group.name.clone());
    let tls = if let Some(files) = &peer_link.keys {
        Some(Tls::load(files, &name, &group)?)
    } else {
        warn!("peer links are in plain text: anybody who reaches {} can be a node", peer_link.listen);
        None
    };
    let listener = TcpListener::bind(peer_link.listen)
        .await
        .map_err(|why| PeerError::Listen { address: peer_link.listen, why })?;

    let own = Identity { name, group, life };
    let mut members = BTreeMap::new();
    for peer in &config.peers {
        let (queue, outgoing) = queue::queue();
        links.queues.insert(NodeId::of(&peer.name), queue);
        let (member, arrivals) = Member::new(Presence::default());
        let keeper = Keeper {
            peer: peer.clone(),
            mailbox: mailbox.clone(),
            outgoing,
            presence: member.presence.clone(),
            life: own.life.clone(),
            patience: timing.patience,
        };
        let dialer = dial::Dialer::new(peer.clone(), own.clone(), tls.clone(), timing, fatal_sender.clone());
        if own.name < peer.name {
            tokio::spawn(keeper.keep(Source::Dial(Box::new(dialer))));
        } else {
            let prober = dialer.clone();
            tokio::spawn(dialer.probe());
            tokio::spawn(keeper.keep(Source::Accept(arrivals, Box::new(prober))));
        }
        members.insert(peer.name.clone(), member);
    }
    tokio::spawn(Arc::new(Greeter { own, members, tls, timing }).accept(listener));
    Ok(links)
}

/// Where a keeper gets the next link from.
enum Source {
    Dial(Box<dial::Dialer>),
    /// With who asks whether the other node is still there.
    Accept(mpsc::Receiver<Arrival>, Box<dial::Dialer>),
}

impl Source {
    /// `None` if there will be no more. Tells meanwhile if the life that has `left` is over.
    async fn next(&mut self, left: Option<Left<'_>>) -> Option<Arrival> {
        match self {
            Self::Dial(dialer) => dialer.next(left).await,
            Self::Accept(arrivals, prober) => {
                let Some(left) = left else { return arrivals.recv().await };
                tokio::select! {
                    arrival = arrivals.recv() => return arrival,
                    () = prober.prove(left) => {}
                }
                arrivals.recv().await
            }
        }
    }

    /// The next link, while one is running: only who accepts can be called again.
    async fn newer(&mut self) -> Option<Arrival> {
        match self {
            Self::Dial(_) => core::future::pending().await,
            Self::Accept(arrivals, _) => arrivals.recv().await,
        }
    }
}

/// A life of another node whose end of a link was closed: either the process has ended, or it has let go of the link.
struct Left<'a> {
    peer: NodeId,
    life: Incarnation,
    mailbox: &'a Mailbox,
}

impl Left<'_> {
    /// Its process is gone.
    fn is_dead(&self) {
        let Self { peer, life: incarnation, mailbox } = *self;
        info!(incarnation = format_args!("{:016x}", incarnation.0), "the process of a node is gone");
        mailbox.send(Letter::PeerDead { peer, incarnation });
    }
}

/// Runs one link after the other with one other node.
struct Keeper {
    peer: Peer,
    mailbox: Mailbox,
    outgoing: Outgoing,
    presence: Presence,
    life: watch::Receiver<Incarnation>,
    patience: Patience,
}

impl Keeper {
    async fn keep(mut self, mut source: Source) {
        let peer = NodeId::of(&self.peer.name);
        let (mut waiting, mut left) = (None, None);
        loop {
            let next = match waiting.take() {
                Some(arrival) => Some(arrival),
                None => source.next(left.map(|life| Left { peer, life, mailbox: &self.mailbox })).await,
            };
            let Some(arrival) = next else { return };
            let life = arrival.incarnation;
            let ended = self.run(arrival, &mut source).await;
            // What only fell silent may be out of reach, and whoever refuses for it then need not be its machine.
            left = ended.is_closed().then_some(life);
            if let Ended::Replaced(newer) = ended {
                waiting = Some(newer);
            }
        }
    }

    /// Runs a link to its end.
    async fn run(&mut self, arrival: Arrival, source: &mut Source) -> Ended {
        let (peer, name) = (NodeId::of(&self.peer.name), &self.peer.name);
        if *self.life.borrow_and_update() != arrival.ours {
            // It was greeted by a life of ours that has ended since.
            return Ended::Reborn;
        }
        let pulse = self.presence.set(arrival.incarnation);
        self.outgoing.clear();
        info!(peer = name, incarnation = format_args!("{:016x}", arrival.incarnation.0), "link is up");
        self.mailbox.send(Letter::PeerUp { peer, incarnation: arrival.incarnation, ours: arrival.ours });
        let running = link::run(arrival.wire, peer, &mut self.outgoing, &self.mailbox, &pulse, self.patience);
        let ended = tokio::select! {
            ended = running => ended,
            Some(newer) = source.newer() => Ended::Replaced(newer),
            Ok(()) = self.life.changed() => Ended::Reborn,
        };
        self.presence.clear();
        warn!(peer = name, "link is down: {ended}");
        self.mailbox.send(Letter::PeerDown { peer });
        ended
    }
}
