//! Windows of time and the folding of one series into them, in one pass over its samples.

use std::time::Duration;

use crate::chunk::PageAggregate;
use crate::error::{Error, Result};
use crate::model::{TimeRange, Timestamp};
use crate::query::fold::{Fold, Number};
use crate::query::source::PageInfo;

/// How time is cut: into half-open windows `[t, t + step)` with `t` a whole number of steps away from an
/// origin, or into the one window that is the whole range.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Windows {
    range: TimeRange,
    /// Origin and step in nanoseconds.
    grid: Option<(i64, i64)>,
}

impl Windows {
    /// One window, labelled by the start of the range.
    pub(crate) fn whole(range: TimeRange) -> Self {
        Windows { range, grid: None }
    }

    /// Windows of length `step` from `origin` on, in both directions.
    ///
    /// # Errors
    /// `InvalidInput` for a step of nothing or of more than 292 years.
    pub(crate) fn new(range: TimeRange, origin: Timestamp, step: Duration) -> Result<Self> {
        let nanos = i64::try_from(step.as_nanos()).ok().filter(|step| *step > 0);
        let step = nanos.ok_or_else(|| Error::invalid_input(format!("a window cannot be {step:?} long")))?;
        Ok(Windows { range, grid: Some((origin.nanos(), step)) })
    }

    /// Label of the window that holds `time`, and the first time after that window.
    fn around(&self, time: i64) -> (i64, i64) {
        let Some((origin, step)) = self.grid else {
            return (self.range.start.nanos(), self.range.end.nanos());
        };
        let into = match time.checked_sub(origin) {
            Some(distance) => distance.rem_euclid(step),
            None => narrow((i128::from(time) - i128::from(origin)).rem_euclid(i128::from(step))),
        };
        // A window can reach beyond the times that exist; nothing is there.
        (time.saturating_sub(into), time.saturating_add(step - into))
    }

    /// Seconds of the window labelled `label` that lie in the range.
    pub(crate) fn seconds(&self, label: i64) -> f64 {
        let end = self.grid.map_or(self.range.end.nanos(), |(_, step)| label.saturating_add(step));
        let start = i128::from(label.max(self.range.start.nanos()));
        (i128::from(end.min(self.range.end.nanos())) - start) as f64 / 1e9
    }
}

/// A remainder by an i64 is one.
fn narrow(remainder: i128) -> i64 {
    i64::try_from(remainder).unwrap_or(i64::MAX)
}

/// A window that holds something.
#[derive(Clone, Debug)]
pub(crate) struct Window<F> {
    /// Where it starts, in nanoseconds.
    pub label: i64,
    /// What is known of its samples.
    pub fold: F,
}

/// Folds one series, given in order of time, into windows.
#[derive(Debug)]
pub(crate) struct WindowFolder<F> {
    windows: Windows,
    /// The first time after the last window of `out`.
    end: i64,
    out: Vec<Window<F>>,
}

impl<F: Fold> WindowFolder<F> {
    pub(crate) fn new(windows: Windows) -> Self {
        WindowFolder { windows, end: i64::MIN, out: Vec::new() }
    }

    /// Adds a page by its aggregate. False, having changed nothing, when it meets more than one window or
    /// its aggregate does not say enough.
    pub(crate) fn add_page(&mut self, page: &PageInfo, aggregate: &PageAggregate) -> bool {
        if page.min_time < self.end {
            let Some(last) = self.out.last_mut() else { return false };
            return page.max_time < self.end && last.fold.add_page(page, aggregate);
        }
        let (label, end) = self.next_window(page.min_time);
        let mut fold = F::empty();
        if page.max_time >= end || !fold.add_page(page, aggregate) {
            return false;
        }
        self.out.push(Window { label, fold });
        self.end = end;
        true
    }

    /// Adds samples: strictly rising times after all those before, and as many values.
    pub(crate) fn add_samples<T: Number>(&mut self, times: &[i64], values: &[T]) {
        self.split(times, |fold, start, end| {
            let (times, values) = (times.get(start..end), values.get(start..end));
            T::feed(fold, times.unwrap_or_default(), values.unwrap_or_default());
        });
    }

    /// Adds samples of which only the times are known.
    pub(crate) fn add_times(&mut self, times: &[i64]) {
        self.split(times, |fold, start, end| fold.add_times(times.get(start..end).unwrap_or_default()));
    }

    /// The window that holds `time`, which lies after the last one. Mostly the very next: no division then.
    fn next_window(&self, time: i64) -> (i64, i64) {
        match self.windows.grid {
            Some((_, step)) if !self.out.is_empty() && time - self.end < step => {
                (self.end, self.end.saturating_add(step))
            }
            _ => self.windows.around(time),
        }
    }

    /// Calls `add` for each stretch of `times` that lies in one window.
    fn split(&mut self, times: &[i64], mut add: impl FnMut(&mut F, usize, usize)) {
        let mut start = 0;
        while let Some(first) = times.get(start) {
            if *first >= self.end {
                let (label, end) = self.next_window(*first);
                self.out.push(Window { label, fold: F::empty() });
                self.end = end;
            }
            let count = count_before(times.get(start..).unwrap_or_default(), self.end);
            if let Some(window) = self.out.last_mut() {
                add(&mut window.fold, start, start + count);
            }
            start += count;
        }
    }

    /// The windows that hold a sample, in order of time, for the caller to take out; then the folder is ready
    /// for the next series.
    pub(crate) fn finish(&mut self) -> &mut Vec<Window<F>> {
        self.end = i64::MIN;
        &mut self.out
    }
}

/// How many of the rising `times` lie before `end`; the first one does. Steps double and then halve, so
/// that short windows cost a few comparisons and long ones no walk.
fn count_before(times: &[i64], end: i64) -> usize {
    if times.last().is_some_and(|last| *last < end) {
        return times.len();
    }
    let mut reach = 1;
    while times.get(reach).is_some_and(|time| *time < end) {
        reach *= 2;
    }
    let known = reach / 2;
    let between = times.get(known..reach.min(times.len())).unwrap_or_default();
    known + between.partition_point(|time| *time < end)
}

/// Takes the windows of another series into those of a group; both ascend by label.
pub(crate) fn combine_windows<F: Fold>(group: &mut Vec<Window<F>>, series: &mut Vec<Window<F>>) {
    let same =
        group.len() == series.len() && group.iter().zip(series.iter()).all(|(a, b)| a.label == b.label);
    if same {
        group.iter_mut().zip(series.drain(..)).for_each(|(own, other)| own.fold.combine(other.fold));
        return;
    }
    let mut merged: Vec<Window<F>> = Vec::with_capacity(group.len().max(series.len()));
    let mut others = series.drain(..).peekable();
    for own in group.drain(..) {
        while let Some(other) = others.next_if(|other| other.label < own.label) {
            merged.push(other);
        }
        let mut own = own;
        if let Some(other) = others.next_if(|other| other.label == own.label) {
            own.fold.combine(other.fold);
        }
        merged.push(own);
    }
    merged.extend(others);
    *group = merged;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::query::fold::CountFold;

    fn windows(origin: i64, step: u64) -> Windows {
        Windows::new(TimeRange::ALL, Timestamp::from_nanos(origin), Duration::from_nanos(step)).unwrap()
    }

    #[test]
    fn windows_lie_on_the_grid() {
        assert_eq!(windows(0, 10).around(25), (20, 30));
        assert_eq!(windows(0, 10).around(-1), (-10, 0));
        assert_eq!(windows(3, 10).around(2), (-7, 3));
        assert_eq!(windows(i64::MAX, 10).around(i64::MIN + 1).1 - (i64::MIN + 1), 4);
        assert_eq!(windows(0, 1 << 62).around(i64::MAX - 1).1, i64::MAX);
        let refused = Windows::new(TimeRange::ALL, Timestamp::default(), Duration::ZERO);
        assert_eq!(refused.unwrap_err().kind(), crate::ErrorKind::InvalidInput);
        assert!(Windows::new(TimeRange::ALL, Timestamp::default(), Duration::MAX).is_err());
    }

    #[test]
    fn each_sample_falls_into_its_window() {
        for step in [1, 2, 3, 7, 100, 5_000] {
            let times: Vec<i64> = (0..1_000).map(|n| n * n % 13 + n * 13).collect();
            let mut folder = WindowFolder::<CountFold>::new(windows(5, step));
            times.chunks(37).for_each(|chunk| folder.add_times(chunk));
            let found: Vec<(i64, f64)> =
                folder.finish().drain(..).map(|w| (w.label, w.fold.finish(0.0, 0.0).unwrap())).collect();
            let mut expected = std::collections::BTreeMap::new();
            let label = |time: i64| (time - 5).div_euclid(step as i64) * step as i64 + 5;
            times.iter().for_each(|time| *expected.entry(label(*time)).or_insert(0.0) += 1.0);
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>());
        }
    }
}
