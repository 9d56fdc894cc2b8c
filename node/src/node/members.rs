//! What the directory says about who is alive, and what follows from it.

use std::hash::Hasher as _;
use std::time::Duration;

use ferry_handoff::{Epoch, Handoffs, Incarnation, Message, NodeId};
use ferry_stack::Instant;
use ferry_stack::tcp::{Flow, Handle};
use siphasher::sip::SipHasher13;

use super::ask::Asks;
use super::audit::Move;
use super::backup::Copied;
use super::belief::Claims;
use super::{Leaving, Node, Updates, Warming};
use crate::directory::Event;
use crate::io::{AuditResult, Output, Reason, Standing, TraceEvent};

/// So long after a death every node within reach knows of it, and has taken in what the dead one had sent: a link that says
/// nothing for three seconds is given up.
const ALL_KNOW: Duration = Duration::from_secs(4);

impl Node {
    /// Whether this node may act for its connections: nobody can have taken its place. Without it, it sends nothing of them and
    /// takes nothing in for them; their clients send again.
    pub fn may_serve(&self, now: Instant) -> bool {
        self.directory.lease().is_valid(now)
    }

    /// Notes whether that has changed; call it before anything is sent, because this node may have slept.
    pub(super) fn look_at_lease(&mut self, now: Instant) -> bool {
        let serves = self.may_serve(now);
        if serves != core::mem::replace(&mut self.serves, serves) {
            self.trace(TraceEvent::Lease { valid: serves }, now);
            if serves {
                for (flow, held) in self.suspended.take_all() {
                    self.replay(flow, held, now);
                }
                let owned: Vec<Handle> = self.owned.iter().map(|(handle, _)| handle).collect();
                for handle in owned {
                    self.tcp.with(handle, ferry_stack::tcp::Tcb::kick);
                }
                self.assert_role(now);
                self.fill_contact(now);
            } else {
                // Another may answer for it by the time that we have our lease back. What comes for connections that live here waits.
                self.interface.cede_address(self.service_address);
                // It was made while nobody could have taken our place, and is not sent any more.
                self.interface.forget_waiting();
            }
        }
        serves
    }

    /// Whether the life of a node that was known last is over.
    pub(super) fn is_dead(&self, peer: NodeId) -> bool {
        self.directory.standing(peer) == Standing::Dead
    }

    /// It is proved that a life of another node is over.
    pub(super) fn peer_dead(&mut self, peer: NodeId, life: Incarnation, now: Instant) {
        if self.peers.is_known(peer) {
            self.directory.proved(peer, life, now);
            self.attend(now);
        }
    }

    /// etcd has answered.
    pub(super) fn store_answered(&mut self, id: u64, answer: crate::io::StoreAnswer, now: Instant) {
        self.directory.answer(id, answer, now);
        self.attend(now);
    }

    /// Carries out what the directory wants; whether there was anything.
    pub(super) fn attend(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(event) = self.directory.poll() {
            any = true;
            match event {
                Event::Tell(to, message) => self.tell(to, &message),
                Event::Died(peer, life) => self.node_died(peer, life, now),
                Event::Lost => self.give_all_up(now),
                Event::Contact(node, term) => self.note_contact(node, term, now),
                Event::Ask(id, request) => self.outputs.push_back(Output::Store { id, request }),
            }
        }
        any
    }

    /// A life of another node is over: called once for each. What is known of the node comes from the life that was linked last; a
    /// newcomer, say, is told of others.
    fn node_died(&mut self, peer: NodeId, life: Incarnation, now: Instant) {
        self.trace(TraceEvent::Dead { peer: self.peers.name(peer).to_owned() }, now);
        self.last_death = Some(now);
        let is_last = self.peers.last_life(peer) == Some(life);
        if is_last && self.peers.is_up(peer) {
            self.peer_down(peer, now);
        }
        // First who is told of what goes on here.
        self.fill_contact(now);
        self.take_over_from(peer, life, is_last, now);
        if !is_last {
            return;
        }
        // What it owned is lost, or owned by somebody who will say so when asked.
        self.places.retain(|_, place| place.route().is_none_or(|route| route.to != peer));
        for flow in self.asks.waiting_for(peer) {
            if !self.may_be_recovered(&flow, now) {
                self.not_mine(peer, &flow, now);
            }
        }
    }

    /// Whether a connection of a node that is dead may go on elsewhere, so that nobody can say yet that it is lost. Who goes on
    /// with it has a copy by now, or has been told of the death.
    fn may_be_recovered(&self, flow: &Flow, now: Instant) -> bool {
        let recently = self.last_death.is_some_and(|at| at.since(now) < ALL_KNOW);
        (recently && self.is_protected(flow)) || matches!(self.holds_copy(flow), Copied::Ownerless)
    }

    /// Whether every other node can say whether it owns a connection. The dead own nothing.
    pub(super) fn all_can_answer(&self, flow: &Flow, now: Instant) -> bool {
        let lost = !self.may_be_recovered(flow, now);
        self.peers.ids().all(|peer| self.peers.is_up(peer) || (lost && self.is_dead(peer)))
    }

    /// The others have given up this life of ours, and go on with what it owned. It ends here without a word to the clients, and
    /// the node begins a new life.
    fn give_all_up(&mut self, now: Instant) {
        let owned: Vec<(Handle, Flow, Epoch)> = self
            .owned
            .iter()
            .filter_map(|(handle, owned)| Some((handle, self.tcp.get(handle)?.flow, owned.epoch)))
            .collect();
        for (handle, flow, epoch) in &owned {
            self.tcp.export(*handle, now);
            self.owned.remove(*handle);
            self.wakes.set(*flow, None);
            self.mobility.gone(*flow.remote.ip(), now);
            let (from, to) = (self.id, self.id);
            let lost =
                Move { flow: *flow, from, to, before: Some(*epoch), epoch: *epoch, why: Reason::Crash };
            self.audit(&lost, AuditResult::Lost, now);
        }
        self.counters.lost_ownership += owned.len() as u64;
        self.trace(TraceEvent::Lost { connections: owned.len() }, now);
        self.begin_anew(now);
    }

    fn begin_anew(&mut self, now: Instant) {
        self.doubt_contact();
        self.interface.forget_waiting();
        for peer in self.peers.reachable().collect::<Vec<_>>() {
            self.peer_down(peer, now);
        }
        self.places.clear();
        self.suspended.take_all();
        let key = self.places.hasher().clone();
        self.handoffs = Handoffs::new(&key);
        (self.updates, self.leaving) = (Updates::new(&key), Leaving::new(key));
        self.forget_copies(now);
        if self.draining {
            self.handoffs.drain();
        }
        (self.warming, self.asks, self.claims) = (Warming::default(), Asks::default(), Claims::default());
        self.fail_jobs("the others have given this node up");
        let mut next = SipHasher13::new_with_keys(0x6665_7272_795f_6c69, 0x6665_5f61_6e65_7721);
        next.write_u64(self.incarnation.0);
        self.incarnation = Incarnation(next.finish());
        self.directory.reborn(self.incarnation, now);
        // What waits is for links of the former life.
        self.outputs.retain(|output| !matches!(output, Output::Peer { .. }));
        self.outputs.push_back(Output::Reborn { incarnation: self.incarnation });
    }

    /// Whether a message of another node counts. Of a life that is over none does, but that it is told so.
    pub(super) fn is_heard(&self, from: NodeId, message: &Message) -> bool {
        self.peers.is_up(from) || matches!(message, Message::Pulse(_))
    }
}
