//! The manifest: which blocks are live, which deletes still meet them, how far the log is no longer needed.
//!
//! Layer 3. A log of edits in one file, of which only the end grows; it is written anew, as another file
//! under the same name, when the database is opened and when it has grown long. `docs/format.md`, "Manifest",
//! has the bytes and what a crash leaves at each step. Owned by the writer of the database; readers in other
//! processes call [`read`] at any time.

mod edit;
mod format;
mod reader;
mod record;
mod state;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fs::{Fs, WriteFile, name, replace};

pub(crate) use edit::{BlockMeta, CleanShutdown, Edit, MetricMetadata, Quarantined, Tombstone};
pub(crate) use reader::Loaded;
pub(crate) use state::State;

use format::{MANIFEST_HEADER_SIZE, REWRITE_FACTOR, REWRITE_SIZE_MIN};
use reader::Header;
use record::{Record, put_record};

/// What the manifest of the database in `dir` says. Writes nothing, also beside a writer; an edit that is
/// just being written is not seen yet, or seen before it is on the device.
///
/// # Errors
/// `NotFound` when there is none, `UnsupportedVersion`, `Corruption` with path and offset, `Io`.
pub(crate) fn read(fs: &dyn Fs, dir: &Path) -> Result<Loaded> {
    let path = dir.join(name::MANIFEST);
    let bytes = fs.open(&path)?.read_all()?;
    reader::load(&bytes, &path)
}

/// The manifest of an open database, to which edits are appended.
#[derive(Debug)]
pub(crate) struct Manifest {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    file: Arc<dyn WriteFile>,
    state: State,
    sequence: u64,
    /// The end of the last whole record.
    size: u64,
    base_size: u64,
    health: Health,
}

/// What can still be done with the file.
#[derive(Debug)]
enum Health {
    Good,
    /// A write failed and left something behind `size`. The next edit goes into another file.
    Untidy,
    /// A sync failed. What is on the device is unknown until the database is opened again.
    Poisoned(Error),
}

impl Manifest {
    /// Makes the manifest of a new database in `dir`, which must have none.
    ///
    /// # Errors
    /// `InvalidInput` when there is one, `Io`.
    pub(crate) fn create(fs: Arc<dyn Fs>, dir: &Path, database_id: [u8; 16], edit: &Edit) -> Result<Self> {
        if fs.exists(&dir.join(name::MANIFEST))? {
            return Err(Error::invalid_input(format!("{} already holds a database", dir.display())));
        }
        let loaded = Loaded { state: State::new(database_id), sequence: 0, torn_size: 0 };
        Self::open(fs, dir, loaded, edit)
    }

    /// Writes the manifest that was read as `loaded` anew, with `edit` applied: what was cut off is gone, and
    /// what was merely readable is on the device. Until it returns, the manifest is the old one or the new
    /// one.
    ///
    /// # Errors
    /// `InvalidInput` when the edit is impossible, `Io`.
    pub(crate) fn open(fs: Arc<dyn Fs>, dir: &Path, loaded: Loaded, edit: &Edit) -> Result<Self> {
        let mut state = loaded.state;
        state.apply(edit).map_err(impossible)?;
        let sequence = next(loaded.sequence)?;
        let bytes = encode(&state, sequence)?;
        let file = replace::replace(&*fs, dir, name::MANIFEST, &bytes)?;
        let size = bytes.len() as u64;
        Ok(Manifest {
            fs,
            dir: dir.into(),
            file,
            state,
            sequence,
            size,
            base_size: size,
            health: Health::Good,
        })
    }

    /// The sum of all edits.
    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Size of the file, in bytes. Writing it anew takes about as much again for a moment, never much more.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Applies `edit`: when this returns, it is on the device.
    ///
    /// When it fails, [`Manifest::state`] is without the edit, and later edits go on without it; but until
    /// one of them has succeeded, a crash may leave either. So what the edit adds must not be removed before,
    /// and what it removes not unlinked.
    ///
    /// # Errors
    /// `InvalidInput` when the edit is impossible in this state, `LimitExceeded` when it is too large, and
    /// nothing has happened;
    /// `Io`; `Closed` when a sync has failed before.
    pub(crate) fn append(&mut self, edit: Edit) -> Result<()> {
        self.check_health()?;
        let mut state = self.state.clone();
        state.apply(&edit).map_err(impossible)?;
        let sequence = next(self.sequence)?;
        let mut bytes = Vec::new();
        for edit in state::to_pieces(edit) {
            put_record(&mut bytes, &Record { sequence, edit })?;
        }
        let grown = self.size + bytes.len() as u64;
        if matches!(self.health, Health::Untidy)
            || grown > REWRITE_SIZE_MIN.max(self.base_size * REWRITE_FACTOR)
        {
            return self.replace(state, sequence);
        }
        self.file.write_at(&bytes, self.size).inspect_err(|_| self.health = Health::Untidy)?;
        self.file.sync().map_err(|error| self.poison(error))?;
        self.size = grown;
        self.state = state;
        self.sequence = sequence;
        Ok(())
    }

    /// Writes the manifest anew at once, as [`Manifest::append`] does when it has grown.
    #[cfg(test)]
    pub(crate) fn rewrite(&mut self) -> Result<()> {
        self.check_health()?;
        self.replace(self.state.clone(), next(self.sequence)?)
    }

    fn replace(&mut self, state: State, sequence: u64) -> Result<()> {
        let bytes = encode(&state, sequence)?;
        let file = replace::prepare(&*self.fs, &self.dir, name::MANIFEST, &bytes)?;
        replace::publish(&*self.fs, &self.dir, name::MANIFEST).map_err(|error| self.poison(error))?;
        self.file = file;
        self.state = state;
        self.sequence = sequence;
        self.size = bytes.len() as u64;
        self.base_size = self.size;
        self.health = Health::Good;
        Ok(())
    }

    fn check_health(&self) -> Result<()> {
        match &self.health {
            Health::Poisoned(error) => Err(Error::closed(format!(
                "the manifest takes no more edits, because a sync failed: {error}"
            ))),
            Health::Good | Health::Untidy => Ok(()),
        }
    }

    fn poison(&mut self, error: Error) -> Error {
        self.health = Health::Poisoned(error.repeat());
        error
    }
}

/// A manifest that says `state` in as few records as it takes.
fn encode(state: &State, sequence: u64) -> Result<Vec<u8>> {
    let mut records = Vec::new();
    for edit in state.to_edits() {
        put_record(&mut records, &Record { sequence, edit })?;
    }
    let base_size = (MANIFEST_HEADER_SIZE + records.len()) as u64;
    let mut bytes = Header { database_id: state.database_id, sequence, base_size }.encode();
    bytes.append(&mut records);
    Ok(bytes)
}

fn next(sequence: u64) -> Result<u64> {
    sequence.checked_add(1).ok_or_else(|| Error::limit_exceeded("the manifest has had 2^64 edits"))
}

#[cold]
fn impossible(problem: String) -> Error {
    Error::invalid_input(format!("the manifest refuses an edit: {problem}"))
}

#[cfg(test)]
mod tests;
