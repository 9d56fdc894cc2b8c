//! The side that calls: again and again, ever more slowly, and never in step with the others.

use core::time::Duration;
use std::io;

use rustix::rand::{GetRandomFlags, getrandom};
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::conveyed::Wire;
use super::greet::Arrival;
use super::tls::{Tls, certified_name};
use super::wire::{Answer, GreetError, Hello, Purpose, Refusal, receive_greeting, send_greeting};
use super::{Identity, Left, PeerError, Timing};
use crate::config::Peer;

/// Before the second call to a node whose end of a link has just been closed. A process that ends closes its links first,
/// and a little later what it listens at: who called in between was neither answered nor refused.
const AGAIN: Duration = Duration::from_millis(1);

/// Calls one other node.
#[derive(Clone)]
pub(super) struct Dialer {
    peer: Peer,
    own: Identity,
    tls: Option<Tls>,
    timing: Timing,
    fatal: mpsc::Sender<PeerError>,
    pause: Duration,
    /// The last failure that was logged: the same one again is not news.
    told: String,
}

/// Why a call came to nothing.
#[derive(Debug, thiserror::Error)]
enum NotLinked {
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("it does not answer in time")]
    TimedOut,
    #[error("TLS: {0}; both nodes need files that the same `ferry keygen` made")]
    Tls(io::Error),
    #[error(transparent)]
    Greet(GreetError),
    #[error("it refuses this node: {0}")]
    Refused(Refusal),
    #[error("it is \"{name}\" of the group \"{group}\"; compare `link` of this [[peer]]")]
    SomebodyElse { name: String, group: String },
}

impl NotLinked {
    /// Whether the machine that was called says that nobody listens there.
    fn is_refused(&self) -> bool {
        matches!(self, Self::Connect(why) if why.kind() == io::ErrorKind::ConnectionRefused)
    }
}

impl From<GreetError> for NotLinked {
    /// With TLS 1.3 the side that calls learns only here, when it reads first, that its certificate was refused.
    fn from(error: GreetError) -> Self {
        match error {
            GreetError::Io(why) if is_tls(&why) => Self::Tls(why),
            error => Self::Greet(error),
        }
    }
}

impl Dialer {
    pub(super) fn new(
        peer: Peer,
        own: Identity,
        tls: Option<Tls>,
        timing: Timing,
        fatal: mpsc::Sender<PeerError>,
    ) -> Self {
        Self { peer, own, tls, timing, fatal, pause: timing.back_off.0, told: String::new() }
    }

    /// Calls until a link is there. `None` if this node must not go on. Tells if the life that has `left` is over.
    pub(super) async fn next(&mut self, mut left: Option<Left<'_>>) -> Option<Arrival> {
        if left.is_some() {
            self.pause = AGAIN;
        }
        loop {
            match self.call(Purpose::Link).await {
                Ok(arrival) => {
                    self.pause = self.timing.back_off.0;
                    self.told.clear();
                    return Some(arrival);
                }
                Err(NotLinked::Refused(refusal @ Refusal::NameTaken(_))) => {
                    self.give_up(refusal).await;
                    return None;
                }
                Err(why) => {
                    if let Some(left) = left.take_if(|_| why.is_refused()) {
                        left.is_dead();
                    }
                    self.tell(&why.to_string());
                }
            }
            sleep(jittered(self.pause)).await;
            self.pause = (self.pause * 2).min(self.timing.back_off.1);
        }
    }

    /// Calls until it is certain that the life that has left is over. Where nobody listens its process is gone, and
    /// where another answers too. Whatever else comes of it proves nothing.
    pub(super) async fn prove(&self, left: Left<'_>) {
        let mut pause = AGAIN;
        loop {
            match self.call(Purpose::Probe).await {
                Err(why) if why.is_refused() => return left.is_dead(),
                Ok(arrival) if arrival.incarnation != left.life => return left.is_dead(),
                _ => {}
            }
            sleep(jittered(pause)).await;
            pause = (pause * 2).min(self.timing.back_off.1);
        }
    }

    /// Asks once whether this node's name is free. If the other node is not there, nobody is hurt.
    pub(super) async fn probe(self) {
        match self.call(Purpose::Probe).await {
            Err(NotLinked::Refused(refusal @ Refusal::NameTaken(_))) => self.give_up(refusal).await,
            Err(why) => debug!(peer = self.peer.name, "cannot ask whether the name is free: {why}"),
            Ok(_) => {}
        }
    }

    async fn give_up(&self, refusal: Refusal) {
        // Fails only if somebody else has given up already.
        let _ = self.fatal.send(PeerError::Refused { by: self.peer.name.clone(), refusal }).await;
    }

    fn tell(&mut self, why: &str) {
        if self.told != why {
            warn!(peer = self.peer.name, link = %self.peer.link, "no link yet: {why}");
            why.clone_into(&mut self.told);
        }
    }

    async fn call(&self, purpose: Purpose) -> Result<Arrival, NotLinked> {
        let mut wire = self.connect().await?;
        let hello = self.own.hello(purpose);
        let ours = hello.incarnation;
        self.in_time(send_greeting(&mut wire, &hello)).await??;
        match self.in_time(receive_greeting(&mut wire)).await?? {
            Answer::Refused(refusal) => Err(NotLinked::Refused(refusal)),
            Answer::Welcome(Hello { name, group, incarnation, .. }) => {
                if name != self.peer.name || group != self.own.group {
                    return Err(NotLinked::SomebodyElse { name, group });
                }
                Ok(Arrival { wire, incarnation, ours })
            }
        }
    }

    #[cfg(test)]
    pub(super) async fn call_once(&self) -> Result<(), String> {
        self.call(Purpose::Link).await.map(drop).map_err(|why| why.to_string())
    }

    async fn connect(&self) -> Result<Box<dyn Wire>, NotLinked> {
        let stream = self.in_time(TcpStream::connect(self.peer.link)).await?.map_err(NotLinked::Connect)?;
        stream.set_nodelay(true).map_err(NotLinked::Connect)?;
        let Some(tls) = &self.tls else { return Ok(Box::new(stream)) };
        let name = ServerName::try_from(certified_name(&self.peer.name, &self.own.group))
            .map_err(|why| NotLinked::Tls(io::Error::other(why)))?;
        let stream = self.in_time(tls.connector.connect(name, stream)).await?.map_err(NotLinked::Tls)?;
        Ok(Box::new(stream))
    }

    async fn in_time<T>(&self, step: impl Future<Output = T>) -> Result<T, NotLinked> {
        // Longer than the other side may take for a contest about the name.
        timeout(self.timing.step + self.timing.contest, step).await.map_err(|_| NotLinked::TimedOut)
    }
}

fn is_tls(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
}

/// Between half of `pause` and all of it.
fn jittered(pause: Duration) -> Duration {
    let mut octet = [0];
    // Without randomness the nodes call in step, which is only slower.
    let _ = getrandom(&mut octet[..], GetRandomFlags::NONBLOCK);
    pause / 2 + pause / 2 * u32::from(octet[0]) / 255
}
