use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;

use ferry_handoff::Incarnation;
use ferry_stack::{EthernetAddress, GroupClock, interface::Address, tcp};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use tokio::sync::mpsc;

use super::*;
use crate::driver::links::{self, Channel, Ended, Handover};
use crate::driver::mailbox::{Mailbox, mailbox};
use crate::driver::peers::{Kind, frame_header};
use crate::{Command, Placement, Reply, Setup};

fn node() -> Node {
    let setup = Setup {
        name: "a".into(),
        group: "demo".into(),
        incarnation: Incarnation(1),
        secret: [7; 32],
        group_clock: GroupClock::default(),
        care_of: Address { address: "2001:db8:a::2".parse().unwrap(), prefix_len: 64 },
        gateway: "2001:db8:a::1".parse().unwrap(),
        mac: EthernetAddress([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        offload: true,
        service_address: "2001:db8:5::1".parse().unwrap(),
        contact: "a".into(),
        home_agent: None,
        placement: Placement::Local,
        rules: crate::Rules::default(),
        optimise: crate::Optimise::Auto,
        plain_source: crate::PlainSource::Auto,
        ask_again: std::time::Duration::from_mins(10),
        directory: crate::DirectorySetup::default(),
        tcp: tcp::Config::default(),
        peers: Vec::new(),
        services: Vec::new(),
    };
    Node::new(setup, now()).unwrap()
}

/// A data plane whose TAP is a pair of sockets: like a TAP it carries whole frames, and unlike one it is soon full.
struct Lab {
    plane: DataPlane,
    wire: OwnedFd,
    mailbox: Mailbox,
    replies: mpsc::Receiver<(u64, Reply)>,
}

impl Lab {
    fn new(busy_poll: Duration) -> Self {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let (end, wire) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap();
        let (mailbox, inbox) = mailbox().unwrap();
        let (sender, replies) = mpsc::channel(8);
        let tap = Tap::over(end);
        let plane = DataPlane {
            node: node(),
            tap,
            inbox,
            links: Links::new(links::Patience::default(), LINKS),
            replies: sender,
            tracer: None,
            auditor: None,
            busy_poll,
            life: None,
            store: None,
        };
        Self { plane, wire, mailbox, replies }
    }
}

fn frame(number: usize) -> Frame {
    let mut octets = vec![0; 1400];
    octets[..8].copy_from_slice(&number.to_be_bytes());
    Frame::received(octets.into())
}

/// The number of the next frame on the wire, behind its virtio-net header.
fn next(wire: &OwnedFd) -> Option<usize> {
    let mut octets = [0; 2000];
    let count = rustix::io::read(wire, &mut octets).ok()?;
    assert_eq!(count, 10 + 1400);
    Some(usize::from_be_bytes(octets[10..18].try_into().unwrap()))
}

#[test]
fn frames_that_find_no_room_wait_in_order_up_to_a_limit() {
    let Lab { plane, wire, .. } = Lab::new(Duration::ZERO);
    let mut running = Loop::new(plane).unwrap();
    let mut sent = 0;
    while running.backlog.len() < BACKLOG {
        running.send(frame(sent)).unwrap();
        sent += 1;
    }
    assert_eq!(running.lost.frames, 0);
    running.send(frame(sent)).unwrap();
    assert_eq!((running.lost.frames, running.backlog.len()), (1, BACKLOG));

    let mut seen = Vec::new();
    while seen.len() < sent {
        running.send_backlog().unwrap();
        seen.extend(core::iter::from_fn(|| next(&wire)));
    }
    assert_eq!(seen, (0..sent).collect::<Vec<_>>());
    assert!(running.backlog.is_empty());
}

#[test]
fn a_wire_that_is_gone_ends_the_data_plane_with_an_error() {
    let Lab { plane, wire, .. } = Lab::new(Duration::ZERO);
    let (thread, end) = plane.start().unwrap();
    drop(wire);
    assert!(end.blocking_recv().unwrap().is_err());
    thread.join().unwrap();
}

/// A neighbour solicitation for the care-of address (RFC 4861 section 4.3), from the router.
fn solicitation() -> Vec<u8> {
    let mut octets = vec![0; 10];
    octets.extend([0x33, 0x33, 0xff, 0, 0, 2, 2, 0, 0, 0, 0, 9, 0x86, 0xdd]);
    octets.extend([0x60, 0, 0, 0, 0, 32, 58, 255]);
    octets.extend("2001:db8:a::1".parse::<std::net::Ipv6Addr>().unwrap().octets());
    octets.extend("ff02::1:ff00:2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    octets.extend([135, 0, 0, 0, 0, 0, 0, 0]);
    octets.extend("2001:db8:a::2".parse::<std::net::Ipv6Addr>().unwrap().octets());
    octets.extend([1, 1, 2, 0, 0, 0, 0, 9]);
    let words = octets[24 + 8..].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum = words.sum::<u32>() + 32 + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let at = 24 + 40 + 2;
    let checksum = !u16::try_from(sum).unwrap();
    octets[at..at + 2].copy_from_slice(&checksum.to_be_bytes());
    octets
}

#[test]
fn a_sleeping_and_a_spinning_data_plane_answer_frames_and_commands_and_stop_when_told() {
    for busy_poll in [Duration::ZERO, Duration::from_millis(5)] {
        let Lab { plane, wire, mailbox, mut replies } = Lab::new(busy_poll);
        let (thread, end) = plane.start().unwrap();
        for id in 0..100 {
            mailbox.send(Letter::Command { id, command: Command::Status });
            let (answered, reply) = replies.blocking_recv().unwrap();
            assert!(answered == id && matches!(reply, Reply::Status(_)), "{id}: {reply:?}");
        }
        rustix::io::write(&wire, &solicitation()).unwrap();
        assert!(advertises(&wire), "no neighbour advertisement");
        mailbox.send(Letter::Stop);
        assert!(end.blocking_recv().unwrap().is_ok());
        thread.join().unwrap();
    }
}

/// Whether a neighbour advertisement comes before long; other frames may come before.
fn advertises(wire: &OwnedFd) -> bool {
    use rustix::event::{PollFd, PollFlags, poll};
    let patience = Timespec { tv_sec: 10, tv_nsec: 0 };
    let mut octets = [0; 2000];
    while poll(&mut [PollFd::new(wire, PollFlags::IN)], Some(&patience)).unwrap() == 1 {
        let count = rustix::io::read(wire, &mut octets).unwrap();
        if count > 64 && octets[64] == 136 {
            return true;
        }
    }
    false
}

/// A link in plain text for that data plane to another node; the test's end of it, and who is told of its end.
fn link(mailbox: &Mailbox) -> (UnixStream, oneshot::Receiver<Ended>) {
    let (socket, other) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let channel = Channel::new(TcpStream::from(OwnedFd::from(socket)), None);
    let (ended, end) = oneshot::channel();
    let (peer, incarnation, ours) = (NodeId::of("b"), Incarnation(9), Incarnation(1));
    mailbox.send(Letter::Link(Box::new(Handover { peer, incarnation, ours, channel, ended })));
    (other, end)
}

#[test]
fn a_sleeping_and_a_spinning_data_plane_answer_on_links_and_see_their_end() {
    for busy_poll in [Duration::ZERO, Duration::from_millis(5)] {
        let Lab { plane, mailbox, wire: _wire, replies: _replies } = Lab::new(busy_poll);
        let (thread, end) = plane.start().unwrap();
        let (mut other, link_end) = link(&mailbox);
        let mut sign = [0; 5];
        other.read_exact(&mut sign).unwrap();
        assert_eq!(sign, frame_header(Kind::Ping, 0));
        for _ in 0..100 {
            other.write_all(&frame_header(Kind::Ping, 0)).unwrap();
            while sign != frame_header(Kind::Pong, 0) {
                other.read_exact(&mut sign).unwrap();
            }
            sign = [0; 5];
        }
        drop(other);
        assert!(matches!(link_end.blocking_recv(), Ok(Ended::Closed)));
        mailbox.send(Letter::Stop);
        assert!(end.blocking_recv().unwrap().is_ok());
        thread.join().unwrap();
    }
}

#[test]
fn a_node_that_talks_without_end_keeps_nobody_from_being_answered() {
    let Lab { plane, wire, mailbox, mut replies } = Lab::new(Duration::ZERO);
    let (thread, end) = plane.start().unwrap();
    let (mut other, _link_end) = link(&mailbox);
    let talker = std::thread::spawn(move || {
        let nonsense = [&frame_header(Kind::Message, 3)[..], b"???"].concat().repeat(1000);
        // Until the data plane has ended.
        while other.write_all(&nonsense).is_ok() {}
    });
    for id in 0..20 {
        mailbox.send(Letter::Command { id, command: Command::Status });
        assert_eq!(replies.blocking_recv().unwrap().0, id);
        rustix::io::write(&wire, &solicitation()).unwrap();
        assert!(advertises(&wire), "no neighbour advertisement");
    }
    mailbox.send(Letter::Stop);
    talker.join().unwrap();
    assert!(end.blocking_recv().unwrap().is_ok());
    thread.join().unwrap();
}
