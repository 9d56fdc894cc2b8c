use core::time::Duration;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use bytes::{Bytes, BytesMut};
use rustix::event::epoll::CreateFlags;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, Connection, ServerConnection};

use super::*;
use crate::config::KeyFiles;
use crate::driver::peers::{Kind, MAX_MESSAGE, Tls, certified_name, frame_header, next_frame};
use crate::keygen;

const PATIENCE: Patience = Patience { ping: Duration::from_secs(1), silence: Duration::from_secs(3) };
const START: Instant = Instant::from_nanos(0);

/// Two ends of a stream that do not block.
fn sockets() -> [TcpStream; 2] {
    let (one, other) = UnixStream::pair().unwrap();
    [one, other].map(|socket| {
        socket.set_nonblocking(true).unwrap();
        TcpStream::from(OwnedFd::from(socket))
    })
}

/// A link against a test that speaks for the other side.
struct Lab {
    link: Link,
    other: TcpStream,
    messages: Vec<Bytes>,
    now: Instant,
}

impl Lab {
    fn new() -> Self {
        let [socket, other] = sockets();
        let link = Link::new(Channel::new(socket, None), PATIENCE, START);
        Self { link, other, messages: Vec::new(), now: START }
    }

    /// The other side has said a thousand numbers.
    fn with_a_thousand() -> Self {
        let mut lab = Self::new();
        let said: Vec<_> = numbered(1000).iter().flat_map(|message| frame(message)).collect();
        lab.other.write_all(&said).unwrap();
        lab
    }

    /// As the data plane does it, once epoll has told what there is.
    fn turn(&mut self) -> Result<(), Ended> {
        self.link.ready(EventFlags::IN | EventFlags::OUT);
        self.go_on()
    }

    fn go_on(&mut self) -> Result<(), Ended> {
        self.link.take(&mut vec![0; READ], self.now, |message| self.messages.push(message))?;
        self.link.flush(self.now);
        Ok(())
    }

    /// What has come to the other side.
    fn heard(&mut self) -> Vec<u8> {
        let mut octets = vec![0; 1 << 20];
        let count = match self.other.read(&mut octets) {
            Err(why) if why.kind() == ErrorKind::WouldBlock => 0,
            read => read.unwrap(),
        };
        octets.truncate(count);
        octets
    }

    fn hears(&mut self, kind: Kind) {
        assert_eq!(self.heard(), frame_header(kind, 0));
    }
}

fn frame(message: &[u8]) -> Vec<u8> {
    [&frame_header(Kind::Message, message.len())[..], message].concat()
}

/// So many messages, each its number.
fn numbered(count: u32) -> Vec<Bytes> {
    (0..count).map(|nth| Bytes::copy_from_slice(&nth.to_be_bytes())).collect()
}

/// How a link ends on which the other side says this and closes it.
pub(in crate::driver) fn ends(said: &[u8]) -> String {
    let mut lab = Lab::new();
    lab.other.write_all(said).unwrap();
    lab.other.shutdown(std::net::Shutdown::Both).unwrap();
    loop {
        if let Err(ended) = lab.turn() {
            return ended.to_string();
        }
    }
}

#[test]
fn a_silent_link_is_given_up_after_three_seconds() {
    let mut lab = Lab::new();
    lab.turn().unwrap();
    assert_eq!(lab.link.deadline(), START + PATIENCE.ping);
    lab.now = START + Duration::from_millis(2999);
    lab.turn().unwrap();
    assert_eq!(lab.link.deadline(), START + PATIENCE.silence);
    lab.now = START + PATIENCE.silence;
    assert_eq!(lab.turn().unwrap_err().to_string(), "nothing was heard for 3 s");
}

#[test]
fn a_link_without_messages_stays_up_as_long_as_its_pings_are_answered() {
    let mut lab = Lab::new();
    for _ in 0..60 {
        lab.turn().unwrap();
        lab.hears(Kind::Ping);
        lab.other.write_all(&frame_header(Kind::Pong, 0)).unwrap();
        lab.now = lab.link.deadline();
        assert!(!lab.link.is_restless());
    }
    drop(lab.other);
    lab.link.ready(EventFlags::IN | EventFlags::RDHUP);
    let ended = lab.link.take(&mut vec![0; READ], lab.now, |_| {}).unwrap_err();
    assert!(matches!(ended, Ended::Closed), "{ended}");
}

#[test]
fn what_was_stopped_for_long_hears_what_came_meanwhile_before_it_judges() {
    let mut lab = Lab::new();
    lab.turn().unwrap();
    lab.other.write_all(&frame(b"still here")).unwrap();
    lab.now = START + Duration::from_mins(1);
    lab.turn().unwrap();
    assert_eq!(lab.messages, ["still here"]);
}

#[test]
fn a_frame_that_is_too_long_ends_the_link() {
    let header = frame_header(Kind::Message, MAX_MESSAGE + 1);
    assert_eq!(ends(&header), "it sent a frame of 8388610 octets, and 8388608 is the limit");
}

#[test]
fn what_was_said_before_the_end_counts() {
    let mut lab = Lab::with_a_thousand();
    lab.other.shutdown(std::net::Shutdown::Write).unwrap();
    lab.link.ready(EventFlags::IN | EventFlags::RDHUP);
    let ended = loop {
        if let Err(ended) = lab.go_on() {
            break ended;
        }
    };
    assert!(matches!(ended, Ended::Closed), "{ended}");
    assert!(lab.messages.iter().eq(&numbered(1000)));
}

#[test]
fn what_was_said_before_the_end_counts_when_there_is_nobody_to_answer_any_more() {
    let mut lab = Lab::with_a_thousand();
    lab.other.shutdown(std::net::Shutdown::Both).unwrap();
    // It is written to before it is read.
    lab.link.flush(START);
    while lab.turn().is_ok() {}
    assert!(lab.messages.iter().eq(&numbered(1000)));
}

#[test]
fn who_talks_without_end_gets_a_share_of_each_turn_and_is_heard_to_the_end() {
    let mut lab = Lab::with_a_thousand();
    lab.turn().unwrap();
    assert!(lab.messages.len() <= 64, "{} in one turn", lab.messages.len());
    // Nothing new comes, so that epoll has nothing to tell.
    while lab.link.is_restless() {
        lab.go_on().unwrap();
    }
    assert!(lab.messages.iter().eq(&numbered(1000)));
}

#[test]
fn who_asks_for_life_without_end_and_does_not_listen_is_answered_once() {
    let mut lab = Lab::new();
    lab.turn().unwrap();
    lab.hears(Kind::Ping);
    // So that nothing more can be said.
    while lab.link.push(vec![0; MAX_MESSAGE].into()) {}
    for _ in 0..1000 {
        lab.other.write_all(&frame_header(Kind::Ping, 0).repeat(50)).unwrap();
        lab.turn().unwrap();
    }
    let waiting = lab.link.queue.parts().len();
    assert!(waiting < 10, "{waiting} parts wait");
    let mut heard = Vec::new();
    for _ in 0..2000 {
        heard.extend(lab.heard());
        lab.turn().unwrap();
    }
    // All is said in the end.
    assert!(heard.len() > 8 * MAX_MESSAGE, "{} octets", heard.len());
    assert!(lab.link.queue.is_empty());
}

#[test]
fn who_listens_slowly_is_not_waited_for_and_gets_everything_that_was_taken_in_order() {
    let mut lab = Lab::new();
    let message = |nth: u8| vec![nth; 1 << 20];
    let taken: Vec<u8> = (0..100).filter(|&nth| lab.link.push(message(nth).into())).collect();
    assert_eq!(taken.len(), 64, "bounded by octets, beyond what the socket has taken");
    lab.go_on().unwrap();
    assert!(!lab.link.is_restless(), "it waits for room");
    let mut heard = Vec::new();
    while !lab.link.queue.is_empty() {
        heard.extend(lab.heard());
        lab.turn().unwrap();
    }
    heard.extend(lab.heard());
    assert!(messages(&heard).iter().eq(&taken.into_iter().map(message).collect::<Vec<_>>()));
}

/// The messages in these octets, which end with one.
fn messages(octets: &[u8]) -> Vec<Bytes> {
    let (mut octets, mut messages) = (BytesMut::from(octets), Vec::new());
    while let Some((kind, payload)) = next_frame(&mut octets).unwrap() {
        if kind == Kind::Message {
            messages.push(payload);
        }
    }
    assert!(octets.is_empty());
    messages
}

#[test]
fn who_asks_for_a_sign_of_life_gets_it_with_the_next_octets_and_never_from_a_link_that_has_ended() {
    let mut lab = Lab::new();
    lab.turn().unwrap();
    lab.hears(Kind::Ping);
    let (asker, mut answer) = oneshot::channel();
    lab.link.ask(asker);
    lab.turn().unwrap();
    lab.hears(Kind::Ping);
    assert!(answer.try_recv().is_err());
    lab.other.write_all(&frame_header(Kind::Pong, 0)).unwrap();
    lab.turn().unwrap();
    answer.try_recv().unwrap();
    let (asker, answer) = oneshot::channel();
    lab.link.ask(asker);
    drop(lab.link);
    assert!(answer.blocking_recv().is_err());
}

#[test]
fn the_last_words_of_a_life_that_is_over_are_no_sign_of_it() {
    let mut lab = Lab::new();
    lab.turn().unwrap();
    lab.other.write_all(&frame(b"farewell")).unwrap();
    let (asker, mut answer) = oneshot::channel();
    lab.link.ask(asker);
    lab.turn().unwrap();
    assert_eq!(lab.messages, ["farewell"]);
    assert!(
        matches!(answer.try_recv(), Err(oneshot::error::TryRecvError::Empty)),
        "the end may come behind it"
    );
    drop(lab.other);
    lab.link.ready(EventFlags::IN | EventFlags::RDHUP);
    assert!(lab.link.take(&mut vec![0; READ], lab.now, |_| {}).is_err());
    drop(lab.link);
    assert!(answer.blocking_recv().is_err());
}

/// Two ends of a connection whose keys are settled.
fn sealed() -> [(TcpStream, Connection); 2] {
    let folder = tempfile::tempdir().unwrap();
    let nodes = ["a", "b"].map(str::to_owned);
    let plan = keygen::Plan { group: "demo", nodes: &nodes, out: folder.path(), ca: None };
    keygen::generate(&plan).unwrap();
    let tls = |node: &str| {
        let file = |name: String| folder.path().join(name);
        let files = KeyFiles {
            ca: file("ca.pem".into()),
            certificate: file(format!("{node}.pem")),
            key: file(format!("{node}.key")),
        };
        Tls::load(&files, node, "demo").unwrap()
    };
    let name = ServerName::try_from(certified_name("b", "demo")).unwrap();
    let dialled = ClientConnection::new(tls("a").connector.config().clone(), name).unwrap();
    let accepted = ServerConnection::new(tls("b").acceptor.config().clone()).unwrap();
    let [one, other] = sockets();
    let mut ends = [(one, Connection::Client(dialled)), (other, Connection::Server(accepted))];
    while ends.iter().any(|(_, tls)| tls.is_handshaking() || tls.wants_write()) {
        for (socket, tls) in &mut ends {
            while tls.wants_write() {
                tls.write_tls(socket).unwrap();
            }
            match tls.read_tls(socket) {
                Err(why) if why.kind() == ErrorKind::WouldBlock => {}
                read => {
                    read.unwrap();
                    tls.process_new_packets().unwrap();
                }
            }
        }
    }
    ends
}

#[test]
fn what_came_with_the_end_of_the_greeting_is_heard_and_a_good_bye_ends_the_link() {
    let [(socket, mut tls), (mut other, mut others)] = sealed();
    others.writer().write_all(&frame(b"first")).unwrap();
    others.write_tls(&mut other).unwrap();
    // As one does who reads a greeting.
    tls.read_tls(&mut &socket).unwrap();
    tls.process_new_packets().unwrap();
    let mut link = Link::new(Channel::new(socket, Some(tls)), PATIENCE, START);
    others.writer().write_all(&frame(b"second")).unwrap();
    others.send_close_notify();
    while others.wants_write() {
        others.write_tls(&mut other).unwrap();
    }
    let mut messages = Vec::new();
    let ended = loop {
        link.ready(EventFlags::IN);
        if let Err(ended) = link.take(&mut vec![0; READ], START, |message| messages.push(message)) {
            break ended;
        }
    };
    assert_eq!(messages, ["first", "second"]);
    assert!(matches!(ended, Ended::Closed), "{ended}");
}

#[test]
fn octets_that_were_tampered_with_end_the_link() {
    let [(socket, tls), (mut other, mut others)] = sealed();
    let mut link = Link::new(Channel::new(socket, Some(tls)), PATIENCE, START);
    others.writer().write_all(&frame(b"yes")).unwrap();
    let mut record = Vec::new();
    others.write_tls(&mut record).unwrap();
    *record.last_mut().unwrap() ^= 1;
    other.write_all(&record).unwrap();
    let ended = link.take(&mut vec![0; READ], START, |message| panic!("{message:?}")).unwrap_err();
    assert_eq!(ended.to_string(), "it broke: cannot decrypt peer's message");
}

#[test]
fn messages_of_one_turn_leave_in_few_records_and_arrive_whole() {
    let [(socket, tls), (mut other, mut others)] = sealed();
    let mut link = Link::new(Channel::new(socket, Some(tls)), PATIENCE, START);
    let payload = |nth: usize| vec![nth.to_le_bytes()[0]; if nth == 500 { 100_000 } else { 100 }];
    for nth in 0..1000 {
        assert!(link.push(payload(nth).into()));
    }
    let (mut records, mut plain) = (Vec::new(), Vec::new());
    while link.is_restless() {
        link.ready(EventFlags::OUT);
        link.take(&mut vec![0; READ], START, |_| {}).unwrap();
        link.flush(START);
        let mut octets = vec![0; 1 << 20];
        if let Ok(count) = other.read(&mut octets) {
            records.extend_from_slice(&octets[..count]);
        }
    }
    let mut rest = &records[..];
    let mut count = 0;
    while !rest.is_empty() {
        let len = 5 + usize::from(u16::from_be_bytes([rest[3], rest[4]]));
        let mut record = &rest[..len];
        while !record.is_empty() {
            others.read_tls(&mut record).unwrap();
            let state = others.process_new_packets().unwrap();
            let mut octets = vec![0; state.plaintext_bytes_to_read()];
            others.reader().read_exact(&mut octets).unwrap();
            plain.extend(octets);
        }
        rest = &rest[len..];
        count += 1;
    }
    assert!(count < 24, "{count} records");
    let messages = messages(&plain);
    assert_eq!(messages.len(), 1000);
    assert!(messages.iter().enumerate().all(|(nth, octets)| *octets == payload(nth)));
}

/// Links of a node whose life is 1, with what its core hears.
struct Plane {
    links: Links,
    epoll: OwnedFd,
    inputs: Vec<String>,
}

impl Plane {
    fn new() -> Self {
        let epoll = epoll::create(CreateFlags::CLOEXEC).unwrap();
        Self { links: Links::new(PATIENCE, 2), epoll, inputs: Vec::new() }
    }

    /// Hands over a link that greeted under that life; gives the other end of it, and who is told of its end.
    fn hand_over(&mut self, ours: u64) -> (TcpStream, oneshot::Receiver<Ended>) {
        let ([socket, other], (ended, end)) = (sockets(), oneshot::channel());
        let (ours, incarnation) = (Incarnation(ours), Incarnation(9));
        let peer = NodeId::of("b");
        let handover = Handover { peer, incarnation, ours, channel: Channel::new(socket, None), ended };
        let inputs = &mut self.inputs;
        self.links.begin(handover, Incarnation(1), self.epoll.as_fd(), START, |input| {
            inputs.push(format!("{input:?}").split_whitespace().next().unwrap().to_owned());
        });
        (other, end)
    }
}

#[test]
fn a_newer_link_takes_the_place_of_the_one_that_is_there() {
    let mut plane = Plane::new();
    let (_other, mut end) = plane.hand_over(1);
    let (_newer, mut newer_end) = plane.hand_over(1);
    assert_eq!(plane.inputs, ["PeerUp", "PeerDown", "PeerUp"]);
    assert!(matches!(end.try_recv(), Ok(Ended::Replaced)));
    assert!(newer_end.try_recv().is_err());
}

#[test]
fn nothing_of_a_former_life_comes_in() {
    let mut plane = Plane::new();
    let (mut other, mut end) = plane.hand_over(7);
    assert!(matches!(end.try_recv(), Ok(Ended::Reborn)) && plane.inputs.is_empty());
    assert_eq!(other.read(&mut [0]).unwrap(), 0, "it is closed");
    let (mut other, mut end) = plane.hand_over(1);
    other.write_all(&frame(b"late")).unwrap();
    plane.links.end_life();
    assert!(matches!(end.try_recv(), Ok(Ended::Reborn)));
    assert!(!plane.links.take(START, |input| panic!("{input:?}")));
    assert_eq!(plane.inputs, ["PeerUp"]);
}

#[test]
fn a_message_to_a_node_without_a_link_goes_nowhere_and_is_not_kept() {
    let mut plane = Plane::new();
    assert!(plane.links.tell(NodeId::of("b"), Bytes::from_static(b"early").into()));
    let (mut other, _end) = plane.hand_over(1);
    plane.links.flush(START);
    let mut octets = [0; 100];
    let count = other.read(&mut octets).unwrap();
    assert_eq!(octets[..count], frame_header(Kind::Ping, 0));
}
