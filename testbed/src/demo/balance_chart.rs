//! A picture of `load-balancing`: who serves how many connections, and how long clients wait, over time.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use super::load_balancing::Seen;
use crate::Result;
use crate::error::Doing;
use crate::world::NODES;

const LEFT: f64 = 70.0;
const WIDTH: f64 = 900.0;
const TOP: f64 = 60.0;
const LOAD: f64 = 120.0;
const WAIT: f64 = 220.0;
const BETWEEN: f64 = 50.0;
/// One colour a node; told apart by people who see no red or green as well.
const COLOURS: [&str; 3] = ["#0072b2", "#e69f00", "#009e73"];
/// Milliseconds at the ends of the axis.
const RANGE: (f64, f64) = (1.0, 10_000.0);

/// Draws it as SVG.
pub(super) fn write(seen: &Seen, path: &Path) -> Result<()> {
    fs::write(path, draw(seen)).doing(format!("write {}", path.display()))
}

#[allow(clippy::cast_precision_loss)] // A picture.
fn draw(seen: &Seen) -> String {
    let times = seen.loads.iter().map(|(at, _)| *at).chain(seen.waited.iter().map(|one| one.answered_ns));
    let (begin, end) = (times.clone().min().unwrap_or(0), times.max().unwrap_or(1));
    let span = (end - begin).max(1) as f64;
    let x = |at: u64| LEFT + at.saturating_sub(begin) as f64 / span * WIDTH;
    let (width, height) = (LEFT + WIDTH + 30.0, TOP + LOAD + BETWEEN + WAIT + 50.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let title =
        "Connections at each node; below, how long each request waited for its answer, in milliseconds";
    text(&mut svg, LEFT, 22.0, "start", title);
    for (nth, (node, colour)) in NODES.iter().zip(COLOURS).enumerate() {
        let at = LEFT + 70.0 * nth as f64;
        let _ = writeln!(svg, "<rect x=\"{at}\" y=\"32\" width=\"12\" height=\"12\" fill=\"{colour}\"/>");
        text(&mut svg, at + 17.0, 42.0, "start", &format!("node {node}"));
    }
    loads(&mut svg, seen, x);
    waits(&mut svg, seen, x);
    let (at, bottom) = (x(seen.evened_ns), TOP + LOAD + BETWEEN + WAIT);
    let _ =
        writeln!(svg, "<path d=\"M{at:.1} {TOP}V{bottom}\" stroke=\"#cc3311\" stroke-dasharray=\"4 3\"/>");
    text(&mut svg, at + 6.0, TOP + LOAD + 20.0, "start", "ferry rebalance");
    for second in (0..u32::MAX).step_by(2).take_while(|second| f64::from(*second) * 1e9 <= span) {
        let at = LEFT + f64::from(second) * 1e9 / span * WIDTH;
        text(&mut svg, at, bottom + 20.0, "middle", &format!("{second} s"));
    }
    svg + "</svg>\n"
}

/// Stacked bars, one for each look at the nodes.
#[allow(clippy::cast_precision_loss)] // A picture.
fn loads(svg: &mut String, seen: &Seen, x: impl Fn(u64) -> f64) {
    let all = seen.loads.iter().map(|(_, load)| load.iter().sum::<usize>()).max().unwrap_or(1).max(1);
    let mut next = seen.loads.iter().skip(1).map(|(at, _)| *at);
    for (at, load) in &seen.loads {
        let until = next.next().unwrap_or(*at);
        let mut y = TOP + LOAD;
        for (count, colour) in load.iter().zip(COLOURS) {
            let height = *count as f64 / all as f64 * LOAD;
            y -= height;
            let width = (x(until) - x(*at)).max(0.0) + 0.3;
            let _ = writeln!(
                svg,
                "<rect x=\"{:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>",
                x(*at)
            );
        }
    }
    text(svg, LEFT - 8.0, TOP + 10.0, "end", &all.to_string());
    text(svg, LEFT - 8.0, TOP + LOAD, "end", "0");
}

#[allow(clippy::cast_precision_loss)] // A picture.
fn waits(svg: &mut String, seen: &Seen, x: impl Fn(u64) -> f64) {
    let (low, high) = RANGE;
    let top = TOP + LOAD + BETWEEN;
    let y = |millis: f64| top + (1.0 - (millis.clamp(low, high) / low).ln() / (high / low).ln()) * WAIT;
    for mark in [1.0, 10.0, 100.0, 1000.0, 10_000.0] {
        let (at, right) = (y(mark), LEFT + WIDTH);
        let _ = writeln!(svg, "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"#ddd\"/>");
        text(svg, LEFT - 8.0, at + 4.0, "end", &mark.to_string());
    }
    for one in &seen.waited {
        let millis = (one.answered_ns - one.asked_ns) as f64 * 1e-6;
        let (x, y) = (x(one.answered_ns), y(millis));
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"1.3\" fill=\"#333\" fill-opacity=\"0.5\"/>"
        );
    }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}
