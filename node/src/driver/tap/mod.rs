//! Frames to and from a TAP, with virtio-net headers: the kernel hands over and takes segments of up to 64 KiB
//! whose checksums nobody needs to compute.

mod attach;
mod header;
mod open;
#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use bytes::Bytes;
use ferry_stack::gro::Train;
use ferry_stack::{Frame, Offload};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;

pub use open::TapError;
pub(crate) use open::owner;

/// The virtio-net header, an Ethernet header with a VLAN tag, and the largest IPv6 packet without a jumbo payload.
const MAX_READ: usize = header::LEN + 18 + 40 + 65_535;

/// Octets to leave free in front of a frame for [`Tap::send_whole`].
pub(crate) const ROOM: usize = header::LEN;

/// A frame of at least this many octets keeps the buffer that it was read into; a smaller one is copied out, so
/// that it does not pin a big buffer for as long as somebody holds a slice of it.
const KEEP: usize = MAX_READ / 2;

/// Once a train of segments is so long it is handed on: in octets, less than what an IPv6 packet holds.
const TRAIN: usize = 48 << 10;

/// The longest headers that each segment of a train begins with: virtio-net, Ethernet, IPv6, TCP with all options.
const HEADERS: usize = header::LEN + 14 + 40 + 60;

/// An open TAP.
#[derive(Debug)]
pub struct Tap {
    fd: OwnedFd,
    /// Whether the kernel takes and gives what a frame's offload stands for. If not, that is done here.
    offload: bool,
    /// Empty between calls.
    buffer: Vec<u8>,
    /// Read behind a train of segments, and no part of it. With its virtio-net header.
    ahead: Vec<u8>,
    /// Whether the last read found nothing, which was not told yet.
    dry: bool,
    unusable: u64,
}

/// What became of a frame that was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel has it.
    Done,
    /// The kernel has no room now; try again when the TAP is writable.
    Full,
    /// The kernel refused it; it is lost, as a frame on a wire can be.
    Refused(Errno),
}

impl Tap {
    /// Attaches to the device `name`, which exists and belongs to this process's user. Without `offload` the kernel
    /// hands over frames of the device's MTU with whole checksums only.
    pub fn open(name: &str, offload: bool) -> Result<Self, TapError> {
        Ok(Self { offload, ..Self::over(open::open_device(name, offload)?) })
    }

    /// Takes over a descriptor that the process was started with and that is attached to `name`. To be called at the
    /// start of the process, before anything else could have been given the same number.
    pub(crate) fn inherit(fd: RawFd, name: &str) -> Result<Self, TapError> {
        Ok(Self::over(open::inherit_device(fd, name)?))
    }

    /// Makes a TUN device, which goes with this process: its frames are IPv6 packets.
    pub(crate) fn make_tun(name: &str) -> io::Result<Self> {
        Ok(Self::over(open::make_tun(name)?))
    }

    /// Anything that carries frames with a virtio-net header each, and does not block.
    pub(crate) fn over(fd: OwnedFd) -> Self {
        Self { fd, offload: true, buffer: Vec::new(), ahead: Vec::new(), dry: false, unusable: 0 }
    }

    /// Whether super-segments and partial checksums may be [sent](Tap::send).
    pub(crate) const fn takes_offload(&self) -> bool {
        self.offload
    }

    /// The next frame; `None` if there is none now. Segments that follow each other come as one frame.
    pub fn receive(&mut self) -> io::Result<Option<Frame>> {
        while self.read_first()? {
            if let Ok(offload) = header::parse(&self.buffer) {
                let offload = if self.offload { offload } else { self.collect(offload)? };
                let head = take(&mut self.buffer);
                return Ok(Some(Frame { head, body: Bytes::new(), offload }));
            }
            self.unusable += 1;
            self.buffer.clear();
        }
        Ok(None)
    }

    fn read_first(&mut self) -> io::Result<bool> {
        self.buffer.reserve_exact(if self.offload { MAX_READ } else { TRAIN + MAX_READ });
        if !self.ahead.is_empty() {
            self.buffer.append(&mut self.ahead);
            return Ok(true);
        }
        Ok(!core::mem::take(&mut self.dry) && self.read()?)
    }

    /// Appends the next frame to the buffer, which has room for any; `false` if there is none now.
    fn read(&mut self) -> io::Result<bool> {
        loop {
            return match rustix::io::read(&self.fd, spare_capacity(&mut self.buffer)) {
                // A TAP has no end; whatever else was handed over as one may have.
                Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => Ok(true),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => Ok(false),
                Err(why) => Err(why.into()),
            };
        }
    }

    /// Appends the payloads of the segments that follow the one in the buffer, and tells what the whole is.
    ///
    /// Each is read so that its payload lies where it belongs; what its headers cover is kept and put back.
    fn collect(&mut self, offload: Offload) -> io::Result<Offload> {
        let train = Train::first(&self.buffer[header::LEN..]).filter(|_| offload == Offload::default());
        let Some(mut train) = train else { return Ok(offload) };
        let span = header::LEN + train.headers();
        let (mut first, mut covered) = ([0; HEADERS], [0; HEADERS]);
        first[..span].copy_from_slice(&self.buffer[..span]);
        while train.is_open() && self.buffer.len() <= TRAIN {
            let at = self.buffer.len() - span;
            covered[..span].copy_from_slice(&self.buffer[at..]);
            self.buffer.truncate(at);
            self.dry = !self.read()?;
            let next = &self.buffer[at..];
            let follows = header::parse(next) == Ok(Offload::default())
                && train.take(&first[header::LEN..span], &next[header::LEN..]);
            if !follows {
                self.ahead.extend_from_slice(next);
                self.buffer.truncate(at);
                self.buffer.extend_from_slice(&covered[..span]);
                break;
            }
            self.buffer[at..at + span].copy_from_slice(&covered[..span]);
        }
        Ok(train.finish(&mut self.buffer[header::LEN..]))
    }

    /// Hands a frame to the kernel. An error means that the TAP is gone.
    pub fn send(&self, frame: &Frame) -> io::Result<Sent> {
        let header = header::emit(frame);
        let parts = [IoSlice::new(&header), IoSlice::new(&frame.head), IoSlice::new(&frame.body)];
        sent(|| rustix::io::writev(&self.fd, &parts))
    }

    /// The same for a frame without offloads that lies behind [`ROOM`] octets of zero: the header of one that wants
    /// nothing.
    pub(crate) fn send_whole(&self, octets: &[u8]) -> io::Result<Sent> {
        sent(|| rustix::io::write(&self.fd, octets))
    }

    /// How many frames the kernel handed over that were none.
    pub(crate) const fn unusable(&self) -> u64 {
        self.unusable
    }
}

/// What became of a write.
fn sent(write: impl Fn() -> Result<usize, Errno>) -> io::Result<Sent> {
    loop {
        return match write() {
            Ok(_) => Ok(Sent::Done),
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN | Errno::NOBUFS) => Ok(Sent::Full),
            // The device is down, or the frame is not to its liking.
            Err(why @ (Errno::IO | Errno::INVAL | Errno::MSGSIZE | Errno::NOMEM)) => Ok(Sent::Refused(why)),
            Err(why) => Err(why.into()),
        };
    }
}

/// The frame behind the header in `buffer`, which is left empty.
fn take(buffer: &mut Vec<u8>) -> Bytes {
    if buffer.len() < KEEP {
        let frame = Bytes::copy_from_slice(&buffer[header::LEN..]);
        buffer.clear();
        return frame;
    }
    let mut frame = core::mem::take(buffer);
    if frame.capacity() > MAX_READ {
        frame.shrink_to_fit();
    }
    Bytes::from(frame).slice(header::LEN..)
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
