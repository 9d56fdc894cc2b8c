//! The command line.

use std::net::SocketAddrV6;
use std::os::fd::RawFd;
use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs, Parser, Subcommand, ValueEnum};
use ferry_node::correspondent::Prefix;

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
    /// Hand all connections of a node off; it takes no new ones from then on
    #[command(
        after_help = "Examples:\n  ferry drain --config a.toml           # the node a itself\n  ferry drain b --config a.toml         # the node b, which a tells\n\nCtrl-C stops half-way: what is under way still moves, the rest stays, and the node takes connections again."
    )]
    Drain(DrainArgs),
    /// Even the load of the group: nodes that own more than their share of connections give to those that own less
    #[command(
        after_help = "Shares are by the weights of the configuration. Ctrl-C stops half-way: what is under way still moves, the rest stays."
    )]
    Rebalance(NodeAndFormat),
    /// Make a running node the contact node: any with a home agent, else one on the home link
    Contact(NodeAndFormat),
    /// Say what a node lacks, and the command that mends it
    Doctor(DoctorArgs),
    /// On a client's host: understand Mobile IPv6, so that services are reached straight wherever they are
    #[command(
        after_help = "Examples:\n  sudo ferry correspondent\n  sudo ferry correspondent --mode tun --service 2001:db8:5::/64\n  ferry correspondent status\n\nCtrl-C or SIGTERM removes what was installed."
    )]
    Correspondent(CorrespondentArgs),
    /// On the home link: answer for service addresses on behalf of the groups that register them
    #[command(
        after_help = "Examples:\n  ferry home-agent --config agent.toml\n  ferry home-agent status\n\nThe file:\n  [tap]\n  device = \"ferry0\"\n  address = \"2001:db8:5::a/64\"             # the agent's own, on the home link\n  gateway = \"2001:db8:5::ffff\"\n  [[home]]\n  service-address = \"2001:db8:5::1\"\n  key-file = \"keys/home-agent.key\"         # from `ferry keygen`; the nodes have it too"
    )]
    HomeAgent(HomeAgentArgs),
}

/// How bindings are put into effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Way {
    /// By the kernel if it has Mobile IPv6, else with a TUN device
    Auto,
    /// By the kernel (`CONFIG_IPV6_MIP6`)
    Xfrm,
    /// By the daemon, with a TUN device
    Tun,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct CorrespondentArgs {
    #[command(subcommand)]
    pub(crate) task: Option<CorrespondentTask>,
    /// How bindings are put into effect
    #[arg(long, value_enum, default_value = "auto")]
    pub(crate) mode: Way,
    /// Addresses of services that may be bound; needed for a TUN device, else any may
    #[arg(long = "service", value_name = "PREFIX")]
    pub(crate) services: Vec<Prefix>,
    /// The MTU of the TUN device: that of the network less 24
    #[arg(long, default_value = "1476", value_parser = clap::value_parser!(u16).range(1280..))]
    pub(crate) mtu: u16,
    /// The daemon's control socket
    #[arg(long, global = true, value_name = "PATH", default_value = "/run/ferry/correspondent.sock")]
    pub(crate) control: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CorrespondentTask {
    /// Show the bindings of a running daemon
    Status {
        /// Print the daemon's answer as the JSON that it is
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct HomeAgentArgs {
    #[command(subcommand)]
    pub(crate) task: Option<HomeAgentTask>,
    /// The agent's configuration
    #[arg(long, global = true, value_name = "FILE", default_value = "home-agent.toml")]
    pub(crate) config: PathBuf,
    /// Only read the configuration, say "ok", and leave
    #[arg(long)]
    pub(crate) check: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum HomeAgentTask {
    /// Show what is registered with a running agent
    Status {
        /// The agent's control socket, if not the one that the configuration names
        #[arg(long, value_name = "PATH")]
        control: Option<PathBuf>,
        /// Print the agent's answer as the JSON that it is
        #[arg(long)]
        json: bool,
    },
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
pub(crate) struct DrainArgs {
    /// The node's name, if not the one that is asked
    #[arg(value_name = "NODE")]
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) common: NodeAndFormat,
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
