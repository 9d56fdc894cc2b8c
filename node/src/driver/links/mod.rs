//! The links to the other nodes, as the data plane runs them: once the control plane has made and greeted one, what comes
//! on it goes straight to the core, and what the core says goes out in the same turn.

mod channel;
mod link;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd};

use ferry_handoff::{Incarnation, NodeId, Pieces};
use ferry_stack::Instant;
use rustix::event::epoll::{self, EventData, EventFlags};
use tokio::sync::oneshot;

use self::link::Link;
use crate::Input;

pub(super) use channel::Channel;
pub(super) use link::{Ended, Patience};
#[cfg(test)]
pub(super) use tests::ends;

/// Octets that are asked of a socket at a time.
const READ: usize = 64 << 10;

/// A link that was made, for the data plane to run.
#[derive(Debug)]
pub(crate) struct Handover {
    pub(super) peer: NodeId,
    /// The life of the other node.
    pub(super) incarnation: Incarnation,
    /// The life of ours that greeted it.
    pub(super) ours: Incarnation,
    pub(super) channel: Channel,
    /// Told how it ended.
    pub(super) ended: oneshot::Sender<Ended>,
}

/// All links that are up.
#[derive(Debug)]
pub(crate) struct Links {
    patience: Patience,
    running: BTreeMap<NodeId, Running>,
    /// The mark that the next one gets in the epoll set.
    next_mark: u64,
    /// What is read lies here until it is understood; empty until there is a link.
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Running {
    link: Link,
    mark: u64,
    ended: oneshot::Sender<Ended>,
}

impl Links {
    /// Marks its sockets in the epoll set with `mark` and everything above.
    pub(super) fn new(patience: Patience, mark: u64) -> Self {
        Self { patience, running: BTreeMap::new(), next_mark: mark, scratch: Vec::new() }
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.running.is_empty()
    }

    /// Runs a link from now on, in the place of the one that there may be. One that greeted under a former life of ours,
    /// and not under `life`, is let go.
    pub(super) fn begin(
        &mut self,
        handover: Handover,
        life: Incarnation,
        epoll: BorrowedFd<'_>,
        now: Instant,
        mut core: impl FnMut(Input),
    ) {
        let Handover { peer, incarnation, ours, channel, ended } = handover;
        if ours != life {
            // Who has handed it over may have ended.
            let _ = ended.send(Ended::Reborn);
            return;
        }
        self.end(peer, Ended::Replaced, &mut core);
        let mark = self.next_mark;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        if let Err(why) = epoll::add(epoll, channel.as_fd(), EventData::new_u64(mark), flags) {
            let _ = ended.send(Ended::Broken(why.into()));
            return;
        }
        self.next_mark += 1;
        self.scratch.resize(READ, 0);
        self.running.insert(peer, Running { link: Link::new(channel, self.patience, now), mark, ended });
        core(Input::PeerUp { peer, incarnation });
    }

    /// What epoll says of the socket with that mark.
    pub(super) fn ready(&mut self, mark: u64, flags: EventFlags) {
        if let Some(running) = self.running.values_mut().find(|running| running.mark == mark) {
            running.link.ready(flags);
        }
    }

    /// Takes a share of what has come on each; whether anything had.
    pub(super) fn take(&mut self, now: Instant, mut core: impl FnMut(Input)) -> bool {
        let (mut any, mut over) = (false, Vec::new());
        for (&peer, Running { link, .. }) in &mut self.running {
            let message = |bytes| {
                any = true;
                core(Input::Peer { from: peer, bytes });
            };
            if let Err(ended) = link.take(&mut self.scratch, now, message) {
                over.push((peer, ended));
            }
        }
        for (peer, ended) in over {
            any = true;
            self.end(peer, ended, &mut core);
        }
        any
    }

    /// Sends a message with the others of this turn; `false` if it is lost, because the link is too slow. Without a link it
    /// goes nowhere, as the core knows.
    pub(super) fn tell(&mut self, to: NodeId, message: Pieces) -> bool {
        self.running.get_mut(&to).is_none_or(|running| running.link.push(message))
    }

    /// Has another node asked for a sign of life.
    pub(super) fn ask(&mut self, peer: NodeId, asker: oneshot::Sender<()>) {
        if let Some(running) = self.running.get_mut(&peer) {
            running.link.ask(asker);
        }
    }

    /// Sends what is to go in this turn.
    pub(super) fn flush(&mut self, now: Instant) {
        for running in self.running.values_mut() {
            running.link.flush(now);
        }
    }

    /// Ends every link without a word to the core, which begins a new life.
    pub(super) fn end_life(&mut self) {
        for (_, running) in core::mem::take(&mut self.running) {
            let _ = running.ended.send(Ended::Reborn);
        }
    }

    fn end(&mut self, peer: NodeId, why: Ended, core: &mut impl FnMut(Input)) {
        if let Some(running) = self.running.remove(&peer) {
            // Closed before anybody is told, who may call at once.
            drop(running.link);
            let _ = running.ended.send(why);
            core(Input::PeerDown { peer });
        }
    }

    /// Whether there is more to do at once.
    pub(super) fn is_restless(&self) -> bool {
        self.running.values().any(|running| running.link.is_restless())
    }

    /// When one is to be looked at, whatever comes.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.running.values().map(|running| running.link.deadline()).min()
    }
}
