//! The demo on real kernels, with fewer handoffs than a person would want to see.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use common::{TESTBED, ferry, machine, run, text};
use serde_json::Value;

#[test]
fn a_download_and_an_upload_cross_between_unprivileged_nodes_unharmed() {
    let Some((demo, said)) = play("simple-handoff", 12) else { return };
    assert_eq!(demo["mode"], "relayed", "{said}");
    assert_eq!(demo.get("packets_via_contact_after_binding"), None, "{said}");
}

#[test]
fn a_client_with_mobile_ipv6_talks_straight_to_whoever_serves_it_and_never_through_the_contact_node() {
    let Some((demo, said)) = play("route-optimised", 12) else { return };
    assert_eq!(demo["mode"], "route-optimised", "{said}");
    assert_eq!(demo["packets_via_contact_after_binding"], 0, "{said}");
    for way in ["packets_straight_to_node", "packets_straight_from_node"] {
        assert!(demo[way].as_u64() > Some(10_000), "{way}: {said}");
    }
    assert!(demo["bindings"].as_u64() >= Some(6), "{said}");
}

#[test]
fn a_download_and_a_stream_outlive_every_node_that_is_killed_under_them() {
    let Some((demo, said)) = play_crashes("crash-recovery", 3) else { return };
    for figure in ["detect_ms", "restore_ms"] {
        assert!(demo[figure]["p50"].as_f64() > Some(0.0), "{figure}: {said}");
    }
    assert_eq!(demo["resets"], 0, "{said}");
}

#[test]
fn some_player_has_enough_in_its_buffer_to_notice_no_crash() {
    let Some((demo, said)) = play_crashes("client-buffering", 2) else { return };
    assert!(demo["least_buffer_ms"].as_f64() >= Some(20.0), "{said}");
}

/// Plays a demo in which nodes are killed, and judges what both of them show.
fn play_crashes(name: &str, crashes: u64) -> Option<(Value, String)> {
    let count = crashes.to_string();
    let arguments = ["--crashes", &count, "--file-mib", "64", "--echo-mib", "16", "--rate-mbit", "100"];
    let (demo, said, _) = perform(name, &arguments)?;
    for (field, expected) in [("ok", Value::from(true)), ("crashes", crashes.into())] {
        assert_eq!(demo[field], expected, "{field}: {said}");
    }
    assert_eq!((&demo["bytes_lost"], &demo["bytes_duplicated"]), (&0.into(), &0.into()), "{said}");
    assert!(demo["gap_ms"]["max"].as_f64() > Some(0.0), "{said}");
    Some((demo, said))
}

#[test]
fn connections_of_ordinary_and_of_aware_kernels_move_in_every_state_unharmed() {
    let Some((demo, said, folder)) = play_short("any-moment", 200) else { return };
    for client in ["plain", "aware"] {
        assert!(demo["moments"]["handoffs"][client].as_u64() > Some(20), "{client}: {said}");
    }
    let states = demo["moments"]["states"].as_object().expect("states");
    for state in ["SYN-RECEIVED", "ESTABLISHED", "FIN-WAIT-1", "LAST-ACK", "TIME-WAIT"] {
        assert!(states.contains_key(state), "{state}: {said}");
    }
    assert!(demo["packets_straight_from_node"].as_u64() > Some(0), "{said}");
    picture(&folder.path().join("any-moment/moments.svg"), "ESTABLISHED");
}

#[test]
fn an_overloaded_node_gives_connections_away_and_clients_wait_less() {
    let Some((demo, said, folder)) = play_short("load-balancing", 12) else { return };
    let balance = &demo["balance"];
    assert_eq!(balance["load_before"], Value::from(vec![18, 0, 0]), "{said}");
    assert_eq!(balance["load_after"], Value::from(vec![6, 6, 6]), "{said}");
    assert_eq!(demo["handoffs"], 12, "{said}");
    picture(&folder.path().join("load-balancing/load.svg"), "rebalance");
}

/// Plays a demo with these arguments; what it has to tell, what it said, and its files.
fn perform(name: &str, arguments: &[&str]) -> Option<(Value, String, tempfile::TempDir)> {
    let _machine = machine()?;
    let folder = tempfile::tempdir().expect("a folder");
    let json = folder.path().join("result.json");
    let mut command = Command::new(TESTBED);
    command.args(["demo", name]).args(arguments).arg("--json").arg(&json);
    command.arg("--out").arg(folder.path()).arg("--ferry").arg(ferry());
    let output = run(&mut command);
    let said = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let report: Value = serde_json::from_slice(&fs::read(&json).expect("a report")).expect("json");
    Some((report["demos"][0].clone(), said, folder))
}

/// Plays a demo that brings files of its own.
fn play_short(name: &str, handoffs: u64) -> Option<(Value, String, tempfile::TempDir)> {
    let (demo, said, folder) = perform(name, &["--handoffs", &handoffs.to_string()])?;
    judge_good(&demo, name, handoffs, &said);
    Some((demo, said, folder))
}

fn picture(path: &std::path::Path, word: &str) {
    let picture = fs::read_to_string(path).expect("a picture");
    let whole = picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>");
    assert!(whole && picture.contains(word), "{picture}");
}

/// Plays a demo and judges what all of them show.
fn play(name: &str, handoffs: u64) -> Option<(Value, String)> {
    let count = handoffs.to_string();
    let arguments = ["--handoffs", &count, "--interval-ms", "100", "--file-mib", "64", "--echo-mib", "16"];
    let (demo, said, folder) = perform(name, &arguments)?;
    judge(&demo, name, handoffs, &said);
    judge_files(&folder.path().join(name), handoffs);
    Some((demo, said))
}

/// What every demo of handoffs shows.
fn judge_good(demo: &Value, name: &str, handoffs: u64, said: &str) {
    let exact = [
        ("name", Value::from(name)),
        ("ok", true.into()),
        ("digest_match", true.into()),
        ("resets", 0.into()),
        ("node_capabilities", "0".into()),
        ("why", Value::Null),
        ("peers", vec!["2001:db8:5::1"].into()),
    ];
    for (name, expected) in exact {
        assert_eq!(demo[name], expected, "{name}: {said}");
    }
    assert!(demo["handoffs"].as_u64() >= Some(handoffs), "{said}");
}

fn judge(demo: &Value, name: &str, handoffs: u64, said: &str) {
    judge_good(demo, name, handoffs, said);
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

fn judge_files(folder: &std::path::Path, handoffs: u64) {
    for host in ["client", "router", "host-a", "host-b", "host-c"] {
        let capture = fs::read(folder.join(format!("{host}.pcapng"))).expect("a capture");
        assert!(capture.starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]) && capture.len() > 10_000, "{host}");
    }
    let trace = fs::read_to_string(folder.join("trace.jsonl")).expect("a trace");
    let events: Vec<Value> = trace.lines().map(|line| serde_json::from_str(line).expect("json")).collect();
    let steps = |step: &str| events.iter().filter(|event| event["step"]["step"] == step).count() as u64;
    assert!(steps("frozen") >= handoffs && steps("frozen") == steps("installed"), "{trace}");
    assert!(events.is_sorted_by_key(|event| event["at_ns"].as_u64()), "events are out of order");
    let picture = fs::read_to_string(folder.join("timeline.svg")).expect("a picture");
    assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"), "{picture}");
    for node in ["a", "b", "c"] {
        assert!(folder.join(format!("{node}.log")).exists(), "the log of node {node} is missing");
    }
}
