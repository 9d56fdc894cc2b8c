use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::net::SocketAddrV6;
use std::sync::Arc;

use bytes::Bytes;

use crate::session::{Event, Session, Stream};

/// A session whose type only its service knows.
pub(super) type AnySession = Box<dyn Any + Send>;

/// What waits until those who hold a copy of a connection have it. Of no matter without replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Commit {
    /// A client's octets are acknowledged, and the service's octets leave, only when the copies hold what they
    /// depend on. Right for every service.
    #[default]
    Strict,
    /// Only acknowledgements wait. For services that write the same again from the same state.
    Regenerate,
    /// Nothing waits: a connection whose node is lost may be older than what its client saw, and is reset then.
    None,
}

/// A service that a node offers at a port, whatever its sessions are made of.
pub struct Service {
    name: Arc<str>,
    port: u16,
    replicas: u8,
    commit: Commit,
    inner: Box<dyn AnyService>,
}

impl Service {
    /// Offers sessions of type `S` at `port` of the service address. `name` is the same on every node.
    pub fn new<S: Session>(name: &str, port: u16, service: S::Service) -> Self {
        let inner = Box::new(Typed::<S> { service, session: PhantomData });
        Self { name: name.into(), port, replicas: 0, commit: Commit::default(), inner }
    }

    /// The same, and each of its connections is held by as many other nodes too, as far as there are so many.
    #[must_use]
    pub fn protected(self, replicas: u8, commit: Commit) -> Self {
        Self { replicas, commit, ..self }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How many other nodes are to hold a copy of each of its connections.
    pub fn replicas(&self) -> u8 {
        self.replicas
    }

    /// What waits for the copies.
    pub fn commit(&self) -> Commit {
        self.commit
    }

    pub(super) fn open(&self, client: SocketAddrV6) -> AnySession {
        self.inner.open(client)
    }

    /// The session of a connection that comes from another node, if it can go on here.
    pub(super) fn adopt(&self, state: &[u8]) -> Result<AnySession, String> {
        let (session, verdict) = self.inner.adopt(state)?;
        verdict.map(|()| session)
    }

    /// The session of a connection that left and comes back, because nobody else took it. It ran here before and
    /// has nowhere else to go, so that it is not asked whether it can.
    pub(super) fn take_back(&self, state: &[u8]) -> Result<AnySession, String> {
        self.inner.adopt(state).map(|(session, _)| session)
    }

    pub(super) fn encode(&self, session: &AnySession) -> Result<Bytes, String> {
        self.inner.encode(session)
    }

    pub(super) fn run(&self, session: &mut AnySession, event: Event, stream: &mut Stream<'_>) {
        self.inner.run(session, event, stream);
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service").field("name", &self.name).field("port", &self.port).finish_non_exhaustive()
    }
}

trait AnyService: Send {
    fn open(&self, client: SocketAddrV6) -> AnySession;
    /// The session, and what it says of going on here.
    fn adopt(&self, state: &[u8]) -> Result<(AnySession, Result<(), String>), String>;
    fn encode(&self, session: &AnySession) -> Result<Bytes, String>;
    fn run(&self, session: &mut AnySession, event: Event, stream: &mut Stream<'_>);
}

struct Typed<S: Session> {
    service: S::Service,
    session: PhantomData<fn() -> S>,
}

impl<S: Session> AnyService for Typed<S> {
    fn open(&self, client: SocketAddrV6) -> AnySession {
        Box::new(S::open(&self.service, client))
    }

    fn adopt(&self, state: &[u8]) -> Result<(AnySession, Result<(), String>), String> {
        let (mut session, rest) = postcard::take_from_bytes::<S>(state).map_err(|e| e.to_string())?;
        if !rest.is_empty() {
            return Err(format!("{} octets follow the session's state", rest.len()));
        }
        let verdict = session.adopt(&self.service);
        Ok((Box::new(session), verdict))
    }

    fn encode(&self, session: &AnySession) -> Result<Bytes, String> {
        let session = session.downcast_ref::<S>().ok_or("the session is of another service")?;
        postcard::to_extend(session, Vec::new()).map(Bytes::from).map_err(|e| e.to_string())
    }

    fn run(&self, session: &mut AnySession, event: Event, stream: &mut Stream<'_>) {
        // A session is only ever given to the service that made it.
        if let Some(session) = session.downcast_mut::<S>() {
            session.handle(&self.service, event, stream);
        }
    }
}
