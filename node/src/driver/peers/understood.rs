//! What a node understands of the octets on a peer link, without a network: for tests and fuzzers.

use core::pin::pin;
use core::task::{Context, Poll, Waker};

use bytes::BytesMut;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::wire::{
    Answer, FrameError, GreetError, Hello, frame_header, next_frame, receive_greeting, send_greeting,
};

/// What one side of a peer link said, as another node understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Understood {
    /// The greeting and every whole frame, written anew.
    pub octets: Vec<u8>,
    /// Why a node would close the link after these; `None` if it would wait for more.
    pub closes: Option<String>,
}

/// Reads what one side says from the first octet on: a greeting, which is a question if this side `dialled` and else
/// an answer, then frames. The octets arrive in pieces of `piece` octets, at least one.
///
/// It is the code that reads a link, for tests and fuzzers to try it with any octets.
pub fn understood(octets: &[u8], dialled: bool, piece: usize) -> Understood {
    let mut wire = octets;
    let greeting = if dialled { again::<Hello>(&mut wire) } else { again::<Answer>(&mut wire) };
    let mut understood = match greeting {
        Ok(octets) => Understood { octets, closes: None },
        Err(why) => return Understood { octets: Vec::new(), closes: Some(why.to_string()) },
    };
    let mut buffer = BytesMut::new();
    for piece in wire.chunks(piece.max(1)) {
        buffer.extend_from_slice(piece);
        if let Err(why) = frames(&mut buffer, &mut understood.octets) {
            understood.closes = Some(why.to_string());
            return understood;
        }
    }
    understood
}

/// Takes a greeting off `wire` and writes it as we would.
fn again<T: DeserializeOwned + Serialize>(wire: &mut &[u8]) -> Result<Vec<u8>, GreetError> {
    let greeting: T = at_once(receive_greeting(wire))?;
    let mut octets = Vec::new();
    at_once(send_greeting(&mut octets, &greeting))?;
    Ok(octets)
}

fn frames(buffer: &mut BytesMut, into: &mut Vec<u8>) -> Result<(), FrameError> {
    while let Some((kind, payload)) = next_frame(buffer)? {
        into.extend_from_slice(&frame_header(kind, payload.len()));
        into.extend_from_slice(&payload);
    }
    Ok(())
}

/// What a future gives that never waits, since octets in memory are there or not.
fn at_once<T>(step: impl Future<Output = Result<T, GreetError>>) -> Result<T, GreetError> {
    match pin!(step).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(done) => done,
        Poll::Pending => Err(GreetError::Io(std::io::ErrorKind::WouldBlock.into())),
    }
}

#[cfg(test)]
mod tests {
    use ferry_handoff::Incarnation;

    use super::super::wire::{Kind, Purpose, Refusal};
    use super::*;

    fn written<T: Serialize>(greeting: &T) -> Vec<u8> {
        let mut octets = Vec::new();
        at_once(send_greeting(&mut octets, greeting)).unwrap();
        octets
    }

    #[test]
    fn a_greeting_and_its_frames_are_understood_as_they_were_written_and_the_rest_is_waited_for() {
        let hello = Hello {
            group: "demo".into(),
            name: "a".into(),
            incarnation: Incarnation(7),
            purpose: Purpose::Probe,
        };
        let answer = Answer::Refused(Refusal::Stranger("a".into()));
        for (dialled, greeting) in [(true, written(&hello)), (false, written(&answer))] {
            let mut octets = greeting;
            octets.extend(frame_header(Kind::Ping, 0));
            octets.extend([&frame_header(Kind::Message, 3)[..], b"abc"].concat());
            let half = [&octets[..], &frame_header(Kind::Message, 9), b"abc"].concat();
            for piece in 0..50 {
                let expected = Understood { octets: octets.clone(), closes: None };
                assert_eq!(understood(&half, dialled, piece), expected, "{piece}");
            }
        }
    }

    #[test]
    fn a_link_is_closed_at_the_first_octets_that_break_the_rules() {
        let none = understood(b"\0\0\0\x04GET ", true, 1);
        assert_eq!(none.closes.as_deref(), Some("it does not speak the peer-link protocol"));
        let refused = written(&Answer::Refused(Refusal::Version(2)));
        let one = understood(&[&refused[..], &frame_header(Kind::Pong, 0), &[0; 4]].concat(), false, 7);
        assert_eq!(one.closes.as_deref(), Some("it sent an empty frame"));
        assert_eq!(one.octets, [&refused[..], &frame_header(Kind::Pong, 0)].concat());
    }
}
