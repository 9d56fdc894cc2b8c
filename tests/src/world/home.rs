//! The home link as one that nodes share: a switch between them and the router. What is sent to the service address there comes to
//! whoever has told the router last, by neighbour discovery, that it is his.

use core::net::Ipv6Addr;

use ferry_stack::Frame;
use ferry_stack::interface::{self, Address};

use super::agenda::Event;
use super::group::{HOME_ROUTER, SERVICE_ADDRESS};
use super::{Attachment, Body, World};
use crate::link::{self, ETHERNET, Quality};
use crate::watch::Sender;

/// Octets of an IPv6 address, and where the source stands in a header.
const ADDRESS: usize = 16;
const SOURCE: usize = 8;

/// A link with the router and some nodes on it.
#[derive(Clone, Copy, Debug)]
pub(super) struct HomeLink {
    /// The router's port on it.
    port: usize,
    /// The place of the first node on it.
    first: usize,
    /// How many there are.
    nodes: usize,
}

impl HomeLink {
    pub(super) fn has(&self, place: usize) -> bool {
        (self.first..self.first + self.nodes).contains(&place)
    }

    fn care_of(place: usize) -> Ipv6Addr {
        Ipv6Addr::from_bits(SERVICE_ADDRESS.to_bits() & !0xffff | 0x100 | place as u128)
    }

    /// Who gets a frame that comes from there.
    fn targets(&self, frame: &Frame, from: usize) -> Vec<usize> {
        let to = match frame.head.first_chunk::<6>() {
            Some([2, 0xff, ..]) => vec![self.port],
            Some([2, 0, 0, 0, high, low]) => vec![usize::from(u16::from_be_bytes([*high, *low]))],
            Some([first, ..]) if first & 1 == 1 => {
                (self.first..self.first + self.nodes).chain([self.port]).collect()
            }
            _ => Vec::new(),
        };
        to.into_iter().filter(|to| *to != from && (*to == self.port || self.has(*to))).collect()
    }
}

fn address_at(frame: &Frame, at: usize) -> Option<Ipv6Addr> {
    let at = usize::from(ETHERNET) + at;
    let octets: [u8; ADDRESS] = frame.head.get(at..at + ADDRESS)?.try_into().ok()?;
    Some(octets.into())
}

impl World {
    /// The home link is there before the nodes on it.
    pub(super) fn attach_home_link(&mut self) {
        if self.home_link == 0 {
            return;
        }
        assert!(self.agent.is_none(), "the service address is on the home link or with a home agent");
        let whole = Quality { delay: core::time::Duration::ZERO, ..Quality::default() };
        let (name, up, down) = ("the home link".to_owned(), whole.clone(), whole);
        let attachment = Attachment { name, up, down, mtu: 1500, path_mtu: 1500, tap: false };
        // Nobody is there: a switch has nothing to say.
        let port = self.attach_body(Body::Gone, Sender::Ours, attachment, vec![HOME_ROUTER]);
        self.home = Some(HomeLink { port, first: port + 1, nodes: self.home_link });
    }

    pub(super) fn is_on_home_link(&self, place: usize) -> bool {
        self.home.is_some_and(|home| home.has(place))
    }

    /// The care-of address of a node.
    pub(super) fn care_of(&self, place: usize) -> Ipv6Addr {
        if self.is_on_home_link(place) { HomeLink::care_of(place) } else { Self::address_of(place) }
    }

    /// The router that a machine sends to what is not on its link.
    pub(super) fn router_of(&self, place: usize) -> Ipv6Addr {
        if self.is_on_home_link(place) { HOME_ROUTER.address } else { Self::gateway_of(place) }
    }

    /// What the interface of a node is made from.
    pub(super) fn interface_of(&self, place: usize, mtu: u16) -> interface::Config {
        let addresses = vec![Address { address: self.care_of(place), prefix_len: 64 }];
        let gateway = Some(self.router_of(place));
        interface::Config { addresses, gateway, ..Self::interface_at(place, mtu) }
    }

    /// A frame is through a machine's cable: it has come to the router, or to the link that the machine shares with others.
    pub(super) fn emerge(&mut self, from: usize, frame: Frame) {
        match self.home.filter(|home| home.has(from)) {
            Some(home) => self.switch(home, from, &frame),
            None => self.router.receive(from, frame, self.now),
        }
        self.settle_router();
    }

    /// The router sends a frame, if it is one to the home link; gives it back if not.
    pub(super) fn put_on_home_link(&mut self, port: usize, frame: Frame) -> Option<Frame> {
        let Some(home) = self.home.filter(|home| home.port == port) else { return Some(frame) };
        for frame in link::finished(frame) {
            self.switch(home, port, &frame);
        }
        None
    }

    fn switch(&mut self, home: HomeLink, from: usize, frame: &Frame) {
        for to in home.targets(frame, from) {
            if self.is_cut_at_home(home, from, to, frame) {
                continue;
            }
            if to == home.port {
                self.router.receive(to, frame.clone(), self.now);
                continue;
            }
            for (at, frame) in self.places[to].down(frame.clone(), self.now) {
                self.schedule(at, Event::ToMachine(to, frame));
            }
        }
    }

    /// Whether nothing passes: behind the router it is the addresses that say where a packet comes from, or goes.
    fn is_cut_at_home(&self, home: HomeLink, from: usize, to: usize, frame: &Frame) -> bool {
        let place_of = |at| {
            let address = address_at(frame, at)?;
            (0..self.places.len()).find(|place| self.care_of(*place) == address)
        };
        let beyond = |end: usize, at| if end == home.port { place_of(at) } else { Some(end) };
        let ends = (beyond(from, SOURCE), beyond(to, SOURCE + ADDRESS));
        matches!(ends, (Some(from), Some(to)) if self.router.is_cut(from, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_comes_to_whom_it_is_for() {
        let home = HomeLink { port: 3, first: 4, nodes: 2 };
        let frame = |to: [u8; 6]| Frame::received([&to[..], &[0; 60]].concat().into());
        let cases = [
            ("a node", frame([2, 0, 0, 0, 0, 5]), 4, vec![5]),
            ("itself", frame([2, 0, 0, 0, 0, 4]), 4, vec![]),
            ("a machine elsewhere", frame([2, 0, 0, 0, 0, 9]), 4, vec![]),
            ("the router", frame([2, 0xff, 0, 0, 0, 3]), 5, vec![3]),
            ("all", frame([0x33, 0x33, 0, 0, 0, 1]), 5, vec![4, 3]),
            ("all, from the router", frame([0x33, 0x33, 0, 0, 0, 1]), 3, vec![4, 5]),
        ];
        for (name, frame, from, expected) in cases {
            assert_eq!(home.targets(&frame, from), expected, "{name}");
        }
        assert_ne!(HomeLink::care_of(4), SERVICE_ADDRESS);
    }
}
