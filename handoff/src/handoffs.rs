mod ahead;
mod crash;
mod deadlines;
mod memory;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use ferry_stack::tcp::{Flow, MapKey};
use ferry_stack::{Instant, Reminders};
use hashbrown::HashMap;

use self::deadlines::{ByFlow, Timer};
use self::memory::in_order;
use crate::acceptor::{Decided, MEMORY, RESERVATION, Repeat, Reservation, Returned};
use crate::donor::{Donor, Failure, Next, Offer};
use crate::{Copy, Delta, Epoch, Incarnation, Message, NodeId, Pieces, Refusal, Snapshot};

/// Connections that may be on their way here at once, and from one donor: one that only announces leaves room for others.
const MAX_RESERVATIONS: usize = 1 << 16;
const MAX_RESERVATIONS_OF_ONE: usize = 1 << 14;

/// What the node has to do for its handoffs.
#[derive(Clone, Debug)]
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
    /// Donor: the acceptor is ready. If [`Handoffs::sends_ahead`], call [`Handoffs::copied_out`] with what the connection is like
    /// now. Else take it out and call [`Handoffs::frozen`], or, if it cannot move any more, [`Handoffs::ended`].
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
        snapshot: Box<Snapshot>,
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
        resume: Option<Box<Snapshot>>,
    },
    /// Donor: no late segment will come any more. Forwarding may end.
    Forget {
        /// Which.
        flow: Flow,
        /// The epoch under which it was given away.
        epoch: Epoch,
    },
}

/// All handoffs of one node, as donor and as acceptor. Messages and time in; [`Action`]s out by
/// [`Handoffs::poll`].
///
/// It can be cloned, and hashed once all that there was to do is done, so that a search can go through its states.
#[derive(Clone, Debug, Default)]
pub struct Handoffs {
    donors: ByFlow<(Donor, String)>,
    reservations: ByFlow<Reservation>,
    /// How many of these each donor has.
    reserved: BTreeMap<NodeId, usize>,
    /// Octets that have come ahead of connections.
    copied: u64,
    decided: ByFlow<Decided>,
    returned: Returned,
    /// Taken, but the donor is not told yet, because no other node could go on with it.
    unconfirmed: ByFlow<(NodeId, Epoch)>,
    /// Who is within reach, which life of it, and since when.
    peers: BTreeMap<NodeId, (Incarnation, Instant)>,
    reminders: Reminders<Timer>,
    actions: VecDeque<Action>,
    /// Set while the node empties itself: nothing new is accepted.
    draining: bool,
}

impl Handoffs {
    /// No handoffs. Clients choose what connections are called, so that they are found by a hash with a secret key.
    pub fn new(key: &MapKey) -> Self {
        Self {
            donors: HashMap::with_hasher(key.clone()),
            reservations: HashMap::with_hasher(key.clone()),
            decided: HashMap::with_hasher(key.clone()),
            unconfirmed: HashMap::with_hasher(key.clone()),
            ..Self::default()
        }
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
        self.donors.len() + self.reservations.len() + self.decided.len() + self.returned.len()
    }

    /// Whether this flow is being given away and not yet taken.
    pub fn is_giving(&self, flow: &Flow) -> bool {
        self.donors.get(flow).is_some_and(|(donor, _)| !matches!(donor, Donor::Forwarding { .. }))
    }

    /// Whether a connection has left, and what comes for it late still goes to where it went.
    pub fn is_forwarding(&self, flow: &Flow) -> bool {
        self.donors.get(flow).is_some_and(|(donor, _)| !donor.is_before_freeze())
    }

    /// Whether it is known what became of a connection that this donor offers in this epoch.
    pub fn has_decided(&self, donor: NodeId, flow: &Flow, epoch: Epoch) -> bool {
        self.repeat(donor, flow, epoch) != Repeat::New
    }

    /// Whether this has been taken from this donor, or what it offered later.
    pub fn has_taken(&self, donor: NodeId, flow: &Flow, epoch: Epoch) -> bool {
        let gave = self.decided.get(flow).is_some_and(|decided| decided.donors.contains(&donor));
        gave && self.repeat(donor, flow, epoch) == Repeat::Taken
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
        self.reminders.add(Timer::Donor(flow), donor.deadline());
        self.donors.insert(flow, (donor, service.into()));
        self.send(to, Message::Prepare { flow, epoch, service: service.into() });
    }

    /// The connection was taken out: its snapshot leaves, or what the acceptor lacks of it. After this only the acceptor may
    /// run it. Where the snapshot is given back nothing has left, and the connection may go on.
    pub fn frozen(&mut self, snapshot: Snapshot, now: Instant) -> Result<usize, Box<Snapshot>> {
        let flow = snapshot.tcb.flow;
        let Some((donor, _)) = self.donors.get_mut(&flow) else { return Err(snapshot.into()) };
        let offer @ Offer { to, epoch } = donor.offer();
        let delta = donor.last_delta(&snapshot);
        let (octets, snapshot) = match delta.clone() {
            Some(delta) => (Ok(delta), snapshot),
            None => Delta::pieces_of_whole(snapshot),
        };
        let (Ok(octets), Some(&(incarnation, _))) = (octets, self.peers.get(&to)) else {
            self.give_up(flow, offer, Failure::TooLarge);
            return Err(snapshot.into());
        };
        // The point of no return.
        *donor = Donor::commit(offer, incarnation, Arc::new(snapshot), delta, now);
        self.reminders.add(Timer::Donor(flow), donor.deadline());
        let len = octets.len();
        self.send(to, Message::Transfer { flow, epoch, snapshot: octets });
        self.decide(flow, epoch, None, Some(now + MEMORY));
        Ok(len)
    }

    /// A connection ended here, or cannot move.
    pub fn ended(&mut self, flow: &Flow, now: Instant) {
        if let Some((donor, _)) = self.donors.get(flow)
            && donor.is_before_freeze()
        {
            let offer = donor.offer();
            self.give_up(*flow, offer, Failure::Ended);
        }
        self.confirm(flow);
        if let Some(decided) = self.decided.get_mut(flow)
            && decided.until.is_none()
        {
            decided.until = Some(now + MEMORY);
            self.reminders.add(Timer::Decided(*flow), now + MEMORY);
        }
    }

    /// The connection of an [`Action::Install`] runs here now.
    pub fn installed(&mut self, flow: Flow, from: NodeId, epoch: Epoch) {
        self.installed_for_now(flow, from, epoch);
        self.confirm(&flow);
    }

    /// The connection of an [`Action::Install`] cannot run here, and never will in this epoch.
    pub fn rejected(&mut self, flow: Flow, from: NodeId, epoch: Epoch, why: Refusal, now: Instant) {
        self.give_back(flow, from, epoch, why, now);
        self.actions.push_back(Action::Release { flow });
    }

    /// The link to a node came up. Call [`Handoffs::died`] before, if it was to another life of it.
    pub fn peer_up(&mut self, peer: NodeId, incarnation: Incarnation, now: Instant) {
        self.peers.insert(peer, (incarnation, now));
        for flow in self.flows_with(peer) {
            self.with_donor(flow, |donor, _| donor.peer_up(peer, incarnation, now));
        }
    }

    /// The link to a node broke.
    pub fn peer_down(&mut self, peer: NodeId) {
        self.peers.remove(&peer);
        for flow in self.flows_with(peer) {
            if let Some((offer, next)) = self.with_donor(flow, |donor, _| donor.peer_down(peer)) {
                self.follow(flow, offer, next);
            }
        }
    }

    fn flows_with(&self, peer: NodeId) -> Vec<Flow> {
        let given = self.donors.iter().filter(|(_, (donor, _))| donor.to() == peer);
        in_order(given.map(|(flow, _)| *flow))
    }

    /// A message that concerns a handoff. Others are ignored.
    #[expect(clippy::needless_pass_by_value, reason = "whoever has a message has no other use for it")]
    pub fn receive(&mut self, from: NodeId, message: Message, now: Instant) {
        self.receive_with(from, &message, None, now);
    }

    /// The same, where `known` is a copy of the connection that this node has for another reason.
    pub fn receive_with(&mut self, from: NodeId, message: &Message, known: Option<&Copy>, now: Instant) {
        match *message {
            Message::Prepare { flow, epoch, .. } => self.prepare(from, flow, epoch, now),
            Message::Abort { flow, epoch } => self.abort(from, flow, epoch),
            Message::Copy { flow, epoch, ref delta, .. } => self.copy(from, flow, epoch, delta, known, now),
            Message::Transfer { flow, epoch, ref snapshot } => {
                self.transfer(from, flow, epoch, snapshot, known, now);
            }
            Message::Ready { flow, .. }
            | Message::Refuse { flow, .. }
            | Message::Copied { flow, .. }
            | Message::Lacks { flow, .. }
            | Message::Taken { flow, .. }
            | Message::Returned { flow, .. } => {
                let next = self.with_donor(flow, |donor, _| donor.answer(from, message, now));
                if let Some((offer, next)) = next {
                    self.follow(flow, offer, next);
                }
            }
            _ => {}
        }
    }

    fn prepare(&mut self, from: NodeId, flow: Flow, epoch: Epoch, now: Instant) {
        let reserved = self.reservations.get_mut(&flow);
        let later = reserved.as_ref().is_some_and(|reserved| epoch <= reserved.epoch);
        let other = reserved.is_some();
        if let Some(reserved) = reserved
            && (reserved.from, reserved.epoch) == (from, epoch)
        {
            if reserved.extend(now) {
                self.reminders.add(Timer::Reservation(flow), reserved.until);
            }
            self.send(from, Message::Ready { flow, epoch });
            return;
        }
        let known = self.repeat(from, &flow, epoch) != Repeat::New;
        let refusal = if self.draining {
            Some(Refusal::Draining)
        } else if known || later {
            Some(Refusal::Stale)
        } else {
            let of_one = self.reserved.get(&from).copied().unwrap_or_default();
            let full = self.reservations.len() >= MAX_RESERVATIONS || of_one >= MAX_RESERVATIONS_OF_ONE;
            full.then_some(Refusal::TooMany)
        };
        if let Some(why) = refusal {
            self.send(from, Message::Refuse { flow, epoch, why });
            return;
        }
        if other {
            self.unreserve(flow);
        }
        let until = now + RESERVATION;
        self.reservations.insert(flow, Reservation { from, epoch, until, copy: None });
        *self.reserved.entry(from).or_default() += 1;
        self.reminders.add(Timer::Reservation(flow), until);
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

    fn unreserve(&mut self, flow: Flow) -> Option<Box<Copy>> {
        let Reservation { from, copy, .. } = self.reservations.remove(&flow)?;
        if let Some(count) = self.reserved.get_mut(&from) {
            *count -= 1;
            if *count == 0 {
                self.reserved.remove(&from);
            }
        }
        let copy = copy?;
        self.copied -= copy.len();
        Some(copy)
    }

    /// A transfer is taken even if its reservation has expired: that only held segments.
    fn transfer(
        &mut self,
        from: NodeId,
        flow: Flow,
        epoch: Epoch,
        octets: &Pieces,
        known: Option<&Copy>,
        now: Instant,
    ) {
        match self.repeat(from, &flow, epoch) {
            Repeat::Taken if self.unconfirmed.contains_key(&flow) => return,
            Repeat::Taken => return self.send(from, Message::Taken { flow, epoch }),
            Repeat::Returned => {
                return self.send(from, Message::Returned { flow, epoch, why: Refusal::Stale });
            }
            Repeat::New => {}
        }
        // Another has announced it, and may be about to send it: it is not for this one to come between.
        if self.reservations.get(&flow).is_some_and(|reserved| reserved.from != from) {
            return self.give_back(flow, from, epoch, Refusal::Stale, now);
        }
        let snapshot = match Delta::decode_pieces(octets) {
            _ if self.draining => Err(Refusal::Draining),
            Ok(delta) => {
                let version = delta.version.number;
                match self.complete(from, flow, epoch, delta, known) {
                    Ok(snapshot) => snapshot,
                    Err(have) => return self.send(from, Message::Lacks { flow, epoch, version, have }),
                }
            }
            Err(refused) => Err(Refusal::Snapshot(alloc::format!("{refused}"))),
        };
        self.unreserve(flow);
        match snapshot {
            Ok(snapshot) => self.actions.push_back(Action::Install { flow, from, snapshot: snapshot.into() }),
            Err(why) => self.rejected(flow, from, epoch, why, now),
        }
    }

    /// What was decided about an epoch before. A donor that still waits for the answer to an epoch older than one that was
    /// taken proves that it was taken, too: had it been returned, and the answer been lost, no later epoch could exist.
    fn repeat(&self, donor: NodeId, flow: &Flow, epoch: Epoch) -> Repeat {
        let taken = self.decided.get(flow).is_some_and(|decided| epoch <= decided.epoch);
        match self.returned.last(donor, flow) {
            Some(last) if epoch == last => Repeat::Returned,
            _ if taken => Repeat::Taken,
            Some(last) if epoch < last => Repeat::Returned,
            _ => Repeat::New,
        }
    }

    fn give_back(&mut self, flow: Flow, from: NodeId, epoch: Epoch, why: Refusal, now: Instant) {
        if self.returned.remember(from, flow, epoch, now + MEMORY) {
            self.reminders.add(Timer::Returned(from, flow), now + MEMORY);
        }
        self.send(from, Message::Returned { flow, epoch, why });
    }

    /// Carries out what a donor decided.
    fn follow(&mut self, flow: Flow, offer: Offer, next: Next) {
        let Offer { to, epoch } = offer;
        match next {
            Next::Stay => {}
            Next::Again => {
                let Some((donor, _)) = self.donors.get(&flow) else { return };
                let reached = self.peers.get(&to).is_some_and(|(life, _)| donor.is_for(*life));
                if let Some(message) = donor.transfer(flow).filter(|_| reached) {
                    self.send(to, message);
                }
            }
            Next::Freeze => self.actions.push_back(Action::Freeze { flow, to, epoch }),
            Next::Given => {
                self.actions.push_back(Action::Given { flow, to, epoch });
                self.confirm(&flow);
            }
            Next::GiveUp(why) => self.give_up(flow, offer, why),
            Next::Resume(snapshot, why) => {
                self.donors.remove(&flow);
                let epoch = epoch.next();
                let resume = Box::new(Snapshot { epoch, ..Arc::unwrap_or_clone(snapshot) });
                self.decide(flow, epoch, None, None);
                self.actions.push_back(Action::Failed { flow, to, why, resume: Some(resume) });
            }
            Next::Forget => {
                self.donors.remove(&flow);
                self.actions.push_back(Action::Forget { flow, epoch });
            }
        }
    }

    /// It came to nothing before the freeze.
    fn give_up(&mut self, flow: Flow, Offer { to, epoch }: Offer, why: Failure) {
        self.donors.remove(&flow);
        self.send(to, Message::Abort { flow, epoch });
        self.actions.push_back(Action::Failed { flow, to, why, resume: None });
    }

    /// Something happens to a donor, whose deadline follows from what it is. What it offers, and what comes of it.
    fn with_donor<R>(&mut self, flow: Flow, act: impl FnOnce(&mut Donor, &str) -> R) -> Option<(Offer, R)> {
        let (donor, service) = self.donors.get_mut(&flow)?;
        let (offer, before) = (donor.offer(), donor.deadline());
        let result = act(donor, service);
        if donor.deadline() != before {
            self.reminders.add(Timer::Donor(flow), donor.deadline());
        }
        Some((offer, result))
    }

    /// Repeats what was not answered, and forgets what is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        while let Some(timer) = self.due(now) {
            match timer {
                Timer::Donor(flow) => self.donor_timeout(flow, now),
                Timer::Reservation(flow) => {
                    self.unreserve(flow);
                    self.actions.push_back(Action::Release { flow });
                }
                Timer::Decided(flow) => self.forget_decided(flow, now),
                Timer::Returned(donor, flow) => self.returned.forget(donor, &flow),
            }
        }
    }

    fn donor_timeout(&mut self, flow: Flow, now: Instant) {
        let came = self.with_donor(flow, |donor, service| donor.timeout(flow, service, now));
        let Some((offer, (next, repeat))) = came else { return };
        if let Some(message) = repeat {
            self.send(offer.to, message);
        }
        self.follow(flow, offer, next);
    }

    fn send(&mut self, to: NodeId, message: Message) {
        self.actions.push_back(Action::Send { to, message });
    }
}
