//! A picture of the moments at which connections moved.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use crate::Result;
use crate::error::Doing;
use crate::report::{Count, Moments};

const LEFT: f64 = 230.0;
const WIDTH: f64 = 560.0;
const LINE: f64 = 22.0;
const TOP: f64 = 66.0;
/// Told apart by people who see no red or green as well.
const PLAIN: &str = "#0072b2";
const AWARE: &str = "#e69f00";

/// Draws it as SVG.
pub(super) fn write(moments: &Moments, path: &Path) -> Result<()> {
    fs::write(path, draw(moments)).doing(format!("write {}", path.display()))
}

#[allow(clippy::cast_precision_loss)] // A picture.
fn draw(moments: &Moments) -> String {
    let lines = moments.states.len() + moments.conditions.len();
    let (width, height) = (LEFT + WIDTH + 90.0, TOP + LINE * (lines as f64 + 4.0));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    let all = moments.handoffs.all();
    let title =
        format!("When {all} connections were frozen in order to move ({} ended well)", moments.connections);
    text(&mut svg, 16.0, 22.0, "start", &title);
    for (x, colour, words) in
        [(LEFT, PLAIN, "ordinary clients"), (LEFT + 130.0, AWARE, "clients with Mobile IPv6")]
    {
        let _ = writeln!(svg, "<rect x=\"{x}\" y=\"32\" width=\"12\" height=\"12\" fill=\"{colour}\"/>");
        text(&mut svg, x + 17.0, 42.0, "start", words);
    }
    let counts = moments.states.values().chain(moments.conditions.values());
    let most = counts.map(|count| count.all()).max().unwrap_or(1).max(1) as f64;
    let mut y = TOP;
    let states = moments.in_order();
    let conditions = moments.conditions.iter().map(|(name, count)| (*name, count));
    for (heading, some) in [("in state", states.collect::<Vec<_>>()), ("with", conditions.collect())] {
        text(&mut svg, 16.0, y + 14.0, "start", heading);
        y += LINE;
        for (name, count) in some {
            bar(&mut svg, y, name, *count, most);
            y += LINE;
        }
    }
    svg + "</svg>\n"
}

#[allow(clippy::cast_precision_loss)] // A picture.
fn bar(svg: &mut String, y: f64, name: &str, count: Count, most: f64) {
    text(svg, LEFT - 10.0, y + 14.0, "end", name);
    let mut x = LEFT;
    for (some, colour) in [(count.plain, PLAIN), (count.aware, AWARE)] {
        let width = some as f64 / most * WIDTH;
        let _ = writeln!(
            svg,
            "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
            y + 2.0,
            LINE - 5.0
        );
        x += width;
    }
    text(svg, x + 8.0, y + 14.0, "start", &count.all().to_string());
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}
