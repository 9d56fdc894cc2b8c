//! Work that a busy machine does not hold up.

use std::io;
use std::thread;

use super::options::check;

/// Of servers: the lowest priority that is before every ordinary thread.
const SERVERS: i32 = 1;
/// Of clients and of the network, which have hosts of their own and do not wait until servers are done with their work.
const OTHERS: i32 = 2;

/// Does `work` on a thread with a real-time priority, which what it starts inherits: threads and processes run as soon as
/// they can, whatever else the machine does. Where that is not allowed they run like all others.
pub fn urgently<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let urgent = || {
        let _ = prefer_this_thread(OTHERS);
        work()
    };
    thread::scope(|scope| match scope.spawn(urgent).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Starts a server: if this is done [`urgently`], whatever else is runs before it.
pub fn as_server<T>(start: impl FnOnce() -> T) -> T {
    if !is_urgent() || prefer_this_thread(SERVERS).is_err() {
        return start();
    }
    let started = start();
    let _ = prefer_this_thread(OTHERS);
    started
}

fn is_urgent() -> bool {
    // SAFETY: takes no pointer; 0 is the calling thread.
    unsafe { libc::sched_getscheduler(0) == libc::SCHED_RR }
}

/// In turns with its like.
fn prefer_this_thread(priority: i32) -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: priority };
    // SAFETY: the pointer is to a value that outlives the call and is only read; 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const priority) })
}
