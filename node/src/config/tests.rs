use std::path::{Path, PathBuf};
use std::time::Duration;

use ferry_handoff::NodeId;
use ferry_stack::tcp::PathPolicy;
use toml::Spanned;

use super::{Config, KeyFiles, ServiceKind};
use crate::{Commit, DirectoryKind, DirectorySetup, Placement, TokensAhead};

pub(super) const GOOD: &str = r#"name = "a"
control = "run/a.sock"

[group]
name = "demo"
service-address = "2001:db8:5::1"
contact = "a"
secret-file = "keys/group.secret"
placement = "round-robin"

[tap]
device = "ferry0"
address = "2001:db8:a::2/64"
gateway = "2001:db8:a::1"
mtu = 1400
busy-poll-us = 50

[peer-link]
listen = "[2001:db8:fa::2]:7400"
ca = "keys/ca.pem"
certificate = "keys/a.pem"
key = "/etc/ferry/a.key"

[[peer]]
name = "b"
care-of = "2001:db8:b::2"
link = "[2001:db8:fb::2]:7400"

[[peer]]
name = "c"
care-of = "2001:db8:c::2"
link = "192.0.2.3:7400"

[[service]]
kind = "file"
port = 80
root = "www"

[[service]]
kind = "echo"
port = 7
"#;

pub(super) fn parse(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/etc/ferry/node.toml"), None).map_err(|error| error.to_string())
}

#[test]
fn a_good_file_means_what_it_says() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.name, "a");
    assert_eq!(config.control, Path::new("/etc/ferry/run/a.sock"));
    assert_eq!(config.group.secret_file, Path::new("/etc/ferry/keys/group.secret"));
    assert_eq!(config.group.placement, Placement::RoundRobin);
    assert!(config.group.weights.is_empty() && config.group.allowed.is_empty());
    assert_eq!((config.tap.mtu, config.tap.busy_poll), (1400, Duration::from_micros(50)));
    assert_eq!(config.tap.address.prefix_len, 64);
    let keys = KeyFiles {
        ca: "/etc/ferry/keys/ca.pem".into(),
        certificate: "/etc/ferry/keys/a.pem".into(),
        key: "/etc/ferry/a.key".into(),
    };
    assert_eq!(config.peer_link.unwrap().keys, Some(keys));
    assert_eq!(config.peers.iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(config.services[0].kind, ServiceKind::File { root: PathBuf::from("/etc/ferry/www") });
    assert_eq!((config.services[1].port, &config.services[1].kind), (7, &ServiceKind::Echo));
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let text = without(GOOD, &["control", "placement", "mtu", "busy-poll-us"]);
    let config = parse(&text).unwrap();
    assert_eq!(config.control, Path::new("/run/ferry/a.sock"));
    assert_eq!(config.group.placement, Placement::Local);
    assert_eq!((config.tap.mtu, config.tap.busy_poll), (1500, Duration::ZERO));
    assert_eq!(config.group.ask_again, Duration::from_mins(10));

    let config = Config::parse(&text, Path::new("node.toml"), Some(Path::new("/run/user/7"))).unwrap();
    assert_eq!(config.control, Path::new("/run/user/7/ferry/a.sock"));
}

#[test]
fn a_client_is_left_alone_for_as_long_as_is_written() {
    let with = |value: &str| GOOD.replace("[tap]", &format!("ask-again-s = {value}\n[tap]"));
    assert_eq!(parse(&with("60")).unwrap().group.ask_again, Duration::from_mins(1));
    let said = parse(&with("0")).unwrap_err();
    assert!(said.contains("`ask-again-s` is 0; it must lie between 1 and 86400"), "{said}");
}

#[test]
fn connections_are_held_as_often_as_is_written() {
    let with = |lines: &str| {
        parse(&format!("{GOOD}{lines}")).map(|config| {
            let echo = &config.services[1];
            (echo.replicas, echo.commit)
        })
    };
    assert_eq!(with(""), Ok((0, Commit::Strict)));
    assert_eq!(with("replicas = 2"), Ok((2, Commit::Strict)));
    assert_eq!(with("replicas = 1\ncommit = \"regenerate\""), Ok((1, Commit::Regenerate)));
    assert_eq!(with("replicas = 1\ncommit = \"none\""), Ok((1, Commit::None)));
    for (lines, what) in [
        (
            "replicas = 3",
            ":42: `replicas` is 3; each replica is at a node of its own, and there are 2 others: take 0 to 2",
        ),
        ("replicas = -1", ":42: `replicas` is -1; each replica"),
        (
            "commit = \"none\"",
            ":42: there is `commit`, but nothing to wait for without `replicas`; add `replicas = 1`",
        ),
        ("replicas = 1\ncommit = \"strikt\"", ":43: there is no commit \"strikt\"; did you mean \"strict\"?"),
    ] {
        let said = with(lines).unwrap_err();
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn tokens_are_fetched_ahead_unless_it_is_written_that_they_are_not() {
    let with = |value: &str| GOOD.replace("[tap]", &format!("tokens-ahead = \"{value}\"\n[tap]"));
    assert_eq!(parse(GOOD).unwrap().group.tokens_ahead, TokensAhead::Auto);
    assert_eq!(parse(&with("never")).unwrap().group.tokens_ahead, TokensAhead::Never);
    assert!(parse(&with("sometimes")).unwrap_err().contains("there is no tokens-ahead \"sometimes\""));
}

#[test]
fn a_lease_outlasts_some_heartbeats() {
    let with = |lines: &str| {
        parse(&GOOD.replace("[tap]", &format!("[directory]\n{lines}\n[tap]"))).map(|config| config.directory)
    };
    assert_eq!(parse(GOOD).unwrap().directory, DirectorySetup::default());
    assert_eq!(with("kind = \"embedded\""), Ok(DirectorySetup::default()));
    let (heartbeat, lease) = (Duration::from_millis(50), Duration::from_secs(1));
    let kind = DirectoryKind::Embedded;
    assert_eq!(with("heartbeat-ms = 50\nlease-ms = 1000"), Ok(DirectorySetup { kind, heartbeat, lease }));
    for (lines, what) in [
        ("heartbeat-ms = 0", ":12: `heartbeat-ms` is 0; it must lie between 1 and 10000"),
        (
            "lease-ms = 39",
            ":12: a lease of 39 ms is too short for heartbeats of 10 ms; make it at least 40 ms, or the",
        ),
        (
            "heartbeat-ms = 51",
            ":12: a lease of 200 ms is too short for heartbeats of 51 ms; make it at least 204 ms",
        ),
        ("kind = \"embeded\"", ":12: there is no kind of directory \"embeded\"; did you mean \"embedded\"?"),
        ("beat = 1", ":12: unknown key `beat`; known here: kind, endpoints, prefix, ca,"),
    ] {
        let said = with(lines).unwrap_err();
        assert!(said.contains(what), "{said}");
    }
}

#[test]
fn what_is_kept_of_a_path_is_what_is_written() {
    let with = |value: &str| GOOD.replace("[tap]", &format!("path-after-move = \"{value}\"\n[tap]"));
    assert_eq!(parse(GOOD).unwrap().group.path_after_move, PathPolicy::Keep);
    assert_eq!(parse(&with("halve")).unwrap().group.path_after_move, PathPolicy::Halve);
    assert_eq!(parse(&with("initial-window")).unwrap().group.path_after_move, PathPolicy::InitialWindow);
    let said = parse(&with("halved")).unwrap_err();
    assert!(said.contains("there is no path-after-move \"halved\"; did you mean \"halve\"?"), "{said}");
}

#[test]
fn metrics_are_served_where_it_is_written_and_nowhere_otherwise() {
    let with =
        |listen: &str| GOOD.replace("[peer-link]", &format!("[metrics]\nlisten = {listen}\n[peer-link]"));
    assert_eq!(parse(GOOD).unwrap().metrics, None);
    assert_eq!(parse(&with("\"[::1]:9464\"")).unwrap().metrics, Some("[::1]:9464".parse().unwrap()));
    assert!(parse(&with("\"0.0.0.0:9464\"")).is_ok(), "any address will do");
    let bad = [
        ("\"[::1]\"", ":19: `listen` \"[::1]\" is not an address and port"),
        ("\"[::1]:0\"", ":19: `listen` [::1]:0 names no address and port"),
        (
            "\"[2001:db8:fa::2]:7400\"",
            ":19: `listen` [2001:db8:fa::2]:7400 of [metrics] is also that of [peer-link]; take another port, such as 9464",
        ),
        ("\"[::1]:9464\"\nport = 1", ":20: unknown key `port`; known here: listen"),
    ];
    for (listen, expected) in bad {
        let said = parse(&with(listen)).unwrap_err();
        assert!(said.contains(expected), "{listen}: {said}");
    }
}

#[test]
fn plain_text_needs_no_keys() {
    let text = without(GOOD, &["ca", "certificate", "key"])
        .replace("[peer-link]", "[peer-link]\ninsecure-plaintext = true");
    assert_eq!(parse(&text).unwrap().peer_link.unwrap().keys, None);
}

fn without(text: &str, keys: &[&str]) -> String {
    let kept = |line: &&str| !keys.iter().any(|key| line.split(" =").next() == Some(key));
    text.lines().filter(kept).flat_map(|line| [line, "\n"]).collect()
}

/// What is changed in the good file, what it is changed to, and the line that the operator then sees (after the file's
/// name).
const BAD: &[(&str, &str, &str)] = &[
    ("contact = \"a\"", "contct = \"a\"", ":7: unknown key `contct`; did you mean `contact`?"),
    (
        "busy-poll-us = 50",
        "spin = 50",
        ":16: unknown key `spin`; known here: device, address, gateway, mtu, busy-poll-us",
    ),
    ("[tap]", "[tapp]", ":11: unknown key `tapp`; did you mean `tap`?"),
    (
        "kind = \"echo\"",
        "kind = \"ehco\"",
        ":40: there is no kind of service \"ehco\"; did you mean \"echo\"?",
    ),
    (
        "\"round-robin\"",
        "\"random\"",
        ":9: there is no placement \"random\"; choose one of local, round-robin, least-connections, weighted, hash, nearest",
    ),
    (
        "placement = \"round-robin\"",
        "placement = \"weighted\"\nweights = { a = 1, d = 2 }",
        ":10: `weights` names \"d\", which is no node of the group; did you mean \"a\"?",
    ),
    (
        "placement = \"round-robin\"",
        "weights = { a = -1 }",
        ":9: the weight of a is -1; it must lie between 0 and 1000000",
    ),
    (
        "placement = \"round-robin\"",
        "allowed = { b = [\"echo\", \"http\"] }",
        ":9: `allowed` names the service \"http\", which there is not; name some of file, echo",
    ),
    (
        "mtu = 1400",
        "mtu = \"1400\"",
        ":15: `mtu` is of the wrong type: string \"1400\"; write it as `mtu = 1500`",
    ),
    ("mtu = 1400", "mtu = 500", ":15: `mtu` is 500; it must lie between 1280 and 65521"),
    (
        "mtu = 1400",
        "mtu = 1400 bytes",
        ":15: string values must be quoted, expected literal string; the file must be TOML (https://toml.io)",
    ),
    (
        "busy-poll-us = 50",
        "busy-poll-us = -1",
        ":16: `busy-poll-us` is -1; it must lie between 0 and 1000000",
    ),
    ("name = \"a\"\n", "\n", ":1: key `name` is missing; add `name = \"a\"`"),
    ("device = \"ferry0\"\n", "\n", ":11: key `device` is missing; add `device = \"ferry0\"`"),
    (
        "link = \"[2001:db8:fb::2]:7400\"\n",
        "\n",
        ":24: key `link` is missing; add `link = \"[2001:db8:fb::2]:7400\"`",
    ),
    (
        "name = \"c\"\n",
        "name = \"Node_C\"\n",
        ":30: \"Node_C\" cannot be the name of a node; use 1 to 63 of a-z, 0-9 and inner hyphens, such as \"node-1\"",
    ),
    (
        "name = \"demo\"",
        "name = \"-demo\"",
        ":5: \"-demo\" cannot be the name of a group; use 1 to 63 of a-z, 0-9 and inner hyphens, such as \"group-1\"",
    ),
    (
        "contact = \"a\"",
        "contact = \"z9\"",
        ":7: the contact node \"z9\" is neither this node nor a peer; name this node or a peer: a, b, c",
    ),
    ("name = \"c\"", "name = \"b\"", ":30: a second node with the name \"b\"; each name stands once"),
    ("name = \"c\"", "name = \"a\"", ":30: a second node with the name \"a\"; each name stands once"),
    (
        "service-address = \"2001:db8:5::1\"",
        "service-address = \"192.0.2.1\"",
        ":6: `service-address` 192.0.2.1 is an IPv4 address, and must be IPv6; write it as `service-address = \"2001:db8:5::1\"`",
    ),
    (
        "service-address = \"2001:db8:5::1\"",
        "service-address = \"ff02::1\"",
        ":6: `service-address` ff02::1 is a multicast address; routers must be able to carry it: take a global or unique-local one",
    ),
    (
        "service-address = \"2001:db8:5::1\"",
        "service-address = \"2001:db8::5::1\"",
        ":6: `service-address` \"2001:db8::5::1\" is not an IPv6 address; write it as `service-address = \"2001:db8:5::1\"`",
    ),
    (
        "service-address = \"2001:db8:5::1\"",
        "service-address = \"2001:db8:a::2\"",
        ":13: `address` 2001:db8:a::2 is also the service address; each node has an address of its own",
    ),
    (
        "address = \"2001:db8:a::2/64\"",
        "address = \"2001:db8:a::2\"",
        ":13: `address` 2001:db8:a::2 has no prefix length; give the prefix length too, such as \"2001:db8:a::2/64\"",
    ),
    (
        "address = \"2001:db8:a::2/64\"",
        "address = \"2001:db8:a::2/129\"",
        ":13: the prefix length in 2001:db8:a::2/129 is not between 1 and 128; write it as `address = \"2001:db8:a::2/64\"`",
    ),
    (
        "address = \"2001:db8:a::2/64\"",
        "address = \"fe80::2/64\"",
        ":13: `address` fe80::2 is a link-local address; routers must be able to carry it: take a global or unique-local one",
    ),
    (
        "gateway = \"2001:db8:a::1\"",
        "gateway = \"2001:db8:b::1\"",
        ":14: `gateway` 2001:db8:b::1 is not on the link of `address`; take an address within 2001:db8:a::2/64, or a link-local one",
    ),
    (
        "gateway = \"2001:db8:a::1\"",
        "gateway = \"2001:db8:a::2\"",
        ":14: `gateway` 2001:db8:a::2 is the node's own `address`; name the router's address",
    ),
    (
        "device = \"ferry0\"",
        "device = \"a-very-long-device\"",
        ":12: \"a-very-long-device\" cannot be the name of a device; use 1 to 15 octets without '/', ':' and spaces, such as \"ferry0\"",
    ),
    (
        "care-of = \"2001:db8:c::2\"",
        "care-of = \"2001:db8:b::2\"",
        ":31: `care-of` 2001:db8:b::2 is also `care-of` of b; each node has an address of its own",
    ),
    (
        "care-of = \"2001:db8:c::2\"",
        "care-of = \"2001:db8:a::2\"",
        ":31: `care-of` 2001:db8:a::2 is also this node's `address`; each node has an address of its own",
    ),
    (
        "link = \"192.0.2.3:7400\"",
        "link = \"[2001:db8:fb::2]:7400\"",
        ":32: `link` [2001:db8:fb::2]:7400 is also that of b; each node listens at an address and port of its own",
    ),
    (
        "link = \"192.0.2.3:7400\"",
        "link = \"192.0.2.3\"",
        ":32: `link` \"192.0.2.3\" is not an address and port; write it as `link = \"[2001:db8:fb::2]:7400\"`",
    ),
    (
        "link = \"192.0.2.3:7400\"",
        "link = \"[::]:7400\"",
        ":32: `link` [::]:7400 names no address and port that one can connect to; write it as `link = \"[2001:db8:fb::2]:7400\"`",
    ),
    ("ca = \"keys/ca.pem\"\n", "\n", ":18: key `ca` is missing in [peer-link]; add `ca = \"keys/ca.pem\"`"),
    (
        "port = 7\n",
        "port = 80\n",
        ":41: port 80 is also that of the service file; give each service a port of its own",
    ),
    ("port = 7\n", "port = 70000\n", ":41: `port` is 70000; it must lie between 1 and 65535"),
    ("root = \"www\"\n", "\n", ":34: a file service needs `root`; add `root = \"www\"`"),
    ("kind = \"file\"", "kind = \"discard\"", ":37: a service of kind discard has no `root`; leave it out"),
    (
        "control = \"run/a.sock\"",
        "control = \"\"",
        ":2: `control` is empty; write it as `control = \"/run/ferry/a.sock\"`",
    ),
    (
        "control = \"run/a.sock\"",
        "control = 5",
        ":2: `control` is of the wrong type: integer `5`; write it as `control = \"/run/ferry/a.sock\"`",
    ),
];

#[test]
fn a_bad_file_is_refused_with_its_line_and_what_would_be_right() {
    let mut wrong = Vec::new();
    for (good, bad, expected) in BAD {
        assert!(GOOD.contains(good), "not in the good file: {good}");
        let seen = parse(&GOOD.replacen(good, bad, 1)).err().unwrap_or_else(|| "accepted".to_owned());
        let expected = format!("/etc/ferry/node.toml{expected}");
        if seen != expected {
            wrong.push(format!("{bad}\n  expected {expected}\n  seen     {seen}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_lines() {
    let text = GOOD
        .replace("mtu = 1400", "mtu = 1")
        .replace("contact = \"a\"", "contact = \"x1\"")
        .replace("port = 7\n", "port = 0\n");
    let error = Config::parse(&text, Path::new("node.toml"), None).unwrap_err();
    assert_eq!(
        error.problems.iter().map(|problem| problem.line).collect::<Vec<_>>(),
        [Some(7), Some(15), Some(41)]
    );
}

#[test]
fn peers_need_a_peer_link_and_a_group_of_one_does_not() {
    let (before, rest) = GOOD.split_once("[peer-link]").unwrap();
    let (_, peers_on) = rest.split_once("[[peer]]").unwrap();
    let (_, services) = rest.split_once("[[service]]").unwrap();
    let error = parse(&format!("{before}[[peer]]{peers_on}")).unwrap_err();
    assert!(error.contains(":19: there is a peer, but no section [peer-link]; add"), "{error}");
    assert_eq!(parse(&format!("{before}[[service]]{services}")).unwrap().peer_link, None);
    let error = parse(before).unwrap_err();
    assert!(error.contains("there is no service; add `[[service]]"), "{error}");
}

#[test]
fn two_names_with_one_digest_clash() {
    let names = ["a", "b", "c"].map(|name| Spanned::new(0..0, name.to_owned()));
    let names: Vec<_> = names.iter().collect();
    let same = |name: &str| NodeId::of(if name == "c" { "a" } else { name });
    let clashes: Vec<_> = super::check::clashes(&names, same)
        .into_iter()
        .map(|(at, other)| (at.get_ref().as_str(), other.as_str()))
        .collect();
    assert_eq!(clashes, [("c", "a")]);
    assert!(super::check::clashes(&names, NodeId::of).is_empty());
}

#[test]
fn a_file_that_cannot_be_read_says_so() {
    let error = Config::load(Path::new("/nonexistent/node.toml")).unwrap_err().to_string();
    assert_eq!(
        error,
        "/nonexistent/node.toml: cannot be read: No such file or directory (os error 2); name a file that you may read with --config"
    );
}

#[test]
fn a_secret_that_is_not_32_octets_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("group.secret");
    let good = "00ff".repeat(16);
    std::fs::write(&file, format!("{good}\n")).unwrap();
    assert_eq!(super::read_secret(&file).unwrap()[..3], [0, 255, 0]);
    for bad in ["", "00", &good[1..], &good.replace('f', "g"), &format!("{good}00")] {
        std::fs::write(&file, bad).unwrap();
        let error = super::read_secret(&file).unwrap_err().to_string();
        assert!(error.ends_with("; make it with `ferry keygen`"), "{error}");
    }
}
