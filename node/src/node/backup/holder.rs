//! A backup keeps copies of other nodes' connections.

use std::collections::BTreeSet;

use ferry_handoff::claims::{Held, Standing, is_same};
use ferry_handoff::{Copy, Delta, Epoch, Message, NodeId, Pieces, Unfit, Version};
use ferry_stack::tcp::Flow;
use ferry_stack::{Instant, Seq};

use super::Kept;
use crate::node::{Node, TokensAhead};

/// Copies that a node holds at most.
const MAX_COPIES: usize = 1 << 20;
/// Octets of payload in them at most.
const MAX_OCTETS: usize = 4 << 30;

/// What a [`Message::Copy`] says.
pub(in crate::node) struct Told<'a> {
    pub(in crate::node) flow: Flow,
    pub(in crate::node) epoch: Epoch,
    pub(in crate::node) version: u64,
    pub(in crate::node) holders: &'a [NodeId],
    pub(in crate::node) delta: &'a Pieces,
}

/// Whether a copy of a connection is held here.
pub(in crate::node) enum Copied {
    /// None is.
    Nowhere,
    /// One is, and it is being found out who goes on with it.
    Ownerless,
    /// One is, of a connection that this node owns, under this epoch.
    Of(NodeId, Epoch),
}

impl Node {
    /// An owner says what a copy of a connection lacks.
    pub(in crate::node) fn copy_told(&mut self, from: NodeId, told: &Told<'_>, now: Instant) {
        let Told { flow, epoch, version, .. } = *told;
        let delta = match Delta::decode_pieces(told.delta) {
            Ok(delta) if *delta.flow() == flow && delta.version.epoch == epoch => delta,
            _ => return self.refuse_copy(from, flow, Seq(0), epoch),
        };
        let iss = delta.iss();
        let rank = told.holders.iter().position(|holder| *holder == self.id).unwrap_or(usize::MAX);
        let rank = u8::try_from(rank).unwrap_or(u8::MAX);
        let standing = Standing { iss, epoch, version: delta.version.number, rank };
        if !self.wants_copy(from, &flow, &standing, now) {
            return self.refuse_copy(from, flow, iss, epoch);
        }
        match self.apply(from, flow, standing, delta, now) {
            Ok(has) => {
                self.tell(from, &Message::Copied { flow, epoch, version: has.number });
                self.stand_by_for(&flow, now);
            }
            Err(Unfit::Lacks { have }) => {
                let have = if have.epoch == epoch { have.number } else { 0 };
                self.tell(from, &Message::Lacks { flow, epoch, version, have });
            }
            Err(Unfit::Refused(_)) => {
                self.counters.dropped += 1;
                self.forget_copy(&flow, now);
                self.refuse_copy(from, flow, iss, epoch);
            }
        }
    }

    /// Brings the copy that is held for `from` up to date, or holds one from now on.
    fn apply(
        &mut self,
        from: NodeId,
        flow: Flow,
        standing: Standing,
        delta: Delta,
        now: Instant,
    ) -> Result<Version, Unfit> {
        let fits = |held: &&mut Held<Kept>| {
            held.owner == from && !held.is_claimed() && is_same(held.standing.iss, standing.iss)
        };
        let Some(held) = self.backup.holdings.get_mut(&flow).filter(fits) else {
            let mut kept = Kept::new(now);
            let has = kept.copy.apply(delta)?;
            self.backup_insert(
                flow,
                Held::new(from, Standing { version: has.number, ..standing }, kept),
                now,
            );
            return Ok(has);
        };
        let before = octets(&held.copy.copy);
        let has = held.copy.copy.apply(delta)?;
        let after = octets(&held.copy.copy);
        held.standing = Standing { version: has.number, epoch: has.epoch, ..standing };
        (held.copy.at, held.copy.given) = (now, false);
        self.backup.octets = self.backup.octets + after - before;
        Ok(has)
    }

    /// Whether a copy of this connection is to be held for `from`. Only what has come further takes the place of what
    /// another node is responsible for.
    fn wants_copy(&self, from: NodeId, flow: &Flow, standing: &Standing, now: Instant) -> bool {
        if !self.may_own(from, flow)
            || !self.may_own(self.id, flow)
            || !self.is_plausible(standing.epoch, now)
        {
            return false;
        }
        if self.has_come_further(flow, standing) {
            return false;
        }
        match self.backup.holdings.get(flow) {
            None => self.backup.holdings.len() < MAX_COPIES && self.backup.octets < MAX_OCTETS,
            Some(held) if held.owner == from && !held.is_claimed() => {
                let known = held.standing;
                if is_same(known.iss, standing.iss) {
                    known.epoch <= standing.epoch
                } else {
                    standing.iss.after(known.iss)
                }
            }
            Some(held) => !standing.is_covered_by(&held.standing),
        }
    }

    /// Whether this node owns what a copy of can only be older, or a lie: it gives its connections away by itself.
    pub(super) fn has_come_further(&self, flow: &Flow, standing: &Standing) -> bool {
        let Some(handle) = self.tcp.find(flow) else { return false };
        let (Some(tcb), Some(owned)) = (self.tcp.get(handle), self.owned.get(handle)) else { return false };
        let sure = is_same(tcb.snd.iss, standing.iss) && self.is_sure_of(handle, owned, standing.epoch);
        sure || standing.is_covered_by(&Standing::of_owner(tcb.snd.iss, owned.epoch))
    }

    /// Part of a handoff, which may build on a copy that is held here.
    pub(in crate::node) fn receive_handoff(&mut self, from: NodeId, message: &Message, now: Instant) {
        let known = match message {
            Message::Copy { flow, .. } | Message::Transfer { flow, .. } => self.backup.holdings.get(flow),
            _ => None,
        };
        let known = known.filter(|held| held.owner == from).map(|held| &held.copy.copy);
        self.handoffs.receive_with(from, message, known, now);
    }

    /// There is no copy here.
    fn refuse_copy(&mut self, to: NodeId, flow: Flow, iss: Seq, epoch: Epoch) {
        self.tell(to, &Message::Discarded { flow, iss, epoch });
    }

    fn backup_insert(&mut self, flow: Flow, held: Held<Kept>, now: Instant) {
        let others = self.forget_copy(&flow, now);
        self.backup.octets += octets(&held.copy.copy);
        self.backup.holdings.insert(flow, held);
        if let (Some(others), Some(held)) = (others, self.backup.holdings.get_mut(&flow)) {
            held.others.extend(others);
        }
    }

    /// Keeps a care-of token of the client of a connection of which a copy is held, if it is one that understands: it is told
    /// that much sooner where its connection goes on.
    fn stand_by_for(&mut self, flow: &Flow, now: Instant) {
        let Some(held) = self.backup.holdings.get_mut(flow).filter(|held| !held.copy.stands_by) else {
            return;
        };
        let known = held.copy.copy.client().filter(|known| !known.is_empty()).cloned();
        if let Some(known) = known.filter(|_| self.rules.tokens_ahead == TokensAhead::Auto) {
            held.copy.stands_by = true;
            self.mobility.backs(*flow.remote.ip(), &known, now);
        }
    }

    /// Holds a copy no longer. Tells who holds less.
    pub(in crate::node) fn forget_copy(&mut self, flow: &Flow, now: Instant) -> Option<BTreeSet<NodeId>> {
        let held = self.backup.holdings.remove(flow)?;
        self.held_no_longer(flow, &held.copy, now);
        Some(held.others)
    }

    pub(super) fn held_no_longer(&mut self, flow: &Flow, kept: &Kept, now: Instant) {
        self.backup.octets -= octets(&kept.copy);
        if kept.stands_by {
            self.mobility.backs_no_longer(*flow.remote.ip(), now);
        }
    }

    /// A copy is of no use any more.
    pub(in crate::node) fn discard_told(
        &mut self,
        from: NodeId,
        flow: Flow,
        iss: Seq,
        epoch: Epoch,
        now: Instant,
    ) {
        if let Some(held) = self.backup.holdings.discard(&flow, iss, epoch) {
            self.held_no_longer(&flow, &held.copy, now);
            if held.owner != from && self.peers.is_up(held.owner) {
                // If that is not true, its owner brings another one.
                let Standing { iss, epoch, .. } = held.standing;
                self.tell(held.owner, &Message::Discarded { flow, iss, epoch });
            }
            for other in held.others.into_iter().filter(|other| *other != from) {
                self.discard_at(other, flow, iss, epoch, now);
            }
        }
        self.tell(from, &Message::Discarded { flow, iss, epoch });
    }

    /// What is known here of a connection of which a copy is held: who owns it; nobody as long as that is being found out.
    pub(in crate::node) fn holds_copy(&self, flow: &Flow) -> Copied {
        match self.backup.holdings.get(flow) {
            None => Copied::Nowhere,
            Some(held) if held.is_claimed() => Copied::Ownerless,
            Some(held) => Copied::Of(held.owner, held.standing.epoch),
        }
    }
}

impl Kept {
    pub(super) fn new(now: Instant) -> Self {
        Self { copy: Copy::default(), at: now, given: false, stands_by: false }
    }
}

pub(super) fn octets(copy: &Copy) -> usize {
    usize::try_from(copy.len()).unwrap_or(usize::MAX)
}
