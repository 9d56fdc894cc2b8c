//! The steps of a handoff, for those who trace them.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

/// How a connection was when it was frozen, as far as TCP is concerned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// The state, as RFC 9293 spells it.
    pub state: Cow<'static, str>,
    /// Octets sent and not acknowledged; SYN and FIN count as one.
    pub in_flight: u32,
    /// Octets received in order that the session has not read.
    pub unread: usize,
    /// Octets received out of order.
    pub out_of_order: usize,
    /// Whether losses are being repaired.
    pub recovering: bool,
    /// How often the retransmission timer has fired since anything was acknowledged.
    pub timeouts: u8,
    /// Whether the client's window is shut.
    pub shut: bool,
    /// Whether an acknowledgement is due and delayed.
    pub delayed_ack: bool,
}

/// A step of a handoff, as the node that takes it sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case")]
pub enum Step {
    /// Donor: the acceptor was asked.
    Asked,
    /// Acceptor: room is reserved, segments are held.
    Reserved,
    /// Donor: the connection is frozen and on its way. The point of no return.
    Frozen {
        /// Octets of the snapshot.
        snapshot_bytes: usize,
        /// How the connection was.
        moment: Moment,
    },
    /// Acceptor: the connection runs here now.
    Installed {
        /// Segments that were held for it.
        held: usize,
    },
    /// Donor: the acceptor has it. Late segments are forwarded.
    Taken,
    /// Either: it did not come to a move.
    Failed {
        /// Why.
        why: String,
    },
}
