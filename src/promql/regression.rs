//! Lines through samples: least squares for `deriv` and `predict_linear`, and double exponential smoothing.

use super::kahan::Kahan;
use super::steps::seconds;

/// The line of least squares through samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct LinearFit {
    /// Per second.
    pub(super) slope: f64,
    /// At the origin that was asked for.
    pub(super) intercept: f64,
}

impl LinearFit {
    /// Fits `values` over `times`, which are not empty; `origin` is where the intercept lies.
    pub(super) fn new(times: &[i64], values: &[f64], origin: i64) -> Self {
        let first = values.first().copied().unwrap_or(f64::NAN);
        if values.iter().all(|v| *v == first) {
            return if first.is_infinite() {
                LinearFit { slope: f64::NAN, intercept: f64::NAN }
            } else {
                LinearFit { slope: 0.0, intercept: first }
            };
        }
        let n = values.len() as f64;
        let [mut sum_x, mut sum_y, mut sum_xy, mut sum_xx] = [Kahan::default(); 4];
        for (time, y) in times.iter().zip(values) {
            let x = seconds(time.saturating_sub(origin));
            sum_x = sum_x.plus(x);
            sum_y = sum_y.plus(*y);
            sum_xy = sum_xy.plus(x * y);
            sum_xx = sum_xx.plus(x * x);
        }
        let [x, y, xy, xx] = [sum_x, sum_y, sum_xy, sum_xx].map(|k| k.sum + k.lost);
        let slope = (xy - x * y / n) / (xx - x * x / n);
        LinearFit { slope, intercept: y / n - slope * x / n }
    }
}

/// Double exponential smoothing ("Holt linear") of at least two values: the last smoothed one.
pub(super) fn smoothing(values: &[f64], smoothing_factor: f64, trend_factor: f64) -> f64 {
    let [first, second, ..] = values else { return f64::NAN };
    let (mut before, mut smoothed) = (0.0, *first);
    let mut trend = second - first;
    for (index, value) in values.iter().enumerate().skip(1) {
        if index > 1 {
            trend = trend_factor * (smoothed - before) + (1.0 - trend_factor) * trend;
        }
        let next = smoothing_factor * value + (1.0 - smoothing_factor) * (smoothed + trend);
        before = smoothed;
        smoothed = next;
    }
    smoothed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_again() {
        let times: Vec<i64> = (0..10).map(|n| n * 1_000_000_000).collect();
        let values: Vec<f64> = (0..10).map(|n| 3.0 + 2.0 * f64::from(n)).collect();
        let fit = LinearFit::new(&times, &values, 0);
        assert!((fit.slope - 2.0).abs() < 1e-12 && (fit.intercept - 3.0).abs() < 1e-12);
        assert_eq!(smoothing(&values, 0.5, 0.5), 21.0);
    }
}
