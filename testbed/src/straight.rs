//! By which way the packets of a client with Mobile IPv6 went, judged from the router's capture alone, by a reading of
//! RFC 6275 that shares nothing with what it judges.
//!
//! The router sees every packet twice at most: where it comes from, and where it goes. What a client sends is in order
//! there, so that whatever passes on towards a node behind a Binding Acknowledgement was sent after it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;

use crate::world::{CLIENT_PREFIX, SERVICE};

const TCP: u8 = 6;
const IPV6: u8 = 41;
const ROUTING: u8 = 43;
const DESTINATION_OPTIONS: u8 = 60;
const MOBILITY: u8 = 135;
const HOME_ADDRESS: u8 = 0xc9;
const BINDING_UPDATE: u8 = 5;
const BINDING_ACKNOWLEDGEMENT: u8 = 6;
/// Examples that are kept of what must not be.
const EXAMPLES: usize = 5;

/// A packet, as far as Mobile IPv6 concerns it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The source of the outermost header.
    pub source: Ipv6Addr,
    /// The destination of the outermost header.
    pub destination: Ipv6Addr,
    /// The home address in a Home Address option (RFC 6275 section 6.3).
    pub home: Option<Ipv6Addr>,
    /// The home address in a type 2 routing header (RFC 6275 section 6.4).
    pub routed: Option<Ipv6Addr>,
    /// Source and destination of the packet inside, if this is a tunnel (RFC 2473); `upper` is that packet's.
    pub inner: Option<(Ipv6Addr, Ipv6Addr)>,
    /// What it carries.
    pub upper: Upper,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Upper {
    /// A TCP segment: what tells it from every other one of its connection (ports, numbers, timestamp).
    Tcp([u8; 12], Option<u32>),
    /// A Binding Update.
    Update,
    /// A Binding Acknowledgement: its status and its lifetime, in units of 4 s.
    Acknowledgement(u8, u16),
    /// Another Mobility Header, of this type.
    Mobility(u8),
    /// Nothing that matters here.
    Other,
}

/// Reads an Ethernet frame, of which the end may be missing; `None` if it is no IPv6 packet.
pub fn read(frame: &[u8]) -> Option<Seen> {
    let packet = frame.get(14..).filter(|_| frame[12..14] == [0x86, 0xdd])?;
    let mut seen = header(packet)?;
    let (mut next, mut at) = (packet[6], 40);
    loop {
        match next {
            ROUTING | DESTINATION_OPTIONS | 0 => {
                let here = packet.get(at..)?;
                let length = 8 + 8 * usize::from(*here.get(1)?);
                let whole = here.get(..length)?;
                if seen.inner.is_none() {
                    seen.home = seen.home.or(option(whole).filter(|_| next == DESTINATION_OPTIONS));
                    seen.routed = seen.routed.or(routed(whole).filter(|_| next == ROUTING));
                }
                (next, at) = (whole[0], at + length);
            }
            IPV6 if seen.inner.is_none() => {
                let inside = header(packet.get(at..)?)?;
                seen.inner = Some((inside.source, inside.destination));
                (next, at) = (packet[at + 6], at + 40);
            }
            _ => break,
        }
    }
    seen.upper = upper(next, packet.get(at..)?);
    Some(seen)
}

fn header(packet: &[u8]) -> Option<Seen> {
    let [source, destination] = [address(packet.get(8..24)?)?, address(packet.get(24..40)?)?];
    Some(Seen { source, destination, home: None, routed: None, inner: None, upper: Upper::Other })
}

fn address(octets: &[u8]) -> Option<Ipv6Addr> {
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?))
}

fn routed(header: &[u8]) -> Option<Ipv6Addr> {
    address(header.get(8..24)?).filter(|_| header[2] == 2 && header[3] == 1)
}

fn option(header: &[u8]) -> Option<Ipv6Addr> {
    let mut at = 2;
    while at + 1 < header.len() {
        match header[at] {
            0 => at += 1,
            HOME_ADDRESS => return address(header.get(at + 2..at + 18)?),
            _ => at += 2 + usize::from(header[at + 1]),
        }
    }
    None
}

fn upper(protocol: u8, octets: &[u8]) -> Upper {
    let word = |at: usize| octets.get(at..at + 2).map_or(0, |two| u16::from_be_bytes([two[0], two[1]]));
    match (protocol, octets.get(2)) {
        (TCP, _) => octets
            .get(..12)
            .and_then(|first| first.try_into().ok())
            .map_or(Upper::Other, |first| Upper::Tcp(first, timestamp(octets))),
        (MOBILITY, Some(&BINDING_UPDATE)) => Upper::Update,
        (MOBILITY, Some(&BINDING_ACKNOWLEDGEMENT)) => {
            Upper::Acknowledgement(octets.get(6).copied().unwrap_or(u8::MAX), word(10))
        }
        (MOBILITY, Some(&kind)) => Upper::Mobility(kind),
        _ => Upper::Other,
    }
}

/// `TSval` (RFC 7323 section 3.2), which makes a repeated segment another one.
fn timestamp(segment: &[u8]) -> Option<u32> {
    let end = usize::from(segment.get(12)? >> 4) * 4;
    let mut at = 20;
    while at + 1 < end {
        match segment.get(at)? {
            0 => return None,
            1 => at += 1,
            8 => return Some(u32::from_be_bytes(segment.get(at + 2..at + 6)?.try_into().ok()?)),
            _ => at += usize::from(*segment.get(at + 1)?).max(2),
        }
    }
    None
}

/// A frame on one of the router's links.
#[derive(Clone, Copy, Debug)]
struct Passed {
    at_ns: u64,
    /// Counts the router's interfaces, the client's first.
    link: usize,
    /// Whether the router sent it there.
    outgoing: bool,
    seen: Seen,
}

/// The client's link, and that of the contact node.
const TO_CLIENT: usize = 0;
const TO_CONTACT: usize = 1;

/// What of the router's capture matters here.
#[derive(Debug, Default)]
pub struct Log {
    passed: Vec<Passed>,
}

impl Log {
    /// Takes a frame of the capture. Each link's frames must come in the order of their times.
    pub fn see(&mut self, at_ns: u64, link: usize, outgoing: bool, frame: &[u8]) {
        let Some(seen) = read(frame) else { return };
        // The ends of the packet that matters: a tunnel's are nodes.
        let (from, to) = seen.inner.unwrap_or((seen.source, seen.destination));
        let client = [from, to].into_iter().any(|end| end.segments()[..4] == CLIENT_PREFIX);
        if client && seen.upper != Upper::Other {
            self.passed.push(Passed { at_ns, link, outgoing, seen });
        }
    }

    /// Judges what was seen.
    pub fn judge(mut self) -> Straight {
        self.passed.sort_by_key(|passed| passed.at_ns);
        let mut judge = Judge::default();
        for passed in &self.passed {
            judge.see(passed);
        }
        let mut straight = judge.straight;
        straight.contact_examples.truncate(EXAMPLES);
        straight
    }
}

/// By which way the packets of clients went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Straight {
    /// When a client began to believe that the service is at which care-of address, or at home.
    pub bindings: Vec<(u64, Option<Ipv6Addr>)>,
    /// Packets of connections that clients sent straight to a care-of address, with a type 2 routing header.
    pub to_node: u64,
    /// Packets of connections that clients were sent straight from one, with a Home Address option.
    pub from_node: u64,
    /// The same, from nodes of whose care-of address the client had acknowledged no binding.
    pub unbound_from_node: u64,
    /// Packets from the service address that a node sent behind some with a Home Address option, without a Binding
    /// Update between them: it had fallen back.
    pub fallen_back: u64,
    /// Packets that passed the contact node while their client was bound to the care-of address of another one.
    pub via_contact: u64,
    /// When the first of these passed, and what they were.
    pub contact_examples: Vec<(u64, Seen)>,
}

/// Goes through a capture in the order of time.
#[derive(Default)]
struct Judge {
    straight: Straight,
    /// By client.
    bound: BTreeMap<Ipv6Addr, Ipv6Addr>,
    /// All care-of addresses that the client has acknowledged.
    acknowledged: BTreeSet<(Ipv6Addr, Ipv6Addr)>,
    /// Links whose node has sent something with a Home Address option since the last Binding Update.
    switched: BTreeSet<(Ipv6Addr, usize)>,
    /// What came to the contact node in good order, and is no fault when it sends it on a moment later: before its
    /// client was bound elsewhere, or from a node that handed the connection to it.
    excused: BTreeSet<([u8; 12], Option<u32>)>,
}

impl Judge {
    fn see(&mut self, passed: &Passed) {
        let Passed { at_ns, link, outgoing, seen } = *passed;
        match (seen.upper, link, outgoing) {
            // On its way from the router to the node.
            (Upper::Acknowledgement(status, lifetime), 1.., true) if seen.inner.is_none() && status < 128 => {
                self.acknowledgement(at_ns, &seen, lifetime);
            }
            (Upper::Update, TO_CLIENT, true) => {
                self.switched.retain(|(client, _)| *client != seen.destination);
            }
            (Upper::Tcp(numbers, time), TO_CONTACT, _) => self.at_contact(passed, (numbers, time)),
            _ => {}
        }
        if let Upper::Tcp(..) = seen.upper
            && seen.inner.is_none()
        {
            self.segment(link, outgoing, &seen);
        }
    }

    fn acknowledgement(&mut self, at_ns: u64, seen: &Seen, lifetime: u16) {
        let client = seen.source;
        let care_of = seen.routed.filter(|home| *home == SERVICE && lifetime > 0).map(|_| seen.destination);
        match care_of {
            Some(care_of) => {
                self.bound.insert(client, care_of);
                self.acknowledged.insert((client, care_of));
            }
            None => {
                self.bound.remove(&client);
            }
        }
        if self.straight.bindings.last().is_none_or(|(_, last)| *last != care_of) {
            self.straight.bindings.push((at_ns, care_of));
        }
    }

    /// A segment outside of any tunnel.
    fn segment(&mut self, link: usize, outgoing: bool, seen: &Seen) {
        let straight = &mut self.straight;
        if link == TO_CLIENT {
            straight.to_node += u64::from(!outgoing && seen.routed == Some(SERVICE));
            let from_node = outgoing && seen.home == Some(SERVICE);
            straight.from_node += u64::from(from_node);
            let known = self.acknowledged.contains(&(seen.destination, seen.source));
            straight.unbound_from_node += u64::from(from_node && !known);
        } else if !outgoing && seen.home == Some(SERVICE) {
            self.switched.insert((seen.destination, link));
        } else if !outgoing && seen.source == SERVICE && self.switched.contains(&(seen.destination, link)) {
            straight.fallen_back += 1;
        }
    }

    /// A segment between the router and the contact node's host.
    fn at_contact(&mut self, passed: &Passed, segment: ([u8; 12], Option<u32>)) {
        let seen = passed.seen;
        let (from, to) = seen.inner.unwrap_or((seen.source, seen.destination));
        let (client, from_client) =
            if to == SERVICE || seen.routed == Some(SERVICE) { (from, true) } else { (to, false) };
        let bound = self.bound.get(&client).copied();
        let at_home = seen.inner.is_none() && seen.destination == SERVICE;
        let through = match (passed.outgoing, from_client) {
            // Another node has it leave from the home link.
            (true, false) => seen.inner.is_some(),
            // A node hands on to this one, in a tunnel, what reached it for a connection that went here: the client
            // has sent it well, and this node may have handed the connection on in its turn.
            (true, true) if seen.inner.is_some() => {
                self.excused.insert(segment);
                false
            }
            // Sent by the client: to the service address as if nothing had been acknowledged, or to the care-of
            // address of this node.
            (true, true) => {
                let elsewhere = bound.is_some_and(|care_of| at_home || care_of != seen.destination);
                if !elsewhere {
                    self.excused.insert(segment);
                }
                elsewhere
            }
            // Sent on to another node.
            (false, true) => seen.inner.is_some() && !self.excused.contains(&segment),
            (false, false) => false,
        };
        if bound.is_some() && through {
            self.straight.via_contact += 1;
            self.straight.contact_examples.push((passed.at_ns, seen));
            self.straight.contact_examples.truncate(EXAMPLES);
        }
    }
}

#[cfg(test)]
mod tests;
