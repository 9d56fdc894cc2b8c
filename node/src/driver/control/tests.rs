use std::io::{BufRead as _, BufReader as StdBufReader, Write as _};
use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;
use crate::Which;
use crate::driver::ask::Replies;
use crate::driver::mailbox::{Inbox, Letter, mailbox};

/// A control socket in front of a core that answers each command with the command's name.
struct Lab {
    folder: TempDir,
    _runtime: tokio::runtime::Runtime,
}

impl Lab {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let (mailbox, inbox) = mailbox().unwrap();
        let path = folder.path().join("deep/a.sock");
        runtime.block_on(async {
            let (asker, replies) = Asker::new(mailbox);
            tokio::spawn(Control::bind(&path).unwrap().serve(asker));
            tokio::spawn(answer(inbox, replies));
        });
        Self { folder, _runtime: runtime }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("deep/a.sock")
    }

    /// Sends octets as they are, reads one line.
    fn raw(&self, octets: &[u8]) -> String {
        let mut stream = StdBufReader::new(StdStream::connect(self.path()).unwrap());
        stream.get_mut().write_all(octets).unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).unwrap();
        line
    }
}

async fn answer(inbox: Inbox, replies: Replies) {
    loop {
        match inbox.take() {
            Some(Letter::Command { id, command }) => {
                replies.send((id, Reply::Error { why: format!("{command:?}") })).await.unwrap();
            }
            _ => tokio::task::yield_now().await,
        }
    }
}

#[test]
fn many_operators_get_each_their_own_answers() {
    let lab = Lab::new();
    let mut clients: Vec<Client> = (0..20).map(|_| Client::connect(&lab.path()).unwrap()).collect();
    for round in 0..3 {
        for (index, client) in clients.iter_mut().enumerate() {
            let command = Command::Handoff { to: format!("{round}-{index}"), which: Which::All };
            let (reply, line) = client.ask(&command).unwrap();
            assert_eq!(reply, Reply::Error { why: format!("{command:?}") });
            assert_eq!(serde_json::from_str::<Reply>(&line).unwrap(), reply);
        }
    }
}

#[test]
fn nobody_else_can_connect() {
    let lab = Lab::new();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&lab.path()), 0o600);
    assert_eq!(mode(lab.path().parent().unwrap()), 0o700);
}

#[test]
fn what_is_no_command_is_answered_and_the_connection_goes_on() {
    let lab = Lab::new();
    let cases: [&[u8]; 5] = [b"\n", b"status\n", b"{}\n", b"{\"command\":\"fly\"}\n", b"\xff\xfe\n"];
    for octets in cases {
        let line = lab.raw(octets);
        assert!(line.starts_with(r#"{"reply":"error","why":"this is no command: "#), "{line}");
    }
    let mut stream = StdBufReader::new(StdStream::connect(lab.path()).unwrap());
    stream.get_mut().write_all(b"nonsense\n{\"command\":\"status\"}\n").unwrap();
    let lines: Vec<String> = stream.lines().take(2).map(Result::unwrap).collect();
    assert!(lines[0].contains("this is no command"), "{lines:?}");
    assert_eq!(lines[1], r#"{"reply":"error","why":"Status"}"#);
}

#[test]
fn an_endless_line_is_refused() {
    let lab = Lab::new();
    let line = lab.raw(&vec![b'x'; MAX_LINE + 1]);
    assert!(line.contains("a line of more than 65536 octets is no command"), "{line}");
}

#[tokio::test]
async fn a_socket_at_which_nobody_answers_is_replaced_and_a_living_one_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists(), "left behind");
    let control = Control::bind(&path).unwrap();
    let error = Control::bind(&path).unwrap_err().to_string();
    assert!(error.starts_with(&format!("another node is running at {}", path.display())), "{error}");
    drop(control);
    assert!(!path.exists());
    std::fs::write(&path, "precious").unwrap();
    let error = Control::bind(&path).unwrap_err().to_string();
    assert!(error.contains("is there and is no socket"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn an_operator_who_finds_no_node_is_told_how_to_start_one() {
    let error = Client::connect(Path::new("/nonexistent/a.sock")).unwrap_err().to_string();
    assert_eq!(
        error,
        "no node is running at /nonexistent/a.sock; start it with `ferry node --config node.toml`, or name its socket with --control or --config"
    );
}
