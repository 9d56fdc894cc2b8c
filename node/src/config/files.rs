//! The files that a configuration names.

use std::io;
use std::path::{Path, PathBuf};

/// A file that the configuration names cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be read.
    #[error("cannot read {}: {why}; {right}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        why: io::Error,
        /// What would be right.
        right: &'static str,
    },
    /// It holds something else.
    #[error("{}: {what}; {right}", file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// What is there.
        what: String,
        /// What would be right.
        right: &'static str,
    },
}

const MAKE_KEYS: &str = "make it with `ferry keygen`";

/// Reads the secret that the nodes of a group share: 32 octets in hexadecimal.
pub fn read_secret(file: &Path) -> Result<[u8; 32], FileError> {
    let text = std::fs::read_to_string(file).map_err(|why| FileError::Unreadable {
        file: file.to_owned(),
        why,
        right: MAKE_KEYS,
    })?;
    unhex(text.trim()).ok_or_else(|| FileError::Malformed {
        file: file.to_owned(),
        what: format!("not 64 hexadecimal digits, but {} characters", text.trim().chars().count()),
        right: MAKE_KEYS,
    })
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits: Vec<u8> = text
        .chars()
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let octets: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    if digits.len() == 64 { octets.try_into().ok() } else { None }
}
