//! The shared object as packetdrill sees it: another process loads it and calls its functions from C.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The shared object that was built along with this test.
fn library() -> PathBuf {
    let folder = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let found = [folder.join("libferry_packetdrill.so"), folder.join("../libferry_packetdrill.so")];
    found.into_iter().find(|path| path.exists()).expect("the shared object was not built")
}

#[test]
fn every_function_behaves_when_it_is_called_from_c() {
    let folder = tempfile::tempdir().unwrap();
    let driver = folder.path().join("drive");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/drive.c");
    let compiled = Command::new("gcc")
        .args(["-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g", "-o"])
        .args([&driver, &source])
        .args(["-ldl", "-lpthread"])
        .status()
        .expect("gcc is needed");
    assert!(compiled.success(), "the driver does not compile");
    let output = Command::new(&driver).arg(library()).output().unwrap();
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {said}{errors}", output.status);
    assert!(said.contains("all functions behave"));
    assert!(errors.contains("unknown flag `no_such_flag`"), "{errors}");
}
