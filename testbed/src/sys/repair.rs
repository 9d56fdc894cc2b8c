//! Moving a connection of the kernel's by its repair mode, as CRIU does: what ours is compared with.

use std::io;
use std::net::{SocketAddrV6, TcpStream};

use libc::c_int;
use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use super::options::{Plain, get, set};

// Of <linux/tcp.h>; not every version of the C library's bindings has them.
const TCP_MAXSEG: c_int = 2;
const TCP_INFO: c_int = 11;
const TCP_REPAIR: c_int = 19;
const TCP_REPAIR_QUEUE: c_int = 20;
const TCP_QUEUE_SEQ: c_int = 21;
const TCP_REPAIR_OPTIONS: c_int = 22;
const TCP_TIMESTAMP: c_int = 24;
const TCP_REPAIR_WINDOW: c_int = 29;
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

/// An established connection with empty queues, taken out of the kernel.
#[derive(Debug)]
pub struct Frozen {
    local: SocketAddrV6,
    remote: SocketAddrV6,
    info: Info,
    mss: u32,
    window: Window,
    send_seq: u32,
    receive_seq: u32,
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
    let seq_of = |queue: c_int| {
        tcp_set(&stream, TCP_REPAIR_QUEUE, &queue)?;
        get::<u32>(&stream, libc::IPPROTO_TCP, TCP_QUEUE_SEQ)
    };
    let frozen = Frozen {
        local,
        remote,
        info: get(&stream, libc::IPPROTO_TCP, TCP_INFO)?,
        mss: get(&stream, libc::IPPROTO_TCP, TCP_MAXSEG)?,
        window: get(&stream, libc::IPPROTO_TCP, TCP_REPAIR_WINDOW)?,
        send_seq: seq_of(SEND_QUEUE)?,
        receive_seq: seq_of(RECV_QUEUE)?,
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
    tcp_set(&socket, TCP_REPAIR_WINDOW, &frozen.window)?;
    tcp_set(&socket, TCP_TIMESTAMP, &frozen.timestamp)?;
    tcp_set(&socket, TCP_REPAIR, &OFF_SILENTLY)?;
    Ok(socket.into())
}

fn tcp_set<T: ?Sized>(socket: &impl std::os::fd::AsFd, option: c_int, value: &T) -> io::Result<()> {
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
        for round in 0..3_u8 {
            server = match freeze(server) {
                Ok(frozen) => thaw(&frozen).expect("thawed"),
                // Not allowed here: repairing takes CAP_NET_ADMIN.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return,
                Err(error) => panic!("freeze: {error}"),
            };
            let mut octet = [0];
            client.write_all(&[round]).expect("sent");
            server.read_exact(&mut octet).expect("received");
            server.write_all(&octet).expect("sent back");
            client.read_exact(&mut octet).expect("came back");
            assert_eq!(octet, [round]);
        }
    }
}
