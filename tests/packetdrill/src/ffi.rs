//! The C interface: what packetdrill loads.
//!
//! All unsafe code of the crate is here. Every function takes the [`Bridge`] that [`packetdrill_interface_init`] made,
//! translates pointers into values, and never lets a panic cross into C. By packetdrill's contract pointers are valid
//! for what the POSIX call of that name does with them; null is refused with `EFAULT` where POSIX would.

#![allow(unsafe_code, reason = "a C interface")]
#![allow(clippy::missing_safety_doc, reason = "the contract is that of the POSIX calls, stated above")]

mod memory;

use std::ffi::{CStr, c_char, c_int, c_longlong, c_uint, c_ulong, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use libc::{
    epoll_event, iovec, loff_t, msghdr, nfds_t, pollfd, size_t, sockaddr, socklen_t, ssize_t, timeval,
    useconds_t,
};

use self::memory::{
    address, count, fill, gather, get, put, put_address, put_control, readable, scatter, vectors,
};
use crate::errno::Errno;
use crate::options::TCP_INQ;
use crate::settings::Settings;
use crate::wait::{Answer, Bridge, Call};
use crate::world::World;

type Data = *mut c_void;

macro_rules! interface {
    ($($(#[$doc:meta])* $name:ident: ($($argument:ty),*) $(-> $result:ty)?;)*) => {
        /// `struct packetdrill_interface`: packetdrill calls these instead of the kernel.
        #[repr(C)]
        #[derive(Debug)]
        #[allow(missing_docs, reason = "each is what POSIX says of the call of that name, or said below")]
        pub struct Interface {
            /// The first argument of all the others.
            pub userdata: Data,
            $($(#[$doc])* pub $name: unsafe extern "C" fn(Data $(, $argument)*) $(-> $result)?,)*
        }

        impl Interface {
            fn new(userdata: Data) -> Self {
                Self { userdata, $($name,)* }
            }
        }
    };
}

interface! {
    /// Ends it all.
    free: ();
    socket: (c_int, c_int, c_int) -> c_int;
    bind: (c_int, *const sockaddr, socklen_t) -> c_int;
    listen: (c_int, c_int) -> c_int;
    accept: (c_int, *mut sockaddr, *mut socklen_t) -> c_int;
    connect: (c_int, *const sockaddr, socklen_t) -> c_int;
    read: (c_int, *mut c_void, size_t) -> ssize_t;
    readv: (c_int, *const iovec, c_int) -> ssize_t;
    recv: (c_int, *mut c_void, size_t, c_int) -> ssize_t;
    recvfrom: (c_int, *mut c_void, size_t, c_int, *mut sockaddr, *mut socklen_t) -> ssize_t;
    recvmsg: (c_int, *mut msghdr, c_int) -> ssize_t;
    write: (c_int, *const c_void, size_t) -> ssize_t;
    writev: (c_int, *const iovec, c_int) -> ssize_t;
    send: (c_int, *const c_void, size_t, c_int) -> ssize_t;
    sendto: (c_int, *const c_void, size_t, c_int, *const sockaddr, socklen_t) -> ssize_t;
    sendmsg: (c_int, *const msghdr, c_int) -> ssize_t;
    /// Variadic in C. A single argument of at most a register is passed alike there on Linux.
    fcntl: (c_int, c_int, c_int) -> c_int;
    /// Variadic in C, as `fcntl`.
    ioctl: (c_int, c_ulong, *mut c_int) -> c_int;
    close: (c_int) -> c_int;
    shutdown: (c_int, c_int) -> c_int;
    getsockopt: (c_int, c_int, c_int, *mut c_void, *mut socklen_t) -> c_int;
    setsockopt: (c_int, c_int, c_int, *const c_void, socklen_t) -> c_int;
    poll: (*mut pollfd, nfds_t, c_int) -> c_int;
    /// An IP packet arrives at the stack.
    netdev_send: (*const c_void, size_t) -> c_int;
    /// The next IP packet that leaves the stack, its length (0: none ever will) and when it left, in microseconds.
    netdev_receive: (*mut c_void, *mut size_t, *mut c_longlong) -> c_int;
    usleep: (useconds_t) -> c_int;
    gettimeofday: (*mut timeval, *mut c_void) -> c_int;
    epoll_create: (c_int) -> c_int;
    epoll_ctl: (c_int, c_int, c_int, *mut epoll_event) -> c_int;
    epoll_wait: (c_int, *mut epoll_event, c_int, c_int) -> c_int;
    pipe: (*mut c_int) -> c_int;
    splice: (c_int, *mut loff_t, c_int, *mut loff_t, size_t, c_uint) -> ssize_t;
}

/// Fills in the interface. What is wrong with `flags` is said on standard error, and then every `socket` call fails:
/// a script must not run with other settings than it asked for.
///
/// # Safety
/// `flags` is null or a C string; `out` points to room for an [`Interface`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn packetdrill_interface_init(flags: *const c_char, out: *mut Interface) {
    if out.is_null() {
        eprintln!("ferry: packetdrill_interface_init was given no interface to fill in");
        return;
    }
    let text = if flags.is_null() {
        String::new()
    } else {
        // SAFETY: not null, so a C string by the caller's promise.
        unsafe { CStr::from_ptr(flags) }.to_string_lossy().into_owned()
    };
    let world = match text.parse::<Settings>() {
        Ok(settings) => World::new(settings),
        Err(why) => {
            eprintln!("ferry: --so_flags: {why}");
            World::refused()
        }
    };
    let bridge = Arc::into_raw(Arc::new(Bridge::new(world)));
    // SAFETY: not null, and there is room by the caller's promise.
    unsafe { out.write(Interface::new(bridge.cast_mut().cast())) };
}

/// Runs a call; a failure or a panic becomes −1 and `errno`.
fn call<R: From<i8>>(data: Data, act: impl FnOnce(&Bridge) -> Result<R, Errno>) -> R {
    let result = catch_unwind(AssertUnwindSafe(|| {
        let bridge: *const Bridge = data.cast();
        if bridge.is_null() {
            return Err(Errno::EFAULT);
        }
        // SAFETY: it came from `Arc::into_raw`, and packetdrill uses it no more once it has freed it. Holding a count
        // of our own keeps it alive if it is freed while another thread still waits in here.
        let bridge = unsafe {
            Arc::increment_strong_count(bridge);
            Arc::from_raw(bridge)
        };
        act(&bridge)
    }));
    match result {
        Ok(Ok(value)) => value,
        Ok(Err(Errno(errno))) => failed(errno),
        Err(_) => failed(libc::EIO),
    }
}

fn failed<R: From<i8>>(errno: i32) -> R {
    // SAFETY: errno of this thread is always writable.
    unsafe { *libc::__errno_location() = errno };
    R::from(-1)
}

unsafe extern "C" fn free(data: Data) {
    let _: c_int = call(data, |bridge| {
        bridge.shut();
        Ok(0)
    });
    if !data.is_null() {
        // SAFETY: the count that `packetdrill_interface_init` left to whoever holds `data`, who gives it back.
        drop(unsafe { Arc::from_raw(data.cast_const().cast::<Bridge>()) });
    }
}

unsafe extern "C" fn socket(data: Data, domain: c_int, kind: c_int, protocol: c_int) -> c_int {
    call(data, |bridge| bridge.with(|world| world.socket(domain, kind, protocol)))
}

unsafe extern "C" fn bind(data: Data, fd: c_int, to: *const sockaddr, len: socklen_t) -> c_int {
    call(data, |bridge| {
        // SAFETY: as POSIX's `bind`.
        let to = unsafe { address(to, len) }?;
        bridge.with(|world| world.bind(fd, to)).map(|()| 0)
    })
}

unsafe extern "C" fn listen(data: Data, fd: c_int, backlog: c_int) -> c_int {
    call(data, |bridge| bridge.with(|world| world.listen(fd, backlog)).map(|()| 0))
}

unsafe extern "C" fn accept(data: Data, fd: c_int, from: *mut sockaddr, len: *mut socklen_t) -> c_int {
    call(data, |bridge| {
        let Answer::Fd(accepted) = bridge.call_on(fd, Call::Accept(fd), 0)? else {
            return Err(Errno::EINVAL);
        };
        if let Some(remote) = bridge.with(|world| world.remote(accepted)) {
            // SAFETY: as POSIX's `accept`.
            unsafe { put_address(from, len, remote) }?;
        }
        Ok(accepted)
    })
}

unsafe extern "C" fn connect(data: Data, fd: c_int, to: *const sockaddr, len: socklen_t) -> c_int {
    call(data, |bridge| {
        // SAFETY: as POSIX's `connect`.
        let to = unsafe { address(to, len) }?;
        bridge.connect(fd, to).map(|()| 0)
    })
}

unsafe extern "C" fn read(data: Data, fd: c_int, to: *mut c_void, count: size_t) -> ssize_t {
    // SAFETY: as POSIX's `read`, which is `recv` without flags.
    unsafe { recv(data, fd, to, count, 0) }
}

unsafe extern "C" fn readv(data: Data, fd: c_int, to: *const iovec, count: c_int) -> ssize_t {
    call(data, |bridge| {
        let count = usize::try_from(count).map_err(|_| Errno::EINVAL)?;
        // SAFETY: as POSIX's `readv`.
        unsafe { receive_into(bridge, fd, &vectors(to, count)?, 0) }
    })
}

unsafe extern "C" fn recv(data: Data, fd: c_int, to: *mut c_void, count: size_t, flags: c_int) -> ssize_t {
    // SAFETY: as POSIX's `recv`.
    call(data, |bridge| unsafe { receive_into(bridge, fd, &[iovec { iov_base: to, iov_len: count }], flags) })
}

unsafe extern "C" fn recvfrom(
    data: Data,
    fd: c_int,
    to: *mut c_void,
    count: size_t,
    flags: c_int,
    from: *mut sockaddr,
    len: *mut socklen_t,
) -> ssize_t {
    call(data, |bridge| {
        // SAFETY: as POSIX's `recvfrom`.
        let received = unsafe { receive_into(bridge, fd, &[iovec { iov_base: to, iov_len: count }], flags) }?;
        if !from.is_null() && !len.is_null() {
            // A stream has no senders. SAFETY: not null, writable as POSIX says.
            unsafe { put(len, 0) }?;
        }
        Ok(received)
    })
}

unsafe extern "C" fn recvmsg(data: Data, fd: c_int, message: *mut msghdr, flags: c_int) -> ssize_t {
    call(data, |bridge| {
        // SAFETY: as POSIX's `recvmsg`.
        let mut header = unsafe { get(message) }?;
        // SAFETY: likewise.
        let received =
            unsafe { receive_into(bridge, fd, &vectors(header.msg_iov, header.msg_iovlen)?, flags) }?;
        let room = header.msg_controllen;
        (header.msg_namelen, header.msg_controllen, header.msg_flags) = (0, 0, 0);
        if let Some(left) = bridge.with(|world| world.left_to_read(fd)) {
            // SAFETY: likewise.
            header.msg_controllen = unsafe { put_control(header.msg_control, room, TCP_INQ, left) }?;
        }
        // SAFETY: likewise.
        unsafe { put(message, header) }?;
        Ok(received)
    })
}

/// # Safety
/// The buffers are writable as far as they say.
unsafe fn receive_into(bridge: &Bridge, fd: c_int, to: &[iovec], flags: c_int) -> Result<ssize_t, Errno> {
    let room = to.iter().map(|vector| vector.iov_len).sum();
    let nowhere = to.iter().any(|vector| vector.iov_len > 0 && vector.iov_base.is_null());
    if nowhere && bridge.with(|world| world.readable(fd))? > 0 {
        // What cannot be taken stays to be read.
        return Err(Errno::EFAULT);
    }
    let octets = bridge.receive(fd, room, flags)?;
    if flags & libc::MSG_TRUNC == 0 {
        // SAFETY: as the caller of this function promises.
        unsafe { scatter(to, &octets) }?;
    }
    count(octets.len())
}

unsafe extern "C" fn write(data: Data, fd: c_int, octets: *const c_void, count: size_t) -> ssize_t {
    // SAFETY: as POSIX's `write`, which is `send` without flags.
    unsafe { send(data, fd, octets, count, 0) }
}

unsafe extern "C" fn writev(data: Data, fd: c_int, from: *const iovec, number: c_int) -> ssize_t {
    call(data, |bridge| {
        let number = usize::try_from(number).map_err(|_| Errno::EINVAL)?;
        // SAFETY: as POSIX's `writev`.
        let octets = unsafe { gather(&vectors(from, number)?) }?;
        count(bridge.send(fd, octets.into(), 0)?)
    })
}

unsafe extern "C" fn send(
    data: Data,
    fd: c_int,
    octets: *const c_void,
    len: size_t,
    flags: c_int,
) -> ssize_t {
    call(data, |bridge| {
        // SAFETY: as POSIX's `send`.
        let octets = unsafe { readable(octets, len) }?;
        count(bridge.send(fd, octets.to_vec().into(), flags)?)
    })
}

unsafe extern "C" fn sendto(
    data: Data,
    fd: c_int,
    octets: *const c_void,
    len: size_t,
    flags: c_int,
    _to: *const sockaddr,
    _to_len: socklen_t,
) -> ssize_t {
    // A connected stream ignores the address. SAFETY: as POSIX's `sendto`.
    unsafe { send(data, fd, octets, len, flags) }
}

unsafe extern "C" fn sendmsg(data: Data, fd: c_int, message: *const msghdr, flags: c_int) -> ssize_t {
    call(data, |bridge| {
        // SAFETY: as POSIX's `sendmsg`.
        let header = unsafe { get(message) }?;
        if header.msg_controllen > 0 {
            return Err(Errno::EOPNOTSUPP);
        }
        // SAFETY: likewise.
        let octets = unsafe { gather(&vectors(header.msg_iov, header.msg_iovlen)?) }?;
        count(bridge.send(fd, octets.into(), flags)?)
    })
}

unsafe extern "C" fn fcntl(data: Data, fd: c_int, command: c_int, argument: c_int) -> c_int {
    call(data, |bridge| bridge.with(|world| world.file_control(fd, command, argument)))
}

unsafe extern "C" fn ioctl(data: Data, fd: c_int, request: c_ulong, argument: *mut c_int) -> c_int {
    call(data, |bridge| {
        if request == libc::FIONBIO {
            // SAFETY: this request takes a pointer to a number.
            let on = unsafe { get(argument) }? != 0;
            return bridge.with(|world| world.set_nonblocking(fd, on)).map(|()| 0);
        }
        let number = bridge.with(|world| world.ask(fd, request))?;
        // SAFETY: a request that is known gives its answer to where its argument points.
        unsafe { put(argument, number) }.map(|()| 0)
    })
}

unsafe extern "C" fn close(data: Data, fd: c_int) -> c_int {
    call(data, |bridge| bridge.with(|world| world.close(fd)).map(|()| 0))
}

unsafe extern "C" fn shutdown(data: Data, fd: c_int, how: c_int) -> c_int {
    call(data, |bridge| bridge.with(|world| world.shutdown(fd, how)).map(|()| 0))
}

unsafe extern "C" fn getsockopt(
    data: Data,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *mut c_void,
    len: *mut socklen_t,
) -> c_int {
    call(data, |bridge| {
        // SAFETY: as POSIX's `getsockopt`.
        let room = usize::try_from(unsafe { get(len) }?).map_err(|_| Errno::EINVAL)?;
        let octets = bridge.with(|world| world.option(fd, level, name))?;
        let octets = octets.get(..room).unwrap_or(&octets);
        // SAFETY: no more than there is room for.
        unsafe { fill(value, octets) }?;
        // SAFETY: as POSIX's `getsockopt`.
        unsafe { put(len, socklen_t::try_from(octets.len()).unwrap_or(0)) }.map(|()| 0)
    })
}

unsafe extern "C" fn setsockopt(
    data: Data,
    fd: c_int,
    level: c_int,
    name: c_int,
    value: *const c_void,
    len: socklen_t,
) -> c_int {
    call(data, |bridge| {
        let len = usize::try_from(len).map_err(|_| Errno::EINVAL)?;
        // SAFETY: as POSIX's `setsockopt`.
        let value = unsafe { readable(value, len) }?;
        bridge.with(|world| world.set_option(fd, level, name, value)).map(|()| 0)
    })
}

unsafe extern "C" fn poll(data: Data, files: *mut pollfd, number: nfds_t, timeout: c_int) -> c_int {
    call(data, |bridge| {
        let number = usize::try_from(number).ok().filter(|number| *number <= 1024).ok_or(Errno::EINVAL)?;
        let asked = (0..number)
            // SAFETY: as POSIX's `poll`: an array of that many.
            .map(|index| unsafe { get(files.wrapping_add(index)) }.map(|file| (file.fd, file.events)))
            .collect::<Result<Vec<_>, _>>()?;
        let ready = bridge.poll(asked.clone(), timeout)?;
        for (index, (&(fd, events), &revents)) in asked.iter().zip(&ready).enumerate() {
            // SAFETY: likewise.
            unsafe { put(files.wrapping_add(index), pollfd { fd, events, revents }) }?;
        }
        c_int::try_from(ready.iter().filter(|bits| **bits != 0).count()).map_err(|_| Errno::EINVAL)
    })
}

unsafe extern "C" fn netdev_send(data: Data, packet: *const c_void, len: size_t) -> c_int {
    call(data, |bridge| {
        // SAFETY: packetdrill gives a packet of that length.
        bridge.arrive(unsafe { readable(packet, len) }?);
        Ok(0)
    })
}

unsafe extern "C" fn netdev_receive(
    data: Data,
    to: *mut c_void,
    len: *mut size_t,
    at: *mut c_longlong,
) -> c_int {
    call(data, |bridge| {
        // SAFETY: packetdrill says there how large its buffer is.
        let room = unsafe { get(len) }?;
        let (left_at, packet) = bridge.next_packet().unwrap_or_else(|| (bridge.time_of_day(), Vec::new()));
        let packet = packet.get(..room).unwrap_or(&packet);
        let micros = c_longlong::try_from(left_at.as_micros()).unwrap_or(c_longlong::MAX);
        // SAFETY: no more than there is room for; the others point to one value each.
        unsafe {
            fill(to, packet)?;
            put(len, packet.len())?;
            put(at, micros)?;
        }
        Ok(0)
    })
}

unsafe extern "C" fn usleep(data: Data, micros: useconds_t) -> c_int {
    call(data, |bridge| {
        bridge.sleep(Duration::from_micros(micros.into()));
        Ok(0)
    })
}

unsafe extern "C" fn gettimeofday(data: Data, to: *mut timeval, _zone: *mut c_void) -> c_int {
    call(data, |bridge| {
        let now = bridge.time_of_day();
        let seconds = libc::time_t::try_from(now.as_secs()).unwrap_or(libc::time_t::MAX);
        // SAFETY: as POSIX's `gettimeofday`.
        unsafe { put(to, timeval { tv_sec: seconds, tv_usec: now.subsec_micros().into() }) }.map(|()| 0)
    })
}

unsafe extern "C" fn epoll_create(data: Data, size: c_int) -> c_int {
    call(data, |bridge| bridge.with(|world| world.epoll_create(size)))
}

unsafe extern "C" fn epoll_ctl(
    data: Data,
    epoll: c_int,
    operation: c_int,
    fd: c_int,
    event: *mut epoll_event,
) -> c_int {
    call(data, |bridge| {
        // SAFETY: null, or an event, as for `epoll_ctl` of Linux.
        let wanted = unsafe { get(event) }.ok().map(|event| (event.events, event.u64));
        bridge.with(|world| world.epoll_ctl(epoll, operation, fd, wanted)).map(|()| 0)
    })
}

unsafe extern "C" fn epoll_wait(
    data: Data,
    epoll: c_int,
    to: *mut epoll_event,
    max: c_int,
    timeout: c_int,
) -> c_int {
    call(data, |bridge| {
        let max = usize::try_from(max).ok().filter(|max| *max > 0).ok_or(Errno::EINVAL)?;
        let told = bridge.epoll_wait(epoll, max, timeout)?;
        for (index, &(events, data)) in told.iter().enumerate() {
            // SAFETY: an array of `max`, and no more are told.
            unsafe { put(to.wrapping_add(index), epoll_event { events, u64: data }) }?;
        }
        c_int::try_from(told.len()).map_err(|_| Errno::EINVAL)
    })
}

unsafe extern "C" fn pipe(data: Data, _ends: *mut c_int) -> c_int {
    call(data, |_| Err(Errno::EOPNOTSUPP))
}

unsafe extern "C" fn splice(
    data: Data,
    _from: c_int,
    _from_offset: *mut loff_t,
    _to: c_int,
    _to_offset: *mut loff_t,
    _len: size_t,
    _flags: c_uint,
) -> ssize_t {
    call(data, |_| Err(Errno::EOPNOTSUPP))
}
