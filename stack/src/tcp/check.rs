//! Whether a control block that came from elsewhere can be true. Bytes from another host are peer input.

use core::time::Duration;

use thiserror::Error;

use super::cc::{Algorithm, Congestion, MAX_WINDOW};
use super::commit::{Commit, Point};
use super::config::{Config, KeepAlive};
use super::data::WINDOW_SLACK;
use super::recovered::Recovered;
use super::rtt::{MAX_SAMPLE, Rtt};
use super::state::State;
use super::tcb::{Mark, Recovery, RecvSpace, SendSpace, Tcb};
use crate::Seq;
use crate::ip::MIN_MTU;

/// What cannot be true of a control block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Broken {
    /// SND.UNA ≤ SND.NXT ≤ SND.UNA + 2³⁰ does not hold, or the queue disagrees with it.
    #[error("the send sequence space is inconsistent")]
    SendSpace,
    /// What is in flight does not cover SND.UNA to SND.NXT, or is counted wrongly.
    #[error("the record of what is in flight is inconsistent")]
    Sent,
    /// RCV.NXT, the advertised edge, the unread or the out-of-order octets disagree.
    #[error("the receive sequence space is inconsistent")]
    RecvSpace,
    /// A window scale above 14, a segment size or a buffer out of range.
    #[error("a parameter is out of range")]
    Parameter,
    /// The congestion window is zero or beyond all bounds.
    #[error("the congestion state is out of range")]
    Congestion,
    /// What waits for a backup, or what a former life left, contradicts the rest.
    #[error("what is held back contradicts the sequence numbers")]
    Held,
    /// The state contradicts the rest, such as a FIN acknowledged that was never sent.
    #[error("the state contradicts the sequence numbers")]
    State,
}

/// The longest span that is believed: 32 years.
const MAX_SPAN: Duration = Duration::from_secs(1 << 30);
/// The smallest packet that a search may begin with: headers and a payload that is not silly.
const LEAST_BASE: u16 = 108;
/// The largest buffer that is believed.
const MAX_BUFFER: u32 = 1 << 30;

impl<At> Tcb<At> {
    /// Whether the control block can be true. Nothing that passes can make the engine panic or go astray.
    pub fn check(&self) -> Result<(), Broken> {
        self.config.check()?;
        self.snd.check(self.opening(), self.config.base_mtu)?;
        self.rcv.check(self.opening(), &self.config)?;
        self.check_times()?;
        self.congestion.check()?;
        self.undo.as_ref().map_or(Ok(()), |undo| undo.congestion.check())?;
        self.check_recovery()?;
        self.check_held()?;
        self.check_recovered()?;
        self.check_state()
    }

    fn opening(&self) -> bool {
        let failed = self.state.is_closed() && self.snd.una == self.snd.iss;
        failed || matches!(self.state, State::SynSent | State::SynReceived)
    }

    /// A recovery ends at something that is in flight.
    fn check_recovery(&self) -> Result<(), Broken> {
        let sound = match self.recovery {
            Recovery::Open { .. } => true,
            _ if self.state.is_closed() => true,
            Recovery::Fast { point, .. } | Recovery::Loss { point, .. } => {
                self.snd.una.before(point) && point.at_or_before(self.snd.nxt)
            }
        };
        if sound { Ok(()) } else { Err(Broken::Congestion) }
    }

    /// What is released lies near what there is, and nothing was sent that is not.
    fn check_held(&self) -> Result<(), Broken> {
        let Some(held) = &self.held else { return Ok(()) };
        let Point { ack, edge, send } = held.released;
        let near = |a: Seq, b: Seq| a.0.wrapping_sub(b.0).cast_signed().unsigned_abs() <= 1 << 30;
        let sent = held.commit == Commit::Regenerate
            || self.state.is_closed()
            || self.snd.nxt.at_or_before(send) && near(send, self.snd.nxt);
        let sound = sent && near(ack, self.rcv.nxt) && near(edge, self.rcv.nxt);
        if sound && !matches!(self.state, State::SynSent) { Ok(()) } else { Err(Broken::Held) }
    }

    /// What is owed is all that lies before SND.UNA.
    fn check_recovered(&self) -> Result<(), Broken> {
        let Some(recovered) = &self.recovered else { return Ok(()) };
        let Recovered { sent, owed, .. } = **recovered;
        let bare = self.snd.queue.is_empty() && self.snd.fin.is_none() && self.snd.una == self.snd.nxt;
        let bounded = sent
            .is_none_or(|sent| sent.0.wrapping_sub(self.snd.nxt.0).cast_signed().unsigned_abs() <= 1 << 30);
        if owed <= 1 << 30 && (owed == 0 || bare) && bounded { Ok(()) } else { Err(Broken::Held) }
    }

    /// No span is so long that adding a few of them overflows.
    fn check_times(&self) -> Result<(), Broken> {
        let Rtt { smoothed, variation, min, .. } = self.rtt;
        let newest = self.rack.newest.as_ref().map(|newest| newest.rtt);
        let measured = [smoothed, Some(variation), min].into_iter().flatten();
        let sound = measured.into_iter().all(|span| span <= 2 * MAX_SAMPLE)
            && newest.is_none_or(|span| span <= MAX_SPAN);
        if sound { Ok(()) } else { Err(Broken::Parameter) }
    }

    fn check_state(&self) -> Result<(), Broken> {
        let our_fin_acked = self.snd.fin.is_some_and(|fin| self.snd.una.after(fin));
        let their_fin = self.rcv.fin.is_some_and(|fin| self.rcv.nxt.after(fin));
        let sound = match self.state {
            State::SynSent | State::SynReceived => !their_fin,
            State::Established => self.snd.fin.is_none() && !their_fin,
            State::FinWait1 => self.snd.fin.is_some() && !our_fin_acked && !their_fin,
            State::FinWait2 { .. } => our_fin_acked && !their_fin,
            State::CloseWait => self.snd.fin.is_none() && their_fin,
            State::Closing | State::LastAck => self.snd.fin.is_some() && !our_fin_acked && their_fin,
            State::TimeWait { .. } => our_fin_acked && their_fin,
            State::Closed(_) => true,
        };
        if sound { Ok(()) } else { Err(Broken::State) }
    }
}

impl<At> Congestion<At> {
    fn check(&self) -> Result<(), Broken> {
        let algorithm = match &self.algorithm {
            Algorithm::NewReno { acked } => *acked <= MAX_WINDOW,
            Algorithm::Cubic(cubic) => {
                let bounded = cubic.w_max <= MAX_WINDOW && cubic.cwnd_prior <= MAX_WINDOW;
                let epoch = cubic.epoch.as_ref().is_none_or(|epoch| {
                    epoch.plateau <= MAX_WINDOW
                        && epoch.k_ms <= 1 << 24
                        && epoch.w_est <= u64::from(MAX_WINDOW) << 10
                        && epoch.rest <= u64::from(MAX_WINDOW)
                });
                bounded && epoch
            }
        };
        let window = (1..=MAX_WINDOW).contains(&self.cwnd) && (1..=MAX_WINDOW).contains(&self.ssthresh);
        if window && algorithm { Ok(()) } else { Err(Broken::Congestion) }
    }
}

impl Config {
    fn check(&self) -> Result<(), Broken> {
        let buffers =
            [self.send_buffer, self.receive_buffer].iter().all(|size| (1..=MAX_BUFFER).contains(size));
        let idle = self.keep_alive.map(|KeepAlive { idle, interval, .. }| [idle, interval]);
        let times = !self.min_rto.is_zero() && self.min_rto <= self.max_rto;
        let spans = [self.max_rto, self.delayed_ack, self.fin_wait_2, self.time_wait];
        let spans = spans.into_iter().chain(self.user_timeout);
        let bounded = spans.chain(idle.into_iter().flatten()).all(|span| span <= MAX_SPAN);
        if buffers
            && times
            && bounded
            && self.mss >= 48
            && self.initial_window >= 1
            && self.base_mtu >= LEAST_BASE
        {
            Ok(())
        } else {
            Err(Broken::Parameter)
        }
    }
}

impl<At> SendSpace<At> {
    fn check(&self, opening: bool, base: u16) -> Result<(), Broken> {
        if self.wscale > 14 || self.mss < 48 || self.path_mtu < MIN_MTU.min(base) {
            return Err(Broken::Parameter);
        }
        // The FIN is the only thing that lies behind the queue. Acknowledged, it has taken the queue with it.
        let fin_acked = self.fin.is_some_and(|fin| self.una == fin + 1_u32);
        let last = if fin_acked { self.una } else { self.fin.map_or(self.end(), |fin| fin + 1_u32) };
        let fin = fin_acked && self.queue.is_empty() || self.fin.is_none_or(|fin| fin == self.end());
        let ordered = self.una.at_or_before(self.nxt) && (opening || self.nxt.at_or_before(last));
        let bounded = self.outstanding() <= 1 << 30 && self.queue.len() <= 1 << 30;
        let updated = self.wl2.at_or_before(self.nxt) && self.una.0.wrapping_sub(self.wl2.0) <= 1 << 30;
        let windows = self.wnd <= self.max_wnd && self.max_wnd <= MAX_WINDOW && (opening || updated);
        // Only the SYN lies before the queue.
        let syn =
            if opening { self.una == self.iss && self.outstanding() <= 1 } else { self.una != self.iss };
        if !(ordered && bounded && fin && windows && syn) {
            return Err(Broken::SendSpace);
        }
        if self.search.as_ref().is_some_and(|search| !search.is_sound(self.path_mtu, self.una, self.nxt)) {
            return Err(Broken::Parameter);
        }
        self.check_sent()
    }

    fn check_sent(&self) -> Result<(), Broken> {
        let (mut next, mut in_flight, mut sacked) = (self.una, 0_u64, 0_u64);
        for sent in &self.sent {
            if sent.seq != next || sent.len == 0 || sent.len > 1 << 30 {
                return Err(Broken::Sent);
            }
            next = sent.end();
            match sent.mark {
                Mark::InFlight => in_flight += u64::from(sent.len),
                Mark::Sacked => sacked += u64::from(sent.len),
                Mark::Lost => {}
            }
        }
        let covered = next == self.nxt && self.sent.len() <= self.outstanding() as usize;
        let counted = in_flight == u64::from(self.in_flight) && sacked == u64::from(self.sacked);
        let covered = covered && !(self.una == self.iss && sacked > 0);
        if covered && counted { Ok(()) } else { Err(Broken::Sent) }
    }
}

impl RecvSpace {
    fn check(&self, opening: bool, config: &Config) -> Result<(), Broken> {
        if self.wscale > 14 {
            return Err(Broken::Parameter);
        }
        let edge = self.nxt.at_or_before(self.adv) && self.adv.distance_from(self.nxt) <= 1 << 30;
        let buffer = config.receive_buffer as usize;
        let unread = self.unread.len() <= buffer + buffer / WINDOW_SLACK;
        let reassembly =
            self.reassembly.is_sound(self.nxt, self.fin.map_or(self.adv, |fin| fin.earlier(self.adv)))
                || self.reassembly.is_empty();
        let acked =
            self.last_ack.at_or_before(self.nxt) && self.nxt.0.wrapping_sub(self.last_ack.0) <= 1 << 30;
        let empty = !opening || (self.unread.is_empty() && self.reassembly.is_empty());
        let fin = self.fin.is_none_or(|fin| {
            self.nxt == fin + 1_u32 || self.nxt.at_or_before(fin) && fin.at_or_before(self.adv)
        });
        if edge && unread && reassembly && acked && empty && fin { Ok(()) } else { Err(Broken::RecvSpace) }
    }
}
