//! What comes in a Mobility Header.

use core::time::Duration;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;

use bytes::Bytes;
use ferry_mipv6::correspondent::{Correspondent, Outgoing};
use ferry_mipv6::header::{self, Lifetime, Received};
use ferry_mipv6::home_agent::{Group, HomeAgent, Now, Setup, Timestamp};
use ferry_mipv6::mobile::Mobile;
use ferry_mipv6::route::{put_home_address, put_routing};
use ferry_stack::Instant;
use ferry_stack::frame::{Checksum, Offload};
use ferry_stack::ip::{self, Header, Packet};

use super::feed::Feed;

/// The addresses that messages travel between.
fn address(nth: u8) -> Ipv6Addr {
    match nth % 6 {
        0 => Ipv6Addr::UNSPECIFIED,
        1 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
        nth => Ipv6Addr::new(0x2001, 0xdb8, nth.into(), 0, 0, 0, 0, 1),
    }
}

/// The home address.
const HOME: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
/// Where the mobile node is.
const CARE_OF: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 3, 0, 0, 0, 0, 1);
/// The client, and the home agent.
const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 4, 0, 0, 0, 0, 1);

/// Everybody who reads Mobility Headers.
struct Everybody {
    now: Instant,
    correspondent: Correspondent,
    mobile: Mobile,
    home_agent: HomeAgent,
}

/// Mobility Headers for a correspondent, a mobile node and a home agent, one after the other, with time between them.
/// What they say in their turn is delivered when an octet says so.
pub fn mobility(octets: &[u8]) {
    let mut feed = Feed::new(octets);
    let mut everybody = Everybody {
        now: Instant::from_millis(1_000_000),
        correspondent: Correspondent::new([3; 20]),
        mobile: Mobile::new(HOME, CARE_OF, [4; 20]),
        home_agent: HomeAgent::new(Setup {
            address: CLIENT,
            home_link: (HOME, 64),
            groups: BTreeMap::from([(256, Group { key: vec![5; 16], homes: [HOME].into() })]),
            max_lifetime: Lifetime::at_most(Duration::from_hours(1)),
        }),
    };
    everybody.mobile.own(CLIENT, everybody.now);
    while let Some(step) = feed.byte() {
        everybody.now += Duration::from_millis(u64::from(feed.word().unwrap_or(0)));
        let packet = match step % 4 {
            // What the mobile node says reaches the correspondent.
            0 => everybody.mobile.poll().map(|message| message.packet()),
            _ => Some(drawn(&mut feed)),
        };
        if let Some(packet) = packet {
            everybody.hear(packet.to_bytes(), step & 0x80 != 0);
        }
        everybody.pass_time();
    }
}

/// A packet with a Mobility Header whose first octets are right, so that what follows is looked at.
fn drawn(feed: &mut Feed<'_>) -> Packet {
    let (source, destination, headers) =
        (feed.byte().unwrap_or(0), feed.byte().unwrap_or(0), feed.byte().unwrap_or(0));
    let len = usize::from(feed.byte().unwrap_or(0));
    let mut body = feed.octets(len).to_vec();
    body.resize(body.len().next_multiple_of(8).max(8), 0);
    if headers & 0x80 == 0 {
        body[0] = ip::NO_NEXT_HEADER;
        body[1] = u8::try_from(body.len() / 8 - 1).unwrap_or(u8::MAX);
    }
    let (source, destination) = (address(source), address(destination));
    let head = Header { source, destination, next_header: ip::MOBILITY, ..Header::default() };
    let mut packet = Packet { head: head.emit(body.len()), body: body.into(), ..Packet::default() };
    if headers & 1 != 0 {
        put_routing(&mut packet, address(headers >> 2));
    }
    if headers & 2 != 0 {
        put_home_address(&mut packet, address(headers >> 4));
    }
    packet
}

impl Everybody {
    fn hear(&mut self, packet: Bytes, complete: bool) {
        let checksum = if complete { Checksum::Complete } else { Checksum::Verified };
        let Ok(datagram) = ip::parse(packet, Offload { checksum, ..Offload::default() }) else { return };
        let Ok(received) = header::open(&datagram) else { return };
        same_message(&received);
        let now = self.now;
        if let Some(answer) = self.correspondent.receive(&received, now) {
            self.say(&answer);
        }
        self.mobile.receive(&received, now);
        let wall = Timestamp::from_unix(Duration::from_nanos(now.nanos()));
        if let Some(answer) = self.home_agent.receive(&received, Now { monotonic: now, wall }) {
            readable(&answer);
        }
        self.correspondent.take_changes();
        for (pair, binding) in self.correspondent.bindings() {
            assert_eq!(
                (pair, binding.care_of),
                ((CLIENT, HOME), CARE_OF),
                "only who holds the tokens is bound"
            );
        }
    }

    /// What the correspondent answers reaches the mobile node.
    fn say(&mut self, answer: &Outgoing) {
        let received = readable(answer);
        self.mobile.receive(&received, self.now);
    }

    fn pass_time(&mut self) {
        for request in self.correspondent.handle_timeout(self.now) {
            self.say(&request);
        }
        self.mobile.handle_timeout(self.now);
        self.home_agent.handle_timeout(self.now);
        for deadline in [self.correspondent.deadline(), self.mobile.deadline(), self.home_agent.deadline()] {
            assert!(deadline.is_none_or(|at| at > self.now), "what was due is done");
        }
    }
}

/// A message that we understand is understood in the same way once we have written it ourselves.
fn same_message(received: &Received) {
    let header = received.message.emit(HOME, CLIENT);
    let mut head =
        Header { source: HOME, destination: CLIENT, next_header: ip::MOBILITY, ..Header::default() }
            .emit(header.len());
    head.extend(header);
    let again = ip::parse(head.into(), Offload::default()).map(|again| header::open(&again));
    let again = again.map(|again| again.map(|again| again.message));
    assert_eq!(again, Ok(Ok(received.message.clone())), "we do not understand our own message");
}

/// A message as its receiver reads it.
fn readable(message: &Outgoing) -> Received {
    let packet = ip::parse(message.packet().to_bytes(), Offload::default());
    let packet = packet.unwrap_or_else(|why| panic!("{message:?} makes no packet: {why:?}"));
    header::open(&packet).unwrap_or_else(|why| panic!("{message:?} cannot be read: {why}"))
}

/// Messages of every kind, as they follow each other when a client is bound.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let test = [0, 0, 9, 9, 9, 9, 9, 9, 9, 9];
    let answer = [&[0, 1][..], &[9; 8], &[7; 8]].concat();
    let bodies: [&[u8]; 7] =
        [&[0, 0], &test, &test, &answer, &answer, &[0, 1, 0xc0, 0, 0, 105], &[0, 0, 0, 1, 0, 105]];
    let mut script = Vec::new();
    let mut seeds = Vec::new();
    for (kind, body) in bodies.iter().enumerate() {
        let kind = u8::try_from(kind).unwrap_or(0);
        let options = [4, 4, 0, 1, 0, 1, 1, 3, 16, 32, 1, 13, 184, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 5, 12];
        let header = [&[59, 0, kind, 0, 0, 0][..], body, &options, &[8; 12]].concat();
        let len = u8::try_from(header.len()).unwrap_or(u8::MAX);
        let step = [&[1, 0, 100, 4, 2, 0, len][..], &header, &[0, 0, 1, 0, 4, 0]].concat();
        script.extend(&step);
        seeds.push(step);
    }
    seeds.push(script);
    seeds.push([0, 0, 20].repeat(30));
    seeds
}
