//! One of the two stacks in a conversation: what the peer knows of it, and its words without what may differ.

use core::fmt::Write as _;

use super::segment::{Bits, Raw};
use super::subject::{Got, Subject};
use crate::pattern;

/// The key of what the peer sends.
pub const DOWN: u64 = 1;
/// The key of what the stacks send.
pub const UP: u64 = 2;

/// Where a segment of the peer begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    /// So far behind the peer's SYN.
    Seq(u32),
    /// So far behind (or before) the right edge of the window that the stack has promised.
    Edge(i32),
}

/// A segment of the peer, in terms that hold for both stacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Where it begins.
    pub at: At,
    /// Octets.
    pub len: u32,
    /// Control bits.
    pub bits: Bits,
    /// What it acknowledges, behind the stack's SYN.
    pub ack: u32,
    /// The window field.
    pub window: u16,
    /// `TSval`, where timestamps are used.
    pub stamp: Option<u32>,
    /// SACK blocks, behind the stack's SYN.
    pub sack: Vec<(u32, u32)>,
    /// The options of a SYN.
    pub syn: Option<SynOptions>,
}

/// What the peer's SYN offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SynOptions {
    /// Maximum segment size.
    pub mss: Option<u16>,
    /// Window scale.
    pub scale: Option<u8>,
    /// SACK permitted.
    pub sack: bool,
    /// Timestamps.
    pub timestamps: bool,
}

/// One of the two.
pub struct Side<'a> {
    /// The stack.
    pub subject: Box<dyn Subject + 'a>,
    /// The peer's initial sequence number.
    irs: u32,
    /// The stack's own, once it is known.
    iss: Option<u32>,
    /// The right edge of the window that it has promised, behind the peer's SYN.
    edge: u32,
    scale: u8,
    /// Its last `TSval`.
    stamp: u32,
    /// What it acknowledged, behind the peer's SYN.
    pub rcv_nxt: u32,
    /// Behind the last that it sent, behind its own SYN.
    pub snd_nxt: u32,
    /// Octets that its application wrote.
    pub written: u32,
    /// Octets that its application read.
    pub read: u32,
    /// Whether it says that it knows of no connection.
    pub reset: bool,
}

impl core::fmt::Debug for Side<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Side")
            .field("rcv_nxt", &self.rcv_nxt)
            .field("snd_nxt", &self.snd_nxt)
            .finish_non_exhaustive()
    }
}

impl<'a> Side<'a> {
    /// A stack of which nothing is known.
    pub fn new(subject: Box<dyn Subject + 'a>, irs: u32) -> Self {
        Self {
            subject,
            irs,
            iss: None,
            edge: 0,
            scale: 0,
            stamp: 0,
            rcv_nxt: 0,
            snd_nxt: 0,
            written: 0,
            read: 0,
            reset: false,
        }
    }

    /// The segment that is meant for this stack.
    pub fn concrete(&self, plan: &Plan) -> Raw {
        let rel = match plan.at {
            At::Seq(rel) => rel,
            At::Edge(by) => self.edge.wrapping_add_signed(by),
        };
        let iss = self.iss.unwrap_or(0);
        let syn = plan.syn.unwrap_or(SynOptions { mss: None, scale: None, sack: false, timestamps: false });
        Raw {
            seq: self.irs.wrapping_add(rel),
            ack: iss.wrapping_add(plan.ack),
            bits: plan.bits,
            window: plan.window,
            mss: syn.mss,
            scale: syn.scale,
            sack_permitted: syn.sack,
            timestamps: plan.stamp.map(|value| (value, if plan.bits.ack { self.stamp } else { 0 })),
            sack: plan
                .sack
                .iter()
                .map(|(from, to)| (iss.wrapping_add(*from), iss.wrapping_add(*to)))
                .collect(),
            payload: stream(DOWN, rel.wrapping_sub(1), plan.len as usize),
        }
    }

    /// Takes note of what the stack sent. Panics if an octet is wrong, or if the window's right edge goes back.
    pub fn note(&mut self, raw: &Raw, open: bool) {
        if raw.bits.rst {
            self.reset = true;
            return;
        }
        if raw.bits.syn {
            self.iss = Some(raw.seq);
            self.scale = if raw.bits.ack || raw.scale.is_some() { raw.scale.unwrap_or(0) } else { 0 };
        }
        let Some(iss) = self.iss else { return };
        let from = raw.seq.wrapping_sub(iss);
        if !raw.payload.is_empty() {
            let wrong = pattern::first_difference(UP, u64::from(from.wrapping_sub(1)), &raw.payload);
            assert_eq!(wrong, None, "octets of the stack");
        }
        self.snd_nxt = later(self.snd_nxt, from.wrapping_add(raw.seq_len()));
        if let Some((value, _)) = raw.timestamps
            && (open || raw.bits.syn)
        {
            // During a handshake only what is echoed of the SYN counts for Linux.
            self.stamp = value;
        }
        if raw.bits.ack {
            let ack = raw.ack.wrapping_sub(self.irs);
            self.rcv_nxt = later(self.rcv_nxt, ack);
            let window =
                if raw.bits.syn { u32::from(raw.window) } else { u32::from(raw.window) << self.scale };
            self.edge = later(self.edge, ack.wrapping_add(window));
        }
    }

    /// The peer's SYN did not offer window scaling: the stack's offer does not count.
    pub fn no_scaling(&mut self) {
        self.scale = 0;
    }

    /// What the stack sent, in words: relative numbers, without windows and `TSval`, and with adjacent octets as one.
    pub fn words(&self, heard: &[Raw]) -> Vec<String> {
        let mut words: Vec<String> = Vec::new();
        let mut run: Option<(u32, u32, &Raw)> = None;
        for raw in heard {
            let fits = run.is_some_and(|(_, end, last)| end == raw.seq && !last.bits.fin);
            if !raw.payload.is_empty() || (raw.bits.fin && fits) {
                let from = if fits { run.map_or(raw.seq, |(from, ..)| from) } else { raw.seq };
                if !fits && let Some(run) = run.take() {
                    words.push(self.said(run));
                }
                run = Some((from, raw.seq.wrapping_add(raw.seq_len()), raw));
                continue;
            }
            if let Some(run) = run.take() {
                words.push(self.said(run));
            }
            words.push(self.said((raw.seq, raw.seq.wrapping_add(raw.seq_len()), raw)));
        }
        words.extend(run.map(|run| self.said(run)));
        words
    }

    fn said(&self, (from, end, last): (u32, u32, &Raw)) -> String {
        let iss = self.iss.unwrap_or(0);
        let mut text = String::new();
        let Bits { syn, fin, rst, ack, urg } = last.bits;
        for (name, set) in [("SYN ", syn), ("FIN ", fin), ("RST ", rst), ("URG ", urg)] {
            if set {
                text.push_str(name);
            }
        }
        let (from, end) = (signed(from, iss), signed(end, iss));
        // The sequence number of a RST to a segment without an acknowledgement is zero itself.
        if rst && last.seq == 0 {
            text.push_str("zero");
        } else if from == end {
            let _ = write!(text, "{from}");
        } else {
            let _ = write!(text, "{from}..{end}");
        }
        if ack {
            let _ = write!(text, " ack {}", signed(last.ack, self.irs));
        }
        for (from, to) in &last.sack {
            let _ = write!(text, " sack {}-{}", signed(*from, self.irs), signed(*to, self.irs));
        }
        if syn {
            let offers = (last.mss.is_some(), last.scale.is_some(), last.sack_permitted);
            let _ = write!(text, " offers mss, scale, sack {offers:?}");
        }
        if let Some((_, echo)) = last.timestamps {
            let _ = write!(text, " ecr {echo}");
        }
        text
    }

    /// Reads at most so many octets, and checks them.
    pub fn read(&mut self, max: usize) -> String {
        match self.subject.read(max) {
            Got::Octets(octets) => {
                let wrong = pattern::first_difference(DOWN, u64::from(self.read), &octets);
                assert_eq!(wrong, None, "octets that the application gets");
                self.read += u32::try_from(octets.len()).unwrap_or(u32::MAX);
                format!("read {}", octets.len())
            }
            other => format!("read {other:?}"),
        }
    }

    /// Writes so many octets.
    pub fn write(&mut self, len: usize) -> String {
        let octets = pattern::octets(UP, u64::from(self.written), len);
        let written = self.subject.write(&octets);
        self.written += u32::try_from(written).unwrap_or(u32::MAX);
        format!("wrote {written}")
    }
}

/// The octets of a stream from `offset` on, which may lie before its beginning.
fn stream(key: u64, offset: u32, len: usize) -> Vec<u8> {
    let before = if offset.cast_signed() < 0 { len.min(offset.wrapping_neg() as usize) } else { 0 };
    let begin = if before > 0 { 0 } else { u64::from(offset) };
    [&pattern::octets(key, u64::from(offset), before)[..], &pattern::octets(key, begin, len - before)]
        .concat()
}

/// How far a sequence number lies behind another.
fn signed(seq: u32, from: u32) -> i32 {
    seq.wrapping_sub(from).cast_signed()
}

/// The later of two sequence numbers.
pub fn later(a: u32, b: u32) -> u32 {
    if signed(b, a) > 0 { b } else { a }
}
