//! The way from the control plane to the data plane: a queue, and a descriptor that wakes a sleeper.

use core::sync::atomic::{AtomicBool, Ordering};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, unbounded};
use ferry_handoff::{Incarnation, NodeId};
use rustix::event::{EventfdFlags, eventfd};
use tokio::sync::oneshot;

use super::links::Handover;
use crate::{Command, StoreAnswer};

/// What the control plane tells the data plane.
#[derive(Debug)]
pub(crate) enum Letter {
    /// A link to another node was made, in the place of the one that there may be.
    Link(Box<Handover>),
    /// Have another node asked for a sign of life, and pass on that something was heard. Who sends these bounds how many
    /// wait for that.
    Ask { peer: NodeId, asker: oneshot::Sender<()> },
    /// That life of another node is over: its process is gone.
    PeerDead { peer: NodeId, incarnation: Incarnation },
    /// An operator asks for something. Who sends these bounds how many are unanswered.
    Command { id: u64, command: Command },
    /// etcd has answered, or not. Who sends these sends one for each request, and those of one watch, which etcd bounds.
    Store { id: u64, answer: StoreAnswer },
    /// Leave the loop.
    Stop,
}

/// Puts letters into an [`Inbox`].
#[derive(Clone, Debug)]
pub(crate) struct Mailbox {
    sender: Sender<Letter>,
    waker: Arc<Waker>,
}

/// The data plane's end.
#[derive(Debug)]
pub(crate) struct Inbox {
    receiver: Receiver<Letter>,
    waker: Arc<Waker>,
}

/// Wakes the data plane, if it sleeps: a system call that most letters can do without.
#[derive(Debug)]
struct Waker {
    event: OwnedFd,
    asleep: AtomicBool,
}

pub(crate) fn mailbox() -> std::io::Result<(Mailbox, Inbox)> {
    let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let waker = Arc::new(Waker { event, asleep: AtomicBool::new(false) });
    let (sender, receiver) = unbounded();
    Ok((Mailbox { sender, waker: Arc::clone(&waker) }, Inbox { receiver, waker }))
}

impl Mailbox {
    /// Never blocks. After the data plane has ended, the letter is lost.
    pub(crate) fn send(&self, letter: Letter) {
        if self.sender.send(letter).is_ok() && self.waker.asleep.swap(false, Ordering::SeqCst) {
            // It can fail only if the counter is full, and then the sleeper is being woken already.
            let _ = rustix::io::write(&self.waker.event, &1u64.to_ne_bytes());
        }
    }
}

impl Inbox {
    /// The next letter, if there is one.
    pub(crate) fn take(&self) -> Option<Letter> {
        self.receiver.try_recv().ok()
    }

    /// Announces that the data plane is about to sleep, and says whether it may: a letter that was sent before is
    /// seen here, one that is sent after makes [`Self::event`] readable.
    pub(crate) fn may_sleep(&self) -> bool {
        self.waker.asleep.store(true, Ordering::SeqCst);
        self.receiver.is_empty()
    }

    /// The data plane is awake again.
    pub(crate) fn awake(&self) {
        self.waker.asleep.store(false, Ordering::SeqCst);
    }

    /// Makes [`Self::event`] unreadable until the next sleeper is woken.
    pub(crate) fn clear(&self) {
        // Nothing to read would mean that nobody had to wake it.
        let _ = rustix::io::read(&self.waker.event, &mut [0u8; 8]);
    }

    /// Readable after a letter was sent to a sleeper.
    pub(crate) fn event(&self) -> BorrowedFd<'_> {
        self.waker.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};

    use super::*;

    fn readable(inbox: &Inbox) -> bool {
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        poll(&mut [PollFd::from_borrowed_fd(inbox.event(), PollFlags::IN)], Some(&now)).unwrap() == 1
    }

    #[test]
    fn only_a_sleeper_is_woken_and_no_letter_is_missed() {
        let (mailbox, inbox) = mailbox().unwrap();
        mailbox.send(Letter::Stop);
        assert!(!readable(&inbox), "nobody sleeps");
        assert!(!inbox.may_sleep(), "a letter waits");
        inbox.awake();
        assert!(matches!(inbox.take(), Some(Letter::Stop)));
        assert!(inbox.may_sleep());
        mailbox.send(Letter::Stop);
        assert!(readable(&inbox));
        inbox.awake();
        inbox.clear();
        assert!(!readable(&inbox));
        assert!(matches!(inbox.take(), Some(Letter::Stop)));
        assert!(inbox.take().is_none());
    }
}
