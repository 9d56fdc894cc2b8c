use core::net::SocketAddrV6;

use serde::{Deserialize, Serialize};

use super::Pipe;
use crate::session::{Event, Session, Stream};

/// Reads and forgets (RFC 863), and finishes when the client has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Discard {
    /// Octets read so far.
    received: u64,
}

impl Session for Discard {
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

impl Discard {
    fn pump(&mut self, pipe: &mut impl Pipe) {
        loop {
            let octets = pipe.read(usize::MAX);
            if octets.is_empty() {
                break;
            }
            self.received += octets.len() as u64;
        }
        if pipe.at_end() {
            pipe.finish();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::fake::Fake;

    #[test]
    fn everything_is_read_nothing_is_sent_and_the_end_is_answered_with_the_end() {
        let (mut session, mut pipe) = (Discard::default(), Fake::with_room(100));
        pipe.arrive(&vec![1; 70_000]);
        session.pump(&mut pipe);
        assert_eq!((session.received, pipe.unread(), pipe.is_finished()), (70_000, 0, false));
        pipe.end();
        session.pump(&mut pipe);
        assert_eq!((pipe.sent().len(), pipe.is_finished()), (0, true));
    }
}
