//! Samples that writers hold back, so that a sample costs no lock that others want.
//!
//! A session collects the values of its metrics in a [`Buffer`] of its own and writes them together with its next
//! event. Whoever must see everything (a query, a sync, a flush, a delete) first has what is held back entered into
//! the head and the open frame. `docs/decisions/0054-sessions-hold-values-back.md` has the reasons.
//! Lock order: draining, a buffer, commit; the list of buffers is a leaf.

use std::fmt;
use std::iter;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{MappedMutexGuard, Mutex};

use crate::db::batch::{BatchData, HashedKey, check_time};
use crate::db::commit::{CommitQueue, Entry, other_type};
use crate::db::{Db, Durability, Inner, Receipt};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Timestamp, ValueRef, ValueType};

/// A buffer is entered at this many samples: 6 KiB.
const BUFFER_COUNT_MAX: usize = 256;
/// All buffers are entered when this many hold samples, which bounds their memory to some MiB.
const LISTED_COUNT_MAX: usize = 1024;

/// The samples that one writer holds back.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    keys: Vec<HashedKey>,
    samples: Vec<Held>,
    /// Whether it is in the list of those that may hold samples.
    listed: bool,
    /// Why samples were refused when somebody else entered them; for the next call of the owner.
    refused: Option<Error>,
}

#[derive(Clone, Copy, Debug)]
struct Held {
    /// The number of its series in `keys`.
    series: u32,
    time: Timestamp,
    value: f64,
}

/// A writer that holds samples back.
pub(crate) trait Holder: Send + Sync {
    /// Its buffer, locked.
    fn buffer(&self) -> MappedMutexGuard<'_, Buffer>;
}

/// All buffers that may hold samples.
#[derive(Default)]
pub(super) struct Buffers {
    list: Mutex<List>,
    /// As long as the list; falls when what was held is in the head.
    count: AtomicUsize,
    draining: Mutex<()>,
}

#[derive(Default)]
struct List {
    holders: Vec<Arc<dyn Holder>>,
    closed: bool,
}

impl fmt::Debug for Buffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffers").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Buffer {
    /// Makes a place for the samples of one more series; its number.
    pub(crate) fn add_series(&mut self, key: HashedKey) -> u32 {
        self.keys.push(key);
        self.keys.len() as u32 - 1
    }

    /// The key of a series.
    pub(crate) fn key(&self, series: u32) -> Option<&HashedKey> {
        self.keys.get(series as usize)
    }

    /// Adds what is held to `data`, series by series.
    fn put(&self, data: &mut BatchData) {
        let mut ends = vec![0u32; self.keys.len() + 1];
        for held in &self.samples {
            ends[held.series as usize + 1] += 1;
        }
        for index in 1..ends.len() {
            ends[index] += ends[index - 1];
        }
        let mut order = vec![0u32; self.samples.len()];
        let mut next = ends.clone();
        for (index, held) in (0..).zip(&self.samples) {
            let place = &mut next[held.series as usize];
            order[*place as usize] = index;
            *place += 1;
        }
        for (key, range) in self.keys.iter().zip(ends.windows(2)) {
            let part = order.get(range[0] as usize..range[1] as usize).unwrap_or_default();
            if !part.is_empty() {
                let held = part.iter().filter_map(|index| self.samples.get(*index as usize));
                data.push_hashed(
                    key,
                    ValueType::F64,
                    held.map(|held| (held.time, ValueRef::F64(held.value))),
                );
            }
        }
    }

    /// Enters what is held, and forgets it.
    fn enter(&mut self, commits: &CommitQueue) {
        let mut data = BatchData::default();
        self.put(&mut data);
        match commits.absorb(&mut data) {
            Ok(()) => self.samples.clear(),
            Err(error) if is_of_samples(&error) => self.enter_apart(commits),
            // The log refuses: it may take them later.
            Err(_) => {}
        }
    }

    /// Enters the series one by one, since one of them is refused: that one is dropped, and the owner told.
    fn enter_apart(&mut self, commits: &CommitQueue) {
        let samples = mem::take(&mut self.samples);
        for (series, key) in (0..).zip(&self.keys) {
            let held = samples.iter().filter(|held| held.series == series);
            let mut data = BatchData::default();
            data.push_hashed(key, ValueType::F64, held.map(|held| (held.time, ValueRef::F64(held.value))));
            if data.columns.is_empty() {
                continue;
            }
            if let Err(error) = commits.absorb(&mut data) {
                self.refused.get_or_insert(error);
            }
        }
    }
}

/// Whether trying again cannot help.
fn is_of_samples(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::LimitExceeded | ErrorKind::Closed)
}

impl Buffers {
    /// Enters everything that was held back before this was called.
    pub(super) fn drain(&self, commits: &CommitQueue) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let _draining = self.draining.lock();
        let holders = mem::take(&mut self.list.lock().holders);
        let count = holders.len();
        for holder in holders {
            let mut buffer = holder.buffer();
            buffer.listed = false;
            if !buffer.samples.is_empty() {
                buffer.enter(commits);
            }
            if !buffer.samples.is_empty() {
                // The log refused; they stay where the next one finds them.
                buffer.listed = true;
                self.list.lock().holders.push(Arc::clone(&holder));
                self.count.fetch_add(1, Ordering::Release);
            }
        }
        self.count.fetch_sub(count, Ordering::Release);
    }

    /// Holds nothing back from now on, and enters what is held.
    pub(super) fn close(&self, commits: &CommitQueue) {
        self.list.lock().closed = true;
        self.drain(commits);
    }

    fn add(&self, holder: Arc<dyn Holder>) -> Result<usize> {
        let mut list = self.list.lock();
        if list.closed {
            return Err(Error::closed("the database is closed"));
        }
        list.holders.push(holder);
        self.count.fetch_add(1, Ordering::Release);
        Ok(list.holders.len())
    }
}

impl Inner {
    /// Enters everything that was held back before this was called.
    pub(super) fn drain_buffers(&self) {
        self.buffers.drain(&self.commits);
    }
}

impl Db {
    /// Holds one sample of a series of `holder` back, whose buffer is locked. Returns whether the caller must call
    /// [`Db::drain_buffers`] when he has unlocked it.
    ///
    /// # Errors
    /// `InvalidInput` when the time is one of the two extremes, `Closed`, and what was said of samples held back before.
    #[inline]
    pub(crate) fn hold_back<H: Holder + 'static>(
        &self,
        holder: &Arc<H>,
        buffer: &mut Buffer,
        series: u32,
        time: Timestamp,
        value: f64,
    ) -> Result<bool> {
        check_time(time)?;
        if let Some(error) = buffer.refused.take() {
            return Err(error);
        }
        let mut listed_count = 0;
        if !buffer.listed {
            listed_count = self.inner.buffers.add(Arc::clone(holder) as Arc<dyn Holder>)?;
            buffer.listed = true;
        }
        buffer.samples.push(Held { series, time, value });
        if buffer.samples.len() >= BUFFER_COUNT_MAX {
            buffer.enter(&self.inner.commits);
        }
        Ok(listed_count >= LISTED_COUNT_MAX)
    }

    /// Enters everything that is held back, by whomever.
    #[cold]
    pub(crate) fn drain_buffers(&self) {
        self.inner.drain_buffers();
    }

    /// Waits, or fails, while memory or disk is short. Call it before a buffer is locked: it may wait for a flush,
    /// and a flush waits for buffers.
    pub(crate) fn make_room(&self, size: usize) -> Result<()> {
        self.inner.make_room(size as u64)
    }

    /// Commits what `buffer` holds and `entries`, as one.
    ///
    /// # Errors
    /// As [`Db::write`]. Samples held back are refused alone where they are the reason: then the entries are written, and
    /// the error is that of the samples.
    pub(crate) fn commit_after(
        &self,
        buffer: &mut Buffer,
        entries: &[(&HashedKey, Timestamp, ValueRef<'_>)],
    ) -> Result<Receipt> {
        if let Some(error) = buffer.refused.take() {
            return Err(error);
        }
        let commit = |mut data: BatchData| {
            for (key, time, value) in entries {
                data.push_hashed(key, value.value_type(), iter::once((*time, *value)));
            }
            self.inner.commits.commit(Entry::Batch(data)).0.map(Receipt)
        };
        let mut data = BatchData::default();
        buffer.put(&mut data);
        match commit(data) {
            Ok(receipt) => {
                buffer.samples.clear();
                Ok(receipt)
            }
            Err(error) if is_of_samples(&error) && !buffer.samples.is_empty() => {
                buffer.enter_apart(&self.inner.commits);
                let receipt = commit(BatchData::default())?;
                buffer.refused.take().map_or(Ok(receipt), Err)
            }
            Err(error) => Err(error),
        }
    }

    /// Returns when the commit of `receipt` is as safe as the database's durability says.
    pub(crate) fn settle(&self, receipt: Receipt) -> Result<()> {
        match self.inner.options.durability {
            Durability::Sync => self.wait_durable(receipt),
            Durability::Os | Durability::Buffered => Ok(()),
        }
    }

    /// Fails when series of this key hold other values than doubles.
    pub(crate) fn check_doubles(&self, key: &HashedKey) -> Result<()> {
        let version = self.inner.version();
        let registry = version.active.registry().read();
        match registry.other_type(key.key.as_bytes(), ValueType::F64, key.hash) {
            Some(other) => Err(other_type(&key.key, other, ValueType::F64)),
            None => Ok(()),
        }
    }
}
