//! What must hold of the tree itself: which crates there are, which way they depend on each other, and what the
//! cores promise of themselves.

#![allow(clippy::unwrap_used, reason = "a tree that cannot be read fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use ferry_tests::tree::{root, sources};

/// The crates of the workspace, and which others of it each may use.
const ALLOWED: [(&str, &[&str]); 7] = [
    ("stack", &[]),
    ("mipv6", &["stack"]),
    ("handoff", &["stack"]),
    ("node", &["handoff", "mipv6", "stack"]),
    ("tests", &["handoff", "mipv6", "node", "stack"]),
    ("tests/packetdrill", &["stack"]),
    // The simulated world is the demo of a machine that cannot make namespaces.
    ("testbed", &["handoff", "mipv6", "node", "stack", "tests"]),
];

/// Crates without a standard library, without unsafe code.
const CORES: [&str; 3] = ["stack", "mipv6", "handoff"];

/// Lines that a file has at most: more cannot be taken in at once.
const LONGEST: usize = 500;

fn read(path: &str) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// The crates of the workspace that a manifest names, in whichever of its sections.
fn uses(member: &str) -> BTreeSet<String> {
    let manifest = read(&format!("{member}/Cargo.toml"));
    let name = |line: &str| line.strip_prefix("ferry-")?.split(['.', ' ', '=']).next().map(str::to_owned);
    manifest.lines().filter_map(name).collect()
}

fn all_sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (member, _) in ALLOWED {
        found.append(&mut sources(&root().join(member)).unwrap());
    }
    assert!(found.len() > 100, "only {} files were found", found.len());
    found
}

#[test]
fn the_workspace_has_exactly_these_crates() {
    let manifest = read("Cargo.toml");
    let members = manifest.lines().find_map(|line| line.strip_prefix("members = ")).unwrap();
    let members: BTreeSet<_> = members.split('"').skip(1).step_by(2).collect();
    assert_eq!(members, ALLOWED.iter().map(|(name, _)| *name).collect());
    for (member, _) in ALLOWED {
        let name = member.rsplit('/').next().unwrap();
        assert!(read(&format!("{member}/Cargo.toml")).contains(&format!("name = \"ferry-{name}\"")));
    }
}

#[test]
fn crates_depend_on_each_other_in_one_direction_only() {
    let mut depends = BTreeMap::new();
    for (member, allowed) in ALLOWED {
        let uses = uses(member);
        let forbidden: Vec<_> = uses.iter().filter(|name| !allowed.contains(&name.as_str())).collect();
        assert!(forbidden.is_empty(), "{member} must not use {forbidden:?}");
        depends.insert(member, uses);
    }
    // The manifests were really read.
    assert!(depends["node"].contains("handoff") && depends["handoff"].contains("stack"));
}

#[test]
fn every_crate_heeds_the_lints_of_the_workspace() {
    for (member, _) in ALLOWED {
        assert!(read(&format!("{member}/Cargo.toml")).contains("[lints]\nworkspace = true"), "{member}");
    }
}

#[test]
fn the_cores_have_no_standard_library_and_no_unsafe_code() {
    for core in CORES {
        let library = read(&format!("{core}/src/lib.rs"));
        for promise in ["#![no_std]", "#![forbid(unsafe_code)]"] {
            assert!(library.lines().any(|line| line == promise), "{core} does not say {promise}");
        }
    }
}

#[test]
fn unsafe_code_is_allowed_in_few_named_places() {
    // Spelled in two parts, so that this file is none of them.
    let allowance = ["allow(", "unsafe_code"].concat();
    let allowed = |path: &PathBuf| fs::read_to_string(path).unwrap().contains(&allowance);
    let found: BTreeSet<_> = all_sources()
        .iter()
        .filter(|path| allowed(path))
        .map(|path| path.strip_prefix(root()).unwrap().display().to_string())
        .collect();
    let places = [
        "node/src/correspondent/sys.rs",
        "node/src/driver/tap/",
        "testbed/src/sys/",
        "tests/packetdrill/src/ffi",
    ];
    let named = |path: &String| places.iter().any(|place| path.starts_with(place));
    let elsewhere: Vec<_> = found.iter().filter(|path| !named(path)).collect();
    assert!(elsewhere.is_empty(), "{elsewhere:?}");
    assert!(found.iter().any(|path| path.starts_with("node/src/driver/tap/")), "the drivers' was not found");
}

#[test]
fn no_file_is_too_long_to_be_read() {
    for path in all_sources() {
        let lines = fs::read_to_string(&path).unwrap().lines().count();
        assert!(lines <= LONGEST, "{} has {lines} lines", path.display());
    }
}

/// What the manifests name in their sections of dependencies, but crates of the workspace.
fn dependencies() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let manifests = ALLOWED.map(|(member, _)| format!("{member}/Cargo.toml"));
    for manifest in manifests.iter().map(String::as_str).chain(["Cargo.toml", "tests/fuzz/Cargo.toml"]) {
        let mut inside = false;
        for line in read(manifest).lines() {
            if line.starts_with('[') {
                inside = line.ends_with("dependencies]");
            } else if let Some((name, _)) = line.split_once(['.', ' ', '=']).filter(|_| inside) {
                found.insert(name.to_owned());
            }
        }
    }
    found.retain(|name| !name.starts_with("ferry-") && !name.starts_with('#') && !name.is_empty());
    assert!(found.len() > 30, "only {} dependencies were found", found.len());
    found
}

#[test]
fn the_architecture_says_why_each_dependency_is_there() {
    let architecture = read("ARCHITECTURE.md");
    let table = architecture.split("## Dependencies, and why").nth(1).unwrap();
    let named: BTreeSet<&str> = table
        .lines()
        .filter_map(|line| line.split('|').nth(1))
        .flat_map(|cell| cell.split([',', ' ', '(', ')']))
        .collect();
    let unnamed: Vec<_> = dependencies().into_iter().filter(|name| !named.contains(name.as_str())).collect();
    assert!(unnamed.is_empty(), "no reason is given for {unnamed:?}");
}

#[test]
fn the_readme_gives_the_two_commands_and_ci_calls_the_tests() {
    let readme = read("README.md");
    for command in ["cargo run --release -p ferry-testbed -- demo", "cargo test --workspace"] {
        assert!(readme.contains(command), "README.md does not give `{command}`");
    }
    assert!(read(".ci/run").contains("cargo test --workspace"));
}
