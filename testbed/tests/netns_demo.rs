//! The demo on real kernels, with fewer handoffs than a person would want to see.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use common::{TESTBED, ferry, machine, run, text};
use serde_json::Value;

const HANDOFFS: u64 = 12;

#[test]
fn a_download_and_an_upload_cross_between_unprivileged_nodes_unharmed() {
    let Some(_machine) = machine() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("result.json");
    let mut command = Command::new(TESTBED);
    command.args(["demo", "simple-handoff", "--handoffs", &HANDOFFS.to_string(), "--interval-ms", "100"]);
    command.args(["--file-mib", "64", "--echo-mib", "16", "--json"]).arg(&json);
    command.arg("--out").arg(folder.path()).arg("--ferry").arg(ferry());
    let output = run(&mut command);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&fs::read(&json).expect("a report")).expect("json");
    judge(&report["demos"][0], &said);
    judge_files(&folder.path().join("simple-handoff"));
}

fn judge(demo: &Value, said: &str) {
    let exact = [
        ("name", Value::from("simple-handoff")),
        ("ok", true.into()),
        ("mode", "relayed".into()),
        ("digest_match", true.into()),
        ("resets", 0.into()),
        ("node_capabilities", "0".into()),
        ("why", Value::Null),
        ("peers", vec!["2001:db8:5::1"].into()),
    ];
    for (name, expected) in exact {
        assert_eq!(demo[name], expected, "{name}: {said}");
    }
    assert!(demo["handoffs"].as_u64() >= Some(HANDOFFS), "{said}");
    assert!(demo["bytes"].as_u64() >= Some(80 << 20), "{said}");
    for figure in ["goodput_mbit", "baseline_mbit", "upload_mbit"] {
        assert!(demo[figure].as_f64() > Some(0.0), "{figure}: {said}");
    }
    for figure in ["p50", "p99", "max"] {
        assert!(demo["gap_ms"][figure].as_f64() > Some(0.0), "{figure}: {said}");
    }
    let uids: BTreeSet<_> = demo["node_uids"].as_array().expect("users").iter().map(Value::as_u64).collect();
    if rustix::process::geteuid().is_root() {
        assert!(uids.len() == 3 && !uids.contains(&Some(0)), "{said}");
    }
}

fn judge_files(folder: &std::path::Path) {
    for host in ["client", "router", "host-a", "host-b", "host-c"] {
        let capture = fs::read(folder.join(format!("{host}.pcapng"))).expect("a capture");
        assert!(capture.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]) && capture.len() > 10_000, "{host}");
    }
    let trace = fs::read_to_string(folder.join("trace.jsonl")).expect("a trace");
    let events: Vec<Value> = trace.lines().map(|line| serde_json::from_str(line).expect("json")).collect();
    let steps = |step: &str| events.iter().filter(|event| event["step"]["step"] == step).count() as u64;
    assert!(steps("frozen") >= HANDOFFS && steps("frozen") == steps("installed"), "{trace}");
    assert!(events.is_sorted_by_key(|event| event["at_ns"].as_u64()), "events are out of order");
    let picture = fs::read_to_string(folder.join("timeline.svg")).expect("a picture");
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"), "{picture}");
    for node in ["a", "b", "c"] {
        assert!(folder.join(format!("{node}.log")).exists(), "the log of node {node} is missing");
    }
}
