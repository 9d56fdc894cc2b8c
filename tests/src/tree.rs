//! The source tree itself, for the tests that hold what must be true of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The folder of the workspace.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Every Rust source below a folder.
pub fn sources(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in folder.read_dir()? {
        let path = entry?.path();
        if path.is_dir() {
            found.append(&mut sources(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(found)
}

/// The names of all functions that are tests.
pub fn tests() -> io::Result<BTreeSet<String>> {
    let mut files = Vec::new();
    for member in ["stack", "mipv6", "handoff", "node", "tests", "testbed"] {
        files.append(&mut sources(&root().join(member))?);
    }
    let mut names = BTreeSet::new();
    for file in files {
        let mut behind_test = false;
        for line in fs::read_to_string(file)?.lines().map(str::trim) {
            let name = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
            if let Some(name) = name.and_then(|rest| rest.split('(').next()).filter(|_| behind_test) {
                names.insert(name.to_owned());
            }
            let is_test = line == "#[test]" || line.starts_with("#[tokio::test");
            behind_test = is_test || (behind_test && line.starts_with("#["));
        }
    }
    Ok(names)
}

/// What stands between backticks.
pub fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
