//! The network as the daemon sees it: packets with Mobile IPv6 in them, beside the kernel; and packets of our own
//! making.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use ferry_stack::ip::{self, Datagram, Packet};
use ferry_stack::{Checksum, Offload};
use rustix::io::Errno;
use rustix::net::sockopt;
use rustix::net::{
    AddressFamily, Protocol, RawProtocol, SendFlags, SocketFlags, SocketType, sendto, socket_with,
};

use super::sys::{self, Instruction};
use crate::driver::Tap;

/// Octets of packets that wait, with what the kernel needs to hold them: some milliseconds at 10 Gbit/s.
const BUFFER: usize = 8 << 20;
/// Octets of an Ethernet header.
const ETHERNET: usize = 14;
const DESTINATION_OPTIONS: u32 = 60;
const MOBILITY: u32 = 135;
const HOME_ADDRESS: u32 = 0xc9;
/// What the daemon sends is marked, so that it does not come back to it.
pub(super) const MARK: u32 = 0xfe77;

/// Which packets the daemon wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Mobility Headers.
    Signalling,
    /// And whatever comes with a Home Address option.
    All,
}

/// The network.
#[derive(Debug)]
pub(super) struct Wire {
    packets: Tap,
    sender: OwnedFd,
    /// Nobody reads from it; because it is there, the kernel does not call Mobility Headers unknown (RFC 4443 3.4).
    _recipient: OwnedFd,
}

impl Wire {
    pub(super) fn open(wanted: Wanted) -> io::Result<Self> {
        let raw = |family, flags, protocol: u32| {
            let protocol = RawProtocol::new(protocol).map(Protocol::from_raw);
            socket_with(family, SocketType::RAW, SocketFlags::CLOEXEC | flags, protocol)
        };
        let sender = raw(AddressFamily::INET6, SocketFlags::NONBLOCK, 255)?;
        sys::set_mark(&sender, MARK)?;
        let recipient = raw(AddressFamily::INET6, SocketFlags::NONBLOCK, MOBILITY)?;
        sys::attach_filter(&recipient, &[Instruction(RETURN, 0, 0, 0)])?;
        let packets = raw(AddressFamily::PACKET, SocketFlags::NONBLOCK, u32::from(0x86dd_u16.to_be()))?;
        sys::set_vnet_header(&packets)?;
        // What arrives while the daemon has no core waits: a sender takes what is lost here for a congested path.
        // In a user namespace only as much as the system lets anybody have.
        sockopt::set_socket_recv_buffer_size_force(&packets, BUFFER)
            .or_else(|_| sockopt::set_socket_recv_buffer_size(&packets, BUFFER))?;
        sys::attach_filter(&packets, &program(wanted))?;
        Ok(Self { packets: Tap::over(packets), sender, _recipient: recipient })
    }

    /// The next packet; `None` if there is none now. What came before the filter was there may be any.
    pub(super) fn receive(&mut self) -> io::Result<Option<Datagram>> {
        while let Some(frame) = self.packets.receive()? {
            let at = network_header(&frame.head);
            let checksum = match frame.offload.checksum {
                Checksum::Partial { start, offset } => {
                    let at = u16::try_from(at).unwrap_or(0);
                    Checksum::Partial { start: start.saturating_sub(at), offset }
                }
                whole => whole,
            };
            let offload = Offload { checksum, ..frame.offload };
            if let Ok(datagram) = ip::parse(frame.head.slice(at..), offload) {
                return Ok(Some(datagram));
            }
        }
        Ok(None)
    }

    /// Sends a packet. What the network does not take now is lost, as on any link.
    pub(super) fn send(&self, packet: &Packet) -> Result<(), Errno> {
        let Some(destination) = packet.destination() else { return Err(Errno::INVAL) };
        let to = SocketAddrV6::new(destination, 0, 0, 0);
        sendto(&self.sender, &packet.to_bytes(), SendFlags::empty(), &to).map(drop)
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.packets.as_fd()
    }
}

/// Whether an address is one of this host.
pub(super) fn is_ours(address: Ipv6Addr) -> bool {
    UdpSocket::bind(SocketAddrV6::new(address, 0, 0, 0)).is_ok()
}

/// Where the IPv6 header begins: some devices have no Ethernet header.
fn network_header(frame: &[u8]) -> usize {
    match frame.get(ETHERNET - 2..ETHERNET) {
        Some([0x86, 0xdd]) => ETHERNET,
        _ => 0,
    }
}

// linux/filter.h
const LOAD_OCTET: u16 = 0x30;
const LOAD_WORD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;
/// Relative to the network header.
const NETWORK: u32 = 0xfff0_0000;
/// The type of the packet: zero if it is for this host.
const PACKET_TYPE: u32 = 0xffff_f000 + 4;
const NEXT_HEADER: u32 = 6;
const BEHIND_HEADER: u32 = 40;
const WHOLE: u32 = u32::MAX;

/// Takes packets to this host whose first header is a Mobility Header, or a Destination Options header with a Home
/// Address option in front, where RFC 6275 section 6.3 puts it.
fn program(wanted: Wanted) -> [Instruction; 9] {
    let (offset, value) = match wanted {
        Wanted::Signalling => (BEHIND_HEADER, MOBILITY),
        Wanted::All => (BEHIND_HEADER + 6, HOME_ADDRESS),
    };
    [
        Instruction(LOAD_WORD, 0, 0, PACKET_TYPE),
        Instruction(EQUAL, 0, 6, 0),
        Instruction(LOAD_OCTET, 0, 0, NETWORK + NEXT_HEADER),
        Instruction(EQUAL, 3, 0, MOBILITY),
        Instruction(EQUAL, 0, 3, DESTINATION_OPTIONS),
        Instruction(LOAD_OCTET, 0, 0, NETWORK + offset),
        Instruction(EQUAL, 0, 1, value),
        Instruction(RETURN, 0, 0, WHOLE),
        Instruction(RETURN, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_of_the_filter_ends_where_it_should() {
        for wanted in [Wanted::Signalling, Wanted::All] {
            let program = program(wanted);
            for (at, Instruction(operation, yes, no, _)) in program.into_iter().enumerate() {
                if operation == EQUAL {
                    let reached = [yes, no].map(|jump| program[at + 1 + usize::from(jump)].0);
                    assert!(reached.iter().all(|next| [RETURN, LOAD_OCTET, EQUAL].contains(next)), "{at}");
                }
            }
            // A Mobility Header is taken: from its comparison the jump leads to the return of the whole packet.
            assert_eq!(program[3 + 1 + usize::from(program[3].1)].3, WHOLE);
            assert_eq!(program[6 + 1 + usize::from(program[6].1)].3, WHOLE);
            assert_eq!(program[4 + 1 + usize::from(program[4].2)].3, 0);
            assert_eq!(program[1 + 1 + usize::from(program[1].2)].3, 0);
        }
    }

    #[test]
    fn the_ipv6_header_is_found_with_and_without_ethernet() {
        let mut ethernet = [0; 60];
        ethernet[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
        assert_eq!(network_header(&ethernet), 14);
        assert_eq!(network_header(&[0x60; 60]), 0);
    }
}
