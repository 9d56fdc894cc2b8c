//! The TCP engine (RFC 9293). A connection is a [`Tcb`]: a value that segments, the application and time act
//! upon, and that says what to send and when to be woken. An [`Endpoint`] holds many of them: it demultiplexes,
//! listens, and keeps their timers.

mod ack;
mod arrive;
pub mod cc;
mod check;
mod commit;
mod config;
mod cookie;
mod data;
mod ecn;
mod endpoint;
mod isn;
mod listener;
mod loss;
mod open;
mod output;
mod path;
mod payload;
mod plpmtud;
mod queue;
mod rack;
mod reassembly;
mod recovered;
mod rtt;
mod segment;
mod state;
pub mod tcb;
#[cfg(test)]
mod tests;
mod timer;
mod undo;

use thiserror::Error;

pub use arrive::{Verdict, judge};
pub use check::Broken;
pub use commit::{Commit, Held, Point};
pub use config::{Config, EcnPolicy, KeepAlive};
pub use endpoint::{
    Arrival, CookieCounters, Endpoint, Event, Handle, HandleMap, Limits, ReceivedRange, Refusal,
};
pub use isn::{MapKey, Secret};
pub use listener::{Listener, SynCookies};
pub use open::Opening;
pub use output::Path;
pub use path::PathPolicy;
pub use payload::{Extent, Extents, Payload};
pub use plpmtud::{MtuProbing, Probe, Search};
pub use queue::Queue;
pub use recovered::{RECOVERY_MARGIN, Recovered};
pub use rtt::Rtt;
pub use segment::{Block, Codepoint, Control, Flow, Options, ParseError, Segment, Timestamps};
pub use state::{Ending, State};
pub use tcb::Tcb;

use crate::Seq;

/// The segment size of a peer that names none, over IPv6 (RFC 9293 section 3.7.1).
pub const DEFAULT_MSS: u16 = 1220;

/// Why nothing, or only a part, came of a segment: one counter each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Reason {
    /// None of it lies in the receive window.
    #[error("outside of the receive window")]
    OutOfWindow,
    /// A RST that does not prove knowledge of RCV.NXT (RFC 5961 section 3).
    #[error("a RST that may be blind")]
    BlindReset,
    /// A SYN in the middle of a connection (RFC 5961 section 4).
    #[error("an unexpected SYN")]
    UnexpectedSyn,
    /// No ACK bit where there must be one.
    #[error("no acknowledgement")]
    NoAck,
    /// It answers our SYN without a SYN.
    #[error("neither SYN nor RST")]
    NoSyn,
    /// It acknowledges what was never sent (RFC 5961 section 5).
    #[error("acknowledges what was never sent")]
    AckBeyondNxt,
    /// It acknowledges what was acknowledged long ago (RFC 5961 section 5).
    #[error("acknowledges what was acknowledged long ago")]
    AckTooOld,
    /// It acknowledges a SYN that was not ours: answered with a RST of this sequence number.
    #[error("acknowledges a SYN that was never sent")]
    AckOfNothing(Seq),
    /// Its timestamp is older than one that was seen (RFC 7323 section 5).
    #[error("an old duplicate, by its timestamp")]
    Paws,
    /// It carries no timestamp although both agreed to (RFC 7323 section 3.2).
    #[error("without the timestamp that was agreed on")]
    MissingTimestamp,
    /// Its octets would never be read (RFC 9293 section 3.6.1).
    #[error("nobody reads any more")]
    NobodyReads,
    /// The connection is over.
    #[error("the connection is closed")]
    Closed,
    /// The listener cannot take more.
    #[error("the listener's queue is full")]
    QueueFull,
}
