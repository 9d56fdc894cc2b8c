//! The contact node is killed, on real kernels: nodes as processes on one link, the kernel as router and client.
#![allow(missing_docs, unreachable_pub, dead_code, reason = "a test has no readers from outside")]
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod lab;

use std::io::Write as _;
use std::net::TcpStream;

use rustix::process::Signal;

use lab::{Lab, connect, in_namespace, read};

fn echo(client: &mut TcpStream) {
    client.write_all(b"are you there?").unwrap();
    assert_eq!(read(client, 14), b"are you there?");
}

fn number(lab: &Lab, node: &str, key: &str) -> u64 {
    let status = lab.ask(node, &["status"]);
    let value = status.split(&format!("\"{key}\":")).nth(1).unwrap();
    value.split([',', '}']).next().unwrap().parse().unwrap()
}

#[test]
fn when_the_contact_node_is_killed_new_connections_work_again_and_those_of_others_go_on() {
    in_namespace(
        "when_the_contact_node_is_killed_new_connections_work_again_and_those_of_others_go_on",
        || {
            let lab = Lab::on_one_link();
            let mut nodes = lab.start_all();
            let mut clients: Vec<(usize, TcpStream)> = Vec::new();
            for _ in 0..6 {
                let before = lab::NODES.map(|node| number(&lab, node, "accepted"));
                let mut client = connect(7);
                echo(&mut client);
                let owner =
                    (0..3).find(|at| number(&lab, lab::NODES[*at], "accepted") > before[*at]).unwrap();
                clients.push((owner, client));
            }
            nodes[0].signal(Signal::KILL);
            nodes[0].wait();
            for node in &mut nodes[1..] {
                node.wait_for("the process of a node is gone");
            }
            // What the killed node owned is lost without copies; whoever else is served notices nothing.
            for (_, client) in clients.iter_mut().filter(|(owner, _)| *owner != 0) {
                echo(client);
            }
            for _ in 0..4 {
                echo(&mut connect(7));
            }
            let contacts: Vec<_> =
                ["b", "c"].map(|node| lab.ask(node, &["status"]).contains("\"contact\":true")).into();
            assert_eq!(contacts, [true, false]);

            nodes[0] = lab.start("a");
            assert!(nodes[0].ready().starts_with("ready "));
            nodes[0].wait_for("link is up");
            nodes[0].wait_for("link is up");
            for _ in 0..3 {
                echo(&mut connect(7));
            }
            for (_, client) in clients.iter_mut().filter(|(owner, _)| *owner != 0) {
                echo(client);
            }
            assert!(!lab.ask("a", &["status"]).contains("\"contact\":true"), "the role stays where it is");
        },
    );
}
