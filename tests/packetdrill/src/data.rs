//! Octets in and out of sockets.

use core::time::Duration;

use bytes::Bytes;
use ferry_stack::Instant;
use ferry_stack::tcp::{Handle, Tcb};

use crate::errno::Errno;
use crate::socket::{Role, Socket};
use crate::wait::Answer;
use crate::world::World;

/// How long a corked segment waits at most, as in Linux.
const CORK_AT_MOST: Duration = Duration::from_millis(200);

impl World {
    /// Reads what there is, at most `max` octets, and no more than is there unless `all` is asked for; `None` if there
    /// is nothing yet. No octets: the other side has finished.
    pub(crate) fn try_read(
        &mut self,
        fd: i32,
        max: usize,
        peek: bool,
        all: bool,
        got: &mut Vec<u8>,
    ) -> Option<Result<Answer, Errno>> {
        let socket = match self.files.socket_mut(fd) {
            Ok(socket) => socket,
            Err(error) => return Some(Err(error)),
        };
        let missing = max - got.len();
        let ended = match socket.role {
            Role::Idle | Role::Listening(_) => {
                return Some(Err(socket.error.take().unwrap_or(Errno::ENOTCONN)));
            }
            Role::Connecting(_) => false,
            Role::Connected(handle) => {
                let octets = self.tcp.with(handle, |tcb| take(tcb, missing, peek)).unwrap_or_default();
                got.extend_from_slice(&octets);
                socket.reads_shut || self.tcp.get(handle).is_none_or(Tcb::at_end)
            }
            Role::Over => {
                let count = missing.min(socket.rest.len());
                got.extend_from_slice(&socket.rest[..count]);
                if !peek {
                    socket.rest.drain(..count);
                }
                true
            }
        };
        let enough = got.len() >= max || (!got.is_empty() && (!all || peek));
        if enough || (ended && !got.is_empty()) {
            return Some(Ok(Answer::Octets(std::mem::take(got))));
        }
        match socket.error.take() {
            Some(error) => Some(Err(error)),
            None => ended.then(|| Ok(Answer::Octets(Vec::new()))),
        }
    }

    /// Writes as much as there is room for; `None` if that is not everything.
    pub(crate) fn try_write(
        &mut self,
        fd: i32,
        octets: &mut Bytes,
        sent: &mut usize,
        more: bool,
    ) -> Option<Result<Answer, Errno>> {
        match self.write_some(fd, octets, more) {
            Ok(count) => *sent += count,
            Err(_) if *sent > 0 => return Some(Ok(Answer::Count(*sent))),
            Err(error) => return Some(Err(error)),
        }
        octets.is_empty().then_some(Ok(Answer::Count(*sent)))
    }

    fn write_some(&mut self, fd: i32, octets: &mut Bytes, more: bool) -> Result<usize, Errno> {
        let socket = self.files.socket_mut(fd)?;
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        let handle = match socket.role {
            _ if socket.writes_shut => return Err(Errno::EPIPE),
            Role::Idle | Role::Listening(_) | Role::Over => return Err(Errno::EPIPE),
            Role::Connecting(_) => return Ok(0),
            Role::Connected(handle) => handle,
        };
        let tcb = self.tcp.get(handle).ok_or(Errno::EPIPE)?;
        if !tcb.state.may_write() {
            return Err(Errno::EPIPE);
        }
        let room = tcb.writable().saturating_sub(socket.held.len());
        let taken = octets.split_to(room.min(octets.len()));
        if more || socket.options.cork {
            socket.held.extend_from_slice(&taken);
            let whole = socket.held.len() / tcb.mss() as usize * tcb.mss() as usize;
            self.release(fd, whole)?;
            self.hold(fd)?;
        } else {
            self.release_all(fd)?;
            write(self, handle, taken.clone());
        }
        Ok(taken.len())
    }

    fn hold(&mut self, fd: i32) -> Result<(), Errno> {
        let until = self.now + CORK_AT_MOST;
        let socket = self.files.socket_mut(fd)?;
        if socket.held.is_empty() {
            socket.held_until = None;
        } else {
            socket.held_until.get_or_insert(until);
        }
        Ok(())
    }

    /// Lets TCP have the first `count` octets that were held back.
    fn release(&mut self, fd: i32, count: usize) -> Result<(), Errno> {
        let socket = self.files.socket_mut(fd)?;
        let octets: Bytes = socket.held.drain(..count).collect();
        if let Some(handle) = socket.handle().filter(|_| !octets.is_empty()) {
            write(self, handle, octets);
        }
        Ok(())
    }

    /// Lets TCP have everything that was held back.
    pub(crate) fn release_all(&mut self, fd: i32) -> Result<(), Errno> {
        let socket = self.files.socket_mut(fd)?;
        socket.held_until = None;
        let held = socket.held.len();
        self.release(fd, held)
    }

    /// Lets TCP have what was held back long enough.
    pub(crate) fn release_held(&mut self, now: Instant) {
        let due = |socket: &Socket| socket.held_until.is_some_and(|until| until <= now);
        let due: Vec<_> = self.files.sockets().filter(|(_, socket)| due(socket)).map(|(fd, _)| fd).collect();
        for fd in due {
            // They are all sockets.
            let _ = self.release_all(fd);
        }
    }

    /// Octets that can be read (`SIOCINQ`).
    pub(crate) fn readable(&self, fd: i32) -> Result<usize, Errno> {
        let socket = self.files.socket(fd)?;
        match socket.role {
            Role::Listening(_) => Err(Errno::EINVAL),
            Role::Connected(handle) => Ok(self.tcp.get(handle).map_or(0, Tcb::readable)),
            Role::Idle | Role::Connecting(_) | Role::Over => Ok(socket.rest.len()),
        }
    }

    /// Octets that are not acknowledged (`SIOCOUTQ`), or only those that were never sent (`SIOCOUTQNSD`).
    pub(crate) fn unacknowledged(&self, fd: i32, unsent_only: bool) -> Result<usize, Errno> {
        let socket = self.files.socket(fd)?;
        if matches!(socket.role, Role::Listening(_)) {
            return Err(Errno::EINVAL);
        }
        let queued = |tcb: &Tcb| if unsent_only { tcb.snd.unsent() } else { tcb.snd.queue.len() };
        let tcb = socket.handle().and_then(|handle| self.tcp.get(handle));
        Ok(tcb.map_or(0, queued) + socket.held.len())
    }
}

/// There is room for them: whoever writes asks first.
fn write(world: &mut World, handle: Handle, octets: Bytes) {
    world.tcp.with(handle, |tcb| tcb.write(octets));
}

fn take(tcb: &mut Tcb, max: usize, peek: bool) -> Vec<u8> {
    if peek {
        return tcb.rcv.unread.slice(0, max).to_vec();
    }
    let mut octets = Vec::new();
    while octets.len() < max {
        let next = tcb.read(max - octets.len());
        if next.is_empty() {
            break;
        }
        octets.extend_from_slice(&next);
    }
    octets
}
