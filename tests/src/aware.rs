//! A host that understands Mobile IPv6: our own stack with the correspondent's half beneath it, as `ferry
//! correspondent` puts it beneath a kernel.

use core::net::{Ipv6Addr, SocketAddrV6};

use ferry_mipv6::correspondent::{Correspondent, Outgoing};
use ferry_mipv6::header::{self, Message};
use ferry_mipv6::route;
use ferry_stack::interface::Config as InterfaceConfig;
use ferry_stack::ip::{self, Datagram, Packet};
use ferry_stack::tcp::{Config, Tcb};
use ferry_stack::{Frame, Instant, Offload};

use crate::octets::Octets;
use crate::stack::{Phase, Plain, Stack};

/// Octets of an Ethernet header.
const ETHERNET: usize = 14;

/// A host that understands Mobile IPv6.
#[derive(Debug)]
pub struct Aware {
    plain: Plain,
    address: Ipv6Addr,
    correspondent: Correspondent,
    /// Whether what carries home addresses is dropped on the way, as on parts of the Internet.
    filtered: bool,
}

impl Aware {
    /// A host with one address. Packets without home addresses in them stay below the MTU by what these take.
    pub fn new(mut interface: InterfaceConfig, config: Config, secret: [u8; 32], filtered: bool) -> Self {
        let address = interface.addresses.first().map_or(Ipv6Addr::UNSPECIFIED, |first| first.address);
        interface.mtu -= route::ROUTING_OVERHEAD;
        let config = Config { mss: config.mss.min(interface.mtu - 60), ..config };
        let key = core::array::from_fn(|at| secret[at]);
        let plain = Plain::new(interface, config, secret, false);
        Self { plain, address, correspondent: Correspondent::new(key), filtered }
    }

    /// What a Mobility Header says.
    fn hear(&mut self, datagram: &Datagram, now: Instant) {
        let Ok(received) = header::open(datagram) else { return };
        if let Some(answer) = self.correspondent.receive(&received, now) {
            self.say(&answer, now);
        }
    }

    fn say(&mut self, message: &Outgoing, now: Instant) {
        self.plain.host.interface.send(message.packet(), now);
    }

    /// A frame as the stack above is to see it; nothing if it is not for it.
    fn inward(&mut self, frame: Frame, now: Instant) -> Option<Frame> {
        let frame = frame.contiguous();
        let Ok(datagram) = ip::parse(frame.head.slice(ETHERNET.min(frame.head.len())..), Offload::default())
        else {
            return Some(frame);
        };
        if datagram.destination != self.address {
            return Some(frame);
        }
        let mobile = datagram.home_address().is_some();
        if self.filtered && mobile && datagram.upper != ip::MOBILITY {
            return None;
        }
        if datagram.upper == ip::MOBILITY {
            self.hear(&datagram, now);
            return None;
        }
        let Some(home) = datagram.home_address() else { return Some(frame) };
        if let Some(error) = self.correspondent.check_claim(self.address, home, datagram.source, now) {
            self.say(&error, now);
            return None;
        }
        Some(with_packet(&frame, &route::stripped(datagram).into_packet()))
    }

    /// A frame as it leaves: what goes to a home address goes to the care-of address.
    fn outward(&mut self, frame: Frame, now: Instant) -> Frame {
        let frame = frame.contiguous();
        let Ok(datagram) = ip::parse(frame.head.slice(ETHERNET.min(frame.head.len())..), Offload::default())
        else {
            return frame;
        };
        let pair = (self.address, datagram.destination);
        if datagram.upper != ip::TCP {
            return frame;
        }
        let Some(care_of) = self.correspondent.use_binding(pair, now) else { return frame };
        let mut packet = datagram.into_packet();
        if !route::put_routing(&mut packet, care_of) {
            return frame;
        }
        with_packet(&frame, &packet)
    }
}

fn with_packet(frame: &Frame, packet: &Packet) -> Frame {
    let octets = [&frame.head[..ETHERNET], &packet.head, &packet.body].concat();
    Frame::received(octets.into())
}

impl Stack for Aware {
    fn listen(&mut self, port: u16) {
        self.plain.listen(port);
    }

    fn accept(&mut self) -> Option<(usize, u16)> {
        self.plain.accept()
    }

    fn connect(&mut self, server: SocketAddrV6, now: Instant) -> (usize, SocketAddrV6) {
        self.plain.connect(server, now)
    }

    fn connect_again(&mut self, local: SocketAddrV6, server: SocketAddrV6, now: Instant) -> Option<usize> {
        self.plain.connect_again(local, server, now)
    }

    fn phase(&self, connection: usize) -> Phase {
        self.plain.phase(connection)
    }

    fn is_settled(&self, connection: usize) -> bool {
        self.plain.is_settled(connection)
    }

    fn act(&mut self, connection: usize, now: Instant, act: &mut dyn FnMut(&mut dyn Octets)) {
        self.plain.act(connection, now, act);
    }

    fn receive(&mut self, frame: Frame, now: Instant) {
        if let Some(frame) = self.inward(frame, now) {
            self.plain.receive(frame, now);
        }
    }

    fn transmit(&mut self, now: Instant) -> Option<Frame> {
        let frame = self.plain.transmit(now)?;
        Some(self.outward(frame, now))
    }

    fn deadline(&mut self, now: Instant) -> Option<Instant> {
        [self.plain.deadline(now), self.correspondent.deadline()].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.plain.handle_timeout(now);
        for request in self.correspondent.handle_timeout(now) {
            debug_assert_eq!(request.message, Message::BindingRefreshRequest);
            self.say(&request, now);
        }
    }

    fn tcbs(&self, now: Instant) -> Vec<(&Tcb, Instant)> {
        self.plain.tcbs(now)
    }
}
