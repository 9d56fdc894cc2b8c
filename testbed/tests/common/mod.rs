//! What the tests on real kernels share.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

/// The testbed's binary.
pub(crate) const TESTBED: &str = env!("CARGO_BIN_EXE_ferry-testbed");

/// Holds the machine for one world at a time: on two cores, two would disturb each other. `None` if the machine
/// cannot make worlds; says so where the test runner cannot hide it.
pub(crate) fn machine() -> Option<MutexGuard<'static, ()>> {
    static ONE: Mutex<()> = Mutex::new(());
    static OBSTACLE: OnceLock<Option<String>> = OnceLock::new();
    let obstacle = OBSTACLE.get_or_init(|| {
        let probe = run(Command::new(TESTBED).arg("probe"));
        (!probe.status.success()).then(|| text(&probe.stderr))
    });
    let Some(why) = obstacle else { return Some(ONE.lock().unwrap_or_else(PoisonError::into_inner)) };
    skip(why);
    None
}

/// Says why a test is not carried out, unless that is forbidden.
pub(crate) fn skip(why: &str) {
    let required = std::env::var("FERRY_REQUIRE_NETNS").is_ok_and(|value| value == "1");
    assert!(!required, "FERRY_REQUIRE_NETNS=1, but {why}");
    // Not with `eprintln`, which the test runner captures.
    let line = format!("SKIPPED {}: {why}\n", std::thread::current().name().unwrap_or("a test"));
    std::io::stderr().write_all(line.as_bytes()).expect("standard error can be written to");
}

/// The node's binary, which `cargo test --workspace` leaves beside the testbed's.
pub(crate) fn ferry() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let find = || {
        let folder = Path::new(TESTBED).parent().expect("the binary lies in a folder");
        let ferry = folder.join("ferry");
        if !ferry.exists() {
            let mut cargo = Command::new(env!("CARGO"));
            cargo.args(["build", "--package", "ferry-node", "--bin", "ferry", "--profile", "test"]);
            cargo.arg("--target-dir").arg(folder.parent().expect("a target folder"));
            let built = run(cargo.current_dir(env!("CARGO_MANIFEST_DIR")));
            assert!(built.status.success(), "{}", text(&built.stderr));
        }
        ferry
    };
    BUILT.get_or_init(find).clone()
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Output {
    command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// What a program printed.
pub(crate) fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}
