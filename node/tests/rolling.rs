//! A whole group is restarted node by node, the contact node among them, while clients are served: nodes as processes on
//! one link, the kernel as router and client.
#![allow(missing_docs, unreachable_pub, dead_code, reason = "a test has no readers from outside")]
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod lab;

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::Signal;

use lab::{Lab, connect, in_namespace, pattern, read};

/// Echoes on one connection until told to stop, and how often.
fn talk(stop: &AtomicBool) -> usize {
    let mut client = connect(7);
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        client.write_all(b"are you there?").unwrap();
        assert_eq!(read(&mut client, 14), b"are you there?");
        count += 1;
    }
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(client.read_to_end(&mut Vec::new()).unwrap(), 0);
    count
}

/// Opens a connection, says something, closes it, again and again.
fn call_again_and_again(stop: &AtomicBool) -> usize {
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        let mut client = connect(7);
        client.write_all(b"hello").unwrap();
        client.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(read(&mut client, 5), b"hello");
        count += 1;
    }
    count
}

#[test]
fn a_whole_group_is_restarted_node_by_node_and_no_client_notices() {
    in_namespace("a_whole_group_is_restarted_node_by_node_and_no_client_notices", || {
        let lab = Lab::on_one_link();
        let file = pattern(64 << 20);
        std::fs::write(lab.path("www/big"), &file).unwrap();
        let mut nodes = lab.start_all();
        let stop = Arc::new(AtomicBool::new(false));
        let start = |work: fn(&AtomicBool) -> usize| {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || work(&stop))
        };
        let clients = [start(talk), start(talk), start(talk), start(call_again_and_again)];
        let mut download = connect(80);
        download.write_all(b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut seen = Vec::new();
        // The contact node first, then the one that has taken its place, whichever that is.
        for at in [0, 1, 2, 0] {
            let name = lab::NODES[at];
            seen.extend(read(&mut download, 4 << 20));
            nodes[at].signal(Signal::TERM);
            nodes[at].wait_for("empty");
            assert!(nodes[at].wait().success(), "{name}");
            nodes[at] = lab.start(name);
            assert!(nodes[at].ready().starts_with("ready "));
            nodes[at].wait_for("link is up");
            nodes[at].wait_for("link is up");
        }
        download.read_to_end(&mut seen).unwrap();
        stop.store(true, Ordering::Relaxed);
        let counts = clients.map(|client| client.join().unwrap());
        assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
        let head = seen.windows(4).position(|octets| octets == b"\r\n\r\n").unwrap() + 4;
        assert!(seen[head..] == file, "{} octets of {}", seen.len() - head, file.len());
        let contacts =
            lab::NODES.iter().filter(|name| lab.ask(name, &["status"]).contains("\"contact\":true"));
        assert_eq!(contacts.count(), 1, "the role is one node's");
    });
}
