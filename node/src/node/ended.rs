//! Connections that ended in good order: what still comes of them are late duplicates.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use ferry_handoff::Epoch;
use ferry_stack::Instant;
use ferry_stack::tcp::{Flow, MapKey};

/// Longer than a segment takes by any way through the group.
const MEMORY: Duration = Duration::from_secs(10);
/// Connections that are remembered. Of those before them a late duplicate is answered by a RST.
const MAX_ENDED: usize = 1 << 16;

/// Connections of which both sides have finished and know it.
///
/// To one server a client's segments come in order, hardly ever one after the last. Here some take the way over the
/// contact node or over a node that had the connection before. Nobody waits for an answer to them.
#[derive(Debug)]
pub(super) struct Ended {
    known: HashMap<Flow, (Instant, Epoch), MapKey>,
    in_turn: VecDeque<(Instant, Flow)>,
}

impl Ended {
    pub(super) fn new(key: MapKey) -> Self {
        Self { known: HashMap::with_hasher(key), in_turn: VecDeque::new() }
    }

    pub(super) fn remember(&mut self, flow: Flow, epoch: Epoch, now: Instant) {
        self.forget_old(now);
        if self.in_turn.len() >= MAX_ENDED {
            self.forget_first();
        }
        self.known.insert(flow, (now + MEMORY, epoch));
        self.in_turn.push_back((now + MEMORY, flow));
    }

    /// The last epoch of a connection that has ended: what comes of it and is no SYN is late.
    pub(super) fn remembers(&self, flow: &Flow, now: Instant) -> Option<Epoch> {
        self.known.get(flow).filter(|(until, _)| now < *until).map(|(_, epoch)| *epoch)
    }

    /// The client opens it anew.
    pub(super) fn forget(&mut self, flow: &Flow) {
        self.known.remove(flow);
    }

    fn forget_old(&mut self, now: Instant) {
        while self.in_turn.front().is_some_and(|(until, _)| *until <= now) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some((until, flow)) = self.in_turn.pop_front()
            && self.known.get(&flow).is_some_and(|(known, _)| *known == until)
        {
            self.known.remove(&flow);
        }
    }
}
