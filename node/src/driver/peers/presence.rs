//! Which life of another node is linked now, so that a second node with its name can be told.

use core::time::Duration;
use std::sync::{Arc, Mutex, PoisonError};

use ferry_handoff::Incarnation;

use super::link::Pulse;

/// Shared by a keeper and those who greet. Never touched by the data plane.
#[derive(Clone, Debug, Default)]
pub(super) struct Presence(Arc<Mutex<Option<Linked>>>);

#[derive(Clone, Debug)]
struct Linked {
    incarnation: Incarnation,
    pulse: Arc<Pulse>,
}

impl Presence {
    /// A link to this life of the node runs from now on.
    pub(super) fn set(&self, incarnation: Incarnation) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse::default());
        *self.lock() = Some(Linked { incarnation, pulse: Arc::clone(&pulse) });
        pulse
    }

    /// No link runs.
    pub(super) fn clear(&self) {
        *self.lock() = None;
    }

    /// Whether another life of the node is linked and gives a sign of life within `patience`. One that gives none is
    /// a link that has not noticed its end: the newcomer is the same node, started again.
    pub(super) async fn is_another_alive(&self, newcomer: Incarnation, patience: Duration) -> bool {
        let linked = self.lock().clone();
        match linked {
            Some(Linked { incarnation, pulse }) if incarnation != newcomer => pulse.is_alive(patience).await,
            _ => false,
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Linked>> {
        // No holder of the lock can panic, so it is never poisoned; and the value would be whole anyway.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
