//! A door for the benches in `benches/`, which see only what is public, into layers that are not.
//!
//! Not part of the interface of the crate: it follows the layers, without notice.

pub mod block;

use std::sync::Arc;

use crate::block::{BlockReader, Cache, ReadMode};
use crate::chunk::merge::ColumnSlice;
use crate::chunk::{Context, Effort, EncodedPage, PageMeta, TimeColumn, TimesMeta};
use crate::env::Env;
use crate::error::Result;
use crate::model::{Column, Selector, SeriesKey, Timestamp};
use crate::query::Query;
use crate::query::source::{Snapshot, Source};

/// One encoded page.
#[derive(Debug)]
pub struct Page(EncodedPage);

impl Page {
    /// Encodes samples `start..end`, at most a page of them, as flush or as compaction does.
    pub fn encode(times: &[i64], values: &Column, start: usize, end: usize, compact: bool) -> Page {
        let effort = if compact { Effort::Compact } else { Effort::Flush };
        Page(crate::chunk::encode_page(&times[start..end], ColumnSlice::new(values, start, end), effort))
    }

    /// Appends its samples.
    ///
    /// # Errors
    /// `Corruption`, which for an encoded page is a bug.
    pub fn decode(&self, times: &mut Vec<i64>, values: &mut Column) -> Result<()> {
        self.0.decode_times(times)?;
        self.0.decode_values(values)
    }

    /// The number of its encoding.
    pub fn encoding(&self) -> u8 {
        self.0.encoding as u8
    }

    /// Bytes of its values.
    pub fn values_size(&self) -> usize {
        self.0.values.len()
    }

    /// Bytes of its times, where they are no line.
    pub fn times_size(&self) -> usize {
        match &self.0.times {
            TimeColumn::Affine { .. } => 0,
            TimeColumn::Packed(bytes) => bytes.len(),
        }
    }

    /// Bytes of its directory record behind the record of `before`, as if its times were a line.
    pub fn record_size(&self, before: Option<&Page>) -> usize {
        let meta = before.map(Page::meta);
        let context = meta.as_ref().map_or(Context::Start, Context::After);
        let mut out = Vec::new();
        crate::chunk::put_page_meta(&mut out, context, &self.meta(), &[]);
        out.len()
    }

    fn meta(&self) -> PageMeta {
        let page = &self.0;
        let step = match page.times {
            TimeColumn::Affine { step, .. } => step,
            TimeColumn::Packed(_) => 1,
        };
        PageMeta {
            min_time: page.min_time,
            max_time: page.max_time,
            times: TimesMeta::Affine { step },
            encoding: page.encoding,
            values_size: page.values.len() as u32,
            aggregate: page.aggregate.clone(),
        }
    }
}

/// Where a series is cut into pages: the position after each.
pub fn page_ends(times: &[i64], values: &Column) -> Vec<usize> {
    let values = ColumnSlice::new(values, 0, values.len());
    crate::chunk::cut_pages(times, values).map(|range| range.end).collect()
}

/// A block of these series in `dir`, and a query over everything in it.
///
/// # Errors
/// `Io` when it cannot be written there, `InvalidInput` when keys do not ascend.
pub fn block_query(
    dir: &std::path::Path,
    series: impl IntoIterator<Item = (SeriesKey, Vec<i64>, Column)>,
    compact: bool,
) -> Result<Query> {
    let env = Env::system();
    let path = dir.join("block");
    block::write_block(&path, series, compact)?;
    let block = BlockReader::open(env.fs.open(&path)?, ReadMode::Pread, Arc::new(Cache::new(64 << 20)))?;
    let (sources, floor): (Vec<Arc<dyn Source>>, _) = (vec![Arc::new(block)], Timestamp::MIN);
    let ledger = crate::ledger::Ledger::new(usize::MAX, 0);
    let snapshot = Snapshot { sources, tombstones: Vec::new(), floor, damaged: Vec::new(), env, ledger };
    Ok(Query::new(Arc::new(snapshot), Selector::all()))
}
