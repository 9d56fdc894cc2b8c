use core::net::SocketAddrV6;
use core::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::Pipe;
use crate::session::{Event, Session, Stream};

/// The least milliseconds between two pieces.
const TICK: u64 = 10;
/// Longer than any request: two numbers of twenty digits, a space, and the end of a line.
const MAX_REQUEST: usize = 64;
/// Octets in a second that can be asked for.
const MAX_RATE: u64 = 1 << 30;
/// Of the numbers that a stream is made of.
const WORD: u64 = 8;

/// What an octet costs where an octet in a second earns one in a millisecond.
const PRICE: u64 = 1000;

/// Sends a stream at the pace that its client asks for, as a medium is played: the client sends one line, `RATE LENGTH`, the
/// octets in a second and those in all, and gets numbers of eight octets, big-endian, each the count of those before it. So the
/// client can say of each octet where it belongs, and a session that goes on from an older state sends the same again. What the
/// client has no room for comes later, and everything after it, no faster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paced(State);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum State {
    /// The request, as far as it has come.
    Asked(Vec<u8>),
    Playing(Playing),
    Over,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Playing {
    /// Octets in a second.
    rate: u64,
    length: u64,
    sent: u64,
    /// What may be sent now, by [`PRICE`], so that nothing is rounded away.
    credit: u64,
    /// Whether the timer runs. It does not while the client has no room.
    ticking: bool,
}

impl Session for Paced {
    type Service = ();

    fn open((): &(), _: SocketAddrV6) -> Self {
        Self(State::Asked(Vec::new()))
    }

    fn handle(&mut self, (): &(), event: Event, stream: &mut Stream<'_>) {
        match event {
            Event::Opened | Event::Ready | Event::Adopted => self.pump(false, stream),
            Event::Timer => self.pump(true, stream),
            Event::Closed(_) => {}
        }
    }
}

impl Paced {
    fn pump(&mut self, tick: bool, pipe: &mut impl Pipe) {
        if let State::Asked(line) = &mut self.0 {
            let arrived = pipe.read(MAX_REQUEST - line.len());
            line.extend_from_slice(&arrived);
            if let Some(end) = line.iter().position(|octet| *octet == b'\n') {
                match Playing::parse(&line[..end]) {
                    Some(playing) => self.0 = State::Playing(playing),
                    None => return self.give_up(pipe),
                }
            } else if line.len() == MAX_REQUEST || pipe.at_end() {
                return self.give_up(pipe);
            }
        }
        // Whatever follows the request is of no interest, but would fill the window.
        while !pipe.read(usize::MAX).is_empty() {}
        if let State::Playing(playing) = &mut self.0
            && playing.play(tick, pipe)
        {
            pipe.finish();
            self.0 = State::Over;
        }
    }

    fn give_up(&mut self, pipe: &mut impl Pipe) {
        pipe.reset();
        self.0 = State::Over;
    }
}

impl Playing {
    fn parse(line: &[u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (rate, length) = core::str::from_utf8(line).ok()?.split_once(' ')?;
        let rate = rate.parse().ok().filter(|rate| (1..=MAX_RATE).contains(rate))?;
        let length = length.parse().ok()?;
        let mut playing = Self { rate, length, sent: 0, credit: 0, ticking: false };
        playing.earn();
        Some(playing)
    }

    /// The milliseconds between two pieces: what is worth less than a word is not sent by itself.
    fn period(&self) -> u64 {
        (WORD * PRICE).div_ceil(self.rate).max(TICK)
    }

    fn earn(&mut self) {
        self.credit += self.rate * self.period();
    }

    /// Sends what is due. Whether that was all.
    fn play(&mut self, tick: bool, pipe: &mut impl Pipe) -> bool {
        if tick {
            self.earn();
            self.ticking = false;
        }
        let due = (self.credit / PRICE).min(self.length - self.sent);
        let octets = piece(self.sent, usize::try_from(due).unwrap_or(usize::MAX).min(pipe.writable()));
        let count = (octets.len() - pipe.write(octets).len()) as u64;
        (self.sent, self.credit) = (self.sent + count, self.credit - count * PRICE);
        if self.sent == self.length {
            return true;
        }
        if !self.ticking && count == due {
            self.ticking = true;
            pipe.wake_after(Duration::from_millis(self.period()));
        }
        false
    }
}

/// So many octets of the stream, from its octet number `at`.
fn piece(at: u64, count: usize) -> Bytes {
    let skip = usize::try_from(at % WORD).unwrap_or(0);
    let words = (skip + count).div_ceil(8);
    let mut octets = BytesMut::with_capacity(words * 8);
    (at / WORD..).take(words).for_each(|word| octets.put_u64(word));
    octets.freeze().slice(skip..skip + count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::fake::Fake;

    fn asked(line: &[u8], room: usize) -> (Paced, Fake) {
        let (mut session, mut pipe) = (Paced(State::Asked(Vec::new())), Fake::with_room(room));
        for octet in line {
            pipe.arrive(&[*octet]);
            session.pump(false, &mut pipe);
        }
        (session, pipe)
    }

    #[test]
    fn what_is_sent_in_a_second_is_what_was_asked_for_and_says_where_it_belongs() {
        for rate in [1_u64, 7, 99, 12_345] {
            let (mut session, mut pipe) = asked(format!("{rate} {}\n", rate * 30).as_bytes(), usize::MAX);
            let (mut time, mut each) = (0, 0);
            while let Some(span) = pipe.wake() {
                each = u64::try_from(span.as_millis()).unwrap();
                time += each;
                session.pump(true, &mut pipe);
                let sent = u64::try_from(pipe.sent().len()).unwrap();
                assert!(sent * 1000 <= rate * (time + each), "{rate}: {sent} in {time} ms");
                // Moved at every moment.
                session = postcard::from_bytes(&postcard::to_allocvec(&session).unwrap()).unwrap();
            }
            assert!((30_000 - 2 * each..=30_000).contains(&time), "{rate}: {time}");
            let right: Vec<u8> = (0..rate * 30).flat_map(|word: u64| word.to_be_bytes()).collect();
            assert_eq!(pipe.sent(), &right[..usize::try_from(rate * 30).unwrap()]);
            assert!(pipe.is_finished());
        }
    }

    #[test]
    fn a_client_without_room_is_not_served_faster_later() {
        let (mut session, mut pipe) = asked(b"1000 1000\r\n", 15);
        assert_eq!((pipe.sent().len(), pipe.wake()), (10, Some(Duration::from_millis(TICK))));
        session.pump(true, &mut pipe);
        assert_eq!((pipe.sent().len(), pipe.wake()), (15, None), "it waits for room, not for time");
        pipe.acknowledge(15);
        session.pump(false, &mut pipe);
        assert_eq!((pipe.sent().len(), pipe.wake()), (20, Some(Duration::from_millis(TICK))));
    }

    #[test]
    fn a_request_that_is_none_is_refused() {
        for line in ["\n", "5\n", "0 5\n", "-1 5\n", "5 x\n", "1073741825 1\n", &"1".repeat(MAX_REQUEST)] {
            assert!(asked(line.as_bytes(), 100).1.is_reset(), "{line:?}");
        }
        let (_, nothing) = asked(b"5 0\n", 100);
        assert!(nothing.is_finished() && nothing.sent().is_empty());
    }
}
