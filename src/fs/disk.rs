//! The real file system.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::fs::{DirEntry, FileInfo, Fs, Lock, Map, ReadFile, WriteFile};

#[cfg(unix)]
use super::unix as system;
#[cfg(windows)]
use super::windows as system;

/// The file system of the operating system.
#[derive(Clone, Debug, Default)]
pub struct DiskFs(());

impl DiskFs {
    /// It has no state.
    pub fn new() -> Self {
        DiskFs(())
    }
}

/// Names the operation and the path; tells apart what is not there.
#[cold]
fn failed(action: &str, path: &Path, error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::NotFound => Error::not_found(format!(
            "cannot {action} {}: there is no such file or directory",
            path.display()
        )),
        _ => Error::io(action, path, error),
    }
}

impl Fs for DiskFs {
    fn open(&self, path: &Path) -> Result<Arc<dyn ReadFile>> {
        let file = File::open(path).map_err(|error| failed("open", path, error))?;
        Ok(Arc::new(DiskFile { file, path: path.to_owned() }))
    }

    fn create(&self, path: &Path) -> Result<Arc<dyn WriteFile>> {
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let file = file.map_err(|error| failed("create", path, error))?;
        Ok(Arc::new(DiskFile { file, path: path.to_owned() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(|error| failed("rename", from, error))
    }

    fn remove(&self, path: &Path) -> Result<()> {
        fs::remove_file(path).map_err(|error| failed("remove", path, error))
    }

    fn link(&self, from: &Path, to: &Path) -> Result<()> {
        fs::hard_link(from, to).map_err(|error| failed("link", from, error))
    }

    fn list(&self, path: &Path) -> Result<Vec<DirEntry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(|error| failed("list", path, error))? {
            let entry = entry.map_err(|error| failed("list", path, error))?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            match entry.metadata() {
                Ok(metadata) => {
                    let FileInfo { size, is_dir } = metadata.into();
                    entries.push(DirEntry { name, size, is_dir });
                }
                // Removed between the two calls: a second process lists while the first one works.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed("list", path, error)),
            }
        }
        entries.sort_unstable();
        Ok(entries)
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        fs::create_dir(path).map_err(|error| failed("make directory", path, error))
    }

    fn create_dir_all(&self, path: &Path) -> Result<()> {
        fs::create_dir_all(path).map_err(|error| failed("make directory", path, error))
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        fs::remove_dir(path).map_err(|error| failed("remove directory", path, error))
    }

    fn sync_dir(&self, path: &Path) -> Result<()> {
        system::sync_dir(path).map_err(|error| failed("sync directory", path, error))
    }

    fn metadata(&self, path: &Path) -> Result<FileInfo> {
        Ok(fs::metadata(path).map_err(|error| failed("look at", path, error))?.into())
    }

    fn lock(&self, path: &Path, holder: &str) -> Result<Box<dyn Lock>> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
        let mut file = file.map_err(|error| failed("open", path, error))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(held(&mut file, path)),
            Err(TryLockError::Error(error)) => return Err(failed("lock", path, error)),
        }
        // The text helps people and decides nothing, so it is not synced.
        let text = format!("{holder} (process {})", std::process::id());
        file.set_len(0).map_err(|error| failed("write", path, error))?;
        file.write_all(text.as_bytes()).map_err(|error| failed("write", path, error))?;
        Ok(Box::new(DiskLock { _file: file }))
    }
}

/// More than this of a lock file is not a holder's text.
const HOLDER_SIZE_MAX: u64 = 1024;

/// Says who holds the lock. Windows lets nobody read a locked file; then the holder stays unnamed.
#[cold]
fn held(file: &mut File, path: &Path) -> Error {
    let mut text = Vec::new();
    let read = file.take(HOLDER_SIZE_MAX).read_to_end(&mut text);
    let holder = match read {
        Ok(count) if count > 0 => String::from_utf8_lossy(&text).into_owned(),
        _ => "another process".to_owned(),
    };
    Error::busy(format!("{} is held by {holder}", path.display()))
}

impl From<fs::Metadata> for FileInfo {
    fn from(metadata: fs::Metadata) -> Self {
        let is_dir = metadata.is_dir();
        FileInfo { size: if is_dir { 0 } else { metadata.len() }, is_dir }
    }
}

/// Closing the file releases it.
#[derive(Debug)]
struct DiskLock {
    _file: File,
}

impl Lock for DiskLock {}

#[derive(Debug)]
struct DiskFile {
    file: File,
    path: PathBuf,
}

impl DiskFile {
    fn failed(&self, action: &str, error: io::Error) -> Error {
        failed(action, &self.path, error)
    }
}

impl ReadFile for DiskFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn size(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(|error| self.failed("look at", error))?.len())
    }

    fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match system::read_at(&self.file, rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("read", error)),
            }
        }
        Ok(filled)
    }

    fn map(&self) -> Result<Option<Map>> {
        Ok(Some(Map::of_file(&self.file).map_err(|error| self.failed("map", error))?))
    }
}

/// Zeros are written in pieces of this size.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl WriteFile for DiskFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> Result<()> {
        system::write_all_at(&self.file, bytes, offset).map_err(|error| self.failed("write", error))
    }

    /// `fdatasync`, which brings the size along; on macOS `F_FULLFSYNC`, since there `fsync` stops at the
    /// drive's cache.
    fn sync(&self) -> Result<()> {
        self.file.sync_data().map_err(|error| self.failed("sync", error))
    }

    /// Writes zeros: the same everywhere, and without unsafe code, which `fallocate` would need. That also leaves
    /// extents "unwritten" on ext4 and XFS, and turning them into written ones is a change of metadata at each sync.
    fn allocate(&self, size: u64) -> Result<()> {
        let mut end = self.file.metadata().map_err(|error| self.failed("look at", error))?.len();
        while end < size {
            let count = usize::try_from(size - end).unwrap_or(usize::MAX).min(ZEROS.len());
            let zeros = ZEROS.get(..count).unwrap_or(&ZEROS);
            self.write_at(zeros, end)?;
            end += zeros.len() as u64;
        }
        Ok(())
    }

    fn truncate(&self, size: u64) -> Result<()> {
        self.file.set_len(size).map_err(|error| self.failed("cut", error))
    }
}
