//! What a user would pick instead: keepalived, which moves an address by VRRP from a host to another, and the kernel's TCP.
//!
//! Two servers and a client on one link. The master's cable is pulled: the other server takes the address, and with it
//! every new connection. It knows nothing of the old ones.

use core::net::{Ipv6Addr, SocketAddrV6};
use core::time::Duration;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Stdio};

use crate::clock::{await_some, now_ns};
use crate::crash::attempt;
use crate::error::Doing;
use crate::namespace::Namespace;
use crate::nodes::FILES;
use crate::{Error, Result};

/// The address that moves.
const VIRTUAL: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0x99, 0, 0, 0, 0, 0x10);
const PORT: u16 = 7;
const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than a round trip of this link, much shorter than any fail-over.
const ATTEMPT: Duration = Duration::from_millis(50);

/// What a fail-over came to.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailOver {
    /// From the cut until a new connection worked.
    pub(super) new_ms: f64,
    /// How the old one ended.
    pub(super) old: ErrorKind,
}

/// A server with its daemon.
struct Server {
    namespace: Namespace,
    daemon: Child,
}

/// Lets one fail-over happen.
pub(super) fn fail_over() -> Result<FailOver> {
    let link = Namespace::add("vrrp-link")?;
    link.set(&[("ipv6/conf/default/accept_dad", "0")])?;
    link.batch("link add lan type bridge mcast_snooping 0\nlink set lan up")?;
    let client = host("vrrp-client", 9, &link)?;
    let servers = [Server::start(1, 200, &link)?, Server::start(2, 100, &link)?];
    await_some("the master to take its address", PATIENCE, Duration::from_millis(20), || {
        // The backup begins as one, and takes nothing while the master speaks.
        Ok(servers[0].has_address()?.then_some(()))
    })?;
    let mut old = await_some("a first connection", PATIENCE, Duration::from_millis(20), || connect(&client))?;
    let at = now_ns();
    link.batch("link set vrrp-1 down")?;
    let new = await_some("a new connection to the other server", PATIENCE, Duration::from_millis(1), || {
        connect(&client)
    })?;
    #[allow(clippy::cast_precision_loss)] // Nanoseconds of a fail-over.
    let new_ms = (now_ns() - at) as f64 * 1e-6;
    drop(new);
    old.set_read_timeout(Some(PATIENCE)).doing("wait for an answer")?;
    let old = match talk(&mut old) {
        Err(why) => why.kind(),
        Ok(()) => return Err(broken("the old connection went on: nothing was cut")),
    };
    Ok(FailOver { new_ms, old })
}

impl Server {
    fn start(number: u16, priority: u8, link: &Namespace) -> Result<Self> {
        let name = format!("vrrp-{number}");
        let namespace = host(&name, number, link)?;
        // The address may come later, and go.
        namespace.set(&[("ipv6/ip_nonlocal_bind", "1")])?;
        let listener = namespace.run(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).doing("listen"))?;
        // Ends with the process: the world goes with it.
        std::thread::Builder::new()
            .name(name.clone())
            .spawn(move || serve(&listener))
            .doing("start a server")?;
        let folder = Path::new(FILES).join(&name);
        fs::create_dir_all(&folder).doing("make a folder")?;
        let config = folder.join("keepalived.conf");
        fs::write(&config, configuration(priority)).doing("write keepalived.conf")?;
        let log = fs::File::create(folder.join("log")).doing("write a log")?;
        let mut command = namespace.command("keepalived");
        command.args(["--dont-fork", "--log-console", "--vrrp", "--use-file"]).arg(&config);
        for (flag, file) in [("--pid", "pid"), ("--vrrp_pid", "vrrp.pid")] {
            command.arg(flag).arg(folder.join(file));
        }
        let errors = log.try_clone().doing("write a log")?;
        command.stdout(Stdio::from(log)).stderr(Stdio::from(errors));
        let daemon = command.spawn().map_err(|error| {
            Error::Machine(format!("cannot run keepalived ({error}); apt-get install keepalived"))
        })?;
        Ok(Self { namespace, daemon })
    }

    fn has_address(&self) -> Result<bool> {
        let text = self.namespace.run(|| {
            // Of the thread's namespace, not the process's.
            fs::read_to_string("/proc/thread-self/net/if_inet6").doing("read addresses")
        })?;
        let octets = format!("{:032x}", u128::from(VIRTUAL));
        Ok(text.contains(&octets))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its children go with the world.
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}

/// As its manual has it, with the interval that is the default.
fn configuration(priority: u8) -> String {
    format!(
        "vrrp_instance service {{\n  state BACKUP\n  interface eth0\n  virtual_router_id 51\n  priority {priority}\n  \
         advert_int 1\n  virtual_ipaddress {{\n    fe80::51/64\n    {VIRTUAL}/64\n  }}\n}}\n"
    )
}

fn host(name: &str, last: u16, link: &Namespace) -> Result<Namespace> {
    let namespace = Namespace::add(name)?;
    namespace.set(&[("ipv6/conf/default/accept_dad", "0"), ("ipv6/conf/all/accept_dad", "0")])?;
    link.batch(&format!(
        "link add {name} type veth peer name eth0 netns {}\nlink set {name} master lan up",
        namespace.name()
    ))?;
    namespace
        .batch(&format!("link set eth0 up\naddr add 2001:db8:99::{last:x}/64 dev eth0 nodad"))
        .map(|()| namespace)
}

/// Echoes, one thread a connection.
fn serve(listener: &TcpListener) {
    for stream in listener.incoming().map_while(core::result::Result::ok) {
        std::thread::spawn(move || {
            let _ = std::io::copy(&mut &stream, &mut &stream);
        });
    }
}

/// A connection that has answered, if there can be one now.
fn connect(client: &Namespace) -> Result<Option<TcpStream>> {
    client.run(|| {
        let to = SocketAddrV6::new(VIRTUAL, PORT, 0, 0);
        Ok(attempt(to, ATTEMPT))
    })
}

fn talk(stream: &mut TcpStream) -> std::io::Result<()> {
    stream.write_all(b"?")?;
    stream.read_exact(&mut [0])
}

fn broken(why: &str) -> Error {
    Error::Program { command: "keepalived".to_owned(), why: why.to_owned() }
}
