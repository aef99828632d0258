//! Writing series into blocks: what flush and merge share.
//!
//! Samples of a series come in order of time, by columns or as pages to be copied; they leave as pages
//! cut by the clock, each into the block of its stretch of time. Memory is bounded by some thousand
//! samples and by what a block writer keeps for its index.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::block::{BlockMeta, BlockOptions, BlockWriter, LsnRange};
use crate::chunk::merge::ColumnSlice;
use crate::chunk::{Effort, EncodedPage, cut_pages, encode_page};
use crate::error::Result;
use crate::fs::{Fs, name};
use crate::model::{Column, SeriesKey, TimeRange, Timestamp, ValueType};
use crate::sync::atomic::{AtomicU64, Ordering};

/// Samples are cut into pages when this many have come together.
const PENDING_COUNT_MAX: usize = 16 * 1024;
/// And when their byte strings take this much: some pages' worth.
const PENDING_SIZE_MAX: usize = 1 << 20;

/// Where new blocks go.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) fs: Arc<dyn Fs>,
    /// The database's directory.
    pub(crate) root: PathBuf,
    pub(crate) database_id: [u8; 16],
    /// Number of the next new block, for all who make blocks.
    pub(crate) next_number: Arc<AtomicU64>,
}

impl Target {
    fn path(&self, number: u64) -> PathBuf {
        name::block_path(&self.root, number)
    }

    /// Removes blocks that were written and will not be published.
    pub(crate) fn discard(&self, blocks: &[BlockMeta]) {
        for block in blocks {
            // What stays is an unnamed file, which the next open removes.
            let _ = self.fs.remove(&self.path(block.number));
        }
    }
}

/// What all outputs of one rewrite have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) effort: Effort,
    pub(crate) level: u8,
    pub(crate) lsns: LsnRange,
}

/// Blocks being written, one for each stretch of time that gets samples.
#[derive(Debug)]
pub(crate) struct Outputs<'a> {
    target: &'a Target,
    shape: Shape,
    outputs: Vec<Output>,
    series: Option<(SeriesKey, ValueType)>,
    times: Vec<i64>,
    values: Column,
}

#[derive(Debug)]
struct Output {
    range: TimeRange,
    writer: Option<BlockWriter>,
    /// Whether the current series was begun in it.
    begun: bool,
}

impl<'a> Outputs<'a> {
    /// Outputs over disjoint stretches, in order of time.
    pub(crate) fn new(target: &'a Target, shape: Shape, stretches: &[TimeRange]) -> Self {
        let output = |range: &TimeRange| Output { range: *range, writer: None, begun: false };
        Outputs {
            target,
            shape,
            outputs: stretches.iter().map(output).collect(),
            series: None,
            times: Vec::new(),
            values: Column::F64(Vec::new()),
        }
    }

    /// Begins a series; they come in order of key and type.
    ///
    /// # Errors
    /// What writing the end of the series before it says.
    pub(crate) fn series(&mut self, key: &SeriesKey, value_type: ValueType) -> Result<()> {
        self.end_series()?;
        self.series = Some((key.clone(), value_type));
        if self.values.value_type() == value_type {
            self.values.clear();
        } else {
            self.values = Column::new(value_type);
        }
        Ok(())
    }

    /// The columns to append samples of the current series to, in order of time; then call [`Outputs::appended`].
    pub(crate) fn columns(&mut self) -> (&mut Vec<i64>, &mut Column) {
        (&mut self.times, &mut self.values)
    }

    /// Writes what has come together in [`Outputs::columns`], when it is much.
    pub(crate) fn appended(&mut self) -> Result<()> {
        let size = match &self.values {
            Column::Bytes(values) => values.size(),
            _ => 0,
        };
        let much = self.times.len() >= PENDING_COUNT_MAX || size >= PENDING_SIZE_MAX;
        if much { self.cut(false) } else { Ok(()) }
    }

    /// Adds a page of the current series as it is; it lies in one stretch.
    pub(crate) fn page(&mut self, page: EncodedPage) -> Result<()> {
        self.cut(true)?;
        self.write(page)
    }

    /// Cuts the columns into pages and writes them; the last page is kept for more unless `all`.
    fn cut(&mut self, all: bool) -> Result<()> {
        let times = std::mem::take(&mut self.times);
        let values = std::mem::replace(&mut self.values, Column::F64(Vec::new()));
        let result = self.cut_columns(&times, &values, all);
        self.times = times;
        self.values = values;
        let written = result?;
        self.times.drain(..written);
        drain_column(&mut self.values, written);
        Ok(())
    }

    fn cut_columns(&mut self, times: &[i64], values: &Column, all: bool) -> Result<usize> {
        let mut start = 0;
        while let Some(first) = times.get(start) {
            let end_time = self.stretch_end(*first);
            let rest = times.get(start..).unwrap_or_default();
            let end = start + rest.partition_point(|time| Timestamp::from_nanos(*time) < end_time);
            let part = times.get(start..end).unwrap_or_default();
            let slice = ColumnSlice::new(values, start, end);
            for range in cut_pages(part, slice) {
                let last = start + range.end == times.len();
                if last && !all {
                    return Ok(start + range.start);
                }
                let page_times = part.get(range.clone()).unwrap_or_default();
                let page_values = ColumnSlice::new(values, start + range.start, start + range.end);
                self.write(encode_page(page_times, page_values, self.shape.effort))?;
            }
            start = end;
        }
        Ok(start)
    }

    /// Whether samples between two times, both inclusive, go into one block.
    pub(crate) fn in_one_stretch(&self, min_time: i64, max_time: i64) -> bool {
        Timestamp::from_nanos(max_time) < self.stretch_end(min_time)
    }

    fn stretch_end(&self, time: i64) -> Timestamp {
        let time = Timestamp::from_nanos(time);
        let found = self.outputs.iter().find(|output| output.range.contains(time));
        found.map_or(Timestamp::MAX, |output| output.range.end)
    }

    fn write(&mut self, page: EncodedPage) -> Result<()> {
        let time = Timestamp::from_nanos(page.min_time);
        let position = self.outputs.iter().position(|output| output.range.contains(time));
        // Stretches are made to hold every sample.
        let position = position.expect("a sample lies in a stretch");
        let Some(output) = self.outputs.get_mut(position) else { return Ok(()) };
        if output.writer.is_none() {
            let number = self.target.next_number.fetch_add(1, Ordering::Relaxed);
            let options =
                BlockOptions { database_id: self.target.database_id, number, level: self.shape.level };
            output.writer =
                Some(BlockWriter::create(self.target.fs.clone(), &self.target.path(number), options)?);
        }
        let Some(writer) = &mut output.writer else { return Ok(()) };
        if let (false, Some((key, value_type))) = (output.begun, &self.series) {
            writer.series(key, *value_type)?;
            output.begun = true;
        }
        writer.page(&page)
    }

    fn end_series(&mut self) -> Result<()> {
        self.cut(true)?;
        self.outputs.iter_mut().for_each(|output| output.begun = false);
        Ok(())
    }

    /// Ends all blocks: they are on the device, and so are their names, when this returns.
    ///
    /// # Errors
    /// `Io`; blocks that were finished are removed again.
    pub(crate) fn finish(mut self) -> Result<Vec<BlockMeta>> {
        self.end_series()?;
        let mut finished = Vec::new();
        for output in std::mem::take(&mut self.outputs) {
            let Some(writer) = output.writer else { continue };
            match writer.finish(self.shape.lsns) {
                Ok(meta) => finished.push(meta),
                Err(error) => {
                    self.target.discard(&finished);
                    return Err(error);
                }
            }
        }
        if finished.is_empty() {
            return Ok(finished);
        }
        match self.target.fs.sync_dir(&self.target.root.join(Path::new(name::BLOCK_DIR))) {
            Ok(()) => Ok(finished),
            Err(error) => {
                self.target.discard(&finished);
                Err(error)
            }
        }
    }
}

fn drain_column(column: &mut Column, count: usize) {
    match column {
        Column::F64(values) => drop(values.drain(..count.min(values.len()))),
        Column::I64(values) => drop(values.drain(..count.min(values.len()))),
        Column::Bytes(values) => {
            let mut rest = crate::model::BytesColumn::default();
            (count..values.len()).for_each(|index| rest.push(values.get(index).unwrap_or_default()));
            *values = rest;
        }
    }
}

/// Leaves only the samples of sorted columns whose time `wanted` takes.
pub(super) fn keep(times: &mut Vec<i64>, values: &mut Column, wanted: impl Fn(Timestamp) -> bool) {
    let is_wanted = |time: &i64| wanted(Timestamp::from_nanos(*time));
    if times.iter().all(is_wanted) {
        return;
    }
    let mut left = Column::new(values.value_type());
    for (index, _) in times.iter().enumerate().filter(|(_, time)| is_wanted(time)) {
        if let Some(value) = values.get(index) {
            left.push(value);
        }
    }
    times.retain(is_wanted);
    *values = left;
}
