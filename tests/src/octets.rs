//! What an application does with a connection, whatever stack it is a connection of.

use bytes::Bytes;
use ferry_stack::tcp::{State, Tcb};

/// A connection, seen from the application.
pub trait Octets {
    /// The next octets in order, at most `max` of them; empty if there are none.
    fn read(&mut self, max: usize) -> Bytes;
    /// Whether the other side has finished and everything it sent has been read.
    fn at_end(&self) -> bool;
    /// Octets that [`Octets::write`] takes now.
    fn writable(&self) -> usize;
    /// Queues octets to be sent; gives back what found no room.
    fn write(&mut self, octets: Bytes) -> Bytes;
    /// No more will be written.
    fn finish(&mut self);
    /// Gives the connection up.
    fn reset(&mut self);
}

impl Octets for Tcb {
    fn read(&mut self, max: usize) -> Bytes {
        Tcb::read(self, max)
    }

    fn at_end(&self) -> bool {
        Tcb::at_end(self)
    }

    fn writable(&self) -> usize {
        // Data may be queued before the handshake is over, but there is nothing to gain by that here.
        if matches!(self.state, State::SynSent) { 0 } else { Tcb::writable(self) }
    }

    fn write(&mut self, octets: Bytes) -> Bytes {
        Tcb::write(self, octets)
    }

    fn finish(&mut self) {
        Tcb::finish(self);
    }

    fn reset(&mut self) {
        self.abort();
    }
}
