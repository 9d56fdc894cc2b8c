//! The TAP, and how the kernel reaches what is behind it.

use std::net::Ipv6Addr;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, netdevice};

use super::Missing;
use crate::config::Config;
use crate::driver::tap_owner;

const TUN: &str = "/dev/net/tun";
const IFF_UP: u32 = 1;
const TUN_KIND: u32 = 3;
const TUN_KIND_TAP: u32 = 2;
const IFF_MULTI_QUEUE: u32 = 0x100;

/// Whether this user may open the TUN driver.
pub(super) fn driver() -> Result<String, Missing> {
    match access(TUN, Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => Ok(format!("{TUN} can be opened (mode {})", mode(Path::new(TUN)))),
        Err(Errno::ACCESS | Errno::PERM) => {
            let what = format!("{TUN} has mode {}, and this user may not open it", mode(Path::new(TUN)));
            Err((what, format!("sudo chmod 0666 {TUN}")))
        }
        Err(why) => Err((format!("{TUN} is not there: {why}"), "sudo modprobe tun".to_owned())),
    }
}

pub(super) fn mode(path: &Path) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(path).map(|found| found.permissions().mode() & 0o7777);
    mode.map_or_else(|why| why.to_string(), |mode| format!("{mode:04o}"))
}

/// The TAP of a node, and what the configuration says about it.
pub(super) struct Tap<'a> {
    config: &'a Config,
    device: &'a str,
    /// Whether the node has it open.
    running: bool,
    user: u32,
}

impl<'a> Tap<'a> {
    pub(super) fn new(config: &'a Config, running: bool) -> Self {
        Self { config, device: &config.tap.device, running, user: rustix::process::geteuid().as_raw() }
    }

    pub(super) fn examine(&self, check: &mut impl FnMut(&'static str, Result<String, Missing>)) {
        let exists = self.exists();
        let there = exists.is_ok();
        check("tap", exists);
        if !there {
            return;
        }
        if self.is_visible() {
            check("tap-owner", self.owner());
            check("tap-kind", self.kind());
            check("tap-up", self.up());
            check("tap-carrier", self.carrier());
        }
        // Behind a bridge the router is another machine, and its routes cannot be seen from here.
        let Some(bridge) = self.bridge() else {
            check("gateway", self.gateway());
            check("route", self.route("care-of address", self.config.tap.address.address));
            if self.config.group.contact == self.config.name {
                check("service-route", self.route("service address", self.config.group.service_address));
            }
            check("forwarding", forwarding());
            return;
        };
        check(
            "gateway",
            Ok(format!("{} is a port of the bridge {bridge}: the router is behind it", self.device)),
        );
    }

    fn exists(&self) -> Result<String, Missing> {
        let socket = rustix::net::socket(AddressFamily::INET6, SocketType::DGRAM, None);
        let found = socket.and_then(|socket| netdevice::name_to_index(&socket, self.device));
        found.map(|index| format!("the device {} is there (index {index})", self.device)).map_err(|why| {
            let mend = format!("sudo ip tuntap add dev {} mode tap user {}", self.device, self.user);
            (format!("there is no device {}: {why}", self.device), mend)
        })
    }

    fn sys(&self, file: &str) -> PathBuf {
        Path::new("/sys/class/net").join(self.device).join(file)
    }

    fn read(&self, file: &str) -> Option<String> {
        Some(std::fs::read_to_string(self.sys(file)).ok()?.trim().to_owned())
    }

    fn hex(&self, file: &str) -> u32 {
        let text = self.read(file).unwrap_or_default();
        u32::from_str_radix(text.trim_start_matches("0x"), 16).unwrap_or(0)
    }

    /// Whether /sys shows this network namespace: who entered it without mounting /sys again sees another one there.
    fn is_visible(&self) -> bool {
        let socket = rustix::net::socket(AddressFamily::INET6, SocketType::DGRAM, None);
        let index = socket.and_then(|socket| netdevice::name_to_index(&socket, self.device)).ok();
        index.is_some() && self.read("ifindex").and_then(|text| text.parse().ok()) == index
    }

    fn again(&self) -> String {
        let (device, user) = (self.device, self.user);
        format!(
            "sudo ip tuntap del dev {device} mode tap; sudo ip tuntap add dev {device} mode tap user {user}"
        )
    }

    fn owner(&self) -> Result<String, Missing> {
        let (device, user) = (self.device, self.user);
        match tap_owner(device) {
            None => Ok(format!("{device} belongs to nobody, so every user may use it")),
            Some(owner) if owner == user => Ok(format!("{device} belongs to this user ({user})")),
            Some(owner) if user == 0 => {
                Ok(format!("{device} belongs to user {owner}, and root may use it too"))
            }
            Some(owner) => {
                Err((format!("{device} belongs to user {owner}, not to this one ({user})"), self.again()))
            }
        }
    }

    fn kind(&self) -> Result<String, Missing> {
        let (device, flags) = (self.device, self.hex("tun_flags"));
        if flags & TUN_KIND != TUN_KIND_TAP {
            return Err((format!("{device} is not a TAP"), self.again()));
        }
        let queues =
            if flags & IFF_MULTI_QUEUE == 0 { "one queue" } else { "many queues, of which one is used" };
        Ok(format!("{device} is a TAP with {queues}"))
    }

    fn up(&self) -> Result<String, Missing> {
        if self.hex("flags") & IFF_UP == 0 {
            return Err((format!("{} is down", self.device), format!("sudo ip link set {} up", self.device)));
        }
        Ok(format!("{} is up", self.device))
    }

    fn carrier(&self) -> Result<String, Missing> {
        let (device, carrier) = (self.device, self.read("carrier").as_deref() == Some("1"));
        match (carrier, self.running) {
            (true, _) => Ok(format!("{device} has a carrier: a process is attached")),
            (false, false) => Ok(format!("{device} has no carrier, as long as no node runs")),
            (false, true) => {
                let what = format!(
                    "{device} has no carrier, though the node runs: it is attached to another device of this name"
                );
                Err((what, "end the node, and start it in the network namespace of the device".to_owned()))
            }
        }
    }

    fn bridge(&self) -> Option<String> {
        let master = std::fs::read_link(self.sys("master")).ok().filter(|_| self.is_visible())?;
        Some(master.file_name()?.to_string_lossy().into_owned())
    }

    fn gateway(&self) -> Result<String, Missing> {
        let (device, gateway) = (self.device, self.config.tap.gateway);
        let text = std::fs::read_to_string("/proc/self/net/if_inet6").unwrap_or_default();
        if addresses(&text).any(|(address, on)| address == gateway && on == device) {
            return Ok(format!("the gateway {gateway} is this machine, at {device}"));
        }
        let len = self.config.tap.address.prefix_len;
        let mend = format!("sudo ip -6 address add {gateway}/{len} dev {device} nodad");
        Err((format!("nobody at {device} has the gateway's address {gateway}"), mend))
    }

    fn route(&self, what: &str, address: Ipv6Addr) -> Result<String, Missing> {
        let device = self.device;
        let text = std::fs::read_to_string("/proc/self/net/ipv6_route").unwrap_or_default();
        let mend = || format!("sudo ip -6 route replace {address}/128 dev {device}");
        match look_up(&text, address) {
            Some(route) if route.device == device => {
                Ok(format!("the {what} {address} is routed to {device} ({}/{})", route.prefix, route.len))
            }
            Some(route) => {
                Err((format!("the {what} {address} is routed to {}, not to {device}", route.device), mend()))
            }
            None => Err((format!("the {what} {address} is not routed at all"), mend())),
        }
    }
}

fn forwarding() -> Result<String, Missing> {
    let text = std::fs::read_to_string("/proc/sys/net/ipv6/conf/all/forwarding").unwrap_or_default();
    if text.trim() == "1" {
        return Ok("this machine forwards IPv6".to_owned());
    }
    let mend = "sudo sysctl -w net.ipv6.conf.all.forwarding=1".to_owned();
    Err(("this machine does not forward IPv6, so nobody else reaches the node".to_owned(), mend))
}

/// The addresses in `/proc/net/if_inet6`, and their devices.
fn addresses(text: &str) -> impl Iterator<Item = (Ipv6Addr, &str)> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        Some((address(fields.first()?)?, *fields.get(5)?))
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Route<'a> {
    prefix: Ipv6Addr,
    len: u32,
    metric: u32,
    device: &'a str,
}

/// The route in `/proc/net/ipv6_route` that the kernel takes to `address`: the longest prefix, then the least metric.
fn look_up(text: &str, address: Ipv6Addr) -> Option<Route<'_>> {
    text.lines()
        .filter_map(route)
        .filter(|route| {
            let mask = u128::MAX.checked_shl(128 - route.len).unwrap_or(0);
            (route.prefix.to_bits() ^ address.to_bits()) & mask == 0
        })
        .min_by_key(|route| (u32::MAX - route.len, route.metric))
}

fn route(line: &str) -> Option<Route<'_>> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let number = |index: usize| u32::from_str_radix(fields.get(index)?, 16).ok();
    let len = number(1)?;
    Some(Route {
        prefix: address(fields.first()?)?,
        len: len.min(128),
        metric: number(5)?,
        device: fields.get(9)?,
    })
}

fn address(hex: &str) -> Option<Ipv6Addr> {
    if hex.len() != 32 {
        return None;
    }
    u128::from_str_radix(hex, 16).ok().map(Ipv6Addr::from_bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTES: &str = "\
20010db8000a00000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001  ferry0
20010db8000a00000000000000000002 80 00000000000000000000000000000000 00 00000000000000000000000000000000 00000400 00000001 00000000 00000001    eth1
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000001 00000400 00000001 00000000 00000003    eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200      lo
garbage
";

    #[test]
    fn the_longest_prefix_wins_and_then_the_least_metric() {
        let device = |address: &str| look_up(ROUTES, address.parse().unwrap()).map(|route| route.device);
        assert_eq!(device("2001:db8:a::3"), Some("ferry0"));
        assert_eq!(device("2001:db8:a::2"), Some("eth1"));
        assert_eq!(device("2001:db8:b::2"), Some("eth0"));
        assert_eq!(look_up("", Ipv6Addr::LOCALHOST), None);
    }

    #[test]
    fn addresses_are_read_with_their_devices() {
        let text = "20010db8000a00000000000000000001 05 40 00 80   ferry0\n00000000000000000000000000000001 01 80 10 80       lo\n\n";
        let expected = [("2001:db8:a::1".parse().unwrap(), "ferry0"), (Ipv6Addr::LOCALHOST, "lo")];
        assert_eq!(addresses(text).collect::<Vec<_>>(), expected);
    }
}
