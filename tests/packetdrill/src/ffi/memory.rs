//! What the caller's pointers point to.

#![allow(unsafe_code, reason = "the C interface hands over pointers")]

use std::ffi::c_void;
use std::net::SocketAddrV6;
use std::slice;

use libc::{cmsghdr, iovec, sockaddr, sockaddr_in6, socklen_t, ssize_t};

use crate::errno::Errno;

/// Octets of `struct sockaddr_in6`.
const ADDRESS_LEN: usize = size_of::<sockaddr_in6>();
/// The greatest number of buffers in one call (`UIO_MAXIOV`).
const MAX_VECTORS: usize = 1024;

/// How many octets were read or written, as C is told.
pub(super) fn count(octets: usize) -> Result<ssize_t, Errno> {
    ssize_t::try_from(octets).map_err(|_| Errno::EINVAL)
}

/// The caller's octets.
///
/// # Safety
/// `octets` is null, or points to `count` octets that stay readable and unchanged for `'a`.
pub(super) unsafe fn readable<'a>(octets: *const c_void, count: usize) -> Result<&'a [u8], Errno> {
    if count == 0 {
        return Ok(&[]);
    }
    if octets.is_null() {
        return Err(Errno::EFAULT);
    }
    // SAFETY: not null, and the rest is what the caller of this function promises.
    Ok(unsafe { slice::from_raw_parts(octets.cast(), count) })
}

/// Writes to where the caller said; nothing if there are no octets.
///
/// # Safety
/// `to` is null, or points to at least `octets.len()` writable octets.
pub(super) unsafe fn fill(to: *mut c_void, octets: &[u8]) -> Result<(), Errno> {
    if octets.is_empty() {
        return Ok(());
    }
    if to.is_null() {
        return Err(Errno::EFAULT);
    }
    // SAFETY: not null, long enough by the caller's promise, and ours cannot overlap with theirs.
    unsafe { to.cast::<u8>().copy_from_nonoverlapping(octets.as_ptr(), octets.len()) };
    Ok(())
}

/// Writes a value of a plain C type to where the caller said.
///
/// # Safety
/// `to` is null or writable, aligned or not.
pub(super) unsafe fn put<T>(to: *mut T, value: T) -> Result<(), Errno> {
    if to.is_null() {
        return Err(Errno::EFAULT);
    }
    // SAFETY: not null, writable by the caller's promise.
    unsafe { to.write_unaligned(value) };
    Ok(())
}

/// Reads a value of a plain C type from where the caller said.
///
/// # Safety
/// `from` is null or readable, aligned or not, and holds a valid value.
pub(super) unsafe fn get<T: Copy>(from: *const T) -> Result<T, Errno> {
    if from.is_null() {
        return Err(Errno::EFAULT);
    }
    // SAFETY: not null, readable by the caller's promise.
    Ok(unsafe { from.read_unaligned() })
}

/// The caller's buffers.
///
/// # Safety
/// `vectors` is null or points to `count` valid `struct iovec`.
pub(super) unsafe fn vectors(vectors: *const iovec, count: usize) -> Result<Vec<iovec>, Errno> {
    if count > MAX_VECTORS {
        return Err(Errno::EINVAL);
    }
    // SAFETY: each lies within the array that the caller promises; null is refused.
    (0..count).map(|index| unsafe { get(vectors.wrapping_add(index)) }).collect()
}

/// The octets of all buffers, one after the other.
///
/// # Safety
/// Each buffer is readable as far as it says.
pub(super) unsafe fn gather(vectors: &[iovec]) -> Result<Vec<u8>, Errno> {
    let mut octets = Vec::new();
    for vector in vectors {
        // SAFETY: as the caller of this function promises.
        octets.extend_from_slice(unsafe { readable(vector.iov_base, vector.iov_len) }?);
    }
    Ok(octets)
}

/// Spreads octets over the buffers in their order.
///
/// # Safety
/// Each buffer is writable as far as it says.
pub(super) unsafe fn scatter(vectors: &[iovec], mut octets: &[u8]) -> Result<(), Errno> {
    for vector in vectors {
        let (here, rest) = octets.split_at(vector.iov_len.min(octets.len()));
        // SAFETY: as the caller of this function promises.
        unsafe { fill(vector.iov_base, here) }?;
        octets = rest;
    }
    Ok(())
}

/// Writes a control message of TCP that says a number, if there is room; how much of the room is used.
///
/// # Safety
/// `to` is null or points to `room` writable octets.
pub(super) unsafe fn put_control(
    to: *mut c_void,
    room: usize,
    kind: i32,
    number: i32,
) -> Result<usize, Errno> {
    let (header, len) = (size_of::<cmsghdr>(), size_of::<cmsghdr>() + size_of::<i32>());
    let used = len.next_multiple_of(align_of::<cmsghdr>());
    if room < used {
        return Ok(0);
    }
    let mut octets = vec![0; used];
    octets[..size_of::<usize>()].copy_from_slice(&len.to_ne_bytes());
    let (level, kind) = (libc::IPPROTO_TCP.to_ne_bytes(), kind.to_ne_bytes());
    octets[header - 8..header].copy_from_slice(&[level, kind].concat());
    octets[header..len].copy_from_slice(&number.to_ne_bytes());
    // SAFETY: there is room, as was just checked.
    unsafe { fill(to, &octets) }?;
    Ok(used)
}

/// The IPv6 address and port in a `struct sockaddr`.
///
/// # Safety
/// `address` is null or points to `len` readable octets.
pub(super) unsafe fn address(address: *const sockaddr, len: socklen_t) -> Result<SocketAddrV6, Errno> {
    let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
    // SAFETY: as the caller of this function promises.
    let octets = unsafe { readable(address.cast(), len) }?;
    let family = octets.first_chunk().map(|family| u16::from_ne_bytes(*family)).ok_or(Errno::EINVAL)?;
    if i32::from(family) != libc::AF_INET6 {
        return Err(Errno::EAFNOSUPPORT);
    }
    let octets = octets.get(..ADDRESS_LEN).ok_or(Errno::EINVAL)?;
    let port = u16::from_be_bytes([octets[2], octets[3]]);
    let ip: [u8; 16] = octets[8..24].try_into().map_err(|_| Errno::EINVAL)?;
    Ok(SocketAddrV6::new(ip.into(), port, 0, 0))
}

/// Writes an address to where the caller said, if it wants it, as far as there is room.
///
/// # Safety
/// `len` is null or writable; `to` is null or points to `*len` writable octets.
pub(super) unsafe fn put_address(
    to: *mut sockaddr,
    len: *mut socklen_t,
    address: SocketAddrV6,
) -> Result<(), Errno> {
    if to.is_null() {
        return Ok(());
    }
    // SAFETY: as the caller of this function promises.
    let room = unsafe { get(len) }?;
    let mut octets = [0_u8; ADDRESS_LEN];
    octets[..2].copy_from_slice(&u16::try_from(libc::AF_INET6).unwrap_or(0).to_ne_bytes());
    octets[2..4].copy_from_slice(&address.port().to_be_bytes());
    octets[8..24].copy_from_slice(&address.ip().octets());
    let room = usize::try_from(room).unwrap_or(0).min(ADDRESS_LEN);
    // SAFETY: no more than the caller says there is room for.
    unsafe { fill(to.cast(), &octets[..room]) }?;
    // SAFETY: as the caller of this function promises.
    unsafe { put(len, socklen_t::try_from(ADDRESS_LEN).unwrap_or(0)) }
}
