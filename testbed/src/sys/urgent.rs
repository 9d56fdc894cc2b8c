//! Work that a busy machine does not hold up.

use std::io;
use std::thread;

use super::options::check;

/// Does `work` on a thread with a real-time priority, which what it starts inherits: threads and processes run as soon as
/// they can, whatever else the machine does. Where that is not allowed they run like all others.
pub fn urgently<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let urgent = || {
        let _ = prefer_this_thread();
        work()
    };
    thread::scope(|scope| match scope.spawn(urgent).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// The lowest priority that is before every ordinary thread, in turns with its like.
fn prefer_this_thread() -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the pointer is to a value that outlives the call and is only read; 0 is the calling thread.
    check(unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const priority) })
}
