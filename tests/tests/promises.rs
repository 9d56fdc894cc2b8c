//! What SPECIFICATION.md promises outside of its table of RFCs: each promise names what holds it, and that is there.

#![allow(clippy::unwrap_used, reason = "a tree that cannot be read fails the test")]

use std::collections::BTreeSet;
use std::fs;

use ferry_tests::tree::{quoted, root, sources, tests};

/// The rows with a promise and what holds it.
fn promises() -> Vec<(String, String)> {
    let specification = fs::read_to_string(root().join("SPECIFICATION.md")).unwrap();
    let mut rows = Vec::new();
    for line in specification.lines() {
        if let [_, promise, held_by, _] = line.split('|').collect::<Vec<_>>()[..]
            && promise.trim() != "promise"
            && !promise.starts_with("---")
            && !promise.contains("(Not promised.)")
        {
            rows.push((promise.trim().to_owned(), held_by.trim().to_owned()));
        }
    }
    assert!(rows.len() > 100, "only {} rows were found", rows.len());
    rows
}

/// Whether it can only be the name of a test, or of a file of tests.
fn is_name(word: &str) -> bool {
    word.contains('_') && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

#[test]
fn every_test_that_a_promise_names_is_there() {
    let mut known: BTreeSet<String> = tests().unwrap();
    for member in ["node/tests", "tests/tests", "testbed/tests"] {
        let files = sources(&root().join(member)).unwrap();
        known.extend(files.iter().map(|file| file.file_stem().unwrap().display().to_string()));
    }
    let mut seen = 0;
    for (promise, held_by) in promises() {
        for word in quoted(&held_by) {
            // Behind the package that it is in.
            let name = word.rsplit(": ").next().unwrap();
            if is_name(name) {
                assert!(known.contains(name), "`{name}` is not there: {promise}");
                seen += 1;
            }
        }
    }
    assert!(seen > 200, "only {seen} names were found");
}

#[test]
fn every_promise_is_held_by_something_or_pending() {
    for (promise, held_by) in promises() {
        let known = ["`", "demo", "bench", "CI", "**pending**"];
        assert!(known.iter().any(|word| held_by.contains(word)), "nothing holds: {promise}");
    }
}
