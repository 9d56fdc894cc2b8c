//! What scripts for Linux look at, and the engine leaves to whoever uses it.

use std::net::{Ipv6Addr, SocketAddrV6};
use std::time::Duration;

use ferry_stack::Seq;
use ferry_stack::frame::Offload;
use ferry_stack::icmp::{Error, Quote, Received};
use ferry_stack::ip;
use ferry_stack::tcp::{Control, Flow, Segment};

use crate::errno::Errno;
use crate::settings::Settings;
use crate::world::World;

const OURS: Ipv6Addr = Ipv6Addr::new(0xfd3d, 0, 0, 0, 0, 0, 0, 1);
const THEIRS: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);

/// A world and a peer that does what it is told.
struct Scene {
    world: World,
    flow: Flow,
    /// What our side sends next, and what the peer does.
    ours: Seq,
    theirs: Seq,
}

impl Scene {
    fn new(flags: &str) -> Self {
        let settings: Settings = format!("{flags},sysctls=0").parse().unwrap();
        let (remote, local) = (SocketAddrV6::new(THEIRS, 40_001, 0, 0), SocketAddrV6::new(OURS, 8080, 0, 0));
        // As the peer sees it.
        let flow = Flow { local: remote, remote: local };
        Self { world: World::new(settings), flow, ours: Seq(0), theirs: Seq(1000) }
    }

    fn socket(&mut self) -> i32 {
        self.world.socket(libc::AF_INET6, libc::SOCK_STREAM, 0).unwrap()
    }

    /// A connection that the peer has opened, and its descriptor.
    fn accepted(flags: &str) -> (Self, i32) {
        let mut scene = Self::new(flags);
        let listener = scene.socket();
        scene.world.bind(listener, scene.flow.remote).unwrap();
        scene.world.listen(listener, 1).unwrap();
        let mut syn = Segment::bare(scene.theirs, None, Some(Control::Syn));
        (syn.window, syn.options.mss, syn.options.sack_permitted) = (65_535, Some(1000), true);
        syn.options.window_scale = Some(7);
        scene.arrive(&syn);
        let answer = scene.leaves().unwrap();
        (scene.ours, scene.theirs) = (answer.seq + 1_u32, scene.theirs + 1_u32);
        scene.world.advance(scene.world.now() + Duration::from_millis(100));
        scene.acknowledge(0);
        let fd = scene.world.try_accept(listener).unwrap().expect("the handshake is over");
        (scene, fd)
    }

    fn arrive(&mut self, segment: &Segment) {
        self.world.arrive(&segment.emit(&self.flow, 0, false).to_bytes());
    }

    /// The peer acknowledges so many octets of ours.
    fn acknowledge(&mut self, octets: u32) {
        let mut segment = Segment::bare(self.theirs, Some(self.ours + octets), None);
        segment.window = 500;
        self.arrive(&segment);
    }

    fn write(&mut self, fd: i32, octets: usize) -> usize {
        let (mut octets, mut sent) = (vec![0; octets].into(), 0);
        drop(self.world.try_write(fd, &mut octets, &mut sent, false));
        self.world.pump();
        sent
    }

    /// What leaves at this moment of virtual time.
    fn leaves(&mut self) -> Option<Segment> {
        let (_, packet) = self.world.left_now()?;
        let datagram = ip::parse(packet.into(), Offload::default()).unwrap();
        Some(Segment::parse(&datagram).unwrap().1)
    }

    fn flight(&mut self) -> Vec<Segment> {
        std::iter::from_fn(|| self.leaves()).collect()
    }
}

#[test]
fn bursts_of_two_end_with_a_push_on_a_long_path() {
    let (mut scene, fd) = Scene::accepted("");
    assert_eq!(scene.write(fd, 7000), 7000);
    let pushed: Vec<_> = scene.flight().iter().map(|segment| segment.push).collect();
    assert_eq!(pushed, [false, true, false, true, false, true, true], "the last by the write");
}

#[test]
fn an_unreachable_peer_fails_a_connect_at_once() {
    for (code, errno) in [(0, Errno::ENETUNREACH), (3, Errno::EHOSTUNREACH), (4, Errno::ECONNREFUSED)] {
        let mut scene = Scene::new("");
        let fd = scene.socket();
        let to = SocketAddrV6::new(THEIRS, 80, 0, 0);
        assert_eq!(scene.world.connect(fd, to), Err(Errno::EINPROGRESS));
        scene.world.pump();
        let syn = scene.leaves().unwrap();
        let flow = scene.world.tcp.iter().next().unwrap().1.flow;
        let ports = [flow.local.port().to_be_bytes(), flow.remote.port().to_be_bytes()].concat();
        let quote = Quote {
            source: *flow.local.ip(),
            destination: *flow.remote.ip(),
            upper: ip::TCP,
            upper_header: [ports, syn.seq.0.to_be_bytes().to_vec()].concat().into(),
        };
        scene.world.receive_error(&Received { error: Error::Unreachable { code }, from: THEIRS, quote });
        scene.world.pump();
        assert_eq!(scene.world.try_connect(fd), Err(errno), "code {code}");
        assert!(scene.leaves().is_none(), "nothing is sent to a peer that cannot be reached");
    }
}

#[test]
fn a_user_timeout_ends_what_nobody_acknowledges() {
    let (mut scene, fd) = Scene::accepted("");
    let millis = 3000_i32.to_ne_bytes();
    scene.world.set_option(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, &millis).unwrap();
    assert_eq!(scene.world.option(fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT), Ok(millis.to_vec()));
    scene.write(fd, 100);
    scene.world.advance(scene.world.now() + Duration::from_millis(3100));
    let error = scene.world.option(fd, libc::SOL_SOCKET, libc::SO_ERROR);
    assert_eq!(error, Ok(libc::ETIMEDOUT.to_ne_bytes().to_vec()));
}

#[test]
fn cookies_are_given_and_taken_when_they_are_asked_for() {
    let (scene, _) = Scene::accepted("syncookies=2");
    assert_eq!(scene.world.tcp.cookies().accepted, 1);
}

#[test]
fn what_is_unsent_bounds_a_write_by_whole_bursts() {
    let (mut scene, fd) = Scene::accepted("");
    let limit = 4000_i32.to_ne_bytes();
    scene.world.set_option(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, &limit).unwrap();
    // Ten segments go at once; then a burst of half the largest window, which that of the SYN was, in whole segments.
    assert_eq!(scene.write(fd, 100_000), 10_000 + 32_000);
    assert_eq!(scene.world.unacknowledged(fd, true), Ok(32_000), "all that was taken is there");
    assert_eq!(scene.write(fd, 100_000), 0);
}

#[test]
fn reordering_is_told_in_segments() {
    let (mut scene, fd) = Scene::accepted("");
    scene.write(fd, 10_000);
    let degree = |scene: &Scene| {
        let (handle, tcb) = scene.world.tcp.iter().next().unwrap();
        let info = crate::info::tcp_info(tcb, scene.world.traffic.get(&handle), scene.world.now());
        u32::from_ne_bytes(info[88..92].try_into().unwrap())
    };
    assert_eq!(degree(&scene), 3);
    for (from, to) in [(7000_u32, 8000_u32), (2000, 3000)] {
        let mut segment = Segment::bare(scene.theirs, Some(scene.ours), None);
        segment.window = 500;
        segment.options.sack[0] = Some((scene.ours + from, scene.ours + to));
        scene.arrive(&segment);
    }
    assert_eq!(degree(&scene), 6);
}
