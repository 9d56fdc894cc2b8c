//! What becomes of what a connection has learned of its path when it goes on over another one.

use serde::{Deserialize, Serialize};

use super::cc::{Algorithm, Cubic, HyStart, MAX_WINDOW};
use super::rtt::Rtt;
use super::tcb::{Floor, Recovery, Tcb};
use crate::Instant;

/// What a connection keeps of its congestion state when it has come to another host. All but [`PathPolicy::Keep`] also
/// measure the round-trip time anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PathPolicy {
    /// Everything: the hosts lie side by side, and the path differs by its last link.
    #[default]
    Keep,
    /// Half of the window: the paths are alike.
    Halve,
    /// Nothing, as QUIC does when a peer has moved (RFC 9000 section 9.4): the initial window and slow start.
    InitialWindow,
}

impl Tcb<Instant> {
    /// From now on the connection uses a path of which nothing is known but what `policy` trusts. Windows never grow by
    /// it, and what is in flight stays in flight.
    pub fn change_path(&mut self, policy: PathPolicy, now: Instant) {
        if policy == PathPolicy::Keep || !self.state.is_synchronised() {
            return;
        }
        // What a congestion response took away was room on the old path (RFC 4015 does not know of moves).
        self.undo = None;
        let (mss, cwnd) = (self.mss(), self.congestion.cwnd);
        let initial = (u32::from(self.config.initial_window) * mss).min(cwnd);
        let repairing = !matches!(self.recovery, Recovery::Open { .. });
        let congestion = &mut self.congestion;
        if policy == PathPolicy::Halve {
            congestion.on_congestion(cwnd, mss);
            congestion.ssthresh = (cwnd / 2).max(2 * mss);
            congestion.cwnd = (cwnd / 2).max(initial);
        } else {
            congestion.algorithm = match congestion.algorithm {
                Algorithm::NewReno { .. } => Algorithm::NewReno { acked: 0 },
                Algorithm::Cubic(_) => Algorithm::Cubic(Cubic::default()),
            };
            congestion.hystart = HyStart::default();
            congestion.cwnd = initial;
            // A recovery ends with the window at the threshold.
            congestion.ssthresh = if repairing { initial.max(2 * mss) } else { MAX_WINDOW };
        }
        self.snd.path_since = Some(now);
    }

    /// The first measurement over a new path replaces what the old one has taught (RFC 6298 section 2.2), once it is one
    /// of octets that were sent over the new path only.
    pub(super) fn meet_path(&mut self, sent: Instant, now: Instant) {
        if self.snd.path_since.take_if(|since| *since <= sent).is_some() {
            let Rtt { backoff, fallback, .. } = self.rtt;
            self.rtt = Rtt { backoff, fallback, ..Rtt::default() };
            self.rack.floor = Floor { since: now, next: None };
        }
    }
}
