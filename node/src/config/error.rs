//! What is wrong with a configuration, said so that it can be mended.

use core::fmt;
use core::ops::Range;
use std::path::{Path, PathBuf};

/// A configuration cannot be used. Its text has one line for each problem: `FILE:LINE: what; what would be right`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong with it; at least one, in the order of the lines.
    pub problems: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The line, counted from 1; absent if the file cannot be read at all.
    pub line: Option<usize>,
    /// What is there.
    pub what: String,
    /// What would be right.
    pub right: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Problem { line, what, right }) in self.problems.iter().enumerate() {
            let newline = if index == 0 { "" } else { "\n" };
            write!(f, "{newline}{}:", self.file.display())?;
            if let Some(line) = line {
                write!(f, "{line}:")?;
            }
            write!(f, " {what}; {right}")?;
        }
        Ok(())
    }
}

/// A problem that still knows where it stands only as octets of the text.
#[derive(Debug)]
pub(super) struct Spotted {
    pub(super) at: Range<usize>,
    pub(super) what: String,
    pub(super) right: String,
}

impl ConfigError {
    pub(super) fn unreadable(file: &Path, why: &str) -> Self {
        let what = format!("cannot be read: {why}");
        let right = "name a file that you may read with --config".to_owned();
        Self { file: file.to_owned(), problems: vec![Problem { line: None, what, right }] }
    }

    pub(super) fn new(file: &Path, text: &str, spotted: Vec<Spotted>) -> Self {
        let mut problems: Vec<Problem> = spotted
            .into_iter()
            .map(|Spotted { at, what, right }| Problem { line: Some(line_of(text, at.start)), what, right })
            .collect();
        problems.sort_by_key(|problem| problem.line);
        Self { file: file.to_owned(), problems }
    }

    pub(super) fn syntax(file: &Path, text: &str, error: &toml::de::Error) -> Self {
        let at = error.span().unwrap_or(0..0);
        let (what, right) = explain(text, &at, error.message());
        Self::new(file, text, vec![Spotted { at, what, right }])
    }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.as_bytes().iter().take(at).filter(|&&octet| octet == b'\n').count()
}

/// Puts what serde says into the words of this file format.
fn explain(text: &str, at: &Range<usize>, message: &str) -> (String, String) {
    let message = message.trim();
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown field") {
        let found = quoted.next().unwrap_or_default();
        let known: Vec<&str> = quoted.collect();
        return unknown_key(found, &known);
    }
    if message.starts_with("missing field") {
        let key = quoted.next().unwrap_or_default();
        return (format!("{} is missing", kind_of(key)), add(key));
    }
    if message.starts_with("invalid type") {
        let key = key_on_line(text, at.start);
        let found =
            message.trim_start_matches("invalid type: ").split(", expected").next().unwrap_or_default();
        return (format!("`{key}` is of the wrong type: {found}"), write_as(key));
    }
    (message.replace('\n', "; "), "the file must be TOML (https://toml.io)".to_owned())
}

fn unknown_key(found: &str, known: &[&str]) -> (String, String) {
    let right = nearest(found, known.iter().copied()).map_or_else(
        || format!("known here: {}", known.join(", ")),
        |near| format!("did you mean `{near}`?"),
    );
    (format!("unknown key `{found}`"), right)
}

fn kind_of(key: &str) -> String {
    if ["group", "tap"].contains(&key) { format!("section [{key}]") } else { format!("key `{key}`") }
}

fn key_on_line(text: &str, at: usize) -> &str {
    let line = text.lines().nth(line_of(text, at) - 1).unwrap_or_default();
    line.split(['=', ']']).next().unwrap_or_default().trim_matches(['[', ' ', '\t'])
}

pub(super) fn add(key: &str) -> String {
    format!("add `{}`", example(key))
}

pub(super) fn write_as(key: &str) -> String {
    format!("write it as `{}`", example(key))
}

/// How a key is written.
fn example(key: &str) -> &'static str {
    match key {
        "name" => r#"name = "a""#,
        "control" => r#"control = "/run/ferry/a.sock""#,
        "group" => r#"[group] name = "demo", service-address, contact, secret-file"#,
        "service-address" => r#"service-address = "2001:db8:5::1""#,
        "contact" => r#"contact = "a""#,
        "secret-file" => r#"secret-file = "keys/group.secret""#,
        "optimise" => r#"optimise = "auto""#,
        "plain-source" => r#"plain-source = "auto""#,
        "path-after-move" => r#"path-after-move = "keep""#,
        "weights" => "weights = { a = 2, b = 1 }",
        "allowed" => r#"allowed = { b = ["echo"] }"#,
        "placement" => r#"placement = "local""#,
        "tap" => r#"[tap] device = "ferry0", address, gateway"#,
        "device" => r#"device = "ferry0""#,
        "address" => r#"address = "2001:db8:a::2/64""#,
        "gateway" => r#"gateway = "2001:db8:a::1""#,
        "home-agent" => r#"[home-agent] agent-address = "2001:db8:5::a", key-file"#,
        "agent-address" => r#"agent-address = "2001:db8:5::a""#,
        "key-file" => r#"key-file = "keys/home-agent.key""#,
        "spi" => "spi = 256",
        "lifetime-s" => "lifetime-s = 60",
        "max-lifetime-s" => "max-lifetime-s = 3600",
        "home" => r#"[[home]] service-address = "2001:db8:5::1", key-file"#,
        "mtu" => "mtu = 1500",
        "busy-poll-us" => "busy-poll-us = 0",
        "peer-link" => r#"[peer-link] listen = "[2001:db8:fa::2]:7400", ca, certificate, key"#,
        "metrics" => r#"[metrics] listen = "[::1]:9464""#,
        "listen" => r#"listen = "[2001:db8:fa::2]:7400""#,
        "ca" => r#"ca = "keys/ca.pem""#,
        "certificate" => r#"certificate = "keys/a.pem""#,
        "key" => r#"key = "keys/a.key""#,
        "insecure-plaintext" => "insecure-plaintext = false",
        "peer" => r#"[[peer]] name = "b", care-of, link"#,
        "care-of" => r#"care-of = "2001:db8:b::2""#,
        "link" => r#"link = "[2001:db8:fb::2]:7400""#,
        "service" => r#"[[service]] kind = "echo", port = 7"#,
        "kind" => r#"kind = "echo""#,
        "port" => "port = 80",
        "root" => r#"root = "www""#,
        "directory" => r#"[directory] kind = "embedded""#,
        "heartbeat-ms" => "heartbeat-ms = 10",
        "lease-ms" => "lease-ms = 200",
        "replicas" => "replicas = 1",
        "commit" => r#"commit = "strict""#,
        _ => "key = value",
    }
}

/// The candidate that was probably meant: the one with the fewest edits, if they are few for its length.
pub(super) fn nearest<'a>(found: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    candidates
        .map(|candidate| (edits(found, candidate), candidate))
        .filter(|&(edits, candidate)| edits <= candidate.len().div_ceil(3))
        .min_by_key(|&(edits, _)| edits)
        .map(|(_, candidate)| candidate)
}

/// The Levenshtein distance.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.chars().count()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.chars().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[row.len() - 1]
}
