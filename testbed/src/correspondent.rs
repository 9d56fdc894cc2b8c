//! A client whose kernel has no Mobile IPv6 and which runs `ferry correspondent`: its download crosses between nodes,
//! and goes straight to and from whoever serves it.

use core::time::Duration;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::clock::await_some;
use crate::demo::{Options, Stage};
use crate::error::Doing;
use crate::link::Profile;
use crate::nodes::FILES;
use crate::world::World;
use crate::{Error, Result};

/// Go on until so many connections have moved.
const HANDOFFS: usize = 6;
const PATIENCE: Duration = Duration::from_secs(10);

/// A running daemon.
struct Daemon {
    child: Child,
    control: PathBuf,
}

/// Downloads while the connection moves. Tells, as JSON, how the daemon was at the end, and how many segments each node
/// sent straight. It is an error if anything went wrong, or was left behind.
pub fn run(ferry: &Path) -> Result<String> {
    let options = Options {
        handoffs: HANDOFFS,
        interval: Duration::from_millis(300),
        seed: 1,
        file_bytes: 64 << 20,
        echo_bytes: 8 << 20,
        out: None,
        ferry: ferry.to_owned(),
        link: Profile::default(),
    };
    let mut stage = Stage::set("correspondent", &options, None)?;
    let before = configuration(&stage.world)?;
    let mut daemon = Daemon::start(&stage.world)?;
    while stage.driver.moved() < HANDOFFS {
        stage.download(true)?;
    }
    stage.upload(options.echo_bytes, options.seed)?;
    let status = daemon.status()?;
    let mut sent = Vec::new();
    for node in &mut stage.nodes {
        sent.push(node.control.status()?.counters.optimised);
    }
    daemon.stop()?;
    let after = configuration(&stage.world)?;
    if before != after {
        return Err(wrong(format!("the daemon left something behind:\n{before}\nbecame\n{after}")));
    }
    match stage.strike().problems.first() {
        Some(problem) => Err(wrong(problem.clone())),
        None => Ok(serde_json::json!({ "status": status, "optimised": sent }).to_string()),
    }
}

/// Links, rules and routes of the client, without what changes by itself.
fn configuration(world: &World) -> Result<String> {
    let mut all = String::new();
    for arguments in [&["-br", "link"][..], &["-6", "rule"], &["-6", "route", "show", "table", "all"]] {
        let output = Command::new("ip").args(["-n", world.client.name()]).args(arguments).output();
        all += &String::from_utf8_lossy(&output.doing("look at the client")?.stdout);
    }
    Ok(all)
}

impl Daemon {
    fn start(world: &World) -> Result<Self> {
        let control = Path::new(FILES).join("correspondent.sock");
        let mut command = world.client.command(Path::new(FILES).join("bin/ferry"));
        command.args(["correspondent", "--mode", "tun", "--service", "2001:db8:5::/64", "--control"]);
        command.arg(&control).stdout(Stdio::piped());
        let mut child = command.spawn().doing("start the correspondent")?;
        let mut line = String::new();
        if let Some(said) = child.stdout.take() {
            BufReader::new(said).read_line(&mut line).doing("listen to the correspondent")?;
        }
        let daemon = Self { child, control };
        if line == "ready tun\n" {
            Ok(daemon)
        } else {
            Err(wrong(format!("the correspondent said {line:?}")))
        }
    }

    fn status(&self) -> Result<Value> {
        let mut command = Command::new(Path::new(FILES).join("bin/ferry"));
        command.args(["correspondent", "status", "--json", "--control"]).arg(&self.control);
        let output = command.output().doing("ask the correspondent")?;
        serde_json::from_slice(&output.stdout).doing("read what the correspondent answered")
    }

    fn stop(&mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            kill_process(pid, Signal::TERM).doing("end the correspondent")?;
        }
        let ended = await_some("the end of the correspondent", PATIENCE, Duration::from_millis(5), || {
            self.child.try_wait().doing("wait for the correspondent")
        })?;
        if ended.success() { Ok(()) } else { Err(wrong(format!("the correspondent left with {ended}"))) }
    }
}

impl Drop for Daemon {
    /// Only where something went wrong is it still there.
    fn drop(&mut self) {
        self.child.kill().unwrap_or_default();
    }
}

fn wrong(why: String) -> Error {
    Error::Program { command: "ferry correspondent".to_owned(), why }
}
