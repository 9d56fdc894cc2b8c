/// Why a call failed, as a value of `errno`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Errno(pub i32);

macro_rules! named {
    ($($name:ident)*) => {
        impl Errno {
            $(pub(crate) const $name: Self = Self(libc::$name);)*
        }
    };
}

named! {
    EACCES EADDRINUSE EAFNOSUPPORT EAGAIN EALREADY EBADF ECONNREFUSED ECONNRESET EDEADLK EEXIST EFAULT
    EHOSTUNREACH     EINPROGRESS EINVAL EISCONN ENETUNREACH ENOENT ENOPROTOOPT ENOTCONN ENOTSOCK EOPNOTSUPP EPERM EPIPE EPROTO EPROTONOSUPPORT
    ESOCKTNOSUPPORT ETIMEDOUT EADDRNOTAVAIL ENOTTY
}
