//! A second process that reads a live directory: no lock, and not a byte written.
//!
//! `docs/format.md`, "Reading beside a writer". What it sees is a state that the writer was in: it reads
//! the manifest, opens and holds the files, replays the log, and reads the manifest again; when the live
//! set has changed meanwhile, it starts over.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::block::{BlockReader, Cache};
use crate::db::options::Options;
use crate::db::recover::{BlockOpener, Found, look, to_damaged};
use crate::db::version::{Version, to_tombstone};
use crate::error::{Error, ErrorKind, Result};
use crate::head::{Head, Registry, Replay};
use crate::ledger::Ledger;
use crate::manifest::{self, Loaded, Quarantined, State};
use crate::model::{Metadata, Selector};
use crate::query::source::{Pin, Snapshot};
use crate::query::{Damaged, Query};
use crate::sync::{Mutex, RwLock};
use crate::wal::Chain;

/// How often a reader starts over before it gives up.
const TRY_COUNT_MAX: u32 = 20;
/// How long it waits before the next try.
const TRY_PAUSE: Duration = Duration::from_millis(10);

/// A database opened for reading beside its writer, or without one.
///
/// Made by [`Db::open_reader`](crate::Db::open_reader). It shows what the writer had handed to the operating system when it was
/// opened, or last refreshed. Cheap to clone; clones see the same state.
#[derive(Clone)]
pub struct Reader {
    shared: Arc<Shared>,
}

struct Shared {
    root: PathBuf,
    options: Options,
    cache: Arc<Cache>,
    ledger: Arc<Ledger>,
    view: RwLock<Arc<View>>,
    /// One refresh at a time.
    refreshing: Mutex<()>,
}

/// One state of the directory.
struct View {
    state: State,
    version: Version,
    /// Goes on with the log for as long as the cut stays where it is, from one view to the next.
    progress: Arc<Mutex<Progress>>,
}

/// How far the log is in the head. Each frame moves both, so a try that is given up loses nothing.
struct Progress {
    replay: Replay,
    last_lsn: u64,
}

impl Reader {
    pub(super) fn open(root: &Path, options: Options) -> Result<Self> {
        if look(options.env.fs.as_ref(), root, false)? == Found::Nothing {
            return Err(Error::not_found("there is no database").in_path(root));
        }
        let cache = Arc::new(Cache::new(options.cache_size));
        let view = RwLock::new(Arc::new(load(root, &options, &cache, None)?));
        let ledger = Ledger::new(options.memory_size_max, options.cache_size);
        let shared =
            Shared { root: root.to_owned(), options, cache, ledger, view, refreshing: Mutex::new(()) };
        Ok(Reader { shared: Arc::new(shared) })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.shared.root
    }

    /// Goes to the present state of the directory. Queries that were begun before keep theirs.
    ///
    /// Reads the manifest, and of the log what is new.
    ///
    /// # Errors
    /// `Busy` when the writer changed files faster than they could be read, `Corruption`, `Io`; the reader then stays
    /// where it was.
    pub fn refresh(&self) -> Result<()> {
        let _one = self.shared.refreshing.lock();
        let before = self.shared.view.read().clone();
        let view = load(&self.shared.root, &self.shared.options, &self.shared.cache, Some(&before))?;
        *self.shared.view.write() = Arc::new(view);
        Ok(())
    }

    /// Begins a query of the series that `selector` names, of the state last refreshed to.
    pub fn query(&self, selector: impl Into<Selector>) -> Query {
        Query::new(self.shared.clone(), selector.into())
    }

    /// What was said of the metric `name`.
    pub fn metadata(&self, name: &str) -> Option<Metadata> {
        self.all_metadata().into_iter().find(|(own, _)| own == name).map(|(_, metadata)| metadata)
    }

    /// What was said of every metric, by name.
    pub fn all_metadata(&self) -> Vec<(String, Metadata)> {
        let view = self.shared.view.read().clone();
        let mut all = view.state.metadata.clone();
        for (_, record) in &view.progress.lock().replay.metadata {
            all.insert(record.name.clone(), record.metadata.clone());
        }
        all.into_iter().collect()
    }

    /// The last LSN that queries see.
    pub fn last_lsn(&self) -> u64 {
        self.shared.view.read().progress.lock().last_lsn
    }
}

impl Pin for Shared {
    fn pin(&self) -> Result<Snapshot> {
        Ok(self.view.read().version.pin(&self.options.env, &self.ledger))
    }

    fn pin_whole(&self, selector: &Selector) -> Result<Snapshot> {
        let view = self.view.read().clone();
        // A refresh goes on with the same head.
        let _still = view.progress.lock();
        Ok(view.version.pin_whole(&self.options.env, &self.ledger, selector))
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("path", &self.root).finish_non_exhaustive()
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

/// Reads the directory until nothing changed while it was read.
fn load(root: &Path, options: &Options, cache: &Arc<Cache>, before: Option<&Arc<View>>) -> Result<View> {
    let mut last = None;
    for _ in 0..TRY_COUNT_MAX {
        match try_load(root, options, cache, before) {
            Ok(Some(view)) => return Ok(view),
            Ok(None) => last = None,
            // What looks damaged, or is gone, may be a file that the writer is replacing.
            Err(error) if matches!(error.kind(), ErrorKind::Corruption | ErrorKind::NotFound) => {
                last = Some(error)
            }
            Err(error) => return Err(error),
        }
        options.env.clock.sleep(TRY_PAUSE);
    }
    Err(last.unwrap_or_else(|| {
        Error::busy("the writer changes files faster than they can be read").in_path(root)
    }))
}

/// One try; `None` when the live set changed meanwhile.
fn try_load(
    root: &Path,
    options: &Options,
    cache: &Arc<Cache>,
    before: Option<&Arc<View>>,
) -> Result<Option<View>> {
    let fs = options.env.fs.as_ref();
    let Loaded { state, sequence, .. } = manifest::read(fs, root)?;
    let (blocks, unreadable) = open_blocks(root, options, &state, cache, before)?;
    let goes_on =
        |before: &&Arc<View>| before.state.cut == state.cut && before.state.incarnation == state.incarnation;
    let (head, progress) = match before.filter(goes_on) {
        Some(before) => (before.version.active.clone(), before.progress.clone()),
        None => {
            let head = Arc::new(Head::new(Arc::new(RwLock::new(Registry::default())), state.cut));
            let progress = Progress { replay: Replay::new(head.clone()), last_lsn: state.cut };
            (head, Arc::new(Mutex::new(progress)))
        }
    };
    let mut locked = progress.lock();
    let Progress { replay, last_lsn } = &mut *locked;
    // A clean close says where the log ends; beside a writer there is none, and an end may be "not yet".
    let proved = state.clean_shutdown.map_or(0, |clean| clean.last_lsn);
    let read = Chain::open(fs, root, state.database_id).and_then(|chain| {
        chain.read(*last_lsn, proved, false, |frame| {
            replay.apply(&frame)?;
            *last_lsn = frame.header.lsn;
            Ok(())
        })
    });
    if manifest::read(fs, root)?.sequence != sequence {
        return Ok(None);
    }
    read?;
    let deletes = head.deletes(0..usize::MAX);
    let tombstones = deletes.iter().map(|(lsn, record)| to_tombstone(*lsn, record));
    let mut damaged: Vec<_> = state.quarantined.values().map(to_damaged).collect();
    damaged.extend(unreadable);
    let version = Version {
        blocks,
        frozen: None,
        active: head,
        tombstones: state.tombstones.values().cloned().chain(tombstones).collect(),
        floor: state.floor,
        damaged,
    };
    drop(locked);
    Ok(Some(View { state, version, progress }))
}

/// Opens the live blocks that `before` does not hold open already. Damaged ones are left out and named.
fn open_blocks(
    root: &Path,
    options: &Options,
    state: &State,
    cache: &Arc<Cache>,
    before: Option<&Arc<View>>,
) -> Result<(Vec<Arc<BlockReader>>, Vec<Damaged>)> {
    let held = |number: u64| {
        let blocks = &before?.version.blocks;
        blocks.iter().find(|block| block.meta().number == number).cloned()
    };
    let (mut blocks, mut damaged) = (Vec::new(), Vec::new());
    let opener = BlockOpener {
        fs: options.env.fs.as_ref(),
        root,
        database_id: state.database_id,
        mode: options.read_mode,
        cache,
    };
    for meta in state.blocks.values() {
        if let Some(block) = held(meta.number) {
            blocks.push(block);
            continue;
        }
        match opener.open(meta) {
            Ok(block) => blocks.push(Arc::new(block)),
            Err(error) if error.kind() == ErrorKind::Corruption => {
                damaged.push(to_damaged(&Quarantined { block: *meta, reason: error.to_string() }));
            }
            Err(error) => return Err(error),
        }
    }
    blocks.sort_by_key(|block| (block.meta().last_lsn, block.meta().min_time));
    Ok((blocks, damaged))
}
