use std::os::unix::fs::symlink;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::services::fake::Fake;

/// A folder with a few files, and the service of it.
struct Lab {
    folder: TempDir,
    service: FileService,
}

const BIG: usize = 3 * CHUNK + 12_345;

fn big() -> Vec<u8> {
    (0..BIG).map(|index| u8::try_from(index % 251).unwrap()).collect()
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let www = folder.path().join("www");
        std::fs::create_dir_all(www.join("sub")).unwrap();
        std::fs::write(folder.path().join("secret.txt"), "secret").unwrap();
        for (name, octets) in
            [("a.txt", &b"0123456789"[..]), ("index.html", b"<p>"), ("sub/b b.json", b"{}"), ("empty", b"")]
        {
            std::fs::write(www.join(name), octets).unwrap();
        }
        std::fs::write(www.join("big"), big()).unwrap();
        symlink("../secret.txt", www.join("out")).unwrap();
        symlink("/etc/passwd", www.join("abs")).unwrap();
        symlink("a.txt", www.join("in")).unwrap();
        let service = FileService::open(&www).unwrap();
        Self { folder, service }
    }

    /// Everything that is sent in answer to these octets, with an end after them.
    fn exchange(&self, octets: &[u8]) -> Fake {
        let (mut session, mut pipe) = (File::default(), Fake::with_room(1 << 20));
        pipe.arrive(octets);
        pipe.end();
        while !pipe.is_finished() {
            session.pump(&self.service, &mut pipe);
            assert!(pipe.acknowledge(usize::MAX) > 0 || pipe.is_finished(), "stuck");
        }
        pipe
    }

    fn text(&self, request: &str) -> String {
        String::from_utf8_lossy(self.exchange(request.as_bytes()).sent()).into_owned()
    }

    fn get(&self, target: &str) -> String {
        self.text(&format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n"))
    }
}

#[test]
fn a_file_is_sent_whole_with_its_type_and_length() {
    let expected = "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 10\r\nAccept-Ranges: bytes\r\n\r\n0123456789";
    assert_eq!(Lab::new().get("/a.txt"), expected);
}

#[test]
fn each_target_means_one_file_or_none() {
    let lab = Lab::new();
    let cases = [
        ("/", "200", "<p>"),
        ("/a.txt?x=1", "200", "0123456789"),
        ("http://host/a.txt", "200", "0123456789"),
        ("http://host", "200", "<p>"),
        ("/%61.txt", "200", "0123456789"),
        ("/sub/b%20b.json", "200", "{}"),
        ("/sub/../a.txt", "200", "0123456789"),
        ("//a.txt", "404", ""),
        ("/in", "200", "0123456789"),
        ("/empty", "200", ""),
        ("/nothing", "404", ""),
        ("/sub", "404", ""),
        ("/sub/", "404", ""),
        ("/../secret.txt", "404", ""),
        ("/%2e%2e/secret.txt", "404", ""),
        ("/sub/../../secret.txt", "404", ""),
        ("/out", "404", ""),
        ("/abs", "404", ""),
        ("/..%2fsecret.txt", "404", ""),
        ("/%ff", "404", ""),
        ("/%00", "400", ""),
        ("/%zz", "400", ""),
        ("/%", "400", ""),
        ("a.txt", "400", ""),
    ];
    for (target, status, body) in cases {
        let seen = lab.get(target);
        assert!(seen.starts_with(&format!("HTTP/1.1 {status} ")), "{target}: {seen}");
        let (_, seen) = seen.split_once("\r\n\r\n").unwrap();
        if status == "200" {
            assert_eq!(seen, body, "{target}");
        } else {
            assert!(seen.starts_with(status) && !seen.contains("secret\n"), "{target}: {seen}");
        }
    }
}

#[test]
fn each_range_means_some_octets_or_all_or_none() {
    let lab = Lab::new();
    let cases = [
        ("bytes=0-3", "206", "bytes 0-3/10", "0123"),
        ("bytes=3-", "206", "bytes 3-9/10", "3456789"),
        ("bytes=-4", "206", "bytes 6-9/10", "6789"),
        ("bytes=-40", "206", "bytes 0-9/10", "0123456789"),
        ("bytes=9-99", "206", "bytes 9-9/10", "9"),
        ("BYTES=9-9", "206", "bytes 9-9/10", "9"),
        ("bytes=10-", "416", "bytes */10", ""),
        ("bytes=10-20", "416", "bytes */10", ""),
        ("bytes=-0", "416", "bytes */10", ""),
        ("bytes=4-3", "200", "", "0123456789"),
        ("bytes=0-1,3-4", "200", "", "0123456789"),
        ("bytes=x-", "200", "", "0123456789"),
        ("bytes=+1-2", "200", "", "0123456789"),
        ("bytes=-", "200", "", "0123456789"),
        ("lines=1-2", "200", "", "0123456789"),
        ("bytes=99999999999999999999-", "200", "", "0123456789"),
        ("bytes=0-18446744073709551615", "206", "bytes 0-9/10", "0123456789"),
    ];
    for (range, status, content_range, body) in cases {
        let seen = lab.text(&format!("GET /a.txt HTTP/1.1\r\nHost: x\r\nRange: {range}\r\n\r\n"));
        assert!(seen.starts_with(&format!("HTTP/1.1 {status} ")), "{range}: {seen}");
        assert_eq!(seen.contains("Content-Range: "), !content_range.is_empty(), "{range}: {seen}");
        assert!(
            content_range.is_empty() || seen.contains(&format!("Content-Range: {content_range}\r\n")),
            "{range}: {seen}"
        );
        assert!(status == "416" || seen.ends_with(&format!("\r\n\r\n{body}")), "{range}: {seen}");
    }
}

#[test]
fn a_range_that_depends_on_a_validator_is_ignored_for_there_is_none() {
    let seen =
        Lab::new().text("GET /a.txt HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\nIf-Range: \"x\"\r\n\r\n");
    assert!(seen.starts_with("HTTP/1.1 200 "), "{seen}");
}

#[test]
fn a_head_request_gets_the_head_only() {
    let lab = Lab::new();
    let seen = lab.text("HEAD /a.txt HTTP/1.1\r\nHost: x\r\nRange: bytes=0-1\r\n\r\n");
    assert!(seen.starts_with("HTTP/1.1 200 OK\r\n") && seen.contains("Content-Length: 10\r\n"), "{seen}");
    assert!(seen.ends_with("\r\n\r\n"), "{seen}");
    let seen = lab.text("HEAD /nothing HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(seen.starts_with("HTTP/1.1 404 ") && seen.ends_with("\r\n\r\n"), "{seen}");
}

/// The second request is answered if, and only if, the connection stays.
#[test]
fn each_request_says_whether_another_may_follow() {
    let second = "GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n";
    let cases = [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "200", true),
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "200", false),
        ("GET / HTTP/1.1\r\nHost: x\r\nConnection: foo, Close\r\n\r\n", "200", false),
        ("GET / HTTP/1.0\r\n\r\n", "200", false),
        ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "200", true),
        ("GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n", "404", true),
        ("POST / HTTP/1.1\r\nHost: x\r\n\r\n", "405", true),
        ("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "405", false),
        ("GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", "400", false),
        ("GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400", false),
        ("GET / HTTP/1.1\r\n\r\n", "400", false),
        ("GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", "400", false),
        ("nonsense\r\n\r\n", "400", false),
        ("GET / HTTP/9.9\r\n\r\n", "400", false),
    ];
    let lab = Lab::new();
    for (first, status, stays) in cases {
        let seen = lab.text(&format!("{first}{second}"));
        assert!(seen.starts_with(&format!("HTTP/1.1 {status} ")), "{first}: {seen}");
        assert_eq!(seen.ends_with("0123456789"), stays, "{first}: {seen}");
        assert_eq!(seen.contains("Connection: close"), !stays, "{first}: {seen}");
    }
}

#[test]
fn a_head_beyond_the_limit_is_refused() {
    let lab = Lab::new();
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "y".repeat(MAX_HEAD));
    assert!(lab.text(&long).starts_with("HTTP/1.1 431 "));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(70));
    assert!(lab.text(&many).starts_with("HTTP/1.1 431 "));
}

#[test]
fn a_big_file_arrives_whole_through_a_queue_of_any_size() {
    let lab = Lab::new();
    for room in [1_000, 64 << 10, 2 << 20] {
        let (mut session, mut pipe) = (File::default(), Fake::with_room(room));
        pipe.arrive(b"GET /big HTTP/1.0\r\n\r\n");
        while !pipe.is_finished() {
            session.pump(&lab.service, &mut pipe);
            assert!(pipe.acknowledge(room / 3 + 1) > 0 || pipe.is_finished(), "stuck with room for {room}");
        }
        assert!(pipe.sent().ends_with(&big()), "through {room}");
    }
}

#[test]
fn a_big_file_goes_on_when_there_is_less_room_than_there_was() {
    let lab = Lab::new();
    let (mut session, mut pipe) = (File::default(), Fake::with_room(CHUNK));
    pipe.arrive(b"GET /big HTTP/1.0\r\n\r\n");
    session.pump(&lab.service, &mut pipe);
    // As when losses make the congestion window small.
    pipe.narrow(CHUNK / 4);
    while !pipe.is_finished() {
        assert!(pipe.acknowledge(usize::MAX) > 0, "stuck");
        session.pump(&lab.service, &mut pipe);
    }
    assert!(pipe.sent().ends_with(&big()));
}

#[test]
fn a_file_that_becomes_shorter_resets_the_connection_instead_of_lying() {
    let lab = Lab::new();
    let (mut session, mut pipe) = (File::default(), Fake::with_room(1 << 10));
    pipe.arrive(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    session.pump(&lab.service, &mut pipe);
    std::fs::write(lab.folder.path().join("www/big"), "short").unwrap();
    pipe.acknowledge(usize::MAX);
    session.pump(&lab.service, &mut pipe);
    assert!(pipe.is_reset());
}

fn moved(session: &File) -> File {
    postcard::from_bytes(&postcard::to_allocvec(session).unwrap()).unwrap()
}

#[test]
fn a_node_without_the_same_file_refuses_the_session_with_the_reason() {
    let (here, there) = (Lab::new(), Lab::new());
    let (mut session, mut pipe) = (File::default(), Fake::with_room(1 << 10));
    session.pump(&here.service, &mut pipe);
    assert_eq!(moved(&session).adopt(&there.service), Ok(()), "nothing is asked for yet");
    pipe.arrive(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n");
    session.pump(&here.service, &mut pipe);
    assert_eq!(moved(&session).adopt(&there.service), Ok(()));
    let copy = there.folder.path().join("www/big");
    std::fs::write(&copy, "other").unwrap();
    let expected = format!("{} has 5 octets at this node, not {BIG}", copy.display());
    assert_eq!(moved(&session).adopt(&there.service), Err(expected));
    std::fs::remove_file(&copy).unwrap();
    let expected = format!("there is no file {} at this node", copy.display());
    assert_eq!(moved(&session).adopt(&there.service), Err(expected));
}

#[test]
fn a_state_that_reaches_beyond_the_file_is_refused() {
    let lab = Lab::new();
    let body = Body { path: "a.txt".into(), length: 10, next: 0, end: 11, file: None };
    let mut session = File { body: Some(body), ..File::default() };
    assert_eq!(session.adopt(&lab.service), Err("the session's state is not consistent".to_owned()));
}

#[test]
fn a_folder_that_is_not_there_cannot_be_served() {
    let error = FileService::open(std::path::Path::new("/nonexistent")).unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot serve the folder /nonexistent: No such file or directory (os error 2); make it, or name another `root`"
    );
}

const REQUESTS: [&str; 7] = [
    "GET /a.txt HTTP/1.1\r\nHost: x\r\n\r\n",
    "HEAD /big HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /big HTTP/1.1\r\nHost: x\r\nRange: bytes=100-4000\r\n\r\n",
    "GET /nothing HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: x\r\nRange: bytes=99-\r\n\r\n",
    "GET /sub/b%20b.json HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_responses_are_the_same_however_requests_are_cut_and_wherever_the_session_moves(
        chosen in prop::collection::vec(0..REQUESTS.len(), 1..6),
        noise in prop::option::of(prop::collection::vec(any::<u8>(), 1..40)),
        cuts in prop::collection::vec(1usize..60, 1..40),
        room in 50usize..5_000,
    ) {
        let (here, there) = (Lab::new(), Lab::new());
        let mut octets: Vec<u8> = chosen.iter().flat_map(|&index| REQUESTS[index].bytes()).collect();
        octets.extend(noise.into_iter().flatten());
        let expected = here.exchange(&octets);

        let (mut session, mut pipe) = (File::default(), Fake::with_room(room));
        let (mut rest, mut labs, mut cuts) = (&octets[..], [&here, &there].into_iter().cycle(), cuts.iter().cycle());
        while !pipe.is_finished() {
            let (piece, after) = rest.split_at(rest.len().min(*cuts.next().unwrap()));
            pipe.arrive(piece);
            rest = after;
            if rest.is_empty() {
                pipe.end();
            }
            let lab = labs.next().unwrap();
            session = moved(&session);
            prop_assert_eq!(session.adopt(&lab.service), Ok(()));
            session.pump(&lab.service, &mut pipe);
            let moving = !piece.is_empty() || pipe.acknowledge(room / 2 + 1) > 0 || pipe.is_finished();
            prop_assert!(moving, "stuck");
        }
        prop_assert_eq!(pipe.sent(), expected.sent());
    }

    #[test]
    fn no_octets_make_the_parser_panic(octets: Vec<u8>) {
        let _ = request::parse(&octets);
    }
}
