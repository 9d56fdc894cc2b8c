//! The stage between IPv6 and TCP, where packets enter and leave tunnels, and where home and care-of addresses are
//! swapped (RFC 6275 section 11.3).

#[cfg(test)]
mod tests;

use alloc::collections::BTreeSet;
use core::net::Ipv6Addr;

use ferry_stack::gso;
use ferry_stack::ip::{self, Datagram, Packet};
use thiserror::Error;

use crate::route::{HOME_ADDRESS_OVERHEAD, at_home, put_home_address};
use crate::tunnel::{self, Problem, Refused, TUNNEL_OVERHEAD};

/// By which way a packet leaves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Path {
    /// Straight to its destination.
    #[default]
    Direct,
    /// Through a tunnel to another node of the group.
    Tunnel {
        /// Our own care-of address.
        entry: Ipv6Addr,
        /// The other node's care-of address.
        exit: Ipv6Addr,
    },
    /// Straight to its destination from this care-of address, the home address in an option: to a client that has
    /// acknowledged the binding.
    Optimised {
        /// Our own care-of address.
        care_of: Ipv6Addr,
    },
}

impl Path {
    /// Octets that the path adds to each packet.
    pub const fn overhead(&self) -> u16 {
        match self {
            Self::Direct => 0,
            Self::Tunnel { .. } => TUNNEL_OVERHEAD,
            Self::Optimised { .. } => HOME_ADDRESS_OVERHEAD,
        }
    }
}

/// What became of a packet that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// It came straight to us.
    Direct(Datagram),
    /// It came through a tunnel, out of which it was taken.
    Tunnelled {
        /// The node of the group that sent it on.
        via: Ipv6Addr,
        /// The packet that was inside.
        datagram: Datagram,
    },
    /// It goes no further.
    Dropped(Reason, Datagram),
}

/// Why a packet that arrived goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Reason {
    /// A tunnel from an address that belongs to no node of the group.
    #[error("a tunnel from {0}, which is no node of the group")]
    Stranger(Ipv6Addr),
    /// A tunnel whose contents are of no use.
    #[error(transparent)]
    Tunnel(#[from] Problem),
    /// A tunnel in a tunnel: no node of the group sends that.
    #[error("a tunnel in a tunnel")]
    Nested,
    /// It claims a home address for which there is no binding (RFC 6275 section 9.3.1).
    #[error("claims the home address {0}, for which there is no binding")]
    NoBinding(Ipv6Addr),
    /// It is routed to a home address that is not ours (RFC 6275 section 11.3.3).
    #[error("routed to {0}, which is no home address of ours")]
    NoHome(Ipv6Addr),
}

/// The stage between IPv6 and TCP.
#[derive(Clone, Debug)]
pub struct Stage {
    home: Ipv6Addr,
    members: BTreeSet<Ipv6Addr>,
}

impl Stage {
    /// A stage for this home address that opens tunnels of these nodes only, by their care-of addresses.
    pub fn new(home: Ipv6Addr, members: impl IntoIterator<Item = Ipv6Addr>) -> Self {
        Self { home, members: members.into_iter().collect() }
    }

    /// From now on tunnels from and to this care-of address are good.
    pub fn admit(&mut self, member: Ipv6Addr) {
        self.members.insert(member);
    }

    /// From now on tunnels from and to this care-of address are refused.
    pub fn dismiss(&mut self, member: Ipv6Addr) {
        self.members.remove(&member);
    }

    /// What arrived, as TCP is to see it.
    pub fn inbound(&self, datagram: Datagram) -> Inbound {
        if let Some(home) = datagram.home_address()
            && datagram.upper != ip::MOBILITY
        {
            // No client of ours is a mobile node.
            return Inbound::Dropped(Reason::NoBinding(home), datagram);
        }
        if datagram.upper != ip::IPV6 {
            return match datagram.routed_home() {
                Some(home) if home != self.home => Inbound::Dropped(Reason::NoHome(home), datagram),
                // A Mobility Header is read with all the addresses that it travelled between.
                Some(_) if datagram.upper != ip::MOBILITY => Inbound::Direct(at_home(datagram)),
                _ => Inbound::Direct(datagram),
            };
        }
        match self.open(&datagram) {
            Ok((via, datagram)) => Inbound::Tunnelled { via, datagram },
            Err(reason) => Inbound::Dropped(reason, datagram),
        }
    }

    /// Opens a tunnel. Whoever may tunnel to us may send in anybody's name, so that not everybody may.
    fn open(&self, outer: &Datagram) -> Result<(Ipv6Addr, Datagram), Reason> {
        let via = outer.source;
        if !self.members.contains(&via) {
            return Err(Reason::Stranger(via));
        }
        let inner = tunnel::decapsulate(outer)?;
        if inner.upper == ip::IPV6 {
            return Err(Reason::Nested);
        }
        // What a node relays came to the home address, and goes out from it, without any of these.
        for datagram in [outer, &inner] {
            if let Some(home) = datagram.home_address() {
                return Err(Reason::NoBinding(home));
            }
            if let Some(home) = datagram.routed_home() {
                return Err(Reason::NoHome(home));
            }
        }
        Ok((via, inner))
    }

    /// Sends a packet by its path: gives to `put` what is to be sent to its next hop. A super-segment that enters
    /// a tunnel is cut, because no device cuts what is inside of one.
    pub fn outbound(&self, packet: Packet, path: &Path, mut put: impl FnMut(Packet)) -> Result<(), Refused> {
        let (entry, exit) = match *path {
            Path::Tunnel { entry, exit } => (entry, exit),
            Path::Direct => {
                put(packet);
                return Ok(());
            }
            Path::Optimised { care_of } => {
                let mut packet = packet;
                if !put_home_address(&mut packet, care_of) {
                    return Err(Refused::TooLong);
                }
                put(packet);
                return Ok(());
            }
        };
        if !self.members.contains(&exit) {
            return Err(Refused::Stranger(exit));
        }
        match packet.offload.gso {
            None => put(tunnel::encapsulate(packet, entry, exit)?),
            Some(gso) => {
                for segment in gso::segments(&packet, gso.size) {
                    put(tunnel::encapsulate(segment, entry, exit)?);
                }
            }
        }
        Ok(())
    }
}
