//! From the data plane to a peer link: a queue that never blocks who fills it.

use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::Arc;

use ferry_handoff::Pieces;
use tokio::sync::mpsc;

use super::wire::MAX_MESSAGE;

/// Messages that may wait for one link: of a few for each of ten thousand connections that move at once, all.
const MESSAGES: usize = 1 << 15;

/// Octets that may wait for one link.
const OCTETS: usize = 8 * MAX_MESSAGE;

/// The data plane's end.
#[derive(Debug)]
pub(crate) struct PeerQueue {
    sender: mpsc::Sender<Pieces>,
    octets: Arc<AtomicUsize>,
}

/// The link's end.
#[derive(Debug)]
pub(super) struct Outgoing {
    receiver: mpsc::Receiver<Pieces>,
    octets: Arc<AtomicUsize>,
}

pub(super) fn queue() -> (PeerQueue, Outgoing) {
    let (sender, receiver) = mpsc::channel(MESSAGES);
    let octets = Arc::new(AtomicUsize::new(0));
    (PeerQueue { sender, octets: Arc::clone(&octets) }, Outgoing { receiver, octets })
}

impl PeerQueue {
    /// Queues a message, or says `false`: it is too long, or too much waits already, and it is lost. The node repeats
    /// what matters.
    pub(crate) fn push(&self, message: Pieces) -> bool {
        let len = message.len();
        // Relaxed: only the count itself matters, and only this thread adds.
        if len > MAX_MESSAGE || self.octets.load(Ordering::Relaxed) + len > OCTETS {
            return false;
        }
        self.octets.fetch_add(len, Ordering::Relaxed);
        let queued = self.sender.try_send(message).is_ok();
        if !queued {
            self.octets.fetch_sub(len, Ordering::Relaxed);
        }
        queued
    }
}

impl Outgoing {
    /// The next message; `None` once the data plane is gone.
    pub(super) async fn next(&mut self) -> Option<Pieces> {
        let message = self.receiver.recv().await?;
        Some(self.taken(message))
    }

    /// The next message, if one waits.
    pub(super) fn try_next(&mut self) -> Option<Pieces> {
        let message = self.receiver.try_recv().ok()?;
        Some(self.taken(message))
    }

    /// Forgets what waits: it was meant for a link that is gone.
    pub(super) fn clear(&mut self) {
        while self.try_next().is_some() {}
    }

    fn taken(&self, message: Pieces) -> Pieces {
        self.octets.fetch_sub(message.len(), Ordering::Relaxed);
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_drops_and_an_emptied_one_takes_again() {
        let (queue, mut outgoing) = queue();
        let message = Pieces::from(vec![0; MAX_MESSAGE]);
        assert_eq!((0..20).filter(|_| queue.push(message.clone())).count(), 8, "bounded by octets");
        outgoing.clear();
        assert_eq!((0..2 * MESSAGES).filter(|_| queue.push(vec![b'x'].into())).count(), MESSAGES);
        assert!(outgoing.try_next().is_some());
        assert!(queue.push(vec![b'x'].into()));
    }

    #[test]
    fn a_message_beyond_the_limit_is_not_taken() {
        let (queue, _outgoing) = queue();
        assert!(!queue.push(vec![0; MAX_MESSAGE + 1].into()));
    }
}
