//! HTTP/1.1 over the files of a folder: `GET` and `HEAD`, with single ranges, one connection for many requests.

mod root;
#[cfg(test)]
mod tests;

use core::mem::take;
use core::net::SocketAddrV6;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use self::root::{NoFile, OpenFile};
use super::Pipe;
use crate::http::request::{self, After, Bad, Head, MAX_HEAD, Method, Request};
use crate::http::response::{Status, content_type, head, short};
use crate::session::{Event, Session, Stream};

pub use root::{FileService, RootError};

/// Octets that are read from a file at once: a few super-segments, each of which then lies in one piece.
const CHUNK: usize = 256 << 10;

/// One client's connection to a file service.
///
/// Its state is what remains to be sent, by the file's path and length: the nodes have copies of the same files, and
/// one that has not refuses the connection.
#[derive(derive_more::Debug, Default, Serialize, Deserialize)]
pub struct File {
    /// Read, and not yet answered. At most one head, and what follows it.
    #[debug("{} octets", input.len())]
    input: Vec<u8>,
    /// Of the present response: what is not yet taken by the connection, before the body.
    #[debug("{} octets", head.len())]
    head: Bytes,
    /// Of the present response: what is still to be read from a file.
    body: Option<Body>,
    /// No request follows; whatever else the client sends is not read as one.
    last: bool,
}

/// The part of a file that is still to be sent.
#[derive(Debug, Serialize, Deserialize)]
struct Body {
    /// Below the root.
    path: String,
    /// Of the whole file.
    length: u64,
    /// The first octet that the connection has not taken.
    next: u64,
    /// The one after the last to be sent.
    end: u64,
    /// Belongs to this node, so it does not travel: the next one opens its own copy.
    #[serde(skip)]
    file: Option<Arc<OpenFile>>,
}

/// Whether a response has been handed to the connection.
enum Sent {
    Whole,
    /// There is no room now.
    Partly,
    /// The file is not what it was.
    Never,
}

impl Session for File {
    type Service = FileService;

    fn open(_: &FileService, _: SocketAddrV6) -> Self {
        Self::default()
    }

    fn adopt(&mut self, service: &FileService) -> Result<(), String> {
        match &mut self.body {
            Some(body) => body.open(service),
            None => Ok(()),
        }
    }

    fn handle(&mut self, service: &FileService, event: Event, stream: &mut Stream<'_>) {
        if !matches!(event, Event::Closed(_)) {
            self.pump(service, stream);
        }
    }
}

impl File {
    /// Answers one request after the other, as far as there is room; reads none before the one before it is answered.
    fn pump(&mut self, service: &FileService, pipe: &mut impl Pipe) {
        loop {
            match self.send(service, pipe) {
                Sent::Partly => return,
                Sent::Never => return pipe.reset(),
                Sent::Whole if self.last => return finish(pipe),
                Sent::Whole => {}
            }
            let wanted = MAX_HEAD.saturating_sub(self.input.len());
            let octets = pipe.read(wanted);
            self.input.extend_from_slice(&octets);
            if !self.next_request(service) && octets.is_empty() {
                if pipe.at_end() {
                    pipe.finish();
                }
                return;
            }
        }
    }

    /// `false` if there is none yet.
    fn next_request(&mut self, service: &FileService) -> bool {
        match request::parse(&self.input) {
            Head::Partial => return false,
            Head::Broken(bad) => {
                self.input.clear();
                self.respond_short(Status::Bad(bad), After::Close, true);
            }
            Head::Whole { request, after, len } => {
                self.input.drain(..len);
                match request {
                    Ok(request) => self.respond(service, request, after),
                    Err(bad) => self.respond_short(Status::Bad(bad), after, true),
                }
            }
        }
        true
    }

    fn respond(&mut self, service: &FileService, request: Request, after: After) {
        let Request { method, path, range } = request;
        let with_body = method == Method::Get;
        let file = match service.file(&path) {
            Ok(file) => file,
            Err(NoFile::NotFound) => return self.respond_short(Status::Bad(Bad::NotFound), after, with_body),
            Err(NoFile::Failed(_)) => return self.respond_short(Status::Failed, after, with_body),
        };
        let length = file.length;
        // A range means something for GET only (RFC 9110 section 14.2).
        let (status, start, end) = match range.filter(|_| with_body).map(|range| range.of(length)) {
            None => (Status::Ok, 0, length),
            Some(Some((start, end))) => (Status::Partial(start, end, length), start, end),
            Some(None) => return self.respond_short(Status::NotSatisfiable(length), after, true),
        };
        self.head = head(status, content_type(&path), end - start, after).into();
        self.last = after == After::Close;
        if with_body && start < end {
            self.body = Some(Body { path, length, next: start, end, file: Some(file) });
        }
    }

    fn respond_short(&mut self, status: Status, after: After, with_body: bool) {
        self.head = short(status, after, with_body);
        self.last = after == After::Close;
    }

    fn send(&mut self, service: &FileService, pipe: &mut impl Pipe) -> Sent {
        self.head = pipe.write(take(&mut self.head));
        if !self.head.is_empty() {
            return Sent::Partly;
        }
        let Some(body) = &mut self.body else { return Sent::Whole };
        let sent = body.send(service, pipe);
        if matches!(sent, Sent::Whole) {
            self.body = None;
        }
        sent
    }
}

impl Body {
    /// Fills what room there is. How much that may be changes with the path, so that there is no more to wait for.
    fn send(&mut self, service: &FileService, pipe: &mut impl Pipe) -> Sent {
        while self.next < self.end {
            let left = usize::try_from(self.end - self.next).unwrap_or(usize::MAX);
            let room = pipe.writable();
            if room == 0 {
                return Sent::Partly;
            }
            let Some(octets) = self.read(service, left.min(CHUNK).min(room)) else { return Sent::Never };
            let count = octets.len() as u64;
            let rest = pipe.write(octets);
            self.next += count - rest.len() as u64;
        }
        Sent::Whole
    }

    fn read(&mut self, service: &FileService, count: usize) -> Option<Bytes> {
        if self.file.is_none() {
            self.open(service).ok()?;
        }
        self.file.as_ref()?.read(self.next, count)
    }

    /// Opens this node's copy of the file, which must be as long as the one at the node where it was asked for.
    fn open(&mut self, service: &FileService) -> Result<(), String> {
        let shown = service.path().join(&self.path);
        let file = service.file(&self.path).map_err(|why| match why {
            NoFile::NotFound => format!("there is no file {} at this node", shown.display()),
            NoFile::Failed(why) => format!("{} cannot be opened at this node: {why}", shown.display()),
        })?;
        if file.length != self.length {
            let (here, there) = (file.length, self.length);
            return Err(format!("{} has {here} octets at this node, not {there}", shown.display()));
        }
        if !(self.next <= self.end && self.end <= self.length) {
            return Err("the session's state is not consistent".to_owned());
        }
        self.file = Some(file);
        Ok(())
    }
}

/// After the last response: what the client still sends is read and forgotten, for data that arrives at a connection
/// nobody reads would reset it, and take the response away from the client (RFC 9112 section 9.6).
fn finish(pipe: &mut impl Pipe) {
    while !pipe.read(usize::MAX).is_empty() {}
    pipe.finish();
}
