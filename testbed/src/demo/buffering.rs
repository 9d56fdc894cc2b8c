//! A paced medium is played while its nodes are killed: how much a player must buffer so that nobody notices.

use core::sync::atomic::{AtomicBool, Ordering};
use core::time::Duration;
use std::path::Path;

use super::Options;
use super::evidence::{copy_logs, keep_logs, make_folder, write_events};
use crate::analysis::Spread;
use crate::clock::{await_some, pause};
use crate::crash::crowd::Crowd;
use crate::crash::player::{Played, Players, RATE, least_buffer};
use crate::crash::{Crash, Crew, PATIENCE, service};
use crate::nodes::{self, Offer};
use crate::progress::Progress;
use crate::report::Demo;
use crate::{Error, Result};

/// Its name.
pub(super) const NAME: &str = "client-buffering";
const PORT: u16 = 1554;
const OFFERS: &[Offer] = &[Offer::protected("stream", PORT, "regenerate")];
/// What the players buffer, in milliseconds.
const BUFFERS: [u64; 10] = [20, 40, 60, 80, 100, 150, 200, 300, 500, 1000];
/// Of the stream whose gaps are measured: a word every 10 ms.
const DENSE_RATE: u64 = 800;
const DENSE_PERIOD: Duration = Duration::from_millis(10);
const BEAT: Duration = Duration::from_millis(5);

/// Runs it.
pub(super) fn run(options: &Options, crashes: usize) -> Demo {
    let client = format!("players of a medium of {RATE} octets a second, each with a buffer of its own");
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
    let mut crew = Crew::gather(&options.ferry, options.link, group)?;
    let mut crowd = Crowd::gather(&crew.world.client, service(PORT), 1, |_| DENSE_RATE)?;
    let players = Players::start(&crew.world.client, service(PORT), &BUFFERS.map(Duration::from_millis))?;
    let stop = AtomicBool::new(false);
    let (seen, watched) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut watched = Ok(());
            while watched.is_ok() && !stop.load(Ordering::Acquire) {
                watched = crowd.read(Duration::from_millis(100), true, |_| false);
            }
            watched
        });
        let seen = crash_all(&mut crew, &players, crashes, options.seed);
        // What follows the last crash belongs to it.
        pause(Duration::from_secs(1));
        stop.store(true, Ordering::Release);
        let watched = match watch.join() {
            Ok(watched) => watched,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        (seen, watched)
    });
    let played = players.finish()?;
    watched?;
    let seen = seen?;
    let events = crew.events()?;
    let gaps = seen.iter().flat_map(|crash| crowd.gaps_ms(crash.at_ns, DENSE_PERIOD));
    demo.gap_ms = Spread::of(gaps.collect());
    super::tell_recoveries(&seen, &events, demo);
    if let Some(folder) = folder {
        write_events(&events, folder)?;
        copy_logs(folder)?;
    }
    Ok(judge(&played, crowd.wrong(), demo))
}

fn crash_all(crew: &mut Crew, players: &Players, crashes: usize, seed: u64) -> Result<Vec<Crash>> {
    let (mut random, mut progress) = (fastrand::Rng::with_seed(seed), Progress::new(NAME));
    let mut seen = Vec::new();
    for nth in 0..crashes {
        progress.show(|| format!("crash {} of {crashes}", nth + 1));
        crew.await_protection(BUFFERS.len() + 1)?;
        pause(Duration::from_millis(random.u64(1000..1500)));
        let owner = crew.owner(PORT)?.ok_or_else(|| Error::Late { what: "an owner".into(), within_s: 0 })?;
        seen.push(crew.crash(owner, PORT)?);
        await_some("another owner", PATIENCE, BEAT, || crew.owner(PORT))?;
        crew.bury()?;
        crew.start()?;
        if players.failed() {
            break;
        }
    }
    progress.clear();
    Ok(seen)
}

fn judge(played: &[Played], wrong: (u64, u64), demo: &mut Demo) -> Vec<String> {
    let sum = |of: fn(&Played) -> u64| played.iter().map(of).sum::<u64>();
    demo.bytes = sum(|one| one.words.received());
    let (lost, duplicated) = (sum(|one| one.words.lost) + wrong.0, sum(|one| one.words.duplicated) + wrong.1);
    (demo.bytes_lost, demo.bytes_duplicated) = (Some(lost), Some(duplicated));
    demo.digest_match = lost == 0 && duplicated == 0;
    demo.underruns = played
        .iter()
        .map(|one| (u64::try_from(one.buffer.as_millis()).unwrap_or(u64::MAX), one.underruns))
        .collect();
    let least = least_buffer(played);
    demo.least_buffer_ms = least.map(|least| least.as_secs_f64() * 1e3);
    let mut problems = Vec::new();
    if !demo.digest_match {
        problems.push(format!("{lost} octets are missing, {duplicated} came twice"));
    }
    if least.is_none() {
        problems.push("no player had enough in its buffer".to_owned());
    }
    problems
}
