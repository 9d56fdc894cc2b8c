//! A world with running nodes, a capture, and a file to download: what demos and benchmarks play on.

use core::time::Duration;
use std::fs;
use std::net::SocketAddrV6;
use std::path::{Path, PathBuf};

use super::Options;
use crate::capture::{Capture, Captured};
use crate::clients::{Download, Downloaded, Upload, Uploaded, digest, first_difference, make_file};
use crate::clock::pause;
use crate::correspondent::Daemon;
use crate::drive::Driver;
use crate::error::Doing;
use crate::nodes::{self, FILES, Node};
use crate::progress::Progress;
use crate::trace::Event;
use crate::world::{NODES, SERVICE, World};
use crate::{Error, Result};

/// The file's name below every node's `www`.
pub(super) const FILE: &str = "file.bin";
const HTTP: u16 = 80;
const ECHO: u16 = 7;
/// How often the players look whether something is due.
const BEAT: Duration = Duration::from_millis(2);
const LEAVE: Duration = Duration::from_secs(10);

/// A world with running nodes.
#[derive(Debug)]
pub struct Stage {
    /// The hosts and what connects them.
    pub world: World,
    /// One on each host.
    pub nodes: Vec<Node>,
    /// Hands connections over, where a transfer asks for it.
    pub driver: Driver,
    /// Says how far we are.
    pub progress: Progress,
    /// Our own remarks for the trace.
    pub marks: Vec<Event>,
    /// The client's half of Mobile IPv6.
    pub correspondent: Option<Daemon>,
    capture: Capture,
    digest: String,
    file: PathBuf,
    file_bytes: u64,
}

/// What is left when the play is over.
#[derive(Debug)]
pub struct Over {
    /// The capture, complete.
    pub captured: Option<Captured>,
    /// The nodes' traces and our marks in the order of time.
    pub events: Vec<Event>,
    /// Nodes that did not leave as they must, or sent a RST.
    pub problems: Vec<String>,
}

impl Stage {
    /// Builds the world and starts the nodes. With a folder, captures of all hosts go there.
    pub fn set(name: &'static str, options: &Options, folder: Option<&Path>) -> Result<Self> {
        let mut progress = Progress::new(name);
        progress.step("making the world");
        let world = World::build(options.link)?;
        nodes::prepare(&world, &options.ferry, options.group)?;
        let file = Path::new(FILES).join(FILE);
        progress.step("making the file");
        let digest = make_file(&file, options.file_bytes, options.seed)?;
        nodes::publish(&world, &file, FILE)?;
        let capture = Capture::start(&world, folder, options.aware)?;
        progress.step("starting the nodes");
        let nodes = world.hosts.iter().map(Node::start).collect::<Result<Vec<_>>>()?;
        let driver = Driver::new(options.interval, options.seed);
        let mut stage = Self {
            world,
            nodes,
            driver,
            progress,
            marks: Vec::new(),
            correspondent: None,
            capture,
            digest,
            file,
            file_bytes: options.file_bytes,
        };
        nodes::await_links(&mut stage.nodes, NODES.len() - 1)?;
        if options.aware {
            stage.correspondent = Some(Daemon::start(&stage.world)?);
        }
        Ok(stage)
    }

    /// Downloads the file with `curl`, and fails if it did not arrive as it is.
    pub fn download(&mut self, with_handoffs: bool) -> Result<Downloaded> {
        let to = Path::new(FILES).join("downloaded");
        let what = if with_handoffs { "download with handoffs" } else { "download without handoffs" };
        self.marks.push(Event::mark(format!("{what} begins")));
        self.progress.step(what);
        self.driver.restart();
        let mut download = Download::start(&self.world.client, SERVICE, HTTP, FILE, &to)?;
        while !download.ended()? {
            let so_far = download.progress();
            self.beat(what, with_handoffs, so_far, self.file_bytes)?;
        }
        let downloaded = download.finish()?;
        self.marks.push(Event::mark(format!("{what} ends")));
        self.check_file(&to)?;
        Ok(downloaded)
    }

    /// Downloads the file from another node than the contact node, to which the connection goes as soon as there is one.
    pub fn download_from(&mut self, node: &str) -> Result<Downloaded> {
        let (what, to) = ("download from another node", Path::new(FILES).join("downloaded"));
        self.marks.push(Event::mark(format!("{what} begins")));
        self.progress.step(what);
        let mut download = Download::start(&self.world.client, SERVICE, HTTP, FILE, &to)?;
        let mut moved = 0;
        while !download.ended()? {
            if moved == 0 {
                moved = self.nodes[0].control.handoff_all(node)?.moved;
            }
            let so_far = download.progress();
            self.beat(what, false, so_far, self.file_bytes)?;
        }
        let downloaded = download.finish()?;
        self.marks.push(Event::mark(format!("{what} ends")));
        self.check_file(&to)?;
        match moved {
            1 => Ok(downloaded),
            _ => Err(Error::Node { node: node.to_owned(), why: format!("took {moved} connections of one") }),
        }
    }

    /// Sends a stream through `echo` with handoffs, and fails if it does not come back as it is.
    pub fn upload(&mut self, bytes: u64, seed: u64) -> Result<Uploaded> {
        let what = "upload through echo with handoffs";
        self.marks.push(Event::mark(format!("{what} begins")));
        self.progress.step(what);
        self.driver.restart();
        let upload = Upload::start(&self.world.client, SocketAddrV6::new(SERVICE, ECHO, 0, 0), bytes, seed)?;
        while !upload.ended() {
            self.beat(what, true, upload.progress(), bytes)?;
        }
        let uploaded = upload.finish()?;
        self.marks.push(Event::mark(format!("{what} ends")));
        Ok(uploaded)
    }

    fn beat(&mut self, what: &str, with_handoffs: bool, so_far: u64, of: u64) -> Result<()> {
        if with_handoffs {
            self.driver.beat(&mut self.nodes)?;
        }
        for node in &mut self.nodes {
            node.check_alive()?;
        }
        let Self { driver, nodes, progress, .. } = self;
        progress.show(|| {
            let (moved, owner) = (driver.moved(), driver.owner(nodes));
            format!("{what}: {} of {} MiB at node {owner}, {moved} handoffs", so_far >> 20, of >> 20)
        });
        pause(BEAT);
        Ok(())
    }

    fn check_file(&self, downloaded: &Path) -> Result<()> {
        if digest(downloaded)? == self.digest {
            return fs::remove_file(downloaded).doing("remove a download");
        }
        let at = first_difference(downloaded, &self.file)?;
        let why = format!("the download differs from the file, first at octet {at:?}");
        Err(Error::Program { command: "curl".to_owned(), why })
    }

    /// Ends the nodes and the capture. What goes wrong with that is told among the problems: the rest is evidence.
    pub fn strike(mut self) -> Over {
        self.progress.step("stopping the nodes");
        let mut over = Over { captured: None, events: self.marks, problems: Vec::new() };
        for node in &mut self.nodes {
            match node.control.status() {
                Ok(status) if status.counters.resets_sent == 0 => {}
                Ok(status) => {
                    over.problems
                        .push(format!("node {} sent {} RST", node.name, status.counters.resets_sent));
                }
                Err(error) => over.problems.push(error.to_string()),
            }
        }
        for node in &mut self.nodes {
            match node.stop(LEAVE) {
                Ok(status) if status.success() => {}
                Ok(status) => over.problems.push(format!("node {} left with {status}", node.name)),
                Err(error) => over.problems.push(error.to_string()),
            }
        }
        if let Some(Err(error)) = self.correspondent.take().map(Daemon::stop) {
            over.problems.push(error.to_string());
        }
        match self.capture.finish() {
            Ok(captured) => over.captured = Some(captured),
            Err(error) => over.problems.push(error.to_string()),
        }
        for node in &self.nodes {
            match node.trace() {
                Ok(events) => over.events.extend(events),
                Err(error) => over.problems.push(error.to_string()),
            }
        }
        over.events.sort_by_key(Event::at_ns);
        self.progress.clear();
        over
    }
}
