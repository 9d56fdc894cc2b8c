//! Says in plain words what a node lacks, each with the command that mends it.

mod keys;
mod live;
mod net;

use std::path::Path;

use serde::Serialize;

use crate::config::{Config, ServiceKind};
use crate::services::FileService;

/// What was found. As JSON: `{"version":1,"checks":[{"name","ok","what","mend"}]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Of this format.
    pub version: u32,
    /// In the order in which things depend on each other.
    pub checks: Vec<Check>,
}

/// One thing that a node needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Its name, the same in each run.
    pub name: &'static str,
    /// Whether it is there.
    pub ok: bool,
    /// What was seen.
    pub what: String,
    /// The command that mends it; present exactly if it is not `ok`.
    pub mend: Option<String>,
}

impl Report {
    /// Whether nothing is missing.
    pub fn is_well(&self) -> bool {
        self.checks.iter().all(|check| check.ok)
    }

    /// Characters of the longest name.
    pub fn widest(&self) -> usize {
        self.checks.iter().map(|check| check.name.len()).max().unwrap_or(0)
    }
}

/// Something that is missing: what was seen, and the command that mends it.
type Missing = (String, String);

impl Check {
    fn new(name: &'static str, found: Result<String, Missing>) -> Self {
        match found {
            Ok(what) => Self { name, ok: true, what, mend: None },
            Err((what, mend)) => Self { name, ok: false, what, mend: Some(mend) },
        }
    }
}

/// Looks at everything that the node of this configuration needs; `control` replaces the control socket that it names.
pub fn examine(file: &Path, control: Option<&Path>) -> Report {
    let mut checks = Vec::new();
    let mut check = |name, found| checks.push(Check::new(name, found));
    match Config::load(file) {
        Err(error) => {
            let edit = format!("$EDITOR {}", file.display());
            check("config", Err((error.to_string(), edit)));
            check("tun-driver", net::driver());
        }
        Ok(mut config) => {
            if let Some(control) = control {
                control.clone_into(&mut config.control);
            }
            check("config", Ok(format!("{} is in order", file.display())));
            examine_config(&config, file, &mut check);
        }
    }
    Report { version: 1, checks }
}

fn examine_config(
    config: &Config,
    file: &Path,
    check: &mut impl FnMut(&'static str, Result<String, Missing>),
) {
    let running = live::node(config);
    check("tun-driver", net::driver());
    net::Tap::new(config, running.is_some()).examine(check);
    check("secret", keys::secret(config));
    if let Some(files) = config.peer_link.as_ref().and_then(|link| link.keys.as_ref()) {
        keys::examine(config, files, check);
    }
    check("clock", live::clock());
    for service in &config.services {
        if let ServiceKind::File { root } = &service.kind {
            check("files", folder(root));
        }
    }
    check("control", live::control(config, running.as_ref()));
    live::etcd(config, check);
    live::links(config, file, running.as_ref(), check);
}

fn folder(root: &Path) -> Result<String, Missing> {
    match FileService::open(root) {
        Ok(_) => Ok(format!("{} can be served", root.display())),
        Err(error) => Err((error.to_string(), format!("mkdir -p {}", root.display()))),
    }
}

/// The shortest form of a path in a command line.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+,=@".contains(c));
    if plain { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_configuration_the_report_says_so_and_still_looks_at_the_driver() {
        let report = examine(Path::new("/nonexistent/node.toml"), None);
        assert!(!report.is_well());
        assert_eq!(
            report.checks.iter().map(|check| check.name).collect::<Vec<_>>(),
            ["config", "tun-driver"]
        );
        assert!(report.checks[0].what.starts_with("/nonexistent/node.toml: cannot be read"));
    }

    #[test]
    fn the_report_is_json_of_the_documented_shape() {
        let checks =
            vec![Check::new("a", Ok("fine".into())), Check::new("b", Err(("gone".into(), "mend".into())))];
        let json = serde_json::to_string(&Report { version: 1, checks }).unwrap();
        let expected = r#"{"version":1,"checks":[{"name":"a","ok":true,"what":"fine","mend":null},{"name":"b","ok":false,"what":"gone","mend":"mend"}]}"#;
        assert_eq!(json, expected);
    }

    #[test]
    fn a_path_with_odd_characters_is_quoted() {
        assert_eq!(quoted(Path::new("/a/b-c.d")), "/a/b-c.d");
        assert_eq!(quoted(Path::new("/a b'c")), r"'/a b'\''c'");
    }
}
