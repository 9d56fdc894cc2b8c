//! The owner keeps the copies of its connections current, and lets the client see what they have.

use std::collections::BTreeSet;
use std::net::Ipv6Addr;

use bytes::Bytes;
use ferry_handoff::{Epoch, Message, NodeId};
use ferry_stack::tcp::{self, Flow, Handle, Point, Tcb};
use ferry_stack::{Instant, Seq};

use super::choice::choose;
use super::guard::{Change, Guard, Holder};
use super::{CLIENT_KNOWN, DELTAS_AT_ONCE, Left, REFUSED, SMALL_CHANGES};
use crate::io::TraceEvent;
use crate::node::service::Commit;
use crate::node::{Node, Owned};

impl Node {
    /// How often connections of this port are held by other nodes, and what waits for them.
    fn protection(&self, flow: &Flow) -> Option<(usize, Option<tcp::Commit>)> {
        let service = self.services.get(&flow.local.port()).filter(|service| service.replicas() > 0)?;
        let commit = match service.commit() {
            Commit::Strict => Some(tcp::Commit::Strict),
            Commit::Regenerate => Some(tcp::Commit::Regenerate),
            Commit::None => None,
        };
        Some((service.replicas().into(), commit))
    }

    /// Whether other nodes are to hold copies of a connection.
    pub(in crate::node) fn is_protected(&self, flow: &Flow) -> bool {
        self.protection(flow).is_some()
    }

    /// A connection is owned here from now on: it gets backups, if its service asks for them. `former`: nodes with copies
    /// that are older.
    pub(in crate::node) fn guard(
        &mut self,
        handle: Handle,
        former: BTreeSet<NodeId>,
        unconfirmed: bool,
        now: Instant,
    ) {
        let Some(tcb) = self.tcp.get(handle) else { return };
        let flow = tcb.flow;
        let protected = self.is_protected(&flow);
        let iss = tcb.snd.iss;
        let Some(owned) = self.owned.get_mut(handle) else { return };
        if !protected {
            let epoch = owned.epoch;
            for node in former {
                self.discard_at(node, flow, iss, epoch, now);
            }
            return self.handoffs.confirm(&flow);
        }
        let mut guard = Guard::new(iss, self.backup.stamp, former);
        guard.unconfirmed = unconfirmed;
        owned.guard = Some(Box::new(guard));
        self.choose_backups(handle, now);
    }

    /// Has a connection's copies brought up to date when there is nothing more urgent to do.
    pub(in crate::node) fn changed(&mut self, handle: Handle) {
        let guard = self.owned.get_mut(handle).and_then(|owned| owned.guard.as_mut());
        if let Some(guard) = guard
            && !core::mem::replace(&mut guard.queued, true)
        {
            self.backup.dirty.push_back(handle);
        }
    }

    /// The session of a connection was called.
    pub(in crate::node) fn called(&mut self, handle: Handle) {
        if let Some(guard) = self.owned.get_mut(handle).and_then(|owned| owned.guard.as_mut()) {
            guard.called = true;
            self.changed(handle);
        }
    }

    /// Brings copies up to date; whether there was anything to do.
    pub(in crate::node) fn update_copies(&mut self, now: Instant) -> bool {
        let mut any = false;
        while self.backup.turns < DELTAS_AT_ONCE
            && let Some(handle) = self.backup.dirty.pop_front()
        {
            self.backup.turns += 1;
            any |= self.update_copy(handle, now);
        }
        any
    }

    /// Nothing is left to be done but what waits for its turn. Whether that is anything.
    pub(in crate::node) fn end_of_turns(&mut self) -> bool {
        self.backup.turns = 0;
        self.backup.agreed.go_on() || !self.backup.dirty.is_empty()
    }

    fn update_copy(&mut self, handle: Handle, now: Instant) -> bool {
        let Some(tcb) = self.tcp.get(handle) else { return false };
        let Some(owned) = self.owned.get_mut(handle) else { return false };
        let Some(guard) = owned.guard.as_mut() else { return false };
        guard.queued = false;
        if guard.is_alone() || tcb.state.is_closed() {
            return false;
        }
        match guard.change(tcb) {
            _ if guard.due => {}
            Change::Nothing => return false,
            Change::Small => {
                if !core::mem::replace(&mut guard.late, true) {
                    self.backup.late.push_back((now + SMALL_CHANGES, handle));
                }
                return false;
            }
            Change::Great => {}
        }
        guard.behind.get_or_insert(now);
        if !guard.is_free() {
            // It goes on when a version is confirmed.
            return false;
        }
        self.send_delta(handle, now)
    }

    fn send_delta(&mut self, handle: Handle, now: Instant) -> bool {
        let Some(tcb) = self.tcp.get(handle) else { return false };
        let Some(owned) = self.owned.get(handle) else { return false };
        let (flow, epoch) = (tcb.flow, owned.epoch);
        let client = self.known_of_client(owned, *flow.remote.ip(), now);
        let snapshot = self.snapshot(owned, tcb.frozen_copy(now), epoch, client, now);
        let Some(guard) = self.owned.get_mut(handle).and_then(|owned| owned.guard.as_mut()) else {
            return false;
        };
        if guard.client.as_ref().is_none_or(|(_, at)| at.since(now) >= CLIENT_KNOWN) {
            guard.client = Some((snapshot.client.clone(), now));
        }
        let delta = guard.mirror.delta(snapshot).pieces();
        let version = guard.mirror.version();
        let Ok(delta) = delta else {
            self.unguard(handle, now);
            return true;
        };
        if let Some(tcb) = self.tcp.get(handle) {
            guard.note_sent(tcb, now);
        }
        if let Some(at) = guard.arm(now) {
            self.backup.overdue.insert((at, handle));
        }
        self.backup.stamp = self.backup.stamp.max(version).max(self.backup.stamp + 1);
        let holders: Vec<_> = guard.holders.iter().map(|holder| holder.node).collect();
        self.backup.counts.deltas += 1;
        self.backup.counts.delta_octets += (delta.len() * holders.len()) as u64;
        let message = Message::Copy { flow, epoch, version, holders: holders.clone(), delta };
        for node in holders {
            if self.peers.is_up(node) {
                self.tell(node, &message);
            }
        }
        true
    }

    /// What is known of a client's mobility, for a copy. It is looked at once a second, because its times always change.
    fn known_of_client(&self, owned: &Owned, client: Ipv6Addr, now: Instant) -> Bytes {
        let known = owned.guard.as_ref().and_then(|guard| guard.client.as_ref());
        match known.filter(|(_, at)| at.since(now) < CLIENT_KNOWN) {
            Some((known, _)) => known.clone(),
            None if self.mobility.is_aware(client) => self.mobility.known(client, now),
            None => Bytes::new(),
        }
    }

    /// A node has brought its copy to this version.
    pub(in crate::node) fn copied(
        &mut self,
        from: NodeId,
        flow: Flow,
        epoch: Epoch,
        version: u64,
        now: Instant,
    ) {
        let Some(handle) = self.guarded(&flow, epoch) else { return };
        let Some(guard) = self.owned.get_mut(handle).and_then(|owned| owned.guard.as_mut()) else { return };
        if guard.holders.iter().all(|holder| holder.node != from) {
            // What it was told has overtaken that it need not hold a copy any more.
            let iss = guard.iss;
            return self.discard_at(from, flow, iss, epoch, now);
        }
        let (was, complete) = (guard.is_protected(), guard.is_complete());
        let news = guard.copied(from, version);
        if !was && guard.is_protected() {
            self.protected(handle, now);
        }
        if let Some(point) = news {
            self.let_out(handle, point);
        }
        let Some(guard) = self.owned.get_mut(handle).and_then(|owned| owned.guard.as_mut()) else { return };
        if !complete && guard.is_complete() {
            self.caught_up(handle, now);
        }
        let guard = self.owned.get(handle).and_then(|owned| owned.guard.as_ref());
        if guard.is_some_and(|guard| guard.behind.is_some() && guard.is_free()) {
            self.changed(handle);
        }
    }

    fn guarded(&self, flow: &Flow, epoch: Epoch) -> Option<Handle> {
        let handle = self.tcp.find(flow)?;
        self.owned.get(handle).filter(|owned| owned.epoch == epoch && owned.guard.is_some())?;
        Some(handle)
    }

    /// The client may see what all who hold copies have.
    fn let_out(&mut self, handle: Handle, point: Point) {
        self.tcp.with(handle, |tcb| tcb.release(point));
    }

    /// The first copy of a connection is there: from now on nothing gets ahead of it.
    fn protected(&mut self, handle: Handle, now: Instant) {
        let Some(&Tcb { flow, .. }) = self.tcp.get(handle) else { return };
        if let Some((_, Some(commit))) = self.protection(&flow) {
            self.tcp.with(handle, |tcb| tcb.hold(commit));
        }
        self.trace(TraceEvent::Protected { client: flow.remote, port: flow.local.port() }, now);
    }

    /// All who are to have a copy have one: others need theirs no longer, and who gave the connection is told.
    fn caught_up(&mut self, handle: Handle, now: Instant) {
        let Some(&Tcb { flow, .. }) = self.tcp.get(handle) else { return };
        let Some(owned) = self.owned.get_mut(handle) else { return };
        let epoch = owned.epoch;
        let Some(guard) = owned.guard.as_mut() else { return };
        let iss = guard.iss;
        let mut useless = guard.relieved();
        useless.extend(core::mem::take(&mut guard.former));
        let holds = |node: &NodeId| guard.holders.iter().any(|holder| holder.node == *node);
        useless.retain(|node| !holds(node));
        let unconfirmed = core::mem::take(&mut guard.unconfirmed);
        let news = guard.settle();
        if let Some(point) = news {
            self.let_out(handle, point);
        }
        for node in useless {
            self.discard_at(node, flow, iss, epoch, now);
        }
        if unconfirmed {
            self.handoffs.confirm(&flow);
        }
    }

    /// A node lacks what a delta builds on.
    pub(in crate::node) fn lacks(&mut self, flow: Flow, epoch: Epoch, version: u64) {
        let Some(handle) = self.guarded(&flow, epoch) else { return };
        let guard = self.owned.get_mut(handle).and_then(|owned| owned.guard.as_mut());
        if guard.is_some_and(|guard| {
            guard.mirror.lacks(version) && {
                guard.due = true;
                true
            }
        }) {
            self.changed(handle);
        }
    }

    /// A node holds no copy of a connection: as it was told, or because it will not.
    pub(in crate::node) fn discarded(
        &mut self,
        from: NodeId,
        flow: Flow,
        iss: Seq,
        epoch: Epoch,
        now: Instant,
    ) {
        self.backup.discards.confirmed(from, &flow, iss, epoch);
        let Some(handle) = self.guarded(&flow, epoch) else { return };
        let Some(guard) = self.owned.get_mut(handle).and_then(|owned| owned.guard.as_mut()) else { return };
        let Some(holder) = guard.holders.iter_mut().find(|holder| holder.node == from) else { return };
        if core::mem::take(&mut holder.has) > 0 || core::mem::take(&mut holder.forgets) {
            // What it was told to forget earlier may have overtaken what it got since.
            guard.begin_anew();
            return self.changed(handle);
        }
        guard.holders.retain(|holder| holder.node != from);
        guard.refused.insert(from, now + REFUSED);
        self.backup.overdue.insert((now + REFUSED, handle));
        // If it does hold one after all, it is of no use.
        self.discard_at(from, flow, iss, epoch, now);
        self.choose_backups(handle, now);
    }

    /// Small changes have waited long enough.
    pub(super) fn small_changes_due(&mut self, handle: Handle) {
        let Some(guard) = self.owned.get_mut(handle).and_then(|owned| owned.guard.as_mut()) else { return };
        guard.late = false;
        if self.tcp.get(handle).is_some_and(|tcb| guard.change(tcb) != Change::Nothing) {
            guard.due = true;
            self.changed(handle);
        }
    }

    /// The time has come to look whether a version was confirmed.
    pub(super) fn version_overdue(&mut self, handle: Handle, now: Instant) {
        let Some(guard) = self.owned.get_mut(handle).and_then(|owned| owned.guard.as_mut()) else { return };
        let before = guard.refused.len();
        guard.refused.retain(|_, until| *until > now);
        if guard.refused.len() < before {
            self.choose_backups(handle, now);
        }
        let Some(guard) = self.owned.get_mut(handle).and_then(|owned| owned.guard.as_mut()) else { return };
        match guard.overdue(now) {
            Some(at) => drop(self.backup.overdue.insert((at, handle))),
            None if guard.due => self.changed(handle),
            None => {}
        }
    }

    /// Nodes have come or gone: every connection gets the backups that are best now.
    pub(in crate::node) fn choose_backups_anew(&mut self, now: Instant) {
        let handles: Vec<_> =
            self.owned.iter().filter(|(_, owned)| owned.guard.is_some()).map(|(h, _)| h).collect();
        for handle in handles {
            self.choose_backups(handle, now);
        }
    }

    /// The nodes that should hold a copy of a connection. Who is out of reach for a short time keeps its place.
    fn wanted(&self, guard: &Guard, flow: &Flow, replicas: usize) -> Vec<NodeId> {
        let holders = guard.holders.iter().map(|holder| holder.node);
        let kept = holders.filter(|node| self.backup.absent.contains_key(node));
        let able = |node: &NodeId| !guard.refused.contains_key(node) && self.may_own(*node, flow);
        choose(&self.backup.key, flow, self.peers.reachable().filter(able).chain(kept), replicas)
    }

    fn choose_backups(&mut self, handle: Handle, now: Instant) {
        let Some(&Tcb { flow, .. }) = self.tcp.get(handle) else { return };
        let Some((replicas, commit)) = self.protection(&flow) else { return };
        let Some(guard) = self.owned.get(handle).and_then(|owned| owned.guard.as_ref()) else { return };
        let wanted = self.wanted(guard, &flow, replicas);
        let absent = &self.backup.absent;
        let Some(owned) = self.owned.get_mut(handle) else { return };
        let epoch = owned.epoch;
        let Some(guard) = owned.guard.as_mut() else { return };
        let iss = guard.iss;
        let here = |node: NodeId| self.peers.is_up(node) || absent.contains_key(&node);
        let gone: Vec<_> =
            guard.holders.iter().map(|holder| holder.node).filter(|node| !here(*node)).collect();
        guard.holders.retain(|holder| here(holder.node));
        for holder in &mut guard.holders {
            holder.leaves = !wanted.contains(&holder.node);
        }
        let new = wanted.into_iter().filter(|node| self.peers.is_up(*node));
        let new: Vec<_> =
            new.filter(|node| guard.holders.iter().all(|holder| holder.node != *node)).collect();
        for node in &new {
            guard.former.remove(node);
            let forgets = self.backup.discards.cancel(*node, &flow);
            guard.holders.push(Holder { node: *node, has: 0, leaves: false, forgets });
        }
        if !new.is_empty() {
            guard.begin_anew();
        }
        let (alone, due, news) = (guard.is_alone(), guard.due, guard.settle());
        for node in gone {
            self.discard_at(node, flow, iss, epoch, now);
        }
        if alone {
            return self.unprotected(handle, now);
        }
        if let Some(point) = news {
            self.let_out(handle, point);
        }
        let is_new = self.tcp.get(handle).is_some_and(|tcb| tcb.held.is_none() && tcb.snd.una == tcb.snd.iss);
        if let Some(commit) = commit.filter(|_| is_new) {
            self.tcp.with(handle, |tcb| tcb.hold(commit));
        }
        self.caught_up_if_complete(handle, now);
        if due {
            self.changed(handle);
        }
    }

    pub(super) fn caught_up_if_complete(&mut self, handle: Handle, now: Instant) {
        let guard = self.owned.get(handle).and_then(|owned| owned.guard.as_ref());
        if guard.is_some_and(|guard| guard.is_complete()) {
            self.caught_up(handle, now);
        }
    }

    /// There is nobody who could hold a copy: the connection goes on without.
    fn unprotected(&mut self, handle: Handle, now: Instant) {
        if let Some(guard) = self.owned.get_mut(handle).and_then(|owned| owned.guard.as_mut()) {
            guard.forget_pending();
        }
        self.tcp.with(handle, Tcb::unhold);
        self.caught_up(handle, now);
    }

    /// A connection that cannot be copied goes on without.
    fn unguard(&mut self, handle: Handle, now: Instant) {
        let Some(&Tcb { flow, .. }) = self.tcp.get(handle) else { return };
        let Some(owned) = self.owned.get_mut(handle) else { return };
        let epoch = owned.epoch;
        if let Some(guard) = owned.guard.take() {
            self.discard_all(*guard, flow, epoch, now);
        }
        self.tcp.with(handle, Tcb::unhold);
    }

    /// A connection is not owned here any more, or is over: so are its copies.
    pub(in crate::node) fn discard_copies(&mut self, owned: &mut Owned, flow: Flow, now: Instant) {
        if let Some(guard) = owned.guard.take() {
            self.discard_all(*guard, flow, owned.epoch, now);
        }
    }

    fn discard_all(&mut self, guard: Guard, flow: Flow, epoch: Epoch, now: Instant) {
        let holders = guard.holders.iter().map(|holder| holder.node).chain(guard.former);
        for node in holders.collect::<BTreeSet<_>>() {
            self.discard_at(node, flow, guard.iss, epoch, now);
        }
        if guard.unconfirmed {
            self.handoffs.confirm(&flow);
        }
    }

    /// A connection is about to leave for a node that holds a copy of it: what that has is not sent again.
    pub(in crate::node) fn build_on_copy(&mut self, handle: Handle, flow: &Flow, to: NodeId) {
        let guard = self.owned.get(handle).and_then(|owned| owned.guard.as_ref());
        if let Some(guard) = guard
            && guard.holders.iter().any(|holder| holder.node == to && holder.has > 0)
        {
            self.handoffs.builds_on(flow, &guard.mirror);
        }
    }

    /// A connection is on its way to another node: its copies stay until that has its own.
    pub(in crate::node) fn leave_copies(&mut self, guard: Option<Box<Guard>>, flow: Flow, epoch: Epoch) {
        let Some(guard) = guard else { return };
        let holders = guard.holders.iter().map(|holder| holder.node).chain(guard.former).collect();
        self.backup.leaving.insert(flow, Left { iss: guard.iss, epoch, holders });
    }

    /// Another node has it, and copies of its own: those that were left behind are of no use any more.
    pub(in crate::node) fn discard_left(&mut self, flow: &Flow, now: Instant) {
        if let Some(Left { iss, epoch, holders }) = self.backup.leaving.remove(flow) {
            for node in holders {
                self.discard_at(node, *flow, iss, epoch, now);
            }
        }
    }

    /// It has come back: who holds copies that are older now.
    pub(in crate::node) fn take_left(&mut self, flow: &Flow) -> BTreeSet<NodeId> {
        self.backup.leaving.remove(flow).map(|left| left.holders).unwrap_or_default()
    }
}
