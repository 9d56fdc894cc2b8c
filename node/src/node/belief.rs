//! What another member is believed. The driver vouches for who speaks, not for what is said: a member that lies, or that
//! says something long after it was true, can harm the connections that it owns or has owned, and no others.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use ferry_handoff::{Epoch, Message, NodeId, Order, Refusal};
use ferry_stack::Instant;
use ferry_stack::tcp::{Flow, Handle};

use super::jobs::JobId;
use super::places::{Place, Route};
use super::{Node, Owned};
use crate::io::AuditResult;

/// How long the former owner of a connection may think about whether it has given it away.
const PATIENCE: Duration = Duration::from_secs(1);
/// A claim about which nothing was heard is remembered for so much longer.
const KEPT: Duration = Duration::from_secs(4);
/// Claims that wait for a former owner's word. Beyond it a claim is not believed before that is heard.
const MAX_CLAIMS: usize = 1 << 16;
/// By how much the term of the contact node may grow at once.
const MAX_TERMS: u64 = 1 << 32;
/// Orders of one node that are carried out at the same time.
const MAX_ORDERS: usize = 8;

/// At the contact node: claims to connections that were known to live elsewhere.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Those whose former owner has been asked.
    open: BTreeMap<Flow, Claim>,
    in_turn: VecDeque<(Instant, Flow)>,
    /// What those have said meanwhile whose claims have turned out to be true.
    confirmed: Vec<(NodeId, Message)>,
    /// Whose last claim its former owner has denied: the next is believed when that one has spoken.
    denied: BTreeSet<NodeId>,
}

#[derive(Clone, Debug)]
struct Claim {
    by: NodeId,
    /// Where the connection was known to be.
    before: Route,
    until: Instant,
    /// Its offer of the connection, which waits for the answer.
    offer: Option<Message>,
}

impl Claims {
    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// When the oldest may be forgotten.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.in_turn.front().map(|(until, _)| *until + KEPT)
    }

    pub(super) fn forget_old(&mut self, now: Instant) {
        let old = |(until, _): &(Instant, Flow)| *until + KEPT <= now;
        while let Some((until, flow)) = self.in_turn.front().copied().filter(old) {
            self.in_turn.pop_front();
            if self.open.get(&flow).is_some_and(|claim| claim.until == until) {
                self.open.remove(&flow);
            }
        }
    }

    /// The former owner of a connection has spoken: the claim that it was asked about.
    fn answered(&mut self, flow: &Flow, by: NodeId) -> Option<Claim> {
        self.open.get(flow).filter(|claim| claim.before.to == by)?;
        self.open.remove(flow)
    }

    fn confirm(&mut self, claim: Claim) {
        self.denied.remove(&claim.by);
        self.confirmed.extend(claim.offer.map(|offer| (claim.by, offer)));
    }

    /// What can be heard now from who had a claim to a connection.
    pub(super) fn next_confirmed(&mut self) -> Option<(NodeId, Message)> {
        self.confirmed.pop()
    }
}

impl Node {
    /// Whether what another member says is acted upon. If not, it has been answered here as far as it has to be.
    pub(super) fn believes(&mut self, from: NodeId, message: &Message, now: Instant) -> bool {
        let believed = match message {
            // Only who was told can have seen it.
            Message::OwnerSeen { .. } => from == self.contact,
            Message::Owner { flow, epoch, node } => {
                self.believes_owner(from, *flow, Route::new(*node, *epoch), now)
            }
            Message::NotMine { flow } | Message::Ended { flow, .. } => {
                if let Some(claim) = self.claims.answered(flow, from) {
                    self.claims.confirm(claim);
                }
                matches!(message, Message::NotMine { .. }) || self.believes_end(from, flow)
            }
            Message::Prepare { flow, epoch, .. } | Message::Transfer { flow, epoch, .. } => {
                let owned = matches!(message, Message::Prepare { .. }) && self.owned_as(flow).is_some();
                let possible = !owned && self.is_plausible(*epoch, now);
                if !possible {
                    self.refuse_offer(from, message, &Refusal::Stale, now);
                }
                possible && self.believes_offer(from, message, *flow, *epoch, now)
            }
            Message::Contact { term, .. } => {
                self.home.term().is_none_or(|known| *term <= known.saturating_add(MAX_TERMS))
            }
            Message::Order { run, order } => self.believes_order(from, *run, *order),
            _ => true,
        };
        self.counters.disbelieved += u64::from(!believed);
        believed
    }

    pub(in crate::node) fn is_plausible(&self, epoch: Epoch, now: Instant) -> bool {
        epoch.is_plausible(self.group_clock.at(now).millis())
    }

    pub(super) fn owned_as(&self, flow: &Flow) -> Option<(Handle, &Owned)> {
        let handle = self.tcp.find(flow)?;
        Some((handle, self.owned.get(handle)?))
    }

    /// A node that runs a connection gives it away by itself. It lets go of it on another's word only where it is not sure:
    /// in a handshake, which two nodes may have answered; if it has it back from a node that died, and that may have passed
    /// it on; or if it may be that somebody took it for dead and went on with a copy.
    pub(in crate::node) fn is_sure_of(&self, handle: Handle, owned: &Owned, claimed: Epoch) -> bool {
        let Some(tcb) = self.tcp.get(handle) else { return false };
        let has_copies = self.is_protected(&tcb.flow);
        let further = claimed.is_of_life(owned.epoch) && claimed.recoveries() > owned.epoch.recoveries();
        tcb.state.is_synchronised() && !owned.doubtful && !(has_copies && further)
    }

    /// Whether this is a handshake whose SYN may have been forged, or late, while the client has a connection at another node.
    pub(super) fn is_in_doubt(&self, handle: Handle) -> bool {
        let opening = self.tcp.get(handle).is_some_and(|tcb| !tcb.state.is_synchronised());
        opening && self.owned.get(handle).is_some_and(|owned| owned.doubtful)
    }

    fn believes_owner(&mut self, from: NodeId, flow: Flow, claimed: Route, now: Instant) -> bool {
        let Route { to: node, epoch, .. } = claimed;
        let sure = self.owned_as(&flow).is_some_and(|(handle, owned)| self.is_sure_of(handle, owned, epoch));
        let plausible = self.is_plausible(epoch, now);
        let believed = plausible && !sure && self.believes_route(from, flow, claimed, now);
        if !believed && (sure || node != from || !plausible) {
            // Nothing will come of its saying it again.
            self.tell(from, &Message::OwnerSeen { flow, epoch });
        }
        believed
    }

    /// At the contact node: a connection that was known to live at one node is said to live at another. Segments go there at
    /// once, but the former owner is asked, who knows whether it has given it away: its word counts for more.
    fn believes_route(&mut self, from: NodeId, flow: Flow, claimed: Route, now: Instant) -> bool {
        let Some(known) = self.known_owner(&flow, now) else { return true };
        if let Some(claim) = self.claims.answered(&flow, from) {
            let denied =
                claimed.to == from && claim.before.epoch <= claimed.epoch && claimed.epoch < known.epoch
                    || claimed == claim.before;
            if denied {
                self.claims.denied.insert(claim.by);
                match self.places.get_mut(&flow) {
                    Some(Place::Arriving(arriving)) => arriving.before = Some(claimed),
                    _ => drop(self.places.insert(flow, Place::Elsewhere(claimed))),
                }
            } else {
                self.claims.confirm(claim);
            }
            return !denied && known != claimed;
        }
        // No two nodes have had it in one epoch.
        if claimed.to != known.to && claimed.epoch == known.epoch {
            return false;
        }
        let news = claimed.to != known.to && known.epoch < claimed.epoch;
        if !news || from == known.to {
            return true;
        }
        self.waits_for_answer(from, flow, known, None, now) && !self.claims.denied.contains(&from)
    }

    /// At the contact node: a connection is offered. Who offers what was known to live elsewhere has to wait for the word of
    /// who had it.
    fn believes_offer(
        &mut self,
        from: NodeId,
        message: &Message,
        flow: Flow,
        epoch: Epoch,
        now: Instant,
    ) -> bool {
        let announced = match self.places.get(&flow) {
            Some(Place::Arriving(arriving)) => arriving.from == from,
            _ => false,
        };
        let Some(known) = self.known_owner(&flow, now).filter(|_| !announced) else { return true };
        let claimed = self.claims.open.get(&flow).is_some_and(|claim| claim.by == from);
        // What was taken of it stays taken, whoever has it by now: else it would go on at its donor, too.
        let taken =
            matches!(message, Message::Transfer { .. }) && self.handoffs.has_taken(from, &flow, epoch);
        if taken || (!claimed && (known.to == from || self.handoffs.has_decided(from, &flow, epoch))) {
            return true;
        }
        if epoch <= known.epoch {
            self.refuse_offer(from, message, &Refusal::Stale, now);
            return false;
        }
        // A transfer is large, and sent again.
        let offer = matches!(message, Message::Prepare { .. }).then(|| message.clone());
        self.waits_for_answer(from, flow, known, offer, now);
        self.claims.open.get(&flow).is_none_or(|claim| claim.until <= now)
    }

    /// At the contact node: where a connection is known to live, if that can be asked.
    fn known_owner(&mut self, flow: &Flow, now: Instant) -> Option<Route> {
        self.claims.forget_old(now);
        let known = self.places.get(flow).and_then(Place::route)?;
        let asks = self.is_contact() && known.epoch > Epoch::default() && self.peers.is_up(known.to);
        (asks || self.claims.open.contains_key(flow)).then_some(known)
    }

    /// Asks the former owner, if it has not been. Whether the claim is new, or the former owner has been silent for too long.
    fn waits_for_answer(
        &mut self,
        by: NodeId,
        flow: Flow,
        before: Route,
        offer: Option<Message>,
        now: Instant,
    ) -> bool {
        // One that was believed meanwhile is who can be asked about the next.
        let further = |claim: &Claim| claim.by == before.to && claim.by != by;
        if let Some(claim) = self.claims.open.get_mut(&flow).filter(|claim| !further(claim)) {
            let same = claim.by == by;
            claim.offer = offer.filter(|_| same).or(claim.offer.take());
            return claim.until <= now;
        }
        if self.claims.open.len() >= MAX_CLAIMS {
            return false;
        }
        let until = now + PATIENCE;
        self.claims.open.insert(flow, Claim { by, before, until, offer });
        self.claims.in_turn.push_back((until, flow));
        self.tell(before.to, &Message::Ask { flow });
        true
    }

    /// Only where a connection lives, or is about to come from, it is known when it ends.
    fn believes_end(&mut self, from: NodeId, flow: &Flow) -> bool {
        match self.places.get(flow) {
            Some(Place::Elsewhere(route)) if route.to != from && self.peers.is_up(route.to) => {
                let owner = route.to;
                // It may have moved on, which nobody has said here.
                self.tell(owner, &Message::Ask { flow: *flow });
                false
            }
            Some(Place::Arriving(arriving)) => {
                arriving.from == from || arriving.before.is_some_and(|route| route.to == from)
            }
            _ => true,
        }
    }

    fn believes_order(&mut self, from: NodeId, run: u64, order: Order) -> bool {
        let of_it = self.jobs.jobs.keys().filter(|id| matches!(id, JobId::Order(by, _) if *by == from));
        let too_many = of_it.count() >= MAX_ORDERS;
        let known = self.jobs.jobs.contains_key(&JobId::Order(from, run));
        let believed = known || !too_many || order == Order::Stop;
        if !believed {
            self.tell(from, &Message::Ordered { run, moved: 0, failed: 0, left: 0 });
        }
        believed
    }

    /// Refuses what another node offers or sends, and tells of it.
    pub(super) fn refuse_offer(&mut self, from: NodeId, message: &Message, why: &Refusal, now: Instant) {
        let answer = match message {
            Message::Prepare { flow, epoch, .. } | Message::Copy { flow, epoch, .. } => {
                (*flow, *epoch, Message::Refuse { flow: *flow, epoch: *epoch, why: why.clone() })
            }
            Message::Transfer { flow, epoch, .. } => {
                (*flow, *epoch, Message::Returned { flow: *flow, epoch: *epoch, why: why.clone() })
            }
            _ => return,
        };
        let (flow, epoch, answer) = answer;
        self.audit_taken(flow, from, epoch, AuditResult::Refused { why_not: why.to_string() }, now);
        self.tell(from, &answer);
    }
}
