//! What is kept of a demo: where it is asked for, and always after a failure.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::Options;
use crate::error::Doing;
use crate::nodes::Node;
use crate::report::Demo;
use crate::trace::Event;
use crate::world::{NODES, UserMap, World};
use crate::{Result, correspondent, nodes};

/// Plays a demo, with a folder of its own if one is wanted, and concludes it. `play` gives everything that did not hold.
pub(super) fn keep(
    options: &Options,
    mut demo: Demo,
    play: impl FnOnce(Option<&Path>, &mut Demo) -> Result<Vec<String>>,
) -> Demo {
    let folder = options.out.as_ref().map(|out| out.join(demo.name));
    let made = folder.as_deref().map(make_folder).transpose();
    let mut problems =
        made.and_then(|_| play(folder.as_deref(), &mut demo)).unwrap_or_else(|error| vec![error.to_string()]);
    if let Some(Err(error)) = folder.as_deref().map(copy_logs) {
        problems.push(error.to_string());
    }
    if !problems.is_empty() {
        problems.push(keep_logs(demo.name, folder.as_deref()));
    }
    demo.conclude(&problems);
    demo
}

pub(super) fn make_folder(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).doing(format!("make {}", folder.display()))
}

/// Writes what nodes and testbed have told.
pub(super) fn write_events(events: &[Event], folder: &Path) -> Result<()> {
    let doing = "write trace.jsonl";
    let mut file = BufWriter::new(File::create(folder.join("trace.jsonl")).doing(doing)?);
    for event in events {
        let line = serde_json::to_string(event).doing(doing)?;
        writeln!(file, "{line}").doing(doing)?;
    }
    file.flush().doing(doing)
}

pub(super) fn copy_logs(folder: &Path) -> Result<()> {
    for node in NODES {
        let log = nodes::log(node);
        if log.exists() {
            fs::copy(log, folder.join(format!("{node}.log")))
                .doing(format!("keep the log of node {node}"))?;
        }
    }
    let log = correspondent::log();
    if log.exists() {
        fs::copy(log, folder.join("correspondent.log")).doing("keep the correspondent's log")?;
    }
    Ok(())
}

/// After a failure the nodes' own words are worth keeping, even if nobody asked for a folder.
pub(super) fn keep_logs(name: &str, folder: Option<&Path>) -> String {
    let to = folder.map_or_else(|| PathBuf::from("out").join(name), Path::to_owned);
    let kept = make_folder(&to).and_then(|()| {
        for node in NODES {
            let trace = nodes::folder(node).join("trace.jsonl");
            if trace.exists() {
                fs::copy(trace, to.join(format!("{node}.trace.jsonl"))).doing("keep a trace")?;
            }
        }
        copy_logs(&to)
    });
    match kept {
        Ok(()) => format!("evidence: {}", to.display()),
        Err(error) => format!("no evidence could be kept: {error}"),
    }
}

/// What the nodes' processes may do: told, and nothing of it good.
pub(super) fn check_privileges(world: &World, nodes: &[Node], demo: &mut Demo) -> Result<Vec<String>> {
    let all = nodes.iter().map(|node| node.privileges.capabilities).fold(0, |all, one| all | one);
    demo.node_capabilities = format!("{all:x}");
    let users = UserMap::read()?;
    demo.node_uids = world.hosts.iter().filter_map(|host| users.outside(host.uid)).collect();
    let mut problems = Vec::new();
    for (node, host) in nodes.iter().zip(&world.hosts) {
        if !node.privileges.are_none_but(host.uid) {
            problems.push(format!("node {} has privileges: {:?}", node.name, node.privileges));
        }
    }
    if demo.node_uids.contains(&0) {
        problems.push("a node runs as root".to_owned());
    }
    Ok(problems)
}
