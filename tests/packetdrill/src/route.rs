//! What the route of a connection says of sizes: `advmss` and `mtu lock` of `ip route`, as flags.

use ferry_stack::tcp::Handle;

use crate::world::World;

impl World {
    /// In Linux a passive connection that looks for larger packets from the start sends what its route says until the
    /// first probe has arrived, and its window counts such segments.
    pub(crate) fn follow_route(&mut self, handle: Handle) {
        let Some(route) = self.settings.route_mtu else { return };
        self.tcp.with(handle, |tcb| {
            if tcb.snd.search.is_some() && tcb.snd.acked_total == 0 && tcb.snd.sent.is_empty() {
                tcb.snd.path_mtu = route;
                tcb.congestion.cwnd = u32::from(tcb.config.initial_window) * tcb.mss();
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddrV6;

    use bytes::Bytes;
    use ferry_stack::Seq;
    use ferry_stack::ip::{self, Datagram};
    use ferry_stack::tcp::{Control, Flow, Options, Segment};

    use super::*;

    fn clients() -> Flow {
        let local = SocketAddrV6::new("2001:db8::1".parse().unwrap(), 40_000, 0, 0);
        Flow { local, remote: SocketAddrV6::new("fd00::1".parse().unwrap(), 8080, 0, 0) }
    }

    fn arrive(world: &mut World, segment: &Segment) {
        world.arrive(&segment.emit(&clients(), 0, false).to_bytes());
    }

    fn left(world: &mut World) -> Segment {
        let (_, packet) = world.next_packet().unwrap();
        let datagram: Datagram = ip::parse(Bytes::from(packet), ferry_stack::Offload::default()).unwrap();
        Segment::parse(&datagram).unwrap().1
    }

    /// Writes, and acknowledges all; the sizes of the segments.
    fn flight(world: &mut World, fd: i32, octets: usize) -> Vec<usize> {
        let answer = world.try_write(fd, &mut Bytes::from(vec![0; octets]), &mut 0, false);
        assert!(matches!(answer, Some(Ok(_))));
        world.pump();
        let (mut sizes, mut ack) = (Vec::new(), Seq(0));
        while sizes.iter().sum::<usize>() < octets {
            let segment = left(world);
            sizes.push(segment.payload.len());
            ack = segment.end();
        }
        let mut answer = Segment::bare(Seq(1), Some(ack), None);
        answer.window = 50_000;
        arrive(world, &answer);
        sizes
    }

    /// The conversation of packetdrill's suite `mtu_probe`.
    #[test]
    fn a_connection_that_probes_sends_what_its_route_says_until_the_middle_has_arrived() {
        let flags = "mtu_probing=2,base_mss=512,advmss=600,route_mtu=660,iw=11,ts=0,sack=0";
        let mut world = World::new(flags.parse().unwrap());
        let listener = world.socket(libc::AF_INET6, libc::SOCK_STREAM, 0).unwrap();
        world.bind(listener, clients().remote).unwrap();
        world.listen(listener, 1).unwrap();
        let options = Options { mss: Some(1460), window_scale: Some(0), ..Options::default() };
        let syn = Segment { window: 50_000, options, ..Segment::bare(Seq(0), None, Some(Control::Syn)) };
        arrive(&mut world, &syn);
        let answer = left(&mut world);
        assert_eq!(answer.options.mss, Some(600));
        let ack = Segment { window: 50_000, ..Segment::bare(Seq(1), Some(answer.seq + 1_u32), None) };
        arrive(&mut world, &ack);
        let fd = world.try_accept(listener).unwrap().unwrap();
        assert_eq!(flight(&mut world, fd, 4000), [986, 600, 600, 600, 600, 600, 14]);
        assert_eq!(flight(&mut world, fd, 2000), [986, 986, 28]);
    }
}
