//! What concerns a home agent: its own file, and the section of a node that registers with one.

use core::ops::RangeInclusive;
use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::check::{Checker, within};
use super::error::{ConfigError, Spotted, add};
use super::raw::{self, At};
use super::{Tap, control_folders};

/// Security parameter indices below are reserved (RFC 4285 section 5.1).
const SPI: RangeInclusive<i64> = 256..=0xffff_ffff;
const DEFAULT_SPI: i64 = 256;
/// A Binding Update counts units of four seconds in 16 bits; one is too short to be renewed in time.
const LIFETIME: RangeInclusive<i64> = 8..=262_140;
const DEFAULT_LIFETIME: i64 = 60;
const DEFAULT_MAX_LIFETIME: i64 = 3_600;

/// The configuration of a home agent: one TOML file, read strictly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeAgentConfig {
    /// Where the control socket lies.
    pub control: PathBuf,
    /// No registration holds longer.
    pub max_lifetime: Duration,
    /// The network device, on the home link.
    pub tap: Tap,
    /// What may be registered; at least one.
    pub homes: Vec<Home>,
}

/// A service address that a group may register.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// The address.
    pub service_address: Ipv6Addr,
    /// Names the key in messages.
    pub spi: u32,
    /// The file with the key that agent and nodes share.
    pub key_file: PathBuf,
}

/// How a node registers with a home agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HomeAgentLink {
    /// The agent's address.
    pub agent_address: Ipv6Addr,
    /// Names the key in messages.
    pub spi: u32,
    /// The file with the key that agent and nodes share.
    pub key_file: PathBuf,
    /// How long a registration is to hold; it is renewed when half of that has passed.
    pub lifetime: Duration,
}

impl HomeAgentConfig {
    /// Reads a configuration file. Relative paths in it count from its folder.
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        let (text, runtime_dir) = super::read(file)?;
        Self::parse(&text, file, runtime_dir.as_deref())
    }

    /// Reads the text of a configuration file that lies at `file`; `runtime_dir` is `$XDG_RUNTIME_DIR`.
    pub fn parse(text: &str, file: &Path, runtime_dir: Option<&Path>) -> Result<Self, ConfigError> {
        let raw: raw::HomeAgentFile =
            toml::from_str(text).map_err(|error| ConfigError::syntax(file, text, &error))?;
        check(raw, file, runtime_dir).map_err(|problems| ConfigError::new(file, text, problems))
    }
}

fn check(
    raw: raw::HomeAgentFile,
    file: &Path,
    runtime_dir: Option<&Path>,
) -> Result<HomeAgentConfig, Vec<Spotted>> {
    let mut checker = Checker::new(file.parent().unwrap_or(Path::new("")));
    match checker.home_agent_file(raw, runtime_dir) {
        Some(config) if checker.problems.is_empty() => Ok(config),
        _ => Err(checker.problems),
    }
}

impl Checker<'_> {
    fn home_agent_file(
        &mut self,
        raw: raw::HomeAgentFile,
        runtime_dir: Option<&Path>,
    ) -> Option<HomeAgentConfig> {
        let raw::HomeAgentFile { control, max_lifetime_s, tap, home: homes } = raw;
        let control = match control {
            Some(control) => self.control_path(&control),
            None => default_control(runtime_dir),
        };
        let max_lifetime = self.number(max_lifetime_s, "max-lifetime-s", &LIFETIME, DEFAULT_MAX_LIFETIME);
        let tap = self.tap(tap);
        if homes.is_empty() {
            self.problem(&At::new(0..0, ()), "there is no home address", add("home"));
        }
        let mut seen = BTreeMap::new();
        let homes = homes.into_iter().filter_map(|home| self.home(home, tap.as_ref(), &mut seen)).collect();
        let max_lifetime = Duration::from_secs(u64::try_from(max_lifetime?).ok()?);
        Some(HomeAgentConfig { control, max_lifetime, tap: tap?, homes })
    }

    /// `seen`: the SPIs so far, and of which address each is.
    fn home(
        &mut self,
        raw: raw::Home,
        tap: Option<&Tap>,
        seen: &mut BTreeMap<u32, Ipv6Addr>,
    ) -> Option<Home> {
        let raw::Home { service_address: at, spi, key_file } = raw;
        let service_address = self.unicast(&at, "service-address");
        let span = spi.as_ref().map_or_else(|| at.span(), At::span);
        let spi = self.spi(spi);
        let (service_address, spi) = (service_address?, spi?);
        if let Some(tap) = tap.filter(|tap| !within(service_address, tap.address)) {
            let right = format!("take an address within {}/{}", tap.address.address, tap.address.prefix_len);
            self.problem(
                &at,
                format!("`service-address` {service_address} is not on the link of `address`"),
                right,
            );
        }
        if tap.is_some_and(|tap| tap.address.address == service_address) {
            let what = format!("`service-address` {service_address} is the agent's own `address`");
            self.problem(&at, what, "the agent has an address of its own");
        }
        if let Some(other) = seen.insert(spi, service_address) {
            let what = format!("the SPI {spi} of {service_address} is also that of {other}");
            self.problem(
                &At::new(span, ()),
                what,
                "give each home address an `spi` of its own, such as spi = 257",
            );
        }
        Some(Home { service_address, spi, key_file: self.path(key_file.get_ref()) })
    }

    fn spi(&mut self, spi: Option<At<i64>>) -> Option<u32> {
        self.number(spi, "spi", &SPI, DEFAULT_SPI).and_then(|spi| u32::try_from(spi).ok())
    }

    /// The section of a node that registers with a home agent.
    pub(super) fn home_agent(&mut self, raw: raw::HomeAgentLink) -> Option<HomeAgentLink> {
        let raw::HomeAgentLink { agent_address, key_file, spi, lifetime_s } = raw;
        let agent_address = self.unicast(&agent_address, "agent-address");
        let spi = self.spi(spi);
        let lifetime = self.number(lifetime_s, "lifetime-s", &LIFETIME, DEFAULT_LIFETIME);
        Some(HomeAgentLink {
            agent_address: agent_address?,
            spi: spi?,
            key_file: self.path(key_file.get_ref()),
            lifetime: Duration::from_secs(u64::try_from(lifetime?).ok()?),
        })
    }
}

fn default_control(runtime_dir: Option<&Path>) -> PathBuf {
    control_folders(runtime_dir).swap_remove(0).join("home-agent.sock")
}

#[cfg(test)]
mod tests;
