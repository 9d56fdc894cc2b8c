//! Congestion control (RFC 9293 section 3.8.2): how much may be in flight. A closed set of algorithms whose state is plain integers, so
//! that a moved connection goes on with what it learned.

mod cubic;
mod hystart;

use core::time::Duration;

use serde::{Deserialize, Serialize};

pub use cubic::Cubic;
pub use hystart::{Conservative, HyStart, Micros};

use super::tcb::Rebase;
use crate::{Instant, Seq};

/// Bounds the window, so that arithmetic on it cannot overflow (RFC 7323 section 2.3).
pub const MAX_WINDOW: u32 = 1 << 30;

/// Which algorithm a connection is to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// RFC 5681 and RFC 6582.
    NewReno,
    /// RFC 9438.
    Cubic,
}

/// An algorithm with what it remembers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm<At> {
    /// RFC 5681 and RFC 6582.
    NewReno {
        /// Octets acknowledged since the window last grew, in congestion avoidance.
        acked: u32,
    },
    /// RFC 9438.
    Cubic(Cubic<At>),
}

/// The congestion window and what moves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Congestion<At> {
    /// Octets that may be in flight.
    pub cwnd: u32,
    /// Below it the window doubles each round trip, above it the algorithm decides.
    pub ssthresh: u32,
    /// What decides.
    pub algorithm: Algorithm<At>,
    /// What ends the first slow start before the queue overflows.
    pub hystart: HyStart,
}

/// What an acknowledgement tells the congestion control.
#[derive(Clone, Copy, Debug)]
pub struct Acked {
    /// Octets newly acknowledged.
    pub octets: u32,
    /// Octets of a full segment (SMSS).
    pub mss: u32,
    /// Smoothed round-trip time.
    pub srtt: Duration,
    /// The round-trip time that it measured, if it did.
    pub rtt: Option<Duration>,
    /// SND.UNA and SND.NXT now.
    pub span: (Seq, Seq),
    /// Whether the window was what held the sender back.
    pub limited: bool,
    /// When.
    pub now: Instant,
}

impl Congestion<Instant> {
    /// Before the first acknowledgement (RFC 6928; RFC 5681 section 3.1: slow-start threshold arbitrarily high).
    pub fn new(kind: Kind, initial_window: u32) -> Self {
        let algorithm = match kind {
            Kind::NewReno => Algorithm::NewReno { acked: 0 },
            Kind::Cubic => Algorithm::Cubic(Cubic::default()),
        };
        Self { cwnd: initial_window, ssthresh: MAX_WINDOW, algorithm, hystart: HyStart::default() }
    }

    /// New data was acknowledged outside of fast recovery.
    pub fn on_ack(&mut self, acked: Acked) {
        let Acked { octets, mss, limited, rtt, span, .. } = acked;
        // RFC 9406 section 4.3: only as long as nothing was ever lost.
        let divisor = if self.ssthresh == MAX_WINDOW { self.hystart.on_ack(rtt, span) } else { Some(1) };
        if let Algorithm::Cubic(cubic) = &mut self.algorithm {
            cubic.on_ack(&acked);
        }
        // RFC 9438 section 5.8, RFC 7661: a window that was not used was not tested.
        if !limited {
            return;
        }
        let Some(divisor) = divisor else {
            self.ssthresh = self.cwnd;
            return;
        };
        if self.cwnd < self.ssthresh {
            let octets = octets / divisor;
            self.cwnd =
                self.cwnd.saturating_add(octets).min(self.ssthresh.max(self.cwnd + mss)).min(MAX_WINDOW);
            return;
        }
        match &mut self.algorithm {
            Algorithm::NewReno { acked: counted } => {
                // RFC 5681 section 3.1: one segment for each window acknowledged.
                *counted += octets;
                if *counted >= self.cwnd {
                    *counted -= self.cwnd;
                    self.cwnd = (self.cwnd + mss).min(MAX_WINDOW);
                }
            }
            Algorithm::Cubic(cubic) => self.cwnd = cubic.grow(self.cwnd, &acked).min(MAX_WINDOW),
        }
    }

    /// A loss was detected with `flight` octets in flight: sets the threshold that recovery ends at. The window
    /// itself is moved by proportional rate reduction or, after a timeout, by [`Congestion::collapse`].
    pub fn on_congestion(&mut self, flight: u32, mss: u32) {
        let reduced = match &mut self.algorithm {
            Algorithm::NewReno { acked } => {
                *acked = 0;
                flight / 2
            }
            Algorithm::Cubic(cubic) => {
                cubic.on_congestion(self.cwnd);
                cubic::reduce(flight)
            }
        };
        self.ssthresh = reduced.max(2 * mss);
    }

    /// The retransmission timer fired: room for one segment (RFC 5681 section 3.1, the loss window) besides the
    /// `flight` octets that may still arrive.
    pub fn collapse(&mut self, flight: u32, mss: u32) {
        if let Algorithm::Cubic(cubic) = &mut self.algorithm {
            cubic.on_timeout();
        }
        self.cwnd = flight.saturating_add(mss).min(MAX_WINDOW);
    }
}

impl<At> Congestion<At> {
    /// The same on another clock.
    pub fn map_time<B>(self, clock: &impl Rebase<At, B>) -> Congestion<B> {
        let Self { cwnd, ssthresh, algorithm, hystart } = self;
        let algorithm = match algorithm {
            Algorithm::NewReno { acked } => Algorithm::NewReno { acked },
            Algorithm::Cubic(cubic) => Algorithm::Cubic(cubic.map_time(clock)),
        };
        Congestion { cwnd, ssthresh, algorithm, hystart }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    fn acked(octets: u32, millis: u64) -> Acked {
        let srtt = Duration::from_millis(100);
        let span = (Seq(1), Seq(2));
        Acked { octets, mss: MSS, srtt, rtt: None, span, limited: true, now: Instant::from_millis(millis) }
    }

    #[test]
    fn slow_start_doubles_the_window_each_round_trip() {
        for kind in [Kind::NewReno, Kind::Cubic] {
            let mut cc = Congestion::new(kind, 10 * MSS);
            for _ in 0..10 {
                cc.on_ack(acked(MSS, 0));
            }
            assert_eq!(cc.cwnd, 20 * MSS, "{kind:?}");
        }
    }

    #[test]
    fn an_unused_window_does_not_grow() {
        for kind in [Kind::NewReno, Kind::Cubic] {
            let mut cc = Congestion::new(kind, 10 * MSS);
            cc.on_ack(Acked { limited: false, ..acked(MSS, 0) });
            assert_eq!(cc.cwnd, 10 * MSS, "{kind:?}");
        }
    }

    #[test]
    fn newreno_grows_by_one_segment_a_window() {
        let mut cc = Congestion::new(Kind::NewReno, 10 * MSS);
        cc.ssthresh = 10 * MSS;
        for _ in 0..10 {
            cc.on_ack(acked(MSS, 0));
        }
        assert_eq!(cc.cwnd, 11 * MSS);
    }

    #[test]
    fn a_loss_halves_newreno_and_takes_three_tenths_of_cubic() {
        let mut reno = Congestion::new(Kind::NewReno, 100 * MSS);
        reno.on_congestion(100 * MSS, MSS);
        assert_eq!(reno.ssthresh, 50 * MSS);
        let mut cubic = Congestion::new(Kind::Cubic, 100 * MSS);
        cubic.on_congestion(100 * MSS, MSS);
        assert_eq!(cubic.ssthresh, 70 * MSS);
        cubic.on_congestion(MSS, MSS);
        assert_eq!(cubic.ssthresh, 2 * MSS, "never below two segments");
    }
}
