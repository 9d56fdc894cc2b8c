//! Scripts: readable conversations with our TCP, segment by segment, in virtual time.
//!
//! A script says what the peer sends, what the application calls, and exactly what we must send and when; the
//! shipped engine runs in-process behind a whole host, without sockets. The language is described in
//! `tests/scripts/README.md`; [`parse`] reads it and [`run`] plays it.

mod ast;
mod lex;
mod notation;
mod parse;
mod peer;
mod run;
mod settings;
mod show;
mod subject;
mod wire;

use core::fmt;
use std::path::{Path, PathBuf};

pub use ast::Script;
pub use lex::ParseError;
pub use parse::parse;
pub use run::{Mode, Report, run};

/// Why a script did not pass.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The script.
    pub name: String,
    /// The line, from 1.
    pub line: usize,
    /// What was expected and what came.
    pub message: String,
    /// What had happened before.
    pub before: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.before.is_empty() {
            writeln!(f, "what had happened:")?;
            self.before.iter().try_for_each(|line| writeln!(f, "    {line}"))?;
        }
        write!(f, "{}:{}: {}", self.name, self.line, self.message)
    }
}

impl ParseError {
    /// The message with the line and the column marked, for the script called `name` with this text.
    pub fn show(&self, name: &str, text: &str) -> String {
        let Self { line, column, message } = self;
        let source = text.lines().nth(line - 1).unwrap_or_default();
        let mark = " ".repeat(column - 1);
        format!("{name}:{line}:{column}: {message}\n    {source}\n    {mark}^")
    }
}

/// Reads a script and plays it in a mode. The error is ready to be printed.
pub fn play(name: &str, text: &str, mode: Mode) -> Result<Report, String> {
    let script = parse(name, text).map_err(|error| error.show(name, text))?;
    run(&script, mode).map_err(|failure| failure.to_string())
}

/// All scripts below a folder, in order of their names.
pub fn scripts_below(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(scripts_below(&path)?);
        } else if path.extension().is_some_and(|extension| extension == "script") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
