//! Where the evaluator reads series: the traits that a store implements for it.

use crate::error::Result;
use crate::model::{Selector, TimeRange};
use crate::promql::Labels;

/// A store of series that queries read.
///
/// Implemented by an adapter over the engine's query API, and by tables in memory in tests.
pub trait Source: Sync {
    /// The series that match `selector`, each once, in an order that is always the same (`limitk` and ties
    /// of `topk` follow it), with their samples in `range`.
    ///
    /// Samples are pulled one series at a time, so a query holds one series and its results.
    /// `hints` say what the samples are for; a store may ignore them.
    ///
    /// # Errors
    /// Those of the store; they end the query.
    fn select<'a>(
        &'a self,
        selector: &Selector,
        range: TimeRange,
        hints: &Hints,
    ) -> Result<Box<dyn SeriesStream + 'a>>;

    /// The same series with each window already reduced, or `None` where the store cannot do that
    /// exactly and at lower cost than the evaluator.
    ///
    /// # Errors
    /// Those of the store; they end the query.
    fn select_windows<'a>(
        &'a self,
        selector: &Selector,
        windows: &Windows,
    ) -> Result<Option<Box<dyn WindowStream + 'a>>> {
        let _ = (selector, windows);
        Ok(None)
    }
}

/// Series one after the other.
pub trait SeriesStream {
    /// Replaces `times` (nanoseconds, strictly rising) and `values` by the samples of the next series
    /// and returns its labels, or `None` behind the last. Staleness markers are passed on as they are.
    ///
    /// # Errors
    /// Those of the store.
    fn next(&mut self, times: &mut Vec<i64>, values: &mut Vec<f64>) -> Result<Option<Labels>>;
}

/// Series one after the other, one value for each window.
pub trait WindowStream {
    /// Replaces `values` by one value for each window of the next series and returns its labels, or
    /// `None` behind the last. A window without samples is [`ABSENT`](super::ABSENT).
    ///
    /// # Errors
    /// Those of the store.
    fn next(&mut self, values: &mut Vec<f64>) -> Result<Option<Labels>>;
}

/// What the samples of a selection are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hints {
    /// The function over windows that reads them, if one does.
    pub function: Option<WindowFunction>,
    /// Length of each window in nanoseconds; the lookback where no function reads them.
    pub window: i64,
    /// Distance of the windows' ends in nanoseconds.
    pub step: i64,
}

/// Windows of equal length: window `i` holds the times `end(i) - width < t <= end(i)` with
/// `end(i) = first_end + i * step`. Staleness markers do not count as samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// How each window is reduced.
    pub function: WindowFunction,
    /// The end of the first window, inclusive, in nanoseconds.
    pub first_end: i64,
    /// Distance of the ends in nanoseconds; above zero.
    pub step: i64,
    /// How many windows.
    pub count: usize,
    /// Length of each in nanoseconds.
    pub width: i64,
}

/// A function over the samples of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum WindowFunction {
    Absent,
    Avg,
    Changes,
    Count,
    Delta,
    Deriv,
    First,
    Idelta,
    Increase,
    Irate,
    Last,
    Mad,
    Max,
    Min,
    PredictLinear,
    Present,
    Quantile,
    Rate,
    Resets,
    Smoothing,
    Stddev,
    Stdvar,
    Sum,
    TimeOfFirst,
    TimeOfLast,
    TimeOfMax,
    TimeOfMin,
}

impl WindowFunction {
    const NAMES: [(&'static str, WindowFunction); 27] = [
        ("absent_over_time", WindowFunction::Absent),
        ("avg_over_time", WindowFunction::Avg),
        ("changes", WindowFunction::Changes),
        ("count_over_time", WindowFunction::Count),
        ("delta", WindowFunction::Delta),
        ("deriv", WindowFunction::Deriv),
        ("double_exponential_smoothing", WindowFunction::Smoothing),
        ("first_over_time", WindowFunction::First),
        ("idelta", WindowFunction::Idelta),
        ("increase", WindowFunction::Increase),
        ("irate", WindowFunction::Irate),
        ("last_over_time", WindowFunction::Last),
        ("mad_over_time", WindowFunction::Mad),
        ("max_over_time", WindowFunction::Max),
        ("min_over_time", WindowFunction::Min),
        ("predict_linear", WindowFunction::PredictLinear),
        ("present_over_time", WindowFunction::Present),
        ("quantile_over_time", WindowFunction::Quantile),
        ("rate", WindowFunction::Rate),
        ("resets", WindowFunction::Resets),
        ("stddev_over_time", WindowFunction::Stddev),
        ("stdvar_over_time", WindowFunction::Stdvar),
        ("sum_over_time", WindowFunction::Sum),
        ("ts_of_first_over_time", WindowFunction::TimeOfFirst),
        ("ts_of_last_over_time", WindowFunction::TimeOfLast),
        ("ts_of_max_over_time", WindowFunction::TimeOfMax),
        ("ts_of_min_over_time", WindowFunction::TimeOfMin),
    ];

    /// The function that queries call `name`.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(n, _)| *n == name).map(|(_, function)| *function)
    }

    /// Its name in queries.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, f)| *f == self).map_or("", |(name, _)| name)
    }

    /// Whether the result is a sample of the series itself and so keeps its name.
    pub fn keeps_name(self) -> bool {
        matches!(self, WindowFunction::First | WindowFunction::Last)
    }
}
