//! Many blocks into one: streaming, series by series.

use std::cmp::Ordering;
use std::sync::Arc;

use crate::block::{BlockMeta, BlockReader, BlockStream, Group, GroupKeys, LsnRange, PageEntry};
use crate::chunk::merge::{PageMerger, PageSpan, Step, plan_steps};
use crate::chunk::{Effort, PageMeta};
use crate::compact::plan::Plan;
use crate::compact::rewrite::{Outputs, Shape, Target, keep};
use crate::error::Result;
use crate::manifest::Tombstone;
use crate::model::{SeriesKey, TimeRange, Timestamp, ValueType};

/// A page of a block that was merged before is copied as it is from this many samples on.
const COPY_COUNT_MIN: u32 = 512;
/// The only page of a series is copied as it is up to this many samples: no other encoding would gain anything.
const COPY_COUNT_MAX: u32 = 64;

/// After so many series, some milliseconds, a merge pauses.
const PAUSE_SERIES_COUNT: u32 = 4096;

/// Writes what the blocks of `plan` hold, less what tombstones delete and what lies below `floor`, as blocks that are on the
/// device when this returns. No block at all comes out when nothing is left.
///
/// Holds one group of each input and some thousand samples in memory. Calls `pause` again and again, for work that cannot wait for
/// the end of a long merge.
///
/// # Errors
/// `Corruption` when an input is damaged, `Io`, those of `pause`; what was written is removed again.
pub(crate) fn merge(
    inputs: &[Arc<BlockReader>],
    plan: &Plan,
    tombstones: &[Tombstone],
    floor: Timestamp,
    target: &Target,
    pause: &mut dyn FnMut() -> Result<()>,
) -> Result<Vec<BlockMeta>> {
    let metas = || inputs.iter().map(|input| input.meta());
    let shape = Shape {
        effort: Effort::Compact,
        level: plan.level,
        lsns: LsnRange {
            first: metas().map(|meta| meta.first_lsn).min().unwrap_or(0),
            last: metas().map(|meta| meta.last_lsn).max().unwrap_or(0),
        },
    };
    let mut outputs = Outputs::new(target, shape, &plan.stretches);
    let mut cursors = Vec::new();
    for input in inputs {
        cursors.push(Cursor::new(input)?);
    }
    let mut work = Work {
        tombstones,
        floor,
        spans: Vec::new(),
        pages: Vec::new(),
        steps: Vec::new(),
        merger: PageMerger::default(),
    };
    let mut at = Vec::new();
    let mut series_count = 0u32;
    while let Some((key, value_type)) = next_series(&cursors, &mut at) {
        outputs.series(&key, value_type)?;
        work.collect(&cursors, &at, &key);
        work.write(&mut cursors, &mut outputs)?;
        for input in &at {
            if let Some(cursor) = cursors.get_mut(*input) {
                cursor.advance()?;
            }
        }
        series_count = series_count.wrapping_add(1);
        if series_count.is_multiple_of(PAUSE_SERIES_COUNT) {
            pause()?;
        }
    }
    outputs.finish()
}

/// Walks the series of one block, group by group.
struct Cursor<'a> {
    stream: BlockStream<'a>,
    group: Option<(Arc<Group>, GroupKeys)>,
    group_number: usize,
    ordinal: u32,
}

impl<'a> Cursor<'a> {
    fn new(block: &'a BlockReader) -> Result<Self> {
        let mut cursor =
            Cursor { stream: BlockStream::new(block)?, group: None, group_number: 0, ordinal: 0 };
        cursor.load()?;
        Ok(cursor)
    }

    fn load(&mut self) -> Result<()> {
        self.group = None;
        if self.group_number < self.stream.block().group_count() {
            self.group = Some(self.stream.group(self.group_number)?);
        }
        Ok(())
    }

    fn current(&self) -> Option<(&SeriesKey, ValueType)> {
        let (group, keys) = self.group.as_ref()?;
        Some((keys.get(self.ordinal)?, group.series(self.ordinal)?.0))
    }

    fn pages(&self) -> Option<(&Arc<Group>, &[PageEntry])> {
        let (group, _) = self.group.as_ref()?;
        Some((group, group.series(self.ordinal)?.1))
    }

    fn advance(&mut self) -> Result<()> {
        self.ordinal += 1;
        if self.group.as_ref().is_some_and(|(group, _)| !group.ordinals().contains(&self.ordinal)) {
            self.group_number += 1;
            self.load()?;
        }
        Ok(())
    }
}

/// The next series, and in `at` the numbers of the inputs that have it.
fn next_series(cursors: &[Cursor<'_>], at: &mut Vec<usize>) -> Option<(SeriesKey, ValueType)> {
    at.clear();
    let mut least: Option<(&SeriesKey, ValueType)> = None;
    for (input, current) in
        cursors.iter().enumerate().filter_map(|(input, cursor)| Some((input, cursor.current()?)))
    {
        match least.map_or(Ordering::Less, |least| current.cmp(&least)) {
            Ordering::Less => {
                least = Some(current);
                at.clear();
                at.push(input);
            }
            Ordering::Equal => at.push(input),
            Ordering::Greater => {}
        }
    }
    least.map(|(key, value_type)| (key.clone(), value_type))
}

/// A page to merge: which input it is of, and the stretches deleted from it.
struct Page {
    input: usize,
    group: Arc<Group>,
    entry: PageEntry,
    deleted: Arc<[TimeRange]>,
}

struct Work<'a> {
    tombstones: &'a [Tombstone],
    floor: Timestamp,
    spans: Vec<PageSpan>,
    /// By the number in a span.
    pages: Vec<Page>,
    steps: Vec<Step>,
    merger: PageMerger,
}

impl Work<'_> {
    fn collect(&mut self, cursors: &[Cursor<'_>], at: &[usize], key: &SeriesKey) {
        self.spans.clear();
        self.pages.clear();
        let matching: Vec<&Tombstone> =
            self.tombstones.iter().filter(|tombstone| tombstone.selector.matches(key)).collect();
        for (input, cursor) in at.iter().filter_map(|input| Some((*input, cursors.get(*input)?))) {
            let last_lsn = cursor.stream.block().meta().last_lsn;
            let below = TimeRange { start: Timestamp::MIN, end: self.floor };
            let newer =
                matching.iter().filter(|tombstone| tombstone.lsn > last_lsn).map(|tombstone| tombstone.range);
            let deleted: Arc<[TimeRange]> = newer.chain([below]).filter(|range| !range.is_empty()).collect();
            let Some((group, entries)) = cursor.pages() else { continue };
            for entry in entries {
                let PageMeta { min_time, max_time, .. } = entry.meta;
                let (min, max) = (Timestamp::from_nanos(min_time), Timestamp::from_nanos(max_time));
                self.spans.push(PageSpan {
                    min_time,
                    max_time,
                    rank: input as u64,
                    count: entry.meta.aggregate.count,
                    masked: deleted.iter().any(|range| range.meets(min, max)),
                    page: self.pages.len() as u32,
                });
                let (group, entry, deleted) = (group.clone(), entry.clone(), deleted.clone());
                self.pages.push(Page { input, group, entry, deleted });
            }
        }
        plan_steps(&mut self.spans, &mut self.steps);
    }

    fn write(&mut self, cursors: &mut [Cursor<'_>], outputs: &mut Outputs<'_>) -> Result<()> {
        let Work { spans, pages, steps, merger, .. } = self;
        let alone = pages.len() == 1;
        for step in steps.iter() {
            let (start, end) = match step {
                Step::Page(index) => (*index, *index + 1),
                Step::Merge { start, end, .. } => (*start, *end),
            };
            for span in spans.get(start as usize..end as usize).unwrap_or_default() {
                let Some(page) = pages.get(span.page as usize) else { continue };
                let Some(cursor) = cursors.get_mut(page.input) else { continue };
                let (stream, group, entry) = (&mut cursor.stream, &page.group, &page.entry);
                if let Step::Merge { .. } = step {
                    let (_, values) = outputs.columns();
                    merger.load(span.rank, values.value_type(), |times, values| {
                        stream.read_page(group, entry, times, values)?;
                        keep(times, values, |time| !page.deleted.iter().any(|range| range.contains(time)));
                        Ok(())
                    })?;
                } else if is_copied(stream.block(), entry, alone)
                    && outputs.in_one_stretch(entry.meta.min_time, entry.meta.max_time)
                {
                    outputs.page(stream.raw_page(group, entry)?)?;
                } else {
                    let (times, values) = outputs.columns();
                    stream.read_page(group, entry, times, values)?;
                }
            }
            if let Step::Merge { until, .. } = step {
                let (times, values) = outputs.columns();
                merger.drain(*until, times, values);
            }
            outputs.appended()?;
        }
        Ok(())
    }
}

/// Whether a page goes into the output as it is.
fn is_copied(block: &BlockReader, entry: &PageEntry, alone: bool) -> bool {
    let count = entry.meta.aggregate.count;
    block.meta().level > 0 && count >= COPY_COUNT_MIN || alone && count <= COPY_COUNT_MAX
}
