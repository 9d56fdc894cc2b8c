//! The secret and the certificates.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::{Missing, quoted};
use crate::config::{Config, KeyFiles, read_secret};
use crate::driver::{unix_seconds, verify_own};

/// Warned of so long before a certificate expires.
const SOON: i64 = 30 * 24 * 60 * 60;

pub(super) fn secret(config: &Config) -> Result<String, Missing> {
    let file = &config.group.secret_file;
    read_secret(file).map_err(|error| (error.to_string(), keygen(config)))?;
    private(file)?;
    Ok(format!("{} holds the group's secret", file.display()))
}

pub(super) fn examine(
    config: &Config,
    files: &KeyFiles,
    check: &mut impl FnMut(&'static str, Result<String, Missing>),
) {
    check("certificate", certificate(config, files));
    check("validity", validity(config, &files.certificate));
    check("validity-ca", validity(config, &files.ca));
    check(
        "key-mode",
        private(&files.key).map(|()| format!("only its owner can read {}", files.key.display())),
    );
}

fn keygen(config: &Config) -> String {
    let folder = config.group.secret_file.parent().unwrap_or(Path::new("."));
    format!("ferry keygen --group {} --node {} --out {}", config.group.name, config.name, quoted(folder))
}

fn certificate(config: &Config, files: &KeyFiles) -> Result<String, Missing> {
    let mend = |what: String| {
        let folder = files.ca.parent().unwrap_or(Path::new("."));
        let ca = quoted(folder);
        let command = format!(
            "ferry keygen --group {} --node {} --ca {ca} --out NEW-FOLDER",
            config.group.name, config.name
        );
        (what, command)
    };
    let name =
        verify_own(files, &config.name, &config.group.name).map_err(|error| mend(error.to_string()))?;
    Ok(format!("{} proves to the others that this is {name}", files.certificate.display()))
}

fn validity(config: &Config, file: &Path) -> Result<String, Missing> {
    let shown = file.display();
    let unreadable = |why: String| (format!("{shown}: {why}"), keygen(config));
    let octets = std::fs::read(file).map_err(|why| unreadable(why.to_string()))?;
    let (_, pem) = x509_parser::pem::parse_x509_pem(&octets).map_err(|why| unreadable(why.to_string()))?;
    let certificate = pem.parse_x509().map_err(|why| unreadable(why.to_string()))?;
    let validity = certificate.validity();
    let (from, until) = (validity.not_before, validity.not_after);
    let now = unix_seconds();
    if now < from.timestamp() {
        let what = format!("{shown} is valid only from {from} on; this machine's clock is behind");
        return Err((what, "sudo timedatectl set-ntp true".to_owned()));
    }
    if now > until.timestamp() {
        return Err((format!("{shown} expired on {until}"), keygen(config)));
    }
    let soon = if now > until.timestamp() - SOON { ", which is soon" } else { "" };
    Ok(format!("{shown} is valid until {until}{soon}"))
}

/// Nobody but its owner may read a secret.
fn private(file: &Path) -> Result<(), Missing> {
    let mend = || format!("chmod 0600 {}", quoted(file));
    let found = std::fs::metadata(file).map_err(|why| (format!("{}: {why}", file.display()), mend()))?;
    let mode = found.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err((
            format!("others than its owner can reach {} (mode {mode:04o})", file.display()),
            mend(),
        ));
    }
    Ok(())
}
