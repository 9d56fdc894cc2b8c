//! Requests to the kernel over netlink (RFC 3549), each with its acknowledgement.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, sendto, socket_with,
};

// linux/netlink.h
/// Octets in front of every message.
pub(super) const HEADER: usize = 16;
const REQUEST: u16 = 1;
const ACK: u16 = 4;
/// The object is made; with [`EXCL`] only if there is none.
pub(super) const CREATE: u16 = 0x400;
/// See [`CREATE`].
pub(super) const EXCL: u16 = 0x200;
const ERROR: u16 = 2;
/// An answer to a single request is shorter.
const MAX_ANSWER: usize = 8192;

/// A message that is being put together.
#[derive(Clone, Debug)]
pub(super) struct Request(Vec<u8>);

impl Request {
    /// A request with its fixed part.
    pub(super) fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        Self::bare(kind, flags | REQUEST | ACK, body)
    }

    /// The same without the wish for an acknowledgement.
    pub(super) fn silent(kind: u16, flags: u16, body: &[u8]) -> Self {
        Self::bare(kind, flags | REQUEST, body)
    }

    fn bare(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut octets = vec![0; 4];
        octets.extend(kind.to_ne_bytes());
        octets.extend(flags.to_ne_bytes());
        octets.extend([0; 8]);
        octets.extend_from_slice(body);
        Self(octets)
    }

    /// Adds an attribute.
    pub(super) fn attribute(mut self, kind: u16, data: &[u8]) -> Self {
        put_attribute(&mut self.0, kind, data);
        self
    }

    /// The message as it goes to the kernel.
    pub(super) fn octets(mut self) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        self.0[..4].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self.0
    }
}

/// Appends an attribute at the next multiple of four octets.
pub(super) fn put_attribute(octets: &mut Vec<u8>, kind: u16, data: &[u8]) {
    octets.resize(octets.len().next_multiple_of(4), 0);
    octets.extend(u16::try_from(4 + data.len()).unwrap_or(u16::MAX).to_ne_bytes());
    octets.extend(kind.to_ne_bytes());
    octets.extend_from_slice(data);
    octets.resize(octets.len().next_multiple_of(4), 0);
}

/// Several attributes.
pub(super) fn attributes(list: &[(u16, &[u8])]) -> Vec<u8> {
    let mut octets = Vec::new();
    for (kind, data) in list {
        put_attribute(&mut octets, *kind, data);
    }
    octets
}

/// A socket to one part of the kernel.
#[derive(Debug)]
pub(super) struct Netlink(OwnedFd);

impl Netlink {
    /// `None` is for `NETLINK_ROUTE`.
    pub(super) fn open(part: Option<Protocol>) -> io::Result<Self> {
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, part)?;
        bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        Ok(Self(socket))
    }

    /// Hears what the kernel tells a group, without waiting.
    pub(super) fn listen(part: Protocol, group: u32) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(part))?;
        bind(&socket, &SocketAddrNetlink::new(0, 1 << (group - 1)))?;
        Ok(Self(socket))
    }

    /// The next message that was [heard](Netlink::listen).
    pub(super) fn receive(&self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; MAX_ANSWER];
        loop {
            match recv(&self.0, &mut buffer[..], RecvFlags::empty()) {
                Ok((len, _)) => {
                    buffer.truncate(len);
                    return Ok(Some(buffer));
                }
                Err(Errno::AGAIN) => return Ok(None),
                // Some were lost because they came too fast.
                Err(Errno::INTR | Errno::NOBUFS) => {}
                Err(why) => return Err(why.into()),
            }
        }
    }

    /// Sends a request and waits for its acknowledgement.
    pub(super) fn ask(&self, request: Request) -> Result<(), Errno> {
        self.exchange(&request.octets())
    }

    /// Sends messages of which one is acknowledged.
    pub(super) fn exchange(&self, messages: &[u8]) -> Result<(), Errno> {
        sendto(&self.0, messages, SendFlags::empty(), &SocketAddrNetlink::new(0, 0))?;
        let mut buffer = [0; MAX_ANSWER];
        loop {
            let (len, _) = recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            if let Some(outcome) = acknowledgement(&buffer[..len.min(MAX_ANSWER)]) {
                return outcome;
            }
        }
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn acknowledgement(answer: &[u8]) -> Option<Result<(), Errno>> {
    let kind = u16::from_ne_bytes(answer.get(4..6)?.try_into().ok()?);
    if kind != ERROR {
        return None;
    }
    let error = i32::from_ne_bytes(answer.get(HEADER..HEADER + 4)?.try_into().ok()?);
    Some(if error == 0 { Ok(()) } else { Err(Errno::from_raw_os_error(-error)) })
}
