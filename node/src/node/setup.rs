use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Duration;

use ferry_handoff::{Incarnation, NodeId};
use ferry_stack::interface::Address;
use ferry_stack::tcp::Config;
use ferry_stack::{EthernetAddress, GroupClock};
use thiserror::Error;

use super::home::HomeAgent;
use super::mobility::{Optimise, PlainSource};
use super::placement::Placement;
use super::rules::Rules;
use super::service::Service;
use crate::directory::DirectorySetup;

/// What a node is made from.
#[derive(Debug)]
pub struct Setup {
    /// Its name, unique in the group.
    pub name: String,
    /// The group's name.
    pub group: String,
    /// This life of the node: drawn at random.
    pub incarnation: Incarnation,
    /// What all nodes of the group know and nobody else.
    pub secret: [u8; 32],
    /// The clock that all nodes of the group share: where new connections begin to count. A few seconds of
    /// difference between nodes do no harm (see ARCHITECTURE.md).
    pub group_clock: GroupClock,
    /// Its care-of address.
    pub care_of: Address,
    /// The router of its link.
    pub gateway: Ipv6Addr,
    /// Its link-layer address.
    pub mac: EthernetAddress,
    /// The largest packet of its link; octets.
    pub mtu: u16,
    /// Whether checksums and segmentation of what it sends are done below.
    pub offload: bool,
    /// The address that clients know.
    pub service_address: Ipv6Addr,
    /// The node that answers for it on the home link.
    pub contact: String,
    /// The home agent that answers for it there, on behalf of the contact node; absent if that does it itself.
    pub home_agent: Option<HomeAgent>,
    /// Who serves new connections.
    pub placement: Placement,
    /// What is laid down about the nodes.
    pub rules: Rules,
    /// Whether clients are told where their connections are.
    pub optimise: Optimise,
    /// Whether owners that are not at home answer plain clients straight from the service address.
    pub plain_source: PlainSource,
    /// How long a client that does not understand Mobile IPv6, or whose path does not carry it, is left alone.
    pub ask_again: Duration,
    /// How the nodes find out which of them are alive.
    pub directory: DirectorySetup,
    /// How connections behave. Their segment size is limited further, so that what clients send fits a tunnel.
    pub tcp: Config,
    /// The other nodes.
    pub peers: Vec<Peer>,
    /// What it offers. Every node of a group offers the same.
    pub services: Vec<Service>,
}

/// Another node of the group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: String,
    /// Its care-of address.
    pub care_of: Ipv6Addr,
}

/// Why a node cannot be made so.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SetupError {
    /// Two nodes of one name, or with names that cannot be told apart.
    #[error("the nodes \"{0}\" and \"{1}\" cannot be told apart: rename one")]
    SameName(String, String),
    /// The contact node is no node of the group.
    #[error("the contact node \"{0}\" is neither this node nor one of its peers")]
    UnknownContact(String),
    /// Two services at one port.
    #[error("port {0} has two services")]
    SamePort(u16),
    /// Two nodes at one address, or a node at the service address.
    #[error("the address {0} is used twice")]
    SameAddress(Ipv6Addr),
    /// IPv6 does not work on such a link (RFC 8200 section 5).
    #[error("an MTU of {0} is too small: IPv6 needs 1280")]
    Mtu(u16),
}

impl Setup {
    pub(super) fn check(&self) -> Result<(), SetupError> {
        if self.mtu < 1280 {
            return Err(SetupError::Mtu(self.mtu));
        }
        let mut names = vec![(NodeId::of(&self.name), &self.name)];
        let mut addresses = BTreeSet::from([self.service_address]);
        if let Some(agent) = self.home_agent.as_ref().filter(|agent| !addresses.insert(agent.address)) {
            return Err(SetupError::SameAddress(agent.address));
        }
        let nodes = self.peers.iter().map(|peer| (&peer.name, peer.care_of));
        for (name, care_of) in nodes.clone().chain([(&self.name, self.care_of.address)]) {
            if !addresses.insert(care_of) {
                return Err(SetupError::SameAddress(care_of));
            }
            let _ = name;
        }
        for (name, _) in nodes {
            let id = NodeId::of(name);
            if let Some((_, other)) = names.iter().find(|(known, _)| *known == id) {
                return Err(SetupError::SameName((*other).clone(), name.clone()));
            }
            names.push((id, name));
        }
        if !names.iter().any(|(id, _)| *id == NodeId::of(&self.contact)) {
            return Err(SetupError::UnknownContact(self.contact.clone()));
        }
        let mut ports = BTreeSet::new();
        match self.services.iter().find(|service| !ports.insert(service.port())) {
            Some(service) => Err(SetupError::SamePort(service.port())),
            None => Ok(()),
        }
    }
}
