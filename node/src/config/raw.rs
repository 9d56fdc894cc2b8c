//! The file as it is written, before it is checked. The order of the fields is the order in which missing ones
//! are asked for.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

/// A value and where it stands.
pub(super) type At<T> = Spanned<T>;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Config {
    pub(super) name: At<String>,
    pub(super) control: Option<At<String>>,
    pub(super) group: Group,
    pub(super) home_agent: Option<HomeAgentLink>,
    pub(super) directory: Option<Directory>,
    pub(super) tap: Tap,
    pub(super) peer_link: Option<At<PeerLink>>,
    pub(super) metrics: Option<Metrics>,
    #[serde(default)]
    pub(super) peer: Vec<Peer>,
    #[serde(default)]
    pub(super) service: Vec<At<Service>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Group {
    pub(super) name: At<String>,
    pub(super) service_address: At<String>,
    pub(super) contact: At<String>,
    pub(super) secret_file: At<String>,
    pub(super) placement: Option<At<String>>,
    #[serde(default)]
    pub(super) weights: BTreeMap<String, At<i64>>,
    #[serde(default)]
    pub(super) allowed: BTreeMap<String, At<Vec<String>>>,
    pub(super) optimise: Option<At<String>>,
    pub(super) plain_source: Option<At<String>>,
    pub(super) ask_again_s: Option<At<i64>>,
    pub(super) path_after_move: Option<At<String>>,
    pub(super) tokens_ahead: Option<At<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Directory {
    pub(super) kind: Option<At<String>>,
    pub(super) endpoints: Option<At<Vec<At<String>>>>,
    pub(super) prefix: Option<At<String>>,
    pub(super) ca: Option<At<String>>,
    pub(super) certificate: Option<At<String>>,
    pub(super) key: Option<At<String>>,
    pub(super) heartbeat_ms: Option<At<i64>>,
    pub(super) lease_ms: Option<At<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Tap {
    pub(super) device: At<String>,
    pub(super) address: At<String>,
    pub(super) gateway: At<String>,
    pub(super) mtu: Option<At<i64>>,
    pub(super) busy_poll_us: Option<At<i64>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct PeerLink {
    pub(super) listen: At<String>,
    pub(super) ca: Option<At<String>>,
    pub(super) certificate: Option<At<String>>,
    pub(super) key: Option<At<String>>,
    #[serde(default)]
    pub(super) insecure_plaintext: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Metrics {
    pub(super) listen: At<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Peer {
    pub(super) name: At<String>,
    pub(super) care_of: At<String>,
    pub(super) link: At<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Service {
    pub(super) kind: At<String>,
    pub(super) port: At<i64>,
    pub(super) root: Option<At<String>>,
    pub(super) replicas: Option<At<i64>>,
    pub(super) commit: Option<At<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct HomeAgentLink {
    pub(super) agent_address: At<String>,
    pub(super) key_file: At<String>,
    pub(super) spi: Option<At<i64>>,
    pub(super) lifetime_s: Option<At<i64>>,
}

/// The file of a home agent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct HomeAgentFile {
    pub(super) control: Option<At<String>>,
    pub(super) max_lifetime_s: Option<At<i64>>,
    pub(super) tap: Tap,
    #[serde(default)]
    pub(super) home: Vec<Home>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Home {
    pub(super) service_address: At<String>,
    pub(super) spi: Option<At<i64>>,
    pub(super) key_file: At<String>,
}
