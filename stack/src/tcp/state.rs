use core::fmt;

use serde::{Deserialize, Serialize};

use super::tcb::Rebase;

/// Where in RFC 9293 figure 5 a connection is, with the timer that only that state has.
///
/// Two of the eleven states have no value here: `LISTEN` is a [`Listener`](super::Listener), and a connection
/// that is `CLOSED` is gone, except that its end is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State<At> {
    /// A SYN was sent.
    SynSent,
    /// A SYN was received and answered.
    SynReceived,
    /// Both directions are open.
    Established,
    /// We finished first; our FIN is not acknowledged.
    FinWait1,
    /// Our FIN is acknowledged; the other side may go on sending.
    FinWait2 {
        /// When we give up waiting for the other side's FIN. Only once nobody reads any more.
        until: Option<At>,
    },
    /// The other side finished; we may go on sending.
    CloseWait,
    /// Both finished at once; our FIN is not acknowledged.
    Closing,
    /// The other side finished first, then we; our FIN is not acknowledged.
    LastAck,
    /// Both finished; late segments are answered until then.
    TimeWait {
        /// When the connection is forgotten.
        until: At,
    },
    /// It is over.
    Closed(Ending),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// Both sides finished.
    Finished,
    /// The other side reset it.
    Reset,
    /// The other side refused to open it.
    Refused,
    /// The other side did not answer for too long.
    TimedOut,
    /// We gave it up.
    Aborted,
}

impl<At> State<At> {
    /// The same state on another clock.
    pub fn map_time<B>(self, clock: &impl Rebase<At, B>) -> State<B> {
        match self {
            Self::SynSent => State::SynSent,
            Self::SynReceived => State::SynReceived,
            Self::Established => State::Established,
            Self::FinWait1 => State::FinWait1,
            Self::FinWait2 { until } => State::FinWait2 { until: until.map(|at| clock.ahead(at)) },
            Self::CloseWait => State::CloseWait,
            Self::Closing => State::Closing,
            Self::LastAck => State::LastAck,
            Self::TimeWait { until } => State::TimeWait { until: clock.ahead(until) },
            Self::Closed(ending) => State::Closed(ending),
        }
    }

    /// Whether the handshake is over, that is, both sides have seen each other's SYN.
    pub fn is_synchronised(&self) -> bool {
        !matches!(self, Self::SynSent | Self::SynReceived | Self::Closed(_))
    }

    /// Whether data of ours may still be queued.
    pub fn may_write(&self) -> bool {
        matches!(self, Self::SynSent | Self::SynReceived | Self::Established | Self::CloseWait)
    }

    /// Whether the other side may still send data.
    pub fn may_receive(&self) -> bool {
        matches!(self, Self::Established | Self::FinWait1 | Self::FinWait2 { .. })
    }

    /// Whether it is over.
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }
}

impl<At> State<At> {
    /// As RFC 9293 section 3.3.2 spells it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::SynSent => "SYN-SENT",
            Self::SynReceived => "SYN-RECEIVED",
            Self::Established => "ESTABLISHED",
            Self::FinWait1 => "FIN-WAIT-1",
            Self::FinWait2 { .. } => "FIN-WAIT-2",
            Self::CloseWait => "CLOSE-WAIT",
            Self::Closing => "CLOSING",
            Self::LastAck => "LAST-ACK",
            Self::TimeWait { .. } => "TIME-WAIT",
            Self::Closed(_) => "CLOSED",
        }
    }
}

impl<At> fmt::Display for State<At> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
