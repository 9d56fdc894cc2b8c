//! Socket options that are plain data.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_int, c_void, socklen_t};

/// What may be read from and written to an option: any pattern of octets must be a value, and no octet may be
/// padding.
///
/// # Safety
///
/// Both must hold.
pub(super) unsafe trait Plain: Copy {}

// SAFETY: integers are plain.
unsafe impl Plain for c_int {}
// SAFETY: integers are plain.
unsafe impl Plain for u32 {}

pub(super) fn set<T: ?Sized>(socket: &impl AsFd, level: c_int, option: c_int, value: &T) -> io::Result<()> {
    let length = socklen_t::try_from(size_of_val(value)).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length describe `value`, which outlives the call and is only read.
    check(unsafe {
        let value = std::ptr::from_ref(value).cast::<c_void>();
        libc::setsockopt(socket.as_fd().as_raw_fd(), level, option, value, length)
    })
}

pub(super) fn get<T: Plain>(socket: &impl AsFd, level: c_int, option: c_int) -> io::Result<T> {
    // SAFETY: `T` is plain, so zeroes are a value.
    let mut value: T = unsafe { std::mem::zeroed() };
    let mut length = socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    // SAFETY: the pointers describe `value` and `length`, which outlive the call; what is written is a value of
    // `T`, because every pattern is.
    check(unsafe {
        let value = (&raw mut value).cast::<c_void>();
        libc::getsockopt(socket.as_fd().as_raw_fd(), level, option, value, &raw mut length)
    })?;
    Ok(value)
}

pub(super) fn check(result: c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
