//! The samples that one series has in a head: a short staging part and sealed runs.
//!
//! Owned by the lock of a shard. Staging takes samples in order of commit, whatever their times; when
//! it is full it is sorted, freed of duplicates and sealed as one page. Of two runs the later wins, and
//! staging wins over all of them: that is the order of commit.

use std::sync::Arc;

use crate::chunk::merge::{ColumnSlice, newest_order};
use crate::chunk::{Effort, EncodedPage, encode_page};
use crate::model::{BytesColumn, Column, TimeRange, Timestamp, ValueType};

/// Staging is sealed at this many samples when memory allows.
pub(crate) const STAGING_COUNT_MAX: usize = 256;
/// Staging is never sealed below this many samples: a page of fewer costs more memory than it saves.
pub(crate) const STAGING_COUNT_MIN: usize = 64;
/// Staging of a bytes series is sealed at this many bytes.
const STAGING_SIZE_MAX: usize = 64 << 10;
/// Counted for a run besides its encoded bytes.
const RUN_SIZE: usize = size_of::<EncodedPage>() + 48;

/// A sealed run: one page.
pub(crate) type Run = Arc<EncodedPage>;

/// The samples of one series.
#[derive(Debug)]
pub(crate) struct HeadSeries {
    pub(crate) id: u32,
    pub(crate) value_type: ValueType,
    staging: Staging,
    runs: Vec<Run>,
}

#[derive(Debug)]
enum Staging {
    Words(Vec<(i64, u64)>),
    Bytes { samples: Vec<(i64, Box<[u8]>)>, size: usize },
}

/// Columns kept for their memory while sealing.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    order: Vec<u32>,
    all_times: Vec<i64>,
    times: Vec<i64>,
    floats: Vec<f64>,
    integers: Vec<i64>,
}

impl HeadSeries {
    pub(crate) fn new(id: u32, value_type: ValueType) -> Self {
        let staging = match value_type {
            ValueType::Bytes => Staging::Bytes { samples: Vec::new(), size: 0 },
            _ => Staging::Words(Vec::new()),
        };
        HeadSeries { id, value_type, staging, runs: Vec::new() }
    }

    /// Adds samples of an f64 or i64 series, as many times as words, and seals whenever `seal_count` are staged.
    /// Returns by how many bytes the memory grew (less than nothing when it shrank).
    #[inline]
    pub(crate) fn push_words(
        &mut self,
        mut times: &[i64],
        mut words: &[u64],
        seal_count: usize,
        scratch: &mut Scratch,
    ) -> isize {
        let mut grown = 0;
        while !times.is_empty() {
            let Staging::Words(samples) = &mut self.staging else { return 0 };
            let count = times.len().min(seal_count.saturating_sub(samples.len()).max(1));
            let capacity = samples.capacity();
            if samples.len() + count > capacity {
                let more = if capacity == 1 { 4 } else { capacity * 2 };
                let wanted = (samples.len() + count).max(more.min(seal_count));
                samples.reserve_exact(wanted - samples.len());
                grown += ((wanted - capacity) * size_of::<(i64, u64)>()) as isize;
            }
            let (taken, rest) = times.split_at(count);
            let (taken_words, rest_words) = words.split_at(count);
            samples.extend(taken.iter().copied().zip(taken_words.iter().copied()));
            (times, words) = (rest, rest_words);
            if samples.len() >= seal_count {
                grown += self.seal(scratch);
            }
        }
        grown
    }

    /// Adds a sample of a bytes series; as [`HeadSeries::push_word`].
    pub(crate) fn push_bytes(
        &mut self,
        time: i64,
        value: &[u8],
        seal_count: usize,
        scratch: &mut Scratch,
    ) -> isize {
        let Staging::Bytes { samples, size } = &mut self.staging else { return 0 };
        samples.push((time, value.into()));
        *size += value.len();
        let mut grown = (value.len() + 40) as isize;
        if samples.len() >= seal_count || *size >= STAGING_SIZE_MAX {
            grown += self.seal(scratch);
        }
        grown
    }

    /// Seals what is staged. Returns by how many bytes the memory grew.
    fn seal(&mut self, scratch: &mut Scratch) -> isize {
        let (page, freed) = match &mut self.staging {
            Staging::Words(samples) => {
                let page = encode_words(samples, self.value_type, scratch);
                samples.clear();
                (page, 0)
            }
            Staging::Bytes { samples, size } => {
                let (times, column) = sorted_bytes(samples);
                let column = Column::Bytes(column);
                let values = ColumnSlice::new(&column, 0, times.len());
                let page = encode_page(&times, values, Effort::Flush);
                let freed = *size + samples.len() * 40;
                *samples = Vec::new();
                *size = 0;
                (page, freed)
            }
        };
        let grown = run_size(&page);
        self.runs.push(Arc::new(page));
        grown as isize - freed as isize
    }

    /// The sealed runs, oldest first, and what is staged as sorted, duplicate-free columns.
    pub(crate) fn read(&self) -> (Vec<Run>, Vec<i64>, Column) {
        let (times, values) = self.staged();
        (self.runs.clone(), times, values)
    }

    /// Appends all samples to empty columns, sorted and free of duplicates, if none of them is in a run.
    pub(crate) fn read_staged(
        &self,
        scratch: &mut Scratch,
        times: &mut Vec<i64>,
        values: &mut Column,
    ) -> bool {
        if !self.runs.is_empty() {
            return false;
        }
        match &self.staging {
            Staging::Words(samples) => {
                sort_words(samples, self.value_type, scratch);
                times.extend_from_slice(&scratch.times);
                match values {
                    Column::F64(values) => values.extend_from_slice(&scratch.floats),
                    Column::I64(values) => values.extend_from_slice(&scratch.integers),
                    Column::Bytes(_) => return false,
                }
            }
            Staging::Bytes { samples, .. } => {
                let (sorted, column) = sorted_bytes(samples);
                times.extend_from_slice(&sorted);
                *values = Column::Bytes(column);
            }
        }
        true
    }

    /// Calls `visit` with smallest time, largest time and count of each run and of what is staged.
    pub(crate) fn visit_spans(&self, mut visit: impl FnMut(i64, i64, u32)) {
        self.runs.iter().for_each(|run| visit(run.min_time, run.max_time, run.count));
        match &self.staging {
            Staging::Words(samples) => visit_span(samples.iter().map(|(time, _)| *time), visit),
            Staging::Bytes { samples, .. } => visit_span(samples.iter().map(|(time, _)| *time), visit),
        }
    }

    fn staged(&self) -> (Vec<i64>, Column) {
        match &self.staging {
            Staging::Words(samples) => {
                let mut scratch = Scratch::default();
                sort_words(samples, self.value_type, &mut scratch);
                let values = match self.value_type {
                    ValueType::I64 => Column::I64(scratch.integers),
                    _ => Column::F64(scratch.floats),
                };
                (scratch.times, values)
            }
            Staging::Bytes { samples, .. } => {
                let (times, column) = sorted_bytes(samples);
                (times, Column::Bytes(column))
            }
        }
    }

    /// Removes every sample in `range`. Returns by how many bytes the memory grew (less than nothing).
    pub(crate) fn delete(&mut self, range: TimeRange) -> isize {
        let keep = |time: i64| !range.contains(Timestamp::from_nanos(time));
        let mut change = 0isize;
        match &mut self.staging {
            Staging::Words(samples) => samples.retain(|(time, _)| keep(*time)),
            Staging::Bytes { samples, size } => {
                samples.retain(|(time, _)| keep(*time));
                let left: usize = samples.iter().map(|(_, value)| value.len()).sum();
                change -= (*size - left) as isize;
                *size = left;
            }
        }
        let value_type = self.value_type;
        self.runs.retain_mut(|run| {
            let (min, max) = (Timestamp::from_nanos(run.min_time), Timestamp::from_nanos(run.max_time));
            if !range.meets(min, max) {
                return true;
            }
            change -= run_size(run) as isize;
            match without(run, value_type, keep) {
                Some(page) => {
                    change += run_size(&page) as isize;
                    *run = Arc::new(page);
                    true
                }
                None => false,
            }
        });
        change
    }
}

fn visit_span(times: impl ExactSizeIterator<Item = i64> + Clone, mut visit: impl FnMut(i64, i64, u32)) {
    let count = times.len() as u32;
    if let (Some(min), Some(max)) = (times.clone().min(), times.max()) {
        visit(min, max, count);
    }
}

fn run_size(page: &EncodedPage) -> usize {
    page.heap_size() + RUN_SIZE
}

/// The page less the samples that `keep` denies; `None` when none is left. A run was encoded by this
/// process, so it decodes.
fn without(run: &EncodedPage, value_type: ValueType, keep: impl Fn(i64) -> bool) -> Option<EncodedPage> {
    let mut times = Vec::new();
    let mut values = Column::new(value_type);
    run.decode_times(&mut times)
        .and_then(|()| run.decode_values(&mut values))
        .expect("a run of the head decodes");
    let mut left_times = Vec::new();
    let mut left = Column::new(value_type);
    for (index, time) in times.iter().enumerate().filter(|(_, time)| keep(**time)) {
        if let Some(value) = values.get(index) {
            left_times.push(*time);
            left.push(value);
        }
    }
    if left_times.is_empty() {
        return None;
    }
    Some(encode_page(&left_times, ColumnSlice::new(&left, 0, left_times.len()), Effort::Flush))
}

/// Splits staged samples into columns in `scratch`, sorted and free of duplicates.
fn sort_words(samples: &[(i64, u64)], value_type: ValueType, scratch: &mut Scratch) {
    scratch.times.clear();
    scratch.floats.clear();
    scratch.integers.clear();
    let rises = samples.is_sorted_by(|a, b| a.0 < b.0);
    scratch.order.clear();
    if !rises {
        scratch.all_times.clear();
        scratch.all_times.extend(samples.iter().map(|(time, _)| *time));
        newest_order(&scratch.all_times, &mut scratch.order);
    }
    let picked = |pick: &mut dyn FnMut(&(i64, u64))| {
        if rises {
            samples.iter().for_each(pick);
        } else {
            scratch.order.iter().filter_map(|index| samples.get(*index as usize)).for_each(pick);
        }
    };
    let (times, floats, integers) = (&mut scratch.times, &mut scratch.floats, &mut scratch.integers);
    match value_type {
        ValueType::I64 => picked(&mut |(time, word)| {
            times.push(*time);
            integers.push(*word as i64);
        }),
        _ => picked(&mut |(time, word)| {
            times.push(*time);
            floats.push(f64::from_bits(*word));
        }),
    }
}

fn encode_words(samples: &[(i64, u64)], value_type: ValueType, scratch: &mut Scratch) -> EncodedPage {
    sort_words(samples, value_type, scratch);
    let values = match value_type {
        ValueType::I64 => ColumnSlice::I64(&scratch.integers),
        _ => ColumnSlice::F64(&scratch.floats),
    };
    encode_page(&scratch.times, values, Effort::Flush)
}

fn sorted_bytes(samples: &[(i64, Box<[u8]>)]) -> (Vec<i64>, BytesColumn) {
    let mut column = BytesColumn::default();
    if samples.is_sorted_by(|a, b| a.0 < b.0) {
        samples.iter().for_each(|(_, value)| column.push(value));
        return (samples.iter().map(|(time, _)| *time).collect(), column);
    }
    let all_times: Vec<i64> = samples.iter().map(|(time, _)| *time).collect();
    let mut order = Vec::new();
    newest_order(&all_times, &mut order);
    let mut times = Vec::with_capacity(order.len());
    for (time, value) in order.iter().filter_map(|index| samples.get(*index as usize)) {
        times.push(*time);
        column.push(value);
    }
    (times, column)
}
