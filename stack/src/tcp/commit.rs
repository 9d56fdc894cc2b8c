//! Output commit: what the other side may be told only once a backup could go on from there.
//!
//! A connection that is restored from a copy must never be older than what the other side saw of it. So, as long as it
//! is [held](Tcb::hold), an acknowledgement covers, octets lie below, and the window reaches to, no more than the
//! [`Point`] that was [released](Tcb::release). Everything else goes out as always: what was sent before, probes,
//! keep-alives and RSTs tell nothing that a copy could contradict. Octets that were selectively acknowledged may be
//! missing in a copy: whoever sent them has to keep them (RFC 2018 section 8).

use alloc::boxed::Box;

use serde::{Deserialize, Serialize};

use super::segment::Segment;
use super::state::State;
use super::tcb::Tcb;
use crate::{Instant, Seq};

/// What waits until a backup has a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Commit {
    /// Acknowledgements, and octets that were never sent.
    Strict,
    /// Acknowledgements only: the session would write the same octets again.
    Regenerate,
}

/// How far a copy of a connection knows it. Points of one connection only move on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// What may be acknowledged: RCV.NXT, a FIN included.
    pub ack: Seq,
    /// Up to where the window may be open: what the copy has room for.
    pub edge: Seq,
    /// Before which everything may be sent: the end of the queue, a FIN included.
    pub send: Seq,
}

/// What a connection holds back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What waits.
    pub commit: Commit,
    /// How far it need not wait any more.
    pub released: Point,
}

impl<At> Tcb<At> {
    /// How far a copy of the connection as it is now would know it. One that has not seen the other side's SYN has no
    /// use for it: see [`Tcb::hold`].
    pub fn point(&self) -> Point {
        Point { ack: self.rcv.nxt, edge: self.most_edge(), send: self.snd.last() }
    }

    /// The furthest right edge that this connection could ever have promised.
    pub(super) fn most_edge(&self) -> Seq {
        let room = self.most_room().saturating_sub(self.rcv.unread.len());
        self.rcv.adv.later(self.rcv.nxt + room)
    }

    /// Holds back from now on what no backup is known to have, or changes what is held back. What was told already is
    /// released. A connection that we open is not held before the other side has answered: then call again.
    pub fn hold(&mut self, commit: Commit) {
        if matches!(self.state, State::SynSent | State::Closed(_)) {
            return;
        }
        self.hold_at(commit, self.rcv.adv);
        if commit == Commit::Strict {
            // What waits for a release does not wait for the other side's window.
            self.timers.persist = None;
        }
    }

    /// The same, where the window was open up to `edge`.
    pub(super) fn hold_at(&mut self, commit: Commit, edge: Seq) {
        let nxt = self.snd.nxt;
        if let Some(held) = &mut self.held {
            if core::mem::replace(&mut held.commit, commit) == Commit::Regenerate {
                held.released.send = nxt;
            }
            return;
        }
        // The answer to a SYN acknowledges it.
        if matches!(self.state, State::SynReceived) && nxt == self.snd.iss {
            self.rcv.last_ack = self.rcv.irs;
        }
        let released = Point { ack: self.rcv.last_ack, edge, send: nxt };
        self.held = Some(Box::new(Held { commit, released }));
    }

    /// Where octets end that may be sent, if they wait for a release.
    fn send_release(&self) -> Option<Seq> {
        let held = self.held.as_ref()?;
        (held.commit == Commit::Strict).then_some(held.released.send)
    }

    /// Octets of the queue that were never sent, and need not wait for a release.
    pub fn sendable(&self) -> usize {
        let unsent = self.snd.unsent();
        match self.send_release() {
            None => unsent,
            Some(release) => unsent.min(release.distance_from(self.snd.nxt.later(self.snd.first_octet()))),
        }
    }

    /// Whether our FIN was never sent, and need not wait for a release.
    pub fn is_fin_sendable(&self) -> bool {
        self.snd.fin.is_some_and(|fin| {
            self.snd.nxt.at_or_before(fin) && self.send_release().is_none_or(|release| fin.before(release))
        })
    }

    /// Whether our answer to the other side's SYN waits for a release.
    pub fn is_syn_held(&self) -> bool {
        let Some(held) = self.held.as_ref().filter(|_| matches!(self.state, State::SynReceived)) else {
            return false;
        };
        let send = held.commit == Commit::Regenerate || self.snd.iss.before(held.released.send);
        !(send && self.rcv.irs.before(held.released.ack))
    }

    /// What we acknowledge: everything in order, or as much of it as may be. Never goes back.
    pub(super) fn ack_number(&self) -> Seq {
        let rcv = &self.rcv;
        match &self.held {
            None => rcv.nxt,
            Some(held) => held.released.ack.earlier(rcv.nxt).later(rcv.last_ack),
        }
    }

    /// Whether something that is here must not be acknowledged yet.
    pub(super) fn is_ack_held(&self) -> bool {
        self.ack_number() != self.rcv.nxt
    }
}

impl Tcb<Instant> {
    /// A backup has a copy that knows the connection up to `point`. What waited for that goes out with the next calls
    /// of [`poll_transmit`](Tcb::poll_transmit). An older point changes nothing.
    pub fn release(&mut self, point: Point) {
        let Some(held) = &mut self.held else { return };
        let released = &mut held.released;
        // A life that goes on accepts more than it may promise at first.
        let short = released.edge.before(self.rcv.adv) && released.edge.before(point.edge);
        released.ack = released.ack.later(point.ack);
        released.edge = released.edge.later(point.edge);
        released.send = released.send.later(point.send);
        self.pending.ack |= short && self.state.may_receive();
        self.catch_up_on_acks();
    }

    /// Holds nothing back any more.
    pub fn unhold(&mut self) {
        if self.held.take().is_some() {
            self.catch_up_on_acks();
        }
    }

    /// Acknowledges what would have been by now. What would still have been delayed goes on to be.
    fn catch_up_on_acks(&mut self) {
        if !self.state.is_synchronised() {
            return;
        }
        let news = self.ack_number().after(self.rcv.last_ack);
        let delayed = self.timers.delayed_ack.is_some() && !self.is_ack_overdue();
        let window = self.state.may_receive() && self.window_update_due();
        self.pending.ack |= news && !delayed || window;
    }

    /// Has what arrived acknowledged at once, unless acknowledgements are held back so far that the answer would
    /// only repeat the last one, and look like a loss to the other side. Then it goes out with the release.
    pub(super) fn owe_ack(&mut self) {
        let last = self.rcv.last_ack;
        if self.held.is_some() && last.before(self.rcv.nxt) && self.ack_number() == last {
            self.timers.delayed_ack = None;
        } else {
            self.pending.ack = true;
        }
    }

    /// The acknowledgement that a RST carries. It proves that the RST is ours, and promises nothing: whoever takes it
    /// has no connection any more.
    pub(super) fn undo_hold_of(&self, reset: &mut Segment) {
        if self.held.is_some() {
            reset.ack = Some(self.rcv.nxt);
        }
    }
}
