//! Files: the traits that the engine reads and writes through, and who implements them.
//!
//! Layer 1. Dispatch is dynamic, at the granularity of one file operation. What the operations promise across
//! a crash is written at each of them; `docs/format.md` builds on exactly that, and `MemoryFs` takes
//! everything else away.

mod disk;
mod fault;
mod map;
mod memory;
pub(crate) mod name;
pub(crate) mod replace;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::fmt::Debug;
use std::path::Path;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result};

pub use disk::DiskFs;
pub use fault::{Call, Fault, FaultFs, FaultKind};
pub use map::Map;
pub use memory::{Crash, MemoryFs};

/// A file system.
///
/// A change of names (create, rename, remove, link, make and remove directories) is seen at once by everybody
/// and is on the device only after [`Fs::sync_dir`] on the directory that holds the name; a power cut before
/// that may keep or undo each change by itself. Each change is atomic: a name means one file or another, or
/// none, never half of one.
pub trait Fs: Send + Sync + Debug {
    /// Opens a file for reading.
    ///
    /// # Errors
    /// `NotFound` when there is none, `Io`.
    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>>;

    /// Creates a file that must not exist, empty, for writing.
    ///
    /// # Errors
    /// `Io`, also when the file exists; `NotFound` when its directory does not.
    fn create(&self, path: &Path) -> Result<Arc<dyn WriteFile>>;

    /// Gives the file `from` the name `to`, taking that name from a file that has it. Open handles stay with
    /// their files.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Takes away the name of a file. Its bytes go with its last name and last open handle.
    fn remove(&self, path: &Path) -> Result<()>;

    /// Gives the file `from` the second name `to`, which must be free (a hard link).
    ///
    /// # Errors
    /// `Io`, also across file systems and where there are no hard links: the caller copies instead.
    fn link(&self, from: &Path, to: &Path) -> Result<()>;

    /// What a directory holds, sorted by name. Names that are not UTF-8 are left out: the engine makes none.
    fn list(&self, path: &Path) -> Result<Vec<DirEntry>>;

    /// Makes a directory that must not exist.
    fn create_dir(&self, path: &Path) -> Result<()>;

    /// Makes a directory and what is missing above it; one that exists is fine.
    fn create_dir_all(&self, path: &Path) -> Result<()>;

    /// Removes an empty directory.
    fn remove_dir(&self, path: &Path) -> Result<()>;

    /// Brings the names in a directory to the device.
    fn sync_dir(&self, path: &Path) -> Result<()>;

    /// Size and kind of a file or directory.
    ///
    /// # Errors
    /// `NotFound`, `Io`.
    fn metadata(&self, path: &Path) -> Result<FileInfo>;

    /// Takes the exclusive lock that the file `path` stands for, making the file if needed and writing
    /// `holder` into it. The lock is advisory, ends with the process, and is released by dropping it; the
    /// file stays.
    ///
    /// # Errors
    /// `Busy` with the holder's text when another handle, here or in another process, has it.
    fn lock(&self, path: &Path, holder: &str) -> Result<Box<dyn Lock>>;

    /// Whether there is a file or directory of this name.
    fn exists(&self, path: &Path) -> Result<bool> {
        match self.metadata(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What a directory holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// The name in the directory.
    pub name: String,
    /// Size in bytes; 0 for a directory.
    pub size: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// What is known of a file without opening it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileInfo {
    /// Size in bytes; 0 for a directory.
    pub size: u64,
    /// Whether it is a directory.
    pub is_dir: bool,
}

/// An open file, for reading at any offset, by any number of threads.
pub trait ReadFile: Send + Sync + Debug {
    /// The path it was opened by, for messages.
    fn path(&self) -> &Path;

    /// Its size now, in bytes; a file that is being written grows.
    fn size(&self) -> Result<u64>;

    /// Reads from `offset` until `buffer` is full or the file ends; returns how many bytes it read.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize>;

    /// Maps the file, as large as it is now, where that is supported. Only for sealed files, which never
    /// change: the bytes of a mapping that is cut short under a reader are gone, with a signal.
    fn map(&self) -> Result<Option<Map>>;

    /// Reads exactly `buffer` from `offset`.
    ///
    /// # Errors
    /// `Corruption` when the file ends before, since callers ask for what must be there; `Io`.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let count = self.read_at(buffer, offset)?;
        if count == buffer.len() {
            return Ok(());
        }
        Err(Error::corruption(
            self.path(),
            offset,
            format!("the file ends {count} bytes on, {} are expected", buffer.len()),
        ))
    }

    /// Reads the whole file, as large as it is now.
    fn read_all(&self) -> Result<Vec<u8>> {
        let size = usize::try_from(self.size()?).map_err(|_| {
            Error::limit_exceeded(format!("{} does not fit in memory", self.path().display()))
        })?;
        let mut bytes = vec![0; size];
        let count = self.read_at(&mut bytes, 0)?;
        bytes.truncate(count);
        Ok(bytes)
    }
}

/// A file being written. Writes are seen by readers at once, and are on the device only after
/// [`WriteFile::sync`]; a power cut before that may keep any of the 512-byte sectors written since, in any
/// order, and any of the sizes.
pub trait WriteFile: Send + Sync + Debug {
    /// The path it was created by, for messages.
    fn path(&self) -> &Path;

    /// Writes all of `bytes` at `offset`, growing the file as needed; a gap reads as zeros.
    ///
    /// # Errors
    /// `Io`; then any part of the bytes may have been written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()>;

    /// Brings everything written, and the size, to the device. Never call it again after it failed: the
    /// kernel marks the lost pages clean, and the second call would report success.
    fn sync(&self) -> Result<()>;

    /// Grows the file to `size` with zeros that take their room on the device now, so that writing there
    /// cannot run out of space and syncing it needs no change of metadata. Never shrinks.
    fn allocate(&self, size: u64) -> Result<()>;

    /// Cuts the file to `size`. Only for files that nobody else has open: a published file never changes.
    fn truncate(&self, size: u64) -> Result<()>;

    /// Does to the file what a failed sync does: what was not on the device may never get there, and counts
    /// as written. For [`FaultFs`]; the simulated disk obeys, the real one needs no help.
    fn lose_unsynced(&self) {}
}

/// A held lock; dropping it releases it.
pub trait Lock: Send + Sync + Debug {}
