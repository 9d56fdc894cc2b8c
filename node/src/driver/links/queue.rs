//! What waits for a link: frames, within bounds, so that nobody who fills it waits.

use std::collections::VecDeque;
use std::io::IoSlice;

use ferry_handoff::Pieces;

use crate::driver::peers::{FrameHeader, Kind, MAX_MESSAGE, frame_header};

/// Messages that may wait for one link: of a few for each of ten thousand connections that move at once, all.
const MESSAGES: usize = 1 << 15;

/// Octets that may wait for one link.
const OCTETS: usize = 8 * MAX_MESSAGE;

/// Parts, and octets of them, that are offered at a time: less than the 1024 that a system call takes (`IOV_MAX`).
const PARTS: usize = 256;
const OFFER: usize = 256 << 10;

/// The frames that have not gone yet, in order.
#[derive(Debug, Default)]
pub(super) struct Queue {
    frames: VecDeque<Waiting>,
    /// Octets of the first that have gone.
    gone: usize,
    /// Octets of payload that wait.
    octets: usize,
}

#[derive(Debug)]
struct Waiting {
    header: FrameHeader,
    payload: Pieces,
}

impl Waiting {
    fn len(&self) -> usize {
        self.header.len() + self.payload.len()
    }
}

impl Queue {
    /// Queues a message, or says `false`: it is too long, or too much waits already, and it is lost. The node repeats
    /// what matters.
    pub(super) fn push(&mut self, message: Pieces) -> bool {
        let len = message.len();
        if len > MAX_MESSAGE || self.octets + len > OCTETS || self.frames.len() >= MESSAGES {
            return false;
        }
        self.octets += len;
        self.frames.push_back(Waiting { header: frame_header(Kind::Message, len), payload: message });
        true
    }

    /// Puts a frame without payload before everything that has not begun to go.
    pub(super) fn push_sign(&mut self, kind: Kind) {
        let sign = Waiting { header: frame_header(kind, 0), payload: Pieces::default() };
        self.frames.insert(usize::from(self.gone > 0), sign);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Octets of payload that wait.
    pub(super) const fn octets(&self) -> usize {
        self.octets
    }

    /// What is to go next, as much as is worth a call.
    pub(super) fn parts(&self) -> Vec<IoSlice<'_>> {
        let (mut parts, mut skip, mut octets) = (Vec::new(), self.gone, 0);
        for Waiting { header, payload } in &self.frames {
            for part in core::iter::once(&header[..]).chain(payload.iter().map(|piece| &piece[..])) {
                let rest = &part[skip.min(part.len())..];
                skip -= part.len() - rest.len();
                if !rest.is_empty() {
                    parts.push(IoSlice::new(rest));
                    octets += rest.len();
                }
            }
            if octets >= OFFER || parts.len() >= PARTS {
                break;
            }
        }
        parts.truncate(4 * PARTS);
        parts
    }

    /// So many octets of that have gone.
    pub(super) fn went(&mut self, octets: usize) {
        self.gone += octets;
        while let Some(first) = self.frames.front()
            && first.len() <= self.gone
        {
            self.gone -= first.len();
            self.octets -= first.payload.len();
            self.frames.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_queue_drops_and_an_emptied_one_takes_again() {
        let mut queue = Queue::default();
        let message = Pieces::from(vec![0; MAX_MESSAGE]);
        assert_eq!((0..20).filter(|_| queue.push(message.clone())).count(), 8, "bounded by octets");
        queue.went(8 * (MAX_MESSAGE + 5));
        assert!(queue.is_empty() && queue.octets() == 0);
        assert_eq!((0..2 * MESSAGES).filter(|_| queue.push(vec![b'x'].into())).count(), MESSAGES);
        queue.went(6);
        assert!(queue.push(vec![b'x'].into()) && !queue.push(vec![b'x'].into()));
    }

    #[test]
    fn a_message_beyond_the_limit_is_not_taken() {
        assert!(!Queue::default().push(vec![0; MAX_MESSAGE + 1].into()));
    }

    #[test]
    fn a_sign_overtakes_what_waits_but_not_what_has_begun_to_go() {
        let mut queue = Queue::default();
        assert!(
            queue.push(Bytes::from_static(b"one").into()) && queue.push(Bytes::from_static(b"two").into())
        );
        queue.went(2);
        queue.push_sign(Kind::Pong);
        let octets: Vec<u8> = queue.parts().iter().flat_map(|part| part.to_vec()).collect();
        assert_eq!(octets, b"\0\x04\0one\0\0\0\x01\x02\0\0\0\x04\0two");
    }

    proptest! {
        #[test]
        fn what_goes_is_the_same_however_much_goes_at_a_time(
            messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..600), 0..20),
            share in 1usize..700,
        ) {
            let (mut queue, mut expected, mut seen) = (Queue::default(), Vec::new(), Vec::new());
            for message in &messages {
                expected.extend(frame_header(Kind::Message, message.len()));
                expected.extend(message);
                prop_assert!(queue.push(message.clone().into()));
            }
            while !queue.is_empty() {
                let offered: Vec<u8> = queue.parts().iter().flat_map(|part| part.to_vec()).collect();
                let taken = &offered[..share.min(offered.len())];
                seen.extend_from_slice(taken);
                queue.went(taken.len());
            }
            prop_assert_eq!(seen, expected);
            prop_assert_eq!((queue.octets(), queue.gone), (0, 0));
        }
    }
}
