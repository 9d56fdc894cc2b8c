//! Bad input to real processes of nodes.

mod common;

use std::process::Command;

use common::{TESTBED, ferry, machine, run, skip, text};

/// What the bad node, or the one that refused it, said.
fn refusal(trial: &str) -> Option<String> {
    let _machine = machine()?;
    let output = run(Command::new(TESTBED).args(["trial", trial, "--ferry"]).arg(ferry()));
    if output.status.code() == Some(3) {
        skip(&text(&output.stderr));
        return None;
    }
    assert!(output.status.success(), "{}", text(&output.stderr));
    Some(text(&output.stdout))
}

#[test]
fn a_peer_with_a_certificate_of_another_authority_gets_no_link() {
    let Some(said) = refusal("wrong-certificate") else { return };
    assert!(said.contains("certificate"), "{said}");
}

#[test]
fn a_second_node_with_the_same_name_is_told_so_and_leaves() {
    let Some(said) = refusal("taken-name") else { return };
    assert!(said.contains("name"), "{said}");
}

#[test]
fn a_node_with_another_users_tap_says_whose_it_is_and_leaves() {
    let Some(said) = refusal("foreign-tap") else { return };
    assert!(said.contains("ferry0") && said.contains("64103"), "{said}");
}

#[test]
fn a_path_that_drops_extension_headers_is_gone_around_unnoticed_until_it_does_not() {
    let Some(said) = refusal("filtered-path") else { return };
    let told: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let [start, middle] = told.as_array().expect("two streams").as_slice() else { panic!("{said}") };
    // Whatever was wrong with an octet would have failed the trial.
    assert!(middle["before"].as_u64() > Some(100) && middle["after"].as_u64() > Some(100), "{said}");
    // Dropped by the end of each.
    let [first, both] = [start, middle].map(|stream| stream["dropped"].as_u64());
    assert!(first > Some(0) && both > first, "{said}");
    assert!(start["before"].as_u64() == Some(0) && start["after"].as_u64() > Some(100), "{said}");
}

#[test]
fn a_client_without_mobile_ipv6_in_its_kernel_gets_it_from_the_correspondent() {
    let Some(said) = refusal("correspondent") else { return };
    let told: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    let counters = &told["status"]["counters"];
    for counter in ["optimised_in", "optimised_out"] {
        assert!(counters[counter].as_u64() > Some(1000), "{counter}: {said}");
    }
    assert!(
        told["optimised"].as_array().expect("three nodes").iter().any(|sent| sent.as_u64() > Some(1000)),
        "{said}"
    );
}
