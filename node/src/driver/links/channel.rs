//! The octets of a link: a socket that does not block, and what keeps others from reading along.

use std::io::{self, BufRead as _, ErrorKind, IoSlice, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};

use bytes::BytesMut;
use rustls::Connection;

/// Encrypted octets that may wait for room in the socket.
const SEALED: usize = 256 << 10;

/// An established connection to another node. Who made it has done the handshake.
#[derive(Debug)]
pub(crate) struct Channel {
    socket: TcpStream,
    tls: Option<Box<Connection>>,
    /// Whether the other side has said good-bye.
    closed: bool,
}

impl Channel {
    /// Without `tls` everything goes in plain text.
    pub(crate) fn new(socket: TcpStream, tls: Option<Connection>) -> Self {
        let tls = tls.map(|mut tls| {
            tls.set_buffer_limit(Some(SEALED));
            Box::new(tls)
        });
        Self { socket, tls, closed: false }
    }

    /// Whether the other side has said good-bye.
    pub(super) const fn is_closed(&self) -> bool {
        self.closed
    }

    /// Appends what came together with the end of the handshake.
    pub(super) fn read_early(&mut self, into: &mut BytesMut) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        let state = tls.process_new_packets().map_err(io::Error::other)?;
        self.closed = state.peer_has_closed();
        read_plain(tls, state.plaintext_bytes_to_read(), into)
    }

    /// Reads once, and appends what can be understood of it. Tells how much was read: nothing at the end.
    pub(super) fn read(&mut self, scratch: &mut [u8], into: &mut BytesMut) -> io::Result<usize> {
        if self.closed {
            return Ok(0);
        }
        let count = undisturbed(|| self.socket.read(scratch))?;
        let mut came = &scratch[..count];
        let Some(tls) = &mut self.tls else {
            into.extend_from_slice(came);
            return Ok(count);
        };
        while !came.is_empty() && !self.closed {
            tls.read_tls(&mut came)?;
            let state = match tls.process_new_packets() {
                Ok(state) => state,
                Err(why) => {
                    // The other side may want to know; if not, it sees the end.
                    let _ = tls.write_tls(&mut self.socket);
                    return Err(io::Error::new(ErrorKind::InvalidData, why));
                }
            };
            self.closed = state.peer_has_closed();
            read_plain(tls, state.plaintext_bytes_to_read(), into)?;
        }
        Ok(count)
    }

    /// Takes some of `parts`, and says how much; with TLS they may have to be [flushed](Self::flush).
    pub(super) fn write(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_vectored(parts),
            None => undisturbed(|| self.socket.write_vectored(parts)),
        }
    }

    /// Gives the socket everything that was taken; `WouldBlock` if it has no room for all of it.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return Ok(()) };
        while tls.wants_write() {
            undisturbed(|| tls.write_tls(&mut self.socket))?;
        }
        Ok(())
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn read_plain(tls: &mut Connection, mut octets: usize, into: &mut BytesMut) -> io::Result<()> {
    let mut reader = tls.reader();
    while octets > 0 {
        let chunk = reader.fill_buf()?;
        let count = chunk.len().min(octets);
        into.extend_from_slice(&chunk[..count]);
        reader.consume(count);
        octets -= count;
    }
    Ok(())
}

/// Again for as long as a signal comes between.
fn undisturbed(mut call: impl FnMut() -> io::Result<usize>) -> io::Result<usize> {
    loop {
        match call() {
            Err(why) if why.kind() == ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}
