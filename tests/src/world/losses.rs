//! What a death excuses, and nothing else.
//!
//! A connection is held by its owner, and, from the freeze until the acceptor has said that it was taken, by its donor,
//! whose snapshot is as good as the owner's state as long as the client has seen nothing that came after it. When nobody
//! holds it any more it need not come to its end, unless a node owns it again: a transfer that was under way has
//! arrived, what said that it was taken has not, or a client has repeated its SYN.

use std::collections::{BTreeMap, BTreeSet};

use ferry_handoff::Message;

use super::group::service_at;
use super::{Body, World};
use crate::owners::Client;
use crate::tamper::one_by_one;

/// What the client may have seen: how far its server has sent, and what it has acknowledged.
pub(super) type Seen = Option<(u32, Option<u32>)>;

/// Why a connection need not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Excuse {
    /// Nobody holds it.
    Nobody,
    /// All that is left of it is older than what the client has seen.
    Stale,
}

/// What has died.
#[derive(Debug, Default)]
pub(super) struct Losses {
    /// What the client had seen when a connection was frozen, by the epoch that it was given away under.
    frozen: BTreeMap<(Client, u64), Seen>,
    /// What an acceptor has said to have taken, by the epoch.
    taken: BTreeSet<(Client, u64)>,
    excused: BTreeMap<Client, Excuse>,
}

impl World {
    pub(super) fn seen_of(&self, (client, port): Client) -> Seen {
        self.watch.progress(service_at(port), client)
    }

    /// A client has opened another connection from the same port: what was known of the last counts no more.
    pub(super) fn opened_anew(&mut self, client: Client) {
        self.losses.frozen.retain(|(of, _), _| *of != client);
        self.losses.taken.retain(|(of, _)| *of != client);
        self.losses.excused.remove(&client);
        self.watch.lost.remove(&(service_at(client.1), client.0));
    }

    pub(super) fn note_frozen(&mut self, client: Client, epoch: u64) {
        let seen = self.seen_of(client);
        self.losses.frozen.insert((client, epoch), seen);
    }

    /// A node says something to another.
    pub(super) fn note_said(&mut self, octets: &bytes::Bytes) {
        for one in one_by_one(octets) {
            if let Ok(Message::Taken { flow, epoch }) = Message::decode(&one) {
                self.losses.taken.insert(((flow.remote, flow.local.port()), epoch.count));
            }
        }
    }

    /// The greatest epoch under which a living node has given a connection away that nobody has said to have taken.
    fn committed_at(&self, nth: usize) -> Vec<(Client, u64)> {
        let Body::Node(member) = &self.places[nth].body else { return Vec::new() };
        let committed = member.node.committed();
        committed.map(|(flow, epoch)| ((flow.remote, flow.local.port()), epoch.count)).collect()
    }

    /// A node is about to die.
    pub(super) fn excuse_what_dies_with(&mut self, nth: usize) {
        // It may die before what it has just done was looked at.
        self.a_connection_has_at_most_one_owner(nth);
        let mut held = self.group.owners.died(nth);
        held.extend(self.committed_at(nth).into_iter().map(|(client, _)| client));
        let owned: Vec<_> = self.group.owners.all().map(|(client, _)| client).collect();
        let elsewhere: Vec<_> =
            self.others(nth).into_iter().flat_map(|other| self.committed_at(other)).collect();
        for client in held.into_iter().filter(|client| !owned.contains(client)) {
            let snapshot = elsewhere.iter().filter(|(of, _)| *of == client).map(|(_, epoch)| *epoch).max();
            let seen = |epoch| self.losses.frozen.get(&(client, epoch)).copied().flatten();
            match snapshot {
                None => self.excuse(client, Excuse::Nobody),
                Some(epoch) if seen(epoch) != self.seen_of(client) => self.excuse(client, Excuse::Stale),
                Some(epoch) if self.losses.taken.contains(&(client, epoch)) => {
                    self.excuse(client, Excuse::Nobody);
                }
                Some(_) => {}
            }
        }
    }

    /// The connections that clients have begun and that have not come to their end.
    pub(super) fn begun(&self) -> Vec<Client> {
        let over = |nth: usize, talk: usize| match &self.places[nth].body {
            Body::Host(machine) => machine.talks[talk].is_over() || machine.talks[talk].excused,
            _ => true,
        };
        let begun = self.talks.iter().filter(|(_, (nth, talk))| !over(*nth, *talk));
        begun.map(|((client, server), _)| (*client, server.port())).collect()
    }

    pub(super) fn excuse_as_stale(&mut self, client: Client) {
        self.excuse(client, Excuse::Stale);
    }

    /// How many connections need not come to their end.
    pub fn excused(&self) -> usize {
        self.losses.excused.len()
    }

    fn excuse(&mut self, client: Client, excuse: Excuse) {
        self.say(|| format!("{client:?} is excused: {excuse:?}"));
        self.losses.excused.insert(client, excuse);
        self.set_excused(client, true);
        if excuse == Excuse::Stale {
            self.watch.lost.insert((service_at(client.1), client.0));
        }
    }

    /// A node owns an established connection.
    pub(super) fn withdraw_excuse(&mut self, client: Client) {
        if self.losses.excused.get(&client) == Some(&Excuse::Nobody) {
            self.say(|| format!("{client:?} is not excused any more"));
            self.losses.excused.remove(&client);
            self.set_excused(client, false);
        }
    }

    fn set_excused(&mut self, (client, port): Client, excused: bool) {
        let Some(&(nth, talk)) = self.talks.get(&(client, service_at(port))) else { return };
        if let Body::Host(machine) = &mut self.places[nth].body {
            machine.talks[talk].excused = excused;
        }
    }

    /// Clients that have octets under way on a connection that nobody holds.
    pub fn lost_and_unanswered(&self) -> Vec<Client> {
        let hosts = self.places.iter().filter_map(|place| match &place.body {
            Body::Host(machine) => Some(machine),
            _ => None,
        });
        let waiting = hosts.flat_map(|machine| machine.stack.tcbs(self.now)).map(|(tcb, _)| tcb);
        let waiting = waiting.filter(|tcb| !tcb.snd.sent.is_empty());
        let clients = waiting.map(|tcb| (tcb.flow.local, tcb.flow.remote.port()));
        clients.filter(|client| self.losses.excused.contains_key(client)).collect()
    }

    /// Whether any connection need not come to its end.
    pub fn has_losses(&self) -> bool {
        !self.losses.excused.is_empty()
    }

    /// Clients give up what has died and hangs.
    pub fn give_up_what_is_lost(&mut self) {
        let now = self.now;
        for nth in 0..self.places.len() {
            if let Body::Host(machine) = &mut self.places[nth].body {
                let lost = |at: &usize| machine.talks[*at].excused;
                let lost: Vec<_> = (0..machine.talks.len()).filter(lost).collect();
                for talk in lost {
                    machine.give_up(talk, now);
                }
                self.settle(nth);
            }
        }
    }
}
