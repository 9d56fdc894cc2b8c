//! A client whose kernel has no Mobile IPv6 and which runs `ferry correspondent`: its download crosses between nodes,
//! and goes straight to and from whoever serves it, for as long as the path carries what that takes.

use core::sync::atomic::Ordering;
use core::time::Duration;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddrV6;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::clients::Upload;
use crate::clock::await_some;
use crate::demo::{Options, Stage};
use crate::error::Doing;
use crate::link::{Filter, Profile};
use crate::namespace::Namespace;
use crate::nodes::{self, FILES, last_lines};
use crate::world::{SERVICE, World};
use crate::{Error, Result};

/// Go on until so many connections have moved.
const HANDOFFS: usize = 6;
const PATIENCE: Duration = Duration::from_secs(30);
const BEAT: Duration = Duration::from_millis(2);

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    control: PathBuf,
    /// How it puts bindings into effect: `xfrm` or `tun`.
    pub mode: String,
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
        group: nodes::Options::default(),
        aware: false,
    };
    let mut stage = Stage::set("correspondent", &options, None)?;
    let before = configuration(&stage.world)?;
    let daemon = Daemon::start(&stage.world)?;
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

/// How soon a client is asked again, for as long as one waits for it.
const ASK_AGAIN_S: u32 = 2;
/// Octets that must come through while something does not.
const ENOUGH: u64 = 1 << 20;

/// A router on the path drops what Mobile IPv6 needs: what goes towards the nodes from the start of a transfer, or all
/// of it in the middle of one. The transfer goes on through the contact node, and straight again once all passes. Tells, as
/// JSON, how many packets were dropped, and how many segments went straight before, during and after that.
pub fn filtered(ferry: &Path) -> Result<String> {
    let options = Options {
        handoffs: 0,
        interval: Duration::from_hours(1),
        seed: 1,
        file_bytes: 1 << 20,
        echo_bytes: 0,
        out: None,
        ferry: ferry.to_owned(),
        // Slow, so that the transfer lasts.
        link: Profile { rate_mbit: 40, ..Profile::default() },
        group: nodes::Options { ask_again_s: ASK_AGAIN_S, ..nodes::Options::default() },
        aware: true,
    };
    let mut stage = Stage::set("filtered-path", &options, None)?;
    let mut told = Vec::new();
    // What is to meet the filter from the start goes first: later there is a binding of the stream before.
    for (filter, from_the_start) in [(Filter::Routing, true), (Filter::Extensions, false)] {
        told.push(through(&mut stage, filter, from_the_start)?);
    }
    match stage.strike().problems.first() {
        Some(problem) => Err(wrong(problem.clone())),
        None => Ok(serde_json::Value::from(told).to_string()),
    }
}

/// One stream through `echo`, whose every octet is checked, at node b.
fn through(stage: &mut Stage, filter: Filter, from_the_start: bool) -> Result<Value> {
    let echo = SocketAddrV6::new(SERVICE, 7, 0, 0);
    let upload = Upload::start(&stage.world.client, echo, 64 << 20, 1)?;
    await_some("the first octets", PATIENCE, BEAT, || Ok((upload.progress() > 0).then_some(())))?;
    if from_the_start {
        stage.world.link.set_filter(filter);
    }
    let [a, b, _] = &mut stage.nodes[..] else { return Err(wrong("there are no three nodes".to_owned())) };
    let moved = a.control.handoff_all("b")?;
    if moved.moved != 1 {
        return Err(wrong(format!("the stream did not move: {moved:?}")));
    }
    let mut straight = || Ok(b.control.status()?.counters.optimised);
    let begun = straight()?;
    if !from_the_start {
        await_some("straight segments", PATIENCE, BEAT, || Ok((straight()? > begun + 100).then_some(())))?;
        stage.world.link.set_filter(filter);
    }
    // It goes on for a while in which nothing goes straight.
    let (mut last, mut mark) = (straight()?, upload.progress());
    await_some("octets by the contact node", PATIENCE, BEAT, || {
        let (now, progress) = (straight()?, upload.progress());
        if now != last {
            (last, mark) = (now, progress);
        }
        Ok((progress > mark + ENOUGH).then_some(()))
    })?;
    let dropped = stage.world.link.counters().filtered.load(Ordering::Relaxed);
    stage.world.link.set_filter(Filter::None);
    let again = await_some("straight segments again", PATIENCE, BEAT, || {
        let now = straight()?;
        Ok((now > last + 100).then_some(now))
    })?;
    upload.finish()?;
    Ok(serde_json::json!({ "dropped": dropped, "before": last - begun, "after": again - last }))
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
    /// Starts it on the client's host, in the way that the kernel allows, and waits until it is ready.
    pub fn start(world: &World) -> Result<Self> {
        Self::start_on(&world.client)
    }

    /// The same on another client's host. There can be one daemon in a world.
    pub fn start_on(host: &Namespace) -> Result<Self> {
        let control = Path::new(FILES).join("correspondent.sock");
        let mut command = host.command(Path::new(FILES).join("bin/ferry"));
        command.args(["correspondent", "--service", "2001:db8:5::/64", "--control"]);
        let said =
            File::options().create(true).append(true).open(log()).doing("open the correspondent's log")?;
        command.arg(&control).stdout(Stdio::piped()).stderr(said);
        let mut child = command.spawn().doing("start the correspondent")?;
        let mut line = String::new();
        if let Some(said) = child.stdout.take() {
            BufReader::new(said).read_line(&mut line).doing("listen to the correspondent")?;
        }
        let mode = line.trim().strip_prefix("ready ").unwrap_or_default().to_owned();
        let daemon = Self { child, control, mode };
        if daemon.mode.is_empty() {
            return Err(wrong(format!("the correspondent said {line:?}\n{}", last_lines(&log()))));
        }
        Ok(daemon)
    }

    /// How it is, in its own words.
    pub fn status(&self) -> Result<Value> {
        let mut command = Command::new(Path::new(FILES).join("bin/ferry"));
        command.args(["correspondent", "status", "--json", "--control"]).arg(&self.control);
        let output = command.output().doing("ask the correspondent")?;
        serde_json::from_slice(&output.stdout).doing("read what the correspondent answered")
    }

    /// Asks it to leave, and waits for that.
    pub fn stop(mut self) -> Result<()> {
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

/// The file that it logs to.
pub fn log() -> PathBuf {
    Path::new(FILES).join("correspondent.log")
}

fn wrong(why: String) -> Error {
    Error::Program { command: "ferry correspondent".to_owned(), why }
}
