//! What a query answers with.

use crate::model::{Column, SeriesKey, Timestamp};
use crate::query::budget::QueryReport;

/// The answer of a query: a pair of columns for each series or group, and what it took.
#[derive(Clone, Debug, Default)]
pub struct QueryResult {
    /// In order of keys; only those that hold something.
    pub series: Vec<SeriesColumns>,
    /// What the query did.
    pub report: QueryReport,
}

/// One series or group of an answer: times, strictly rising, and as many values.
#[derive(Clone, Debug, PartialEq)]
pub struct SeriesColumns {
    /// The series; of a group, its tags, and an empty name unless the name is one of them.
    pub key: SeriesKey,
    /// Times of the samples, or starts of the windows.
    pub times: Vec<Timestamp>,
    /// Samples in the series' own type, or doubles for aggregates.
    pub values: Column,
}

impl SeriesColumns {
    /// The values of an aggregate, or of a series of doubles; empty for other types.
    pub fn doubles(&self) -> &[f64] {
        match &self.values {
            Column::F64(values) => values,
            _ => &[],
        }
    }
}

/// Columns from times in nanoseconds, without a copy.
pub(crate) fn timestamps(times: Vec<i64>) -> Vec<Timestamp> {
    times.into_iter().map(Timestamp::from_nanos).collect()
}
