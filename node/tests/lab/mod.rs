//! A network namespace with a TAP for each of three nodes, and the nodes as processes. The kernel is router and client.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv6Addr, SocketAddrV6, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;

pub const FERRY: &str = env!("CARGO_BIN_EXE_ferry");
pub const NODES: [&str; 3] = ["a", "b", "c"];
pub const SERVICE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, 1);

/// For anything that happens at all.
pub const SOON: Duration = Duration::from_secs(30);

const INSIDE: &str = "FERRY_INSIDE";

/// Runs `body` in a network namespace of its own, by running the test `name` again there. Where that cannot be, the
/// test is skipped loudly, or fails if `FERRY_REQUIRE_NETNS` is 1.
pub fn in_namespace(name: &str, body: impl FnOnce()) {
    enter(name, way_in, body);
}

/// The same, for what only root can try: in a user namespace there is but one user.
pub fn in_namespace_of_root(name: &str, body: impl FnOnce()) {
    let root = || {
        let is_root = rustix::process::geteuid().is_root();
        if is_root { way_in() } else { Err("only root can become two other users".to_owned()) }
    };
    enter(name, root, body);
}

fn enter(name: &str, way_in: impl Fn() -> Result<&'static [&'static str], String>, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    match way_in() {
        Ok(flags) => {
            let this = std::env::current_exe().unwrap();
            let output = Command::new("unshare")
                .args(flags)
                .arg(this)
                .args([name, "--exact"])
                .env(INSIDE, "1")
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(output.status.success() && text.contains("1 passed"), "inside the namespace: {text}");
        }
        Err(why) if std::env::var("FERRY_REQUIRE_NETNS").is_ok_and(|value| value == "1") => panic!("{why}"),
        Err(why) => skipped(name, &why),
    }
}

/// Straight to the descriptor: the test harness would swallow what is printed.
fn skipped(name: &str, why: &str) {
    let _ = writeln!(std::io::stderr(), "SKIPPED {name}: {why}");
}

/// The flags with which `unshare` makes a namespace in which TAPs can be made.
fn way_in() -> Result<&'static [&'static str], String> {
    let ways: [&[&str]; 2] = [&["--net", "--mount"], &["--net", "--mount", "--map-root-user"]];
    let try_out = |flags: &&&[&str]| {
        let script = "ip tuntap add dev ferry-try mode tap && exec 3<>/dev/net/tun";
        let tried = Command::new("unshare").args(**flags).args(["sh", "-c", script]).output();
        tried.is_ok_and(|output| output.status.success())
    };
    ways.iter().find(try_out).copied().ok_or_else(|| {
        "this system lets us make no network namespace with a TAP; run it as root, or allow user namespaces and /dev/net/tun".to_owned()
    })
}

/// Runs a command that must succeed.
pub fn sh(script: &str) {
    let output = Command::new("sh").args(["-ec", script]).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Three nodes' folder, configurations and TAPs.
pub struct Lab {
    pub folder: TempDir,
}

impl Lab {
    pub fn new() -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(lab.path("www")).unwrap();
        lab.ferry(&[
            "keygen", "--group", "demo", "--node", "a", "--node", "b", "--node", "c", "--out", "keys",
        ]);
        sh("ip link set lo up && echo 1 >/proc/sys/net/ipv6/conf/all/forwarding");
        for name in NODES {
            sh(&format!(
                "ip tuntap add dev tap-{name} mode tap && ip link set tap-{name} up && \
                 ip -6 address add 2001:db8:{name}0::1/64 dev tap-{name} nodad"
            ));
            std::fs::write(lab.path(&format!("{name}.toml")), config(name)).unwrap();
        }
        sh(&format!("ip -6 route add {SERVICE}/128 dev tap-a"));
        lab
    }

    /// All nodes on one link, which is the home link too, and new connections at each in turn.
    #[allow(dead_code, reason = "not every test wants it")]
    pub fn on_one_link() -> Self {
        let lab = Self::new();
        sh(&format!(
            "ip -6 route del {SERVICE}/128 dev tap-a && ip link add home type bridge && ip link set home up && \
             ip -6 address add 2001:db8:ab::1/64 dev home nodad && ip -6 route add {SERVICE}/128 dev home"
        ));
        for name in NODES {
            sh(&format!("ip -6 address flush dev tap-{name} && ip link set tap-{name} master home"));
            let file = lab.path(&format!("{name}.toml"));
            let mut config = std::fs::read_to_string(&file).unwrap();
            for (last, node) in (2..).zip(NODES) {
                let address = format!("2001:db8:ab::{last}");
                config = config.replace(&format!("2001:db8:{node}0::2"), &address);
                config = config.replace(&format!("2001:db8:{node}0::1"), "2001:db8:ab::1");
            }
            let placement = "secret-file = \"keys/group.secret\"\nplacement = \"round-robin\"";
            std::fs::write(file, config.replace("secret-file = \"keys/group.secret\"", placement)).unwrap();
        }
        lab
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs `ferry` in the lab's folder to its end.
    pub fn ferry(&self, args: &[&str]) -> Output {
        Command::new(FERRY).args(args).current_dir(self.folder.path()).output().unwrap()
    }

    /// Asks a node by the command line; the answer's line.
    pub fn ask(&self, node: &str, args: &[&str]) -> String {
        let config = format!("{node}.toml");
        let output = self.ferry(&[args, &["--config", &config, "--json"]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
        text
    }

    /// Moves everything from one node to another.
    pub fn hand_off(&self, from: &str, to: &str) {
        let answer = self.ask(from, &["handoff", "--to", to, "--all"]);
        assert_eq!(answer, "{\"reply\":\"moved\",\"moved\":1,\"failed\":[]}\n", "{from} to {to}");
    }

    pub fn start(&self, node: &str) -> Node {
        Node::start(self.folder.path(), &format!("{node}.toml"))
    }

    /// All nodes, linked to each other.
    pub fn start_all(&self) -> Vec<Node> {
        let mut nodes: Vec<Node> = NODES.iter().map(|name| self.start(name)).collect();
        for node in &mut nodes {
            assert!(node.ready().starts_with("ready "));
            node.wait_for("link is up");
            node.wait_for("link is up");
        }
        nodes
    }
}

fn config(name: &str) -> String {
    let number = |name: &str| NODES.iter().position(|node| *node == name).unwrap();
    let peers: String = NODES
        .iter()
        .filter(|peer| **peer != name)
        .flat_map(|peer| {
            let link = format!("link = \"[::1]:740{}\"\n", number(peer));
            let care_of = format!("care-of = \"2001:db8:{peer}0::2\"\n");
            [format!("[[peer]]\nname = \"{peer}\"\n"), care_of, link]
        })
        .collect();
    format!(
        r#"name = "{name}"
control = "{name}.sock"
[group]
name = "demo"
service-address = "{SERVICE}"
contact = "a"
secret-file = "keys/group.secret"
[tap]
device = "tap-{name}"
address = "2001:db8:{name}0::2/64"
gateway = "2001:db8:{name}0::1"
[peer-link]
listen = "[::1]:740{}"
ca = "keys/ca.pem"
certificate = "keys/{name}.pem"
key = "keys/{name}.key"
{peers}
[[service]]
kind = "echo"
port = 7
[[service]]
kind = "file"
port = 80
root = "www"
"#,
        number(name)
    )
}

/// A running `ferry node`; killed when dropped.
pub struct Node {
    child: Child,
    stdout: BufReader<ChildStdout>,
    log: Receiver<String>,
}

impl Node {
    pub fn start(folder: &Path, config: &str) -> Self {
        Self::run(folder, &["node", "--config", config])
    }

    /// Another daemon of the same binary.
    pub fn run(folder: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(FERRY)
            .args(args)
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, log) = channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                eprintln!("{line}");
                let _ = sender.send(line);
            }
        });
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout, log }
    }

    /// The line that it prints when it serves; empty if it ended first.
    pub fn ready(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        line
    }

    /// Waits until it logs something with this text, and gives that line.
    pub fn wait_for(&mut self, text: &str) -> String {
        loop {
            match self.log.recv_timeout(SOON) {
                Ok(line) if line.contains(text) => return line,
                Ok(_) => {}
                Err(why @ (RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected)) => {
                    panic!("it does not say \"{text}\": {why}");
                }
            }
        }
    }

    /// Waits until one of them logs something with this text.
    pub fn wait_for_any(nodes: &mut [Self], text: &str) {
        for _ in 0..SOON.as_millis() / 10 {
            for node in &mut *nodes {
                let line = node.log.recv_timeout(Duration::from_millis(10));
                if line.is_ok_and(|line| line.contains(text)) {
                    return;
                }
            }
        }
        panic!("none of them says \"{text}\"");
    }

    /// Whoever is stopped has stopped when this returns.
    pub fn signal(&self, signal: Signal) {
        let process = Pid::from_child(&self.child);
        kill_process(process, signal).unwrap();
        if signal == Signal::STOP {
            waitpid(Some(process), WaitOptions::UNTRACED).unwrap();
        }
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // Fails if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the client's kernel may hold unread: little, so that a connection does not end before it has been moved.
const CLIENT_BUFFER: usize = 256 << 10;

/// A client's connection to the service.
pub fn connect(port: u16) -> TcpStream {
    let address = SocketAddrV6::new(SERVICE, port, 0, 0);
    let stream = TcpStream::connect_timeout(&address.into(), SOON).unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&stream, CLIENT_BUFFER).unwrap();
    stream.set_read_timeout(Some(SOON)).unwrap();
    stream.set_write_timeout(Some(SOON)).unwrap();
    stream
}

/// Octets that differ from place to place.
pub fn pattern(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()
    };
    core::iter::repeat_with(&mut next).flatten().take(len).collect()
}

/// Reads exactly so many octets.
pub fn read(stream: &mut TcpStream, len: usize) -> Vec<u8> {
    let mut octets = vec![0; len];
    stream.read_exact(&mut octets).unwrap();
    octets
}
