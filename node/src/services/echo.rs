use core::mem::take;
use core::net::SocketAddrV6;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::Pipe;
use crate::session::{Event, Session, Stream};

/// Sends back what it gets (RFC 862), and finishes when the client has.
#[derive(Clone, derive_more::Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Echo {
    /// Read, and not yet taken back by the connection. Nothing more is read before this is gone.
    #[debug("{} octets", held.len())]
    held: Bytes,
}

impl Session for Echo {
    type Service = ();

    fn open((): &(), _: SocketAddrV6) -> Self {
        Self::default()
    }

    fn handle(&mut self, (): &(), event: Event, stream: &mut Stream<'_>) {
        if !matches!(event, Event::Closed(_)) {
            self.pump(stream);
        }
    }
}

impl Echo {
    fn pump(&mut self, pipe: &mut impl Pipe) {
        loop {
            self.held = pipe.write(take(&mut self.held));
            if !self.held.is_empty() {
                return;
            }
            self.held = pipe.read(pipe.writable());
            if self.held.is_empty() {
                break;
            }
        }
        if pipe.at_end() {
            pipe.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::services::fake::Fake;

    proptest! {
        #[test]
        fn what_comes_back_is_what_was_sent_however_it_is_cut(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 0..20),
            room in 1usize..200,
            drained in 1usize..200,
        ) {
            let (mut session, mut pipe) = (Echo::default(), Fake::with_room(room));
            for piece in &pieces {
                pipe.arrive(piece);
                session.pump(&mut pipe);
                pipe.acknowledge(drained);
                // Moved at every moment.
                session = postcard::from_bytes(&postcard::to_allocvec(&session).unwrap()).unwrap();
            }
            pipe.end();
            while !pipe.is_finished() {
                session.pump(&mut pipe);
                prop_assert!(pipe.acknowledge(drained) > 0 || pipe.is_finished(), "stuck");
            }
            prop_assert_eq!(pipe.sent(), &pieces.concat()[..]);
        }
    }

    #[test]
    fn nothing_is_read_while_there_is_no_room_to_send_it_back() {
        let (mut session, mut pipe) = (Echo::default(), Fake::with_room(10));
        pipe.arrive(&[7; 30]);
        session.pump(&mut pipe);
        assert_eq!((pipe.sent().len(), pipe.unread()), (10, 20));
    }
}
