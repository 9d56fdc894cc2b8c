//! A network namespace of a test's own.

use std::process::{Command, Stdio};

use crate::needs;

const INSIDE: &str = "FERRY_INSIDE";

/// Runs `body` in a network namespace of its own, by running the test `name` again there; what it prints is passed
/// on. Where that cannot be, the test is skipped loudly, or fails if `FERRY_REQUIRE_NETNS` is 1.
pub fn enter(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    match way_in() {
        Ok(flags) => again_inside(name, flags),
        Err(why) => needs::skip(name, &why),
    }
}

fn again_inside(name: &str, flags: &[&str]) {
    let this = std::env::current_exe().expect("a test knows its own file");
    let output = Command::new("unshare")
        .args(flags)
        .arg(this)
        .args([name, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .stderr(Stdio::inherit())
        .output()
        .expect("unshare has just been tried");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && text.contains("1 passed"), "inside the namespace: {text}");
}

/// The flags with which `unshare` makes a namespace in which TAPs can be made.
fn way_in() -> Result<&'static [&'static str], String> {
    let ways: [&[&str]; 2] = [&["--net", "--mount"], &["--net", "--mount", "--map-root-user"]];
    let try_out = |flags: &&&[&str]| {
        let script = "ip tuntap add dev ferry-try mode tap && exec 3<>/dev/net/tun";
        let tried = Command::new("unshare").args(**flags).args(["sh", "-c", script]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    ways.iter().find(try_out).copied().ok_or_else(|| {
        "this system lets us make no network namespace with a TAP; run it as root, or allow user namespaces \
         and /dev/net/tun"
            .to_owned()
    })
}

/// Runs a command that must succeed.
pub fn sh(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().expect("there is a shell");
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}
