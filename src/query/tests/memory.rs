//! A source in memory, for tests: pages as they are given.

use std::path::Path;
use std::sync::Arc;

use crate::block::{BlockOptions, BlockReader, BlockWriter, Cache, LsnRange, ReadMode};
use crate::chunk::merge::ColumnSlice;
use crate::chunk::{Effort, PageAggregate, aggregate_of, encode_page};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::fs::{Fs, MemoryFs};
use crate::model::{Column, Selector, SeriesKey, TimeRange, Timestamp, ValueType};
use crate::query::source::{Cursor, PageInfo, Snapshot, Source};

#[derive(Clone, Debug, Default)]
pub(super) struct MemorySource {
    pub(super) lsn_last: u64,
    /// Sorted by key and type.
    pub(super) series: Vec<MemorySeries>,
}

#[derive(Clone, Debug)]
pub(super) struct MemorySeries {
    pub(super) key: SeriesKey,
    pub(super) value_type: ValueType,
    pub(super) pages: Vec<MemoryPage>,
}

#[derive(Clone, Debug)]
pub(super) struct MemoryPage {
    pub(super) times: Vec<i64>,
    pub(super) values: Column,
    /// Whether its aggregate is stored.
    pub(super) aggregated: bool,
    /// Whether reading it fails.
    pub(super) damaged: bool,
}

impl MemoryPage {
    pub(super) fn new(times: Vec<i64>, values: Column) -> Self {
        MemoryPage { times, values, aggregated: true, damaged: false }
    }
}

impl MemorySource {
    pub(super) fn sort(&mut self) {
        self.series.sort_by(|a, b| (&a.key, a.value_type).cmp(&(&b.key, b.value_type)));
    }

    /// The same samples as a block on a disk in memory. Its pages must not meet.
    pub(super) fn to_block(&self) -> BlockReader {
        let fs: Arc<dyn Fs> = Arc::new(MemoryFs::new(1));
        let options = BlockOptions { database_id: [1; 16], number: 1, level: 0 };
        let mut writer = BlockWriter::create(fs.clone(), Path::new("/b"), options).unwrap();
        for series in &self.series {
            writer.series(&series.key, series.value_type).unwrap();
            for page in &series.pages {
                let values = ColumnSlice::new(&page.values, 0, page.values.len());
                writer.page(&encode_page(&page.times, values, Effort::Flush)).unwrap();
            }
        }
        writer.finish(LsnRange { first: 1, last: self.lsn_last }).unwrap();
        let file = fs.open(Path::new("/b")).unwrap();
        BlockReader::open(file, ReadMode::Pread, Arc::new(Cache::new(1 << 20))).unwrap()
    }

    fn pages(&self) -> impl Iterator<Item = &MemoryPage> {
        self.series.iter().flat_map(|series| &series.pages)
    }

    fn page(&self, ordinal: u32, locator: u32) -> Result<&MemoryPage> {
        let page = &self.series[ordinal as usize].pages[locator as usize];
        if page.damaged { Err(Error::corrupt("a page is damaged")) } else { Ok(page) }
    }
}

impl Source for MemorySource {
    fn time_bounds(&self) -> Option<(Timestamp, Timestamp)> {
        let min = self.pages().map(|page| page.times[0]).min()?;
        let max = self.pages().map(|page| page.times[page.times.len() - 1]).max()?;
        Some((Timestamp::from_nanos(min), Timestamp::from_nanos(max)))
    }

    fn lsn_last(&self) -> u64 {
        self.lsn_last
    }

    fn select(&self, selector: &Selector) -> Result<Vec<u32>> {
        let matches = |series: &(usize, &MemorySeries)| selector.matches(&series.1.key);
        Ok(self.series.iter().enumerate().filter(matches).map(|(index, _)| index as u32).collect())
    }

    fn keys(&self, ordinals: &[u32]) -> Result<Vec<SeriesKey>> {
        Ok(ordinals.iter().map(|ordinal| self.series[*ordinal as usize].key.clone()).collect())
    }

    fn value_types(&self, ordinals: &[u32]) -> Result<Vec<ValueType>> {
        Ok(ordinals.iter().map(|ordinal| self.series[*ordinal as usize].value_type).collect())
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor> {
        Box::new(MemoryCursor { source: self, ordinal: 0, aggregates: Vec::new() })
    }
}

#[derive(Debug)]
struct MemoryCursor {
    source: Arc<MemorySource>,
    ordinal: u32,
    aggregates: Vec<PageAggregate>,
}

impl Cursor for MemoryCursor {
    fn seek(&mut self, ordinal: u32) -> Result<()> {
        self.ordinal = ordinal;
        let pages = &self.source.series[ordinal as usize].pages;
        let aggregate =
            |page: &MemoryPage| aggregate_of(ColumnSlice::new(&page.values, 0, page.values.len()));
        self.aggregates = pages.iter().map(aggregate).collect();
        Ok(())
    }

    fn aggregate(&self, locator: u32) -> Option<&PageAggregate> {
        let page = &self.source.series[self.ordinal as usize].pages[locator as usize];
        page.aggregated.then(|| &self.aggregates[locator as usize])
    }

    fn pages(&mut self, range: TimeRange, out: &mut Vec<PageInfo>) -> Result<()> {
        for (locator, page) in self.source.series[self.ordinal as usize].pages.iter().enumerate() {
            let (min_time, max_time) = (page.times[0], page.times[page.times.len() - 1]);
            if range.meets(Timestamp::from_nanos(min_time), Timestamp::from_nanos(max_time)) {
                out.push(PageInfo {
                    min_time,
                    max_time,
                    count: page.times.len() as u32,
                    size: 8 * page.times.len() as u32,
                    locator: locator as u32,
                });
            }
        }
        Ok(())
    }

    fn read_times(&mut self, locator: u32, out: &mut Vec<i64>) -> Result<()> {
        out.extend_from_slice(&self.source.page(self.ordinal, locator)?.times);
        Ok(())
    }

    fn read_values(&mut self, locator: u32, out: &mut Column) -> Result<()> {
        let values = &self.source.page(self.ordinal, locator)?.values;
        ColumnSlice::new(values, 0, values.len()).append_to(out);
        Ok(())
    }
}

pub(super) fn snapshot(sources: Vec<MemorySource>) -> Snapshot {
    Snapshot {
        sources: sources.into_iter().map(|source| Arc::new(source) as _).collect(),
        tombstones: Vec::new(),
        floor: Timestamp::MIN,
        damaged: Vec::new(),
        env: Env::simulated(0),
        ledger: crate::ledger::Ledger::new(usize::MAX, 0),
    }
}

/// A source with one series of doubles, `name`, in one page.
pub(super) fn source_of(name: &str, times: &[i64], values: &[f64]) -> MemorySource {
    let key = SeriesKey::new(name, [("", ""); 0]).unwrap();
    let pages = vec![MemoryPage::new(times.to_vec(), Column::F64(values.to_vec()))];
    MemorySource { lsn_last: 1, series: vec![MemorySeries { key, value_type: ValueType::F64, pages }] }
}
