//! The client-visible gap of a handoff against the latencies between client, donor, acceptor and the home link, and what
//! of it the formula of the design explains.
//!
//! The client sends a small request at a steady pace, without waiting for answers, and each is answered at once. *Gap* is
//! the time between the last new octets that the donor has sent and the first of the acceptor's, as they come to the
//! client, less the pace: what the client's application sees of the handoff, and would not see without.

mod chart;
mod kernels;
mod simulated;

use std::fmt::Write as _;
use std::fs;

use super::{Means, Measured, broken};
use crate::Result;
use crate::error::Doing;
use crate::progress::Progress;
use crate::regression::{Fit, Sample, Term, fit};
use crate::report::{Bar, Row};

/// How the client is reached, and what the acceptor has at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    /// An ordinary client; what it sends goes by the home link.
    Relayed,
    /// A client with Mobile IPv6; the acceptor has gone through its care-of test before the freeze.
    TokensAhead,
    /// The same; only the home token comes along.
    HomeTokenOnly,
    /// The same; the donor knows nothing of the client, because it was at home.
    NoToken,
    /// An ordinary client, in a network where only the contact node may send from the service address.
    SourcesFiltered,
}

impl Mode {
    pub(super) const ALL: [Self; 5] =
        [Self::Relayed, Self::TokensAhead, Self::HomeTokenOnly, Self::NoToken, Self::SourcesFiltered];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Relayed => "relayed",
            Self::TokensAhead => "optimised, tokens ahead",
            Self::HomeTokenOnly => "optimised, home token only",
            Self::NoToken => "optimised, no token",
            Self::SourcesFiltered => "relayed, sources filtered",
        }
    }

    /// Whether the client understands Mobile IPv6.
    pub(super) const fn is_aware(self) -> bool {
        matches!(self, Self::TokensAhead | Self::HomeTokenOnly | Self::NoToken)
    }
}

/// Latencies of a handoff, one way, in milliseconds: D donor, A acceptor, C client, H home link.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Latencies {
    pub(super) da: f64,
    pub(super) ac: f64,
    pub(super) dc: f64,
    pub(super) ha: f64,
    pub(super) hc: f64,
    pub(super) hd: f64,
}

impl Latencies {
    /// The way of the acceptor's answers.
    pub(super) fn last_way(&self, mode: Mode) -> f64 {
        if mode == Mode::SourcesFiltered { self.ha + self.hc } else { self.ac }
    }
}

/// One handoff.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    pub(super) world: &'static str,
    pub(super) mode: Mode,
    pub(super) latencies: Latencies,
    /// Between two requests.
    pub(super) pace_ms: f64,
    pub(super) gap_ms: f64,
    /// How far off the host's own times were where there was no handoff; nothing in virtual time.
    pub(super) noise_ms: f64,
    /// From the freeze until the client first sent straight to the acceptor.
    pub(super) straight_ms: Option<f64>,
}

impl Point {
    fn sample(&self, values: &[f64], figure: f64) -> Sample {
        Sample { values: values.to_vec(), figure, noise: self.noise_ms }
    }
}

/// The distances of four hosts from a router between them all, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Legs {
    pub(super) home: f64,
    pub(super) donor: f64,
    pub(super) acceptor: f64,
    pub(super) client: f64,
}

impl Legs {
    /// Those that make these latencies. Around one router no way can be longer than a detour: `None` if it would be.
    fn between([da, ac, dc]: [f64; 3], home: f64) -> Option<Self> {
        let legs = Self {
            home,
            donor: (da + dc - ac) / 2.0,
            acceptor: (da + ac - dc) / 2.0,
            client: (dc + ac - da) / 2.0,
        };
        [legs.donor, legs.acceptor, legs.client].into_iter().all(|leg| leg > -1e-9).then_some(legs)
    }

    pub(super) fn latencies(&self) -> Latencies {
        let Self { home, donor, acceptor, client } = *self;
        Latencies {
            da: donor + acceptor,
            ac: acceptor + client,
            dc: donor + client,
            ha: home + acceptor,
            hc: home + client,
            hd: home + donor,
        }
    }

    /// The way back.
    pub(super) fn turned(&self) -> Self {
        Self { donor: self.acceptor, acceptor: self.donor, ..*self }
    }

    /// Milliseconds of a request and its answer, by way of the home link.
    pub(super) fn round_trip(&self) -> f64 {
        let Latencies { ac, dc, hc, ha, hd, .. } = self.latencies();
        hc + ha.max(hd) + ac.max(dc)
    }

    /// Milliseconds between two requests. Few are under way at a time; but the first that the donor receives after the
    /// freeze must have left before its sender could know better.
    fn pace(&self, least: f64) -> f64 {
        let Latencies { da, ac, dc, ha, hd, .. } = self.latencies();
        let sooner = da.midpoint((ha + hd).min(ac + dc));
        (self.round_trip() / 8.0).min(sooner).max(least)
    }
}

/// How often each handoff between kernels is repeated at most.
const MOST_RUNS: usize = 5;

/// Every choice of L(D,A), L(A,C) and L(D,C) among some levels that can be had around one router, each with one of some
/// distances of the home link from it.
pub(super) fn grid(levels: &[f64], homes: &[f64]) -> Vec<Legs> {
    let mut all = Vec::new();
    for &da in levels {
        for &ac in levels {
            for &dc in levels {
                // Neighbours in the grid get different ones.
                all.extend(Legs::between([da, ac, dc], homes[(all.len() * 7 + all.len() / 4) % homes.len()]));
            }
        }
    }
    all
}

/// What was measured, and what came of it.
#[derive(Clone, Debug)]
#[expect(clippy::struct_field_names, reason = "gaps are one of its parts")]
pub(super) struct Gaps {
    pub(super) points: Vec<Point>,
    /// Of the gap: with the four coefficients that have bars.
    pub(super) gaps: Vec<Fit>,
    /// Of the same where the formula is another one, and of the time until the client sends straight.
    pub(super) others: Vec<Fit>,
}

/// One for each term that has a bar.
pub(super) const ROWS: [&str; 4] = ["gap-LDA", "gap-LAC", "gap-LDC", "gap-LHA"];

/// Measures both worlds; puts every handoff into a table, and a picture beside it.
pub(super) fn rows(means: Means<'_>) -> Result<Measured> {
    let mut points = simulated(means.scale.quick, 1)?;
    points.extend(kernels::measure(means.ferry, means.scale.runs.min(MOST_RUNS), means.scale.quick)?);
    let gaps = Gaps::of(points);
    if let Some(folder) = &means.options.out {
        fs::create_dir_all(folder).doing(format!("make {}", folder.display()))?;
        let files = [
            ("handoff-gap.csv", csv(&gaps.points)),
            ("handoff-gap.md", table(&gaps)),
            ("handoff-gap.svg", chart::draw(&gaps)),
        ];
        for (name, text) in files {
            let path = folder.join(name);
            fs::write(&path, text).doing(format!("write {}", path.display()))?;
        }
    }
    let rows = (0..).zip(ROWS).map(|(term, name)| row(name, term, &gaps.gaps, means.scale.quick));
    Ok((rows.collect::<Result<_>>()?, [gaps.gaps, gaps.others].concat()))
}

/// What a coefficient is, over what the formula says, in every fit: the bar is met only if it is by each.
fn row(name: &'static str, term: usize, fits: &[Fit], quick: bool) -> Result<Row> {
    // The constant comes last, and has no formula.
    let terms: Vec<_> = fits.iter().filter_map(|fit| Some((fit, fit.terms.get(term)?))).collect();
    let figure = |term: &Term| match term.formula {
        Some(0.0) => Some(term.fitted),
        Some(formula) => Some(term.fitted / formula),
        None => None,
    };
    let figures: Vec<f64> = terms.iter().filter_map(|(_, term)| figure(term)).collect();
    let none = terms.iter().all(|(_, term)| term.formula.is_none_or(|formula| formula == 0.0));
    let bar = if none { Bar::Near(0.0, 0.02) } else { Bar::Near(1.0, 0.05) };
    let bar = Some(bar).filter(|_| !quick);
    let row = Row::new(name, if none { "" } else { "of the formula's" }, &figures, None, bar);
    let mut row = row.ok_or_else(|| broken("there are no gaps"))?;
    row.ok &= bar.is_none_or(|bar| row.spread.iter().all(|extreme| bar.holds(*extreme)));
    let least_sure = terms.iter().map(|(_, term)| term.uncertain).fold(0.0, f64::max);
    row.peer_is =
        Some(format!("each of {} regressions; each at most ± {least_sure:.4} (95 %)", figures.len()));
    Ok(row)
}

/// The grid in the simulated world.
fn simulated(quick: bool, seed: u64) -> Result<Vec<Point>> {
    let mut points = Vec::new();
    let mut progress = Progress::new("bench handoff");
    for mode in Mode::ALL {
        points.extend(simulated::measure(mode, quick, seed, &mut progress)?);
    }
    progress.clear();
    Ok(points)
}

/// The regressions as a table in Markdown.
fn table(gaps: &Gaps) -> String {
    let mut text = String::from(
        "| | handoffs | term: formula, fitted ± 95 % | σ, ms | residual, greatest, ms |\n|---|---|---|---|---|\n",
    );
    for Fit { name, terms, points, residual, greatest, .. } in gaps.gaps.iter().chain(&gaps.others) {
        let Some((constant, terms)) = terms.split_last() else { continue };
        let terms: Vec<_> = terms.iter().map(cell).collect();
        let (terms, constant) =
            (terms.join("; "), format!("{:.3} ± {:.3}", constant.fitted, constant.uncertain));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {name} | {points} | {terms} | {constant} | {residual:.3}, {greatest:.3} |");
    }
    text
}

fn cell(term: &Term) -> String {
    let Term { name, formula, fitted, uncertain } = term;
    // No minus in front of what rounds to nothing.
    let fitted = if fitted.abs() < 5e-5 { 0.0 } else { *fitted };
    let formula = formula.map_or(String::new(), |weight| format!(" {weight},"));
    format!("{name}:{formula} {fitted:.4} ± {uncertain:.4}")
}

fn csv(points: &[Point]) -> String {
    let mut text =
        String::from("world,mode,l_da,l_ac,l_dc,l_ha,l_hc,l_hd,pace_ms,gap_ms,noise_ms,straight_ms\n");
    for Point { world, mode, latencies, pace_ms, gap_ms, noise_ms, straight_ms } in points {
        let Latencies { da, ac, dc, ha, hc, hd } = latencies;
        let (name, straight) = (mode.name(), straight_ms.map_or(String::new(), |ms| format!("{ms:.4}")));
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "{world},\"{name}\",{da:.3},{ac:.3},{dc:.3},{ha:.3},{hc:.3},{hd:.3},{pace_ms:.3},{gap_ms:.4},{noise_ms:.4},{straight}"
        );
    }
    text
}

impl Gaps {
    fn of(points: Vec<Point>) -> Self {
        let mut gaps = Vec::new();
        let mut others = Vec::new();
        let mut worlds: Vec<_> = points.iter().map(|point| point.world).collect();
        worlds.dedup();
        for world in worlds {
            for mode in Mode::ALL {
                let some: Vec<_> =
                    points.iter().filter(|point| (point.world, point.mode) == (world, mode)).collect();
                let name = format!("{world}, {}", mode.name());
                if mode == Mode::SourcesFiltered {
                    others.extend(filtered(name, &some));
                } else {
                    gaps.extend(gap(name.clone(), mode, &some));
                    others.extend(straight(&name, mode, &some));
                }
            }
        }
        Self { points, gaps, others }
    }
}

/// `gap = L(D,A) + L(A,C) − L(D,C) + σ`, and nothing of the way by the home link.
fn gap(name: String, mode: Mode, points: &[&Point]) -> Option<Fit> {
    let terms = [("L(D,A)", Some(1.0)), ("L(A,C)", Some(1.0)), ("L(D,C)", Some(-1.0)), ("L(H,A)", Some(0.0))];
    // Where the donor was at home, the two cannot be told apart.
    let terms = if mode == Mode::NoToken { &terms[..3] } else { &terms[..] };
    let of = |point: &&Point| {
        let Latencies { da, ac, dc, ha, .. } = point.latencies;
        point.sample(&[da, ac, dc, ha][..terms.len()], point.gap_ms)
    };
    fit(name, terms, &points.iter().map(of).collect::<Vec<_>>())
}

/// Both nodes send through a tunnel to the home link: `gap = L(D,A) + L(H,A) − L(H,D) + σ`.
fn filtered(name: String, points: &[&Point]) -> Option<Fit> {
    let terms = [("L(D,A)", Some(1.0)), ("L(H,A)", Some(1.0)), ("L(H,D)", Some(-1.0)), ("L(H,C)", Some(0.0))];
    let of = |point: &&Point| {
        let Latencies { da, ha, hd, hc, .. } = point.latencies;
        point.sample(&[da, ha, hd, hc], point.gap_ms)
    };
    fit(name, &terms, &points.iter().map(of).collect::<Vec<_>>())
}

/// From the freeze until the client sends straight: `L(D,A) + L(A,C)` with tokens ahead, `+ 2·L(A,C)` with the home
/// token only, and the round trip by the home link instead of that, which is the longer one, with none.
fn straight(name: &str, mode: Mode, points: &[&Point]) -> Option<Fit> {
    let terms: &[_] = match mode {
        Mode::TokensAhead => &[("L(D,A)", Some(1.0)), ("L(A,C)", Some(1.0)), ("L(H,A) + L(H,C)", Some(0.0))],
        Mode::HomeTokenOnly => {
            &[("L(D,A)", Some(1.0)), ("L(A,C)", Some(3.0)), ("L(H,A) + L(H,C)", Some(0.0))]
        }
        Mode::NoToken => &[("L(D,A)", Some(1.0)), ("L(A,C)", Some(1.0)), ("L(H,A) + L(H,C)", Some(2.0))],
        Mode::Relayed | Mode::SourcesFiltered => return None,
    };
    let of = |point: &&Point| {
        let Latencies { da, ac, ha, hc, .. } = point.latencies;
        Some(point.sample(&[da, ac, ha + hc], point.straight_ms?))
    };
    fit(format!("{name}: until straight"), terms, &points.iter().filter_map(of).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grid_holds_every_triangle_and_each_leg_adds_up() {
        let levels = [0.1, 1.0, 10.0];
        let grid = grid(&levels, &[0.05, 5.0]);
        // Two of the three are the longest, or all.
        assert_eq!(grid.len(), 1 + 4 + 7);
        for legs in &grid {
            let Latencies { da, ac, dc, .. } = legs.latencies();
            assert!(
                [da, ac, dc].iter().all(|one| levels.iter().any(|level| (one - level).abs() < 1e-9)),
                "{legs:?}"
            );
            let turned = legs.turned().latencies();
            assert_eq!((turned.da, turned.dc), (legs.latencies().da, legs.latencies().ac));
        }
    }

    #[test]
    fn in_the_simulated_world_gaps_are_what_the_formulas_say() {
        let gaps = Gaps::of(simulated(true, 1).expect("measured"));
        assert_eq!((gaps.gaps.len(), gaps.others.len()), (4, 4));
        for fit in gaps.gaps.iter().chain(&gaps.others) {
            for term in &fit.terms {
                // The constant is the host's time, which there is none of in that world, and a message's on the link.
                let expected = term.formula.unwrap_or(0.0);
                assert!((term.fitted - expected).abs() < 0.01, "{}: {term:?}", fit.name);
            }
            assert!(fit.greatest < 0.01, "{fit:?}");
        }
    }

    #[test]
    fn a_formula_that_holds_is_found_from_its_points() {
        let point = |legs: &Legs| {
            let latencies = legs.latencies();
            let Latencies { da, ac, dc, .. } = latencies;
            let gap_ms = da + ac - dc + 0.25;
            Point {
                world: "made up",
                mode: Mode::Relayed,
                latencies,
                pace_ms: 1.0,
                gap_ms,
                noise_ms: 0.0,
                straight_ms: None,
            }
        };
        let points = grid(&[0.1, 1.0, 10.0, 100.0], &[0.05, 0.5, 5.0, 50.0]).iter().map(point).collect();
        let gaps = Gaps::of(points);
        let [fit] = &gaps.gaps[..] else { panic!("one fit: {gaps:?}") };
        for (term, weight) in fit.terms.iter().zip([1.0, 1.0, -1.0, 0.0, 0.25]) {
            assert!((term.fitted - weight).abs() < 1e-9, "{term:?}");
        }
    }
}
