//! Many connections: listeners and their queues, events, timers.

use alloc::vec::Vec;
use core::net::SocketAddrV6;
use core::time::Duration;

use bytes::Bytes;

use super::harness::{MS, Make, WINDOW, flow, plain, reversed};
use crate::icmp::{Error, Received};
use crate::ip::{self, Packet};
use crate::tcp::{
    Arrival, Config, Control, Ending, Endpoint, Event, Flow, Handle, Listener, Path, Reason, ReceivedRange,
    Refusal, Secret, Segment, State,
};
use crate::{Instant, Seq};

pub(super) struct Server {
    pub(super) endpoint: Endpoint,
    pub(super) now: Instant,
}

pub(super) fn client(port: u16) -> Flow {
    let Flow { local, remote } = flow();
    Flow { local, remote: SocketAddrV6::new(*remote.ip(), port, 0, 0) }
}

/// All that has come of what a client sent.
pub(super) const fn received(nxt: u32) -> ReceivedRange {
    ReceivedRange { irs: Seq(5000), nxt: Seq(nxt) }
}

fn parse(packet: &Packet) -> (Flow, Segment) {
    let datagram = ip::parse(packet.to_bytes(), packet.offload).unwrap();
    Segment::parse(&datagram).unwrap()
}

impl Server {
    pub(super) fn new(max_half_open: usize, max_waiting: usize) -> Self {
        let mut endpoint = Endpoint::new(Secret::new([7; 32]), 1500, false);
        endpoint.listen(80, Listener { max_half_open, max_waiting, ..Listener::new(plain()) });
        Self { endpoint, now: Instant::from_millis(1_000_000) }
    }

    pub(super) fn sent(&mut self) -> Vec<Segment> {
        let mut sent = Vec::new();
        while let Some((_, packet)) = self.endpoint.poll_transmit(self.now, |_| Path::default()) {
            sent.push(parse(&packet).1);
        }
        sent
    }

    pub(super) fn events(&mut self) -> Vec<Event> {
        core::iter::from_fn(|| self.endpoint.poll_event()).collect()
    }

    fn syn(&mut self, port: u16) -> Result<Handle, Refusal> {
        let mut syn = Segment::bare(Seq(5000), None, Some(Control::Syn));
        syn.window = WINDOW;
        assert_eq!(self.endpoint.receive(&client(port), &syn, self.now), Arrival::Unknown);
        self.endpoint.open(client(port), &syn, self.now)
    }

    fn answer(&mut self, handle: Handle) -> Segment {
        let tcb = self.endpoint.get(handle).unwrap();
        Segment { window: WINDOW, ..Segment::bare(tcb.rcv.nxt, Some(tcb.snd.nxt), None) }
    }

    pub(super) fn gets(&mut self, handle: Handle, segment: &Segment) -> Result<(), Reason> {
        let flow = self.endpoint.get(handle).unwrap().flow;
        match self.endpoint.receive(&flow, segment, self.now) {
            Arrival::Delivered(to, result) => {
                assert_eq!(to, handle);
                result
            }
            Arrival::Unknown => panic!("not known"),
        }
    }

    fn establish(&mut self, port: u16) -> Handle {
        let handle = self.syn(port).unwrap();
        assert_eq!(self.sent().len(), 1);
        let answer = self.answer(handle);
        self.gets(handle, &answer).unwrap();
        assert!(self.sent().is_empty());
        handle
    }

    pub(super) fn accepted(&mut self, port: u16) -> Handle {
        let handle = self.establish(port);
        assert_eq!(self.endpoint.accept(80), Some(handle));
        self.events();
        handle
    }

    /// Lets time pass; everything that is sent is lost.
    pub(super) fn wait(&mut self, span: Duration) {
        let end = self.now + span;
        while let Some(at) = self.endpoint.deadline().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.endpoint.handle_timeout(self.now);
            self.sent();
        }
        self.now = end;
    }

    fn half_open(&self) -> usize {
        self.endpoint.listener(80).unwrap().half_open()
    }
}

#[test]
fn a_connection_is_told_when_it_is_established_and_accepted_once() {
    let mut server = Server::new(4, 4);
    let handle = server.establish(1);
    assert_eq!(server.events()[0], Event::Acceptable(80));
    assert_eq!(server.endpoint.accept(80), Some(handle));
    assert_eq!(server.endpoint.accept(80), None);
}

#[test]
fn a_full_syn_queue_refuses_until_a_handshake_is_over() {
    let mut server = Server::new(2, 4);
    let first = server.syn(1).unwrap();
    server.syn(2).unwrap();
    assert_eq!(server.syn(3), Err(Refusal::QueueFull));
    server.sent();
    let answer = server.answer(first);
    server.gets(first, &answer).unwrap();
    assert_eq!(server.half_open(), 1);
    server.syn(3).unwrap();
}

#[test]
fn handshakes_that_fail_leave_the_syn_queue() {
    let mut server = Server::new(3, 4);
    let ends: [fn(&mut Server, Handle); 4] = [
        |server, handle| {
            let reset = server.answer(handle).rst();
            server.gets(handle, &reset).unwrap();
        },
        |server, handle| {
            server.endpoint.with(handle, crate::tcp::Tcb::abort);
        },
        |server, _| server.wait(Duration::from_secs(1000)),
        |server, handle| {
            server.endpoint.export(handle, server.now).unwrap();
        },
    ];
    for end in ends {
        let handle = server.syn(1).unwrap();
        server.sent();
        assert_eq!(server.half_open(), 1);
        end(&mut server, handle);
        server.sent();
        assert_eq!(server.half_open(), 0);
        assert!(server.endpoint.is_empty());
    }
}

#[test]
fn a_full_accept_queue_makes_the_client_wait_but_not_its_reset() {
    let mut server = Server::new(4, 1);
    let second = server.syn(2).unwrap();
    let third = server.syn(3).unwrap();
    server.sent();
    server.establish(1);
    assert_eq!(server.syn(4), Err(Refusal::QueueFull));
    let answer = server.answer(second);
    assert_eq!(server.gets(second, &answer), Err(Reason::QueueFull));
    assert_eq!(server.endpoint.get(second).unwrap().state, State::SynReceived);
    let reset = server.answer(third).rst();
    server.gets(third, &reset).unwrap();
    server.sent();
    assert_eq!(server.half_open(), 1);
    server.endpoint.accept(80).unwrap();
    server.gets(second, &answer).unwrap();
    assert_eq!(server.endpoint.accept(80), Some(second));
    assert_eq!(server.half_open(), 0);
}

#[test]
fn a_connection_that_dies_in_the_accept_queue_is_not_accepted() {
    let mut server = Server::new(4, 4);
    let handle = server.establish(1);
    let reset = server.answer(handle).rst();
    server.gets(handle, &reset).unwrap();
    server.sent();
    assert_eq!(server.endpoint.accept(80), None);
    assert!(server.events().contains(&Event::Closed(handle, client(1), Ending::Reset, received(5001))));
}

#[test]
fn a_handshake_moves_and_is_completed_elsewhere() {
    let (mut donor, mut acceptor) = (Server::new(4, 4), Server::new(4, 4));
    let handle = donor.syn(1).unwrap();
    donor.sent();
    let frozen = donor.endpoint.export(handle, donor.now).unwrap();
    assert_eq!(donor.half_open(), 0);
    let handle = acceptor.endpoint.import(frozen.clone(), acceptor.now).unwrap();
    assert_eq!(acceptor.half_open(), 1);
    assert_eq!(acceptor.endpoint.import(frozen, acceptor.now), Err(Refusal::Exists));
    assert!(acceptor.sent()[0].is_syn(), "the answer is repeated at once");
    let answer = acceptor.answer(handle);
    acceptor.gets(handle, &answer).unwrap();
    assert_eq!(acceptor.endpoint.accept(80), Some(handle));
    assert_eq!(acceptor.half_open(), 0);
}

#[test]
fn an_established_connection_that_nobody_accepted_moves_and_waits_in_no_queue_any_more() {
    let (mut donor, mut acceptor) = (Server::new(4, 1), Server::new(4, 1));
    let (first, second) = (donor.establish(1), acceptor.establish(2));
    let frozen = donor.endpoint.export(first, donor.now).unwrap();
    assert_eq!((donor.endpoint.accept(80), donor.endpoint.len()), (None, 0));
    // Whoever imports it has it: a queue that is full does not stand in its way, and nobody else accepts it.
    let first = acceptor.endpoint.import(frozen, acceptor.now).unwrap();
    assert!(acceptor.events().contains(&Event::Ready(first)));
    assert_eq!((acceptor.endpoint.accept(80), acceptor.endpoint.accept(80)), (Some(second), None));
    let octets = acceptor.answer(first).data(b"abc");
    acceptor.gets(first, &octets).unwrap();
    assert_eq!(acceptor.endpoint.with(first, |tcb| tcb.read(9)).unwrap(), Bytes::from_static(b"abc"));
    // There is room in the queue that it has left.
    donor.establish(3);
}

#[test]
fn listening_again_forgets_nobody() {
    let mut server = Server::new(4, 4);
    let waiting = server.establish(1);
    let opening = server.syn(2).unwrap();
    server.sent();
    server.endpoint.listen(80, Listener::new(plain()));
    assert_eq!(server.half_open(), 1);
    assert_eq!(server.endpoint.accept(80), Some(waiting));
    let answer = server.answer(opening);
    server.gets(opening, &answer).unwrap();
    assert_eq!(server.endpoint.accept(80), Some(opening));
}

#[test]
fn an_imported_connection_is_ready() {
    let (mut donor, mut acceptor) = (Server::new(4, 4), Server::new(4, 4));
    let handle = donor.accepted(1);
    let octets = donor.answer(handle).data(b"abc");
    donor.gets(handle, &octets).unwrap();
    let frozen = donor.endpoint.export(handle, donor.now).unwrap();
    assert!(donor.endpoint.is_empty());
    let handle = acceptor.endpoint.import(frozen, acceptor.now).unwrap();
    assert_eq!(acceptor.events(), [Event::Ready(handle)]);
    assert_eq!(acceptor.sent().len(), 1);
}

#[test]
fn what_cannot_be_true_is_not_imported() {
    let mut server = Server::new(4, 4);
    let handle = server.accepted(1);
    let mut frozen = server.endpoint.export(handle, server.now).unwrap();
    frozen.snd.in_flight += 1;
    assert!(matches!(server.endpoint.import(frozen, server.now), Err(Refusal::Broken(_))));
    assert!(server.endpoint.is_empty());
}

#[test]
fn readiness_is_told_once_until_it_is_heard() {
    let mut server = Server::new(4, 4);
    let handle = server.accepted(1);
    for _ in 0..3 {
        let octets = server.answer(handle).data(b"abc");
        server.gets(handle, &octets).unwrap();
    }
    assert_eq!(server.events(), [Event::Ready(handle)]);
    let octets = server.answer(handle).data(b"abc");
    server.gets(handle, &octets).unwrap();
    assert_eq!(server.events(), [Event::Ready(handle)]);
    server.endpoint.with(handle, |tcb| tcb.write(b"abc".as_slice().into()));
    server.sent();
    assert_eq!(server.events(), []);
    let answer = server.answer(handle);
    server.gets(handle, &answer).unwrap();
    assert_eq!(server.events(), [Event::Ready(handle)], "room to write");
    let fin = server.answer(handle).fin();
    server.gets(handle, &fin).unwrap();
    assert_eq!(server.events(), [Event::Ready(handle)], "the other side finished");
}

#[test]
fn what_came_before_the_end_can_still_be_read() {
    let mut server = Server::new(4, 4);
    let handle = server.accepted(1);
    let last = server.answer(handle).data(b"abc").fin();
    server.gets(handle, &last).unwrap();
    server.endpoint.with(handle, crate::tcp::Tcb::finish);
    server.sent();
    let answer = server.answer(handle);
    server.gets(handle, &answer).unwrap();
    server.sent();
    assert_eq!(server.events(), [Event::Ready(handle)]);
    assert_eq!(server.endpoint.with(handle, |tcb| tcb.read(9)).unwrap(), b"abc".as_slice());
    server.sent();
    assert_eq!(server.events(), [Event::Closed(handle, client(1), Ending::Finished, received(5005))]);
    assert!(server.endpoint.get(handle).is_none());
}

#[test]
fn deadlines_are_never_missed_though_they_move() {
    let config = Config { retries: 3, ..plain() };
    let mut server = Server::new(4, 4);
    server.endpoint.listen(80, Listener::new(config));
    let handles: Vec<_> = (1..20).map(|port| server.accepted(port)).collect();
    for (nth, handle) in handles.iter().enumerate() {
        server.now += Duration::from_millis(nth as u64 * 7);
        server.endpoint.with(*handle, |tcb| tcb.write(b"abc".as_slice().into()));
        server.sent();
        let answer = server.answer(*handle);
        if nth % 3 == 0 {
            server.gets(*handle, &answer).unwrap();
        }
        let deadlines = server.endpoint.iter().filter_map(|(_, tcb)| tcb.deadline());
        let first = deadlines.min();
        server.sent();
        assert!(server.endpoint.deadline() <= first || first.is_none(), "never later than the first");
    }
    server.wait(Duration::from_secs(1000));
    let closed =
        server.events().into_iter().filter(|event| matches!(event, Event::Closed(_, _, Ending::TimedOut, _)));
    assert_eq!(closed.count(), 12);
    assert_eq!(server.endpoint.len(), 7);
}

#[test]
fn a_handle_is_never_used_again() {
    let mut server = Server::new(4, 4);
    let first = server.accepted(1);
    server.endpoint.export(first, server.now).unwrap();
    let second = server.accepted(1);
    assert_ne!(first, second);
    assert!(server.endpoint.get(first).is_none());
    assert!(server.endpoint.with(first, |_| ()).is_none());
}

fn in_time_wait(server: &mut Server) -> Handle {
    let handle = server.accepted(1);
    server.endpoint.with(handle, crate::tcp::Tcb::finish);
    server.sent();
    let fin = server.answer(handle).fin();
    server.gets(handle, &fin).unwrap();
    server.sent();
    server.events();
    assert!(matches!(server.endpoint.get(handle).unwrap().state, State::TimeWait { .. }));
    handle
}

#[test]
fn a_later_syn_reopens_a_connection_in_time_wait() {
    // RFC 9293 section 3.6.1: only if its sequence number is beyond the old ones.
    for (seq, reopens) in [(5003, true), (5000, false), (5002, false)] {
        let mut server = Server::new(4, 4);
        let handle = in_time_wait(&mut server);
        let syn = Segment { window: WINDOW, ..Segment::bare(Seq(seq), None, Some(Control::Syn)) };
        let arrival = server.endpoint.receive(&client(1), &syn, server.now);
        assert_eq!(arrival == Arrival::Unknown, reopens, "{seq}");
        let told =
            server.events().contains(&Event::Closed(handle, client(1), Ending::Finished, received(5002)));
        assert_eq!(told, reopens, "{seq}");
    }
}

#[test]
fn a_later_syn_to_a_port_where_nobody_listens_does_not_end_time_wait() {
    let mut server = Server::new(4, 4);
    let handle = in_time_wait(&mut server);
    server.endpoint.unlisten(80);
    let syn = Segment { window: WINDOW, ..Segment::bare(Seq(5003), None, Some(Control::Syn)) };
    let arrival = server.endpoint.receive(&client(1), &syn, server.now);
    assert!(matches!(arrival, Arrival::Delivered(..)), "{arrival:?}");
    assert!(matches!(server.endpoint.get(handle).unwrap().state, State::TimeWait { .. }));
    // RFC 5961 section 4: challenged like any SYN.
    let [answer] = &server.sent()[..] else { panic!("one answer") };
    assert_eq!((answer.control, answer.ack), (None, Some(Seq(5002))));
}

#[test]
fn a_segment_for_nobody_is_refused_and_a_reset_is_not() {
    let mut endpoint = Endpoint::new(Secret::new([7; 32]), 1500, false);
    let plain = Segment::bare(Seq(100), Some(Seq(9)), None);
    let cases = [
        (plain.clone(), Seq(9), None),
        (Segment { ack: None, ..plain.clone().data(b"abc") }, Seq(0), Some(Seq(103))),
        (Segment { ack: None, ..plain.clone().syn_bit() }, Seq(0), Some(Seq(101))),
    ];
    for (segment, seq, ack) in cases {
        let (flow, reset) = parse(&endpoint.refuse(&client(1), &segment).unwrap());
        assert_eq!(flow, reversed(client(1)));
        assert!(reset.is_rst());
        assert_eq!((reset.seq, reset.ack), (seq, ack));
    }
    assert!(endpoint.refuse(&client(1), &plain.clone().rst()).is_none());
    assert_eq!(endpoint.resets(), 3);
    // A listener has nothing to say to what neither opens nor acknowledges.
    endpoint.listen(client(1).local.port(), Listener::new(Config::default()));
    assert!(endpoint.refuse(&client(1), &Segment { ack: None, ..plain.clone().fin() }).is_none());
    assert!(endpoint.refuse(&client(1), &plain).is_some());
}

#[test]
fn a_reset_is_one_whatever_other_bits_it_has() {
    let mut packet = Segment::bare(Seq(5), None, Some(Control::Rst)).emit(&client(1), 0, false);
    packet.head[40 + 13] |= 0b11;
    packet.offload.checksum = crate::Checksum::Verified;
    assert!(parse(&packet).1.is_rst());
}

#[test]
fn a_packet_too_big_finds_its_connection() {
    let mut server = Server::new(4, 4);
    let handle = server.accepted(1);
    server.endpoint.with(handle, |tcb| tcb.write(alloc::vec![1; 3000].into()));
    let (_, packet) = server.endpoint.poll_transmit(server.now, |_| Path::default()).unwrap();
    let quote = crate::icmp::quote(&packet.to_bytes()).unwrap();
    let from = core::net::Ipv6Addr::LOCALHOST;
    server
        .endpoint
        .receive_error(&Received { error: Error::PacketTooBig { mtu: 1300 }, from, quote }, server.now);
    assert_eq!(server.endpoint.get(handle).unwrap().snd.path_mtu, 1300);
    assert_eq!(server.half_open(), 0);
    server.wait(1000 * MS);
}

#[test]
fn a_connection_that_has_talked_for_long_leaves_no_timer_behind() {
    let keep_alive =
        crate::tcp::KeepAlive { idle: Duration::from_hours(2), interval: Duration::from_secs(75), count: 9 };
    let mut server = Server::new(4, 4);
    server.endpoint.listen(80, Listener::new(Config { keep_alive: Some(keep_alive), ..plain() }));
    let handle = server.accepted(1);
    for _ in 0..50 {
        // Each time the retransmission timer is set, fires and is stopped again.
        server.endpoint.with(handle, |tcb| tcb.write(Bytes::from_static(b"x"))).unwrap();
        server.sent();
        server.wait(Duration::from_secs(1));
        let answer = server.answer(handle);
        server.gets(handle, &answer).unwrap();
        server.sent();
    }
    server.endpoint.export(handle, server.now).unwrap();
    assert_eq!(server.endpoint.deadline(), None);
}

#[test]
fn what_a_client_has_sent_is_known_from_what_it_sends_when_it_uses_its_port_again() {
    // RFC 6528: its next initial sequence number is later; some hosts draw one.
    for (seq, late) in
        [(5000, true), (5001, true), (5002, true), (5003, false), (4999, false), (1 << 31, false)]
    {
        assert_eq!(received(5002).may_repeat(Seq(seq)), late, "{seq}");
    }
    let around = ReceivedRange { irs: Seq(u32::MAX), nxt: Seq(1) };
    assert!(around.may_repeat(Seq(u32::MAX)) && around.may_repeat(Seq(1)) && !around.may_repeat(Seq(2)));
}
