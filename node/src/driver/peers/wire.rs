//! What two nodes say on a peer link: a greeting each way, then frames.
//!
//! Everything is a length (four octets, big-endian) and that many octets. A greeting begins with [`MAGIC`] and a
//! version, so that nodes of different versions can at least tell each other so. A frame begins with its [`Kind`].

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use ferry_handoff::Incarnation;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const MAGIC: [u8; 8] = *b"ferry-pl";

/// Grows with every change of what is said here or by the nodes' cores over it.
pub(super) const VERSION: u16 = 4;

/// Bounds a message of a node's core.
pub(crate) const MAX_MESSAGE: usize = 8 << 20;

/// Bounds a greeting: two labels of 63 octets and some numbers.
const MAX_GREETING: usize = 512;

const PREFIX: usize = 4;

/// A node as it presents itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Hello {
    pub(super) group: String,
    pub(super) name: String,
    pub(super) incarnation: Incarnation,
    pub(super) purpose: Purpose,
}

/// Why a node connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Purpose {
    /// To stay.
    Link,
    /// To learn whether its name is free. Only the node with the smaller name dials for a link, so a node would
    /// otherwise not meet those that already talk to its namesake.
    Probe,
}

/// What the other node says to that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    Welcome(Hello),
    Refused(Refusal),
}

/// Why a node is not let in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// It speaks another version of the peer link's protocol.
    #[error(
        "it speaks version {0} of the peer-link protocol, this node {VERSION}; run the same ferry everywhere"
    )]
    Version(u16),
    /// It belongs to another group.
    #[error("it belongs to the group \"{theirs}\", this node to \"{ours}\"; compare [group] name")]
    Group {
        /// The group of the one that was refused.
        theirs: String,
        /// The group of the one that refuses.
        ours: String,
    },
    /// It is not in the configuration of the one that refuses.
    #[error("there is no [[peer]] with the name \"{0}\"; add it there")]
    Stranger(String),
    /// Its certificate is for another name.
    #[error("its certificate is not for \"{0}\"; give it the files that `ferry keygen` made for this name")]
    Certificate(String),
    /// Another process has this name and is alive.
    #[error("another node with the name \"{0}\" is running; give each node a name of its own")]
    NameTaken(String),
    /// The other side dials.
    #[error("of two nodes the one with the smaller name dials, and \"{0}\" is not the smaller")]
    Direction(String),
}

/// Why a greeting came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum GreetError {
    #[error("the connection broke: {0}")]
    Io(#[from] io::Error),
    #[error("it does not speak the peer-link protocol")]
    Malformed,
    #[error(
        "it speaks version {0} of the peer-link protocol, this node {VERSION}; run the same ferry everywhere"
    )]
    Version(u16),
}

pub(super) async fn send_greeting<T: Serialize>(
    wire: &mut (impl AsyncWrite + Unpin),
    greeting: &T,
) -> Result<(), GreetError> {
    let body = postcard::to_allocvec(greeting).map_err(|_| GreetError::Malformed)?;
    let len = MAGIC.len() + 2 + body.len();
    let mut octets = BytesMut::with_capacity(PREFIX + len);
    octets.put_u32(u32::try_from(len).map_err(|_| GreetError::Malformed)?);
    octets.put_slice(&MAGIC);
    octets.put_u16(VERSION);
    octets.put_slice(&body);
    wire.write_all(&octets).await?;
    Ok(wire.flush().await?)
}

pub(super) async fn receive_greeting<T: DeserializeOwned>(
    wire: &mut (impl AsyncRead + Unpin),
) -> Result<T, GreetError> {
    let len = usize::try_from(wire.read_u32().await?).map_err(|_| GreetError::Malformed)?;
    if len > MAX_GREETING {
        return Err(GreetError::Malformed);
    }
    let mut octets = vec![0; len];
    wire.read_exact(&mut octets).await?;
    parse_greeting(&octets)
}

fn parse_greeting<T: DeserializeOwned>(octets: &[u8]) -> Result<T, GreetError> {
    let rest = octets.strip_prefix(&MAGIC).ok_or(GreetError::Malformed)?;
    let (version, body) = rest.split_first_chunk().ok_or(GreetError::Malformed)?;
    let version = u16::from_be_bytes(*version);
    if version != VERSION {
        return Err(GreetError::Version(version));
    }
    match postcard::take_from_bytes(body) {
        Ok((greeting, [])) => Ok(greeting),
        _ => Err(GreetError::Malformed),
    }
}

/// What a frame is, told by its first octet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::driver) enum Kind {
    /// For the node's core.
    Message,
    /// Asks for a sign of life.
    Ping,
    /// Gives one.
    Pong,
}

impl Kind {
    const fn octet(self) -> u8 {
        match self {
            Self::Message => 0,
            Self::Ping => 1,
            Self::Pong => 2,
        }
    }
}

/// What precedes the payload of a frame.
pub(in crate::driver) type FrameHeader = [u8; PREFIX + 1];

/// That of a frame with `payload` octets.
pub(in crate::driver) fn frame_header(kind: Kind, payload: usize) -> FrameHeader {
    let len = u32::try_from(payload + 1).unwrap_or(u32::MAX).to_be_bytes();
    [len[0], len[1], len[2], len[3], kind.octet()]
}

/// Why octets from another node are no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(in crate::driver) enum FrameError {
    #[error("it sent a frame of {0} octets, and {MAX_MESSAGE} is the limit")]
    TooLong(usize),
    #[error("it sent an empty frame")]
    Empty,
    #[error("it sent a frame of the unknown kind {0}")]
    Kind(u8),
}

/// Takes the next whole frame off `buffer`; makes room for the rest if there is only a part.
pub(in crate::driver) fn next_frame(buffer: &mut BytesMut) -> Result<Option<(Kind, Bytes)>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<PREFIX>() else { return Ok(None) };
    let len = usize::try_from(u32::from_be_bytes(*prefix)).unwrap_or(usize::MAX);
    match len {
        0 => return Err(FrameError::Empty),
        len if len > MAX_MESSAGE + 1 => return Err(FrameError::TooLong(len)),
        _ => {}
    }
    if buffer.len() < PREFIX + len {
        buffer.reserve(PREFIX + len - buffer.len());
        return Ok(None);
    }
    buffer.advance(PREFIX);
    let mut frame = buffer.split_to(len).freeze();
    let kind = match frame.get_u8() {
        0 => Kind::Message,
        1 => Kind::Ping,
        2 => Kind::Pong,
        other => return Err(FrameError::Kind(other)),
    };
    Ok(Some((kind, frame)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello() -> Hello {
        Hello { group: "demo".into(), name: "a".into(), incarnation: Incarnation(7), purpose: Purpose::Link }
    }

    async fn greeting() -> Vec<u8> {
        let mut octets = Vec::new();
        send_greeting(&mut octets, &hello()).await.unwrap();
        octets
    }

    #[tokio::test]
    async fn a_greeting_arrives_as_it_was_sent_and_its_octets_are_pinned() {
        let octets = greeting().await;
        assert_eq!(receive_greeting::<Hello>(&mut &octets[..]).await.unwrap(), hello());
        assert_eq!(octets, b"\0\0\0\x13ferry-pl\0\x04\x04demo\x01a\x07\0");
    }

    #[tokio::test]
    async fn a_greeting_cut_anywhere_is_refused() {
        let octets = greeting().await;
        for len in 0..octets.len() {
            assert!(receive_greeting::<Hello>(&mut &octets[..len]).await.is_err(), "{len}");
            let mut shorter = octets[..len].to_vec();
            if let Some(body) = len.checked_sub(PREFIX) {
                shorter[3] = u8::try_from(body).unwrap();
                assert!(
                    receive_greeting::<Hello>(&mut &shorter[..]).await.is_err(),
                    "{len}, with its length right"
                );
            }
        }
    }

    #[tokio::test]
    async fn a_greeting_of_another_version_tells_which() {
        let mut octets = greeting().await;
        octets[13] = 9;
        assert!(matches!(receive_greeting::<Hello>(&mut &octets[..]).await, Err(GreetError::Version(9))));
    }

    #[tokio::test]
    async fn a_greeting_is_bounded_and_ends_where_it_says() {
        let mut long = greeting().await;
        long[2] = 0xff;
        assert!(matches!(receive_greeting::<Hello>(&mut &long[..]).await, Err(GreetError::Malformed)));
        let mut trailing = greeting().await;
        trailing.push(0);
        trailing[3] += 1;
        assert!(matches!(receive_greeting::<Hello>(&mut &trailing[..]).await, Err(GreetError::Malformed)));
    }

    #[test]
    fn a_frame_that_breaks_the_rules_is_named() {
        let cases: [(&[u8], FrameError); 3] = [
            (&[0, 0, 0, 0], FrameError::Empty),
            (&[0, 0x80, 0, 2], FrameError::TooLong(MAX_MESSAGE + 2)),
            (&[0, 0, 0, 1, 9], FrameError::Kind(9)),
        ];
        for (octets, expected) in cases {
            assert_eq!(next_frame(&mut BytesMut::from(octets)), Err(expected));
        }
    }

    proptest! {
        #[test]
        fn frames_are_the_same_however_the_octets_are_cut(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
            cut in 1usize..50,
        ) {
            let octets: Vec<u8> =
                messages.iter().flat_map(|m| [&frame_header(Kind::Message, m.len())[..], m].concat()).collect();
            let (mut buffer, mut seen) = (BytesMut::new(), Vec::new());
            for piece in octets.chunks(cut) {
                buffer.extend_from_slice(piece);
                while let Some((kind, bytes)) = next_frame(&mut buffer).unwrap() {
                    prop_assert_eq!(kind, Kind::Message);
                    seen.push(bytes.to_vec());
                }
            }
            prop_assert_eq!(seen, messages);
        }
    }
}
