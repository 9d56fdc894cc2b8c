//! Finds the running node that is meant, and asks it.

use std::error::Error;
use std::path::{Path, PathBuf};

use ferry_node::config::{Config, control_folders};
use ferry_node::driver::Client;
use ferry_node::{Command, Reply};

use crate::args::WhichNode;

/// The control socket of the node that is meant.
pub(crate) fn path(which: &WhichNode) -> Result<PathBuf, Box<dyn Error>> {
    match which {
        WhichNode { control: Some(path), .. } => Ok(path.clone()),
        WhichNode { config: Some(file), .. } => Ok(Config::load(file)?.control),
        WhichNode { control: None, config: None } => {
            let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
            only(&control_folders(runtime_dir.as_deref()))
        }
    }
}

/// The only socket in the usual folders.
fn only(folders: &[PathBuf]) -> Result<PathBuf, Box<dyn Error>> {
    let mut found: Vec<PathBuf> = folders.iter().flat_map(|folder| sockets(folder)).collect();
    let list = |paths: &[PathBuf]| {
        paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
    };
    match found.as_slice() {
        [_] => Ok(found.swap_remove(0)),
        [] => Err(format!("there is no control socket in {}; name one with --control, or the node's configuration with --config", list(folders)).into()),
        _ => Err(format!("there are several nodes here: {}; name one with --control", list(&found)).into()),
    }
}

fn sockets(folder: &Path) -> Vec<PathBuf> {
    // A folder that is not there has no sockets.
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "sock"))
        // Those of the other daemons.
        .filter(|path| {
            !["correspondent", "home-agent"].iter().any(|name| path.file_stem() == Some(name.as_ref()))
        })
        .collect()
}

/// One answer of the node that is meant. With `--json` it is printed as it came, and nothing is left to show.
pub(crate) fn ask(which: &WhichNode, json: bool, command: &Command) -> Result<Option<Reply>, Box<dyn Error>> {
    let (reply, line) = Client::connect(&path(which)?)?.ask(command)?;
    if json {
        println!("{line}");
        return Ok(None);
    }
    match reply {
        Reply::Error { why } => Err(why.into()),
        reply => Ok(Some(reply)),
    }
}
