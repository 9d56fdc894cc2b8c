//! The configuration of a node: one TOML file, read strictly.
//!
//! Whatever is wrong is told with the file, the line, what is there and what would be right; all that can be
//! told at once is told at once.

mod check;
mod directory;
mod error;
mod files;
mod group;
mod home_agent;
mod raw;
mod services;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ferry_stack::interface::Address;
use ferry_stack::tcp::PathPolicy;

pub(crate) use check::is_label;
pub use error::{ConfigError, Problem};
pub use files::{FileError, read_secret};
pub use home_agent::{Home, HomeAgentConfig, HomeAgentLink};

use crate::{Commit, DirectorySetup, Optimise, Placement, PlainSource, TokensAhead};

/// A configuration in which everything fits together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// This node's name: a DNS label, for it is part of the name in its certificate.
    pub name: String,
    /// Where the control socket lies.
    pub control: PathBuf,
    /// What all nodes of the group agree on.
    pub group: Group,
    /// The home agent with which the contact node registers; absent if the contact node is on the home link itself.
    pub home_agent: Option<HomeAgentLink>,
    /// How the nodes find out which of them are alive.
    pub directory: DirectorySetup,
    /// Where etcd is, if that is the directory.
    pub etcd: Option<Etcd>,
    /// The network device.
    pub tap: Tap,
    /// How to talk to the other nodes; may be absent only if there are none.
    pub peer_link: Option<PeerLink>,
    /// Where metrics are served, if anywhere.
    pub metrics: Option<SocketAddr>,
    /// The other nodes of the group.
    pub peers: Vec<Peer>,
    /// What is served; at least one.
    pub services: Vec<Service>,
}

/// What all nodes of a group agree on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name: a DNS label.
    pub name: String,
    /// The address that clients know.
    pub service_address: Ipv6Addr,
    /// The node that answers for the service address on the home link.
    pub contact: String,
    /// The file with the secret that the nodes share.
    pub secret_file: PathBuf,
    /// Where new connections go.
    pub placement: Placement,
    /// Weights of nodes, for `placement = "weighted"` and `ferry rebalance`; 1 for those that are absent.
    pub weights: BTreeMap<String, u32>,
    /// The services that a node may own, by its name; every one for those that are absent.
    pub allowed: BTreeMap<String, BTreeSet<String>>,
    /// Whether clients are told where their connections are.
    pub optimise: Optimise,
    /// Whether owners that are not at home answer plain clients straight from the service address.
    pub plain_source: PlainSource,
    /// How long a client that does not understand Mobile IPv6, or whose path does not carry it, is left alone.
    pub ask_again: Duration,
    /// What a connection keeps of its congestion state when it has come to another node.
    pub path_after_move: PathPolicy,
    /// When an acceptor fetches the tokens of clients that understand Mobile IPv6.
    pub tokens_ahead: TokensAhead,
}

/// How etcd is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// Its members; one that answers is enough.
    pub endpoints: Vec<Endpoint>,
    /// What all keys of the group begin with: `ferry/GROUP/`, if it is not laid down otherwise.
    pub prefix: String,
    /// The authority of its certificates, where an endpoint wants TLS.
    pub ca: Option<PathBuf>,
    /// The certificate by which it knows this node, and its key, if it wants one.
    pub certificate: Option<(PathBuf, PathBuf)>,
}

/// A member of etcd, as its clients reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name, or an address without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether it speaks TLS.
    pub tls: bool,
}

impl Endpoint {
    /// Host and port, as a URL and the `Host` of a request have them (RFC 3986 section 3.2).
    pub(crate) fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

impl core::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let scheme = if self.tls { "https" } else { "http" };
        write!(f, "{scheme}://{}", self.authority())
    }
}

/// The network device of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tap {
    /// Its name in the kernel.
    pub device: String,
    /// The care-of address, with the length of the on-link prefix.
    pub address: Address,
    /// The router on the link.
    pub gateway: Ipv6Addr,
    /// The link's MTU in octets.
    pub mtu: u16,
    /// How long to spin before sleeping; zero means to sleep at once.
    pub busy_poll: Duration,
}

/// How the nodes talk to each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerLink {
    /// Where this node listens.
    pub listen: SocketAddr,
    /// The keys; absent on links that are deliberately in plain text.
    pub keys: Option<KeyFiles>,
}

/// The files that authenticate a node to the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyFiles {
    /// The group's certificate authority.
    pub ca: PathBuf,
    /// This node's certificate.
    pub certificate: PathBuf,
    /// This node's private key.
    pub key: PathBuf,
}

/// Another node of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its care-of address.
    pub care_of: Ipv6Addr,
    /// Where it listens for the other nodes.
    pub link: SocketAddr,
}

/// A service and its port on the service address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// The port.
    pub port: u16,
    /// What it does.
    pub kind: ServiceKind,
    /// How many other nodes hold a copy of each of its connections.
    pub replicas: u8,
    /// What waits for the copies.
    pub commit: Commit,
}

/// What a service does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServiceKind {
    /// Sends back what it gets.
    Echo,
    /// Reads and forgets.
    Discard,
    /// HTTP/1.1 over the files of a folder.
    File {
        /// The folder.
        root: PathBuf,
    },
    /// A stream at the pace that the client asks for.
    Stream,
}

impl ServiceKind {
    /// The service's name, the same on every node.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Echo => "echo",
            Self::Discard => "discard",
            Self::File { .. } => "file",
            Self::Stream => "stream",
        }
    }
}

/// The text of a configuration file, and `$XDG_RUNTIME_DIR`.
fn read(file: &Path) -> Result<(String, Option<PathBuf>), ConfigError> {
    let text =
        std::fs::read_to_string(file).map_err(|why| ConfigError::unreadable(file, &why.to_string()))?;
    Ok((text, std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from)))
}

impl Config {
    /// Reads a configuration file. Relative paths in it count from its folder.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let (text, runtime_dir) = read(file)?;
        Self::parse(&text, file, runtime_dir.as_deref())
    }

    /// Reads the text of a configuration file that lies at `file`; `runtime_dir` is `$XDG_RUNTIME_DIR`.
    pub fn parse(text: &str, file: &Path, runtime_dir: Option<&Path>) -> Result<Self, ConfigError> {
        let raw: raw::Config =
            toml::from_str(text).map_err(|error| ConfigError::syntax(file, text, &error))?;
        check::check(raw, file, runtime_dir).map_err(|problems| ConfigError::new(file, text, problems))
    }
}

/// Folders in which control sockets lie if the configuration does not say otherwise; the first is the preferred.
pub fn control_folders(runtime_dir: Option<&Path>) -> Vec<PathBuf> {
    runtime_dir.into_iter().chain([Path::new("/run")]).map(|folder| folder.join("ferry")).collect()
}
