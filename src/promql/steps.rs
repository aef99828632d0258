//! The times at which an expression is evaluated, and columns of one value for each of them.

use crate::model::STALE_NAN_BITS;
use crate::promql::Labels;

/// In a column: no sample at this step. It is the staleness marker, which no sample that a query sees is.
pub const ABSENT: f64 = f64::from_bits(STALE_NAN_BITS);

/// Whether a value of a column is [`ABSENT`].
pub fn is_absent(value: f64) -> bool {
    value.to_bits() == STALE_NAN_BITS
}

/// Evenly spaced times: `start + i * step`. Nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Steps {
    pub(super) start: i64,
    /// Above zero.
    pub(super) step: i64,
    pub(super) count: usize,
}

impl Steps {
    /// The time of step `index`.
    pub(super) fn time(&self, index: usize) -> i64 {
        self.start.saturating_add(self.step.saturating_mul(index as i64))
    }

    /// Only the first of them.
    pub(super) fn first(&self) -> Steps {
        Steps { count: self.count.min(1), ..*self }
    }

    /// A column with a sample at no step.
    pub(super) fn absent(&self) -> Vec<f64> {
        vec![ABSENT; self.count]
    }
}

/// One series of an instant vector over all steps.
///
/// Native histograms, when they come, are a second, sparse column beside `values`.
#[derive(Clone, Debug)]
pub(super) struct Series {
    pub(super) labels: Labels,
    /// Whether the name goes when the query is done: functions drop it late, so that
    /// `label_replace` and grouping still see it.
    pub(super) drop_name: bool,
    /// One value for each step, [`ABSENT`] where there is none.
    pub(super) values: Vec<f64>,
}

impl Series {
    /// Whether there is a sample at any step.
    pub(super) fn is_present(&self) -> bool {
        self.values.iter().any(|v| !is_absent(*v))
    }

    /// Applies `function` to each sample.
    pub(super) fn map(&mut self, function: impl Fn(f64) -> f64) {
        for value in &mut self.values {
            if !is_absent(*value) {
                *value = present(function(*value));
            }
        }
    }

    /// The memory that a budget counts.
    pub(super) fn size(&self) -> usize {
        self.labels.size() + size_of::<Self>() + self.values.len() * 8
    }
}

/// `value` as a sample: a NaN whose bits happen to be those of [`ABSENT`] becomes a plain one.
pub(super) fn present(value: f64) -> f64 {
    if is_absent(value) { f64::NAN } else { value }
}

/// Nanoseconds as seconds; whole milliseconds give exactly what Prometheus computes from them.
pub(super) fn seconds(nanos: i64) -> f64 {
    if nanos % 1_000_000 == 0 { (nanos / 1_000_000) as f64 / 1000.0 } else { nanos as f64 / 1e9 }
}
