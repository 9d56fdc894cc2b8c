//! Explicit congestion notification (RFC 3168): routers mark packets instead of dropping them, the receiver echoes
//! the mark, the sender slows down and says so.

use super::ack::Delivered;
use super::config::EcnPolicy;
use super::segment::{Codepoint, Segment};
use super::state::State;
use super::tcb::{Ecn, Recovery, Tcb};

/// Segments that are acknowledged at once after a mark: the other side's window may become very small.
const QUICK_ACKS: u8 = 2;

impl Tcb {
    /// The other side's SYN, or the answer to ours (RFC 3168 section 6.1.1). Who once sent a SYN that does not speak of
    /// ECN does not use it.
    pub(super) fn agree_on_ecn(&mut self, syn: &Segment) {
        let ours = match self.state {
            State::SynReceived => self.config.ecn != EcnPolicy::Off,
            _ => self.ecn.is_some(),
        };
        self.ecn = (ours && syn.is_ecn_setup()).then(Ecn::default);
    }

    /// Octets that have arrived: marked, or with the news that our echo was heard (RFC 3168 section 6.1.3).
    pub(super) fn note_mark(&mut self, segment: &Segment) {
        let Some(ecn) = &mut self.ecn else { return };
        if segment.payload.is_empty() {
            return;
        }
        let marked = segment.codepoint == Codepoint::Ce;
        if marked && !ecn.echo || segment.cwr {
            self.rcv.quick = self.rcv.quick.max(QUICK_ACKS);
        }
        ecn.echo = marked || ecn.echo && !segment.cwr;
    }

    /// RFC 3168 section 6.1.2: an echo of a mark is a congestion event, at most one in each window of data, and none
    /// where a loss has been one already. Returns whether there is an echo: the window does not grow by what it
    /// acknowledges, event or not.
    pub(super) fn heed_echo(&mut self, segment: &Segment, delivered: &Delivered) -> bool {
        let una = self.snd.una;
        let Some(ecn) = &mut self.ecn else { return false };
        ecn.until = ecn.until.filter(|until| una.at_or_before(*until));
        let open = matches!(self.recovery, Recovery::Open { .. });
        if !segment.ece || segment.is_syn() {
            return false;
        }
        if ecn.until.is_some() || !open {
            return true;
        }
        let flight = self.snd.outstanding().saturating_add(delivered.advanced).min(self.congestion.cwnd);
        let mss = self.mss();
        self.congestion.on_congestion(flight, mss);
        self.congestion.cwnd = self.congestion.cwnd.min(self.congestion.ssthresh);
        self.undo = None;
        self.note_reduction();
        true
    }

    /// The window was reduced, for whatever reason.
    pub(super) fn note_reduction(&mut self) {
        let nxt = self.snd.nxt;
        if let Some(ecn) = &mut self.ecn {
            ecn.reduced = true;
            ecn.until = Some(nxt);
        }
    }

    /// New octets may be marked on their way, and say if the window was reduced. Nothing else is (RFC 3168 sections
    /// 6.1.4 to 6.1.6): no acknowledgement, no retransmission, no probe.
    pub(super) fn mark_capable(&mut self, segment: &mut Segment) {
        let Some(ecn) = &mut self.ecn else { return };
        if !segment.payload.is_empty() {
            segment.codepoint = Codepoint::Ect0;
            segment.cwr = core::mem::take(&mut ecn.reduced);
        }
    }
}
