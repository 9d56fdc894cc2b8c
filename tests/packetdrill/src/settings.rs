use core::time::Duration;
use std::net::Ipv6Addr;
use std::str::FromStr;

use ferry_stack::tcp::cc::Kind;
use ferry_stack::tcp::{Config, EcnPolicy, MtuProbing, SynCookies};
use thiserror::Error;

/// Octets of an IPv6 and a TCP header.
const HEADERS: u16 = 60;
/// The smallest segments that are sent (`net.ipv4.tcp_min_snd_mss`).
const LEAST_MSS: u16 = 48;

/// How the stack behaves: what `--so_flags` says, and Linux's defaults for what it does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How connections behave.
    pub config: Config,
    /// The largest packet of the link, in octets. 1520 by default: the segments then have the size that scripts
    /// written for IPv4 expect, as in packetdrill's own runs over IPv6.
    pub mtu: u16,
    /// What the window scale is chosen for (the greatest value of `net.ipv4.tcp_rmem`), in octets.
    pub greatest_receive_buffer: u32,
    /// The address of an unbound socket before any packet has come.
    pub local: Ipv6Addr,
    /// The segment size that is announced, if not that of the link (as `advmss` of `ip route`); octets.
    pub advmss: Option<u16>,
    /// The largest packet that passive connections send as long as no probe has found a larger one (as `mtu lock` of
    /// `ip route`), if they look for one from the start; octets.
    pub route_mtu: Option<u16>,
    /// Segments that bursts have at least.
    pub least_burst: u32,
    /// What a new socket takes of what the host's `sysctl` says: scripts set it.
    pub sysctls: Sysctls,
}

/// What a new socket takes of what the host's `sysctl` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sysctls {
    /// Nothing.
    None,
    /// What was changed since the object was loaded, that is, by the script.
    Changed,
    /// Everything that has a meaning here.
    All,
}

/// Why `--so_flags` was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BadFlag {
    /// No such flag.
    #[error("unknown flag `{0}`; there are {KNOWN}")]
    Unknown(String),
    /// Its value makes no sense.
    #[error("`{0}` cannot be `{1}`")]
    Value(String, String),
}

const KNOWN: &str = "cc=cubic|reno ts=0|1 sack=0|1 wscale=0|1 nodelay=0|1 ecn=0|1|2 slow_start_after_idle=0|1 syncookies=0|1|2 min_tso_segs= mtu= \
                     mtu_probing=0|1|2 base_mss= advmss= route_mtu= iw= rmem= rmem_max= wmem= \
                     notsent_lowat= syn_retries= retries= delack_ms= min_rto_ms= time_wait_ms= fin_wait_ms= local= \
                     sysctls=0|1|auto";

impl Default for Settings {
    fn default() -> Self {
        let mtu = 1520;
        let config = Config {
            mss: mtu - HEADERS,
            send_buffer: 256 << 10,
            // Half of `net.ipv4.tcp_rmem`: Linux keeps the rest for its overhead.
            receive_buffer: 270_000,
            syn_retries: 5,
            ecn: EcnPolicy::Off,
            slow_start_after_idle: false,
            mtu_probing: MtuProbing::Off,
            base_mtu: 1024 + HEADERS,
            ..Config::default()
        };
        let local = Ipv6Addr::new(0xfd3d, 0xfa7b, 0xd17d, 0, 0, 0, 0, 1);
        let (greatest_receive_buffer, least_burst, sysctls) = (15 << 20, 2, Sysctls::Changed);
        let (advmss, route_mtu) = (None, None);
        Self { config, mtu, greatest_receive_buffer, local, advmss, route_mtu, least_burst, sysctls }
    }
}

impl FromStr for Settings {
    type Err = BadFlag;

    /// Flags are separated by commas or spaces.
    fn from_str(flags: &str) -> Result<Self, BadFlag> {
        let mut settings = Self::default();
        for flag in flags.split([',', ' ']).filter(|flag| !flag.is_empty()) {
            let (name, value) = flag.split_once('=').unwrap_or((flag, "1"));
            settings.set(name, value)?;
        }
        settings.config.mss = settings.advmss.unwrap_or(settings.mtu.saturating_sub(HEADERS));
        Ok(settings)
    }
}

impl Settings {
    fn set(&mut self, name: &str, value: &str) -> Result<(), BadFlag> {
        let bad = || BadFlag::Value(name.to_owned(), value.to_owned());
        let config = &mut self.config;
        match name {
            "cc" => config.congestion = congestion(value).ok_or_else(bad)?,
            "ts" => config.timestamps = switch(name, value)?,
            "sack" => config.sack = switch(name, value)?,
            "wscale" => config.window_scaling = switch(name, value)?,
            "nodelay" => config.nodelay = switch(name, value)?,
            "mtu" => self.mtu = number::<u16>(name, value)?.max(1280),
            "mtu_probing" => {
                config.mtu_probing = number(name, value).ok().and_then(mtu_probing).ok_or_else(bad)?;
            }
            "base_mss" => config.base_mtu = base_mtu(number(name, value)?),
            "advmss" => self.advmss = Some(number::<u16>(name, value)?.max(LEAST_MSS)),
            "route_mtu" => self.route_mtu = Some(number::<u16>(name, value)?.max(LEAST_MSS + HEADERS)),
            "iw" => config.initial_window = number(name, value)?,
            "rmem" => config.receive_buffer = number(name, value)?,
            "rmem_max" => self.greatest_receive_buffer = number(name, value)?,
            "wmem" => config.send_buffer = number(name, value)?,
            "notsent_lowat" => config.unsent_limit = number(name, value)?,
            "syn_retries" => config.syn_retries = number(name, value)?,
            "retries" => config.retries = number(name, value)?,
            "delack_ms" => config.delayed_ack = millis(name, value)?,
            "min_rto_ms" => config.min_rto = millis(name, value)?,
            "time_wait_ms" => config.time_wait = millis(name, value)?,
            "fin_wait_ms" => config.fin_wait_2 = millis(name, value)?,
            "ecn" => config.ecn = number(name, value).ok().and_then(ecn).ok_or_else(bad)?,
            "slow_start_after_idle" => config.slow_start_after_idle = switch(name, value)?,
            "syncookies" => {
                config.syn_cookies = number(name, value).ok().and_then(syn_cookies).ok_or_else(bad)?;
            }
            "min_tso_segs" => self.least_burst = number(name, value)?,
            "sysctls" => self.sysctls = sysctls(value).ok_or_else(bad)?,
            "local" => self.local = number(name, value)?,
            _ => return Err(BadFlag::Unknown(name.to_owned())),
        }
        Ok(())
    }
}

/// What `net.ipv4.tcp_ecn` means. From 3 on it asks for accurate ECN, which we do not speak: then for what it falls
/// back to.
pub(crate) fn ecn(value: u8) -> Option<EcnPolicy> {
    match value {
        0 => Some(EcnPolicy::Off),
        1 | 3 | 4 => Some(EcnPolicy::On),
        2 | 5 => Some(EcnPolicy::Accept),
        _ => None,
    }
}

/// What `net.ipv4.tcp_mtu_probing` means.
pub(crate) fn mtu_probing(value: u8) -> Option<MtuProbing> {
    match value {
        0 => Some(MtuProbing::Off),
        1 => Some(MtuProbing::OnBlackHole),
        2 => Some(MtuProbing::Always),
        _ => None,
    }
}

/// The packet that `net.ipv4.tcp_base_mss` stands for.
pub(crate) fn base_mtu(mss: u16) -> u16 {
    mss.clamp(LEAST_MSS, u16::MAX - HEADERS) + HEADERS
}

/// What `net.ipv4.tcp_syncookies` means.
pub(crate) fn syn_cookies(value: u8) -> Option<SynCookies> {
    match value {
        0 => Some(SynCookies::Never),
        1 => Some(SynCookies::WhenFull),
        2 => Some(SynCookies::Always),
        _ => None,
    }
}

fn sysctls(value: &str) -> Option<Sysctls> {
    match value {
        "0" => Some(Sysctls::None),
        "1" => Some(Sysctls::All),
        "auto" => Some(Sysctls::Changed),
        _ => None,
    }
}

/// The algorithm that Linux gives this name to.
pub(crate) fn congestion(name: &str) -> Option<Kind> {
    match name {
        "cubic" => Some(Kind::Cubic),
        "reno" => Some(Kind::NewReno),
        _ => None,
    }
}

/// The name that Linux gives to an algorithm.
pub(crate) fn congestion_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Cubic => "cubic",
        Kind::NewReno => "reno",
    }
}

fn number<T: FromStr>(name: &str, value: &str) -> Result<T, BadFlag> {
    value.parse().map_err(|_| BadFlag::Value(name.to_owned(), value.to_owned()))
}

fn millis(name: &str, value: &str) -> Result<Duration, BadFlag> {
    number(name, value).map(Duration::from_millis)
}

fn switch(name: &str, value: &str) -> Result<bool, BadFlag> {
    match value {
        "0" => Ok(false),
        "1" => Ok(true),
        _ => Err(BadFlag::Value(name.to_owned(), value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_override_the_defaults() {
        let settings: Settings = "cc=reno,ts=0 sack=0,mtu=1500,iw=2".parse().unwrap();
        assert_eq!(settings.config.congestion, Kind::NewReno);
        assert!(!settings.config.timestamps && !settings.config.sack);
        assert_eq!((settings.config.mss, settings.config.initial_window), (1440, 2));
        assert_eq!("".parse(), Ok(Settings::default()));
    }

    #[test]
    fn a_flag_that_is_not_known_is_refused() {
        assert!(matches!("tso=1".parse::<Settings>(), Err(BadFlag::Unknown(name)) if name == "tso"));
        for bad in ["cc=bbr", "ecn=9", "syncookies=3", "sysctls=maybe", "ts=2", "iw=many", "local=nowhere"] {
            assert!(matches!(bad.parse::<Settings>(), Err(BadFlag::Value(..))), "{bad}");
        }
    }
}
