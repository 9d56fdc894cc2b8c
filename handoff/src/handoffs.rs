use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;

use bytes::Bytes;
use ferry_stack::tcp::Flow;
use ferry_stack::{Alarms, Instant};

use crate::acceptor::{Decided, MEMORY, RESERVATION, Repeat, Reservation};
use crate::donor::{Donor, Failure, Next};
use crate::{Epoch, Incarnation, Message, NodeId, Refusal, Snapshot, TooLarge};

/// Connections that may be on their way here at once.
const MAX_RESERVATIONS: usize = 1 << 16;

/// What the node has to do for its handoffs.
#[derive(Debug)]
pub enum Action {
    /// Send a message to another node. It may be lost.
    Send {
        /// The receiver.
        to: NodeId,
        /// What.
        message: Message,
    },
    /// Acceptor: hold segments of this flow, its connection is about to come.
    Hold {
        /// Which.
        flow: Flow,
        /// The donor.
        from: NodeId,
        /// The epoch that it will have here.
        epoch: Epoch,
    },
    /// Acceptor: it does not come. Stop holding.
    Release {
        /// Which.
        flow: Flow,
    },
    /// Donor: the acceptor is ready. Take the connection out and call [`Handoffs::frozen`], or, if it cannot move
    /// any more, [`Handoffs::ended`].
    Freeze {
        /// Which.
        flow: Flow,
        /// The acceptor.
        to: NodeId,
        /// The epoch that it will have there.
        epoch: Epoch,
    },
    /// Acceptor: it came. Install it, then call [`Handoffs::installed`] or [`Handoffs::rejected`].
    Install {
        /// Which.
        flow: Flow,
        /// The donor.
        from: NodeId,
        /// The connection.
        snapshot: alloc::boxed::Box<Snapshot>,
    },
    /// Donor: the acceptor runs it. Segments that still come here go there.
    Given {
        /// Which.
        flow: Flow,
        /// The acceptor.
        to: NodeId,
        /// The epoch that it has there.
        epoch: Epoch,
    },
    /// Donor: it did not come to a move; the connection was not frozen, or is to go on from `resume`.
    Failed {
        /// Which.
        flow: Flow,
        /// The acceptor that was asked.
        to: NodeId,
        /// Why.
        why: Failure,
        /// The connection, under a new epoch, if it was frozen already.
        resume: Option<alloc::boxed::Box<Snapshot>>,
    },
    /// Donor: no late segment will come any more. Forwarding may end.
    Forget {
        /// Which.
        flow: Flow,
        /// The epoch under which it was given away.
        epoch: Epoch,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Donor(Flow),
    Reservation(Flow),
    Decided(Flow),
}

/// All handoffs of one node, as donor and as acceptor. Messages and time in; [`Action`]s out by
/// [`Handoffs::poll`].
#[derive(Debug, Default)]
pub struct Handoffs {
    donors: BTreeMap<Flow, (Donor, String)>,
    reservations: BTreeMap<Flow, Reservation>,
    decided: BTreeMap<Flow, Decided>,
    /// Taken, but the donor is not told yet, because no other node could go on with it.
    unconfirmed: BTreeMap<Flow, (NodeId, Epoch)>,
    peers: BTreeMap<NodeId, Incarnation>,
    timers: Alarms<Timer>,
    actions: VecDeque<Action>,
    /// Set while the node empties itself: nothing new is accepted.
    draining: bool,
}

impl Handoffs {
    /// No handoffs.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on nothing is accepted.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// The draining is over.
    pub fn stop_draining(&mut self) {
        self.draining = false;
    }

    /// How many handoffs are under way, as donor (not yet taken) or acceptor (not yet come).
    pub fn under_way(&self) -> usize {
        let given =
            self.donors.values().filter(|(donor, _)| !matches!(donor, Donor::Forwarding { .. })).count();
        given + self.reservations.len()
    }

    /// Connections of which anything is remembered: as donor, as acceptor, and what was decided; each once for each.
    pub fn remembered(&self) -> usize {
        self.donors.len() + self.reservations.len() + self.decided.len()
    }

    /// Whether this flow is being given away and not yet taken.
    pub fn is_giving(&self, flow: &Flow) -> bool {
        self.donors.get(flow).is_some_and(|(donor, _)| !matches!(donor, Donor::Forwarding { .. }))
    }

    /// Whether a connection has left, and what comes for it late still goes to where it went.
    pub fn is_forwarding(&self, flow: &Flow) -> bool {
        self.donors.get(flow).is_some_and(|(donor, _)| !matches!(donor, Donor::Asking { .. }))
    }

    /// What to do next.
    pub fn poll(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Starts to give a connection to `to`, which would run it as `epoch`: greater than any tried before.
    pub fn give(&mut self, flow: Flow, to: NodeId, epoch: Epoch, service: &str, now: Instant) {
        if !self.peers.contains_key(&to) {
            self.actions.push_back(Action::Failed { flow, to, why: Failure::Unreachable, resume: None });
            return;
        }
        let donor = Donor::ask(to, epoch, now);
        self.donors.insert(flow, (donor, service.into()));
        self.rearm(flow);
        self.send(to, Message::Prepare { flow, epoch, service: service.into() });
    }

    /// The connection was taken out: its snapshot leaves. After this only the acceptor may run it. On an error
    /// nothing has left, and the connection may go on.
    pub fn frozen(&mut self, snapshot: &Snapshot, now: Instant) -> Result<usize, TooLarge> {
        let flow = snapshot.tcb.flow;
        let Some((donor, service)) = self.donors.remove(&flow) else { return Err(TooLarge(0)) };
        self.rearm(flow);
        let (to, epoch) = (donor.to(), donor.epoch());
        let (Ok(bytes), Some(&incarnation)) = (snapshot.encode(), self.peers.get(&to)) else {
            self.send(to, Message::Abort { flow, epoch });
            let why = Failure::TooLarge;
            self.actions.push_back(Action::Failed { flow, to, why, resume: None });
            return Err(TooLarge(snapshot.tcb.snd.queue.len()));
        };
        let len = bytes.len();
        self.send(to, Message::Transfer { flow, epoch, snapshot: bytes.clone() });
        // The point of no return.
        let donor = Donor::commit(to, epoch, incarnation, bytes, now);
        self.donors.insert(flow, (donor, service));
        self.rearm(flow);
        self.decide(flow, epoch, true, Some(now + MEMORY));
        Ok(len)
    }

    /// A connection ended here, or cannot move.
    pub fn ended(&mut self, flow: &Flow, now: Instant) {
        if let Some((Donor::Asking { .. }, _)) = self.donors.get(flow)
            && let Some((donor, _)) = self.donors.remove(flow)
        {
            self.rearm(*flow);
            self.send(donor.to(), Message::Abort { flow: *flow, epoch: donor.epoch() });
            let why = Failure::Ended;
            self.actions.push_back(Action::Failed { flow: *flow, to: donor.to(), why, resume: None });
        }
        self.confirm(flow);
        if let Some(decided) = self.decided.get_mut(flow) {
            let until = *decided.until.get_or_insert(now + MEMORY);
            self.timers.set(Timer::Decided(*flow), Some(until));
        }
    }

    /// The connection of an [`Action::Install`] runs here now.
    pub fn installed(&mut self, flow: Flow, from: NodeId, epoch: Epoch) {
        self.installed_for_now(flow, from, epoch);
        self.confirm(&flow);
    }

    /// The same, but the donor keeps what it has given until [`Handoffs::confirm`].
    pub fn installed_for_now(&mut self, flow: Flow, from: NodeId, epoch: Epoch) {
        // It has come back before the forwarder ended, or even before it was heard that it had been taken.
        if let Some((donor @ Donor::Committed { .. }, _)) = self.donors.remove(&flow) {
            self.actions.push_back(Action::Given { flow, to: donor.to(), epoch: donor.epoch() });
        }
        self.rearm(flow);
        self.decide(flow, epoch, true, None);
        self.confirm(&flow);
        self.unconfirmed.insert(flow, (from, epoch));
    }

    /// Should this node die, others could go on with the connection: its donor need not keep it any more.
    pub fn confirm(&mut self, flow: &Flow) {
        if let Some((from, epoch)) = self.unconfirmed.remove(flow) {
            self.send(from, Message::Taken { flow: *flow, epoch });
        }
    }

    /// The epoch under which a connection has left, if nobody has confirmed that it was taken.
    pub fn given(&self, flow: &Flow) -> Option<Epoch> {
        match self.donors.get(flow) {
            Some((Donor::Committed { epoch, .. }, _)) => Some(*epoch),
            _ => None,
        }
    }

    /// A connection goes on here from a copy, under this epoch.
    pub fn recovered(&mut self, flow: Flow, epoch: Epoch) {
        self.donors.remove(&flow);
        self.rearm(flow);
        self.unconfirmed.remove(&flow);
        self.unreserve(flow);
        self.decide(flow, epoch, true, None);
    }

    /// The connection of an [`Action::Install`] cannot run here, and never will in this epoch.
    pub fn rejected(&mut self, flow: Flow, from: NodeId, epoch: Epoch, why: Refusal, now: Instant) {
        self.decide(flow, epoch, false, Some(now + MEMORY));
        self.send(from, Message::Returned { flow, epoch, why });
        self.actions.push_back(Action::Release { flow });
    }

    /// The link to a node came up.
    pub fn peer_up(&mut self, peer: NodeId, incarnation: Incarnation, now: Instant) {
        self.peers.insert(peer, incarnation);
        for flow in self.flows_with(peer) {
            let Some((donor, _)) = self.donors.get_mut(&flow) else { continue };
            let next = donor.peer_up(peer, incarnation, now);
            self.follow(flow, next);
        }
    }

    /// The link to a node broke.
    pub fn peer_down(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
        for flow in self.flows_with(peer) {
            if let Some((donor, _)) = self.donors.get(&flow) {
                let next = donor.peer_down(peer);
                self.follow(flow, next);
            }
        }
    }

    /// This life of a node is over. Gives back what had left for it and may not have been taken, as far as `copied` says
    /// that other nodes may hold copies of it, so that they have to be asked first. The rest goes on here.
    pub fn died(
        &mut self,
        dead: NodeId,
        life: Incarnation,
        copied: impl Fn(&Flow) -> bool,
    ) -> alloc::vec::Vec<(Flow, Epoch, Bytes)> {
        self.peers.remove(&dead);
        let reserved = self.reservations.iter().filter(|(_, reserved)| reserved.from == dead);
        let reserved: alloc::vec::Vec<_> = reserved.map(|(flow, _)| *flow).collect();
        for flow in reserved {
            self.unreserve(flow);
            self.actions.push_back(Action::Release { flow });
        }
        let mut orphans = alloc::vec::Vec::new();
        for flow in self.flows_with(dead) {
            let Some((donor, _)) = self.donors.get(&flow) else { continue };
            let next = match donor {
                Donor::Committed { epoch, incarnation, snapshot, .. } if *incarnation == life => {
                    if copied(&flow) {
                        orphans.push((flow, *epoch, snapshot.clone()));
                        self.donors.remove(&flow);
                        self.rearm(flow);
                        let why = Failure::Died;
                        self.actions.push_back(Action::Failed { flow, to: dead, why, resume: None });
                        continue;
                    }
                    Next::Resume(snapshot.clone(), Failure::Died)
                }
                _ => donor.peer_down(dead),
            };
            self.follow(flow, next);
        }
        orphans
    }

    /// A life of a node is over.
    pub fn peer_dead(&mut self, peer: NodeId, life: Incarnation) {
        if self.peers.get(&peer) == Some(&life) {
            self.peers.remove(&peer);
        }
        for flow in self.flows_with(peer) {
            if let Some((donor, _)) = self.donors.get(&flow) {
                let next = donor.peer_dead(peer, life);
                self.follow(flow, next);
            }
        }
    }

    fn flows_with(&self, peer: NodeId) -> alloc::vec::Vec<Flow> {
        self.donors.iter().filter(|(_, (donor, _))| donor.to() == peer).map(|(flow, _)| *flow).collect()
    }

    /// A message that concerns a handoff. Others are ignored.
    pub fn receive(&mut self, from: NodeId, message: Message, now: Instant) {
        match message {
            Message::Prepare { flow, epoch, .. } => self.prepare(from, flow, epoch, now),
            Message::Abort { flow, epoch } => self.abort(from, flow, epoch),
            Message::Transfer { flow, epoch, snapshot } => self.transfer(from, flow, epoch, &snapshot, now),
            Message::Ready { flow, .. }
            | Message::Refuse { flow, .. }
            | Message::Taken { flow, .. }
            | Message::Returned { flow, .. } => {
                if let Some((donor, _)) = self.donors.get_mut(&flow) {
                    let next = donor.answer(from, &message, now);
                    self.follow(flow, next);
                }
            }
            _ => {}
        }
    }

    fn prepare(&mut self, from: NodeId, flow: Flow, epoch: Epoch, now: Instant) {
        if let Some(reserved) = self.reservations.get(&flow)
            && (reserved.from, reserved.epoch) == (from, epoch)
        {
            self.timers.set(Timer::Reservation(flow), Some(now + RESERVATION));
            self.send(from, Message::Ready { flow, epoch });
            return;
        }
        let known = self.decided.get(&flow).is_some_and(|decided| epoch <= decided.epoch);
        let later = self.reservations.get(&flow).is_some_and(|reserved| epoch <= reserved.epoch);
        let refusal = if self.draining {
            Some(Refusal::Draining)
        } else if known || later {
            Some(Refusal::Stale)
        } else {
            (self.reservations.len() >= MAX_RESERVATIONS).then_some(Refusal::TooMany)
        };
        if let Some(why) = refusal {
            self.send(from, Message::Refuse { flow, epoch, why });
            return;
        }
        self.reservations.insert(flow, Reservation { from, epoch });
        self.timers.set(Timer::Reservation(flow), Some(now + RESERVATION));
        self.actions.push_back(Action::Hold { flow, from, epoch });
        self.send(from, Message::Ready { flow, epoch });
    }

    fn abort(&mut self, from: NodeId, flow: Flow, epoch: Epoch) {
        let reserved = self.reservations.get(&flow);
        if reserved.is_some_and(|reserved| (reserved.from, reserved.epoch) == (from, epoch)) {
            self.unreserve(flow);
            self.actions.push_back(Action::Release { flow });
        }
    }

    fn unreserve(&mut self, flow: Flow) {
        self.reservations.remove(&flow);
        self.timers.set(Timer::Reservation(flow), None);
    }

    /// A transfer is taken even if its reservation has expired: that only held segments.
    fn transfer(&mut self, from: NodeId, flow: Flow, epoch: Epoch, bytes: &Bytes, now: Instant) {
        let decided = self.decided.get(&flow).map_or(Repeat::New, |decided| decided.repeat(epoch));
        match decided {
            Repeat::Taken if self.unconfirmed.contains_key(&flow) => return,
            Repeat::Taken => return self.send(from, Message::Taken { flow, epoch }),
            Repeat::Returned => {
                return self.send(from, Message::Returned { flow, epoch, why: Refusal::Stale });
            }
            Repeat::New => {}
        }
        self.unreserve(flow);
        let snapshot = match Snapshot::decode(bytes) {
            _ if self.draining => Err(Refusal::Draining),
            Ok(snapshot) if snapshot.tcb.flow == flow && snapshot.epoch == epoch => Ok(snapshot),
            Ok(_) => Err(Refusal::Snapshot("the snapshot is of another connection".into())),
            Err(refused) => Err(Refusal::Snapshot(alloc::format!("{refused}"))),
        };
        match snapshot {
            Ok(snapshot) => self.actions.push_back(Action::Install { flow, from, snapshot: snapshot.into() }),
            Err(why) => self.rejected(flow, from, epoch, why, now),
        }
    }

    /// Carries out what a donor decided.
    fn follow(&mut self, flow: Flow, next: Next) {
        let Some((donor, _)) = self.donors.get(&flow) else { return };
        let (to, epoch) = (donor.to(), donor.epoch());
        match next {
            Next::Stay => {}
            Next::Freeze => self.actions.push_back(Action::Freeze { flow, to, epoch }),
            Next::Given => {
                self.actions.push_back(Action::Given { flow, to, epoch });
                self.confirm(&flow);
            }
            Next::GiveUp(why) => {
                self.donors.remove(&flow);
                self.send(to, Message::Abort { flow, epoch });
                self.actions.push_back(Action::Failed { flow, to, why, resume: None });
            }
            Next::Resume(bytes, why) => {
                self.donors.remove(&flow);
                // We encoded it ourselves a moment ago.
                let resume = Snapshot::decode(&bytes)
                    .ok()
                    .map(|snapshot| Snapshot { epoch: epoch.next(), ..snapshot });
                self.decide(flow, epoch.next(), true, None);
                self.actions.push_back(Action::Failed { flow, to, why, resume: resume.map(Into::into) });
            }
            Next::Forget => {
                self.donors.remove(&flow);
                self.actions.push_back(Action::Forget { flow, epoch });
            }
        }
        self.rearm(flow);
    }

    /// A donor's deadline follows from what it is.
    fn rearm(&mut self, flow: Flow) {
        let deadline = self.donors.get(&flow).map(|(donor, _)| donor.deadline());
        self.timers.set(Timer::Donor(flow), deadline);
    }

    /// When [`Handoffs::handle_timeout`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.next()
    }

    /// Repeats what was not answered, and forgets what is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.timers.due(now) {
            match timer {
                Timer::Donor(flow) => self.donor_timeout(flow, now),
                Timer::Reservation(flow) => {
                    self.reservations.remove(&flow);
                    self.actions.push_back(Action::Release { flow });
                }
                Timer::Decided(flow) => {
                    self.decided.remove(&flow);
                }
            }
        }
    }

    fn donor_timeout(&mut self, flow: Flow, now: Instant) {
        let Some((donor, service)) = self.donors.get_mut(&flow) else { return };
        let to = donor.to();
        let (next, repeat) = donor.timeout(flow, service, now);
        if let Some(message) = repeat {
            self.send(to, message);
        }
        self.follow(flow, next);
    }

    fn decide(&mut self, flow: Flow, epoch: Epoch, taken: bool, until: Option<Instant>) {
        self.decided.insert(flow, Decided { epoch, taken, until });
        self.timers.set(Timer::Decided(flow), until);
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.actions.push_back(Action::Send { to, message });
    }
}
