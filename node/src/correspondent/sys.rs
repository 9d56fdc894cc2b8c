//! Socket options for which neither the standard library nor rustix has a safe function.
#![allow(unsafe_code, reason = "setsockopt; the block says why it is sound")]

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

// asm-generic/socket.h, linux/if_packet.h
const MARK: libc::c_int = 36;
const ATTACH_FILTER: libc::c_int = 26;
const PACKET: libc::c_int = 263;
const VNET_HEADER: libc::c_int = 15;

/// An instruction of a classic BPF program (`struct sock_filter`): operation, jump if true, jump if not, operand.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Instruction(pub(super) u16, pub(super) u8, pub(super) u8, pub(super) u32);

/// `struct sock_fprog`.
#[repr(C)]
struct Program {
    len: u16,
    first: *const Instruction,
}

fn set<T>(socket: impl AsFd, level: libc::c_int, option: libc::c_int, value: &T) -> io::Result<()> {
    let len = libc::socklen_t::try_from(size_of::<T>()).unwrap_or(0);
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel reads `len` octets from `value`, which lives until the call returns; `T` is plain data, and
    // what a `Program` points to is borrowed by its caller for as long.
    let done = unsafe { libc::setsockopt(fd, level, option, std::ptr::from_ref(value).cast(), len) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Only packets that the program takes come to the socket.
pub(super) fn attach_filter(socket: impl AsFd, program: &[Instruction]) -> io::Result<()> {
    let len = u16::try_from(program.len()).unwrap_or(u16::MAX);
    set(socket, libc::SOL_SOCKET, ATTACH_FILTER, &Program { len, first: program.as_ptr() })
}

/// What the socket sends carries this mark, by which routing can tell it.
pub(super) fn set_mark(socket: impl AsFd, mark: u32) -> io::Result<()> {
    set(socket, libc::SOL_SOCKET, MARK, &mark)
}

/// Each packet of a packet socket begins with a virtio-net header.
pub(super) fn set_vnet_header(socket: impl AsFd) -> io::Result<()> {
    set(socket, PACKET, VNET_HEADER, &1_i32)
}
