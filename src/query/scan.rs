//! Going through one series: its pages of all sources in order of time, duplicates and deletes settled.
//!
//! Everything that reads samples for a query does it here: windows, raw ranges, streams, last values.

use std::sync::Arc;

use crate::chunk::merge::{ColumnSlice, PageMerger, PageSpan, Step, plan_steps};
use crate::chunk::{Ends, PageAggregate};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{
    BytesColumn, Column, Selector, SeriesKey, TimeRange, Timestamp, Value, ValueType, is_stale,
};
use crate::query::aggregate::{Filter, Verdict};
use crate::query::budget::{Budget, QueryReport};
use crate::query::select::{Chosen, Part, Selection};
use crate::query::source::{Cursor, Damaged, PageInfo, Snapshot, Source, Tombstone};

/// What all scans of one query share.
#[derive(Debug)]
pub(crate) struct Context {
    pub snapshot: Snapshot,
    /// The times asked for, at or above the retention floor.
    pub range: TimeRange,
    pub budget: Budget,
    /// Only samples that it keeps.
    pub filter: Option<Filter>,
    /// Whether staleness markers are left out (and counted).
    pub drop_stale: bool,
    /// Whether pages that turn out to be damaged are left out (and reported).
    pub partial_allowed: bool,
    /// For each source, the tombstones that are younger than it and meet the range.
    deletes: Vec<Vec<Tombstone>>,
    /// The last LSN of all tombstones of the snapshot.
    last_delete: u64,
}

impl Context {
    pub(crate) fn new(snapshot: Snapshot, range: TimeRange, budget: Budget) -> Self {
        let range = TimeRange { start: range.start.max(snapshot.floor), end: range.end };
        let applies = |source: &Arc<dyn Source>, tombstone: &&Tombstone| {
            let met = source.time_bounds().is_some_and(|(min, max)| tombstone.range.meets(min, max));
            met && tombstone.lsn > source.lsn_last() && !tombstone.range.intersect(range).is_empty()
        };
        let of_source = |source: &Arc<dyn Source>| {
            snapshot.tombstones.iter().filter(|tombstone| applies(source, tombstone)).cloned().collect()
        };
        let deletes = snapshot.sources.iter().map(of_source).collect();
        let last_delete = snapshot.tombstones.iter().map(|tombstone| tombstone.lsn).max().unwrap_or(0);
        Context {
            snapshot,
            range,
            budget,
            filter: None,
            drop_stale: false,
            partial_allowed: false,
            deletes,
            last_delete,
        }
    }

    /// The end of the range in which samples can lie: a sixteenth of it, or all where that is nothing.
    pub(crate) fn tail(&self) -> TimeRange {
        let bounds = self.snapshot.sources.iter().filter_map(|source| source.time_bounds());
        let Some((min, max)) = bounds.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else { return self.range };
        let last = max.min(self.range.end).nanos();
        let length = last.saturating_sub(min.max(self.range.start).nanos()) / 16;
        let start = Timestamp::from_nanos(last.saturating_sub(length)).max(self.range.start);
        TimeRange { start, end: self.range.end }
    }

    /// The source at a position that a selection named.
    pub(crate) fn source(&self, position: usize) -> &Arc<dyn Source> {
        self.snapshot.sources.get(position).expect("selections name sources of their own snapshot")
    }

    /// Whether deletes may touch series of this source.
    pub(crate) fn has_deletes(&self, source: usize) -> bool {
        self.deletes.get(source).is_some_and(|deletes| !deletes.is_empty())
    }

    /// Appends the ranges that are deleted from a series in this source.
    fn deleted(&self, source: usize, key: Option<&SeriesKey>, out: &mut Vec<TimeRange>) {
        let matches = |selector: &Selector| key.is_none_or(|key| selector.matches(key));
        let deletes = self.deletes.get(source).into_iter().flatten();
        out.extend(deletes.filter(|delete| matches(&delete.selector)).map(|delete| delete.range));
    }
}

/// A scan of one series after the other. Keeps its buffers, so that a series costs no allocation.
#[derive(Debug)]
pub(crate) struct Scan {
    context: Arc<Context>,
    /// What was done so far.
    pub report: QueryReport,
    /// By position of the source; made when a source is first met.
    cursors: Vec<Option<Box<dyn Cursor>>>,
    /// By position of the source.
    later_deletes: Vec<LaterDeletes>,
    value_type: ValueType,
    pages: Vec<PageInfo>,
    origins: Vec<Origin>,
    deleted: Vec<TimeRange>,
    spans: Vec<PageSpan>,
    /// Empty when every page is a step of its own, in the order of `pages`.
    steps: Vec<Step>,
    merger: PageMerger,
}

/// Deletes that a source carried out on itself after the snapshot was pinned, as far as they were met.
///
/// A series that shows such a delete in one source must show it in all, or it would be the result of no prefix
/// of the commits (`docs/architecture.md`, "Versions").
#[derive(Debug, Default)]
struct LaterDeletes {
    /// How many of all its deletes were looked at.
    seen_count: usize,
    /// With their numbers.
    deletes: Vec<(usize, Tombstone)>,
}

/// Whose pages: those from `first_page` up to the next origin's.
#[derive(Clone, Copy, Debug)]
struct Origin {
    source: usize,
    first_page: usize,
    /// The ranges `start..end` of `deleted` apply.
    deleted: (usize, usize),
}

impl Scan {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        let cursors = context.snapshot.sources.iter().map(|_| None).collect();
        let later_deletes = context.snapshot.sources.iter().map(|_| LaterDeletes::default()).collect();
        Scan {
            context,
            cursors,
            later_deletes,
            report: QueryReport::default(),
            value_type: ValueType::F64,
            pages: Vec::new(),
            origins: Vec::new(),
            deleted: Vec::new(),
            spans: Vec::new(),
            steps: Vec::new(),
            merger: PageMerger::default(),
        }
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// Finds the pages of a series in `range` and plans the way through them.
    pub(crate) fn open(&mut self, selection: &Selection, chosen: &Chosen, range: TimeRange) -> Result<()> {
        self.value_type = chosen.value_type;
        self.pages.clear();
        self.origins.clear();
        self.deleted.clear();
        self.steps.clear();
        self.merger.clear();
        for part in selection.parts(chosen) {
            let first_page = self.pages.len();
            self.origins.push(Origin { source: part.source, first_page, deleted: (0, 0) });
            let cursor = cursor_of(&mut self.cursors, &self.context, part.source);
            cursor.seek(part.ordinal)?;
            cursor.pages(range, &mut self.pages)?;
        }
        self.find_deleted(selection.parts(chosen), chosen.key.as_ref());
        self.report.pages += self.pages.len() as u64;
        let simple = self.deleted.is_empty() && self.pages.is_sorted_by(|a, b| a.max_time < b.min_time);
        if !simple {
            self.plan();
        }
        self.context.budget.check()
    }

    /// Finds what is deleted of each part of a series, whose samples are at hand.
    fn find_deleted(&mut self, parts: &[Part], key: Option<&SeriesKey>) {
        let joined = parts.len() > 1;
        if joined {
            parts.iter().for_each(|part| self.learn_deletes(part.source));
        }
        for origin in &mut self.origins {
            let start = self.deleted.len();
            if self.context.has_deletes(origin.source) {
                self.context.deleted(origin.source, key, &mut self.deleted);
            }
            for part in parts.iter().filter(|_| joined) {
                let Some(later) = self.later_deletes.get(part.source) else { continue };
                if later.deletes.is_empty() {
                    continue;
                }
                let count = cursor_of(&mut self.cursors, &self.context, part.source).delete_count();
                let lsn_last = self.context.source(origin.source).lsn_last();
                let applies = |tombstone: &Tombstone| {
                    tombstone.lsn > lsn_last && key.is_none_or(|key| tombstone.selector.matches(key))
                };
                let shown = later.deletes.iter().take_while(|(number, _)| *number < count);
                let ranges =
                    shown.filter(|(_, tombstone)| applies(tombstone)).map(|(_, delete)| delete.range);
                self.deleted.extend(ranges);
            }
            origin.deleted = (start, self.deleted.len());
        }
    }

    /// Looks at the deletes that the samples at hand of a source show and no series before did.
    fn learn_deletes(&mut self, source: usize) {
        let cursor = cursor_of(&mut self.cursors, &self.context, source);
        let Some(later) = self.later_deletes.get_mut(source) else { return };
        let count = cursor.delete_count();
        if count > later.seen_count {
            let numbered = (later.seen_count..).zip(cursor.deletes(later.seen_count..count));
            later.deletes.extend(numbered.filter(|(_, delete)| delete.lsn > self.context.last_delete));
            later.seen_count = count;
        }
    }

    fn plan(&mut self) {
        self.spans.clear();
        for (index, page) in self.pages.iter().enumerate() {
            let deleted = self.deleted_of(index);
            let covers =
                |range: &TimeRange| range.start.nanos() <= page.min_time && page.max_time < range.end.nanos();
            if deleted.iter().any(covers) {
                self.report.pages_skipped += 1;
                continue;
            }
            let meets =
                |range: &TimeRange| range.start.nanos() <= page.max_time && page.min_time < range.end.nanos();
            self.spans.push(PageSpan {
                min_time: page.min_time,
                max_time: page.max_time,
                rank: index as u64,
                count: page.count,
                masked: deleted.iter().any(meets),
                page: u32::try_from(index).expect("a series has fewer than 2^32 pages"),
            });
        }
        plan_steps(&mut self.spans, &mut self.steps);
        if self.steps.is_empty() {
            self.pages.clear();
        }
    }

    /// How many steps lead through the series.
    pub(crate) fn step_count(&self) -> usize {
        if self.steps.is_empty() { self.pages.len() } else { self.steps.len() }
    }

    /// Makes room for the samples of all pages, but at most for so many.
    pub(crate) fn reserve(&self, count_max: usize, times: &mut Vec<i64>, values: &mut Column) {
        let count: usize = self.pages.iter().map(|page| page.count as usize).sum();
        let count = if self.context.filter.is_some() { 0 } else { count.min(count_max) };
        times.reserve(count);
        match values {
            Column::F64(values) => values.reserve(count),
            Column::I64(values) => values.reserve(count),
            Column::Bytes(_) => {}
        }
    }

    /// The page that makes up a step alone: nothing meets it and nothing of it is deleted. `None`: a merge.
    pub(crate) fn lone_page(&self, step: usize) -> Option<&PageInfo> {
        self.lone_index(step).and_then(|index| self.pages.get(index))
    }

    fn lone_index(&self, step: usize) -> Option<usize> {
        match self.steps.get(step) {
            None => Some(step),
            Some(Step::Page(span)) => self.spans.get(*span as usize).map(|span| span.page as usize),
            Some(Step::Merge { .. }) => None,
        }
    }

    /// The aggregate of a lone page.
    fn aggregate_of(&self, step: usize) -> Option<&PageAggregate> {
        let index = self.lone_index(step)?;
        let (page, origin) = (self.pages.get(index)?, self.origin(index));
        self.cursors.get(origin.source)?.as_ref()?.aggregate(page.locator)
    }

    /// A lone page that lies wholly in the range, and of which no sample is filtered out, with its
    /// aggregate: the one that may stand for its samples.
    pub(crate) fn aggregated(&self, step: usize) -> Option<(&PageInfo, &PageAggregate)> {
        let page = self.lone_page(step).filter(|page| self.is_inside(page))?;
        let aggregate = self.aggregate_of(step)?;
        let kept = self.context.filter.is_none_or(|filter| filter.verdict(aggregate) == Verdict::All);
        kept.then_some((page, aggregate))
    }

    /// Whether the filter surely keeps nothing of the step, which is then counted as passed over.
    pub(crate) fn skip(&mut self, step: usize) -> bool {
        let Some(filter) = self.context.filter else { return false };
        let aggregate = self.aggregate_of(step);
        let skipped = aggregate.is_some_and(|aggregate| filter.verdict(aggregate) == Verdict::Nothing);
        self.report.pages_skipped += u64::from(skipped);
        skipped
    }

    /// Whether values of this type can be filtered; otherwise the series is counted as left out.
    pub(crate) fn takes_filter(&mut self, value_type: ValueType) -> bool {
        let taken = self.context.filter.is_none() || value_type != ValueType::Bytes;
        self.report.series_without_answer += u64::from(!taken);
        taken
    }

    /// Counts a step that its aggregate has answered.
    pub(crate) fn count_aggregated(&mut self, step: usize) {
        let marked = self.aggregate_of(step);
        self.report.stale_markers += marked.map_or(0, |aggregate| u64::from(aggregate.stale_count));
        self.report.pages_aggregated += 1;
    }

    /// The last sample of a step, if its aggregate tells it.
    pub(crate) fn aggregated_last(&mut self, step: usize) -> Option<(i64, Value)> {
        let (page, aggregate) = self.aggregated(step).filter(|(_, aggregate)| aggregate.stale_count == 0)?;
        let value = match &aggregate.ends {
            Ends::F64(ends) => Value::F64(ends.last),
            Ends::I64(ends) => Value::I64(ends.last),
            Ends::Bytes => return None,
        };
        let found = (page.max_time, value);
        self.report.pages_aggregated += 1;
        Some(found)
    }

    /// Whether the first or last sample of a lone page lies in the range, so that there surely is one.
    pub(crate) fn has_end_inside(&self, step: usize) -> bool {
        let inside = |time: i64| self.context.range.contains(Timestamp::from_nanos(time));
        self.lone_page(step).is_some_and(|page| inside(page.min_time) || inside(page.max_time))
    }

    fn is_inside(&self, page: &PageInfo) -> bool {
        let range = self.context.range;
        range.start.nanos() <= page.min_time && page.max_time < range.end.nanos()
    }

    /// Whether the times alone tell how many samples that are no staleness markers a step has.
    pub(crate) fn can_count_by_times(&self, step: usize) -> bool {
        let unmarked = self.value_type != ValueType::F64 || self.is_unmarked(step);
        self.context.filter.is_none() && self.lone_index(step).is_some() && unmarked
    }

    /// Appends the times of a step in the range; only where [`Scan::can_count_by_times`].
    pub(crate) fn read_times(&mut self, step: usize, times: &mut Vec<i64>) -> Result<()> {
        let Some(index) = self.lone_index(step) else { return Ok(()) };
        let start = times.len();
        let (source, page) = self.begin_page(index)?;
        let read = cursor_of(&mut self.cursors, &self.context, source).read_times(page.locator, times);
        if self.is_damaged(read, &page)? {
            times.truncate(start);
        }
        let inside = inside(times.get(start..).unwrap_or_default(), self.context.range);
        times.truncate(start + inside.end);
        times.drain(start..start + inside.start);
        Ok(())
    }

    /// Appends the samples of a step: in the range, not deleted, the later of two, past the filter, and
    /// without staleness markers where they are to be dropped. Steps are read in order.
    pub(crate) fn read(&mut self, step: usize, times: &mut Vec<i64>, values: &mut Column) -> Result<()> {
        let start = times.len();
        match (self.lone_index(step), self.steps.get(step).copied()) {
            (Some(index), _) => self.read_page(index, times, values)?,
            (None, Some(Step::Merge { start, end, until })) => {
                for position in start..end {
                    self.load(position as usize)?;
                }
                self.merger.drain(until, times, values);
            }
            _ => {}
        }
        self.clip(start, times, values);
        self.sift(step, start, times, values);
        Ok(())
    }

    fn read_page(&mut self, index: usize, times: &mut Vec<i64>, values: &mut Column) -> Result<()> {
        let (source, page) = self.begin_page(index)?;
        let start = times.len();
        let cursor = cursor_of(&mut self.cursors, &self.context, source);
        let read = read_page(cursor, &page, times, values);
        if self.is_damaged(read, &page)? {
            times.truncate(start);
            let count = values.len();
            remove(values, start, count);
        }
        Ok(())
    }

    /// Whether reading a page failed because it is damaged and the query may go on without it.
    fn is_damaged(&mut self, read: Result<()>, page: &PageInfo) -> Result<bool> {
        match read {
            Err(error) if error.kind() == ErrorKind::Corruption && self.context.partial_allowed => {
                let start = Timestamp::from_nanos(page.min_time);
                let end = Timestamp::from_nanos(page.max_time.saturating_add(1));
                let damaged = Damaged { range: TimeRange { start, end }, what: error.to_string() };
                self.report.damaged.push(damaged);
                Ok(true)
            }
            read => read.map(|()| false),
        }
    }

    /// Loads the page of a span into the merger, without what is deleted of it.
    fn load(&mut self, span: usize) -> Result<()> {
        let Some(span) = self.spans.get(span).copied() else { return Ok(()) };
        let index = span.page as usize;
        let (source, page) = self.begin_page(index)?;
        let origin_deleted = self.origin(index).deleted;
        let deleted = self.deleted.get(origin_deleted.0..origin_deleted.1).unwrap_or_default();
        let cursor = cursor_of(&mut self.cursors, &self.context, source);
        let mut read = Ok(());
        self.merger.load(span.rank, self.value_type, |times, values| {
            read = read_page(cursor, &page, times, values);
            if read.is_err() {
                times.clear();
                values.clear();
            }
            for range in deleted {
                let gone = inside(times, *range);
                times.drain(gone.clone());
                remove(values, gone.start, gone.end);
            }
            Ok(())
        })?;
        self.is_damaged(read, &page).map(|_| ())
    }

    /// Counts a page that is about to be decoded, and finds it.
    fn begin_page(&mut self, index: usize) -> Result<(usize, PageInfo)> {
        let origin = self.origin(index);
        let page = self.pages.get(index).copied().expect("steps name pages of their own scan");
        self.context.budget.check()?;
        self.context.budget.take_samples(u64::from(page.count))?;
        self.report.pages_decoded += 1;
        self.report.samples_decoded += u64::from(page.count);
        self.report.bytes_read += u64::from(page.size);
        Ok((origin.source, page))
    }

    fn origin(&self, page: usize) -> Origin {
        let after = self.origins.partition_point(|origin| origin.first_page <= page);
        *after.checked_sub(1).and_then(|at| self.origins.get(at)).expect("every page has an origin")
    }

    fn deleted_of(&self, page: usize) -> &[TimeRange] {
        let (start, end) = self.origin(page).deleted;
        self.deleted.get(start..end).unwrap_or_default()
    }

    /// Cuts the samples from `start` on to the range.
    fn clip(&self, start: usize, times: &mut Vec<i64>, values: &mut Column) {
        let tail = times.get(start..).unwrap_or_default();
        let kept = inside(tail, self.context.range);
        if kept.len() == tail.len() {
            return;
        }
        let count = times.len();
        remove(values, start + kept.end, count);
        times.truncate(start + kept.end);
        remove(values, start, start + kept.start);
        times.drain(start..start + kept.start);
    }

    /// Takes out of the samples from `start` on staleness markers and what the filter refuses.
    fn sift(&mut self, step: usize, start: usize, times: &mut Vec<i64>, values: &mut Column) {
        let filter = self.context.filter;
        match values {
            Column::F64(values) => {
                let marked = self.context.drop_stale && !self.is_unmarked(step);
                let tail = values.get(start..).unwrap_or_default();
                if marked && tail.iter().filter(|value| is_stale(**value)).count() > 0 {
                    let before = values.len();
                    retain(start, times, values, |value| !is_stale(value));
                    self.report.stale_markers += (before - values.len()) as u64;
                }
                if let Some(filter) = filter {
                    retain(start, times, values, |value| filter.keeps_f64(value));
                }
            }
            Column::I64(values) => {
                if let Some(filter) = filter {
                    retain(start, times, values, |value| filter.keeps_i64(value));
                }
            }
            Column::Bytes(_) => {}
        }
    }

    /// Whether a step is known to hold no staleness marker.
    fn is_unmarked(&self, step: usize) -> bool {
        let aggregate = self.aggregate_of(step);
        aggregate.is_some_and(|aggregate| aggregate.stale_count == 0)
    }
}

fn cursor_of<'a>(
    cursors: &'a mut [Option<Box<dyn Cursor>>],
    context: &Context,
    source: usize,
) -> &'a mut dyn Cursor {
    let slot = cursors.get_mut(source).expect("there is a place for each source");
    &mut **slot.get_or_insert_with(|| Arc::clone(context.source(source)).cursor())
}

/// Appends a page, and holds the source to what it said of it.
fn read_page(
    cursor: &mut dyn Cursor,
    page: &PageInfo,
    times: &mut Vec<i64>,
    values: &mut Column,
) -> Result<()> {
    let start = times.len();
    cursor.read_times(page.locator, times)?;
    cursor.read_values(page.locator, values)?;
    if times.len() != values.len() || times.len() - start != page.count as usize {
        return Err(Error::corrupt(format!(
            "a page of {} samples holds {} times; {} times stand beside {} values",
            page.count,
            times.len() - start,
            times.len(),
            values.len()
        )));
    }
    Ok(())
}

/// Which of the rising `times` lie in `range`.
fn inside(times: &[i64], range: TimeRange) -> std::ops::Range<usize> {
    let (start, end) = (range.start.nanos(), range.end.nanos());
    let first = if times.first().is_none_or(|time| *time >= start) {
        0
    } else {
        times.partition_point(|time| *time < start)
    };
    let last = if times.last().is_none_or(|time| *time < end) {
        times.len()
    } else {
        times.partition_point(|time| *time < end)
    };
    first..last.max(first)
}

/// Removes the values `start..end`.
fn remove(values: &mut Column, start: usize, end: usize) {
    if start >= end {
        return;
    }
    match values {
        Column::F64(values) => drop(values.drain(start..end)),
        Column::I64(values) => drop(values.drain(start..end)),
        Column::Bytes(all) => {
            let mut kept = Column::Bytes(BytesColumn::default());
            ColumnSlice::Bytes(all, 0, start).append_to(&mut kept);
            ColumnSlice::Bytes(all, end, all.len()).append_to(&mut kept);
            *values = kept;
        }
    }
}

/// Keeps of the samples from `start` on those whose value `keep` wants.
fn retain<T: Copy>(start: usize, times: &mut Vec<i64>, values: &mut Vec<T>, keep: impl Fn(T) -> bool) {
    let mut kept = start;
    for index in start..values.len() {
        let (time, value) = (times[index], values[index]);
        // Writing always and advancing sometimes needs no branch.
        times[kept] = time;
        values[kept] = value;
        kept += usize::from(keep(value));
    }
    times.truncate(kept);
    values.truncate(kept);
}
