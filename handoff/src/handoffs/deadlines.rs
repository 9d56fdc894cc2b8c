//! When handoffs have something to do by themselves: each deadline is where it belongs, and reminders of all in one place.

use alloc::string::String;

use ferry_stack::Instant;
use ferry_stack::tcp::{Flow, MapKey};
use hashbrown::HashMap;

use super::Handoffs;
use crate::NodeId;
use crate::acceptor::{Decided, Reservation, Returned};
use crate::donor::Donor;

pub(super) type ByFlow<T> = HashMap<Flow, T, MapKey>;

/// What has a deadline.
#[derive(Clone, Copy, Debug)]
pub(super) enum Timer {
    Donor(Flow),
    Reservation(Flow),
    Decided(Flow),
    Returned(NodeId, Flow),
}

impl Handoffs {
    /// When [`Handoffs::handle_timeout`] has something to do.
    pub fn deadline(&mut self) -> Option<Instant> {
        let Self { reminders, donors, reservations, decided, returned, .. } = self;
        reminders.next(|timer| deadline_of(timer, donors, reservations, decided, returned))
    }

    /// How many deadlines are reminded of, those that are out of date among them.
    #[cfg(test)]
    pub(crate) fn reminded(&self) -> usize {
        self.reminders.len()
    }

    /// The next of what is due.
    pub(super) fn due(&mut self, now: Instant) -> Option<Timer> {
        let Self { reminders, donors, reservations, decided, returned, .. } = self;
        reminders.due(now, |timer| deadline_of(timer, donors, reservations, decided, returned))
    }
}

/// When something is due, if it still is.
fn deadline_of(
    timer: &Timer,
    donors: &ByFlow<(Donor, String)>,
    reservations: &ByFlow<Reservation>,
    decided: &ByFlow<Decided>,
    returned: &Returned,
) -> Option<Instant> {
    match timer {
        Timer::Donor(flow) => donors.get(flow).map(|(donor, _)| donor.deadline()),
        Timer::Reservation(flow) => reservations.get(flow).map(|reserved| reserved.until),
        Timer::Decided(flow) => decided.get(flow)?.until,
        Timer::Returned(donor, flow) => returned.until(*donor, flow),
    }
}
