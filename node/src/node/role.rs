//! The role of the contact node, when whoever has it is dead.

use ferry_handoff::NodeId;
use ferry_stack::Instant;

use super::Node;

impl Node {
    /// If the contact node is dead, everybody who knows that names its successor, in the next term. They name the same one,
    /// since all go by names; where they see the group with different eyes, the greatest term and node counts.
    pub(super) fn fill_contact(&mut self, now: Instant) {
        let contact = self.contact;
        if contact == self.id {
            // Nobody is left who could have been given the role.
            if self.peers.ids().all(|peer| self.is_dead(peer)) && self.home.trust() {
                self.assert_role(now);
            }
            return;
        }
        if !self.is_dead(contact) || !self.may_serve(now) || !self.sees_enough() {
            return;
        }
        if let (Some(next), Some(term)) = (self.successor(), self.home.term()) {
            self.appoint(next, term.saturating_add(1), now);
        }
    }

    /// The first in the order of names of those within reach that can have the role: on the home link, or anywhere with a home
    /// agent. A node that empties itself gets it only if there is nobody else.
    fn successor(&self) -> Option<NodeId> {
        if !self.home.reaches(self.contact) {
            return None;
        }
        let ours = (self.draining, &*self.name, self.id);
        let others = self.peers.reachable().filter(|peer| self.home.reaches(*peer));
        let others = others.map(|peer| (self.peers.is_leaving(peer), self.peers.name(peer), peer));
        others.chain([ours]).min().map(|(.., next)| next)
    }

    /// Whether of those that are not known to be dead more are within reach than not, so that no two parts of the group fill the
    /// role; of two halves, the one with the first of all by name does.
    fn sees_enough(&self) -> bool {
        let all = self.peers.ids().filter(|peer| !self.is_dead(*peer));
        let all: Vec<_> = all.map(|peer| (self.peers.name(peer), self.peers.is_up(peer))).collect();
        let all: Vec<_> = all.into_iter().chain([(&*self.name, true)]).collect();
        let seen = all.iter().filter(|(_, seen)| *seen).count();
        let first = all.iter().min().is_some_and(|(_, seen)| *seen);
        seen * 2 > all.len() || (seen * 2 == all.len() && first)
    }

    /// This life of ours was given up, and the role with it, most likely: it is not acted upon before the others have spoken.
    pub(super) fn doubt_contact(&mut self) {
        if self.is_contact() {
            self.home.doubt();
        }
        self.interface.remove_address(self.service_address);
    }
}
