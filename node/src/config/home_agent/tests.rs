use super::*;
use crate::config::Config;

const GOOD: &str = r#"max-lifetime-s = 120
[tap]
device = "ferry0"
address = "2001:db8:5::a/64"
gateway = "2001:db8:5::ffff"
[[home]]
service-address = "2001:db8:5::1"
key-file = "keys/home-agent.key"
[[home]]
service-address = "2001:db8:5::2"
key-file = "/etc/other.key"
spi = 257
"#;

fn parse(text: &str) -> Result<HomeAgentConfig, String> {
    HomeAgentConfig::parse(text, Path::new("/etc/ferry/agent.toml"), None).map_err(|error| error.to_string())
}

#[test]
fn the_file_of_a_home_agent_means_what_it_says() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.control, Path::new("/run/ferry/home-agent.sock"));
    assert_eq!(config.max_lifetime, Duration::from_mins(2));
    let homes: Vec<_> = config.homes.iter().map(|home| (home.service_address, home.spi)).collect();
    let address = |last| Ipv6Addr::new(0x2001, 0xdb8, 5, 0, 0, 0, 0, last);
    assert_eq!(homes, [(address(1), 256), (address(2), 257)]);
    assert_eq!(config.homes[0].key_file, Path::new("/etc/ferry/keys/home-agent.key"));
}

#[test]
fn a_bad_file_of_a_home_agent_is_refused_with_its_line_and_what_would_be_right() {
    let cases = [
        (
            "spi = 257",
            "spi = 256",
            ":12: the SPI 256 of 2001:db8:5::2 is also that of 2001:db8:5::1; give each home address an `spi` of its own, such as spi = 257",
        ),
        ("spi = 257", "spi = 3", ":12: `spi` is 3; it must lie between 256 and 4294967295"),
        (
            "max-lifetime-s = 120",
            "max-lifetime-s = 4",
            ":1: `max-lifetime-s` is 4; it must lie between 8 and 262140",
        ),
        (
            "2001:db8:5::1\"",
            "2001:db8:6::1\"",
            ":7: `service-address` 2001:db8:6::1 is not on the link of `address`; take an address within 2001:db8:5::a/64",
        ),
        (
            "2001:db8:5::1\"",
            "2001:db8:5::a\"",
            ":7: `service-address` 2001:db8:5::a is the agent's own `address`; the agent has an address of its own",
        ),
        (
            "key-file = \"keys/home-agent.key\"\n",
            "",
            ":6: key `key-file` is missing; add `key-file = \"keys/home-agent.key\"`",
        ),
        ("[tap]", "[tpa]", ":2: unknown key `tpa`; known here: control, max-lifetime-s, tap, home"),
    ];
    for (good, bad, expected) in cases {
        let seen = parse(&GOOD.replacen(good, bad, 1)).err().unwrap_or_else(|| "accepted".to_owned());
        assert_eq!(seen, format!("/etc/ferry/agent.toml{expected}"));
    }
    let none = parse(GOOD.split_once("[[home]]").unwrap().0).unwrap_err();
    assert!(none.contains("there is no home address; add `[[home]] service-address"), "{none}");
}

const NODE: &str = r#"name = "a"
[group]
name = "demo"
service-address = "2001:db8:5::1"
contact = "a"
secret-file = "keys/group.secret"
[home-agent]
agent-address = "2001:db8:5::a"
key-file = "keys/home-agent.key"
[tap]
device = "ferry0"
address = "2001:db8:a::2/64"
gateway = "2001:db8:a::1"
[[service]]
kind = "echo"
port = 7
"#;

fn node(text: &str) -> Result<Config, String> {
    Config::parse(text, Path::new("/etc/ferry/node.toml"), None).map_err(|error| error.to_string())
}

#[test]
fn a_node_may_register_with_a_home_agent() {
    let agent = node(NODE).unwrap().home_agent.unwrap();
    assert_eq!((agent.spi, agent.lifetime), (256, Duration::from_mins(1)));
    assert_eq!(agent.key_file, Path::new("/etc/ferry/keys/home-agent.key"));
    let cases = [
        (
            "5::a\"",
            "5::1\"",
            ":8: `agent-address` 2001:db8:5::1 is also the service address; the home agent has an address of its own",
        ),
        (
            "agent-address = \"2001:db8:5::a\"",
            "agent-address = \"here\"",
            ":8: `agent-address` \"here\" is not an IPv6 address; write it as `agent-address = \"2001:db8:5::a\"`",
        ),
        ("key-file", "lifetime-s = 2\nkey-file", ":9: `lifetime-s` is 2; it must lie between 8 and 262140"),
    ];
    for (good, bad, expected) in cases {
        let seen = node(&NODE.replacen(good, bad, 1)).unwrap_err();
        assert_eq!(seen, format!("/etc/ferry/node.toml{expected}"));
    }
}
