//! Which cores threads run on.

use core::num::NonZero;
use std::sync::OnceLock;
use std::{fs, thread};

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::Result;
use crate::error::Doing;

/// Keeps this thread, and those that it starts, on one core; on a machine with fewer, on the last.
pub fn pin(core: usize) -> Result<()> {
    sched_setaffinity(None, &only(core)).doing(format!("stay on core {core}"))
}

/// Keeps all threads of a process on one core; on a machine with fewer, on the last.
pub fn pin_process(id: u32, core: usize) -> Result<()> {
    let what = format!("keep process {id} on core {core}");
    for thread in fs::read_dir(format!("/proc/{id}/task")).doing(&*what)? {
        let name = thread.doing(&*what)?.file_name();
        let thread = name.to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw);
        match thread.map(|thread| sched_setaffinity(Some(thread), &only(core))) {
            // It has just ended.
            None | Some(Ok(()) | Err(Errno::SRCH)) => {}
            Some(Err(why)) => return Err(why).doing(&*what),
        }
    }
    Ok(())
}

fn only(core: usize) -> CpuSet {
    /// Of the machine: a thread that was kept on one sees no others any more.
    static CORES: OnceLock<usize> = OnceLock::new();
    let cores = *CORES.get_or_init(|| thread::available_parallelism().map_or(1, NonZero::get));
    let mut set = CpuSet::new();
    set.set(core.min(cores - 1));
    set
}
