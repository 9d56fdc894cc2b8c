//! The few calls on `/dev/net/tun` for which neither the standard library nor rustix has a safe function.
#![allow(unsafe_code, reason = "ioctl and an inherited descriptor; each block says why it is sound")]

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{Errno, fcntl_getfd};
use rustix::ioctl::{Getter, IntegerSetter, Opcode, Setter, ioctl};

/// `struct ifreq` of linux/if.h, as the TUN driver uses it.
#[repr(C)]
#[derive(Clone, Copy)]
struct IfReq {
    name: [u8; NAME_LEN],
    flags: u16,
    unused: [u8; 22],
}

const _: () = assert!(size_of::<IfReq>() == 40 && align_of::<IfReq>() <= 8);

const NAME_LEN: usize = 16;

// linux/if_tun.h
const TUNSETIFF: Opcode = 0x4004_54ca;
const TUNGETIFF: Opcode = 0x8004_54d2;
const TUNSETOFFLOAD: Opcode = 0x4004_54d0;
const TUNSETVNETHDRSZ: Opcode = 0x4004_54d8;

pub(super) const IFF_TUN: u16 = 0x0001;
pub(super) const IFF_TAP: u16 = 0x0002;
pub(super) const IFF_MULTI_QUEUE: u16 = 0x0100;
pub(super) const IFF_NO_PI: u16 = 0x1000;
pub(super) const IFF_VNET_HDR: u16 = 0x4000;

pub(super) const TUN_F_CSUM: usize = 0x01;
pub(super) const TUN_F_TSO6: usize = 0x04;
pub(super) const TUN_F_TSO_ECN: usize = 0x08;

/// Makes `tun`, an open `/dev/net/tun`, a queue of the device `name`.
pub(super) fn attach(tun: BorrowedFd<'_>, name: &str, flags: u16) -> Result<(), Errno> {
    let mut request = IfReq { name: [0; NAME_LEN], flags, unused: [0; 22] };
    let octets = name.as_bytes();
    // One octet stays zero: the kernel reads a C string.
    if octets.len() >= NAME_LEN {
        return Err(Errno::NAMETOOLONG);
    }
    request.name[..octets.len()].copy_from_slice(octets);
    // SAFETY: TUNSETIFF reads and writes back one `struct ifreq`; `IfReq` has its size and layout, and the setter
    // owns it for the length of the call.
    unsafe { ioctl(tun, Setter::<TUNSETIFF, IfReq>::new(request)) }
}

/// The name and flags of the device that `tun` is a queue of; `EBADFD` if it is of none.
pub(super) fn attached(tun: BorrowedFd<'_>) -> Result<(String, u16), Errno> {
    // SAFETY: TUNGETIFF writes one `struct ifreq`; `IfReq` has its size and layout, and every bit pattern is one.
    let request: IfReq = unsafe { ioctl(tun, Getter::<TUNGETIFF, IfReq>::new()) }?;
    let name = request.name.split(|&octet| octet == 0).next().unwrap_or_default();
    Ok((String::from_utf8_lossy(name).into_owned(), request.flags))
}

/// Which kinds of unfinished packets this side takes.
pub(super) fn set_offload(tun: BorrowedFd<'_>, kinds: usize) -> Result<(), Errno> {
    // SAFETY: TUNSETOFFLOAD takes its argument by value.
    unsafe { ioctl(tun, IntegerSetter::<TUNSETOFFLOAD>::new_usize(kinds)) }
}

/// How many octets of virtio-net header stand before each frame.
pub(super) fn set_header_len(tun: BorrowedFd<'_>, octets: i32) -> Result<(), Errno> {
    // SAFETY: TUNSETVNETHDRSZ reads one int.
    unsafe { ioctl(tun, Setter::<TUNSETVNETHDRSZ, i32>::new(octets)) }
}

/// Takes over a descriptor that the process was started with. To be called once for a number, before anything else
/// could have been given the same number.
pub(super) fn inherit(number: RawFd) -> Result<OwnedFd, Errno> {
    if number < 0 {
        return Err(Errno::BADF);
    }
    // SAFETY: not minus one, as just checked; borrowed only to ask the kernel whether it is open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl_getfd(borrowed)?;
    // SAFETY: open, as just checked; it came from outside the process, so nobody here owns it.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    rustix::io::fcntl_setfd(owned.as_fd(), rustix::io::FdFlags::CLOEXEC)?;
    Ok(owned)
}
