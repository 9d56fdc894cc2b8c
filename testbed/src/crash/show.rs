//! A client's download and its two-way stream, one of each at any time.

use core::time::Duration;
use std::path::{Path, PathBuf};

use super::{Crew, ECHO, HTTP, PATIENCE, service};
use crate::clients::{Download, Upload, digest, make_file};
use crate::clock::await_some;
use crate::error::Doing;
use crate::nodes::{self, FILES};
use crate::world::SERVICE;
use crate::{Error, Result};

/// The file's name.
pub const FILE: &str = "file.bin";
/// A transfer that is further on is not killed under: it may end before anything is seen.
const FRESH: f64 = 0.6;
const BEAT: Duration = Duration::from_millis(5);

/// How much is transferred.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Octets of the file.
    pub file: u64,
    /// Octets of a stream.
    pub echo: u64,
    /// Decides them.
    pub seed: u64,
}

/// The client's transfers, one of each kind at any time.
#[derive(Debug)]
pub struct Show {
    size: Size,
    right: String,
    to: PathBuf,
    download: Option<Download>,
    upload: Option<Upload>,
    uploads: u64,
    /// Of transfers that have ended.
    pub octets: u64,
}

impl Show {
    /// Makes the file; the nodes need not run yet.
    pub fn prepare(crew: &Crew, size: Size) -> Result<Self> {
        let (file, to) = (Path::new(FILES).join(FILE), Path::new(FILES).join("downloaded"));
        let right = make_file(&file, size.file, size.seed)?;
        nodes::publish(&crew.world, &file, FILE)?;
        Ok(Self { size, right, to, download: None, upload: None, uploads: 0, octets: 0 })
    }

    /// Waits for the end of what is nearly over, and begins anew.
    pub fn keep_up(&mut self, crew: &Crew) -> Result<()> {
        #[allow(clippy::cast_precision_loss)] // Octets of a transfer.
        let fresh = |so_far: u64, of: u64| (so_far as f64) < of as f64 * FRESH;
        if self.download.as_ref().is_some_and(|one| !fresh(one.progress(), self.size.file)) {
            self.end_download()?;
        }
        if self.upload.as_ref().is_some_and(|one| !fresh(one.progress(), self.size.echo)) {
            self.end_upload()?;
        }
        let client = &crew.world.client;
        if self.download.is_none() {
            self.download = Some(Download::start(client, SERVICE, HTTP, FILE, &self.to)?);
        }
        if self.upload.is_none() {
            let seed = self.size.seed + self.uploads;
            self.upload = Some(Upload::start(client, service(ECHO), self.size.echo, seed)?);
            self.uploads += 1;
        }
        await_some("both transfers", PATIENCE, BEAT, || {
            let moves = |progress: Option<u64>| progress.is_some_and(|octets| octets > 0);
            let (download, upload) = (&self.download, &self.upload);
            let both = moves(download.as_ref().map(Download::progress))
                && moves(upload.as_ref().map(Upload::progress));
            Ok(both.then_some(()))
        })
    }

    /// How many run.
    pub fn connections(&self) -> usize {
        usize::from(self.download.is_some()) + usize::from(self.upload.is_some())
    }

    /// A transfer that has ended before its time has something to say.
    pub fn check(&mut self) -> Result<()> {
        if self.upload.as_ref().is_some_and(Upload::ended) {
            self.end_upload()?;
        }
        let ended = self.download.as_mut().map(Download::ended).transpose()?;
        if ended == Some(true) { self.end_download() } else { Ok(()) }
    }

    fn end_download(&mut self) -> Result<()> {
        let Some(download) = self.download.take() else { return Ok(()) };
        self.octets += download.finish()?.bytes;
        let digest = digest(&self.to)?;
        std::fs::remove_file(&self.to).doing("remove a download")?;
        if digest == self.right {
            return Ok(());
        }
        Err(Error::Program { command: "curl".into(), why: "the download differs from the file".into() })
    }

    fn end_upload(&mut self) -> Result<()> {
        let Some(upload) = self.upload.take() else { return Ok(()) };
        let uploaded = upload.finish()?;
        self.octets += uploaded.bytes;
        if uploaded.sent == uploaded.received {
            return Ok(());
        }
        Err(Error::Program {
            command: "echo".into(),
            why: "what came back differs from what was sent".into(),
        })
    }

    /// Waits for the end of all.
    pub fn finish(&mut self) -> Result<()> {
        self.end_download()?;
        self.end_upload()
    }
}
