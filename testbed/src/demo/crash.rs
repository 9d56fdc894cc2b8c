//! Nodes are killed under a client's download and its two-way stream, again and again.

use core::net::SocketAddrV6;
use core::time::Duration;
use std::path::Path;

use ferry_node::io::Moment;

use super::Options;
use super::evidence::{copy_logs, keep_logs, make_folder, write_events};
use crate::analysis::{ClientView, Flow, Spread};
use crate::capture::{Capture, Captured};
use crate::clients::Download;
use crate::clock::{await_some, pause};
use crate::crash::show::{FILE, Show, Size};
use crate::crash::{Crash, Crew, ECHO, HTTP, PATIENCE, STRICT};
use crate::nodes;
use crate::progress::Progress;
use crate::report::Demo;
use crate::timeline::{self, Story};
use crate::trace::{Event, Handoff};
use crate::world::{CLIENT, NODES, SERVICE};
use crate::{Error, Result};

/// Its name.
pub(super) const NAME: &str = "crash-recovery";
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
    let group = nodes::Options { services: STRICT, ..options.group };
    let mut crew = Crew::prepare(&options.ferry, options.link, group)?;
    let size = Size { file: options.file_bytes, echo: options.echo_bytes, seed: options.seed };
    let mut show = Show::prepare(&crew, size)?;
    let capture = Capture::start(&crew.world, folder, false)?;
    crew.start()?;
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
    await_some("another owner", PATIENCE, BEAT, || {
        show.check()?;
        crew.owner(port)
    })?;
    crew.bury()?;
    crew.start()?;
    Ok(crash)
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
    // Nobody saw it freeze.
    let (client, moment) = (SocketAddrV6::new(CLIENT, flow.client_port, 0, 0), Moment::default());
    let frozen_ns = crash.at_ns;
    Some(Handoff { client, flow, epoch, from, to, frozen_ns, installed_ns, snapshot_bytes: 0, moment })
}

#[allow(clippy::cast_precision_loss)] // Nanoseconds of a gap.
fn millis(nanos: u64) -> f64 {
    nanos as f64 * 1e-6
}
