//! Talking to a running node over its control socket.

use core::time::Duration;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use ferry_node::io::{Command, Connection, Moved, Reply, Status, Which};

use crate::error::Doing;
use crate::{Error, Result};

/// Longer than any handoff takes: a node that does not answer by then does not work.
const PATIENCE: Duration = Duration::from_secs(30);

/// An open control socket.
#[derive(Debug)]
pub struct Control {
    node: String,
    stream: BufReader<UnixStream>,
}

impl Control {
    /// Connects to a node's socket.
    pub fn connect(node: &str, path: &Path) -> Result<Self> {
        let doing = format!("connect to {}", path.display());
        let stream = UnixStream::connect(path).doing(&doing)?;
        stream.set_read_timeout(Some(PATIENCE)).doing(&doing)?;
        Ok(Self { node: node.to_owned(), stream: BufReader::new(stream) })
    }

    /// Asks, and waits for the answer. An error that it tells is ours.
    pub fn ask(&mut self, command: &Command) -> Result<Reply> {
        match self.ask_plainly(command)? {
            Reply::Error { why } => Err(self.wrong(why)),
            reply => Ok(reply),
        }
    }

    fn ask_plainly(&mut self, command: &Command) -> Result<Reply> {
        let doing = format!("ask node {}", self.node);
        let mut line = serde_json::to_string(command).doing(&doing)?;
        line.push('\n');
        self.stream.get_mut().write_all(line.as_bytes()).doing(&doing)?;
        line.clear();
        self.stream.read_line(&mut line).doing(&doing)?;
        match serde_json::from_str(&line) {
            Ok(reply) => Ok(reply),
            Err(error) => Err(self.wrong(format!("answered {line:?}: {error}"))),
        }
    }

    /// Hands every connection of the node over to another one.
    pub fn handoff_all(&mut self, to: &str) -> Result<Moved> {
        match self.ask(&Command::Handoff { to: to.to_owned(), which: Which::All })? {
            Reply::Moved(moved) => Ok(moved),
            other => Err(self.wrong(format!("answered a handoff with {other:?}"))),
        }
    }

    /// Hands one connection over to another node, if this one still owns it.
    pub fn handoff_one(&mut self, connection: &Connection, to: &str) -> Result<Moved> {
        let which = Which::One { client: connection.client, port: connection.port };
        match self.ask_plainly(&Command::Handoff { to: to.to_owned(), which })? {
            Reply::Moved(moved) => Ok(moved),
            Reply::Error { why } if why.contains("does not own the connection") => Ok(Moved::default()),
            other => Err(self.wrong(format!("answered a handoff with {other:?}"))),
        }
    }

    /// The connections that the node owns.
    pub fn connections(&mut self) -> Result<Vec<Connection>> {
        match self.ask(&Command::Connections)? {
            Reply::Connections { connections } => Ok(connections),
            other => Err(self.wrong(format!("answered a question for connections with {other:?}"))),
        }
    }

    /// How the node is.
    pub fn status(&mut self) -> Result<Status> {
        match self.ask(&Command::Status)? {
            Reply::Status(status) => Ok(*status),
            other => Err(self.wrong(format!("answered a question for its status with {other:?}"))),
        }
    }

    fn wrong(&self, why: String) -> Error {
        Error::Node { node: self.node.clone(), why }
    }
}
