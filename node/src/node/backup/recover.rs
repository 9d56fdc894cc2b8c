//! A node has died: whoever holds the best copies of its connections goes on with them.

use std::time::Duration;

use ferry_handoff::claims::{Claim, Held, Standing, Verdict, is_same};
use ferry_handoff::{Delta, Epoch, Incarnation, NodeId, Refusal, Snapshot};
use ferry_stack::Instant;
use ferry_stack::tcp::{self, Flow, RECOVERY_MARGIN};

use super::holder::octets;
use super::{Agreed, Early, Kept, MAX_DEAD, MAX_EARLY};
use crate::io::{AuditResult, Reason, TraceEvent};
use crate::node::audit::Move;
use crate::node::places::Place;
use crate::node::service::{Commit, Service};
use crate::node::{Node, Owned};
use crate::session::Event;

impl Node {
    /// A life of another node is over. Whatever it still says is ignored from now on. `is_last`: it is the one from which everything
    /// comes that is held here of that node.
    pub(in crate::node) fn take_over_from(
        &mut self,
        dead: NodeId,
        life: Incarnation,
        is_last: bool,
        now: Instant,
    ) {
        self.backup.dead.push_back((dead, life));
        if self.backup.dead.len() > MAX_DEAD {
            self.backup.dead.pop_front();
        }
        if is_last {
            self.adopt_orphans(dead, life, now);
            self.claim_all_of(dead, life, now);
        }
        for early in core::mem::take(&mut self.backup.early) {
            if early.dead == (dead, life) {
                self.claims_told(early.from, early.dead, early.run, &early.copies, now);
            } else {
                self.backup.early.push_back(early);
            }
        }
        self.carry_out_verdicts(now);
    }

    fn claim_all_of(&mut self, dead: NodeId, life: Incarnation, now: Instant) {
        self.backup.discards.forget(dead);
        self.backup.absent.remove(&dead);
        for left in self.backup.leaving.values_mut() {
            left.holders.remove(&dead);
        }
        let copies = self.backup.holdings.of(dead);
        if self.is_dead(dead) {
            self.backup.holdings.died(dead, life, now);
        } else {
            self.backup.holdings.died_and_lives(dead, life, now);
        }
        if copies > 0 {
            let node = self.node_name(dead).to_owned();
            self.trace(TraceEvent::Claims { node, connections: copies }, now);
        }
        self.orphan_places(dead, now);
        self.choose_backups_anew(now);
    }

    /// What was given to the dead node and never taken, as far as is known here, is the best that there may be, unless it has
    /// passed that on.
    fn adopt_orphans(&mut self, dead: NodeId, life: Incarnation, now: Instant) {
        for (flow, epoch, snapshot) in self.handoffs.died(dead, life) {
            let others = self.take_left(&flow);
            let Some(mut held) = as_copy(dead, epoch, &snapshot, now) else { continue };
            held.others = others;
            // It may have taken what it was given, and have copied it here since.
            if let Some(known) = self.backup.holdings.get_mut(&flow)
                && known.standing.beats(self.id, &held.standing, self.id)
            {
                known.others.extend(held.others);
                continue;
            }
            self.forget_copy(&flow, now);
            self.backup.octets += octets(&held.copy.copy);
            self.backup.holdings.insert(flow, held);
        }
    }

    /// Another node claims connections of one that is dead.
    pub(in crate::node) fn claims_told(
        &mut self,
        from: NodeId,
        (dead, life): (NodeId, Incarnation),
        run: u64,
        copies: &[Claim],
        now: Instant,
    ) {
        let former = dead == self.id && life != self.incarnation;
        if !former && !self.backup.dead.contains(&(dead, life)) {
            // As long as that node is heard here, this one might still take something from it.
            if self.backup.early.len() >= MAX_EARLY {
                self.backup.early.pop_front();
            }
            let (dead, copies) = ((dead, life), copies.to_vec());
            return self.backup.early.push_back(Early { from, dead, run, copies });
        }
        let Self { backup, tcp, owned, handoffs, ended, .. } = self;
        let super::Backup { holdings, discards, leaving, .. } = backup;
        let mut over = Vec::new();
        holdings.answer(from, (dead, life), run, copies, |claim| {
            let Claim { flow, standing } = claim;
            if let Some(handle) = tcp.find(flow)
                && let (Some(tcb), Some(owned)) = (tcp.get(handle), owned.get_mut(handle))
            {
                let ours = Standing::of_owner(tcb.snd.iss, owned.epoch);
                if standing.is_covered_by(&ours) {
                    if let Some(guard) = &mut owned.guard {
                        guard.former.insert(from);
                    } else {
                        over.push((*flow, *standing));
                    }
                    return Some(ours);
                }
            }
            let given = handoffs.given(flow).filter(|epoch| *epoch > standing.epoch);
            let ended = || ended.epoch(flow, now).filter(|epoch| *epoch >= standing.epoch);
            if let Some(epoch) = given {
                if let Some(left) = leaving.get_mut(flow) {
                    left.holders.insert(from);
                }
                return Some(Standing::of_owner(standing.iss, epoch));
            }
            if let Some(covered) = discards.covers(from, flow, standing) {
                return Some(covered);
            }
            let epoch = ended()?;
            over.push((*flow, *standing));
            Some(Standing::of_owner(standing.iss, epoch))
        });
        for (flow, Standing { iss, epoch, .. }) in over {
            self.discard_at(from, flow, iss, epoch, now);
        }
        self.settle_former(copies, now);
        self.carry_out_verdicts(now);
    }

    /// Those that are protected already need the claimers' copies no longer.
    fn settle_former(&mut self, copies: &[Claim], now: Instant) {
        for Claim { flow, .. } in copies {
            if let Some(handle) = self.tcp.find(flow) {
                self.caught_up_if_complete(handle, now);
            }
        }
    }

    /// Carries out what the holdings want.
    pub(in crate::node) fn carry_out_verdicts(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(verdict) = self.backup.holdings.poll() {
            any = true;
            match verdict {
                Verdict::Send { to, message } => self.tell(to, &message),
                Verdict::Recover { flow } => {
                    if let Some(held) = self.backup.holdings.get(&flow) {
                        self.backup.agreed.flows.push((held.copy.at, flow));
                    }
                }
                Verdict::Yielded { flow, .. } if !self.is_protected(&flow) => {
                    self.forget_copy(&flow, now);
                }
                Verdict::Yielded { .. } => {}
            }
        }
        any
    }

    /// Goes on with some of the connections that are to go on here; whether there was any. What follows from it leaves before
    /// the next ones have their turn.
    pub(in crate::node) fn recover_some(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(flow) = self.backup.agreed.next() {
            any = true;
            self.recover(flow, now);
        }
        if any && self.may_serve(now) {
            // What is overdue goes into the first copies.
            self.wake_sessions(now);
        }
        any
    }

    /// Nobody has come further: the connection goes on here.
    fn recover(&mut self, flow: Flow, now: Instant) {
        let Some(held) = self.backup.holdings.agreed(&flow) else { return };
        self.held_no_longer(&flow, &held.copy, now);
        // Without output commit a copy is of no use once another has gone on from it.
        let outdated = held.lives > 0 && !self.is_protected(&flow);
        self.backup.counts.lost += u64::from(outdated);
        if outdated || self.is_superseded(&flow, &held, now) {
            return;
        }
        let (owner, standing, former) = (held.owner, held.standing, held.others.clone());
        let epoch = held.recovered();
        let spent = held.copy.at.since(now);
        let one =
            Move { flow, from: owner, to: self.id, before: Some(standing.epoch), epoch, why: Reason::Crash };
        match self.revive(held, epoch, now) {
            Ok(handle) => {
                self.backup.counts.recovered += 1;
                self.handoffs.recovered(flow, epoch);
                self.trace_recovered(&one, spent, now);
                self.audit(&one, AuditResult::Moved, now);
                self.guard(handle, former, false, now);
                self.tell_owner(flow, epoch, now);
                self.peers.load_changed(now);
                self.run(handle, Event::Adopted, now);
                self.replay_orphan(&flow, now);
            }
            Err(why) => {
                self.backup.counts.lost += 1;
                self.audit(&one, AuditResult::Refused { why_not: why.to_string() }, now);
                for node in former {
                    self.discard_at(node, flow, standing.iss, standing.epoch, now);
                }
            }
        }
    }

    fn trace_recovered(&mut self, one: &Move, spent: Duration, now: Instant) {
        let event = TraceEvent::Recovered {
            client: one.flow.remote,
            port: one.flow.local.port(),
            epoch: one.epoch.count,
            from: self.node_name(one.from).to_owned(),
            age_us: u64::try_from(spent.as_micros()).unwrap_or(u64::MAX),
        };
        self.trace(event, now);
    }

    /// Whether the client has a later connection between the same ends, or speaks to the one here; an older one makes way.
    fn is_superseded(&mut self, flow: &Flow, held: &Held<Kept>, now: Instant) -> bool {
        let standing = &held.standing;
        let Some(handle) = self.tcp.find(flow) else {
            let ended = self.ended.epoch(flow, now).is_some_and(|epoch| epoch >= standing.epoch);
            let route = self.places.get(flow).and_then(Place::route);
            return ended || route.is_some_and(|route| route.epoch.life > standing.epoch.life);
        };
        let spoken_to = self.tcp.get(handle).is_some_and(|tcb| {
            let other = !is_same(tcb.snd.iss, standing.iss);
            other && tcb.state.is_synchronised() && tcb.last_heard > held.copy.at
        });
        if spoken_to || self.has_come_further(flow, standing) {
            return true;
        }
        self.let_go(flow, handle, now);
        false
    }

    fn revive(&mut self, held: Held<Kept>, epoch: Epoch, now: Instant) -> Result<tcp::Handle, Refusal> {
        let age = held.copy.at.since(now);
        let spent = age + RECOVERY_MARGIN * held.lives;
        let Kept { copy, given, .. } = held.copy;
        let snapshot = copy.into_snapshot();
        let snapshot = snapshot.map_err(|why| Refusal::Snapshot(why.to_string()))?;
        let flow = snapshot.tcb.flow;
        let how: fn(&Service, &[u8]) -> _ = if given { Service::take_back } else { Service::adopt };
        let session = self.adopt(&flow, &snapshot, how)?;
        let commit = self.services.get(&flow.local.port()).map(Service::commit).unwrap_or_default();
        let held_back = match commit {
            Commit::Regenerate => tcp::Commit::Regenerate,
            Commit::Strict | Commit::None => tcp::Commit::Strict,
        };
        let Snapshot { tcb, wake, client, .. } = snapshot;
        // In a handshake the client may have come to know another answer meanwhile.
        let opening = !tcb.state.is_synchronised();
        let handle = self.tcp.import(Box::new(tcb.recovered(held_back, spent)), now);
        let handle = handle.map_err(|why| Refusal::Snapshot(why.to_string()))?;
        // Somebody may own it who was out of reach, and was taken for dead.
        let alone = !self.is_protected(&flow);
        self.tcp.with(handle, |tcb| {
            tcb.change_path(tcb.config.path_policy, now);
            // Without backups nobody would release anything.
            if commit == Commit::None || alone {
                tcb.unhold();
            }
        });
        self.mobility.came(*flow.remote.ip(), Some(&client), now);
        self.owned.insert(
            handle,
            Owned { epoch, offered: epoch, doubtful: opening || alone, session, guard: None },
        );
        // It slept on while nobody knew of its node's death.
        self.sleep_on(flow, wake.map(|left| left.saturating_sub(age)), now);
        Ok(handle)
    }

    /// This life of the node is over, without its having ended: it holds nothing any more.
    pub(in crate::node) fn forget_copies(&mut self, now: Instant) {
        self.backup.holdings.clear();
        self.mobility.backs_none(now);
        self.backup.octets = 0;
        self.backup.discards.clear();
        self.backup.leaving.clear();
        self.backup.early.clear();
        self.backup.agreed = Agreed::default();
    }

    pub(in crate::node) fn claimed_told(
        &mut self,
        from: NodeId,
        run: u64,
        objections: &[Claim],
        now: Instant,
    ) {
        self.backup.holdings.answered(from, run, objections, now);
        self.carry_out_verdicts(now);
    }
}

/// A snapshot that was to go to a node that has died, as a copy of a connection of that node.
fn as_copy(owner: NodeId, epoch: Epoch, snapshot: &Snapshot, now: Instant) -> Option<Held<Kept>> {
    let delta = Delta::whole(snapshot);
    let standing = Standing { iss: delta.iss(), epoch, version: 0, rank: 0 };
    let mut kept = Kept { given: true, ..Kept::new(now) };
    kept.copy.apply(delta).ok()?;
    Some(Held::new(owner, standing, kept))
}
