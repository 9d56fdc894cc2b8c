//! Links to the other nodes: one authenticated connection per pair, kept up.
//!
//! Of two nodes the one with the smaller name dials. For each other node there is one *keeper*, a task that hands the data
//! plane one link after the other to [run](super::links); [`greet`] decides who may become a link.

mod conveyed;
mod dial;
mod greet;
mod presence;
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
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};

use self::greet::{Arrival, Greeter, Member};
use self::presence::Presence;
use super::dataplane::LINKS;
use super::links::{Ended, Handover, Links, Patience};
use super::mailbox::{Letter, Mailbox};
use crate::config::{Config, FileError, Peer};

pub(in crate::driver) use tls::{Tls, certificates, private_key, roots};
pub(crate) use tls::{certified_name, verify_own};
pub use understood::{Understood, understood};
pub use wire::Refusal;
pub(in crate::driver) use wire::{FrameError, FrameHeader, Kind, MAX_MESSAGE, frame_header, next_frame};

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
            patience: Patience::default(),
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
    /// For the data plane: what runs those that it is handed.
    pub(crate) running: Links,
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
    let links = PeerLinks { running: Links::new(timing.patience, LINKS), fatal, life: life_sender };
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
        let (member, arrivals) = Member::new(Presence::new(NodeId::of(&peer.name), mailbox.clone()));
        let keeper =
            Keeper { peer: peer.clone(), mailbox: mailbox.clone(), presence: member.presence.clone() };
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

/// Has one link after the other run with one other node.
struct Keeper {
    peer: Peer,
    mailbox: Mailbox,
    presence: Presence,
}

impl Keeper {
    async fn keep(self, mut source: Source) {
        let peer = NodeId::of(&self.peer.name);
        let (mut waiting, mut left) = (None, None);
        loop {
            let next = match waiting.take() {
                Some(arrival) => Some(arrival),
                None => source.next(left.map(|life| Left { peer, life, mailbox: &self.mailbox })).await,
            };
            let Some(arrival) = next else { return };
            let life = arrival.incarnation;
            let (ended, newer) = self.hand_over(arrival, &mut source).await;
            warn!(peer = self.peer.name, "link is down: {ended}");
            if matches!(ended, Ended::Over) {
                return;
            }
            // What only fell silent may be out of reach, and whoever refuses for it then need not be its machine.
            left = ended.is_closed().then_some(life);
            waiting = newer;
        }
    }

    /// Has a link run to its end, or until a newer one takes its place.
    async fn hand_over(&self, arrival: Arrival, source: &mut Source) -> (Ended, Option<Arrival>) {
        let (peer, Arrival { wire, incarnation, ours }) = (NodeId::of(&self.peer.name), arrival);
        let channel = match wire.convey() {
            Ok(channel) => channel,
            Err(why) => return (why.into(), None),
        };
        let (ended, end) = oneshot::channel();
        info!(peer = self.peer.name, incarnation = format_args!("{:016x}", incarnation.0), "link is up");
        self.presence.set(Some(incarnation));
        let handover = Handover { peer, incarnation, ours, channel, ended };
        self.mailbox.send(Letter::Link(Box::new(handover)));
        let over = tokio::select! {
            // Without a word only the data plane itself ends.
            ended = end => (ended.unwrap_or(Ended::Over), None),
            Some(newer) = source.newer() => (Ended::Replaced, Some(newer)),
        };
        self.presence.set(None);
        over
    }
}
