//! What must be true of a control block at any moment between two events.

use core::time::Duration;

use ferry_stack::Instant;
use ferry_stack::tcp::{State, Tcb};

/// Every sentence, one after the other. The error is the first that does not hold.
pub fn hold(tcb: &Tcb, now: Instant) -> Result<(), String> {
    the_control_block_is_sound(tcb)?;
    a_connection_that_goes_nowhere_is_what_it_was(tcb, now)?;
    what_waits_for_something_has_a_deadline(tcb)?;
    a_thawed_connection_is_the_frozen_one(tcb, now)
}

/// The sentences that cost little.
pub fn hold_lightly(tcb: &Tcb) -> Result<(), String> {
    the_control_block_is_sound(tcb)?;
    what_waits_for_something_has_a_deadline(tcb)
}

fn the_control_block_is_sound(tcb: &Tcb) -> Result<(), String> {
    tcb.check().map_err(|broken| format!("the control block is sound: {broken}"))
}

/// Whatever was sent has a timer that sends it again; whatever cannot be sent has a timer that asks. Without this
/// a connection hangs for ever.
fn what_waits_for_something_has_a_deadline(tcb: &Tcb) -> Result<(), String> {
    if tcb.state.is_closed() {
        return Ok(());
    }
    let timers = &tcb.timers;
    if !tcb.snd.sent.is_empty() && timers.rto.is_none() && !tcb.is_syn_held() {
        return Err("what was sent has a retransmission timer".to_owned());
    }
    let opening = matches!(tcb.state, State::SynSent | State::SynReceived);
    // What waits for a backup waits for nobody's answer.
    let due = tcb.sendable() > 0 || tcb.is_fin_sendable();
    let stuck = !opening && tcb.snd.sent.is_empty() && due;
    if stuck && timers.persist.is_none() {
        return Err("what cannot be sent has a persist timer".to_owned());
    }
    Ok(())
}

/// `import(export(c)) == c`, in every state: on the same clock, nothing but the start of the timestamp clock changes.
fn a_connection_that_goes_nowhere_is_what_it_was(tcb: &Tcb, now: Instant) -> Result<(), String> {
    if tcb.deadline().is_some_and(|at| at < now) {
        // What is overdue is due now.
        return Ok(());
    }
    let mut expected = tcb.clone();
    if let Some(timestamps) = &mut expected.timestamps {
        let value = timestamps.value_at(now);
        timestamps.at += Duration::from_millis(value.wrapping_sub(timestamps.value).into());
        timestamps.value = value;
    }
    let back = tcb.clone().freeze(now).thaw(now);
    if back == expected {
        return Ok(());
    }
    // Which of many fields it is would be hard to see in two long lines.
    let (back, expected) = (format!("{back:#?}"), format!("{expected:#?}"));
    let lines = back.lines().zip(expected.lines()).filter(|(is, was)| is != was);
    let changed: Vec<_> =
        lines.map(|(is, was)| format!("{} was {}", is.trim(), was.trim())).take(5).collect();
    Err(format!("a connection that goes nowhere is what it was ({})", changed.join("; ")))
}

/// What travels is octets.
fn a_thawed_connection_is_the_frozen_one(tcb: &Tcb, now: Instant) -> Result<(), String> {
    if is_heavy(tcb) {
        return Ok(());
    }
    let frozen = tcb.clone().freeze(now);
    let octets = postcard::to_allocvec(&frozen).map_err(|error| error.to_string())?;
    let (back, rest) = postcard::take_from_bytes::<Tcb<core::time::Duration>>(&octets)
        .map_err(|error| format!("a frozen connection can be read back: {error}"))?;
    if !rest.is_empty() || back != frozen {
        return Err("a frozen connection is read back as it was written".to_owned());
    }
    back.check().map_err(|broken| format!("a frozen connection is sound: {broken}"))?;
    let again = back.thaw(now).freeze(now);
    let again = postcard::to_allocvec(&again).map_err(|error| error.to_string())?;
    if again == octets { Ok(()) } else { Err("a thawed connection is the frozen one".to_owned()) }
}

/// Whether a connection carries so much that copying it after every event would take most of the time. Queues
/// are shared octets, whose contents the stream oracle checks across handoffs.
pub fn is_heavy<At>(tcb: &Tcb<At>) -> bool {
    tcb.snd.queue.len() + tcb.rcv.unread.len() + tcb.rcv.reassembly.len() > 64 << 10
}

/// A connection in one line.
pub fn describe(tcb: &Tcb) -> String {
    let Tcb { flow, state, snd, rcv, timers, recovery, congestion, pending, rtt, .. } = tcb;
    format!(
        "{} > {} {state} una {} nxt {} wnd {} unsent {} fin {:?} in_flight {} sacked {} sent {} cwnd {} mtu {} | \
         rcv nxt {} adv {} unread {} islands {} fin {:?} | {recovery:?} {timers:?} {pending:?} {rtt:?}",
        flow.local,
        flow.remote,
        snd.una,
        snd.nxt,
        snd.wnd,
        snd.unsent(),
        snd.fin,
        snd.in_flight,
        snd.sacked,
        snd.sent.len(),
        congestion.cwnd,
        snd.path_mtu,
        rcv.nxt,
        rcv.adv,
        rcv.unread.len(),
        rcv.reassembly.len(),
        rcv.fin,
    )
}
