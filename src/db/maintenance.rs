//! The work that no caller waits for: sync at an interval, flush, merge, retention, removal of files.
//!
//! All of it is steps under one lock, run by a thread of the database, by the host through
//! [`Db::maintain`](crate::Db::maintain), or by a call that wants it now. Each step can be cut off by a crash at any
//! place and is begun anew by the next open.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use crate::block::{BlockMeta, BlockReader};
use crate::compact;
use crate::db::Inner;
use crate::db::options::{AtDiskCap, Background};
use crate::db::recover::{BlockOpener, to_record};
use crate::db::version::{Version, to_tombstone};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::name;
use crate::head::Head;
use crate::ledger::Reservation;
use crate::manifest::{CleanShutdown, Edit, MetricMetadata};
use crate::model::Timestamp;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::thread::JoinHandle;
use crate::sync::{Condvar, Mistake, Mutex, makes};

/// Files that no version names stay this long for reader processes that are about to open them.
const GRACE: Duration = Duration::from_secs(5);
/// Free memory is handed back when heads and merges of so many bytes are gone.
const RELEASE_SIZE_MIN: usize = 4 << 20;
/// How often the thread looks for work when nobody calls it.
const TICK: Duration = Duration::from_millis(500);
/// How long a write waits for a flush before it fails.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(60);
/// What a merge takes of memory besides what it keeps for each series.
const MERGE_SIZE_MIN: usize = 256 << 10;
/// What it keeps for the index of its output: some bytes for each tag of a series, and the text of new tags.
const MERGE_SERIES_SIZE: usize = 200;
/// After a step failed, it is tried again this much later.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the steps share.
#[derive(Debug, Default)]
pub(super) struct Maintenance {
    /// Held for the length of a step: there is one at a time.
    step: Mutex<Steps>,
    signal: Mutex<Signal>,
    /// Wakes the thread, and writers that wait for room.
    changed: Condvar,
    last_sync: Mutex<Duration>,
    failures: Mutex<Failures>,
    /// Bytes of all files but the log, after the last step.
    files_size: AtomicU64,
}

#[derive(Debug, Default)]
struct Steps {
    /// Files to remove, and when they were given up.
    trash: Vec<(PathBuf, u64, Duration)>,
    /// Heads that were flushed while queries still held them.
    retired: Vec<Weak<Head>>,
    /// Live blocks that a merge found damaged. They stay, for queries of what is sound in them, and later merges stop
    /// short of them.
    unreadable: BTreeSet<u64>,
    /// Bytes of heads that were dropped since free memory was last handed back.
    freed_size: usize,
}

#[derive(Debug, Default)]
struct Signal {
    stop: bool,
    work: bool,
}

/// What went wrong last in the background.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    last: Option<Error>,
    not_before: Duration,
}

/// The threads of a database.
#[derive(Debug, Default)]
pub(super) struct Threads {
    stop: Option<Arc<Inner>>,
    handles: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inner").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Threads {
    /// Starts what [`Background`] asks for.
    pub(super) fn start(inner: &Arc<Inner>) -> Result<Self> {
        let mut threads = Threads { stop: Some(inner.clone()), handles: Vec::new() };
        if inner.options.background == Background::Host {
            return Ok(threads);
        }
        let weak = Arc::downgrade(inner);
        threads.handles.push(inner.env().spawn("icecore-maintain", move || maintain_loop(&weak))?);
        if let Some(interval) = inner.options.sync_interval {
            let weak = Arc::downgrade(inner);
            threads.handles.push(inner.env().spawn("icecore-sync", move || sync_loop(&weak, interval))?);
        }
        Ok(threads)
    }

    /// Stops the threads and waits for them.
    pub(super) fn stop(self) {
        if let Some(inner) = &self.stop {
            inner.maintenance.signal.lock().stop = true;
            inner.maintenance.changed.notify_all();
        }
        for handle in self.handles {
            // A thread that panicked has already said so; closing goes on.
            let _ = handle.join();
        }
    }
}

fn maintain_loop(inner: &Weak<Inner>) {
    while let Some(inner) = inner.upgrade() {
        let more = match inner.background_step() {
            Ok(more) => more,
            Err(error) => {
                inner.note_failure(error);
                false
            }
        };
        let mut signal = inner.maintenance.signal.lock();
        if signal.stop {
            return;
        }
        if !more && !signal.work {
            inner.maintenance.changed.wait_for(&mut signal, TICK);
        }
        signal.work = false;
        if signal.stop {
            return;
        }
    }
}

fn sync_loop(inner: &Weak<Inner>, interval: Duration) {
    while let Some(inner) = inner.upgrade() {
        {
            let mut signal = inner.maintenance.signal.lock();
            let deadline = inner.env().clock.monotonic() + interval;
            while !signal.stop && inner.env().clock.monotonic() < deadline {
                let timeout = inner.env().clock.timeout(deadline);
                inner.maintenance.changed.wait_for(&mut signal, timeout);
            }
            if signal.stop {
                return;
            }
        }
        if let Err(error) = inner.sync_all() {
            inner.note_failure(error);
        }
    }
}

impl Inner {
    fn note_failure(&self, error: Error) {
        let mut failures = self.maintenance.failures.lock();
        failures.count += 1;
        failures.not_before = self.env().clock.monotonic() + RETRY_AFTER;
        failures.last = Some(error);
    }

    /// How many background steps failed, and what the last one said.
    pub(super) fn failures(&self) -> (u64, Option<String>) {
        let failures = self.maintenance.failures.lock();
        (failures.count, failures.last.as_ref().map(ToString::to_string))
    }

    fn sync_all(&self) -> Result<()> {
        self.drain_buffers();
        let lsn = self.commits.push_to_os()?;
        self.commits.wait_durable(lsn)
    }

    fn background_step(&self) -> Result<bool> {
        if self.env().clock.monotonic() < self.maintenance.failures.lock().not_before {
            return Ok(false);
        }
        self.step()
    }

    /// One step of the host's.
    pub(super) fn maintain(&self) -> Result<bool> {
        if let Some(interval) = self.options.sync_interval {
            let now = self.env().clock.monotonic();
            let mut last = self.maintenance.last_sync.lock();
            if now.saturating_sub(*last) >= interval {
                *last = now;
                drop(last);
                self.sync_all()?;
            }
        }
        self.step()
    }

    /// Does the most urgent thing that is due. Returns whether it did anything.
    fn step(&self) -> Result<bool> {
        let mut steps = self.maintenance.step.lock();
        let done = self.step_locked(&mut steps);
        self.note_size(&steps);
        done
    }

    fn step_locked(&self, steps: &mut Steps) -> Result<bool> {
        // Near the cap a reader's courtesy is not worth a refused write.
        let grace = if self.over_disk_cap(0) { Duration::ZERO } else { GRACE };
        self.empty_trash(steps, grace);
        if self.version().frozen.is_some() {
            self.flush_frozen(steps)?;
            return Ok(true);
        }
        if self.flush_is_due() && self.freeze()? {
            self.flush_frozen(steps)?;
            return Ok(true);
        }
        if self.retain(steps)? {
            return Ok(true);
        }
        if self.options.compaction && self.merge_once(steps, false)? {
            return Ok(true);
        }
        self.release_memory(steps);
        Ok(false)
    }

    /// When there is nothing else to do, or somebody waits for a flush: hands back what dropped heads have left free.
    fn release_memory(&self, steps: &mut Steps) {
        if steps.freed_size >= RELEASE_SIZE_MIN {
            steps.freed_size = 0;
            self.env().release_free_memory();
        }
    }

    fn flush_is_due(&self) -> bool {
        let (size, log_size, since) = self
            .commits
            .paused(|committer| (committer.head.size(), committer.log.size(), committer.head_since));
        let now = self.env().clock.monotonic();
        size >= self.options.flush_size
            || log_size >= self.options.wal_size_max && since.is_some()
            || since.is_some_and(|since| now.saturating_sub(since) >= self.options.flush_age)
            || since.is_some() && self.over_disk_cap(0)
    }

    /// Waits, or fails, while memory or disk is short; wakes the thread when a flush is due.
    ///
    /// `size` is about what the write takes in the log.
    pub(super) fn make_room(&self, size: u64) -> Result<()> {
        if self.over_disk_cap(size) {
            self.make_disk_room(size)?;
        }
        let version = self.version();
        let active = version.active.size();
        if active < self.options.flush_size {
            return Ok(());
        }
        self.wake();
        let over = |version: &Version| {
            let used = version.memory_size() + self.cache_size() + self.ledger.reserved();
            used >= self.options.memory_size_max
                || version.frozen.is_some() && version.active.size() >= self.options.flush_size * 3 / 2
        };
        if !over(&version) {
            return Ok(());
        }
        if self.options.background == Background::Host {
            let used = version.active.size() + version.frozen.as_ref().map_or(0, |head| head.size());
            return if used < self.options.memory_size_max { Ok(()) } else { Err(self.out_of_memory()) };
        }
        let deadline = self.env().clock.monotonic() + ROOM_WAIT_MAX;
        let mut signal = self.maintenance.signal.lock();
        while over(&self.version()) {
            if signal.stop || self.env().clock.monotonic() >= deadline {
                return Err(self.out_of_memory());
            }
            if !signal.work {
                signal.work = true;
                self.maintenance.changed.notify_all();
            }
            self.maintenance.changed.wait_for(&mut signal, Duration::from_millis(50));
        }
        Ok(())
    }

    /// Brings the directory below its cap by flushing the log and, if that is wanted, by dropping what is oldest.
    fn make_disk_room(&self, size: u64) -> Result<()> {
        let mut steps = self.maintenance.step.lock();
        loop {
            self.empty_trash(&mut steps, Duration::ZERO);
            self.note_size(&steps);
            if !self.over_disk_cap(size) {
                return Ok(());
            }
            if self.version().frozen.is_some() || self.commits.log_size() > self.reserve() && self.freeze()? {
                self.flush_frozen(&mut steps)?;
            } else if !self.retain(&mut steps)? {
                let cap = self.options.disk_size_max.unwrap_or(u64::MAX);
                return Err(Error::limit_exceeded(format!(
                    "the files of the database take {} bytes and disk_size_max is {cap}, of which {} are kept for a flush and a merge",
                    self.disk_size_with(&steps),
                    self.reserve()
                )));
            }
        }
    }

    fn note_size(&self, steps: &Steps) {
        let files = self.disk_size_with(steps).saturating_sub(self.commits.log_size());
        self.maintenance.files_size.store(files, Ordering::Relaxed);
    }

    fn out_of_memory(&self) -> Error {
        let (_, last) = self.failures();
        let reason = last.map_or_else(String::new, |last| format!("; the last flush said: {last}"));
        Error::limit_exceeded(format!(
            "samples in memory reach memory_size_max ({} bytes) and no flush has made room{reason}",
            self.options.memory_size_max
        ))
    }

    fn wake(&self) {
        let mut signal = self.maintenance.signal.lock();
        if !signal.work {
            signal.work = true;
            self.maintenance.changed.notify_all();
        }
    }

    /// Flushes everything that is in memory now.
    pub(super) fn flush(&self) -> Result<()> {
        let mut steps = self.maintenance.step.lock();
        if self.version().frozen.is_some() {
            self.flush_frozen(&mut steps)?;
        }
        if self.freeze()? {
            self.flush_frozen(&mut steps)?;
        }
        self.release_memory(&mut steps);
        Ok(())
    }

    /// Merges until nothing is left to merge.
    pub(super) fn compact(&self) -> Result<()> {
        let mut steps = self.maintenance.step.lock();
        while self.merge_once(&mut steps, true)? {}
        self.release_memory(&mut steps);
        Ok(())
    }

    /// Freezes the active head, if it or its part of the log holds anything: syncs the log, begins a new epoch,
    /// swaps the heads. All between two groups of commits.
    fn freeze(&self) -> Result<bool> {
        // Most of the sync happens before writers have to wait.
        self.sync_all()?;
        self.commits.paused(|committer| {
            self.commits.close_open_frame(committer)?;
            if committer.is_clean() {
                return Ok(false);
            }
            let last_lsn = self.commits.sync_paused(committer)?;
            let fresh = Arc::new(Head::new(committer.head.registry().clone(), last_lsn));
            let frozen = committer.swap_head(fresh.clone());
            self.edit_version(|version| {
                version.frozen = Some(frozen);
                version.active = fresh;
            });
            Ok(true)
        })
    }

    /// Writes the frozen head as blocks, enters them in the manifest together with the new cut, and drops it.
    fn flush_frozen(&self, steps: &mut Steps) -> Result<()> {
        let (frozen, floor) = {
            let version = self.version();
            (version.frozen.clone(), version.floor)
        };
        let Some(head) = frozen else { return Ok(()) };
        let cut = head.last_lsn();
        let target = self.rewrite_target();
        let added = compact::flush::flush(&head, &target, floor)?;
        // When this fails the edit may be on the device all the same, so the blocks stay: the next open finds them
        // live, or removes them because others cover them.
        self.publish_flush(steps, &head, cut, &added)
    }

    fn publish_flush(
        &self,
        steps: &mut Steps,
        head: &Arc<Head>,
        cut: u64,
        added: &[BlockMeta],
    ) -> Result<()> {
        let readers = self.open_blocks(added)?;
        let metadata = self.commits.paused(|committer| {
            committer.metadata.iter().filter(|(lsn, _)| *lsn <= cut).cloned().collect::<Vec<_>>()
        });
        let older = !self.version().blocks.is_empty();
        let deletes = head.deletes(0..usize::MAX).into_iter().filter(|_| older);
        let tombstones: Vec<_> = deletes.map(|(lsn, record)| to_tombstone(lsn, &record)).collect();
        let edit = Edit {
            blocks_added: added.iter().map(to_record).collect(),
            tombstones_added: tombstones.clone(),
            cut: Some(cut),
            metadata: metadata
                .into_iter()
                .map(|(_, record)| MetricMetadata { name: record.name, metadata: record.metadata })
                .collect(),
            ..Edit::default()
        };
        self.append_edit(edit)?;
        self.edit_version(|version| {
            version.blocks.extend(readers);
            version.blocks.sort_by_key(|block| (block.meta().last_lsn, block.meta().min_time));
            version.frozen = None;
            tombstones.into_iter().for_each(|tombstone| version.add_tombstone(tombstone));
            version.prune_tombstones();
        });
        let (released, now) = (self.commits.release(cut), self.env().clock.monotonic());
        let paths = released
            .into_iter()
            .map(|segment| (name::segment_path(&self.root, segment.number), segment.size, now));
        steps.trash.extend(paths);
        self.reclaim_series(steps, head);
        steps.freed_size += head.size();
        self.tell_of_room();
        Ok(())
    }

    /// Wakes the writers that wait for room. They look for it under the lock, so it is told under the lock.
    fn tell_of_room(&self) {
        let _signal = (!makes(Mistake::TellUnlocked)).then(|| self.maintenance.signal.lock());
        self.maintenance.changed.notify_all();
    }

    /// Forgets the series that are in no head any more, unless a query holds a head that was flushed: it finds
    /// that head's series, and their keys, by the registry. Then the next flush sees to it.
    fn reclaim_series(&self, steps: &mut Steps, flushed: &Arc<Head>) {
        steps.retired.push(Arc::downgrade(flushed));
        // Ours is the one reference to the head just flushed that nobody reads by.
        let own = |head: &Weak<Head>| usize::from(head.as_ptr() == Arc::as_ptr(flushed));
        steps.retired.retain(|head| head.strong_count() > own(head));
        if steps.retired.is_empty() {
            self.commits.paused(|committer| {
                flushed.registry().write().reclaim(|id| committer.head.contains(id));
            });
        }
    }

    /// Keeps steps from running while the guard lives.
    pub(super) fn pause_maintenance(&self) -> impl Sized + '_ {
        self.maintenance.step.lock()
    }

    /// Bytes that blocks keep in memory.
    pub(super) fn cache_size(&self) -> usize {
        self.cache.statistics().size
    }

    /// Appends an edit to the manifest, with the number that the next file takes and without the tombstones that no
    /// source is old enough for.
    fn append_edit(&self, mut edit: Edit) -> Result<()> {
        debug_assert!(edit.cut.is_none_or(|cut| cut <= self.commits.durable_lsn()), "the cut is durable");
        let next_segment = self.commits.paused(|committer| committer.log.next_number());
        let needed: Vec<u64> = self.version().tombstones.iter().map(|tombstone| tombstone.lsn).collect();
        let mut manifest = self.manifest.lock();
        let known = manifest.state().tombstones.keys();
        edit.tombstones_removed = known.filter(|lsn| !needed.contains(lsn)).copied().collect();
        let next_file =
            manifest.state().next_file.max(next_segment).max(self.next_block.load(Ordering::Relaxed));
        edit.next_file = Some(next_file);
        // An unfinished file is known by a number that no edit has passed.
        self.next_block.fetch_max(next_file, Ordering::Relaxed);
        manifest.append(edit)
    }

    pub(super) fn open_blocks(&self, metas: &[BlockMeta]) -> Result<Vec<Arc<BlockReader>>> {
        let opener = BlockOpener {
            fs: self.env().fs.as_ref(),
            root: &self.root,
            database_id: self.database_id,
            mode: self.options.read_mode,
            cache: &self.cache,
        };
        metas.iter().map(|meta| opener.open(&to_record(meta)).map(Arc::new)).collect()
    }

    fn rewrite_target(&self) -> compact::Target {
        compact::Target {
            fs: self.env().fs.clone(),
            root: self.root.clone(),
            database_id: self.database_id,
            next_number: self.next_block.clone(),
        }
    }

    /// Raises the retention floor as age and the cap on disk ask, and gives up blocks that lie wholly below it.
    fn retain(&self, steps: &mut Steps) -> Result<bool> {
        let now = self.env().clock.now();
        let version = self.version();
        let mut floor = version.floor;
        if let Some(age) = self.options.retention {
            let age = i64::try_from(age.as_nanos()).unwrap_or(i64::MAX);
            floor = floor.max(now.saturating_sub(age));
        }
        if self.options.at_disk_cap == AtDiskCap::DropOldest && self.over_disk_cap(0) {
            // The block whose samples end first makes room, by raising the floor past them.
            if let Some(oldest) = version.blocks.iter().map(|block| block.meta().max_time).min() {
                floor = floor.max(Timestamp::from_nanos(oldest).saturating_add(1));
            }
        }
        let below: Vec<_> = version
            .blocks
            .iter()
            .filter(|block| Timestamp::from_nanos(block.meta().max_time) < floor)
            .cloned()
            .collect();
        // Age moves the floor all the time; an edit is worth it when a block goes or an hour has passed.
        let hour = 3_600_000_000_000;
        if floor == version.floor || below.is_empty() && floor < version.floor.saturating_add(hour) {
            return Ok(false);
        }
        self.commits.raise_floor(floor);
        let blocks_removed = below.iter().map(|block| block.meta().number).collect();
        self.append_edit(Edit { blocks_removed, floor: Some(floor), ..Edit::default() })?;
        self.edit_version(|version| {
            version.floor = floor;
            version.blocks.retain(|block| Timestamp::from_nanos(block.meta().max_time) >= floor);
            version.prune_tombstones();
        });
        self.discard_blocks(steps, &below);
        Ok(true)
    }

    fn discard_blocks(&self, steps: &mut Steps, blocks: &[Arc<BlockReader>]) {
        let now = self.env().clock.monotonic();
        for block in blocks {
            let meta = block.meta();
            steps.trash.push((name::block_path(&self.root, meta.number), meta.size, now));
        }
    }

    fn merge_once(&self, steps: &mut Steps, eager: bool) -> Result<bool> {
        let version = self.version();
        let metas = version.blocks.iter().map(|block| to_record(block.meta()));
        let (mut fixed, metas): (Vec<_>, Vec<_>) =
            metas.partition(|meta| steps.unreadable.contains(&meta.number));
        fixed.extend(self.manifest.lock().state().quarantined.values().map(|quarantined| quarantined.block));
        let limits = compact::plan::Limits {
            output_size_max: self.merge_size_max(),
            series_count_max: self.merge_series_max(),
            eager,
        };
        let Some(plan) = compact::plan::plan(&metas, &fixed, &limits) else { return Ok(false) };
        let inputs: Vec<_> = version
            .blocks
            .iter()
            .filter(|block| plan.inputs.contains(&block.meta().number))
            .cloned()
            .collect();
        let target = self.rewrite_target();
        let reservation = Reservation::new(self.ledger.clone());
        let series: u64 = inputs.iter().map(|input| u64::from(input.meta().series_count)).sum();
        reservation.grow(MERGE_SIZE_MIN + series as usize * MERGE_SERIES_SIZE)?;
        // A delete that a power cut could still undo must not be carried out for good.
        let durable = self.commits.durable_lsn();
        let tombstones: Vec<_> = version.tombstones.iter().filter(|t| t.lsn <= durable).cloned().collect();
        // Else a long merge lets the head grow until writers have to wait. What it flushes is younger than all inputs.
        let mut pause = || {
            if self.version().frozen.is_some() || self.flush_is_due() && self.freeze()? {
                self.flush_frozen(steps)?;
            }
            Ok(())
        };
        let merged = compact::merge::merge(&inputs, &plan, &tombstones, version.floor, &target, &mut pause);
        let added = merged.inspect_err(|error| note_unreadable(steps, &inputs, error))?;
        let readers = match self.open_blocks(&added) {
            Ok(readers) => readers,
            Err(error) => {
                target.discard(&added);
                return Err(error);
            }
        };
        let blocks_removed = inputs.iter().map(|block| block.meta().number).collect();
        // As with a flush, after an error here the new blocks stay.
        let blocks_added = added.iter().map(to_record).collect();
        self.append_edit(Edit { blocks_added, blocks_removed, ..Edit::default() })?;
        self.edit_version(|version| {
            version.blocks.retain(|block| !plan.inputs.contains(&block.meta().number));
            version.blocks.extend(readers);
            version.blocks.sort_by_key(|block| (block.meta().last_lsn, block.meta().min_time));
            version.prune_tombstones();
        });
        self.discard_blocks(steps, &inputs);
        steps.freed_size +=
            inputs.iter().map(|block| block.meta().series_count as usize).sum::<usize>() * MERGE_SERIES_SIZE;
        Ok(true)
    }

    /// Removes files that were given up at least `grace` ago.
    fn empty_trash(&self, steps: &mut Steps, grace: Duration) {
        let now = self.env().clock.monotonic();
        steps.trash.retain(|(path, _, since)| {
            if now.saturating_sub(*since) < grace {
                return true;
            }
            match self.env().fs.remove(path) {
                Ok(()) => false,
                // A file that cannot be removed is tried again; one that is gone is gone.
                Err(error) => error.kind() != ErrorKind::NotFound,
            }
        });
    }

    /// Bytes of all files in the directory that the engine made.
    pub(super) fn disk_size(&self) -> u64 {
        let steps = self.maintenance.step.lock();
        self.disk_size_with(&steps)
    }

    fn disk_size_with(&self, steps: &Steps) -> u64 {
        let blocks: u64 = self.version().blocks.iter().map(|block| block.meta().size).sum();
        let trash: u64 = steps.trash.iter().map(|(_, size, _)| size).sum();
        blocks + trash + self.commits.paused(|committer| committer.log.size()) + self.manifest.lock().size()
    }

    /// Whether `size` more bytes would pass the cap, or touch what is kept for one flush and one merge.
    fn over_disk_cap(&self, size: u64) -> bool {
        self.options.disk_size_max.is_some_and(|cap| {
            let used = self.maintenance.files_size.load(Ordering::Relaxed) + self.commits.log_size();
            used + size + self.reserve() > cap
        })
    }

    /// Room that is kept free under the cap for one flush, one merge and an edit.
    fn reserve(&self) -> u64 {
        self.options.disk_size_max.map_or(0, |_| self.options.flush_size as u64 + self.merge_size_max())
    }

    /// Most series that the inputs of a merge may have together, so that what a merge keeps for its index takes at most
    /// a quarter of the memory. An input of more is not merged with others.
    fn merge_series_max(&self) -> u64 {
        (self.options.memory_size_max / 4 / MERGE_SERIES_SIZE) as u64
    }

    fn merge_size_max(&self) -> u64 {
        let cap = self.options.disk_size_max.map_or(u64::MAX, |cap| cap / 16);
        cap.min(self.options.merge_size_max)
    }

    /// Ends everything in order: flush what is worth it, sync, say so in the manifest.
    pub(super) fn close(&self) -> Result<()> {
        self.buffers.close(&self.commits);
        let mut steps = self.maintenance.step.lock();
        let flushed = self.close_flush(&mut steps);
        let closed = self.commits.paused(|committer| {
            let lsn = self.commits.close_open_frame(committer).and_then(|()| {
                committer.log.close_segment();
                self.commits.sync_paused(committer)
            });
            committer.closed = true;
            lsn
        });
        let lsn = flushed.and(closed)?;
        let next_segment = self.commits.paused(|committer| committer.log.next_number());
        let clean_shutdown = Some(CleanShutdown { last_lsn: lsn, next_segment });
        self.append_edit(Edit { clean_shutdown, ..Edit::default() })?;
        self.empty_trash(&mut steps, Duration::ZERO);
        // Handles may outlive this; the directory is free for the next writer.
        *self.lock.lock() = None;
        Ok(())
    }

    fn close_flush(&self, steps: &mut Steps) -> Result<()> {
        if self.version().frozen.is_some() {
            self.flush_frozen(steps)?;
        }
        if self.commits.paused(|committer| committer.log.size()) > CLOSE_LOG_SIZE_MAX && self.freeze()? {
            self.flush_frozen(steps)?;
        }
        Ok(())
    }
}

/// Remembers the input that a merge failed on because it is damaged, so that the next merge is another one.
fn note_unreadable(steps: &mut Steps, inputs: &[Arc<BlockReader>], error: &Error) {
    if error.kind() == ErrorKind::Corruption {
        let is_it = |input: &&Arc<BlockReader>| inputs.len() == 1 || error.path() == Some(input.path());
        steps.unreadable.extend(inputs.iter().filter(is_it).map(|input| input.meta().number));
    }
}

/// A log of up to this many bytes is left to the next open: it replays in about a millisecond.
const CLOSE_LOG_SIZE_MAX: u64 = 256 << 10;
