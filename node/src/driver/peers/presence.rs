//! Which life of another node is linked now, so that a second node with its name can be told.

use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};

use ferry_handoff::{Incarnation, NodeId};
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::driver::mailbox::{Letter, Mailbox};

/// Shared by a keeper and those who greet. Never touched by the data plane.
#[derive(Clone, Debug)]
pub(super) struct Presence {
    peer: NodeId,
    linked: Arc<Mutex<Option<Incarnation>>>,
    /// To the data plane, which runs the link.
    mailbox: Mailbox,
}

impl Presence {
    /// Of another node, without a link yet.
    pub(super) fn new(peer: NodeId, mailbox: Mailbox) -> Self {
        Self { peer, linked: Arc::default(), mailbox }
    }

    /// A link to this life of the node runs from now on; `None`: none does.
    pub(super) fn set(&self, incarnation: Option<Incarnation>) {
        *self.lock() = incarnation;
    }

    /// Whether another life of the node is linked and gives a sign of life within `patience`. One that gives none is
    /// a link that has not noticed its end: the newcomer is the same node, started again.
    pub(super) async fn is_another_alive(&self, newcomer: Incarnation, patience: Duration) -> bool {
        if self.lock().is_none_or(|linked| linked == newcomer) {
            return false;
        }
        let (asker, heard) = oneshot::channel();
        self.mailbox.send(Letter::Ask { peer: self.peer, asker });
        timeout(patience, heard).await.is_ok_and(|heard| heard.is_ok())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Incarnation>> {
        // No holder of the lock can panic, so it is never poisoned; and the value would be whole anyway.
        self.linked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
