use alloc::collections::VecDeque;
use alloc::sync::Arc;

use serde::{Deserialize, Serialize};

use super::config::Config;
use super::endpoint::Handle;

/// When a listener answers SYNs without remembering them (RFC 4987 section 3.6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SynCookies {
    /// Never: what does not fit the queue is dropped.
    Never,
    /// When its queue of handshakes is full.
    #[default]
    WhenFull,
    /// Always.
    Always,
}

/// A port that accepts connections: `LISTEN` of RFC 9293.
#[derive(Clone, Debug)]
pub struct Listener {
    /// How its connections behave.
    pub config: Arc<Config>,
    /// How many handshakes may be under way (the SYN queue; RFC 4987 section 3).
    pub max_half_open: usize,
    /// How many established connections may wait to be accepted (the accept queue).
    pub max_waiting: usize,
    /// Handshakes under way.
    pub(super) half_open: usize,
    /// Established and not accepted, the oldest first.
    pub(super) waiting: VecDeque<Handle>,
}

impl Listener {
    /// A listener with queues of 1024.
    pub fn new(config: impl Into<Arc<Config>>) -> Self {
        let config = config.into();
        Self { config, max_half_open: 1024, max_waiting: 1024, half_open: 0, waiting: VecDeque::new() }
    }

    /// Handshakes under way.
    pub fn half_open(&self) -> usize {
        self.half_open
    }

    /// Established connections that wait to be accepted.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}
