//! The database as a source of PromQL queries: what the server, the tool and hosts evaluate over.

use super::source::{Hints, SeriesStream, Source, WindowFunction, WindowStream, Windows};
use super::steps::ABSENT;
use crate::error::{Error, Result};
use crate::model::{Column, Selector, SeriesKey, TimeRange, Timestamp};
use crate::promql::Labels;
use crate::query::{Aggregate, Query, SampleStream, SeriesColumns};

/// A database, as queries read it.
///
/// Holds a function from selector to [`Query`], so that it serves a [`Db`](crate::Db) and a
/// [`Reader`](crate::Reader) alike, and its owner can set limits, a cancel token or `allow_partial`:
///
/// ```no_run
/// use icecore::promql::{self, EngineSource};
/// # fn main() -> icecore::Result<()> {
/// let db = icecore::Db::open("data")?;
/// let source = EngineSource::new(|selector| db.query(selector));
/// let text = "rate(requests_total[5m])";
/// let time = icecore::Timestamp::from_secs(1_700_000_000);
/// let answer = promql::instant(&source, &promql::parse(text)?, text, time, &promql::Options::default())?;
/// # Ok(())
/// # }
/// ```
///
/// Integers are given as doubles. Series of bytes are no samples and are left out.
#[derive(Debug)]
pub struct EngineSource<F> {
    query: F,
}

impl<F: Fn(Selector) -> Query + Sync> EngineSource<F> {
    /// A source that asks the queries that `query` makes.
    pub fn new(query: F) -> Self {
        EngineSource { query }
    }
}

impl<F: Fn(Selector) -> Query + Sync> Source for EngineSource<F> {
    fn select<'a>(
        &'a self,
        selector: &Selector,
        range: TimeRange,
        _: &Hints,
    ) -> Result<Box<dyn SeriesStream + 'a>> {
        if range.is_empty() {
            return Ok(Box::new(Samples { stream: None, next: None }));
        }
        let stream = (self.query)(selector.clone()).range(range).stream()?;
        Ok(Box::new(Samples { stream: Some(stream), next: None }))
    }

    /// Windows that lie end to end are those of the engine, which answers them from page aggregates. Its sums are
    /// exact and rounded once. Where nothing is negative, compensated sums come to that but for the last digit; where
    /// large values cancel each other out they do not, and the language has what they come to.
    fn select_windows<'a>(
        &'a self,
        selector: &Selector,
        windows: &Windows,
    ) -> Result<Option<Box<dyn WindowStream + 'a>>> {
        let Some(aggregate) = aggregate(windows.function) else { return Ok(None) };
        let Some(range) = end_to_end(windows) else { return Ok(None) };
        let Ok(width) = u64::try_from(windows.width) else { return Ok(None) };
        let adds = matches!(windows.function, WindowFunction::Sum | WindowFunction::Avg);
        if adds && !self.is_nowhere_negative(selector, range)? {
            return Ok(None);
        }
        let result = (self.query)(selector.clone())
            .range(range)
            .origin(range.start)
            .window(std::time::Duration::from_nanos(width))
            .aggregate(aggregate)
            .run()?;
        if !is_exact(&result.series, windows.function) {
            return Ok(None);
        }
        let reduced = Reduced { series: result.series.into_iter(), windows: *windows, start: range.start };
        Ok(Some(Box::new(reduced)))
    }
}

impl<F: Fn(Selector) -> Query + Sync> EngineSource<F> {
    /// Whether no sample is below zero; answered from page aggregates but for the ends of the range.
    fn is_nowhere_negative(&self, selector: &Selector, range: TimeRange) -> Result<bool> {
        let least = (self.query)(selector.clone()).range(range).aggregate(Aggregate::Min).run()?;
        Ok(least.series.iter().flat_map(SeriesColumns::doubles).all(|least| *least >= 0.0))
    }
}

fn aggregate(function: WindowFunction) -> Option<Aggregate> {
    match function {
        WindowFunction::Avg => Some(Aggregate::Avg),
        WindowFunction::Sum => Some(Aggregate::Sum),
        WindowFunction::Count | WindowFunction::Present => Some(Aggregate::Count),
        WindowFunction::First => Some(Aggregate::First),
        WindowFunction::Last => Some(Aggregate::Last),
        WindowFunction::Max => Some(Aggregate::Max),
        WindowFunction::Min => Some(Aggregate::Min),
        _ => None,
    }
}

/// Whether these are the answers of the language: not where a name has a series of integers beside one of doubles,
/// which are one here, nor for a mean whose sum overflowed.
fn is_exact(series: &[SeriesColumns], function: WindowFunction) -> bool {
    let named_twice = series.windows(2).any(|pair| pair[0].key == pair[1].key);
    let overflowed = |series: &SeriesColumns| series.doubles().iter().any(|value| value.is_infinite());
    let mean_overflowed = function == WindowFunction::Avg && series.iter().any(overflowed);
    !named_twice && !mean_overflowed
}

/// The times of windows that neither overlap nor leave gaps, if they are such and can be said.
fn end_to_end(windows: &Windows) -> Option<TimeRange> {
    if windows.step != windows.width && windows.count != 1 {
        return None;
    }
    let length = windows.width.checked_mul(i64::try_from(windows.count).ok()?)?;
    let start = windows.first_end.checked_sub(windows.width)?.checked_add(1)?;
    let end = start.checked_add(length)?;
    Some(TimeRange { start: Timestamp::from_nanos(start), end: Timestamp::from_nanos(end) })
}

/// Samples series by series, put together from the pieces that the engine streams.
struct Samples {
    stream: Option<SampleStream>,
    /// A piece of the next series.
    next: Option<SeriesColumns>,
}

impl Samples {
    fn piece(&mut self) -> Result<Option<SeriesColumns>> {
        match self.next.take() {
            Some(piece) => Ok(Some(piece)),
            None => self.stream.as_mut().and_then(Iterator::next).transpose(),
        }
    }
}

impl SeriesStream for Samples {
    fn next(&mut self, times: &mut Vec<i64>, values: &mut Vec<f64>) -> Result<Option<Labels>> {
        times.clear();
        values.clear();
        let mut open: Option<SeriesKey> = None;
        while let Some(piece) = self.piece()? {
            if let Some(key) = &open
                && *key != piece.key
            {
                self.next = Some(piece);
                break;
            }
            let whole = times.len();
            if push(&piece, times, values) {
                merge(whole, times, values);
                open = Some(piece.key);
            }
        }
        Ok(open.map(|key| Labels::from(&key)))
    }
}

/// Appends a piece; false when it holds no numbers.
fn push(piece: &SeriesColumns, times: &mut Vec<i64>, values: &mut Vec<f64>) -> bool {
    match &piece.values {
        Column::F64(column) => values.extend_from_slice(column),
        Column::I64(column) => values.extend(column.iter().map(|v| *v as f64)),
        Column::Bytes(_) => return false,
    }
    times.extend(piece.times.iter().map(|time| time.nanos()));
    true
}

/// Puts the samples from `whole` on in their places where they are not later than those before: the same
/// name and tags can hold a series of integers beside one of doubles. At equal times the first stays.
fn merge(whole: usize, times: &mut Vec<i64>, values: &mut Vec<f64>) {
    let sorted = whole == 0 || whole == times.len() || times[whole - 1] < times[whole];
    if sorted {
        return;
    }
    let mut samples: Vec<(i64, f64)> = times.iter().copied().zip(values.iter().copied()).collect();
    samples.sort_by_key(|(time, _)| *time);
    samples.dedup_by_key(|(time, _)| *time);
    (*times, *values) = samples.into_iter().unzip();
}

/// Windows as the engine answered them: only those that hold samples, labelled by their starts.
struct Reduced {
    series: std::vec::IntoIter<SeriesColumns>,
    windows: Windows,
    start: Timestamp,
}

impl WindowStream for Reduced {
    fn next(&mut self, values: &mut Vec<f64>) -> Result<Option<Labels>> {
        values.clear();
        let Some(series) = self.series.next() else { return Ok(None) };
        values.resize(self.windows.count, ABSENT);
        for (time, value) in series.times.iter().zip(series.doubles()) {
            let offset = time.nanos().saturating_sub(self.start.nanos());
            let index = usize::try_from(offset / self.windows.width).unwrap_or(usize::MAX);
            let Some(slot) = values.get_mut(index) else {
                return Err(Error::corrupt("the engine answered a window that was not asked for"));
            };
            *slot = if self.windows.function == WindowFunction::Present { 1.0 } else { *value };
        }
        Ok(Some(Labels::from(&series.key)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_doubles_of_one_name_become_one_series() {
        let (mut times, mut values) = (vec![1, 5, 2, 5, 9], vec![1.0, 5.0, 2.0, 50.0, 9.0]);
        merge(2, &mut times, &mut values);
        assert_eq!(times, [1, 2, 5, 9]);
        assert_eq!(values, [1.0, 2.0, 5.0, 9.0]);
    }

    #[test]
    fn only_windows_end_to_end_are_the_engines() {
        let windows =
            Windows { function: WindowFunction::Max, first_end: 100, step: 10, count: 3, width: 10 };
        let range = end_to_end(&windows).unwrap();
        assert_eq!((range.start.nanos(), range.end.nanos()), (91, 121));
        assert!(end_to_end(&Windows { width: 11, ..windows }).is_none());
        assert!(end_to_end(&Windows { width: 11, count: 1, ..windows }).is_some());
        assert!(end_to_end(&Windows { first_end: i64::MIN, ..windows }).is_none());
    }
}
