//! `setsockopt`, `getsockopt`, `fcntl` and `ioctl`.

use core::time::Duration;

use ferry_stack::tcp::KeepAlive;
use libc::{IPPROTO_IP, IPPROTO_IPV6, IPPROTO_TCP, SOL_SOCKET};

use crate::errno::Errno;
use crate::info::{CLOSED, LISTENING, bare_info, tcp_info};
use crate::settings::{congestion, congestion_name};
use crate::socket::{Options, Role, Socket};
use crate::world::World;

/// The least send buffer (`SOCK_MIN_SNDBUF`) and receive buffer of Linux.
const LEAST_BUFFER: i32 = 2304;
/// The least and the greatest `TCP_MAXSEG` that Linux takes.
const SEGMENTS: core::ops::RangeInclusive<i32> = 88..=32_767;
/// `TCP_INQ` of Linux, which libc does not know: `recvmsg` tells what is left to be read.
pub(crate) const TCP_INQ: i32 = 36;
/// `SIOCOUTQNSD` of Linux.
const SIOCOUTQNSD: u64 = 0x894b;

impl World {
    pub(crate) fn set_option(&mut self, fd: i32, level: i32, name: i32, value: &[u8]) -> Result<(), Errno> {
        let socket = self.files.socket_mut(fd)?;
        match (level, name) {
            (SOL_SOCKET, libc::SO_LINGER) => set_linger(&mut socket.options, value)?,
            (IPPROTO_TCP, libc::TCP_CONGESTION) => {
                let name = String::from_utf8_lossy(value);
                socket.options.config.congestion =
                    congestion(name.trim_end_matches('\0')).ok_or(Errno::ENOENT)?;
            }
            (SOL_SOCKET, _) => set_socket_option(&mut socket.options, name, integer(value)?)?,
            (IPPROTO_TCP, _) => set_tcp_option(socket, name, integer(value)?)?,
            (IPPROTO_IPV6, libc::IPV6_V6ONLY | libc::IPV6_MTU_DISCOVER | libc::IPV6_TCLASS)
            | (IPPROTO_IP, libc::IP_MTU_DISCOVER | libc::IP_TOS) => {
                socket.options.remembered.insert((level, name), short_or_integer(value)?);
            }
            _ => return Err(Errno::ENOPROTOOPT),
        }
        self.apply(fd, level, name)
    }

    /// Lets a connection, or those that a listener will accept, have what was changed.
    fn apply(&mut self, fd: i32, level: i32, name: i32) -> Result<(), Errno> {
        if level == IPPROTO_TCP && matches!(name, libc::TCP_NODELAY | libc::TCP_CORK) {
            let options = &self.files.socket(fd)?.options;
            if !options.cork || (name == libc::TCP_NODELAY && options.config.nodelay) {
                self.release_all(fd)?;
            }
        }
        if let Role::Listening(port) = self.files.socket(fd)?.role {
            let config = self.opening_config(fd)?;
            if let Some(mut listener) = self.tcp.listener(port).cloned() {
                listener.config = config.into();
                self.tcp.listen(port, listener);
            }
        }
        let now = self.now;
        let socket = self.files.socket(fd)?;
        let Some(handle) = socket.handle() else { return Ok(()) };
        let options = socket.options.clone();
        let chosen = matches!(
            (level, name),
            (SOL_SOCKET, libc::SO_RCVBUF | libc::SO_RCVBUFFORCE) | (IPPROTO_TCP, libc::TCP_WINDOW_CLAMP)
        );
        self.tcp.with(handle, |tcb| {
            let ours = &options.config;
            let before = std::sync::Arc::clone(&tcb.config);
            let config = tcb.config_mut();
            config.nodelay = ours.nodelay;
            config.send_buffer = ours.send_buffer;
            if chosen {
                config.receive_buffer = ours.receive_buffer;
            }
            config.unsent_limit = ours.unsent_limit;
            config.fin_wait_2 = ours.fin_wait_2;
            config.syn_retries = ours.syn_retries;
            config.user_timeout = ours.user_timeout;
            config.keep_alive = ours.keep_alive;
            if before.user_timeout != ours.user_timeout {
                let since = tcb.snd.sent.front().map(|sent| sent.at);
                tcb.timers.user = ours.user_timeout.and_then(|timeout| since.map(|since| since + timeout));
            }
            if before.keep_alive != ours.keep_alive {
                tcb.probes = 0;
                let synchronised = tcb.state.is_synchronised();
                let idle = ours.keep_alive.filter(|_| synchronised).map(|keep_alive| keep_alive.idle);
                tcb.timers.keep_alive = idle.map(|idle| tcb.last_heard.max(now) + idle);
            }
            if let Some(largest) = options.largest_segment.filter(|_| tcb.state.is_synchronised()) {
                tcb.snd.mss = tcb.snd.mss.min(largest);
            }
        });
        if (level, name) == (IPPROTO_TCP, libc::TCP_QUICKACK) {
            let quick = options.remembered.get(&(level, name)).is_some_and(|on| *on != 0);
            self.tcp.with(handle, |tcb| {
                tcb.rcv.quick = if quick { 16 } else { 0 };
                tcb.pending.ack |= quick && tcb.timers.delayed_ack.is_some();
            });
        }
        Ok(())
    }

    pub(crate) fn option(&mut self, fd: i32, level: i32, name: i32) -> Result<Vec<u8>, Errno> {
        let socket = self.files.socket_mut(fd)?;
        let octets = match (level, name) {
            (SOL_SOCKET, libc::SO_ERROR) => {
                return Ok(socket.error.take().map_or(0, |error| error.0).to_ne_bytes().to_vec());
            }
            (SOL_SOCKET, libc::SO_LINGER) => {
                let (on, seconds) = (i32::from(socket.options.linger.is_some()), socket.options.linger);
                [on.to_ne_bytes(), seconds.unwrap_or(0).to_ne_bytes()].concat()
            }
            (IPPROTO_TCP, libc::TCP_CONGESTION) => {
                let mut octets = congestion_name(socket.options.config.congestion).as_bytes().to_vec();
                octets.resize(16, 0);
                octets
            }
            (IPPROTO_TCP, libc::TCP_INFO) => return self.info(fd),
            (SOL_SOCKET, _) => socket_option(socket, name)?.to_ne_bytes().to_vec(),
            (IPPROTO_TCP, libc::TCP_MAXSEG) => self.segment_size(fd)?.to_ne_bytes().to_vec(),
            (IPPROTO_TCP, _) => tcp_option(&socket.options, name)?.to_ne_bytes().to_vec(),
            (IPPROTO_IPV6, libc::IPV6_MTU) => self.path_mtu(fd)?.to_ne_bytes().to_vec(),
            (IPPROTO_IPV6, libc::IPV6_V6ONLY | libc::IPV6_MTU_DISCOVER | libc::IPV6_TCLASS)
            | (IPPROTO_IP, libc::IP_MTU_DISCOVER | libc::IP_TOS) => {
                remembered(&socket.options, level, name).unwrap_or(0).to_ne_bytes().to_vec()
            }
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(octets)
    }

    fn info(&self, fd: i32) -> Result<Vec<u8>, Errno> {
        let socket = self.files.socket(fd)?;
        let Some((handle, tcb)) = socket.handle().and_then(|handle| Some((handle, self.tcp.get(handle)?)))
        else {
            return Ok(match socket.role {
                Role::Listening(_) => bare_info(LISTENING),
                _ if socket.last_info.is_empty() => bare_info(CLOSED),
                _ => socket.last_info.clone(),
            });
        };
        Ok(tcp_info(tcb, self.traffic.get(&handle), self.now))
    }

    /// What Linux tells as `TCP_MAXSEG`: what was asked for, else what fits in a segment now.
    fn segment_size(&self, fd: i32) -> Result<i32, Errno> {
        let socket = self.files.socket(fd)?;
        let chosen = socket.options.largest_segment;
        let tcb = socket.handle().and_then(|handle| self.tcp.get(handle));
        let size = match tcb.filter(|tcb| tcb.state.is_synchronised()) {
            Some(tcb) => tcb.mss(),
            // TCP_MSS_DEFAULT
            None => chosen.map_or(536, u32::from),
        };
        Ok(size.cast_signed())
    }

    fn path_mtu(&self, fd: i32) -> Result<i32, Errno> {
        let handle = self.files.socket(fd)?.handle().ok_or(Errno::ENOTCONN)?;
        self.tcp.get(handle).map(|tcb| i32::from(tcb.snd.path_mtu)).ok_or(Errno::ENOTCONN)
    }

    pub(crate) fn file_control(&mut self, fd: i32, command: i32, argument: i32) -> Result<i32, Errno> {
        let socket = self.files.socket_mut(fd)?;
        match command {
            libc::F_GETFL => Ok(libc::O_RDWR | if socket.nonblocking { libc::O_NONBLOCK } else { 0 }),
            libc::F_SETFL => {
                socket.nonblocking = argument & libc::O_NONBLOCK != 0;
                Ok(0)
            }
            libc::F_GETFD | libc::F_SETFD => Ok(0),
            _ => Err(Errno::EINVAL),
        }
    }

    /// An `ioctl` that asks for a number.
    pub(crate) fn ask(&self, fd: i32, request: u64) -> Result<i32, Errno> {
        let count = match request {
            libc::FIONREAD => self.readable(fd)?,
            libc::TIOCOUTQ => self.unacknowledged(fd, false)?,
            SIOCOUTQNSD => self.unacknowledged(fd, true)?,
            _ => {
                self.files.socket(fd)?;
                return Err(Errno::ENOTTY);
            }
        };
        Ok(i32::try_from(count).unwrap_or(i32::MAX))
    }
}

fn integer(value: &[u8]) -> Result<i32, Errno> {
    value.first_chunk().map(|octets| i32::from_ne_bytes(*octets)).ok_or(Errno::EINVAL)
}

/// Options of IP may be given as a single octet.
fn short_or_integer(value: &[u8]) -> Result<i32, Errno> {
    match value {
        [octet] => Ok(i32::from(*octet)),
        _ => integer(value),
    }
}

fn remembered(options: &Options, level: i32, name: i32) -> Option<i32> {
    options.remembered.get(&(level, name)).copied()
}

fn set_linger(options: &mut Options, value: &[u8]) -> Result<(), Errno> {
    let (on, rest) = value.split_first_chunk().ok_or(Errno::EINVAL)?;
    let on = i32::from_ne_bytes(*on) != 0;
    options.linger = on.then_some(integer(rest)?);
    Ok(())
}

fn set_socket_option(options: &mut Options, name: i32, value: i32) -> Result<(), Errno> {
    let buffer = || value.max(LEAST_BUFFER).cast_unsigned();
    match name {
        // Linux takes twice as much, for its overhead; we have none, so that twice as much can be written.
        libc::SO_SNDBUF | libc::SO_SNDBUFFORCE => options.config.send_buffer = buffer().saturating_mul(2),
        libc::SO_RCVBUF | libc::SO_RCVBUFFORCE => {
            options.config.receive_buffer = buffer();
            options.receive_buffer_chosen = true;
        }
        libc::SO_KEEPALIVE => {
            options.keep_alive = value != 0;
            renew_keep_alive(options);
        }
        libc::SO_REUSEADDR | libc::SO_REUSEPORT | libc::SO_PRIORITY | libc::SO_MARK => {
            options.remembered.insert((SOL_SOCKET, name), value);
        }
        _ => return Err(Errno::ENOPROTOOPT),
    }
    Ok(())
}

fn renew_keep_alive(options: &mut Options) {
    let (idle, interval, count) = options.keep_alive_spans;
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    options.config.keep_alive =
        options.keep_alive.then(|| KeepAlive { idle: seconds(idle), interval: seconds(interval), count });
}

fn set_tcp_option(socket: &mut Socket, name: i32, value: i32) -> Result<(), Errno> {
    let options = &mut socket.options;
    let seconds =
        || u32::try_from(value).ok().filter(|span| (1..=32_767).contains(span)).ok_or(Errno::EINVAL);
    let small = || u8::try_from(value).ok().filter(|count| (1..=127).contains(count)).ok_or(Errno::EINVAL);
    match name {
        libc::TCP_NODELAY => options.config.nodelay = value != 0,
        libc::TCP_CORK => options.cork = value != 0,
        libc::TCP_MAXSEG if value == 0 => options.largest_segment = None,
        libc::TCP_MAXSEG if SEGMENTS.contains(&value) => options.largest_segment = u16::try_from(value).ok(),
        libc::TCP_MAXSEG => return Err(Errno::EINVAL),
        libc::TCP_KEEPIDLE => options.keep_alive_spans.0 = seconds()?,
        libc::TCP_KEEPINTVL => options.keep_alive_spans.1 = seconds()?,
        libc::TCP_KEEPCNT => options.keep_alive_spans.2 = small()?,
        libc::TCP_SYNCNT => options.config.syn_retries = small()?,
        libc::TCP_LINGER2 => options.config.fin_wait_2 = Duration::from_secs(seconds()?.into()),
        libc::TCP_WINDOW_CLAMP => {
            options.config.receive_buffer = value.max(LEAST_BUFFER / 2).cast_unsigned();
        }
        libc::TCP_NOTSENT_LOWAT => options.config.unsent_limit = value.cast_unsigned(),
        libc::TCP_USER_TIMEOUT => {
            let millis = u64::try_from(value).map_err(|_| Errno::EINVAL)?;
            options.config.user_timeout = (millis > 0).then(|| Duration::from_millis(millis));
        }
        TCP_INQ if !(0..=1).contains(&value) => return Err(Errno::EINVAL),
        libc::TCP_QUICKACK | TCP_INQ => {
            options.remembered.insert((IPPROTO_TCP, name), value);
        }
        _ => return Err(Errno::ENOPROTOOPT),
    }
    if matches!(name, libc::TCP_KEEPIDLE | libc::TCP_KEEPINTVL | libc::TCP_KEEPCNT) {
        renew_keep_alive(options);
    }
    Ok(())
}

fn socket_option(socket: &Socket, name: i32) -> Result<i32, Errno> {
    let options = &socket.options;
    Ok(match name {
        libc::SO_SNDBUF => options.config.send_buffer.cast_signed(),
        // Linux tells twice what it offers as a window, because it counts its overhead in.
        libc::SO_RCVBUF => options.config.receive_buffer.saturating_mul(2).cast_signed(),
        libc::SO_KEEPALIVE => i32::from(options.keep_alive),
        libc::SO_TYPE => libc::SOCK_STREAM,
        libc::SO_PROTOCOL => IPPROTO_TCP,
        libc::SO_DOMAIN => libc::AF_INET6,
        libc::SO_ACCEPTCONN => i32::from(matches!(socket.role, Role::Listening(_))),
        libc::SO_REUSEADDR | libc::SO_REUSEPORT | libc::SO_PRIORITY | libc::SO_MARK => {
            remembered(options, SOL_SOCKET, name).unwrap_or(0)
        }
        _ => return Err(Errno::ENOPROTOOPT),
    })
}

fn tcp_option(options: &Options, name: i32) -> Result<i32, Errno> {
    Ok(match name {
        libc::TCP_NODELAY => i32::from(options.config.nodelay),
        libc::TCP_CORK => i32::from(options.cork),
        libc::TCP_KEEPIDLE => options.keep_alive_spans.0.cast_signed(),
        libc::TCP_KEEPINTVL => options.keep_alive_spans.1.cast_signed(),
        libc::TCP_KEEPCNT => i32::from(options.keep_alive_spans.2),
        libc::TCP_SYNCNT => i32::from(options.config.syn_retries),
        libc::TCP_LINGER2 => i32::try_from(options.config.fin_wait_2.as_secs()).unwrap_or(i32::MAX),
        libc::TCP_WINDOW_CLAMP => options.config.receive_buffer.cast_signed(),
        libc::TCP_NOTSENT_LOWAT => options.config.unsent_limit.cast_signed(),
        libc::TCP_USER_TIMEOUT => {
            let millis = options.config.user_timeout.unwrap_or_default().as_millis();
            i32::try_from(millis).unwrap_or(i32::MAX)
        }
        TCP_INQ => remembered(options, IPPROTO_TCP, name).unwrap_or(0),
        libc::TCP_QUICKACK => remembered(options, IPPROTO_TCP, name).unwrap_or(1),
        _ => return Err(Errno::ENOPROTOOPT),
    })
}

impl World {
    /// Whether calls on a file may wait.
    pub(crate) fn blocks(&self, fd: i32) -> bool {
        self.files.socket(fd).is_ok_and(|socket| !socket.nonblocking)
    }

    /// The other side of a socket.
    pub(crate) fn remote(&self, fd: i32) -> Option<std::net::SocketAddrV6> {
        self.files.socket(fd).ok().and_then(|socket| socket.remote)
    }

    /// Sets or clears `O_NONBLOCK` (`FIONBIO`).
    pub(crate) fn set_nonblocking(&mut self, fd: i32, on: bool) -> Result<(), Errno> {
        self.files.socket_mut(fd)?.nonblocking = on;
        Ok(())
    }
}
