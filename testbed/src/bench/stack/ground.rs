//! Where the bench runs: two namespaces joined by a veth pair, with the TAPs of the stacks under test in the first,
//! and a third behind an emulated link.
//!
//! ```text
//!   far ══ emulated link ══ near ──── veth (TSO) ──── server      (the kernel's TCP)
//!                            ├──── ferry0 ⇄ a node                (virtio headers, 64 KiB)
//!                            └──── plain0 ⇄ a node or smoltcp     (frames of the MTU)
//! ```

use core::net::Ipv6Addr;
use core::time::Duration;
use std::net::{SocketAddr, SocketAddrV6, TcpStream};
use std::path::Path;

use crate::clock::await_some;
use crate::cores::pin;
use crate::link::{Link, Profile};
use crate::namespace::Namespace;
use crate::sys::tap::{self, Header};
use crate::{Error, Result};

/// The core of clients, and of whatever is not measured.
pub(super) const CLIENT_CORE: usize = 0;
/// The core of servers: ours, the kernel's and smoltcp's.
pub(in crate::bench) const SERVER_CORE: usize = 1;

/// The TAP with virtio headers.
pub(super) const TAP: Tap = Tap { device: "ferry0", prefix: 0x20, service: 5, offload: true };
/// The TAP without.
pub(super) const PLAIN: Tap = Tap { device: "plain0", prefix: 0x30, service: 6, offload: false };

/// A TAP in the client's namespace and the addresses behind it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tap {
    pub(super) device: &'static str,
    prefix: u16,
    service: u16,
    pub(super) offload: bool,
}

impl Tap {
    /// The kernel's address on it.
    pub(super) const fn gateway(&self) -> Ipv6Addr {
        net(self.prefix, 1)
    }

    /// The node's own address.
    pub(super) const fn care_of(&self) -> Ipv6Addr {
        net(self.prefix, 2)
    }

    /// The address that a node serves at.
    pub(super) const fn service(&self) -> Ipv6Addr {
        net(self.service, 1)
    }

    /// The address of another stack on it.
    pub(super) const fn other(&self) -> Ipv6Addr {
        net(self.prefix, 3)
    }
}

/// The kernel's server.
pub(super) const KERNEL: Ipv6Addr = net(0x10, 2);
/// Behind the emulated link; also where spoofed addresses are.
const FAR: Ipv6Addr = net(0x40, 2);

const fn net(prefix: u16, interface: u16) -> Ipv6Addr {
    Ipv6Addr::new(0x2001, 0xdb8, prefix, 0, 0, 0, 0, interface)
}

/// The namespaces.
#[derive(Debug)]
pub(super) struct Ground {
    /// Clients, and the TAPs.
    pub(super) near: Namespace,
    /// The kernel's server.
    pub(super) server: Namespace,
    /// Clients behind the emulated link.
    pub(super) far: Namespace,
}

impl Ground {
    /// Makes the namespaces.
    pub(super) fn build() -> Result<Self> {
        let ground = Self {
            near: Namespace::add("near")?,
            server: Namespace::add("server")?,
            far: Namespace::add("far")?,
        };
        for namespace in [&ground.near, &ground.server, &ground.far] {
            namespace.set(&[
                ("ipv6/conf/default/accept_dad", "0"),
                ("ipv6/conf/default/accept_ra", "0"),
                ("ipv4/ip_local_port_range", "1024 65000"),
                // So that a port can be used again at once.
                ("ipv4/tcp_max_tw_buckets", "16"),
            ])?;
        }
        ground.near.set(&[("ipv6/conf/all/forwarding", "1")])?;
        ground.near.batch(&format!(
            "link add veth0 type veth peer name veth0 netns server\n\
             link set veth0 up\n\
             addr add {}/64 dev veth0 nodad\n{}",
            net(0x10, 1),
            plug(&TAP),
        ))?;
        spread(&ground.near)?;
        ground.near.batch(&plug(&PLAIN))?;
        ground.server.batch(&format!(
            "link set veth0 up\naddr add {KERNEL}/64 dev veth0 nodad\nroute add default via {}",
            net(0x10, 1)
        ))?;
        Ok(ground)
    }

    /// Puts the emulated link between `far` and `near`, for as long as it is held.
    pub(super) fn link(&self, profile: Profile) -> Result<Link> {
        let plug = |namespace: &Namespace| {
            namespace.run(|| {
                let tun = tap::open()?;
                tap::attach(&tun, "link0", Header::Plain)?;
                Ok(tun)
            })
        };
        let link = Link::start(plug(&self.far)?, plug(&self.near)?, profile)?;
        // The queues of the TAPs must not be where frames get lost: the profile says where.
        let router = net(0x40, 1);
        self.far.batch(&format!(
            "link set link0 up txqueuelen 10000\naddr add {FAR}/64 dev link0 nodad\nroute add default via {router}"
        ))?;
        self.near
            .batch(&format!("link set link0 up txqueuelen 10000\naddr add {router}/64 dev link0 nodad"))?;
        Ok(link)
    }
}

/// Devices made from now on hand what comes from them to the client's core, as a network card with queues would. Else
/// the kernel receives each small frame inside the write of whoever is measured. Kernels before 6.3 lack it.
fn spread(near: &Namespace) -> Result<()> {
    let parameter = "core/rps_default_mask";
    if !Path::new("/proc/sys/net").join(parameter).exists() {
        eprintln!("bench stack: without net.core.rps_default_mask the client receives inside our write");
        return Ok(());
    }
    near.set(&[(parameter, &format!("{:x}", 1 << CLIENT_CORE))])
}

fn plug(tap: &Tap) -> String {
    let Tap { device, .. } = tap;
    format!(
        "tuntap add dev {device} mode tap vnet_hdr\n\
         link set {device} up\n\
         addr add {}/64 dev {device} nodad\n\
         route add {}/128 dev {device}\n",
        tap.gateway(),
        tap.service(),
    )
}

/// Runs `work` on a thread inside a namespace and on one core.
pub(super) fn on<T: Send>(
    namespace: &Namespace,
    core: usize,
    work: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    // Pinned on a thread of its own: `available_parallelism` heeds the cores of the caller.
    namespace.run(|| {
        pin(core)?;
        work()
    })
}

/// Waits until connections can be opened: a TAP whose other end was just attached takes a while.
pub(super) fn await_server(namespace: &Namespace, to: SocketAddrV6) -> Result<()> {
    namespace.run(|| {
        await_some(
            &format!("a connection to {to}"),
            Duration::from_secs(20),
            Duration::from_millis(20),
            || {
                let opened = TcpStream::connect_timeout(&SocketAddr::V6(to), Duration::from_millis(300));
                Ok(opened.ok().map(drop))
            },
        )
    })
}

/// A figure that a program of ours could not make.
#[allow(clippy::needless_pass_by_value)] // As `map_err` gives it.
pub(super) fn broken(why: impl ToString) -> Error {
    Error::Program { command: "bench stack".to_owned(), why: why.to_string() }
}
