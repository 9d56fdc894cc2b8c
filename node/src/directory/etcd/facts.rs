//! What follows from what is in etcd.

use ferry_handoff::{Incarnation, Message, NodeId};
use ferry_stack::Instant;

use super::Etcd;
use super::cells::{Cells, life_key};
use crate::directory::Event;

impl Etcd {
    /// A fact: told once, to this node and to all others.
    pub(super) fn die(&mut self, node: NodeId, life: Incarnation, now: Instant) {
        let lease = self.lease;
        if !self.members.get_mut(&node).is_some_and(|member| member.end(life, lease, now)) {
            return;
        }
        self.events.push_back(Event::Died(node, life));
        let others = self.members.iter().filter(|(id, member)| member.up && **id != node);
        let others: Vec<_> = others.map(|(id, _)| *id).collect();
        for peer in others {
            self.tell(peer, Message::Dead { node, life });
        }
        self.next = now;
    }

    /// This life of ours is over.
    pub(super) fn lose(&mut self) {
        if !core::mem::replace(&mut self.lost, true) {
            self.events.push_back(Event::Lost);
        }
    }

    /// Everything that is there is known.
    pub(super) fn learn(&mut self, cells: Cells, now: Instant) {
        self.cells = cells;
        self.conclude(now);
    }

    pub(super) fn conclude(&mut self, now: Instant) {
        self.look_at_ourselves();
        let members: Vec<_> = self.members.keys().copied().collect();
        for node in members {
            self.look_at(node, now);
        }
        self.look_at_role();
    }

    fn look_at_ourselves(&mut self) {
        let record = self.cells.record(&self.name);
        let over = record.is_some_and(|record| {
            let ours = record.life == self.life;
            (ours && record.dead) || (!ours && self.requests.was_registered())
        });
        if over {
            self.lose();
        }
        if self.cells.present(&self.name) != Some(self.life) {
            self.requests.lapsed();
        }
    }

    fn look_at(&mut self, node: NodeId, now: Instant) {
        let Some(member) = self.members.get_mut(&node) else { return };
        let record = self.cells.record(&member.name);
        let dead = record.as_ref().is_some_and(|record| record.dead);
        member.recorded = if dead { member.recorded.or(Some(now)) } else { None };
        let revision = self.cells.revision_of(&life_key(&member.name));
        let vote = self.cells.vote(&member.name, &self.name);
        let voted = vote.is_some_and(|vote| vote.record == revision && vote.by == self.life);
        let acting = self.requests.may_be_acting_against(node) || (voted && member.against == Some(revision));
        if !acting {
            member.against = None;
        }
        let Some(record) = record else { return };
        let former = member.registered.replace(record.life).filter(|former| *former != record.life);
        if let Some(former) = former {
            self.die(node, former, now);
        }
        if record.dead {
            self.die(node, record.life, now);
        }
    }

    fn look_at_role(&mut self) {
        let Some(role) = self.cells.role() else { return };
        let (node, term) = (NodeId::of(&role.node), role.term);
        let known = node == self.id || self.members.contains_key(&node);
        if known && (term, node) > (self.role.1, self.role.0) {
            self.role = (node, term);
            self.events.push_back(Event::Contact(node, term));
        }
        if self.wanted.is_some_and(|(node, wanted)| node == self.role.0 || wanted <= self.role.1) {
            self.wanted = None;
        }
    }
}
