//! From what is written to what it means. All problems are collected, not only the first.

use core::ops::RangeInclusive;
use core::str::FromStr;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ferry_handoff::NodeId;
use ferry_stack::interface::Address;

use super::error::{Spotted, add, nearest, write_as};
use super::raw::{self, At};
use super::{Config, Group, KeyFiles, Peer, PeerLink, Tap, control_folders};

/// RFC 8200 section 5 to the most that a TAP can be set to.
const MTU: RangeInclusive<i64> = 1280..=65_521;
const DEFAULT_MTU: i64 = 1500;
const BUSY_POLL_US: RangeInclusive<i64> = 0..=1_000_000;
/// RFC 1035 section 2.3.4: the names become labels in certificates.
const MAX_LABEL: usize = 63;
/// `IFNAMSIZ` less the terminating zero.
const MAX_DEVICE: usize = 15;
/// `sun_path` less the terminating zero.
const MAX_SOCKET_PATH: usize = 107;

pub(super) fn check(
    raw: raw::Config,
    file: &Path,
    runtime_dir: Option<&Path>,
) -> Result<Config, Vec<Spotted>> {
    let mut checker = Checker::new(file.parent().unwrap_or(Path::new("")));
    let config = checker.config(raw, runtime_dir);
    match config {
        Some(config) if checker.problems.is_empty() => Ok(config),
        _ => Err(checker.problems),
    }
}

/// Collects what is wrong with a file.
pub(super) struct Checker<'a> {
    folder: &'a Path,
    pub(super) problems: Vec<Spotted>,
}

impl<'a> Checker<'a> {
    /// For a file in this folder.
    pub(super) const fn new(folder: &'a Path) -> Self {
        Self { folder, problems: Vec::new() }
    }
}

impl Checker<'_> {
    /// Each step notes its problems and goes on, so that all are told at once; `None` only after at least one.
    fn config(&mut self, raw: raw::Config, runtime_dir: Option<&Path>) -> Option<Config> {
        let raw::Config { name, control, group, home_agent, tap, peer_link, metrics, .. } = raw;
        let raw::Config { directory, peer: peers, service: services, .. } = raw;
        self.label(&name, "node");
        self.names(&name, &peers);
        self.contact(&group.contact, &name, &peers);
        self.links(peer_link.as_ref(), &peers);
        let kinds: Vec<_> = services.iter().map(|service| service.get_ref().kind.get_ref().clone()).collect();
        self.rules(&group, &name, &peers, &kinds);
        let control = self.control(control, name.get_ref(), runtime_dir);
        let group = self.group(group);
        let directory = self.directory(directory, group.as_ref().map_or("", |group| &group.name));
        let address = At::new(tap.address.span(), ());
        let tap = self.tap(tap);
        let metrics = metrics.map(|metrics| self.metrics(&metrics, peer_link.as_ref()));
        let peer_link = peer_link.map(|link| self.peer_link(link));
        let mut seen = self.own_addresses(&address, group.as_ref(), tap.as_ref());
        let agent_at = home_agent.as_ref().map(|agent| At::new(agent.agent_address.span(), ()));
        let home_agent = home_agent.map(|agent| self.home_agent(agent));
        if let (Some(at), Some(Some(agent))) = (agent_at, &home_agent)
            && let Some(other) = seen.insert(agent.agent_address, "the home agent's address".to_owned())
        {
            let what = format!("`agent-address` {} is also {other}", agent.agent_address);
            self.problem(&at, what, "the home agent has an address of its own");
        }
        let others = peers.len();
        let peers = peers.into_iter().filter_map(|peer| self.peer(peer, &mut seen)).collect();
        let services = self.services(services, others);
        let (group, tap) = (group?, tap?);
        let peer_link = match peer_link {
            None => None,
            Some(checked) => Some(checked?),
        };
        let home_agent = match home_agent {
            None => None,
            Some(checked) => Some(checked?),
        };
        let metrics = match metrics {
            None => None,
            Some(checked) => Some(checked?),
        };
        let (name, (directory, etcd)) = (name.into_inner(), directory?);
        Some(Config {
            name,
            control,
            group,
            home_agent,
            directory,
            etcd,
            tap,
            peer_link,
            metrics,
            peers,
            services,
        })
    }

    pub(super) fn problem<T>(&mut self, at: &At<T>, what: impl Into<String>, right: impl Into<String>) {
        self.problems.push(Spotted { at: at.span(), what: what.into(), right: right.into() });
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.folder.join(path)
    }

    fn control(&mut self, control: Option<At<String>>, name: &str, runtime_dir: Option<&Path>) -> PathBuf {
        let Some(control) = control else {
            return control_folders(runtime_dir).swap_remove(0).join(format!("{name}.sock"));
        };
        self.control_path(&control)
    }

    pub(super) fn control_path(&mut self, control: &At<String>) -> PathBuf {
        let path = self.path(control.get_ref());
        let octets = path.as_os_str().len();
        if control.get_ref().is_empty() {
            self.problem(control, "`control` is empty", write_as("control"));
        } else if octets > MAX_SOCKET_PATH {
            let right = format!("a socket's path has at most {MAX_SOCKET_PATH}: take a shorter one");
            self.problem(control, format!("the path of `control` has {octets} octets"), right);
        }
        path
    }

    pub(super) fn label(&mut self, label: &At<String>, of: &str) {
        let text = label.get_ref();
        if !is_label(text) {
            let right = format!("use 1 to {MAX_LABEL} of a-z, 0-9 and inner hyphens, such as \"{of}-1\"");
            self.problem(label, format!("\"{text}\" cannot be the name of a {of}"), right);
        }
    }

    fn names(&mut self, name: &At<String>, peers: &[raw::Peer]) {
        for peer in peers {
            self.label(&peer.name, "node");
        }
        let all: Vec<&At<String>> = [name].into_iter().chain(peers.iter().map(|peer| &peer.name)).collect();
        for (at, other) in clashes(&all, NodeId::of) {
            let name = at.get_ref();
            if name == other {
                self.problem(at, format!("a second node with the name \"{name}\""), "each name stands once");
            } else {
                let what = format!("the names \"{name}\" and \"{other}\" have one NodeId");
                self.problem(at, what, "rename one of the two nodes");
            }
        }
    }

    fn contact(&mut self, contact: &At<String>, name: &At<String>, peers: &[raw::Peer]) {
        let known = || {
            [name].into_iter().chain(peers.iter().map(|peer| &peer.name)).map(|name| name.get_ref().as_str())
        };
        if known().any(|known| known == contact.get_ref()) {
            return;
        }
        let right = nearest(contact.get_ref(), known()).map_or_else(
            || format!("name this node or a peer: {}", known().collect::<Vec<_>>().join(", ")),
            |near| format!("did you mean \"{near}\"?"),
        );
        self.problem(
            contact,
            format!("the contact node \"{}\" is neither this node nor a peer", contact.get_ref()),
            right,
        );
    }

    fn links(&mut self, peer_link: Option<&At<raw::PeerLink>>, peers: &[raw::Peer]) {
        if let (None, Some(peer)) = (peer_link, peers.first()) {
            self.problem(&peer.name, "there is a peer, but no section [peer-link]", add("peer-link"));
        }
        let mut seen = BTreeMap::new();
        if let Some(link) = peer_link {
            seen.insert(link.get_ref().listen.get_ref(), "this node");
        }
        for peer in peers {
            if let Some(other) = seen.insert(peer.link.get_ref(), peer.name.get_ref()) {
                let what = format!("`link` {} is also that of {other}", peer.link.get_ref());
                self.problem(&peer.link, what, "each node listens at an address and port of its own");
            }
        }
    }

    /// What a value stands for; the first of the choices if there is none.
    pub(super) fn choice<T: Copy>(
        &mut self,
        value: Option<&At<String>>,
        key: &str,
        choices: &[(&str, T)],
    ) -> Option<T> {
        let Some(at) = value else { return choices.first().map(|(_, meaning)| *meaning) };
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        self.one_of(at, key, &names).map(|nth| choices[nth].1)
    }

    /// The place of the value among those that are known.
    pub(super) fn one_of(&mut self, at: &At<String>, key: &str, known: &[&str]) -> Option<usize> {
        let found = known.iter().position(|known| known == at.get_ref());
        if found.is_none() {
            let right = nearest(at.get_ref(), known.iter().copied()).map_or_else(
                || format!("choose one of {}", known.join(", ")),
                |near| format!("did you mean \"{near}\"?"),
            );
            self.problem(at, format!("there is no {key} \"{}\"", at.get_ref()), right);
        }
        found
    }

    pub(super) fn tap(&mut self, raw: raw::Tap) -> Option<Tap> {
        let raw::Tap { device, address, gateway, mtu, busy_poll_us } = raw;
        self.device(&device);
        let mtu = self.number(mtu, "mtu", &MTU, DEFAULT_MTU);
        let busy_poll_us = self.number(busy_poll_us, "busy-poll-us", &BUSY_POLL_US, 0);
        let care_of = self.care_of(&address);
        let router = self.ipv6(&gateway, "gateway");
        let (address, router) = (care_of?, router?);
        self.gateway(&gateway, router, address);
        Some(Tap {
            device: device.into_inner(),
            address,
            gateway: router,
            mtu: u16::try_from(mtu?).ok()?,
            busy_poll: Duration::from_micros(u64::try_from(busy_poll_us?).ok()?),
        })
    }

    fn device(&mut self, device: &At<String>) {
        let name = device.get_ref();
        let fits = (1..=MAX_DEVICE).contains(&name.len())
            && ![".", ".."].contains(&name.as_str())
            && !name.contains(|c: char| c == '/' || c == ':' || c.is_whitespace());
        if !fits {
            let right =
                format!("use 1 to {MAX_DEVICE} octets without '/', ':' and spaces, such as \"ferry0\"");
            self.problem(device, format!("\"{name}\" cannot be the name of a device"), right);
        }
    }

    fn care_of(&mut self, at: &At<String>) -> Option<Address> {
        let text = at.get_ref();
        let Some((address, prefix_len)) = text.split_once('/') else {
            let right = format!("give the prefix length too, such as \"{text}/64\"");
            self.problem(at, format!("`address` {text} has no prefix length"), right);
            return None;
        };
        let Some(prefix_len) = prefix_len.parse::<u8>().ok().filter(|len| (1..=128).contains(len)) else {
            self.problem(
                at,
                format!("the prefix length in {text} is not between 1 and 128"),
                write_as("address"),
            );
            return None;
        };
        let address = At::new(at.span(), address.to_owned());
        Some(Address { address: self.unicast(&address, "address")?, prefix_len })
    }

    fn gateway(&mut self, at: &At<String>, gateway: Ipv6Addr, own: Address) {
        let text = at.get_ref();
        if gateway == own.address {
            self.problem(
                at,
                format!("`gateway` {text} is the node's own `address`"),
                "name the router's address",
            );
        } else if !gateway.is_unicast_link_local() && !within(gateway, own) {
            let right =
                format!("take an address within {}/{}, or a link-local one", own.address, own.prefix_len);
            self.problem(at, format!("`gateway` {text} is not on the link of `address`"), right);
        }
    }

    /// The number, or the default; `None` after a problem.
    pub(super) fn number(
        &mut self,
        at: Option<At<i64>>,
        key: &str,
        range: &RangeInclusive<i64>,
        default: i64,
    ) -> Option<i64> {
        let Some(at) = at else { return Some(default) };
        let value = *at.get_ref();
        if range.contains(&value) {
            return Some(value);
        }
        let right = format!("it must lie between {} and {}", range.start(), range.end());
        self.problem(&at, format!("`{key}` is {value}"), right);
        None
    }

    fn ipv6(&mut self, at: &At<String>, key: &str) -> Option<Ipv6Addr> {
        let text = at.get_ref();
        let what = match IpAddr::from_str(text) {
            Ok(IpAddr::V6(address)) => return Some(address),
            Ok(IpAddr::V4(_)) => format!("`{key}` {text} is an IPv4 address, and must be IPv6"),
            Err(_) => format!("`{key}` \"{text}\" is not an IPv6 address"),
        };
        self.problem(at, what, write_as(key));
        None
    }

    /// An address that routers would carry (RFC 4291 section 2.4).
    pub(super) fn unicast(&mut self, at: &At<String>, key: &str) -> Option<Ipv6Addr> {
        let address = self.ipv6(at, key)?;
        let wrong = if address.is_multicast() {
            "a multicast"
        } else if address.is_loopback() || address.is_unspecified() {
            "a loopback or unspecified"
        } else if address.is_unicast_link_local() {
            "a link-local"
        } else {
            return Some(address);
        };
        self.problem(
            at,
            format!("`{key}` {address} is {wrong} address"),
            "routers must be able to carry it: take a global or unique-local one",
        );
        None
    }

    fn socket(&mut self, at: &At<String>, key: &str, may_be_any: bool) -> Option<SocketAddr> {
        let text = at.get_ref();
        let Ok(address) = SocketAddr::from_str(text) else {
            self.problem(at, format!("`{key}` \"{text}\" is not an address and port"), write_as(key));
            return None;
        };
        if address.port() == 0 || (!may_be_any && address.ip().is_unspecified()) {
            self.problem(
                at,
                format!("`{key}` {text} names no address and port that one can connect to"),
                write_as(key),
            );
            return None;
        }
        Some(address)
    }

    fn metrics(&mut self, raw: &raw::Metrics, link: Option<&At<raw::PeerLink>>) -> Option<SocketAddr> {
        let listen = self.socket(&raw.listen, "listen", true)?;
        let links = link.and_then(|link| SocketAddr::from_str(link.get_ref().listen.get_ref()).ok());
        if links == Some(listen) {
            let what = format!("`listen` {listen} of [metrics] is also that of [peer-link]");
            self.problem(&raw.listen, what, "take another port, such as 9464");
            return None;
        }
        Some(listen)
    }

    fn peer_link(&mut self, raw: At<raw::PeerLink>) -> Option<PeerLink> {
        let section = At::new(raw.span(), ());
        let raw::PeerLink { listen, ca, certificate, key, insecure_plaintext } = raw.into_inner();
        let listen = self.socket(&listen, "listen", true);
        let keys =
            if insecure_plaintext { Some(None) } else { self.keys(&section, ca, certificate, key).map(Some) };
        Some(PeerLink { listen: listen?, keys: keys? })
    }

    fn keys(
        &mut self,
        section: &At<()>,
        ca: Option<At<String>>,
        certificate: Option<At<String>>,
        key: Option<At<String>>,
    ) -> Option<KeyFiles> {
        let mut file = |at: Option<At<String>>, name: &str| {
            if at.is_none() {
                self.problem(section, format!("key `{name}` is missing in [peer-link]"), add(name));
            }
            Some(self.path(at?.get_ref()))
        };
        let (ca, certificate, key) = (file(ca, "ca"), file(certificate, "certificate"), file(key, "key"));
        Some(KeyFiles { ca: ca?, certificate: certificate?, key: key? })
    }

    /// The addresses that a peer cannot have, and whose they are.
    fn own_addresses(
        &mut self,
        at: &At<()>,
        group: Option<&Group>,
        tap: Option<&Tap>,
    ) -> BTreeMap<Ipv6Addr, String> {
        let service = group.map(|group| (group.service_address, "the service address".to_owned()));
        let own = tap.map(|tap| (tap.address.address, "this node's `address`".to_owned()));
        if let (Some((service, _)), Some((own, _))) = (&service, &own)
            && service == own
        {
            let what = format!("`address` {own} is also the service address");
            self.problem(at, what, "each node has an address of its own");
        }
        service.into_iter().chain(own).collect()
    }

    fn peer(&mut self, raw: raw::Peer, seen: &mut BTreeMap<Ipv6Addr, String>) -> Option<Peer> {
        let raw::Peer { name, care_of: at, link } = raw;
        let care_of = self.unicast(&at, "care-of");
        let link = self.socket(&link, "link", false);
        let care_of = care_of?;
        if let Some(other) = seen.insert(care_of, format!("`care-of` of {}", name.get_ref())) {
            self.problem(
                &at,
                format!("`care-of` {care_of} is also {other}"),
                "each node has an address of its own",
            );
        }
        Some(Peer { name: name.into_inner(), care_of, link: link? })
    }
}

/// Whether `text` can name a node or a group: a label as RFC 1123 section 2.1 has it, in lower case only, for two
/// spellings must not be one name.
pub(crate) fn is_label(text: &str) -> bool {
    (1..=MAX_LABEL).contains(&text.len())
        && text.bytes().all(|octet| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

pub(super) fn within(address: Ipv6Addr, link: Address) -> bool {
    let mask = u128::MAX.checked_shl(128 - u32::from(link.prefix_len)).unwrap_or(0);
    (address.to_bits() ^ link.address.to_bits()) & mask == 0
}

/// Names whose digest an earlier name has, with that earlier name.
pub(super) fn clashes<'a>(
    names: &[&'a At<String>],
    digest: impl Fn(&str) -> NodeId,
) -> Vec<(&'a At<String>, &'a String)> {
    let mut seen = BTreeMap::new();
    names
        .iter()
        .filter_map(|&at| seen.insert(digest(at.get_ref()), at.get_ref()).map(|other| (at, other)))
        .collect()
}
