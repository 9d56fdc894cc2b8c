//! What is done to single messages between nodes, so that each can be had lost, doubled, late or overtaken by itself.

use core::time::Duration;

use bytes::Bytes;
use ferry_handoff::Message;
use ferry_stack::Instant;

/// What becomes of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It vanishes.
    Lost,
    /// It arrives twice, the second time so much later.
    Doubled(Duration),
    /// It is late by so much, and others overtake it.
    Late(Duration),
    /// It vanishes, and the link breaks for so long.
    Cut(Duration),
    /// Whatever its sender tells anybody from here on is late, until so much time has passed: then all of it arrives.
    Stuck(Duration),
}

/// A message that was sent.
#[derive(Clone, Debug)]
pub struct Said {
    /// When.
    pub at: Instant,
    /// By the machine of this number …
    pub from: usize,
    /// … to that one.
    pub to: usize,
    /// What.
    pub bytes: Bytes,
}

impl Said {
    /// What it says.
    pub fn message(&self) -> Message {
        Message::decode(&self.bytes).expect("a node sends messages")
    }
}

/// What is done to messages, and what was sent.
#[derive(Debug, Default)]
pub struct Tamper {
    /// What happens to the message of which number, counted from zero.
    pub plan: Option<(u64, Fate)>,
    /// Everything is said again so much later: five times, and each time again so much later.
    pub echo: Option<Duration>,
    /// Messages so far.
    pub count: u64,
    /// Whether what is sent is kept.
    pub records: bool,
    /// What was sent since then.
    pub said: Vec<Said>,
    /// Who is stuck, and until when.
    stuck: Option<(usize, Instant)>,
}

/// The messages that are sent in a row, each by itself.
pub(crate) fn one_by_one(octets: &Bytes) -> Vec<Bytes> {
    let (mut rest, mut all) = (octets.clone(), Vec::new());
    while !rest.is_empty() {
        let before = rest.clone();
        Message::take(&mut rest).expect("a node sends messages");
        all.push(before.slice(..before.len() - rest.len()));
    }
    all
}

impl Tamper {
    /// Whether anything is done to messages, so that those that are sent in a row have to be taken apart.
    pub(crate) fn is_on(&self) -> bool {
        self.plan.is_some() || self.records || self.echo.is_some()
    }

    /// One more message is sent. What is to become of it.
    pub(crate) fn next(&mut self, from: usize, to: usize, bytes: &Bytes, now: Instant) -> Option<Fate> {
        let nth = self.count;
        self.count += 1;
        if self.records {
            self.said.push(Said { at: now, from, to, bytes: bytes.clone() });
        }
        let fate = self.plan.filter(|(at, _)| *at == nth).map(|(_, fate)| fate);
        if let Some(Fate::Stuck(span)) = fate {
            self.stuck = Some((from, now + span));
        }
        match self.stuck {
            Some((who, until)) if who == from && now < until => Some(Fate::Late(until.until(now))),
            _ => fate,
        }
    }
}
