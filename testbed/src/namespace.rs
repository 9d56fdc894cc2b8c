//! Network namespaces.
//!
//! They are made and configured with `ip` of iproute2 rather than with a netlink library: every reader knows its
//! language, a failing line can be typed again by hand, and no library is as complete or as well kept.

use std::fs::{self, File};
use std::io::Write;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::Doing;
use crate::{Error, Result};

/// A network namespace with a name that `ip netns` knows inside the world, and nobody outside of it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    file: File,
}

impl Namespace {
    /// Makes a namespace with its loopback up.
    pub fn add(name: &str) -> Result<Self> {
        ip(&["netns", "add", name])?;
        let path = format!("/run/netns/{name}");
        let file = File::open(&path).doing(format!("open {path}"))?;
        let namespace = Self { name: name.to_owned(), file };
        namespace.batch("link set lo up")?;
        Ok(namespace)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `work` on a thread inside the namespace. A socket or a TAP that it makes stays there.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let inside = || {
            let kind = Some(LinkNameSpaceType::Network);
            move_into_link_name_space(self.file.as_fd(), kind)
                .doing(format!("enter the network namespace {}", self.name))?;
            work()
        };
        thread::scope(|scope| match scope.spawn(inside).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Carries out lines of `ip` commands.
    pub fn batch(&self, lines: &str) -> Result<()> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name, "-batch", "-"]).stdin(Stdio::piped());
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().doing("start ip")?;
        if let Some(mut input) = child.stdin.take() {
            input.write_all(lines.as_bytes()).doing("tell ip what to do")?;
        }
        let output = child.wait_with_output().doing("wait for ip")?;
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Program {
            command: format!("ip -n {} -batch -", self.name),
            why: format!("{} in:\n{lines}", String::from_utf8_lossy(&output.stderr).trim()),
        })
    }

    /// Sets kernel parameters below `/proc/sys/net`.
    pub fn set(&self, parameters: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            for (name, value) in parameters {
                let path = format!("/proc/sys/net/{name}");
                fs::write(&path, value).doing(format!("write {value} to {path}"))?;
            }
            Ok(())
        })
    }

    /// A command that will run inside the namespace.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program).stdin(Stdio::null());
        command
    }

    /// The index of one of its interfaces.
    pub fn interface(&self, name: &str) -> Result<u32> {
        self.run(|| {
            let socket =
                rustix::net::socket(rustix::net::AddressFamily::INET6, rustix::net::SocketType::DGRAM, None)
                    .doing("open a socket")?;
            rustix::net::netdevice::name_to_index(&socket, name).doing(format!("find interface {name}"))
        })
    }
}

impl Drop for Namespace {
    /// Another of its name can be made. What is left of it goes with the last process in it.
    fn drop(&mut self) {
        let command = Command::new("ip").args(["netns", "del", &self.name]).stderr(Stdio::null()).status();
        // The name goes with the world's files at the latest.
        drop(command);
    }
}

/// Runs `ip` and takes nothing but success.
pub fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Error::Machine(format!("cannot run ip ({error}); apt-get install iproute2")))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Program {
        command: format!("ip {}", arguments.join(" ")),
        why: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
    })
}
