//! What is told of a connection that freezes.

use ferry_stack::tcp::Tcb;
use ferry_stack::tcp::tcb::Recovery;

use crate::io::Moment;

impl Moment {
    /// That of a connection.
    pub(super) fn of<At>(tcb: &Tcb<At>) -> Self {
        Self {
            state: tcb.state.name().into(),
            in_flight: tcb.snd.outstanding(),
            unread: tcb.rcv.unread.len(),
            out_of_order: tcb.rcv.reassembly.len(),
            recovering: !matches!(tcb.recovery, Recovery::Open { .. }),
            timeouts: tcb.snd.timeouts,
            shut: tcb.timers.persist.is_some(),
            delayed_ack: tcb.timers.delayed_ack.is_some(),
        }
    }
}
