//! The command line.

use std::net::SocketAddrV6;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs, Parser, Subcommand};

/// One IPv6 address, many nodes: a live TCP connection can cross from node to node at any moment.
#[derive(Debug, Parser)]
#[command(name = "ferry", version)]
pub(crate) struct Args {
    #[command(subcommand)]
    pub(crate) task: Task,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Task {
    /// Make the keys of a group, or of nodes that join it
    #[command(
        after_help = "Examples:\n  ferry keygen --group demo --node a --node b --node c --out keys/\n  ferry keygen --group demo --node d --ca keys/ --out more/"
    )]
    Keygen(KeygenArgs),
    /// Run a node
    #[command(
        after_help = "Ctrl-C or SIGTERM hands every connection off and ends the node when none is left; the second one ends it at once."
    )]
    Node(NodeArgs),
    /// Show how a running node is
    Status(NodeAndFormat),
    /// List the connections that a running node owns
    Connections(NodeAndFormat),
    /// Move connections of a running node to another node
    #[command(
        after_help = "Examples:\n  ferry handoff --config a.toml --to b --all\n  ferry handoff --config a.toml --to b --client '[2001:db8::c]:40000' --port 80"
    )]
    Handoff(HandoffArgs),
    /// Hand all connections of a running node off; it takes no new ones from then on
    Drain(NodeAndFormat),
    /// Say what a node lacks, and the command that mends it
    Doctor(DoctorArgs),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct KeygenArgs {
    /// The group's name
    #[arg(long)]
    pub(crate) group: String,
    /// A node's name; once for each node
    #[arg(long = "node", required = true, value_name = "NAME")]
    pub(crate) nodes: Vec<String>,
    /// The folder to write to; nothing in it is overwritten
    #[arg(long, value_name = "FOLDER")]
    pub(crate) out: PathBuf,
    /// The folder with ca.pem and ca.key of the group, if it exists already
    #[arg(long, value_name = "FOLDER")]
    pub(crate) ca: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct NodeArgs {
    /// The node's configuration
    #[arg(long, value_name = "FILE")]
    pub(crate) config: PathBuf,
    /// An inherited descriptor of /dev/net/tun, attached to the TAP as `IFF_TAP|IFF_NO_PI|IFF_VNET_HDR`
    #[arg(long, value_name = "N")]
    pub(crate) tap_fd: Option<RawFd>,
    /// Write what happens to connections to this file, one JSON object a line
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Only read the configuration, say "ok", and leave
    #[arg(long)]
    pub(crate) check: bool,
}

/// Which running node is meant.
#[derive(Debug, ClapArgs)]
pub(crate) struct WhichNode {
    /// The node's control socket
    #[arg(long, value_name = "PATH", conflicts_with = "config")]
    pub(crate) control: Option<PathBuf>,
    /// The node's configuration, which says where its control socket is
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct NodeAndFormat {
    #[command(flatten)]
    pub(crate) node: WhichNode,
    /// Print the node's answer as the JSON that it is
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, ClapArgs)]
#[command(group(ArgGroup::new("which").required(true).args(["all", "client"])))]
pub(crate) struct HandoffArgs {
    /// The node that is to take the connections
    #[arg(long, value_name = "NODE")]
    pub(crate) to: String,
    /// Every connection
    #[arg(long, conflicts_with = "port")]
    pub(crate) all: bool,
    /// The connection of this client
    #[arg(long, value_name = "[ADDRESS]:PORT", requires = "port")]
    pub(crate) client: Option<SocketAddrV6>,
    /// The service's port
    #[arg(long, requires = "client")]
    pub(crate) port: Option<u16>,
    #[command(flatten)]
    pub(crate) common: NodeAndFormat,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct DoctorArgs {
    /// The node's configuration
    #[arg(long, value_name = "FILE", default_value = "node.toml")]
    pub(crate) config: PathBuf,
    /// The node's control socket, if not the one that the configuration names
    #[arg(long, value_name = "PATH")]
    pub(crate) control: Option<PathBuf>,
    /// Print the checks as one JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
