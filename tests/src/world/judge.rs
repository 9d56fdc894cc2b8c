//! What must hold after every event.

use core::net::SocketAddrV6;
use core::time::Duration;

use ferry_stack::tcp::{Flow, State, Tcb};

use super::{Body, World};
use crate::invariants;

/// Longer than TIME-WAIT and than a node remembers a handoff.
const A_LONG_TIME: Duration = Duration::from_mins(8);

impl World {
    /// Checks all that concerns a machine to which something has just happened.
    pub(super) fn check(&mut self, nth: usize) {
        self.every_control_block_is_well(nth);
        if let Body::Node(_) = self.places[nth].body {
            self.a_connection_has_at_most_one_owner(nth);
            if !self.light {
                self.a_snapshot_is_read_back_as_it_was_written(nth);
            }
        }
        let sent = self.watch.resets.len();
        let unjudged = core::mem::replace(&mut self.judged, sent)..sent;
        // A host is a single server.
        if let Body::Node(_) = self.places[nth].body {
            for reset in &self.watch.resets[unjudged] {
                self.no_reset_that_a_single_server_would_not_send(nth, reset.from, reset.to);
            }
        }
    }

    fn every_control_block_is_well(&self, nth: usize) {
        let place = &self.places[nth];
        let tcbs: Vec<_> = match &place.body {
            Body::Host(machine) => machine.stack.tcbs(self.now),
            // Without a lease its connections stand still, with whatever has come due.
            Body::Node(member) if member.serves(self.now) => {
                member.node.control_blocks().map(|tcb| (tcb, member.clock(self.now))).collect()
            }
            Body::Node(_) | Body::Agent(_) | Body::Gone => Vec::new(),
        };
        for (tcb, clock) in tcbs {
            self.say(|| format!("    {}: {}", place.name, invariants::describe(tcb)));
            let judged =
                if self.light { invariants::hold_lightly(tcb) } else { invariants::hold(tcb, clock) };
            if let Err(sentence) = judged {
                panic!("{sentence}: {} at {}: {}", place.name, self.now, invariants::describe(tcb));
            }
        }
    }

    pub(super) fn a_connection_has_at_most_one_owner(&mut self, nth: usize) {
        let Body::Node(member) = &self.places[nth].body else { return };
        let serves = member.serves(self.now);
        let owned = member.node.connections();
        if self.protection.is_on() {
            self.look_who_serves();
        }
        if let Err(sentence) = self.group.owners.own(nth, &owned, serves) {
            panic!("{sentence}: {} at {}", self.places[nth].name, self.now);
        }
        if self.has_losses() {
            for connection in owned.iter().filter(|connection| connection.state != "SYN-RECEIVED") {
                self.withdraw_excuse((connection.client, connection.port));
            }
        }
    }

    /// Who may not serve owns nothing, as far as others and clients can tell.
    fn look_who_serves(&mut self) {
        for place in self.group.members() {
            if let Body::Node(member) = &self.places[place].body
                && !member.serves(self.now)
            {
                self.group.owners.rests(place);
            }
        }
    }

    fn a_snapshot_is_read_back_as_it_was_written(&self, nth: usize) {
        let Body::Node(member) = &self.places[nth].body else { return };
        for snapshot in member.node.snapshots(member.clock(self.now)) {
            if invariants::is_heavy(&snapshot.tcb) {
                continue;
            }
            let octets = snapshot.encode().expect("a connection fits a snapshot");
            let back = ferry_handoff::Snapshot::decode(&octets);
            assert!(
                back.as_ref() == Ok(&snapshot),
                "a snapshot is read back as it was written: {snapshot:?}"
            );
        }
    }

    /// Lets enough time pass for TIME-WAIT and for every memory of handoffs, and panics if a node still holds anything.
    /// If links between nodes lose or double messages, or nodes are dead for good, the contact node may not have heard
    /// that a connection is over.
    pub fn everything_is_forgotten_in_the_end(&mut self) {
        self.run_for(A_LONG_TIME);
        let whole = self.group.members().into_iter().all(|nth| self.is_alive(nth));
        let reliable = self.group.faults() == 0 && whole;
        for place in &self.places {
            let Body::Node(member) = &place.body else { continue };
            let status = member.node.status(member.clock(self.now));
            let relayed = if status.contact && !reliable { 0 } else { status.relayed };
            assert!(
                (status.connections, relayed, status.moving) == (0, 0, 0),
                "everything is forgotten in the end: {status:?}{}",
                self.unfinished()
            );
        }
    }

    fn is_half_open(&self, local: SocketAddrV6, remote: SocketAddrV6) -> bool {
        let half_open = |tcb: &&Tcb| tcb.flow == Flow { local, remote } && tcb.state == State::SynReceived;
        self.places.iter().any(|place| match &place.body {
            Body::Node(member) => member.node.control_blocks().any(|tcb| half_open(&tcb)),
            Body::Host(machine) => machine.stack.tcbs(self.now).iter().any(|(tcb, _)| half_open(tcb)),
            Body::Agent(_) | Body::Gone => false,
        })
    }

    /// A group resets only what its client has given up. A single server answers late duplicates with a RST, once both
    /// sides have finished.
    fn no_reset_that_a_single_server_would_not_send(&self, by: usize, from: SocketAddrV6, to: SocketAddrV6) {
        let single = matches!(self.places[by].body, Body::Host(_));
        let Some(&(nth, talk)) = self.talks.get(&(to, from)) else { return };
        let Body::Host(machine) = &self.places[nth].body else { return };
        let talk = &machine.talks[talk];
        let settled = talk.connection.is_some_and(|connection| machine.stack.is_settled(connection));
        let finished = talk.is_over() || settled;
        // An old duplicate of the SYN has opened a connection that the client knows nothing of (RFC 9293 section
        // 3.5.1, figure 9): any server takes it back so.
        let duplicate = self.is_half_open(from, to);
        assert!(
            talk.is_given_up() || talk.excused || duplicate || (single && finished),
            "no reset that a single server would not send: {from} > {to} at {}, {talk:?}",
            self.now
        );
    }
}
