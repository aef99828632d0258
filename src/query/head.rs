//! Heads as sources of queries.

use std::sync::Arc;

use crate::chunk::PageAggregate;
use crate::chunk::merge::ColumnSlice;
use crate::error::{Error, Result};
use crate::head::{Head, HeadSamples};
use crate::model::{Column, Selector, SeriesKey, TimeRange, Timestamp, ValueType};
use crate::query::source::{Cursor, PageInfo, Source};

/// A head as a query reads it. Its ordinals are the numbers of the registry.
#[derive(Debug)]
pub(crate) struct HeadSource {
    head: Arc<Head>,
}

impl HeadSource {
    pub(crate) fn new(head: Arc<Head>) -> Self {
        HeadSource { head }
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

    fn value_types(&self, ordinals: &[u32]) -> Result<Vec<ValueType>> {
        let registry = self.head.registry().read();
        let value_type = |id: &u32| registry.get(*id).map(|(_, own)| own).ok_or_else(|| unknown(*id));
        ordinals.iter().map(value_type).collect()
    }

    fn cursor(self: Arc<Self>) -> Box<dyn Cursor> {
        Box::new(HeadCursor { head: Arc::clone(&self.head), samples: None })
    }
}

/// The staged part's locator; runs have their positions.
const STAGED: u32 = u32::MAX;

/// Walks the series of a head. The samples of the one at hand are copied out (runs are shared), so that they
/// stand still while the head takes writes.
#[derive(Debug)]
struct HeadCursor {
    head: Arc<Head>,
    samples: Option<HeadSamples>,
}

impl HeadCursor {
    fn samples(&self) -> Result<&HeadSamples> {
        self.samples.as_ref().ok_or_else(|| Error::not_found("a head is read before a series is sought"))
    }
}

impl Cursor for HeadCursor {
    fn seek(&mut self, ordinal: u32) -> Result<()> {
        self.samples = Some(self.head.read(ordinal).ok_or_else(|| unknown(ordinal))?);
        Ok(())
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
