//! Gap against latency: every handoff of the grid against what the formula says of it.

use std::fmt::Write as _;

use super::{Gaps, Latencies, Mode, Point};

const SIZE: f64 = 330.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 60.0;
const BETWEEN: f64 = 90.0;
const BOTTOM: f64 = 130.0;
/// Milliseconds at the ends of every axis.
const RANGE: (f64, f64) = (0.05, 1000.0);
/// One colour a mode; told apart by people who see no red or green as well.
const COLOURS: [&str; 5] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#999999"];

/// One of the pictures.
struct Panel {
    title: &'static str,
    across: &'static str,
    up: &'static str,
    /// What the formula says, and what was measured.
    of: fn(&Point) -> Option<(f64, f64)>,
}

const PANELS: [Panel; 2] = [
    Panel {
        title: "What the client sees of a handoff",
        across: "L(D,A) + L(A,C) − L(D,C), ms",
        up: "gap, ms",
        of: |point| Some((formula(point)?, point.gap_ms)),
    },
    Panel {
        title: "Until a client with Mobile IPv6 sends straight to the acceptor",
        across: "L(D,A) + L(A,C), and what tokens take that are not there, ms",
        up: "from the freeze on, ms",
        of: |point| Some((until_straight(point)?, point.straight_ms?)),
    },
];

fn formula(point: &Point) -> Option<f64> {
    let Latencies { da, ac, dc, .. } = point.latencies;
    (point.mode != Mode::SourcesFiltered).then_some(da + ac - dc)
}

fn until_straight(point: &Point) -> Option<f64> {
    let Latencies { da, ac, ha, hc, .. } = point.latencies;
    match point.mode {
        Mode::TokensAhead => Some(da + ac),
        Mode::HomeTokenOnly => Some(da + 3.0 * ac),
        Mode::NoToken => Some(da + ac + 2.0 * (ha + hc)),
        Mode::Relayed | Mode::SourcesFiltered => None,
    }
}

/// All of it as SVG.
#[allow(clippy::cast_precision_loss)] // A picture.
pub(super) fn draw(gaps: &Gaps) -> String {
    let width = LEFT + PANELS.len() as f64 * (SIZE + BETWEEN);
    let height = TOP + SIZE + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (nth, panel) in PANELS.iter().enumerate() {
        draw_panel(&mut svg, panel, LEFT + nth as f64 * (SIZE + BETWEEN), &gaps.points);
    }
    legend(&mut svg);
    svg + "</svg>\n"
}

/// Where a figure lies on a logarithmic axis, from 0 to 1.
fn share(millis: f64) -> f64 {
    let (low, high) = RANGE;
    (millis.clamp(low, high) / low).ln() / (high / low).ln()
}

fn draw_panel(svg: &mut String, panel: &Panel, left: f64, points: &[Point]) {
    let (x, y) =
        (|millis: f64| left + share(millis) * SIZE, |millis: f64| TOP + (1.0 - share(millis)) * SIZE);
    text(svg, left, TOP - 14.0, "start", panel.title);
    for mark in [0.1, 1.0, 10.0, 100.0, 1000.0] {
        let (x, y, bottom, right) = (x(mark), y(mark), TOP + SIZE, left + SIZE);
        let _ = writeln!(svg, "<path d=\"M{left} {y:.1}H{right}M{x:.1} {TOP}V{bottom}\" stroke=\"#ddd\"/>");
        text(svg, left - 8.0, y + 4.0, "end", &format!("{mark}"));
        text(svg, x, bottom + 18.0, "middle", &format!("{mark}"));
    }
    let (from, to) = ((x(RANGE.0), y(RANGE.0)), (x(RANGE.1), y(RANGE.1)));
    let line = format!("M{:.1} {:.1}L{:.1} {:.1}", from.0, from.1, to.0, to.1);
    let _ = writeln!(svg, "<path d=\"{line}\" stroke=\"black\" stroke-dasharray=\"4 3\" fill=\"none\"/>");
    text(svg, left + SIZE / 2.0, TOP + SIZE + 38.0, "middle", panel.across);
    let (at, middle) = (left - 48.0, TOP + SIZE / 2.0);
    let _ = writeln!(
        svg,
        "<text x=\"{at}\" y=\"{middle}\" text-anchor=\"middle\" transform=\"rotate(-90 {at} {middle})\">{}</text>",
        panel.up
    );
    for point in points {
        if let Some((formula, measured)) = (panel.of)(point) {
            dot(svg, x(formula), y(measured), point.mode, point.world == "simulated");
        }
    }
}

/// Filled in the simulated world, a ring between kernels.
fn dot(svg: &mut String, x: f64, y: f64, mode: Mode, simulated: bool) {
    let colour = Mode::ALL.iter().position(|one| *one == mode).map_or("#000", |nth| COLOURS[nth]);
    let look = if simulated {
        format!("r=\"2\" fill=\"{colour}\"")
    } else {
        format!("r=\"4.5\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.2\"")
    };
    let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" {look}/>");
}

#[allow(clippy::cast_precision_loss)] // A picture.
fn legend(svg: &mut String) {
    let y = TOP + SIZE + 64.0;
    for (nth, mode) in Mode::ALL.into_iter().filter(|mode| *mode != Mode::SourcesFiltered).enumerate() {
        let x = LEFT + nth as f64 * 205.0;
        dot(svg, x, y, mode, true);
        dot(svg, x + 12.0, y, mode, false);
        text(svg, x + 24.0, y + 4.0, "start", mode.name());
    }
    let words = "dots: simulated world, no host time; rings: kernels and node processes over emulated links, median; \
                 dashed: the formula";
    text(svg, LEFT, y + 26.0, "start", words);
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}
