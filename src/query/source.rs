//! What a query reads from: one trait for heads and blocks, so that neither knows of queries, and the
//! pinned set of them that one query sees.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use crate::chunk::PageAggregate;
use crate::env::Env;
use crate::error::Result;
use crate::ledger::Ledger;
pub(crate) use crate::manifest::Tombstone;
use crate::model::{Column, Selector, SeriesKey, TimeRange, Timestamp, ValueType};

/// Samples of many series, immutable for as long as it is held: a block, a frozen head, or the active
/// head up to some commit.
///
/// A series is named by its ordinal, a number that means something in this source only.
pub(crate) trait Source: Send + Sync + fmt::Debug {
    /// Smallest and largest time of all samples; `None` when there is none. May be wider than the truth.
    fn time_bounds(&self) -> Option<(Timestamp, Timestamp)>;

    /// The last LSN that can be in here. Tombstones with a greater one apply.
    fn lsn_last(&self) -> u64;

    /// False when surely no series matches: a cheap test, before `select`.
    fn may_match(&self, selector: &Selector) -> bool {
        let _ = selector;
        true
    }

    /// The ordinals of the series that match, ascending in (key bytes, type).
    fn select(&self, selector: &Selector) -> Result<Vec<u32>>;

    /// The keys of series, whose ordinals are given in the order that `select` gives them in.
    fn keys(&self, ordinals: &[u32]) -> Result<Vec<SeriesKey>>;

    /// The types of series, whose ordinals are given in that order too.
    fn value_types(&self, ordinals: &[u32]) -> Result<Vec<ValueType>>;

    /// The values of the tag `key`, or with `None` the tag keys, of all its series, where that is known without looking at
    /// each: every series then holds a sample.
    fn texts(&self, key: Option<&str>) -> Option<Result<Vec<String>>> {
        let _ = key;
        None
    }

    /// A cursor over its series.
    fn cursor(self: Arc<Self>) -> Box<dyn Cursor>;
}

/// Reads one series of a source after the other; owned by one scan.
pub(crate) trait Cursor: Send + fmt::Debug {
    /// Moves to a series.
    fn seek(&mut self, ordinal: u32) -> Result<()>;

    /// Appends the pages of the series that may hold samples in `range`.
    ///
    /// A page is what decodes on its own. At one time, a later page of the list wins over an earlier one;
    /// the list is therefore in order of commit where pages may meet, and in order of time where they do not.
    fn pages(&mut self, range: TimeRange, out: &mut Vec<PageInfo>) -> Result<()>;

    /// What is known of the samples of a page without decoding them, if anything.
    fn aggregate(&self, locator: u32) -> Option<&PageAggregate>;

    /// Appends the times of a page, strictly rising, as nanoseconds.
    fn read_times(&mut self, locator: u32, out: &mut Vec<i64>) -> Result<()>;

    /// How many deletes were carried out on the samples at hand, where the source carries deletes out while it is
    /// read. What they delete is gone from older sources, too.
    fn delete_count(&self) -> usize {
        0
    }

    /// Those of these deletes with the numbers `range`.
    fn deletes(&self, range: Range<usize>) -> Vec<Tombstone> {
        let _ = range;
        Vec::new()
    }

    /// Appends the values of a page, as many as times, to a column of the series' type.
    fn read_values(&mut self, locator: u32, out: &mut Column) -> Result<()>;
}

/// A page of one series in one source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageInfo {
    /// Time of the first sample.
    pub min_time: i64,
    /// Time of the last sample.
    pub max_time: i64,
    /// How many samples.
    pub count: u32,
    /// How many bytes decoding it reads; for reports.
    pub size: u32,
    /// How the cursor finds it again.
    pub locator: u32,
}

/// A stretch of time of which something could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damaged {
    /// The times that the unreadable part may have held.
    pub range: TimeRange,
    /// What is damaged, for people.
    pub what: String,
}

/// Everything that one query sees; does not change while it is held.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    /// Oldest first: where two sources hold one series at one time, the later source wins.
    pub sources: Vec<Arc<dyn Source>>,
    /// All deletes that may apply to a source.
    pub tombstones: Vec<Tombstone>,
    /// Nothing before it is in any answer.
    pub floor: Timestamp,
    /// Stretches that are not in `sources` because they are damaged.
    pub damaged: Vec<Damaged>,
    /// Clock for deadlines, threads for big queries.
    pub env: Env,
    /// Where memory is reserved.
    pub ledger: Arc<Ledger>,
}

/// Who can pin a snapshot: the database, a reader of another process, tests.
pub(crate) trait Pin: Send + Sync + fmt::Debug {
    /// The present state.
    ///
    /// # Errors
    /// `Closed`, or what keeps the state from being read.
    fn pin(&self) -> Result<Snapshot>;

    /// The present state between two commits, as far as it concerns the series that `selector` names: no commit
    /// made while it is held shows in it.
    ///
    /// # Errors
    /// As [`Pin::pin`].
    fn pin_whole(&self, selector: &Selector) -> Result<Snapshot>;
}

impl Pin for Snapshot {
    fn pin(&self) -> Result<Snapshot> {
        Ok(self.clone())
    }

    fn pin_whole(&self, _: &Selector) -> Result<Snapshot> {
        Ok(self.clone())
    }
}
