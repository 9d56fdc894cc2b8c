//! Moving a connection of the kernel's by its repair mode, as CRIU does: what ours is compared with.

use std::io;
use std::net::{SocketAddrV6, TcpStream};
use std::os::fd::{AsFd, AsRawFd};

use libc::c_int;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, connect, recv, send, socket_with,
};

use super::options::{Plain, check, get, set};

// Of <linux/tcp.h>; not every version of the C library's bindings has them.
const TCP_MAXSEG: c_int = 2;
const TCP_INFO: c_int = 11;
const TCP_REPAIR: c_int = 19;
const TCP_REPAIR_QUEUE: c_int = 20;
const TCP_QUEUE_SEQ: c_int = 21;
const TCP_REPAIR_OPTIONS: c_int = 22;
const TCP_TIMESTAMP: c_int = 24;
const TCP_REPAIR_WINDOW: c_int = 29;
/// Of <linux/sockios.h>: octets that were never sent.
const SIOCOUTQNSD: libc::Ioctl = 0x894b;
/// More than any queue that moves.
const ROOM: c_int = 8 << 20;
const RECV_QUEUE: c_int = 1;
const SEND_QUEUE: c_int = 2;
const OPTION_MSS: u32 = 2;
const OPTION_WINDOW_SCALE: u32 = 3;
const OPTION_SACK: u32 = 4;
const OPTION_TIMESTAMPS: u32 = 8;
/// Leaves repair mode without a window probe.
const OFF_SILENTLY: c_int = -1;

/// The beginning of `struct tcp_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Info {
    state_to_backoff: [u8; 5],
    options: u8,
    /// Sending in the low half, receiving in the high one.
    window_scales: u8,
    rest: u8,
}

/// `struct tcp_repair_window`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Window([u32; 5]);

/// `struct tcp_repair_opt`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Opt {
    code: u32,
    value: u32,
}

// SAFETY: octets only.
unsafe impl Plain for Info {}
// SAFETY: integers only.
unsafe impl Plain for Window {}

/// An established connection, taken out of the kernel with what is in its queues.
#[derive(Debug)]
pub struct Frozen {
    local: SocketAddrV6,
    remote: SocketAddrV6,
    info: Info,
    mss: u32,
    window: Window,
    /// What comes first in each queue has these numbers.
    send_seq: u32,
    receive_seq: u32,
    /// Sent and not acknowledged.
    sent: Vec<u8>,
    /// Not sent.
    unsent: Vec<u8>,
    /// Received in order and not read.
    unread: Vec<u8>,
    timestamp: u32,
}

/// Takes a connection out of the kernel; the other side sees nothing of it.
pub fn freeze(stream: TcpStream) -> io::Result<Frozen> {
    tcp_set(&stream, TCP_REPAIR, &1_i32)?;
    let (std::net::SocketAddr::V6(local), std::net::SocketAddr::V6(remote)) =
        (stream.local_addr()?, stream.peer_addr()?)
    else {
        return Err(io::ErrorKind::Unsupported.into());
    };
    let (end_of_send, mut sent) = queue(&stream, SEND_QUEUE, libc::TIOCOUTQ)?;
    let (end_of_receive, unread) = queue(&stream, RECV_QUEUE, libc::FIONREAD)?;
    let unsent = sent.split_off(sent.len() - waiting(&stream, SIOCOUTQNSD)?.min(sent.len()));
    let frozen = Frozen {
        local,
        remote,
        info: get(&stream, libc::IPPROTO_TCP, TCP_INFO)?,
        mss: get(&stream, libc::IPPROTO_TCP, TCP_MAXSEG)?,
        window: get(&stream, libc::IPPROTO_TCP, TCP_REPAIR_WINDOW)?,
        send_seq: end_of_send.wrapping_sub(length(&sent) + length(&unsent)),
        receive_seq: end_of_receive.wrapping_sub(length(&unread)),
        sent,
        unsent,
        unread,
        timestamp: get(&stream, libc::IPPROTO_TCP, TCP_TIMESTAMP)?,
    };
    // In repair mode this sends nothing.
    drop(stream);
    Ok(frozen)
}

/// Puts a connection into the kernel.
pub fn thaw(frozen: &Frozen) -> io::Result<TcpStream> {
    let socket = socket_with(AddressFamily::INET6, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    set_socket_reuseaddr(&socket, true)?;
    tcp_set(&socket, TCP_REPAIR, &1_i32)?;
    for (queue, seq) in [(SEND_QUEUE, frozen.send_seq), (RECV_QUEUE, frozen.receive_seq)] {
        tcp_set(&socket, TCP_REPAIR_QUEUE, &queue)?;
        tcp_set(&socket, TCP_QUEUE_SEQ, &seq)?;
    }
    bind(&socket, &frozen.local)?;
    connect(&socket, &frozen.remote)?;
    let Info { options, window_scales, .. } = frozen.info;
    let scales = u32::from(window_scales & 15) | u32::from(window_scales >> 4) << 16;
    let mut list = vec![Opt { code: OPTION_MSS, value: frozen.mss }];
    // Bits of `tcpi_options`: timestamps, SACK, window scale.
    let offered = [(1, OPTION_TIMESTAMPS, 0), (2, OPTION_SACK, 0), (4, OPTION_WINDOW_SCALE, scales)];
    list.extend(
        offered.iter().filter(|(bit, ..)| options & bit != 0).map(|&(_, code, value)| Opt { code, value }),
    );
    tcp_set(&socket, TCP_REPAIR_OPTIONS, list.as_slice())?;
    tcp_set(&socket, TCP_TIMESTAMP, &frozen.timestamp)?;
    let buffers = [
        (RECV_QUEUE, libc::SO_RCVBUFFORCE, &frozen.unread),
        (SEND_QUEUE, libc::SO_SNDBUFFORCE, &frozen.sent),
    ];
    for (queue, buffer, octets) in buffers {
        if !octets.is_empty() {
            // Else the kernel waits for room that only acknowledgements could make.
            set(&socket, libc::SOL_SOCKET, buffer, &ROOM)?;
            tcp_set(&socket, TCP_REPAIR_QUEUE, &queue)?;
            fill(&socket, octets)?;
        }
    }
    // Behind the queues: the kernel refuses a window that is ahead of what was received.
    tcp_set(&socket, TCP_REPAIR_WINDOW, &frozen.window)?;
    tcp_set(&socket, TCP_REPAIR, &OFF_SILENTLY)?;
    // As CRIU does: what was never sent is written as an application would.
    fill(&socket, &frozen.unsent)?;
    Ok(socket.into())
}

fn length(octets: &[u8]) -> u32 {
    u32::try_from(octets.len()).unwrap_or(u32::MAX)
}

/// The number after the last octet of a queue, and what is in it.
fn queue(stream: &TcpStream, queue: c_int, count: libc::Ioctl) -> io::Result<(u32, Vec<u8>)> {
    tcp_set(stream, TCP_REPAIR_QUEUE, &queue)?;
    let end = get::<u32>(stream, libc::IPPROTO_TCP, TCP_QUEUE_SEQ)?;
    let mut octets = vec![0; waiting(stream, count)?];
    if !octets.is_empty() {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        let (_, peeked) = recv(stream, octets.as_mut_slice(), flags)?;
        octets.truncate(peeked);
    }
    Ok((end, octets))
}

/// Octets that wait in a queue of a socket.
fn waiting(stream: &TcpStream, request: libc::Ioctl) -> io::Result<usize> {
    let mut count: c_int = 0;
    // SAFETY: these requests write one integer, which the pointer leads to and which outlives the call.
    check(unsafe { libc::ioctl(stream.as_raw_fd(), request, &raw mut count) })?;
    usize::try_from(count).map_err(io::Error::other)
}

fn fill(socket: &impl AsFd, mut octets: &[u8]) -> io::Result<()> {
    while !octets.is_empty() {
        let taken = send(socket, octets, SendFlags::empty())?;
        octets = &octets[taken..];
    }
    Ok(())
}

/// Octets that were sent, or are to be, and are not acknowledged; and those of them that were never sent.
pub fn unacknowledged(stream: &TcpStream) -> io::Result<(usize, usize)> {
    Ok((waiting(stream, libc::TIOCOUTQ)?, waiting(stream, SIOCOUTQNSD)?))
}

fn tcp_set<T: ?Sized>(socket: &impl AsFd, option: c_int, value: &T) -> io::Result<()> {
    set(socket, libc::IPPROTO_TCP, option, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{Ipv6Addr, TcpListener};

    #[test]
    fn a_connection_in_the_kernel_goes_on_after_repair() {
        let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("a listener");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connected");
        let (mut server, _) = listener.accept().expect("accepted");
        // What the server has sent and what it has not read move too: in the order in which they were.
        server.write_all(&[90, 91]).expect("sent");
        client.write_all(&[80, 81]).expect("sent");
        for round in 0..3_u8 {
            server = match freeze(server) {
                Ok(frozen) => thaw(&frozen).expect("thawed"),
                // Not allowed here: repairing takes CAP_NET_ADMIN.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return,
                Err(error) => panic!("freeze: {error}"),
            };
            if round == 0 {
                let mut octets = [[0; 2]; 2];
                client.read_exact(&mut octets[0]).expect("received");
                server.read_exact(&mut octets[1]).expect("moved unread");
                assert_eq!(octets, [[90, 91], [80, 81]]);
            }
            let mut octet = [0];
            client.write_all(&[round]).expect("sent");
            server.read_exact(&mut octet).expect("received");
            server.write_all(&octet).expect("sent back");
            client.read_exact(&mut octet).expect("came back");
            assert_eq!(octet, [round]);
        }
    }
}
