//! Finding the `ferry` binary, or building it.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Doing;
use crate::{Error, Result};

/// The `ferry` that belongs to this testbed: the one beside our own executable. If it is missing or older than we
/// are, cargo is asked to build it; `cargo run -p ferry-testbed` builds no other package's binaries.
pub fn find() -> Result<PathBuf> {
    let own = env::current_exe().doing("find our own executable")?;
    let folder = own.parent().ok_or_else(|| Error::Machine("our executable lies in no folder".to_owned()))?;
    let ferry = folder.join("ferry");
    let why = match (modified(&ferry), modified(&own)) {
        (Err(_), _) => "is not there yet: building it",
        // Perhaps only because cargo built it first; then the next line takes no time.
        (Ok(ferry), Ok(own)) if ferry < own && sources().exists() => {
            "is older than the testbed: building it anew"
        }
        _ => return Ok(ferry),
    };
    eprintln!("{} {why} with cargo build -p ferry-node", ferry.display());
    build(folder)?;
    modified(&ferry)?;
    Ok(ferry)
}

fn modified(path: &Path) -> Result<std::time::SystemTime> {
    fs::metadata(path).and_then(|file| file.modified()).doing(format!("look at {}", path.display()))
}

/// The manifest of the workspace that we were built from.
fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).join("Cargo.toml")
}

/// Builds with the profile and into the target folder that we come from.
fn build(folder: &Path) -> Result<()> {
    let profile = match folder.file_name().and_then(|name| name.to_str()) {
        Some("debug") | None => "dev",
        Some(profile) => profile,
    };
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["build", "--package", "ferry-node", "--bin", "ferry", "--profile", profile]);
    command.arg("--manifest-path").arg(sources());
    if let Some(target) = folder.parent() {
        command.arg("--target-dir").arg(target);
    }
    let status = command.status().doing("start cargo")?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Program { command: "cargo build -p ferry-node".to_owned(), why: status.to_string() })
}
