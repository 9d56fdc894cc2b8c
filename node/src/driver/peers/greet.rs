//! The side that is called: who is it, and may it come in?

use core::time::Duration;
use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ferry_handoff::Incarnation;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};
use tracing::warn;

use super::conveyed::Wire;
use super::presence::Presence;
use super::tls::{self, Tls, certified_name};
use super::wire::{Answer, GreetError, Hello, Purpose, Refusal, receive_greeting, send_greeting};
use super::{Identity, Timing};

/// Connections that may be greeting at the same time: whoever is not a node costs no more than this.
const GREETING: usize = 64;

/// Before the next attempt to accept, after the system had no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// A connection that has become a link.
pub(super) struct Arrival {
    pub(super) wire: Box<dyn Wire>,
    pub(super) incarnation: Incarnation,
    /// The life of ours that it was greeted by.
    pub(super) ours: Incarnation,
}

impl core::fmt::Debug for Arrival {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Arrival").field("incarnation", &self.incarnation).finish_non_exhaustive()
    }
}

/// Another node, as the greeter sees it.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) presence: Presence,
    arrivals: mpsc::Sender<Arrival>,
}

impl Member {
    pub(super) fn new(presence: Presence) -> (Self, mpsc::Receiver<Arrival>) {
        let (arrivals, receiver) = mpsc::channel(1);
        (Self { presence, arrivals }, receiver)
    }
}

/// Greets whoever connects.
pub(super) struct Greeter {
    pub(super) own: Identity,
    pub(super) members: BTreeMap<String, Member>,
    pub(super) tls: Option<Tls>,
    pub(super) timing: Timing,
}

/// Why somebody who connected is no link.
#[derive(Debug, thiserror::Error)]
enum NotGreeted {
    #[error("it took too long")]
    TimedOut,
    #[error("TLS: {0}; both nodes need files that the same `ferry keygen` made")]
    Tls(io::Error),
    #[error(transparent)]
    Greet(#[from] GreetError),
    #[error("refused: {0}")]
    Refused(Refusal),
}

impl Greeter {
    pub(super) async fn accept(self: Arc<Self>, listener: TcpListener) {
        let room = Arc::new(Semaphore::new(GREETING));
        // The semaphore is never closed.
        while let Ok(place) = Arc::clone(&room).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, from)) => {
                    let greeter = Arc::clone(&self);
                    tokio::spawn(async move {
                        greeter.greet(stream, from).await;
                        drop(place);
                    });
                }
                Err(why) => {
                    warn!("cannot accept a peer link: {why}");
                    sleep(PAUSE).await;
                }
            }
        }
    }

    async fn greet(&self, stream: TcpStream, from: SocketAddr) {
        if let Err(why) = self.try_greet(stream).await {
            warn!(%from, "somebody who is no link of this group connected: {why}");
        }
    }

    async fn try_greet(&self, stream: TcpStream) -> Result<(), NotGreeted> {
        stream.set_nodelay(true).map_err(GreetError::Io)?;
        let (mut wire, chain) = self.secure(stream).await?;
        let hello: Hello = self.in_time(receive_greeting(&mut wire)).await??;
        match self.judge(&hello, chain.as_deref()).await {
            Ok(member) => {
                let answer = self.hello(hello.purpose);
                let ours = answer.incarnation;
                self.in_time(send_greeting(&mut wire, &Answer::Welcome(answer))).await??;
                if hello.purpose == Purpose::Link {
                    // Fails only while the node ends.
                    let _ =
                        member.arrivals.send(Arrival { wire, incarnation: hello.incarnation, ours }).await;
                }
                Ok(())
            }
            Err(refusal) => {
                self.in_time(send_greeting(&mut wire, &Answer::Refused(refusal.clone()))).await??;
                Err(NotGreeted::Refused(refusal))
            }
        }
    }

    async fn in_time<T>(&self, step: impl Future<Output = T>) -> Result<T, NotGreeted> {
        timeout(self.timing.step, step).await.map_err(|_| NotGreeted::TimedOut)
    }

    /// The connection with its keys settled, and the certificates that the other side showed.
    async fn secure(
        &self,
        stream: TcpStream,
    ) -> Result<(Box<dyn Wire>, Option<Vec<tls::Certificate>>), NotGreeted> {
        let Some(tls) = &self.tls else { return Ok((Box::new(stream), None)) };
        let stream = self.in_time(tls.acceptor.accept(stream)).await?.map_err(NotGreeted::Tls)?;
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default().to_vec();
        Ok((Box::new(stream), Some(chain)))
    }

    /// Nothing that the other side says is believed before its certificate has been compared with it.
    async fn judge(&self, hello: &Hello, chain: Option<&[tls::Certificate]>) -> Result<&Member, Refusal> {
        let Hello { group, name, incarnation, purpose } = hello;
        if *group != self.own.group {
            return Err(Refusal::Group { theirs: group.clone(), ours: self.own.group.clone() });
        }
        if let Some(chain) = chain {
            let expected = certified_name(name, group);
            tls::is_for(chain, &expected).map_err(|_| Refusal::Certificate(expected))?;
        }
        if *name == self.own.name && *incarnation != *self.own.life.borrow() {
            return Err(Refusal::NameTaken(name.clone()));
        }
        let member = self.members.get(name).ok_or_else(|| Refusal::Stranger(name.clone()))?;
        if *purpose == Purpose::Link && *name >= self.own.name {
            return Err(Refusal::Direction(name.clone()));
        }
        if member.presence.is_another_alive(*incarnation, self.timing.contest).await {
            return Err(Refusal::NameTaken(name.clone()));
        }
        Ok(member)
    }

    fn hello(&self, purpose: Purpose) -> Hello {
        self.own.hello(purpose)
    }
}

impl Identity {
    pub(super) fn hello(&self, purpose: Purpose) -> Hello {
        let incarnation = *self.life.borrow();
        Hello { group: self.group.clone(), name: self.name.clone(), incarnation, purpose }
    }
}
