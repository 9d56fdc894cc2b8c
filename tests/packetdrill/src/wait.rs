//! Calls that block, and the one lock around everything.
//!
//! packetdrill makes a call that its script lets block in a second thread, and goes on in the first one, which alone
//! moves the clock. Such a call ends *in the world*: whatever event makes it possible also carries it out, at that
//! moment of virtual time, and the thread that waits only fetches the answer. How fast threads are woken therefore
//! changes nothing. Where the first thread itself blocks, nobody else could move the clock, so that it does.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddrV6;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};
use std::time::Duration;

use bytes::Bytes;
use ferry_stack::Instant;

use crate::errno::Errno;
use crate::world::World;

thread_local! {
    /// When the last call of this thread that blocked came to its end, until somebody asks for the time.
    static RETURNED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// `gettimeofday` shows this many seconds when the clock stands at zero.
const EPOCH: Duration = Duration::from_secs(1_000_000_000);
/// How far asking for the time moves the clock: packetdrill spins on it for the last microseconds of a wait.
const TICK: Duration = Duration::from_micros(1);

/// A call that may have to wait.
#[derive(Debug)]
pub(crate) enum Call {
    Accept(i32),
    Connect(i32),
    Read { fd: i32, max: usize, peek: bool, all: bool, got: Vec<u8> },
    Write { fd: i32, octets: Bytes, sent: usize, more: bool, blocked: bool },
    Poll { files: Vec<(i32, i16)>, until: Option<Instant> },
    EpollWait { fd: i32, max: usize, until: Option<Instant> },
}

/// What a call gives back.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    Fd(i32),
    Nothing,
    Octets(Vec<u8>),
    Count(usize),
    Poll(Vec<i16>),
    Events(Vec<(u32, u64)>),
}

impl Call {
    /// What is due if it may not wait.
    fn given_up(self) -> Result<Answer, Errno> {
        match self {
            Self::Write { sent, .. } if sent > 0 => Ok(Answer::Count(sent)),
            Self::Read { got, .. } if !got.is_empty() => Ok(Answer::Octets(got)),
            Self::Connect(_) => Err(Errno::EINPROGRESS),
            Self::Poll { files, .. } => Ok(Answer::Poll(vec![0; files.len()])),
            Self::EpollWait { .. } => Ok(Answer::Events(Vec::new())),
            _ => Err(Errno::EAGAIN),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self {
            Self::Poll { until, .. } | Self::EpollWait { until, .. } => *until,
            _ => None,
        }
    }
}

/// Calls of other threads that wait, and answers that were not fetched.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    calls: BTreeMap<u64, Call>,
    answers: BTreeMap<u64, (Result<Answer, Errno>, Instant)>,
    next: u64,
}

impl Waiting {
    /// Whether a call waits for room to write to a socket.
    pub(crate) fn writes(&self, socket: i32) -> bool {
        self.calls.values().any(|call| matches!(call, Call::Write { fd, .. } if *fd == socket))
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.calls.values().filter_map(Call::deadline).min()
    }
}

impl World {
    /// Carries out as much of a call as is possible now; `None` if it has to wait.
    pub(crate) fn attempt(&mut self, call: &mut Call) -> Option<Result<Answer, Errno>> {
        match call {
            Call::Accept(fd) => self.try_accept(*fd).transpose().map(|fd| fd.map(Answer::Fd)),
            Call::Connect(fd) => self.try_connect(*fd).transpose().map(|done| done.map(|()| Answer::Nothing)),
            Call::Read { fd, max, peek, all, got } => self.try_read(*fd, *max, *peek, *all, got),
            Call::Write { fd, blocked: true, .. } if !self.wakes_writer(*fd) => None,
            Call::Write { fd, octets, sent, more, blocked } => {
                *blocked = true;
                self.try_write(*fd, octets, sent, *more)
            }
            Call::Poll { files, until } => {
                let ready: Vec<_> = files.iter().map(|&(fd, events)| self.poll_events(fd, events)).collect();
                let over = until.is_some_and(|until| until <= self.now);
                (over || ready.iter().any(|bits| *bits != 0)).then_some(Ok(Answer::Poll(ready)))
            }
            Call::EpollWait { fd, max, until } => match self.epoll_events(*fd, *max) {
                Ok(events) if events.is_empty() && until.is_none_or(|until| until > self.now) => None,
                result => Some(result.map(Answer::Events)),
            },
        }
    }

    /// Ends the calls of other threads that can end; whether there were any.
    pub(crate) fn finish_calls(&mut self) -> bool {
        let mut any = false;
        for (id, mut call) in std::mem::take(&mut self.waiting.calls) {
            match self.attempt(&mut call) {
                Some(result) => {
                    any = true;
                    self.waiting.answers.insert(id, (result, self.now));
                }
                None => {
                    self.waiting.calls.insert(id, call);
                }
            }
        }
        any
    }
}

/// A [`World`] that several threads share.
pub struct Bridge {
    world: Mutex<World>,
    answered: Condvar,
    /// The thread that moves the clock.
    first: ThreadId,
}

impl fmt::Debug for Bridge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bridge").field("first", &self.first).finish_non_exhaustive()
    }
}

impl Bridge {
    /// A bridge whose clock this thread moves.
    pub fn new(world: World) -> Self {
        Self { world: Mutex::new(world), answered: Condvar::new(), first: thread::current().id() }
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        // A world in which a call panicked is as good as any other for the calls that close its sockets.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the world that cannot block.
    pub(crate) fn with<R>(&self, act: impl FnOnce(&mut World) -> R) -> R {
        let mut world = self.lock();
        let result = act(&mut world);
        world.pump();
        drop(world);
        self.answered.notify_all();
        result
    }

    /// Makes a call; waits for its answer if `blocking`.
    pub(crate) fn call(&self, mut call: Call, blocking: bool) -> Result<Answer, Errno> {
        let mut world = self.lock();
        let at_once = world.attempt(&mut call);
        world.pump();
        let result = match at_once {
            Some(result) => result,
            None if !blocking => call.given_up(),
            None if thread::current().id() == self.first => self.wait_alone(&mut world, call),
            None => return self.wait_for_others(world, call),
        };
        drop(world);
        self.answered.notify_all();
        result
    }

    /// The thread that moves the clock waits: nothing but the clock can help it.
    fn wait_alone(&self, world: &mut World, mut call: Call) -> Result<Answer, Errno> {
        while let Some(next) = world.deadline().into_iter().chain(call.deadline()).min() {
            world.advance(next);
            self.answered.notify_all();
            if let Some(result) = world.attempt(&mut call) {
                world.pump();
                return result;
            }
        }
        // It would wait for ever.
        Err(Errno::EDEADLK)
    }

    fn wait_for_others(&self, mut world: MutexGuard<'_, World>, call: Call) -> Result<Answer, Errno> {
        let id = world.waiting.next;
        world.waiting.next += 1;
        world.waiting.calls.insert(id, call);
        loop {
            world = self.answered.wait(world).unwrap_or_else(PoisonError::into_inner);
            if let Some((result, at)) = world.waiting.answers.remove(&id) {
                RETURNED.set(Some(at));
                return result;
            }
        }
    }

    /// Ends every call that waits, because the bridge is going away.
    pub(crate) fn shut(&self) {
        let mut world = self.lock();
        let now = world.now();
        let calls = std::mem::take(&mut world.waiting.calls);
        world.waiting.answers.extend(calls.into_keys().map(|id| (id, (Err(Errno::EBADF), now))));
        drop(world);
        self.answered.notify_all();
    }

    /// Makes a call on a socket, which waits unless the socket or `flags` say otherwise.
    pub(crate) fn call_on(&self, fd: i32, call: Call, flags: i32) -> Result<Answer, Errno> {
        let blocking = flags & libc::MSG_DONTWAIT == 0 && self.lock().blocks(fd);
        self.call(call, blocking)
    }

    /// Opens a connection, and waits until it is open if the socket blocks.
    pub(crate) fn connect(&self, fd: i32, remote: SocketAddrV6) -> Result<(), Errno> {
        match self.with(|world| world.connect(fd, remote)) {
            Err(Errno::EINPROGRESS | Errno::EALREADY) if self.lock().blocks(fd) => {
                self.call(Call::Connect(fd), true).map(|_| ())
            }
            result => result,
        }
    }

    /// Reads at most `max` octets.
    pub(crate) fn receive(&self, fd: i32, max: usize, flags: i32) -> Result<Vec<u8>, Errno> {
        if flags & libc::MSG_OOB != 0 {
            return Err(Errno::EINVAL);
        }
        if flags & libc::MSG_ERRQUEUE != 0 {
            return Err(Errno::EAGAIN);
        }
        let (peek, all) = (flags & libc::MSG_PEEK != 0, flags & libc::MSG_WAITALL != 0);
        match self.call_on(fd, Call::Read { fd, max, peek, all, got: Vec::new() }, flags)? {
            Answer::Octets(octets) => Ok(octets),
            _ => Err(Errno::EINVAL),
        }
    }

    /// Writes octets; how many.
    pub(crate) fn send(&self, fd: i32, octets: Bytes, flags: i32) -> Result<usize, Errno> {
        if flags & (libc::MSG_OOB | libc::MSG_FASTOPEN | libc::MSG_ZEROCOPY) != 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        let more = flags & libc::MSG_MORE != 0;
        match self.call_on(fd, Call::Write { fd, octets, sent: 0, more, blocked: false }, flags)? {
            Answer::Count(count) => Ok(count),
            _ => Err(Errno::EINVAL),
        }
    }

    /// What files are ready for, at the latest after `timeout` milliseconds; a negative one is for ever.
    pub(crate) fn poll(&self, files: Vec<(i32, i16)>, timeout: i32) -> Result<Vec<i16>, Errno> {
        let until = self.until(timeout);
        match self.call(Call::Poll { files, until }, true)? {
            Answer::Poll(ready) => Ok(ready),
            _ => Err(Errno::EINVAL),
        }
    }

    /// What the files that `fd` watches are ready for, as [`Bridge::poll`].
    pub(crate) fn epoll_wait(&self, fd: i32, max: usize, timeout: i32) -> Result<Vec<(u32, u64)>, Errno> {
        let until = self.until(timeout);
        match self.call(Call::EpollWait { fd, max, until }, true)? {
            Answer::Events(events) => Ok(events),
            _ => Err(Errno::EINVAL),
        }
    }

    fn until(&self, timeout: i32) -> Option<Instant> {
        let timeout = u64::try_from(timeout).ok().map(Duration::from_millis)?;
        Some(self.lock().now() + timeout)
    }

    /// Lets time pass.
    pub fn sleep(&self, span: Duration) {
        self.with(|world| world.advance(world.now() + span));
    }

    /// The time of day. After a call that blocked, a thread is told once when that call ended.
    pub fn time_of_day(&self) -> Duration {
        if let Some(at) = RETURNED.take() {
            return time_of_day(at);
        }
        if thread::current().id() != self.first {
            return time_of_day(self.lock().now());
        }
        self.with(|world| {
            let now = world.now();
            world.advance(now + TICK);
            time_of_day(now)
        })
    }

    /// An IPv6 packet arrives.
    pub fn arrive(&self, packet: &[u8]) {
        self.with(|world| world.arrive(packet));
    }

    /// The next packet that leaves, and at what time of day. Time goes on until one does; `None` if none ever will.
    pub fn next_packet(&self) -> Option<(Duration, Vec<u8>)> {
        let (at, packet) = self.with(World::next_packet)?;
        Some((time_of_day(at), packet))
    }
}

fn time_of_day(at: Instant) -> Duration {
    EPOCH + Duration::from_nanos(at.nanos())
}
