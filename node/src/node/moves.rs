//! Handoffs: what the node does when a connection leaves or comes.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use ferry_handoff::{Action, Epoch, Failure, Message, NodeId, Refusal, Snapshot};
use ferry_stack::Instant;
use ferry_stack::ip::Datagram;
use ferry_stack::tcp::{Flow, Handle, Tcb};

use super::places::{Arriving, Place, Route};
use super::service::{AnySession, Service};
use super::{Node, Owned, TokensAhead};
use crate::io::{AuditResult, Moment, Step, TraceEvent};
use crate::session::Event;

impl Node {
    /// Carries out what a handoff asks for.
    pub(super) fn act(&mut self, action: Action, now: Instant) {
        match action {
            Action::Send { to, message } => self.tell(to, &message),
            Action::Hold { flow, from, epoch } => self.hold(flow, from, epoch, now),
            Action::Release { flow } => self.release(&flow, now),
            Action::Freeze { flow, to, epoch } => self.freeze(flow, to, epoch, now),
            Action::Install { flow, from, snapshot } => self.install(flow, from, *snapshot, now),
            Action::Given { flow, to, epoch } => self.given(flow, to, epoch, now),
            Action::Failed { flow, to, why, resume } => self.failed(flow, to, &why, resume, now),
            Action::Forget { flow, .. } => self.forwarded(&flow),
        }
    }

    /// No late segment comes any more of what has left. The contact node relays as long as the connection lives; the owner says
    /// when it ends, but perhaps has said so to another contact node. Nobody says so to any other node, whatever that has heard of
    /// later owners.
    fn forwarded(&mut self, flow: &Flow) {
        match self.places.get(flow).and_then(Place::route) {
            Some(route) if self.is_contact() => self.tell(route.to, &Message::Ask { flow: *flow }),
            _ => self.forget_route(flow),
        }
    }

    /// Starts to give a connection away, perhaps after the acceptor has warmed up. `false` if there is nothing to give.
    pub(super) fn give(&mut self, flow: Flow, to: NodeId, now: Instant) -> bool {
        let owned = self.tcp.find(&flow).is_some_and(|handle| self.owned.contains(handle));
        (owned && self.warm_up(flow, to, now)) || self.give_now(flow, to, now)
    }

    pub(super) fn give_now(&mut self, flow: Flow, to: NodeId, now: Instant) -> bool {
        let Some(owned) = self.tcp.find(&flow).and_then(|handle| self.owned.get_mut(handle)) else {
            return false;
        };
        let Some(service) = self.services.get(&flow.local.port()) else { return false };
        owned.offered = owned.offered.next();
        self.leaving.begins(flow, owned.epoch);
        let epoch = owned.offered;
        self.handoffs.give(flow, to, epoch, service.name(), now);
        self.step(flow, to, epoch, Step::Asked, now);
        true
    }

    fn hold(&mut self, flow: Flow, from: NodeId, epoch: Epoch, now: Instant) {
        let before = self.places.get(&flow).and_then(Place::route);
        let arriving = Arriving { from, epoch, before, held: VecDeque::new(), octets: 0 };
        self.places.insert(flow, Place::Arriving(arriving));
        if self.rules.tokens_ahead == TokensAhead::Auto {
            self.mobility.stand_by(*flow.remote.ip(), now);
        }
        self.step(flow, from, epoch, Step::Reserved, now);
    }

    /// The connection does not come: its segments go where they went before.
    fn release(&mut self, flow: &Flow, now: Instant) {
        if !matches!(self.places.get(flow), Some(Place::Arriving(_))) {
            return;
        }
        let Some(Place::Arriving(arriving)) = self.places.remove(flow) else { return };
        self.mobility.stand_down(*flow.remote.ip(), now);
        // It may have been told that the connection is as good as here.
        if !self.is_contact() {
            self.tell(self.contact, &Message::NotMine { flow: *flow });
        }
        let route = arriving.before.unwrap_or(Route::new(arriving.from, arriving.epoch));
        // Whoever goes on with it will say so, or nobody has it.
        if self.is_dead(route.to) {
            return self.replay(*flow, arriving.held, now);
        }
        if self.is_contact() || self.handoffs.is_forwarding(flow) {
            self.places.insert(*flow, Place::Elsewhere(route));
        }
        for datagram in arriving.held {
            self.forward(datagram, route.to, now);
        }
    }

    /// The acceptor is ready: a copy goes ahead while the connection runs on, if that pays.
    fn copy_ahead(&mut self, handle: Handle, epoch: Epoch, now: Instant) -> bool {
        let (Some(tcb), Some(owned)) = (self.tcp.get(handle), self.owned.get(handle)) else { return false };
        if !self.handoffs.sends_ahead(tcb) {
            return false;
        }
        // What is known of the client changes when the connection leaves.
        let snapshot = self.snapshot(owned, tcb.frozen_copy(now), epoch, Bytes::new(), now);
        self.handoffs.copied_out(snapshot, now);
        true
    }

    /// The acceptor is ready, and has of the connection what can go ahead: it leaves.
    fn freeze(&mut self, flow: Flow, to: NodeId, epoch: Epoch, now: Instant) {
        // Without a lease somebody else may be going on with it.
        let serves = self.may_serve(now);
        let handle = self.tcp.find(&flow).filter(|handle| serves && self.owned.contains(*handle));
        if let Some(handle) = handle {
            self.build_on_copy(handle, &flow, to);
        }
        if handle.is_some_and(|handle| self.copy_ahead(handle, epoch, now)) {
            return;
        }
        let Some((handle, tcb)) = handle.and_then(|handle| Some((handle, self.tcp.export(handle, now)?)))
        else {
            self.handoffs.ended(&flow, now);
            return;
        };
        let Some(mut owned) = self.owned.remove(handle) else { return };
        let client = *flow.remote.ip();
        self.mobility.gone(client, now);
        let known = self.mobility.take_along(client, now);
        let snapshot = self.snapshot(&owned, tcb, epoch, known, now);
        self.wakes.set(flow, None);
        let moment = Moment::of(&snapshot.tcb);
        match self.handoffs.frozen(snapshot, now) {
            Ok(snapshot_bytes) => {
                self.updates.forget(&flow);
                self.leave_copies(owned.guard.take(), flow, owned.epoch);
                self.places.insert(flow, Place::Elsewhere(Route::new(to, epoch)));
                self.step(flow, to, epoch, Step::Frozen { snapshot_bytes, moment }, now);
            }
            // Nothing has left: it goes on as if it had not been asked.
            Err(snapshot) => self.put_back(owned, *snapshot, now),
        }
    }

    fn put_back(&mut self, mut owned: Owned, snapshot: Snapshot, now: Instant) {
        let flow = snapshot.tcb.flow;
        self.leave_copies(owned.guard.take(), flow, owned.epoch);
        self.sleep_on(flow, snapshot.wake, now);
        if let Ok(handle) = self.tcp.import(snapshot.tcb, now) {
            self.mobility.came(*flow.remote.ip(), Some(&snapshot.client), now);
            self.owned.insert(handle, owned);
            let former = self.take_left(&flow);
            self.guard(handle, former, false, now);
        }
    }

    /// A connection has come.
    fn install(&mut self, flow: Flow, from: NodeId, snapshot: Snapshot, now: Instant) {
        let epoch = snapshot.epoch;
        if self.has_later(&flow, epoch)
            || !snapshot.tcb.state.is_synchronised() && self.knows_better(&snapshot.tcb, now)
        {
            return self.let_pass(flow, from, epoch, now);
        }
        let session = match self.adopt(&flow, &snapshot, Service::adopt) {
            Ok(session) => session,
            Err(why) => return self.reject(flow, from, epoch, why, now),
        };
        let handle = match self.tcp.import(snapshot.tcb, now) {
            Ok(handle) => handle,
            Err(why) => return self.reject(flow, from, epoch, Refusal::Snapshot(why.to_string()), now),
        };
        self.tcp.with(handle, |tcb| tcb.change_path(tcb.config.path_policy, now));
        self.mobility.came(*flow.remote.ip(), Some(&snapshot.client), now);
        let owned = Owned { epoch, offered: epoch, doubtful: false, session, guard: None };
        self.owned.insert(handle, owned);
        self.sleep_on(flow, snapshot.wake, now);
        self.handoffs.installed_for_now(flow, from, epoch);
        self.forget_copy(&flow, now);
        let former = self.take_left(&flow);
        self.guard(handle, former, true, now);
        self.audit_taken(flow, from, epoch, AuditResult::Moved, now);
        self.counters.taken += 1;
        let held = match self.places.remove(&flow) {
            Some(Place::Arriving(arriving)) => arriving.held,
            _ => VecDeque::new(),
        };
        self.step(flow, from, epoch, Step::Installed { held: held.len() }, now);
        self.tell_owner(flow, epoch, now);
        self.peers.load_changed(now);
        self.run(handle, Event::Adopted, now);
        self.replay(flow, held, now);
    }

    /// Whether the client has opened another since, which lives here: nobody goes on with the one before.
    fn has_later(&self, flow: &Flow, epoch: Epoch) -> bool {
        self.owned_as(flow).is_some_and(|(_, owned)| owned.epoch.life > epoch.life)
    }

    /// A handshake has no owner: while one was on its way here, the client may have repeated its SYN, and this node may have
    /// opened the connection, or served it to its end.
    fn knows_better(&self, handshake: &Tcb<Duration>, now: Instant) -> bool {
        let Tcb { flow, rcv, .. } = handshake;
        self.tcp.find(flow).is_some() || self.ended.was_opened_by(flow, rcv.irs, now)
    }

    /// What is of no use any more has come: its donor is rid of it, and nobody goes on with it.
    fn let_pass(&mut self, flow: Flow, from: NodeId, epoch: Epoch, now: Instant) {
        self.handoffs.installed(flow, from, epoch);
        match self.tcp.find(&flow).and_then(|handle| self.owned.get_mut(handle)) {
            // What is here goes on under the epoch that its donor has given away.
            Some(owned) => {
                owned.epoch = owned.epoch.max(epoch);
                owned.offered = owned.offered.max(epoch);
                let epoch = owned.epoch;
                self.tell_owner(flow, epoch, now);
            }
            None => self.handoffs.ended(&flow, now),
        }
        let held = match self.places.remove(&flow) {
            Some(Place::Arriving(arriving)) => arriving.held,
            _ => VecDeque::new(),
        };
        self.step(
            flow,
            from,
            epoch,
            Step::Failed { why: "the client has opened it anew here".to_owned() },
            now,
        );
        self.replay(flow, held, now);
    }

    pub(super) fn replay(&mut self, flow: Flow, held: VecDeque<Datagram>, now: Instant) {
        for datagram in held {
            self.deliver(flow, None, &datagram, now);
        }
    }

    /// The session of a connection that has come, if it can go on here. A connection in its handshake has none.
    pub(super) fn adopt(
        &self,
        flow: &Flow,
        snapshot: &Snapshot,
        how: fn(&Service, &[u8]) -> Result<AnySession, String>,
    ) -> Result<Option<AnySession>, Refusal> {
        let service =
            self.services.get(&flow.local.port()).filter(|service| service.name() == snapshot.service);
        let service = service.ok_or_else(|| Refusal::NoSuchService(snapshot.service.clone()))?;
        if *flow.local.ip() != self.service_address {
            return Err(Refusal::Snapshot("the connection is of another service address".into()));
        }
        if !snapshot.tcb.state.is_synchronised() && snapshot.session.is_empty() {
            return Ok(None);
        }
        how(service, &snapshot.session).map(Some).map_err(Refusal::Session)
    }

    fn reject(&mut self, flow: Flow, from: NodeId, epoch: Epoch, why: Refusal, now: Instant) {
        self.step(flow, from, epoch, Step::Failed { why: why.to_string() }, now);
        self.audit_taken(flow, from, epoch, AuditResult::Refused { why_not: why.to_string() }, now);
        self.handoffs.rejected(flow, from, epoch, why, now);
    }

    fn given(&mut self, flow: Flow, to: NodeId, epoch: Epoch, now: Instant) {
        self.counters.given += 1;
        self.peers.load_changed(now);
        self.step(flow, to, epoch, Step::Taken, now);
        self.audit_given(flow, to, epoch, AuditResult::Moved, now);
        self.discard_left(&flow, now);
        self.moved(flow, now);
    }

    fn failed(&mut self, flow: Flow, to: NodeId, why: &Failure, resume: Option<Box<Snapshot>>, now: Instant) {
        self.counters.handoffs_failed += 1;
        if let Some(snapshot) = resume {
            self.resume(flow, *snapshot, now);
        }
        let epoch = self.tcp.find(&flow).and_then(|handle| self.owned.get(handle)).map(|owned| owned.offered);
        self.step(flow, to, epoch.unwrap_or_default(), Step::Failed { why: why.to_string() }, now);
        let result = AuditResult::Stayed { why_not: why.to_string() };
        self.audit_given(flow, to, epoch.unwrap_or_default(), result, now);
        self.not_moved(flow, to, why, now);
    }

    /// The acceptor will never run it: it goes on here, under a new epoch.
    fn resume(&mut self, flow: Flow, snapshot: Snapshot, now: Instant) {
        let epoch = snapshot.epoch;
        let Ok(session) = self.adopt(&flow, &snapshot, Service::take_back) else { return };
        let Ok(handle) = self.tcp.import(snapshot.tcb, now) else { return };
        self.places.remove(&flow);
        self.mobility.came(*flow.remote.ip(), Some(&snapshot.client), now);
        let owned = Owned { epoch, offered: epoch, doubtful: false, session, guard: None };
        self.owned.insert(handle, owned);
        self.sleep_on(flow, snapshot.wake, now);
        let former = self.take_left(&flow);
        self.guard(handle, former, false, now);
        self.tell_owner(flow, epoch, now);
        self.run(handle, Event::Adopted, now);
    }

    fn step(&mut self, flow: Flow, peer: NodeId, epoch: Epoch, step: Step, now: Instant) {
        if self.rules.untraced {
            return;
        }
        let event = TraceEvent::Handoff {
            client: flow.remote,
            port: flow.local.port(),
            epoch: epoch.count,
            peer: self.peers.name(peer).to_owned(),
            step,
        };
        self.trace(event, now);
    }
}
