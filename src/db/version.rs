//! What a query sees: one consistent set of blocks and heads, and how heads and blocks are read.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::block::{BlockMeta, BlockReader};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::head::{Head, HeadSamples};
use crate::manifest::Tombstone;
use crate::model::{Column, Selector, SeriesKey, TimeRange, Timestamp, ValueType};
use crate::query::Damaged;
use crate::query::source::{PageInfo, Snapshot, Source};

/// The live set between two edits. Replaced whole, never changed.
#[derive(Clone, Debug)]
pub(super) struct Version {
    /// In order of LSN ranges.
    pub(super) blocks: Vec<Arc<BlockReader>>,
    /// The head that is being flushed.
    pub(super) frozen: Option<Arc<Head>>,
    /// The head that takes writes.
    pub(super) active: Arc<Head>,
    /// Deletes that apply to blocks or the frozen head.
    pub(super) tombstones: Vec<Tombstone>,
    /// Nothing before it is in any answer.
    pub(super) floor: Timestamp,
    /// What is set aside in quarantine.
    pub(super) damaged: Vec<Damaged>,
}

impl Version {
    /// All places to read, oldest first.
    pub(super) fn sources(&self) -> Vec<Arc<dyn Source>> {
        let blocks = self.blocks.iter().map(|block| block.clone() as Arc<dyn Source>);
        let heads = self.frozen.iter().chain([&self.active]).filter(|head| !head.is_empty());
        let heads = heads.map(|head| Arc::new(HeadSource::new(head.clone())) as Arc<dyn Source>);
        blocks.chain(heads).collect()
    }

    /// What a query that begins now sees.
    pub(super) fn pin(&self, env: &Env) -> Snapshot {
        Snapshot {
            sources: self.sources(),
            tombstones: self.tombstones.clone(),
            floor: self.floor,
            damaged: self.damaged.clone(),
            env: env.clone(),
        }
    }

    /// Drops the tombstones that no source is old enough for.
    pub(super) fn prune_tombstones(&mut self) {
        let meets = |tombstone: &Tombstone, meta: &BlockMeta| {
            let (min, max) = (Timestamp::from_nanos(meta.min_time), Timestamp::from_nanos(meta.max_time));
            meta.last_lsn < tombstone.lsn && tombstone.range.meets(min, max)
        };
        let frozen = self.frozen.as_ref().map(|head| head.last_lsn());
        let blocks = &self.blocks;
        self.tombstones.retain(|tombstone| {
            frozen.is_some_and(|lsn| lsn < tombstone.lsn)
                || blocks.iter().any(|block| meets(tombstone, block.meta()))
        });
    }
}

/// A head as one query reads it: the staging part of a series is copied once, when it is first asked for.
#[derive(Debug)]
pub(super) struct HeadSource {
    head: Arc<Head>,
    /// What was copied, by number of series.
    taken: Mutex<HashMap<u32, Arc<HeadSamples>>>,
}

impl HeadSource {
    pub(super) fn new(head: Arc<Head>) -> Self {
        HeadSource { head, taken: Mutex::default() }
    }

    fn take(&self, id: u32) -> Result<Arc<HeadSamples>> {
        if let Some(samples) = self.taken.lock().get(&id) {
            return Ok(samples.clone());
        }
        let samples = self.head.read(id).ok_or_else(|| unknown(id))?;
        Ok(self.taken.lock().entry(id).or_insert_with(|| Arc::new(samples)).clone())
    }
}

impl Source for HeadSource {
    fn time_bounds(&self) -> Option<(Timestamp, Timestamp)> {
        self.head.time_bounds()
    }

    fn lsn_last(&self) -> u64 {
        self.head.last_lsn()
    }

    fn select(&self, selector: &Selector) -> Result<Vec<u32>> {
        let ids = self.head.registry().read().select(selector);
        Ok(self.head.sorted(ids).into_iter().map(|(_, _, id)| id).collect())
    }

    fn keys(&self, ordinals: &[u32]) -> Result<Vec<SeriesKey>> {
        let registry = self.head.registry().read();
        let key = |id: &u32| registry.get(*id).map(|(key, _)| key.clone()).ok_or_else(|| unknown(*id));
        ordinals.iter().map(key).collect()
    }

    fn value_type(&self, ordinal: u32) -> Result<ValueType> {
        let registry = self.head.registry().read();
        registry.get(ordinal).map(|(_, value_type)| value_type).ok_or_else(|| unknown(ordinal))
    }

    fn pages(&self, ordinal: u32, range: TimeRange, out: &mut Vec<PageInfo>) -> Result<()> {
        let samples = self.take(ordinal)?;
        let meets = |min: i64, max: i64| range.meets(Timestamp::from_nanos(min), Timestamp::from_nanos(max));
        for (locator, run) in (0..).zip(&samples.runs) {
            if meets(run.min_time, run.max_time) {
                out.push(PageInfo {
                    min_time: run.min_time,
                    max_time: run.max_time,
                    count: run.count,
                    size: run.heap_size() as u32,
                    locator,
                    aggregate: Some(run.aggregate.clone()),
                });
            }
        }
        if let (Some(min), Some(max)) = (samples.times.first(), samples.times.last())
            && meets(*min, *max)
        {
            out.push(PageInfo {
                min_time: *min,
                max_time: *max,
                count: samples.times.len() as u32,
                size: 0,
                locator: u32::MAX,
                aggregate: None,
            });
        }
        Ok(())
    }

    fn read_times(&self, ordinal: u32, locator: u32, out: &mut Vec<i64>) -> Result<()> {
        let samples = self.take(ordinal)?;
        match samples.runs.get(locator as usize) {
            Some(run) => run.decode_times(out),
            None => {
                out.extend_from_slice(&samples.times);
                Ok(())
            }
        }
    }

    fn read_values(&self, ordinal: u32, locator: u32, out: &mut Column) -> Result<()> {
        let samples = self.take(ordinal)?;
        match (samples.runs.get(locator as usize), out, &samples.values) {
            (Some(run), out, _) => return run.decode_values(out),
            (None, Column::F64(out), Column::F64(values)) => out.extend_from_slice(values),
            (None, Column::I64(out), Column::I64(values)) => out.extend_from_slice(values),
            (None, Column::Bytes(out), Column::Bytes(values)) => {
                values.iter().for_each(|value| out.push(value))
            }
            _ => return Err(Error::invalid_input("a column of another type than the series")),
        }
        Ok(())
    }
}

#[cold]
fn unknown(id: u32) -> Error {
    Error::not_found(format!("series {id} is not in the head"))
}
