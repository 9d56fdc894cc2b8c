//! Running inside namespaces that go away with the process.
//!
//! The testbed starts itself again under `unshare` of util-linux, as process 1 of a fresh PID namespace with fresh
//! mount and network namespaces (and a user namespace, when it is not root). What ends process 1 ends every process
//! of the world, and with the last of them the kernel removes the namespaces, the links, the TAPs and the mounts.
//! There is no clean-up code that could be skipped.
//!
//! The outer process holds the writing end of a pipe, the *lifeline*. Process 1 ends when it closes: whatever
//! happens to the outer process, SIGKILL included, the world ends with it. A signal that asks to stop travels
//! through it as its number.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};
use std::thread;

use rustix::mount::{MountFlags, mount};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::error::Doing;
use crate::{Error, Result};

const MARK: &str = "FERRY_TESTBED_INSIDE";

/// Whether this process is process 1 of a world.
pub fn inside() -> bool {
    std::process::id() == 1 && std::env::var_os(MARK).is_some()
}

/// Runs ourselves with these arguments inside fresh namespaces; gives the exit code on.
pub fn enter(arguments: &[OsString]) -> Result<ExitCode> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).doing("listen for signals")?;
    let mut child = unshare()?.args(arguments).stdin(Stdio::piped()).spawn().map_err(|error| {
        Error::Machine(format!("cannot run unshare ({error}); apt-get install util-linux"))
    })?;
    let lifeline = child.stdin.take();
    thread::spawn(move || {
        let mut lifeline = lifeline;
        for signal in signals.forever() {
            eprintln!("\nferry-testbed: stopped; the kernel takes the world away");
            let number = u8::try_from(signal).unwrap_or(0);
            // If nobody reads, the world has ended by itself and so do we.
            let _ = lifeline.as_mut().map(|pipe| pipe.write_all(&[number]));
        }
    });
    let status = child.wait().doing("wait for the world's end")?;
    Ok(ExitCode::from(code(status)))
}

/// Runs ourselves inside as [`enter`] does, but takes what is printed to standard error instead of passing it on.
pub fn try_inside(arguments: &[&str]) -> Result<(ExitStatus, String)> {
    let mut command = unshare()?;
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| {
        Error::Machine(format!("cannot run unshare ({error}); apt-get install util-linux"))
    })?;
    // Held until the end: dropping it would end the world.
    let lifeline = child.stdin.take();
    let output = child.wait_with_output().doing("wait for the world's end")?;
    drop(lifeline);
    Ok((output.status, String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

fn unshare() -> Result<Command> {
    let own = std::env::current_exe().doing("find our own executable")?;
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command.arg(own).env(MARK, "1");
    Ok(command)
}

/// As a shell would tell it.
fn code(status: ExitStatus) -> u8 {
    use std::os::unix::process::ExitStatusExt;
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1)
}

/// To be called first inside: follows the lifeline, and makes a place for namespaces and files that is seen by no
/// other process of the machine.
pub fn settle() -> Result<()> {
    thread::Builder::new().name("lifeline".to_owned()).spawn(follow_lifeline).doing("start a thread")?;
    // Over all of /run: /run/netns may not exist outside, and must not be made there.
    mount("tmpfs", "/run", "tmpfs", MountFlags::NOSUID | MountFlags::NODEV, None)
        .doing("mount a tmpfs on /run")?;
    for folder in ["/run/netns", crate::nodes::FILES] {
        fs::create_dir(folder).doing(format!("make {folder}"))?;
    }
    Ok(())
}

fn follow_lifeline() {
    let mut signal = [0];
    let asked = io::stdin().lock().read(&mut signal).is_ok_and(|length| length > 0);
    // Nothing to clean up: the kernel does it when process 1 is gone.
    std::process::exit(if asked { 128 + i32::from(signal[0]) } else { 1 });
}

/// Refuses a path that the world's own /run would hide.
pub fn check_visible(path: &Path) -> Result<()> {
    let absolute = std::path::absolute(path).doing(format!("find {}", path.display()))?;
    let folder = absolute.ancestors().find_map(|folder| folder.canonicalize().ok());
    if folder.is_some_and(|folder| folder.starts_with("/run")) {
        let path = path.display();
        return Err(Error::Usage(format!(
            "{path} lies below /run, which the world does not share; take another folder"
        )));
    }
    Ok(())
}

/// Why this machine cannot make the world; `None` if it can. Tries it.
pub fn obstacle() -> Result<Option<String>> {
    match try_inside(&["probe"]) {
        Ok((status, _)) if status.success() => Ok(None),
        Ok((status, said)) if said.is_empty() => Ok(Some(format!("unshare ended with {status}"))),
        Ok((_, said)) => Ok(Some(said.trim_start_matches("ferry-testbed: ").to_owned())),
        Err(Error::Machine(why)) => Ok(Some(why)),
        Err(error) => Err(error),
    }
}
