//! Connections that ended in good order: what still comes of them are late duplicates.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use ferry_handoff::Epoch;
use ferry_stack::tcp::{Flow, MapKey, ReceivedRange};
use ferry_stack::{Instant, Seq};

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
    known: HashMap<Flow, Known, MapKey>,
    in_turn: VecDeque<(Instant, Flow)>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    until: Instant,
    epoch: Epoch,
    received: ReceivedRange,
}

impl Ended {
    pub(super) fn new(key: MapKey) -> Self {
        Self { known: HashMap::with_hasher(key), in_turn: VecDeque::new() }
    }

    pub(super) fn remember(&mut self, flow: Flow, epoch: Epoch, received: ReceivedRange, now: Instant) {
        self.forget_old(now);
        if self.in_turn.len() >= MAX_ENDED {
            self.forget_first();
        }
        let until = now + MEMORY;
        self.known.insert(flow, Known { until, epoch, received });
        self.in_turn.push_back((until, flow));
    }

    fn get(&self, flow: &Flow, now: Instant) -> Option<&Known> {
        self.known.get(flow).filter(|known| now < known.until)
    }

    /// The last epoch of a connection that has ended.
    pub(super) fn epoch(&self, flow: &Flow, now: Instant) -> Option<Epoch> {
        self.get(flow, now).map(|known| known.epoch)
    }

    /// Whether a segment that begins there, and is no SYN, is a late one of a connection that has ended. Else the client may have
    /// opened another from the same port.
    pub(super) fn may_be_late(&self, flow: &Flow, seq: Seq, now: Instant) -> bool {
        self.get(flow, now).is_some_and(|known| known.received.may_repeat(seq))
    }

    /// Whether a connection has ended that this SYN has opened.
    pub(super) fn was_opened_by(&self, flow: &Flow, syn: Seq, now: Instant) -> bool {
        self.get(flow, now).is_some_and(|known| known.received.irs == syn)
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
            && self.known.get(&flow).is_some_and(|known| known.until == until)
        {
            self.known.remove(&flow);
        }
    }
}
