use std::net::Ipv6Addr;

use super::*;
use crate::driver::ask::Replies;
use crate::driver::mailbox::{Inbox, Letter, mailbox};
use crate::{Counters, HomeAgentStatus, PeerStatus, Standing, Status as NodeStatus};

fn status() -> NodeStatus {
    NodeStatus {
        name: "a".into(),
        group: "demo".into(),
        service_address: "2001:db8:5::1".parse().unwrap(),
        care_of: "2001:db8:a::2".parse().unwrap(),
        gateway_answers: true,
        contact: true,
        contact_node: "a".into(),
        contact_term: Some(3),
        home_agent: None,
        draining: false,
        placement: "local".into(),
        uptime_ms: 12_345,
        connections: 7,
        relayed: 2,
        moving: 1,
        directory: "embedded".into(),
        serving: true,
        lease_ms: Some(180),
        etcd: Some(crate::EtcdStatus { connected: true, registered: true, lease_ms: 180, revision: 44 }),
        peers: [("b", true, 3), ("c", false, 0)]
            .map(|(name, up, connections)| {
                let care_of = Ipv6Addr::LOCALHOST;
                PeerStatus { name: name.into(), care_of, up, standing: Standing::Alive, connections }
            })
            .into(),
        copies: crate::Copies { held: 77, ..crate::Copies::default() },
        counters: Counters { frames_in: u64::MAX, resets_sent: 4, ..Counters::default() },
    }
}

/// The page's samples: what stands before the last space, and the value.
fn samples(page: &str) -> Vec<(&str, &str)> {
    page.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.rsplit_once(' ')).collect()
}

#[test]
fn the_page_has_a_sample_for_each_counter_and_for_each_peer() {
    let page = scrape::text(status()).unwrap();
    let samples = samples(&page);
    let value = |name: &str| samples.iter().find(|(found, _)| *found == name).map(|(_, value)| *value);
    let expected = [
        ("ferry_uptime_seconds", "12"),
        ("ferry_gateway_answers", "1"),
        ("ferry_contact_node", "1"),
        ("ferry_contact_term", "3"),
        ("ferry_draining", "0"),
        ("ferry_connections", "7"),
        ("ferry_connections_relayed", "2"),
        ("ferry_connections_moving", "1"),
        ("ferry_peer_up{peer=\"b\"}", "1"),
        ("ferry_peer_up{peer=\"c\"}", "0"),
        ("ferry_peer_connections{peer=\"b\"}", "3"),
        ("ferry_frames_in_total", "18446744073709551615"),
        ("ferry_resets_sent_total", "4"),
    ];
    for (name, wanted) in expected {
        assert_eq!(value(name), Some(wanted), "{name} in {page}");
    }
    let identity = samples.iter().find(|(name, _)| name.starts_with("ferry_node_info{")).unwrap();
    assert!(identity.0.contains("name=\"a\",group=\"demo\",service_address=\"2001:db8:5::1\""), "{page}");
    let counters = serde_json::to_value(Counters::default()).unwrap();
    let totals = samples.iter().filter(|(name, _)| name.ends_with("_total")).count();
    let copies = ["recovered", "lost", "deltas", "delta_octets"].len();
    assert_eq!(totals, counters.as_object().unwrap().len() + copies, "every counter has a sample: {page}");
    assert!(!page.contains("home_agent"), "there is none: {page}");
}

#[test]
fn every_metric_is_described_once_and_ends_with_a_line_feed() {
    let agent =
        HomeAgentStatus { address: Ipv6Addr::LOCALHOST, registered: true, superseded: false, refused: None };
    let page = scrape::text(NodeStatus { home_agent: Some(agent), ..status() }).unwrap();
    assert!(page.ends_with('\n') && page.contains("ferry_home_agent_registered 1\n"), "{page}");
    let mut described: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    described.sort_unstable();
    let before = described.len();
    described.dedup();
    assert_eq!(described.len(), before, "{page}");
    for (name, _) in samples(&page) {
        let name = name.split('{').next().unwrap();
        assert!(described.iter().any(|line| line.split(' ').next() == Some(name)), "{name}: {page}");
    }
}

/// Metrics in front of a core that tells its status.
struct Lab(SocketAddr);

impl Lab {
    async fn new() -> Self {
        let (mailbox, inbox) = mailbox().unwrap();
        let (asker, replies) = Asker::new(mailbox);
        let metrics = Metrics::bind((Ipv6Addr::LOCALHOST, 0).into()).await.unwrap();
        let address = metrics.0.local_addr().unwrap();
        tokio::spawn(metrics.serve(asker));
        tokio::spawn(tell(inbox, replies));
        Self(address)
    }

    /// Sends octets as they are, reads to the end.
    async fn raw(&self, octets: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.0).await.unwrap();
        stream.write_all(octets).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }
}

async fn tell(inbox: Inbox, replies: Replies) {
    loop {
        match inbox.take() {
            Some(Letter::Command { id, command: Command::Status }) => {
                replies.send((id, Reply::Status(Box::new(status())))).await.unwrap();
            }
            _ => tokio::task::yield_now().await,
        }
    }
}

#[tokio::test]
async fn a_scraper_gets_the_page_and_the_end() {
    let lab = Lab::new().await;
    let answer = lab.raw(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"), "{head}");
    assert!(head.contains(&format!("Content-Length: {}\r\nConnection: close", body.len())), "{head}");
    assert_eq!(body, scrape::text(status()).unwrap());
    let answer = lab.raw(b"HEAD /metrics?x=y HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(answer.contains(&format!("Content-Length: {}\r\n", body.len())), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "a head only: {answer}");
}

#[tokio::test]
async fn what_is_no_request_for_metrics_is_refused_with_its_status() {
    let lab = Lab::new().await;
    let long = format!("GET /metrics HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(MAX_HEAD));
    let cases: [(&[u8], &str); 7] = [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found"),
        (b"GET /metrics/ HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found"),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello", "405 Method Not Allowed"),
        (b"DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "405 Method Not Allowed"),
        (b"GET /metrics HTTP/1.1\r\n\r\n", "400 Bad Request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "400 Bad Request"),
        (long.as_bytes(), "431 Request Header Fields Too Large"),
    ];
    for (request, expected) in cases {
        let answer = lab.raw(request).await;
        let shown = String::from_utf8_lossy(request);
        assert!(answer.starts_with(&format!("HTTP/1.1 {expected}\r\n")), "{shown}: {answer}");
    }
}

#[tokio::test]
async fn a_request_may_come_in_pieces_and_may_never_be_finished() {
    let lab = Lab::new().await;
    let mut stream = TcpStream::connect(lab.0).await.unwrap();
    stream.set_nodelay(true).unwrap();
    for octet in b"GET /metrics HTTP/1.0\r\n\r\n" {
        stream.write_all(&[*octet]).await.unwrap();
        tokio::task::yield_now().await;
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    let mut unfinished = TcpStream::connect(lab.0).await.unwrap();
    unfinished.write_all(b"GET /metr").await.unwrap();
    unfinished.shutdown().await.unwrap();
    assert_eq!(unfinished.read(&mut [0; 9]).await.unwrap(), 0, "no answer to half a question");
}

/// Time passes by itself here: as soon as everybody waits.
#[tokio::test(start_paused = true)]
async fn a_node_that_does_not_say_how_it_is_makes_the_metrics_unavailable_and_no_scraper_wait_for_ever() {
    let (mailbox, _inbox) = mailbox().unwrap();
    let (asker, _replies) = Asker::new(mailbox);
    let head = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    let Head::Whole { request: Ok(request), .. } = parse(head) else { panic!("a good request") };
    let response = respond(&request, &asker).await;
    assert!(response.starts_with(b"HTTP/1.1 503 Service Unavailable\r\n"), "{response:?}");
}

#[tokio::test]
async fn an_address_that_is_taken_is_told_with_the_section_that_names_it() {
    let first = Metrics::bind((Ipv6Addr::LOCALHOST, 0).into()).await.unwrap();
    let address = first.0.local_addr().unwrap();
    let error = Metrics::bind(address).await.unwrap_err().to_string();
    let expected = format!("cannot listen for scrapers at {address}: Address already in use");
    assert!(error.starts_with(&expected) && error.contains("[metrics]"), "{error}");
}
