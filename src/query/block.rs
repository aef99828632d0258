//! Blocks as sources of queries.

use std::sync::Arc;

use crate::block::{BlockReader, Group, PageEntry};
use crate::chunk::PageAggregate;
use crate::error::{Error, Result};
use crate::model::{Column, Selector, SeriesKey, TimeRange, Timestamp, ValueType};
use crate::query::source::{Cursor, PageInfo, Source};

impl Source for BlockReader {
    fn time_bounds(&self) -> Option<(Timestamp, Timestamp)> {
        let meta = self.meta();
        Some((Timestamp::from_nanos(meta.min_time), Timestamp::from_nanos(meta.max_time)))
    }

    fn lsn_last(&self) -> u64 {
        self.meta().last_lsn
    }

    fn may_match(&self, selector: &Selector) -> bool {
        BlockReader::may_match(self, selector)
    }

    fn select(&self, selector: &Selector) -> Result<Vec<u32>> {
        BlockReader::select(self, selector)
    }

    /// Reads the keys of a group at a time: the ordinals of a selection are neighbours more often than not.
    fn keys(&self, ordinals: &[u32]) -> Result<Vec<SeriesKey>> {
        let mut keys = Vec::with_capacity(ordinals.len());
        let mut rest = ordinals;
        while let Some(first) = rest.first() {
            let group = self.group_of(*first)?;
            let end = self.group_end(group)?;
            let (here, behind) = rest.split_at(rest.partition_point(|ordinal| *ordinal < end).max(1));
            keys.append(&mut self.some_keys(group, here)?);
            rest = behind;
        }
        Ok(keys)
    }

    fn value_types(&self, ordinals: &[u32]) -> Result<Vec<ValueType>> {
        let mut place = Place::default();
        let mut value_type = |ordinal: &u32| {
            place.seek(self, *ordinal)?;
            Ok(place.series(self)?.0)
        };
        ordinals.iter().map(&mut value_type).collect()
    }

    fn texts(&self, key: Option<&str>) -> Option<Result<Vec<String>>> {
        let counted = match key {
            Some(key) => BlockReader::tag_values(self, key),
            None => BlockReader::tag_keys(self),
        };
        Some(counted.map(|counted| counted.into_iter().map(|(text, _)| text).collect()))
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor> {
        Box::new(BlockCursor { block: self, place: Place::default() })
    }
}

/// Walks the series of a block; keeps the directory of the group at hand.
#[derive(Debug)]
struct BlockCursor {
    block: Arc<BlockReader>,
    place: Place,
}

impl Cursor for BlockCursor {
    fn seek(&mut self, ordinal: u32) -> Result<()> {
        self.place.seek(&self.block, ordinal)
    }

    fn pages(&mut self, range: TimeRange, out: &mut Vec<PageInfo>) -> Result<()> {
        list_pages(self.place.series(&self.block)?.1, range, out);
        Ok(())
    }

    fn aggregate(&self, locator: u32) -> Option<&PageAggregate> {
        Some(&self.place.page(&self.block, locator).ok()?.1.meta.aggregate)
    }

    fn read_times(&mut self, locator: u32, out: &mut Vec<i64>) -> Result<()> {
        let (group, page) = self.place.page(&self.block, locator)?;
        self.block.read_times(group, page, out)
    }

    fn read_values(&mut self, locator: u32, out: &mut Column) -> Result<()> {
        let (group, page) = self.place.page(&self.block, locator)?;
        self.block.read_values(group, page, out)
    }
}

/// A series of a block, with the directory that lists its pages.
#[derive(Debug, Default)]
struct Place {
    group: Option<Arc<Group>>,
    ordinal: u32,
}

impl Place {
    fn seek(&mut self, block: &BlockReader, ordinal: u32) -> Result<()> {
        let here = self.group.as_ref().is_some_and(|group| group.ordinals().contains(&ordinal));
        if !here {
            self.group = Some(block.group(block.group_of(ordinal)?)?);
        }
        self.ordinal = ordinal;
        Ok(())
    }

    fn series(&self, block: &BlockReader) -> Result<(ValueType, &[PageEntry])> {
        let series = self.group.as_ref().and_then(|group| group.series(self.ordinal));
        series.ok_or_else(|| not_there(block, self.ordinal))
    }

    fn page(&self, block: &BlockReader, locator: u32) -> Result<(&Group, &PageEntry)> {
        let page = self.series(block)?.1.get(locator as usize);
        self.group.as_deref().zip(page).ok_or_else(|| not_there(block, self.ordinal))
    }
}

/// Appends those of the pages, which rise in time, that meet `range`.
fn list_pages(pages: &[PageEntry], range: TimeRange, out: &mut Vec<PageInfo>) {
    let (start, end) = (range.start.nanos(), range.end.nanos());
    let first = pages.partition_point(|page| page.meta.max_time < start);
    let met = pages.get(first..).unwrap_or_default();
    let count = met.partition_point(|page| page.meta.min_time < end);
    let met = met.get(..count).unwrap_or_default();
    let first = u32::try_from(first).expect("a chunk has fewer than 2^32 pages");
    out.extend(met.iter().zip(first..).map(|(page, locator)| PageInfo {
        min_time: page.meta.min_time,
        max_time: page.meta.max_time,
        count: page.meta.aggregate.count,
        size: page.meta.values_size,
        locator,
    }));
}

#[cold]
fn not_there(block: &BlockReader, ordinal: u32) -> Error {
    Error::corrupt(format!("there is no series {ordinal}, or not all of its pages")).at(block.path(), 0)
}
