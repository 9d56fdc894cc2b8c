//! What must hold on the wire, judged segment by segment in the order in which they are sent, whoever sends them:
//! a connection that moved from node to node must look like one.

use core::net::{Ipv6Addr, SocketAddrV6};
use std::collections::{BTreeMap, BTreeSet};

use ferry_stack::Frame;

use crate::wire::{self, Content, Seen};

/// One end of a connection, as its segments show it.
#[derive(Clone, Debug, Default)]
struct Side {
    /// The sequence number of its SYN.
    isn: Option<u32>,
    /// The window scale that its SYN offered.
    scale: Option<u8>,
    /// The sequence number after the last that it sent.
    end: u32,
    /// The last sequence number that it acknowledged.
    acked: Option<u32>,
    /// Whether the other end has taken this answer to its SYN.
    taken: bool,
    /// The furthest right edge that it offered.
    edge: Option<u32>,
    /// The same, of what the present life of the connection has offered.
    told: Option<u32>,
    /// The last `TSval`.
    tsval: Option<u32>,
    /// The octets that it sent, from the first.
    stream: Vec<u8>,
}

/// Who sent a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// A stack of ours: held to everything.
    Ours,
    /// A foreign one: only followed. (The keep-alive of smoltcp sends an octet that it never sent before.)
    Foreign,
}

/// A RST that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    /// Who sent it.
    pub from: SocketAddrV6,
    /// To whom.
    pub to: SocketAddrV6,
}

/// Follows all connections.
#[derive(Debug, Default)]
pub struct Watch {
    sides: BTreeMap<(SocketAddrV6, SocketAddrV6), Side>,
    /// Other answers to the same SYN: a network may deliver it to two servers, of which the client takes one.
    rivals: BTreeMap<(SocketAddrV6, SocketAddrV6), Vec<Side>>,
    /// The address that nodes send from through tunnels, if they do: such a segment is judged where it enters one.
    pub home: Option<Ipv6Addr>,
    /// Connections of which the group has lost what the client has seen: only followed. The server's end, the client's.
    pub lost: BTreeSet<(SocketAddrV6, SocketAddrV6)>,
    /// Segments that were judged so, as they look to people. They leave the tunnel later, perhaps twice.
    tunnelled: BTreeSet<String>,
    /// Whether what has left one tunnel enters another on its way.
    pub relayed_twice: bool,
    /// RST segments, in the order in which they were sent.
    pub resets: Vec<Reset>,
    /// Segments with octets.
    pub data: u64,
    /// Segments with octets that were sent before.
    pub repeated: u64,
    /// Octets sent for the first time.
    pub octets: u64,
}

impl Watch {
    /// Judges a frame that is about to go on a wire: no super-segment, its checksum complete. The error names the
    /// sentence that does not hold.
    pub fn see(&mut self, frame: &Frame, sender: Sender) -> Result<(), String> {
        let frame = frame.clone().contiguous();
        let content = wire::read(&frame.head)
            .map_err(|what| format!("every checksum that is sent is right: {what}"))?;
        match &content {
            Content::Tunnel(_, _, Ok(inner)) if self.home.is_some() => self.enters(inner, sender),
            Content::Tcp(seen) if self.is_home(seen) && self.tunnelled.contains(&seen.to_string()) => Ok(()),
            Content::Tcp(seen) => {
                self.segment(seen, sender).map_err(|sentence| format!("{sentence}: {content}"))
            }
            _ => Ok(()),
        }
    }

    fn is_home(&self, seen: &Seen<'_>) -> bool {
        self.home.is_some_and(|home| *seen.from.ip() == home)
    }

    fn enters(&mut self, inner: &Content<'_>, sender: Sender) -> Result<(), String> {
        let Content::Tcp(seen) = inner else { return Ok(()) };
        if !self.is_home(seen) {
            return Ok(());
        }
        if !self.tunnelled.insert(seen.to_string()) && self.relayed_twice {
            return Ok(());
        }
        self.segment(seen, sender).map_err(|sentence| format!("{sentence}: {inner}"))
    }

    fn segment(&mut self, seen: &Seen<'_>, sender: Sender) -> Result<(), String> {
        if seen.rst {
            self.resets.push(Reset { from: seen.from, to: seen.to });
            return Ok(());
        }
        if seen.syn && !self.opens(seen) {
            return Ok(());
        }
        self.takes(seen);
        let lost = self.lost.contains(&(seen.from, seen.to)) || self.lost.contains(&(seen.to, seen.from));
        if sender == Sender::Ours && !lost {
            self.tsval_never_goes_back(seen)?;
            self.the_right_edge_never_goes_back(seen)?;
            self.nothing_is_acknowledged_that_was_never_sent(seen)?;
            self.nothing_is_sent_beyond_the_window(seen)?;
            self.an_octet_never_changes(seen)?;
        }
        self.follow(seen);
        Ok(())
    }

    /// A SYN. `false` if it answers one to which the client has taken another answer.
    fn opens(&mut self, seen: &Seen<'_>) -> bool {
        let ends = (seen.from, seen.to);
        let side = self.sides.entry(ends).or_default();
        if side.isn == Some(seen.seq) {
            return true;
        }
        let (isn, scale) = (Some(seen.seq), seen.scale);
        let fresh = Side { isn, scale, end: seen.seq.wrapping_add(1), ..Side::default() };
        if seen.ack.is_none() {
            *side = fresh;
            self.rivals.remove(&ends);
            self.sides.remove(&(seen.to, seen.from));
            self.rivals.remove(&(seen.to, seen.from));
            return true;
        }
        if side.isn.is_none() {
            *side = fresh;
            return true;
        }
        let rivals = self.rivals.entry(ends).or_default();
        rivals.retain(|rival| rival.isn != isn);
        if side.taken {
            rivals.push(fresh);
            return false;
        }
        rivals.push(core::mem::replace(side, fresh));
        true
    }

    /// Whoever acknowledges a SYN takes that answer.
    fn takes(&mut self, seen: &Seen<'_>) {
        let ends = (seen.to, seen.from);
        let (Some(ack), Some(side)) = (seen.ack, self.sides.get_mut(&ends)) else { return };
        let begins = |side: &Side| side.isn.is_some_and(|isn| isn.wrapping_add(1) == ack);
        if !side.taken
            && !begins(side)
            && let Some(rivals) = self.rivals.get_mut(&ends)
            && let Some(rival) = rivals.iter_mut().find(|rival| begins(rival))
        {
            core::mem::swap(side, rival);
        }
        side.taken = true;
    }

    /// How far one end has come, as the other one may know: what it has sent, and what it has acknowledged.
    pub fn progress(&self, from: SocketAddrV6, to: SocketAddrV6) -> Option<(u32, Option<u32>)> {
        self.side(from, to).map(|side| (side.end, side.acked))
    }

    fn side(&self, from: SocketAddrV6, to: SocketAddrV6) -> Option<&Side> {
        self.sides.get(&(from, to)).filter(|side| side.isn.is_some())
    }

    /// What the window field of `from` is shifted by (RFC 7323 section 2.2: only if both offered it).
    fn shift(&self, seen: &Seen<'_>) -> u8 {
        let scale = |from, to| self.side(from, to).and_then(|side| side.scale);
        match (scale(seen.from, seen.to), scale(seen.to, seen.from)) {
            (Some(ours), Some(_)) if !seen.syn => ours,
            _ => 0,
        }
    }

    fn edge(&self, seen: &Seen<'_>) -> Option<u32> {
        Some(seen.ack?.wrapping_add(u32::from(seen.window) << self.shift(seen)))
    }

    /// Except by 64 ms from one answer to a SYN to the next: a cookie tells in the low bits what the SYN offered, and a
    /// SYN that is repeated offers no ECN any more (RFC 3168 section 6.1.1.1). The client has not taken any yet.
    fn tsval_never_goes_back(&self, seen: &Seen<'_>) -> Result<(), String> {
        let last = self.side(seen.from, seen.to).and_then(|side| side.tsval);
        let least = if seen.syn { last.map(|last| last.wrapping_sub(63)) } else { last };
        match (least, seen.tsval) {
            (Some(last), Some(now)) if before(now, last) => {
                Err(format!("TSval never goes back: {now} after {last}"))
            }
            _ => Ok(()),
        }
    }

    /// A connection goes on from a copy, which may not know all of the window that was offered: it takes what comes in it,
    /// and offers it again when it has copies of its own.
    pub fn goes_on_from_a_copy(&mut self, server: SocketAddrV6, client: SocketAddrV6) {
        if let Some(side) = self.sides.get_mut(&(server, client)) {
            side.told = None;
        }
    }

    /// Except by less than a unit of the window scale, where a full buffer leaves no other way to say it
    /// (RFC 7323 section 2.4), and in a SYN, whose window cannot be scaled.
    fn the_right_edge_never_goes_back(&self, seen: &Seen<'_>) -> Result<(), String> {
        let last = self.side(seen.from, seen.to).and_then(|side| side.told);
        let unit = 1_u32 << self.shift(seen);
        match (last, self.edge(seen)) {
            (Some(last), Some(now)) if !seen.syn && before(now.wrapping_add(unit - 1), last) => {
                Err(format!("the right edge never goes back: {now} after {last}"))
            }
            _ => Ok(()),
        }
    }

    fn nothing_is_acknowledged_that_was_never_sent(&self, seen: &Seen<'_>) -> Result<(), String> {
        match (self.side(seen.to, seen.from), seen.ack) {
            (Some(other), Some(ack)) if before(other.end, ack) => {
                Err(format!("nothing is acknowledged that was never sent: {ack} after {}", other.end))
            }
            _ => Ok(()),
        }
    }

    fn nothing_is_sent_beyond_the_window(&self, seen: &Seen<'_>) -> Result<(), String> {
        let end = seen.seq.wrapping_add(seen.seq_len());
        match self.side(seen.to, seen.from).and_then(|other| other.edge) {
            Some(edge) if !seen.syn && seen.seq_len() > 0 && before(edge, end) => {
                Err(format!("nothing is sent beyond the window: {end} beyond {edge}"))
            }
            _ => Ok(()),
        }
    }

    fn an_octet_never_changes(&self, seen: &Seen<'_>) -> Result<(), String> {
        let Some(side) = self.side(seen.from, seen.to) else { return Ok(()) };
        let at = offset(side, seen);
        let sent_before = side.stream.get(at..).unwrap_or_default();
        let common = sent_before.len().min(seen.payload.len());
        if sent_before[..common] == seen.payload[..common] {
            Ok(())
        } else {
            Err(format!("an octet never changes: the segment from offset {at}"))
        }
    }

    fn follow(&mut self, seen: &Seen<'_>) {
        let edge = self.edge(seen);
        let Some(side) = self.sides.get_mut(&(seen.from, seen.to)) else { return };
        let end = seen.seq.wrapping_add(seen.seq_len());
        if !seen.payload.is_empty() {
            let at = offset(side, seen);
            let fresh = seen.payload.get(side.stream.len().saturating_sub(at)..).unwrap_or_default();
            if at <= side.stream.len() {
                side.stream.extend_from_slice(fresh);
            }
            self.data += 1;
            self.octets += fresh.len() as u64;
            self.repeated += u64::from(fresh.len() < seen.payload.len());
        }
        side.end = later(side.end, end);
        side.acked = seen.ack.map(|ack| side.acked.map_or(ack, |last| later(last, ack))).or(side.acked);
        side.edge = edge.map(|edge| side.edge.map_or(edge, |last| later(last, edge))).or(side.edge);
        side.told = edge.map(|edge| side.told.map_or(edge, |last| later(last, edge))).or(side.told);
        side.tsval = seen.tsval.or(side.tsval);
    }
}

/// Where the payload lies in the stream. That of a probe may lie before its first octet: then nowhere.
fn offset(side: &Side, seen: &Seen<'_>) -> usize {
    let first = side.isn.unwrap_or_default().wrapping_add(1);
    let at = seen.seq.wrapping_add(u32::from(seen.syn)).wrapping_sub(first);
    usize::try_from(at).unwrap_or(usize::MAX)
}

fn before(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).cast_signed() < 0
}

fn later(a: u32, b: u32) -> u32 {
    if before(a, b) { b } else { a }
}
