//! Nodes whose directory is in a real etcd: processes on one link, the kernel as router and client.
#![allow(missing_docs, unreachable_pub, dead_code, reason = "a test has no readers from outside")]
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod lab;

use std::fs::File;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustix::process::Signal;
use serde_json::Value;

use lab::{Lab, NODES, Node, connect, in_namespace, read, sh};

/// Of an etcd that is alone.
const ALONE: &str = "endpoints = [\"http://[::1]:2379\"]";
/// Looks at a node before a wait is given up; each takes some milliseconds.
const LOOKS: usize = 4000;

/// Like [`in_namespace`]; without etcd the test is skipped loudly, or fails where no test may be skipped.
fn with_etcd(name: &str, body: impl FnOnce()) {
    let found = Command::new("etcd").arg("--version").stdout(Stdio::null()).status();
    match found {
        Ok(_) => in_namespace(name, body),
        Err(why) if std::env::var("FERRY_REQUIRE_NETNS").is_ok_and(|value| value == "1") => {
            panic!("etcd: {why}; install the package etcd-server")
        }
        Err(why) => {
            let _ =
                writeln!(std::io::stderr(), "SKIPPED {name}: etcd: {why}; install the package etcd-server");
        }
    }
}

/// A running member of etcd; killed when dropped. What it has stored stays.
struct Etcd {
    child: Child,
}

impl Etcd {
    /// One that is alone, and speaks to anybody.
    fn start(data: &Path) -> Self {
        Self::member(data, 0, 1, &[])
    }

    /// One of so many, each with the ports of [`client_port`] and the next.
    fn member(data: &Path, nth: u16, of: u16, tls: &[&str]) -> Self {
        let scheme = if tls.is_empty() { "http" } else { "https" };
        let client = format!("{scheme}://[::1]:{}", client_port(nth));
        let peer = |nth: u16| format!("http://127.0.0.1:{}", client_port(nth) + 1);
        let cluster: Vec<_> = (0..of).map(|nth| format!("etcd-{nth}={}", peer(nth))).collect();
        let log = File::options().create(true).append(true).open(data.with_extension("log")).unwrap();
        let child = Command::new("etcd")
            .args(["--name", &format!("etcd-{nth}"), "--data-dir"])
            .arg(data)
            .args(["--listen-client-urls", &client, "--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &peer(nth), "--initial-advertise-peer-urls", &peer(nth)])
            .args(["--initial-cluster", &cluster.join(",")])
            .args(tls)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a member listens for clients.
const fn client_port(nth: u16) -> u16 {
    2379 + 10 * nth
}

/// An authority, and what it has certified: etcd's members at `::1`, and a client.
fn certify(lab: &Lab) {
    let (key, mut authority) = (KeyPair::generate().unwrap(), CertificateParams::default());
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = authority.self_signed(&key).unwrap();
    std::fs::write(lab.path("etcd-ca.pem"), ca.pem()).unwrap();
    let issuer = Issuer::new(authority, key);
    // A member's gateway is a client of its own.
    let both = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    for (name, at, purposes) in [("member", vec!["::1".to_owned()], both.clone()), ("client", vec![], both)] {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::new(at).unwrap());
        params.extended_key_usages = purposes;
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::write(lab.path(&format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(lab.path(&format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// A lab with all nodes on one link, which is the home link too, a directory in etcd, and a copy of each connection.
fn lab(nodes: &[&str], directory: &str) -> Lab {
    let lab = Lab::new();
    sh(&format!(
        "ip -6 route del {}/128 dev tap-a && ip link add home type bridge && ip link set home up && \
         ip -6 address add 2001:db8:ab::1/64 dev home nodad && ip -6 route add {0}/128 dev home",
        lab::SERVICE
    ));
    for name in nodes {
        sh(&format!("ip -6 address flush dev tap-{name} && ip link set tap-{name} master home"));
        let file = lab.path(&format!("{name}.toml"));
        let mut config = std::fs::read_to_string(&file).unwrap();
        for absent in NODES.iter().filter(|node| !nodes.contains(node)) {
            let from = config.find(&format!("[[peer]]\nname = \"{absent}\"")).unwrap();
            let len = config[from + 1..].find("[[").unwrap() + 1;
            config.replace_range(from..from + len, "");
        }
        for (last, node) in (2..).zip(NODES) {
            let address = format!("2001:db8:ab::{last}");
            config = config.replace(&format!("2001:db8:{node}0::2"), &address);
            config = config.replace(&format!("2001:db8:{node}0::1"), "2001:db8:ab::1");
        }
        let directory = format!("[directory]\nkind = \"etcd\"\n{directory}\n[tap]");
        config = config.replace("[tap]", &directory).replace("port = 7\n", "port = 7\nreplicas = 1\n");
        std::fs::write(file, config).unwrap();
    }
    lab
}

fn start(lab: &Lab, nodes: &[&str]) -> Vec<Node> {
    let mut running: Vec<Node> = nodes.iter().map(|name| lab.start(name)).collect();
    for (node, name) in running.iter_mut().zip(nodes) {
        assert!(node.ready().starts_with("ready "));
        await_status(lab, name, "its links and its registration", |status| {
            let up = status["peers"].as_array().unwrap().iter().all(|peer| peer["up"] == true);
            up && status["etcd"]["registered"] == true
        });
    }
    running
}

fn status(lab: &Lab, node: &str) -> Value {
    serde_json::from_str(&lab.ask(node, &["status"])).unwrap()
}

fn await_status(lab: &Lab, node: &str, what: &str, is_so: impl Fn(&Value) -> bool) {
    let mut last = Value::Null;
    for _ in 0..LOOKS {
        last = status(lab, node);
        if is_so(&last) {
            return;
        }
    }
    panic!("{node}: {what}: {last}");
}

/// Gives a node the role of the contact node, as soon as that can be.
fn await_contact(lab: &Lab, node: &str) {
    let config = format!("{node}.toml");
    for _ in 0..LOOKS {
        if lab.ferry(&["contact", "--config", &config]).status.success() {
            return await_status(lab, node, "it has the role", |status| status["contact"] == true);
        }
    }
    panic!("{node} cannot have the role: {}", status(lab, node));
}

fn standing<'a>(status: &'a Value, node: &str) -> &'a str {
    let peers = status["peers"].as_array().unwrap();
    peers.iter().find(|peer| peer["name"] == node).unwrap()["standing"].as_str().unwrap()
}

/// What a command says, however it ends.
fn said(lab: &Lab, args: &[&str]) -> String {
    let output = lab.ferry(args);
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn echo(client: &mut TcpStream) {
    client.write_all(b"are you there?").unwrap();
    assert_eq!(read(client, 14), b"are you there?");
}

/// Which of these owns the one connection.
fn owner<'a>(lab: &Lab, nodes: &[&'a str]) -> &'a str {
    nodes.iter().find(|node| status(lab, node)["connections"] == 1).unwrap()
}

#[test]
fn connections_outlive_their_nodes_and_etcd_and_the_role_moves_with_etcd_only() {
    with_etcd("connections_outlive_their_nodes_and_etcd_and_the_role_moves_with_etcd_only", || {
        let lab = lab(&NODES, ALONE);
        let data = lab.path("etcd");
        let etcd = Etcd::start(&data);
        let mut nodes = start(&lab, &NODES);
        let doctor = said(&lab, &["doctor", "--config", "a.toml"]);
        assert!(doctor.contains("etcd answers at http://[::1]:2379"), "{doctor}");
        let mut client = connect(7);
        echo(&mut client);

        // The process of the owner is killed: a proof.
        lab.hand_off("a", "c");
        echo(&mut client);
        nodes[2].signal(Signal::KILL);
        nodes[2].wait();
        echo(&mut client);
        nodes[2] = start(&lab, &["c"]).remove(0);
        for name in ["a", "b"] {
            await_status(&lab, name, "it knows the new c", |status| standing(status, "c") == "alive");
        }

        // The owner stands still for longer than its lease.
        let from = owner(&lab, &["a", "b"]);
        lab.hand_off(from, "c");
        echo(&mut client);
        nodes[2].signal(Signal::STOP);
        echo(&mut client);
        assert_eq!(standing(&status(&lab, "a"), "c"), "dead");
        nodes[2].signal(Signal::CONT);
        nodes[2].wait_for("the others took this node for dead");
        echo(&mut client);
        await_status(&lab, "c", "its new life is registered", |status| status["etcd"]["registered"] == true);

        // etcd is gone, until every lease has run out.
        drop(etcd);
        for name in NODES {
            await_status(&lab, name, "it knows that etcd is gone", |status| {
                let etcd = &status["etcd"];
                etcd["connected"] == false && etcd["registered"] == false && status["serving"] == true
            });
            echo(&mut client);
        }
        let refused = said(&lab, &["contact", "--config", "b.toml"]);
        assert!(refused.contains("etcd does not answer: no role can move"), "{refused}");
        assert!(status(&lab, "a")["contact"] == true);
        nodes[0].wait_for("etcd does not answer");
        let doctor = said(&lab, &["doctor", "--config", "a.toml"]);
        assert!(doctor.contains("etcd does not answer at"), "{doctor}");
        let mut another = connect(7);
        echo(&mut another);
        drop(another);

        // And is back.
        let _etcd = Etcd::start(&data);
        for name in NODES {
            await_status(&lab, name, "it is registered again", |status| status["etcd"]["registered"] == true);
        }
        nodes[0].wait_for("etcd answers at");
        assert!(lab.ferry(&["contact", "--config", "b.toml"]).status.success());
        await_status(&lab, "b", "it has the role", |status| status["contact"] == true);
        await_status(&lab, "a", "it has it no more", |status| status["contact"] == false);
        echo(&mut client);
        echo(&mut connect(7));
    });
}

#[test]
fn of_two_nodes_the_other_goes_on_when_one_is_silent() {
    with_etcd("of_two_nodes_the_other_goes_on_when_one_is_silent", || {
        let lab = lab(&["a", "b"], ALONE);
        let _etcd = Etcd::start(&lab.path("etcd"));
        let mut nodes = start(&lab, &["a", "b"]);
        let mut client = connect(7);
        echo(&mut client);
        lab.hand_off("a", "b");
        echo(&mut client);
        nodes[1].signal(Signal::STOP);
        echo(&mut client);
        assert_eq!(owner(&lab, &["a"]), "a");
        nodes[1].signal(Signal::CONT);
        nodes[1].wait_for("the others took this node for dead");
        echo(&mut client);
        assert_eq!(status(&lab, "a")["counters"]["resets_sent"], 0);
    });
}

#[test]
fn a_cluster_of_etcd_that_wants_certificates_may_lose_a_member_but_not_two() {
    with_etcd("a_cluster_of_etcd_that_wants_certificates_may_lose_a_member_but_not_two", || {
        let endpoints = [0, 1, 2].map(|nth| format!("\"https://[::1]:{}\"", client_port(nth)));
        let endpoints = format!("endpoints = [{}]\nca = \"etcd-ca.pem\"", endpoints.join(", "));
        let known = "certificate = \"client.pem\"\nkey = \"client.key\"";
        let lab = lab(&NODES, &format!("{endpoints}\n{known}"));
        certify(&lab);
        let files = ["member.pem", "member.key", "etcd-ca.pem"].map(|file| lab.path(file));
        let [certificate, key, ca] = files.each_ref().map(|file| file.to_str().unwrap());
        let tls =
            ["--cert-file", certificate, "--key-file", key, "--client-cert-auth", "--trusted-ca-file", ca];
        let member = |nth: u16| Etcd::member(&lab.path(&format!("etcd-{nth}")), nth, 3, &tls);
        let mut members = [0, 1, 2].map(|nth| Some(member(nth)));
        let _nodes = start(&lab, &NODES);
        let mut client = connect(7);
        echo(&mut client);

        // Whoever has no certificate learns that it is that.
        let config = std::fs::read_to_string(lab.path("a.toml")).unwrap();
        std::fs::write(lab.path("stranger.toml"), config.replace(known, "")).unwrap();
        let refused = said(&lab, &["doctor", "--config", "stranger.toml"]);
        assert!(refused.contains("etcd does not answer at https://[::1]:2379"), "{refused}");
        assert!(refused.to_lowercase().contains("certificate"), "{refused}");

        // The member that is asked dies: another is, and the role can move.
        members[0] = None;
        for name in NODES {
            await_status(&lab, name, "it asks another member", |status| {
                let etcd = &status["etcd"];
                etcd["connected"] == true && etcd["registered"] == true && status["serving"] == true
            });
        }
        await_contact(&lab, "b");
        echo(&mut client);

        // Of three, one cannot decide anything.
        members[1] = None;
        await_status(&lab, "c", "it knows that", |status| status["etcd"]["connected"] == false);
        let refused = said(&lab, &["contact", "--config", "c.toml"]);
        assert!(refused.contains("etcd does not answer: no role can move"), "{refused}");
        echo(&mut client);
        echo(&mut connect(7));

        members[0] = Some(member(0));
        await_contact(&lab, "c");
        echo(&mut client);
        drop(members);
    });
}
