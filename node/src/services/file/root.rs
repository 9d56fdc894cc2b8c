//! The folder that is served, and the files in it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use rustix::buffer::spare_capacity;
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::Errno;

/// What all sessions of a file service share on one node: the folder, held open.
#[derive(Debug)]
pub struct FileService {
    root: OwnedFd,
    path: PathBuf,
}

/// A folder cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve the folder {}: {why}; make it, or name another `root`", path.display())]
pub struct RootError {
    /// The folder.
    pub path: PathBuf,
    /// What the system says.
    pub why: io::Error,
}

/// A file that is being served: it stays the same file even if another one takes its name.
#[derive(Debug)]
pub(super) struct OpenFile {
    fd: OwnedFd,
    pub(super) length: u64,
}

/// Why a file cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoFile {
    /// There is none, or none that may be seen.
    NotFound,
    /// The system is at its limits.
    Failed(Errno),
}

impl FileService {
    /// Serves the files under `path`.
    pub fn open(path: &Path) -> Result<Self, RootError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        match open(path, flags, Mode::empty()) {
            Ok(root) => Ok(Self { root, path: path.to_owned() }),
            Err(why) => Err(RootError { path: path.to_owned(), why: why.into() }),
        }
    }

    /// Opens a regular file by its path below the root. Nothing outside can be reached, neither by `..` nor by a
    /// symbolic link: the kernel resolves the path and refuses to leave the folder.
    pub(super) fn file(&self, path: &str) -> Result<Arc<OpenFile>, NoFile> {
        // A FIFO without a writer must not stop the node.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let fd = openat2(&self.root, path, flags, Mode::empty(), within).map_err(|why| match why {
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOSYS | Errno::IO | Errno::AGAIN => {
                NoFile::Failed(why)
            }
            _ => NoFile::NotFound,
        })?;
        let status = fstat(&fd).map_err(NoFile::Failed)?;
        if FileType::from_raw_mode(status.st_mode) != FileType::RegularFile {
            return Err(NoFile::NotFound);
        }
        Ok(Arc::new(OpenFile { fd, length: u64::try_from(status.st_size).unwrap_or(0) }))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl OpenFile {
    /// `count` octets from `offset` on; `None` if the file does not have them (any more).
    pub(super) fn read(&self, offset: u64, count: usize) -> Option<Bytes> {
        let mut octets = Vec::with_capacity(count);
        while octets.len() < count {
            let at = offset + octets.len() as u64;
            match rustix::io::pread(&self.fd, spare_capacity(&mut octets), at) {
                Ok(0) => return None,
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
        // The allocator may have given more than was asked for.
        octets.truncate(count);
        Some(octets.into())
    }
}
