//! The engine: composes the layers below, decides nothing twice.
//!
//! [`Db`] is the writer's handle on a directory. What runs when: writers meet in `commit`, queries pin a
//! `version`, and everything that nobody waits for is a step of `maintenance`. Lock order: `maintenance`
//! (one step at a time), `manifest`, commit, registry, shard; `version` is a leaf that is held for the
//! length of a copy.

mod batch;
mod buffer;
mod commit;
pub mod inspect;
#[cfg(all(test, icecore_shuttle))]
mod interleavings;
mod maintenance;
mod options;
mod reader;
mod recover;
mod series;
mod snapshot;
mod stats;
mod version;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::db::commit::{CommitQueue, Entry};
use crate::db::maintenance::{Maintenance, Threads};
use crate::db::version::{Version, Versions};
use crate::env::Env;
use crate::error::{Error, Result};
use crate::fs::Lock;
use crate::ledger::Ledger;
use crate::manifest::Manifest;
use crate::model::{Metadata, SampleValue, Selector, SeriesKey, TimeRange, Timestamp, ValueRef};
use crate::query::Query;
use crate::query::source::{Pin, Snapshot};
use crate::sync::Mutex;
use crate::sync::atomic::AtomicU64;
use crate::wal::{DeleteRecord, MetadataRecord};

pub use batch::Batch;
pub(crate) use batch::HashedKey;
pub(crate) use buffer::{Buffer, Holder};
pub use options::{AtDiskCap, Background, Durability, Options};
pub use reader::Reader;
pub use recover::Recovery;
pub use series::Series;
pub use stats::{BlockStats, Stats};

/// Proof that a write was taken: its place in the order of all commits (its LSN).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receipt(u64);

impl Receipt {
    /// The log sequence number: later commits have greater ones; none is ever given twice.
    pub fn lsn(self) -> u64 {
        self.0
    }
}

/// An open database: one writer, any number of threads.
///
/// Cheap to clone; the database closes with its last clone, or by [`Db::close`], which reports errors.
#[derive(Clone)]
pub struct Db {
    inner: Arc<Inner>,
    /// Stops the threads when the last clone goes; the threads themselves hold only `inner`.
    closer: Arc<Closer>,
}

struct Closer {
    inner: Arc<Inner>,
    threads: Mutex<Option<Threads>>,
}

/// Everything that handles, queries and threads share.
pub(crate) struct Inner {
    root: PathBuf,
    options: Options,
    database_id: [u8; 16],
    commits: CommitQueue,
    buffers: buffer::Buffers,
    versions: Arc<Versions>,
    manifest: Mutex<Manifest>,
    maintenance: Maintenance,
    cache: Arc<crate::block::Cache>,
    /// What queries and merges take of `memory_size_max`.
    ledger: Arc<Ledger>,
    recovery: Recovery,
    /// Number of the next block file.
    next_block: Arc<AtomicU64>,
    lock: Mutex<Option<Box<dyn Lock>>>,
}

impl Db {
    /// Opens the database in the directory `path`, making it if it is absent, with default [`Options`].
    ///
    /// # Errors
    /// As [`Db::open_with`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, Options::default())
    }

    /// Opens the database in the directory `path`.
    ///
    /// Whatever a crash left is recovered: see [`Db::recovery`] for what was found. After a clean close
    /// nothing has to be read but the manifest and the footers of blocks.
    ///
    /// # Errors
    /// `Busy` with the holder's name when another process has it open; `InvalidInput` when the directory holds something
    /// else; `NotFound` when there is none and [`Options::create`] is off; `UnsupportedVersion`, and nothing is
    /// touched, when it was written by a newer release; `Corruption` when something that was on the device cannot be
    /// read; `Io`.
    pub fn open_with(path: impl AsRef<Path>, options: Options) -> Result<Self> {
        let inner = Arc::new(recover::open(path.as_ref(), options)?);
        let threads = Threads::start(&inner)?;
        let closer = Arc::new(Closer { inner: inner.clone(), threads: Mutex::new(Some(threads)) });
        Ok(Db { inner, closer })
    }

    /// Opens the database in the directory `path` for reading only, beside its writer or without one: takes no lock and
    /// writes not a byte, so a read-only directory will do.
    ///
    /// # Errors
    /// As [`Db::open_reader_with`].
    pub fn open_reader(path: impl AsRef<Path>) -> Result<Reader> {
        Self::open_reader_with(path, Options::default())
    }

    /// As [`Db::open_reader`], with options; those that concern writing have no effect.
    ///
    /// # Errors
    /// `NotFound` when there is no database, `InvalidInput` when the directory holds something else, `Busy` when the
    /// writer changes files faster than they can be read, `UnsupportedVersion`, `Corruption`, `Io`.
    pub fn open_reader_with(path: impl AsRef<Path>, options: Options) -> Result<Reader> {
        Reader::open(path.as_ref(), options)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.inner.root
    }

    /// Files, clock and randomness that the database lives on.
    pub fn env(&self) -> &Env {
        self.inner.env()
    }

    /// What tells this database, and its snapshots, from all others.
    pub fn database_id(&self) -> [u8; 16] {
        self.inner.database_id
    }

    /// The settings that it was opened with.
    #[cfg_attr(not(feature = "server"), allow(dead_code))]
    pub(crate) fn options(&self) -> &Options {
        &self.inner.options
    }

    /// What opening found.
    pub fn recovery(&self) -> &Recovery {
        &self.inner.recovery
    }

    /// A handle on the series with this name, these tags (in any order) and the type `T`, which is made when it
    /// is new. It is on disk only with its first sample.
    ///
    /// # Errors
    /// `InvalidInput` for what [`SeriesKey::new`] refuses, and when the series is alive with another type;
    /// `LimitExceeded` at [`Options::series_count_max`]; `Closed`.
    pub fn series<T: SampleValue>(&self, name: &str, tags: &[(&str, &str)]) -> Result<Series<T>> {
        self.series_of_key(&SeriesKey::new(name, tags.iter().copied())?)
    }

    /// As [`Db::series`], by key.
    ///
    /// # Errors
    /// As [`Db::series`].
    pub fn series_of_key<T: SampleValue>(&self, key: &SeriesKey) -> Result<Series<T>> {
        let id = self.inner.commits.paused(|committer| committer.register(key, T::TYPE))?;
        Ok(Series::new(self.inner.clone(), id, key.clone()))
    }

    /// Writes a batch with the default durability, and empties it. All of it is kept, or none.
    ///
    /// # Errors
    /// As [`Db::write_with`].
    pub fn write(&self, batch: &mut Batch<'_>) -> Result<Receipt> {
        self.write_with(batch, self.inner.options.durability)
    }

    /// Writes a batch, and empties it. All of it is kept, or none; queries see it when this returns.
    ///
    /// # Errors
    /// `InvalidInput` when handles belong to another database, a series is alive with another type, or the batch is larger than
    /// [`WAL_RECORD_SIZE_MAX`](crate::WAL_RECORD_SIZE_MAX); `LimitExceeded` at a cap; `Closed`; `Io` when the log cannot be
    /// written. The batch is then as it was, and nothing of it is stored. With `Sync` alone an error can also say that the batch is
    /// in the operating system but not on the device (`Closed`: the log is poisoned).
    pub fn write_with(&self, batch: &mut Batch<'_>, durability: Durability) -> Result<Receipt> {
        if batch.database != 0 && batch.database != Arc::as_ptr(&self.inner) as usize {
            return Err(Error::invalid_input("the batch holds handles of another database"));
        }
        self.inner.make_room(batch.size_estimate())?;
        let (result, entry) = self.inner.commits.commit(Entry::Batch(std::mem::take(&mut batch.data)));
        if let Entry::Batch(data) = entry {
            batch.data = data;
        }
        let lsn = result?;
        batch.clear();
        if durability == Durability::Sync {
            self.inner.commits.wait_durable(lsn)?;
        }
        Ok(Receipt(lsn))
    }

    /// Returns when the write of `receipt`, and all before it, is on the device.
    ///
    /// # Errors
    /// `Closed` when a sync has failed.
    pub fn wait_durable(&self, receipt: Receipt) -> Result<()> {
        self.inner.commits.wait_durable(receipt.0)
    }

    /// Brings everything written so far, buffered samples included, to the device.
    ///
    /// # Errors
    /// `Io` when the log cannot be written, `Closed` when a sync has failed.
    pub fn sync(&self) -> Result<Receipt> {
        self.inner.drain_buffers();
        let lsn = self.inner.commits.push_to_os()?;
        self.inner.commits.wait_durable(lsn)?;
        Ok(Receipt(lsn))
    }

    /// Says what the values of the metric `name` mean. Kept until it is said anew.
    ///
    /// # Errors
    /// `InvalidInput` for an empty name or text over its limit; `Closed`, `Io`.
    pub fn set_metadata(&self, name: &str, metadata: Metadata) -> Result<Receipt> {
        if name.is_empty() || name.len() > crate::NAME_SIZE_MAX {
            return Err(Error::invalid_input(format!(
                "a metric name has 1 to {} bytes, this one {}",
                crate::NAME_SIZE_MAX,
                name.len()
            )));
        }
        let size = metadata.unit.len() + metadata.help.len();
        if size > crate::TAG_VALUE_SIZE_MAX {
            return Err(Error::invalid_input(format!(
                "unit and help of metric {name:?} take {size} bytes, more than {}",
                crate::TAG_VALUE_SIZE_MAX
            )));
        }
        if self.inner.metadata(name).as_ref() == Some(&metadata) {
            return Ok(Receipt(self.inner.commits.visible_lsn()));
        }
        let record = MetadataRecord { name: name.to_owned(), metadata };
        let (result, _) = self.inner.commits.commit(Entry::Metadata(record));
        result.map(Receipt)
    }

    /// What was said of the metric `name`.
    pub fn metadata(&self, name: &str) -> Option<Metadata> {
        self.inner.metadata(name)
    }

    /// What was said of every metric, by name.
    pub fn all_metadata(&self) -> Vec<(String, Metadata)> {
        self.inner.all_metadata()
    }

    /// Removes the samples in `range` of all series that `selector` matches and that were committed before.
    /// Samples written later live, at whatever time.
    ///
    /// # Errors
    /// `Closed`; `Io` when the log cannot be written, and then nothing is removed.
    pub fn delete(&self, selector: &Selector, range: impl Into<TimeRange>) -> Result<Receipt> {
        let record = DeleteRecord { selector: selector.clone(), range: range.into() };
        let lsn = self.inner.delete(record)?;
        Ok(Receipt(lsn))
    }

    /// Begins a query of the series that `selector` names: a metric name, or any [`Selector`].
    pub fn query(&self, selector: impl Into<Selector>) -> Query {
        Query::new(self.inner.clone(), selector.into())
    }

    /// What the engine counts about itself.
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// The live blocks, in order of what was committed.
    pub fn block_stats(&self) -> Vec<BlockStats> {
        self.inner.block_stats()
    }

    /// Runs of samples in memory.
    #[cfg_attr(not(feature = "server"), allow(dead_code))]
    pub(crate) fn head_run_count(&self) -> u64 {
        self.inner.head_run_count()
    }

    /// Writes the samples in memory as blocks, now, and waits for it.
    ///
    /// # Errors
    /// `Io`, `LimitExceeded`, `Closed`; everything stays readable, and stays in the log.
    pub fn flush(&self) -> Result<()> {
        self.inner.flush()
    }

    /// Merges blocks until nothing is left to merge, and waits for it.
    ///
    /// # Errors
    /// `Io`, `LimitExceeded`, `Corruption`, `Closed`; everything stays readable.
    pub fn compact(&self) -> Result<()> {
        self.inner.compact()
    }

    /// Does one step of the work that is due: sync, flush, merge or drop. For hosts with
    /// [`Background::Host`]. Returns whether more is due.
    ///
    /// # Errors
    /// What the step said; the next call tries again.
    pub fn maintain(&self) -> Result<bool> {
        self.inner.maintain()
    }

    /// Makes an own, consistent database in the directory `target`, which must be absent or empty, while writes go on.
    /// Immutable files are shared by hard links where the file system allows it.
    ///
    /// # Errors
    /// `InvalidInput` when the target is not empty; `Io`, `Closed`.
    pub fn snapshot(&self, target: impl AsRef<Path>) -> Result<()> {
        self.inner.snapshot_to(target.as_ref())
    }

    /// Closes the database: everything written is on the device, and the next open has nothing to recover.
    ///
    /// # Errors
    /// What the last flush or sync said; the data is then as after a crash of the process. Calls on other clones fail
    /// with `Closed`.
    pub fn close(self) -> Result<()> {
        self.closer.close()
    }
}

impl Closer {
    fn close(&self) -> Result<()> {
        match self.threads.lock().take() {
            Some(threads) => {
                threads.stop();
                self.inner.close()
            }
            None => Ok(()),
        }
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        // Nobody is left to hear of an error; the next open recovers what this could not finish.
        let _ = self.close();
    }
}

impl fmt::Debug for Db {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Db").field("path", &self.inner.root).finish_non_exhaustive()
    }
}

impl Pin for Inner {
    fn pin(&self) -> Result<Snapshot> {
        self.drain_buffers();
        let version = self.version();
        self.ledger.stands(version.memory_size() + self.cache_size());
        Ok(version.pin(self.env(), &self.ledger))
    }

    fn pin_whole(&self, selector: &Selector) -> Result<Snapshot> {
        self.drain_buffers();
        // Versions and heads change together only under the commit lock.
        self.commits.paused(|_| Ok(self.version().pin_whole(self.env(), &self.ledger, selector)))
    }
}

impl Inner {
    fn env(&self) -> &Env {
        &self.options.env
    }

    #[inline]
    fn append(&self, id: u32, time: Timestamp, value: ValueRef<'_>) -> Result<()> {
        self.commits.append(id, time, value)
    }

    fn hold(&self, id: u32) {
        self.version().active.registry().write().hold(id);
    }

    fn release(&self, id: u32) {
        self.version().active.registry().write().release(id);
    }

    fn version(&self) -> Arc<Version> {
        self.versions.current()
    }

    /// Replaces the version by what `change` makes of it.
    fn edit_version(&self, change: impl FnOnce(&mut Version)) {
        self.versions.edit(change);
    }

    fn delete(&self, record: DeleteRecord) -> Result<u64> {
        self.drain_buffers();
        self.commits.commit(Entry::Delete(record)).0
    }

    fn metadata(&self, name: &str) -> Option<Metadata> {
        let logged = self.commits.paused(|committer| {
            let found = committer.metadata.iter().rev().find(|(_, record)| record.name == name);
            found.map(|(_, record)| record.metadata.clone())
        });
        logged.or_else(|| self.manifest.lock().state().metadata.get(name).cloned())
    }

    fn all_metadata(&self) -> Vec<(String, Metadata)> {
        let mut all = self.manifest.lock().state().metadata.clone();
        self.commits.paused(|committer| {
            for (_, record) in &committer.metadata {
                all.insert(record.name.clone(), record.metadata.clone());
            }
        });
        all.into_iter().collect()
    }
}
