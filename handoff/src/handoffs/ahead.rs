//! Copies that go ahead of a connection, so that little is left to bring when it stands still.

use ferry_stack::Instant;
use ferry_stack::tcp::{Flow, Tcb};

use super::{Handoffs, Timer};
use crate::donor::{Ahead, Failure, Offer};
use crate::{Copy, Delta, Epoch, Message, Mirror, NodeId, Pieces, Refusal, Refused, Snapshot, Unfit};

/// Octets that may have come ahead of all connections together. Beyond it they come in one piece.
const MAX_COPIED: u64 = 64 << 20;

impl Handoffs {
    /// Donor: the acceptor holds a copy of the connection for another reason, as this mirror has it.
    pub fn builds_on(&mut self, flow: &Flow, mirror: &Mirror) {
        if let Some(ahead) = self.donors.get_mut(flow).and_then(|(donor, _)| donor.ahead()) {
            *ahead = Some(Ahead::on(mirror.clone()).into());
        }
    }

    /// Donor: whether a copy is to go ahead of the connection before it is taken out.
    pub fn sends_ahead(&self, tcb: &Tcb) -> bool {
        self.donors.get(&tcb.flow).is_some_and(|(donor, _)| donor.sends_ahead(tcb))
    }

    /// Donor: what the connection is like now, while it runs on, under the acceptor's epoch.
    pub fn copied_out(&mut self, snapshot: Snapshot, now: Instant) {
        let flow = snapshot.tcb.flow;
        let Some((offer, Some(delta))) = self.with_donor(flow, |donor, _| donor.copy(snapshot, now)) else {
            return;
        };
        let Ok(octets) = delta.pieces() else { return self.give_up(flow, offer, Failure::TooLarge) };
        let Offer { to, epoch } = offer;
        let (version, holders) = (delta.version.number, alloc::vec::Vec::new());
        self.send(to, Message::Copy { flow, epoch, version, holders, delta: octets });
    }

    /// Whether this is the answer to a copy that went ahead, rather than to one that is to stay.
    pub fn awaits(&self, from: NodeId, flow: &Flow, epoch: Epoch) -> bool {
        self.donors.get(flow).is_some_and(|(donor, _)| donor.offer() == Offer { to: from, epoch })
    }

    /// Acceptor: octets of payload that are here ahead of their connections.
    pub fn copied(&self) -> u64 {
        self.copied
    }

    /// Acceptor: a copy has come ahead of a connection. Without a reservation it is late, and of no use.
    pub(super) fn copy(
        &mut self,
        from: NodeId,
        flow: Flow,
        epoch: Epoch,
        octets: &Pieces,
        known: Option<&Copy>,
        now: Instant,
    ) {
        let Some(reserved) = self.reservations.get_mut(&flow) else { return };
        if (reserved.from, reserved.epoch) != (from, epoch) {
            return;
        }
        if reserved.extend(now) {
            self.reminders.add(Timer::Reservation(flow), reserved.until);
        }
        let Ok(delta) = Delta::decode_pieces(octets) else { return };
        if delta.tcb().flow != flow || delta.version.epoch != epoch {
            return;
        }
        let number = delta.version.number;
        let held = reserved.copy.take();
        self.copied -= held.as_ref().map_or(0, |copy| copy.len());
        let mut copy = held.unwrap_or_else(|| known.cloned().unwrap_or_default().into());
        let answer = match copy.apply(delta) {
            Ok(_) if self.copied + copy.len() > MAX_COPIED => {
                Message::Lacks { flow, epoch, version: number, have: 0 }
            }
            Ok(version) => {
                self.copied += copy.len();
                reserved.copy = Some(copy);
                Message::Copied { flow, epoch, version: version.number }
            }
            Err(Unfit::Lacks { have }) => Message::Lacks { flow, epoch, version: number, have: have.number },
            // It comes again, or in one piece.
            Err(Unfit::Refused(_)) => return,
        };
        self.send(from, answer);
    }

    /// Acceptor: the connection that a transfer brings, with the copy that it builds on; or the number of the one that
    /// is here instead.
    pub(super) fn complete(
        &mut self,
        from: NodeId,
        flow: Flow,
        epoch: Epoch,
        delta: Delta,
        known: Option<&Copy>,
    ) -> Result<Result<Snapshot, Refusal>, u64> {
        let wanted = delta.version;
        let mut copy = self.base_of(from, flow, &delta, known);
        let snapshot = match copy.apply(delta) {
            Err(Unfit::Lacks { have }) => return Err(have.number),
            Err(Unfit::Refused(why)) => Err(why),
            Ok(version) if version == wanted => copy.into_snapshot(),
            Ok(_) => Err(Refused::Contradiction),
        };
        Ok(match snapshot {
            Ok(snapshot) if snapshot.tcb.flow == flow && snapshot.epoch == epoch => Ok(snapshot),
            Ok(_) => Err(Refusal::Snapshot("the snapshot is of another connection".into())),
            Err(why) => Err(Refusal::Snapshot(alloc::format!("{why}"))),
        })
    }

    /// The copy that a delta builds on, as far as it is here.
    fn base_of(&mut self, from: NodeId, flow: Flow, delta: &Delta, known: Option<&Copy>) -> Copy {
        let Some(base) = delta.base else { return Copy::default() };
        let reserved = self.reservations.get_mut(&flow).filter(|reserved| reserved.from == from);
        let ahead = reserved.and_then(|reserved| reserved.copy.take_if(|copy| copy.version() == base));
        if let Some(copy) = ahead {
            self.copied -= copy.len();
            return *copy;
        }
        known.filter(|copy| copy.version() == base).cloned().unwrap_or_default()
    }
}
