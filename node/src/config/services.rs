//! The sections `[[service]]`: what is served, and how often a connection's state is held.

use core::ops::RangeInclusive;
use std::collections::BTreeMap;

use super::check::Checker;
use super::error::add;
use super::raw::{self, At};
use super::{Service, ServiceKind};
use crate::Commit;

const PORT: RangeInclusive<i64> = 1..=65_535;
/// What may be written, the default first.
const COMMIT: [(&str, Commit); 3] =
    [("strict", Commit::Strict), ("regenerate", Commit::Regenerate), ("none", Commit::None)];

impl Checker<'_> {
    /// `others`: how many other nodes could hold a copy of a connection.
    pub(super) fn services(&mut self, raw: Vec<At<raw::Service>>, others: usize) -> Vec<Service> {
        if raw.is_empty() {
            self.problem(&At::new(0..0, ()), "there is no service", add("service"));
        }
        let mut ports = BTreeMap::new();
        raw.into_iter().filter_map(|service| self.service(service, &mut ports, others)).collect()
    }

    fn service(
        &mut self,
        raw: At<raw::Service>,
        ports: &mut BTreeMap<i64, String>,
        others: usize,
    ) -> Option<Service> {
        let section = At::new(raw.span(), ());
        let raw::Service { kind, port, root, replicas, commit } = raw.into_inner();
        let value = *port.get_ref();
        if let Some(other) = ports.insert(value, kind.get_ref().clone()) {
            self.problem(
                &port,
                format!("port {value} is also that of the service {other}"),
                "give each service a port of its own",
            );
        }
        let number = self.number(Some(port), "port", &PORT, 0);
        let replicas = self.replicas(replicas, others);
        let commit = self.commit(commit.as_ref(), replicas);
        let kind = self.kind(&section, &kind, root);
        Some(Service {
            port: u16::try_from(number?).ok()?,
            kind: kind?,
            replicas: replicas?,
            commit: commit?,
        })
    }

    fn kind(&mut self, section: &At<()>, kind: &At<String>, root: Option<At<String>>) -> Option<ServiceKind> {
        Some(match (self.one_of(kind, "kind of service", &["echo", "discard", "file", "stream"])?, root) {
            (2, Some(root)) => ServiceKind::File { root: self.path(root.get_ref()) },
            (2, None) => {
                self.problem(section, "a file service needs `root`", add("root"));
                return None;
            }
            (_, Some(root)) => {
                self.problem(
                    &root,
                    format!("a service of kind {} has no `root`", kind.get_ref()),
                    "leave it out",
                );
                return None;
            }
            (0, None) => ServiceKind::Echo,
            (1, None) => ServiceKind::Discard,
            (_, None) => ServiceKind::Stream,
        })
    }

    fn replicas(&mut self, at: Option<At<i64>>, others: usize) -> Option<u8> {
        let most = others.min(usize::from(u8::MAX));
        let Some(at) = at else { return Some(0) };
        let value = *at.get_ref();
        let replicas = u8::try_from(value).ok().filter(|replicas| usize::from(*replicas) <= most);
        if replicas.is_none() {
            self.problem(
                &at,
                format!("`replicas` is {value}"),
                format!(
                    "each replica is at a node of its own, and there are {others} others: take 0 to {most}"
                ),
            );
        }
        replicas
    }

    fn commit(&mut self, at: Option<&At<String>>, replicas: Option<u8>) -> Option<Commit> {
        if let (Some(at), Some(0)) = (at, replicas) {
            self.problem(
                at,
                "there is `commit`, but nothing to wait for without `replicas`",
                add("replicas"),
            );
        }
        self.choice(at, "commit", &COMMIT)
    }
}
