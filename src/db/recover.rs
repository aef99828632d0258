//! From what a crash left to a running database; the only place that decides what survives.
//!
//! `docs/format.md`, "Opening", argues every step. It may be cut off at any of them and be begun anew:
//! nothing that was kept once is given up by a later try, and nothing that was discarded returns.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::block::ReadMode;
use crate::block::{BlockReader, Cache};
use crate::db::Inner;
use crate::db::buffer::Buffers;
use crate::db::commit::{CommitQueue, CommitStart};
use crate::db::maintenance::Maintenance;
use crate::db::options::Options;
use crate::db::version::{Version, Versions, to_tombstone};
use crate::error::{Error, ErrorKind, Result};
use crate::fs::{Fs, Lock, name};
use crate::head::{Head, Registry, Replay};
use crate::ledger::Ledger;
use crate::manifest::{self, BlockMeta, Edit, Loaded, Manifest, Quarantined, State};
use crate::model::{TimeRange, Timestamp};
use crate::query::Damaged;
use crate::sync::atomic::AtomicU64;
use crate::sync::{Mutex, RwLock};
use crate::wal::{Chain, LSN_COUNTER_BITS, Log, LogEnd, LogStart, SegmentCopy, SegmentInfo};

/// What opening a database found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// The database was made by this open.
    pub created: bool,
    /// The last close was clean: nothing had to be recovered.
    pub clean: bool,
    /// Frames of the log that were applied.
    pub frames_replayed: u64,
    /// Samples in those frames.
    pub samples_replayed: u64,
    /// Where the log was cut off, and why: path, offset, reason. Nothing behind it was ever said to be durable.
    pub torn: Option<(PathBuf, u64, String)>,
    /// Blocks that cannot be read: path in `quarantine/`, reason.
    pub quarantined: Vec<(PathBuf, String)>,
    /// Files of an unfinished flush or merge that were removed.
    pub removed: Vec<PathBuf>,
}

/// Opens the database in `root`.
pub(super) fn open(root: &Path, mut options: Options) -> Result<Inner> {
    fit_to_disk_cap(&mut options);
    let fs = options.env.fs.clone();
    let found = look(fs.as_ref(), root, options.create)?;
    let lock = take_lock(&options, root)?;
    let mut recovery = Recovery { created: found == Found::Nothing, ..Recovery::default() };
    make_directories(fs.as_ref(), root)?;
    let loaded = match found {
        Found::Nothing => Loaded { state: State::new(new_id(&options)), sequence: 0, torn_size: 0 },
        Found::Database => manifest::read(fs.as_ref(), root)?,
    };
    let state = loaded.state.clone();
    let cache = Arc::new(Cache::new(options.cache_size));
    let (blocks, damaged) = open_blocks(&options, root, &state, &cache)?;

    let registry = Arc::new(RwLock::new(Registry::default()));
    let head = Arc::new(Head::new(registry, state.cut));
    let mut replay = Replay::new(head.clone());
    let chain = Chain::open(fs.as_ref(), root, state.database_id)?;
    let proved = state.clean_shutdown.map_or(0, |clean| clean.last_lsn);
    let end = chain.read(state.cut, proved, options.salvage, |frame| {
        recovery.frames_replayed += 1;
        replay.apply(&frame)
    })?;
    recovery.samples_replayed = head.sample_count();
    // A clean close says where the log ends; what lies behind was given up before it.
    recovery.clean = state.clean_shutdown.is_some_and(|clean| clean.last_lsn == end.last_lsn);
    let torn = end.torn.as_ref().filter(|_| !recovery.clean);
    recovery.torn = torn.map(|torn| (torn.path.clone(), torn.offset, torn.reason.to_owned()));

    // Everything up to here only read. From here on it writes, each step so that it can be repeated.
    remove_temporary(fs.as_ref(), root, &mut recovery)?;
    let (mut log, edit) = start_log(&options, root, &state, &chain, &end)?;
    let incarnation = edit.incarnation.unwrap_or_default();
    let edit = Edit { quarantined: damaged, ..edit };
    let manifest = match found {
        Found::Nothing => Manifest::create(fs.clone(), root, state.database_id, &edit)?,
        Found::Database => Manifest::open(fs.clone(), root, loaded, &edit)?,
    };
    for quarantined in manifest.state().quarantined.values() {
        let path = quarantine(fs.as_ref(), root, quarantined.block.number)?;
        recovery.quarantined.push((path, quarantined.reason.clone()));
    }
    remove_unnamed(fs.as_ref(), root, &state, &mut recovery)?;
    for segment in log.release(state.cut) {
        // What stays is tried again by the next open.
        let _ = fs.remove(&name::segment_path(root, segment.number));
    }
    let next_block = next_block_number(fs.as_ref(), root, manifest.state())?;

    let deletes = head.deletes(0..usize::MAX);
    let tombstones = deletes.iter().map(|(lsn, record)| to_tombstone(*lsn, record));
    let version = Version {
        blocks,
        frozen: None,
        active: head.clone(),
        tombstones: state.tombstones.values().cloned().chain(tombstones).collect(),
        floor: state.floor,
        damaged: manifest.state().quarantined.values().map(to_damaged).collect(),
    };
    let versions = Arc::new(Versions::new(version));
    let commits = CommitQueue::new(CommitStart {
        log,
        head,
        versions: versions.clone(),
        incarnation,
        metadata: replay.metadata,
        series_count_max: options.series_count_max,
        floor: state.floor,
        env: options.env.clone(),
    });
    Ok(Inner {
        root: root.to_owned(),
        database_id: state.database_id,
        commits,
        buffers: Buffers::default(),
        versions,
        manifest: Mutex::new(manifest),
        maintenance: Maintenance::default(),
        next_block: Arc::new(AtomicU64::new(next_block)),
        // The active head, the frozen one, and half of one more that fills while that is written.
        ledger: Ledger::new(options.memory_size_max, options.flush_size / 2 * 5 + options.cache_size),
        cache,
        recovery,
        lock: Mutex::new(Some(lock)),
        options,
    })
}

/// Makes head, log and segments small enough that a flush always has room under a small cap.
fn fit_to_disk_cap(options: &mut Options) {
    if let Some(cap) = options.disk_size_max {
        options.flush_size = options.flush_size.min(usize::try_from(cap / 8).unwrap_or(usize::MAX));
        options.wal_size_max = options.wal_size_max.min(cap / 4);
        options.segment_size_max = options.segment_size_max.min(cap / 16);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Nothing,
    Database,
}

/// What lies in `root`, without changing it.
///
/// A directory with nothing but our own empty directories and lock is what a crash during creation leaves.
pub(super) fn look(fs: &dyn Fs, root: &Path, create: bool) -> Result<Found> {
    let entries = match fs.list(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound && create => return Ok(Found::Nothing),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(Error::not_found("there is no database").in_path(root));
        }
        Err(error) => return Err(error),
    };
    if entries.iter().any(|entry| entry.name == name::MANIFEST) {
        return Ok(Found::Database);
    }
    for entry in &entries {
        let ours = match entry.name.as_str() {
            name::LOCK => !entry.is_dir,
            other if name::is_temporary(other) => !entry.is_dir,
            name::WAL_DIR | name::BLOCK_DIR | name::QUARANTINE_DIR => {
                if entry.is_dir && !fs.list(&root.join(&entry.name))?.is_empty() {
                    return Err(Error::corruption(
                        root.join(name::MANIFEST),
                        0,
                        "the manifest is missing: a snapshot that was not finished, or a damaged database",
                    ));
                }
                entry.is_dir
            }
            _ => false,
        };
        if !ours {
            let message =
                format!("the directory is not a database: it holds {:?} and no MANIFEST", entry.name);
            return Err(Error::invalid_input(message).in_path(root));
        }
    }
    if create { Ok(Found::Nothing) } else { Err(Error::not_found("there is no database").in_path(root)) }
}

fn take_lock(options: &Options, root: &Path) -> Result<Box<dyn Lock>> {
    let fs = &options.env.fs;
    if !fs.exists(root)? {
        fs.create_dir_all(root)?;
        if let Some(parent) = root.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs.sync_dir(parent)?;
        }
    }
    let program = std::env::args().next().unwrap_or_default();
    let program = Path::new(&program).file_name().map_or_else(String::new, |name| name.display().to_string());
    fs.lock(&root.join(name::LOCK), &format!("{program} (process {})", std::process::id()))
}

fn new_id(options: &Options) -> [u8; 16] {
    let (low, high) = (options.env.random_u64(), options.env.random_u64());
    (u128::from(high) << 64 | u128::from(low)).to_le_bytes()
}

fn make_directories(fs: &dyn Fs, root: &Path) -> Result<()> {
    let mut made = false;
    for dir in [name::WAL_DIR, name::BLOCK_DIR] {
        if !fs.exists(&root.join(dir))? {
            fs.create_dir_all(&root.join(dir))?;
            made = true;
        }
    }
    if made { fs.sync_dir(root) } else { Ok(()) }
}

fn remove_temporary(fs: &dyn Fs, root: &Path, recovery: &mut Recovery) -> Result<()> {
    for dir in [root.to_owned(), root.join(name::WAL_DIR), root.join(name::BLOCK_DIR)] {
        for entry in fs.list(&dir)? {
            if name::is_temporary(&entry.name) && !entry.is_dir {
                fs.remove(&dir.join(&entry.name))?;
                recovery.removed.push(dir.join(&entry.name));
            }
        }
    }
    Ok(())
}

/// Opens the live blocks, in order of LSN, and says which cannot be read.
fn open_blocks(
    options: &Options,
    root: &Path,
    state: &State,
    cache: &Arc<Cache>,
) -> Result<(Vec<Arc<BlockReader>>, Vec<Quarantined>)> {
    let mut blocks = Vec::new();
    let mut damaged = Vec::new();
    let opener = BlockOpener {
        fs: options.env.fs.as_ref(),
        root,
        database_id: state.database_id,
        mode: options.read_mode,
        cache,
    };
    for meta in state.blocks.values() {
        match opener.open(meta) {
            Ok(block) => blocks.push(Arc::new(block)),
            Err(error) if matches!(error.kind(), ErrorKind::Corruption | ErrorKind::NotFound) => {
                damaged.push(Quarantined { block: *meta, reason: error.to_string() });
            }
            Err(error) => return Err(error),
        }
    }
    blocks.sort_by_key(|block| (block.meta().last_lsn, block.meta().min_time));
    Ok((blocks, damaged))
}

/// How the live blocks of one database are opened.
#[derive(Clone, Copy)]
pub(super) struct BlockOpener<'a> {
    pub(super) fs: &'a dyn Fs,
    pub(super) root: &'a Path,
    pub(super) database_id: [u8; 16],
    pub(super) mode: ReadMode,
    pub(super) cache: &'a Arc<Cache>,
}

impl BlockOpener<'_> {
    /// Opens a block that the manifest describes.
    ///
    /// # Errors
    /// `NotFound`, and `Corruption` when it cannot be read or is another one.
    pub(super) fn open(&self, meta: &BlockMeta) -> Result<BlockReader> {
        let path = name::block_path(self.root, meta.number);
        let block = BlockReader::open(self.fs.open(&path)?, self.mode, self.cache.clone())?;
        if block.meta().database_id != self.database_id {
            return Err(Error::corruption(path, 0, "the block belongs to another database"));
        }
        if to_record(block.meta()) != *meta {
            return Err(Error::corruption(path, 0, "the footer says otherwise than the manifest"));
        }
        Ok(block)
    }
}

/// What the manifest keeps of a block.
pub(super) fn to_record(meta: &crate::block::BlockMeta) -> BlockMeta {
    BlockMeta {
        number: meta.number,
        size: meta.size,
        min_time: Timestamp::from_nanos(meta.min_time),
        max_time: Timestamp::from_nanos(meta.max_time),
        first_lsn: meta.first_lsn,
        last_lsn: meta.last_lsn,
        level: meta.level,
        series_count: u64::from(meta.series_count),
        sample_count: meta.sample_count,
    }
}

/// Moves a block's file to `quarantine/`, if it is still among the blocks.
fn quarantine(fs: &dyn Fs, root: &Path, number: u64) -> Result<PathBuf> {
    let dir = root.join(name::QUARANTINE_DIR);
    let (from, to) = (name::block_path(root, number), dir.join(name::block(number)));
    if fs.exists(&from)? {
        fs.create_dir_all(&dir)?;
        fs.sync_dir(root)?;
        fs.rename(&from, &to)?;
        fs.sync_dir(&dir)?;
        fs.sync_dir(&root.join(name::BLOCK_DIR))?;
    }
    Ok(to)
}

pub(super) fn to_damaged(quarantined: &Quarantined) -> Damaged {
    let block = &quarantined.block;
    Damaged {
        range: TimeRange { start: block.min_time, end: block.max_time.saturating_add(1) },
        what: format!("block {:#x} is in quarantine: {}", block.number, quarantined.reason),
    }
}

/// Makes durable what is kept, and gives the log that goes on behind it and the edit that takes a new incarnation.
fn start_log(
    options: &Options,
    root: &Path,
    state: &State,
    chain: &Chain<'_>,
    end: &LogEnd,
) -> Result<(Log, Edit)> {
    let fs = &options.env.fs;
    let largest = end.largest_lsn.max(state.cut);
    let incarnation = state.incarnation.max(largest >> LSN_COUNTER_BITS) + 1;
    let last_number = end.segments.iter().map(|segment| segment.number).max().unwrap_or(0);
    let mut number = state.next_file.max(last_number + 1);
    let mut segments: Vec<SegmentInfo> = end.segments.clone();
    if end.durable_lsn < end.last_lsn {
        let copy = SegmentCopy { incarnation, number, after_lsn: end.durable_lsn, last_lsn: end.last_lsn };
        let copied = chain.copy(fs.as_ref(), &copy)?;
        number += copied.len() as u64;
        for segment in &mut segments {
            segment.last_lsn = segment.last_lsn.min(end.durable_lsn);
        }
        segments.extend(copied);
    }
    let edit = Edit { incarnation: Some(incarnation), next_file: Some(number), ..Edit::default() };
    let start = LogStart {
        root: root.to_owned(),
        database_id: state.database_id,
        incarnation,
        number,
        last_lsn: end.last_lsn,
        segment_size_max: options.segment_size_max,
    };
    Ok((Log::new(fs.clone(), start, segments), edit))
}

/// Removes block files that the manifest does not name where their samples live elsewhere; the others go to quarantine.
fn remove_unnamed(fs: &dyn Fs, root: &Path, state: &State, recovery: &mut Recovery) -> Result<()> {
    let dir = root.join(name::BLOCK_DIR);
    let live: BTreeSet<u64> = state.blocks.keys().copied().collect();
    for entry in fs.list(&dir)? {
        let Some(number) = name::parse_block(&entry.name) else { continue };
        if live.contains(&number) || state.quarantined.contains_key(&number) {
            continue;
        }
        let path = dir.join(&entry.name);
        // A number that no edit ever named is of a flush or merge that was not finished: its input is in
        // the log or in live blocks. A lower one was live once and was replaced, if its LSNs are covered.
        let unfinished = number >= state.next_file;
        let covered = unfinished || is_sound_and_covered(fs, &path, state)?;
        if covered {
            fs.remove(&path)?;
            recovery.removed.push(path);
        } else {
            let reason = "a block that the manifest does not name and no live block covers".to_owned();
            recovery.quarantined.push((quarantine(fs, root, number)?, reason));
        }
    }
    Ok(())
}

fn is_sound_and_covered(fs: &dyn Fs, path: &Path, state: &State) -> Result<bool> {
    match BlockReader::open(fs.open(path)?, ReadMode::Pread, Arc::new(Cache::new(0))) {
        Ok(block) if block.meta().database_id != state.database_id => Ok(false),
        Ok(block) => Ok(is_covered(&to_record(block.meta()), state)),
        Err(error) if error.kind() == ErrorKind::Corruption => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the samples of a block that is not live are in the log, in live blocks, or below the floor.
fn is_covered(meta: &BlockMeta, state: &State) -> bool {
    if meta.first_lsn > state.cut || meta.max_time < state.floor {
        return true;
    }
    let meets = state.blocks.values().filter(|live| live.meets(meta));
    let (mut first, mut last) = (u64::MAX, 0);
    for live in meets {
        first = first.min(live.first_lsn);
        last = last.max(live.last_lsn);
    }
    first <= meta.first_lsn && meta.last_lsn <= last
}

fn next_block_number(fs: &dyn Fs, root: &Path, state: &State) -> Result<u64> {
    let mut next = state.next_file;
    for dir in [name::BLOCK_DIR, name::QUARANTINE_DIR] {
        let entries = match fs.list(&root.join(dir)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let numbers = entries.iter().filter_map(|entry| name::parse_block(&entry.name));
        next = numbers.fold(next, |next, number| next.max(number + 1));
    }
    Ok(next)
}
