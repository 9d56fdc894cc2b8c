//! Commands to the node's core, and the way back of its answers.

use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::mailbox::{Letter, Mailbox};
use crate::{Command, Reply};

/// Commands that may be unanswered at a time; more wait.
const UNANSWERED: usize = 64;

/// The data plane's way to answer. Holds every answer that can be outstanding, so it is never full.
pub(crate) type Replies = mpsc::Sender<(u64, Reply)>;

/// Asks the running node.
#[derive(Clone, Debug)]
pub struct Asker(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    mailbox: Mailbox,
    next: AtomicU64,
    room: Arc<Semaphore>,
    /// Touched by the control plane only.
    waiting: Mutex<HashMap<u64, Waiting>>,
}

/// The place is held until the answer is there, even if nobody waits for it any more.
#[derive(Debug)]
struct Waiting {
    asker: oneshot::Sender<Reply>,
    _place: OwnedSemaphorePermit,
}

impl Asker {
    /// Starts the task that brings answers back; to be called within a runtime.
    pub(crate) fn new(mailbox: Mailbox) -> (Self, Replies) {
        let (replies, mut receiver) = mpsc::channel(UNANSWERED);
        let shared = Arc::new(Shared {
            mailbox,
            next: AtomicU64::new(0),
            room: Arc::new(Semaphore::new(UNANSWERED)),
            waiting: Mutex::default(),
        });
        let asker = Self(Arc::clone(&shared));
        tokio::spawn(async move {
            while let Some((id, reply)) = receiver.recv().await {
                if let Some(waiting) = shared.waiting().remove(&id) {
                    // Whoever asked may have left.
                    let _ = waiting.asker.send(reply);
                }
            }
            shared.waiting().clear();
        });
        (asker, replies)
    }

    /// The node's answer to a command. If the node ends first, an error as the answer.
    pub async fn ask(&self, command: Command) -> Reply {
        let ended =
            || Reply::Error { why: "the node is ending; start it again and repeat the command".to_owned() };
        let Ok(place) = Arc::clone(&self.0.room).acquire_owned().await else { return ended() };
        let id = self.0.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.0.waiting().insert(id, Waiting { asker: sender, _place: place });
        self.0.mailbox.send(Letter::Command { id, command });
        receiver.await.unwrap_or_else(|_| ended())
    }
}

impl Shared {
    fn waiting(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Waiting>> {
        // No holder of the lock can panic, so it is never poisoned; and the map would be whole anyway.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
