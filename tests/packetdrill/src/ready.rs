//! `poll` and `epoll`: what a file is ready for.

use ferry_stack::tcp::Tcb;

use crate::errno::Errno;
use crate::socket::{Epoll, File, Interest, Role, Socket};
use crate::world::World;

/// Bits that are told whether somebody asked for them or not.
const ALWAYS: i16 = libc::POLLERR | libc::POLLHUP;
/// One octet of this many is what Linux's buffers take besides what is in them, about.
const OVERHEAD: usize = 7;
/// Events of epoll that have the same bits as in `poll`.
const SHARED: u32 = 0xffff;

impl World {
    /// What `poll` tells of a file of which `events` are of interest.
    pub(crate) fn poll_events(&self, fd: i32, events: i16) -> i16 {
        if fd < 0 {
            return 0;
        }
        match self.files.socket(fd) {
            Ok(socket) => self.readiness(socket) & (events | ALWAYS),
            Err(Errno::EBADF) => libc::POLLNVAL,
            Err(_) => 0,
        }
    }

    fn readiness(&self, socket: &Socket) -> i16 {
        const READ: i16 = libc::POLLIN | libc::POLLRDNORM;
        const WRITE: i16 = libc::POLLOUT | libc::POLLWRNORM;
        const READ_END: i16 = READ | libc::POLLRDHUP;
        let error = if socket.error.is_some() { libc::POLLERR } else { 0 };
        error
            | match socket.role {
                Role::Idle if socket.error.is_some() => READ_END | WRITE | libc::POLLHUP,
                Role::Idle => WRITE | libc::POLLHUP,
                Role::Connecting(_) => 0,
                Role::Listening(port) => {
                    let waiting = self.tcp.listener(port).is_some_and(|listener| listener.waiting() > 0);
                    if waiting { READ } else { 0 }
                }
                Role::Over => READ_END | WRITE | libc::POLLHUP,
                Role::Connected(handle) => self.tcp.get(handle).map_or(0, |tcb| {
                    let finished = tcb.rcv.fin.is_some_and(|fin| tcb.rcv.nxt.after(fin));
                    let ended = finished || socket.reads_shut;
                    let readable = if tcb.readable() > 0 { READ } else { 0 };
                    let read_end = if ended { READ_END } else { 0 };
                    // A socket whose writing side is shut never blocks a write: it fails.
                    let writable = if socket.writes_shut || has_room(tcb) { WRITE } else { 0 };
                    let over = if ended && socket.writes_shut { libc::POLLHUP } else { 0 };
                    readable | read_end | writable | over
                }),
            }
    }

    pub(crate) fn epoll_create(&mut self, size: i32) -> Result<i32, Errno> {
        if size <= 0 {
            return Err(Errno::EINVAL);
        }
        Ok(self.files.insert(File::Epoll(Epoll::default())))
    }

    pub(crate) fn epoll_ctl(
        &mut self,
        epoll: i32,
        operation: i32,
        fd: i32,
        wanted: Option<(u32, u64)>,
    ) -> Result<(), Errno> {
        let known = self.files.epoll_mut(epoll)?.interests.contains_key(&fd);
        if !self.files.contains(fd) {
            return Err(Errno::EBADF);
        }
        self.files.socket(fd).map_err(|_| Errno::EPERM)?;
        match operation {
            libc::EPOLL_CTL_ADD if known => return Err(Errno::EEXIST),
            libc::EPOLL_CTL_MOD | libc::EPOLL_CTL_DEL if !known => return Err(Errno::ENOENT),
            libc::EPOLL_CTL_DEL => {
                self.files.epoll_mut(epoll)?.interests.remove(&fd);
            }
            libc::EPOLL_CTL_ADD | libc::EPOLL_CTL_MOD => {
                let (events, data) = wanted.ok_or(Errno::EFAULT)?;
                let received = self.received(fd);
                let interest = Interest { events, data, received, ..Interest::default() };
                self.files.epoll_mut(epoll)?.interests.insert(fd, interest);
                self.watch();
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    /// Octets that a socket has received in all.
    fn received(&self, fd: i32) -> u64 {
        let Ok(socket) = self.files.socket(fd) else { return 0 };
        let tcb = socket.handle().and_then(|handle| self.tcp.get(handle));
        tcb.map_or(socket.received, |tcb| tcb.rcv.total)
    }

    /// Takes note of what became ready since the last look: the edges that `EPOLLET` tells.
    pub(crate) fn watch(&mut self) {
        for epoll in self.files.epolls() {
            let Ok(watched) = self.files.epoll_mut(epoll).map(|epoll| epoll.interests.clone()) else {
                continue;
            };
            for (fd, mut interest) in watched {
                let ready = self.ready_bits(fd, interest.events);
                let received = self.received(fd);
                interest.fresh |= ready & !interest.seen;
                if received != interest.received {
                    interest.fresh |= ready & bits(libc::POLLIN | libc::POLLRDNORM);
                }
                interest.fresh &= ready;
                (interest.seen, interest.received) = (ready, received);
                if let Ok(epoll) = self.files.epoll_mut(epoll) {
                    epoll.interests.insert(fd, interest);
                }
            }
        }
    }

    fn ready_bits(&self, fd: i32, events: u32) -> u32 {
        let wanted = (events & SHARED) | bits(ALWAYS);
        self.files.socket(fd).map_or(0, |socket| bits(self.readiness(socket)) & wanted)
    }

    /// What `epoll_wait` tells: events with the data they were asked with, at most `max` of them.
    pub(crate) fn epoll_events(&mut self, epoll: i32, max: usize) -> Result<Vec<(u32, u64)>, Errno> {
        self.watch();
        let mut told = Vec::new();
        let interests = &mut self.files.epoll_mut(epoll)?.interests;
        for interest in interests.values_mut().filter(|interest| !interest.spent) {
            let edge = interest.events & libc::EPOLLET.cast_unsigned() != 0;
            let ready = if edge && interest.fresh == 0 { 0 } else { interest.seen };
            if ready == 0 || told.len() == max {
                continue;
            }
            interest.fresh = 0;
            interest.spent = interest.events & libc::EPOLLONESHOT.cast_unsigned() != 0;
            told.push((ready, interest.data));
        }
        Ok(told)
    }
}

impl World {
    /// Whether a call that waits for room to write goes on: Linux wakes it late, as `poll`, or if there is an error.
    pub(crate) fn wakes_writer(&self, fd: i32) -> bool {
        let tcb = |socket: &Socket| socket.handle().and_then(|handle| self.tcp.get(handle));
        let waits = |socket: &Socket| {
            socket.error.is_none() && tcb(socket).is_some_and(|tcb| tcb.state.may_write() && !is_drained(tcb))
        };
        !self.files.socket(fd).is_ok_and(waits)
    }
}

/// The same as [`has_room`], with what Linux counts for its buffers' overhead.
fn is_drained(tcb: &Tcb) -> bool {
    let queued = tcb.snd.queue.len();
    has_room(tcb) && queued + queued / OVERHEAD <= tcb.config.send_buffer as usize / 3 * 2
}

/// Linux calls a socket writable once a third of its buffer is free, and less than half of what was asked for is unsent.
fn has_room(tcb: &Tcb) -> bool {
    let queued = tcb.snd.queue.len();
    let free = (tcb.config.send_buffer as usize).saturating_sub(queued);
    free > 0 && free >= queued / 2 && tcb.snd.unsent() * 2 < tcb.config.unsent_limit as usize
}

fn bits(events: i16) -> u32 {
    u32::from(events.cast_unsigned())
}
