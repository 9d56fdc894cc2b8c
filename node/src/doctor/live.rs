//! What runs: the clock, this node, the others.

use core::time::Duration;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use super::{Missing, quoted};
use crate::config::Config;
use crate::driver::{Client, now, probe_etcd, unix_seconds};
use crate::{Command, Reply, Status};

/// For the connection to another node.
const PATIENCE: Duration = Duration::from_secs(1);

/// The first commit of ferry is younger than this: a clock that shows less has never been set.
const NOT_BEFORE: i64 = 1_735_689_600;

/// The node, if it runs.
pub(super) fn node(config: &Config) -> Option<Status> {
    match Client::connect(&config.control).ok()?.ask(&Command::Status).ok()? {
        (Reply::Status(status), _) => Some(*status),
        _ => None,
    }
}

pub(super) fn clock() -> Result<String, Missing> {
    let mend = || "sudo timedatectl set-ntp true".to_owned();
    let seconds = unix_seconds();
    if seconds < NOT_BEFORE {
        return Err((format!("the clock shows {seconds} s after 1970, which is long ago"), mend()));
    }
    let start = now();
    let runs = (0..1_000_000).any(|_| now() > start);
    if !runs {
        return Err(("the monotonic clock stands still".to_owned(), "restart the machine".to_owned()));
    }
    Ok("the clock is set and runs".to_owned())
}

pub(super) fn control(config: &Config, running: Option<&Status>) -> Result<String, Missing> {
    let path = &config.control;
    match running {
        Some(status) if status.name == config.name => {
            Ok(format!("{} runs and answers at {}", status.name, path.display()))
        }
        Some(status) => {
            let what = format!("another node, {}, answers at {}", status.name, path.display());
            Err((what, "name another `control` in one of the two configurations".to_owned()))
        }
        None => writable(path),
    }
}

/// Whether the control socket can be made: its nearest folder that is there must be writable.
fn writable(path: &Path) -> Result<String, Missing> {
    let folder = path.ancestors().skip(1).find(|folder| folder.exists()).unwrap_or(Path::new("."));
    match rustix::fs::access(folder, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK) {
        Ok(()) => Ok(format!("no node runs now; it can make its control socket {}", path.display())),
        Err(why) => {
            let wanted = path.parent().unwrap_or(folder);
            let mend =
                format!("sudo install -d -o {} {}", rustix::process::geteuid().as_raw(), quoted(wanted));
            Err((format!("this user cannot make {}: {}: {why}", path.display(), folder.display()), mend))
        }
    }
}

pub(super) fn links(
    config: &Config,
    file: &Path,
    running: Option<&Status>,
    check: &mut impl FnMut(&'static str, Result<String, Missing>),
) {
    if let Some(link) = &config.peer_link
        && running.is_none()
    {
        check("listen", listen(link.listen));
    }
    for peer in &config.peers {
        let up = running
            .and_then(|status| status.peers.iter().find(|other| other.name == peer.name))
            .map(|other| other.up);
        check("peer", self::peer(&peer.name, peer.link, up, file));
    }
}

/// Each endpoint of etcd.
pub(super) fn etcd(config: &Config, check: &mut impl FnMut(&'static str, Result<String, Missing>)) {
    let Some(etcd) = &config.etcd else { return };
    for endpoint in &etcd.endpoints {
        let mend = format!("etcdctl --endpoints={endpoint} endpoint health");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let found = match runtime {
            Ok(runtime) => runtime.block_on(probe_etcd(etcd, endpoint)),
            Err(why) => Err(why.to_string()),
        };
        let found = found
            .map(|keys| format!("etcd answers at {endpoint}, with {keys} keys below {}", etcd.prefix))
            .map_err(|why| (format!("etcd does not answer at {endpoint}: {why}"), mend));
        check("etcd", found);
    }
}

fn listen(address: SocketAddr) -> Result<String, Missing> {
    match TcpListener::bind(address) {
        Ok(_) => Ok(format!("this node can listen at {address}")),
        Err(why) => {
            let mend = match why.kind() {
                ErrorKind::AddrNotAvailable => format!("sudo ip address add {} dev DEVICE", address.ip()),
                _ => format!("ss -tlnp 'sport = :{}'", address.port()),
            };
            Err((format!("this node cannot listen at {address}: {why}"), mend))
        }
    }
}

fn peer(name: &str, address: SocketAddr, up: Option<bool>, file: &Path) -> Result<String, Missing> {
    if up == Some(true) {
        return Ok(format!("the link to {name} is up"));
    }
    match TcpStream::connect_timeout(&address, PATIENCE) {
        Ok(_) if up == Some(false) => {
            let what = format!(
                "{name} can be reached at {address}, but the link is down; the log of both nodes says why"
            );
            Err((
                what,
                format!("ferry doctor --config {}  # at {name}, with its own configuration", quoted(file)),
            ))
        }
        Ok(_) => Ok(format!("{name} can be reached at {address}")),
        Err(why) => {
            let mend = format!("ferry node --config {name}.toml  # at {name}");
            Err((format!("{name} cannot be reached at {address}: {why}"), mend))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_and_one_that_is_free_are_told_apart() {
        let taken = TcpListener::bind("[::1]:0").unwrap();
        let address = taken.local_addr().unwrap();
        let (what, mend) = listen(address).unwrap_err();
        assert!(what.contains("cannot listen") && mend.starts_with("ss -tlnp"), "{what}; {mend}");
        assert!(peer("b", address, None, Path::new("a.toml")).unwrap().contains("can be reached"));
        drop(taken);
        assert!(listen(address).is_ok());
        let (what, mend) = peer("b", address, None, Path::new("a.toml")).unwrap_err();
        assert!(what.contains("cannot be reached") && mend.starts_with("ferry node"), "{what}; {mend}");
    }

    #[test]
    fn the_clock_of_this_machine_runs() {
        assert!(clock().is_ok());
    }
}
