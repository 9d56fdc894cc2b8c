//! Nodes are killed under a client's download and its two-way stream, again and again.

use core::time::Duration;
use std::path::{Path, PathBuf};

use super::Options;
use super::crossing::{copy_logs, keep_logs, make_folder, write_events};
use super::stage::FILE;
use crate::analysis::{ClientView, Flow, Spread};
use crate::capture::{Capture, Captured};
use crate::clients::{Download, Upload, digest, make_file};
use crate::clock::{await_some, pause};
use crate::crash::{Crash, Crew, PATIENCE, service};
use crate::error::Doing;
use crate::nodes::{self, FILES, Offer};
use crate::progress::Progress;
use crate::report::Demo;
use crate::timeline::{self, Story};
use crate::trace::{Event, Handoff};
use crate::world::{NODES, SERVICE};
use crate::{Error, Result};

/// Its name.
pub(super) const NAME: &str = "crash-recovery";
const HTTP: u16 = 80;
const ECHO: u16 = 7;
const OFFERS: &[Offer] =
    &[Offer::protected("file", HTTP, "strict"), Offer::protected("echo", ECHO, "strict")];
/// A transfer that is further on is not killed under: it may end before anything is seen.
const FRESH: f64 = 0.6;
const BEAT: Duration = Duration::from_millis(5);
/// How long after a crash a silence is still laid to it.
const AFTERMATH_NS: u64 = 2_000_000_000;

/// Runs it.
pub(super) fn run(options: &Options, crashes: usize) -> Demo {
    let client =
        format!("{}, and a strict two-way stream through echo", Download::command_line(SERVICE, HTTP, FILE));
    let mut demo = Demo::unfinished(NAME, client);
    (demo.seed, demo.link, demo.crashes) = (options.seed, Some(options.link), Some(crashes));
    let folder = options.out.as_ref().map(|out| out.join(NAME));
    let made = folder.as_deref().map(make_folder).transpose();
    let played = made.and_then(|_| play(options, crashes, folder.as_deref(), &mut demo));
    let mut problems = played.unwrap_or_else(|error| vec![error.to_string()]);
    if !problems.is_empty() {
        problems.push(keep_logs(NAME, folder.as_deref()));
    }
    demo.conclude(&problems);
    demo
}

fn play(options: &Options, crashes: usize, folder: Option<&Path>, demo: &mut Demo) -> Result<Vec<String>> {
    let group = nodes::Options { services: OFFERS, ..options.group };
    let mut crew = Crew::prepare(&options.ferry, options.link, group)?;
    let file = Path::new(FILES).join(FILE);
    let right = make_file(&file, options.file_bytes, options.seed)?;
    nodes::publish(&crew.world, &file, FILE)?;
    let capture = Capture::start(&crew.world, folder, false)?;
    crew.start()?;
    let mut show = Show::new(options, right);
    let mut progress = Progress::new(NAME);
    let mut seen = Vec::new();
    let mut random = fastrand::Rng::with_seed(options.seed);
    let ended = (0..crashes).try_for_each(|nth| {
        progress.show(|| format!("crash {} of {crashes}", nth + 1));
        let port = [HTTP, ECHO][nth % 2];
        seen.push(crash(&mut crew, &mut show, port, random.u64(100..400))?);
        Ok(())
    });
    let ended = ended.and_then(|()| show.finish());
    progress.clear();
    let mut problems: Vec<String> = ended.err().map(|error: Error| error.to_string()).into_iter().collect();
    demo.digest_match = problems.is_empty();
    // Whatever differed from what was sent, by one octet, ended the demo.
    (demo.bytes, demo.handoffs) = (show.octets, 0);
    if demo.digest_match {
        (demo.bytes_lost, demo.bytes_duplicated) = (Some(0), Some(0));
    }
    let events = crew.events()?;
    let captured = capture.finish()?;
    judge(&captured, &seen, &events, demo, &mut problems);
    if let Some(folder) = folder {
        let moves: Vec<_> =
            seen.iter().filter_map(|crash| as_move(crash, &captured.client, &events)).collect();
        let story = Story { noun: "crashes", opened: timeline::opened(&events) };
        timeline::tell(&story, &captured, &moves, &events, &folder.join("timeline.svg"))?;
        write_events(&events, folder)?;
        copy_logs(folder)?;
    }
    Ok(problems)
}

/// Kills whoever owns the connection to a port, sees it go on elsewhere, and starts the dead node again.
fn crash(crew: &mut Crew, show: &mut Show, port: u16, wait_ms: u64) -> Result<Crash> {
    pause(Duration::from_millis(wait_ms));
    show.keep_up(crew)?;
    crew.await_protection(show.connections())?;
    let owner = crew.owner(port)?.ok_or_else(|| Error::Late { what: "an owner".into(), within_s: 0 })?;
    let crash = crew.crash(owner, port)?;
    let survivor = await_some("another owner", PATIENCE, BEAT, || {
        show.check()?;
        crew.owner(port)
    });
    crew.bury(owner)?;
    survivor?;
    crew.start()?;
    Ok(crash)
}

/// The client's transfers, one of each kind at any time.
struct Show<'a> {
    options: &'a Options,
    right: String,
    to: PathBuf,
    download: Option<Download>,
    upload: Option<Upload>,
    uploads: u64,
    octets: u64,
}

impl<'a> Show<'a> {
    fn new(options: &'a Options, right: String) -> Self {
        let to = Path::new(FILES).join("downloaded");
        Self { options, right, to, download: None, upload: None, uploads: 0, octets: 0 }
    }

    /// Waits for the end of what is nearly over, and begins anew.
    fn keep_up(&mut self, crew: &Crew) -> Result<()> {
        #[allow(clippy::cast_precision_loss)] // Octets of a transfer.
        let fresh = |so_far: u64, of: u64| (so_far as f64) < of as f64 * FRESH;
        if self.download.as_ref().is_some_and(|one| !fresh(one.progress(), self.options.file_bytes)) {
            self.end_download()?;
        }
        if self.upload.as_ref().is_some_and(|one| !fresh(one.progress(), self.options.echo_bytes)) {
            self.end_upload()?;
        }
        let client = &crew.world.client;
        if self.download.is_none() {
            self.download = Some(Download::start(client, SERVICE, HTTP, FILE, &self.to)?);
        }
        if self.upload.is_none() {
            let seed = self.options.seed + self.uploads;
            self.upload = Some(Upload::start(client, service(ECHO), self.options.echo_bytes, seed)?);
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

    fn connections(&self) -> usize {
        usize::from(self.download.is_some()) + usize::from(self.upload.is_some())
    }

    /// A transfer that has ended before its time has something to say.
    fn check(&mut self) -> Result<()> {
        if self.upload.as_ref().is_some_and(Upload::ended) {
            self.end_upload()?;
        }
        match &mut self.download {
            Some(download) if download.ended()? => self.end_download(),
            _ => Ok(()),
        }
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

    fn finish(&mut self) -> Result<()> {
        self.end_download()?;
        self.end_upload()
    }
}

fn judge(captured: &Captured, seen: &[Crash], events: &[Event], demo: &mut Demo, problems: &mut Vec<String>) {
    super::crossing::judge_wire(captured, demo, problems);
    let gaps = seen.iter().filter_map(|crash| {
        let flow = under_way(&captured.client, crash)?;
        captured.client.longest_silence(flow, &(crash.at_ns..crash.at_ns + AFTERMATH_NS))
    });
    let gaps: Vec<f64> = gaps.map(millis).collect();
    if gaps.len() < seen.len() {
        problems.push(format!("{} of {} crashes were seen by the client", gaps.len(), seen.len()));
    }
    demo.gap_ms = Spread::of(gaps);
    super::tell_recoveries(seen, events, demo);
}

/// The connection to the crash's port that had data before and after it.
fn under_way(client: &ClientView, crash: &Crash) -> Option<Flow> {
    let on = |flow: &Flow| flow.service_port == crash.port;
    let crosses = |seen: &[crate::analysis::Seen]| {
        let mut data = seen.iter().filter(|seen| seen.payload > 0).map(|seen| seen.at_ns);
        data.next().is_some_and(|first| first < crash.at_ns)
            && data.next_back().is_some_and(|last| last > crash.at_ns)
    };
    client.flows().iter().find(|(flow, seen)| on(flow) && crosses(seen)).map(|(flow, _)| *flow)
}

/// For the picture: from the victim to whoever went on.
fn as_move(crash: &Crash, client: &ClientView, events: &[Event]) -> Option<Handoff> {
    let flow = under_way(client, crash)?;
    let (to, epoch, installed_ns) = crash.recovered(flow.client_port, events)?;
    let from = NODES[crash.victim].to_owned();
    Some(Handoff { flow, epoch, from, to, frozen_ns: crash.at_ns, installed_ns, snapshot_bytes: 0 })
}

#[allow(clippy::cast_precision_loss)] // Nanoseconds of a gap.
fn millis(nanos: u64) -> f64 {
    nanos as f64 * 1e-6
}
