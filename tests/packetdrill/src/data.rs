//! Octets in and out of sockets.

use bytes::Bytes;
use ferry_stack::Instant;
use ferry_stack::tcp::{Config, Handle, Tcb};

use crate::errno::Errno;
use crate::socket::{Role, Socket};
use crate::wait::Answer;
use crate::world::World;

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
        let room = room_for_bursts(tcb).saturating_sub(socket.held.len());
        let taken = octets.split_to(room.min(octets.len()));
        if more || socket.options.cork {
            socket.held.extend_from_slice(&taken);
            socket.held_push |= !more;
            let whole = socket.held.len() / tcb.mss() as usize * tcb.mss() as usize;
            self.release(fd, whole)?;
            self.hold(fd)?;
        } else {
            self.release_all(fd)?;
            self.tcp.with(handle, |tcb| write(tcb, taken.clone()));
        }
        Ok(taken.len())
    }

    fn hold(&mut self, fd: i32) -> Result<(), Errno> {
        let socket = self.files.socket_mut(fd)?;
        let tcb = socket.handle().and_then(|handle| self.tcp.get(handle));
        // As long as Linux waits before it probes: a retransmission timeout.
        let span = tcb.map(|tcb| tcb.rtt.rto(tcb.config.min_rto, tcb.config.max_rto)).unwrap_or_default();
        let until = self.now + span;
        if socket.held.is_empty() {
            socket.held_until = None;
        } else {
            socket.held_until.get_or_insert(until);
        }
        Ok(())
    }

    /// Lets TCP have the first `count` octets that were held back. What was only written with `MSG_MORE` is not pushed.
    fn release(&mut self, fd: i32, count: usize) -> Result<(), Errno> {
        let socket = self.files.socket_mut(fd)?;
        let octets: Bytes = socket.held.drain(..count).collect();
        let push = socket.held_push;
        socket.held_push &= !socket.held.is_empty();
        if let Some(handle) = socket.handle().filter(|_| !octets.is_empty()) {
            // There is room for them: whoever wrote them asked first.
            self.tcp.with(handle, |tcb| {
                let before = tcb.snd.push;
                write(tcb, octets);
                tcb.snd.push = if push { tcb.snd.push } else { before };
            });
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
            // They are all sockets. Linux pushes what it sends because it has waited long enough.
            if let Ok(socket) = self.files.socket_mut(fd) {
                socket.held_push = true;
            }
            let _ = self.release_all(fd);
        }
    }

    /// A segment with octets arrived: the window opens by two segments, as Linux lets it grow.
    pub(crate) fn grow_window(&mut self, handle: Handle) {
        let most = |socket: &Socket| socket.options.config.receive_buffer;
        let socket = self.files.sockets().find(|(_, socket)| socket.handle() == Some(handle));
        let most = socket.map_or(self.settings.config.receive_buffer, |(_, socket)| most(socket));
        self.tcp.with(handle, |tcb| {
            let more = 2 * u32::from(tcb.config.mss);
            let config = tcb.config_mut();
            config.receive_buffer = config.receive_buffer.saturating_add(more).min(most);
        });
    }

    /// A segment arrived. What `MSG_MORE` held back goes now, as far as the algorithm of Nagle lets it; a cork stays.
    pub(crate) fn release_after_ack(&mut self, handle: Handle) {
        let holds = |socket: &Socket| socket.handle() == Some(handle) && !socket.options.cork;
        let holding = self.files.sockets().find(|(_, socket)| holds(socket)).map(|(fd, _)| fd);
        if let Some(fd) = holding {
            // It is a socket.
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

    /// What `recvmsg` tells if `TCP_INQ` is on: octets that can be read, and one more for the other side's FIN.
    pub(crate) fn left_to_read(&self, fd: i32) -> Option<i32> {
        let socket = self.files.socket(fd).ok()?;
        let asked = socket.options.remembered.get(&(libc::IPPROTO_TCP, crate::options::TCP_INQ));
        let on = asked.is_some_and(|on| *on != 0);
        let finished = match socket.handle().and_then(|handle| self.tcp.get(handle)) {
            Some(tcb) => tcb.rcv.fin.is_some_and(|fin| tcb.rcv.nxt.after(fin)),
            None => true,
        };
        let left = self.readable(fd).ok()? + usize::from(finished);
        on.then(|| i32::try_from(left).unwrap_or(i32::MAX))
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

/// What Linux still takes. It looks at the size of the send buffer, and at what is not sent yet, only before it begins
/// with the next burst to be; and it sends while it takes.
fn room_for_bursts(tcb: &Tcb) -> usize {
    let mss = tcb.mss() as usize;
    let burst = ((tcb.snd.max_wnd as usize / 2).min(crate::bursts::LONGEST) / mss * mss).max(mss);
    let window = tcb.snd.wnd.min(tcb.congestion.cwnd).saturating_sub(tcb.snd.outstanding());
    let flying = tcb.snd.queue.len() - tcb.snd.unsent() + window as usize / mss * mss;
    let buffer = (tcb.config.send_buffer as usize).saturating_sub(flying);
    let bursts = buffer.div_ceil(burst).min((tcb.config.unsent_limit as usize).div_ceil(burst));
    (flying + bursts * burst).saturating_sub(tcb.snd.queue.len())
}

/// Writes all of `octets`, for which there is room in the sense of [`room_for_bursts`].
fn write(tcb: &mut Tcb, octets: Bytes) {
    let Config { send_buffer, unsent_limit, .. } = *tcb.config;
    let config = tcb.config_mut();
    (config.send_buffer, config.unsent_limit) = (u32::MAX, u32::MAX);
    let rest = tcb.write(octets);
    debug_assert!(rest.is_empty(), "there is room for what was taken");
    let config = tcb.config_mut();
    (config.send_buffer, config.unsent_limit) = (send_buffer, unsent_limit);
}

fn take(tcb: &mut Tcb, max: usize, peek: bool) -> Vec<u8> {
    if peek {
        return tcb.rcv.unread.slice(0, max).to_vec();
    }
    let mut octets = Vec::new();
    // A read of nothing must not have an effect, such as an update of the window.
    while octets.len() < max && tcb.readable() > 0 {
        let next = tcb.read(max - octets.len());
        octets.extend_from_slice(&next);
    }
    octets
}
