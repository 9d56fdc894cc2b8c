//! A picture of the rows: each figure against its bar.

use std::fmt::Write as _;

use crate::report::{Bar, Row};

const LEFT: f64 = 190.0;
const SCALE: f64 = 280.0;
const HEIGHT: f64 = 26.0;
const TOP: f64 = 60.0;
const WIDTH: f64 = 1000.0;
/// Beyond this a bar of the picture ends in an arrow: the row is good, how good stands in its caption.
const MOST: f64 = 1.8;
/// Told apart by people who see no red or green as well.
const GOOD: &str = "#0072b2";
const MISSED: &str = "#d55e00";

/// The rows as SVG.
pub(super) fn draw(rows: &[Row]) -> String {
    #[allow(clippy::cast_precision_loss)] // Rows of a picture.
    let height = TOP + HEIGHT * rows.len() as f64 + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    text(&mut svg, LEFT, 22.0, "start", "Each row against its bar: a row that reaches the line has met it.");
    let mut y = TOP;
    for row in rows {
        draw_row(&mut svg, row, y);
        y += HEIGHT;
    }
    let x = LEFT + SCALE;
    let _ = writeln!(svg, "<path d=\"M{x} {}V{y}\" stroke=\"black\" stroke-dasharray=\"4 3\"/>", TOP - 8.0);
    text(&mut svg, x, TOP - 14.0, "middle", "bar");
    svg + "</svg>\n"
}

fn draw_row(svg: &mut String, row: &Row, y: f64) {
    let middle = y + HEIGHT * 0.5 + 4.0;
    text(svg, LEFT - 10.0, middle, "end", row.name);
    let share = share(row);
    let width = share.unwrap_or(0.0).min(MOST) * SCALE;
    let colour = if row.ok { GOOD } else { MISSED };
    let _ = writeln!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
        y + 4.0,
        HEIGHT - 8.0
    );
    let over = if share.is_some_and(|share| share > MOST) { "→ " } else { "" };
    text(svg, LEFT + width.max(SCALE) + 12.0, middle, "start", &format!("{over}{}", caption(row)));
}

/// How much of its bar a row has reached: one or more is met.
fn share(row: &Row) -> Option<f64> {
    let figure = row.ratio.or(Some(row.ours)).filter(|figure| figure.is_finite())?;
    match row.bar? {
        Bar::AtLeast(bar) => (figure > 0.0).then_some(figure / bar),
        // None at all is as few as there can be.
        Bar::AtMost(bar) => Some(if figure > 0.0 { bar / figure } else { f64::INFINITY }),
        Bar::Near(bar, distance) => Some(distance / (figure - bar).abs()),
    }
}

fn caption(row: &Row) -> String {
    if let Some(why) = &row.why {
        return format!("could not be measured: {why}");
    }
    let bar = row.bar.map_or(String::new(), |bar| format!(", bar {bar}"));
    let (ours, unit) = (row.ours, row.unit);
    match (row.ratio, row.peer) {
        (Some(ratio), Some(peer)) => format!("{ratio:.2}{bar} ({ours:.1} : {peer:.1} {unit})"),
        _ if ours.abs() < 10.0 => format!("{ours:.3} {unit}{bar}"),
        _ => format!("{ours:.0} {unit}{bar}"),
    }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, words: &str) {
    let words = words.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_reaches_the_line_exactly_if_it_has_met_its_bar() {
        let row = |ours: f64, bar| Row::new("row", "unit", &[ours], Some(("peer", &[100.0])), Some(bar));
        let cases = [
            (90.0, Bar::AtLeast(0.9)),
            (89.0, Bar::AtLeast(0.9)),
            (140.0, Bar::AtMost(1.4)),
            (141.0, Bar::AtMost(1.4)),
            (0.0, Bar::AtMost(0.0)),
            (1.0, Bar::AtMost(0.0)),
            (104.0, Bar::Near(1.0, 0.05)),
            (94.0, Bar::Near(1.0, 0.05)),
            (100.0, Bar::Near(1.0, 0.05)),
        ];
        for (ours, bar) in cases {
            let row = row(ours, bar).expect("figures");
            assert_eq!(share(&row).is_some_and(|share| share >= 1.0), row.ok, "{ours} {bar}");
        }
    }

    #[test]
    fn a_row_that_could_not_be_measured_says_why() {
        let row = Row::failed("row", "unit", Some(Bar::AtLeast(1.0)), "a < b".to_owned());
        let picture = draw(&[row]);
        assert!(picture.contains("could not be measured: a &lt; b") && picture.contains(MISSED), "{picture}");
    }
}
