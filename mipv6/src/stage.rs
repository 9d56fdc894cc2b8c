//! The stage between IPv6 and TCP, where packets enter and leave tunnels. What RFC 6275 does to addresses belongs
//! here too: until it is done, a packet that asks for it is not let through.

#[cfg(test)]
mod tests;

use alloc::collections::BTreeSet;
use core::net::Ipv6Addr;

use ferry_stack::gso;
use ferry_stack::ip::{self, Datagram, Packet};
use thiserror::Error;

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
}

impl Path {
    /// Octets that the path adds to each packet.
    pub const fn overhead(&self) -> u16 {
        match self {
            Self::Direct => 0,
            Self::Tunnel { .. } => TUNNEL_OVERHEAD,
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
    Dropped(Reason),
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
    /// It is routed to a home address that is not known here (RFC 6275 section 11.3.3).
    #[error("routed to {0}, which has no binding here")]
    NoHome(Ipv6Addr),
    /// A message of RFC 6275.
    #[error("a Mobility Header")]
    Mobility,
}

/// The stage between IPv6 and TCP.
#[derive(Clone, Debug, Default)]
pub struct Stage {
    members: BTreeSet<Ipv6Addr>,
}

impl Stage {
    /// A stage that opens tunnels of these nodes only, by their care-of addresses.
    pub fn new(members: impl IntoIterator<Item = Ipv6Addr>) -> Self {
        Self { members: members.into_iter().collect() }
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
        if datagram.upper != ip::IPV6 {
            return unless_mobile(&datagram).map_or(Inbound::Direct(datagram), Inbound::Dropped);
        }
        // Whoever may tunnel to us may send in anybody's name, so that not everybody may.
        let via = datagram.source;
        if !self.members.contains(&via) {
            return Inbound::Dropped(Reason::Stranger(via));
        }
        match tunnel::decapsulate(&datagram) {
            Err(problem) => Inbound::Dropped(problem.into()),
            Ok(inner) if inner.upper == ip::IPV6 => Inbound::Dropped(Reason::Nested),
            Ok(inner) => {
                let refused = unless_mobile(&datagram).or_else(|| unless_mobile(&inner));
                refused.map_or(Inbound::Tunnelled { via, datagram: inner }, Inbound::Dropped)
            }
        }
    }

    /// Sends a packet by its path: gives to `put` what is to be sent to its next hop. A super-segment that enters
    /// a tunnel is cut, because no device cuts what is inside of one.
    pub fn outbound(&self, packet: Packet, path: &Path, mut put: impl FnMut(Packet)) -> Result<(), Refused> {
        let Path::Tunnel { entry, exit } = *path else {
            put(packet);
            return Ok(());
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

/// What RFC 6275 has to say to a datagram that asks for it.
fn unless_mobile(datagram: &Datagram) -> Option<Reason> {
    if datagram.upper == ip::MOBILITY {
        return Some(Reason::Mobility);
    }
    let claimed = datagram.home_address().map(Reason::NoBinding);
    claimed.or_else(|| datagram.routed_home().map(Reason::NoHome))
}
