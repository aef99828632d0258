//! The commit queue: from batches to frames in the log and samples in the head, in one order.
//!
//! Writers put what they have into `pending` and take the commit lock; whoever gets it writes for all:
//! gives LSNs, writes the frames with one write, and only then applies them to the head in order of
//! LSN. So the head is always the result of a prefix of the log. One waiter syncs for all, outside the
//! commit lock. Lock order: commit, registry, shard; `pending` and the state of syncing are leaves.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::db::batch::BatchData;
use crate::db::version::Versions;
use crate::error::{Error, Result};
use crate::head::{Head, Scratch, key_hash};
use crate::model::{Timestamp, ValueType};
use crate::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use crate::sync::{Condvar, Mistake, Mutex, makes};
use crate::wal::{
    BatchColumns, Definition, DeleteRecord, FRAME_SIZE_MAX, FrameHeader, FrameKind, LSN_COUNTER_BITS, Log,
    MetadataRecord, SegmentInfo, WAL_RECORD_SIZE_MAX, encode_batch, encode_delete, encode_metadata,
};

/// The open frame of buffered samples is closed at this many.
const OPEN_FRAME_COUNT_MAX: usize = 16 * 1024;
/// The open frame may grow to this many samples while the log refuses it.
const OPEN_FRAME_COUNT_REFUSED: usize = 256 * 1024;
/// How often a full or failing disk is tried again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// What a frame holds before it has an LSN.
#[derive(Debug)]
pub(super) enum Entry {
    Batch(BatchData),
    Delete(DeleteRecord),
    Metadata(MetadataRecord),
}

/// One writer's place in the queue; the open frame, which is applied already, has no slot.
#[derive(Debug)]
pub(super) struct Pending {
    entry: Entry,
    slot: Option<Arc<Slot>>,
}

/// Where a writer finds its result and gets its memory back.
#[derive(Debug, Default)]
struct Slot(Mutex<Option<(Result<u64>, Entry)>>);

/// The queue and what only its leader touches.
#[derive(Debug)]
pub(super) struct CommitQueue {
    pending: Mutex<Vec<Pending>>,
    committer: Mutex<Committer>,
    syncing: Mutex<Syncing>,
    synced: Condvar,
    visible_lsn: AtomicU64,
    durable_lsn: AtomicU64,
    dropped_below_floor: AtomicU64,
    log_size: AtomicU64,
    floor: AtomicI64,
    env: crate::env::Env,
}

#[derive(Debug, Default)]
struct Syncing {
    running: bool,
    poisoned: Option<Error>,
}

/// Everything behind the commit lock.
#[derive(Debug)]
pub(super) struct Committer {
    pub(super) log: Log,
    pub(super) head: Arc<Head>,
    pub(super) closed: bool,
    /// Learns of deletes as they are applied.
    versions: Arc<Versions>,
    /// Metadata that is in the log since the cut, for the manifest.
    pub(super) metadata: Vec<(u64, MetadataRecord)>,
    /// When the oldest frame of the active head was written.
    pub(super) head_since: Option<Duration>,
    series_count_max: u64,
    next_lsn: u64,
    /// Whether a series, by number, is defined in the log's epoch.
    defined: Vec<u64>,
    open_frame: BatchColumns,
    buffer: Vec<u8>,
    definitions: Vec<Definition>,
    scratch: Scratch,
    /// Set by a failed write: when, and what to answer until the next try.
    refused: Option<(Duration, Error)>,
}

/// What recovery hands to the queue.
pub(super) struct CommitStart {
    pub(super) log: Log,
    pub(super) head: Arc<Head>,
    pub(super) versions: Arc<Versions>,
    pub(super) incarnation: u64,
    pub(super) metadata: Vec<(u64, MetadataRecord)>,
    pub(super) series_count_max: u64,
    pub(super) floor: Timestamp,
    pub(super) env: crate::env::Env,
}

impl CommitQueue {
    /// A queue that goes on after `start.log.last_lsn()`, all of which is durable.
    pub(super) fn new(start: CommitStart) -> Self {
        let last_lsn = start.log.last_lsn();
        let log_size = start.log.size();
        let head_since = (!start.head.is_empty()).then(|| start.env.clock.monotonic());
        CommitQueue {
            pending: Mutex::new(Vec::new()),
            committer: Mutex::new(Committer {
                log: start.log,
                head: start.head,
                closed: false,
                versions: start.versions,
                metadata: start.metadata,
                head_since,
                series_count_max: start.series_count_max,
                next_lsn: start.incarnation << LSN_COUNTER_BITS | 1,
                defined: Vec::new(),
                open_frame: BatchColumns::default(),
                buffer: Vec::new(),
                definitions: Vec::new(),
                scratch: Scratch::default(),
                refused: None,
            }),
            syncing: Mutex::new(Syncing::default()),
            synced: Condvar::new(),
            visible_lsn: AtomicU64::new(last_lsn),
            durable_lsn: AtomicU64::new(last_lsn),
            dropped_below_floor: AtomicU64::new(0),
            log_size: AtomicU64::new(log_size),
            floor: AtomicI64::new(start.floor.nanos()),
            env: start.env,
        }
    }

    /// The last LSN that queries see.
    pub(super) fn visible_lsn(&self) -> u64 {
        self.visible_lsn.load(Ordering::Acquire)
    }

    /// The last LSN that is on the device.
    pub(super) fn durable_lsn(&self) -> u64 {
        self.durable_lsn.load(Ordering::Acquire)
    }

    /// Bytes that the log took on disk after the last write.
    pub(super) fn log_size(&self) -> u64 {
        self.log_size.load(Ordering::Relaxed)
    }

    /// Takes out of the log what lies up to `cut`; the caller removes the files.
    pub(super) fn release(&self, cut: u64) -> Vec<SegmentInfo> {
        self.paused(|committer| {
            committer.metadata.retain(|(lsn, _)| *lsn > cut);
            let released = committer.log.release(cut);
            self.log_size.store(committer.log.size(), Ordering::Relaxed);
            released
        })
    }

    /// Samples that were older than the retention floor when they were written.
    pub(super) fn dropped_below_floor(&self) -> u64 {
        self.dropped_below_floor.load(Ordering::Relaxed)
    }

    /// Samples older than `floor` are dropped from now on. It only rises.
    pub(super) fn raise_floor(&self, floor: Timestamp) {
        self.floor.fetch_max(floor.nanos(), Ordering::AcqRel);
    }

    /// Runs `work` between two groups.
    pub(super) fn paused<T>(&self, work: impl FnOnce(&mut Committer) -> T) -> T {
        work(&mut self.committer.lock())
    }

    /// Writes one entry: in the log of the operating system and in the head when it returns. Gives the
    /// entry back for its memory.
    pub(super) fn commit(&self, entry: Entry) -> (Result<u64>, Entry) {
        let slot = Arc::new(Slot::default());
        self.pending.lock().push(Pending { entry, slot: Some(slot.clone()) });
        let mut committer = self.committer.lock();
        let done = slot.0.lock().take();
        if let Some(done) = done {
            return done;
        }
        let group = std::mem::take(&mut *self.pending.lock());
        self.process(&mut committer, group);
        drop(committer);
        let done = slot.0.lock().take();
        // The group held every pending entry, this one among them.
        done.expect("a leader answers its own entry")
    }

    /// Adds one sample to the open frame and to the head at once.
    #[inline]
    pub(super) fn append(&self, id: u32, time: Timestamp, value: crate::model::ValueRef<'_>) -> Result<()> {
        if time.nanos() < self.floor.load(Ordering::Relaxed) {
            self.dropped_below_floor.fetch_add(1, Ordering::Relaxed);
            return Ok(());
        }
        if let crate::model::ValueRef::Bytes(bytes) = value
            && bytes.len() > WAL_RECORD_SIZE_MAX
        {
            return Err(Error::invalid_input(format!(
                "a value of {} bytes is longer than a record of the log ({WAL_RECORD_SIZE_MAX})",
                bytes.len()
            )));
        }
        let mut committer = self.committer.lock();
        let committer = &mut *committer;
        committer.check_open()?;
        self.bound_open_frame(committer)?;
        committer.head_since.get_or_insert_with(|| self.env.clock.monotonic());
        committer.append(id, time, value);
        Ok(())
    }

    /// Adds samples to the open frame and to the head at once; they stay in `data`, for the caller to clear.
    ///
    /// # Errors
    /// As a commit of the batch, but for the log: a log that refuses is an error only when very much waits for it.
    pub(super) fn absorb(&self, data: &mut BatchData) -> Result<()> {
        let mut committer = self.committer.lock();
        let committer = &mut *committer;
        committer.check_open()?;
        self.resolve(committer, data)?;
        self.bound_open_frame(committer)?;
        committer.head_since.get_or_insert_with(|| self.env.clock.monotonic());
        committer.open_frame.extend(&data.columns);
        committer.head.append(&data.columns, &mut committer.scratch);
        Ok(())
    }

    /// Closes the open frame when it is large.
    ///
    /// # Errors
    /// What the log said, when it has refused very much.
    #[inline]
    fn bound_open_frame(&self, committer: &mut Committer) -> Result<()> {
        if committer.open_frame.len() < OPEN_FRAME_COUNT_MAX
            && committer.open_frame.bytes.size() < WAL_RECORD_SIZE_MAX / 4
        {
            return Ok(());
        }
        let closed = self.close_open_frame(committer);
        // Few samples can be many bytes, and a frame of too many could not be written at all.
        let much = committer.open_frame.len() >= OPEN_FRAME_COUNT_REFUSED
            || committer.open_frame.bytes.size() >= WAL_RECORD_SIZE_MAX / 4;
        if much { closed } else { Ok(()) }
    }

    fn process(&self, committer: &mut Committer, group: Vec<Pending>) {
        let ready = committer.check_open().and_then(|()| self.check_poisoned());
        if let Err(error) = ready.and_then(|()| self.check_refused(committer)) {
            for pending in group {
                pending.answer(Err(error.repeat()));
            }
            return;
        }
        let mut accepted = Vec::with_capacity(group.len() + 1);
        // Buffered samples were applied before these, so their frame comes first.
        accepted.extend(committer.take_open_frame());
        for mut pending in group {
            match self.resolve_entry(committer, &mut pending.entry) {
                Ok(()) => accepted.push(pending),
                Err(error) => pending.answer(Err(error)),
            }
        }
        self.write_and_apply(committer, accepted).unwrap_or_default();
    }

    /// Writes the frames of entries whose series are known, applies them and answers.
    fn write_and_apply(&self, committer: &mut Committer, group: Vec<Pending>) -> Result<()> {
        let first_lsn = committer.next_lsn;
        let written = self.write_group(committer, &group);
        for (pending, lsn) in group.into_iter().zip(first_lsn..) {
            match (&written, pending) {
                (written, Pending { entry: Entry::Batch(mut data), slot: None }) => {
                    if written.is_ok() {
                        data.columns.clear();
                        committer.head.advance(lsn);
                        self.visible_lsn.store(lsn, Ordering::Release);
                    }
                    committer.open_frame = data.columns;
                }
                (Ok(()), pending) => {
                    if makes(Mistake::PublishEarly) {
                        self.visible_lsn.store(lsn, Ordering::Release);
                    }
                    committer.apply(&pending.entry, lsn);
                    self.visible_lsn.store(lsn, Ordering::Release);
                    pending.answer(Ok(lsn));
                }
                (Err(error), pending) => pending.answer(Err(error.repeat())),
            }
        }
        written
    }

    /// Fails while the last write failed less than [`PROBE_INTERVAL`] ago.
    fn check_refused(&self, committer: &mut Committer) -> Result<()> {
        if let Some((since, error)) = &committer.refused {
            if self.env.clock.monotonic().saturating_sub(*since) < PROBE_INTERVAL {
                return Err(error.repeat());
            }
            committer.refused = None;
        }
        Ok(())
    }

    fn resolve_entry(&self, committer: &mut Committer, entry: &mut Entry) -> Result<()> {
        let Entry::Batch(data) = entry else { return Ok(()) };
        self.resolve(committer, data)
    }

    /// Looks up the series of named samples and drops samples below the floor.
    fn resolve(&self, committer: &mut Committer, data: &mut BatchData) -> Result<()> {
        if !data.named.is_empty() {
            committer.resolve_names(data)?;
        }
        let floor = self.floor.load(Ordering::Acquire);
        let dropped = drop_below(data, floor);
        self.dropped_below_floor.fetch_add(dropped as u64, Ordering::Relaxed);
        let size = data.columns.encoded_size_max();
        if size > WAL_RECORD_SIZE_MAX {
            return Err(Error::invalid_input(format!(
                "a batch of {} samples may take {size} bytes in the log, more than {WAL_RECORD_SIZE_MAX}; split it",
                data.columns.len()
            )));
        }
        Ok(())
    }

    fn write_group(&self, committer: &mut Committer, group: &[Pending]) -> Result<()> {
        if group.is_empty() {
            return Ok(());
        }
        let sizes = group.iter().map(|pending| match &pending.entry {
            Entry::Batch(data) => data.columns.len() * 9 + data.columns.bytes.size() + data.keys.len(),
            _ => 0,
        });
        committer
            .log
            .prepare(sizes.sum(), self.durable_lsn())
            .map_err(|error| self.refuse(committer, error))?;
        let mut buffer = std::mem::take(&mut committer.buffer);
        buffer.clear();
        let mut previous_lsn = committer.log.last_lsn();
        let mut defined_now = Vec::new();
        for pending in group {
            let lsn = committer.next_lsn;
            committer.next_lsn += 1;
            assert!(lsn > previous_lsn, "LSNs rise: {lsn:#x} follows {previous_lsn:#x}");
            let kind = match &pending.entry {
                Entry::Batch(_) => FrameKind::Batch,
                Entry::Delete(_) => FrameKind::Delete,
                Entry::Metadata(_) => FrameKind::Metadata,
            };
            let header = FrameHeader { kind, lsn, previous_lsn, durable_lsn: self.durable_lsn() };
            if let Entry::Batch(data) = &pending.entry {
                committer.define(&data.columns, &mut defined_now);
            }
            let (definitions, start) = (&committer.definitions, buffer.len());
            committer.log.put_frame(&mut buffer, header, |out| match &pending.entry {
                Entry::Batch(data) => encode_batch(definitions, &data.columns, out),
                Entry::Delete(record) => encode_delete(record, out),
                Entry::Metadata(record) => encode_metadata(record, out),
            });
            previous_lsn = lsn;
            if buffer.len() - start > FRAME_SIZE_MAX {
                defined_now.iter().for_each(|id| committer.set_defined(*id, false));
                committer.buffer = buffer;
                return Err(Error::invalid_input(format!(
                    "a batch and the names of its new series take more than {FRAME_SIZE_MAX} bytes in the log; split it"
                )));
            }
        }
        let written = committer.log.write(&buffer, previous_lsn);
        self.log_size.store(committer.log.size(), Ordering::Relaxed);
        committer.buffer = buffer;
        written.map_err(|error| {
            // The frames do not count, nor do the definitions in them.
            defined_now.iter().for_each(|id| committer.set_defined(*id, false));
            self.refuse(committer, error)
        })
    }

    fn refuse(&self, committer: &mut Committer, error: Error) -> Error {
        // A new segment begins an own set of definitions only with a new epoch; the old ones still count.
        committer.refused = Some((self.env.clock.monotonic(), error.repeat()));
        error
    }

    /// Writes the buffered samples as a frame.
    ///
    /// # Errors
    /// What the log says; the samples stay and are tried again with the next commit.
    pub(super) fn close_open_frame(&self, committer: &mut Committer) -> Result<()> {
        if committer.open_frame.is_empty() {
            return Ok(());
        }
        self.check_refused(committer)?;
        let group = committer.take_open_frame().into_iter().collect();
        self.write_and_apply(committer, group)
    }

    /// Closes the open frame, so that everything written so far is in the operating system.
    pub(super) fn push_to_os(&self) -> Result<u64> {
        let mut committer = self.committer.lock();
        self.close_open_frame(&mut committer)?;
        Ok(committer.log.last_lsn())
    }

    /// Returns when everything up to `lsn` is on the device.
    ///
    /// One of all waiters syncs, for everything that is visible by then.
    ///
    /// # Errors
    /// `Closed` after a sync has failed, now or before: the log is poisoned.
    pub(super) fn wait_durable(&self, lsn: u64) -> Result<()> {
        let mut state = self.syncing.lock();
        loop {
            if self.durable_lsn() >= lsn {
                return Ok(());
            }
            if let Some(error) = &state.poisoned {
                return Err(error.repeat());
            }
            if state.running {
                self.synced.wait(&mut state);
                continue;
            }
            state.running = true;
            drop(state);
            let result = self.sync_now();
            state = self.syncing.lock();
            state.running = false;
            match result {
                Ok(durable) => {
                    self.durable_lsn.fetch_max(durable, Ordering::AcqRel);
                }
                Err(error) => {
                    let poisoned = poisoned(&error);
                    state.poisoned.get_or_insert(poisoned);
                }
            }
            self.synced.notify_all();
        }
    }

    fn sync_now(&self) -> Result<u64> {
        let (closed, open, target) = {
            let committer = self.committer.lock();
            let (closed, open) = committer.log.unsynced();
            (closed, open, committer.log.last_lsn())
        };
        if makes(Mistake::AnswerUnsynced) {
            return Ok(target);
        }
        for file in closed.iter().chain(&open) {
            file.sync()?;
        }
        if !closed.is_empty() {
            self.committer.lock().log.synced(&closed);
        }
        Ok(target)
    }

    /// Syncs with the commit lock held, so that nothing is between what is durable and what is written.
    pub(super) fn sync_paused(&self, committer: &mut Committer) -> Result<u64> {
        if let Some(error) = &self.syncing.lock().poisoned {
            return Err(error.repeat());
        }
        let (closed, open) = committer.log.unsynced();
        for file in closed.iter().chain(&open) {
            if let Err(error) = file.sync() {
                let poisoned = poisoned(&error);
                self.syncing.lock().poisoned.get_or_insert(poisoned);
                return Err(error);
            }
        }
        committer.log.synced(&closed);
        let target = committer.log.last_lsn();
        self.durable_lsn.fetch_max(target, Ordering::AcqRel);
        self.synced.notify_all();
        Ok(target)
    }

    /// Fails once a sync has failed.
    pub(super) fn check_poisoned(&self) -> Result<()> {
        match &self.syncing.lock().poisoned {
            Some(error) => Err(error.repeat()),
            None => Ok(()),
        }
    }
}

#[cold]
fn poisoned(error: &Error) -> Error {
    let path = error.path().unwrap_or(Path::new("")).display();
    Error::closed(format!(
        "a sync of {path} failed ({error}); nothing more is acknowledged until the database is opened again"
    ))
}

impl Pending {
    fn answer(self, result: Result<u64>) {
        if let Some(slot) = &self.slot {
            *slot.0.lock() = Some((result, self.entry));
        }
    }
}

impl Committer {
    fn check_open(&self) -> Result<()> {
        if self.closed { Err(Error::closed("the database is closed")) } else { Ok(()) }
    }

    fn append(&mut self, id: u32, time: Timestamp, value: crate::model::ValueRef<'_>) {
        match value {
            crate::model::ValueRef::Bytes(bytes) => {
                self.open_frame.bytes_ids.push(id);
                self.open_frame.bytes_times.push(time.nanos());
                self.open_frame.bytes.push(bytes);
                self.head.append_bytes(id, time.nanos(), bytes, &mut self.scratch);
            }
            crate::model::ValueRef::F64(value) => self.append_word(id, time, value.to_bits()),
            crate::model::ValueRef::I64(value) => self.append_word(id, time, value as u64),
        }
    }

    #[inline]
    fn append_word(&mut self, id: u32, time: Timestamp, word: u64) {
        self.open_frame.ids.push(id);
        self.open_frame.times.push(time.nanos());
        self.open_frame.words.push(word);
        self.head.append_word(id, time.nanos(), word, &mut self.scratch);
    }

    fn apply(&mut self, entry: &Entry, lsn: u64) {
        match entry {
            Entry::Batch(data) => self.head.apply(&data.columns, lsn, &mut self.scratch),
            Entry::Delete(record) => {
                // The head first: whoever finds the tombstone finds the head to be at least as new.
                self.head.delete(record, lsn);
                self.versions.delete(lsn, record);
            }
            Entry::Metadata(record) => {
                self.head.advance(lsn);
                self.metadata.push((lsn, record.clone()));
            }
        }
    }

    fn resolve_names(&mut self, data: &mut BatchData) -> Result<()> {
        let registry = self.head.registry().clone();
        let BatchData { columns, named, keys } = data;
        let mut missing = Vec::new();
        {
            let registry = registry.read();
            for named in named.iter() {
                let key = keys.get(named.key_start..named.key_end).unwrap_or_default();
                match registry.find(key, named.value_type, named.hash) {
                    Some(id) => columns.set_ids(named.value_type, named.positions(), id),
                    None => missing.push(*named),
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let mut registry = registry.write();
        for named in missing {
            let key = keys.get(named.key_start..named.key_end).unwrap_or_default();
            let make = || crate::SeriesKey::from_checked_bytes(key);
            let id = register(&mut registry, key, make, named.value_type, named.hash, self.series_count_max)?;
            columns.set_ids(named.value_type, named.positions(), id);
        }
        Ok(())
    }

    /// The open frame as an entry of a group, if it holds anything.
    fn take_open_frame(&mut self) -> Option<Pending> {
        if self.open_frame.is_empty() {
            return None;
        }
        let data = BatchData { columns: std::mem::take(&mut self.open_frame), ..BatchData::default() };
        Some(Pending { entry: Entry::Batch(data), slot: None })
    }

    /// The number of a series, made alive if it is not.
    pub(super) fn register(&mut self, key: &crate::SeriesKey, value_type: crate::ValueType) -> Result<u32> {
        self.check_open()?;
        let mut registry = self.head.registry().write();
        let hash = key_hash(key.as_bytes());
        let count_max = self.series_count_max;
        let id = register(&mut registry, key.as_bytes(), || key.clone(), value_type, hash, count_max)?;
        registry.hold(id);
        Ok(id)
    }

    /// Collects in `definitions` the series of `columns` that the log does not know in this epoch.
    fn define(&mut self, columns: &BatchColumns, defined_now: &mut Vec<u32>) {
        self.definitions.clear();
        for id in columns.ids.iter().chain(&columns.bytes_ids) {
            let word = self.defined.get(*id as usize / 64).copied().unwrap_or(0);
            if word >> (id % 64) & 1 == 1 {
                continue;
            }
            if let Some((key, value_type)) = self.head.registry().read().get(*id) {
                self.definitions.push(Definition { id: *id, value_type, key: key.clone() });
            }
            self.set_defined(*id, true);
            defined_now.push(*id);
        }
    }

    fn set_defined(&mut self, id: u32, defined: bool) {
        let word = id as usize / 64;
        if self.defined.len() <= word {
            self.defined.resize(word + 1, 0);
        }
        if let Some(bits) = self.defined.get_mut(word) {
            *bits = *bits & !(1 << (id % 64)) | u64::from(defined) << (id % 64);
        }
    }

    /// Whether nothing of this epoch has to be kept.
    pub(super) fn is_clean(&self) -> bool {
        self.head.is_empty() && self.head.delete_count() == 0 && self.metadata.is_empty()
    }

    /// Ends the epoch and puts `head` in the place of the active one, which is returned. The log is synced and
    /// the open frame closed.
    pub(super) fn swap_head(&mut self, head: Arc<Head>) -> Arc<Head> {
        self.log.begin_epoch();
        self.defined.clear();
        self.head_since = None;
        std::mem::replace(&mut self.head, head)
    }
}

fn register(
    registry: &mut crate::head::Registry,
    key: &[u8],
    make: impl FnOnce() -> crate::SeriesKey,
    value_type: crate::ValueType,
    hash: u64,
    count_max: u64,
) -> Result<u32> {
    if let Some(id) = registry.find(key, value_type, hash) {
        return Ok(id);
    }
    let key = make();
    if let Some(other) = registry.other_type(key.as_bytes(), value_type, hash) {
        return Err(other_type(&key, other, value_type));
    }
    if registry.count() >= count_max {
        return Err(Error::limit_exceeded(format!(
            "series {key} would be one more than series_count_max ({count_max}) alive at once"
        )));
    }
    Ok(registry.insert(key, value_type, hash))
}

#[cold]
pub(super) fn other_type(key: &crate::SeriesKey, other: crate::ValueType, wanted: crate::ValueType) -> Error {
    Error::invalid_input(format!(
        "series {key} holds {} values and is in use; {} was asked for",
        other.name(),
        wanted.name()
    ))
}

/// Removes the samples below `floor`; returns how many.
fn drop_below(data: &mut BatchData, floor: i64) -> usize {
    let below = |times: &[i64]| times.iter().fold(i64::MAX, |least, time| least.min(*time)) < floor;
    let columns = &data.columns;
    if !below(&columns.times) && !below(&columns.bytes_times) {
        return 0;
    }
    let before = columns.len();
    // Should the write fail, the batch is looked up again: its series stand where their samples then do.
    let (words_kept, bytes_kept) = (kept(&columns.times, floor), kept(&columns.bytes_times, floor));
    for named in &mut data.named {
        let kept = if named.value_type == ValueType::Bytes { &bytes_kept } else { &words_kept };
        let place = |position: u32| kept.get(position as usize).copied().unwrap_or_default();
        let Range { start, end } = named.positions();
        (named.position, named.count) = (place(start), place(end) - place(start));
    }
    let mut kept = BatchColumns::default();
    for ((id, time), word) in columns.ids.iter().zip(&columns.times).zip(&columns.words) {
        if *time >= floor {
            kept.ids.push(*id);
            kept.times.push(*time);
            kept.words.push(*word);
        }
    }
    for ((id, time), value) in columns.bytes_ids.iter().zip(&columns.bytes_times).zip(columns.bytes.iter()) {
        if *time >= floor {
            kept.bytes_ids.push(*id);
            kept.bytes_times.push(*time);
            kept.bytes.push(value);
        }
    }
    data.columns = kept;
    before - data.columns.len()
}

/// How many of the times before each position, and before the end, are at or above `floor`.
fn kept(times: &[i64], floor: i64) -> Vec<u32> {
    let mut count = 0;
    let counts = times.iter().map(|time| {
        count += u32::from(*time >= floor);
        count
    });
    std::iter::once(0).chain(counts).collect()
}
