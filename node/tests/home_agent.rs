//! A home agent of its own on real TAPs: a client with a kernel and a namespace of its own, the kernel as router, `ferry
//! home-agent` on the home link, and a group elsewhere that outlives its contact node.
#![allow(missing_docs, unreachable_pub, dead_code, reason = "a test has no readers from outside")]
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod lab;

use std::process::{Child, Command, Stdio};

use rustix::process::Signal;

use lab::{Lab, Node, SERVICE, in_namespace, pattern, sh};

/// A host in a namespace of its own, behind the router.
struct Client(Child);

impl Client {
    fn new() -> Self {
        let child = Command::new("unshare").args(["--net", "sleep", "1000"]).spawn().unwrap();
        let client = Self(child);
        // Until the child is in its namespace, this one is named by its number.
        while client.namespace() == std::fs::read_link("/proc/self/ns/net").ok() {
            std::thread::yield_now();
        }
        sh(&format!(
            "ip link add to-client type veth peer name eth0 netns {} && ip link set to-client up && \
             ip -6 address add 2001:db8:c0c0::1/64 dev to-client nodad",
            client.0.id()
        ));
        client.sh("ip link set lo up && ip link set eth0 up && ip -6 address add 2001:db8:c0c0::2/64 dev eth0 nodad && ip -6 route add default via 2001:db8:c0c0::1");
        client
    }

    fn namespace(&self) -> Option<std::path::PathBuf> {
        std::fs::read_link(format!("/proc/{}/ns/net", self.0.id())).ok()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.0.id())).arg(program);
        command
    }

    fn sh(&self, script: &str) {
        assert!(self.command("sh").args(["-ec", script]).status().unwrap().success(), "{script}");
    }

    /// Downloads a file at this rate at most.
    fn curl(&self, lab: &Lab, name: &str, rate: &str) -> Child {
        let url = format!("http://[{SERVICE}]/{name}");
        let mut command = self.command("curl");
        command.args(["-sS", "--fail", "--max-time", "120", "--limit-rate", rate, "-o"]);
        command.arg(lab.path("got")).arg(url).stderr(Stdio::inherit());
        command.spawn().unwrap()
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The lab with a home agent on a home link of its own.
fn lab_with_agent(plain_source: &str) -> (Lab, Node) {
    let lab = Lab::new();
    sh(&format!(
        "ip -6 route del {SERVICE}/128 dev tap-a && ip tuntap add dev tap-home mode tap && ip link set tap-home up && \
         ip -6 address add 2001:db8:5::ffff/64 dev tap-home nodad"
    ));
    let agent = "control = \"agent.sock\"\n[tap]\ndevice = \"tap-home\"\naddress = \"2001:db8:5::a/64\"\ngateway = \"2001:db8:5::ffff\"\n\
                 [[home]]\nservice-address = \"2001:db8:5::1\"\nkey-file = \"keys/home-agent.key\"\n";
    std::fs::write(lab.path("agent.toml"), agent).unwrap();
    for node in lab::NODES {
        let file = lab.path(&format!("{node}.toml"));
        let config = std::fs::read_to_string(&file).unwrap();
        let config = config.replace("[tap]", &format!("plain-source = \"{plain_source}\"\n[tap]"));
        let section = "[home-agent]\nagent-address = \"2001:db8:5::a\"\nkey-file = \"keys/home-agent.key\"\nlifetime-s = 8\n";
        std::fs::write(file, config + section).unwrap();
    }
    let mut agent = Node::run(lab.folder.path(), &["home-agent", "--config", "agent.toml"]);
    assert_eq!(agent.ready(), "ready 2001:db8:5::a\n");
    (lab, agent)
}

fn status(lab: &Lab) -> serde_json::Value {
    let output = lab.ferry(&["home-agent", "--config", "agent.toml", "status", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap()
}

fn the_address_outlives_its_contact_node(plain_source: &str) {
    let (lab, mut agent) = lab_with_agent(plain_source);
    let file = pattern(24 << 20);
    std::fs::write(lab.path("www/big"), &file).unwrap();
    let client = Client::new();
    let mut nodes = lab.start_all();
    agent.wait_for("Away(2001:db8:5::1, 2001:db8:a0::2)");

    let mut download = client.curl(&lab, "big", "3M");
    while !lab.ask("a", &["status"]).contains("\"connections\":1,\"relayed\"") {
        std::thread::yield_now();
    }
    for (from, to) in [("a", "b"), ("b", "c"), ("c", "a"), ("a", "b")] {
        lab.hand_off(from, to);
    }
    drop(nodes.remove(0));
    agent.wait_for("Away(2001:db8:5::1, 2001:db8:b0::2)");
    lab.hand_off("b", "c");
    assert!(download.wait().unwrap().success());
    assert!(std::fs::read(lab.path("got")).unwrap() == file);

    // New connections, too. The status says where the address is.
    assert!(client.curl(&lab, "big", "1G").wait().unwrap().success());
    assert!(std::fs::read(lab.path("got")).unwrap() == file);
    let told = status(&lab);
    assert_eq!(
        (&told["homes"][0]["address"], &told["homes"][0]["care_of"]),
        (&"2001:db8:5::1".into(), &"2001:db8:b0::2".into())
    );
    let tunnelled_in = told["counters"]["tunnelled_in"].as_u64().unwrap();
    assert_eq!(
        tunnelled_in > 1_000,
        plain_source == "never",
        "{tunnelled_in} packets back through the agent"
    );

    // Whoever ends in good order gives the role away, and the last one lets the agent forget it.
    nodes[0].signal(Signal::TERM);
    agent.wait_for("Away(2001:db8:5::1, 2001:db8:c0::2)");
    assert!(nodes[0].wait().success());
    nodes[1].signal(Signal::TERM);
    agent.wait_for("Gone(2001:db8:5::1)");
    assert!(nodes[1].wait().success());
    agent.signal(Signal::TERM);
    assert!(agent.wait().success());
    assert!(!lab.path("agent.sock").exists(), "the control socket is gone");
}

#[test]
fn a_download_goes_on_when_the_contact_node_is_gone() {
    in_namespace("a_download_goes_on_when_the_contact_node_is_gone", || {
        the_address_outlives_its_contact_node("auto");
    });
}

#[test]
fn a_download_goes_on_although_everything_passes_the_home_agent() {
    in_namespace("a_download_goes_on_although_everything_passes_the_home_agent", || {
        the_address_outlives_its_contact_node("never");
    });
}
