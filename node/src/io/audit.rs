use core::net::SocketAddrV6;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// What is kept of a move: never what the connection carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// The client.
    pub client: SocketAddrV6,
    /// The port on the service address.
    pub port: u16,
    /// The service's name.
    pub service: Arc<str>,
    /// The donor's name.
    pub from: Arc<str>,
    /// The acceptor's name.
    pub to: Arc<str>,
    /// The donor's epoch, where it is known.
    pub before: Option<u64>,
    /// The acceptor's epoch.
    pub epoch: u64,
    /// Why it was to move.
    pub why: Reason,
    /// How it ended.
    #[serde(flatten)]
    pub result: AuditResult,
}

/// Why a connection was to move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// Donor: an operator's `ferry handoff`.
    Handoff,
    /// Donor: it empties itself.
    Drain,
    /// Donor: the load is evened.
    Rebalance,
    /// Acceptor: the donor offered it.
    Offered,
    /// A node was lost, or taken for lost.
    Crash,
}

/// How a move ended, as the node sees it that tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "kebab-case")]
pub enum AuditResult {
    /// The acceptor owns it.
    Moved,
    /// Donor: it goes on where it was, or has ended.
    Stayed {
        /// Why.
        why_not: String,
    },
    /// The others have given this node up, and may go on with it.
    Lost,
    /// Acceptor: it was not taken.
    Refused {
        /// Why.
        why_not: String,
    },
}
