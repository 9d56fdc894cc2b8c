//! Least squares: what each term of a formula weighs, how sure that is, and what the formula does not explain.

use core::fmt;

use serde::Serialize;

/// A term of a formula, as it was fitted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Term {
    /// What it is called in the formula.
    pub name: &'static str,
    /// What the formula says that it weighs; none for what is only looked for.
    pub formula: Option<f64>,
    /// What it weighs.
    pub fitted: f64,
    /// Half of the confidence interval (95 %, Student's t).
    pub uncertain: f64,
}

/// A formula, as it was fitted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Fit {
    /// What was measured, and where.
    pub name: String,
    /// The constant comes last.
    pub terms: Vec<Term>,
    /// How many figures it was fitted to.
    pub points: usize,
    /// The standard deviation of the residuals, in the unit of the figures; those of noisy points count for less.
    pub residual: f64,
    /// The greatest residual, either way.
    pub greatest: f64,
    /// The share of the variance that it explains.
    pub r_squared: f64,
}

impl fmt::Display for Fit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, terms, points, residual, greatest, r_squared } = self;
        writeln!(
            f,
            "  {name}: {points} points, residual {residual:.4} (at most {greatest:.4}), R² {r_squared:.6}"
        )?;
        for Term { name, formula, fitted, uncertain } in terms {
            let formula = formula.map_or(String::new(), |weight| format!("  formula {weight}"));
            writeln!(f, "    {name:<18}{fitted:>9.4} ± {uncertain:.4}{formula}")?;
        }
        Ok(())
    }
}

/// Something that was measured.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Of each term.
    pub values: Vec<f64>,
    /// What came of them.
    pub figure: f64,
    /// How far off that may be, as far as is known without it; in the same unit.
    pub noise: f64,
}

/// Noise that nobody has seen: without any, a sample does not count without end. In the unit of the figures.
const LEAST_NOISE: f64 = 0.25;

/// Fits `figure = Σ weight · value + constant` to samples, each of which counts by the inverse of its variance. `None` if they
/// do not determine it.
pub fn fit(name: String, terms: &[(&'static str, Option<f64>)], samples: &[Sample]) -> Option<Fit> {
    let width = terms.len() + 1;
    let rows: Vec<(Vec<f64>, f64)> = samples
        .iter()
        .map(|Sample { values, figure, .. }| ([&values[..], &[1.0]].concat(), *figure))
        .collect();
    let shares = shares(samples);
    let inverse = inverted(&products(&rows, &shares, width))?;
    let right: Vec<f64> = (0..width)
        .map(|column| sum(&shares, rows.iter().map(|(row, figure)| row[column] * figure)))
        .collect();
    let weights: Vec<f64> = inverse.iter().map(|line| dot(line, &right)).collect();
    let residuals: Vec<f64> = rows.iter().map(|(row, figure)| figure - dot(row, &weights)).collect();
    let free = rows.len().checked_sub(width).filter(|free| *free > 0)?;
    let squares = sum(&shares, residuals.iter().map(|residual| residual * residual));
    #[allow(clippy::cast_precision_loss)] // Points of a fit.
    let (variance, mean) =
        (squares / free as f64, sum(&shares, rows.iter().map(|(_, figure)| *figure)) / rows.len() as f64);
    let total = sum(&shares, rows.iter().map(|(_, figure)| (figure - mean).powi(2)));
    let names = terms.iter().copied().chain([("σ", None)]);
    let terms = names.enumerate().map(|(column, (name, formula))| Term {
        name,
        formula,
        fitted: weights[column],
        uncertain: student(free) * (variance * inverse[column][column]).sqrt(),
    });
    Some(Fit {
        name,
        terms: terms.collect(),
        points: rows.len(),
        residual: variance.sqrt(),
        greatest: residuals.iter().fold(0.0, |most, residual| residual.abs().max(most)),
        r_squared: if total > 0.0 { 1.0 - squares / total } else { 1.0 },
    })
}

/// How much each sample counts; one in the mean.
fn shares(samples: &[Sample]) -> Vec<f64> {
    let precise = |sample: &Sample| 1.0 / (sample.noise.powi(2) + LEAST_NOISE.powi(2));
    #[allow(clippy::cast_precision_loss)] // Points of a fit.
    let mean = samples.iter().map(precise).sum::<f64>() / samples.len() as f64;
    samples.iter().map(|sample| precise(sample) / mean).collect()
}

/// Of values, each by its share.
fn sum(shares: &[f64], values: impl Iterator<Item = f64>) -> f64 {
    shares.iter().zip(values).map(|(share, value)| share * value).sum()
}

fn dot(one: &[f64], other: &[f64]) -> f64 {
    one.iter().zip(other).map(|(one, other)| one * other).sum()
}

/// The matrix of the normal equations.
fn products(rows: &[(Vec<f64>, f64)], shares: &[f64], width: usize) -> Vec<Vec<f64>> {
    let product = |one: usize, other: usize| sum(shares, rows.iter().map(|(row, _)| row[one] * row[other]));
    (0..width).map(|one| (0..width).map(|other| product(one, other)).collect()).collect()
}

/// Gauss and Jordan, with the greatest pivot of each column. `None` if the matrix is singular.
fn inverted(matrix: &[Vec<f64>]) -> Option<Vec<Vec<f64>>> {
    let width = matrix.len();
    let greatest = matrix.iter().flatten().fold(0.0, |most: f64, one| most.max(one.abs()));
    let unit = |line: usize| (0..width).map(move |column| f64::from(u8::from(line == column)));
    let mut lines: Vec<Vec<f64>> = matrix
        .iter()
        .enumerate()
        .map(|(nth, line)| line.iter().copied().chain(unit(nth)).collect())
        .collect();
    for column in 0..width {
        let pivot =
            (column..width).max_by(|a, b| lines[*a][column].abs().total_cmp(&lines[*b][column].abs()))?;
        lines.swap(column, pivot);
        let divisor = lines[column][column];
        if divisor.abs() <= greatest * 1e-12 {
            return None;
        }
        lines[column].iter_mut().for_each(|one| *one /= divisor);
        let own = lines[column].clone();
        for (_, line) in lines.iter_mut().enumerate().filter(|(nth, _)| *nth != column) {
            let factor = line[column];
            line.iter_mut().zip(&own).for_each(|(one, own)| *one -= factor * own);
        }
    }
    Some(lines.into_iter().map(|line| line[width..].to_vec()).collect())
}

/// The 97.5th percentile of Student's t (Abramowitz and Stegun, 26.7.5); right to a thousandth from ten on.
fn student(free: usize) -> f64 {
    const Z: f64 = 1.959_964;
    #[allow(clippy::cast_precision_loss)] // Points of a fit.
    let free = free as f64;
    let first = (Z.powi(3) + Z) / 4.0;
    let second = (5.0 * Z.powi(5) + 16.0 * Z.powi(3) + 3.0 * Z) / 96.0;
    let third = (3.0 * Z.powi(7) + 19.0 * Z.powi(5) + 17.0 * Z.powi(3) - 15.0 * Z) / 384.0;
    Z + first / free + second / free.powi(2) + third / free.powi(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TERMS: [(&str, Option<f64>); 2] = [("a", Some(2.0)), ("b", Some(-1.0))];

    fn grid(noise: impl Fn(usize) -> f64) -> Vec<Sample> {
        let of = |nth: usize| {
            let (a, b) = (
                f64::from(u8::try_from(nth % 7).expect("few")),
                f64::from(u8::try_from(nth / 7).expect("few")),
            );
            Sample { values: vec![a, b], figure: 2.0 * a - b + 0.5 + noise(nth), noise: 0.0 }
        };
        (0..49).map(of).collect()
    }

    #[test]
    fn a_formula_that_holds_exactly_is_found_exactly() {
        let fit = fit("exact".to_owned(), &TERMS, &grid(|_| 0.0)).expect("determined");
        for (term, weight) in fit.terms.iter().zip([2.0, -1.0, 0.5]) {
            assert!((term.fitted - weight).abs() < 1e-12 && term.uncertain < 1e-12, "{term:?}");
        }
        assert!(fit.residual < 1e-12 && fit.r_squared > 1.0 - 1e-12 && fit.points == 49, "{fit:?}");
    }

    #[test]
    fn a_noisy_one_is_found_within_its_confidence_interval() {
        let noise = |nth: usize| if nth.is_multiple_of(2) { 0.1 } else { -0.1 };
        let fit = fit("noisy".to_owned(), &TERMS, &grid(noise)).expect("determined");
        for (term, weight) in fit.terms.iter().zip([2.0, -1.0, 0.5]) {
            assert!((term.fitted - weight).abs() <= term.uncertain, "{term:?}");
            assert!(term.uncertain > 0.01 && term.uncertain < 0.1, "{term:?}");
        }
        assert!((fit.residual - 0.103).abs() < 0.001 && fit.greatest < 0.11, "{fit:?}");
    }

    #[test]
    fn what_is_known_to_be_noisy_counts_for_little() {
        let far_off = |nth: usize| if nth.is_multiple_of(5) { 20.0 } else { 0.0 };
        let known = |known: bool| {
            let mut points = grid(far_off);
            points.iter_mut().step_by(5).for_each(|point| point.noise = if known { 25.0 } else { 0.0 });
            fit("noisy".to_owned(), &TERMS, &points).expect("determined")
        };
        let off = |fit: &Fit| (fit.terms[2].fitted - 0.5).abs();
        assert!(off(&known(true)) < 0.01 && off(&known(false)) > 1.0);
        assert!(known(true).terms[0].uncertain < 0.1 * known(false).terms[0].uncertain);
    }

    #[test]
    fn points_that_do_not_tell_two_terms_apart_fit_nothing() {
        let point = |a: u8| {
            let a = f64::from(a);
            Sample { values: vec![a, 2.0 * a], figure: 1.0, noise: 0.0 }
        };
        let points: Vec<_> = (0..9).map(point).collect();
        assert_eq!(fit("singular".to_owned(), &TERMS, &points), None);
        assert_eq!(
            fit("few".to_owned(), &TERMS, &grid(|_| 0.0)[..3]),
            None,
            "no residual is left to judge by"
        );
    }

    #[test]
    fn student_is_as_in_the_tables() {
        for (free, expected) in [(10, 2.228), (30, 2.042), (120, 1.980)] {
            assert!((student(free) - expected).abs() < 0.001, "{free}: {}", student(free));
        }
    }
}
