//! Each row of the benchmarks of the stack and of Mobile IPv6 can be measured. How fast anything is, is not judged here.

mod common;

use std::fs;
use std::process::Command;

use common::{TESTBED, ferry, machine, run, skip, text};
use serde_json::Value;

/// As the issue names them; whoever reads the results relies on these names.
const ROWS: [&str; 15] = [
    "bulk-in-1",
    "bulk-out-1",
    "bulk-in-8",
    "bulk-out-8",
    "frames-in",
    "frames-out",
    "rtt",
    "rtt-spin",
    "connect-close",
    "loss",
    "reorder",
    "shallow",
    "idle-bytes",
    "many-connections",
    "syn-flood",
];

const MOBILITY_ROWS: [&str; 8] = [
    "rr-time",
    "bu-ba-time",
    "optimised-throughput",
    "tunnel-throughput",
    "rewrite-ns",
    "bindings-per-second",
    "binding-bytes",
    "many-bindings",
];

const HANDOFF_ROWS: [&str; 12] = [
    "host-time-empty",
    "host-time-64k",
    "handoffs-per-second",
    "handoffs-per-second-links",
    "freeze-p50",
    "freeze-p99",
    "gap-LDA",
    "gap-LAC",
    "gap-LDC",
    "gap-LHA",
    "client-rto",
    "goodput-10-per-second",
];

#[test]
fn each_row_of_handoffs_can_be_measured() {
    each_row_can_be_measured("handoff", &HANDOFF_ROWS);
}

const RECOVERY_ROWS: [&str; 8] = [
    "gap-kill-p50",
    "gap-kill-p99",
    "gap-cut",
    "strict-throughput",
    "regenerate-throughput",
    "strict-latency",
    "mass-recovery-ms",
    "keepalived",
];

#[test]
fn each_row_of_recovery_can_be_measured() {
    let found = Command::new("keepalived").arg("--version").output();
    if let Err(why) = &found {
        skip(&format!("(only the row keepalived) keepalived: {why}; install the package keepalived"));
    }
    let rows: Vec<_> =
        RECOVERY_ROWS.into_iter().filter(|name| found.is_ok() || *name != "keepalived").collect();
    each_row_can_be_measured("recovery", &rows);
}

#[test]
fn each_row_of_the_stack_can_be_measured() {
    each_row_can_be_measured("stack", &ROWS);
}

#[test]
fn each_row_of_mobile_ipv6_can_be_measured() {
    each_row_can_be_measured("mobility", &MOBILITY_ROWS);
}

fn each_row_can_be_measured(bench: &str, names: &[&str]) {
    let Some(_machine) = machine() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("result.json");
    let mut command = Command::new(TESTBED);
    command.args(["bench", bench, "--quick", "--runs", "1", "--json"]).arg(&json);
    if bench != "stack" {
        command.arg("--ferry").arg(ferry());
    }
    let output = run(command.arg("--out").arg(folder.path()).arg("--row").args(names));
    let said = text(&output.stdout) + &text(&output.stderr);
    let report: Value = serde_json::from_slice(&fs::read(&json).expect("a report")).expect("json");
    let rows = report["rows"].as_array().expect("rows");
    assert_eq!(rows.iter().map(|row| &row["name"]).collect::<Vec<_>>(), names, "{said}");
    for row in rows {
        assert_eq!(row["why"], Value::Null, "{row}: {said}");
        assert_eq!(row["ok"], true, "{row}: {said}");
    }
    assert!(output.status.success(), "{said}");
    let picture = fs::read_to_string(folder.path().join(format!("{bench}.svg"))).expect("a picture");
    assert!(names.iter().all(|name| picture.contains(name)), "{picture}");
}

#[test]
fn a_row_that_nobody_knows_is_refused_before_anything_is_measured() {
    let output = run(Command::new(TESTBED).args(["bench", "stack", "--row", "bulk-sideways"]));
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("bulk-in-1"), "the rows that there are must be named");
    let Some(_machine) = machine() else { return };
    let output = run(Command::new(TESTBED).args(["bench", "stack", "--row", "rr-time"]));
    assert_eq!(output.status.code(), Some(2), "a row of another benchmark");
    assert!(text(&output.stderr).contains("stack has no row rr-time"), "{}", text(&output.stderr));
}
