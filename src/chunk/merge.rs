//! The one rule for duplicates, and merging pages of one series by it.
//!
//! Of samples of one series at one time, the one of the later commit wins. [`newest_order`] decides
//! that, for everybody: head runs, flush, queries and compaction. All else here finds out where the
//! rule has no work to do (pages that nothing meets are taken as they are) and hands it the rest
//! piece by piece, so that a merge of any length holds only the pages that lie over one another.

use crate::error::Result;
use crate::model::{BytesColumn, Column};

/// A merge stops loading pages and hands out what is final once it has loaded this many samples.
const MERGE_BATCH_SAMPLE_COUNT: u32 = 8 * 1024;

/// Which entries of `times` remain, and in which order: ascending in time, and of equal times only
/// the one that comes last. Clears `order` first.
///
/// `times` is one column, or several that were put one behind the other, oldest commit first. Runs
/// that already ascend are found and merged, not sorted (the standard library's stable sort).
pub(crate) fn newest_order(times: &[i64], order: &mut Vec<u32>) {
    order.clear();
    order.extend(0..u32::try_from(times.len()).expect("fewer than 2^32 samples are merged at once"));
    let time = |index: u32| times.get(index as usize).copied().unwrap_or_default();
    order.sort_by_key(|index| time(*index));
    order.dedup_by(|later, kept| {
        let same = time(*later) == time(*kept);
        if same {
            *kept = *later;
        }
        same
    });
}

/// Whether `times` strictly rise, so that the rule has nothing to do.
pub(crate) fn strictly_rises(times: &[i64]) -> bool {
    times.is_sorted_by(|a, b| a < b)
}

/// Applies the rule to samples in order of commit: sorts by time, later duplicates win.
#[cfg(test)]
pub(crate) fn sort_columns(times: &mut Vec<i64>, values: &mut Column) {
    if strictly_rises(times) {
        return;
    }
    let mut order = Vec::new();
    newest_order(times, &mut order);
    *times = gather(times, &order);
    *values = gather_column(values, &order);
}

/// Some of the values of a column.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ColumnSlice<'a> {
    /// Doubles.
    F64(&'a [f64]),
    /// Integers.
    I64(&'a [i64]),
    /// The byte strings from the first index up to, not including, the second.
    Bytes(&'a BytesColumn, usize, usize),
}

impl<'a> ColumnSlice<'a> {
    /// The values `start..end` of `column`; fewer when it is shorter.
    pub(crate) fn new(column: &'a Column, start: usize, end: usize) -> Self {
        let end = end.min(column.len());
        let start = start.min(end);
        match column {
            Column::F64(values) => ColumnSlice::F64(values.get(start..end).unwrap_or_default()),
            Column::I64(values) => ColumnSlice::I64(values.get(start..end).unwrap_or_default()),
            Column::Bytes(values) => ColumnSlice::Bytes(values, start, end),
        }
    }

    /// How many values.
    pub(crate) fn len(self) -> usize {
        match self {
            ColumnSlice::F64(values) => values.len(),
            ColumnSlice::I64(values) => values.len(),
            ColumnSlice::Bytes(_, start, end) => end - start,
        }
    }

    /// The values `start..end` of these, which lie inside.
    #[cfg(test)]
    pub(crate) fn slice(self, start: usize, end: usize) -> Self {
        match self {
            ColumnSlice::F64(values) => ColumnSlice::F64(&values[start..end]),
            ColumnSlice::I64(values) => ColumnSlice::I64(&values[start..end]),
            ColumnSlice::Bytes(column, offset, _) => ColumnSlice::Bytes(column, offset + start, offset + end),
        }
    }

    /// Appends the values to `out`, which must be of the same type: anything else is a bug.
    pub(crate) fn append_to(self, out: &mut Column) {
        match (self, out) {
            (ColumnSlice::F64(values), Column::F64(out)) => out.extend_from_slice(values),
            (ColumnSlice::I64(values), Column::I64(out)) => out.extend_from_slice(values),
            (ColumnSlice::Bytes(values, start, end), Column::Bytes(out)) => {
                (start..end).for_each(|index| out.push(values.get(index).unwrap_or_default()));
            }
            (_, out) => panic!("values are appended to a column of {}", out.value_type().name()),
        }
    }
}

/// Sorted, duplicate-free samples of one series.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part<'a> {
    /// Times, strictly rising.
    pub times: &'a [i64],
    /// As many values.
    pub values: ColumnSlice<'a>,
}

/// Appends the samples of all `parts`, oldest commit first, to `times` and `values` by the rule.
///
/// Parts of which each lies wholly after the one before it cost a copy; so does a single part. Nothing
/// that was in the columns before takes part.
pub(crate) fn merge_columns(parts: &[Part<'_>], times: &mut Vec<i64>, values: &mut Column) {
    if !are_consecutive(parts) {
        return merge_overlapping(parts, times, values);
    }
    for part in parts {
        times.extend_from_slice(part.times);
        part.values.append_to(values);
    }
}

/// Whether each part that holds something starts after everything before it.
fn are_consecutive(parts: &[Part<'_>]) -> bool {
    let mut last = None;
    parts.iter().filter(|part| !part.times.is_empty()).all(|part| {
        let after = last < part.times.first();
        last = part.times.last();
        after
    })
}

fn merge_overlapping(parts: &[Part<'_>], times: &mut Vec<i64>, values: &mut Column) {
    let mut all_times = Vec::with_capacity(parts.iter().map(|part| part.times.len()).sum());
    let mut all_values = Column::new(values.value_type());
    for part in parts {
        all_times.extend_from_slice(part.times);
        part.values.append_to(&mut all_values);
    }
    let mut order = Vec::new();
    newest_order(&all_times, &mut order);
    times.extend(order.iter().filter_map(|index| all_times.get(*index as usize)));
    let merged = gather_column(&all_values, &order);
    ColumnSlice::new(&merged, 0, merged.len()).append_to(values);
}

fn gather<T: Copy>(values: &[T], order: &[u32]) -> Vec<T> {
    order.iter().filter_map(|index| values.get(*index as usize).copied()).collect()
}

fn gather_column(values: &Column, order: &[u32]) -> Column {
    match values {
        Column::F64(values) => Column::F64(gather(values, order)),
        Column::I64(values) => Column::I64(gather(values, order)),
        Column::Bytes(values) => {
            let mut out = BytesColumn::default();
            order.iter().filter_map(|index| values.get(*index as usize)).for_each(|value| out.push(value));
            Column::Bytes(out)
        }
    }
}

/// A page (or head run) as the plan sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageSpan {
    /// Time of its first sample, in nanoseconds.
    pub min_time: i64,
    /// Time of its last sample.
    pub max_time: i64,
    /// Order of commit among the pages of the series: at one time, the greater rank wins.
    pub rank: u64,
    /// How many samples it holds.
    pub count: u32,
    /// Whether samples of it may have been deleted, so that it cannot be taken as it is.
    pub masked: bool,
    /// The caller's own number for it.
    pub page: u32,
}

/// One step in going through a series in order of time. Numbers are positions in the planned spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing meets this page, and nothing of it is deleted.
    Page(u32),
    /// Load the pages `start..end`; then everything loaded that lies before `until` is final.
    Merge {
        /// The first page to load.
        start: u32,
        /// After the last page to load.
        end: u32,
        /// No page that is still to come holds a sample before this time.
        until: i64,
    },
}

/// Sorts the pages of one series by time and plans the way through them. Clears `steps` first.
///
/// The samples that the steps give, one after the other, strictly rise in time.
pub(crate) fn plan_steps(spans: &mut [PageSpan], steps: &mut Vec<Step>) {
    steps.clear();
    spans.sort_unstable_by_key(|span| (span.min_time, span.rank, span.page));
    let mut start = 0;
    while let Some(span) = spans.get(start) {
        let alone = spans.get(start + 1).is_none_or(|next| span.max_time < next.min_time);
        if alone && !span.masked {
            steps.push(Step::Page(position(start)));
            start += 1;
        } else {
            start = plan_merge(spans, start, steps);
        }
    }
}

/// Plans the pages from `start` on that hang together by overlaps; returns where the next one starts.
fn plan_merge(spans: &[PageSpan], start: usize, steps: &mut Vec<Step>) -> usize {
    let (mut first, mut loaded, mut max_time) = (start, 0_u32, i64::MIN);
    for (index, span) in spans.iter().enumerate().skip(start) {
        max_time = max_time.max(span.max_time);
        loaded = loaded.saturating_add(span.count);
        let next = spans.get(index + 1).filter(|next| next.min_time <= max_time);
        if next.is_none() || loaded >= MERGE_BATCH_SAMPLE_COUNT {
            let until = next.map_or(max_time.saturating_add(1), |next| next.min_time);
            steps.push(Step::Merge { start: position(first), end: position(index + 1), until });
            (first, loaded) = (index + 1, 0);
        }
        if next.is_none() {
            return index + 1;
        }
    }
    spans.len()
}

fn position(index: usize) -> u32 {
    u32::try_from(index).expect("a series has fewer than 2^32 pages in a scan")
}

/// The loaded pages of the merge that is under way.
#[derive(Debug, Default)]
pub(crate) struct PageMerger {
    active: Vec<LoadedPage>,
    /// Emptied pages, kept for their memory.
    spare: Vec<LoadedPage>,
}

#[derive(Debug)]
struct LoadedPage {
    rank: u64,
    times: Vec<i64>,
    values: Column,
    /// How many samples were handed out already.
    taken: usize,
}

impl PageMerger {
    /// Loads a page: `read` appends its samples (deleted ones left out) to empty columns.
    ///
    /// # Errors
    /// Those of `read`.
    pub(crate) fn load(
        &mut self,
        rank: u64,
        value_type: crate::model::ValueType,
        read: impl FnOnce(&mut Vec<i64>, &mut Column) -> Result<()>,
    ) -> Result<()> {
        let mut page = match self.spare.pop() {
            Some(page) if page.values.value_type() == value_type => LoadedPage { rank, ..page },
            _ => LoadedPage { rank, times: Vec::new(), values: Column::new(value_type), taken: 0 },
        };
        read(&mut page.times, &mut page.values)?;
        let at = self.active.partition_point(|other| other.rank < rank);
        self.active.insert(at, page);
        Ok(())
    }

    /// Appends all loaded samples before `until` that were not handed out yet, by the rule.
    pub(crate) fn drain(&mut self, until: i64, times: &mut Vec<i64>, values: &mut Column) {
        let mut parts = Vec::with_capacity(self.active.len());
        for page in &mut self.active {
            let start = page.taken;
            let rest = page.times.get(start..).unwrap_or_default();
            page.taken += rest.partition_point(|time| *time < until);
            let (taken, values) = (page.taken, &page.values);
            let times = page.times.get(start..taken).unwrap_or_default();
            parts.push(Part { times, values: ColumnSlice::new(values, start, taken) });
        }
        merge_columns(&parts, times, values);
        drop(parts);
        self.retire();
    }

    /// Forgets everything that is loaded.
    pub(crate) fn clear(&mut self) {
        for page in &mut self.active {
            page.taken = page.times.len();
        }
        self.retire();
    }

    fn retire(&mut self) {
        let done = self.active.extract_if(.., |page| page.taken == page.times.len());
        self.spare.extend(done.map(|mut page| {
            page.times.clear();
            page.values.clear();
            page.taken = 0;
            page
        }));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::model::ValueType;

    fn order(times: &[i64]) -> Vec<u32> {
        let mut order = vec![7];
        newest_order(times, &mut order);
        order
    }

    #[test]
    fn the_later_of_two_wins() {
        assert!(order(&[]).is_empty());
        assert_eq!(order(&[1, 2, 3]), [0, 1, 2]);
        assert_eq!(order(&[1, 2, 3, 2]), [0, 3, 2]);
        assert_eq!(order(&[5, 5, 5]), [2]);
        assert_eq!(order(&[9, i64::MAX, i64::MIN, 9]), [2, 3, 1]);
    }

    #[test]
    fn columns_of_each_type_are_sorted() {
        let bytes = |values: &[i64]| {
            let mut column = BytesColumn::default();
            values.iter().for_each(|v| column.push(v.to_string().as_bytes()));
            Column::Bytes(column)
        };
        let doubles = |values: &[i64]| Column::F64(values.iter().map(|v| *v as f64).collect());
        let integers = |values: &[i64]| Column::I64(values.to_vec());
        for make in [&bytes as &dyn Fn(&[i64]) -> Column, &doubles, &integers] {
            let (mut times, mut values) = (vec![9, 8, 4, 8], make(&[1, 2, 3, 4]));
            sort_columns(&mut times, &mut values);
            assert_eq!((times, values), (vec![4, 8, 9], make(&[3, 4, 1])));
        }
    }

    /// Small pages at random places, as `(times, value)`: every sample of a page has its rank as value.
    fn random_pages(seed: u64) -> Vec<Vec<i64>> {
        let mut state = seed;
        let mut next = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let page = |start: u64, next: &mut dyn FnMut(u64) -> u64| {
            let mut time = start as i64;
            (0..=next(6))
                .map(|_| {
                    time += 1 + next(3) as i64;
                    time
                })
                .collect()
        };
        (0..next(12))
            .map(|_| {
                let start = next(40);
                page(start, &mut next)
            })
            .collect()
    }

    #[test]
    fn steps_give_what_the_map_gives() {
        for seed in 0..2_000 {
            let pages = random_pages(seed);
            let mut model = BTreeMap::new();
            for (rank, page) in pages.iter().enumerate() {
                page.iter().for_each(|time| {
                    model.insert(*time, rank as i64);
                });
            }
            let (times, values, untouched) = run_steps(&pages, seed % 3 == 0);
            let expected: (Vec<i64>, Vec<i64>) = model.into_iter().unzip();
            assert_eq!((times, values), expected, "seed {seed}");
            for page in untouched {
                let met = |other: &Vec<i64>| {
                    other.first() <= pages[page].last() && pages[page].first() <= other.last()
                };
                assert_eq!(pages.iter().filter(|other| met(other)).count(), 1, "seed {seed}");
            }
        }
    }

    fn run_steps(pages: &[Vec<i64>], huge: bool) -> (Vec<i64>, Vec<i64>, Vec<usize>) {
        let mut spans: Vec<PageSpan> = pages
            .iter()
            .enumerate()
            .map(|(rank, page)| PageSpan {
                min_time: page[0],
                max_time: *page.last().unwrap(),
                rank: rank as u64,
                count: if huge { MERGE_BATCH_SAMPLE_COUNT } else { page.len() as u32 },
                masked: false,
                page: rank as u32,
            })
            .collect();
        let (mut steps, mut merger) = (Vec::new(), PageMerger::default());
        plan_steps(&mut spans, &mut steps);
        let (mut times, mut values, mut untouched) = (Vec::new(), Column::I64(Vec::new()), Vec::new());
        let read = |span: &PageSpan, times: &mut Vec<i64>, values: &mut Column| {
            let page = &pages[span.page as usize];
            times.extend(page);
            ColumnSlice::I64(&vec![span.rank as i64; page.len()]).append_to(values);
            Ok(())
        };
        for step in steps {
            match step {
                Step::Page(index) => {
                    let span = &spans[index as usize];
                    untouched.push(span.page as usize);
                    read(span, &mut times, &mut values).unwrap();
                }
                Step::Merge { start, end, until } => {
                    for span in &spans[start as usize..end as usize] {
                        merger.load(span.rank, ValueType::I64, |t, v| read(span, t, v)).unwrap();
                    }
                    merger.drain(until, &mut times, &mut values);
                }
            }
        }
        assert!(merger.active.is_empty());
        let Column::I64(values) = values else { unreachable!() };
        (times, values, untouched)
    }

    #[test]
    fn long_overlaps_are_merged_in_pieces() {
        let span = |min_time: i64, rank| PageSpan {
            min_time,
            max_time: min_time + 15,
            rank,
            count: 8192,
            masked: false,
            page: 0,
        };
        let mut spans: Vec<PageSpan> = (0..100).map(|n| span(n * 10, n as u64)).collect();
        let mut steps = Vec::new();
        plan_steps(&mut spans, &mut steps);
        assert_eq!(steps.len(), 100);
        assert_eq!(steps[1], Step::Merge { start: 1, end: 2, until: 20 });
    }
}
