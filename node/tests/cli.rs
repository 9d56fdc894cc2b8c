//! The binary `ferry` where it needs no network.
#![allow(missing_docs, reason = "a test has no readers from outside")]
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

use std::process::{Command, Output};

use tempfile::TempDir;

fn ferry(folder: &TempDir, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ferry"))
        .args(args)
        .current_dir(folder.path())
        .env_remove("XDG_RUNTIME_DIR")
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

const CONFIG: &str = r#"name = "a"
[group]
name = "demo"
service-address = "2001:db8:5::1"
contact = "a"
secret-file = "group.secret"
[tap]
device = "ferry-none"
address = "2001:db8:a::2/64"
gateway = "2001:db8:a::1"
[[service]]
kind = "echo"
port = 7
"#;

fn with(config: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("node.toml"), config).unwrap();
    folder
}

#[test]
fn a_configuration_can_be_checked_without_running_it() {
    let output = ferry(&with(CONFIG), &["node", "--config", "node.toml", "--check"]);
    assert!(output.status.success());
    assert_eq!(output.stdout, b"ok\n");
}

#[test]
fn a_wrong_configuration_is_told_with_its_line() {
    let folder = with(&CONFIG.replace("contact = \"a\"", "contct = \"a\""));
    for args in [["node", "--config", "node.toml"], ["status", "--config", "node.toml"]] {
        let output = ferry(&folder, &args);
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(stderr(&output), "ferry: node.toml:5: unknown key `contct`; did you mean `contact`?\n");
    }
}

#[test]
fn a_node_without_its_device_says_how_to_make_it() {
    let output = ferry(&with(CONFIG), &["node", "--config", "node.toml"]);
    assert_eq!(output.status.code(), Some(1));
    let text = stderr(&output);
    assert!(text.contains("ip tuntap add dev ferry-none") || text.contains("/dev/net/tun"), "{text}");
}

#[test]
fn who_asks_a_node_that_does_not_run_learns_how_to_start_it() {
    let folder = with(&format!("control = \"a.sock\"\n{CONFIG}"));
    for command in ["status", "connections", "drain"] {
        let output = ferry(&folder, &[command, "--config", "node.toml"]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        assert!(
            stderr(&output).starts_with("ferry: no node is running at a.sock; start it with"),
            "{}",
            stderr(&output)
        );
    }
    let output = ferry(&folder, &["handoff", "--to", "b", "--all", "--control", "/nonexistent.sock"]);
    assert!(
        stderr(&output).starts_with("ferry: no node is running at /nonexistent.sock"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn a_home_agent_checks_its_configuration_and_says_what_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let tap = "[tap]\ndevice = \"ferry-none\"\naddress = \"2001:db8:5::a/64\"\ngateway = \"2001:db8:5::f\"\n";
    let home = "[[home]]\nservice-address = \"2001:db8:5::1\"\nkey-file = \"a.key\"\n";
    std::fs::write(folder.path().join("agent.toml"), format!("control = \"a.sock\"\n{tap}{home}")).unwrap();
    let agent = |args: &[&str]| ferry(&folder, &[&["home-agent", "--config", "agent.toml"], args].concat());
    assert_eq!(agent(&["--check"]).stdout, b"ok\n");
    let text = stderr(&agent(&[]));
    assert!(text.contains("ip tuntap add dev ferry-none") || text.contains("/dev/net/tun"), "{text}");
    let text = stderr(&agent(&["status"]));
    assert!(text.starts_with("ferry: no home-agent is running at a.sock; start it with"), "{text}");
}

#[test]
fn a_handoff_must_say_which_connections() {
    let folder = with(CONFIG);
    let wrong: [&[&str]; 4] =
        [&[], &["--all", "--client", "[::1]:1", "--port", "1"], &["--client", "[::1]:1"], &["--port", "1"]];
    for args in wrong {
        let output = ferry(&folder, &[&["handoff", "--to", "b"], args].concat());
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
    let output = ferry(&folder, &["handoff", "--to", "b"]);
    assert!(stderr(&output).contains("<--all|--client <[ADDRESS]:PORT>>"), "{}", stderr(&output));
}

#[test]
fn keys_are_made_once() {
    let folder = with(CONFIG);
    let args = ["keygen", "--group", "demo", "--node", "a", "--out", "keys"];
    let made = ferry(&folder, &args);
    assert_eq!(
        made.stdout,
        b"keys/ca.pem\nkeys/ca.key\nkeys/group.secret\nkeys/home-agent.key\nkeys/a.pem\nkeys/a.key\n"
    );
    let again = ferry(&folder, &args);
    assert_eq!(again.status.code(), Some(1));
    assert!(
        stderr(&again).starts_with("ferry: keys/ca.pem is there already, and is not overwritten"),
        "{}",
        stderr(&again)
    );
}

#[test]
fn doctor_prints_a_line_for_each_check_and_fails_if_one_does() {
    let output = ferry(&with(CONFIG), &["doctor"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("ok    config"), "{text}");
    assert!(text.contains("there is no device ferry-none"), "{text}");
    assert!(text.contains("mend it with: sudo ip tuntap add dev ferry-none mode tap user"), "{text}");
}
