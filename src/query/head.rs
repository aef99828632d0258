//! Heads as sources of queries.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::chunk::PageAggregate;
use crate::chunk::merge::ColumnSlice;
use crate::error::{Error, Result};
use crate::head::{Head, HeadSamples};
use crate::model::{Column, Selector, SeriesKey, TimeRange, Timestamp, ValueType};
use crate::query::source::{Cursor, PageInfo, Source, Tombstone};

/// A head as a query reads it. Its ordinals are the numbers of the registry.
#[derive(Debug)]
pub(crate) struct HeadSource {
    head: Arc<Head>,
    copied: Option<Arc<Copied>>,
}

/// Series as they were at one moment; nothing else of the head is seen.
#[derive(Debug)]
struct Copied {
    samples: HashMap<u32, HeadSamples>,
    bounds: Option<(Timestamp, Timestamp)>,
    lsn_last: u64,
}

impl HeadSource {
    /// The head as it is whenever a series is read.
    pub(crate) fn new(head: Arc<Head>) -> Self {
        HeadSource { head, copied: None }
    }

    /// The series that `selector` names as they are now; the caller keeps commits from being applied meanwhile. Sealed
    /// runs are shared, what is staged is copied.
    pub(crate) fn copied(head: Arc<Head>, selector: &Selector) -> Self {
        let ids = head.registry().read().select(selector);
        let samples = ids.into_iter().filter_map(|id| Some((id, head.read(id)?))).collect();
        let copied = Copied { samples, bounds: head.time_bounds(), lsn_last: head.last_lsn() };
        HeadSource { head, copied: Some(Arc::new(copied)) }
    }
}

impl Source for HeadSource {
    fn time_bounds(&self) -> Option<(Timestamp, Timestamp)> {
        self.copied.as_ref().map_or_else(|| self.head.time_bounds(), |copied| copied.bounds)
    }

    fn lsn_last(&self) -> u64 {
        self.copied.as_ref().map_or_else(|| self.head.last_lsn(), |copied| copied.lsn_last)
    }

    fn select(&self, selector: &Selector) -> Result<Vec<u32>> {
        let ids = self.head.registry().read().select(selector);
        let is_seen = |id: &u32| self.copied.as_ref().is_none_or(|copied| copied.samples.contains_key(id));
        let sorted = self.head.sorted(ids.into_iter().filter(is_seen));
        Ok(sorted.into_iter().map(|(_, _, id)| id).collect())
    }

    fn keys(&self, ordinals: &[u32]) -> Result<Vec<SeriesKey>> {
        let registry = self.head.registry().read();
        let key = |id: &u32| registry.get(*id).map(|(key, _)| key.clone()).ok_or_else(|| unknown(*id));
        ordinals.iter().map(key).collect()
    }

    fn value_types(&self, ordinals: &[u32]) -> Result<Vec<ValueType>> {
        let registry = self.head.registry().read();
        let value_type = |id: &u32| registry.get(*id).map(|(_, own)| own).ok_or_else(|| unknown(*id));
        ordinals.iter().map(value_type).collect()
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor> {
        Box::new(HeadCursor { head: self.head.clone(), copied: self.copied.clone(), samples: None })
    }
}

/// The staged part's locator; runs have their positions.
const STAGED: u32 = u32::MAX;

/// Walks the series of a head. The samples of the one at hand are copied out (runs are shared), so that they
/// stand still while the head takes writes.
#[derive(Debug)]
struct HeadCursor {
    head: Arc<Head>,
    copied: Option<Arc<Copied>>,
    samples: Option<HeadSamples>,
}

impl HeadCursor {
    fn samples(&self) -> Result<&HeadSamples> {
        self.samples.as_ref().ok_or_else(|| Error::not_found("a head is read before a series is sought"))
    }
}

impl Cursor for HeadCursor {
    fn seek(&mut self, ordinal: u32) -> Result<()> {
        let samples = match &self.copied {
            Some(copied) => copied.samples.get(&ordinal).cloned(),
            None => self.head.read(ordinal),
        };
        self.samples = Some(samples.ok_or_else(|| unknown(ordinal))?);
        Ok(())
    }

    fn delete_count(&self) -> usize {
        self.samples.as_ref().map_or(0, |samples| samples.delete_count)
    }

    fn deletes(&self, range: Range<usize>) -> Vec<Tombstone> {
        let carried_out = self.head.deletes(range).into_iter();
        carried_out
            .map(|(lsn, record)| Tombstone { lsn, selector: record.selector, range: record.range })
            .collect()
    }

    fn pages(&mut self, range: TimeRange, out: &mut Vec<PageInfo>) -> Result<()> {
        let samples = self.samples()?;
        let meets =
            |page: &PageInfo| page.min_time < range.end.nanos() && range.start.nanos() <= page.max_time;
        let runs = samples.runs.iter().zip(0..).map(|(run, locator)| PageInfo {
            min_time: run.min_time,
            max_time: run.max_time,
            count: run.count,
            size: run.heap_size() as u32,
            locator,
        });
        let ends = samples.times.first().zip(samples.times.last());
        let staged = ends.map(|(min_time, max_time)| PageInfo {
            min_time: *min_time,
            max_time: *max_time,
            count: samples.times.len() as u32,
            size: 0,
            locator: STAGED,
        });
        out.extend(runs.chain(staged).filter(meets));
        Ok(())
    }

    fn aggregate(&self, locator: u32) -> Option<&PageAggregate> {
        Some(&self.samples.as_ref()?.runs.get(locator as usize)?.aggregate)
    }

    fn read_times(&mut self, locator: u32, out: &mut Vec<i64>) -> Result<()> {
        let samples = self.samples()?;
        if let Some(run) = samples.runs.get(locator as usize) {
            return run.decode_times(out);
        }
        out.extend_from_slice(&samples.times);
        Ok(())
    }

    fn read_values(&mut self, locator: u32, out: &mut Column) -> Result<()> {
        let samples = self.samples()?;
        if let Some(run) = samples.runs.get(locator as usize) {
            return run.decode_values(out);
        }
        ColumnSlice::new(&samples.values, 0, samples.values.len()).append_to(out);
        Ok(())
    }
}

#[cold]
fn unknown(id: u32) -> Error {
    Error::not_found(format!("series {id} is not in the head"))
}
