//! Many blocks into one: streaming, series by series.

use std::sync::Arc;

use crate::block::{BlockMeta, BlockReader, Group, GroupKeys, LsnRange, PageEntry};
use crate::chunk::merge::{PageMerger, PageSpan, Step, plan_steps};
use crate::chunk::{Effort, PageMeta};
use crate::compact::plan::Plan;
use crate::compact::rewrite::{Outputs, Shape, Target, keep};
use crate::error::Result;
use crate::manifest::Tombstone;
use crate::model::{SeriesKey, TimeRange, Timestamp, ValueType};

/// A page of a block that was merged before is copied as it is from this many samples on.
const COPY_COUNT_MIN: u32 = 512;

/// Writes what the blocks of `plan` hold, less what tombstones delete and what lies below `floor`, as blocks that are on the
/// device when this returns. No block at all comes out when nothing is left.
///
/// Holds one group of each input and some thousand samples in memory.
///
/// # Errors
/// `Corruption` when an input is damaged, `Io`; what was written is removed again.
pub(crate) fn merge(
    inputs: &[Arc<BlockReader>],
    plan: &Plan,
    tombstones: &[Tombstone],
    floor: Timestamp,
    target: &Target,
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
    let mut outputs = Outputs::new(target, shape, &[plan.window]);
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
    while let Some((key, value_type)) = next_series(&cursors) {
        outputs.series(&key, value_type)?;
        work.collect(&cursors, &key, value_type);
        work.write(inputs, &mut outputs)?;
        for cursor in &mut cursors {
            if cursor.is_at(&key, value_type) {
                cursor.advance()?;
            }
        }
    }
    outputs.finish()
}

/// Walks the series of one block, group by group.
struct Cursor<'a> {
    block: &'a BlockReader,
    group: Option<(Arc<Group>, Arc<GroupKeys>)>,
    group_number: usize,
    ordinal: u32,
}

impl<'a> Cursor<'a> {
    fn new(block: &'a BlockReader) -> Result<Self> {
        let mut cursor = Cursor { block, group: None, group_number: 0, ordinal: 0 };
        cursor.load()?;
        Ok(cursor)
    }

    fn load(&mut self) -> Result<()> {
        self.group = None;
        if self.group_number < self.block.group_count() {
            let (group, keys) = (self.block.group(self.group_number)?, self.block.keys(self.group_number)?);
            self.group = Some((group, keys));
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

    fn is_at(&self, key: &SeriesKey, value_type: ValueType) -> bool {
        self.current().is_some_and(|(own, own_type)| own == key && own_type == value_type)
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

fn next_series(cursors: &[Cursor<'_>]) -> Option<(SeriesKey, ValueType)> {
    let least = cursors.iter().filter_map(Cursor::current).min();
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
    fn collect(&mut self, cursors: &[Cursor<'_>], key: &SeriesKey, value_type: ValueType) {
        self.spans.clear();
        self.pages.clear();
        let matching: Vec<&Tombstone> =
            self.tombstones.iter().filter(|tombstone| tombstone.selector.matches(key)).collect();
        for (input, cursor) in cursors.iter().enumerate().filter(|(_, cursor)| cursor.is_at(key, value_type))
        {
            let last_lsn = cursor.block.meta().last_lsn;
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

    fn write(&mut self, inputs: &[Arc<BlockReader>], outputs: &mut Outputs<'_>) -> Result<()> {
        let Work { spans, pages, steps, merger, .. } = self;
        for step in steps.iter() {
            let (start, end) = match step {
                Step::Page(index) => (*index, *index + 1),
                Step::Merge { start, end, .. } => (*start, *end),
            };
            let taken = spans.get(start as usize..end as usize).unwrap_or_default();
            let taken = taken.iter().filter_map(|span| {
                let page = pages.get(span.page as usize)?;
                Some((span.rank, page, inputs.get(page.input)?))
            });
            if let Step::Merge { until, .. } = step {
                let (times, values) = outputs.columns();
                for (rank, page, block) in taken {
                    merger.load(rank, values.value_type(), |times, values| {
                        block.read_times(&page.group, &page.entry, times)?;
                        block.read_values(&page.group, &page.entry, values)?;
                        keep(times, values, |time| !page.deleted.iter().any(|range| range.contains(time)));
                        Ok(())
                    })?;
                }
                merger.drain(*until, times, values);
            } else {
                for (_, page, block) in taken {
                    if block.meta().level > 0 && page.entry.meta.aggregate.count >= COPY_COUNT_MIN {
                        outputs.page(block.raw_page(&page.group, &page.entry)?)?;
                        continue;
                    }
                    let (times, values) = outputs.columns();
                    block.read_times(&page.group, &page.entry, times)?;
                    block.read_values(&page.group, &page.entry, values)?;
                }
            }
            outputs.appended()?;
        }
        Ok(())
    }
}
