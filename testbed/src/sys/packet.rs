//! A packet socket with a ring that the kernel fills (`AF_PACKET`, `TPACKET_V3`): frames arrive with the kernel's
//! timestamp and without a system call each, so that watching costs the watched little.

use std::io;
use std::mem::{offset_of, size_of};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::{c_int, sockaddr_ll, tpacket_block_desc, tpacket_req3, tpacket3_hdr};

use super::options::{Plain, check, get, set};

const BLOCK: usize = 1 << 18;
/// The kernel hands a block over when it is full, or this many milliseconds after its first frame.
const RETIRE_MS: u32 = 10;
const ETH_P_ALL: u16 = 0x0003;

/// One captured frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// When the kernel saw it, in nanoseconds of the wall clock.
    pub wall_ns: u64,
    /// Its length on the wire.
    pub length: u32,
    /// Whether this host sent it.
    pub outgoing: bool,
    /// Its first octets.
    pub octets: &'a [u8],
}

/// `struct tpacket_stats_v3`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Statistics {
    _packets: u32,
    drops: u32,
    _freezes: u32,
}

// SAFETY: integers only.
unsafe impl Plain for Statistics {}

/// A packet socket on one interface.
#[derive(Debug)]
pub struct Ring {
    socket: OwnedFd,
    map: NonNull<u8>,
    blocks: usize,
    next: usize,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread.
unsafe impl Send for Ring {}

/// A packet socket that only sends: what is written to it goes out of the interface with index `interface` of this
/// thread's network namespace as it is, without waiting in a queue.
pub fn sender(interface: u32) -> io::Result<OwnedFd> {
    let socket = socket()?;
    set(&socket, libc::SOL_PACKET, libc::PACKET_QDISC_BYPASS, &(1 as c_int))?;
    bind(&socket, interface, 0)?;
    Ok(socket)
}

/// Protocol 0: nothing arrives before `bind` names one.
fn socket() -> io::Result<OwnedFd> {
    // SAFETY: no pointers; the result is checked before it is owned.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    check(fd)?;
    // SAFETY: `fd` was just made and belongs to nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bind(socket: &OwnedFd, interface: u32, protocol: u16) -> io::Result<()> {
    // SAFETY: `sockaddr_ll` is plain data, for which zeroes are a value.
    let mut address: sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = u16::try_from(libc::AF_PACKET).map_err(io::Error::other)?;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = c_int::try_from(interface).map_err(io::Error::other)?;
    // SAFETY: the pointer and the length describe `address`, which outlives the call.
    check(unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            libc::socklen_t::try_from(size_of::<sockaddr_ll>()).map_err(io::Error::other)?,
        )
    })
}

impl Ring {
    /// Watches the interface with index `interface` in this thread's network namespace; keeps the first `snap`
    /// octets of each frame, and up to `ring_bytes` of frames until they are read.
    pub fn open(interface: u32, snap: u32, ring_bytes: usize) -> io::Result<Self> {
        let blocks = (ring_bytes / BLOCK).max(2);
        let socket = socket()?;
        set(&socket, libc::SOL_PACKET, libc::PACKET_VERSION, &(libc::tpacket_versions::TPACKET_V3 as c_int))?;
        keep_first(&socket, snap)?;
        let request = tpacket_req3 {
            tp_block_size: u32::try_from(BLOCK).map_err(io::Error::other)?,
            tp_block_nr: u32::try_from(blocks).map_err(io::Error::other)?,
            tp_frame_size: 2048,
            tp_frame_nr: u32::try_from(blocks * BLOCK / 2048).map_err(io::Error::other)?,
            tp_retire_blk_tov: RETIRE_MS,
            tp_sizeof_priv: 0,
            tp_feature_req_word: 0,
        };
        set(&socket, libc::SOL_PACKET, libc::PACKET_RX_RING, &request)?;
        let map = map(&socket, blocks * BLOCK)?;
        let ring = Self { socket, map, blocks, next: 0 };
        bind(&ring.socket, interface, ETH_P_ALL)?;
        Ok(ring)
    }

    /// Gives every frame that the kernel has handed over to `look`, in the order of arrival.
    pub fn drain(&mut self, mut look: impl FnMut(Frame<'_>)) {
        while self.drain_block(&mut look) {
            self.next = (self.next + 1) % self.blocks;
        }
    }

    fn drain_block(&mut self, look: &mut impl FnMut(Frame<'_>)) -> bool {
        // SAFETY: `next` is less than `blocks`, so the block lies inside the mapping; blocks are page-aligned.
        let block = unsafe { self.map.add(self.next * BLOCK) };
        let status = offset_of!(tpacket_block_desc, hdr);
        // SAFETY: the status word is 4-aligned, inside the block, and shared with the kernel as an atomic.
        let status = unsafe { AtomicU32::from_ptr(block.add(status).cast().as_ptr()) };
        if status.load(Ordering::Acquire) & libc::TP_STATUS_USER == 0 {
            return false;
        }
        // SAFETY: with the user bit set the kernel leaves the block alone; its header is initialised.
        let header = unsafe { (*block.cast::<tpacket_block_desc>().as_ptr()).hdr.bh1 };
        let mut at = header.offset_to_first_pkt as usize;
        for _ in 0..header.num_pkts {
            let Some((frame, next)) = frame_at(block, at) else { break };
            look(frame);
            at += next;
        }
        status.store(libc::TP_STATUS_KERNEL, Ordering::Release);
        true
    }

    /// Frames that found no room in the ring since the last call.
    pub fn dropped(&self) -> io::Result<u32> {
        get(&self.socket, libc::SOL_PACKET, libc::PACKET_STATISTICS).map(|stats: Statistics| stats.drops)
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: the mapping was made with this length and no reference into it outlives `drain`.
        unsafe { libc::munmap(self.map.as_ptr().cast(), self.blocks * BLOCK) };
    }
}

/// The frame whose header lies `at` octets into the block, and the distance to the next header.
fn frame_at<'a>(block: NonNull<u8>, at: usize) -> Option<(Frame<'a>, usize)> {
    // Where the link-layer address follows the frame's header (`TPACKET_ALIGN`).
    const ADDRESS: usize = size_of::<tpacket3_hdr>().next_multiple_of(libc::TPACKET_ALIGNMENT);
    if at + ADDRESS + size_of::<sockaddr_ll>() > BLOCK {
        return None;
    }
    // SAFETY: both structures lie inside the block (checked above), are aligned by the kernel to 16 octets, and
    // are plain data that the kernel has written.
    let (header, address) = unsafe {
        let header = block.add(at);
        (header.cast::<tpacket3_hdr>().read(), header.add(ADDRESS).cast::<sockaddr_ll>().read())
    };
    let (start, length) = (at + usize::from(header.tp_mac), header.tp_snaplen as usize);
    if start + length > BLOCK {
        return None;
    }
    // SAFETY: inside the block (checked above), initialised, and not written until the block is given back,
    // which the caller does after the last use.
    let octets = unsafe { std::slice::from_raw_parts(block.add(start).as_ptr(), length) };
    let frame = Frame {
        wall_ns: u64::from(header.tp_sec) * 1_000_000_000 + u64::from(header.tp_nsec),
        length: header.tp_len,
        outgoing: address.sll_pkttype == libc::PACKET_OUTGOING,
        octets,
    };
    Some((frame, header.tp_next_offset as usize))
}

fn map(socket: &OwnedFd, length: usize) -> io::Result<NonNull<u8>> {
    // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours.
    let map = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            length,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED,
            socket.as_raw_fd(),
            0,
        )
    };
    if map == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    NonNull::new(map.cast()).ok_or_else(|| io::Error::other("the ring was mapped at address 0"))
}

/// A filter of one instruction: accept, and keep `snap` octets.
fn keep_first(socket: &OwnedFd, snap: u32) -> io::Result<()> {
    const RET_K: u16 = 0x06;
    let mut code = [libc::sock_filter { code: RET_K, jt: 0, jf: 0, k: snap }];
    let program = libc::sock_fprog { len: 1, filter: code.as_mut_ptr() };
    set(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}
