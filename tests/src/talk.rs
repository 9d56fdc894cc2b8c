//! The client's side of a connection: a script that is played, and the oracle that checks every octet.

use core::net::SocketAddrV6;
use core::time::Duration;

use bytes::Bytes;
use ferry_stack::Instant;

use crate::octets::Octets;
use crate::pattern;
use crate::serve::{Order, Request, UPWARD};
use crate::stack::{End, Phase};

/// After which a client tries again to take a port that is not free.
const TRY_AGAIN: Duration = Duration::from_millis(50);

/// What a client wants of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Sends octets and wants them back.
    Echo(u64),
    /// Sends octets.
    Discard(u64),
    /// Asks a service of files for the file called as the script's key, of so many octets.
    Get(u64),
    /// Sends octets and wants others.
    Exchange {
        /// To be sent.
        up: u64,
        /// To be received.
        down: u64,
        /// Who ends first.
        order: Order,
    },
}

/// How a client behaves on one connection.
#[derive(Clone, Debug)]
pub struct Script {
    /// When it opens the connection.
    pub start: Instant,
    /// Where to.
    pub server: SocketAddrV6,
    /// What for.
    pub task: Task,
    /// Names the streams.
    pub key: u64,
    /// Octets of one write at most.
    pub write_size: usize,
    /// Octets of one read at most.
    pub read_size: usize,
    /// Between two writes.
    pub write_pause: Duration,
    /// Between two reads.
    pub read_pause: Duration,
    /// Before the first read: the window shuts.
    pub deaf: Duration,
    /// A silence in the middle of what it sends.
    pub idle: Duration,
    /// Gives the connection up when so many octets have passed, in both directions together.
    pub abort_after: Option<u64>,
    /// Uses the port of another connection of this host again, as soon as that is over: the number of its script.
    pub again: Option<usize>,
}

impl Script {
    /// A client that reads so many octets as fast as they come.
    pub fn download(start: Instant, server: SocketAddrV6, octets: u64) -> Self {
        Self {
            start,
            server,
            task: Task::Exchange { up: 0, down: octets, order: Order::ServerFirst },
            key: 1,
            write_size: 1 << 20,
            read_size: 1 << 20,
            write_pause: Duration::ZERO,
            read_pause: Duration::ZERO,
            deaf: Duration::ZERO,
            idle: Duration::ZERO,
            abort_after: None,
            again: None,
        }
    }
}

/// How a connection ended for the client's application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every octet arrived, and both sides finished.
    Done,
    /// The script said to give it up.
    Aborted,
    /// The client's stack has a bug that is not ours.
    Hung,
    /// All nodes that held it have died.
    Lost,
}

/// A script being played.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is an independent fact")]
pub struct Talk {
    /// How it goes.
    pub script: Script,
    /// The connection's number in its stack, once it was opened.
    pub connection: Option<usize>,
    /// The client's end, from then on.
    pub local: Option<SocketAddrV6>,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Octets written, the request included.
    pub sent: u64,
    /// Octets read.
    pub received: u64,
    /// Whether all nodes that held the connection have died, so that it need not come to its end.
    pub excused: bool,
    request: Bytes,
    /// What came before the octets that are asked for, as far as it has come.
    head: Vec<u8>,
    finished: bool,
    idled: bool,
    ended: bool,
    next_write: Instant,
    next_read: Instant,
}

impl Talk {
    /// Not begun yet.
    pub fn new(script: Script) -> Self {
        let request = match script.task {
            Task::Exchange { up, down, order } => Request { key: script.key, up, down, order }.to_bytes(),
            Task::Get(_) => {
                format!("GET /{} HTTP/1.1\r\nHost: ferry\r\nConnection: close\r\n\r\n", script.key).into()
            }
            Task::Echo(_) | Task::Discard(_) => Bytes::new(),
        };
        let (next_write, next_read) = (script.start, script.start + script.deaf);
        let (connection, outcome) = (None, None);
        Self {
            script,
            connection,
            local: None,
            outcome,
            sent: 0,
            received: 0,
            excused: false,
            request,
            head: Vec::new(),
            finished: false,
            idled: false,
            ended: false,
            next_write,
            next_read,
        }
    }

    /// Octets to be sent in all.
    pub fn to_send(&self) -> u64 {
        match self.script.task {
            Task::Echo(octets) | Task::Discard(octets) => octets,
            Task::Get(_) => self.request.len() as u64,
            Task::Exchange { up, .. } => Request::LEN as u64 + up,
        }
    }

    /// Octets to be received in all.
    pub fn to_receive(&self) -> u64 {
        match self.script.task {
            Task::Echo(octets) | Task::Get(octets) => octets,
            Task::Discard(_) => 0,
            Task::Exchange { up, down, order } => Request { key: 0, up, down, order }.answer_len(),
        }
    }

    /// Whether nothing more is to be done.
    pub fn is_over(&self) -> bool {
        self.outcome.is_some()
    }

    /// Whether the client has given the connection up, so that a RST is what it expects.
    pub fn is_given_up(&self) -> bool {
        matches!(self.outcome, Some(Outcome::Aborted | Outcome::Lost))
    }

    /// The client's application gives the connection up.
    pub fn give_up(&mut self, io: &mut dyn Octets) {
        io.reset();
        self.outcome = Some(Outcome::Lost);
    }

    /// Does all that can be done now. Panics if an octet is wrong.
    pub fn play(&mut self, io: &mut dyn Octets, now: Instant) {
        if self.outcome.is_some() {
            return;
        }
        if self.script.abort_after.is_some_and(|after| self.sent + self.received >= after) {
            io.reset();
            self.outcome = Some(Outcome::Aborted);
            return;
        }
        self.write(io, now);
        self.read(io, now);
        self.finish(io);
    }

    fn write(&mut self, io: &mut dyn Octets, now: Instant) {
        while self.sent < self.to_send() && self.next_write <= now && io.writable() > 0 {
            let size = self.script.write_size.min(io.writable());
            let octets = self.next_octets(size);
            self.sent += octets.len() as u64;
            self.sent -= io.write(octets).len() as u64;
            let half = self.sent >= self.to_send() / 2;
            let pause = if half && !self.idled { self.script.idle } else { self.script.write_pause };
            self.idled |= half;
            self.next_write = now + pause;
        }
    }

    fn next_octets(&self, size: usize) -> Bytes {
        let head = self.request.len();
        if let Some(at) = usize::try_from(self.sent).ok().filter(|at| *at < head) {
            return self.request.slice(at..head.min(at + size));
        }
        let offset = self.sent - head as u64;
        let left = usize::try_from(self.to_send() - self.sent).unwrap_or(usize::MAX);
        let key = if head > 0 { self.script.key ^ UPWARD } else { self.script.key };
        pattern::octets(key, offset, left.min(size))
    }

    fn read(&mut self, io: &mut dyn Octets, now: Instant) {
        while self.next_read <= now {
            let octets = io.read(self.script.read_size);
            if octets.is_empty() {
                break;
            }
            let octets = self.without_head(octets);
            self.check(&octets);
            self.received += octets.len() as u64;
            self.next_read = now + self.script.read_pause;
        }
        if io.at_end() && !self.ended {
            self.ended = true;
            // A reset looks like an end, too.
            if self.excused {
                return;
            }
            assert_eq!(self.received, self.to_receive(), "octets received before the end: {self:?}");
        }
    }

    /// Takes off the head of an HTTP response, and checks it.
    fn without_head(&mut self, mut octets: Bytes) -> Bytes {
        const END: &[u8] = b"\r\n\r\n";
        let Task::Get(len) = self.script.task else { return octets };
        while !self.head.ends_with(END) && !octets.is_empty() {
            self.head.extend_from_slice(&octets.split_to(1));
            if self.head.ends_with(END) {
                let head = String::from_utf8_lossy(&self.head).to_lowercase();
                let length = format!("content-length: {len}\r\n");
                assert!(head.starts_with("http/1.1 200 ") && head.contains(&length), "{head}: {self:?}");
            }
        }
        octets
    }

    /// The stream oracle.
    fn check(&self, octets: &[u8]) {
        let end = self.received + octets.len() as u64;
        assert!(end <= self.to_receive(), "{end} octets received: {self:?}");
        let stream = match self.script.task {
            Task::Exchange { down, .. } => down,
            _ => u64::MAX,
        };
        let in_stream = usize::try_from(stream.saturating_sub(self.received)).unwrap_or(usize::MAX);
        let (octets, trailer) = octets.split_at(in_stream.min(octets.len()));
        if let Some(at) = pattern::first_difference(self.script.key, self.received, octets) {
            panic!("the client got a wrong octet at {at}: {self:?}");
        }
        self.check_trailer(trailer);
    }

    fn check_trailer(&self, trailer: &[u8]) {
        let Task::Exchange { up, down, .. } = self.script.task else { return };
        let from = usize::try_from(self.received.saturating_sub(down)).unwrap_or(usize::MAX);
        assert!(
            trailer.is_empty() || up.to_be_bytes()[from..].starts_with(trailer),
            "the server says how many octets it received: {trailer:?} at {from}: {self:?}"
        );
    }

    fn finish(&mut self, io: &mut dyn Octets) {
        if self.finished || self.sent < self.to_send() {
            return;
        }
        let due = match self.script.task {
            Task::Exchange { order: Order::ServerFirst, .. } => self.ended,
            Task::Exchange { order: Order::Together, .. } => self.received == self.to_receive(),
            _ => true,
        };
        if due {
            self.finished = true;
            io.finish();
        }
    }

    /// Takes note of what the stack says of the connection. Panics if it ended as it should not.
    pub fn see(&mut self, phase: Phase) {
        let Phase::Over(end) = phase else { return };
        if self.outcome.is_some() {
            return;
        }
        if end == End::Hung {
            self.outcome = Some(Outcome::Hung);
            return;
        }
        let complete = self.ended && self.finished && self.received == self.to_receive();
        if self.excused && !complete {
            self.outcome = Some(Outcome::Lost);
            return;
        }
        assert!(complete, "the connection ended early, {end:?}: {self:?}");
        // Only the acknowledgement of our FIN was missing, and the server has forgotten us meanwhile.
        assert!(matches!(end, End::Finished | End::Reset), "the connection ended, {end:?}: {self:?}");
        self.outcome = Some(Outcome::Done);
    }

    /// When there is something to do that no arrival would bring about.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        if self.outcome.is_some() {
            return None;
        }
        if self.connection.is_none() {
            // A port that is to be used again may not be free yet.
            let next_try = if self.script.again.is_some() { now + TRY_AGAIN } else { Instant::ZERO };
            return Some(self.script.start.max(next_try));
        }
        let write = (self.sent < self.to_send()).then_some(self.next_write);
        let read = (!self.ended).then_some(self.next_read);
        [write, read].into_iter().flatten().filter(|at| *at > now).min()
    }
}
