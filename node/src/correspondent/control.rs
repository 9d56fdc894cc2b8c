//! The control socket: whoever connects is told how the daemon is, as one JSON object.

use std::io::{self, Read as _, Write as _};
use std::net::Ipv6Addr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Counters, Failed, Mode, doing};

/// How long somebody who asks may take to listen.
const PATIENCE: Duration = Duration::from_millis(100);
/// Longer answers are none of ours.
const MAX_ANSWER: u64 = 1 << 26;

/// How a daemon is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// How bindings are put into effect.
    pub mode: Mode,
    /// Every binding.
    pub bindings: Vec<Bound>,
    /// What has happened so far.
    pub counters: Counters,
}

/// A binding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bound {
    /// The address of this host.
    pub client: Ipv6Addr,
    /// The service's address.
    pub service: Ipv6Addr,
    /// Where the service is.
    pub care_of: Ipv6Addr,
    /// How long that holds.
    pub seconds_left: u64,
    /// The sequence number of the last Binding Update.
    pub sequence: u16,
}

/// The daemon cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("no correspondent is running at {}; start it with `ferry correspondent`, or name its socket with --control", .0.display())]
    NotRunning(PathBuf),
    /// Another user's.
    #[error("no permission to talk to the correspondent at {}; run this as its user", .0.display())]
    NotYours(PathBuf),
    /// Something broke.
    #[error("the correspondent gave no answer: {0}")]
    Broken(#[from] io::Error),
    /// The answer cannot be read.
    #[error(
        "the correspondent answered in a way that this ferry does not understand: {0}; is it of the same version?"
    )]
    NotUnderstood(#[from] serde_json::Error),
}

/// Asks a daemon how it is.
pub fn ask(path: &Path) -> Result<Status, AskError> {
    let stream = UnixStream::connect(path).map_err(|why| match why.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => AskError::NotRunning(path.to_owned()),
        io::ErrorKind::PermissionDenied => AskError::NotYours(path.to_owned()),
        _ => why.into(),
    })?;
    let mut text = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

/// The daemon's end.
#[derive(Debug)]
pub(super) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Makes the socket, unless a daemon listens there.
    pub(super) fn open(path: &Path) -> Result<Self, Failed> {
        let failed = doing("make the control socket");
        if UnixStream::connect(path).is_ok() {
            return Err(Failed::Running(path.to_owned()));
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(&failed)?;
        }
        // One that a former life has left behind.
        std::fs::remove_file(path).unwrap_or_default();
        let socket = UnixListener::bind(path).map_err(&failed)?;
        socket.set_nonblocking(true).map_err(&failed)?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// Tells everybody who asks.
    pub(super) fn answer(&self, status: impl Fn() -> Status) {
        while let Ok((mut stream, _)) = self.socket.accept() {
            let told = stream
                .set_write_timeout(Some(PATIENCE))
                .and_then(|()| stream.write_all(&serde_json::to_vec(&status()).unwrap_or_default()));
            if let Err(why) = told {
                tracing::debug!("somebody asked and did not listen: {why}");
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).unwrap_or_default();
    }
}
