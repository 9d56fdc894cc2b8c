//! The nodes: `ferry node` processes without privileges, each in its host's namespace.

use core::time::Duration;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;

use rustix::process::{Pid, Signal, kill_process};

use crate::clock::await_some;
use crate::control::Control;
use crate::cores::pin_process;
use crate::error::Doing;
use crate::sys::urgent::as_server;
use crate::trace::{self, Event};
use crate::world::{Host, SERVICE, TAP, World};
use crate::{Error, Result};

/// Everything of the world's that is a file lies below, on a file system that goes away with it.
pub const FILES: &str = "/run/ferry";
/// The group's name.
pub const GROUP: &str = "demo";
const LINK_PORT: u16 = 7400;
const START: Duration = Duration::from_secs(20);

/// What can be set about the group.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// As in a node's configuration.
    pub placement: &'static str,
    /// As in a node's configuration.
    pub plain_source: &'static str,
    /// As in a node's configuration.
    pub ask_again_s: u32,
    /// As in a node's configuration.
    pub tokens_ahead: &'static str,
    /// What each node serves.
    pub services: &'static [Offer],
}

/// A service of the group.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    kind: &'static str,
    port: u16,
    /// How many other nodes hold a copy of a connection, and what waits for them.
    copies: Option<(u8, &'static str)>,
}

impl Offer {
    /// Without copies.
    pub const fn plain(kind: &'static str, port: u16) -> Self {
        Self { kind, port, copies: None }
    }

    /// With one copy.
    pub const fn protected(kind: &'static str, port: u16, commit: &'static str) -> Self {
        Self { kind, port, copies: Some((1, commit)) }
    }

    /// As a node's configuration has it.
    fn section(&self) -> String {
        let Self { kind, port, copies } = self;
        let mut text = format!("\n[[service]]\nkind = \"{kind}\"\nport = {port}\n");
        if *kind == "file" {
            text += "root = \"www\"\n";
        }
        if let Some((replicas, commit)) = copies {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "replicas = {replicas}\ncommit = \"{commit}\"");
        }
        text
    }
}

const SERVICES: &[Offer] = &[Offer::plain("echo", 7), Offer::plain("discard", 9), Offer::plain("file", 80)];

impl Default for Options {
    fn default() -> Self {
        Self {
            placement: "local",
            plain_source: "auto",
            ask_again_s: 600,
            tokens_ahead: "auto",
            services: SERVICES,
        }
    }
}

/// Makes the folders, the keys and one configuration for each node; starts nothing.
pub fn prepare(world: &World, ferry: &Path, options: Options) -> Result<()> {
    // Of an earlier world in this process.
    for old in fs::read_dir(FILES).into_iter().flatten().flatten() {
        if old.file_type().is_ok_and(|kind| kind.is_dir()) {
            fs::remove_dir_all(old.path()).doing(format!("remove {}", old.path().display()))?;
        }
    }
    let bin = Path::new(FILES).join("bin");
    let www = Path::new(FILES).join("www");
    for folder in [&bin, &www] {
        fs::create_dir_all(folder).doing(format!("make {}", folder.display()))?;
    }
    // A copy, because the node's user may not be able to reach the build's folder.
    let copy = bin.join("ferry");
    fs::copy(ferry, &copy).doing(format!("copy {}", ferry.display()))?;
    let keys = Path::new(FILES).join("keys");
    let mut keygen = Command::new(&copy);
    keygen.args(["keygen", "--group", GROUP, "--out"]).arg(&keys);
    for host in &world.hosts {
        keygen.args(["--node", host.node]);
    }
    run(&mut keygen)?;
    for host in &world.hosts {
        let folder = folder(host.node);
        fs::create_dir_all(folder.join("www")).doing(format!("make {}", folder.display()))?;
        for key in ["ca.pem", "group.secret", &format!("{}.pem", host.node), &format!("{}.key", host.node)] {
            let to = folder.join(key);
            fs::copy(keys.join(key), &to).doing(format!("copy {key}"))?;
            give(&to, host.uid, 0o600)?;
        }
        let config = folder.join("node.toml");
        fs::write(&config, configuration(world, host, options))
            .doing(format!("write {}", config.display()))?;
        give(&config, host.uid, 0o600)?;
        give(&folder.join("www"), host.uid, 0o755)?;
        give(&folder, host.uid, 0o700)?;
    }
    Ok(())
}

/// The folder of a node's files.
pub fn folder(node: &str) -> PathBuf {
    Path::new(FILES).join(node)
}

/// Lets every node serve a file under its own `www`. The nodes hold it by hard links: equal by construction.
pub fn publish(world: &World, file: &Path, name: &str) -> Result<()> {
    fs::set_permissions(file, fs::Permissions::from_mode(0o644)).doing("publish a file")?;
    for host in &world.hosts {
        let to = folder(host.node).join("www").join(name);
        fs::hard_link(file, &to).doing(format!("make {}", to.display()))?;
    }
    Ok(())
}

fn configuration(world: &World, host: &Host, options: Options) -> String {
    let Host { node, link_address, gateway, care_of, .. } = host;
    let contact = world.hosts[0].node;
    let mut text = format!(
        r#"name = "{node}"
control = "{}"

[group]
name = "{GROUP}"
service-address = "{SERVICE}"
contact = "{contact}"
secret-file = "group.secret"
placement = "{}"
plain-source = "{}"
ask-again-s = {}
tokens-ahead = "{}"

[tap]
device = "{TAP}"
address = "{care_of}/64"
gateway = "{gateway}"

[peer-link]
listen = "[{link_address}]:{LINK_PORT}"
ca = "ca.pem"
certificate = "{node}.pem"
key = "{node}.key"
"#,
        control_socket(node).display(),
        options.placement,
        options.plain_source,
        options.ask_again_s,
        options.tokens_ahead,
    );
    for peer in world.hosts.iter().filter(|peer| peer.node != *node) {
        let Host { node, care_of, link_address, .. } = peer;
        // Writing to a string cannot fail.
        let _ = write!(
            text,
            "\n[[peer]]\nname = \"{node}\"\ncare-of = \"{care_of}\"\nlink = \"[{link_address}]:{LINK_PORT}\"\n"
        );
    }
    text + &options.services.iter().map(Offer::section).collect::<String>()
}

/// Where a node listens for commands.
pub fn control_socket(node: &str) -> PathBuf {
    folder(node).join("control.sock")
}

/// Makes a file another user's.
pub fn give(path: &Path, uid: u32, mode: u32) -> Result<()> {
    let doing = format!("give {} to user {uid}", path.display());
    chown(path, Some(uid), Some(uid)).doing(&doing)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).doing(doing)
}

/// Runs a program and takes nothing but success.
pub fn run(command: &mut Command) -> Result<()> {
    let line = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().doing(&line)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Error::Program { command: line, why: format!("{}: {said}", output.status) })
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    /// Its name.
    pub name: &'static str,
    /// What its process may do.
    pub privileges: Privileges,
    /// Its control socket.
    pub control: Control,
    child: Child,
}

impl Node {
    /// Starts a node and waits until it serves.
    pub fn start(host: &Host) -> Result<Self> {
        let mut child = spawn(host, &folder(host.node).join("node.toml"), true)?;
        if let Err(error) = await_ready(&mut child, host) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        let control = Control::connect(host.node, &control_socket(host.node))?;
        Ok(Self { name: host.node, privileges: Privileges::of(child.id())?, control, child })
    }

    /// Fails if the process has ended.
    pub fn check_alive(&mut self) -> Result<()> {
        match self.child.try_wait().doing("look after a node")? {
            None => Ok(()),
            Some(status) => Err(self.wrong(&format!("ended with {status}"))),
        }
    }

    /// Asks it to drain and to leave, and waits for that.
    pub fn stop(&mut self, within: Duration) -> Result<ExitStatus> {
        if let Some(status) = self.child.try_wait().doing("look after a node")? {
            return Ok(status);
        }
        self.signal(Signal::TERM)?;
        let what = format!("the end of node {}", self.name);
        await_some(&what, within, Duration::from_millis(5), || self.child.try_wait().doing("wait for a node"))
    }

    /// Sends its process a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| self.wrong("has no process id"))?;
        kill_process(pid, signal).doing(format!("signal node {}", self.name))
    }

    /// Keeps its process on one core; on a machine with fewer, on the last.
    pub fn keep_on(&self, core: usize) -> Result<()> {
        pin_process(self.child.id(), core)
    }

    /// Waits for the end of a process that was killed.
    pub fn await_death(&mut self, within: Duration) -> Result<ExitStatus> {
        let what = format!("the death of node {}", self.name);
        await_some(&what, within, Duration::from_millis(5), || self.child.try_wait().doing("wait for a node"))
    }

    /// What it has traced so far.
    pub fn trace(&self) -> Result<Vec<Event>> {
        trace::read(self.name, &folder(self.name).join("trace.jsonl"))
    }

    fn wrong(&self, why: &str) -> Error {
        Error::Node { node: self.name.to_owned(), why: format!("{why}\n{}", last_lines(&log(self.name))) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It has ended already, unless something went wrong.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Nodes say that they are ready before they have found each other, or where packets leave their link: waits until each has links
/// to so many others, and its gateway has answered. That may have come to its link too late for the first question.
pub fn await_links(nodes: &mut [Node], others: usize) -> Result<()> {
    for node in nodes {
        let what = format!("the links of node {}, and its gateway", node.name);
        await_some(&what, START, Duration::from_millis(10), || {
            let status = node.control.status()?;
            let up = status.peers.iter().filter(|peer| peer.up).count();
            Ok((up >= others && status.gateway_answers).then_some(()))
        })?;
    }
    Ok(())
}

/// The file that a node's process logs to.
pub fn log(node: &str) -> PathBuf {
    folder(node).join("log")
}

/// The end of a log.
pub fn last_lines(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// Starts `ferry node` with a configuration in its host's namespace, as its user, without waiting for anything.
/// With `hand_tap`, it inherits the attached TAP; without, it must open it by itself.
pub fn spawn(host: &Host, config: &Path, hand_tap: bool) -> Result<Child> {
    let own = std::env::current_exe().doing("find our own executable")?;
    let mut command = host.namespace.command(own);
    command.args(["become-node", "--uid", &host.uid.to_string()]);
    if hand_tap {
        command.args(["--tap", TAP]);
    }
    command.arg("--").arg(Path::new(FILES).join("bin/ferry")).arg("node").arg("--config").arg(config);
    command.arg("--trace").arg(folder(host.node).join("trace.jsonl"));
    let log = File::options().create(true).append(true).open(log(host.node)).doing("open a node's log")?;
    // A process group of its own: Ctrl-C on the terminal is for the testbed to deal with.
    command.process_group(0).stdout(Stdio::piped()).stderr(log);
    as_server(|| command.spawn()).doing(format!("start node {}", host.node))
}

fn await_ready(child: &mut Child, host: &Host) -> Result<()> {
    let wrong = |why: String| {
        let log = last_lines(&log(host.node));
        Error::Node { node: host.node.to_owned(), why: format!("{why}\n{log}") }
    };
    let output = child.stdout.take().ok_or_else(|| wrong("has no standard output".to_owned()))?;
    let (lines, first) = mpsc::channel();
    // Reads on after the first line, so that the node never finds its output closed.
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(core::result::Result::ok) {
            let _ = lines.send(line);
        }
    });
    let line = match first.recv_timeout(START) {
        Ok(line) => line,
        Err(mpsc::RecvTimeoutError::Timeout) => {
            return Err(wrong(format!("did not get ready within {} s", START.as_secs())));
        }
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            let status = child.wait().doing("wait for a node")?;
            return Err(wrong(format!("ended before it was ready, with {status}")));
        }
    };
    if line == format!("ready {} {}", host.node, host.care_of) {
        return Ok(());
    }
    Err(wrong(format!("said {line:?} instead of ready")))
}

/// What a process may do, as the kernel says in `/proc/PID/status`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Privileges {
    /// Real, effective, saved and file-system user.
    pub uids: Vec<u32>,
    /// All capability sets joined: inheritable, permitted, effective, bounding, ambient.
    pub capabilities: u64,
    /// Whether no program that it starts can gain any.
    pub no_new_privileges: bool,
}

impl Privileges {
    /// Of a running process.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/status");
        Ok(Self::parse(&fs::read_to_string(&path).doing(format!("read {path}"))?))
    }

    fn parse(status: &str) -> Self {
        let mut privileges = Self { uids: Vec::new(), capabilities: 0, no_new_privileges: false };
        for (name, value) in status.lines().filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match name {
                "Uid" => privileges.uids = value.split_whitespace().flat_map(str::parse).collect(),
                // What cannot be read counts as all of them.
                "CapInh" | "CapPrm" | "CapEff" | "CapBnd" | "CapAmb" => {
                    privileges.capabilities |= u64::from_str_radix(value, 16).unwrap_or(u64::MAX);
                }
                "NoNewPrivs" => privileges.no_new_privileges = value == "1",
                _ => {}
            }
        }
        privileges
    }

    /// Whether the process is `uid` and nothing more.
    pub fn are_none_but(&self, uid: u32) -> bool {
        self.uids == [uid; 4] && self.capabilities == 0 && self.no_new_privileges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capability_in_any_set_counts() {
        let status = "Name:\tferry\nUid:\t64001\t64001\t64001\t64001\nCapInh:\t0000000000000000\n\
                      CapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000400\n\
                      CapAmb:\t0000000000000000\nNoNewPrivs:\t1\n";
        assert_eq!(Privileges::parse(status).capabilities, 0x400);
        assert!(!Privileges::parse(status).are_none_but(64001));
        let none = status.replace("0400", "0000");
        assert!(Privileges::parse(&none).are_none_but(64001));
        assert!(!Privileges::parse(&none).are_none_but(64002));
        assert!(!Privileges::parse(&none.replace("Privs:\t1", "Privs:\t0")).are_none_but(64001));
        assert!(!Privileges::parse("").are_none_but(64001));
    }
}
