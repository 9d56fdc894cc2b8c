//! The control socket: a UNIX stream, one JSON [`Command`] a line in, one JSON [`Reply`] a line out.

mod client;
#[cfg(test)]
mod tests;

use core::time::Duration;
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::net::UnixStream as StdStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{Mode, fchmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tracing::warn;

use super::ask::Asker;
use crate::{Command, Reply};

pub use client::{AskError, Client};

/// Operators that may be connected at the same time; more wait.
const CLIENTS: usize = 64;

/// Octets of a line. The longest command needs a few hundred.
const MAX_LINE: usize = 64 << 10;

const BACKLOG: i32 = 64;

/// Before the next attempt to accept, after the system had no descriptor left.
const PAUSE: Duration = Duration::from_millis(100);

/// The control socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Somebody answers there.
    #[error("another node is running at {}: it answers there; end it, or name another `control`", .0.display())]
    Running(PathBuf),
    /// There is something else.
    #[error("{} is there and is no socket; remove it, or name another `control`", .0.display())]
    Occupied(PathBuf),
    /// It cannot be made.
    #[error("cannot make the control socket {}: {why}; name a `control` in a folder that this user may write to", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
}

/// A bound control socket; its file goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Control {
    listener: UnixListener,
    file: File,
}

#[derive(Debug)]
struct File(PathBuf);

impl Drop for File {
    fn drop(&mut self) {
        // If it stays behind, the next node sees that nobody answers there.
        let _ = std::fs::remove_file(&self.0);
    }
}

impl Control {
    /// Makes the socket, with nobody but its owner able to connect. A file that a node left behind is replaced.
    pub(crate) fn bind(path: &Path) -> Result<Self, ControlError> {
        let failed = |why: io::Error| ControlError::Io { path: path.to_owned(), why };
        clear(path)?;
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        }
        let listener = bind_private(path).map_err(failed)?;
        let listener = UnixListener::from_std(listener).map_err(failed)?;
        Ok(Self { listener, file: File(path.to_owned()) })
    }

    /// Serves operators for ever.
    pub(crate) async fn serve(self, asker: Asker) {
        let Self { listener, file } = self;
        let room = Arc::new(Semaphore::new(CLIENTS));
        // The semaphore is never closed.
        while let Ok(place) = Arc::clone(&room).acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let asker = asker.clone();
                    tokio::spawn(async move {
                        // Who leaves in the middle has no use for an answer.
                        let _ = serve_one(stream, &asker).await;
                        drop(place);
                    });
                }
                Err(why) => {
                    warn!("cannot accept at the control socket: {why}");
                    sleep(PAUSE).await;
                }
            }
        }
        drop(file);
    }
}

/// Removes a socket at which nobody answers.
fn clear(path: &Path) -> Result<(), ControlError> {
    use std::os::unix::fs::FileTypeExt as _;
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(ControlError::Occupied(path.to_owned())),
        Ok(_) => {}
        Err(_) => return Ok(()),
    }
    match StdStream::connect(path) {
        Ok(_) => Err(ControlError::Running(path.to_owned())),
        Err(why) if why.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(|why| ControlError::Io { path: path.to_owned(), why })
        }
        Err(why) => Err(ControlError::Io { path: path.to_owned(), why }),
    }
}

/// The mode is set before the file is there, so that at no moment anybody else can connect (unix(7) on Linux: the file
/// gets the mode of the socket, less the umask).
fn bind_private(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    listen(&socket, BACKLOG)?;
    Ok(socket.into())
}

async fn serve_one(stream: UnixStream, asker: &Asker) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let (reply, last) = match read_line(&mut reader).await? {
            Line::End => return Ok(()),
            Line::TooLong => (too_long(), true),
            Line::Whole(line) => match parse(&line) {
                Ok(command) => (asker.ask(command).await, false),
                Err(reply) => (reply, false),
            },
        };
        let mut line = serde_json::to_vec(&reply)?;
        line.push(b'\n');
        writer.write_all(&line).await?;
        if last {
            return Ok(());
        }
    }
}

fn parse(line: &[u8]) -> Result<Command, Reply> {
    serde_json::from_slice(line).map_err(|why| {
        let example = r#"a line is one JSON object, such as {"command":"status"}"#;
        Reply::Error { why: format!("this is no command: {why}; {example}") }
    })
}

fn too_long() -> Reply {
    Reply::Error {
        why: format!("a line of more than {MAX_LINE} octets is no command; the connection ends here"),
    }
}

enum Line {
    Whole(Vec<u8>),
    TooLong,
    End,
}

/// The next line; what an operator left unfinished is not one.
async fn read_line(reader: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Line> {
    let mut line = Vec::new();
    loop {
        let available = reader.fill_buf().await?;
        if available.is_empty() {
            return Ok(Line::End);
        }
        let end = available.iter().position(|&octet| octet == b'\n');
        let taken = end.unwrap_or(available.len());
        line.extend_from_slice(&available[..taken]);
        reader.consume(end.map_or(taken, |end| end + 1));
        if line.len() > MAX_LINE {
            return Ok(Line::TooLong);
        }
        if end.is_some() {
            return Ok(Line::Whole(line));
        }
    }
}
