//! Sockets are made, opened and closed.

use std::net::{Ipv6Addr, SocketAddrV6};

use ferry_stack::tcp::{Flow, Handle, Listener, Refusal};

use crate::errno::Errno;
use crate::socket::{File, Options, Role, Socket};
use crate::world::World;

/// Where the search for a free port begins (RFC 6335 section 6).
const FIRST_EPHEMERAL: u16 = 49_152;
/// The window of a young connection: what an unscaled field can say.
const FIRST_WINDOW: u32 = 0xffff;
/// How far the listener's queues may be chosen (`net.core.somaxconn`).
const MAX_BACKLOG: i32 = 4096;

impl World {
    pub(crate) fn socket(&mut self, domain: i32, kind: i32, protocol: i32) -> Result<i32, Errno> {
        if self.refused {
            return Err(Errno::EINVAL);
        }
        if domain != libc::AF_INET6 {
            return Err(Errno::EAFNOSUPPORT);
        }
        if kind & !(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC) != libc::SOCK_STREAM {
            return Err(Errno::ESOCKTNOSUPPORT);
        }
        if protocol != 0 && protocol != libc::IPPROTO_TCP {
            return Err(Errno::EPROTONOSUPPORT);
        }
        self.look_at_sysctls();
        let mut socket = Socket::new(Options::new(self.settings.config));
        socket.nonblocking = kind & libc::SOCK_NONBLOCK != 0;
        Ok(self.files.insert(File::Socket(Box::new(socket))))
    }

    pub(crate) fn bind(&mut self, fd: i32, to: SocketAddrV6) -> Result<(), Errno> {
        let taken = self.files.sockets().any(|(other, socket)| {
            other != fd
                && to.port() != 0
                && matches!(socket.role, Role::Idle | Role::Listening(_))
                && socket.local.is_some_and(|local| local.port() == to.port())
        });
        let port = if to.port() == 0 { self.free_port() } else { to.port() };
        let socket = self.files.socket_mut(fd)?;
        if socket.local.is_some() || socket.role != Role::Idle {
            return Err(Errno::EINVAL);
        }
        if taken {
            return Err(Errno::EADDRINUSE);
        }
        socket.local = Some(SocketAddrV6::new(*to.ip(), port, 0, 0));
        Ok(())
    }

    fn free_port(&self) -> u16 {
        let used = |port: u16| {
            let bound = |socket: &Socket| socket.local.is_some_and(|local| local.port() == port);
            self.files.sockets().any(|(_, socket)| bound(socket))
                || self.tcp.iter().any(|(_, tcb)| tcb.flow.local.port() == port)
        };
        (FIRST_EPHEMERAL..u16::MAX).find(|port| !used(*port)).unwrap_or(u16::MAX)
    }

    pub(crate) fn listen(&mut self, fd: i32, backlog: i32) -> Result<(), Errno> {
        let port = match self.files.socket(fd)?.local {
            Some(local) => local.port(),
            None => self.free_port(),
        };
        let socket = self.files.socket_mut(fd)?;
        if !matches!(socket.role, Role::Idle | Role::Listening(_)) {
            return Err(Errno::EINVAL);
        }
        socket.role = Role::Listening(port);
        socket.local.get_or_insert(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, port, 0, 0));
        let mut listener = Listener::new(self.opening_config(fd)?);
        // Linux takes one more than was asked for.
        let backlog = backlog.clamp(0, MAX_BACKLOG);
        listener.max_waiting = usize::try_from(backlog).unwrap_or(0) + 1;
        listener.max_half_open = listener.max_waiting.max(8);
        self.tcp.listen(port, listener);
        Ok(())
    }

    /// How a connection of this socket is opened. Its window scale has to serve the greatest buffer that it may get.
    pub(crate) fn opening_config(&self, fd: i32) -> Result<ferry_stack::tcp::Config, Errno> {
        let options = &self.files.socket(fd)?.options;
        let mut config = options.config;
        if !options.receive_buffer_chosen {
            config.receive_buffer = config.receive_buffer.max(self.settings.greatest_receive_buffer);
        }
        config.mss = options.largest_segment.map_or(config.mss, |largest| largest.min(config.mss));
        Ok(config)
    }

    /// A connection was opened passively: what its listener's options say beyond its configuration.
    pub(crate) fn adopt(&mut self, handle: Handle) {
        let Some(port) = self.tcp.get(handle).map(|tcb| tcb.flow.local.port()) else { return };
        let listener = self.files.sockets().find(|(_, socket)| socket.role == Role::Listening(port));
        let Some(options) = listener.map(|(_, socket)| socket.options.clone()) else { return };
        let narrow = self.narrow.clone();
        self.tcp.with(handle, |tcb| {
            tcb.config_mut().receive_buffer = options.config.receive_buffer.min(FIRST_WINDOW);
            if let Some(mtu) = narrow.get(tcb.flow.remote.ip()) {
                tcb.snd.path_mtu = tcb.snd.path_mtu.min(*mtu);
            }
            tcb.snd.mss = options.largest_segment.map_or(tcb.snd.mss, |largest| largest.min(tcb.snd.mss));
        });
    }

    /// The next connection of a listener; `None` if there is none yet.
    pub(crate) fn try_accept(&mut self, fd: i32) -> Result<Option<i32>, Errno> {
        let listening = self.files.socket(fd)?;
        let Role::Listening(port) = listening.role else { return Err(Errno::EINVAL) };
        let options = listening.options.clone();
        let Some(handle) = self.tcp.accept(port) else { return Ok(None) };
        let Some(flow) = self.tcp.get(handle).map(|tcb| tcb.flow) else { return Ok(None) };
        self.follow_route(handle);
        let mut socket = Socket::new(options);
        socket.role = Role::Connected(handle);
        (socket.local, socket.remote) = (Some(flow.local), Some(flow.remote));
        socket.told_connected = true;
        Ok(Some(self.files.insert(File::Socket(Box::new(socket)))))
    }

    /// Starts to open a connection, or tells how far it is.
    pub(crate) fn connect(&mut self, fd: i32, remote: SocketAddrV6) -> Result<(), Errno> {
        let socket = self.files.socket_mut(fd)?;
        match socket.role {
            Role::Idle => {}
            Role::Connecting(_) => return Err(Errno::EALREADY),
            Role::Connected(_) if !std::mem::replace(&mut socket.told_connected, true) => return Ok(()),
            Role::Connected(_) | Role::Listening(_) => return Err(Errno::EISCONN),
            Role::Over => return Err(Errno::EINVAL),
        }
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        let bound = socket.local;
        let port = bound.map_or_else(|| self.free_port(), |local| local.port());
        let from = bound
            .map(|local| *local.ip())
            .filter(|ip| !ip.is_unspecified())
            .unwrap_or_else(|| self.source(*remote.ip()));
        let flow = Flow { local: SocketAddrV6::new(from, port, 0, 0), remote };
        let config = self.opening_config(fd)?;
        let handle = self.tcp.connect_from(flow, config, self.now).map_err(|refusal| match refusal {
            Refusal::Exists => Errno::EADDRNOTAVAIL,
            _ => Errno::EINVAL,
        })?;
        let socket = self.files.socket_mut(fd)?;
        let receive_buffer = socket.options.config.receive_buffer.min(FIRST_WINDOW);
        let narrow = self.narrow.get(remote.ip()).copied().unwrap_or(u16::MAX);
        self.tcp.with(handle, |tcb| {
            tcb.config_mut().receive_buffer = receive_buffer;
            tcb.snd.path_mtu = tcb.snd.path_mtu.min(narrow);
        });
        socket.role = Role::Connecting(handle);
        (socket.local, socket.remote) = (Some(flow.local), Some(remote));
        Err(Errno::EINPROGRESS)
    }

    /// The address that an unbound socket speaks to `remote` from: not the same one, which packetdrill may have been given.
    fn source(&self, remote: Ipv6Addr) -> Ipv6Addr {
        if self.local == remote { Ipv6Addr::from_bits(self.local.to_bits() ^ 2) } else { self.local }
    }

    /// Whether a connection that is being opened is open; `None` if not yet.
    pub(crate) fn try_connect(&mut self, fd: i32) -> Result<Option<()>, Errno> {
        let socket = self.files.socket_mut(fd)?;
        if let Some(error) = socket.error.take() {
            return Err(error);
        }
        let open = !matches!(socket.role, Role::Connecting(_));
        socket.told_connected |= open;
        Ok(open.then_some(()))
    }

    /// The engine says that a connection we opened is established.
    pub(crate) fn connected(&mut self, handle: Handle) {
        let Some(socket) = self.files.sockets_mut().find(|socket| socket.handle() == Some(handle)) else {
            return;
        };
        socket.role = Role::Connected(handle);
        if let Some(largest) = socket.options.largest_segment {
            self.tcp.with(handle, |tcb| {
                tcb.snd.mss = tcb.snd.mss.min(largest);
                tcb.congestion.cwnd = u32::from(tcb.config.initial_window) * tcb.mss();
            });
        }
    }

    pub(crate) fn shutdown(&mut self, fd: i32, how: i32) -> Result<(), Errno> {
        let (reads, writes) = match how {
            libc::SHUT_RD => (true, false),
            libc::SHUT_WR => (false, true),
            libc::SHUT_RDWR => (true, true),
            _ => return Err(Errno::EINVAL),
        };
        self.release_all(fd)?;
        let socket = self.files.socket_mut(fd)?;
        match socket.role {
            Role::Idle | Role::Over => return Err(Errno::ENOTCONN),
            Role::Listening(port) => {
                if reads {
                    socket.role = Role::Idle;
                    self.stop_listening(port);
                }
                return Ok(());
            }
            Role::Connecting(handle) | Role::Connected(handle) => {
                socket.reads_shut |= reads;
                socket.writes_shut |= writes;
                if writes {
                    self.tcp.with(handle, ferry_stack::tcp::Tcb::finish);
                }
            }
        }
        Ok(())
    }

    fn stop_listening(&mut self, port: u16) {
        while let Some(handle) = self.tcp.accept(port) {
            self.tcp.with(handle, ferry_stack::tcp::Tcb::abort);
        }
        self.tcp.unlisten(port);
    }

    pub(crate) fn close(&mut self, fd: i32) -> Result<(), Errno> {
        if self.files.socket(fd).is_ok() {
            self.release_all(fd)?;
        }
        let Some(File::Socket(socket)) = self.files.remove(fd).ok_or(Errno::EBADF).map(Some)? else {
            return Ok(());
        };
        let now = self.now;
        match socket.role {
            Role::Idle | Role::Over => {}
            Role::Listening(port) => self.stop_listening(port),
            Role::Connecting(handle) | Role::Connected(handle) => {
                let at_once = socket.options.linger == Some(0);
                self.tcp.with(handle, |tcb| if at_once { tcb.abort() } else { tcb.close(now) });
            }
        }
        for epoll in self.files.epolls() {
            if let Ok(epoll) = self.files.epoll_mut(epoll) {
                epoll.interests.remove(&fd);
            }
        }
        Ok(())
    }
}
