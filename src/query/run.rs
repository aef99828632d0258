//! Running a query over its selection: series by series, on more threads where that pays.
//!
//! A [`Work`] is what is done with each series. Threads take stretches of the selection, which are put
//! together again in order of keys; no answer depends on how many there were.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::model::{Column, SeriesKey, Value, ValueType};
use crate::query::budget::QueryReport;
use crate::query::fold::Fold;
use crate::query::group::{Grouping, Groups};
use crate::query::result::{SeriesColumns, timestamps};
use crate::query::scan::{Context, Scan};
use crate::query::select::{Chosen, Selection};
use crate::query::window::{Window, WindowFolder, Windows};

/// What is done with every series of a selection.
pub(crate) trait Work: Send + Sized + 'static {
    /// The same work with nothing done yet.
    fn fresh(&self) -> Self;

    /// Does it for one series.
    fn visit(&mut self, scan: &mut Scan, selection: &Selection, chosen: &Chosen) -> Result<()>;

    /// Adds what was done for series that come later in the order of keys.
    fn append(&mut self, later: Self);
}

/// More threads are asked when the work still to be done decodes at least so many samples by the look of
/// the work done: 0.3 ms of it, against some 50 µs to start a thread.
const PARALLEL_SAMPLE_COUNT_MIN: u64 = 128 * 1024;

/// Does `work` for all series of the selection on up to `threads` threads.
pub(crate) fn run<W: Work>(
    context: &Arc<Context>,
    selection: &Arc<Selection>,
    mut work: W,
    threads: usize,
    report: &mut QueryReport,
) -> Result<W> {
    let mut scan = Scan::new(Arc::clone(context));
    let count = selection.series.len();
    for index in 0..count {
        visit(&mut work, &mut scan, selection, index..index + 1)?;
        let done = index as u64 + 1;
        let expected = scan.report.samples_decoded / done * (count as u64 - done);
        if threads > 1 && count - index > threads && expected >= PARALLEL_SAMPLE_COUNT_MIN {
            let rest = index + 1..count;
            run_parallel(context, selection, &mut work, &mut scan, rest, threads, report)?;
            break;
        }
    }
    report.threads = report.threads.max(1);
    report.add(&scan.report);
    Ok(work)
}

fn visit<W: Work>(work: &mut W, scan: &mut Scan, selection: &Selection, range: Range<usize>) -> Result<()> {
    let series = selection.series.get(range).unwrap_or_default();
    series.iter().try_for_each(|chosen| work.visit(scan, selection, chosen))
}

/// Splits `rest` into one stretch for each thread; this one takes the first.
fn run_parallel<W: Work>(
    context: &Arc<Context>,
    selection: &Arc<Selection>,
    work: &mut W,
    scan: &mut Scan,
    rest: Range<usize>,
    threads: usize,
    report: &mut QueryReport,
) -> Result<()> {
    let size = rest.len().div_ceil(threads);
    let stretch =
        |n: usize| (rest.start + n * size).min(rest.end)..(rest.start + (n + 1) * size).min(rest.end);
    let mut helpers = Vec::new();
    for n in 1..threads {
        let (context, selection, mut work) = (Arc::clone(context), Arc::clone(selection), work.fresh());
        let range = stretch(n);
        let body = {
            let range = range.clone();
            let (context, selection) = (Arc::clone(&context), Arc::clone(&selection));
            move || {
                let mut scan = Scan::new(context);
                visit(&mut work, &mut scan, &selection, range).map(|()| (work, scan.report))
            }
        };
        helpers.push((range, context.snapshot.env.spawn("icecore-query", body)));
    }
    let own = visit(work, scan, selection, stretch(0));
    report.threads = 1;
    let mut outcome = own;
    for (range, helper) in helpers {
        let Ok(handle) = helper else {
            // No thread to be had: its stretch is done here.
            outcome = outcome.and_then(|()| visit(work, scan, selection, range));
            continue;
        };
        report.threads += 1;
        let done = handle.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        outcome = outcome.and(done).map(|(later, its_report)| {
            work.append(later);
            report.add(&its_report);
        });
    }
    outcome
}

/// Room is made at once for so many samples of a series; what pages say of more is believed when it is seen.
const RESERVED_SAMPLE_COUNT: usize = 1 << 16;

/// Raw samples as columns.
#[derive(Debug, Default)]
pub(crate) struct RawWork(pub Vec<SeriesColumns>);

impl Work for RawWork {
    fn fresh(&self) -> Self {
        RawWork::default()
    }

    fn visit(&mut self, scan: &mut Scan, selection: &Selection, chosen: &Chosen) -> Result<()> {
        scan.open(selection, chosen, scan.context().range)?;
        let (mut times, mut values) = (Vec::new(), Column::new(chosen.value_type));
        if !scan.takes_filter(chosen.value_type) {
            return Ok(());
        }
        scan.reserve(RESERVED_SAMPLE_COUNT, &mut times, &mut values);
        for step in 0..scan.step_count() {
            if !scan.skip(step) {
                let before = columns_size(&times, &values);
                scan.read(step, &mut times, &mut values)?;
                scan.context().budget.take_memory(columns_size(&times, &values) - before)?;
                check_strings(&values)?;
            }
        }
        if let Some(key) = chosen.key.clone().filter(|_| !times.is_empty()) {
            self.0.push(SeriesColumns { key, times: timestamps(times), values });
        }
        Ok(())
    }

    fn append(&mut self, later: Self) {
        self.0.extend(later.0);
    }
}

/// Byte strings of one series in one answer may take this much; a column of them holds twice as much.
const STRINGS_SIZE_MAX: usize = 2 << 30;

fn check_strings(values: &Column) -> Result<()> {
    match values {
        Column::Bytes(values) if values.size() > STRINGS_SIZE_MAX => Err(Error::limit_exceeded(format!(
            "the byte strings of one series take more than {STRINGS_SIZE_MAX} bytes; stream them"
        ))),
        _ => Ok(()),
    }
}

pub(crate) fn columns_size(times: &[i64], values: &Column) -> u64 {
    let values = match values {
        Column::Bytes(values) => values.size() + values.len() * size_of::<u32>(),
        other => other.len() * size_of::<i64>(),
    };
    (size_of_val(times) + values) as u64
}

/// The last sample of each series that is no staleness marker.
#[derive(Debug, Default)]
pub(crate) struct LatestWork {
    pub series: Vec<SeriesColumns>,
}

impl Work for LatestWork {
    fn fresh(&self) -> Self {
        LatestWork::default()
    }

    fn visit(&mut self, scan: &mut Scan, selection: &Selection, chosen: &Chosen) -> Result<()> {
        if !scan.takes_filter(chosen.value_type) {
            return Ok(());
        }
        let Some((time, value)) = latest(scan, selection, chosen)? else { return Ok(()) };
        let mut values = Column::new(chosen.value_type);
        values.push(value.as_ref());
        if let Some(key) = chosen.key.clone() {
            scan.context().budget.take_memory(columns_size(&[time], &values))?;
            self.series.push(SeriesColumns { key, times: timestamps(vec![time]), values });
        }
        Ok(())
    }

    fn append(&mut self, later: Self) {
        self.series.extend(later.series);
    }
}

/// Of most series the last sample lies at the end of the range; the pages before that are not even listed.
fn latest(scan: &mut Scan, selection: &Selection, chosen: &Chosen) -> Result<Option<(i64, Value)>> {
    let range = scan.context().range;
    let tail = scan.context().tail();
    scan.open(selection, chosen, tail)?;
    let found = last_sample(scan, chosen.value_type)?;
    // What lies before the tail may be covered by pages that were not listed.
    if tail == range || found.as_ref().is_some_and(|(time, _)| *time >= tail.start.nanos()) {
        return Ok(found);
    }
    scan.open(selection, chosen, range)?;
    last_sample(scan, chosen.value_type)
}

/// Walks the steps backwards. Merges are read in order, so a run of them is read from its first.
fn last_sample(scan: &mut Scan, value_type: ValueType) -> Result<Option<(i64, Value)>> {
    let (mut times, mut values) = (Vec::new(), Column::new(value_type));
    let mut end = scan.step_count();
    while end > 0 {
        let last = end - 1;
        if let Some(found) = scan.aggregated_last(last) {
            return Ok(Some(found));
        }
        let mut first = last;
        while scan.lone_page(last).is_none() && first > 0 && scan.lone_page(first - 1).is_none() {
            first -= 1;
        }
        let mut found = None;
        for step in first..end {
            times.clear();
            values.clear();
            scan.read(step, &mut times, &mut values)?;
            let sample = times.last().copied().zip(values.get(values.len().wrapping_sub(1)));
            found = sample.map(|(time, value)| (time, value.to_value())).or(found);
        }
        if found.is_some() {
            return Ok(found);
        }
        end = first;
    }
    Ok(None)
}

/// The keys and types of those series that hold a sample.
#[derive(Debug, Default)]
pub(crate) struct ListWork(pub Vec<(SeriesKey, ValueType)>);

impl Work for ListWork {
    fn fresh(&self) -> Self {
        ListWork::default()
    }

    fn visit(&mut self, scan: &mut Scan, selection: &Selection, chosen: &Chosen) -> Result<()> {
        scan.open(selection, chosen, scan.context().range)?;
        if let Some(key) = chosen.key.clone()
            && holds_sample(scan, chosen.value_type)?
        {
            scan.context().budget.take_memory(size_of::<(SeriesKey, ValueType)>() as u64)?;
            self.0.push((key, chosen.value_type));
        }
        Ok(())
    }

    fn append(&mut self, later: Self) {
        self.0.extend(later.0);
    }
}

fn holds_sample(scan: &mut Scan, value_type: ValueType) -> Result<bool> {
    if (0..scan.step_count()).any(|step| scan.has_end_inside(step)) {
        return Ok(true);
    }
    let (mut times, mut values) = (Vec::new(), Column::new(value_type));
    for step in 0..scan.step_count() {
        scan.read(step, &mut times, &mut values)?;
        if !times.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// How windows become numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FoldPlan {
    pub windows: Windows,
    /// The rank, for quantiles.
    pub rank: f64,
}

impl FoldPlan {
    fn finish<F: Fold>(&self, key: SeriesKey, windows: &mut Vec<Window<F>>) -> Option<SeriesColumns> {
        let mut times = Vec::with_capacity(windows.len());
        let mut values = Vec::with_capacity(windows.len());
        for window in windows.drain(..) {
            let seconds = if F::NEEDS_SECONDS { self.windows.seconds(window.label) } else { 0.0 };
            if let Some(value) = window.fold.finish(self.rank, seconds) {
                times.push(window.label);
                values.push(value);
            }
        }
        (!times.is_empty()).then(|| SeriesColumns {
            key,
            times: timestamps(times),
            values: Column::F64(values),
        })
    }
}

/// One aggregate over windows, of each series or of groups of them.
#[derive(Debug)]
pub(crate) struct FoldWork<F> {
    plan: FoldPlan,
    groups: Groups<F>,
    /// Answers of single series, where there is no grouping.
    series: Vec<SeriesColumns>,
    folder: WindowFolder<F>,
    times: Vec<i64>,
    doubles: Column,
    integers: Column,
}

impl<F: Fold> FoldWork<F> {
    pub(crate) fn new(plan: FoldPlan, grouping: Grouping) -> Self {
        FoldWork {
            plan,
            groups: Groups::new(grouping),
            series: Vec::new(),
            folder: WindowFolder::new(plan.windows),
            times: Vec::new(),
            doubles: Column::new(ValueType::F64),
            integers: Column::new(ValueType::I64),
        }
    }

    pub(crate) fn finish(self) -> Vec<SeriesColumns> {
        let plan = self.plan;
        let groups = self.groups.finish().into_iter();
        let mut series = self.series;
        series.extend(groups.filter_map(|(key, mut windows)| plan.finish(key, &mut windows)));
        series
    }

    /// Folds the samples of one step that its aggregate does not stand for.
    fn fold_step(&mut self, scan: &mut Scan, step: usize, value_type: ValueType) -> Result<()> {
        self.times.clear();
        if F::COUNTS_ONLY && scan.can_count_by_times(step) {
            scan.read_times(step, &mut self.times)?;
            self.folder.add_times(&self.times);
            return Ok(());
        }
        let mut bytes = Column::new(ValueType::Bytes);
        let values = match value_type {
            ValueType::F64 => &mut self.doubles,
            ValueType::I64 => &mut self.integers,
            ValueType::Bytes => &mut bytes,
        };
        values.clear();
        scan.read(step, &mut self.times, values)?;
        match values {
            Column::F64(values) => self.folder.add_samples(&self.times, values),
            Column::I64(values) => self.folder.add_samples(&self.times, values),
            Column::Bytes(_) => self.folder.add_times(&self.times),
        }
        Ok(())
    }
}

impl<F: Fold> Work for FoldWork<F> {
    fn fresh(&self) -> Self {
        FoldWork::new(self.plan, self.groups.grouping().clone())
    }

    fn visit(&mut self, scan: &mut Scan, selection: &Selection, chosen: &Chosen) -> Result<()> {
        let value_type = chosen.value_type;
        if value_type == ValueType::Bytes && !F::COUNTS_ONLY {
            scan.report.series_without_answer += 1;
            return Ok(());
        }
        if !scan.takes_filter(value_type) {
            return Ok(());
        }
        scan.open(selection, chosen, scan.context().range)?;
        for step in 0..scan.step_count() {
            if scan.skip(step) {
                continue;
            }
            let aggregated =
                scan.aggregated(step).is_some_and(|(page, aggregate)| self.folder.add_page(page, aggregate));
            if aggregated {
                scan.count_aggregated(step);
            } else {
                self.fold_step(scan, step, value_type)?;
            }
        }
        let windows = self.folder.finish();
        let size: usize =
            windows.iter().map(|window| size_of::<Window<F>>() + window.fold.memory_size()).sum();
        scan.context().budget.take_memory(size as u64)?;
        match (self.groups.grouping(), &chosen.key) {
            (Grouping::Each, Some(key)) => self.series.extend(self.plan.finish(key.clone(), windows)),
            (_, key) => self.groups.add(key.as_ref(), windows),
        }
        Ok(())
    }

    fn append(&mut self, later: Self) {
        self.series.extend(later.series);
        self.groups.merge(later.groups);
    }
}
