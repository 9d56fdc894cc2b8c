//! The operator's end of the control socket.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::{Command, Reply};

/// A reply lists at most a few hundred octets for each connection.
const MAX_REPLY: u64 = 1 << 30;

/// A node cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("no node is running at {}; start it with `ferry node --config node.toml`, or name its socket with --control or --config", .0.display())]
    NotRunning(PathBuf),
    /// The socket is another user's.
    #[error("no permission to talk to the node at {}; run this as the node's user", .0.display())]
    NotYours(PathBuf),
    /// The node ended, or something else broke.
    #[error("the node at {} gave no answer: {why}", path.display())]
    Broken {
        /// The socket.
        path: PathBuf,
        /// What happened.
        why: io::Error,
    },
    /// The answer cannot be read.
    #[error("the node at {} answered in a way that this ferry does not understand: {why}; is it of the same version?", path.display())]
    NotUnderstood {
        /// The socket.
        path: PathBuf,
        /// What is wrong with it.
        why: serde_json::Error,
    },
}

/// A connection to a running node.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
    stream: BufReader<UnixStream>,
}

impl Client {
    /// Connects to the node whose control socket this is.
    pub fn connect(path: &Path) -> Result<Self, AskError> {
        let stream = UnixStream::connect(path).map_err(|why| match why.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                AskError::NotRunning(path.to_owned())
            }
            io::ErrorKind::PermissionDenied => AskError::NotYours(path.to_owned()),
            _ => AskError::Broken { path: path.to_owned(), why },
        })?;
        Ok(Self { path: path.to_owned(), stream: BufReader::new(stream) })
    }

    /// The node's answer, and the line that it was.
    pub fn ask(&mut self, command: &Command) -> Result<(Reply, String), AskError> {
        let line = self.exchange(command).map_err(|why| AskError::Broken { path: self.path.clone(), why })?;
        let reply = serde_json::from_str(&line)
            .map_err(|why| AskError::NotUnderstood { path: self.path.clone(), why })?;
        Ok((reply, line))
    }

    fn exchange(&mut self, command: &Command) -> io::Result<String> {
        let mut line = serde_json::to_string(command)?;
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes())?;
        line.clear();
        (&mut self.stream).take(MAX_REPLY).read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it ended"));
        }
        line.pop();
        Ok(line)
    }
}
