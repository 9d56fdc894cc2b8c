//! What is to be written to etcd next.

use std::collections::BTreeSet;

use ferry_handoff::NodeId;
use ferry_stack::Instant;

use super::Etcd;
use super::cells::{CONTACT, Present, Record, Role, Vote, life_key, node_key, put, vote_key};
use super::member::Member;
use crate::io::{Guard, Put};

/// What a commit is for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// Our life goes under our lease. Whatever builds on the former registration is void, what we have sent ourselves too.
    Register {
        lease: i64,
        /// Former lives of nodes that cannot have acted against us after that.
        settles: BTreeSet<NodeId>,
    },
    /// A proof is put on record.
    Record,
    /// A vote, or with enough of them the end.
    Against(NodeId),
    /// The contact node.
    Appoint,
}

impl Purpose {
    pub(super) fn is_against(&self, node: NodeId) -> bool {
        self.against() == Some(node)
    }

    pub(super) fn against(&self) -> Option<NodeId> {
        match self {
            Self::Against(node) => Some(*node),
            Self::Register { .. } | Self::Record | Self::Appoint => None,
        }
    }
}

pub(super) struct Commit {
    pub(super) purpose: Purpose,
    pub(super) guards: Vec<Guard>,
    pub(super) puts: Vec<Put>,
    pub(super) deletes: Vec<String>,
}

impl Etcd {
    pub(super) fn next_commit(&self, now: Instant) -> Option<Commit> {
        if let Some(register) = self.register() {
            return Some(register);
        }
        // Without a registration of our own we say nothing of others.
        let lease = self.requests.lease()?;
        self.vouched_until().filter(|until| *until > now)?;
        let each = || self.members.iter();
        each()
            .find_map(|(_, member)| self.record_proof(member))
            .or_else(|| each().find_map(|(node, member)| self.act(*node, member, lease, now)))
            .or_else(|| self.appoint_next())
    }

    /// If we have a lease and are not registered under it, or if it must be sure that nothing that was sent earlier is done.
    fn register(&self) -> Option<Commit> {
        let open = self.members.iter().filter(|(_, member)| member.unsettled);
        let settles: BTreeSet<_> = open.map(|(node, _)| *node).collect();
        let again = self.requests.is_in_doubt() || !settles.is_empty();
        let lease = self.requests.unused_lease().or(self.requests.lease().filter(|_| again))?;
        let (node, record) = (node_key(&self.name), life_key(&self.name));
        let life = self.life;
        Some(Commit {
            purpose: Purpose::Register { lease, settles },
            guards: vec![self.cells.guard(node.clone()), self.cells.guard(record.clone())],
            puts: vec![
                put(node, &Present { life }, Some(lease)),
                put(record, &Record { life, dead: false, gone: false }, None),
            ],
            deletes: Vec::new(),
        })
    }

    /// A life that is over and stands as living.
    fn record_proof(&self, member: &Member) -> Option<Commit> {
        let record = self.cells.record(&member.name)?;
        let life = record.life;
        if record.dead || !member.has_ended(life) {
            return None;
        }
        let (node, record) = (node_key(&member.name), life_key(&member.name));
        let gone = self.cells.present(&member.name) == Some(life);
        Some(Commit {
            purpose: Purpose::Record,
            guards: vec![self.cells.guard(node.clone()), self.cells.guard(record.clone())],
            puts: vec![put(record, &Record { life, dead: true, gone: true }, None)],
            deletes: if gone { vec![node] } else { Vec::new() },
        })
    }

    /// Acts against who has been silent for long enough, and is not registered any more.
    fn act(&self, node: NodeId, member: &Member, lease: i64, now: Instant) -> Option<Commit> {
        let record = self.cells.record(&member.name).filter(|record| !record.dead)?;
        let promised = member.heard.since(now) < self.promise() || self.began.since(now) < self.promise();
        let ours = member.link == Some(record.life) && member.knows_us;
        if promised || !ours || self.cells.is_registered(&member.name) {
            return None;
        }
        let life_at = life_key(&member.name);
        let revision = self.cells.revision_of(&life_at);
        let own = node_key(&self.name);
        let nodes = [node_key(&member.name), life_at.clone(), own];
        let mut guards: Vec<_> = nodes.into_iter().map(|key| self.cells.guard(key)).collect();
        let with_us = self.others_against(node, member, revision, now);
        if with_us.len() + 1 >= self.quorum() {
            guards.extend(with_us.into_iter().flatten());
            let dead = Record { life: record.life, dead: true, gone: false };
            let puts = vec![put(life_at, &dead, None)];
            return Some(Commit { purpose: Purpose::Against(node), guards, puts, deletes: Vec::new() });
        }
        let vote = Vote { record: revision, by: self.life };
        let at = vote_key(&member.name, &self.name);
        if self.cells.vote(&member.name, &self.name).as_ref() == Some(&vote) {
            return None;
        }
        let puts = vec![put(at, &vote, Some(lease))];
        Some(Commit { purpose: Purpose::Against(node), guards, puts, deletes: Vec::new() })
    }

    /// Who else acts against it: of each, what must not change. Those do whose process has ended, when what they have promised
    /// has run out; others that are dead may not know it, and promise still.
    fn others_against(&self, node: NodeId, of: &Member, revision: i64, now: Instant) -> Vec<Vec<Guard>> {
        let others = self.members.iter().filter(|(other, _)| **other != node);
        let against = |(_, other): (&NodeId, &Member)| {
            let record = self.cells.record(&other.name)?;
            let known = self.cells.guard(life_key(&other.name));
            if record.dead {
                let long =
                    record.gone && other.recorded.is_some_and(|since| since.since(now) >= self.promise());
                return long.then(|| vec![known]);
            }
            let vote = self.cells.vote(&of.name, &other.name)?;
            let counts = vote.record == revision && vote.by == record.life;
            counts.then(|| vec![known, self.cells.guard(vote_key(&of.name, &other.name))])
        };
        others.filter_map(against).collect()
    }

    /// From now on nothing of it is acknowledged.
    pub(super) fn act_against(&mut self, node: NodeId) {
        let Some(member) = self.members.get_mut(&node) else { return };
        member.against = Some(self.cells.revision_of(&life_key(&member.name)));
        member.suspected = true;
    }

    /// Who the contact node is, if nobody has said so yet, and who is to be.
    fn appoint_next(&self) -> Option<Commit> {
        let known = self.cells.role();
        let reachable = |node: NodeId| {
            node == self.id || self.members.get(&node).is_some_and(|member| member.up && !member.is_dead())
        };
        let (node, term) = match (known, self.wanted) {
            (_, Some((node, term))) if reachable(node) => (node, term.max(self.role.1.saturating_add(1))),
            (None, _) => self.role,
            _ => return None,
        };
        let name = if node == self.id { &self.name } else { &self.members.get(&node)?.name };
        Some(Commit {
            purpose: Purpose::Appoint,
            guards: vec![self.cells.guard(CONTACT.to_owned()), self.cells.guard(node_key(&self.name))],
            puts: vec![put(CONTACT.to_owned(), &Role { node: name.clone(), term }, None)],
            deletes: Vec::new(),
        })
    }
}
