//! A machine that opens connections without end and answers nothing, under addresses that are not its own.

use core::net::{Ipv6Addr, SocketAddrV6};
use core::time::Duration;

use ferry_stack::interface::{self, Interface};
use ferry_stack::tcp::{Control, Flow, Options, Segment, Tcb, Timestamps};
use ferry_stack::{Frame, Instant, Seq};

use crate::octets::Octets;
use crate::rng::Rng;
use crate::stack::{End, Phase, Stack};

/// Sends SYNs.
#[derive(Debug)]
pub struct Flood {
    interface: Interface,
    prefix: u128,
    target: SocketAddrV6,
    left: u32,
    every: Duration,
    next: Instant,
    rng: Rng,
}

impl Flood {
    /// Sends `count` SYNs to `target`, one after the other, `every` so often, from addresses of its link.
    pub fn new(
        config: interface::Config,
        target: SocketAddrV6,
        count: u32,
        every: Duration,
        rng: Rng,
    ) -> Self {
        let own = config.addresses.first().map_or(Ipv6Addr::UNSPECIFIED, |first| first.address);
        let prefix = own.to_bits() & !u128::from(u64::MAX);
        let next = Instant::from_millis(10);
        Self { interface: Interface::new(config), prefix, target, left: count, every, next, rng }
    }

    fn send(&mut self, now: Instant) {
        let source = Ipv6Addr::from_bits(self.prefix | u128::from(self.rng.any() | 1 << 40));
        let port = u16::try_from(self.rng.within(1..=0xffff)).unwrap_or(1);
        let flow = Flow { local: SocketAddrV6::new(source, port, 0, 0), remote: self.target };
        let [irs, value] = [self.rng.any(), self.rng.any()]
            .map(|number| u32::try_from(number & 0xffff_ffff).unwrap_or_default());
        let mut syn = Segment::bare(Seq(irs), None, Some(Control::Syn));
        syn.options = Options {
            mss: Some(1440),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: self.rng.chance(500).then_some(Timestamps { value, echo: 0 }),
            ..Options::default()
        };
        self.interface.send(syn.emit(&flow, 0, false), now);
    }
}

impl Stack for Flood {
    fn listen(&mut self, _: u16) {}

    fn accept(&mut self) -> Option<(usize, u16)> {
        None
    }

    fn connect(&mut self, server: SocketAddrV6, _: Instant) -> (usize, SocketAddrV6) {
        (0, server)
    }

    fn phase(&self, _: usize) -> Phase {
        Phase::Over(End::Aborted)
    }

    fn is_settled(&self, _: usize) -> bool {
        true
    }

    fn act(&mut self, _: usize, _: Instant, _: &mut dyn FnMut(&mut dyn Octets)) {}

    fn receive(&mut self, frame: Frame, now: Instant) {
        // Neighbour discovery only: what is answered to its SYNs goes nowhere.
        let _ = self.interface.receive(frame, now);
    }

    fn transmit(&mut self, now: Instant) -> Option<Frame> {
        while self.left > 0 && self.next <= now {
            self.left -= 1;
            self.next += self.every;
            self.send(now);
        }
        self.interface.poll_transmit()
    }

    fn deadline(&mut self, _: Instant) -> Option<Instant> {
        let next = (self.left > 0).then_some(self.next);
        [self.interface.deadline(), next].into_iter().flatten().min()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.interface.handle_timeout(now);
    }

    fn tcbs(&self, _: Instant) -> Vec<(&Tcb, Instant)> {
        Vec::new()
    }
}
