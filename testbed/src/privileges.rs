//! The last step before `ferry node` runs: entering as root of the world, leaving as the node's user with nothing.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, clear_ambient_capability_set, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid,
};

use crate::error::Doing;
use crate::sys::tap::{self, Header};
use crate::{Error, Result};

/// What to become.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// User and group.
    #[arg(long)]
    uid: u32,
    /// The TAP to hand over, already attached, as `--tap-fd`. It must belong to the user.
    #[arg(long)]
    tap: Option<String>,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

/// Replaces this process by the program; returns only if that fails. Must be called while the process has one
/// thread: privileges belong to threads.
pub fn become_node(arguments: &Arguments) -> Error {
    match prepare(arguments) {
        Ok(mut command) => {
            let program = PathBuf::from(command.get_program());
            Error::System { doing: format!("run {}", program.display()), source: command.exec() }
        }
        Err(error) => error,
    }
}

fn prepare(arguments: &Arguments) -> Result<Command> {
    let Arguments { uid, tap, program } = arguments;
    // The device file may be root's alone. Only opening it takes root: attaching comes after, as the user.
    let tun = tap.as_ref().map(|_| tap::open()).transpose()?;
    drop_privileges(*uid)?;
    let mut words = program.iter();
    let program = words.next().ok_or_else(|| Error::Usage("no program was given".to_owned()))?;
    let mut command = Command::new(program);
    command.args(words);
    if let (Some(tun), Some(name)) = (tun, tap) {
        tap::attach(&tun, name, Header::VirtioNet)?;
        command.arg("--tap-fd").arg(leave_open(tun)?.to_string());
    }
    Ok(command)
}

/// No capabilities in any set, no way to gain any, no groups but the user's own.
fn drop_privileges(uid: u32) -> Result<()> {
    let doing = |what: &str| format!("{what} for user {uid}");
    clear_ambient_capability_set().doing(doing("clear the ambient capabilities"))?;
    for bit in 0..64 {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            // The kernel knows no more of them.
            Err(Errno::INVAL) => break,
            result => result.doing(doing("remove a capability"))?,
        }
    }
    let (user, group) = (Uid::from_raw(uid), Gid::from_raw(uid));
    // In a user namespace of one user, groups cannot be set, and there are none to lose.
    match set_thread_groups(&[]) {
        Err(Errno::PERM) if uid == 0 => {}
        result => result.doing(doing("leave all groups"))?,
    }
    set_thread_res_gid(group, group, group).doing(doing("change the group"))?;
    set_thread_res_uid(user, user, user).doing(doing("change the user"))?;
    let none = CapabilitySet::empty();
    set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .doing(doing("give up all capabilities"))?;
    set_no_new_privs(true).doing(doing("promise to gain none"))
}

/// Lets the file live on in the program that this process becomes.
fn leave_open(file: File) -> Result<i32> {
    fcntl_setfd(&file, FdFlags::empty()).doing("hand a file over")?;
    let number = file.as_raw_fd();
    core::mem::forget(file);
    Ok(number)
}
