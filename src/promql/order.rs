//! `sort` and its like, which order the answer of an instant query and pass through in a range query.

use std::cmp::Ordering;

use super::eval::{Evaluator, Sink};
use super::plan::Node;
use super::steps::{Series, Steps};
use crate::error::Result;

/// By value, NaN last in both directions.
pub(super) fn by_value(
    eval: &Evaluator<'_>,
    input: &Node,
    descending: bool,
    steps: Steps,
    sink: &mut Sink<'_>,
) -> Result<()> {
    sorted(eval, input, steps, sink, &|a, b| {
        let value = |series: &Series| series.values.first().copied().unwrap_or(f64::NAN);
        compare_values(value(a), value(b), descending)
    })
}

/// Ascending or descending, with NaN behind all numbers.
pub(super) fn compare_values(a: f64, b: f64, descending: bool) -> Ordering {
    let by_value = a.partial_cmp(&b).unwrap_or(Ordering::Equal);
    let by_value = if descending { by_value.reverse() } else { by_value };
    a.is_nan().cmp(&b.is_nan()).then(by_value)
}

/// By the values of `labels`, numbers in them by their size; ties by all labels.
pub(super) fn by_labels(
    eval: &Evaluator<'_>,
    input: &Node,
    labels: &[String],
    descending: bool,
    steps: Steps,
    sink: &mut Sink<'_>,
) -> Result<()> {
    sorted(eval, input, steps, sink, &|a, b| {
        let mut order = Ordering::Equal;
        for label in labels {
            order = order.then_with(|| natural(a.labels.get(label), b.labels.get(label)));
        }
        let order = order.then_with(|| a.labels.cmp(&b.labels));
        if descending { order.reverse() } else { order }
    })
}

fn sorted(
    eval: &Evaluator<'_>,
    input: &Node,
    steps: Steps,
    sink: &mut Sink<'_>,
    compare: &dyn Fn(&Series, &Series) -> Ordering,
) -> Result<()> {
    if !eval.instant || steps.count != 1 {
        return eval.vector(input, steps, sink);
    }
    let held = eval.budget.hold();
    let mut all = eval.collect(input, steps, &held)?;
    all.sort_by(compare);
    all.into_iter().try_for_each(sink)
}

/// Runs of digits compare as numbers, all else as text.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        match (a.is_empty(), b.is_empty()) {
            (false, false) => {}
            (a, b) => return b.cmp(&a),
        }
        let (chunk_a, rest_a) = split_chunk(a);
        let (chunk_b, rest_b) = split_chunk(b);
        let is_number = |chunk: &str| chunk.starts_with(|c: char| c.is_ascii_digit());
        let order = if is_number(chunk_a) && is_number(chunk_b) {
            let (x, y) = (chunk_a.trim_start_matches('0'), chunk_b.trim_start_matches('0'));
            x.len().cmp(&y.len()).then_with(|| x.cmp(y)).then_with(|| chunk_a.len().cmp(&chunk_b.len()))
        } else {
            chunk_a.cmp(chunk_b)
        };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

/// The leading run of digits or of anything else, and the rest.
fn split_chunk(text: &str) -> (&str, &str) {
    let digits = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_labels_sort_by_size() {
        let mut names = vec!["cpu10", "cpu2", "cpu1", "cpu", "10", "9"];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["9", "10", "cpu", "cpu1", "cpu2", "cpu10"]);
    }

    #[test]
    fn nan_sorts_last() {
        let mut values = [f64::NAN, 1.0, 3.0, 2.0];
        values.sort_by(|a, b| compare_values(*a, *b, true));
        assert_eq!(values[..3], [3.0, 2.0, 1.0]);
        values.sort_by(|a, b| compare_values(*a, *b, false));
        assert_eq!(values[..3], [1.0, 2.0, 3.0]);
    }
}
