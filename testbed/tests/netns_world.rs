//! The world itself, on real kernels: it carries connections, and nothing is left of it.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{TESTBED, machine, run, text};
use ferry_testbed::clock::await_some;
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn an_ordinary_kernels_connections_cross_the_world_whole() {
    let Some(_machine) = machine() else { return };
    let output = run(Command::new(TESTBED).args(["calibrate", "--loss", "0.001"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("missed 0"), "{}", text(&output.stdout));
}

#[test]
fn nothing_is_left_of_the_world_whatever_ends_it() {
    let Some(_machine) = machine() else { return };
    for (signal, code) in [(Signal::INT, Some(130)), (Signal::TERM, Some(143)), (Signal::KILL, None)] {
        let before = traces();
        // At this rate it runs for a minute.
        let mut command = Command::new(TESTBED);
        command.args(["calibrate", "--rate-mbit", "10"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("the testbed starts");
        let family = wait_for("curl in the world", || {
            let family = descendants(child.id());
            family.iter().any(|pid| command_name(*pid) == "curl").then_some(family)
        });
        kill_process(Pid::from_child(&child), signal).expect("a signal can be sent");
        let status = child.wait().expect("the testbed ends");
        assert_eq!(status.code(), code, "{signal:?}: {:?}", status.signal());
        wait_for("the end of every process of the world", || {
            family.iter().all(|pid| !alive(*pid)).then_some(())
        });
        assert_eq!(traces(), before, "after {signal:?}");
    }
}

#[test]
fn a_machine_without_taps_is_told_what_it_lacks() {
    let Some(_machine) = machine() else { return };
    // A mount namespace in which the TAPs' device is something else.
    let script = "mount --bind /dev/null /dev/net/tun && exec \"$0\" demo --handoffs 1";
    let mut command = Command::new("unshare");
    if !rustix::process::geteuid().is_root() {
        command.args(["--user", "--map-root-user"]);
    }
    command.args(["--mount", "sh", "-c", script, TESTBED]);
    let output = run(command.env("FERRY_REQUIRE_NETNS", "1"));
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(said.contains("TAP") && said.contains("FERRY_REQUIRE_NETNS"), "{said}");
}

/// What the world could leave on the machine.
fn traces() -> (BTreeSet<String>, String, bool, BTreeSet<String>) {
    let list = |folder: &str| {
        let entries = fs::read_dir(folder).expect("a folder of the kernel's").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    };
    let mounts = fs::read_to_string("/proc/self/mounts").expect("a file of the kernel's");
    (list("/sys/class/net"), mounts, fs::exists("/run/ferry").expect("a path"), list("/run"))
}

fn wait_for<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    await_some(what, Duration::from_secs(20), Duration::from_millis(5), || Ok(ask())).expect(what)
}

/// All processes below this one, itself included.
fn descendants(root: u32) -> Vec<u32> {
    let mut family = vec![root];
    let mut next = 0;
    while let Some(parent) = family.get(next) {
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        family.extend(children.unwrap_or_default().split_whitespace().flat_map(str::parse::<u32>));
        next += 1;
    }
    family
}

fn command_name(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default().trim().to_owned()
}

/// A zombie is not: it holds nothing any more.
fn alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}
