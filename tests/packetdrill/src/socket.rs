//! What a file descriptor stands for.

use std::collections::BTreeMap;
use std::net::SocketAddrV6;

use ferry_stack::Instant;
use ferry_stack::tcp::{Config, Handle};

use crate::errno::Errno;

/// Numbers of descriptors start here, so that nobody takes one for a descriptor of the process.
const FIRST: i32 = 1000;

/// An open file.
#[derive(Debug)]
pub(crate) enum File {
    /// A TCP socket.
    Socket(Box<Socket>),
    /// What `epoll_create` made.
    Epoll(Epoll),
}

/// What a socket is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Nothing yet.
    Idle,
    /// It accepts connections at this port.
    Listening(u16),
    /// Its connection is being opened.
    Connecting(Handle),
    /// Its connection is open, or was and is being closed.
    Connected(Handle),
    /// Its connection is gone.
    Over,
}

/// A TCP socket.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct Socket {
    pub(crate) role: Role,
    pub(crate) options: Options,
    /// Where it was bound to, or what its connection has at this side.
    pub(crate) local: Option<SocketAddrV6>,
    /// The other side.
    pub(crate) remote: Option<SocketAddrV6>,
    pub(crate) nonblocking: bool,
    /// What the next call is to report (`sk_err` of Linux).
    pub(crate) error: Option<Errno>,
    /// What an ICMPv6 error said, in case that the connection times out (`sk_err_soft` of Linux).
    pub(crate) soft_error: Option<Errno>,
    /// Whether a `connect` was told that the connection is open.
    pub(crate) told_connected: bool,
    pub(crate) reads_shut: bool,
    pub(crate) writes_shut: bool,
    /// What was received and not read when the connection ended.
    pub(crate) rest: Vec<u8>,
    /// What is written and waits for more (`TCP_CORK`, `MSG_MORE`) …
    pub(crate) held: Vec<u8>,
    /// … whether it is to be pushed once it is sent …
    pub(crate) held_push: bool,
    /// … until then.
    pub(crate) held_until: Option<Instant>,
    /// `TCP_INFO` when the connection ended.
    pub(crate) last_info: Vec<u8>,
    /// Octets received in all when the connection ended.
    pub(crate) received: u64,
    /// Whether the other side alone had finished when the connection ended.
    pub(crate) half_closed: bool,
}

/// What `setsockopt` can change.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// How the connection behaves.
    pub(crate) config: Config,
    /// Whether the receive buffer was chosen (`SO_RCVBUF`), so that the window scale follows from it.
    pub(crate) receive_buffer_chosen: bool,
    /// `TCP_MAXSEG`.
    pub(crate) largest_segment: Option<u16>,
    /// `TCP_CORK`.
    pub(crate) cork: bool,
    /// `SO_LINGER`: on, and for how many seconds.
    pub(crate) linger: Option<i32>,
    /// `SO_KEEPALIVE`; the spans and the count are remembered while it is off.
    pub(crate) keep_alive: bool,
    /// `TCP_KEEPIDLE`, `TCP_KEEPINTVL` in seconds, `TCP_KEEPCNT`.
    pub(crate) keep_alive_spans: (u32, u32, u8),
    /// Options that are only remembered.
    pub(crate) remembered: BTreeMap<(i32, i32), i32>,
}

/// What `epoll_create` made.
#[derive(Debug, Default)]
pub(crate) struct Epoll {
    pub(crate) interests: BTreeMap<i32, Interest>,
}

/// What an epoll file watches of another.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Interest {
    /// `EPOLLIN` and so on, with the flags of how to tell.
    pub(crate) events: u32,
    /// What to give back with an event.
    pub(crate) data: u64,
    /// What was ready when last looked at.
    pub(crate) seen: u32,
    /// What became ready and was not told.
    pub(crate) fresh: u32,
    /// Octets received when last looked at.
    pub(crate) received: u64,
    /// Whether a one-shot interest has fired.
    pub(crate) spent: bool,
}

impl Socket {
    pub(crate) fn new(options: Options) -> Self {
        Self {
            role: Role::Idle,
            options,
            local: None,
            remote: None,
            nonblocking: false,
            error: None,
            soft_error: None,
            told_connected: false,
            reads_shut: false,
            writes_shut: false,
            rest: Vec::new(),
            held: Vec::new(),
            held_push: false,
            held_until: None,
            last_info: Vec::new(),
            received: 0,
            half_closed: false,
        }
    }

    /// Its connection, if it has one.
    pub(crate) fn handle(&self) -> Option<Handle> {
        match self.role {
            Role::Connecting(handle) | Role::Connected(handle) => Some(handle),
            Role::Idle | Role::Listening(_) | Role::Over => None,
        }
    }
}

impl Options {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            receive_buffer_chosen: false,
            largest_segment: None,
            cork: false,
            linger: None,
            keep_alive: false,
            keep_alive_spans: (7200, 75, 9),
            remembered: BTreeMap::new(),
        }
    }
}

/// The open files, by descriptor.
#[derive(Debug, Default)]
pub(crate) struct Files {
    files: BTreeMap<i32, File>,
}

impl Files {
    /// Takes the lowest free descriptor.
    pub(crate) fn insert(&mut self, file: File) -> i32 {
        let fd = (FIRST..i32::MAX).find(|fd| !self.files.contains_key(fd)).unwrap_or(i32::MAX);
        self.files.insert(fd, file);
        fd
    }

    pub(crate) fn remove(&mut self, fd: i32) -> Option<File> {
        self.files.remove(&fd)
    }

    pub(crate) fn contains(&self, fd: i32) -> bool {
        self.files.contains_key(&fd)
    }

    /// The socket that `fd` stands for.
    pub(crate) fn socket(&self, fd: i32) -> Result<&Socket, Errno> {
        match self.files.get(&fd) {
            Some(File::Socket(socket)) => Ok(socket),
            Some(File::Epoll(_)) => Err(Errno::ENOTSOCK),
            None => Err(Errno::EBADF),
        }
    }

    /// The socket that `fd` stands for.
    pub(crate) fn socket_mut(&mut self, fd: i32) -> Result<&mut Socket, Errno> {
        match self.files.get_mut(&fd) {
            Some(File::Socket(socket)) => Ok(socket),
            Some(File::Epoll(_)) => Err(Errno::ENOTSOCK),
            None => Err(Errno::EBADF),
        }
    }

    /// The epoll file that `fd` stands for.
    pub(crate) fn epoll_mut(&mut self, fd: i32) -> Result<&mut Epoll, Errno> {
        match self.files.get_mut(&fd) {
            Some(File::Epoll(epoll)) => Ok(epoll),
            Some(File::Socket(_)) => Err(Errno::EINVAL),
            None => Err(Errno::EBADF),
        }
    }

    /// Every socket with its descriptor.
    pub(crate) fn sockets(&self) -> impl Iterator<Item = (i32, &Socket)> {
        self.files.iter().filter_map(|(fd, file)| match file {
            File::Socket(socket) => Some((*fd, &**socket)),
            File::Epoll(_) => None,
        })
    }

    /// Every socket.
    pub(crate) fn sockets_mut(&mut self) -> impl Iterator<Item = &mut Socket> {
        self.files.values_mut().filter_map(|file| match file {
            File::Socket(socket) => Some(&mut **socket),
            File::Epoll(_) => None,
        })
    }

    /// The descriptors of all epoll files.
    pub(crate) fn epolls(&self) -> Vec<i32> {
        self.files.iter().filter(|(_, file)| matches!(file, File::Epoll(_))).map(|(fd, _)| *fd).collect()
    }
}
