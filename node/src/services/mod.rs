//! The services that ship. Each is a [`Session`](crate::Session) whose state moves with its connection.
//!
//! What they do with a connection is written against a small trait, `Pipe`, so that tests can stand in for TCP and
//! cut the octets wherever they like.

mod discard;
mod echo;
#[cfg(test)]
mod fake;
mod file;
mod stream;

use core::time::Duration;

use bytes::Bytes;

use crate::session::Stream;

pub use discard::Discard;
pub use echo::Echo;
pub use file::{File, FileService, RootError};
pub use stream::Paced;

/// What a service needs of a connection. The words are those of [`Stream`].
trait Pipe {
    fn read(&mut self, max: usize) -> Bytes;
    fn at_end(&self) -> bool;
    fn writable(&self) -> usize;
    fn write(&mut self, octets: Bytes) -> Bytes;
    fn wake_after(&mut self, span: Duration);
    fn finish(&mut self);
    fn reset(&mut self);
}

impl Pipe for Stream<'_> {
    fn read(&mut self, max: usize) -> Bytes {
        Stream::read(self, max)
    }

    fn at_end(&self) -> bool {
        Stream::at_end(self)
    }

    fn writable(&self) -> usize {
        Stream::writable(self)
    }

    fn write(&mut self, octets: Bytes) -> Bytes {
        Stream::write(self, octets)
    }

    fn wake_after(&mut self, span: Duration) {
        Stream::wake_after(self, span);
    }

    fn finish(&mut self) {
        Stream::finish(self);
    }

    fn reset(&mut self) {
        Stream::reset(self);
    }
}
