//! What must be true whenever a connection is restored: the client knows nothing that contradicts it.

use core::time::Duration;

use ferry_stack::tcp::{Commit, State, Tcb};

/// Compares a copy, and the connection that is made of it, with what the client has seen.
pub(crate) fn contradicts(
    client: &Tcb,
    copy: &Tcb<Duration>,
    restored: &Tcb<Duration>,
    commit: Commit,
) -> Option<String> {
    if matches!(client.state, State::SynSent | State::Closed(_)) {
        return None;
    }
    let (snd, rcv) = (&client.snd, &client.rcv);
    if snd.una.after(copy.rcv.nxt) {
        return Some(format!("{} is acknowledged, but the copy knows up to {} only", snd.una, copy.rcv.nxt));
    }
    if commit == Commit::Strict && rcv.nxt.after(copy.snd.last()) {
        return Some(format!("the client has octets up to {}, the copy to {}", rcv.nxt, copy.snd.last()));
    }
    let edge = snd.wl2 + snd.wnd;
    if edge.after(restored.rcv.adv) {
        return Some(format!("the window was open to {edge}, and is to {}", restored.rcv.adv));
    }
    None
}
