//! Quantiles and spread of plain values.

use super::kahan::Kahan;

/// The `q`-quantile of `values`, between the two nearest where it falls between them; NaN sorts first.
///
/// `sorted` is memory to work in.
pub(super) fn quantile(q: f64, values: &[f64], sorted: &mut Vec<f64>) -> f64 {
    if values.is_empty() || q.is_nan() {
        return f64::NAN;
    }
    if q < 0.0 {
        return f64::NEG_INFINITY;
    }
    if q > 1.0 {
        return f64::INFINITY;
    }
    sorted.clear();
    sorted.extend_from_slice(values);
    sorted.sort_unstable_by(|a, b| nan_first(*a, *b));
    let rank = q * (sorted.len() - 1) as f64;
    let lower = rank.floor() as usize;
    let upper = (lower + 1).min(sorted.len() - 1);
    let weight = rank - rank.floor();
    sorted[lower] * (1.0 - weight) + sorted[upper] * weight
}

/// Ascending, with NaN before all numbers.
pub(super) fn nan_first(a: f64, b: f64) -> std::cmp::Ordering {
    b.is_nan().cmp(&a.is_nan()).then_with(|| a.partial_cmp(&b).unwrap_or(std::cmp::Ordering::Equal))
}

/// The median of the distances from the median.
pub(super) fn median_deviation(values: &[f64], sorted: &mut Vec<f64>) -> f64 {
    let median = quantile(0.5, values, sorted);
    let distances: Vec<f64> = values.iter().map(|v| (v - median).abs()).collect();
    quantile(0.5, &distances, sorted)
}

/// Population variance by Welford's method, with compensated sums.
pub(super) fn variance(values: &[f64]) -> f64 {
    let (mut mean, mut squares) = (Kahan::default(), Kahan::default());
    for (index, value) in values.iter().enumerate() {
        let delta = value - (mean.sum + mean.lost);
        mean = mean.plus(delta / (index + 1) as f64);
        squares = squares.plus(delta * (value - (mean.sum + mean.lost)));
    }
    (squares.sum + squares.lost) / values.len() as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_values() {
        let mut sorted = Vec::new();
        let values = [4.0, 1.0, 3.0, 2.0];
        for (q, expected) in [(0.0, 1.0), (0.5, 2.5), (1.0, 4.0), (0.25, 1.75)] {
            assert_eq!(quantile(q, &values, &mut sorted), expected);
        }
        assert_eq!(quantile(2.0, &values, &mut sorted), f64::INFINITY);
        assert_eq!(quantile(-1.0, &values, &mut sorted), f64::NEG_INFINITY);
        assert!(quantile(f64::NAN, &values, &mut sorted).is_nan());
    }

    #[test]
    fn spread_of_equal_values_is_zero() {
        assert_eq!(variance(&[2.0; 5]), 0.0);
        assert_eq!(variance(&[1.0, 3.0]), 1.0);
        assert_eq!(median_deviation(&[1.0, 1.0, 2.0, 2.0, 4.0, 6.0, 9.0], &mut Vec::new()), 1.0);
    }
}
