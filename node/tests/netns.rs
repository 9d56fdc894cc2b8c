//! The binary `ferry` on real TAPs: three nodes as processes in a network namespace, the kernel as router and client.
#![allow(missing_docs, unreachable_pub, reason = "a test has no readers from outside")]
#![allow(clippy::unwrap_used, reason = "what fails here fails a test")]

mod lab;

use std::io::{Read as _, Write as _};

use rustix::process::Signal;

use lab::{FERRY, Lab, Node, connect, in_namespace, in_namespace_of_root, pattern, read, sh};

#[test]
fn a_download_crosses_all_nodes_and_arrives_whole() {
    in_namespace("a_download_crosses_all_nodes_and_arrives_whole", || {
        let lab = Lab::new();
        let file = pattern(24 << 20);
        std::fs::write(lab.path("www/big"), &file).unwrap();
        let _nodes = lab.start_all();
        let mut client = connect(80);
        client.write_all(b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut seen = Vec::new();
        for (from, to) in [("a", "b"), ("b", "c"), ("c", "a"), ("a", "c"), ("c", "b"), ("b", "a")] {
            seen.extend(read(&mut client, 2 << 20));
            lab.hand_off(from, to);
        }
        client.read_to_end(&mut seen).unwrap();
        let head = seen.windows(4).position(|octets| octets == b"\r\n\r\n").unwrap() + 4;
        assert!(seen.starts_with(b"HTTP/1.1 200 OK\r\n"));
        assert!(seen[head..] == file, "{} octets of {}", seen.len() - head, file.len());
        for node in lab::NODES {
            assert!(lab.ask(node, &["status"]).contains("\"resets_sent\":0"), "{node}");
        }
    });
}

#[test]
fn an_upload_comes_back_from_whatever_node_it_is_at() {
    in_namespace("an_upload_comes_back_from_whatever_node_it_is_at", || {
        let lab = Lab::new();
        let _nodes = lab.start_all();
        let octets = pattern(16 << 20);
        let mut client = connect(7);
        let mut writer = client.try_clone().unwrap();
        let sent = octets.clone();
        let writing = std::thread::spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut seen = Vec::new();
        for (from, to) in [("a", "b"), ("b", "c"), ("c", "a")] {
            seen.extend(read(&mut client, 3 << 20));
            lab.hand_off(from, to);
        }
        client.read_to_end(&mut seen).unwrap();
        writing.join().unwrap();
        assert!(seen == octets, "{} octets of {}", seen.len(), octets.len());
    });
}

#[test]
fn a_node_that_is_told_to_end_hands_its_connections_off_first() {
    in_namespace("a_node_that_is_told_to_end_hands_its_connections_off_first", || {
        let lab = Lab::new();
        let mut nodes = lab.start_all();
        let mut client = connect(7);
        client.write_all(b"before").unwrap();
        assert_eq!(read(&mut client, 6), b"before");
        lab.hand_off("a", "b");
        nodes[1].signal(Signal::TERM);
        nodes[1].wait_for("draining");
        nodes[1].wait_for("empty");
        assert!(nodes[1].wait().success());
        assert!(!lab.path("b.sock").exists(), "the control socket is gone");
        client.write_all(b"after").unwrap();
        assert_eq!(read(&mut client, 5), b"after");
    });
}

#[test]
fn a_scraper_reads_from_a_running_node_what_its_operator_reads() {
    in_namespace("a_scraper_reads_from_a_running_node_what_its_operator_reads", || {
        let lab = Lab::new();
        let config = std::fs::read_to_string(lab.path("a.toml")).unwrap();
        std::fs::write(lab.path("a.toml"), config + "[metrics]\nlisten = \"[::1]:9464\"\n").unwrap();
        let _nodes = lab.start_all();
        let mut client = connect(7);
        client.write_all(b"x").unwrap();
        assert_eq!(read(&mut client, 1), b"x");
        let scraped = std::process::Command::new("curl")
            .args(["-sS", "--fail", "http://[::1]:9464/metrics"])
            .output()
            .unwrap();
        let page = String::from_utf8(scraped.stdout).unwrap();
        assert!(scraped.status.success(), "{page}{}", String::from_utf8_lossy(&scraped.stderr));
        let expected =
            ["ferry_connections 1", "ferry_connections_accepted_total 1", "ferry_peer_up{peer=\"c\"} 1"];
        assert!(expected.iter().all(|line| page.lines().any(|found| found == *line)), "{page}");
        assert!(lab.ask("a", &["status"]).contains("\"connections\":1"));
    });
}

#[test]
fn a_second_signal_ends_a_node_that_cannot_be_emptied() {
    in_namespace("a_second_signal_ends_a_node_that_cannot_be_emptied", || {
        let lab = Lab::new();
        let mut node = lab.start("a");
        assert_eq!(node.ready(), "ready a 2001:db8:a0::2\n");
        let mut client = connect(7);
        client.write_all(b"x").unwrap();
        assert_eq!(read(&mut client, 1), b"x");
        node.signal(Signal::INT);
        node.wait_for("1 stayed");
        client.write_all(b"y").unwrap();
        assert_eq!(read(&mut client, 1), b"y", "it is served for as long as it stays");
        node.signal(Signal::INT);
        node.wait_for("leaving at once");
        assert_eq!(node.wait().code(), Some(1));
    });
}

#[test]
fn a_second_node_with_the_same_name_says_so_and_ends() {
    in_namespace("a_second_node_with_the_same_name_says_so_and_ends", || {
        let lab = Lab::new();
        let mut nodes = lab.start_all();
        for name in ["a", "c"] {
            sh(&format!("ip tuntap add dev other-{name} mode tap"));
            let config = std::fs::read_to_string(lab.path(&format!("{name}.toml"))).unwrap();
            let (before, peers) = config.split_once("[[peer]]").unwrap();
            let before =
                before.replace("tap-", "other-").replace(".sock", "2.sock").replace("[::1]:74", "[::1]:75");
            std::fs::write(lab.path("second.toml"), format!("{before}[[peer]]{peers}")).unwrap();
            let mut second = Node::start(lab.folder.path(), "second.toml");
            second.wait_for(&format!("refuses this node: another node with the name \"{name}\" is running"));
            assert_eq!(second.wait().code(), Some(1));
            // It ends at the first word, perhaps before others have looked at it.
            Node::wait_for_any(
                &mut nodes,
                &format!("refused: another node with the name \"{name}\" is running"),
            );
        }
        let mut client = connect(7);
        client.write_all(b"x").unwrap();
        assert_eq!(read(&mut client, 1), b"x", "the first was not disturbed");
        lab.hand_off("a", "c");
    });
}

#[test]
fn a_peer_with_keys_of_another_group_is_refused_and_both_sides_say_so() {
    in_namespace("a_peer_with_keys_of_another_group_is_refused_and_both_sides_say_so", || {
        let lab = Lab::new();
        lab.ferry(&["keygen", "--group", "demo", "--node", "b", "--out", "foreign"]);
        let config = std::fs::read_to_string(lab.path("b.toml")).unwrap();
        let keys = ["ca.pem", "b.pem", "b.key"];
        let config = keys
            .iter()
            .fold(config, |text, key| text.replace(&format!("keys/{key}"), &format!("foreign/{key}")));
        std::fs::write(lab.path("b.toml"), config).unwrap();
        let (mut a, mut b) = (lab.start("a"), lab.start("b"));
        assert!(a.ready().starts_with("ready") && b.ready().starts_with("ready"));
        let told = a.wait_for("no link yet: TLS: invalid peer certificate");
        assert!(told.contains("both nodes need files that the same `ferry keygen` made"), "{told}");
        b.wait_for("somebody who is no link of this group connected: TLS:");
        assert!(lab.ask("a", &["status"]).contains(r#""name":"b","care_of":"2001:db8:b0::2","up":false"#));
    });
}

/// The error of a node that cannot start.
fn refused(lab: &Lab, user: Option<u32>) -> String {
    use std::os::unix::process::CommandExt as _;
    let mut command = std::process::Command::new(FERRY);
    command.args(["node", "--config", "a.toml"]).current_dir(lab.folder.path());
    if let Some(user) = user {
        command.uid(user);
    }
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_tap_that_cannot_be_used_says_why_and_what_to_do() {
    in_namespace("a_tap_that_cannot_be_used_says_why_and_what_to_do", || {
        let lab = Lab::new();
        let mut first = lab.start("a");
        assert!(first.ready().starts_with("ready"));
        let busy = refused(&lab, None);
        assert!(busy.contains("tap-a is in use by another process"), "{busy}");
        drop(first);
        sh("ip tuntap del dev tap-a mode tap && ip tuntap add dev tap-a mode tun");
        let kind = refused(&lab, None);
        assert!(kind.contains("tap-a is not a TAP"), "{kind}");
        sh("ip tuntap del dev tap-a mode tun");
        let gone = refused(&lab, None);
        assert!(
            gone.contains("there is no network device tap-a; make it with `sudo ip tuntap add dev tap-a"),
            "{gone}"
        );
    });
}

/// Only root can become two other users.
#[test]
fn the_tap_of_another_user_is_refused_with_the_owner() {
    in_namespace_of_root("the_tap_of_another_user_is_refused_with_the_owner", || {
        let lab = Lab::new();
        sh(
            "mount -t sysfs none /sys && mount -t tmpfs none /dev/net && mknod /dev/net/tun c 10 200 && chmod 0666 /dev/net/tun",
        );
        sh(&format!("chown -R 65533 {0} && chmod 0755 {0}", lab.folder.path().display()));
        sh("ip tuntap del dev tap-a mode tap && ip tuntap add dev tap-a mode tap user 65534");
        let other = refused(&lab, Some(65_533));
        assert!(other.contains("tap-a belongs to user 65534, not to user 65533 who runs this"), "{other}");
        assert!(other.contains("sudo ip tuntap add dev tap-a mode tap user 65533"), "{other}");
        sh("chmod 0600 /dev/net/tun");
        let closed = refused(&lab, Some(65_533));
        assert!(closed.contains("no permission to open /dev/net/tun"), "{closed}");
    });
}

#[test]
fn doctor_names_what_is_missing_and_then_that_nothing_is() {
    in_namespace("doctor_names_what_is_missing_and_then_that_nothing_is", || {
        let lab = Lab::new();
        sh("mount -t sysfs none /sys");
        sh("ip link set tap-b down && ip -6 route add 2001:db8:a0::2/128 dev lo");
        sh(&format!("chmod 0644 {}", lab.path("keys/a.key").display()));
        sh("echo 0 >/proc/sys/net/ipv6/conf/all/forwarding");
        let missing = |node: &str| -> Vec<String> {
            let output = lab.ferry(&["doctor", "--config", &format!("{node}.toml"), "--json"]);
            let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
            let checks = report["checks"].as_array().unwrap();
            let bad: Vec<_> = checks.iter().filter(|check| check["ok"] == false).collect();
            assert!(bad.iter().all(|check| check["mend"].is_string()), "{bad:?}");
            assert_eq!(output.status.success(), bad.is_empty());
            bad.iter().map(|check| check["name"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(missing("a"), ["route", "forwarding", "key-mode", "peer", "peer"]);
        let b = missing("b");
        assert!(b.contains(&"tap-up".to_owned()) && b.contains(&"forwarding".to_owned()), "{b:?}");
        sh("ip link set tap-b up && ip -6 address replace 2001:db8:b0::1/64 dev tap-b nodad");
        sh("ip -6 route del 2001:db8:a0::2/128 dev lo && echo 1 >/proc/sys/net/ipv6/conf/all/forwarding");
        sh(&format!("chmod 0600 {}", lab.path("keys/a.key").display()));
        let _nodes = lab.start_all();
        assert_eq!(missing("a"), [""; 0]);
        assert_eq!(missing("b"), [""; 0]);
    });
}
