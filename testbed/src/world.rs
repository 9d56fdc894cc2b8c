//! The world: an ordinary client, a router, and a host for each node, each in its network namespace.
//!
//! ```text
//!   client ══ emulated link ══ router ── veth ── host-a: ferry0 ⇄ node a   (contact node)
//!                                  ├──── veth ── host-b: ferry0 ⇄ node b
//!                                  └──── veth ── host-c: ferry0 ⇄ node c
//! ```
//!
//! Every node has a prefix of its own behind its TAP; nodes share no link. The service address is routed to host-a
//! and lies on its TAP's link.

mod home;

use std::fs::{self, File};
use std::net::Ipv6Addr;

use crate::error::Doing;
use crate::link::{Link, Profile};
use crate::namespace::Namespace;
use crate::sys::packet::Ring;
use crate::sys::tap::{self, Header};
use crate::{Error, Result};

/// The address that clients know.
pub const SERVICE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 1);
/// The client's own.
pub const CLIENT: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);
/// Its link's prefix.
pub const CLIENT_PREFIX: [u16; 4] = [0x2001, 0xdb8, 1, 0];
/// The names of the nodes. The first is the contact node.
pub const NODES: [&str; 3] = ["a", "b", "c"];
/// The client's interface on the emulated link.
pub const CLIENT_INTERFACE: &str = "eth0";
/// The TAP of each node.
pub const TAP: &str = "ferry0";
const ROUTER_INTERFACE: &str = "client0";
const FIRST_UID: u32 = 64001;

/// A host that runs a node.
#[derive(Debug)]
pub struct Host {
    /// The node's name.
    pub node: &'static str,
    /// Where it lives.
    pub namespace: Namespace,
    /// The node's user and group.
    pub uid: u32,
    /// The host kernel's address, for the links between nodes.
    pub link_address: Ipv6Addr,
    /// The host kernel's address on the TAP.
    pub gateway: Ipv6Addr,
    /// The node's address.
    pub care_of: Ipv6Addr,
}

/// Another ordinary host, behind an emulated link of its own.
#[derive(Debug)]
pub struct Visitor {
    /// Where it lives.
    pub namespace: Namespace,
    /// Its address.
    pub address: Ipv6Addr,
    /// Between it and the router.
    pub link: Link,
}

/// All hosts, connected.
#[derive(Debug)]
pub struct World {
    /// An ordinary host with the kernel's TCP.
    pub client: Namespace,
    /// Between all the others.
    pub router: Namespace,
    /// One for each of [`NODES`].
    pub hosts: Vec<Host>,
    /// Between client and router.
    pub link: Link,
    /// Between router and hosts, in their order, if these are far away: then each is behind an emulated link of its own.
    pub legs: Vec<Link>,
}

impl World {
    /// Makes the world. Must run inside the namespaces that [`crate::enter`] makes.
    pub fn build(profile: Profile) -> Result<Self> {
        Self::build_in(profile, None)
    }

    /// The same, where every host of a node is behind an emulated link too, so that each can be put anywhere. All links
    /// are punctual: for little traffic.
    pub fn build_far(client: Profile, hosts: Profile) -> Result<Self> {
        Self::build_in(client, Some(hosts))
    }

    /// One more client, on a link of its own.
    pub fn add_client(&self, name: &str, profile: Profile) -> Result<Visitor> {
        let namespace = Namespace::add(name)?;
        namespace.set(&[("ipv6/conf/default/accept_dad", "0"), ("ipv6/conf/default/accept_ra", "0")])?;
        let link = connect_client(&namespace, &self.router, SECOND, profile, false)?;
        Ok(Visitor { namespace, address: SECOND.address(), link })
    }

    fn build_in(profile: Profile, far: Option<Profile>) -> Result<Self> {
        let (client, router) = (Namespace::add("client")?, Namespace::add("router")?);
        for namespace in [&client, &router] {
            namespace.set(&[("ipv6/conf/default/accept_dad", "0"), ("ipv6/conf/default/accept_ra", "0")])?;
        }
        router.set(&[("ipv6/conf/all/forwarding", "1")])?;
        let link = connect_client(&client, &router, FIRST, profile, far.is_some())?;
        let uids = node_uids()?;
        let (mut hosts, mut legs) = (Vec::new(), Vec::new());
        for ((index, node), uid) in (0..).zip(NODES).zip(uids) {
            let (host, leg) = host(index, node, uid, &router, far)?;
            hosts.push(host);
            legs.extend(leg);
        }
        let contact = &hosts[0];
        router.batch(&format!("route add {SERVICE}/128 via {}", contact.link_address))?;
        contact.namespace.batch(&format!("route add {SERVICE}/128 dev {TAP}"))?;
        Ok(Self { client, router, hosts, link, legs })
    }

    /// Fails if this machine cannot make what [`World::build`] needs.
    pub fn probe() -> Result<()> {
        let world = Self::build(Profile::default())?;
        let index = world.client.interface(CLIENT_INTERFACE)?;
        world.client.run(|| Ring::open(index, 64, 0).doing("capture frames")).map(drop)
    }

    /// The host of a node.
    pub fn host(&self, node: &str) -> Result<&Host> {
        let found = self.hosts.iter().find(|host| host.node == node);
        found.ok_or_else(|| Error::Usage(format!("there is no node {node}; there are {}", NODES.join(", "))))
    }
}

/// A TAP of this name, whose other end an emulated link holds.
fn plug(namespace: &Namespace, name: &str) -> Result<File> {
    namespace.run(|| {
        let tun = tap::open()?;
        tap::attach(&tun, name, Header::Plain)?;
        Ok(tun)
    })
}

/// A link of the router's on which a client is.
#[derive(Clone, Copy, Debug)]
struct Visit {
    prefix: u16,
    router_interface: &'static str,
}

const FIRST: Visit = Visit { prefix: 1, router_interface: ROUTER_INTERFACE };
const SECOND: Visit = Visit { prefix: 2, router_interface: "client1" };

impl Visit {
    const fn router(self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, self.prefix, 0, 0, 0, 0, 1)
    }

    const fn address(self) -> Ipv6Addr {
        Ipv6Addr::new(0x2001, 0xdb8, self.prefix, 0, 0, 0, 0, 2)
    }
}

fn connect_client(
    client: &Namespace,
    router: &Namespace,
    visit: Visit,
    profile: Profile,
    punctual: bool,
) -> Result<Link> {
    let start = if punctual { Link::start_punctual } else { Link::start };
    let Visit { router_interface, .. } = visit;
    let link = start(plug(client, CLIENT_INTERFACE)?, plug(router, router_interface)?, profile)?;
    // The queues of the TAPs must not be where frames get lost: the profile says where.
    client.batch(&format!(
        "link set {CLIENT_INTERFACE} up txqueuelen 10000\n\
         addr add {}/64 dev {CLIENT_INTERFACE} nodad\n\
         route add default via {}{}",
        visit.address(),
        visit.router(),
        congestion_control()
    ))?;
    router.batch(&format!(
        "link set {router_interface} up txqueuelen 10000\n\
         addr add {}/64 dev {router_interface} nodad",
        visit.router()
    ))?;
    Ok(link)
}

fn host(
    index: u16,
    node: &'static str,
    uid: u32,
    router: &Namespace,
    far: Option<Profile>,
) -> Result<(Host, Option<Link>)> {
    let net = |prefix: u16, interface: u16| Ipv6Addr::new(0x2001, 0xdb8, prefix, 0, 0, 0, 0, interface);
    let (link, own) = (0xfa + index, 0xa + index);
    let host = Host {
        node,
        namespace: Namespace::add(&format!("host-{node}"))?,
        uid,
        link_address: net(link, 2),
        gateway: net(own, 1),
        care_of: net(own, 2),
    };
    let Host { namespace, link_address, gateway, .. } = &host;
    namespace.set(&[
        ("ipv6/conf/default/accept_dad", "0"),
        ("ipv6/conf/default/accept_ra", "0"),
        ("ipv6/conf/all/forwarding", "1"),
    ])?;
    let (leg, cable) = match far {
        None => (None, format!("link add {node}0 type veth peer name eth0 netns {}\n", namespace.name())),
        Some(profile) => {
            let ends = (plug(router, &format!("{node}0"))?, plug(namespace, "eth0")?);
            (Some(Link::start_punctual(ends.0, ends.1, profile)?), String::new())
        }
    };
    router.batch(&format!(
        "{cable}link set {node}0 up\n\
         addr add {}/64 dev {node}0 nodad\n\
         route add {}/64 via {link_address}",
        net(link, 1),
        net(own, 0),
    ))?;
    namespace.batch(&format!(
        "link set eth0 up\n\
         addr add {link_address}/64 dev eth0 nodad\n\
         route add default via {}{}\n\
         tuntap add dev {TAP} mode tap vnet_hdr user {uid} group {uid}\n\
         link set {TAP} up\n\
         addr add {gateway}/64 dev {TAP} nodad",
        net(link, 1),
        congestion_control(),
    ))?;
    Ok((host, leg))
}

/// CUBIC for connections over a route, where the kernel has it: the default may be BBR, which is slow over such
/// short paths, and namespaces may not be allowed to change the default.
fn congestion_control() -> &'static str {
    let available = fs::read_to_string("/proc/sys/net/ipv4/tcp_available_congestion_control");
    if available.is_ok_and(|names| names.split_whitespace().any(|name| name == "cubic")) {
        " congctl cubic"
    } else {
        ""
    }
}

/// A user for each node, who is nobody else. In a user namespace that knows only one user, that one.
fn node_uids() -> Result<Vec<u32>> {
    let map = UserMap::read()?;
    let uids = FIRST_UID..FIRST_UID + u32::try_from(NODES.len()).unwrap_or(0);
    Ok(uids.map(|uid| if map.outside(uid).is_some() { uid } else { 0 }).collect())
}

/// How the users of this user namespace are called outside of it.
#[derive(Debug)]
pub struct UserMap(Vec<[u32; 3]>);

impl UserMap {
    /// The one we are in.
    pub fn read() -> Result<Self> {
        let text = fs::read_to_string("/proc/self/uid_map").doing("read /proc/self/uid_map")?;
        let line = |line: &str| {
            let fields: Vec<u32> = line.split_whitespace().flat_map(str::parse).collect();
            fields.try_into().ok()
        };
        Ok(Self(text.lines().filter_map(line).collect()))
    }

    /// A user as the machine calls it; `None` if the namespace does not know it.
    pub fn outside(&self, uid: u32) -> Option<u32> {
        let Self(lines) = self;
        let of = |[inside, outside, count]: &[u32; 3]| {
            uid.checked_sub(*inside).filter(|offset| offset < count).map(|offset| outside + offset)
        };
        lines.iter().find_map(of)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_known_outside_by_the_line_that_covers_it() {
        let map = UserMap(vec![[0, 1000, 1], [1, 100_000, 65_536]]);
        let cases = [(0, Some(1000)), (1, Some(100_000)), (65_536, Some(165_535)), (65_537, None)];
        for (inside, outside) in cases {
            assert_eq!(map.outside(inside), outside, "{inside}");
        }
        assert_eq!(UserMap(vec![[0, 0, u32::MAX]]).outside(64_001), Some(64_001));
    }
}
