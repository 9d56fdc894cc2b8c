//! A picture of a demo: what the client received over time, which node served it, where it sent to, and every handoff.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::net::Ipv6Addr;
use std::ops::Range;
use std::path::Path;

use ferry_node::io::{Trace, TraceEvent};

use crate::Result;
use crate::analysis::{ClientView, Flow};
use crate::capture::Captured;
use crate::error::Doing;
use crate::trace::{Event, Handoff, What};
use crate::world::NODES;

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 60.0;
/// From one band to the next.
const BAND: f64 = 18.0;
/// How much time a point of the curve stands for.
const BIN_NS: u64 = 20_000_000;
/// One colour a node; told apart by people who see no red or green as well.
const COLOURS: [&str; 3] = ["#0072b2", "#e69f00", "#009e73"];

/// Where things lie in the picture.
struct Frame {
    time: Range<u64>,
    top_mbit: f64,
}

/// What a picture is about.
#[derive(Clone, Debug)]
pub struct Story {
    /// What happened at the lines.
    pub noun: &'static str,
    /// Where connections began, if not at the first node.
    pub opened: BTreeMap<Flow, String>,
}

/// Draws the picture of a demo with handoffs as SVG.
pub fn write(captured: &Captured, moves: &[Handoff], events: &[Event], path: &Path) -> Result<()> {
    let story = Story { noun: "handoffs", opened: BTreeMap::new() };
    tell(&story, captured, moves, events, path)
}

/// Draws a picture as SVG.
pub fn tell(
    story: &Story,
    captured: &Captured,
    moves: &[Handoff],
    events: &[Event],
    path: &Path,
) -> Result<()> {
    fs::write(path, draw(story, captured, moves, events)).doing(format!("write {}", path.display()))
}

/// Which node accepted which connection.
pub fn opened(events: &[Event]) -> BTreeMap<Flow, String> {
    let accepted = events.iter().filter_map(|event| match &event.what {
        What::Node(Trace { event: TraceEvent::Accepted { client, port }, .. }) => {
            Some((Flow { client_port: client.port(), service_port: *port }, event.node.clone()))
        }
        _ => None,
    });
    accepted.collect()
}

fn draw(story: &Story, captured: &Captured, moves: &[Handoff], events: &[Event]) -> String {
    let Captured { client, straight, .. } = captured;
    let seen = || client.flows().values().flatten().filter(|seen| seen.payload > 0);
    let first = seen().map(|seen| seen.at_ns).min().unwrap_or(0);
    let last = seen().map(|seen| seen.at_ns).max().unwrap_or(1).max(first + 1);
    let curve = curve(client, &(first..last));
    let top_mbit = curve.iter().copied().fold(1.0, f64::max) * 1.1;
    let frame = Frame { time: first..last, top_mbit };
    let what = format!("{} {}", moves.len(), story.noun);
    let mut svg = head(&frame, &what, !straight.bindings.is_empty());
    for (flow, seen) in client.flows() {
        let data = || seen.iter().filter(|seen| seen.payload > 0).map(|seen| seen.at_ns);
        let Some((begin, end)) = data().min().zip(data().max()) else { continue };
        let own = moves.iter().filter(|one| one.flow == *flow).collect::<Vec<_>>();
        let first = story.opened.get(flow).map_or(NODES[0], String::as_str);
        owners(&mut svg, &frame, first, begin..end, &own);
    }
    sent_to(&mut svg, &frame, &straight.bindings);
    area(&mut svg, &frame, &curve);
    for one in moves {
        let x = frame.x(one.frozen_ns);
        let title = format!("{} to {}, epoch {}", one.from, one.to, one.epoch);
        line(&mut svg, x, HEIGHT, &title);
    }
    captions(&mut svg, &frame, events);
    svg + "</svg>\n"
}

#[allow(clippy::cast_precision_loss)] // Points of a picture.
/// What begins where; left out where there is no room, the band below tells it by its gaps.
fn captions(svg: &mut String, frame: &Frame, events: &[Event]) {
    let begins = events.iter().filter_map(|event| match &event.what {
        What::Mark { at_ns, mark } => Some((frame.x(*at_ns), mark.strip_suffix(" begins")?)),
        What::Node(_) => None,
    });
    let begins: Vec<_> = begins.collect();
    let ends = begins.iter().skip(1).map(|(x, _)| *x).chain([LEFT + WIDTH]);
    for ((x, caption), end) in begins.iter().zip(ends) {
        // The short form fits a few handoffs' time; letters are about 6 wide.
        let short = caption.split(" with").next().unwrap_or(caption).trim_end_matches(" through echo");
        let fitting = [*caption, short].into_iter().find(|words| *x + words.len() as f64 * 6.2 < end);
        text(svg, *x, TOP - 8.0, "start", fitting.unwrap_or_default());
    }
}

impl Frame {
    #[allow(clippy::cast_precision_loss)] // Points of a picture.
    fn x(&self, at_ns: u64) -> f64 {
        let Range { start, end } = self.time;
        let at = at_ns.clamp(start, end) - start;
        LEFT + at as f64 / (end - start) as f64 * WIDTH
    }

    fn y(&self, mbit: f64) -> f64 {
        TOP + HEIGHT * (1.0 - mbit / self.top_mbit)
    }
}

/// Mbit/s in each bin.
#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)] // Points of a picture.
fn curve(client: &ClientView, time: &Range<u64>) -> Vec<f64> {
    let mut bins = vec![0.0; ((time.end - time.start) / BIN_NS + 1) as usize];
    for seen in client.flows().values().flatten() {
        if let Some(bin) = bins.get_mut((seen.at_ns.saturating_sub(time.start) / BIN_NS) as usize) {
            *bin += f64::from(seen.payload) * 8e3 / BIN_NS as f64;
        }
    }
    bins
}

#[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)] // A picture.
fn head(frame: &Frame, what: &str, bound: bool) -> String {
    let more = if bound { BAND } else { 0.0 };
    let (width, height) = (LEFT + WIDTH + 30.0, TOP + HEIGHT + 60.0 + more);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let title = format!("What the client received, in Mbit/s, and the node that served it; {what}");
    text(&mut svg, LEFT, 22.0, "start", &title);
    for (index, (node, colour)) in NODES.iter().zip(COLOURS).enumerate() {
        let x = LEFT + WIDTH - 200.0 + 70.0 * index as f64;
        let _ = writeln!(svg, "<rect x=\"{x}\" y=\"12\" width=\"12\" height=\"12\" fill=\"{colour}\"/>");
        text(&mut svg, x + 17.0, 22.0, "start", &format!("node {node}"));
    }
    let step = nice_step(frame.top_mbit);
    for mark in 0..=(frame.top_mbit / step) as u32 {
        let (mbit, y) = (f64::from(mark) * step, frame.y(f64::from(mark) * step));
        let right = LEFT + WIDTH;
        let _ = writeln!(svg, "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/>");
        text(&mut svg, LEFT - 8.0, y + 4.0, "end", &format!("{mbit}"));
    }
    let seconds = (frame.time.end - frame.time.start) as f64 * 1e-9;
    let step = nice_step(seconds);
    for mark in 0..=(seconds / step) as u32 {
        let at = f64::from(mark) * step;
        let x = LEFT + at / seconds * WIDTH;
        text(&mut svg, x, TOP + HEIGHT + 38.0 + more, "middle", &format!("{at} s"));
    }
    if bound {
        text(&mut svg, LEFT - 8.0, TOP + HEIGHT + 17.0, "end", "served by");
        text(&mut svg, LEFT - 8.0, TOP + HEIGHT + 17.0 + BAND, "end", "sends to");
    }
    svg
}

/// A step that gives five to ten marks.
fn nice_step(range: f64) -> f64 {
    let power = 10_f64.powf((range / 5.0).log10().floor());
    let steps = [5.0, 2.0, 1.0].map(|factor| factor * power);
    steps.into_iter().find(|step| range / step >= 5.0).unwrap_or(power)
}

/// A band below the curve, in the colour of the owner.
fn owners(svg: &mut String, frame: &Frame, first: &str, life: Range<u64>, moves: &[&Handoff]) {
    let (mut begin, mut owner) = (life.start, first.to_owned());
    let ends = moves.iter().map(|one| (one.installed_ns, one.to.clone()));
    for (end, next) in ends.chain([(life.end, String::new())]) {
        let colour = NODES.iter().position(|node| *node == owner).map_or("#999", |index| COLOURS[index]);
        let (x, y) = (frame.x(begin), TOP + HEIGHT + 6.0);
        let width = (frame.x(end) - x).max(0.0);
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"14\" fill=\"{colour}\"><title>node {owner}</title></rect>"
        );
        (begin, owner) = (end, next);
    }
}

/// A second band: the node whose care-of address the client sends to; the contact node's while it knows of none.
fn sent_to(svg: &mut String, frame: &Frame, bindings: &[(u64, Option<Ipv6Addr>)]) {
    if bindings.is_empty() {
        return;
    }
    let end = frame.time.end;
    let starts = [(frame.time.start, None)].into_iter().chain(bindings.iter().copied());
    let ends = bindings.iter().map(|(at, _)| *at).chain([end]);
    for ((begin, care_of), until) in starts.zip(ends) {
        let (index, what) = place(care_of);
        let (x, y) = (frame.x(begin), TOP + HEIGHT + 6.0 + BAND);
        let width = (frame.x(until) - x).max(0.0);
        let colour = COLOURS[index];
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.2}\" y=\"{y}\" width=\"{width:.2}\" height=\"14\" fill=\"{colour}\"><title>{what}</title></rect>"
        );
    }
}

/// The node at a care-of address, and how to say so.
fn place(care_of: Option<Ipv6Addr>) -> (usize, String) {
    let index =
        care_of.map_or(0, |at| usize::from(at.segments()[2].saturating_sub(0xa)).min(NODES.len() - 1));
    let what = care_of.map_or("the service address".to_owned(), |at| at.to_string());
    (index, format!("node {}, at {what}", NODES[index]))
}

#[allow(clippy::cast_precision_loss)] // Points of a picture.
fn area(svg: &mut String, frame: &Frame, curve: &[f64]) {
    let bottom = TOP + HEIGHT;
    let _ = write!(
        svg,
        "<path fill=\"#555\" fill-opacity=\"0.35\" stroke=\"#333\" stroke-width=\"0.7\" d=\"M{LEFT} {bottom}"
    );
    for (bin, mbit) in (0_u64..).zip(curve) {
        let x = frame.x(frame.time.start + bin * BIN_NS + BIN_NS / 2);
        let _ = write!(svg, "L{x:.2} {:.2}", frame.y(*mbit));
    }
    let _ = writeln!(svg, "V{bottom}Z\"/>");
}

fn line(svg: &mut String, x: f64, height: f64, title: &str) {
    let _ = writeln!(
        svg,
        "<path d=\"M{x:.2} {TOP}v{height}\" stroke=\"#cc3311\" stroke-width=\"0.8\" stroke-opacity=\"0.6\"><title>{title}</title></path>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"#222\">{words}</text>"
    );
}
