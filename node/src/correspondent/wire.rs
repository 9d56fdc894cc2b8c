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
const ICMPV6: u32 = 58;
/// The type of an ICMPv6 message (RFC 4443 section 3.2).
const PACKET_TOO_BIG: u32 = 2;
/// What the daemon sends is marked, so that it does not come back to it.
pub(super) const MARK: u32 = 0xfe77;

/// Which packets the daemon wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Mobility Headers.
    Signalling,
    /// And whatever comes with a Home Address option, or says that a packet was too big.
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
/// Address option in front, where RFC 6275 section 6.3 puts it; and, where the daemon itself routes packets, the word of
/// routers that they are too big.
fn program(wanted: Wanted) -> [Instruction; 12] {
    let (offset, value) = match wanted {
        Wanted::Signalling => (BEHIND_HEADER, MOBILITY),
        Wanted::All => (BEHIND_HEADER + 6, HOME_ADDRESS),
    };
    let too_big = if wanted == Wanted::All { ICMPV6 } else { MOBILITY };
    [
        Instruction(LOAD_WORD, 0, 0, PACKET_TYPE),
        Instruction(EQUAL, 0, 9, 0),
        Instruction(LOAD_OCTET, 0, 0, NETWORK + NEXT_HEADER),
        Instruction(EQUAL, 6, 0, MOBILITY),
        Instruction(EQUAL, 3, 0, too_big),
        Instruction(EQUAL, 0, 5, DESTINATION_OPTIONS),
        Instruction(LOAD_OCTET, 0, 0, NETWORK + offset),
        Instruction(EQUAL, 2, 3, value),
        Instruction(LOAD_OCTET, 0, 0, NETWORK + BEHIND_HEADER),
        Instruction(EQUAL, 0, 1, PACKET_TOO_BIG),
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
        }
    }

    /// What the filter says to a packet, by the letter of the machine that runs it.
    fn takes(program: &[Instruction], frame: &[u8], for_us: bool) -> bool {
        let (mut at, mut value) = (0, 0);
        loop {
            let Instruction(operation, yes, no, operand) = program[at];
            at += 1;
            match operation {
                RETURN => return operand == WHOLE,
                EQUAL => at += usize::from(if value == operand { yes } else { no }),
                LOAD_WORD => value = u32::from(!for_us),
                // A load beyond the packet ends the program with zero.
                _ => match frame.get((operand - NETWORK) as usize) {
                    Some(octet) => value = u32::from(*octet),
                    None => return false,
                },
            }
        }
    }

    #[test]
    fn the_filter_takes_what_is_for_the_daemon_and_nothing_else() {
        let packet = |next: u8, behind: [u8; 8]| {
            let mut octets = [0_u8; 48];
            octets[6] = next;
            octets[40..].copy_from_slice(&behind);
            octets
        };
        let home_address = packet(60, [6, 2, 1, 2, 0, 0, 0xc9, 16]);
        // Whether it is taken for signalling only, and if all is wanted.
        let cases = [
            ("a Mobility Header", packet(135, [59, 0, 5, 0, 0, 0, 0, 0]), [true, true]),
            ("one behind a Home Address option", packet(60, [135, 2, 1, 2, 0, 0, 0xc9, 16]), [true, true]),
            ("a segment with a Home Address option", home_address, [false, true]),
            ("a segment with other options", packet(60, [6, 0, 1, 4, 0, 0, 0, 0]), [false, false]),
            ("Packet Too Big", packet(58, [2, 0, 0, 0, 0, 0, 5, 0]), [false, true]),
            ("another ICMPv6 message", packet(58, [135, 0, 0, 0, 0, 0, 0, 0]), [false, false]),
            ("a segment", packet(6, [2; 8]), [false, false]),
        ];
        for (name, octets, expected) in cases {
            for (wanted, expected) in [Wanted::Signalling, Wanted::All].into_iter().zip(expected) {
                assert_eq!(takes(&program(wanted), &octets, true), expected, "{name}, {wanted:?}");
                assert!(!takes(&program(wanted), &octets, false), "{name} for somebody else");
            }
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
