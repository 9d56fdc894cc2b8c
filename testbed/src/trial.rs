//! Bad input on real processes: a node with the wrong keys, with a name that is taken, with another user's TAP. And a
//! client with Mobile IPv6 ([`crate::correspondent`]). And each way in which a node can be lost ([`crate::crash::trials`]).

use core::time::Duration;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};

use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use rustix::mount::{MountFlags, mount};

use crate::clock::await_some;
use crate::crash::trials;
use crate::error::Doing;
use crate::link::Profile;
use crate::nodes::{self, FILES, GROUP, Node, give, last_lines};
use crate::world::{Host, TAP, UserMap, World};
use crate::{Error, Result};

/// All trials.
pub const NAMES: [&str; 13] = [
    "wrong-certificate",
    "taken-name",
    "foreign-tap",
    "correspondent",
    "filtered-path",
    trials::NAMES[0],
    trials::NAMES[1],
    trials::NAMES[2],
    trials::NAMES[3],
    trials::NAMES[4],
    trials::NAMES[5],
    trials::NAMES[6],
    trials::NAMES[7],
];
const PATIENCE: Duration = Duration::from_secs(20);

/// Carries out the trial called `name`, one of [`NAMES`]; tells how the bad node was refused, or what
/// was seen. It is an error if it was not.
pub fn run(name: &str, ferry: &Path) -> Result<String> {
    match name {
        "correspondent" => return crate::correspondent::run(ferry),
        "filtered-path" => return crate::correspondent::filtered(ferry),
        lost if trials::NAMES.contains(&lost) => return trials::run(name, ferry),
        _ => {}
    }
    let world = World::build(Profile::default())?;
    nodes::prepare(&world, ferry, nodes::Options::default())?;
    match name {
        "wrong-certificate" => wrong_certificate(&world),
        "taken-name" => taken_name(&world),
        _ => foreign_tap(&world),
    }
}

/// Node c comes with keys of a group that only has the same name.
fn wrong_certificate(world: &World) -> Result<String> {
    let [a, b, c] = hosts(world)?;
    let keys = Path::new(FILES).join("other-keys");
    let mut keygen = Command::new(Path::new(FILES).join("bin/ferry"));
    keygen.args(["keygen", "--group", GROUP, "--node", c.node, "--out"]).arg(&keys);
    nodes::run(&mut keygen)?;
    for key in ["ca.pem", "c.pem", "c.key"] {
        let to = nodes::folder(c.node).join(key);
        fs::copy(keys.join(key), &to).doing(format!("copy {key}"))?;
        give(&to, c.uid, 0o600)?;
    }
    let mut good = Node::start(a)?;
    let other = Node::start(b)?;
    let stranger = Node::start(c)?;
    let refused = await_word(a, "certificate")?;
    await_link(&mut good, b)?;
    let status = good.control.status()?;
    drop((other, stranger));
    match status.peers.iter().find(|peer| peer.name == c.node && peer.up) {
        Some(peer) => Err(Error::Node { node: a.node.to_owned(), why: format!("let {peer:?} in") }),
        None => Ok(refused),
    }
}

/// Another process comes as node a while node a runs.
fn taken_name(world: &World) -> Result<String> {
    let [a, b, c] = hosts(world)?;
    let (mut first, _peer) = (Node::start(a)?, Node::start(b)?);
    await_link(&mut first, b)?;
    // As node a, but on host-c: its address, its TAP, its user.
    let folder = nodes::folder(c.node);
    let text = fs::read_to_string(nodes::folder(a.node).join("node.toml")).doing("read a configuration")?;
    let text = [(a.link_address, c.link_address), (a.care_of, c.care_of), (a.gateway, c.gateway)]
        .iter()
        .fold(text, |text, (one, other)| swap(&text, &one.to_string(), &other.to_string()))
        .replace("/run/ferry/a/", "/run/ferry/c/");
    let config = folder.join("node.toml");
    fs::write(&config, text).doing("write a configuration")?;
    for key in ["a.pem", "a.key"] {
        fs::copy(nodes::folder(a.node).join(key), folder.join(key)).doing(format!("copy {key}"))?;
        give(&folder.join(key), c.uid, 0o600)?;
    }
    let second = nodes::spawn(c, &config, true)?;
    let said = await_failure(second, c)?;
    first.check_alive()?;
    Ok(said)
}

/// Each where the other was: no two nodes of a configuration may have one address.
fn swap(text: &str, one: &str, other: &str) -> String {
    text.replace(one, "\0").replace(other, one).replace('\0', other)
}

/// Node c finds a TAP that belongs to somebody else.
fn foreign_tap(world: &World) -> Result<String> {
    let [_, _, c] = hosts(world)?;
    let other = c.uid + 100;
    if UserMap::read()?.outside(other).is_none() {
        return Err(Error::Machine(
            "this user namespace knows one user only, so that no TAP is another's".into(),
        ));
    }
    c.namespace.batch(&format!(
        "tuntap del dev {TAP} mode tap\ntuntap add dev {TAP} mode tap vnet_hdr user {other}\nlink set {TAP} up"
    ))?;
    let_everyone_open_taps()?;
    let node = nodes::spawn(c, &nodes::folder(c.node).join("node.toml"), false)?;
    await_failure(node, c)
}

/// Gives this world a /dev/net/tun as most distributions have it. Only the world sees it.
fn let_everyone_open_taps() -> Result<()> {
    let doing = "make /dev/net/tun for everyone";
    mount("tmpfs", "/dev/net", "tmpfs", MountFlags::NOSUID, None).doing(doing)?;
    let mode = Mode::from_raw_mode(0o666);
    mknodat(CWD, "/dev/net/tun", FileType::CharacterDevice, mode, makedev(10, 200)).doing(doing)?;
    give(Path::new("/dev/net/tun"), 0, 0o666)
}

fn hosts(world: &World) -> Result<[&Host; 3]> {
    Ok([world.host("a")?, world.host("b")?, world.host("c")?])
}

fn await_link(node: &mut Node, to: &Host) -> Result<()> {
    let what = format!("the link from {} to {}", node.name, to.node);
    await_some(&what, PATIENCE, Duration::from_millis(20), || {
        let status = node.control.status()?;
        Ok(status.peers.iter().any(|peer| peer.name == to.node && peer.up).then_some(()))
    })
}

/// The line of a node's log that has this word in it.
fn await_word(host: &Host, word: &str) -> Result<String> {
    let what = format!("a line about {word:?} in the log of node {}", host.node);
    await_some(&what, PATIENCE, Duration::from_millis(20), || {
        let log = fs::read_to_string(nodes::log(host.node)).doing("read a log")?;
        Ok(log.lines().find(|line| line.contains(word)).map(str::to_owned))
    })
}

/// What a process said before it ended by itself, without success.
fn await_failure(mut child: Child, host: &Host) -> Result<String> {
    let ended = await_some("the end of the bad node", PATIENCE, Duration::from_millis(10), || {
        child.try_wait().doing("wait for a node")
    });
    let status = match ended {
        Ok(status) => status,
        Err(error) => {
            child.kill().doing("end a node")?;
            child.wait().doing("wait for a node")?;
            return Err(error);
        }
    };
    let said = last_lines(&nodes::log(host.node));
    if status.success() {
        return Err(Error::Node { node: host.node.to_owned(), why: format!("left with success:\n{said}") });
    }
    Ok(said)
}
