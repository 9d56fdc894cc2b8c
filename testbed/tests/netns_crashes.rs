//! Each way in which the process of a node can be lost, under the transfers of a kernel's client. Whatever is wrong with an
//! octet, and any RST, fails the trial.

mod common;

use std::process::Command;

use common::{TESTBED, ferry, machine, run, skip, text};
use serde_json::Value;

/// What the nodes say of themselves at the end.
fn survivors(trial: &str) -> Option<Vec<Value>> {
    let _machine = machine()?;
    let output = run(Command::new(TESTBED).args(["trial", trial, "--ferry"]).arg(ferry()));
    if output.status.code() == Some(3) {
        skip(&text(&output.stderr));
        return None;
    }
    assert!(output.status.success(), "{}", text(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}

/// Both connections of the trial went on at other nodes.
fn recovered(trial: &str) {
    let Some(statuses) = survivors(trial) else { return };
    let count = |status: &Value| status["copies"]["recovered"].as_u64().expect("a count");
    assert_eq!(statuses.iter().map(count).sum::<u64>(), 2, "{statuses:?}");
}

#[test]
fn a_download_and_a_stream_go_on_when_their_node_is_killed() {
    recovered("killed");
}

#[test]
fn a_download_and_a_stream_go_on_when_their_node_stands_still_and_it_says_that_it_lost_them() {
    recovered("stopped");
}

#[test]
fn a_download_and_a_stream_go_on_when_the_tap_of_their_node_is_removed() {
    recovered("tap-removed");
}

#[test]
fn a_download_and_a_stream_go_on_when_all_cables_of_their_node_are_pulled() {
    recovered("cable-cut");
}

/// So are connections that it owned itself, and new ones work.
fn the_role_was_taken(trial: &str) {
    let Some(statuses) = survivors(trial) else { return };
    let count = |status: &Value| status["copies"]["recovered"].as_u64().expect("a count");
    assert_eq!(statuses.iter().map(count).sum::<u64>(), 2, "{statuses:?}");
    let contacts: Vec<_> = statuses.iter().map(|status| &status["contact"]).collect();
    assert_eq!(contacts, [true, false], "{statuses:?}");
    assert!(statuses.iter().all(|status| status["contact_term"] == 1), "once: {statuses:?}");
}

#[test]
fn a_download_and_a_stream_of_the_contact_node_go_on_when_it_is_killed_and_new_connections_work() {
    the_role_was_taken("contact-killed");
}

#[test]
fn a_contact_node_that_stands_still_leaves_the_role_to_who_took_it_and_no_client_notices() {
    the_role_was_taken("contact-stopped");
}

#[test]
fn a_download_and_a_stream_of_the_contact_node_go_on_when_all_its_cables_are_pulled() {
    the_role_was_taken("contact-cable-cut");
}

#[test]
fn a_node_serves_on_when_there_is_no_room_for_its_log() {
    let Some(statuses) = survivors("disk-full") else { return };
    assert_eq!(statuses.len(), 3, "{statuses:?}");
}
