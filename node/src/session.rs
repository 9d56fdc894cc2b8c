//! The programming interface for services: a [`Session`] per connection, whose state moves with it.

use core::net::SocketAddrV6;
use core::time::Duration;

use bytes::Bytes;
use ferry_stack::Instant;
use ferry_stack::tcp::Tcb;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The application's half of one connection: a value that reacts to events.
///
/// The group may move it to another node at any moment between two events; its state and the connection's
/// control block move as one. So everything that must survive is in `Self`, and everything that belongs to a
/// node (an open file, a directory) is in [`Session::Service`] or reached through it.
///
/// With `replicas` the session may also go on from a copy when its node has crashed, in a state that it was in a little
/// earlier. A service with `commit = "regenerate"` sends before that state is elsewhere, so its sessions must then say
/// again what they have said: a session must be a function of its state and of the octets that it reads, however they are
/// split over events, and must not depend on the time, on chance or on what else its node knows. With `"strict"` nothing
/// of the kind is asked.
pub trait Session: Serialize + DeserializeOwned + Send + 'static {
    /// What all sessions of the service share on one node. Never moves.
    type Service: Send + 'static;

    /// A client opened a connection.
    fn open(service: &Self::Service, client: SocketAddrV6) -> Self;

    /// Whether the session can go on at this node, before it is installed here. The reason of a refusal is told
    /// to the donor, which then keeps the connection.
    fn adopt(&mut self, service: &Self::Service) -> Result<(), String> {
        let _ = service;
        Ok(())
    }

    /// Something happened. Do all that can be done now: read what is there, write while there is room. The next
    /// event comes when there is more of either.
    fn handle(&mut self, service: &Self::Service, event: Event, stream: &mut Stream<'_>);
}

/// Why a session is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// The connection is established.
    Opened,
    /// There is more to read (or the client has finished sending), or more room to write.
    Ready,
    /// The session was moved and goes on at this node.
    Adopted,
    /// The time for which it asked by [`Stream::wake_after`] has passed.
    Timer,
    /// The connection is gone; nothing can be read or written any more.
    Closed(Ending),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Both sides finished.
    Finished,
    /// The client reset it.
    Reset,
    /// The client did not answer for too long.
    TimedOut,
}

/// The shortest time after which a session is woken: one that asks for less must not keep its node from everything else.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// The session's hold on its connection while it handles an event.
#[derive(Debug)]
pub struct Stream<'a> {
    tcb: &'a mut Tcb,
    now: Instant,
    wake: Option<Instant>,
}

impl<'a> Stream<'a> {
    pub(crate) fn new(tcb: &'a mut Tcb, now: Instant) -> Self {
        Self { tcb, now, wake: None }
    }

    /// When the session wants to be woken, if it has said so in this event.
    pub(crate) fn wake(&self) -> Option<Instant> {
        self.wake
    }

    /// The client's address and port.
    pub fn client(&self) -> SocketAddrV6 {
        self.tcb.flow.remote
    }

    /// Octets that can be read now.
    pub fn readable(&self) -> usize {
        self.tcb.readable()
    }

    /// The next octets in order, at most `max` of them; empty if there are none.
    pub fn read(&mut self, max: usize) -> Bytes {
        self.tcb.read(max)
    }

    /// Whether the client has finished sending and everything it sent has been read.
    pub fn at_end(&self) -> bool {
        self.tcb.at_end()
    }

    /// Octets that [`Stream::write`] takes now.
    pub fn writable(&self) -> usize {
        self.tcb.writable()
    }

    /// Queues octets to be sent; gives back what found no room. What was taken is shared, not copied.
    pub fn write(&mut self, octets: Bytes) -> Bytes {
        self.tcb.write(octets)
    }

    /// [`Event::Timer`] comes so much later, at least a millisecond, and once. There is one timer: the last word counts. It moves
    /// with the connection, as time left, and goes on where that is; a node that died is found out after a while, and for so long
    /// it stands.
    pub fn wake_after(&mut self, span: Duration) {
        self.wake = Some(self.now + span.max(SHORTEST_SLEEP));
    }

    /// No more will be written: a FIN follows what is queued. Reading goes on.
    pub fn finish(&mut self) {
        self.tcb.finish();
    }

    /// Nothing more will be written or read: a FIN follows what is queued. If the client still sends something, it
    /// gets a RST, so that it does not think that it was read.
    pub fn close(&mut self) {
        self.tcb.close(self.now);
    }

    /// Gives the connection up: what is queued is dropped and the client gets a RST.
    pub fn reset(&mut self) {
        self.tcb.abort();
    }
}
