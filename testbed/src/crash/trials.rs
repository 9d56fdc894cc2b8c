//! Each way in which a node can be lost, under a client's download and its strict two-way stream.

use core::time::Duration;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::mount::{MountFlags, mount};
use rustix::process::Signal;

use super::show::{Show, Size};
use super::{Crew, ECHO, PATIENCE, STRICT, attempt, service};
use crate::clock::await_some;
use crate::error::Doing;
use crate::link::Profile;
use crate::nodes::{self, FILES, give};
use crate::world::{NODES, TAP};
use crate::{Error, Result};

/// All of them.
pub const NAMES: [&str; 8] = [
    "killed",
    "stopped",
    "tap-removed",
    "cable-cut",
    "disk-full",
    "contact-killed",
    "contact-stopped",
    "contact-cable-cut",
];

/// The transfers take some seconds.
const LINK: Profile = Profile { rate_mbit: 100, ..Profile::GOOD };
const SIZE: Size = Size { file: 48 << 20, echo: 24 << 20, seed: 1 };
/// Not the contact node, which is lost in trials of its own.
const VICTIM: usize = 1;
const CONTACT: usize = 0;
/// Longer than a round trip of the link.
const ATTEMPT: Duration = Duration::from_millis(200);
const BEAT: Duration = Duration::from_millis(10);

/// Carries one out; tells what the nodes say at its end. Any octet that is wrong is an error.
pub fn run(name: &str, ferry: &Path) -> Result<String> {
    let group = nodes::Options { services: STRICT, ..nodes::Options::default() };
    let mut crew = Crew::prepare(ferry, LINK, group)?;
    let mut show = Show::prepare(&crew, SIZE)?;
    if name == "disk-full" {
        fill_disk(&crew)?;
    }
    crew.start()?;
    show.keep_up(&crew)?;
    let (fate, victim) = name.strip_prefix("contact-").map_or((name, VICTIM), |fate| (fate, CONTACT));
    if victim != CONTACT {
        crew.node(CONTACT)?.control.handoff_all(NODES[victim])?;
    }
    crew.await_protection(show.connections())?;
    match fate {
        "killed" => crew.kill(victim).map(drop)?,
        "stopped" => crew.node(victim)?.signal(Signal::STOP)?,
        "tap-removed" => crew.world.hosts[victim].namespace.batch(&format!("link del {TAP}"))?,
        "cable-cut" => crew.world.cut(NODES[victim])?,
        _ => return with_full_disk(&mut crew, &mut show),
    }
    let others: Vec<usize> = (0..NODES.len()).filter(|index| *index != victim).collect();
    await_some("other owners", PATIENCE, BEAT, || {
        let mut owned = 0;
        for index in &others {
            owned += crew.node(*index)?.control.connections()?.len();
        }
        Ok((owned >= show.connections()).then_some(()))
    })?;
    new_connection(&crew)?;
    if fate == "stopped" {
        come_back(&mut crew, victim)?;
        new_connection(&crew)?;
    }
    show.finish()?;
    tell(&mut crew, &others)
}

/// Whoever is the contact node by now.
fn new_connection(crew: &Crew) -> Result<()> {
    let client = &crew.world.client;
    let attempt = || client.run(|| Ok(attempt(service(ECHO), ATTEMPT)));
    await_some("a new connection", PATIENCE, BEAT, attempt).map(drop)
}

/// The node that was only slow learns that it has lost its connections, and the role if it had that, says so, and is one of the
/// group again.
fn come_back(crew: &mut Crew, victim: usize) -> Result<()> {
    crew.node(victim)?.signal(Signal::CONT)?;
    await_some("the node that was slow to know it", PATIENCE, BEAT, || {
        let status = crew.node(victim)?.control.status()?;
        let lost = status.counters.lost_ownership >= 2
            && status.connections == 0
            && status.contact_node == if victim == CONTACT { NODES[1] } else { NODES[CONTACT] };
        Ok((lost && status.peers.iter().all(|peer| peer.up)).then_some(()))
    })
}

/// Where the victim's log and trace go, nothing has room any more.
fn fill_disk(crew: &Crew) -> Result<()> {
    let disk = Path::new(FILES).join("disk");
    fs::create_dir_all(&disk).doing("make a folder")?;
    mount("tmpfs", &disk, "tmpfs", MountFlags::NOSUID, Some(c"size=16k")).doing("mount a small tmpfs")?;
    let host = &crew.world.hosts[VICTIM];
    for (link, file) in
        [(nodes::log(host.node), "log"), (nodes::folder(host.node).join("trace.jsonl"), "trace")]
    {
        let file = disk.join(file);
        fs::write(&file, "").doing("make a file")?;
        give(&file, host.uid, 0o600)?;
        symlink(&file, &link).doing("link a file")?;
    }
    // It ends with "no space left", which is the point.
    match fs::write(disk.join("full"), vec![0; 1 << 20]) {
        Err(why) if why.kind() == std::io::ErrorKind::StorageFull => Ok(()),
        other => Err(Error::Machine(format!("a small tmpfs took too much: {other:?}"))),
    }
}

/// Connections come and go at the node that cannot write, and it serves to the end.
fn with_full_disk(crew: &mut Crew, show: &mut Show) -> Result<String> {
    for (from, to) in [(VICTIM, 2), (2, VICTIM), (VICTIM, 0), (0, VICTIM)] {
        crew.await_protection(show.connections())?;
        let moved = crew.node(from)?.control.handoff_all(NODES[to])?;
        if moved.moved == 0 {
            return Err(Error::Node {
                node: NODES[from].to_owned(),
                why: format!("moved nothing: {moved:?}"),
            });
        }
    }
    show.finish()?;
    crew.node(VICTIM)?.check_alive()?;
    tell(crew, &[0, 1, 2])
}

fn tell(crew: &mut Crew, nodes: &[usize]) -> Result<String> {
    let statuses =
        nodes.iter().map(|index| crew.node(*index)?.control.status()).collect::<Result<Vec<_>>>()?;
    if let Some(status) = statuses.iter().find(|status| status.counters.resets_sent > 0) {
        return Err(Error::Node { node: status.name.clone(), why: "sent a RST".to_owned() });
    }
    serde_json::to_string(&statuses).doing("tell how the nodes are")
}
