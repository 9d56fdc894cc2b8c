//! What the small daemons share, that are one thread and one `poll` each: a control socket where whoever connects is
//! told how the daemon is, as one JSON object.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::event::Timespec;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How long somebody who asks may take to listen.
const PATIENCE: Duration = Duration::from_millis(100);
/// Longer answers are none of ours.
const MAX_ANSWER: u64 = 1 << 26;

/// The daemon cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody listens there.
    #[error("no {daemon} is running at {}; start it with `ferry {daemon}`, or name its socket with --control", .path.display())]
    NotRunning {
        /// What it is called on the command line.
        daemon: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// Another user's.
    #[error("no permission to talk to the {daemon} at {}; run this as its user", .path.display())]
    NotYours {
        /// What it is called on the command line.
        daemon: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// Something broke.
    #[error("the daemon gave no answer: {0}")]
    Broken(#[from] io::Error),
    /// The answer cannot be read.
    #[error(
        "the daemon answered in a way that this ferry does not understand: {0}; is it of the same version?"
    )]
    NotUnderstood(#[from] serde_json::Error),
}

/// Asks a daemon how it is.
pub fn ask<S: DeserializeOwned>(daemon: &'static str, path: &Path) -> Result<S, AskError> {
    let at = || path.to_owned();
    let stream = UnixStream::connect(path).map_err(|why| match why.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            AskError::NotRunning { daemon, path: at() }
        }
        io::ErrorKind::PermissionDenied => AskError::NotYours { daemon, path: at() },
        _ => why.into(),
    })?;
    let mut text = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut text)?;
    Ok(serde_json::from_str(&text)?)
}

/// The control socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Another one runs.
    #[error("a daemon is running already at {}; ask it with `status`, or name another socket", .0.display())]
    Running(PathBuf),
    /// The system does not let us.
    #[error("cannot make the control socket {}: {why}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
}

/// The daemon's end.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Makes the socket, unless a daemon listens there.
    pub(crate) fn open(path: &Path) -> Result<Self, ListenError> {
        let failed = |why| ListenError::Io { path: path.to_owned(), why };
        if UnixStream::connect(path).is_ok() {
            return Err(ListenError::Running(path.to_owned()));
        }
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        // One that a former life has left behind.
        std::fs::remove_file(path).unwrap_or_default();
        let socket = UnixListener::bind(path).map_err(failed)?;
        socket.set_nonblocking(true).map_err(failed)?;
        Ok(Self { socket, path: path.to_owned() })
    }

    /// Tells everybody who asks.
    pub(crate) fn answer<S: Serialize>(&self, status: impl Fn() -> S) {
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

/// How long `poll` is to wait: a moment later than due is in time; a moment earlier would be a circle.
pub(crate) fn timespec(span: Duration) -> Timespec {
    let span = span + Duration::from_millis(1);
    Timespec {
        tv_sec: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: span.subsec_nanos().into(),
    }
}
