//! The table of RFCs in SPECIFICATION.md: what it names is there.

#![allow(clippy::unwrap_used, reason = "a tree that cannot be read fails the test")]

use std::collections::BTreeSet;
use std::fs;

use ferry_tests::tree::{quoted, root, tests};

/// A row of the table.
#[derive(Debug)]
struct Row {
    rfcs: Vec<u32>,
    text: String,
    /// Whether it says that we do this, at least in part.
    implemented: bool,
    files: Vec<String>,
    shown_by: Vec<String>,
}

/// The numbers of RFCs with which a row begins; under a heading that names one, all rows are about that.
fn numbers(heading: Option<u32>, cell: &str) -> Vec<u32> {
    let numbers = cell.split(|c: char| !c.is_ascii_digit()).filter(|word| word.len() >= 3);
    let named: Vec<u32> =
        numbers.filter_map(|word| word.parse().ok()).filter(|number| *number > 500).collect();
    heading.map_or(named, |number| vec![number])
}

fn table() -> Vec<Row> {
    let specification = fs::read_to_string(root().join("SPECIFICATION.md")).unwrap();
    let lines = specification.lines().skip_while(|line| *line != "## RFCs").skip(1);
    let (mut heading, mut rows) = (None, Vec::new());
    for line in lines.take_while(|line| !line.starts_with("## ")) {
        if let Some(title) = line.strip_prefix("### ") {
            heading = title.strip_prefix("RFC ").and_then(|rest| rest.split(',').next()?.parse().ok());
        }
        let cells: Vec<&str> = line.split('|').collect();
        let [_, what, state, files, shown_by, _] = cells.as_slice() else { continue };
        if what.contains("section") && state.trim().is_empty() || what.starts_with("---") {
            continue;
        }
        rows.push(Row {
            rfcs: numbers(heading, what),
            text: line.to_owned(),
            implemented: !state.trim().starts_with("no") && !state.contains("**pending**"),
            files: quoted(files),
            shown_by: quoted(shown_by),
        });
    }
    assert!(rows.len() > 100, "only {} rows were found", rows.len());
    rows
}

#[test]
fn every_test_and_script_that_the_table_names_is_there() {
    let tests = tests().unwrap();
    for row in table() {
        for name in &row.shown_by {
            let script = root().join("tests/scripts").join(format!("{name}.script"));
            let there = if name.contains('/') { script.is_file() } else { tests.contains(name) };
            assert!(there, "`{name}` is not there: {}", row.text);
        }
    }
}

#[test]
fn every_file_that_the_table_names_is_there_and_names_the_rfc() {
    for row in table() {
        for name in &row.files {
            let path = match name.strip_prefix("mipv6/") {
                Some(name) => root().join("mipv6/src").join(name),
                None => root().join("stack/src").join(name),
            };
            let text =
                fs::read_to_string(&path).unwrap_or_else(|_| panic!("{name} is not there: {}", row.text));
            for rfc in &row.rfcs {
                assert!(text.contains(&format!("RFC {rfc}")), "{name} does not name RFC {rfc}: {}", row.text);
            }
        }
    }
}

#[test]
fn everything_that_is_implemented_is_shown_by_something() {
    for row in table() {
        let by_another = row.text.contains("by RFC ");
        if row.implemented && !by_another {
            assert!(!row.files.is_empty() && !row.shown_by.is_empty(), "{}", row.text);
        }
        assert!(!row.rfcs.is_empty(), "a row without an RFC: {}", row.text);
    }
}

#[test]
fn every_script_shows_an_rfc_of_the_table() {
    let known: BTreeSet<u32> = table().iter().flat_map(|row| row.rfcs.clone()).collect();
    for path in ferry_tests::script::scripts_below(&root().join("tests/scripts")).unwrap() {
        let text = fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap_or_default();
        let named = first.split("RFC ").skip(1).filter_map(|rest| rest.get(..4)?.parse::<u32>().ok());
        for rfc in named {
            assert!(known.contains(&rfc), "{} names RFC {rfc}", path.display());
        }
    }
}
