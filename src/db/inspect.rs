//! What lies in a database's directory, and whether it is whole: for tools and for hosts that watch their disks.
//!
//! Reads beside a writer or without one, takes no lock and writes nothing. [`read`] shows as much as it can of a
//! damaged database; [`verify`] reads every byte that counts. Called by `icecore inspect` and `icecore verify`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::block::{self, BlockReader, Cache, ReadMode};
use crate::chunk::TimesMeta;
use crate::codec::choose::Encoding;
use crate::db::recover::{BlockOpener, Found, look};
use crate::env::Env;
use crate::error::{Error, ErrorKind, Result};
use crate::fs::name;
use crate::head::{Head, Registry, Replay};
use crate::manifest::{self, BlockMeta, Loaded, State};
use crate::model::{Selector, SeriesKey, TimeRange, Timestamp, ValueType};
use crate::sync::RwLock;
use crate::wal::Chain;

/// How often the log is read anew because the writer changed it meanwhile.
const TRY_COUNT_MAX: u32 = 20;
/// How long the next try waits.
const TRY_PAUSE: Duration = Duration::from_millis(10);
/// Memory for the index of the block that is read.
const CACHE_SIZE: usize = 16 << 20;

/// What a directory holds.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Inspection {
    /// What tells the database, and its snapshots, from all others.
    pub database_id: [u8; 16],
    /// How often it was opened for writing.
    pub incarnation: u64,
    /// The last LSN whose samples lie in blocks: the log up to it is no longer needed.
    pub cut: u64,
    /// Nothing before this time is in any answer.
    pub floor: Timestamp,
    /// The last writer closed it in order, or none has opened it since.
    pub is_closed: bool,
    /// Bytes behind the last whole edit of the manifest.
    pub manifest_torn_size: u64,
    /// The live blocks, by number.
    pub blocks: Vec<BlockInfo>,
    /// Blocks that were set aside, with the reason.
    pub quarantined: Vec<(PathBuf, String)>,
    /// Deletes that some block may still need: LSN, which series, which times.
    pub tombstones: Vec<(u64, Selector, TimeRange)>,
    /// Metric names with metadata.
    pub metadata_count: u64,
    /// The log.
    pub log: LogInfo,
    /// Bytes of all files of the database.
    pub disk_size: u64,
}

/// One block.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BlockInfo {
    /// Its file.
    pub path: PathBuf,
    /// Its number, never given twice.
    pub number: u64,
    /// The step of the window ladder that it lies inside one window of.
    pub level: u8,
    /// Bytes of the file.
    pub size: u64,
    /// Time of its earliest sample.
    pub min_time: Timestamp,
    /// Time of its latest sample.
    pub max_time: Timestamp,
    /// The first LSN of its range.
    pub first_lsn: u64,
    /// The last LSN of its range.
    pub last_lsn: u64,
    /// How many series.
    pub series_count: u64,
    /// How many samples.
    pub sample_count: u64,
    /// Its parts by name with their bytes, in order of the file; what remains is pages and shared time columns.
    pub parts: Vec<(&'static str, u64)>,
    /// What its pages are encoded by, the most bytes first.
    pub encodings: Vec<EncodingUse>,
    /// Pages whose times are a start and a step.
    pub affine_page_count: u64,
    /// Pages whose times are a column that pages share.
    pub shared_page_count: u64,
    /// Why not all of it could be read.
    pub damage: Option<String>,
}

/// How much an encoding is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EncodingUse {
    /// Its name in `docs/format.md`.
    pub name: &'static str,
    /// Pages.
    pub page_count: u64,
    /// Samples in them.
    pub sample_count: u64,
    /// Bytes of their values.
    pub size: u64,
}

/// The log.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LogInfo {
    /// Segments: file, bytes on disk, last LSN.
    pub segments: Vec<(PathBuf, u64, u64)>,
    /// Frames that are not in blocks yet.
    pub frame_count: u64,
    /// Samples in them.
    pub sample_count: u64,
    /// The last LSN.
    pub last_lsn: u64,
    /// Where it ends in bytes that are no frame: path, offset, reason. That is what a crash leaves, and no damage.
    pub torn: Option<(PathBuf, u64, String)>,
    /// Why it cannot be read.
    pub damage: Option<String>,
}

/// What a series takes in blocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeriesUse {
    /// Name and tags.
    pub key: SeriesKey,
    /// Its type.
    pub value_type: ValueType,
    /// Blocks that hold some of it.
    pub block_count: u64,
    /// Pages.
    pub page_count: u64,
    /// Samples; one that lies in two blocks counts twice.
    pub sample_count: u64,
    /// Bytes of its values.
    pub value_size: u64,
}

/// Something damaged.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where in it, if that is known.
    pub offset: Option<u64>,
    /// What is wrong.
    pub what: String,
    /// The series concerned, where it is one and its key could be read.
    pub series: Option<SeriesKey>,
    /// How many series are concerned, where that is known.
    pub series_count: Option<u64>,
    /// The times concerned, where they are known.
    pub range: Option<TimeRange>,
}

/// What [`verify`] tells on its way.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// So many bytes of so many are checked.
    Progress {
        /// Bytes checked.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Something is damaged; the rest is checked nevertheless.
    Damage(Damage),
}

/// How much was found whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Verified {
    /// Blocks read.
    pub block_count: u64,
    /// Pages that hold what the directory says.
    pub page_count: u64,
    /// Samples in blocks.
    pub sample_count: u64,
    /// Frames of the log.
    pub frame_count: u64,
    /// Samples in those frames.
    pub frame_sample_count: u64,
    /// How often [`Event::Damage`] was told.
    pub damage_count: u64,
    /// See [`LogInfo::torn`].
    pub torn: Option<(PathBuf, u64, String)>,
}

/// What the directory `root` holds, without reading samples.
///
/// # Errors
/// `NotFound`, or `InvalidInput` when it is something else; `Corruption` when the manifest is damaged, since nothing can be told
/// without it; `UnsupportedVersion`, `Io`.
pub fn read(env: &Env, root: &Path) -> Result<Inspection> {
    let loaded = load(env, root)?;
    let state = &loaded.state;
    let cache = Arc::new(Cache::new(CACHE_SIZE));
    let opener = opener(env, root, state, &cache);
    let blocks = state.blocks.values().map(|meta| inspect_block(&opener, meta)).collect::<Result<_>>()?;
    Ok(Inspection {
        database_id: state.database_id,
        incarnation: state.incarnation,
        cut: state.cut,
        floor: state.floor,
        is_closed: state.clean_shutdown.is_some(),
        manifest_torn_size: loaded.torn_size,
        blocks,
        quarantined: state
            .quarantined
            .values()
            .map(|q| (quarantine_path(root, q.block.number), q.reason.clone()))
            .collect(),
        tombstones: state.tombstones.values().map(|t| (t.lsn, t.selector.clone(), t.range)).collect(),
        metadata_count: state.metadata.len() as u64,
        log: inspect_log(env, root, state)?,
        disk_size: disk_size(env, root)?,
    })
}

/// What each series that `selector` matches takes in blocks, in order of keys.
///
/// # Errors
/// As [`read`]; `Corruption` also when a block is damaged.
pub fn series(env: &Env, root: &Path, selector: &Selector) -> Result<Vec<SeriesUse>> {
    let cache = Arc::new(Cache::new(CACHE_SIZE));
    let mut found: BTreeMap<(SeriesKey, ValueType), SeriesUse> = BTreeMap::new();
    let state = load(env, root)?.state;
    let opener = opener(env, root, &state, &cache);
    for meta in state.blocks.values() {
        let block = opener.open(meta)?;
        for ordinal in block.select(selector)? {
            let (key, chunk) = (block.key(ordinal)?, block.chunk(ordinal)?);
            let value_type = chunk.value_type();
            let own = found.entry((key.clone(), value_type)).or_insert_with(|| SeriesUse {
                key,
                value_type,
                block_count: 0,
                page_count: 0,
                sample_count: 0,
                value_size: 0,
            });
            own.block_count += 1;
            for page in chunk.pages() {
                own.page_count += 1;
                own.sample_count += u64::from(page.meta.aggregate.count);
                own.value_size += u64::from(page.meta.values_size);
            }
        }
    }
    Ok(found.into_values().collect())
}

/// Checks every checksum, every page against its aggregate, every index against its series, and that the log is the
/// one that the manifest needs; tells `listen` exactly what is damaged. Writes nothing.
///
/// # Errors
/// Those that say nothing about the data: `NotFound` or `InvalidInput` when `root` is no database, `UnsupportedVersion`, `Io`.
pub fn verify(env: &Env, root: &Path, listen: &mut dyn FnMut(Event)) -> Result<Verified> {
    let mut verifier = Verifier { env, root, listen, found: Verified::default() };
    match load(env, root) {
        Ok(loaded) => verifier.run(&loaded.state)?,
        Err(error) if error.kind() == ErrorKind::Corruption => verifier.damage(&error, None),
        Err(error) => return Err(error),
    }
    Ok(verifier.found)
}

fn load(env: &Env, root: &Path) -> Result<Loaded> {
    match look(env.fs.as_ref(), root, false)? {
        Found::Nothing => Err(Error::not_found("there is no database").in_path(root)),
        Found::Database => manifest::read(env.fs.as_ref(), root),
    }
}

fn quarantine_path(root: &Path, number: u64) -> PathBuf {
    root.join(name::QUARANTINE_DIR).join(name::block(number))
}

fn disk_size(env: &Env, root: &Path) -> Result<u64> {
    let mut total = 0;
    for dir in [
        root.to_owned(),
        root.join(name::WAL_DIR),
        root.join(name::BLOCK_DIR),
        root.join(name::QUARANTINE_DIR),
    ] {
        match env.fs.list(&dir) {
            Ok(entries) => total += entries.iter().map(|entry| entry.size).sum::<u64>(),
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}

fn opener<'a>(env: &'a Env, root: &'a Path, state: &State, cache: &'a Arc<Cache>) -> BlockOpener<'a> {
    let (fs, database_id) = (env.fs.as_ref(), state.database_id);
    BlockOpener { fs, root, database_id, mode: ReadMode::Pread, cache }
}

fn inspect_block(opener: &BlockOpener<'_>, meta: &BlockMeta) -> Result<BlockInfo> {
    let mut info = BlockInfo {
        path: name::block_path(opener.root, meta.number),
        number: meta.number,
        level: meta.level,
        size: meta.size,
        min_time: meta.min_time,
        max_time: meta.max_time,
        first_lsn: meta.first_lsn,
        last_lsn: meta.last_lsn,
        series_count: meta.series_count,
        sample_count: meta.sample_count,
        parts: Vec::new(),
        encodings: Vec::new(),
        affine_page_count: 0,
        shared_page_count: 0,
        damage: None,
    };
    let filled = opener.open(meta).and_then(|block| fill_block(&block, &mut info));
    match filled {
        Ok(()) => Ok(info),
        Err(error) if matches!(error.kind(), ErrorKind::Corruption | ErrorKind::NotFound) => {
            info.damage = Some(error.to_string());
            Ok(info)
        }
        Err(error) => Err(error),
    }
}

fn fill_block(block: &BlockReader, info: &mut BlockInfo) -> Result<()> {
    for part in block.parts()? {
        let size = part.bytes.end - part.bytes.start;
        match info.parts.iter_mut().find(|(name, _)| *name == part.name) {
            Some((_, sum)) => *sum += size,
            None => info.parts.push((part.name, size)),
        }
    }
    for number in 0..block.group_count() {
        let group = block.group(number)?;
        for (_, pages) in group.ordinals().filter_map(|ordinal| group.series(ordinal)) {
            for page in pages {
                let name = encoding_name(page.meta.encoding);
                let at = info.encodings.iter().position(|own| own.name == name).unwrap_or_else(|| {
                    info.encodings.push(EncodingUse { name, page_count: 0, sample_count: 0, size: 0 });
                    info.encodings.len() - 1
                });
                if let Some(own) = info.encodings.get_mut(at) {
                    own.page_count += 1;
                    own.sample_count += u64::from(page.meta.aggregate.count);
                    own.size += u64::from(page.meta.values_size);
                }
                match page.meta.times {
                    TimesMeta::Affine { .. } => info.affine_page_count += 1,
                    TimesMeta::Shared { .. } => info.shared_page_count += 1,
                }
            }
        }
    }
    info.encodings.sort_by_key(|own| std::cmp::Reverse(own.size));
    Ok(())
}

fn encoding_name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Constant => "constant",
        Encoding::Raw => "raw",
        Encoding::FrameOfReference => "frame of reference",
        Encoding::Prefix => "prefix",
        Encoding::Pco => "pco",
        Encoding::PcoDoubles => "pco of doubles",
        Encoding::Plain => "plain",
        Encoding::Lz4 => "lz4",
    }
}

fn inspect_log(env: &Env, root: &Path, state: &State) -> Result<LogInfo> {
    match read_log(env, root, state) {
        Ok(info) => Ok(info),
        Err(error) if matches!(error.kind(), ErrorKind::Corruption | ErrorKind::NotFound) => {
            Ok(LogInfo { damage: Some(error.to_string()), ..LogInfo::default() })
        }
        Err(error) => Err(error),
    }
}

/// Reads the log above the cut, every frame of it, and what they refer to.
fn read_log(env: &Env, root: &Path, state: &State) -> Result<LogInfo> {
    let head = Arc::new(Head::new(Arc::new(RwLock::new(Registry::default())), state.cut));
    let mut replay = Replay::new(head.clone());
    let mut frame_count = 0;
    let proved = state.clean_shutdown.map_or(0, |clean| clean.last_lsn);
    let end =
        Chain::open(env.fs.as_ref(), root, state.database_id)?.read(state.cut, proved, false, |frame| {
            frame_count += 1;
            replay.apply(&frame)
        })?;
    let path = |number| name::segment_path(root, number);
    Ok(LogInfo {
        segments: end.segments.iter().map(|own| (path(own.number), own.size, own.last_lsn)).collect(),
        frame_count,
        sample_count: head.sample_count(),
        last_lsn: end.last_lsn,
        torn: end.torn.map(|torn| (torn.path, torn.offset, torn.reason.to_owned())),
        damage: None,
    })
}

struct Verifier<'a> {
    env: &'a Env,
    root: &'a Path,
    listen: &'a mut dyn FnMut(Event),
    found: Verified,
}

impl Verifier<'_> {
    fn run(&mut self, state: &State) -> Result<()> {
        for quarantined in state.quarantined.values() {
            let block = &quarantined.block;
            let damage = Damage {
                path: quarantine_path(self.root, block.number),
                offset: None,
                what: format!("the block is in quarantine: {}", quarantined.reason),
                series: None,
                series_count: Some(block.series_count),
                range: Some(range_of(block)),
            };
            self.tell(damage);
        }
        self.log(state)?;
        let total = state.blocks.values().map(|block| block.size).sum();
        let mut done = 0;
        let cache = Arc::new(Cache::new(0));
        for meta in state.blocks.values() {
            self.block(meta, &opener(self.env, self.root, state, &cache))?;
            done += meta.size;
            (self.listen)(Event::Progress { done, total });
        }
        Ok(())
    }

    fn block(&mut self, meta: &BlockMeta, opener: &BlockOpener<'_>) -> Result<()> {
        let env = self.env;
        let block = match opener.open(meta) {
            Ok(block) => block,
            Err(error) if matches!(error.kind(), ErrorKind::Corruption | ErrorKind::NotFound) => {
                // A writer may have merged it away since the manifest was read.
                if load(env, self.root)?.state.blocks.contains_key(&meta.number) {
                    self.damage(&error, Some(meta));
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let mut damages = Vec::new();
        let verified = block::verify(&block, &mut |damage| damages.push(damage))?;
        for damage in damages {
            let (start, end) = damage.times;
            let range = TimeRange {
                start: Timestamp::from_nanos(start),
                end: Timestamp::from_nanos(end).saturating_add(1),
            };
            self.tell(Damage {
                path: damage.error.path().unwrap_or_else(|| block.path()).to_owned(),
                offset: damage.error.offset(),
                what: damage.error.message().to_owned(),
                series: damage.series,
                series_count: Some(damage.ordinals.len() as u64),
                range: Some(range),
            });
        }
        self.found.block_count += 1;
        self.found.page_count += verified.page_count;
        self.found.sample_count += verified.sample_count;
        Ok(())
    }

    /// Reads the log; anew, with the manifest of that moment, while a writer changes both.
    fn log(&mut self, state: &State) -> Result<()> {
        let mut state = state.clone();
        for attempt in 1..=TRY_COUNT_MAX {
            match read_log(self.env, self.root, &state) {
                Ok(log) => {
                    self.found.frame_count = log.frame_count;
                    self.found.frame_sample_count = log.sample_count;
                    self.found.torn = log.torn;
                    return Ok(());
                }
                Err(error) if matches!(error.kind(), ErrorKind::Corruption | ErrorKind::NotFound) => {
                    let now = load(self.env, self.root)?.state;
                    if now == state || attempt == TRY_COUNT_MAX {
                        self.damage(&error, None);
                        return Ok(());
                    }
                    state = now;
                    self.env.clock.sleep(TRY_PAUSE);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn damage(&mut self, error: &Error, block: Option<&BlockMeta>) {
        self.tell(Damage {
            path: error.path().unwrap_or(self.root).to_owned(),
            offset: error.offset(),
            what: error.message().to_owned(),
            series: None,
            series_count: block.map(|block| block.series_count),
            range: block.map(range_of),
        });
    }

    fn tell(&mut self, damage: Damage) {
        self.found.damage_count += 1;
        (self.listen)(Event::Damage(damage));
    }
}

fn range_of(block: &BlockMeta) -> TimeRange {
    TimeRange { start: block.min_time, end: block.max_time.saturating_add(1) }
}
