//! Opening a TAP that exists already, and saying what to do when that fails.

use std::io;
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags, fcntl_getfl, fcntl_setfl, open};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, netdevice};

use super::attach;
use super::header;

const TUN: &str = "/dev/net/tun";
const FLAGS: u16 = attach::IFF_TAP | attach::IFF_NO_PI | attach::IFF_VNET_HDR;

/// A TAP cannot be used. Each says the command that mends it.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The kernel has no TUN driver.
    #[error("there is no {TUN}; load the driver: sudo modprobe tun")]
    NoDriver,
    /// This user may not open the driver.
    #[error(
        "no permission to open {TUN}; allow it with `sudo chmod 0666 {TUN}` (a user can attach only to TAPs that belong to it), \
         or pass an attached descriptor with --tap-fd"
    )]
    NoPermission,
    /// There is no device of this name in this network namespace.
    #[error(
        "there is no network device {device}; make it with `sudo ip tuntap add dev {device} mode tap user {user}` and `sudo ip link set {device} up`"
    )]
    NoDevice {
        /// The device's name.
        device: String,
        /// Who runs this process.
        user: u32,
    },
    /// The device belongs to somebody else.
    #[error(
        "{device} belongs to {}, not to user {user} who runs this; give it away with `sudo ip tuntap del dev {device} mode tap` \
         and `sudo ip tuntap add dev {device} mode tap user {user}`",
        owner.map_or("somebody else".to_owned(), |owner| format!("user {owner}"))
    )]
    NotYours {
        /// The device's name.
        device: String,
        /// Whose it is, if that can be seen.
        owner: Option<u32>,
        /// Who runs this process.
        user: u32,
    },
    /// Another process is attached.
    #[error(
        "{device} is in use by another process, perhaps another node; end that one, or name another `device`"
    )]
    Busy {
        /// The device's name.
        device: String,
    },
    /// The device is of another kind.
    #[error(
        "{device} is not a TAP; name one in `device`, or make it with `sudo ip tuntap add dev NAME mode tap user {user}`"
    )]
    NotATap {
        /// The device's name.
        device: String,
        /// Who runs this process.
        user: u32,
    },
    /// The descriptor of `--tap-fd` is not what it should be.
    #[error(
        "descriptor {fd} of --tap-fd {what}; it must be /dev/net/tun attached to {device} with IFF_TAP|IFF_NO_PI|IFF_VNET_HDR"
    )]
    BadDescriptor {
        /// The descriptor.
        fd: RawFd,
        /// What it is instead.
        what: String,
        /// The device's name.
        device: String,
    },
    /// Anything else.
    #[error("cannot set up {device}: {step}: {why}; ferry needs Linux 5.11 or newer")]
    Other {
        /// The device's name.
        device: String,
        /// What was tried.
        step: &'static str,
        /// What the system says.
        why: io::Error,
    },
}

/// Attaches to the device `name`.
pub(super) fn open_device(name: &str, offload: bool) -> Result<OwnedFd, TapError> {
    let tun =
        open(TUN, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).map_err(
            |why| match why {
                Errno::NOENT | Errno::NODEV | Errno::NXIO => TapError::NoDriver,
                Errno::ACCESS | Errno::PERM => TapError::NoPermission,
                why => other(name, "open /dev/net/tun", why),
            },
        )?;
    must_exist(name)?;
    let attached = match attach::attach(tun.as_fd(), name, FLAGS) {
        // A device that was made with several queues wants each of them to say so.
        Err(Errno::INVAL) => attach::attach(tun.as_fd(), name, FLAGS | attach::IFF_MULTI_QUEUE),
        result => result,
    };
    attached.map_err(|why| why_not_attached(name, why))?;
    configure(&tun, name, offload)?;
    Ok(tun)
}

/// Takes over a descriptor that is attached to the device `name` already.
pub(super) fn inherit_device(fd: RawFd, name: &str) -> Result<OwnedFd, TapError> {
    let bad = |what: String| TapError::BadDescriptor { fd, what, device: name.to_owned() };
    let tun = attach::inherit(fd).map_err(|_| bad("is not open".to_owned()))?;
    let (device, flags) =
        attach::attached(tun.as_fd()).map_err(|_| bad("is not attached to a device".to_owned()))?;
    if device != name {
        return Err(bad(format!("is attached to {device}")));
    }
    if flags & FLAGS != FLAGS {
        return Err(bad(format!("has the flags {flags:#06x}")));
    }
    let status = fcntl_getfl(&tun).map_err(|why| other(name, "read its status flags", why))?;
    fcntl_setfl(&tun, status | OFlags::NONBLOCK).map_err(|why| other(name, "make it non-blocking", why))?;
    configure(&tun, name, true)?;
    Ok(tun)
}

/// Makes a device without Ethernet. The kernel hands over whole packets of the device's MTU.
pub(super) fn make_tun(name: &str) -> Result<OwnedFd, Errno> {
    let tun = open(TUN, OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?;
    attach::attach(tun.as_fd(), name, attach::IFF_TUN | attach::IFF_NO_PI | attach::IFF_VNET_HDR)?;
    attach::set_header_len(tun.as_fd(), i32::try_from(header::LEN).unwrap_or(i32::MAX))?;
    Ok(tun)
}

fn configure(tun: &OwnedFd, name: &str, offload: bool) -> Result<(), TapError> {
    let octets = i32::try_from(header::LEN).unwrap_or(i32::MAX);
    attach::set_header_len(tun.as_fd(), octets).map_err(|why| other(name, "set the header's length", why))?;
    let kinds = if offload { attach::TUN_F_CSUM | attach::TUN_F_TSO6 | attach::TUN_F_TSO_ECN } else { 0 };
    attach::set_offload(tun.as_fd(), kinds).map_err(|why| other(name, "switch offloads on", why))
}

/// With the capability for it, attaching to a name that is free would make a device. None is made here.
fn must_exist(name: &str) -> Result<(), TapError> {
    let socket = rustix::net::socket(AddressFamily::INET6, SocketType::DGRAM, None)
        .map_err(|why| other(name, "look it up", why))?;
    match netdevice::name_to_index(&socket, name) {
        Ok(_) => Ok(()),
        Err(Errno::NODEV) => Err(TapError::NoDevice { device: name.to_owned(), user: user() }),
        Err(why) => Err(other(name, "look it up", why)),
    }
}

fn why_not_attached(name: &str, why: Errno) -> TapError {
    let (device, user) = (name.to_owned(), user());
    match why {
        Errno::PERM | Errno::ACCESS => TapError::NotYours { owner: owner(name), device, user },
        Errno::BUSY => TapError::Busy { device },
        Errno::INVAL => TapError::NotATap { device, user },
        why => other(name, "attach to it", why),
    }
}

fn other(name: &str, step: &'static str, why: Errno) -> TapError {
    TapError::Other { device: name.to_owned(), step, why: why.into() }
}

fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The user that a TAP belongs to; `None` if it belongs to nobody or that cannot be seen.
pub(crate) fn owner(name: &str) -> Option<u32> {
    let file = Path::new("/sys/class/net").join(name).join("owner");
    let owner: i64 = std::fs::read_to_string(file).ok()?.trim().parse().ok()?;
    u32::try_from(owner).ok()
}
