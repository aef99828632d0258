//! Series in memory, as a source of queries.

use std::collections::BTreeMap;

use icecore::promql::{ABSENT, Hints, Labels, SeriesStream, Source, WindowFunction, WindowStream, Windows};
use icecore::{Result, Selector, TimeRange, Timestamp, is_stale};

#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) series: BTreeMap<Labels, BTreeMap<i64, f64>>,
    /// Whether it reduces windows itself, as a store with page aggregates does.
    pub(crate) reduces: bool,
}

impl Memory {
    pub(crate) fn add(&mut self, labels: Labels, millis: i64, value: f64) {
        self.series.entry(labels).or_default().insert(millis * 1_000_000, value);
    }

    fn matching(&self, selector: &Selector) -> std::vec::IntoIter<(&Labels, &BTreeMap<i64, f64>)> {
        let matches =
            |labels: &Labels| selector.matchers.iter().all(|m| m.condition.matches(labels.get(&m.key)));
        self.series.iter().filter(|(labels, _)| matches(labels)).collect::<Vec<_>>().into_iter()
    }
}

impl Source for Memory {
    fn select<'a>(
        &'a self,
        selector: &Selector,
        range: TimeRange,
        _: &Hints,
    ) -> Result<Box<dyn SeriesStream + 'a>> {
        Ok(Box::new(Rows { rows: self.matching(selector), range }))
    }

    fn select_windows<'a>(
        &'a self,
        selector: &Selector,
        windows: &Windows,
    ) -> Result<Option<Box<dyn WindowStream + 'a>>> {
        let rows = self.matching(selector);
        Ok(self.reduces.then(|| Box::new(Reduced { rows, windows: *windows }) as Box<dyn WindowStream>))
    }
}

type RowIter<'a> = std::vec::IntoIter<(&'a Labels, &'a BTreeMap<i64, f64>)>;

struct Rows<'a> {
    rows: RowIter<'a>,
    range: TimeRange,
}

impl SeriesStream for Rows<'_> {
    fn next(&mut self, times: &mut Vec<i64>, values: &mut Vec<f64>) -> Result<Option<Labels>> {
        times.clear();
        values.clear();
        let Some((labels, samples)) = self.rows.next() else { return Ok(None) };
        for (time, value) in samples.iter().filter(|(t, _)| self.range.contains(Timestamp::from_nanos(**t))) {
            times.push(*time);
            values.push(*value);
        }
        Ok(Some(labels.clone()))
    }
}

/// Each window by itself: slow and plain, to compare the evaluator with.
struct Reduced<'a> {
    rows: RowIter<'a>,
    windows: Windows,
}

impl WindowStream for Reduced<'_> {
    fn next(&mut self, values: &mut Vec<f64>) -> Result<Option<Labels>> {
        values.clear();
        let Some((labels, samples)) = self.rows.next() else { return Ok(None) };
        let windows = self.windows;
        for index in 0..windows.count {
            let end = windows.first_end + windows.step * index as i64;
            let inside = samples.range(end - windows.width + 1..=end).map(|(_, v)| *v);
            let inside: Vec<f64> = inside.filter(|v| !is_stale(*v)).collect();
            let reduced = match (windows.function, inside.as_slice()) {
                (_, []) => ABSENT,
                (WindowFunction::Count, all) => all.len() as f64,
                (WindowFunction::Present, _) => 1.0,
                (WindowFunction::First, [first, ..]) => *first,
                (WindowFunction::Last, [.., last]) => *last,
                (WindowFunction::Max, all) => all.iter().copied().fold(f64::NAN, f64::max),
                (WindowFunction::Min, all) => all.iter().copied().fold(f64::NAN, f64::min),
                (other, _) => panic!("{other:?} is not asked of sources"),
            };
            values.push(reduced);
        }
        Ok(Some(labels.clone()))
    }
}
