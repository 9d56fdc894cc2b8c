//! Attaching to a TAP device.

use std::ffi::c_short;
use std::fs::{File, OpenOptions};

use rustix::ioctl::{Setter, ioctl};

use crate::Result;
use crate::error::Doing;

const TUNSETIFF: rustix::ioctl::Opcode = 0x4004_54ca;
const IFF_TAP: c_short = 0x0002;
const IFF_NO_PI: c_short = 0x1000;
const IFF_VNET_HDR: c_short = 0x4000;

/// `struct ifreq` as `TUNSETIFF` reads it.
#[repr(C)]
struct Request {
    name: [u8; 16],
    flags: c_short,
    rest: [u8; 22],
}

/// Whether frames carry the header of virtio-net before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// Plain Ethernet frames: the kernel cuts them to the MTU and fills in every checksum.
    Plain,
    /// With the header: super-segments and partial checksums pass.
    VirtioNet,
}

/// Opens the device that TAPs are made from.
pub fn open() -> Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/net/tun").doing("open /dev/net/tun")
}

/// Attaches to the TAP called `name` in this thread's network namespace, and makes it if it is not there and we
/// may. A TAP made so goes away with the file.
pub fn attach(tun: &File, name: &str, header: Header) -> Result<()> {
    let mut request = Request { name: [0; 16], flags: IFF_TAP | IFF_NO_PI, rest: [0; 22] };
    if header == Header::VirtioNet {
        request.flags |= IFF_VNET_HDR;
    }
    // The last octet stays zero: the kernel wants the name terminated.
    for (to, from) in request.name[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: TUNSETIFF reads a `struct ifreq` (40 octets on 64-bit Linux), which `Request` is laid out as, and
    // keeps no pointer to it.
    unsafe { ioctl(tun, Setter::<TUNSETIFF, Request>::new(request)) }.doing(format!("attach to TAP {name}"))
}

const _: () = assert!(size_of::<Request>() == 40);
