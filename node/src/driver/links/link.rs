//! One established link: frames both ways, signs of life, and the end of it.

use core::time::Duration;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};

use bytes::{Bytes, BytesMut};
use ferry_handoff::Pieces;
use ferry_stack::Instant;
use rustix::event::epoll::EventFlags;
use tokio::sync::oneshot;

use super::channel::Channel;
use super::queue::Queue;
use crate::driver::peers::{FrameError, Kind, next_frame};

/// Frames of one link that are taken before others have their turn again.
const FRAMES: usize = 64;

/// Octets of one link that are read before others have their turn again; and that are written.
const SHARE: usize = 256 << 10;

/// So much payload goes at once: the other side can begin with it while there is more to come.
const ENOUGH: usize = 64 << 10;

/// When the other side counts as dead.
#[derive(Clone, Copy, Debug)]
pub(in crate::driver) struct Patience {
    /// How often a sign of life is asked for.
    pub(in crate::driver) ping: Duration,
    /// How long a silence ends the link.
    pub(in crate::driver) silence: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { ping: Duration::from_secs(1), silence: Duration::from_secs(3) }
    }
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub(in crate::driver) enum Ended {
    #[error("the other side closed it")]
    Closed,
    #[error("it broke: {0}")]
    Broken(#[from] io::Error),
    #[error("nothing was heard for {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error("{0}")]
    Malformed(#[from] FrameError),
    #[error("this node begins a new life")]
    Reborn,
    #[error("a newer connection takes its place")]
    Replaced,
    #[error("this node ends")]
    Over,
}

impl Ended {
    /// Whether the other side has closed the link, or its machine has for it.
    pub(in crate::driver) fn is_closed(&self) -> bool {
        match self {
            Self::Closed => true,
            Self::Broken(why) => matches!(why.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
            _ => false,
        }
    }
}

/// A running link.
#[derive(derive_more::Debug)]
pub(super) struct Link {
    channel: Channel,
    socket: Socket,
    /// What came and is not whole yet, or not taken yet.
    #[debug("{} octets", incoming.len())]
    incoming: BytesMut,
    /// Whether whole frames may be in it.
    untaken: bool,
    pub(super) queue: Queue,
    signs: Signs,
    /// Why it can be written to no more.
    failed: Option<Ended>,
}

/// What is known of a socket, each time that it changes.
#[derive(Debug)]
struct Socket {
    /// There may be something to read.
    readable: bool,
    /// There may be room.
    writable: bool,
    /// The other side will say no more than what is there.
    ended: bool,
}

/// Of life: those that are due, and those that are waited for.
#[derive(Debug)]
struct Signs {
    patience: Patience,
    /// The other side is to be asked, is to be answered.
    ping: bool,
    pong: bool,
    /// When to ask again.
    ping_at: Instant,
    heard: Instant,
    /// Who wants to know that something was heard, once everything has been that was said before.
    askers: Vec<oneshot::Sender<()>>,
    /// Who wants to know that something is heard from now on.
    asked: Vec<oneshot::Sender<()>>,
}

impl Link {
    pub(super) fn new(mut channel: Channel, patience: Patience, now: Instant) -> Self {
        let mut incoming = BytesMut::new();
        let failed = channel.read_early(&mut incoming).err().map(Ended::Broken);
        Self {
            channel,
            socket: Socket { readable: true, writable: true, ended: false },
            incoming,
            untaken: true,
            queue: Queue::default(),
            signs: Signs {
                patience,
                ping: true,
                pong: false,
                ping_at: now,
                heard: now,
                askers: Vec::new(),
                asked: Vec::new(),
            },
            failed,
        }
    }

    /// What epoll says of the socket.
    pub(super) fn ready(&mut self, flags: EventFlags) {
        let ended = flags.intersects(EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR);
        self.socket.ended |= ended;
        self.socket.readable |= ended || flags.contains(EventFlags::IN);
        self.socket.writable |= ended || flags.contains(EventFlags::OUT);
    }

    /// Takes its share of what has come.
    pub(super) fn take(
        &mut self,
        scratch: &mut [u8],
        now: Instant,
        mut message: impl FnMut(Bytes),
    ) -> Result<(), Ended> {
        let (mut frames, mut octets) = (0, 0);
        loop {
            while frames < FRAMES && self.untaken {
                match next_frame(&mut self.incoming)? {
                    Some((Kind::Message, bytes)) => message(bytes),
                    Some((Kind::Ping, _)) => self.signs.pong = true,
                    Some((Kind::Pong, _)) => {}
                    None => self.untaken = false,
                }
                frames += 1;
            }
            if self.untaken || octets >= SHARE || !self.socket.readable {
                break;
            }
            octets += self.read(scratch, now)?;
        }
        // What was said before the end counts.
        let heard_out = !self.untaken && !self.socket.readable;
        match self.failed.take_if(|_| heard_out) {
            Some(ended) => Err(ended),
            None if self.is_silent(now) => Err(Ended::Silent(self.signs.patience.silence)),
            None => {
                if heard_out && !self.signs.askers.is_empty() {
                    self.signs.asked.append(&mut self.signs.askers);
                    self.signs.ping = true;
                }
                Ok(())
            }
        }
    }

    fn read(&mut self, scratch: &mut [u8], now: Instant) -> Result<usize, Ended> {
        let count = match self.channel.read(scratch, &mut self.incoming) {
            Err(why) if why.kind() == ErrorKind::WouldBlock => {
                self.socket.readable = false;
                return Ok(0);
            }
            // A process that ends does not say good-bye in TLS.
            Ok(0) => return Err(Ended::Closed),
            read => read?,
        };
        // A stream that gives less than was asked for has no more (epoll(7)).
        self.socket.readable = count == scratch.len() || self.socket.ended || self.channel.is_closed();
        self.untaken = true;
        self.signs.heard = now;
        for asker in self.signs.asked.drain(..) {
            // Who has lost patience does not mind.
            let _ = asker.send(());
        }
        Ok(count)
    }

    fn is_silent(&self, now: Instant) -> bool {
        !self.socket.readable && self.signs.silent_at() <= now
    }

    /// Queues a message; `false` if it is lost.
    pub(super) fn push(&mut self, message: Pieces) -> bool {
        let queued = self.queue.push(message);
        if self.queue.octets() >= ENOUGH {
            self.write();
        }
        queued
    }

    /// Asks the other side for a sign of life. What it has said already is none: its last words may lie there, and its end
    /// behind them.
    pub(super) fn ask(&mut self, asker: oneshot::Sender<()>) {
        self.signs.asked.retain(|asker| !asker.is_closed());
        self.signs.askers.push(asker);
    }

    /// Sends its share of what waits, and the signs of life that are due.
    pub(super) fn flush(&mut self, now: Instant) {
        if self.signs.ping_at <= now {
            self.signs.ping = true;
            self.signs.ping_at = now + self.signs.patience.ping;
        }
        self.write();
    }

    fn write(&mut self) {
        if !self.socket.writable || self.failed.is_some() {
            return;
        }
        let Signs { ping, pong, .. } = &mut self.signs;
        for (due, kind) in [(ping, Kind::Ping), (pong, Kind::Pong)] {
            if core::mem::take(due) {
                self.queue.push_sign(kind);
            }
        }
        match self.write_share() {
            Ok(()) => {}
            Err(why) if why.kind() == ErrorKind::WouldBlock => self.socket.writable = false,
            Err(why) => {
                self.failed = Some(why.into());
                self.socket.readable = true;
            }
        }
    }

    fn write_share(&mut self) -> io::Result<()> {
        let mut octets = 0;
        loop {
            self.channel.flush()?;
            if self.queue.is_empty() || octets >= SHARE {
                return Ok(());
            }
            let count = self.channel.write(&self.queue.parts())?;
            self.queue.went(count);
            octets += count;
        }
    }

    /// Whether there is more to do at once.
    pub(super) fn is_restless(&self) -> bool {
        let Socket { readable, writable, .. } = self.socket;
        self.failed.is_some() || self.untaken || readable || (writable && !self.queue.is_empty())
    }

    /// When to be looked at, whatever comes.
    pub(super) fn deadline(&self) -> Instant {
        self.signs.ping_at.min(self.signs.silent_at())
    }
}

impl Signs {
    fn silent_at(&self) -> Instant {
        self.heard + self.patience.silence
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }
}
