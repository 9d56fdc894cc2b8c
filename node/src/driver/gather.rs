//! What happens, on its way from the data plane to a thread that writes it down.

use core::time::Duration;

use crossbeam_channel::{Receiver, Sender};

/// Events that may wait to be written.
const WAITING: usize = 65_536;

/// Hands an event over without ever waiting; `false` if it is lost, because too many wait already.
///
/// The queue is to be unbounded: one that has its room from the start is pages that a process has to give back before its end
/// shows.
pub(super) fn put<T>(events: &Sender<T>, event: T) -> bool {
    events.len() < WAITING && events.send(event).is_ok()
}

/// The next events to be written down, gathered for so long: who writes is not woken for each of many, and takes no time from
/// what happens. `None` once there will be no more.
pub(super) fn next<T>(events: &Receiver<T>, span: Duration) -> Option<impl Iterator<Item = T>> {
    let first = events.recv().ok()?;
    // It always comes.
    let _ = crossbeam_channel::after(span).recv();
    Some(core::iter::once(first).chain(events.try_iter()))
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;

    use super::*;

    #[test]
    fn what_is_put_comes_in_order_until_too_much_waits() {
        let (sender, events) = unbounded();
        let put = (0..WAITING + 5).filter(|nth| put(&sender, *nth)).count();
        assert_eq!(put, WAITING, "the others are lost");
        drop(sender);
        assert!(next(&events, Duration::ZERO).unwrap().eq(0..WAITING));
        assert!(next(&events, Duration::ZERO).is_none());
    }
}
