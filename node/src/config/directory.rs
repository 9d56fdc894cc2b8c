//! The section `[directory]`: how the nodes find out which of them are alive.

use core::ops::RangeInclusive;
use std::time::Duration;

use super::check::Checker;
use super::error::add;
use super::raw::{self, At};
use super::{Endpoint, Etcd};
use crate::{DirectoryKind, DirectorySetup};

const HEARTBEAT_MS: RangeInclusive<i64> = 1..=10_000;
const LEASE_MS: RangeInclusive<i64> = 4..=600_000;
/// Heartbeats that a lease must outlast, so that one or two may be lost.
const BEATS: u32 = 4;
/// IANA's port of etcd's clients.
const ETCD_PORT: u16 = 2379;
const KINDS: [(&str, DirectoryKind); 2] =
    [("embedded", DirectoryKind::Embedded), ("etcd", DirectoryKind::Etcd)];

impl Checker<'_> {
    pub(super) fn directory(
        &mut self,
        raw: Option<raw::Directory>,
        group: &str,
    ) -> Option<(DirectorySetup, Option<Etcd>)> {
        let Some(mut raw) = raw else {
            return Some((DirectorySetup::default(), None));
        };
        let kind = self.choice(raw.kind.as_ref(), "kind of directory", &KINDS);
        let etcd = match kind {
            Some(DirectoryKind::Etcd) => Some(self.etcd(&mut raw, group)),
            Some(DirectoryKind::Embedded) => {
                self.only_with_etcd(&raw);
                None
            }
            None => None,
        };
        let setup = self.times(raw, kind.unwrap_or_default());
        let etcd = match etcd {
            None => None,
            Some(etcd) => Some(etcd?),
        };
        kind?;
        Some((setup?, etcd))
    }

    fn times(&mut self, raw: raw::Directory, kind: DirectoryKind) -> Option<DirectorySetup> {
        let usual = match kind {
            DirectoryKind::Embedded => DirectorySetup::default(),
            DirectoryKind::Etcd => DirectorySetup::etcd(),
        };
        let raw::Directory { heartbeat_ms, lease_ms, .. } = raw;
        let at = lease_ms.as_ref().or(heartbeat_ms.as_ref()).map(|at| At::new(at.span(), ()));
        let at = at.unwrap_or_else(|| At::new(0..0, ()));
        let millis = |span: Duration| i64::try_from(span.as_millis()).unwrap_or(i64::MAX);
        let heartbeat = self.number(heartbeat_ms, "heartbeat-ms", &HEARTBEAT_MS, millis(usual.heartbeat));
        let lease = self.number(lease_ms, "lease-ms", &LEASE_MS, millis(usual.lease));
        let span = |millis: i64| Duration::from_millis(millis.unsigned_abs());
        let (heartbeat, lease) = (span(heartbeat?), span(lease?));
        if lease < heartbeat * BEATS {
            let right =
                format!("make it at least {} ms, or the heartbeat shorter", (heartbeat * BEATS).as_millis());
            let what = format!(
                "a lease of {} ms is too short for heartbeats of {} ms",
                lease.as_millis(),
                heartbeat.as_millis()
            );
            self.problem(&at, what, right);
        }
        if kind == DirectoryKind::Etcd && lease.subsec_nanos() != 0 {
            let what = format!("etcd has no lease of {} ms", lease.as_millis());
            let right = format!("it counts whole seconds: take {}", (lease.as_secs() + 1) * 1000);
            self.problem(&at, what, right);
        }
        Some(DirectorySetup { kind, heartbeat, lease })
    }

    /// What means nothing without etcd was meant to mean something.
    fn only_with_etcd(&mut self, raw: &raw::Directory) {
        let at = |key: Option<&At<String>>| key.map(|at| At::new(at.span(), ()));
        let keys: [(&str, Option<At<()>>); 5] = [
            ("endpoints", raw.endpoints.as_ref().map(|at| At::new(at.span(), ()))),
            ("prefix", at(raw.prefix.as_ref())),
            ("ca", at(raw.ca.as_ref())),
            ("certificate", at(raw.certificate.as_ref())),
            ("key", at(raw.key.as_ref())),
        ];
        for (key, at) in keys.into_iter().filter_map(|(key, at)| Some((key, at?))) {
            let what = format!("`{key}` in [directory] is of no use without etcd");
            self.problem(&at, what, "write `kind = \"etcd\"` too, or leave it out");
        }
    }

    fn etcd(&mut self, raw: &mut raw::Directory, group: &str) -> Option<Etcd> {
        let section = At::new(raw.kind.as_ref().map_or(0..0, At::span), ());
        let Some(endpoints) = raw.endpoints.take().filter(|endpoints| !endpoints.get_ref().is_empty()) else {
            let right = "name where etcd listens for clients: `endpoints = [\"http://127.0.0.1:2379\"]`";
            self.problem(&section, "`kind = \"etcd\"` needs `endpoints`", right);
            return None;
        };
        let ca = raw.ca.take().map(|ca| self.path(ca.get_ref()));
        let mut found = Vec::new();
        for at in endpoints.get_ref() {
            let endpoint = self.endpoint(at)?;
            if endpoint.tls && ca.is_none() {
                let what = format!("`ca` is missing in [directory], and {endpoint} speaks TLS");
                self.problem(at, what, add("ca"));
            }
            found.push(endpoint);
        }
        let certificate = match (raw.certificate.take(), raw.key.take()) {
            (Some(certificate), Some(key)) => {
                Some((self.path(certificate.get_ref()), self.path(key.get_ref())))
            }
            (Some(alone), None) | (None, Some(alone)) => {
                let what = "`certificate` and `key` in [directory] belong together";
                self.problem(&alone, what, "give both, or none");
                None
            }
            (None, None) => None,
        };
        let prefix = raw.prefix.take().map_or_else(|| "ferry".to_owned(), At::into_inner);
        let prefix = format!("{}/{group}/", prefix.trim_end_matches('/'));
        Some(Etcd { endpoints: found, prefix, ca, certificate })
    }

    fn endpoint(&mut self, at: &At<String>) -> Option<Endpoint> {
        let found = endpoint(at.get_ref());
        if found.is_none() {
            let what = format!("\"{}\" is no endpoint of etcd", at.get_ref());
            self.problem(at, what, "write it as \"http://HOST:2379\" or \"https://HOST:2379\"");
        }
        found
    }
}

fn endpoint(text: &str) -> Option<Endpoint> {
    let (tls, rest) = match text.split_once("://")? {
        ("http", rest) => (false, rest),
        ("https", rest) => (true, rest),
        _ => return None,
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = match rest.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, port)
        }
        None => rest.find(':').map_or((rest, ""), |at| rest.split_at(at)),
    };
    let port = match port.strip_prefix(':') {
        Some(port) => port.parse().ok().filter(|port| *port != 0)?,
        None if port.is_empty() => ETCD_PORT,
        None => return None,
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
    (!host.is_empty() && host.chars().all(plain)).then(|| Endpoint { host: host.to_owned(), port, tls })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::config::tests::{GOOD, parse};

    fn with(lines: &str) -> Result<Config, String> {
        parse(&GOOD.replace("[tap]", &format!("[directory]\n{lines}\n[tap]")))
    }

    #[test]
    fn etcd_is_named_with_where_it_listens_and_what_proves_who_it_is() {
        let config = with("kind = \"etcd\"\nendpoints = [\"http://127.0.0.1:2379\"]").unwrap();
        assert_eq!(config.directory, DirectorySetup::etcd());
        let etcd = config.etcd.unwrap();
        assert_eq!((etcd.prefix.as_str(), etcd.ca, etcd.certificate), ("ferry/demo/", None, None));
        let config = with(
            "kind = \"etcd\"\nendpoints = [\"https://a\", \"https://b:1\"]\nprefix = \"/x/\"\nca = \"ca.pem\"\n\
             certificate = \"n.pem\"\nkey = \"n.key\"\nlease-ms = 5000",
        )
        .unwrap();
        let etcd = config.etcd.unwrap();
        assert_eq!((etcd.prefix.as_str(), etcd.endpoints.len()), ("/x/demo/", 2));
        assert!(etcd.ca.is_some() && etcd.certificate.is_some());
        assert_eq!(config.directory.lease, Duration::from_secs(5));
        assert_eq!(parse(GOOD).unwrap().etcd, None);
    }

    #[test]
    fn what_is_wrong_about_etcd_is_told_with_what_would_be_right() {
        let etcd = |rest: &str| format!("kind = \"etcd\"\nendpoints = [\"http://127.0.0.1:2379\"]\n{rest}");
        for (lines, what) in [
            (
                "kind = \"etcd\"".to_owned(),
                ":12: `kind = \"etcd\"` needs `endpoints`; name where etcd listens",
            ),
            (
                "endpoints = [\"http://a\"]".to_owned(),
                ":12: `endpoints` in [directory] is of no use without etcd",
            ),
            (
                etcd("lease-ms = 2500"),
                ":14: etcd has no lease of 2500 ms; it counts whole seconds: take 3000",
            ),
            (etcd("key = \"a.key\""), ":14: `certificate` and `key` in [directory] belong together"),
            (
                "kind = \"etcd\"\nendpoints = [\"127.0.0.1\"]".to_owned(),
                ":13: \"127.0.0.1\" is no endpoint of etcd; write it as \"http://HOST:2379\"",
            ),
            (
                "kind = \"etcd\"\nendpoints = [\"https://a\"]".to_owned(),
                ":13: `ca` is missing in [directory], and https://a:2379 speaks TLS; add",
            ),
        ] {
            let said = with(&lines).unwrap_err();
            assert!(said.contains(what), "{said}");
        }
    }

    #[test]
    fn endpoints_are_addresses_with_a_scheme() {
        let of = |text| endpoint(text).map(|endpoint| endpoint.to_string());
        let cases = [
            ("http://127.0.0.1:2379", Some("http://127.0.0.1:2379")),
            ("https://etcd-1.example.org/", Some("https://etcd-1.example.org:2379")),
            ("http://[2001:db8::1]:4001", Some("http://[2001:db8::1]:4001")),
            ("127.0.0.1:2379", None),
            ("ftp://127.0.0.1:2379", None),
            ("http://:2379", None),
            ("http://a:0", None),
            ("http://a:b", None),
            ("http://[a]:1", None),
            ("http://a/v3", None),
        ];
        for (text, expected) in cases {
            assert_eq!(of(text).as_deref(), expected, "{text}");
        }
    }
}
