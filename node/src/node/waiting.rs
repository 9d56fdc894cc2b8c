//! Segments of connections of which it is being found out whose they are.

use std::collections::{BTreeMap, VecDeque};

use ferry_stack::ip::Datagram;
use ferry_stack::tcp::Flow;

/// Segments that wait for one connection.
const MAX_SEGMENTS: usize = 64;
/// Octets that wait in all.
const MAX_OCTETS: usize = 16 << 20;

/// What has come for some connections, in the order in which it came.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    segments: BTreeMap<Flow, VecDeque<Datagram>>,
    octets: usize,
}

impl Waiting {
    /// For how many connections something has come.
    pub(super) fn len(&self) -> usize {
        self.segments.len()
    }

    /// Keeps a segment, if there is room.
    pub(super) fn hold(&mut self, flow: Flow, datagram: Datagram) -> bool {
        let octets = datagram.packet.len();
        let held = self.segments.get(&flow).map_or(0, VecDeque::len);
        if held >= MAX_SEGMENTS || self.octets + octets > MAX_OCTETS {
            return false;
        }
        self.octets += octets;
        self.segments.entry(flow).or_default().push_back(datagram);
        true
    }

    /// What has come for all of them.
    pub(super) fn take_all(&mut self) -> BTreeMap<Flow, VecDeque<Datagram>> {
        core::mem::take(self).segments
    }

    /// What has come for a connection.
    pub(super) fn take(&mut self, flow: &Flow) -> VecDeque<Datagram> {
        let held = self.segments.remove(flow).unwrap_or_default();
        self.octets -= held.iter().map(|datagram| datagram.packet.len()).sum::<usize>();
        held
    }
}
