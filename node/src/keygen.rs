//! Makes the keys of a group: a certificate authority, a certificate and key for each node, and the secret that the
//! nodes share.

use core::time::Duration;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, NameConstraints, date_time_ymd,
};
use rustix::rand::{GetRandomFlags, getrandom};

use crate::config::is_label;
use crate::driver::{certified_name, unix_seconds};

/// How long what is made here is valid.
const VALID: Duration = Duration::from_secs(10 * 365 * DAY);
/// Clocks of nodes may differ.
const EARLIER: u64 = DAY;
const DAY: u64 = 24 * 60 * 60;

const SECRET: u32 = 0o600;
const PUBLIC: u32 = 0o644;

/// What to make.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// The group's name.
    pub group: &'a str,
    /// The nodes to make certificates for.
    pub nodes: &'a [String],
    /// The folder to write to; made if it is not there.
    pub out: &'a Path,
    /// The folder with `ca.pem` and `ca.key` of a group that exists already. No authority and no secret are made then.
    pub ca: Option<&'a Path>,
}

/// The keys cannot be made. Nothing was written, or what was written has been removed.
#[derive(Debug, thiserror::Error)]
pub enum KeygenError {
    /// A name that cannot be part of a certificate's name.
    #[error("\"{0}\" cannot be a name here; use 1 to 63 of a-z, 0-9 and inner hyphens")]
    Name(String),
    /// A file is there already.
    #[error("{} is there already, and is not overwritten; name another folder with --out, or add nodes to this group with --ca {}", .0.display(), .0.parent().unwrap_or(Path::new(".")).display())]
    Exists(PathBuf),
    /// A file cannot be written or read.
    #[error("{}: {why}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// The authority belongs to another group.
    #[error("{} is the authority of \"{found}\", not of \"{wanted}\"; compare --ca and --group", file.display())]
    OtherGroup {
        /// The authority's certificate.
        file: PathBuf,
        /// Whose it is.
        found: String,
        /// Whose it would have to be.
        wanted: String,
    },
    /// A certificate cannot be made, or the authority cannot be used.
    #[error("cannot make certificates: {0}")]
    Certificate(#[from] rcgen::Error),
}

/// Makes the files and tells which. Refuses to overwrite any.
pub fn generate(plan: &Plan<'_>) -> Result<Vec<PathBuf>, KeygenError> {
    for name in plan.nodes.iter().map(String::as_str).chain([plan.group]) {
        if !is_label(name) {
            return Err(KeygenError::Name(name.to_owned()));
        }
    }
    let mut files = Vec::new();
    let issuer = match plan.ca {
        Some(folder) => existing_authority(folder, plan.group)?,
        None => new_authority(plan, &mut files)?,
    };
    for node in plan.nodes {
        let (certificate, key) = certify(node, plan.group, &issuer)?;
        files.push(File::new(plan.out, &format!("{node}.pem"), PUBLIC, certificate));
        files.push(File::new(plan.out, &format!("{node}.key"), SECRET, key));
    }
    write_all(plan.out, &files)?;
    Ok(files.into_iter().map(|file| file.path).collect())
}

struct File {
    path: PathBuf,
    mode: u32,
    text: String,
}

impl File {
    fn new(folder: &Path, name: &str, mode: u32, text: String) -> Self {
        Self { path: folder.join(name), mode, text }
    }

    fn write(&self) -> Result<(), KeygenError> {
        let written = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(self.mode)
            .open(&self.path)
            .and_then(|mut file| file.write_all(self.text.as_bytes()));
        written.map_err(|why| match why.kind() {
            io::ErrorKind::AlreadyExists => KeygenError::Exists(self.path.clone()),
            _ => KeygenError::Io { file: self.path.clone(), why },
        })
    }
}

/// All files or none.
fn write_all(folder: &Path, files: &[File]) -> Result<(), KeygenError> {
    std::fs::create_dir_all(folder).map_err(|why| KeygenError::Io { file: folder.to_owned(), why })?;
    for (index, file) in files.iter().enumerate() {
        let Err(error) = file.write() else { continue };
        for written in &files[..index] {
            // They were made just now; one that stays behind is named when this is run again.
            let _ = std::fs::remove_file(&written.path);
        }
        return Err(error);
    }
    Ok(())
}

fn new_authority(plan: &Plan<'_>, files: &mut Vec<File>) -> Result<Issuer<'static, KeyPair>, KeygenError> {
    let mut params = params(Vec::new(), &authority_name(plan.group))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    // RFC 5280 section 4.2.1.10: the authority of one group cannot speak for another.
    let own = GeneralSubtree::DnsName(authority_name(plan.group));
    params.name_constraints =
        Some(NameConstraints { permitted_subtrees: vec![own], excluded_subtrees: Vec::new() });
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?.pem();
    files.push(File::new(plan.out, "ca.pem", PUBLIC, certificate));
    files.push(File::new(plan.out, "ca.key", SECRET, key.serialize_pem()));
    for name in ["group.secret", "home-agent.key"] {
        files.push(File::new(plan.out, name, SECRET, format!("{}\n", secret()?)));
    }
    Ok(Issuer::new(params, key))
}

fn existing_authority(folder: &Path, group: &str) -> Result<Issuer<'static, KeyPair>, KeygenError> {
    let read = |name: &str| {
        let file = folder.join(name);
        std::fs::read_to_string(&file).map_err(|why| KeygenError::Io { file, why })
    };
    let (certificate, key) = (read("ca.pem")?, read("ca.key")?);
    let (found, wanted) = (common_name(&certificate), authority_name(group));
    if found.as_deref() != Some(&wanted) {
        let found = found.unwrap_or_else(|| "nobody that can be read".to_owned());
        return Err(KeygenError::OtherGroup { file: folder.join("ca.pem"), found, wanted });
    }
    Ok(Issuer::from_ca_cert_pem(&certificate, KeyPair::from_pem(&key)?)?)
}

fn common_name(certificate: &str) -> Option<String> {
    let (_, pem) = x509_parser::pem::parse_x509_pem(certificate.as_bytes()).ok()?;
    let certificate = pem.parse_x509().ok()?;
    let name = certificate.subject().iter_common_name().next()?.as_str().ok()?;
    Some(name.to_owned())
}

fn certify(node: &str, group: &str, issuer: &Issuer<'_, KeyPair>) -> Result<(String, String), KeygenError> {
    let name = certified_name(node, group);
    let mut params = params(vec![name.clone()], &name)?;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    Ok((params.signed_by(&key, issuer)?.pem(), key.serialize_pem()))
}

fn params(names: Vec<String>, common_name: &str) -> Result<CertificateParams, KeygenError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let now = u64::try_from(unix_seconds()).unwrap_or(0);
    params.not_before = date_time_ymd(1970, 1, 1) + Duration::from_secs(now.saturating_sub(EARLIER));
    params.not_after = date_time_ymd(1970, 1, 1) + Duration::from_secs(now) + VALID;
    Ok(params)
}

fn authority_name(group: &str) -> String {
    format!("{group}.ferry")
}

/// 32 random octets in hexadecimal.
fn secret() -> Result<String, KeygenError> {
    let mut octets = [0u8; 32];
    getrandom(&mut octets[..], GetRandomFlags::empty())
        .map_err(|why| KeygenError::Io { file: "getrandom".into(), why: why.into() })?;
    let digits = octets.iter().flat_map(|octet| [octet >> 4, octet & 15]);
    Ok(digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn nodes(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn whatever_is_secret_is_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("keys");
        let files =
            generate(&Plan { group: "demo", nodes: &nodes(&["a", "b"]), out: &out, ca: None }).unwrap();
        assert_eq!(files.len(), 8);
        for file in &files {
            let secret = ["key", "secret"].contains(&file.extension().unwrap().to_str().unwrap());
            assert_eq!(mode(file), if secret { 0o600 } else { 0o644 }, "{}", file.display());
        }
        assert!(
            crate::config::read_secret(&out.join("group.secret")).unwrap().iter().any(|&octet| octet != 0)
        );
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_half_done_is_left() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("b.key"), "precious").unwrap();
        let plan = Plan { group: "demo", nodes: &nodes(&["a", "b"]), out: folder.path(), ca: None };
        let error = generate(&plan).unwrap_err().to_string();
        assert!(error.contains("b.key is there already"), "{error}");
        let left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["b.key"]);
        assert_eq!(std::fs::read_to_string(folder.path().join("b.key")).unwrap(), "precious");
    }

    #[test]
    fn a_node_can_be_added_only_to_the_group_that_the_authority_is_for() {
        let folder = tempfile::tempdir().unwrap();
        let (keys, more) = (folder.path().join("keys"), folder.path().join("more"));
        generate(&Plan { group: "demo", nodes: &nodes(&["a"]), out: &keys, ca: None }).unwrap();
        let added =
            generate(&Plan { group: "demo", nodes: &nodes(&["d"]), out: &more, ca: Some(&keys) }).unwrap();
        assert_eq!(added, [more.join("d.pem"), more.join("d.key")]);
        let plan = Plan { group: "other", nodes: &nodes(&["e"]), out: &more, ca: Some(&keys) };
        let error = generate(&plan).unwrap_err().to_string();
        assert!(error.contains("is the authority of \"demo.ferry\", not of \"other.ferry\""), "{error}");
    }

    #[test]
    fn a_name_that_is_no_label_is_refused() {
        for bad in ["", "A", "a.b", "-a", "../a"] {
            let plan =
                Plan { group: "demo", nodes: &nodes(&[bad]), out: Path::new("/nonexistent"), ca: None };
            assert!(matches!(generate(&plan), Err(KeygenError::Name(_))), "{bad}");
        }
    }
}
