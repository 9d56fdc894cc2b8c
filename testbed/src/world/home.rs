//! The same hosts on one home link, so that any node can answer for the service address.
//!
//! ```text
//!   client ══ emulated link ══ router ══ bridge ── host-a: bridge ── ferry0 ⇄ node a
//!                                          ├────── host-b: bridge ── ferry0 ⇄ node b
//!                                          └────── host-c: bridge ── ferry0 ⇄ node c
//! ```
//!
//! Links between nodes go another way, as in the other world.

use std::net::Ipv6Addr;

use super::{SERVICE, TAP, World};
use crate::Result;
use crate::link::Profile;

/// The home link's prefix; its first address is the router's.
const HOME: [u16; 4] = [0x2001, 0xdb8, 0xab, 0];

fn on_home_link(last: u16) -> Ipv6Addr {
    let [a, b, c, d] = HOME;
    Ipv6Addr::new(a, b, c, d, 0, 0, 0, last)
}

impl World {
    /// Makes the world on one home link.
    pub fn at_home(profile: Profile) -> Result<Self> {
        let mut world = Self::build(profile)?;
        let router = on_home_link(1);
        world.router.batch(&format!(
            "route del {SERVICE}/128\n\
             link add home type bridge mcast_snooping 0\n\
             link set home up\n\
             addr add {router}/64 dev home nodad\n\
             route add {SERVICE}/128 dev home"
        ))?;
        world.hosts[0].namespace.batch(&format!("route del {SERVICE}/128 dev {TAP}"))?;
        for (last, host) in (2..).zip(&mut world.hosts) {
            let (node, namespace) = (host.node, &host.namespace);
            world.router.batch(&format!(
                "link add {node}1 type veth peer name home0 netns {}\n\
                 link set {node}1 master home up",
                namespace.name()
            ))?;
            namespace.batch(&format!(
                "link add home type bridge mcast_snooping 0\n\
                 addr flush dev {TAP}\n\
                 link set {TAP} master home\n\
                 link set home0 master home up\n\
                 link set home up"
            ))?;
            (host.gateway, host.care_of) = (router, on_home_link(last));
        }
        Ok(world)
    }

    /// Pulls all cables of a host: nothing goes in or out, and nobody is told.
    pub fn cut(&self, node: &str) -> Result<()> {
        self.router.batch(&format!("link set {node}1 down\nlink set {node}0 down"))
    }
}
