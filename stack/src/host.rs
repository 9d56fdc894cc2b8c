//! A plain host: an [`Interface`] with a TCP [`Endpoint`] on top. What a client is, or a server that never moves
//! a connection. Frames and time in, frames and deadlines out.

use core::net::Ipv6Addr;

use crate::frame::Frame;
use crate::icmp::{self, Received};
use crate::interface::{Config, Interface};
use crate::ip::{self, Datagram};
use crate::tcp::{Arrival, Endpoint, Flow, Path, Reason, Refusal, Secret, Segment};
use crate::{Instant, Seq};

/// A plain host.
#[derive(Debug)]
pub struct Host {
    /// Everything below TCP.
    pub interface: Interface,
    /// TCP.
    pub tcp: Endpoint,
    path: Path,
}

impl Host {
    /// A host without connections. With `offload` checksums and segmentation are left to whoever takes the frames.
    pub fn new(config: Config, secret: Secret, offload: bool) -> Self {
        let tcp = Endpoint::new(secret, config.mtu, offload);
        Self { interface: Interface::new(config), tcp, path: Path { overhead: 0, segmentation: offload } }
    }

    /// Takes a frame.
    pub fn receive(&mut self, frame: Frame, now: Instant) {
        let Some(datagram) = self.interface.receive(frame, now) else { return };
        match datagram.upper {
            ip::TCP => self.receive_segment(&datagram, now),
            ip::ICMPV6 => self.receive_error(&datagram, now),
            _ => self.interface.icmp_error(&datagram, icmp::Error::unknown_upper(&datagram), now),
        }
    }

    /// A segment of no connection opens one at a listener, or is refused (RFC 9293 sections 3.10.7.1 and 3.10.7.2).
    fn receive_segment(&mut self, datagram: &Datagram, now: Instant) {
        let Ok((flow, segment)) = Segment::parse(datagram) else { return };
        self.interface.confirm_reachable(*flow.remote.ip(), now);
        let refused = match self.tcp.receive(&flow, &segment, now) {
            Arrival::Delivered(_, Err(Reason::AckOfNothing(_))) => true,
            Arrival::Delivered(..) => false,
            Arrival::Unknown if segment.opens() => self.open(flow, &segment, now),
            Arrival::Unknown => match self.tcp.open_by_cookie(flow, &segment, now) {
                Err(Refusal::NoCookie) => !self.tcp.may_follow_own_cookie(&flow, &segment, now),
                Err(Refusal::NoListener(_) | Refusal::CookieSpent) => true,
                _ => false,
            },
        };
        if refused && let Some(reset) = self.tcp.refuse(&flow, &segment) {
            self.interface.send(reset, now);
        }
    }

    /// Whether a SYN is to be refused.
    fn open(&mut self, flow: Flow, syn: &Segment, now: Instant) -> bool {
        match self.tcp.open(flow, syn, now) {
            Err(Refusal::NoListener(_)) => return true,
            Err(Refusal::QueueFull) => {
                if let Some(answer) = self.tcp.answer_without_memory(&flow, syn, now) {
                    self.interface.send(answer, now);
                }
            }
            _ => {}
        }
        false
    }

    fn receive_error(&mut self, datagram: &Datagram, now: Instant) {
        if let Some(received) = icmp::parse_error(datagram) {
            self.tcp.receive_error(&received, now);
            self.transmit(now);
        }
    }

    /// The next frame to put on the wire. Call until `None`.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Frame> {
        self.interface.poll_transmit().or_else(|| {
            self.transmit(now);
            self.interface.poll_transmit()
        })
    }

    fn transmit(&mut self, now: Instant) {
        let path = self.path;
        while let Some((_, packet)) = self.tcp.poll_transmit(now, |_| path) {
            self.interface.send(packet, now);
        }
    }

    /// The next moment at which [`Host::handle_timeout`] may have something to do.
    pub fn deadline(&self) -> Option<Instant> {
        [self.interface.deadline(), self.tcp.deadline()].into_iter().flatten().min()
    }

    /// Does what has come due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.interface.handle_timeout(now);
        self.tcp.handle_timeout(now);
    }
}

/// Which of our flows an ICMPv6 error quotes, and the sequence number of the quoted segment.
pub fn quoted_segment(received: &Received) -> Option<(Flow, Seq)> {
    let quote = &received.quote;
    if quote.upper != ip::TCP {
        return None;
    }
    let (ports, rest) = quote.upper_header.split_first_chunk::<4>()?;
    let (seq, _) = rest.split_first_chunk::<4>()?;
    let end = |address: Ipv6Addr, port: [u8; 2]| {
        core::net::SocketAddrV6::new(address, u16::from_be_bytes(port), 0, 0)
    };
    let [a, b, c, d] = *ports;
    let flow = Flow { local: end(quote.source, [a, b]), remote: end(quote.destination, [c, d]) };
    Some((flow, Seq(u32::from_be_bytes(*seq))))
}
