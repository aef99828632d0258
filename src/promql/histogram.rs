//! `histogram_quantile` and `histogram_fraction` over classic histograms: series with a label `le`.

use std::collections::HashMap;

use super::ast::Span;
use super::eval::{Evaluator, Sink, wrong_type};
use super::plan::Call;
use super::steps::{Series, Steps, is_absent, present};
use crate::error::Result;
use crate::model::NAME_KEY;
use crate::promql::Labels;

/// The label that holds a bucket's upper bound.
const BOUND_KEY: &str = "le";

/// Counts that differ by less than this share are taken as equal: sums in another order differ so much.
const SMALL_DELTA: f64 = 1e-12;

/// A bucket at one step: how many observations were not above the bound.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Bucket {
    bound: f64,
    count: f64,
}

/// The buckets of one histogram over all steps.
struct Histogram {
    labels: Labels,
    /// Sorted by bound once all are there.
    buckets: Vec<(f64, Vec<f64>)>,
}

pub(super) fn quantiles(eval: &Evaluator<'_>, call: &Call, steps: Steps, sink: &mut Sink<'_>) -> Result<()> {
    let [q, input] = &call.args[..] else { return Err(wrong_type("argument")) };
    let q = eval.scalar(q, steps)?;
    let span = |index: usize| call.spans.get(index).copied().unwrap_or_default();
    let held = eval.budget.hold();
    let histograms = collect(eval, input, span(1), steps, &held)?;
    for invalid in q.iter().filter(|q| !(0.0..=1.0).contains(*q)) {
        // Prometheus warns for the first argument whenever a step is evaluated, with or without histograms.
        eval.annotations.invalid_quantile(*invalid, span(0));
    }
    each_step(eval, histograms, steps, sink, |labels, step, buckets| {
        let (value, forced) = quantile(q[step], buckets);
        if forced {
            eval.annotations.forced_monotonicity(labels.name(), span(1));
        }
        value
    })
}

pub(super) fn fractions(eval: &Evaluator<'_>, call: &Call, steps: Steps, sink: &mut Sink<'_>) -> Result<()> {
    let [lower, upper, input] = &call.args[..] else { return Err(wrong_type("argument")) };
    let (lower, upper) = (eval.scalar(lower, steps)?, eval.scalar(upper, steps)?);
    let held = eval.budget.hold();
    let span = call.spans.get(2).copied().unwrap_or_default();
    let histograms = collect(eval, input, span, steps, &held)?;
    each_step(eval, histograms, steps, sink, |_, step, buckets| fraction(lower[step], upper[step], buckets))
}

/// Groups the series of `input` by all labels but `le`.
fn collect(
    eval: &Evaluator<'_>,
    input: &super::plan::Node,
    span: Span,
    steps: Steps,
    held: &super::budget::Held<'_, '_>,
) -> Result<Vec<Histogram>> {
    let mut histograms: Vec<Histogram> = Vec::new();
    let mut by_key: HashMap<Vec<u8>, usize> = HashMap::new();
    let mut key = Vec::new();
    eval.vector(input, steps, &mut |series| {
        let text = series.labels.get(BOUND_KEY);
        let Some(bound) = parse_bound(text) else {
            eval.annotations.bad_bucket_label(series.labels.name(), text, span);
            return Ok(());
        };
        held.grow(series.size())?;
        key.clear();
        series.labels.write_if(|k| k != BOUND_KEY && k != NAME_KEY, &mut key);
        let index = match by_key.get(&key) {
            Some(index) => *index,
            None => {
                let labels = series.labels.drop_keys(&[BOUND_KEY.to_owned()]);
                by_key.insert(key.clone(), histograms.len());
                histograms.push(Histogram { labels, buckets: Vec::new() });
                histograms.len() - 1
            }
        };
        if let Some(histogram) = histograms.get_mut(index) {
            histogram.buckets.push((bound, series.values));
        }
        Ok(())
    })?;
    for histogram in &mut histograms {
        histogram.buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    Ok(histograms)
}

fn parse_bound(text: &str) -> Option<f64> {
    text.parse().ok()
}

/// Reduces the buckets of each histogram at each step to one value.
fn each_step(
    eval: &Evaluator<'_>,
    histograms: Vec<Histogram>,
    steps: Steps,
    sink: &mut Sink<'_>,
    mut reduce: impl FnMut(&Labels, usize, &mut Vec<Bucket>) -> f64,
) -> Result<()> {
    let mut buckets = Vec::new();
    for histogram in histograms {
        eval.budget.work(histogram.buckets.len() * steps.count)?;
        let mut values = steps.absent();
        for (step, slot) in values.iter_mut().enumerate() {
            buckets.clear();
            for (bound, column) in &histogram.buckets {
                let count = column[step];
                if !is_absent(count) {
                    push_bucket(&mut buckets, Bucket { bound: *bound, count });
                }
            }
            if !buckets.is_empty() {
                *slot = present(reduce(&histogram.labels, step, &mut buckets));
            }
        }
        let series = Series { labels: histogram.labels, drop_name: true, values };
        if series.is_present() {
            sink(series)?;
        }
    }
    Ok(())
}

/// Adds a bucket whose bound is not below the last one's; equal bounds ("1" and "1.0") are one bucket.
fn push_bucket(buckets: &mut Vec<Bucket>, bucket: Bucket) {
    match buckets.last_mut() {
        Some(last) if last.bound == bucket.bound => last.count += bucket.count,
        _ => buckets.push(bucket),
    }
}

fn is_complete(buckets: &[Bucket]) -> bool {
    buckets.last().is_some_and(|last| last.bound == f64::INFINITY)
}

/// The `q`-quantile, observations taken as spread evenly within a bucket, and whether counts that fell
/// from one bucket to the next had to be lifted.
fn quantile(q: f64, buckets: &mut [Bucket]) -> (f64, bool) {
    match q {
        q if q.is_nan() => return (f64::NAN, false),
        q if q < 0.0 => return (f64::NEG_INFINITY, false),
        q if q > 1.0 => return (f64::INFINITY, false),
        _ => {}
    }
    if !is_complete(buckets) {
        return (f64::NAN, false);
    }
    let forced = make_monotonic(buckets);
    let last = buckets.len() - 1;
    let observations = buckets[last].count;
    if last == 0 || observations == 0.0 {
        return (f64::NAN, forced);
    }
    let mut rank = q * observations;
    let index = buckets[..last].partition_point(|bucket| bucket.count < rank || bucket.count.is_nan());
    if index == last {
        return (buckets[last - 1].bound, forced);
    }
    let Bucket { bound: end, mut count } = buckets[index];
    if index == 0 && end <= 0.0 {
        return (end, forced);
    }
    let mut start = 0.0;
    if index > 0 {
        let before = buckets[index - 1];
        start = before.bound;
        count -= before.count;
        rank -= before.count;
    }
    (start + (end - start) * (rank / count), forced)
}

/// Lifts counts that are below an earlier one; true when any differed by more than rounding.
fn make_monotonic(buckets: &mut [Bucket]) -> bool {
    let mut forced = false;
    let mut highest = buckets.first().map_or(0.0, |bucket| bucket.count);
    for bucket in buckets.iter_mut().skip(1) {
        if bucket.count == highest {
            continue;
        }
        let (distance, size) = ((bucket.count - highest).abs(), bucket.count.abs() + highest.abs());
        // The product tells most that are not close without a division.
        let close = distance <= size * (2.0 * SMALL_DELTA) && distance / size < SMALL_DELTA;
        if close {
            bucket.count = highest;
        } else if bucket.count < highest {
            bucket.count = highest;
            forced = true;
        } else {
            highest = bucket.count;
        }
    }
    forced
}

/// The share of observations between `lower` and `upper`.
fn fraction(lower: f64, upper: f64, buckets: &[Bucket]) -> f64 {
    if !is_complete(buckets) {
        return f64::NAN;
    }
    let total = buckets.last().map_or(0.0, |bucket| bucket.count);
    if total == 0.0 || lower.is_nan() || upper.is_nan() {
        return f64::NAN;
    }
    if lower >= upper {
        return 0.0;
    }
    (rank_at(upper, buckets, total) - rank_at(lower, buckets, total)) / total
}

/// How many observations are not above `value`.
fn rank_at(value: f64, buckets: &[Bucket], total: f64) -> f64 {
    let mut rank = 0.0;
    let mut start = f64::NEG_INFINITY;
    for (index, bucket) in buckets.iter().enumerate() {
        if index == 0 && bucket.bound > 0.0 {
            // The first bucket is taken to begin at zero, as for quantiles.
            start = 0.0;
        }
        if start >= value {
            break;
        }
        if bucket.bound > value {
            let share = (value - start) / (bucket.bound - start);
            let inside = rank + (bucket.count - rank) * share;
            return if inside > total { total } else { inside };
        }
        rank = bucket.count;
        start = bucket.bound;
    }
    rank.min(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn buckets(pairs: &[(f64, f64)]) -> Vec<Bucket> {
        pairs.iter().map(|(bound, count)| Bucket { bound: *bound, count: *count }).collect()
    }

    #[test]
    fn quantiles_are_interpolated() {
        let mut b = buckets(&[(1.0, 10.0), (2.0, 30.0), (f64::INFINITY, 40.0)]);
        for (q, expected) in [(0.0, 0.0), (0.25, 1.0), (0.5, 1.5), (0.9, 2.0), (-1.0, f64::NEG_INFINITY)] {
            assert_eq!(quantile(q, &mut b), (expected, false), "{q}");
        }
    }

    #[test]
    fn falling_counts_are_lifted_and_told() {
        let mut b = buckets(&[(1.0, 10.0), (2.0, 5.0), (f64::INFINITY, 20.0)]);
        assert!(quantile(0.5, &mut b).1);
        let mut b = buckets(&[(1.0, 10.0), (2.0, 10.0 - 1e-13), (f64::INFINITY, 20.0)]);
        assert!(!quantile(0.5, &mut b).1);
    }

    #[test]
    fn fractions_of_whole_buckets_are_exact() {
        let b = buckets(&[(1.0, 10.0), (2.0, 30.0), (f64::INFINITY, 40.0)]);
        assert_eq!(fraction(1.0, 2.0, &b), 0.5);
        assert_eq!(fraction(f64::NEG_INFINITY, f64::INFINITY, &b), 1.0);
        assert_eq!(fraction(0.0, 0.5, &b), 0.125);
        assert_eq!(fraction(2.0, 1.0, &b), 0.0);
    }
}
