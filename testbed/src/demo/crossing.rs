//! A client's downloads and uploads cross between three nodes at random moments: an ordinary client's, which never
//! learns of it, and one's with Mobile IPv6, which talks straight to whoever serves it.

use std::net::Ipv6Addr;
use std::ops::Range;
use std::path::Path;

use super::Options;
use super::evidence::{check_privileges, keep, write_events};
use super::stage::{FILE, Stage};
use crate::analysis::{ClientView, Flow, Spread};
use crate::capture::Captured;
use crate::clients::{Download, Downloaded, Uploaded};
use crate::clock::{nanos, now_ns};
use crate::report::{Demo, median};
use crate::straight::Straight;
use crate::timeline;
use crate::trace::{Handoff, handoffs};
use crate::world::SERVICE;
use crate::{Error, Result};

/// With an ordinary client.
pub const RELAYED: &str = "simple-handoff";
/// How many connections have to move, if nobody says.
pub(super) const HANDOFFS: usize = 40;
/// With a client that understands Mobile IPv6.
pub const OPTIMISED: &str = "route-optimised";
/// How long after a handoff a silence is still laid to it, unless the next handoff comes before.
const AFTERMATH_NS: u64 = 500_000_000;
const SECOND: u64 = 1_000_000_000;

/// What was played.
#[derive(Default)]
struct Played {
    plain: Vec<Downloaded>,
    handed: Vec<Downloaded>,
    uploads: Vec<Uploaded>,
}

/// Runs it.
pub(super) fn run(options: &Options) -> Demo {
    let mut client = Download::command_line(SERVICE, 80, FILE);
    let (name, mode) = if options.aware { (OPTIMISED, OPTIMISED) } else { (RELAYED, "relayed") };
    if options.aware {
        client += ", on a host with ferry correspondent";
    }
    let mut demo = Demo::unfinished(name, client);
    demo.mode = mode;
    demo.interval_ms = nanos(options.interval) / 1_000_000;
    demo.seed = options.seed;
    demo.link = Some(options.link);
    keep(options, demo, |folder, demo| play(options, folder, demo))
}

/// Plays, judges, and gives everything that did not hold.
fn play(options: &Options, folder: Option<&Path>, demo: &mut Demo) -> Result<Vec<String>> {
    let mut stage = Stage::set(demo.name, options, folder)?;
    demo.client += &how(&stage);
    let mut problems = check_privileges(&stage.world, &stage.nodes, demo)?;
    let mut played = Played::default();
    let failed = transfer(&mut stage, options, &mut played).err();
    demo.digest_match = failed.is_none();
    problems.extend(failed.map(|error| error.to_string()));
    problems.extend(stage.driver.refused().iter().map(|why| format!("a handoff failed: {why}")));
    let commanded = stage.driver.moved();
    let over = stage.strike();
    problems.extend(over.problems.iter().cloned());
    let moves = handoffs(&over.events);
    if moves.len() != commanded {
        problems
            .push(format!("the nodes said that {commanded} connections moved, their traces {}", moves.len()));
    }
    if let Some(captured) = &over.captured {
        judge_wire(captured, demo, &mut problems);
        if options.aware {
            judge_way(captured, moves.len(), demo, &mut problems);
        }
        figures(&captured.client, &played, &moves, options, demo);
        if let Some(folder) = folder {
            timeline::write(captured, &moves, &over.events, &folder.join("timeline.svg"))?;
        }
    }
    if let Some(folder) = folder {
        write_events(&over.events, folder)?;
    }
    Ok(problems)
}

fn transfer(stage: &mut Stage, options: &Options, played: &mut Played) -> Result<()> {
    played.plain.push(stage.download(false)?);
    let begun = now_ns();
    while stage.driver.moved() < options.handoffs {
        played.handed.push(stage.download(true)?);
        stalled(stage, options, begun)?;
    }
    let (before, begun) = (stage.driver.moved(), now_ns());
    while stage.driver.moved() == before {
        let seed = options.seed + played.uploads.len() as u64;
        played.uploads.push(stage.upload(options.echo_bytes, seed)?);
        stalled(stage, options, begun)?;
    }
    played.plain.push(stage.download(false)?);
    Ok(())
}

/// Transfers go on until enough connections moved; this sees that they do move.
fn stalled(stage: &Stage, options: &Options, begun_ns: u64) -> Result<()> {
    let patience = 20 * nanos(options.interval) + 60 * SECOND;
    if stage.driver.moved() == 0 && now_ns() > begun_ns + patience {
        return Err(Error::Late { what: "the first handoff".to_owned(), within_s: patience / SECOND });
    }
    Ok(())
}

pub(super) fn judge_wire(captured: &Captured, demo: &mut Demo, problems: &mut Vec<String>) {
    let client = &captured.client;
    demo.resets = client.resets().len();
    demo.peers = client.peers().iter().map(Ipv6Addr::to_string).collect();
    demo.capture_drops = captured.dropped;
    if let Some(first) = client.resets().first() {
        problems.push(format!("{} RST in the client's capture, the first: {first:?}", demo.resets));
    }
    if demo.peers != [SERVICE.to_string()] {
        problems.push(format!("the client saw the peers {:?} instead of {SERVICE} alone", demo.peers));
    }
    if demo.capture_drops > 0 {
        problems.push(format!("the capture missed {} frames, so that it proves nothing", demo.capture_drops));
    }
}

/// How the client's host puts bindings into effect.
fn how(stage: &Stage) -> String {
    stage.correspondent.as_ref().map_or(String::new(), |daemon| format!(" (mode {})", daemon.mode))
}

/// Whether whatever could go straight went straight, by the router's capture.
fn judge_way(captured: &Captured, moves: usize, demo: &mut Demo, problems: &mut Vec<String>) {
    let Straight { bindings, to_node, from_node, unbound_from_node, fallen_back, via_contact, .. } =
        &captured.straight;
    demo.packets_via_contact_after_binding = Some(*via_contact);
    demo.packets_straight_to_node = Some(*to_node);
    demo.packets_straight_from_node = Some(*from_node);
    demo.bindings = Some(bindings.iter().filter(|(_, care_of)| care_of.is_some()).count());
    if *via_contact > 0 {
        let examples = &captured.straight.contact_examples;
        problems.push(format!(
            "{via_contact} packets of a bound client passed the contact node, the first: {examples:?}"
        ));
    }
    if *unbound_from_node > 0 {
        problems
            .push(format!("{unbound_from_node} packets with a Home Address option came without a binding"));
    }
    demo.packets_fallen_back = Some(*fallen_back);
    // Of three handoffs one goes to the contact node, which needs no binding; the next may come before one is made.
    let straight = demo.bindings.is_some_and(|bindings| bindings > moves / 4);
    if !straight || *to_node == 0 || *from_node == 0 {
        problems.push(format!(
            "little went straight: {} bindings for {moves} handoffs, {to_node} packets there, {from_node} back",
            demo.bindings.unwrap_or(0)
        ));
    }
}

fn figures(client: &ClientView, played: &Played, moves: &[Handoff], options: &Options, demo: &mut Demo) {
    let Played { plain, handed, uploads } = played;
    let downloaded: u64 = handed.iter().map(|one| one.bytes).sum();
    demo.bytes = downloaded + uploads.iter().map(|one| one.bytes).sum::<u64>();
    demo.handoffs = moves.len();
    demo.goodput_mbit = median(&handed.iter().map(Downloaded::mbit).collect::<Vec<_>>());
    demo.baseline_mbit = median(&plain.iter().map(Downloaded::mbit).collect::<Vec<_>>());
    demo.upload_mbit = median(&uploads.iter().map(Uploaded::mbit).collect::<Vec<_>>());
    let silences = windows(moves).filter_map(|(flow, window)| silence_ms(client, flow, &window));
    demo.gap_ms = Spread::of(silences.collect());
    demo.baseline_gap_ms = Spread::of(quiet_ms(client, plain, moves.len(), options));
    demo.move_ms = Spread::of(moves.iter().map(|one| millis(one.installed_ns - one.frozen_ns)).collect());
    demo.snapshot_kib = Spread::of(moves.iter().map(|one| kib(one.snapshot_bytes)).collect());
}

/// The silences around random moments of the downloads without handoffs.
fn quiet_ms(client: &ClientView, plain: &[Downloaded], moments: usize, options: &Options) -> Vec<f64> {
    let mut random = fastrand::Rng::with_seed(options.seed);
    let length = AFTERMATH_NS.min(nanos(options.interval));
    let silence = |_| {
        let one = random.choice(plain)?;
        let start = random.u64(one.started_ns..one.ended_ns);
        let flow = Flow { client_port: one.local_port, service_port: 80 };
        silence_ms(client, flow, &(start..start + length))
    };
    (0..moments).filter_map(silence).collect()
}

/// The time that each handoff answers for: until the connection's next one.
fn windows(moves: &[Handoff]) -> impl Iterator<Item = (Flow, Range<u64>)> {
    moves.iter().enumerate().map(|(index, one)| {
        let next = moves[index + 1..].iter().find(|next| next.flow == one.flow);
        let until = next.map_or(u64::MAX, |next| next.frozen_ns);
        (one.flow, one.frozen_ns..until.min(one.frozen_ns + AFTERMATH_NS))
    })
}

fn silence_ms(client: &ClientView, flow: Flow, window: &Range<u64>) -> Option<f64> {
    client.longest_silence(flow, window).map(millis)
}

#[allow(clippy::cast_precision_loss)] // Nanoseconds of a handoff.
fn millis(nanos: u64) -> f64 {
    nanos as f64 * 1e-6
}

#[allow(clippy::cast_precision_loss)] // Octets of a snapshot.
fn kib(octets: usize) -> f64 {
    octets as f64 / 1024.0
}
